"""The nouns of zeroskip: what the folders hand to each other.

    dense model -> measure -> prune -> retrain -> pack -> run -> report
                   Profile    Recipe   Sparse     Packed  Program  Record
                   Trace      Masks                       Timing

Words that never change their meaning: *sparsity* is the share of zeros, 0..1; a *mask* is a bool tensor
whose True is kept; a *score* says how much a weight matters, higher is kept. `weights` counts exclude
biases and batch norm. An error (of a network) is 0..1, lower is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Masks = dict[str, Tensor]
"""Layer name -> bool tensor shaped like the layer's weight; True is kept."""

Progress = Callable[[str, int, int], None]
"""Called as progress(what is being done, steps done, steps in all)."""

Edits = list[dict[str, Any]]
"""Structure taken out for good, as JSON; `prune.rebuild(model, edits)` replays it on a fresh network. Each edit is
{"edit": "remove", "layer": name, "inputs": [...], "outputs": [...]}: the input columns (features or channels, as
the layer counts them) and the outputs that go. Of a batch norm, inputs are its channels and outputs are []."""

TrainState = dict[str, Tensor]
"""Everything a training needs to continue after an epoch, as tensors under flat names."""


def silent(what: str, done: int, total: int) -> None:
    """The Progress that shows nothing.

    >>> silent("training", 1, 10)
    """


@dataclass(frozen=True)
class Layer:
    """One weighted operation of a network, with the shapes of one example (no batch axis).

    weight  (out, in) for "linear", (out, in / groups, kh, kw) for "conv2d"; bias (out,) or None
    """

    name: str
    op: str
    weight: Tensor
    bias: Tensor | None
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] | str = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def weights(self) -> int:
        """Number of weights, zeros included, biases excluded."""
        return self.weight.numel()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one example: each weight meets every output position once."""
        # A linear layer applied to (..., in) and a convolution alike: outputs / out channels = positions.
        positions = math.prod(self.output_shape) // max(self.weight.shape[0], 1)
        return self.weights * positions


Trace = list[tuple[Layer, Tensor, Tensor]]
"""(layer, real input, real output) of a few examples, in the order in which the network runs."""


@dataclass(frozen=True)
class Histogram:
    """`counts[i]` values lie between `edges[i]` and `edges[i + 1]`."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class LayerProfile:
    """What was measured of one layer. Sparsities are shares of exact zeros over a data set.

    input_sparsity_by_channel  one share per input channel (conv2d) or input feature (linear)
    sensitivity                sparsity -> error of the network when only this layer is pruned
    weight_std                 standard deviation of the weights, the unit of Han's quality parameter
    """

    name: str
    op: str
    weight_shape: tuple[int, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weights: int
    macs: int
    stored_bytes: int
    weight_sparsity: float
    weight_std: float
    histogram: Histogram
    input_sparsity: float
    output_sparsity: float
    input_sparsity_by_channel: tuple[float, ...]
    output_sparsity_by_channel: tuple[float, ...]
    sensitivity: dict[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """What was measured of a network, layer by layer; `error` is on the validation split."""

    layers: tuple[LayerProfile, ...]
    error: float

    def layer(self, name: str) -> LayerProfile:
        """The layer called `name`.

        >>> profile.layer("fc1").weights
        235200
        """
        return next(layer for layer in self.layers if layer.name == name)


@dataclass(frozen=True)
class Round:
    """One prune-and-retrain step.

    sparsity  a number: the share of all weights that is zero afterwards, cut by one threshold for the
              whole network; a dict: layer name -> share, each layer cut by its own threshold
    quality   layer name -> q, instead of sparsity: weights below q x standard deviation go (Han et al. 2015)
    pattern   where zeros may lie, for all layers or by layer name; see `zeroskip.patterns`
    score     name of a function in `zeroskip.prune.scores`
    frozen    layers whose weights do not change in this round's retraining
    gradual   share of the retraining during which the sparsity grows to its value, fast first (Zhu and Gupta
              2017); 0: everything is cut before the retraining
    penalty   {"l1": a, "l2": b}: a x sum |w| + b / 2 x sum w^2 of the layers' weights is added to the loss
    teacher   {"weight": a, "temperature": t}: this share of the loss is the distance to the softened answers of
              the network that the loop started from (Hinton et al. 2015)
    rescale_dropout  dropout shrinks with the connections it works on (Han et al. 2015, section 3.2)
    train     keywords handed to the task's `train`, and `learning_rate_divisor`
    """

    sparsity: float | Mapping[str, float] | None = None
    quality: Mapping[str, float] | None = None
    pattern: str | Mapping[str, str] = "free"
    score: str = "magnitude"
    frozen: tuple[str, ...] = ()
    gradual: float = 0.0
    penalty: Mapping[str, float] = field(default_factory=dict)
    teacher: Mapping[str, float] = field(default_factory=dict)
    rescale_dropout: bool = True
    train: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """Rounds to go through, and how much error they may cost.

    max_error_rise  None: every round is done. A number: rounds stop at the first whose validation error
                    exceeds the dense network's by more; two bisections follow, the last good point wins
    reasons         layer name -> why it loses as much as it does, for people
    """

    rounds: tuple[Round, ...]
    max_error_rise: float | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists; `from_json` turns them back.

        >>> Recipe.from_json(recipe.to_json()) == recipe
        True
        """
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> Recipe:
        """The recipe that `to_json` wrote."""
        rounds = tuple(Round(**{**one, "frozen": tuple(one["frozen"])}) for one in value["rounds"])
        return Recipe(rounds, value["max_error_rise"], value["reasons"])


@dataclass(frozen=True)
class Point:
    """One point of the trade-off that a loop went through.

    kind  "dense", "round", "bisection" or "centroids"; good tells whether the error stayed within the budget
    """

    kind: str
    weights_kept: int
    weights: int
    error: float
    good: bool
    layers_kept: dict[str, int] = field(default_factory=dict)

    @property
    def sparsity(self) -> float:
        """Share of the weights that is zero."""
        return 1 - self.weights_kept / self.weights


@dataclass(frozen=True)
class Sparse:
    """The outcome of pruning: a plain model with its zeros in place, its masks, and the way there."""

    model: nn.Module
    masks: Masks
    history: tuple[Point, ...]


@dataclass(frozen=True)
class PackedTensor:
    """One stored tensor, exact: `positions` says where its non-zeros are, `values` what they are, as bytes.

    coding          "dense" (no positions: every element has a value), "bitmask", "gaps2" ... "gaps16" (relative
                    index of that many bits), "huffman2" ... "huffman16" (as Huffman codes), "arithmetic"
    values_coding   "exact" (as they are), or codes that number the entries of `codebook`: "fixed" (all of one
                    width), "huffman", "arithmetic"; where both are "arithmetic", `values` holds both
    codebook        the distinct values, of `codebook_dtype`, torch's name; both empty without codes
    tables          the Huffman codes of the gaps, then those of the values, where they are used
    escapes         how many gaps went on because their field was too narrow
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    coding: str
    nonzeros: int
    positions: bytes
    values: bytes
    values_coding: str = "exact"
    codebook_dtype: str = ""
    codebook: bytes = b""
    tables: bytes = b""
    escapes: int = 0


@dataclass(frozen=True)
class Packed:
    """A network's stored tensors. It holds no code: to run it, load it into the task's own model.

    ledger  tensor name -> bytes of its "values", "positions", "codebook", "tables", "header"; "(file)": of no tensor
    """

    tensors: tuple[PackedTensor, ...]
    ledger: dict[str, dict[str, int]]

    @property
    def stored_bytes(self) -> int:
        """Size of the whole file in bytes."""
        return sum(sum(parts.values()) for parts in self.ledger.values())


@dataclass(frozen=True)
class Machine:
    """A computer as data. Always an argument, so that "a machine without AVX-512" can be tested.

    features      by LLVM's names, e.g. "avx512f"; cache_bytes: the second-level cache of one core
    vector_bytes  width of the widest vector that kernels use: 64 (AVX-512), 32 (AVX2), 16
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
    """The fewest bits that kernels may use; the words are explained at `run.compile`."""

    arithmetic: str = "fp32"
    weights: str = "fp32"


@dataclass(frozen=True)
class Kernel:
    """One way to compute a layer on batches shaped (batch, *input_shape).

    accepts    (layer, machine, precision) -> None, or the reason why this kernel cannot run it
    build      (layer, machine, precision, relu) -> function of the input tensor; relu is fused in
    reference  (layer, input, relu) -> output, in plain PyTorch; what the kernel rounds is rounded here alike
    tolerance  an output's largest distance from the reference, as share of sum |weight x input|
    """

    name: str
    accepts: Callable[[Layer, Machine, Precision], str | None]
    build: Callable[[Layer, Machine, Precision, bool], Callable[[Tensor], Tensor]]
    reference: Callable[[Layer, Tensor, bool], Tensor]
    layout: str = "rows"
    tolerance: float = 3e-5


@dataclass(frozen=True)
class Choice:
    """Which kernel runs a layer, and why: `seconds` by kernel name for those timed, `refused` the others.

    error  largest distance from the layer in fp32, as share of its largest output; 0 if nothing is rounded
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


@dataclass(frozen=True)
class Timing:
    """Measured seconds of one call, by engine, all in the same run and interleaved.

    seconds         engine -> median of the runs' medians; "zeroskip" is ours; "zeroskip, all dense" skips no zero
    spread          engine -> (lowest, highest) of the runs' medians
    max_difference  engine -> largest absolute difference of its output from torch eager's
    skipped         engine -> why it could not take part
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
        """Whether the runs of the two do not overlap: otherwise neither can be called faster."""
        ours, dense = self.spread["zeroskip"], self.spread[self.dense_engine]
        return ours[1] < dense[0] or dense[1] < ours[0]


@dataclass(frozen=True)
class Record:
    """All that one run of the journey leaves behind, as `runs.load` reads it and `report` shows it.

    dense_weights, sparse_weights  layer name -> weight, before pruning and at the end
    """

    folder: str
    summary: dict[str, Any]
    profile: Profile
    history: tuple[Point, ...]
    choices: tuple[Choice, ...]
    timings: tuple[Timing, ...]
    ledger: dict[str, dict[str, int]]
    dense_weights: dict[str, Tensor]
    sparse_weights: dict[str, Tensor]


def weight_sparsity(weight: Tensor) -> float:
    """Share of exact zeros in a tensor; 0 for an empty one.

    >>> weight_sparsity(torch.tensor([0.0, 1.0]))
    0.5
    """
    return 1 - torch.count_nonzero(weight).item() / weight.numel() if weight.numel() else 0.0
