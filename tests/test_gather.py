"""Gathering: the bits of one pass in memory, whoever computes them, whoever is killed, and whatever the disk does."""

from __future__ import annotations

import logging
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from benchmarks.kills import campaign
from rewrite_core.errors import Cancelled, LayerError, PalimpsestError, RequestError
from rewrite_core.statistics import SecondMoment, Store, fetch, gather, key_of, sweep
from rewrite_core.statistics.key import samples_of
from rewrite_core.statistics.ledger import Ledger, claim
from rewrite_core.statistics.sweep import Wanted, blocks_of, see
from tests.generators import DOWN, PLAIN, UP, small_generator, spec
from tests.killed import Worker, drawn_in, expected
from tests.roll import Counted, Roll, engine, same
from tests.work import torch_threads

WANTED: Wanted = {UP: [SecondMoment(), Roll()], DOWN: [Roll()]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "statistics")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are put on disk as soon as they are finished: the passes of tests are short."""
    monkeypatch.setattr(engine("gather"), "SAVE_EVERY", 0.0)


@dataclass
class Stop:
    """Progress that cancels the work once `after` samples are done; notes what it was told."""

    after: int = 1 << 60
    told: list[tuple[int, int]] = field(default_factory=list)
    act: Callable[[], object] | None = None

    def __call__(self, done: int, total: int) -> None:
        self.told.append((done, total))
        if done >= self.after:
            if self.act is None:
                raise Cancelled
            self.act()
            self.act = lambda: None


def left_in(store: Store) -> list[str]:
    """Every file in the store's folder that is not a result."""
    files = [path for path in store.folder.rglob("*") if path.is_file()]
    return [path.name for path in files if path.parent != store.folder or path.suffix != ".safetensors"]


# From disk, or computed


def test_it_gives_the_bits_of_a_pass_in_memory(store: Store):
    small = small_generator()
    found = gather(small, spec(430), WANTED, store=store)
    assert same(found, sweep(small, spec(430), WANTED))
    assert len(list(store.folder.glob("*.safetensors"))) == 3
    assert left_in(store) == []


def test_what_is_stored_is_not_computed_again_and_the_rest_in_one_pass(store: Store):
    counted = Counted.of()
    assert isinstance(fetch(counted, UP, spec(230), SecondMoment(), store=store), SecondMoment)
    counted.drawn.clear()
    counted.passes.clear()
    found = gather(counted, spec(230), WANTED, store=store)
    assert sorted(counted.drawn) == list(range(230))
    assert set(counted.passes) == {(UP, DOWN)}
    counted.passes.clear()
    again = gather(counted, spec(230), WANTED, store=store)
    assert not counted.passes
    assert same(again, found)
    gather(counted, spec(230), {UP: [SecondMoment()], PLAIN: [Roll()]}, store=store)
    assert set(counted.passes) == {(PLAIN,)}


def test_nothing_is_asked_twice_of_the_network_though_it_is_asked_twice_of_us(store: Store):
    counted = Counted.of()
    one, two = gather(counted, spec(230), {UP: [Roll(), Roll()]}, store=store)[UP]
    assert same({UP: [one]}, {UP: [two]})
    assert sorted(counted.drawn) == list(range(230))


def test_nothing_is_drawn_for_what_cannot_be(store: Store):
    counted = Counted.of()
    with pytest.raises(LayerError, match="layer 'nose'"):
        gather(counted, spec(5), {UP: [Roll()], "nose": [Roll()]}, store=store)
    with pytest.raises(RequestError, match="0 samples; expected at least 1"):
        gather(counted, spec(0), WANTED, store=store)
    assert gather(counted, spec(5), {UP: []}, store=store) == {UP: []}
    assert not counted.passes
    assert not store.folder.exists()


def test_keys_that_are_not_finite_are_refused_and_leave_no_claim(store: Store):
    small = small_generator()
    weight = small.weight(PLAIN).clone()
    weight[4, 0] = float("nan")
    broken = small.with_weights({PLAIN: weight})
    with pytest.raises(PalimpsestError, match="unit 4 of layer 'down' is NaN or infinite in picture 0;"):
        gather(broken, spec(230), {DOWN: [Roll()]}, store=store)
    assert not list(store.folder.glob("*.safetensors"))
    for block in range(3):
        lock = claim(store, samples_of(broken, spec(230)), block)
        assert lock is not None
        lock.release()


@pytest.mark.usefixtures("eager")
def test_progress_grows_and_ends_at_the_total(store: Store):
    told = Stop()
    gather(small_generator(), spec(730), WANTED, store=store, progress=told)
    assert [done for done, _ in told.told] == sorted(done for done, _ in told.told)
    assert {total for _, total in told.told} == {730}
    assert told.told[-1] == (730, 730)
    assert len(told.told) > 3


def test_another_micro_batch_is_another_key_and_nearly_the_same_answer(store: Store):
    moments = []
    for size in (25, 1, 7):
        counted = Counted.of(size=size)
        moments.append(fetch(counted, DOWN, spec(100), SecondMoment(), store=store).matrix)
        assert sorted(counted.drawn) == list(range(100))
    scale = moments[0].diagonal().sqrt()
    for other in moments[1:]:
        assert ((other - moments[0]).abs() / scale / scale[:, None]).max() < 1e-6


# Going on


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("after", [0, 100, 399, 700])
def test_whoever_asks_after_a_cancel_computes_only_what_is_missing(after: int, store: Store):
    counted = Counted.of()
    with pytest.raises(Cancelled):
        gather(counted, spec(730), WANTED, store=store, progress=Stop(after))
    finished = sum(
        len(block)
        for number, block in enumerate(blocks_of(counted, spec(730)))
        if Ledger(store, key_of(counted, UP, spec(730), Roll()), Roll()).has(number)
    )
    assert finished > after - 100
    counted.drawn.clear()
    said: list[str] = []
    found = gather(counted, spec(730), WANTED, store=store, say=said.append)
    assert len(counted.drawn) == 730 - finished
    assert same(found, sweep(small_generator(), spec(730), WANTED))
    assert left_in(store) == []
    assert not finished or f"{finished} samples were there already" in said


@pytest.mark.usefixtures("eager")
def test_what_was_cancelled_serves_an_overlapping_question(store: Store):
    counted = Counted.of()
    with pytest.raises(Cancelled):
        gather(counted, spec(400), {UP: [Roll()]}, store=store, progress=Stop(200))
    counted.passes.clear()
    wanted: Wanted = {UP: [Roll()], DOWN: [Roll()]}
    found = gather(counted, spec(400), wanted, store=store)
    assert same(found, sweep(small_generator(), spec(400), wanted))
    assert set(counted.passes) == {(UP, DOWN), (DOWN,)}
    assert counted.passes.count((DOWN,)) >= 8, "the two blocks that were there, for the other layer alone"


# Several at once


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_the_work_and_agree_to_the_bit(processes: int, tmp_path: Path):
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(tmp_path, 1500)) for _ in range(processes)]
        for worker in workers:
            worker.ready()
        for worker in workers:
            worker.go()
        answers = [worker.answer() for worker in workers]
    assert all(answer["digest"] == expected(1500) for answer in answers)
    assert 1500 <= drawn_in(tmp_path) <= 1700  # at most a block or two by two of them
    if processes > 1:
        assert max(answer["drawn"] for answer in answers) < 1500
    assert left_in(Store(tmp_path / "statistics")) == []


def test_processes_with_overlapping_questions_both_get_theirs(tmp_path: Path):
    asks = ["up", "both", "plain"]
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(tmp_path, ask=ask)) for ask in asks]
        for worker in workers:
            worker.ready()
        for worker in workers:
            worker.go()
        answers = [worker.answer() for worker in workers]
    for ask, answer in zip(asks, answers, strict=True):
        assert answer["digest"] == expected(1000, ask)
    assert drawn_in(tmp_path) <= 2 * 1000 + 200, "no layer's block by more than one of them"


def test_threads_of_one_process_share_the_work_too(store: Store):
    counted = Counted.of()
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(gather(counted, spec(2000), WANTED, store=store)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    right = sweep(small_generator(), spec(2000), WANTED)
    assert len(found) == 3
    assert all(same(answers, right) for answers in found)  # type: ignore[arg-type]
    assert len(counted.drawn) <= 2200


@pytest.mark.usefixtures("eager")
def test_waiting_for_a_block_that_another_computes_can_be_cancelled(store: Store):
    counted = Counted.of()
    held = claim(store, samples_of(counted, spec(230)), 1)
    assert held is not None
    told = Stop()

    def stop(done: int, total: int) -> None:
        told(done, total)
        if len(told.told) > 8:
            raise Cancelled

    with pytest.raises(Cancelled):
        gather(counted, spec(230), WANTED, store=store, progress=stop)
    assert sorted(counted.drawn) == [*range(100), *range(200, 230)]
    held.release()
    counted.drawn.clear()
    assert same(gather(counted, spec(230), WANTED, store=store), sweep(small_generator(), spec(230), WANTED))
    assert counted.drawn == list(range(100, 200))


@pytest.mark.usefixtures("eager")
def test_a_block_that_another_finishes_meanwhile_is_taken_from_it(store: Store):
    counted = Counted.of()
    held = claim(store, samples_of(counted, spec(230)), 1)
    assert held is not None

    def finish() -> None:
        small = small_generator()
        answers = see(small, blocks_of(small, spec(230))[1], {UP: [Roll()]})
        ledger = Ledger(store, key_of(small, UP, spec(230), Roll()), Roll())
        ledger.add(1, answers[UP][0])  # type: ignore[arg-type]
        ledger.save()
        held.release()

    wanted: Wanted = {UP: [Roll()]}
    found = gather(counted, spec(230), wanted, store=store, progress=Stop(130, act=finish))
    assert same(found, sweep(small_generator(), spec(230), wanted))
    assert sorted(counted.drawn) == [*range(100), *range(200, 230)]


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_any_number_of_lanes_gives_the_same_bits(lanes: int, store: Store):
    counted = Counted.of()
    with torch_threads(lanes):
        found = gather(counted, spec(930), WANTED, store=store)
    assert same(found, sweep(small_generator(), spec(930), WANTED))
    assert sorted(counted.drawn) == list(range(930))


def test_processes_that_are_killed_at_random_moments_change_nothing():
    rounds = list(campaign(times=4, seed=20))
    assert sum(one.kills for one in rounds) >= 4
    assert all(one.identical for one in rounds)
    for one in rounds:  # a kill costs what was not on disk yet: the block under way and a save or two
        assert one.redone <= 400 * (one.kills + 1)


# Memory


class Hungry(Counted):
    """Runs out of memory while more than `room` passes are under way, as torch does on a CPU."""

    room = 1
    busy = 0
    lock = threading.Lock()
    tried: int

    def note(self, seeds: object) -> None:
        with self.lock:
            type(self).busy += 1
            full = type(self).busy > self.room
        try:
            if full:
                torch.empty(1 << 46)  # 256 TB
            super().note(seeds)  # type: ignore[arg-type]
            threading.Event().wait(0.002)  # long enough for another lane to be under way
        finally:
            with self.lock:
                type(self).busy -= 1


def test_a_device_that_runs_out_of_memory_computes_fewer_blocks_at_once(store: Store):
    said: list[str] = []
    hungry = Hungry.of()
    with torch_threads(3):
        found = gather(hungry, spec(1330), WANTED, store=store, say=said.append)
    assert same(found, sweep(small_generator(), spec(1330), WANTED))
    assert "a device ran out of memory: 1 blocks at once from now on" in said


def test_no_room_for_a_single_micro_batch_is_said_in_one_line(store: Store):
    hungry = Hungry.of()
    hungry.room = 0
    with torch_threads(2), pytest.raises(RequestError) as refused:
        gather(hungry, spec(230), WANTED, store=store)
    assert str(refused.value).startswith("out of memory")
    assert "\n" not in str(refused.value)


# The disk


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk on which no file can grow beyond `size` bytes (writes fail, as on a full one)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("size", [0, 6_000, 14_000])
def test_a_full_disk_costs_the_keeping_and_not_the_answer(size: int, store: Store):
    """No file at all; blocks but not the first prefix; several blocks but not the result."""
    small, said = small_generator(), list[str]()
    wanted: Wanted = {UP: [Roll(), SecondMoment()]}
    right = sweep(small, spec(430), wanted)
    counted = Counted.of()
    with files_of_at_most(size):
        found = gather(counted, spec(430), wanted, store=store, say=said.append)
    assert same(found, right)
    assert sorted(counted.drawn) == list(range(430))
    assert any(line.startswith(("kept in memory only: ", "not stored: ")) for line in said)
    assert all("\n" not in line for line in said)
    assert not [name for name in left_in(store) if name.endswith(".tmp")]
    assert same(gather(counted, spec(430), wanted, store=store), right)


@pytest.mark.usefixtures("eager")
def test_blocks_from_before_the_disk_was_full_are_not_lost(store: Store):
    counted = Counted.of()
    with pytest.raises(Cancelled):
        gather(counted, spec(730), WANTED, store=store, progress=Stop(400))
    kept = 730 - len(counted.drawn)
    with files_of_at_most(0), pytest.raises(Cancelled):
        gather(counted, spec(730), WANTED, store=store, progress=Stop(600))
    counted.drawn.clear()
    gather(counted, spec(730), WANTED, store=store)
    assert len(counted.drawn) <= kept + 100


def unwritable(tmp_path: Path) -> list[Path]:
    """Places that even root cannot write to: below a file, in a folder of the system, a name that is too long."""
    (tmp_path / "file").touch()
    found = [tmp_path / "file" / "statistics", tmp_path / ("long" * 100)]
    return [*found, *([Path("/proc/self/statistics")] if Path("/proc/self").exists() else [])]


def test_a_place_that_cannot_be_written_still_serves(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    right = sweep(small_generator(), spec(230), WANTED)
    for folder in unwritable(tmp_path):
        counted, said = Counted.of(), list[str]()
        caplog.clear()
        found = gather(counted, spec(230), WANTED, store=Store(folder), say=said.append)
        assert same(found, right)
        assert sorted(counted.drawn) == list(range(230))
        assert any(line.startswith("kept in memory only: ") for line in said)
        assert any(record.levelno == logging.WARNING for record in caplog.records)


def test_permissions_are_respected_and_what_may_be_read_is_served(tmp_path: Path):
    with Worker(tmp_path, 430) as worker:
        worker.ready().go().answer()
    places = [tmp_path / name for name in ("kept", "empty", "closed")]
    for place in places:
        place.mkdir()
    for path in (tmp_path / "statistics").glob("*.safetensors"):
        shutil.copy(path, tmp_path / "kept")
    for parent in list(tmp_path.parents)[:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o777)  # where the worker notes what it draws
    (tmp_path / "drawn").chmod(0o666)
    for place, mode in zip(places, (0o555, 0o555, 0o000), strict=True):
        place.chmod(mode)
    try:
        for place, drawn in zip(places, (0, 430, 430), strict=True):
            with Worker(tmp_path, 430, store=place, unprivileged=True) as worker:
                answer = worker.ready().go().answer()
            assert answer["digest"] == expected(430)
            assert answer["drawn"] == drawn
            assert any("kept in memory only" in line for line in answer["said"]) == (drawn > 0)
    finally:
        for place in places:
            place.chmod(0o755)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("after", [100, 300, 430])
def test_a_folder_that_is_deleted_in_the_middle_changes_nothing(after: int, store: Store):
    stop = Stop(after, act=lambda: shutil.rmtree(store.folder, ignore_errors=True))
    found = gather(small_generator(), spec(430), WANTED, store=store, progress=stop)
    assert same(found, sweep(small_generator(), spec(430), WANTED))


@pytest.mark.usefixtures("eager")
def test_a_folder_that_is_deleted_all_the_time_changes_nothing(store: Store):
    over = threading.Event()

    def delete() -> None:
        while not over.wait(0.003):
            shutil.rmtree(store.folder, ignore_errors=True)

    deleter = threading.Thread(target=delete)
    deleter.start()
    try:
        found = gather(small_generator(), spec(1430), WANTED, store=store, say=lambda line: None)
    finally:
        over.set()
        deleter.join()
    assert same(found, sweep(small_generator(), spec(1430), WANTED))


@pytest.mark.usefixtures("eager")
def test_a_damaged_block_is_said_and_computed_again(store: Store, caplog: pytest.LogCaptureFixture):
    counted, wanted = Counted.of(), {UP: [Roll()]}
    answers = [see(counted, block, wanted)[UP][0] for block in blocks_of(counted, spec(430))]
    ledger = Ledger(store, key_of(counted, UP, spec(430), Roll()), Roll())
    for number in (1, 2, 3):
        ledger.add(number, answers[number])  # type: ignore[arg-type]
    ledger.save()
    path = ledger.folder / "000002-000003.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    counted.drawn.clear()
    said: list[str] = []
    found = gather(counted, spec(430), wanted, store=store, say=said.append)
    assert same(found, sweep(small_generator(), spec(430), wanted))
    assert sorted(counted.drawn) == [*range(100), *range(200, 300), *range(400, 430)]
    assert [line for line in said if "is computed again" in line]
    assert [record for record in caplog.records if "is set aside and computed again" in record.getMessage()]
    assert left_in(store) == []


def test_nothing_stays_open(store: Store):
    open_files = Path("/proc/self/fd")
    if not open_files.exists():
        pytest.skip("counts open files as Linux does")
    small = small_generator()
    gather(small, spec(230), {UP: [Roll()]}, store=store)  # what is loaded once stays
    before, threads = len([*open_files.iterdir()]), threading.active_count()
    for first in range(1, 6):
        gather(small, spec(230, first=first), WANTED, store=store)
        with pytest.raises(Cancelled):
            gather(small, spec(430, first=first), WANTED, store=store, progress=Stop(100))
    assert len([*open_files.iterdir()]) == before
    assert threading.active_count() == threads
