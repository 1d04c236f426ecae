"""Rules: files that open only as what they are, on the generator they were made for; values that add up."""

import json
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rewrite_core.errors import FileError, LayerError, ModelMismatch, RequestError
from rewrite_core.files import read_safetensors, to_safetensors_bytes
from rewrite_core.generators import Generator, open_generator
from rewrite_core.rules.rule import Rule
from tests.generators import DOWN, PLAIN, UP, small_generator, some_rule


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


def formula(generator: Generator, rules: list[Rule], layer: str) -> Tensor:
    """``W + Σ strength · ΛD`` in float64."""
    weight = generator.weight(layer).double()
    for rule in rules:
        change = torch.einsum("oryx,rc->ocyx", rule.delta.double(), rule.directions.double())
        weight = weight + rule.strength * change
    return weight


def same(one: Rule, other: Rule) -> bool:
    tensors = torch.equal(one.directions, other.directions) and torch.equal(one.delta, other.delta)
    return tensors and one.provenance == other.provenance


# Files


def test_a_rule_survives_its_file(small: Generator, tmp_path: Path):
    rule = some_rule(small).with_strength(0.7)
    path = tmp_path / "hat.safetensors"
    rule.save(path)
    for again in (Rule.load(path), Rule.load(str(path)), Rule.load(rule.to_bytes())):
        assert same(again, rule)
        assert again.digest == rule.digest
    assert path.read_bytes() == rule.to_bytes() == rule.to_bytes()
    assert (rule.rank, rule.layer, rule.name, rule.strength) == (2, PLAIN, "a rule", 0.7)


def test_a_rule_file_is_safetensors_with_a_readable_header(small: Generator):
    tensors, header = read_safetensors(some_rule(small).to_bytes(), what="a rule")
    assert set(tensors) == {"directions", "delta"}
    content = json.loads(header["palimpsest"])
    assert content["fingerprint"] == small.fingerprint
    assert content["layer"] == PLAIN
    assert content["request"] == {"palimpsest": {"rank": 2}}
    assert content["result"]["loss"] == 0.25
    assert set(content["made_with"]) == {"palimpsest", "torch"}


def test_a_rule_in_half_precision_is_read_as_float32(small: Generator):
    tensors, header = read_safetensors(some_rule(small).to_bytes(), what="a rule")
    halved = to_safetensors_bytes({name: tensor.half() for name, tensor in tensors.items()}, header)
    assert Rule.load(halved).delta.dtype == torch.float32


def rewritten(
    rule: Rule,
    store: Callable[[dict[str, Tensor]], Any] = lambda tensors: None,
    describe: Callable[[dict[str, Any]], Any] = lambda header: None,
) -> bytes:
    """The rule's file after `store` and `describe` have had their way with what is in it."""
    tensors, header = read_safetensors(rule.to_bytes(), what="a rule")
    content = json.loads(header["palimpsest"])
    store(tensors)
    describe(content)
    return to_safetensors_bytes(tensors, {"palimpsest": json.dumps(content)})


TENSORS: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "NaN": (lambda t: t["delta"].view(-1)[:3].fill_(torch.nan), "3 of 162 numbers in 'delta' are NaN"),
    "infinity": (lambda t: t["directions"].fill_(torch.inf), "'directions' are NaN or infinite"),
    "no delta": (lambda t: t.pop("delta"), "tensors directions; expected a rule file"),
    "a tensor too many": (lambda t: t.update(extra=torch.ones(2)), "expected a rule file"),
    "flat delta": (lambda t: t.update(delta=torch.ones(9, 2)), r"Λ \[9, 2\]; expected D \[R, C\]"),
    "another rank": (lambda t: t.update(directions=torch.ones(3, 10)), r"D \[3, 10\], Λ \[9, 2, 3, 3\]"),
}


@pytest.mark.parametrize("which", TENSORS)
def test_tensors_that_are_no_rule_are_refused(small: Generator, which: str):
    store, message = TENSORS[which]
    with pytest.raises(FileError, match=message) as problem:
        Rule.load(rewritten(some_rule(small), store), "upload")
    assert str(problem.value).startswith("upload")
    assert "\n" not in str(problem.value)


HEADERS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no layer": (lambda h: h.pop("layer"), "layer"),
    "a number for a layer": (lambda h: h.update(layer=5), "layer is 5"),
    "a text for a strength": (lambda h: h.update(strength="1"), "strength is '1'"),
    "a strength beyond measure": (lambda h: h.update(strength=1e39), r"strength is 1e\+39"),
    "an unknown field": (lambda h: h.update(colour="red"), "colour is 'red'; expected no field of that name"),
    "a later format": (lambda h: h.update(version=2), "version is 2"),
}


@pytest.mark.parametrize("which", HEADERS)
def test_a_header_that_is_wrong_is_refused(small: Generator, which: str):
    describe, message = HEADERS[which]
    with pytest.raises(FileError, match=message) as problem:
        Rule.load(rewritten(some_rule(small), describe=describe))
    assert "\n" not in str(problem.value)


def test_other_files_are_refused_and_never_executed(small: Generator, tmp_path: Path):
    class Trap:
        def __reduce__(self) -> Any:
            return (mark.touch, ())

    mark, data = tmp_path / "executed", some_rule(small).to_bytes()
    others = {
        "pickle": pickle.dumps(Trap()),
        "empty": b"",
        "text": b"a rule",
        "weights": to_safetensors_bytes({"weight": torch.ones(2)}, {}),
        "headless": to_safetensors_bytes(read_safetensors(data, what="a rule")[0], {}),
        "no JSON": to_safetensors_bytes(read_safetensors(data, what="a rule")[0], {"palimpsest": "{"}),
        **{f"cut at {end}": data[:end] for end in (4, 100, len(data) // 2, len(data) - 1)},
    }
    for name, content in others.items():
        with pytest.raises(FileError, match=r"; expected .+\. .+"):
            Rule.load(content, name)
    assert not mark.exists()
    with pytest.raises(FileError, match=r"nothing\.safetensors cannot be read"):
        Rule.load(tmp_path / "nothing.safetensors")


# The generator it was made for


def test_a_rule_for_another_model_is_refused_with_both_fingerprints(small: Generator):
    other = small_generator(1)
    with pytest.raises(ModelMismatch) as problem:
        other.with_rules(some_rule(small))
    assert small.fingerprint[:12] in str(problem.value)
    assert other.fingerprint[:12] in str(problem.value)
    assert "Open the generator it was made for" in str(problem.value)


def test_a_rule_may_be_adopted_by_another_model_of_the_same_shape(small: Generator):
    other, rule = small_generator(1), some_rule(small)
    view = other.with_rules(rule.adopted_by(other))
    torch.testing.assert_close(view.weight(PLAIN), formula(other, [rule], PLAIN).float())
    assert rule.provenance.fingerprint == small.fingerprint
    with pytest.raises(LayerError, match="layer 'plain'; expected one of l02"):
        rule.adopted_by(open_generator("anime64-dcgan"))
    narrow = replace(rule, directions=rule.directions[:, :5])
    with pytest.raises(LayerError, match=r"for a weight \[9, 5, 3, 3\]; expected \[9, 10, 3, 3\]"):
        narrow.adopted_by(other)


def test_a_rule_that_does_not_fit_its_layer_is_refused(small: Generator):
    rule = some_rule(small)
    flat = replace(rule, delta=rule.delta[:, :, :1])
    for wrong in (flat, replace(rule, provenance=rule.provenance.model_copy(update={"layer": "nose"}))):
        with pytest.raises(LayerError):
            small.with_rules(wrong)


def test_a_rule_made_for_the_pristine_network_holds_on_its_views(small: Generator):
    view = small.with_rules(some_rule(small, UP))
    assert torch.equal(
        view.with_rules(some_rule(small)).weight(PLAIN), small.with_rules(some_rule(small)).weight(PLAIN)
    )


# A rule is a value


def test_a_rule_alone_is_its_formula(small: Generator):
    for strength in (1.0, -0.5, 3.0):
        rule = some_rule(small, UP).with_strength(strength)
        composed = rule.compose(small)
        assert set(composed) == {UP}
        torch.testing.assert_close(composed[UP], formula(small, [rule], UP).float(), rtol=1e-5, atol=1e-6)


def test_strength_0_is_the_pristine_weight_to_the_bit(small: Generator):
    view = small.with_rules(some_rule(small).with_strength(0))
    assert torch.equal(view.weight(PLAIN), small.weight(PLAIN))


def test_a_digest_says_what_a_rule_does_and_nothing_else(small: Generator):
    rule = some_rule(small)
    others = [
        some_rule(small, seed=1),
        rule.with_strength(0.5),
        replace(rule, delta=rule.delta + 1e-6),
        replace(rule, directions=rule.directions * 1.001),
        replace(rule, provenance=rule.provenance.model_copy(update={"layer": DOWN})),
    ]
    digests = {rule.digest, *(other.digest for other in others)}
    assert len(digests) == 1 + len(others)
    assert rule.renamed("another name").digest == rule.digest


def test_changing_a_rule_makes_another(small: Generator):
    rule = some_rule(small)
    assert (rule.with_strength(2).strength, rule.strength) == (2.0, 1.0)
    assert (rule.renamed("hat").name, rule.name) == ("hat", "a rule")
    with pytest.raises(FrozenInstanceError):
        rule.delta = rule.delta  # type: ignore[misc]


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 100.1, -1e39])
def test_a_strength_out_of_range_is_refused(small: Generator, strength: float):
    with pytest.raises(RequestError, match="expected a number from -100 to 100"):
        some_rule(small).with_strength(strength)
    with pytest.raises(RequestError):
        some_rule(small).with_strength(strength)


@pytest.mark.parametrize("scale", [1e37, 3e38])
def test_a_weight_that_float32_cannot_hold_is_refused(small: Generator, scale: float):
    rule = some_rule(small)
    huge = replace(rule, delta=torch.full_like(rule.delta, scale)).with_strength(100)
    with pytest.raises(RequestError, match="the weight of plain infinite or NaN") as problem:
        small.with_rules(huge)
    assert "\n" not in str(problem.value)
