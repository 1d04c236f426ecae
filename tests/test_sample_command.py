"""`palimpsest sample` into folders: killed, interrupted, resumed, shared by processes; the files are the same."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rewrite_core import RuleStack
from rewrite_core.generators.bulk_manifest import Manifest
from tests.generators import small_generator, some_rule
from tests.test_cli import answer, palimpsest, refused

ROOT = Path(__file__).resolve().parents[1]
PYTHON = [sys.executable, "-m", "dashboard.cli"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every command runs in a folder with a model of its own."""
    monkeypatch.chdir(tmp_path)
    Path("gan").mkdir()
    for name, content in small_generator().files().items():
        Path("gan", name).write_bytes(content)
    return tmp_path


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def started(*words: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    return subprocess.Popen(
        [*PYTHON, *words],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_pictures(folder: str, count: int) -> None:
    """Until so many pictures are there."""
    deadline = time.monotonic() + 60
    while len(list(Path(folder).glob("seed*.png"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def digests(folder: str) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(folder).iterdir()
        if path.is_file()
    }


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_command_that_was_stopped_goes_on_where_it_was(end):
    words = ["sample", "gan", "--seeds", "0-1999", "--out", "cut/", "--quiet"]
    process = started(*words)
    wait_for_pictures("cut", 25)
    process.send_signal(end)
    _, said = process.communicate(timeout=30)
    assert process.returncode == (-signal.SIGKILL if end == signal.SIGKILL else 1)
    assert end == signal.SIGKILL or "the same command goes on from there" in said
    result = answer(*words)
    assert result["found"] >= 25
    assert result["drawn"] + result["found"] == 2000
    assert result["drawn"] > 0
    assert sorted(digests("cut")) == sorted([*(f"seed{seed:07d}.png" for seed in range(2000)), "sample.json"])


def test_torchrun_shares_the_work_and_the_files_are_those_of_one_process():
    words = ["sample", "gan", "--seeds", "0-299", "--json"]
    answer("sample", "gan", "--seeds", "0-299", "--out", "alone/")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, "-m", "dashboard.cli", *words, "--out", "together/"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # the first process alone speaks
    assert result["drawn"] + result["found"] == 300
    assert digests("together") == digests("alone")


@pytest.mark.parametrize(
    ("kind", "names"),
    [("tar", ["shard-000000.tar"]), ("npy", ["pictures.npy", "pictures.done.npy"])],
)
def test_a_folder_may_be_of_another_format(kind, names):
    result = answer("sample", "gan", "--seeds", "0-29", "--format", kind, "--out", "pictures/")
    assert result["files"] == [f"pictures/{name}" for name in names]
    assert sorted(path.name for path in Path("pictures").iterdir()) == sorted([*names, "sample.json"])


def test_a_rule_holds_in_what_is_drawn_and_is_named_by_the_manifest():
    generator = small_generator()
    rule = some_rule(generator)
    rule.save(Path("rule.safetensors"))
    result = answer("sample", "gan", "--rule", "rule.safetensors", "--seeds", "0-3", "--out", "pictures/")
    assert result["fingerprint"] == generator.with_rules(RuleStack().push(rule)).fingerprint
    assert [record.digest for record in Manifest.load(Path("pictures")).rules] == [rule.digest]


def test_a_folder_of_other_pictures_is_refused_in_one_line():
    answer("sample", "gan", "--seeds", "0-3", "--out", "pictures/")
    line = refused("sample", "gan", "--seeds", "0-3", "--truncation", "0.5", "--out", "pictures/")
    assert "pictures with pictures of truncation 1.0; expected truncation 0.5" in line


def test_a_figure_has_no_format():
    result = palimpsest("sample", "gan", "--format", "tar", "--out", "grid.png")
    assert result.exit_code == 2
    assert "--format is of a folder" in result.output
