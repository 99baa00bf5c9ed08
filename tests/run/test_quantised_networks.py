"""Trained networks in eight bits, calibrated on a few pictures, are right as often as in fp32."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zeroskip import run
from zeroskip.data import cifar10, imagenet
from zeroskip.graph import capture
from zeroskip.run.integer_network import integer_network
from zeroskip.tasks.published_networks import CENTRED, EFFICIENTNET_LITE0, trained, with_weights

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


@pytest.fixture
def sample_folder() -> Path:
    parent = Path(os.environ.get("ZEROSKIP_DATA") or "absent")
    if not (parent / "imagenet_sample" / "labels.csv").is_file() or not (parent / "weights").is_dir():
        pytest.skip("the 200 pictures or the weights are absent: set ZEROSKIP_DATA to their parent")
    return parent


def pictures(folder: Path, preprocess: imagenet.Preprocess) -> tuple[Tensor, Tensor]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*one set of", UserWarning)
        test = imagenet.load(folder)["test"]
    return next(imagenet.batches(test, preprocess, size=len(test)))


@torch.no_grad()
def right(model: nn.Module, seen: Tensor, others: tuple[Tensor, Tensor]) -> tuple[int, int]:
    """How many of the others the network knows in fp32, and in eight bits after calibration on what it has seen."""
    quantisation = run.calibrate(model, seen.split(10))
    integer = integer_network(capture(model, seen[:1]), quantisation)
    counts = torch.zeros(2, dtype=torch.long)
    for inputs, targets in zip(*(each.split(10) for each in others), strict=True):
        answers = model(inputs), integer(inputs)[0]
        counts += torch.stack([(each.argmax(1) == targets).sum() for each in answers])
    return int(counts[0]), int(counts[1])


@pytest.mark.parametrize("name", ["EfficientNet-Lite0", "SqueezeNet"])
def test_calibrated_on_50_pictures_at_most_3_of_150_others_are_lost(sample_folder: Path, name: str) -> None:
    lite = name == "EfficientNet-Lite0"
    model = with_weights(EFFICIENTNET_LITE0, sample_folder) if lite else trained(name, sample_folder)
    inputs, targets = pictures(sample_folder, CENTRED if lite else imagenet.CAFFE)
    seen = torch.arange(len(inputs)) % 4 == 0
    fp32, int8 = right(model, inputs[seen], (inputs[~seen], targets[~seen]))
    assert int8 >= fp32 - 3
    assert int(seen.sum()) == 50


def test_resnet20_on_lossless_pictures_loses_less_than_half_a_point(trained_folder: Path) -> None:
    parts = [cifar10.lossless(part, trained_folder) for part in ("train", "test")]
    inputs, targets = torch.cat([each.inputs for each in parts]), torch.cat([each.targets for each in parts])
    fp32, int8 = right(trained("ResNet-20", trained_folder), inputs[:100], (inputs[100:], targets[100:]))
    assert abs(int8 - fp32) / len(inputs[100:]) < 0.005
