"""Layers as PyTorch computes them, in float32 and in bfloat16."""

from __future__ import annotations

from dataclasses import replace

import torch
from run.drawn import HERE, random_layer
from torch import nn

from zeroskip.concepts import Precision
from zeroskip.graph import layers
from zeroskip.graph.layer_functions import OPS
from zeroskip.run.dense import bfloat16, pytorch


def test_dense_knows_every_weighted_operation_and_refuses_the_rest() -> None:
    layer = random_layer(3, 4, 0.5)
    for op in OPS:
        assert pytorch.accepts(replace(layer, op=op), HERE, Precision()) is None
    assert pytorch.accepts(replace(layer, op="lstm"), HERE, Precision()) == "knows no lstm"


def test_dense_runs_a_convolution_with_its_stride_padding_dilation_and_groups() -> None:
    model = nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2)
    x = torch.randn(3, 4, 9, 9)
    (layer,) = layers(model, x)
    function = pytorch.build(layer, HERE, Precision(), True)
    torch.testing.assert_close(function(x), model(x).relu())


def test_bf16_is_computed_where_it_was_asked_for() -> None:
    reason = bfloat16.accepts(random_layer(3, 40, 0.5), HERE, Precision(weights="fp32"))
    assert reason == "fp32 arithmetic was asked for"


def test_bf16_rounds_inputs_and_outputs_to_8_bits_and_no_more() -> None:
    layer, x = random_layer(20, 300, 0.5), torch.randn(4, 300)
    y = bfloat16.build(layer, HERE, Precision("bf16"), True)(x)
    assert y.dtype is torch.float32
    size = pytorch.reference(replace(layer, weight=layer.weight.abs()), x.abs(), False)
    assert bool(
        ((y - bfloat16.KERNEL.reference(layer, x, True)).abs() <= bfloat16.KERNEL.tolerance * size).all()
    )
    assert not torch.equal(y, pytorch.reference(layer, x, True))
