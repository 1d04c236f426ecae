"""The published algorithm: every array that its own code produced, and what the arrays leave open.

Compact copies of the arrays are in ``reference/``: some hold the leading part of an axis alone. Where the folder
``PALIMPSEST_REFERENCE`` has the whole files, the same tests compare them whole.
"""

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rewrite_core.directions import ContextSettings
from rewrite_core.errors import RequestError
from rewrite_core.generators import Generator, LatentSpec, open_generator
from rewrite_core.memory import heat, matching_query, whiten
from rewrite_core.pictures import Mask, outline, overlay_heat, to_uint8
from rewrite_core.rules.goal import Goal, copy_paste, placed
from rewrite_core.rules.published import (
    PublishedSettings,
    as_published,
    drawn,
    memory_keys,
    only_context,
    projection,
    published_context,
    published_copy,
    published_directions,
    published_edit,
    published_erase,
    published_erased_units,
    published_loss,
    published_matches,
    published_noise,
    published_paste,
    published_second_moment,
    published_solve,
    published_units,
    published_zero,
)
from rewrite_core.rules.request import EditRequest, Painted
from rewrite_core.rules.solve import loss_of

REFERENCE = Path(__file__).parent / "reference"
WHOLE = Path(os.environ.get("PALIMPSEST_REFERENCE", REFERENCE))
MODELS = {"sg": "small_stylegan2.pt", "pg": "small_proggan.pth"}
LAYERS = ("sg_layer6", "sg_layer7", "pg_layer6")
PICTURES = 200
LEVELS, HEAT_LEVELS = (0.01, 0.5, 0.99, 0.999), (0.5, 0.9, 0.99, 0.999)

SHORT = PublishedSettings(iterations=51)
EDITS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # file → changes of request and of settings
    "sg_layer6_edit_rank1_n51": ({}, {}),
    "sg_layer6_edit_rank3_n51": ({"rank": 3}, {}),
    "sg_layer6_edit_fullrank_n51": ({}, {"variant": "full"}),
    "sg_layer6_edit_rank1_linear_n51": ({}, {"variant": "linear"}),
    "sg_layer6_edit_rank1_singlekey0_n51": ({}, {}),
    "sg_layer6_edit_rank1_whole_n51": ({}, {"tight": False}),
    "sg_layer6_erase_rank1_n51": ({"operation": "erase", "erase_units": 8}, {}),
    "sg_layer7_edit_rank1_n51": ({}, {}),
    "pg_layer6_edit_rank1_n51": ({}, {}),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Thousands of steps on small tensors: two threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def golden(name: str) -> dict[str, Tensor]:
    path = WHOLE / f"{name}.npz"
    with np.load(path if path.exists() else REFERENCE / path.name) as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays}


@cache
def small(name: str) -> Generator:
    return as_published(open_generator(REFERENCE / MODELS[name[:2]]))


@cache
def second_moment(name: str, split: Any = "usual") -> Tensor:
    return published_second_moment(small(name), name[3:9], PICTURES, split)


def asked(method: str = "zca", **changes: Any) -> EditRequest:
    request = EditRequest.load(REFERENCE / "request.json")
    return request.model_copy(
        update={"direction": ContextSettings.model_validate({"method": method}), **changes}
    )


def alone(generator: Generator) -> Tensor:
    """Pictures 0 to 7, each drawn by itself: all have the noise of the first place."""
    latents = [generator.latents(LatentSpec((image,), "rows")) for image in range(8)]
    return torch.cat([generator.pictures(one) for one in latents])


def near(found: Tensor, expected: Tensor, tolerance: float, relative: float = 0.0) -> None:
    """Equal to within the tolerance, in the leading part of each axis that `expected` has."""
    found = found[tuple(slice(size) for size in expected.shape)].to(expected.dtype)
    torch.testing.assert_close(found, expected, rtol=relative, atol=tolerance)


def near_up_to_sign(found: Tensor, expected: Tensor, tolerance: float) -> None:
    near(torch.where((found * expected).sum(1, keepdim=True) < 0, -found, found), expected, tolerance)


# Noise


def test_noise_depends_on_the_shape_of_the_batch_and_of_the_map_alone():
    near(published_noise(3, (4, 4)).flatten(1), golden("stylegan_forward")["noise_rows_16"], 1e-7)
    generator = small("sg")
    at = generator.keys(generator.latents(LatentSpec((5, 9))), "layer6")
    assert torch.equal(at.rest["noise"], published_noise(2, (16, 16)))


def test_a_generator_is_taken_without_the_rules_it_is_viewed_through():
    generator = open_generator(REFERENCE / MODELS["sg"])
    view = generator.with_weights({"layer5": 2 * generator.weight("layer5")})
    assert as_published(view).fingerprint == small("sg").fingerprint != generator.fingerprint


def test_a_family_without_noise_is_taken_as_it_is():
    generator = open_generator(REFERENCE / MODELS["pg"])
    assert as_published(generator) is generator


# Context


@pytest.mark.parametrize("name", LAYERS)
def test_the_second_moment_is_the_published_one(name):
    near(second_moment(name), golden(f"{name}_context")["C"], 1e-5)
    near(second_moment(name).diagonal(), golden(f"{name}_context")["mean_square_per_unit"], 1e-3)


@pytest.mark.parametrize("name", LAYERS)
def test_the_whitening_is_the_published_one(name):
    expected, whitening = golden(f"{name}_context"), whiten(second_moment(name))
    near(whitening.zca, expected["zca"], 1e-5)
    near(expected["probe_k"].double() @ whitening.zca, expected["zca_probe"], 2e-5)
    near(expected["probe_k"].double() @ whitening.inverse, expected["Cinv_probe"], 2e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_the_context_is_read_mask_by_mask(name):
    seen, _ = published_context(small(name), name[3:], asked())
    near(seen.keys, golden(f"{name}_context")["obs_selected"], 1e-5)
    near(seen.weights, golden(f"{name}_context")["obs_weight"], 0)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_directions_are_the_published_ones_with_their_signs(name, rank):
    found = published_directions(small(name), name[3:], asked(rank=rank), second_moment(name))
    near(found, golden(f"{name}_context")[f"d_zca_rank{rank}"], 2e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_the_other_methods_are_the_published_ones(name):
    generator, layer, moment, expected = small(name), name[3:], second_moment(name), golden(f"{name}_context")

    def found(method: str, rank: int = 1, **more: Any) -> Tensor:
        return published_directions(generator, layer, asked(method, rank=rank), moment, **more)

    near(found("mean"), expected["d_mean_rank1"], 2e-5)
    near(found("svd"), expected["d_svd_rank3"][:1], 5e-5)
    near_up_to_sign(found("svd", 3), expected["d_svd_rank3"], 5e-5)
    units = published_units(generator, layer, PICTURES)
    assert torch.equal(found("gandissect", 5, units=units).float(), expected["d_gandissect_rank5"])


@pytest.mark.parametrize("name", LAYERS)
def test_one_context_can_be_chosen(name):
    generator, layer, moment, first = small(name), name[3:], second_moment(name), only_context(asked(), 0)
    expected = golden(f"{name}_context")
    near(published_directions(generator, layer, first, moment), expected["d_zca_firstkeyonly_rank1"], 2e-5)
    seen, _ = published_context(generator, layer, first)
    near(matching_query(seen, whiten(moment)), expected["query_key_single_selection"], 2e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_the_search_finds_the_published_pictures(name):
    expected = golden(f"{name}_context")
    found = published_matches(small(name), name[3:], expected["d_zca_rank1"][0], PICTURES)
    assert found.top(12) == expected["search_top12_imgnums"].tolist()
    near(found.heat.flatten(1).amax(1), expected["search_max_per_image"], 1e-5)
    near(expected["search_quantiles"][0, -1:], expected["search_level_q999"], 0)
    for level, value in zip(HEAT_LEVELS, expected["search_quantiles"][0], strict=True):
        assert (found.heat < value).float().mean() == pytest.approx(level, abs=2e-4)  # theirs is a sketch's


@pytest.mark.parametrize("name", LAYERS)
def test_quantiles_of_units_are_the_published_ones_but_for_the_sketch(name):
    expected = golden(f"{name}_context")["unit_quantiles_0_.01_.5_.99_.999_1"]
    units = published_units(small(name), name[3:], PICTURES)
    near(units.amin(0), expected[:, 0], 1e-5)
    near(units.amax(0), expected[:, -1], 1e-5)
    for level, values in zip(LEVELS, expected[:, 1:-1].T, strict=True):
        below, upto = (units < values).float().mean(0), (units <= values).float().mean(0)
        assert ((below - 2e-3 <= level) & (level <= upto + 2e-3)).all()


@pytest.mark.parametrize("name", LAYERS)
def test_the_units_to_erase_are_the_published_ones(name):
    request = asked(erase_units=8)
    found = published_erased_units(small(name), name[3:], request, second_moment(name))
    assert found.tolist() == golden(f"{name}_context")["normdissect_top"].tolist()


# Goals


@pytest.mark.parametrize("name", LAYERS)
def test_the_copied_values_and_their_place_are_the_published_ones(name):
    generator, layer, request, expected = small(name), name[3:], asked(), golden(f"{name}_goal")
    values, area = published_copy(generator, layer, request)
    near(values, expected["object_acts"], 5e-6)
    near(area, expected["object_area"], 0)
    size = generator.layer(layer).value_size
    assert request.painted("object").mask.bounds(size) == tuple(expected["object_bounds_tlbr"].tolist())
    target = request.painted("paste").mask.bounds(size)
    assert placed((area.shape[0], area.shape[1]), target, size) == tuple(
        expected["paste_bounds_tlbr"].tolist()
    )


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["tight", "whole"])
def test_goals_are_the_published_ones(name, kind):
    generator, layer, expected = small(name), name[3:], golden(f"{name}_goal")
    settings = PublishedSettings(tight=kind == "tight")
    goal = published_paste(generator, layer, asked(), settings)
    near(goal.at.keys, expected[f"{kind}_goal_in"], 5e-6)
    near(goal.wanted, expected[f"{kind}_goal_out"], 5e-6)
    weight = generator.weight(layer)
    near(drawn(generator, goal.at, weight, "usual"), expected[f"{kind}_pred_before"], 5e-6)
    near(published_loss(generator, goal, weight), expected[f"{kind}_loss_before"], 1e-6)
    if f"{kind}_goal_in_style" in expected:
        near(goal.at.rest["style"], expected[f"{kind}_goal_in_style"], 1e-6)
    hard = published_paste(generator, layer, asked(), settings.model_copy(update={"alpha": False}))
    near(hard.wanted, expected[f"{kind}_goal_out_noalpha"], 5e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_a_paste_in_the_corner_is_moved_inside(name):
    generator, layer, expected = small(name), name[3:], golden(f"{name}_goal")
    corner = Mask.from_data_url(json.loads((REFERENCE / "masks.json").read_text())["pcorner"])
    goal = published_paste(generator, layer, asked(paste=Painted(7, corner)), PublishedSettings())
    near(goal.at.keys, expected["corner_goal_in"], 5e-6)
    near(goal.wanted, expected["corner_goal_out"], 5e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_the_goal_of_an_erasure_is_the_published_one_and_not_cropped(name):
    expected, request = golden(f"{name}_goal"), asked(erase_units=8)
    goal = published_erase(small(name), name[3:], request, second_moment(name))
    near(goal.at.keys, expected["erase_goal_in"], 5e-6)
    near(goal.wanted, expected["erase_goal_out"], 5e-6)


def test_a_crop_has_other_borders_and_noise_so_it_wants_what_is_not_to_change_changed():
    expected = golden("sg_layer6_extra")
    generator, request = small("sg"), asked()
    tight = published_paste(generator, "layer6", request, PublishedSettings())
    weight = generator.weight("layer6")
    cut = drawn(generator, tight.at, weight, "usual")
    near(cut, expected["pred_before_from_crop"], 5e-6)
    whole = copy_paste(generator, "layer6", request)
    top, left, bottom, right = whole.box
    unchanged = generator.values(whole.at)[..., top:bottom, left:right]
    near(unchanged, expected["unchanged_full_value_cropped"], 5e-6)
    assert (unchanged - cut).abs().mean() == pytest.approx(0.155, abs=1e-3)


@pytest.mark.parametrize("name", LAYERS)
def test_our_whole_goal_and_the_published_one_want_the_same(name):
    generator, layer = small(name), name[3:]
    ours = copy_paste(generator, layer, asked())
    theirs = published_paste(generator, layer, asked(), PublishedSettings(tight=False))
    near(theirs.wanted, ours.wanted, 5e-6)
    box = Goal(theirs.at, theirs.wanted, ours.box)
    weight = generator.weight(layer)
    assert float(published_loss(generator, box, weight)) == pytest.approx(
        loss_of(generator, ours, weight), rel=1e-5
    )


# Edits


def edit_like(file: str, settings: PublishedSettings, directions: Tensor | None = None, **more: Any) -> Any:
    name, (request, changes) = file[:9], EDITS.get(file, ({}, {}))
    wanted = asked(layer=name[3:], **request)
    wanted = only_context(wanted, 0) if "singlekey0" in file else wanted
    moment = second_moment(name)
    settings = settings.model_copy(update=changes)
    return published_edit(small(name), wanted, settings, second_moment=moment, directions=directions, **more)


@pytest.mark.parametrize("file", EDITS)
def test_short_edits_are_the_published_ones_from_request_to_picture(file):
    expected, edit = golden(file), edit_like(file, SHORT)
    near(edit.solution.losses, expected["losses"], 7e-5)
    near(edit.solution.weight, expected["W_after"].squeeze(0), 4e-3)
    near(alone(edit.generator), expected["images_after"], 4e-3)


@pytest.mark.parametrize("file", EDITS)
def test_short_edits_along_the_published_directions_are_closer_still(file):
    steps: dict[int, Tensor] = {}
    rank = EDITS[file][0].get("rank", 1)
    kind = "firstkeyonly_" if "singlekey0" in file else ""
    directions = golden(f"{file[:9]}_context")[f"d_zca_{kind}rank{rank}"]

    def watch(step: int, unknown: Tensor) -> None:
        steps[step] = unknown.clone()

    expected, edit = golden(file), edit_like(file, SHORT, directions, watch=watch)
    near(edit.solution.losses, expected["losses"], 1e-5, relative=1e-6)
    near(edit.solution.weight, expected["W_after"].squeeze(0), 1e-3)
    near(alone(edit.generator), expected["images_after"], 5e-4)
    change = (
        (edit.solution.weight - small(file).weight(file[3:9])).permute(0, 2, 3, 1).flatten(0, 2)
    )  # [O·9, C]
    near(torch.linalg.svdvals(change), expected["sv_delta"], 2e-3)
    for key in (key for key in expected if key.startswith("W_preproj_it")):
        near(steps[int(key.removeprefix("W_preproj_it"))], expected[key].squeeze(0), 1e-3)


def test_edits_start_from_the_published_weights_and_pictures():
    if WHOLE == REFERENCE:
        pytest.skip(
            "the compact copies leave them out: set PALIMPSEST_REFERENCE to a folder with the whole files"
        )
    for file in EDITS:
        near(small(file).weight(file[3:9]), golden(file)["W_before"].squeeze(0), 0)
        near(alone(small(file)), golden(file)["images_before"], 5e-6)


@pytest.mark.parametrize("name", ["sg_layer6", "pg_layer6"])
def test_long_edits_keep_a_weight_of_the_published_loss(name):
    expected = golden(f"{name}_edit_rank1_n2001")
    directions = golden(f"{name}_context")["d_zca_rank1"]
    edit = edit_like(name, PublishedSettings(), directions)
    kept = published_loss(small(name), edit.goal, expected["W_after"].reshape(edit.solution.weight.shape))
    assert edit.solution.loss == pytest.approx(float(kept), rel=2e-3)
    near(edit.solution.losses[:100], expected["losses"][:100], 1e-3)
    near(edit.solution.losses[-10:].mean(), expected["losses"][-10:].mean(), 0, relative=1e-2)


@pytest.mark.parametrize(
    ("array", "rank", "settings", "tolerance"),
    [
        ("edit_rank1_n51", 1, SHORT, 1e-5),
        ("edit_rank3_n51", 3, SHORT, 1e-5),
        ("edit_rank1_linear_n51", 1, SHORT.model_copy(update={"variant": "linear"}), 1e-5),
        ("edit_rank1_gradproj_n51", 1, SHORT.model_copy(update={"variant": "gradient"}), 1e-5),
        ("edit_fullrank_n51", 1, SHORT.model_copy(update={"variant": "full"}), 1e-5),
        ("edit_rank3_n2001", 3, PublishedSettings(), 5e-4),
    ],
)
def test_the_loss_of_the_weight_that_is_kept_is_the_published_one(array, rank, settings, tolerance):
    directions = golden("sg_layer6_context")[f"d_zca_rank{rank}"]
    edit = edit_like("sg_layer6", settings, directions)
    near(torch.tensor(edit.solution.loss), golden("sg_layer6_extra")[f"{array}_final_loss"], tolerance)


def test_the_loss_that_is_shown_is_not_that_of_the_weight_that_is_kept():
    solution = edit_like("sg_layer6_edit_rank1_n51", SHORT).solution
    assert solution.losses[-1] < 0.7 * solution.loss
    assert solution.losses[0] == pytest.approx(solution.loss_before)


def test_zeroing_takes_away_what_reads_the_directions():
    expected, weight = golden("sg_layer6_zero_rank2"), small("sg").weight("layer6")
    found = published_zero(weight, expected["d"])
    near(found, expected["W_after"].squeeze(0), 1e-6)
    assert torch.einsum("ocyx,rc->oryx", found, expected["d"]).abs().max() < 1e-5


@pytest.mark.parametrize("layer", ["layer4", "layer6"])
def test_tiny_values_end_after_the_demodulation(layer):
    generator = small("sg")
    at = generator.keys(generator.latents(LatentSpec((0,), "rows")), layer)
    near(
        drawn(generator, at, generator.weight(layer), "tiny"),
        golden("stylegan_forward")[f"z0_{layer}_dconv_out"],
        3e-6,
    )


@pytest.mark.parametrize("split", ["tiny", "pre"])
def test_the_other_splits_are_the_published_ones(split):
    expected, moment = golden(f"sg_layer6_{split}"), second_moment("sg_layer6", split)
    near(moment, expected["C"], 1e-5)

    def found(method: str) -> Tensor:
        return published_directions(small("sg"), "layer6", asked(method, rank=3), moment, split=split)

    near(found("zca"), expected["d_zca_rank3"], 5e-5)
    if split == "pre":
        near_up_to_sign(found("svd"), expected["d_svd_rank3"], 5e-5)
    settings = SHORT.model_copy(update={"split": split})
    edit = published_edit(small("sg"), asked(layer="layer6"), settings, second_moment=moment)  # of rank 1
    near(memory_keys(edit.goal.at, split), expected["goal_in"], 5e-6)
    near(edit.goal.wanted, expected["goal_out"], 5e-6)
    near(edit.solution.losses, expected["losses"], 7e-5)
    near(edit.solution.weight, expected["W_after"].squeeze(0), 4e-3)


# What the arrays leave open


def test_an_edit_leaves_the_generator_as_it_was():
    generator = small("sg")
    before, pictures = generator.weight("layer6").clone(), alone(generator)
    edit = edit_like("sg_layer6_edit_rank1_n51", SHORT)
    assert torch.equal(generator.weight("layer6"), before)
    assert torch.equal(alone(generator), pictures)
    assert torch.equal(edit.generator.weight("layer6"), edit.solution.weight)


@pytest.mark.parametrize("variant", ["projected", "gradient", "linear"])
def test_the_constrained_variants_stay_along_the_directions(variant):
    settings = PublishedSettings(iterations=7, variant=variant)
    directions = golden("sg_layer7_context")["d_zca_rank2"]
    edit = edit_like("sg_layer7", settings, directions)
    change = edit.solution.weight - small("sg").weight("layer7")
    assert change.abs().max() > 1e-2
    near(projection(change, directions), change, 1e-5)


def test_a_projection_is_one():
    draw = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(6, 2, generator=draw, dtype=torch.float64)).Q.T
    weight = torch.randn(4, 6, 3, 3, generator=draw, dtype=torch.float64)
    once = projection(weight, directions)
    near(projection(once, directions), once, 1e-12)
    inside = torch.einsum(
        "oryx,rc->ocyx", torch.randn(4, 2, 3, 3, generator=draw, dtype=torch.float64), directions
    )
    near(projection(inside, directions), inside, 1e-12)


def test_between_projections_the_weight_leaves_the_directions_and_the_last_brings_it_back():
    directions, pristine = golden("sg_layer6_context")["d_zca_rank1"], small("sg").weight("layer6")

    def stray(weight: Tensor) -> float:
        change = weight - pristine
        return float((change - projection(change, directions)).abs().max())

    strays: list[float] = []
    settings = PublishedSettings(iterations=6, every=4)  # projects after the steps 0, 4 and 5
    edit = edit_like("sg_layer6", settings, directions, watch=lambda _, weight: strays.append(stray(weight)))
    assert len(strays) == len(edit.solution.losses) == 6
    assert 0.04 < strays[1] < strays[2] < strays[3] < strays[4]
    assert strays[5] < strays[4] / 2
    assert stray(edit.solution.weight) < 1e-5


@pytest.mark.parametrize("layer", ["l05", "l08"])
def test_it_runs_on_a_generator_without_styles_or_noise(layer):
    size, boxes = (64, 64), ((2, 23, 16, 38, 28), (28, 26, 15, 40, 25), (6, 25, 16, 39, 26))
    copy, paste, other = (Painted(seed, Mask.rectangle(size, *box)) for seed, *box in boxes)
    request = EditRequest(object=copy, paste=paste, key=(paste, other), layer=layer)
    generator = open_generator()
    moment = published_second_moment(generator, layer, 20)
    edit = published_edit(generator, request, PublishedSettings(iterations=11), second_moment=moment)
    assert edit.solution.loss < edit.solution.loss_before


def test_it_solves_one_of_our_goals_in_its_box():
    generator = small("sg")
    goal = copy_paste(generator, "layer6", asked())
    directions = golden("sg_layer6_context")["d_zca_rank3"]
    solution = published_solve(
        generator, goal, directions, PublishedSettings(iterations=101, variant="linear")
    )
    assert solution.loss_before == pytest.approx(loss_of(generator, goal, generator.weight("layer6")))
    assert solution.loss == pytest.approx(loss_of(generator, goal, solution.weight))
    assert solution.loss < 0.9 * solution.loss_before


def test_units_are_asked_for_where_the_method_ranks_them():
    request = asked("gandissect", layer="layer6")
    with pytest.raises(RequestError, match="without a sample of keys"):
        published_directions(small("pg"), "layer6", request, second_moment("pg_layer6"))


# Pictures


def test_the_overlay_of_a_search_is_the_published_one():
    expected, generator = golden("sg_layer6_extra"), small("sg")
    latents = generator.latents(LatentSpec((74,), "rows"))
    found = heat(generator.keys(latents, "layer6").keys, golden("sg_layer6_context")["d_zca_rank1"][0])
    near(found, expected["heatmap_top1"], 1e-5)
    picture = expected["plain_top1_uint8"].numpy()
    same_bytes(to_uint8(generator.pictures(latents))[0], picture)
    shown = overlay_heat(picture, expected["heatmap_top1"][0], float(expected["overlay_level"]))
    same_bytes(shown, expected["overlay_top1"].numpy())


def test_thumbnails_of_what_was_painted_are_the_published_ones():
    expected, request, pictures = golden("sg_layer6_extra"), asked(), to_uint8(alone(small("sg")))
    painted = request.key[0].mask.area((64, 64)).numpy() > 0.25
    filled = np.where(painted[:, :, None], np.uint8(255), pictures[7])
    same_bytes(filled, expected["context_thumb_key0"].numpy())
    copied = request.painted("object").mask.area((64, 64)).numpy() > 0.25
    same_bytes(outline(pictures[3], copied, (255, 255, 0), 3, dim=0.5), expected["copy_thumb"].numpy())


def test_the_preview_of_a_paste_is_the_published_one():
    expected, generator = golden("sg_layer6_extra"), small("sg")
    goal = published_paste(generator, "layer6", asked(), PublishedSettings(tight=False))
    plain = expected["paste_preview_plain"].numpy()
    same_bytes(to_uint8(generator.render(goal.at, goal.wanted))[0], plain)
    top, left, bottom, right = golden("sg_layer6_goal")["paste_bounds_tlbr"].tolist()
    box = torch.zeros(1, 1, 16, 16)
    box[..., top:bottom, left:right] = 1
    box = functional.interpolate(box, (64, 64), mode="bilinear")
    boxed = outline(plain, box[0, 0].numpy() > 0, (255, 0, 0), 3, dim=0.5)
    same_bytes(boxed, expected["paste_preview_box"].numpy())


def same_bytes(found: Any, expected: Any) -> None:
    """Equal but for values that rounding takes to the next byte."""
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
