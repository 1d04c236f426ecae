"""Edit requests: the published files, our superset of them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from rewrite_core.directions import ContextSettings
from rewrite_core.errors import FileError, LayerError, MaskError, RequestError
from rewrite_core.generators.latents import LAST_ROW
from rewrite_core.pictures import Mask
from rewrite_core.rules import regions
from rewrite_core.rules.request import EditRequest, Painted
from rewrite_core.rules.settings import LatentSettings, ModelRef, SolverSettings

REFERENCE = Path(__file__).parent / "reference"
PUBLISHED: dict[str, Any] = json.loads((REFERENCE / "request.json").read_text())
URLS: dict[str, str] = json.loads((REFERENCE / "masks.json").read_text())

EYES = Mask.rectangle((64, 64), 20, 10, 30, 50)
CHEEK = Mask.rectangle((1024, 1024), 500, 300, 600, 500)
URL = EYES.to_data_url()
EMPTY = Mask.from_array(np.zeros((64, 64), dtype=bool))
COMPLETE = EditRequest(
    object=Painted(3, CHEEK),
    paste=Painted(7, EYES),
    key=(Painted(7, EYES), Painted(2, EYES)),
    layer="l05",
)
FULL = EditRequest(
    object=Painted(2**32 - 1, CHEEK),
    paste=Painted(0, EYES),
    key=(Painted(7, EYES), Painted(2, CHEEK), Painted(7, CHEEK)),
    query=Painted(9, EYES),
    protect=(Painted(5, CHEEK), Painted(6, EYES)),
    model=ModelRef(name="anime64-dcgan “α”", fingerprint="ab" * 32),
    latents=LatentSettings(scheme="seed", truncation=0.7),
    layer="l08",
    rank=3,
    operation="erase",
    erase_units=12,
    direction=ContextSettings(method="svd", ridge=0.1 + 0.2, contrast=1e-7, protect=10),
    solver=SolverSettings(locality=1 / 3, iterations=200),
)


def refusal(source, error: type[Exception] = RequestError) -> str:
    """The one line with which a request is refused."""
    with pytest.raises(error) as caught:
        EditRequest.from_json(source, "edit.json")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("edit.json")
    assert len(line) < 300
    return line


def ours(**changes) -> dict[str, Any]:
    """A complete request of ours with some of its own settings changed."""
    data = COMPLETE.to_dict()
    return {**data, "palimpsest": {**data["palimpsest"], **changes}}


# Published files


def test_a_published_request_is_read_as_it_was_meant():
    edit = EditRequest.load(REFERENCE / "request.json")
    assert edit.object == Painted(3, Mask.from_data_url(URLS["obj"]))
    assert edit.paste == Painted(7, Mask.from_data_url(URLS["paste"]))
    assert [painted.image for painted in edit.key] == [7, 2, 5]
    assert [painted.mask for painted in edit.key] == [Mask.from_data_url(URLS[f"ctx{i}"]) for i in (1, 2, 3)]
    assert edit.query is None
    assert edit.latents == LatentSettings(scheme="rows", truncation=1.0)
    assert edit.model is None
    assert edit.layer is None
    edit.require_complete()


def test_a_published_request_is_written_for_its_own_interface_too():
    written = json.loads(EditRequest.from_json(PUBLISHED).to_json())
    assert written.pop("palimpsest")["latents"]["scheme"] == "rows"
    assert written.keys() == PUBLISHED.keys()
    assert written["object"][0] == 3
    assert [number for number, _ in written["key"]] == [7, 2, 5]
    for (_, url), (_, published) in zip(written["key"], PUBLISHED["key"], strict=True):
        assert Mask.from_data_url(url) == Mask.from_data_url(published)


def test_the_text_has_the_published_layout():
    published = json.dumps({"object": COMPLETE.to_dict()["object"]}, indent=1)
    assert COMPLETE.to_json().startswith(published.removesuffix("\n}") + ",\n")


NULL = dict.fromkeys(("object", "paste", "key", "query", "palimpsest"))


@pytest.mark.parametrize("others", [{}, NULL])
def test_keys_may_be_missing_or_null(others):
    edit = EditRequest.from_json({**others, "object": [3, URL]})
    assert edit == EditRequest(object=Painted(3, EYES), latents=LatentSettings(scheme="rows"))


@pytest.mark.parametrize("nothing", [{}, NULL])
def test_a_file_that_says_nothing_is_no_edit(nothing):
    line = refusal(nothing)
    assert "expected at least one of object, paste, key, query, palimpsest. Check that it is an edit." in line


@pytest.mark.parametrize("settings", [{}, {"palimpsest": {"version": 1, "latents": {"scheme": "rows"}}}])
def test_a_picture_number_beyond_the_last_row_is_refused(settings):
    edit = EditRequest.from_json({**settings, "key": [[LAST_ROW, URL]]})
    assert edit.key == (Painted(LAST_ROW, EYES),)
    line = refusal({**settings, "key": [[7, URL], [LAST_ROW + 1, URL]]})
    assert "key.1.0 is 131072; expected a picture number from 0 to 131071" in line


def test_a_published_file_without_context_means_the_pasted_region():
    without = {name: value for name, value in PUBLISHED.items() if name != "key"}
    edit = EditRequest.from_json(without)
    assert edit.key == (edit.paste,)


def test_a_file_of_ours_without_context_has_none():
    data = COMPLETE.to_dict()
    del data["key"]
    assert EditRequest.from_json(data).key == ()


def test_a_published_query_is_kept():
    data = {**PUBLISHED, "query": [908, URLS["soft"]]}
    edit = EditRequest.from_json(data)
    assert edit.query == Painted(908, Mask.from_data_url(URLS["soft"]))
    assert EditRequest.from_json(edit.to_json()) == edit


@pytest.mark.parametrize("size", [(32, 32), (256, 256), (1024, 1024), (100, 60)])
def test_masks_may_have_any_size(size):
    mask = Mask.rectangle(size, 2, 3, 20, 30)
    assert EditRequest.from_json({"paste": [1, mask.to_data_url()]}).painted("paste").mask == mask


def test_another_kind_of_file_of_that_interface_is_refused_by_its_key():
    assert "the key '14'; expected only object, paste, key, query, palimpsest" in refusal(
        {"14": {"value": "-5.0"}}
    )


# Round trips


@pytest.mark.parametrize("edit", [EditRequest(), COMPLETE, FULL], ids=["empty", "complete", "full"])
def test_a_request_comes_back_exactly(edit, tmp_path):
    assert EditRequest.from_json(edit.to_json()) == edit
    assert EditRequest.from_json(edit.to_dict()) == edit
    assert EditRequest.from_json(edit.to_json()).to_json() == edit.to_json()
    edit.save(tmp_path / "edit.json")
    assert EditRequest.load(tmp_path / "edit.json") == edit
    assert EditRequest.load((tmp_path / "edit.json").read_bytes()) == edit


def test_equal_requests_are_interchangeable_as_keys():
    assert len({COMPLETE, EditRequest.from_json(COMPLETE.to_json()), FULL}) == 2


def test_a_request_is_frozen_and_copied_with_changes():
    with pytest.raises(ValidationError):
        COMPLETE.rank = 2
    changed = COMPLETE.model_copy(update={"rank": 2})
    assert (changed.rank, COMPLETE.rank) == (2, 1)
    assert changed.key == COMPLETE.key


def test_settings_that_a_file_of_ours_leaves_out_have_their_defaults():
    assert EditRequest.from_json({"palimpsest": {"version": 1}}) == EditRequest()
    assert EditRequest().latents.scheme == "seed"


# What is refused on reading


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"object": {"image": 3}}, "object is {'image': 3}; expected [picture number, PNG data URL]"),
        ({"object": [3]}, "object is [3]"),
        ({"object": "3"}, "object is '3'"),
        ({"paste": [3, URL, 1]}, "paste is [3, "),
        ({"paste": [3, None]}, "paste is [3, None]"),
        ({"paste": ["3", URL]}, "paste.0 is '3'; expected a picture number from 0 to 131071"),
        ({"paste": [-1, URL]}, "paste.0 is -1"),
        ({"paste": [2**32, URL]}, "paste.0 is 4294967296"),
        ({"paste": [10**3000, URL]}, "paste.0 is 1000"),
        ({"paste": [True, URL]}, "paste.0 is True"),
        ({"paste": [3.0, URL]}, "paste.0 is 3.0"),
        ({"key": {"7": URL}}, "key is {'7': "),
        ({"key": [7, URL]}, "key.0 is 7"),
        ({"key": [[7, URL], [-2, URL]]}, "key.1.0 is -2"),
        ({"query": 7}, "query is 7"),
        ({"palimpsest": []}, "palimpsest is []"),
        ({"palimpsest": {}}, "palimpsest.version is None"),
        ({"palimpsest": {"version": "1"}}, "palimpsest.version is '1'"),
        ({"palimpsest": {"version": True}}, "palimpsest.version is True"),
        ({"palimpsest": {"version": 0}}, "palimpsest.version is 0"),
        (ours(rank="1"), "rank is '1'"),
        (ours(rank=0), "rank is 0"),
        (ours(rank=True), "rank is True"),
        (ours(rank=2**60), "rank is 1152921504606846976; expected less than or equal to 4096"),
        (ours(erase_units=65_537), "erase_units is 65537; expected less than or equal to 65536"),
        (
            ours(protect=[[2**32, URL]]),
            "protect.0.0 is 4294967296; expected a picture number from 0 to 4294967295",
        ),
        (ours(layer=5), "layer is 5"),
        (ours(operation="cut"), "operation is 'cut'"),
        (ours(erase_units=0), "erase_units is 0"),
        (ours(truncated=0.5), "truncated is 0.5"),
        (ours(latents={"scheme": "seed", "truncation": "0.5"}), "latents.truncation is '0.5'"),
        (ours(latents={"truncation": -0.5}), "latents.truncation is -0.5"),
        (ours(latents={"scheme": "columns"}), "latents.scheme is 'columns'"),
        (ours(solver={"locality": -1}), "solver.locality is -1"),
        (ours(solver={"iterations": 10_001}), "solver.iterations is 10001"),
        (ours(direction={"method": "pca"}), "direction.method is 'pca'"),
        (ours(model={"name": "x"}), "model.fingerprint is"),
        (ours(protect=[[5, 5]]), "palimpsest.protect.0 is [5, 5]"),
        (ours(protect={}), "palimpsest.protect is {}"),
        ([1, 2], "edit.json is [1, 2]; expected an object"),
        ("edit", "edit.json is 'edit'"),
        (None, "edit.json is None"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(data, reason):
    assert reason in refusal(json.dumps(data))


def test_a_newer_version_is_refused_politely():
    line = refusal(ours(version=2, brush="soft"))
    assert "version 2 of the format; expected version 1 or older. Update Palimpsest to open it." in line


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mask.png", "begins with 'mask.png'"),
        ("data:image/png;base64,AAAA", "cannot be decoded"),
        (URL[:-80], "cannot be decoded"),
    ],
)
def test_a_mask_that_cannot_be_read_is_named(url, reason):
    line = refusal({"key": [[7, URL], [2, url]]}, MaskError)
    assert line.startswith("edit.json: key.1.1: a mask ")
    assert reason in line


def test_many_small_masks_that_decode_to_a_lot_are_refused(monkeypatch):
    monkeypatch.setattr(regions, "TOTAL_PIXELS", 3 * 64 * 64)
    entries = [[image, URL] for image in range(3)]
    assert len(EditRequest.from_json({"key": entries}).key) == 3
    assert "query: more than 12,288 pixels" in refusal({"key": entries, "query": [9, URL]}, MaskError)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not JSON", "cannot be read as JSON"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"object": null, "object": null}', "the key 'object' appears twice"),
        ('{"palimpsest": {"version": 1, "rank": NaN}}', "NaN is not a JSON number"),
        (" " * 100_000_000, "100,000,000 bytes large"),
        (b"\x80\x04N.", "is not text in UTF-8"),
    ],
)
def test_what_is_not_json_is_refused(text, reason):
    assert reason in refusal(text, FileError)


def test_a_file_names_itself_in_errors(tmp_path):
    (tmp_path / "hat.json").write_text('{"key": 3}')
    with pytest.raises(RequestError, match=r"^hat\.json: key is 3"):
        EditRequest.load(tmp_path / "hat.json")
    with pytest.raises(FileError, match="there is no such file"):
        EditRequest.load(tmp_path / "missing.json")


# What is refused before solving


@pytest.mark.parametrize(
    ("without", "reason"),
    [
        ({"key": ()}, "no key in the edit; expected a context. Paint a context."),
        ({"object": None}, "no object in the edit; expected a region to copy. Paint a region to copy."),
        ({"paste": None}, "no paste in the edit; expected a region to paste into."),
    ],
)
def test_what_is_not_painted_is_asked_for(without, reason):
    with pytest.raises(RequestError) as caught:
        COMPLETE.model_copy(update=without).require_complete()
    assert reason in str(caught.value)


def test_an_erasure_needs_only_a_context():
    erasure = EditRequest(operation="erase", key=COMPLETE.key)
    erasure.require_complete()
    with pytest.raises(RequestError, match="no key in the edit"):
        erasure.model_copy(update={"key": ()}).require_complete()


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"object": Painted(3, EMPTY)}, r"object \(picture 3\)"),
        ({"paste": Painted(7, EMPTY)}, r"paste \(picture 7\)"),
        ({"key": (Painted(7, EYES), Painted(2, EMPTY))}, r"key \(picture 2\)"),
        ({"protect": (Painted(4, EMPTY),)}, r"protect \(picture 4\)"),
    ],
)
def test_a_mask_of_zero_area_is_refused(changes, where):
    with pytest.raises(MaskError, match=f"an empty mask in {where}; expected a painted region"):
        COMPLETE.model_copy(update=changes).require_complete()


def test_a_painted_region_is_found_by_its_name():
    assert COMPLETE.painted("object") is COMPLETE.object
    assert COMPLETE.painted("key") is COMPLETE.key[0]
    with pytest.raises(RequestError, match="no paste in the edit"):
        EditRequest().painted("paste")


def test_a_layer_that_the_generator_lacks_is_refused_with_those_it_has():
    COMPLETE.check(["l02", "l05"])
    with pytest.raises(LayerError, match=r"layer 'l05' in the edit; expected one of l02, l08\."):
        COMPLETE.check(["l02", "l08"])
    with pytest.raises(LayerError, match="no layer in the edit; expected one of l02"):
        COMPLETE.model_copy(update={"layer": None}).check(["l02"])
    with pytest.raises(RequestError, match="no key"):
        COMPLETE.model_copy(update={"key": ()}).check(["l05"])
