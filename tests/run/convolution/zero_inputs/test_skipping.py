"""What both kernels that skip the zeros of a convolution's input have in common: how they are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from run.convolution.zero_inputs.pictures import images, layer_of
from run.drawn import HERE
from torch import Tensor

from zeroskip.errors import EngineError
from zeroskip.run.convolution.zero_inputs import gather, scatter
from zeroskip.run.convolution.zero_inputs.compiled_convolution import CompiledConvolution

Build = Callable[..., CompiledConvolution]
by_both = pytest.mark.parametrize("build", [gather.build, scatter.build], ids=["gather", "scatter"])


@by_both
def test_a_convolution_without_bias_adds_none(build: Build) -> None:
    layer = replace(layer_of(5, 6, (3, 3), (6, 6)), bias=None)
    y = build(layer, HERE, False)(torch.zeros(2, *layer.input_shape))
    assert torch.count_nonzero(y) == 0


@by_both
def test_images_in_any_layout_give_one_output_stored_pixel_by_pixel(build: Build) -> None:
    layer = layer_of(6, 8, (3, 3), (7, 5))
    function = build(layer, HERE, False)
    x = images(layer, 3, 0.6)
    wide = torch.zeros(3, 6, 7, 10)
    wide[..., ::2] = x
    answers = [function(one) for one in (x, x.contiguous(memory_format=torch.channels_last), wide[..., ::2])]
    assert all(torch.equal(answers[0], one) for one in answers)
    assert answers[0].is_contiguous(memory_format=torch.channels_last)


@by_both
@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(2, 6, 5, 7), torch.zeros(6, 7, 5), torch.zeros(2, 6, 7, 5).double()],
    ids=["sides exchanged", "no batch", "float64"],
)
def test_a_wrong_input_is_refused_before_machine_code_reads_it(build: Build, wrong: Tensor) -> None:
    function = build(layer_of(6, 8, (3, 3), (7, 5)), HERE, False)
    with pytest.raises(EngineError, match=r"float32 \(batch, 6, 7, 5\)"):
        function(wrong)
