"""Layers of trained networks on what they really see, as the race gets them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zeroskip import measure
from zeroskip.bench import Case, recorded_layers
from zeroskip.bench.seeded_networks import example, network
from zeroskip.errors import DataError
from zeroskip.tasks import published_networks


@pytest.fixture
def cases(trained_folder: Path) -> list[Case]:
    return recorded_layers.cases()


def test_without_trained_networks_the_reason_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZEROSKIP_DATA", raising=False)
    recorded_layers._layers.cache_clear()
    with pytest.raises(DataError, match="weights"):
        recorded_layers.cases()


@pytest.mark.real_data
def test_every_convolution_behind_a_relu_is_a_case_with_the_zeros_that_it_reads(cases: list[Case]) -> None:
    assert all(case.is_recorded and case.clock == "cpu" for case in cases)
    assert sum(case.network.startswith("ResNet-20/") for case in cases) == 18  # all but the first
    for case in cases[::10]:
        zeros = (example(case) == 0).float().mean().item()
        assert case.input_sparsity == pytest.approx(zeros, abs=1e-4)


@pytest.mark.real_data
def test_a_case_computes_what_the_layer_does_in_its_network(cases: list[Case], trained_folder: Path) -> None:
    pictures, _ = next(iter(published_networks.NETWORKS["ResNet-20"].batches(trained_folder)))
    trace = measure.trace(published_networks.trained("ResNet-20", trained_folder), pictures[:1])
    outputs = {layer.name: y for layer, _, y in trace}
    with torch.no_grad():
        made = network(cases[0])(example(cases[0]))
    assert torch.allclose(made, outputs[cases[0].network.split("/")[1]].relu(), atol=1e-5)
