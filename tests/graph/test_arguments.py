"""What a node says of itself as data: the arguments of its operation, and the shape of one example's value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroskip.graph import Graph, capture


class Does(nn.Module):
    """A forward that is given, and a constant."""

    def __init__(self, forward: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.register_buffer("c", torch.arange(4.0))
        self.does = forward

    def forward(self, x: Tensor) -> Any:
        return self.does(self.c, x)


def captured(forward: Callable[[Any, Tensor], Any], *shape: int) -> Graph:
    return capture(Does(forward), torch.randn(shape))


@pytest.mark.parametrize(
    ("forward", "op", "arguments"),
    [
        (
            lambda c, x: F.max_pool2d(x, 3, 2),
            "max_pool2d.default",
            {"kernel_size": [3, 3], "stride": [2, 2], "padding": [0, 0], "dilation": [1, 1], "ceil_mode": False},
        ),
        (
            lambda c, x: F.avg_pool2d(x, 2, ceil_mode=True),
            "avg_pool2d.default",
            {"kernel_size": [2, 2], "stride": [], "padding": [0, 0], "ceil_mode": True, "count_include_pad": True,
             "divisor_override": None},
        ),
        (lambda c, x: nn.ReLU6()(x), "hardtanh.default", {"min_val": 0.0, "max_val": 6.0}),
        (lambda c, x: F.hardtanh(x), "hardtanh.default", {"min_val": -1, "max_val": 1}),
        (lambda c, x: torch.cat([x, x.exp()], 1), "cat.default", {"dim": 1}),
        (lambda c, x: torch.add(x, x.exp(), alpha=2), "add.Tensor", {"alpha": 2}),
        (lambda c, x: x + 3, "add.Tensor", {"other": 3, "alpha": 1}),
        (lambda c, x: 3 - x, "rsub.Scalar", {"other": 3, "alpha": 1}),
        (lambda c, x: x.mean((2, 3)), "mean.dim", {"dim": [2, 3], "keepdim": False, "dtype": None}),
        (lambda c, x: x.flatten(1), "flatten.using_ints", {"start_dim": 1, "end_dim": -1}),
        (lambda c, x: x.view(x.shape[0], -1, 2), "view.default", {"size": [None, -1, 2]}),
        (lambda c, x: x.chunk(2, 1)[1], "getitem", {"1": 1}),
        (lambda c, x: F.adaptive_avg_pool2d(x, 1), "adaptive_avg_pool2d.default", {"output_size": [1, 1]}),
    ],
)  # fmt: skip
def test_arguments_are_complete_with_the_defaults_that_nobody_wrote(
    forward: Callable[[Any, Tensor], Any], op: str, arguments: dict[str, Any]
) -> None:
    node = captured(forward, 2, 2, 4, 4).nodes[-1]
    assert node.op.removeprefix("aten.") == op
    assert node.arguments == arguments


@pytest.mark.parametrize("forward", [lambda c, x: c - x, lambda c, x: x - c], ids=["first", "second"])
def test_a_constant_tensor_is_an_argument_by_its_place(forward: Callable[[Any, Tensor], Any]) -> None:
    x = torch.randn(3, 4)
    (node,) = captured(forward, 3, 4).nodes
    assert node.inputs == ("x",)
    assert len({"self", "other"} & set(node.arguments)) == 1
    given = {name: node.arguments.get(name, x) for name in ("self", "other")}
    assert torch.equal(torch.sub(given["self"], given["other"]), node.function(x))


def test_a_list_that_mixes_constants_and_values_has_none_for_the_values() -> None:
    node = captured(lambda c, x: torch.cat([x, c.expand(3, 4).exp(), x.exp()]), 3, 4).nodes[-1]
    first, middle, last = node.arguments["tensors"]
    assert (first, last, node.arguments["dim"]) == (None, None, 0)
    assert torch.equal(middle, torch.arange(4.0).exp().expand(3, 4))


def test_a_batch_norm_gives_its_four_tensors_and_eps() -> None:
    norm = nn.BatchNorm2d(3, eps=0.01)
    (node,) = capture(norm, torch.randn(2, 3, 4, 4)).nodes
    for name in ("running_mean", "running_var", "weight", "bias"):
        assert torch.equal(node.arguments[name], getattr(norm, name))
    assert (node.arguments["training"], node.arguments["eps"]) == (False, 0.01)


def test_a_convolution_gives_what_its_layer_has() -> None:
    (node,) = capture(nn.Conv2d(4, 6, 3, stride=(1, 2), groups=2, bias=False), torch.randn(2, 4, 5, 5)).nodes
    assert node.layer is not None
    assert node.arguments.pop("weight") is node.layer.weight
    assert node.arguments == {
        "bias": None,
        "stride": [1, 2],
        "padding": [0, 0],
        "dilation": [1, 1],
        "groups": 2,
    }


@pytest.mark.parametrize("batch", [1, 2, 4, 5])
@pytest.mark.parametrize(
    ("forward", "shape"),
    [
        (lambda c, x: x.flatten(1), (8,)),
        (lambda c, x: x.sum((1, 2)), ()),
        (lambda c, x: x.view(x.size(0), -1), (8,)),
        (lambda c, x: x.reshape(-1, 8), (8,)),
        (lambda c, x: x.transpose(0, 1), None),
        (lambda c, x: x.reshape(-1, 4), None),
        (lambda c, x: x.flatten(1) @ x.flatten(1).T, None),
        (lambda c, x: x[:1], None),
        (lambda c, x: x.sum(), None),
    ],
)
def test_a_shape_is_one_examples_share_of_a_value_whose_first_axis_is_the_batch(
    forward: Callable[[Any, Tensor], Any], shape: tuple[int, ...] | None, batch: int
) -> None:
    """Whatever the size of the batch that is shown: 4 and 2 are sizes of other axes as well, 1 is easily taken for
    a constant."""
    graph = captured(forward, batch, 2, 4)
    assert graph.nodes[-1].shape == shape
    assert graph.inputs[0].shape == (2, 4)


def test_values_that_are_no_tensors_have_no_shape() -> None:
    nodes = captured(lambda c, x: x.view(x.shape[0], -1).chunk(2, 1), 2, 2, 4).nodes
    shapes = {node.op.removeprefix("aten."): node.shape for node in nodes}
    assert shapes == {"sym_size.int": None, "view.default": (8,), "chunk.default": None, "getitem": (4,)}


def test_a_network_bound_to_3_examples_has_shapes_too() -> None:
    graph = captured(lambda c, x: x.view(3, 8).exp(), 3, 2, 4)
    assert [node.shape for node in graph.nodes] == [(8,), (8,)]
    assert (graph.batch, graph.inputs[0].shape) == (3, (2, 4))
