"""`palimpsest edit` of a workspace: its rules solved again and compared with those in the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dashboard.commands.console import progress, warn
from dashboard.commands.opening import opened
from rewrite_core.errors import RequestError

if TYPE_CHECKING:
    from rewrite_core import EditRequest, Generator, Rule
    from rewrite_core.rules.replaying import Replayed
    from rewrite_core.rules.workspace import Workspace

__all__ = ["Again", "replayed", "told", "workspace_at", "write_rules"]

SAID = {
    "same": "solved again, the same to the bit",
    "rounding": "solved again, the same but for rounding",
    "differs": "solved again, and not the same",
    "from the file": "from the file",
}


@dataclass(frozen=True)
class Again:
    """What a workspace comes to: its generator, the rules that are on, and how each rule compares."""

    generator: Generator
    rules: tuple[Rule, ...]
    found: Sequence[Replayed]

    @property
    def request(self) -> EditRequest:
        """What the newest rule that knows its request was solved for.

        Raises:
            RequestError: none does.
        """
        from rewrite_core import EditRequest

        for rule in reversed(self.rules):
            if rule.provenance.request:
                return EditRequest.from_json(rule.provenance.request, f"the request of rule '{rule.name}'")
        raise RequestError(
            found="no rule that is on and was painted for",
            expected="one, to show what was painted",
            remedy="Leave --figure out, or draw --pairs.",
        )

    def summary(self) -> list[dict[str, Any]]:
        """One object for each rule, as `--json` gives it."""
        return [
            {
                "name": one.rule.name,
                "layer": one.rule.layer,
                "rank": one.rule.rank,
                "strength": one.rule.strength,
                "on": one.on,
                "digest": one.rule.digest,
                "outcome": one.outcome,
                "difference": one.difference,
            }
            for one in self.found
        ]


def workspace_at(edit: str) -> Workspace | None:
    """The workspace in the file at `edit`; None if it is a file of another kind, or none.

    Raises:
        FileError, RequestError: it is a damaged one.
    """
    from rewrite_core.files import read_json
    from rewrite_core.rules.workspace import LARGEST, Workspace, is_workspace

    path = Path(edit)
    if not path.is_file():
        return None
    if not is_workspace(read_json(path, what=path.name, limit_bytes=LARGEST)):
        return None
    return Workspace.load(path)


def replayed(workspace: Workspace, model: str | None, quiet: bool) -> Again:
    """Solve the rules again, on the generator at `model` or that which the workspace names.

    A rule that comes out otherwise is warned of; the file's is used.

    Raises:
        ModelMismatch, LayerError, RequestError: the workspace does not fit, or holds no rule.
    """
    from rewrite_core.rules.replaying import replay

    generator = opened(model, workspace.model.name)
    workspace.check(generator)
    if not workspace.rules:
        raise RequestError(
            found="a workspace without a rule that is on, whose edit was not tried",
            expected="at least one rule",
            remedy="Open it in the app, or save its edit by itself.",
        )
    with progress("Solving again", quiet) as advance:
        found = replay(generator, workspace, progress=advance)
    for one in found:
        if one.outcome == "differs":
            warn(
                f"Rule '{one.rule.name}' comes out otherwise here (difference {one.difference:.2g}). "
                "The file's is used."
            )
    return Again(generator, workspace.rules, found)


def write_rules(rules: Sequence[Rule], path: Path) -> list[str]:
    """Write one rule to `path`, or several beside each other, numbered from 1 in stack order; the files' names."""
    several = len(rules) > 1
    paths = [
        path.with_name(f"{path.stem}-{number}{path.suffix}") if several else path
        for number in range(1, len(rules) + 1)
    ]
    for rule, place in zip(rules, paths, strict=True):
        rule.save(place)
    return list(map(str, paths))


def told(again: Again, files: Sequence[str]) -> str:
    """What came of it, a line a rule."""
    lines = [
        f"{one.rule.name}: layer {one.rule.layer}, rank {one.rule.rank}, strength {one.rule.strength:g}"
        f"{'' if one.on else ', off'}: {SAID[one.outcome]}{_by(one)}"
        for one in again.found
    ]
    return "\n".join([*lines, *(f"  {file}" for file in files)])


def _by(one: Replayed) -> str:
    return f" (difference {one.difference:.2g})" if one.difference else ""
