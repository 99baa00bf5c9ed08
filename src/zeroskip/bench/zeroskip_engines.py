"""Our own engines in the race: a compiled network, and a layer by one kernel. A worker imports this file when asked to.

Each function takes a network and its input and gives what is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from zeroskip import run
from zeroskip.concepts import Kernel, Layer, Precision
from zeroskip.emit import detect
from zeroskip.graph import Graph, capture
from zeroskip.run import quantisation
from zeroskip.run.captured import run_once
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.kernels import BAKED, BAKED_INT8, STREAMED, STREAMED_INT8
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.segment import Segment, without_layout_conversion
from zeroskip.run.convolution.tiles.tiling import fastest_on_tiles, values_of
from zeroskip.run.convolution.zero_inputs import kernels as zero_inputs
from zeroskip.run.convolution.zero_inputs import scatter as scatter_kernel
from zeroskip.run.dense import channels_last
from zeroskip.run.integer_network import with_bytes
from zeroskip.run.linear.zero_inputs import columns
from zeroskip.run.select.layer_timing import time_kernels


def stored(
    model: nn.Module, x: Tensor, path: Path, *, precision: str = "fp32", weights: str = "fp32"
) -> Path:
    """The file of the network by the kernels that are fastest here, on as many threads as PyTorch may take."""
    threads = torch.get_num_threads()
    return run.save(run.compile(model, x, threads=threads, precision=precision, weights=weights), path)


def quantised(
    model: nn.Module, x: Tensor, calibration: np.ndarray, folder: Path, *, method: str | None = None
) -> Path:
    """The file of the network in eight bits, by the kernels that are fastest here; scales are chosen once in a folder.

    calibration  (count, batch, ...);  method: of `run.calibrate`
    """
    scales = _quantisation(model, calibration, folder / "quantisation", method)
    threads = torch.get_num_threads()
    program = run.compile(model, x, threads=threads, precision="int8", quantisation=scales)
    return run.save(program, folder / "program")


def loaded(path: Path, x: Tensor) -> Callable[[], Tensor]:
    """A program of a file, on its input."""
    return partial(run.load(path), x)


def _quantisation(
    model: nn.Module, calibration: np.ndarray, path: Path, method: str | None = None
) -> run.Quantisation:
    if not path.is_file():
        batches = list(torch.from_numpy(calibration))
        quantisation.save(run.calibrate(model, batches, method=method), path)
    return quantisation.load(path)


def skipping(model: nn.Module, x: Tensor, *, storage: str = "fp32") -> Callable[[], Tensor]:
    """The only layer by the kernel that skips the zeros of its input; as for torch, images come pixel by pixel.

    >>> layer = nn.Sequential(nn.Linear(6, 8))
    >>> torch.allclose(skipping(layer, x)(), layer(x))
    True
    """
    layer, relu = _only_layer(model, x)
    machine, x = detect(), _channels_last(x)
    if x.ndim == 4:
        return partial(zero_inputs.fastest_gather(layer, machine, relu, x, storage=storage), x)
    return partial(columns.without_fallback(storage, layer, machine, relu), x)


def chosen(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """The only layer by the fastest of the kernels that skip the zeros of its input and the dense one."""
    layer, relu = _only_layer(model, x)
    x, kernels = _channels_last(x), (channels_last.KERNEL, *zero_inputs.GATHER)
    timed = time_kernels(layer, relu, x, machine=detect(), precision=Precision(), kernels=kernels)
    return partial(timed.built[timed.choice.kernel], x)


def scatter(model: nn.Module, x: Tensor, *, storage: str) -> Callable[[], Tensor]:
    """The only layer, a convolution, by the kernel that walks the weights once, in order."""
    layer, relu = _only_layer(model, x)
    return partial(scatter_kernel.build(layer, detect(), relu, storage=storage), _channels_last(x))


def on_tiles(model: nn.Module, x: Tensor) -> tuple[Callable[[], object], Callable[[], Tensor]]:
    """The network on tiles: what is timed leaves out that images are laid out as tiles and back, once in a network.

    With it what computes the answer. ValueError where the network cannot work on tiles.
    """
    graph = capture(model, x)
    segment = _segment(graph, operations_of(graph), [BAKED, STREAMED], x)
    return without_layout_conversion(segment, detect(), x), lambda: segment(x)[0]


def on_tiles_in_int8(
    model: nn.Module, x: Tensor, calibration: np.ndarray, folder: Path
) -> tuple[Callable[[], object], Callable[[], Tensor]]:
    """A network of one layer on tiles in eight bits; what is timed reads bytes and makes bytes, as between layers.

    With it what computes the answer. ValueError where the layer cannot.
    """
    # Other methods cut off outputs for the sake of what follows, and here nothing does.
    scales, graph = _quantisation(model, calibration, folder / "ranges", "min-max"), capture(model, x)
    operations = [_making_bytes(each, scales) for each in with_bytes(graph, operations_of(graph), scales)]
    segment = _segment(graph, operations, [BAKED_INT8, STREAMED_INT8], x)
    return without_layout_conversion(segment, detect(), x), lambda: segment(x)[0]


def _making_bytes(operation: Operation, scales: run.Quantisation) -> Operation:
    if operation.in_bytes is None:
        raise ValueError(f"{operation.name} stays in fp32")
    return replace(operation, in_bytes=replace(operation.in_bytes, output=scales.values[operation.name]))


def _segment(graph: Graph, operations: Sequence[Operation], kernels: Sequence[Kernel], x: Tensor) -> Segment:
    """The fastest of these kernels for the only layer that this machine has; ValueError where there is none."""
    layers = {operation.name: operation.layer for operation in operations if operation.layer is not None}
    candidates = {
        name: [each for each in kernels if each.accepts(layer, detect(), Precision(each.element)) is None]
        for name, layer in layers.items()
    }
    captured = run_once(graph, [x], values_of(operations))
    fastest = fastest_on_tiles(captured, operations, candidates, detect(), images=len(x), threads=1)
    if fastest is None:
        raise ValueError("the layer cannot work on tiles")
    segment = fastest.graph.nodes[0].function
    assert isinstance(segment, Segment)
    return segment


def _only_layer(model: nn.Module, x: Tensor) -> tuple[Layer, bool]:
    """The layer of a network that has one, and whether a ReLU follows."""
    ((layer, relu),) = [(node.layer, node.relu) for node in capture(model, x).nodes if node.layer is not None]
    return layer, relu


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
