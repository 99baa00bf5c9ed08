"""Loops written in Python, compiled by numba.

The import of numba takes 0.3 seconds: a file of such loops is imported where they are called, not at the top.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function as machine code, kept for the next process where a folder can be written to."""
    try:
        return cast(Callable[P, R], njit(nogil=True, cache=True)(function))
    except RuntimeError:  # neither beside the function's file nor in the user's cache
        return cast(Callable[P, R], njit(nogil=True)(function))
