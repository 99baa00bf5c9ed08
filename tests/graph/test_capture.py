"""graph.capture: the operations, taken one by one, compute what the network computes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from stepwise import evaluate, lived_
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from zeroskip.errors import EngineError
from zeroskip.graph import capture, layers, quiet


class Masked(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


class Branching(nn.Module):
    """Two ways that meet, a value used twice, a list of tensors, a size, and a dict of results."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.rand(8) + 1)

    def forward(self, x: Tensor) -> dict[str, Any]:
        a = self.a(x)
        both = torch.cat([a.relu(), self.b(x).relu_() + a], dim=1)
        return {"both": both.view(x.shape[0], 2, -1), "more": (a * self.scale.exp(), x)}


class Fixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(3, 8))


class Counting(Fixed):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return self.layer(x)


class Deciding(Fixed):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


class Unordered(Fixed):
    def forward(self, x: Tensor) -> set[Tensor]:
        return {self.layer(x)}


class Constant(Fixed):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(x), self.layer.weight * 2


class OneWeight(Fixed):
    """The weight of a linear layer used as a convolution's, without a module for it."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x.view(-1, 1, 2, 4), self.layer.weight.view(4, 1, 2, 4), padding="valid")


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3, groups=2, dilation=2, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(16, 6),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(6, 3),
    )


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (convolutional(), (1, 8, 8)),
        (Branching(), (8,)),
        (OneWeight(), (8,)),
        (nn.Linear(3, 2), (7, 3)),
        (Constant(), (8,)),
    ],
    ids=["convolutional", "branching", "functional", "tokens", "constant"],
)
def test_the_nodes_compute_what_the_network_does_for_batches_of_1_2_and_5(
    model: nn.Module, shape: tuple[int, ...]
) -> None:
    model.eval()
    for captured_with in (1, 4):
        graph = capture(model, torch.randn(captured_with, *shape))
        assert graph.batch is None
        for batch in (1, 2, 5):
            x = torch.randn(batch, *shape)
            with torch.no_grad():
                torch.testing.assert_close(evaluate(graph, x.clone()), model(x), rtol=0, atol=1e-6)


class Overwriting(nn.Module):
    """A convolution, a batch norm, and what writes into values that others read."""

    def __init__(self, forward: Callable[[Overwriting, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.do = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.do(self, x)


def into_a_slice(self: Overwriting, x: Tensor) -> Tensor:
    y = self.norm(self.first(x))
    y[:, :3] += x
    return self.second(y)


def into_its_input(self: Overwriting, x: Tensor) -> Tensor:
    y = self.first(x)
    x.mul_(2)
    return y + self.first(x)


def over_what_is_read_twice(self: Overwriting, x: Tensor) -> Tensor:
    y = self.first(x)
    z = self.second(y)
    y.relu_()
    return functional.dropout(self.norm(z + y), 0.5, self.training, inplace=True)


def in_a_region(self: Overwriting, x: Tensor) -> Tensor:
    y = self.first(x)
    with torch.no_grad():
        y[:, 0] = x[:, 1]
        y.view(x.shape[0], 4, -1)[:, 1:].clamp_(-0.5, 0.5)
    return self.norm(y) + y


@pytest.mark.parametrize(
    "forward",
    [into_a_slice, into_its_input, over_what_is_read_twice, in_a_region],
    ids=lambda each: each.__name__,
)
def test_what_a_network_overwrites_for_others_is_another_value_in_its_graph(
    forward: Callable[[Overwriting, Tensor], Tensor],
) -> None:
    model = lived_(Overwriting(forward))
    x = torch.randn(2, 3, 5, 4)
    graph = capture(model, x.clone())
    assert not [node.op for node in graph.nodes if node.op.split(".")[1].endswith("_")]
    assert {node.layer.name for node in graph.nodes if node.layer} <= {"first", "second"}
    assert len(graph.outputs) == 1
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 5, 4)
        with torch.no_grad():
            before = x.clone()
            ours = evaluate(graph, x)
            assert torch.equal(x, before)
            torch.testing.assert_close(ours, model(x), rtol=0, atol=1e-5)


def test_layers_have_the_names_shapes_and_steps_that_hooks_see() -> None:
    model, x = convolutional().eval(), torch.randn(2, 1, 8, 8)
    captured = [node.layer for node in capture(model, x, fold=False).nodes if node.layer]
    for ours, theirs in zip(captured, layers(model, x), strict=True):
        assert ours.weight.data_ptr() == theirs.weight.data_ptr()
        facts = ("name", "op", "input_shape", "output_shape", "stride", "dilation", "groups")
        assert [getattr(ours, fact) for fact in facts] == [getattr(theirs, fact) for fact in facts]
        assert ours.padding in ("same", theirs.padding)


def test_dropout_is_gone_and_a_relu_belongs_to_the_layer_before_it_but_not_to_batch_norm() -> None:
    graph = capture(convolutional(), torch.randn(2, 1, 8, 8), fold=False)
    assert not [node for node in graph.nodes if "dropout" in node.op]
    assert [(node.layer.name, node.relu) for node in graph.nodes if node.layer] == [
        ("0", False),
        ("3", True),
        ("8", True),
        ("11", False),
    ]
    assert [node.op for node in graph.nodes if "relu" in node.op] == ["aten.relu_.default"]


def test_a_relu_stays_apart_where_the_value_before_it_is_used_as_well() -> None:
    graph = capture(Branching(), torch.randn(2, 8))
    assert {node.layer.name: node.relu for node in graph.nodes if node.layer} == {"a": False, "b": True}


def test_operations_after_a_relu_that_joined_its_layer_are_shown_no_negative_number() -> None:
    """A Poisson rate below zero is an error in PyTorch."""

    class Drawing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.poisson(super().forward(x).relu())

    torch.manual_seed(0)
    nodes = capture(Drawing(3, 8), torch.randn(2, 3)).nodes
    assert [(node.op, node.relu) for node in nodes] == [
        ("aten.linear.default", True),
        ("aten.poisson.default", False),
    ]


def test_a_parametrized_weight_is_computed_once_and_keeps_the_name_of_its_module() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    mask = torch.rand(4, 6) > 0.5
    parametrize.register_parametrization(model[0], "weight", Masked(mask))
    (node,) = capture(model, torch.randn(1, 6)).nodes
    assert node.layer is not None
    assert node.layer.name == "0"
    assert node.relu
    assert torch.equal(node.layer.weight, model[0].weight)
    assert torch.equal(node.layer.weight != 0, mask)


def test_a_bare_layer_has_the_empty_name() -> None:
    (node,) = capture(nn.Linear(3, 2), torch.randn(1, 3)).nodes
    assert node.layer is not None
    assert node.layer.name == ""


def test_a_network_that_only_takes_3_examples_is_captured_for_3() -> None:
    graph = capture(Fixed(), torch.randn(3, 8))
    assert graph.batch == 3


def test_the_training_flag_of_every_module_is_as_before() -> None:
    model = convolutional().train()
    model[1].eval()
    capture(model, torch.randn(2, 1, 8, 8))
    assert [module.training for module in model] == [index != 1 for index in range(12)]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Deciding(), "control flow that depends on values"),
        (Counting(), r"overwrites its own buffer or parameter \(aten.add_"),
        (Unordered(), "the network returns a set, which a program cannot give back"),
    ],
    ids=["data-dependent", "stateful", "a set"],
)
def test_what_cannot_be_captured_is_refused_with_a_way_out(model: nn.Module, reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        capture(model, torch.randn(2, 8))


def test_a_stateful_network_is_not_changed_by_being_refused() -> None:
    model = Counting()
    with pytest.raises(EngineError):
        capture(model, torch.randn(2, 8))
    assert model.count.item() == 0


def test_an_empty_batch_shows_nothing_and_is_refused() -> None:
    with pytest.raises(EngineError, match="at least one"):
        capture(nn.Linear(3, 2), torch.zeros(0, 3))


def test_quiet_silences_warnings_and_logs_and_lets_them_speak_again(caplog: pytest.LogCaptureFixture) -> None:
    with quiet():
        warnings.warn("hush", stacklevel=1)  # would be an error in these tests
        logging.getLogger("torch").critical("hush")
    assert not caplog.records
    logging.getLogger("elsewhere").critical("heard")
    assert [record.message for record in caplog.records] == ["heard"]


@pytest.mark.parametrize(("size", "nodes"), [(6, 1), (3, 2), ((6, 1), 2)])
def test_an_adaptive_pool_to_the_size_that_is_there_is_no_node(size: Any, nodes: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(size))
    x = torch.randn(2, 3, 6, 6)
    graph = capture(model, x)
    assert len(graph.nodes) == nodes
    y: Any = x
    for node in graph.nodes:
        y = node.function(y)
    assert torch.allclose(y, model(x), atol=1e-6)


class Slicing(nn.Module):
    """Slices that take all there is, three that do not, and a sum into one."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = x * 2
        y[:, 1:] += 1
        return y[:, 1], y[:, :, :], y[:, 1:], y[:, :, ::2], y[:, :, :2]


def test_a_slice_of_all_there_is_is_no_node() -> None:
    x = torch.randn(2, 3, 4)
    graph = capture(Slicing(), x)
    taken = [node.arguments.get("dim") for node in graph.nodes if node.op == "aten.slice.Tensor"]
    assert 0 not in taken
    assert {*taken} == {1, 2}
    assert all(map(torch.equal, evaluate(graph, x), Slicing()(x)))
