"""The sizes of a convolution as numbers, whatever way its layer says them."""

from __future__ import annotations

from dataclasses import dataclass

from zeroskip.concepts import Layer, pair


@dataclass(frozen=True)
class ConvolutionShape:
    """A convolution as numbers; pairs are (rows, columns), `before` is the padding above and to the left."""

    channels: int
    height: int
    width: int
    outputs: int
    out_height: int
    out_width: int
    taps: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def pointwise(self) -> bool:
        """Whether a window is one pixel of the image."""
        return self.taps == (1, 1) and self.before == (0, 0)

    @property
    def window(self) -> int:
        """Inputs that one output pixel reads."""
        return self.taps[0] * self.taps[1] * self.channels


def shape_of(layer: Layer) -> ConvolutionShape:
    """The numbers of a convolution of one image, of which an example may have several.

    >>> shape_of(conv).taps
    (3, 3)
    """
    image, result = layer.input_shape[-3:], layer.output_shape[-3:]
    (channels, height, width), (outputs, out_height, out_width) = image, result
    taps = layer.weight.shape[2], layer.weight.shape[3]
    return ConvolutionShape(
        *(channels, height, width, outputs, out_height, out_width),
        taps=taps,
        stride=pair(layer.stride),
        before=_before(layer, taps),
        dilation=pair(layer.dilation),
    )


def _before(layer: Layer, taps: tuple[int, int]) -> tuple[int, int]:
    """Padding above and to the left; of an odd number of "same", PyTorch has the larger half behind."""
    if not isinstance(layer.padding, str):
        return pair(layer.padding)
    if layer.padding == "valid":
        return 0, 0
    return layer.dilation[0] * (taps[0] - 1) // 2, layer.dilation[1] * (taps[1] - 1) // 2
