"""Pictures of one's own in edits: painted on, saved, loaded and replayed as numbered ones are; what is refused."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rewrite_core import EditRequest, Generator, OwnPicture, Rule, layer_statistics, open_generator, rewrite
from rewrite_core.errors import ModelMismatch, RequestError
from rewrite_core.generators.own import LARGEST_NUMBER, LONGEST_NAME, MOST_NUMBERS, key_of, short
from rewrite_core.generators.projection import project
from rewrite_core.rules import request as requests
from rewrite_core.rules.painted import latents_of, painted_keys
from rewrite_core.rules.published import only_context, published_directions, published_second_moment
from rewrite_core.rules.rewrite import check_model, direction_of
from rewrite_core.rules.settings import LatentSettings, ModelRef
from tests.generators import PLAIN, painted, small_generator
from tests.nvidia import random_stylegan2_ada
from tests.test_cli import answer, refused, refused_after_warning

STYLEGAN = Path(__file__).parent / "reference" / "small_stylegan2.pt"


def own(name: str = "mine", seed: int = 0, shape: tuple[int, ...] = (8,), kind: Any = "z") -> OwnPicture:
    """A picture for the small generator, or of another shape and kind."""
    return OwnPicture.of(name, torch.randn(shape, generator=torch.Generator().manual_seed(seed)), kind)


MINE, OTHER = own(), own("other", seed=1)
EDIT = EditRequest(
    object=painted(MINE, 2, 2, 8, 8),
    paste=painted(OTHER, 4, 4, 10, 10),
    key=(painted(OTHER, 4, 4, 10, 10), painted(3, 2, 2, 9, 9), painted(MINE, 3, 3, 9, 9)),
    query=painted(MINE, 0, 0, 4, 4),
    protect=(painted(MINE, 12, 12, 16, 16),),
    layer=PLAIN,
)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return small_generator()


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generator: Generator) -> Path:
    """A folder with the generator and the edit, in which commands are typed."""
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    for name, content in generator.files().items():
        Path("model", name).write_bytes(content)
    model = ModelRef(name=generator.name, fingerprint=open_generator(Path("model")).fingerprint)
    EDIT.model_copy(update={"model": model}).save(Path("edit.json"))
    return tmp_path


def refusal(change: dict[str, Any]) -> str:
    """The one line with which an edit is refused whose first picture is changed."""
    data = EDIT.to_dict()
    data["palimpsest"]["pictures"][0] |= change
    with pytest.raises(RequestError) as caught:
        EditRequest.from_json(json.dumps(data), "edit.json")
    line = str(caught.value)
    assert line.startswith("edit.json: palimpsest.pictures.0: ")
    assert "\n" not in line
    assert len(line) < 300
    return line


def in_base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


# The value


def test_it_is_equal_by_its_content_and_its_latents_are_exact():
    latents = torch.randn(8, generator=torch.Generator().manual_seed(0))
    assert (own(), hash(own()), key_of(own())) == (MINE, hash(MINE), key_of(MINE))
    assert len({MINE, own(), own("renamed"), OTHER}) == 3
    assert torch.equal(MINE.tensor, latents)
    assert (str(MINE), short(own("a long name indeed")), short(7), key_of(7)) == (
        "mine",
        "a long na…",
        "7",
        7,
    )


def test_a_projected_picture_is_drawn_as_it_was_found(generator):
    found = project(generator, np.zeros((16, 16, 3), np.uint8), steps=3)
    np.testing.assert_array_equal(generator.draw(found.named("dark").latents(generator))[0], found.picture)


@pytest.mark.parametrize("space", ["w", "w+", "z"])
def test_every_space_of_a_generator_with_styles_is_kept(space):
    stylegan = open_generator(STYLEGAN)
    found = project(stylegan, np.zeros((16, 16, 3), np.uint8), space=space, steps=2)
    picture = OwnPicture.parse(json.loads(found.named("dark").model_dump_json()), "file")
    np.testing.assert_array_equal(stylegan.draw(picture.latents(stylegan))[0], found.picture)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("", "picture"), (" a\nb\t", "a b"), ("\ud800x", "x"), ("n" * 200, "n" * LONGEST_NAME)],
)
def test_of_a_files_name_what_fits_on_a_line_is_kept(given, kept):
    assert own(given).name == kept


@pytest.mark.parametrize("latents", [torch.zeros(2, 3, 4), torch.tensor(1.0), torch.full((8,), torch.nan)])
def test_latents_that_no_file_could_hold_are_refused_at_once(latents):
    with pytest.raises(RequestError, match=r"^a picture's latents: "):
        OwnPicture.of("mine", latents, "z")


# In a file


def test_a_request_comes_back_exactly():
    assert EDIT.own == (MINE, OTHER)
    assert EditRequest.from_json(EDIT.to_json()) == EDIT
    assert EditRequest.from_json(EDIT.to_json()).to_json() == EDIT.to_json()


def test_the_published_interface_finds_numbers_where_it_expects_them():
    data = EDIT.to_dict()
    numbers = [data["object"][0], data["paste"][0], *(number for number, _ in data["key"]), data["query"][0]]
    assert numbers == [-1, -2, -2, 3, -1, -1]
    assert [picture["name"] for picture in data["palimpsest"]["pictures"]] == ["mine", "other"]


def test_an_edit_without_such_pictures_is_written_as_ever():
    assert "pictures" not in EditRequest(paste=painted(3, 2, 2, 9, 9)).to_dict()["palimpsest"]


def test_pictures_of_one_name_are_told_apart():
    edit = EditRequest(object=painted(MINE, 2, 2, 9, 9), paste=painted(own(seed=1), 2, 2, 9, 9))
    read = EditRequest.from_json(edit.to_json())
    assert [picture.name for picture in read.own] == ["mine", "mine"]
    assert read == edit


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": ""}, "name is ''"),
        ({"name": "a\nb"}, "expected a name of printable characters"),
        ({"name": "n" * 81}, "name is 'nnn"),
        ({"kind": "w+"}, "kind is 'w+'; expected 'w' or 'z'"),
        ({"shape": []}, "shape is []"),
        ({"shape": [8, 1, 1]}, "shape is [8, 1, 1]"),
        ({"shape": [0]}, "shape.0 is 0"),
        ({"shape": [8.5]}, "shape.0 is 8.5"),
        ({"shape": [10**9, 10**9]}, f"expected at most {MOST_NUMBERS:,} numbers"),
        ({"shape": [9]}, "expected 9 float32 numbers in base64"),
        ({"numbers": "?" * 44}, "expected 8 float32 numbers in base64"),
        ({"numbers": "A" * 44}, "expected 8 float32 numbers in base64"),
        ({"numbers": "A" * (10 << 20)}, "expected 8 float32 numbers in base64"),
        ({"numbers": 3}, "numbers is 3"),
        ({"numbers": in_base64(np.full(8, np.nan, "<f4"))}, "expected numbers from -1,000,000 to 1,000,000"),
        ({"numbers": in_base64(np.full(8, -np.inf, "<f4"))}, "expected numbers from"),
        ({"numbers": in_base64(np.full(8, 3e38, "<f4"))}, "expected numbers from"),
        ({"path": "/etc/passwd"}, "path is '/etc/passwd'; expected no field of that name"),
    ],
)
def test_a_hostile_picture_is_refused_in_one_line(change, reason):
    assert reason in refusal(change)


@pytest.mark.parametrize(
    ("pictures", "reason"),
    [
        ({}, "palimpsest.pictures is {}; expected a list of at most 1024 pictures"),
        ([3], "palimpsest.pictures.0: the top level is 3"),
        ([{}] * 1025, "expected a list of at most 1024 pictures"),
        ([], "paste.0 is -2; expected a picture number from 0 to"),
        (EDIT.to_dict()["palimpsest"]["pictures"][:1], "paste.0 is -2; expected a picture number from -1 to"),
    ],
)
def test_pictures_that_are_missing_or_no_list_are_refused(pictures, reason):
    data = EDIT.to_dict()
    data["palimpsest"]["pictures"] = pictures
    with pytest.raises(RequestError) as caught:
        EditRequest.from_json(json.dumps(data), "edit.json")
    assert reason in str(caught.value)


def test_a_published_file_knows_no_such_pictures():
    data = EDIT.to_dict()
    del data["palimpsest"]
    with pytest.raises(RequestError, match=r"paste\.0 is -2; expected a picture number from 0 to 131071"):
        EditRequest.from_json(data)


def test_as_many_pictures_as_a_file_may_hold_are_read(monkeypatch):
    monkeypatch.setattr(requests, "MOST_OWN", 2)
    assert EditRequest.from_json(EDIT.to_json()) == EDIT
    more = EDIT.model_copy(update={"query": painted(own(seed=2), 0, 0, 4, 4)})
    with pytest.raises(RequestError, match="a list of at most 2 pictures"):
        EditRequest.from_json(more.to_json())


# What the layer sees


@pytest.mark.parametrize("latents", [LatentSettings(), LatentSettings(truncation=0.3)])
def test_keys_are_those_of_each_picture_and_truncation_is_of_the_numbered_alone(generator, latents):
    edit = EDIT.model_copy(update={"latents": latents})
    keys, areas = painted_keys(generator, PLAIN, edit, edit.key)
    alone = [generator.keys(latents_of(generator, edit, part.image), PLAIN).keys for part in edit.key]
    torch.testing.assert_close(keys, torch.cat(alone))
    assert areas.shape == (3, 8, 8)
    torch.testing.assert_close(keys[0], generator.keys(OTHER.latents(generator), PLAIN).keys[0])
    other = generator.keys(generator.latents(latents.spec([3])), PLAIN).keys[0]
    torch.testing.assert_close(keys[1], other)


def test_the_class_of_the_numbered_pictures_leaves_it_alone():
    conditional = random_stylegan2_ada(classes=3)
    mine = own(shape=(conditional.styles, conditional.style_dim), kind="w")
    pictures = [
        conditional.pictures(latents_of(conditional, EditRequest(latents=LatentSettings(label=label)), mine))
        for label in (None, 1, 2)
    ]
    assert torch.equal(pictures[0], pictures[1])
    assert torch.equal(pictures[0], pictures[2])


def test_the_published_algorithm_sees_it_too(generator):
    moment = published_second_moment(generator, PLAIN, pictures=20)
    other, mine = (
        published_directions(generator, PLAIN, only_context(EDIT, index), moment) for index in (0, 2)
    )
    assert other.isfinite().all()
    assert not torch.allclose(other, mine)


# Making the edit


def test_an_edit_is_made_and_the_rule_file_holds_all_that_it_takes_to_make_it_again(generator, tmp_path):
    edit = rewrite(generator, EDIT, name="mine")
    assert edit.solved.loss < edit.solved.loss_before
    before, after = (view.draw(MINE.latents(view)) for view in (generator, generator.with_rules(edit.rule)))
    assert (before != after).any()
    edit.rule.save(tmp_path / "mine.safetensors")
    kept = EditRequest.from_json(Rule.load(tmp_path / "mine.safetensors").provenance.request or {})
    assert kept.own == (MINE, OTHER)
    again = rewrite(generator, kept, name="mine")
    assert again.rule.digest == edit.rule.digest
    assert json.dumps(dict(edit.direction.provenance))  # plain JSON, as ever


def test_another_picture_is_another_edit(generator):
    context = direction_of(generator, EDIT, layer_statistics(generator, PLAIN))
    changed = EDIT.model_copy(update={"key": (replace(EDIT.key[0], image=own(seed=5)), *EDIT.key[1:])})
    other = direction_of(generator, changed, layer_statistics(generator, PLAIN))
    assert not torch.allclose(context.vectors, other.vectors)


def test_an_erasure_needs_no_numbered_picture(generator):
    edit = EditRequest(operation="erase", key=(painted(MINE, 2, 2, 9, 9),), layer=PLAIN)
    assert rewrite(generator, edit).rule.delta.isfinite().all()


@pytest.mark.parametrize("size", [1.0, LARGEST_NUMBER])
def test_the_largest_numbers_that_are_read_make_no_nan(size):
    stylegan = open_generator(STYLEGAN)
    mine = OwnPicture.of("mine", size * torch.ones(stylegan.style_dim), "w")
    edit = EditRequest(object=painted(mine, 2, 2, 9, 9), paste=painted(3, 2, 2, 9, 9))
    rule = rewrite(stylegan, edit.model_copy(update={"key": (painted(mine, 2, 2, 9, 9),)})).rule
    assert rule.delta.isfinite().all()


def test_a_picture_of_a_generator_of_another_shape_is_refused(generator):
    edit = EDIT.model_copy(update={"object": painted(own("strange", shape=(9,)), 2, 2, 9, 9)})
    for make in (check_model, lambda edit, generator: rewrite(generator, edit)):
        with pytest.raises(
            RequestError, match=r"^picture 'strange' of latents z \[1, 9\]; expected \[N, 8\]"
        ):
            make(edit, generator)
    with pytest.raises(RequestError, match=r"^picture 'mine' of latents w \[1, 8\]; expected latents z"):
        own(kind="w").latents(generator)


def test_an_edit_for_another_generator_is_refused(generator):
    edit = EDIT.model_copy(update={"model": ModelRef(name="other", fingerprint="f" * 64)})
    with pytest.raises(ModelMismatch, match="an edit made for other"):
        rewrite(generator, edit)


# From the command line


def test_the_command_line_makes_the_rule_that_python_makes(saved):
    told = answer("edit", "edit.json", "--model", "model", "--rule", "mine.safetensors")
    assert told["loss"] < told["loss_before"]
    rule = Rule.load(Path("mine.safetensors"))
    assert (
        rule.digest == rewrite(open_generator(Path("model")), EditRequest.load(Path("edit.json"))).rule.digest
    )
    assert EditRequest.from_json(rule.provenance.request or {}).own == (MINE, OTHER)
    answer("apply", "mine.safetensors", "--model", "model", "--seeds", "0-1", "--pairs", "--out", "pairs/")
    before, after = (Image.open(f"pairs/{word}/seed0000001.png") for word in ("before", "after"))
    assert before.tobytes() != after.tobytes()


def test_the_context_is_searched_from_the_command_line(saved):
    told = answer("search", "edit.json", "--model", "model", "--seeds", "0-19", "--top", 3)
    assert len(told["matches"]) == 3


def test_the_command_line_refuses_another_generator(saved):
    assert "an edit made for" in refused("edit", "edit.json", "--model", "face32-dcgan")
    forced = refused_after_warning(
        "edit", "edit.json", "--model", "face32-dcgan", "--layer", "l05", "--force"
    )
    assert "picture 'mine' of latents z [1, 8]; expected" in forced
