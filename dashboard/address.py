"""The address of what is on screen, which a page both writes and follows.

    ADDRESS = Address("dissection", {"model": open_named, "layer": choose_layer, …}, names, needy=("unit",))
    problem = ADDRESS.follow(visitor)    # a link that somebody followed: what it names is chosen
    ADDRESS.write(visitor)               # the address follows what is chosen
    ADDRESS.link(visitor)                # "?view=Units&layer=l08": for a menu behind ⋯

An address that the page has not written itself is a link that somebody followed, and what it names is chosen, in the
order of `choosers`; what it leaves out stays. Leaving the page drops it from the address, and coming back writes it
again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import streamlit as st

from dashboard.session import Session, embedded
from rewrite_core.errors import PalimpsestError, RequestError
from rewrite_core.generators import embedded_names

__all__ = ["Address", "Choose", "choose_layer", "open_named", "unknown"]

Choose = Callable[[Session, str], None]
"""Chooses what a value in the address names, or raises a `PalimpsestError`."""


@dataclass(frozen=True)
class Address:
    """The part of the address that one page owns.

    Attributes:
        page: what the page is called where it keeps what it wrote last.
        choosers: for each name in the address what chooses its value, or raises a `PalimpsestError`.
        names: what is on screen; what is empty is left out.
        needy: the names whose values mean nothing once one before them cannot be had.
    """

    page: str
    choosers: Mapping[str, Choose]
    names: Callable[[Session], Mapping[str, str]]
    needy: Sequence[str] = ()

    def follow(self, visitor: Session) -> str | None:
        """Choose what the address names; the first problem with it, empty if none, None if the page wrote it itself."""
        named = self._present()
        if not named or named == st.session_state.get(self._kept):
            return None
        problem = ""
        for name, value in named.items():
            if problem and name in self.needy:
                continue
            try:
                self.choosers[name](visitor, value)
            except PalimpsestError as found:
                problem = problem or str(found)
        return problem

    def write(self, visitor: Session) -> None:
        """Let the address name what is on screen."""
        named = self._named(visitor)
        if self._present() != named:
            others = {name: value for name, value in st.query_params.items() if name not in self.choosers}
            st.query_params.from_dict({**others, **named})
        st.session_state[self._kept] = named

    def link(self, visitor: Session) -> str:
        """The part of the address that names what is on screen: ``?view=Units&layer=l08…``."""
        return f"?{urlencode(self._named(visitor))}"

    @property
    def _kept(self) -> str:
        return f"{self.page}-address"

    def _present(self) -> dict[str, str]:
        return {name: st.query_params[name] for name in self.choosers if name in st.query_params}

    def _named(self, visitor: Session) -> dict[str, str]:
        return {name: value for name, value in self.names(visitor).items() if value}


def open_named(visitor: Session, name: str) -> None:
    """Open the embedded generator called `name`, unless it is open.

    Raises:
        RequestError: there is none.
    """
    if name not in embedded_names():
        raise unknown("model", name, embedded_names())
    if visitor.embedded_name != name:
        visitor.open(embedded(name))


def choose_layer(visitor: Session, name: str) -> None:
    """Choose the session's layer.

    Raises:
        RequestError: the open generator has none of that name.
    """
    if name not in visitor.generator.layers:
        raise unknown("layer", name, list(visitor.generator.layers))
    visitor.layer = name


def unknown(what: str, found: str, expected: Sequence[str]) -> RequestError:
    """What to say of a link to something that there is not."""
    return RequestError(
        found=f"a link to the {what} {found[:80]!r}",
        expected=f"one of {', '.join(expected)}" if len(expected) > 1 else "".join(expected),
        remedy="Choose on the page.",
    )
