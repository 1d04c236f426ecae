"""A rule: a change of a generator's weights as a frozen value.

A `Rule` is ``W' = W + strength · Λ D`` at one layer, with D [R, C] the directions of a context and Λ [O, R, kh, kw].
Rules add up: `composed` makes the edited weights afresh from the pristine ones, whatever was on before. An ordered set
of rules with switches, undo and redo is a `rewrite_core.rules.stack.RuleStack`.

A rule file is a small safetensors file (kilobytes, nothing executable) whose header says which generator the rule was
made for and how; it is refused on another generator unless `Rule.adopted_by` says otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from rewrite_core.directions import Direction
from rewrite_core.errors import FileError, LayerError, ModelMismatch, RequestError
from rewrite_core.files import (
    read_json,
    read_safetensors,
    require_finite,
    to_safetensors_bytes,
    write_safetensors,
)
from rewrite_core.generators import Generator
from rewrite_core.rules.low_rank import change, orthonormalised
from rewrite_core.settings import Settings

__all__ = ["Provenance", "Rule", "composed", "versions"]

STRONGEST = 100
"""The greatest strength, either way."""


class Provenance(Settings):
    """Where a rule comes from: enough to make it again."""

    version: Literal[1] = 1
    model: str
    fingerprint: str
    layer: str
    name: str = ""
    strength: float = Field(default=1.0, ge=-STRONGEST, le=STRONGEST)
    beneath: tuple[str, ...] = ()
    """Digests of the rules that were on when this one was made."""
    merged: tuple[str, ...] = ()
    """Digests of the rules that this one is the sum of (`rewrite_core.rules.merging`)."""
    request: dict[str, Any] | None = None
    """The edit request, masks resolved, as `EditRequest.to_json` writes it."""
    result: dict[str, float | int | str] = Field(default_factory=dict)
    """Loss before and after, change elsewhere, iterations, as the solver reported them."""
    made_with: dict[str, str] = Field(default_factory=dict)
    """Versions of palimpsest and torch."""


@dataclass(frozen=True, eq=False)
class Rule:
    """``W + strength · ΛD`` at `provenance.layer`: directions D [R, C], delta Λ [O, R, kh, kw]."""

    directions: Tensor
    delta: Tensor
    provenance: Provenance

    @property
    def layer(self) -> str:
        """The layer it changes."""
        return self.provenance.layer

    @property
    def name(self) -> str:
        """What its maker called it."""
        return self.provenance.name

    @property
    def strength(self) -> float:
        """1 as solved, 0 nothing, negative the opposite."""
        return self.provenance.strength

    @property
    def rank(self) -> int:
        """How many directions it uses."""
        return len(self.directions)

    @property
    def digest(self) -> str:
        """SHA-256 of what it does: layer, D, Λ and strength."""
        content = hashlib.sha256(f"{self.layer} {self.strength}".encode())
        for tensor in (self.directions, self.delta):
            content.update(tensor.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes())
        return content.hexdigest()

    def direction(self) -> Direction:
        """What it acts on: its directions D in their order, orthonormalised (each turned the way it was).

        The singular values are those of D as it is stored: all 1 where it was solved with orthonormal directions.

        Raises:
            RequestError: they are not independent.
        """
        vectors, strengths = orthonormalised(self.directions)
        return Direction(
            vectors=vectors,
            layer=self.layer,
            method="rule",
            singular_values=strengths,
            name=self.name,
            provenance={"rule": self.digest, "request": self.provenance.request},
            model=self.provenance.model,
            fingerprint=self.provenance.fingerprint,
        )

    def change(self) -> Tensor:
        """The change of the weight, strength · ΛD, [O, C, kh, kw]."""
        return self.strength * change(self.delta, self.directions)

    def with_strength(self, strength: float) -> Rule:
        """The same rule, stronger or weaker.

        Raises:
            RequestError: if `strength` is out of range or no number.
        """
        if not -STRONGEST <= strength <= STRONGEST:
            raise RequestError(
                found=f"strength {strength}",
                expected=f"a number from -{STRONGEST} to {STRONGEST}",
                remedy="1 is the rule as solved.",
            )
        return self._described(strength=float(strength))

    def renamed(self, name: str) -> Rule:
        """The same rule under another name."""
        return self._described(name=name)

    def check(self, generator: Generator) -> None:
        """Raise unless the rule was made for `generator` and fits its layer.

        Raises:
            ModelMismatch: with both fingerprints.
            LayerError: if the layer is missing or of another shape.
        """
        made_for, have = self.provenance.fingerprint, generator.pristine.fingerprint
        if made_for != have:
            raise ModelMismatch(
                found=f"rule '{self.name}' made for {self.provenance.model} ({made_for[:12]})",
                expected=f"a rule for {generator.name} ({have[:12]})",
                remedy="Open the generator it was made for.",
            )
        self._check_shape(generator)

    def adopted_by(self, generator: Generator) -> Rule:
        """The same rule for another generator of the same shape: the caller vouches for it."""
        self._check_shape(generator)
        return self._described(model=generator.name, fingerprint=generator.pristine.fingerprint)

    def compose(self, generator: Generator) -> Mapping[str, Tensor]:
        """The edited weight, so that a single rule can be given to `Generator.with_rules`."""
        return composed(generator, [self])

    def save(self, path: Path | str) -> None:
        """Write the rule file."""
        write_safetensors(Path(path), *self._content())

    def to_bytes(self) -> bytes:
        """The rule file's content."""
        return to_safetensors_bytes(*self._content())

    @classmethod
    def load(cls, source: Path | str | bytes, what: str = "rule file") -> Rule:
        """Read a rule file, or its content.

        Raises:
            FileError: if it is not a rule file, damaged, or not finite; nothing in it is ever executed.
        """
        if not isinstance(source, bytes):
            source = Path(source)
            what = source.name
        tensors, header = read_safetensors(source, what=what, limit_bytes=256 << 20)
        if "palimpsest" not in header or set(tensors) != {"directions", "delta"}:
            raise FileError(
                found=f"{what}: tensors {', '.join(sorted(tensors)[:4]) or 'none'}",
                expected="a rule file (directions, delta, and a palimpsest header)",
                remedy="Choose a file that Palimpsest saved as a rule.",
            )
        require_finite(tensors, what)
        provenance = Provenance.parse(read_json(header["palimpsest"], what=f"{what} header"), what, FileError)
        directions, delta = tensors["directions"].float(), tensors["delta"].float()
        if directions.ndim != 2 or delta.ndim != 4 or delta.shape[1] != len(directions):
            raise FileError(
                found=f"{what}: D {list(directions.shape)}, Λ {list(delta.shape)}",
                expected="D [R, C] and Λ [O, R, kh, kw]",
                remedy="Save the rule again.",
            )
        return cls(directions, delta, provenance)

    def _described(self, **changes: Any) -> Rule:
        return replace(self, provenance=self.provenance.model_copy(update=changes))

    def _content(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors = {"directions": self.directions.detach().cpu(), "delta": self.delta.detach().cpu()}
        return tensors, {"palimpsest": self.provenance.model_dump_json()}

    def _check_shape(self, generator: Generator) -> None:
        have = tuple(generator.pristine.weight(self.layer).shape)
        fits = (self.delta.shape[0], self.directions.shape[1], *self.delta.shape[2:])
        if fits != have:
            raise LayerError(
                found=f"rule '{self.name}' for a weight {list(fits)}",
                expected=f"{list(have)}, the weight of {self.layer}",
                remedy="Open the generator it was made for.",
            )


def composed(generator: Generator, rules: Iterable[Rule]) -> dict[str, Tensor]:
    """Layer → edited weight [O, C, kh, kw]: the pristine weight plus the change of every rule at it, in their order.

    Raises:
        ModelMismatch, LayerError: if a rule was not made for `generator`.
        RequestError: if a weight becomes too large for float32.
    """
    pristine = generator.pristine
    weights: dict[str, Tensor] = {}  # summed in float64: opposite rules cancel exactly
    for rule in rules:
        rule.check(pristine)
        base = weights.get(rule.layer, pristine.weight(rule.layer).double())
        weights[rule.layer] = base + rule.change().to(base)
    return {layer: _finite(weight.float(), layer) for layer, weight in weights.items()}


def _finite(weight: Tensor, layer: str) -> Tensor:
    if not weight.isfinite().all():
        raise RequestError(
            found=f"rules that make the weight of {layer} infinite or NaN",
            expected="a change that float32 can hold",
            remedy="Lower their strength, or switch them off.",
        )
    return weight


def versions() -> dict[str, str]:
    """Versions of what makes a rule."""
    try:
        own = version("palimpsest")
    except PackageNotFoundError:
        own = "source"
    return {"palimpsest": own, "torch": torch.__version__}
