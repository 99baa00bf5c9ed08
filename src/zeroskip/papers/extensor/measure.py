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

from zeroskip.data import data_folder, npz
from zeroskip.errors import DataError
from zeroskip.papers.common.paper import Setup
from zeroskip.papers.extensor import published
from zeroskip.papers.extensor.published import SquaredMatrix
from zeroskip.simulate import Accelerator
from zeroskip.simulate.chips import EXTENSOR
from zeroskip.simulate.dataflows.extensor import product
from zeroskip.simulate.dataflows.sparse_tiles import of_places
from zeroskip.simulate.slot_audit import roof

ELEMENT = 128  # rows and columns of an element's tile, for all matrices
SUM = 16  # bytes of a sum with its two coordinates


def measure_matrices(setup: Setup) -> dict[str, dict[str, int]]:
    """What extensor/rows.py reads, of A x A on ExTensor. Raises DataError where a file is absent or damaged."""
    folder = data_folder("accelerators")
    return {
        matrix.name: squared(read_matrix(folder / f"{matrix.name}.txt.gz", matrix), matrix)
        for matrix in published.MATRICES
    }


def read_matrix(path: Path, matrix: SquaredMatrix) -> np.ndarray:
    """Rows and columns (n, 2) of the entries, from 0; DataError where they are not the matrix's.

    >>> tiny = SquaredMatrix("tiny", 3, 2, 1, (1, 1, 1), *"1234567")
    >>> _ = Path("tiny.txt").write_text("# from, to\\n1 3\\n2 2")
    >>> read_matrix(Path("tiny.txt"), tiny).tolist()
    [[0, 2], [1, 1]]
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy only warns of a file without a number
            entries = np.loadtxt(path, np.int64, comments="#", ndmin=2)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}. Check --data DIR or ZEROSKIP_DATA.") from None
    except (OSError, EOFError, ValueError, UserWarning, zlib.error) as fact:
        raise DataError(npz.damaged(path, fact)) from None
    npz.check(path, entries.shape[1] == 2, f"{entries.shape[1]} numbers in a line, not 2")
    places = np.unique(entries, return_inverse=True)[1] if matrix.first is None else entries - matrix.first
    rows = int(places.max()) + 1
    npz.check(path, places.min() >= 0 and rows <= matrix.rows, f"{rows} rows, not {matrix.rows}")
    npz.check(path, len(entries) == matrix.entries, f"{len(entries)} entries, not {matrix.entries}")
    return places.reshape(-1, 2)


def squared(places: np.ndarray, matrix: SquaredMatrix) -> dict[str, int]:
    """What A x A takes, in the tiles that the authors chose for it.

    >>> places, matrix = np.array([[0, 2], [1, 1]]), SquaredMatrix("tiny", 3, 2, 1, (1, 1, 1), *"1234567")
    >>> squared(places, matrix)["products"]
    1
    """
    chip, shape = chip_for(matrix), (matrix.rows, matrix.rows)
    result = product(of_places(places, shape, ELEMENT), of_places(places[:, ::-1], shape, ELEMENT), chip)
    return {
        "products": result.sums.products,
        "comparisons": result.scalars.steps,
        "one": result.moved["DRAM", "W"],
        "two": result.moved["DRAM", "A"],
        "sums": result.sums.new * SUM,
        "again": result.sums.again * SUM * 2,
        "nanoseconds": roof(chip, result.cycles, result.moved)[0],
    }


def chip_for(matrix: SquaredMatrix) -> Accelerator:
    """ExTensor with the tiles for that matrix.

    >>> chip_for(published.MATRICES[0]).tile["outputs"]
    1536
    """
    sides = zip(("outputs", "inputs", "positions"), matrix.tiles, strict=True)
    return replace(EXTENSOR, tile={"element": ELEMENT} | {name: ELEMENT * count for name, count in sides})
