"""The file from which other engines read a network: attention in it is what they look for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from zeroskip import models
from zeroskip.bench import onnx_file


def test_attention_is_written_as_products_and_a_softmax_and_computes_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = models.encoder(models.EncoderSizes(layers=1, width=24, heads=3, hidden=40)).eval()
    x = torch.randn(2, 7, 24)
    onnx_file.write(model, x, tmp_path, 13)
    content = (tmp_path / "model.onnx").read_bytes()
    operations = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert operations.count("MatMul") == 6 + 2
    assert operations.count("Softmax") == operations.count("Erf") == 1
    assert not {"Shape", "Slice", "Einsum"} & set(
        operations
    )  # shapes are known, and engines fuse plain patterns
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], model(x).numpy(), atol=1e-5)


def test_where_a_network_has_no_form_in_onnx_the_reason_is_kept(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.matrix_exp(x)

    onnx_file.write(Odd(), torch.zeros(2, 2), tmp_path, 13)
    assert not (tmp_path / "model.onnx").exists()
    assert "matrix_exp" in (tmp_path / "no-onnx.txt").read_text()
