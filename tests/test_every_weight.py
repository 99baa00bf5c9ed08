"""Masks and shared values on every parameter with two or more axes: trained, copied, saved, released, packed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from zeroskip import codebooks, graph, pack, prune, retrain
from zeroskip.concepts import Round

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


class Last(nn.Module):
    """A recurrent layer whose first answer is the network's."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Attention(nn.Module):
    """Self attention of 8 features."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, x, x, need_weights=False)[0]


class Lists(nn.Module):
    """Parameters of no layer: in a list, in a dict, and bare."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ParameterList([nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(8, 8))])
        self.named = nn.ParameterDict({"up": nn.Parameter(torch.randn(8, 8))})
        self.codes = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        for matrix in (*self.parts, self.named["up"], self.codes):
            x = torch.tanh(x @ matrix)
        return x


class Pairs(nn.Module):
    """A bilinear layer of a sequence with itself."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Bilinear(8, 8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.both(x, x)


class Cell(nn.Module):
    """A recurrent cell that runs once for each step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 6)
        for step in x.unbind(1):
            state = self.cell(step, state)
        return state


class Transposed(nn.Module):
    """Transposed convolutions and convolutions of one, two and three axes, on (batch, 8, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.up = nn.Conv1d(5, 6, 3), nn.ConvTranspose1d(6, 4, 3)
        self.flat_up, self.deep = nn.ConvTranspose2d(4, 4, 2, groups=2), nn.Conv3d(1, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(torch.relu(self.one(x.transpose(1, 2))))  # (batch, 4, 8)
        return self.deep(self.flat_up(y.unflatten(2, (2, 4)))[:, None])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Last(nn.LSTM(8, 6, num_layers=2, bidirectional=True, proj_size=3, batch_first=True)),
    "gru": lambda: Last(nn.GRU(8, 6, batch_first=True)),
    "rnn": lambda: Last(nn.RNN(8, 6, batch_first=True)),
    "cell": Cell,
    "attention": Attention,
    "encoder": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 2, enable_nested_tensor=False
    ),
    "lists": Lists,
    "bilinear": Pairs,
    "convolutions": Transposed,
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[request.param]()


X = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(1))


def inputs(model: nn.Module) -> Tensor:
    return X[..., :5] if isinstance(model, Transposed) else X


def halves(model: nn.Module) -> dict[str, Tensor]:
    return prune.choose(model, Round(sparsity=dict.fromkeys(prune.weights(model), 0.5)))


def step_(model: nn.Module, steps: int = 2) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        model.train()(inputs(model)).square().sum().backward()
        optimizer.step()
    model.eval()


def zeroed(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    """A plain copy, its weights multiplied with the masks by hand."""
    plain = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in graph.weights(plain).items():
            weight.parameter.mul_(masks[name])
    return plain.eval()


@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_a_masked_network_answers_as_one_whose_weights_were_multiplied(network: nn.Module, mode: str) -> None:
    masks = halves(network)
    expected = zeroed(network, masks).train(mode == "training")(inputs(network))
    prune.hold_(network, masks).train(mode == "training")
    prune.check_reach(network, inputs(network))
    torch.testing.assert_close(network(inputs(network)), expected)
    with torch.inference_mode():  # where torch has paths of its own for attention
        torch.testing.assert_close(network(inputs(network)), expected)


def test_masks_hold_while_everything_that_is_kept_learns(network: nn.Module) -> None:
    masks, names = halves(network), list(network.state_dict())
    prune.hold_(network, masks)
    before = {name: weight.clone() for name, weight in prune.weights(network).items()}
    step_(network)
    answer = network(inputs(network))
    prune.release_(network)
    assert list(network.state_dict()) == names
    assert all(type(module).__name__[:12] != "Parametrized" for module in network.modules())
    torch.testing.assert_close(network(inputs(network)), answer)
    for name, weight in prune.weights(network).items():
        assert torch.equal(weight != 0, masks[name])
        assert not torch.signbit(weight[~masks[name]]).any()
        assert (weight[masks[name]] != before[name][masks[name]]).float().mean() > 0.9
    step_(
        network
    )  # a plain network again: what was pruned may learn, and everything that runs is what it says
    assert all((weight == 0).sum() < 4 for weight in prune.weights(network).values())


def test_what_was_pruned_is_packed_and_loaded_to_the_last_bit(network: nn.Module) -> None:
    prune.hold_(network, halves(network))
    step_(network)
    sparse = retrain.as_sparse(prune.release_(network))
    assert sum(int(mask.sum()) for mask in sparse.masks.values()) == sum(
        int(p.count_nonzero()) for p in network.parameters() if p.ndim > 1
    )
    state = pack.decode(pack.from_bytes(pack.to_bytes(pack.encode(sparse))))
    answer = network(inputs(network))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
    network.load_state_dict(state)
    assert torch.equal(network(inputs(network)), answer)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: AveragedModel(model).module])
@pytest.mark.parametrize("first", ["copy", "original"])
def test_copies_are_trained_and_released_independently(
    network: nn.Module, copier: Callable[[nn.Module], nn.Module], first: str
) -> None:
    plain = copy.deepcopy(network)
    prune.hold_(network, halves(network)).eval()
    step_(network, steps=1)
    answer, other = network(inputs(network)), copier(network).eval()
    torch.testing.assert_close(other(inputs(network)), answer)
    one, two = (other, network) if first == "copy" else (network, other)
    prune.release_(one)
    step_(one)
    torch.testing.assert_close(two(inputs(network)), answer)
    step_(two)
    prune.release_(two)
    for released in (one, two):
        released.load_state_dict(plain.state_dict())
        torch.testing.assert_close(released(inputs(network)), plain.eval()(inputs(network)))


def test_a_masked_network_saves_plain_names_that_a_plain_one_loads(network: nn.Module) -> None:
    fresh = copy.deepcopy(network)
    prune.hold_(network, halves(network))
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fresh.load_state_dict(state)
    torch.testing.assert_close(fresh.eval()(inputs(network)), network.eval()(inputs(network)))
    network.load_state_dict({name: torch.ones_like(tensor) for name, tensor in state.items()})
    for name, weight in prune.weights(network).items():
        assert torch.equal(weight, halves_of(state, network)[name])


def halves_of(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    return {name: (state[weight.stored] != 0).float() for name, weight in graph.weights(model).items()}


def test_frozen_parameters_stay_frozen_behind_a_mask_and_after_it(network: nn.Module) -> None:
    network.requires_grad_(False)
    prune.hold_(network, halves(network))
    assert not any(parameter.requires_grad for parameter in network.parameters())
    prune.release_(network)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_every_weight_can_share_its_values(network: nn.Module) -> None:
    names = {weight.stored: 2 for weight in graph.weights(network).values()}
    codebooks.hold_(network, names)
    step_(network)
    answer, twin = network(inputs(network)), copy.deepcopy(network)
    torch.testing.assert_close(twin(inputs(network)), answer)
    codebooks.release_(network)
    assert all(len(weight.unique()) <= 4 for weight in prune.weights(network).values())
    torch.testing.assert_close(network(inputs(network)), answer, rtol=1e-2, atol=1e-2)  # rounded to float16
