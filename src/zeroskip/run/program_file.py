"""A program in a file: loading it captures and times nothing, and computes the same to the last bit.

The file is a safetensors file of the network's weights and constants, whose metadata hold JSON: the operations
(`graph.graph_json`), which kernel computes each layer, and what was measured; a checksum covers all of it
(`program_bytes`). It holds no code. Code is written anew for what is loaded, or comes from this user's own cache
(`emit.code_cache`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from zeroskip import files
from zeroskip.concepts import Choice, Kernel, Machine, Precision
from zeroskip.emit import detect
from zeroskip.errors import EngineError, FileError
from zeroskip.graph import Graph
from zeroskip.graph.graph_json import from_json, to_json
from zeroskip.graph.packing import pack_padded_sequence
from zeroskip.run import measurement as measurements
from zeroskip.run import padding as paddings
from zeroskip.run import program_bytes
from zeroskip.run import quantisation as quantisations
from zeroskip.run.building import built, shared_functions, with_known
from zeroskip.run.captured import kernel_nodes, layer_among, layer_nodes
from zeroskip.run.convolution.tiles.graph_operations import operations_of, without_layers
from zeroskip.run.convolution.tiles.kernels import (
    DEPTHWISE,
    computes_in,
    depthwise_in,
    element_of,
    streamed_in,
    works_on_tiles,
)
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.shape_checks import check
from zeroskip.run.element import FP16, FP32, INT8
from zeroskip.run.integer_network import with_bytes
from zeroskip.run.kernels import BY_NAME
from zeroskip.run.layer_scales import scales_of_layers, with_scales
from zeroskip.run.linear_quads.kernels import GAPS
from zeroskip.run.measurement import JsonObject, Measurement
from zeroskip.run.program import CompiledNetwork, Origin, Program
from zeroskip.run.quantisation import Quantisation

SCALES = "quantisation/"  # before the names of layers, the scales of whose weights a file holds
MOST_IMAGES, MOST_THREADS, MOST_EXAMPLES = 64, 1024, 1 << 31  # that a file may ask for


def save(program: Program, path: str | Path) -> Path:
    """Write the program to a file, whole or not at all.

    Raises EngineError where the network was changed since it was compiled, or is made of what a file cannot hold: an
    unusual operation, a kernel of one's own, unusual structures of tensors; FileError where it cannot be written.
    All sizes are stored that the program was compiled for by then. An object that the network returned comes back as a
    dict of its fields, which can be read as attributes as well.

    >>> save(run.compile(model, x), "mlp.program")
    PosixPath('mlp.program')
    """
    origin = program.origin
    if program.changed():
        raise EngineError(
            "the network was changed after it was compiled. Compile again with run.compile, then save."
        )
    foreign = {kernel.name for kernel in (*origin.kernels.values(), *origin.tiles.values())} - set(BY_NAME)
    if foreign:
        raise EngineError(f'the kernel "{min(foreign)}" is not zeroskip\'s own, and a file holds no code.')
    sizes: list[JsonObject] = []
    tensors: dict[str, Tensor] = {}
    for number, each in enumerate([origin, *(network.origin for network in program.networks[1:])]):
        try:
            described, its_tensors = to_json(each.graph)
        except EngineError as error:
            reason = f"the program cannot be saved: {error}. Keep the network itself, and compile it again."
            raise EngineError(reason) from None
        sizes.append({"network": described, "plan": _plan(each)})
        tensors |= {_stored_name(number, name): tensor for name, tensor in its_tensors.items()}
    measured = measurements.to_json(program.measurement)
    content = {**sizes[0], "program": measured, "sizes": sizes[1:]}
    if program.padding is not None:
        content["padding"] = paddings.to_json(program.padding)
    if origin.quantisation is not None:
        content["quantisation"], scales = quantisations.to_json(origin.quantisation)
        tensors |= {f"{SCALES}{name}": each for name, each in scales.items()}
    return files.write(path, program_bytes.sealed(content, tensors))


def load(path: str | Path, *, machine: Machine | None = None) -> Program:
    """The program in a file that `save` wrote; it owns its weights, so no network is watched for changes.

    It answers for the sizes for which it was compiled when it was saved. A layer on tiles or in eight bits whose kernel
    this machine cannot run gets the one that runs everywhere; if tiles are in fp16, all of them do, in fp32. Raises
    FileError where there is no such file, EngineError where it is damaged, or this machine cannot run another kernel.

    >>> program = run.compile(model, x)
    >>> torch.equal(load(save(program, "mlp.program"))(x), program(x))
    True
    """
    machine, path = machine or detect(), Path(path)
    if not path.is_file():
        raise FileError(f"there is no file {path}. Give one that run.save wrote.")
    try:
        content, tensors = program_bytes.opened(files.read(path))
        if "program" not in content:
            raise EngineError("it is another file")
        threads = _count(content["program"]["threads"], MOST_THREADS)
        quantisation = _quantisation(content, tensors)
        first, replacements = _network(content, tensors, (machine, threads), quantisation)
        others = []
        for number, size in enumerate(content.get("sizes", []), 1):
            own = {name: tensors[_stored_name(number, name)] for name in _names(number, tensors)}
            others.append(_network(size, own, (machine, threads), quantisation, first)[0])
        _demand_same_inputs(first, others)
        measurement = _measurement(content["program"], replacements)
        stored = content.get("padding")
        padding = None if stored is None else paddings.from_json(stored, len(first.origin.graph.inputs))
        return Program(first, measurement, lambda: False, others=others, padding=padding)
    except Exception as error:  # Python and torch raise all kinds of errors about what makes no sense to them
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise EngineError(
            f"{path} holds no program that can run here: {reason}. Compile the network with run.compile, then save it."
        ) from None


def _demand_same_inputs(first: CompiledNetwork, others: Sequence[CompiledNetwork]) -> None:
    """EngineError where the networks of a file are not one network at several sizes."""
    all_inputs = [
        [(each.dtype, each.has_batch, len(each.shape)) for each in network.origin.graph.inputs]
        for network in (first, *others)
    ]
    if any(inputs != all_inputs[0] for inputs in all_inputs):
        raise EngineError("its sizes are of different networks")


def _stored_name(number: int, name: str) -> str:
    """The name of a tensor in the file: that of the first size is its own."""
    return f"{number}/{name}" if number else name


def _names(number: int, tensors: Mapping[str, Tensor]) -> list[str]:
    start = _stored_name(number, "")
    return [name.removeprefix(start) for name in tensors if name.startswith(start)]


def _quantisation(content: JsonObject, tensors: Mapping[str, Tensor]) -> Quantisation | None:
    """That of a network in eight bits."""
    if "quantisation" not in content:
        return None
    scales = {name.removeprefix(SCALES): each for name, each in tensors.items() if name.startswith(SCALES)}
    return quantisations.from_json(content["quantisation"], scales)


def _network(
    stored: JsonObject, tensors: Mapping[str, Tensor], target: tuple[Machine, int],
    quantisation: Quantisation | None, first: CompiledNetwork | None = None,
) -> tuple[CompiledNetwork, list[_Replacement]]:  # fmt: skip
    """The network of one size for a machine and so many threads, which has run once.

    Functions of any size are those of `first`.
    """
    machine, threads = target
    graph = from_json(stored["network"], tensors)
    operations = operations_of(graph) if stored["plan"]["tiles"] else []
    check(operations, graph)
    layers = {node.name for node, _ in layer_nodes(graph)}
    on_tiles = _tiles(stored["plan"]["tiles"], operations)
    kept = {name for each in operations if each.name in on_tiles for name in each.names}
    operations = without_layers(operations, layers - kept)
    if quantisation is not None and computes_in(on_tiles, INT8):
        operations = with_bytes(graph, operations, quantisation)
    origin = _origin(stored["plan"], graph, operations, quantisation)
    replacements = _replacements_of_rows(origin, machine) | _replacements(origin, operations, machine)
    others = {name: other.kernel for name, other in replacements.items()}
    kernels = origin.kernels | {name: each for name, each in others.items() if name in origin.kernels}
    tiles = origin.tiles | {name: each for name, each in others.items() if name in origin.tiles}
    known = {} if first is None else shared_functions(first, graph, kernels)
    operations = operations if first is None else with_known(operations, [first])
    compiled = built(replace(origin, kernels=kernels, tiles=tiles), operations, machine, threads, known)
    _try(compiled)
    return compiled, list(replacements.values())


def _try(compiled: CompiledNetwork) -> None:
    """Run the network, which says what does not fit together."""
    graph = compiled.origin.graph
    packs = any(node.op == pack_padded_sequence.__name__ for node in graph.nodes)
    try:
        compiled.run(*_equal_numbers(graph, 0))
    except EngineError:
        if not packs:
            raise
        compiled.run(*_equal_numbers(graph, 1))  # no sequence has a length of 0


def _plan(origin: Origin) -> JsonObject:
    return {
        "kernels": {node: kernel.name for node, kernel in origin.kernels.items()},
        "tiles": {name: origin.tiles[name].name for name in sorted(origin.tiles)},
        "images": origin.images,
        "precision": asdict(origin.precision),
    }


def _equal_numbers(graph: Graph, number: int) -> list[Tensor]:
    """Two examples of nothing but that number."""
    shapes = [((2, *each.shape) if each.has_batch else each.shape) for each in graph.inputs]
    return [
        torch.full(shape, number, dtype=each.dtype) for shape, each in zip(shapes, graph.inputs, strict=True)
    ]


def _origin(
    plan: JsonObject, graph: Graph, operations: Sequence[Operation], quantisation: Quantisation | None
) -> Origin:
    there = {name for operation in operations for name in operation.names}
    off_tiles = [node.name for node, _ in kernel_nodes(graph) if node.name not in there]
    scales = scales_of_layers(graph, quantisation)
    kernels = {name: with_scales([BY_NAME[plan["kernels"][name]]], scales.get(name))[0] for name in off_tiles}
    layers = {operation.name: operation for operation in operations if operation.layer is not None}
    tiles = _tiles(plan["tiles"], operations)
    others = FP16 if any(kernel.element == FP16.name for kernel in tiles.values()) else FP32
    for name, kernel in {**kernels, **tiles}.items():
        fits = (kernel.layout == "tiles") == (name in tiles)
        fits &= (kernel.method == DEPTHWISE.method) == (name in layers and layers[name].kind == "depthwise")
        if not fits or (name in tiles and not works_on_tiles(kernel, element_of(layers[name], others))):
            raise EngineError(f'"{kernel.name}" does not compute {name}')
    precision = Precision(str(plan["precision"]["arithmetic"]), str(plan["precision"]["weights"]))
    return Origin(graph, precision, kernels, tiles, _count(plan["images"], MOST_IMAGES), quantisation)


def _tiles(stored: JsonObject, operations: Sequence[Operation]) -> dict[str, Kernel]:
    """Operation with a layer -> its kernel. Those of older versions may have the name of another of their nodes."""
    return {
        operation.name: BY_NAME[stored[name]]
        for operation in operations
        if operation.layer is not None
        for name in [each for each in (*operation.names, operation.name) if each in stored][-1:]
    }


@dataclass(frozen=True)
class _Replacement:
    """The kernel that computes a layer here, and why that of the file cannot."""

    layer: str
    kernel: Kernel
    why: str


def _replacements_of_rows(origin: Origin, machine: Machine) -> dict[str, _Replacement]:
    """Node of a layer beside tiles -> its other kernel, which computes the same bits in eight bits.

    EngineError where it has another kernel that cannot run here.
    """
    found: dict[str, _Replacement] = {}
    scales = scales_of_layers(origin.graph, origin.quantisation)
    for node, computed in kernel_nodes(origin.graph):
        kernel = origin.kernels.get(node.name)
        why = None if kernel is None else kernel.accepts(computed, machine, origin.precision)
        if kernel is None or why is None:
            continue
        other = with_scales([GAPS], scales.get(node.name))[0]
        if kernel.element != INT8.name or other.accepts(computed, machine, origin.precision) is not None:
            raise EngineError(f'{node.name} was compiled for "{kernel.name}", which {why}')
        found[node.name] = _Replacement(computed.name, other, why)
    return found


def _replacements(
    origin: Origin, operations: Sequence[Operation], machine: Machine
) -> dict[str, _Replacement]:
    """Operation on tiles -> its other kernel, where that of the file cannot run here."""
    layers = {
        operation.name: layer_among(origin.graph, operation.names)
        for operation in operations
        if operation.layer is not None
    }
    reasons = {
        name: origin.tiles[name].accepts(layer, machine, origin.precision) for name, layer in layers.items()
    }
    first = next((why for why in reasons.values() if why is not None), None)
    if any(kernel.element == FP16.name for kernel in origin.tiles.values()):
        reasons = {name: why or first for name, why in reasons.items()}  # all work on maps of one type
    kernels = {
        each.name: (depthwise_in if each.kind == "depthwise" else streamed_in)(element_of(each, FP32))
        for each in operations
    }
    return {
        name: _Replacement(layers[name].name, kernels[name], why)
        for name, why in reasons.items()
        if why is not None
    }


def _measurement(stored: JsonObject, replacements: Sequence[_Replacement]) -> Measurement:
    """What the file says, with the kernels that run here."""
    measurement = measurements.from_json(stored)
    _count(measurement.threads, MOST_THREADS)
    _count(measurement.batch, MOST_EXAMPLES)
    others = {other.layer: other for other in replacements}
    choices = tuple(_choice(choice, others.get(choice.layer)) for choice in measurement.choices)
    error = measurement.error if any(choice.error for choice in choices) else 0.0
    return replace(measurement, choices=choices, error=error)


def _choice(choice: Choice, other: _Replacement | None) -> Choice:
    if other is None:
        return replace(choice, skips=BY_NAME[choice.kernel].skips)
    seconds = {other.kernel.name: math.nan, **choice.seconds}
    reason = f"for want of {choice.kernel}: {other.why}"
    name, skips = other.kernel.name, other.kernel.skips
    error = choice.error if other.kernel.element == INT8.name else 0.0  # the same integers
    return replace(choice, kernel=name, seconds=seconds, reason=reason, error=error, skips=skips)


def _count(value: object, most: int) -> int:
    if type(value) is not int or not 0 < value <= most:
        raise EngineError(f"{value!r} threads, images or examples cannot be worked on")
    return value
