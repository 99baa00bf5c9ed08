"""torch.export's program of a network -> Graph."""

from __future__ import annotations

import io
import logging
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, InputSpec
from torch.nn import functional

from zeroskip.concepts import Layer
from zeroskip.errors import EngineError
from zeroskip.graph.fold_norms import batch_norm, fold_norm
from zeroskip.graph.layers import evaluating, per_example
from zeroskip.graph.nodes import Graph, Node
from zeroskip.graph.torch_operations import Argument, Constants, bind, known_arguments, title

ATEN = torch.ops.aten
RELU = (ATEN.relu.default, ATEN.relu_.default)
CONVOLUTIONS = (ATEN.conv2d.default, ATEN.conv2d.padding)
DROPOUT = (ATEN.dropout.default, ATEN.feature_dropout.default, ATEN.alpha_dropout.default)


def capture(model: nn.Module, example: Tensor, *, fold: bool = True) -> Graph:
    """The operations that `model` does in evaluation mode on a batch like `example` (batch first).

    Linear and convolution layers become Layers named after their weight's parameter. What depends on
    parameters alone (a parametrization) is computed once, dropout disappears, and a ReLU right after a layer
    joins it, as does before it a batch norm that alone reads the layer; everything else stays the torch operation
    that was exported. Weights share the model's memory where nothing was computed; `fold=False` leaves every
    batch norm where it is. A network that cannot be exported for every batch size (`x.view(16, -1)`) is
    captured for that of `example`.
    Raises EngineError where torch.export cannot follow the network or it changes its own buffers.

    >>> [node.op for node in capture(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.zeros(1, 4)).nodes]
    ['aten.linear.default']
    """
    if not len(example):
        raise EngineError(
            "the batch of examples is empty, so nothing can be seen at work. Give at least one."
        )
    with evaluating(model), quiet():
        exported, batch = _export(model, example)
        return _graph(exported, example if batch else example[:1], batch, fold)


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


def _export(model: nn.Module, example: Tensor) -> tuple[torch.export.ExportedProgram, int | None]:
    """The exported network, and the batch size that it is bound to, if it is."""
    from torch.fx.experimental.symbolic_shapes import is_concrete_int  # imports sympy, which is slow

    # torch.export takes a size of 1 for a constant, so a single example is doubled.
    several = example if len(example) > 1 else torch.cat([example, example])
    try:
        dynamic = torch.export.export(model, (several,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        if not is_concrete_int(_input(dynamic).meta["val"].shape[0]):
            return dynamic, None
    except Exception:  # of any kind: the fixed batch may still work
        pass
    try:
        return torch.export.export(model, (example,)), len(example)
    except Exception as fact:
        reason = str(fact).strip().splitlines()[0] if str(fact).strip() else type(fact).__name__
        raise EngineError(
            f"torch.export cannot follow the network on an input of shape {tuple(example.shape)}: {reason} "
            "Take control flow that depends on values (if, while, .item()) out of forward, or put the part "
            "that can be exported into a module of its own and compile that."
        ) from fact


def _graph(exported: torch.export.ExportedProgram, example: Tensor, batch: int | None, fold: bool) -> Graph:
    """Nodes as data. Every operation runs once on `example`, which shows the shapes and folds constants."""
    source, constants = _input(exported), _constants(exported)
    names = {node: str(spec.target) for node, spec in _placeholders(exported)}
    values: dict[fx.Node, Argument] = {source: example.clone()}
    nodes: list[Node] = []
    _drop_dropout_(exported.graph)
    _drop_pools_(exported.graph)
    for node in exported.graph.nodes:
        if node.op == "get_attr":
            names[node], constants[node] = node.target, getattr(exported.graph_module, node.target)
        if node.op != "call_function":
            continue
        function, inputs = bind(node, constants)
        if _is_constant(node, constants):
            constants[node] = function()
            continue
        arguments = [values[value] for value in inputs]
        values[node] = function(*arguments)
        operation = Node(
            node.name,
            title(node.target),
            tuple(value.name for value in inputs),
            function,
            arguments=known_arguments(function),
            shape=_shape(node, source),
        )
        if _is_layer(node, constants):
            shapes = [
                per_example(cast(Tensor, values[value]), len(example)) for value in (node.args[0], node)
            ]
            layer = _layer(_name(node.args[1], names), node, operation.arguments, shapes)
            operation = _joined_(replace(operation, layer=layer), node, constants, fold)
            if operation.function is not function:
                values[node] = operation.function(*arguments)
        nodes.append(operation)
    returned = exported.call_spec.out_spec
    rebuild = operator.itemgetter(0) if returned.is_leaf() else returned.unflatten
    outputs = tuple(_outputs(exported, values, batch))
    return Graph(source.name, tuple(nodes), outputs, rebuild, batch, tuple(example.shape[1:]))


def _input(exported: torch.export.ExportedProgram) -> fx.Node:
    return next(node for node, spec in _placeholders(exported) if spec.kind is InputKind.USER_INPUT)


def _constants(exported: torch.export.ExportedProgram) -> dict[fx.Node, Argument]:
    stored = {**exported.constants, **exported.state_dict}
    return {
        node: stored[spec.target].detach()
        for node, spec in _placeholders(exported)
        if spec.kind is not InputKind.USER_INPUT
    }


def _placeholders(exported: torch.export.ExportedProgram) -> list[tuple[fx.Node, InputSpec]]:
    nodes = (node for node in exported.graph.nodes if node.op == "placeholder")
    return list(zip(nodes, exported.graph_signature.input_specs, strict=True))


def _drop_pools_(graph: fx.Graph) -> None:
    """Take out adaptive pools to the size that is there already: AlexNet and VGG have one for other pictures."""
    for node in list(graph.nodes):
        if node.target is not ATEN.adaptive_avg_pool2d.default or len(node.args[0].users) > 1:
            continue
        if list(node.args[0].meta["val"].shape[-2:]) == list(node.args[1]):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _drop_dropout_(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        if node.target in DROPOUT and node.args[2] is False:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _shape(node: fx.Node, source: fx.Node) -> tuple[int, ...] | None:
    """One example's share of the node's value, as `Node.shape` has it."""
    from torch.fx.experimental.symbolic_shapes import is_concrete_int, statically_known_true

    value, batch = node.meta.get("val"), source.meta["val"].shape[0]
    if not isinstance(value, Tensor) or not value.ndim:
        return None
    first, *rest = value.shape
    # `first == batch` alone would be answered for the exported example, where a size may equal its batch by chance.
    alone = statically_known_true(first == batch) and all(is_concrete_int(size) for size in rest)
    return tuple(int(size) for size in rest) if alone else None


def _is_constant(node: fx.Node, constants: Constants) -> bool:
    """Whether the node depends on parameters and buffers alone. EngineError where it overwrites one."""
    schema = getattr(node.target, "_schema", None)
    for slot, argument in zip(schema.arguments if schema else (), node.args, strict=False):
        written = slot.alias_info is not None and slot.alias_info.is_write
        if written and isinstance(argument, fx.Node) and argument in constants:
            raise EngineError(
                f"the network overwrites its own buffer or parameter ({title(node.target)}), so its answers depend on "
                "the calls before. Take that out of forward in evaluation mode, then compile."
            )
    random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    fixed = [source in constants for source in node.all_input_nodes]
    return bool(fixed) and all(fixed) and not random


def _is_layer(node: fx.Node, constants: Constants) -> bool:
    """Whether it is a linear or convolution of a changing input with constant weight and bias."""
    if node.target is not ATEN.linear.default and node.target not in CONVOLUTIONS:
        return False
    x, *weights = node.args[:3]
    fixed = all(weight is None or weight in constants for weight in weights)
    return fixed and x not in constants and not node.kwargs


def _layer(
    name: str, node: fx.Node, arguments: Mapping[str, Argument], shapes: Sequence[tuple[int, ...]]
) -> Layer:
    weight, bias = cast(Tensor, arguments["weight"]), cast("Tensor | None", arguments["bias"])
    linear = Layer(name, "linear", weight, bias, shapes[0], shapes[1])
    if node.target is ATEN.linear.default:
        return linear
    padding = arguments["padding"]
    return replace(
        linear,
        op="conv2d",
        stride=_pair(arguments["stride"]),
        padding=padding if isinstance(padding, str) else _pair(padding),
        dilation=_pair(arguments["dilation"]),
        groups=cast(int, arguments["groups"]),
    )


def _name(weight: fx.Node, names: dict[fx.Node, str]) -> str:
    """The module that a weight, or the parameter it is computed from, belongs to: "fc1" of "fc1.weight"."""
    while weight not in names:
        weight = weight.all_input_nodes[0]
    name = names[weight].split(".parametrizations.")[0]
    return "" if name == "weight" else name.removesuffix(".weight")


def _pair(argument: Argument) -> tuple[int, int]:
    # torch writes a size that is the same in both directions once or twice.
    sizes = cast("Sequence[int]", argument)
    return sizes[0], sizes[-1]


def _joined_(operation: Node, node: fx.Node, constants: Constants, fold: bool) -> Node:
    """The layer with the batch norms (if `fold`) and then the ReLU after it; those are taken out of the graph."""
    while fold and (layer := _take_norm_(operation.layer, node, constants)) is not None:
        arguments = {**operation.arguments, "weight": layer.weight, "bias": layer.bias}
        compute: Callable[..., Tensor] = functional.linear if layer.op == "linear" else functional.conv2d
        operation = replace(
            operation, layer=layer, arguments=arguments, function=partial(compute, **arguments)
        )
    if _take_relu_(node):
        operation = replace(operation, relu=True, function=_with_relu(operation.function))
    return operation


def _take_norm_(layer: Layer | None, node: fx.Node, constants: Constants) -> Layer | None:
    """The layer with the batch norm that alone reads it, which is then taken out of the graph."""
    users = list(node.users)
    if layer is None or len(users) != 1 or users[0].target is not ATEN.batch_norm.default:
        return None
    norm = batch_norm(known_arguments(bind(users[0], constants)[0]))
    # Its channels are the second axis, which are the layer's outputs for these numbers of axes only.
    if norm is None or node.meta["val"].ndim != (2 if layer.op == "linear" else 4):
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


def _with_relu(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *values: torch.relu(function(*values))


def _outputs(
    exported: torch.export.ExportedProgram, values: Mapping[fx.Node, Argument], batch: int | None
) -> list[str]:
    returned = cast("Sequence[fx.Node]", exported.graph.output_node().args[0])
    known = [values.get(node) for node in returned if isinstance(node, fx.Node)]
    tensors = [value for value in known if isinstance(value, Tensor)]
    if len(tensors) < len(returned):
        raise EngineError(
            "the network returns something besides tensors that depend on its input, which a program cannot "
            "give back. Compile a module whose forward returns those tensors only."
        )
    if batch is not None and any(tensor.shape[:1] != (batch,) for tensor in tensors):
        raise EngineError(
            f"the network can only be captured for batches of {batch}, and what it returns does not have one entry "
            "for each example, so it cannot be run on others. Let its forward take any batch size."
        )
    return [node.name for node in returned]
