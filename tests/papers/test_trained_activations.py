"""The table of trained networks: its zeros are those of a count by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zeroskip import measure
from zeroskip.papers.common import trained_activations
from zeroskip.tasks import published_networks


@pytest.mark.real_data
def test_the_rows_of_a_resnet_are_its_layers_with_a_brute_force_count(
    trained_folder: Path,
) -> None:
    (resnet,) = trained_activations.measure_trained(trained_folder, names=["ResNet-20"])
    assert (resnet.network, resnet.examples, len(resnet.rows)) == ("ResNet-20", 100, 20)
    network = published_networks.trained("ResNet-20", trained_folder)
    (inputs, _), *_ = published_networks.NETWORKS["ResNet-20"].batches(trained_folder)
    with torch.no_grad():
        seen = {layer.name: (x == 0).double().mean().item() for layer, x, _ in measure.trace(network, inputs)}
    assert {row.layer: row.before for row in resnet.rows} == seen
    last = resnet.rows[18]
    assert (last.channels, last.height, last.width, last.filters, last.kernel) == (64, 8, 8, 64, (3, 3))
    assert last.before == pytest.approx(0.813, abs=0.001)
