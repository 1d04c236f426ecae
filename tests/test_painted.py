"""Painted concepts: learned from strokes on a few pictures, judged on others, and labels for every sample."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from dissect.concepts.concept_file import ConceptFile
from dissect.concepts.evaluation import Evaluation
from dissect.concepts.features import at_pixels, default_layers, features_of
from dissect.concepts.learning import LearningSettings
from dissect.concepts.painted import open_painted, train
from dissect.concepts.readout import Readout
from dissect.concepts.source import require_pixels_only
from rewrite_core import LatentSpec, Mask, PalimpsestError
from rewrite_core.errors import Cancelled, FileError, LayerError, ModelMismatch
from rewrite_core.files import read_safetensors, to_safetensors_bytes
from rewrite_core.generators import from_sequential
from rewrite_core.statistics import Batch, Intersection, Scene, sweep
from tests.generators import PLAIN, small_generator, some_rule, stacks
from tests.planted import COLOURS, LAYERS, Shapes, planted_generator

NAMES = ("red", "green", "blue", "dark")
PAINTED, FRESH = range(6), LatentSpec.of(range(100, 120))


@pytest.fixture(scope="module")
def generator():
    return planted_generator()


@torch.no_grad()
def scene(generator, spec, layers=LAYERS):
    latents = generator.latents(spec)
    stopped = generator.inputs(latents, list(layers))
    return Scene(generator.pictures(latents), latents, {layer: stopped[layer].keys for layer in layers})


def painted_on(generator, seeds, share=0.1):
    """A file with a random `share` of the pixels of each concept painted as what they are."""
    file = ConceptFile.empty(generator, NAMES)
    for seed in seeds:
        (labels,) = Shapes()(scene(generator, LatentSpec.of([seed]))).numpy()
        drawn = np.random.RandomState(seed).random_sample(labels.shape) < share
        for name, where in zip(NAMES, labels & drawn, strict=True):
            file = file.with_stroke(seed, name, Mask.from_array(where))
    return file


@pytest.fixture(scope="module")
def file(generator):
    return painted_on(generator, PAINTED)


@pytest.fixture(scope="module")
def painted(generator, file):
    return train(generator, file)


def test_a_few_strokes_find_the_concepts_in_pictures_that_nobody_painted(generator, painted):
    shown = scene(generator, FRESH)
    found, true = painted(shown), Shapes()(shown)
    assert found.dtype == torch.bool
    assert (found.sum(1) == 1).all()
    iou = (found & true).sum((0, 2, 3)) / (found | true).sum((0, 2, 3))
    assert (iou > 0.8).all()


def test_the_held_out_evaluation_foretells_how_well_it_does(generator, painted):
    shown = scene(generator, FRESH)
    right = (painted(shown) & Shapes()(shown)).any(1).float().mean().item()
    assert painted.evaluation.pictures == len(PAINTED)
    assert painted.evaluation.accuracy == pytest.approx(right, abs=0.03)
    table = painted.evaluation.table()
    assert list(table.concept) == list(NAMES)
    assert table.pixels.sum() == sum((some.labels >= 0).sum() for some in painted.file.strokes)
    assert not table.isna().any(axis=None)
    assert (table.iou > 0.7).all()


def test_wrong_strokes_are_shown_by_the_evaluation(generator):
    file = ConceptFile.empty(generator, ("one", "other"))
    for seed in PAINTED:  # what no feature can tell: noise
        one = np.random.RandomState(seed).random_sample(file.size) < 0.5
        file = file.with_stroke(seed, "one", Mask.from_array(one)).with_stroke(
            seed, "other", Mask.from_array(~one)
        )
    assert train(generator, file).evaluation.accuracy == pytest.approx(0.5, abs=0.03)


def test_reading_before_enlarging_is_the_same_as_after():
    draw = torch.Generator().manual_seed(0)
    maps = {"a": torch.randn(2, 5, 4, 4, generator=draw), "b": torch.randn(2, 3, 8, 6, generator=draw)}
    maps["c"] = torch.randn(2, 4, 4, 4, generator=draw)
    weights = {layer: torch.randn(3, keys.shape[1], generator=draw) for layer, keys in maps.items()}
    bias = torch.randn(3, generator=draw)
    large = [functional.interpolate(maps[layer], (16, 12), mode="bilinear") for layer in weights]
    expected = torch.einsum("lc,nchw->nlhw", torch.cat(list(weights.values()), 1), torch.cat(large, 1))
    readout = Readout(weights, bias)
    torch.testing.assert_close(readout(maps, (16, 12)), expected + bias[:, None, None], atol=1e-5, rtol=0)
    pixels = torch.cartesian_prod(torch.arange(16), torch.arange(12))
    at = readout.at({layer: keys[1] for layer, keys in maps.items()}, pixels, (16, 12))
    torch.testing.assert_close(at.T.reshape(3, 16, 12), expected[1] + bias[:, None, None], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (12, 20), (4, 4)])
def test_pixels_are_read_as_bilinear_enlargement_has_them(size):
    maps = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = functional.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
    pixels = torch.cartesian_prod(*map(torch.arange, size))
    torch.testing.assert_close(at_pixels(maps, pixels, size).T.reshape(3, *size), expected, atol=1e-5, rtol=0)


def test_learning_again_gives_the_same_weights_whatever_the_order_of_painting(generator, file, painted):
    other = painted_on(generator, reversed(PAINTED))
    again = train(generator, other)
    assert again.learned.readout.digest == painted.learned.readout.digest
    assert again.identity() == painted.identity()


def test_identity_tells_apart_what_was_learned_differently(generator, file, painted):
    others = [replace(painted, soft=True), train(generator, file.erased(0)),
              train(generator, file.renamed("dark", "night"))]  # fmt: skip
    found = {json.dumps(each.identity(), sort_keys=True) for each in (painted, *others)}
    assert len(found) == 4


def test_soft_labels_are_probabilities_whose_greatest_is_the_label(generator, painted):
    shown = scene(generator, FRESH)
    soft = replace(painted, soft=True)(shown)
    torch.testing.assert_close(soft.sum(1), torch.ones_like(soft[:, 0]))
    assert (soft.argmax(1) == painted(shown).float().argmax(1)).all()


def test_statistics_count_with_it(generator, painted):
    spec = LatentSpec.of(range(50, 60))
    empty = Intersection(thresholds=torch.full((4,), 0.05), labeller=painted)
    (found,) = sweep(generator, spec, {COLOURS: [empty]})[COLOURS]
    shown = scene(generator, spec)
    assert isinstance(found, Intersection)
    by_hand = empty.update(Batch(shown.maps[COLOURS], spec.seeds, labels=painted(shown)))
    torch.testing.assert_close(found.intersection, by_hand.intersection, atol=0, rtol=0)
    assert found.iou[0].argmax() == NAMES.index("red")


def test_a_saved_file_opens_with_the_same_weights_and_evaluation(generator, painted, tmp_path):
    painted.file.save(tmp_path / "concepts.json")
    opened = open_painted(tmp_path / "concepts.json", generator, progress=_never)
    assert opened.identity() == painted.identity()
    assert opened.evaluation.sentence == painted.evaluation.sentence
    assert opened.learned.ridge == painted.learned.ridge


def test_weights_learned_from_other_strokes_or_settings_are_not_used(generator, file, painted):
    stale = file.erased(0).with_learned(painted.file.learned)
    assert open_painted(stale, generator).identity() == train(generator, file.erased(0)).identity()
    few = LearningSettings(pixels=5)
    assert open_painted(painted.file, generator, few).identity() == train(generator, file, few).identity()


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_damaged_weights_are_refused(generator, file, painted, content):
    content = painted.file.learned[:-8] if content is None else content
    with pytest.raises(FileError):
        open_painted(file.with_learned(content), generator)


@pytest.mark.parametrize(
    ("header", "table", "problem"),
    [
        ({"ridge": "inf"}, {}, "a ridge of inf"),
        ({"ridge": "nan"}, {}, "a ridge of nan"),
        ({"pictures": -1}, {}, "more pictures held out"),
        ({"pictures": 1e300}, {}, "more pictures held out"),
        ({}, {"confusion": torch.full((len(NAMES), len(NAMES)), -1)}, "counts of pixels that cannot be"),
        ({}, {"confusion": torch.full((len(NAMES), len(NAMES)), 2**62)}, "counts of pixels that cannot be"),
    ],
)
def test_what_was_learned_may_not_say_what_cannot_be(generator, file, painted, header, table, problem):
    """Such numbers would come out as NaN, Infinity or less than nothing in a table."""
    tensors, metadata = read_safetensors(painted.file.learned, what="learned")
    changed = {"palimpsest": json.dumps(json.loads(metadata["palimpsest"]) | header)}
    with pytest.raises(FileError, match=problem):
        open_painted(file.with_learned(to_safetensors_bytes(tensors | table, changed)), generator)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"ridges": [1.0, 0.0]}, "ridges.1 is 0.0"),
        ({"ridges": []}, "ridges is"),
        ({"layers": ["up", "up"]}, "expected each layer once"),
        ({"pixels": 0}, "pixels is 0"),
    ],
)
def test_settings_that_nothing_can_be_learned_with_are_refused(setting, problem):
    with pytest.raises(PalimpsestError, match=problem):
        LearningSettings.parse(setting, "learning")


def test_it_may_label_unedited_samples_only(painted):
    small = small_generator()
    with pytest.raises(PalimpsestError, match="unedited samples only"):
        require_pixels_only(painted)
    with pytest.raises(ModelMismatch, match=r"painted for planted .*; expected concepts painted for small"):
        painted.check(small)
    with pytest.raises(ModelMismatch, match="Switch the rules off"):
        train(small.with_rules(some_rule(small, PLAIN)), ConceptFile.empty(small, NAMES))
    painted.check(planted_generator())


def test_one_picture_is_learned_from_and_nothing_is_said_of_how_well(generator):
    seed = next(s for s in range(100) if Shapes()(scene(generator, LatentSpec.of([s]))).any((0, 2, 3)).all())
    alone = train(generator, painted_on(generator, [seed], share=1))
    assert alone.evaluation.accuracy is alone.evaluation.mean_iou is None
    assert alone.evaluation.table().empty
    assert alone.evaluation.not_judged == NAMES
    assert "Nothing was held out" in alone.evaluation.sentence
    assert alone(scene(generator, FRESH)).any((0, 2, 3)).all()


def test_a_concept_on_one_picture_is_named_as_not_judged(generator, file):
    for seed in PAINTED[1:]:
        file = file.erased(seed, file.mask(seed, "blue"))
    file = file.with_stroke(0, "blue", Mask.rectangle(file.size, 0, 0, 4, 4))
    evaluation = train(generator, file).evaluation
    assert evaluation.not_judged == ("blue",)
    assert "too few pictures to be judged: blue" in evaluation.sentence
    assert list(evaluation.table().concept) == ["red", "green", "dark"]


def test_the_table_counts_by_the_confusion():
    confusion = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    evaluation = Evaluation(("a", "b", "c"), 2, confusion)
    assert evaluation.accuracy == pytest.approx(9 / 12)
    assert evaluation.mean_iou == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert evaluation.table().round(6).values.tolist() == [
        ["a", 8, round(6 / 9, 6), round(6 / 7, 6), 0.75],
        ["b", 4, 0.5, 0.6, 0.75],
    ]


def test_many_pixels_are_thinned_out_by_picture_and_concept(generator, file):
    features = features_of(generator, file, [COLOURS], most=3)
    counts = np.unique(np.stack([features.pictures, features.concepts]), axis=1, return_counts=True)[1]
    assert counts.max() == 3
    assert features.values.shape == (counts.sum(), 4)


def test_layers_without_positions_are_not_read():
    generator = from_sequential(stacks()["latents as a map"](), name="from a map")
    assert list(generator.layers) == ["0", "2"]
    assert default_layers(generator) == ("2",)


def test_only_the_layers_asked_for_are_read(generator, file):
    assert train(generator, file, LearningSettings(layers=(COLOURS,))).layers == (COLOURS,)
    with pytest.raises(LayerError, match="layer 'hat'"):
        train(generator, file, LearningSettings(layers=("hat",)))


@pytest.mark.parametrize(
    ("names", "word"),
    [
        ((), "no concept;"),
        (("red",), "only the concept 'red'"),
        (("red", "hat"), "the concept 'red' without strokes"),
    ],
)
def test_what_cannot_be_learned_is_refused_in_a_line(generator, names, word):
    with pytest.raises(PalimpsestError, match=word):
        train(generator, ConceptFile.empty(generator, names))


def test_learning_can_be_cancelled(generator, file):
    with pytest.raises(Cancelled):
        train(generator, file, progress=_never)


def _never(done, total):
    assert 0 < done <= total
    raise Cancelled
