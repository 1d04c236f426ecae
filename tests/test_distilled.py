"""Distilled concepts: a network learns a teacher's labels from pixels alone, and reads edited pictures as they are."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import torch
from click.testing import CliRunner

from dashboard.cli import main
from dissect.concepts import known, labelled, open_concepts
from dissect.concepts.augmented import disturbed, filled, pasted
from dissect.concepts.distilled import DistilledConcepts, open_distilled
from dissect.concepts.distilling import DistillingSettings, distil
from dissect.concepts.held_out import HeldOut
from dissect.concepts.painted import train
from dissect.concepts.pixel_network import LARGEST, Architecture, PixelNetwork
from dissect.concepts.source import require_pixels_only
from dissect.interventions import ablate, sample
from rewrite_core import LatentSpec
from rewrite_core.errors import Cancelled, FileError, ModelMismatch, RequestError
from rewrite_core.files import to_safetensors_bytes
from rewrite_core.generators import embedded_names, open_generator
from rewrite_core.statistics import Batch, Intersection, Scene
from tests.generators import small_generator, some_rule
from tests.planted import SHAPES, Shapes, planted_generator
from tests.test_painted import PAINTED, painted_on, scene
from tests.work import torch_threads

SAMPLES, FRESH = LatentSpec.of(range(1000, 1060)), LatentSpec.of(range(100, 120))
QUICK = DistillingSettings(steps=60)
BRIEF = DistillingSettings(steps=2)
SOME = LatentSpec.of(range(12))


@dataclass(frozen=True)
class Sides:
    """The left of a picture, what is above half of the greatest red, and what is never there: they overlap."""

    title: str = "sides"
    pixels_only: bool = True
    names: tuple[str, ...] = ("left", "red", "never")
    layers: tuple[str, ...] = ()

    def identity(self):
        return {"source": "sides"}

    def check(self, generator):
        """Any pictures will do."""

    def __call__(self, scene):
        red = scene.pictures[:, 0] > 0
        left = torch.zeros_like(red)
        left[:, :, : red.shape[2] // 2] = True
        return torch.stack([left, red, torch.zeros_like(red)], 1)


@pytest.fixture(scope="module")
def generator():
    return planted_generator()


@pytest.fixture(scope="module")
def painted(generator):
    return train(generator, painted_on(generator, PAINTED))


@pytest.fixture(scope="module")
def distilled(generator, painted):
    return distil(generator, painted, SAMPLES, QUICK)


@pytest.fixture(scope="module")
def small():
    return distil(small_generator(), Sides(), SOME, BRIEF)


# What it has learned


def test_it_finds_what_its_teacher_finds_in_samples_that_it_never_saw(generator, painted, distilled):
    shown = scene(generator, FRESH)
    found, true = distilled(Scene(shown.pictures, shown.latents)), painted(shown)
    assert found.dtype == torch.bool
    assert (found.sum(1) == 1).all()
    iou = (found & true).sum((0, 2, 3)) / (found | true).sum((0, 2, 3))
    assert (iou > 0.6).all()
    assert distilled.held_out.mean_iou == pytest.approx(iou.mean().item(), abs=0.1)
    assert distilled.held_out.accuracy == pytest.approx((found & true).any(1).float().mean().item(), abs=0.02)


def test_an_erased_shape_is_seen_no_more_where_its_teacher_would_still_see_it(generator, painted, distilled):
    before = scene(generator, FRESH)
    erased = sample(generator, FRESH, [ablate(SHAPES, [0, 5])])
    red = distilled.names.index("red")
    was, dark = Shapes()(before)[:, 0], distilled.names.index("dark")
    assert distilled(before)[:, red].sum() > 0.8 * was.sum()
    after = distilled(Scene(erased, before.latents))
    assert after[:, red].sum() < 0.02 * was.sum()
    assert after[:, dark][was].float().mean() > 0.85
    assert painted(Scene(erased, before.latents, before.maps))[:, red].sum() > 0.8 * was.sum()
    require_pixels_only(distilled)


def test_the_samples_that_it_is_judged_on_are_not_those_that_it_learned_from(distilled):
    held_out = distilled.held_out.samples
    assert held_out == round(0.15 * len(SAMPLES))
    assert distilled.header.learned_from == SAMPLES.seeds[:-held_out]


def test_concepts_that_overlap_are_learned_each_by_itself_and_one_never_seen_gives_no_nan(generator):
    found = distil(generator, Sides(), SAMPLES, QUICK)
    assert not found.header.exclusive
    table = found.held_out.table()
    assert list(table.concept) == ["left", "red", "never"]
    assert not table.isna().any(axis=None)
    assert table.IoU[1] > 0.6
    assert table.IoU[2] == 0
    assert "never" not in found.held_out.iou


def test_it_can_be_counted_with_and_its_identity_is_that_of_its_weights(generator, distilled):
    shown = scene(generator, FRESH)
    keys = shown.maps[SHAPES]
    empty = Intersection(torch.full((keys.shape[1],), 0.5), distilled)
    assert empty.update(Batch(keys, FRESH.seeds, distilled(shown))).summary()
    assert json.dumps(dict(distilled.identity()))
    weights = {name: tensor + 1e-3 for name, tensor in distilled.weights.items()}
    assert replace(distilled, weights=weights).identity() != distilled.identity()


# How it learns


def test_it_learns_the_same_whatever_the_number_of_threads_and_leaves_nothing_changed(small):
    generator, state = small_generator(), torch.random.get_rng_state()
    for threads in (1, 2):
        with torch_threads(threads):
            again = distil(generator, Sides(), SOME, BRIEF)
            assert torch.get_num_threads() == threads
        assert again.to_bytes() == small.to_bytes()
    assert torch.equal(torch.random.get_rng_state(), state)
    other = distil(small_generator(), Sides(), SOME, DistillingSettings(steps=2, seed=1))
    assert other.digest != small.digest


def test_it_says_how_far_it_is_and_can_be_stopped(small):
    told = []
    distil(small_generator(), Sides(), SOME, BRIEF, lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert len({total for _, total in told}) == 1
    for stop in range(len(told)):

        def progress(done, total, stop=stop):
            if done == told[stop][0]:
                raise Cancelled

        with pytest.raises(Cancelled):
            distil(small_generator(), Sides(), SOME, BRIEF, progress)


def test_too_few_samples_and_too_many_are_refused():
    for seeds in ([], [3], [3, 3, 3]):
        with pytest.raises(RequestError, match="at least two, each once"):
            distil(small_generator(), Sides(), LatentSpec.of(seeds), BRIEF)
    many = replace(Sides(), names=tuple(map(str, range(1000))))
    with pytest.raises(RequestError, match="GiB; expected at most"):
        distil(small_generator(), many, LatentSpec.of(range(10_000)), BRIEF)


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (48, 48), (64, 64), (50, 100), (128, 128)])
def test_a_label_depends_on_nothing_beyond_a_third_of_the_picture(size):
    shape = Architecture.fit(size, 3)
    assert 2 * shape.reach + 1 <= 0.45 * max(size)
    network, draw = PixelNetwork.drawn(shape, 0).eval(), torch.Generator().manual_seed(0)
    picture = torch.randn(1, 3, *size, generator=draw)
    row, column = size[0] // 2, size[1] // 2
    other = torch.randn(1, 3, *size, generator=draw)
    rows = slice(max(row - shape.reach, 0), row + shape.reach + 1)
    columns = slice(max(column - shape.reach, 0), column + shape.reach + 1)
    other[..., rows, columns] = picture[..., rows, columns]
    with torch.no_grad():
        one, two = (network(shown)[0, :, row, column] for shown in (picture, other))
    torch.testing.assert_close(one, two)


def test_large_pictures_are_made_smaller_and_their_labels_larger(small):
    assert Architecture.fit((1024, 512), 3).size == (LARGEST, LARGEST // 2)
    shape = Architecture.fit((8, 8), 3)
    header = small.header.model_copy(update={"architecture": shape})
    coarse = replace(small, header=header, weights=PixelNetwork.drawn(shape, 0).weights())
    latents = small_generator().latents(SOME)
    shown = Scene(small_generator().pictures(latents), latents)
    assert coarse(shown).shape == small(shown).shape == (12, 3, 16, 16)


# Disturbed pictures


def told_by_colour(count=6, side=24, seed=0):
    """Pictures whose first channel says which of two labels a pixel has, [N, 3 + 2, h, w]."""
    draw = torch.Generator().manual_seed(seed)
    first = (torch.rand(count, 1, side, side, generator=draw) < 0.2).float()
    return torch.cat([first, torch.zeros(count, 2, side, side), first, 1 - first], 1)


def test_labels_are_pasted_with_their_pixels():
    whole = told_by_colour()
    changed = pasted(whole, told_by_colour(seed=1), torch.Generator().manual_seed(0))
    assert not torch.equal(changed, whole)
    assert torch.equal(changed[:, 0], changed[:, 3])
    assert torch.equal(whole, told_by_colour())


def test_a_filled_rectangle_holds_nothing_of_what_was_in_it():
    whole = torch.zeros(40, 5, 24, 24)
    whole[:, 4] = 1
    whole[:, (0, 3), 11:13, 11:13] = 1  # a dot, which every second rectangle is around
    whole[:, 4, 11:13, 11:13] = 0
    changed = filled(whole, torch.Generator().manual_seed(0))
    left = changed[:, 3].sum((1, 2))
    assert (left == 0).sum() > 5
    torch.testing.assert_close(changed[:, 3] + changed[:, 4], torch.ones(40, 24, 24))
    torch.testing.assert_close(changed[:, 0], changed[:, 3])


def test_half_of_the_pictures_keep_their_labels_and_all_stay_pictures():
    whole = told_by_colour(8)
    pictures, labels = disturbed(whole[:, :3], whole[:, 3:], torch.Generator().manual_seed(0))
    assert pictures.shape == (8, 3, 24, 24)
    assert pictures.abs().max() <= 1
    assert torch.equal(labels[4:], whole[1::2, 3:])
    torch.testing.assert_close(labels.sum(1), torch.ones(8, 24, 24))


# What it may label


def test_views_under_rules_are_labelled_and_other_generators_are_refused(small):
    generator = small_generator()
    view = generator.with_rules(some_rule(generator))
    assert view.fingerprint != generator.fingerprint
    small.check(view)
    with pytest.raises(ModelMismatch, match="distilled from pictures of small") as problem:
        small.check(small_generator(1))
    assert "\n" not in str(problem.value)


# Files


def test_a_file_gives_the_same_labels_and_is_found_by_its_path(small, tmp_path):
    path = tmp_path / "sides.safetensors"
    small.save(path)
    assert path.stat().st_size < 1 << 20
    again = open_concepts(str(path), small_generator())
    assert isinstance(again, DistilledConcepts)
    assert again.identity() == small.identity()
    assert again.header == small.header
    assert again.pixels_only
    generator = small_generator()
    one, other = (labelled(generator, SOME, source).labels for source in (small, again))
    assert torch.equal(one, other)
    with pytest.raises(ModelMismatch):
        open_concepts(str(path), small_generator(1))


def changed(small, weights=None, **header):
    """The file of `small` with other weights, or another header."""
    content = small.header.model_dump(mode="json") | header
    return to_safetensors_bytes(weights or small.weights, {"palimpsest": json.dumps(content)})


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda small: small.to_bytes()[:-100], "a damaged or foreign file"),
        (lambda small: b"\x80\x04pickle", "a Python pickle"),
        (lambda small: to_safetensors_bytes({"a": torch.ones(2)}, {}), "names no format"),
        (lambda small: changed(small, format="distilled-concepts/9"), "distilled-concepts/9.*Update"),
        (lambda small: changed(small, names=["left"]), "names throughout"),
        (lambda small: changed(small, exclusive="maybe"), "exclusive"),
        (lambda small: changed(small, surprise=1), "surprise"),
        (
            lambda small: changed(
                small, architecture=small.header.architecture.model_dump() | {"width": 10**6}
            ),
            "architecture.width",
        ),
        (
            lambda small: changed(small, held_out=small.held_out.model_dump() | {"both": [10**9, 0, 0]}),
            "counts of pixels that fit together",
        ),
        (
            lambda small: changed(small, {**small.weights, "scores.bias": torch.ones(7)}),
            r"do not fit its header \(scores.bias\)",
        ),
        (
            lambda small: changed(small, {n: t for n, t in small.weights.items() if n != "scores.bias"}),
            r"do not fit its header \(scores.bias\)",
        ),
        (
            lambda small: changed(small, {n: t.half() for n, t in small.weights.items()}),
            "do not fit its header",
        ),
        (
            lambda small: changed(small, {**small.weights, "scores.bias": torch.full((3,), torch.nan)}),
            "NaN or infinite",
        ),
        (
            lambda small: changed(small, {**small.weights, "cells.variance": -torch.ones(40)}),
            "a variance below 0",
        ),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_in_one_line(small, damage, found):
    with pytest.raises(FileError, match=found) as problem:
        open_distilled(damage(small))
    assert "\n" not in str(problem.value)


def test_held_out_counts_of_two_parts_are_those_of_both():
    draw = torch.Generator().manual_seed(0)
    one, other = (torch.rand(6, 3, 4, 4, generator=draw) < 0.5 for _ in range(2))
    names = ("a", "b", "c")
    whole = HeldOut.of(names, one, other)
    assert (
        HeldOut.total([HeldOut.of(names, one[:2], other[:2]), HeldOut.of(names, one[2:], other[2:])]) == whole
    )
    expected = (one & other).sum((0, 2, 3)) / (one | other).sum((0, 2, 3))
    assert list(whole.iou.values()) == pytest.approx(expected.tolist())
    assert whole.accuracy == pytest.approx((one == other).all(1).float().mean().item())
    assert "On 6 samples" in whole.sentence


# What ships, and the command


@pytest.mark.parametrize("name", embedded_names())
def test_what_ships_agrees_with_the_painted_concepts_as_it_says(name):
    generator = open_generator(name)
    assert "embedded:distilled" in [offer.text for offer in known(generator)]
    distilled, painted = (open_concepts(f"embedded:{one}", generator) for one in ("distilled", "painted"))
    assert isinstance(distilled, DistilledConcepts)
    assert distilled.header.teacher.identity == painted.identity()
    spec = LatentSpec.of(range(200_000, 200_025))
    pair = [labelled(generator, spec, source).labels for source in (painted, distilled)]
    found = HeldOut.of(painted.names, *pair)
    assert found.accuracy == pytest.approx(distilled.held_out.accuracy, abs=0.04)
    assert distilled.held_out.accuracy > 0.75


def test_the_command_distils_and_says_how_well_that_went(tmp_path):
    out = tmp_path / "red.safetensors"
    line = [
        "concepts",
        "distil",
        "face32-dcgan",
        "--seeds",
        "0-39",
        "--steps",
        "2",
        "--out",
        str(out),
        "--json",
    ]
    done = CliRunner().invoke(main, line)
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert answer["held_out"] == 6
    assert answer["samples"] == 34
    assert answer["files"] == [str(out)]
    opened = open_concepts(str(out), open_generator("face32-dcgan"))
    assert [row["concept"] for row in answer["concepts"]] == list(opened.names)
    text = CliRunner().invoke(main, line[:-3])
    assert "agrees with its teacher in" in text.stdout
    assert "not saved" in text.stdout
