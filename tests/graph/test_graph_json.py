"""Graphs as JSON and tensors: what is read back computes the same, and whatever contradicts itself is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stepwise import batch_of, evaluate, lived_
from torch import Tensor, nn

from zeroskip.errors import EngineError
from zeroskip.graph import Graph, Input, Node, capture
from zeroskip.graph.graph_json import from_json, to_json
from zeroskip.graph.torch_operations import Bound, Slot

RELU = torch.ops.aten.relu.default


class Branches(nn.Module):
    """Layers of both kinds, a constant tensor, lists among the arguments, and outputs inside a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding="same", groups=2), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3, bias=False)
        self.register_buffer("shift", torch.arange(4.0).reshape(4, 1, 1))

    def forward(self, x: Tensor) -> dict[str, Any]:
        maps = torch.relu(self.norm(self.conv(x)))
        left, right = torch.split(torch.cat([maps, maps + self.shift], dim=1), [3, 5], dim=1)
        means = right.mean((2, 3), dtype=torch.float64).float()
        return {"left": left, "rest": [(self.fc(means[:, :4]),), means]}


def read_back(graph: Graph) -> Graph:
    """The graph after JSON as text."""
    described, tensors = to_json(graph)
    return from_json(json.loads(json.dumps(described)), tensors)


def flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [
        tensor for part in (value.values() if isinstance(value, dict) else value) for tensor in flat(part)
    ]


@pytest.fixture(scope="module")
def branches() -> Graph:
    torch.manual_seed(0)
    return capture(lived_(Branches()), torch.zeros(1, 2, 5, 5))


def test_a_graph_read_back_computes_the_same_to_the_last_bit(branches: Graph) -> None:
    x, again = batch_of(3, (2, 5, 5)), read_back(branches)
    with torch.no_grad():
        ours, theirs = evaluate(again, x), evaluate(branches, x)
    assert ours.keys() == theirs.keys()
    assert [type(part) for part in ours["rest"]] == [tuple, Tensor]
    assert all(torch.equal(*pair) for pair in zip(flat(ours), flat(theirs), strict=True))


def test_a_graph_read_back_is_described_by_the_same_json_and_tensors(branches: Graph) -> None:
    described, tensors = to_json(branches)
    again, its_tensors = to_json(read_back(branches))
    assert json.dumps(again) == json.dumps(described)
    assert all(its_tensors[name] is tensor for name, tensor in tensors.items())
    assert len(tensors) == len(its_tensors)


def test_nodes_read_back_have_the_layers_arguments_and_shapes_that_were_captured(branches: Graph) -> None:
    for node, again in zip(branches.nodes, read_back(branches).nodes, strict=True):
        assert (again.name, again.op, again.inputs) == (node.name, node.op, node.inputs)
        assert (again.relu, again.shape, again.layer) == (node.relu, node.shape, node.layer)
        assert again.arguments.keys() == node.arguments.keys()


def test_a_network_bound_to_a_batch_stays_bound_to_it() -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(4, -1) * 2

    assert read_back(capture(Fixed(), torch.zeros(4, 2, 3))).batch == 4


def by_hand(function: Callable[..., Any], *, op: str = "aten.relu.default", rebuild: Any = list) -> Graph:
    return Graph((Input("x", (2,)),), (Node("y", op, ("x",), function, shape=(2,)),), ("y",), rebuild)


ARGUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | st.sampled_from(["same", ""])
    | st.sampled_from([torch.float16, torch.channels_last, torch.strided, torch.device("cpu")])
    | st.sampled_from([Slot(0), torch.ones(2)]),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(ARGUMENTS, max_size=3), st.dictionaries(st.sampled_from(["dim", "out"]), ARGUMENTS))
def test_arguments_of_every_kind_come_back(arguments: list[Any], named: dict[str, Any]) -> None:
    (node,) = read_back(by_hand(Bound(RELU, arguments, named))).nodes
    assert isinstance(node.function, Bound)
    assert node.function.target is RELU
    assert str(node.function.arguments) == str(arguments)
    assert str(node.function.named) == str(named)


STRUCTURES = st.recursive(
    st.integers(0, 2),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def filled(structure: Any, values: Any) -> Any:
    if isinstance(structure, int):
        return values[structure]
    if isinstance(structure, dict):
        return {key: filled(part, values) for key, part in structure.items()}
    return type(structure)(filled(part, values) for part in structure)


@settings(max_examples=60)
@given(STRUCTURES)
def test_what_a_network_returns_comes_back_in_the_same_lists_tuples_and_dicts(structure: Any) -> None:
    nodes = tuple(Node(name, "aten.relu.default", ("x",), Bound(RELU, [Slot(0)], {})) for name in "abc")
    graph = Graph((Input("x"),), nodes, ("a", "b", "c"), lambda values: filled(structure, values))
    assert read_back(graph).rebuild(["first", "second", "third"]) == filled(
        structure, ["first", "second", "third"]
    )


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (by_hand(torch.relu), 'operation "aten.relu.default" is not among'),
        (
            by_hand(Bound(RELU, [Slot(0)], {}), op="aten.bernoulli.default"),
            'operation "aten.bernoulli.default" is not',
        ),
        (by_hand(Bound(RELU, [Slot(0)], {}), op="aten.sigmoid.default"), "is not among those"),
        (by_hand(Bound(RELU, [2j], {})), "is given 2j, which a saved program cannot hold"),
        (by_hand(Bound(RELU, [torch.device("meta")], {})), "is given device"),
        (by_hand(Bound(RELU, [Slot(0)], {}), rebuild=set), "the network takes or returns a set"),
        (
            by_hand(Bound(RELU, [Slot(0)], {}), rebuild=lambda values: {1: values[0]}),
            "the network takes or returns a dict",
        ),
    ],
)
def test_graphs_that_json_cannot_hold_are_refused(graph: Graph, reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        to_json(graph)


def counted(values: Any) -> dict[str, int]:
    """Looks at its tensors, as a class of one's own may when it is made."""
    return {"rows": values[0].shape[0]}


def test_what_cannot_be_made_without_tensors_is_refused_in_our_words() -> None:
    graph = by_hand(Bound(RELU, [Slot(0)], {}), rebuild=counted)
    with pytest.raises(EngineError, match=r"cannot be made without its tensors \(AttributeError: 'Slot'"):
        to_json(graph)


def layer_graph() -> Graph:
    torch.manual_seed(0)
    return capture(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2)), torch.zeros(1, 1, 3, 3))


# Path in the JSON of `layer_graph`, another value, and the reason of the refusal.
LIES: list[tuple[list[Any], Any, str]] = [
    (["nodes"], {}, "is no list"),
    (["nodes", 0], "conv", "is no JSON object"),
    (["nodes", 0, "inputs"], "input", "is no list"),
    (["nodes", 0, "inputs"], [], "conv2d is no layer"),
    (["nodes", 0, "inputs"], ["linear"], "reads the future"),
    (["nodes", 0, "op"], "aten.linear.default", "conv2d is no layer"),
    (["nodes", 0, "op"], "aten.bernoulli.default", "is not among those"),
    (["nodes", 0, "op"], "system", "is not among those"),
    (["nodes", 0, "relu"], 1, "conv2d is no layer"),
    (["nodes", 0, "shape"], [-1], "-1 is no size"),
    (["nodes", 0, "shape"], [1 << 20, 1 << 20], "larger than any memory"),
    (["nodes", 0, "layer", "op"], "linear", "has no weight"),
    (["nodes", 0, "layer", "stride"], [0, 1], "has steps of 0"),
    (["nodes", 0, "layer", "padding"], "reflect", "is no list"),
    (["nodes", 0, "layer", "groups"], True, "True is no size"),
    (["nodes", 1, "arguments", 0], {"input": 1}, "fewer inputs than it reads"),
    (["nodes", 1, "arguments", 0], {"code": "1"}, "code is no kind of argument"),
    (["nodes", 1, "arguments", 0], {"torch": "ones"}, "torch has no type ones"),
    (["nodes", 1, "name"], "conv2d", "linear reads the future"),
    (["outputs"], [], "returns what it does not compute"),
    (["outputs"], ["other"], "returns what it does not compute"),
    (["returns"], 1, "takes or returns more than there is"),
    (["returns"], {"tuple": 0}, "tuple is no kind of structure"),
    (["batch"], 0, "its batch is empty"),
    (["batch"], "1", "is no size"),
    (["inputs", 0, "dtype"], "channels_last", "type of the input is unknown"),
    (["inputs", 0, "dtype"], "add", "torch has no type add"),
    (["inputs"], [], "it takes no input"),
    (["inputs", 0, "has_batch"], 1, "has_batch is neither"),
    (["signature", "given"], {}, "other tensors than it takes"),
    (["signature", "given", "input"], 1, "takes or returns more than there is"),
]


@pytest.mark.parametrize(("path", "value", "reason"), LIES, ids=[f"{lie[0]} {lie[1]}" for lie in LIES])
def test_json_that_contradicts_itself_is_refused(path: list[Any], value: Any, reason: str) -> None:
    described, tensors = to_json(layer_graph())
    network: Any = json.loads(json.dumps(described))
    place = network
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(EngineError, match=reason):
        from_json(network, tensors)


def test_two_nodes_of_the_same_name_are_refused() -> None:
    described, tensors = to_json(layer_graph())
    network: Any = json.loads(json.dumps(described))
    network["nodes"].append(network["nodes"][1])
    with pytest.raises(EngineError, match="two values have the same name"):
        from_json(network, tensors)


@pytest.mark.parametrize(
    ("name", "tensor", "reason"),
    [
        ("conv2d.weight", torch.zeros(2, 1, 3), "conv2d has no weight"),
        ("conv2d.weight", torch.zeros(2, 1, 3, 3, dtype=torch.int32), "conv2d has no weight"),
        ("conv2d.bias", torch.zeros(3), "the bias of conv2d does not fit"),
        ("conv2d.bias", torch.zeros(2, dtype=torch.float64), "the bias of conv2d does not fit"),
    ],
)
def test_tensors_that_do_not_fit_their_layer_are_refused(name: str, tensor: Tensor, reason: str) -> None:
    described, tensors = to_json(layer_graph())
    with pytest.raises(EngineError, match=reason):
        from_json(described, tensors | {name: tensor})


def test_reading_changes_neither_json_nor_tensors() -> None:
    described, tensors = to_json(layer_graph())
    before, kept = copy.deepcopy(described), {name: tensor.clone() for name, tensor in tensors.items()}
    from_json(described, tensors)
    assert described == before
    assert all(torch.equal(tensors[name], tensor) for name, tensor in kept.items())
