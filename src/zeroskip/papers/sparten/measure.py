"""Pruned networks on SparTen, with the zeros of what they really read; nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from torch import Tensor

from zeroskip import measure, prune
from zeroskip.concepts import Round
from zeroskip.data import data_folder
from zeroskip.papers.common.paper import Findings, Setup
from zeroskip.papers.eyeriss_v2.measure import mobilenet
from zeroskip.papers.eyeriss_v2.published import ELEMENT
from zeroskip.papers.sparten.published import REAL
from zeroskip.papers.sparten.rows import WAYS, BalancedLayer
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


def measure_network(network: str, setup: Setup) -> Findings:
    """What `SparTenFindings` holds of one network, in less than a minute; nothing is kept.

    Starts from the published weights unless others are given. Raises DataError or FileError where the data are absent
    or damaged.
    """
    inputs, works = _works(network, setup.weights)
    layers = {}
    for number, work in enumerate(works):
        setup.progress(f"layers of {network}", number, len(works))
        layers[work.name] = asdict(balanced_layer(work))
    setup.progress(f"layers of {network}", len(works), len(works))
    return {"inputs": inputs, "pruned": PRUNED[network], "layers": layers}


def _works(network: str, weights: Mapping[str, Tensor] | None) -> tuple[str, list[Workload]]:
    if network == ELEMENT:
        return "inputs recorded by others", list(mobilenet().values())
    folder, name = data_folder("weights").parent, REAL[network]
    model, about = published_networks.trained(name, folder), published_networks.NETWORKS[name]
    if weights is not None:
        model.load_state_dict(weights)
    if network == "resnet20":
        model = prune.release_(prune.hold_(model, prune.choose(model, HALF)))
    batch = next(iter(about.batches(folder)))[0][:PICTURES]
    return f"the first {len(batch)} of {about.data}", of_trace(measure.trace(model, batch))


def balanced_layer(work: Workload) -> BalancedLayer:
    """How a layer's weights are spread over its filters, and what it takes by each way to run it."""
    shares = work.weight.flatten(2).double().mean(2).flatten()  # of each filter
    return BalancedLayer(
        filters=work.weight.shape[1],
        kept=round(float(shares.mean()), 4),
        spread=round(float(shares.std() / shares.mean()), 4),
        cycles={way: count(work) for way, count in WAYS.items() if way != "SCNN" or work.op == "conv2d"},
    )
