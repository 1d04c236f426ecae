"""The eleven basic colour terms: every pixel has exactly one, and it is the one that people would use."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import XKCD_COLORS, to_rgb
from torch import Tensor

from dissect.concepts.colours import BINS, TERMS, Colours, term_of
from dissect.concepts.source import require_pixels_only
from rewrite_core import open_generator
from rewrite_core.generators import Latents, LatentSpec
from rewrite_core.statistics import Scene
from tests.generators import small_generator

BYTE = st.integers(0, 255)


def scene(pictures: Tensor) -> Scene:
    count = len(pictures)
    return Scene(pictures, Latents(torch.zeros(count, 1), LatentSpec.of(range(count))))


def filled(red: float, green: float, blue: float) -> Tensor:
    """A picture of one colour, in bytes."""
    return (torch.tensor([red, green, blue]) / 127.5 - 1)[None, :, None, None].expand(1, 3, 2, 2)


def surveyed() -> list[tuple[str, str, tuple[int, int, int]]]:
    """Name, term and colour of the survey's names that end in a basic term and mix it with no other."""
    found = []
    for name, code in XKCD_COLORS.items():
        words = name.removeprefix("xkcd:").replace("gray", "grey").replace("/", " ").split()
        others = {word.removesuffix("ish").removesuffix("y") for word in words[:-1]} & {*TERMS}
        if words[-1] in TERMS and not others:
            red, green, blue = (round(255 * share) for share in to_rgb(code))
            found.append((name, words[-1], (red, green, blue)))
    return found


@pytest.mark.parametrize(
    ("term", "colours"),
    {
        "black": [(0, 0, 0), (20, 20, 20), (20, 18, 30)],
        "grey": [(128, 128, 128), (70, 75, 80), (200, 200, 200)],
        "white": [(255, 255, 255), (250, 248, 240), (255, 240, 225)],
        "red": [(255, 0, 0), (200, 20, 30), (120, 10, 10)],
        "orange": [(255, 128, 0), (255, 91, 0), (230, 120, 60)],
        "yellow": [(255, 255, 0), (250, 220, 60), (255, 250, 150)],
        "green": [(0, 255, 0), (0, 128, 0), (10, 60, 20), (160, 220, 140)],
        "blue": [(0, 0, 255), (135, 206, 235), (25, 30, 80), (70, 130, 180)],
        "purple": [(128, 0, 128), (75, 20, 110), (180, 140, 220)],
        "pink": [(255, 192, 203), (255, 105, 180), (250, 200, 190)],
        "brown": [(139, 69, 19), (80, 45, 25), (150, 100, 60)],
    }.items(),
)
def test_colours_that_anybody_would_name_are_called_so(term, colours):
    assert {term_of(*colour) for colour in colours} == {term}


@pytest.mark.parametrize(
    ("skin", "terms"),
    [
        ((255, 220, 195), {"pink", "white"}),
        ((240, 200, 170), {"pink"}),
        ((224, 172, 140), {"pink", "orange"}),
        ((141, 85, 36), {"brown"}),
        ((90, 60, 45), {"brown"}),
    ],
)
def test_light_skin_is_not_brown_and_dark_skin_is(skin, terms):
    assert term_of(*skin) in terms


def test_nearly_all_names_that_respondents_gave_come_out():
    names = surveyed()
    right = {
        term: [term_of(*colour) == term for _, given, colour in names if given == term] for term in TERMS
    }
    assert len(names) > 400
    assert np.mean([hit for hits in right.values() for hit in hits]) > 0.93
    assert min(float(np.mean(hits)) for hits in right.values()) > 0.7


@settings(deadline=None)
@given(BYTE, BYTE, BYTE)
def test_the_table_says_of_a_bin_what_the_rule_says_of_its_middle(red, green, blue):
    width = 256 // BINS
    labels = Colours()(scene(filled(red + 0.01, green + 0.01, blue + 0.01)))  # what is drawn is cut to bytes
    middle = [level // width * width + (width - 1) / 2 for level in (red, green, blue)]
    assert TERMS[int(labels[0, :, 0, 0].int().argmax())] == term_of(*middle)


def test_every_pixel_has_exactly_one_term():
    pictures = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    labels = Colours()(scene(pictures))
    assert labels.dtype == torch.bool
    assert labels.shape == (3, 11, 8, 8)
    assert bool((labels.sum(1) == 1).all())


def test_what_no_picture_should_hold_has_a_term_too():
    pictures = (
        torch.tensor([float("nan"), float("inf"), -float("inf")]).reshape(3, 1, 1, 1).expand(3, 3, 2, 2)
    )
    named = Colours()(scene(pictures)).int().argmax(1)[:, 0, 0]
    assert [TERMS[number] for number in named[1:]] == ["white", "black"]


def test_it_may_judge_edited_pictures_of_any_generator():
    require_pixels_only(Colours())
    Colours().check(small_generator())
    assert Colours().layers == ()


def test_hair_and_skin_of_samples_have_their_colours():
    generator = open_generator("anime64-dcgan")
    labels = Colours()(
        scene(generator.sample(LatentSpec.of([8, 12, 18])))
    )  # two with blue hair, one with red
    share = dict(zip(TERMS, labels[:, :, :24].double().mean((2, 3)).T.tolist(), strict=True))
    assert min(share["blue"][:2]) > 0.5
    assert share["orange"][2] + share["red"][2] > 0.4
    face = dict(zip(TERMS, labels[:2, :, 38:52, 26:38].double().mean((0, 2, 3)).tolist(), strict=True))
    assert face["white"] + face["pink"] > 0.8
