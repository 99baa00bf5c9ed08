"""Machine code called as a builtin: what it is given, what it refuses, what it keeps alive, and Python's lock."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from zeroskip.emit.python_call import address, function


def of_library(name: str) -> int:
    """Where a function of the C library begins."""
    return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0


class Owner:
    """Anything that machine code needs."""


@pytest.mark.parametrize("count", [0, 1, 2, 6, 9])
def test_code_gets_its_arguments_in_order_as_64_bits(count: int) -> None:
    seen: list[int] = []
    called = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * count)(lambda *given: seen.extend(given))
    run = function(ctypes.cast(called, ctypes.c_void_p).value or 0, count, called)
    given = [(-1) ** each * (2**62 - each) for each in range(count)]
    assert run(*given) == 0
    assert seen == given


@pytest.mark.parametrize("wrong", [(), (1,), (1, 2, 3), ("1", 2), (1.0, 2), (None, 2)], ids=str)
def test_another_number_or_type_of_arguments_is_refused_before_the_code_runs(
    wrong: tuple[object, ...],
) -> None:
    seen: list[int] = []
    called = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(lambda *given: seen.extend(given))
    run = function(ctypes.cast(called, ctypes.c_void_p).value or 0, 2, called)
    with pytest.raises(TypeError):
        run(*wrong)
    assert seen == []


def test_the_owner_lives_as_long_as_the_function() -> None:
    owner = Owner()
    gone = weakref.ref(owner)
    run = function(of_library("memset"), 3, owner)
    del owner
    gc.collect()
    room = np.zeros(4, np.uint8)
    run(room.ctypes.data, 7, 3)
    assert (room.tolist(), gone() is not None) == ([7, 7, 7, 0], True)
    del run
    gc.collect()
    assert gone() is None


def test_a_function_tells_where_its_code_begins() -> None:
    assert address(function(4096, 1, None)) == 4096


@pytest.mark.skipif(sys.platform != "linux", reason="poll and pipes as Linux has them")
def test_python_goes_on_while_the_code_runs() -> None:
    read, write = os.pipe()
    waited = np.array([read, 1], np.int32)  # struct pollfd {int fd; short events = POLLIN, revents}
    run = function(of_library("poll"), 3, None)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(run, waited.ctypes.data, 1, 5000)
        os.write(write, b"x")  # would come after five seconds if the lock were held
        done.result()
    assert waited[1] == 1 | 1 << 16
    os.close(read)
    os.close(write)
