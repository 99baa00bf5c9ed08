"""Random pruning, which Han et al. 2015 tried and found worse than thresholds."""

from __future__ import annotations

import torch
from torch import Tensor

from zeroskip.patterns import Pattern, check_sparsity


def probabilistic(weight: Tensor, sparsity: float, generator: torch.Generator) -> Tensor:
    """A mask shaped like `weight` that drops exactly round(sparsity x weights) of them at random, small ones
    more often: survivors are drawn without replacement, each draw in proportion to |w| (Han et al. 2015,
    section 3, name the idea; the law is ours). A zero survives only where too few other weights are left.

    Drawn by Gumbel keys log |w| - log(-log u), the largest of which stay: the logarithm of the keys of
    Efraimidis and Spirakis 2006, so that tiny weights do not overflow. Raises PatternError for a sparsity
    outside 0..1.

    >>> probabilistic(torch.tensor([0.0, 1.0, 2.0]), 1 / 3, torch.Generator().manual_seed(0))
    tensor([False,  True,  True])
    """
    check_sparsity(sparsity, Pattern("free"))
    size = weight.detach().abs().double().flatten()
    u = torch.rand(len(size), generator=generator, device=generator.device, dtype=torch.float64)
    # u may be exactly 0, whose key is the lowest: only a zero weight may have that one.
    u = u.clamp(min=torch.finfo(torch.float64).tiny).to(size.device)
    keys = size.log() - (-u.log()).log()
    kept = len(size) - round(sparsity * len(size))
    mask = torch.zeros(len(size), dtype=torch.bool, device=size.device)
    mask[keys.argsort(descending=True, stable=True)[:kept]] = True
    return mask.reshape(weight.shape)
