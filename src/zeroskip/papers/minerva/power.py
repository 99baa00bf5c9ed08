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

from zeroskip.errors import ModelError
from zeroskip.papers.minerva import published
from zeroskip.papers.minerva.findings import MinervaLayer
from zeroskip.simulate import Accelerator, Energy, Workload, chips, estimate, of_masks
from zeroskip.simulate.energy import EIE_2016, HAN_2015

CLOCK = 0.2046  # of what an element of EIE uses, Han et al. 2016, table II
PRICES = {
    "memories and MACs": HAN_2015,
    "memories, MACs and EIE's clock": replace(
        HAN_2015, name="han2015 with a clock", lane_cycle=CLOCK * EIE_2016.lane_cycle
    ),
}
GATING = {"no gating": replace(chips.MINERVA, gates=""), "gating of exact zeros": chips.MINERVA}
EXAMPLES = 64  # findings hold means over many examples; these meet them to half an input in 64


def saved(network: str, layers: Mapping[str, MinervaLayer]) -> dict[str, dict[str, float]]:
    """Table of energies -> what is gated without thresholds -> times less power with them.

    >>> times = saved("minerva-webkb", evenly("minerva-webkb", 0.25))["memories, MACs and EIE's clock"]
    >>> {gated: round(less, 2) for gated, less in times.items()}
    {'no gating': 1.82, 'gating of exact zeros': 1.82}
    """
    before = workloads(network, {name: (layer.macs, layer.nonzero) for name, layer in layers.items()})
    after = workloads(network, {name: (layer.macs, layer.kept) for name, layer in layers.items()})
    times_less = {}
    for name, prices in PRICES.items():
        pruned = watts(after, chips.MINERVA, prices)
        times_less[name] = {gated: watts(before, chip, prices) / pruned for gated, chip in GATING.items()}
    return times_less


def evenly(network: str, share: float) -> dict[str, MinervaLayer]:
    """Every layer of a network with this share of its MACs left.

    >>> evenly("minerva-webkb", 0.25)["fc4"]
    MinervaLayer(macs=512, nonzero=512, kept=128.0)
    """
    shape = published.TABLE1[network]
    sizes = zip([shape.inputs, *shape.widths], shape.widths, strict=False)
    macs = {f"fc{place}": inputs * outputs for place, (inputs, outputs) in enumerate(sizes, 1)}
    return {name: MinervaLayer(count, count, share * count) for name, count in macs.items()}


def workloads(network: str, macs: Mapping[str, tuple[float, float]]) -> list[Workload]:
    """The layers with dense weights and so many non-zero inputs, from layer -> (all MACs, those left).

    ModelError where so many cannot be left.

    >>> layers = {"fc1": (437_504, 3_200), "fc2": (4_096, 32), "fc3": (4_096, 128), "fc4": (512, 4)}
    >>> [int(work.input.sum()) for work in workloads("minerva-webkb", layers)]  # of 64 examples
    [1600, 64, 64, 64]
    """
    works = []
    for (name, (count, left)), outputs in zip(macs.items(), published.TABLE1[network].widths, strict=True):
        if not 0 <= left <= count or count < outputs:
            raise ModelError(
                f"{name} cannot have {left:g} of {count:g} MACs left. Measure the network again."
            )
        inputs = round(count / outputs)
        nonzero = round(EXAMPLES * left / outputs)
        x = (torch.arange(EXAMPLES * inputs) < nonzero).reshape(EXAMPLES, inputs)
        works.append(of_masks(name, torch.ones(outputs, inputs, dtype=torch.bool), x))
    return works


def watts(works: Sequence[Workload], chip: Accelerator, prices: Energy) -> float:
    """Power of the chip without DRAM."""
    estimated = estimate(works, chip, energy=prices)
    outside = sum(layer.picojoules["DRAM"] for layer in estimated.layers) * 1e-12
    return (estimated.joules - outside) / estimated.seconds
