"""A recorded network as workloads: what each layer stores, and which maps come from outside or go there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from zeroskip.concepts import Trace
from zeroskip.simulate.operations import of_layer
from zeroskip.simulate.workload import Workload

REACH = 16  # so many layers further on the reader of an output is looked for


def of_trace(trace: Trace, inputs: Sequence[Tensor] = ()) -> list[Workload]:
    """The workloads of a recorded network, in order, one for each run of a layer that multiplies anything.

    A chip scales, applies ReLU and then stores an output. Here it is taken to where a later layer reads just that: the
    output after ReLU, perhaps scaled by channel (batch norm), bounded (ReLU6) or its largest of neighbours (max
    pooling). Any other output is stored as it is.
    inputs  those of the network: layers that read one of them have it from outside, the first layer in any case

    >>> [work.name for work in of_trace(recorded)]
    ['fc1', 'fc2']
    """
    works, runs = [], multiplying(trace)
    given = [*inputs, *(x for _, x, _ in runs[:1])]
    for place, (layer, x, y) in enumerate(runs):
        axis = 1 if "conv" in layer.op else -1
        stored = _as_read(y, axis, (later[1] for later in runs[place + 1 : place + 1 + REACH]))
        outside = "A" if any(_same(x, tensor) for tensor in given) else ""
        works.append(replace(of_layer(layer, x, stored), outside=outside))
    return works


def multiplying(trace: Trace) -> Trace:
    """The runs in which there is something to multiply: not those of no tokens.

    >>> len(multiplying(recorded))
    2
    """
    return [run for run in trace if run[0].weights and run[1].numel() and run[2].numel()]


def in_network(works: Sequence[Workload]) -> list[Workload]:
    """The layers in their places: the first has its input from outside, the last hands its output out.

    Each is for as many examples as the first, whatever its own first axis has of each. What a layer has from outside
    already stays so.

    >>> [work.outside for work in in_network(of_trace(recorded))]
    ['A', 'O']
    """
    last = len(works) - 1
    return [
        replace(
            work,
            examples=works[0].examples,
            outside="A" * (place == 0 or "A" in work.outside) + "O" * (place == last or "O" in work.outside),
        )
        for place, work in enumerate(works)
    ]


def _same(x: Tensor, given: Tensor) -> bool:
    """Whether both hold the same numbers in the same order."""
    alike = x is given or (x.dtype == given.dtype and x.numel() == given.numel())
    return alike and torch.equal(x.flatten(), given.flatten())


def _as_read(y: Tensor, axis: int, later: Iterable[Tensor]) -> Tensor:
    """Which outputs are stored as non-zeros: bool like `y`, whose channels lie along `axis`."""
    if bool((y < 0).any()):
        for x in later:
            # A reader of ReLU's zeros sees nothing negative, and not zeros alone, which tell nothing.
            if bool((x >= 0).all()) and bool(x.any()):
                if _is_rectified(x, y):
                    return y > 0
                if x.shape == y.shape and _is_scaled(x, y, axis):
                    return x != 0
    return y != 0


def _is_rectified(x: Tensor, y: Tensor) -> bool:
    """Whether `x` is ReLU of `y`, perhaps with more zeros, or the largest of its neighbours."""
    kept = y.clamp(min=0)
    if x.numel() == y.numel():
        x, kept = x.flatten(), kept.flatten()
        return bool(((x == kept) | (x == 0)).all())
    pooled = y.ndim > 2 and x.numel() < y.numel() and bool(x.max() == kept.max())
    return pooled and bool(torch.isin(x, kept).all())


def _is_scaled(x: Tensor, y: Tensor, axis: int) -> bool:
    """Whether `x` is ReLU of `y` scaled and shifted by channel, cut at its largest number."""
    x, y, most, sure = x.movedim(axis, 0).flatten(1), y.movedim(axis, 0).flatten(1), x.max().double(), False
    for part, other in zip(x.split(16), y.split(16), strict=True):  # the first channels decide mostly
        known, fits = _on_lines(part.double(), other.double(), most)
        sure |= bool(known.any())
        if not bool(fits[known].all()):
            return False
    return sure


def _on_lines(x: Tensor, y: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
    """For each channel, whether it has points enough, and whether they lie on a line between 0 and `most`."""
    inner = (x > 0) & (x < most)
    high = x.where(inner, -torch.inf).argmax(1, keepdim=True)
    low = x.where(inner, torch.inf).argmin(1, keepdim=True)
    x_high, x_low, y_high, y_low = (values.gather(1, at) for values in (x, y) for at in (high, low))
    slope = (x_high - x_low) / (y_high - y_low)
    expected = (slope * (y - y_high) + x_high).clamp(min=0).clamp(max=most)
    fits = (expected - x).abs().amax(1) <= 1e-4 * most  # not where a slope is no number
    return inner.sum(1) > 2, fits  # two points lie on a line in any case
