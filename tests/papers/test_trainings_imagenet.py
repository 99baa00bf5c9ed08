"""The papers' method on ImageNet, as far as a folder of eight pictures and a network of two layers can show it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from zeroskip import prune, run_folder
from zeroskip.concepts import silent
from zeroskip.papers import Setup
from zeroskip.papers.common import trainings
from zeroskip.papers.common.training_plans import PLANS
from zeroskip.papers.deep_compression import train as trained_dc
from zeroskip.papers.han2015 import rows
from zeroskip.papers.han2015 import train as trained_han


class Small(nn.Module):
    """A convolution and two linear layers on 227 x 227 pictures of 1,000 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 11, stride=16)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.fc6, self.fc7 = nn.Linear(64, 16), nn.Linear(16, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.conv1(x))).flatten(1)
        return self.fc7(torch.relu(self.fc6(x)))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imagenet")
    random = np.random.default_rng(0)
    with open(folder / "labels.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "class_index"])
        for index in range(8):
            Image.fromarray(random.integers(0, 255, (256, 256, 3), np.uint8)).save(folder / f"{index}.jpg")
            writer.writerow([f"{index}.jpg", 100 * index])
    return folder


@pytest.fixture
def plan(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ZEROSKIP_DATA", str(pictures))
    torch.manual_seed(0)
    task = replace(PLANS["alexnet"].task, network=Small, batch_size=4)
    weights = Small().state_dict()
    return replace(
        PLANS["alexnet"],
        task=task,
        rounds=1,
        bits=dict.fromkeys(("conv1", "fc6", "fc7"), 4),
        weights=weights,
    )


@pytest.mark.filterwarnings("ignore:.*one set of 8 pictures:UserWarning")
def test_convolutions_and_linear_layers_are_pruned_in_turn_from_the_given_weights(
    plan: Any, tmp_path: Path
) -> None:
    found: Any = trained_han.of_plan(plan, tmp_path / "alexnet", Setup(tmp_path, 1))
    seed = trainings.seeds(plan, tmp_path / "alexnet", 1, silent)[0]
    dense = prune.weights(trainings.dense(seed))
    assert all(torch.equal(dense[name], plan.weights[f"{name}.weight"]) for name in dense)
    folders = sorted(one.name for one in seed.folder.iterdir() if one.is_dir())
    assert folders == sorted(
        [*(f"iterative-{i}" for i in range(1, 5)), *(f"iterative-{i}-fc" for i in range(1, 5))]
    )
    assert found["weights_kept"] == pytest.approx(sum(one.numel() for one in dense.values()) / 9, rel=0.02)
    assert 0 <= found["top5_pruned"] <= found["error_pruned"] <= 1
    assert set(found) >= {"figure6", "figure7", "dead_neurons", "layers", "total"}
    assert "frontier" not in found
    first = next(row for row in rows.measured_rows("alexnet", found) if row.column == "top-5 error")
    assert first.ours == pytest.approx(100 * found["top5_dense"])


@pytest.mark.filterwarnings("ignore:.*one set of 8 pictures:UserWarning")
def test_frozen_layers_keep_their_weights_while_the_others_retrain(plan: Any, tmp_path: Path) -> None:
    seed = trainings.seeds(plan, tmp_path / "alexnet", 1, silent)[0]
    trained_han.iterative(seed)
    conv = plan.weights["conv1.weight"]
    after_fc = run_folder.load_tensors(seed.folder / "iterative-1-fc" / "rounds" / "001.safetensors")
    after_conv = run_folder.load_tensors(seed.folder / "iterative-1" / "rounds" / "001.safetensors")
    assert torch.equal(after_fc["conv1.weight"], conv)
    assert not torch.equal(after_fc["fc6.weight"], plan.weights["fc6.weight"])
    assert torch.equal(after_conv["fc6.weight"], after_fc["fc6.weight"])


@pytest.mark.filterwarnings("ignore:.*one set of 8 pictures:UserWarning")
def test_deep_compression_stores_it_with_8_and_5_bits(plan: Any, tmp_path: Path) -> None:
    found: Any = trained_dc.of_plan(plan, tmp_path / "alexnet", Setup(tmp_path, 1))
    assert found["stored_bytes"] < found["stored_bytes_dense"] / 15
    assert set(PLANS["alexnet"].bits.values()) == {8, 5}
    assert len(PLANS["vgg16"].bits) == 16
