"""What tells two contexts apart: the formula, the steering, the sign, and where there is nothing to tell."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from rewrite_core.directions import ContextSettings, Direction, difference
from rewrite_core.errors import MaskError, PalimpsestError, RequestError
from rewrite_core.memory import Observations, regularised, weighted_mean
from rewrite_core.rules.painted import observations_of
from rewrite_core.rules.request import EditRequest
from tests.generators import PLAIN, painted, small_generator

UNITS = 6


def seen(seed: int, positions: int = 15, shift: float = 0.0) -> Observations:
    draw = torch.Generator().manual_seed(seed)
    keys = torch.randn(positions, UNITS, generator=draw, dtype=torch.float64) + shift
    return Observations(keys, torch.rand(positions, generator=draw, dtype=torch.float64) + 0.1)


def moment() -> Tensor:
    keys = seen(9, 400).keys * torch.arange(1.0, UNITS + 1, dtype=torch.float64)
    return keys.T @ keys / 400


def apart(
    this: Observations, that: Observations, settings: dict[str, Any] | None = None, **more: Any
) -> Direction:
    chosen = ContextSettings.model_validate(settings or {})
    return difference(this, that, moment(), chosen, layer="l05", **more)


def means(*observations: Observations) -> list[Tensor]:
    return [weighted_mean(each, each.keys) for each in observations]


def test_it_is_the_query_for_the_difference_of_the_mean_keys():
    this, that = means(seen(0), seen(1))
    found = apart(seen(0), seen(1), {"ridge": 0.0}, name="this, not that", model="small", fingerprint="ab")
    query = torch.linalg.solve(moment(), this - that)
    torch.testing.assert_close(found.vectors[0], query / query.norm())
    assert found.key is not None
    torch.testing.assert_close(found.key, this - that)
    distance = ((this - that) @ torch.linalg.solve(moment(), this - that)).sqrt()
    torch.testing.assert_close(found.singular_values, distance[None])
    assert (found.method, found.layer, found.name, found.rank) == ("difference", "l05", "this, not that", 1)
    assert (found.model, found.fingerprint) == ("small", "ab")


def test_no_other_query_tells_them_further_apart():
    """Fisher's: of all queries whose mean square heat is the same, its mean heats differ most."""
    this, that = means(seen(0), seen(1))
    found = apart(seen(0), seen(1), {"ridge": 0.0}).vectors[0]
    draw = torch.Generator().manual_seed(3)
    queries = torch.cat(
        [found[None], found + 0.3 * torch.randn(200, UNITS, generator=draw, dtype=torch.float64)]
    )
    power = torch.einsum("nc,cd,nd->n", queries, moment(), queries).sqrt()
    assert (queries @ (this - that) / power).argmax() == 0


@pytest.mark.parametrize("seed", range(5))
def test_it_is_higher_on_this_and_turns_round_when_they_are_exchanged(seed: int):
    one, other = seen(seed, shift=1.0), seen(seed + 10, shift=-0.5)
    found, turned = apart(one, other), apart(other, one)
    here, there = means(one, other)
    assert found.vectors[0] @ here > found.vectors[0] @ there
    torch.testing.assert_close(turned.vectors, -found.vectors)


def test_where_that_has_more_of_what_both_have_it_looks_for_its_absence():
    key = torch.arange(1.0, UNITS + 1, dtype=torch.float64)
    this, that = (
        Observations(amount * key[None], torch.ones(1, dtype=torch.float64)) for amount in (1.0, 2.0)
    )
    found = apart(this, that).vectors[0]
    assert found @ that.keys[0] < found @ this.keys[0] < 0


def test_what_both_share_drops_out():
    shared = 100 * torch.arange(1.0, UNITS + 1, dtype=torch.float64)
    one, other = (Observations(each.keys + shared, each.weights) for each in (seen(0), seen(1)))
    torch.testing.assert_close(apart(one, other).vectors, apart(seen(0), seen(1)).vectors)


def test_it_is_measured_by_the_steered_second_moment():
    this, that = means(seen(0), seen(1))
    rest, protected = torch.eye(UNITS).double(), torch.ones(UNITS, UNITS).double()
    chosen = {"ridge": 0.2, "contrast": 2.0, "protect": 5.0}
    found = apart(seen(0), seen(1), chosen, rest=rest, protected=protected)
    query = torch.linalg.solve(regularised(moment(), 0.2) + 2.0 * rest + 5.0 * protected, this - that)
    torch.testing.assert_close(found.vectors[0], query / query.norm())
    with pytest.raises(RequestError, match="contrast 2 without the rest"):
        apart(seen(0), seen(1), chosen, protected=protected)


def test_it_says_where_it_came_from_and_can_be_saved():
    found = apart(seen(0, 15), seen(1, 20), provenance={"seeds": [2, 5]})
    told = json.loads(json.dumps(found.provenance))
    assert (told["seeds"], told["observations"]) == ([2, 5], [15, 20])
    assert ContextSettings.parse(told["settings"], "the direction") == ContextSettings()
    assert 1 < told["effective_rank"] <= UNITS
    assert Direction.load(found.to_bytes()) == found


def test_one_context_and_itself_are_refused():
    line = "two contexts whose mean keys are the same; expected contexts that the layer tells apart"
    with pytest.raises(MaskError, match=line):
        apart(seen(0), seen(0))
    twice = Observations(seen(0).keys.repeat(2, 1), seen(0).weights.repeat(2))  # the same but for rounding
    with pytest.raises(MaskError, match=line):
        apart(seen(0), twice)
    zero = Observations(torch.zeros(3, UNITS).double(), torch.ones(3).double())
    with pytest.raises(MaskError, match=line):
        apart(zero, zero)


def test_contexts_that_differ_only_in_a_dead_unit_are_refused():
    alive = torch.ones(UNITS, dtype=torch.float64)
    alive[2] = 0
    other = seen(0).keys + (1 - alive)
    with pytest.raises(MaskError, match="mean keys are the same"):
        difference(
            seen(0),
            Observations(other, seen(0).weights),
            moment() * alive * alive[:, None],
            ContextSettings(),
            layer="l05",
        )


@pytest.mark.parametrize("empty", ["this", "that"])
def test_a_context_of_zero_area_is_refused(empty: str):
    nothing = Observations(torch.zeros(0, UNITS).double(), torch.zeros(0).double())
    with pytest.raises(MaskError, match="cover no position"):
        apart(*((nothing, seen(0)) if empty == "this" else (seen(0), nothing)))


def test_nan_is_refused():
    with pytest.raises(PalimpsestError, match="NaN or infinite values"):
        difference(seen(0), seen(1), torch.full((UNITS, UNITS), torch.nan), ContextSettings(), layer="l05")


def test_what_two_requests_show_can_be_told_apart():
    small = small_generator()
    left, right = (
        EditRequest(key=(painted(image, 0, column, 16, column + 8),)) for image, column in ((1, 0), (2, 8))
    )
    one, other = (observations_of(small, PLAIN, request) for request in (left, right))
    assert one.keys.shape[1] == 10
    keys = torch.cat([one.keys, other.keys])
    found = difference(one, other, keys.T @ keys / len(keys), ContextSettings(), layer=PLAIN)
    here, there = means(one, other)
    assert found.vectors[0] @ here > found.vectors[0] @ there
    with pytest.raises(RequestError, match="no key in the edit"):
        observations_of(small, PLAIN, EditRequest())
