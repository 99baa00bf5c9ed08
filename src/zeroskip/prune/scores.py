"""How much a weight matters. A score is one formula: (weight, moment) -> a tensor of its shape, higher is kept.

It is 0 where the weight is 0 and above 0 elsewhere: what is 0 counts as gone already.

moment  the mean square of the weight's gradient, as Adam keeps it: there while a network trains, None otherwise

Half precision is scored in float32, where the square of a small weight is not yet 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zeroskip.errors import RecipeError


def magnitude(weight: Tensor, moment: Tensor | None = None) -> Tensor:
    """|w|: small weights matter least (Han et al. 2015). weight of any shape.

    >>> magnitude(torch.tensor([-2.0, 1.0])).tolist()
    [2.0, 1.0]
    """
    return _exact(weight).abs()


def saliency(weight: Tensor, moment: Tensor | None = None) -> Tensor:
    """w^2 x sqrt(mean g^2): what the loss would mind, as in LeCun et al. 1990 (OBD) with the gradient's size in
    place of the curvature. Comparable between layers, so that one threshold serves a whole network.

    Raises RecipeError where no moment is known: the score exists while a network trains.

    >>> saliency(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 4.0])).tolist()
    [4.0, 2.0]
    """
    if moment is None:
        raise RecipeError(
            'the score "saliency" needs gradients: give the round gradual=0.7, so that it prunes while it trains.'
        )
    return _exact(weight).square() * (_exact(moment) + _SMALLEST).sqrt()


OF_GRADIENTS = ("saliency",)
"""The scores that need a moment."""


def _exact(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor


# Weights that never had a gradient are still told apart by their size.
_SMALLEST = torch.finfo(torch.float32).tiny
