"""ONNX files: what we write gives ONNX Runtime our numbers, what others write gives us their scales."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from test_calibration import Branches, pictures
from torch import Tensor, nn
from torch.nn import functional

from zeroskip import run
from zeroskip.errors import EngineError, FileError
from zeroskip.graph import Graph, capture
from zeroskip.run.integer_network import integer_network, layers_in_bytes
from zeroskip.run.integer_reference import byte_weight
from zeroskip.run.onnx_package import answers
from zeroskip.run.onnx_quantised_file import RoundedValue
from zeroskip.run.quantisation import Quantisation


class Case(NamedTuple):
    """A sparse network in eight bits, and the file that we wrote of it."""

    model: nn.Module
    graph: Graph
    quantisation: Quantisation
    path: Path


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    model = Branches().eval()
    with torch.no_grad():
        model.project.weight[:, ::3] = 0.0
    quantisation = run.calibrate(model, [pictures()], method="min-max")
    path = tmp_path_factory.mktemp("onnx") / "int8.onnx"
    run.save_onnx(model, pictures(), path, quantisation=quantisation)
    return Case(model, capture(model, pictures()), quantisation, path)


@pytest.fixture(scope="module")
def plain(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network in fp32."""
    return run.save_onnx(case.model, pictures(), tmp_path_factory.mktemp("onnx") / "fp32.onnx")


def tensors_in(path: Path) -> dict[str, Tensor]:
    found = onnx.load(path).graph.initializer
    return {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in found}


def operations_in(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("as_written", [True, False])
@pytest.mark.parametrize("count", [1, 5])
@torch.no_grad()
def test_onnx_runtime_s_answers_are_ours_up_to_one_step_of_the_last_scale(
    case: Case, as_written: bool, count: int
) -> None:
    x = pictures(count, 3)
    theirs = answers(case.path.read_bytes(), [x], as_written=as_written)[0]
    ours = integer_network(case.graph, case.quantisation)(x)[0]
    step = case.quantisation.values[case.graph.outputs[0]].scale
    assert float((theirs - ours).abs().max()) <= step
    assert float((ours - case.model(x)).abs().max()) > step / 10  # fp32 is further away than rounding


@torch.no_grad()
def test_the_difference_that_is_reported_is_that_of_the_batch(case: Case) -> None:
    found = run.onnx_difference(case.path, case.model, pictures(), quantisation=case.quantisation)
    assert found.layers_in_bytes == 5
    assert found.steps is not None
    assert 0 <= found.steps <= 1


def test_the_file_holds_the_very_bytes_and_scales_of_the_layers(case: Case) -> None:
    stored = tensors_in(case.path)
    for name in ("stem", "left", "right", "depthwise", "project"):
        wanted = byte_weight(case.model.get_submodule(name).weight)
        assert stored[f"{name}.weight.bytes"].dtype is torch.int8
        assert torch.equal(stored[f"{name}.weight.bytes"].float(), wanted.numbers)
        assert torch.equal(stored[f"{name}.weight.scales"], wanted.scales)
        assert stored[f"{name}.bias.bytes"].dtype is torch.int32
    assert torch.equal(stored["fc.weight"], case.model.fc.weight)  # a linear layer of few rows stays in fp32


def test_zeros_stay_zeros_and_fp32_answers_are_pytorch_s(case: Case, plain: Path) -> None:
    assert "QuantizeLinear" not in operations_in(plain)
    assert torch.equal(tensors_in(plain)["project.weight"], case.model.project.weight)
    assert run.onnx_difference(plain, case.model, pictures(5, 2)).share < 1e-5


def test_layers_that_lose_too_much_stay_in_fp32(case: Case, tmp_path: Path) -> None:
    lossy = replace(case.quantisation, errors={**case.quantisation.errors, "relu6": 1.0})
    path = run.save_onnx(case.model, pictures(), tmp_path / "mixed.onnx", quantisation=lossy)
    kept = set(tensors_in(path))
    assert len(layers_in_bytes(lossy)) == len(layers_in_bytes(case.quantisation)) - 1
    assert "stem.weight" in kept
    assert "left.weight.bytes" in kept


def test_our_own_file_gives_back_the_scales_and_so_the_same_bits(case: Case) -> None:
    read = run.quantisation_from_onnx(case.path, case.model, pictures())
    computing = {name for name in case.quantisation.weights if name != case.graph.outputs[0]}
    assert set(read.weights) == computing
    assert all(torch.equal(scales, case.quantisation.weights[name]) for name, scales in read.weights.items())
    assert all(at == case.quantisation.values[name] for name, at in read.values.items())
    programs = [integer_network(case.graph, each) for each in (read, case.quantisation)]
    assert torch.equal(*(each(pictures(3, 5))[0] for each in programs))


class Pictures(CalibrationDataReader):
    def __init__(self) -> None:
        self.left = [{"x": x.numpy()} for x in pictures().split(1)]

    def get_next(self) -> dict[str, Any] | None:
        return self.left.pop() if self.left else None


@pytest.mark.parametrize("signed", [False, True])
@torch.no_grad()
def test_scales_of_a_file_of_quantize_static_become_ours(
    case: Case, plain: Path, tmp_path: Path, signed: bool
) -> None:
    path, kind = tmp_path / "static.onnx", QuantType.QInt8 if signed else QuantType.QUInt8
    quantize_static(
        plain, path, Pictures(), quant_format=QuantFormat.QDQ, activation_type=kind,
        weight_type=QuantType.QInt8, per_channel=not signed,
    )  # fmt: skip
    read = run.quantisation_from_onnx(path, case.model, pictures())
    assert set(read.weights) == set(case.quantisation.weights)  # the classifier too
    assert {"x", "relu6", "cat", "max_pool2d", "avg_pool2d"} <= set(read.values)
    ours = integer_network(case.graph, read)(pictures(5, 2))[0]
    theirs, exact = answers(path.read_bytes(), [pictures(5, 2)])[0], case.model(pictures(5, 2))
    assert (ours - exact).norm() < 0.05 * exact.norm()
    assert (ours - theirs).norm() < 0.1 * exact.norm()  # theirs rounds the answers too


@given(scale=st.floats(1e-3, 10), zero=st.integers(0, 255))
def test_a_range_of_others_is_covered_by_the_smallest_of_ours(scale: float, zero: int) -> None:
    least, most = -zero * scale, (255 - zero) * scale
    ours = RoundedValue("x", scale, least, most).scaling
    ends = ours.scale * ours.least, ours.scale * ours.most
    assert ends[0] <= least * (1 - 1e-9) + 1e-9
    assert ends[1] >= most * (1 - 1e-9) - 1e-9
    assert any(abs(a - b) < 1e-6 for a, b in zip(ends, (least, most), strict=True))
    assert ours.scale == scale or zero not in (0, 128)


def without_first_pair(path: Path, target: Path) -> Path:
    """The file whose first layer reads what goes in, not rounded."""
    model = onnx.load(path)
    pair = [node for node in model.graph.node if node.input[0] == "x" or node.op_type == "Pad"]
    quantize = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    dequantize = next(node for node in model.graph.node if node.input[0] == quantize.output[0])
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == dequantize.output[0]:
                node.input[place] = quantize.input[0]
    assert pair
    model.graph.node.remove(quantize)
    model.graph.node.remove(dequantize)
    onnx.save(model, target)
    return target


def test_a_value_without_a_scale_is_named_or_calibrated_on_batches(case: Case, tmp_path: Path) -> None:
    path = without_first_pair(case.path, tmp_path / "less.onnx")
    with pytest.raises(EngineError, match=r"has no scale for what .* reads or makes \(x\). Give batches"):
        run.quantisation_from_onnx(path, case.model, pictures())
    read = run.quantisation_from_onnx(path, case.model, pictures(), batches=[pictures()])
    assert "x" in read.values
    assert read.error < 0.05


def test_files_that_give_no_scales_are_refused_in_words(case: Case, plain: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no file of ours")
    other = Branches().eval()
    nn.init.ones_(other.left.weight)
    for path, model, error, words in (
        (plain, case.model, EngineError, "has no layer with int8 weights"),
        (case.path, other, EngineError, "weights are not within half a step of any layer"),
        (tmp_path / "text.onnx", case.model, FileError, "is no ONNX file that can be read"),
        (tmp_path / "absent.onnx", case.model, FileError, "cannot read"),
    ):
        with pytest.raises(error, match=words):
            run.quantisation_from_onnx(path, model, pictures())


class Sized(nn.Module):
    """A network that asks how many examples there are."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.view(x.shape[0], -1)).reshape(x.size(0), 2, 2)


def test_sizes_that_the_network_asks_for_stay_free(tmp_path: Path) -> None:
    model = Sized().eval()
    path = run.save_onnx(model, torch.randn(2, 2, 3), tmp_path / "sized.onnx")
    for count in (1, 2, 7):
        x = torch.randn(count, 2, 3)
        torch.testing.assert_close(answers(path.read_bytes(), [x])[0], model(x).detach())


class Inverse(nn.Module):
    """A network with an operation that ONNX has not."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.erfcx(x)


def test_what_has_no_form_in_onnx_is_named_and_nothing_is_written_or_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = nn.Sequential(nn.Linear(3, 3), Inverse()).eval()
    with pytest.raises(EngineError, match=r"the operation aten::special_erfcx has no form in ONNX"):
        run.save_onnx(model, torch.randn(2, 3), tmp_path / "none.onnx")
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_without_the_packages_one_is_told_what_to_install(
    name: str, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    read: Callable[[], object] = lambda: run.quantisation_from_onnx(case.path, case.model, pictures())
    write: Callable[[], object] = lambda: run.save_onnx(case.model, pictures(), tmp_path / "x.onnx")
    for each in (read, write):
        with pytest.raises(EngineError, match=rf"need the package {name}.*pip install 'zeroskip\[onnx\]'"):
            each()


def test_the_quantisation_of_another_network_is_refused(case: Case, tmp_path: Path) -> None:
    other = Branches().eval()
    with pytest.raises(EngineError, match="the quantisation is of another network"):
        run.save_onnx(other, pictures(), tmp_path / "x.onnx", quantisation=case.quantisation)


def test_layers_with_the_same_weights_keep_their_own_scales(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)).eval()
    model[2].load_state_dict(model[0].state_dict())
    x = torch.randn(3, 4, 6, 6)
    quantisation = run.calibrate(model, [x], method="min-max")
    path = run.save_onnx(model, x, tmp_path / "twins.onnx", quantisation=quantisation)
    assert {"0.weight.bytes", "2.weight.bytes", "0.bias.scales", "2.bias.scales"} <= set(tensors_in(path))
    found = run.onnx_difference(path, model, x, quantisation=quantisation)
    assert found.steps is not None
    assert found.steps <= 1
    read = run.quantisation_from_onnx(path, model, x).values
    assert {name: quantisation.values[name] for name in read} == read


class Moving(nn.Module):
    """Uneven padding, a slice and a concatenation within a quad, a shuffle, a gate, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 1)
        self.gate, self.larger = nn.Conv2d(8, 8, 1), nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.last = nn.Conv2d(6, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(functional.pad(x, (0, 1, 0, 1))).relu()
        x = functional.channel_shuffle(torch.cat([self.second(x)[:, :3], x[:, 3:]], 1), 2)
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return self.last(self.larger(x).relu())


@torch.no_grad()
def test_what_moves_and_gates_bytes_computes_the_same_in_onnx_runtime(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Moving().eval(), torch.randn(2, 3, 8, 8)
    quantisation = run.calibrate(model, [torch.randn(4, 3, 8, 8)], method="min-max")
    path = run.save_onnx(model, x, tmp_path / "moving.onnx", quantisation=quantisation)
    ours = integer_network(capture(model, x), quantisation)(x)[0]
    step = max(each.scale for each in quantisation.values.values())
    assert float((answers(path.read_bytes(), [x])[0] - ours).abs().max()) < step / 100
