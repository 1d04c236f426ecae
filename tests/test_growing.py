"""Growing a mask to what is similar, in a planted generator whose shapes are known."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rewrite_core.errors import LayerError, MaskError, RequestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.pictures import Mask
from rewrite_core.rules.growing import alike, grow, grown
from rewrite_core.rules.regions import Painted
from rewrite_core.rules.settings import LatentSettings
from rewrite_core.statistics import LayerStatistics, layer_statistics
from tests.nvidia import random_stylegan3
from tests.planted import SHAPES, planted_generator

GREEN = 1


@pytest.fixture(scope="module")
def planted() -> Generator:
    return planted_generator()


@pytest.fixture(scope="module")
def statistics(planted: Generator) -> LayerStatistics:
    return layer_statistics(planted, SHAPES)


@pytest.fixture(scope="module")
def squares(planted: Generator) -> tuple[int, NDArray[np.bool_]]:
    """A picture with three green squares or more and nothing else in their places, and where they are, [24, 24]."""
    keys = planted.keys(planted.latents(LatentSpec.of(range(400))), SHAPES).keys  # [N, 8, 24, 24]
    green = keys[:, GREEN] > 0
    others = keys.clone()
    others[:, [GREEN, 6, 7]] = 0
    alone = ~(green & (others > 0).any(1)).flatten(1).any(1)
    enough = green.flatten(1).sum(1) >= 3 * 16
    seed = int((alone & enough).nonzero()[0])
    return seed, green[seed].numpy()


def first_square(green: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The middle of one green square of 4 × 4."""
    row, column = np.argwhere(green)[0]
    middle = np.zeros_like(green)
    middle[row + 1 : row + 3, column + 1 : column + 3] = True
    return middle


def threshold(found: torch.Tensor, green: NDArray[np.bool_]) -> float:
    """A similarity that all green squares have and nothing else."""
    least, most = float(found[torch.from_numpy(green)].min()), float(found[torch.from_numpy(~green)].max())
    assert most < least
    return (least + most) / 2


def on(seed: int, mask: NDArray[np.bool_]) -> Painted:
    return Painted(seed, Mask.from_array(mask))


def test_a_part_of_a_square_grows_to_the_square_or_to_all_squares(planted, statistics, squares):
    seed, green = squares
    painted = on(seed, first_square(green))
    between = threshold(alike(planted, SHAPES, painted, statistics), green)
    one = grow(planted, SHAPES, painted, statistics, between, connected=True).pixels > 0
    row, column = np.argwhere(green)[0]
    whole = np.zeros_like(green)
    whole[row : row + 4, column : column + 4] = True
    assert np.array_equal(one, whole)
    every = grow(planted, SHAPES, painted, statistics, between, connected=False).pixels > 0
    assert np.array_equal(every, green)


def test_the_mean_painted_key_is_similar_to_itself_and_others_are_less(planted, statistics, squares):
    seed, green = squares
    found = alike(planted, SHAPES, on(seed, green), statistics)
    assert found.shape == (24, 24)
    assert float(found.max()) <= 1 + 1e-9
    assert float(found[torch.from_numpy(green)].min()) > float(found[torch.from_numpy(~green)].max())


def test_more_similarity_is_asked_for_and_less_is_found_but_never_less_than_was_painted(
    planted, statistics, squares
):
    seed, green = squares
    painted = on(seed, np.kron(first_square(green), np.ones((3, 3), bool)))  # [72, 72]
    found = alike(planted, SHAPES, painted, statistics)
    masks = [
        grown(painted, found, similarity, connected=False).pixels > 0 for similarity in (0, 0.3, 0.6, 0.9, 1)
    ]
    for wider, narrower in pairwise(masks):
        assert not (narrower & ~wider).any()
    assert np.array_equal(masks[-1], painted.mask.pixels > 0)
    assert masks[0].shape == (72, 72)


def test_a_corner_connects():
    painted = on(0, np.eye(3, dtype=bool) & (np.arange(3) == 0))
    assert np.array_equal(
        grown(painted, torch.eye(3).double(), 0.5, connected=True).pixels > 0, np.eye(3, dtype=bool)
    )


def test_a_soft_mask_stays_as_soft_where_it_was_painted():
    soft = np.zeros((4, 4), np.uint8)
    soft[1, 1:3] = (90, 255)
    painted = Painted(0, Mask(soft))
    result = grown(painted, torch.ones(4, 4).double(), 0.5, connected=True).pixels
    assert result[1, 1] == 90
    assert (np.delete(result.flatten(), 5) == 255).all()


def test_similarity_is_that_of_the_inverse_of_the_steered_second_moment(planted, statistics, squares):
    seed, green = squares
    painted = on(seed, first_square(green))
    keys = planted.keys(planted.latents(LatentSpec((seed,))), SHAPES).keys[0].double()  # [8, 24, 24]
    moment = statistics.second_moment
    fires = moment.diagonal() > 0
    steered = moment + 0.1 * moment.trace() / fires.sum() * torch.diag(fires.double())
    inverse = torch.linalg.pinv(steered)
    mean = keys[:, torch.from_numpy(first_square(green))].mean(1)
    quadratic = torch.einsum("chw,cd,dhw->hw", keys, inverse, keys)
    wanted = torch.einsum("chw,cd,d->hw", keys, inverse, mean) / (quadratic * (mean @ inverse @ mean)).sqrt()
    assert torch.allclose(alike(planted, SHAPES, painted, statistics), wanted, atol=1e-6)


def test_rules_and_other_latents_do_not_matter_and_matter(planted, statistics, squares):
    seed, green = squares
    painted = on(seed, first_square(green))
    plain = alike(planted, SHAPES, painted, statistics)
    muted = planted.with_weights({"places": torch.zeros_like(planted.weight("places"))})
    assert torch.equal(alike(muted, SHAPES, painted, statistics), plain)
    other = alike(planted, SHAPES, painted, statistics, LatentSettings(truncation=0.5))
    assert not torch.equal(other, plain)


def test_margins_beyond_the_picture_are_left_out():
    generator = random_stylegan3()
    layer = next(name for name, found in generator.layers.items() if found.key_margin)
    found = generator.layer(layer)
    height, width = (side - 2 * found.key_margin for side in found.key_size)
    painted = on(1, np.arange(4 * height * 4 * width).reshape(4 * height, 4 * width) < 8 * width)
    statistics = layer_statistics(generator, layer, samples=8)
    similar = alike(generator, layer, painted, statistics)
    assert similar.shape == (height, width)
    mask = grown(painted, similar, 0.9, connected=False)
    assert mask.size == painted.mask.size
    assert (mask.pixels[:2] == 255).all()


def test_what_cannot_grow_is_refused(planted, statistics):
    nothing = on(0, np.zeros((24, 24), bool))
    with pytest.raises(MaskError):
        grow(planted, SHAPES, nothing, statistics, 0.5, connected=True)
    somewhere = on(0, np.ones((24, 24), bool))
    with pytest.raises(RequestError, match=r"a similarity of 1\.5; expected 0 to 1"):
        grow(planted, SHAPES, somewhere, statistics, 1.5, connected=True)
    with pytest.raises(RequestError, match="statistics of layer shapes"):
        grow(planted, "colours", somewhere, statistics, 0.5, connected=True)
    with pytest.raises(LayerError):
        alike(planted, "none", somewhere, replace(statistics, layer="none"))
