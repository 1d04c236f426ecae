"""The table of solvers and key methods: how edits are matched, judged and put on their page."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.fresh import Effect, Fresh, effect
from benchmarks.requests import REQUESTS, TABLES, failure, lines, of_ways, put_table, sheet
from benchmarks.trials import BASELINES, IDEAS, KEYS, OURS, RANKS, SOLVERS, Result, Shown, Tried
from rewrite_core import EditRequest, LatentSpec
from tests.generators import PLAIN, small_generator, some_rule


def linear(inside: float, outside: float) -> Effect:
    return Effect(lambda strength: (inside * strength, outside * strength))


def result(request: str, way: str, kind: str = "keys", against: float = 1.0, **values: float) -> Result:
    numbers = {"loss": 0.5, "inside": 0.2, "outside": 0.05, "seconds": 0.1, **values}
    return Result(request, way, kind, 1, against=against, **numbers)


def test_the_stronger_edit_is_scaled_down():
    weak, strong = linear(0.1, 0.02), linear(0.4, 0.04)
    assert weak.against(strong) == pytest.approx(2.0)
    assert strong.against(weak) == pytest.approx(0.5)


@pytest.mark.parametrize("inside", [0.05, 0.3, 0.7, 1.0])
def test_a_curved_effect_is_met_closely(inside: float):
    saturating = Effect(lambda strength: (strength**0.8, strength**1.1))
    assert saturating.outside_at(inside) == pytest.approx(inside ** (1.1 / 0.8), rel=0.03)


def test_an_edit_that_is_weaker_again_at_full_strength_is_met_on_its_way_up():
    turning = Effect(lambda strength: (strength * (1.5 - strength), strength))
    assert turning.inside == 0.5
    assert turning.outside_at(0.4) == pytest.approx(0.349, rel=0.05)


def test_an_edit_without_effect_is_as_good_as_the_reference():
    assert linear(0.0, 0.0).against(linear(0.1, 0.1)) == 1.0


def test_the_change_is_that_of_the_pictures_inside_and_outside():
    generator = small_generator()
    spec = LatentSpec.of(range(3))
    at = generator.keys(generator.latents(spec), PLAIN)
    before = generator.sample(spec).add(1).div(2)
    inside = torch.zeros(3, 16, 16, dtype=torch.bool)
    inside[:, :8] = True
    rule = some_rule(generator)
    found = effect(Fresh(generator, (at,), before, inside), (rule,))
    changed = (generator.with_rules(rule).sample(spec).add(1).div(2) - before).abs().mean(1)
    assert found.inside == pytest.approx(float(changed[:, :8].mean()), rel=1e-4)
    assert found.outside == pytest.approx(float(changed[:, 8:].mean()), rel=1e-4)
    assert found.outside_at(0.0) == 0.0


def test_the_eight_requests_are_there_and_complete():
    assert len(REQUESTS) == 8
    for path in REQUESTS:
        EditRequest.load(path).require_complete()


def test_medians_and_wins_are_over_the_requests():
    results = [
        result("a", "zca", against=0.5),
        result("b", "zca", against=0.9),
        result("c", "zca", against=2),
    ]
    head, row = of_ways(results, "keys", ["zca"], "key method")
    cells = dict(zip(head, row, strict=True))
    assert cells["outside ÷ published, rank 1"] == "0.90 (2)"
    assert cells["outside ÷ published, rank 3"] == "–"
    assert cells["worst, rank 1"] == "2.00"


def test_a_request_fails_where_it_stays_far_from_its_goal_or_changes_everything():
    assert failure(result("a", OURS)) == ""
    assert failure(result("a", OURS, loss=0.7)) == "does not reach the goal"
    assert failure(result("a", OURS, outside=0.15)) == "changes the rest too"


def test_every_way_has_a_row_in_a_table_and_every_request_too():
    names = [path.stem for path in REQUESTS]
    ways = (
        [("solver", way) for way in SOLVERS]
        + [("keys", way) for way in KEYS]
        + [("idea", way) for way in IDEAS]
    )
    results = [
        Result(name, way, kind, rank, 0.5, 0.2, 0.05, 1.0, 0.1)
        for name in names
        for kind, way in ways
        for rank in RANKS
    ]
    tables = {name: list(rows(results)) for name, rows in TABLES.items()}
    assert set(BASELINES) <= {row[0] for row in tables["solvers"]}
    assert len(tables["requests, rank 1"]) == 1 + len(names)
    for table in tables.values():
        assert len({len(row) for row in table}) == 1


def test_a_table_takes_its_place_on_the_page():
    page = "before\n<!-- table: one -->\nold\n<!-- end of table -->\nafter"
    table = lines([("a", "b"), ("1", "2")])
    put = put_table(page, "one", table)
    assert put.startswith("before\n<!-- table: one -->\n\n| a | b |\n| --- | ---: |\n| 1 | 2 |\n\n<!-- end")
    assert put.endswith("after")
    assert put_table(put, "one", table) == put
    with pytest.raises(AssertionError, match="no table 'two'"):
        put_table(page, "two", table)


def test_the_contact_sheet_shows_every_request():
    flat = np.full((3, 32, 32, 3), 200, dtype=np.uint8)
    one = Tried(
        "face32-dcgan-eyes",
        (Result("face32-dcgan-eyes", OURS, "solver", 1, 0.9, 0.2, 0.05, 1.0, 0.1),),
        Shown(flat[0], flat, flat, flat),
    )
    assert sheet([one, one]).startswith(b"\x89PNG")
