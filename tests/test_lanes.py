"""Lanes: each computes with one thread, whatever the process has, and nobody else notices."""

from __future__ import annotations

import threading

import pytest
import torch

from rewrite_core.generators import LatentSpec
from rewrite_core.generators.lanes import Lanes, beside
from tests.generators import small_generator
from tests.work import torch_threads


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_there_are_as_many_lanes_as_threads_and_each_has_one(threads: int):
    with torch_threads(threads):
        lanes = Lanes(small_generator())
        assert lanes.count == threads
        together = threading.Barrier(threads)

        def seen() -> tuple[int, int]:
            together.wait(10)  # each lane takes one
            return threading.get_ident(), torch.get_num_threads()

        found = [job.result() for job in [lanes.submit(seen) for _ in range(threads)]]
        assert len({thread for thread, _ in found}) == threads
        assert {count for _, count in found} == {1}
        assert beside(torch.get_num_threads) == 1


def test_threads_that_start_afterwards_have_the_number_of_the_process():
    found: list[int] = []
    with torch_threads(3):
        Lanes(small_generator()).submit(torch.get_num_threads).result()
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    assert found == [3]


def test_a_convolution_has_the_same_bits_for_any_number_of_threads():
    generator = small_generator()
    drawn = []
    for threads in (1, 2, 3):
        with torch_threads(threads):
            drawn.append(Lanes(generator).submit(generator.sample, LatentSpec.of(range(3))).result())
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


def test_closing_drops_what_has_not_begun_and_waits_for_the_rest():
    lanes, begun, go = Lanes(small_generator()), threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        assert go.wait(10)
        return "done"

    first = lanes.submit(work)
    rest = [lanes.submit(work) for _ in range(torch.get_num_threads() * 2)]
    assert begun.wait(10)
    threading.Timer(0.05, go.set).start()
    lanes.close()
    assert first.result(0) == "done"
    assert rest[-1].cancelled()


def test_the_lanes_are_there_again_after_one_who_used_them_closed():
    Lanes(small_generator()).close()
    assert Lanes(small_generator()).submit(int, "7").result() == 7
