"""Pruned networks on SparTen, with the zeros of what they really read; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from zeroskip import measure, prune
from zeroskip.concepts import Progress, Round, silent
from zeroskip.data import data_folder
from zeroskip.papers.common import accelerators
from zeroskip.papers.eyeriss_v2.rows import ELEMENT
from zeroskip.papers.sparten.rows import REAL, WAYS
from zeroskip.simulate import Workload, of_trace
from zeroskip.tasks import published_networks

PICTURES = 20
HALF = Round(sparsity=0.5)
# Network -> what made its weights zero.
PRUNED = {
    "squeezenet": "pruned by Deep Compression",
    "mobilenet-element": "five layers pruned by others",
    "resnet20": "half of all weights pruned by one threshold, not retrained",
}


def measure_network(
    network: str, *, out: Path, seeds: int = 1, progress: Progress = silent, weights: Any = None
) -> dict[str, Any]:
    """Findings of one network, as described in `reproduce/sparten.py`, in less than a minute.

    weights  its state dict, instead of the published one. There is nothing to repeat with other seeds, and
             nothing is kept in `out`. Raises DataError or FileError where the data are absent or damaged.

    >>> measure_network("squeezenet", out=Path("runs/sparten"))["layers"]["conv_final"]["filters"]
    1000
    """
    pruned, (inputs, works) = PRUNED[network], _works(network, weights)
    layers = {}
    for number, work in enumerate(works):
        progress(f"layers of {network}", number, len(works))
        layers[work.name] = _layer(work)
    progress(f"layers of {network}", len(works), len(works))
    return {"inputs": inputs, "pruned": pruned, "layers": layers}


def _works(network: str, weights: Any) -> tuple[str, list[Workload]]:
    if network == ELEMENT:
        return "inputs recorded by others", list(accelerators.mobilenet().values())
    folder, name = data_folder("weights").parent, REAL[network]
    model, about = published_networks.trained(name, folder), published_networks.NETWORKS[name]
    if weights is not None:
        model.load_state_dict(weights)
    if network == "resnet20":
        model = prune.release_(prune.hold_(model, prune.choose(model, HALF)))
    batch = next(iter(about.batches(folder)))[0][:PICTURES]
    return f"the first {len(batch)} of {about.data}", of_trace(measure.trace(model, batch))


def _layer(work: Workload) -> dict[str, Any]:
    shares = work.weight.flatten(2).double().mean(2).flatten()  # of each filter
    ways: dict[str, Callable[[Workload], int]] = {
        way: count for way, count in WAYS.items() if way != "SCNN" or work.op == "conv2d"
    }
    return {
        "filters": work.weight.shape[1],
        "kept": round(float(shares.mean()), 4),
        "spread": round(float(shares.std() / shares.mean()), 4),
        "cycles": {way: count(work) for way, count in ways.items()},
    }
