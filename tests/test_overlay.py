"""Labels made visible: tint, outline and order, shares, agreement, and a colour for every concept."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dissect.concepts import agreement, colour_of, colours_of, labelled, overlay, shares
from dissect.concepts.colours import TERMS, Colours, oklab, term_of
from dissect.concepts.overlay import Labelled, legible
from dissect.concepts.palette import COMMON, PALETTE, TERM_COLOURS
from rewrite_core.errors import PalimpsestError, RequestError
from rewrite_core.generators import Generator
from rewrite_core.statistics import Scene
from tests.generators import PLAIN, UP, small_generator, spec

RED, BLUE = (255, 0, 0), (0, 0, 255)

# Machado, Oliveira and Fernandes 2009, severity 1: linear sRGB as it is seen.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


@dataclass(frozen=True)
class Fired:
    """Where the maps of a layer are positive: a source that reads maps."""

    layers: tuple[str, ...] = (UP, PLAIN)
    names: tuple[str, ...] = ("up", "plain")
    title: str = "fired"
    pixels_only: bool = False

    def check(self, generator: Generator) -> None:
        for layer in self.layers:
            generator.layer(layer)

    def identity(self) -> Mapping[str, Any]:
        return {"labeller": "fired"}

    def __call__(self, scene: Scene) -> Tensor:
        maps = [scene.maps[layer].mean(1, keepdim=True) for layer in self.layers]  # [N, 1, h, w]
        return torch.cat([torch.nn.functional.interpolate(one, (8, 8)) > 0 for one in maps], 1)


def found(labels: Any, names: tuple[str, ...], title: str = "one", side: int = 4) -> Labelled:
    """Labels [N, L, h, w] over grey pictures."""
    masks = torch.as_tensor(labels)
    pictures = np.full((len(masks), side, side, 3), 100, np.uint8)
    return Labelled(pictures, masks, names, spec(len(masks)), title)


def boxes(*each: tuple[int, int, int, int], side: int = 4) -> Tensor:
    """One picture with a box for each label: bool [1, L, side, side]."""
    labels = torch.zeros(1, len(each), side, side, dtype=torch.bool)
    for label, (top, left, bottom, right) in enumerate(each):
        labels[0, label, top:bottom, left:right] = True
    return labels


# Labelling


def test_pictures_and_labels_are_those_of_the_generator_and_the_source():
    generator = small_generator()
    steps: list[tuple[int, int]] = []
    seen = labelled(generator, spec(30), Colours(), lambda done, total: steps.append((done, total)))
    assert np.array_equal(seen.pictures, generator.draw(spec(30)))
    assert seen.labels.shape == (30, 11, 16, 16)
    assert (seen.names, seen.title, seen.spec) == (TERMS, "colours", spec(30))
    assert steps == [(25, 30), (30, 30)]


def test_a_source_that_reads_maps_is_shown_them():
    generator = small_generator()
    seen = labelled(generator, spec(3), Fired())
    latents = generator.latents(spec(3))
    fires = generator.keys(latents, PLAIN).keys.mean(1) > 0
    assert torch.equal(seen.labels[:, 1], fires)
    assert np.array_equal(seen.pictures, generator.draw(spec(3)))


def test_nothing_to_label_and_a_source_that_does_not_fit_are_refused():
    with pytest.raises(RequestError, match="no picture to label"):
        labelled(small_generator(), spec(0), Colours())
    with pytest.raises(PalimpsestError, match="layer 'other'"):
        labelled(small_generator(), spec(1), Fired(layers=("other",)))


# Overlays


def test_a_concept_is_tinted_and_outlined_and_the_rest_left_alone():
    pictures = np.full((1, 4, 4, 3), 100, np.uint8)
    (drawn,) = overlay(pictures, boxes((0, 0, 4, 2)), [RED], opacity=0.5, factor=3)
    assert drawn.shape == (12, 12, 3)
    assert (drawn[:, 6:] == 100).all()
    assert (drawn[:, :5] == (178, 50, 50)).all()  # 177.5, rounded to even
    assert (drawn[:, 5] == RED).all()


def test_the_smaller_of_two_concepts_is_on_top_whatever_their_order():
    pictures = np.zeros((1, 4, 4, 3), np.uint8)
    small, large = (1, 1, 3, 3), (0, 0, 4, 4)
    for labels, colours in (
        (boxes(small, large), [BLUE, RED]),
        (boxes(large, small), [RED, BLUE]),
    ):
        (drawn,) = overlay(pictures, labels, colours, opacity=1, factor=1)
        assert (drawn[1:3, 1:3] == BLUE).all()
        assert (drawn[0] == RED).all()
    (drawn,) = overlay(pictures, boxes(small, small), [RED, BLUE], opacity=1, factor=1)
    assert (drawn[1:3, 1:3] == BLUE).all()


def test_labels_of_a_coarser_grid_and_soft_ones_are_shown_where_they_count():
    pictures = np.zeros((1, 4, 4, 3), np.uint8)
    labels = torch.tensor([[[[0.9, 0.5], [0.2, 0.6]]]])
    (drawn,) = overlay(pictures, labels, [RED], opacity=1, factor=1)
    shown = (drawn == RED).all(-1)
    assert shown.tolist() == np.kron([[1, 0], [0, 1]], np.ones((2, 2))).astype(bool).tolist()


@pytest.mark.parametrize(
    ("size", "factor"), [((32, 32), 8), ((64, 48), 4), ((200, 100), 2), ((1024, 1024), 1)]
)
def test_small_pictures_are_enlarged_by_a_whole_factor_until_they_are_legible(size, factor):
    assert legible(size) == factor


# Numbers


def test_shares_are_of_pixels_and_of_pictures():
    labels = torch.cat([boxes((0, 0, 4, 4), (0, 0, 1, 1), (0, 0, 0, 0)), boxes(*[(0, 0, 0, 0)] * 3)])
    table = shares(found(labels, ("all", "corner", "never")))
    assert table["concept"].tolist() == ["all", "corner", "never"]
    assert table["share of pixels"].tolist() == [0.5, 1 / 32, 0]
    assert table["share of pictures"].tolist() == [0.5, 0.5, 0]


def test_agreement_is_by_name_and_its_iou_and_accuracy_are_those_of_the_definition():
    one = found(boxes((0, 0, 4, 2), (0, 2, 4, 4)), ("left", "right"))
    other = found(boxes((0, 1, 4, 4), (0, 0, 4, 1), (0, 0, 0, 0)), ("right", "left", "up"), "other")
    result = agreement(one, other)
    assert result.table["concept"].tolist() == ["left", "right"]
    assert result.table["IoU"].tolist() == [0.5, 8 / 12]
    assert result.table["share of pixels"].tolist() == [0.5, 0.5]
    assert result.table["share of pixels in the other"].tolist() == [0.25, 0.75]
    assert result.accuracy == 0.75


def test_labels_that_overlap_or_leave_pixels_out_have_no_accuracy_and_no_table_has_a_nan():
    one = found(boxes((0, 0, 4, 2), (0, 0, 0, 0)), ("left", "never"))
    result = agreement(one, one)
    assert result.accuracy is None
    assert result.table["IoU"].tolist() == [1, 0]
    assert not result.table.isna().to_numpy().any()


def test_labels_of_two_grids_agree_where_they_mean_the_same():
    fine = boxes((0, 0, 8, 4), (0, 4, 8, 8), side=8)
    coarse = boxes((0, 0, 2, 1), (0, 1, 2, 2), side=2)
    result = agreement(found(fine, ("left", "right")), found(coarse, ("left", "right"), "coarse"))
    assert result.table["IoU"].tolist() == [1, 1]
    assert result.accuracy == 1


def test_what_cannot_be_compared_is_refused():
    one = found(boxes((0, 0, 1, 1)), ("left",))
    with pytest.raises(PalimpsestError, match="no concept that one and other call the same"):
        agreement(one, found(boxes((0, 0, 1, 1)), ("right",), "other"))
    with pytest.raises(PalimpsestError, match="expected the same pictures"):
        agreement(one, found(torch.cat([boxes((0, 0, 1, 1))] * 2), ("left",), "other"))


def test_some_concepts_can_be_looked_at_alone():
    seen = found(boxes((0, 0, 1, 1), (0, 0, 2, 2)), ("small", "large")).only(["large"])
    assert seen.names == ("large",)
    assert int(seen.labels.sum()) == 4
    with pytest.raises(RequestError, match="the concept 'small'; expected one of large"):
        seen.only(["small"])


# Colours


def test_a_concept_has_its_colour_whatever_is_beside_it():
    assert colours_of(["hair", "eyes"]) == [colour_of("hair"), colour_of("eyes")]
    assert colour_of(" Hair ") == colour_of("hair")
    assert colour_of("eye") == colour_of("eyes")
    assert colour_of("a lamp post") == colour_of("a lamp post")
    assert {colour_of(f"concept {number}") for number in range(200)} == {*PALETTE}


def test_common_concepts_differ_and_colour_terms_have_the_colour_that_they_name():
    assert len({colour_of(name) for name in COMMON}) == len(COMMON) == len(PALETTE) == 12
    assert {name: term_of(*colour) for name, colour in TERM_COLOURS.items()} == {term: term for term in TERMS}


@pytest.mark.parametrize("seen", DEFICIENCIES)
def test_the_palette_stays_apart_for_every_kind_of_sight(seen):
    palette = np.array(PALETTE, float)
    linear = light(palette) @ np.array(DEFICIENCIES[seen]).T
    lab = oklab(255 * dark(linear.clip(0, 1)))
    nearest = min(float(np.linalg.norm(one - other)) for one, other in combinations(lab, 2))
    assert nearest > (0.15 if seen == "none" else 0.07)  # 0.02 can be told apart side by side


@pytest.mark.parametrize("background", [(255, 255, 255), (14, 17, 23)])
def test_the_palette_stands_out_from_light_and_dark_themes(background):
    def luminance(colour: Any) -> float:
        return float(light(np.array(colour, float)) @ [0.2126, 0.7152, 0.0722]) + 0.05

    for colour in PALETTE:
        ratio = luminance(colour) / luminance(background)
        assert max(ratio, 1 / ratio) >= 1.95


def light(colour: Any) -> Any:
    """Bytes of sRGB → linear."""
    share = colour / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def dark(linear: Any) -> Any:
    """Linear → sRGB from 0 to 1."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
