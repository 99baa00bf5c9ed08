"""Fair stop-watches: whatever is compared is measured in turns, so that a busy minute hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from statistics import median
from typing import TypeVar

import torch

from zeroskip.errors import EngineError

Call = Callable[[], object]
Clock = Callable[[], float]
"""Seconds since any moment."""
Name = TypeVar("Name")

CLOSE = 0.05  # share by which the seconds of two kernels must differ to decide between them
SHORTEST = 1e-9  # seconds that shares are taken of, where less is read
TURN = 5e-4  # seconds that a short call is repeated for, before the next one has its turn
FEWEST, MOST = 6, 40  # rounds
AGREED = 0.01  # share by which two readings of the same call may differ
BUDGET = 0.1  # seconds after which readings that still differ are taken as they are


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """PyTorch computes with that many threads inside, and with as many as before afterwards.

    >>> with torch_threads(3):
    ...     torch.get_num_threads()
    3
    """
    if not isinstance(threads, int) or threads < 1:
        raise EngineError(f"{threads!r} threads cannot compute anything. Give threads=1 or more.")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def thread_clock() -> Clock:
    """CPU time of this thread, which other programs do not lengthen; wall time where a system counts it coarsely."""
    return time.thread_time if time.get_clock_info("thread_time").resolution <= 1e-6 else time.perf_counter


def stop_watch() -> Clock:
    """The clock for calls that compute as PyTorch does: that of this thread where it uses one, else wall time.

    >>> with torch_threads(1):
    ...     stop_watch().__name__
    'thread_time'
    """
    return thread_clock() if torch.get_num_threads() == 1 else time.perf_counter


def reading_seconds(clock: Clock) -> float:
    """What it takes to read the clock, the least of many times: half a microsecond for CPU time."""
    times = [clock() for _ in range(100)]
    return min(end - start for start, end in pairwise(times))


def raced(calls: Mapping[Name, Call], clock: Clock, *, budget: float = BUDGET) -> dict[Name, float]:
    """Seconds of one call of each: the least of several turns, since whatever disturbs a call makes it longer.

    Rounds are repeated until two readings of each call that may yet win differ by 1 % at most, a reading being the
    least of half of its turns; at most 40, or until they took `budget` seconds. A call that is far behind the fastest
    has no further turns.

    >>> sorted(raced({"a": int, "b": dict}, time.thread_time))
    ['a', 'b']
    """
    paces = {name: _pace(call, clock) for name, call in calls.items()}
    turns = {name: [first] for name, (_, first) in paces.items()}
    spent = 0.0
    for number in range(MOST):
        left = _contenders(turns)
        done = number >= FEWEST and all(settled(turns[name]) for name in left)
        if done or (spent > budget and number > 1):
            break
        first = number % max(1, len(left))
        for name in left[first:] + left[:first]:
            count = paces[name][0]
            turns[name].append(_seconds(calls[name], count, clock))
            spent += count * turns[name][-1]
    return {name: min(seconds) for name, seconds in turns.items()}


def preferred(seconds: Mapping[Name, float], close: float = CLOSE) -> Name:
    """The first of those whose seconds are within the share `close` of the least: near ties are decided by the order.

    >>> preferred({"dense": 1.04, "sell": 1.0}), preferred({"dense": 1.06, "sell": 1.0})
    ('dense', 'sell')
    """
    least = min(seconds.values())
    # Less than nothing is read where what reading the clock takes is subtracted from very little.
    return next(name for name, took in seconds.items() if took <= least + close * max(least, SHORTEST))


def interleaved(calls: Mapping[str, Call], *, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds of one call, for each of the calls and rounds; by wall time, as someone waits for it.

    In a round every call has its turn of about `seconds`, as often as fits; the order rotates.
    """
    clock = time.perf_counter
    for call in calls.values():
        call()
    counts = {name: _pace(call, clock, seconds)[0] for name, call in calls.items()}
    measured: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds):
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            measured[name].append(_seconds(calls[name], counts[name], clock))
    return measured


def medians(measured: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each list."""
    return {name: median(values) for name, values in measured.items()}


def settled(turns: Sequence[float]) -> bool:
    """Whether the first and the second half of the turns have the same least seconds, up to 1 %.

    >>> settled([3.0, 1.0, 1.005, 2.0]), settled([1.0, 1.1])
    (True, False)
    """
    half = len(turns) // 2
    readings = min(turns[:half]), min(turns[half:])
    return max(readings) <= (1 + AGREED) * min(readings)


def _contenders(turns: Mapping[Name, Sequence[float]]) -> list[Name]:
    """Those that may yet be fastest: the more turns, the closer they must be. One bad turn costs nobody the race."""
    least = min((min(seconds) for seconds in turns.values()), default=0.0)
    return [
        name
        for name, taken in turns.items()
        if len(taken) < 2 or min(taken) <= (1 + max(2 * CLOSE, 8 / len(taken) ** 2)) * least
    ]


def _pace(call: Call, clock: Clock, turn: float = TURN) -> tuple[int, float]:
    """How often to call so that it takes about `turn` seconds, and a first reading of one call."""
    count = 1
    while (once := _seconds(call, count, clock)) * count < turn / 4:
        count *= 2
    return max(1, round(turn / once)), once


def _seconds(call: Call, count: int, clock: Clock) -> float:
    start = clock()
    for _ in range(count):
        call()
    return (clock() - start) / count
