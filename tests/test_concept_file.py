"""Concept files: strokes as values, and files that come back exactly or are refused in a line."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from dissect.concepts.concept_file import ConceptFile
from rewrite_core import Mask, PalimpsestError
from rewrite_core.errors import FileError, MaskError
from rewrite_core.rules.settings import LatentSettings
from tests.generators import small_generator

SIZE = (16, 16)
LEFT, TOP = Mask.rectangle(SIZE, 0, 0, 16, 8), Mask.rectangle(SIZE, 0, 0, 8, 16)


@pytest.fixture(scope="module")
def blank():
    return ConceptFile.empty(small_generator(), ("hair", "skin", "rest"))


@pytest.fixture(scope="module")
def file(blank):
    return blank.with_stroke(9, "skin", LEFT).with_stroke(2, "hair", LEFT).with_stroke(2, "rest", TOP)


def test_painting_gives_a_new_file_and_leaves_the_old_one(blank):
    painted = blank.with_stroke(3, "hair", LEFT)
    assert painted.mask(3, "hair") == LEFT
    assert blank.seeds == ()
    assert painted != blank


def test_a_later_stroke_takes_the_pixels_of_an_earlier_one(file):
    assert file.mask(2, "rest") == TOP
    assert file.mask(2, "hair") == Mask.rectangle(SIZE, 8, 0, 16, 8)


def test_unpainted_pixels_belong_to_no_concept(file):
    painted = sum((file.mask(2, name).pixels > 0).sum() for name in file.concepts)
    assert painted == 8 * 16 + 8 * 8


def test_a_stroke_counts_where_it_is_at_least_half_opaque(blank):
    pixels = np.zeros(SIZE, np.uint8)
    pixels[0, :3] = 127, 128, 255
    mask = blank.with_stroke(0, "hair", Mask(pixels)).mask(0, "hair")
    assert mask.pixels[0, :4].tolist() == [0, 255, 255, 0]


def test_erasing_takes_strokes_of_every_concept_and_at_last_the_picture(file):
    erased = file.erased(2, TOP)
    assert erased.mask(2, "rest").empty
    assert erased.mask(2, "hair") == file.mask(2, "hair")
    assert erased.erased(2).seeds == file.erased(2).seeds == (9,)


def test_the_order_of_painting_pictures_does_not_matter(blank, file):
    other = blank.with_stroke(2, "hair", LEFT).with_stroke(2, "rest", TOP).with_stroke(9, "skin", LEFT)
    assert other == file
    assert other.digest == file.digest
    assert other.seeds == (2, 9)


def test_a_renamed_concept_keeps_its_strokes(file):
    renamed = file.renamed("skin", "face")
    assert renamed.concepts == ("hair", "face", "rest")
    assert renamed.mask(9, "face") == LEFT


def test_a_removed_concept_takes_its_strokes_with_it(file):
    fewer = file.without("hair")
    assert fewer.concepts == ("skin", "rest")
    assert fewer.mask(9, "skin") == LEFT
    assert fewer.mask(2, "rest") == TOP
    assert (fewer.on(2).labels >= 0).sum() == 8 * 16
    assert file.without("skin").seeds == (2,)


def test_an_added_concept_is_the_last(file):
    assert file.with_concept("hat").concepts == ("hair", "skin", "rest", "hat")


def test_every_change_of_what_is_painted_changes_the_digest(file):
    others = [
        file.erased(9), file.without("skin"), file.renamed("skin", "face"), file.with_concept("hat"),
        file.with_stroke(9, "skin", TOP), ConceptFile.empty(small_generator(1), file.concepts),
        ConceptFile(file.model, file.size, file.concepts, file.strokes, LatentSettings(truncation=0.5)),
    ]  # fmt: skip
    assert len({file.digest, *(other.digest for other in others)}) == 1 + len(others)


def test_what_was_learned_is_dropped_with_the_first_change(file):
    learned = file.with_learned(b"weights")
    assert learned.learned == b"weights"
    assert learned.digest == file.digest
    assert learned.with_stroke(9, "hair", TOP).learned is None


def test_a_file_comes_back_exactly(file, tmp_path):
    learned = file.with_learned(bytes(range(256)))
    learned.save(tmp_path / "concepts.json")
    again = ConceptFile.load(tmp_path / "concepts.json")
    assert again == learned
    assert again.to_bytes() == learned.to_bytes()
    assert again.made_with == learned.made_with
    assert {"palimpsest", "torch"} <= set(again.made_with)


@pytest.mark.parametrize(
    ("names", "word"),
    [(("hair", "hair"), "two concepts"), (("",), "printable"), ((" hair",), "printable"), (("a\nb",), "printable"),
     (("x" * 61,), "1 to 60"), (tuple(map(str, range(257))), "at most 256")],
)  # fmt: skip
def test_names_that_cannot_be_told_apart_are_refused(blank, names, word):
    with pytest.raises(PalimpsestError, match=word):
        ConceptFile(blank.model, blank.size, names)


def test_a_stroke_must_be_on_the_picture_and_of_a_known_concept(blank):
    with pytest.raises(MaskError, match="8×8 pixels on picture 3; expected the picture's 16×16"):
        blank.with_stroke(3, "hair", Mask.rectangle((8, 8), 0, 0, 4, 4))
    with pytest.raises(PalimpsestError, match="'hat'; expected one of hair, skin, rest"):
        blank.with_stroke(3, "hat", LEFT)
    with pytest.raises(PalimpsestError, match="picture number -1"):
        blank.with_stroke(-1, "hair", LEFT)


URL = LEFT.to_data_url()
BAD = {
    "an older or newer format": ({"format": "painted-concepts/2"}, "Update Palimpsest"),
    "another kind of file": ({"format": None}, "names no format"),
    "an unknown scheme": ({"latents": {"scheme": "dice"}}, "scheme is 'dice'; expected 'seed' or 'rows'"),
    "a concept without a name": ({"concepts": ["hair"]}, "expected one of hair"),
    "two concepts of one name": ({"concepts": ["hair", "hair"]}, "two concepts called 'hair'"),
    "masks of another size": ({"size": [32, 32]}, "expected the picture's 32×32"),
    "no size": ({"size": [0, 16]}, "size.0 is 0"),
    "a seed that is no number": ({"strokes": {"x": {"hair": URL}}}, "strokes.x"),
    "a seed out of range": ({"strokes": {"-1": {"hair": URL}}}, "picture number -1"),
    "a seed that is written twice": (
        {"strokes": {"3": {"hair": URL}, "03": {"hair": URL}}},
        "strokes is '03'; expected a picture's number",
    ),
    "masks without end": (
        {"size": [1, 1], "strokes": {str(n): {"hair": ""} for n in range(10_001)}},
        "10,000 masks",
    ),
    "concepts without end": (
        {"concepts": list(map(str, range(10**6)))},
        "1,000,000 concepts; expected at most 256",
    ),
    "a damaged mask": ({"strokes": {"1": {"hair": URL[:60]}}}, "'hair' on picture 1"),
    "overlapping masks": ({"strokes": {"1": {"hair": URL, "skin": URL}}}, "one concept in each pixel"),
    "masks of too many pixels": ({"size": [100_000, 100_000]}, "pixels in all its masks"),
    "a field too many": ({"weights": 1}, "no field of that name"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_wrong_is_refused_in_a_line_that_names_it(file, case):
    changes, word = BAD[case]
    content = json.dumps(json.loads(file.to_bytes()) | changes).encode()
    with pytest.raises(FileError) as refused:
        ConceptFile.load(content, "hair.json")
    assert str(refused.value).startswith("hair.json")
    assert word in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_of_thousands_of_strokes_opens_in_seconds(blank):
    """Each picture is read once: what was quadratic in them took minutes."""
    url = Mask.rectangle((1, 1), 0, 0, 1, 1).to_data_url()
    form = json.loads(blank.to_bytes()) | {"size": [1, 1]}
    form["strokes"] = {str(seed): {"hair": url} for seed in range(4000)}
    began = time.process_time()
    file = ConceptFile.load(json.dumps(form).encode())
    assert time.process_time() - began < 10
    assert file.seeds == tuple(range(4000))


@pytest.mark.parametrize("content", [b"", b"[1]", b"\x80", b'{"format": 1}', b"{" * 10])
def test_what_is_no_concept_file_is_refused(content):
    with pytest.raises(FileError):
        ConceptFile.load(content)
