"""Figures: pixels exactly enlarged, everything labelled, the same bytes from the same pictures."""

from __future__ import annotations

import base64
import io
import re
import sys
import threading
from itertools import pairwise
from subprocess import run

import numpy as np
import pytest
from PIL import Image

from dissect.figures import DPI, FORMATS, WIDTHS, grid_figure, pair_figure, save_figure
from rewrite_core.errors import RequestError


def pictures(count: int, side: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def pixels(figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(save_figure(figure, "png"))).convert("RGB"))


def find(page: np.ndarray, picture: np.ndarray) -> tuple[int, int, int] | None:
    """Where a picture stands on the page, and by which whole factor it is enlarged."""
    corners = np.argwhere((page == picture[0, 0]).all(axis=2))
    for factor in range(min(40, page.shape[1] // picture.shape[1]), 0, -1):
        large = picture.repeat(factor, axis=0).repeat(factor, axis=1)
        height, width = large.shape[:2]
        for top, left in corners:
            if np.array_equal(page[top : top + height, left : left + width], large):
                return int(top), int(left), factor
    return None


def texts(figure) -> list[str]:
    svg = save_figure(figure, "svg").decode()
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@pytest.mark.parametrize("side", [8, 32, 64, 128])
def test_every_pixel_of_a_small_picture_becomes_a_square_of_its_colour(side):
    drawn = pictures(5, side)
    page = pixels(grid_figure(drawn, range(5), width="column"))
    assert len({found[2] for picture in drawn if (found := find(page, picture))}) == 1


def test_an_after_stands_right_under_its_before():
    before, after = pictures(3), pictures(3, seed=1)
    page = pixels(pair_figure(before, after, range(3)))
    for over, under in zip(before, after, strict=True):
        upper, lower = find(page, over), find(page, under)
        assert upper
        assert lower
        assert upper[1] == lower[1]
        assert 0 < lower[0] - upper[0] - upper[2] * 64 < 12


def test_a_pair_is_named_by_its_seed_and_a_row_by_what_it_shows():
    figure = pair_figure(pictures(4), pictures(4), [7, 1000, 4294967295, 0], "$5 for $x$", columns=2)
    assert sorted(texts(figure)) == sorted(
        [*["before", "after"] * 2, "7", "1000", "4294967295", "0", "$5 for $x$"]
    )


def test_a_grid_is_labelled_and_has_no_words_at_its_rows():
    assert texts(grid_figure(pictures(3), ["a", 5, 6])) == ["a", "5", "6"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [1, 7, 16, 100])
@pytest.mark.parametrize("side", [32, 64])
def test_a_figure_is_never_wider_than_its_column(width, count, side):
    drawn = pictures(count, side)
    inches = pair_figure(drawn, drawn, range(count), width=width).get_size_inches()[0]
    assert inches <= WIDTHS[width] + 1e-9
    assert count < 7 or inches > 0.75 * WIDTHS[width]


def test_a_picture_too_large_for_its_place_is_reduced():
    figure = grid_figure(pictures(4, 1024), range(4), columns=4, width="column")
    assert figure.get_size_inches()[0] <= WIDTHS["column"] + 1e-9


def test_pictures_may_be_wider_than_high():
    drawn = np.random.default_rng(0).integers(0, 256, (3, 32, 64, 3), dtype=np.uint8)
    page = pixels(grid_figure(drawn, range(3)))
    assert find(page, drawn[2])


def test_labels_stay_within_their_pictures_width():
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = grid_figure(pictures(12), range(4294967284, 4294967296), columns=12)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert boxes[0].x0 >= 0
    assert boxes[-1].x1 <= figure.bbox.width


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_pictures_give_the_same_bytes(kind):
    first, second = (save_figure(pair_figure(pictures(2), pictures(2), [1, 2]), kind) for _ in range(2))
    assert first == second


def test_a_png_says_that_it_has_300_pixels_to_the_inch():
    picture = Image.open(io.BytesIO(save_figure(grid_figure(pictures(2), "ab"), "png")))
    assert round(picture.info["dpi"][0]) == DPI


def test_a_pdf_embeds_truetype_fonts_and_names_no_date():
    pdf = save_figure(grid_figure(pictures(2), ["one", "two"]), "pdf")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


def test_an_svg_holds_the_very_pixels_of_each_picture():
    drawn = pictures(3, 16)
    svg = save_figure(grid_figure(drawn, range(3)), "svg").decode()
    held = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r'base64,\s*([^"]+)"', svg)]
    for picture, image in zip(drawn, held, strict=True):
        factor = image.width // 16
        np.testing.assert_array_equal(
            image.convert("RGB"), picture.repeat(factor, axis=0).repeat(factor, axis=1)
        )
    assert svg.count("image-rendering:pixelated") == 3


def test_a_pdf_holds_each_picture_at_a_whole_multiple_of_its_size():
    pdf = save_figure(grid_figure(pictures(3, 16), range(3)), "pdf")
    widths = [int(width) for width in re.findall(rb"/Subtype /Image /Width (\d+)", pdf)]
    assert len(widths) == 3
    assert all(width > 100 and width % 16 == 0 for width in widths)


def test_a_figure_is_written_where_its_target_is_a_path(tmp_path):
    content = save_figure(grid_figure(pictures(1), [0]), tmp_path / "grid.pdf")
    assert (tmp_path / "grid.pdf").read_bytes() == content


def test_an_ending_that_is_no_figure_is_refused():
    with pytest.raises(RequestError, match=r"pairs\.jpg.*\.png, \.svg, \.pdf"):
        save_figure(grid_figure(pictures(1), [0]), "pairs.jpg")


def test_a_figure_of_nothing_is_refused():
    with pytest.raises(RequestError, match="no pictures"):
        grid_figure(pictures(0), [])


def test_figures_made_at_the_same_time_do_not_disturb_each_other():
    expected = {kind: save_figure(grid_figure(pictures(3), range(3)), kind) for kind in FORMATS}
    results = []

    def save(kind):
        results.append((kind, save_figure(grid_figure(pictures(3), range(3)), kind)))

    threads = [threading.Thread(target=save, args=(kind,)) for kind in FORMATS * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2 * len(FORMATS)
    assert all(expected[kind] == content for kind, content in results)


def test_the_module_is_quick_to_import():
    code = "import sys, dissect.figures; sys.exit('matplotlib' in sys.modules or 'streamlit' in sys.modules)"
    assert run([sys.executable, "-c", code]).returncode == 0
