"""All that one run leaves behind, and its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from zeroskip.concepts.engine import Choice, Timing
from zeroskip.concepts.explanation import Explanation
from zeroskip.concepts.network import Profile
from zeroskip.concepts.recipe import Point


@dataclass(frozen=True)
class LayerSummary:
    """One weight at the end of a run, by its name. Sparsities are shares of zeros, of it and of what its layer reads.

    input_sparsity  None where the layer was not seen to run;  kernel: "none" where it is no layer of the program
    macs            multiply-accumulates of one example, in all runs of the layer, zeros included
    dense           why no zero of it is skipped: it has none, or its kernel skips none; "" where they are skipped
    raced           whether a kernel that skips zero weights was timed on it

    >>> record.summary.layers[0].kernel
    'sell'
    """

    name: str
    weights: int
    weights_kept: int
    weight_sparsity: float
    input_sparsity: float | None
    kernel: str
    reason: str
    macs: int = 0
    runs: int = 1
    dense: str = ""
    raced: bool = True


def by_reason(layers: Sequence[LayerSummary]) -> dict[str, list[LayerSummary]]:
    """Why no zero is skipped -> the layers of which that is so, in their order.

    >>> [*by_reason(record.summary.dense_layers)]
    ['nothing of it was pruned']
    """
    groups: dict[str, list[LayerSummary]] = {}
    for layer in layers:
        groups.setdefault(layer.dense, []).append(layer)
    return groups


@dataclass(frozen=True)
class EightBits:
    """How the pruned network of a run computes in eight bits.

    error    of its outputs, as share of those in fp32, on the examples that it was calibrated on
    method   by which the ranges of numbers were chosen, such as "min-max"
    in_fp32  batch size of a program -> its layers that stay in fp32, and why

    >>> EightBits(0.008, 320, "min-max", {1: {"fc1": "fewer than 8 rows"}, 64: {}}).in_fp32[1]
    {'fc1': 'fewer than 8 rows'}
    """

    error: float
    examples: int
    method: str
    in_fp32: Mapping[int, Mapping[str, str]]

    @property
    def by_program(self) -> dict[str, Mapping[str, str]]:
        """ " at batch 1" -> its layers in fp32, and why; "" where they are the same in all programs.

        >>> [*EightBits(0.008, 320, "min-max", {1: {}, 64: {}}).by_program]
        ['']
        """
        several = list(self.in_fp32.values())
        if all(each == several[0] for each in several):
            return {"": several[0]} if several else {}
        return {f" at batch {batch}": layers for batch, layers in self.in_fp32.items()}


@dataclass(frozen=True)
class Summary:
    """The figures of a run. Errors are those of the test split: 0..1, or above 1 where they are no shares.

    weights, macs, stored_bytes  of the whole network, what stays dense included: every weight once, in one example
    macs_kept, activation_macs   the products with a weight that is not zero; those of two activations, with no weight
    pattern, max_error_rise, sparsity, bits, precision  what was asked for: `Goal`
    error_unpacked, error_run                of the network read back from its file, and of the compiled program
    dense_seconds, sparse_seconds            of a call with `batch` inputs: the fastest dense engine and zeroskip
    splits                                   name -> number of examples; {} where the task does not tell
    explanation                              why the program for `batch` is not faster; None in older summaries
    eight_bits                               what was calibrated; None in fp32
    shown, runs                              of several seeds, whose means the figures are: the folder that layers
                                             and timings are of, and the summary of each

    >>> record.summary.weights_kept, record.summary.error_run
    (44, 0.03)
    """

    task: str
    seeds: int
    seed: int
    pattern: str
    max_error_rise: float
    sparsity: float | None
    bits: int | None
    error_dense: float
    error_sparse: float
    error_unpacked: float
    error_run: float
    weights: int
    weights_kept: int | float
    weights_times_fewer: float
    stored_bytes_dense: int
    stored_bytes: int | float
    stored_times_smaller: float
    dense_seconds: float
    sparse_seconds: float
    dense_engine: str
    batch: int
    threads: int
    precision: str
    machine: str
    selected_on: str
    splits: Mapping[str, int]
    verdict: str = ""
    timings: tuple[Timing, ...] = ()
    layers: tuple[LayerSummary, ...] = ()
    shown: str = ""
    runs: tuple[Summary, ...] = ()
    macs: int = 0
    macs_kept: int | float = 0
    activation_macs: int = 0
    explanation: Explanation | None = None
    eight_bits: EightBits | None = None

    @property
    def in_int8(self) -> bool:
        """Whether a layer of one of its programs computes in eight bits.

        >>> record.summary.in_int8
        False
        """
        programs = self.eight_bits.in_fp32.values() if self.eight_bits else ()
        return any(len(in_fp32) < len(self.layers) for in_fp32 in programs)

    @property
    def dense_layers(self) -> tuple[LayerSummary, ...]:
        """The weights of which no zero is skipped, largest first; each says why.

        >>> [layer.name for layer in record.summary.dense_layers]
        ['fc2']
        """
        dense = [layer for layer in self.layers if layer.dense]
        return tuple(sorted(dense, key=lambda layer: -layer.weights))

    def share(self, layers: Sequence[LayerSummary]) -> float:
        """The share of the network's weights that these have.

        >>> record.summary.share(record.summary.dense_layers)
        0.4
        """
        return sum(layer.weights for layer in layers) / max(self.weights, 1)

    def to_json(self) -> dict[str, object]:
        """What summary.json holds and `--json` prints; `run_folder.load` reads it."""
        values = asdict(self)
        if self.timings:
            values["spread"] = self.timings[0].spread
        values["runs"] = [run.to_json() for run in self.runs]
        values["explanation"] = self.explanation and self.explanation.to_json()
        values["dense_layers"] = [self._dense(layer) for layer in self.dense_layers]
        later = ("timings", "layers", "shown", "runs", "macs", "macs_kept", "activation_macs", "dense_layers")
        absent = {name for name in (*later, "explanation", "eight_bits") if not values[name]}
        return {name: value for name, value in values.items() if name not in absent}

    def _dense(self, layer: LayerSummary) -> dict[str, object]:
        return {
            "name": layer.name,
            "weights": layer.weights,
            "share_of_weights": self.share([layer]),
            "share_of_macs": layer.macs / self.macs if self.macs else None,
            "reason": layer.dense,
        }


@dataclass(frozen=True)
class Record:
    """All that one run of the journey leaves behind, as `run_folder.load` reads it and `report` shows it.

    ledger                         of the stored file: tensor name -> bytes of its parts, as in `Packed`
    dense_weights, sparse_weights  layer name -> weight, before pruning and at the end

    >>> [timing.batch for timing in record.timings]
    [1, 3]
    """

    folder: str
    summary: Summary
    profile: Profile
    history: tuple[Point, ...]
    choices: tuple[Choice, ...]
    timings: tuple[Timing, ...]
    ledger: dict[str, dict[str, int]]
    dense_weights: dict[str, Tensor]
    sparse_weights: dict[str, Tensor]
