"""BERT with the names of its published weights, and the vector of a sentence as sentence-transformers take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-12  # of LayerNorm


@dataclass(frozen=True)
class BertSizes:
    """How large a BERT is; by default all-MiniLM-L6-v2.

    words, positions  rows of the embeddings; a sentence has at most so many tokens as there are positions
    wide              features between the two linear layers that follow attention

    >>> BertSizes().width // BertSizes().heads  # features of a head
    32
    """

    words: int = 30522
    positions: int = 512
    layers: int = 6
    width: int = 384
    heads: int = 12
    wide: int = 1536


MINILM = BertSizes()


class SentenceEncoder(nn.Module):
    """Token ids and their mask, (batch, tokens) int64 each -> (batch, width): vectors of length 1.

    A vector is the mean of BERT's last layer over the tokens whose mask is 1. Two sentences are as similar as the dot
    product of their vectors. Every sentence has a token at least. Names are those of Hugging Face's `BertModel`.

    >>> network = SentenceEncoder(BertSizes(words=9, positions=4, layers=1, width=8, heads=2, wide=16))
    >>> ids = torch.tensor([[2, 5, 3]])
    >>> round(network(ids, torch.ones_like(ids)).square().sum().item(), 3)
    1.0
    """

    def __init__(self, sizes: BertSizes = MINILM) -> None:
        super().__init__()
        self.embeddings = _Embeddings(sizes)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer(sizes) for _ in range(sizes.layers))})

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The vectors of the sentences."""
        h = self.embeddings(input_ids)  # (batch, tokens, width)
        seen = attention_mask.bool()[:, None, None]  # (batch, 1, 1, tokens): for all heads and queries
        for layer in cast("nn.ModuleList", self.encoder["layer"]):
            h = layer(h, seen)
        kept = attention_mask[..., None].to(h.dtype)  # (batch, tokens, 1)
        return F.normalize((h * kept).sum(1) / kept.sum(1), dim=1)


class _Embeddings(nn.Module):
    def __init__(self, sizes: BertSizes) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(sizes.words, sizes.width)
        self.position_embeddings = nn.Embedding(sizes.positions, sizes.width)
        self.token_type_embeddings = nn.Embedding(2, sizes.width)
        self.LayerNorm = nn.LayerNorm(sizes.width, EPSILON)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        h = self.word_embeddings(ids) + self.position_embeddings(places)
        return self.LayerNorm(h + self.token_type_embeddings.weight[0])  # one sentence: all are of type 0


class _Layer(nn.Module):
    def __init__(self, sizes: BertSizes) -> None:
        super().__init__()
        own, added = _SelfAttention(sizes), _Added(sizes.width, sizes.width)
        self.attention = nn.ModuleDict({"self": own, "output": added})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(sizes.width, sizes.wide)})
        self.output = _Added(sizes.wide, sizes.width)

    def forward(self, h: Tensor, seen: Tensor) -> Tensor:
        h = self.attention["output"](self.attention["self"](h, seen), h)
        return self.output(F.gelu(self.intermediate["dense"](h)), h)


class _SelfAttention(nn.Module):
    def __init__(self, sizes: BertSizes) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(sizes.width, sizes.width) for _ in range(3))
        self.heads = sizes.heads

    def forward(self, h: Tensor, seen: Tensor) -> Tensor:
        every = (linear(h) for linear in (self.query, self.key, self.value))
        q, k, v = (
            x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in every
        )  # (batch, heads, tokens, size)
        return F.scaled_dot_product_attention(q, k, v, seen).transpose(1, 2).flatten(2)


class _Added(nn.Module):
    """A linear layer whose result is added to what went past it."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(into, out), nn.LayerNorm(out, EPSILON)

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + past)
