"""The types of numbers in which a network's maps, weights and sums are held, and what each asks of a processor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.concepts import Machine


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
