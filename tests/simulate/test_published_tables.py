"""What chips do beyond the papers' own layers and cuts. The papers' tables are in tests/reproduce."""

from __future__ import annotations

import numpy as np

from zeroskip.papers import published_shares
from zeroskip.papers.common import masked_layers
from zeroskip.papers.eyeriss import published
from zeroskip.simulate import chips, estimate
from zeroskip.simulate.dataflows import eyeriss


def test_eyeriss_passes_by_rule_alone_give_alexnet_the_same_elements_and_latencies(monkeypatch):
    monkeypatch.setattr(eyeriss, "PASSES", {})
    layers = masked_layers.masked(
        masked_layers.convolutions("alexnet"),
        masked_layers.NonZeros([1.0] * 5, [1.0] * 5),
        images=published.ALEXNET_IMAGES,
    )
    assert [str(eyeriss.active(layer, chips.EYERISS)) for layer in layers] == list(published.ACTIVE)
    found = estimate(layers, chips.EYERISS)
    ours = np.array([layer.cycles for layer in found.layers]) / found.hertz * 1e3
    assert np.abs(ours / [float(one) for one in published.LATENCIES] - 1).max() < 0.10


def test_sparten_balance_gains_little_where_filters_are_alike():
    layers = published_shares.workloads("alexnet", published_shares.HAN)
    assert 1.0 < masked_layers.faster(layers, chips.SPARTEN_GB_S, chips.SPARTEN) < 1.1
