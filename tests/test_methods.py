"""Methods side by side: planted truth, what is counted over which pictures, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dissect.concepts.catalogue import open_concepts
from dissect.methods import (
    TOP,
    WITHOUT_RIDGE,
    MethodComparison,
    compare_methods,
    usual_variants,
)
from dissect.precision import average_precision
from rewrite_core import EditRequest, LatentSpec, Mask, Painted, open_generator
from rewrite_core.directions import METHODS, ContextSettings, swept
from rewrite_core.directions.matches import matches
from rewrite_core.errors import Cancelled, LayerError, RequestError
from rewrite_core.generators import Generator, embedded_names
from rewrite_core.rules.examples import example_contexts
from rewrite_core.rules.settings import LatentSettings
from rewrite_core.statistics import Scene, Store
from tests.planted import MUTE, SHAPES, planted_generator

GREEN = 1
"""The unit of ``shapes`` that draws green squares."""
LOOKED = LatentSpec.of(range(120))
FIRST_PAINTED = 40


@dataclass(frozen=True)
class Where:
    """Where some units of ``shapes`` fire: the concepts of which the truth is known at every position."""

    names: tuple[str, ...] = ("green", "red")
    units: tuple[int, ...] = (GREEN, 0)
    title: str = "where"
    pixels_only: bool = False
    layers: tuple[str, ...] = (SHAPES,)

    def identity(self) -> Mapping[str, Any]:
        return {"source": "where", "units": list(self.units)}

    def check(self, generator: Generator) -> None:
        """Only the planted generator is asked."""

    def __call__(self, scene: Scene) -> Tensor:
        return scene.maps[SHAPES][:, list(self.units)] > 0.5  # [N, L, 24, 24]


@pytest.fixture(scope="module")
def planted() -> Generator:
    return planted_generator()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def context(generator: Generator, unit: int = GREEN, count: int = 4, **settings: Any) -> EditRequest:
    """The squares of `unit`, painted on the first pictures that have some."""
    spec = LatentSpec.of(range(FIRST_PAINTED, FIRST_PAINTED + 60))
    fires = generator.keys(generator.latents(spec), SHAPES).keys[:, unit].numpy() > 0.5  # [N, 24, 24]
    masks = fires.repeat(2, 1).repeat(2, 2)  # [N, 48, 48]
    painted = [Painted(seed, Mask.from_array(mask)) for seed, mask in zip(spec.seeds, masks, strict=True)]
    shown = [region for region in painted if not region.mask.empty]
    return EditRequest(key=tuple(shown[:count]), **settings)


@pytest.fixture(scope="module")
def found(planted: Generator, store: Store) -> MethodComparison:
    return compare_methods(planted, SHAPES, context(planted), LOOKED, Where(), "green", store=store)


def test_whitened_methods_find_what_was_planted_and_the_mean_key_does_not(found: MethodComparison):
    for name in ("mean", "zca", WITHOUT_RIDGE, "gandissect"):
        assert found.judged[name].average > 0.98
        assert found.hits[name] == TOP
    assert found.judged["plain"].average < 0.9  # it also looks for what fires everywhere
    assert found.hits["plain"] < TOP
    assert int(found.directions["gandissect"].vectors[0].argmax()) == GREEN


def test_an_unrelated_unit_finds_it_by_chance(planted: Generator, found: MethodComparison):
    share = float(found.precision["share"].iloc[0])
    query = torch.zeros(8, dtype=torch.float64)
    query[MUTE] = 1.0
    heat = matches(planted, SHAPES, query, found.spec).heat
    truth = matches(planted, SHAPES, query.roll(GREEN - MUTE), found.spec).heat > 0.5
    assert float(truth.double().mean()) == pytest.approx(share)
    assert average_precision(heat, truth) == pytest.approx(share, abs=0.01)
    assert found.place < 3 * share  # nor is it always in the same place


def test_painted_pictures_are_not_judged(planted: Generator, found: MethodComparison):
    painted = {region.image for region in context(planted).key}
    assert painted <= set(LOOKED.seeds)
    assert found.spec.seeds == tuple(seed for seed in LOOKED.seeds if seed not in painted)
    assert all(len(one.heat) == len(found.spec) for one in found.matches.values())
    assert painted.isdisjoint(found.rankings["seed"])


def test_numbers_that_name_other_pictures_leave_none_out(planted: Generator):
    request = context(planted).model_copy(update={"latents": LatentSettings(truncation=0.5)})
    alone = {"plain": ContextSettings(method="plain")}
    assert compare_methods(planted, SHAPES, request, LOOKED, variants=alone).spec == LOOKED


def test_the_heat_is_that_of_the_direction(planted: Generator, found: MethodComparison):
    assert list(found.directions) == [*METHODS, WITHOUT_RIDGE]
    for name, direction in found.directions.items():
        assert (direction.rank, direction.name, direction.layer) == (1, name, SHAPES)
        alone = matches(planted, SHAPES, direction.vectors[0], found.spec)
        torch.testing.assert_close(found.matches[name].heat, alone.heat)


def test_tables_say_what_was_counted(found: MethodComparison):
    rankings, precision, curves = found.rankings, found.precision, found.curves
    for name, one in found.matches.items():
        ranked = rankings[rankings["method"] == name]
        assert ranked["seed"].tolist() == one.top(TOP)
        assert ranked["rank"].tolist() == list(range(1, TOP + 1))
        assert curves.loc[curves["method"] == name, "recall"].is_monotonic_increasing
    assert precision["average_precision"].is_monotonic_decreasing
    assert (precision["low"] <= precision["average_precision"]).all()
    assert (precision["average_precision"] <= precision["high"]).all()
    assert (precision["top_precision"] == precision["hits"] / precision["top"]).all()
    for table in (rankings, precision, curves, found.top_overlap):
        assert table.notna().all(axis=None)


def test_the_overlap_is_jaccard_s(found: MethodComparison):
    overlap = found.top_overlap
    assert np.array_equal(overlap, overlap.T)
    assert (np.diag(overlap) == 1).all()
    zca, plain = (set(found.matches[name].top(TOP)) for name in ("zca", "plain"))
    assert overlap.loc["zca", "plain"] == len(zca & plain) / len(zca | plain)


def test_without_a_concept_nothing_is_judged(planted: Generator, store: Store):
    found = compare_methods(planted, SHAPES, context(planted), LOOKED, store=store)
    assert (found.concept, found.source, found.place, dict(found.judged)) == ("", "", 0.0, {})
    assert not len(found.precision)
    assert not len(found.curves)
    assert len(found.rankings) == TOP * len(found.matches)


def test_steps_are_pictures_and_can_be_stopped(planted: Generator, store: Store):
    steps: list[tuple[int, int]] = []
    request = context(planted)
    variants = {"mean": ContextSettings(method="mean")}
    compare_methods(
        planted, SHAPES, request, LOOKED, Where(), "red", variants=variants, store=store,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    total = 2 * (len(LOOKED) - len(request.key))
    assert steps == sorted(steps)
    assert steps[-1] == (total, total)

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        compare_methods(planted, SHAPES, request, LOOKED, variants=variants, store=store, progress=stop)


def test_usual_variants_are_the_request_s_settings_by_every_method():
    variants = usual_variants(ContextSettings(ridge=0.5, contrast=2.0))
    assert {name: one.method for name, one in variants.items()} == {
        **{method: method for method in METHODS},
        WITHOUT_RIDGE: "zca",
    }
    assert {one.ridge for name, one in variants.items() if name != WITHOUT_RIDGE} == {0.5}
    assert variants[WITHOUT_RIDGE].ridge == 0
    assert {one.contrast for one in variants.values()} == {2.0}


def test_more_heat_than_all_methods_have_room_for_is_refused_before_anything_is_drawn(
    planted: Generator, store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(swept, "HEAT_BYTES", len(usual_variants(ContextSettings())) * 4 * 24 * 24 * 100)
    with pytest.raises(RequestError, match=r"heat of 116 pictures.*at most 100 pictures"):
        compare_methods(planted, SHAPES, context(planted), LOOKED, store=store, progress=never)
    alone = {"plain": ContextSettings(method="plain")}
    assert compare_methods(planted, SHAPES, context(planted), LOOKED, variants=alone, store=store).matches


def never(done: int, total: int) -> None:
    """A progress callback of what must not begin."""
    raise AssertionError(f"{done} of {total}")


def test_what_cannot_be_compared_is_refused(planted: Generator, store: Store):
    request = context(planted)
    painted = LatentSpec.of([region.image for region in request.key if isinstance(region.image, int)])
    with pytest.raises(RequestError, match="all of them painted on"):
        compare_methods(planted, SHAPES, request, painted, store=store)
    with pytest.raises(RequestError, match="no key in the edit"):
        compare_methods(planted, SHAPES, EditRequest(), LOOKED, store=store)
    with pytest.raises(RequestError, match="no method"):
        compare_methods(planted, SHAPES, request, LOOKED, variants={}, store=store)
    with pytest.raises(RequestError, match="concept 'purple'; expected one of green, red"):
        compare_methods(planted, SHAPES, request, LOOKED, Where(), "purple", store=store)
    with pytest.raises(LayerError):
        compare_methods(planted, "nowhere", request, LOOKED, store=store)


# The contexts that ship


def shipped() -> list[tuple[str, str, Path]]:
    return [
        (model, name, path) for model in embedded_names() for name, path in example_contexts(model).items()
    ]


def test_contexts_ship_for_every_embedded_generator_and_for_no_other():
    assert {model for model, _, _ in shipped()} == set(embedded_names())
    assert example_contexts("small") == {}


@pytest.mark.parametrize(
    ("model", "name", "path"), shipped(), ids=lambda value: str(value).rpartition("/")[2]
)
def test_a_shipped_context_is_of_its_generator_and_lies_on_the_concept(model: str, name: str, path: Path):
    request, generator = EditRequest.load(path), open_generator(model)
    assert request.model is not None
    assert request.model.fingerprint == generator.fingerprint
    assert request.object is request.paste is None
    assert len({region.image for region in request.key}) == 4
    assert all(region.mask.size == generator.picture_size for region in request.key)
    source = open_concepts("embedded", generator)
    seeds = [region.image for region in request.key if isinstance(region.image, int)]
    latents = generator.latents(LatentSpec.of(seeds))
    maps = {layer: generator.keys(latents, layer).keys for layer in source.layers}
    labels = source(Scene(generator.pictures(latents), latents, maps))[:, source.names.index(name)]
    masks = torch.stack([torch.from_numpy(region.mask.pixels > 0) for region in request.key])
    assert float(labels[masks].double().mean()) > 0.6  # of what was painted, so much is the concept
