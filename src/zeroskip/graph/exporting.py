"""A network through torch.export, as a function of its tensors alone."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, OutputKind

from zeroskip.errors import EngineError
from zeroskip.graph.constant_values import changing
from zeroskip.graph.inputs import Inputs
from zeroskip.graph.packing import following, packs_by_constants, restore
from zeroskip.graph.signature import Signature
from zeroskip.graph.structure import Tree, check_returned, taken_apart
from zeroskip.graph.torch_operations import may_share_memory

ATEN = torch.ops.aten
DROPOUT = tuple(
    getattr(ATEN, f"{name}{inplace}").default
    for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
    for inplace in ("", "_")
)
CHECKS = (ATEN._assert_tensor_metadata.default,)  # of what was traced; a program checks its inputs itself
OWNER = "network."
END = 2**63 - 1  # of a slice that names none
PACKED = (
    "torch.export cannot follow what the network does with packed sequences, whose sizes depend on their lengths: "
    "{fact} Give pack_padded_sequence the lengths as a tensor, and keep int(), .item(), .tolist() and loops away from "
    "them. Where an operation needs to know how many steps there are, ask for as many as the input has: "
    "pad_packed_sequence(..., total_length=x.shape[1])."
)


@dataclass(frozen=True)
class Exported:
    """An exported network.

    returns  the structure of what it returns, with Slots for the graph's outputs
    batched  of each tensor, whether its first axis is that of the examples
    batch    the number of examples that it is bound to, if it is
    own      its operations, where they are not those of `program`
    """

    program: ExportedProgram
    returns: Tree
    batched: tuple[bool, ...]
    batch: int | None
    own: fx.Graph | None = None

    @property
    def graph(self) -> fx.Graph:
        """The operations."""
        return self.program.graph if self.own is None else self.own

    @property
    def inputs(self) -> list[fx.Node]:
        """The nodes of the tensors."""
        return [node for node, spec in self.placeholders if spec.kind is InputKind.USER_INPUT]

    @property
    def placeholders(self) -> list[tuple[fx.Node, InputSpec]]:
        """The nodes of parameters, buffers, constants and tensors."""
        nodes = (node for node in self.graph.nodes if node.op == "placeholder")
        return list(zip(nodes, self.program.graph_signature.input_specs, strict=True))


def export(model: nn.Module, signature: Signature, tensors: Sequence[Tensor], inputs: Inputs) -> Exported:
    """The network for any number of examples, or for as many as `inputs` hold where that cannot be.

    >>> from zeroskip.graph.signature import of_tensor
    >>> exported = export(model, of_tensor("input"), [x], Inputs((x,), {}))
    >>> exported.batched, exported.batch
    ((True,), None)
    """
    batched = tuple(map(inputs.has_examples, tensors))
    exported = _free(model, signature, tensors, batched) if any(batched) else None
    if exported is None or packs_by_constants(exported.graph, exported.inputs):
        exported = _fixed(model, signature, tensors, batched, inputs.size)
    return _in_plain_form(exported)


def export_for_lengths(
    model: nn.Module, signature: Signature, tensors: Sequence[Tensor], inputs: Inputs, axes: Sequence[Sequence[int]]
) -> Exported | None:  # fmt: skip
    """The network for any number of examples and any size of these `axes` of each tensor; None where that cannot be.

    >>> from zeroskip.graph.signature import of_tensor
    >>> export_for_lengths(model, of_tensor("input"), [x], Inputs((x,), {}), [[1]])  # nn.Linear has one size only
    """
    batched = tuple(map(inputs.has_examples, tensors))
    exported = _free(model, signature, tensors, batched, axes) if any(batched) else None
    if exported is None or packs_by_constants(exported.graph, exported.inputs):
        return None
    return _in_plain_form(exported)


def _in_plain_form(exported: Exported) -> Exported:
    """Without regions, operations that write for others, and those that do nothing."""
    for node in filter(_is_region, list(exported.graph.nodes)):
        _inline(exported.program.graph_module, node)
    if any(map(_overwrites_for_others, exported.graph.nodes)):
        exported = _without_writing(exported)
    restore(exported.graph)
    for node in list(exported.graph.nodes):
        _tidy(exported.graph, node)
    for node in reversed(list(exported.graph.nodes)):
        if node.op == "call_function" and not node.users and _does_nothing_else(node):
            exported.graph.erase_node(node)
    return exported


def _without_writing(exported: Exported) -> Exported:
    """The same by operations that write into nothing.

    What the network writes into its inputs is no value of it. EngineError where it writes into its own buffers or
    parameters, which would be gone from the graph.
    """
    changing(exported.graph, exported.inputs)
    program = exported.program.run_decompositions({})
    output, specs = program.graph.output_node(), program.graph_signature.output_specs
    values = zip(cast("Sequence[fx.Node]", output.args[0]), specs, strict=True)
    output.args = (tuple(value for value, spec in values if spec.kind is OutputKind.USER_OUTPUT),)
    return replace(exported, program=program)


def first_line(fact: Exception) -> str:
    """What torch or Python says of a failure, in one line.

    >>> first_line(ValueError("no\\nand more"))
    'ValueError: no.'
    """
    lines = str(fact).strip().splitlines()
    return f"{type(fact).__name__}: {lines[0].rstrip('.')}." if lines else f"{type(fact).__name__}."


class _Returned:
    """What a network returned last, and whether it packed: torch.export puts back what is in a list of a module.

    tree  the structure of what it returned
    """

    tree: Tree = None
    packs = False


class _OfTensors(nn.Module):
    """A network as a function of tensors to a list of tensors."""

    def __init__(self, network: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.network, self._signature, self.returned = network, signature, _Returned()
        self.training = False

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        args, kwargs = self._signature.call(tensors)
        leaves: list[object] = []
        with following(self.network, self._was_packed):
            tree = taken_apart(self.network(*args, **kwargs), leaves)
        check_returned(tree)
        self.returned.tree = tree
        return cast("list[Tensor]", leaves)

    def _was_packed(self) -> None:
        self.returned.packs = True


def _free(
    model: nn.Module, signature: Signature, tensors: Sequence[Tensor], batched: Sequence[bool],
    axes: Sequence[Sequence[int]] = (),
) -> Exported | None:  # fmt: skip
    """The network for any number of examples, and any size of other `axes` of each tensor.

    None where torch.export finds that it depends on that.
    """
    from torch.fx.experimental.symbolic_shapes import is_concrete_int  # imports sympy, which is slow

    # torch.export takes a size of 1 for a constant, so a single example is doubled.
    several = tuple(
        torch.cat([tensor, tensor]) if has and len(tensor) == 1 else tensor
        for tensor, has in zip(tensors, batched, strict=True)
    )
    sizes = tuple(
        dict.fromkeys([*([0] if has else []), *others], torch.export.Dim.AUTO)
        for has, others in zip(batched, axes or [()] * len(batched), strict=True)
    )
    network = _OfTensors(model, signature)
    try:
        program = torch.export.export(network, several, dynamic_shapes=(sizes,))
    except EngineError:
        raise
    except Exception:  # of any kind: the fixed batch may still work
        return None
    exported = Exported(program, network.returned.tree, tuple(batched), None)
    free = tuple(
        has and not is_concrete_int(node.meta["val"].shape[0])
        for node, has in zip(exported.inputs, batched, strict=True)
    )
    bound = [
        len(each) for each, has, is_free in zip(tensors, batched, free, strict=True) if has and not is_free
    ]
    sizes_of = [node.meta["val"].shape for node in exported.inputs]
    if any(
        is_concrete_int(shape[axis])
        for shape, several in zip(sizes_of, axes, strict=False)
        for axis in several
    ):
        return None
    # A tensor of one row that was doubled above is bound to the wrong size.
    if not any(free) or 1 in bound:
        return None
    return Exported(program, network.returned.tree, free, None)


def _fixed(
    model: nn.Module, signature: Signature, tensors: Sequence[Tensor], batched: Sequence[bool], size: int
) -> Exported:
    network = _OfTensors(model, signature)
    try:
        program = torch.export.export(network, tuple(tensors))
    except EngineError:
        raise
    except Exception as fact:
        if network.returned.packs or _is_packed(fact):
            raise EngineError(PACKED.format(fact=first_line(fact))) from fact
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise EngineError(
            f"torch.export cannot follow the network on an input of shape {shapes}: {first_line(fact)} "
            "Take control flow that depends on values (if, while, .item()) out of forward, or put the part "
            "that can be exported into a module of its own and compile that."
        ) from fact
    return Exported(program, network.returned.tree, tuple(batched), size if any(batched) else None)


def _is_packed(fact: Exception) -> bool:
    """Whether torch.export failed inside of torch's packed sequences, or an LSTM, GRU or RNN that was given one."""
    files = [frame.filename.replace("\\", "/") for frame in traceback.extract_tb(fact.__traceback__)]
    return any(file.endswith(("torch/nn/utils/rnn.py", "torch/nn/modules/rnn.py")) for file in files)


def _tidy(graph: fx.Graph, node: fx.Node) -> None:
    """Take out an operation that does nothing in evaluation mode."""
    args: tuple[Any, ...] = node.args
    if node.target in CHECKS and not node.users:
        graph.erase_node(node)
    elif (node.target in DROPOUT and args[2] is False) or any(does(node) for does in NEEDLESS):
        node.replace_all_uses_with(args[0])
        graph.erase_node(node)
    elif node.target is ATEN._native_batch_norm_legit_no_training.default:
        _with_batch_norm_(graph, node)


def _does_nothing_else(node: fx.Node) -> bool:
    """Whether an operation has no effect besides its value: it neither writes to its inputs nor checks them."""
    schema = getattr(node.target, "_schema", None)
    return schema is None or (not schema.is_mutable and len(schema.returns) > 0)


def _overwrites_for_others(node: fx.Node) -> bool:
    """Whether the node writes into a value that others read as well, perhaps as part of another one."""
    schema = getattr(node.target, "_schema", None)
    written = [
        value
        for slot, value in zip(schema.arguments if schema else (), node.args, strict=False)
        if slot.alias_info is not None and slot.alias_info.is_write and isinstance(value, fx.Node)
    ]
    return any(len(value.users) > 1 or _is_part(value) for value in written)


def _is_part(node: fx.Node) -> bool:
    """Whether the value may lie in the memory of an earlier one."""
    return node.op == "call_function" and may_share_memory(getattr(node.target, "_schema", None))


def _with_batch_norm_(graph: fx.Graph, node: fx.Node) -> None:
    """Put the batch norm that users know in place of what run_decompositions makes of it."""
    x, weight, bias, mean, variance, momentum, eps = node.args
    with graph.inserting_before(node):
        norm = graph.call_function(
            ATEN.batch_norm.default, (x, weight, bias, mean, variance, False, momentum, eps, True)
        )
    for part in list(node.users):
        norm.meta = dict(part.meta) if part.args[1] == 0 else norm.meta
        if part.args[1] == 0:
            part.replace_all_uses_with(norm)
        graph.erase_node(part)
    graph.erase_node(node)


def _is_needless_pool(node: fx.Node) -> bool:
    """Whether it pools to the size that is there already: AlexNet and VGG have one for other pictures."""
    args: tuple[Any, ...] = node.args
    if node.target is not ATEN.adaptive_avg_pool2d.default or len(args[0].users) > 1:
        return False
    return list(args[0].meta["val"].shape[-2:]) == list(args[1])


def _is_needless_conversion(node: fx.Node) -> bool:
    """Whether it asks for the type that is there already, which gives back the tensor itself."""
    args: tuple[Any, ...] = node.args
    kinds = ATEN.to.dtype, ATEN.to.dtype_layout, ATEN.type_as.default
    asks = node.target in kinds and isinstance(args[0], fx.Node)
    if not asks or node.kwargs.get("copy") or len(args) > 2:
        return False
    before, after = args[0].meta.get("val"), node.meta.get("val")
    return isinstance(before, Tensor) and isinstance(after, Tensor) and before.dtype is after.dtype


def _is_whole_slice(node: fx.Node) -> bool:
    """Whether it takes all there is, as `x[:, 1]` does of the examples before it takes the second of something."""
    if node.target is not ATEN.slice.Tensor:
        return False
    given: dict[str, object] = dict(zip(("self", "dim", "start", "end", "step"), node.args, strict=False))
    given |= node.kwargs
    return not given.get("start") and given.get("end") in (None, END) and given.get("step", 1) == 1


NEEDLESS = (_is_needless_pool, _is_needless_conversion, _is_whole_slice)


def _is_region(node: fx.Node) -> bool:
    """Whether it calls a graph for which gradients, or autocast, are switched off, as they are anyway."""
    name = getattr(node.target, "__name__", "") if node.op == "call_function" else ""
    return name == "wrap_with_set_grad_enabled" or (name == "wrap_with_autocast" and node.args[2] is False)


def _inline(module: fx.GraphModule, node: fx.Node) -> None:
    """Put the operations of a region, and of regions in it, in place of its call."""
    graph, args = module.graph, cast("tuple[Any, ...]", node.args)
    place = next(n for n, each in enumerate(args) if isinstance(each, fx.Node) and each.op == "get_attr")
    inner = getattr(module, args[place].target)
    for each in list(inner.graph.nodes):
        if _is_region(each):
            _inline(inner, each)
    inputs = (each for each in inner.graph.nodes if each.op == "placeholder")
    values = dict(zip(inputs, args[place + 1 :], strict=True))
    with graph.inserting_before(node):
        results: Any = graph.graph_copy(inner.graph, values)
    for user in list(node.users):
        picks = cast("tuple[Any, ...]", user.args)
        user.replace_all_uses_with(results[picks[1]])
        graph.erase_node(user)
    graph.erase_node(node)
