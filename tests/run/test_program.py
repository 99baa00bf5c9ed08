"""run.compile and Program: the same answers as the network, for any batch, from any thread, or a clear refusal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from drawn import HERE, MACHINES, sparse_
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from zeroskip import pack, run
from zeroskip.concepts import Machine
from zeroskip.errors import EngineError, ModelError
from zeroskip.run.comparison import eager
from zeroskip.run.convolution.tiles import tiling
from zeroskip.run.convolution.tiles.kernels import BAKED, STREAMED
from zeroskip.run.convolution.tiles.steps import Chain
from zeroskip.run.dense import pytorch
from zeroskip.run.kernels import ALL
from zeroskip.run.linear.zero_weights import sell
from zeroskip.run.measurement import table
from zeroskip.run.select import layer_timing, network_selection

Prefer = Callable[..., None]


@pytest.fixture
def prefer(monkeypatch: pytest.MonkeyPatch) -> Prefer:
    """prefer("sell"): run.compile measures that kernel (or way to combine them) as the fastest, then the next."""

    def prefer(*names: str) -> None:
        order = [*names, "fastest", "joined", "dense", "sell", "spmm"]
        place = {name: number for number, name in reversed(list(enumerate(order)))}

        def stopped(calls: Mapping[str, Callable[[], object]], *_: Any) -> dict[str, float]:
            for call in calls.values():
                call()
            return {name: (1 + place.get(name, len(order))) / 1e6 for name in calls}

        for module in (network_selection, layer_timing):
            monkeypatch.setattr(module, "raced", stopped)

    return prefer


def lenet() -> nn.Module:
    return sparse_(
        nn.Sequential(nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10)), 0.8
    )


def convolutional() -> nn.Module:
    return sparse_(
        nn.Sequential(
            nn.Conv2d(1, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Dropout(),
            nn.Flatten(),
            nn.Linear(54, 40),
            nn.ReLU(),
            nn.Linear(40, 10),
            nn.Softmax(dim=1),
        )
    )


class Residual(nn.Module):
    """Branches, tokens, and three results in a dict and a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(12), nn.Linear(12, 40), nn.Linear(40, 12, bias=False)

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = self.down(functional.relu(self.up(self.norm(x)))) + x
        return {"tokens": y, "pooled": (y.mean(1), y.amax(dim=(1, 2)))}


class OnlyThree(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(3, 8))


class Sized(OnlyThree):
    """Adds a number that depends on the size of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.arange(x.shape[0]).sum()


class Unseen(OnlyThree):
    """The same with `len`, which torch.export takes for a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + torch.arange(len(x)).sum()


class Summed(OnlyThree):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(3, 8)).sum()


class Single(OnlyThree):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (2 if x.shape[0] == 1 else 1)


class Noisy(OnlyThree):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.layer(x), 0.5, training=True)


class Deciding(OnlyThree):
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


NETWORKS = {
    "lenet": (lenet, (64,)),
    "convolutional": (convolutional, (1, 8, 8)),
    "residual": (Residual, (5, 12)),
}


@pytest.mark.parametrize("kernel", ["dense", "sell", "spmm"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_answers_as_the_network_for_batches_of_0_1_2_7_and_33(
    name: str, kernel: str, prefer: Prefer
) -> None:
    prefer(kernel)
    make, shape = NETWORKS[name]
    model = sparse_(make())
    program = run.compile(model, torch.randn(3, *shape))
    assert {choice.kernel for choice in program.choices} >= {kernel}
    for batch in (0, 1, 2, 7, 33):
        x = torch.randn(batch, *shape)
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine.vector_bytes}B")
def test_the_machine_is_an_argument_and_narrower_ones_compute_the_same(machine: Any) -> None:
    model, x = lenet(), torch.randn(5, 64)
    program = run.compile(model, x, machine=machine)
    assert program.machine == machine
    torch.testing.assert_close(program(x), model(x).detach())


def test_each_layer_gets_the_kernel_that_was_fastest_on_it(prefer: Prefer) -> None:
    prefer("spmm", "sell")
    model = lenet()
    model[4].weight.data.fill_(1.0)
    program = run.compile(model, torch.randn(4, 64))
    first, _, last = program.choices
    assert (first.layer, first.op, first.weight_shape, first.kernel) == ("0", "linear", (30, 64), "spmm")
    assert first.seconds == {**first.seconds, "dense": 5e-6, "sell": 2e-6, "spmm": 1e-6}
    assert first.refused["channels_last"] == "a layout of images, and linear has none"
    assert first.refused["gaps_int8"] == "fp32 weights were asked for"
    assert first.sparsity == pytest.approx(0.8, abs=0.05)
    assert (last.kernel, last.sparsity) == ("dense", 0.0)
    assert {last.refused[name] for name in ("sell", "spmm", "gaps_fp32")} == {"0 % zeros: nothing to skip"}


def test_a_network_that_is_faster_as_a_whole_with_dense_layers_gets_those(prefer: Prefer) -> None:
    prefer("sell", "dense")
    program = run.compile(lenet(), torch.randn(1, 64))
    assert [choice.kernel for choice in program.choices] == ["dense"] * 3
    assert all("alone sell was fastest" in choice.reason for choice in program.choices)
    assert program.seconds == program.dense_seconds


def test_a_layer_that_is_faster_dense_alone_may_join_its_neighbours(prefer: Prefer) -> None:
    prefer("joined", "dense", "spmm")
    program = run.compile(lenet(), torch.randn(1, 64))
    assert [choice.kernel for choice in program.choices] == ["spmm"] * 3
    assert all("whole network was faster with it" in choice.reason for choice in program.choices)
    assert program.seconds < program.dense_seconds


def test_dense_is_a_candidate_even_where_only_others_were_named() -> None:
    program = run.compile(lenet(), torch.randn(1, 64), kernels=[sell.KERNEL])
    assert set(program.choices[0].seconds) == {"dense", "sell"}


LAPTOP = Machine("AMD Ryzen", "x86_64", frozenset({"avx2", "fma"}), 8, 32)


def printed(program: run.Program) -> str:
    """The program as if it had been compiled on LAPTOP: names of computers differ in length."""
    return str(run.Program(replace(program.compiled, machine=LAPTOP), program.measurement, program.changed))


def test_printing_a_program_names_every_kernel_its_time_and_every_reason(prefer: Prefer) -> None:
    prefer("sell")
    text = printed(run.compile(convolutional(), torch.randn(2, 1, 8, 8)))
    head, zeros, *rest = text.splitlines()
    titles = next(line for line in rest if line.startswith("layer "))
    assert LAPTOP.title in head
    assert "fp32, batch 2, 1 thread: 2.0 us a call, 4.0 us with every layer dense" in head
    assert zeros.startswith("zeros: 100.0% lie where a sparse kernel was timed")
    assert all(f"{name} (1," in " ".join(text.split()) for name in ("max_pool2d", "flatten", "softmax"))
    assert titles.split()[:7] == ["layer", "weight", "zeros", "kernel", "time", "dense", "why,"]
    convolution, middle, last = (line for line in rest if line.startswith(("0 ", "6 ", "8 ")))
    assert convolution.split()[:4] == ["0", "6x1x3x3", convolution.split()[2], "dense"]
    assert "; channels_last 7.0 us" in convolution
    assert "40x54" in middle
    assert " sell " in middle
    assert "fastest; spmm 6.0 us" in middle
    assert middle.index("fastest") == last.index("fastest") == titles.index("why")
    assert "(itself)" in str(run.compile(sparse_(nn.Linear(9, 4)), torch.randn(1, 9)))


def test_a_deep_network_is_printed_on_120_columns_and_says_each_refusal_once(prefer: Prefer) -> None:
    prefer("tiles")
    model = sparse_(
        nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(6)), nn.Flatten(), nn.Linear(192, 5))
    )
    program = run.compile(model, torch.randn(2, 3, 8, 8))
    lines = printed(program).splitlines()
    assert all(len(line) <= 120 for line in lines)
    assert f"scratch {program.scratch / 1e6:.1f} MB a call" in lines
    assert program.scratch > 6 * 2 * 4 * 3 * 64
    notes = " ".join(" ".join(lines).split()).split(" [1] ")[-1]
    for reasons in ({each for choice in program.choices for each in choice.refused.values()},):
        assert [notes.count(f": {why}") for why in reasons] == [1] * len(reasons)
    numbers = [line.split()[0] for line in lines if line.startswith("[")]
    assert numbers == [f"[{number}]" for number in range(1, len(numbers) + 1)]


def test_times_below_a_millisecond_are_in_us() -> None:
    program = run.compile(lenet(), torch.randn(1, 64), kernels=[sell.KERNEL])
    measured = replace(program.measurement, seconds=9.99e-4, dense_seconds=2.34e-3)
    assert "999.0 us a call, 2.3 ms with every layer dense" in table(measured, LAPTOP)


def test_seconds_of_layers_on_tiles_are_those_of_the_whole_batch(
    prefer: Prefer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second_each(chain: Chain, *_: Any) -> dict[str, float]:
        return {step.node: 1.0 for step in chain.steps}

    monkeypatch.setattr(tiling, "seconds_by_node", second_each)
    model, x = sparse_(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())), torch.randn(17, 3, 8, 8)
    for images, seconds in (("tiles", 17), ("tiles of 4 images", 5)):
        prefer(images)
        (choice,) = run.compile(model, x, kernels=[STREAMED]).choices
        assert (choice.kernel, choice.seconds["streamed"]) == ("streamed", seconds)
    (choice,) = run.compile(model, x, kernels=[STREAMED, BAKED], threads=2).choices
    timed = [choice.seconds[name] for name in ("streamed", "baked") if name in choice.seconds]
    assert sorted(timed) == [3, 9][: len(timed)]  # the slower was only tried one by one


FEWER_BITS = [
    ({"weights": "int8"}, "gaps_int8", "fp32, int8 weights", 1e-2),
    ({"weights": "bf16"}, "gaps_bf16", "fp32, bf16 weights", 1e-2),
    ({"precision": "bf16"}, "dense_bf16", "bf16", 3e-2),
]


@pytest.mark.parametrize(("asked", "kernel", "precision", "most"), FEWER_BITS)
def test_fewer_bits_are_used_where_they_are_asked_for_and_what_they_cost_is_said(
    asked: dict[str, str], kernel: str, precision: str, most: float, prefer: Prefer
) -> None:
    prefer(kernel)
    model, x = convolutional(), torch.randn(4, 1, 8, 8)
    program = run.compile(model, x, **asked)
    expected = model(x).detach()
    assert program.precision == precision
    assert program.choices[-1].kernel == kernel
    assert 0 < program.choices[-1].error < most
    assert 0 < program.error < most
    assert float((program(x) - expected).abs().max() / expected.max()) == pytest.approx(
        program.error, rel=1e-3
    )
    assert f"rounds by {program.choices[-1].error:.2g} of the largest output" in str(program)
    engines = {"torch eager": eager}
    timing = run.compare(program, model, torch.randn(7, 1, 8, 8), runs=1, rounds=1, engines=engines)
    assert timing.precision == precision


class Inner(nn.Module):
    """Convolutions with a residual, a depthwise one, a pool and a mean, all on tiles; then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.apart, self.last = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.first(x))
        y = functional.max_pool2d(functional.relu(self.second(y) + y), 2)
        return self.last(self.apart(y).mean((2, 3)))


reads_half = pytest.mark.skipif("f16c" not in HERE.features, reason="this processor cannot read fp16")
IN_FP16 = ("streamed_fp16", "baked_fp16", "depthwise_fp16")


@reads_half
@pytest.mark.parametrize("images", ["", " of 4 images"])
def test_a_network_on_tiles_in_fp16_answers_within_half_a_percent_for_any_batch(
    images: str, prefer: Prefer
) -> None:
    prefer(f"tiles in fp16{images}")
    model, x = sparse_(Inner(), 0.5), torch.randn(5, 3, 10, 12)
    program = run.compile(model, x, precision="fp16")
    assert program.precision == "fp16"
    assert program.origin.images == (4 if images else 1)
    assert {kernel.name for kernel in program.origin.tiles.values()} <= set(IN_FP16)
    *convolutions, linear = program.choices
    assert all(choice.kernel in IN_FP16 and 1e-5 < choice.error < 5e-3 for choice in convolutions)
    assert linear.error == 0
    assert 1e-5 < program.error < 5e-3
    for batch in (0, 1, 2, 7, 33):
        y = torch.randn(batch, 3, 10, 12)
        torch.testing.assert_close(program(y), model(y).detach(), rtol=5e-3, atol=5e-3)
    text = " ".join(str(program).split())
    assert f"{HERE.title}; fp16, batch 5, 1 thread" in text
    assert f"on tiles; rounds by {convolutions[0].error:.2g} of the largest output" in text


@reads_half
def test_where_fp32_is_faster_nothing_is_rounded_and_the_seconds_of_fp16_are_shown(prefer: Prefer) -> None:
    prefer("tiles")
    model, x = sparse_(Inner(), 0.5), torch.randn(2, 3, 8, 8)
    program = run.compile(model, x, precision="fp16")
    first, *_ = program.choices
    assert (first.kernel in IN_FP16, first.error, program.error) == (False, 0.0, 0.0)
    assert first.seconds["streamed_fp16"] > 0
    assert "fp32 arithmetic was asked for" in run.compile(model, x).choices[0].refused["streamed_fp16"]


@reads_half
def test_one_layer_that_comes_near_65504_keeps_all_from_fp16_and_is_named(prefer: Prefer) -> None:
    prefer("tiles in fp16", "tiles")
    model, x = sparse_(Inner(), 0.5), torch.randn(2, 3, 8, 8)
    model.second.weight.data.mul_(1e5)
    program = run.compile(model, x, precision="fp16")
    *convolutions, _ = program.choices
    assert not {choice.kernel for choice in convolutions} & set(IN_FP16)
    reasons = {choice.refused["streamed_fp16"] for choice in convolutions}
    assert len(reasons) == 1
    assert re.match(r"second reaches [\d.e+]+ on the example; fp16 ends at 65504", min(reasons))
    torch.testing.assert_close(program(x), model(x).detach(), rtol=1e-4, atol=1)


@reads_half
def test_one_layer_with_too_many_products_for_fp16_keeps_all_from_it_and_is_named(prefer: Prefer) -> None:
    prefer("tiles in fp16", "tiles")
    model = nn.Sequential(nn.Conv2d(3, 240, 3), nn.ReLU(), nn.Conv2d(240, 2, 3)).eval()
    first, second = run.compile(model, torch.randn(1, 3, 8, 8), precision="fp16").choices
    assert not {first.kernel, second.kernel} & set(IN_FP16)
    why = "an output sums 2160 products, and in fp16 a sum of equal ones stops growing at 2048"
    assert second.refused["streamed_fp16"] == why
    assert first.refused["streamed_fp16"] == f"2 has no kernel in fp16, which all layers on tiles need: {why}"


def test_4_bit_codes_are_used_where_16_distinct_weights_allow_it_and_change_nothing(prefer: Prefer) -> None:
    prefer("gaps_codes")
    model = lenet()
    model[0].weight.data.copy_(model[0].weight.mul(3).round().clamp(-4, 4))
    program, x = run.compile(model, torch.randn(2, 64), weights="codes"), torch.randn(5, 64)
    assert program.choices[0].kernel == "gaps_codes"
    assert "distinct weights, and 4 bits number 16" in program.choices[1].refused["gaps_codes"]
    assert program.error == 0 == program.choices[0].error
    torch.testing.assert_close(program(x), model(x).detach())


def test_nothing_is_rounded_unless_asked_for(prefer: Prefer) -> None:
    prefer("gaps_int8", "windows_int8", "gaps_bf16", "dense_bf16")
    program = run.compile(convolutional(), torch.randn(2, 1, 8, 8))
    assert all("int8" not in choice.kernel and "bf16" not in choice.kernel for choice in program.choices)
    assert (program.error, program.precision) == (0.0, "fp32")


def test_a_network_for_3_examples_only_runs_any_number_by_cutting_and_filling_up() -> None:
    model = sparse_(OnlyThree())
    program = run.compile(model, torch.randn(3, 8))
    for batch in (0, 1, 3, 4, 8):
        x = torch.randn(batch, 8)
        torch.testing.assert_close(program(x), model.layer(x).detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Single(), "on 1 example the compiled program differs"),
        (Unseen(), r"on 1 example .* where x\.shape\[0\] would do"),
        (Noisy(), "random in evaluation mode"),
        (Deciding(), "torch.export cannot follow the network"),
    ],
    ids=["special-case", "length", "random", "data-dependent"],
)
def test_what_a_program_could_not_repeat_is_refused_when_compiling(model: nn.Module, reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        run.compile(model, torch.randn(3, 8))


def test_a_network_that_sums_over_exactly_three_examples_is_a_program_for_three() -> None:
    model = Summed()
    program, x = run.compile(model, torch.randn(3, 8), kernels=[]), torch.randn(3, 8)
    torch.testing.assert_close(program(x), model(x).detach())
    with pytest.raises(EngineError, match=r"compiled for \(3, 8\), and the network itself refuses \(4, 8\)"):
        program(torch.randn(4, 8))


def test_a_network_that_uses_the_size_of_the_batch_is_followed() -> None:
    model = Sized().eval()
    program = run.compile(model, torch.randn(3, 8))
    x = torch.randn(6, 8)
    torch.testing.assert_close(program(x), model(x).detach())


def test_a_network_that_cannot_run_on_the_example_says_so_in_its_own_words() -> None:
    with pytest.raises(ModelError, match=r"\(2, 9\).*shapes cannot be multiplied"):
        run.compile(lenet(), torch.randn(2, 9))


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({"precision": "int4"}, 'precision="int4" is unknown. Known are fp32, bf16, fp16'),
        ({"weights": "fp16"}, 'weights="fp16" is unknown. Known are fp32, bf16, int8, codes'),
        ({"threads": 0}, "0 threads"),
    ],
)
def test_a_precision_or_number_of_threads_that_cannot_be_is_refused(keywords: Any, reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        run.compile(lenet(), torch.randn(1, 64), **keywords)


def test_a_network_that_is_not_on_the_cpu_is_refused() -> None:
    with pytest.raises(EngineError, match=r"on meta.*\.cpu\(\)"):
        run.compile(lenet().to("meta"), torch.randn(1, 64))


def test_a_kernel_that_computes_wrongly_is_caught_before_it_is_used() -> None:
    def build(layer: Any, machine: Any, precision: Any, relu: bool) -> Callable[[Tensor], Tensor]:
        return lambda x: pytorch.reference(layer, x, relu) + 1e-2

    wrong = replace(pytorch.KERNEL, name="wrong", build=build)
    with pytest.raises(EngineError, match=r'kernel "wrong" computes layer "0" \(30, 64\) wrongly'):
        run.compile(lenet(), torch.randn(2, 64), kernels=[*ALL, wrong])


class Marked(Tensor):
    """A tensor of a class of its own, which need not have any memory."""


REFUSED: dict[str, tuple[Any, str]] = {
    "one example": (torch.zeros(64), r"given \(64,\).*The axis of examples is missing: give x\[None\]"),
    "number": (torch.zeros(()), r"given \(\).*Give 2 axes"),
    "double": (torch.zeros(2, 64).double(), r"torch.float64.*x\.to\(torch\.float32\)"),
    "half": (torch.zeros(2, 64).half(), r"torch.float16.*x\.to\(torch\.float32\)"),
    "integer": (torch.zeros(2, 64).long(), r"torch.int64.*x\.to\(torch\.float32\)"),
    "complex": (torch.zeros(2, 64, dtype=torch.complex64), r"torch.complex64.*x\.real"),
    "device": (torch.zeros(2, 64, device="meta"), r"on meta.*x\.cpu\(\)"),
    "sparse": (torch.zeros(2, 64).to_sparse(), r"stored as torch.sparse_coo.*x\.to_dense\(\)"),
    "own layout": (torch.zeros(2, 64).to_mkldnn(), r"stored as torch._mkldnn.*x\.to_dense\(\)"),
    "own class": (
        torch.zeros(2, 64).as_subclass(Marked),
        r"given a Marked .*x\.as_subclass\(torch\.Tensor\)",
    ),
    "list": ([[0.0] * 64], r"given a list.*torch\.as_tensor"),
    "list of tensors": ([torch.zeros(2, 64)], r"given a list.*program\(\*batch\)"),
    "dict": ({"input": torch.zeros(2, 64)}, r"given a dict.*program\(\*\*batch\)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_input_is_refused_both_are_named_and_so_is_the_line_that_converts_it(what: str) -> None:
    given, named = REFUSED[what]
    program = run.compile(lenet(), torch.randn(1, 64), kernels=[sell.KERNEL])
    with pytest.raises(EngineError, match=named):
        program(given)
    assert program.refusal(given)
    assert program.refusal(torch.zeros(0, 64)) is None


CONVERTED: dict[str, Callable[[Tensor], Tensor]] = {
    "pixel by pixel": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "every second": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    "one example repeated": lambda x: x[:1].expand_as(x),
    "with gradient": lambda x: x.clone().requires_grad_(),
    "parameter": nn.Parameter,
    "sign to be turned": lambda x: torch.complex(x, -x).conj().imag,
    "sign to be turned in place": lambda x: torch._neg_view(-x),
}


@pytest.mark.parametrize("plan", ["dense", "tiles", "pixelwise"])
def test_inputs_of_any_layout_are_taken_and_gradients_are_dropped(plan: str, prefer: Prefer) -> None:
    prefer(plan)
    model = sparse_(nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2)))
    program = run.compile(model, torch.randn(2, 3, 8, 8))
    for how, convert in CONVERTED.items():
        x = convert(torch.randn(5, 3, 8, 8))
        y = program(x)
        assert not y.requires_grad, how
        torch.testing.assert_close(y, model(x).detach(), rtol=1e-4, atol=1e-6, msg=how)


@pytest.mark.parametrize("plan", ["dense", "tiles", "joined"])
def test_no_examples_give_what_pytorch_gives(plan: str, prefer: Prefer) -> None:
    prefer(plan)
    model, x = convolutional(), torch.zeros(0, 1, 8, 8)
    assert run.compile(model, torch.randn(2, 1, 8, 8))(x).shape == model(x).shape == (0, 10)


@pytest.mark.parametrize("plan", ["tiles", "tiles of 4 images", "joined"])
def test_8_threads_get_bit_by_bit_what_one_gets(plan: str, prefer: Prefer) -> None:
    prefer(plan)
    model = sparse_(nn.Sequential(*convolutional(), nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 3)))
    program = run.compile(model, torch.randn(8, 1, 8, 8), threads=2)
    inputs = [torch.randn(1 + number % 9, 1, 8, 8) for number in range(40)]
    alone = [program(x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(program, inputs))
    assert all(map(torch.equal, alone, together))
    torch.testing.assert_close(alone[8], model(inputs[8]).detach(), rtol=1e-4, atol=1e-6)


def test_a_zero_weight_times_infinity_is_nan_where_strict_was_asked_for(prefer: Prefer) -> None:
    prefer("sell", "spmm", "tiles")
    for model, shape in ((lenet(), (64,)), (convolutional(), (1, 8, 8))):
        x = torch.randn(2, *shape)
        x[0] = float("inf")
        strict = run.compile(model, torch.randn(1, *shape), strict=True)
        torch.testing.assert_close(strict(x), model(x).detach(), equal_nan=True, rtol=1e-4, atol=1e-6)
        assert {choice.kernel for choice in strict.choices} <= {"dense", "channels_last"}
        text = " ".join(str(strict).split())
        assert "fp32, strict" in text
        for zeros in ("weights", "inputs", "weights and inputs"):
            assert f"skips zero {zeros}, and strict was asked for" in text
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data.copy_(torch.eye(2))
    assert run.compile(layer, torch.zeros(1, 2))(torch.tensor([[torch.inf, 1.0]])).tolist() == [
        [torch.inf, 1.0]
    ]


@pytest.mark.parametrize(
    ("model", "example", "reason"),
    [
        (
            pack.encode(lenet()),
            torch.zeros(1, 64),
            r"given a Packed.*\n +model\.load_state_dict\(pack\.decode\(packed",
        ),
        (functional.relu, torch.zeros(1, 64), "given a function, and needs a torch.nn.Module"),
        (lenet(), torch.tensor(1.0), "a single number, and no batch"),
        (lenet().forward, torch.zeros(1, 64), "given a method.*Compile the network itself"),
        (lenet(), [0.0] * 64, "a batch holds no tensor"),
    ],
    ids=["packed", "function", "number", "method", "list"],
)
def test_what_is_no_network_or_no_batch_is_refused(model: Any, example: Any, reason: str) -> None:
    with pytest.raises((EngineError, ModelError), match=reason):
        run.compile(model, example)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_network_of_other_numbers_than_float32_is_refused_before_anything_is_timed(
    dtype: torch.dtype,
) -> None:
    model, named = lenet().to(dtype), f"{str(dtype).removeprefix('torch.')} \\(0 and the others"
    for refuse in (run.compile, run.check):
        with pytest.raises(EngineError, match=named + r".*model\.float\(\)"):
            refuse(model, torch.randn(2, 64).to(dtype))


class Mixed(nn.Module):
    """A layer of float32, then one of float64."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 8), nn.Linear(8, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).double())


def test_one_layer_of_doubles_stays_dense_with_a_warning_that_names_it() -> None:
    model = sparse_(Mixed())
    with pytest.warns(UserWarning, match=r"1 of 2 weights are not float32 \(head is float64\).*stay dense"):
        program = run.compile(model, torch.randn(2, 64))
    assert "not float64" in program.choices[1].refused["sell"]
    x = torch.randn(3, 64)
    torch.testing.assert_close(program(x), model(x).detach(), rtol=1e-5, atol=1e-6)


def test_a_network_whose_weights_are_nan_or_all_zero_works_as_in_pytorch(prefer: Prefer) -> None:
    prefer("sell")
    model = lenet()
    model[2].weight.data.zero_()
    model[4].weight.data[3, 3] = float("nan")
    program = run.compile(model, torch.randn(2, 64))
    x = torch.randn(4, 64)
    torch.testing.assert_close(program(x), model(x).detach(), equal_nan=True)
    assert bool(program(x)[:, 3].isnan().all())


def test_a_parametrized_network_is_compiled_with_its_effective_weights() -> None:
    model = lenet()
    parametrize.register_parametrization(model[0], "weight", Halved())
    program, x = run.compile(model, torch.randn(1, 64)), torch.randn(3, 64)
    assert program.choices[0].layer == "0"
    assert program.choices[0].sparsity > 0.7
    torch.testing.assert_close(program(x), model(x).detach())


def zero_a_weight(model: nn.Module) -> None:
    with torch.no_grad():
        model[0].weight[0, 0] = 7.0


def step(model: nn.Module) -> None:
    model(torch.randn(2, 1, 8, 8)).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()


CHANGES: dict[str, Callable[[Any], object]] = {
    "written to": zero_a_weight,
    "trained": step,
    "loaded": lambda model: model.load_state_dict(model.state_dict()),
    "data replaced": lambda model: setattr(model[0].weight, "data", model[0].weight.data.clone()),
    "parameter replaced": lambda model: setattr(model[6], "bias", nn.Parameter(torch.zeros(40))),
    "module replaced": lambda model: model.__setitem__(8, nn.Linear(40, 10)),
    "another precision": lambda model: model.double(),
    "statistics updated": lambda model: model.train()(torch.randn(2, 1, 8, 8)),
    "parametrized": lambda model: parametrize.register_parametrization(model[6], "weight", Halved()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_network_changed_after_compiling_is_noticed_at_the_next_call(change: str) -> None:
    model = convolutional()
    program, x = run.compile(model, torch.randn(1, 1, 8, 8)), torch.randn(2, 1, 8, 8)
    program(x)
    CHANGES[change](model)
    with pytest.raises(EngineError, match="Compile again"):
        program(x)


def test_evaluating_and_moving_between_training_and_evaluation_is_no_change() -> None:
    model = convolutional()
    program, x = run.compile(model, torch.randn(1, 1, 8, 8)), torch.randn(2, 1, 8, 8)
    model.train().eval()(x)
    program(x)


def test_compiling_leaves_the_example_the_flags_the_weights_and_the_threads_as_they_were() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 4), nn.Dropout(), nn.BatchNorm1d(4).eval())
    x = torch.randn(3, 8)
    before, threads, state = (
        x.clone(),
        torch.get_num_threads(),
        [p.clone() for p in model.state_dict().values()],
    )
    run.compile(model, x, threads=2)
    assert torch.equal(x, before)
    assert torch.get_num_threads() == threads
    assert [module.training for module in model] == [True, True, True, False]
    assert all(map(torch.equal, model.state_dict().values(), state))
