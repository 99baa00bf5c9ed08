"""A program against the same network in PyTorch, measured in turns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from zeroskip.concepts import Progress, Timing, silent
from zeroskip.errors import EngineError
from zeroskip.graph import Given, Inputs, evaluating, forward, quiet
from zeroskip.graph.inputs import of
from zeroskip.run.compiler import compile
from zeroskip.run.dense import channels_last as pixelwise
from zeroskip.run.dense import pytorch
from zeroskip.run.output_difference import TOLERANCE, agree, difference
from zeroskip.run.program import Program
from zeroskip.run.timing import Call, interleaved, medians, torch_threads

EngineBuilder = Callable[[nn.Module, Inputs], Call]
"""(model in evaluation mode, batch) -> a call of an engine on that batch; any exception says why it cannot."""


def eager(model: nn.Module, batch: Inputs) -> Call:
    """The network as it is."""
    return _call(model, batch)


def channels_last(model: nn.Module, batch: Inputs) -> Call:
    """A copy of the network with images stored pixel by pixel, which is faster for many convolutions."""
    convolutions = any(isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) for module in model.modules())
    if not any(map(_is_images, batch.tensors)) or not convolutions:
        raise EngineError("the network has no 2-d convolution of images, so there is no layout to change")
    converted = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return _call(converted, batch.map(_pixelwise))


def compiled(model: nn.Module, batch: Inputs) -> Call:
    """A copy of the network through torch.compile, for this batch size; it needs a C++ compiler.

    What torch.compile has compiled before in this process is forgotten: beyond a number of versions it would
    quietly run the network uncompiled.
    """
    torch.compiler.reset()
    return _call(torch.compile(copy.deepcopy(model), dynamic=False), batch)


def all_dense(model: nn.Module, batch: Inputs) -> Call:
    """A zeroskip program in which no kernel skips a zero: what a program gains by being compiled."""
    kernels, threads = (pytorch.KERNEL, pixelwise.KERNEL), torch.get_num_threads()
    program = compile(model, batch, threads=threads, kernels=kernels, batch_axis=batch.batch_axis)
    return _call(program, batch)


def _call(network: Callable[..., object], batch: Inputs) -> Call:
    return partial(network, *batch.args, **batch.kwargs)


def _is_images(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.is_floating_point()


def _pixelwise(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if _is_images(tensor) else tensor


ENGINES: Mapping[str, EngineBuilder] = {
    "torch eager": eager,
    "torch channels_last": channels_last,
    "torch.compile": compiled,
    "zeroskip, all dense": all_dense,
}


def compare(
    program: Program,
    model: nn.Module,
    batch: Given | Inputs,
    *,
    batch_axis: int | None = 0,
    threads: int = 1,
    runs: int = 3,
    rounds: int = 9,
    progress: Progress = silent,
    engines: Mapping[str, EngineBuilder] = ENGINES,
) -> Timing:
    """Seconds of one call on `batch`, of the program and of every engine that can run `model`, interleaved.

    An engine that fails or computes something else is in `skipped` with the reason. `model` comes back as it was.
    Raises EngineError where the program's answer is not the network's.

    >>> timing = compare(run.compile(model, x), model, x, runs=1, rounds=1, engines={"torch eager": eager})
    >>> timing.batch, sorted(timing.seconds)
    (3, ['torch eager', 'zeroskip'])
    """
    if runs < 1 or rounds < 1:
        raise EngineError(f"{runs} runs of {rounds} rounds measure nothing. Give at least one of each.")
    inputs = of(batch, batch_axis)
    with torch_threads(threads), evaluating(model):
        calls, differences, skipped = _prepare(engines, program, model, inputs, progress)
        measured = []
        for run in range(runs):
            progress("timing", run, runs)
            with torch.inference_mode():
                measured.append(medians(interleaved(calls, rounds=rounds, seconds=3e-3)))
        progress("timing", runs, runs)
    by_engine = {name: [run[name] for run in measured] for name in calls}
    return Timing(
        seconds=medians(by_engine),
        spread={name: (min(times), max(times)) for name, times in by_engine.items()},
        max_difference=differences,
        skipped=skipped,
        batch=inputs.size,
        threads=threads,
        precision=program.precision,
        machine=program.machine.title,
        runs=runs,
        rounds=rounds,
    )


def _prepare(
    engines: Mapping[str, EngineBuilder],
    program: Program,
    model: nn.Module,
    batch: Inputs,
    progress: Progress,
) -> tuple[dict[str, Call], dict[str, float], dict[str, str]]:
    """Calls that compute the network, how far each is from it, and why the others cannot take part."""
    calls: dict[str, Call] = {}
    differences: dict[str, float] = {}
    skipped: dict[str, str] = {}
    expected = forward(model, batch.map(Tensor.clone))
    all_engines: dict[str, EngineBuilder] = {**engines, "zeroskip": lambda _, batch: _call(program, batch)}
    # What the program rounds was measured on one batch, and may well be a few times as much on another.
    tolerances = {"zeroskip": max(TOLERANCE, 4 * program.error)}
    for number, (name, engine) in enumerate(all_engines.items()):
        progress(f"preparing {name}", number, len(all_engines))
        try:
            tolerance = tolerances.get(name, TOLERANCE)
            calls[name], differences[name] = _checked_call(engine, model, batch, expected, tolerance)
        except Exception as error:  # whatever keeps a compiler from working
            if name == "zeroskip":
                reason = f"the program does not compute this network on this batch: {error}"
                raise EngineError(reason) from error
            skipped[name] = (str(error).strip() or type(error).__name__).splitlines()[0]
    return calls, differences, skipped


def _checked_call(
    engine: EngineBuilder, model: nn.Module, batch: Inputs, expected: object, tolerance: float
) -> tuple[Call, float]:
    """The engine's call, which has run once, and how far its answer is from the network's."""
    with quiet():
        call = engine(model, batch)
        with torch.inference_mode():
            answer = call()
    error = difference(answer, expected)
    if not agree(answer, expected, tolerance=tolerance):
        raise EngineError(
            f"its answer differs from the network's by {error:.3g}, which is more than rounding."
        )
    return call, error
