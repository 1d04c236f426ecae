"""Print the table and write it to ``bench.json``; name modules (``edit``) to run only those."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks import directions, dissection, edit, opening, statistics, stylegan2
from benchmarks.row import Row

SUITES = {
    "directions": directions.rows,
    "dissection": dissection.rows,
    "edit": edit.rows,
    "opening": opening.rows,
    "statistics": statistics.rows,
    "stylegan2": stylegan2.rows,
}


def main(names: list[str]) -> int:
    """Run the suites called `names`, or all; the exit status is 1 if a goal is missed."""
    table: list[Row] = []
    print(f"{'':66} {'ours':>10} {'other':>10} {'ratio':>8}  goal")
    for name in names or SUITES:
        for row in SUITES[name]():
            table.append(row)
            mark = "" if not row.goal else "  holds" if row.holds else "  MISSED"
            print(
                f"{row.name:66} {row.ours:10.4g} {row.other:10.4g} {row.ratio:8.3g}  {row.goal}{mark}",
                flush=True,
            )
    Path("bench.json").write_text(json.dumps([asdict(row) for row in table], indent=1), encoding="utf-8")
    return int(not all(row.holds for row in table))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
