"""Which taps of a window ever touch the map; the others read nothing but padding, and are left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.run.convolution.tiles.operations import Window


@dataclass(frozen=True)
class Taps:
    """Rows and columns of a window, each row with each column.

    rows, columns  their numbers in the window
    down, right    how far they lie from the output's own place times the stride
    """

    rows: np.ndarray
    columns: np.ndarray
    down: np.ndarray
    right: np.ndarray

    @property
    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """How far they lie from the output's own place times the stride, by axis."""
        return self.down, self.right

    def of(self, weight: np.ndarray) -> np.ndarray:
        """(out, in x taps) their weights, of (out, in, rows, columns)."""
        mine = weight[:, :, self.rows][..., self.columns]
        return np.ascontiguousarray(mine.reshape(len(weight), -1 if mine.size else 0))


def touching(window: Window, made: tuple[int, int], source: tuple[int, int]) -> Taps:
    """The taps that touch a map of size `source` for any pixel of an output of size `made`.

    >>> taps = touching(Window((3, 3), (1, 1), (6, 12), (6, 12)), (8, 8), (8, 8))
    >>> taps.down.tolist(), taps.right.tolist()  # no column is 12 away from another
    ([-6, 0, 6], [0])
    """
    (rows, down), (columns, right) = (_touching(window, axis, made[axis], source[axis]) for axis in (0, 1))
    return Taps(rows, columns, down, right)


def _touching(window: Window, axis: int, made: int, source: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and distances of a window's rows or columns."""
    numbers = np.arange(window.size[axis])
    steps = numbers * window.dilation[axis] - window.padding[axis]
    pixels = steps[:, None] + np.arange(made) * window.stride[axis]  # (taps, made)
    touch = ((pixels >= 0) & (pixels < source)).any(1)
    return numbers[touch], steps[touch]
