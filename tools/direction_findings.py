"""Compute the findings of docs/directions.md again: its tables, in place, and its pictures.

    python tools/direction_findings.py

Takes some minutes. Each table of that page stands between two comments that name it, and is written anew; what the
text says of the numbers is for whoever runs this to check.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from dissect.concepts.catalogue import open_concepts
from dissect.concepts.overlay import labelled
from dissect.direction_figures import Strip, matches_figure, strip
from dissect.direction_plots import curves_figure
from dissect.methods import WITHOUT_RIDGE, MethodComparison, compare_methods
from dissect.paper import save_figure
from rewrite_core import EditRequest, LatentSpec, Mask, Painted, open_generator
from rewrite_core.directions import METHODS, ContextSettings
from rewrite_core.files import write_bytes
from rewrite_core.generators import Generator
from rewrite_core.memory import weighted_mean
from rewrite_core.rules.examples import example_contexts
from rewrite_core.rules.painted import observations_of
from rewrite_core.statistics import SecondMoment, fetch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
OTHERS = LatentSpec.of(range(1000))
"""The pictures that are searched; contexts are painted on later ones."""
PAINTED, DISTILLED = "embedded:painted", "embedded:distilled"
COLUMNS = ("plain", "mean", "zca", WITHOUT_RIDGE, "svd", "gandissect")
FIRST_PAINTED = 2000
"""The pictures from here on are painted on by the concept itself, for the effect of their number."""
NUMBERS = (1, 4, 16, 64, 256)
COLOURS = 256


@dataclass(frozen=True)
class Question:
    """A shipped context and the concept that it is meant to find."""

    model: str
    context: str
    layers: tuple[str, ...]

    @property
    def request(self) -> EditRequest:
        """The painted context."""
        return EditRequest.load(example_contexts(self.model)[self.context])

    def ask(
        self,
        generator: Generator,
        layer: str,
        source: str,
        variants: Mapping[str, ContextSettings] | None = None,
        request: EditRequest | None = None,
    ) -> MethodComparison:
        """The comparison at one layer, judged by the concept of the context's name."""
        concepts = open_concepts(source, generator)
        asked = request or self.request
        return compare_methods(generator, layer, asked, OTHERS, concepts, self.context, variants=variants)


EYES = Question("anime64-dcgan", "eyes", ("l05", "l08", "l11", "l14"))
HAIR = Question("anime64-dcgan", "hair", ("l05", "l08", "l11", "l14"))
FACES = Question("face32-dcgan", "eyes", ("c3", "c4"))


# Tables


def by_layer(question: Question, source: str) -> Iterable[Sequence[str]]:
    """Average precision of every variant, and of what knows nothing or place alone."""
    generator = open_generator(question.model)
    yield ("layer", "chance", *COLUMNS, "place alone")
    for layer in question.layers:
        found = question.ask(generator, layer, source)
        share = next(iter(found.judged.values())).share
        best = max(COLUMNS, key=lambda name: found.judged[name].average)
        cells = [
            emphasised(f"{found.judged[name].average:.3f}", name == best) + f" ({found.hits[name]})"
            for name in COLUMNS
        ]
        yield (f"`{layer}`", f"{share:.3f}", *cells, f"{found.place:.3f}")


def intervals(question: Question) -> Iterable[Sequence[str]]:
    """The whitened mean key against the mean key, with their intervals."""
    generator = open_generator(question.model)
    yield ("layer", "plain", "95 % interval", "mean (whitened)", "95 % interval")
    variants = {method: ContextSettings.model_validate({"method": method}) for method in ("plain", "mean")}
    for layer in question.layers:
        judged = question.ask(generator, layer, PAINTED, variants).judged
        cells = [(f"{one.average:.3f}", f"{one.low:.3f} to {one.high:.3f}") for one in judged.values()]
        yield (f"`{layer}`", *cells[0], *cells[1])


def by_setting(question: Question) -> Iterable[Sequence[str]]:
    """Average precision by ridge and contrast."""
    generator = open_generator(question.model)
    pairs = [(0, 0), (0.1, 0), (1, 0), (10, 0), (0.1, 1), (0.1, 5), (0.1, 20), (0, 5)]
    variants = {
        f"{method} {ridge:g} {contrast:g}": ContextSettings.model_validate(
            {"method": method, "ridge": ridge, "contrast": contrast}
        )
        for method in ("mean", "zca")
        for ridge, contrast in pairs
    }
    layers = question.layers[:3]
    found = [question.ask(generator, layer, PAINTED, variants).judged for layer in layers]
    yield ("ridge", "contrast", *(f"{method}, `{layer}`" for method in ("mean", "zca") for layer in layers))
    for ridge, contrast in pairs:
        cells = [
            f"{judged[f'{method} {ridge:g} {contrast:g}'].average:.3f}"
            for method in ("mean", "zca")
            for judged in found
        ]
        yield (f"{ridge:g}", f"{contrast:g}", *cells)


def by_number(question: Question) -> Iterable[Sequence[str]]:
    """Average precision by how many pictures were painted on, each of them by the concept itself."""
    generator = open_generator(question.model)
    yield ("layer", "method", *(f"{number} painted" for number in NUMBERS))
    variants = {
        "plain": ContextSettings(method="plain"),
        "mean": ContextSettings(method="mean"),
        "mean, ridge 0": ContextSettings(method="mean", ridge=0),
        "zca": ContextSettings(method="zca"),
    }
    for layer in question.layers[:3]:
        found = [
            question.ask(generator, layer, PAINTED, variants, labelled_request(generator, question, number))
            for number in NUMBERS
        ]
        for name in variants:
            yield (f"`{layer}`", name, *(f"{one.judged[name].average:.3f}" for one in found))


def labelled_request(generator: Generator, question: Question, number: int) -> EditRequest:
    """The context as the concept itself paints it on the first `number` pictures that show it."""
    found = labelled(
        generator,
        LatentSpec.of(range(FIRST_PAINTED, FIRST_PAINTED + number)),
        open_concepts(PAINTED, generator),
    )
    masks = found.masks[:, found.names.index(question.context)].numpy()  # [N, H, W]
    regions = [
        Painted(seed, Mask.from_array(mask))
        for seed, mask in zip(found.spec.seeds, masks, strict=True)
        if mask.any()
    ]
    return EditRequest(key=tuple(regions))


def reasons(question: Question) -> Iterable[Sequence[str]]:
    """How like the mean of all keys the painted ones are, and how far `zca` strays from the whitened mean key."""
    generator = open_generator(question.model)
    yield (
        "layer", "k̄ with E[k]", "plain, AP", "mean, AP", "σ₁² / Σσ²", "zca with mean",
    )  # fmt: skip
    for layer in question.layers:
        moment = fetch(generator, layer, OTHERS, SecondMoment())
        seen = observations_of(generator, layer, question.request)
        key = weighted_mean(seen, seen.keys)  # [C]
        found = question.ask(generator, layer, PAINTED)
        zca, mean = found.directions["zca"], found.directions["mean"]
        power = zca.singular_values.square()
        yield (
            f"`{layer}`",
            f"{cosine(key, moment.mean.to(key)):.2f}",
            f"{found.judged['plain'].average:.3f}",
            f"{found.judged['mean'].average:.3f}",
            f"{float(power[0] / power.sum()):.2f}",
            f"{cosine(zca.vectors[0], mean.vectors[0], moment.matrix):.2f}",
        )


def cosine(one: Tensor, other: Tensor, metric: Tensor | None = None) -> float:
    """Cosine of two vectors [C], in a metric [C, C] if one is given."""
    metric = torch.eye(len(one), dtype=one.dtype) if metric is None else metric
    return float(one @ metric @ other / ((one @ metric @ one) * (other @ metric @ other)).sqrt())


def emphasised(text: str, yes: bool) -> str:
    """Bold, if so."""
    return f"**{text}**" if yes else text


TABLES: Mapping[str, Callable[[], Iterable[Sequence[str]]]] = {
    "eyes by layer": lambda: by_layer(EYES, PAINTED),
    "eyes by layer, distilled": lambda: by_layer(EYES, DISTILLED),
    "hair by layer": lambda: by_layer(HAIR, PAINTED),
    "face32 eyes by layer": lambda: by_layer(FACES, PAINTED),
    "intervals": lambda: intervals(EYES),
    "settings": lambda: by_setting(EYES),
    "number": lambda: by_number(EYES),
    "reasons": lambda: reasons(EYES),
}


def write_table(name: str, rows: Iterable[Sequence[str]]) -> None:
    """Put a table in its place on the page."""
    head, *body = rows
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---", *["---:"] * (len(head) - 1)], *body)]
    page = DOCS / "directions.md"
    mark, end = f"<!-- table: {name} -->", "<!-- end of table -->"
    text = page.read_text(encoding="utf-8")
    place = re.compile(re.escape(mark) + ".*?" + re.escape(end), re.DOTALL)
    assert place.search(text), f"docs/directions.md has no table '{name}'"
    table = "\n".join([mark, "", *lines, "", end])
    write_bytes(page, place.sub(lambda _: table, text, count=1).encode())
    print(name, *lines, sep="\n")


# Pictures


def painted_context() -> Figure:
    """What was painted."""
    generator, request = open_generator(EYES.model), EYES.request
    regions = request.key
    seeds = tuple(region.image for region in regions if isinstance(region.image, int))
    pictures = generator.draw(LatentSpec.of(seeds))
    areas = torch.stack([torch.from_numpy(region.mask.pixels.copy()) for region in regions]).float()
    return matches_figure({"eyes": Strip(seeds, pictures, areas)}, 127.0)


def top_pictures(layer: str, count: int = 12) -> Figure:
    """The top pictures of three methods, each outlined at its own level."""
    generator = open_generator(EYES.model)
    found = EYES.ask(generator, layer, PAINTED).matches
    rows = {}
    for name in ("mean", "zca", "plain"):
        some = strip(generator, found[name], found[name].top(count))
        rows[name] = replace(some, heat=some.heat - found[name].level(0.99))
    return matches_figure(rows, 0.0)


def curves(layer: str) -> Figure:
    """Precision against recall."""
    found = EYES.ask(open_generator(EYES.model), layer, PAINTED)
    return curves_figure(found.curves, found.precision, f"eyes at {layer}")


FIGURES: Mapping[str, Callable[[], Figure]] = {
    "context-eyes": painted_context,
    "top-eyes-l11": lambda: top_pictures("l11"),
    "curves-eyes-l05": lambda: curves("l05"),
    "curves-eyes-l08": lambda: curves("l08"),
}


def save_small(figure: Figure, path: Path) -> None:
    """A figure as a PNG of few colours: small, and as good to the eye."""
    image = Image.open(BytesIO(save_figure(figure, "png"))).convert("RGB")
    content = BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(content, format="PNG", optimize=True)
    write_bytes(path, content.getvalue())
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def main() -> None:
    """Every picture, then every table."""
    for name, draw in FIGURES.items():
        save_small(draw(), DOCS / "pictures" / f"{name}.png")
    for name, rows in TABLES.items():
        write_table(name, rows())


if __name__ == "__main__":
    assert set(COLUMNS) == {*METHODS, WITHOUT_RIDGE}, "a method has no column"
    main()
