"""A visitor's own picture on the page Model: searched as a job, drawn with the rules, gone with its generator."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.projecting import spaces
from dashboard.session import Session
from rewrite_core import open_generator
from rewrite_core.errors import FileError
from rewrite_core.generators import Generator
from rewrite_core.generators.projection import fitted, read_picture
from rewrite_core.generators.wspace import read_latents
from rewrite_core.pictures import encode_jpeg, encode_png
from rewrite_core.rules.stack import RuleStack
from tests.generators import small_generator, some_rule
from tests.work import WAIT

ROOT = Path(__file__).parents[1]
STYLEGAN = Path(__file__).parent / "reference" / "small_stylegan2.pt"


def a_picture(height: int = 20, width: int = 30) -> np.ndarray:
    """Noise, so that no part of it is like another."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def visit(generator: Generator) -> tuple[AppTest, Session]:
    session = Session(generator, generator.default_layer)
    app = AppTest.from_file(str(ROOT / "pages" / "model.py"), default_timeout=60)
    app.session_state["palimpsest"] = session
    return app.run(), session


def upload(app: AppTest, name: str, content: bytes, steps: int = 10) -> AppTest:
    app.file_uploader(key="own-picture").set_value((name, content, "image/png")).run()
    app.slider(key="project-steps").set_value(steps).run()
    app.button(key="project").click().run()
    assert not app.exception
    return app


def projected(generator: Generator) -> tuple[AppTest, Session]:
    """A visit after a search."""
    app, session = visit(generator)
    upload(app, "mine.png", encode_png(a_picture()))
    assert session.projecting
    assert session.projecting.wait(WAIT)
    return app.run(), session


def captions(app: AppTest) -> list[str]:
    """What the pictures of the panel are called."""
    return [caption for image in app.image for caption in image.captions if caption]


def downloads(app: AppTest) -> list[str]:
    return [button.label for button in app.download_button]


def test_nothing_can_be_projected_before_there_is_a_picture():
    app, _ = visit(small_generator())
    assert app.button(key="project").disabled


def test_a_picture_is_projected_and_its_file_draws_it_again(tmp_path):
    generator = small_generator()
    app, session = projected(generator)
    assert session.projected
    found = session.projected.found
    assert (found.space, len(found.losses)) == ("z", 10)
    np.testing.assert_array_equal(found.wanted, fitted(a_picture(), (16, 16)))
    assert captions(app) == ["given", "projected"]
    assert f"mine in z: loss {found.loss:.4f}" in "\n".join(caption.value for caption in app.caption)
    assert downloads(app) == ["Latents", "PNG, projected"]
    (tmp_path / "mine.safetensors").write_bytes(session.projected.file)
    latents = read_latents(tmp_path / "mine.safetensors", generator)
    np.testing.assert_array_equal(generator.draw(latents)[0], found.picture)


def test_it_follows_the_rules_like_a_sample():
    generator = small_generator()
    app, session = projected(generator)
    assert session.projected
    session.add(some_rule(generator))
    app.run()
    assert captions(app) == ["given", "projected", "with rules"]
    assert downloads(app) == ["Latents", "PNG, projected", "PNG, with rules"]
    whole = session.pictures([session.projected.own], edited=True)[0]
    expected = session.edited().draw(session.projected.found.latents(generator))[0]
    np.testing.assert_array_equal(whole, expected)
    assert (whole != session.projected.found.picture).any()

    before = [image.value for image in app.image if image.captions[0]]
    session.stack = session.stack.with_strength(0, 0.5)
    after = [image.value for image in app.run().image if image.captions[0]]
    assert (before[:2] == after[:2], before[2] == after[2]) == (True, False)
    session.stack = RuleStack()
    assert captions(app.run()) == ["given", "projected"]


def test_the_search_is_made_without_the_rules():
    generator = small_generator()
    app, session = visit(generator)
    session.add(some_rule(generator))
    upload(app, "mine.png", encode_png(a_picture()))
    _, plain = projected(generator)
    assert session.projected
    assert plain.projected
    assert session.projected.file == plain.projected.file


def test_a_search_can_be_cancelled_and_the_last_result_stays():
    app, session = projected(open_generator())
    kept = session.projected
    upload(app, "other.png", encode_png(a_picture()), steps=1000)
    job = session.projecting
    assert job
    assert app.get("progress")[0].proto.text.startswith("Projecting · ")
    app.button(key=f"cancel-{job.id}").click().run()
    assert job.wait(WAIT)
    app.run()
    assert job.status == "cancelled"
    assert "Projecting: cancelled." in [caption.value for caption in app.caption]
    assert session.projected is kept


def test_it_is_gone_when_another_generator_is_opened():
    app, session = projected(small_generator())
    app.button(key="open-face32-dcgan").click().run()
    assert session.generator.name == "face32-dcgan"
    assert (session.projected, session.projecting) == (None, None)
    assert captions(app) == []


def test_opening_another_generator_stops_the_search():
    app, session = visit(open_generator())
    upload(app, "mine.png", encode_png(a_picture()), steps=1000)
    job = session.projecting
    assert job
    app.button(key="open-face32-dcgan").click().run()
    assert job.wait(WAIT)
    assert (job.status, session.projected) == ("cancelled", None)


def test_a_file_that_is_no_picture_is_refused_in_one_line():
    app, session = visit(small_generator())
    upload(app, "notes.png", b"Just some text.")
    (error,) = app.error
    assert error.value.startswith("notes.png, which is no picture or a damaged one; expected a PNG")
    assert "\n" not in error.value
    assert session.projecting is None


def test_an_error_names_the_visitors_file_and_no_place_on_the_server():
    with pytest.raises(FileError, match=r"^cut\.png, which is no picture"):
        read_picture(encode_png(a_picture())[:60], "cut.png")


def test_a_small_file_of_many_pixels_is_refused_undecoded():
    file = io.BytesIO()
    Image.new("1", (8000, 8000)).save(file, format="PNG")
    assert len(file.getvalue()) < 100_000
    with pytest.raises(FileError, match=r"^flat\.png has 64,000,000 pixels; expected at most"):
        read_picture(file.getvalue(), "flat.png")


def test_a_photograph_is_read_as_the_command_reads_it(tmp_path):
    content = encode_jpeg(a_picture(40, 60))
    (tmp_path / "a.jpg").write_bytes(content)
    np.testing.assert_array_equal(read_picture(content, "a.jpg"), np.asarray(Image.open(tmp_path / "a.jpg")))


def test_the_spaces_are_those_of_the_family():
    generator = open_generator(STYLEGAN)
    assert spaces(small_generator()) == ["z"]
    assert spaces(generator) == ["w", "w+", "z"]
    app, session = visit(generator)
    (space,) = [group for group in app.segmented_control if group.label == "Space"]
    space.set_value("w+").run()
    upload(app, "mine.png", encode_png(a_picture(64, 64)))
    assert session.projecting
    assert session.projecting.wait(WAIT)
    app.run()
    assert session.projected
    assert session.projected.found.tensor.shape == (generator.styles, generator.style_dim)
