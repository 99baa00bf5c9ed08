"""Single layers of trained networks, with the inputs that they really see: zeros lie in clusters, not at random."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from zeroskip.bench.cases import Case
from zeroskip.concepts import Layer, pair, weight_sparsity
from zeroskip.data import data_folder
from zeroskip.graph import record
from zeroskip.tasks import published_networks

NETWORKS = ("ResNet-20", "SqueezeNet")
FEW = 0.02  # share of zeros that an input has by chance, without a ReLU before it


def cases() -> list[Case]:
    """Every convolution behind a ReLU, for one picture: network "ResNet-20/layer1.0.conv1" and others.

    DataError where the networks are absent.
    """
    return [
        Case(f"{network}/{name}", 0.0, input_sparsity=round(zeros, 4), clock="cpu")
        for network in NETWORKS
        for name, (layer, x) in _layers(network, 1).items()
        if layer.op == "conv2d" and layer.groups == 1 and (zeros := weight_sparsity(x)) > FEW
    ]


def network(case: Case) -> nn.Sequential:
    """The layer, and a ReLU behind it."""
    layer, _ = _layer_and_input(case)
    bias = layer.bias is not None
    outputs, inputs, height, width = layer.weight.shape
    padding = layer.padding if isinstance(layer.padding, str) else pair(layer.padding)
    steps = pair(layer.stride), padding, pair(layer.dilation)
    made = nn.Conv2d(inputs, outputs, (height, width), *steps, bias=bias)
    made.load_state_dict({"weight": layer.weight} | ({"bias": layer.bias} if bias else {}))
    return nn.Sequential(made, nn.ReLU()).eval()


def example(case: Case) -> Tensor:
    """What the layer reads when its network sees the first pictures of its data."""
    return _layer_and_input(case)[1]


def _layer_and_input(case: Case) -> tuple[Layer, Tensor]:
    network, name = case.network.split("/")
    return _layers(network, case.batch)[name]


@cache
def _layers(network: str, batch: int) -> dict[str, tuple[Layer, Tensor]]:
    """Layer name -> the layer and its input."""
    folder = data_folder("weights").parent
    pictures: list[Tensor] = []
    for inputs, _ in published_networks.NETWORKS[network].batches(folder):
        pictures.append(inputs)
        if sum(map(len, pictures)) >= batch:
            break
    trace = record(published_networks.trained(network, folder), torch.cat(pictures)[:batch])
    return {layer.name: (layer, x) for layer, x, _ in trace}
