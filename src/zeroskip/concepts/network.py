"""A network and what was measured of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

Masks = dict[str, Tensor]
"""Name of a weight, see `graph.weights` -> bool tensor of its shape; True is kept."""


Progress = Callable[[str, int, int], None]
"""Called as progress(what is being done, steps done, steps in all)."""


Edits = list[dict[str, Any]]
"""What `prune.rebuild(model, edits)` replays on a fresh network, as JSON. An edit is one of

{"edit": "remove", "layer": name, "inputs": [...], "outputs": [...]}  the input columns (features or channels, as the
layer counts them) and the outputs that go; of a batch norm, inputs are its channels and outputs are []
{"edit": "threshold", "layer": name, "value": theta}  what enters it with |x| < theta becomes 0
{"edit": "relu", "layer": name}  the activation becomes a ReLU
"""


TrainState = dict[str, Tensor]
"""Everything a training needs to continue after an epoch, as tensors under flat names."""


def silent(what: str, done: int, total: int) -> None:
    """The Progress that shows nothing.

    >>> silent("training", 1, 10)
    """


@dataclass(frozen=True)
class Layer:
    """One run of a weighted operation, with the shapes of one example (no batch axis).

    name    of its weight: "fc1" of the parameter "fc1.weight", otherwise the parameter's: "lstm.weight_hh_l0"
    op      "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", ...2d, ...3d, "bilinear"
    weight  (out, in) for linear, (out, in / groups, ...) for convolutions, (in, out / groups, ...) for transposed ones,
            (out, in1, in2) for bilinear; bias (out,) or None
    stride, padding, dilation, output_padding  a number for each axis of a map

    >>> fc1 = Layer("fc1", "linear", model.fc1.weight, model.fc1.bias, (6,), (8,))
    >>> fc1.weights, fc1.macs
    (48, 48)
    """

    name: str
    op: str
    weight: Tensor
    bias: Tensor | None
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] | str = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    output_padding: tuple[int, ...] = (0, 0)

    @property
    def weights(self) -> int:
        """Number of weights, zeros included, biases excluded."""
        return self.weight.numel()

    @cached_property
    def sparsity(self) -> float:
        """Share of exact zeros in the weight as it was when this was first asked: kernels ask one after the other."""
        return weight_sparsity(self.weight)

    @property
    def transposed(self) -> bool:
        """Whether it is a transposed convolution."""
        return self.op.startswith("conv_transpose")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one example: each weight meets every output position once.

        Those of a transposed convolution meet every input position.
        """
        # A linear layer applied to (..., in) and a convolution alike: outputs / out channels = positions.
        shape = self.input_shape if self.transposed else self.output_shape
        return self.weights * (math.prod(shape) // max(self.weight.shape[0], 1))


Trace = list[tuple[Layer, Tensor, Tensor]]
"""(layer, real input, real output) of a few examples, in the order in which the network runs."""


@dataclass(frozen=True)
class Histogram:
    """`counts[i]` values lie between `edges[i]` and `edges[i + 1]`.

    >>> Histogram(edges=(-1.0, 0.0, 1.0), counts=(3, 5)).counts
    (3, 5)
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class LayerProfile:
    """What was measured of one weight. Sparsities are shares of exact zeros over a data set.

    op, input_shape, output_shape  of its first run; "" and () where it is not multiplied
    macs, runs                     of one example; runs: how often it is multiplied
    input_sparsity                 of what it is multiplied with; None where it is not
    output_sparsity                of what leaves its layer; None where that is unknown, see `measure.Zeros`
    ..._by_channel                 one share per channel (convolutions) or feature; () where unknown
    sensitivity                    sparsity -> error of the network when only this weight is pruned
    weight_std                     standard deviation of the weights, the unit of Han's quality parameter
    kept_dense                     why a plan leaves the weight dense; "" where it does not

    >>> record.profile.layer("fc1").sensitivity[0.9]
    0.3
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
    input_sparsity: float | None
    output_sparsity: float | None
    input_sparsity_by_channel: tuple[float, ...]
    output_sparsity_by_channel: tuple[float, ...]
    sensitivity: dict[float, float] = field(default_factory=dict)
    kept_dense: str = ""
    runs: int = 1


@dataclass(frozen=True)
class Profile:
    """What was measured of a network, layer by layer; `error` is on the validation split."""

    layers: tuple[LayerProfile, ...]
    error: float

    def layer(self, name: str) -> LayerProfile:
        """The layer called `name`.

        >>> record.profile.layer("fc1").weights
        48
        """
        return next(layer for layer in self.layers if layer.name == name)


def pair(sizes: Sequence[int]) -> tuple[int, int]:
    """The first and the last of a size for each axis: rows and columns, where torch may have written one number.

    >>> pair((3,)), pair((1, 2))
    ((3, 3), (1, 2))
    """
    return sizes[0], sizes[-1]


def weight_sparsity(weight: Tensor) -> float:
    """Share of exact zeros in a tensor; 0 for an empty one.

    >>> weight_sparsity(torch.tensor([0.0, 1.0]))
    0.5
    """
    return 1 - torch.count_nonzero(weight).item() / weight.numel() if weight.numel() else 0.0


def under_torch_pruning(names: Iterable[object]) -> list[str]:
    """Of the names in a state dict, the tensors that torch.nn.utils.prune has taken apart. What is no text is no name.

    >>> under_torch_pruning(["fc.weight_orig", "fc.weight_mask", "fc.bias"])
    ['fc.weight']
    """
    every = {name for name in names if isinstance(name, str)}
    stems = [name.removesuffix("_orig") for name in sorted(every) if name.endswith("_orig")]
    return [stem for stem in stems if f"{stem}_mask" in every and stem not in every]
