"""What this machine can do, and what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.data import data_folder, imagenet
from zeroskip.emit.machine import detect
from zeroskip.errors import DataError
from zeroskip.report import Grid
from zeroskip.run import kernels

DATA_SETS: dict[str, Callable[[], Path]] = {
    **{name: partial(data_folder, name) for name in ("mnist", "cifar10", "forest", "text", "weights")},
    "imagenet": imagenet.find,
}


def examine() -> dict[str, Any]:
    """The machine, the kernels with what keeps them from running, the data sets, the helpers.

    >>> examine()["kernels"]["dense"]
    'ready'
    """
    machine = detect()
    weight = torch.eye(64)  # mostly zeros: what every sparse kernel is for
    image = Layer("example", "conv2d", weight.reshape(64, 64, 1, 1), None, (64, 8, 8), (64, 8, 8))
    layers = [Layer("example", "linear", weight, None, (64,), (64,)), image]
    return {
        "machine": {
            "name": machine.name,
            "arch": machine.arch,
            "cores": machine.cores,
            "vector_bytes": machine.vector_bytes,
            "features": sorted(machine.features),
        },
        "versions": {name: version(name) for name in ("zeroskip", "torch", "numpy", "llvmlite")},
        "kernels": {one.name: _ready(one, layers, machine) for one in kernels.ALL},
        "data_sets": {"digits": "part of scikit-learn"}
        | {name: _found(find) for name, find in DATA_SETS.items()},
        "helpers": {
            "C++ compiler, for torch.compile": shutil.which("g++") or shutil.which("c++") or "absent",
        },
    }


def show(found: dict[str, Any]) -> Grid:
    """The findings as one table.

    >>> len(show(examine()).rows) > 5
    True
    """
    machine = found["machine"]
    rows = [
        ("machine", f"{machine['name']} ({machine['arch']}), {machine['cores']} cores"),
        ("vectors", f"{machine['vector_bytes'] * 8} bits"),
    ]
    for group in ("versions", "kernels", "data_sets", "helpers"):
        rows += [(f"{name} ({group.replace('_', ' ')})", value) for name, value in found[group].items()]
    return Grid("zeroskip doctor", ("what", "found"), tuple(rows), prose=("found",))


def _ready(kernel: Kernel, layers: list[Layer], machine: Machine) -> str:
    refusals = [kernel.accepts(layer, machine, Precision()) for layer in layers]
    return "ready" if None in refusals else "; ".join(filter(None, refusals))


def _found(find: Callable[[], Path]) -> str:
    try:
        return str(find())
    except DataError as fact:
        return str(fact)
