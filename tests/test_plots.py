"""Charts of a dissection: what they show, at the size of a paper, with names as they are and the same bytes again."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dissect.paper import DPI, WIDTHS, save_figure, shortened
from dissect.plots import best_figure, detectors_figure, iou_figure, styles
from dissect.provenance import caption, manifest, runs
from dissect.sheet import ALSO, unit_sheet
from dissect.sheet_plots import ablation_figure, sheet_figure
from dissect.tables import Dissection
from dissect.units import dissect
from rewrite_core import LatentSpec
from rewrite_core.errors import LayerError
from rewrite_core.statistics import Store
from tests.planted import LAYERS, SHAPES, Shapes, planted_generator

SPEC = LatentSpec.of(range(60), truncation=0.9)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(Path(tmp_path_factory.mktemp("plots")))


@pytest.fixture(scope="module")
def found(store: Store) -> Dissection:
    return dissect(planted_generator(), SPEC, LAYERS, Shapes(unseen=True), also=ALSO, store=store)


def renamed(found: Dissection, **names: str) -> Dissection:
    """The same with other names of concepts."""
    layers = {
        name: replace(layer, concepts=tuple(names.get(concept, concept) for concept in layer.concepts))
        for name, layer in found.layers.items()
    }
    return replace(found, layers=layers)


def texts(figure) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", save_figure(figure, "svg").decode())


def all_figures(found: Dissection, store: Store):
    sheet = unit_sheet(planted_generator(), found, SHAPES, 1, store=store)
    pictures = sheet.ranges[0].pictures
    effects = pd.DataFrame(
        {"set": ["unit", "unit"], "concept": ["red", "green"], "effect": [0.1, -0.2]}
        | {"low": [0.0, -0.3], "high": [0.2, -0.1]}
    )
    for width in WIDTHS:
        yield detectors_figure(found, width=width)
        yield best_figure(found, "a title", width=width)
        yield iou_figure(found, SHAPES, width=width)
        yield sheet_figure(sheet, width=width)
        yield ablation_figure({"before": pictures, "unit": pictures}, range(8), effects, width=width)


def test_every_figure_fits_its_column_or_page_and_comes_out_the_same_twice(found, store):
    widths = [width for width in WIDTHS for _ in range(5)]
    both = zip(all_figures(found, store), all_figures(found, store), widths, strict=True)
    for one, other, width in both:
        assert one.get_size_inches()[0] <= WIDTHS[width] + 0.5 / DPI
        assert save_figure(one, "svg") == save_figure(other, "svg")


def test_nothing_sticks_out_of_its_figure(found, store):
    for figure in all_figures(found, store):
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert box.x0 >= -0.01
        assert box.y0 >= -0.01
        assert box.x1 <= width + 0.01
        assert box.y1 <= height + 0.01


def test_text_has_the_sizes_of_a_caption(found, store):
    for figure in all_figures(found, store):
        svg = save_figure(figure, "svg").decode()
        sizes = {float(size) for size in re.findall(r"font-size: ([\d.]+)px", svg)}
        assert sizes
        assert max(sizes) <= 7.5


def test_the_detectors_of_each_layer_are_counted_over_its_bar(found):
    shown = texts(detectors_figure(found))
    for row in found.summary().itertuples():
        assert f"{row.detectors}/{row.units}" in shown
    assert {"red", "green", "blue"} <= set(shown)
    assert "purple" not in shown  # nothing detects it


def test_many_concepts_are_gathered_in_others(found):
    layer = found.layers[SHAPES]
    many = tuple(f"concept {number}" for number in range(8))
    repeated = {
        name: getattr(layer, name).repeat(1, 2)[..., :8]
        for name in ("iou", "precision", "recall", "tuned", "tuned_iou", "held_out", "halves")
    }
    wide = replace(
        layer,
        concepts=many,
        share=layer.share.repeat(2)[:8],
        **repeated,
    )
    shown = texts(detectors_figure(replace(found, layers={SHAPES: wide})))
    assert any(name in shown for name in many)


def test_the_best_unit_of_each_concept_is_named(found):
    shown = texts(best_figure(found))
    for row in found.concepts().itertuples():
        assert (f"{row.layer} unit {row.unit}" in shown) == bool(row.unit)


def test_names_are_printed_as_they_are(found):
    strange = renamed(found, red="$x^2$ <script>", green="a very long name of a concept")
    for figure in (detectors_figure(strange), best_figure(strange), iou_figure(strange, SHAPES)):
        shown = texts(figure)
        assert "$x^2$ &lt;script&gt;" in shown
        assert shortened("a very long name of a concept", 16) in shown


def test_a_layer_that_was_not_dissected_has_no_chart(found):
    with pytest.raises(LayerError):
        iou_figure(found, "l99")


def test_two_concepts_of_one_colour_are_told_apart():
    one, other = styles(["eyes", "eye"])
    assert one.colour == other.colour
    assert one.hatch != other.hatch


def test_a_pale_colour_has_a_line_around_it():
    white, blue = styles(["white", "blue"])
    assert white.edge == white.line != blue.line
    assert blue.edge == "white"


def test_a_sheet_shows_the_seeds_of_its_pictures_and_the_ranges(found, store):
    sheet = unit_sheet(planted_generator(), found, SHAPES, 1, store=store)
    shown = texts(sheet_figure(sheet))
    assert {str(seed) for one in sheet.ranges for seed in one.seeds} <= set(shown)
    assert all(any(text.startswith(one.name) for text in shown) for one in sheet.ranges)
    assert f"{SHAPES}, unit 1: detects green" in shown


def test_a_large_picture_is_reduced_and_its_region_still_outlined(found, store):
    sheet = unit_sheet(planted_generator(), found, SHAPES, 1, store=store)
    large = [
        replace(
            one,
            pictures=np.zeros((len(one.seeds), 512, 512, 3), dtype=np.uint8),
            masks=np.pad(np.ones((len(one.seeds), 256, 256), dtype=bool), ((0, 0), (128, 128), (128, 128))),
        )
        for one in sheet.ranges
    ]
    drawn = Image.open(io.BytesIO(save_figure(sheet_figure(replace(sheet, ranges=tuple(large))), "png")))
    assert (np.asarray(drawn.convert("RGB")) == (255, 225, 60)).all(-1).any()


def test_a_shortened_name_keeps_both_ends():
    assert shortened("background", 16) == "background"
    assert shortened("synthesis.b1024.conv1", 9) == "synt…onv1"
    assert len(shortened("x" * 100, 16)) == 16


def test_a_caption_says_where_the_numbers_come_from(found):
    text = caption("Detectors.", found, SHAPES)
    for part in (
        "Detectors.",
        "planted",
        SHAPES,
        "60 samples",
        "seeds 0-59",
        "0.9",
        "shapes",
        "0.99",
        "0.04",
        "torch",
    ):
        assert part in text


def test_the_manifest_says_what_makes_it_again(found):
    described = manifest(found)
    assert described["samples"]["seeds"] == "0-59"
    assert described["fingerprint"] == found.fingerprint
    assert described["concepts"]["identity"] == dict(found.identity)
    assert described["layers"] == list(LAYERS)


@pytest.mark.parametrize(
    ("seeds", "text"), [((0, 1, 2), "0-2"), ((5,), "5"), ((3, 1, 2, 9), "3, 1-2, 9"), ((), "")]
)
def test_seeds_are_told_in_runs(seeds, text):
    assert runs(seeds) == text
