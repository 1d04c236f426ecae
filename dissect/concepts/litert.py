"""A TensorFlow Lite network, run on the CPU by Google's LiteRT: arrays in, arrays out.

An interpreter holds the arrays it works on, so no two threads may use one: each thread makes its own from the same
bytes, and keeps it for as long as it lives. An interpreter computes with one thread; the same input gives the same
output, to the bit.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dissect.concepts.extras import extra_module
from rewrite_core.errors import FileError

__all__ = ["Array", "LiteNetwork"]

Array = NDArray[np.float32]


class LiteNetwork:
    """One input, one or several outputs, all of fixed shapes.

    Attributes:
        what: the file's name.
        input_shape: of its input, (1, height, width, channels).
        output_shapes: of its outputs, in the file's order.
    """

    def __init__(self, content: bytes, *, what: str, extra: str) -> None:
        """Read the network from the bytes of a ``.tflite`` file; `extra` brings the runtime.

        Raises:
            PalimpsestError: the runtime is not installed.
            FileError: these are not the bytes of such a network, or the runtime lacks one of its operations.
        """
        self.what = what
        self._content = content
        self._runtime = extra_module("ai_edge_litert.interpreter", extra=extra, what=what)
        self._own = threading.local()
        try:
            interpreter = self._interpreter()
        except (ValueError, RuntimeError) as problem:
            raise FileError(
                found=f"{what} cannot be run ({' '.join(str(problem).split())[:150]})",
                expected="a TensorFlow Lite network whose operations LiteRT has",
                remedy="Install Palimpsest again, or another version of ai-edge-litert.",
            ) from None
        (given,) = interpreter.get_input_details()
        self.input_shape = tuple(int(side) for side in given["shape"])
        self.output_shapes = tuple(
            tuple(int(side) for side in output["shape"]) for output in interpreter.get_output_details()
        )

    def require(self, *shapes: tuple[int, ...]) -> None:
        """See that its input and its outputs have these shapes, -1 being any number.

        Raises:
            FileError: it is another network.
        """
        found = (self.input_shape, *self.output_shapes)
        if len(found) != len(shapes) or not all(map(_fits, found, shapes)):
            raise FileError(
                found=f"{self.what} with input and outputs {_written(found)}",
                expected=_written(shapes),
                remedy="It is another network: install Palimpsest again.",
            )

    def __call__(self, values: Array) -> list[Array]:
        """The outputs for an input of `input_shape`, in the file's order."""
        interpreter = self._interpreter()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ascontiguousarray(values))
        interpreter.invoke()
        return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]

    def _interpreter(self) -> Any:
        """This thread's own."""
        own = getattr(self._own, "interpreter", None)
        if own is None:
            own = self._runtime.Interpreter(model_content=self._content, num_threads=1)
            own.allocate_tensors()
            self._own.interpreter = own
        return own


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want in (-1, side) for side, want in zip(shape, wanted, strict=True)
    )


def _written(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(" × ".join("any" if side == -1 else str(side) for side in shape) for shape in shapes)
