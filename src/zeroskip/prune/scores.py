"""How much a weight matters. A score is one formula: weight -> a tensor of its shape, higher is kept."""

from __future__ import annotations

from torch import Tensor


def magnitude(weight: Tensor) -> Tensor:
    """|w|: small weights matter least (Han et al. 2015). weight of any shape.

    >>> magnitude(torch.tensor([-2.0, 1.0])).tolist()
    [2.0, 1.0]
    """
    return weight.abs()
