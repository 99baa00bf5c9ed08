"""Runs to report on, with made-up figures: LeNet-300-100 on 8x8 digits and a small LeNet-5, both pruned."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from zeroskip.concepts import (
    Choice,
    Histogram,
    LayerProfile,
    LayerSummary,
    Point,
    Profile,
    Record,
    Summary,
    Timing,
)

LENET_300 = {"fc1": (300, 64), "fc2": (100, 300), "fc3": (10, 100)}
LENET_5 = {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)}


def weights_of(shapes: dict[str, tuple[int, ...]], generator: torch.Generator) -> dict[str, Tensor]:
    """Normal weights; the border pixels of an 8x8 image matter less, as those of a digit do."""
    weights = {name: torch.randn(shape, generator=generator) * 0.06 for name, shape in shapes.items()}
    if weights["fc1"].shape[1] == 64:
        away = torch.arange(8) - 3.5
        weights["fc1"] *= torch.exp(-(away[:, None] ** 2 + away**2) / 12).flatten()
    return weights


def pruned(weight: Tensor, sparsity: float) -> Tensor:
    """The smallest go, the rest grows a little, as retraining makes it."""
    cut = weight.abs().flatten().kthvalue(int(sparsity * weight.numel())).values
    return torch.where(weight.abs() > cut, weight * 1.3, 0.0)


def profile_of(name: str, weight: Tensor, place: int) -> LayerProfile:
    shape = tuple(weight.shape)
    inputs = (1, 28, 28) if name == "conv1" else (math.prod(shape[1:]),)
    curve = {
        s: 0.022 + 0.6 / (1 + math.exp(-22 * (s - 0.78 - 0.07 * place)))
        for s in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
    }
    macs = weight.numel() * (576 if len(shape) == 4 else 1)
    return LayerProfile(
        name, "conv2d" if len(shape) == 4 else "linear", shape, inputs, shape[:1], weight.numel(), macs,
        4 * weight.numel(), 0.0, weight.std().item(), Histogram((-1.0, 1.0), (weight.numel(),)),
        0.5 + 0.1 * place, 0.0 if name in ("fc3", "conv1") else 0.6, (), (), curve,
    )  # fmt: skip


def timing(batch: int, zeroskip: float, **engines: float) -> Timing:
    seconds = {
        "torch eager": 41.2e-6 * batch**0.4,
        "torch compiled": 33.5e-6 * batch**0.4,
        "zeroskip": zeroskip,
    }
    seconds |= engines
    spread = {name: (0.97 * value, 1.04 * value) for name, value in seconds.items()}
    difference = {name: 0.0 if name == "torch eager" else 1.2e-6 for name in seconds}
    skipped = {"onnxruntime": "not installed: pip install onnxruntime"}
    return Timing(seconds, spread, difference, skipped, batch, 2, "float32", "AMD EPYC 9B14", 3, 9)


def history_of(weights: int) -> tuple[Point, ...]:
    steps = [
        ("dense", 1.0, 0.0222, True), ("round", 0.5, 0.0194, True), ("round", 0.25, 0.0222, True),
        ("round", 0.1, 0.025, True), ("round", 0.04, 0.061, False), ("bisection", 0.07, 0.0333, False),
        ("bisection", 0.085, 0.025, True),
    ]  # fmt: skip
    return tuple(
        Point(kind, int(share * weights), weights, error, good) for kind, share, error, good in steps
    )


def ledger_of(sparse: dict[str, Tensor]) -> dict[str, dict[str, int]]:
    ledger = {"(file)": {"values": 0, "positions": 0, "codebook": 0, "tables": 0, "header": 312}}
    for name, weight in sparse.items():
        kept = int(torch.count_nonzero(weight))
        ledger[f"{name}.weight"] = {
            "values": 4 * kept - 140,
            "positions": 5 * kept // 8,
            "codebook": 128,
            "tables": 12,
            "header": 24,
        }
        ledger[f"{name}.bias"] = {"values": 4 * weight.shape[0], "header": 16}  # a part of 0 may be left out
    return ledger


def choice_of(name: str, weight: Tensor) -> Choice:
    seconds = {"dense": 9.1e-6, "csr": 6.2e-6, "blocks": 4.4e-6}
    kernel = "dense" if weight.numel() < 2000 else "blocks"
    reason = "too small to gain from its zeros" if kernel == "dense" else "fastest path through the network"
    refused = {"2:4": "the zeros do not come in groups of four"}
    return Choice(name, "linear", tuple(weight.shape), 0.915, kernel, seconds, refused, reason)


def summary_of(run: Record, **changes) -> Summary:
    profiles, sparse, timing = run.profile.layers, run.sparse_weights, run.timings[0]
    left = {name: int(torch.count_nonzero(weight)) for name, weight in sparse.items()}
    weights, kept = sum(layer.weights for layer in profiles), sum(left.values())
    stored, dense = sum(sum(parts.values()) for parts in run.ledger.values()), 4 * (weights + 410)
    layers = tuple(
        LayerSummary(
            p.name,
            p.weights,
            left[p.name],
            1 - left[p.name] / p.weights,
            p.input_sparsity,
            c.kernel,
            c.reason,
        )
        for p, c in zip(profiles, run.choices, strict=True)
    )
    figures = Summary(
        task="digits", seeds=1, seed=0, pattern="free", max_error_rise=1 / 360, sparsity=None, bits=None,
        error_dense=0.0222, error_sparse=0.025, error_unpacked=0.025, error_run=0.025,
        weights=weights, weights_kept=kept, weights_times_fewer=weights / kept,
        stored_bytes_dense=dense, stored_bytes=stored, stored_times_smaller=dense / stored,
        dense_seconds=timing.dense_seconds, sparse_seconds=timing.sparse_seconds,
        dense_engine=timing.dense_engine, batch=timing.batch, threads=2, precision="float32", machine=timing.machine,
        selected_on="validation", splits={"train": 1077, "validation": 360, "test": 360},
        verdict="Ship the sparse network for single calls: 11.8 times fewer weights and 1.52 times faster "
        "at batch 1, for 0.28 points of error. At batch 256 stay dense: the fastest dense engine wins there.",
        timings=run.timings, layers=layers,
    )  # fmt: skip
    return replace(figures, **changes)


def run_of(shapes: dict[str, tuple[int, ...]], folder: str, *, seed: int = 0, **changes) -> Record:
    """A whole record; `changes` replace keys of its summary."""
    dense = weights_of(shapes, torch.Generator().manual_seed(seed))
    sparse = {name: pruned(weight, 0.915) for name, weight in dense.items()}
    profiles = tuple(profile_of(name, weight, place) for place, (name, weight) in enumerate(dense.items()))
    choices = tuple(choice_of(name, weight) for name, weight in dense.items())
    ledger, timings = ledger_of(sparse), (timing(1, 22.1e-6), timing(256, 520e-6))
    profile, history = Profile(profiles, 0.0222), history_of(sum(layer.weights for layer in profiles))
    run = Record(folder, None, profile, history, choices, timings, ledger, dense, sparse)
    return replace(run, summary=summary_of(run, **changes))


@pytest.fixture(scope="session")
def record() -> Record:
    return run_of(LENET_300, "runs/digits")


@pytest.fixture(scope="session")
def conv_record() -> Record:
    """It pays nowhere, and has three seeds."""
    figures = {
        "error_dense": 0.0083, "error_sparse": 0.0097, "error_unpacked": 0.0097, "error_run": 0.0097,
        "dense_seconds": 2e-5, "sparse_seconds": 3.2e-5, "weights_kept": 36593, "weights_times_fewer": 11.76,
        "stored_bytes": 172033,
    }  # fmt: skip
    verdict = "Ship the dense network: sparse is 1.6 times slower on this machine."
    run = run_of(LENET_5, "runs/digits-conv", task="digits-conv", seeds=3, verdict=verdict, **figures)
    runs = tuple(
        replace(run.summary, seed=seed, error_sparse=0.0097 + 0.001 * seed, layers=(), timings=())
        for seed in (0, 1, 2)
    )
    timings = (timing(1, 3.2e-5, **{"torch compiled": 2e-5}),)
    return replace(run, summary=replace(run.summary, runs=runs), timings=timings)
