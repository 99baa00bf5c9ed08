"""Energies: prices of the tables, events by hand, and conclusions that turn with the DRAM."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.errors import AcceleratorError
from zeroskip.simulate import (
    DRAM,
    TABLES,
    Memory,
    chips,
    estimate,
    less_energy,
    of_masks,
    random_masks,
    undecided,
)
from zeroskip.simulate.energy import (
    EIE_2016,
    EYERISS_2016,
    HAN_2015,
    SPARSELOOP,
    events,
    per_bit,
    prices,
)
from zeroskip.simulate.estimates import Estimate, LayerEstimate
from zeroskip.simulate.slot_audit import Kinds


@pytest.mark.parametrize(("kilobytes", "picojoules"), [(8, 10), (32, 20), (1024, 113)])
def test_64_bits_of_an_sram_cost_what_horowitz_says_within_a_square_root(kilobytes, picojoules):
    # He has 10, 20 and 100 pJ for 8 KB, 32 KB and 1 MB.
    memory = Memory("buffer", kilobytes << 10, {"A": 1})
    assert 64 * per_bit(memory, HAN_2015) == pytest.approx(picojoules, rel=0.01)


@given(capacity=st.integers(1, 1 << 24), instances=st.integers(1, 64))
def test_a_memory_in_several_instances_costs_as_one_of_them(capacity, instances):
    shared = Memory("buffer", capacity * instances, {"A": 1}, instances=instances)
    alone = Memory("buffer", capacity, {"A": 1})
    assert per_bit(shared, HAN_2015) == pytest.approx(per_bit(alone, HAN_2015))
    assert per_bit(alone, HAN_2015) >= HAN_2015.register


def test_a_memory_that_the_table_knows_costs_what_it_says_whatever_its_size():
    pad = Memory("weight pad", 1 << 20, {"W": 1})
    assert per_bit(pad, SPARSELOOP) == 0.710 / 16
    assert per_bit(pad, HAN_2015) > per_bit(replace(pad, capacity=1 << 10), HAN_2015)


def test_a_buffer_of_100_kilobytes_costs_six_macs_an_access_of_16_bits_in_eyeriss_s_table():
    assert 16 * per_bit(Memory("global buffer", 108 << 10, {"A": 1}), EYERISS_2016) == pytest.approx(6)
    assert 16 * per_bit(Memory("another", 100 << 10, {"A": 1}), EYERISS_2016) == pytest.approx(6)


def test_eie_s_64_elements_use_590_milliwatts_at_800_megahertz():
    found = events(
        chips.EIE, prices(EIE_2016, "lpddr4"), Kinds(0, 0, 0), useless=0, cycles=800_000_000, moved={}
    )
    assert found["clock"] * 1e-12 == pytest.approx(64 * 9.157e-3)


@pytest.mark.parametrize(("bits", "share"), [(16, 1), (8, 1 / 4), (4, 1 / 16)])
def test_a_mac_costs_the_square_of_its_width(bits, share):
    chip = replace(chips.DENSE, bits={"A": bits, "W": bits, "O": 16})
    found = events(chip, prices("han2015", "lpddr4"), Kinds(100, 0, 0), useless=0, cycles=1, moved={})
    assert found["MAC"] == pytest.approx(100 * 0.9 * share)


def test_codes_of_4_bits_are_multiplied_as_wide_as_the_inputs():
    found = events(chips.EIE, prices("han2015", "lpddr4"), Kinds(10, 0, 0), useless=5, cycles=1, moved={})
    assert found["MAC"] == pytest.approx(15 * 0.9)  # 16 bits, useless operations included


def test_bytes_of_all_operands_of_a_memory_are_one_event():
    moved = {("DRAM", "A"): 3, ("DRAM", "W"): 4, ("entries", "W"): 5}
    found = events(chips.EIE, prices("han2015", "ddr3"), Kinds(0, 0, 0), useless=0, cycles=1, moved=moved)
    assert found["DRAM"] == 7 * 8 * 70
    entries = next(memory for memory in chips.EIE.memories if memory.name == "entries")
    assert found["entries"] == pytest.approx(5 * 8 * per_bit(entries, HAN_2015))
    assert "activities" not in found


def test_gated_macs_have_a_price_of_their_own():
    found = events(
        chips.MINERVA, prices(SPARSELOOP, "lpddr4"), Kinds(0, 1000, 0), useless=0, cycles=1, moved={}
    )
    assert (found["MAC"], found["gated MAC"]) == (0, pytest.approx(6))


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_table_is_found_by_its_name_and_names_itself(name):
    assert prices(name, "hbm2").table is TABLES[name]
    assert TABLES[name].name == name


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_price_of_a_memory_that_is_no_energy_is_refused_by_its_name(value):
    with pytest.raises(AcceleratorError, match=f"energy table 'mine': entries = {value} pJ"):
        prices(replace(HAN_2015, name="mine", memories={"entries": value}), "lpddr4")


def estimated(chip: str, dram_bytes: int, picojoules: float) -> Estimate:
    """An estimate of a layer that needs so much energy on the chip, and moves so many bytes."""
    bits = 8 * dram_bytes * DRAM["lpddr4"]
    layer = LayerEstimate(
        "fc",
        "linear",
        1,
        1,
        0,
        0,
        1,
        1,
        {},
        {("DRAM", "W"): dram_bytes},
        {"MAC": picojoules, "DRAM": bits},
        "compute",
    )
    return Estimate(chip, 1e9, "han2015", "lpddr4", (layer,), (), 1)


def test_joules_with_another_dram_scale_its_part_alone():
    found = estimated("A", 100, 1000.0)
    assert found.joules == pytest.approx((1000 + 800 * 8) * 1e-12)
    assert found.joules_with("ddr3") == pytest.approx((1000 + 800 * 70) * 1e-12)


def test_an_order_that_every_dram_agrees_on_is_decided():
    better, worse = estimated("better", 10, 100.0), estimated("worse", 20, 200.0)
    assert set(less_energy(better, worse).values()) == {"better"}
    assert undecided([better, worse]) == []
    assert undecided([worse, better]) == []


def test_an_order_that_turns_is_given_with_the_drams_that_turn_it():
    frugal, fast = estimated("frugal", 10, 1000.0), estimated("fast", 20, 100.0)
    # On the chip 900 pJ apart, 80 bits of DRAM: they meet at 11.25 pJ a bit.
    (pair,) = undecided([fast, frugal])
    assert (pair.less, pair.more) == ("fast", "frugal")
    assert set(pair.drams) == {name for name, bit in DRAM.items() if bit > 11.25}


def test_only_neighbours_in_energy_are_compared_and_one_chip_has_none():
    chain = [estimated(name, 10 + place, 100.0 * place) for place, name in enumerate("abc")]
    assert undecided(chain) == []
    assert undecided(chain[:1]) == undecided([]) == []


def test_two_real_chips_agree_with_the_pairs_of_their_joules():
    work = of_masks("fc", random_masks.random((64, 128), 0.9), torch.ones(1, 128) != 0)
    found = [estimate([work], chip) for chip in (chips.EIE, chips.DENSE, chips.SPARTEN)]
    for pair in undecided(found):
        less, more = (next(one for one in found if one.chip == name) for name in (pair.less, pair.more))
        for dram in DRAM:
            assert (less.joules_with(dram) > more.joules_with(dram)) == (dram in pair.drams)
