"""Minerva's power: the simulator against sums by hand, and the rows that come from the stored findings."""

from __future__ import annotations

import statistics
from dataclasses import replace
from math import sqrt
from typing import Any

import pytest

from zeroskip.papers import PaperRow, committed
from zeroskip.papers.common.findings import read
from zeroskip.papers.minerva import power, rows
from zeroskip.papers.minerva.findings import MinervaFindings, MinervaLayer, NetworkMacs
from zeroskip.papers.minerva.published import TABLE1
from zeroskip.simulate import chips, estimate
from zeroskip.simulate.workload import count_macs

PLAIN, CLOCKED = power.PRICES
ANY, ZEROS = power.GATING
# Picojoules of one MAC by hand: 8 bits of a weight from one of 16 memories of 64 KB and a multiplication of 8 x 8 bits
# where it is done; always 8 bits of an input from 32 KB, shared by 16 lanes.
DONE = 8 * 10 / 64 * sqrt(64 / 8) + 0.9 / 4
ALWAYS = 8 * 10 / 64 * sqrt(32 / 8) / 16
CLOCK = 0.2046 * 9.157 / 0.8  # 20.46 % of 9.157 mW at 800 MHz
LAYERS = {  # WebKB's widths: 3418, 128, 32, 128, 4
    "fc1": MinervaLayer(437_504, nonzero=128 * 300, kept=128 * 100),
    "fc2": MinervaLayer(4_096, nonzero=32 * 64, kept=32 * 32),
    "fc3": MinervaLayer(4_096, nonzero=128 * 16, kept=128 * 16),
    "fc4": MinervaLayer(512, nonzero=4 * 100.25, kept=4 * 50.5),
}
ALL = sum(layer.macs for layer in LAYERS.values())
NONZERO = sum(layer.nonzero for layer in LAYERS.values())
KEPT = sum(layer.kept for layer in LAYERS.values())
MACS_LEFT = {
    "nonzero": {name: (layer.macs, layer.nonzero) for name, layer in LAYERS.items()},
    "kept": {name: (layer.macs, layer.kept) for name, layer in LAYERS.items()},
}


def stored() -> dict[str, Any]:
    return {one.network: one.findings for one in committed() if one.paper == "minerva"}


def power_rows(network: str, findings: dict[str, Any]) -> list[PaperRow]:
    return [row for row in rows.measured_rows(network, findings) if row.table == rows.POWER]


def test_masks_hold_the_macs_that_the_findings_tell() -> None:
    for count, expected in (("nonzero", NONZERO), ("kept", KEPT)):
        works = power.workloads("minerva-webkb", MACS_LEFT[count])
        assert sum(one.macs for one in works) == 64 * ALL
        assert sum(count_macs(one).both for one in works) == 64 * expected


def test_power_saved_by_memories_and_macs_is_that_of_a_sum_by_hand() -> None:
    found = power.saved("minerva-webkb", LAYERS)[PLAIN]
    after = ALL * ALWAYS + KEPT * DONE
    assert found[ANY] == pytest.approx(ALL * (ALWAYS + DONE) / after, rel=1e-6)
    assert found[ZEROS] == pytest.approx((ALL * ALWAYS + NONZERO * DONE) / after, rel=1e-6)


def test_a_clock_stays_whatever_is_gated_also_in_lanes_without_an_output() -> None:
    """Of fc4's 4 outputs on 16 lanes, 12 lanes idle: 2,048 slots for 512 MACs."""
    found = power.saved("minerva-webkb", LAYERS)[CLOCKED]
    clock = CLOCK * (ALL + 3 * 512)
    after = ALL * ALWAYS + KEPT * DONE + clock
    assert found[ANY] == pytest.approx((ALL * (ALWAYS + DONE) + clock) / after, rel=1e-6)
    assert 1 < found[ZEROS] < power.saved("minerva-webkb", LAYERS)[PLAIN][ZEROS]


def test_no_cycle_differs_between_the_three_powers() -> None:
    before, after = (power.workloads("minerva-webkb", MACS_LEFT[count]) for count in ("nonzero", "kept"))
    pairs = [(before, power.GATING[ANY]), (before, chips.MINERVA), (after, chips.MINERVA)]
    assert len({estimate(works, machine).cycles for works, machine in pairs}) == 1


def test_power_is_that_of_16_lanes_at_250_mhz_without_any_dram() -> None:
    """Each lane with an output takes a weight and its share of an input in every cycle."""
    works = power.workloads(
        "minerva-mnist", {n: (one.macs, one.macs) for n, one in power.evenly("minerva-mnist", 1.0).items()}
    )
    watts = power.watts(works, chips.MINERVA, power.PRICES[PLAIN])
    busy = 334_336 / (16 * (784 * 16 + 256 * 16 + 256 * 16 + 256))  # lanes with an output
    assert watts == pytest.approx(250e6 * 16 * busy * (ALWAYS + DONE) * 1e-12, rel=1e-6)


def test_where_nothing_is_pruned_nothing_is_saved_and_where_all_is_only_inputs_are_read() -> None:
    none = power.saved("minerva-forest", power.evenly("minerva-forest", 1.0))
    assert none == {prices: {ANY: 1.0, ZEROS: 1.0} for prices in power.PRICES}
    almost = power.saved("minerva-forest", power.evenly("minerva-forest", 0.001))
    assert almost[PLAIN][ANY] == pytest.approx((ALWAYS + DONE) / (ALWAYS + 0.001 * DONE), rel=2e-2)


def test_at_the_published_75_percent_the_simulator_is_within_15_percent_of_2_only_with_a_clock() -> None:
    plain, clocked = (row for row in rows.analytic() if row.table == rows.POWER)
    assert plain.ours == pytest.approx((ALWAYS + DONE) / (ALWAYS + DONE / 4), rel=1e-6)
    assert clocked.ours == pytest.approx(1.82, abs=0.005)
    assert (plain.holds, clocked.holds) == (False, True)
    assert "neither clock nor leakage" in plain.reason


def test_each_network_has_one_row_with_the_clock_and_its_own_share_of_macs_skipped() -> None:
    for network in TABLE1:
        findings = read(MinervaFindings, stored()[network])
        dense, zeros = power.saved(network, findings.layers)[CLOCKED].values()
        (row,) = power_rows(network, stored()[network])
        share = f"{100 * findings.macs.skipped:.0f} %"
        assert row.ours == f"{dense:.2f}x at {share}; {zeros:.2f}x where exact zeros are gated already"
        assert row.published == "2.0x at 75 %, mean of the five"
        assert row.holds is True
        assert dense > zeros > 1


@pytest.mark.parametrize(("share", "holds"), [(0.7, True), (0.78, False), (0.95, True)])
def test_above_75_percent_skipped_a_network_has_to_exceed_2_and_below_it_must_not(
    share: float, holds: bool
) -> None:
    layers = power.evenly("minerva-mnist", 1 - share)
    stored_findings = read(MinervaFindings, stored()["minerva-mnist"])
    macs = NetworkMacs(all=1.0, zero_inputs=0.0, zero_activations=0.0, nonzero=1.0, kept=1 - share)
    table = rows._power("minerva-mnist", replace(stored_findings, layers=layers, macs=macs))
    assert [row.holds for row in table] == [holds]


def test_the_stored_means_are_those_of_the_five_and_are_judged_against_2() -> None:
    found = stored()
    five = [power.saved(network, read(MinervaFindings, found[network]).layers) for network in TABLE1]
    means = [
        statistics.fmean(one[prices][gated] for one in five)
        for gated in power.GATING
        for prices in power.PRICES
    ]
    listed = power_rows(rows.MEAN, found[rows.MEAN])
    assert [row.ours for row in listed] == pytest.approx(means)
    assert [row.published for row in listed] == [2.0] * 4
    assert [row.holds for row in listed] == [abs(mean - 2) <= 0.3 for mean in means]
    assert {row.row for row in listed} == {"mean of the five, where we skip 88 % of the MACs, not 75 %"}


def test_findings_from_before_there_were_powers_leave_these_rows_unmeasured_and_no_other() -> None:
    old = {name: value for name, value in stored()[rows.MEAN].items() if name != "power"}
    listed = rows.measured_rows(rows.MEAN, old)
    assert {row.table for row in listed if row.holds is None} == {rows.POWER}
