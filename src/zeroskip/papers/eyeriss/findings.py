"""What is measured for Eyeriss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class CodedMaps:
    """The input maps of one layer, of so many examples together.

    elements, zeros  numbers in them;  bound: bits that the entropy of the zeros and 16 bits for each other number take
    bits             by format
    """

    examples: int
    elements: int
    zeros: int
    bound: float
    bits: Mapping[str, float]


@dataclass(frozen=True)
class CodedTraffic:
    """Bits of all maps and weights, without the code and with it."""

    dense: float
    coded: float


@dataclass(frozen=True)
class EyerissFindings:
    """One network: layer -> its maps, the first layer's being the picture; bits between the chip and DRAM."""

    layers: Mapping[str, CodedMaps] = field(default_factory=dict)
    traffic: CodedTraffic | None = None
