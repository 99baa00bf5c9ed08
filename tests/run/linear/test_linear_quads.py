"""Linear layers of few rows in eight bits equal the integer reference in every bit, on every kind of processor."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from run.drawn import HERE, MACHINES, let_win, random_layer
from torch import Tensor, nn

from zeroskip import run
from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.emit import assembly
from zeroskip.run.building import rounded
from zeroskip.run.convolution.tiles import tiling
from zeroskip.run.element import Scaling
from zeroskip.run.integer_network import integer_network
from zeroskip.run.kernels import ALL
from zeroskip.run.linear.zero_weights.gaps import KERNELS as GAPS_OF_NUMBERS
from zeroskip.run.linear_quads import quad_gaps, quad_windows
from zeroskip.run.linear_quads.kernels import GAPS, KERNELS, WINDOWS, with_scales
from zeroskip.run.linear_quads.quad_layer import RowScales, computed, own_scales
from zeroskip.run.quantisation import LIMIT, Quantisation

INT8 = Precision("int8")
WITHOUT_VNNI = replace(HERE, features=HERE.features - {"avx512vnni", "avxvnni"})
PAIRS = [(GAPS, machine) for machine in (*MACHINES, WITHOUT_VNNI)]
PAIRS += [(WINDOWS, machine) for machine in (HERE, WITHOUT_VNNI) if HERE.vector_bytes == 64]


def scaled(kernel: Kernel, scales: RowScales) -> Kernel:
    return with_scales(kernel, scales, partial(computed, scales))


def assert_equal(kernel: Kernel, machine: Machine, layer: Layer, x: Tensor, at: Scaling, relu: bool) -> None:
    own = scaled(kernel, own_scales(layer, at))
    assert own.accepts(layer, machine, INT8) is None
    y = own.build(layer, machine, INT8, relu)(x)
    assert torch.equal(y, own.reference(layer, x, relu))


@pytest.mark.parametrize(("kernel", "machine"), PAIRS, ids=lambda each: getattr(each, "method", ""))
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_layer_equals_the_integer_reference_in_every_bit(
    kernel: Kernel, machine: Machine, data: st.DataObject
) -> None:
    """Of any size, with zeros anywhere or in blocks, rows without a weight, and inputs that are no numbers."""
    out, inputs, rows = (data.draw(st.integers(low, high)) for low, high in ((1, 70), (1, 700), (0, 13)))
    seed, sparsity = data.draw(st.integers(0, 99)), data.draw(st.sampled_from([0.0, 0.7, 0.98, 1.0]))
    layer = random_layer(out, inputs, sparsity, bias=data.draw(st.booleans()), seed=seed)
    layer.weight[: out // 3] *= data.draw(st.sampled_from([0.0, 1.0, 2.0**-70]))
    x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(seed))
    odd = data.draw(st.sampled_from([0.0, torch.nan, torch.inf, -1e30]))
    x.view(-1)[seed :: inputs + 1] = odd
    at = Scaling(data.draw(st.sampled_from([0.02, 0.5, 2.0**-40])), data.draw(st.sampled_from([0, 128])))
    assert_equal(kernel, machine, layer, x, at, relu=kernel is GAPS)


@pytest.mark.parametrize(("kernel", "machine"), PAIRS[:1] + PAIRS[-1:])
def test_quads_far_from_each_other_and_all_at_their_largest(kernel: Kernel, machine: Machine) -> None:
    weight = torch.zeros(9, 4 * 1100)
    weight[:, [0, 4 * 255, 4 * 256, 4 * 1020, -1]] = 1.0
    weight[3], weight[4] = 1.0, -1.0
    layer = Layer("far", "linear", weight, None, (4400,), (9,))
    assert_equal(kernel, machine, layer, torch.full((2, 4400), 9.0), Scaling(0.02, 0), relu=kernel is GAPS)


def test_a_nan_counts_as_0() -> None:
    layer = Layer("one", "linear", torch.ones(1, 5), torch.ones(1), (5,), (1,))
    kernel = scaled(GAPS, own_scales(layer, Scaling(0.5, 128)))
    assert kernel.build(layer, HERE, INT8, True)(torch.full((1, 5), torch.nan)) == 1.0


def test_processors_multiply_quads_with_what_they_have() -> None:
    def code(emit, machine: Machine, triple: str) -> str:
        return assembly(emit(machine, False).text(machine), machine, triple=f"{triple}-unknown-linux-gnu")

    wide = {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"}
    x86 = Machine("", "x86_64", frozenset(wide | {"avx512vnni"}), 1, 64)
    arm = Machine("", "aarch64", frozenset({"neon", "dotprod"}), 1, 16)
    assert all("vpdpbusd" in code(each.emit, x86, "x86_64") for each in (quad_gaps, quad_windows))
    assert "vpmaddwd" in code(quad_gaps.emit, replace(x86, features=frozenset(wide)), "x86_64")
    assert "sdot" in code(quad_gaps.emit, arm, "aarch64")


def test_what_cannot_have_eight_bits_is_refused_in_a_sentence() -> None:
    layer = random_layer(8, 12, 0.5)
    huge = replace(layer, weight=torch.ones(1, 70_000))
    for kernel in KERNELS:
        refused = partial(kernel.accepts, machine=HERE, precision=INT8)
        assert kernel.accepts(layer, HERE, Precision()) == "fp32 arithmetic was asked for"
        assert refused(replace(layer, weight=layer.weight / 0)) == "weights that are not finite have no scale"
        assert "may pass 2^31" in str(refused(huge))
        assert kernel.suits(layer, torch.zeros(99, 12)) == "99 rows, and it is for 64 at most"


class Classifier(nn.Module):
    """A convolution, and linear layers of odd sizes behind it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc1, self.fc2 = nn.Conv2d(3, 5, 3), nn.Linear(605, 50), nn.Linear(50, 7)
        self.fc1.weight.data[torch.rand(50, 605) < 0.8] = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(self.conv(x).relu().flatten(1)).relu())


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 13, 13, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def classifier() -> tuple[nn.Module, Quantisation]:
    model = Classifier().eval()
    return model, run.calibrate(model, [pictures(16, 1)], method="min-max")


def compiled(
    model: nn.Module, quantisation: Quantisation, monkeypatch: pytest.MonkeyPatch, alone: str, together: str
) -> run.Program:
    let_win(monkeypatch, alone={alone}, together={together})
    monkeypatch.setattr(tiling, "BUDGET", 0.0)
    kernels = [each for each in ALL if each.method in ("quad_gaps", "gaps", "streamed")]
    return run.compile(model, pictures(1), precision="int8", quantisation=quantisation, kernels=kernels)


@pytest.mark.parametrize("together", ["tiles in int8", "tiles", "fastest"])
def test_a_program_computes_what_its_integer_network_does(
    classifier, monkeypatch, tmp_path: Path, together
) -> None:
    """Beside convolutions in eight bits, in fp32 on tiles, and in PyTorch; also when it was stored."""
    model, quantisation = classifier
    program = compiled(model, quantisation, monkeypatch, "quad_gaps_int8", together)
    assert [choice.kernel for choice in program.choices][1:] == ["quad_gaps_int8"] * 2
    assert "quad_gaps_int8" in str(program)
    assert 0 < program.error < 0.1
    again = [run.load(run.save(program, tmp_path / "program"), machine=machine) for machine in MACHINES]
    for x in (pictures(1), pictures(9, 2)):
        y = program(x)
        torch.testing.assert_close(
            y, rounded(program.origin)(x)[0], atol=0.02 * (together == "tiles"), rtol=0
        )
        torch.testing.assert_close(y, model(x), atol=0.05, rtol=0)
        assert torch.equal(again[0](x), y)
        torch.testing.assert_close(again[-1](x), y, atol=0.02, rtol=0)


def test_layers_of_a_program_equal_the_reference_bit_for_bit(classifier, monkeypatch) -> None:
    model, quantisation = classifier
    program = compiled(model, quantisation, monkeypatch, "quad_gaps_int8", "tiles in int8")
    graph = program.origin.graph
    scales = {name: RowScales(quantisation.values[name_of_input], quantisation.weights[name])
              for name, name_of_input in (("linear", "flatten"), ("linear_1", "linear"))}  # fmt: skip
    layers = {node.name: node for node in graph.nodes if node.layer is not None}
    functions = {
        name: partial(
            lambda scales, node, x: computed(scales, node.layer, x, node.relu), scales[name], layers[name]
        )
        for name in scales
    }
    assert torch.equal(program(pictures(3)), integer_network(graph, quantisation, functions)(pictures(3))[0])


def test_layers_that_lose_too_much_stay_in_fp32_and_say_so(classifier, monkeypatch) -> None:
    model, quantisation = classifier
    worse = replace(quantisation, errors=quantisation.errors | {"linear": 2 * LIMIT})
    program = compiled(model, worse, monkeypatch, "quad_gaps_int8", "joined")
    kernels = [choice.kernel for choice in program.choices]
    assert kernels[1] != "quad_gaps_int8"
    assert kernels[2] == "quad_gaps_int8"
    assert "loses 10.0% of its output" in program.choices[1].refused["quad_gaps_int8"]
    assert program.choices[1].refused["gaps_int8"] == "fp32 weights were asked for"


def test_weights_alone_may_have_eight_bits_too(classifier, monkeypatch, tmp_path: Path) -> None:
    """Inputs then stay in fp32, which loses less than what calibration measured; for zeros anywhere it is smaller."""
    program = compiled(*classifier, monkeypatch, "gaps_int8", "joined")
    assert [choice.kernel for choice in program.choices][1] == "gaps_int8"
    assert torch.equal(run.load(run.save(program, tmp_path / "program"))(pictures(2)), program(pictures(2)))
    layer, kept = random_layer(8, 12, 0.5), [each for each in GAPS_OF_NUMBERS if each.weights == "int8"]
    assert kept[0].accepts(layer, HERE, INT8) == "fp32 weights were asked for"


def test_inputs_that_become_bytes_are_counted_where_they_have_none(monkeypatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(507, 9)).eval()
    quantisation = run.calibrate(model, [pictures(4)], method="min-max")
    let_win(monkeypatch, alone={"quad_gaps_int8"}, together={"fastest", "joined"})
    program = run.compile(model, pictures(1), precision="int8", quantisation=quantisation, kernels=[GAPS])
    x = torch.zeros(1, 3, 13, 13)
    x[0, 0, 0, :3] = torch.tensor([1e6, -1e6, torch.nan])
    assert program.saturated(x) == 3
