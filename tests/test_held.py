"""Copies of a network that holds masks, shared weights or thresholds: snapshots, averages and teachers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from zeroskip import codebooks, prune, thresholds
from zeroskip.concepts import Round
from zeroskip.errors import RecipeError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3))


def masked(model: nn.Module) -> nn.Module:
    return prune.hold_(model, prune.choose(model, Round(sparsity=0.5)))


def shared(model: nn.Module) -> nn.Module:
    return codebooks.hold_(model, {"0.weight": 2, "0.bias": 1, "3.weight": 3})


def cut(model: nn.Module) -> nn.Module:
    return thresholds.hold_(model, {"3": 0.4})


@dataclass(frozen=True)
class Kind:
    """One kind of what a network can hold."""

    hold_: Callable[[nn.Module], nn.Module]
    release_: Callable[[nn.Module], nn.Module]
    extra: frozenset[str] = frozenset()


KINDS = {
    "masks": Kind(masked, prune.release_),
    "shared": Kind(shared, codebooks.release_),
    "thresholds": Kind(cut, thresholds.release_, frozenset({"3.input_threshold"})),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: model.get_submodule(name).weight.detach().clone() for name in ("0", "3")}  # type: ignore[operator]


def copied(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model)


def averaged(model: nn.Module) -> nn.Module:
    return AveragedModel(model).module


def averaged_with_buffers(model: nn.Module) -> nn.Module:
    return AveragedModel(model, use_buffers=True).module


COPIES = [copied, averaged, averaged_with_buffers]


def step_(model: nn.Module) -> None:
    """One step of a training."""
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    model.train()(torch.randn(16, 6)).square().sum().backward()
    optimizer.step()
    model.eval()


@pytest.mark.parametrize("copier", COPIES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("first", ["copy", "original"])
def test_a_copy_and_its_original_are_released_in_any_order(
    kind: Kind, copier: Callable[[nn.Module], nn.Module], first: str
) -> None:
    model, x = kind.hold_(network()).eval(), torch.randn(5, 6)
    other = copier(model).eval()
    expected = model(x)
    assert torch.equal(other(x), expected)
    one, two = (other, model) if first == "copy" else (model, other)
    kind.release_(one)
    assert [type(module) for module in one] == [type(module) for module in network()]
    assert torch.equal(two(x), expected)
    assert set(two.state_dict()) == set(network().state_dict()) | kind.extra
    two.load_state_dict(two.state_dict())
    step_(two)
    assert not torch.equal(two(x), expected)
    kind.release_(two)
    for released in (one, two):
        assert set(released.state_dict()) == set(network().state_dict())
        released.load_state_dict(network().state_dict())
        assert torch.equal(released.train(False)(x), network().eval()(x))


def test_a_copy_keeps_its_values_while_the_original_learns(kind: Kind) -> None:
    model, x = kind.hold_(network()).eval(), torch.randn(5, 6)
    best, before = copy.deepcopy(model), model(x)
    step_(model)
    assert torch.equal(best(x), before)
    snapshot = {name: tensor.clone() for name, tensor in best.state_dict().items()}
    model.load_state_dict(snapshot)
    torch.testing.assert_close(model(x), before)
    fresh = thresholds.load_(network(), snapshot).eval()  # a plain network takes what a held one saved
    torch.testing.assert_close(fresh(x), before)


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("ema", [False, True])
def test_an_average_is_the_average_of_what_is_held(kind: Kind, use_buffers: bool, ema: bool) -> None:
    model = kind.hold_(network())
    zeros = {name: weight == 0 for name, weight in weights(model).items()}
    function = get_ema_multi_avg_fn(0.99) if ema else None
    average = AveragedModel(model, multi_avg_fn=function, use_buffers=use_buffers)
    states = []
    for _ in range(3):
        step_(model)
        average.update_parameters(model)
        states.append(weights(model))
    names = {f"module.{name}" for name in model.state_dict()} | {"n_averaged"}
    assert set(average.state_dict()) == names
    wanted = {name: states[0][name] for name in states[0]}
    for count, state in enumerate(states[1:], 2):
        share = 0.01 if ema else 1 / count
        wanted = {name: torch.lerp(wanted[name], state[name], share) for name in wanted}
    kind.release_(average.module)
    kind.release_(model)
    for name, weight in weights(average.module).items():
        torch.testing.assert_close(weight, wanted[name], atol=2e-3, rtol=2e-3)  # codebooks round to float16
        assert torch.equal(weight == 0, zeros[name])


def test_masks_that_change_reach_an_average_and_no_snapshot() -> None:
    model = masked(network())
    snapshot, average = copy.deepcopy(model), AveragedModel(model)
    prune.update_(model, prune.choose(model, Round(sparsity=0.9)))
    average.update_parameters(model)
    counts = [
        sum(int(w.count_nonzero()) for w in prune.weights(one).values()) for one in (model, average.module)
    ]
    assert counts == [7, 7]
    assert sum(int(w.count_nonzero()) for w in prune.weights(snapshot).values()) == 36


def test_a_copy_may_hold_more_than_its_original() -> None:
    model, x = codebooks.hold_(network(), {"0.weight": 2}).eval(), torch.randn(5, 6)
    expected, other = model(x), copy.deepcopy(model)
    codebooks.hold_(other, {"0.bias": 1})
    assert torch.equal(model(x), expected)
    codebooks.release_(model)
    assert len(other[0].bias.unique()) == 2
    codebooks.release_(other)
    assert [type(module) for module in other] == [type(module) for module in network()]


def test_everything_may_be_held_at_once_and_moves_with_the_network() -> None:
    model = cut(masked(network()))
    codebooks.hold_(model, {"0.bias": 1})
    teacher = copy.deepcopy(model).double().eval()
    x = torch.randn(4, 6)
    torch.testing.assert_close(teacher(x.double()).float(), model.eval()(x))
    for release_ in (prune.release_, codebooks.release_, thresholds.release_):
        release_(model)
    assert [type(module) for module in model] == [type(module) for module in network()]
    assert not any(module._state_dict_hooks for module in model)
    assert set(teacher.state_dict()) == set(network().state_dict()) | {"3.input_threshold"}
    teacher.to("meta")
    assert teacher[0].bias.device.type == "meta"


@pytest.mark.parametrize("shape", [(8, 16), (3, 3)])
def test_a_weight_of_another_shape_is_refused_in_plain_names_whatever_holds_it(
    shape: tuple[int, int],
) -> None:
    masked, shared = nn.Sequential(nn.Linear(8, 16)), nn.Sequential(nn.Linear(8, 16))
    prune.hold_(masked, {"0": torch.ones(16, 8, dtype=torch.bool)})
    codebooks.hold_(shared, {"0.weight": 2})
    for model in (masked, shared):
        state = model.state_dict() | {"0.weight": torch.zeros(shape)}
        with pytest.raises(
            RuntimeError, match=rf"size mismatch for 0.weight: it is \({shape[0]}, {shape[1]}\)"
        ):
            model.load_state_dict(state)


def test_nothing_is_held_where_a_name_is_unknown() -> None:
    model = nn.Sequential(nn.Linear(8, 16))
    with pytest.raises(RecipeError, match='no tensor "nope"'):
        codebooks.hold_(model, {"0.weight": 2, "nope": 1})
    assert not hasattr(model[0], "parametrizations")
