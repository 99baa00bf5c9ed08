"""Hegde et al.: ExTensor: An Accelerator for Sparse Tensor Algebra, MICRO 2019."""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "ExTensor (Hegde, Asghari-Moghaddam, Pellauer, Crago, Jaleel, Solomonik, Emer, Fletcher, MICRO 2019)"

# Times faster than a server's CPU, scaled to the same bandwidth, mean of each kernel's tensors.
SPEEDUPS = {
    "sparse matrix x sparse matrix": "3.4",
    "sparse matrix x dense matrix": "1.3",
    "tensor x vector": "2.8",
    "tensor x matrix": "24.9",
    "sampled dense matrix x dense matrix": "2.7",
}


@dataclass(frozen=True)
class Matrix:
    """A x A on ExTensor, as its authors gave it to TeAAL (Nayak et al., MICRO 2023, artifact).

    rows         of the square matrix;  entries: its non-zeros
    first        what its file calls the first row, None where rows without an entry were left out and the others
                 counted anew
    tiles        of the buffer, in tiles of 128 rows and columns: rows and columns to the left, columns to the right
    products     effectual, counted by TeAAL;  comparisons: of coordinates, likewise
    one, two     bytes from DRAM of the matrix to the left and to the right
    sums, again  bytes of the sums' first writing, and of reading and writing them once more
    """

    name: str
    rows: int
    entries: int
    first: int | None
    tiles: tuple[int, int, int]
    products: str
    comparisons: str
    one: str
    two: str
    sums: str
    again: str
    nanoseconds: str


MATRICES = (
    Matrix(
        "wiki-Vote",
        8_297,
        103_689,
        1,
        (12, 64, 128),
        products="4,542,805",
        comparisons="55,682,881",
        one="1,650,800",
        two="1,650,800",
        sums="29,297,792",
        again="12.4M",
        nanoseconds="681,000",
    ),
    Matrix(
        "p2p-Gnutella31",
        62_586,
        147_892,
        0,
        (32, 64, 128),
        products="538,318",
        comparisons="29,738,344",
        one="12,312,364",
        two="3,391,516",
        sums="8,601,616",
        again="53,963,488",
        nanoseconds="1,089,105",
    ),
    Matrix(
        "ca-CondMat",
        23_133,
        186_936,
        None,
        (32, 64, 96),
        products="4,127,524",
        comparisons="175,160,934",
        one="8,028,528",
        two="4,014,264",
        sums="37,686,992",
        again="89,728,672",
        nanoseconds="2,128,000",
    ),
    Matrix(
        "email-Enron",
        36_692,
        367_662,
        0,
        (8, 256, 32),
        products="51,501,448",
        comparisons="585,522,222",
        one="49,835,660",
        two="6,145,816",
        sums="488M",
        again="132.6M",
        nanoseconds="12,603,445",
    ),
)
# Of the fifth matrix only the figures are here: it is none of the Stanford collection.
POISSON = Matrix(
    "poisson3Da",
    13_514,
    352_762,
    None,
    (32, 64, 96),
    products="11,768,678",
    comparisons="761,217,266",
    one="12,591,632",
    two="6,295,816",
    sums="47,320,480",
    again="94,640,960",
    nanoseconds="6,086,000",
)
