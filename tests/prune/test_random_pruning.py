"""Pruning by chance: exact counts, and large weights that survive more often."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip import prune
from zeroskip.errors import PatternError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 7), st.integers(1, 5)), sparsity=st.floats(0, 1), seed=st.integers(0, 99)
)
def test_exactly_the_rounded_share_goes(shape: tuple[int, int], sparsity: float, seed: int) -> None:
    weight = torch.randn(shape, generator=generator(seed))
    mask = prune.probabilistic(weight, sparsity, generator(seed))
    assert mask.dtype == torch.bool
    assert mask.shape == weight.shape
    assert int((~mask).sum()) == round(sparsity * weight.numel())


def test_one_survivor_of_four_is_drawn_in_proportion_to_its_size() -> None:
    weight, draw = torch.tensor([0.0, -1.0, 3.0, -6.0]), generator()
    counts = sum(prune.probabilistic(weight, 0.75, draw).long() for _ in range(4000))
    # 4 standard deviations of a share p from 4000 draws: at most 4 * sqrt(0.25 / 4000) = 0.032.
    assert torch.allclose(counts / 4000, torch.tensor([0.0, 0.1, 0.3, 0.6]), atol=0.032)


def test_the_second_survivor_is_drawn_from_those_left() -> None:
    weight, draw = torch.tensor([1.0, 2.0, 3.0]), generator()
    counts = sum(prune.probabilistic(weight, 1 / 3, draw).long() for _ in range(4000))
    p = weight / 6
    pairs = {(i, j): p[i] * p[j] / (1 - p[i]) for i in range(3) for j in range(3) if i != j}
    expected = torch.stack([sum(pairs[pair] for pair in pairs if i in pair) for i in range(3)])
    assert torch.allclose(counts / 4000, expected, atol=0.032)


def test_zeros_go_before_the_tiniest_weight_and_stay_only_where_nothing_else_is_left() -> None:
    weight = torch.tensor([0.0, 1e-45, -0.0, 1e30, 0.0])
    draw = generator()
    for _ in range(50):
        assert prune.probabilistic(weight, 0.6, draw).tolist() == [False, True, False, True, False]
        assert prune.probabilistic(weight, 0.2, draw)[[1, 3]].all()
    denormal = torch.tensor([0.0, 5e-324, 1.0], dtype=torch.float64)
    assert prune.probabilistic(denormal, 1 / 3, draw).tolist() == [False, True, True]


def test_the_generator_decides_and_the_weight_stays() -> None:
    weight = torch.randn(20, 20, generator=generator(), requires_grad=True)
    first, again, other = (prune.probabilistic(weight, 0.5, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert weight.detach().ne(0).all()


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan")])
def test_a_sparsity_outside_0_to_1_is_refused(sparsity: float) -> None:
    with pytest.raises(PatternError, match="not a share from 0 to 1"):
        prune.probabilistic(torch.ones(3), sparsity, generator())
