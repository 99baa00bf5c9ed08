"""Measurements against closed forms, brute force and plain PyTorch."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from zeroskip import measure, tasks
from zeroskip.errors import ModelError, PatternError
from zeroskip.models import LeNet5, LeNet300100


def test_lenet_300_100_costs_what_han_2015_table_2_says() -> None:
    costs = measure.cost(LeNet300100(), torch.zeros(1, 1, 28, 28))
    assert {name: one.weights for name, one in costs.items()} == {"fc1": 235_200, "fc2": 30_000, "fc3": 1_000}
    assert sum(one.weights for one in costs.values()) == 266_200
    # The table counts two FLOPs for a multiply-accumulate: 470K, 60K, 2K.
    assert [2 * one.macs for one in costs.values()] == [470_400, 60_000, 2_000]
    assert sum(one.stored_bytes for one in costs.values()) == 4 * (266_200 + 410)


def test_lenet_5_costs_what_han_2015_table_3_says() -> None:
    costs = measure.cost(LeNet5(), torch.zeros(1, 1, 28, 28))
    assert {name: one.weights for name, one in costs.items()} == {
        "conv1": 500, "conv2": 25_000, "fc1": 400_000, "fc2": 5_000,
    }  # fmt: skip
    # 576K, 3200K, 800K, 10K in the table
    assert [2 * one.macs for one in costs.values()] == [576_000, 3_200_000, 800_000, 10_000]


def test_grouped_and_strided_convolutions_are_counted_as_brute_force_does() -> None:
    conv = nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=4)
    macs = measure.cost(nn.Sequential(conv), torch.zeros(1, 8, 9, 7))["0"].macs
    outputs = conv(torch.zeros(1, 8, 9, 7)).numel()
    assert macs == outputs * 2 * 9  # each output sees 8 / 4 inputs at 9 taps


def test_sensitivity_is_the_error_of_a_hand_pruned_copy(mlp: nn.Sequential) -> None:
    x = torch.randn(16, 6)
    truth = mlp(x).detach()

    def error(model: nn.Module) -> float:
        return float((model(x).detach() - truth).abs().mean())

    curves = measure.sensitivity(mlp, error, at=[0.25, 0.75])
    for index in (0, 2, 4):
        copied = copy.deepcopy(mlp)
        weight = copied[index].weight.data
        count = round(0.75 * weight.numel())
        weight.flatten()[weight.abs().flatten().argsort()[:count]] = 0
        assert curves[str(index)][0.75] == pytest.approx(error(copied))


def test_sensitivity_returns_the_model_exactly_even_when_evaluation_fails(mlp: nn.Sequential) -> None:
    before = copy.deepcopy(mlp.state_dict())

    def failing(_: nn.Module) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure.sensitivity(mlp, failing)
    assert all(torch.equal(before[name], tensor) for name, tensor in mlp.state_dict().items())


def test_sensitivity_refuses_what_cannot_be() -> None:
    with pytest.raises(ModelError, match="nothing to prune"):
        measure.sensitivity(nn.ReLU(), lambda _: 0.0)
    with pytest.raises(PatternError, match="not a share"):
        measure.sensitivity(nn.Linear(2, 2), lambda _: 0.0, at=[1.5])


def test_a_histogram_counts_every_weight_that_is_not_zero() -> None:
    weight = torch.randn(50, 50)
    weight[:10] = 0
    found = measure.histogram(weight, bins=11)
    assert sum(found.counts) == 2000
    assert found.edges[0] == pytest.approx(-found.edges[-1])
    assert sum(measure.histogram(torch.zeros(3, 3)).counts) == 0


def test_a_profile_holds_all_measurements_of_a_task() -> None:
    torch.manual_seed(0)
    model = tasks.digits.model()
    profile = measure.profile(model, tasks.digits)
    assert [layer.name for layer in profile.layers] == ["fc1", "fc2", "fc3"]
    assert profile.error == tasks.digits.evaluate(model)
    first = profile.layer("fc1")
    images = tasks.digits.splits().validation.inputs
    assert first.input_sparsity == pytest.approx((images == 0).float().mean().item())
    assert first.output_sparsity == profile.layer("fc2").input_sparsity > 0
    assert first.weight_std == pytest.approx(model.fc1.weight.std(correction=0).item())
    assert len(first.input_sparsity_by_channel) == 64
    assert max(first.sensitivity) == 0.98


def test_a_profile_of_nan_weights_names_the_tensor() -> None:
    model = tasks.digits.model()
    model.fc2.weight.data[3, 3] = float("nan")
    with pytest.raises(ModelError, match=r'"fc2.weight" holds NaN'):
        measure.profile(model, tasks.digits)
