"""Weights in 32, 16, 8 or 4 bits: how they are rounded and stored, and the kernels for each way to store them.

"fp32"   as they are
"bf16"   the upper half of a float32, rounded: a weight moves by at most 2^-8 of itself
"int8"   multiples of a 127th of the row's largest weight: a weight moves by at most half of such a step
"codes"  the number of the weight in a table of 16, exact: for layers with no more distinct weights to be stored

Arithmetic is that of float32 for all of them: only weights are rounded, never inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.run.dense import pytorch

BITS = {"fp32": 32, "bf16": 16, "int8": 8, "codes": 4}  # of a stored weight
STORAGES = tuple(BITS)
TABLE = 16  # weights that codes number

Accepts = Callable[[str, Layer, Machine, Precision], "str | None"]
Build = Callable[[str, Layer, Machine, Precision, bool], Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Nonzeros:
    """The non-zero weights of a layer, row by row.

    rows, columns  (count,) where they are
    numbers        (count,) what is stored of each: float32, the bits of a bfloat16, int8, or its place in `table`
    scale          (out,) what a row's sum of numbers x inputs is multiplied with; 1 but for int8
    table          (16,) the distinct weights, for codes
    """

    rows: np.ndarray
    columns: np.ndarray
    numbers: np.ndarray
    scale: np.ndarray
    table: np.ndarray


def nonzeros(storage: str, layer: Layer) -> Nonzeros:
    """The layer's non-zero weights, as they are stored.

    >>> nonzeros("int8", replace(layer, weight=torch.tensor([[0.0, 5.0, -2.5]]))).numbers
    array([127, -64], dtype=int8)
    """
    weight = layer.weight.detach()
    rows, columns = np.nonzero(weight.numpy())
    values = weight.numpy()[rows, columns]
    scale, table = np.ones(len(weight), np.float32), np.zeros(TABLE, np.float32)
    numbers = values
    if storage == "bf16":
        numbers = torch.from_numpy(values).bfloat16().view(torch.int16).numpy()
    if storage == "int8":
        scale = int8_scale(weight).numpy()
        numbers = np.round(values / scale[rows]).astype(np.int8)
    if storage == "codes":
        # Zero is a weight of the table where there is room: kernels fill gaps with it.
        distinct = np.unique(values) if len(np.unique(values)) == TABLE else np.unique(np.append(values, 0.0))
        table[: len(distinct)] = distinct
        numbers = np.searchsorted(distinct, values).astype(np.uint8)
    return Nonzeros(rows, columns, numbers, scale, table)


def rounded(storage: str, weight: Tensor) -> Tensor:
    """The weights (out, in) that a kernel multiplies with, as float32.

    >>> rounded("int8", torch.tensor([[127.0, 1.4]]))
    tensor([[127.,   1.]])
    """
    if storage == "bf16":
        return weight.bfloat16().to(weight.dtype)
    if storage == "int8":
        scale = int8_scale(weight)[:, None]
        return (weight / scale).round() * scale
    return weight


def int8_scale(weight: Tensor) -> Tensor:
    """What the stored numbers of each row are multiples of (out,).

    >>> int8_scale(torch.tensor([[127.0, 1.4], [0.0, -254.0]]))
    tensor([1., 2.])
    """
    # A row of zeros has any scale but 0.
    return (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(weight.dtype).tiny)


def distinct_weights(weight: Tensor) -> Tensor:
    """The distinct weights (out, in) in ascending order; at least 18 of them if there are more than 17.

    >>> distinct_weights(torch.tensor([[1.0, 0.0], [1.0, -2.0]]))
    tensor([-2.,  0.,  1.])
    """
    distinct = weight.new_empty(0)
    for row in weight.detach():
        if len(distinct) <= TABLE + 1:  # one more than codes: zero need not be one of them
            distinct = torch.cat([distinct, row]).unique()
    return distinct


def arrays(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Weight (out, in) and bias (out,) of a linear layer; the bias is zero where it has none."""
    weight = np.ascontiguousarray(layer.weight.detach().numpy())  # a network may store it transposed
    bias = np.zeros(len(weight), np.float32) if layer.bias is None else layer.bias.detach().numpy()
    return weight, bias


def by_steps(storage: str, stored: Nonzeros, place: np.ndarray, steps: int, lanes: int) -> list[np.ndarray]:
    """The stored weights, each at its place in (steps, lanes), and for codes a bit that says where a weight is."""
    numbers = np.zeros(steps * lanes, stored.numbers.dtype)
    numbers[place] = stored.numbers
    if storage != "codes":
        return [numbers, np.zeros(0, np.uint8)]
    present = np.zeros((steps, lanes), bool)
    present.reshape(-1)[place] = True
    return [packed_nibbles(numbers.reshape(-1, lanes)), np.packbits(present, axis=1, bitorder="little")]


def packed_nibbles(numbers: np.ndarray) -> np.ndarray:
    """Numbers below 16 (steps, lanes), steps being even, two to a byte: even steps in the lower halves.

    >>> packed_nibbles(np.array([[1, 2], [3, 4]], np.uint8))
    array([[49, 66]], dtype=uint8)
    """
    return numbers[0::2] | numbers[1::2] << 4


def cannot_be_stored(
    storage: str, layer: Layer, precision: Precision, *, with_zeros: bool = False
) -> str | None:
    """None, or why weights of the layer are not stored so; `with_zeros` if zero weights are stored like others.

    >>> cannot_be_stored("int8", layer, Precision())
    'fp32 weights were asked for'
    """
    if storage not in ("fp32", precision.weights):
        return f"{precision.weights} weights were asked for"
    if storage in ("int8", "codes") and not bool(layer.weight.isfinite().all()):
        return "weights that are not finite have neither a scale nor a code"
    if storage == "codes":
        distinct = distinct_weights(layer.weight)
        if len(distinct if with_zeros else distinct[distinct != 0]) > TABLE:
            zero = ", zero among them," if with_zeros else ","
            return f"more than {TABLE} distinct weights{zero} and 4 bits number {TABLE}"
    return None


def kernels(method: str, accepts: Accepts, build: Build, *, skips: str = "weights") -> tuple[Kernel, ...]:
    """A kernel for each way to store weights, called after both: "gaps_int8".

    accepts  (storage, layer, machine, precision) -> None, or the reason why not
    build    (storage, layer, machine, precision, relu) -> function of the input
    """
    return tuple(
        Kernel(
            name=f"{method}_{storage}",
            method=method,
            accepts=partial(accepts, storage),
            build=partial(build, storage),
            # Those that round nothing have the reference of the others, which marks them as exact.
            reference=partial(_reference, storage) if storage in ("bf16", "int8") else pytorch.reference,
            weights=storage,
            skips=skips,
        )
        for storage in STORAGES
    )


def _reference(storage: str, layer: Layer, x: Tensor, relu: bool) -> Tensor:
    """The layer in plain PyTorch, of rounded weights."""
    return pytorch.reference(replace(layer, weight=rounded(storage, layer.weight)), x, relu)
