"""What would make a program faster, each change with the seconds that it gains at most.

Each bound is made of seconds that were measured: no change gains more than the time of what it replaces. docs/ENGINE.md
has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor
from torch.nn import functional

from zeroskip.concepts import Choice, Gain, Precision
from zeroskip.graph.nodes import kind_of
from zeroskip.run.convolution.tiles.kernels import DEPTHWISE_KERNELS
from zeroskip.run.convolution.tiles.tiling import count_segments
from zeroskip.run.element import FP16, INT8
from zeroskip.run.explaining import FEW, SKIP_WEIGHTS, Facts, between, kind_without_kernel

SPARSE, ENOUGH = 0.9, 0.85  # share of zeros that is advised, and from which on it is not
NAMED = 0.01  # share of the time below which a gain is not worth a line
UNROUNDED = Precision()
FOUR = 4  # neighbouring inputs that one instruction multiplies in eight bits
TOGETHER = 1.3  # products of four, for each four weights that are not zero, up to which zeros lie in blocks


def possible_gains(facts: Facts, tiles_lost: bool) -> tuple[Gain, ...]:
    """The changes that may gain 1 % or more, largest first; `tiles_lost`: the network was not faster on tiles."""
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
        fewer = max(0, now - count_segments(facts.graph, facts.operations, each.operation)) if on_tiles else 0
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
    kernels = (*facts.kernels, *DEPTHWISE_KERNELS)
    on_tiles = {kernel.name for kernel in kernels if kernel.layout == "tiles"}
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
        best = _sparse_seconds(facts, node, choice)
        if facts.skipping and best is not None and choice.sparsity < ENOUGH:
            gain = facts.layer_seconds[node] - best * (1 - SPARSE) / (1 - choice.sparsity)
            gained[layer.name] = gained.get(layer.name, 0.0) + max(0.0, gain)
    if not gained:
        return
    most, total = max(gained, key=gained.__getitem__), sum(gained.values())
    single = gained[most] >= total / 2
    names = {most} if single else set(gained)
    where = (most or "the layer") if single else f"{len(gained)} layers"
    yield Gain(f"{SPARSE:.0%} zeros in {where}", gained[most] if single else total, _share_of(facts, names))


def _sparse_seconds(facts: Facts, node: str, choice: Choice) -> float | None:
    """Of the layer, by the fastest kernel that skips its zeros; None where there is none.

    A linear layer without zeros is not timed with such kernels, which would take no less than dense ones.
    """
    seconds = facts.layer_seconds[node]
    if choice.skips in SKIP_WEIGHTS or (choice.op == "linear" and choice.sparsity < FEW):
        return seconds
    skipping = facts.sparse_kernels(choice)
    return min((choice.seconds[name] for name in skipping), default=None)


def _share_of(facts: Facts, names: set[str]) -> str:
    layers = [(node, layer, choice) for node, layer, choice in facts.layers if layer.name in names]
    weights = sum(layer.weight.numel() for _, layer, _ in layers)
    zeros = sum(choice.sparsity * layer.weight.numel() for _, layer, choice in layers) / max(1, weights)
    whole = sum(part.seconds for part in facts.parts)
    share = sum(facts.layer_seconds[node] for node, _, _ in layers) / whole if whole else 0.0
    return f"now {zeros:.0%} zero, and {share:.0%} of the time"


def _precisions(facts: Facts) -> Iterator[Gain]:
    """Fewer bits, where fp32 was asked for and the machine is fast with them."""
    if facts.precision != UNROUNDED:
        return
    features, tiled = facts.machine.features, _on_tiles(facts)
    if FP16.baked_features <= features:
        seconds = sum(facts.layer_seconds[node] for node in tiled)
        yield Gain(
            'precision="fp16"', seconds / 2, "half of the time of layers on tiles; answers are rounded"
        )
    yield from _eight_bits(facts)
    if "amx-bf16" in features and any(kernel.element == "bf16" for kernel in facts.kernels):
        dense = sum(
            facts.layer_seconds[node] for node, _, choice in facts.layers if choice.skips == "nothing"
        )
        # AMX multiplies 16 times as many numbers in bf16 as AVX-512 in fp32.
        yield Gain(
            'precision="bf16"', dense * 15 / 16, "15/16 of the time of dense layers; answers are rounded"
        )
    # Kernels that store int8 have a form that stores fp32, which was timed; it would take a quarter of that at least.
    stored = [kernel for kernel in facts.kernels if kernel.element == "fp32" and kernel.weights == "int8"]
    methods = {kernel.method for kernel in stored}
    same = {kernel.name for kernel in facts.kernels if kernel.method in methods and kernel.weights == "fp32"}
    shorter = 0.0
    for node, _, choice in facts.layers:
        alone = min((took for name, took in choice.seconds.items() if name in same), default=math.inf)
        shorter += max(0.0, facts.layer_seconds[node] - alone / 4)
    yield Gain('weights="int8"', shorter, "kernels that read a quarter of the bytes; weights are rounded")


def _eight_bits(facts: Facts) -> Iterator[Gain]:
    """Eight bits on tiles, where one instruction multiplies four neighbouring inputs if one of them has a weight."""
    tiled = _on_tiles(facts)
    depthwise = {name for each in facts.operations if each.kind == "depthwise" for name in each.names}
    layers = [
        (facts.layer_seconds[node], layer.weight)
        for node, layer, _ in facts.layers
        if node in tiled - depthwise and layer.weight.shape[1] >= FOUR
    ]
    whole = sum(seconds for seconds, _ in layers)
    if not whole or not INT8.can_be_baked(
        facts.machine
    ):  # what takes no time that the clock sees gains nothing
        return
    apart = sum(seconds * _fours(weight) for seconds, weight in layers) / whole
    change = 'precision="int8"' if apart <= TOGETHER else 'zeros in 1x4 blocks and precision="int8"'
    most = (1 - 1 / FOUR) * sum(facts.layer_seconds[node] for node in tiled)
    yield Gain(change, most, "3/4 of the time of layers on tiles; answers are rounded")


def _fours(weight: Tensor) -> float:
    """Products of four neighbouring inputs for each of four weights that are not zero: 1 in blocks, at most 4."""
    kept = weight.detach().flatten(2) != 0 if weight.ndim > 2 else (weight.detach() != 0)[..., None]
    whole = functional.pad(kept, (0, 0, 0, -kept.shape[1] % FOUR))  # (out, in, taps), of inputs in fours
    fours = whole.unflatten(1, (-1, FOUR)).any(2)
    return FOUR * int(fours.count_nonzero()) / max(1, int(kept.count_nonzero()))


def _on_tiles(facts: Facts) -> set[str]:
    return {node for part in facts.parts if part.operation == "tiles" for node in part.layers}
