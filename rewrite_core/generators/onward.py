"""Drawing on from one layer to a later one, for whoever changes keys at several layers of one picture.

`Generator.inputs` stops at layers on the way from the latents, and `Generator.render` goes from a layer to the picture;
this goes from a layer to a layer::

    at = replace(generator.keys(latents, "l02"), keys=changed)
    later = onward(generator, at, "l08")  # the keys of l08 that follow from the changed ones

A family whose generator is neither layered nor one of the two below is refused, in so many words.
"""

from __future__ import annotations

from rewrite_core.errors import LayerError
from rewrite_core.generators.generator import Generator, LayerInput
from rewrite_core.generators.layered import LayeredGenerator
from rewrite_core.generators.proggan import ProgGANGenerator
from rewrite_core.generators.sequential import SequentialGenerator

__all__ = ["onward"]


def onward(generator: Generator, at: LayerInput, layer: str) -> LayerInput:
    """The batch that was stopped at one layer, stopped at a later one; `at` itself if it is there already.

    Raises:
        LayerError: if there is no such layer, or it does not lie behind the batch's.
    """
    names = list(generator.layers)
    here, there = (names.index(generator.layer(name).name) for name in (at.layer, layer))
    if there < here:
        raise LayerError(
            found=f"'{layer}' after '{at.layer}'",
            expected=f"a layer behind '{at.layer}'",
            remedy="Start at the first of the layers.",
        )
    if there == here:
        return at
    if isinstance(generator, LayeredGenerator):
        return _layered(generator, at, layer)
    if isinstance(generator, ProgGANGenerator):
        return _proggan(generator, at, names[here + 1 : there + 1])
    if isinstance(generator, SequentialGenerator):
        return _sequential(generator, at, layer)
    raise LayerError(
        found=f"a generator of the family '{generator.family}' between '{at.layer}' and '{layer}'",
        expected="a family that can be stopped on its way",
        remedy="Change one layer at a time.",
    )


def _layered(generator: LayeredGenerator, at: LayerInput, layer: str) -> LayerInput:
    while at.layer != layer:
        after = generator._next(at, generator.values(at))
        assert after is not None, "the last layer lies behind no other"
        at = after
    return at


def _proggan(generator: ProgGANGenerator, at: LayerInput, names: list[str]) -> LayerInput:
    for name in names:
        x = generator._after(at.layer, generator.values(at))
        at = LayerInput(name, generator._block(name).keys(x), at.latents)
    return at


def _sequential(generator: SequentialGenerator, at: LayerInput, layer: str) -> LayerInput:
    steps = list(generator.network.named_children())
    names = [name for name, _ in steps]
    x = generator.values(at)
    for _, step in steps[names.index(at.layer) + 1 : names.index(layer)]:
        x = step(x)
    return LayerInput(layer, x, at.latents)
