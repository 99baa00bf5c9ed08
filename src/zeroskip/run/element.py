"""The types of numbers in which a network's maps, weights and sums are held, and what each asks of a processor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zeroskip.concepts import Machine
from zeroskip.errors import EngineError

SUM_LIMIT = 1 << 31  # what int32 sums stay below
LEAST, MOST = 2.0**-60, 2.0**60  # scales; the product of two of them is still a normal float32


@dataclass(frozen=True)
class Element:
    """One type of numbers; maps, weights and sums all have it.

    name             as in `Kernel.element` and in reports
    llvm             LLVM's name of the type
    dtype            NumPy's
    baked_features   of an x86 processor, all needed by `baked` code
    read_features    of an x86 processor, all needed by any code that reads such numbers
    least            largest number that an operation must reach; smaller results lose too many digits

    >>> FP16.bytes, FP16.llvm, FP16.largest
    (2, 'half', 65504.0)
    """

    name: str
    llvm: str
    dtype: np.dtype
    baked_features: frozenset[str]
    read_features: frozenset[str] = frozenset()
    least: float = 0.0

    @property
    def bytes(self) -> int:
        """Bytes of one number."""
        return self.dtype.itemsize

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return float(np.finfo(self.dtype).max)

    def overflow(self, largest: float) -> str | None:
        """None, or why numbers up to `largest` on the example are too large: other inputs may reach twice as much."""
        if largest <= self.largest / 2:  # NaN is not
            return None
        end = f"{self.name} ends at {self.largest:.0f}, and half of that is left to other inputs"
        return f"reaches {largest:.3g} on the example; {end}"

    def is_readable(self, machine: Machine) -> bool:
        """Whether the processor converts such numbers; all 64-bit ARM processors do."""
        return machine.arch in ("aarch64", "arm64") or self.read_features <= machine.features

    def can_be_baked(self, machine: Machine) -> bool:
        """Whether the processor has the instructions of `baked` code for such numbers."""
        return self.baked_features <= machine.features


FP32 = Element("fp32", "float", np.dtype("f4"), baked_features=frozenset({"avx512f"}))
FP16 = Element(
    name="fp16",
    llvm="half",
    dtype=np.dtype("f2"),
    baked_features=frozenset({"avx512fp16", "avx512bw"}),
    read_features=frozenset({"f16c"}),
    least=2**-12,  # the smallest numbers lie 2^-24 apart
)
# Four neighbouring channels of a pixel, a byte each, in a lane of 32 bits; the first one is the lowest byte.
INT8 = Element("int8", "i32", np.dtype("i4"), baked_features=frozenset({"avx512f", "avx512bw", "avx512vnni"}))


@dataclass(frozen=True)
class Scaling:
    """What the bytes q of a map stand for: scale * (q - zero_point).

    scale       a float32 number
    zero_point  0 where nothing lies below 0, else 128

    EngineError where the zero point is another, or the scale so small or large that products leave float32.

    >>> Scaling(0.5, 128).least, Scaling(0.5, 128).most, Scaling(0.5, 128).word
    (-128.0, 127.0, -2139062144)
    """

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if not LEAST <= self.scale <= MOST or self.zero_point not in (0, 128):  # NaN is not
            raise EngineError(
                f"8-bit maps have a scale from {LEAST:.0e} to {MOST:.0e} and the zero point 0 or 128, not "
                f"{self.scale} and {self.zero_point}."
            )

    @property
    def inverse(self) -> np.float32:
        """1 / scale as numbers are multiplied by it: rounded to float32 once."""
        return np.float32(1) / np.float32(self.scale)

    @property
    def least(self) -> float:
        """The smallest q - zero_point."""
        return -float(self.zero_point)

    @property
    def most(self) -> float:
        """The largest q - zero_point."""
        return 255.0 - self.zero_point

    @property
    def word(self) -> int:
        """The zero point in all four bytes of a quad, as a signed integer."""
        return int(np.uint32(self.zero_point * 0x01010101).view(np.int32))


def weight_scales(weight: Tensor) -> Tensor:
    """(out,) the largest magnitude of each output's weights / 127, in float32; 1 where all are 0.

    >>> weight_scales(torch.tensor([[127.0, -254.0], [0.0, 0.0]]))
    tensor([2., 1.])
    """
    sizes = weight.detach().float().flatten(1).abs()  # (out, weights)
    # Where a transposed convolution's window is smaller than its stride, some of its phases have no weights.
    largest = sizes.amax(1) if sizes.shape[1] else sizes.new_zeros(len(sizes))  # (out,)
    return torch.where(largest > 0, (largest / 127).clamp_min(LEAST), 1.0)


def whole_steps(bias: Tensor, x: Scaling, weights: Tensor) -> Tensor:
    """(out,) float64: the bias in steps of the sums it is added to, each the scale of x times that of the weights.

    >>> whole_steps(torch.tensor([1.0, -0.6]), Scaling(0.5, 0), torch.tensor([0.5, 0.5]))
    tensor([ 4., -2.], dtype=torch.float64)
    """
    return (bias.detach().double() / _steps(x, weights).double()).round()


def whole_bias(bias: Tensor, x: Scaling, weights: Tensor) -> Tensor:
    """(out,) float32: the bias rounded to steps of the sums, as engines have it that keep it in int32.

    >>> whole_bias(torch.tensor([1.0, -0.6]), Scaling(0.5, 0), torch.tensor([0.5, 0.5]))
    tensor([ 1.0000, -0.5000])
    """
    return whole_steps(bias, x, weights).float() * _steps(x, weights)


def _steps(x: Scaling, weights: Tensor) -> Tensor:
    return torch.tensor(x.scale, dtype=torch.float32) * weights
