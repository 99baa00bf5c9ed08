"""Many independent points: each is computed once, kept as JSON, and found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from zeroskip import files
from zeroskip.concepts import Progress, silent
from zeroskip.errors import RunError

Point = Mapping[str, Any]
Function = Callable[[Point], Any]


def sweep(
    points: Sequence[Point],
    function: Function,
    *,
    folder: str | Path | None = None,
    jobs: int = 1,
    progress: Progress = silent,
) -> list[Any]:
    """What `function` gives for each point, in the points' order; points and results are what JSON can hold.

    folder  each result is stored there when it is found, by a key made of its point, and not computed again: a point
            must name all that decides its result
    jobs    local processes; with more than one, `function` has to be importable (defined at the top of a module)
    An error of `function` ends the sweep; what was found until then is kept. RunError where a process dies.

    >>> sweep([{"lanes": 16}, {"lanes": 32}], lambda point: 1024 // point["lanes"])
    [64, 32]
    """
    if jobs < 1:
        raise RunError(f"jobs = {jobs} is not a number of processes. Give 1 or more.")
    found = {place: known for place, point in enumerate(points) if (known := _stored(folder, point))}
    missing = [place for place in range(len(points)) if place not in found]
    progress("sweep", len(found), len(points))
    for place, result in _computed({place: points[place] for place in missing}, function, jobs):
        # As JSON has it, so that a stored result and a fresh one are the same.
        found[place] = json.loads(json.dumps({"point": points[place], "result": result}))
        if folder is not None:
            files.write_json(_path(folder, points[place]), found[place])
        progress("sweep", len(found), len(points))
    return [found[place]["result"] for place in range(len(points))]


def _computed(points: Mapping[int, Point], function: Function, jobs: int) -> Iterator[tuple[int, Any]]:
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
    """The processes share the processor; more threads would only get in each other's way."""
    import torch

    torch.set_num_threads(1)


def _stored(folder: str | Path | None, point: Point) -> dict[str, Any] | None:
    if folder is None or not _path(folder, point).exists():
        return None
    path = _path(folder, point)
    found = files.read_json(path)
    if not isinstance(found, dict) or "result" not in found or found.get("point") != _plain(point):
        raise RunError(
            f"{path} does not hold the result of {dict(point)}. Delete it, or choose another folder."
        )
    return found


def _path(folder: str | Path, point: Point) -> Path:
    text = json.dumps(point, sort_keys=True)
    return Path(folder) / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def _plain(point: Point) -> Any:
    return json.loads(json.dumps(point))
