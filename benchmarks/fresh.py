"""What an edit does to fresh pictures: the change inside a concept's regions and outside, at each strength.

    fresh = fresh_pictures(generator, "l08", spec, open_concepts("embedded", generator), "eyes")
    ours, theirs = effect(fresh, rules), effect(fresh, other_rules)
    ours.against(theirs)                                     # below 1: ours changes less outside

A *change* is the mean |Δ| of a pixel over its channels and over all pixels of all pictures there, in units of the full
range. Regions are what a concept source labels in the pictures *before* an edit. Two edits are compared *at matched
effect*: the stronger one is scaled down until both change as much inside, to `CLOSE` and interpolated there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dissect.concepts.overlay import labelled
from dissect.concepts.source import ConceptSource
from rewrite_core.generators import Generator, LatentSpec, LayerInput
from rewrite_core.rules.rule import Rule, composed

__all__ = ["Effect", "Fresh", "effect", "fresh_pictures", "viewed"]

CLOSE, TRIALS = 0.01, 4
"""A strength is close enough where it differs by this share; and how many are tried."""


@dataclass(frozen=True, eq=False)
class Fresh:
    """Pictures stopped at a layer: `before` [N, 3, H, W] from 0 to 1, and where the concept is, `inside` [N, H, W]."""

    generator: Generator
    batches: tuple[LayerInput, ...]
    before: Tensor
    inside: Tensor

    @torch.no_grad()
    def drawn(self, rules: Sequence[Rule], strength: float = 1.0) -> Tensor:
        """Under `rules`, none of them at an earlier layer, all scaled by `strength`: [N, 3, H, W] from 0 to 1."""
        view = viewed(self.generator, rules, strength)
        return _whole(view, self.batches)

    def change(self, rules: Sequence[Rule], strength: float = 1.0) -> tuple[float, float]:
        """The change inside and outside."""
        changed = (self.drawn(rules, strength) - self.before).abs().mean(1)  # [N, H, W]
        return float(changed[self.inside].mean()), float(changed[~self.inside].mean())


class Effect:
    """The change inside and outside at any strength from 0 to 1, each strength drawn once."""

    def __init__(self, change: Callable[[float], tuple[float, float]]) -> None:
        self._change = change
        self._drawn = {0.0: (0.0, 0.0), 1.0: change(1.0)}

    @property
    def inside(self) -> float:
        """At full strength."""
        return self._drawn[1.0][0]

    @property
    def outside(self) -> float:
        """At full strength."""
        return self._drawn[1.0][1]

    def outside_at(self, inside: float) -> float:
        """The change outside at a strength at which the change inside is `inside`, at most that at full strength."""
        for _ in range(TRIALS):
            weak, strong, share = self._around(inside)
            width = strong - weak
            if share * width <= CLOSE * weak or (1 - share) * width <= CLOSE * strong:
                break
            between = weak + share * width
            self._drawn[between] = self._change(between)
        weak, strong, share = self._around(inside)
        least, most = self._drawn[weak][1], self._drawn[strong][1]
        return least + share * (most - least)

    def against(self, reference: Effect) -> float:
        """Change outside ÷ that of `reference` at matched effect: below 1 is better."""
        common = min(self.inside, reference.inside)
        theirs = reference.outside_at(common)
        return self.outside_at(common) / theirs if theirs else 1.0

    def _around(self, inside: float) -> tuple[float, float, float]:
        """The nearest strengths drawn with at most and at least `inside`, and which share of the way it lies."""
        strengths = sorted(self._drawn)
        strong = next(strength for strength in strengths[1:] if self._drawn[strength][0] >= inside)
        weak = strengths[strengths.index(strong) - 1]
        low, high = self._drawn[weak][0], self._drawn[strong][0]
        return weak, strong, (inside - low) / (high - low) if high > low else 0.0


@torch.no_grad()
def fresh_pictures(
    generator: Generator, layer: str, spec: LatentSpec, source: ConceptSource, concept: str
) -> Fresh:
    """The pictures of `spec`, stopped at `layer`, with the regions of `concept`."""
    masks = labelled(generator, spec, source).only([concept]).masks[:, :1].float()  # [N, 1, h, w]
    inside = torch.nn.functional.interpolate(masks, size=generator.picture_size, mode="nearest")[:, 0] > 0.5
    batches = tuple(
        generator.keys(generator.latents(block), layer) for block in spec.blocks(generator.micro_batch)
    )
    return Fresh(generator, batches, _whole(generator, batches), inside)


def effect(fresh: Fresh, rules: Sequence[Rule]) -> Effect:
    """What `rules` change."""
    return Effect(lambda strength: fresh.change(rules, strength))


def viewed(generator: Generator, rules: Sequence[Rule], strength: float = 1.0) -> Generator:
    """The generator under rules, each scaled by `strength`."""
    scaled = [rule.with_strength(strength * rule.strength) for rule in rules]
    return generator.pristine.with_weights(composed(generator, scaled))


def _whole(generator: Generator, batches: Sequence[LayerInput]) -> Tensor:
    drawn = [generator.render(at, generator.values(at)) for at in batches]
    return torch.cat(drawn).clamp(-1, 1).add(1).div(2)  # [N, 3, H, W]
