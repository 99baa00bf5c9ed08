"""From a network as it comes to one with zeros: seeded, visible in every layer, pruned, calibrated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.network import Given, Network

# Classes whose weights are multiplied: torch's own, and layers of the same names in other packages.
MULTIPLIED = ("Linear", "Conv", "LSTM", "GRU", "RNN", "MultiheadAttention")


def call(model: nn.Module, given: Given) -> object:
    """What the network returns for a tensor, a tuple of them, or keywords."""
    if isinstance(given, Tensor):
        return model(given)
    return model(*given) if isinstance(given, tuple) else model(**given)


def example(network: Network, batch: int, size: int) -> Given:
    """The same inputs at each call with the same numbers."""
    return network.inputs(batch, size, torch.Generator().manual_seed(1 + batch + size))


def prepared(network: Network) -> nn.Module:
    """The network with random weights, of which a share is zero, in evaluation mode."""
    torch.manual_seed(0)
    model = network.make().eval()
    with torch.no_grad():
        _show_every_layer(model)
        for tensor in pruned_weights(model).values():
            _prune(tensor, network.sparsity)
        _calibrate(model, example(network, 4, network.sizes[0]))
    return model


def pruned_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> weight that is pruned here: of layers that multiply, not of embeddings, nor what is tied to one."""
    looked_up = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(False)}
    weights = {}
    for prefix, module in model.named_modules():
        if not any(word in type(module).__name__ for word in MULTIPLIED):
            continue
        for name, tensor in module.named_parameters(recurse=False):
            if tensor.ndim > 1 and id(tensor) not in looked_up:
                weights[f"{prefix}.{name}"] = tensor
    return weights


def _show_every_layer(model: nn.Module) -> None:
    """Parameters that start at one value, such as layer scales of 1e-6, would hide what a layer computes."""
    for tensor in model.parameters():
        if tensor.numel() < 2 or tensor.min() != tensor.max():
            continue
        if tensor.ndim > 1:
            nn.init.normal_(tensor, std=tensor[0].numel() ** -0.5)
        elif tensor[0] == 0:
            nn.init.normal_(tensor, std=0.1)
        else:
            nn.init.uniform_(tensor, 0.5, 1.5)


def _prune(tensor: Tensor, sparsity: float) -> None:
    """The smallest go; the others grow, so that sums keep their variance."""
    count = round(tensor.numel() * sparsity)
    smallest = tensor.abs().flatten().argsort()[:count]
    tensor.view(-1)[smallest] = 0.0
    tensor.mul_((1 - sparsity) ** -0.5)


def _calibrate(model: nn.Module, given: Given) -> None:
    """Batch norms take mean and variance of random inputs, so that no layer's outputs die away."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = None  # the mean over all batches
        norm.reset_running_stats()
    if norms:
        call(model, given)
    for norm, momentum in zip(norms, momenta, strict=True):
        # A channel that hardly varies would be blown up, and its rounding with it.
        norm.running_var.clamp_(min=float(norm.running_var.mean()))
        norm.eval()
        norm.momentum = momentum
