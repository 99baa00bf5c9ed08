"""Convolutions of 8-bit numbers equal the integer reference in every bit, and touch no byte outside their maps."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from guarded import GuardedWorkspace, memory
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted import interpreting
from maps import everywhere, read, seen
from quad_reference import activated, convolved, fused, rounded, woven
from run.drawn import HERE, MACHINES

from zeroskip.concepts import Machine
from zeroskip.emit import Function
from zeroskip.emit.llvm import assembly
from zeroskip.errors import EngineError
from zeroskip.run.convolution.tiles import baked_steps
from zeroskip.run.convolution.tiles import listed_quads as listed_quads_module
from zeroskip.run.convolution.tiles import streamed_quads as streamed_quads_module
from zeroskip.run.convolution.tiles.activation import RELU, Activation
from zeroskip.run.convolution.tiles.baked_steps import bake_all
from zeroskip.run.convolution.tiles.layout import Layout, Map
from zeroskip.run.convolution.tiles.operations import Window
from zeroskip.run.convolution.tiles.quad_job import IntegerWeights, QuadEpilogue, QuadJob, quad_weights, quads
from zeroskip.run.convolution.tiles.steps import Step
from zeroskip.run.convolution.tiles.streamed_quads import streamed_quads
from zeroskip.run.element import FP32, INT8, Scaling

RUNS_VNNI = pytest.mark.skipif(
    not INT8.can_be_baked(HERE) or HERE.vector_bytes != 64, reason="this processor lacks AVX512-VNNI"
)
# Also those that multiply 8-bit numbers in other ways: without VNNI, and without anything.
SOME_MACHINES = [
    *MACHINES,
    *(replace(each, features=each.features - {"avx512vnni", "avxvnni"}) for each in MACHINES),
    replace(HERE, features=HERE.features & {"avx512f", "avx", "avx2", "fma"}),
]
ACTIVATIONS = (
    None, RELU, Activation("bounded", (6.0,)), Activation("bounded", (0.3,)), Activation("leaky_relu", (0.125,)),
    Activation("hardswish"),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A convolution with `same` padding; `seed` draws its numbers."""

    channels: tuple[int, int]
    map: tuple[int, int]
    images: int
    size: int
    stride: int
    sparsity: float
    zero_points: tuple[int, int]
    activation: Activation | None
    residual: int | None
    to_fp32: bool
    seed: int
    lanes: int = 16


@st.composite
def cases(draw: st.DrawFn, lanes: int = 16) -> Case:
    zero_points = st.sampled_from([0, 128])
    return Case(
        channels=(draw(st.integers(1, 40)), draw(st.integers(1, 70))),
        map=(draw(st.integers(1, 12)), draw(st.integers(1, 12))),
        images=draw(st.integers(1, 3)),
        size=draw(st.sampled_from([1, 3, 5])),
        stride=draw(st.sampled_from([1, 2])),
        sparsity=draw(st.sampled_from([0.0, 0.5, 0.9, 1.0])),
        zero_points=(draw(zero_points), draw(zero_points)),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        residual=draw(st.one_of(st.none(), zero_points)),
        to_fp32=draw(st.booleans()),
        seed=draw(st.integers(0, 9999)),
        lanes=lanes,
    )


def layout_of(case: Case, channels: int, *, step: int = 1, ring: int = 0, to_fp32: bool = False) -> Layout:
    """Of `step` times as many rows and columns as the outputs have."""
    grid = {16: (1, 4, 4), 8: (2, 2, 2), 4: (1, 2, 2)}[case.lanes]
    tile = -(-case.map[0] // grid[1]) * step, -(-case.map[1] // grid[2]) * step
    height, width = case.map[0] * step, case.map[1] * step
    element = FP32 if to_fp32 else INT8
    return Layout(channels, height, width, case.images, grid, tile, (ring,) * 4, element)


def numbers_of(case: Case) -> tuple[IntegerWeights, np.ndarray, np.ndarray]:
    """The weights, the input (images, in, h, w), and what is added (images, out, h, w)."""
    draw = np.random.default_rng(case.seed)
    (inputs, outputs), (height, width) = case.channels, case.map
    weight = draw.integers(-127, 128, (outputs, inputs, case.size**2)).astype(np.int8)
    weight[draw.random((outputs, 1, case.size**2)).repeat(inputs, 1) < case.sparsity] = 0
    scales = draw.uniform(0.001, 0.02, outputs).astype(np.float32)
    weights = IntegerWeights(weight, scales, draw.normal(0, 0.3, outputs).astype(np.float32))
    x = draw.integers(0, 256, (case.images, inputs, height * case.stride, width * case.stride))
    added = draw.integers(0, 256, (case.images, outputs, height, width))
    return weights, x.astype(np.uint8), added.astype(np.uint8)


def assert_equal(case: Case, make: Callable[[QuadJob], Step], behind: bool = True) -> None:
    weights, q, added = numbers_of(case)
    draw = np.random.default_rng(case.seed + 1)
    x = Scaling(float(draw.uniform(0.001, 0.1)), case.zero_points[0])
    other = None if case.residual is None else Scaling(float(draw.uniform(0.001, 0.1)), case.residual)
    space, padding = GuardedWorkspace(behind), case.size // 2
    window = Window((case.size,) * 2, (case.stride,) * 2, (padding,) * 2)
    exact = convolved(q, weights_with(weights, other), window, x)
    if other is not None:
        exact = fused(added.astype(np.float32), np.float32(other.scale), exact)
    exact = activated(exact, case.activation)
    steps = draw.choice([100, 400, 1e11])  # the last one leaves 32 bits
    output = Scaling(float(np.abs(exact).max() / steps + 1e-12), case.zero_points[1])
    output_or_none = None if case.to_fp32 else output
    x_layout = layout_of(case, quads(case.channels[0]), step=case.stride, ring=padding)
    vectors = case.channels[1] if case.to_fp32 else quads(case.channels[1])
    layouts = (
        x_layout,
        layout_of(case, vectors, to_fp32=case.to_fp32),
        layout_of(case, quads(case.channels[1])),
    )
    maps = [Map(each, space.take_(each.bytes, 0, 0), range(each.channels)) for each in layouts]
    taps = np.array(list(np.ndindex(case.size, case.size))) - padding
    tap_offsets = (taps[:, 0] * x_layout.pitch + taps[:, 1]) * x_layout.place_bytes
    offsets = (np.arange(x_layout.channels)[:, None] * x_layout.vector_bytes + tap_offsets).ravel()
    job = QuadJob(
        "y", quad_weights(weights, offsets, x, other), (case.stride, case.stride), maps[0], maps[1],
        None if other is None else maps[2], QuadEpilogue(other, case.activation, output_or_none),
    )  # fmt: skip
    work = memory(space.bytes, space.guards)
    write_(work, maps[0], woven(q, x), x.word)
    write_(work, maps[2], woven(added, other or x), (other or x).word)
    step = make(job)
    step.code(step.arguments.address, work.ctypes.data)
    places, fill = layouts[1].inside(), 0 if case.to_fp32 else output.word
    expected = exact if case.to_fp32 else woven(rounded(exact, output), output)
    found = read(work, layouts[1], maps[1].base, places, vectors)
    np.testing.assert_array_equal(found, seen(layouts[1], torch.from_numpy(expected), places, fill))


def weights_with(weights: IntegerWeights, residual: Scaling | None) -> IntegerWeights:
    """The weights whose bias takes the residual's zero point away."""
    if residual is None:
        return weights
    less = np.float32(residual.zero_point) * np.float32(residual.scale)
    return replace(weights, bias=weights.bias - less)


def write_(work: np.ndarray, target: Map, images: np.ndarray, fill: int) -> None:
    """Quads (images, quads, height, width) into a map and its ring."""
    layout, places = target.layout, everywhere(target.layout)
    values = seen(layout, torch.from_numpy(images), places, fill)  # (count, quads, lanes)
    first = (target.base + layout.offset(*places.T)) // 4
    inner = np.arange(layout.channels)[:, None] * layout.lanes + np.arange(layout.lanes)
    work.view(np.int32)[first[:, None, None] + inner] = values


def baked(job: QuadJob, machine: Machine = HERE) -> Step:
    return bake_all([job], machine)[0]


@RUNS_VNNI
@settings(max_examples=25, deadline=None)
@given(case=cases(), behind=st.booleans(), groups=st.sampled_from([1, 2, 20]))
def test_25_baked_convolutions_equal_the_reference(case: Case, behind: bool, groups: int) -> None:
    with mock.patch.object(baked_steps, "QUAD_GROUPS", groups):
        assert_equal(case, baked, behind)


@st.composite
def narrow_cases(draw: st.DrawFn) -> tuple[Case, Machine]:
    """A case for a machine with vectors of this or another width."""
    machine = draw(st.sampled_from(SOME_MACHINES))
    return draw(cases(machine.vector_bytes // 4)), machine


@settings(max_examples=15, deadline=None)
@given(drawn=narrow_cases(), behind=st.booleans())
def test_15_streamed_convolutions_equal_the_reference_at_every_width(
    drawn: tuple[Case, Machine], behind: bool
) -> None:
    case, machine = drawn
    assert_equal(case, lambda job: streamed_quads(job, machine), behind)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(drawn=narrow_cases(), behind=st.booleans())
def test_1000_more_streamed_convolutions_equal_the_reference_at_every_width(
    drawn: tuple[Case, Machine], behind: bool
) -> None:
    case, machine = drawn
    assert_equal(case, lambda job: streamed_quads(job, machine), behind)


@pytest.mark.slow
@RUNS_VNNI
@settings(max_examples=2000, deadline=None)
@given(case=cases(), behind=st.booleans(), groups=st.sampled_from([1, 2, 20]))
def test_2000_more_baked_convolutions_equal_the_reference(case: Case, behind: bool, groups: int) -> None:
    with mock.patch.object(baked_steps, "QUAD_GROUPS", groups):
        assert_equal(case, baked, behind)


def test_baked_code_does_the_same_where_its_instructions_are_interpreted() -> None:
    """So that it is tested on processors without AVX512-VNNI, too."""
    for number, (residual, to_fp32) in enumerate([(0, False), (128, False), (None, False), (128, True)]):
        activation = ACTIVATIONS[number]
        case = Case(
            (9, 33), (3, 4), 1, 3, 1, 0.7, (128, 128 * (number % 2)), activation, residual, to_fp32, number
        )
        with interpreting() as machine:
            assert_equal(case, partial(baked, machine=machine))


def test_sums_that_might_not_fit_32_bits_are_refused() -> None:
    weight = np.full((1, 2**17, 1), 127, np.int8)
    one = np.ones(1, np.float32)
    with pytest.raises(EngineError, match="do not fit 32 bits. Use fp32."):
        quad_weights(IntegerWeights(weight, one, one), np.zeros(2**15, np.int64), Scaling(1.0, 0))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e-40])
def test_scales_that_no_kernel_can_use_are_refused(scale: float) -> None:
    with pytest.raises(EngineError, match="8-bit maps have a scale from"):
        Scaling(scale, 0)


def test_zero_points_are_0_or_128() -> None:
    with pytest.raises(EngineError, match="not 0.5 and 7"):
        Scaling(0.5, 7)


WAYS = {
    "VNNI, 512 bits": (("avx512f", "avx512bw", "avx512vl", "avx512vnni", "fma"), 64, r"vpdpbusd.*%zmm"),
    "VNNI, 256 bits": (("avx2", "fma", "avxvnni"), 32, r"vpdpbusd.*%ymm"),
    "AVX2": (("avx2", "fma"), 32, r"vpmaddwd.*%ymm"),
    "SSE2": ((), 16, r"pmaddwd.*%xmm"),
    "NEON, i8mm": (("neon", "dotprod", "i8mm"), 16, r"usdot\s+v\d+\.4s"),
    "NEON, dotprod": (("neon", "dotprod"), 16, r"sdot\s+v\d+\.4s"),
    "NEON": (("neon",), 16, r"(mla|mul)\s+v\d+\.4s"),
}


class WrittenError(Exception):
    """The code is there."""


@pytest.mark.parametrize("side", [4, 24], ids=["few vectors", "many"])
@pytest.mark.parametrize("way", WAYS)
def test_each_processor_multiplies_with_what_it_has_and_calls_no_library(way: str, side: int) -> None:
    features, width, product = WAYS[way]
    arch = "aarch64" if way.startswith("NEON") else "x86_64"
    machine = Machine(way, arch, frozenset(features), 1, width)
    written = []

    def kept(f: Function, _: Machine) -> Callable[..., None]:
        written.append(f.text(machine))
        return print

    def write(job: QuadJob) -> Step:
        streamed_quads(job, machine)
        raise WrittenError  # another processor's code is not run

    case = Case((9, 9), (side, side), 1, 3, 1, 0.5, (128, 0), RELU, 128, False, 0, lanes=width // 4)
    module = listed_quads_module if side == 4 else streamed_quads_module
    with mock.patch.object(module, "compiled", kept), pytest.raises(WrittenError):
        assert_equal(case, write)
    code = assembly(written[0], machine, triple=f"{arch}-unknown-linux-gnu")
    assert re.search(product, code)
    assert not re.search(r"\b(call|callq|bl)\b", code)
