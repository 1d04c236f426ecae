"""Teams: any number of processes give the same bits, whoever is killed; who does not belong together is told so."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from click.testing import CliRunner
from filelock import FileLock
from torch.distributed.rendezvous import rendezvous

from dashboard.cli import main
from rewrite_core.errors import RequestError
from rewrite_core.statistics import distributed
from rewrite_core.statistics.distributed import Team
from tests.generators import PLAIN, UP, small_generator

ROOT = Path(__file__).parents[1]
SEEDS = "0-5999"
"""Sixty blocks: long enough to be killed in the middle."""


def saved(folder: Path, seed: int = 0) -> Path:
    folder.mkdir()
    for name, content in small_generator(seed).files().items():
        (folder / name).write_bytes(content)
    return folder


def words(model: Path) -> list[str]:
    asked = ["--layer", UP, "--layer", PLAIN, "--statistic", "all", "--seeds", SEEDS]
    return ["stats", "compute", str(model), *asked, "--json"]


def files_in(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (cache / "statistics").glob("*.safetensors")}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def alone(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that one process writes."""
    cache = tmp_path_factory.mktemp("alone")
    done = CliRunner().invoke(main, words(model), env={"PALIMPSEST_CACHE": str(cache)})
    assert done.exit_code == 0, done.output
    found = files_in(cache)
    assert len(found) >= 2  # of each layer, every statistic that needs nothing else
    return found


def torchrun(count: int, model: Path, cache: Path, *options: str) -> subprocess.Popen[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", *options]
    return subprocess.Popen(
        [*launch, "-m", "dashboard.cli", *words(model)],
        cwd=ROOT,
        env={**os.environ, "PALIMPSEST_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers(launched: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """The processes that torchrun started, by rank."""
    children = psutil.Process(launched.pid).children(recursive=True)
    return {child.environ()["RANK"]: child for child in children if "dashboard.cli" in child.cmdline()}


def pair(caches: tuple[Path, Path], models: tuple[Path, Path]) -> list[tuple[int, str, str]]:
    """Status, stdout and stderr of two processes that were started by hand, as on two machines."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    team = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "dashboard.cli", *words(model)],
            cwd=ROOT,
            env={**os.environ, **team, "RANK": str(rank), "PALIMPSEST_CACHE": str(cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, (cache, model) in enumerate(zip(caches, models, strict=True))
    ]
    said = [process.communicate(timeout=100) for process in started]
    return [(process.returncode, *texts) for process, texts in zip(started, said, strict=True)]


def report_of(launched: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    """What process 0 reports, and stderr; nobody else says anything on stdout."""
    stdout, stderr = launched.communicate(timeout=100)
    assert launched.returncode == 0, stderr
    answer: dict[str, Any] = json.loads(stdout)
    return answer, stderr


# Together


def test_three_processes_give_the_bits_of_one(model, alone, tmp_path):
    answer, stderr = report_of(torchrun(3, model, tmp_path))
    assert stderr == ""
    assert answer["processes"] == 3
    assert files_in(tmp_path) == alone
    assert list((tmp_path / "statistics" / "partial").iterdir()) == []


def test_a_worker_that_is_killed_costs_its_block_and_the_restarted_team_gives_the_same_bits(
    model, alone, tmp_path
):
    launched = torchrun(2, model, tmp_path, "--max-restarts=1")
    claims = tmp_path / "statistics" / "partial"
    while not list(claims.glob("claims-*/000015.lock")):
        assert launched.poll() is None
        time.sleep(0.01)
    workers(launched)["1"].send_signal(signal.SIGKILL)
    answer, stderr = report_of(launched)
    assert (
        "stopped. What is finished is kept" in stderr
    )  # torchrun ended the other one, which saved what it had
    found = [line for line in answer["log"] if line.endswith("samples were there already")]
    assert int(found[0].split()[0].replace(",", "")) >= 500
    assert files_in(tmp_path) == alone


# Not together


def test_processes_with_different_weights_are_told_so_once(model, tmp_path):
    other = saved(tmp_path / "other", seed=1)
    first, second = pair((tmp_path, tmp_path), (model, other))
    line = "palimpsest: error: the weights of process 1 are not those of process 0; expected [^\n]+\n"
    assert re.fullmatch(line, first[2])
    assert (first[:2], second) == ((1, ""), (1, "", ""))
    assert files_in(tmp_path) == {}


def test_processes_that_do_not_share_a_folder_are_told_so_once(model, tmp_path):
    first, second = pair((tmp_path / "here", tmp_path / "there"), (model, model))
    line = "palimpsest: error: process 1 does not see the cache folder of process 0; [^\n]+PALIMPSEST_CACHE[^\n]+\n"
    assert re.fullmatch(line, first[2])
    assert (first[:2], second) == ((1, ""), (1, "", ""))
    assert list((tmp_path / "here" / "statistics").iterdir()) == []


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "2 processes that do not reach each other"),
        ({"RANK": "first", "WORLD_SIZE": "2"}, "RANK=first"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "-1"}, "LOCAL_RANK=-1"),
    ],
)
def test_an_environment_that_torchrun_did_not_make_is_refused(model, environment, found, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    done = CliRunner().invoke(main, words(model), env=environment)
    assert done.exit_code == 1
    assert re.fullmatch(r"palimpsest: error: [^\n]+\n", done.stderr)
    assert found in done.stderr


def test_a_file_counts_as_shared_if_its_lock_is_seen_too(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "SEEN_WITHIN", 0.0)
    path = tmp_path / "team.lock"
    assert distributed._look_for(path) == distributed.ABSENT
    with FileLock(path):
        assert distributed._look_for(path) == distributed.SHARED
    path.touch()
    assert distributed._look_for(path) == distributed.UNLOCKED


def test_members_find_those_who_are_alive_on_a_board_with_messages_of_the_dead(tmp_path):
    board, _, _ = next(rendezvous(f"file://{tmp_path}/board?rank=0&world_size=3"))
    tokens: dict[int, str] = {}
    for rank in (1, 2):
        board.set(f"here/{rank}", f"dead-{rank}")

    def accept(rank: int) -> None:
        tokens[rank] = distributed._accept(board, rank)

    members = [threading.Timer(0.05 * rank, accept, [rank]) for rank in (1, 2)]
    for member in members:
        member.start()
    token = distributed._invite(board, 3)
    for member in members:
        member.join()
    assert tokens == {1: token, 2: token}


# Devices


def devices(wanted: str, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    return list(map(str, Team.here(wanted).devices))


@pytest.mark.parametrize(
    ("wanted", "gpus", "local", "found"),
    [
        ("auto", 0, None, ["cpu"]),
        ("auto", 2, None, ["cuda:0", "cuda:1"]),
        ("auto", 2, "1", ["cuda:1"]),
        ("cuda", 2, "0", ["cuda:0"]),
        ("cpu", 2, "1", ["cpu"]),
        ("cuda:1", 2, None, ["cuda:1"]),
    ],
)
def test_alone_all_gpus_work_and_in_a_team_each_process_has_its_own(wanted, gpus, local, found, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    environment = {} if local is None else {"RANK": local, "WORLD_SIZE": "2", "LOCAL_RANK": local}
    assert devices(wanted, environment, monkeypatch) == found


@pytest.mark.parametrize(
    ("wanted", "gpus", "local"), [("cuda", 0, None), ("cuda:2", 2, None), ("auto", 2, "2"), ("gpu", 2, None)]
)
def test_a_device_that_is_not_there_is_refused_with_those_that_are(wanted, gpus, local, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    environment = {} if local is None else {"RANK": local, "WORLD_SIZE": "3", "LOCAL_RANK": local}
    with pytest.raises(
        RequestError, match=f"device '{wanted}'.* expected auto or (one that this machine has: .*)?cpu"
    ):
        devices(wanted, environment, monkeypatch)
