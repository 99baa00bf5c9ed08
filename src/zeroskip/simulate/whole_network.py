"""A whole network for chips: the layers that they run, and what no chip is asked, so that shares are of everything."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from zeroskip.concepts import Layer, Trace
from zeroskip.graph import Given, Inputs, weights
from zeroskip.graph.inputs import of
from zeroskip.graph.layers import visit
from zeroskip.simulate.estimates import LeftOut
from zeroskip.simulate.recorded import of_trace
from zeroskip.simulate.workload import Workload

OF_ACTIVATIONS = "products of activations"
CHANGING = "both factors change with every input, and chips are described for products with weights"
UNMULTIPLIED = "nothing is multiplied with it"


class WholeNetwork(NamedTuple):
    """What `estimate` takes of a network: its layers, what else it computes, and what `cost_on` takes.

    >>> works, left_out, _ = whole_network(model, x)
    >>> [work.name for work in works], left_out
    (['fc1', 'fc2'], [])
    """

    works: list[Workload]
    left_out: list[LeftOut]
    trace: Trace


def whole_network(model: nn.Module, given: Given | Inputs) -> WholeNetwork:
    """The network on real inputs, as chips see it: no multiplication of it is forgotten.

    `graph.Inputs((x, edges), {}, batch_axis=None)` is for what is no batch, as a graph.
    Raises ModelError where the network cannot run on the inputs.

    >>> network = whole_network(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)), torch.tensor([[3], [8]]))
    >>> [work.name for work in network.works], [each.name for each in network.left_out]
    (['1'], ['0'])
    """
    inputs, trace = of(given), list[tuple[Layer, Tensor, Tensor]]()
    # Copies, because later operations of the network may work in place (ReLU, residual sums).
    seen = visit(model, inputs, lambda layer, x, y: trace.append((layer, x.clone(), y.clone())))
    works, macs = of_trace(trace, inputs.tensors), seen.activation_macs * inputs.size
    multiplied = {work.name for work in works}  # a run on no tokens multiplies nothing
    left_out = [LeftOut(OF_ACTIVATIONS, macs, CHANGING)] if macs else []
    left_out += [
        LeftOut(name, 0, weight.kept_dense or UNMULTIPLIED)
        for name, weight in weights(model).items()
        if name not in multiplied
    ]
    return WholeNetwork(works, left_out, trace)
