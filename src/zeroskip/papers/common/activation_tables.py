"""How sparse the maps of published trained networks are, layer by layer, in the form of Shi and Chu 2017."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zeroskip import measure
from zeroskip.concepts import Progress, silent
from zeroskip.tasks.published_networks import NETWORKS, trained


def measure_trained(
    folder: str | Path, *, names: Collection[str] | None = None, progress: Progress = silent
) -> list[dict[str, Any]]:
    """Rows of every layer of every network: what a `measure.Row` holds, with network, data and number of examples.

    folder  the parent of weights/ and of the data sets
    names   of NETWORKS, by default all
    Raises FileError or DataError where a file is absent.

    >>> measure_trained("/data", names=["LeNet-5"])[3]["before"]
    0.544
    """
    return [row for name in names or NETWORKS for row in _rows(name, Path(folder), progress)]


def _rows(name: str, folder: Path, progress: Progress) -> list[dict[str, Any]]:
    one, model = NETWORKS[name], trained(name, folder)
    named: Progress = lambda what, done, total: progress(f"{what} of {name}", done, total)
    zeros = measure.activations(model, one.batches(folder), progress=named)
    example = next(iter(one.batches(folder)))[0][:1]  # for the shapes
    rows = measure.table(model, example, zeros)
    examples = zeros[rows[0].layer].before.elements // example.numel()
    return [{"network": name, "data": one.data, "examples": examples, **asdict(row)} for row in rows]
