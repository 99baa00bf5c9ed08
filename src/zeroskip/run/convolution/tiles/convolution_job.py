"""A convolution between two maps in the workspace, as a job that several kernels can do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from zeroskip.concepts import Layer, Machine
from zeroskip.run.convolution.tiles.layout import Map
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.quad_job import QuadJob
from zeroskip.run.convolution.tiles.shared_weights import Sharing
from zeroskip.run.convolution.tiles.steps import Epilogue
from zeroskip.run.convolution.tiles.taps import Taps

BAND = 1.5  # inputs and outputs of a band of vectors, in sizes of the second-level cache


@dataclass(frozen=True)
class RowWeights:
    """A convolution as a matrix: sums = bias + weight . rows of the input.

    weight   (out, k); of a depthwise convolution (channels, taps)
    bias     (out,)
    offsets  (k,): row k of the input lies so many bytes behind a place's own
    taps     neighbouring rows that belong to one input channel
    """

    weight: np.ndarray
    bias: np.ndarray
    offsets: np.ndarray
    taps: int = 1


@dataclass(frozen=True)
class Job:
    """y = epilogue(weights . rows of x) at every place of y, for the operation `node`.

    stride   (rows, columns) of x from one place of y to the next
    sharing  its weights with other sizes of the network
    """

    node: str
    weights: RowWeights
    stride: tuple[int, int]
    x: Map
    y: Map
    residual: Map | None
    epilogue: Epilogue
    sharing: Sharing | None = None

    @property
    def added(self) -> Map:
        """The map that the epilogue adds; without one, `y`, whose addresses are then never read."""
        return self.y if self.residual is None else self.residual


def table(job: Job | QuadJob) -> np.ndarray:
    """(vectors, 4) int64: offsets of x, y and residual, and the mask of lanes that hold pixels."""
    places = job.y.layout.inside()
    slot, y, x = places.T
    source = job.x.layout.offset(slot, y * job.stride[0], x * job.stride[1])
    offsets = [source, job.y.layout.offset(*places.T), job.added.layout.offset(*places.T)]
    return np.stack([*offsets, job.y.layout.masks(places)], axis=1)


def band(job: Job | QuadJob, machine: Machine) -> int:
    """How many vectors to work on before the next chunk of code: they fit the second-level cache."""
    per_place = job.x.layout.place_bytes * math.prod(job.stride) + job.y.layout.place_bytes
    vectors = job.y.layout.vectors
    bands = max(1, min(vectors // 14, round(vectors * per_place / (BAND * machine.cache_bytes))))
    return -(-vectors // bands)


def bias_of(operation: Operation) -> np.ndarray:
    """(out,) zeros where the layer has none."""
    layer = operation.layer
    if layer is None or layer.bias is None:
        return np.zeros(operation.shape[0], np.float32)
    return np.asarray(layer.bias.detach().numpy())


def row_weights(operation: Operation, taps: Taps, shared: Sharing, count: int) -> RowWeights:
    """A layer as a matrix of `count` rows for each channel: that of another size of the network, or made anew."""
    if isinstance(shared.numbers, RowWeights):
        return shared.numbers
    assert operation.layer is not None
    weight = taps.of(whole_weight(operation.layer).numpy())
    return RowWeights(weight, bias_of(operation), shared.source.rows, count)


def whole_weight(layer: Layer) -> Tensor:
    """(out, in, height, width): the weight of a layer with groups, with zeros between groups."""
    weight = layer.weight.detach()
    if layer.groups == 1:
        return weight
    out, inputs, *size = weight.shape
    whole = weight.new_zeros(out, inputs * layer.groups, *size)
    for group, part in enumerate(weight.chunk(layer.groups)):
        rows = slice(group * len(part), (group + 1) * len(part))
        whole[rows, group * inputs : (group + 1) * inputs] = part
    return whole
