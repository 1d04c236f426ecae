"""One file that holds everything: the edit, the stack of rules, the model it is all for, and the pictures on view.

    workspace = Workspace(model=ref, layer="l08", draft=request, entries=stack.entries)
    workspace.save(Path("eyes.palimpsest.json"))
    again = Workspace.load(Path("eyes.palimpsest.json"))
    again.check(generator)                # its rules fit, its layer exists
    replay(generator, again)              # solved again, and compared by digest (`replaying.py`)

The file is JSON. An edit is what `EditRequest.to_dict` writes, and a rule is its safetensors file in base64, so both
come back to the bit; beside each rule is its digest, by which a damaged one is known:

    {"format": "palimpsest-workspace", "version": 1, "model": {"name": …, "fingerprint": …}, "layer": "l08",
     "truncation": 1.0, "label": null, "title": "Blue eyes", "edit": {…},
     "rules": [{"on": true, "digest": "…", "file": "…"}], "trial": null,
     "pictures": [], "seen": {"view": "Paint", "selected": 4, "seeds": {"fresh": [1000, 1001]}},
     "origin": "", "made_with": {"palimpsest": …, "torch": …, "threads": "1"}}

`pictures` are the visitor's own (`rewrite_core.generators.own`), which `selected` numbers -1, -2, … as an edit does.
What undo could bring back is not kept. What comes from a file is held to be hostile: it is bounded before anything of
it is decoded, nothing in it is executed, and every error is one line.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from rewrite_core.errors import FileError, ModelMismatch, PalimpsestError
from rewrite_core.files import read_json, write_bytes
from rewrite_core.generators import Generator
from rewrite_core.generators.latents import LAST_SEED
from rewrite_core.generators.own import OwnPicture, PictureId
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rewrite import check_model
from rewrite_core.rules.rule import Rule, versions
from rewrite_core.rules.settings import ModelRef
from rewrite_core.rules.stack import Entry
from rewrite_core.settings import Settings

__all__ = ["LARGEST", "SUFFIX", "Seen", "Workspace", "is_workspace", "made_with"]

FORMAT, VERSION = "palimpsest-workspace", 1
SUFFIX = ".palimpsest.json"
LARGEST = 128 << 20
"""Bytes of a file: some rules of full rank, or thousands of low rank."""
MOST_RULES, MOST_PICTURES, MOST_BOXES, MOST_SEEDS = 100, 24, 16, 256
LONGEST = 200
"""Characters of a name, in what is no rule's or edit's own."""

Name = Annotated[str, Field(max_length=LONGEST)]
Seed = Annotated[int, Field(ge=0, le=LAST_SEED)]


class Seen(Settings):
    """What is on screen.

    Attributes:
        view: the page's.
        tried: whether the edit is tried, so that its rule is solved again.
        selected: the selected picture: a seed, or -1, -2, … for one's own.
        seeds: the pictures of each range box.
    """

    view: Name = ""
    tried: bool = False
    selected: int = Field(default=0, ge=-MOST_PICTURES, le=LAST_SEED)
    seeds: dict[Name, Annotated[tuple[Seed, ...], Field(max_length=MOST_SEEDS)]] = Field(
        default_factory=dict, max_length=MOST_BOXES
    )


class _OfRule(Settings):
    """A rule in the file."""

    on: bool = True
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    file: str = Field(max_length=LARGEST)


class _File(Settings):
    """The file's fields; `edit` and `pictures` are checked by those that they belong to."""

    format: Literal["palimpsest-workspace"]
    version: int = Field(ge=1, le=VERSION)
    model: ModelRef
    layer: Name
    truncation: float = Field(default=1.0, ge=0, le=2)
    label: int | None = Field(default=None, ge=0)
    title: Name = ""
    rules: tuple[_OfRule, ...] = Field(default=(), max_length=MOST_RULES)
    trial: _OfRule | None = None
    seen: Seen = Seen()
    origin: str = Field(default="", max_length=4096)
    made_with: dict[Name, Name] = Field(default_factory=dict, max_length=MOST_BOXES)


@dataclass(frozen=True, eq=False)
class Workspace:
    """What somebody has open.

    Attributes:
        model: the generator that all of it is for.
        layer, truncation, label: of the edit, as chosen.
        draft: the edit being painted; it need not be complete.
        title: what a trial of it is called.
        entries: the stack of rules, with their switches.
        trial: the rule of the draft that is tried and not kept.
        own: pictures of one's own to choose from.
        seen: what is on screen.
        origin: the path that the generator was opened from; empty in a file to give away.
        made_with: versions of palimpsest and torch, and torch's number of threads.
    """

    model: ModelRef
    layer: str
    truncation: float = 1.0
    label: int | None = None
    draft: EditRequest = field(default_factory=EditRequest)
    title: str = ""
    entries: tuple[Entry, ...] = ()
    trial: Rule | None = None
    own: tuple[OwnPicture, ...] = ()
    seen: Seen = field(default_factory=Seen)
    origin: str = ""
    made_with: Mapping[str, str] = field(default_factory=lambda: made_with())

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that what is drawn obeys: those that are on, and the trial on top."""
        on = tuple(entry.rule for entry in self.entries if entry.on)
        return (*on, self.trial) if self.trial else on

    @property
    def selected(self) -> PictureId:
        """The selected picture."""
        number = self.seen.selected
        return number if number >= 0 else self.own[-number - 1]

    def check(self, generator: Generator) -> None:
        """Check that all of it fits `generator`.

        Raises:
            ModelMismatch: it is for another one, with both fingerprints.
            LayerError: a layer is missing or of another shape.
            RequestError: a picture's latents are not such as the generator takes.
        """
        have = generator.pristine
        if self.model.fingerprint != have.fingerprint:
            raise ModelMismatch(
                found=f"a workspace of {self.model.name[:60]} ({self.model.fingerprint[:12]})",
                expected=f"one of {have.name} ({have.fingerprint[:12]})",
                remedy="Open the generator it was made for, then the file again.",
            )
        for rule in (*(entry.rule for entry in self.entries), *((self.trial,) if self.trial else ())):
            rule.check(have)
        check_model(self.draft, have)
        for picture in self.own:
            picture.latents(have)
        have.layer(self.layer)

    def to_bytes(self) -> bytes:
        """The file's content, which `load` reads back exactly.

        Raises:
            FileError: it is larger than such a file may be.
        """
        content = json.dumps(self._content(), allow_nan=False).encode()
        if len(content) > LARGEST or len(self.entries) > MOST_RULES:
            raise FileError(
                found=f"{len(self.entries)} rules of {len(content):,} bytes",
                expected=f"at most {MOST_RULES} of {LARGEST:,} bytes for one file",
                remedy="Save large rules by themselves, and take them off the stack.",
            )
        return content

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all; errors as `to_bytes` and `write_bytes`."""
        write_bytes(path, self.to_bytes())

    @classmethod
    def load(cls, source: Path | bytes, what: str = "the workspace") -> Workspace:
        """Read a file, or its content.

        Raises:
            FileError: it is no workspace, too large, damaged, or of a newer version.
            RequestError: a field of its edit or of a picture is wrong; a MaskError where that is a mask.
        """
        what = source.name if isinstance(source, Path) else what
        data = read_json(source, what=what, limit_bytes=LARGEST)
        if not is_workspace(data):
            raise FileError(
                found=f"{what}, which is no workspace",
                expected=f'JSON with "format": "{FORMAT}"',
                remedy=f"Choose a file that Palimpsest saved as {SUFFIX}.",
            )
        return _workspace(data, what)

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model.model_dump(),
            "layer": self.layer,
            "truncation": self.truncation,
            "label": self.label,
            "title": self.title[:LONGEST],
            "edit": self.draft.to_dict(),
            "rules": [_ruled(entry.rule, entry.on) for entry in self.entries],
            "trial": _ruled(self.trial) if self.trial else None,
            "pictures": [picture.model_dump(mode="json") for picture in self.own],
            "seen": self.seen.model_dump(mode="json"),
            "origin": self.origin,
            "made_with": dict(self.made_with),
        }


def is_workspace(data: Any) -> bool:
    """Whether decoded JSON says that it is a workspace."""
    return isinstance(data, dict) and data.get("format") == FORMAT


def made_with() -> dict[str, str]:
    """Versions, and the number of threads at which the same rule comes out to the bit."""
    return {**versions(), "threads": str(torch.get_num_threads())}


def _workspace(data: dict[str, Any], what: str) -> Workspace:
    version = data.get("version")
    if type(version) is int and version > VERSION:
        raise FileError(
            found=f"{what}: version {str(version)[:20]} of the format",
            expected=f"version {VERSION} or older",
            remedy="Update Palimpsest to open it.",
        )
    edit, pictures = data.get("edit"), data.get("pictures", [])
    if not isinstance(edit, dict):
        raise _damaged(f"{what}: edit", "an object, as an edit's own file has it")
    if not isinstance(pictures, list) or len(pictures) > MOST_PICTURES:
        raise _damaged(f"{what}: pictures", f"a list of at most {MOST_PICTURES}")
    rest = {name: value for name, value in data.items() if name not in ("edit", "pictures")}
    file = _File.parse(rest, what, FileError)
    own = [OwnPicture.parse(one, f"{what}: pictures.{index}") for index, one in enumerate(pictures)]
    if -file.seen.selected > len(own):
        raise _damaged(f"{what}: seen.selected {file.seen.selected}", "a picture that there is")
    rules = [_rule(one, file.model, f"{what}: rules.{index}") for index, one in enumerate(file.rules)]
    return Workspace(
        model=file.model,
        layer=file.layer,
        truncation=file.truncation,
        label=file.label,
        draft=EditRequest.from_json(edit, f"{what}: edit"),
        title=file.title,
        entries=tuple(Entry(rule, one.on) for rule, one in zip(rules, file.rules, strict=True)),
        trial=_rule(file.trial, file.model, f"{what}: trial") if file.trial else None,
        own=tuple(own),
        seen=file.seen,
        origin=file.origin,
        made_with=file.made_with,
    )


def _ruled(rule: Rule, on: bool = True) -> dict[str, Any]:
    digest, file = _encoded(rule)
    return {"on": on, "digest": digest, "file": file}


@lru_cache(maxsize=16)
def _encoded(rule: Rule) -> tuple[str, str]:
    """Digest and file of a rule, which is what it is: a page asks for them again and again."""
    return rule.digest, base64.b64encode(rule.to_bytes()).decode("ascii")


def _rule(one: _OfRule, model: ModelRef, where: str) -> Rule:
    """The rule in the file, if it is what was written there and of the file's model."""
    try:
        content = base64.b64decode(one.file, validate=True)
    except ValueError:
        raise _damaged(where, "a rule's file in base64") from None
    try:
        rule = Rule.load(content, where)
    except FileError:
        raise
    except PalimpsestError as problem:
        raise FileError(found=problem.found, expected=problem.expected, remedy=problem.remedy) from None
    if rule.digest != one.digest:
        raise _damaged(f"{where}, whose digest is {rule.digest[:12]}", one.digest[:12])
    if rule.provenance.fingerprint != model.fingerprint:
        raise _damaged(
            f"{where}, made for {rule.provenance.fingerprint[:12]}", f"a rule for {model.fingerprint[:12]}"
        )
    return rule


def _damaged(found: str, expected: str) -> FileError:
    return FileError(found=found, expected=expected, remedy="Save or download the file again.")
