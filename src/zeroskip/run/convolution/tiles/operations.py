"""What can be done to maps on tiles, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from zeroskip.concepts import Layer
from zeroskip.run.convolution.tiles.activation import Activation
from zeroskip.run.convolution.tiles.forms import Form, MapShape
from zeroskip.run.element import Scaling

MAX_NONZEROS = 1 << 23  # non-zeros of a layer whose code would fill 90 MB


@dataclass(frozen=True)
class Window:
    """Which rows and columns of the input an output pixel sees; all sizes for (rows, columns)."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Movement:
    """Where the numbers of a value come from: (targets[i], h, w) is number (sources[i], rows[h], columns[w]) of a map.

    rows, columns  -1: nothing comes from there
    weights        of each row and of each column, by which the numbers are multiplied and added to what is there; None:
                   they are put there

    >>> Movement((0,), (0,), rows=(0, 0, 1, 1), columns=(0, 0)).rows  # every row twice
    (0, 0, 1, 1)
    """

    targets: tuple[int, ...]
    sources: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    weights: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@dataclass(frozen=True)
class InBytes:
    """How an operation computes in eight bits.

    inputs   what the bytes of its inputs mean
    output   what those of its value mean; None: it is fp32
    weights  (out,) float32: the scales of its weights, of a convolution
    """

    inputs: tuple[Scaling, ...]
    output: Scaling | None
    weights: Tensor | None = None


@dataclass(frozen=True)
class Operation:
    """Something done to maps, named after the value it makes.

    kind      "conv", "depthwise", "max", "average", "mean" (over all pixels), "scale", "prelu", "add", "combine",
              "concat", "layer_norm" (over the channels of a pixel), "group_norm", "rearrange", "convert" (to 8 bits or
              back), "join" (a concatenation of bytes whose parts begin within a quad)
    inputs    the values it reads; a convolution's second one is added to its result
    shape     (channels, height, width) of its value
    names     the nodes it stands for
    layer     of a convolution
    factors   scale and shift of each channel, of a "scale" and the norms; the slopes (twice) of a "prelu"
    activation  of the result
    function  of a "combine": "multiply", "subtract", "add", "maximum" or "minimum"
    epsilon, groups  of a norm
    movements, fill of a "rearrange", and what is where no movement puts anything
    form      of the tensor that PyTorch would make; None: (channels, height, width)
    in_bytes  of one that computes in eight bits
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: MapShape
    names: tuple[str, ...]
    window: Window | None = None
    layer: Layer | None = None
    factors: tuple[Tensor, Tensor] | None = None
    activation: Activation | None = None
    counts_padding: bool = True
    divisor: int | None = None
    function: str = ""
    epsilon: float = 0.0
    groups: int = 1
    movements: tuple[Movement, ...] = ()
    fill: float = 0.0
    form: Form | None = None
    in_bytes: InBytes | None = None


@dataclass(frozen=True)
class Subgraph:
    """Operations that one call computes, in running order.

    inputs   values made elsewhere -> their shapes as maps
    outputs  values needed elsewhere -> their shapes as maps
    forms    of those tensors that are not (channels, height, width)
    scalings  of those values that are 8-bit numbers; all that enters and leaves is fp32
    """

    operations: tuple[Operation, ...]
    inputs: Mapping[str, MapShape]
    outputs: Mapping[str, MapShape]
    forms: Mapping[str, Form] = field(default_factory=dict)
    scalings: Mapping[str, Scaling] = field(default_factory=dict)


def is_too_large(layer: Layer) -> bool:
    """Whether a layer has too many non-zeros for code of its own."""
    # Counting reads all weights, which takes longer than the rest for layers that are small anyway.
    return layer.weight.numel() > MAX_NONZEROS and int(layer.weight.count_nonzero()) > MAX_NONZEROS
