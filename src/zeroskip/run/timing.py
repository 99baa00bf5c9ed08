"""Fair stop-watches: whatever is compared is measured in turns, so that a busy minute hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median

import torch

from zeroskip.errors import EngineError

Call = Callable[[], object]


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """PyTorch computes with that many threads inside, and with as many as before afterwards.

    >>> with torch_threads(3):
    ...     torch.get_num_threads()
    3
    """
    if threads < 1:
        raise EngineError(f"{threads} threads cannot compute anything. Give threads=1 or more.")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleaved(calls: Mapping[str, Call], *, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds of one call, for each of the calls and rounds.

    In a round every call has its turn of about `seconds`, as often as fits; the order rotates.
    """
    counts = {name: _repetitions(call, seconds) for name, call in calls.items()}
    measured: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(rounds):
        first = number % max(1, len(names))
        for name in names[first:] + names[:first]:
            measured[name].append(_seconds(calls[name], counts[name]))
    return measured


def medians(measured: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each list."""
    return {name: median(values) for name, values in measured.items()}


def _repetitions(call: Call, seconds: float) -> int:
    """How often to call so that it takes about `seconds`."""
    call()
    count = 1
    while (once := _seconds(call, count)) * count < seconds / 4:
        count *= 2
    return max(1, round(seconds / once))


def _seconds(call: Call, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count
