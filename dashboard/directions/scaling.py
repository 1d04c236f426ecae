"""Pictures under the rule that scales what a direction matches: stopped once, drawn anew for each scale.

made = outcome(visitor, item, seeds, alpha, level)   # None until it is there
made = made or outcome_before(item)                  # what stays on screen meanwhile
made.rule                                            # what *Keep as a rule* puts on the stack: it draws `made.after`
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray
from torch import Tensor

from dashboard.background import brought
from dashboard.budget import Budget
from dashboard.directions.choices import Item
from dashboard.directions.moments import moment_of
from dashboard.session import Session
from dashboard.words import counted
from dissect.scaled import Inside, ScaledPictures, changes, effect_map, scaled
from rewrite_core.directions import Direction
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.jobs import Progress
from rewrite_core.pictures import Picture
from rewrite_core.rules.rule import Rule
from rewrite_core.rules.scaling import left_over, output_channels, published_zero_rule, scaling_rule, written

__all__ = ["SCALING", "ZERO", "Outcome", "outcome", "outcome_before"]

SCALING, ZERO = "scaling", "published zero"
"""The purposes of the jobs that draw."""
BEFORE = "directions-scaled"
"""Under which what a visitor saw last is remembered."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What becomes of pictures.

    Attributes:
        rule: what they are drawn under.
        spec: which they are.
        view: what draws them: the generator, through the rules that were on.
        before, after: the pictures [N, H, W, 3].
        effect: where they change [H, W], the mean over them, from 0 to 1.
        changes: how much each of them does: seed, change.
        inside: the change where the vector that is looked at matches, and elsewhere.
        left: of what the layer draws for the direction's pattern, the share that is left.
        published: the share that the published `zero` leaves.
        channels: the output channels that the direction writes to, as `output_channels` has them.
    """

    rule: Rule
    spec: LatentSpec
    view: Generator
    before: Picture
    after: Picture
    effect: NDArray[np.float32]
    changes: pd.DataFrame
    inside: Inside
    left: float
    published: float
    channels: pd.DataFrame

    @property
    def nbytes(self) -> int:
        """About what it takes to keep it."""
        return self.before.nbytes + self.after.nbytes + self.effect.nbytes


_stopped: Budget[ScaledPictures] = Budget(256 << 20, lambda pictures: pictures.nbytes)
_outcomes: Budget[Outcome] = Budget(128 << 20, lambda made: made.nbytes)


def outcome(
    visitor: Session, item: Item, seeds: tuple[int, ...], alpha: float | None, level: float
) -> Outcome | None:
    """What scaling by `alpha` makes of the pictures of `seeds`, on top of the rules that are on; else it is on its way.

    Without `alpha` it is what the published `zero` makes of them. Heat of the vector that is looked at above `level`
    is where it matches.

    Raises:
        RequestError: the visitor has too many jobs under way.
    """
    view, spec, direction = visitor.edited(), visitor.spec(seeds), item.direction
    row = min(visitor.exploring.row, direction.rank - 1)
    source = (view.fingerprint, spec, direction.layer)

    def work(progress: Progress) -> Outcome:
        moment = moment_of(visitor, direction.layer, progress)
        pictures = _stopped.get(source, lambda: scaled(view, spec, direction.layer))
        return _drawn(pictures, direction, moment, row, alpha, level)

    purpose = ZERO if alpha is None else SCALING
    # The rule is called after the direction.
    key = (*source, direction.digest, direction.name, row, alpha, level)
    made = brought(visitor, purpose, key, _outcomes, f"Drawing {counted(len(seeds), 'picture')}", work)
    if made is not None and alpha is not None:
        st.session_state[BEFORE] = (direction.digest, key)
    return made


def outcome_before(item: Item) -> Outcome | None:
    """What the visitor saw last of this direction, if it is still kept."""
    digest, key = st.session_state.get(BEFORE, ("", None))
    return _outcomes.peek(key) if digest == item.direction.digest else None


def _drawn(
    pictures: ScaledPictures,
    direction: Direction,
    moment: Tensor,
    row: int,
    alpha: float | None,
    level: float,
) -> Outcome:
    view = pictures.stopped.generator
    weight = view.pristine.weight(direction.layer)
    published = published_zero_rule(view, direction)
    rule = published if alpha is None else scaling_rule(view, direction, moment, alpha)
    before, after = pictures.before, pictures.drawn(rule)
    return Outcome(
        rule,
        pictures.spec,
        view,
        before,
        after,
        effect_map(before, after),
        changes(pictures.spec.seeds, before, after),
        pictures.inside(direction.vectors[row], after, level),
        left_over(weight, rule, moment, direction),
        left_over(weight, published, moment, direction),
        output_channels(written(view, direction, moment)),
    )
