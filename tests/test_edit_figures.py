"""Figures of an edit: the paper's layout and the effect in numbers, at the size of a paper, the same bytes again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from dissect.edit_effect import EditEffect, edit_effect
from dissect.edit_effect_figure import effect_caption, effect_figure
from dissect.edit_figures import edit_caption, edit_figure
from dissect.edit_pictures import PaintedEdit, Pairs, Panel, edited_pairs, extremes, painted_edit
from dissect.paper import DPI, WIDTHS, Width, save_figure
from rewrite_core.directions import Direction
from rewrite_core.errors import RequestError
from rewrite_core.pictures import to_uint8
from rewrite_core.rules.goal import copy_paste
from rewrite_core.rules.request import EditRequest
from tests.generators import PLAIN, painted, small_generator, some_rule, spec

STRANGE = "$x^2$ <b> of a long name"


def a_request(**changes: Any) -> EditRequest:
    context = (painted(3, 2, 2, 8, 8), painted(3, 9, 9, 14, 14), painted(5, 2, 2, 8, 8))
    request = EditRequest(
        object=painted(1, 2, 2, 9, 9), paste=painted(2, 4, 4, 11, 11), key=context, layer=PLAIN
    )
    return request.model_copy(update=changes)


def an_effect(count: int = 30, level: float | None = 0.2) -> tuple[EditEffect, Pairs, Pairs]:
    generator = small_generator()
    after = generator.with_rules(some_rule(generator))
    vector = torch.linspace(-1, 1, 10).double()
    direction = Direction((vector / vector.norm())[None], PLAIN, "zca", torch.ones(1).double())
    found = edit_effect(generator, after, direction, spec(count), level=level)
    return found, *extremes(generator, after, found, 4)


def pairs(count: int, side: int = 16) -> Pairs:
    draw = np.random.default_rng(0)
    before, after = draw.integers(0, 256, (2, count, side, side, 3), dtype=np.uint8)
    return Pairs(tuple(range(1000, 1000 + count)), before, after)


def a_panel(side: int, label: str = "4294967295") -> Panel:
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side // 2, side // 4 : side // 2] = True
    return Panel(np.full((side, side, 3), 90, np.uint8), mask, label)


def an_edit(context: int, side: int = 16, outer: bool = True) -> PaintedEdit:
    one = a_panel(side) if outer else None
    return PaintedEdit("paste", one, one, (a_panel(side, STRANGE),) * context, 2 * context)


def all_figures(width: Width, title: str | None = None) -> Iterator[Any]:
    yield edit_figure(painted_edit(small_generator(), a_request()), pairs(6), title, width=width)
    for context, count, side in ((0, 1, 16), (1, 7, 64), (7, 12, 64), (40, 3, 64), (9, 5, 512)):
        yield edit_figure(an_edit(context, side), pairs(count, side), title, width=width)
    yield edit_figure(an_edit(3, outer=False), pairs(2), title, width=width)
    yield effect_figure(*an_effect(), title, width=width)
    yield effect_figure(*an_effect(level=1e9), title, width=width)
    yield effect_figure(an_effect()[0], pairs(20, 64), pairs(1, 64), title, width=width)


def texts(figure: Any) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", save_figure(figure, "svg").decode())


def overlapping(boxes: list[tuple[float, ...]]) -> bool:
    """Whether any two of (left, right, bottom, top) do."""
    return any(
        left < b and a < right and top < c and d < bottom
        for place, (left, right, bottom, top) in enumerate(boxes)
        for a, b, c, d in boxes[:place]
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("title", [f"{STRANGE}, in a title that is far too long for a column of a paper"])
def test_every_figure_fits_its_page_and_no_picture_lies_over_another(width, title):
    for number, figure in enumerate(all_figures(width, title)):
        across, height = figure.get_size_inches()
        assert across <= WIDTHS[width] + 0.5 / DPI, number
        box = figure.get_tightbbox()
        assert min(box.x0, box.y0) >= -0.01, number
        assert box.x1 <= across + 0.01, number
        assert box.y1 <= height + 0.01, number
        assert not overlapping([image.get_extent() for image in figure.axes[0].images]), number


def test_a_figure_comes_out_the_same_twice():
    for figure in (lambda: edit_figure(an_edit(3), pairs(3)), lambda: effect_figure(*an_effect())):
        assert save_figure(figure(), "svg") == save_figure(figure(), "svg")


def test_an_edit_is_shown_as_it_was_painted():
    generator, request = small_generator(), a_request()
    found = painted_edit(generator.with_rules(some_rule(generator)), request)
    assert found.copy is not None
    assert found.paste is not None
    assert np.array_equal(found.copy.picture, generator.draw(spec(1, 1))[0])
    goal = copy_paste(generator, PLAIN, request)
    assert np.array_equal(found.paste.picture, to_uint8(generator.render(goal.at, goal.wanted))[0])
    assert (found.paste.picture != generator.draw(spec(1, 2))[0]).any()
    assert (found.copy.mask == (request.painted("object").mask.pixels > 127)).all()
    assert [one.label for one in found.context] == ["3", "5"]
    assert found.context[0].mask.sum() == 6 * 6 + 5 * 5
    shown = texts(edit_figure(found, pairs(2)))
    assert {"copy", "paste", "context: 3 regions in 2 pictures", "before", "after", "1000", "1001"} <= set(
        shown
    )


def test_an_erasure_has_no_copy():
    generator = small_generator()
    alone = painted_edit(generator, a_request(operation="erase", object=None, paste=None))
    assert (alone.copy, alone.paste) == (None, None)
    found = painted_edit(generator, a_request(operation="erase", object=None))
    assert found.copy is None
    assert found.paste is not None
    assert np.array_equal(found.paste.picture, generator.draw(spec(1, 2))[0])
    shown = texts(edit_figure(found, pairs(1)))
    assert "erase" in shown
    assert not {"copy", "paste"} & set(shown)


def test_of_a_context_too_large_for_its_place_some_is_shown_and_that_is_said():
    shown = texts(edit_figure(an_edit(60, 64), pairs(1, 64), width="column"))
    (said,) = [text for text in shown if text.startswith("context: 120 regions in 60 pictures, ")]
    number = int(said.split(", ")[1].split()[0])
    assert 0 < number < 60
    assert len([text for text in shown if text.startswith("$x^2$")]) == number


def test_pairs_are_before_at_the_left_and_after_at_the_right():
    some = pairs(2)
    images = edit_figure(an_edit(1), some).axes[0].images[-4:]
    for image, picture in zip(
        images, [some.before[0], some.after[0], some.before[1], some.after[1]], strict=True
    ):
        shown = np.asarray(image.get_array())
        factor = len(shown) // 16
        assert (shown[::factor, ::factor] == picture).all()
    assert images[0].get_extent()[1] <= images[1].get_extent()[0]
    assert images[0].get_extent()[2:] == images[1].get_extent()[2:]


def test_the_effect_is_told_with_its_intervals():
    found, most, least = an_effect()
    shown = texts(effect_figure(found, most, least))
    for name, each in {"inside the context": found.inside, "outside it": found.outside}.items():
        assert f"{name}: {each.value:.1%} ({100 * each.low:.1f} to {100 * each.high:.1f})" in shown
    assert any(text.startswith(f"took effect in {found.took_effect.value:.1%}") for text in shown)
    assert f"{float(found.average_map.max()):.1%}" in shown
    assert {str(seed) for seed in (*found.most(4), *found.least(4))} <= set(shown)
    nothing = texts(effect_figure(*an_effect(level=1e9)))
    assert "the context matches in none of 30 pictures" in nothing


def test_extremes_are_the_pictures_of_their_seeds_with_the_regions_of_their_context():
    found, most, least = an_effect()
    generator = small_generator()
    assert most.seeds == tuple(found.most(4))
    assert least.seeds == tuple(found.least(4))
    assert np.array_equal(most.before[1], generator.draw(spec(1, most.seeds[1]))[0])
    assert most.regions is not None
    shares = found.pictures().set_index("seed")["region"]
    assert most.regions.mean((1, 2)).tolist() == pytest.approx(shares[list(most.seeds)].tolist())


def test_captions_tell_rule_generator_pictures_and_how_it_was_measured():
    generator, rule = small_generator(), some_rule(small_generator())
    said = edit_caption(generator, rule, spec(8))
    for part in (
        rule.digest[:12],
        f"at {PLAIN}, rank 2, strength 1",
        generator.fingerprint[:12],
        "seeds 0-7",
    ):
        assert part in said
    found = an_effect()[0]
    said = effect_caption(generator, found)
    for part in (found.direction.digest, f"above {found.level:.4g} at {PLAIN}", "30 samples", "bootstrap"):
        assert part in said


def test_a_figure_of_nothing_is_refused():
    found = an_effect()[0]
    for figure in (
        lambda: edit_figure(an_edit(1), pairs(0)),
        lambda: edit_figure(an_edit(0, outer=False), pairs(1)),
        lambda: effect_figure(found, pairs(0), pairs(0)),
    ):
        with pytest.raises(RequestError):
            figure()


def test_pairs_of_an_edit_are_what_both_draw():
    generator = small_generator()
    after = generator.with_rules(some_rule(generator))
    found = edited_pairs(generator, after, spec(3))
    assert np.array_equal(found.before, generator.draw(spec(3)))
    assert np.array_equal(found.after, after.draw(spec(3)))
