"""A convolution of 8-bit numbers between two maps in the workspace, and the numbers that it needs.

A *quad* is four neighbouring channels of a pixel, each a byte of one 32-bit lane; the first is the lowest byte. A map
of C channels has ceil(C / 4) quads, and bytes of channels that it does not have hold its zero point, as lanes without
a pixel do. What has to be computed is fixed to the last bit:

    sum   start + the sum of q(x) q(w), in 32-bit integers; start takes the zero points of x out of the sum
    y     sum x factor + bias, rounded once; q(residual) x scale + y, rounded once; the activation; all in fp32
    q(y)  y x (1 / scale), at most 255, or 127 with a zero point, rounded to the nearest, ties to the even one; not
          below 0, or -128; plus the zero point
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.errors import EngineError
from zeroskip.run.convolution.tiles.activation import Activation
from zeroskip.run.convolution.tiles.layout import Map
from zeroskip.run.convolution.tiles.shared_weights import Sharing
from zeroskip.run.element import Scaling

QUAD = 4  # channels in a lane
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class IntegerWeights:
    """weight (out, in, taps) int8 stands for weight x scales (out,); bias (out,) is fp32."""

    weight: np.ndarray
    scales: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class QuadWeights:
    """A convolution as a matrix of quads: sums = start + words . rows of the input; y = sums x factor + bias.

    words    (out, k) int32: four signed bytes each
    start    (out,) int32
    factor, bias  (out,) float32
    offsets  (k,): row k of the input lies so many bytes behind a place's own
    taps     neighbouring rows that belong to one quad
    """

    words: np.ndarray
    start: np.ndarray
    factor: np.ndarray
    bias: np.ndarray
    offsets: np.ndarray
    taps: int = 1


@dataclass(frozen=True)
class QuadEpilogue:
    """What becomes of y: a residual is added, the activation follows; quads of the scaling `output`, or fp32."""

    residual: Scaling | None = None
    activation: Activation | None = None
    output: Scaling | None = None


@dataclass(frozen=True)
class QuadJob:
    """As `Job`, from quads to quads or to fp32; the residual holds quads. Channels of maps of quads are quads."""

    node: str
    weights: QuadWeights
    stride: tuple[int, int]
    x: Map
    y: Map
    residual: Map | None
    epilogue: QuadEpilogue
    sharing: Sharing | None = None

    @property
    def added(self) -> Map:
        """The map that the epilogue adds; without one, `y`, whose addresses are then never read."""
        return self.y if self.residual is None else self.residual


def quads(channels: int) -> int:
    """How many quads hold so many channels.

    >>> quads(5)
    2
    """
    return -(-channels // QUAD)


def packed(weight: np.ndarray) -> np.ndarray:
    """(out, in, taps) int8 -> (out, quads x taps) int32, with zeros for channels that are not there.

    >>> packed(np.array([[[1], [2], [0], [-1], [3]]], np.int8)).view(np.int8).tolist()
    [[1, 2, 0, -1, 3, 0, 0, 0]]
    """
    out, inputs, taps = weight.shape
    whole = np.zeros((out, quads(inputs) * QUAD, taps), np.int8)
    whole[:, :inputs] = weight
    lanes = whole.reshape(out, quads(inputs), QUAD, taps).transpose(0, 1, 3, 2)  # (out, quads, taps, 4)
    return np.ascontiguousarray(lanes).view("<i4").reshape(out, quads(inputs) * taps)


def integer_weights(weight: np.ndarray, bias: np.ndarray, scales: np.ndarray | None = None) -> IntegerWeights:
    """Weights (out, in, taps) fp32 as 8-bit numbers, with one of the `scales` for each output; EngineError for others.

    Without scales the largest one becomes 127.

    >>> integer_weights(np.array([[[1.0], [-0.5]]], np.float32), np.zeros(1, np.float32)).weight.tolist()
    [[[127], [-64]]]
    """
    if scales is None:
        largest = np.abs(weight).max((1, 2), initial=0).astype(np.float32)
        scales = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    if scales.shape != weight.shape[:1]:
        raise EngineError(f"there are {len(scales)} scales for the weights of {len(weight)} outputs.")
    numbers = np.clip(np.rint(weight.astype(np.float32) / scales[:, None, None]), -127, 127)
    return IntegerWeights(numbers.astype(np.int8), scales, bias)


def quad_weights(
    given: IntegerWeights, offsets: np.ndarray, x: Scaling, residual: Scaling | None = None
) -> QuadWeights:
    """The numbers of a convolution of a map with the scaling `x`; `offsets` (quads x taps,) are those of its rows.

    EngineError where a sum may not fit 32 bits.

    >>> one = IntegerWeights(np.array([[[2], [3]]], np.int8), np.ones(1, np.float32), np.zeros(1, np.float32))
    >>> quad_weights(one, np.zeros(1, np.int64), Scaling(0.5, 128)).start
    array([-640], dtype=int32)
    """
    numbers = given.weight.astype(np.int64)
    if 255 * int(np.abs(numbers).sum((1, 2)).max(initial=0)) > LARGEST:
        raise EngineError(
            "a layer of 8-bit numbers has too many inputs: its sums do not fit 32 bits. Use fp32."
        )
    start = -x.zero_point * numbers.sum((1, 2))
    bias = given.bias.astype(np.float32)
    if residual is not None:
        bias = bias - np.float32(residual.zero_point) * np.float32(residual.scale)
    factor = np.float32(x.scale) * given.scales.astype(np.float32)
    return QuadWeights(
        packed(given.weight),
        start.astype(np.int32),
        factor,
        bias,
        offsets,
        taps=max(1, given.weight.shape[2]),
    )


def largest(weights: QuadWeights, epilogue: QuadEpilogue) -> float:
    """What |y / scale of the output| cannot exceed, whatever the input: about 2^30 for sums that fill 32 bits."""
    assert epilogue.output is not None
    sums = 255.0 * np.abs(weights.words.view(np.int8).astype(np.float64)).sum(1)
    added = 0.0 if epilogue.residual is None else 255 * epilogue.residual.scale
    most = sums * np.abs(weights.factor) + np.abs(weights.bias) + added
    return float(most.max(initial=0)) * float(epilogue.output.inverse)
