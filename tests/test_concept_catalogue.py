"""Concept sources by what a user types: found, checked against the generator, and listed where there is none."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dissect.concepts import KINDS, known, open_concepts
from dissect.concepts.catalogue import embedded_concepts
from dissect.concepts.concept_file import ConceptFile
from rewrite_core import open_generator
from rewrite_core.errors import FileError, ModelMismatch, PalimpsestError
from rewrite_core.generators import Generator
from rewrite_core.pictures import Mask
from tests.generators import small_generator

GENERATOR = small_generator()


def painted(generator: Generator, path: Path) -> str:
    """A file with two concepts painted on two pictures."""
    file = ConceptFile.empty(generator, ["left", "right"])
    for seed in (0, 1):
        file = file.with_stroke(seed, "left", Mask.rectangle((16, 16), 2, 1, 14, 7))
        file = file.with_stroke(seed, "right", Mask.rectangle((16, 16), 2, 9, 14, 15))
    file.save(path)
    return str(path)


def maps(folder: Path, side: int = 16) -> str:
    """A folder with one label map."""
    Image.fromarray(np.zeros((side, side), np.uint8)).save(folder / "0.png")
    (folder / "legend.json").write_text('["background"]')
    return str(folder)


def test_each_kind_is_opened_by_what_asks_for_it(tmp_path):
    assert open_concepts("colours", GENERATOR).names[0] == "black"
    assert open_concepts(maps(tmp_path), GENERATOR).names == ("background",)
    source = open_concepts(painted(GENERATOR, tmp_path / "sides.json"), GENERATOR)
    assert source.names == ("left", "right")
    assert not source.pixels_only


def test_a_source_for_another_generator_is_refused_when_it_is_opened(tmp_path):
    path = painted(GENERATOR, tmp_path / "sides.json")
    with pytest.raises(ModelMismatch, match="concepts painted for small"):
        open_concepts(path, small_generator(1))
    folder = maps(tmp_path)
    Image.fromarray(np.zeros((16, 32), np.uint8)).save(Path(folder) / "0.png")
    with pytest.raises(PalimpsestError, match="the proportions of the pictures"):
        open_concepts(folder, GENERATOR)


@pytest.mark.parametrize("text", ["", "colors", "no/such/folder", "x" * 5000, "a\0b"])
def test_what_asks_for_nothing_is_told_what_there_is(text):
    with pytest.raises(
        PalimpsestError, match=r"concepts '.*one of colours; faces; segmenter:FOLDER"
    ) as refusal:
        open_concepts(text, GENERATOR)
    assert "\n" not in str(refusal.value)


def test_a_file_or_folder_that_is_not_there_or_is_none_is_named(tmp_path):
    with pytest.raises(FileError, match=r"missing\.json"):
        open_concepts(str(tmp_path / "missing.json"), GENERATOR)
    with pytest.raises(FileError, match=r"without legend\.json"):
        open_concepts(str(tmp_path), GENERATOR)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(FileError, match=r"other\.json, which names no format"):
        open_concepts(str(tmp_path / "other.json"), GENERATOR)


def test_a_generator_without_concepts_of_its_own_is_offered_others():
    assert embedded_concepts(GENERATOR) == {}
    offers = {offer.text: offer for offer in known(GENERATOR)}
    assert offers["colours"].why_not == ""
    assert offers["embedded"].why_not == "No concepts ship with small."
    with pytest.raises(PalimpsestError, match="concepts 'embedded' for small; expected another source"):
        open_concepts("embedded", GENERATOR)


def test_what_is_offered_can_be_opened_or_says_why_not():
    generator = open_generator("face32-dcgan")
    for offer in known(generator):
        assert offer.title
        assert offer.help
        if not offer.why_not:
            assert open_concepts(offer.text, generator).names
        elif offer.text != "embedded":
            with pytest.raises(PalimpsestError, match="pip install"):
                open_concepts(offer.text, generator)


def test_every_kind_says_how_it_is_asked_for():
    assert len({kind.form for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        assert kind.help.endswith(".")
        assert "\n" not in kind.help
        assert bool(kind.module) == bool(kind.extra)


def test_listing_the_sources_imports_none_of_them():
    code = (
        "import sys; from dissect.concepts import KINDS, open_concepts; [kind.why_not for kind in KINDS];"
        "print({'transformers', 'sklearn', 'ai_edge_litert', 'pandas', 'matplotlib'} & {*sys.modules})"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
