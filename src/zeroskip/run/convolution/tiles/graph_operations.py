"""From the nodes of a graph to the operations that can work on tiles, with what follows them fused in."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch

from zeroskip.graph import Graph, Node
from zeroskip.graph.nodes import kind_of
from zeroskip.graph.torch_operations import Argument, may_share_memory, schema_of
from zeroskip.run.captured import overwrites
from zeroskip.run.convolution.tiles.attention_nodes import ATTENTION, attention_of
from zeroskip.run.convolution.tiles.forms import Form, MapShape, channels_first
from zeroskip.run.convolution.tiles.mixtures import MIXING, Mixture, Mixtures, Plan, operations_of_plan
from zeroskip.run.convolution.tiles.node_operations import (
    MEANS,
    Operations,
    is_over_batch,
    operations_of_node,
)
from zeroskip.run.convolution.tiles.operations import Operation, reaches, zeros_before
from zeroskip.run.convolution.tiles.rearranging_nodes import rearrangement
from zeroskip.run.convolution.tiles.slices import (
    as_slice,
    channels_in_order,
    is_whole_batch,
    parts_of,
    place_of,
    slice_of,
)
from zeroskip.run.convolution.tiles.values import SAME, VIEWS, MapValue, Values, viewed


def operations_of(graph: Graph) -> list[Operation]:
    """What of the graph can work on tiles, in running order; nodes that cannot are left out.

    >>> from zeroskip.graph import capture
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.MaxPool2d(2))
    >>> graph = capture(network, torch.zeros(1, 3, 8, 8))
    >>> [(operation.kind, operation.shape) for operation in operations_of(graph)]
    [('conv', (8, 6, 6)), ('max', (8, 3, 3))]
    """
    if barrier(graph):
        return []
    reading = _Reading(graph)
    operations = [operation for node in graph.nodes for operation in reading.read(node)]
    shapes = {name: value.shape for name, value in reading.values.maps.items()}
    return fused(operations, reading.uses(operations), graph.names, shapes)


def barrier(graph: Graph) -> str:
    """What keeps the whole network off tiles; "" where nothing does.

    >>> barrier(replace(graph, batch=3))
    'the network is bound to 3 examples'
    """
    if graph.batch is not None:
        return f"the network is bound to {graph.batch} examples"
    uses = Counter([*graph.outputs, *(name for node in graph.nodes for name in node.inputs)])
    shared = {name for name in uses if uses[name] > 1}
    shared |= {node.name for node in graph.nodes if may_share_memory(schema_of(node.op))}
    writer = next((node for node in graph.nodes if overwrites(node) and node.inputs[0] in shared), None)
    return "" if writer is None else f"{writer.op.split('.')[1]} overwrites what others read"


BEGUN = ("neg", "cat", "stack", "mul", "add", "sub")  # what may follow on a slice in a mixture
PLACE = ("dim", "start", "end", "step")  # arguments of a slice
CUTS = ("chunk", "split", "split_with_sizes", "unbind")  # their values are lists


@dataclass(frozen=True)
class _Pending:
    """A value that is a mixture of the map `base`, which nobody has read as a map yet."""

    node: Node | None
    base: str
    mixture: Mixture
    plan: Plan | None


class _Reading:
    """The nodes of a graph read one after the other; values that are lists of parts wait for who takes one."""

    def __init__(self, graph: Graph) -> None:
        attends = any(kind_of(node) == ATTENTION for node in graph.nodes)
        self.graph, self.values = graph, Values(graph.shapes, attends=attends)
        self.values.wanted = self._make
        self._mixtures, self._pending = Mixtures(), dict[str, _Pending]()
        self._made: list[Operation] = []
        self._sizes = {node.name for node in graph.nodes if kind_of(node) == "sym_size"}
        self._readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self._readers.setdefault(name, []).append(node)
        self._parts: dict[str, tuple[MapValue, int, list[range], Node]] = {}
        self._writes: dict[str, tuple[list[Argument], str]] = {}

    def read(self, node: Node) -> Operations:
        """The operations of the node, whose value is known from here on, after those of mixtures that it reads."""
        made = self._read(node)
        before, self._made = tuple(self._made), []
        return (*before, *made)

    def _read(self, node: Node) -> Operations:
        kind = kind_of(node)
        if node.dtype not in (None, torch.float32) or (node.shape is None and kind not in CUTS):
            return ()
        if self._is_mixed(node) and self._wait(node):
            return ()
        written = self._written(node, kind)
        if written is not None:
            return self._viewed(replace(node, inputs=(written,)), "alias")
        if kind in SAME or kind in VIEWS or is_whole_batch(node) or self._is_whole(node, kind):
            return self._viewed(node, kind)
        if kind in CUTS:
            self._cut(node)
            return ()
        if kind == "getitem":
            return self._known(node, self._taken(node))
        made = operations_of_node(node, self.values) or rearrangement(node, self.values)
        known = self._known(node, made or attention_of(node, self.values))
        if not known and kind in MIXING:
            self._wait(node)
        return known

    def _is_mixed(self, node: Node) -> bool:
        """Whether the node reads a mixture, or begins one: a slice that is then negated, say."""
        if kind_of(node) == "expand":
            return True
        if any(name in self._pending and name not in self.values.maps for name in node.inputs):
            return True
        return kind_of(node) in ("slice", "narrow", "select") and self._begins(node)

    def _begins(self, node: Node) -> bool:
        return any(kind_of(each) in BEGUN for each in self._readers.get(node.name, ()))

    def _wait(self, node: Node) -> bool:
        """Keep the node's value as a mixture, until somebody wants it; False where it is none that tiles can make."""
        if node.dtype not in (None, torch.float32) or node.shape is None or kind_of(node) not in MIXING:
            return False
        known = [self._mixture(name) for name in node.inputs]
        sizes = [name in self._sizes for name in node.inputs]
        bases = {each.base for each in known if each is not None and each.base}
        if len(bases) > 1 or any(
            each is None and not is_size for each, is_size in zip(known, sizes, strict=True)
        ):
            return False
        found = self._mixtures.of_node(node, [None if each is None else each.mixture for each in known])
        if found is not None:
            self._pending[node.name] = _Pending(node, next(iter(bases), ""), *found)
        return found is not None

    def _mixture(self, name: str) -> _Pending | None:
        known = self.values.maps.get(name)
        if known is None:
            return self._pending.get(name)
        return _Pending(None, known.base, self._mixtures.of_map(known.shape, known.form), None)

    def _make(self, name: str) -> None:
        """Have the operations of a mixture done, since somebody reads it as a map."""
        waiting = self._pending.get(name)
        if waiting is not None and waiting.node is not None and waiting.plan is not None:
            self._made += self._known(
                waiting.node, operations_of_plan(waiting.node, waiting.base, waiting.plan)
            )

    def _written(self, node: Node, kind: str) -> str | None:
        """The value of which the node is another name, as parts of a value are written and read again.

        `y[:, :3] += x` is a slice of y, a sum, and y with the sum in the place of the slice.
        """
        place, source = [node.arguments.get(name) for name in PLACE], node.inputs[-1] if node.inputs else ""
        if kind == "slice_scatter":
            whole = self.values.shapes.get(source) == node.shape
            if not whole or source in self._writes:
                self._writes[node.name] = self._writes[source] if whole else (place, source)
            return source if whole else None
        if kind != "slice" or source not in self._writes:
            return None
        if is_whole_batch(node):
            self._writes[node.name] = self._writes[source]
            return None
        last, value = self._writes[source]
        return value if last == place else None

    def uses(self, operations: Sequence[Operation]) -> Counter[str]:
        """How often each map is read: by operations, and by what is left to PyTorch."""
        covered = {name for operation in operations for name in operation.names}
        names = [name for operation in operations for name in operation.inputs]
        left = [node for node in self.graph.nodes if node.name not in covered and not self._is_view(node)]
        outside = [name for node in left for name in node.inputs]
        bases = {name: value.base for name, value in self.values.maps.items()}
        return Counter([*names, *(bases.get(name, name) for name in [*outside, *self.graph.outputs])])

    def _is_view(self, node: Node) -> bool:
        return node.name in self.values.maps or node.name in self._parts

    def _known(self, node: Node, made: Operations) -> Operations:
        # A file may say that a node makes what it does not: such a node is PyTorch's, which finds out.
        last = made[-1] if made else None
        if last is None or last.form is None or last.form.shape != node.shape or 0 in last.form.shape:
            return ()
        self.values.maps[node.name] = MapValue(last.name, last.shape, last.form)
        return made

    def _is_whole(self, node: Node, kind: str) -> bool:
        """Whether a slice takes all that is there, or a mean is over a single pixel."""
        value = self.values.maps.get(node.inputs[0]) if node.inputs else None
        if value is None or node.shape is None:
            return False
        if kind in MEANS and value.is_pixel:
            return math.prod(node.shape) == value.shape[0] and not is_over_batch(node, value)
        return kind in ("slice", "narrow") and value.form.shape == node.shape

    def _viewed(self, node: Node, kind: str) -> Operations:
        # Others among its inputs are sizes, such as that of the batch.
        value = self.values.maps.get(node.inputs[0])
        if value is None or node.shape is None:
            return ()
        made = viewed(node, kind, value, node.shape)
        if made is None:
            return ()
        self.values.maps[node.name] = made
        ordered = channels_in_order(node, made)
        return () if ordered is None else self._known(node, (ordered,))

    def _cut(self, node: Node) -> None:
        """Remember the parts of a value that is cut along one axis."""
        value, arguments = self.values.any(node.inputs[0]), node.arguments
        if value is None or len(node.inputs) > 1:  # sizes that differ from call to call
            return
        dim = int(cast(int, arguments.get("dim", 0))) % (len(value.form.axes) + 1) - 1
        if dim < 0:
            return
        self._parts[node.name] = value, dim, parts_of(node, value.form.shape[dim]), node

    def _taken(self, node: Node) -> Operations:
        """One of the parts that another node cut."""
        number, known = node.arguments.get("1"), self._parts.get(node.inputs[0])
        if known is None or not isinstance(number, int):
            return ()
        value, dim, parts, cut = known
        if kind_of(cut) == "unbind":
            return place_of(node, value, dim, parts[number][0])
        if self._begins(node) and self._wait(as_slice(node, cut.inputs[0], dim + 1, parts[number])):
            return ()
        return slice_of(node, value, dim, parts[number])


def entering(graph: Graph) -> dict[str, MapValue]:
    """The values that operations on tiles read and others make, as maps."""
    reading = _Reading(graph)
    for node in graph.nodes:
        reading.read(node)
    return {name: reading.values.maps[name] for name in reading.values.entered}


def without_layers(operations: Sequence[Operation], nodes: Collection[str]) -> list[Operation]:
    """The operations but those that compute the layers of these nodes, whole: also the pixels of transposed ones."""
    computing = (each for each in operations if each.layer is not None and {*nodes} & {*each.names})
    gone = {name for each in computing for name in each.names}
    return [each for each in operations if not gone & {*each.names}]


def maps_of(graph: Graph, operations: Sequence[Operation]) -> dict[str, tuple[MapShape, Form]]:
    """Every value that the operations read or make -> its shape as a map, and the form of its tensor."""
    reading = _Reading(graph)
    for node in graph.nodes:
        reading.read(node)
    maps = {name: (value.shape, value.form) for name, value in reading.values.maps.items()}
    return maps | {each.name: (each.shape, each.form or channels_first(each.shape)) for each in operations}


def fused(
    operations: Sequence[Operation],
    uses: Counter[str],
    sources: Sequence[str],
    shapes: Mapping[str, MapShape],
) -> list[Operation]:
    """Activations and factors join what they follow, and sums the later of the two convolutions that they add to.

    Zeros around a map are part of the convolution that alone reads them.
    """
    done: list[Operation] = []
    for operation in operations:
        last = next((earlier for earlier in done if earlier.name == operation.inputs[0]), None)
        joined = None
        if last is not None and uses[last.name] == 1:
            joined = _joined(last, operation) or _padded(last, operation, shapes.get(last.inputs[0]))
        if last is not None and joined is not None:
            done[done.index(last)] = replace(
                joined, name=operation.name, form=operation.form, names=(*last.names, *operation.names)
            )
            continue
        position, other = _summand(operation, done, uses, sources)
        if position is None:
            done.append(operation)
            continue
        before = done.pop(position)
        names = (*before.names, *operation.names)
        inputs = before.inputs[0], other
        done.append(replace(before, name=operation.name, inputs=inputs, names=names, form=operation.form))
    return done


def _joined(last: Operation, operation: Operation) -> Operation | None:
    """The operation before, which does the one after it as well; None where it cannot."""
    if operation.kind != "scale" or last.activation is not None or last.kind not in ACTIVE:
        return None
    if operation.factors is None:
        return replace(last, activation=operation.activation)
    scale, shift = operation.factors
    if last.layer is None or len(last.inputs) > 1 or not bool(scale.isfinite().all()):
        return None
    layer = last.layer
    weight = layer.weight * scale.reshape(-1, *[1] * (layer.weight.ndim - 1)) + 0.0  # no -0.0
    bias = shift if layer.bias is None else layer.bias * scale + shift
    return replace(last, layer=replace(layer, weight=weight, bias=bias), activation=operation.activation)


def _padded(last: Operation, operation: Operation, source: MapShape | None) -> Operation | None:
    """The convolution, which sees zeros around its map where `last` put them; None where it cannot."""
    window = operation.window
    if operation.kind not in ("conv", "depthwise") or window is None or source is None:
        return None
    if (
        operation.name not in operation.names
    ):  # phases of a transposed one, which calibration computes of its input
        return None
    before = zeros_before(last, source)
    if before is None:
        return None
    wider = replace(window, padding=(window.padding[0] + before[0], window.padding[1] + before[1]))
    fits = all(reaches(wider, axis, source[axis + 1], operation.shape[axis + 1]) for axis in (0, 1))
    return replace(operation, inputs=last.inputs, window=wider) if fits else None


ACTIVE = (
    "conv",
    "depthwise",
    "scale",
    "add",
    "combine",
    "layer_norm",
    "rms_norm",
    "group_norm",
)  # end in an activation


def _summand(
    total: Operation, before: Sequence[Operation], uses: Counter[str], sources: Sequence[str]
) -> tuple[int | None, str]:
    """Where in `before` the convolution stands that can add the other input of the sum `total` to its own result.

    The other one must be there by then: it is one of the network's inputs, or made before on tiles.
    """
    if total.kind != "add" or total.inputs[0] == total.inputs[1]:
        return None, ""
    names = [operation.name for operation in before]
    places = [(names.index(name) if name in names else -1, name) for name in total.inputs]
    (_, other), (position, name) = sorted(places)
    if position < 0 or (other not in names and other not in sources):
        return None, ""
    last = before[position]
    fits = last.kind == "conv" and len(last.inputs) == 1 and uses[name] == 1 and last.activation is None
    # What runs between the two must not need the sum earlier; nothing can, as only the sum reads it.
    return (position, other) if fits else (None, "")
