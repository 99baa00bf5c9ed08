"""One network, without a clock: does it compile, is it equal to eager, are its numbers true?"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from zeroskip import graph, measure, run
from zeroskip.errors import ZeroskipError
from zoo.counts import count
from zoo.network import Network
from zoo.preparation import call, example, prepared
from zoo.why import why


def check(network: Network) -> dict[str, object]:
    """The record of a network; `refused` is the sentence where it does not compile."""
    model, given = prepared(network), example(network, 1, network.sizes[0])
    record: dict[str, object] = {"costs": _costs(network, model)}
    _forget_peak()
    begin = time.perf_counter()
    try:
        program = run.compile(model, given, batch_axis=network.batch_axis)
    except ZeroskipError as refusal:
        return {**record, "refused": str(refusal)}
    record["compile_seconds"], record["peak_bytes"] = time.perf_counter() - begin, _peak_bytes()
    record["why"] = why(program)
    record["differences"] = [
        {"batch": batch, "size": size, **_compared(model, program, example(network, batch, size))}
        for size in dict.fromkeys(network.sizes)
        for batch in ((1,) if network.batch_axis is None else (1, 2))
    ]
    return record


def _costs(network: Network, model: nn.Module) -> dict[str, object]:
    """Ours beside the independent count; or why there is no cost."""
    # A second network: RAFT, for one, keeps maps of its last call, and the counter calls with gradients.
    counted = count(prepared(network), example(network, 1, network.sizes[0]))
    return {"counted": vars(counted), "ours": _ours(network, model)}


def _ours(network: Network, model: nn.Module) -> dict[str, object]:
    """What `measure` tells of a call; products of two activations count, as they do in the independent count."""
    batch = graph.inputs.of(example(network, 1, network.sizes[0]), network.batch_axis)
    try:
        cost = measure.cost(model, batch)
    except ZeroskipError as refusal:
        return {"refused": str(refusal)}
    macs = cost.macs + cost.activation_macs
    return {"weights": cost.weights, "kept": cost.kept, "bytes": cost.stored_bytes, "macs": macs}


def _compared(model: nn.Module, program: Callable[..., object], given: object) -> dict[str, object]:
    """The largest difference of any output, or why there is none."""
    with torch.no_grad():
        expected = call(model, given)
    try:
        answer = call(program, given)
    except ZeroskipError as refusal:
        return {"refused": str(refusal)}
    if type(answer) is not type(expected):
        return {"refused": f"a {type(answer).__name__} came out, not a {type(expected).__name__}"}
    pairs = list(zip(_tensors(answer), _tensors(expected), strict=True))
    return {"share": max(_share(ours, theirs) for ours, theirs in pairs)}


def _tensors(answer: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)]


def _share(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return float("inf")
    if not theirs.numel():
        return 0.0
    largest = float(theirs.abs().max())
    difference = float((ours.double() - theirs.double()).abs().max())
    return difference if largest == 0 else difference / largest


def _forget_peak() -> None:
    """From here on the kernel counts the largest memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    """The most memory that this process has held since, libraries and network included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
