"""Label maps on disk: found by seed, read as numbers, and refused with one line where they disagree."""

import io
import json
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dissect.concepts import map_file
from dissect.concepts.label_maps import LabelMaps, open_label_maps
from dissect.concepts.map_file import decode
from dissect.concepts.source import require_pixels_only
from rewrite_core import LatentSpec
from rewrite_core.errors import FileError, ModelMismatch, PalimpsestError, RequestError
from rewrite_core.rules.stack import RuleStack
from rewrite_core.statistics import Scene
from tests.generators import small_generator, some_rule, spec

LEGEND: Any = {"0": "background", "2": "hair", "5": None}
GENERATOR = small_generator()
NUMBERS = np.array([0, 2, 5])


def some_map(seed: int, size: tuple[int, int] = (16, 16)) -> Any:
    """Numbers of the legend, drawn from the seed."""
    return NUMBERS[np.random.RandomState(seed).randint(3, size=size)]


def png(numbers: Any, mode: str = "L", **options: Any) -> bytes:
    kind = {"I;16": np.uint16}.get(mode, np.uint8)
    image = Image.fromarray(numbers.astype(kind))
    if mode == "P":
        image = Image.fromarray(numbers.astype(np.uint8)).convert("L")
        image.putpalette([200, 30, 60] * 256)  # what colours they show does not matter
    file = io.BytesIO()
    image.save(file, format="PNG", **options)
    return file.getvalue()


def npy(array: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def folder_of(folder: Path, files: dict[str, bytes] | None = None, legend: Any = LEGEND) -> Path:
    files = files if files is not None else {f"{seed}.png": png(some_map(seed)) for seed in range(4)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if legend is not None:
        (folder / "legend.json").write_text(json.dumps(legend))
    return folder


def labels(maps: LabelMaps, samples: LatentSpec) -> Any:
    latents = GENERATOR.latents(samples)
    return maps(Scene(GENERATOR.pictures(latents), latents)).numpy()


def expected(*seeds: int) -> Any:
    """Background and hair, [N, 2, H, W]; 5 is no concept."""
    return np.stack([[some_map(seed) == 0, some_map(seed) == 2] for seed in seeds])


# What is read


def test_every_kind_of_file_gives_the_labels_of_its_seed(tmp_path):
    masks = np.stack([some_map(5) == number for number in range(6)])
    names = {"0": "background", "1": None, "2": "hair", "3": None, "4": None, "5": None}
    files = {
        "0.png": png(some_map(0)),
        "0001.png": png(some_map(1), "P"),
        "seed0000002.png": png(some_map(2), "I;16"),
        "seed3.npy": npy(some_map(3).astype(np.int8)),
        "4.NPZ": npz(anything=some_map(4)),
        "5.npz": npz(labels=masks, other=np.zeros(3)),
        "6.npy": npy(np.asfortranarray(some_map(6).astype(">u4"))),
        "notes.txt": b"passed over",
        "seed.png": b"passed over",
    }
    maps = open_label_maps(folder_of(tmp_path, files, names))
    assert maps.seeds == tuple(range(7))
    assert maps.names == ("background", "hair")
    assert np.array_equal(labels(maps, LatentSpec.of([6, 0, 5, 1, 2, 3, 4])), expected(6, 0, 5, 1, 2, 3, 4))


def test_soft_masks_stay_soft(tmp_path):
    soft = np.random.RandomState(0).rand(2, 8, 8)
    maps = open_label_maps(folder_of(tmp_path, {"7.npz": npz(soft=soft)}, ["sky", "sea"]))
    found = labels(maps, LatentSpec.of([7]))
    assert found.dtype == np.float32
    assert np.allclose(found[0], soft)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_of_few_bits_gives_the_numbers_in_the_file(depth):
    numbers = np.random.RandomState(depth).randint(2**depth, size=(8, 8))
    assert np.array_equal(decode(grey_png(numbers, depth), "a map"), numbers)


def grey_png(numbers: Any, depth: int) -> bytes:
    """A grey PNG of any bit depth; Pillow writes none of 2 or 4."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = numbers.shape
    bits = (numbers[..., None] >> np.arange(depth - 1, -1, -1)) & 1  # [H, W, depth]
    rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_a_legend_may_be_a_list_and_may_be_in_full(tmp_path):
    maps = open_label_maps(folder_of(tmp_path, legend=["background", None, "hair", None, None, None]))
    short = labels(maps, spec())
    full = {"labels": LEGEND, "model": {"name": "small", "fingerprint": GENERATOR.fingerprint}}
    maps = open_label_maps(folder_of(tmp_path, legend=full))
    maps.check(GENERATOR)
    assert np.array_equal(short, labels(maps, spec()))


# What they may be asked for


def test_they_know_unedited_samples_only(tmp_path):
    maps = open_label_maps(folder_of(tmp_path))
    maps.check(GENERATOR)
    with pytest.raises(PalimpsestError, match=r"label maps: .* unedited samples only"):
        require_pixels_only(maps)
    edited = GENERATOR.with_rules(RuleStack().push(some_rule(GENERATOR)))
    with pytest.raises(ModelMismatch, match="small with rules"):
        maps.check(edited)


def test_maps_of_another_generator_are_refused(tmp_path):
    legend = {"labels": LEGEND, "model": {"name": "other", "fingerprint": "ab" * 32}}
    with pytest.raises(ModelMismatch, match=r"of other \(abababababab\); expected those of small"):
        open_label_maps(folder_of(tmp_path, legend=legend)).check(GENERATOR)


def test_maps_have_a_grid_of_their_own_in_the_pictures_proportions(tmp_path):
    files = {"0.png": png(some_map(0, (8, 8)))}
    open_label_maps(folder_of(tmp_path, files)).check(GENERATOR)
    (tmp_path / "0.png").write_bytes(png(some_map(0, (8, 12))))
    with pytest.raises(
        PalimpsestError, match="maps of 8 × 12; expected the proportions of the pictures, 16 × 16"
    ):
        open_label_maps(tmp_path).check(GENERATOR)


def test_a_seed_without_a_map_is_named(tmp_path):
    maps = open_label_maps(folder_of(tmp_path))
    with pytest.raises(RequestError, match=f"no label map of seed 9 in {tmp_path}"):
        labels(maps, LatentSpec.of([1, 9]))


@pytest.mark.parametrize(
    ("samples", "word"),
    [
        (LatentSpec.of([0], "rows"), "scheme rows; expected scheme seed"),
        (LatentSpec.of([0], truncation=0.5), "truncation 0.5; expected truncation 1.0"),
    ],
)
def test_pictures_drawn_otherwise_are_refused_unless_the_legend_says_so(tmp_path, samples, word):
    with pytest.raises(RequestError, match=word):
        labels(open_label_maps(folder_of(tmp_path)), samples)
    latents = {"scheme": samples.scheme, "truncation": samples.truncation}
    maps = open_label_maps(folder_of(tmp_path, legend={"labels": LEGEND, "latents": latents}))
    assert np.array_equal(labels(maps, samples), expected(0))


# What a stored statistic is named by


def test_the_identity_follows_contents_and_names_and_not_the_place(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    first = open_label_maps(folder_of(here)).identity()
    assert open_label_maps(folder_of(there)).identity() == first
    (there / "3.png").rename(there / "seed0000003.png")
    assert open_label_maps(there).identity() == first
    (there / "seed0000003.png").write_bytes(png(some_map(8)))
    assert open_label_maps(there).identity() != first
    assert open_label_maps(folder_of(here, legend=LEGEND | {"2": "hat"})).identity() != first
    json.dumps(first)


def test_a_file_of_the_same_size_that_changed_is_read_again_and_one_that_did_not_is_not(
    tmp_path, monkeypatch
):
    content = [npy(some_map(seed).astype(np.uint8)) for seed in range(3)]
    folder_of(tmp_path, {"0.npy": content[0], "1.npy": content[1]})
    for name in ("0.npy", "1.npy"):
        os.utime(tmp_path / name, (1e9, 1e9))
    first = open_label_maps(tmp_path)
    (tmp_path / "0.npy").write_bytes(content[2])
    os.utime(tmp_path / "0.npy", (1e9, 1e9))
    second = open_label_maps(tmp_path)
    assert len(content[0]) == len(content[2])
    assert second.identity() != first.identity()
    assert np.array_equal(labels(second, LatentSpec.of([0])), expected(2))
    with pytest.raises(FileError, match=r"0\.npy: changed since the folder was opened"):
        labels(first, LatentSpec.of([0]))


# What is refused


@pytest.mark.parametrize(
    ("legend", "word"),
    [
        (None, r"without legend\.json; expected a legend"),
        ({"0": "hair", "1": "hair"}, "'hair' as the name of both 0 and 1; expected names that differ"),
        ({"0": ""}, "'' as the name of 0"),
        ({"0": " hair"}, "' hair' as the name of 0"),
        ({"0": 7}, "7 as the name of 0"),
        ({"0": None}, "no concept"),
        ([], "no concept"),
        ({"one": "hair"}, "the entry 'one'; expected whole numbers as keys"),
        ({"01": "hair", "1": "eyes"}, "the entry '01'"),
        ([f"name {number}" for number in range(100_000)], "100,000 entries; expected at most 4,096"),
        ("hair", "labels is 'hair'"),
        ({"labels": LEGEND, "modle": 1}, "modle"),
        ({"labels": LEGEND, "latents": {"scheme": "sown"}}, "scheme"),
    ],
)
def test_a_legend_that_disagrees_is_refused_in_one_line(tmp_path, legend, word):
    refused(folder_of(tmp_path, legend=legend), word)


def test_more_masks_than_fit_into_memory_are_refused_when_the_folder_is_opened(tmp_path):
    legend = [f"concept {number}" for number in range(4096)]
    folder = folder_of(tmp_path, {"0.png": png(np.zeros((512, 512), np.uint8))}, legend=legend)
    refused(folder, "4,096 concepts on 512 × 512 pixels; expected at most 268,435,456")


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({}, "no label map"),
        ({"1.png": png(some_map(1)), "seed01.png": png(some_map(1))}, "both of seed 1"),
        ({"0.png": png(some_map(0) + 1)}, r"0\.png: the number \d; expected one of 0, 2, 5, which legend\.json"),
        ({"0.npy": npy(some_map(0) - 1)}, "the number -1"),
        ({"0.png": png(np.zeros((8, 8, 3)))}, r"a picture in colour \(RGB\)"),
        ({"0.png": png(some_map(0))[:60]}, "no label map, or a damaged one"),
        ({"0.png": b"GIF89a"}, "no label map, or a damaged one"),
        ({"0.png": b""}, "no label map, or a damaged one"),
        ({"0.npy": npy(np.zeros(9, int))}, r"an array \[9\]; expected whole numbers \[H, W\]"),
        ({"0.npy": npy(np.zeros((8, 8)))}, r"an array of float64 \[8, 8\]"),
        ({"0.npy": npy(np.zeros((2, 0, 8), bool))}, r"an array \[2, 0, 8\]"),
        ({"0.npy": npy(np.zeros((2, 8, 8), bool))}, "2 masks; expected one for each number"),
        ({"0.npy": npy(np.full((3, 8, 8), np.nan))}, "below 0, above 1 or NaN"),
        ({"0.npy": npy(np.full((3, 8, 8), 1e300))}, "below 0, above 1 or NaN"),
        ({"0.npy": npy(np.array([[{"run": "me"}]]), allow_pickle=True)}, "an array of object"),
        ({"0.npz": npz(one=some_map(0), two=some_map(0))}, "the arrays one, two; expected one array"),
        ({"0.npz": npz(some=some_map(0))[:-40]}, "no label map, or a damaged one"),
        ({"0.npz": npz()}, "the arrays none"),
    ],
)  # fmt: skip
def test_a_map_that_is_none_is_refused_in_one_line(tmp_path, files, word):
    refused(folder_of(tmp_path, files), word)


def test_a_map_of_another_size_than_the_others_is_refused_when_it_is_read(tmp_path):
    files = {"0.png": png(some_map(0)), "1.png": png(some_map(1, (8, 8)))}
    maps = open_label_maps(folder_of(tmp_path, files))
    with pytest.raises(FileError, match=r"1\.png: 8 × 8; expected 16 × 16, as 0\.png is"):
        labels(maps, spec(2))


def test_what_a_header_promises_is_not_allocated(tmp_path, monkeypatch):
    promise = npy(np.zeros((1, 1), np.uint8)).replace(
        b"(1, 1), }" + b" " * 20, b"(1000000000, 1000000000), }  "
    )
    assert b"1000000000" in promise
    refused(folder_of(tmp_path, {"0.npy": promise}), "no label map, or a damaged one")
    (tmp_path / "0.npy").unlink()
    monkeypatch.setattr(map_file, "LARGEST_MAP", 1 << 20)
    bomb = npz(labels=np.zeros((1 << 10, 1 << 10), np.int64))
    refused(folder_of(tmp_path, {"0.npz": bomb}), "8,388,736 bytes once unpacked; expected at most 1,048,576")


@pytest.mark.parametrize(
    "content", [png(some_map(0)), npy(some_map(0)), npz(some=some_map(0))], ids=["png", "npy", "npz"]
)
def test_damage_anywhere_is_met_with_one_line_or_not_noticed(content):
    random = np.random.RandomState(0)
    for _ in range(300):
        damaged = bytearray(content)
        for place in random.randint(len(content), size=4):
            damaged[place] = random.randint(256)
        with suppress(FileError):
            decode(bytes(damaged), "a map")


def refused(folder: Path, word: str) -> None:
    with pytest.raises(FileError, match=word) as refusal:
        open_label_maps(folder)
    assert "\n" not in str(refusal.value)
