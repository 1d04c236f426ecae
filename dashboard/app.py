"""`streamlit run dashboard/app.py`, or `palimpsest run`: navigation over pages/, and the sidebar they share."""

from __future__ import annotations

import os
import threading

import streamlit as st
import torch

from dashboard.canvas import enter_page
from dashboard.errors import shown
from dashboard.recovery import keep, recover
from dashboard.running import running_line
from dashboard.session import session
from dashboard.sidebar import sidebar
from dashboard.solving import warm_up
from rewrite_core.resources import resource_dir

__all__ = ["PAGES", "main"]

PAGES = (
    ("model.py", "Model", ":material/deployed_code:"),
    ("rewriting.py", "Rewriting", ":material/history_edu:"),
    ("directions.py", "Directions", ":material/explore:"),
    ("dissection.py", "Dissection", ":material/biotech:"),
    ("service.py", "Service", ":material/dns:"),
)
"""One line a page: file below pages/, title, icon. The second one is where a visitor arrives."""

ARRIVAL, JOBS = "rewriting.py", "service.py"

ROOM = ".stMainBlockContainer { padding: 2.6rem 2rem 3rem; }"
"""Streamlit's wide layout leaves a quarter of a laptop's screen empty, which no theme setting changes."""


def main() -> None:
    """Run the page that the visitor is on."""
    st.set_page_config(page_title="Palimpsest", page_icon="📜", layout="wide", initial_sidebar_state=260)
    st.html(f"<style>{ROOM}</style>")
    _prepare()
    torch.get_num_threads()  # a thread takes over torch's number of threads when it first asks for it
    folder = resource_dir("pages")
    pages = {
        file: st.Page(folder / file, title=title, icon=icon, default=file == ARRIVAL)
        for file, title, icon in PAGES
    }
    page = st.navigation(list(pages.values()))
    recover(session())
    line = sidebar(session())
    enter_page(page.title)
    page.run()
    keep(session())
    if page.title != pages[JOBS].title:
        with line, shown():  # after the page, which may have started a job
            running_line(session(), pages[JOBS])


@st.cache_resource(show_spinner=False)
def _prepare() -> None:
    """Once a process: settle torch's threads (half the cores: drawing and serving share them), and warm up."""
    torch.set_num_threads(int(os.environ.get("PALIMPSEST_THREADS") or max(1, (os.cpu_count() or 2) // 2)))
    threading.Thread(target=warm_up, args=(session().generator,), daemon=True).start()


main()
