"""Attention on tiles against PyTorch's: any heads, lengths, masks, on narrow and wide vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import pytest
import torch
from captured import whole
from hypothesis import given, settings
from hypothesis import strategies as st
from run.drawn import HERE, MACHINES
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from zeroskip.concepts import Machine
from zeroskip.graph import Graph, Input, Node, capture
from zeroskip.graph.torch_operations import Argument
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.kernels import STREAMED
from zeroskip.run.convolution.tiles.lowering import lower
from zeroskip.run.convolution.tiles.segment import Segment
from zeroskip.run.convolution.tiles.tiling import on_tiles
from zeroskip.run.runner import runner

LIMIT = 1e-5


@dataclass(frozen=True)
class Shape:
    """Heads of queries and of keys, how many of both, features of a query and of a value."""

    heads: int = 2
    key_heads: int = 2
    queries: int = 9
    keys: int = 9
    size: int = 8
    features: int = 8

    def drawn(self, count: int = 1) -> list[Tensor]:
        first = torch.randn(count, self.heads, self.queries, self.size)
        keys = torch.randn(count, self.key_heads, self.keys, self.size)
        return [first, keys, torch.randn(count, self.key_heads, self.keys, self.features)]


def differs(*inputs: Tensor, machine: Machine = HERE, images: int = 1, **options: Argument) -> float:
    """Largest difference between attention on tiles and PyTorch's; inputs are queries, keys, values, a mask."""
    mask = {} if len(inputs) > 3 else {"attn_mask": options.get("attn_mask")}
    graph = graph_of(inputs, {"dropout_p": 0.0, "is_causal": False, "scale": None, **options, **mask})
    operations = operations_of(graph)
    assert [each.kind for each in operations] == ["attention"]
    segment = Segment(lower(whole(graph, operations), machine, images=images), 1)
    return float((segment(*inputs)[0] - graph.nodes[0].function(*inputs)).abs().max())


def graph_of(inputs: Sequence[Tensor], arguments: Mapping[str, Argument]) -> Graph:
    """A network that does nothing but attend."""
    names = ("queries", "keys", "values", "mask")[: len(inputs)]
    function = partial(attended, arguments)
    node = Node(
        "y", "aten.scaled_dot_product_attention.default", names, function, arguments=arguments,
        shape=tuple(function(*inputs).shape[1:]),
    )  # fmt: skip
    entering = tuple(Input(name, tuple(x.shape[1:])) for name, x in zip(names, inputs, strict=True))
    return Graph(entering, (node,), ("y",), itemgetter(0))


def attended(arguments: Mapping[str, Any], *inputs: Tensor) -> Tensor:
    queries, keys, values, *mask = inputs
    added = mask[0] if mask else arguments["attn_mask"]
    rest = {name: value for name, value in arguments.items() if name != "attn_mask"}
    return scaled_dot_product_attention(queries, keys, values, attn_mask=added, **rest)


@given(
    shape=st.builds(
        Shape,
        heads=st.sampled_from([2, 4]),
        key_heads=st.sampled_from([1, 2]),
        queries=st.integers(1, 40),
        keys=st.integers(1, 40),
        size=st.sampled_from([4, 17, 32]),
        features=st.sampled_from([3, 16, 33]),
    ),
    count=st.integers(1, 3),
    machine=st.sampled_from(MACHINES),
)
@settings(max_examples=30, deadline=None)
def test_any_shape(shape: Shape, count: int, machine: Machine) -> None:
    shared = shape.heads != shape.key_heads
    assert differs(*shape.drawn(count), machine=machine, enable_gqa=shared) < LIMIT


@pytest.mark.parametrize("images", [1, 2])
def test_several_examples_at_a_time(images: int) -> None:
    assert differs(*Shape().drawn(3), images=images) < LIMIT


def test_a_query_sees_no_later_key() -> None:
    assert differs(*Shape(queries=20, keys=24).drawn(), is_causal=True) < LIMIT


def test_scores_are_scaled() -> None:
    assert differs(*Shape().drawn(), scale=0.7) < LIMIT


@pytest.mark.parametrize("shape", [(9, 9), (1, 9), (2, 9, 9), (1, 2, 9, 9), (1, 1, 1, 9)])
def test_a_constant_mask_is_added(shape: tuple[int, ...]) -> None:
    assert differs(*Shape().drawn(2), attn_mask=torch.randn(shape)) < LIMIT


@pytest.mark.parametrize("shape", [(1, 9, 9), (2, 9, 9), (1, 1, 9), (2, 1, 9)])
def test_a_mask_that_changes_is_added(shape: tuple[int, ...]) -> None:
    assert differs(*Shape().drawn(2), torch.randn(2, *shape)) < LIMIT


def test_masks_of_truth_values() -> None:
    mask = torch.rand(9, 9) > 0.5
    assert differs(*Shape().drawn(), attn_mask=mask) < LIMIT


def test_a_query_that_sees_no_key_gets_zeros() -> None:
    mask = torch.ones(9, 9, dtype=torch.bool)
    mask[3] = False
    assert differs(*Shape().drawn(), attn_mask=mask) < LIMIT


class Masked(nn.Module):
    """Attention whose mask is computed from what is seen, as networks do with what a tokenizer returns."""

    def __init__(self) -> None:
        super().__init__()
        self.all = nn.Linear(16, 48)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        parts = self.all(x).chunk(3, -1)
        queries, keys, values = (each.unflatten(2, (2, 8)).transpose(1, 2) for each in parts)
        return scaled_dot_product_attention(queries, keys, values, (1.0 - seen) * -1e4)


@pytest.mark.parametrize("shape", [(1, 1, 9), (1, 9, 9), (2, 9, 9), (2, 1, 9)])
def test_a_mask_that_is_computed_before_hides_the_same_keys_in_every_call(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = Masked().eval().requires_grad_(False)
    inputs = torch.randn(3, 9, 16), (torch.rand(3, *shape) < 0.7).float()
    inputs[1][..., 0] = 1
    graph = capture(model, inputs)
    operations = operations_of(graph)
    streamed = {each.name: STREAMED for each in operations if each.layer is not None}
    run = runner(on_tiles(graph, operations, streamed, HERE, images=1, threads=1), {})
    for _ in range(2):  # the second call finds in memory what the first left there
        torch.testing.assert_close(run(*inputs)[0], model(*inputs), rtol=1e-4, atol=1e-5)
