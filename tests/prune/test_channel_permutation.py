"""An order of the channels: the network answers the same, and blocks keep at least as much, at most the optimum."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zeroskip import prune
from zeroskip.errors import ModelError, PatternError
from zeroskip.patterns import keep
from zeroskip.prune.channel_permutation import best_order, share_kept


class Residual(nn.Module):
    """A stream of 8 channels through two blocks with a depthwise convolution, then flatten and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.expand = nn.ModuleList(nn.Conv2d(8, 16, 1) for _ in range(2))
        self.depthwise = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1, groups=16) for _ in range(2))
        self.norm = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(2))
        self.project = nn.ModuleList(nn.Conv2d(16, 8, 1) for _ in range(2))
        self.fc1, self.fc2 = nn.Linear(8 * 4, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for expand, depthwise, norm, project in zip(
            self.expand, self.depthwise, self.norm, self.project, strict=True
        ):
            x = x + project(F.relu6(norm(depthwise(expand(x)))))
        return self.fc2(F.relu(self.fc1(F.max_pool2d(x, 2).flatten(1))))


def residual() -> nn.Module:
    torch.manual_seed(0)
    return Residual().double().eval()


PICTURES = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def done() -> prune.Permuted:
    return prune.permute_channels(residual(), PICTURES, sparsity=0.75)


def test_the_network_answers_the_same_and_every_call_gives_the_same_network(done: prune.Permuted) -> None:
    model = residual()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    again = prune.permute_channels(model, PICTURES, sparsity=0.75)
    assert torch.allclose(done.model(PICTURES), model(PICTURES), rtol=1e-10, atol=1e-12)
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert torch.equal(done.model.state_dict()[name], again.model.state_dict()[name])
    # The same numbers of each parameter, in other places.
    for name, tensor in done.model.state_dict().items():
        assert torch.equal(tensor.flatten().sort().values, before[name].flatten().sort().values)
    assert not torch.equal(done.model.project[0].weight, model.project[0].weight)


def test_what_is_kept_is_what_pruning_keeps_and_what_stays_is_named(done: prune.Permuted) -> None:
    model = residual()
    assert set(done.kept) == {"expand.0", "expand.1", "project.0", "project.1", "fc1", "fc2"}
    for name, shares in done.kept.items():
        for network, share in zip((model, done.model), shares, strict=True):
            weight = network.get_submodule(name).weight.detach().abs()
            kept = (weight * keep(weight, "1x4", 0.75)).sum() / weight.sum()
            assert share == pytest.approx(float(kept), rel=1e-5)
    assert sum(after for _, after in done.kept.values()) > sum(before for before, _ in done.kept.values())
    # Four columns of fc1 are the four places of one channel, which stay together.
    assert done.kept["fc1"][0] == pytest.approx(done.kept["fc1"][1])
    assert done.left == {"stem": "it reads inputs of the network, or what cannot be followed"}


def test_channels_without_two_whole_blocks_stay() -> None:
    model = nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 2)).eval()
    done = prune.permute_channels(model, torch.zeros(1, 3))
    assert done.left["2"] == "no two whole blocks of its inputs can change places"
    assert torch.equal(done.model[0].weight, model[0].weight)


def partitions(channels: list[int], side: int) -> Iterator[list[tuple[int, ...]]]:
    """Every way to put channels into blocks."""
    if not channels:
        yield []
    for others in itertools.combinations(channels[1:], side - 1):
        block = (channels[0], *others)
        for rest in partitions([each for each in channels if each not in block], side):
            yield [block, *rest]


def of_all_orders(matrix: Tensor, side: int, sparsity: float) -> float:
    """What the best order of all keeps."""
    every = partitions(list(range(matrix.shape[1])), side)
    return max(share_kept(matrix[:, list(itertools.chain(*blocks))], side, sparsity) for blocks in every)


def uneven(seed: int, rows: int, channels: int) -> Tensor:
    """A matrix with a few large numbers."""
    return torch.rand(rows, channels, generator=torch.Generator().manual_seed(seed)) ** 3


@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(5, 8, 4), (6, 6, 2), (3, 6, 3)]),
    sparsity=st.sampled_from([0.0, 0.5, 0.75, 1.0]),
)
@settings(max_examples=25, deadline=None)
def test_what_is_kept_lies_between_the_start_and_the_optimum_of_all_orders(
    seed: int, shape: tuple[int, int, int], sparsity: float
) -> None:
    rows, channels, side = shape
    matrix = uneven(seed, rows, channels)
    order = best_order([matrix], side, sparsity)
    assert sorted(order.tolist()) == list(range(channels))
    found = share_kept(matrix[:, order], side, sparsity)
    assert share_kept(matrix, side, sparsity) - 1e-6 <= found
    assert found <= of_all_orders(matrix, side, sparsity) + 1e-6


def test_most_of_what_can_be_gained_is_gained() -> None:
    matrices = [uneven(seed, 6, 8) for seed in range(30)]
    start = sum(share_kept(each, 4, 0.5) for each in matrices)
    found = sum(share_kept(each[:, best_order([each], 4, 0.5)], 4, 0.5) for each in matrices)
    assert found - start > 0.7 * (sum(of_all_orders(each, 4, 0.5) for each in matrices) - start)


def test_blocks_that_were_shuffled_are_found_again() -> None:
    seeded = torch.Generator().manual_seed(0)
    blocks = torch.rand(40, 16, generator=seeded) * (torch.rand(40, 16, generator=seeded) < 0.25)
    ordered = blocks.repeat_interleave(4, dim=1)
    matrix = ordered[:, torch.randperm(64, generator=seeded)]
    order = best_order([matrix], 4, 0.8)
    assert share_kept(matrix, 4, 0.8) < 0.6
    assert share_kept(matrix[:, order], 4, 0.8) > 0.95 * share_kept(ordered, 4, 0.8)


@pytest.mark.parametrize("pattern", ["free", "4x1", "2:4", "1x1x3x3", "channel"])
def test_other_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(PatternError, match='Use one like "1x4"|fixes the sparsity'):
        prune.permute_channels(residual(), PICTURES, pattern)


def test_masks_and_nan_are_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2)).eval()
    with pytest.raises(ModelError, match="still holds masks"):
        prune.permute_channels(
            prune.hold_(copy.deepcopy(model), {"1": torch.ones(2, 8).bool()}), torch.ones(1, 3)
        )
    model[1].weight.data[0, 0] = torch.nan
    with pytest.raises(ModelError, match='weight "1" holds NaN'):
        prune.permute_channels(model, torch.ones(1, 3))


class Hidden(Residual):
    """Reads a weight behind its layer's back."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.fc2.weight[:, 0]


def test_a_network_that_uses_a_weight_in_hidden_ways_keeps_the_order_that_it_has() -> None:
    torch.manual_seed(0)
    model = Hidden().eval()
    done = prune.permute_channels(model, PICTURES.float())
    assert all(map(torch.equal, done.model.state_dict().values(), model.state_dict().values()))
    assert not done.kept
    assert set(done.left.values()) == {
        "the network uses a weight in a way that its operations do not show, so every channel stays"
    }


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ModelError, match=r"the network is a function. Give a torch.nn.Module"):
        prune.permute_channels(lambda x: x, PICTURES.float())  # type: ignore[arg-type]
