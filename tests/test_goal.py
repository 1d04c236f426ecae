"""Goals: what is copied lands, blended, where it was to be pasted; erasing silences what the context says most."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rewrite_core.errors import MaskError, RequestError
from rewrite_core.files import read_json
from rewrite_core.generators import Box, Generator, LatentSpec, from_sequential
from rewrite_core.generators.latents import draw
from rewrite_core.pictures import Mask
from rewrite_core.rules.goal import Goal, copy_paste, erase, erased_units, whole_cells
from rewrite_core.rules.request import EditRequest, Painted
from tests.generators import DOWN, PLAIN, UP, painted, seeded, small_generator

REFERENCE = Path(__file__).parent / "reference"
LAYERS = (UP, PLAIN, DOWN)


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


def values(generator: Generator, layer: str, image: int) -> Tensor:
    return generator.values(generator.keys(generator.latents(LatentSpec((image,))), layer))[0]  # [O, H, W]


def soft_mask(draw: np.random.Generator, size: int = 37) -> Mask:
    """An ellipse anywhere, with a soft edge."""
    y, x = np.mgrid[:size, :size]
    cy, cx = draw.uniform(0, size, 2)
    ry, rx = draw.uniform(3, size / 2, 2)
    inside = 1.3 - ((y - cy) / ry) ** 2 - ((x - cx) / rx) ** 2
    return Mask((255 * np.clip(2 * inside, 0, 1)).astype(np.uint8))


def bounding_box(area: NDArray[np.float32]) -> Box:
    rows, columns = np.nonzero(area.max(1))[0], np.nonzero(area.max(0))[0]
    return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1


def pasted(source: Tensor, target: Tensor, copy: Mask, paste: Mask) -> tuple[Tensor, Box]:
    """Copy–paste position by position, straight from method.md."""
    size = (target.shape[1], target.shape[2])
    area = copy.area(size).numpy()
    top, left, bottom, right = bounding_box(area)
    h, w = bottom - top, right - left
    ptop, pleft, pbottom, pright = bounding_box(paste.area(size).numpy())
    y0 = max(0, min(size[0] - h, (ptop + pbottom) // 2 - h // 2))
    x0 = max(0, min(size[1] - w, (pleft + pright) // 2 - w // 2))
    wanted = target.clone()
    for y in range(h):
        for x in range(w):
            alpha = float(area[top + y, left + x])
            wanted[:, y0 + y, x0 + x] *= 1 - alpha
            wanted[:, y0 + y, x0 + x] += alpha * source[:, top + y, left + x]
    return wanted, (y0, x0, y0 + h, x0 + w)


# The published arrays


def replaying(published: dict[str, Tensor]) -> Generator:
    """A generator whose layer ``value`` draws the published value maps of pictures 3 (as far as known) and 7."""
    top, left, bottom, right = published["object_bounds_tlbr"].tolist()
    target = published["whole_pred_before"][0]  # [O, H, W]
    source = torch.zeros_like(target)
    source[:, top:bottom, left:right] = published["object_acts"][0]
    maps, ratio = torch.stack([source, target]), target.shape[1] // 16
    keys = functional.pixel_unshuffle(maps, ratio)  # [2, O·r², 16, 16]
    latents = draw(LatentSpec((3, 7), "rows"), 2).double()
    weight = torch.linalg.solve(latents, keys.flatten(1).double())  # [2, O·r²·256]

    start = nn.Linear(2, weight.shape[1], bias=False)
    start.weight.data = weight.T.float().contiguous()
    unshuffled = torch.eye(keys.shape[1]).reshape(keys.shape[1], len(target), ratio, ratio)
    layer = nn.ConvTranspose2d(keys.shape[1], len(target), ratio, ratio, bias=False)
    layer.weight.data = unshuffled
    stack = nn.Sequential(start, nn.Unflatten(1, keys.shape[1:]))
    stack.add_module("value", layer)
    stack.add_module("picture", nn.Conv2d(len(target), 3, 1))
    return from_sequential(stack)


@pytest.mark.parametrize("layer", ["sg_layer6", "sg_layer7", "pg_layer6"])
def test_copying_and_pasting_reproduces_the_published_goals(layer: str):
    with np.load(REFERENCE / "goals.npz") as arrays:
        published = {
            name.removeprefix(f"{layer}."): torch.from_numpy(array)
            for name, array in arrays.items()
            if name.startswith(layer)
        }
    generator, request = replaying(published), EditRequest.load(REFERENCE / "request.json")
    goal = copy_paste(generator, "value", request)
    torch.testing.assert_close(goal.wanted, published["full_target"], rtol=0, atol=2e-5)
    top, left, bottom, right = goal.box
    boxed = goal.wanted[..., top:bottom, left:right]
    torch.testing.assert_close(boxed, published["tight_goal_out"], rtol=0, atol=2e-5)
    assert goal.box == whole_cells(tuple(published["paste_bounds_tlbr"].tolist()), generator.layer("value"))

    corner = Mask.from_data_url(read_json(REFERENCE / "masks.json", what="masks")["pcorner"])
    request = request.model_copy(update={"paste": Painted(7, corner)})
    goal = copy_paste(generator, "value", request)
    top, left, bottom, right = published["corner_paste_bounds_tlbr"].tolist()
    assert goal.box == whole_cells((top, left, bottom, right), generator.layer("value"))
    wanted = published["corner_goal_out"]
    boxed = goal.wanted[..., : wanted.shape[2], : wanted.shape[3]]
    torch.testing.assert_close(boxed, wanted, rtol=0, atol=2e-5)


# Copy and paste


@pytest.mark.parametrize("layer", LAYERS)
def test_any_soft_mask_is_blended_as_the_formula_says(small: Generator, layer: str):
    random = np.random.default_rng(0)
    for _ in range(15):
        copy, paste = soft_mask(random), soft_mask(random)
        request = EditRequest(object=Painted(1, copy), paste=Painted(2, paste))
        goal = copy_paste(small, layer, request)
        wanted, box = pasted(values(small, layer, 1), values(small, layer, 2), copy, paste)
        torch.testing.assert_close(goal.wanted[0], wanted, rtol=1e-5, atol=2e-6)
        assert goal.box == whole_cells(box, small.layer(layer))


@pytest.mark.parametrize(
    ("paste", "expected"),
    [
        ((6, 6, 8, 8), (5, 5, 9, 9)),
        ((0, 6, 2, 8), (0, 5, 4, 9)),
        ((14, 6, 16, 8), (12, 5, 16, 9)),
        ((6, 0, 8, 2), (5, 0, 9, 4)),
        ((6, 14, 8, 16), (5, 12, 9, 16)),
        ((0, 0, 1, 1), (0, 0, 4, 4)),
        ((15, 15, 16, 16), (12, 12, 16, 16)),
    ],
    ids=["middle", "top", "bottom", "left", "right", "first corner", "last corner"],
)
def test_a_paste_is_centred_and_stays_inside_all_four_borders(
    small: Generator, paste: tuple[int, int, int, int], expected: Box
):
    request = EditRequest(object=painted(1, 5, 9, 9, 13), paste=painted(2, *paste))
    goal = copy_paste(small, DOWN, request)
    assert goal.box == expected
    top, left, bottom, right = expected
    copied = values(small, DOWN, 1)[:, 5:9, 9:13]
    torch.testing.assert_close(goal.wanted[0, :, top:bottom, left:right], copied, rtol=1e-5, atol=1e-6)


def test_only_the_pasted_place_is_to_change(small: Generator):
    goal = copy_paste(
        small, PLAIN, EditRequest(object=painted(1, 0, 0, 4, 4), paste=painted(2, 8, 8, 12, 12))
    )
    outside = torch.ones(8, 8, dtype=torch.bool)
    top, left, bottom, right = goal.box
    outside[top:bottom, left:right] = False
    assert torch.equal(goal.wanted[0][:, outside], values(small, PLAIN, 2)[:, outside])


def test_an_object_as_large_as_the_map_is_pasted_over_all_of_it(small: Generator):
    request = EditRequest(object=painted(1, 0, 0, 16, 16), paste=painted(2, 12, 12, 14, 14))
    goal = copy_paste(small, UP, request)
    assert goal.box == (0, 0, 8, 8)
    torch.testing.assert_close(goal.wanted[0], values(small, UP, 1), rtol=1e-5, atol=1e-6)


def test_where_a_layer_upsamples_the_box_grows_to_whole_key_cells(small: Generator):
    up = small.layer(UP)
    assert whole_cells((1, 2, 3, 5), up) == (0, 2, 4, 6)
    assert whole_cells((0, 0, 8, 8), up) == (0, 0, 8, 8)
    assert whole_cells((7, 7, 8, 8), up) == (6, 6, 8, 8)
    for layer in (PLAIN, DOWN):
        assert whole_cells((1, 2, 4, 5), small.layer(layer)) == (1, 2, 4, 5)


def test_a_box_on_a_map_that_is_no_whole_multiple_stays_on_it():
    stack = nn.Sequential(nn.Linear(4, 48), nn.Unflatten(1, (3, 4, 4)), nn.ConvTranspose2d(3, 3, 3, 2))
    layer = from_sequential(seeded(stack)).layer("2")
    assert layer.value_size == (9, 9)
    for side in range(1, 10):
        top, left, bottom, right = whole_cells((side - 1, 0, side, side), layer)
        assert 0 <= top < side <= bottom <= 9
        assert (left, right >= side, right <= 9) == (0, True, True)


def test_truncation_and_scheme_of_the_request_say_which_pictures(small: Generator):
    request = EditRequest.from_json(
        EditRequest(object=painted(1, 0, 0, 8, 8), paste=painted(2, 0, 0, 8, 8)).to_json()
    )
    plain = copy_paste(small, PLAIN, request)
    for change in ({"scheme": "rows"}, {"truncation": 0.5}):
        latents = request.latents.model_copy(update=change)
        other = copy_paste(small, PLAIN, request.model_copy(update={"latents": latents}))
        assert not torch.allclose(other.wanted, plain.wanted, atol=1e-3)
        assert not torch.allclose(other.at.keys, plain.at.keys, atol=1e-3)


@pytest.mark.parametrize("missing", ["object", "paste"])
def test_a_missing_region_is_named(small: Generator, missing: str):
    request = EditRequest(object=painted(1, 0, 0, 4, 4), paste=painted(2, 0, 0, 4, 4))
    with pytest.raises(RequestError, match=f"no {missing} in the edit"):
        copy_paste(small, PLAIN, request.model_copy(update={missing: None}))


def test_a_mask_too_small_for_the_layer_is_refused(small: Generator):
    speck = Painted(1, Mask.rectangle((1024, 1024), 5, 5, 6, 6))
    with pytest.raises(MaskError, match="too small for a grid of 8×8"):
        copy_paste(small, PLAIN, EditRequest(object=speck, paste=painted(2, 0, 0, 4, 4)))


# Erase


def second_moment(generator: Generator, layer: str) -> Tensor:
    keys = generator.keys(generator.latents(LatentSpec.of(range(40))), layer).keys.double()
    flat = keys.movedim(1, -1).flatten(0, -2)
    return flat.T @ flat / len(flat)


def strongest(generator: Generator, layer: str, image: int, mask: Mask, moment: Tensor) -> list[int]:
    """Units by the area-weighted mean of k² / E[k²] under one mask, position by position."""
    keys = generator.keys(generator.latents(LatentSpec((image,))), layer).keys[0].double()  # [C, h, w]
    area = mask.area((keys.shape[1], keys.shape[2])).double()
    energy = (keys.square() * area).sum((1, 2)) / area.sum() / moment.diagonal()
    return torch.nan_to_num(energy).argsort(descending=True).tolist()


def erasing(**changes: object) -> EditRequest:
    context = Painted(2, soft_mask(np.random.default_rng(3)))
    request = EditRequest(operation="erase", key=(context,), erase_units=150)
    return request.model_copy(update=changes)


@pytest.mark.parametrize("layer", LAYERS)
def test_erasing_draws_the_region_without_the_strongest_units(small: Generator, layer: str):
    moment, request = second_moment(small, layer), erasing()
    context = request.painted("key")
    goal = erase(small, layer, request, moment)
    at = small.keys(small.latents(LatentSpec((2,))), layer)
    count = round(150 * at.keys.shape[1] / 512)
    units = strongest(small, layer, 2, context.mask, moment)[:count]
    assert erased_units(small, layer, request, moment).tolist() == units

    keys = at.keys.clone()
    for unit in units:
        keys[:, unit] = 0
    blank = small.finish(at, small.respond(layer, keys, small.weight(layer)))
    size = small.layer(layer).value_size
    alpha = context.mask.area(size)
    wanted = alpha * blank + (1 - alpha) * small.values(at)
    torch.testing.assert_close(goal.wanted, wanted, rtol=1e-5, atol=2e-6)
    assert torch.equal(goal.at.keys, at.keys)
    assert goal.box == whole_cells(bounding_box(alpha.numpy()), small.layer(layer))


def test_erasing_acts_where_the_paste_says_if_there_is_one(small: Generator):
    region = painted(5, 2, 4, 6, 8)
    goal = erase(small, PLAIN, erasing(paste=region), second_moment(small, PLAIN))
    assert goal.box == region.mask.bounds((8, 8))
    assert torch.equal(goal.at.keys, small.keys(small.latents(LatentSpec((5,))), PLAIN).keys)


def test_at_least_one_unit_is_erased_and_dead_ones_come_last(small: Generator):
    moment = second_moment(small, PLAIN)
    assert len(erased_units(small, PLAIN, erasing(erase_units=1), moment)) == 1
    first, *others = erased_units(small, PLAIN, erasing(erase_units=512), moment).tolist()
    moment[first], moment[:, first] = 0, 0
    order = erased_units(small, PLAIN, erasing(erase_units=512), moment).tolist()
    assert order[:5] == others[:5]
    assert order.index(first) > 5


def test_erasing_without_a_context_is_refused(small: Generator):
    with pytest.raises(RequestError, match="no key in the edit"):
        erase(small, PLAIN, erasing(key=()), second_moment(small, PLAIN))


def test_a_goal_is_a_value(small: Generator):
    goal = copy_paste(small, PLAIN, EditRequest(object=painted(1, 0, 0, 4, 4), paste=painted(2, 0, 0, 4, 4)))
    assert isinstance(goal, Goal)
    with pytest.raises(AttributeError):
        goal.box = (0, 0, 1, 1)  # type: ignore[misc]
