"""A network as an ONNX file: with its zeros, and with int8 weights and scales where it computes in eight bits."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from zeroskip import files
from zeroskip.errors import EngineError
from zeroskip.graph import Given, Graph, Inputs
from zeroskip.graph.capture import quiet
from zeroskip.graph.exporting import first_line
from zeroskip.run.captured import taken
from zeroskip.run.integer_network import demand_fit, integer_network
from zeroskip.run.network_checks import captured_graph, checked, tensors_of
from zeroskip.run.onnx_network import RoundingNetwork, StoredBytes
from zeroskip.run.onnx_package import Proto, answers, package
from zeroskip.run.output_difference import difference, relative_error
from zeroskip.run.quantisation import Quantisation
from zeroskip.run.runner import runner

OPSET = 17  # has layer norms; scales for each output there are since 13
# Where sums are added in another order, a number halfway between two bytes may become the other one.
TOLERANCES = {False: 1e-3, True: 0.05}


def save_onnx(
    model: nn.Module,
    example: Given | Inputs,
    path: str | Path,
    *,
    quantisation: Quantisation | None = None,
    batch_axis: int | None = 0,
) -> Path:
    """Write the network to an ONNX file, for any number of examples, and read it once with ONNX Runtime.

    With a quantisation, maps are rounded by pairs of QuantizeLinear and DequantizeLinear wherever `run.compile` has
    bytes, and weights are the same bytes; other layers stay float32. Batch norms are part of weights. Raises
    EngineError where onnx or onnxruntime is absent, an operation has no form in ONNX, or the file computes
    something else than the network; ModelError where the network cannot run on `example`.

    >>> save_onnx(model, x, "mlp.onnx")
    PosixPath('mlp.onnx')
    """
    package("onnxruntime")
    inputs = checked(model, example, batch_axis)
    graph = captured_graph(model, inputs)
    if quantisation is not None:
        demand_fit(graph, quantisation)
    network = RoundingNetwork(graph, quantisation).eval()
    tensors = tensors_of(graph, inputs)
    content = _content(network, taken(graph, tensors, graph.batch or 2))
    for count in {graph.batch} if graph.batch else {1, 3}:  # another number than was followed
        _demand_same(network, content, taken(graph, tensors, count))
    return files.write(path, content)


@dataclass(frozen=True)
class OnnxDifference:
    """How far ONNX Runtime's answers lie from a program's.

    share  the largest difference, as share of the largest output
    steps  the same in steps of the last value that is bytes; None where none is
    layers_in_bytes  of the file

    >>> OnnxDifference(0.01, 0.5, 3).steps
    0.5
    """

    share: float
    steps: float | None
    layers_in_bytes: int


@torch.no_grad()
def onnx_difference(
    path: str | Path,
    model: nn.Module,
    example: Given | Inputs,
    *,
    quantisation: Quantisation | None = None,
    batch_axis: int | None = 0,
) -> OnnxDifference:
    """How far what ONNX Runtime makes of the file lies from the network, in eight bits with a quantisation.

    Its sums have another order, so a number halfway between two bytes may become the other one.
    Raises FileError where there is no file, and EngineError as `save_onnx` does.

    >>> onnx_difference(save_onnx(model, x, "mlp.onnx"), model, x).share < 1e-5
    True
    """
    content, inputs = files.read(path), checked(model, example, batch_axis)
    graph = captured_graph(model, inputs)
    tensors = tensors_of(graph, inputs)
    tensors = tensors if graph.batch is None else taken(graph, tensors, graph.batch)
    ours = runner(graph, {}) if quantisation is None else integer_network(graph, quantisation)
    expected, theirs = ours(*[tensor.clone() for tensor in tensors]), answers(content, tensors)
    share, gap = relative_error(theirs, expected), difference(theirs, expected)
    layers = 0 if quantisation is None else len(RoundingNetwork(graph, quantisation).layers)
    scale = None if quantisation is None or not layers else _last_scale(graph, quantisation)
    return OnnxDifference(share, scale and gap / scale, layers)


def _last_scale(graph: Graph, quantisation: Quantisation) -> float | None:
    last = next((node.name for node in reversed(graph.nodes) if node.name in quantisation.values), None)
    return None if last is None else quantisation.values[last].scale


@torch.no_grad()
def _content(network: RoundingNetwork, tensors: Sequence[Tensor]) -> bytes:
    """The bytes of the file."""
    onnx, graph = package("onnx"), network.graph
    outputs = ["output"] if len(graph.outputs) == 1 else [f"output_{n}" for n in range(len(graph.outputs))]
    try:
        with quiet(), _nothing_printed(), tempfile.TemporaryDirectory() as folder:
            torch.onnx.export(
                network, tuple(tensors), f"{folder}/network.onnx", dynamo=False, opset_version=OPSET,
                do_constant_folding=False, input_names=list(graph.names), output_names=outputs,
                dynamic_axes=_free_axes(graph, outputs),
            )  # fmt: skip
            made = onnx.load(f"{folder}/network.onnx")
    except Exception as fact:  # torch raises all kinds of errors about what it cannot write
        raise EngineError(_unwritten(fact)) from fact
    _name_(made.graph, network.names)
    for name, numbers in network.stored.bytes_.items():
        _put_bytes_(made.graph, name, numbers)
    made.producer_name = "zeroskip"
    content: bytes = made.SerializeToString()
    return content


@contextmanager
def _nothing_printed() -> Iterator[None]:
    """Nothing on the process's own standard output: there torch.onnx prints what it followed, where it fails."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _free_axes(graph: Graph, outputs: Sequence[str]) -> dict[str, dict[int, str]]:
    if graph.batch is not None or not any(each.has_batch for each in graph.inputs):
        return {}
    nodes = {node.name: node.shape for node in graph.nodes}
    batched = [each.name for each in graph.inputs if each.has_batch]
    batched += [
        name for name, value in zip(outputs, graph.outputs, strict=True) if nodes.get(value) is not None
    ]
    return {name: {0: "batch"} for name in batched}


def _unwritten(fact: Exception) -> str:
    named = re.search(r"operator '?((?:aten|torchvision)::[\w.]+)", str(fact))
    if named is None:
        return f"the network cannot be written as ONNX: {first_line(fact)}"
    return (
        f"the operation {named[1]} has no form in ONNX (opset {OPSET}), so the network cannot be written. Put "
        "operations that ONNX has in its place, or save a program: run.save."
    )


def _name_(graph: Proto, names: Mapping[str, str]) -> None:
    """Constants become tensors of the file, in their type, and buffers get the names that the network has."""
    onnx = package("onnx")
    given = {tensor.name: tensor for tensor in graph.initializer}
    arrays: dict[str, Proto] = {}
    for node in list(graph.node):
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            arrays[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        elif (
            node.op_type == "Cast" and node.input[0] in arrays
        ):  # as of each scale, which Python has in float64
            kind = onnx.helper.tensor_dtype_to_np_dtype(node.attribute[0].i)
            arrays[node.output[0]] = arrays[node.input[0]].astype(kind)
        elif node.op_type == "Identity" and node.output[0] in names:  # torch.onnx keeps equal tensors once
            arrays[node.output[0]] = onnx.numpy_helper.to_array(given[node.input[0]])
        else:
            continue
        graph.node.remove(node)
    read = {name for node in graph.node for name in node.input}
    graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in arrays.items() if name in read
    )
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)


def _put_bytes_(graph: Proto, name: str, numbers: StoredBytes) -> None:
    """The tensor of that name comes from whole numbers, by a DequantizeLinear."""
    onnx = package("onnx")
    found = [tensor for tensor in graph.initializer if tensor.name == name]
    for tensor in found:
        graph.initializer.remove(tensor)
    given = {
        f"{name}.bytes": numbers.numbers,
        f"{name}.scales": numbers.scales,
        f"{name}.zero_points": torch.zeros(len(numbers.scales), dtype=numbers.numbers.dtype),
    }
    graph.initializer.extend(
        onnx.numpy_helper.from_array(tensor.contiguous().numpy(), key) for key, tensor in given.items()
    )
    node = onnx.helper.make_node("DequantizeLinear", [*given], [name], name=f"{name}.real", axis=0)
    graph.node.insert(0, node)


@torch.no_grad()
def _demand_same(network: RoundingNetwork, content: bytes, tensors: Sequence[Tensor]) -> None:
    """EngineError unless ONNX Runtime computes of these tensors what was to be written."""
    expected, is_rounded = network(*[tensor.clone() for tensor in tensors]), bool(network.stored.bytes_)
    error = relative_error(answers(content, tensors, as_written=True), expected)
    if not error <= TOLERANCES[is_rounded]:
        raise EngineError(
            f"the ONNX file would compute something else than the network on {len(tensors[0])} examples: {error:.2g} "
            "of the largest output. Sizes that the network computes may be fixed in it. It is not written."
        )
