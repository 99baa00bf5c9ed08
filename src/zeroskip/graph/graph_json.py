"""A captured network as JSON and tensors, and back: nothing in either is code.

An operation is stored by torch's name and must be one of those listed here: they look at their inputs alone, and
torch checks what they are given.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zeroskip.concepts import Layer
from zeroskip.errors import EngineError
from zeroskip.graph.nodes import Graph, Node
from zeroskip.graph.torch_operations import Bound, Slot, known_arguments, title

# What works number by number; the variants that overwrite their input ("relu_") may be stored as well.
NUMBERWISE = """
    abs acos add addcdiv addcmul asin atan bitwise_and bitwise_not bitwise_or bitwise_xor ceil celu clamp clamp_max
    clamp_min clip cos cosh div divide elu eq erf exp exp2 expm1 fill floor floor_divide fmod ge gelu greater gt
    hardshrink hardsigmoid hardswish hardtanh isfinite isinf isnan le leaky_relu lerp log log10 log1p log2
    log_sigmoid logical_and logical_not logical_or lt masked_fill maximum minimum mish mul multiply nan_to_num ne
    neg negative pow prelu reciprocal relu relu6 remainder round rsqrt rsub selu sigmoid sign silu sin sinh softplus
    softshrink sqrt square sub subtract tan tanh threshold trunc where
"""
OTHERS = """
    all amax amin any argmax argmin cumprod cumsum linalg_vector_norm log_softmax logsumexp max mean min norm prod
    softmax std sum var var_mean

    _assert_tensor_metadata alias cat channel_shuffle chunk clone concat concatenate constant_pad_nd contiguous
    detach expand expand_as flatten flip full_like gather index index_select movedim narrow ones_like pad permute
    pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d repeat replication_pad1d replication_pad2d
    reshape roll select slice split split_with_sizes squeeze stack sym_size t tile to transpose tril triu type_as
    unbind unflatten unsqueeze view view_as zeros_like

    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d addmm avg_pool1d avg_pool2d
    avg_pool3d baddbmm batch_norm bmm conv1d conv2d conv3d conv_transpose1d conv_transpose2d einsum embedding
    group_norm instance_norm layer_norm linear matmul max_pool1d max_pool2d max_pool3d mm rms_norm
    scaled_dot_product_attention upsample_bilinear2d upsample_nearest1d upsample_nearest2d
"""
OPERATIONS = {*NUMBERWISE.split(), *OTHERS.split(), *(f"{name}_" for name in NUMBERWISE.split())}
PLAIN = {"getitem": operator.getitem, "add": operator.add, "sub": operator.sub, "mul": operator.mul,
         "floordiv": operator.floordiv}  # fmt: skip
TYPES = (torch.dtype, torch.memory_format, torch.layout)
LARGEST = 1 << 31  # elements of one example's value; a damaged file may ask for anything


def to_json(graph: Graph, dtype: torch.dtype) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The network for inputs of `dtype` as JSON, and the tensors that it names.

    Raises EngineError for an operation that is not listed, an argument or a returned structure that JSON lacks.

    >>> to_json(graph, torch.float32)[0]["outputs"]
    ['linear_2']
    """
    tensors: dict[str, Tensor] = {}
    described = {
        "input": graph.input,
        "shape": list(graph.shape),
        "dtype": _word(dtype),
        "batch": graph.batch,
        "nodes": [_described(node, tensors) for node in graph.nodes],
        "outputs": list(graph.outputs),
        "returns": _structure(graph.rebuild(range(len(graph.outputs)))),  # type: ignore[arg-type]
    }
    return described, tensors


def from_json(described: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[Graph, torch.dtype]:
    """The network of `to_json`, and the type of its input.

    Raises EngineError, or whatever Python raises, where they describe no network. Whether shapes and arguments fit
    each other is not looked at.

    >>> from_json(*to_json(graph, torch.float32))[0].outputs
    ('linear_2',)
    """
    nodes = tuple(_node(one, tensors) for one in described["nodes"])
    names = [str(described["input"]), *(node.name for node in nodes)]
    shape, dtype = _shape(described["shape"]), _named(described["dtype"])
    outputs, batch = tuple(map(str, described["outputs"])), described["batch"]
    for position, node in enumerate(nodes, 1):
        _demand(
            bool(node.inputs) and set(node.inputs) <= set(names[:position]), f"{node.name} reads the future"
        )
    _demand(len(set(names)) == len(names), "two values have the same name")
    _demand(isinstance(dtype, torch.dtype), "the type of the input is unknown")
    _demand(outputs != () and set(outputs) <= set(names), "it returns what it does not compute")
    _demand(batch is None or _size(batch) > 0, "its batch is empty")
    return Graph(names[0], nodes, outputs, _rebuild(described["returns"], len(outputs)), batch, shape), dtype


def _described(node: Node, tensors: dict[str, Tensor]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": node.name,
        "op": node.op,
        "inputs": list(node.inputs),
        "shape": node.shape,
    }
    if node.layer is not None:
        return found | {"relu": node.relu, "layer": _described_layer(node.layer, node.name, tensors)}
    bound = node.function
    if not isinstance(bound, Bound) or _target(node.op) is not bound.target:
        raise EngineError(f'operation "{node.op}" is not among those that a saved program may hold')
    arguments = [_plain(one, node, tensors) for one in bound.arguments]
    return found | {
        "arguments": arguments,
        "named": {key: _plain(one, node, tensors) for key, one in bound.named.items()},
    }


def _described_layer(layer: Layer, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    tensors[f"{name}.weight"] = layer.weight
    if layer.bias is not None:
        tensors[f"{name}.bias"] = layer.bias
    padding = layer.padding if isinstance(layer.padding, str) else list(layer.padding)
    steps = {"stride": list(layer.stride), "padding": padding, "dilation": list(layer.dilation)}
    shapes = {"input_shape": layer.input_shape, "output_shape": layer.output_shape}
    return {"name": layer.name, "op": layer.op, **shapes, **steps, "groups": layer.groups}


def _plain(argument: Any, node: Node, tensors: dict[str, Tensor]) -> Any:
    """An argument as JSON; tensors by name."""
    if argument is None or isinstance(argument, (bool, int, float, str)):
        return argument
    if isinstance(argument, list):
        return [_plain(one, node, tensors) for one in argument]
    if isinstance(argument, Slot):
        return {"input": argument.number}
    if isinstance(argument, Tensor):
        name = f"{node.name}.{len(tensors)}"
        tensors[name] = argument
        return {"tensor": name}
    if isinstance(argument, TYPES):
        return {"torch": _word(argument)}
    if isinstance(argument, torch.device) and argument.type == "cpu":
        return {"device": "cpu"}
    raise EngineError(f'operation "{node.op}" is given {argument!r}, which a saved program cannot hold')


def _argument(value: Any, tensors: dict[str, Tensor], inputs: int) -> Any:
    """The inverse of `_plain`."""
    if isinstance(value, list):
        return [_argument(one, tensors, inputs) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, what),) = value.items()
    if kind == "input":
        _demand(_size(what) < inputs, "an operation has fewer inputs than it reads")
        return Slot(what)
    known: dict[str, Callable[[Any], Any]] = {"tensor": tensors.__getitem__, "torch": _named}
    return torch.device("cpu") if kind == "device" else known[kind](what)


def _node(one: dict[str, Any], tensors: dict[str, Tensor]) -> Node:
    name, op, inputs = str(one["name"]), str(one["op"]), tuple(map(str, one["inputs"]))
    shape = None if one["shape"] is None else _shape(one["shape"])
    if "layer" in one:
        layer = _layer(one["layer"], name, tensors)
        known = len(inputs) == 1 and isinstance(one["relu"], bool) and op.split(".")[1] == layer.op
        _demand(known and _target(op) is not None, f"{name} is no layer")
        given = _arguments(layer)
        return Node(
            name, op, inputs, _computes(layer.op, given, one["relu"]), layer, one["relu"], given, shape
        )
    arguments = [_argument(each, tensors, len(inputs)) for each in one["arguments"]]
    named = {str(key): _argument(each, tensors, len(inputs)) for key, each in one["named"].items()}
    target = _target(op)
    _demand(target is not None, f'operation "{op}" is not among those that a saved program may hold')
    bound = Bound(target, arguments, named)
    return Node(name, op, inputs, bound, arguments=known_arguments(bound), shape=shape)


def _layer(one: dict[str, Any], name: str, tensors: dict[str, Tensor]) -> Layer:
    weight, bias, op = tensors[f"{name}.weight"], tensors.get(f"{name}.bias"), one["op"]
    _demand(
        weight.ndim == {"linear": 2, "conv2d": 4}[op] and weight.is_floating_point(), f"{name} has no weight"
    )
    fits = bias is None or (bias.shape == weight.shape[:1] and bias.dtype is weight.dtype)
    _demand(fits, f"the bias of {name} does not fit its weight")
    padding = one["padding"] if one["padding"] in ("same", "valid") else _pair(one["padding"])
    stride, dilation, groups = _pair(one["stride"]), _pair(one["dilation"]), _size(one["groups"])
    _demand(min(*stride, *dilation, groups) > 0, f"{name} has steps of 0")
    shapes = _shape(one["input_shape"]), _shape(one["output_shape"])
    return Layer(str(one["name"]), op, weight, bias, *shapes, stride, padding, dilation, groups)


def _arguments(layer: Layer) -> dict[str, Any]:
    found: dict[str, Any] = {"weight": layer.weight, "bias": layer.bias}
    if layer.op == "conv2d":
        found |= {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    return found


def _computes(op: str, given: dict[str, Any], relu: bool) -> Callable[[Tensor], Tensor]:
    operation: Any = functional.linear if op == "linear" else functional.conv2d
    compute = partial(operation, **given)
    return (lambda x: torch.relu(compute(x))) if relu else compute


def _structure(value: Any) -> Any:
    """What a network returns, made of numbers of its outputs, as JSON."""
    if isinstance(value, int):
        return value
    if type(value) in (tuple, list):
        return {type(value).__name__: [_structure(one) for one in value]}
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {"dict": {key: _structure(one) for key, one in value.items()}}
    raise EngineError(
        f"the network returns a {type(value).__name__}, and a saved program tuples, lists and dicts"
    )


def _rebuild(structure: Any, count: int) -> Callable[[Sequence[Tensor]], Any]:
    """The inverse of `_structure`, for `count` outputs."""
    if isinstance(structure, int):
        _demand(_size(structure) < count, "it returns more than it computes")
        return operator.itemgetter(structure)
    ((kind, inner),) = structure.items()
    if kind == "dict":
        named = {str(key): _rebuild(one, count) for key, one in inner.items()}
        return lambda values: {key: make(values) for key, make in named.items()}
    parts, whole = [_rebuild(one, count) for one in inner], {"tuple": tuple, "list": list}[kind]
    return lambda values: whole(make(values) for make in parts)


def _target(op: str) -> Any:
    """The operation of this name; None where it is not among those that may be stored."""
    parts = op.split(".")
    if parts[0] != "aten" or len(parts) != 3:
        return PLAIN.get(op)
    if parts[1] not in OPERATIONS or parts[2].endswith("out"):
        return None
    found = getattr(getattr(torch.ops.aten, parts[1], None), parts[2], None)
    return found if isinstance(found, torch._ops.OpOverload) and title(found) == op else None


def _word(kind: Any) -> str:
    return str(kind).removeprefix("torch.")


def _named(word: str) -> Any:
    found = getattr(torch, word)
    _demand(isinstance(found, TYPES), f"torch has no type {word}")
    return found


def _size(value: Any) -> int:
    _demand(type(value) is int and 0 <= value < LARGEST, f"{value!r} is no size")
    return value


def _shape(value: Any) -> tuple[int, ...]:
    shape = tuple(map(_size, value))
    _demand(math.prod(shape) < LARGEST, f"a value of shape {shape} is larger than any memory")
    return shape


def _pair(value: Any) -> tuple[int, int]:
    first, second = map(_size, value)
    return first, second


def _demand(condition: bool, fact: str) -> None:
    if not condition:
        raise EngineError(fact)
