"""Compiling a network: the fastest kernel of each layer, and the fastest of several ways to combine them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from zeroskip.concepts import Explanation, Kernel, Machine, Precision
from zeroskip.emit import detect
from zeroskip.errors import EngineError
from zeroskip.graph import Given, Graph, Inputs, undisturbed
from zeroskip.graph.inputs import of
from zeroskip.graph.recurrent import Recurrent
from zeroskip.run.captured import Captured, kernel_nodes
from zeroskip.run.change_watch import watch
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.tiling import count_segments, values_of
from zeroskip.run.dense import pytorch
from zeroskip.run.explaining import Facts, explain
from zeroskip.run.further_sizes import further_sizes, repeats
from zeroskip.run.integer_network import demand_fit
from zeroskip.run.kernels import ALL
from zeroskip.run.layer_scales import scales_of_layers, with_scales
from zeroskip.run.linear.stored_weights import STORAGES
from zeroskip.run.measurement import Measurement
from zeroskip.run.network_checks import captured_graph, checked, run_on, tensors_of, verify
from zeroskip.run.output_difference import TOLERANCE
from zeroskip.run.padding_search import fills, found_padding
from zeroskip.run.part_timing import part_seconds
from zeroskip.run.possible_gains import possible_gains
from zeroskip.run.program import Further, Program
from zeroskip.run.quantisation import Quantisation, demand_quantisation
from zeroskip.run.select.alike_layers import Likeness, likeness
from zeroskip.run.select.layer_timing import LayerTiming, time_kernels, timing_of_alike
from zeroskip.run.select.network_selection import Selection, Target, select_network
from zeroskip.run.select.recurrent_timing import time_recurrent
from zeroskip.run.timing import stop_watch, torch_threads
from zeroskip.run.unreached import unreached, weight_zeros

# Numbers of bf16 have 8 bits: outputs of several layers, each rounded in turn, may differ by a few of the last.
# Those of fp16 have 11, but a sum is rounded whenever something is added: VGG-16, which adds a thousand products for
# an output, was 2^-7.2 away from itself with rounded weights and inputs.
TOLERANCES = {"fp32": TOLERANCE, "bf16": 2**-5, "fp16": 2**-5, "int8": 2**-5}


def compile(
    model: nn.Module,
    example: Given | Inputs,
    *,
    examples: Sequence[Given | Inputs] = (),
    sizes: int = 8,
    batch_axis: int | None = 0,
    precision: str = "fp32",
    weights: str = "fp32",
    quantisation: Quantisation | None = None,
    threads: int = 1,
    machine: Machine | None = None,
    kernels: Sequence[Kernel] = ALL,
    strict: bool = False,
) -> Program:
    """The network as a Program, tuned for batches like `example` on `threads` threads: a tensor, a tuple or a dict.

    Every layer is timed with every kernel that accepts it (one of several that are alike), dense PyTorch too; then
    whole networks: the fastest layers, dense ones only, as many in one call as can be, images pixel by pixel, on tiles.
    Examples lie along the first axis; `batch_axis=None` if no axis is theirs, as in a graph. Inputs of other sizes than
    `example` are compiled for at once if in `examples`, else at their first call, by the same kernels: `sizes` in all,
    beside lengths of sentences. Fewer bits are used where asked for and faster: `precision` is that of inputs and
    products ("fp32", "bf16", "fp16"; "int8" with run.calibrate's `quantisation`), `weights` how they are stored
    ("fp32", "bf16", "int8", "codes"; docs/ENGINE.md). `strict` leaves out kernels that skip zeros: zero times infinity
    or NaN is NaN, as in PyTorch.
    Raises ModelError where the network cannot run on `example`, EngineError where it cannot be compiled.

    >>> torch.equal(compile(model, x, kernels=[])(x), model(x))  # nothing but PyTorch
    True
    """
    target = Target(machine or detect(), _precision(precision, weights), threads, quantisation)
    _check_options(examples, sizes, kernels, machine)
    inputs = checked(model, example, batch_axis)
    graph = captured_graph(model, inputs)
    tensors = tensors_of(graph, inputs)
    _check_quantisation(precision, quantisation, graph)
    with torch_threads(threads), torch.no_grad(), undisturbed(model):
        candidates = list(map(_strict, kernels)) if strict else list(kernels)
        operations = operations_of(graph) if any(each.layout == "tiles" for each in kernels) else []
        captured = run_on(graph, tensors, values_of(operations))
        timings = _layer_timings(captured, candidates, target)
        selection = select_network(captured, operations, timings, target)
        error = verify(selection, model, tensors, TOLERANCES[precision])
        facts = _facts(model, captured, operations, selection, _allowed(kernels, strict), target)
    measurement = Measurement(
        choices=selection.choices,
        precision=_described(target.precision, strict),
        threads=threads,
        batch=captured.count,
        seconds=selection.seconds,
        dense_seconds=selection.dense_seconds,
        error=error,
        unreached=tuple(facts.unreached),
        explanation=_explained(facts, selection.lost),
    )
    make = further_sizes(model, selection.compiled, batch_axis, TOLERANCES[precision], threads, error)
    further = Further(make, repeats(model, graph), partial(fills, model, graph), sizes)
    padding = found_padding(model, graph, tensors)
    program = Program(selection.compiled, measurement, watch(model), further, padding=padding)
    return _with(program, [of(other, batch_axis) for other in examples])


def _with(program: Program, examples: Sequence[Inputs]) -> Program:
    for each in examples:
        program.add(*each.args, **each.kwargs)
    return program


def _check_options(
    examples: Sequence[Given | Inputs], sizes: int, kernels: Sequence[Kernel], machine: Machine | None
) -> None:
    if not isinstance(kernels, (list, tuple)) or not all(isinstance(each, Kernel) for each in kernels):
        raise EngineError(
            f"kernels={kernels!r} is no list of kernels. zeroskip.run.kernels has them by their names: "
            'kernels=[BY_NAME["sell"]].'
        )
    if not isinstance(machine, (Machine, type(None))):
        raise EngineError(f"machine={machine!r} is no Machine. Leave it out for this one.")
    if not isinstance(examples, (list, tuple)):
        raise EngineError(
            f"examples is a {type(examples).__name__}. Give a list of examples: examples=[...]."
        )
    if not isinstance(sizes, int):
        raise EngineError(f"sizes={sizes!r} is no whole number. Give at least 1.")
    if sizes < 1:
        raise EngineError(f"sizes={sizes} leaves none for the example itself. Give at least 1.")


def _check_quantisation(precision: str, quantisation: Quantisation | None, graph: Graph) -> None:
    if quantisation is not None:
        demand_quantisation(quantisation)
    if precision == "int8" and quantisation is None:
        raise EngineError(
            'precision="int8" needs to know the ranges of numbers. Give them: '
            "quantisation=run.calibrate(model, batches)."
        )
    if precision != "int8" and quantisation is not None:
        raise EngineError(
            f'a quantisation is of use with precision="int8", and precision="{precision}" was asked for. '
            "Leave one of them out."
        )
    if quantisation is not None:
        demand_fit(graph, quantisation)


def check(model: nn.Module, example: Given | Inputs, *, batch_axis: int | None = 0) -> None:
    """ModelError or EngineError where `compile` would refuse the network; quicker than to compile it.

    >>> check(model, x)
    """
    captured_graph(model, checked(model, example, batch_axis))


def _facts(
    model: nn.Module, captured: Captured, operations: Sequence[Operation], selection: Selection,
    kernels: Sequence[Kernel], target: Target,
) -> Facts:  # fmt: skip
    """What is known of the selected network; its parts are timed here."""
    graph, choices = captured.graph, selection.choices
    parts = part_seconds(
        selection.compiled, operations, choices, captured.tensors, target.threads, stop_watch()
    )
    return Facts(
        graph, operations, weight_zeros(model), unreached(model, graph), choices, parts, kernels, target.machine,
        target.precision,
    )  # fmt: skip


def _explained(facts: Facts, lost: float | None) -> Explanation:
    """Why the network is not faster; `lost` are its seconds on tiles, where another way was selected."""
    tiles = (0, 0.0) if lost is None else (count_segments(facts.graph, facts.operations), lost)
    return explain(facts, possible_gains(facts, tiles_lost=lost is not None), tiles)


def _precision(arithmetic: str, weights: str) -> Precision:
    for what, given, known in (("precision", arithmetic, TOLERANCES), ("weights", weights, STORAGES)):
        if given not in (*known,):
            raise EngineError(f'{what}="{given}" is unknown. Known are {", ".join(known)}.')
    return Precision(arithmetic, weights)


def _described(precision: Precision, strict: bool) -> str:
    weights = [f"{precision.weights} weights"] if precision.weights != "fp32" else []
    return ", ".join([precision.arithmetic, *weights, *(["strict"] if strict else [])])


def _allowed(kernels: Sequence[Kernel], strict: bool) -> list[Kernel]:
    return [kernel for kernel in kernels if not strict or kernel.skips == "nothing"]


def _strict(kernel: Kernel) -> Kernel:
    """The kernel, which now accepts no layer if it skips zeros."""
    reason = f"skips zero {kernel.skips.replace('both', 'weights and inputs')}, and strict was asked for"
    return kernel if kernel.skips == "nothing" else replace(kernel, accepts=lambda *_: reason)


def _layer_timings(captured: Captured, kernels: Sequence[Kernel], target: Target) -> dict[str, LayerTiming]:
    """Node of a layer -> its kernels timed on its real input, dense always among them."""
    candidates = kernels if pytorch.KERNEL in kernels else (pytorch.KERNEL, *kernels)
    of_layers = [kernel for kernel in candidates if kernel.layout != "steps"]
    of_steps = [pytorch.KERNEL, *(kernel for kernel in candidates if kernel.layout == "steps")]
    machine, precision = target.machine, target.precision
    scales, timings = scales_of_layers(captured.graph, target.quantisation), dict[str, LayerTiming]()
    known: dict[str, Likeness] = {}
    for node, computed in kernel_nodes(captured.graph):
        values = [captured.values[name] for name in node.inputs]
        if isinstance(computed, Recurrent):
            timings[node.name] = time_recurrent(
                computed, *values, machine=machine, precision=precision, kernels=of_steps
            )
            continue
        own = with_scales(of_layers, scales.get(node.name))
        timing, like = None, likeness(computed, node.relu, values[0])
        same = next((name for name, each in known.items() if like is not None and like.is_near(each)), None)
        if same is not None:
            timing = timing_of_alike(timings[same], computed, node.relu, values[0], (machine, precision), own)
        timings[node.name] = timing or time_kernels(
            computed, node.relu, *values, machine=machine, precision=precision, kernels=own
        )
        if like is not None and timing is None:
            known[node.name] = like
    return timings
