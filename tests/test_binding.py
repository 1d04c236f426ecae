"""Widgets that show a value kept elsewhere: one in a closed popover is not believed about a value it was never told."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest


def page() -> None:
    import streamlit as st

    from dashboard.binding import bound

    st.session_state.setdefault("kept", "paste")

    def store(value: str) -> None:
        st.session_state["kept"] = value

    st.selectbox("seen", ["paste", "erase"], **bound("seen", st.session_state["kept"], store))
    st.selectbox("hid", ["paste", "erase"], **bound("hid", st.session_state["kept"], store, hidden=True))
    st.button("elsewhere", on_click=store, args=("paste",))


def app() -> AppTest:
    return AppTest.from_function(page).run()


def hidden_key(found: AppTest) -> str:
    return str(found.selectbox[1].key)


def test_what_is_touched_is_stored_and_shown_everywhere():
    found = app()
    found.selectbox[1].select("erase").run()
    assert found.session_state["kept"] == "erase"
    assert [box.value for box in found.selectbox] == ["erase", "erase"]


def test_a_hidden_widget_that_is_touched_stays_the_same_widget():
    found = app()
    before = hidden_key(found)
    for value in ("erase", "paste", "erase"):
        found.selectbox[1].select(value).run()
        assert hidden_key(found) == before


def test_a_hidden_widget_whose_value_changes_elsewhere_is_another_one():
    found = app()
    found.selectbox[1].select("erase").run()
    before = hidden_key(found)
    found.button[0].click().run()
    assert found.session_state["kept"] == "paste"
    assert hidden_key(found) != before
    assert found.selectbox[1].value == "paste"
    found.run()
    assert found.session_state["kept"] == "paste"
    found.selectbox[1].select("erase").run()
    assert found.session_state["kept"] == "erase"


def test_a_widget_in_sight_is_told_and_stays_the_same_one():
    found = app()
    found.selectbox[1].select("erase").run()
    assert (found.selectbox[0].key, found.selectbox[0].value) == ("seen", "erase")
