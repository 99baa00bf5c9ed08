"""What every kernel must do, whatever it is called and however it computes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pytest
import torch
from run.drawn import MACHINES
from run.guard_pages import all_memory_guarded, guarded_copy
from run.layers_of_all_kinds import LAYERS, OTHERS, inputs
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.emit import assembly, compile_function
from zeroskip.errors import EngineError
from zeroskip.run.convolution.tiles import kernels as tiles
from zeroskip.run.convolution.zero_inputs import kernels as zero_inputs
from zeroskip.run.dense import pytorch
from zeroskip.run.kernels import ALL, BY_NAME
from zeroskip.run.linear.stored_weights import rounded

OF_LAYERS = {name: kernel for name, kernel in BY_NAME.items() if kernel.layout != "steps"}
# Processors that this one need not be: code for them is made here, not run.
BARE = Machine("no features at all", "x86_64", frozenset(), 1, 16)
AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi2", "avx512fp16", "avx512vnni"}
AVX2 = {"sse4.2", "popcnt", "avx", "avx2", "fma", "f16c", "bmi", "bmi2"}
ABLE = Machine("AVX512-FP16", "x86_64", frozenset(AVX2 | AVX512), 4, 64)
NEAR = 3e-6  # share of sum |weight x input| that sums in float32 may be away from exact ones
SMALL_CACHE = 1 << 12  # bytes: the layers here are small, and some kernels are for weights beyond the caches


def asked_for(kernel: Kernel) -> Precision:
    """The precision that allows what the kernel rounds."""
    return Precision(kernel.element, kernel.weights if kernel.element == "fp32" else "fp32")


def accepted(kernel: Kernel, machine: Machine) -> list[Layer]:
    return [layer for layer in LAYERS if kernel.accepts(layer, machine, asked_for(kernel)) is None]


@dataclass(frozen=True)
class Case:
    """A kernel on a machine; `runs` if this computer has what its code needs."""

    kernel: Kernel
    machine: Machine
    runs: bool

    def __str__(self) -> str:
        how = "" if self.runs else "-made, not run: this CPU lacks its instructions"
        return f"{self.kernel.name}-{8 * self.machine.vector_bytes}bit{how}"


def cases() -> Iterator[Case]:
    """Every kernel at every width at which it runs here; where it runs at none, on the machine it is for."""
    for kernel in OF_LAYERS.values():
        machines = [replace(machine, cache_bytes=SMALL_CACHE) for machine in MACHINES]
        fitting = [machine for machine in machines if accepted(kernel, machine)]
        yield from [Case(kernel, machine, True) for machine in fitting]
        if not fitting:
            yield Case(kernel, replace(ABLE, cache_bytes=SMALL_CACHE), False)


CASES = list(cases())
for_every_kernel = pytest.mark.parametrize("kernel", OF_LAYERS.values(), ids=OF_LAYERS)
on_every_machine = pytest.mark.parametrize("case", [case for case in CASES if case.runs], ids=str)


@pytest.fixture(autouse=True)
def zeros_are_always_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No timing decides who computes, and code made twice for the same layer is compiled once."""
    monkeypatch.setattr(zero_inputs, "break_even", lambda *_: 1.0)
    monkeypatch.setenv("ZEROSKIP_CACHE", str(tmp_path_factory.getbasetemp() / "code"))


def test_no_two_kernels_have_the_same_name() -> None:
    kernels = (*ALL, *tiles.DEPTHWISE_KERNELS)
    assert sorted(kernel.name for kernel in kernels) == sorted(BY_NAME)
    assert {kernel.layout for kernel in kernels} == {"rows", "channels_last", "tiles", "steps"}


def built(case: Case, layer: Layer, relu: bool) -> Callable[[Tensor], Tensor]:
    return case.kernel.build(layer, case.machine, asked_for(case.kernel), relu)


def assert_right(kernel: Kernel, layer: Layer, relu: bool, x: Tensor, y: Tensor) -> None:
    """`y` is what the reference computes, up to `tolerance` of the sum of all |weight x input|.

    Code of our own that sums in float32 is compared with double precision, and is nearer.
    """
    where, weight = f"{layer.name}, relu={relu}, {len(x)} examples", rounded(kernel.weights, layer.weight)
    expected = kernel.reference(layer, x, relu)
    bias = None if layer.bias is None else layer.bias.abs()
    magnitude = kernel.reference(replace(layer, weight=layer.weight.abs(), bias=bias), x.abs(), False)
    assert (y.shape, y.dtype) == ((len(x), *layer.output_shape), torch.float32), where
    assert bool(((y - expected).abs() <= kernel.tolerance * magnitude).all()), where
    if kernel.element == "fp32" and kernel.method != "dense":
        bias = None if layer.bias is None else layer.bias.double()
        exact = pytorch.reference(replace(layer, weight=weight.double(), bias=bias), x.double(), relu)
        assert bool(((y - exact).abs() <= NEAR * magnitude).all()), where


def ways(case: Case, number: int) -> list[tuple[bool, bool]]:
    """A ReLU, and memory that begins or ends at a guard page: both ways, or one of them on every other width."""
    both = [(False, True), (True, False)]
    machines = [each.machine for each in CASES if each.runs and each.kernel is case.kernel]
    return both if len(machines) == 1 else [both[(number + machines.index(case.machine)) % 2]]


@on_every_machine
def test_a_kernel_computes_its_reference_inside_its_own_memory(case: Case) -> None:
    for number, layer in enumerate(accepted(case.kernel, case.machine)):
        for relu, at_end in ways(case, number):
            with all_memory_guarded(at_end=at_end):
                function = built(case, layer, relu)
                for count in (0, 1, 3, 17):
                    x = inputs(layer, count)
                    given = guarded_copy(x, at_end=at_end)
                    assert_right(case.kernel, layer, relu, x, function(given))
                    assert torch.equal(given, x), "what is given is only read"


@on_every_machine
def test_an_input_that_is_not_finite_does_what_it_does_in_pytorch_but_where_a_weight_is_zero(
    case: Case,
) -> None:
    for layer in accepted(case.kernel, case.machine):
        function, x = built(case, layer, False), inputs(layer, 3)
        for value in (torch.nan, torch.inf, -torch.inf) if x.numel() else ():
            x[1].view(-1)[x[1].numel() // 2] = value
            assert_like_pytorch(case.kernel, layer, x, function(x))


def assert_like_pytorch(kernel: Kernel, layer: Layer, x: Tensor, y: Tensor) -> None:
    """`y` is NaN or infinite where the reference is, or what it were without such inputs that meet no weight."""
    weight, cleaned = rounded(kernel.weights, layer.weight), x.nan_to_num(0, 0, 0)
    expected, without = (kernel.reference(layer, each, False) for each in (x, cleaned))
    met = pytorch.reference(
        replace(layer, weight=(weight != 0).float(), bias=None), (~x.isfinite()).float(), False
    )
    skipped = expected.isnan() & (met == 0) & ~y.isnan()
    assert not skipped.any() or kernel.skips in ("weights", "both"), layer.name
    far = kernel.tolerance * float(cleaned.abs().sum() * weight.abs().sum() + 1)
    expected = torch.where(skipped, without, expected)
    torch.testing.assert_close(y, expected, rtol=kernel.tolerance, atol=far, equal_nan=True)


def usual_layer(case: Case) -> Layer:
    """The layer with the most weights that the kernel accepts."""
    return max(accepted(case.kernel, case.machine), key=lambda layer: layer.weights)


@on_every_machine
def test_inputs_of_other_strides_and_linear_ones_of_more_axes_are_taken_as_they_are_meant(case: Case) -> None:
    layer = usual_layer(case)
    function, x = built(case, layer, True), inputs(layer, 4)
    wide = torch.zeros(8, *layer.input_shape[:-1], 2 * layer.input_shape[-1])
    wide[::2, ..., ::2] = x
    forms = [wide[::2, ..., ::2], x.transpose(0, -1).contiguous().transpose(0, -1)]
    forms += [x.contiguous(memory_format=torch.channels_last)] if x.ndim == 4 else []
    for form in forms:
        assert_right(case.kernel, layer, True, x, function(form))
    if layer.op == "linear":
        assert_right(case.kernel, layer, True, x, function(x.view(2, 1, 2, -1)).flatten(0, 2))
        assert function(x.view(2, 2, -1)[:0]).shape == (0, 2, *layer.output_shape)


@on_every_machine
def test_a_wrong_input_is_refused_before_machine_code_reads_it(case: Case) -> None:
    layer = usual_layer(case)
    function, x = built(case, layer, False), inputs(layer, 2)
    for wrong in (x[..., :-1], x.double()) if case.kernel.method != "dense" else ():
        with pytest.raises(EngineError, match=f"{layer.input_shape[-1]}"):
            function(wrong)


@on_every_machine
def test_4_threads_may_run_the_same_layer_at_once(case: Case) -> None:
    layer = usual_layer(case)
    function, examples = built(case, layer, True), [inputs(layer, 2 + number) for number in range(12)]
    alone = [function(x) for x in examples]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(torch.equal, pool.map(function, examples), alone))


class Made:
    """Stands in for code that was made, and is not run: it has an address, which nobody may call."""

    __self__ = 1 << 41

    def __init__(self, ir: str, name: str, machine: Machine, count: int) -> None:
        assert f"{name}:" in assembly(ir, machine, triple="x86_64-unknown-linux-gnu")

    def __call__(self, *_: int) -> None:
        raise AssertionError("this computer lacks its instructions")


@pytest.mark.parametrize("case", [case for case in CASES if not case.runs], ids=str)
def test_code_for_instructions_that_this_computer_lacks_is_made(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [each for name, each in sys.modules.items() if name.startswith("zeroskip.run")]:
        if getattr(module, "compile_function", None) is compile_function:
            monkeypatch.setattr(module, "compile_function", Made)
    layers = accepted(case.kernel, case.machine)
    assert layers
    for layer in layers:
        assert callable(built(case, layer, True))


@for_every_kernel
def test_a_kernel_says_why_it_refuses_other_layers_and_precisions(kernel: Kernel) -> None:
    assert any(case.kernel is kernel for case in CASES)
    kinds = {layer.op for layer in accepted(kernel, replace(ABLE, cache_bytes=SMALL_CACHE))}
    foreign = [replace(layer, op="lstm") for layer in LAYERS] + [
        layer for layer in LAYERS if layer.op not in kinds
    ]
    for machine in (BARE, ABLE, *MACHINES):
        for layer in foreign:
            assert is_sentence(kernel.accepts(layer, machine, asked_for(kernel)))
        for precision in (Precision(), Precision("bf16", "int8"), Precision("fp16", "codes")):
            for layer in LAYERS:
                reason = kernel.accepts(layer, machine, precision)
                assert is_sentence(reason) or (reason is None and allows(precision, kernel))


@for_every_kernel
@pytest.mark.parametrize("layer", OTHERS, ids=lambda layer: layer.op)
def test_convolutions_of_other_kinds_are_computed_on_tiles_or_have_no_sparse_kernel(
    kernel: Kernel, layer: Layer
) -> None:
    reason = kernel.accepts(layer, ABLE, asked_for(kernel))
    if kernel.method == "dense":
        assert reason in (None, f"a layout of images, and {layer.op} has none")
    elif kernel.layout == "tiles" and layer.op in tiles.ON_TILES:
        in_fp32 = kernel.element == "int8" and layer.transposed
        assert reason is None or kernel.method in ("blocks", "depthwise") or in_fp32
    else:
        assert reason == f"{layer.op} has no sparse kernel"


def allows(precision: Precision, kernel: Kernel) -> bool:
    if kernel.element != "fp32":
        return precision.arithmetic == kernel.element
    return kernel.weights in ("fp32", precision.weights)


# Methods, and elements of maps, whose code some processors cannot run.
NEEDS_AVX512 = {"windows", "quad_windows", "balanced", "columns_sparse", "baked"}


@for_every_kernel
def test_a_machine_without_the_features_is_refused(kernel: Kernel) -> None:
    if kernel.method in NEEDS_AVX512 or kernel.element == "fp16":
        reasons = [kernel.accepts(layer, BARE, asked_for(kernel)) for layer in accepted(kernel, ABLE)]
        assert reasons
        assert all(map(is_sentence, reasons))
    else:
        assert accepted(kernel, replace(BARE, cache_bytes=SMALL_CACHE))


def is_sentence(reason: str | None) -> bool:
    return reason is not None and len(reason.split()) > 2 and reason == reason.strip()
