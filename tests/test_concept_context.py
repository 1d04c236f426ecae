"""Contexts and protected regions by name: a planted source whose shapes are known, and what ships with the default."""

from __future__ import annotations

from dataclasses import dataclass

import click
import numpy as np
import pytest
from click.testing import CliRunner
from torch import Tensor
from torch.nn import functional

from dashboard.commands.concept_regions import ConceptRegions, concept_options
from dissect.concept_context import LEAST_SHARE, concept_regions
from dissect.concepts.catalogue import open_concepts
from rewrite_core import LatentSpec, open_generator
from rewrite_core.errors import Cancelled, ModelMismatch, PalimpsestError, RequestError
from rewrite_core.generators import Generator
from rewrite_core.generators.own import PictureId
from rewrite_core.rules.request import EditRequest
from rewrite_core.statistics import Scene
from tests.planted import Shapes, planted_generator

SPEC = LatentSpec.of(range(100, 160))


@dataclass(frozen=True)
class Coarse(Shapes):
    """The same shapes, as soft labels on a grid of a quarter of the picture's size."""

    def __call__(self, scene: Scene) -> Tensor:
        return functional.avg_pool2d(super().__call__(scene).float(), 4)  # [N, L, 12, 12]


@pytest.fixture(scope="module")
def planted() -> Generator:
    return planted_generator()


def green_of(generator: Generator, seed: PictureId) -> Tensor:
    assert isinstance(seed, int)
    return generator.sample(LatentSpec((seed,)))[0, 1] > 0  # [48, 48]


def test_regions_are_the_labels_of_the_first_pictures_that_show_the_concept(planted):
    found = concept_regions(planted, Shapes(), "green", SPEC, count=5, least_share=0.02)
    showing = [seed for seed in SPEC.seeds if float(green_of(planted, seed).float().mean()) >= 0.02]
    assert [one.image for one in found] == showing[:5]
    for one in found:
        assert np.array_equal(one.mask.pixels > 0, green_of(planted, one.image).numpy())


def test_fewer_pictures_than_asked_for_are_all_that_show_it(planted):
    found = concept_regions(planted, Shapes(), "green", SPEC, count=1000, least_share=0)
    assert [one.image for one in found] == [seed for seed in SPEC.seeds if green_of(planted, seed).any()]
    assert 0 < len(found) < len(SPEC)


def test_labels_of_a_coarser_grid_are_brought_to_the_pictures_size(planted):
    for one in concept_regions(planted, Coarse(), "dark", SPEC, count=3):
        cells = one.mask.pixels.reshape(12, 4, 12, 4)
        assert one.mask.size == (48, 48)
        assert (cells == cells[:, :1, :, :1]).all()


def test_pictures_are_those_without_rules_numbered_as_the_spec_says(planted):
    shy = LatentSpec.of(SPEC.seeds, truncation=0.9)
    muted = planted.with_weights({"colours": -planted.weight("colours")})
    assert concept_regions(muted, Shapes(), "red", shy) == concept_regions(planted, Shapes(), "red", shy)
    assert concept_regions(planted, Shapes(), "red", shy) != concept_regions(planted, Shapes(), "red", SPEC)


def test_a_search_says_how_far_it_is_and_ends_where_enough_is_found_or_when_told_to(planted):
    seen: list[tuple[int, int]] = []
    concept_regions(
        planted, Shapes(), "dark", SPEC, count=2, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(2, 2)]

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        concept_regions(planted, Shapes(), "dark", SPEC, progress=stop)


def test_what_cannot_be_found_is_said(planted):
    with pytest.raises(RequestError, match="concept 'yellow'; expected one of red, green"):
        concept_regions(planted, Shapes(), "yellow", SPEC)
    with pytest.raises(RequestError, match=r"no picture of 60 in which 'purple' covers 0\.5 % or more"):
        concept_regions(planted, Shapes(unseen=True), "purple", SPEC)
    with pytest.raises(RequestError, match="0 pictures"):
        concept_regions(planted, Shapes(), "red", SPEC, count=0)
    with pytest.raises(RequestError, match=r"at least 1\.5"):
        concept_regions(planted, Shapes(), "red", SPEC, least_share=1.5)
    with pytest.raises(RequestError):
        concept_regions(planted, Shapes(), "red", LatentSpec.of([]))
    with pytest.raises(ModelMismatch):
        concept_regions(planted, open_concepts("embedded", open_generator()), "eyes", SPEC)


def test_by_name_regions_join_what_is_painted_and_survive_the_file():
    generator = open_generator()
    asked = ConceptRegions(context=("eyes",), protect=("hair", "skin"), pictures=3)
    request = asked.added(EditRequest(), generator, quiet=True)
    assert len(request.key) == 3
    assert len(request.protect) == 6
    source = open_concepts("embedded", generator)
    spec = LatentSpec.of(range(100))
    assert request.key == concept_regions(generator, source, "eyes", spec, count=3)
    assert all((one.mask.pixels > 0).mean() >= LEAST_SHARE for one in request.key)
    read = EditRequest.from_json(request.to_json())
    assert read.key == request.key
    assert read.protect == request.protect
    again = asked.added(request, generator, quiet=True)
    assert again.key[:3] == request.key
    assert len(again.key) == 6


def test_options_become_one_argument():
    @click.command()
    @click.option("--rank", type=int)
    @concept_options
    def command(regions: ConceptRegions, rank: int) -> None:
        click.echo(f"{rank} {regions}")

    given = (
        "--context-concept eyes --context-concept brows --protect-concept hair --concepts colours --rank 2"
    )
    told = CliRunner().invoke(command, [*given.split(), "--concept-pictures", "3"])
    assert told.output.strip() == f"2 {ConceptRegions(('eyes', 'brows'), ('hair',), 'colours', 3)}"
    assert CliRunner().invoke(command, []).output.strip() == f"None {ConceptRegions()}"
    assert CliRunner().invoke(command, ["--concept-pictures", "0"]).exit_code == 2


def test_nothing_by_name_changes_nothing_and_opens_no_source():
    request = EditRequest()
    assert ConceptRegions(concepts="no such source").added(request, planted_generator()) is request
    with pytest.raises(PalimpsestError, match="no such source"):
        ConceptRegions(context=("eyes",), concepts="no such source").added(request, planted_generator())
