"""Shared weights: the survivors of a layer take few distinct values, its codebook (Deep Compression, section 3).

Zeros stay zeros and have no code. Files of such networks are small, because `pack` finds the few values by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from zeroskip.errors import ModelError, RecipeError
from zeroskip.held import (
    Holder,
    check_holdable,
    held_tensors,
    hold_tensor_,
    original,
    places,
    release_tensors_,
)

STARTS = ("linear", "density", "random")
MOST_BITS = 16


def codebook(values: Tensor, bits: int, *, start: str = "linear", iterations: int = 40) -> Tensor:
    """1-D k-means: at most 2^bits centroids, increasing, for `values` (n,); the values themselves if they are few.

    Lloyd's iterations from centroids that lie evenly between the extremes ("linear", best in the paper since it
    keeps the few large weights), evenly over the sorted values ("density"), or on random ones ("random"; follows
    torch's seed). Raises RecipeError for other starts and widths, ModelError for NaN or Inf.

    >>> codebook(torch.tensor([-1.0, -0.9, 0.5, 0.7]), 1)
    tensor([-0.9500,  0.6000])
    """
    if start not in STARTS:
        raise RecipeError(f'centroids cannot start "{start}". Choose {", ".join(STARTS)}.')
    if not 1 <= bits <= MOST_BITS:
        raise RecipeError(f"a codebook cannot have codes of {bits} bits. Choose 1 to {MOST_BITS}.")
    if not torch.isfinite(values).all():
        raise ModelError("the weights hold NaN or Inf and have no centroids. Train again, with a lower rate.")
    ordered = values.detach().double().flatten().sort().values  # (n,)
    distinct = ordered.unique_consecutive()
    if len(distinct) <= 2**bits:
        return distinct.to(values.dtype)
    centroids = _lloyd(ordered, _first(ordered, 2**bits, start), iterations)
    return centroids.clamp(ordered[0], ordered[-1]).to(values.dtype).unique()


def nearest(values: Tensor, centroids: Tensor) -> Tensor:
    """Index of the nearest of the increasing `centroids` (k,), for each of the `values`.

    >>> nearest(torch.tensor([0.1, 0.9]), torch.tensor([0.0, 1.0])).tolist()
    [0, 1]
    """
    return torch.bucketize(values.detach(), (centroids[1:] + centroids[:-1]) / 2)


def share(weight: Tensor, bits: int, *, start: str = "linear") -> Tensor:
    """`weight` with each non-zero replaced by its centroid; zeros stay. Raises as `codebook` does."""
    survivors = weight[weight != 0]
    centroids = codebook(survivors, bits, start=start)
    return weight.masked_scatter(weight != 0, centroids[nearest(survivors, centroids)])


class Shared(Holder):
    """The holder of a codebook: centroids (k,) -> a tensor of the shape of `tensor`.

    Its gradient is the sum over all weights that share a centroid (Deep Compression, equation 3).
    """

    def __init__(self, tensor: Tensor, centroids: Tensor) -> None:
        super().__init__()
        flat = tensor.detach().flatten()
        self.shape = tensor.shape
        # No buffers, since AveragedModel may average those, and indices have no average.
        self.places = flat.nonzero()[:, 0]
        self.codes = nearest(flat[self.places], centroids)
        self.centroids = centroids

    def forward(self, centroids: Tensor) -> Tensor:
        """The weight with its zeros and shared values."""
        # index_select, since its backward pass adds up a centroid's gradients fastest.
        flat = centroids.new_zeros(self.shape.numel())
        return flat.index_copy(0, self.places, centroids.index_select(0, self.codes)).view(self.shape)

    def right_inverse(self, _: Tensor) -> Tensor:
        """What an optimizer changes in place of the weight."""
        return self.centroids.clone()

    def restored(self, plain: Tensor) -> Tensor:
        """The centroids of a weight that was saved."""
        centroids = self.centroids.to(plain.device, copy=True)
        centroids[self.codes.to(plain.device)] = plain.to(centroids).flatten()[self.places.to(plain.device)]
        return centroids

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Shared:
        """The codes go where the network goes."""
        self.places, self.codes = fn(self.places), fn(self.codes)
        return super()._apply(fn, recurse)


def hold_(model: nn.Module, bits: Mapping[str, int], *, start: str = "linear") -> nn.Module:
    """Make the tensors named in `bits` ("fc1.weight" -> width of its codes) shared while the model trains.

    The model still loads and saves plain names. A tensor of zeros alone stays one: its codebook is empty.

    >>> hold_(model, {"fc1.weight": 2, "fc1.bias": 1}).fc1.weight.unique().numel()  # 4 centroids and zero
    5
    """
    parameters = dict(model.named_parameters())
    for name in bits:
        if name not in parameters:
            raise RecipeError(f'the network has no tensor "{name}". It has {", ".join(parameters)}.')
    for module, tensor in (place for name in bits for place in places(model, parameters[name])):
        check_holdable(module, tensor)
    for name, width in bits.items():
        values = parameters[name].detach().clone()
        centroids = codebook(values[values != 0], width, start=start)
        for module, tensor in places(model, parameters[name]):
            hold_tensor_(module, tensor, Shared(values, centroids))
    return model


def release_(model: nn.Module) -> nn.Module:
    """Make the model plain again, its shared values in place, rounded to float16 where that can hold them."""
    for module in model.modules():
        for tensor in held_tensors(module, Shared):
            centroids = original(module, tensor)
            half = centroids.detach().half()
            if torch.isfinite(half).all() and half.all():
                centroids.data.copy_(half)
    release_tensors_(model, Shared)
    return model


def _first(ordered: Tensor, count: int, start: str) -> Tensor:
    if start == "linear":
        return torch.linspace(float(ordered[0]), float(ordered[-1]), count, dtype=ordered.dtype)
    if start == "density":
        middles = (torch.arange(count) + 0.5) * len(ordered) / count  # of as many equal parts
        return ordered[middles.long()]
    return ordered[torch.randperm(len(ordered))[:count].sort().values]


def _lloyd(ordered: Tensor, centroids: Tensor, iterations: int) -> Tensor:
    """Assign and average, on sorted values: a cluster is an interval, and its sum a difference of running sums."""
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])  # (n + 1,)
    for _ in range(iterations):
        borders = torch.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        edges = torch.cat([borders.new_zeros(1), borders, borders.new_tensor([len(ordered)])])  # (k + 1,)
        counts = edges.diff()
        means = (sums[edges[1:]] - sums[edges[:-1]]) / counts.clamp(min=1)
        moved = torch.where(counts > 0, means, centroids).sort().values
        if torch.equal(moved, centroids):
            break
        centroids = moved
    return centroids[nearest(ordered, centroids).unique()]
