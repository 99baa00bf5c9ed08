"""What a network's zeros are worth on described chips: real tensors in, cycles, bytes and energy out.

    network = simulate.whole_network(model, batch)
    estimates = [simulate.estimate(network.works, chip, left_out=network.left_out) for chip in simulate.CHIPS]

Files import those above them only:

lane_counts.py   non-zeros counted, and shared out among lanes
workload.py      a layer as a chip meets it: masks
operations.py    each weighted operation in that form
recorded.py      a recorded network in that form
random_masks.py  masks for tables that come without weights
formats.py       how an operand lies in DRAM, and from which sparsity on that is smaller than storing all
accelerator.py   what a chip is: lanes, memories, formats, the zeros that it skips; with other numbers
slot_audit.py    where the slots of a layer went
energy.py        picojoules of each event
traffic.py       bytes through each memory
dataflows/       how each chip shares a layer out
chips.py         the published chips
estimates.py     what an estimate says of a layer and a network, with every DRAM
simulation.py    a network through a chip
whole_network.py all that a network computes: its layers, and what no chip is asked
plan_cost.py     what pruning would save, for `prune.plan`
"""

from zeroskip.simulate import chips, dataflows, formats, random_masks
from zeroskip.simulate.accelerator import Accelerator, Memory, parameters, vary
from zeroskip.simulate.chips import CHIPS
from zeroskip.simulate.energy import DRAM, TABLES, Energy
from zeroskip.simulate.estimates import Estimate, LayerEstimate, LeftOut, less_energy, undecided
from zeroskip.simulate.formats import FormatSizes, cross_overs, format_sizes
from zeroskip.simulate.operations import of_masks
from zeroskip.simulate.plan_cost import cost_on
from zeroskip.simulate.recorded import of_trace
from zeroskip.simulate.simulation import estimate, estimate_trace
from zeroskip.simulate.whole_network import WholeNetwork, whole_network
from zeroskip.simulate.workload import Geometry, Workload

__all__ = [
    "CHIPS",
    "DRAM",
    "TABLES",
    "Accelerator",
    "Energy",
    "Estimate",
    "FormatSizes",
    "Geometry",
    "LayerEstimate",
    "LeftOut",
    "Memory",
    "WholeNetwork",
    "Workload",
    "chips",
    "cost_on",
    "cross_overs",
    "dataflows",
    "estimate",
    "estimate_trace",
    "format_sizes",
    "formats",
    "less_energy",
    "of_masks",
    "of_trace",
    "parameters",
    "random_masks",
    "undecided",
    "vary",
    "whole_network",
]
