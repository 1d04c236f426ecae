"""The report: complete, self-contained, the same bytes again, and nothing that a name could break."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from dissect.report import MANIFEST, REPORT, Report, require_writable, tables, write_report
from dissect.sheet import ALSO
from dissect.tables import Dissection
from dissect.units import dissect
from rewrite_core import LatentSpec
from rewrite_core.errors import Cancelled, FileError, PalimpsestError
from rewrite_core.statistics import Store
from tests.planted import DRAWS, LAYERS, SHAPES, Shapes, planted_generator

STRANGE = "<script>alert(1)</script> & ../../x"


@dataclass(frozen=True)
class Named(Shapes):
    """Shapes, of which red is called by a name that wants to be markup, and a path."""

    title: str = "<b>shapes</b>"

    @property
    def names(self) -> tuple[str, ...]:
        return (STRANGE, *super().names[1:])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(Path(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def found(store: Store) -> Dissection:
    spec = LatentSpec.of(range(80))
    return dissect(planted_generator(), spec, [SHAPES], Named(unseen=True), also=ALSO, store=store)


@pytest.fixture(scope="module")
def written(found: Dissection, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Report:
    out = tmp_path_factory.mktemp("out") / "report"
    return report(found, store, out, judge=Named())


def report(found: Dissection, store: Store, out: Path, **options) -> Report:
    return write_report(
        planted_generator(),
        found,
        out,
        store=store,
        **{"command": "palimpsest dissect", "most": 2, **options},
    )


class Page(HTMLParser):
    """Tags, links and the balance of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_all_kinds_of_files_are_there(written: Report):
    names = set(written.files)
    assert {REPORT, MANIFEST, "figures/captions.txt"} <= names
    for name in ("units", "layers", "concepts", "detectors", "iou", "effects"):
        assert {f"tables/{name}.csv", f"tables/{name}.parquet"} <= names
    figures = {Path(name).stem for name in names if name.endswith(".pdf")}
    assert {"detectors", "best-units", f"iou-00-{SHAPES}"} <= figures
    assert sum(stem.startswith("unit-") for stem in figures) == 2
    assert all(f"figures/{stem}.{kind}" in names for stem in figures for kind in ("png", "svg"))
    assert {path.relative_to(written.folder).as_posix() for path in written.folder.rglob("*.*")} == names


def test_tables_are_those_of_the_dissection(found: Dissection, written: Report):
    units = pd.read_csv(written.folder / "tables/units.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(units, found.units(), check_dtype=False)
    for name in tables(found):
        csv = pd.read_csv(written.folder / f"tables/{name}.csv", keep_default_na=False, dtype=str)
        parquet = pd.read_parquet(written.folder / f"tables/{name}.parquet")
        assert not parquet.isna().any(axis=None)
        assert list(csv) == list(parquet)
        assert len(csv) == len(parquet) > 0
    iou = pd.read_parquet(written.folder / "tables/iou.parquet")
    one = iou[(iou.unit == 1) & (iou.concept == "green")].iloc[0]
    assert one.held_out_iou == found.iou_table(SHAPES, held_out=True).green[1]


def test_the_page_needs_nothing_else_and_runs_nothing(written: Report):
    page = Page(written.page.read_text("utf-8"))
    assert page.open == []
    assert "script" not in page.tags
    assert "img" in page.tags
    for link in page.links:
        assert link.startswith(("data:image/png;base64,", "#")) or (written.folder / link).is_file(), link


def test_names_are_text_and_never_markup_or_paths(written: Report):
    text = written.page.read_text("utf-8")
    assert "<script>" not in text
    assert "<b>shapes" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; ../../x" in text
    assert all(re.fullmatch(r"[\w./-]+", name) and ".." not in name for name in written.files)


def test_the_page_tells_what_was_found(found: Dissection, written: Report):
    text = written.page.read_text("utf-8")
    for warning in found.warnings:
        assert warning.replace("'", "&#39;") in text
    best = found.concepts().set_index("concept").loc["green"]
    assert f"{best.held_out_iou:.3f}" in text
    assert "seeds 0-79" in text
    assert "palimpsest dissect" in text


def test_the_manifest_names_every_file_by_what_it_holds(found: Dissection, written: Report):
    described = json.loads((written.folder / MANIFEST).read_text("utf-8"))
    assert set(described["files"]) == set(written.files) - {MANIFEST}
    for name, digest in described["files"].items():
        assert hashlib.sha256((written.folder / name).read_bytes()).hexdigest() == digest
    assert described["fingerprint"] == found.fingerprint
    assert described["judge"] == "<b>shapes</b>"
    assert described["concepts"]["names"] == list(found.names)


def test_the_same_dissection_gives_the_same_bytes(
    found: Dissection, written: Report, store: Store, tmp_path: Path
):
    again = report(found, store, tmp_path / "again", judge=Named())
    assert again.files == written.files
    for name in written.files:
        assert (again.folder / name).read_bytes() == (written.folder / name).read_bytes(), name


def test_an_ablation_is_measured_on_samples_of_the_second_half(written: Report):
    effects = pd.read_parquet(written.folder / "tables/effects.parquet")
    green = effects[(effects.detects == "green") & (effects.concept == "green") & (effects.set == "unit")]
    assert len(green) == 1
    row = green.iloc[0]
    assert row.unit in DRAWS[SHAPES]["green"]
    assert row.after == 0 < row.before
    assert row.low <= row.effect <= row.high < 0


def test_without_a_judge_the_report_says_that_nothing_was_measured(
    found: Dissection, store: Store, tmp_path: Path
):
    silent = report(found, store, tmp_path / "silent", most=1)
    assert "tables/effects.csv" not in silent.files
    assert any(name.startswith("figures/ablation-") for name in silent.files)
    assert "Effects on concepts were not measured" in silent.page.read_text("utf-8")


def test_a_judge_must_see_pixels_alone(found: Dissection, store: Store, tmp_path: Path):
    with pytest.raises(PalimpsestError):
        report(found, store, tmp_path / "out", judge=replace(Named(), pixels_only=False))
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over_unless_forced(found: Dissection, store: Store, tmp_path: Path):
    (tmp_path / REPORT).write_text("mine")
    with pytest.raises(FileError, match="--force"):
        report(found, store, tmp_path)
    assert (tmp_path / REPORT).read_text() == "mine"
    with pytest.raises(FileError):
        report(found, store, tmp_path / REPORT, force=True)
    require_writable(tmp_path, force=True)


def test_a_report_that_is_cancelled_writes_nothing(found: Dissection, store: Store, tmp_path: Path):
    steps: list[tuple[int, int]] = []

    def cancel(done: int, total: int) -> None:
        steps.append((done, total))
        if done == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        report(found, store, tmp_path / "out", progress=cancel)
    assert [done for done, _ in steps] == [1, 2, 3, 4]
    assert not (tmp_path / "out").exists()


def test_a_dissection_that_found_nothing_is_reported_too(store: Store, tmp_path: Path):
    few = dissect(planted_generator(), LatentSpec.of(range(2)), LAYERS, _Never(), also=ALSO, store=store)
    empty = report(few, store, tmp_path / "empty", judge=_Never())
    text = empty.page.read_text("utf-8")
    assert "No unit meets any concept." in text
    assert "nothing was ablated" in text


@dataclass(frozen=True)
class _Never(Shapes):
    """One concept that is never there."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("never",)

    def __call__(self, scene):
        return super().__call__(scene)[:, :1] & False
