"""Segments of 8-bit numbers: quantised where they enter, rings and strides between, fp32 where they leave."""

from __future__ import annotations

from dataclasses import replace

import guarded
import numpy as np
import pytest
import torch
from byhand import layer_of
from quad_reference import activated, convolved, fused, rounded
from run.drawn import HERE, MACHINES
from torch import Tensor
from torch.nn import functional

from zeroskip.concepts import Machine
from zeroskip.errors import EngineError
from zeroskip.run.convolution.tiles.activation import RELU
from zeroskip.run.convolution.tiles.operations import Operation, Subgraph, Window
from zeroskip.run.convolution.tiles.quad_job import integer_weights
from zeroskip.run.element import FP16, INT8, Scaling

SHAPE = (3, 21, 17)
SCALINGS = {
    "q": Scaling(0.031, 128),
    "a": Scaling(0.017, 0),
    "m": Scaling(0.017, 0),
    "b": Scaling(0.02, 128),
    "c": Scaling(0.03, 0),
    "w": Scaling(0.04, 0),
    "s": Scaling(0.05, 128),
    "n": Scaling(0.05, 128),
}
WEIGHTS = {
    "a": (22, 3, 3),
    "b": (22, 22, 3),
    "c": (30, 22, 1),
    "d": (9, 30, 3),
    "s": (22, 22, 3),
    "w": (30, 1, 3),
}


def weight_of(name: str) -> tuple[Tensor, Tensor]:
    outputs, inputs, size = WEIGHTS[name]
    generator = torch.Generator().manual_seed(len(name) + ord(name))
    weight = torch.randn(outputs, inputs, size, size, generator=generator) / inputs**0.5
    weight *= torch.rand(outputs, inputs, 1, 1, generator=generator) > 0.5
    return weight, torch.randn(outputs, generator=generator) / 4


def window(size: int, stride: int = 1) -> Window:
    return Window((size, size), (stride, stride), (size // 2,) * 2)


def conv(name: str, *inputs: str, side: tuple[int, int], stride: int = 1, relu: bool = False) -> Operation:
    weight, bias = weight_of(name)
    size = weight.shape[-1]
    groups = len(weight) if weight.shape[1] == 1 else 1
    layer = layer_of(weight, bias, padding=(size // 2,) * 2, stride=stride, groups=groups)
    return Operation(
        name, "conv", inputs, (len(weight), *side), (name,), window(size, stride), layer,
        activation=RELU if relu else None,
    )  # fmt: skip


def convert(name: str, source: str, shape: tuple[int, int, int]) -> Operation:
    return Operation(name, "convert", (source,), shape, (name,))


def pooled(name: str, source: str, shape: tuple[int, int, int], stride: int) -> Operation:
    return Operation(name, "max", (source,), shape, (name,), window(3, stride))


SMALL, TINY = (11, 9), (6, 5)
SUBGRAPH = Subgraph(
    (
        convert("q", "x", SHAPE),
        conv("a", "q", side=SHAPE[1:], relu=True),
        pooled("m", "a", (22, *SMALL), 2),
        conv("b", "m", "m", side=SMALL),
        conv("c", "b", side=SMALL, relu=True),
        replace(conv("w", "c", side=SMALL, relu=True), kind="depthwise"),
        conv("d", "w", side=SMALL),
        conv("s", "b", side=TINY, stride=2),
        pooled("n", "s", (22, *TINY), 1),
        convert("o", "n", (22, *TINY)),
    ),
    {"x": SHAPE},
    {"d": (9, *SMALL), "o": (22, *TINY)},
    scalings=SCALINGS,
)


def expected(x: Tensor) -> list[np.ndarray]:
    q = {"q": rounded(torch.where(x.isnan(), 0, x).numpy(), SCALINGS["q"])}

    def step(name: str, source: str, *, stride: int = 1, added: str = "", relu: bool = False) -> np.ndarray:
        weight, bias = weight_of(name)
        given = integer_weights(weight.flatten(2).numpy(), bias.numpy())
        if added:
            other = SCALINGS[added]
            less = np.float32(other.zero_point) * np.float32(other.scale)
            given.bias[:] = given.bias - less
        groups = len(weight) if weight.shape[1] == 1 else 1
        y = convolved(q[source], given, window(weight.shape[2], stride), SCALINGS[source], groups)
        if added:
            y = fused(q[added].astype(np.float32), np.float32(SCALINGS[added].scale), y)
        return activated(y, RELU if relu else None)

    def largest(source: str, stride: int) -> np.ndarray:
        values = torch.from_numpy(q[source]).float()
        return functional.max_pool2d(values, 3, stride, 1).numpy().astype(np.uint8)

    q["a"] = rounded(step("a", "q", relu=True), SCALINGS["a"])
    q["m"] = largest("a", 2)
    q["b"] = rounded(step("b", "m", added="m"), SCALINGS["b"])
    q["c"] = rounded(step("c", "b", relu=True), SCALINGS["c"])
    q["s"] = rounded(step("s", "b", stride=2), SCALINGS["s"])
    end = (largest("s", 1).astype(np.float32) - 128) * np.float32(0.05)
    q["w"] = rounded(step("w", "c", relu=True), SCALINGS["w"])
    return [step("d", "w"), end]


def run(machine: Machine, method: str, behind: bool | None) -> None:
    methods = dict.fromkeys(WEIGHTS, method)
    part, guards = guarded.lowered(SUBGRAPH, machine, behind=behind, images=2, methods=methods)
    x = 3 * torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    x[0, 1, 2, 3], x[1, 2, 3, 4], x[1, 0, 0, 0] = torch.nan, torch.inf, -1e30
    for ours, exact in zip(guarded.call(part, guards, [x]), expected(x), strict=True):
        np.testing.assert_array_equal(ours.numpy(), exact)


@pytest.mark.parametrize("behind", [True, False, None], ids=["page after", "page before", "shared memory"])
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{8 * machine.vector_bytes} bits")
def test_a_streamed_segment_equals_the_reference(machine: Machine, behind: bool | None) -> None:
    run(machine, "streamed", behind)


@pytest.mark.skipif(
    not INT8.can_be_baked(HERE) or HERE.vector_bytes != 64, reason="this processor lacks AVX512-VNNI"
)
@pytest.mark.parametrize("behind", [True, False, None], ids=["page after", "page before", "shared memory"])
def test_a_baked_segment_equals_the_reference(behind: bool | None) -> None:
    run(HERE, "baked", behind)


def test_what_has_no_8_bit_form_is_refused() -> None:
    norm = Operation("o", "layer_norm", ("q",), SHAPE, ("o",))
    subgraph = Subgraph(
        (convert("q", "x", SHAPE), norm), {"x": SHAPE}, {"o": SHAPE}, scalings={"q": Scaling(0.1, 0)}
    )
    with pytest.raises(EngineError, match='no operation "layer_norm" on tiles computes these 8-bit numbers'):
        guarded.lowered(subgraph, HERE)


def test_8_bit_numbers_do_not_stand_beside_fp16() -> None:
    with pytest.raises(EngineError, match="stand beside fp32, not fp16"):
        guarded.lowered(SUBGRAPH, HERE, element=FP16)


JOINED = {
    "q": Scaling(0.031, 128),
    "a": Scaling(0.017, 0),
    "b": Scaling(0.02, 128),
    "k": Scaling(0.017, 0),
    "j": Scaling(0.017, 0),
    "v": Scaling(0.016, 0),
    "t": Scaling(0.04, 128),
    "n": Scaling(0.011, 128),
}
TWICE = (24, *SHAPE[1:])


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{8 * machine.vector_bytes} bits")
def test_sums_averages_means_and_concatenations_equal_the_reference(machine: Machine) -> None:
    """a and k go into j in their places, b is rounded again."""
    draw = torch.Generator().manual_seed(1)
    weights = {name: torch.randn(8, 3, 3, 3, generator=draw) / 3 for name in "abk"}

    def made(name: str, relu: bool) -> Operation:
        layer = layer_of(weights[name], None, padding=(1, 1))
        activation = RELU if relu else None
        rest = (8, *SHAPE[1:]), (name,), window(3), layer
        return Operation(name, "conv", ("q",), *rest, activation=activation)

    subgraph = Subgraph(
        (
            convert("q", "x", SHAPE),
            made("a", True),
            made("b", False),
            made("k", True),
            Operation("t", "add", ("a", "b"), (8, *SHAPE[1:]), ("t",)),
            Operation("j", "concat", ("a", "b", "k"), TWICE, ("j",)),
            Operation("v", "average", ("j",), (24, *SMALL), ("v",), window(3, 2)),
            Operation("n", "mean", ("v",), (24, 1, 1), ("n",)),
            convert("o", "v", (24, *SMALL)),
            convert("p", "n", (24, 1, 1)),
            convert("r", "t", (8, *SHAPE[1:])),
        ),
        {"x": SHAPE},
        {"o": (24, *SMALL), "p": (24, 1, 1), "r": (8, *SHAPE[1:])},
        scalings=JOINED,
    )
    part, guards = guarded.lowered(subgraph, machine, images=2)
    x = torch.randn(2, *SHAPE, generator=draw)
    q = {"q": rounded(x.numpy(), JOINED["q"])}
    for name in "abk":
        given = integer_weights(weights[name].flatten(2).numpy(), np.zeros(8, np.float32))
        y = convolved(q["q"], given, window(3), JOINED["q"])
        q[name] = rounded(y if name == "b" else activated(y, RELU), JOINED[name])
    centred = {name: q[name].astype(np.float32) - JOINED[name].zero_point for name in "abk"}
    zeros = -np.float32(128) * np.float32(0.02)
    both = fused(q["a"].astype(np.float32), np.float32(0.017), zeros)
    q["t"] = rounded(fused(q["b"].astype(np.float32), np.float32(0.02), both), JOINED["t"])
    other = rounded(centred["b"] * np.float32(0.02 / 0.017), Scaling(1.0, 0))
    q["j"] = np.concatenate([q["a"], other, q["k"]], 1)
    sums = 9 * functional.avg_pool2d(torch.from_numpy(q["j"]).double(), 3, 2, 1).numpy()
    factor = np.float32(0.017) / np.float32(9)
    q["v"] = rounded(np.rint(sums).astype(np.float32) * factor, JOINED["v"])
    factor = np.float32(0.016) / np.float32(SMALL[0] * SMALL[1])
    mean = q["v"].sum((2, 3), keepdims=True, dtype=np.int64).astype(np.float32) * factor
    q["n"] = rounded(mean, JOINED["n"])
    exact = [
        (q[name].astype(np.float32) - JOINED[name].zero_point) * np.float32(JOINED[name].scale)
        for name in "vnt"
    ]
    for ours, one in zip(guarded.call(part, guards, [x]), exact, strict=True):
        np.testing.assert_array_equal(ours.numpy(), one)
