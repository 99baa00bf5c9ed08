"""The same pruned network and the same input in every process: everything is drawn from fixed seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from zeroskip import models, patterns
from zeroskip.bench import recorded_layers
from zeroskip.bench.cases import LAYERS, LINEAR, Case
from zeroskip.errors import RecipeError
from zeroskip.models.convolutions import RECTIFIED

SEED = 1

# name -> name in `zeroskip.models`, shape of one input
MODELS = {
    "alexnet": ("AlexNet", (3, 224, 224)),
    "vgg16": ("VGG16", (3, 224, 224)),
    "resnet20": ("resnet20", (3, 32, 32)),
    "resnet50": ("resnet50", (3, 224, 224)),
    "mobilenet_v1": ("mobilenet_v1", (3, 224, 224)),
}


def network(case: Case) -> nn.Module:
    """The pruned network of a case, in evaluation mode, its batch norms folded into the layers before them.

    Weights are drawn as He et al. (2015) do, for the inputs that pruning leaves: variance 2 / (fan-in x share left).
    Zeros lie where a seeded coin says. A network's first convolution and depthwise convolutions stay dense.
    """
    if case.is_recorded:
        return recorded_layers.network(case)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = _architecture(case.network)[0]()
        _draw_(model, case)
    return _folded(model.eval())


def example(case: Case) -> Tensor:
    """The input of a case: (batch, *input shape), normally distributed, or with zeros as after a ReLU.

    >>> example(Case("alexnet_fc7", 0.9, batch=2)).shape
    torch.Size([2, 4096])
    """
    if case.is_recorded:
        return recorded_layers.example(case)
    generator = torch.Generator().manual_seed(SEED + 1)
    x = torch.randn(case.batch, *_architecture(case.network)[1], generator=generator)
    if not case.input_sparsity:
        return x
    return x.abs() * (torch.rand(x.shape, generator=generator) >= case.input_sparsity)


def _architecture(name: str) -> tuple[Callable[[], nn.Module], tuple[int, ...]]:
    """What makes a network, and the shape of one input."""
    if name in LAYERS:
        kernel, inputs, outputs, size = LAYERS[name]
        convolution = partial(nn.Conv2d, inputs, outputs, kernel, padding=kernel // 2)
        return lambda: nn.Sequential(convolution(), nn.ReLU()), (inputs, size, size)
    if name in RECTIFIED:
        layer = RECTIFIED[name]
        return layer.network, (layer.channels, layer.size, layer.size)
    if name in LINEAR:
        return lambda: nn.Sequential(nn.Linear(*LINEAR[name])), LINEAR[name][:1]
    if name in MODELS:
        return getattr(models, MODELS[name][0]), MODELS[name][1]
    raise RecipeError(
        f'there is no network "{name}". Choose one of {", ".join([*LAYERS, *RECTIFIED, *LINEAR, *MODELS])}.'
    )


@torch.no_grad()
def _draw_(model: nn.Module, case: Case) -> None:
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.bias.normal_(std=0.1)  # its statistics stay 0 and 1: with these weights values keep in bounds
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for place, layer in enumerate(layers):
        first = place == 0 and case.network in MODELS
        depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.weight.shape[1] == 1
        sparsity = 0.0 if first or depthwise else case.sparsity
        fan_in = layer.weight[0].numel() * (1 - sparsity)
        layer.weight.normal_(std=math.sqrt(2 / max(fan_in, 1)))
        if sparsity:
            layer.weight[~_mask(layer.weight.shape, case.pattern, sparsity)] = 0
        if layer.bias is not None:
            layer.bias.normal_(std=0.1)


def _mask(shape: torch.Size, pattern: str, sparsity: float) -> Tensor:
    score = torch.rand(shape)
    # For free zeros a threshold draws the same kind of mask without sorting a hundred million scores.
    return score >= sparsity if pattern == "free" else patterns.keep(score, pattern, sparsity)


def _folded(model: nn.Module) -> nn.Module:
    """The network without batch norms, so that an engine that keeps them does not lose by that alone."""
    traced = fx.symbolic_trace(model)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        before = node.args[0]
        fused = fuse_conv_bn_eval(modules[before.target], modules[node.target])
        traced.set_submodule(before.target, fused)
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
