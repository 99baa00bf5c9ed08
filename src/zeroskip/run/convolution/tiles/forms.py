"""How the axes of a tensor are those of a map: what permuting, reshaping and flattening do to a value on tiles.

A map has channels, rows and columns; PyTorch holds the same numbers as (c, h, w), (h, w, c), (h x w, c) or in windows.
An axis of a tensor is a list of atoms, parts of the map's axes: (c, h, w) viewed as groups of channels has the atoms
c = 4 x 8 and two axes for them. Moving atoms moves no number on tiles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

MapShape = tuple[int, int, int]
"""Channels, height and width."""


class Atom(NamedTuple):
    """Part of the axis "c", "h" or "w" of a map: `size` places, each `step` from the one before."""

    axis: str
    size: int
    step: int


Axis = tuple[Atom, ...]


@dataclass(frozen=True)
class Form:
    """The axes of a tensor (without the batch) that holds a map; sizes of 1 have no atoms.

    >>> form = channels_first((8, 4, 4))
    >>> form.permuted([1, 2, 0]).reshaped([16, 8]).shape
    (16, 8)
    """

    axes: tuple[Axis, ...]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The tensor's."""
        return tuple(math.prod(atom.size for atom in axis) for axis in self.axes)

    @cached_property
    def is_channels_last(self) -> bool:
        """Whether the tensor holds the channels of each pixel side by side, and the pixels row by row.

        >>> rows_of(8, [5]).is_channels_last, channels_first((8, 1, 5)).is_channels_last
        (True, False)
        """
        atoms = [atom for axis in self.axes for atom in axis]
        in_order = sorted(atoms, key=lambda atom: ("hwc".index(atom.axis), -atom.step))
        return atoms == in_order and any(atom.axis == "c" for atom in atoms)

    def permuted(self, order: Sequence[int]) -> Form:
        """With its axes in another order."""
        return Form(tuple(self.axes[place] for place in order))

    def reshaped(self, shape: Sequence[int]) -> Form | None:
        """With other axes for the same numbers in the same order; None where an atom cannot be cut so."""
        rest, axes = [atom for axis in self.axes for atom in axis], []
        for size in shape:
            axis: list[Atom] = []
            while size > 1:
                if not rest:
                    return None
                atom = rest.pop(0)
                if size % atom.size and atom.size % size:
                    return None
                if atom.size > size:
                    inner = atom.size // size
                    rest.insert(0, Atom(atom.axis, inner, atom.step))
                    atom = Atom(atom.axis, size, inner * atom.step)
                axis.append(atom)
                size //= atom.size
            axes.append(_joined(axis))
        return None if rest else Form(tuple(axes))

    def holds(self, place: int, axes: str) -> bool:
        """Whether the tensor's axis at `place` is these axes of the map, whole and in order."""
        return self.axes[place] == tuple(atom for name in axes for atom in self._whole(name))

    def only(self, place: int, axis: str) -> bool:
        """Whether the tensor's axis at `place` has all of the map's axis, in whatever order, and nothing else."""
        atoms = [atom for each in self.axes for atom in each if atom.axis == axis]
        return sorted(atoms) == sorted(self.axes[place])

    def with_axis(self, place: int, axis: str, size: int) -> Form:
        """The form where the tensor's axis at `place` is all of the map's axis, which now has that size."""
        new = (Atom(axis, size, 1),) if size > 1 else ()
        return Form((*self.axes[:place], new, *self.axes[place + 1 :]))

    def _whole(self, axis: str) -> Axis:
        size = math.prod(atom.size for each in self.axes for atom in each if atom.axis == axis)
        return (Atom(axis, size, 1),) if size > 1 else ()


def channels_first(shape: MapShape) -> Form:
    """The form (channels, height, width).

    >>> channels_first((8, 1, 5)).axes[1]
    ()
    """
    return Form(
        tuple((Atom(axis, size, 1),) if size > 1 else () for axis, size in zip("chw", shape, strict=True))
    )


def sequence(channels: int, steps: int) -> Form:
    """The form (channels, steps) of a map of one row."""
    return channels_first((channels, 1, steps)).permuted([0, 2])


def rows_of(channels: int, places: Sequence[int]) -> Form | None:
    """The form (..., channels) with one or two axes of places, of a map (channels, rows, columns); None for others.

    >>> rows_of(8, [5]).shape
    (5, 8)
    """
    if len(places) > 2:
        return None
    height, width = [1, *places][-2:]
    first = channels_first((channels, height, width))
    return first.permuted([1, 2, 0] if len(places) == 2 else [2, 0])


def to_map(form: Form, shape: MapShape, x: Tensor) -> Tensor:
    """A batch of tensors of that form as maps (batch, channels, height, width); a view where torch can make one.

    >>> to_map(rows_of(2, [3]), (2, 1, 3), torch.arange(6).view(1, 3, 2))[0, :, 0]
    tensor([[0, 2, 4],
            [1, 3, 5]])
    """
    atoms = [atom for axis in form.axes for atom in axis]
    order = sorted(range(len(atoms)), key=lambda place: ("chw".index(atoms[place].axis), -atoms[place].step))
    cut = x.reshape(x.shape[0], *(atom.size for atom in atoms))
    return cut.permute(0, *(place + 1 for place in order)).reshape(x.shape[0], *shape)


def from_map(form: Form, x: Tensor) -> Tensor:
    """The inverse of `to_map`."""
    atoms = [atom for axis in form.axes for atom in axis]
    order = sorted(range(len(atoms)), key=lambda place: ("chw".index(atoms[place].axis), -atoms[place].step))
    cut = x.reshape(x.shape[0], *(atoms[place].size for place in order))
    back = [order.index(place) + 1 for place in range(len(atoms))]
    return cut.permute(0, *back).reshape(x.shape[0], *form.shape)


def _joined(axis: Sequence[Atom]) -> Axis:
    """Neighbouring parts of one axis of the map as one atom, where they lie as in the map."""
    joined: list[Atom] = []
    for atom in axis:
        last = joined[-1] if joined else None
        if last is not None and last.axis == atom.axis and last.step == atom.size * atom.step:
            joined[-1] = Atom(atom.axis, last.size * atom.size, atom.step)
        else:
            joined.append(atom)
    return tuple(joined)
