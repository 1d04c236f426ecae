"""Family *dcgan*: a bare state dict of a plain stack of convolutions and batch norms, with nothing that describes it.

Names and shapes give the chain of steps (`chain.py`); what the batch norms remember tells the activations and the
latents (`evidence.py`). It opens as the stack that a ``model.json`` would describe where all of this holds:

* one chain can be read off the tensors, and its kernels are those of the recipe;
* two batch norms or more each confirm one reading, with activations after the norms;
* one convolution follows the last norm, with no more than an activation in between.

What is left is by convention, and the generator says so (`Generator.assumed`): the activation before that convolution
is as the one before, the picture comes out of a tanh, ε is 1e-5. Anything else is refused, and `draft` writes the
``model.json`` that is to be checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rewrite_core.errors import FileError
from rewrite_core.generators.chain import Chain, Link, chains, parts_of
from rewrite_core.generators.contents import Contents
from rewrite_core.generators.described import build_stack, underscored
from rewrite_core.generators.description import StackDescription
from rewrite_core.generators.evidence import ACTIVATIONS, NONE, Evidence, evidence_of
from rewrite_core.generators.sequential import SequentialGenerator
from rewrite_core.generators.stack import Activation

__all__ = ["draft", "open_unnamed", "recognise"]


@dataclass(frozen=True)
class _Reading:
    """A description, where its tensors are (name in it → name in the file), what it rests on, what it leaves open."""

    description: Mapping[str, Any]
    names: Mapping[str, str]
    assumed: str
    doubts: tuple[str, ...]


def recognise(contents: Contents) -> bool:
    """Whether there is no description, and some dictionary in the file holds the tensors of a convolutional stack."""
    return contents.description is None and any(_is_stack(contents, prefix) for prefix in contents.prefixes)


def open_unnamed(contents: Contents) -> SequentialGenerator:
    """Open the stack that the tensors can only be.

    Raises:
        FileError: naming what could be otherwise.
    """
    reading = _read(contents)
    if reading.doubts:
        raise FileError(
            found=f"{contents.weights}: a stack without a description, whose tensors leave open {reading.doubts[0]}",
            expected="tensors that tell without doubt, or a model.json beside the file",
            remedy="Write a draft with palimpsest convert IN OUT --draft, check it, and put it beside the file.",
        )
    described = {**reading.description, "note": reading.assumed}
    description = StackDescription.parse(described, f"{contents.weights}, as it was read", FileError)
    return build_stack(contents, description, reading.names, contents.layout(reading.names), reading.assumed)


def draft(contents: Contents) -> str:
    """A ``model.json`` for a stack without one, as far as its tensors tell; its note says what is to be checked.

    Raises:
        FileError: if the tensors are no chain of a linear layer, convolutions and batch norms.
    """
    reading = _read(contents)
    left = f" Left open: {'; '.join(reading.doubts)}." if reading.doubts else ""
    note = f"Draft, to be checked. {reading.assumed}{left}"
    return json.dumps({**reading.description, "note": note}, indent=1, ensure_ascii=False)


def _read(contents: Contents) -> _Reading:
    """The first reading that its norms confirm; without one, the one with the fewest doubts."""
    readings: list[_Reading] = []
    for prefix in filter(lambda prefix: _is_stack(contents, prefix), contents.prefixes):
        names = contents.under(prefix)
        parts = parts_of(contents.called(names).floats()) or []
        for chain in chains(parts, in_order=contents.suffix != ".safetensors"):
            try:
                reading = _described(contents.name, chain, names, prefix.rstrip("."))
            except (KeyError, ValueError, RuntimeError, IndexError, TypeError):
                continue  # a batch norm without a bias, say: no step of a stack
            if not reading.doubts:
                return reading
            readings.append(reading)
        if readings:
            break
    if not readings:
        raise FileError(
            found=f"{contents.weights}: tensors of layers that do not follow each other from latents to a picture",
            expected="a linear layer or none, then convolutions and batch norms up to 1 or 3 channels",
            remedy="Describe the stack in a model.json, or hand a torch.nn.Sequential to from_sequential in Python.",
        )
    return min(readings, key=lambda reading: len(reading.doubts))


def _is_stack(contents: Contents, prefix: str) -> bool:
    names = contents.under(prefix)
    tensors = contents.called(names).tensors
    weights = [name for name, tensor in tensors.items() if name.endswith(".weight") and tensor.ndim == 4]
    return len(weights) > 1 and parts_of(tensors) is not None


def _described(name: str, chain: Chain, names: Mapping[str, str], prefix: str) -> _Reading:
    """`prefix`: what stands before the names in the file."""
    evidence = evidence_of(chain)
    norms = [index for index, link in enumerate(chain.links) if link.part and link.part.is_norm]
    last = norms[-1] if norms else 0
    final = _last_activation(evidence, last, chain.links[-1])
    before = {**dict.fromkeys(range(last + 1, len(chain.links)), final), **evidence.before}
    steps: list[Mapping[str, Any]] = []
    for index, link in enumerate(chain.links):
        if index and link.part and before.get(index, NONE) != NONE:
            steps.append(_act(ACTIVATIONS[before[index]]))
        steps.append(link.step)
    shape = chain.links[-1].shape
    description = {
        "schema": "gen-layers/1",
        "name": name,
        "resolution": max(shape[1:]),
        "channels": shape[0],
        "latent": {"dim": chain.latent_dim, "distribution": evidence.distribution},
        "output_range": [-1.0, 1.0],
        "layers": [*steps, _act(Activation(fn="tanh"))],
    }
    return _Reading(
        description,
        {underscored(ours): theirs for ours, theirs in names.items()},
        _assumed(evidence, final, prefix),
        (*chain.doubts, *_doubts(chain, evidence, norms)),
    )


def _act(step: Activation) -> dict[str, Any]:
    return step.model_dump(mode="json")


def _last_activation(evidence: Evidence, norm: int, link: Link) -> str:
    """By convention as the one before it; none where there is no place for one, or where they precede the norms."""
    hidden = [name for name in evidence.before.values() if name != NONE]
    if link.gap == 0 or evidence.before.get(norm, NONE) != NONE:
        return NONE
    return hidden[-1] if hidden else "ReLU"


def _assumed(evidence: Evidence, final: str, prefix: str) -> str:
    seen = sorted({name for name in evidence.before.values() if name != NONE})
    worst = max(evidence.errors.values(), default=0.0)
    told = f"its batch norms tell {' and '.join(seen) or 'no activation'} and {evidence.distribution} latents"
    origin = f" from {prefix}" if prefix not in ("", "module") else ""
    return (
        f"Read{origin} without a description: names and shapes tell its layers, {told} (error {worst:.2f}). "
        f"By convention: {final} before the last convolution, tanh after it, ε 1e-5."
    )


def _doubts(chain: Chain, evidence: Evidence, norms: list[int]) -> list[str]:
    """What neither shapes nor norms settle."""
    doubts = []
    if len(norms) < 2:
        doubts.append("its activations, since it has fewer than two batch norms")
    elif not evidence.confirmed:
        name, error = max(evidence.errors.items(), key=lambda item: item[1], default=("", 0.0))
        doubts.append(
            f"its activations: no reading fits what its batch norms remember (error {error:.2g} at {name})"
        )
    if any(evidence.before.get(index, NONE) != NONE for index in norms):
        doubts.append("what else is unusual in a stack that activates before its batch norms")
    tail = [link for link in chain.links[norms[-1] + 1 if norms else 0 :] if link.part]
    if len(tail) != 1:
        doubts.append(f"what lies between the {len(tail)} layers after the last batch norm")
    elif (tail[0].gap or 0) > 1 or (tail[0].gap is None and tail[0].step["op"] == "conv2d"):
        doubts.append(f"whether the map is enlarged before {tail[0].step['name']}")
    return doubts
