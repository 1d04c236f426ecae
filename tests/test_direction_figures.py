"""Figures of directions: at the size of a paper, nothing cut off, seeds and numbers told, the same bytes again."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dissect.direction_figures import (
    Strip,
    matches_figure,
    methods_figure,
    patches_figure,
    scaled_figure,
    strip,
)
from dissect.direction_plots import (
    channels_figure,
    curves_figure,
    overlap_figure,
    scores_figure,
    spectrum_figure,
)
from dissect.key_map import KeyMap
from dissect.map_plots import map_figure
from dissect.paper import DPI, WIDTHS, Width, save_figure
from dissect.sheet import OUTLINE
from rewrite_core.directions.matches import Matches, matches
from rewrite_core.directions.spectrum import spectra
from rewrite_core.errors import RequestError
from tests.generators import DOWN, PLAIN, UP, small_generator, spec

STRANGE = "$x^2$ <b> of a long name"


def pictures(count: int, side: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def a_strip(count: int, side: int = 16, seed: int = 0) -> Strip:
    heat = torch.randn(count, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Strip(tuple(range(1000, 1000 + count)), pictures(count, side, seed), heat)


def some_matches() -> Matches:
    return matches(small_generator(), PLAIN, torch.linspace(-1, 1, 10), spec(12))


def a_map(count: int = 40, side: int = 6) -> KeyMap:
    draw = np.random.default_rng(0)
    concepts = tuple(draw.choice(["", "eyes", "eye", "hair", STRANGE], count).tolist())
    places = draw.integers(0, 8, (count, 3))
    return KeyMap(
        draw.normal(size=(count, 2)), places, "PCA", pictures(count, side), concepts, PLAIN, "small"
    )


def judged() -> tuple[pd.DataFrame, pd.DataFrame]:
    recall = np.linspace(0, 1, 2000)
    curves = [
        pd.DataFrame({"method": name, "recall": recall, "precision": 1 - power * recall})
        for name, power in (("zca", 0.5), (STRANGE, 0.8))
    ]
    rows = [("zca", 0.75, 0.7, 0.8, 0.2), (STRANGE, 0.6, 0.5, 0.7, 0.2)]
    return pd.concat(curves, ignore_index=True), pd.DataFrame(
        rows, columns=["method", "average_precision", "low", "high", "share"]
    )


def channels() -> pd.DataFrame:
    rows = [
        (direction, 100 + number, 9 - number, (9 - number) / 45)
        for direction in (0, 1)
        for number in range(9)
    ]
    return pd.DataFrame(rows, columns=["direction", "channel", "norm", "share"])


def all_figures(width: Width, title: str | None = None) -> Iterator[Any]:
    overlaps = np.cos(np.arange(9.0)).reshape(3, 3)
    names = [STRANGE, "mmmm", "eyes"]
    yield spectrum_figure(spectra(small_generator(), [UP, PLAIN, DOWN], spec(8)), title, width=width)
    yield scores_figure(some_matches(), title=title, width=width)
    yield curves_figure(*judged(), title, width=width)
    yield overlap_figure(names, overlaps, -overlaps, title, width=width)
    yield overlap_figure(["mmmm"], [[1.0]], [[1.0]], title, width=width)
    yield channels_figure(channels(), title, width=width)
    yield map_figure(a_map(), title, width=width)
    yield map_figure(a_map(), title, thumbnails=True, width=width)
    yield matches_figure({"top": a_strip(9), STRANGE: a_strip(2)}, 1.0, title, width=width)
    yield methods_figure(
        {"zca": a_strip(9), "mean": a_strip(9)}, {"zca": (0, 1), "mean": (0, 2)}, title, width=width
    )
    yield patches_figure(pictures(20, 6), range(20), title, width=width)
    yield patches_figure(pictures(1, 500), [4294967295], title, width=width)
    yield scaled_figure({-2: pictures(9), 1: pictures(9)}, range(9), {-2: np.eye(16)}, title, width=width)
    yield scaled_figure({0: pictures(1, 512)}, [7], title=title, width=width)


def texts(figure) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", save_figure(figure, "svg").decode())


def pixels(figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(save_figure(figure, "png"))).convert("RGB"))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "title", [None, f"{STRANGE}: what it matches, in a title that is far too long for a column"]
)
def test_every_figure_fits_its_page_and_nothing_sticks_out(width, title):
    for number, figure in enumerate(all_figures(width, title)):
        across, height = figure.get_size_inches()
        assert across <= WIDTHS[width] + 0.5 / DPI, number
        box = figure.get_tightbbox()
        assert min(box.x0, box.y0) >= -0.01, number
        assert box.x1 <= across + 0.01, number
        assert box.y1 <= height + 0.01, number


def test_every_figure_comes_out_the_same_twice_in_the_letters_of_a_caption():
    for one, other in zip(all_figures("column"), all_figures("column"), strict=True):
        svg = save_figure(one, "svg")
        assert svg == save_figure(other, "svg")
        sizes = {float(size) for size in re.findall(r"font-size: ([\d.]+)px", svg.decode())}
        assert max(sizes) <= 7.5


def test_a_spectrum_tells_effective_rank_and_what_is_stable():
    found = spectra(small_generator(), [UP, PLAIN], spec(8))
    shown = texts(spectrum_figure(found))
    for name, one in found.items():
        assert f"{name}: {one.units} units" in shown
        assert f"effective rank {one.effective_rank:.1f}" in shown
        assert any(text.startswith(f"stable: {one.stable} of {len(one.eigenvalues)}") for text in shown)


def test_scores_tell_what_lies_above_each_quantile():
    found = some_matches()
    level = found.level(0.99)
    above = float((found.scores > level).double().mean())
    shown = texts(scores_figure(found, [0.99]))
    assert f"0.99 quantile, {level:.3g}: {above:.1%} of pictures above" in shown
    assert f"all {found.heat.numel():,} positions" in shown


def test_a_heat_that_is_the_same_everywhere_has_a_figure():
    flat = Matches(spec(3), torch.zeros(3, 4, 4))
    assert "0.9 quantile, 0: 0.0% of pictures above" in texts(scores_figure(flat, [0.9]))


def test_curves_name_average_precision_with_its_interval_best_first_and_chance():
    shown = texts(curves_figure(*judged()))
    first = shown.index("zca: AP 0.750 (0.700 to 0.800)")
    assert shown[first + 1].endswith(": AP 0.600 (0.500 to 0.700)")
    assert shown[first + 2] == "chance: 0.200"


def test_a_methods_line_does_not_depend_on_how_good_it_is():
    curves, precision = judged()
    worse = precision.assign(average_precision=[0.1, 0.2])
    lines = [
        {
            round(float(np.asarray(line.get_ydata())[-1]), 2): line.get_color()
            for line in figure.axes[1].lines[:2]
        }
        for figure in (curves_figure(curves, precision), curves_figure(curves, worse))
    ]
    assert lines[0] == lines[1]


def test_curves_of_nothing_are_refused():
    curves, precision = judged()
    with pytest.raises(RequestError, match="no method that was judged"):
        curves_figure(curves[:0], precision[:0])


def test_overlaps_have_their_numbers_and_many_have_colours_alone():
    shown = texts(overlap_figure(["a", "b"], [[1, -0.256], [-0.256, 1]], np.eye(2)))
    assert shown.count("−.26") == 2
    assert shown.count("1.00") == 4
    assert {"as queries", "as keys"} <= set(shown)
    many = texts(overlap_figure([f"n{number}" for number in range(20)], np.eye(20), np.eye(20)))
    assert "1.00" not in many


def test_channels_are_named_strongest_first_for_each_direction():
    shown = texts(channels_figure(channels(), count=3))
    assert {"direction 1", "direction 2", "100", "102"} <= set(shown)
    assert "103" not in shown


def test_a_map_counts_the_points_of_each_concept():
    found = a_map()
    shown = texts(map_figure(found))
    for name in ("eyes", "eye", "hair"):
        assert f"{name}: {found.concepts.count(name)}" in shown
    assert f"no concept: {found.concepts.count('')}" in shown


def test_patches_on_a_map_do_not_cover_each_other():
    figure = map_figure(a_map(300), thumbnails=True, width="page")
    boxes = [image.get_extent() for image in figure.axes[0].images]
    assert len(boxes) > 20
    for number, (left, right, bottom, top) in enumerate(boxes):
        for a, b, c, d in boxes[:number]:
            assert right <= a or b <= left or bottom <= d or c <= top


def test_matches_are_outlined_over_their_seeds():
    one = a_strip(3)
    figure = matches_figure({"top": one}, float(one.heat.max()) - 0.1)
    assert {"top", "1000", "1001", "1002"} <= set(texts(figure))
    assert (pixels(figure) == OUTLINE).all(-1).any()
    nothing = pixels(matches_figure({"top": one}, float(one.heat.max()) + 1))
    assert not (nothing == OUTLINE).all(-1).any()


def test_a_strip_is_what_was_searched():
    generator, found = small_generator(), some_matches()
    seeds = found.top(3)
    row = strip(generator, found, seeds)
    assert row.seeds == tuple(seeds)
    assert torch.equal(row.heat[1], found.of(seeds[1]))
    assert np.array_equal(row.pictures[2], generator.draw(spec(1, seeds[2]))[0])
    assert len(strip(generator, found, []).heat) == 0


def test_methods_show_the_pictures_first_and_heat_over_them():
    one = a_strip(2)
    figure = methods_figure({"zca": one}, {"zca": (100.0, 101.0)})  # all of it clear
    plain, under = [np.asarray(image.get_array()) for image in figure.axes[0].images[:3:2]]
    assert np.array_equal(plain, under)
    assert texts(figure) == ["picture", "zca", "1000", "1001"]


def test_a_row_for_each_factor_and_the_change_on_one_scale():
    figure = scaled_figure(
        {-2: pictures(2), 0.5: pictures(2)}, [3, 4], {-2: 0.5 * np.eye(16), 0.5: 0.1 * np.eye(16)}
    )
    assert {"α = −2", "α = 0.5", "3", "4", "change", "0", "50.0%"} <= set(texts(figure))
    strong, weak = (np.asarray(image.get_array()) for image in figure.axes[0].images[4:6])
    assert tuple(strong[0, 0]) == (253, 231, 36)
    assert tuple(weak[0, 0]) != tuple(strong[0, 0])


def test_patches_stand_beside_their_average():
    crops = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (0, 100)])
    figure = patches_figure(crops, ["a", "b"])
    assert texts(figure) == ["a", "b", "average of 2"]
    average = np.asarray(figure.axes[0].images[-1].get_array())
    assert (average == 50).all()
    assert average.shape[0] > np.asarray(figure.axes[0].images[0].get_array()).shape[0]


def test_figures_of_no_pictures_are_refused():
    for figure in (
        lambda: matches_figure({"top": a_strip(0)}, 1.0),
        lambda: patches_figure(pictures(0), []),
        lambda: scaled_figure({}, []),
    ):
        with pytest.raises(RequestError, match="no pictures"):
            figure()
