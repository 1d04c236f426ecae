"""A sparse dictionary: what it says of its keys, that it is a value, and files that are sound or refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rewrite_core.directions.dictionary import Dictionary, DictionarySettings, learn_dictionary
from rewrite_core.directions.dictionary_quality import measured
from rewrite_core.directions.direction import Direction
from rewrite_core.directions.layer_keys import LayerKeys, layer_keys
from rewrite_core.errors import Cancelled, FileError, LayerError, ModelMismatch, RequestError
from rewrite_core.files import read_safetensors, to_safetensors_bytes
from rewrite_core.generators import LatentSpec
from rewrite_core.statistics import Store
from tests.generators import DOWN, PLAIN, small_generator, spec
from tests.planted_keys import as_layer, drawn

QUICK = DictionarySettings(features=12, active=2, steps=120, batch=32, rate=1e-2, seed=3)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> LayerKeys:
    return layer_keys(
        small_generator(), PLAIN, spec(20), size=500, store=Store(tmp_path_factory.mktemp("store"))
    )


@pytest.fixture(scope="module")
def dictionary(keys: LayerKeys) -> Dictionary:
    return learn_dictionary(keys, QUICK)


# What it says of keys


def test_a_code_holds_the_greatest_activations_and_nothing_else(keys: LayerKeys, dictionary: Dictionary):
    rows = keys.rows[:50]
    codes = dictionary.encode(rows)  # [50, F]
    heat = rows.float() @ dictionary.encoder.T + dictionary.encoder_bias
    for code, activations in zip(codes, heat, strict=True):
        best = activations.topk(2).indices
        expected = torch.zeros(12)
        expected[best] = activations[best].clamp(min=0)
        torch.testing.assert_close(code, expected)
    torch.testing.assert_close(dictionary.decode(codes), codes @ dictionary.decoder + dictionary.decoder_bias)


def test_rows_of_the_decoder_have_unit_length(dictionary: Dictionary):
    torch.testing.assert_close(dictionary.decoder.norm(dim=1), torch.ones(12))


def test_explained_is_the_variance_of_held_out_keys_that_is_reconstructed(
    keys: LayerKeys, dictionary: Dictionary
):
    held_out = keys.rows[-50:].numpy()
    described = dictionary.decode(dictionary.encode(keys.rows[-50:])).numpy()
    expected = 1 - ((held_out - described) ** 2).sum() / ((held_out - held_out.mean(0)) ** 2).sum()
    assert dictionary.quality.explained == pytest.approx(expected, abs=1e-6)
    assert (dictionary.quality.keys, dictionary.quality.held_out) == (500, 50)
    assert 0.3 < expected < 1


def test_the_baselines_spend_as_many_numbers_on_components_and_on_single_units(
    keys: LayerKeys, dictionary: Dictionary
):
    learned, held_out = keys.rows[:-50].numpy(), keys.rows[-50:].numpy()
    variance = ((held_out - held_out.mean(0)) ** 2).sum()
    axes = np.linalg.svd(learned - learned.mean(0), full_matrices=False)[2][:2]
    off = held_out - learned.mean(0)
    components = 1 - ((off - off @ axes.T @ axes) ** 2).sum() / variance
    single = 1 - (np.sort(off**2, axis=1)[:, :-2]).sum() / variance
    assert dictionary.quality.principal == pytest.approx(components, abs=1e-9)
    assert dictionary.quality.single == pytest.approx(single, abs=1e-9)


def test_removed_is_what_is_lost_when_a_feature_is_silenced(keys: LayerKeys, dictionary: Dictionary):
    codes = dictionary.encode(keys.rows)
    variance = (keys.rows - keys.rows.mean(0)).square().sum()

    def missed(codes: Tensor) -> Tensor:
        return (keys.rows - dictionary.decode(codes)).square().sum()

    for feature in range(12):
        silenced = codes.clone()
        silenced[:, feature] = 0
        expected = (missed(silenced) - missed(codes)) / variance
        assert float(dictionary.quality.removed[feature]) == pytest.approx(float(expected), abs=1e-6)


def test_density_is_the_share_of_keys_and_dead_is_none_of_them(keys: LayerKeys, dictionary: Dictionary):
    silent = replace(dictionary.coder, encoder_bias=dictionary.encoder_bias.clone())
    silent.encoder_bias[4] = -1e6
    quality = measured(silent, keys.rows[:-50], keys.rows[-50:])
    expected = (silent.encode(keys.rows) > 0).double().mean(0)
    assert torch.equal(quality.density, expected)
    assert quality.dead.tolist() == [feature == 4 or bool(expected[feature] == 0) for feature in range(12)]
    assert quality.removed[4] == 0
    assert quality.active == pytest.approx(float(expected.sum()))


def test_the_table_has_a_row_for_each_feature_the_most_telling_first(dictionary: Dictionary):
    table = dictionary.features()
    assert list(table.columns) == ["feature", "density", "explained", "dead", "unit", "cosine"]
    assert sorted(table["feature"]) == list(range(12))
    assert table["explained"].is_monotonic_decreasing
    assert not table.isna().any(axis=None)
    for row in table.itertuples():
        key = dictionary.decoder[row.feature]  # type: ignore[index]
        assert row.unit == int(key.abs().argmax())
        assert row.cosine == pytest.approx(float(key[row.unit]))  # type: ignore[index]


def test_the_table_tells_units_from_what_no_unit_stands_for(dictionary: Dictionary):
    decoder = torch.nn.functional.normalize(torch.ones(12, 10))
    decoder[:3] = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [-0.6, 0.8]]) @ torch.eye(10)[[4, 7]]
    known = replace(dictionary, coder=replace(dictionary.coder, decoder=decoder))
    table = known.features().sort_values("feature", ignore_index=True)
    assert table["unit"][:3].tolist() == [7, 4, 7]
    assert table["cosine"][:3].tolist() == pytest.approx([1.0, -1.0, 0.8])
    assert table["cosine"][5] == pytest.approx(10**-0.5)


# Directions


def test_a_feature_is_a_direction_whose_heat_is_its_activation(keys: LayerKeys, dictionary: Dictionary):
    found = dictionary.direction(5)
    told = found.provenance
    heat = keys.rows @ found.vectors[0]
    activation = keys.rows.float() @ dictionary.encoder[5] + dictionary.encoder_bias[5]
    torch.testing.assert_close(
        (heat * told["scale"] + told["bias"]).float(), activation, rtol=1e-4, atol=1e-4
    )
    assert found.key is not None
    torch.testing.assert_close(found.key.float(), dictionary.decoder[5])
    assert (found.method, found.layer, found.model) == ("dictionary", PLAIN, "small")
    assert Direction.load(found.to_bytes()) == found
    found.check(small_generator())


def test_what_a_file_says_of_the_keys_does_not_pass_for_a_setting(dictionary: Dictionary):
    foreign = replace(dictionary, origin={**dictionary.origin, "settings": {"ridge": 1e308}, "feature": 7})
    assert foreign.direction(2) == dictionary.direction(2)


def test_leading_directions_are_those_of_the_table_without_the_dead(dictionary: Dictionary):
    table = dictionary.features()
    alive = table[~table["dead"]]["feature"].tolist()
    assert [found.provenance["feature"] for found in dictionary.leading(4)] == alive[:4]
    assert len(dictionary.leading(100)) == len(alive)


@pytest.mark.parametrize("feature", [-1, 12])
def test_a_feature_that_is_not_there_is_refused(dictionary: Dictionary, feature: int):
    with pytest.raises(RequestError, match="expected 0 to 11"):
        dictionary.direction(feature)


# Learning


def same(first: Dictionary, second: Dictionary) -> bool:
    return first.to_bytes() == second.to_bytes()


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(keys: LayerKeys, dictionary: Dictionary):
    with torch.inference_mode():
        assert same(learn_dictionary(keys, QUICK), dictionary)
    other = learn_dictionary(keys, QUICK.model_copy(update={"seed": 4}))
    assert not torch.equal(other.encoder, dictionary.encoder)


def test_held_out_keys_are_not_learned_from(keys: LayerKeys, dictionary: Dictionary):
    assert keys.sample.keys is not None
    spoiled = keys.sample.keys.clone()
    spoiled[-50:] += 100 * torch.randn(50, keys.units, generator=drawn(0))
    other = learn_dictionary(replace(keys, sample=replace(keys.sample, keys=spoiled)), QUICK)
    assert torch.equal(other.encoder, dictionary.encoder)
    assert torch.equal(other.decoder_bias, dictionary.decoder_bias)


def test_settings_are_resolved_by_the_width_of_the_layer():
    sizes = [
        (found.features, found.active)
        for found in (DictionarySettings().resolved(units) for units in (1, 32, 256))
    ]
    assert sizes == [(4, 4), (128, 4), (1024, 16)]
    assert DictionarySettings(features=3).resolved(8).active == 3
    found = learn_dictionary(
        as_layer(torch.randn(200, 5, generator=drawn(0)).double()), DictionarySettings(steps=5)
    )
    assert (found.settings.features, found.settings.active) == (20, 4)
    assert found.encoder.shape == (20, 5)


def test_progress_is_told_and_may_cancel(keys: LayerKeys):
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done >= 60:
            raise Cancelled

    with pytest.raises(Cancelled):
        learn_dictionary(keys, QUICK, stop)
    assert told[0] == (0, 120)
    assert told[-1] == (60, 120)
    said: list[int] = []
    learn_dictionary(keys, QUICK, lambda done, total: said.append(done))
    assert said == sorted(said)
    assert said[-1] == 120


@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        (torch.ones(300, 4), {}),
        (torch.zeros(300, 4), {}),
        (torch.randn(10, 4, generator=drawn(0)), {}),
        (torch.randn(30, 4, generator=drawn(0)), {"features": 64}),
        (torch.randn(300, 4, generator=drawn(0)), {"features": 3, "active": 4}),
    ],
)
def test_what_cannot_be_learned_is_refused_in_one_line(rows: Tensor, settings: dict[str, Any]):
    with pytest.raises(RequestError) as refusal:
        learn_dictionary(as_layer(rows), DictionarySettings(steps=5, **settings))
    assert "\n" not in str(refusal.value)


# Files


def test_a_file_holds_all_of_it(dictionary: Dictionary, tmp_path: Path):
    path = tmp_path / "plain.safetensors"
    dictionary.save(path)
    found = Dictionary.load(path)
    assert same(found, dictionary)
    assert same(Dictionary.load(path.read_bytes()), dictionary)
    assert found.features().equals(dictionary.features())
    assert found.quality.explained == dictionary.quality.explained
    assert found.settings == dictionary.settings
    assert found.direction(3) == dictionary.direction(3)
    found.check(small_generator())


def test_it_belongs_to_its_generator_and_layer(dictionary: Dictionary):
    with pytest.raises(ModelMismatch):
        dictionary.check(small_generator(seed=1))
    with pytest.raises(LayerError):
        replace(dictionary, layer="nowhere").check(small_generator())
    with pytest.raises(LayerError):
        replace(dictionary, layer=DOWN).check(small_generator())


def spoiled(dictionary: Dictionary, tensors: dict[str, Tensor], header: dict[str, Any]) -> bytes:
    kept, told = read_safetensors(dictionary.to_bytes(), what="dictionary")
    data = {**json.loads(told["palimpsest"]), **header}
    return to_safetensors_bytes({**kept, **tensors}, {"palimpsest": json.dumps(data)})


@pytest.mark.parametrize(
    ("tensors", "header"),
    [
        ({"encoder": torch.full((12, 10), torch.nan)}, {}),
        ({"encoder": torch.zeros(12, 9)}, {}),
        ({"encoder": torch.zeros(12, 10)}, {}),
        ({"encoder": torch.zeros(12, 10).double()}, {}),
        ({"decoder": torch.zeros(12, 10)}, {}),
        ({"decoder_bias": torch.zeros(10, 1)}, {}),
        ({"density": torch.zeros(11).double()}, {}),
        ({"density": torch.full((12,), 1.5).double()}, {}),
        ({"more": torch.zeros(1)}, {}),
        ({}, {"version": 2}),
        ({}, {"version": "1"}),
        ({}, {"format": "palimpsest-direction"}),
        ({}, {"layer": ""}),
        ({}, {"explained": 1.5}),
        ({}, {"explained": "0.9"}),
        ({}, {"settings": {"features": 13, "active": 2}}),
        ({}, {"settings": {"features": None, "active": 2}}),
        ({}, {"settings": {"features": 12, "active": None}}),
        ({}, {"settings": {"features": 12, "active": 13}}),
        ({}, {"unknown": 1}),
        ({}, {"origin": []}),
    ],
)
def test_a_file_that_is_not_sound_is_refused_in_one_line(
    dictionary: Dictionary, tensors: dict[str, Tensor], header: dict[str, Any]
):
    with pytest.raises(FileError) as refusal:
        Dictionary.load(spoiled(dictionary, tensors, header), "mine")
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).startswith("mine")


def test_a_truncated_or_foreign_file_is_refused(dictionary: Dictionary, tmp_path: Path):
    content = dictionary.to_bytes()
    for data in (content[: len(content) // 2], content[:6], b"", b"\x80\x04pickle", b"{}"):
        with pytest.raises(FileError):
            Dictionary.load(data)
    with pytest.raises(FileError, match=r"missing\.safetensors"):
        Dictionary.load(tmp_path / "missing.safetensors")
    with pytest.raises(FileError):
        Dictionary.load(dictionary.direction(0).to_bytes())
    with pytest.raises(FileError):
        Direction.load(content)


def test_the_keys_of_an_empty_selection_are_refused():
    with pytest.raises(RequestError):
        layer_keys(small_generator(), PLAIN, LatentSpec.of([]))
