"""A trained network of the race in eight bits: its published weights, and pictures that it knows."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from zeroskip.bench.cases import Case
from zeroskip.data import data_folder, imagenet
from zeroskip.errors import DataError
from zeroskip.tasks.published_networks import EFFICIENTNET_LITE0, with_weights

LITE = "efficientnet_lite0"
EVERY = 4  # of the pictures one in so many is for calibration


def cases() -> list[Case]:
    """EfficientNet-Lite0 with 80 % of its blocks of four zero; DataError where weights or pictures are absent."""
    weights = data_folder("weights")
    if not (weights / EFFICIENTNET_LITE0.file).is_file():
        raise DataError(
            f"there is no {EFFICIENTNET_LITE0.file} in {weights}. Set ZEROSKIP_DATA to its parent."
        )
    imagenet.find()
    return [Case(LITE, 0.80, pattern="1x4", precision="int8")]


def network() -> nn.Module:
    """EfficientNet-Lite0 with its published weights, in evaluation mode."""
    return with_weights(EFFICIENTNET_LITE0, data_folder("weights").parent)


def example(batch: int) -> Tensor:
    """The first pictures that are not for calibration."""
    pictures = _pictures()
    return pictures[torch.arange(len(pictures)) % EVERY != 0][:batch]


def calibration() -> Tensor:
    """A quarter of the pictures."""
    return _pictures()[::EVERY]


@cache
def _pictures() -> Tensor:
    return torch.cat([inputs for inputs, _ in EFFICIENTNET_LITE0.batches(data_folder("weights").parent)])
