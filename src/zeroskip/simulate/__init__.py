"""What a network's zeros are worth on described silicon: real tensors in, cycles, bytes and energy out.

    chips = [simulate.estimate(measure.trace(model, batch), chip) for chip in simulate.CHIPS]

accelerator.py says what a machine is and machines.py lists the published ones; workload.py is a layer as they meet it;
dataflows/ how each shares a layer out; audit.py where its slots went; traffic.py and energy.py what it moves and uses.
"""

from zeroskip.simulate import chips, dataflows, formats, random_masks
from zeroskip.simulate.accelerator import Accelerator, Memory
from zeroskip.simulate.chips import CHIPS
from zeroskip.simulate.energy import DRAM, TABLES, Energy
from zeroskip.simulate.estimates import Estimate, LayerEstimate, less_energy
from zeroskip.simulate.format_thresholds import cross_overs, format_sizes
from zeroskip.simulate.plan_cost import cost_on
from zeroskip.simulate.simulation import estimate
from zeroskip.simulate.vary_chip import parameters, vary
from zeroskip.simulate.workload import Workload, of_masks, of_trace

__all__ = [
    "CHIPS",
    "DRAM",
    "TABLES",
    "Accelerator",
    "Energy",
    "Estimate",
    "LayerEstimate",
    "Memory",
    "Workload",
    "chips",
    "cost_on",
    "cross_overs",
    "dataflows",
    "estimate",
    "format_sizes",
    "formats",
    "less_energy",
    "of_masks",
    "of_trace",
    "parameters",
    "random_masks",
    "vary",
]
