"""torch.export's program of a network -> Graph."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind

from zeroskip.concepts import Layer
from zeroskip.errors import EngineError, ZeroskipError
from zeroskip.graph.constant_values import changing
from zeroskip.graph.exporting import OWNER, Exported, export, first_line
from zeroskip.graph.fold_norms import batch_norm, fold_norm
from zeroskip.graph.inputs import Given, Inputs, of
from zeroskip.graph.layer_functions import arguments_of, function_of, with_relu
from zeroskip.graph.layers import evaluating
from zeroskip.graph.nodes import Graph, Input, Node
from zeroskip.graph.packing import packs_by_constants
from zeroskip.graph.recurrent import function_of as recurrent_function
from zeroskip.graph.recurrent import recurrent_of
from zeroskip.graph.signature import Signature, places, signature_of
from zeroskip.graph.simplified import simplified
from zeroskip.graph.structure import maker
from zeroskip.graph.torch_operations import Argument, Bound, bind, known_arguments, title
from zeroskip.graph.undisturbed import undisturbed
from zeroskip.graph.weighted_nodes import Weighted, layer_name, names_of, weighted

ATEN = torch.ops.aten
RELU = (ATEN.relu.default, ATEN.relu_.default)
# Where nobody reads them.
NEEDLESS = ("aten.zeros.default", "aten.zeros_like.default", "aten.new_zeros.default", "aten.sym_size.int")
NO_BATCH_AXIS = (
    "If the first axis of what goes in is not that of examples (nodes of a graph, steps of a sequence), give "
    "batch_axis=None."
)
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def capture(model: nn.Module, example: Given | Inputs, *, fold: bool = True) -> Graph:
    """The operations that `model` does in evaluation mode on a batch like `example`.

    Operations with a constant weight become Layers named after its parameter. What depends on parameters alone
    (a parametrization) is computed once, dropout disappears, and a ReLU right after a layer
    joins it, as does before it a batch norm that alone reads the layer; everything else stays the torch operation
    that was exported. Weights share the model's memory where nothing was computed; `fold=False` leaves every
    batch norm where it is. A network that cannot be exported for every batch size (`x.view(16, -1)`) is
    captured for that of `example`.
    Raises EngineError where torch.export cannot follow the network, it changes its own buffers, or returns what a
    program cannot give back.

    >>> [node.op for node in capture(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.zeros(1, 4)).nodes]
    ['aten.linear.default']
    """
    inputs = of(example)
    signature = signature_of(model, inputs)
    tensors = signature.tensors(inputs.args, inputs.kwargs)
    demand_numbers(inputs)
    with evaluating(model), undisturbed(model), quiet():
        return captured(model, export(model, signature, tensors, inputs), signature, tensors, fold)


def captured(
    model: nn.Module, exported: Exported, signature: Signature, tensors: Sequence[Tensor], fold: bool
) -> Graph:
    """The operations of an exported network: `capture` without the export."""
    walk = _begin(model, exported, signature, tensors, fold)
    try:
        nodes = _nodes(walk)
    except ZeroskipError:
        raise
    except Exception as fact:  # whatever torch says of an operation on fewer examples than were given
        raise EngineError(
            f"the network fails on {'a single example' if walk.count == 1 else f'{walk.count} examples'}: "
            f"{first_line(fact)} {NO_BATCH_AXIS}"
        ) from fact
    outputs, rest = _outputs(walk)
    used = frozenset(walk.names[node] for node in walk.constants if node.users and node in walk.names)
    nodes = _without_unread(nodes, outputs)
    graph = Graph(
        walk.inputs, (*nodes, *rest), outputs, maker(exported.returns), exported.batch, signature, used
    )
    if not _is_per_example(walk):
        return _for_this_batch(graph)
    return simplified(graph, exported)


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings and log lines inside: torch's compilers report what raises our own errors.

    >>> with quiet():
    ...     warnings.warn("not shown")
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def demand_numbers(inputs: Inputs) -> None:
    """EngineError where there is no example, or an input holds no number.

    >>> demand_numbers(Inputs((x,), {}))
    """
    if not inputs.size:
        raise EngineError(
            "the batch of examples is empty, so nothing can be seen at work. Give at least one."
        )
    if not all(tensor.numel() for tensor in inputs.tensors):
        raise EngineError(
            f"of the inputs, {inputs.title}, one is empty, so nothing can be seen at work. Give at least one number."
        )


@dataclass
class _Walk:
    """The state of `capture`: every operation runs once, which shows shapes and folds constants.

    count      the examples that it runs on
    names      value -> its name; of a parameter the weight's
    values     what changing nodes computed, as long as it is needed
    constants  what other nodes computed
    """

    exported: Exported
    inputs: tuple[Input, ...]
    count: int
    fold: bool
    names: dict[fx.Node, str]
    values: dict[fx.Node, Argument]
    constants: dict[fx.Node, Argument]


def _begin(
    model: nn.Module, exported: Exported, signature: Signature, tensors: Sequence[Tensor], fold: bool
) -> _Walk:
    is_free = exported.batch is None and any(exported.batched)
    batched = [(tensor, is_free and has) for tensor, has in zip(tensors, exported.batched, strict=True)]
    shown = [(tensor[:1] if has else tensor).clone() for tensor, has in batched]
    taken = {node.name for node in exported.graph.nodes}
    named = [_free_name(place, taken) for place in places(signature)]
    inputs = tuple(
        Input(name, tuple(tensor.shape[1:] if has else tensor.shape), tensor.dtype, has)
        for name, tensor, has in zip(named, shown, exported.batched, strict=True)
    )
    names, constants = _stored(model, exported)
    names |= dict(zip(exported.inputs, named, strict=True))
    values: dict[fx.Node, Argument] = dict(zip(exported.inputs, shown, strict=True))
    return _Walk(exported, inputs, exported.batch or 1, fold, names, values, constants)


def _free_name(place: str, taken: set[str]) -> str:
    """The place of a tensor among a network's inputs as the name of a value, which no other has."""
    name = re.sub(r"\W+", "_", place).strip("_") or "input"
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _stored(model: nn.Module, exported: Exported) -> tuple[dict[fx.Node, str], dict[fx.Node, Argument]]:
    """The names and values of parameters, buffers and constants."""
    stored, module = (
        {**exported.program.constants, **exported.program.state_dict},
        exported.program.graph_module,
    )
    weights = names_of(model)
    names: dict[fx.Node, str] = {}
    constants: dict[fx.Node, Argument] = {}
    for node, spec in exported.placeholders:
        if spec.kind is not InputKind.USER_INPUT:
            name = str(spec.target).removeprefix(OWNER)
            names[node], constants[node] = weights.get(name, name), stored[spec.target].detach()
    for node in exported.graph.nodes:
        if node.op == "get_attr":
            names[node], constants[node] = node.target, getattr(module, node.target)
    return names, constants


def _nodes(walk: _Walk) -> list[Node]:
    changes = changing(walk.exported.graph, walk.exported.inputs)
    nodes: list[Node] = []
    done: set[fx.Node] = set()
    for node in walk.exported.graph.nodes:
        if node.op != "call_function":
            continue
        if node in changes:
            nodes.append(_node_(node, walk))
        else:
            walk.constants[node] = bind(node, walk.constants)[0]()
        done.add(node)
        for each in node.all_input_nodes:  # an example of a large network fills gigabytes
            if each in walk.values and done.issuperset(each.users):
                del walk.values[each]
    return nodes


def _node_(node: fx.Node, walk: _Walk) -> Node:
    """The operation as data. What joins it is taken out of the graph; its value is left in `walk.values`."""
    function, inputs = bind(node, walk.constants)
    given = [walk.values[value] for value in inputs]
    value = walk.values[node] = function(*given)
    operation = Node(
        node.name,
        title(node.target),
        tuple(walk.names.get(each, each.name) for each in inputs),
        function,
        arguments=known_arguments(function),
        shape=_shape(node, walk.exported),
        dtype=value.dtype if isinstance(value, Tensor) else None,
    )
    recurring = recurrent_of(node, walk.constants, walk.values, walk.names)
    if recurring is not None:
        return replace(
            operation,
            inputs=tuple(walk.names.get(each, each.name) for each in recurring.inputs),
            recurrent=recurring.recurrent,
            function=recurrent_function(recurring.recurrent),
        )
    found = weighted(node, walk.constants)
    if found is None or not isinstance(value, Tensor) or operation.dtype not in FLOATS:
        return operation
    operation = _layer_node(operation, found, walk, cast(Tensor, walk.values[found.inputs[0]]), value)
    operation = _joined_(operation, node, walk)
    if operation.function is not function:
        walk.values[node] = operation.function(*(walk.values[each] for each in found.inputs))
    return operation


def _without_unread(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    """The nodes without zeros, and sizes, that nobody reads: an LSTM begins with zeros by itself."""
    kept: list[Node] = []
    read = set(outputs)
    for node in reversed(nodes):
        if node.name in read or node.op not in NEEDLESS:
            kept.insert(0, node)
            read |= set(node.inputs)
    return kept


def _layer_node(operation: Node, found: Weighted, walk: _Walk, x: Tensor, y: Tensor) -> Node:
    """The operation with its Layer. A product with a matrix becomes what it is in PyTorch's words, linear."""
    name = layer_name(found.weight, walk.names)
    layer = found.layer(name, _share(x, walk.count), _share(y, walk.count))
    if operation.op.split(".")[1] == layer.op:
        return replace(operation, layer=layer)
    op, inputs = f"aten.{layer.op}.default", tuple(walk.names.get(each, each.name) for each in found.inputs)
    return replace(
        operation,
        op=op,
        inputs=inputs,
        layer=layer,
        function=function_of(layer),
        arguments=arguments_of(layer),
    )


def _share(value: Tensor, count: int) -> tuple[int, ...]:
    """The shape of one example's share of a value; the whole where its first axis has nothing to do with examples."""
    first, *rest = value.shape
    if first == count:
        return tuple(rest)
    return (first if first % count else first // count, *rest)


def _shape(node: fx.Node, exported: Exported) -> tuple[int, ...] | None:
    """One example's share of the node's value, as `Node.shape` has it."""
    from torch.fx.experimental.symbolic_shapes import is_concrete_int, statically_known_true

    value = node.meta.get("val")
    if not isinstance(value, Tensor) or not value.ndim:
        return None
    first, *rest = value.shape
    batched = zip(exported.inputs, exported.batched, strict=True)
    batches = [each.meta["val"].shape[0] for each, has in batched if has]
    # `first == batch` alone would be answered for the exported example, where a size may equal its batch by chance.
    is_batch = any(statically_known_true(first == batch) for batch in batches)
    return tuple(map(int, rest)) if is_batch and all(map(is_concrete_int, rest)) else None


def _joined_(operation: Node, node: fx.Node, walk: _Walk) -> Node:
    """The layer with the batch norms (if `fold`) and then the ReLU after it; those are taken out of the graph."""
    while walk.fold and (layer := _take_norm_(operation.layer, node, walk.constants)) is not None:
        arguments = {**operation.arguments, "weight": layer.weight, "bias": layer.bias}
        operation = replace(operation, layer=layer, arguments=arguments, function=function_of(layer))
    if _take_relu_(node):
        operation = replace(operation, relu=True, function=with_relu(operation.function))
    return operation


def _take_norm_(layer: Layer | None, node: fx.Node, constants: Mapping[fx.Node, Argument]) -> Layer | None:
    """The layer with the batch norm that alone reads it, which is then taken out of the graph."""
    users = list(node.users)
    if layer is None or len(users) != 1 or users[0].target is not ATEN.batch_norm.default:
        return None
    norm = batch_norm(known_arguments(bind(users[0], constants)[0]))
    # Its channels are the second axis, which are the layer's outputs for these numbers of axes only.
    if norm is None or node.meta["val"].ndim != layer.weight.ndim or layer.op == "bilinear":
        return None
    folded = fold_norm(layer, norm)
    if folded is not None:
        users[0].replace_all_uses_with(node)
        users[0].graph.erase_node(users[0])
    return folded


def _take_relu_(node: fx.Node) -> bool:
    """Whether the only thing done with the node's value is a ReLU, which is then taken out of the graph."""
    users = list(node.users)
    if len(users) != 1 or users[0].target not in RELU:
        return False
    users[0].replace_all_uses_with(node)
    users[0].graph.erase_node(users[0])
    return True


def _outputs(walk: _Walk) -> tuple[tuple[str, ...], list[Node]]:
    """The names of what is returned, and nodes for those tensors among them that are the same at every call."""
    returned = cast("Sequence[fx.Node]", walk.exported.graph.output_node().args[0])
    names: list[str] = []
    constant: dict[str, Node] = {}
    for node in returned:
        if node in walk.values:
            names.append(walk.names.get(node, node.name))
        elif isinstance(node, fx.Node) and isinstance(value := walk.constants[node], Tensor):
            copy = Bound(ATEN.clone.default, [value], {})
            names.append(f"{node.name}_copy")
            constant[names[-1]] = Node(names[-1], title(copy.target), (), copy, dtype=value.dtype)
        else:
            raise EngineError(
                "the network returns a number that it computes, which a program cannot give back. Compile a module "
                "whose forward returns tensors."
            )
    if not names:
        raise EngineError("the network returns no tensor. Compile one whose forward returns at least one.")
    return tuple(names), list(constant.values())


def _is_per_example(walk: _Walk) -> bool:
    """Whether a network that is bound to a number of examples returns one entry for each of them.

    Not where it packs with lengths of its own: these are of whole batches.
    """
    batch = walk.exported.batch
    if batch is not None and packs_by_constants(walk.exported.graph, walk.exported.inputs):
        return False
    returned = cast("Sequence[fx.Node]", walk.exported.graph.output_node().args[0])
    values = [walk.values.get(node) for node in returned]
    return batch is None or all(isinstance(each, Tensor) and each.shape[:1] == (batch,) for each in values)


def _for_this_batch(graph: Graph) -> Graph:
    """The graph for this number of examples alone: it cannot be run on others in parts."""
    inputs = tuple(
        replace(each, shape=(graph.batch or 1, *each.shape), has_batch=False) if each.has_batch else each
        for each in graph.inputs
    )
    nodes = tuple(replace(node, shape=None) for node in graph.nodes)
    return replace(graph, inputs=inputs, nodes=nodes, batch=None)
