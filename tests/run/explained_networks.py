"""Networks whose explanation is counted by hand: pruned, captured, with kernels and seconds that are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from zeroskip.concepts import Choice, Explanation, Kernel, Machine, Precision, weight_sparsity
from zeroskip.graph import capture
from zeroskip.graph.nodes import kind_of
from zeroskip.run.captured import all_layers, layer_nodes
from zeroskip.run.convolution.tiles.graph_operations import operations_of
from zeroskip.run.explaining import Facts, explain
from zeroskip.run.kernels import ALL, BY_NAME
from zeroskip.run.part_timing import Part
from zeroskip.run.possible_gains import possible_gains
from zeroskip.run.unreached import unreached, weight_zeros

COMPUTER = Machine("a computer", "x86_64", frozenset({"avx2", "fma"}), 2, 32)
SECONDS = {"dense": 4.0, "spmm": 1.0, "streamed": 1.0, "gaps_fp32": 2.0}


class SqueezeAndExcite(nn.Module):
    """A block of EfficientNet with functions that tiles lack: 8 -> 16 -> 8 channels; 128, 144, 64, 64, 128 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.depth = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.narrow = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depth(self.wide(x).sin()).sin()
        share = self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).sin())
        return self.narrow(torch.hypot(y, share.erf()))


class Words(nn.Module):
    """A classifier of words: 40 weights of a table, 128 + 256 of an LSTM, 16 of a head."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.lstm = nn.Embedding(10, 4), nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.table(x))[0][:, -1])


class Heads(nn.Module):
    """The same with 64 weights that meet the words in two heads, in place of the LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.heads = nn.Embedding(10, 4), nn.Parameter(torch.randn(2, 4, 8))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.matmul(self.table(x).mean(1)[None], self.heads).sum(0))


def half_zero(model: nn.Module) -> nn.Module:
    """The network with every second weight zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.view(-1)[1::2] = 0
                parameter.view(-1)[0::2] = 1
    return model.eval()


def choice_of(kernel: str, sparsity: float, layer: str, op: str, timed: Mapping[str, float]) -> Choice:
    """The choice of this kernel, among those that were timed."""
    return Choice(layer, op, (1, 1), sparsity, kernel, dict(timed), {}, "", skips=BY_NAME[kernel].skips)


def facts_of(
    model: nn.Module, x: Tensor, chosen: Mapping[str, str], *, seconds: Callable[[str], float] = lambda _: 1.0
) -> Facts:
    """What is known of a program that computes layers by `chosen` (name -> kernel), by dense ones else.

    "streamed" and "depthwise" are on tiles, where each layer is a part of its own. An operation takes
    `seconds(its name)`. Layers that a sparse kernel may compute were timed by it.
    """
    graph = capture(model, x)
    operations = operations_of(graph) if {"streamed", "depthwise"} & {*chosen.values()} else []
    on_tiles = {name for each in operations if each.kind == "conv" for name in each.names}
    choices, parts = [], []
    nodes = {node.name: layer for node, layer in layer_nodes(graph)}
    matrices = {key: layer for key, layer in all_layers(graph) if key not in nodes}
    for node in graph.nodes:
        if node.recurrent is not None:
            mine = {key: layer for key, layer in matrices.items() if key.startswith(f"{node.name}.")}
            for layer in mine.values():
                kernel = chosen.get(layer.name, "dense")
                timed = {"dense": 4.0, "spmv_fp32": 1.0}
                choices.append(choice_of(kernel, weight_sparsity(layer.weight), layer.name, "lstm", timed))
            took = {key: timed[chosen.get(layer.name, "dense")] for key, layer in mine.items()}
            parts.append(Part(node.name, "layers", sum(took.values()), took))
            continue
        if node.name not in nodes:
            if node.op != "getitem" and kind_of(node) != "mean":
                parts.append(Part(node.name, kind_of(node), seconds(kind_of(node))))
            continue
        layer = nodes[node.name]
        sparse = "spmm" if layer.op == "linear" else "streamed" if node.name in on_tiles else "dense"
        kernel = chosen.get(layer.name, "dense")
        timed = {name: SECONDS.get(name, 3.0) for name in dict.fromkeys(["dense", sparse, kernel])}
        choices.append(choice_of(kernel, weight_sparsity(layer.weight), layer.name, layer.op, timed))
        kind = "tiles" if BY_NAME[kernel].layout == "tiles" else "layers"
        parts.append(Part(node.name, kind, timed[kernel], {node.name: timed[kernel]}))
    return Facts(
        graph, operations, weight_zeros(model), unreached(model, graph), choices, parts, ALL, COMPUTER, Precision()
    )  # fmt: skip


def explained(facts: Facts, lost: bool = False) -> Explanation:
    """The explanation of these facts."""
    return explain(facts, possible_gains(facts, lost), (2, 99.0) if lost else (0, 0.0))


def on(machine: Machine, facts: Facts, kernels: tuple[Kernel, ...] = ALL) -> Facts:
    """The same on another machine, or with other kernels."""
    return replace(facts, machine=machine, kernels=kernels)
