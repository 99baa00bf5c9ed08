"""Where a batch of feature maps lies in memory while the engine works on it: tiles in lanes, channels innermost.

A map is cut into a grid of equal tiles, and lane l of every vector belongs to tile l: the vector of tile place
(y, x) holds, for one channel, the pixels that stand there in each of the tiles. A neighbouring pixel is then a
neighbouring vector, so a convolution reads whole aligned vectors, whatever its taps. Around the tile lies a ring
of further vectors, which repeat the neighbours' pixels and hold zeros beyond the map's border. The ring is a box
around the tile; only those of its places that a window reads are ever written.

In memory: [image row][tile row with ring][tile column with ring][channel] vectors. One vector more than there are
channels keeps places that are used together from falling into the same sets of the caches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from zeroskip.emit import Vector
from zeroskip.run.element import FP32, Element

NARROW = 4  # pixels of a row that lie together; with fewer, tensors are slow to read and write


@dataclass(frozen=True)
class Layout:
    """`images` maps (channels, height, width) over the tiles of a grid (images, rows, columns).

    tile  (height, width) of a tile; the tiles together may reach beyond the map
    ring  vectors around a tile: (above, below, left, right)
    element  what the numbers are

    >>> layout = Layout(3, 8, 8, 1, grid=(1, 4, 4), tile=(2, 2))
    >>> layout.lanes, layout.vectors, layout.bytes
    (16, 4, 1024)
    """

    channels: int
    height: int
    width: int
    images: int
    grid: tuple[int, int, int]
    tile: tuple[int, int]
    ring: tuple[int, int, int, int] = (0, 0, 0, 0)
    element: Element = FP32

    @property
    def lanes(self) -> int:
        """Numbers in a vector."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def vector(self) -> Vector:
        """LLVM's type of a vector."""
        return Vector(self.lanes, self.element.llvm)

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector."""
        return self.lanes * self.element.bytes

    @property
    def slots(self) -> int:
        """Images that lie below each other, in rows, rather than in lanes."""
        return -(-self.images // self.grid[0])

    @property
    def rows(self) -> int:
        """Rows of vectors of one slot, ring included."""
        return self.tile[0] + self.ring[0] + self.ring[1]

    @property
    def pitch(self) -> int:
        """Vectors from one row to the next, for one channel."""
        return self.tile[1] + self.ring[2] + self.ring[3]

    @property
    def place_bytes(self) -> int:
        """Bytes from one place to the next: all channels of a vector."""
        return (self.channels + 1) * self.vector_bytes

    @property
    def bytes(self) -> int:
        """Bytes of all maps."""
        return self.slots * self.rows * self.pitch * self.place_bytes

    @property
    def vectors(self) -> int:
        """Places that hold pixels, the ring not counted."""
        return self.slots * self.tile[0] * self.tile[1]

    def offset(self, slot: np.ndarray | int, y: np.ndarray | int, x: np.ndarray | int) -> np.ndarray:
        """Byte offset of the place (slot, y, x), channel 0; y and x are negative in the ring above and left."""
        row = slot * self.rows + y + self.ring[0]
        return np.asarray((row * self.pitch + x + self.ring[2]) * self.place_bytes)

    def inside(self) -> np.ndarray:
        """(vectors, 3) slot, y and x of every place that is not in the ring, in the order of memory."""
        return _places(self.slots, (0, self.tile[0]), (0, self.tile[1]))

    def around(self) -> np.ndarray:
        """(count, 3) slot, y and x of every place of the ring."""
        above, below, left, right = self.ring
        tall, wide = self.tile
        places = _places(self.slots, (-above, tall + below), (-left, wide + right))
        _, y, x = places.T
        return places[(y < 0) | (y >= tall) | (x < 0) | (x >= wide)]

    @cached_property
    def _lane_places(self) -> np.ndarray:
        return _places(self.grid[0], (0, self.grid[1]), (0, self.grid[2]))  # (lanes, 3)

    def coordinates(self, places: np.ndarray) -> np.ndarray:
        """(count, lanes, 3) image, row and column that belong to places (count, 3), be they on the map or not."""
        slot, y, x = (places[:, [axis]] for axis in range(3))
        image, down, right = self._lane_places.T
        numbers = image * self.slots + slot, down * self.tile[0] + y, right * self.tile[1] + x
        return np.stack(np.broadcast_arrays(*numbers), axis=2)

    def pixels(self, places: np.ndarray) -> np.ndarray:
        """(count, lanes, 3) image, row and column of the pixels at places (count, 3); image -1: none is there."""
        pixels = self.coordinates(places)
        return np.where(self.contains(pixels)[:, :, None], pixels, -1)

    def contains(self, pixels: np.ndarray) -> np.ndarray:
        """(...) whether the pixels (..., 3) belong to the maps."""
        return np.asarray(((pixels >= 0) & (pixels < (self.images, self.height, self.width))).all(-1))

    def find(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Byte offset and lane (...) at which the maps' pixels (..., 3) lie, outside the ring."""
        image, row, column = np.moveaxis(pixels, -1, 0)
        lane_image, slot = np.divmod(image, self.slots)
        down, y = np.divmod(row, self.tile[0])
        right, x = np.divmod(column, self.tile[1])
        return self.offset(slot, y, x), (lane_image * self.grid[1] + down) * self.grid[2] + right

    def masks(self, places: np.ndarray) -> np.ndarray:
        """(count,) int64: bit l says whether lane l holds a pixel at the place."""
        return bits(self.pixels(places)[:, :, 0] >= 0)


@dataclass(frozen=True)
class ReadPlaces:
    """Places of a tile and its ring: each of the rows with each of the columns."""

    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Map:
    """Some channels of the maps that lie at byte `base` of the workspace.

    read  places that windows read; those of the ring that none reads hold anything
    """

    layout: Layout
    base: int
    channels: range
    read: tuple[ReadPlaces, ...] = ()

    @property
    def first(self) -> int:
        """Byte of the workspace from which the offsets of the layout count for these channels."""
        return self.base + self.channels.start * self.layout.vector_bytes

    def around(self) -> np.ndarray:
        """(count, 3) slot, y and x of the places of the ring that are read.

        >>> layout = with_ring(Layout(1, 8, 8, 1, grid=(1, 4, 4), tile=(2, 2)), (3, 3, 0, 0))
        >>> Map(layout, 0, range(1), (ReadPlaces((-3, 0, 3), (0,)),)).around().tolist()
        [[0, -3, 0], [0, 3, 0]]
        """
        places = self.layout.around()
        _, y, x = places.T
        read = np.zeros(len(places), bool)
        for each in self.read:
            read |= np.isin(y, each.rows) & np.isin(x, each.columns)
        return places[read]

    def everywhere(self) -> np.ndarray:
        """(count, 3) slot, y and x of every place, those of the ring that are read last."""
        return np.concatenate([self.layout.inside(), self.around()])


def fresh(shape: tuple[int, int, int], *, images: int, lanes: int, element: Element = FP32) -> Layout:
    """The layout of maps (channels, height, width) whose grid needs the fewest vectors.

    Tiles so thin that their rings outweigh them are avoided.

    >>> fresh((64, 56, 56), images=1, lanes=16).grid
    (1, 4, 4)
    """
    channels, height, width = shape
    layouts = []
    for down in (2**power for power in range(lanes.bit_length())):
        grid = 1, down, lanes // down
        tile = -(-height // grid[1]), -(-width // grid[2])
        layouts.append(Layout(channels, height, width, images, grid, tile, element=element))
    return min(layouts, key=_cost)


def _cost(layout: Layout) -> float:
    """Vectors, with a surcharge for rings that outweigh their tiles and for narrow tiles."""
    tall, wide = layout.tile
    ringed = (tall + 2) * (wide + 2)
    return layout.vectors * (1 + 0.04 * ringed / (tall * wide)) * (1.05 if wide < NARROW else 1)


def bits(flags: np.ndarray) -> np.ndarray:
    """(..., count) bool -> (...) int64 whose bit l is flag l.

    >>> bits(np.array([[True, False, True]]))
    array([5])
    """
    return np.asarray((flags.astype(np.int64) << np.arange(flags.shape[-1])).sum(-1))


def same_places(a: Layout, b: Layout) -> bool:
    """Whether equal pixels of both lie in equal lanes at equal places of the tiles.

    >>> layout = fresh((64, 56, 56), images=1, lanes=16)
    >>> same_places(layout, with_ring(layout, (1, 1, 1, 1))), same_places(layout, replace(layout, images=2))
    (True, False)
    """
    return (a.images, a.grid, a.tile, a.element) == (b.images, b.grid, b.tile, b.element)


def with_ring(layout: Layout, ring: tuple[int, int, int, int]) -> Layout:
    """The layout with at least this ring.

    >>> layout = with_ring(fresh((64, 56, 56), images=1, lanes=16), (0, 2, 0, 0))
    >>> with_ring(layout, (1, 1, 1, 1)).ring
    (1, 2, 1, 1)
    """
    above, below, left, right = (max(pair) for pair in zip(layout.ring, ring, strict=True))
    return replace(layout, ring=(above, below, left, right))


def _places(first: int, second: tuple[int, int], third: tuple[int, int]) -> np.ndarray:
    grid = np.meshgrid(np.arange(first), np.arange(*second), np.arange(*third), indexing="ij")
    return np.stack([axis.ravel() for axis in grid], axis=1)
