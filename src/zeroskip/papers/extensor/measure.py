"""Real sparse matrices through ExTensor, where its authors' bytes and times for them are known; nothing is trained.

The files are those of the Stanford collection of networks (SNAP) as they are offered there, `wiki-Vote.txt.gz` and so
on: a pair of numbers for each entry. They are looked for in the folder `accelerators` of ZEROSKIP_DATA.
"""

from __future__ import annotations

import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from zeroskip.concepts import Progress, silent
from zeroskip.data import data_folder, npz
from zeroskip.errors import DataError
from zeroskip.papers.extensor import published
from zeroskip.simulate import Accelerator
from zeroskip.simulate.chips import EXTENSOR
from zeroskip.simulate.dataflows.extensor import product
from zeroskip.simulate.dataflows.sparse_tiles import of_places
from zeroskip.simulate.slot_audit import roof

ELEMENT = 128  # rows and columns of an element's tile, for all matrices
SUM = 16  # bytes of a sum with its two coordinates


def measure_matrices(
    *, out: Path, seeds: int = 1, progress: Progress = silent, weights: object = None
) -> dict[str, dict[str, int]]:
    """{matrix: {"products", "comparisons", "one", "two", "sums", "again", "nanoseconds"}} of A x A on ExTensor.

    There is nothing random, nothing to start from, and nothing is kept in `out`. Raises DataError where a file is
    absent or damaged.

    >>> measure_matrices(out=Path("runs/extensor"))["wiki-Vote"]["products"]
    4542805
    """
    folder = data_folder("accelerators")
    return {one.name: squared(read(folder / f"{one.name}.txt.gz", one), one) for one in published.MATRICES}


def read(path: Path, matrix: published.Matrix) -> np.ndarray:
    """Rows and columns (n, 2) of the entries, from 0; DataError where they are not the matrix's.

    >>> read(Path("wiki-Vote.txt.gz"), published.MATRICES[0]).shape
    (103689, 2)
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy only warns of a file without a number
            found = np.loadtxt(path, np.int64, comments="#", ndmin=2)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}. Check --data DIR or ZEROSKIP_DATA.") from None
    except (OSError, EOFError, ValueError, UserWarning, zlib.error) as fact:
        raise DataError(npz.damaged(path, fact)) from None
    npz.check(path, found.shape[1] == 2, f"{found.shape[1]} numbers in a line, not 2")
    places = np.unique(found, return_inverse=True)[1] if matrix.first is None else found - matrix.first
    rows = int(places.max()) + 1
    npz.check(path, places.min() >= 0 and rows <= matrix.rows, f"{rows} rows, not {matrix.rows}")
    npz.check(path, len(found) == matrix.entries, f"{len(found)} entries, not {matrix.entries}")
    return places.reshape(-1, 2)


def squared(places: np.ndarray, matrix: published.Matrix) -> dict[str, int]:
    """What A x A takes, in the tiles that the authors chose for it.

    >>> squared(places, published.MATRICES[0])["comparisons"]
    55682881
    """
    chip, shape = machine(matrix), (matrix.rows, matrix.rows)
    found = product(of_places(places, shape, ELEMENT), of_places(places[:, ::-1], shape, ELEMENT), chip)
    return {
        "products": found.sums.products,
        "comparisons": found.scalars.steps,
        "one": found.moved["DRAM", "W"],
        "two": found.moved["DRAM", "A"],
        "sums": found.sums.new * SUM,
        "again": found.sums.again * SUM * 2,
        "nanoseconds": roof(chip, found.cycles, found.moved)[0],
    }


def machine(matrix: published.Matrix) -> Accelerator:
    """ExTensor with the tiles for that matrix.

    >>> machine(published.MATRICES[0]).tile["outputs"]
    1536
    """
    sides = zip(("outputs", "inputs", "positions"), matrix.tiles, strict=True)
    return replace(EXTENSOR, tile={"element": ELEMENT} | {name: ELEMENT * count for name, count in sides})
