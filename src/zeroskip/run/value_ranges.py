"""How far the numbers of a value reach: a histogram that grows with them, and the range that bytes should cover."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from zeroskip.errors import EngineError
from zeroskip.run.element import LEAST, MOST, Scaling

BINS = 4096
# Ends of the range that least squares tries: shares of the largest magnitude. With coarser steps from a sixteenth on,
# the outputs of two trained networks changed more (SqueezeNet's by 3.8 instead of 3.7 %).
SHARES = torch.linspace(0.2, 1.0, 80, dtype=torch.float64)


@dataclass
class ValueRange:
    """What was seen of a value, whatever the order in which it came.

    top     the power of two above the largest magnitude; 0 while only zeros were seen
    counts  (BINS,) numbers whose magnitude lies in each part of 0..top
    """

    least: float = math.inf
    most: float = -math.inf
    top: float = 0.0
    counts: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.float64))

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(abs(self.least), abs(self.most))

    def see_(self, name: str, x: Tensor) -> None:
        """Take in the numbers of a tensor; EngineError, naming the value, where one is NaN or infinite."""
        if not x.numel():
            return
        least, most = (float(end) for end in torch.aminmax(x.detach().float()))
        if not (math.isfinite(least) and math.isfinite(most)):
            raise EngineError(
                f"the value {name} is not finite on a batch, so its range is unknown. Check the network's "
                "weights, and give batches like those that it will see."
            )
        self.least, self.most = min(self.least, least), max(self.most, most)
        self._grow_(max(abs(least), abs(most)))
        if self.top:
            self.counts += torch.histc(x.detach().float().abs().flatten(), BINS, 0.0, self.top).double()
        else:
            self.counts[0] += x.numel()

    def _grow_(self, largest: float) -> None:
        if largest < self.top or not largest:
            return
        top = 2.0 ** math.frexp(largest)[1]
        together = min(int(top / self.top), BINS) if self.top else 1
        merged = self.counts.reshape(-1, together).sum(1)  # bins that become one
        self.top, self.counts = top, torch.cat([merged, merged.new_zeros(BINS - len(merged))])


Method = Callable[[ValueRange, int], float]
"""(what was seen, steps from 0 to the end of the range) -> the end of the range that bytes should cover."""


def largest(seen: ValueRange, steps: int) -> float:
    """The largest magnitude that was seen."""
    return seen.largest


def percentile(seen: ValueRange, steps: int, share: float) -> float:
    """The magnitude that this share of the numbers does not pass."""
    below = seen.counts.cumsum(0)
    place = int(torch.searchsorted(below, share * below[-1]))
    return min(seen.largest, seen.top * (place + 1) / BINS)


def least_squares(seen: ValueRange, steps: int) -> float:
    """The end with the least sum of squares of what rounding and cutting off change."""
    width = seen.top / BINS
    middles = (torch.arange(BINS, dtype=torch.float64) + 0.5) * width  # (BINS,)
    ends = seen.largest * SHARES[:, None]  # (shares, 1)
    step = ends / steps
    rounded = (middles / step).round().clamp(max=steps) * step  # (shares, BINS)
    costs = (seen.counts * (rounded - middles).square()).sum(1)  # (shares,)
    return float(ends[int(costs.argmin()), 0])


METHODS: Mapping[str, Method] = {
    "min-max": largest,
    "percentile 99.999": partial(percentile, share=0.99999),
    "percentile 99.99": partial(percentile, share=0.9999),
    "percentile 99.9": partial(percentile, share=0.999),
    "least squares": least_squares,
}


def scale_of(seen: ValueRange, *, negative: bool, method: str) -> Scaling:
    """The scale and zero point of a value; of one that holds only zeros the scale is 1.

    >>> seen = ValueRange()
    >>> seen.see_("x", torch.tensor([0.0, 51.0]))
    >>> scale_of(seen, negative=False, method="min-max")
    Scaling(scale=0.20000000298023224, zero_point=0)
    """
    steps, zero_point = (127, 128) if negative else (255, 0)
    end = METHODS[method](seen, steps) if seen.top else 0.0
    scale = torch.tensor(end / steps if end else 1.0, dtype=torch.float64).clamp(LEAST, MOST)
    return Scaling(float(scale.float()), zero_point)
