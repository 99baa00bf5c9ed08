"""Who races, in which environment, and why an engine cannot."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zeroskip.bench import worker
from zeroskip.bench.cases import FAR, LAYERS, LINEAR, SEQUENCES, Case
from zeroskip.concepts import Machine
from zeroskip.models.convolutions import RECTIFIED

OURS = "zeroskip"


@dataclass(frozen=True)
class Entrant:
    """One competitor: a library at one precision.

    word       what its worker is started with
    tolerance  how far an answer may be from torch eager's in fp32, as share of the largest output: rounding
               in that precision through a whole network; a wrong weight is far beyond
    enters     the cases that it takes part in
    must_beat  label of an engine: where that is faster, it has no figure

    >>> ENTRANTS[0].label
    'torch eager fp32'
    """

    name: str
    precision: str
    word: str
    tolerance: float
    enters: Callable[[Case], bool] = lambda case: True
    must_beat: str = ""

    @property
    def label(self) -> str:
        """Name and precision, for tables."""
        return f"{self.name} {self.precision}"


@dataclass(frozen=True)
class Environments:
    """Where the interpreters of the engines are: `folder`/peers and `folder`/deepsparse, made by `make bench`.

    >>> Environments(Path(".bench")).python("deepsparse")
    PosixPath('.bench/deepsparse/bin/python')
    """

    folder: Path

    def python(self, word: str) -> Path:
        """The interpreter that runs an engine. Without an environment for peers, it is this one."""
        if word.startswith("deepsparse"):
            return self.folder / "deepsparse" / "bin" / "python"
        peers = self.folder / "peers" / "bin" / "python"
        return peers if peers.exists() else Path(sys.executable)

    def command(self, word: str, threads: int) -> list[str]:
        """What starts the worker of an engine."""
        return [str(self.python(word).absolute()), str(Path(worker.__file__)), word, str(threads)]


def _weights(case: Case) -> bool:
    """Whether the zeros are in the weights, for fp32 and whatever is faster without being calibrated.

    Zeros in inputs are raced with fewer engines, of which none sees them.
    """
    return not case.input_sparsity and not case.in_int8


def _several(case: Case) -> bool:
    """Whether there is more than one convolution: torch.compile takes longest to prepare, and was never the fastest."""
    return _weights(case) and case.network not in LAYERS and not case.is_transformer


def _matrices(case: Case) -> bool:
    """Whether no layer convolves: libraries have such layers with weights in 8 bits, and zeroskip none in fp16."""
    return _weights(case) and (case.network in LINEAR or case.network == "lstm")


def _pictures(case: Case) -> bool:
    """Whether it is a network of maps, in which either way to lay them out may be faster."""
    others = {*LAYERS, *LINEAR, *SEQUENCES}
    return _weights(case) and not (case.is_recorded or case.is_transformer or case.network in others)


def _skips(case: Case) -> bool:
    """Whether zeros drawn in the input are to be skipped by a kernel that has nothing to fall back on."""
    return bool(case.input_sparsity) and not case.is_recorded


def _in_int8(case: Case) -> bool:
    """Whether engines in eight bits are raced."""
    return case.in_int8


def _layer_in_int8(case: Case) -> bool:
    """Whether they are raced on a single layer, where other engines in fp32 say nothing new."""
    return case.in_int8 and case.network in LAYERS


def _network_in_int8(case: Case) -> bool:
    """Whether they are raced on a network, fp32 beside them. Transformers in fp32 are raced in cases of their own."""
    return case.in_int8 and case.network not in LAYERS and not case.is_transformer


def _transformer_in_int8(case: Case) -> bool:
    return case.in_int8 and case.is_transformer


def _fp32(case: Case) -> bool:
    return not case.in_int8 or _network_in_int8(case)


def _calibrated(case: Case) -> bool:
    """Whether OpenVINO takes part in eight bits; of transformers where zeroskip computes in them too."""
    return not case.input_sparsity and (case.in_int8 or not case.is_transformer)


def _static(case: Case) -> bool:
    """Whether ONNX Runtime has scales for inputs too. Those of a transformer it finds at every call, as it advises."""
    return case.in_int8 and not case.is_transformer


def _bf16(case: Case) -> bool:
    return not case.is_recorded and not case.in_int8


def _far(case: Case) -> bool:
    """Whether a convolution that skips has its weights in memory."""
    return case.cold and case.network in FAR


ENTRANTS = (
    Entrant("torch eager", "fp32", "torch-fp32", 1e-3),
    Entrant("torch eager, contiguous", "fp32", "torch-contiguous-fp32", 1e-3, _pictures),
    Entrant("torch.compile", "fp32", "compile-fp32", 1e-3, _several),
    Entrant("ONNX Runtime", "fp32", "onnxruntime-fp32", 1e-3, _fp32),
    Entrant("OpenVINO", "fp32", "openvino-f32", 1e-3, _fp32),
    Entrant("DeepSparse", "fp32", "deepsparse", 1e-3, lambda case: _weights(case) or _network_in_int8(case)),
    Entrant("im2col and GEMM", "fp32", "im2col-fp32", 1e-3, lambda case: case.network in RECTIFIED),
    Entrant("torch eager", "bf16", "torch-bf16", 0.03, _bf16),
    Entrant("torch.compile", "bf16", "compile-bf16", 0.03, _several),
    Entrant("OpenVINO", "bf16", "openvino-bf16", 0.03, _bf16),
    Entrant("OpenVINO", "int8", "openvino-int8", 0.1, _calibrated),
    Entrant("ONNX Runtime", "int8", "onnxruntime-static", 0.1, _static),
    Entrant("torch FX", "int8", "torch-fx-int8", 0.1, _network_in_int8),
    Entrant("DeepSparse", "int8", "deepsparse-int8", 0.1, _network_in_int8, must_beat="DeepSparse fp32"),
    Entrant("torch dynamic", "int8", "torch-int8", 0.1, _matrices),
    Entrant(
        "ONNX Runtime dynamic",
        "int8",
        "onnxruntime-int8",
        0.1,
        lambda case: _matrices(case) or _transformer_in_int8(case),
    ),
    Entrant(OURS, "fp32", "zeroskip-fp32", 1e-3, _weights),
    Entrant(OURS, "fp32", "zeroskip-skipping", 1e-3, _skips),
    Entrant(OURS, "bf16 weights", "zeroskip-skipping-bf16", 0.03, _skips),
    Entrant(OURS, "fp16", "zeroskip-skipping-fp16", 0.03, lambda case: _skips(case) and not case.cold),
    Entrant(f"{OURS} scatter", "fp32", "zeroskip-scatter", 1e-3, _far),
    Entrant(f"{OURS} scatter", "bf16 weights", "zeroskip-scatter-bf16", 0.03, _far),
    Entrant(OURS, "fp32", "zeroskip-chosen", 1e-3, lambda case: case.is_recorded),
    Entrant(
        f"{OURS} on tiles",
        "fp32",
        "zeroskip-tiles",
        1e-3,
        lambda case: _weights(case) and case.network in LAYERS,
    ),
    Entrant(OURS, "fp16", "zeroskip-fp16", 0.03, lambda case: _weights(case) and not _matrices(case)),
    Entrant(OURS, "int8 weights", "zeroskip-int8", 0.1, lambda case: case.weights == "int8"),
    Entrant(f"{OURS}, free zeros", "fp32", "zeroskip-free", 1e-3, _network_in_int8),
    Entrant(f"{OURS}, free zeros", "fp16", "zeroskip-free-fp16", 0.03, _network_in_int8),
    Entrant(OURS, "int8", "zeroskip-quantised", 0.1, _in_int8),
    Entrant(f"{OURS} on tiles", "int8", "zeroskip-tiles-int8", 0.1, _layer_in_int8),
)


# Networks that are compiled by a C++ compiler would take most of a quick race.
QUICK_ENTRANTS = tuple(engine for engine in ENTRANTS if engine.name != "torch.compile")


def entrants(case: Case, engines: Sequence[Entrant] = ENTRANTS) -> list[Entrant]:
    """Those of the engines that take part in a case, unless there is a `refusal`.

    >>> [entrant.label for entrant in entrants(Case("ffn_down", 0.0, input_sparsity=0.9))][-3:]
    ['zeroskip fp32', 'zeroskip bf16 weights', 'zeroskip fp16']
    """
    return [engine for engine in engines if engine.enters(case)]


def refusal(engine: Entrant, case: Case, machine: Machine, environments: Environments) -> str | None:
    """Why an engine cannot take part on this machine; None where it can.

    >>> refusal(ENTRANTS[5], Case("vgg16", 0.9), machine, Environments(Path(".bench")))
    '.bench/deepsparse/bin/python is absent: `make bench` makes the environment that it needs'
    """
    if case.threads > machine.cores:
        return f"the case needs {case.threads} cores, and this machine has {machine.cores}"
    if engine.word == "openvino-bf16" and not {"avx512bf16", "amx-bf16"} & machine.features:
        return "OpenVINO computes in bf16 where the CPU has avx512bf16 or amx-bf16, and this one has neither"
    if engine.precision == "fp16" and "avx512fp16" not in machine.features:
        return "zeroskip gains by fp16 where the CPU computes in it (avx512fp16), and this one does not"
    compilers = os.environ.get("CXX", "g++"), "clang++"
    if engine.name == "torch.compile" and not any(map(shutil.which, compilers)):
        return "no C++ compiler was found, which it needs"
    python = environments.python(engine.word)
    return (
        None if python.exists() else f"{python} is absent: `make bench` makes the environment that it needs"
    )
