"""Which maps share memory: sums with what they add to, parts with their concatenation, and those that follow others."""

from __future__ import annotations

import torch
from captured import operations_in
from test_operations import Net, X
from torch import Tensor, nn

from zeroskip.run.convolution.tiles.arrangement import HEADER, Arrangement, arrange
from zeroskip.run.convolution.tiles.operations import Operation, Subgraph

SHAPE = (6, 12, 12)


def arranged(model: nn.Module) -> tuple[list[Operation], Arrangement]:
    operations = operations_in(model, X)
    last = operations[-1]
    subgraph = Subgraph(tuple(operations), {"x": SHAPE}, {last.name: last.shape})
    return operations, arrange(subgraph, images=2, lanes=16)


def in_a_row(net: Net, x: Tensor) -> Tensor:
    for _ in range(5):
        x = net.b(net.a(x))
    return x


def with_sums(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    for _ in range(3):
        y = net.c(net.b(y)) + y
    return y


def with_a_late_reader(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    return net.c(net.b(net.c(y)) + y) + y


def test_ten_maps_in_a_row_need_the_memory_of_two() -> None:
    _, arrangement = arranged(Net(in_a_row))
    bases = {place.base for place in arrangement.maps.values()}
    largest = max(place.layout.bytes for place in arrangement.maps.values())
    copies = sum(place.layout.bytes + 8192 for place in arrangement.copies.values())
    assert len(bases) <= 3  # the first is made while the network's input lies there as well
    assert arrangement.bytes <= HEADER + 2 * (largest + 8192) + copies


def test_three_sums_in_a_row_overwrite_what_they_add_to() -> None:
    operations, arrangement = arranged(Net(with_sums))
    sums = [one for one in operations if len(one.inputs) == 2]
    assert len(sums) == 3
    for one in sums:
        assert arrangement.maps[one.name].base == arrangement.maps[one.inputs[1]].base


def test_a_sum_overwrites_nothing_that_is_read_later() -> None:
    operations, arrangement = arranged(Net(with_a_late_reader))
    first, second = (one for one in operations if len(one.inputs) == 2)
    assert first.inputs[1] == second.inputs[1]
    assert arrangement.maps[first.name].base != arrangement.maps[first.inputs[1]].base
    assert arrangement.maps[second.name].base == arrangement.maps[second.inputs[1]].base


def test_the_parts_of_a_concatenation_are_made_in_their_places() -> None:
    model = Net(lambda n, x: (lambda y: torch.cat([n.a(y), y, n.b(y)], 1))(n.c(x)))
    operations, arrangement = arranged(model)
    whole = arrangement.maps[operations[-1].name]
    parts = [arrangement.maps[name] for name in operations[-1].inputs]
    assert {part.base for part in parts} == {whole.base}
    assert [part.channels for part in parts] == [range(6), range(6, 12), range(12, 18)]
    assert whole.layout.ring == (1, 1, 1, 1)  # which the convolutions that read the part y need
