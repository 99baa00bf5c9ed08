"""What would make a program faster, each change with the seconds that it gains at most.

Each bound is made of seconds that were measured: no change gains more than the time of what it replaces. docs/ENGINE.md
has the formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from zeroskip.concepts import Choice, Gain, Kernel, Layer, Precision
from zeroskip.run.convolution.tiles.operations import kind_of
from zeroskip.run.convolution.tiles.tiling import count_segments
from zeroskip.run.element import FP16
from zeroskip.run.explaining import FEW, SKIP_WEIGHTS, Facts, between, kind_without_kernel

SPARSE = 0.9  # share of zeros that pruning seldom exceeds
NAMED = 0.01  # share of the time below which a gain is not worth a line
PLAIN = Precision()


def possible_gains(facts: Facts, tiles_lost: bool) -> tuple[Gain, ...]:
    """The changes that may gain 1 % or more, largest first; `tiles_lost`: the network was slower on tiles."""
    found = [*_operations(facts, tiles_lost), *_kernels(facts), *_zeros(facts), *_precisions(facts)]
    least = NAMED * sum(part.seconds for part in facts.parts)
    return tuple(sorted((gain for gain in found if gain.seconds > least), key=lambda gain: -gain.seconds))


def _operations(facts: Facts, tiles_lost: bool) -> Iterator[Gain]:
    """What PyTorch computes between the pieces, in compiled code or on tiles."""
    recurrent = {each.operation for each in facts.unreached if each.operation}
    now = count_segments(facts.graph, facts.operations)
    on_tiles = tiles_lost or any(part.operation == "tiles" for part in facts.parts)
    for each in between(facts.parts):
        if each.operation in recurrent:
            continue
        fewer = now - count_segments(facts.graph, facts.operations, each.operation) if on_tiles else 0
        tensors = _transfers(facts, each.operation)
        layers = _gained_on_tiles(facts) if tiles_lost and fewer else 0.0
        why = "its own time"
        why += ", and that of tensors written and read for it" if tensors else ""
        why += ", and what layers gain on tiles" if layers else ""
        why += f"; {fewer} piece{'' if fewer == 1 else 's'} fewer" if fewer else ""
        where = "on tiles" if tensors or fewer else "in compiled code"
        yield Gain(f"{each.operation} {where}", each.seconds + tensors + layers, why)


def _transfers(facts: Facts, operation: str) -> float:
    """Seconds of the tensors that segments write for nodes of this operation, or read from them."""
    nodes = [node for node in facts.graph.nodes if kind_of(node) == operation]
    made, read = {node.name for node in nodes}, {name for node in nodes for name in node.inputs}
    readers = {each.name for each in facts.operations if made & {*each.inputs}}
    entering = [part.entering[name] for part in facts.parts for name in readers & {*part.entering}]
    leaving = [part.leaving[name] for part in facts.parts for name in read & {*part.leaving}]
    return sum(entering) + sum(leaving)


def _gained_on_tiles(facts: Facts) -> float:
    """Seconds by which layers were faster on tiles, each measured there, in a network that was slower there."""
    on_tiles = {kernel.name for kernel in facts.kernels if kernel.layout == "tiles"}
    gained = 0.0
    for node, _, choice in facts.layers:
        there = [seconds for name, seconds in choice.seconds.items() if name in on_tiles]
        if there:
            gained += max(0.0, facts.layer_seconds[node] - min(there))
    return gained


def _kernels(facts: Facts) -> Iterator[Gain]:
    """Sparse kernels for what has none: its time x its share of zeros."""
    gained: dict[str, float] = {}
    took: dict[str, float] = {}
    for node, _, choice in facts.layers:
        if choice.skips in SKIP_WEIGHTS or facts.is_reached(choice) or not facts.skipping:
            continue
        kind = kind_without_kernel(facts, node, choice)
        if not kind:
            continue
        took[kind] = took.get(kind, 0.0) + facts.layer_seconds[node]
        gained[kind] = gained.get(kind, 0.0) + facts.layer_seconds[node] * choice.sparsity
    for each in between(facts.parts):
        mine = [weight for weight in facts.unreached if weight.operation == each.operation]
        if mine:
            share = sum(weight.zeros for weight in mine) / max(1, sum(weight.weights for weight in mine))
            took[each.operation], gained[each.operation] = each.seconds, each.seconds * share
    for kind, seconds in gained.items():
        share = seconds / took[kind] if took[kind] else 0.0
        yield Gain(f"a sparse kernel for {kind}", seconds, f"its time x its zeros, {share:.0%}")


def _zeros(facts: Facts) -> Iterator[Gain]:
    """90 % zeros in layers that have fewer and whose zeros a kernel can skip: one layer, if it is half of the gain."""
    gained: dict[str, float] = {}
    for node, layer, choice in facts.layers:
        possible = facts.is_reached(choice) or (choice.op == "linear" and choice.sparsity < FEW)
        if facts.skipping and possible and choice.sparsity < SPARSE:
            # A kernel that skips zeros has time in proportion to what is left; a dense one computes all.
            left = 1 - choice.sparsity if choice.skips in SKIP_WEIGHTS else 1.0
            gain = facts.layer_seconds[node] * (1 - (1 - SPARSE) / left)
            gained[layer.name] = gained.get(layer.name, 0.0) + gain
    if not gained:
        return
    most, total = max(gained, key=gained.__getitem__), sum(gained.values())
    single = gained[most] >= total / 2
    names = {most} if single else set(gained)
    where = (most or "the layer") if single else f"{len(gained)} layers"
    yield Gain(f"{SPARSE:.0%} zeros in {where}", gained[most] if single else total, _share_of(facts, names))


def _share_of(facts: Facts, names: set[str]) -> str:
    layers = [(node, layer, choice) for node, layer, choice in facts.layers if layer.name in names]
    weights = sum(layer.weight.numel() for _, layer, _ in layers)
    zeros = sum(choice.sparsity * layer.weight.numel() for _, layer, choice in layers) / max(1, weights)
    whole = sum(part.seconds for part in facts.parts)
    share = sum(facts.layer_seconds[node] for node, _, _ in layers) / whole if whole else 0.0
    return f"now {zeros:.0%} zero, and {share:.0%} of the time"


@dataclass(frozen=True)
class _Fewer:
    """Fewer bits: what is asked for, the features of an x86 processor that make it fast, what it saves of the time of
    which layers."""

    words: str
    precision: Precision
    features: frozenset[str]
    saved: float
    kernels: Callable[[Kernel], bool]
    now: Callable[[Choice, bool], bool]


# Twice as many numbers in a vector; AMX multiplies 16 times as many in bf16 as AVX-512 in fp32; 8 of 32 bits are read.
FEWER = (
    _Fewer('precision="fp16"', Precision("fp16"), FP16.baked_features, 1 / 2,
           lambda kernel: kernel.layout == "tiles" and kernel.element == "fp16", lambda _, on_tiles: on_tiles),
    _Fewer('precision="bf16"', Precision("bf16"), frozenset({"amx-bf16"}), 15 / 16,
           lambda kernel: kernel.element == "bf16", lambda choice, _: choice.skips == "nothing"),
    _Fewer('weights="int8"', Precision(weights="int8"), frozenset(), 3 / 4,
           lambda kernel: kernel.weights == "int8",
           lambda choice, _: choice.op == "linear" and choice.skips in SKIP_WEIGHTS),
)  # fmt: skip


def _precisions(facts: Facts) -> Iterator[Gain]:
    """Fewer bits, where fp32 was asked for and the machine is fast with them."""
    tiled = {node for part in facts.parts if part.operation == "tiles" for node in part.layers}
    for fewer in FEWER:
        if facts.precision != PLAIN or not fewer.features <= facts.machine.features:
            continue
        kernels = [kernel for kernel in facts.kernels if fewer.kernels(kernel)]
        seconds = sum(
            facts.layer_seconds[node]
            for node, layer, choice in facts.layers
            if fewer.now(choice, node in tiled) and _accepted(kernels, layer, facts, fewer.precision)
        )
        yield Gain(
            fewer.words, fewer.saved * seconds, f"{fewer.saved:.0%} of its layers' time; rounds answers"
        )


def _accepted(kernels: Sequence[Kernel], layer: Layer, facts: Facts, precision: Precision) -> bool:
    return any(kernel.accepts(layer, facts.machine, precision) is None for kernel in kernels)
