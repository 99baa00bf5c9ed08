"""How sparsity grows over rounds: each schedule is a tuple of sparsities, the last one final."""

from __future__ import annotations

from zeroskip.errors import RecipeError


def one_shot(final: float) -> tuple[float, ...]:
    """Everything in one round."""
    return (_share(final),)


def linear(final: float, rounds: int) -> tuple[float, ...]:
    """Equal steps.

    >>> linear(0.9, 3)
    (0.3, 0.6, 0.9)
    """
    return tuple(_share(final) * step / rounds for step in range(1, _positive(rounds) + 1))


def cubic(final: float, rounds: int) -> tuple[float, ...]:
    """Fast first, slow last: final x (1 - (1 - t)^3) (Zhu and Gupta 2017, equation 1).

    >>> cubic(0.8, 2)
    (0.7000000000000001, 0.8)
    """
    return tuple(_share(final) * (1 - (1 - step / rounds) ** 3) for step in range(1, _positive(rounds) + 1))


def geometric(kept: float, rounds: int) -> tuple[float, ...]:
    """Each round keeps the same share of what the one before left (Han et al. 2015's iterative pruning).

    >>> geometric(0.5, 3)
    (0.5, 0.75, 0.875)
    """
    return tuple(1 - _share(kept) ** step for step in range(1, _positive(rounds) + 1))


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise RecipeError(f"{value} is not a share from 0 to 1. 0.9 means 90 %")
    return value


def _positive(rounds: int) -> int:
    if rounds < 1:
        raise RecipeError(f"{rounds} rounds are too few. A schedule has at least one")
    return rounds
