"""What every kernel for eight bits computes, bit for bit, in PyTorch: sums are exact, floats rounded where named.

Steps of float32: one fused multiply-add (scale, bias), another for the residual, the activation, times 1 / scale of
the next map, clamp, nearest even number. A map holds uint8, weights int8; sums are integers that int32 holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from zeroskip.errors import EngineError
from zeroskip.run.convolution.tiles.activation import Activation
from zeroskip.run.convolution.tiles.operations import Movement, Window, behind
from zeroskip.run.element import SUM_LIMIT, Scaling, weight_scales
from zeroskip.run.fused_multiply_add import fma

FLOAT_LIMIT = 1 << 24  # whole numbers up to here are exact in float32, in whatever order they are added
PART = FLOAT_LIMIT // (255 * 127)  # products of bytes whose sum is exact in float32


@dataclass(frozen=True)
class ByteMap:
    """A map of bytes: uint8 `numbers` (batch, channels, ...), and what they mean.

    >>> ByteMap(torch.tensor([3], dtype=torch.uint8), Scaling(0.5, 0)).real
    tensor([1.5000])
    """

    numbers: Tensor
    at: Scaling

    @property
    def centred(self) -> Tensor:
        """The bytes minus the zero point, as float32."""
        return self.numbers.float() - self.at.zero_point

    @property
    def real(self) -> Tensor:
        """The float32 numbers that the bytes stand for; one product, rounded once."""
        return self.centred * self.at.scale


@dataclass(frozen=True)
class ByteWeight:
    """Weights of -127..127 as float32 `numbers` (out, in / groups, ...), and `scales` (out,) of their outputs."""

    numbers: Tensor
    scales: Tensor


def byte_map(x: Tensor, at: Scaling) -> ByteMap:
    """Numbers as bytes: nearest even of x * (1 / scale), beyond the range its end; NaN becomes the zero point.

    >>> byte_map(torch.tensor([-9.0, 0.3, torch.nan]), Scaling(0.1, 0)).numbers
    tensor([0, 3, 0], dtype=torch.uint8)
    """
    steps = (x.float() * float(at.inverse)).round().clamp(at.least, at.most)
    return ByteMap((torch.where(steps.isnan(), 0.0, steps) + at.zero_point).to(torch.uint8), at)


def saturating(x: Tensor, at: Scaling) -> int:
    """How many of the numbers have no byte of their own: they lie beyond the range, or are NaN.

    >>> saturating(torch.tensor([-9.0, 0.3, torch.nan]), Scaling(0.1, 0))
    2
    """
    steps = (x.float() * float(at.inverse)).round()
    return int((~((steps >= at.least) & (steps <= at.most))).sum())


def next_map(y: Tensor, at: Scaling) -> ByteMap:
    """The results of a layer as bytes: y * (1 / scale), clamped, then the nearest even; NaN becomes the least byte.

    >>> next_map(torch.tensor([0.25, 99.0, torch.nan]), Scaling(0.1, 128)).numbers
    tensor([130, 255,   0], dtype=torch.uint8)
    """
    steps = y * float(at.inverse)
    steps = torch.where(steps > at.least, steps, at.least)  # NaN is not above
    steps = torch.where(steps < at.most, steps, at.most)
    return ByteMap((steps.round() + at.zero_point).to(torch.uint8), at)


def byte_weight(weight: Tensor, scales: Tensor | None = None) -> ByteWeight:
    """The nearest even of weight / scale, at most 127; scales default to `weight_scales`. Zero weights stay zero.

    >>> byte_weight(torch.tensor([[1.0, -0.5]])).numbers
    tensor([[127., -64.]])
    """
    weight = weight.detach().float()
    scales = weight_scales(weight) if scales is None else scales
    by_output = scales.reshape(-1, *[1] * (weight.ndim - 1))
    return ByteWeight((weight / by_output).round().clamp(-127, 127), scales)


def largest_sum(weight: ByteWeight) -> float:
    """The largest magnitude that a sum of the layer may have: 255 times the sum of an output's magnitudes."""
    return (
        float(255 * weight.numbers.double().abs().flatten(1).sum(1).max()) if weight.numbers.numel() else 0.0
    )


def demand_sums(name: str, weight: ByteWeight) -> None:
    """EngineError where a sum might not fit into int32."""
    if largest_sum(weight) >= SUM_LIMIT:
        raise EngineError(
            f"{name} adds so many products that a sum of bytes may pass 2^31. Leave it in fp32."
        )


def single(number: float) -> Tensor:
    """The number as a float32 tensor without axes."""
    return torch.tensor(number, dtype=torch.float32)


def sums_of_windows(
    x: ByteMap, weight: ByteWeight, window: Window, groups: int = 1, size: tuple[int, int] | None = None
) -> Tensor:
    """(batch, out, h, w) the sums of a convolution over (batch, in, h, w), as whole numbers of float64 or float32.

    size  (h, w); None: as many as have whole windows
    Outside the map lies the zero point, so that padding counts as 0, and so does what windows see behind it.
    """
    rows, columns = window.padding
    padded = functional.pad(x.centred, (columns, columns, rows, rows))
    if size is not None:
        padded = _reaching(x.centred, window, size, 0.0)
    reach = [(size - 1) * step + 1 for size, step in zip(window.size, window.dilation, strict=True)]
    height, width = (
        (length - each) // stride + 1
        for length, each, stride in zip(padded.shape[2:], reach, window.stride, strict=True)
    )
    if groups == padded.shape[1] == len(weight.numbers):
        return _by_taps(padded, weight.numbers, window, size or (height, width))
    dtype = _exact_type(x, weight)
    parts = []
    for part, own in zip(
        padded.to(dtype).chunk(groups, 1), weight.numbers.to(dtype).chunk(groups), strict=True
    ):
        seen = _unfolded(part, window)  # (batch, in * taps, pixels)
        parts.append(own.flatten(1) @ seen)
    sums = torch.cat(parts, 1).unflatten(2, (height, width))
    return sums if size is None else sums[:, :, : size[0], : size[1]]


def _exact_type(x: ByteMap, weight: ByteWeight) -> torch.dtype:
    """The smaller type of floats in which every sum is exact, whatever the order of adding."""
    share = (255 - min(x.at.zero_point, 127)) / 255  # of 255, as far as bytes lie from the zero point
    return torch.float32 if share * largest_sum(weight) < FLOAT_LIMIT else torch.float64


def _unfolded(x: Tensor, window: Window) -> Tensor:
    if window.size == (1, 1):
        down, right = window.stride
        return x[:, :, ::down, ::right].flatten(2)
    return functional.unfold(x, window.size, window.dilation, 0, window.stride)


def _by_taps(padded: Tensor, weight: Tensor, window: Window, size: tuple[int, int]) -> Tensor:
    """The sums of a depthwise convolution; at most a few dozen products each, exact in float32."""
    total = torch.zeros(*padded.shape[:2], *size)
    down, right = window.stride
    for i in range(window.size[0]):
        for j in range(window.size[1]):
            row, column = i * window.dilation[0], j * window.dilation[1]
            rows = slice(row, row + down * (size[0] - 1) + 1, down)
            columns = slice(column, column + right * (size[1] - 1) + 1, right)
            total += padded[:, :, rows, columns] * weight[:, 0, i, j].reshape(-1, 1, 1)
    return total


def sums_of_rows(x: ByteMap, weight: ByteWeight) -> Tensor:
    """(..., out) the sums of a linear layer over (..., in), as whole numbers of float64.

    Parts are exact in float32, which takes a tenth of the time that float64 takes.

    >>> sums_of_rows(byte_map(torch.ones(1, 600), Scaling(1 / 255, 0)), byte_weight(torch.ones(1, 600)))
    tensor([[19431000.]], dtype=torch.float64)
    """
    sums = torch.zeros(*x.numbers.shape[:-1], len(weight.numbers), dtype=torch.float64)
    for part, own in zip(x.centred.split(PART, -1), weight.numbers.split(PART, 1), strict=True):
        sums += part @ own.T
    return sums


@dataclass(frozen=True)
class ByteEpilogue:
    """What happens to the sums of a layer: the bias (out,) if any, a map that is added, the activation."""

    bias: Tensor | None = None
    residual: ByteMap | None = None
    activation: Activation | None = None


def finished(sums: Tensor, x: Scaling, weight: ByteWeight, after: ByteEpilogue, axis: int = 1) -> Tensor:
    """The layer's float32 results: fma(sum, scale, bias), fma(residual, its scale, that), the activation.

    axis  of the outputs in `sums`

    >>> weight = byte_weight(torch.ones(1, 1))
    >>> finished(torch.tensor([[127.0]]), Scaling(0.5, 0), weight, ByteEpilogue(torch.tensor([1.0])))
    tensor([[1.5000]])
    """
    shape = [-1 if each == axis % sums.ndim else 1 for each in range(sums.ndim)]
    scale = single(x.scale) * weight.scales  # float32
    bias = torch.zeros(len(scale)) if after.bias is None else after.bias.detach().float()
    residual = after.residual
    if residual is not None:
        bias = bias - single(residual.at.zero_point) * residual.at.scale
    y = fma(sums.float(), scale.reshape(shape), bias.reshape(shape))
    if residual is not None:
        y = fma(residual.numbers.float(), single(residual.at.scale), y)
    return activated(y, after.activation)


def largest_of_windows(x: ByteMap, window: Window, size: tuple[int, int]) -> ByteMap:
    """Max pooling of the bytes themselves to that many rows and columns; outside the map lies the least byte."""
    padded = _reaching(x.numbers.float(), window, size, 0.0)
    pooled = functional.max_pool2d(padded, window.size, window.stride, 0, window.dilation)
    return ByteMap(pooled[:, :, : size[0], : size[1]].to(torch.uint8), x.at)


@dataclass(frozen=True)
class Divisor:
    """By what average pooling divides: `fixed` where given, else the pixels of a window, those around the map or not.

    Rows and columns that a window reaches behind the padding are never counted.
    """

    counts_padding: bool = True
    fixed: int | None = None


def mean_of_windows(x: ByteMap, window: Window, size: tuple[int, int], divisor: Divisor) -> Tensor:
    """Average pooling to that many rows and columns: (the sum of bytes minus zero points) * float32(scale / count)."""
    around = window.padding[1], window.padding[1], window.padding[0], window.padding[0]
    there = functional.pad(
        torch.ones(1, 1, *x.numbers.shape[2:]), around, value=float(divisor.counts_padding)
    )
    counts = _added(_reaching(there, replace(window, padding=(0, 0)), size, 0.0), window, size)
    if divisor.fixed is not None:
        counts = torch.full_like(counts, float(divisor.fixed))
    sums = _added(_reaching(x.centred, window, size, 0.0), window, size)
    return fma(sums, single(x.at.scale) / counts, single(0.0))


def _added(padded: Tensor, window: Window, size: tuple[int, int]) -> Tensor:
    return _by_taps(padded, torch.ones(padded.shape[1], 1, *window.size), window, size)


def _reaching(x: Tensor, window: Window, size: tuple[int, int], fill: float) -> Tensor:
    """The map with its padding, and more behind it where windows reach further to make that many rows and columns."""
    rows, columns = window.padding
    below, right = map(max, window.padding, behind(window, x.shape[2:], size))
    return functional.pad(x, (columns, right, rows, below), value=fill)


def mean_of_pixels(x: ByteMap) -> Tensor:
    """(batch, channels) the mean over all pixels: the int32 sum, times float32(scale / pixels).

    >>> mean_of_pixels(ByteMap(torch.tensor([[[[1, 2]]]], dtype=torch.uint8), Scaling(1.0, 0)))
    tensor([[1.5000]])
    """
    pixels = x.numbers.flatten(2).long() - x.at.zero_point  # (batch, channels, pixels)
    scale = single(x.at.scale) / single(pixels.shape[2])
    return fma(pixels.sum(2).float(), scale, single(0.0))


def sum_of_maps(a: ByteMap, b: ByteMap, activation: Activation | None = None) -> Tensor:
    """The float32 sum of two maps: fma(b, its scale, fma(a, its scale, c)); c takes both zero points away."""
    away = [single(each.at.zero_point) * each.at.scale for each in (a, b)]
    y = fma(a.numbers.float(), single(a.at.scale), -(away[0] + away[1]))
    return activated(fma(b.numbers.float(), single(b.at.scale), y), activation)


def product_of_maps(a: ByteMap, b: ByteMap, activation: Activation | None = None) -> Tensor:
    """The float32 product of two maps, or of a map and one pixel: that of centred bytes x that of the scales.

    >>> product_of_maps(*[ByteMap(torch.tensor([3], dtype=torch.uint8), Scaling(0.5, 0))] * 2)
    tensor([2.2500])
    """
    return activated((a.centred * b.centred) * (single(a.at.scale) * single(b.at.scale)), activation)


def scaled(x: ByteMap, factors: tuple[Tensor, Tensor] | None, activation: Activation | None = None) -> Tensor:
    """fma(centred bytes, scale x a channel's first factor, its second); then the activation. No factors: 1 and 0."""
    first, second = factors or (torch.ones(1), torch.zeros(1))
    by_channel = [each.float().reshape(-1, 1, 1) for each in (single(x.at.scale) * first.float(), second)]
    return activated(fma(x.centred, by_channel[0], by_channel[1]), activation)


def rearranged(x: ByteMap, movements: Sequence[Movement], shape: tuple[int, int, int]) -> ByteMap:
    """The bytes in other places, (batch, *shape); the zero point where nothing comes to lie."""
    y = x.numbers.new_full((len(x.numbers), *shape), x.at.zero_point)
    for each in movements:
        axes = [
            [(to, source) for to, source in enumerate(numbers) if source >= 0]
            for numbers in (each.rows, each.columns)
        ]
        if all(axes):
            pairs = [(each.targets, each.sources), *(tuple(zip(*axis, strict=True)) for axis in axes)]
            (to_c, c), (to_h, h), (to_w, w) = ([torch.tensor(side) for side in pair] for pair in pairs)
            y[:, to_c[:, None, None], to_h[:, None], to_w] = x.numbers[:, c[:, None, None], h[:, None], w]
    return replace(x, numbers=y)


def concatenated(parts: Sequence[ByteMap], at: Scaling, axis: int = 1) -> ByteMap:
    """The maps behind each other; one of another scale or zero point is (q - zero) * float32(its scale / scale).

    >>> concatenated([ByteMap(torch.tensor([[8]], dtype=torch.uint8), Scaling(0.5, 0))], Scaling(1.0, 0)).numbers
    tensor([[4]], dtype=torch.uint8)
    """
    return ByteMap(torch.cat([_rescaled(part, at) for part in parts], axis), at)


def _rescaled(part: ByteMap, at: Scaling) -> Tensor:
    if part.at == at:
        return part.numbers
    factor = float(np.float32(part.at.scale) / np.float32(at.scale))
    return next_map(part.centred * factor, Scaling(1.0, at.zero_point)).numbers


def activated(y: Tensor, activation: Activation | None) -> Tensor:
    """The activation in float32, one rounding for each of its operations; NaN stays NaN.

    >>> activated(torch.tensor([-1.0, 7.0]), Activation("bounded", (6.0,)))
    tensor([0., 6.])
    """
    if activation is None:
        return y
    kind, numbers = activation.kind, activation.numbers
    if kind == "leaky_relu":
        return torch.where(y < 0, y * numbers[0], y)
    if kind in ("hardsigmoid", "hardswish"):
        sixth = ((y + 3.0).clamp_min(0.0)).clamp_max(6.0) * float(np.float32(1 / 6))
        return sixth if kind == "hardsigmoid" else y * sixth
    return FUNCTIONS[kind](y, *numbers)


FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "relu": torch.relu,
    "bounded": lambda y, most: y.clamp(0.0, most),
    "clamp": torch.clamp,
    "silu": functional.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": functional.gelu,
    "gelu_tanh": lambda y: functional.gelu(y, approximate="tanh"),
    "mish": functional.mish,
    "elu": lambda y, alpha, scale, into: torch.where(
        y > 0, y * scale, torch.expm1(y * into) * (alpha * scale)
    ),
    "softplus": functional.softplus,
}
