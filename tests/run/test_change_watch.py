"""Noticing changes. What a program does about them is tested with programs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from zeroskip.run.change_watch import watch


def test_nothing_changes_by_looking_or_running() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    changed = watch(model)
    model(torch.randn(2, 3))
    list(model.parameters())
    assert not changed()


def test_a_change_is_seen_once_and_for_all() -> None:
    model = nn.Linear(3, 3)
    changed = watch(model)
    with torch.no_grad():
        model.bias.add_(1)
        assert changed()
        model.bias.sub_(1)
    assert changed()


def pruned_through_data(model: nn.Linear) -> None:
    weight = model.weight.data
    weight[weight.abs() < weight[weight != 0].abs().median()] = 0


UNCOUNTED: dict[str, Callable[[nn.Linear], object]] = {
    "set to 0": lambda model: model.weight.data.mul_(0),
    "scaled": lambda model: model.weight.data.mul_(1.001),
    "pruned": pruned_through_data,
    "trained": lambda model: model.bias.data.add_(torch.randn(50), alpha=1e-3),
    "by numpy": lambda model: model.weight.detach().numpy().fill(1),
    "transposed in place": lambda model: setattr(model.weight, "data", model.weight.data.t()),
    "in the storage": lambda model: model.weight.untyped_storage().copy_(torch.ones(2500).untyped_storage()),
}


@pytest.mark.parametrize("write", UNCOUNTED)
@pytest.mark.parametrize("zeros", [0.0, 0.95])
def test_what_pytorch_does_not_count_is_noticed_where_it_changes_a_whole_tensor(
    write: str, zeros: float
) -> None:
    torch.manual_seed(0)
    model = nn.Linear(50, 50)
    with torch.no_grad():
        model.weight[torch.rand(50, 50) < zeros] = 0
    changed = watch(model)
    assert not changed()
    UNCOUNTED[write](model)
    assert changed()


def test_a_buffer_of_whole_numbers_or_doubles_is_compared_too() -> None:
    for buffer in (torch.arange(9), torch.arange(9.0, dtype=torch.float64), torch.tensor(3)):
        model = nn.Module()
        model.register_buffer("table", buffer)
        changed = watch(model)
        assert not changed()
        model.get_buffer("table").data.add_(1 << 33)
        assert changed()


def test_what_is_not_noticed_is_named_in_the_docstring() -> None:
    first, second = nn.Linear(100, 100), nn.BatchNorm1d(100)
    model = nn.Sequential(first, second)
    changed = watch(model)
    first.weight.data[50, 3] += 1
    first.weight.data = first.weight.data[:99]
    second.eps = 1.0
    first.register_forward_hook(lambda *_: None)
    model.train()
    assert not changed()
    text = " ".join(str(watch.__doc__).split())
    assert all(word in text for word in (".data", "a few numbers", "cut", "eps", "hooks", "train()"))


KINDS = [
    torch.zeros(0),
    torch.ones(3, dtype=torch.bool),
    torch.randn(8).bfloat16(),
    torch.randn(4, 6)[:, ::2],
    torch.full((3,), float("nan")),
    torch.randn(3, dtype=torch.complex64),
]


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_tensors_of_any_kind_can_be_watched(kind: int) -> None:
    model = nn.Module()
    model.register_buffer("table", KINDS[kind])
    assert not watch(model)()


def test_freed_memory_is_not_read() -> None:
    model = nn.Linear(300, 300)
    changed = watch(model)
    model.weight.untyped_storage().resize_(0)
    assert changed()


def test_memory_that_was_replaced_twice_is_another_even_if_it_could_lie_where_the_first_did() -> None:
    model = nn.Linear(300, 300)
    changed = watch(model)
    for value in (1.0, 2.0):
        model.weight.data = torch.full((300, 300), value)
    assert changed()


def test_watching_from_inference_mode_sees_the_same() -> None:
    model = nn.Linear(3, 3)
    with torch.inference_mode():
        changed = watch(model)
    assert not changed()
    with torch.no_grad():
        model.bias.add_(1)
    assert changed()


def test_tensors_of_inference_mode_are_watched_by_identity_and_address() -> None:
    with torch.inference_mode():
        model = nn.Linear(3, 3)
    changed = watch(model)
    assert not changed()
    model.weight = nn.Parameter(torch.zeros(3, 3))
    assert changed()
