"""What can be done to maps on tiles, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from zeroskip.concepts import Layer
from zeroskip.run.convolution.tiles.activation import Activation
from zeroskip.run.convolution.tiles.forms import Form, MapShape
from zeroskip.run.convolution.tiles.shared_weights import SharedWeights
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
class Attention:
    """What attention does besides its maps: queries, keys, values, and what is added to scores.

    key_heads  of keys and values, of which each serves heads / key_heads neighbouring heads of queries
    scale      by which scores are multiplied before the mask is added
    causal     a query sees the keys up to its own place
    mask       (heads or 1, queries, keys) float32, constant, added to scores
    in_bytes   its products may be of bytes, as those of the layers that make what it reads
    """

    heads: int
    key_heads: int
    scale: float
    causal: bool = False
    mask: Tensor | None = None
    in_bytes: bool = False


@dataclass(frozen=True)
class Mixing:
    """What the numbers of a pixel are: sums of numbers of other channels of the pixel times weights, plus a shift.

    sources  for each term: the channel that each channel takes from
    weights  for each term: (channels, height, width) float32
    shift    (channels, height, width) float32
    """

    sources: tuple[tuple[int, ...], ...]
    weights: tuple[Tensor, ...]
    shift: Tensor | None = None


@dataclass(frozen=True)
class Operation:
    """Something done to maps, named after the value it makes.

    kind      "conv", "depthwise", "max", "average", "mean" (over all pixels), "scale", "prelu", "add", "combine",
              "concat", "layer_norm" and "rms_norm" (over groups of channels of a pixel), "group_norm", "rearrange",
              "attention", "mix" (a pixel's numbers from those of its other channels), "convert" (to 8 bits or back),
              "join" (a concatenation of bytes whose parts begin within a quad)
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
    known     what the network has in memory of its weights, for maps of other sizes
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
    attention: Attention | None = None
    mixing: Mixing | None = None
    in_bytes: InBytes | None = None
    known: tuple[SharedWeights, ...] = ()


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


def reaches(window: Window, axis: int, size: int, made: int) -> bool:
    """Whether a window that moves over `size` rows or columns stands at `made` places; the last may hang over.

    >>> reaches(Window((3, 3), (2, 2), (0, 0)), 0, 8, 4)
    True
    """
    length, padding, step = window.size[axis], window.padding[axis], window.dilation[axis]
    stride = window.stride[axis]
    if min(length, step, stride) < 1 or padding < 0:
        return False
    rest = size + 2 * padding - step * (length - 1) - 1
    return made in (rest // stride + 1, -(-rest // stride) + 1)


def behind(window: Window, source: Sequence[int], made: Sequence[int]) -> tuple[int, int]:
    """Rows below and columns to the right of a map (height, width) that windows see which make so many; below 0: short.

    >>> behind(Window((3, 3), (2, 2), (0, 1)), (8, 8), (4, 4))
    (1, 0)
    """
    height, width = (
        (count - 1) * stride + (length - 1) * step + 1 - size - padding
        for count, stride, length, step, size, padding in zip(
            made, window.stride, window.size, window.dilation, source, window.padding, strict=True
        )
    )
    return height, width


def zeros_before(operation: Operation, source: MapShape) -> tuple[int, int] | None:
    """Rows above and columns to the left of a map of that shape, where all that is done to it is to put zeros around.

    >>> around = Movement((0,), (0,), rows=(-1, 0, 1), columns=(0, 1, -1))
    >>> zeros_before(Operation("y", "rearrange", ("x",), (1, 3, 3), ("y",), movements=(around,)), (1, 2, 2))
    (1, 0)
    """
    if operation.kind != "rearrange" or operation.fill or len(operation.movements) != 1:
        return None
    moved = operation.movements[0]
    same = moved.weights is None and moved.targets == moved.sources == tuple(range(source[0]))
    before = _places_before(moved.rows, source[1]), _places_before(moved.columns, source[2])
    if not same or operation.shape[0] != source[0] or before[0] is None or before[1] is None:
        return None
    return before[0], before[1]


def _places_before(places: tuple[int, ...], size: int) -> int | None:
    """How many stand before those of an axis of that size; None where they are not all there, in order and together."""
    start = places.index(0) if 0 in places else 0
    outside = (*places[:start], *places[start + size :])
    whole = places[start : start + size] == tuple(range(size)) and all(place < 0 for place in outside)
    return start if whole else None


def is_too_large(layer: Layer) -> bool:
    """Whether a layer has too many non-zeros for code of its own."""
    # Counting reads all weights, which takes longer than the rest for layers that are small anyway.
    return layer.weight.numel() > MAX_NONZEROS and int(layer.weight.count_nonzero()) > MAX_NONZEROS
