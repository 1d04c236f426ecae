"""Every concept source by what a user types: what the command line takes, and what a page offers.

    source = open_concepts("colours", generator)
    for kind in KINDS: print(kind.form, kind.help)
    for offer in known(generator): …  # what can be chosen as it is, and why not

A new source is one file beside this one, and one line in `KINDS`; a new kind of file with concepts is one line in
`FILES`. A source is imported when it is opened, so an extra that is not installed matters to nobody else. Some texts
name paths of this machine: who may open those is for the caller to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from dissect.concepts.source import ConceptSource
from rewrite_core.errors import PalimpsestError
from rewrite_core.generators import Generator, embedded_folder, embedded_names

__all__ = ["FILES", "KINDS", "Kind", "Offer", "embedded_concepts", "embedded_file", "known", "open_concepts"]

SEGMENTER, EMBEDDED, PAINTED = "segmenter:", "embedded", "painted"


class Offer(NamedTuple):
    """A source that can be chosen as it is: what to open it by, what to call it, and why it cannot be, if so."""

    text: str
    title: str
    help: str
    why_not: str


@dataclass(frozen=True)
class Kind:
    """How sources of one kind are asked for.

    Attributes:
        form: what a user types; words in capitals stand for something of theirs.
        help: what it is, in one line.
        recognise: whether a text asks for it.
        open: the source that a text asks for.
        offered: texts of it that can be chosen as they are, each with its title.
        module: what has to be installed for it, if it needs an extra, and which extra brings it.
        extra: see `module`.
    """

    form: str
    help: str
    recognise: Callable[[str], bool]
    open: Callable[[str, Generator], ConceptSource]
    offered: Callable[[Generator], Mapping[str, str]] = lambda generator: {}
    module: str = ""
    extra: str = ""

    @property
    def why_not(self) -> str:
        """Why no such source can be opened on this machine; empty if it can."""
        missing = self.module and find_spec(self.module) is None
        return f"Install it with: pip install 'palimpsest[{self.extra}]'" if missing else ""


def open_concepts(text: str, generator: Generator) -> ConceptSource:
    """The source that `text` asks for, which can label what `generator` draws.

    Raises:
        PalimpsestError: it asks for none, or a file, folder or extra is not there.
        FileError: a file is not what it should be.
        ModelMismatch: it is for another generator.
    """
    for kind in KINDS:
        if kind.recognise(text):
            source = kind.open(text, generator)
            source.check(generator)
            return source
    raise PalimpsestError(
        found=f"concepts {text[:80]!r}",
        expected=f"one of {'; '.join(kind.form for kind in KINDS)}",
        remedy="Check the spelling, or the path.",
    )


def known(generator: Generator) -> list[Offer]:
    """What can be chosen as it is for the pictures of `generator`, and why what cannot be cannot."""
    offers = [
        Offer(text, title, kind.help, kind.why_not)
        for kind in KINDS
        for text, title in kind.offered(generator).items()
    ]
    if not embedded_concepts(generator):
        none = f"No concepts ship with {generator.pristine.name}."
        offers.append(Offer(EMBEDDED, "embedded concepts", _EMBEDDED_HELP, none))
    return offers


def embedded_concepts(generator: Generator) -> dict[str, Path]:
    """Name → file of all concepts that ship with an embedded generator, the painted ones first; else none."""
    name = generator.pristine.name
    if name not in embedded_names():
        return {}
    files = sorted(path for path in (embedded_folder(name) / "concepts").glob("*") if path.suffix in FILES)
    return {path.stem: path for path in sorted(files, key=lambda path: path.stem != PAINTED)}


def embedded_file(text: str, generator: Generator) -> Path:
    """The file that ``embedded`` or ``embedded:NAME`` asks for.

    Raises:
        PalimpsestError: none of that name ships with the generator.
    """
    found = embedded_concepts(generator)
    name = text.removeprefix(EMBEDDED).removeprefix(":") or next(iter(found), "")
    if name not in found:
        there = ", ".join(f"{EMBEDDED}:{name}" for name in found) or "another source, since none ship with it"
        raise PalimpsestError(
            found=f"concepts {text[:80]!r} for {generator.pristine.name}",
            expected=there,
            remedy="Choose one that there is, such as colours.",
        )
    return found[name]


def _colours(text: str, generator: Generator) -> ConceptSource:
    from dissect.concepts.colours import Colours

    return Colours()


def _faces(text: str, generator: Generator) -> ConceptSource:
    from dissect.concepts.faces import open_faces

    return open_faces()


def _segmenter(text: str, generator: Generator) -> ConceptSource:
    """A folder, if there is one of that name; else a model of the hub."""
    from dissect.concepts.transformers_segmenter import open_hub_segmenter, open_segmenter

    name = text.removeprefix(SEGMENTER)
    return open_segmenter(Path(name)) if _is_folder(name) else open_hub_segmenter(name)


def _embedded(text: str, generator: Generator) -> ConceptSource:
    return _file(str(embedded_file(text, generator)), generator)


def _folder(text: str, generator: Generator) -> ConceptSource:
    from dissect.concepts.label_maps import open_label_maps

    return open_label_maps(Path(text))


def _file(text: str, generator: Generator) -> ConceptSource:
    path = Path(text)
    return FILES[path.suffix](path, generator)


def _painted(path: Path, generator: Generator) -> ConceptSource:
    from dissect.concepts.painted import open_painted

    return open_painted(path, generator)


def _distilled(path: Path, generator: Generator) -> ConceptSource:
    from dissect.concepts.distilled import open_distilled

    return open_distilled(path, generator)


def _is_folder(text: str) -> bool:
    with suppress(OSError, ValueError):
        return bool(text) and Path(text).is_dir()
    return False


def _offered_embedded(generator: Generator) -> dict[str, str]:
    found = embedded_concepts(generator)
    return {f"{EMBEDDED}:{name}": f"{name}: {generator.pristine.name}" for name in found}


_EMBEDDED_HELP = "Concepts that ship with an embedded generator."

FILES: Mapping[str, Callable[[Path, Generator], ConceptSource]] = {
    ".json": _painted,
    ".safetensors": _distilled,
}
"""Ending of a file with concepts → what opens it."""

KINDS = (
    Kind(
        "colours",
        "The eleven basic colour terms; needs nothing.",
        lambda text: text == "colours",
        _colours,
        lambda generator: {"colours": "colours"},
    ),
    Kind(
        "faces",
        "Hair, person, face, eyes, brows, nose and mouth, by networks made for photographs.",
        lambda text: text == "faces",
        _faces,
        lambda generator: {"faces": "faces"},
        module="ai_edge_litert",
        extra="faces",
    ),
    Kind(
        f"{SEGMENTER}FOLDER or {SEGMENTER}OWNER/MODEL",
        "A semantic segmenter of the transformers library, from a folder or the Hugging Face hub.",
        lambda text: text.startswith(SEGMENTER),
        _segmenter,
        module="transformers",
        extra="segmenters",
    ),
    Kind(
        f"{EMBEDDED} or {EMBEDDED}:NAME",
        _EMBEDDED_HELP,
        lambda text: text == EMBEDDED or text.startswith(f"{EMBEDDED}:"),
        _embedded,
        _offered_embedded,
    ),
    Kind("FOLDER", "Label maps by seed, with a legend.json.", _is_folder, _folder),
    Kind(
        "FILE.json or FILE.safetensors",
        "Concepts that were painted, or distilled into a network that sees pixels alone.",
        lambda text: Path(text).suffix in FILES,
        _file,
    ),
)
"""All kinds of sources; the first that recognises a text opens it."""
