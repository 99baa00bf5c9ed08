"""One layer: its kernels proved right and raced, and what is kept of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from drawn import HERE, random_layer
from torch import Tensor

from zeroskip.concepts import Layer, Precision
from zeroskip.errors import EngineError
from zeroskip.run.dense import pytorch
from zeroskip.run.kernels import ALL
from zeroskip.run.linear.zero_weights import sell, spmm
from zeroskip.run.select import layer_timing
from zeroskip.run.select.layer_timing import LayerTiming, time_kernels
from zeroskip.run.timing import CLOSE

LAYER = random_layer(40, 60, 0.9)


def timed(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float], **changes: object) -> LayerTiming:
    """The layer's kernels by these seconds; the others take 1."""
    monkeypatch.setattr(
        layer_timing, "raced", lambda calls, *_: {name: seconds.get(name, 1.0) for name in calls}
    )
    asked = {"machine": HERE, "precision": Precision(), "kernels": ALL, **changes}
    return time_kernels(LAYER, True, torch.randn(3, 60), **asked)


def test_the_fastest_is_chosen_and_among_near_ties_the_first_in_the_order_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    near = 0.5 * (1 + CLOSE / 2)
    choice = timed(monkeypatch, {"spmm": 0.5}).choice
    assert (choice.kernel, choice.reason, choice.seconds["spmm"]) == ("spmm", "fastest", 0.5)
    choice = timed(monkeypatch, {"spmm": 0.5, "sell": near}).choice
    assert (choice.kernel, choice.reason) == ("sell", "spmm is less than 5% faster")
    assert timed(monkeypatch, {"spmm": 0.5, "dense": near}).choice.kernel == "dense"


def test_only_kernels_that_may_yet_be_chosen_are_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = timed(monkeypatch, {"spmm": 0.5, "sell": 0.6})
    assert set(timing.built) == {"dense", "spmm"}
    assert timing.joinable == "spmm"
    assert {"sell", "spmm", "dense"} <= set(timing.choice.seconds)
    timing = timed(monkeypatch, {"dense": 0.1, "sell": 0.6})
    assert set(timing.built) == {"dense", "sell"}


def test_what_kernels_are_compared_with_is_computed_once_for_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Counter[str]()

    def reference(layer: Layer, x: Tensor, relu: bool) -> Tensor:
        calls["relu" if relu else "sums"] += 1
        return pytorch.reference(layer, x, relu)

    kernels = [pytorch.KERNEL, *(replace(each, reference=reference) for each in (sell.KERNEL, spmm.KERNEL))]
    monkeypatch.setattr(layer_timing, "_errors", lambda possible, *_: {each.name: 0.0 for each in possible})
    timed(monkeypatch, {}, kernels=kernels)
    assert calls == {"relu": 1, "sums": 1}


def test_a_kernel_that_computes_something_else_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(sell.KERNEL, build=lambda layer, *_: lambda x: x @ layer.weight.t() + 1.0)
    with pytest.raises(EngineError, match='kernel "sell" computes layer "drawn"'):
        timed(monkeypatch, {}, kernels=[pytorch.KERNEL, wrong])
