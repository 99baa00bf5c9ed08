"""The published figures as data: complete, and consistent with themselves where the papers are."""

from __future__ import annotations

import pytest

from zeroskip.papers.common.network_sizes import NETWORKS, parameters, sizes
from zeroskip.papers.common.paper import title
from zeroskip.papers.common.rules import figure
from zeroskip.papers.deep_compression import published as dc
from zeroskip.papers.han2015 import published as han

LAYERS = {"lenet-300-100": 3, "lenet-5": 4, "alexnet": 8, "vgg16": 16}


def value(printed: str) -> float:
    return figure(printed).value


@pytest.mark.parametrize("network", LAYERS)
def test_both_papers_have_3_4_8_and_16_layers_and_the_same_weights_and_shares(network: str) -> None:
    ours, theirs = han.LAYERS[network], dc.LAYERS[network]
    assert len(ours) == len(theirs) == len(sizes(network)) == LAYERS[network]
    assert [(one.weights, one.kept) for one in ours] == [(one.weights, one.kept) for one in theirs]
    assert (han.TOTALS[network].weights, han.TOTALS[network].kept) == (
        dc.TOTALS[network].weights,
        dc.TOTALS[network].kept,
    )


@pytest.mark.parametrize("network", LAYERS)
def test_weights_and_flop_of_the_layers_add_up_to_the_printed_totals(network: str) -> None:
    for key in ("weights", "flop"):
        told = figure(getattr(han.TOTALS[network], key))
        parts = [figure(getattr(layer, key)) for layer in han.LAYERS[network]]
        slack = told.digit + sum(part.digit for part in parts)
        assert sum(part.value for part in parts) == pytest.approx(told.value, abs=slack)


@pytest.mark.parametrize("network", LAYERS)
def test_stored_shares_of_the_layers_add_up_to_the_printed_totals_within_a_quarter_of_a_point(
    network: str,
) -> None:
    whole = sum(size.weights for size in sizes(network))
    for key in ("stored", "stored_huffman"):
        parts = zip(sizes(network), dc.LAYERS[network], strict=True)
        total = sum(size.weights * value(getattr(layer, key)) for size, layer in parts) / whole
        assert total == pytest.approx(value(getattr(dc.TOTALS[network], key)), abs=0.25)


def test_both_papers_start_from_the_same_errors() -> None:
    for network in LAYERS:
        assert han.TABLE1[network].error == dc.TABLE1[network].error
        assert han.TABLE1[network].top5 == dc.TABLE1[network].top5


def test_every_share_is_one_and_huffman_never_makes_a_layer_larger() -> None:
    for network in LAYERS:
        for one in (*han.LAYERS[network], han.TOTALS[network]):
            assert all(0 < value(share) <= 100 for share in (one.output, one.kept, one.work))
        assert all(value(one.work) <= value(one.kept) for one in han.LAYERS[network])
        for layer in (*dc.LAYERS[network], dc.TOTALS[network]):
            assert value(layer.stored_huffman) < value(layer.stored) < 100


def test_an_energy_is_printed_in_picojoules_and_in_integer_additions() -> None:
    for _, picojoules, times in han.ENERGY:
        assert value(picojoules) == pytest.approx(value(times) * 0.1)


def test_table_8_has_six_layers_on_three_machines_at_two_batches() -> None:
    assert len(dc.TABLE8) == 6
    assert {machine for machine, _ in dc.TABLE8} == set(dc.TABLE8_TEXT)
    assert all(len(times) == len(dc.TABLE8_LAYERS) == 6 for pair in dc.TABLE8.values() for times in pair)


def test_exact_sizes_of_the_four_networks() -> None:
    weights = {network: sum(size.weights for size in sizes(network)) for network in NETWORKS}
    assert weights == {
        "lenet-300-100": 266_200,
        "lenet-5": 430_500,
        "alexnet": 60_954_656,
        "vgg16": 138_344_128,
    }
    assert [parameters(network) for network in LAYERS] == [266_610, 431_080, 60_965_224, 138_357_544]


def test_outputs_are_counted_after_pooling() -> None:
    assert [size.outputs for size in sizes("lenet-5")] == [20 * 12 * 12, 50 * 4 * 4, 500, 10]
    assert [size.outputs for size in sizes("alexnet")][:2] == [96 * 27 * 27, 256 * 13 * 13]


def test_a_network_without_published_figures_goes_by_its_own_word() -> None:
    assert [title(one) for one in ("vgg16", "digits")] == ["VGG-16", "digits"]
