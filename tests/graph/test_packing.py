"""Networks that pack sequences are captured with sizes that depend on the lengths, as PyTorch has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence
from torch.nn.utils.rnn import pack_padded_sequence as pack

from zeroskip.errors import EngineError
from zeroskip.graph import Graph, capture
from zeroskip.graph.graph_json import from_json, to_json
from zeroskip.graph.packing import pack_padded_sequence
from zeroskip.graph.packing import pad_packed_sequence as unpack


class Network(nn.Module):
    """Recurrent modules, called by a function of them and the inputs."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True, proj_size=4)
        self.gru, self.norm = nn.GRU(8, 4, batch_first=True), nn.BatchNorm1d(8)
        self._forward = forward

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        return self._forward(self, x, lengths)


def last_states(self: Network, x: Tensor, lengths: Tensor) -> Tensor:
    _, (h, c) = self.lstm(pack(x, lengths, batch_first=True))
    return torch.cat([h[-2], h[-1], c.view(2, 2, x.size(0), 5)[0, 1], x[:, 0]], 1)


def two_in_a_row(self: Network, x: Tensor, lengths: Tensor) -> Any:
    y, _ = self.lstm(pack(x.transpose(0, 1), lengths, enforce_sorted=False))
    y = PackedSequence(self.norm(torch.relu(y.data)), y.batch_sizes, y.sorted_indices, y.unsorted_indices)
    y, h = self.gru(y, x.mean(1)[None, :, :4])
    return pad_packed_sequence(y, padding_value=2.5, total_length=9)[0].transpose(0, 1), h


def attention(self: Network, x: Tensor, lengths: Tensor) -> Tensor:
    there = torch.arange(x.shape[1])[None] < lengths[:, None]
    y, counts = pad_packed_sequence(
        self.lstm(pack(x, there.sum(1), batch_first=True, enforce_sorted=False))[0], batch_first=True
    )
    late = torch.arange(y.size(1))[None] >= counts[:, None]
    return (y.sum(2).masked_fill(late, -1e9).softmax(1)[..., None] * y).sum(1)


def mixed_over_all_sequences(self: Network, x: Tensor, lengths: Tensor) -> Any:
    packed = pack(x, lengths, batch_first=True, enforce_sorted=False)
    packed = packed._replace(data=packed.data - packed.data.mean(0) + packed.data.softmax(0))
    return self.lstm(packed)[0].data


def written_in_place(self: Network, x: Tensor, lengths: Tensor) -> Any:
    packed = pack(x[:, : lengths.max()], lengths, batch_first=True, enforce_sorted=False)
    y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
    first = y[:, 0]
    y[:, 0] = 1
    return y + first[:, None]


FORMS = (last_states, two_in_a_row, attention, mixed_over_all_sequences, written_in_place)
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")


def computed(graph: Graph, *inputs: Tensor) -> Any:
    values: dict[str, Any] = dict(zip(graph.names, inputs, strict=True))
    for node in graph.nodes:
        values[node.name] = node.function(*(values[name] for name in node.inputs))
    return graph.rebuild([values[name] for name in graph.outputs])


@pytest.mark.parametrize("forward", FORMS, ids=lambda form: form.__name__)
def test_the_graph_and_its_file_compute_what_the_network_does_for_any_lengths(
    forward: Callable[..., Any],
) -> None:
    network, lengths = Network(forward).eval(), torch.tensor([4, 2, 1])
    graph = capture(network, (torch.randn(3, 4, 6), lengths))
    recurrent = [node.recurrent for node in graph.nodes if node.recurrent is not None]
    assert [each.is_packed for each in recurrent] == len(recurrent) * [True]
    assert recurrent[0].matrices[0].name == "lstm.weight_ih_l0"
    assert "check_forward_args" not in vars(network.lstm), "the network is left as it was"
    for each in (graph, from_json(*to_json(graph))):
        for other in ([4, 2, 1], [3], [4, 4, 2, 2, 1, 1]):
            given_ = torch.randn(len(other), 4, 6), torch.tensor(other)
            with torch.no_grad():
                torch.testing.assert_close(computed(each, *given_), network(*given_))


@given(st.lists(st.integers(-1, 3), max_size=4), st.booleans(), st.integers(0, 1))
@settings(max_examples=60, deadline=None)
def test_packing_gives_what_torch_does_and_refuses_what_it_does(
    lengths: list[int], batch_first: bool, more: int
) -> None:
    shape = (len(lengths) + more, 3) if batch_first else (3, len(lengths) + more)
    x, counts = torch.randn(*shape, 2), torch.tensor(lengths, dtype=torch.int64)
    try:
        expected = pack(x, counts, batch_first)
    except RuntimeError:
        with pytest.raises(EngineError, match="length|sequence"):
            pack_padded_sequence(x, counts, batch_first)
    else:
        data, sizes = pack_padded_sequence(x, counts, batch_first)
        assert torch.equal(data, expected.data)
        assert torch.equal(sizes, expected.batch_sizes)


def pooled(self: Network, x: Tensor, lengths: Tensor, total: int | None = None) -> Tensor:
    y = self.gru(pack(x.repeat(1, 1, 2)[..., :8], lengths, batch_first=True, enforce_sorted=False))[0]
    y = pad_packed_sequence(y, batch_first=True, total_length=total)[0].transpose(1, 2)
    return F.max_pool1d(y, y.size(2))


def pooled_over_all_steps(self: Network, x: Tensor, lengths: Tensor) -> Tensor:
    return pooled(self, x, lengths, x.shape[1])


def listed(self: Network, x: Tensor, lengths: Tensor) -> Tensor:
    return self.lstm(pack(x, lengths.tolist(), batch_first=True))[1][0]


def made_outside(self: Network, x: Tensor, lengths: Tensor) -> Tensor:
    return self.lstm(PackedSequence(x[:, 0], lengths))[1][0]


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (pooled, r"packed sequences.*total_length=x.shape\[1\]"),
        (listed, r"lengths as a tensor, and keep.*\.tolist\(\)"),
        (made_outside, "made outside of its forward"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_what_can_be_done(
    forward: Callable[..., Any], words: str
) -> None:
    with pytest.raises(EngineError, match=words):
        capture(Network(forward).eval(), (torch.randn(3, 4, 6), torch.tensor([2, 1, 1])))


def test_that_does_what_was_wanted() -> None:
    network, x = Network(pooled_over_all_steps).eval(), torch.randn(3, 4, 6)
    graph = capture(network, (x, torch.tensor([2, 1, 1])))
    with torch.no_grad():
        torch.testing.assert_close(
            computed(graph, x, torch.tensor([1, 3, 2])), network(x, torch.tensor([1, 3, 2]))
        )


@pytest.mark.parametrize(
    ("sizes", "total", "words"),
    [
        ([2, 1, 2], 3, "descend"),
        ([2, 2], 2, "add up to the 5 steps"),
        ([], 3, "descend"),
        ([3, 2], 1, "no room"),
    ],
)
def test_padding_refuses_sizes_that_are_not_of_its_data(sizes: list[int], total: int, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        unpack(torch.zeros(5, 2), torch.tensor(sizes, dtype=torch.int64), True, 0.0, total)
