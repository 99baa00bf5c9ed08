"""A captured network as JSON and tensors, and back: nothing in either is code.

An operation is stored by torch's name and must be one of those listed here: they read their inputs alone, and
torch checks their arguments.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from zeroskip.concepts import Layer
from zeroskip.errors import EngineError
from zeroskip.graph.layer_functions import OPS, arguments_of, function_of, with_relu
from zeroskip.graph.nodes import Graph, Input, Node
from zeroskip.graph.packing import pack_padded_sequence, pad_packed_sequence
from zeroskip.graph.recurrent import CELLS, PACKED, SEQUENCES, Cell, Recurrent, fits
from zeroskip.graph.recurrent import function_of as recurrent_function
from zeroskip.graph.signature import of_tensor
from zeroskip.graph.structure import maker
from zeroskip.graph.structure_json import (
    Json,
    of_words,
    put_together,
    signature_of_json,
    signature_to_json,
    to_words,
)
from zeroskip.graph.torch_operations import Argument, Bound, Slot, TorchType, known_arguments, title

# Operations on each number alone; the variants that overwrite their input ("relu_") may be stored as well.
NUMBERWISE = """
    abs absolute acos acosh add addcdiv addcmul __and__ arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin
    asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or bitwise_xor ceil celu clamp clamp_max clamp_min clip
    copy cos cosh digamma div divide elu eq erf erfc erfinv exp exp2 expm1 fill fix float_power floor floor_divide
    fmod frac ge gelu greater gt hardshrink hardsigmoid hardswish hardtanh heaviside hypot isfinite isinf isnan le
    leaky_relu lerp lgamma log log10 log1p log2 log_sigmoid logaddexp logaddexp2 logical_and logical_not logical_or
    logical_xor logit lt masked_fill maximum minimum mish mul multiply nan_to_num ne neg negative __or__ pow prelu
    reciprocal relu relu6 remainder round rrelu rsqrt rsub selu sigmoid sign silu sin sinc sinh softplus softshrink
    special_entr special_erf special_expit special_expm1 special_log1p special_sinc special_xlogy sqrt square sub
    subtract tan tanh threshold tril triu true_divide trunc where xlogy __xor__ zero

    index_add index_copy index_fill index_put masked_scatter scatter scatter_add scatter_reduce
"""
OTHERS = """
    all amax amin aminmax any argmax argmin argsort bincount count_nonzero cummax cummin cumprod cumsum diff
    frobenius_norm kthvalue linalg_matrix_norm linalg_vector_norm log_softmax logcumsumexp logsumexp max mean median
    min nanmean nansum norm prod quantile softmax sort std std_mean sum topk trapezoid var var_mean

    adjoint alias arange _assert_scalar _assert_tensor_metadata atleast_1d atleast_2d atleast_3d broadcast_tensors
    broadcast_to bucketize cat channel_shuffle chunk clone col2im column_stack concat concatenate constant_pad_nd
    contiguous detach diag_embed diagonal dsplit dstack expand expand_as eye flatten flip fliplr flipud full
    full_like gather hsplit hstack im2col index index_select item lift_fresh_copy linspace _local_scalar_dense
    masked_select matrix_H meshgrid mH moveaxis movedim mT narrow narrow_copy native_channel_shuffle new_full
    new_ones new_zeros nonzero one_hot ones ones_like pad permute pixel_shuffle pixel_unshuffle ravel
    reflection_pad1d reflection_pad2d repeat repeat_interleave replication_pad1d replication_pad2d reshape
    reshape_as roll rot90 scalar_tensor searchsorted select select_scatter _shape_as_tensor slice slice_scatter
    split split_with_sizes squeeze stack swapaxes swapdims sym_constrain_range sym_constrain_range_for_size
    sym_numel sym_size t take_along_dim tensor_split tile to _to_copy transpose type_as unbind unflatten unfold
    unsafe_chunk unsafe_split unsafe_split_with_sizes _unsafe_view unsqueeze view view_as vsplit vstack zeros
    zeros_like

    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d addbmm addmm
    addmv avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bilinear bmm cdist conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d cosine_similarity dot einsum embedding embedding_bag fft_fft
    fft_fft2 fft_ifft fft_ifft2 fft_irfft fft_irfft2 fft_rfft fft_rfft2 glu grid_sampler grid_sampler_2d group_norm
    gru gru_cell instance_norm layer_norm linalg_norm linear lstm lstm_cell matmul max_pool1d
    max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d mm mv
    pairwise_distance rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell scaled_dot_product_attention
    upsample_bicubic2d _upsample_bicubic2d_aa upsample_bilinear2d _upsample_bilinear2d_aa upsample_linear1d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d upsample_trilinear3d
"""
OPERATIONS = {*NUMBERWISE.split(), *OTHERS.split(), *(f"{name}_" for name in NUMBERWISE.split())}
OF_PYTHON: Mapping[str, Callable[..., Any]] = {
         "getitem": operator.getitem, "add": operator.add, "sub": operator.sub, "mul": operator.mul,
         "floordiv": operator.floordiv, "truediv": operator.truediv, "mod": operator.mod, "neg": operator.neg,
         "pow": operator.pow, "sym_float": torch.sym_float, "sym_int": torch.sym_int, "sym_max": torch.sym_max,
         "sym_min": torch.sym_min, "ge": operator.ge, "gt": operator.gt, "le": operator.le, "lt": operator.lt,
         "eq": operator.eq, "ne": operator.ne, "and_": operator.and_, "or_": operator.or_,
         "sym_not": torch.sym_not, "pack_padded_sequence": pack_padded_sequence,
         "pad_packed_sequence": pad_packed_sequence}  # fmt: skip
TYPES = (torch.dtype, torch.memory_format, torch.layout)
LARGEST = 1 << 31  # elements of one example's value; a damaged file may ask for anything


def to_json(graph: Graph) -> tuple[dict[str, Json], dict[str, Tensor]]:
    """The network as JSON, and the tensors that it names.

    Raises EngineError for an operation that is not listed, an argument, a way to be called or a returned structure that
    JSON lacks.

    >>> to_json(graph)[0]["outputs"]
    ['linear_1']
    """
    tensors: dict[str, Tensor] = {}
    described: dict[str, Json] = {
        "inputs": [_described_input(each) for each in graph.inputs],
        "signature": signature_to_json(graph.signature or of_tensor(graph.inputs[0].name)),
        "batch": graph.batch,
        "nodes": [_described(node, tensors) for node in graph.nodes],
        "outputs": list(graph.outputs),
        "returns": to_words(put_together(graph.rebuild, len(graph.outputs))),
    }
    return described, tensors


def from_json(described: Json, tensors: Mapping[str, Tensor]) -> Graph:
    """The network of `to_json`.

    Raises EngineError, or whatever Python raises, where they describe no network. Whether shapes and arguments fit
    each other is not checked.

    >>> from_json(*to_json(graph)).outputs
    ('linear_1',)
    """
    network = _object(described)
    nodes = tuple(_node(_object(node), tensors) for node in _list(network["nodes"]))
    inputs = _inputs(network)
    names = [*(each.name for each in inputs), *(node.name for node in nodes)]
    outputs = tuple(map(str, _list(network["outputs"])))
    batch = None if network["batch"] is None else _size(network["batch"])
    for position, node in enumerate(nodes, len(inputs)):
        _demand(set(node.inputs) <= set(names[:position]), f"{node.name} reads the future")
    _demand(len(set(names)) == len(names), "two values have the same name")
    _demand(outputs != () and set(outputs) <= set(names), "it returns what it does not compute")
    _demand(batch != 0, "its batch is empty")
    returned = of_words(network["returns"], len(outputs))
    stored = network.get("signature")
    signature = of_tensor(names[0]) if stored is None else signature_of_json(_object(stored), len(inputs))
    return Graph(inputs, nodes, outputs, maker(returned), batch, signature)


def _described_input(each: Input) -> dict[str, Json]:
    shape = list(each.shape)
    return {"name": each.name, "shape": shape, "dtype": _word(each.dtype), "has_batch": each.has_batch}


def _inputs(network: Mapping[str, Json]) -> tuple[Input, ...]:
    """What the network is called with; a file of an older zeroskip knows one tensor."""
    if "inputs" not in network:
        return (_input({"name": network["input"], "has_batch": True, **network}),)
    inputs = tuple(_input(_object(each)) for each in _list(network["inputs"]))
    _demand(inputs != (), "it takes no input")
    return inputs


def _input(stored: Mapping[str, Json]) -> Input:
    dtype = _named(stored["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise EngineError("the type of the input is unknown")
    _demand(isinstance(stored["has_batch"], bool), "has_batch is neither true nor false")
    return Input(str(stored["name"]), _shape(stored["shape"]), dtype, stored["has_batch"] is True)


def _described(node: Node, tensors: dict[str, Tensor]) -> dict[str, Json]:
    stored: dict[str, Json] = {
        "name": node.name,
        "op": node.op,
        "inputs": [*node.inputs],
        "shape": node.shape,
        "dtype": None if node.dtype is None else _word(node.dtype),
    }
    if node.recurrent is not None:
        return stored | {"recurrent": _described_recurrent(node.recurrent, node.name, tensors)}
    if node.layer is not None:
        return stored | {"relu": node.relu, "layer": _described_layer(node.layer, node.name, tensors)}
    bound = node.function
    if not isinstance(bound, Bound) or _target(node.op) is not bound.target:
        raise EngineError(f'operation "{node.op}" is not among those that a saved program may hold')
    arguments = [_plain(argument, node, tensors) for argument in bound.arguments]
    named = {key: _plain(argument, node, tensors) for key, argument in bound.named.items()}
    return stored | {"arguments": arguments, "named": named}


def _described_layer(layer: Layer, name: str, tensors: dict[str, Tensor]) -> dict[str, Json]:
    tensors[f"{name}.weight"] = layer.weight
    if layer.bias is not None:
        tensors[f"{name}.bias"] = layer.bias
    padding = layer.padding if isinstance(layer.padding, str) else list(layer.padding)
    steps = {"stride": list(layer.stride), "padding": padding, "dilation": list(layer.dilation)}
    shapes = {"input_shape": layer.input_shape, "output_shape": layer.output_shape}
    more = {"output_padding": list(layer.output_padding)} if layer.transposed else {}
    return {"name": layer.name, "op": layer.op, **shapes, **steps, **more, "groups": layer.groups}


def _described_recurrent(recurrent: Recurrent, name: str, tensors: dict[str, Tensor]) -> dict[str, Json]:
    matrices = [
        [
            _described_layer(layer, f"{name}.{cell}.{number}", tensors)
            for number, layer in enumerate(each.matrices)
        ]
        for cell, each in enumerate(recurrent.cells)
    ]
    words = {
        name: getattr(recurrent, name)
        for name in ("kind", "directions", "batch_first", "given", "is_step", "is_packed")
    }
    return {"cells": matrices, **words}


def _plain(argument: Argument, node: Node, tensors: dict[str, Tensor]) -> Json:
    """An argument as JSON; tensors by name."""
    if argument is None or isinstance(argument, (bool, int, float, str)):
        return argument
    if isinstance(argument, list):
        return [_plain(part, node, tensors) for part in argument]
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


def _argument(value: Json, tensors: Mapping[str, Tensor], inputs: int) -> Argument:
    """The inverse of `_plain`."""
    if isinstance(value, list):
        return [_argument(part, tensors, inputs) for part in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    ((kind, content),) = _object(value).items()
    if kind == "input":
        _demand(_size(content) < inputs, "an operation has fewer inputs than it reads")
        return Slot(_size(content))
    if kind == "tensor":
        return tensors[str(content)]
    _demand(kind in ("torch", "device"), f"{kind} is no kind of argument")
    return _named(content) if kind == "torch" else torch.device("cpu")


def _node(stored: Mapping[str, Json], tensors: Mapping[str, Tensor]) -> Node:
    name, op, inputs = str(stored["name"]), str(stored["op"]), tuple(map(str, _list(stored["inputs"])))
    shape = None if stored["shape"] is None else _shape(stored["shape"])
    dtype = None if stored.get("dtype") is None else _named(stored["dtype"])
    if not isinstance(dtype, (torch.dtype, type(None))):
        raise EngineError(f"the type of {name} is unknown")
    target = _target(op)
    if target is None:
        raise EngineError(f'operation "{op}" is not among those that a saved program may hold')
    if "layer" in stored:
        layer, relu = _layer(_object(stored["layer"]), name, tensors), stored["relu"] is True
        most = 2 if layer.op == "bilinear" else 1
        fits = 0 < len(inputs) <= most and isinstance(stored["relu"], bool) and op.split(".")[1] == layer.op
        _demand(fits, f"{name} is no layer")
        function = with_relu(function_of(layer)) if relu else function_of(layer)
        return Node(name, op, inputs, function, layer, relu, arguments_of(layer), shape, dtype)
    if "recurrent" in stored:
        recurrent = _recurrent(_object(stored["recurrent"]), name, tensors)
        count = 1 + recurrent.is_packed + (1 + (recurrent.kind == "lstm")) * recurrent.given
        kind = (CELLS if recurrent.is_step else SEQUENCES).get(target)
        same = kind == recurrent.kind and (target in PACKED) == recurrent.is_packed
        _demand(same and len(inputs) == count, f"{name} is no {recurrent.kind}")
        return Node(
            name, op, inputs, recurrent_function(recurrent), shape=shape, dtype=dtype, recurrent=recurrent
        )
    arguments = [_argument(value, tensors, len(inputs)) for value in _list(stored["arguments"])]
    named = {key: _argument(value, tensors, len(inputs)) for key, value in _object(stored["named"]).items()}
    bound = Bound(target, arguments, named)
    return Node(name, op, inputs, bound, arguments=known_arguments(bound), shape=shape, dtype=dtype)


def _recurrent(stored: Mapping[str, Json], name: str, tensors: Mapping[str, Tensor]) -> Recurrent:
    every = [_list(cell) for cell in _list(stored["cells"])]
    _demand(all(len(cell) in (2, 3) for cell in every), f"{name} lacks a matrix")
    cells = tuple(
        Cell(*(_layer(_object(each), f"{name}.{cell}.{n}", tensors) for n, each in enumerate(layers)))
        for cell, layers in enumerate(every)
    )
    flags = {each: stored[each] for each in ("batch_first", "given", "is_step")}
    flags["is_packed"] = stored.get("is_packed", False)  # which older files lack
    _demand(all(isinstance(each, bool) for each in flags.values()), f"{name} has a flag that is none")
    recurrent = Recurrent(
        str(stored["kind"]), cells, _size(stored["directions"]), **{k: v is True for k, v in flags.items()}
    )
    _demand(fits(recurrent), f"the matrices of {name} do not fit each other")
    return recurrent


def _layer(stored: Mapping[str, Json], name: str, tensors: Mapping[str, Tensor]) -> Layer:
    weight, bias, op = tensors[f"{name}.weight"], tensors.get(f"{name}.bias"), str(stored["op"])
    known = op in OPS and weight.ndim == _axes(op) + 2 - (op == "linear") and weight.is_floating_point()
    _demand(known, f"{name} has no weight")
    stride, dilation, groups = _steps(stored["stride"]), _steps(stored["dilation"]), _size(stored["groups"])
    _demand(min(*stride, *dilation, groups) > 0, f"{name} has steps of 0")
    transposed = op.startswith("conv_transpose")
    outputs = weight.shape[1] * groups if transposed else weight.shape[0]
    fits = bias is None or (bias.shape == (outputs,) and bias.dtype is weight.dtype)
    _demand(fits, f"the bias of {name} does not fit its weight")
    word = stored["padding"]
    padding = word if isinstance(word, str) and word in ("same", "valid") else _steps(word)
    shapes = _shape(stored["input_shape"]), _shape(stored["output_shape"])
    linear = Layer(str(stored["name"]), op, weight, bias, *shapes)
    more = _steps(stored["output_padding"]) if transposed else linear.output_padding
    if op not in ("linear", "bilinear"):
        axes = _axes(op)
        sizes = (
            stride,
            dilation,
            *([] if isinstance(padding, str) else [padding]),
            *([more] if transposed else []),
        )
        _demand(all(len(each) == axes for each in sizes), f"{name} has steps along other axes than it has")
    return replace(
        linear, stride=stride, padding=padding, dilation=dilation, groups=groups, output_padding=more
    )


def _axes(op: str) -> int:
    """Along how many axes an operation slides its weight; bilinear, along none, has a weight of one axis more."""
    return int(op[-2]) if op[-1] == "d" else 1


def _target(op: str) -> Callable[..., Argument] | None:
    """The operation of this name; None where it is not among those that may be stored."""
    parts = op.split(".")
    if parts[0] != "aten" or len(parts) != 3:
        return OF_PYTHON.get(op)
    if parts[1] not in OPERATIONS:
        return None
    target = getattr(getattr(torch.ops.aten, parts[1], None), parts[2], None)
    if not isinstance(target, torch._ops.OpOverload) or title(target) != op:
        return None
    writes_out = any(slot.is_out for slot in target._schema.arguments)
    return None if writes_out else cast(Callable[..., Argument], target)


def _word(kind: TorchType) -> str:
    return str(kind).removeprefix("torch.")


def _named(word: Json) -> TorchType:
    named = getattr(torch, str(word))
    if isinstance(named, TYPES):
        return named
    raise EngineError(f"torch has no type {word}")


def _object(value: Json) -> Mapping[str, Json]:
    if isinstance(value, dict):
        return value
    raise EngineError(f"{value!r} is no JSON object")


def _list(value: Json) -> Sequence[Json]:
    if isinstance(value, (list, tuple)):
        return value
    raise EngineError(f"{value!r} is no list")


def _size(value: Json) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LARGEST:
        return value
    raise EngineError(f"{value!r} is no size")


def _shape(value: Json) -> tuple[int, ...]:
    shape = tuple(map(_size, _list(value)))
    _demand(math.prod(shape) < LARGEST, f"a value of shape {shape} is larger than any memory")
    return shape


def _steps(value: Json) -> tuple[int, ...]:
    return tuple(map(_size, _list(value)))


def _demand(condition: bool, fact: str) -> None:
    if not condition:
        raise EngineError(fact)
