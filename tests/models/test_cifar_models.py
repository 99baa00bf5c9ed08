"""The networks for small images: Caffe's and He's for CIFAR-10, LeNet as Caffe has it, and one that reads rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroskip import run_folder
from zeroskip.data import mnist
from zeroskip.models import AlexNetCifar, LeNet5, LSTMClassifier, resnet20, resnet56
from zeroskip.models.lenet import caffe_names
from zeroskip.models.resnet import BasicBlock, Padding, cifar_names


def parameters(model: nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())


def test_cifar10_quick_has_the_145_578_parameters_of_caffes() -> None:
    assert parameters(AlexNetCifar()) == 145_578
    assert AlexNetCifar(classes=7)(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_cifar10_quick_pools_as_caffe_does_with_partial_windows_at_the_border() -> None:
    torch.manual_seed(0)
    model, x = AlexNetCifar().eval(), torch.randn(1, 3, 32, 32)
    padded = F.pad(model.conv1(x), (0, 1, 0, 1), value=-torch.inf)
    first = F.relu(F.max_pool2d(padded, 3, 2))  # (1, 32, 16, 16)
    maps = F.relu(model.conv2(first))
    ones = torch.ones_like(maps)
    sums, sizes = (F.avg_pool2d(F.pad(one, (0, 1, 0, 1)), 3, 2) for one in (maps, ones))
    second = F.relu(model.conv3(sums / sizes))  # each mean over the pixels that there are
    sums, sizes = (F.avg_pool2d(F.pad(one, (0, 1, 0, 1)), 3, 2) for one in (second, torch.ones_like(second)))
    expected = model.fc2(model.fc1((sums / sizes).flatten(1)))
    torch.testing.assert_close(model(x), expected)


def test_resnets_with_option_a_have_the_269_722_and_853_018_parameters_of_the_papers() -> None:
    assert parameters(resnet20(option="A")) == 269_722
    assert parameters(resnet56(option="A")) == 853_018


def test_option_a_takes_every_second_pixel_between_zero_channels() -> None:
    x = torch.arange(32.0).view(1, 2, 4, 4)
    y = Padding(1)(x)
    assert y.shape == (1, 4, 2, 2)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert not y[:, [0, 3]].any()
    block = BasicBlock(2, 4, 2, option="A").eval()
    nn.init.zeros_(block.conv2.weight)
    assert torch.equal(block(x), y)


def test_an_lstm_reads_rows_in_order_and_answers_after_the_last() -> None:
    torch.manual_seed(0)
    model, images = LSTMClassifier(features=5, hidden=3, classes=2), torch.randn(4, 1, 6, 5)
    state, cell = torch.zeros(4, 3), torch.zeros(4, 3)
    for row in images[:, 0].unbind(1):
        gates = F.linear(row, model.lstm.weight_ih_l0, model.lstm.bias_ih_l0)
        gates = gates + F.linear(state, model.lstm.weight_hh_l0, model.lstm.bias_hh_l0)
        enter, forget, value, leave = gates.chunk(4, 1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * value.tanh()
        state = leave.sigmoid() * cell.tanh()
    torch.testing.assert_close(model(images), model.fc(state))
    torch.testing.assert_close(model(images[:, 0]), model(images))


@torch.inference_mode()
def right(model: nn.Module, inputs: Tensor, targets: Tensor) -> int:
    return int((model.eval()(inputs).argmax(1) == targets).sum())


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("build", "name", "expected"), [(resnet20, "resnet20", 94), (resnet56, "resnet56", 96)]
)
def test_published_resnets_classify_94_and_96_of_100_lossless_test_images(
    trained_folder, build, name, expected
) -> None:
    images = np.load(trained_folder / "cifar10" / "cifar10_test100_lossless.npz")
    pixels = torch.from_numpy(images["x"]).permute(0, 3, 1, 2) / 255  # (100, 3, 32, 32)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    model = build(option="A")
    model.load_state_dict(
        cifar_names(run_folder.load_tensors(trained_folder / "weights" / f"{name}_cifar10.safetensors"))
    )
    assert right(model, (pixels - mean) / std, torch.from_numpy(images["y"])) == expected


@pytest.mark.slow
@pytest.mark.real_data
def test_caffes_lenet_classifies_9907_of_10000_test_images(trained_folder: Path) -> None:
    model, test = LeNet5(rectified=False), mnist.load(trained_folder).test
    model.load_state_dict(
        caffe_names(run_folder.load_tensors(trained_folder / "weights" / "lenet5_caffe_mnist.safetensors"))
    )
    pixels = test.inputs * (255 * 0.00390625)
    assert (
        sum(right(model, *part) for part in zip(pixels.split(1000), test.targets.split(1000), strict=True))
        == 9907
    )
