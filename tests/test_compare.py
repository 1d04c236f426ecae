"""Comparing: rules whose whole effect is known, two models, and how far two dissections agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dissect.bootstrap import interval
from dissect.compare import COLUMNS, Comparison, agreement, compare
from dissect.settings import Settings
from dissect.units import dissect
from rewrite_core import Rule, RuleStack, Store
from rewrite_core.errors import Cancelled, LayerError, PalimpsestError, RequestError
from rewrite_core.generators import Generator, SequentialGenerator
from rewrite_core.rules.rule import Provenance, versions
from tests.generators import PLAIN, UP, small_generator, spec
from tests.labellers import Bright
from tests.planted import COLOURS, MUTE, PLACES, SHAPES, Shapes, drawn_by, planted_generator

SEEN = Shapes()
SAMPLES = spec(100)
RED, GREEN, BLUE, SILENT = range(4)
"""Units of layer ``colours``."""


@pytest.fixture(scope="module")
def planted() -> SequentialGenerator:
    return planted_generator()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(Path(tmp_path_factory.mktemp("statistics")))


def rewritten(generator: Generator, layer: str, weight: Tensor) -> Generator:
    """The view in which a rule of full rank gives `layer` this weight [O, C, 1, 1]."""
    units = weight.shape[1]
    delta = (weight - generator.weight(layer)).reshape(len(weight), units, 1, 1)
    made_for = Provenance(
        model=generator.name,
        fingerprint=generator.fingerprint,
        layer=layer,
        name="planted",
        request={},
        result={},
        made_with=versions(),
    )
    return generator.with_rules(RuleStack().push(Rule(torch.eye(units), delta, made_for)))


def without_green(generator: Generator) -> Generator:
    """The green squares are drawn no more."""
    weight = generator.weight(SHAPES).clone()
    weight[GREEN] = 0
    return rewritten(generator, SHAPES, weight)


@pytest.fixture(scope="module")
def greenless(planted, store) -> Comparison:
    return compare(planted, without_green(planted), SAMPLES, [PLACES, SHAPES, COLOURS], SEEN, store=store)


def changes(found: Comparison, layer: str) -> dict[int, str]:
    """The units that changed meaning, and how."""
    table = found.units()
    table = table[(table["layer"] == layer) & (table["change"] != "")]
    return dict(zip(table["unit"], table["change"], strict=True))


def units(found: Comparison) -> Any:
    """The table of units by layer and unit; pandas' own types say that a cell may be anything."""
    return found.units().set_index(["layer", "unit"])


def concepts(found: Comparison) -> Any:
    """The table of concepts by name."""
    return found.concepts().set_index("concept")


def test_a_rule_that_erases_a_colour_takes_the_meaning_of_its_units(planted, greenless):
    assert changes(greenless, SHAPES) == {1: "lost"}
    assert changes(greenless, COLOURS) == {GREEN: "lost"}
    row = units(greenless).loc[(COLOURS, GREEN)]
    assert row["concept_before"] == "green"
    assert row["concept_after"] == ""
    assert row["held_out_iou_before"] > 0.9
    assert row["held_out_iou_after"] == 0
    assert row["iou_change"] == -row["held_out_iou_before"]
    assert row["firing_before"] == pytest.approx(0.01, abs=0.002)
    assert row["firing_after"] == 0
    assert not greenless.units().isna().any(axis=None)


def test_shares_before_and_after_are_exact_with_a_paired_interval(planted, greenless):
    table = concepts(greenless)
    lost = drawn_by(planted, SAMPLES)[:, 1].double() / 48**2  # [N]
    green = table.loc["green"]
    assert green["before"] == pytest.approx(float(lost.mean()))
    assert green["after"] == 0
    assert green["effect"] == -green["before"]
    assert green["relative"] == -1
    low, high = interval(-lost[:, None])
    assert (green["low"], green["high"]) == pytest.approx((float(low), float(high)))
    assert (table.loc[["red", "blue"], ["effect", "low", "high", "relative"]] == 0).all(axis=None)
    assert table.loc["dark", "low"] > 0


def test_where_concepts_grew_or_shrank_is_the_mean_of_the_pictures_difference(planted, greenless):
    before, after = (generator.sample(SAMPLES) > 0 for generator in (planted, without_green(planted)))
    expected = after.double().mean(0) - before.double().mean(0)  # [3, 48, 48]
    assert greenless.where is not None
    assert greenless.where.shape == (len(SEEN.names), 48, 48)
    torch.testing.assert_close(greenless.where[:3], expected)
    assert greenless.where[1].min() < 0


def test_units_whose_concept_is_drawn_in_another_colour_have_moved(planted, store):
    weight = planted.weight(COLOURS)[[GREEN, RED, BLUE]]  # red for green, green for red
    found = compare(planted, rewritten(planted, COLOURS, weight), SAMPLES, [COLOURS], SEEN, store=store)
    assert changes(found, COLOURS) == {RED: "moved", GREEN: "moved"}
    table = units(found).loc[COLOURS]
    assert table.loc[RED, "concept_after"] == "green"
    assert table.loc[GREEN, "concept_after"] == "red"
    assert (table["firing_before"] == table["firing_after"]).all()  # the keys are what they were


def test_a_unit_that_begins_to_draw_gains_a_concept(planted, store):
    weight = planted.weight(COLOURS).clone()
    weight[BLUE] = weight[BLUE].roll(1, 0)  # from the channel of the mute unit
    found = compare(
        planted, rewritten(planted, COLOURS, weight), SAMPLES, [SHAPES, COLOURS], SEEN, store=store
    )
    assert changes(found, COLOURS) == {BLUE: "lost", SILENT: "gained"}
    assert changes(found, SHAPES) == {2: "lost", MUTE: "gained"}
    assert concepts(found).loc["blue", "low"] > 0


def test_a_unit_that_is_only_louder_means_what_it_meant_and_fires_more(planted, store):
    weight = planted.weight(SHAPES).clone()
    weight[RED] *= 3
    found = compare(planted, rewritten(planted, SHAPES, weight), SAMPLES, [COLOURS], SEEN, store=store)
    row = units(found).loc[(COLOURS, RED)]
    assert changes(found, COLOURS) == {}
    assert row["concept_before"] == row["concept_after"] == "red"
    assert row["firing_after"] > 2 * row["firing_before"]


def test_a_generator_is_no_different_from_itself(planted, store):
    found = compare(planted, planted, SAMPLES, [SHAPES], SEEN, store=store)
    assert changes(found, SHAPES) == {}
    assert (found.units()["iou_change"] == 0).all()
    assert (found.concepts()[["effect", "low", "high", "relative"]] == 0).all(axis=None)
    assert found.where is not None
    assert not found.where.any()


def test_two_models_are_compared_where_their_layers_agree(planted, store):
    other = small_generator()  # 16 × 16 pixels, and none of the layers
    found = compare(planted, other, spec(30), [SHAPES], SEEN, store=store)
    assert found.units().empty
    assert list(found.units()) == list(COLUMNS)
    assert found.where is None
    table = found.concepts()
    for name, generator in (("before", planted), ("after", other)):
        share = (generator.sample(spec(30)) > 0).double().mean((0, 2, 3))
        assert table[name][:3].tolist() == pytest.approx(share.tolist())
    twins = compare(other, small_generator(1), spec(30), [UP, PLAIN], SEEN, store=store)
    assert twins.units().groupby("layer").size().to_dict() == {UP: 12, PLAIN: 10}
    assert twins.where is not None


def test_progress_is_told_of_each_stage_and_may_cancel(planted, store):
    seen: list[tuple[int, int]] = []
    compare(planted, planted, spec(50), [], SEEN, store=store, progress=lambda *at: seen.append(at))
    assert seen == [(25, 100), (50, 100), (75, 100), (100, 100)]

    def cancel(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        compare(planted, planted, spec(50), [SHAPES], SEEN, store=store, progress=cancel)


def test_what_cannot_be_compared_is_refused(planted, store):
    with pytest.raises(PalimpsestError, match="which know unedited samples only"):
        compare(planted, planted, SAMPLES, [SHAPES], Shapes(pixels_only=False), store=store)
    with pytest.raises(LayerError, match="layer 'l99'; expected one of places"):
        compare(planted, planted, SAMPLES, ["l99"], SEEN, store=store)
    with pytest.raises(RequestError, match="1 samples; expected at least 2"):
        compare(planted, planted, spec(1), [], SEEN, store=store)


# Agreement


def test_a_dissection_agrees_with_itself_and_with_one_on_other_seeds(planted, store):
    layers = [SHAPES, COLOURS]
    one = dissect(planted, spec(300), layers, SEEN, store=store)
    same = agreement(one, one)
    assert (same.same, same.same_detectors) == (1, 1)
    assert same.correlation == pytest.approx(1)
    assert same.detectors == 7  # four units of shapes, three of colours
    fresh = agreement(one, dissect(planted, spec(300, first=1000), layers, SEEN, store=store))
    assert fresh.same_detectors == 1
    assert 0.9 < fresh.correlation < 1
    stricter = agreement(
        one, dissect(planted, spec(300), layers, SEEN, Settings(quantile=0.999), store=store)
    )
    assert stricter.same_detectors == 1


def test_a_dissection_of_the_rewritten_generator_agrees_less(planted, greenless, store):
    one, other = (
        dissect(generator, SAMPLES, [SHAPES, COLOURS], SEEN, store=store)
        for generator in (planted, without_green(planted))
    )
    found = agreement(one, other)
    assert found.detectors == 7
    assert found.same_detectors == pytest.approx(5 / 7)
    assert found.same < 1
    assert found.correlation < 0.9


def test_dissections_without_a_detector_agree_without_nan(planted, store):
    one = dissect(planted, spec(20), [COLOURS], BRIGHT, store=store)
    found = agreement(one, one)
    assert (found.units, found.same, found.detectors, found.same_detectors) == (0, 0.0, 0, 0.0)
    assert found.correlation == 0


def test_dissections_of_other_concepts_or_layers_are_refused(planted, store):
    one = dissect(planted, spec(20), [COLOURS], SEEN, store=store)
    for other in (
        dissect(planted, spec(20), [COLOURS], Shapes(unseen=True), store=store),
        dissect(planted, spec(20), [SHAPES], SEEN, store=store),
    ):
        with pytest.raises(RequestError, match="expected the same concepts, and a layer in common"):
            agreement(one, other)


class Never(Bright):
    """A concept that is nowhere."""

    title, pixels_only = "never", True

    def check(self, generator: Generator) -> None:
        """Any pictures will do."""


BRIGHT = Never((2.0,))
