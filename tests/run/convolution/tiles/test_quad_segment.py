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
from zeroskip.run.convolution.tiles.quad_job import Scaling, integer_weights
from zeroskip.run.element import FP16, INT8

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
    return Window((size, size), stride, (size // 2,) * 2)


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
        size = tuple(weight.shape[2:])
        y = convolved(q[source], given, size, stride, size[0] // 2, SCALINGS[source])
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
    mean = Operation("o", "mean", ("q",), (3, 1, 1), ("o",))
    subgraph = Subgraph(
        (convert("q", "x", SHAPE), mean), {"x": SHAPE}, {"o": (3, 1, 1)}, scalings={"q": Scaling(0.1, 0)}
    )
    with pytest.raises(EngineError, match='no operation "mean" on tiles computes 8-bit numbers'):
        guarded.lowered(subgraph, HERE)


def test_8_bit_numbers_do_not_stand_beside_fp16() -> None:
    with pytest.raises(EngineError, match="stand beside fp32, not fp16"):
        guarded.lowered(SUBGRAPH, HERE, element=FP16)
