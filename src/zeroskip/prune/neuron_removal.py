"""Removal of neurons that pruning has left without inputs or without outputs (Han et al. 2015, section 3.5).

A neuron, or channel, without inputs gives a constant, which is added to the biases of the layers that read it. A
neuron without outputs is read by nobody. Removal is repeated until no other neuron becomes dead. The compact network
answers as the pruned one up to rounding.

Dead neurons that stay: a constant that meets a zero padding, since it differs at the border, and what is computed
from it; a constant other than 0 that reaches a layer without bias; the last neuron of a layer; and all neurons of
the layers in `left_alone`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zeroskip.concepts import Edits, Layer
from zeroskip.errors import ModelError
from zeroskip.graph import Given, Inputs
from zeroskip.graph.channel_flow import Flow, Stage, follow
from zeroskip.prune.edits import plain_copy, rebuild, threshold_edits
from zeroskip.prune.same_answers import answers_differ
from zeroskip.thresholds import held

_ADVICE = (
    "It uses a weight or a number of channels in a way that its operations do not show: reshape with "
    "flatten(1), read weights through their layers only, or keep its dead neurons."
)


@dataclass(frozen=True)
class DeadCount:
    """What is removed from one layer.

    >>> with torch.no_grad():
    ...     _ = model.fc2.weight[:, 3:].zero_()  # nobody reads the last five neurons of fc1
    >>> dead_counts(model, x)["fc1"]
    DeadCount(without_inputs=0, without_outputs=5, weights=30, connections=7)

    without_inputs   neurons that gave a constant
    without_outputs  other neurons, whose outputs nobody read
    weights          removed weights: of these neurons, and the columns that read removed neurons of other layers
    connections      how many of these weights were not zero
    """

    without_inputs: int
    without_outputs: int
    weights: int
    connections: int


def compact(model: nn.Module, example: Given | Inputs) -> tuple[nn.Module, Edits]:
    """A smaller plain network that answers as `model` does, and the edits that lead there; `model` is untouched.
    Thresholds that it holds stay, and are among the edits.

    model    with its zeros in place; it is taken as it is in evaluation mode
    example  a batch as the network takes it: a tensor, a tuple, or a mapping

    Raises EngineError where torch.export cannot follow the network, ModelError where it is masked, or where the
    smaller one answers otherwise, for the network uses weights or sizes in a way that its operations hide.

    >>> with torch.no_grad():
    ...     _ = model.fc2.weight[:, 3:].zero_()  # nobody reads the last five neurons of fc1
    >>> small, edits = compact(model, x)
    >>> small.fc1, torch.allclose(small(x), model(x))
    (Linear(in_features=6, out_features=3, bias=True), True)
    """
    plain = plain_copy(model)
    flow = follow(plain, example)
    settled = _settled(flow, _constant(flow))
    alive = _alive(flow, settled)
    edits = _edits(flow, alive)
    for stage, layer in _layers(flow):
        if layer.bias is not None:
            _fold_(plain.get_submodule(stage.name), stage, settled & ~alive)
    small = rebuild(plain, edits)
    _check_same(small, model, example)
    return small, [*threshold_edits(held(model)), *edits]


def dead_neurons(model: nn.Module, example: Given | Inputs) -> Edits:
    """The edits that `compact` makes, without making them. Raises as `compact` does.

    >>> with torch.no_grad():
    ...     _ = model.fc2.weight[:, 6:].zero_()
    >>> dead_neurons(model, x)[0]
    {'edit': 'remove', 'layer': 'fc1', 'inputs': [], 'outputs': [6, 7]}
    """
    flow = follow(plain_copy(model), example)
    removed = _edits(flow, _alive(flow, _settled(flow, _constant(flow))))
    return [*threshold_edits(held(model)), *removed]


def dead_counts(model: nn.Module, example: Given | Inputs) -> dict[str, DeadCount]:
    """For each layer that can be followed, what goes from it. Raises as `compact` does.

    >>> dead_counts(model, x)["fc2"]
    DeadCount(without_inputs=0, without_outputs=0, weights=0, connections=0)
    """
    flow = follow(plain_copy(model), example)
    constant = _constant(flow)
    alive = _alive(flow, _settled(flow, constant))
    return {stage.name: _count(stage, layer, constant, alive) for stage, layer in _layers(flow)}


def left_alone(model: nn.Module, example: Given | Inputs) -> dict[str, str]:
    """Layer -> why all its outputs stay, dead or not. Raises as `compact` does.

    >>> left_alone(model, x)
    {'fc2': 'they are the outputs of the network'}
    """
    return follow(plain_copy(model), example).fixed


def _layers(flow: Flow) -> list[tuple[Stage, Layer]]:
    """The stages that have weights."""
    return [(stage, stage.layer) for stage in flow.stages if stage.layer is not None]


def _connected(layer: Layer) -> Tensor:
    """(out, in) whether any weight between the two is not zero."""
    return layer.weight.ne(0).flatten(2).any(2).cpu() if layer.weight.ndim > 2 else layer.weight.ne(0).cpu()


def _constant(flow: Flow) -> Tensor:
    """(units + 1,) whether a unit gives the same whatever the network sees: all it is connected to is constant.
    Of layers that are left alone no unit counts, since what reads them may also have changed them in place."""
    constant = torch.zeros(flow.units + 1, dtype=torch.bool)
    for stage, layer in _layers(flow):
        if stage.name not in flow.fixed:
            constant[stage.outputs] = ~(_connected(layer) & ~constant[stage.sources]).any(1)
    return constant


def _settled(flow: Flow, constant: Tensor) -> Tensor:
    """(units + 1,) which constants are the same at all places of their map, and so for inputs of every size."""
    settled = constant.clone()
    settled[list(flow.bordered)] = False
    for stage, layer in _layers(flow):
        uneven = ~settled[stage.sources] | (stage.arrived.ne(0) & _is_padded(layer))  # (in,)
        settled[stage.outputs] &= ~(_connected(layer) & uneven).any(1)
    return settled


def _is_padded(layer: Layer) -> bool:
    return layer.padding != "valid" if isinstance(layer.padding, str) else any(layer.padding)


def _alive(flow: Flow, settled: Tensor) -> Tensor:
    """(units + 1,) which units stay. Starts from all and takes out until nothing changes."""
    connected = {stage.name: _connected(layer) for stage, layer in _layers(flow)}
    alive = torch.ones(flow.units + 1, dtype=torch.bool)
    while True:
        stays = torch.zeros_like(alive)
        stays[0] = True
        for stage, layer in _layers(flow):
            read = connected[stage.name][alive[stage.outputs]].any(0)  # (in,) by an output that is there
            stays[stage.sources[read & ~_foldable(stage, layer, settled)]] = True
        for stage in flow.stages:
            if stage.name in flow.fixed:
                stays[stage.outputs] = True
            elif len(stage.outputs) and not stays[stage.outputs].any():
                stays[stage.outputs[alive[stage.outputs]][0]] = True
        if torch.equal(stays, alive):
            return alive
        alive = stays


def _foldable(stage: Stage, layer: Layer, settled: Tensor) -> Tensor:
    """(in,) the columns that can become part of the bias: a constant that is the same wherever it is read."""
    everywhere = layer.bias is not None and not _is_padded(layer)
    known = stage.arrived.isfinite() if everywhere else stage.arrived == 0
    return settled[stage.sources] & known


def _edits(flow: Flow, alive: Tensor) -> Edits:
    edits: Edits = []
    for stage in flow.stages:
        inputs = (~alive[stage.sources]).nonzero()[:, 0].tolist()
        outputs = (~alive[stage.outputs]).nonzero()[:, 0].tolist()
        if inputs or outputs:
            edits.append({"edit": "remove", "layer": stage.name, "inputs": inputs, "outputs": outputs})
    return edits


def _fold_(module: nn.Module, stage: Stage, folded: Tensor) -> None:
    """Add to the bias what the columns of the `folded` units, (units + 1,) bool, contribute everywhere."""
    assert isinstance(module, nn.Linear | nn.Conv2d)
    assert module.bias is not None
    values = torch.where(folded[stage.sources] & stage.arrived.isfinite(), stage.arrived, 0.0)  # (in,)
    weight = module.weight.detach().cpu().double()
    summed = weight.flatten(2).sum(2) if weight.ndim > 2 else weight  # (out, in)
    with torch.no_grad():
        module.bias.copy_((module.bias.cpu().double() + summed @ values).to(module.bias.dtype))


def _count(stage: Stage, layer: Layer, constant: Tensor, alive: Tensor) -> DeadCount:
    gone, idle = ~alive[stage.outputs], constant[stage.outputs]
    stays = torch.outer(~gone, alive[stage.sources])  # (out, in)
    flat = layer.weight.detach().cpu().reshape(*stays.shape, -1)
    return DeadCount(
        int((gone & idle).sum()),
        int((gone & ~idle).sum()),
        int((~stays).sum()) * flat.shape[2],
        int(torch.count_nonzero(flat[~stays])),
    )


def _check_same(small: nn.Module, model: nn.Module, example: Given | Inputs) -> None:
    """ModelError unless both answer the same, up to rounding, on inputs other than those looked at."""
    try:
        differ = answers_differ(small, model, example)
    except ModelError as fact:
        raise ModelError(f"without its dead neurons the network no longer runs. {_ADVICE} {fact}") from fact
    if differ:
        raise ModelError(f"without its dead neurons the network answers otherwise. {_ADVICE}")
