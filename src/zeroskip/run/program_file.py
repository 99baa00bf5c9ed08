"""A program in a file: loading it captures and times nothing, and computes the same to the last bit.

The file is a safetensors file of the network's weights and constants, whose metadata hold JSON: the operations
(`graph.stored`), which kernel computes each layer, and what was measured. It holds no code. Code is written anew
for what is loaded, or comes from this user's own cache (`emit.cache`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from zeroskip import files
from zeroskip.concepts import Choice, Layer, Machine, Precision
from zeroskip.emit import detect
from zeroskip.errors import EngineError, FileError
from zeroskip.graph import Graph, Node
from zeroskip.graph.graph_json import from_json, to_json
from zeroskip.run.convolution.tiles import half_kernels
from zeroskip.run.convolution.tiles.half_precision import SUFFIX, is_half
from zeroskip.run.convolution.tiles.operations import Operation, operations
from zeroskip.run.convolution.tiles.shape_checks import check
from zeroskip.run.convolution.tiles.tiling import on_tiles
from zeroskip.run.kernels import ALL
from zeroskip.run.origin import Origin
from zeroskip.run.program import Program
from zeroskip.run.schedule import schedule
from zeroskip.run.select.network import scratch, through

KEY, VERSION = "zeroskip program", 1
KERNELS = {kernel.name: kernel for kernel in ALL}
# On tiles: the only ones for their layers, in fp32 and in fp16; and one for any machine.
DEPTHWISE, EVERYWHERE = ("depthwise", f"depthwise{SUFFIX}"), "streamed"
MOST_IMAGES, MOST_THREADS, MOST_EXAMPLES = 64, 1024, 1 << 31  # that a file may ask for


def save(program: Program, path: str | Path) -> Path:
    """Write the program to a file, whole or not at all.

    Raises EngineError where the network was changed since it was compiled, or is made of what a file cannot hold: an
    unusual operation, a kernel of one's own, returned structures besides tuples, lists and dicts of tensors; FileError
    where the file cannot be written.

    >>> save(program, "lenet.program")
    PosixPath('lenet.program')
    """
    origin = program.origin
    if origin is None or program.changed():
        raise EngineError(
            "the network was changed after it was compiled. Compile again with run.compile, then save."
        )
    foreign = {*origin.kernels.values(), *origin.tiles.values()} - {*KERNELS, *DEPTHWISE}
    if foreign:
        raise EngineError(f'the kernel "{min(foreign)}" is not zeroskip\'s own, and a file holds no code.')
    try:
        described, tensors = to_json(origin.graph, origin.dtype)
    except EngineError as fact:
        raise EngineError(
            f"the program cannot be saved: {fact}. Keep the network itself, and compile it again."
        ) from None
    header = {"network": described, "plan": _plan(origin), "program": _described(program)}
    copies = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"version": VERSION, **header})
    return files.write(path, safetensors.torch.save(copies, {KEY: text}))


def load(path: str | Path, *, machine: Machine | None = None) -> Program:
    """The program in a file that `save` wrote; it owns its weights, so no network is watched for changes.

    A layer on tiles whose kernel this machine cannot run gets the one that runs everywhere; if they compute in fp16,
    all of them do, in fp32. Raises FileError where there is no such file, EngineError where it is damaged, or this
    machine cannot run another of its kernels.

    >>> load("lenet.program")(x)
    """
    machine, path = machine or detect(), Path(path)
    if not path.is_file():
        raise FileError(f"there is no file {path}. Give one that run.save wrote.")
    try:
        header, tensors = _read(path)
        graph, dtype = from_json(header["network"], tensors)
        chain = operations(graph) if header["plan"]["tiles"] else []
        check(chain, {graph.input: graph.shape, **{node.name: node.shape for node in graph.nodes}})
        origin = _origin(header["plan"], graph, dtype, chain)
        moved = _moved(origin, chain, machine)
        tiles = {**origin.tiles, **{one: kernel for one, (_, kernel, _) in moved.items()}}
        instead = {layer: (kernel, why) for layer, kernel, why in moved.values()}
        choices = tuple(_choice(one, instead) for one in header["program"]["choices"])
        program = _program(header["program"], choices, replace(origin, tiles=tiles), machine)
        program(torch.zeros(2, *graph.shape, dtype=dtype))  # says what does not fit together
        return program
    except Exception as fact:  # Python and torch raise all kinds of errors about what makes no sense to them
        reason = str(fact).strip().split("\n")[0].rstrip(".") or type(fact).__name__
        raise EngineError(
            f"{path} holds no program that can run here: {reason}. Compile the network with run.compile, then save it."
        ) from None


def _plan(origin: Origin) -> dict[str, Any]:
    return {
        "kernels": origin.kernels,
        "tiles": dict(sorted(origin.tiles.items())),
        "images": origin.images,
        "precision": asdict(origin.precision),
    }


def _described(program: Program) -> dict[str, Any]:
    names = ("precision", "threads", "batch", "error", "seconds", "dense_seconds")
    return {
        **{name: getattr(program, name) for name in names},
        "choices": [asdict(one) for one in program.choices],
    }


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, "pt") as stored:
        header = json.loads((stored.metadata() or {}).get(KEY, "{}"))
        # Copies, since the file behind them may change while the program runs.
        tensors = {name: stored.get_tensor(name).clone() for name in stored.keys()}  # noqa: SIM118
    if header.get("version") != VERSION:
        raise EngineError(f"it is of version {header.get('version')}, and this zeroskip reads {VERSION}")
    return header, tensors


def _origin(plan: dict[str, Any], graph: Graph, dtype: torch.dtype, chain: Sequence[Operation]) -> Origin:
    there = {name for one in chain for name in one.names}
    precision = Precision(str(plan["precision"]["arithmetic"]), str(plan["precision"]["weights"]))
    kernels = {node.name: plan["kernels"][node.name] for node in _layers(graph) if node.name not in there}
    tiles = {one.name: plan["tiles"][one.name] for one in chain if one.layer is not None}
    depthwise = {one.name for one in chain if one.kind == "depthwise"}
    for name, kernel in {**kernels, **tiles}.items():
        fits = kernel in DEPTHWISE if name in depthwise else _works_on_tiles(kernel) == (name in tiles)
        if not fits or (name in tiles and is_half([kernel]) != is_half(tiles.values())):
            raise EngineError(f'"{kernel}" does not compute {name}')
    return Origin(graph, dtype, precision, kernels, tiles, _count(plan["images"], MOST_IMAGES))


def _layers(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.layer is not None]


def _works_on_tiles(kernel: str) -> bool:
    return KERNELS[kernel].layout == "tiles"


def _moved(origin: Origin, chain: Sequence[Operation], machine: Machine) -> dict[str, tuple[str, str, str]]:
    """Operation on tiles whose kernel cannot run here -> its layer, the kernel that can, and why.

    EngineError where that is a kernel of a layer elsewhere.
    """
    for node in _layers(origin.graph):
        why = _refusal(origin.kernels.get(node.name), node.layer, origin, machine)
        if why is not None:
            raise EngineError(f'{node.name} was compiled for "{origin.kernels[node.name]}", which {why}')
    layers = {one.name: one.layer for one in chain if one.layer is not None}
    reasons = {one: _refusal(origin.tiles[one], layer, origin, machine) for one, layer in layers.items()}
    first = next((why for why in reasons.values() if why is not None), None)
    if first is not None and is_half(origin.tiles.values()):  # all of them work on maps of one type
        reasons = {one: why or first for one, why in reasons.items()}
    kernels = {one.name: DEPTHWISE[0] if one.kind == "depthwise" else EVERYWHERE for one in chain}
    return {one: (layers[one].name, kernels[one], why) for one, why in reasons.items() if why is not None}


def _refusal(kernel: str | None, layer: Layer | None, origin: Origin, machine: Machine) -> str | None:
    if kernel is None or kernel == DEPTHWISE[0] or layer is None:
        return None
    if kernel in DEPTHWISE:
        return half_kernels.refusal(layer, machine, origin.precision)
    return KERNELS[kernel].accepts(layer, machine, origin.precision)


def _program(about: dict[str, Any], choices: tuple[Choice, ...], origin: Origin, machine: Machine) -> Program:
    graph, threads = origin.graph, _count(about["threads"], MOST_THREADS)
    final = graph
    if origin.tiles:
        final = on_tiles(graph, origin.tiles, machine, images=origin.images, threads=threads)
    functions = {
        node.name: KERNELS[origin.kernels[node.name]].build(node.layer, machine, origin.precision, node.relu)
        for node in _layers(final)
        if node.layer is not None
    }
    return Program(
        schedule(final, functions),
        graph.rebuild,
        torch.empty((), dtype=origin.dtype).expand(_count(about["batch"], MOST_EXAMPLES), *graph.shape),
        lambda: False,
        choices,
        machine,
        precision=str(about["precision"]),
        threads=threads,
        seconds=float(about["seconds"]),
        dense_seconds=float(about["dense_seconds"]),
        error=float(about["error"]) if any(choice.error for choice in choices) else 0.0,
        scratch=scratch(final, threads),
        through=through(final),
        origin=origin,
    )


def _choice(one: dict[str, Any], instead: Mapping[str, tuple[str, str]]) -> Choice:
    choice = Choice(
        layer=str(one["layer"]),
        op=str(one["op"]),
        weight_shape=tuple(map(int, one["weight_shape"])),
        sparsity=float(one["sparsity"]),
        kernel=str(one["kernel"]),
        seconds={str(name): float(took) for name, took in one["seconds"].items()},
        refused={str(name): str(why) for name, why in one["refused"].items()},
        reason=str(one["reason"]),
        error=float(one["error"]),
    )
    if not {"dense", choice.kernel} <= set(choice.seconds):
        raise EngineError(f'no seconds of "{choice.kernel}" are known for {choice.layer}')
    if choice.layer not in instead:
        return choice
    kernel, why = instead[choice.layer]
    seconds, reason = {kernel: math.nan, **choice.seconds}, f"for want of {choice.kernel}: {why}"
    return replace(choice, kernel=kernel, seconds=seconds, reason=reason, error=0.0)


def _count(value: Any, most: int) -> int:
    if type(value) is not int or not 0 < value <= most:
        raise EngineError(f"{value!r} threads, images or examples cannot be worked on")
    return value
