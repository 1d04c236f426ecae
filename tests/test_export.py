"""Export: the layout that a model came in, with only the edited weights changed, and a record of what was done."""

import io
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file
from torch import Tensor

from rewrite_core import Rule
from rewrite_core.errors import FileError
from rewrite_core.generators import (
    Generator,
    LatentSpec,
    Source,
    export,
    exported,
    open_generator,
    open_source,
)
from rewrite_core.generators.checkpoint import embedded_folder
from rewrite_core.generators.export import difference
from rewrite_core.generators.nvidia_pickle import read_network
from rewrite_core.rules.record import record_of
from tests.generators import PLAIN, UP, small_generator, some_rule
from tests.nvidia import pickled, random_stylegan2_ada, random_stylegan3
from tests.stylegan2 import random_stylegan2, sequential_layout

REFERENCE = Path(__file__).parent / "reference"
STYLEGAN2, PROGGAN = REFERENCE / "small_stylegan2.pt", REFERENCE / "small_proggan.pth"


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def content(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def flat(tree: Any) -> dict[str, Tensor]:
    """Tensors by name, those in dictionaries by both names."""
    found: dict[str, Tensor] = {}
    for name, value in tree.items():
        if isinstance(value, Tensor):
            found[name] = value
        elif name != "palimpsest" and isinstance(value, dict):
            found |= {f"{name}.{inner}": tensor for inner, tensor in value.items()}
    return found


def as_loaded(name: str, data: bytes) -> Any:
    return load(data) if name.endswith(".safetensors") else torch.load(io.BytesIO(data), weights_only=True)


def files(kind: str, tmp_path: Path) -> tuple[str, bytes]:
    """A checkpoint of every kind that people have: name and content."""
    whole = content(STYLEGAN2)
    state = whole["g_ema"]
    match kind:
        case "rosinality":
            return "model.pt", STYLEGAN2.read_bytes()
        case "state dict":
            return "model.pt", saved(state)
        case "DataParallel":
            parallel = {f"module.{name}": tensor for name, tensor in state.items()}
            return "model.pt", saved({"g_ema": parallel, "latent_avg": whole["latent_avg"][None]})
        case "half":
            half = {name: tensor.half() for name, tensor in state.items()}
            return "model.pt", saved({"g_ema": half, "latent_avg": whole["latent_avg"].double()})
        case "sequential" | "sequential, apart":
            return "model.pt", saved(sequential_layout(random_stylegan2(3), apart="apart" in kind))
        case "sequential without average":
            return "model.pt", saved(sequential_layout(random_stylegan2(3, average=False)))
        case "proggan":
            return "model.pth", PROGGAN.read_bytes()
        case "proggan, nested":
            return "model.pth", saved({"state_dict": OrderedDict(content(PROGGAN)), "epoch": 3})
        case _:
            save_file(
                flat(content(STYLEGAN2 if "rosinality" in kind else PROGGAN)), tmp_path / "m.safetensors"
            )
            return "model.safetensors", (tmp_path / "m.safetensors").read_bytes()


KINDS = [
    "rosinality", "state dict", "DataParallel", "half", "sequential", "sequential, apart", "sequential without average",
    "proggan", "proggan, nested", "safetensors, rosinality names", "safetensors, proggan names",
]  # fmt: skip


def edited(generator: Generator) -> tuple[Generator, Rule]:
    rule = some_rule(generator, list(generator.layers)[2])
    return generator.with_rules(rule), rule


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_edited_weight_of_a_file_changes_and_it_opens_again(tmp_path: Path, kind: str):
    name, data = files(kind, tmp_path)
    generator = open_source(Source("model", {name: data}))
    view, rule = edited(generator)
    written = exported(view, "own", record_of(view, [rule]))
    assert set(written) == {f"model-edited{Path(name).suffix}", "palimpsest.json"}
    (target,) = (file for file in written if not file.endswith(".json"))
    before, after = flat(as_loaded(name, data)), flat(as_loaded(target, written[target]))
    assert set(before) == set(after)
    assert "safetensors" in name or list(before) == list(after)
    assert all(
        (before[key].shape, before[key].dtype) == (after[key].shape, after[key].dtype) for key in before
    )
    assert sum(not torch.equal(before[key], after[key]) for key in before) == 1
    again = open_source(Source("folder", written))
    tolerance = 0.2 if kind == "half" else 0
    spec = LatentSpec((1, 2))
    torch.testing.assert_close(again.sample(spec), view.sample(spec), rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_rules_is_written_as_it_was(tmp_path: Path, kind: str):
    name, data = files(kind, tmp_path)
    generator = open_source(Source("model", {name: data}))
    before, after = flat(as_loaded(name, data)), generator.own_layout()
    assert set(before) == set(after)
    assert all(
        torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before
    )
    again = open_source(Source("again", exported(generator, "own", {})))
    assert again.fingerprint == generator.fingerprint


def test_a_checkpoint_keeps_its_generator_and_average_and_nothing_of_its_training(tmp_path: Path):
    training = content(STYLEGAN2) | {
        "g": content(STYLEGAN2)["g_ema"],
        "d": {"x": torch.zeros(1)},
        "ada_aug_p": 0.0,
    }
    path = tmp_path / "550000.pt"
    torch.save(training, path)
    view, rule = edited(open_generator(path))
    written = torch.load(
        io.BytesIO(exported(view, "own", record_of(view, [rule]))["550000-edited.pt"]), weights_only=True
    )
    assert list(written) == ["g_ema", "latent_avg", "palimpsest"]
    assert list(written["g_ema"]) == list(training["g_ema"])
    assert written["palimpsest"]["rules"][0]["digest"] == rule.digest


def test_a_state_dict_has_no_entry_that_would_disturb_its_loading():
    view, rule = edited(open_generator(PROGGAN))
    written = exported(view, "own", record_of(view, [rule]))
    assert list(as_loaded("x.pth", written["small_proggan-edited.pth"])) == list(content(PROGGAN))
    record = json.loads(written["palimpsest.json"])
    assert (record["model"], record["fingerprint"]) == ("small_proggan", view.pristine.fingerprint)
    assert record["rules"] == [
        {"name": "a rule", "layer": "layer3", "rank": 2, "strength": 1.0, "digest": rule.digest}
    ]
    assert set(record["made_with"]) == {"palimpsest", "torch"}


def test_a_stack_keeps_its_description_and_counters_beside_one_changed_weight():
    small = small_generator()
    tensors = load(small.files()["model.safetensors"]) | {"norm.num_batches_tracked": torch.tensor(7)}
    tensors["start.weight"] = tensors["start.weight"].half()
    described = {**json.loads(small.files()["model.json"]), "note": "mine", "weights_licence": "MIT"}
    again = open_source(
        Source(
            "stack",
            {"model.json": json.dumps(described).encode(), "model.pt": saved(tensors)},
        )
    )
    view = again.with_rules(some_rule(again, UP))
    written = exported(view, "own", {})
    assert json.loads(written["model.json"]) == described
    after = as_loaded("model.pt", written["model.pt"])
    assert set(after) == set(tensors)
    assert [key for key in tensors if not torch.equal(tensors[key], after[key])] == ["up.weight"]
    assert after["up.weight"].shape == tensors["up.weight"].shape


def test_a_difference_is_what_is_added_to_the_files_own_weights():
    generator = open_generator(STYLEGAN2)
    view, _ = edited(generator)
    (added,) = difference(view).items()
    assert added[0] == "g_ema.convs.1.conv.weight"
    before, after = generator.own_layout(), view.own_layout()
    torch.testing.assert_close(before[added[0]] + added[1], after[added[0]], rtol=0, atol=1e-6)
    assert difference(generator) == {}


def test_a_weight_beyond_the_files_precision_is_refused(tmp_path: Path):
    name, data = files("half", tmp_path)
    generator = open_source(Source("model", {name: data}))
    layer = list(generator.layers)[1]
    view = generator.with_weights({layer: generator.weight(layer) + 1e6})
    with pytest.raises(FileError, match="that float16 cannot hold") as refusal:
        exported(view, "own", {})
    assert "\n" not in str(refusal.value)
    assert set(exported(view, "safetensors", {})) == {"model.json", "model.safetensors", "palimpsest.json"}


def test_a_stack_handed_over_in_python_has_no_file_to_go_back_to():
    view = small_generator().with_rules(some_rule(small_generator(), PLAIN))
    with pytest.raises(FileError, match="small-edited, which was not opened from a file"):
        exported(view, "own", {})
    assert list(difference(view)) == ["plain.weight"]


def test_files_are_written_into_a_folder_and_open_there(tmp_path: Path):
    view, rule = edited(open_generator(STYLEGAN2))
    for form in ("own", "safetensors", "delta"):
        (tmp_path / form).mkdir()
        places = export(view, tmp_path / form, form, record_of(view, [rule]))
        assert {place.name for place in places} == {child.name for child in (tmp_path / form).iterdir()}
    spec = LatentSpec((3,))
    for form in ("own", "safetensors"):
        assert torch.equal(open_generator(tmp_path / form).sample(spec), view.sample(spec))


def test_a_name_from_a_description_names_no_other_folder():
    folder = embedded_folder("face32-dcgan")
    told = json.loads((folder / "model.json").read_text()) | {"name": "../../up/C:\\there"}
    contents: dict[str, Path | bytes] = {
        "model.json": json.dumps(told).encode(),
        "model.safetensors": folder / "model.safetensors",
    }
    view = open_source(Source("model", contents))
    layer = next(iter(view.layers))
    view = view.with_weights({layer: view.weight(layer) + 1})
    assert next(iter(exported(view, "delta", {}))) == "up-C-there-edited-delta.safetensors"


# A network pickle


@pytest.mark.parametrize("make", [random_stylegan2_ada, random_stylegan3])
def test_a_network_pickle_goes_back_byte_for_byte_but_for_the_edited_weight(tmp_path: Path, make: Any):
    path = tmp_path / "network.pkl"
    path.write_bytes(pickled(make()))
    view, rule = edited(open_generator(path))
    written = exported(view, "own", record_of(view, [rule]))
    assert set(written) == {"network-edited.pkl", "palimpsest.json"}
    before, after = path.read_bytes(), written["network-edited.pkl"]
    assert len(before) == len(after)
    names = read_network(before, what="a", limit_bytes=1 << 30).tensors
    again = read_network(after, what="b", limit_bytes=1 << 30).tensors
    assert [name for name in names if not torch.equal(names[name], again[name])] == [
        f"synthesis.{rule.layer}.weight"
    ]
    spec = LatentSpec((1, 2))
    assert torch.equal(open_source(Source("b", written)).sample(spec), view.sample(spec))
    assert list(difference(view)) == [f"synthesis.{rule.layer}.weight"]


def test_a_network_pickle_without_rules_is_written_as_it_was(tmp_path: Path):
    path = tmp_path / "network.pkl"
    path.write_bytes(pickled(random_stylegan2_ada()))
    assert exported(open_generator(path), "own", {})["network.pkl"] == path.read_bytes()


def test_a_network_pickle_that_is_another_or_gone_by_now_is_not_mixed_with_the_edit(tmp_path: Path):
    path = tmp_path / "network.pkl"
    path.write_bytes(pickled(random_stylegan2_ada(0)))
    view, _ = edited(open_generator(path))
    path.write_bytes(pickled(random_stylegan2_ada(0, clamp=None), 4).replace(b"G_ema", b"G_ems"))
    with pytest.raises(FileError, match=r"network\.pkl"):
        exported(view, "own", {})
    path.write_bytes(pickled(random_stylegan2_ada(1)))
    with pytest.raises(FileError, match="has changed since it was opened"):
        exported(view, "own", {})
    path.unlink()
    with pytest.raises(FileError, match=r"network\.pkl"):
        exported(view, "own", {})


def test_an_uploaded_network_pickle_is_not_kept_and_says_so():
    generator = open_source(Source("upload", {"network.pkl": pickled(random_stylegan2_ada())}))
    with pytest.raises(FileError, match="not opened from a file that can be written again"):
        exported(generator, "own", {})
    assert set(exported(generator, "safetensors", {})) == {
        *("model.json", "model.safetensors", "palimpsest.json")
    }
