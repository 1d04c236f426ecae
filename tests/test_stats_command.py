"""`palimpsest stats`: what lies on disk is shown as it is, checked, deleted and computed."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import threading
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from dashboard.cli import main
from dashboard.commands.stats import stats
from dashboard.sizes import parse_size
from rewrite_core.errors import RequestError
from rewrite_core.generators import LatentSpec, embedded_names, open_generator
from rewrite_core.statistics import SecondMoment, Statistic, Store, default_store, key_of, sweep
from rewrite_core.statistics.gather import gather
from rewrite_core.statistics.key import name_of
from rewrite_core.statistics.ledger import Ledger
from tests.generators import PLAIN, UP, small_generator

ROOT = Path(__file__).parents[1]
DOCUMENTED = [
    shlex.split(line, comments=True)
    for page in (ROOT / "docs").glob("*.md")
    for line in re.findall(
        r"^\S.* stats ((?:list|show|verify|prune|compute)[^`\n]*)$", page.read_text("utf-8"), re.MULTILINE
    )
]
COMMANDS = [stats.commands[name] for name in sorted(stats.commands)]


class Foreign(SecondMoment):
    """A statistic that this release does not know."""

    kind = "foreign"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty cache of its own for each test."""
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    return default_store()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    folder.mkdir()
    for name, content in small_generator().files().items():
        (folder / name).write_bytes(content)
    return folder


def palimpsest(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["stats", *map(str, arguments)], prog_name="palimpsest")


def answer(*arguments: object, status: int = 0) -> Any:
    result = palimpsest(*arguments, "--json")
    assert result.exit_code == status, result.output
    assert result.stderr == ""
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    result = palimpsest(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(r"palimpsest: error: [^\n]+\n", result.stderr)
    return result.stderr


def fill(store: Store, *counts: int) -> list[Path]:
    """Store the second moment over so many samples each, the first one last used."""
    generator = small_generator()
    paths = []
    for age, count in enumerate(counts):
        spec = LatentSpec.of(range(count))
        gather(generator, spec, {PLAIN: [SecondMoment()]}, store=store)
        key = key_of(generator, PLAIN, spec, SecondMoment())
        paths.append(store.folder / f"{name_of(key)}.safetensors")
        os.utime(paths[-1], (time.time() - 3600 * age,) * 2)
    return paths


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def block_of(store: Store) -> Path:
    """A finished block of a statistic under way."""
    generator, empty = small_generator(), SecondMoment()
    key = key_of(generator, UP, LatentSpec.of(range(1000)), empty)
    ledger: Ledger[Statistic] = Ledger(store, key, empty)
    ledger.add(0, sweep(generator, LatentSpec.of(range(100)), {UP: [empty]})[UP][0])
    ledger.save()
    (path,) = ledger.folder.glob("*.safetensors")
    return path


# Help


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_option_says_what_it_is_for_and_is_documented(command):
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert f"### `palimpsest stats {command.name}`" in text
    for option in options:
        assert option.help
        assert f"`{option.opts[0]}`" in text


@pytest.mark.parametrize("line", DOCUMENTED, ids=" ".join)
def test_every_line_of_the_documentation_is_understood(line):
    command = stats.commands[line[0]]
    command.make_parser(click.Context(command)).parse_args(
        line[1:]
    )  # an option that there is not is an error


# List and show


def test_what_is_stored_is_listed_by_what_it_is_of(store):
    first, second = fill(store, 100, 300)
    said = answer("list")
    ours = [row for row in said["statistics"] if not row["shipped"]]
    assert [row["name"] for row in ours] == [first.stem, second.stem]
    assert [row["samples"] for row in ours] == [100, 300]
    assert ours[0]["fingerprint"] == small_generator().fingerprint
    assert (ours[0]["layer"], ours[0]["statistic"], ours[0]["problem"]) == (PLAIN, "second_moment", "")
    assert said["bytes"] == sum(row["bytes"] for row in ours) == first.stat().st_size + second.stat().st_size
    assert said["limit_bytes"] == store.limit_bytes


def test_what_ships_with_an_embedded_model_is_listed_under_its_name():
    shipped = [row for row in answer("list")["statistics"] if row["shipped"]]
    assert {row["model"] for row in shipped} == set(embedded_names())
    for row in shipped:
        assert row["fingerprint"] == open_generator(row["model"]).fingerprint


def test_a_reader_gets_a_table_with_the_total(store):
    (path,) = fill(store, 100)
    fingerprint = small_generator().fingerprint[:8]
    lines = palimpsest("list").stdout.splitlines()
    row = rf"  {path.stem[:12]}  {fingerprint} +{PLAIN} +second_moment +100 +[0-9.]+ kB +\S.*"
    assert re.fullmatch(row, lines[1])
    assert re.match(rf"[0-9.]+ kB of at most 20 GB in {re.escape(str(store.folder))}", lines[-1])


def test_a_file_that_is_no_statistic_is_listed_with_what_is_wrong(store):
    (path,) = fill(store, 100)
    (store.folder / "notes.safetensors").write_text("notes")
    rows = {row["name"]: row for row in answer("list")["statistics"]}
    assert rows["notes"]["problem"]
    assert rows["notes"]["samples"] is None
    assert not rows[path.stem]["problem"]
    assert "notes" in palimpsest("list").stdout


def test_blocks_under_way_are_counted(store):
    assert answer("list")["blocks"] == 0
    block_of(store)
    assert answer("list")["blocks"] == 1
    assert "1 of them blocks of statistics under way" in palimpsest("list").stdout


def test_a_statistic_is_shown_with_its_key_and_what_it_says(store):
    (path,) = fill(store, 100)
    said = answer("show", path.stem[:6])
    key = key_of(small_generator(), PLAIN, LatentSpec.of(range(100)), SecondMoment())
    assert said["key"] == json.loads(json.dumps(key))
    assert (said["file"], said["problem"], said["summary"]["samples"]) == (str(path), "", 100)
    text = palimpsest("show", path.stem).stdout
    assert "samples 100, positions 6,400" in text
    assert 'seeds: "0..99"' in text


def test_showing_does_not_count_as_use(store):
    (_, path) = fill(store, 100, 200)
    before = path.stat().st_mtime
    answer("show", path.stem)
    assert path.stat().st_mtime == before


def test_a_damaged_statistic_is_shown_without_what_it_says_and_stays(store):
    (path,) = fill(store, 100)
    damage(path)
    said = answer("show", path.stem)
    assert "wrong checksum" in said["problem"]
    assert said["summary"] is None
    assert path.exists()


def test_a_statistic_of_another_release_is_shown_by_its_key(store):
    generator, spec = small_generator(), LatentSpec.of(range(10))
    path = store.put(
        key_of(generator, PLAIN, spec, Foreign()), sweep(generator, spec, {PLAIN: [Foreign()]})[PLAIN][0]
    )
    said = answer("show", path.stem)
    assert (said["statistic"], said["summary"]) == ("foreign", None)
    assert "statistic: " in palimpsest("show", path.stem).stdout


def test_a_name_that_nothing_has_is_refused():
    assert "whose name starts with 'xyz'" in refused("show", "xyz")


# Verify


def test_intact_files_pass(store):
    fill(store, 100)
    block_of(store)
    said = answer("verify")
    shipped = sum(row["shipped"] for row in answer("list")["statistics"])
    assert said == {"checked": shipped + 2, "wrong": []}


@pytest.mark.parametrize("make", [lambda store: fill(store, 100)[0], block_of], ids=["result", "block"])
def test_one_wrong_bit_is_found_and_named(store, make):
    path = make(store)
    damage(path)
    said = answer("verify", status=1)
    assert [found["file"] for found in said["wrong"]] == [str(path)]
    line, summary = palimpsest("verify").stdout.splitlines()
    assert line == f"{path}: wrong checksum"
    assert summary.endswith("files checked, 1 cannot be served")
    assert path.exists()


def test_a_block_of_another_statistic_is_found(store):
    path = block_of(store)
    other = store.partial / ("0" * 32)
    path.parent.rename(other)
    assert answer("verify", status=1)["wrong"][0]["file"] == str(other / path.name)


def test_only_those_that_are_named_are_checked(store):
    first, second = fill(store, 100, 200)
    damage(first)
    assert answer("verify", second.stem[:10]) == {"checked": 1, "wrong": []}
    assert answer("verify", second.stem, first.stem, status=1)["checked"] == 2


def test_a_file_of_a_newer_release_is_named_but_is_no_damage(store):
    generator, spec = small_generator(), LatentSpec.of(range(10))
    key = {**key_of(generator, PLAIN, spec, SecondMoment()), "format": 1000}
    path = store.put(key, sweep(generator, spec, {PLAIN: [SecondMoment()]})[PLAIN][0])
    (wrong,) = answer("verify")["wrong"]
    assert wrong["file"] == str(path)
    assert "newer" in wrong["problem"]


# Prune


def test_what_was_used_least_recently_goes_first_until_it_fits(store):
    first, second, third = fill(store, 100, 200, 300)
    keep = first.stat().st_size + second.stat().st_size
    rehearsed = answer("prune", "--keep", f"{keep}B", "--dry-run")
    assert first.exists()
    assert second.exists()
    assert third.exists()
    done = answer("prune", "--keep", f"{keep}B")
    assert done == rehearsed
    assert done["deleted"] == [str(third)]
    assert done["left"] == store.size() == keep
    assert [first.exists(), second.exists(), third.exists()] == [True, True, False]


def test_what_was_set_aside_goes_before_what_is_of_use(store):
    first, second = fill(store, 100, 200)
    damage(first)
    assert (
        store.get(key_of(small_generator(), PLAIN, LatentSpec.of(range(100)), SecondMoment()), SecondMoment())
        is None
    )
    aside = str(first.with_suffix(".damaged"))
    assert answer("prune", "--keep", "3kB", "--dry-run")["deleted"] == [aside]
    assert answer("prune", "--keep", "3kB")["deleted"] == [aside]
    assert second.exists()


def test_blocks_under_way_stay_and_everything_goes_if_asked_for(store):
    (path,), block = fill(store, 100), block_of(store)
    assert answer("prune", "--keep", 0)["deleted"] == [str(path)]
    assert block.exists()
    assert answer("prune", "--all", "--dry-run")["deleted"] == [str(block)]
    assert block.exists()
    assert answer("prune", "--all")["left"] == 0
    assert not store.folder.exists()
    assert all(row["shipped"] for row in answer("list")["statistics"])


@pytest.mark.parametrize("options", [[], ["--all", "--keep", "1GB"]])
def test_it_has_to_be_said_how_much_may_stay(options):
    assert palimpsest("prune", *options).exit_code == 2


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("500MB", 500_000_000),
        ("1.5 GB", 1_500_000_000),
        ("12kb", 12_000),
        ("7b", 7),
        ("2TB", 2 * 10**12),
    ],
)
def test_sizes_are_read_as_people_write_them(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "5", "-1GB", "1 XB", "nan", "GB", "1,5GB", "9" * 30 + "GB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(RequestError, match="as a size; expected a number with B, kB, MB, GB or TB"):
        parse_size(text)


# Compute


def test_statistics_are_computed_stored_and_found_again(store, model):
    said = answer("compute", model, "--layer", PLAIN, "--layer", UP, "--seeds", "0-249", "--truncation", 0.7)
    assert [(found["layer"], found["stored"]) for found in said["statistics"]] == [
        (PLAIN, False),
        (UP, False),
    ]
    expected = sweep(small_generator(), LatentSpec.of(range(250), truncation=0.7), {PLAIN: [SecondMoment()]})[
        PLAIN
    ][0]
    assert said["statistics"][0]["summary"] == dict(expected.summary())
    name = said["statistics"][0]["name"]
    for part, tensor in load_file(store.folder / f"{name}.safetensors").items():
        assert tensor.equal(expected.state()[part])
    again = answer("compute", model, "--layer", PLAIN, "--seeds", "0-249", "--truncation", 0.7)
    assert [(found["name"], found["stored"]) for found in again["statistics"]] == [(name, True)]
    assert again["log"] == []


def test_all_layers_and_all_statistics_can_be_asked_for(model):
    said = answer("compute", model, "--layer", "all", "--statistic", "all", "--seeds", "0-49")
    assert {found["layer"] for found in said["statistics"]} == set(small_generator().layers)
    assert "second_moment" in {found["statistic"] for found in said["statistics"]}
    assert (said["samples"], said["processes"], said["device"]) == (50, 1, "cpu")


def test_a_reader_sees_what_was_computed_and_what_was_there(model):
    words = ("compute", model, "--seeds", "0-199")
    first, second = palimpsest(*words).stdout, palimpsest(*words).stdout
    assert re.search(
        r"small, 200 samples, [0-9.]+ s on cpu\n1 statistic over 200 samples in 2 blocks\n", first
    )
    assert re.search(r"second_moment  computed  units \d+, samples 200, ", first)
    assert re.search(r"second_moment  was stored  units \d+, samples 200, ", second)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--layer", "l99"], "layer 'l99'"),
        (["--statistic", "median"], "statistic 'median'; expected one of second_moment"),
        (["--device", "cuda:99"], "device 'cuda:99'"),
        (["--device", "quantum"], "device 'quantum'"),
        (["--seeds", "9-3"], "the range 9-3"),
    ],
)
def test_what_there_is_not_is_refused(model, options, found):
    assert found in refused("compute", model, *options)


def test_sigterm_keeps_what_is_finished_and_the_same_command_goes_on_from_there(store, model):
    words = ("compute", model, "--layer", UP, "--seeds", "0-4999")

    def stop() -> None:
        while not list(store.partial.glob("claims-*/000004.lock")):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=stop)
    killer.start()
    stopped = palimpsest(*words)
    killer.join()
    assert stopped.exit_code == 128 + signal.SIGTERM
    assert stopped.stdout == ""
    assert re.fullmatch(r"palimpsest: warning: stopped\. [^\n]+\n", stopped.stderr)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    said = answer(*words)
    (found,) = [line for line in said["log"] if line.endswith("samples were there already")]
    assert int(found.split()[0]) >= 400
    whole = sweep(small_generator(), LatentSpec.of(range(5000)), {UP: [SecondMoment()]})[UP][0]
    for part, tensor in load_file(store.folder / f"{said['statistics'][0]['name']}.safetensors").items():
        assert tensor.equal(whole.state()[part])
