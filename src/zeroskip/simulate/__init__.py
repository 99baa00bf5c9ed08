"""What a network's zeros are worth on described silicon: real tensors in, cycles, bytes and energy out.

    chips = [simulate.estimate(measure.trace(model, batch), chip) for chip in simulate.CHIPS]

accelerator.py says what a machine is and machines.py lists the published ones; workload.py is a layer as they meet it;
dataflows/ how each shares a layer out; audit.py where its slots went; traffic.py and energy.py what it moves and uses.
"""

from zeroskip.simulate import dataflows, formats, machines, masks
from zeroskip.simulate.accelerator import Accelerator, Memory
from zeroskip.simulate.cost import cost_on
from zeroskip.simulate.energy import DRAM, TABLES, Energy
from zeroskip.simulate.engine import estimate
from zeroskip.simulate.machines import CHIPS
from zeroskip.simulate.results import Estimate, LayerEstimate, less_energy
from zeroskip.simulate.sizes import cross_overs, format_sizes
from zeroskip.simulate.vary import parameters, vary
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
    "cost_on",
    "cross_overs",
    "dataflows",
    "estimate",
    "format_sizes",
    "formats",
    "less_energy",
    "machines",
    "masks",
    "of_masks",
    "of_trace",
    "parameters",
    "vary",
]
