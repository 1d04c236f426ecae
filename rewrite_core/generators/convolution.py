"""The linear map of a layer, as a value.

Plain and transposed convolutions of any stride, padding, dilation and crop, with weights in one canonical layout
``[O, C, kh, kw]``: output channels, input channels, taps. (A transposed convolution's taps are torch's, not flipped;
only the first two axes are exchanged.) The map is linear in the key and linear in the weight, which is all that a
rule needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

__all__ = ["Convolution"]

Pair = tuple[int, int]


@dataclass(frozen=True)
class Convolution:
    """keys [N, C, h, w], weight [O, C, kh, kw] → response [N, O, H, W]; no bias.

    `crop` (top, bottom, left, right) cuts a transposed convolution's output, as Keras does for padding "same".
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    output_padding: Pair = (0, 0)
    transposed: bool = False
    crop: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __call__(self, keys: Tensor, weight: Tensor) -> Tensor:
        """Apply the map; `weight` may have any number of output and input channels that fits `keys`."""
        if not self.transposed:
            return functional.conv2d(keys, weight, None, self.stride, self.padding, self.dilation)
        response = functional.conv_transpose2d(
            keys,
            weight.transpose(0, 1),
            None,
            self.stride,
            self.padding,
            self.output_padding,
            1,
            self.dilation,
        )
        top, bottom, left, right = self.crop
        height, width = response.shape[-2:]
        return response.narrow(-2, top, height - top - bottom).narrow(-1, left, width - left - right)
