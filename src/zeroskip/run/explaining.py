"""Why a program is not faster: from what was measured of it to an Explanation. Nothing is timed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from zeroskip.concepts import (
    Between,
    Choice,
    Explanation,
    Gain,
    Kernel,
    Layer,
    Machine,
    Precision,
    Unskipped,
)  # fmt: skip
from zeroskip.graph import Graph
from zeroskip.graph.recurrent import GATES
from zeroskip.run.captured import all_layers
from zeroskip.run.convolution.tiles.graph_operations import barrier
from zeroskip.run.convolution.tiles.kernels import DEPTHWISE_KERNELS, ON_TILES
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.measurement import Unreached
from zeroskip.run.part_timing import Part

SKIP_WEIGHTS = ("weights", "both")  # `skips` of kernels that skip zero weights
OPS = (*ON_TILES, *GATES)  # of layers that sparse kernels compute
FEW = 0.01  # share of zeros below which a layer is not worth building with every kernel
LEFT_OUT = "kernels that skip zero weights were left out"


@dataclass(frozen=True)
class Facts:
    """What is known of a program.

    operations  that may work on tiles
    zeros       name of a weight -> its zeros, of all weights of the network
    choices     in the order of the graph's layers
    parts       of the program, measured
    kernels     that were tried; none of them skips zero weights where `strict` was asked for
    """

    graph: Graph
    operations: Sequence[Operation]
    zeros: Mapping[str, int]
    unreached: Sequence[Unreached]
    choices: Sequence[Choice]
    parts: Sequence[Part]
    kernels: Sequence[Kernel]
    machine: Machine
    precision: Precision

    @cached_property
    def layers(self) -> list[tuple[str, Layer, Choice]]:
        """(key, layer, choice) of all layers: `captured.all_layers`."""
        pairs = zip(all_layers(self.graph), self.choices, strict=True)
        return [(key, layer, choice) for (key, layer), choice in pairs]

    @cached_property
    def layer_seconds(self) -> dict[str, float]:
        """Node of a layer -> its seconds."""
        return {node: seconds for part in self.parts for node, seconds in part.layers.items()}

    @cached_property
    def barrier(self) -> str:
        """What keeps the whole network off tiles, if something does."""
        return barrier(self.graph)

    def sparse_kernels(self, choice: Choice) -> list[str]:
        """The names of the kernels that skip zero weights and were timed."""
        skips = {kernel.name: kernel.skips for kernel in self.kernels} | {choice.kernel: choice.skips}
        return [name for name in choice.seconds if skips.get(name) in SKIP_WEIGHTS]

    def is_reached(self, choice: Choice) -> bool:
        """Whether a kernel that skips zero weights was timed."""
        return bool(self.sparse_kernels(choice))

    @property
    def skipping(self) -> bool:
        """Whether kernels that skip zero weights were allowed at all."""
        return any(kernel.skips in SKIP_WEIGHTS for kernel in self.kernels)


def explain(facts: Facts, advice: Sequence[Gain], tiles: tuple[int, float] = (0, 0.0)) -> Explanation:
    """The explanation of a program; `tiles` are the pieces and seconds of the network on tiles, where it lost."""
    total, counts = sum(facts.zeros.values()), zeros_by_reason(facts)
    won = counts.pop("", 0)
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])
    reached = {layer.name for _, layer, choice in facts.layers if facts.is_reached(choice)}
    pieces = [part for part in facts.parts if part.is_piece]
    seconds = facts.layer_seconds
    return Explanation(
        zeros=total,
        zeros_reached=sum(facts.zeros.get(name, 0) for name in reached) / max(total, 1),
        zeros_won=won / max(total, 1),
        unskipped=tuple(Unskipped(reason, count / total) for reason, count in ordered),
        pieces=len(pieces),
        between=between(facts.parts),
        piece_seconds=sum((part.seconds for part in pieces), 0.0),
        sparse_seconds=sum(
            (seconds[node] for node, _, choice in facts.layers if choice.skips in SKIP_WEIGHTS), 0.0
        ),
        tiles_pieces=tiles[0],
        tiles_seconds=tiles[1],
        advice=tuple(advice),
    )


def between(parts: Sequence[Part]) -> tuple[Between, ...]:
    """What PyTorch computes between the pieces, longest first.

    >>> between([Part("a", "silu", 1.0), Part("fc", "layers", 9.0), Part("b", "silu", 2.0)])
    (Between(operation='silu', count=2, seconds=3.0),)
    """
    seconds: dict[str, list[float]] = {}
    for part in parts:
        if not part.is_piece:
            seconds.setdefault(part.operation, []).append(part.seconds)
    found = (Between(operation, len(each), sum(each)) for operation, each in seconds.items())
    return tuple(sorted(found, key=lambda each: -each.seconds))


def zeros_by_reason(facts: Facts) -> dict[str, int]:
    """Why zeros are not skipped -> how many; "" for those that are. Of a weight that runs often its best run counts."""
    reasons: dict[str, str] = {each.name: each.why for each in facts.unreached}
    for node, layer, choice in facts.layers:
        reason = reason_of(facts, node, choice)
        reasons[layer.name] = min(reason, reasons.get(layer.name, reason), key=bool)
    counts: dict[str, int] = {}
    for name, zeros in facts.zeros.items():
        reason = reasons.get(name, "not run on this example")
        counts[reason] = counts.get(reason, 0) + zeros
    return {reason: count for reason, count in counts.items() if count}


def reason_of(facts: Facts, node: str, choice: Choice) -> str:
    """Why no zero of the layer is skipped; "" where they are."""
    if choice.skips in SKIP_WEIGHTS:
        return ""
    if not facts.skipping:
        return LEFT_OUT
    if facts.is_reached(choice):
        lost = min(choice.seconds.values()) < choice.seconds[choice.kernel] and choice.op == "conv2d"
        return "the network was not faster on tiles" if lost else "dense kernels were faster"
    kind = kind_without_kernel(facts, node, choice)
    if kind:
        return f"{kind}: no sparse kernel"
    return "too few zeros" if choice.sparsity < FEW else f"{choice.op}: refused by the sparse kernels"


def kind_without_kernel(facts: Facts, node: str, choice: Choice) -> str:
    """The kind of layers, of which this is one, that no sparse kernel computes; "" where one does."""
    if choice.op not in OPS:
        return choice.op
    kinds = {name: operation.kind for operation in facts.operations for name in operation.names}
    if kinds.get(node) == "depthwise" or choice.kernel in [each.name for each in DEPTHWISE_KERNELS]:
        return f"depthwise {choice.op}"
    if choice.op == "linear" or node in kinds:
        return ""
    return f"{choice.op} off tiles" + (f" ({facts.barrier})" if facts.barrier else "")
