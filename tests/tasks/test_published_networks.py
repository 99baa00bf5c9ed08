"""Published networks are read right: they answer as well as their publishers say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from zeroskip.tasks import published


@pytest.fixture(scope="module")
def folder() -> Path:
    parent = os.environ.get("ZEROSKIP_DATA")
    if not parent or not (Path(parent) / "weights").is_dir():
        pytest.skip("trained networks are absent: set ZEROSKIP_DATA to the folder that holds weights/")
    return Path(parent)


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "right"), [("MLP 2x256", 9808), ("MLP 4x256", 9764)])
def test_published_mlps_classify_as_many_of_10000_digits_as_published(folder, name: str, right: int) -> None:
    network = published.trained(name, folder)
    with torch.no_grad():
        found = sum(
            int((network(inputs).argmax(1) == targets).sum())
            for inputs, targets in published.NETWORKS[name].batches(folder)
        )
    assert found == right
