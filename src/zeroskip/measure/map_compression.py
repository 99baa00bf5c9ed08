"""Sizes of the maps between layers in each format, and the traffic to off-chip memory with and without a code.

Values count 16 bits each, as on Eyeriss (Chen et al., JSSC 2017). Every example's map is coded on its own, row-major
in (channels, height, width). The bound is the entropy of zeros that fall independently, with the share that the
layer's maps have, and 16 bits for each other value: size * H(sparsity) + 16 * non-zeros. Real zeros are clustered,
so a code may come below it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from zeroskip.codecs import arithmetic, bitmask, csr, gaps, runlength
from zeroskip.concepts import Trace
from zeroskip.errors import ModelError, RecipeError

VALUE_BITS = 16
GAP_BITS = 5  # as many as a run has in the run-length code

FORMATS: Mapping[str, Callable[[np.ndarray], int]] = {
    "run-length": runlength.bits,
    "bitmask": lambda mask: bitmask.bits(mask) + _values(mask),
    "gaps": lambda mask: gaps.bits(mask, GAP_BITS) + _values(mask),
    "csr": lambda mask: csr.bits(_lines(mask)) + _values(mask),
}
"""Format -> bits of one example's map, positions and values, given as a mask of its non-zeros."""


@dataclass(frozen=True)
class Compressed:
    """The sizes of one layer's input maps over all examples that were given.

    fraction_bits  a value was rounded to a multiple of 2^-fraction_bits and saturated at 16 bits
    bits           format of FORMATS -> bits

    >>> sizes = Compressed("conv2", 1, elements=100, zeros=75, fraction_bits=8, bits={"bitmask": 500})
    >>> sizes.dense_bits, sizes.sparsity, sizes.ratio("bitmask")
    (1600, 0.75, 3.2)
    """

    layer: str
    examples: int
    elements: int
    zeros: int
    fraction_bits: int
    bits: Mapping[str, int]

    @property
    def dense_bits(self) -> int:
        """Bits without any code."""
        return VALUE_BITS * self.elements

    @property
    def sparsity(self) -> float:
        """Share of zeros, those included that rounding made."""
        return self.zeros / self.elements if self.elements else 0.0

    @property
    def bound(self) -> float:
        """Fewest bits of any code in the mean, if zeros fall independently and values are incompressible."""
        values = VALUE_BITS * (self.elements - self.zeros)
        return arithmetic.expected_bits(self.elements, self.sparsity) + values

    def ratio(self, form: str) -> float:
        """Times smaller than dense, in the format `form`; infinite for no bits."""
        return self.dense_bits / self.bits[form] if self.bits[form] else math.inf

    def above_bound(self, form: str) -> float:
        """Share by which the format needs more than the bound; NaN where the bound is 0 (zeros alone)."""
        return self.bits[form] / self.bound - 1 if self.bound else math.nan


@dataclass(frozen=True)
class MapTraffic:
    """Bits between the chip and its memory for one layer, all examples: `..._coded` with the code, else 16 a value.

    weights  read once, never coded
    read     of the layer's input map
    written  when that map was made; 0 for the network's input and where another layer reads the same map before

    >>> MapTraffic("conv2", weights=800, read=1600, read_coded=500, written=1600, written_coded=500).coded
    1800
    """

    layer: str
    weights: int
    read: int
    read_coded: int
    written: int
    written_coded: int

    @property
    def dense(self) -> int:
        """All bits without a code."""
        return self.weights + self.read + self.written

    @property
    def coded(self) -> int:
        """All bits with it."""
        return self.weights + self.read_coded + self.written_coded


def compression(maps: Iterable[tuple[str, Tensor]]) -> list[Compressed]:
    """The sizes of (layer name, map) pairs, summed up by layer, so that batches may come one after the other.

    Maps are (examples, channels, height, width) or (examples, features), of int16 or floats. Floats become 16-bit
    fixed point: the first map of a layer sets how many bits are fraction, as many as leave twice its largest
    value in range. A Trace gives `((layer.name, x) for layer, x, _ in trace)`.
    Raises ModelError for a map that holds NaN or Inf.

    >>> compression([("conv2", torch.eye(60).int().short())])[0].bits
    {'run-length': 3840, 'bitmask': 4560, 'gaps': 1405, 'csr': 5760}
    """
    sums: dict[str, Compressed] = {}
    for layer, values in maps:
        before = sums.get(layer)
        scale = before.fraction_bits if before else fraction_bits(values)
        measured = _measured(layer, _fixed_point(layer, values, scale), scale)
        sums[layer] = _sum(before, measured) if before else measured
    return list(sums.values())


def traffic(trace: Trace, *, form: str = "run-length") -> list[MapTraffic]:
    """What crosses the border of the chip, layer by layer, for all examples of a trace, as Eyeriss counts it.

    Each layer reads its weights and its input map once, and each map but the network's input is written once and
    coded; layers that read the same map share its writing. What no layer reads (the last output, a shortcut that
    is only added) is left out. Raises ModelError as `compression` does, RecipeError for an unknown format.

    >>> [(layer.layer, layer.dense, layer.coded) for layer in traffic(recorded)]
    [('fc1', 1056, 1056), ('fc2', 1280, 1408)]
    """
    if form not in FORMATS:
        raise RecipeError(f'there is no format "{form}". Use one of {", ".join(FORMATS)}.')
    seen: list[Tensor] = []
    counted = []
    for layer, x, _ in trace:
        size = compression([(layer.name, x)])[0]
        is_input = not seen or _same(x, seen[0])
        coded = size.dense_bits if is_input else size.bits[form]
        new = not any(_same(x, other) for other in seen)
        written = (size.dense_bits, coded) if new and not is_input else (0, 0)
        seen += [x] if new else []
        counted.append(MapTraffic(layer.name, VALUE_BITS * layer.weights, size.dense_bits, coded, *written))
    return counted


def fraction_bits(values: Tensor) -> int:
    """How many of 16 bits are fraction where twice the largest value still fits; 0 for integers.

    >>> fraction_bits(torch.tensor([0.3, 5.0]))
    11
    """
    if not values.is_floating_point():
        return 0
    largest = float(values.abs().max()) if values.numel() else 0.0
    return VALUE_BITS - 2 - math.frexp(largest)[1] if math.isfinite(largest) else 0


def quantised(values: Tensor, fraction: int) -> np.ndarray:
    """Values x 2^fraction, rounded to the nearest (halves to even) int16 and saturated; same shape.

    >>> quantised(torch.tensor([0.3, -0.3, 40.0]), 10)
    array([  307,  -307, 32767], dtype=int16)
    """
    # ldexp is exact also for the smallest floats.
    scaled = torch.ldexp(values.double(), torch.tensor(fraction)).round()
    return scaled.clamp(-(1 << VALUE_BITS - 1), (1 << VALUE_BITS - 1) - 1).to(torch.int16).numpy()


def _fixed_point(layer: str, values: Tensor, fraction: int) -> np.ndarray:
    if values.dtype is torch.int16:
        return values.numpy()
    if not bool(torch.isfinite(values).all()):
        raise ModelError(
            f'the input of layer "{layer}" holds NaN or Inf, which 16-bit fixed point has no number for. '
            "Measure on other inputs, or mend the network."
        )
    return quantised(values.detach(), fraction)


def _measured(layer: str, values: np.ndarray, fraction: int) -> Compressed:
    bits = {form: sum(map(size, values != 0)) for form, size in FORMATS.items()}
    zeros = values.size - int(np.count_nonzero(values))
    return Compressed(layer, len(values), values.size, zeros, fraction, bits)


def _sum(first: Compressed, second: Compressed) -> Compressed:
    return replace(
        first,
        examples=first.examples + second.examples,
        elements=first.elements + second.elements,
        zeros=first.zeros + second.zeros,
        bits={form: bits + second.bits[form] for form, bits in first.bits.items()},
    )


def _values(mask: np.ndarray) -> int:
    return VALUE_BITS * int(np.count_nonzero(mask))


def _lines(mask: np.ndarray) -> np.ndarray:
    """A row for each channel, or each line of an image too large for that; one for a vector. Longer ones are cut."""
    most = 1 << csr.COLUMN_BITS
    if mask.ndim < 2:
        rows = mask.reshape(1, -1)
    else:
        whole = mask.size // max(len(mask), 1) <= most
        rows = mask.reshape(len(mask), -1) if whole else mask.reshape(-1, mask.shape[-1])
    width = rows.shape[1]
    return rows if width <= most else np.pad(rows, ((0, 0), (0, -width % most))).reshape(-1, most)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)
