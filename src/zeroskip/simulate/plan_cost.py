"""What pruning would save on a chip, as a function that a plan can ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

from zeroskip.concepts import Trace
from zeroskip.errors import AcceleratorError
from zeroskip.patterns import keep
from zeroskip.simulate.accelerator import Accelerator
from zeroskip.simulate.energy import Energy, prices
from zeroskip.simulate.recorded import in_network, of_trace
from zeroskip.simulate.simulation import estimate, layer

OF = ("cycles", "joules")


def cost_on(
    chip: Accelerator,
    trace: Trace,
    *,
    of: str = "cycles",
    pattern: str = "free",
    energy: str | Energy = "han2015",
    dram: str = "lpddr4",
) -> Callable[[Mapping[str, float]], float]:
    """A function {layer: sparsity} -> what the recorded network then costs on the chip, for `prune.plan`.

    The recorded weights are pruned by magnitude; inputs and outputs stay as they were recorded, so zeros that pruning
    would add to activations are not counted. Layers that are not named stay as they are; those that the chip cannot
    run cost nothing. Raises AcceleratorError, also where the function is given a name that is no layer.

    >>> cost = cost_on(chips.EYERISS_V2_PE, recorded)  # a cycle for each MAC without a zero
    >>> cost({}), cost({"fc1": 0.75}), cost({"fc1": 1.0})
    (92.0, 92.0, 56.0)
    """
    if of not in OF:
        raise AcceleratorError(f'a cost is one of {", ".join(OF)}, not "{of}"')
    works = {work.name: work for work in in_network(of_trace(trace))}
    weights = {layer.name: layer.weight.detach() for layer, _, _ in trace}
    estimated = estimate(list(works.values()), chip, energy=energy, dram=dram)
    priced = prices(energy, dram)

    @cache  # a plan asks for one layer after the other
    def alone(name: str, sparsity: float) -> float:
        work, weight = works[name], weights[name]
        mask = keep(weight.abs(), pattern, sparsity) & (weight != 0)
        work = replace(work, weight=mask.cpu().reshape(work.weight.shape))
        return float(getattr(layer(work, chip, priced), of))

    known = {layer.name: float(getattr(layer, of)) for layer in estimated.layers}

    def cost(sparsities: Mapping[str, float]) -> float:
        unknown = set(sparsities) - set(weights)
        if unknown:
            raise AcceleratorError(f"{sorted(unknown)} are no layers of the trace: {', '.join(weights)}")
        changed = {name: alone(name, sparsities[name]) for name in known if name in sparsities}
        return sum((known | changed).values())

    return cost
