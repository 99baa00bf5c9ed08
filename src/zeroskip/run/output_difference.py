"""Comparing what two ways of computing a network return."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

# A program may differ from the network by this share of the network's largest output: rounding errors of
# float32 grow through the layers, a wrong weight is orders of magnitude worse.
TOLERANCE = 1e-3

FURTHER = 1.5  # times as far from the exact values as others that are rounded to as few bits


def leaves(value: object) -> list[Tensor]:
    """The tensors in what a network returns: a tensor, or tuples, lists and dicts of them.

    >>> len(leaves((torch.zeros(1), {"a": torch.zeros(1)})))
    2
    """
    if isinstance(value, Tensor):
        return [value]
    if not isinstance(value, (Mapping, list, tuple)):
        return []
    parts = value.values() if isinstance(value, Mapping) else value
    return [leaf for part in parts for leaf in leaves(part)]


def difference(value: object, expected: object) -> float:
    """Largest absolute difference between two returned values, where `expected` is finite.

    Infinite where shapes or numbers of tensors differ, or `value` is not finite where `expected` is.

    >>> difference(torch.tensor([1.0, 2.0]), torch.tensor([1.0, float("nan")]))
    0.0
    """
    pairs = list(zip(leaves(value), leaves(expected), strict=False))
    if len(leaves(value)) != len(leaves(expected)) or any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    gaps = [_where_finite((a.double() - b.double()).abs(), b) for a, b in pairs]
    largest = max((float(gap.max()) for gap in gaps if gap.numel()), default=0.0)
    return largest if largest == largest else float("inf")


def relative_error(value: object, expected: object) -> float:
    """`difference` as share of the largest finite expected value; 0 where both are nothing but zeros.

    >>> relative_error(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
    0.5
    """
    gap, most = difference(value, expected), largest(expected)
    return gap / most if most else (0.0 if not gap else float("inf"))


def largest(value: object) -> float:
    """The largest finite magnitude in what a network returns; 0 where there is none.

    >>> largest(torch.tensor([1.0, -3.0, float("nan")]))
    3.0
    """
    finite = [_where_finite(leaf, leaf).double().abs() for leaf in leaves(value)]
    return max((float(leaf.max()) for leaf in finite if leaf.numel()), default=0.0)


def _where_finite(x: Tensor, y: Tensor) -> Tensor:
    """The numbers of x where y is finite; picking them takes long, and mostly all are."""
    finite = y.isfinite()
    return x if bool(finite.all()) else x[finite]


def agree(value: object, expected: object, *, tolerance: float = TOLERANCE) -> bool:
    """Whether two returned values are the same up to rounding, `tolerance` being a share of the largest."""
    return difference(value, expected) <= tolerance * largest(expected) + 1e-6


def no_further(value: object, rounded: object, exact: object) -> bool:
    """Whether a value that is rounded to few bits lies as near to the exact one as another that is rounded likewise.

    Both may be anywhere within the error of rounding: where a number is halfway between two bytes, one last bit before
    decides. Roots of mean squares are compared, over as many examples as there are values; half as much again is near.

    >>> exact = torch.tensor([1.0, 2.0])
    >>> no_further(exact + 0.1, exact - 0.1, exact), no_further(exact + 0.2, exact - 0.1, exact)
    (True, False)
    """
    found = [leaves(each) for each in (value, rounded, exact)]
    several = list(zip(*found, strict=False))
    if len({len(each) for each in found}) > 1 or any(
        a.shape != b.shape or a.shape[1:] != c.shape[1:] for a, b, c in several
    ):
        return False
    parts = [(a.double(), b.double(), c[: len(a)].double()) for a, b, c in several if a.ndim]
    ours, theirs = (sum(float((each[place] - each[2]).square().sum()) for each in parts) for place in (0, 1))
    return bool(parts) and ours <= FURTHER**2 * theirs
