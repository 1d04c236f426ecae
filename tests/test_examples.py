"""Several copy–paste pairs in one rule, pasted larger, smaller and turned over, and pixels pasted as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rewrite_core.errors import LayerError, MaskError, RequestError
from rewrite_core.generators import Generator, LatentSpec, from_sequential, open_generator
from rewrite_core.generators.own import OwnPicture
from rewrite_core.pictures import Mask, encode_png, to_uint8
from rewrite_core.rules.example import MOST_EXAMPLES
from rewrite_core.rules.goal import copy_paste
from rewrite_core.rules.patch import LARGEST_SIDE, Patch
from rewrite_core.rules.request import EditRequest, Example, Painted
from rewrite_core.rules.rewrite import completed, direction_of, goals_of, rewrite
from rewrite_core.rules.settings import SolverSettings
from rewrite_core.rules.solve import loss_of, solve
from rewrite_core.statistics import LayerStatistics, Store, layer_statistics
from tests.generators import DOWN, PLAIN, painted, seeded, small_generator

REFERENCE = Path(__file__).parent / "reference"
LAST = "last"
PAIR = EditRequest(
    object=painted(1, 2, 2, 8, 8),
    paste=painted(2, 6, 6, 10, 10),
    key=(painted(2, 4, 4, 12, 12),),
    layer=PLAIN,
)
OTHER = Example(painted(3, 0, 0, 6, 10), painted(4, 8, 2, 12, 8))


@pytest.fixture(scope="module")
def small() -> Generator:
    return small_generator()


@pytest.fixture(scope="module")
def statistics(small: Generator, tmp_path_factory: pytest.TempPathFactory) -> LayerStatistics:
    return layer_statistics(small, PLAIN, store=Store(tmp_path_factory.mktemp("store")))


def values(generator: Generator, layer: str, image: int) -> Tensor:
    return generator.values(generator.keys(generator.latents(LatentSpec((image,))), layer))[0]  # [O, H, W]


# Several goals


def test_there_is_a_goal_for_each_pair_in_their_order(small: Generator, statistics: LayerStatistics):
    both = goals_of(small, PAIR.model_copy(update={"examples": (OTHER,)}), statistics)
    alone = [
        copy_paste(small, PLAIN, PAIR),
        copy_paste(small, PLAIN, EditRequest(object=OTHER.object, paste=OTHER.paste)),
    ]
    assert [goal.box for goal in both] == [goal.box for goal in alone]
    assert all(torch.equal(goal.wanted, one.wanted) for goal, one in zip(both, alone, strict=True))


def test_examples_will_do_where_the_first_pair_is_missing(small: Generator, statistics: LayerStatistics):
    only = PAIR.model_copy(update={"object": None, "paste": None, "examples": (OTHER,)})
    only.require_complete()
    (goal,) = goals_of(small, only, statistics)
    assert torch.equal(goal.wanted, copy_paste(small, PLAIN, PAIR, OTHER).wanted)
    with pytest.raises(RequestError, match="no paste in the edit"):
        only.model_copy(update={"object": PAIR.object}).require_complete()


def test_several_goals_pull_alike_and_each_has_its_loss(small: Generator, statistics: LayerStatistics):
    request = PAIR.model_copy(update={"examples": (OTHER,)})
    goals = goals_of(small, request, statistics)
    directions = direction_of(small, completed(request, small), statistics).vectors.float()
    settings = SolverSettings(locality=0.1, iterations=60)
    together = solve(small, goals, directions, statistics, settings)
    singly = [solve(small, goal, directions, statistics, settings) for goal in goals]

    def objective(delta: Tensor) -> float:
        weight = small.weight(PLAIN) + torch.einsum("oryx,rc->ocyx", delta, directions)
        shares = [
            loss_of(small, goal, weight) / one.loss_before for goal, one in zip(goals, singly, strict=True)
        ]
        return sum(shares) / len(shares)

    assert objective(together.delta) < min(objective(one.delta) for one in singly)
    assert together.loss == pytest.approx(sum(goal.after for goal in together.goals) / 2)
    assert together.loss_before == pytest.approx(sum(one.loss_before for one in singly) / 2)
    told = together.summary()
    assert [told["loss_1"], told["loss_2"]] == [goal.after for goal in together.goals]
    assert told["loss_before_2"] == singly[1].loss_before


def test_one_goal_is_solved_as_if_there_could_be_no_other(small: Generator, statistics: LayerStatistics):
    (goal,) = goals_of(small, PAIR, statistics)
    directions = direction_of(small, completed(PAIR, small), statistics).vectors.float()
    alone, listed = (solve(small, one, directions, statistics, SolverSettings()) for one in (goal, [goal]))
    assert torch.equal(alone.delta, listed.delta)
    assert "loss_1" not in alone.summary()
    twice = solve(small, [goal, goal], directions, statistics, SolverSettings())
    torch.testing.assert_close(twice.delta, alone.delta, rtol=1e-4, atol=1e-6)


def test_a_demodulated_layer_follows_several_examples_too(tmp_path: Path):
    generator = open_generator(REFERENCE / "small_stylegan2.pt")
    layer = list(generator.layers)[2]
    request = PAIR.model_copy(update={"layer": layer, "examples": (OTHER,)})
    edit = rewrite(generator, request, store=Store(tmp_path))
    assert all(goal.after < goal.before for goal in edit.solved.goals)
    assert edit.rule.provenance.result["loss_2"] == edit.solved.goals[1].after
    assert EditRequest.from_json(edit.rule.provenance.request or {}).examples == (OTHER,)


# Scale and flip


def posed(generator: Generator, layer: str = DOWN, **how: Any) -> tuple[Tensor, tuple[int, int, int, int]]:
    goal = copy_paste(generator, layer, PAIR.model_copy(update={**how, "layer": layer}))
    return goal.wanted[0], goal.box


@pytest.mark.parametrize(("flip", "axes"), [("horizontal", (2,)), ("vertical", (1,)), ("both", (1, 2))])
def test_a_flip_turns_the_copy_over(small: Generator, flip: str, axes: tuple[int, ...]):
    plain, box = posed(small)
    turned, same = posed(small, flip=flip)
    assert box == same
    top, left, bottom, right = box
    torch.testing.assert_close(
        turned[:, top:bottom, left:right], plain[:, top:bottom, left:right].flip(axes), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(("scale", "side"), [(0.25, 2), (0.5, 3), (1.0, 6), (1.5, 9), (2.0, 12), (4.0, 16)])
def test_the_copy_is_so_many_times_as_large_and_stays_on_the_map(small: Generator, scale: float, side: int):
    _, (top, left, bottom, right) = posed(small, scale=scale)
    assert (bottom - top, right - left) == (side, side)
    assert min(top, left) >= 0
    assert max(bottom, right) <= 16


def test_shrinking_averages_what_it_covers():
    generator = small_generator()
    whole = PAIR.model_copy(update={"object": painted(1, 0, 0, 16, 16), "scale": 0.25, "layer": DOWN})
    goal = copy_paste(generator, DOWN, whole)
    top, left, bottom, right = goal.box
    pasted, copied = goal.wanted[0, :, top:bottom, left:right], values(generator, DOWN, 1)
    assert pasted.shape[1:] == (4, 4)
    assert pasted.mean() == pytest.approx(float(copied.mean()), abs=0.05)
    assert pasted.std() < copied.std()


def test_as_it_is_nothing_is_resampled(small: Generator):
    assert torch.equal(posed(small)[0], posed(small, scale=1.0, flip="none")[0])
    top, left, bottom, right = posed(small)[1]
    copied = values(small, DOWN, 1)[:, 2:8, 2:8]
    torch.testing.assert_close(posed(small)[0][:, top:bottom, left:right], copied, rtol=1e-5, atol=1e-6)


def test_a_copy_of_which_nothing_is_left_is_refused_in_a_line(small: Generator):
    speck = PAIR.model_copy(update={"object": painted(1, 2, 2, 3, 3), "scale": 0.25})
    with pytest.raises(MaskError, match=r"1×1 cells at scale 0\.25; expected a cell of it at least\."):
        copy_paste(small, DOWN, speck)
    ring = np.zeros((16, 16), bool)
    ring[:2], ring[-2:] = True, True
    hollow = PAIR.model_copy(update={"object": Painted(1, Mask.from_array(ring)), "scale": 4.0})
    with pytest.raises(MaskError, match="whose middle is empty, larger than the map"):
        copy_paste(small, DOWN, hollow)


@pytest.mark.parametrize("how", [{"scale": 0.2}, {"scale": 5.0}, {"flip": "sideways"}])
def test_scale_and_flip_have_their_limits(how: dict[str, Any]):
    with pytest.raises(RequestError, match=next(iter(how))):
        Example(PAIR.painted("object"), PAIR.painted("paste"), **how)
    with pytest.raises(RequestError, match=next(iter(how))):
        EditRequest.from_json({"palimpsest": {"version": 1, **how}})


# Pixels


def squashed(last: nn.Module, channels: int = 3) -> Generator:
    stack = nn.Sequential(nn.Linear(4, 48), nn.Unflatten(1, (3, 4, 4)), nn.Conv2d(3, channels, 1))
    stack.add_module("end", last)
    return from_sequential(seeded(stack))


@pytest.mark.parametrize(
    "last", [nn.Tanh(), nn.Sigmoid(), nn.Identity()], ids=["tanh", "sigmoid", "identity"]
)
@pytest.mark.parametrize("channels", [3, 1], ids=["colour", "grey"])
def test_values_of_a_picture_are_rendered_as_that_picture(last: nn.Module, channels: int):
    generator = squashed(last, channels)
    random = torch.Generator().manual_seed(0)
    pictures = torch.rand(2, channels, 4, 4, generator=random).expand(-1, 3, -1, -1) * 1.98 - 0.99
    at = generator.keys(generator.latents(LatentSpec((0, 1))), "2")
    drawn = generator.render(at, generator.unrendered("2", pictures))
    torch.testing.assert_close(drawn, pictures, rtol=0, atol=1e-4)


def test_colours_at_the_limits_come_back_to_a_byte():
    generator = squashed(nn.Tanh())
    random = np.random.default_rng(0)
    pixels = np.concatenate([random.integers(0, 256, (1, 4, 4, 3)), np.full((1, 4, 4, 3), 255)]).astype(
        np.uint8
    )
    pixels[1, :2] = 0
    pictures = torch.cat([Patch(one).picture() for one in pixels])
    at = generator.keys(generator.latents(LatentSpec((0, 1))), "2")
    drawn = to_uint8(generator.render(at, generator.unrendered("2", pictures)))
    assert np.abs(drawn.astype(int) - pixels).max() <= 1


def test_only_a_layer_that_draws_the_picture_itself_permits_pixels(small: Generator):
    assert [name for name in small.layers if small.paints(name)] == [LAST]
    anime = open_generator("anime64-dcgan")
    assert [name for name in anime.layers if anime.paints(name)] == ["l14"]
    request = PAIR.model_copy(update={"object": Patch.of_colour("#102030")})
    with pytest.raises(
        LayerError, match=f"at plain, which does not draw the picture itself; expected {LAST}, which does"
    ):
        completed(request, small)
    gan = open_generator(REFERENCE / "small_stylegan2.pt")
    with pytest.raises(LayerError, match=r"expected a layer that does, and .* has none"):
        completed(request.model_copy(update={"layer": list(gan.layers)[-1]}), gan)


def test_a_colour_fills_the_pasted_region(small: Generator):
    request = EditRequest(object=Patch.of_colour("#e02080"), paste=painted(2, 4, 6, 9, 12))
    goal = copy_paste(small, LAST, request)
    assert goal.box == (4, 6, 9, 12)
    picture = to_uint8(small.render(goal.at, goal.wanted))[0]
    assert np.abs(picture[4:9, 6:12].astype(int) - (0xE0, 0x20, 0x80)).max() <= 1
    before = to_uint8(small.render(goal.at, small.values(goal.at)))[0]
    outside = np.ones((16, 16), bool)
    outside[4:9, 6:12] = False
    np.testing.assert_array_equal(picture[outside], before[outside])


def test_a_patch_is_pasted_pixel_by_pixel_but_where_it_is_transparent(small: Generator):
    rgba = np.random.default_rng(1).integers(10, 245, (4, 6, 4)).astype(np.uint8)
    rgba[..., 3] = 255
    rgba[0, :, 3] = 0
    request = EditRequest(object=Patch.from_png(encode_png(rgba)), paste=painted(2, 6, 5, 10, 11))
    goal = copy_paste(small, LAST, request)
    assert goal.box == (6, 5, 10, 11)
    picture = to_uint8(small.render(goal.at, goal.wanted))[0].astype(int)
    before = to_uint8(small.render(goal.at, small.values(goal.at)))[0]
    assert np.abs(picture[7:10, 5:11] - rgba[1:, :, :3]).max() <= 1
    np.testing.assert_array_equal(picture[6, 5:11], before[6, 5:11])


def test_a_large_patch_is_brought_to_the_picture(small: Generator):
    patch = Patch(np.full((200, 100, 3), 77, np.uint8))
    goal = copy_paste(small, LAST, EditRequest(object=patch, paste=painted(2, 6, 5, 10, 11)))
    assert goal.box == (0, 4, 16, 12)


def test_a_rule_is_solved_for_a_colour(small: Generator, tmp_path: Path):
    request = PAIR.model_copy(update={"object": Patch.of_colour("#ff0000"), "layer": LAST})
    edit = rewrite(small, request, store=Store(tmp_path))
    assert edit.solved.loss < edit.solved.loss_before


# Files


MINE = OwnPicture.of("mine", torch.zeros(8), "z")
FURTHER = PAIR.model_copy(
    update={
        "scale": 1 / 3,
        "flip": "both",
        "examples": (
            Example(
                Painted(MINE, Mask.rectangle((16, 16), 0, 0, 4, 4)), painted(4, 8, 2, 12, 8), 2.5, "vertical"
            ),
            Example(Patch(np.arange(24, dtype=np.uint8).reshape(2, 3, 4)), painted(4, 8, 2, 12, 8)),
        ),
    }
)


@pytest.mark.parametrize(
    "object_", [PAIR.object, Patch.of_colour("#0badca"), None], ids=["region", "colour", "none"]
)
def test_examples_and_patches_come_back_exactly(object_: Any):
    request = FURTHER.model_copy(update={"object": object_})
    assert EditRequest.from_json(request.to_json()) == request
    assert request.own == (MINE,)


def entry(**parts: Any) -> dict[str, Any]:
    data = OTHER.to_json() | parts
    return {
        "palimpsest": {
            "version": 1,
            "examples": [{name: part for name, part in data.items() if part is not ...}],
        }
    }


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"palimpsest": {"version": 1, "examples": 3}}, "examples is 3; expected a list of at most 64"),
        (
            {"palimpsest": {"version": 1, "examples": [{}] * (MOST_EXAMPLES + 1)}},
            "expected a list of at most 64",
        ),
        ({"palimpsest": {"version": 1, "examples": [3]}}, "examples.0 is 3"),
        (entry(object=...), "expected object or patch, and paste"),
        (entry(paste=...), "paste is"),
        (entry(object=[1]), "examples.0.object is [1]"),
        (entry(scale=9), "examples.0: scale is 9"),
        (entry(flip="up"), "examples.0: flip is 'up'"),
        (entry(turn=90), "turn is 90"),
        (entry(patch=Patch.of_colour("#000000").to_data_url()), "both a region and a patch to copy"),
        (entry(object=..., patch="data:image/png;base64,AAAA"), "examples.0.patch: it cannot be decoded"),
        ({"palimpsest": {"version": 1, "patch": 3}}, "palimpsest.patch is '3'"),
        (
            {"palimpsest": {"version": 1, "patch": "data:image/png;base64,%"}},
            "palimpsest.patch: it is not base64",
        ),
        ({"palimpsest": {"version": 1, "alpha": 11}}, "alpha is 11"),
    ],
)
def test_a_wrong_example_or_patch_is_named(data: Any, reason: str):
    with pytest.raises(RequestError) as caught:
        EditRequest.from_json(json.dumps(data), "edit.json")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_patch_too_large_is_refused_before_it_is_decoded():
    wide = encode_png(np.zeros((1, LARGEST_SIDE + 1, 3), np.uint8))
    with pytest.raises(RequestError, match=r"hat\.png: 1×1025 pixels; expected a PNG of at most 1024×1024"):
        Patch.from_png(wide, "hat.png")
    with pytest.raises(RequestError, match="it cannot be decoded"):
        Patch.from_png(b"GIF89a", "hat.png")
    with pytest.raises(RequestError, match="the colour 'red'; expected #rrggbb"):
        Patch.of_colour("red")


def test_a_patch_is_a_value():
    colour = Patch.of_colour("#0a0b0c")
    assert {colour, Patch(np.array([[[10, 11, 12]]], np.uint8))} == {colour}
    assert repr(colour) == "Patch(#0a0b0c)"
    assert not colour.pixels.flags.writeable


def test_an_empty_mask_of_an_example_is_refused():
    empty = Example(Painted(1, Mask.from_array(np.zeros((4, 4), bool))), painted(4, 8, 2, 12, 8))
    with pytest.raises(MaskError, match=r"an empty mask in examples\.0"):
        PAIR.model_copy(update={"examples": (empty,)}).require_complete()


# The published format


def test_a_published_file_is_written_as_it_was_read():
    text = (REFERENCE / "request.json").read_text()
    file = EditRequest.from_json(text).to_published()
    assert file.to_json() == text
    assert file.warning == ""


@pytest.mark.parametrize("size", [(64, 64), (1024, 1024), (100, 60)])
def test_masks_of_any_size_are_written_as_that_interface_has_them(size: tuple[int, int]):
    mask = Mask.rectangle(size, size[0] // 4, 0, size[0] // 2, size[1] // 2)
    file = EditRequest.from_json({"paste": [1, mask.to_data_url()]}).to_published()
    again = EditRequest.from_json(file.to_json())
    found = again.painted("paste").mask
    assert found.size == (256, 256)
    torch.testing.assert_close(found.area((8, 8)), mask.area((8, 8)), rtol=0, atol=0.03)


def test_keys_that_are_missing_stay_missing_and_one_picture_has_one_mask():
    rows = PAIR.latents.model_copy(update={"scheme": "rows"})
    boxes = {2: (0, 0, 64, 64), 5: (0, 0, 64, 64)}
    context = (
        *(painted(image, *box, size=(256, 256)) for image, box in boxes.items()),
        painted(2, 128, 128, 192, 192, size=(256, 256)),
    )
    file = EditRequest(key=context, latents=rows).to_published()
    assert list(file.data) == ["key"]
    assert [number for number, _ in file.data["key"]] == [2, 5]
    both = Mask.from_data_url(file.data["key"][0][1])
    assert both == Mask(context[0].mask.pixels + context[2].mask.pixels)
    assert file.warning == ""


def test_what_that_format_cannot_say_is_named_in_one_line():
    request = FURTHER.model_copy(update={"protect": (painted(1, 0, 0, 4, 4),), "operation": "erase"})
    file = request.to_published()
    assert "palimpsest" not in file.data
    for lost in ("seeds", "scale or flip", "2 more examples", "protected regions", "the operation erase"):
        assert lost in file.warning
    assert "\n" not in file.warning
    mine = request.model_copy(
        update={"object": Painted(MINE, Mask.rectangle((16, 16), 0, 0, 4, 4))}
    ).to_published()
    assert "object" not in mine.data
    assert "pictures of your own" in mine.warning
    assert "(in object)" in mine.warning


def test_the_first_example_stands_in_for_a_missing_pair_there():
    rows = PAIR.latents.model_copy(update={"scheme": "rows"})
    file = EditRequest(examples=(OTHER,), key=PAIR.key, latents=rows).to_published()
    assert (file.data["object"][0], file.data["paste"][0]) == (3, 4)
    assert file.warning == ""
    coloured = EditRequest(object=Patch.of_colour("#102030"), paste=PAIR.paste, key=PAIR.key, latents=rows)
    assert "a colour or a patch" in coloured.to_published().warning


# Removing


def test_removing_needs_a_context_alone_and_leaves_nothing_of_what_it_matches(
    small: Generator, statistics: LayerStatistics
):
    request = EditRequest(operation="remove", key=PAIR.key, layer=PLAIN)
    edit = rewrite(small, request, statistics=statistics)
    assert (edit.solved.loss_before, edit.solved.stopped, edit.solved.goals) == (1.0, "closed form", ())
    assert edit.solved.loss < 1e-6
    assert edit.solved.elsewhere > 0
    weight = small.weight(PLAIN).double() + edit.rule.change().double()
    pattern = edit.direction.pattern(statistics.second_moment)[0]
    left = torch.einsum("ocyx,c->oyx", weight, pattern).norm()
    assert left < 1e-5 * torch.einsum("ocyx,c->oyx", small.weight(PLAIN).double(), pattern).norm()
    assert EditRequest.from_json(edit.rule.provenance.request or {}).operation == "remove"
    with pytest.raises(RequestError, match="no key in the edit"):
        request.model_copy(update={"key": ()}).require_complete()


def test_a_given_direction_is_removed_or_scaled_without_a_context(
    small: Generator, statistics: LayerStatistics
):
    given = direction_of(small, completed(PAIR, small), statistics)
    request = EditRequest(operation="remove", given=given, layer=PLAIN, alpha=0.5)
    edit = rewrite(small, request, statistics=statistics)
    assert edit.solved.loss == pytest.approx(0.5, abs=1e-5)
    none = rewrite(small, request.model_copy(update={"alpha": 1.0}), statistics=statistics)
    assert not none.rule.change().any()
    assert none.solved.elsewhere == 0
