"""From operations on 8-bit numbers to steps and jobs, once it is known where their maps lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from zeroskip.concepts import Machine
from zeroskip.errors import EngineError
from zeroskip.run.convolution.tiles.layout import Map
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.pooling import shares
from zeroskip.run.convolution.tiles.quad_gates import multiplied_quads
from zeroskip.run.convolution.tiles.quad_job import (
    IntegerWeights,
    QuadEpilogue,
    QuadJob,
    QuadWeights,
    quad_weights,
)
from zeroskip.run.convolution.tiles.quad_ones import adding, averaging, rescaling, scaling
from zeroskip.run.convolution.tiles.quad_steps import dequantised, largest_quads, mean_quads, quantised
from zeroskip.run.convolution.tiles.shared_weights import WeightSource, sharing
from zeroskip.run.convolution.tiles.steps import Step
from zeroskip.run.element import Scaling


@dataclass(frozen=True)
class QuadOperation:
    """An operation with maps of 8-bit numbers.

    inputs, output  their scalings; None: fp32
    x, added, y     its maps
    offsets         (vectors of x, taps) bytes from a place to the rows that its window reads
    stride          (rows, columns) of x from one place of y to the next
    size            height and width of the input
    """

    operation: Operation
    inputs: tuple[Scaling | None, ...]
    output: Scaling | None
    x: Map
    added: Map | None
    y: Map
    offsets: np.ndarray
    stride: tuple[int, int]
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """Of the operation."""
        return self.operation.name


def quad_part(
    given: QuadOperation, weights: Callable[[], IntegerWeights] | None, machine: Machine
) -> Step | QuadJob:
    """What computes the operation; `weights` makes those of a convolution. EngineError where nothing does."""
    kind, first = given.operation.kind, given.inputs[0]
    if kind == "convert" and first is None and given.output is not None:
        return quantised(given.name, given.x, given.y, given.output, machine)
    has_activation = given.operation.activation is not None and kind in ("max", "mean", "convert")
    if first is None or None in given.inputs or has_activation:
        raise EngineError(_refusal(given))
    if kind == "convert":
        if given.output is None:
            return dequantised(given.name, given.x, given.y, first, machine)
        return rescaled(given.name, (given.x, given.y), given.operation.shape[0], (first, given.output))
    if weights is not None:
        return _layer(given, weights, first)
    if kind == "max" and first == given.output and given.offsets.size:
        taps = given.offsets[0], given.stride
        return largest_quads(given.name, given.x, given.y, taps, first, machine)
    if kind == "mean":
        return mean_quads(given.name, given.x, given.y, (first, given.output), machine)
    if (
        kind == "combine"
        and given.added is not None
        and given.inputs[1] is not None
        and given.output is not None
    ):
        maps, scalings = (given.x, given.added, given.y), (first, given.inputs[1], given.output)
        return multiplied_quads(given.name, maps, scalings, given.operation.activation, machine)
    return _of_ones(given, first)


def _layer(given: QuadOperation, weights: Callable[[], IntegerWeights], first: Scaling) -> QuadJob:
    """A convolution, with the weights that another size of the network has in memory, or its own."""
    operation, layer = given.operation, given.operation.layer
    assert layer is not None
    other = given.inputs[1] if len(given.inputs) > 1 else None
    scales = None if operation.in_bytes is None else operation.in_bytes.weights
    source = WeightSource((layer.weight, layer.bias, scales), given.offsets.ravel(), given.inputs)
    shared = sharing(source, operation.known)
    numbers = shared.numbers
    if not isinstance(numbers, QuadWeights):
        numbers = quad_weights(weights(), source.rows, first, other)
    return replace(_job(given, numbers, other), sharing=shared)


def rescaled(node: str, maps: tuple[Map, Map], channels: int, scalings: tuple[Scaling, Scaling]) -> QuadJob:
    """The first map in steps of the other scaling, into the second one, whose places are the same."""
    (x, y), (before, after) = maps, scalings
    offsets = (np.arange(len(x.channels)) * x.layout.vector_bytes)[:, None]
    weights = rescaling(channels, offsets, before, after)
    return QuadJob(node, weights, (1, 1), x, y, None, QuadEpilogue(output=Scaling(1.0, after.zero_point)))


def _of_ones(given: QuadOperation, first: Scaling) -> QuadJob:
    """Sums of two maps, and averages of as many pixels everywhere."""
    channels = given.operation.shape[0]
    if given.operation.kind == "add" and len(given.inputs) == 2 and given.inputs[1] is not None:
        weights = adding(channels, given.offsets, first, given.inputs[1])
        return _job(given, weights, given.inputs[1])
    if given.operation.kind == "scale":
        given_factors = given.operation.factors or (torch.ones(channels), torch.zeros(channels))
        factors = given_factors[0].numpy(), given_factors[1].numpy()
        return _job(given, scaling(channels, given.offsets, first, factors), None)
    if given.operation.kind != "average":
        raise EngineError(_refusal(given))
    layout = given.y.layout
    places = layout.inside()
    found = shares(layout, places, given.operation, given.size)[layout.pixels(places)[..., 0] >= 0]
    if (found != found[0]).any():  # windows at the border have fewer pixels
        raise EngineError(_refusal(given))
    return _job(given, averaging(channels, given.offsets, round(1 / float(found[0])), first), None)


def _job(given: QuadOperation, weights: QuadWeights, other: Scaling | None) -> QuadJob:
    epilogue = QuadEpilogue(other, given.operation.activation, given.output)
    return QuadJob(given.name, weights, given.stride, given.x, given.y, given.added, epilogue)


def _refusal(given: QuadOperation) -> str:
    kind = given.operation.kind
    return f'no operation "{kind}" on tiles computes these 8-bit numbers ({given.name}). Use fp32 for it.'
