"""How sparse the maps of published trained networks are, layer by layer, in the form of Shi and Chu 2017."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from zeroskip import measure
from zeroskip.concepts import NetworkZeros, Progress, silent
from zeroskip.tasks.published_networks import NETWORKS, trained


def measure_trained(
    folder: str | Path, *, names: Collection[str] | None = None, progress: Progress = silent
) -> list[NetworkZeros]:
    """Every layer of every network, as it is on all examples that come with it.

    folder  the parent of weights/ and of the data sets
    names   of NETWORKS, by default all
    Raises FileError or DataError where a file is absent.
    """
    folder, listed = Path(folder), []
    for name in names or NETWORKS:
        network, model = NETWORKS[name], trained(name, folder)
        named = partial(lambda name, what, done, total: progress(f"{what} of {name}", done, total), name)
        zeros = measure.activations(model, network.batches(folder), progress=named)
        example = next(iter(network.batches(folder)))[0][:1]  # for the shapes
        rows = tuple(measure.table(model, example, zeros))
        examples = zeros[rows[0].layer].before.elements // example.numel()
        listed.append(NetworkZeros(name, network.data, examples, rows))
    return listed
