"""Class and truncation cutoff: from a command line, an edit or a page to what is drawn and into each record of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.saving import command
from dashboard.session import Session
from dashboard.verified import with_other_noise
from rewrite_core import EditRequest, open_generator
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec
from rewrite_core.generators.bulk_manifest import Manifest
from rewrite_core.generators.projection import project
from rewrite_core.pictures import Mask
from rewrite_core.rules.painted import latents_of
from rewrite_core.rules.request import Painted
from rewrite_core.rules.settings import LatentSettings
from rewrite_core.rules.stack import RuleStack
from rewrite_core.statistics import SecondMoment, key_of
from rewrite_core.statistics.key import name_of
from tests.generators import small_generator, some_rule
from tests.nvidia import pickled, random_stylegan2_ada
from tests.test_cli import answer, refused

ASKED = LatentSpec((0, 1, 2), truncation=0.5, cutoff=2, label=1)
OPTIONS = ("--seeds", "0-2", "--truncation", 0.5, "--cutoff", 2, "--class", 1)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A conditional network pickle; every command runs in its folder, which has the cache, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "network.pkl"
    path.write_bytes(pickled(random_stylegan2_ada(classes=3)))
    return path


def request(generator: Generator, latents: LatentSettings) -> EditRequest:
    """A context painted on the first picture."""
    mask = np.zeros((generator.resolution, generator.resolution), np.uint8)
    mask[2:6, 2:6] = 255
    return EditRequest(key=(Painted(0, Mask(mask)),), latents=latents)


def test_a_folder_holds_the_class_and_says_so_and_verifies_itself(model):
    said = answer("sample", model, "--out", "pictures/", *OPTIONS)
    assert (said["cutoff"], said["class"]) == (2, 1)
    drawn = np.stack([np.asarray(Image.open(f"pictures/seed000000{seed}.png")) for seed in range(3)])
    np.testing.assert_array_equal(drawn, open_generator(model).draw(ASKED))
    assert Manifest.load(Path("pictures")).spec == ASKED
    assert "label 1" in refused("sample", model, "--out", "pictures/", *OPTIONS[:-1], 2)
    assert answer("verify", model, "--against", "pictures/")["agreement"]["verdict"] == "same"
    np.savez("golden.npz", pictures=open_generator(model).sample(ASKED).numpy())
    verified = answer("verify", model, "--against", "golden.npz", *OPTIONS[2:])
    assert verified["agreement"]["verdict"] == "same"


def test_a_folder_from_before_there_were_classes_goes_on(model):
    answer("sample", "face32-dcgan", "--out", "pictures/", "--seeds", "0-2")
    manifest = Path("pictures/sample.json")
    old = {
        name: value
        for name, value in json.loads(manifest.read_text()).items()
        if name not in ("cutoff", "label")
    }
    manifest.write_text(json.dumps(old))
    assert answer("sample", "face32-dcgan", "--out", "pictures/", "--seeds", "0-2")["found"] == 3


def test_a_class_that_a_model_does_not_know_is_refused_in_one_line(model):
    assert "class 9" in refused("sample", model, "--class", 9, "--out", "a.png")
    assert "no class, since face32-dcgan knows none" in refused(
        "sample", "face32-dcgan", "--class", 0, "--out", "a.png"
    )


def test_statistics_of_a_class_are_stored_as_such(model):
    one, other = (
        answer("stats", "compute", model, "--seeds", "0-9", "--class", label)["statistics"][0]
        for label in (0, 1)
    )
    assert one["name"] != other["name"]
    shown = answer("stats", "show", one["name"])
    assert (shown["key"]["label"], shown["key"]["cutoff"]) == (0, None)


def test_every_part_of_a_spec_is_in_a_statistics_name():
    generator = random_stylegan2_ada(classes=3)
    layer = generator.default_layer
    specs = [LatentSpec((0, 1)), LatentSpec((0, 1), label=0), LatentSpec((0, 1), cutoff=0), ASKED]
    assert len({name_of(key_of(generator, layer, spec, SecondMoment())) for spec in specs}) == len(specs)


def test_an_edit_is_solved_and_searched_on_pictures_of_its_class(model):
    generator = open_generator(model)
    edit = request(generator, LatentSettings(truncation=0.5, cutoff=2, label=1))
    assert EditRequest.from_json(edit.to_json()) == edit
    for seed in ASKED.seeds:
        drawn = generator.pictures(latents_of(generator, edit, seed))
        assert torch.equal(drawn, generator.pictures(generator.latents(replace(ASKED, seeds=(seed,)))))
    edit.model_copy(update={"latents": LatentSettings(label=0)}).save(Path("edit.json"))
    searched = answer("search", "edit.json", "--model", model, "--seeds", "0-5", "--top", 2, "--class", 1)
    other = answer("search", "edit.json", "--model", model, "--seeds", "0-5", "--top", 2)
    assert searched["matches"] != other["matches"]


def test_a_picture_is_projected_from_its_class_and_drawn_without_naming_it(model):
    generator = open_generator(model)
    picture = generator.draw(LatentSpec((7,), label=2))[0]
    Image.fromarray(picture).save("mine.png")
    words = ("project", model, "mine.png", "--steps", 3, "--out")
    mine, plain = answer(*words, "w.safetensors", "--class", 2), answer(*words, "plain.safetensors")
    assert (mine["class"], plain["class"]) == (2, None)
    assert mine["loss_before"] != plain["loss_before"]
    found = project(generator, picture, steps=3, label=2)
    answer("sample", model, "--latents", "w.safetensors", "--out", "again/")
    np.testing.assert_array_equal(np.asarray(Image.open("again/latent00000.png")), found.picture)
    assert "expected a class from 0 to 2" in refused(*words, "other.safetensors", "--class", 3)


def test_an_edit_from_before_there_were_classes_has_none():
    edit = request(small_generator(), LatentSettings())
    data = edit.to_dict()
    del data["palimpsest"]["latents"]["label"], data["palimpsest"]["latents"]["cutoff"]
    assert EditRequest.from_json(data) == edit
    with pytest.raises(RequestError, match="label"):
        EditRequest.from_json({"palimpsest": {"version": 1, "latents": {"label": -1}}})


def test_a_visitors_class_is_in_what_is_drawn_in_the_edit_and_in_the_command(model):
    generator = open_generator(model)
    visitor = Session(generator, generator.default_layer)
    visitor.load(request(generator, LatentSettings(cutoff=2, label=1)), "edit")
    assert visitor.spec((5,)) == LatentSpec((5,), cutoff=2, label=1)
    visitor.label = 2
    assert visitor.request().latents == LatentSettings(cutoff=2, label=2)
    visitor.stack = RuleStack().push(some_rule(generator, generator.default_layer))
    assert "--cutoff 2 --class 2" in command(visitor, (5,))
    visitor.open(small_generator())
    assert visitor.spec((5,)) == LatentSpec((5,))


def test_noise_from_elsewhere_is_tried_where_there_is_any():
    generator = random_stylegan2_ada()
    assert set(with_other_noise(generator)) == {
        "as opened",
        "with noise drawn from the seed",
        "without noise",
    }


def page() -> None:
    """The page *Model* of a conditional generator, run by Streamlit's own test."""
    import runpy

    import streamlit as st

    from dashboard.session import Session
    from rewrite_core.resources import resource_dir
    from tests.nvidia import random_stylegan2_ada

    if "palimpsest" not in st.session_state:
        generator = random_stylegan2_ada(classes=3)
        st.session_state["palimpsest"] = Session(generator, generator.default_layer)
    runpy.run_path(str(resource_dir("pages") / "model.py"))


def test_the_page_offers_the_classes_of_a_conditional_model_and_each_pictures_own():
    app = AppTest.from_function(page, default_timeout=60).run()
    visitor = app.session_state["palimpsest"]
    assert (app.number_input(key="class").value, visitor.label) == (None, None)
    app.number_input(key="class").set_value(2).run()
    assert visitor.label == 2
    app.number_input(key="class").set_value(None).run()
    assert visitor.label is None
    assert not app.exception
