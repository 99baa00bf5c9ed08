"""Thresholds by magnitude for a wanted sparsity."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zeroskip import graph, prune, thresholds
from zeroskip.errors import ModelError, PatternError, RecipeError


def gated(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 16)).eval()


def shares(model: nn.Module, x: torch.Tensor) -> dict[str, tuple[float, int]]:
    """Layer name -> share of its inputs that is zero, its weights."""
    return {
        layer.name: (float((x == 0).float().mean()), layer.weights) for layer, x, _ in graph.record(model, x)
    }


@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.9])
def test_uniform_shares_are_hit_in_every_layer(sparsity: float) -> None:
    # The inputs of later layers change with the thresholds before them: only the first is exact.
    model, x = gated(), torch.randn(500, 32)
    thresholds.hold_(model, prune.teal(model, [x[:250], x[250:]], sparsity, uniform=True))
    found = shares(model, x)
    assert found["0"][0] == pytest.approx(sparsity, abs=1e-4)
    assert all(share == pytest.approx(sparsity, abs=0.15) for share, _ in found.values())


def test_the_greedy_allocation_reaches_the_sparsity_and_moves_the_answers_less_than_uniform() -> None:
    model = gated().requires_grad_(False)
    x = torch.randn(500, 32) * torch.logspace(-2, 1, 32)  # few inputs matter to the first layer
    exact, distance = model(x), {}
    for uniform in (True, False):
        found = prune.teal(model, [x], 0.5, uniform=uniform)
        thresholds.hold_(model, found)
        weighted = shares(model, x)
        total = sum(share * weights for share, weights in weighted.values())
        assert total / sum(weights for _, weights in weighted.values()) == pytest.approx(0.5, abs=0.08)
        distance[uniform] = float((model(x) - exact).square().sum())
        thresholds.release_(model)
    assert distance[False] < 0.8 * distance[True]


def test_zeros_that_are_there_need_no_threshold() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Linear(32, 4))
    assert prune.teal(model, [torch.randn(99, 32)], 0.3) == {"1": 0.0}


def test_the_largest_input_of_a_layer_stays_and_a_layer_that_would_see_none_is_named() -> None:
    x = torch.randn(99, 32)
    one = nn.Linear(32, 4)
    thresholds.hold_(one, prune.teal(one, [x], 1.0))
    assert shares(one, x)[""][0] == pytest.approx(1 - 1 / (99 * 32), abs=1e-6)
    with pytest.raises(RecipeError, match='at 100.0% zeros "2" would see nothing else'):
        prune.teal(gated(), [x], 1.0)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(PatternError, match="not a share from 0 to 1"):
        prune.teal(gated(), [torch.randn(9, 32)], 1.1)
    for model, batches in ((gated(), []), (nn.Conv2d(1, 1, 1), [torch.ones(1, 1, 1, 1)])):
        with pytest.raises(ModelError, match="no linear layer ran, or there was no batch"):
            prune.teal(model, batches, 0.5)

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(32, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.fc(x), x

    with pytest.raises(ModelError, match="the network's answer is no tensor"):
        prune.teal(Pair(), [torch.randn(9, 32)], 0.5)
    assert prune.teal(Pair(), [torch.randn(9, 32)], 0.5, uniform=True)["fc"] > 0
