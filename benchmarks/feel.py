"""How the page Rewriting feels: seconds from a hand's move to what it changes on screen, in a real browser.

    python -m benchmarks.feel

Medians of ten on the default embedded model, each from the moment the mouse is released or a button pressed:

    stroke → mask readout       "mask … px" under the canvas
    Try → first pair            another pair of pictures in the view Before | after
    strength slider → pictures  another picture after, there

The browser itself takes the time, from one frame to the next. It is run by hand, on a machine that does nothing else,
and prints a table for docs/rewriting.md.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

from playwright.sync_api import Page, expect, sync_playwright

from tests.browser import APP, browsing, canvas, draw_stroke, press, serve, sources, wait_text
from tests.conftest import FLAGS, chromium_path

__all__ = ["main"]

TIMES = 10
EXAMPLE, VIEW = "example-blue-eyes-panel", "Before | after"

WATCH = """
([selector, event, read]) => {
    const all = root => [root, ...[...root.querySelectorAll('*')].flatMap(e => e.shadowRoot ? all(e.shadowRoot) : [])]
    const now = () => [...document.querySelectorAll(selector)].map(place => read === 'text' ? place.textContent
        : all(place).flatMap(root => [...root.querySelectorAll('img')].map(image => image.src)).join()).join()
    const before = now()
    window.felt = new Promise((resolve, reject) => document.addEventListener(event, () => {
        const start = performance.now()
        const look = () => {
            const seconds = (performance.now() - start) / 1000, text = now()
            if (text && text !== before) resolve(seconds)
            else if (seconds > 20) reject(new Error(`nothing changed in ${selector}`))
            else requestAnimationFrame(look)
        }
        look()
    }, {once: true, capture: true}))
}
"""
"""Each frame is looked at from the first `event` on; `window.felt` is the time until text or pictures have changed."""


@dataclass(frozen=True)
class _Feel:
    """What is timed, and what is aimed at, in seconds."""

    name: str
    aim: float
    once: Callable[[Page, int], float]


def main() -> int:
    """Print the table; the exit status is 1 if an aim is missed."""
    missed = False
    with serve(APP) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        print("| from → to | median | slowest | aim |\n| --- | --- | --- | --- |")
        for feel in FEELS:
            with browsing(browser, address) as page:
                canvas(page, "paint-edit")
                felt = [feel.once(page, number) for number in range(TIMES + 1)][1:]  # the first warms up
            median = statistics.median(felt)
            missed = missed or median > feel.aim
            print(f"| {feel.name} | {median:.2f} s | {max(felt):.2f} s | {feel.aim} s |", flush=True)
        browser.close()
    return int(missed)


def _stroke(page: Page, number: int) -> float:
    """A stroke of another length each time."""
    canvas(page, "paint-edit")
    _watch(page, ".st-key-paint-edit", "mouseup", "text")
    draw_stroke(page, "paint-edit", [(60, 60 + 20 * number), (160 + 10 * number, 60 + 20 * number)])
    return _felt(page)


def _try(page: Page, number: int) -> float:
    """Try, of an example whose trial was undone, in the view of pairs."""
    if number == 0:
        _example(page)
    press(page, "undo")
    expect(page.locator("body")).to_contain_text("No rule is on", timeout=20_000)
    _rest(page)
    _watch(page, ".st-key-pairs", "click", "src")
    press(page, "try")
    felt = _felt(page)
    wait_text(page, r"elsewhere")
    _rest(page)
    return felt


def _strength(page: Page, number: int) -> float:
    """One step of the slider of a kept rule."""
    if number == 0:
        _example(page)
        press(page, "keep")
        page.locator('[data-testid="stSidebar"]').get_by_text("Blue eyes").first.wait_for()
    slider = page.locator(".st-key-rule-strength-0").get_by_role("slider")
    expect(slider).to_have_count(1, timeout=20_000)
    sources(page, "pairs")
    _rest(page)
    slider.focus()
    _watch(page, ".st-key-pairs", "keydown", "src")
    page.keyboard.press("ArrowLeft")
    return _felt(page)


FEELS = (
    _Feel("stroke → mask readout", 0.4, _stroke),
    _Feel("Try → first pair", 0.5, _try),
    _Feel("strength slider → pictures", 0.3, _strength),
)


def _example(page: Page) -> None:
    press(page, EXAMPLE)
    wait_text(page, "elsewhere")
    sources(page, "pairs")
    _rest(page)


def _watch(page: Page, selector: str, event: str, read: str) -> None:
    page.evaluate(WATCH, [selector, event, read])


def _felt(page: Page) -> float:
    return float(page.evaluate("() => window.felt"))


def _rest(page: Page) -> None:
    """Until the page has run, and its pictures have settled."""
    expect(page.locator('[data-testid="stStatusWidget"]')).to_have_count(0, timeout=20_000)
    page.wait_for_timeout(700)


if __name__ == "__main__":
    sys.exit(main())
