"""Operations with a constant weight become Layers, whatever they are called and however the weight is stored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graph.stepwise import evaluate, lived_
from torch import Tensor, nn
from torch.nn import functional

from zeroskip.graph import Graph, capture


class Products(nn.Module):
    """Weights stored as (in, out), as GPT-2 has them, and used in three ways."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bias = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(8))
        self.second, self.third = nn.Parameter(torch.randn(8, 5)), nn.Parameter(torch.randn(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.bias, x.flatten(0, 1), self.first).relu()
        return (torch.mm(y, self.second).view(x.shape[0], -1, 5)) @ self.third


def layers_of(graph: Graph) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        node.layer.name: (node.layer.op, tuple(node.layer.weight.shape)) for node in graph.nodes if node.layer
    }


def test_products_with_constant_matrices_are_linear_layers_that_share_the_networks_memory() -> None:
    torch.manual_seed(0)
    model = Products().eval().requires_grad_(False)
    graph = capture(model, torch.randn(2, 3, 6))
    expected = {"first": ("linear", (8, 6)), "second": ("linear", (5, 8)), "third": ("linear", (2, 5))}
    assert layers_of(graph) == expected
    first = next(node for node in graph.nodes if node.layer)
    assert first.relu
    assert first.layer is not None
    assert first.layer.weight.data_ptr() == model.first.data_ptr()
    x = torch.randn(4, 3, 6)
    torch.testing.assert_close(evaluate(graph, x), model(x))


class Vector(nn.Module):
    """Products that are no linear layers: a vector, a matrix on the left, one that is computed from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.vector = nn.Parameter(torch.randn(3, 3)), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.left @ x @ x.transpose(1, 2) @ x @ self.vector


def test_other_products_stay_operations() -> None:
    torch.manual_seed(0)
    model = Vector().eval().requires_grad_(False)
    graph, x = capture(model, torch.randn(2, 3, 4)), torch.randn(3, 3, 4)
    assert layers_of(graph) == {}
    torch.testing.assert_close(evaluate(graph, x), model(x))


NORMED: dict[str, tuple[nn.Module, nn.Module, tuple[int, ...]]] = {
    "conv1d": (nn.Conv1d(2, 4, 3, stride=2), nn.BatchNorm1d(4), (2, 9)),
    "conv3d": (nn.Conv3d(2, 4, 2, padding=1), nn.BatchNorm3d(4), (2, 4, 3, 5)),
    "conv_transpose1d": (nn.ConvTranspose1d(2, 4, 3, 2, output_padding=1), nn.BatchNorm1d(4), (2, 5)),
    "conv_transpose2d": (nn.ConvTranspose2d(2, 4, 3, 2, 1, dilation=2), nn.BatchNorm2d(4), (2, 5, 4)),
    "conv_transpose3d": (nn.ConvTranspose3d(2, 4, 2), nn.BatchNorm3d(4), (2, 3, 2, 2)),
}


@pytest.mark.parametrize("op", NORMED)
def test_convolutions_of_every_kind_take_in_the_batch_norm_and_the_relu_after_them(op: str) -> None:
    torch.manual_seed(0)
    layer, norm, shape = NORMED[op]
    model = nn.Sequential(layer, norm, nn.ReLU()).eval().requires_grad_(False)
    norm.running_mean.normal_()  # type: ignore[operator, union-attr]
    norm.running_var.uniform_(0.5, 2)  # type: ignore[operator, union-attr]
    norm.weight.normal_()  # type: ignore[operator, union-attr]
    graph, x = capture(model, torch.randn(1, *shape)), torch.randn(3, *shape)
    (node,) = graph.nodes
    assert node.layer is not None
    assert (node.layer.name, node.layer.op, node.relu) == ("0", op, True)
    torch.testing.assert_close(evaluate(graph, x), model(x), rtol=1e-4, atol=1e-5)


def test_a_transposed_convolution_of_groups_keeps_its_batch_norm() -> None:
    torch.manual_seed(0)
    model = lived_(nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6))).requires_grad_(
        False
    )
    graph, x = capture(model, torch.randn(1, 4, 5, 5)), torch.randn(2, 4, 5, 5)
    assert [node.op.split(".")[1] for node in graph.nodes] == ["conv_transpose2d", "batch_norm"]
    torch.testing.assert_close(evaluate(graph, x), model(x))


class TwoUses(nn.Module):
    """One matrix whose rows are looked up, which multiplies as a layer, and in a product of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.table = nn.Linear(4, 9, bias=False), nn.Embedding(9, 4)
        self.table.weight = self.head.weight

    def forward(self, tokens: Tensor) -> Tensor:
        scores = functional.linear(self.table(tokens), self.head.weight)
        return scores.softmax(-1) @ self.head.weight


def test_a_parameter_of_several_uses_has_the_first_of_its_names_in_all_of_them() -> None:
    torch.manual_seed(0)
    model = TwoUses().eval().requires_grad_(False)
    graph, tokens = capture(model, torch.randint(9, (2, 3))), torch.randint(9, (4, 3))
    names = [(node.layer.name, tuple(node.layer.weight.shape)) for node in graph.nodes if node.layer]
    assert names == [("head", (9, 4)), ("head", (4, 9))]
    torch.testing.assert_close(evaluate(graph, tokens), model(tokens))


class OfItself(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(4, 4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x, x * 2).relu(), self.layer(x, x)


def test_bilinear_layers_read_two_values_or_one_twice() -> None:
    torch.manual_seed(0)
    model = OfItself().eval().requires_grad_(False)
    graph, x = capture(model, torch.randn(2, 4)), torch.randn(3, 4)
    assert [len(node.inputs) for node in graph.nodes if node.layer] == [2, 1]
    for ours, theirs in zip(evaluate(graph, x), model(x), strict=True):
        torch.testing.assert_close(ours, theirs)
