"""Programs in eight bits compute what the integer reference does, in every bit, on every kind of processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from run.drawn import HERE, MACHINES, let_win
from torch import Tensor, nn

from zeroskip import run
from zeroskip.concepts import Kernel, Machine
from zeroskip.errors import EngineError
from zeroskip.run import program_bytes
from zeroskip.run.convolution.tiles import tiling
from zeroskip.run.convolution.tiles.kernels import BAKED_INT8, STREAMED, STREAMED_INT8
from zeroskip.run.element import INT8
from zeroskip.run.integer_network import integer_network
from zeroskip.run.output_difference import no_further
from zeroskip.run.quantisation import Quantisation

AT_EVERY_WIDTH = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: f"{machine.vector_bytes}B")
CAN_BAKE = INT8.can_be_baked(HERE) and HERE.vector_bytes == 64


class Residual(nn.Module):
    """A stem, a pool, a depthwise convolution, two residuals, a concatenation, an average, a mean and a classifier."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.first = nn.Conv2d(3, 11, 5, 2, 2), nn.Conv2d(11, 11, 3, 1, 1)
        self.depthwise, self.back = nn.Conv2d(11, 11, 3, 1, 1, groups=11), nn.Conv2d(11, 11, 1)
        self.left, self.right = nn.Conv2d(11, 12, 1), nn.Conv2d(11, 7, 3, 1, 1)
        self.last, self.fc = last, nn.Linear(19, 5)
        self.grouped = nn.Conv2d(19, 19, (3, 1), 1, (1, 0))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x).relu(), 3, 2, 1)
        x = F.relu(self.back(F.relu6(self.depthwise(self.first(x).relu()))) + x)
        x = torch.cat([self.left(x).relu(), self.right(x)], 1)
        x = F.avg_pool2d(x, 2) + F.max_pool2d(x, 2)
        return self.fc(self.last(self.grouped(x)).mean((2, 3)))


def pictures(count: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 26, 22, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def residual() -> tuple[nn.Module, Quantisation]:
    model = Residual(nn.ReLU()).eval()
    return model, run.calibrate(model, [pictures(4, 1)], method="min-max")


def compiled(
    model: nn.Module,
    quantisation: Quantisation,
    monkeypatch: pytest.MonkeyPatch,
    *,
    kernels: Sequence[Kernel] = (STREAMED_INT8, STREAMED),
    machine: Machine = HERE,
    x: Tensor | None = None,
    threads: int = 1,
    way: str = "tiles in int8",
) -> run.Program:
    """The program on tiles in int8, whatever is fastest."""
    let_win(monkeypatch, alone={"dense"}, together={way})
    monkeypatch.setattr(tiling, "BUDGET", 0.0)
    return run.compile(
        model, pictures() if x is None else x, precision="int8", quantisation=quantisation, kernels=list(kernels),
        machine=machine, threads=threads,
    )  # fmt: skip


def expected(program: run.Program, quantisation: Quantisation, x: Tensor) -> Tensor:
    return integer_network(program.origin.graph, quantisation)(x)[0]


@AT_EVERY_WIDTH
def test_a_network_equals_the_integer_reference_in_every_bit(residual, monkeypatch, machine: Machine) -> None:
    model, quantisation = residual
    program = compiled(model, quantisation, monkeypatch, kernels=[STREAMED_INT8], machine=machine)
    used = {choice.kernel for choice in program.choices}
    assert used == {"streamed_int8", "depthwise_int8", "dense"}
    for x in (pictures(), pictures(1, 7), 9 * pictures(2, 8)):
        assert torch.equal(program(x), expected(program, quantisation, x))
    assert 0 < program.error < 0.1
    assert program.error < 2 * quantisation.error + 0.02


@pytest.mark.skipif(not CAN_BAKE, reason="this processor lacks AVX512-VNNI")
def test_baked_code_equals_the_integer_reference_in_every_bit(residual, monkeypatch) -> None:
    model, quantisation = residual
    program = compiled(model, quantisation, monkeypatch, kernels=[BAKED_INT8])
    assert {choice.kernel for choice in program.choices} == {"baked_int8", "depthwise_int8", "dense"}
    assert torch.equal(program(pictures()), expected(program, quantisation, pictures()))


def test_several_images_and_threads_at_a_time_compute_the_same(residual, monkeypatch) -> None:
    model, quantisation = residual
    x = pictures(9)
    program = compiled(
        model,
        quantisation,
        monkeypatch,
        x=x,
        threads=2,
        way="tiles in int8 of 4 images",
        kernels=[STREAMED_INT8],
    )
    assert program.origin.images == 4
    assert torch.equal(program(x), expected(program, quantisation, x))


@AT_EVERY_WIDTH
def test_other_activations_are_within_one_step_of_the_last_scale(monkeypatch, machine: Machine) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Conv2d(6, 5, 3), nn.Hardswish(), nn.MaxPool2d(2)
    ).eval()
    quantisation = run.calibrate(model, [pictures(4, 1)], method="min-max")
    program = compiled(model, quantisation, monkeypatch, machine=machine, kernels=[BAKED_INT8, STREAMED_INT8])
    assert {choice.kernel for choice in program.choices} <= {"baked_int8", "streamed_int8"}
    gap = (program(pictures()) - expected(program, quantisation, pictures())).abs().max()
    assert gap <= quantisation.values["max_pool2d"].scale * 1.001


def test_layers_that_lose_too_much_stay_in_fp32_and_are_named(residual, monkeypatch) -> None:
    model, quantisation = residual
    names = "conv2d_1", "conv2d_4"
    worse = replace(quantisation, errors=quantisation.errors | dict.fromkeys(names, 0.125))
    program = compiled(model, worse, monkeypatch)
    kept = [choice for choice in program.choices if choice.kernel == "streamed"]
    assert len(kept) == 2
    assert all("loses 12.5% of its output" in choice.refused["streamed_int8"] for choice in kept)
    assert "on tiles, in fp32" in str(program)
    torch.testing.assert_close(program(pictures()), expected(program, worse, pictures()), atol=0.05, rtol=0)


def test_a_saved_program_computes_the_same_on_a_processor_that_lacks_the_instructions(
    residual, monkeypatch, tmp_path: Path
) -> None:
    model, quantisation = residual
    program = compiled(
        model, quantisation, monkeypatch, kernels=[BAKED_INT8] if CAN_BAKE else [STREAMED_INT8]
    )
    narrow = pictures(2)[:, :, :, :18]
    program.add(narrow)
    other = program.networks[1].origin
    assert other.tiles
    assert torch.equal(program(narrow), integer_network(other.graph, quantisation)(narrow)[0])
    path = run.save(program, tmp_path / "program")
    for machine in MACHINES:
        loaded = run.load(path, machine=machine)
        for x in (pictures(2), narrow):
            assert torch.equal(loaded(x), program(x))
        assert loaded.error == program.error
    assert "for want of baked_int8" in str(loaded) or not CAN_BAKE
    assert loaded.saturated(100 * pictures()) == program.saturated(100 * pictures()) > 0


def test_numbers_beyond_the_calibrated_range_are_counted(residual, monkeypatch) -> None:
    program = compiled(*residual, monkeypatch)
    x = pictures() * 0
    x[0, 0, 0, :3] = torch.tensor([1e6, -1e6, torch.nan])
    assert program.saturated(x) == 3
    assert program.saturated(x * 0) == 0 or program.saturated(torch.zeros_like(x)) == 0


def test_a_network_whose_examples_meet_two_inputs_and_outputs_in_a_dict_are_computed_in_eight_bits(
    monkeypatch,
) -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            z = self.last(self.first(x).relu() + self.first(y).relu())
            return {"centred": z - z.mean(0, keepdim=True), "mean": z.mean()}

    model, given = Centred().eval(), (pictures(3)[..., :8], pictures(3, 1)[..., :8])
    quantisation = run.calibrate(model, [given], method="min-max")
    program = compiled(model, quantisation, monkeypatch, x=given, kernels=[STREAMED_INT8])  # type: ignore[arg-type]
    answer, expected = program(*given), integer_network(program.origin.graph, quantisation)(*given)
    assert list(answer) == ["centred", "mean"]
    for found, wanted in zip(answer.values(), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_what_does_not_go_together_is_refused_in_a_sentence(residual) -> None:
    model, quantisation = residual
    other = Residual(nn.Sigmoid()).eval()
    for words, given in {
        "needs to know the ranges of numbers": {"precision": "int8"},
        'precision="fp32" was asked for. Leave one of them out': {"quantisation": quantisation},
        "quantisation is a dict. Give what run.calibrate": {"precision": "int8", "quantisation": {}},
    }.items():
        with pytest.raises(EngineError, match=words):
            run.compile(model, pictures(), **given)
    with pytest.raises(EngineError, match="of another network"):
        run.compile(other, pictures(), precision="int8", quantisation=quantisation)
    few = replace(quantisation, weights=quantisation.weights | {"conv2d": torch.ones(3)})
    with pytest.raises(EngineError, match="3 scales for the 11 outputs of conv2d"):
        run.compile(model, pictures(), precision="int8", quantisation=few)


Content = dict[str, Any]


def with_few_scales(content: Content, tensors: dict[str, Tensor]) -> None:
    tensors["quantisation/conv2d"] = torch.ones(3)


def with_scale_0(content: Content, tensors: dict[str, Tensor]) -> None:
    content["quantisation"]["values"]["conv2d"] = [0.0, 0]


def without_a_layer(content: Content, tensors: dict[str, Tensor]) -> None:
    del tensors["quantisation/conv2d"]


def without_quantisation(content: Content, tensors: dict[str, Tensor]) -> None:
    del content["quantisation"]


LIES = {
    with_few_scales: "3 scales for the weights of 11 outputs",
    with_scale_0: "conv2d: 8-bit maps have a scale from",
    without_a_layer: '"streamed_int8" does not compute conv2d',
    without_quantisation: '"streamed_int8" does not compute conv2d',
}


def test_a_file_whose_scales_do_not_fit_is_refused(residual, monkeypatch, tmp_path: Path) -> None:
    path = run.save(compiled(*residual, monkeypatch, kernels=[STREAMED_INT8]), tmp_path / "program")
    stored = path.read_bytes()
    for lie, words in LIES.items():
        content, tensors = program_bytes.opened(stored)
        content = {
            name: each for name, each in content.items() if name not in ("sha256", "version", "places")
        }
        tensors = dict(tensors)
        lie(content, tensors)
        path.write_bytes(program_bytes.sealed(content, tensors))
        with pytest.raises(EngineError, match=words):
            run.load(path)


def test_what_rounds_otherwise_is_right_where_it_lies_no_further_from_the_exact_answer() -> None:
    exact, noise = torch.randn(4, 9), 0.01 * torch.randn(4, 9)
    assert no_further(exact - noise, exact + noise, exact)
    assert no_further((exact - noise)[:1], (exact + noise)[:1], exact)  # one example stands for all
    assert not no_further(exact - 2 * noise, exact + noise, exact)
    assert not no_further(exact.T, exact + noise, exact)
    assert not no_further((exact, exact), exact + noise, exact)
    assert not no_further(torch.full_like(exact, torch.nan), exact + noise, exact)
    one = torch.tensor(1.0)
    assert not no_further(one, one, one)  # of one number nothing is known


class Gated(nn.Module):
    """A product that is an output, so that no operation in eight bits reads it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.gate(x.mean((2, 3), keepdim=True)))


# A stride that is wider than the window leaves pixels of which no weight knows.
SPREAD = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 4, 1, stride=2)).eval()


@pytest.mark.parametrize("model", [Gated().eval(), SPREAD], ids=["product", "wide stride"])
def test_what_no_layer_reads_or_makes_equals_the_reference(model: nn.Module, monkeypatch) -> None:
    quantisation = run.calibrate(model, [pictures()], method="min-max")
    program = compiled(model, quantisation, monkeypatch, kernels=[STREAMED_INT8])
    assert program.origin.tiles
    assert torch.equal(program(pictures(2)), expected(program, quantisation, pictures(2)))


def test_numbers_beyond_the_range_are_counted_before_a_layer_in_fp32(monkeypatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    quantisation = run.calibrate(model, [pictures()], method="min-max")
    quantisation = replace(quantisation, errors=quantisation.errors | {"conv2d": 1.0})
    program = compiled(model, quantisation, monkeypatch)
    x = pictures(1) * 0
    x[0, 0, 0, :2] = torch.tensor([1e6, torch.nan])
    assert [program.saturated(x), program.saturated(0 * pictures(1))] == [2, 0]
    dense = run.compile(model, pictures(), kernels=[])
    assert dense.saturated(x) == 0
