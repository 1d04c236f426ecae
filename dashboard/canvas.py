"""Painting a region over a picture.

`paint` draws one canvas over a picture (uint8 `[H, W, 3]`) and returns what the visitor has painted as a
`PaintedMask`: bool `[h, w]` at the resolution the picture is *shown* at (`display_size`), so that averaging it
down to a layer's grid gives soft edges. The mask is the alpha of the strokes alone; the strokes' JSON is never
rasterised here, because a moved object keeps its old path there.

Whose state is it? The drawing component forgets everything when it leaves the page and, fed its own strokes back
while it lives, loses some. So each canvas has a *sheet* in the visitor's session: a short history of snapshots
(the component's JSON and its picture of the strokes). A mounted component gets its first drawing once and keeps it
for life; Undo, Clear, `load_mask` and coming back to a page or a picture each start a new mount (`canvas_key`) from
the newest snapshot. A sheet belongs to a role ("copy", "paste", "context") and an image ("seed 12"). The app calls
`enter_page` in every run: Streamlit itself does not say that a page was left for one that stopped early.

The eraser paints white over what is there, and what it covers counts as unpainted: the strokes stay in sight while one
erases, so that none is lost to a new mount, and are gone with the next tool. It knows the paint's usual colour alone.

Strokes reach Python 0.2 s after the mouse is released. The line `mask 214 px` beside the canvas is how a visitor,
and a browser test, sees that they have.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from rewrite_core.errors import MaskError
from rewrite_core.pictures import Colour

__all__ = [
    "PaintedMask",
    "Tool",
    "canvas_key",
    "clear_mask",
    "display_size",
    "enter_page",
    "load_mask",
    "paint",
]

Tool = Literal["brush", "rectangle", "polygon", "erase"]

_SIDE = 416  # the longer side of a picture on the page; two such canvases fit side by side at 1440 px
_LARGEST = 440
_SMALL = 128  # pictures up to this side are enlarged by a whole factor, so that every pixel stays a square
_RGB, _ALPHA = (255, 45, 120), 140  # shows on skin, grass and sky, and the picture shows through
_RUBBER, _RUBBER_ALPHA = (255, 255, 255), 153
_RUBBED = 137  # green of paint (45) that white covers half; 198 where it covers all
_WIDEST = 4096  # a mask comes from the browser or a file: larger ones are not decoded
_STEPS = 16  # snapshots kept for Undo
_SHEETS = 24  # painted pictures remembered per visitor

_MODES: dict[Tool, str] = {
    "brush": "freedraw",
    "rectangle": "rect",
    "polygon": "polygon",
    "erase": "freedraw",
}
_HINTS: dict[Tool, str] = {
    "brush": "drag over the picture",
    "rectangle": "drag a box",
    "polygon": "close on the first corner",
    "erase": "drag over what is painted",
}


@dataclass(frozen=True, eq=False)
class PaintedMask:
    """What is painted: `mask` bool `[h, w]` as displayed; `pressed` is the button pressed in this run."""

    mask: NDArray[np.bool_]
    picture_size: tuple[int, int]
    pressed: str | None = None

    @property
    def share(self) -> float:
        """The painted part of the picture, 0 … 1."""
        return float(self.mask.mean())

    @property
    def area(self) -> int:
        """The painted area in the picture's own pixels; at least 1 where anything is painted."""
        height, width = self.picture_size
        return max(round(self.share * height * width), int(self.mask.any()))

    @property
    def empty(self) -> bool:
        """Whether nothing is painted."""
        return not self.mask.any()

    @property
    def text(self) -> str:
        """The line shown beside the buttons."""
        return "mask 0 px" if self.empty else f"mask {self.area:,} px · {self.share:.1%}".replace("%", " %")


def paint(
    picture: NDArray[np.uint8],
    *,
    role: str,
    image: str,
    tool: Tool = "brush",
    brush: int = 28,
    colour: Colour = _RGB,
    tools: bool = True,
    buttons: Sequence[str] = (),
) -> PaintedMask:
    """Draw a canvas over `picture`; below it the mask's area, Undo, Clear and `buttons`. Return what is painted.

    The buttons act on the mask, so they are disabled while it is empty. `brush` is in pixels of the screen. Without
    `tools`, area and history are left to the page. A page holds at most one canvas per role, and a role is one word.
    """
    size, name = display_size(*picture.shape[:2]), (role, image)
    with st.container(key=f"paint-{role}", gap="xsmall", width=size[1]):
        sheet = _draw(picture, size, name, tool, brush, colour)
        painted = PaintedMask(_mask(sheet.newest, size), (picture.shape[0], picture.shape[1]))
        if tools:
            _tools(painted, sheet, name, _HINTS[tool])
        return replace(painted, pressed=_pressed(painted, role, buttons) if buttons else None)


def load_mask(role: str, image: str, mask: NDArray[Any], *, again: bool = False) -> None:
    """Replace what is painted by `mask` `[h, w]` of any size, painted where it is above half of its range.

    Undo takes it back; with `again` it takes the place of what was loaded last, and Undo takes back both at once.
    """
    if again:
        sheet = _sheets().get((role, image), _BLANK)
        _store((role, image), replace(sheet, history=sheet.history[:-1] or sheet.history))
    _restart((role, image), _Snapshot(None, _tinted(_as_bool(mask))))


def clear_mask(role: str, image: str) -> None:
    """Wipe the canvas; Undo brings the strokes back."""
    _restart((role, image), _EMPTY)


def enter_page(page: str) -> None:
    """Say which page this run shows, before the page itself; on entering one its canvases mount anew."""
    if st.session_state.get("painting page") != page:
        st.session_state["painting page"] = page
        st.session_state["painting visit"] = _visit() + 1


def canvas_key(role: str, image: str, mount: int = 0) -> str:
    """The component's key in session state; its container is `paint-{role}` whatever the mount."""
    return f"canvas-{role}-{image}-{mount}"


def display_size(height: int, width: int) -> tuple[int, int]:
    """The size `[h, w]` a picture is painted at: small ones by a whole factor, others fitted to one length."""
    longer = max(height, width)
    if longer <= _SMALL:
        return height * (_LARGEST // longer), width * (_LARGEST // longer)
    return max(round(height * _SIDE / longer), 1), max(round(width * _SIDE / longer), 1)


# the visitor's own copy

_Name = tuple[str, str]  # role, image


@dataclass(frozen=True)
class _Snapshot:
    """A drawing: the component's JSON, or None where there is but a mask; its pixels as a PNG data URL.

    `rubbed` says that the eraser's strokes may be among them.
    """

    drawing: dict[str, Any] | None
    pixels: str | None
    rubbed: bool = False


@dataclass(frozen=True)
class _Sheet:
    """The history of one canvas; `start` is what its present mount was given, on which `visit` to the page."""

    history: tuple[_Snapshot, ...]
    start: _Snapshot
    mount: int = 0
    visit: int = 0

    @property
    def newest(self) -> _Snapshot:
        return self.history[-1]

    @property
    def rubbed(self) -> bool:
        """Whether the present mount may hold strokes of the eraser."""
        return self.newest.rubbed and self.newest != self.start

    def pushed(self, snapshot: _Snapshot) -> _Sheet:
        return replace(self, history=(*self.history, snapshot)[-_STEPS:])

    def remounted(self) -> _Sheet:
        return replace(self, start=self.newest, mount=self.mount + 1)


_EMPTY = _Snapshot(None, None)
_BLANK = _Sheet((_EMPTY,), _EMPTY)


def _sheets() -> dict[_Name, _Sheet]:
    sheets: dict[_Name, _Sheet] = st.session_state.setdefault("painted sheets", {})
    return sheets


def _store(name: _Name, sheet: _Sheet) -> _Sheet:
    sheets = _sheets()
    sheets.pop(name, None)
    sheets[name] = sheet
    while len(sheets) > _SHEETS:
        sheets.pop(next(iter(sheets)))
    return sheet


def _restart(name: _Name, snapshot: _Snapshot) -> None:
    _store(name, _sheets().get(name, _BLANK).pushed(snapshot).remounted())


def _undo(name: _Name) -> None:
    sheet = _sheets()[name]
    _store(name, replace(sheet, history=sheet.history[:-1] or sheet.history).remounted())


def _opened(name: _Name, tool: Tool) -> _Sheet:
    """The sheet to show: mounted anew if the component has been away (another page, another picture), or erased."""
    sheet, visit = _sheets().get(name, _BLANK), _visit()
    away = sheet.visit != visit or canvas_key(*name, sheet.mount) not in st.session_state
    done_erasing = sheet.newest.rubbed and tool != "erase"
    if (away or done_erasing) and sheet.newest != sheet.start:
        sheet = sheet.remounted()
    return _store(name, replace(sheet, visit=visit))


def _visit() -> int:
    return int(st.session_state.get("painting visit", 0))


def _collect(name: _Name, tool: Tool) -> _Sheet:
    """Copy what the component has sent, drawn with `tool`, into the visitor's sheet."""
    sheet = _sheets()[name]
    sent = (st.session_state.get(canvas_key(*name, sheet.mount)) or {}).get("drawing") or {}
    if not sent.get("data") or sent["data"] == sheet.newest.pixels:
        return sheet
    fresh = _Snapshot(sent["raw"], sent["data"], rubbed=tool == "erase" or sheet.rubbed)
    if _echoed(sheet, fresh):
        fresh = replace(fresh, rubbed=False)
        return _store(name, replace(sheet, history=(*sheet.history[:-1], fresh)))
    return _store(name, sheet.pushed(fresh))


def _echoed(sheet: _Sheet, fresh: _Snapshot) -> bool:
    """Whether the component but repeats the mask that it was mounted with, as a picture of its own making."""
    if sheet.newest != sheet.start or fresh.pixels is None:
        return False
    size = _pixels(fresh.pixels).shape[:2]
    return np.array_equal(_mask(fresh, size), _mask(sheet.start, size))


# drawing it


def _draw(
    picture: NDArray[np.uint8], size: tuple[int, int], name: _Name, tool: Tool, brush: int, colour: Colour
) -> _Sheet:
    from streamlit_drawable_canvas import st_canvas  # only a running app can import it

    sheet, frame = _opened(name, tool), f"picture-{name[0]}"
    ink = _ink(_RUBBER, _RUBBER_ALPHA) if tool == "erase" else _ink(colour, _ALPHA)
    # The component's own toolbar hangs above it and is cut off: its bin restores instead of clearing, and what
    # it undoes in polygon mode is not sent.
    st.html(f"<style>.st-key-{frame} {{ overflow: clip; }}</style>")
    with st.container(key=frame):
        st_canvas(
            background_image=_background(picture, size),
            height=size[0],
            width=size[1],
            drawing_mode=_MODES[tool],
            stroke_width={"rectangle": 0, "polygon": 1}.get(tool, brush),
            stroke_color=ink,
            fill_color=ink,
            initial_drawing=_drawing(sheet.start, size),
            return_image_data=True,
            key=canvas_key(*name, sheet.mount),
            on_change=partial(_collect, name, tool),
        )
    return _collect(name, tool)


def _ink(colour: Colour, alpha: int) -> str:
    return f"rgba({colour[0]}, {colour[1]}, {colour[2]}, {alpha / 255:.3f})"


def _tools(painted: PaintedMask, sheet: _Sheet, name: _Name, hint: str) -> None:
    fresh = len(sheet.history) == 1
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption(f"{painted.text} · {hint}" if fresh else painted.text)
        st.space("stretch")
        if not fresh:
            _tool("Undo", name, ":material/undo:", partial(_undo, name))
        _tool("Clear", name, ":material/delete:", partial(clear_mask, *name), disabled=painted.empty)


def _tool(label: str, name: _Name, icon: str, action: Callable[[], None], *, disabled: bool = False) -> None:
    key = f"paint-{name[0]}-{label}"
    st.button(label, icon=icon, type="tertiary", key=key, on_click=action, disabled=disabled)


def _pressed(painted: PaintedMask, role: str, buttons: Sequence[str]) -> str | None:
    with st.container(horizontal=True, gap="small"):
        presses = [st.button(label, key=f"paint-{role}-{label}", disabled=painted.empty) for label in buttons]
    return next((label for label, press in zip(buttons, presses, strict=True) if press), None)


def _drawing(snapshot: _Snapshot, size: tuple[int, int]) -> dict[str, Any]:
    """The component's JSON for a snapshot; a mask, loaded or erased, becomes one picture stretched over the canvas."""
    if snapshot.drawing is not None and not snapshot.rubbed:
        return snapshot.drawing
    if snapshot.pixels is None:
        return {"objects": []}
    source = _tinted(_mask(snapshot, size)) if snapshot.rubbed else snapshot.pixels
    height, width = _pixels(source).shape[:2]
    place = {"left": 0, "top": 0, "originX": "left", "originY": "top", "imageSmoothing": False}
    scale = {"width": width, "height": height, "scaleX": size[1] / width, "scaleY": size[0] / height}
    return {"objects": [{"type": "Image", "src": source, **place, **scale}]}


# pixels


def _mask(snapshot: _Snapshot, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Painted where at least half of a pixel is covered, and not erased after that."""
    if snapshot.pixels is None:
        return np.zeros(size, dtype=bool)
    rgba = _pixels(snapshot.pixels)  # [h, w, 4]
    painted = rgba[..., 3] >= _ALPHA // 2
    if snapshot.rubbed:
        painted &= rgba[..., 1] < _RUBBED
    if painted.shape == size:
        return painted
    return np.asarray(Image.fromarray(painted).resize((size[1], size[0]), Image.Resampling.NEAREST))


def _pixels(data_url: str) -> NDArray[np.uint8]:
    """Strokes as red, green, blue and alpha [h, w, 4]."""
    with Image.open(io.BytesIO(base64.b64decode(data_url.partition(",")[2])), formats=["PNG"]) as strokes:
        if max(strokes.size) > _WIDEST:
            found, expected = f"a mask of {strokes.width} × {strokes.height} px", f"at most {_WIDEST} a side"
            raise MaskError(found=found, expected=expected, remedy="Paint it anew.")
        return np.asarray(strokes.convert("RGBA"))


def _as_bool(mask: NDArray[Any]) -> NDArray[np.bool_]:
    if mask.dtype == np.bool_:
        return mask
    return mask > (np.iinfo(mask.dtype).max / 2 if np.issubdtype(mask.dtype, np.integer) else 0.5)


def _tinted(mask: NDArray[np.bool_]) -> str:
    """A mask as a PNG data URL in the paint's colour."""
    rgba = np.zeros((*mask.shape, 4), dtype=np.uint8)  # [h, w, 4]
    rgba[mask] = (*_RGB, _ALPHA)
    return f"data:image/png;base64,{base64.b64encode(_png(Image.fromarray(rgba))).decode('ascii')}"


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


@st.cache_data(max_entries=64, show_spinner=False)
def _background(picture: NDArray[np.uint8], size: tuple[int, int]) -> bytes:
    small = max(picture.shape[:2]) <= _SMALL
    resampling = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    return _png(Image.fromarray(picture).resize((size[1], size[0]), resampling))
