"""Compiling a network: the fastest kernel of each layer, and the fastest of several ways to combine them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from zeroskip.concepts import Kernel, Machine, Packed, Precision
from zeroskip.emit import detect
from zeroskip.errors import EngineError, ModelError
from zeroskip.graph import Graph, capture, forward
from zeroskip.run.captured import Captured, layer_nodes, run_once
from zeroskip.run.convolution.tiles.operations import operations_of
from zeroskip.run.convolution.tiles.tiling import values_of
from zeroskip.run.dense import pytorch
from zeroskip.run.kernels import ALL
from zeroskip.run.linear.stored_weights import STORAGES
from zeroskip.run.measurement import Measurement
from zeroskip.run.output_difference import TOLERANCE, agree, difference, leaves, relative_error
from zeroskip.run.program import Program, watch
from zeroskip.run.runner import runner
from zeroskip.run.select.layer_timing import LayerTiming, time_kernels
from zeroskip.run.select.network_selection import Selection, Target, select_network
from zeroskip.run.timing import torch_threads

UNPACK = """A file holds no code: load it into the network.
    model.load_state_dict(pack.decode(packed))
    program = run.compile(model, example)"""

# Numbers of bf16 have 8 bits: outputs of several layers, each rounded in turn, may differ by a few of the last.
# Those of fp16 have 11, but a sum is rounded whenever something is added: VGG-16, which adds a thousand products for
# an output, was 2^-7.2 away from itself with rounded weights and inputs.
TOLERANCES = {"fp32": TOLERANCE, "bf16": 2**-5, "fp16": 2**-5}


def compile(
    model: nn.Module,
    example: Tensor,
    *,
    precision: str = "fp32",
    weights: str = "fp32",
    threads: int = 1,
    machine: Machine | None = None,
    kernels: Sequence[Kernel] = ALL,
    strict: bool = False,
) -> Program:
    """The network as a Program, tuned for batches like `example` (batch first) on `threads` threads.

    Every layer is timed with every kernel that accepts it, dense PyTorch always among them; then whole networks are
    timed: the fastest layers, dense ones only, as many in one call as can be, images pixel by pixel, and on tiles.
    Compiling takes seconds. On tiles each thread takes whole images; other kernels of ours use one thread.
    Fewer bits are used where asked for and faster: `precision` is that of inputs and products ("fp32", "bf16", "fp16"),
    `weights` how weights are stored ("fp32", "bf16", "int8" with a scale for each row, or "codes" of 4
    bits for layers of at most 16 distinct non-zero weights, which changes none of them). `strict` leaves out kernels
    that skip zeros, of weights or of inputs: a zero times an infinite or NaN number is then NaN, as in PyTorch.
    Raises ModelError where the network cannot run on `example`, EngineError where it cannot be compiled, and
    where a kernel or the whole program does not compute what the network does.

    >>> program = compile(model, x, kernels=[])  # nothing but PyTorch
    >>> torch.equal(program(x), model(x))
    True
    """
    asked = _precision(precision, weights)
    target = Target(machine or detect(), asked, threads)
    _check(model, example)
    example = example.contiguous()  # as a program has it at every call
    forward(model, example.clone())  # a network that cannot run at all says so in its own words
    graph = capture(model, example)
    with torch_threads(threads), torch.no_grad():
        candidates = list(map(_strict, kernels)) if strict else list(kernels)
        operations = operations_of(graph) if any(kernel.layout == "tiles" for kernel in candidates) else []
        captured = run_once(graph, example, values_of(operations))
        timings = _layer_timings(captured, candidates, target)
        selection = select_network(captured, operations, timings, target)
        error = _verify(selection, model, example, TOLERANCES[precision])
    measurement = Measurement(
        choices=selection.choices,
        precision=_described(asked, strict),
        threads=threads,
        batch=len(example),
        seconds=selection.seconds,
        dense_seconds=selection.dense_seconds,
        error=error,
    )
    return Program(selection.compiled, measurement, watch(model))


def check(model: nn.Module, example: Tensor) -> None:
    """ModelError or EngineError where `compile` would refuse the network; quicker than to compile it.

    >>> check(model, x)
    """
    _check(model, example)
    odd = next((weight.dtype for weight in model.parameters() if weight.dtype != torch.float32), None)
    if odd is not None:
        raise EngineError(
            f"a parameter of the network is {odd}, and precision is fp32. Convert it with .float()."
        )
    forward(model, example.clone())
    capture(model, example)


def _precision(arithmetic: str, weights: str) -> Precision:
    for what, given, known in (("precision", arithmetic, TOLERANCES), ("weights", weights, STORAGES)):
        if given not in known:
            raise EngineError(f'{what}="{given}" is unknown. Known are {", ".join(known)}.')
    return Precision(arithmetic, weights)


def _described(precision: Precision, strict: bool) -> str:
    weights = [f"{precision.weights} weights"] if precision.weights != "fp32" else []
    return ", ".join([precision.arithmetic, *weights, *(["strict"] if strict else [])])


def _strict(kernel: Kernel) -> Kernel:
    """The kernel, which now accepts no layer if it skips zeros."""
    reason = f"skips zero {kernel.skips.replace('both', 'weights and inputs')}, and strict was asked for"
    return kernel if kernel.skips == "nothing" else replace(kernel, accepts=lambda *_: reason)


def _check(model: nn.Module, example: Tensor) -> None:
    if not isinstance(model, nn.Module):
        remedy = UNPACK if isinstance(model, Packed) else "Put it into the forward of one."
        raise EngineError(
            f"run.compile was given a {type(model).__name__}, and needs a torch.nn.Module. {remedy}"
        )
    if not isinstance(example, Tensor) or not example.ndim:
        given = "a single number" if isinstance(example, Tensor) else f"a {type(example).__name__}"
        raise EngineError(
            f"the example is {given}, and no batch. Give a tensor, examples along its first axis."
        )
    tensors = [example, *model.parameters(), *model.buffers()]
    elsewhere = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), None)
    if elsewhere is not None:
        raise EngineError(
            f"the network or the example is on {elsewhere}, and programs run on the cpu. "
            "Move both with .cpu(), then compile."
        )


def _layer_timings(captured: Captured, kernels: Sequence[Kernel], target: Target) -> dict[str, LayerTiming]:
    """Node of a layer -> its kernels timed on its real input, dense always among them."""
    candidates = kernels if pytorch.KERNEL in kernels else (pytorch.KERNEL, *kernels)
    timed = partial(time_kernels, machine=target.machine, precision=target.precision, kernels=candidates)
    return {
        node.name: timed(layer, node.relu, captured.values[node.inputs[0]])
        for node, layer in layer_nodes(captured.graph)
    }


def _verify(selection: Selection, model: nn.Module, example: Tensor, tolerance: float) -> float:
    """The error of the selected program on the example.

    EngineError unless program and network agree on one example, on all, and on one more. Where weights are rounded
    on purpose, the graph is compared with the network, and the program with the graph of rounded layers.
    """
    graph, run = selection.compiled.origin.graph, selection.compiled.run
    more, error = torch.cat([example, example]), 0.0
    rounds = any(choice.error for choice in selection.choices)
    for count in sorted({1, len(example), len(example) + 1}):
        answer = graph.rebuild(run(more[:count].clone()))
        expected = _expected(graph, model, more, count)
        if rounds:
            error = relative_error(answer, expected) if count == len(example) else error
            exact = graph.rebuild(runner(graph, {})(more[:count].clone()))
            similar = graph.rebuild(selection.rounded(more[:count].clone()))
            answer, expected = (answer, similar) if agree(exact, expected) else (exact, expected)
        if not agree(answer, expected, tolerance=tolerance):
            raise EngineError(
                f"on {count} examples the compiled program differs from the network by "
                f"{difference(answer, expected):.3g}. Either the network is random in evaluation mode, or it "
                "depends on the batch size in a way that torch.export cannot follow (if, or len(x) where "
                "x.shape[0] would do). Change that, then compile."
            )
    return error


def _expected(graph: Graph, model: nn.Module, more: Tensor, count: int) -> object:
    """What the network returns for the first `count` examples; `more` is the example batch twice."""
    try:
        return forward(model, more[:count].clone())
    except ModelError:
        if graph.batch is None:
            raise
    # The network itself takes no other size; the program computes its examples in batches of that one.
    answers = leaves(forward(model, more[: graph.batch].clone()))
    return [torch.cat([answer, answer])[:count] for answer in answers]
