"""Printed figures, and the rules that say whether ours holds beside one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

READ = "read in the paper"
RECOMPUTED = "recomputed from the paper's figures"
OURS = "our own bound; the paper has no such figure"

_SCALES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}
_SLACK = 1 + 1e-9  # a difference of exactly the tolerance is within it, whatever floating point says


@dataclass(frozen=True)
class Figure:
    """A number as printed: its value, what one step of its last digit is worth, and how it is known."""

    value: float
    digit: float
    unit: str = ""
    trust: str = READ


@dataclass(frozen=True)
class Rule:
    """What "holds" means: `holds(published, ours)`, and the same in words."""

    text: str
    holds: Callable[[Figure, float], bool]


def figure(printed: str, unit: str = "", trust: str = READ) -> Figure:
    """A printed number with its precision; K, M and B are thousands, millions and billions.

    >>> figure("0.5K", "weights")
    Figure(value=500.0, digit=100.0, unit='weights', trust='read in the paper')
    """
    match = re.fullmatch(r"(-?[\d,]+(?:\.(\d+))?)([KMB]?)", printed)
    assert match, printed
    number, decimals, letter = match.groups()
    scale = _SCALES[letter]
    # Rounded, so that 0.07 is 0.07 after a multiplication too.
    return Figure(
        round(float(number.replace(",", "")) * scale, 6), scale * 10.0 ** -len(decimals or ""), unit, trust
    )


def within(tolerance: float, words: str) -> Rule:
    """Ours differs from the published figure by at most `tolerance`."""
    return Rule(f"within {words}", lambda published, ours: abs(ours - published.value) <= tolerance * _SLACK)


def within_share(share: float) -> Rule:
    """Ours differs from the published figure by at most this share of it."""
    return Rule(
        f"within {100 * share:g} % of the published figure",
        lambda published, ours: abs(ours - published.value) <= share * abs(published.value) * _SLACK,
    )


def at_most(limit: float | None = None, words: str = "the published figure", slack: float = 0.0) -> Rule:
    """Ours is no more than `limit`, or than the published figure plus `slack`."""
    return Rule(
        f"at most {words}",
        lambda published, ours: ours <= (published.value if limit is None else limit) + slack + 1e-9,
    )


def at_least(words: str = "the published figure", slack: float = 0.0) -> Rule:
    """Ours is no less than the published figure minus `slack`."""
    return Rule(f"at least {words}", lambda published, ours: ours >= published.value - slack)


AT_LEAST = at_least()
ROUNDS = Rule(
    "rounds to the published figure",
    lambda published, ours: abs(ours - published.value) <= published.digit / 2 * _SLACK,
)
LAST_DIGIT = Rule(
    "within one step of the last digit printed",
    lambda published, ours: abs(ours - published.value) <= published.digit * _SLACK,
)
EQUAL = Rule("equal", lambda published, ours: ours == published.value)
