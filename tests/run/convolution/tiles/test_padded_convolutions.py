"""Zeros that a network puts around a map are part of the convolution that reads them, in fp32 and in eight bits."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from captured import answers, operations_in
from torch import Tensor, nn

from zeroskip import run
from zeroskip.graph import capture
from zeroskip.run.integer_network import integer_network
from zeroskip.run.kernels import BY_NAME

AROUND = {  # (left, right, above, below) -> the operations
    (0, 1, 0, 1): ["conv"],  # as TensorFlow pads for a stride of 2
    (1, 2, 1, 2): ["conv"],
    (1, 0, 1, 0): ["rearrange", "conv"],  # with as much on the other side there would be a column more
    (2, 2, 2, 2): ["conv"],
    (0, 5, 0, 5): ["rearrange", "conv"],  # whole windows would see nothing but zeros
    (0, -1, 0, 1): ["rearrange", "conv"],  # a column is cut off
}


def network(around: tuple[int, int, int, int], *, groups: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.ZeroPad2d(around), nn.Conv2d(4, 4, 3, stride=2, groups=groups), nn.ReLU()).eval()


@cache
def pictures() -> Tensor:
    return torch.randn(2, 4, 10, 13, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("groups", [1, 4])
def test_a_padded_convolution_computes_what_pytorch_does(
    around: tuple[int, int, int, int], groups: int
) -> None:
    model = network(around, groups=groups)
    kinds = [each.kind.replace("depthwise", "conv") for each in operations_in(model, pictures())]
    assert kinds == AROUND[around]
    for ours, exact in answers(model, pictures(), images=2, method="streamed"):
        assert (ours - exact).abs().max() < 1e-5


def test_what_another_operation_reads_as_well_stays_a_value() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network((0, 1, 0, 1))[1]

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            padded = nn.functional.pad(x, (0, 1, 0, 1))
            return self.inner(padded), padded.relu()

    kinds = [each.kind for each in operations_in(Twice(), pictures())]
    assert kinds.count("rearrange") == 1


def test_a_program_in_eight_bits_equals_the_reference() -> None:
    model = network((0, 1, 0, 1))
    quantisation = run.calibrate(model, [pictures()], method="min-max")
    kernels = [BY_NAME["streamed_int8"]]
    program = run.compile(model, pictures(), precision="int8", quantisation=quantisation, kernels=kernels)
    expected = integer_network(capture(model, pictures()), quantisation)(pictures())[0]
    assert torch.equal(program(pictures()), expected)


def test_zeros_before_a_transposed_convolution_stay_an_operation_and_are_calibrated() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ZeroPad2d((0, 1, 1, 0)), nn.ConvTranspose2d(4, 3, 3, padding=1)).eval()
    assert [each.kind for each in operations_in(model, pictures())] == ["rearrange", "conv", "rearrange"]
    quantisation = run.calibrate(model, [pictures()], method="min-max")
    assert all(error < 0.02 for error in quantisation.errors.values())
