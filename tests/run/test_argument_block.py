"""The memory block that compiled code reads."""

from __future__ import annotations

import ctypes

import numpy as np

from zeroskip.run.argument_block import argument_block, offsets


def test_a_block_holds_numbers_and_the_addresses_of_contiguous_copies() -> None:
    columns = np.arange(6, dtype=np.float32).reshape(2, 3).T
    block = argument_block(7, columns)
    table = (ctypes.c_int64 * 2).from_address(block.address)
    assert table[0] == 7
    assert list((ctypes.c_float * 6).from_address(table[1])) == [0, 3, 1, 4, 2, 5]


def test_every_array_begins_a_cache_line_and_what_else_is_kept_alive_is_named() -> None:
    kept = object()
    block = argument_block(np.zeros(3, np.uint8), 5, np.zeros(0), np.ones(9), alive=(kept,))
    first, five, empty, last = (ctypes.c_int64 * 4).from_address(block.address)
    assert (first % 64, five, last - first) == (0, 5, 64)
    assert empty == last  # nothing lies there
    assert block.alive[1:] == (kept,)


def test_offsets_are_where_each_array_begins_and_where_the_last_one_ends() -> None:
    assert offsets([3, 0, 2]).tolist() == [0, 3, 3, 5]
    assert offsets([]).tolist() == [0]
