"""Transformers as people write them, in plain PyTorch: each is one part on tiles, and computes what PyTorch does."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from captured import answers, whole
from maps import HALF_MACHINES
from run.drawn import HERE, MACHINES
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as attend

from zeroskip.concepts import Machine
from zeroskip.graph import Graph, capture
from zeroskip.graph.nodes import kind_of
from zeroskip.run import calibrate, compile
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.convolution.tiles.lowering import lower
from zeroskip.run.convolution.tiles.segment import Segment
from zeroskip.run.convolution.tiles.shape_checks import check
from zeroskip.run.convolution.tiles.tiling import left
from zeroskip.run.element import FP16

WIDE, HEADS, SIZE, TOKENS = 16, 2, 8, 9
LIMIT = 1e-5
# Each vector size has code of its own, and compiling it takes longer than all else.
EACH_MACHINE = pytest.mark.parametrize(
    "machine", [HERE, *(pytest.param(one, marks=pytest.mark.slow) for one in MACHINES[1:])]
)
ANGLES = torch.outer(
    torch.arange(TOKENS), 100.0 ** -torch.linspace(0, 1, SIZE // 2)
)  # (tokens, half of a head)


def ours(model: nn.Module, x: Tensor, machine: Machine = HERE, images: int = 1) -> tuple[Tensor, Graph]:
    """What the network computes on tiles, where nothing of it is left to PyTorch."""
    graph = capture(model.eval(), x)
    operations = operations_of(graph)
    check(operations, graph)
    assert [kind_of(node) for node in left(graph, operations)] == []
    segment = Segment(lower(whole(graph, operations), machine, images=images), 1)
    return segment(x)[0], graph


def assert_same(model: nn.Module, x: Tensor, machine: Machine = HERE, images: int = 1) -> Graph:
    with torch.no_grad():
        expected = model.eval()(x)
    found, graph = ours(model, x, machine, images)
    assert float((found - expected).abs().max()) < LIMIT * max(1.0, float(expected.abs().max()))
    return graph


def kinds(graph: Graph) -> list[str]:
    return [operation.kind for operation in operations_of(graph)]


class Attending(nn.Module):
    """Self-attention whose queries and keys go through a function first."""

    def __init__(self, turned: Callable[[Tensor], Tensor] = lambda x: x, key_heads: int = HEADS) -> None:
        super().__init__()
        self.turned, self.key_heads = turned, key_heads
        self.query, self.rest = nn.Linear(WIDE, WIDE), nn.Linear(WIDE, 2 * key_heads * SIZE)
        self.out = nn.Linear(WIDE, WIDE)

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(x).view(-1, TOKENS, HEADS, SIZE).transpose(1, 2)
        both = self.rest(x).chunk(2, -1)
        k, v = (each.view(-1, TOKENS, self.key_heads, SIZE).transpose(1, 2) for each in both)
        y = attend(self.turned(q), self.turned(k), v, is_causal=True, enable_gqa=self.key_heads < HEADS)
        return x + self.out(y.transpose(1, 2).reshape(-1, TOKENS, WIDE))  # type: ignore[no-any-return]


def halves(x: Tensor) -> Tensor:
    """Rotary embedding as Llama has it (Su 2021): the second half of a head goes with the first."""
    cos, sin = torch.cat([ANGLES, ANGLES], -1).cos(), torch.cat([ANGLES, ANGLES], -1).sin()
    return x * cos + torch.cat([-x[..., SIZE // 2 :], x[..., : SIZE // 2]], -1) * sin


def pairs(x: Tensor) -> Tensor:
    """As GPT-J has it: neighbouring features go together."""
    cos, sin = ANGLES.cos().repeat_interleave(2, -1), ANGLES.sin().repeat_interleave(2, -1)
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
    return x * cos + turned * sin


def subtracted(x: Tensor) -> Tensor:
    """By the formula itself, without a sign that is changed."""
    first, second = x.chunk(2, -1)
    return torch.cat(
        [first * ANGLES.cos() - second * ANGLES.sin(), second * ANGLES.cos() + first * ANGLES.sin()], -1
    )


def partly(x: Tensor) -> Tensor:
    """As GPT-NeoX has it: half of the features are not turned."""
    turned, rest = x[..., : SIZE // 2], x[..., SIZE // 2 :]
    cos, sin = (torch.cat([each[:, :2]] * 2, -1) for each in (ANGLES.cos(), ANGLES.sin()))
    turned = turned * cos + torch.cat([-turned[..., 2:], turned[..., :2]], -1) * sin
    return torch.cat([turned, rest], -1)


def not_the_first(x: Tensor) -> Tensor:
    """As EVA-02 has it: the class token in front is not turned."""
    table = torch.cat([ANGLES, ANGLES], -1)[1:]
    first, x = x[:, :, :1], x[:, :, 1:]
    turned = torch.cat([-x[..., SIZE // 2 :], x[..., : SIZE // 2]], -1)
    return torch.cat([first, x * table.cos() + turned * table.sin()], 2)


@pytest.mark.parametrize("turned", [halves, pairs, partly, not_the_first])
@EACH_MACHINE
def test_rotary_embeddings_are_one_operation(turned: Callable[[Tensor], Tensor], machine: Machine) -> None:
    graph = assert_same(Attending(turned, key_heads=1), torch.randn(3, TOKENS, WIDE), machine)
    assert kinds(graph).count("mix") == 2


def test_rotary_embeddings_of_several_examples_at_a_time() -> None:
    assert_same(Attending(halves), torch.randn(4, TOKENS, WIDE), images=2)


@pytest.mark.slow
def test_rotary_embeddings_without_signs() -> None:
    assert_same(Attending(subtracted), torch.randn(2, TOKENS, WIDE))


@pytest.mark.slow
@pytest.mark.parametrize("machine", HALF_MACHINES, ids=lambda one: str(one.vector_bytes))
def test_in_half_precision(machine: Machine) -> None:
    model, x = Biased(halves).eval(), torch.randn(2, TOKENS, WIDE)
    graph = capture(model, x)
    operations = operations_of(graph)
    code = lower(whole(graph, operations), machine, element=FP16)
    with torch.no_grad():
        expected = model(x)
    assert float((Segment(code, 1)(x)[0] - expected).abs().max()) < 0.01 * float(expected.abs().max())


@pytest.mark.slow
def test_in_eight_bits() -> None:
    """Between layers in bytes, rotary embeddings and norms of heads are fp32, as the reference has them."""
    model, x = Seeing().eval(), torch.randn(4, 3, 12, 12)
    quantisation = calibrate(model, [x])
    program = compile(model, x, precision="int8", quantisation=quantisation)
    with torch.no_grad():
        expected = model(x)
    assert float((program(x) - expected).abs().max()) < 0.1 * float(expected.abs().max())


class Seeing(nn.Module):
    """The beginning of a vision transformer: patches, a class token, positions, one projection for all, a token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDE, 4, 4)
        self.token, self.places = (
            nn.Parameter(torch.randn(1, 1, WIDE)),
            nn.Parameter(torch.randn(1, 10, WIDE)),
        )
        self.norm, self.all, self.out = nn.LayerNorm(WIDE), nn.Linear(WIDE, 3 * WIDE), nn.Linear(WIDE, WIDE)
        self.size = nn.LayerNorm(SIZE)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        q, k, v = self.all(self.norm(x)).reshape(-1, 10, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4).unbind(0)
        y = attend(self.size(q), self.size(k), v)
        x = x + self.out(y.transpose(1, 2).reshape(-1, 10, WIDE))
        return self.norm(x)[:, 0]  # type: ignore[no-any-return]


@EACH_MACHINE
def test_a_vision_transformer(machine: Machine) -> None:
    assert_same(Seeing(), torch.randn(3, 3, 12, 12), machine)


class Biased(nn.Module):
    """Attention written out, with a bias for each distance, as in T5; RMSNorm; a gate."""

    def __init__(self, turned: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.turned = turned
        self.distances = nn.Embedding(2 * TOKENS, HEADS)
        self.weight, self.gate = nn.Parameter(torch.randn(WIDE)), nn.Linear(WIDE, 2 * WIDE)
        self.all, self.out = nn.Linear(WIDE, 3 * WIDE), nn.Linear(WIDE, WIDE)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(TOKENS)
        bias = self.distances(places[:, None] - places + TOKENS).permute(2, 0, 1)
        y = self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
        q, k, v = (each.view(-1, TOKENS, HEADS, SIZE).transpose(1, 2) for each in self.all(y).split(WIDE, -1))
        q, k = self.turned(q), self.turned(k)
        y = torch.matmul((torch.matmul(q, k.transpose(3, 2)) / math.sqrt(SIZE) + bias).softmax(-1), v)
        x = x + self.out(y.transpose(1, 2).reshape(-1, TOKENS, WIDE))
        first, second = self.gate(x).chunk(2, -1)
        return torch.sigmoid(first) * first * second


def test_attention_that_is_written_out_with_a_bias() -> None:
    graph = assert_same(Biased(), torch.randn(2, TOKENS, WIDE))
    assert {"rms_norm", "attention"} <= {*kinds(graph)}


@pytest.mark.parametrize("first", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_encoder_of_torch(first: bool) -> None:
    layer = nn.TransformerEncoderLayer(WIDE, HEADS, 24, batch_first=True, norm_first=first, activation="gelu")
    assert_same(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(2, TOKENS, WIDE))


def test_slices_of_images_that_are_put_side_by_side_are_no_mixture() -> None:
    class Focus(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(16, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            parts = [y[..., row::2, column::2] for row in (0, 1) for column in (0, 1)]
            return self.last(torch.cat(parts, 1))  # type: ignore[no-any-return]

    assert "mix" not in kinds(assert_same(Focus(), torch.randn(2, 3, 8, 8)))


def test_two_maps_whose_pixels_lie_otherwise_are_added() -> None:
    class Windowed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(WIDE, WIDE), nn.Linear(WIDE, WIDE)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            y = x.view(-1, 2, 2, 2, 3, WIDE).transpose(2, 3).reshape(-1, 4, 6, WIDE)
            y = self.second(y).view(-1, 2, 2, 2, 3, WIDE).transpose(2, 3).reshape(-1, 4, 6, WIDE)
            return self.second((x.flatten(1, 2) + y.flatten(1, 2)).roll(3, 1))  # type: ignore[no-any-return]

    assert_same(Windowed(), torch.randn(2, 4, 6, WIDE))


def test_two_tensors_whose_pixels_lie_otherwise_are_added() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.windows = nn.LayerNorm(WIDE), nn.LayerNorm(WIDE)

        def forward(self, x: Tensor) -> Tensor:
            rows = self.rows(x.flatten(1, 2))
            cut = x.view(-1, 2, 2, 2, 3, WIDE).transpose(2, 3).reshape(-1, 4, 6, WIDE)
            cut = self.windows(cut.sort(1).values)
            return rows + cut.view(-1, 2, 2, 2, 3, WIDE).transpose(2, 3).reshape(-1, 24, WIDE)

    x = torch.randn(2, 4, 6, WIDE)
    graph = capture(Both().eval(), x)
    assert "rearrange" in kinds(graph)
    (found, expected), *_ = answers(Both().eval(), x)
    assert float((found - expected).abs().max()) < LIMIT
