"""Linear layers that are so alike that kernels take the same time for them: one is timed for all."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from zeroskip.concepts import Layer, weight_sparsity

LEAST = 1 << 16  # weights; building and timing all kernels of a smaller layer takes no time
NEAR = 0.01  # by which shares may differ
BLOCK = 4


@dataclass(frozen=True)
class Likeness:
    """What the time of a linear layer's kernels depends on.

    sizes   of weight and input, ReLU, bias
    shares  of zeros; how much rows and columns differ in them; of blocks along rows and columns that are all zero
    """

    sizes: tuple[object, ...]
    shares: tuple[float, ...]

    def is_near(self, other: Likeness) -> bool:
        """Whether what was measured for one holds for the other.

        >>> Likeness((8,), (0.9,)).is_near(Likeness((8,), (0.905,)))
        True
        """
        pairs = zip(self.shares, other.shares, strict=True)
        return self.sizes == other.sizes and all(abs(mine - theirs) <= NEAR for mine, theirs in pairs)


def likeness(layer: Layer, relu: bool, x: Tensor) -> Likeness | None:
    """The likeness of a layer and its input `x`; None where the layer is to be timed by itself.

    So are those that are small or no linear ones, and whose inputs hold zeros, since kernels look for them.

    >>> likeness(layer, True, x) is None  # it is small
    True
    """
    weight = layer.weight.detach()
    if layer.op != "linear" or weight.numel() < LEAST or weight_sparsity(x) > NEAR:
        return None
    kept = weight != 0
    numbers = kept.float()
    rows, columns = numbers.mean(1), numbers.mean(0)
    sizes = tuple(weight.shape), tuple(x.shape), relu, layer.bias is None, weight.dtype
    shares = (
        float(rows.mean()), float(rows.std()), float(columns.std()), _used(kept), _used(kept.T),
    )  # fmt: skip
    return Likeness(sizes, shares)


def _used(kept: Tensor) -> float:
    """Share of the blocks along the last axis, whole ones only, that keep a weight."""
    whole = kept[:, : kept.shape[1] // BLOCK * BLOCK]
    return float(whole.reshape(len(kept), -1, BLOCK).any(2).float().mean()) if whole.numel() else 0.0
