"""One pass: every statistic of every layer, nothing twice, the same bits whatever else was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewrite_core.errors import Cancelled, LayerError, PalimpsestError
from rewrite_core.generators import Generator, open_generator
from rewrite_core.statistics import Scene, SecondMoment, Statistic, sweep
from rewrite_core.statistics.sweep import MICRO_BATCHES, blocks_of, see
from tests.generators import DOWN, PLAIN, UP, small_generator, spec
from tests.labellers import Bright
from tests.roll import Counted, Roll, same

LAYERS = [UP, PLAIN, DOWN]
CHECKPOINT = Path(__file__).parent / "reference" / "small_stylegan2.pt"
GENERATORS: dict[str, Callable[[], Generator]] = {
    "plain": small_generator,
    "StyleGAN2": lambda: open_generator(CHECKPOINT),
}


def the_roll(found: object) -> Roll:
    assert isinstance(found, Roll)
    assert found.seeds is not None
    return found


def test_one_pass_feeds_every_statistic_of_every_layer():
    counted = Counted.of()
    found = sweep(counted, spec(60), {layer: [SecondMoment(), Roll()] for layer in LAYERS})
    assert counted.passes == [tuple(LAYERS)] * 3
    assert counted.drawn == list(range(60))
    plain = small_generator()
    for layer in LAYERS:
        moment, roll = found[layer]
        assert isinstance(moment, SecondMoment)
        assert moment.samples == 60
        assert the_roll(roll).seeds.tolist() == list(range(60))  # type: ignore[union-attr]
        blocks = [plain.keys(plain.latents(part), layer).keys for part in spec(60).blocks(25)]
        assert torch.equal(the_roll(roll).sums, torch.cat(blocks).sum((2, 3)))  # type: ignore[arg-type]


def test_a_pass_is_folded_from_its_blocks_in_order():
    small = small_generator()
    wanted = {UP: [SecondMoment(), Roll()]}
    blocks = blocks_of(small, spec(230))
    assert [len(block) for block in blocks] == [100, 100, 30] == [25 * MICRO_BATCHES, 100, 30]
    first, second, third = (see(small, block, wanted) for block in blocks)
    folded = {UP: [a.merge(b).merge(c) for a, b, c in zip(first[UP], second[UP], third[UP], strict=True)]}
    assert same(sweep(small, spec(230), wanted), folded)


@pytest.mark.parametrize("which", GENERATORS)
def test_an_answer_does_not_depend_on_what_was_asked_with_it(which: str):
    generator = GENERATORS[which]()
    wanted = [SecondMoment(), Roll(), Roll(labels=Bright())]
    together = sweep(generator, spec(40), {layer: [Roll(), *wanted] for layer in generator.layers})
    for layer in list(generator.layers)[:3]:
        for place, empty in enumerate(wanted, start=1):
            alone = sweep(generator, spec(40), {layer: [empty]})
            assert same(alone, {layer: [together[layer][place]]}), (layer, empty)


@pytest.mark.parametrize("which", GENERATORS)
def test_labels_are_of_the_pictures_that_the_generator_draws(which: str):
    generator = GENERATORS[which]()
    layer = next(iter(generator.layers))
    found = the_roll(sweep(generator, spec(25), {layer: [Roll(labels=Bright())]})[layer][0])
    latents = generator.latents(spec(25))
    expected = Bright()(Scene(generator.pictures(latents), latents)).float().sum((2, 3))
    assert found.sums is not None
    assert (found.sums - expected).abs().max() <= 1  # a pixel on the edge of a level may fall either way


def test_nothing_asked_is_nothing_drawn():
    counted = Counted.of()
    assert sweep(counted, spec(30), {}) == {}
    assert sweep(counted, spec(30), {UP: []}) == {UP: []}
    assert sweep(counted, spec(0), {UP: [Roll()]})[UP][0].state() == {}
    assert not counted.passes
    sweep(counted, spec(25), {UP: [Roll()], DOWN: []})
    assert counted.passes == [(UP,)]


def test_it_tells_its_progress_for_each_micro_batch_and_can_be_cancelled():
    told: list[tuple[int, int]] = []
    counted = Counted.of()
    sweep(counted, spec(130), {UP: [Roll()]}, lambda done, total: told.append((done, total)))
    assert told == [(done, 130) for done in (25, 50, 75, 100, 125, 130)]

    def stop(done: int, total: int) -> None:
        if done >= 50:
            raise Cancelled

    counted = Counted.of()
    with pytest.raises(Cancelled):
        sweep(counted, spec(130), {UP: [Roll()]}, stop)
    assert len(counted.drawn) == 50


def test_an_unknown_layer_is_refused_before_anything_is_drawn():
    counted = Counted.of()
    for unknown in ([Roll()], []):
        with pytest.raises(LayerError, match="layer 'nose'"):
            sweep(counted, spec(5), {UP: [Roll()], "nose": unknown})
    assert not counted.drawn


# Numbers that are none


def broken(value: float, unit: int = 4) -> Generator:
    """A generator whose layer `plain` gives `value` in one unit, which is what `down` is given."""
    small = small_generator()
    weight = small.weight(PLAIN).clone()
    weight[unit, 0, 1, 1] = value
    return small.with_weights({PLAIN: weight})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("empty", [SecondMoment(), Roll()], ids=lambda empty: empty.kind)
def test_nan_and_infinity_are_refused_with_layer_unit_and_picture(value: float, empty: SecondMoment | Roll):
    with pytest.raises(PalimpsestError) as refused:
        sweep(broken(value), spec(30, first=7), {UP: [empty], DOWN: [empty]})
    text = str(refused.value)
    assert "unit 4 of layer 'down' is NaN or infinite in picture 7;" in text
    assert "\n" not in text
    assert same(
        sweep(broken(value), spec(5), {UP: [Roll()]}), sweep(small_generator(), spec(5), {UP: [Roll()]})
    )


def test_the_picture_that_is_named_is_the_one():
    """A weight so large that only some pictures overflow."""
    small = small_generator()
    weight = small.weight(PLAIN).clone()
    weight[4] = 1e37
    generator = small.with_weights({PLAIN: weight})
    keys = torch.cat([generator.keys(generator.latents(part), DOWN).keys for part in spec(200).blocks(25)])
    wrong = (~keys.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    assert wrong
    assert wrong[0] > 0
    with pytest.raises(PalimpsestError, match=rf"unit 4 of layer 'down' .* in picture {wrong[0]};"):
        sweep(generator, spec(200), {DOWN: [Roll()]})


def test_large_finite_keys_are_not_refused():
    generator = broken(1e38)
    keys = generator.keys(generator.latents(spec(25)), DOWN).keys
    assert keys.isfinite().all()
    assert not keys.sum((0, 2, 3)).isfinite().all(), "but their sum overflows float32"
    found = the_roll(sweep(generator, spec(25), {DOWN: [Roll()]})[DOWN][0])
    assert found.seeds.tolist() == list(range(25))  # type: ignore[union-attr]


@dataclass(frozen=True)
class Lit:
    """Where the first unit of a layer is on, seen in the layer itself."""

    layers: tuple[str, ...]
    names: tuple[str, ...] = ("lit",)

    def identity(self) -> Mapping[str, Any]:
        return {"labeller": "lit", "layers": list(self.layers)}

    def __call__(self, scene: Scene) -> Tensor:
        assert set(scene.maps) == set(self.layers)
        return scene.maps[self.layers[0]][:, :1] > 0


def test_a_labeller_is_shown_the_layers_it_reads_and_no_others():
    generator, latents = small_generator(), small_generator().latents(spec(25))
    wanted: dict[str, list[Statistic]] = {UP: [SecondMoment()], PLAIN: [Roll(labels=Lit((DOWN,)))]}
    found = the_roll(sweep(generator, spec(25), wanted)[PLAIN][0])
    lit = generator.keys(latents, DOWN).keys[:, :1] > 0
    torch.testing.assert_close(found.sums, lit.float().sum((2, 3)))
