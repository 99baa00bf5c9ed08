"""Random networks: what is fused, what shares memory and what lives how long may be anything; results are exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from byhand import (
    add,
    average_pool,
    both,
    concat,
    convolution,
    evaluated,
    graph_of,
    layer_of,
    max_pool,
    norm,
    of_two,
    padded,
    prelu,
    relu,
    relu6,
    rolled,
    shuffled,
    sliced,
    transposed,
    upsampled,
    whole_numbers,
)  # fmt: skip
from captured import FASTEST
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from maps import HALF_MACHINES, everywhere
from run.drawn import HERE
from torch import Tensor

from zeroskip.concepts import Layer
from zeroskip.graph import Node
from zeroskip.run.convolution.tiles.arrangement import HEADER, Arrangement, arrange
from zeroskip.run.convolution.tiles.graph_operations import BEGUN, operations_of
from zeroskip.run.convolution.tiles.layout import Map
from zeroskip.run.convolution.tiles.operations import Operation, Subgraph
from zeroskip.run.element import FP16, FP32, Element

EXACT = 2**24  # up to here float32 holds every whole number
HALF_EXACT = 2**11  # and float16


@dataclass(frozen=True)
class Network:
    """Nodes, what they are given, and the values that are needed afterwards (the last one among them)."""

    nodes: list[Node]
    given: dict[str, Tensor]
    leaving: list[str]


@st.composite
def networks(draw: st.DrawFn) -> Network:
    images, side = draw(st.integers(1, 3)), draw(st.integers(1, 17))
    given = {"x": whole_numbers(images, draw(st.integers(1, 9)), side, side, seed=0)}
    if draw(st.booleans()):
        given["other"] = whole_numbers(*given["x"].shape, seed=1)
    values = evaluated([], given)
    nodes: list[Node] = []
    for number in range(draw(st.integers(2, 9))):
        # Neighbours are read most, as in real networks; now and then something from long ago.
        names = [*values, *list(values)[-2:]]
        node = draw(drawn_node(f"n{number}", draw(st.sampled_from(names)), values))
        nodes.append(node)
        values[node.name] = node.function(*[values[name] for name in node.inputs])
    assume(all(value.abs().max() < EXACT for value in values.values()))
    last = nodes[-1].name
    more = [node.name for node in nodes[:-1] if draw(st.integers(0, 5)) == 0]
    unread = [
        n.name
        for n in nodes[:-1]
        if not any(n.name in other.inputs for other in nodes) and n.name not in more
    ]
    return Network(nodes, given, [*more, *unread, last])


KINDS = ["concat", "max", "average", "scale", "relu", "two", "prelu", "transposed"]


@st.composite
def drawn_pair(draw: st.DrawFn, name: str, source: str, values: Mapping[str, Tensor]) -> Node:
    """Two maps, or a map and one pixel of each of its channels, as one."""
    x, op = values[source], draw(st.sampled_from(["mul", "sub", "maximum", "minimum"]))
    fitting = [other for other, value in values.items() if value.shape in (x.shape, (*x.shape[:2], 1, 1))]
    pair = [source, draw(st.sampled_from(fitting))]
    return of_two(name, op, *(pair if op == "sub" else draw(st.permutations(pair))))


@st.composite
def drawn_movement(draw: st.DrawFn, name: str, source: str, x: Tensor) -> Node:
    """A slice, a padding, or another movement of numbers to other places."""
    _, channels, height, width = x.shape
    how = draw(st.sampled_from(["slice", "pixel", "pad", "roll", "upsample", "shuffle"]))
    sides = [side for side in (1, 2, 3) if x.shape[side] > 1]
    if how == "slice" and sides:
        dim = draw(st.sampled_from(sides))
        start, step = draw(st.integers(0, x.shape[dim] - 2)), draw(st.sampled_from([1, 1, 2]))
        return sliced(name, source, dim, slice(start, draw(st.integers(start + 1, x.shape[dim] - 1)), step))
    if how == "pixel" and height > 1:
        return max_pool(name, source, kernel_size=3, stride=1) if (height, width) == (3, 3) else (
            sliced(name, source, 2, slice(0, 1)))  # fmt: skip
    if how == "pad" and min(height, width) > 1:
        mode = draw(st.sampled_from(["constant", "reflect", "replicate"]))
        amounts = [draw(st.integers(0, min(3, side - 1))) for side in (width, width, height, height)]
        return padded(name, source, amounts, mode, draw(st.sampled_from([0.0, 3.0])))
    if how == "roll" and min(height, width) > 1:
        return rolled(name, source, draw(st.sampled_from([(1, -2), (-3, 1)])), (2, 3))
    if how == "upsample" and max(height, width) < 12 and min(height, width) > 1:
        return upsampled(name, source, draw(st.sampled_from([(2, 2), (3, 1)])))
    if how == "shuffle":
        factors = [each for each in range(1, channels + 1) if channels % each == 0]
        op = draw(st.sampled_from(["channel_shuffle", "pixel_shuffle", "pixel_unshuffle"]))
        if op == "channel_shuffle":
            return shuffled(name, source, op, draw(st.sampled_from(factors)))
        if op == "pixel_shuffle" and channels % 4 == 0 and max(height, width) < 20:
            return shuffled(name, source, op, 2)
        if op == "pixel_unshuffle" and channels < 11 and height % 2 == width % 2 == 0:
            return shuffled(name, source, op, 2)
    return relu(name, source)


@st.composite
def drawn_transposed(draw: st.DrawFn, name: str, source: str, x: Tensor) -> Node:
    channels, groups = x.shape[1], draw(st.sampled_from([1, x.shape[1]]))
    size, steps = draw(st.integers(1, 4)), draw(st.sampled_from([(1, 1), (2, 2), (2, 1)]))
    weight = whole_numbers(channels, draw(st.integers(1, 3)), size, size, seed=size, most=1)
    weight *= (
        torch.rand(weight.shape, generator=torch.Generator().manual_seed(channels)) < 2 / weight[0].numel()
    )
    cut = draw(st.integers(0, (size - 1) // 2))
    bias = whole_numbers(weight.shape[1] * groups, seed=cut) if draw(st.booleans()) else None
    layer = Layer(
        "t",
        "conv_transpose2d",
        weight,
        bias,
        (),
        (),
        steps,
        (cut, cut),
        (1, 1),
        groups,
        output_padding=(0, 0),
    )
    return transposed(name, source, layer, relu=draw(st.booleans()))


@st.composite
def drawn_node(draw: st.DrawFn, name: str, source: str, values: Mapping[str, Tensor]) -> Node:
    x = values[source]
    channels, seed = x.shape[1], draw(st.integers(0, 99))
    alike = [other for other, value in values.items() if value.shape == x.shape]
    beside = [o for o, value in values.items() if value.shape[2:] == x.shape[2:] and value.shape[1] <= 40]
    kind = draw(st.sampled_from(["conv"] * 4 + ["add"] * 2 + ["moved"] * 4 + KINDS))
    if kind == "two":
        return draw(drawn_pair(name, source, values))
    if kind == "moved":
        return draw(drawn_movement(name, source, x))
    if kind == "transposed" and x[0].numel() < 4000:
        return draw(drawn_transposed(name, source, x))
    if kind == "prelu":
        return prelu(name, source, whole_numbers(draw(st.sampled_from([1, channels])), seed=seed, most=1))
    if kind == "conv":
        size, stride = draw(st.sampled_from([1, 3, 3, 5])), draw(st.sampled_from([1, 1, 1, 2]))
        outputs = channels if draw(st.booleans()) else draw(st.integers(1, 40))
        weight = whole_numbers(outputs, channels, size, size, seed=seed, most=1)
        weight *= (
            torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) < 2 / weight[0].numel()
        )
        layer = layer_of(
            weight, whole_numbers(outputs, seed=seed), stride=stride, padding=(size // 2, size // 2)
        )
        return convolution(name, source, layer, relu=draw(st.booleans()))
    if kind == "add":
        others = [other for other in alike if other != source]
        return (
            add(name, *draw(st.permutations([source, draw(st.sampled_from(others))])))
            if others
            else relu(name, source)
        )
    if kind == "concat":
        return concat(
            name,
            *draw(
                st.permutations([source, *draw(st.lists(st.sampled_from(beside or [source]), max_size=2))])
            ),
        )
    if kind == "max":
        stride = draw(st.sampled_from([1, 2]))
        return max_pool(name, source, kernel_size=3, stride=stride, padding=1, ceil_mode=draw(st.booleans()))
    if kind == "average" and min(x.shape[2:]) > 1:
        return average_pool(name, source, kernel_size=2, divisor_override=1)
    if kind == "scale":
        return norm(
            name, source, whole_numbers(channels, seed=seed, most=1), whole_numbers(channels, seed=seed)
        )
    return draw(st.sampled_from([relu, relu6]))(name, source)


def assert_exact(network: Network, behind: bool | None, *, element: Element = FP32) -> None:
    machine, method = (HERE, FASTEST) if element == FP32 else (HALF_MACHINES[0], "streamed")
    operations, pairs = both(
        network.nodes,
        network.given,
        machine,
        leaving=network.leaving,
        method=method,
        behind=behind,
        element=element,
    )
    for ours, exact in pairs:
        assert torch.equal(ours.double(), exact)
    made = {name for one in operations for name in one.names}
    left = {node.op.split(".")[1] for node in network.nodes if node.name not in made}
    assert left <= {"slice", *BEGUN}  # of parts that no operation reads as a map


def cells(place: Map) -> np.ndarray:
    """Addresses, in steps of 4 bytes, of all numbers of a map."""
    layout = place.layout
    first = (place.first + layout.offset(*everywhere(layout).T)) // 4
    found: np.ndarray = (first[:, None] + np.arange(len(place.channels) * layout.lanes)).ravel()
    return found


def assert_apart(operations: Sequence[Operation], arrangement: Arrangement, leaving: Sequence[str]) -> None:
    """While an operation runs, what it makes and copies is nowhere where something lies that is still needed.

    A concatenation lies where its parts lie, and a sum may overwrite what it adds to, if nobody reads that again.
    """
    last = {name: number for number, one in enumerate(operations) for name in one.inputs}
    last |= {name: len(operations) for name in leaving}
    busy: dict[str, np.ndarray] = {}
    for number, one in enumerate(operations):
        # Where it may lie: a concatenation on its parts, a convolution on what it adds to, if that ends here.
        shared = set(one.inputs if one.kind == "concat" else one.inputs[1:] if one.kind == "conv" else ())
        shared -= {name for name in shared if one.kind == "conv" and last[name] > number}
        copies = [cells(place) for (node, _), place in arrangement.copies.items() if node == one.name]
        made = [cells(arrangement.maps[one.name])] if one.name in arrangement.maps else []
        for name, taken in busy.items():
            for every in copies if name in shared else copies + made:
                assert not np.intersect1d(every, taken).size, (one.name, name)
        assert len(np.unique(np.concatenate(copies + made))) == sum(map(len, copies + made))
        if made:
            busy[one.name] = made[0]
            assert made[0].min() >= HEADER // 4
            assert made[0].max() < arrangement.bytes // 4
        busy = {name: taken for name, taken in busy.items() if last.get(name, -1) > number}


@settings(max_examples=60, deadline=None)
@given(network=networks(), behind=st.sampled_from([True, False, None]))
def test_60_random_networks_are_exact(network: Network, behind: bool | None) -> None:
    assert_exact(network, behind)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(network=networks(), behind=st.sampled_from([True, False, None]))
def test_1000_more_random_networks_are_exact(network: Network, behind: bool | None) -> None:
    assert_exact(network, behind)


def assert_exact_in_half(network: Network, behind: bool | None) -> None:
    values = evaluated(network.nodes, network.given)
    # A convolution's or a pool's sum has a few terms, which may have either sign on the way.
    assume(all(value.abs().max() < HALF_EXACT / 8 for value in values.values()))
    assert_exact(network, behind, element=FP16)


reads_half = pytest.mark.skipif(not HALF_MACHINES, reason="this processor cannot read fp16")


@reads_half
@settings(max_examples=12, deadline=None)
@given(network=networks(), behind=st.sampled_from([True, False, None]))
def test_12_random_networks_are_exact_in_fp16(network: Network, behind: bool | None) -> None:
    assert_exact_in_half(network, behind)


@pytest.mark.slow
@reads_half
@settings(max_examples=500, deadline=None)
@given(network=networks(), behind=st.sampled_from([True, False, None]))
def test_500_more_random_networks_are_exact_in_fp16(network: Network, behind: bool | None) -> None:
    assert_exact_in_half(network, behind)


@settings(max_examples=60, deadline=None)
@given(network=networks())
def test_maps_that_are_needed_at_the_same_time_lie_apart(network: Network) -> None:
    values = evaluated(network.nodes, network.given)
    operations = operations_of(graph_of(network.nodes, values, list(network.given), network.leaving))
    made = {one.name for one in operations}
    outside = {
        name: tuple(values[name].shape[1:]) for one in operations for name in one.inputs if name not in made
    }
    leaving = {name: tuple(values[name].shape[1:]) for name in network.leaving}
    subgraph = Subgraph(tuple(operations), outside, leaving)
    arrangement = arrange(subgraph, images=len(network.given["x"]), lanes=16)
    assert_apart(operations, arrangement, network.leaving)
