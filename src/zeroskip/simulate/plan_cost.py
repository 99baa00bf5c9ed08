"""What pruning would save on a chip, as a function that a plan can ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

from torch import Tensor

from zeroskip.concepts import Layer, Trace
from zeroskip.errors import AcceleratorError
from zeroskip.patterns import keep
from zeroskip.simulate.accelerator import Accelerator
from zeroskip.simulate.energy import Energy, prices
from zeroskip.simulate.operations import weight_mask
from zeroskip.simulate.recorded import in_network, multiplying, of_trace
from zeroskip.simulate.simulation import distinct, estimate, layer
from zeroskip.simulate.workload import Workload

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
    would add to activations are not counted. A weight costs what all its runs do. Layers that are not named stay as
    they are; those that the chip cannot run cost nothing. Raises AcceleratorError, also where the function is given a
    name that is no layer.

    >>> cost = cost_on(chips.EYERISS_V2_PE, recorded)  # a cycle for each MAC without a zero
    >>> cost({}), cost({"fc1": 0.75}), cost({"fc1": 1.0})
    (92.0, 92.0, 56.0)
    """
    if of not in OF:
        raise AcceleratorError(f'a cost is one of {", ".join(OF)}, not "{of}"')
    recorded = multiplying(trace)
    works = in_network(of_trace(recorded))
    runs: dict[str, list[tuple[Layer, Workload]]] = {}
    for (run, _, _), work in zip(recorded, works, strict=True):
        runs.setdefault(work.name, []).append((run, work))
    estimated = estimate(works, chip, energy=energy, dram=dram)
    priced = prices(energy, dram)

    @cache  # a plan asks for one layer after the other
    def alone(name: str, sparsity: float) -> float:
        pruned = distinct(_pruned(runs[name], pattern, sparsity))
        return sum(count * float(getattr(layer(work, chip, priced), of)) for work, count in pruned)

    known = {layer.name: float(getattr(layer, of)) for layer in estimated.layers}

    def cost(sparsities: Mapping[str, float]) -> float:
        unknown = set(sparsities) - set(runs)
        if unknown:
            raise AcceleratorError(f"{sorted(unknown)} are no layers of the trace: {', '.join(runs)}")
        changed = {name: alone(name, sparsities[name]) for name in known if name in sparsities}
        return sum((known | changed).values())

    return cost


def _pruned(runs: Sequence[tuple[Layer, Workload]], pattern: str, sparsity: float) -> list[Workload]:
    """The runs of one weight, pruned alike."""
    masks: dict[tuple[object, ...], Tensor] = {}  # a weight is chosen from once, however often it runs
    works = []
    for run, work in runs:
        weight = run.weight.detach()
        key = weight.data_ptr(), weight.shape, weight.stride(), run.op, run.groups
        if key not in masks:
            masks[key] = weight_mask(run, keep(weight.abs(), pattern, sparsity) & (weight != 0))
        works.append(replace(work, weight=masks[key]))
    return works
