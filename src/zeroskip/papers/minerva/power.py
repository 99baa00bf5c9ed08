"""Minerva's power by the simulator: with every MAC done, with zero inputs gated, and with small ones gated as well.

No cycle differs between the three, so powers are as energies. Weights and activities stay on the chip: DRAM is left
out. Findings tell how many inputs each layer has left; where they lie has no influence. Energies are 45 nm's; the paper
has 40. What a chip uses whatever it gates decides what gating is worth, and the table of energies holds none of that.
So there are two: memories and MACs alone, and with the clock that EIE spends on an element, which is published
for a chip of the same kind. Leakage is in neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from zeroskip.papers.minerva import published
from zeroskip.simulate import Accelerator, Energy, Workload, chips, estimate, of_masks
from zeroskip.simulate.energy import EIE_2016, HAN_2015

Layers = Mapping[str, Mapping[str, float]]
"""Layer -> {"macs", and how many of them are left: "nonzero", "kept"}, of one example."""

CLOCK = 0.2046  # of what an element of EIE uses, Han et al. 2016, table II
PRICES = {
    "memories and MACs": HAN_2015,
    "memories, MACs and EIE's clock": replace(
        HAN_2015, name="han2015 with a clock", lane_cycle=CLOCK * EIE_2016.lane_cycle
    ),
}
MACHINES = {
    "no gating": replace(chips.MINERVA, gates=""),
    "gating of exact zeros": chips.MINERVA,
}
EXAMPLES = 64  # findings hold means over many examples; these meet them to half an input in 64


def saved(network: str, layers: Layers) -> dict[str, dict[str, float]]:
    """Table of energies -> what is gated without thresholds -> times less power with them.

    >>> saved("minerva-mnist", layers)["memories, MACs and EIE's clock"]
    {'no gating': 2.02, 'gating of exact zeros': 1.1}
    """
    before, after = (workloads(network, layers, count) for count in ("nonzero", "kept"))
    found = {}
    for name, prices in PRICES.items():
        pruned = watts(after, chips.MINERVA, prices)
        found[name] = {word: watts(before, chip, prices) / pruned for word, chip in MACHINES.items()}
    return found


def evenly(network: str, share: float) -> Layers:
    """Every layer of a network with this share of its MACs left.

    >>> evenly("minerva-webkb", 0.25)["fc4"]
    {'macs': 512, 'nonzero': 512, 'kept': 128.0}
    """
    told = published.TABLE1[network]
    sizes = zip([told.inputs, *told.widths], told.widths, strict=False)
    macs = {f"fc{place}": inputs * outputs for place, (inputs, outputs) in enumerate(sizes, 1)}
    return {name: {"macs": count, "nonzero": count, "kept": share * count} for name, count in macs.items()}


def workloads(network: str, layers: Layers, count: str) -> list[Workload]:
    """The layers with dense weights and with as many non-zero inputs as their "nonzero" or "kept" MACs tell.

    >>> workloads("minerva-webkb", evenly("minerva-webkb", 0.25), "kept")[0].weight_counts.shape
    torch.Size([1, 3418, 1, 1])
    """
    found = []
    for (name, macs), outputs in zip(layers.items(), published.TABLE1[network].widths, strict=True):
        inputs = round(macs["macs"] / outputs)
        left = round(EXAMPLES * macs[count] / outputs)
        x = (torch.arange(EXAMPLES * inputs) < left).reshape(EXAMPLES, inputs)
        found.append(of_masks(name, torch.ones(outputs, inputs, dtype=torch.bool), x))
    return found


def watts(works: Sequence[Workload], machine: Accelerator, prices: Energy) -> float:
    """Power of the chip without DRAM.

    >>> watts(works, machines.MINERVA, HAN_2015)
    0.0031
    """
    found = estimate(works, machine, energy=prices)
    outside = sum(layer.picojoules["DRAM"] for layer in found.layers) * 1e-12
    return (found.joules - outside) / found.seconds
