"""Running sums of zeros: plain tensors under flat names, so that they can be stored between two batches.

batches                   () number of batches read
<layer>.input.zeros       (channels,) int64; and <layer>.output.zeros, of what leaves the layer
             .elements    () of all channels together
             .nonfinite   () of them NaN or Inf
             .unknown     () of an output: runs in which it was not followed to its ReLU
             .position    (h, w) zeros over all examples and channels
             .class       (classes, 2) zeros and elements of the examples of each class
             .example     (BINS,) examples by their share of zeros
             .spread      (3,) float64: lowest, highest and summed share of an example
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zeroskip.concepts import Histogram
from zeroskip.errors import DataError, ModelError
from zeroskip.graph.layers import per_example
from zeroskip.measure.tensor_zeros import TensorZeros

BINS = 20
BY = ("position", "class", "example")
Sums = dict[str, Tensor]


@dataclass(frozen=True)
class Spread:
    """Shares of zeros of single examples.

    >>> from zeroskip import measure
    >>> spread = measure.activations(model, [x], by=["example"])["fc2"].before.by_example
    >>> spread.lowest, spread.highest
    (0.25, 0.625)
    """

    lowest: float
    highest: float
    mean: float
    histogram: Histogram


@dataclass(frozen=True)
class Count:
    """Zeros of what a layer reads, or of what leaves it, over a data set.

    by_channel   shares; of features where there are no maps
    by_position  shares, (h, w); by_class: class -> share. Empty unless asked for, as by_example is None
    nonfinite    how many elements are NaN or Inf; they count as non-zero

    >>> Count(zeros=3, elements=4, nonfinite=0, by_channel=(0.5, 1.0)).share
    0.75
    """

    zeros: int
    elements: int
    nonfinite: int
    by_channel: tuple[float, ...]
    by_position: tuple[tuple[float, ...], ...] = ()
    by_class: dict[int, float] = field(default_factory=dict)
    by_example: Spread | None = None

    @property
    def share(self) -> float:
        """Zeros of all elements, 0..1; 0 where there was none, as of a sentence without words."""
        return self.zeros / max(self.elements, 1)


@dataclass(frozen=True)
class Batch:
    """Number of examples of a batch, and their classes (size,) if zeros are counted by class."""

    size: int
    classes: Tensor | None = None

    def __post_init__(self) -> None:
        classes = self.classes
        if classes is None:
            return
        if classes.shape != (self.size,) or classes.is_floating_point() or classes.min() < 0:
            raise DataError(
                f"zeros by class need one class number 0, 1, ... for each of the {self.size} examples of a batch, but "
                f'its targets are {tuple(classes.shape)} {classes.dtype}. Leave "class" out.'
            )


def add_(sums: Sums, side: str, runs: Sequence[TensorZeros], batch: Batch, by: Collection[str]) -> None:
    """Add the zeros of one batch to those of a side, "<layer>.input" or "<layer>.output"; one entry for each run.

    Raises ModelError where maps change their size and `by` has "position", and where an example's part of a tensor
    is unknown and `by` has "class" or "example".

    >>> from zeroskip.measure.tensor_zeros import CountMemory, count_zeros
    >>> sums: Sums = {}
    >>> add_(sums, "fc.input", [count_zeros(torch.eye(3), CountMemory(), maps=False)], Batch(3), ())
    >>> sums["fc.input.zeros"], sums["fc.input.elements"]
    (tensor([2, 2, 2]), tensor(9))
    """
    for run in runs:
        _plus_(sums, f"{side}.zeros", torch.tensor(run.by_channel))
        _plus_(sums, f"{side}.elements", torch.tensor(run.elements))
        _plus_(sums, f"{side}.nonfinite", torch.tensor(run.nonfinite))
        if run.by_position is not None:
            position = torch.tensor(run.by_position)
            _check_size(sums, side, position)
            _plus_(sums, f"{side}.position", position)
    if "class" not in by and "example" not in by:
        return
    zeros = torch.stack([_of_examples(run, batch.size) for run in runs]).sum(0)  # (size,)
    elements = sum(run.elements for run in runs) // batch.size
    if batch.classes is not None:
        key = f"{side}.class"
        sums[key] = _of_classes(zeros, elements, batch.classes, sums.get(key))
    if "example" in by:
        _spread_(sums, side, zeros, elements)


def count(sums: Sums, side: str) -> Count:
    """The zeros that `sums` hold of "<layer>.input" or "<layer>.output".

    >>> sums = {"fc.input.zeros": torch.tensor([2, 1]), "fc.input.elements": torch.tensor(6)}
    >>> count(sums | {"fc.input.nonfinite": torch.tensor(0)}, "fc.input").by_channel
    (0.6666666666666666, 0.3333333333333333)
    """
    zeros, elements = sums[f"{side}.zeros"], max(int(sums[f"{side}.elements"]), 1)
    position, classes = sums.get(f"{side}.position"), sums.get(f"{side}.class")
    by_position = [] if position is None else (position.double() * position.numel() / elements).tolist()
    by_class = enumerate([] if classes is None else classes.tolist())
    return Count(
        zeros=int(zeros.sum()),
        elements=int(sums[f"{side}.elements"]),
        nonfinite=int(sums[f"{side}.nonfinite"]),
        by_channel=tuple((zeros.double() * len(zeros) / elements).tolist()),
        by_position=tuple(map(tuple, by_position)),
        by_class={label: zero / all_ for label, (zero, all_) in by_class if all_},
        by_example=_spread(sums, side) if f"{side}.example" in sums else None,
    )


def _plus_(sums: Sums, key: str, more: Tensor) -> None:
    # A new tensor each time, so that a copy of the dict is a copy of the state.
    sums[key] = sums[key] + more if key in sums else more


def _check_size(sums: Sums, side: str, more: Tensor) -> None:
    before = sums.get(f"{side}.position")
    if before is not None and before.shape != more.shape:
        raise ModelError(
            f'zeros by position cannot be added up: at "{side}" maps are {tuple(before.shape)} first and '
            f'{tuple(more.shape)} later. Give inputs of one size, or leave "position" out.'
        )


def _of_examples(run: TensorZeros, size: int) -> Tensor:
    """Zeros of each example (size,); the first axis may hold several rows of each."""
    by_row = torch.tensor(run.by_example)
    per_example(by_row, size)  # or ModelError
    return by_row.view(size, -1).sum(1)


def _of_classes(zeros: Tensor, elements: int, classes: Tensor, before: Tensor | None) -> Tensor:
    """(classes, 2), `before` included: zeros and elements of the examples of each class."""
    each = torch.stack([zeros, torch.full_like(zeros, elements)], dim=1)  # (size, 2)
    most = max(int(classes.max()) + 1, 0 if before is None else len(before))
    total = torch.zeros(most, 2, dtype=torch.int64).index_add_(0, classes.long().cpu(), each)
    if before is not None:
        total[: len(before)] += before
    return total


def _spread_(sums: Sums, side: str, zeros: Tensor, elements: int) -> None:
    elements = max(elements, 1)  # a sentence without words has none
    shares = zeros.double() / elements
    # In whole numbers, so that no rounding moves an example.
    bins = (zeros * BINS // elements).clamp_(max=BINS - 1)
    _plus_(sums, f"{side}.example", torch.bincount(bins, minlength=BINS))
    lowest, highest, total = sums.get(f"{side}.spread", torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    new = [torch.minimum(lowest, shares.min()), torch.maximum(highest, shares.max()), total + shares.sum()]
    sums[f"{side}.spread"] = torch.stack(new)


def _spread(sums: Sums, side: str) -> Spread:
    examples = sums[f"{side}.example"]
    lowest, highest, total = sums[f"{side}.spread"].tolist()
    edges = tuple(i / BINS for i in range(BINS + 1))
    return Spread(lowest, highest, total / int(examples.sum()), Histogram(edges, tuple(examples.tolist())))
