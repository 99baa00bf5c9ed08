"""Where pixels lie: every one in exactly one place, found again, and nothing over anything else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maps import everywhere, layouts

from zeroskip.run.convolution.tiles.layout import Layout, fresh, same_places, with_ring
from zeroskip.run.element import FP16, FP32

SIZES = st.sampled_from([(4, FP32), (8, FP32), (16, FP32), (8, FP16), (16, FP16), (32, FP16)])
ANY = SIZES.flatmap(lambda sizes: layouts(lanes=sizes[0], element=sizes[1]))
MANY = settings(max_examples=50, deadline=None)


@MANY
@given(layout=ANY)
def test_every_pixel_of_every_image_lies_in_exactly_one_lane_of_one_place_inside(layout: Layout) -> None:
    pixels = layout.pixels(layout.inside()).reshape(-1, 3)
    pixels = pixels[pixels[:, 0] >= 0]
    numbers = np.ravel_multi_index(tuple(pixels.T), (layout.images, layout.height, layout.width))
    assert sorted(numbers) == list(range(layout.images * layout.height * layout.width))


@MANY
@given(layout=ANY)
def test_find_leads_to_the_place_and_lane_whose_pixel_it_was_given(layout: Layout) -> None:
    places = layout.inside()
    pixels = layout.pixels(places)
    place, lane = np.nonzero(pixels[:, :, 0] >= 0)
    offset, found = layout.find(pixels[place, lane])
    assert (offset == layout.offset(*places[place].T)).all()
    assert (found == lane).all()


@MANY
@given(layout=ANY)
def test_bit_l_of_a_mask_says_whether_lane_l_holds_a_pixel(layout: Layout) -> None:
    places = everywhere(layout)
    held = layout.pixels(places)[:, :, 0] >= 0
    expected = [sum(1 << int(lane) for lane in np.flatnonzero(row)) for row in held]
    assert layout.masks(places).tolist() == expected


@MANY
@given(layout=ANY)
def test_places_fill_the_memory_of_a_layout_from_end_to_end_without_overlap(layout: Layout) -> None:
    places = everywhere(layout)
    offsets = sorted(layout.offset(*places.T).tolist())
    assert offsets == list(range(0, layout.bytes, layout.place_bytes))
    assert layout.place_bytes >= layout.channels * layout.vector_bytes
    assert len(layout.inside()) == layout.vectors


@MANY
@given(layout=ANY)
def test_a_ring_repeats_the_pixels_of_the_neighbours_and_nothing_but_pixels(layout: Layout) -> None:
    pixels = layout.pixels(layout.around())
    there = pixels[..., 0] >= 0
    assert (pixels[~there] == -1).all()
    assert layout.contains(pixels[there]).all()


@pytest.mark.parametrize("lanes", [4, 8, 16, 32])
def test_fresh_tiles_of_all_maps_up_to_20_x_20_are_near_the_fewest_of_all_grids(lanes: int) -> None:
    grids = [(down, lanes // down) for down in range(1, lanes + 1) if lanes % down == 0]
    for height, width, images in np.ndindex(20, 20, 2):
        layout = fresh((1, height + 1, width + 1), images=images + 1, lanes=lanes)
        assert layout.lanes == lanes
        for tile, tiles, size in zip(layout.tile, layout.grid[1:], (height + 1, width + 1), strict=True):
            assert (tile - 1) * tiles < size <= tile * tiles
        fewest = min(-(-(height + 1) // down) * -(-(width + 1) // right) for down, right in grids)
        # Thin tiles have more ring; that is priced at 4 % of a place, and a tile of one place has 8 around it. Tiles
        # of narrow rows cost 5 % for being slow to read.
        assert layout.vectors <= fewest * (images + 1) * 1.05 * (1 + 0.04 * 9) / (1 + 0.04)


@pytest.mark.parametrize(
    ("height", "width", "lanes", "grid"),
    [
        (56, 56, 16, (1, 4, 4)), (7, 7, 16, (1, 8, 2)), (1, 1, 16, (1, 1, 16)), (1, 100, 16, (1, 1, 16)),
        (100, 1, 16, (1, 16, 1)), (8, 8, 8, (1, 4, 2)), (8, 8, 4, (1, 2, 2)), (56, 56, 32, (1, 4, 8)),
    ],
)  # fmt: skip
def test_maps_are_cut_into_squares_lines_into_lines_and_rows_of_4_pixels_stay_whole_where_they_can(
    height: int, width: int, lanes: int, grid: tuple[int, int, int]
) -> None:
    assert fresh((3, height, width), images=1, lanes=lanes).grid == grid


def test_same_places_do_not_ask_for_channels_rings_or_sizes_but_for_tiles() -> None:
    layout = fresh((8, 14, 14), images=2, lanes=16)
    assert same_places(layout, replace(layout, channels=3, ring=(1, 1, 1, 1)))
    assert not same_places(layout, replace(layout, tile=(layout.tile[0] + 1, layout.tile[1])))
    assert not same_places(layout, replace(layout, images=3))
    assert not same_places(layout, replace(layout, element=FP16))
    assert not same_places(layout, replace(layout, grid=(2, *layout.grid[1:])))


def test_with_ring_takes_the_wider_of_two_on_each_of_four_sides() -> None:
    layout = replace(fresh((8, 14, 14), images=1, lanes=16), ring=(3, 0, 1, 0))
    assert with_ring(layout, (1, 2, 1, 4)).ring == (3, 2, 1, 4)
