"""Weights rounded to bytes times scales: the same integers, and a file of a byte for each weight that is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zeroskip import pack, patterns, run
from zeroskip.errors import EngineError
from zeroskip.graph import capture
from zeroskip.run.integer_network import byte_operations, byte_weight_of, integer_network
from zeroskip.run.quantisation import Quantisation, check


class Network(nn.Module):
    """A stem, a residual block with batch norms, a depthwise layer, an activation, a head of one row."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one, self.norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.own = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.two = nn.Conv2d(8, 12, 1)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.norm(self.one(x)) + x)
        return self.head(torch.relu(self.two(self.own(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def batch() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def network() -> Network:
    torch.manual_seed(0)
    model = Network().eval()
    with torch.no_grad():
        for parameter in (model.norm.weight, model.norm.bias, model.norm.running_mean):
            parameter.normal_()
        model.norm.weight[2], model.norm.running_var[3] = 0.0, 1e-4
        for weight in (model.one.weight, model.two.weight):
            weight.mul_(patterns.keep(weight.abs(), "1x4", 0.5)).add_(0.0)
    return model


@pytest.fixture(scope="module")
def quantised(batch: Tensor) -> tuple[Network, Quantisation]:
    model = network()
    return model, run.calibrate(model, [batch], method="min-max")


@pytest.fixture(scope="module")
def made(quantised: tuple[Network, Quantisation], batch: Tensor) -> run.Rounded:
    return run.rounded(quantised[0], batch, quantised[1])


def test_the_rounded_network_has_the_same_bytes_and_the_same_results_bit_for_bit(
    quantised: tuple[Network, Quantisation], made: run.Rounded, batch: Tensor
) -> None:
    model, quantisation = quantised
    assert set(made.scales) == {
        "stem.weight",
        "one.weight",
        "own.weight",
        "two.weight",
    }  # not the head's one row
    assert made.quantisation.weights is quantisation.weights
    graphs = capture(model, batch), capture(made.model, batch)
    for one, other in zip(*map(byte_operations, graphs), strict=True):
        if one.is_layer and one.maps:
            both = [byte_weight_of(each, quantisation.weights).numbers for each in (one, other)]
            assert torch.equal(*both)
    answers = [
        integer_network(graph, each, limit=1.0)(batch)[0]
        for graph, each in zip(graphs, (quantisation, made.quantisation), strict=True)
    ]
    assert torch.equal(*answers)
    assert not torch.equal(model.one.weight, made.model.one.weight)
    assert torch.equal(model.head.weight, made.model.head.weight)
    check(quantisation, graphs[0])  # the network that was given is as it was
    with pytest.raises(EngineError, match="of another network"):
        check(quantisation, graphs[1])


def test_each_weight_is_a_scale_times_a_byte_and_zeros_stay_zeros(
    quantised: tuple[Network, Quantisation], made: run.Rounded
) -> None:
    model, _ = quantised
    for name, scales in made.scales.items():
        weight, before = made.model.get_parameter(name), model.get_parameter(name)
        numbers = (weight / scales.reshape(-1, 1, 1, 1)).round()
        assert torch.equal(weight, numbers * scales.reshape(-1, 1, 1, 1))
        assert numbers.abs().max() == 127
        assert not (weight[before == 0] != 0).any()
        others = (
            torch.arange(len(weight)) != 2 if name == "one.weight" else slice(None)
        )  # 2: its norm makes 0 of it
        assert torch.allclose(weight[others], before[others], atol=float(0.51 * scales[others].max()))


def test_a_zs_file_holds_a_byte_for_each_kept_weight_and_gives_the_network_of_the_quantisation(
    made: run.Rounded, batch: Tensor, tmp_path: Path
) -> None:
    packed = pack.encode(made.model, scales=made.scales)
    by_name = {one.name: one for one in packed.tensors}
    assert [name for name, one in by_name.items() if one.scales] == list(made.scales)
    assert by_name["one.weight"].block == (1, 4, 1, 1)
    assert by_name["head.weight"].scales == by_name["norm.weight"].scales == b""
    other = Network().eval()
    other.load_state_dict(pack.decode(pack.load(pack.save(packed, tmp_path / "model.zs"))))
    check(made.quantisation, capture(other, batch))
    found = {one.name: one.scales for one in pack.encode(made.model).tensors}  # without being given any
    assert all(found[name] for name in ("stem.weight", "own.weight", "two.weight"))


class Shared(nn.Module):
    """One weight in two layers with norms of their own, one that is looked up too, one that is transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.twice = nn.Embedding(16, 16), nn.Linear(16, 16)
        self.turned = nn.Parameter(torch.randn(16, 16))
        self.last = nn.Linear(16, 16)

    def forward(self, tokens: Tensor) -> Tensor:
        x = torch.relu(self.twice(self.table(tokens)))
        x = torch.relu(self.twice(x)) @ self.turned
        return nn.functional.linear(torch.relu(self.last(x)), self.table.weight)


def test_weights_that_are_read_otherwise_or_transposed_stay_as_they_are() -> None:
    torch.manual_seed(0)
    model, tokens = Shared().eval(), torch.arange(16).repeat(2, 1)
    quantisation = run.calibrate(model, [tokens], method="min-max")
    made = run.rounded(model, tokens, quantisation)
    assert set(made.scales) == {"twice.weight", "last.weight"}
    for name in ("table.weight", "turned"):
        assert torch.equal(model.get_parameter(name), made.model.get_parameter(name))
    runs = [
        integer_network(capture(network, tokens), each, limit=1.0)(tokens)[0]
        for network, each in ((model, quantisation), (made.model, made.quantisation))
    ]
    assert torch.equal(*runs)


def test_the_quantisation_of_another_network_is_refused(
    quantised: tuple[Network, Quantisation], batch: Tensor
) -> None:
    torch.manual_seed(1)
    with pytest.raises(EngineError, match="of another network"):
        run.rounded(Network().eval(), batch, quantised[1])


class Normed(nn.Module):
    """A layer whose weight is read by the network as a number, too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) / self.layer.weight.abs().sum()


def test_a_network_that_makes_other_numbers_of_a_rounded_weight_is_refused() -> None:
    torch.manual_seed(0)
    model, x = Normed().eval(), torch.randn(2, 4, 6, 6)
    with pytest.raises(EngineError, match="the weights cannot be rounded: .* Store the weights as they are"):
        run.rounded(model, x, run.calibrate(model, [x], method="min-max"))
