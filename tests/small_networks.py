"""Small networks of every kind of weighted operation, as others write them, and what they run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Small(NamedTuple):
    """`macs`: weight -> multiply-accumulates of one example, counted by hand."""

    build: Callable[[], nn.Module]
    batch: object
    macs: dict[str, int]
    activation_macs: int = 0


class Lstm(nn.Module):
    """LSTM(8, 32) over 5 steps, and a head on its last state."""

    def __init__(self, kind: Callable[..., nn.RNNBase] = nn.LSTM, *, bidirectional: bool = False) -> None:
        super().__init__()
        self.lstm = kind(8, 32, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(32 << bidirectional, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Attention(nn.Module):
    """Attention of one sequence to itself, or to another."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        other = x if other is None else other
        return self.attention(x, other, other, need_weights=False)[0]


class Transposed(nn.Module):
    """A linear layer whose weight is (in, out), as GPT-2 has them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 9)), nn.Parameter(torch.randn(9))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, 6), self.weight).view(*x.shape[:-1], 9)


class Siamese(nn.Module):
    """One tower for two inputs, and a bilinear form of what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.tower, self.compare = nn.Linear(6, 4), nn.Bilinear(4, 4, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.compare(self.tower(left), self.tower(right))


class Unrolled(nn.Module):
    """A cell called 4 times under 4 names, and an LSTM cell over 3 steps."""

    def __init__(self) -> None:
        super().__init__()
        cell = nn.Linear(8, 8)
        self.cells, self.step = nn.ModuleList([cell] * 4), nn.LSTMCell(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(len(x), 5), torch.zeros(len(x), 5)
        for step in range(3):
            state = self.step(x[:, step], state)
        x = x[:, 0]
        for cell in self.cells:
            x = torch.relu_(cell(x))
        return x.sum(1) + state[0].sum(1)


class Tied(nn.Module):
    """A language model that reads and writes with one table, and an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(11, 4), nn.Linear(4, 11, bias=False)
        self.head.weight, self.position = self.table.weight, nn.Parameter(torch.zeros(1, 3, 4))
        self.spare = nn.Linear(2, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids) + self.position)


class Bare(nn.Module):
    """Parameters of no layer: as `F.linear` takes them, for each of 3 heads, on the left, scaled, and as a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.codes, self.heads = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(3, 6, 5))
        self.mix, self.kernel = nn.Parameter(torch.randn(7, 2)), nn.Parameter(torch.randn(4, 2, 3))
        self.scale = nn.Parameter(torch.randn(6, 1))

    def forward(self, x: Tensor) -> Tensor:  # (n, 2, 4)
        y = F.linear(x, self.scale * self.codes)  # (n, 2, 6)
        y = self.mix @ torch.einsum("nti,hio->nhto", y, self.heads).sum(1)  # (n, 7, 5)
        return y.sum((1, 2)) + F.conv1d(x, self.kernel).sum((1, 2))


NETWORKS: dict[str, Small] = {
    "lstm": Small(Lstm, torch.randn(3, 5, 8), {
        "lstm.weight_ih_l0": 5 * 128 * 8, "lstm.weight_hh_l0": 5 * 128 * 32, "head": 64,
    }),
    "gru-both-ways": Small(lambda: Lstm(nn.GRU, bidirectional=True), torch.randn(3, 5, 8), {
        "lstm.weight_ih_l0": 5 * 96 * 8, "lstm.weight_hh_l0": 5 * 96 * 32,
        "lstm.weight_ih_l0_reverse": 5 * 96 * 8, "lstm.weight_hh_l0_reverse": 5 * 96 * 32, "head": 128,
    }),
    "lstm-projected": Small(lambda: nn.LSTM(3, 5, num_layers=2, proj_size=2, batch_first=True), torch.randn(2, 4, 3), {
        "weight_ih_l0": 4 * 60, "weight_hh_l0": 4 * 40, "weight_hr_l0": 4 * 10,
        "weight_ih_l1": 4 * 40, "weight_hh_l1": 4 * 40, "weight_hr_l1": 4 * 10,
    }),
    "conv1d": Small(
        lambda: nn.Sequential(nn.Conv1d(4, 6, 3, padding="same", groups=2), nn.ReLU(), nn.Conv1d(6, 2, 1, stride=2)),
        torch.randn(2, 4, 9), {"0": 9 * 36, "2": 5 * 12},
    ),
    "generator": Small(
        lambda: nn.Sequential(nn.ConvTranspose2d(8, 4, 4), nn.ReLU(), nn.ConvTranspose2d(4, 1, 4, 2, 1)),
        torch.randn(2, 8, 1, 1), {"0": 8 * 4 * 16, "2": 16 * 4 * 16},
    ),
    "unet3d": Small(
        lambda: nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool3d(2),
            nn.ConvTranspose3d(4, 2, 2, stride=2), nn.Conv3d(2, 1, 1),
        ),
        torch.randn(2, 1, 4, 4, 2), {"0": 32 * 108, "4": 4 * 64, "5": 32 * 2},
    ),
    "attention": Small(Attention, torch.randn(2, 3, 8), {
        "attention.in_proj_weight": 3 * 192, "attention.out_proj": 3 * 64,
    }, activation_macs=2 * 3 * 3 * 8),
    "cross-attention": Small(Attention, (torch.randn(2, 3, 8), torch.randn(2, 5, 8)), {
        "attention.in_proj_weight": 3 * 64 + 5 * 128, "attention.out_proj": 3 * 64,
    }, activation_macs=2 * 3 * 5 * 8),
    "encoder": Small(
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
        torch.randn(2, 3, 8),
        {f"layers.{i}.{name}": 3 * size for i in (0, 1) for name, size in
         {"self_attn.in_proj_weight": 192, "self_attn.out_proj": 64, "linear1": 128, "linear2": 128}.items()},
        activation_macs=2 * 2 * 3 * 3 * 8,
    ),
    "siamese": Small(Siamese, {"left": torch.randn(3, 6), "right": torch.randn(3, 6)}, {"tower": 48, "compare": 32}),
    "transposed-linear": Small(Transposed, torch.randn(2, 3, 6), {"": 3 * 54}),
    "unrolled": Small(Unrolled, torch.randn(2, 3, 8), {
        "cells.0": 4 * 64, "step.weight_ih": 3 * 160, "step.weight_hh": 3 * 100,
    }),
    "tied": Small(Tied, torch.randint(11, (2, 3)), {"table": 3 * 44, "position": 0, "spare": 0}),
    "weight-norm": Small(
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 2, 2)), torch.randn(2, 3, 5), {"": 4 * 12}
    ),
    "bare": Small(Bare, torch.randn(2, 2, 4), {
        "codes": 2 * 24, "heads": 2 * 90, "mix": 5 * 14, "kernel": 2 * 24, "scale": 0,
    }),
}  # fmt: skip
