"""What is no quantisation is refused wherever one is taken, and so are files of another kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zeroskip import run
from zeroskip.errors import EngineError
from zeroskip.run import quantisation as quantisations


def network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3)).eval(), torch.randn(2, 1, 5, 5)


def test_what_is_no_quantisation_is_refused_in_a_sentence(tmp_path: Path) -> None:
    model, x = network()
    good = run.calibrate(model, [x], method="min-max")
    name, layer = next(iter(good.values)), next(iter(good.weights))
    bad: dict[str, Any] = {
        "quantisation is a dict. Give what run.calibrate": {},
        f"has a tuple for {name}. Calibrate it again": replace(good, values={name: (1.0, 0)}),  # type: ignore[dict-item]
        f"has a list for {layer}. Calibrate": replace(good, weights={layer: [1.0, 1.0]}),  # type: ignore[dict-item]
        f"has a str for {layer}. Calibrate": replace(good, errors={layer: "0"}),  # type: ignore[dict-item]
    }
    path = run.save_onnx(model, x, tmp_path / "fp32.onnx")
    ways: list[Callable[[Any], object]] = [
        lambda given: run.rounded(model, x, given),
        lambda given: run.compile(model, x, precision="int8", quantisation=given),
        lambda given: run.save_onnx(model, x, tmp_path / "net.onnx", quantisation=given),
        lambda given: run.onnx_difference(path, model, x, quantisation=given),
        lambda given: quantisations.save(given, tmp_path / "scales"),
    ]
    for words, given in bad.items():
        for way in ways:
            with pytest.raises(EngineError, match=words):
                way(given)
    assert [each.name for each in tmp_path.iterdir()] == ["fp32.onnx"]


def test_files_of_another_kind_are_refused_in_a_sentence(tmp_path: Path) -> None:
    model, x = network()
    quantisation = run.calibrate(model, [x], method="min-max")
    scales = quantisations.save(quantisation, tmp_path / "scales")
    program = run.save(
        run.compile(model, x, precision="int8", quantisation=quantisation), tmp_path / "program"
    )
    with pytest.raises(EngineError, match="holds no program that can run here: it is another file"):
        run.load(scales)
    with pytest.raises(EngineError, match="holds no quantisation: it is another file"):
        quantisations.load(program)


def test_batches_for_an_onnx_file_are_several(tmp_path: Path) -> None:
    model, x = network()
    path = run.save_onnx(model, x, tmp_path / "net.onnx")
    for wrong in (3, x, {"x": x}):
        with pytest.raises(EngineError, match="needs several batches"):
            run.quantisation_from_onnx(path, model, x, batches=wrong)  # type: ignore[arg-type]


def test_a_transposed_convolution_at_the_end_of_an_onnx_file_needs_batches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.ConvTranspose2d(2, 3, 3, stride=2)).eval(), torch.randn(2, 2, 5, 5)
    quantisation = run.calibrate(model, [x], method="min-max")
    path = run.save_onnx(model, x, tmp_path / "net.onnx", quantisation=quantisation)
    with pytest.raises(EngineError, match=r"has no scale for what .* reads or makes .*Give batches"):
        run.quantisation_from_onnx(path, model, x)
    assert run.quantisation_from_onnx(path, model, x, batches=[x]).error < 0.05
