"""What a layer has in memory whatever the size of its maps: code and weights, used by all sizes of a network."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from zeroskip.run.element import Scaling

BlockFields: TypeAlias = tuple[int | np.ndarray, ...]
"""For argument blocks: numbers, addresses, tables of them."""


@dataclass(frozen=True)
class WeightSource:
    """What decides about the numbers of a layer's weights on tiles.

    tensors   weight, bias and scales, where there are any
    rows      how far its rows lie behind a place's own, in bytes
    scalings  of what it reads, where that is bytes
    """

    tensors: tuple[Tensor | None, ...]
    rows: np.ndarray
    scalings: tuple[Scaling | None, ...] = ()

    def is_same(self, other: WeightSource) -> bool:
        """Whether the numbers are equal.

        >>> one = WeightSource((torch.ones(2, 3), None), np.zeros(3))
        >>> one.is_same(WeightSource((torch.ones(2, 3), None), np.zeros(3))), one.is_same(WeightSource((), np.zeros(3)))
        (True, False)
        """
        return (
            self.scalings == other.scalings
            and np.array_equal(self.rows, other.rows)
            and len(self.tensors) == len(other.tensors)
            and all(map(_is_equal, self.tensors, other.tensors))
        )


@dataclass(frozen=True, eq=False)
class SharedWeights:
    """The weights of a layer in memory, as one kernel reads them.

    source   what they were made from; None: nothing is shared
    numbers  as jobs have them: RowWeights or QuadWeights
    how      the kernel, and what else its code and data depend on, besides the size of maps
    alive    the memory behind the addresses
    """

    source: WeightSource | None
    numbers: object
    how: Hashable
    fields: BlockFields
    alive: tuple[object, ...]


@dataclass(frozen=True)
class Sharing:
    """Of a job: what its weights are made from, and the same in memory that other sizes of the network have."""

    source: WeightSource
    known: tuple[SharedWeights, ...] = ()

    @property
    def numbers(self) -> object:
        """The weights as a job has them; None: they are not there yet."""
        return self.known[0].numbers if self.known else None

    def found(self, numbers: object, how: Hashable) -> SharedWeights | None:
        """What is in memory of these numbers for the kernel; None: nothing."""
        return next((each for each in self.known if each.numbers is numbers and each.how == how), None)


def sharing(source: WeightSource, known: Sequence[SharedWeights]) -> Sharing:
    """What is known of a layer at other sizes, where it has the same numbers.

    >>> sharing(WeightSource((), np.zeros(1)), ()).numbers
    """
    return Sharing(
        source, tuple(each for each in known if each.source is not None and each.source.is_same(source))
    )


def in_memory(
    shared: Sharing | None, numbers: object, how: Hashable, make: Callable[[], tuple[BlockFields, tuple[object, ...]]]
) -> SharedWeights:  # fmt: skip
    """The weights as the kernel reads them: those of another size, or what `make` puts into memory (fields, alive).

    >>> in_memory(None, "numbers", "kernel", lambda: ((1, 2), ())).fields
    (1, 2)
    """
    found = None if shared is None else shared.found(numbers, how)
    return found or SharedWeights(None if shared is None else shared.source, numbers, how, *make())


def _is_equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    same_memory = one.data_ptr() == other.data_ptr() and one.stride() == other.stride()
    return one.shape == other.shape and (same_memory or torch.equal(one, other))
