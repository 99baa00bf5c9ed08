"""One network, raced: zeroskip beside dense engines, in turns, in one thread. For a quiet machine."""

from __future__ import annotations

import copy
import signal
import tempfile
import time as clock
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from zeroskip import run
from zeroskip.errors import ZeroskipError
from zoo.network import Given, Network
from zoo.preparation import call, example, prepared
from zoo.why import why

OURS = "zeroskip"
TURN = 0.2  # seconds of an engine's turn
PATIENCE = 600  # seconds for an engine to take the network
Answer = Callable[[], list[np.ndarray]]


def time(network: Network, rounds: int) -> dict[str, object]:
    """CPU seconds of a call for each engine, the median of its turns; why an engine has none; their differences."""
    model, given = prepared(network), example(network, 1, network.sizes[0])
    try:
        program = run.compile(model, given, batch_axis=network.batch_axis)
    except ZeroskipError as refusal:
        return {"refused": str(refusal)}
    engines: dict[str, Answer] = {OURS: lambda: _arrays(call(program, given)), "eager": _torch(model, given)}
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in MAKERS.items():
            if name == "channels_last" and not _has_pictures(model, given):
                continue
            try:
                with _patience(PATIENCE), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                    engine = make(model, given, Path(folder))
                    engine()
                    engines[name] = engine
            except Exception as fact:  # whatever an engine says of a network that it does not take
                missing[name] = f"{type(fact).__name__}: {str(fact).strip().splitlines()[0][:200]}"
        seconds = _race(engines, rounds)
    expected = engines["eager"]()
    differences = {name: _difference(engine(), expected) for name, engine in engines.items()}
    return {"seconds": seconds, "missing": missing, "differences": differences, "why": why(program)}


def _torch(model: nn.Module, given: Given) -> Answer:
    def answer() -> list[np.ndarray]:
        with torch.no_grad():  # torch.compile freezes weights in this mode only
            return _arrays(call(model, given))

    return answer


def _has_pictures(model: nn.Module, given: Given) -> bool:
    return any(tensor.ndim == 4 for tensor in [*model.parameters(), *tree_leaves(given)])


def _channels_last(model: nn.Module, given: Given, folder: Path) -> Answer:
    """Pictures with their channels side by side."""

    def turned(tensor: Tensor) -> Tensor:
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    return _torch(other, tree_map_only(Tensor, turned, given))


def _compiled(model: nn.Module, given: Given, folder: Path) -> Answer:
    from torch._inductor import config

    config.freezing = True
    return _torch(torch.compile(copy.deepcopy(model), dynamic=False), given)


def _onnxruntime(model: nn.Module, given: Given, folder: Path) -> Answer:
    import onnxruntime

    path = folder / "network.onnx"
    args, kwargs = ((), dict(given)) if isinstance(given, dict) else (given, {})
    args = args if isinstance(args, tuple) else (args,)
    try:
        torch.onnx.export(copy.deepcopy(model), args, path, kwargs=kwargs, dynamo=True, verbose=False)
    except Exception:  # the exporter of old takes a few networks more
        torch.onnx.export(copy.deepcopy(model), args, path, kwargs=kwargs, dynamo=False, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    tensors = [*args, *kwargs.values()]
    by_name = dict(kwargs)
    names = [each.name for each in session.get_inputs()]
    if not set(names) <= set(by_name):
        by_name = dict(zip(names, tensors, strict=True))
    feed = {name: by_name[name].numpy() for name in names}
    return lambda: session.run(None, feed)


MAKERS = {"channels_last": _channels_last, "torch.compile": _compiled, "ONNX Runtime": _onnxruntime}


def _arrays(answer: object) -> list[np.ndarray]:
    return [leaf.numpy() for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)]


def _race(engines: dict[str, Answer], rounds: int) -> dict[str, float]:
    """Process CPU time, since a neighbour on the machine takes wall time; the order rotates from round to round."""
    names = list(engines)
    counts = {name: max(1, round(TURN / _seconds(engines[name], 1))) for name in names}
    turns: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            engines[name]()  # brings weights and code back into the caches
            turns[name].append(_seconds(engines[name], counts[name]))
    return {name: median(values) for name, values in turns.items()}


def _seconds(engine: Answer, count: int) -> float:
    before = clock.process_time()
    for _ in range(count):
        engine()
    return max(clock.process_time() - before, 1e-7) / count


def _difference(answer: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest difference as share of the output's largest number; infinite where outputs are others."""
    if [each.shape for each in answer] != [each.shape for each in expected]:
        return float("inf")
    shares = [
        float(np.abs(ours - theirs).max()) / (float(np.abs(theirs).max()) or 1.0)
        for ours, theirs in zip(answer, expected, strict=True)
        if theirs.size
    ]
    return max(shares, default=0.0)


@contextmanager
def _patience(seconds: int) -> Iterator[None]:
    """TimeoutError inside after so many seconds."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not ready after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
