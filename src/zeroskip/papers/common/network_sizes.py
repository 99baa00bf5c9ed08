"""The four networks of the two papers as exact sizes, taken from the models themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from zeroskip.graph import layers
from zeroskip.measure import cost
from zeroskip.models import VGG16, AlexNetCaffe, LeNet5, LeNet300100

NETWORKS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "lenet-300-100": (LeNet300100, (784,)),
    "lenet-5": (LeNet5, (1, 28, 28)),
    "alexnet": (AlexNetCaffe, (3, 227, 227)),
    "vgg16": (VGG16, (3, 224, 224)),
}


@dataclass(frozen=True)
class LayerSize:
    """One layer: weights (biases excluded), multiply-accumulates, values it hands on after its pooling."""

    name: str
    weights: int
    macs: int
    outputs: int


@cache  # VGG-16 takes a while, and its sizes never change
def sizes(network: str) -> tuple[LayerSize, ...]:
    """The layers of a network of `NETWORKS`, in the order of running, without allocating a weight.

    >>> sizes("lenet-5")[0]
    LayerSize(name='conv1', weights=500, macs=288000, outputs=2880)
    """
    model, example = on_meta(network)
    listed, costs = layers(model, example), cost(model, example).layers
    # What leaves a layer after its pooling is what the next one reads.
    shapes = [layer.input_shape for layer in listed[1:]] + [listed[-1].output_shape]
    return tuple(
        LayerSize(layer.name, costs[layer.name].weights, costs[layer.name].macs, torch.Size(shape).numel())
        for layer, shape in zip(listed, shapes, strict=True)
    )


def parameters(network: str) -> int:
    """Number of all parameters, biases included.

    >>> parameters("lenet-300-100")
    266610
    """
    return sum(tensor.numel() for tensor in on_meta(network)[0].parameters())


def on_meta(network: str) -> tuple[nn.Module, torch.Tensor]:
    """A network of `NETWORKS` and an example, both without memory."""
    return without_memory(*NETWORKS[network])


def without_memory(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[nn.Module, torch.Tensor]:
    """A network and an example of that shape on the meta device, for shapes and counts."""
    with torch.device("meta"), _Shapes():
        model, example = build(), torch.zeros(1, *shape)
    forward = model.forward

    def shapes_only(x: torch.Tensor) -> torch.Tensor:
        with _Shapes():
            output: torch.Tensor = forward(x)
        return output

    model.forward = shapes_only
    return model, example


class _Shapes(TorchFunctionMode):
    """Some functions run in Python on this device, by way of PyTorch's compiler: its import takes over a second."""

    def __torch_function__(
        self, function: Callable[..., object], types: object, arguments: Any = (), keywords: Any = None
    ) -> object:
        if function in (nn.init.normal_, torch.Tensor.normal_):
            return arguments[0] if arguments else keywords["tensor"]
        if function in (F.relu, F.local_response_norm, F.dropout):
            return torch.empty_like(arguments[0])
        if function is F.linear:
            x, weight = arguments[:2]
            return torch.mm(x.view(-1, x.shape[-1]), weight.t()).view(*x.shape[:-1], len(weight))
        return function(*arguments, **(keywords or {}))
