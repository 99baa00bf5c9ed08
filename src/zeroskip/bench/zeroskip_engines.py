"""Our own engines in the race: a compiled network, and a layer by one kernel. A worker imports this file when asked to.

Each function takes a network and its input and gives what is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from zeroskip import run
from zeroskip.concepts import Layer, Precision
from zeroskip.emit import detect
from zeroskip.graph import capture
from zeroskip.run.captured import run_once
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.kernels import BAKED, STREAMED
from zeroskip.run.convolution.tiles.segment import Segment, without_layout_conversion
from zeroskip.run.convolution.tiles.tiling import fastest_on_tiles, values_of
from zeroskip.run.convolution.zero_inputs import kernels as zero_inputs
from zeroskip.run.convolution.zero_inputs import scatter as scatter_kernel
from zeroskip.run.dense import channels_last
from zeroskip.run.linear.zero_inputs import columns
from zeroskip.run.select.layer_timing import time_kernels


def compiled(
    model: nn.Module, x: Tensor, *, precision: str = "fp32", weights: str = "fp32"
) -> Callable[[], Tensor]:
    """The network by the kernels that are fastest here, on as many threads as PyTorch may take."""
    threads = torch.get_num_threads()
    return partial(run.compile(model, x, threads=threads, precision=precision, weights=weights), x)


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
    graph, machine = capture(model, x), detect()
    operations = operations_of(graph)
    kernels = {operation.name: [BAKED, STREAMED] for operation in operations if operation.layer is not None}
    captured = run_once(graph, [x], values_of(operations))
    fastest = fastest_on_tiles(captured, operations, kernels, machine, images=len(x), threads=1)
    if fastest is None:
        raise ValueError("the layer cannot work on tiles")
    segment = fastest.graph.nodes[0].function
    assert isinstance(segment, Segment)
    return partial(without_layout_conversion(segment, machine, x)), lambda: segment(x)[0]


def _only_layer(model: nn.Module, x: Tensor) -> tuple[Layer, bool]:
    """The layer of a network that has one, and whether a ReLU follows."""
    ((layer, relu),) = [(node.layer, node.relu) for node in capture(model, x).nodes if node.layer is not None]
    return layer, relu


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
