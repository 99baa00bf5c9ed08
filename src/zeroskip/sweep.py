"""Many independent points: each is computed once, and its result kept as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar, cast

from zeroskip import files
from zeroskip.concepts import Progress, silent
from zeroskip.errors import RunError

SweepPoint = Mapping[str, object]
ResultT = TypeVar("ResultT")


def sweep(
    points: Sequence[SweepPoint],
    function: Callable[[SweepPoint], ResultT],
    *,
    folder: str | Path | None = None,
    jobs: int = 1,
    progress: Progress = silent,
) -> list[ResultT]:
    """What `function` gives for each point, in the points' order; points and results are what JSON can hold.

    folder  where each result is stored by a key made of its point, and read instead of computed again: a point must
            name all that decides its result
    jobs    local processes; with more than one, `function` has to be importable (defined at the top of a module)
    An error of `function` ends the sweep; results until then are kept. RunError where a process dies.

    >>> sweep([{"lanes": 16}, {"lanes": 32}], lambda point: 1024 // point["lanes"])
    [64, 32]
    """
    if jobs < 1:
        raise RunError(f"jobs = {jobs} is not a number of processes. Give 1 or more.")
    paths = [_path(Path(folder), point) if folder is not None else None for point in points]
    stored = {place: path for place, path in enumerate(paths) if path and path.exists()}
    results = {place: cast(ResultT, _stored(path, points[place])) for place, path in stored.items()}
    missing = {place: point for place, point in enumerate(points) if place not in results}
    progress("sweep", len(results), len(points))
    for place, result in _computed(missing, function, jobs):
        entry = _plain({"point": points[place], "result": result})
        results[place] = cast(ResultT, entry["result"])
        if path := paths[place]:
            files.write_json(path, entry)
        progress("sweep", len(results), len(points))
    return [results[place] for place in range(len(points))]


def _computed(
    points: Mapping[int, SweepPoint], function: Callable[[SweepPoint], ResultT], jobs: int
) -> Iterator[tuple[int, ResultT]]:
    """(place, result) of each point, as they are found."""
    if jobs == 1 or len(points) < 2:
        yield from ((place, function(point)) for place, point in points.items())
        return
    # Fresh processes: a fork of one that has threads, as torch has, may hang.
    pool = ProcessPoolExecutor(min(jobs, len(points)), get_context("spawn"), _one_thread)
    try:
        places = {pool.submit(function, point): place for place, point in points.items()}
        for future in as_completed(places):
            yield places[future], future.result()
    except BrokenProcessPool:
        raise RunError(
            "a process of the sweep died, mostly for want of memory. Found points are kept: run it again with fewer "
            "jobs."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    """The processes share the cores: more threads would only disturb each other."""
    import torch

    torch.set_num_threads(1)


def _stored(path: Path, point: SweepPoint) -> object:
    """The result of a point in its file."""
    entry = files.read_json(path)
    if isinstance(entry, dict) and "result" in entry and entry.get("point") == _plain(point):
        return entry["result"]
    raise RunError(f"{path} does not hold the result of {dict(point)}. Delete it, or choose another folder.")


def _path(folder: Path, point: SweepPoint) -> Path:
    text = json.dumps(point, sort_keys=True)
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def _plain(value: SweepPoint) -> dict[str, object]:
    """As JSON has it, so that a stored result and a fresh one are the same."""
    return cast(dict[str, object], json.loads(json.dumps(value)))
