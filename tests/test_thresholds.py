"""Thresholds on the inputs of layers: what they zero, where they are kept, and that nobody overlooks them."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tiny import Tiny
from torch import Tensor, nn

from zeroskip import graph, pack, prune, run, task_api, thresholds
from zeroskip.concepts import Round
from zeroskip.errors import EngineError, ModelError, RecipeError

TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def identity(theta: float, dtype: torch.dtype = torch.float32) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False).to(dtype)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    thresholds.hold_(layer, {"": theta})
    return layer


@pytest.mark.parametrize("dtype", TYPES)
@given(theta=st.floats(2**-10, 100, width=32))
def test_every_x_below_theta_becomes_0_and_none_at_or_above(dtype: torch.dtype, theta: float) -> None:
    near = torch.tensor(theta, dtype=dtype)
    inf = torch.full_like(near, torch.inf)
    x = torch.stack([torch.nextafter(near, -inf), near, torch.nextafter(near, inf), 2 * near, near / 2])
    x = torch.cat([x, -x])[:, None]
    expected = torch.where(x.double().abs() < theta, 0.0, x.double())
    assert torch.equal(identity(theta, dtype)(x).double(), expected)


@pytest.mark.parametrize("dtype", TYPES)
def test_nan_and_inf_stay_and_zeros_are_positive(dtype: torch.dtype) -> None:
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, -0.1], dtype=dtype)[:, None]
    y = identity(0.5, dtype)(x.repeat(7, 1))[:, 0].view(7, 5)  # 7: the vectors and the rest of them
    assert y[:, 0].isnan().all()
    assert (y[:, 1:3] == x[1:3, 0]).all()
    assert (y[:, 3:] == 0).all()
    assert not y[:, 3:].signbit().any()


def test_behind_a_relu_it_is_fatrelu_with_its_gradient() -> None:
    x = torch.linspace(-2, 2, 41)[:, None].requires_grad_()
    identity(0.75)(x.relu()).sum().backward()
    other = x.detach().clone().requires_grad_()
    F.threshold(other, 0.75 - 1e-6, 0.0).sum().backward()
    assert torch.equal(x.grad, other.grad)  # type: ignore[arg-type]


def test_a_state_dict_has_one_more_number_for_each_and_gives_it_back(mlp: nn.Sequential) -> None:
    fresh = copy.deepcopy(mlp)
    thresholds.hold_(mlp, {"2": 0.3, "4": 0.25})
    state = mlp.state_dict()
    assert set(state) - set(fresh.state_dict()) == {"2.input_threshold", "4.input_threshold"}
    assert thresholds.stored(state) == {"2": pytest.approx(0.3), "4": 0.25}
    x = torch.randn(5, 6)
    assert torch.equal(thresholds.load_(fresh, state)(x), mlp(x))
    assert thresholds.held(fresh) == thresholds.held(mlp)
    plain = {name: tensor for name, tensor in state.items() if "threshold" not in name}
    assert thresholds.held(thresholds.load_(fresh, plain)) == {}


def test_a_bare_layer_has_the_name_of_nothing() -> None:
    layer = thresholds.hold_(nn.Linear(2, 2), {"": 0.5})
    assert thresholds.stored(layer.state_dict()) == {"": 0.5}
    assert list(layer.state_dict()) == ["weight", "bias", "input_threshold"]


def test_weights_without_thresholds_do_not_pass_for_those_with_nor_the_other_way(mlp: nn.Sequential) -> None:
    before = mlp.state_dict()
    state = thresholds.hold_(copy.deepcopy(mlp), {"2": 0.5}).state_dict()
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "2.input_threshold"'):
        mlp.load_state_dict(state)
    thresholds.hold_(mlp, {"2": 0.1})
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "2.input_threshold"'):
        mlp.load_state_dict(before)
    mlp.load_state_dict(before, strict=False)
    assert thresholds.held(mlp) == {"2": pytest.approx(0.1)}
    mlp.load_state_dict(state)
    assert thresholds.held(mlp) == {"2": 0.5}


@pytest.mark.parametrize("value", [float("nan"), -1.0, float("inf")])
def test_a_stored_number_that_is_no_threshold_is_refused(mlp: nn.Sequential, value: float) -> None:
    state = thresholds.hold_(mlp, {"2": 0.5}).state_dict()
    state["2.input_threshold"] = torch.tensor(value)
    with pytest.raises(RuntimeError, match="is no threshold"):
        mlp.load_state_dict(state)
    with pytest.raises(RecipeError, match='"2" cannot have the threshold'):
        thresholds.load_(mlp, state)


def test_a_copy_has_thresholds_of_its_own_and_can_lose_them(mlp: nn.Sequential) -> None:
    thresholds.hold_(mlp, {"2": 0.5})
    copied = copy.deepcopy(mlp)
    thresholds.hold_(copied, {"2": 1.5})
    assert thresholds.held(mlp) == {"2": 0.5}
    thresholds.release_(copied)
    assert thresholds.held(mlp) == {"2": 0.5}
    assert "2.input_threshold" not in copied.state_dict()
    copied.load_state_dict(copied.state_dict())
    assert not copied[2]._forward_pre_hooks
    assert not copied[2]._load_state_dict_pre_hooks


def test_zero_takes_a_threshold_away_and_layers_not_named_keep_theirs(mlp: nn.Sequential) -> None:
    thresholds.hold_(mlp, {"0": 0.5, "2": 0.5})
    assert thresholds.held(thresholds.hold_(mlp, {"2": 0.0})) == {"0": 0.5}


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), 1e39, "0.1", True, None])
def test_what_is_no_threshold_is_refused_before_anything_changes(mlp: nn.Sequential, value: object) -> None:
    with pytest.raises(RecipeError, match='"2" cannot have the threshold'):
        thresholds.hold_(mlp, {"0": 0.5, "2": value})  # type: ignore[dict-item]
    with pytest.raises(
        RecipeError, match='no linear or convolution layer "1" for a threshold. It has 0, 2, 4'
    ):
        thresholds.hold_(mlp, {"0": 0.5, "1": 0.5})
    assert thresholds.held(mlp) == {}


def test_whoever_listens_at_a_layer_sees_the_zeros(mlp: nn.Sequential) -> None:
    x, heard = torch.randn(50, 6), []
    mlp[0].register_forward_pre_hook(lambda module, args: heard.append(args[0]))
    thresholds.hold_(mlp, {"0": 0.5})
    (_, seen, _), *_ = graph.record(mlp, x)
    assert torch.equal(seen, F.hardshrink(x, 0.5 - 1e-7))
    assert torch.equal(heard[0], seen)
    named: Tensor = mlp[0](input=x)
    assert torch.equal(named, mlp[0](x))


def test_masks_and_thresholds_hold_together_in_any_order(mlp: nn.Sequential) -> None:
    masks, x = prune.choose(mlp, Round(sparsity=0.5)), torch.randn(5, 6)
    other = copy.deepcopy(mlp)
    prune.hold_(thresholds.hold_(mlp, {"2": 0.2}), masks)
    thresholds.hold_(prune.hold_(other, masks), {"2": 0.2})
    assert torch.equal(mlp(x), other(x))
    assert set(mlp.state_dict()) == set(other.state_dict())
    for model in (mlp, other):
        thresholds.hold_(model, {"2": 0.4})
        prune.release_(model)
        assert thresholds.held(model) == {"2": pytest.approx(0.4)}
        model.load_state_dict(model.state_dict())
    assert torch.equal(mlp(x), other(x))


def test_export_sees_one_operation_and_the_engine_runs_it(mlp: nn.Sequential) -> None:
    thresholds.hold_(mlp, {"2": 0.2})
    x = torch.randn(7, 6)
    nodes = graph.capture(mlp, x).nodes
    assert [node.op for node in nodes] == [
        "aten.linear.default", "aten.hardshrink.default", "aten.linear.default", "aten.linear.default"
    ]  # fmt: skip
    torch.testing.assert_close(run.compile(mlp, x)(x), mlp(x))


def test_a_program_notices_a_threshold_that_came_changed_or_went(mlp: nn.Sequential) -> None:
    x = torch.randn(4, 6)
    for theta in (0.1, 0.2, 0.0):
        program = run.compile(mlp, x)
        program(x)
        thresholds.hold_(mlp, {"2": theta})
        with pytest.raises(EngineError):
            program(x)


def test_thresholds_are_packed_with_the_weights_and_a_task_s_model_has_them_again() -> None:
    task = Tiny()
    model = thresholds.hold_(task.model().eval(), {"0": 0.5, "2": 0.25})
    again = task_api.model(task, pack.decode(pack.encode(model)))
    x = torch.randn(9, 8)
    assert thresholds.held(again) == {"0": 0.5, "2": 0.25}
    assert torch.equal(again(x), model(x))


def test_thresholds_of_another_network_are_refused_as_its_weights_are() -> None:
    state = {**Tiny().model().state_dict(), "9.input_threshold": torch.tensor(0.5)}
    with pytest.raises(ModelError, match='do not fit the network of tiny: the network has no .* layer "9"'):
        task_api.model(Tiny(), state)


def test_a_stored_threshold_that_is_no_single_number_is_refused_by_name() -> None:
    state = thresholds.hold_(Tiny().model(), {"0": 0.5}).state_dict() | {"0.input_threshold": torch.ones(2)}
    with pytest.raises(RecipeError, match=r"0.input_threshold holds 2 numbers"):
        thresholds.load_(Tiny().model(), state)


def test_a_network_s_own_buffer_of_that_name_is_not_taken_for_a_threshold() -> None:
    class Spiking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("input_threshold", torch.tensor(2.0))

    def network() -> nn.Sequential:
        return nn.Sequential(nn.Linear(3, 2), Spiking())

    state = thresholds.hold_(network(), {"0": 0.5}).state_dict()
    assert thresholds.held(thresholds.load_(network(), state)) == {"0": 0.5}
