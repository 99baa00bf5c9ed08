"""What the papers measured or simulated beside our estimates, from published shares of zeros at random places.

Tolerances are wide where the paper's own zeros are not published; tests of ground truth are in test_ground_truth.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from nets import ALEXNET, EYERISS_ALEXNET, HAN_ALEXNET, HAN_VGG16, VGG16, network

from zeroskip.simulate import machines, masks
from zeroskip.simulate.accelerator import Accelerator
from zeroskip.simulate.dataflows import eyeriss
from zeroskip.simulate.dataflows.eyeriss import active
from zeroskip.simulate.engine import estimate
from zeroskip.simulate.results import Estimate
from zeroskip.simulate.workload import Workload, of_masks

# Non-zeros of AlexNet in, out as in Sparseloop's artifact (MICRO 2022).
SPARSELOOP_IN, SPARSELOOP_OUT = [.999, .6, .275, .207, .23], [.378, .169, .303, .304, .1]  # fmt: skip
PLAIN_EYERISS = replace(machines.EYERISS, name="Eyeriss without its code", formats={})


@cache
def alexnet_on_eyeriss(machine: str) -> Estimate:
    layers = network(ALEXNET, [1.0] * 5, SPARSELOOP_IN, outputs=SPARSELOOP_OUT, images=4)
    return estimate(layers, {"with": machines.EYERISS, "without": PLAIN_EYERISS}[machine])


def milliseconds(found: Estimate) -> np.ndarray:
    return np.array([layer.cycles for layer in found.layers]) / found.hertz * 1e3


def computing(layers: list[Workload], machine: Accelerator) -> int:
    """Cycles of the dataflow alone, as the papers' speed-ups count them."""
    return sum(machine.dataflow(layer, machine).cycles for layer in layers)


# --- Eyeriss, a measured chip (Chen et al., JSSC 2017, tables III, V, VI; figure 9)


def test_eyeriss_has_154_135_156_156_156_elements_at_work_on_alexnet():
    layers = network(ALEXNET, [1.0] * 5, [1.0] * 5)
    assert [active(layer, machines.EYERISS) for layer in layers] == [154, 135, 156, 156, 156]


def test_eyeriss_passes_by_rule_alone_give_alexnet_the_same_elements_and_latencies(monkeypatch):
    published = [16.5, 39.2, 21.8, 16.0, 10.0]
    monkeypatch.setattr(eyeriss, "PASSES", {})
    layers = network(ALEXNET, [1.0] * 5, [1.0] * 5, images=4)
    assert [active(layer, machines.EYERISS) for layer in layers] == [154, 135, 156, 156, 156]
    assert np.abs(milliseconds(estimate(layers, machines.EYERISS)) / published - 1).max() < 0.10


def test_eyeriss_processing_latencies_of_alexnet_within_10_percent_each_and_3_in_all():
    ours, published = milliseconds(alexnet_on_eyeriss("with")), np.array([16.5, 39.2, 21.8, 16.0, 10.0])
    assert np.abs(ours / published - 1).max() < 0.10
    assert abs(ours.sum() / 103.5 - 1) < 0.03


def test_eyeriss_processing_latencies_of_vgg16_within_10_percent_each_and_3_in_all():
    # No prediction: the passes are inferred from published traffic (PASSES), the buffer's rate from these latencies.
    # Weights and inputs of ones: the cycles of this chip do not depend on zeros.
    # One image of the three that the paper ran, since this chip takes one VGG image at a time.
    ours = 3 * milliseconds(estimate(network(VGG16, [1.0] * 13, [1.0] * 13), machines.EYERISS))
    first = [38.0, 810.6, 405.3, 810.8, 204.0, 408.1, 408.1]
    published = np.array([*first, 105.1, 210.0, 210.0, 48.3, 48.5, 48.5])
    assert np.abs(ours / published - 1).max() < 0.10
    assert abs(ours.sum() / 3755.2 - 1) < 0.03


def test_eyeriss_dram_ratio_of_its_code_within_0_12_in_5_layers_and_31_to_34_percent_in_all():
    code, plain = (
        np.array([layer.moved("DRAM") for layer in alexnet_on_eyeriss(name).layers])
        for name in ("with", "without")
    )
    np.testing.assert_allclose(plain / code, [1.2, 1.4, 1.7, 1.8, 1.9], atol=0.12)
    assert 0.31 <= 1 - code.sum() / plain.sum() <= 0.34


def test_eyeriss_dram_megabytes_of_alexnet_within_10_percent_each_and_6_in_all():
    ours = np.array([layer.moved("DRAM") for layer in alexnet_on_eyeriss("with").layers]) / 1e6
    assert np.abs(ours / [5.0, 4.0, 3.0, 2.1, 1.3] - 1).max() < 0.10
    assert abs(ours.sum() / 15.4 - 1) < 0.06


def test_eyeriss_gating_saves_45_percent_of_the_energy_in_its_elements_give_or_take_5_points():
    # Random places. The paper's sizes (table I) count the padding as input; here its shares of zeros are taken to do so
    # too, which gives 42 %. If they do not, it is 51 %. What clock and control use is not in either.
    shares = [
        min(1.0, (1 - zeros) * (height + 2 * padding) ** 2 / height**2)
        for zeros, (_, _, height, _, _, _, padding, _) in zip(EYERISS_ALEXNET, ALEXNET, strict=True)
    ]
    layers = network(ALEXNET, [1.0] * 5, shares)
    parts = ("MAC", "gated MAC", "input pad", "weight pad", "sum pad")
    gated, not_gated = (
        sum(found.total.picojoules.get(part, 0.0) for part in parts)
        for found in (
            estimate(layers, machine, energy="sparseloop")
            for machine in (machines.EYERISS, replace(machines.EYERISS, gates=""))
        )
    )
    assert abs(1 - gated / not_gated - 0.45) < 0.05


# --- EIE (Han et al., ISCA 2016, table IV)

EIE = {  # inputs, outputs, % non-zero weights, % non-zero inputs, published microseconds
    "Alex-6": (9216, 4096, 9, 35.1, 30.3),
    "Alex-7": (4096, 4096, 9, 35.3, 12.2),
    "Alex-8": (4096, 1000, 25, 37.5, 9.9),
    "VGG-6": (25088, 4096, 4, 18.3, 34.4),
    "VGG-7": (4096, 4096, 4, 37.5, 8.7),
    "VGG-8": (4096, 1000, 23, 41.1, 8.4),
    "NT-We": (4096, 600, 10, 100, 8.0),
    "NT-Wd": (600, 8791, 11, 100, 13.9),
    "NT-LSTM": (1201, 2400, 10, 100, 7.5),
}
# Spread over filters with which random places give fc8 of AlexNet, at its own shares, 9.7 to 9.8 us; its real
# places take 9.83. Chosen from steps of 0.1 and then left alone.
FITTED_ON_FC8 = 0.2


def microseconds_on_eie(name: str, variation: float) -> float:
    inputs, outputs, weights, seen, _ = EIE[name]
    weight = masks.over_dispersed((outputs, inputs), 1 - weights / 100, variation=variation, seed=3)
    work = of_masks(name, weight, masks.random((1, inputs), 1 - seen / 100, seed=12))
    return computing([work], machines.EIE) / machines.EIE.hertz * 1e6


@pytest.mark.slow
@pytest.mark.parametrize("variation", [0.0, FITTED_ON_FC8])
def test_eie_nine_layers_have_a_median_error_within_10_percent(variation):
    errors = [microseconds_on_eie(name, variation) / EIE[name][-1] - 1 for name in EIE]
    assert np.median(np.abs(errors)) < 0.10
    # VGG-6 is 28 % too fast: its 4 % is a rounded share, and real zeros lie less evenly.
    assert [name for name, error in zip(EIE, errors, strict=True) if abs(error) > 0.17] == ["VGG-6"]


# --- SCNN (Parashar et al., ISCA 2017, section 6)


@pytest.mark.parametrize(
    ("rows", "shares", "published"),
    [(ALEXNET, HAN_ALEXNET, 2.37), (VGG16, HAN_VGG16, 3.52)],
    ids=["AlexNet", "VGG-16"],
)
def test_scnn_over_its_dense_twin_within_15_percent(rows, shares, published):
    layers = network(rows, *shares)
    assert abs(computing(layers, machines.DCNN) / computing(layers, machines.SCNN) / published - 1) < 0.15


def test_scnn_on_fully_dense_inception_modules_within_8_percent_of_0_79():
    layers = network(INCEPTION, [1.0] * len(INCEPTION), [1.0] * len(INCEPTION))
    assert abs(computing(layers, machines.DCNN) / computing(layers, machines.SCNN) / 0.79 - 1) < 0.08


def test_scnn_and_its_dense_twin_are_even_at_a_density_of_0_85_give_or_take_0_1():
    def speedup(share: float) -> float:
        layers = network(INCEPTION, [share] * len(INCEPTION), [share] * len(INCEPTION))
        return computing(layers, machines.DCNN) / computing(layers, machines.SCNN)

    assert speedup(0.95) < 1 < speedup(0.75)


def inception(height: int, channels: int, *widths: int) -> list[tuple]:
    """The six convolutions of a module: 1x1, reductions, 3x3, 5x5, after the pool."""
    one, reduced3, three, reduced5, five, pooled = widths
    pointwise = [(channels, one), (channels, reduced3), (channels, reduced5), (channels, pooled)]
    found = [("1x1", c, height, m, 1, 1, 0, 1) for c, m in pointwise]
    return [*found, ("3x3", reduced3, height, three, 3, 1, 1, 1), ("5x5", reduced5, height, five, 5, 1, 2, 1)]


INCEPTION = [
    *inception(28, 192, 64, 96, 128, 16, 32, 32),
    *inception(28, 256, 128, 128, 192, 32, 96, 64),
    *inception(14, 480, 192, 96, 208, 16, 48, 64),
    *inception(14, 512, 160, 112, 224, 24, 64, 64),
    *inception(14, 512, 128, 128, 256, 24, 64, 64),
    *inception(14, 512, 112, 144, 288, 32, 64, 64),
    *inception(14, 528, 256, 160, 320, 32, 128, 128),
    *inception(7, 832, 256, 160, 320, 32, 128, 128),
    *inception(7, 832, 384, 192, 384, 48, 128, 128),
]


# --- Cnvlutin, SparTen, Cambricon-S: zeros not published layer by layer


@pytest.mark.parametrize("layers", [(ALEXNET, HAN_ALEXNET), (VGG16, HAN_VGG16)], ids=["AlexNet", "VGG-16"])
def test_cnvlutin_over_dadiannao_lies_between_1_1_and_1_6(layers):
    # Published: 1.24 to 1.55, mean 1.37, on inputs sparser than Han's.
    found = network(layers[0], *layers[1])
    assert 1.1 < computing(found, machines.DADIANNAO) / computing(found, machines.CNVLUTIN) < 1.6


def test_sparten_balance_gains_1_2_times_where_filters_differ_and_little_where_they_do_not():
    def gain(variation: float) -> float:
        layers = network(ALEXNET, *HAN_ALEXNET, variation=variation)
        return computing(layers, machines.SPARTEN) / computing(layers, machines.SPARTEN_GB_S)

    assert gain(0.4) > 1.2 > 1.1 > gain(0.0) > 1.0


def test_cambricon_s_over_x_on_block_pruned_alexnet_is_1_71_give_or_take_0_25():
    # Published without the inputs' zeros. Han's and those that Eyeriss met, which are more, enclose it.
    ratios = [_cambricon_s_over_x(inputs) for inputs in (HAN_ALEXNET[1], SPARSELOOP_IN)]
    assert 1.71 - 0.25 <= ratios[0] < 1.71 < ratios[1] <= 1.71 + 0.25


def _cambricon_s_over_x(convolutions: list[float]) -> float:
    weights = [*HAN_ALEXNET[0], 0.09, 0.09, 0.25]
    linear = [(name, inputs, 1, outputs, 1, 1, 0, 1) for name, inputs, outputs in LINEAR]
    free = network([*ALEXNET, *linear], weights, [*convolutions, 0.351, 0.353, 0.375])
    blocks = [_in_blocks(layer, share) for layer, share in zip(free, weights, strict=True)]
    return computing(free, machines.CAMBRICON_X) / computing(blocks, machines.CAMBRICON_S)


LINEAR = (("fc6", 9216, 4096), ("fc7", 4096, 4096), ("fc8", 4096, 1000))


def _in_blocks(layer: Workload, share: float) -> Workload:
    """Blocks of 16 filters of one input, as Cambricon-S prunes convolutions."""
    groups, outputs, *rest = layer.weight.shape
    blocks = masks.random((groups, math.ceil(outputs / 16), *rest), 1 - share)
    return replace(layer, weight=torch.repeat_interleave(blocks, 16, dim=1)[:, :outputs])
