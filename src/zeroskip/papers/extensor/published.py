"""Hegde et al.: ExTensor: An Accelerator for Sparse Tensor Algebra, MICRO 2019."""

from __future__ import annotations

from dataclasses import dataclass

NAME = "extensor"
NETWORK = "sparse-matrices"
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
class SquaredMatrix:
    """A x A on ExTensor, as its authors gave it to TeAAL (Nayak et al., MICRO 2023, artifact).

    rows         of the square matrix;  entries: its non-zeros
    first        what its file calls the first row, None where rows without an entry were left out and the others
                 counted anew
    tiles        of the buffer, in tiles of 128 rows and columns: rows and columns to the left, columns to the right
    products     effectual, counted by TeAAL;  comparisons: of coordinates, likewise
    left, right  bytes from DRAM of the matrix to the left and to the right
    sums, again  bytes of the sums' first writing, and of reading and writing them once more
    """

    name: str
    rows: int
    entries: int
    first: int | None
    tiles: tuple[int, int, int]
    products: str
    comparisons: str
    left: str
    right: str
    sums: str
    again: str
    nanoseconds: str


# fmt: off
MATRICES = (
    SquaredMatrix("wiki-Vote", 8_297, 103_689, 1, (12, 64, 128),
                  "4,542,805", "55,682,881", "1,650,800", "1,650,800", "29,297,792", "12.4M", "681,000"),
    SquaredMatrix("p2p-Gnutella31", 62_586, 147_892, 0, (32, 64, 128),
                  "538,318", "29,738,344", "12,312,364", "3,391,516", "8,601,616", "53,963,488", "1,089,105"),
    SquaredMatrix("ca-CondMat", 23_133, 186_936, None, (32, 64, 96),
                  "4,127,524", "175,160,934", "8,028,528", "4,014,264", "37,686,992", "89,728,672", "2,128,000"),
    SquaredMatrix("email-Enron", 36_692, 367_662, 0, (8, 256, 32),
                  "51,501,448", "585,522,222", "49,835,660", "6,145,816", "488M", "132.6M", "12,603,445"),
)
# Of the fifth matrix only the figures are here: it is none of the Stanford collection.
POISSON = SquaredMatrix("poisson3Da", 13_514, 352_762, None, (32, 64, 96),
                        "11,768,678", "761,217,266", "12,591,632", "6,295,816", "47,320,480", "94,640,960", "6,086,000")
# fmt: on
