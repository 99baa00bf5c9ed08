"""What networks write out in many operations is captured as the few that it is, and computes the same."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zeroskip.graph import Graph, capture, graph_json
from zeroskip.graph.nodes import kind_of

SDPA = "scaled_dot_product_attention"


def slow(given: object) -> object:
    """One of several that are much alike, left to the long sweeps."""
    return pytest.param(given, marks=pytest.mark.slow)


class Of(nn.Module):
    """A function of tensors as a network."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *given: Tensor) -> Tensor:
        return self.function(*given)


def captured(model: nn.Module, *given: Tensor) -> Graph:
    """The graph, which has to compute what the network does, for other numbers of examples and from a file too."""
    model.eval()
    graph = capture(model, given)
    again = graph_json.from_json(*graph_json.to_json(graph))
    for count in (1, 3):
        several = [tensor.repeat(2, *[1] * (tensor.ndim - 1))[:count] for tensor in given]
        with torch.no_grad():
            expected = model(*several)
        for each in (graph, again):
            torch.testing.assert_close(answer(each, several), expected, atol=2e-6, rtol=1e-5)
    return graph


def answer(graph: Graph, given: list[Tensor]) -> Tensor:
    values = dict(zip(graph.names, given, strict=True))
    with torch.no_grad():
        for node in graph.nodes:
            values[node.name] = node.function(*[values[name] for name in node.inputs])
    result = graph.rebuild([values[name] for name in graph.outputs])
    assert isinstance(result, Tensor)
    return result


def kinds(graph: Graph) -> list[str]:
    return [kind_of(node) for node in graph.nodes]


def drawn(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, *shape, generator=generator) for shape in shapes]


BIAS = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(1))
EARLIER = torch.ones(5, 5, dtype=torch.bool).tril()
LEAST = torch.finfo(torch.float32).min


def scaled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2) / math.sqrt(4)).softmax(-1) @ v


def before(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.matmul(torch.softmax(torch.matmul(q * 0.5, k.permute(0, 1, 3, 2)) + BIAS, dim=3), v)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT).masked_fill(~EARLIER, -math.inf).softmax(-1) @ v


def chosen(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.where(EARLIER, q @ k.mT, LEAST).softmax(-1) @ v


@pytest.mark.parametrize("function", [slow(scaled), before, causal, slow(chosen)])
def test_products_around_a_softmax_are_attention(function: Callable[..., Tensor]) -> None:
    graph = captured(Of(function), *drawn((2, 5, 4), (2, 5, 4), (2, 5, 3)))
    assert kinds(graph)[-1] == SDPA
    assert not {"softmax", "matmul"} & {*kinds(graph)}
    assert graph.nodes[-1].arguments["is_causal"] == (function in (causal, chosen))


def test_sums_of_products_are_attention() -> None:
    def summed(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (torch.einsum("bqhd, bkhd -> bhqk", q, k) * 0.5).softmax(-1)
        return torch.einsum("bhqk,bkhd->bqhd", weights, v)

    graph = captured(Of(summed), *drawn((5, 2, 4), (6, 2, 4), (6, 2, 3)))
    assert {*kinds(graph)} == {"permute", "transpose", SDPA}
    captured(Of(lambda q, k: torch.einsum("bqd,ckd->bqk", q, k)), *drawn((5, 4), (6, 4)))


def test_masks_that_change_are_added_once_for_all_layers() -> None:
    def two_layers(q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
        for _ in range(2):
            q = ((q @ k.mT + BIAS) + (1 - mask[:, None, None]) * LEAST).softmax(-1) @ k
        return q

    given = [*drawn((2, 5, 4), (2, 5, 4)), torch.tensor([[1.0, 1, 1, 1, 0], [1, 1, 1, 0, 0]])]
    graph = captured(Of(two_layers), *given)
    assert kinds(graph).count(SDPA) == 2
    assert kinds(graph).count("add") == 1


def test_scores_that_others_read_stay_as_they_are() -> None:
    def both(q: Tensor, k: Tensor) -> Tensor:
        weights = (q @ k.mT).softmax(-1)
        return torch.cat([weights @ k, weights], -1)

    assert SDPA not in kinds(captured(Of(both), *drawn((2, 5, 4), (2, 5, 4))))


def repeated(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    several = [x[:, :, None].expand(-1, 2, 3, 5, 4).reshape(-1, 6, 5, 4) for x in (k, v)]
    return functional.scaled_dot_product_attention(q, *several)


def interleaved(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    several = [x.repeat_interleave(3, dim=1) for x in (k, v)]
    return functional.scaled_dot_product_attention(q, *several)


@pytest.mark.parametrize("function", [repeated, slow(interleaved)])
def test_keys_that_heads_share_are_read_once(function: Callable[..., Tensor]) -> None:
    graph = captured(Of(function), *drawn((6, 5, 4), (2, 5, 4), (2, 5, 4)))
    assert kinds(graph) == [SDPA]
    assert graph.nodes[0].arguments["enable_gqa"]


def test_heads_in_another_order_are_not_those_that_are_shared() -> None:
    def tiled(q: Tensor, k: Tensor) -> Tensor:
        keys = k[:, None].expand(-1, 3, 2, 5, 4).reshape(-1, 6, 5, 4)
        return functional.scaled_dot_product_attention(q, keys, keys)

    graph = captured(Of(tiled), *drawn((6, 5, 4), (2, 5, 4)))
    assert not graph.nodes[-1].arguments["enable_gqa"]


def test_a_mask_that_is_the_same_for_all_examples_is_a_constant() -> None:
    def masked(q: Tensor, k: Tensor) -> Tensor:
        numbers = torch.arange(5).expand(q.shape[0], 5)
        mask = numbers[:, None, None, :] <= numbers[:, None, :, None]
        return functional.scaled_dot_product_attention(q, k, k, attn_mask=mask)

    graph = captured(Of(masked), *drawn((2, 5, 4), (2, 5, 4)))
    assert kinds(graph) == [SDPA]
    assert graph.nodes[0].arguments["is_causal"]


def test_multi_head_attention_computes_with_the_examples_first() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]

    graph = captured(Attending(), *drawn((5, 8)))
    assert [node.shape for node in graph.nodes if node.layer is not None] == [(5, 24), (5, 8)]
    assert all(node.shape is not None for node in graph.nodes)


@pytest.mark.parametrize("batch_first", [slow(True), False])
def test_an_encoder_computes_with_the_examples_first(batch_first: bool) -> None:
    class Encoding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first, norm_first=True)
            self.inner = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) if batch_first else self.inner(x.transpose(0, 1)).transpose(0, 1)

    graph = captured(Encoding(), *drawn((5, 8)))
    assert all(
        node.shape is not None for node in graph.nodes if node.layer is not None or kind_of(node) == SDPA
    )


def test_layers_on_all_tokens_of_all_examples_keep_the_examples_apart() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(8, 12)), nn.Parameter(torch.randn(12))

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.bias, x.view(-1, 8), self.weight).gelu_().view(*x.shape[:-1], 12)

    class Plain(Flat):
        def forward(self, x: Tensor) -> Tensor:
            flat = functional.gelu(torch.addmm(self.bias, x.view(-1, 8), self.weight))
            return flat.view(*x.shape[:-1], 12)

    graph = captured(Plain(), *drawn((5, 8)))
    assert next(node for node in graph.nodes if node.layer is not None).shape == (5, 12)
    captured(Of(lambda x: functional.softmax(x.reshape(-1, 8), 0).view_as(x)), torch.randn(1, 5, 8)[:1])


def by_hand(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def squared(x: Tensor) -> Tensor:
    return torch.linspace(1, 2, 8) * (x * torch.rsqrt((x * x).mean(dim=-1, keepdim=True) + 1e-5))


@pytest.mark.parametrize("function", [slow(by_hand), squared])
def test_a_root_of_the_mean_of_squares_is_a_norm(function: Callable[..., Tensor]) -> None:
    assert kinds(captured(Of(function), *drawn((5, 8)))) == ["rms_norm"]


def test_a_mean_of_other_squares_is_none() -> None:
    graph = captured(
        Of(lambda x: x * torch.rsqrt((x + 1).pow(2).mean(-1, keepdim=True) + 1e-6)), *drawn((5, 8))
    )
    assert "rms_norm" not in kinds(graph)


FUNCTIONS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "GPT-2": (
        "gelu",
        lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3)))),
    ),
    "fast": ("gelu", lambda x: 0.5 * x * (1 + torch.tanh(x * 0.7978845608 * (1 + 0.044715 * x * x)))),
    "erf": ("gelu", lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))),
    "swish": ("silu", lambda x: x * torch.sigmoid(x)),
    "divided": ("silu", lambda x: x / (1 + torch.exp(-x))),
    "mish": ("mish", lambda x: x * torch.tanh(functional.softplus(x))),
    "hardswish": ("hardswish", lambda x: x * functional.relu6(x + 3) / 6),
}


@pytest.mark.parametrize("name", [*map(slow, FUNCTIONS), "GPT-2", "swish"])
def test_functions_that_are_written_out_have_their_names(name: str) -> None:
    kind, function = FUNCTIONS[name]
    assert kinds(captured(Of(function), *drawn((5, 8)))) == [kind]


def test_functions_that_are_nearly_known_stay_what_they_are() -> None:
    for function in (
        lambda x: x * torch.sigmoid(1.702 * x),
        lambda x: 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.0447 * x.pow(3)))),
        lambda x: x.clamp(max=500) * torch.sigmoid(x),
    ):
        assert not {"gelu", "silu"} & {*kinds(captured(Of(function), *drawn((5, 8))))}


def test_parts_that_others_read_are_still_computed() -> None:
    def both(x: Tensor) -> Tensor:
        gate = torch.sigmoid(x)
        return x * gate + gate

    assert kinds(captured(Of(both), *drawn((5, 8)))) == ["sigmoid", "silu", "add"]


class Windows(nn.Module):
    """Attention within windows of a picture, as in Swin: the windows lie along the first axis with the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.all, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.bias, self.mask = nn.Parameter(torch.randn(1, 2, 4, 4)), torch.randn(4, 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = x.view(-1, 2, 2, 2, 2, 8).transpose(2, 3).reshape(-1, 4, 8)
        q, k, v = self.all(y).reshape(-1, 4, 3, 2, 4).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * 0.5 + self.bias
        scores = (scores.view(-1, 4, 2, 4, 4) + self.mask[:, None]).view(-1, 2, 4, 4)
        y = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, 8))
        return x + y.view(-1, 2, 2, 2, 2, 8).transpose(2, 3).reshape(-1, 4, 4, 8)


class Attended(Windows):
    """The same by torch's own attention, which keeps its four axes."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.view(-1, 2, 2, 2, 2, 8).transpose(2, 3).reshape(-1, 4, 8)
        q, k, v = self.all(y).reshape(-1, 4, 3, 2, 4).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
        y = self.out(y.transpose(1, 2).reshape(-1, 4, 8))
        return x + y.view(-1, 2, 2, 2, 2, 8).transpose(2, 3).reshape(-1, 4, 4, 8)


@pytest.mark.parametrize("network", [Windows, slow(Attended)])
def test_windows_of_a_picture_compute_with_the_examples_first(network: type[nn.Module]) -> None:
    graph = captured(network(), *drawn((4, 4, 8)))
    assert kinds(graph).count(SDPA) == 1
    assert all(node.shape is not None for node in graph.nodes if node.layer is not None)


def test_values_are_handed_as_they_were_to_what_is_not_known() -> None:
    class Sorting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x.transpose(0, 1).unsqueeze(1))  # (5, 1, examples, 8)
            return y.sort(0).values.squeeze(1).transpose(0, 1) + y[:, 0].transpose(0, 1)

    captured(Sorting(), *drawn((5, 8)))
