"""Convolutions on tiles in fp16: exact where fp16 is, rounded for each product elsewhere, and refused where it ends.

Whole numbers up to 2048 are exact in fp16, and so is every sum that never exceeds them. Code for AVX512-FP16 is
interpreted (interpreted.py), so that its numbers are known on processors that lack it.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import interpreted
import numpy as np
import pytest
import torch
from byhand import (
    add,
    average_pool,
    both,
    convolution,
    evaluated,
    graph_of,
    layer_of,
    norm,
    relu,
    relu6,
    whole_numbers,
)
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from maps import HALF_MACHINES
from run.drawn import sparse_
from test_random_convolutions import Case, cases, nodes_of
from torch import Tensor, nn
from torch.nn import functional

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.emit import assembly, x86
from zeroskip.emit.python_call import function
from zeroskip.graph import Node, capture, layers
from zeroskip.run.convolution.tiles import baked_steps, kernels, lowering, steps
from zeroskip.run.convolution.tiles.convolution_job import Job
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.half_precision import beyond
from zeroskip.run.convolution.tiles.operations import Subgraph
from zeroskip.run.convolution.tiles.streamed import streamed
from zeroskip.run.convolution.tiles.tiling import alone, on_tiles
from zeroskip.run.dense import pytorch
from zeroskip.run.element import FP16, FP32
from zeroskip.run.output_difference import relative_error

COUNTED = 2048  # up to here fp16 holds every whole number
IN_FP16 = Precision("fp16")
AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma", "f16c"})
SAPPHIRE_RAPIDS = Machine("Sapphire Rapids", "x86_64", AVX512 | {"avx512fp16"}, 1, 64)
NEON = Machine("Neoverse", "aarch64", frozenset({"neon", "fullfp16"}), 1, 16)

reads_half = pytest.mark.skipif(not HALF_MACHINES, reason="this processor cannot read fp16")
MACHINES = st.sampled_from(HALF_MACHINES or [interpreted.HERE])


@pytest.fixture
def machine() -> Iterator[Machine]:
    """Baked code is interpreted on it; all other steps run on this processor."""
    with interpreted.interpreting() as wide:
        yield wide


def sums_of_magnitudes(layer: Layer, x: Tensor) -> Tensor:
    """What no sum of the layer's products exceeds, in whatever order they are added."""
    bias = None if layer.bias is None else layer.bias.abs()
    return pytorch.reference(replace(layer, weight=layer.weight.abs(), bias=bias), x.abs(), False)


def assert_exact(case: Case, *, most_work: int = 1 << 30, **options: Any) -> None:
    nodes, given = nodes_of(case)
    layer = next(node.layer for node in nodes if node.layer is not None)
    work = int(layer.weight.count_nonzero()) * math.prod(case.map) * case.images / 32
    if float(sums_of_magnitudes(layer, given["x"]).max()) + 8 > COUNTED or work > most_work:
        reject()
    _, [(ours, exact)] = both(nodes, given, element=FP16, **options)
    assert torch.equal(ours.double(), exact)


def few(examples: int) -> Callable[..., Any]:
    unpicky = [HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples, deadline=None, suppress_health_check=unpicky)


@reads_half
@few(15)
@given(case=cases(), machine=MACHINES, behind=st.booleans())
def test_15_streamed_convolutions_are_exact_at_every_width(
    case: Case, machine: Machine, behind: bool
) -> None:
    assert_exact(case, machine=machine, method="streamed", behind=behind)


@reads_half
@pytest.mark.slow
@few(700)
@given(case=cases(), machine=MACHINES, behind=st.booleans())
def test_700_more_streamed_convolutions_are_exact_at_every_width(
    case: Case, machine: Machine, behind: bool
) -> None:
    assert_exact(case, machine=machine, method="streamed", behind=behind)


def assert_interpreted_is_exact(case: Case, chunk: tuple[int, int, int], behind: bool) -> None:
    groups, rows, band = chunk
    with mock.patch.multiple(baked_steps, GROUPS=groups, ROWS=rows), interpreted.interpreting() as wide:
        machine = replace(wide, cache_bytes=band)
        assert_exact(case, most_work=3000, machine=machine, method="baked", behind=behind)


CHUNKS = st.sampled_from([(20, 256, 400_000), (1, 16, 400_000), (2, 40, 1_000)])


@reads_half
@few(6)
@given(case=cases(), chunk=CHUNKS, behind=st.booleans())
def test_6_baked_convolutions_are_exact(case: Case, chunk: tuple[int, int, int], behind: bool) -> None:
    assert_interpreted_is_exact(case, chunk, behind)


@reads_half
@pytest.mark.slow
@few(400)
@given(case=cases(), chunk=CHUNKS, behind=st.booleans())
def test_400_more_baked_convolutions_are_exact(case: Case, chunk: tuple[int, int, int], behind: bool) -> None:
    assert_interpreted_is_exact(case, chunk, behind)


@reads_half
@pytest.mark.parametrize("block", [4, 8])
def test_blocks_of_output_channels_that_share_their_zeros_are_exact(block: int) -> None:
    case = Case((3, 3), 1, (1, 1), (1, 1), 1, (5, 32), (9, 7), 2, 0.8, True, "relu", "inside", 5)
    with mock.patch.object(lowering, "streamed", partial(streamed, block=block)):
        assert_exact(case, machine=HALF_MACHINES[0], method="streamed")


# out, in, size, stride, map, share of zeros
LAYERS = {
    "several blocks of rows": (20, 100, 3, 1, (6, 5), 0.9),
    "several groups of outputs": (90, 16, 1, 1, (8, 8), 0.6),
    "stride 2": (9, 8, 3, 2, (16, 32), 0.5),
    "stride 2, in phases": (7, 6, 5, 2, (11, 9), 0.5),
    "one weight in a hundred": (40, 40, 3, 1, (7, 7), 0.99),
}


def drawn(name: str) -> tuple[Layer, Tensor, Tensor]:
    """A layer, its input, and what is added to its output; no numbers that any arithmetic holds exactly."""
    out, inputs, size, stride, shape, zeros = LAYERS[name]
    generator = torch.Generator().manual_seed(len(name))
    weight = torch.randn(out, inputs, size, size, generator=generator)
    weight *= torch.rand(weight.shape, generator=generator) >= zeros
    padding = (size // 2, size // 2)
    layer = layer_of(weight, torch.randn(out, generator=generator), stride=stride, padding=padding)
    x = torch.randn(1, inputs, *shape, generator=generator)
    other = torch.randn(pytorch.reference(layer, x, False).shape, generator=generator)
    return replace(layer, input_shape=x.shape[1:], output_shape=other.shape[1:]), x, other


def with_a_sum(layer: Layer, x: Tensor, other: Tensor) -> tuple[list[Node], dict[str, Tensor]]:
    nodes = [relu("inner", "other"), convolution("conv", "x", layer)]
    return [*nodes, add("sum", "conv", "inner"), relu6("end", "sum")], {"x": x, "other": other}


def rounded_for_each_product(layer: Layer, x: Tensor, other: Tensor) -> np.ndarray:
    """bias + relu(other), then one product after the other, rounded to fp16 each time; then a ReLU6."""
    assert layer.bias is not None
    columns = functional.unfold(x, layer.weight.shape[2:], padding=layer.padding, stride=layer.stride)
    rows = columns[0].numpy().astype(np.float16).astype(np.float64)  # (k, places)
    bias, added = (each.numpy().astype(np.float16) for each in (layer.bias, other[0].flatten(1).relu()))
    sums = bias[:, None] + added
    for k, weights in enumerate(layer.weight.flatten(1).numpy().T):
        mine = np.flatnonzero(weights)
        products = weights[mine, None].astype(np.float16) * rows[k]
        sums[mine] = (sums[mine] + products).astype(np.float16)
    return np.clip(sums, 0, 6).astype(np.float32).reshape(other.shape)


@pytest.mark.skipif(not interpreted.RUNS_AVX512, reason="compares with this processor, which has no AVX-512")
@pytest.mark.parametrize("chunk", [(20, 256), (2, 40)])
@pytest.mark.parametrize("name", LAYERS)
def test_interpreted_code_in_fp32_gives_bit_by_bit_what_the_processor_gives(
    name: str, chunk: tuple[int, int]
) -> None:
    nodes, given = with_a_sum(*drawn(name))
    with mock.patch.multiple(baked_steps, GROUPS=chunk[0], ROWS=chunk[1]):
        _, [(theirs, exact)] = both(nodes, given, interpreted.HERE, method="baked")
        with mock.patch.object(baked_steps, "_driver", interpreted.driver):
            _, [(ours, _)] = both(nodes, given, interpreted.HERE, method="baked")
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours.double(), exact)  # something was rounded


@reads_half
@pytest.mark.parametrize("chunk", [(20, 256), (2, 40)])
@pytest.mark.parametrize("name", LAYERS)
def test_interpreted_code_in_fp16_rounds_after_each_product_and_nowhere_else(
    name: str, chunk: tuple[int, int], machine: Machine
) -> None:
    layer, x, other = drawn(name)
    with mock.patch.multiple(baked_steps, GROUPS=chunk[0], ROWS=chunk[1]):
        _, [(ours, _)] = both(*with_a_sum(layer, x, other), machine, method="baked", element=FP16)
    np.testing.assert_array_equal(ours.numpy(), rounded_for_each_product(layer, x, other))


@reads_half
@pytest.mark.parametrize(
    "kernel", [kernels.STREAMED_FP16, kernels.BAKED_FP16], ids=lambda kernel: kernel.name
)
def test_nan_and_infinity_end_where_fp32_has_them(kernel: Kernel, machine: Machine) -> None:
    layer, x, _ = drawn("several groups of outputs")
    layer.weight[:] = 1
    x[0, 3, 2, 2], x[0, 4, 5, 5], x[0, 5, 6, 1] = math.nan, math.inf, -math.inf
    ours = alone(layer, True, kernel, machine)(x)
    torch.testing.assert_close(ours, pytorch.reference(layer, x, True), rtol=0, atol=0.02, equal_nan=True)
    assert ours[0, :, 2, 2].isnan().all()
    assert ours[0, :, 5, 5].isinf().all()
    assert (ours[0, :, 6, 1] == 0).all()


def test_an_interpreter_that_forgets_one_instruction_is_found_out() -> None:
    code = x86.join(
        x86.load(0, x86.RDI, 0), x86.add(0, x86.RDI, 64, size=2), x86.store(0, x86.RDX, 0), x86.ret()
    )
    memory = np.arange(96, dtype=np.float16)
    text = ctypes.create_string_buffer(code.bytes())
    x, y = memory.ctypes.data, memory.ctypes.data + 128
    interpreted.run(ctypes.addressof(text), x, 0, y, 0, 0, 0)
    assert memory[64:].tolist() == [2 * lane + 32 for lane in range(32)]
    unknown = ctypes.create_string_buffer(bytes.fromhex("62f17c485ec0c3"))  # vdivps
    with pytest.raises(KeyError):
        interpreted.run(ctypes.addressof(unknown), x, 0, y, 0, 0, 0)


@reads_half
@pytest.mark.parametrize("name", LAYERS)
def test_streamed_stays_within_its_tolerance_of_the_layer_with_rounded_numbers(name: str) -> None:
    layer, x, _ = drawn(name)
    kernel = kernels.STREAMED_FP16
    for relu_too in (False, True):
        y = kernel.build(layer, HALF_MACHINES[0], IN_FP16, relu_too)(x)
        distance = (y - kernel.reference(layer, x, relu_too)).abs()
        assert bool((distance <= kernel.tolerance * sums_of_magnitudes(layer, x)).all())
        assert 1e-5 < relative_error(y, pytorch.reference(layer, x, relu_too)) < 5e-3


def texts(kernel: Kernel, machine: Machine) -> dict[str, str]:
    """The LLVM IR of the steps of a small network in fp16, by the functions' names; nothing of it is compiled."""
    found: dict[str, str] = {}

    def kept(ir: str, name: str, *_: Any) -> Any:
        found[name] = ir
        return function(0, 0, None)

    model = sparse_(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Conv2d(8, 8, 3, padding=1, groups=8)), 0.5
    )
    graph = capture(
        nn.Sequential(*model, nn.MaxPool2d(2), nn.Conv2d(8, 4, 1)).eval(), torch.rand(1, 3, 40, 40)
    )
    operations = operations_of(graph)
    chosen = {one.name: kernel for one in operations if one.layer is not None}
    with mock.patch.object(steps, "compile_function", kept):
        on_tiles(graph, operations, chosen, machine, images=1, threads=1)
    return found


@pytest.mark.parametrize(
    ("machine", "triple", "product"),
    [
        (SAPPHIRE_RAPIDS, "x86_64-unknown-linux-gnu", r"vfmadd\d+ph\s.*%zmm"),
        (NEON, "aarch64-linux-gnu", r"fmla\s+v\d+\.8h"),
    ],
    ids=["AVX512-FP16", "NEON"],
)
def test_processors_that_compute_in_fp16_multiply_and_add_in_it(
    machine: Machine, triple: str, product: str
) -> None:
    written = texts(kernels.STREAMED_FP16, machine)
    assert {"enter", "streamed", "depthwise", "pool", "move", "leave"} <= set(written)
    found = {
        name: assembly(written[name], machine, triple=triple) for name in ("enter", "streamed", "depthwise")
    }
    for name in ("streamed", "depthwise"):
        assert re.search(product, found[name])
        assert not re.search(r"vcvtph2ps|fcvtl", found[name])
    assert re.search(r"vcvt\w*ps2ph|fcvtn", found["enter"])


def test_a_processor_without_fp16_arithmetic_converts_and_calls_no_library() -> None:
    machine = replace(SAPPHIRE_RAPIDS, features=AVX512)
    written = texts(kernels.STREAMED_FP16, machine)
    for name in ("streamed", "depthwise", "pool", "move"):
        code = assembly(written[name], machine, triple="x86_64-unknown-linux-gnu")
        assert ("vcvtps2ph" in code) == (name in ("streamed", "depthwise"))  # the others make no new numbers
        assert not re.search(r"(?<!ps2)ph\s", code)
        assert "__" not in code


def test_baked_code_of_2_and_of_4_bytes_is_kept_apart_in_the_cache(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEROSKIP_CACHE", str(tmp_path / "kept"))
    made = []

    def noted(job: Job, machine: Machine) -> Any:
        made.append(job.y.layout.element.name)
        return bake(job, machine)

    bake = baked_steps._bake
    monkeypatch.setattr(baked_steps, "_bake", noted)
    nodes, given = with_a_sum(*drawn("stride 2"))
    values = evaluated(nodes, given)
    operations = operations_of(graph_of(nodes, values, list(given), ["end"]))
    outside: Any = {name: tuple(x.shape[1:]) for name, x in given.items()}
    machine = replace(SAPPHIRE_RAPIDS, features=AVX512 | {"avx512fp16"})
    lowered = partial(
        lowering.lower,
        Subgraph(tuple(operations), outside, {"end": tuple(values["end"].shape[1:])}),
        machine,
        methods={"end": "baked"},
    )
    with mock.patch.object(steps, "compile_function", return_value=function(0, 0, None)):
        for element in (FP32, FP16, FP32, FP16):
            lowered(element=element)
    assert made == ["fp32", "fp16"]


def reached(nodes: list[Node], **given: Tensor) -> str | None:
    values = evaluated(nodes, given)
    operations = operations_of(graph_of(nodes, values, list(given), [nodes[-1].name]))
    return beyond(operations, {name: value.float() for name, value in values.items()})


ONE = torch.ones(1, 1, 2, 2)


@pytest.mark.parametrize(
    ("largest", "nodes", "inputs"),
    [
        ("3.3e+04", [convolution("y", "x", layer_of(ONE[..., :1, :1] * 33000))], {"x": ONE}),
        ("3.3e+04", [convolution("y", "x", layer_of(ONE[..., :1, :1]))], {"x": ONE * -33000}),
        ("4e+04", [convolution("y", "x", layer_of(ONE * torch.tensor([1, -1]) * 100))], {"x": ONE * 100}),
        ("4e+04", [convolution("y", "x", layer_of(ONE, torch.tensor([-2e4])))], {"x": ONE * 5000}),
        ("4e+04", [convolution("c", "x", layer_of(ONE[..., :1, :1])), add("y", "c", "x")], {"x": ONE * 2e4}),
        ("4e+04", [add("y", "x", "o")], {"x": ONE * 2e4, "o": ONE * -2e4}),
        ("4e+04", [norm("y", "x", torch.tensor([200.0]), torch.zeros(1))], {"x": ONE * 200}),
        ("4e+04", [norm("y", "x", torch.zeros(1), torch.tensor([-4e4]))], {"x": ONE}),
        ("4e+04", [average_pool("y", "x", kernel_size=2, divisor_override=1)], {"x": ONE * 1e4}),
        ("nan", [relu("y", "x")], {"x": ONE * math.nan}),
        ("inf", [relu("y", "x")], {"x": ONE * math.inf}),
    ],
    ids=["weight", "input", "sum", "bias", "residual", "two maps", "scale", "shift", "sum of pixels", "nan", "inf"],
)  # fmt: skip
def test_whatever_may_pass_32752_on_the_example_is_too_large_for_fp16(
    largest: str, nodes: list[Node], inputs: dict[str, Tensor]
) -> None:
    why = reached(nodes, **inputs) or ""
    name = "c" if nodes[0].layer is not None else "y"
    assert why.startswith(f"{name} reaches {largest} on the example; fp16 ends at 65504")


@pytest.mark.parametrize("size", [32752.0, 1.0, 2**-12, 0.0])
def test_numbers_up_to_32752_and_down_to_2_to_the_minus_12_are_not(size: float) -> None:
    assert reached([relu("y", "x")], x=ONE * size) is None
    assert reached([convolution("y", "x", layer_of(ONE[..., :1, :1]))], x=ONE * size) is None


def test_a_layer_whose_outputs_all_vanish_in_fp16_is_named() -> None:
    why = reached([convolution("y", "x", layer_of(ONE[..., :1, :1] * 1e-4))], x=ONE * 1e-4)
    assert why == "c reaches only 1e-08 on the example, and fp16 counts in steps of 6e-08 there"


def a_layer(*, terms: int = 9) -> Layer:
    (layer,) = layers(nn.Conv2d(1 + terms // 9, 2, 3), torch.zeros(1, 1 + terms // 9, 8, 8))
    weight = torch.zeros_like(layer.weight).flatten(1)
    weight[0, :terms] = 1
    return replace(layer, weight=weight.view(layer.weight.shape))


@pytest.mark.parametrize(
    ("kernel", "layer", "machine", "asked", "reason"),
    [
        (0, a_layer(), SAPPHIRE_RAPIDS, Precision(), "fp32 arithmetic was asked for"),
        (1, a_layer(), SAPPHIRE_RAPIDS, Precision("bf16"), "bf16 arithmetic was asked for"),
        (0, a_layer(), replace(SAPPHIRE_RAPIDS, features=AVX512), IN_FP16, "its fp16 code is for AVX512-FP16, which"),
        (1, a_layer(), replace(SAPPHIRE_RAPIDS, features=frozenset()), IN_FP16, "the processor cannot read fp16"),
        (1, a_layer(terms=2049), SAPPHIRE_RAPIDS, IN_FP16, "an output sums 2049 products, and in fp16 a sum of equal"),
        (2, a_layer(), SAPPHIRE_RAPIDS, IN_FP16, "no 4 or 8 neighbouring output channels have their zeros in common"),
    ],
)  # fmt: skip
def test_a_refusal_says_why(
    kernel: int, layer: Layer, machine: Machine, asked: Precision, reason: str
) -> None:
    assert (kernels.KERNELS[3 + kernel].accepts(layer, machine, asked) or "").startswith(reason)


def test_what_is_accepted_where() -> None:
    without = replace(SAPPHIRE_RAPIDS, features=AVX512)
    many = a_layer(terms=COUNTED)
    assert kernels.STREAMED_FP16.accepts(many, without, IN_FP16) is None
    assert kernels.STREAMED_FP16.accepts(many, NEON, IN_FP16) is None
    assert kernels.BAKED_FP16.accepts(many, SAPPHIRE_RAPIDS, IN_FP16) == kernels.BAKED.accepts(
        many, SAPPHIRE_RAPIDS, IN_FP16
    )
    assert [each.name for each in kernels.KERNELS[3:6]] == ["baked_fp16", "streamed_fp16", "blocks_fp16"]


@reads_half
def test_a_whole_number_read_and_written_is_what_it_was() -> None:
    nodes = [relu("y", "x")]
    x = whole_numbers(2, 5, 13, 9, seed=0, most=COUNTED)
    _, [(ours, exact)] = both(nodes, {"x": x}, HALF_MACHINES[0], element=FP16)
    assert torch.equal(ours.double(), exact)
