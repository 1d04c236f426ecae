"""Service: jobs, what is stored, the machine, and gathering statistics, here or on many machines."""

from __future__ import annotations

import streamlit as st

from dashboard.errors import shown
from dashboard.gathering import command, gather, offered
from dashboard.machine import gauges
from dashboard.opening import paths_allowed
from dashboard.progress import bar, jobs
from dashboard.running import ended, log_text, others, own, title, under_way, veiled
from dashboard.session import Session, service, session
from dashboard.storage import depends_on, digest, model_names, numbers, table, total, verifying
from dashboard.text import plain
from dashboard.words import counted, size
from rewrite_core.jobs import Job
from rewrite_core.statistics.entry import Entry
from rewrite_core.statistics.store import Store

EVERY = 0.5
"""Seconds between two looks at the jobs."""
MOMENT = 0.5
"""Seconds that verifying may take before the page shows it as a job."""
ENDED = {
    "done": ":green[:material/check_circle:]",
    "failed": ":red[:material/error:]",
    "cancelled": ":gray[:material/cancel:]",
}
COLUMNS = {
    "model": st.column_config.TextColumn(width=122),
    "layer": st.column_config.TextColumn(width=54),
    "statistic": st.column_config.TextColumn(width=120),
    "samples": st.column_config.NumberColumn(width=72, format="localized"),
    "size": st.column_config.NumberColumn(width=76),
    "last used": st.column_config.DatetimeColumn(width=150, format="distance"),
    "state": st.column_config.TextColumn(width=76),
}


def job_list(visitor: Session) -> None:
    """Jobs under way, looked at again by themselves, and those that ended."""
    found = own(visitor)
    running = frozenset(job.id for job in under_way(found))
    if running or others(visitor):
        running_jobs(visitor, running)
    else:
        st.caption(
            "Nothing is running. Pages gather what they need by themselves; here you can gather ahead."
        )
    for job in ended(found):
        line = f"{ENDED[job.status]} {plain(title(job))}"
        with st.expander(line, type="compact", key=f"ended-{job.id}"):
            log(job)


@st.fragment(run_every=EVERY)
def running_jobs(visitor: Session, before: frozenset[str]) -> None:
    """Own jobs with their logs, and that others have some; the page runs once more when one has ended.

    Who owns the machine sees others' jobs too, and can cancel them: nobody else could stop one whose visitor is gone.
    """
    running, elsewhere = under_way(own(visitor)), others(visitor)
    if not before <= {job.id for job in running} or not (running or elsewhere):
        st.rerun()
    for job in running:
        with st.container(border=True, key=f"running-{job.id}"):
            bar(job, visitor.visitor)
            if job.lines:
                with st.expander("Log", type="compact", key=f"log-{job.id}"):
                    log(job)
    for job in elsewhere:
        if paths_allowed():
            with st.container(border=True, key=f"running-{job.id}"):
                bar(job)
                st.caption(":material/person: Asked for elsewhere, or before a reload.")
        else:
            st.caption(f":material/person: {veiled(job)}")


def log(job: Job[object]) -> None:
    """What a job has said so far."""
    st.code(log_text(job) or "Nothing was noted.", language=None, wrap_lines=True)


def gathering(visitor: Session) -> None:
    """A small form, and the line that does the same in several processes."""
    layers = st.multiselect("Layers", list(visitor.generator.layers), [visitor.layer], key="gather-layers")
    kinds = st.multiselect(
        "Statistics",
        list(offered()),
        ["second_moment"],
        key="gather-statistics",
        format_func=lambda kind: kind.replace("_", " "),
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        samples = st.number_input("Samples", 1, 1_000_000, 1000, step=1000, key="gather-samples", width=150)
        pressed = st.button(
            "Gather",
            type="primary",
            icon=":material/play_arrow:",
            key="gather",
            disabled=not (layers and kinds),
        )
    if pressed:
        with shown():
            if gather(visitor, layers, kinds, samples):
                st.rerun()
            st.caption(":green[:material/check_circle:] All of it is stored already.")
    with st.expander("Spread over machines", icon=":material/lan:", key="spread"):
        st.code(command(visitor, layers, kinds, samples), language="bash", wrap_lines=True)
        st.caption(
            "Processes that share the cache folder share the work; this app takes over what they store."
        )


def machine(visitor: Session) -> None:
    """Device, memory, batches."""
    for gauge in gauges(visitor.generator):
        with st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False):
            st.caption(gauge.name, width=96)
            st.markdown(plain(gauge.text), width="stretch", help=gauge.help or None)
        if gauge.share is not None:
            st.progress(gauge.share)


def stored(visitor: Session, store: Store) -> None:
    """What is stored: a table, what the selected result depends on, and what can be done with it."""
    entries = store.entries()
    used = store.size()
    st.progress(
        min(used / max(store.limit_bytes, 1), 1.0),
        text=f"{size(used)} of {size(store.limit_bytes)} · {numbers(entries)}",
    )
    if not entries:
        st.caption("Nothing is stored yet.")
        return
    names = model_names(visitor)
    picked = st.dataframe(
        table(entries, names, take_verified()),
        hide_index=True,
        column_config=COLUMNS,
        key=f"stored-{digest(entries)}",
        on_select="rerun",
        selection_mode="multi-row",
        height=min(36 * len(entries) + 38, 420),
    )
    chosen = [entries[row] for row in picked["selection"]["rows"]]
    actions(visitor, store, entries, chosen)
    if len(chosen) == 1:
        rows = {name: plain(text) for name, text in depends_on(chosen[0], names)}
        st.table(rows, border="horizontal", hide_header=True)


def actions(visitor: Session, store: Store, entries: list[Entry], chosen: list[Entry]) -> None:
    """Verify what is selected, or all; delete and prune where the visitor owns the machine."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="stored-actions"):
        verified = chosen or entries
        if st.button("Verify" if chosen else "Verify all", icon=":material/verified:", key="verify"):
            label = f"Verifying {counted(len(verified), 'result')}"
            with shown():
                job = jobs().submit(visitor.visitor, label, verifying(store, verified))
                st.session_state["verifying"] = job
                job.wait(MOMENT)
                st.rerun()
        if paths_allowed():
            deleting(store, chosen)
            pruning(store)
        st.caption(total(chosen) if chosen else "Select rows to see more.")


def take_verified() -> dict[str, str]:
    """What verifying has found in this session: name → what is wrong, empty where nothing is."""
    job, known = st.session_state.get("verifying"), st.session_state.setdefault("verified", {})
    if job and job.result and job.take():
        known.update(job.result)
        damaged = counted(sum(map(bool, job.result.values())), "damaged result")
        st.toast(f"{counted(len(job.result), 'result')} verified: {damaged}.", icon=":material/verified:")
    return dict(known)


def deleting(store: Store, chosen: list[Entry]) -> None:
    """Delete the selected results, once that is confirmed."""
    theirs = [entry for entry in chosen if not entry.shipped]
    with st.popover("Delete…", icon=":material/delete:", disabled=not theirs, key="delete-menu"):
        st.write(f"Delete {total(theirs)}? What is needed again is computed again.")
        if st.button("Delete", type="primary", key="delete"):
            with shown():
                for entry in theirs:
                    store.delete(entry)
                st.rerun()


def pruning(store: Store) -> None:
    """Make room: delete what was used longest ago."""
    with st.popover("Prune…", icon=":material/cleaning_services:", key="prune-menu"):
        kept = st.number_input(
            "Keep at most (GB)", 0.0, value=store.limit_bytes / 1e9, step=1.0, format="%.3g", key="prune-to"
        )
        going = len(store.prune(int(kept * 1e9), dry_run=True))
        st.caption(
            f"{counted(going, 'file')} would go, those used longest ago first. The limit holds by itself, too."
        )
        if st.button("Delete the oldest", type="primary", key="prune", disabled=not going):
            gone = store.prune(int(kept * 1e9))
            st.toast(f"{counted(len(gone), 'file')} deleted.")
            st.rerun()


def page(visitor: Session) -> None:
    """Jobs and what they brought on the left, gathering and the machine on the right."""
    left, right = st.columns([1.9, 1], gap="medium")
    with left, shown():
        st.subheader("Jobs")
        job_list(visitor)
        st.subheader("Stored")
        stored(visitor, service().store)
    with right, shown():
        st.subheader("Gather")
        with st.container(border=True):
            gathering(visitor)
        st.subheader("This machine")
        with st.container(border=True):
            machine(visitor)


page(session())
