"""What all tests share: a computer with fewer features on request, and the names that docstring examples may use.

`make test MACHINE=avx2` takes features away from what this computer has: a test that fails there depends on it.
Examples in docstrings run as doctests. The names below are made anew for each example that mentions them, and files
are written into an empty folder; an example that needs more than these builds it in its own lines.
"""

from __future__ import annotations

import gc
import os
import platform
import re
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import pytest
import torch
from torch import Tensor, nn

from zeroskip.emit import machine as this_machine

collect_ignore_glob = ["tests/*conftest.py"]  # several have that name, and none has examples

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
    gone = WITHOUT[name]
    kept = type(features)((flag, has and not flag.startswith(gone)) for flag, has in features.items())
    llvm.get_host_cpu_features = lambda: kept
    this_machine._name = lambda: LONG_NAME


if os.environ.get("MACHINE"):
    take_features_away(os.environ["MACHINE"])

# Tests run in parallel processes, and some start others: more threads only get in each other's way.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected lives to the end: looking through it for garbage takes seconds in vain."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def dense() -> nn.Module:
    """An MLP 6 -> 8 -> 4 whose layers are called fc1 and fc2, as it starts."""
    from collections import OrderedDict

    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(fc1=nn.Linear(6, 8), relu=nn.ReLU(), fc2=nn.Linear(8, 4))).eval()


def model() -> nn.Module:
    """`dense` with three quarters of fc1's weights zero."""
    made: Any = dense()
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


def recurrent() -> Any:
    """An LSTM of 5 inputs and 4 units as an operation of a network."""
    from zeroskip.graph.capture import capture

    torch.manual_seed(0)
    network = nn.Sequential()
    network.add_module("lstm", nn.LSTM(5, 4))
    return capture(network, torch.zeros(1, 3, 5)).nodes[0].recurrent


def cell() -> Any:
    """The only cell of `recurrent`."""
    return recurrent().cells[0]


def graph() -> Any:
    """The operations of `model`, captured: the inputs "input", the layers "linear" and "linear_1"."""
    from zeroskip.graph import capture

    return capture(model(), x())


def run() -> Any:
    """The module that compiles, saves and loads programs."""
    from zeroskip import run as module

    return module


def recorded() -> Any:
    """What `measure.trace` records of `model` on `x`."""
    from zeroskip import measure

    return measure.trace(model(), x())


def chips() -> Any:
    """The module of published accelerators."""
    from zeroskip.simulate import chips as published

    return published


def of_masks() -> Any:
    """The function that makes a layer of the simulator: of_masks(name, weight mask, input mask)."""
    from zeroskip.simulate import of_masks as function

    return function


def record() -> Any:
    """What a run leaves behind that pruned `model`: 44 of its 80 weights are left, one input a call is faster."""
    from zeroskip import concepts as nouns

    network, histogram = model(), nouns.Histogram((-1.0, 1.0), (1,))
    weights = {name: network.get_submodule(name).weight.detach() for name in ("fc1", "fc2")}
    profiles = tuple(
        nouns.LayerProfile(
            name, "linear", tuple(weight.shape), weight.shape[1:], weight.shape[:1], weight.numel(), weight.numel(),
            4 * weight.numel(), 0.0, 0.3, histogram, 0.0, 0.5, (), (), {0.5: 0.05, 0.9: 0.3},
        )
        for name, weight in weights.items()
    )  # fmt: skip
    seconds = {"sell": 1e-6, "dense": 2e-6}
    choices = (
        nouns.Choice("fc1", "linear", (8, 6), 0.75, "sell", seconds, {"spmm": "no batch"}, "fastest", 0.0, "weights"),
        nouns.Choice("fc2", "linear", (4, 8), 0.0, "dense", {"dense": 1e-6}, {}, "fastest", 0.0, "nothing"),
    )  # fmt: skip
    layers = (
        nouns.LayerSummary("fc1", 48, 12, 0.75, 0.0, "sell", "fastest", macs=48),
        nouns.LayerSummary(
            "fc2", 32, 32, 0.0, 0.5, "dense", "fastest", macs=32, dense="nothing of it was pruned"
        ),
    )
    timings = tuple(
        nouns.Timing(
            {"torch eager": dense, "zeroskip": ours},
            {"torch eager": (0.95 * dense, 1.1 * dense), "zeroskip": (0.9 * ours, 1.1 * ours)},
            {"torch eager": 0.0, "zeroskip": 1e-7}, {}, batch, 1, "fp32", machine().title, 3, 9,
        )
        for batch, dense, ours in ((1, 20e-6, 10e-6), (3, 21e-6, 21e-6))
    )  # fmt: skip
    history = (
        nouns.Point("dense", 80, 80, 0.05, True),
        nouns.Point("round", 44, 80, 0.06, True),
        nouns.Point("round", 30, 80, 0.2, False),
    )
    summary = nouns.Summary(
        task="demo", seeds=1, seed=0, pattern="free", max_error_rise=0.01, sparsity=None, bits=None,
        error_dense=0.02, error_sparse=0.03, error_unpacked=0.03, error_run=0.03,
        weights=80, weights_kept=44, weights_times_fewer=80 / 44,
        stored_bytes_dense=368, stored_bytes=316, stored_times_smaller=368 / 316,
        dense_seconds=20e-6, sparse_seconds=10e-6, dense_engine="torch eager", batch=1, threads=1,
        precision="fp32", machine=machine().title, selected_on="validation", splits={"validation": 100, "test": 100},
        verdict="Ship model.zs and run it with zeroskip.", timings=timings, layers=layers, macs=80, macs_kept=44,
    )  # fmt: skip
    ledger = {
        "fc1.weight": {"values": 48, "positions": 12, "header": 40},
        "fc2.weight": {"values": 176, "header": 40},
    }
    profile = nouns.Profile(profiles, 0.05)
    return nouns.Record("runs/demo", summary, profile, history, choices, timings, ledger, weights, weights)


def explanation() -> Any:
    """Why a program is not faster whose LSTM runs in PyTorch: 5 ms, 3 of them between its two layers."""
    from zeroskip import concepts as nouns

    between = (nouns.Between("lstm", 1, 2.5e-3), nouns.Between("silu", 4, 0.5e-3))
    advice = (
        nouns.Gain("a sparse kernel for lstm", 2.2e-3, "its time x its share of zeros"),
        nouns.Gain("silu in compiled code", 0.5e-3, "its own time"),
    )
    unskipped = (nouns.Unskipped("lstm: no sparse kernel", 0.25),)
    return nouns.Explanation(4000, 0.75, 0.75, unskipped, 2, between, 2e-3, 1.5e-3, advice=advice)


def any_machine() -> Any:
    """A computer with 128-bit vectors and no features, as which every computer can pass: its code runs here."""
    from zeroskip.concepts import Machine

    return Machine("any computer", platform.machine().lower(), frozenset(), 2, 16)


def layer() -> Any:
    """`model`'s fc1 as a layer: 8 outputs, 6 inputs, three quarters of its weights are zero."""
    from zeroskip.concepts import Layer

    fc1 = model().get_submodule("fc1")
    return Layer("fc1", "linear", fc1.weight.detach(), fc1.bias.detach(), (6,), (8,))


def conv() -> Any:
    """A convolution without zero weights: 3x3, 2 channels of 8x8 pixels, padded, 4 channels out."""
    from zeroskip.concepts import Layer

    weight = torch.arange(1.0, 73.0).reshape(4, 2, 3, 3)
    return Layer("conv1", "conv2d", weight, None, (2, 8, 8), (4, 8, 8), padding=(1, 1))


class LargestOfFour:
    """Which of the first four of six numbers is the largest; trains `dense` in milliseconds, with all keywords."""

    name, learning_rate = "largest-of-four", 0.05

    def __init__(self) -> None:
        inputs = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
        pairs = zip(
            inputs.split([200, 100, 100]), inputs[:, :4].argmax(1).split([200, 100, 100]), strict=True
        )
        self.splits = dict(zip(("train", "validation", "test"), pairs, strict=True))

    def model(self) -> nn.Module:
        return dense()

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(inputs), targets)

    def train(self, model: nn.Module, **keywords: Any) -> None:
        given = {"epochs": 20, "learning_rate": self.learning_rate, "loss": self.loss, **keywords}
        optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), 0.05)
        for step in range(given["epochs"]):
            optimizer.zero_grad()
            given["loss"](model.train(), *self.splits["train"]).backward()
            if "on_step" in given:
                given["on_step"](step, given["epochs"], optimizer)
            optimizer.step()
        model.eval()

    def evaluate(self, model: nn.Module, split: str = "validation") -> float:
        inputs, targets = self.splits[split]
        with torch.no_grad():
            return float((model(inputs).argmax(1) != targets).float().mean())

    def batch(self) -> Tensor:
        return self.splits["validation"][0][:8]

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        return [self.splits["validation"]]

    def split_sizes(self) -> dict[str, int]:
        return {name: len(targets) for name, (_, targets) in self.splits.items()}


def task() -> Any:
    """A task that trains `dense` in milliseconds."""
    return LargestOfFour()


NAMES: dict[str, Callable[[], Any]] = {
    make.__name__: make
    for make in (
        model,
        dense,
        x,
        task,
        machine,
        graph,
        recurrent,
        cell,
        run,
        record,
        recorded,
        chips,
        of_masks,
        any_machine,
        explanation,
        layer,
        conv,
    )
}


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
    doctest_namespace.update(torch=torch, nn=nn, replace=replace, Path=Path)
    own = request.node.dtest.globs  # a function of the file itself keeps its name
    doctest_namespace.update(
        (name, make())
        for name, make in NAMES.items()
        if re.search(rf"\b{name}\b", source)
        and getattr(own.get(name), "__module__", None) != own.get("__name__", "")
    )
    monkeypatch.chdir(tmp_path_factory.mktemp("example"))
    monkeypatch.setenv("ZEROSKIP_CACHE", "")
