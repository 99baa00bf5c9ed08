"""What LSTM, GRU and RNN modules, and their cells, are captured as."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zeroskip.errors import EngineError
from zeroskip.graph import Graph, capture
from zeroskip.graph.graph_json import from_json, to_json


class Called(nn.Module):
    """A module of torch, called `rnn`, by a function of it and the inputs."""

    def __init__(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.rnn, self._forward = module, forward

    def forward(self, *inputs: Tensor) -> Any:
        return self._forward(self.rnn, *inputs)


def learned(module: nn.Module, x: Tensor) -> Any:
    first = torch.zeros(1, x.shape[0], 4)
    first[:, :, 1] = 0.5
    return module(x, first)[0]


def stated(module: nn.Module, x: Tensor, h: Tensor) -> Any:
    return module(x, h.transpose(0, 1).contiguous())[0]


SEQUENCE, STEP = torch.randn(3, 2, 5), torch.randn(3, 5)
FORMS: dict[str, tuple[nn.Module, Callable[..., Any], tuple[Tensor, ...], dict[str, Any]]] = {
    "lstm": (nn.LSTM(5, 4, batch_first=True), lambda rnn, x: rnn(x), (SEQUENCE,), {"batch_first": True}),
    "steps first": (nn.LSTM(5, 4), lambda rnn, x: rnn(x.transpose(0, 1))[0][-1], (SEQUENCE,), {}),
    "gru, last state": (nn.GRU(5, 4, batch_first=True), lambda rnn, x: rnn(x)[1][0], (SEQUENCE,), {"kind": "gru"}),
    "two layers, both ways": (
        nn.RNN(5, 4, 2, batch_first=True, bidirectional=True), lambda rnn, x: rnn(x)[0], (SEQUENCE,),
        {"kind": "rnn_tanh", "directions": 2},
    ),
    "projected, no bias": (
        nn.LSTM(5, 4, batch_first=True, bias=False, proj_size=2), lambda rnn, x: rnn(x)[0], (SEQUENCE,), {},
    ),
    "first states given": (nn.GRU(5, 4, batch_first=True), stated, (SEQUENCE, torch.randn(3, 1, 4)), {"given": True}),
    "first states written to": (nn.GRU(5, 4, batch_first=True), learned, (SEQUENCE,), {"given": True}),
    "lstm cell": (nn.LSTMCell(5, 4), lambda rnn, x: rnn(x), (STEP,), {"is_step": True}),
    "gru cell": (nn.GRUCell(5, 4), lambda rnn, x, h: rnn(x, h), (STEP, torch.randn(3, 4)), {"given": True}),
    "rnn cell": (nn.RNNCell(5, 4, nonlinearity="relu"), lambda rnn, x: rnn(x), (STEP,), {"kind": "rnn_relu"}),
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")


@cache
def captured(name: str) -> tuple[nn.Module, Graph]:
    module, forward, inputs, _ = FORMS[name]
    network = Called(module, forward).eval()
    return network, capture(network, inputs)


@pytest.mark.parametrize("name", FORMS)
def test_a_recurrent_module_is_one_operation_with_all_its_matrices(name: str) -> None:
    module, _, inputs, wanted = FORMS[name]
    network, graph = captured(name)
    (node,) = (node for node in graph.nodes if node.recurrent is not None)
    assert node.recurrent is not None
    assert wanted == {key: getattr(node.recurrent, key) for key in wanted}
    assert node.recurrent.name == "rnn"
    matrices = [f"rnn.{key}" for key, parameter in module.named_parameters() if parameter.ndim > 1]
    assert sorted(layer.name for layer in node.layers) == sorted(matrices)
    assert [layer.weight.data_ptr() for layer in node.layers] == [
        network.get_parameter(layer.name).data_ptr() for layer in node.layers
    ], "weights share the model's memory"
    assert sum(layer.macs for layer in node.layers) == len(inputs[0][0].reshape(-1, 5)) * sum(
        layer.weights for layer in node.layers
    )


@pytest.mark.parametrize("name", FORMS)
def test_the_graph_and_its_file_compute_what_the_network_does(name: str) -> None:
    network, graph = captured(name)
    inputs = FORMS[name][2]
    with torch.no_grad():
        expected = network(*inputs)
        for each in (graph, from_json(*to_json(graph))):
            values: dict[str, Any] = dict(zip(each.names, inputs, strict=True))
            for node in each.nodes:
                values[node.name] = node.function(*(values[given] for given in node.inputs))
            torch.testing.assert_close(each.rebuild([values[output] for output in each.outputs]), expected)


def test_one_bias_without_the_other_is_left_to_pytorch() -> None:
    def one_bias(rnn: nn.Module, x: Tensor) -> Tensor:
        return torch.gru_cell(x, torch.zeros(len(x), 4), rnn.weight_ih, rnn.weight_hh, rnn.bias_ih)

    graph = capture(Called(nn.GRUCell(5, 4), one_bias).eval(), (STEP,), fold=False)
    assert not any(node.recurrent for node in graph.nodes)
    assert len(from_json(*to_json(graph)).nodes) == len(graph.nodes)


def test_states_of_zeros_are_no_operations_of_their_own() -> None:
    assert [node.op for node in captured("gru, last state")[1].nodes] == [
        "aten.gru.input",
        "getitem",
        "aten.select.int",
    ]


@pytest.mark.parametrize("sizes", [[(3, 2, 6)], [(2, 5)], [(3, 2, 5), (1, 3, 4)]], ids=str)
def test_pytorch_itself_is_not_handed_what_its_module_refuses(sizes: list[tuple[int, ...]]) -> None:
    (node,) = (node for node in captured("lstm")[1].nodes if node.recurrent is not None)
    with pytest.raises(EngineError, match="takes 5 features"):
        node.function(*map(torch.zeros, sizes))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda stored: stored.update(kind="gru"), "do not fit each other"),
        (lambda stored: stored.update(directions=2), "do not fit each other"),
        (lambda stored: stored.update(given=True), "no lstm"),
        (lambda stored: stored.update(is_step=True), "no lstm"),
        (lambda stored: stored.update(is_packed=True), "no lstm"),
        (lambda stored: stored.update(batch_first=3), "flag"),
        (lambda stored: stored["cells"][0].pop(), "lacks a matrix"),
        (lambda stored: stored["cells"].clear(), "do not fit each other"),
        (lambda stored: stored.update(kind="mamba"), "do not fit each other"),
    ],
)
def test_a_damaged_operation_of_a_file_is_refused(
    change: Callable[[dict[str, Any]], None], words: str
) -> None:
    described, tensors = to_json(captured("lstm")[1])
    nodes: Any = described["nodes"]
    change(nodes[0]["recurrent"])
    with pytest.raises(Exception, match=words):
        from_json(described, tensors)
