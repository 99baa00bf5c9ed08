"""What all tests share: a computer with fewer features on request, and the names that docstring examples may use.

`make test MACHINE=avx2` takes features away from what this computer has: a test that fails there depends on it.
Examples in docstrings run as doctests. The names below are made anew for each example that mentions them, and files
are written into an empty folder; an example that needs more than these builds it in its own lines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import pytest
import torch
from torch import Tensor, nn

from zeroskip.emit import machine as this_machine

# Beginnings of the names of CPU features that are taken away.
WITHOUT = {
    "avx2": ("avx512", "avx10", "avxvnni", "amx"),
    "sse": ("avx", "amx", "fma", "f16c", "vaes", "vpcl"),
}
LONG_NAME = "A computer whose name is as long as that of any other (R) Processor (TM) @ 2.00GHz"


def take_features_away(name: str) -> None:
    """Let the computer that zeroskip finds have neither the features in WITHOUT[name] nor its own name."""
    if name not in WITHOUT:
        raise pytest.UsageError(f"MACHINE={name} is unknown. Use one of {', '.join(WITHOUT)}.")
    features = llvm.get_host_cpu_features()
    kept = {name_: has and not name_.startswith(WITHOUT[name]) for name_, has in features.items()}
    llvm.get_host_cpu_features = lambda: kept
    this_machine._name = lambda: LONG_NAME


if os.environ.get("MACHINE"):
    take_features_away(os.environ["MACHINE"])

torch.set_num_threads(1)  # tests run in parallel processes; more threads only get in each other's way


def model() -> nn.Module:
    """An MLP 6 -> 8 -> 4 whose layers are called fc1 and fc2; three quarters of fc1's weights are zero."""
    from collections import OrderedDict

    torch.manual_seed(0)
    made = nn.Sequential(OrderedDict(fc1=nn.Linear(6, 8), relu=nn.ReLU(), fc2=nn.Linear(8, 4))).eval()
    with torch.no_grad():
        made.fc1.weight.view(-1)[torch.arange(48) % 4 > 0] = 0
    return made


def x() -> Tensor:
    """Inputs of `model`: (3, 6)."""
    return torch.linspace(-1, 1, 18).reshape(3, 6)


def machine() -> Any:
    """A computer with 512-bit vectors, whatever the tests run on."""
    from zeroskip.concepts import Machine

    return Machine("an example", "x86_64", frozenset({"avx2", "fma", "f16c", "avx512f"}), 2, 64)


def recorded() -> Any:
    """What `measure.trace` records of `model` on `x`."""
    from zeroskip import measure

    return measure.trace(model(), x())


def chips() -> Any:
    """The module of published accelerators."""
    from zeroskip.simulate import chips as published

    return published


NAMES: dict[str, Callable[[], Any]] = {make.__name__: make for make in (model, x, machine, recorded, chips)}


@pytest.fixture(autouse=True)
def names_of_examples(
    request: pytest.FixtureRequest,
    doctest_namespace: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """What an example mentions is made for it, and it runs in a folder of its own."""
    if not isinstance(request.node, pytest.DoctestItem) or request.node.dtest is None:
        return
    source = "\n".join(one.source for one in request.node.dtest.examples)
    doctest_namespace.clear()
    doctest_namespace.update(torch=torch, nn=nn, Path=Path)
    doctest_namespace.update(
        (name, make()) for name, make in NAMES.items() if re.search(rf"\b{name}\b", source)
    )
    monkeypatch.chdir(tmp_path_factory.mktemp("example"))
    monkeypatch.setenv("ZEROSKIP_CACHE", "")
