"""Linear layers that are alike: one is timed for all, and every one is proved."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from drawn import HERE, random_layer
from torch import Tensor, nn

from zeroskip import run
from zeroskip.concepts import Layer, Precision
from zeroskip.errors import EngineError
from zeroskip.run.dense import pytorch
from zeroskip.run.kernels import BY_NAME
from zeroskip.run.linear.zero_weights import spmm
from zeroskip.run.select import layer_timing
from zeroskip.run.select.alike_layers import likeness
from zeroskip.run.select.layer_timing import time_kernels, timing_of_alike

KERNELS = [pytorch.KERNEL, spmm.KERNEL]
HERE_IN_FP32 = HERE, Precision()


def layer(zeros: float = 0.9, *, seed: int = 0, name: str = "fc") -> Layer:
    """A layer of 256 x 256 weights, zeros anywhere."""
    torch.manual_seed(seed)
    return replace(random_layer(256, 256, zeros), name=name)


def inputs(zeros: float = 0.0) -> Tensor:
    x = torch.rand(3, 256) + 0.1
    return x * (torch.rand(x.shape) >= zeros)


def blocks(shape: tuple[int, int]) -> Layer:
    """The same share of zeros, in blocks."""
    random = layer()
    kept = torch.rand(256 // shape[0], 256 // shape[1]) >= 0.9
    kept = kept.repeat_interleave(shape[0], 0).repeat_interleave(shape[1], 1)
    return replace(random, weight=torch.randn(256, 256) * kept)


def test_layers_are_alike_by_sizes_share_of_zeros_and_where_zeros_lie() -> None:
    known = likeness(layer(), True, inputs())
    assert known is not None

    def is_near(other: Layer, relu: bool = True, x: Tensor | None = None) -> bool:
        found = likeness(other, relu, inputs() if x is None else x)
        return found is not None and known.is_near(found)

    assert is_near(layer(seed=1))
    assert not is_near(layer(0.8))
    assert not is_near(layer(), relu=False)
    assert not is_near(replace(layer(), bias=None))
    assert not is_near(layer(), x=torch.ones(4, 256))
    for shape in (1, 4), (4, 1), (64, 1), (1, 64), (256, 1), (1, 256):
        assert not is_near(blocks(shape))


def test_layers_that_are_small_or_see_zeros_are_timed_by_themselves() -> None:
    assert likeness(random_layer(255, 256, 0.9), True, inputs()) is None
    assert likeness(layer(), True, inputs(zeros=0.3)) is None


def test_one_of_several_that_are_alike_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    raced, races = layer_timing.raced, list[set[str]]()
    monkeypatch.setattr(layer_timing, "raced", lambda *args: races.append({*args[0]}) or raced(*args))
    model = nn.Sequential(*(nn.Linear(256, 256) for _ in range(4))).eval()
    for number, each in enumerate(model):
        weight = layer(0.5 if number == 2 else 0.9, seed=number).weight
        nn.init.zeros_(each.weight).data += weight
    x = torch.randn(3, 256)
    program = run.compile(model, x, kernels=KERNELS)
    assert races == [{"dense", "spmm"}] * 2
    first, *others = program.choices
    assert [each.reason == "as in 0, which is alike" for each in others] == [True, False, True]
    assert others[0].seconds == first.seconds
    assert [each.sparsity for each in program.choices] == [
        pytest.approx(zeros, abs=0.01) for zeros in (0.9, 0.9, 0.5, 0.9)
    ]
    with torch.no_grad():
        expected = model(x)
        assert (program(x) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_layer_that_is_alike_is_proved_too() -> None:
    def build(known: Layer, *_: object) -> object:
        return lambda x: x @ known.weight.t() + (known.bias if known.name == "first" else 1.0)

    wrong = replace(spmm.KERNEL, build=build)
    asked = {"machine": HERE, "precision": Precision(), "kernels": [wrong]}
    known = time_kernels(layer(name="first"), False, inputs(), **asked)
    with pytest.raises(EngineError, match='kernel "spmm" computes layer "second"'):
        timing_of_alike(known, layer(seed=1, name="second"), False, inputs(), HERE_IN_FP32, [wrong])


def test_a_layer_that_other_kernels_accept_is_not_alike() -> None:
    asked = {"machine": HERE, "precision": Precision()}
    known = time_kernels(layer(), True, inputs(), **asked, kernels=KERNELS)
    refusing = [pytorch.KERNEL, replace(spmm.KERNEL, accepts=lambda *_: "is not for this one")]
    assert timing_of_alike(known, layer(seed=1), True, inputs(), HERE_IN_FP32, refusing) is None
    assert BY_NAME["spmm"] in known.candidates
