"""ExTensor: what its three intersections meet and skip, and real sparse matrices with their authors' bytes and times.

Findings of "sparse-matrices", a plain JSON object: {matrix: {"products", "comparisons", "one", "two", "sums", "again",
"nanoseconds"}}, see trained/matrices.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from zeroskip.papers.common.masked_layers import HAN, network
from zeroskip.papers.common.row import EQUAL, Row, Table, figure, within_share
from zeroskip.papers.extensor import published
from zeroskip.simulate import of_masks, random_masks
from zeroskip.simulate.chips import EXTENSOR
from zeroskip.simulate.dataflows.extensor import joins
from zeroskip.simulate.workload import count_macs

PAPER = "extensor"
MATRICES = "sparse-matrices"
DATA = "needs the matrices of the Stanford collection (--out with --data, or --results)"
ABSENT = "the matrix is none of the Stanford collection, whose others were counted"
CPU = (
    "the mean of tensors from SuiteSparse and FROSTT against MKL and TACO on a server's CPU, which is not here; for "
    "single matrices the authors' own times are known, see above"
)
FLAT = "counted by one intersection of all places, without tiles"
EXPECTED = "expected of random places, in closed form"
TEAAL = "counted by TeAAL's simulator (Nayak et al., MICRO 2023, artifact)"
AUTHORS = "the authors' own, in TeAAL's artifact"
SHARES = (0.0005, 0.005, 0.05)
SIZE = 2048  # rows and columns of the random matrices
BYTES, TIME, NEAR = within_share(0.10), within_share(0.15), within_share(0.05)
ACROSS = "the authors' bytes count the rows of its tiles; places are met along its columns, of which more hold a number"
SLOWER = (
    "the authors' own bytes take {full:,.0f} ns at their full bandwidth; they simulate bursts and rows of DRAM, and "
    "the network on the chip"
)
KNOWN = {("p2p-Gnutella31", "two"): ACROSS, ("email-Enron", "nanoseconds"): SLOWER}


def analytic() -> list[Row]:
    """AlexNet's convolutions, and random matrices, against one flat intersection and against closed forms.

    >>> {row.holds for row in analytic()}
    {True}
    """
    return list(_rows())


def measured_rows(network: str, findings: Mapping[str, Any]) -> list[Row]:
    """Four real matrices multiplied by themselves.

    >>> [row.column for row in measured_rows("sparse-matrices", {"wiki-Vote": {"products": 4_542_805}}) if row.holds]
    ['products']
    """
    if network != MATRICES:
        return []
    table = Table(PAPER, "A x A of sparse matrices", network, DATA)
    return [row for one in published.MATRICES for row in _matrix(table, one, findings.get(one.name, {}))]


def unmeasurable() -> list[Row]:
    """A fifth matrix, and the paper's means over a CPU.

    >>> {row.holds for row in unmeasurable()}
    {None}
    """
    rows = _matrix(Table(PAPER, "A x A of sparse matrices", "", ABSENT), published.POISSON, {})
    table = Table(PAPER, "Speed-up over a CPU of the same bandwidth", "", CPU)
    return rows + [
        table.judge(kernel, "times faster", told, None, TIME, unit="x")
        for kernel, told in published.SPEEDUPS.items()
    ]


@cache
def _rows() -> tuple[Row, ...]:
    return (*_layers(), *(row for share in SHARES for row in _random(share)))


def _layers() -> list[Row]:
    """No product is lost, and how many pairs of tiles are fetched at these shares."""
    table, rows = Table(PAPER, f"AlexNet's convolutions in tiles, {HAN}", "alexnet"), []
    rule = "as many products as one flat intersection has"
    for work in network("alexnet", HAN):
        found, flat = joins(work, EXTENSOR), count_macs(work).both
        products, pairs = found.scalars.met, found.elements
        rows.append(table.judge(work.name, "products", f"{flat:,}", products, EQUAL, trust=FLAT))
        told = f"{pairs.met:,} of {pairs.pairs:,} fetched", products == flat
        rows.append(
            table.fact(work.name, "pairs of tiles", "skipped where one of them is all zeros", told, rule)
        )
    return rows


def _random(share: float) -> list[Row]:
    """Two random matrices with this share of non-zeros."""
    table, row = Table(PAPER, f"Random matrices of {SIZE:,} x {SIZE:,}"), f"{share:.2%} non-zeros"
    one, two = (random_masks.random((SIZE, SIZE), 1 - share, seed=seed) for seed in (1, 2))
    work = of_masks("random", one, two)
    found, flat = joins(work, EXTENSOR), count_macs(work).both
    side = EXTENSOR.tile["element"]
    pairs = found.elements.pairs * (1 - (1 - share) ** side**2) ** 2
    steps = SIZE**3 / side * comparisons(side, share, share)
    return [
        table.judge(row, "products", f"{flat:,}", found.scalars.met, EQUAL, trust=FLAT),
        table.judge(
            row,
            "pairs of tiles that meet",
            f"{pairs:,.0f}",
            found.elements.met,
            NEAR,
            trust=EXPECTED,
        ),
        table.judge(row, "comparisons", f"{steps:,.0f}", found.scalars.steps, NEAR, trust=EXPECTED),
    ]


def comparisons(places: int, one: float, two: float) -> float:
    """Expected comparisons of two lists over so many places, each there with the share of its list.

    A comparison is made where both are, and where a list is alone for the last time before the other one comes.

    >>> comparisons(1, 0.5, 0.5)
    0.25
    """
    both, alone, other = one * two, one * (1 - two), two * (1 - one)
    any_ = both + alone + other
    if not any_:
        return 0.0
    ends = (alone * (other + both) + other * (alone + both)) / any_
    return places * both + ends * sum(1 - (1 - any_) ** left for left in range(places))


def _matrix(table: Table, matrix: published.Matrix, found: Mapping[str, int]) -> list[Row]:
    columns = (
        ("products", "products", EQUAL, "", TEAAL),
        ("comparisons", "comparisons", EQUAL, "", TEAAL),
        ("one", "A to the left, from DRAM", BYTES, "bytes", AUTHORS),
        ("two", "A to the right, from DRAM", BYTES, "bytes", AUTHORS),
        ("sums", "sums, first written", BYTES, "bytes", AUTHORS),
        ("again", "sums, read and written again", BYTES, "bytes", AUTHORS),
        ("nanoseconds", "time", TIME, "ns", AUTHORS),
    )
    full = (
        sum(figure(getattr(matrix, name)).value for name, *_ in columns[2:6]) / EXTENSOR.dram_bytes_per_cycle
    )
    rows = []
    for name, column, rule, unit, trust in columns:
        reason = KNOWN.get((matrix.name, name), "").format(full=full)
        told, ours = getattr(matrix, name), found.get(name)
        rows.append(table.judge(matrix.name, column, told, ours, rule, unit=unit, trust=trust, reason=reason))
    return rows
