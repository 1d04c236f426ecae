"""A generator under rules as files: in our own layout, in the one that it came in, or only what differs.

Every form is a mapping from file name to content, to be written into one folder, and carries a record of what was done:
in the header of a safetensors file, as the entry ``palimpsest`` of a checkpoint that has other entries beside the
network's dictionary, and always as ``palimpsest.json`` beside. A record is plain JSON.

* ``safetensors``: ``model.json`` and ``model.safetensors``, float32, which opens here again.
* ``own``: names, shapes and types of the file that the generator was opened from, so that it opens in the tool it came
  from. Only the edited weights differ. What a training checkpoint holds beside the network is left out; a network
  pickle of NVIDIA's is kept whole, with the edited weights in their places.
* ``delta``: for each edited weight what is to be added to it, float32, under its name in that file.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from rewrite_core.errors import FileError
from rewrite_core.files import read_bytes, to_safetensors_bytes, write_bytes
from rewrite_core.generators.generator import Generator
from rewrite_core.generators.nvidia_pickle import read_network, rewritten
from rewrite_core.generators.source import LARGEST_FILE

__all__ = ["FORMS", "RECORD", "Form", "difference", "export", "exported"]

Form = Literal["safetensors", "own", "delta"]
FORMS: tuple[Form, ...] = get_args(Form)
RECORD = "palimpsest"


def export(generator: Generator, folder: Path, form: Form, record: Mapping[str, Any]) -> list[Path]:
    """Write the files of `exported` into a folder that exists.

    Raises:
        FileError: as `exported` and `write_bytes`.
    """
    files = exported(generator, form, record)
    for name, content in files.items():
        write_bytes(folder / name, content)
    return [folder / name for name in files]


def exported(generator: Generator, form: Form, record: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of one form: name → content.

    Raises:
        FileError: if the generator cannot be written in this form.
    """
    header = {"fingerprint": generator.fingerprint, RECORD: json.dumps(record)}
    if form == "safetensors":
        files = generator.files()
    elif form == "delta":
        name = f"{_file_stem(generator)}-delta.safetensors"
        files = {name: to_safetensors_bytes(difference(generator), header)}
    else:
        files = _own(generator, header)
    return files | {f"{RECORD}.json": json.dumps(record, indent=1).encode()}


def difference(generator: Generator) -> dict[str, Tensor]:
    """What the rules of a view add to each weight that they change, under the name that its file has for it."""
    before, places = generator.pristine.stored(), generator.layout.places if generator.layout else {}
    changed = {}
    for ours, tensor in generator.stored().items():
        if not torch.equal(tensor, before[ours]):
            name = places[ours].name if ours in places else ours
            changed[name] = (tensor - before[ours]).cpu()
    return changed


def _own(generator: Generator, header: Mapping[str, str]) -> dict[str, bytes]:
    tensors = generator.own_layout()
    layout = generator.layout
    assert layout is not None, "own_layout() has refused"
    if layout.original is not None:
        name = f"{_file_stem(generator)}{layout.suffix}"
        return {name: _in_place(layout.original, generator, tensors)}
    described = layout.description is not None
    name = f"{'model' if described else _file_stem(generator)}{layout.suffix}"
    files = {"model.json": json.dumps(layout.description, indent=1).encode()} if described else {}
    if generator.assumed:  # what told its steps may be what the rules have changed
        files["model.json"] = generator.files()["model.json"]
    if layout.suffix == ".safetensors":
        return files | {name: to_safetensors_bytes(tensors, header)}
    tree = layout.tree(tensors)
    if layout.nested & tree.keys():
        tree[RECORD] = json.loads(header[RECORD])  # plain texts: torch's own version number is an object
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return files | {name: buffer.getvalue()}


def _file_stem(generator: Generator) -> str:
    """Its name as that of a file: a description of unknown origin gives it, and may mean another folder."""
    return re.sub(r"[^\w. +()-]+", "-", generator.name).strip("-. ")[:100] or "model"


def _in_place(original: Path, generator: Generator, tensors: Mapping[str, Tensor]) -> bytes:
    """The network pickle that the generator was opened from, with the edited weights; else the same bytes.

    Raises:
        FileError: if the file is gone or another one by now.
    """
    what = original.name
    content = read_bytes(original, what=what, limit_bytes=LARGEST_FILE)
    there = read_network(content, what=what, limit_bytes=LARGEST_FILE).tensors
    before = generator.pristine.own_layout()
    if not all(name in there and torch.equal(there[name], tensor) for name, tensor in before.items()):
        raise FileError(
            found=f"{what}, which has changed since it was opened",
            expected="the network that the rules were put on",
            remedy="Open it again.",
        )
    changed = {name: tensor for name, tensor in tensors.items() if not torch.equal(tensor, before[name])}
    return rewritten(content, changed, what=what)
