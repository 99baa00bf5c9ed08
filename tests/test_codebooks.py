"""Shared weights: k-means against brute force, and the parametrization that trains centroids."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zeroskip import codebooks
from zeroskip.errors import ModelError, RecipeError

VALUES = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40)


def spread(values: Tensor, centroids: Tensor) -> float:
    """What k-means makes small: the squared distances to the nearest centroid, by brute force."""
    return float((values[:, None].double() - centroids.double()).square().min(dim=1).values.sum())


def optimum(values: Tensor, count: int) -> float:
    """The best of all ways to cut sorted values into `count` intervals."""
    ordered = values.sort().values.double()
    cuts = combinations(range(1, len(ordered)), count - 1)
    return min(
        sum(float((part - part.mean()).square().sum()) for part in ordered.tensor_split(cut)) for cut in cuts
    )


def test_well_separated_values_are_grouped_as_they_lie() -> None:
    values = torch.tensor([-1.0, -1.1, -0.9, 3.0, 3.2, 8.0, 8.1, 8.2])
    torch.testing.assert_close(codebooks.codebook(values, 2), torch.tensor([-1.0, 3.1, 8.1]))
    torch.testing.assert_close(codebooks.codebook(values, 1), torch.tensor([0.64, 8.1]))


@pytest.mark.parametrize("start", codebooks.STARTS)
def test_k_means_ends_near_the_best_of_all_partitions(start: str) -> None:
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    best = reached = 0.0
    for _ in range(20):
        values = torch.randn(14, generator=generator)
        best += optimum(values, 4)
        reached += spread(values, codebooks.codebook(values, 2, start=start))
    assert best <= reached <= 2 * best


def test_linear_keeps_the_few_large_weights_that_density_loses() -> None:
    torch.manual_seed(0)
    weight = torch.randn(10_000) * 0.1
    weight[0] = 2.0
    assert float(codebooks.codebook(weight, 4, start="linear", iterations=3)[-1]) == pytest.approx(2.0)
    assert float(codebooks.codebook(weight, 4, start="density", iterations=3)[-1]) < 0.5


def test_centroids_are_the_means_of_what_they_stand_for() -> None:
    torch.manual_seed(0)
    values = torch.randn(5_000)
    centroids = codebooks.codebook(values, 3, iterations=500)
    codes = codebooks.nearest(values, centroids)
    means = torch.stack([values[codes == one].mean() for one in range(len(centroids))])
    torch.testing.assert_close(centroids, means, atol=2e-3, rtol=0)


@settings(deadline=None)
@given(VALUES, st.integers(1, 6), st.sampled_from(codebooks.STARTS))
def test_any_weights_get_increasing_centroids_within_their_range(
    listed: list[float], bits: int, start: str
) -> None:
    values = torch.tensor(listed)
    centroids = codebooks.codebook(values, bits, start=start)
    assert 1 <= len(centroids) <= 2**bits
    assert (centroids.diff() > 0).all()
    assert values.min() <= centroids[0]
    assert centroids[-1] <= values.max()
    exact = codebooks.codebook(values, 16)
    assert torch.equal(exact, values.unique())


@settings(deadline=None)
@given(VALUES, st.integers(1, 6))
def test_sharing_keeps_zeros_and_moves_nothing_beyond_its_nearest_centroid(
    listed: list[float], bits: int
) -> None:
    weight = torch.tensor(listed)
    shared = codebooks.share(weight, bits)
    assert torch.equal(shared[weight == 0], weight[weight == 0])
    survivors = weight[weight != 0]
    if len(survivors):
        centroids = codebooks.codebook(survivors, bits)
        assert spread(survivors, centroids) == pytest.approx(
            float((shared[weight != 0].double() - survivors.double()).square().sum()), rel=1e-4, abs=1e-6
        )


def test_what_cannot_be_shared_is_refused_by_name() -> None:
    with pytest.raises(RecipeError, match='"kmeans\\+\\+". Choose linear, density, random'):
        codebooks.codebook(torch.ones(3), 2, start="kmeans++")
    with pytest.raises(RecipeError, match="codes of 17 bits"):
        codebooks.codebook(torch.ones(3), 17)
    with pytest.raises(ModelError, match="NaN or Inf"):
        codebooks.codebook(torch.tensor([1.0, float("inf")]), 2)
    with pytest.raises(RecipeError, match='no tensor "fc9.weight"'):
        codebooks.hold_(nn.Linear(2, 2), {"fc9.weight": 2})


def pruned(mlp: nn.Sequential) -> nn.Sequential:
    with torch.no_grad():
        mlp[0].weight[torch.rand(8, 6) < 0.5] = 0.0
        mlp[4].weight.zero_()
    return mlp


def test_a_centroid_s_gradient_is_the_sum_over_the_weights_that_share_it(mlp: nn.Sequential) -> None:
    model = pruned(mlp)
    plain = codebooks.share(model[0].weight.detach(), 2)
    inputs = torch.randn(5, 6)

    plain_model = nn.Sequential(nn.Linear(6, 8), *model[1:])
    plain_model[0].load_state_dict({"weight": plain, "bias": model[0].bias})
    plain_model(inputs).square().sum().backward()

    codebooks.hold_(model, {"0.weight": 2})
    model(inputs).square().sum().backward()
    centroids = model[0].parametrizations.weight.original
    wanted = torch.stack([plain_model[0].weight.grad[plain == one].sum() for one in centroids])
    torch.testing.assert_close(centroids.grad, wanted)


def test_training_moves_centroids_only_and_zeros_stay_zero(mlp: nn.Sequential) -> None:
    model = pruned(mlp)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    codebooks.hold_(model, {"0.weight": 2, "2.weight": 3, "4.weight": 3, "4.bias": 1})
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.randn(16, 6)).square().mean().backward()
        optimizer.step()
    saved = model.state_dict()
    codebooks.release_(model)
    after = model.state_dict()
    assert set(after) == set(before) == set(saved)
    assert torch.equal(after["0.weight"] == 0, before["0.weight"] == 0)
    assert len(after["0.weight"].unique()) == 5  # four centroids and zero
    assert len(after["2.weight"].unique()) == 8
    assert not after["4.weight"].any(), "a layer of zeros has nothing to share"
    assert not torch.equal(after["2.weight"], codebooks.share(before["2.weight"], 3))
    assert torch.equal(after["0.weight"], after["0.weight"].half().float())
    torch.testing.assert_close(after["2.weight"], saved["2.weight"], atol=1e-3, rtol=1e-3)


def test_a_held_model_loads_what_it_saved(mlp: nn.Sequential) -> None:
    model = codebooks.hold_(pruned(mlp), {"0.weight": 2})
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model[0].parametrizations.weight.original.add_(1.0)
    assert not torch.equal(model.state_dict()["0.weight"], saved["0.weight"])
    model.load_state_dict(saved)
    assert torch.equal(model.state_dict()["0.weight"], saved["0.weight"])


def test_values_beyond_float16_stay_float32() -> None:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1e6, -3.0]]))
    codebooks.release_(codebooks.hold_(model, {"weight": 1}))
    assert model.weight.tolist() == [[1e6, -3.0]]
