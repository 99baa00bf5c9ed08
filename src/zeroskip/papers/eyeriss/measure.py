"""The real maps of trained networks, coded as Eyeriss does it and in other formats; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from zeroskip import measure
from zeroskip.concepts import Progress, silent
from zeroskip.data import data_folder
from zeroskip.papers.eyeriss import rows
from zeroskip.tasks import published_networks

AT_ONCE = 4  # pictures that share a reading of the weights, as on the chip with AlexNet
PICTURES = 100


def measure_network(
    network: str, *, out: Path, seeds: int = 1, progress: Progress = silent, weights: Any = None
) -> dict[str, Any]:
    """Findings of one network, as described in `reproduce/eyeriss.py`, in less than a minute.

    weights  its state dict, instead of the published one. There is nothing to repeat with other seeds, and
             nothing is kept in `out`. Raises DataError or FileError where the data are absent or damaged.

    >>> measure_network("resnet20", out=Path("runs/eyeriss"))["layers"]["conv1"]["examples"]
    100
    """
    folder, name = data_folder("weights").parent, rows.NETWORKS[network]
    model, about = published_networks.trained(name, folder), published_networks.NETWORKS[name]
    if weights is not None:
        model.load_state_dict(weights)
    moved: list[measure.Traffic] = []

    def maps() -> Iterator[tuple[str, Tensor]]:
        parts = (part for inputs, _ in about.batches(folder) for part in inputs.split(AT_ONCE))
        for number, batch in enumerate(islice(parts, PICTURES // AT_ONCE)):
            progress(f"coding the maps of {name}", AT_ONCE * number, PICTURES)
            trace = measure.trace(model, batch)
            moved.extend(measure.traffic(trace))
            yield from ((layer.name, x) for layer, x, _ in trace)

    sizes = measure.compression(maps())
    progress(f"coding the maps of {name}", PICTURES, PICTURES)
    fields = ("examples", "elements", "zeros", "fraction_bits", "bound", "bits")
    layers = {one.layer: {field: getattr(one, field) for field in fields} for one in sizes}
    totals = {"dense": sum(one.dense for one in moved), "coded": sum(one.coded for one in moved)}
    return {"inputs": f"the first {PICTURES} of {about.data}", "layers": layers, "traffic": totals}
