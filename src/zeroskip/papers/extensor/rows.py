"""ExTensor: what its three intersections meet and skip, and real sparse matrices beside their authors' figures."""

from __future__ import annotations

from collections.abc import Mapping

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.findings import read
from zeroskip.papers.common.paper import Findings
from zeroskip.papers.common.rules import EQUAL, figure, within_share
from zeroskip.papers.common.tables import Table
from zeroskip.papers.extensor import published
from zeroskip.papers.published_shares import HAN, workloads
from zeroskip.simulate import of_masks, random_masks
from zeroskip.simulate.chips import EXTENSOR
from zeroskip.simulate.dataflows.extensor import joins
from zeroskip.simulate.workload import count_macs

MatrixFindings = dict[str, dict[str, int]]
"""Matrix -> what was counted of it by extensor/measure.py: "products", "comparisons", bytes from DRAM of the matrix to
the left ("one") and to the right ("two"), bytes of the "sums" and of those written "again", "nanoseconds"."""

SQUARED = "A x A of sparse matrices"
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


def analytic() -> list[PaperRow]:
    """AlexNet's convolutions, and random matrices, against one flat intersection and against closed forms."""
    return [*_layers(), *(row for share in SHARES for row in _random(share))]


def measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    """Four real matrices multiplied by themselves.

    >>> [row.column for row in measured_rows("sparse-matrices", {"wiki-Vote": {"products": 4_542_805}}) if row.holds]
    ['products']
    """
    if network != published.NETWORK:
        return []
    table, counted = Table(published.NAME, SQUARED, network, DATA), read(MatrixFindings, findings)
    matrices = published.MATRICES
    return [row for matrix in matrices for row in _matrix(table, matrix, counted.get(matrix.name, {}))]


def unmeasurable() -> list[PaperRow]:
    """A fifth matrix, and the paper's means over a CPU."""
    rows = _matrix(Table(published.NAME, SQUARED, "", ABSENT), published.POISSON, {})
    table = Table(published.NAME, "Speed-up over a CPU of the same bandwidth", "", CPU)
    for kernel, printed in published.SPEEDUPS.items():
        rows.append(table.judge(kernel, "times faster", figure(printed, "x"), None, TIME))
    return rows


def _layers() -> list[PaperRow]:
    """No product is lost, and how many pairs of tiles are fetched at these shares."""
    table, rows = Table(published.NAME, f"AlexNet's convolutions in tiles, {HAN}", "alexnet"), []
    claim, rule = "skipped where one of them is all zeros", "as many products as one flat intersection has"
    for work in workloads("alexnet", HAN):
        joined, flat = joins(work, EXTENSOR), count_macs(work).both
        products, pairs = joined.scalars.met, joined.elements
        rows.append(table.judge(work.name, "products", figure(f"{flat:,}", "", FLAT), products, EQUAL))
        verdict = f"{pairs.met:,} of {pairs.pairs:,} fetched", products == flat
        rows.append(table.fact(work.name, "pairs of tiles", claim, verdict, rule))
    return rows


def _random(share: float) -> list[PaperRow]:
    """Two random matrices with this share of non-zeros."""
    table, row = Table(published.NAME, f"Random matrices of {SIZE:,} x {SIZE:,}"), f"{share:.2%} non-zeros"
    left, right = (random_masks.random((SIZE, SIZE), 1 - share, seed=seed) for seed in (1, 2))
    work = of_masks("random", left, right)
    joined, flat = joins(work, EXTENSOR), count_macs(work).both
    side = EXTENSOR.tile["element"]
    pairs = joined.elements.pairs * (1 - (1 - share) ** side**2) ** 2
    steps = SIZE**3 / side * comparisons(side, share, share)
    return [
        table.judge(row, column, figure(printed, "", trust), ours, rule)
        for column, printed, trust, ours, rule in (
            ("products", f"{flat:,}", FLAT, joined.scalars.met, EQUAL),
            ("pairs of tiles that meet", f"{pairs:,.0f}", EXPECTED, joined.elements.met, NEAR),
            ("comparisons", f"{steps:,.0f}", EXPECTED, joined.scalars.steps, NEAR),
        )
    ]


def comparisons(places: int, left: float, right: float) -> float:
    """Expected comparisons of two lists over so many places, each there with the share of its list.

    A comparison is made where both are, and where a list is alone for the last time before the other one comes.

    >>> comparisons(1, 0.5, 0.5)
    0.25
    """
    both, alone, other = left * right, left * (1 - right), right * (1 - left)
    any_ = both + alone + other
    if not any_:
        return 0.0
    ends = (alone * (other + both) + other * (alone + both)) / any_
    return places * both + ends * sum(1 - (1 - any_) ** rest for rest in range(places))


def _matrix(table: Table, matrix: published.SquaredMatrix, counted: Mapping[str, int]) -> list[PaperRow]:
    """Rows of one matrix; the first word of each line is the key of its findings."""
    columns = (
        ("products", "products", figure(matrix.products, "", TEAAL), EQUAL),
        ("comparisons", "comparisons", figure(matrix.comparisons, "", TEAAL), EQUAL),
        ("one", "A to the left, from DRAM", figure(matrix.left, "bytes", AUTHORS), BYTES),
        ("two", "A to the right, from DRAM", figure(matrix.right, "bytes", AUTHORS), BYTES),
        ("sums", "sums, first written", figure(matrix.sums, "bytes", AUTHORS), BYTES),
        ("again", "sums, read and written again", figure(matrix.again, "bytes", AUTHORS), BYTES),
        ("nanoseconds", "time", figure(matrix.nanoseconds, "ns", AUTHORS), TIME),
    )
    moved = sum(printed.value for _, _, printed, rule in columns if rule is BYTES)
    full = moved / EXTENSOR.dram_bytes_per_cycle
    reasons = {key: KNOWN.get((matrix.name, key), "").format(full=full) for key, *_ in columns}
    return [
        table.judge(matrix.name, column, printed, counted.get(key), rule, reasons[key])
        for key, column, printed, rule in columns
    ]
