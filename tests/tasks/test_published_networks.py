"""Published networks are read right: they answer as well as their publishers say."""

from __future__ import annotations

import pytest
import torch

from zeroskip.tasks import published_networks


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "right"), [("MLP 2x256", 9808), ("MLP 4x256", 9764)])
def test_published_mlps_classify_as_many_of_10000_digits_as_published(
    trained_folder, name: str, right: int
) -> None:
    network = published_networks.trained(name, trained_folder)
    with torch.no_grad():
        found = sum(
            int((network(inputs).argmax(1) == targets).sum())
            for inputs, targets in published_networks.NETWORKS[name].batches(trained_folder)
        )
    assert found == right
