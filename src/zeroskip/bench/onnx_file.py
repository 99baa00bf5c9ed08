"""The network of a case as an ONNX file, from which other engines read it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroskip.graph import quiet

ATTENTION = "aten::scaled_dot_product_attention"


def write(model: nn.Module, x: Tensor, folder: Path, operations: int) -> None:
    """The network as `folder`/model.onnx, or in no-onnx.txt the reason why there is none.

    operations  the set of them: 11 is what DeepSparse reads best, 13 knows scales of each output
    """
    path = str(folder / "model.onnx")
    try:
        with quiet(), _attention_as_products(operations):
            torch.onnx.export(model, (x,), path, dynamo=False, opset_version=operations, input_names=["x"])
    except Exception as fact:
        (folder / "no-onnx.txt").write_text(str(fact).strip().splitlines()[0])


@contextmanager
def _attention_as_products(operations: int) -> Iterator[None]:
    """Write attention as the products, scale and softmax of a Hugging Face model: what engines look for and fuse.

    torch itself writes it from set 14 on, and scales queries and keys apart.
    """
    torch.onnx.register_custom_op_symbolic(ATTENTION, _products, operations)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(ATTENTION, operations)  # type: ignore[attr-defined]


def _products(g: Any, query: Any, key: Any, value: Any, *options: Any) -> Any:
    """softmax(q k^T / sqrt(features)) v for (batch, heads, tokens, features), without mask."""
    features = query.type().sizes()[-1]
    scale = g.op("Constant", value_t=torch.tensor(math.sqrt(features)))
    scores = g.op(
        "MatMul", query, g.op("Transpose", key, perm_i=[0, 1, 3, 2])
    )  # (batch, heads, tokens, tokens)
    return g.op("MatMul", g.op("Softmax", g.op("Div", scores, scale), axis_i=-1), value)
