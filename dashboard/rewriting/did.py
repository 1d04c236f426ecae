"""The view What it did: the effect of a rule over fresh pictures, inside its context and elsewhere."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import streamlit as st

from dashboard.background import brought, show_work
from dashboard.binding import bound
from dashboard.budget import Budget
from dashboard.directions.plots import effect_bar, effect_picture, greatest
from dashboard.dissection.state import identity_of, source_of
from dashboard.errors import shown
from dashboard.gallery import Picture, gallery
from dashboard.rewriting.measuring import fresh_seeds, interval, measured_choice, percentage, stack_of
from dashboard.rewriting.taking import pairs_command, take_away
from dashboard.rewriting.viewing import look, viewing
from dashboard.session import Session, service, statistics_of
from dashboard.taking import headed
from dissect.edit_effect import EditEffect, Protected, edit_effect
from dissect.edit_effect_figure import effect_caption, effect_figure
from dissect.edit_pictures import Pairs, extremes
from rewrite_core.directions import Direction
from rewrite_core.errors import PalimpsestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.jobs import Progress
from rewrite_core.pictures import encode_png, enlarge
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rewrite import direction_of
from rewrite_core.rules.rule import Rule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dissect.concepts.source import ConceptSource

__all__ = ["did"]

DID = "effect"
"""The purpose of the job that measures."""
SHOWN, COLUMNS, SIDE, MAP = 8, 4, 64, 160
"""Pairs of either kind, in so many columns; the side of a picture on screen, and that of the map."""
HELP = (
    "Over fresh pictures, with the rule and without it; the other rules that are on hold in both. The context is where "
    "the rule's direction matches above the 0.99 quantile of its heat. Changes are means over pixels, from 0 to 100 %, "
    "with 95 % bootstrap intervals over pictures."
)


@dataclass(frozen=True, eq=False)
class _Did:
    """What was measured, and its extremes drawn."""

    effect: EditEffect
    most: Pairs
    least: Pairs


_measured: Budget[_Did] = Budget(
    128 << 20, lambda found: 6 * found.most.before.nbytes + 8 * len(found.effect.spec)
)


@dataclass(frozen=True, eq=False)
class _Question:
    """All that the effect of one of the rules depends on; its job touches nothing of the session."""

    generator: Generator
    owner: str
    rule: Rule
    others: tuple[Rule, ...]
    spec: LatentSpec
    source: ConceptSource | None
    kept: tuple[str, ...]

    @property
    def key(self) -> Hashable:
        """By which its answer is kept."""
        source = None if self.source is None else identity_of(self.source)
        others = tuple(rule.digest for rule in self.others)
        return (self.generator.fingerprint, self.rule.digest, others, self.spec, source, self.kept)

    @property
    def request(self) -> EditRequest | None:
        """What was painted for the rule; None where its file does not say."""
        told = self.rule.provenance.request
        return None if told is None else EditRequest.from_json(told)

    def answer(self, progress: Progress) -> _Did:
        """The effect, in a job."""
        before = self.generator.with_rules(stack_of(self.others))
        after = self.generator.with_rules(stack_of((*self.others, self.rule)))
        protect = Protected(self.source, self.kept) if self.source and self.kept else None
        effect = edit_effect(
            before,
            after,
            self._direction(progress),
            self.spec,
            request=self.request,
            protect=protect,
            store=service().store,
            progress=progress,
        )
        return _Did(effect, *extremes(before, after, effect, SHOWN))

    def _direction(self, progress: Progress) -> Direction:
        """That of the context that was painted; of a rule without one, its own."""
        request = self.request
        if request is None or not (request.key or request.given):
            return self.rule.direction()
        statistics = statistics_of(self.generator, self.rule.layer, progress, visitor=self.owner)
        return direction_of(self.generator, request, statistics)


def did(visitor: Session) -> None:
    """Numbers, the pictures most and least changed, and where pictures change."""
    rules = visitor.rules.active
    menu = headed("What it did", HELP)
    if not rules:
        st.caption("No rule is on. Try an edit, or switch a rule on in the sidebar.")
        return
    question = _asked(visitor, rules)
    found = brought(visitor, DID, question.key, _measured, "Measuring what it did", question.answer)
    if found is None:
        show_work(visitor, DID)
        return
    with menu:
        _take_away(visitor, question, found)
    with shown():
        _numbers(question.rule, found.effect)
        left, right = st.columns([3.9, 1], gap="medium")
        with left:
            _rows(visitor, found)
        with right:
            _map(visitor, found.effect)


# What is asked for


def _asked(visitor: Session, rules: tuple[Rule, ...]) -> _Question:
    """One of the rules that are on, over so many pictures; with what was to be protected."""
    digests = [rule.digest for rule in rules]
    chosen = viewing(visitor).rule if viewing(visitor).rule in digests else digests[-1]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        if len(rules) > 1:
            st.selectbox(
                "Rule",
                list(dict.fromkeys(digests)),
                format_func=lambda digest: rules[digests.index(digest)].name,
                width=220,
                **bound("did-rule", chosen, lambda digest: look(visitor, rule=digest)),
            )
        measured_choice(visitor, "did")
        source, kept = _protected(visitor)
    place = digests.index(chosen)
    return _Question(
        generator=visitor.generator.pristine,
        owner=visitor.visitor,
        rule=rules[place],
        others=(*rules[:place], *rules[place + 1 :]),
        spec=fresh_seeds(visitor),
        source=source,
        kept=kept,
    )


def _protected(visitor: Session) -> tuple[ConceptSource | None, tuple[str, ...]]:
    """Concepts whose change is to be measured, of the source that the page Dissection uses."""
    try:
        source = source_of(visitor)
    except PalimpsestError:  # the page Dissection says why
        return None, ()
    names = list(source.names)
    kept = tuple(name for name in viewing(visitor).kept if name in names)
    st.multiselect(
        "Protected",
        names,
        width=240,
        placeholder="nothing",
        help="Concepts that ought to stay as they are: how much they change.",
        **bound("did-kept", list(kept), lambda chosen: look(visitor, kept=tuple(chosen))),
    )
    return (source, kept) if kept else (None, ())


# What is shown


def _numbers(rule: Rule, effect: EditEffect) -> None:
    """The loss as it was solved, and the estimates with their intervals."""
    loss, before = (rule.provenance.result.get(name) for name in ("loss", "loss_before"))
    inside, outside, took = effect.inside, effect.outside, effect.took_effect
    with st.container(horizontal=True, gap="medium"):
        if isinstance(loss, float) and isinstance(before, float) and before:
            about = "Mean |wanted − drawn| in the pasted box, of the very rule, at strength 1."
            _number("Loss", f"{loss:.3g}", f"was {before:.3g}", about)
        _number("Inside", percentage(inside), interval(inside), "Mean change where the context matches.")
        _number("Outside", percentage(outside), interval(outside), "Mean change everywhere else.")
        if outside.value:
            ratio = f"{inside.value / outside.value:.1f} ×"
            _number("Inside ÷ outside", ratio, "", "How well the change keeps to its context.")
        about = (
            f"The share of the {took.pictures:,} pictures with a context in which its change is at least half of the "
            "example's."
        )
        _number("Took effect", percentage(took, 0), interval(took, 0), about)
        if effect.kept:
            about = f"Mean change of {', '.join(effect.kept)}."
            _number("Protected", percentage(effect.protected), interval(effect.protected), about)


def _number(title: str, value: str, below: str, about: str) -> None:
    with st.container(width="content", gap=None):
        st.metric(title, value, help=about, width="content")
        st.caption(below or "\u00a0")


def _rows(visitor: Session, found: _Did) -> None:
    """The pairs that change most, and those that change least."""
    changes = dict(zip(found.effect.spec.seeds, found.effect.changes.tolist(), strict=True))
    for title, pairs in (("Most changed", found.most), ("Least changed", found.least)):
        st.markdown(f"**{title}**", help="Under each picture its mean change.")
        pictures = [
            Picture(seed, before, after, f"{100 * changes[seed]:.1f} %")
            for seed, before, after in zip(pairs.seeds, pairs.before, pairs.after, strict=True)
        ]
        key = f"did-{title.split()[0].lower()}"
        visitor.select(gallery(pictures, key=key, selected=visitor.selected, size=SIDE, columns=COLUMNS))
    st.caption("A picture selected here is the one to paint on.")


def _map(visitor: Session, effect: EditEffect) -> None:
    """The mean change at each pixel, and what its colours mean."""
    st.markdown("**Average change**", help=f"Of each pixel, over {len(effect.spec):,} pictures.")
    change = effect.average_map.numpy()
    most = greatest(change)
    st.image(encode_png(enlarge(effect_picture(change, most), visitor.enlargement)), width=MAP)
    st.html(effect_bar(most))


def _take_away(visitor: Session, question: _Question, found: _Did) -> None:
    effect = found.effect
    before = question.generator.with_rules(stack_of(question.others))

    def figure() -> Figure:
        return effect_figure(effect, found.most, found.least, question.rule.name)

    tables = {"effect": effect.table(), "pictures": effect.pictures()}
    extremes = replace(effect.spec, seeds=tuple(dict.fromkeys((*found.most.seeds, *found.least.seeds))))
    line = pairs_command(visitor, (*question.others, question.rule), extremes)
    take_away(visitor, "effect", tables, {"effect": figure}, line, effect_caption(before, effect))
