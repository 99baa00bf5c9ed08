"""A captured graph run one operation after the other, and batch norms that change something."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from zeroskip.graph import Graph, last_uses


def evaluate(graph: Graph, x: Tensor) -> Any:
    """The graph, node by node, forgetting each value as soon as `last_uses` allows. Shapes are as announced."""
    values: dict[str, Any] = {graph.names[0]: x}
    for node, ended in zip(graph.nodes, last_uses(graph), strict=True):
        values[node.name] = node.function(*[values[name] for name in node.inputs])
        if node.shape is not None:
            assert values[node.name].shape == (len(x), *node.shape)
        for name in ended:
            del values[name]
    assert set(values) - {*graph.names} == set(graph.outputs) - {*graph.names}
    return graph.rebuild([values[name] for name in graph.outputs])


def lived_(model: nn.Module) -> nn.Module:
    """In evaluation mode, with batch norms as after a training: no mean is 0, no variance and no gamma is 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                if tensor is not None:
                    nn.init.normal_(tensor, std=0.2)
            for tensor in (module.running_var, module.weight):
                if tensor is not None:
                    nn.init.uniform_(tensor, 0.5, 1.5)
    return model.eval()


def close(ours: Tensor, theirs: Tensor) -> bool:
    """Whether they differ by less than a ten thousandth of the largest number."""
    return float((ours - theirs).abs().max()) <= 1e-4 * float(theirs.abs().max())


def batch_of(count: int, shape: tuple[int, ...]) -> Tensor:
    """The same random examples every time."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
