"""Several processes, on one machine or many, that compute the same statistics: started by ``torchrun``.

    torchrun --nproc-per-node 4 -m dashboard.cli stats compute my-gan --layer all

`gather` shares the work out through the cache folder: blocks are claimed by file locks, and the finished ones lie
there for everybody. So the processes, a *team*, speak to each other only once, before the work: whether all ask the
same of the same weights, and see the same folder and each other's locks in it. Then the process group is left, and a
member that is slow or lost costs the others no more than its block.

The members speak over gloo; on GPUs they meet over nccl too, which fails unless each has a GPU of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from filelock import FileLock, Timeout
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.distributed_c10d import Store as Board
from torch.distributed.rendezvous import rendezvous

from rewrite_core.errors import FileError, RequestError
from rewrite_core.generators import Generator, LatentSpec, find_device
from rewrite_core.statistics.key import samples_of
from rewrite_core.statistics.store import Store
from rewrite_core.statistics.sweep import Wanted

__all__ = ["Team", "TeamError"]

PATIENCE = timedelta(minutes=5)
"""How long a member waits for the others to start."""
SEEN_WITHIN = 5.0
"""Seconds in which a file must be seen by every member."""
ABSENT, UNLOCKED, SHARED = range(3)
"""What a member sees of the file that process 0 has locked: nothing, the file without its lock, or both."""


class TeamError(RequestError):
    """What all members find at the same time, so that process 0 may report it for all."""


@dataclass(frozen=True)
class Team:
    """This process among those that ``torchrun`` started; alone without it.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        devices: what it computes on: one GPU in a team, every GPU when alone, or the CPU.
    """

    rank: int = 0
    size: int = 1
    devices: tuple[torch.device, ...] = (torch.device("cpu"),)

    @classmethod
    def here(cls, device: str = "auto") -> Team:
        """From the environment (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``); `device` as for `find_device`.

        Raises:
            RequestError: a variable is no number, or there is no such device for this process.
        """
        if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
            return cls(devices=_devices(device, None))
        rank, size = _number("RANK"), _number("WORLD_SIZE")
        return cls(rank, size, _devices(device, _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else 0))

    @property
    def leads(self) -> bool:
        """Whether it reports for the team."""
        return self.rank == 0

    def meet(self, generator: Generator, spec: LatentSpec, wanted: Wanted, store: Store) -> None:
        """Make sure that the whole team can work on this pass together; one that is alone always can.

        Raises:
            TeamError: naming what the members do not have in common.
            RequestError: they cannot reach each other.
        """
        if self.size == 1:
            return
        with _process_group(self.rank, self.size):
            _agree(_asked(generator, spec, wanted))
            _share(store, self.leads)
            if generator.device.type == "cuda":
                _meet_on(generator.device)


def _asked(generator: Generator, spec: LatentSpec, wanted: Wanted) -> dict[str, Any]:
    """What must be the same in all members, by name; a difference is reported under the first name it shows in."""
    return {
        "weights": generator.fingerprint,
        "devices": generator.device.type,
        "samples": samples_of(generator, spec),
        "layers": sorted(wanted),
        "statistics": {
            layer: [[empty.kind, empty.version, dict(empty.parameters())] for empty in statistics]
            for layer, statistics in wanted.items()
        },
    }


def _agree(asked: Mapping[str, Any]) -> None:
    said = _exchange([_digest(value) for value in asked.values()])  # a row for each member
    for name, digests in zip(asked, zip(*said, strict=True), strict=True):
        other = next((rank for rank, digest in enumerate(digests) if digest != digests[0]), None)
        if other is not None:
            raise TeamError(
                found=f"the {name} of process {other} are not those of process 0",
                expected="processes that all do the same",
                remedy="Start them all with the same command, model and release.",
            )


def _share(store: Store, leads: bool) -> None:
    """Process 0 locks a new file in the folder; all others must see both."""
    locked = _locked_file(store) if leads else None
    token = _exchange([locked[0] if locked else 0])[0][0]
    if not token:
        raise TeamError(
            found=f"the cache folder {store.folder}, where process 0 cannot write",
            expected="a folder that all processes write to",
            remedy="Set PALIMPSEST_CACHE to one.",
        )
    seen = [row[0] for row in _exchange([SHARED if leads else _look_for(_place(store, token))])]
    if locked:
        locked[1].release()
        _place(store, token).unlink(missing_ok=True)
    for what, meaning in (
        (ABSENT, "does not see the cache folder"),
        (UNLOCKED, "does not see the file locks"),
    ):
        if what in seen:
            raise TeamError(
                found=f"process {seen.index(what)} {meaning} of process 0",
                expected="one folder, with locks, that all processes share",
                remedy="Set PALIMPSEST_CACHE to a folder on a shared disk that supports file locks.",
            )


def _locked_file(store: Store) -> tuple[int, FileLock] | None:
    """A new file that is locked, and the number in its name; None if the folder cannot be written."""
    token = 1 + secrets.randbelow(2**62)
    lock = FileLock(_place(store, token))
    try:
        store.make(store.folder)
        lock.acquire(blocking=False)
    except (FileError, OSError):
        return None
    return token, lock


def _look_for(path: Path) -> int:
    """What is seen of the file that process 0 has locked."""
    last = time.monotonic() + SEEN_WITHIN
    while not path.exists():
        if time.monotonic() > last:
            return ABSENT
        time.sleep(0.05)
    try:
        with FileLock(path).acquire(blocking=False):
            return UNLOCKED
    except Timeout:
        return SHARED
    except OSError:  # a folder that only process 0 can write
        return UNLOCKED


def _place(store: Store, token: int) -> Path:
    return store.folder / f"team-{token:016x}.lock"


# The process group


@contextmanager
def _process_group(rank: int, size: int) -> Iterator[None]:
    """Joined on the way in, left on the way out."""
    try:
        board, _, _ = next(rendezvous("env://", timeout=PATIENCE))
        token = _invite(board, size) if rank == 0 else _accept(board, rank)
        dist.init_process_group(
            "gloo", store=PrefixStore(token, board), rank=rank, world_size=size, timeout=PATIENCE
        )
        yield
    except (RuntimeError, ValueError) as problem:
        raise RequestError(
            found=f"{size} processes that do not reach each other ({str(problem).partition(chr(10))[0]})",
            expected="processes that torchrun started, on GPUs each with one of its own",
            remedy="Start them with torchrun, and check that the machines reach each other.",
        ) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


# torchrun keeps its board (a key-value store) when it starts the processes again, and what gloo wrote there for
# processes that are gone would be taken for true. So the members first find each other under names never used before.


def _invite(board: Board, size: int) -> str:
    """Process 0: give everybody who is there a new token, until all have taken it."""
    token, last = secrets.token_hex(8), time.monotonic() + PATIENCE.total_seconds()
    missing = set(range(1, size))
    while missing:
        for rank in missing:
            if board.check([f"here/{rank}"]):  # perhaps not yet the one that lives
                board.set(f"token/{board.get(f'here/{rank}').decode()}", token)
        missing = {rank for rank in missing if not board.check([f"{token}/{rank}"])}
        if time.monotonic() > last:
            raise RuntimeError(f"process {min(missing)} did not come")
        time.sleep(0.02)
    return token


def _accept(board: Board, rank: int) -> str:
    """Another process: say that it is there, under a name of its own, and take the token."""
    name = secrets.token_hex(8)
    board.set(f"here/{rank}", name)
    token = str(board.get(f"token/{name}").decode())  # waits for it
    board.set(f"{token}/{rank}", "")
    return token


def _exchange(numbers: Sequence[int]) -> list[list[int]]:
    """What each member says, in the order of their ranks; all say equally many numbers."""
    said = torch.tensor(numbers, dtype=torch.int64)
    heard: list[Tensor] = [torch.empty_like(said) for _ in range(dist.get_world_size())]
    dist.all_gather(heard, said)
    return [row.tolist() for row in heard]


def _meet_on(device: torch.device) -> None:
    """Add up a number on the GPUs, which nccl refuses if two members have the same one."""
    torch.cuda.set_device(device)
    one = torch.ones(1, device=device)
    dist.all_reduce(one, group=dist.new_group(backend="nccl"))
    torch.cuda.synchronize(device)


def _digest(value: Any) -> int:
    """63 bits of a hash of a JSON value."""
    text = json.dumps(value, sort_keys=True).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


# The environment


def _number(variable: str) -> int:
    text = os.environ[variable]
    if not text.isdecimal():
        raise RequestError(
            found=f"{variable}={text}",
            expected="a number, as torchrun sets it",
            remedy="Start it with torchrun, or unset the variable.",
        )
    return int(text)


def _devices(wanted: str, local_rank: int | None) -> tuple[torch.device, ...]:
    """The devices of this process: alone (`local_rank` None) all GPUs, in a team its own."""
    gpus = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    if not gpus or wanted not in ("auto", "cuda"):
        return (find_device(wanted),)
    chosen = gpus if local_rank is None else gpus[local_rank : local_rank + 1]
    if not chosen:
        raise RequestError(
            found=f"device '{wanted}' for process {local_rank or 0} of a machine with {len(gpus)} GPUs",
            expected=f"auto or cpu, or at most {len(gpus)} processes",
            remedy="Choose another device, or start no more processes than there are GPUs.",
        )
    return tuple(chosen)
