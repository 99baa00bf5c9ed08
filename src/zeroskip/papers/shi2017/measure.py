"""The 13 layers of Shi and Chu on this machine: im2col and GEMM, PyTorch's best, and skipping, in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroskip.concepts import Progress, silent
from zeroskip.emit import detect
from zeroskip.errors import EngineError
from zeroskip.graph import capture
from zeroskip.models.convolutions import RECTIFIED, RECTIFIED_OTHERWISE, Convolution, im2col
from zeroskip.papers.common import stages
from zeroskip.run.convolution.zero_inputs import gather_kernels
from zeroskip.run.output_difference import share
from zeroskip.run.timing import interleaved, medians, torch_threads

RUNS, ROUNDS, SLOT = 3, 9, 0.01
TOLERANCE = 1e-5  # of the largest output


def measure_network(
    *, out: Path, seeds: int = 1, progress: Progress = silent, weights: object = None
) -> dict[str, Any]:
    """{"layers": {layer: {"im2col": seconds, "dense": ..., "skipping": ...}}, "otherwise": the same}.

    One picture, one thread, random zeros at the listed shares; medians of interleaved rounds. "skipping" includes
    finding the zeros, and never falls back on a dense kernel. There is nothing random enough for seeds, and nothing
    to start from.

    >>> measure_network(out=Path("runs/shi"))["layers"]["Inception5b.5"]
    {'im2col': 0.00027, 'dense': 0.00011, 'skipping': 1.2e-05}
    """
    listed = {"layers": RECTIFIED, "otherwise": RECTIFIED_OTHERWISE}
    total, done = sum(map(len, listed.values())), 0
    found: dict[str, Any] = {}
    for kind, layers in listed.items():
        for name, layer in layers.items():
            progress("layers after rectifiers", done, total)
            path = out / f"{kind}-{name.replace(' ', '-')}.json"
            found.setdefault(kind, {})[name] = stages.once(path, partial(timed, layer))
            done += 1
    progress("layers after rectifiers", done, total)
    return found


def timed(layer: Convolution) -> dict[str, float]:
    """Seconds of one call, by way to compute it; "dense" is the faster of PyTorch's two layouts.

    >>> timed(RECTIFIED["Inception5b.5"])["skipping"]
    1.2e-05
    """
    torch.manual_seed(0)
    model, x = layer.network().eval(), layer.example(1)
    (node,) = [one for one in capture(model, x).nodes if one.layer is not None]
    assert node.layer is not None
    last = x.contiguous(memory_format=torch.channels_last)
    copy: Any = deepcopy(model)
    pixelwise = copy.to(memory_format=torch.channels_last)
    calls: Mapping[str, Callable[[], Tensor]] = {
        "im2col": im2col(model, x),
        "rows": partial(model, x),
        "pixels": partial(pixelwise, last),
        "skipping": partial(gather_kernels.alone(node.layer, detect(), node.relu, last), last),
    }
    with torch_threads(1), torch.inference_mode():
        wrong = [name for name, call in calls.items() if share(call(), model(x)) > TOLERANCE]
        if wrong:
            raise EngineError(f"{wrong[0]} computes {layer} wrongly on this machine. Please report it.")
        runs = [medians(interleaved(calls, rounds=ROUNDS, seconds=SLOT)) for _ in range(RUNS)]
    seconds = medians({name: [one[name] for one in runs] for name in calls})
    return {
        "im2col": seconds["im2col"],
        "dense": min(seconds["rows"], seconds["pixels"]),
        "skipping": seconds["skipping"],
    }
