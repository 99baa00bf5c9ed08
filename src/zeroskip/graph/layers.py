"""The weighted layers of a network, one for each run of each weight, and their inputs and outputs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zeroskip.concepts import Layer, Trace
from zeroskip.errors import ModelError, ZeroskipError
from zeroskip.graph.inputs import Given, Inputs, of
from zeroskip.graph.weight_runs import Run, watched


@dataclass(frozen=True)
class OutsideLayers:
    """What a network did outside of its layers.

    activation_macs  multiply-accumulates of one example in products without a weight: attention scores, fixed filters
    read             the weights that any operation read, also those that are added or looked up

    >>> visit(model, x, lambda layer, x, y: None)
    OutsideLayers(activation_macs=0, read=frozenset({...}))
    """

    activation_macs: int
    read: frozenset[str]


def layers(model: nn.Module, example: Given | Inputs) -> list[Layer]:
    """Every product of `model` with one of its weights when it sees `example`, in the order of running.

    A weight that is used several times is listed as often, under one name (see `graph.weights`): a layer that runs
    twice, each step of an LSTM's hidden matrix. Weights are the effective ones (masks applied) and share the model's
    memory where they can. The shapes in a Layer are those of one example.
    Raises ModelError where the network cannot run on `example`.

    >>> [(layer.name, layer.macs) for layer in layers(model, x)]
    [('fc1', 48), ('fc2', 32)]
    >>> [(layer.name, layer.macs) for layer in layers(nn.GRU(2, 3, batch_first=True), torch.zeros(1, 2, 2))]
    [('weight_ih_l0', 36), ('weight_hh_l0', 27), ('weight_hh_l0', 27)]
    """
    visited: list[Layer] = []
    visit(model, example, lambda layer, x, y: visited.append(layer))
    return visited


def record(model: nn.Module, batch: Given | Inputs) -> Trace:
    """The layers of `layers(model, batch)`, each with a copy of its real input and output.

    >>> [(layer.name, tuple(x.shape), tuple(y.shape)) for layer, x, y in record(model, x)]
    [('fc1', (3, 6), (3, 8)), ('fc2', (3, 8), (3, 4))]
    """
    trace: Trace = []
    # Copies, because later operations of the network may work in place (ReLU, residual sums).
    visit(model, batch, lambda layer, x, y: trace.append((layer, x.clone(), y.clone())))
    return trace


def visit(
    model: nn.Module, batch: Given | Inputs, visited: Callable[[Layer, Tensor, Tensor], None]
) -> OutsideLayers:
    """Run `model` once and call `visited(layer, input, output)` right after each product with a weight.

    The tensors are the network's own, with the examples first: what comes later may overwrite them.
    """
    inputs = of(batch)
    return watch(model, inputs, lambda run: visited(*layer_of(run, inputs.size)))


def watch(model: nn.Module, inputs: Inputs, ran: Callable[[Run], None]) -> OutsideLayers:
    """Run `model` once and call `ran` right after each product with a weight, which may be of any rows."""
    if not inputs.size:
        raise ModelError(f"the batch holds no example: {inputs.title}. Give at least one.")
    with evaluating(model), watched(model, inputs.tensors, ran) as products:
        forward(model, inputs)
    return OutsideLayers(products.unweighted // inputs.size, frozenset(products.read))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; every module's own training flag comes back afterwards.

    >>> with evaluating(model.train()):
    ...     model.training, model(x).requires_grad
    (False, False)
    """
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


def per_example(tensor: Tensor, batch: int) -> tuple[int, ...]:
    """The shape of one example's share of a tensor whose first axis holds `batch` examples.

    A first axis of batch x n (a network that folds n patches into it) gives (n, ...).

    >>> per_example(torch.zeros(8, 5), 4)
    (2, 5)
    """
    first, *rest = tensor.shape
    if first % batch:
        raise ModelError(
            f"a layer works on a tensor {tuple(tensor.shape)}, whose first axis does not divide into the "
            f"{batch} examples given, so the share of one is unknown. Give a single example (a batch of 1) with the "
            "axis of the examples in front, example[None] where there is none; or, for what is no batch, as a graph, "
            "zeroskip.graph.Inputs((x, edges), {}, batch_axis=None)."
        )
    return tuple(rest) if first == batch else (first // batch, *rest)


def forward(model: nn.Module, given: Given | Inputs) -> Any:
    """What `model` returns in evaluation mode, without gradients: model(x), model(*tuple) or model(**dict).

    Raises ModelError, with what the network takes, where it fails.

    >>> forward(model, x).shape
    torch.Size([3, 4])
    """
    inputs = of(given)
    try:
        with evaluating(model):
            return model(*inputs.args, **inputs.kwargs)
    except ZeroskipError:
        raise
    except Exception as fact:  # whatever a user's network may raise
        reason = f"{type(fact).__name__}: {fact}".strip()
        raise ModelError(
            f"the network cannot run on {_shown(inputs)}: {reason.rstrip('.')}. {_remedy(model, inputs)}"
        ) from fact


def _shown(inputs: Inputs) -> str:
    if len(inputs.tensors) == 1 and not inputs.kwargs:
        (tensor,) = inputs.tensors
        return f"an input of shape {tuple(tensor.shape)} and type {tensor.dtype}"
    return f"inputs {inputs.title}"


def _remedy(model: nn.Module, inputs: Inputs) -> str:
    try:
        signature = inspect.signature(model.forward)
    except ValueError:  # of a function that is not written in Python
        return "Give a batch as the network takes it, examples first."
    try:
        signature.bind(*inputs.args, **inputs.kwargs)
    except TypeError:
        empty = inspect.Parameter.empty
        names = inspect.Signature([each.replace(annotation=empty) for each in signature.parameters.values()])
        return f"Its forward takes {names}: give a tuple in this order, or a dict of these keywords."
    if inputs.batch_axis == 0 and _runs(model, inputs.map(lambda tensor: tensor[None])):
        return "It runs on example[None]: the axis of the examples was absent. Put it in front."
    return "Give a batch as the network takes it, examples first."


def _runs(model: nn.Module, inputs: Inputs) -> bool:
    try:
        with evaluating(model):
            model(*inputs.args, **inputs.kwargs)
    except Exception:  # whatever a user's network may raise
        return False
    return True


def layer_of(run: Run, batch: int) -> tuple[Layer, Tensor, Tensor]:
    """The run as a Layer, and its tensors with the examples first, if it is no convolution.

    Raises ModelError where the share of one of the `batch` examples is unknown.
    """
    x, y = run.x, run.y
    if run.op in ("linear", "bilinear"):
        x, y = _examples_first(x, batch), _examples_first(y, batch)
    weight, bias = run.weight.detach(), None if run.bias is None else run.bias.detach()
    shapes = per_example(x, batch), per_example(y, batch)
    return Layer(run.name, run.op, weight, bias, *shapes, **run.geometry), x, y


def _examples_first(rows: Tensor, batch: int) -> Tensor:
    """(batch, ..., features) of (..., features); as it is where rows are not as many for each example."""
    count, features = math.prod(rows.shape[:-1]), rows.shape[-1]
    if len(rows) % batch == 0:
        return rows.reshape(batch, *per_example(rows, batch))
    return rows if count % batch else rows.reshape(batch, count // batch, features)
