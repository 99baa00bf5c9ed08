"""Batch norms become part of the layer before them, and what has to stay stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stepwise import batch_of, close, evaluate, lived_
from torch import Tensor, nn

from zeroskip.concepts import Layer
from zeroskip.graph import Graph, capture
from zeroskip.graph.fold_norms import BatchNorm, fold_norm


def ops(graph: Graph) -> list[str]:
    return [node.op.split(".")[1] + ("+relu" if node.relu else "") for node in graph.nodes]


def matrix(weight: Tensor, *, gamma: Tensor, variance: float = 1.0) -> Tensor | None:
    """The weight of a linear layer after folding a norm with this gamma; None where it was not folded."""
    out = len(weight)
    norm = BatchNorm(torch.zeros(out), torch.full((out,), variance), gamma, beta=None, eps=0.0)
    folded = fold_norm(Layer("a", "linear", weight, None, weight.shape[1:], (out,)), norm)
    return None if folded is None else folded.weight


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "unbiased"])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda bias: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=bias), (4, 7, 7)),
        (lambda bias: nn.Conv2d(4, 6, 3, padding="same", dilation=2, bias=bias), (4, 7, 7)),
        (lambda bias: nn.Linear(5, 6, bias=bias), (5,)),
    ],
    ids=["conv2d", "same", "linear"],
)
def test_a_layer_its_batch_norm_and_a_relu_become_one_node_that_computes_the_same(
    layer: Callable[[bool], nn.Module], shape: tuple[int, ...], bias: bool, affine: bool
) -> None:
    torch.manual_seed(0)
    norm = (nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d)(6, affine=affine)
    model = lived_(nn.Sequential(layer(bias), norm, nn.ReLU()))
    graph = capture(model, batch_of(2, shape))
    (node,) = graph.nodes
    assert node.relu
    assert node.layer is not None
    assert node.layer.bias is not None
    assert node.arguments["weight"] is node.layer.weight
    x = batch_of(5, shape)
    torch.testing.assert_close(evaluate(graph, x), model(x).detach(), rtol=0, atol=1e-6)


def test_folding_leaves_the_network_as_it_was() -> None:
    model = lived_(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (node,) = capture(model, batch_of(1, (2, 5, 5))).nodes
    assert node.layer is not None
    assert not torch.equal(node.layer.weight, before["0.weight"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_without_folding_the_weight_is_the_models_memory() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    graph = capture(model, torch.zeros(2, 2), fold=False)
    assert ops(graph) == ["linear", "batch_norm"]
    assert graph.nodes[0].layer is not None
    assert graph.nodes[0].layer.weight.data_ptr() == model[0].weight.data_ptr()


def test_two_batch_norms_with_a_dropout_between_fold_both() -> None:
    model = lived_(
        nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.BatchNorm1d(3), nn.ReLU())
    )
    graph, x = capture(model, batch_of(2, (4,))), batch_of(3, (4,))
    assert ops(graph) == ["linear+relu"]
    torch.testing.assert_close(evaluate(graph, x), model(x).detach(), rtol=0, atol=1e-6)


@given(
    rows=st.lists(st.lists(st.sampled_from([0.0, -0.0, 1.0, -3.0, 1e-30, -1e-38]), min_size=4, max_size=4)),
    gammas=st.lists(st.sampled_from([2.0, -1.0, 1e-30, -1e-38, 0.0]), min_size=9),
)
def test_zeros_are_where_a_weight_or_gamma_is_zero_and_nowhere_else_and_never_negative(
    rows: list[list[float]], gammas: list[float]
) -> None:
    weight = torch.tensor(rows or [[0.0] * 4])[:9]
    gamma = torch.tensor(gammas[: len(weight)])
    folded = matrix(weight, gamma=gamma)
    assert folded is not None
    assert torch.equal(folded == 0, (weight == 0) | (gamma == 0)[:, None])
    assert not folded[folded == 0].signbit().any()
    assert torch.equal(folded.sign(), weight.sign() * gamma.sign()[:, None])


def test_folding_rounds_to_float32_once() -> None:
    """In float32 the product of 21 and 1 / 7 is not 3."""
    whole = torch.arange(1.0, 1000.0)
    folded = matrix(7 * whole[None], gamma=torch.ones(1), variance=49.0)
    assert folded is not None
    assert torch.equal(folded[0], whole)


@pytest.mark.parametrize("variance", [-1.0, 0.0, float("nan")])
def test_a_norm_that_divides_by_nothing_stays_what_it_is(variance: float) -> None:
    assert matrix(torch.ones(1, 1), gamma=torch.ones(1), variance=variance) is None
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, eps=0.0)).eval()
    model[1].running_var.fill_(variance)
    assert ops(capture(model, torch.zeros(2, 2))) == ["linear", "batch_norm"]


class Net(nn.Module):
    """A convolution "a" (2 -> 4), batch norms "b" (4) and "c" (4), and a forward that is given."""

    def __init__(self, forward: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.first, self.tokens = nn.BatchNorm2d(2), nn.BatchNorm1d(6)
        self.wide, self.fc = nn.BatchNorm2d(8), nn.Linear(6, 6)
        self.batch = nn.BatchNorm2d(4, track_running_stats=False)
        self.does = forward

    def forward(self, x: Tensor) -> Any:
        return self.does(self, x)


@pytest.mark.parametrize(
    ("forward", "left"),
    [
        (lambda net, x: net.a(net.first(x)), ["batch_norm", "conv2d"]),
        (lambda net, x: net.b(net.a(x).relu()), ["conv2d+relu", "batch_norm"]),
        (lambda net, x: net.wide(torch.cat([net.a(x), x.exp()[:, :, 2:, 2:].repeat(1, 2, 1, 1)], 1)), None),
        (lambda net, x: (lambda y: net.b(y) + y)(net.a(x)), ["conv2d", "batch_norm", "add"]),
        (lambda net, x: (lambda y: (net.b(y), y))(net.a(x)), ["conv2d", "batch_norm"]),
        (
            lambda net, x: (lambda y: net.b(y) + net.c(y))(net.a(x)),
            ["conv2d", "batch_norm", "batch_norm", "add"],
        ),
        (lambda net, x: net.batch(net.a(x)), ["conv2d", "batch_norm"]),
        (lambda net, x: net.tokens(net.fc(net.a(x).flatten(2)[:, :, :6].repeat(1, 2, 1)[:, :6])), None),
    ],
    ids=[
        "before",
        "after relu",
        "after cat",
        "read",
        "returned",
        "two readers",
        "batch statistics",
        "tokens",
    ],
)
def test_a_batch_norm_that_is_not_the_layers_alone_stays_a_node(
    forward: Callable[[Any, Tensor], Any], left: list[str] | None
) -> None:
    torch.manual_seed(0)
    model, x = lived_(Net(forward)), batch_of(3, (2, 6, 6))
    graph = capture(model, x)
    assert "batch_norm" in ops(graph)
    assert left is None or ops(graph) == left
    torch.testing.assert_close(evaluate(graph, x.clone()), forward(model, x), rtol=0, atol=1e-5)


def test_a_layer_that_runs_twice_takes_the_norm_of_each_run() -> None:
    torch.manual_seed(0)
    model = lived_(Net(lambda net, x: net.b(net.a(x)) + net.c(net.a(x.exp()))))
    graph, x = capture(model, batch_of(1, (2, 6, 6))), batch_of(3, (2, 6, 6))
    assert sorted(ops(graph)) == ["add", "conv2d", "conv2d", "exp"]
    assert close(evaluate(graph, x), model(x).detach())
