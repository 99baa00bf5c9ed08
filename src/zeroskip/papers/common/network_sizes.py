"""The four networks of the two papers as exact sizes, taken from the models themselves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from zeroskip.graph import layers
from zeroskip.measure import cost
from zeroskip.models import VGG16, AlexNetCaffe, LeNet5, LeNet300100

NETWORKS: dict[str, tuple[str, type[nn.Module], tuple[int, ...]]] = {
    "lenet-300-100": ("LeNet-300-100", LeNet300100, (784,)),
    "lenet-5": ("LeNet-5", LeNet5, (1, 28, 28)),
    "alexnet": ("AlexNet", AlexNetCaffe, (3, 227, 227)),
    "vgg16": ("VGG-16", VGG16, (3, 224, 224)),
}


IMAGENET = "needs training on ImageNet"
TRAINING = "needs training (--out or --results)"


@dataclass(frozen=True)
class Size:
    """One layer: weights (biases excluded), multiply-accumulates, values it hands on after its pooling."""

    name: str
    weights: int
    macs: int
    outputs: int


@cache  # VGG-16 takes a while, and its sizes never change
def sizes(network: str) -> tuple[Size, ...]:
    """The layers of a network of `NETWORKS`, in the order of running, without allocating a weight.

    >>> sizes("lenet-5")[0]
    Size(name='conv1', weights=500, macs=288000, outputs=2880)
    """
    model, example = _meta(network)
    found, costs = layers(model, example), cost(model, example)
    # What leaves a layer after its pooling is what the next one reads.
    shapes = [layer.input_shape for layer in found[1:]] + [found[-1].output_shape]
    return tuple(
        Size(layer.name, costs[layer.name].weights, costs[layer.name].macs, torch.Size(shape).numel())
        for layer, shape in zip(found, shapes, strict=True)
    )


def title(network: str) -> str:
    """What a table calls a network; its own word for those without published figures.

    >>> title("vgg16"), title("digits")
    ('VGG-16', 'digits')
    """
    return NETWORKS[network][0] if network in NETWORKS else network


def missing(network: str) -> str:
    """Why a row of `network` that needs training has no figure.

    >>> missing("vgg16")
    'needs training on ImageNet'
    """
    return IMAGENET if network in ("alexnet", "vgg16") else TRAINING


def parameters(network: str) -> int:
    """Number of all parameters, biases included.

    >>> parameters("lenet-300-100")
    266610
    """
    return sum(one.numel() for one in _meta(network)[0].parameters())


def _meta(network: str) -> tuple[nn.Module, torch.Tensor]:
    _, build, shape = NETWORKS[network]
    with torch.device("meta"):
        return build(), torch.zeros(1, *shape)
