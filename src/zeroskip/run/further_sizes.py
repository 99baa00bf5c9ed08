"""Compiling a program for inputs of a further size: captured anew, by the kernels that are known, not timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from zeroskip.errors import EngineError, ModelError
from zeroskip.graph import Graph, Inputs, undisturbed
from zeroskip.graph.capture import demand_numbers
from zeroskip.run.building import resized, rounded
from zeroskip.run.call_checks import key_of, shown
from zeroskip.run.captured import kernel_nodes
from zeroskip.run.dense import pytorch
from zeroskip.run.network_checks import beside_rounded, captured_graph, network_on, why_different
from zeroskip.run.output_difference import agree, difference, no_further
from zeroskip.run.program import CompiledNetwork, Origin
from zeroskip.run.runner import runner
from zeroskip.run.timing import torch_threads


def further_sizes(
    model: nn.Module, first: CompiledNetwork, batch_axis: int | None, tolerance: float, threads: int
) -> Callable[[Sequence[Tensor]], CompiledNetwork]:
    """A function: tensors of another size -> the network compiled for them, which has agreed with `model` on them.

    It raises EngineError where the network does not run on them, or the compiled one does not compute the same.
    """
    graph = first.origin.graph
    assert graph.signature is not None
    signature = graph.signature

    def make(tensors: Sequence[Tensor]) -> CompiledNetwork:
        given = [tensor.detach().contiguous() for tensor in tensors]
        args, kwargs = signature.call(given)
        inputs = Inputs(tuple(args), kwargs, batch_axis)
        demand_numbers(inputs)
        with torch_threads(threads), torch.no_grad(), undisturbed(model):
            expected = _expected(model, graph, given)
            other = captured_graph(model, inputs)
            if [each.has_batch for each in other.inputs] != [each.has_batch for each in graph.inputs]:
                raise EngineError(
                    f"for {_size(graph, given)} the network treats the first axis otherwise than for the example "
                    "that it was compiled with. Compile it with this example alone."
                )
            for network in (resized(first, other, threads), _dense(first, other)):
                answer = other.rebuild(network.run(*[tensor.clone() for tensor in given]))
                pair = answer, expected
                if network.origin.quantisation is not None:  # its own error was measured by calibration
                    runs = network.run, rounded(network.origin)
                    pair = beside_rounded(other, runs, given, answer)
                    if no_further(*pair, expected):
                        return network
                if agree(*pair, tolerance=tolerance):
                    return network
        raise EngineError(
            f"for {_size(graph, given)} the compiled program differs from the network by "
            f"{difference(answer, expected):.3g}. {why_different(model)}"
        )

    return make


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
