"""Spreading work over threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from rewrite_core.statistics.kernels import spread


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 64])
@pytest.mark.usefixtures("four_threads")
def test_the_ranges_cover_everything_once(count: int):
    seen: list[int] = []
    spread(lambda first, end: seen.extend(range(first, end)), count)
    assert sorted(seen) == list(range(count))


@pytest.mark.usefixtures("four_threads")
def test_threads_are_kept_whatever_is_spread():
    threads: set[threading.Thread] = set()
    for count in [64, 3, 64, 2, 64]:  # units, pictures, units, …
        spread(lambda _first, _end: threads.add(threading.current_thread()), count)
    assert len(threads) <= 4


@pytest.mark.usefixtures("four_threads")
def test_what_goes_wrong_in_a_thread_is_raised():
    def work(first: int, _end: int) -> None:
        if first:
            raise ValueError(first)

    with pytest.raises(ValueError, match="16"):
        spread(work, 64)


@pytest.mark.usefixtures("four_threads")
def test_a_disk_too_full_to_keep_compiled_code_does_not_stop_the_work():
    refused: list[int] = []
    done: list[tuple[int, int]] = []

    def work(first: int, end: int) -> None:
        if not refused:
            refused.append(first)
            raise OSError(28, "No space left on device")
        done.append((first, end))

    spread(work, 8)
    assert sorted(done) == [(0, 2), (2, 4), (4, 6), (6, 8)]


def test_an_error_that_stays_is_raised():
    def work(_first: int, _end: int) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        spread(work, 8)
