"""Deep Compression's relative index (Han, Mao and Dally 2016, section 2): entries of a gap and a code.

Each entry is the number of zeros since the one before, in `width` bits, and a code, where 0 is a zero and any
other number a kept weight. Before more than 2^width - 1 zeros stands a filler: an entry of gap 2^width - 1 and
code 0, which is a zero itself and so goes 2^width positions on. Zeros after the last kept weight cost nothing.
"""

from __future__ import annotations

import numpy as np

from zeroskip.codecs import gaps
from zeroskip.errors import PackError


def encode(codes: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes (size,), 0 where nothing is kept, as gaps (entries,) uint16 and entry codes (entries,).

    >>> encode(np.array([0, 7, 0, 0, 0, 0, 0, 9]), 2)
    (array([1, 3, 1], dtype=uint16), array([7, 0, 9]))
    """
    mask = codes != 0
    skips, own = gaps.bridged(gaps.zeros_before(mask), _step(width), _step(width) - 1)
    entries = np.zeros(len(skips), codes.dtype)
    entries[own] = codes[mask]
    return skips, entries


def decode(skips: np.ndarray, codes: np.ndarray, size: int, width: int) -> np.ndarray:
    """The codes (size,) of entries whose gaps are `skips`; raises PackError for entries that it would not write.

    >>> decode(np.array([1, 3, 1]), np.array([7, 0, 9]), 8, 2)
    array([0, 7, 0, 0, 0, 0, 0, 9])
    """
    full = _step(width) - 1
    check_fillers(skips, codes, full)
    if len(codes) and codes[-1] == 0:
        raise PackError(f"the last of its {len(codes):,} entries is a filler, which leads nowhere")
    places = np.cumsum(skips.astype(np.int64) + 1) - 1  # (entries,)
    if len(places) and places[-1] >= size:
        raise PackError(f"the gaps lead to position {places[-1]:,} of {size:,}")
    dense = np.zeros(size, codes.dtype)
    dense[places] = codes
    return dense


def check_fillers(skips: np.ndarray, codes: np.ndarray, full: int) -> None:
    """PackError unless there are as many gaps, `skips`, as codes, each is 0 ... `full`, and that of a filler `full`."""
    if skips.shape != codes.shape or skips.ndim != 1 or skips.dtype.kind not in "iu":
        raise PackError(f"gaps {skips.shape} of {skips.dtype} and codes {codes.shape} are no list of entries")
    if len(skips) and not 0 <= skips.min() <= skips.max() <= full:
        raise PackError(f"gaps from {skips.min()} to {skips.max()} are not all between 0 and {full:,}")
    if (skips[codes == 0] != full).any():
        raise PackError(f"an entry of code 0 has a gap of {skips[codes == 0].min()}, a filler has {full:,}")


def fillers(mask: np.ndarray, width: int) -> int:
    """Number of entries that hold no kept weight of mask (size,).

    >>> fillers(np.array([0, 7, 0, 0, 0, 0, 0, 9]) != 0, 2)
    1
    """
    return int((gaps.zeros_before(mask) // _step(width)).sum())


def bits(mask: np.ndarray, width: int, code_bits: int) -> int:
    """Bits of all entries, gaps of `width` and codes of `code_bits` each.

    >>> bits(np.array([0, 7, 0, 0, 0, 0, 0, 9]) != 0, 2, 5)
    21
    """
    return (int(np.count_nonzero(mask)) + fillers(mask, width)) * (width + code_bits)


def expected_bits(size: int, sparsity: float, width: int, code_bits: int) -> float:
    """Mean of `bits` over random masks of `size` positions, each zero with probability `sparsity`.

    For large sizes this is size * (1 - sparsity) * (1 + f) * (width + code_bits), with f = q / (1 - q) and
    q = sparsity^(2^width). Raises RecipeError for a sparsity outside 0..1.

    >>> round(expected_bits(1_000_000, 0.91, 4, 5) / 1e6, 3)  # fc6 of AlexNet: bits for each weight
    1.04
    """
    return (width + code_bits) * gaps.expected_entries(size, sparsity, _step(width))


def _step(width: int) -> int:
    """Positions that a filler skips."""
    if not 1 <= width <= 16:
        raise PackError(f"gaps of a relative index are 1 to 16 bits wide, not {width}")
    return 2**width
