"""Blocks on disk: any order of finishing them gives the same bits; a block is claimed by one, and never for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rewrite_core.errors import FileError
from rewrite_core.statistics import Batch, SecondMoment, Statistic, Store, key_of
from rewrite_core.statistics.key import samples_of
from rewrite_core.statistics.ledger import Ledger, claim, forget
from tests.generators import UP, small_generator, spec
from tests.killed import Claimant
from tests.roll import Roll, same

KEY = {"test": "ledger"}
KINDS: dict[str, Callable[[], Statistic]] = {"roll": Roll, "second moment": SecondMoment}


def block(number: int, empty: Statistic) -> Statistic:
    """What a block of five pictures gives."""
    keys = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(number))
    return empty.update(Batch.of(keys, 5 * number))


def in_order(count: int, empty: Statistic) -> Statistic:
    folded = empty
    for number in range(count):
        folded = folded.merge(block(number, empty))
    return folded


def equal(one: Statistic | None, other: Statistic) -> bool:
    assert one is not None
    return same({"": [one]}, {"": [other]})


def open_ledger(store: Store, empty: Statistic) -> Ledger[Statistic]:
    return Ledger(store, KEY, empty)


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[tuple[str, int, int]]]:
    """How several processes, some of which end, might have come by the blocks of a pass."""
    count, processes = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    order = draw(st.permutations(range(count)))
    events: list[tuple[str, int, int]] = []
    for number in order:
        events.append(("add", draw(st.integers(0, processes - 1)), number))
        for what in draw(st.lists(st.sampled_from(["save", "refresh", "die"]), max_size=3)):
            events.append((what, draw(st.integers(0, processes - 1)), number))
    return count, events


@settings(deadline=None, max_examples=60)
@given(history=histories(), kind=st.sampled_from(sorted(KINDS)))
def test_any_history_of_the_blocks_gives_the_bits_of_folding_them_in_order(
    history: tuple[int, list[tuple[str, int, int]]], kind: str
):
    count, events = history
    empty = KINDS[kind]()
    with TemporaryDirectory() as folder:
        store = Store(Path(folder))
        ledgers = [open_ledger(store, empty) for _ in range(3)]
        for what, process, number in events:
            ledger = ledgers[process]
            if what == "add" and not ledger.has(number):
                ledger.add(number, block(number, empty))
            elif what == "save":
                ledger.save()
            elif what == "refresh":
                ledger.refresh()
            elif what == "die":  # all that it had not saved is lost
                ledgers[process] = open_ledger(store, empty)
        for ledger in ledgers:  # each of them could be the one that finishes
            ledger.refresh()
            for number in range(count):
                if not ledger.has(number):
                    ledger.add(number, block(number, empty))
            assert equal(ledger.finish(count), in_order(count, empty))
            ledger.save()


@settings(deadline=None, max_examples=30)
@given(order=st.permutations(range(6)), saved=st.sets(st.integers(0, 5)))
def test_a_ledger_never_has_a_block_that_nobody_finished(order: list[int], saved: set[int]):
    with TemporaryDirectory() as folder:
        store = Store(Path(folder))
        ledger = open_ledger(store, Roll())
        added: set[int] = set()
        for number in order[:4]:
            ledger.add(number, block(number, Roll()))
            added.add(number)
            if number in saved:
                ledger.save()
        ledger.save()
        for reader in (ledger, open_ledger(store, Roll())):
            assert {number for number in range(6) if reader.has(number)} == added


def test_what_is_saved_is_small_again_once_it_is_folded(tmp_path: Path):
    ledger = open_ledger(Store(tmp_path), SecondMoment())
    for number in range(5):
        ledger.add(number, block(number, SecondMoment()))
        ledger.save()
    assert [path.name for path in ledger.folder.iterdir()] == ["000000-000005.safetensors"]
    ledger.clear()
    assert not ledger.folder.exists()


def test_a_prefix_that_another_made_longer_is_taken_over(tmp_path: Path):
    store = Store(tmp_path)
    ours, theirs = open_ledger(store, Roll()), open_ledger(store, Roll())
    for number in range(3):
        theirs.add(number, block(number, Roll()))
        theirs.save()
    ours.add(0, block(0, Roll()))
    ours.add(3, block(3, Roll()))
    ours.refresh()
    assert ours.end == 4
    ours.save()
    theirs.refresh()
    assert theirs.end == 4
    assert equal(theirs.finish(4), in_order(4, Roll()))


# Damage


def saved_apart(store: Store, count: int = 4) -> Ledger[Statistic]:
    """Blocks 1 … `count` - 1 on disk, each in a file of its own, and block 0 missing."""
    ledger = open_ledger(store, Roll())
    for number in range(1, count):
        ledger.add(number, block(number, Roll()))
    ledger.save()
    return ledger


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def swap(path: Path) -> None:
    other = path.with_name("000003-000004.safetensors")
    ours, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(ours)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "a pickle": lambda path: path.write_bytes(b"\x80\x04."),
    "two blocks swapped": swap,
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_block_is_never_folded_but_computed_again(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = Store(tmp_path)
    saved_apart(store)
    ledger = open_ledger(store, Roll())
    ledger.add(0, block(0, Roll()))
    DAMAGES[damage](ledger.folder / "000002-000003.safetensors")
    again: list[int] = []
    for _ in range(3):
        if (found := ledger.finish(4)) is not None:
            break
        ledger.refresh()
        again += (missing := [number for number in range(4) if not ledger.has(number)])
        for number in missing:
            ledger.add(number, block(number, Roll()))
    assert equal(found, in_order(4, Roll()))
    assert again == ([2, 3] if damage == "two blocks swapped" else [2])
    lines = [record.getMessage() for record in caplog.records]
    assert all("\n" not in line and "is set aside and computed again: " in line for line in lines)
    assert len(lines) == (0 if damage == "deleted" else len(again))
    ledger.save()
    assert equal(open_ledger(store, Roll()).finish(4), in_order(4, Roll()))


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "two blocks swapped"])
def test_a_damaged_prefix_is_not_taken_over(damage: str, tmp_path: Path):
    store = Store(tmp_path)
    first = open_ledger(store, Roll())
    for number in (0, 1, 3):
        first.add(number, block(number, Roll()))
    first.save()
    DAMAGES[damage](first.folder / "000000-000002.safetensors")
    second = open_ledger(store, Roll())
    assert [second.has(number) for number in range(4)] == [False, False, False, True]


def test_a_prefix_under_the_name_of_a_longer_one_is_not_taken_for_it(tmp_path: Path):
    store = Store(tmp_path)
    first = open_ledger(store, Roll())
    for number in range(2):
        first.add(number, block(number, Roll()))
    first.save()
    (first.folder / "000000-000002.safetensors").rename(first.folder / "000000-000003.safetensors")
    assert not open_ledger(store, Roll()).has(2)


def test_a_block_that_cannot_be_read_is_computed_again_though_it_cannot_be_set_aside(tmp_path: Path):
    store = Store(tmp_path)
    ledger = saved_apart(store)
    ledger = open_ledger(store, Roll())
    ledger.add(0, block(0, Roll()))
    path = ledger.folder / "000002-000003.safetensors"
    path.unlink()
    path.mkdir()  # whoever lists the folder sees it, nobody can read it
    assert ledger.finish(4) is None
    ledger.refresh()
    assert not ledger.has(2)
    ledger.add(2, block(2, Roll()))
    assert equal(ledger.finish(4), in_order(4, Roll()))


def test_a_folder_that_is_deleted_in_the_middle_costs_only_what_others_had_in_it(tmp_path: Path):
    store = Store(tmp_path)
    saved_apart(store)
    ledger = open_ledger(store, Roll())
    ledger.add(0, block(0, Roll()))
    ledger.add(4, block(4, Roll()))
    ledger.save()
    ledger.clear()
    ledger.refresh()
    assert [ledger.has(number) for number in range(5)] == [True, False, False, False, True]
    ledger.save()
    assert open_ledger(store, Roll()).has(4)


def test_a_folder_that_cannot_be_written_is_a_file_error(tmp_path: Path):
    (tmp_path / "file").touch()
    ledger = open_ledger(Store(tmp_path / "file" / "statistics"), Roll())
    ledger.add(0, block(0, Roll()))
    with pytest.raises(FileError):
        ledger.save()
    assert equal(ledger.finish(1), in_order(1, Roll()))


# Claims


def test_a_claim_is_one_threads_until_it_is_released(tmp_path: Path):
    store, samples = Store(tmp_path), samples_of(small_generator(), spec(500))
    for _ in range(5):
        won: list[object] = []
        start = threading.Barrier(6)

        def grab(won: list[object] = won, start: threading.Barrier = start) -> None:
            start.wait()
            if (lock := claim(store, samples, 3)) is not None:
                won.append(lock)
                start.wait()
                lock.release()
            else:
                start.wait()

        threads = [threading.Thread(target=grab) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1


def test_blocks_and_samples_are_claimed_apart(tmp_path: Path):
    store = Store(tmp_path)
    small = small_generator()
    samples, others = samples_of(small, spec(500)), samples_of(small, spec(501))
    first = claim(store, samples, 0)
    assert first is not None
    assert claim(store, samples, 0) is None
    for another in (claim(store, samples, 1), claim(store, others, 0)):
        assert another is not None
        another.release()
    first.release()
    again = claim(store, samples, 0)
    assert again is not None
    again.release()


def test_a_claim_excludes_other_processes_and_ends_with_its_holder(tmp_path: Path):
    store, samples = Store(tmp_path), samples_of(small_generator(), spec(500))
    with Claimant(tmp_path, samples, 3) as holder:
        holder.ready()
        assert claim(store, samples, 3) is None
        other = claim(store, samples, 4)
        assert other is not None
        other.release()
        holder.kill()
        freed = claim(store, samples, 3)
        assert freed is not None
        freed.release()


def test_forgetting_a_pass_leaves_what_others_still_hold(tmp_path: Path):
    store, samples = Store(tmp_path), samples_of(small_generator(), spec(500))
    held, released = claim(store, samples, 0), claim(store, samples, 1)
    assert held is not None
    assert released is not None
    released.release()
    forget(store, samples)
    assert claim(store, samples, 0) is None
    held.release()
    forget(store, samples)
    assert not list(store.partial.iterdir())
    forget(store, samples)


def test_the_blocks_of_a_statistic_lie_under_its_name(tmp_path: Path):
    key = key_of(small_generator(), UP, spec(500), SecondMoment())
    assert Ledger(Store(tmp_path), key, SecondMoment()).folder.parent == tmp_path / "partial"
