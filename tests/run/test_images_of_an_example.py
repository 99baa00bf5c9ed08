"""Convolutions whose first axis is not that of the examples: several images in each, or one without a batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zeroskip import run


class TwoFrames(nn.Module):
    """A Siamese network: both frames go through the same convolutions, as one batch of twice as many images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, stride=2)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        y = self.second(self.first(torch.cat([before, after])).relu())
        return y[: len(before)] - y[len(before) :]


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def is_equal(model: nn.Module, program: run.Program, *batch: Tensor) -> bool:
    with torch.no_grad():
        return torch.allclose(program(*batch), model(*batch), rtol=1e-4, atol=1e-5)


def test_a_siamese_network_takes_any_number_of_pairs() -> None:
    model = TwoFrames().eval()
    program = run.compile(model, (images(2, 3, 9, 9), images(2, 3, 9, 9)))
    assert all(is_equal(model, program, images(n, 3, 9, 9), images(n, 3, 9, 9)) for n in (1, 2, 5))


@pytest.mark.parametrize("shape", [(3, 9, 9), (1, 3, 9, 9), (4, 3, 9, 9)], ids=str)
def test_images_may_come_without_a_batch_of_examples(shape: tuple[int, ...]) -> None:
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)).eval()
    program = run.compile(model, images(*shape), batch_axis=None)
    assert is_equal(model, program, images(*shape))


def test_kernels_of_images_say_why_they_leave_one_without_a_batch_alone() -> None:
    program = run.compile(nn.Conv2d(3, 16, 3), images(3, 9, 9), batch_axis=None)
    assert program.choices[0].refused["channels_last"] == "its input is one image, and no batch of them"
