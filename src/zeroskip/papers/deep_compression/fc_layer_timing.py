"""Table 8 of Deep Compression on this machine: the fc layers of AlexNet and VGG-16, dense against sparse."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from zeroskip import run
from zeroskip.papers.common.paper import Findings, Setup
from zeroskip.papers.common.rules import figure
from zeroskip.papers.common.trainings import once
from zeroskip.papers.deep_compression import published
from zeroskip.papers.han2015 import published as kept
from zeroskip.run.comparison import eager

BATCHES = (1, 64)


def time_layers(setup: Setup) -> Findings:
    """What `fc_layer_times` reads; each layer is kept in the folder, and there is nothing to repeat with other seeds.

    Random masks at the published shares; medians of interleaved rounds, one thread. Of zeroskip's kernels the
    fastest runs, which may be a dense one.
    """
    layers, timings = shapes(), {}
    for index, (name, (inputs, outputs, share)) in enumerate(layers.items()):
        setup.progress("fc layers", index, len(layers))
        path = setup.folder / f"fc-{name.replace(' ', '-')}.json"
        timings[name] = once(path, partial(timed, inputs, outputs, share))
    setup.progress("fc layers", len(layers), len(layers))
    return {"table8": timings}


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


def timed(inputs: int, outputs: int, share: float) -> dict[str, object]:
    """Batch size -> [dense, sparse] seconds of one linear layer; "kernel" -> which one ran, by batch size."""
    torch.manual_seed(0)
    pruned = nn.Linear(inputs, outputs).eval()
    with torch.no_grad():
        pruned.weight.masked_fill_(torch.rand(outputs, inputs) >= share, 0.0)
    seconds, kernels = {}, {}
    for batch in BATCHES:
        x = torch.randn(batch, inputs)
        program = run.compile(pruned, x)
        timing = run.compare(program, pruned, x, engines={"torch eager": eager})
        seconds[str(batch)] = [timing.dense_seconds, timing.sparse_seconds]
        kernels[str(batch)] = program.choices[0].kernel
    return {**seconds, "kernel": kernels}
