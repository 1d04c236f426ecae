"""A visitor's session as a `Workspace`, and back: for the one file that holds everything, and for the autosave.

    content = workspace_of(visitor).to_bytes()
    restore(visitor, Workspace.load(content))       # as it was, but for undo and strokes that were not added

`restore` changes nothing before all of the workspace is known to fit. The trial is solved again in the background, by
the same request to the same rule. What the stack was is one Undo away, if the generator stays.
"""

from __future__ import annotations

from dataclasses import replace

from dashboard.gallery import range_box_kept, set_range_box
from dashboard.opening import open_path
from dashboard.ranges import format_ranges, parse_ranges
from dashboard.session import Session, embedded
from dashboard.solving import ready, try_edit
from rewrite_core.errors import PalimpsestError
from rewrite_core.generators import Generator, embedded_names
from rewrite_core.generators.own import OwnPicture
from rewrite_core.rules.settings import ModelRef
from rewrite_core.rules.stack import RuleStack
from rewrite_core.rules.workspace import MOST_PICTURES, Seen, Workspace

__all__ = ["BOXES", "open_workspace", "restore", "workspace_of"]

BOXES = {"seeds": "0-31", "fresh": "1000-1023", "gallery-seeds": "0-63"}
"""The range boxes of the page Rewriting, and what they say at first."""


def workspace_of(visitor: Session, *, origin: str = "") -> Workspace:
    """What the visitor has open; `origin` is the path of the generator, which no file to give away holds."""
    own = visitor.own[:MOST_PICTURES]
    selected = visitor.selected
    if isinstance(selected, OwnPicture):
        selected = -1 - own.index(selected) if selected in own else 0
    return Workspace(
        model=ModelRef(
            name=visitor.generator.pristine.name, fingerprint=visitor.generator.pristine.fingerprint
        ),
        layer=visitor.layer,
        truncation=visitor.truncation,
        label=visitor.label,
        draft=visitor.draft.model_copy(update={"latents": visitor.latents}),
        title=visitor.title,
        entries=visitor.stack.entries,
        trial=visitor.trial.rule if visitor.trial else None,
        own=own,
        seen=Seen(
            view=visitor.view,
            tried=visitor.tried is not None,
            selected=selected,
            seeds={key: parse_ranges(range_box_kept(key, first)) for key, first in BOXES.items()},
        ),
        origin=origin,
    )


def open_workspace(visitor: Session, content: bytes, name: str) -> None:
    """Open a file of the visitor's; a path that it names is not looked at. Errors as `Workspace.load` and `restore`."""
    restore(visitor, replace(Workspace.load(content, name), origin=""))


def restore(visitor: Session, workspace: Workspace) -> None:
    """Have the visitor work where `workspace` left off, opening the generator that it is for.

    Raises:
        ModelMismatch: that is neither open, nor one that ships, nor to be opened from where it came.
        FileError, LayerError, RequestError: something of it does not fit; then the session is as it was.
    """
    generator = _generator_of(visitor, workspace)
    workspace.check(generator)
    before = visitor.stack
    if generator.pristine.fingerprint != visitor.generator.pristine.fingerprint:
        visitor.open(generator, workspace.origin)
        before = RuleStack()
    visitor.clear_edit()
    visitor.draft, visitor.title = workspace.draft, workspace.title
    visitor.layer, visitor.truncation, visitor.label = workspace.layer, workspace.truncation, workspace.label
    visitor.adopt((*workspace.own, *workspace.draft.own))
    visitor.stack = RuleStack(workspace.entries, (*before.past, before.entries))
    visitor.selected = workspace.selected
    visitor.view = workspace.seen.view or visitor.view
    for key in BOXES:
        if seeds := workspace.seen.seeds.get(key):
            set_range_box(key, format_ranges(seeds))
    if (workspace.trial or workspace.seen.tried) and not ready(visitor):
        try_edit(visitor)


def _generator_of(visitor: Session, workspace: Workspace) -> Generator:
    """The open generator, or one that ships, or that at the path, whichever the workspace is for; else the open one."""
    wanted = workspace.model.fingerprint
    if visitor.generator.pristine.fingerprint == wanted:
        return visitor.generator
    for name in embedded_names():
        if embedded(name).fingerprint == wanted:
            return embedded(name)
    if workspace.origin:
        try:
            found = open_path(workspace.origin)
        except PalimpsestError:  # moved, or not to be opened from here: the visitor is told what to open
            return visitor.generator
        if found.fingerprint == wanted:
            return found
    return visitor.generator
