"""Layouts to draw, and maps in memory written and read one number at a time."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from run.drawn import MACHINES
from torch import Tensor
from torch.nn import functional

from zeroskip.run.convolution.tiles.layout import Layout, ReadPlaces
from zeroskip.run.element import FP16, FP32, Element

# Those that can convert numbers to fp16 and back.
HALF_MACHINES = [machine for machine in MACHINES if FP16.is_readable(machine)]
SIDES = st.one_of(st.integers(1, 4), st.integers(1, 20))


@st.composite
def layouts(
    draw: st.DrawFn, *, lanes: int, like: Layout | None = None, ring: int = 3, element: Element = FP32
) -> Layout:
    """Any grid of so many lanes, tiles that cover the map (of the size of `like`) or more, rings wider than a tile."""
    powers = lanes.bit_length() - 1
    images, rows = sorted([draw(st.integers(0, powers)), draw(st.integers(0, powers))])
    grid = 2**images, 2 ** (rows - images), 2 ** (powers - rows)
    height, width, count = (
        (draw(SIDES), draw(SIDES), draw(st.integers(1, 5)))
        if like is None
        else (like.height, like.width, like.images)
    )
    more = draw(st.sampled_from([(0, 0), (0, 1), (2, 0)]))
    tile = -(-height // grid[1]) + more[0], -(-width // grid[2]) + more[1]
    around = tuple(draw(st.integers(0, ring)) for _ in range(4))
    channels = draw(st.integers(1, 3))
    return Layout(channels, height, width, count, grid, tile, around, element)  # type: ignore[arg-type]


def everywhere(layout: Layout) -> np.ndarray:
    """(count, 3) all places, with those of the ring."""
    return np.concatenate([layout.inside(), layout.around()])


@st.composite
def reads(draw: st.DrawFn, layout: Layout) -> tuple[ReadPlaces, ...]:
    """Any rows of the tile and its ring with any columns, up to three times, or all of them."""
    above, below, left, right = layout.ring
    rows, columns = range(-above, layout.tile[0] + below), range(-left, layout.tile[1] + right)
    some = st.builds(ReadPlaces, *[st.sets(st.sampled_from(axis)).map(tuple) for axis in (rows, columns)])
    whole = ReadPlaces(tuple(rows), tuple(columns))
    return tuple(draw(st.one_of(st.just([whole]), st.lists(some, max_size=3))))


def images_of(layout: Layout, *, seed: int = 0) -> Tensor:
    """(images, channels, height, width) numbers from 1 on, none twice as far as fp16 can count."""
    shape = layout.images, layout.channels, layout.height, layout.width
    order = torch.randperm(int(np.prod(shape)), generator=torch.Generator().manual_seed(seed))
    return (order if layout.element == FP32 else order % 2048).float().reshape(shape) + 1


def write_(work: np.ndarray, layout: Layout, base: int, x: Tensor) -> None:
    """Images into memory, pixel by pixel; nothing else is touched."""
    pixels = np.stack(np.meshgrid(*[np.arange(x.shape[axis]) for axis in (0, 2, 3)], indexing="ij"), -1)
    offset, lane = layout.find(pixels)  # (images, height, width)
    for channel in range(x.shape[1]):
        at = (base + offset + channel * layout.vector_bytes) // layout.element.bytes + lane
        work.view(layout.element.dtype)[at] = x[:, channel].numpy()


def read(work: np.ndarray, layout: Layout, base: int, places: np.ndarray, channels: int) -> np.ndarray:
    """(count, channels, lanes) what lies at places."""
    first = (base + layout.offset(*places.T)) // layout.element.bytes
    inner = np.arange(channels)[:, None] * layout.lanes + np.arange(layout.lanes)
    found: np.ndarray = work.view(layout.element.dtype)[first[:, None, None] + inner]
    return found


def seen(layout: Layout, x: Tensor, places: np.ndarray, fill: float = 0.0) -> np.ndarray:
    """(count, channels, lanes) what should lie at places: images, padded with `fill` as far as any tile reaches."""
    images, down, right = np.array(list(np.ndindex(*layout.grid))).T
    slot, y, column = (places[:, [axis]] for axis in range(3))
    image = images * layout.slots + slot  # (count, lanes)
    row, column = down * layout.tile[0] + y, right * layout.tile[1] + column
    far = 2 + max(-int(row.min()), -int(column.min()), int(row.max()), int(column.max()))
    more = max(0, int(image.max()) + 1 - len(x))
    padded = functional.pad(x, (far, far, far, far, 0, 0, 0, more), value=fill).numpy()
    padded[len(x) :] = fill
    found: np.ndarray = padded[image, :, row + far, column + far].transpose(0, 2, 1)
    return found
