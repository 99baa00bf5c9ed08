"""Compiling a network: the fastest kernel of each layer, and the fastest of several ways to combine them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zeroskip.concepts import Choice, Kernel, Machine
from zeroskip.emit import detect
from zeroskip.errors import EngineError, ModelError
from zeroskip.graph import Graph, capture, forward, last_uses
from zeroskip.run.kernels import ALL, dense
from zeroskip.run.kernels.compiled import Compiled
from zeroskip.run.outputs import agree, difference, leaves
from zeroskip.run.program import Program
from zeroskip.run.race import Race, race
from zeroskip.run.schedule import Runner, schedule
from zeroskip.run.timing import interleaved, medians, torch_threads
from zeroskip.run.watch import watch

Plan = dict[str, str]
"""Node name -> name of the kernel that computes that layer."""


def compile(
    model: nn.Module,
    example: Tensor,
    *,
    precision: str = "fp32",
    threads: int = 1,
    machine: Machine | None = None,
    kernels: Sequence[Kernel] = ALL,
) -> Program:
    """The network as a Program, tuned for batches like `example` (batch first) on `threads` threads.

    Every layer is timed with every kernel that accepts it, dense PyTorch always among them; then the network
    as a whole is timed with the fastest, with dense layers only, with as many layers in one call as can be, and
    with images stored pixel by pixel.
    Compiling takes seconds. zeroskip's own kernels use one thread, whatever `threads` says.
    Raises ModelError where the network cannot run on `example`, EngineError where it cannot be compiled, and
    where a kernel or the whole program does not compute what the network does.

    >>> compile(lenet, torch.zeros(1, 784))(x)
    """
    _check(model, example, precision)
    machine = machine or detect()
    forward(model, example.clone())  # a network that cannot run at all says so in its own words
    graph = capture(model, example)
    with torch_threads(threads), torch.no_grad():
        races = _races(graph, example, machine, precision, kernels)
        run, choices, seconds, dense_seconds = _whole(graph, example.clone(), races)
        _verify(run, graph, model, example)
    return Program(
        run,
        graph.rebuild,
        example,
        watch(model),
        tuple(choices),
        machine,
        precision=precision,
        threads=threads,
        seconds=seconds,
        dense_seconds=dense_seconds,
    )


def check(model: nn.Module, example: Tensor) -> None:
    """ModelError or EngineError where `compile` would refuse the network; quicker than to compile it.

    >>> check(lenet, torch.zeros(1, 784))
    """
    _check(model, example, "fp32")
    odd = next((one.dtype for one in model.parameters() if one.dtype != torch.float32), None)
    if odd is not None:
        raise EngineError(
            f"a parameter of the network is {odd}, and precision is fp32. Convert it with .float()."
        )
    forward(model, example.clone())
    capture(model, example)


def _check(model: nn.Module, example: Tensor, precision: str) -> None:
    if precision != "fp32":
        raise EngineError(f'precision "{precision}" is not there yet; what can be run is precision="fp32".')
    tensors = [example, *model.parameters(), *model.buffers()]
    elsewhere = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), None)
    if elsewhere is not None:
        raise EngineError(
            f"the network or the example is on {elsewhere}, and programs run on the cpu. "
            "Move both with .cpu(), then compile."
        )


def _races(
    graph: Graph, example: Tensor, machine: Machine, precision: str, kernels: Sequence[Kernel]
) -> dict[str, Race]:
    """Node name -> race, for every layer of the graph on its real input."""
    candidates = kernels if dense.KERNEL in kernels else (dense.KERNEL, *kernels)
    races: dict[str, Race] = {}
    values: dict[str, Any] = {graph.input: example.clone()}
    for node, ended in zip(graph.nodes, last_uses(graph), strict=True):
        given = [values[name] for name in node.inputs]
        if node.layer is not None:
            races[node.name] = race(
                node.layer, node.relu, given[0], machine=machine, precision=precision, kernels=candidates
            )
        values[node.name] = node.function(*given)
        for name in ended:
            del values[name]
    return races


def _plans(races: dict[str, Race]) -> dict[str, Plan]:
    """Ways to choose for the whole network that differ.

    Layers that win alone may lose together, by what they leave in the caches, and a layer that loses alone may
    win by joining its neighbours in one call.
    """
    fastest = {node: each.choice.kernel for node, each in races.items()}
    joined = {
        node: min(
            (name for name, function in each.built.items() if isinstance(function, Compiled)),
            key=each.choice.seconds.__getitem__,
            default="dense",
        )
        for node, each in races.items()
    }
    # Alone, a layer pays for changing the layout; together only the first one does.
    pixelwise = {
        node: "channels_last" if "channels_last" in each.built else fastest[node]
        for node, each in races.items()
    }
    plans = {"dense": dict.fromkeys(races, "dense")}
    for name, plan in (("fastest", fastest), ("joined", joined), ("pixelwise", pixelwise)):
        if plan not in plans.values():
            plans[name] = plan
    return plans


def _whole(
    graph: Graph, example: Tensor, races: dict[str, Race]
) -> tuple[Runner, list[Choice], float, float]:
    """The fastest plan's function, its choices, its seconds, and those of the dense plan."""
    plans = _plans(races)
    runs = {
        name: schedule(graph, {node: races[node].built[kernel] for node, kernel in plan.items()})
        for name, plan in plans.items()
    }
    calls = {
        name: partial(run, example) for name, run in runs.items() if name == "dense" or _works(run, example)
    }
    seconds = medians(interleaved(calls, rounds=9, seconds=1e-3))
    best = min(seconds, key=seconds.__getitem__)
    choices = [_settled(races[node].choice, kernel) for node, kernel in plans[best].items()]
    return runs[best], choices, seconds[best], seconds["dense"]


def _works(run: Runner, example: Tensor) -> bool:
    """Whether it runs at all: an operation between the layers may insist on the layout it was exported with."""
    try:
        run(example)
    except RuntimeError:
        return False
    return True


def _settled(choice: Choice, kernel: str) -> Choice:
    if kernel == choice.kernel:
        return choice
    reason = f"the whole network was faster with it; alone {choice.kernel} was fastest"
    return replace(choice, kernel=kernel, reason=reason)


def _verify(run: Runner, graph: Graph, model: nn.Module, example: Tensor) -> None:
    """EngineError unless the program and the network agree on one example, on all, and on one more."""
    more = torch.cat([example, example])
    for count in sorted({1, len(example), len(example) + 1}):
        answer = graph.rebuild(run(more[:count].clone()))
        expected = _expected(graph, model, more, count)
        if not agree(answer, expected):
            raise EngineError(
                f"on {count} examples the compiled program differs from the network by "
                f"{difference(answer, expected):.3g}. Either the network is random in evaluation mode, or it "
                "depends on the batch size in a way that torch.export cannot follow (if, or len(x) where "
                "x.shape[0] would do). Change that, then compile."
            )


def _expected(graph: Graph, model: nn.Module, more: Tensor, count: int) -> Any:
    """What the network answers for the first `count` examples of `more`, which are `more`'s first half twice."""
    try:
        return forward(model, more[:count].clone())
    except ModelError:
        if graph.batch is None:
            raise
    # The network itself takes no other size; the program computes its examples in batches of that one.
    answers = leaves(forward(model, more[: graph.batch].clone()))
    return [torch.cat([answer, answer])[:count] for answer in answers]
