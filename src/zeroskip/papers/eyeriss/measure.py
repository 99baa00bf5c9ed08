"""The real maps of trained networks, coded as Eyeriss does it and in other formats; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from torch import Tensor

from zeroskip import measure
from zeroskip.data import data_folder
from zeroskip.papers.common.paper import Findings, Setup
from zeroskip.papers.eyeriss import published
from zeroskip.tasks import published_networks

AT_ONCE = 4  # pictures that share a reading of the weights, as on the chip with AlexNet
PICTURES = 100


def measure_network(network: str, setup: Setup) -> Findings:
    """What `EyerissFindings` holds of one network, in less than a minute; nothing is kept.

    Starts from the published weights unless others are given. Raises DataError or FileError where the data are absent
    or damaged.
    """
    folder, name = data_folder("weights").parent, published.MEASURED[network]
    model, about = published_networks.trained(name, folder), published_networks.NETWORKS[name]
    if setup.weights is not None:
        model.load_state_dict(setup.weights)
    moved: list[measure.MapTraffic] = []

    def maps() -> Iterator[tuple[str, Tensor]]:
        parts = (part for inputs, _ in about.batches(folder) for part in inputs.split(AT_ONCE))
        for number, batch in enumerate(islice(parts, PICTURES // AT_ONCE)):
            setup.progress(f"coding the maps of {name}", AT_ONCE * number, PICTURES)
            trace = measure.trace(model, batch)
            moved.extend(measure.traffic(trace))
            yield from ((layer.name, x) for layer, x, _ in trace)

    sizes = measure.compression(maps())
    setup.progress(f"coding the maps of {name}", PICTURES, PICTURES)
    fields = ("examples", "elements", "zeros", "fraction_bits", "bound", "bits")
    layers = {size.layer: {field: getattr(size, field) for field in fields} for size in sizes}
    totals = {"dense": sum(layer.dense for layer in moved), "coded": sum(layer.coded for layer in moved)}
    return {"inputs": f"the first {PICTURES} of {about.data}", "layers": layers, "traffic": totals}
