"""Pictures in a grid, called by their seeds or names, one click to select.

`gallery` shows `Picture`s (uint8 `[H, W, 3]`) and returns which one is selected. A picture may carry an
`after`: the grid then offers before | after side by side, each alone (pressing a picture flips it) and the
difference, without another run of the page. Heat maps are composited by the caller; a `note` is a word or a number
beside the seed or name. Pictures up to 128 px are enlarged by a whole factor, pixels and all.

The component (`gallery.js`, `gallery.css`) is given to the page inline. Two rules keep it fast: a picture is encoded
once (by content, for all visitors), and what is sent stays the same to the byte until pictures or layout change, so
that a click sends two kilobytes instead of all pictures. A click therefore marks its picture in the browser, which
reports it as `pick`; pictures are sent anew only if the page then wants another one selected.

`range_box` is a text box for the numbers of pictures (`dashboard/ranges.py`).
"""

from __future__ import annotations

import base64
import hashlib
import io
import secrets
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from dashboard.ranges import format_ranges, parse_ranges
from dashboard.text import plain
from rewrite_core.errors import RequestError
from rewrite_core.generators.own import PictureId, key_of

__all__ = ["Picture", "View", "gallery", "range_box", "range_box_kept", "set_range_box"]

View = Literal["pair", "before", "after", "difference"]
Key = int | str
"""What the browser calls a picture: its seed, or a word that stands for one of the visitor's own."""

_SMALL = 128  # pictures up to this side are enlarged by a whole factor and sent without loss
_SENT = 256  # larger pictures are sent at this side
_HERE = Path(__file__).parent

_component = st.components.v2.component(
    "palimpsest_gallery",
    html='<div class="gallery"></div>',
    css=(_HERE / "gallery.css").read_text(encoding="utf-8"),
    js=(_HERE / "gallery.js").read_text(encoding="utf-8"),
)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture and which one it is; `after` is the same one under the rules, of the same size."""

    which: PictureId
    image: NDArray[np.uint8]
    after: NDArray[np.uint8] | None = None
    note: str = ""


def gallery(
    pictures: Sequence[Picture],
    *,
    key: str,
    selected: PictureId | None = None,
    size: int = 112,
    columns: int | None = None,
    view: View = "pair",
) -> PictureId | None:
    """Show `pictures` and return the one that is selected.

    `selected` is the page's own selection, which several galleries may share: pass what was returned last, and a new
    click is returned instead of it. Without it a gallery remembers its own. `view` is where pairs start.
    """
    if not pictures:
        st.caption("No pictures yet.")
        return selected
    digest, payload = _payload(pictures, size, columns, view)
    offered: dict[Key | None, PictureId] = {key_of(picture.which): picture.which for picture in pictures}
    shown, chosen = _settled(key, digest, offered, None if selected is None else key_of(selected))
    data = {**payload, "stamp": shown.stamp, "selected": shown.start}
    _component(key=key, data=data, default={"pick": None}, on_pick_change=lambda: None)
    _records()[key] = shown  # only now: a run cut off at the component leaves the click to the next
    return offered.get(chosen, chosen if isinstance(chosen, int) else selected)


def range_box(label: str = "Seeds", *, key: str, default: str = "0-31") -> tuple[int, ...]:
    """A text box for ranges with a shuffle button; wrong text is explained, and the last good numbers stay."""
    kept = f"{key} kept"
    st.session_state.setdefault(key, st.session_state.get(kept, default))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", width=400):
        text = st.text_input(label, key=key, max_chars=4096)
        icon = ":material/shuffle:"
        st.button("Shuffle", icon=icon, key=f"{key}-shuffle", on_click=_shuffle, args=(key, kept))
    try:
        numbers = parse_ranges(text)
    except RequestError as problem:
        st.error(plain(str(problem)))
        return parse_ranges(st.session_state.get(kept, default))
    st.session_state[kept] = text
    return numbers


def range_box_kept(key: str, default: str) -> str:
    """The last good text of the range box called `key`, on screen or not."""
    kept: str = st.session_state.get(f"{key} kept", default)
    return kept


def set_range_box(key: str, text: str) -> None:
    """Have the range box called `key` say `text`, which it can read; called before the box is drawn in a run."""
    st.session_state[key] = st.session_state[f"{key} kept"] = text


def _shuffle(key: str, kept: str) -> None:
    count = len(parse_ranges(st.session_state[kept]))
    start = int(np.random.default_rng().integers(100_000))
    st.session_state[key] = format_ranges(range(start, start + count))


# the selection


@dataclass(frozen=True)
class _Shown:
    """What the browser shows under one key.

    Attributes:
        digest: of the pictures and their layout.
        stamp: names this sending of them; `start` is the key of the picture marked in it.
        marked: the key of the one marked by now.
        at: when the browser reported the last pick that was heard.
    """

    digest: str = ""
    stamp: str = ""
    start: Key | None = None
    marked: Key | None = None
    at: int | None = 0


def _records() -> dict[str, _Shown]:
    records: dict[str, _Shown] = st.session_state.setdefault("galleries", {})
    return records


def _settled(
    key: str, digest: str, offered: Container[Key | None], selected: Key | None
) -> tuple[_Shown, Key | None]:
    """Hear a new pick, or else keep the page's selection; what the browser shall show, and what is selected."""
    shown = _records().get(key, _Shown())
    pick = (st.session_state.get(key) or {}).get("pick") or {}
    chosen = shown.marked if selected is None else selected
    if pick and pick.get("stamp", shown.stamp) == shown.stamp and pick.get("at") != shown.at:
        chosen = pick["selected"] if isinstance(pick["selected"], str) else int(pick["selected"])
        shown = replace(shown, marked=chosen, at=pick.get("at"))
    mark = chosen if chosen in offered else None
    if shown.digest != digest or shown.marked != mark or key not in st.session_state:
        shown = _Shown(digest, secrets.token_hex(8), mark, mark, shown.at)
    return shown, mark if selected is None else chosen


# what is sent


def _payload(
    pictures: Sequence[Picture], size: int, columns: int | None, view: View
) -> tuple[str, dict[str, Any]]:
    """A digest of what is sent, and what is sent."""
    longer = max(pictures[0].image.shape[:2])
    small = longer <= _SMALL
    payload = {
        "pictures": [_item(picture) for picture in pictures],
        "side": longer * max(round(size / longer), 1) if small else size,
        "pixelated": small,
        "columns": columns,
        "view": view,
    }
    return hashlib.sha256(repr(payload).encode()).hexdigest(), payload


def _item(picture: Picture) -> dict[str, Any]:
    after = None if picture.after is None else _encoded(picture.after)
    shown = {"before": _encoded(picture.image), "after": after, "note": picture.note}
    name = {} if isinstance(picture.which, int) else {"name": str(picture.which)}
    return {"seed": key_of(picture.which), **name, **shown}


def _encoded(image: NDArray[np.uint8]) -> str:
    return _data_url(hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest(), image)


@st.cache_resource(max_entries=2048, show_spinner=False)
def _data_url(digest: str, _image: NDArray[np.uint8]) -> str:
    picture, buffer = Image.fromarray(_image), io.BytesIO()
    kind = "png" if max(picture.size) <= _SMALL else "jpeg"
    picture.thumbnail((_SENT, _SENT), Image.Resampling.LANCZOS)
    picture.save(buffer, format=kind, quality=90)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
