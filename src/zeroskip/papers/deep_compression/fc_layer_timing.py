"""Table 8 of Deep Compression on this machine: the fc layers of AlexNet and VGG-16, dense against sparse."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zeroskip import run
from zeroskip.concepts import Progress, silent
from zeroskip.papers.common import stages
from zeroskip.papers.common.row import figure
from zeroskip.papers.deep_compression import published
from zeroskip.papers.han2015 import published as kept
from zeroskip.run.comparison import eager

BATCHES = (1, 64)


def measure_network(
    *, out: Path, seeds: int = 1, progress: Progress = silent, weights: object = None
) -> dict[str, Any]:
    """{"table8": {layer: {batch: [seconds of PyTorch on the dense layer, seconds of zeroskip's program],
    "kernel": {batch: zeroskip's}}}}.

    Random masks at the published shares; medians of interleaved rounds, one thread. Of zeroskip's kernels the
    fastest runs, which may be a dense one. There is nothing random enough for seeds, and nothing to start from.

    >>> measure_network(out=Path("runs/fc"))["table8"]["AlexNet fc6"]["1"]
    [0.0021, 0.0009]
    """
    layers = shapes()
    found = {}
    for index, (name, (inputs, outputs, share)) in enumerate(layers.items()):
        progress("fc layers", index, len(layers))
        path = out / f"fc-{name.replace(' ', '-')}.json"
        found[name] = stages.once(path, partial(timed, inputs, outputs, share))
    progress("fc layers", len(layers), len(layers))
    return {"table8": found}


def shapes() -> dict[str, tuple[int, int, float]]:
    """Layer of table 8 -> inputs, outputs, share of the weights kept in Han et al. 2015.

    >>> shapes()["AlexNet fc6"]
    (9216, 4096, 0.09)
    """
    sizes = ((9216, 4096), (4096, 4096), (4096, 1000), (25088, 4096), (4096, 4096), (4096, 1000))
    shares = [
        figure(layer.kept).value / 100
        for network in ("alexnet", "vgg16")
        for layer in kept.LAYERS[network][-3:]
    ]
    named = zip(published.TABLE8_LAYERS, sizes, shares, strict=True)
    return {name: (*size, share) for name, size, share in named}


def timed(inputs: int, outputs: int, share: float) -> dict[str, Any]:
    """Batch size -> [dense, sparse] seconds of one linear layer; "kernel" -> which one ran, by batch size.

    >>> timed(4096, 1000, 0.25)["1"]
    [0.0004, 0.0003]
    """
    torch.manual_seed(0)
    pruned = nn.Linear(inputs, outputs).eval()
    with torch.no_grad():
        pruned.weight.masked_fill_(torch.rand(outputs, inputs) >= share, 0.0)
    found: dict[str, list[float]] = {}
    kernels: dict[str, str] = {}
    for batch in BATCHES:
        x = torch.randn(batch, inputs)
        program = run.compile(pruned, x)
        timing = run.compare(program, pruned, x, engines={"torch eager": eager})
        found[str(batch)] = [timing.dense_seconds, timing.sparse_seconds]
        kernels[str(batch)] = program.choices[0].kernel
    return {**found, "kernel": kernels}
