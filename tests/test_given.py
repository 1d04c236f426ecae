"""Directions given to an edit in place of a context: kept exactly, refused where they do not fit, rewritten with."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from streamlit.testing.v1 import AppTest

from dashboard.cli import main
from dashboard.session import Session
from rewrite_core import Rule
from rewrite_core.directions import Direction, unit_direction
from rewrite_core.directions.direction_file import LARGEST_FILE
from rewrite_core.errors import LayerError, ModelMismatch, RequestError
from rewrite_core.generators import Generator, open_generator
from rewrite_core.rules.request import EditRequest
from rewrite_core.rules.rewrite import check_model, completed, direction_of, rewrite
from rewrite_core.statistics import LayerStatistics, layer_statistics
from tests.generators import DOWN, PLAIN, blue_eyes, painted, small_generator

PASTE = EditRequest(object=painted(1, 2, 2, 9, 9), paste=painted(2, 4, 4, 12, 12), layer=PLAIN)


@pytest.fixture(scope="module")
def anime() -> Generator:
    return open_generator("anime64-dcgan")


@pytest.fixture(scope="module")
def statistics(anime: Generator) -> LayerStatistics:
    return layer_statistics(anime, "l08")


@pytest.fixture(scope="module")
def eyes(anime: Generator, statistics: LayerStatistics) -> Direction:
    """Three directions of the painted eyes."""
    return direction_of(anime, blue_eyes().model_copy(update={"rank": 3}), statistics).renamed("eyes")


def small_unit(layer: str = PLAIN) -> Direction:
    return unit_direction(small_generator(), layer, 3)


def with_given(request: EditRequest, direction: Direction | None, **changes: Any) -> EditRequest:
    return request.model_copy(update={"given": direction, **changes})


# In the file


def test_given_directions_are_kept_to_the_last_bit(eyes: Direction):
    request = with_given(blue_eyes(), eyes)
    for again in (EditRequest.from_json(request.to_json()), EditRequest.from_json(request.to_dict())):
        assert again == request
        assert again.given is not None
        assert again.given.vectors.numpy().tobytes() == eyes.vectors.numpy().tobytes()
        assert again.to_json() == request.to_json()


def test_the_published_interface_still_reads_the_file(eyes: Direction):
    data = with_given(blue_eyes(), eyes).to_dict()
    assert data.keys() == {"object", "paste", "key", "palimpsest"}
    assert with_given(blue_eyes(), None).to_dict()["palimpsest"].keys() == data["palimpsest"].keys() - {
        "given"
    }


def test_requests_are_equal_by_the_content_of_what_is_given(eyes: Direction):
    request, same = with_given(blue_eyes(), eyes), with_given(blue_eyes(), Direction.load(eyes.to_bytes()))
    assert request == same
    assert request.model_copy(update={"rank": 1}) == same
    assert request != with_given(blue_eyes(), eyes.head(2))
    assert request != with_given(blue_eyes(), eyes.renamed("mouths"))
    assert request != blue_eyes()
    assert blue_eyes() != request


def test_null_gives_nothing():
    data = PASTE.to_dict()
    data["palimpsest"]["given"] = None
    assert EditRequest.from_json(data) == PASTE


WHOLE = small_unit().to_bytes()
WRONG: dict[str, tuple[Any, str]] = {
    "a number": (3, "edit.json: palimpsest.given is 3; expected a direction's file in base64"),
    "a list": ([1], "palimpsest.given is [1]"),
    "no base64": ("ä" * 8, "palimpsest.given is 'ä"),
    "half of it": (
        base64.b64encode(WHOLE[: len(WHOLE) // 2]).decode(),
        "palimpsest.given is a damaged or foreign",
    ),
    "another file": (base64.b64encode(b"\x80\x04.").decode(), "palimpsest.given is a Python pickle"),
    "nothing": ("", "palimpsest.given is a damaged or foreign file"),
    "too much": ("A" * (2 * LARGEST_FILE), "palimpsest.given is 'AAA"),
}


@pytest.mark.parametrize("which", WRONG)
def test_what_is_no_direction_is_refused_in_one_line(which: str):
    text, message = WRONG[which]
    data = PASTE.to_dict()
    data["palimpsest"]["given"] = text
    with pytest.raises(RequestError) as caught:
        EditRequest.from_json(data, "edit.json")
    line = str(caught.value)
    assert message in line
    assert "\n" not in line
    assert len(line) < 300


# What it stands in for, and what it must fit


def test_a_paste_with_given_directions_needs_no_context_and_an_erasure_does():
    small = small_generator()
    with pytest.raises(RequestError, match="no key in the edit"):
        PASTE.require_complete()
    given = with_given(PASTE, small_unit())
    given.require_complete()
    assert completed(given, small).layer == PLAIN
    for missing in ("object", "paste"):
        with pytest.raises(RequestError, match=f"no {missing} in the edit"):
            given.model_copy(update={missing: None}).require_complete()
    with pytest.raises(RequestError, match="no key in the edit"):
        given.model_copy(update={"operation": "erase"}).require_complete()


def test_without_a_layer_it_is_that_of_the_directions():
    small = small_generator()
    assert completed(with_given(PASTE, small_unit(DOWN), layer=None), small).layer == DOWN


def test_directions_of_another_layer_are_refused():
    small = small_generator()
    line = "layer 'plain' in the edit, and directions of 'down' given to it; expected one layer"
    request = with_given(PASTE, small_unit(DOWN))
    for work in (
        lambda: completed(request, small),
        lambda: rewrite(small, request),
        lambda: request.given_at(PLAIN),
    ):
        with pytest.raises(LayerError, match=line):
            work()


def test_a_rank_that_is_not_given_is_refused():
    small = small_generator()
    request = with_given(PASTE, small_unit(), rank=2)
    with pytest.raises(RequestError, match="rank 2 of the direction 'unit 3'; expected 1 to 1"):
        completed(request, small)


def test_directions_of_another_generator_or_width_are_refused():
    small, other = small_generator(), small_generator(1)
    with pytest.raises(
        ModelMismatch, match=r"direction 'unit 3' made for small \(.*\); expected one for small"
    ):
        check_model(with_given(PASTE, small_unit()), other)
    narrow = replace(small_unit(DOWN), layer=PLAIN)
    with pytest.raises(LayerError, match="of 9 units; expected 10"):
        check_model(with_given(PASTE, narrow), small)
    with pytest.raises(ModelMismatch):
        direction_of(other, with_given(PASTE, small_unit()), layer_statistics(other, PLAIN))


# Rewriting with it


def test_what_the_context_gives_can_be_given_in_its_place(
    anime: Generator, statistics: LayerStatistics, eyes: Direction
):
    for rank in (1, 3):
        painted_context = blue_eyes().model_copy(update={"rank": rank})
        expected = rewrite(anime, painted_context, statistics=statistics)
        found = rewrite(anime, with_given(painted_context, eyes, key=()), statistics=statistics)
        assert found.rule.digest == expected.rule.digest
        assert found.direction == eyes.head(rank)


def test_a_rule_file_holds_the_directions_that_it_was_made_with(
    anime: Generator, statistics: LayerStatistics, eyes: Direction
):
    edit = rewrite(anime, with_given(blue_eyes(), eyes, key=(), rank=2), statistics=statistics)
    rule = Rule.load(edit.rule.to_bytes())
    request = EditRequest.from_json(rule.provenance.request or {})
    assert request.given == eyes
    assert (
        rewrite(anime, request, statistics=statistics).rule.to_bytes()[-4096:] == edit.rule.to_bytes()[-4096:]
    )
    assert rewrite(anime, request, statistics=statistics).rule.digest == rule.digest


def test_a_unit_and_the_direction_of_a_rule_can_be_rewritten_with(
    anime: Generator, statistics: LayerStatistics
):
    first = rewrite(anime, blue_eyes(), statistics=statistics)
    again = rewrite(anime, with_given(blue_eyes(), first.rule.direction(), key=()), statistics=statistics)
    torch.testing.assert_close(again.rule.delta, first.rule.delta, rtol=0, atol=1e-3)
    loud = unit_direction(anime, "l08", int(first.direction.vectors[0].abs().argmax()))
    found = rewrite(anime, with_given(blue_eyes(), loud, key=()), statistics=statistics)
    assert found.solved.loss < found.solved.loss_before
    assert found.rule.directions.tolist() == loud.vectors.tolist()


def test_an_erasure_silences_the_units_of_the_context_where_the_directions_match(
    anime: Generator, statistics: LayerStatistics, eyes: Direction
):
    request = blue_eyes().model_copy(update={"operation": "erase", "object": None, "paste": None})
    found = rewrite(anime, with_given(request, eyes), statistics=statistics)
    assert found.rule.digest == rewrite(anime, request, statistics=statistics).rule.digest


def test_the_provenance_of_a_context_is_enough_to_find_it_again(
    anime: Generator, statistics: LayerStatistics, eyes: Direction
):
    told = json.loads(json.dumps(dict(eyes.provenance)))
    request = EditRequest.from_json(told["request"])
    assert (request.key, request.object, request.paste) == (blue_eyes().key, None, None)
    elsewhere = direction_of(anime, blue_eyes().model_copy(update={"layer": None}), statistics)
    assert elsewhere.provenance["request"]["palimpsest"]["layer"] == "l08"
    assert told["made_with"].keys() == {"palimpsest", "torch"}
    again = direction_of(anime, request, statistics)
    assert again.digest == eyes.digest
    assert (again.model, again.fingerprint) == (anime.name, anime.fingerprint)


# On the command line


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eyes: Direction) -> Path:
    monkeypatch.chdir(tmp_path)
    eyes.save(tmp_path / "eyes.safetensors")
    with_given(blue_eyes(), None, key=()).save(tmp_path / "edit.json")
    return tmp_path


def palimpsest(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="palimpsest")


def test_edit_takes_directions_from_a_file(workplace: Path, eyes: Direction):
    refused = palimpsest("edit", "edit.json")
    assert "no key in the edit" in refused.stderr
    said = palimpsest(
        "edit",
        "edit.json",
        "--direction",
        "eyes.safetensors",
        "--rank",
        2,
        "--rule",
        "r.safetensors",
        "--json",
    )
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["rank"] == 2
    rule = Rule.load(workplace / "r.safetensors")
    assert torch.equal(rule.directions, eyes.vectors[:2].float())
    assert EditRequest.from_json(rule.provenance.request or {}).given == eyes


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rank", 4], "rank 4 of the direction 'eyes'; expected 1 to 3"),
        (["--layer", "l05"], "layer 'l05' in the edit, and directions of 'l08'"),
        (["--model", "face32-dcgan"], "direction 'eyes' made for anime64-dcgan"),
        (["--direction", "edit.json"], "edit.json"),
        (["--direction", "nowhere.safetensors"], "nowhere.safetensors cannot be read"),
    ],
)
def test_edit_refuses_directions_that_do_not_fit_in_one_line(
    workplace: Path, more: list[object], message: str
):
    refused = palimpsest("edit", "edit.json", "--direction", "eyes.safetensors", *more)
    assert refused.exit_code == 1
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_edit_takes_directions_made_for_another_generator_if_it_is_told_to(workplace: Path):
    small = small_generator()
    (workplace / "other").mkdir()
    for name, content in small_generator(1).files().items():
        (workplace / "other" / name).write_bytes(content)
    unit_direction(small, PLAIN, 3).save(workplace / "unit.safetensors")
    PASTE.save(workplace / "small.json")
    asked = ("edit", "small.json", "--model", "other", "--direction", "unit.safetensors")
    assert "made for small" in palimpsest(*asked).stderr
    forced = palimpsest(*asked, "--force", "--rule", "r.safetensors")
    assert forced.exit_code == 0, forced.output
    assert "warning" in forced.stderr
    request = EditRequest.from_json(Rule.load(workplace / "r.safetensors").provenance.request or {})
    assert request.given is not None
    request.given.check(small_generator(1))


# On the page


def test_the_page_offers_every_method_and_says_which_does_not_whiten():
    session = Session(small_generator(), PLAIN)
    app = AppTest.from_file(str(Path(__file__).parents[1] / "pages" / "rewriting.py"), default_timeout=60)
    app.session_state["palimpsest"] = session
    (choice,) = [box for box in app.run().selectbox if box.label == "Direction"]
    assert choice.options == ["zca", "svd", "mean", "gandissect", "plain (mean key, not whitened)"]
    choice.select("plain").run()
    assert not app.exception
    assert session.draft.direction.method == "plain"
