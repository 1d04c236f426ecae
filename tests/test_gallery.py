"""The gallery: ranges of seeds, what is sent to the browser, and where the selection lives."""

from __future__ import annotations

import base64
import io
import itertools
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard.ranges import format_ranges, parse_ranges
from rewrite_core.errors import RequestError

CLOCK = itertools.count(1)


def page() -> None:
    import numpy as np
    import streamlit as st

    from dashboard.gallery import Picture, gallery

    side = st.session_state.get("side", 64)

    def image(value: int) -> np.ndarray:
        return np.full((side, side, 3), value, np.uint8)

    seeds = st.session_state.get("seeds", (5, 6, 7))
    after = st.session_state.get("after")
    pictures = [Picture(seed, image(seed), after and image(seed + after), f"{seed / 10}") for seed in seeds]
    st.session_state["chosen"] = gallery(pictures, key="grid", selected=st.session_state.get("selected"))
    if "selected" in st.session_state:
        st.session_state["selected"] = st.session_state["chosen"]


@pytest.fixture
def app() -> AppTest:
    return AppTest.from_function(page).run()


@pytest.fixture
def controlled() -> AppTest:
    """A page that holds the selection itself."""
    app = AppTest.from_function(page)
    app.session_state["selected"] = 6
    return app.run()


def chosen(app: AppTest) -> Any:
    assert not app.exception
    return app.session_state["chosen"]


def sent(app: AppTest) -> dict[str, Any]:
    proto = app.get("bidi_component")[0].proto
    data: dict[str, Any] = json.loads(proto.mixed.json or proto.json)
    return data


def click(app: AppTest, seed: int, *, stamp: str | None = None) -> None:
    """The browser reports a pick, made on the pictures it was sent last unless `stamp` says otherwise."""
    stamp = sent(app)["stamp"] if stamp is None else stamp
    app.session_state["grid"] = {"pick": {"stamp": stamp, "at": next(CLOCK), "selected": seed}}
    app.run()


def decoded(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("5", (5,)),
        ("200-203, 5", (200, 201, 202, 203, 5)),
        (" 3 - 5;1\t0 ", (3, 4, 5, 1, 0)),
        ("1–2,", (1, 2)),
        ("4, 2-5, 4", (4, 2, 3, 5)),
        ("4294967295", (4294967295,)),
        ("0-255", tuple(range(256))),
    ],
)
def test_ranges_are_read_in_order_and_each_number_once(text, numbers):
    assert parse_ranges(text) == numbers


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no pictures"),
        (" , ", "no pictures"),
        ("12, cats", "'cats'"),
        ("-3", "'-3'"),
        ("3-", "'3-'"),
        ("1-2-3", "'1-2-3'"),
        ("1.5", "'1.5'"),
        ("٣", "'٣'"),
        ("9-3", "range 9-3"),
        ("4294967296", "4294967296"),
        ("0-256", "257 pictures"),
        ("0-4000000000", "4,000,000,001 pictures"),
        ("0-200, 300-400", "more than 256"),
        ("9" * 5000, "'9999"),
    ],
)
def test_text_that_names_no_pictures_is_refused_in_one_short_line(text, found):
    with pytest.raises(RequestError) as refused:
        parse_ranges(text)
    assert found in str(refused.value)
    assert len(str(refused.value)) < 200
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [((), ""), ((7,), "7"), ((1, 2), "1, 2"), ((*range(200, 213), 5), "200-212, 5"), ((3, 2, 1), "3, 2, 1")],
)
def test_numbers_are_written_as_short_ranges(numbers, text):
    assert format_ranges(numbers) == text


def test_what_is_written_is_read_back():
    numbers = tuple(dict.fromkeys(np.random.default_rng(0).integers(0, 300, 250).tolist()))
    assert parse_ranges(format_ranges(numbers)) == numbers


def test_nothing_is_selected_at_first(app):
    assert chosen(app) is None
    assert sent(app)["selected"] is None


def test_a_click_selects_and_sends_nothing_anew(app):
    before = sent(app)
    click(app, 7)
    assert chosen(app) == 7
    assert chosen(app.run()) == 7
    assert sent(app) == before


def test_a_click_changes_the_pages_selection_and_sends_nothing_anew(controlled):
    before = sent(controlled)
    assert (chosen(controlled), before["selected"]) == (6, 6)
    click(controlled, 7)
    assert chosen(controlled) == 7
    assert chosen(controlled.run()) == 7
    assert sent(controlled) == before


def test_a_selection_made_elsewhere_wins_over_an_earlier_click(controlled):
    click(controlled, 7)
    controlled.session_state["selected"] = 6
    assert chosen(controlled.run()) == 6
    assert sent(controlled)["selected"] == 6
    click(controlled, 5)
    assert chosen(controlled) == 5


def test_the_pages_selection_stays_though_it_is_not_among_the_pictures(controlled):
    controlled.session_state["selected"] = 99
    assert chosen(controlled.run()) == 99
    assert sent(controlled)["selected"] is None
    stamp = sent(controlled)["stamp"]
    assert sent(controlled.run())["stamp"] == stamp


def test_a_pick_can_be_seeded_for_a_page_test():
    app = AppTest.from_function(page)
    app.session_state["grid"] = {"pick": {"selected": 7}}
    assert chosen(app.run()) == 7
    assert chosen(app.run()) == 7


def test_the_selection_stays_when_the_pictures_change_and_goes_when_it_is_not_among_them(app):
    click(app, 7)
    app.session_state["seeds"] = (7, 8, 9)
    app.run()
    assert chosen(app) == 7
    assert sent(app)["selected"] == 7
    app.session_state["seeds"] = (8, 9)
    assert chosen(app.run()) is None


def test_a_pick_made_on_earlier_pictures_is_ignored(app):
    earlier = sent(app)["stamp"]
    app.session_state["seeds"] = (5, 6, 8)
    app.run()
    click(app, 7, stamp=earlier)
    assert chosen(app) is None


def test_the_selection_comes_back_with_the_gallery(app):
    click(app, 7)
    for seeds in ((), (5, 6, 7)):
        app.session_state["seeds"] = seeds
        app.run()
    assert chosen(app) == 7
    assert sent(app)["selected"] == 7


def test_pictures_are_named_by_seed_with_their_note(app):
    assert [(item["seed"], item["note"]) for item in sent(app)["pictures"]] == [
        (5, "0.5"),
        (6, "0.6"),
        (7, "0.7"),
    ]


def test_small_pictures_are_sent_without_loss_and_shown_by_a_whole_factor(app):
    picture = decoded(sent(app)["pictures"][0]["before"])
    assert picture.format == "PNG"
    assert (np.asarray(picture) == 5).all()
    assert sent(app)["pixelated"]
    assert sent(app)["side"] == 128


def test_large_pictures_are_sent_as_smaller_jpegs(app):
    app.session_state["side"] = 512
    app.run()
    picture = decoded(sent(app)["pictures"][0]["before"])
    assert (picture.format, picture.size) == ("JPEG", (256, 256))
    assert not sent(app)["pixelated"]
    assert sent(app)["side"] == 112


def test_a_pair_carries_both_pictures(app):
    assert sent(app)["pictures"][0]["after"] is None
    app.session_state["after"] = 100
    app.run()
    assert (np.asarray(decoded(sent(app)["pictures"][0]["after"])) == 105).all()


def test_no_pictures_is_said_in_words(app):
    app.session_state["seeds"] = ()
    assert chosen(app.run()) is None
    assert app.caption[0].value == "No pictures yet."


def ranges_page() -> None:
    import streamlit as st

    from dashboard.gallery import range_box

    if not st.session_state.get("away"):
        st.session_state["seeds"] = range_box(key="range", default="0-3")


@pytest.fixture
def ranges() -> AppTest:
    return AppTest.from_function(ranges_page).run()


def test_the_range_box_starts_with_its_default(ranges):
    assert ranges.session_state["seeds"] == (0, 1, 2, 3)


def test_wrong_text_is_explained_and_the_last_good_pictures_stay(ranges):
    ranges.text_input[0].set_value("10-12").run()
    ranges.text_input[0].set_value("10-12, x").run()
    assert ranges.session_state["seeds"] == (10, 11, 12)
    assert "'x'" in ranges.error[0].value


def test_shuffle_shows_as_many_other_pictures(ranges):
    ranges.button[0].click().run()
    seeds = ranges.session_state["seeds"]
    assert len(seeds) == 4
    assert seeds != (0, 1, 2, 3)
    assert parse_ranges(ranges.text_input[0].value) == seeds


def test_the_range_comes_back_after_another_page(ranges):
    ranges.text_input[0].set_value("10-12").run()
    ranges.session_state["away"] = True
    ranges.run()
    ranges.session_state["away"] = False
    ranges.run()
    assert ranges.session_state["seeds"] == (10, 11, 12)
