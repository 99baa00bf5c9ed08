"""Transformers that read a whole sentence or picture: the encoders of BERT-base and MiniLM, and a small ViT."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-6  # of layer norms
PATCH = 16  # pixels along each side


@dataclass(frozen=True)
class EncoderSizes:
    """How large an encoder is.

    width   features of a token;  heads: of attention, width / heads features each
    hidden  features between the two linear layers behind attention

    >>> MINILM
    EncoderSizes(layers=6, width=384, heads=12, hidden=1536)
    """

    layers: int
    width: int
    heads: int
    hidden: int


BERT_BASE = EncoderSizes(12, 768, 12, 3072)  # Devlin et al. 2019
MINILM = EncoderSizes(6, 384, 12, 1536)  # Wang et al. 2020; all-MiniLM-L6-v2 is one
VIT_TINY = EncoderSizes(12, 192, 3, 768)  # DeiT-Ti of Touvron et al. 2021


class EncoderLayer(nn.Module):
    """Attention and two linear layers, each added to what it read. (batch, tokens, width) -> the same shape.

    norm_first  norms stand before attention and linear layers, as in ViT; else behind the sums, as in BERT

    >>> EncoderLayer(EncoderSizes(1, 8, 2, 16))(torch.zeros(1, 5, 8)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(self, sizes: EncoderSizes, *, norm_first: bool = False) -> None:
        super().__init__()
        width = sizes.width
        self.heads, self.norm_first = sizes.heads, norm_first
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, sizes.hidden), nn.Linear(sizes.hidden, width)
        self.attention_norm, self.norm = (nn.LayerNorm(width, eps=EPSILON) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """The tokens after one layer."""
        if self.norm_first:
            x = x + self._attended(self.attention_norm(x))
            return x + self._transformed(self.norm(x))
        x = self.attention_norm(x + self._attended(x))
        return self.norm(x + self._transformed(x))

    def _attended(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        query, key, value = (
            layer(x).view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )  # each (batch, heads, tokens, width / heads)
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        return self.output(seen.reshape(batch, tokens, width))

    def _transformed(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


def encoder(sizes: EncoderSizes) -> nn.Sequential:
    """The layers of BERT, behind its embeddings: (batch, tokens, width) -> (batch, tokens, width).

    >>> sum(weight.numel() for weight in encoder(MINILM).parameters() if weight.ndim > 1)
    10616832
    """
    return nn.Sequential(*(EncoderLayer(sizes) for _ in range(sizes.layers)))


class VisionTransformer(nn.Module):
    """Patches of 16 x 16 pixels and one token more, which is classified: (batch, 3, side, side) -> (batch, classes).

    >>> VisionTransformer(EncoderSizes(1, 8, 2, 16), side=32)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 1000])
    """

    def __init__(self, sizes: EncoderSizes, *, side: int = 224, classes: int = 1000) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, sizes.width, PATCH, PATCH)
        self.class_token = nn.Parameter(torch.randn(1, 1, sizes.width))
        self.positions = nn.Parameter(torch.randn(1, 1 + (side // PATCH) ** 2, sizes.width))
        self.layers = nn.Sequential(*(EncoderLayer(sizes, norm_first=True) for _ in range(sizes.layers)))
        self.norm = nn.LayerNorm(sizes.width, eps=EPSILON)
        self.head = nn.Linear(sizes.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the softmax."""
        patches = self.patches(x).flatten(2).transpose(1, 2)  # (batch, patches, width)
        tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), patches], dim=1) + self.positions
        return self.head(self.norm(self.layers(tokens)[:, 0]))


def vit_tiny() -> VisionTransformer:
    """197 tokens of 192 features, 12 layers, 3 heads.

    >>> sum(parameter.numel() for parameter in vit_tiny().parameters())
    5717416
    """
    return VisionTransformer(VIT_TINY)
