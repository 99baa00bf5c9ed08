"""Random networks of which some operations compute in eight bits: code on tiles equals the reference in every bit.

Scales are powers of two and weights whole numbers of their steps, so that what is left in fp32 is exact as well.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import guarded
import numpy as np
import pytest
import torch
from byhand import evaluated, graph_of
from captured import whole
from hypothesis import given, settings
from hypothesis import strategies as st
from run.drawn import MACHINES
from test_random_networks import Network, networks
from torch import Tensor
from torch.nn import functional

from zeroskip.concepts import Layer, Machine
from zeroskip.graph import Node
from zeroskip.run.convolution.tiles.graph_operations import maps_of, operations_of
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.quantising import converted, in_bytes
from zeroskip.run.element import Scaling
from zeroskip.run.integer_network import byte_operations, network_of

STEP = 2.0**-5  # of weights, which are -1, 0 and 1


def scales_of(network: Network, seed: int) -> dict[str, Scaling]:
    """Scales that cut some numbers off."""
    draw = np.random.default_rng(seed)
    scales = {}
    for name, value in evaluated(network.nodes, network.given).items():
        step = math.ceil(math.log2(max(1.0, float(value.abs().max()) / 128))) + int(draw.integers(0, 2))
        scales[name] = Scaling(2.0**step, int(draw.choice([0, 128])))
    return scales


def layers_of(operations: Sequence[Operation], names: Collection[str], seed: int) -> dict[str, Tensor]:
    """Two thirds of the layers in eight bits, with the scales of their weights."""
    draw = np.random.default_rng(seed)
    return {
        each.name: torch.full((len(each.layer.weight),), STEP)
        for each in operations
        if each.layer is not None and each.name in names and draw.random() < 0.7
        and float(each.layer.weight.abs().max()) <= 127 * STEP
    }  # fmt: skip


def in_double(node: Node) -> Node:
    """The node, which rounds nothing on the way."""
    return replace(node, function=lambda *values: node.function(*[each.double() for each in values]).float())


def assert_equal(network: Network, seed: int, machine: Machine, behind: bool | None) -> None:
    x = network.given["x"].float()
    values = evaluated(network.nodes, network.given)
    graph = graph_of(network.nodes, values, list(network.given), network.leaving)
    operations, scales = operations_of(graph), scales_of(network, seed)
    layers = layers_of(operations, {node.name for node in graph.nodes}, seed)
    exact = replace(graph, nodes=tuple(map(in_double, graph.nodes)))
    rounding = network_of(exact, byte_operations(graph), scales, layers, layers)
    expected = dict(zip(graph.outputs, rounding(x), strict=True))
    shapes = {name: shape for name, (shape, _) in maps_of(graph, operations).items()}
    tagged = in_bytes(operations, shapes, scales, layers)
    subgraph = whole(graph, tagged)
    part, guards = guarded.lowered(
        converted(subgraph), machine, behind=behind, images=len(x), methods=dict.fromkeys(shapes, "streamed")
    )
    made = guarded.call(part, guards, [x])
    for name, ours in zip(subgraph.outputs, made, strict=True):
        if name in expected:  # not what only an operation of PyTorch reads
            assert torch.equal(ours, expected[name]), name


def test_an_input_that_a_layer_reads_and_an_uneven_concatenation_rescales() -> None:
    weight, bias = torch.tensor([[[[1.0]], [[-1.0]]]]), torch.tensor([-1.0])
    layer = Layer("c", "conv2d", weight, bias, (), ())
    function = lambda x: functional.conv2d(x, weight.to(x), bias.to(x))  # also in doubles
    convolution = Node("n0", "aten.conv2d.default", ("x",), function, layer)
    joined = Node(
        "n1", "aten.cat.default", ("x", "n0"), lambda *parts: torch.cat(parts, 1), arguments={"dim": 1}
    )
    network = Network([convolution, joined], {"x": torch.tensor([[[[-1.0]], [[-5.0]]]])}, ["n0", "n1"])
    for seed in range(4):
        assert_equal(network, seed, MACHINES[-1], None)


ONE_INPUT = networks().filter(lambda network: len(network.given) == 1)
EACH = {
    "network": ONE_INPUT,
    "seed": st.integers(0, 999),
    "machine": st.sampled_from(MACHINES),
    "behind": st.sampled_from([True, False, None]),
}


@settings(max_examples=12, deadline=None)
@given(**EACH)
def test_12_random_networks_in_eight_bits_equal_the_reference(network, seed: int, machine, behind) -> None:
    assert_equal(network, seed, machine, behind)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(**EACH)
def test_500_more_random_networks_in_eight_bits_equal_the_reference(
    network, seed: int, machine, behind
) -> None:
    assert_equal(network, seed, machine, behind)
