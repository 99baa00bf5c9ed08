"""What a computer can do for zeroskip, and what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import torch

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.data import data_folder, imagenet
from zeroskip.errors import DataError
from zeroskip.graph.recurrent import Cell, Recurrent
from zeroskip.report import Grid
from zeroskip.run import kernels
from zeroskip.run.element import FP16

DATA_SETS: dict[str, Callable[[], Path]] = {
    **{name: partial(data_folder, name) for name in ("mnist", "cifar10", "forest", "text", "sts", "weights")},
    "imagenet": imagenet.find,
}

# Instructions -> LLVM's names of features that have them, and what uses them.
INSTRUCTIONS: dict[str, tuple[frozenset[str], str]] = {
    "AVX2": (frozenset({"avx2"}), "vectors of 256 bits"),
    "AVX-512": (
        frozenset({"avx512f"}),
        "vectors of 512 bits; baked, windows, quad_windows, balanced, columns_sparse",
    ),
    "VNNI": (frozenset({"avx512vnni", "avxvnni"}), 'products of precision="int8"'),
    "bf16": (frozenset({"avx512bf16", "bf16"}), "products of dense_bf16, by PyTorch"),
    "FP16": (frozenset({"avx512fp16", "fullfp16"}), 'arithmetic of precision="fp16"'),
    "AMX": (frozenset({"amx-tile"}), "products of dense_bf16, by PyTorch"),
    "NEON": (frozenset({"neon"}), "vectors of 128 bits"),
}

# Keyword of `run.compile` -> what it asks for.
PRECISIONS = {
    'precision="fp32"': Precision(),
    'precision="bf16"': Precision("bf16"),
    'precision="fp16"': Precision("fp16"),
    'precision="int8"': Precision("int8"),
    'weights="bf16"': Precision(weights="bf16"),
    'weights="int8"': Precision(weights="int8"),
    'weights="codes"': Precision(weights="codes"),
}

NO_COMPILER = "absent: torch.compile is left out of comparisons. Install one, e.g. with apt-get install g++"
NO_ONEDNN = "absent: dense convolutions are slower. Install PyTorch from pypi.org"
CACHE_BYTES = 1 << 20  # of the computers that kernels are asked about: in larger caches scattering never pays
# What a computer with AVX-512 has besides INSTRUCTIONS.
AVX512_COMPUTER = {"avx2", "fma", "f16c", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "avx512vbmi2"}


@dataclass(frozen=True)
class Support:
    """One precision on a computer: how it computes products, kernels that it can run, and the others -> why not."""

    arithmetic: str
    kernels: tuple[str, ...]
    refused: dict[str, str]


@dataclass(frozen=True)
class Examination:
    """A computer, and the software and data around it; the keys are words for people.

    data_sets, helpers  name -> where it is, or how to get it
    """

    machine: Machine
    instructions: dict[str, bool]
    precisions: dict[str, Support]
    versions: dict[str, str]
    data_sets: dict[str, str]
    helpers: dict[str, str]

    def to_json(self) -> dict[str, object]:
        """The examination as JSON, with features as a sorted list."""
        return asdict(self) | {"machine": asdict(self.machine) | {"features": sorted(self.machine.features)}}


def examine(machine: Machine) -> Examination:
    """What the computer can run, and which data and helpers are there.

    >>> examination = examine(machine)
    >>> examination.instructions["AVX-512"], examination.instructions["AMX"]
    (True, False)
    >>> examination.precisions['precision="fp16"'].refused["baked_fp16"]
    'its fp16 code is for AVX512-FP16, which this machine lacks'
    """
    compiler, onednn = shutil.which("g++") or shutil.which("c++"), torch.backends.mkldnn.is_available()
    return Examination(
        machine=machine,
        instructions={name: _has(machine, name) for name in INSTRUCTIONS},
        precisions={words: _support(precision, machine) for words, precision in PRECISIONS.items()},
        versions={name: version(name) for name in ("zeroskip", "torch", "numpy", "llvmlite")},
        data_sets={
            "digits": "part of scikit-learn",
            **{name: _folder(find) for name, find in DATA_SETS.items()},
        },
        helpers={
            "C++ compiler": compiler or NO_COMPILER,
            "oneDNN in PyTorch": "there" if onednn else NO_ONEDNN,
        },
    )


def show(examination: Examination) -> Grid:
    """The examination as one table."""
    machine = examination.machine
    rows = [("machine", f"{machine.title} ({machine.arch})")]
    for name, present in examination.instructions.items():
        rows.append((name, f"yes: {INSTRUCTIONS[name][1]}" if present else "no"))
    for words, support in examination.precisions.items():
        ready = f". Kernels: {', '.join(support.kernels)}" if support.kernels else ""
        rows.append((words, support.arithmetic + ready))
        for reason in dict.fromkeys(support.refused.values()):
            names = [name for name, why in support.refused.items() if why == reason]
            rows.append(("", f"not {', '.join(names)}: {reason}"))
    rows += [(f"{name} (version)", number) for name, number in examination.versions.items()]
    rows += [(f"{name} (data)", folder) for name, folder in examination.data_sets.items()]
    rows += list(examination.helpers.items())
    return Grid("zeroskip doctor", ("what", "found"), tuple(rows), prose=("found",))


def _has(machine: Machine, instructions: str) -> bool:
    return bool(INSTRUCTIONS[instructions][0] & machine.features)


def _support(precision: Precision, machine: Machine) -> Support:
    """The kernels that compute or store as `precision` says, by layers that each of them is for."""
    machine = replace(machine, cache_bytes=CACHE_BYTES)
    of_precision = [kernel for kernel in kernels.ALL if _is_for(kernel, precision)]
    refusals = {kernel.name: _refusal(kernel, precision, machine) for kernel in of_precision}
    ready = tuple(name for name, why in refusals.items() if why is None)
    refused = {name: why for name, why in refusals.items() if why is not None}
    return Support(_arithmetic(precision, machine), ready, refused)


def _is_for(kernel: Kernel, precision: Precision) -> bool:
    if precision.arithmetic != "fp32":
        return kernel.element == precision.arithmetic
    return kernel.element == "fp32" and kernel.weights == precision.weights


def _refusal(kernel: Kernel, precision: Precision, machine: Machine) -> str | None:
    """None, or why this machine cannot run a kernel, said of a layer that a machine with all features could."""
    features = AVX512_COMPUTER.union(*(features for features, _ in INSTRUCTIONS.values()))
    complete = replace(machine, arch="x86_64", features=frozenset(features), vector_bytes=64)
    examples = _recurrent_examples() if kernel.layout == "steps" else _examples()
    possible = [each for each in examples if kernel.accepts(each, complete, precision) is None]
    reasons = [kernel.accepts(layer, machine, precision) for layer in possible]
    return None if None in reasons else next(iter(reasons), "no example of a layer suits it")


def _arithmetic(precision: Precision, machine: Machine) -> str:
    """In which numbers products are computed, and by which instructions."""
    bits = 8 * machine.vector_bytes
    if precision.arithmetic == "bf16":
        words = next((name for name in ("AMX", "bf16") if _has(machine, name)), "no")
        return f"bf16 products by PyTorch, which has {words} instructions for them"
    if precision.arithmetic == "fp16":
        slow = "fp32, converted from fp16 and back in each operation, which is slow"
        readable = slow if FP16.is_readable(machine) else "none: no kernel of ours can read fp16 here"
        return f"fp16, {bits // 16} numbers a vector" if _has(machine, "FP16") else readable
    if precision.arithmetic == "int8":
        how = "by VNNI" if _has(machine, "VNNI") else "widened to 16 or 32 bits"
        return f"int8, {bits // 8} numbers a vector, {how}; sums of 32 bits"
    stored = "" if precision.weights == "fp32" else f"; weights stored as {precision.weights} are converted"
    return f"fp32, {bits // 32} numbers a vector{stored}"


@cache
def _examples() -> tuple[Layer, ...]:
    """Layers of which each kernel computes at least one."""
    regular, large = torch.zeros(1024, 1024), torch.ones(256, 256, 3, 3)
    regular[:, ::16] = 1
    blocks = torch.eye(8).repeat_interleave(8, 0).reshape(64, 8, 1, 1)
    return (
        Layer("regular zeros", "linear", regular, None, (1024,), (1024,)),
        Layer("dense and large", "conv2d", large, None, (256, 14, 14), (256, 12, 12)),
        Layer("zeros in blocks", "conv2d", blocks, None, (8, 8, 8), (64, 8, 8)),
    )


@cache
def _recurrent_examples() -> tuple[Recurrent, ...]:
    """An RNN that each kernel of steps computes."""
    half = Layer("half zero", "linear", torch.eye(2), None, (2,), (2,))
    return (Recurrent("rnn_tanh", (Cell(half, half),)),)


def _folder(find: Callable[[], Path]) -> str:
    try:
        return str(find())
    except DataError as error:
        return str(error)
