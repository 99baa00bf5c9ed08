"""Convolutions whose zeros come in blocks: neighbouring output channels that lack the same inputs, 4x1 or 8x1.

An input is then loaded once for the block; see `zeroskip.run.convolution.tiles.streamed`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.run.convolution.tiles.streamed import block_height
from zeroskip.run.convolution.tiles.tiling import alone, refusal
from zeroskip.run.dense.pytorch import reference


def accepts(layer: Layer, machine: Machine, precision: Precision) -> str | None:
    """None, or why the layer has no blocks that could work on tiles.

    >>> accepts(pruned_one_by_one, detect(), Precision())
    'no 4 or 8 neighbouring output channels have their zeros in common'
    """
    why = refusal(layer)
    if why is None and (layer.groups > 1 or block_height(layer.weight.detach().flatten(1).numpy()) == 1):
        return "no 4 or 8 neighbouring output channels have their zeros in common"
    return why


def build(layer: Layer, machine: Machine, precision: Precision, relu: bool) -> Callable[[Tensor], Tensor]:
    """The layer as a function of images (batch, *input_shape), which it brings onto tiles and back.

    >>> build(conv, detect(), Precision(), True)(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 16, 8, 8])
    """
    return alone(layer, relu, "blocks", machine)


KERNEL = Kernel("blocks", "blocks", accepts, build, reference, layout="tiles")
