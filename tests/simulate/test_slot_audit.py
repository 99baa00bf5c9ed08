"""Where MACs and slots go: every kind against a loop over all MACs, and the roof that binds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.simulate import CHIPS, chips, random_masks, slot_audit
from zeroskip.simulate.lane_counts import Schedule
from zeroskip.simulate.operations import of_masks
from zeroskip.simulate.slot_audit import Kinds
from zeroskip.simulate.workload import Macs

ZEROS = ("", "A", "W", "AW")


@pytest.mark.parametrize("gates", ZEROS)
@pytest.mark.parametrize("skips", ZEROS)
def test_of_every_mac_it_is_known_whether_it_is_skipped_gated_or_done(skips, gates):
    weights = random_masks.random((1, 12), 0.5, seed=1).flatten().tolist()
    inputs = random_masks.random((1, 12), 0.4, seed=2).flatten().tolist()
    pairs = [(w, a) for w in weights for a in inputs]
    macs = Macs(
        both=sum(w and a for w, a in pairs),
        weight=sum(w for w, _ in pairs),
        input=sum(a for _, a in pairs),
        total=len(pairs),
    )
    done = gated = skipped = 0
    for w, a in pairs:
        zero = {"W": not w, "A": not a}
        if any(zero[operand] for operand in skips):
            skipped += 1
        elif any(zero[operand] for operand in gates):
            gated += 1
        else:
            done += 1
    assert slot_audit.kinds(macs, skips, gates) == Kinds(done, gated, skipped)


def test_a_layer_takes_as_long_as_its_slowest_port_and_is_named_by_it():
    chip = replace(chips.EYERISS, dram_bytes_per_cycle=2.0)
    moved = {("DRAM", "A"): 100, ("DRAM", "W"): 101, ("global buffer", "A"): 1000}
    assert slot_audit.roof(chip, 10, moved) == (101, "DRAM")  # (100 + 101) / 2 rounded up
    assert slot_audit.roof(chip, 10, {("global buffer", "A"): 1551}) == (101, "global buffer")  # / 15.5
    assert slot_audit.roof(chip, 102, moved) == (102, "compute")


def test_computing_is_named_where_a_port_takes_exactly_as_long():
    chip = replace(chips.DENSE, dram_bytes_per_cycle=1)
    assert slot_audit.roof(chip, 50, {("DRAM", "A"): 50}) == (50, "compute")


def test_a_port_without_a_limit_never_binds():
    assert slot_audit.roof(chips.EIE, 1, {("DRAM", "W"): 10**12, ("entries", "W"): 10**12}) == (1, "compute")


@given(
    done=st.integers(0, 60),
    gated=st.integers(0, 30),
    useless=st.integers(0, 10),
    waiting=st.integers(0, 20),
    ramp=st.integers(0, 5),
    stalled=st.integers(0, 5),
)
def test_idle_kinds_are_what_each_step_of_the_schedule_adds(done, gated, useless, waiting, ramp, stalled):
    chip = replace(chips.DENSE, lanes=4, width=2)
    busy = -(-(done + gated + useless) // 2)  # lanes of two multipliers
    cycles = -(-busy // 4) + waiting
    idle = slot_audit.slots(
        chip, Kinds(done, gated, 0), Schedule(cycles, busy, useless), cycles + ramp, cycles + ramp + stalled
    )
    assert idle["useless"] == useless
    assert idle["fragmentation"] == 2 * busy - done - gated - useless <= 1
    assert idle["imbalance"] == 8 * cycles - 2 * busy
    assert (idle["ramp"], idle["bandwidth"]) == (8 * ramp, 8 * stalled)


def test_a_schedule_that_counts_a_slot_twice_is_an_error_of_the_dataflow():
    with pytest.raises(AssertionError, match="dense array"):
        slot_audit.slots(chips.DENSE, Kinds(1000, 0, 0), Schedule(1, 1), 1, 1)


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_the_busy_cycles_of_a_schedule_hold_the_macs_that_the_chip_does(chip):
    weight = random_masks.random((40, 64), 0.7, seed=3)
    work = of_masks("fc", weight, random_masks.random((2, 64), 0.5, seed=4))
    schedule = chip.dataflow(work, chip)
    assert schedule.busy <= schedule.cycles * chip.lanes
    assert schedule.useless >= 0
