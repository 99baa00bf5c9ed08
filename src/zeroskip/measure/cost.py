"""What each layer costs, dense."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from zeroskip.graph import layers


@dataclass(frozen=True)
class Cost:
    """Of one layer and one example: weights (biases excluded), multiply-accumulates, bytes of all parameters."""

    weights: int
    macs: int
    stored_bytes: int


def cost(model: nn.Module, example: Tensor) -> dict[str, Cost]:
    """Layer name -> Cost. A published FLOP count is twice the MACs (Han et al. 2015, tables 2-5).

    example  a batch of inputs, for the shapes only

    >>> cost(LeNet300100(), torch.zeros(1, 784))["fc1"]
    Cost(weights=235200, macs=235200, stored_bytes=942000)
    """
    return {
        layer.name: Cost(layer.weights, layer.macs, sum(_bytes(one) for one in (layer.weight, layer.bias)))
        for layer in layers(model, example)
    }


def _bytes(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.numel() * tensor.element_size()
