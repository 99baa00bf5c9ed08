"""The parent's end of a worker: orders out, answers in, and a reason where none comes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from zeroskip.bench.worker import Order, Reply
from zeroskip.errors import EngineError

Value = TypeVar("Value")

STARTING = 120.0  # seconds that loading the libraries may take, whatever the limit of an order


class WorkerProcess:
    """A process that serves one engine. Every failure is an EngineError with the reason, and ends it.

    limit  seconds that an order may take; after them the process is killed
    """

    def __init__(
        self, command: Sequence[str], log: Path, *, environment: Mapping[str, str], limit: float
    ) -> None:
        self._log, self._limit, pipe = log, limit, subprocess.PIPE
        variables = {**os.environ, **environment}
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                list(command), stdin=pipe, stdout=pipe, stderr=stream, env=variables
            )

    @property
    def alive(self) -> bool:
        """Whether the process can take orders."""
        return self._process.poll() is None

    def ready(self) -> dict[str, str]:
        """Wait until its libraries are loaded: their versions by name. Without them the process ends."""
        try:
            return _there(self._converse(None)[0].versions, "versions")
        except EngineError:
            self.close()
            raise

    def build(self, folder: Path, case: Mapping[str, object]) -> float | None:
        """Make the network of a case ready in `folder`; seconds from what is stored there to the first answer."""
        return self._converse(Order("build", folder=str(folder), case=dict(case)))[0].first

    def time(self, seconds: float, *, cold: bool, clock: str) -> list[float]:
        """Call it for about `seconds`; seconds of a call, several times."""
        order = Order("time", seconds=seconds, cold=cold, clock=clock)
        return _there(self._converse(order)[0].seconds, "seconds")

    def answer(self) -> np.ndarray:
        """What the network returns, as float32."""
        return _there(self._converse(Order("answer"))[1], "array")

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _converse(self, order: Order | None) -> tuple[Reply, np.ndarray | None]:
        """Wake it, hand over the order, wait for the answer, stop it."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(self._limit if order else max(self._limit, STARTING), give_up)
        timer.start()
        try:
            reply, array = self._exchange(order)
        except (OSError, ValueError):  # its pipe is closed, or it wrote something else
            self._process.kill()
            self._process.wait()
            raise EngineError(self._last_words(late.is_set())) from None
        finally:
            timer.cancel()
        if reply.error is not None:
            raise EngineError(reply.error)
        return reply, array

    def _exchange(self, order: Order | None) -> tuple[Reply, np.ndarray | None]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise ValueError("no pipes")
        self._signal("SIGCONT")
        if order is not None:
            stdin.write(json.dumps(order.to_json()).encode() + b"\n")
            stdin.flush()
        reply, array = Reply.from_json(json.loads(stdout.readline())), None
        if reply.shape is not None:
            content = stdout.read(4 * int(np.prod(reply.shape)))
            array = np.frombuffer(content, dtype=np.float32).reshape(reply.shape)
        self._signal("SIGSTOP")
        return reply, array

    def _signal(self, name: str) -> None:
        # An idle engine must not disturb the one whose turn it is, and some spin while they wait for work, so it
        # is stopped. Windows has no such signals; there all are trusted to be idle.
        if self.alive and hasattr(signal, name):
            self._process.send_signal(getattr(signal, name))

    def _last_words(self, late: bool) -> str:
        if late:
            return f"it gave no answer within {self._limit:g} seconds"
        lines = self._log.read_text(errors="replace").strip().splitlines()
        last_line = f": {lines[-1][:200]}" if lines else ""
        return f"its process ended with status {self._process.returncode}{last_line}"


def _there(value: Value | None, name: str) -> Value:
    """What a reply has to hold; EngineError without it."""
    if value is None:
        raise EngineError(f"its reply has no {name}")
    return value
