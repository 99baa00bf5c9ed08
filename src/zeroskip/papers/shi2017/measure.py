"""The 13 layers of Shi and Chu on this machine: im2col and GEMM, PyTorch's best, and skipping, in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor

from zeroskip.emit import detect
from zeroskip.errors import EngineError
from zeroskip.graph import capture
from zeroskip.models.convolutions import RECTIFIED, RECTIFIED_OTHERWISE, Convolution, im2col
from zeroskip.papers.common.paper import Findings, Setup
from zeroskip.papers.common.trainings import once
from zeroskip.run.convolution.zero_inputs import kernels as zero_inputs
from zeroskip.run.output_difference import relative_error
from zeroskip.run.timing import interleaved, medians, torch_threads

RUNS, ROUNDS, SLOT = 3, 9, 0.01
TOLERANCE = 1e-5  # of the largest output


def measure_layers(setup: Setup) -> Findings:
    """What `ShiFindings` holds; each layer is kept in the folder, and there is nothing to repeat with other seeds.

    One picture, one thread, random zeros at the listed shares; medians of interleaved rounds.
    """
    kinds = {"layers": RECTIFIED, "otherwise": RECTIFIED_OTHERWISE}
    listed = [(kind, name, layer) for kind, layers in kinds.items() for name, layer in layers.items()]
    seconds: dict[str, dict[str, dict[str, float]]] = {kind: {} for kind in kinds}
    for done, (kind, name, layer) in enumerate(listed):
        setup.progress("layers after rectifiers", done, len(listed))
        path = setup.folder / f"{kind}-{name.replace(' ', '-')}.json"
        seconds[kind][name] = once(path, partial(timed, layer))
    setup.progress("layers after rectifiers", len(listed), len(listed))
    return seconds


def timed(layer: Convolution) -> dict[str, float]:
    """What `LayerSeconds` holds. The kernel that skips never falls back on a dense one.

    Raises EngineError where a way computes the layer wrongly.
    """
    torch.manual_seed(0)
    model, x = layer.network().eval(), layer.example(1)
    (node,) = [node for node in capture(model, x).nodes if node.layer is not None]
    assert node.layer is not None
    last = x.contiguous(memory_format=torch.channels_last)
    pixelwise = deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    calls: Mapping[str, Callable[[], Tensor]] = {
        "im2col": im2col(model, x),
        "rows": partial(model, x),
        "pixels": partial(pixelwise, last),
        "skipping": partial(zero_inputs.fastest_gather(node.layer, detect(), node.relu, last), last),
    }
    with torch_threads(1), torch.inference_mode():
        wrong = [name for name, call in calls.items() if relative_error(call(), model(x)) > TOLERANCE]
        if wrong:
            raise EngineError(f"{wrong[0]} computes {layer} wrongly on this machine. Please report it.")
        runs = [medians(interleaved(calls, rounds=ROUNDS, seconds=SLOT)) for _ in range(RUNS)]
    seconds = medians({name: [run[name] for run in runs] for name in calls})
    return {
        "im2col": seconds["im2col"],
        "dense": min(seconds["rows"], seconds["pixels"]),
        "skipping": seconds["skipping"],
    }
