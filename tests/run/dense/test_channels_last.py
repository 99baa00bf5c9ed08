"""Convolutions pixel by pixel: the same answers, and chosen only where the whole network can live with them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from run.drawn import let_win
from torch import Tensor, nn

from zeroskip import run
from zeroskip.concepts import Layer, Precision
from zeroskip.emit import detect
from zeroskip.run.dense import channels_last, pytorch


def conv(**options: int) -> Layer:
    module = nn.Conv2d(4, 8, 3, **options).requires_grad_(False)  # type: ignore[arg-type]
    sizes = {"stride": module.stride, "padding": module.padding, "dilation": module.dilation}
    shape = tuple(module(torch.zeros(1, 4, 9, 7)).shape[1:])
    return Layer("c", "conv2d", module.weight, module.bias, (4, 9, 7), shape, groups=module.groups, **sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"groups": 4, "padding": 2}]
)
def test_it_computes_what_pytorch_does_and_leaves_images_pixel_by_pixel(
    options: dict[str, int], relu: bool
) -> None:
    layer, x = conv(**options), torch.randn(3, 4, 9, 7)
    y = channels_last.build(layer, detect(), Precision(), relu)(x)
    torch.testing.assert_close(y, pytorch.reference(layer, x, relu))
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("packed", [True, False], ids=["weight laid out once", "without oneDNN"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_batches_of_any_size_go_with_and_without_onednn(
    count: int, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not packed:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    layer, x = conv(padding=1), torch.randn(count, 4, 9, 7)
    y = channels_last.build(layer, detect(), Precision(), True)(x)
    torch.testing.assert_close(y, pytorch.reference(layer, x, True))


@pytest.mark.parametrize("relu", [False, True])
def test_not_a_number_stays_one(relu: bool) -> None:
    layer, x = conv(padding=1), torch.randn(2, 4, 9, 7)
    x[1, 2, 4, 4], x[0, 0, 0, 0] = torch.nan, torch.inf
    y = channels_last.build(layer, detect(), Precision(), relu)(x)
    torch.testing.assert_close(y, pytorch.reference(layer, x, relu), equal_nan=True)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_padding_in_words_and_float64_are_left_to_plain_pytorch() -> None:
    module = nn.Conv2d(4, 8, 2, padding="same").requires_grad_(False)
    words = replace(conv(), weight=module.weight, bias=module.bias, padding="same", output_shape=(8, 9, 7))
    double = replace(conv(), weight=conv().weight.double(), bias=None)
    for layer, x in ((words, torch.randn(2, 4, 9, 7)), (double, torch.randn(2, 4, 9, 7).double())):
        y = channels_last.build(layer, detect(), Precision(), False)(x)
        torch.testing.assert_close(y, pytorch.reference(layer, x, False))


def test_it_refuses_linear_layers_in_words() -> None:
    linear = Layer("fc", "linear", torch.zeros(2, 3), None, (3,), (2,))
    assert channels_last.accepts(linear, detect(), Precision()) == "a layout of images, and linear has none"
    assert channels_last.accepts(conv(), detect(), Precision()) is None


class Viewing(nn.Module):
    """Its view cannot be taken of an image stored pixel by pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 2, 3), nn.Linear(72, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.conv(x)).view(len(x), 72))


def test_a_network_that_can_take_it_is_run_with_it_and_answers_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    let_win(monkeypatch, alone={"dense"}, together={"pixelwise"})
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3)
    ).eval()
    x = torch.randn(5, 1, 8, 8)
    program = run.compile(model, x)
    assert {choice.kernel for choice in program.choices if choice.op == "conv2d"} == {"channels_last"}
    torch.testing.assert_close(program(x), model(x).detach())


def test_a_network_with_a_view_in_the_way_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    let_win(monkeypatch, alone={"dense"}, together={"pixelwise"})
    model, x = Viewing().eval(), torch.randn(5, 1, 8, 8)
    program = run.compile(model, x)
    torch.testing.assert_close(program(x), model(x).detach())
