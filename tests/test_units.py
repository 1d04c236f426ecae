"""Dissection: units × concepts against brute force, planted truth, and what is chosen where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from dissect.layer import LayerDissection, Levels
from dissect.settings import CUSTOMARY
from dissect.units import LADDER, Dissection, Settings, dissect, dissect_directions, halves
from rewrite_core import LatentSpec, PalimpsestError
from rewrite_core.errors import Cancelled, LayerError, RequestError
from rewrite_core.generators import Generator
from rewrite_core.statistics import (
    Histogram,
    Intersection,
    Labeller,
    Maxima,
    Scene,
    SecondMoment,
    Store,
    fetch,
    key_of,
)
from tests.generators import DOWN, PLAIN, UP, small_generator, spec
from tests.labellers import Bright, Tints
from tests.planted import (
    COLOURS,
    CONSTANT,
    DEAD,
    DRAWS,
    LAYERS,
    MUTE,
    PLACES,
    SHAPES,
    WIDE,
    Shapes,
    planted_generator,
)
from tests.watched import Watched

PLANTED = LatentSpec.of(range(300))


@dataclass(frozen=True)
class Source:
    """Any labeller as a source of concepts.

    From picture `turned` on, labels are their opposite; pictures from `blank` on, or before `late`, carry none.
    """

    labeller: Labeller
    turned: int = 10**9
    blank: int = 10**9
    late: int = 0
    title: str = "a labeller"
    pixels_only: bool = True
    layers: tuple[str, ...] = ()
    seen: list[int] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        return self.labeller.names

    def identity(self) -> Mapping[str, Any]:
        changes = {"turned": self.turned, "blank": self.blank, "late": self.late}
        return {**self.labeller.identity(), **changes}

    def check(self, generator: Generator) -> None:
        if generator.name == "refused":
            raise PalimpsestError(found="another generator", expected="this one", remedy="Take this one.")

    def __call__(self, scene: Scene) -> Tensor:
        labels = self.labeller(scene).float()
        for number, seed in enumerate(scene.latents.spec.seeds):
            self.seen.append(seed)
            if seed >= self.turned:
                labels[number] = 1 - labels[number]
            if seed >= self.blank or seed < self.late:
                labels[number] = 0
        return labels


@dataclass(frozen=True)
class Unnamed(Shapes):
    """A source with no concept."""

    @property
    def names(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True)
class Twice(Shapes):
    """A source that names a concept twice."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("red", "green", "blue", "red")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Dissection:
    """All layers of the planted generator."""
    store = Store(tmp_path_factory.mktemp("planted"))
    return dissect(planted_generator(), PLANTED, LAYERS, Shapes(unseen=True), store=store)


# Brute force


def sampled(keys: NDArray[Any], height: int, width: int) -> NDArray[np.float64]:
    """One map [h, w] brought to [height, width] bilinearly, pixel centres aligned: from the definition."""
    large = np.zeros((height, width))
    h, w = keys.shape
    for row in range(height):
        y = max(0.0, (row + 0.5) * h / height - 0.5)
        top, down = int(y), y - int(y)
        for column in range(width):
            x = max(0.0, (column + 0.5) * w / width - 0.5)
            left, right = int(x), x - int(x)
            below, beside = min(top + 1, h - 1), min(left + 1, w - 1)
            upper = (1 - right) * keys[top, left] + right * keys[top, beside]
            lower = (1 - right) * keys[below, left] + right * keys[below, beside]
            large[row, column] = (1 - down) * upper + down * lower
    return large


@dataclass(frozen=True)
class Masks:
    """What unit and concept is on where, [pictures, units or concepts, pixels]."""

    fires: NDArray[np.float64]
    labels: NDArray[np.bool_]

    @classmethod
    def of(cls, generator: Generator, asked: LatentSpec, layer: str, source: Source) -> Masks:
        latents = generator.latents(asked)
        labels = (source(Scene(generator.pictures(latents), latents)) > 0.5).numpy()  # [N, L, H, W]
        keys = generator.keys(latents, layer).keys.numpy()
        large = [[sampled(unit, *labels.shape[2:]) for unit in picture] for picture in keys]
        return cls(np.stack(large).reshape(*keys.shape[:2], -1), labels.reshape(*labels.shape[:2], -1))

    def half(self, second: bool) -> Masks:
        middle = len(self.fires) // 2
        part = slice(middle, None) if second else slice(0, middle)
        return Masks(self.fires[part], self.labels[part])

    def counts(self, unit: int, threshold: float, concept: int) -> tuple[int, int, int]:
        """Pixels of both, of the unit and of the concept."""
        fires, label = self.fires[:, unit] > threshold, self.labels[:, concept]
        return int((fires & label).sum()), int(fires.sum()), int(label.sum())

    def iou(self, unit: int, threshold: float, concept: int) -> float:
        both, fires, label = self.counts(unit, threshold, concept)
        return both / max(1, fires + label - both)

    def baseline(self, concept: int) -> float:
        return float(self.labels[:, concept].mean())


def judged(masks: Masks, unit: int, levels: list[float], level: float) -> tuple[int, float, bool]:
    """The concept that a unit stands for, its held-out IoU, and whether the unit is a detector."""
    first, second = masks.half(False), masks.half(True)
    concepts = range(masks.labels.shape[1])
    tuned = []  # (IoU on the first half, threshold) of each concept
    for concept in concepts:
        tuned.append(max((first.iou(unit, threshold, concept), threshold) for threshold in levels))
    detected = [c for c in concepts if tuned[c][0] > level and tuned[c][0] > first.baseline(c)]
    best = max(detected or concepts, key=lambda concept: tuned[concept][0])
    if max(iou for iou, _ in tuned) == 0:
        return -1, 0.0, False
    held_out = second.iou(unit, tuned[best][1], best)
    return best, held_out, held_out > level and held_out > second.baseline(best)


@pytest.mark.parametrize("layer", [UP, PLAIN, DOWN])
@pytest.mark.parametrize("labeller", [Tints(), Bright((-0.25, 0.0, 0.1, 0.9))], ids=["soft", "bool"])
def test_every_number_is_that_of_brute_force(layer: str, labeller: Labeller, store: Store):
    generator, asked, source = small_generator(), spec(9), Source(labeller)
    found = dissect(generator, asked, [layer], source, Settings(0.9), store=store).layers[layer]
    masks = Masks.of(generator, asked, layer, source)
    table = found.table()
    assert found.pixels == masks.labels[:, 0].size
    for unit in found.units:
        assert isinstance(unit, int)
        levels, threshold = found.levels.values[unit].tolist(), float(found.thresholds[unit])
        assert found.density[unit] == (masks.fires[:, unit] > threshold).mean()
        for concept in range(len(found.concepts)):
            both, fires, label = masks.counts(unit, threshold, concept)
            assert found.iou[unit, concept] == masks.iou(unit, threshold, concept)
            assert found.precision[unit, concept] == both / max(1, fires)
            assert found.recall[unit, concept] == both / max(1, label)
            assert found.share[concept] == masks.baseline(concept)
            tried = [masks.half(False).iou(unit, level, concept) for level in levels]
            assert found.tuned_iou[unit, concept] == max(tried)
            tuned = float(found.tuned_threshold[unit, concept])
            assert found.held_out[unit, concept] == masks.half(True).iou(unit, tuned, concept)
        concept, held_out, detector = judged(masks, unit, levels, 0.04)
        row = table.iloc[unit]
        assert row["concept"] == ("" if concept < 0 else found.concepts[concept])
        assert (row["held_out_iou"], row["detector"]) == (held_out, detector)


def test_thresholds_are_the_quantiles_of_each_unit_over_all_samples(store: Store):
    generator, asked = small_generator(), spec(40)
    found = dissect(generator, asked, [PLAIN], Source(Tints()), Settings(0.93), store=store).layers[PLAIN]
    assert found.levels.quantiles == tuple(sorted({*LADDER, 0.93}))
    keys = generator.keys(generator.latents(asked), PLAIN).keys.movedim(1, 0).flatten(1)  # [C, P]
    share = (keys[:, None] <= found.levels.values[:, :, None]).double().mean(2)  # [C, T]
    below = (keys[:, None] < found.levels.values[:, :, None]).double().mean(2)
    wanted = torch.tensor(found.levels.quantiles, dtype=torch.float64)
    assert bool((share >= wanted - 0.02).all())  # a bin of the histogram holds no more of 40 pictures
    assert bool((below <= wanted + 0.02).all())
    assert torch.equal(found.thresholds, found.levels.values[:, found.levels.quantiles.index(0.93)])


def test_a_grid_of_its_own_is_what_masks_are_compared_on(store: Store):
    settings = Settings(grid=(4, 6))
    found = dissect(small_generator(), spec(6), [UP], Source(Tints()), settings, store=store).layers[UP]
    assert found.pixels == 6 * 4 * 6


# Planted truth


@pytest.mark.parametrize("layer", LAYERS)
def test_exactly_the_units_that_draw_a_shape_are_its_detectors(layer: str, planted: Dissection):
    units = planted.units().query("layer == @layer and detector")
    found = {concept: set(units[units.concept == concept].unit) for concept in units.concept.unique()}
    assert found == {colour: set(drawing) for colour, drawing in DRAWS[layer].items()}
    counts = planted.detectors().loc[layer]
    assert counts.to_dict() == {
        **{colour: len(u) for colour, u in DRAWS[layer].items()},
        "dark": 0,
        "purple": 0,
    }


def test_a_unit_that_alone_draws_a_colour_matches_it(planted: Dissection):
    table = planted.units().query("layer == @SHAPES").set_index("unit")
    assert table.held_out_iou[1] > 0.7
    assert table.held_out_iou[2] > 0.7
    for unit in (1, 2):
        alone = 1 - table.tuned_quantile[unit]
        share = planted.concepts().set_index("concept").share[table.concept[unit]]
        assert share / 2.5 < alone < share * 2.5  # the level that is about as large as the concept
    both = table.held_out_iou[[0, 5]]
    assert both.sum() < 1  # disc and dot share what is red, in different places
    assert both[0] > 0.5 > both[5] > 0.2


def test_what_draws_nothing_is_no_detector_however_large_its_iou(planted: Dissection):
    table = planted.units().query("layer == @SHAPES").set_index("unit")
    assert not table.detector[[DEAD, MUTE, CONSTANT, WIDE]].any()
    assert table.concept[WIDE] == "dark"
    assert 0.3 < table.held_out_iou[WIDE] < table.baseline[WIDE]  # far above 0.04, and yet no detector
    held_out = planted.iou_table(SHAPES, held_out=True)
    shares = planted.concepts().set_index("concept").baseline
    for unit in (MUTE, WIDE):  # independent of the shapes: no more than a unit that fires everywhere
        assert (held_out.loc[unit, ["red", "green", "blue"]] < 0.04).all()
        assert held_out.loc[unit, "dark"] < shares["dark"]


def test_a_concept_that_covers_most_of_the_picture_does_not_take_a_unit_that_detects_a_small_one():
    first = counted(
        shared=[45, 2], fires=50, labels=[90, 4]
    )  # IoU 0.47 and 0.04, of an all-on unit 0.9 and 0.04
    better = counted(shared=[9, 3], fires=10, labels=[90, 4])  # 0.1 and 0.27
    alike = counted(shared=[45, 2], fires=50, labels=[90, 4])
    assert layer_of(first, alike).concept.tolist() == [0]  # no better than all-on at any: the best of all
    found = layer_of(better, better)
    assert found.concept.tolist() == [1]
    assert found.detector.tolist() == [True]
    large = counted(shared=[50, 1], fires=50, labels=[50, 4])
    assert layer_of(large, large).concept.tolist() == [0]
    assert layer_of(large, large).detector.tolist() == [True]


def test_a_detector_is_above_the_level_and_above_all_on_on_the_second_half():
    good = counted(shared=[9, 3], fires=10, labels=[90, 4])
    below_all_on = counted(shared=[9, 3], fires=10, labels=[90, 30])  # 0.08 of 0.3
    below_level = counted(shared=[9, 1], fires=30, labels=[90, 1])  # 0.03 of 0.01
    assert layer_of(good, good).detector.tolist() == [True]
    assert layer_of(good, below_all_on).detector.tolist() == [False]
    assert layer_of(good, below_level).detector.tolist() == [False]
    assert layer_of(good, below_level, Settings(level=0.02)).detector.tolist() == [True]
    assert layer_of(good, good, Settings(level=0.5)).detector.tolist() == [False]


def counted(shared: list[int], fires: int, labels: list[int]) -> Intersection:
    """Counts of one unit at one level and two concepts, over 100 pixels of one picture."""
    return replace(
        Intersection(torch.zeros(1, 1), Bright((0.0, 0.5))),
        intersection=torch.tensor([[shared]]),
        unit_area=torch.tensor([[fires]]),
        label_area=torch.tensor(labels),
        pixels=100,
        samples=1,
    )


def layer_of(first: Intersection, second: Intersection, settings: Settings = CUSTOMARY) -> LayerDissection:
    levels = Levels((settings.quantile,), torch.zeros(1, 1), 0, torch.tensor([False]))
    return LayerDissection.of("a layer", (0,), levels, (first, second), settings)


# What cannot be judged is said, and is never NaN


def test_a_dead_unit_meets_nothing(planted: Dissection):
    table = planted.units()
    dead = table[table.dead]
    assert dict(zip(dead.layer, dead.groupby("layer").unit.agg(set)[dead.layer], strict=True)) == {
        PLACES: {DEAD, CONSTANT},
        SHAPES: {DEAD, CONSTANT},
    }
    assert (dead.concept == "").all()
    assert not dead.detector.any()
    assert (dead[["iou", "held_out_iou", "precision", "recall", "density"]] == 0).all(axis=None)
    assert f"layer '{SHAPES}': 2 of 8 units are dead" in planted.warnings


def test_a_concept_that_is_never_there_is_listed_and_said(planted: Dissection):
    row = planted.concepts().set_index("concept").loc["purple"]
    assert row.to_dict() == {
        "share": 0.0,
        "baseline": 0.0,
        "detectors": 0,
        "layer": "",
        "unit": "",
        "held_out_iou": 0.0,
    }
    assert planted.warnings[0] == "'purple' is in none of the 300 samples: no unit can detect it"
    assert sum("'" in line and "samples" in line for line in planted.warnings) == 1


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ({"blank": 10}, "in the first half of the samples only"),
        ({"late": 10}, "in the second half of the samples only"),
    ],
)
def test_a_concept_that_is_in_one_half_alone_is_said(when: dict[str, int], said: str, store: Store):
    source = Source(Bright((-0.2,)), **when)  # type: ignore[arg-type]
    found = dissect(small_generator(), spec(20), [UP], source, store=store)
    assert [line for line in found.warnings if said in line]
    assert not found.units().detector.any()
    nowhere_nan(found)


def test_no_table_holds_nan(planted: Dissection, store: Store):
    nowhere_nan(planted)
    nowhere_nan(dissect(small_generator(), spec(2), [UP, DOWN], Source(Bright((5.0,))), store=store))


def nowhere_nan(found: Dissection) -> None:
    tables = [found.units(), found.summary(), found.detectors(), found.concepts()]
    tables += [found.iou_table(layer, held_out) for layer in found.layers for held_out in (False, True)]
    assert not any(table.isna().any(axis=None) for table in tables)


# Nothing is chosen on what it is reported on


def test_labels_of_the_second_half_choose_nothing(store: Store):
    generator, asked = small_generator(), spec(20)
    right, wrong = (
        dissect(generator, asked, [PLAIN], Source(Tints(), turned=turned), store=store).layers[PLAIN]
        for turned in (10**9, 10)
    )
    assert torch.equal(right.tuned, wrong.tuned)
    assert torch.equal(right.tuned_iou, wrong.tuned_iou)
    assert torch.equal(right.concept, wrong.concept)
    assert not torch.equal(right.held_out, wrong.held_out)


def test_labels_of_the_first_half_are_not_reported_on(store: Store):
    generator, asked = small_generator(), spec(20)
    some, others = (
        dissect(generator, asked, [PLAIN], Source(Tints(), late=late), store=store).layers[PLAIN]
        for late in (0, 5)
    )
    same = some.tuned == others.tuned
    assert bool(same.any())
    assert torch.equal(some.held_out[same], others.held_out[same])
    assert torch.equal(some.baseline, others.baseline)
    assert not torch.equal(some.tuned_iou, others.tuned_iou)


@pytest.mark.parametrize("count", [2, 3, 9, 10])
def test_the_halves_are_all_samples_in_order(count: int):
    asked = LatentSpec.of(range(count), truncation=0.7)
    first, second = halves(asked)
    assert first.seeds + second.seeds == asked.seeds
    assert len(first) == count // 2
    assert replace(first, seeds=asked.seeds) == replace(second, seeds=asked.seeds) == asked


def test_the_halves_merge_to_the_counts_of_one_pass(store: Store):
    generator, source = small_generator(), Source(Tints())
    asked = spec(2 * generator.micro_batch)  # each half in the batches of the whole: the same to the bit
    for layer, found in dissect(generator, asked, [UP, PLAIN, DOWN], source, store=store).layers.items():
        whole = fetch(generator, layer, asked, Intersection(found.levels.values, source), store=store)
        assert torch.equal(whole.iou[:, found.levels.chosen], found.iou)
        assert (whole.pixels, whole.samples) == (found.pixels, found.samples)


# Directions


def test_one_hot_directions_are_the_units(store: Store):
    generator, source = small_generator(), Source(Tints())
    units = dissect(generator, spec(8), [PLAIN], source, store=store).layers[PLAIN]
    names = [f"unit {number}" for number in range(10)]
    along = dissect_directions(generator, spec(8), PLAIN, torch.eye(10), names, source, store=store)
    found = along.layers[PLAIN]
    assert found.units == tuple(names)
    for one, other in zip(tensors(found), tensors(units), strict=True):
        assert torch.equal(one, other)
    assert along.units().unit.tolist() == names
    assert along.iou_table(PLAIN).index.tolist() == names


def test_a_direction_finds_what_no_unit_draws_alone(planted: Dissection, store: Store):
    directions = torch.zeros(2, 8)
    directions[0, list(DRAWS[SHAPES]["red"])] = 1.0
    directions[1, MUTE] = -1.0
    found = dissect_directions(
        planted_generator(), PLANTED, SHAPES, directions, ["all red", "nothing"], Shapes(), store=store
    )
    table = found.units().set_index("unit")
    assert table.concept["all red"] == "red"
    assert table.held_out_iou["all red"] > 0.7 > planted.iou_table(SHAPES, held_out=True).red.max()
    assert table.detector.to_dict() == {"all red": True, "nothing": False}


@pytest.mark.parametrize(
    ("shape", "names"),
    [((2, 7), ["a", "b"]), ((2, 8), ["a"]), ((8,), ["a"]), ((0, 8), []), ((2, 8), ["a", "a"])],
)
def test_directions_that_do_not_fit_are_refused(shape: tuple[int, ...], names: list[str], store: Store):
    with pytest.raises(RequestError):
        dissect_directions(
            planted_generator(), PLANTED, SHAPES, torch.ones(shape), names, Shapes(), store=store
        )


def tensors(found: LayerDissection) -> Iterator[Tensor]:
    yield from (found.thresholds, found.density, found.iou, found.precision, found.recall, found.share)
    yield from (found.tuned, found.tuned_iou, found.held_out, found.baseline, found.concept, found.detector)


# Asking


def test_all_layers_take_two_passes_and_a_second_asking_none(store: Store):
    generator, source = Watched.small(), Source(Tints())
    generator.open()
    layers = [UP, PLAIN, DOWN]
    first = dissect(generator, spec(12), layers, source, store=store)
    assert sorted(seed for seeds, _ in generator.drawn for seed in seeds) == sorted([*range(12)] * 2)
    assert sorted(source.seen) == list(range(12))
    again = dissect(generator, spec(12), layers, source, store=store)
    assert generator.samples == 24
    assert len(source.seen) == 12
    pd.testing.assert_frame_equal(first.units(), again.units())
    pd.testing.assert_frame_equal(first.concepts(), again.concepts())


def test_another_iou_level_draws_nothing_and_another_quantile_no_histogram(store: Store):
    generator, source = Watched.small(), Source(Tints())
    generator.open()
    dissect(generator, spec(12), [UP], source, store=store)
    dissect(generator, spec(12), [UP], source, Settings(level=0.2), store=store)
    assert generator.samples == 24
    dissect(generator, spec(12), [UP], source, Settings(quantile=0.9), store=store)  # on the ladder
    assert generator.samples == 24
    dissect(generator, spec(12), [UP], source, Settings(quantile=0.6), store=store)
    assert generator.samples == 36


def test_what_else_is_wanted_of_the_first_pass_is_left_in_the_store(store: Store):
    generator = small_generator()
    also = (Maxima(), SecondMoment())
    dissect(generator, spec(6), [UP, DOWN], Source(Tints()), also=also, store=store)
    for layer in (UP, DOWN):
        for empty in (Histogram(), *also):
            assert store.get(key_of(generator, layer, spec(6), empty), empty) is not None


def test_progress_is_one_estimate_of_both_passes(store: Store):
    told: list[tuple[int, int]] = []
    generator, source = small_generator(), Source(Tints())
    dissect(generator, spec(12), [UP], source, store=store, progress=lambda *at: told.append(at))
    done, totals = zip(*told, strict=True)
    assert set(totals) == {totals[0]}
    assert list(done) == sorted(done)
    assert done[0] == 0
    assert done[-1] == totals[0]


def test_it_can_be_cancelled(store: Store):
    def never(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        dissect(small_generator(), spec(12), [UP], Source(Tints()), store=store, progress=never)


@pytest.mark.parametrize(
    ("asked", "layers", "source", "word"),
    [
        (PLANTED, [], Shapes(), "no layer"),
        (PLANTED, [SHAPES, SHAPES], Shapes(), "named twice"),
        (PLANTED, [SHAPES], Unnamed(), "no concept"),
        (PLANTED, [SHAPES], Twice(), "concept 'red' named twice"),
        (spec(0), [SHAPES], Shapes(), "0 samples"),
        (spec(1), [SHAPES], Shapes(), "1 samples"),
        (LatentSpec.of([3, 3]), [SHAPES], Shapes(), "seed '3' named twice"),
    ],
)
def test_what_cannot_be_dissected_is_refused(asked, layers, source, word, store: Store):
    with pytest.raises(RequestError, match=word):
        dissect(planted_generator(), asked, layers, source, store=store)


def test_a_layer_that_is_not_there_is_refused(planted: Dissection, store: Store):
    with pytest.raises(LayerError):
        dissect(planted_generator(), PLANTED, ["l99"], Shapes(), store=store)
    with pytest.raises(LayerError, match="not dissected"):
        planted.iou_table("l99")


def test_the_source_is_asked_whether_it_fits_before_anything_is_drawn(store: Store):
    generator = Watched.small()
    generator.name = "refused"
    with pytest.raises(PalimpsestError, match="another generator"):
        dissect(generator, spec(4), [UP], Source(Tints()), store=store)
    assert generator.drawn == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"quantile": 0.0},
        {"quantile": 1.0},
        {"quantile": float("nan")},
        {"level": 1.0},
        {"level": -0.1},
        {"grid": (0, 3)},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]):
    with pytest.raises(RequestError):
        Settings(**wrong)


# The tables


def test_tables_have_the_columns_that_they_promise(planted: Dissection):
    for column in planted.units():
        assert str(column) in (Dissection.units.__doc__ or "")
    for column in planted.summary():
        assert str(column) in (Dissection.summary.__doc__ or "")
    for column in planted.concepts():
        assert str(column) in (Dissection.concepts.__doc__ or "")
    assert len(planted.units()) == 8 + 8 + 4


def test_the_summary_counts_what_the_units_say(planted: Dissection):
    units = planted.units()
    for row in planted.summary().itertuples():
        own = units[units.layer == row.layer]
        assert row.units == len(own)
        assert row.detectors == own.detector.sum()
        assert row.interpretable == own.detector.mean()
        assert row.concepts == own[own.detector].concept.nunique()
        assert row.dead == own.dead.sum()
    assert planted.summary().layer.tolist() == list(LAYERS)


def test_the_best_unit_of_a_concept_is_chosen_on_the_first_half(planted: Dissection):
    for row in planted.concepts().query("share > 0").itertuples():
        number = planted.names.index(str(row.concept))
        best = max(float(layer.tuned_iou[:, number].max()) for layer in planted.layers.values())
        layer = planted.layers[str(row.layer)]
        assert layer.tuned_iou[int(str(row.unit)), number] == best
        assert layer.held_out[int(str(row.unit)), number] == row.held_out_iou
    assert planted.concepts().set_index("concept").layer["green"] in (SHAPES, COLOURS)


def test_a_dissection_says_what_it_is_of(planted: Dissection):
    generator = planted_generator()
    assert (planted.model, planted.fingerprint) == (generator.name, generator.fingerprint)
    assert (planted.spec, planted.source, planted.settings) == (PLANTED, "shapes", Settings())
    assert planted.names == ("red", "green", "blue", "dark", "purple")
