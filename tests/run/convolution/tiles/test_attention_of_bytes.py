"""Attention whose products are of bytes: near PyTorch's, alike in fp32 and bytes; norms that make bytes themselves."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import guarded
import pytest
import torch
from captured import whole
from run.drawn import HERE
from test_attention import Shape, graph_of
from torch import Tensor, nn

from zeroskip import run
from zeroskip.graph import capture
from zeroskip.graph.torch_operations import Argument
from zeroskip.run.convolution.tiles import lowering
from zeroskip.run.convolution.tiles.attention_quads import has_products_of_bytes
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.operations import Operation, Subgraph
from zeroskip.run.element import Scaling
from zeroskip.run.integer_network import with_bytes

NEAR = 0.015  # root of the mean square, as share of that of the results
MULTIPLIES = pytest.mark.skipif(
    not has_products_of_bytes(HERE, HERE.vector_bytes // 4, (4, 4)), reason="this processor lacks VNNI"
)


def in_bytes(
    *inputs: Tensor, images: int = 1, output: Scaling | None = None, **options: Argument
) -> tuple[Tensor, Tensor]:
    """What attention of bytes makes of queries, keys, values and a mask, and what PyTorch does."""
    mask = {} if len(inputs) > 3 else {"attn_mask": options.get("attn_mask")}
    graph = graph_of(inputs, {"dropout_p": 0.0, "is_causal": False, "scale": None, **options, **mask})
    (operation,) = operations_of(graph)
    assert operation.attention is not None
    operation = replace(operation, attention=replace(operation.attention, in_bytes=True))
    subgraph = whole(graph, [operation])
    if output is not None:
        subgraph = through_bytes(subgraph, output)
    part, guards = guarded.lowered(subgraph, HERE, images=images)
    given = [part.tensor(name, x) for name, x in zip(part.inputs, inputs, strict=True)]
    (made,) = guarded.call(part, guards, given)
    return part.returned(next(iter(part.outputs)), made), graph.nodes[0].function(*inputs)


def through_bytes(subgraph: Subgraph, scaling: Scaling) -> Subgraph:
    """The subgraph whose last value becomes bytes, and then leaves as fp32."""
    *_, last = subgraph.operations
    to = Operation("bytes", "convert", (last.name,), last.shape, (last.name,))
    back = Operation("back", "convert", ("bytes",), last.shape, (last.name,))
    ((name, shape),) = subgraph.outputs.items()
    return replace(
        subgraph, operations=(*subgraph.operations, to, back), outputs={"back": shape}, scalings={"bytes": scaling},
        forms={**subgraph.forms, "back": subgraph.forms[name]} if name in subgraph.forms else subgraph.forms,
    )  # fmt: skip


def error(*inputs: Tensor, **options: Argument) -> float:
    ours, exact = in_bytes(*inputs, **options)  # type: ignore[arg-type]
    return float((ours - exact).square().mean().sqrt() / exact.square().mean().sqrt())


@MULTIPLIES
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize(
    "shape", [Shape(4, 2, 20, 37, 20, 12), Shape(2, 1, 1, 16, 20, 12), Shape(queries=40, keys=9, size=4)]
)
def test_any_shape(shape: Shape, images: int) -> None:
    torch.manual_seed(0)
    assert error(*shape.drawn(images), images=images, enable_gqa=shape.heads != shape.key_heads) < NEAR


@MULTIPLIES
@pytest.mark.parametrize(
    "options", [{"is_causal": True}, {"scale": 0.7}, {"attn_mask": torch.linspace(-2, 2, 81).view(9, 9)}]
)
def test_scores_are_scaled_and_masked(options: dict[str, Argument]) -> None:
    torch.manual_seed(0)
    assert error(*Shape().drawn(), **options) < NEAR


@MULTIPLIES
@pytest.mark.parametrize("shape", [(2, 9, 9), (1, 1, 9)])
def test_a_mask_that_changes_is_added(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    assert error(*Shape().drawn(), torch.randn(1, *shape)) < NEAR


@MULTIPLIES
def test_what_sees_nothing_is_0_and_zeros_see_all_alike() -> None:
    torch.manual_seed(0)
    queries, keys, values = Shape().drawn()
    queries[:, :, 4] = 0
    mask = torch.ones(9, 9, dtype=torch.bool)
    mask[3] = False
    ours, exact = in_bytes(queries, keys, values, attn_mask=mask)
    assert (ours[:, :, 3] == 0).all()
    assert (ours - exact).abs().max() < NEAR


@MULTIPLIES
@pytest.mark.parametrize("least", [-1e9, float(torch.finfo(torch.float32).min)])
def test_masks_of_large_numbers_that_leave_nothing_are_as_in_pytorch(least: float) -> None:
    torch.manual_seed(0)
    mask = torch.zeros(9, 9)
    mask[3] = least
    mask[5, 2:] = least
    assert error(*Shape().drawn(), attn_mask=mask) < NEAR


@MULTIPLIES
def test_scores_of_millions() -> None:
    torch.manual_seed(0)
    queries, _, values = Shape(queries=20, keys=20, size=32).drawn()
    assert error(1e3 * queries, 1e3 * queries, values) < NEAR


@MULTIPLIES
def test_scores_far_apart_and_large_numbers_of_single_tokens() -> None:
    torch.manual_seed(0)
    queries, keys, values = Shape(queries=20, keys=40, size=32).drawn()
    keys[:, :, 7] *= 50
    values[:, :, 11] *= 100
    assert error(queries, keys, values) < 2 * NEAR


@MULTIPLIES
@pytest.mark.parametrize("zero_point", [0, 128])
def test_bytes_are_those_of_the_result_in_fp32(zero_point: int) -> None:
    torch.manual_seed(0)
    inputs, scaling = Shape(queries=13).drawn(), Scaling(0.011, zero_point)
    plain, _ = in_bytes(*inputs)
    ours, _ = in_bytes(*inputs, output=scaling)
    numbers = (plain * float(scaling.inverse)).round().clamp(scaling.least, scaling.most)
    assert torch.equal(ours, numbers * scaling.scale)


@pytest.mark.parametrize("channels", [6, 8])
def test_a_norm_that_makes_bytes_rounds_as_a_conversion_does(channels: int) -> None:
    torch.manual_seed(0)
    factors = torch.randn(channels), torch.randn(channels)
    shape = channels, 1, 20
    norm = Operation("n", "layer_norm", ("x",), shape, ("n",), factors=factors, epsilon=1e-5)
    subgraph = through_bytes(Subgraph((norm,), {"x": shape}, {"n": shape}), Scaling(0.02, 128))
    x = torch.randn(1, *shape)
    x[..., 5] = torch.nan
    found = []
    for directly in (lowering.made_directly, lambda subgraph, machine: subgraph):
        with mock.patch.object(lowering, "made_directly", directly):
            part, guards = guarded.lowered(subgraph, HERE)
        assert ("quantise" in {step.name for step in part.chain.steps}) == (
            directly is not lowering.made_directly
        )
        found += guarded.call(part, guards, [x])
    assert torch.equal(*found)


class Block(nn.Module):
    """Self-attention of two heads, then a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.keys, self.values = (nn.Linear(16, 16) for _ in range(3))
        self.out, self.norm = nn.Linear(16, 16), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        heads = (
            each(x).unflatten(-1, (2, 8)).transpose(1, 2) for each in (self.queries, self.keys, self.values)
        )
        seen = nn.functional.scaled_dot_product_attention(*heads)
        return self.norm(x + self.out(seen.transpose(1, 2).flatten(2)))


def test_attention_between_layers_in_eight_bits_is_of_bytes() -> None:
    torch.manual_seed(0)
    model, x = Block().eval(), torch.randn(2, 12, 16)
    quantisation = run.calibrate(model, [x], method="min-max")
    graph = capture(model, x)
    kinds = {each.kind: each for each in with_bytes(graph, operations_of(graph), quantisation)}
    assert kinds["attention"].attention is not None
    assert kinds["attention"].attention.in_bytes
    some = replace(quantisation, errors={**quantisation.errors, "linear_2": 1.0})  # the values stay in fp32
    kinds = {each.kind: each for each in with_bytes(graph, operations_of(graph), some)}
    assert kinds["attention"].attention is not None
    assert not kinds["attention"].attention.in_bytes
