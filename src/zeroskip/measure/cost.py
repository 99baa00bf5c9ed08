"""The cost of a network, dense, weight by weight: numbers, multiply-accumulates, bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zeroskip.graph import Given, Inputs, Weight, weights
from zeroskip.graph.inputs import of
from zeroskip.graph.layers import layer_of, watch
from zeroskip.graph.weight_runs import Run

UNUSED = "the network did not use it on the example"
UNMULTIPLIED = "it is looked up, added or scales number by number, and is no factor of a product of matrices"


@dataclass(frozen=True)
class LayerCost:
    """Of one weight and one example.

    weights       numbers in it, biases excluded; kept: those that are not zero
    macs          multiply-accumulates of all its runs, zeros included: the mean over the examples given
    runs          how often the network multiplies with it: once for each step, head or place that does
    stored_bytes  of the weight and its bias
    ops           what it is used as, see `Layer.op`
    kept_dense    why it is not pruned unless named; "" where it is
    unmultiplied  why it has no MACs; "" where it has

    >>> fc1 = cost(model, x).layers["fc1"]
    >>> fc1.weights, fc1.kept, fc1.macs, fc1.runs, fc1.ops
    (48, 12, 48, 1, ('linear',))
    """

    weights: int
    kept: int
    macs: int
    runs: int
    stored_bytes: int
    ops: tuple[str, ...] = ()
    kept_dense: str = ""
    unmultiplied: str = ""


@dataclass(frozen=True)
class NetworkCost:
    """Of a whole network and one example; `layers`: name of each weight (see `graph.weights`) -> its cost.

    activation_macs  multiply-accumulates in which no weight takes part: attention scores, fixed filters
    stored_bytes     of all parameters, each once: biases, norms and tables included, buffers excluded

    >>> whole = cost(model, x)
    >>> whole.weights, whole.kept, whole.macs, whole.activation_macs, whole.stored_bytes
    (80, 44, 80, 0, 368)
    """

    layers: Mapping[str, LayerCost]
    activation_macs: int
    stored_bytes: int

    @property
    def weights(self) -> int:
        """Numbers in all parameters with two or more axes, each once."""
        return sum(layer.weights for layer in self.layers.values())

    @property
    def kept(self) -> int:
        """Those that are not zero."""
        return sum(layer.kept for layer in self.layers.values())

    @property
    def macs(self) -> int:
        """Multiply-accumulates with weights, zeros included."""
        return sum(layer.macs for layer in self.layers.values())


def cost(model: nn.Module, example: Given | Inputs) -> NetworkCost:
    """What every weight of `model` costs. A published FLOP count is twice the MACs (Han et al. 2015, tables 2-5).

    example  a batch of inputs, for the shapes only; `graph.Inputs((x, edges), {}, batch_axis=None)` for what is no
             batch, as a graph. Weights without memory (device "meta") count as kept.
    Raises ModelError where the network cannot run on it.

    >>> hidden = cost(nn.LSTM(8, 32, batch_first=True), torch.zeros(1, 5, 8)).layers["weight_hh_l0"]
    >>> hidden.runs, hidden.macs
    (5, 20480)
    """
    inputs = of(example)
    runs: dict[str, list[tuple[str, int]]] = {}

    def ran(run: Run) -> None:
        if not run.packed:
            layer_of(run, inputs.size)  # or ModelError, where the share of one example is unknown
        runs.setdefault(run.name, []).append((run.op, run.macs))

    seen = watch(model, inputs, ran)
    listed = {}
    for name, weight in weights(model).items():
        ops = [op for op, _ in runs.get(name, [])]
        macs = sum(each for _, each in runs.get(name, [])) // inputs.size
        listed[name] = _cost(weight, ops, macs, name in seen.read)
    return NetworkCost(listed, seen.activation_macs, sum(map(_bytes, model.parameters())))


def _cost(weight: Weight, ops: list[str], macs: int, read: bool) -> LayerCost:
    tensor = weight.tensor
    return LayerCost(
        weights=tensor.numel(),
        kept=tensor.numel() if tensor.is_meta else int(torch.count_nonzero(tensor)),
        macs=macs,
        runs=len(ops),
        stored_bytes=_bytes(tensor) + sum(map(_bytes, _biases(weight))),
        ops=tuple(dict.fromkeys(ops)),
        kept_dense=weight.kept_dense,
        unmultiplied="" if ops else UNMULTIPLIED if read else UNUSED,
    )


def _biases(weight: Weight) -> set[Tensor]:
    """What is added to its products: "bias_ih_l0" of "weight_ih_l0"."""
    named = [place for place in weight.places if "weight" in place.tensor]
    found = [getattr(place.module, place.tensor.replace("weight", "bias"), None) for place in named]
    return {each for each in found if isinstance(each, Tensor) and each.ndim == 1}


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
