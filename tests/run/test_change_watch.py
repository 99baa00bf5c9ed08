"""Noticing changes. What a program does about them is tested with programs."""

from __future__ import annotations

import torch
from torch import nn

from zeroskip.run.program import watch


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


def test_a_write_through_data_is_not_seen_which_the_docstring_says() -> None:
    model = nn.Linear(3, 3)
    changed = watch(model)
    model.weight.data.mul_(0)
    assert not changed()
    assert ".data" in (watch.__doc__ or "")


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
