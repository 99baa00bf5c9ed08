"""Every chip against the same chip written naively, one cycle and one MAC at a time: equal, every counter."""

from __future__ import annotations

from dataclasses import replace

import naive_chips as naive
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.simulate import CHIPS, Geometry, chips, random_masks, slot_audit
from zeroskip.simulate.dataflows.eyeriss import plan
from zeroskip.simulate.operations import of_masks
from zeroskip.simulate.workload import Workload, count_macs

SMALL = {
    "dense array": (replace(chips.DENSE, lanes=6, width=2, tile={"outputs": 2}), naive.array),
    "Minerva": (replace(chips.MINERVA, lanes=4, tile={"outputs": 4}), naive.minerva),
    "DaDianNao": (
        replace(chips.DADIANNAO, lanes=2, width=3, tile={"brick": 2, "empty": 1}),
        naive.dadiannao,
    ),
    "DCNN": (replace(chips.DCNN, lanes=6, width=3, tile={"rows": 2, "columns": 3}), naive.dcnn),
    "2:4 tensor core": (
        replace(chips.TENSOR_CORE, lanes=6, width=3, tile={"outputs": 2}),
        naive.tensor_core,
    ),
    "Eyeriss v2 element": (chips.EYERISS_V2_PE, naive.scnn),
    "SCNN": (
        replace(
            chips.SCNN,
            lanes=6,
            width=4,
            tile={"rows": 2, "columns": 3, "weights": 2, "inputs": 2, "filters": 2},
        ),
        naive.scnn,
    ),
    "Cnvlutin": (
        replace(chips.CNVLUTIN, lanes=2, width=2, tile={"brick": 2, "empty": 1}),
        naive.cnvlutin,
    ),
    "Cambricon-X": (
        replace(chips.CAMBRICON_X, lanes=3, width=2, tile={"window": 5}),
        naive.cambricon_x,
    ),
    "Cambricon-S": (
        replace(
            chips.CAMBRICON_S,
            lanes=3,
            width=2,
            tile={"window": 9},
        ),
        naive.cambricon_s,
    ),
    "SparTen": (replace(chips.SPARTEN, lanes=6, tile={"chunk": 4, "filters": 2}), naive.sparten),
    "SparTen GB-S": (
        replace(chips.SPARTEN_GB_S, lanes=6, tile={"chunk": 4, "filters": 2}),
        naive.sparten_gb_s,
    ),
    "SparTen GB-H": (
        replace(chips.SPARTEN_GB_H, lanes=6, tile={"chunk": 4, "filters": 2}),
        naive.sparten_gb_h,
    ),
    "ExTensor": (
        replace(chips.EXTENSOR, lanes=3, tile={"element": 2, "outputs": 4, "positions": 6, "inputs": 4}),
        naive.extensor,
    ),
}
SPARSITIES = st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0])


@st.composite
def convolutions(draw: st.DrawFn) -> Workload:
    """Up to 2 groups of 5 filters and 4 channels, 6 x 5 pixels, any stride, padding and dilation up to 2."""
    groups, height, width = draw(st.integers(1, 2)), draw(st.integers(2, 6)), draw(st.integers(2, 5))
    kernel = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    outputs, channels = groups * draw(st.integers(1, 5)), draw(st.integers(2, 4))
    place = {name: (draw(st.integers(low, 2)), draw(st.integers(low, 2))) for name, low in PLACE.items()}
    if draw(st.booleans()):
        place["padding"] = (0, 0)
    seed = draw(st.integers(0, 2**30))
    weight = random_masks.random((outputs, channels, *kernel), draw(SPARSITIES), seed=seed)
    x = random_masks.random(
        (draw(st.integers(1, 2)), groups * channels, height + 1, width + 1), draw(SPARSITIES), seed=seed + 1
    )
    return of_masks("conv", weight, x, Geometry(groups=groups, **place))


PLACE = {"stride": 1, "padding": 0, "dilation": 1}


@st.composite
def linears(draw: st.DrawFn) -> Workload:
    """Up to 60 outputs and 9 inputs, so that a lane of EIE sees runs of more than 15 zeros."""
    outputs, inputs, seed = draw(st.integers(1, 60)), draw(st.integers(1, 9)), draw(st.integers(0, 2**30))
    weight = random_masks.random((outputs, inputs), draw(SPARSITIES), seed=seed)
    return of_masks(
        "fc", weight, random_masks.random((draw(st.integers(1, 2)), inputs), draw(SPARSITIES), seed=seed + 1)
    )


def counted(work: Workload, chip: chips.Accelerator) -> tuple[int, ...]:
    schedule = chip.dataflow(work, chip)
    taken = replace(work, weight=chip.stored(work, chip)) if chip.stored else work
    skips = chip.skips if schedule.skips is None else schedule.skips
    kinds = slot_audit.kinds(count_macs(taken), skips, chip.gates)
    return (schedule.cycles, schedule.busy, schedule.useless, kinds.done, kinds.skipped)


def test_every_published_chip_is_written_as_plain_loops_or_tested_elsewhere():
    elsewhere = {"EIE", "Eyeriss"}  # both further below
    assert {chip.name for chip in CHIPS} - set(SMALL) == elsewhere


@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=25, deadline=None)
@given(work=convolutions())
def test_convolutions_take_the_cycles_and_macs_of_the_naive_chip(name, work):
    chip, reference = SMALL[name]
    assert counted(work, chip) == reference(work, chip)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "SCNN"])
@settings(max_examples=15, deadline=None)
@given(work=linears())
def test_linear_layers_take_the_cycles_and_macs_of_the_naive_chip(name, work):
    chip, reference = SMALL[name]
    assert counted(work, chip) == reference(work, chip)


@pytest.mark.parametrize("queue", [1, 2, 8])
@settings(max_examples=25, deadline=None)
@given(work=linears())
def test_eie_takes_the_cycles_and_entries_of_queues_filled_cycle_by_cycle(queue, work):
    chip = replace(chips.EIE, lanes=3, tile={"queue": queue, "inputs": 6})
    assert counted(work, chip) == naive.eie(work, chip)


@settings(max_examples=40, deadline=None)
@given(work=st.one_of(convolutions(), linears()))
def test_macs_of_each_kind_are_those_of_a_loop_over_all_macs(work):
    pairs = list(naive.factors(work))
    found = count_macs(work)
    assert found.total == len(pairs) == work.macs
    assert found.both == sum(w and a for w, a in pairs)
    assert (found.weight, found.input) == (sum(w for w, _ in pairs), sum(a for _, a in pairs))


@settings(max_examples=25, deadline=None)
@given(work=convolutions())
def test_eyeriss_takes_the_cycles_of_as_many_elements_as_sets_of_rows_laid_into_its_grid(work):
    chip = replace(chips.EYERISS, lanes=20, tile=chips.EYERISS.tile | {"rows": 5})
    strip = plan(work, chip).rows
    with_strip = replace(chip, tile=chip.tile | {"strip": strip})
    if strip <= 4:  # wider strips go below themselves, see the 135 elements of AlexNet's conv2
        assert counted(work, chip) == naive.eyeriss(work, with_strip)


def test_eyeriss_v2_takes_a_cycle_for_each_effectual_mac_of_a_pointwise_convolution():
    work = of_masks(
        "pw", random_masks.random((5, 7, 1, 1), 0.5), random_masks.random((2, 7, 3, 4), 0.4, seed=1)
    )
    chip = chips.EYERISS_V2_PE
    assert counted(work, chip) == naive.eyeriss_v2(work, chip)
    assert torch.count_nonzero(work.input) > 0
