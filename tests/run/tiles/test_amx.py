"""AMX: the numbers from a build in which loops stand for its instructions, the instructions from the code for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from byhand import add, both, concat, convolution, layer_of, relu, relu6, whole_numbers
from emulated import BY_HAND, EMULATED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run.drawn import HERE
from torch import Tensor, nn

from zeroskip import run
from zeroskip.concepts import Layer, Machine, Precision
from zeroskip.emit import assembly
from zeroskip.errors import EngineError
from zeroskip.graph import Node, layers
from zeroskip.run import whole
from zeroskip.run.kernels import amx as kernel
from zeroskip.run.kernels import dense
from zeroskip.run.outputs import share
from zeroskip.run.tiles import amx as step
from zeroskip.run.tiles import lower

BF16 = Precision("bf16")
FEATURES = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma", *step.FEATURES})
SAPPHIRE_RAPIDS = Machine("Sapphire Rapids", "x86_64", FEATURES, 1, 64)
EMULATING = replace(HERE, vector_bytes=64, features=HERE.features | set(step.FEATURES))
HERE_512 = replace(HERE, vector_bytes=64)


@pytest.fixture
def emulated() -> Iterator[None]:
    """AMX in loops, everywhere; the machine to compile for is HERE_512."""
    with (
        mock.patch.object(lower, "amx", partial(step.amx, unit=EMULATED)),
        mock.patch.object(lower, "pairs", partial(step.pairs, unit=EMULATED)),
    ):
        yield


def in_blocks(out: int, inputs: int, size: int, height: int, *, live: float = 0.3, seed: int = 0) -> Tensor:
    """Whole numbers up to 4 in blocks of height x 32 at one tap, of which that share is not zero."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.rand(out // height, inputs // 32, size, size, generator=generator) < live
    mask = blocks.repeat_interleave(height, 0).repeat_interleave(32, 1)
    return whole_numbers(out, inputs, size, size, seed=seed, most=4) * mask


CASES = {
    "1x1": (32, 64, 1, 1, 0, 1, (9, 7)),
    "3x3": (64, 96, 3, 1, 1, 1, (12, 9)),
    "3x3 stride 2": (32, 64, 3, 2, 1, 1, (16, 16)),
    "3x3 stride 2, in phases": (32, 32, 3, 2, 1, 1, (15, 13)),
    "5x5 dilated": (32, 32, 5, 1, 4, 2, (11, 11)),
    "16 outputs": (16, 32, 3, 1, 1, 1, (14, 14)),
    "48 outputs": (48, 32, 3, 1, 1, 1, (20, 17)),
    "1x1 stride 2": (96, 32, 1, 2, 0, 1, (14, 14)),
    "one pixel": (32, 32, 3, 1, 1, 1, (1, 1)),
}


def nodes_of(name: str, *, height: int = 16, most: str = "relu") -> tuple[list[Node], dict[str, Tensor]]:
    """Whole numbers, whose products and sums bfloat16 and float32 hold exactly; a residual, and an activation."""
    out, inputs, size, stride, padding, dilation, shape = CASES[name]
    weight = in_blocks(out, inputs, size, height, seed=len(name))
    rest = {"stride": stride, "padding": (padding, padding), "dilation": (dilation, dilation)}
    nodes = [convolution("conv", "x", layer_of(weight, whole_numbers(out, seed=1), **rest))]  # type: ignore[arg-type]
    x = whole_numbers(2, inputs, *shape, seed=2)
    given = {"x": x, "other": whole_numbers(*nodes[0].function(x.double()).shape, seed=3)}
    ends = {"relu": relu, "relu6": relu6}[most]
    return [relu("inner", "other"), *nodes, add("sum", "conv", "inner"), ends("end", "sum")], given


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("behind", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_convolutions_with_a_sum_and_a_relu_are_exact_in_guarded_memory(name: str, behind: bool) -> None:
    nodes, inputs = nodes_of(name)
    (_, one), [(ours, exact)] = both(nodes, inputs, HERE_512, kernel="amx", behind=behind)
    assert (one.kind, one.relu, one.inputs) == ("conv", True, ("x", "inner"))
    assert torch.equal(ours.double(), exact)
    assert (exact > 0).any()
    assert (exact == 0).any()


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("height", [16, 32])
def test_blocks_of_16_and_of_32_outputs_and_a_relu6(height: int) -> None:
    nodes, inputs = nodes_of("3x3", height=height, most="relu6")
    conv = nodes[1].layer
    assert conv is not None
    assert step.block_height(conv.weight.flatten(1).numpy(), 9) == height
    _, [(ours, exact)] = both(nodes, inputs, HERE_512, kernel="amx")
    assert torch.equal(ours.double(), exact)
    assert ours.max() == 6


@pytest.mark.usefixtures("emulated")
def test_a_sum_that_overwrites_what_it_adds_and_maps_that_share_memory() -> None:
    first = layer_of(in_blocks(32, 32, 1, 16, live=0.7, seed=1), whole_numbers(32, seed=2))
    second = layer_of(in_blocks(32, 32, 3, 16, live=0.7, seed=3), padding=(1, 1))
    # Down to -8..8 again, so that what follows is exact in bfloat16 too.
    nodes = [relu6("a", "x"), convolution("b", "a", first), relu6("c", "b")]
    nodes += [convolution("d", "c", second), add("e", "d", "c"), relu6("f", "e")]
    nodes += [convolution("g", "f", second), add("h", "g", "f")]
    x = {"x": whole_numbers(2, 32, 10, 10, seed=0)}
    chain, [(ours, exact)] = both(nodes, x, HERE_512, kernel="amx", behind=None)
    assert [one.kind for one in chain].count("conv") == 3
    assert torch.equal(ours.double(), exact)


@pytest.mark.usefixtures("emulated")
def test_parts_of_a_concatenation_are_read_and_written_in_their_places() -> None:
    first = layer_of(in_blocks(32, 32, 3, 16, live=0.7, seed=3), padding=(1, 1))
    second = layer_of(in_blocks(48, 64, 3, 16, seed=4), whole_numbers(48, seed=5), padding=(1, 1))
    nodes = [relu6("a", "x"), convolution("b", "a", first), relu6("c", "b")]
    nodes += [concat("both", "c", "a"), convolution("d", "both", second)]
    x = {"x": whole_numbers(3, 32, 10, 7, seed=0)}
    _, [(ours, exact)] = both(nodes, x, HERE_512, kernel="amx")
    assert torch.equal(ours.double(), exact)


@st.composite
def layers_in_blocks(draw: st.DrawFn) -> tuple[Layer, tuple[int, int]]:
    """A convolution with its zeros in blocks, and the height and width of its input."""
    out, inputs = 16 * draw(st.integers(1, 5)), 32 * draw(st.integers(1, 3))
    size, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    padding = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    reach = (size - 1) * dilation + 1
    height, width = (max(draw(st.integers(1, 24)), reach - 2 * pad) for pad in padding)
    weight = in_blocks(
        out, inputs, size, 16, live=draw(st.sampled_from([0.1, 0.5])), seed=draw(st.integers(0, 99))
    )
    rest = {"stride": stride, "padding": padding, "dilation": (dilation, dilation)}
    return layer_of(weight, whole_numbers(out, seed=1), **rest), (height, width)


@pytest.mark.usefixtures("emulated")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=layers_in_blocks(), images=st.integers(1, 4), behind=st.booleans())
def test_25_convolutions_drawn_at_random_are_exact_in_guarded_memory(
    drawn: tuple[Layer, tuple[int, int]], images: int, behind: bool
) -> None:
    layer, shape = drawn
    x = {"x": whole_numbers(images, layer.weight.shape[1], *shape, seed=2)}
    _, [(ours, exact)] = both([convolution("conv", "x", layer)], x, HERE_512, kernel="amx", behind=behind)
    assert torch.equal(ours.double(), exact)


@pytest.mark.usefixtures("emulated")
def test_a_weight_without_a_single_block_leaves_the_bias() -> None:
    bias = whole_numbers(32, seed=1)
    nodes = [convolution("conv", "x", layer_of(torch.zeros(32, 32, 3, 3), bias, padding=(1, 1)))]
    _, [(ours, _)] = both(nodes, {"x": whole_numbers(1, 32, 5, 5, seed=0)}, HERE_512, kernel="amx")
    assert torch.equal(ours, bias[:, None, None].expand(1, 32, 5, 5))


def drawn_layer(*, seed: int = 0) -> tuple[Layer, Tensor]:
    torch.manual_seed(seed)
    model, x = nn.Conv2d(64, 32, 3, padding=1), torch.randn(3, 64, 12, 10)
    model.weight.data *= in_blocks(32, 64, 3, 16, seed=seed) != 0
    (layer,) = layers(model, x)
    return layer, x


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("relu", [False, True])
def test_weights_and_inputs_are_rounded_to_bfloat16_and_nothing_else_is(relu: bool) -> None:
    layer, x = drawn_layer()
    y = kernel.build(layer, HERE_512, BF16, relu)(x)
    magnitude = kernel.reference(replace(layer, weight=layer.weight.abs()), x.abs(), False)
    exact = kernel.reference(layer, x, relu)
    assert bool(((y - exact).abs() <= 1e-6 * magnitude + 1e-6).all())
    assert 5e-4 < share(y, dense.reference(layer, x, relu)) < 2e-2


@pytest.mark.parametrize("unit", [EMULATED, BY_HAND], ids=["here", "by hand"])
def test_a_map_is_rounded_as_pytorch_rounds_it_infinities_and_nan_included(unit: step.Unit) -> None:
    near = np.random.default_rng(0).integers(0x0080_0000, 0x7F80_0000, 16 * 64, dtype=np.uint32)
    near[::3] &= 0xFFFF8000  # halfway between two, or one of them
    x = torch.from_numpy(near.view(np.float32)).reshape(1, 64, 4, 4) * torch.tensor([1.0, -1.0]).repeat(2)
    x[0, :3, 0, 0] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    layer = Layer("c", "conv2d", torch.eye(64)[:, :, None, None], None, (64, 4, 4), (64, 4, 4))
    with (
        mock.patch.object(lower, "amx", partial(step.amx, unit=unit)),
        mock.patch.object(lower, "pairs", partial(step.pairs, unit=unit)),
    ):
        y = kernel.build(layer, HERE_512, BF16, False)(x)
    finite = [channel for channel in range(64) if channel > 31]  # those that share no block with what is not
    expected = x.bfloat16().float()
    assert torch.equal(y[:, finite], expected[:, finite])
    assert bool(y[0, :32, 0, 0].isnan().all())
    torch.testing.assert_close(y[:, :, 1:], expected[:, :, 1:], rtol=0, atol=0)


@pytest.mark.usefixtures("emulated")
def test_a_network_in_bf16_reports_what_amx_rounds_and_runs_without_it_where_it_is_loaded(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 1)).eval()
    for conv in (model[0], model[2]):
        conv.weight.data *= in_blocks(*conv.weight.shape[:3], 16, live=0.5, seed=1) != 0
        assert 0.2 < float((conv.weight != 0).float().mean()) < 0.8
    x = torch.randn(2, 32, 14, 14)
    tiles_win = lambda times: {name: 1.0 - (name == "tiles") for name in times}
    with mock.patch.object(kernel, "permit"), mock.patch.object(whole, "medians", tiles_win):
        program = run.compile(model, x, precision="bf16", machine=EMULATING, kernels=[kernel.KERNEL])
    assert {choice.kernel for choice in program.choices} == {"amx"}
    assert all(1e-4 < choice.error < 2e-2 for choice in program.choices)
    assert 1e-4 < program.error < 2e-2
    torch.testing.assert_close(program(x), model(x), rtol=2e-2, atol=2e-2)
    without = replace(HERE, features=HERE.features - set(step.FEATURES))
    loaded = run.load(run.save(program, tmp_path / "amx.program"), machine=without)
    assert {choice.kernel for choice in loaded.choices} == {"streamed"}
    assert all("has no amx-bf16" in choice.reason for choice in loaded.choices)
    torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-4)


def test_asked_for_fp32_it_stays_away() -> None:
    assert kernel.accepts(drawn_layer()[0], EMULATING, Precision()) == "fp32 arithmetic was asked for"


def test_a_processor_without_it_is_named_by_what_is_missing() -> None:
    without = replace(SAPPHIRE_RAPIDS, features=FEATURES - {"amx-bf16", "amx-tile"})
    assert kernel.accepts(drawn_layer()[0], without, BF16) == "the processor has no amx-bf16"


@pytest.mark.parametrize(
    ("shape", "groups", "reason"),
    [
        ((40, 32, 1, 1), 1, "1 x 32 inputs and 40 outputs are no whole blocks of 32 and 16"),
        ((32, 16, 1, 1), 1, "1 x 16 inputs and 32 outputs are no whole blocks of 32 and 16"),
        ((32, 32, 1, 1), 2, "2 x 32 inputs and 32 outputs are no whole blocks of 32 and 16"),
        ((32, 32, 3, 3), 1, "no block of 16 outputs x 32 inputs at one tap is all zero"),
    ],
)
def test_a_refusal_says_why(shape: tuple[int, ...], groups: int, reason: str) -> None:
    (layer,) = layers(
        nn.Conv2d(shape[1] * groups, shape[0], shape[2:], groups=groups),
        torch.zeros(1, shape[1] * groups, 8, 8),
    )
    assert kernel.accepts(layer, SAPPHIRE_RAPIDS, BF16) == reason


def test_a_linear_layer_is_refused_and_a_convolution_in_blocks_is_not() -> None:
    (linear,) = layers(nn.Linear(32, 32), torch.zeros(1, 32))
    assert kernel.accepts(linear, SAPPHIRE_RAPIDS, BF16) == "computes convolutions, not linear"
    with mock.patch.object(kernel, "permit"):
        assert kernel.accepts(drawn_layer()[0], SAPPHIRE_RAPIDS, BF16) is None


@pytest.mark.skipif("amx-tile" in HERE.features, reason="this processor has AMX")
def test_a_system_that_does_not_let_it_is_a_reason_and_an_error_and_no_crash() -> None:
    layer, _ = drawn_layer()
    why = kernel.accepts(layer, SAPPHIRE_RAPIDS, BF16)
    assert why is not None
    assert "lets no process use AMX" in why
    with pytest.raises(EngineError, match="kernels="):
        kernel.build(layer, SAPPHIRE_RAPIDS, BF16, False)


@pytest.mark.skipif("amx-tile" not in HERE.features, reason="this processor has no AMX")
def test_on_a_processor_with_amx_its_numbers_are_those_of_pytorch_in_bfloat16() -> None:
    layer, x = drawn_layer()
    y, exact = kernel.build(layer, HERE, BF16, True)(x), kernel.reference(layer, x, True)
    torch.testing.assert_close(y, exact, rtol=1e-4, atol=1e-4)


def loops(text: str) -> list[str]:
    """The innermost loops of x86 assembly: from a label to the first jump back to it, without labels between."""
    found = []
    for label, body in re.findall(r"^(\.LBB\w+):\n((?:\t[^\n]*\n|\s*#[^\n]*\n)*)", text, re.M):
        match = re.search(rf"\tj\w+\t{re.escape(label)}\b", body)
        if match:
            found.append(body[: match.end()])
    return found


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("height", "products", "loads"), [(32, {4, 2}, {4, 3}), (16, {3, 1}, {4, 2})])
def test_the_inner_loops_multiply_tiles_in_registers_and_store_none(
    height: int, products: set[int], loads: set[int], residual: bool
) -> None:
    written = step.written(height, residual, True, None, step.AMX)
    text = assembly(written.text(SAPPHIRE_RAPIDS), SAPPHIRE_RAPIDS, triple="x86_64-unknown-linux-gnu")
    inner = [loop for loop in loops(text) if "tdpbf16ps" in loop]
    assert {loop.count("tdpbf16ps") for loop in inner} == products
    assert {loop.count("tileloadd") for loop in inner} == loads
    assert not any("tilestored" in loop or "ldtilecfg" in loop for loop in inner)
    assert text.count("tdpbf16ps") == sum(products)
    assert text.count("tilestored") == sum(products)  # each sum once, and nothing spilled
    assert text.count("tilezero") == (0 if residual else sum(products))
    assert "tilerelease" in text
