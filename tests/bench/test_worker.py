"""A worker and the parent's end of it: what goes over the pipes, and what happens when nothing comes back."""

from __future__ import annotations

import ast
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from zeroskip.bench import worker, worker_engines
from zeroskip.bench.worker_engines import Prepared
from zeroskip.bench.worker_process import WorkerProcess
from zeroskip.errors import EngineError

FAKE = str(Path(__file__).parent / "fake_engine.py")
BUILD = {"do": "build", "folder": "somewhere", "case": {}}
TIME = {"do": "time", "seconds": 0.0, "cold": False, "clock": "wall"}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    started: list[WorkerProcess] = []

    def starting(behaviour: str, limit: float = 30.0) -> WorkerProcess:
        command = [sys.executable, FAKE, behaviour]
        started.append(WorkerProcess(command, tmp_path / "log", environment={}, limit=limit))
        return started[-1]

    yield starting
    for one in started:
        one.close()


def served(build: Callable[..., Any], *orders: dict[str, Any]) -> io.BytesIO:
    out = io.BytesIO()
    worker.serve([json.dumps(order).encode() for order in orders], out, build)
    out.seek(0)
    return out


def test_a_worker_gives_versions_builds_answers_and_times(start: Callable[..., WorkerProcess]) -> None:
    one = start("good")
    assert one.ready() == {"good": "1.0"}
    one.build(Path("somewhere"), {"network": "any"})
    assert one.answer().tolist() == [[1.0, 2.0]]
    assert one.time(0.1, cold=False, clock="wall") == [2e-3, 1e-3, 3e-3]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_between_two_orders_a_worker_is_stopped_so_that_it_disturbs_nobody(
    start: Callable[..., WorkerProcess],
) -> None:
    one = start("good")
    one.ready()
    status = Path(f"/proc/{one._process.pid}/stat")
    deadline = time.monotonic() + 5
    while (state := status.read_text().rsplit(") ", 1)[1][0]) != "T" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert state == "T"


def test_a_worker_that_dies_is_reported_with_its_status_and_last_words(
    start: Callable[..., WorkerProcess],
) -> None:
    one = start("dies")
    one.ready()
    with pytest.raises(EngineError, match="status 3: segmentation fault"):
        one.time(0.1, cold=False, clock="wall")
    assert not one.alive


def test_a_worker_that_is_late_is_killed_and_its_limit_named(start: Callable[..., WorkerProcess]) -> None:
    one = start("sleeps", limit=0.5)
    one.ready()
    with pytest.raises(EngineError, match=r"no answer within 0\.5 seconds"):
        one.time(0.1, cold=False, clock="wall")
    assert not one.alive


def test_a_worker_that_writes_something_else_is_not_believed(start: Callable[..., WorkerProcess]) -> None:
    one = start("babbles")
    one.ready()
    with pytest.raises(EngineError, match="its process ended"):
        one.time(0.1, cold=False, clock="wall")


@pytest.mark.parametrize(("behaviour", "reason"), [("absent", "No module named 'rival'")])
def test_a_library_that_is_absent_is_named(
    start: Callable[..., WorkerProcess], behaviour: str, reason: str
) -> None:
    with pytest.raises(EngineError, match=reason):
        start(behaviour).ready()


def test_an_order_that_fails_leaves_the_worker_alive(start: Callable[..., WorkerProcess]) -> None:
    one = start("refuses")
    one.ready()
    with pytest.raises(EngineError, match="cannot compile"):
        one.build(Path("somewhere"), {})
    assert one.alive


def test_serving_calls_what_was_built_twice_before_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "SHORTEST", 0.0)
    calls: list[int] = []

    def build(*job: object) -> Prepared:
        return Prepared(lambda: calls.append(1) or np.array([[1.5, 2.0]]))

    out = served(build, BUILD, {"do": "answer"}, TIME)
    assert set(json.loads(out.readline())) == {"ok", "first"}
    assert json.loads(out.readline()) == {"ok": True, "shape": [1, 2]}
    assert np.frombuffer(out.read(8), dtype=np.float32).tolist() == [1.5, 2.0]
    assert len(json.loads(out.readline())["seconds"]) == 2
    assert (
        len(calls) == 2 + 1 + 4
    )  # built, asked, and timed: one to warm up, one to see how long it takes, two


def test_serving_reports_a_failure_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    def build(folder: Path, case: dict[str, Any]) -> Prepared:
        return Prepared(lambda: 1 / case["divisor"])

    out = served(build, BUILD | {"case": {"divisor": 0}}, BUILD | {"case": {"divisor": 1}})
    assert json.loads(out.readline()) == {"error": "ZeroDivisionError: division by zero"}
    assert json.loads(out.readline())["ok"] is True
    assert "Traceback" in capsys.readouterr().err


def test_calls_too_short_for_the_clock_are_timed_several_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1000))
    monkeypatch.setitem(worker.CLOCKS, "cpu", lambda: 1e-5 * next(ticks))  # every look says 10 us more
    calls: list[int] = []
    seconds = worker.timed(lambda: calls.append(1), 0.0, clock="cpu")
    assert seconds == pytest.approx([1e-5 / 20] * 2)  # 200 us would hold 20 calls of 10 us
    assert len(calls) == 1 + 1 + 2 * 20


def test_only_the_call_is_timed_not_the_stream_that_cools_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(worker.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setitem(worker.CLOCKS, "wall", worker.time.perf_counter)
    monkeypatch.setattr(worker, "STREAMED", 4000)
    # Start, before, after, and again; the loop looks at the clock only once it has two.
    assert worker.timed(lambda: None, 0.0, cold=True) == [1.0, 1.0]


@pytest.mark.parametrize("module", [worker, worker_engines], ids=["worker", "its engines"])
def test_the_worker_starts_without_zeroskip_and_torch(module: ModuleType) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text())
    names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    foreign = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert foreign == {"numpy"}
