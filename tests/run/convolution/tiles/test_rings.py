"""Windows that reach far beyond the map: which taps are left out, which places of rings are read, and the results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from byhand import average_pool, both, concat, convolution, layer_of, max_pool, norm, relu, whole_numbers
from captured import FASTEST
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from maps import HALF_MACHINES
from run.drawn import HERE, MACHINES
from torch import Tensor
from torch.nn import functional

from zeroskip.concepts import Machine
from zeroskip.graph import Node
from zeroskip.run.convolution.tiles.arrangement import Arrangement, arrange
from zeroskip.run.convolution.tiles.operations import Operation, Subgraph, Window
from zeroskip.run.convolution.tiles.taps import touching
from zeroskip.run.element import FP16, FP32, Element

CHANNELS = 3
Host = tuple[Machine, Element]
HOST = st.sampled_from([(one, FP32) for one in MACHINES] + [(one, FP16) for one in HALF_MACHINES])
STRIDES = st.tuples(st.integers(1, 4), st.integers(1, 4))
AXIS = st.tuples(st.integers(1, 4), st.one_of(st.integers(1, 3), st.integers(1, 30)), st.integers(0, 60))


@settings(max_examples=100, deadline=None)
@given(rows=AXIS, columns=AXIS, stride=STRIDES, source=st.tuples(*[st.integers(1, 9)] * 2))
def test_a_tap_is_left_out_if_and_only_if_no_output_changes_with_its_weight(
    rows: tuple[int, int, int],
    columns: tuple[int, int, int],
    stride: tuple[int, int],
    source: tuple[int, int],
) -> None:
    size, dilation, padding = zip(rows, columns, strict=True)
    window = Window(size, stride, padding, dilation)
    made = [
        (side + 2 * pad - (length - 1) * step - 1) // apart + 1
        for (length, step, pad), apart, side in zip((rows, columns), stride, source, strict=True)
    ]
    assume(min(made) > 0)
    taps = touching(window, (made[0], made[1]), source)
    each = torch.eye(size[0] * size[1]).reshape(-1, 1, *size)  # output channel t is what tap t sees
    sums = functional.conv2d(torch.ones(1, 1, *source), each, None, stride, padding, dilation).sum((0, 2, 3))
    expected = [tuple(divmod(int(tap), size[1])) for tap in sums.nonzero()]
    assert [(int(row), int(column)) for row in taps.rows for column in taps.columns] == expected


@st.composite
def readers(draw: st.DrawFn, side: tuple[int, int]) -> tuple[str, dict[str, Any]]:
    """A kind of window and its arguments, near or far."""
    kind = draw(st.sampled_from(["conv", "depthwise", "max", "average"]))
    size = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    far = st.sampled_from([1, 2, *side, side[0] + 1, 2 * side[1] + 3])
    dilation = (1, 1) if kind == "average" else (draw(far), draw(far))
    half = [length // 2 for length in size] if kind in ("max", "average") else [99, 99]
    padding, ends = [], []
    for length, step, most, pixels in zip(size, dilation, half, side, strict=True):
        reach = (length - 1) * step + 1
        padding.append(min(most, max(0, reach // 2 + draw(st.integers(-2, 2)))))
        ends.append(pixels + 2 * padding[-1] - reach)
    assume(min(ends) >= 0)
    return kind, {
        "size": size,
        "stride": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        "padding": tuple(padding),
        "dilation": dilation,
    }


def reader(name: str, source: str, channels: int, kind: str, given: dict[str, Any]) -> Node:
    rest = {key: given[key] for key in ("stride", "padding", "dilation")}
    if kind in ("conv", "depthwise"):
        shape = (channels, 1) if kind == "depthwise" else (2, channels)
        weight = whole_numbers(*shape, *given["size"], seed=len(name), most=3)
        groups = channels if kind == "depthwise" else 1
        return convolution(
            name, source, layer_of(weight, whole_numbers(shape[0], seed=1), groups=groups, **rest)
        )
    rest |= {"kernel_size": given["size"], "padding": list(given["padding"])}
    if kind == "max":
        return max_pool(name, source, **rest)
    del rest["dilation"]
    return average_pool(name, source, divisor_override=1, **rest)


@st.composite
def several_readers(draw: st.DrawFn) -> tuple[list[Node], dict[str, Tensor], list[str]]:
    """Maps made on tiles and outside, alone and as parts of concatenations; windows that read them; what leaves."""
    side = draw(st.integers(1, 17)), draw(st.integers(1, 17))
    x = whole_numbers(draw(st.integers(1, 3)), CHANNELS, *side, seed=5, most=4)
    ones, shift = torch.ones(CHANNELS), torch.full((CHANNELS,), draw(st.sampled_from([0.0, -9.0])))
    nodes = [norm("a", "x", ones, shift), relu("b", "x"), concat("c", "a", "b"), norm("d", "b", -ones, shift)]
    nodes.append(concat("e", "d", "x"))
    names = []
    for number in range(draw(st.integers(1, 3))):
        source = draw(st.sampled_from(["x", "a", "b", "c", "e"]))
        kind, given = draw(readers(side))
        names.append("r" * (number + 1))
        nodes.append(reader(names[-1], source, CHANNELS * (2 if source in ("c", "e") else 1), kind, given))
    return nodes, {"x": x}, [*names, "c", "e"]


def assert_exact(
    network: tuple[list[Node], dict[str, Tensor], list[str]], host: Host, behind: bool | None
) -> None:
    (nodes, given, leaving), (machine, element) = network, host
    options: dict[str, Any] = {"method": "streamed", "behind": behind, "element": element}
    _, pairs = both(nodes, given, machine, leaving=leaving, **options)
    for ours, exact in pairs:
        assert torch.equal(ours.double(), exact)


@settings(max_examples=8, deadline=None)
@given(network=several_readers(), host=HOST, behind=st.sampled_from([True, False, None]))
def test_8_times_several_readers_near_and_far_of_maps_and_of_parts_of_concatenations(
    network: tuple[list[Node], dict[str, Tensor], list[str]], host: Host, behind: bool | None
) -> None:
    assert_exact(network, host, behind)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(network=several_readers(), host=HOST, behind=st.sampled_from([True, False, None]))
def test_400_times_more_several_readers_near_and_far(
    network: tuple[list[Node], dict[str, Tensor], list[str]], host: Host, behind: bool | None
) -> None:
    assert_exact(network, host, behind)


@pytest.mark.parametrize("kind", ["conv", "depthwise"])
@pytest.mark.parametrize("method", ["streamed", "blocks", FASTEST])
def test_a_convolution_none_of_whose_taps_touches_the_map_gives_its_bias(kind: str, method: str) -> None:
    given = {"size": (2, 2), "stride": (1, 1), "padding": (3, 3), "dilation": (6, 6)}
    node = reader("r", "x", 8, kind, given)
    x = torch.full((1, 8, 1, 1), torch.inf)  # which nothing may be multiplied with
    _, [(ours, exact)] = both([node], {"x": x}, HERE, method=method)
    assert torch.equal(ours.double(), exact)
    assert ours.flatten().tolist() == node.layer.bias.tolist()  # type: ignore[union-attr]


def arranged(*windows: Window, kind: str = "depthwise", side: int = 14) -> Arrangement:
    """A map of side x side, and the depthwise layers that read it, on vectors of 16 numbers."""
    shape = CHANNELS, side, side
    operations = [Operation("map", "scale", ("x",), shape, ("map",))]
    for number, window in enumerate(windows):
        made = -(-side // window.stride[0])
        name = f"reader {number}"
        operations.append(Operation(name, kind, ("map",), (CHANNELS, made, made), (name,), window))
    outputs = {one.name: one.shape for one in operations[1:]}
    return arrange(Subgraph(tuple(operations), {"x": shape}, outputs), images=1, lanes=16)


def dilated(step: int) -> Window:
    return Window((3, 3), (1, 1), (step, step), (step, step))


def test_dilations_beyond_the_map_need_no_ring() -> None:
    place = arranged(dilated(14), dilated(24), dilated(36)).maps["map"]
    assert place.layout.ring == (0, 0, 0, 0)
    assert not len(place.around())


def test_a_ring_is_read_only_where_taps_lie() -> None:
    place = arranged(dilated(12), dilated(36)).maps["map"]
    assert place.layout.tile == (2, 7)
    assert place.layout.ring == (12, 12, 12, 12)
    assert len(place.around()) == 8 * 2 * 7  # as many tiles as there are taps around the middle
    _, y, x = np.abs(place.around() - [0, 0.5, 3]).T  # from the middle of the tile
    assert set(y) == {0.5, 11.5, 12.5}
    assert set(x) == {0, 1, 2, 3, 9, 10, 11, 12, 13, 14, 15}


def test_every_reader_of_a_map_finds_its_own_places() -> None:
    both_read = arranged(dilated(1), dilated(12)).maps["map"].around().tolist()
    for window in (dilated(1), dilated(12)):
        alone = arranged(window).maps["map"].around().tolist()
        assert [place for place in alone if place not in both_read] == []
    assert len(both_read) == 8 * 2 * 7 + 22


def test_of_a_concatenation_only_the_part_that_a_window_reads_has_a_ring_to_fill() -> None:
    shape, whole = (CHANNELS, 14, 14), (2 * CHANNELS, 14, 14)
    read, unread = (Operation(name, "scale", ("x",), shape, (name,)) for name in ("read", "unread"))
    both_parts = Operation("both", "concat", ("read", "unread"), whole, ("both",))
    layer = Operation("layer", "depthwise", ("read",), shape, ("layer",), dilated(1))
    every = Subgraph((read, unread, both_parts, layer), {"x": shape}, {"both": whole, "layer": shape})
    maps = arrange(every, images=1, lanes=16).maps
    assert len(maps["read"].around()) == 22
    assert len(maps["unread"].around()) == 0
    layer = replace(layer, inputs=("both",), shape=whole)
    every = replace(
        every, operations=(read, unread, both_parts, layer), outputs={"both": whole, "layer": whole}
    )
    maps = arrange(every, images=1, lanes=16).maps
    assert len(maps["read"].around()) == len(maps["unread"].around()) == 22


def test_phases_that_a_window_never_reads_are_not_copied() -> None:
    single = Window((1, 1), (2, 2), (0, 0))
    reading = arranged(single, side=7).readings["reader 0"]
    assert reading.phases == (2, 2)
    assert list(reading.places()) == [(0, 0)]
