"""Computers, ways to compute a layer on them, and measured times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from zeroskip.concepts.network import Layer

Computed: TypeAlias = Any
"""What a kernel computes, a Layer or the recurrent operation of a node, and what comes out: a tensor or several."""


@dataclass(frozen=True)
class Machine:
    """A computer as data. Always an argument, so that "a machine without AVX-512" can be tested.

    features      by LLVM's names, e.g. "avx512f"; cache_bytes: the second-level cache of one core
    vector_bytes  width of the widest vector that kernels use: 64 (AVX-512), 32 (AVX2), 16

    >>> machine.title
    'an example, 2 cores, 512-bit vectors'
    """

    name: str
    arch: str
    features: frozenset[str]
    cores: int
    vector_bytes: int
    cache_bytes: int = 1 << 20

    @property
    def title(self) -> str:
        """What a table says of it."""
        return f"{self.name}, {self.cores} cores, {8 * self.vector_bytes}-bit vectors"


@dataclass(frozen=True)
class Precision:
    """The fewest bits that kernels may use.

    arithmetic  of inputs and products: "fp32", "bf16", "fp16" or "int8"
    weights     as they are stored: "fp32", "bf16", "int8" with a scale for each row, or "codes" of 4 bits, for layers
                of at most 16 distinct non-zero weights

    >>> Precision(weights="int8").arithmetic
    'fp32'
    """

    arithmetic: str = "fp32"
    weights: str = "fp32"


@dataclass(frozen=True)
class Kernel:
    """One way to compute a layer on batches shaped (batch, *input_shape).

    name       what tables show and files store, e.g. "gaps_int8"; nothing is read out of it
    method     the algorithm: "sell", "baked", "gather", ...
    element    the type of inputs, products and sums: "fp32", "fp16", "bf16"; "int8", whose sums have 32 bits
    weights    how weights are stored: "fp32", "fp16", "bf16", "int8" or "codes"
    skips      the zeros that it does not compute: those of "weights", of "inputs", of "both", of "nothing"
    layout     of the maps that it works on: "rows", "channels_last", or "tiles", which it shares with its neighbours:
               such a kernel is timed in the whole network, not alone; "steps" of kernels for LSTM, GRU and RNN, which
               compute a recurrent operation in place of a layer, and several tensors
    accepts    (layer, machine, precision) -> None, or the reason why this kernel cannot run it
    build      (layer, machine, precision, relu) -> function of the input tensor; relu is fused in
    reference  (layer, input, relu) -> output, in plain PyTorch; what the kernel rounds is rounded here alike
    tolerance  an output's largest distance from the reference, as share of sum |weight x input|
    suits      (layer, input) -> None, or why the kernel is not tried on inputs like this one

    >>> from zeroskip import run
    >>> sorted({kernel.skips for kernel in run.kernels.ALL})
    ['both', 'inputs', 'nothing', 'weights']
    """

    name: str
    method: str
    accepts: Callable[[Computed, Machine, Precision], str | None]
    build: Callable[[Computed, Machine, Precision, bool], Callable[..., Computed]]
    reference: Callable[..., Computed]
    element: str = "fp32"
    weights: str = "fp32"
    skips: str = "weights"
    layout: str = "rows"
    tolerance: float = 3e-5
    suits: Callable[[Layer, Tensor], str | None] = lambda layer, x: None


@dataclass(frozen=True)
class Choice:
    """Which kernel runs a layer, and why: `seconds` by kernel name for those timed, `refused` the others.

    error  largest distance from the layer in fp32, as share of its largest output; 0 if nothing is rounded
    skips  the kernel's `skips`: the zeros that it does not compute; "" in records that do not say so

    >>> record.choices[0].kernel, record.choices[0].skips
    ('sell', 'weights')
    """

    layer: str
    op: str
    weight_shape: tuple[int, ...]
    sparsity: float
    kernel: str
    seconds: dict[str, float]
    refused: dict[str, str]
    reason: str
    error: float = 0.0
    skips: str = ""


@dataclass(frozen=True)
class Timing:
    """Measured seconds of one call, by engine, all in the same run and interleaved.

    seconds         engine -> median of the runs' medians; "zeroskip" is ours; "zeroskip, all dense" skips no zero
    spread          engine -> (lowest, highest) of the runs' medians
    max_difference  engine -> largest absolute difference of its output from torch eager's
    skipped         engine -> why it could not take part

    >>> timing = record.timings[0]
    >>> timing.dense_engine, timing.speedup, timing.settled
    ('torch eager', 2.0, True)
    """

    seconds: dict[str, float]
    spread: dict[str, tuple[float, float]]
    max_difference: dict[str, float]
    skipped: dict[str, str]
    batch: int
    threads: int
    precision: str
    machine: str
    runs: int
    rounds: int

    @property
    def dense_engine(self) -> str:
        """The fastest engine that is not ours."""
        theirs = (name for name in self.seconds if not name.startswith("zeroskip"))
        return min(theirs, key=self.seconds.__getitem__)

    @property
    def dense_seconds(self) -> float:
        """Seconds of the fastest dense engine."""
        return self.seconds[self.dense_engine]

    @property
    def sparse_seconds(self) -> float:
        """Seconds of the zeroskip program."""
        return self.seconds["zeroskip"]

    @property
    def speedup(self) -> float:
        """Above 1 is faster than the fastest dense engine."""
        return self.dense_seconds / self.sparse_seconds

    @property
    def settled(self) -> bool:
        """Whether one of the two is faster beyond the spread of both: otherwise neither can be called faster."""
        return self.settled_against(self.dense_engine)

    def settled_against(self, engine: str) -> bool:
        """Whether the runs of zeroskip and of `engine` do not overlap."""
        ours, theirs = self.spread["zeroskip"], self.spread[engine]
        return ours[1] < theirs[0] or theirs[1] < ours[0]
