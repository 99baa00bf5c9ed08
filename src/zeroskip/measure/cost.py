"""The cost of each layer, dense: weights, multiply-accumulates, bytes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from zeroskip.graph import layers


@dataclass(frozen=True)
class LayerCost:
    """Of one layer and one example: weights (biases excluded), multiply-accumulates, bytes of all parameters.

    >>> sum(layer.macs for layer in cost(model, x).values())
    80
    """

    weights: int
    macs: int
    stored_bytes: int


def cost(model: nn.Module, example: Tensor) -> dict[str, LayerCost]:
    """Layer name -> LayerCost. A published FLOP count is twice the MACs (Han et al. 2015, tables 2-5).

    example  a batch of inputs, for the shapes only

    >>> cost(model, x)["fc1"]
    LayerCost(weights=48, macs=48, stored_bytes=224)
    """
    return {
        layer.name: LayerCost(layer.weights, layer.macs, _bytes(layer.weight) + _bytes(layer.bias))
        for layer in layers(model, example)
    }


def _bytes(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.numel() * tensor.element_size()
