"""What holds of every published chip on any layer: sums, roofs, energy, and what zeros and numbers may change."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.errors import AcceleratorError
from zeroskip.simulate import CHIPS, DRAM, TABLES, Geometry, Workload, chips, estimate, of_masks, random_masks
from zeroskip.simulate.energy import per_bit
from zeroskip.simulate.slot_audit import COMPUTE
from zeroskip.simulate.traffic import stored
from zeroskip.simulate.workload import count_macs

EVERY = pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
SPARSITIES = st.sampled_from([0.0, 0.3, 0.7, 0.95])


@st.composite
def layers(draw: st.DrawFn) -> list[Workload]:
    """A linear layer and a convolution, of any small shape, stride and padding, whose inputs are not all zero."""
    seed, examples = draw(st.integers(0, 2**20)), draw(st.integers(1, 2))
    outputs, inputs = draw(st.integers(1, 50)), draw(st.integers(1, 80))
    x = random_masks.random((examples, inputs), draw(SPARSITIES), seed=seed)
    x[0, 0] = True
    linear = of_masks("fc", random_masks.random((outputs, inputs), draw(SPARSITIES), seed=seed + 1), x)
    groups, kernel, channels = draw(st.sampled_from([1, 2])), draw(st.integers(1, 3)), draw(st.integers(1, 6))
    pixels = random_masks.random(
        (examples, groups * channels, *draw(st.tuples(st.integers(3, 9), st.integers(3, 9)))),
        draw(SPARSITIES),
        seed=seed + 2,
    )
    pixels[0, 0, 0, 0] = True
    weight = random_masks.random(
        (groups * draw(st.integers(1, 9)), channels, kernel, kernel), draw(SPARSITIES), seed=seed + 3
    )
    geometry = Geometry(
        stride=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        padding=(draw(st.integers(0, 1)), draw(st.integers(0, 1))),
        groups=groups,
    )
    return [of_masks("conv", weight, pixels, geometry), linear]


@EVERY
@settings(max_examples=8, deadline=None)
@given(works=layers())
def test_every_layer_adds_up(chip, works):
    for layer in estimate(works, chip).layers:
        assert layer.done + layer.gated + layer.skipped == layer.macs
        assert layer.done + layer.gated + sum(layer.idle.values()) == layer.slots
        assert layer.slots == layer.cycles * chip.lanes * chip.width
        assert min(layer.idle.values()) >= 0
        assert 0 <= layer.utilisation <= 1


@EVERY
@settings(max_examples=8, deadline=None)
@given(works=layers())
def test_no_layer_is_faster_than_any_of_its_roofs_and_one_of_them_is_met(chip, works):
    for layer in estimate(works, chip).layers:
        ports = {"DRAM": chip.dram_bytes_per_cycle} | {m.name: m.bytes_per_cycle for m in chip.memories}
        roofs = {name: math.ceil(layer.moved(name) / wide) for name, wide in ports.items()}
        assert layer.cycles >= max(roofs.values())
        assert layer.cycles >= math.ceil((layer.done + layer.gated) / (chip.lanes * chip.width))
        if layer.roof != COMPUTE:
            assert layer.cycles == roofs[layer.roof]
        assert (layer.idle["bandwidth"] > 0) == (layer.roof != COMPUTE)


@EVERY
@settings(max_examples=8, deadline=None)
@given(works=layers(), table=st.sampled_from(sorted(TABLES)), dram=st.sampled_from(sorted(DRAM)))
def test_energy_is_macs_and_bits_at_the_prices_of_the_table(chip, works, table, dram):
    found, prices = estimate(works, chip, energy=table, dram=dram), TABLES[table]
    width = (max(chip.bits["A"], chip.bits["W"]) / 16) ** 2
    for layer in found.layers:
        bits = {memory.name: per_bit(memory, prices) for memory in chip.memories} | {"DRAM": DRAM[dram]}
        expected = (layer.done + layer.idle["useless"]) * prices.mac * width + layer.gated * prices.gated
        expected += layer.cycles * chip.lanes * prices.lane_cycle
        expected += sum(8 * layer.moved(name) * picojoules for name, picojoules in bits.items())
        assert layer.joules == pytest.approx(expected * 1e-12)
    assert found.joules == pytest.approx(sum(layer.joules for layer in found.layers))
    for other in DRAM:
        assert found.joules_with(other) == pytest.approx(
            estimate(works, chip, energy=table, dram=other).joules
        )


@EVERY
@settings(max_examples=8, deadline=None)
@given(works=layers())
def test_a_network_is_the_sum_of_its_layers(chip, works):
    found = estimate(works, chip)
    total = found.total
    assert total.cycles == found.cycles == sum(layer.cycles for layer in found.layers)
    assert total.macs == sum(layer.macs for layer in found.layers)
    for key, count in total.bytes.items():
        assert count == sum(layer.bytes.get(key, 0) for layer in found.layers)
    assert total.roof in {layer.roof for layer in found.layers}
    assert found.seconds == pytest.approx(found.cycles / chip.hertz)
    assert {layer.name for layer in found.layers} | set(found.refused) == {"conv", "fc"}


# Others work on zeros among the weights that they store, or on layers that they count as dense.
@pytest.mark.parametrize(
    "chip", [chip for chip in CHIPS if not chip.stored and not chip.fallback], ids=lambda chip: chip.name
)
@settings(max_examples=8, deadline=None)
@given(works=layers())
def test_what_a_chip_skips_and_gates_decides_which_macs_are_done(chip, works):
    for work, layer in zip(
        works[-len(estimate(works, chip).layers) :], estimate(works, chip).layers, strict=True
    ):
        macs = count_macs(work)
        left = {"": macs.total, "A": macs.input, "W": macs.weight, "AW": macs.both}
        skips = chip.dataflow(work, chip).skips
        taken = chip.skips if skips is None else skips
        assert layer.done + layer.gated == left[taken]
        assert layer.done == left["".join(sorted({*taken, *chip.gates}))]


@EVERY
@settings(max_examples=8, deadline=None)
@given(works=layers(), slower=st.sampled_from([2, 8, 64]))
def test_a_narrower_dram_never_makes_a_layer_faster_and_changes_no_count(chip, works, slower):
    wide = replace(chip, dram_bytes_per_cycle=64.0)
    narrow = replace(chip, dram_bytes_per_cycle=64.0 / slower)
    for fast, slow in zip(estimate(works, wide).layers, estimate(works, narrow).layers, strict=True):
        assert slow.cycles >= fast.cycles
        assert (slow.done, slow.gated, slow.bytes) == (fast.done, fast.gated, fast.bytes)


@EVERY
@settings(max_examples=6, deadline=None)
@given(works=layers())
def test_the_clock_changes_seconds_alone(chip, works):
    slow, fast = (estimate(works, replace(chip, hertz=hertz)) for hertz in (1e8, 4e8))
    assert slow.layers == fast.layers
    assert slow.seconds == pytest.approx(4 * fast.seconds)


@EVERY
@settings(max_examples=6, deadline=None)
@given(works=layers())
def test_the_same_layer_twice_is_the_same_figures_twice(chip, works):
    assert estimate(works, chip) == estimate(works, chip)


# ExTensor fetches only tiles that meet another.
@pytest.mark.parametrize(
    "chip", [chip for chip in CHIPS if chip is not chips.EXTENSOR], ids=lambda chip: chip.name
)
@settings(max_examples=8, deadline=None)
@given(works=layers())
def test_dram_carries_each_operand_at_least_once_as_it_is_stored(chip, works):
    for work, layer in zip(works, estimate(works, replace(chip, fallback=True)).layers, strict=True):
        sizes = stored(work, chip)
        for operand in "AW":
            kept = operand in chip.keeps and layer.bytes["DRAM", operand] == 0
            # Eyeriss rounds its bytes, the others round up; rows of inputs that no filter reads may stay away.
            least = 0 if kept or (chip.name == "Eyeriss" and operand == "A") else sizes[operand].bits / 8 - 1
            assert layer.bytes["DRAM", operand] >= least


@EVERY
@settings(max_examples=6, deadline=None)
@given(works=layers(), data=st.data())
def test_one_more_zero_never_adds_a_mac_that_is_done(chip, works, data):
    for work in works:
        if work.op not in chip.ops:
            continue
        before = estimate([work], chip).layers[0].done
        mask = work.weight.clone()
        places = mask.nonzero()
        if len(places) == 0:
            continue
        mask[tuple(places[data.draw(st.integers(0, len(places) - 1))])] = False
        assert estimate([replace(work, weight=mask)], chip).layers[0].done <= before


@EVERY
def test_layers_of_an_operation_that_no_chip_knows_are_refused_by_name(chip):
    work = of_masks("fc", random_masks.random((4, 4), 0.5), random_masks.random((1, 4), 0.0))
    with pytest.raises(AcceleratorError, match='has no way to run "attention", a softmax'):
        estimate([replace(work, name="attention", op="softmax")], replace(chip, fallback=False))


@EVERY
def test_every_published_chip_is_one_that_contradicts_nothing_and_has_a_name_of_its_own(chip):
    assert [other.name for other in CHIPS].count(chip.name) == 1
    assert chip.dataflow.__doc__
    assert set(chip.ops) <= {"conv2d", "linear"}
