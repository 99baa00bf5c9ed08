"""Compiling a program for inputs of a further size: captured anew, by the kernels that are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from zeroskip.errors import EngineError, ModelError
from zeroskip.graph import Graph, Inputs, undisturbed
from zeroskip.graph.capture import demand_numbers
from zeroskip.graph.lengths import capture_lengths
from zeroskip.run.building import resized, rounded
from zeroskip.run.call_checks import key_of, length_axes, shown
from zeroskip.run.captured import kernel_nodes
from zeroskip.run.dense import pytorch
from zeroskip.run.network_checks import beside_rounded, captured_graph, network_on, why_different
from zeroskip.run.output_difference import agree, difference, no_further, relative_error
from zeroskip.run.padding import Axes
from zeroskip.run.program import CompiledNetwork, Origin
from zeroskip.run.runner import runner
from zeroskip.run.timing import stop_watch, torch_threads

SHORTER = 0.75  # share of the first length up to which kernels for few vectors may be faster
TURNS = 5  # of timing them
NEAR = 2  # times the largest error of the first size, in eight bits: of more numbers it is larger

Captures: TypeAlias = Callable[[Inputs], Graph | None] | None


@dataclass
class _State:
    """What is kept from one further size to the next.

    first     the network of the first size
    captures  axes of a length -> what captures the network at any length; None: nothing does
    streamed  networks whose layers on tiles are streamed, of which others may use the memory
    """

    first: CompiledNetwork
    threads: int
    captures: dict[Axes, Captures] = field(default_factory=dict)
    streamed: list[CompiledNetwork] = field(default_factory=list)


def further_sizes(
    model: nn.Module, first: CompiledNetwork, batch_axis: int | None, tolerance: float, threads: int,
    error: float = 0.0,
) -> Callable[[Sequence[Tensor]], CompiledNetwork]:  # fmt: skip
    """A function: tensors of another size -> the network compiled for them, which has agreed with `model` on them.

    With eight bits it agrees too where it is about as near to `model` as the first size is, whose `error` is known.
    It raises EngineError where the network does not run on them, or the compiled one does not compute the same.
    """
    graph, state = first.origin.graph, _State(first, threads)
    assert graph.signature is not None
    signature = graph.signature

    def make(tensors: Sequence[Tensor]) -> CompiledNetwork:
        given = [tensor.detach().contiguous() for tensor in tensors]
        args, kwargs = signature.call(given)
        inputs = Inputs(tuple(args), kwargs, batch_axis)
        demand_numbers(inputs)
        with torch_threads(threads), torch.no_grad(), undisturbed(model):
            expected = _expected(model, graph, given)
            for network in _networks(model, state, inputs, given):
                answer = network.origin.graph.rebuild(network.run(*[tensor.clone() for tensor in given]))
                pair = answer, expected
                if network.origin.quantisation is not None:  # its own error was measured by calibration
                    if relative_error(answer, expected) <= NEAR * error:
                        return network
                    runs = network.run, rounded(network.origin)
                    pair = beside_rounded(network.origin.graph, runs, given, answer)
                    if no_further(*pair, expected):
                        return network
                if agree(*pair, tolerance=tolerance):
                    return network
        raise EngineError(
            f"for {_size(graph, given)} the compiled program differs from the network by "
            f"{difference(answer, expected):.3g}. {why_different(model)}"
        )

    return make


def _networks(
    model: nn.Module, state: _State, inputs: Inputs, given: Sequence[Tensor]
) -> Iterator[CompiledNetwork]:
    """Networks for these tensors, of which the first that is right is to be taken."""
    first = state.first
    axes = length_axes(first.origin.graph, given)
    if axes is not None and (other := _at_length(model, state, inputs, axes)) is not None:
        yield _fastest(state, other, given)
    other = captured_graph(model, inputs)
    if [each.has_batch for each in other.inputs] != [each.has_batch for each in first.origin.graph.inputs]:
        raise EngineError(
            f"for {_size(first.origin.graph, given)} the network treats the first axis otherwise than for the example "
            "that it was compiled with. Compile it with this example alone."
        )
    yield resized(first, other, state.threads)
    yield _dense(first, other)


def _at_length(model: nn.Module, state: _State, inputs: Inputs, axes: Axes) -> Graph | None:
    """The network captured at a length, if it could be exported for all of them, which happens once."""
    try:
        if axes not in state.captures:
            state.captures[axes] = None  # unless it can be exported
            state.captures[axes] = capture_lengths(model, _of_two(inputs, axes), axes)
        capture = state.captures[axes]
        graph = None if capture is None else capture(inputs)
    except Exception:  # of whatever kind: an export for this length alone says what is wrong
        return None
    same = graph is not None and [each.has_batch for each in graph.inputs] == [
        each.has_batch for each in state.first.origin.graph.inputs
    ]
    return graph if same else None


def _of_two(inputs: Inputs, axes: Axes) -> Inputs:
    """The inputs, at least two long in these axes, and not as long as there are examples, which would be one size."""
    numbers = iter(axes)

    def longer(tensor: Tensor) -> Tensor:
        for axis in next(numbers):
            size = tensor.shape[axis]
            length = max(2, size) + (max(2, size) == max(2, inputs.size))
            tensor = tensor.index_select(axis, torch.arange(length) % size)
        return tensor

    return inputs.map(longer)


def _fastest(state: _State, graph: Graph, given: Sequence[Tensor]) -> CompiledNetwork:
    """The network at another length; by other kernels where it is so much shorter that they are faster."""
    first = state.first
    known = resized(first, graph, state.threads, state.streamed)
    size, most = (sum(math.prod(shape) for shape in key_of(each)) for each in (graph, first.origin.graph))
    baked = {name for name, kernel in known.origin.tiles.items() if kernel.method == "baked"}
    if not baked or size > SHORTER * most:
        return known
    other = resized(first, graph, state.threads, state.streamed, streamed=True)
    state.streamed[:] = state.streamed or [other]
    clock, seconds = stop_watch(), dict[int, float]()
    for _ in range(TURNS):
        for number, network in enumerate((known, other)):
            start = clock()
            network.run(*given)
            seconds[number] = min(seconds.get(number, math.inf), clock() - start)
    return other if seconds[1] < seconds[0] else known


def repeats(model: nn.Module, graph: Graph) -> Callable[[Sequence[Tensor], Sequence[Tensor]], bool]:
    """A function: tensors with a row for each example, and with one row for all -> whether `model` answers alike.

    True too where it takes the former only: then one row can mean nothing else.
    """

    def alike(tensors: Sequence[Tensor], given: Sequence[Tensor]) -> bool:
        with torch.no_grad(), undisturbed(model):
            try:
                answer = network_on(model, graph, [tensor.clone() for tensor in given])
            except ModelError:
                return True
            return agree(answer, network_on(model, graph, [tensor.clone() for tensor in tensors]))

    return alike


def _expected(model: nn.Module, graph: Graph, given: Sequence[Tensor]) -> object:
    try:
        return network_on(model, graph, [tensor.clone() for tensor in given])
    except ModelError as error:
        raise EngineError(
            f"the program was compiled for {shown(graph.inputs, key_of(graph))}, and the network itself refuses "
            f"{_size(graph, given)}: {error}"
        ) from error


def _dense(first: CompiledNetwork, graph: Graph) -> CompiledNetwork:
    """The network in PyTorch: where the kernels of the first size round too much for this one."""
    kernels = {node.name: pytorch.KERNEL for node, _ in kernel_nodes(graph)}
    origin = Origin(graph, first.origin.precision, kernels, {})
    return CompiledNetwork(runner(graph, {}), origin, first.machine, graph)


def _size(graph: Graph, given: Sequence[Tensor]) -> str:
    pairs = zip(graph.inputs, given, strict=True)
    return shown(graph.inputs, tuple(tuple(t.shape[1:] if each.has_batch else t.shape) for each, t in pairs))
