"""The rules in the sidebar: each control does what it says, and the library adds what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit.config
from streamlit.testing.v1 import AppTest

from dashboard.rules.library import strip
from dashboard.session import Session, service
from rewrite_core import RuleStack
from rewrite_core.generators import Generator
from rewrite_core.rules.library import Library
from rewrite_core.rules.rule import Rule
from tests.generators import PLAIN, UP, small_generator, some_rule


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    """An empty library and an empty cache for each test, on the visitor's own machine."""
    monkeypatch.setenv("PALIMPSEST_RULES", str(tmp_path / "rules"))
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    before = streamlit.config.get_option("server.address")
    streamlit.config.set_option("server.address", "127.0.0.1")
    service.clear()
    yield Library(tmp_path / "rules")
    service.clear()
    streamlit.config.set_option("server.address", before)


def script() -> None:
    """The sidebar alone."""
    import streamlit as st

    from dashboard.session import session
    from dashboard.sidebar import sidebar

    sidebar(session())
    st.markdown("the page")


def visit(generator: Generator, *rules: Rule) -> AppTest:
    visitor = Session(generator, PLAIN)
    for rule in rules:
        visitor.add(rule)
    app = AppTest.from_function(script, default_timeout=60)
    app.session_state["palimpsest"] = visitor
    return ran(app)


def ran(app: AppTest) -> AppTest:
    """The next run, and another once the jobs that it began have ended."""
    app.run()
    for asked in session_of(app).asked.values():
        assert asked.job.wait(60)
    app.run()
    assert not app.exception
    return app


def session_of(app: AppTest) -> Session:
    found = app.session_state["palimpsest"]
    assert isinstance(found, Session)
    return found


def stack_of(app: AppTest) -> RuleStack:
    return session_of(app).stack


def press(app: AppTest, key: str) -> None:
    app.button(key=key).click()
    ran(app)


def names(app: AppTest) -> list[str]:
    return [entry.rule.name for entry in stack_of(app).entries]


def three(small: Generator) -> list[Rule]:
    return [some_rule(small, PLAIN, seed, name) for seed, name in enumerate(("one", "two", "three"))]


def test_without_rules_the_list_says_so_and_nothing_can_be_undone(small: Generator):
    app = visit(small)
    assert any("None kept yet" in caption.value for caption in app.caption)
    assert app.button(key="rules-undo").disabled
    assert app.button(key="rules-redo").disabled


def test_switch_and_strength_act_at_once_and_a_drag_is_one_step(small: Generator):
    app = visit(small, *three(small)[:1])
    app.toggle(key="rule-on-0").set_value(False)
    ran(app)
    assert stack_of(app).active == ()
    app.toggle(key="rule-on-0").set_value(True)
    ran(app)
    steps = len(stack_of(app).past)
    for strength in (0.5, -0.5, -1.0):
        app.slider(key="rule-strength-0").set_value(strength)
        ran(app)
    assert stack_of(app).entries[0].rule.strength == -1.0
    assert len(stack_of(app).past) == steps + 1
    press(app, "rules-undo")
    assert stack_of(app).entries[0].rule.strength == 1.0
    assert app.slider(key="rule-strength-0").value == 1.0
    press(app, "rules-redo")
    assert app.slider(key="rule-strength-0").value == -1.0


def test_the_menu_moves_duplicates_renames_and_removes(small: Generator):
    app = visit(small, *three(small))
    assert app.button(key="rule-up-0").disabled
    assert app.button(key="rule-down-2").disabled
    press(app, "rule-down-0")
    assert names(app) == ["two", "one", "three"]
    press(app, "rule-up-2")
    assert names(app) == ["two", "three", "one"]
    press(app, "rule-duplicate-2")
    assert names(app) == ["two", "three", "one", "one copy"]
    assert not app.toggle(key="rule-on-3").value
    app.text_input(key="rule-rename-3").set_value("hat")
    ran(app)
    press(app, "rule-remove-0")
    assert names(app) == ["three", "one", "hat"]
    for _ in range(5):
        press(app, "rules-undo")
    assert names(app) == ["one", "two", "three"]


def test_active_rules_of_a_layer_merge_into_one(small: Generator):
    app = visit(small, *three(small), some_rule(small, UP, 7, "four"))
    app.button_group(key="merge-parts-plain-0-1-2").set_value([0, 2])
    ran(app)
    press(app, "merge")
    assert names(app) == ["one + three", "two", "four"]
    assert stack_of(app).entries[0].rule.rank == 4


def test_nothing_can_be_merged_where_no_layer_has_two_active_rules(small: Generator):
    app = visit(small, some_rule(small), some_rule(small, UP))
    assert "merge" not in [button.key for button in app.button]


def test_rules_that_interfere_are_warned_of_with_the_measured_number(small: Generator):
    rule = some_rule(small, name="one")
    app = visit(small, rule, rule.renamed("two"))
    (warning,) = [caption.value for caption in app.caption if "changes" in caption.value]
    assert "“two” changes 100 % of what “one” writes" in warning or "“one” changes 100 %" in warning
    app.toggle(key="rule-on-1").set_value(False)
    ran(app)
    assert not any("changes" in caption.value for caption in app.caption)


def test_a_rule_goes_into_the_library_and_comes_out_of_it(small: Generator, library: Library):
    app = visit(small, *three(small)[:1])
    press_once(app, "rule-save-0")
    assert [found.title for found in library.entries()] == ["one"]
    press(app, "rule-remove-0")
    app.session_state["library"] = True
    ran(app)
    app.button(key="add-one").click()
    app.run()
    assert names(app) == ["one"]
    assert stack_of(app).entries[0].rule.digest == three(small)[0].digest


def press_once(app: AppTest, key: str) -> None:
    app.button(key=key).click()
    app.run()
    assert not app.exception


def test_the_library_shows_rules_of_the_open_generator_and_names_what_is_damaged(
    small: Generator, library: Library
):
    library.save(some_rule(small, name="mine"))
    library.save(some_rule(small_generator(1), name="another's"))
    (library.folder / "bad.safetensors").write_bytes(b"a rule")
    app = visit(small)
    assert "add-mine" not in [button.key for button in app.button]  # looked into only when it is opened
    app.session_state["library"] = True
    ran(app)
    keys = [str(button.key) for button in app.button if str(button.key).startswith("add-")]
    assert keys == ["add-mine"]
    told = " ".join(caption.value for caption in app.caption)
    assert "1 rule for other generators" in told
    assert "damaged or foreign file" in told


def test_a_server_for_others_has_no_library(small: Generator):
    streamlit.config.set_option("server.address", "0.0.0.0")
    app = visit(small, some_rule(small))
    assert "rule-save-0" not in [button.key for button in app.button]


def test_a_strip_shows_three_pictures_before_and_after(small: Generator):
    pairs = strip(small, some_rule(small))
    assert len(pairs) == 3
    assert all(pair.startswith(b"\x89PNG") for pair in pairs)
