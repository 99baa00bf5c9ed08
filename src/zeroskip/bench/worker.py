"""One engine in a process of its own: orders come as JSON lines on stdin, answers go to stdout.

    python worker.py ENGINE THREADS
    {"do": "build", "folder": ..., "case": {...}}   -> {"ok": true, "first": 0.1}, after the first two calls
    {"do": "time", "seconds": 0.05, "cold": false, "clock": "wall"}  -> {"ok": true, "seconds": [...]} of calls
    {"do": "answer"}                                -> {"ok": true, "shape": [...]}, a line; then float32 bytes

The first line says which versions were loaded; whatever goes wrong is {"error": reason}. The file is run by its path
and imports engines (worker_engines.py) when asked for: their environments may have neither zeroskip nor torch, and
Python 3.8 or later.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from zeroskip.bench.worker_engines import EngineCall, Prepared

STREAMED = 200_000_000  # bytes that go through the caches before each call of a cold case
SHORTEST = 2e-4  # seconds that are read from the clock at once: it takes up to a microsecond itself
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SET_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Order:
    """A line on stdin. do: "build" a case in a folder, "time" it for about so many seconds, or "answer".

    >>> Order("time", seconds=0.05).to_json()
    {'do': 'time', 'seconds': 0.05, 'cold': False, 'clock': 'wall'}
    """

    do: str
    folder: str = ""
    case: Mapping[str, object] | None = None
    seconds: float = 0.0
    cold: bool = False
    clock: str = "wall"

    def to_json(self) -> dict[str, object]:
        """What the worker has to know for it."""
        names = {"build": ("do", "folder", "case"), "time": ("do", "seconds", "cold", "clock")}
        return {name: getattr(self, name) for name in names.get(self.do, ("do",))}

    @staticmethod
    def from_json(value: Mapping[str, object]) -> Order:
        """ValueError where it is none."""
        if value.get("do") not in ("build", "time", "answer"):
            raise ValueError(f"there is no order {value.get('do')!r}")
        return Order(**value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Reply:
    """A line on stdout: what was asked for, or why there is none.

    versions  of the libraries, in the first line;  shape: of the array that follows
    first     seconds from the network as the engine stores it to its first answer
    """

    versions: dict[str, str] | None = None
    seconds: list[float] | None = None
    shape: list[int] | None = None
    first: float | None = None
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        """Only what is there; {"ok": true} where nothing went wrong."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return values if self.error is not None else {"ok": True, **values}

    @staticmethod
    def from_json(value: object) -> Reply:
        """ValueError where it is none."""
        if not isinstance(value, dict) or not ("error" in value or value.get("ok") is True):
            raise ValueError(f"{value!r:.100} is no reply")
        kinds = {"versions": dict, "seconds": list, "shape": list, "first": float, "error": str}
        values = {name: value[name] for name in kinds if name in value}
        for name, content in values.items():
            if not isinstance(content, kinds[name]):
                raise ValueError(f"{name} = {content!r:.100} is no {kinds[name].__name__}")
        return Reply(**values)


def main() -> None:
    """Serve the engine named on the command line until stdin ends."""
    word, threads = sys.argv[1], int(sys.argv[2])
    _settle(threads)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    engines = _engines()
    libraries, build = engines.BUILDERS[word]
    try:
        for library in libraries:
            importlib.import_module(library)
        _reply(answers, Reply(versions={library: version(library) for library in libraries}))
    except Exception as fact:
        _reply(answers, _failure(fact))
        return
    serve(sys.stdin.buffer, answers, lambda *job: build(engines.WorkerJob(*job, threads)))


def _engines() -> ModuleType:
    """The file beside this one, which no package makes known where zeroskip is not installed."""
    name = "worker_engines"
    spec = importlib.util.spec_from_file_location(name, str(Path(__file__).with_name(f"{name}.py")))
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def serve(
    orders: Iterable[bytes],
    answers: BinaryIO,
    build: Callable[[Path, Mapping[str, object]], Prepared],
) -> None:
    """Carry out orders, one a line, with what `build` makes of a folder and a case; a failure is a reply as well."""
    prepared: Prepared | None = None
    for line in orders:
        try:
            order = Order.from_json(json.loads(line))
            if order.do == "build":
                prepared = None  # the network before this one may fill the memory
                prepared = build(Path(order.folder), order.case or {})
                _reply(answers, Reply(first=_first(prepared)))
            elif prepared is None:
                raise ValueError("nothing is built")
            elif order.do == "time":
                seconds = timed(prepared.call, order.seconds, cold=order.cold, clock=order.clock)
                _reply(answers, Reply(seconds=seconds))
            else:
                array = _array((prepared.answer or prepared.call)())
                _reply(answers, Reply(shape=list(array.shape)), array.tobytes())
        except Exception as fact:
            _reply(answers, _failure(fact))


def _first(prepared: Prepared) -> float | None:
    """Seconds from what is stored to the first answer, where that is asked; a second call settles what is left."""
    before = time.perf_counter()
    prepared.call()
    took = time.perf_counter() - before
    prepared.call()
    return None if prepared.loading is None else prepared.loading + took


def timed(call: EngineCall, seconds: float, *, cold: bool = False, clock: str = "wall") -> list[float]:
    """Seconds of a call, at least twice, for about `seconds`, after one that does not count.

    Calls that are too short for the clock are counted several at a time, unless caches are to be `cold`.
    """
    call()
    now = CLOCKS[clock]
    together = 1 if cold else _together(call, now)
    stream = np.zeros(STREAMED // 4 if cold else 0, dtype=np.float32)
    measured: list[float] = []
    start = time.perf_counter()
    while len(measured) < 2 or time.perf_counter() - start < seconds:
        stream += 1
        before = now()
        for _ in range(together):
            call()
        measured.append((now() - before) / together)
    return measured


def _together(call: EngineCall, now: Callable[[], float]) -> int:
    """How many calls the clock can tell from none."""
    before = now()
    call()
    return max(1, round(SHORTEST / max(now() - before, 1e-7)))


def _settle(threads: int) -> None:
    """Before any library counts cores: the first `threads` of them are ours, and we end with our parent."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)


def _reply(answers: BinaryIO, reply: Reply, content: bytes = b"") -> None:
    answers.write(json.dumps(reply.to_json()).encode() + b"\n" + content)
    answers.flush()


def _failure(fact: Exception) -> Reply:
    traceback.print_exc()
    lines = str(fact).strip().splitlines() or [""]
    return Reply(error=f"{type(fact).__name__}: {lines[0]}"[:300])


def _array(answer: object) -> np.ndarray:
    """A tensor or an array as float32."""
    as_float = getattr(answer, "float", None)
    return np.ascontiguousarray(as_float().numpy() if as_float else answer, dtype=np.float32)


if __name__ == "__main__":
    main()
