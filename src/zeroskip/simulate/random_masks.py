"""Masks made from sparsities, for published tables that come without weights. Three grades, further and further from
even, since balance between lanes depends on it: random, over-dispersed, clustered.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zeroskip.errors import RecipeError


def random(shape: tuple[int, ...], sparsity: float, *, seed: int = 0) -> Tensor:
    """Every place zero independently with this probability; True is a non-zero.

    >>> bool(random((4, 4), 1.0).any())
    False
    """
    return _drawn(shape, torch.tensor(1 - _share(sparsity), dtype=torch.float32), seed)


def over_dispersed(
    shape: tuple[int, ...], sparsity: float, *, variation: float, axes: tuple[int, ...] = (0,), seed: int = 0
) -> Tensor:
    """As `random`, with a probability of its own for each slice along `axes`: filters, channels or both.

    variation  standard deviation / mean of the slices' shares of non-zeros; they follow a beta distribution, or
               for several axes a product of such, cut at 1. RecipeError for one that no share from 0 to 1 can have

    >>> over_dispersed((64, 100), 0.9, variation=0.4).shape
    torch.Size([64, 100])
    """
    kept, generator = 1 - _share(sparsity), _generator(seed)
    most = math.sqrt((1 - kept) / kept) if kept else 0.0
    if not 0 <= variation < max(most, 1e-12):
        raise RecipeError(
            f"variation {variation} of a sparsity of {sparsity} is not from 0 to below {most:.3g}, "
            f"the most that shares from 0 to 1 can have"
        )
    chance = torch.full([1] * len(shape), kept)  # of a slice; the places of one share it
    for axis in axes if variation else ():
        sizes = [1] * len(shape)
        sizes[axis] = shape[axis]
        chance = chance * _beta(kept, variation, shape[axis], generator).reshape(sizes) / kept
    return _drawn(shape, chance.clamp(max=1), seed + 1)


def clustered(shape: tuple[int, ...], sparsity: float, *, reach: int = 2, seed: int = 0) -> Tensor:
    """Zeros in patches, as in feature maps: noise smoothed over `reach` pixels each way, cut at one height.

    The last two axes are rows and columns. The share of zeros is met exactly, up to one place.

    >>> clustered((1, 8, 16, 16), 0.75).float().mean()
    tensor(0.2500)
    """
    sparsity, noise = _share(sparsity), torch.randn(shape, generator=_generator(seed))
    sides = [min(reach, (size - 1) // 2) for size in shape[-2:]]
    kernel = tuple(2 * side + 1 for side in sides)
    flat = noise.reshape(1, -1, *shape[-2:])
    smooth = torch.nn.functional.avg_pool2d(flat, kernel, 1, tuple(sides), count_include_pad=False)
    # At the border fewer are averaged, which would leave more extremes there.
    there = torch.nn.functional.avg_pool2d(torch.ones_like(flat), kernel, 1, tuple(sides))
    order = (smooth * there.sqrt()).flatten().argsort(descending=True)
    mask = torch.zeros(order.shape, dtype=torch.bool)
    mask[order[: round((1 - sparsity) * len(order))]] = True
    return mask.reshape(shape)


def _beta(mean: float, variation: float, size: int, generator: torch.Generator) -> Tensor:
    strength = (1 - mean) / mean / variation**2 - 1
    first, second = (
        torch._standard_gamma(torch.full((size,), value), generator=generator)
        for value in (mean * strength, (1 - mean) * strength)
    )
    return first / (first + second)


def _drawn(shape: tuple[int, ...], chance: Tensor, seed: int) -> Tensor:
    return torch.rand(shape, generator=_generator(seed)) < chance


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _share(sparsity: float) -> float:
    if not 0 <= sparsity <= 1:  # also catches NaN
        raise RecipeError(f"sparsity {sparsity} is not a share from 0 to 1. 0.9 means 90 % zeros")
    return sparsity
