"""Every network of the papers can be captured for any batch, and its graph computes what it does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from stepwise import batch_of, close, evaluate, lived_
from torch import nn

from zeroskip import models
from zeroskip.graph import capture

END = {"adaptive_avg_pool2d": 1, "flatten": 1, "linear": 1}
NORMALISE = {"mul": 4, "view": 4, "pad": 2, "avg_pool3d": 2, "squeeze": 2, "add": 2, "pow": 2, "div": 2}

NETWORKS: list[tuple[Callable[..., nn.Module], int, dict[str, int], int]] = [
    (models.LeNet300100, 28, {"flatten": 1, "linear": 3}, 2),
    (models.LeNet5, 28, {"conv2d": 2, "max_pool2d": 2, "flatten": 1, "linear": 2}, 3),
    (models.SqueezeNet10, 63, {"conv2d": 26, "max_pool2d": 3, "cat": 8, "mean": 1}, 26),
    (models.resnet20, 32, {"conv2d": 21, "add": 9, "relu": 9, **END}, 10),
    (models.resnet50, 64, {"conv2d": 53, "max_pool2d": 1, "add": 16, "relu": 16, **END}, 33),
    (models.mobilenet_v1, 64, {"conv2d": 27, **END}, 27),
    (models.mobilenet_v2, 64, {"conv2d": 52, "hardtanh": 35, "add": 10, **END}, 0),
    (models.googlenet, 64, {"conv2d": 57, "max_pool2d": 13, "cat": 9, **END}, 57),
    (models.AlexNet, 224, {"conv2d": 5, "max_pool2d": 3, "flatten": 1, "linear": 3}, 7),
    (models.VGG16, 224, {"conv2d": 13, "max_pool2d": 5, "flatten": 1, "linear": 3}, 15),
    (
        models.AlexNetCaffe, 227,
        {"conv2d": 5, "max_pool2d": 3, "flatten": 1, "linear": 3, "sym_size": 1, **NORMALISE}, 7,
    ),
]  # fmt: skip
"""The network, the side of its images, the operations of its graph, and how many layers a ReLU belongs to."""


@pytest.mark.parametrize(
    ("build", "side", "operations", "relus"), NETWORKS, ids=[n[0].__name__ for n in NETWORKS]
)
def test_the_graph_of_a_network_computes_the_same_and_no_batch_norm_is_left(
    build: Callable[..., nn.Module], side: int, operations: dict[str, int], relus: int
) -> None:
    torch.manual_seed(0)
    model, shape = (
        lived_(build() if build is models.LeNet5 else build(classes=10)),
        (1 if side == 28 else 3, side, side),
    )
    graph, x = capture(model, torch.zeros(1, *shape)), batch_of(1 if side > 200 else 2, shape)
    assert (graph.batch, graph.inputs[0].shape) == (None, shape)
    with torch.no_grad():
        assert close(evaluate(graph, x.clone()), model(x))
    assert Counter(node.op.split(".")[1] for node in graph.nodes) == operations
    assert sum(node.relu for node in graph.nodes) == relus
