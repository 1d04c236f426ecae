"""Pictures, overlays and masks; masks against arrays that the published implementation computed."""

import base64
import io
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rewrite_core.errors import MaskError
from rewrite_core.pictures import (
    Mask,
    blend_heat,
    encode_jpeg,
    encode_png,
    enlarge,
    grid,
    outline,
    overlay_heat,
    to_uint8,
)

REFERENCE = Path(__file__).parent / "reference"
URLS: dict[str, str] = json.loads((REFERENCE / "masks.json").read_text())
AREAS = dict(np.load(REFERENCE / "masks.npz"))
NOISE = np.random.default_rng(0).integers(0, 256, (7, 12, 10, 3), dtype=np.uint8)


def data_url(image: Image.Image | bytes) -> str:
    """Any picture, or any bytes, as a PNG data URL."""
    if isinstance(image, Image.Image):
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        image = buffer.getvalue()
    return "data:image/png;base64," + base64.b64encode(image).decode()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size, with hardly any data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def refusal(url: str) -> str:
    """The one line with which a mask is refused."""
    with pytest.raises(MaskError) as caught:
        Mask.from_data_url(url)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    return str(caught.value)


# Pictures


def test_values_become_bytes_by_truncation_and_are_clamped():
    values = torch.tensor([-9.0, -1.0, -0.999, 0.0, 0.5, 1.0, 9.0])
    pictures = values[:, None, None, None].expand(7, 3, 2, 2)
    assert to_uint8(pictures)[:, 0, 0, 0].tolist() == [0, 0, 0, 127, 191, 255, 255]


def test_channels_come_last_and_keep_their_order():
    drawn = torch.stack([torch.full((4, 5), value) for value in (-1.0, 0.0, 1.0)])[None]
    assert to_uint8(drawn).shape == (1, 4, 5, 3)
    assert to_uint8(drawn)[0, 0, 0].tolist() == [0, 127, 255]


def test_every_byte_comes_back_from_its_own_value():
    every = torch.arange(256)
    assert torch.equal(
        torch.from_numpy(to_uint8(((every + 0.5) / 127.5 - 1).expand(1, 3, 1, 256)))[0, 0, :, 0], every.byte()
    )


def test_a_png_comes_back_exactly_and_a_jpeg_nearly():
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(NOISE[0])))), NOISE[0])
    smooth = np.broadcast_to(np.linspace(0, 255, 32, dtype=np.uint8)[:, None, None], (32, 32, 3)).copy()
    decoded = np.asarray(Image.open(io.BytesIO(encode_jpeg(smooth))))
    assert np.abs(decoded.astype(int) - smooth).max() < 12


@pytest.mark.parametrize(("columns", "pad"), [(1, 2), (3, 2), (7, 0), (9, 1)])
def test_a_grid_holds_every_picture_at_its_place_and_background_elsewhere(columns, pad):
    page = grid(NOISE, columns, pad=pad, background=9)
    rows = -(-7 // columns)
    assert page.shape == (rows * (12 + pad) - pad, columns * (10 + pad) - pad, 3)
    page = page.copy()
    for index, picture in enumerate(NOISE):
        top, left = index // columns * (12 + pad), index % columns * (10 + pad)
        assert np.array_equal(page[top : top + 12, left : left + 10], picture)
        page[top : top + 12, left : left + 10] = 9
    assert (page == 9).all()


def test_an_outline_lies_just_outside_and_leaves_the_inside_alone():
    mask = np.zeros((12, 10), dtype=bool)
    mask[4:7, 3:8] = True
    drawn = outline(NOISE[0], mask, (255, 0, 0), thickness=2, dim=0.5)
    border = np.zeros_like(mask)
    border[2:9, 1:10] = True
    border &= ~mask
    assert np.array_equal(drawn[mask], NOISE[0][mask])
    assert (drawn[border] == (255, 0, 0)).all()
    assert np.array_equal(drawn[~mask & ~border], NOISE[0][~mask & ~border] // 2)


def test_an_overlay_shows_where_heat_exceeds_the_level_and_dims_the_rest():
    heat = torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    picture = np.full((16, 16, 3), 200, dtype=np.uint8)
    drawn = overlay_heat(picture, heat, level=3.0)
    assert (drawn[-1, -1] == 200).all()  # a match at the very edge stays visible
    assert (drawn[0, 0] == 100).all()
    assert (drawn == 255).all(axis=-1).any()
    assert (overlay_heat(picture, heat, level=5.0) == 100).all()


def test_a_heat_map_grows_lighter_with_heat_and_lets_the_picture_through():
    heat = torch.linspace(0, 1, 32).expand(4, 32)
    black = np.zeros((4, 32, 3), dtype=np.uint8)
    opaque = blend_heat(black, heat, 0.0, 1.0, opacity=1.0)
    lightness = opaque[0] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()
    assert np.array_equal(blend_heat(NOISE[0], torch.zeros(3, 3), 0, 1, opacity=0.0), NOISE[0])
    assert np.array_equal(blend_heat(black, heat - 5, 0, 1), blend_heat(black, heat * 0, 0, 1))


def test_a_heat_map_is_clear_where_there_is_no_heat_even_without_a_range():
    assert np.array_equal(blend_heat(NOISE[0], torch.zeros(3, 3), 0.0, 1.0), NOISE[0])
    assert np.array_equal(blend_heat(NOISE[0], torch.ones(3, 3), 1.0, 1.0), NOISE[0])


def test_pictures_are_enlarged_pixel_by_pixel():
    large = enlarge(NOISE, 3)
    assert large.shape == (7, 36, 30, 3)
    assert np.array_equal(large[:, 1::3, 2::3], NOISE)


def test_inputs_are_left_as_they_were():
    before = NOISE.copy()
    outline(NOISE[0], np.ones((12, 10), dtype=bool), (1, 2, 3))
    grid(NOISE, 3)
    blend_heat(NOISE[0], torch.rand(3, 3), 0, 1)
    assert np.array_equal(NOISE, before)


# Masks


@pytest.mark.parametrize("name", [name for name in AREAS if not name.endswith("full")])
def test_areas_are_those_of_the_published_implementation(name):
    mask, side = name.rsplit("_", 1)
    area = Mask.from_data_url(URLS[mask]).area((int(side), int(side)))
    assert area.dtype == torch.float32
    assert np.array_equal(area.numpy(), AREAS[name])


@pytest.mark.parametrize("name", [name for name in AREAS if name.endswith("full")])
def test_full_masks_are_those_of_the_published_implementation(name):
    mask = Mask.from_data_url(URLS[name.removesuffix("_full")])
    assert np.array_equal(mask.pixels > 0, AREAS[name])
    assert torch.equal(mask.area((256, 256)) > 0, torch.from_numpy(AREAS[name]))


def test_alpha_is_dropped_and_not_composited():
    soft = Mask.from_data_url(URLS["soft"])  # white, alpha 64
    assert soft.area((64, 64)).max() == 1.0


@pytest.mark.parametrize("name", ["ctx1", "ctx2", "ctx3", "obj", "paste", "pcorner"])
def test_a_mask_is_written_as_the_published_interface_writes_it(name):
    def rgba(url: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))

    assert np.array_equal(rgba(Mask.from_data_url(URLS[name]).to_data_url()), rgba(URLS[name]))


def test_soft_masks_come_back_exactly():
    mask = Mask.from_array(np.arange(256, dtype=np.uint8).reshape(8, 32))
    assert Mask.from_data_url(mask.to_data_url()) == mask


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_kind_of_png_is_read(mode):
    image = Image.new("RGB", (6, 4))
    image.paste((255, 255, 255), (1, 1, 4, 3))
    assert Mask.from_data_url(data_url(image.convert(mode))) == Mask.rectangle((4, 6), 1, 1, 3, 4)


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (1024, 1024), (100, 300)])
def test_bounds_enclose_the_area_on_any_grid(size):
    height, width = size
    mask = Mask.rectangle(size, height // 4, width // 2, height // 2, width)
    assert mask.bounds(size) == (height // 4, width // 2, height // 2, width)
    top, left, bottom, right = mask.bounds((8, 16))
    area = mask.area((8, 16))
    assert (area[top:bottom, left:right] > 0).all()
    assert area.sum() == area[top:bottom, left:right].sum()


def test_bounds_are_those_of_the_reference_area():
    area = AREAS["pcorner_16"] > 0
    rows, columns = np.nonzero(area)
    expected = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    assert Mask.from_data_url(URLS["pcorner"]).bounds((16, 16)) == expected


def test_a_mask_of_zero_area_is_refused():
    empty = Mask.from_array(np.zeros((32, 32), dtype=bool))
    assert empty.empty
    with pytest.raises(
        MaskError, match=r"an empty mask; expected a painted region\. Paint a larger region\."
    ):
        empty.bounds((8, 8))


def test_a_mask_too_small_for_the_grid_is_refused():
    dot = Mask.rectangle((1024, 1024), 5, 5, 6, 6)
    assert not dot.empty
    assert dot.area((4, 4)).sum() == 0
    with pytest.raises(MaskError, match="too small for a grid of 4×4"):
        dot.bounds((4, 4))


def test_masks_are_equal_by_content():
    a, b = Mask.rectangle((8, 8), 1, 1, 3, 3), Mask.rectangle((8, 8), 1, 1, 3, 3)
    assert a == b
    assert len({a, b, Mask.rectangle((8, 8), 1, 1, 3, 4)}) == 2
    assert Mask.from_array(np.zeros((2, 8), bool)) != Mask.from_array(np.zeros((8, 2), bool))
    assert a != "mask"


def test_a_mask_cannot_be_changed_and_does_not_follow_its_source():
    source = np.zeros((4, 4), dtype=np.uint8)
    mask = Mask.from_array(source)
    source[:] = 255
    assert mask.empty
    with pytest.raises(ValueError, match="read-only"):
        mask.pixels[0, 0] = 1
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        mask.pixels.setflags(write=True)


def test_booleans_are_all_or_nothing():
    assert Mask.from_array(np.array([[True, False]])).pixels.tolist() == [[255, 0]]


def test_a_mask_is_resized_softly():
    assert Mask.rectangle((4, 4), 0, 0, 4, 2).resized((2, 3)).size == (2, 3)
    assert Mask.rectangle((4, 4), 0, 0, 4, 2).area((1, 1)).item() == pytest.approx(0.5, abs=0.01)


def test_a_polygon_is_filled():
    mask = Mask.polygon((20, 30), [(5, 2), (25, 2), (25, 17), (5, 17)])  # x, y
    assert mask.size == (20, 30)
    assert mask.bounds((20, 30)) == (2, 5, 18, 26)


@pytest.mark.parametrize("box", [(0, 0, 9, 4), (-1, 0, 4, 4), (3, 0, 3, 4), (0, 5, 4, 2)])
def test_a_box_beyond_the_mask_is_refused(box):
    with pytest.raises(MaskError, match="a box within 8×8 pixels"):
        Mask.rectangle((8, 8), *box)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4)), np.zeros((0, 4), np.uint8), np.zeros(4, bool)]
)
def test_an_array_that_is_no_mask_is_refused(array):
    with pytest.raises(MaskError, match=r"expected uint8 or bool pixels \[H, W\]"):
        Mask.from_array(array)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "begins with ''"),
        ("https://example.org/mask.png", "begins with 'https"),
        ("data:image/jpeg;base64,/9j/", "begins with 'data:image/jpeg"),
        ("data:image/png;base64,", "cannot be decoded"),
        ("data:image/png;base64,****", "not base64"),
        ("data:image/png;base64,iVBORw0KGgo", "not base64"),
        ("data:image/png;base64,é", "not base64"),
        (data_url(b"<svg/>"), "cannot be decoded"),
        (data_url(png_of_size(8, 8)), "cannot be decoded"),
        (URLS["obj"][:-400], "cannot be decoded"),
        ("data:image/png;base64," + "A" * 20_000_000, "a mask of 20,000,022 characters"),
    ],
)
def test_what_is_no_png_data_url_is_refused(url, reason):
    assert reason in refusal(url)


def test_another_format_under_the_name_of_png_is_refused():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="GIF")
    assert "cannot be decoded" in refusal(data_url(buffer.getvalue()))


@pytest.mark.parametrize(
    ("width", "height"), [(4097, 4096), (20_000, 5_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)]
)
def test_a_picture_that_would_fill_the_memory_is_refused_undecoded(width, height):
    assert "pixels" in refusal(data_url(png_of_size(width, height)))


def test_the_largest_mask_is_read():
    assert Mask.from_data_url(data_url(Image.new("L", (4096, 4096), 255))).area((8, 8)).min() == 1.0
