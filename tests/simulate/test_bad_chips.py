"""Chips and layers that cannot be: the error repeats the field."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from itertools import product

import pytest
import torch

from zeroskip.errors import AcceleratorError, ModelError, RecipeError
from zeroskip.simulate import CHIPS, Memory, chips, formats, parameters, random_masks, vary
from zeroskip.simulate.accelerator import LARGE, MANY
from zeroskip.simulate.energy import HAN_2015
from zeroskip.simulate.operations import of_masks
from zeroskip.simulate.simulation import estimate

FC = of_masks("fc", torch.ones(8, 16) != 0, torch.ones(2, 16) != 0)
CONV = of_masks("conv", torch.ones(8, 4, 3, 3) != 0, torch.ones(1, 4, 6, 6) != 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lanes": 0}, "SCNN: lanes = 0 must be above 0"),
        ({"hertz": math.nan}, "SCNN: hertz = nan must be above 0"),
        ({"ramp": 0.9}, "SCNN: ramp = 0.9 must be a number from 1 to 1,048,576"),
        ({"skips": "WA"}, "SCNN: skips = 'WA' is none of"),
        ({"bits": {"A": 16}}, "SCNN: bits = {'A': 16} must have all of A, W and O"),
        ({"tile": chips.SCNN.tile | {"filters": -1}}, r"SCNN: tile\['filters'\] = -1 must be above 0"),
        ({"keeps": "W"}, 'SCNN: keeps = \'W\' is none of "", "A", "O", "AO"'),
        ({"tile": {"rows": 8, "filters": 8}}, r"SCNN: its dataflow cartesian needs tile\['columns'\]"),
        ({"lanes": 60}, r"SCNN: lanes = 60 do not divide by tile\['rows'\] = 8 x tile\['columns'\] = 8"),
        ({"width": 9}, r"SCNN: width = 9 is not tile\['weights'\] x tile\['inputs'\] = 4 x 4"),
        ({"dram_bytes_per_cycle": 0}, "SCNN: dram_bytes_per_cycle = 0 must be above 0"),
    ],
)
def test_a_chip_that_contradicts_itself_is_refused_by_its_field(change, message):
    with pytest.raises(AcceleratorError, match=message):
        estimate([CONV], replace(chips.SCNN, **change))


def test_a_memory_too_small_for_one_tile_is_refused_with_what_one_takes():
    memory = replace(chips.DENSE.memories[0], capacity=100)
    with pytest.raises(
        AcceleratorError, match="memory 'buffer', capacity = 100 bytes, is too small for one tile"
    ):
        estimate([FC], replace(chips.DENSE, memories=(memory,)))


def test_a_memory_for_an_operand_that_there_is_not_is_refused():
    memory = replace(chips.DENSE.memories[0], reuse={"B": 1})
    with pytest.raises(AcceleratorError, match=r"reuse = \{'B': 1\}: 'B' is none of A, W, O"):
        estimate([FC], replace(chips.DENSE, memories=(memory,)))


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"B": ""}, r"memory 'buffer', held = \{'B': ''\}: 'B' is none of A, W, O"),
        (
            {"A": "filters"},
            r"memory 'buffer', held\['A'\] = 'filters' is no size in tile = \{'outputs': 16\}",
        ),
        ({"A": None}, r"memory 'buffer', held\['A'\] = None is no size in tile"),
    ],
)
def test_a_memory_that_holds_what_there_is_not_is_refused(held, message):
    memory = replace(chips.DENSE.memories[0], reuse={}, held=held)
    with pytest.raises(AcceleratorError, match=message):
        estimate([FC], replace(chips.DENSE, memories=(memory,)))


def test_an_operand_that_a_memory_has_in_reuse_and_in_held_is_refused():
    memory = replace(chips.DENSE.memories[0], held={"W": ""})
    with pytest.raises(AcceleratorError, match="memory 'buffer' has W in reuse and in held"):
        estimate([FC], replace(chips.DENSE, memories=(memory,)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": {"W": formats.dense}}, r"EIE: W is in formats and in shaped.* give shaped=\{\} too"),
        ({"formats": {"B": formats.dense}}, "EIE: formats has 'B', and only A and W have a format"),
        ({"shaped": {"O": lambda chip: formats.dense}}, "EIE: shaped has 'O', .* outputs lie as inputs do"),
        ({"shaped": {"W": 5}}, r"EIE: shaped\['W'\] = 5 is no function"),
        ({"formats": {"A": "dense"}}, r"EIE: formats\['A'\] = 'dense' is no function"),
    ],
)
def test_a_format_that_would_change_nothing_or_that_is_none_is_refused(change, message):
    with pytest.raises(AcceleratorError, match=message):
        estimate([FC], replace(chips.EIE, **change))


def test_another_format_than_the_shaped_one_is_taken_where_that_is_taken_away():
    plain = replace(chips.EIE, formats={"W": formats.dense}, shaped={})
    assert estimate([FC], plain).layers[0].bytes["DRAM", "W"] == 8 * 16 // 2


@pytest.mark.parametrize(("keeps", "missing"), [("AO", "A"), ("O", "O")])
def test_a_map_that_no_memory_holds_cannot_be_kept(keeps, missing):
    chip = replace(chips.DENSE, memories=(), keeps=keeps)
    with pytest.raises(AcceleratorError, match=f"keeps = '{keeps}', and no memory holds {missing}"):
        estimate([FC], chip)


@pytest.mark.parametrize("field", ["mac", "gated", "sram", "register", "lane_cycle"])
def test_a_negative_energy_is_refused_by_its_name(field):
    with pytest.raises(AcceleratorError, match=f"energy table 'han2015': {field} = -1 pJ must be 0 or more"):
        estimate([FC], chips.DENSE, energy=replace(HAN_2015, **{field: -1}))


def test_unknown_tables_of_energy_and_dram_are_answered_with_those_there_are():
    with pytest.raises(AcceleratorError, match='no energy table "horowitz". There are han2015, sparseloop'):
        estimate([FC], chips.DENSE, energy="horowitz")
    with pytest.raises(AcceleratorError, match='no DRAM "ddr9". There are hbm2, lpddr4'):
        estimate([FC], chips.DENSE, dram="ddr9")


def test_a_chip_that_runs_none_of_the_layers_says_why():
    with pytest.raises(
        AcceleratorError, match='EIE runs none of the layers: EIE has no way to run "conv", a conv2d'
    ):
        estimate([CONV], chips.EIE)


def test_inputs_of_zeros_everywhere_are_refused_and_in_one_layer_only_are_not():
    zeros = replace(FC, name="fc2", input=torch.zeros_like(FC.input))
    with pytest.raises(ModelError, match='the input of every layer, from "fc2" on, is zero everywhere'):
        estimate([zeros, zeros], chips.EIE)
    assert estimate([FC, zeros], chips.EIE).layers[1].done == 0


def test_a_network_without_layers_is_refused():
    with pytest.raises(ModelError, match="there is no layer to simulate"):
        estimate([], chips.DENSE)


def test_masks_that_do_not_fit_together_are_refused_with_their_shapes():
    with pytest.raises(ModelError, match=r'layer "fc": masks of weight \(8, 16\), input \(2, 17\)'):
        of_masks("fc", torch.ones(8, 16) != 0, torch.ones(2, 17) != 0)
    with pytest.raises(ModelError, match=r'layer "c": masks of weight \(8, 4, 3, 3\), input \(1, 5, 6, 6\)'):
        of_masks("c", torch.ones(8, 4, 3, 3) != 0, torch.ones(1, 5, 6, 6) != 0)
    with pytest.raises(ModelError, match=r"and output \(2, 9\) do not fit together"):
        of_masks("fc", torch.ones(8, 16) != 0, torch.ones(2, 16) != 0, output=torch.ones(2, 9) != 0)


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, math.nan])
def test_a_sparsity_outside_0_to_1_is_refused(sparsity):
    for make in (
        random_masks.random,
        random_masks.clustered,
        lambda *words: random_masks.over_dispersed(*words, variation=0.1),
    ):
        with pytest.raises(RecipeError, match="is not a share from 0 to 1"):
            make((4, 4), sparsity)


def test_a_variation_that_no_shares_can_have_is_refused():
    with pytest.raises(RecipeError, match="variation 0.6 of a sparsity of 0.2 is not from 0 to below 0.5"):
        random_masks.over_dispersed((4, 4), 0.2, variation=0.6)


@pytest.mark.parametrize("count", [-1, 0, 1, 3])
def test_a_sample_of_fewer_than_two_or_of_more_than_there_are_is_refused(count):
    with pytest.raises(ModelError, match=f"sample = {count} is not from 2 to the 2 examples"):
        estimate([FC], chips.DENSE, sample=count)


# --- every number of every chip

EVERY = pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)


@EVERY
def test_a_number_that_no_chip_has_is_refused_by_its_name(chip):
    for name, number in product(parameters(chip), (math.inf, math.nan, 1e300, -math.inf, -1, 0)):
        if name == "dram_bytes_per_cycle" and number > 0:
            assert vary(chip, {name: number}).dram_bytes_per_cycle == number  # there may be no limit
        else:
            with pytest.raises(AcceleratorError, match=name.partition(".")[2] or name):
                vary(chip, {name: number})


@EVERY
def test_the_largest_number_that_is_taken_is_estimated_or_refused_in_a_sentence(chip):
    limits = {"hertz": LARGE, "dram_bytes_per_cycle": 1e300}
    for name in parameters(chip):
        most = limits.get(name, LARGE if name.startswith("memory") else MANY)
        with suppress(AcceleratorError):
            assert estimate([CONV, FC], vary(chip, {name: most})).cycles > 0
        if name != "dram_bytes_per_cycle":
            with pytest.raises(AcceleratorError, match=f"must be (at most|a number from 1 to) {most:,.0f}"):
                vary(chip, {name: 2 * most})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lanes": "8"}, "lanes = '8' must be a number"),
        ({"width": None}, "width = None must be a number"),
        ({"lanes": 2.5}, "lanes = 2.5 must be a whole number"),
        ({"tile": {"outputs": 2.5}}, r"tile\['outputs'\] = 2.5 must be a whole number"),
        ({"bits": {"A": 16, "W": [4], "O": 16}}, r"bits\['W'\] = \[4\] must be a number"),
        ({"ramp": "1"}, "ramp = '1' must be a number from 1"),
        ({"memories": (Memory("m", 1 << 20, {"A": math.inf}),)}, r"memory 'm', reuse\['A'\] = inf must be"),
        ({"memories": (Memory("m", math.inf, {"A": 1}),)}, "memory 'm', capacity = inf must be at most"),
    ],
)
def test_a_number_of_a_chip_of_one_s_own_is_refused_by_its_field(change, message):
    with pytest.raises(AcceleratorError, match=f"dense array: {message}"):
        estimate([FC], replace(chips.DENSE, **change))


def test_more_lanes_than_there_is_work_for_change_no_count_but_the_idle_ones():
    few, many = (estimate([FC], vary(chips.EIE, {"lanes": lanes})).layers[0] for lanes in (8, 4096))
    assert (few.done, few.skipped) == (many.done, many.skipped)
    assert few.cycles == many.cycles == 2 * 16  # an entry a column on each of 8 lanes, none on the others
    assert many.idle["imbalance"] + many.idle["fragmentation"] == many.slots - many.done


def test_a_sample_of_layers_that_have_other_numbers_of_inputs_is_refused_by_the_layer():
    other = of_masks("odd", torch.ones(8, 16) != 0, torch.ones(3, 16) != 0)
    with pytest.raises(ModelError, match='layer "odd" has 3 inputs for 2. Leave `sample` out'):
        estimate([FC, other], chips.DENSE, sample=2)
