"""Forest CoverType (Blackard and Dean 1999): 82,962 patches of forest, ten measures, two kinds of ground, 7 covers.

Splits: the last 10,000 rows are test; of the others 10,000, classes in proportion, are validation.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch

from zeroskip.data import npz
from zeroskip.data.splits import Split, Splits, data_folder, hold_out

HELD_OUT = 10_000
NUMERIC, WILDERNESS, SOIL, COVERS = 10, 4, 40, 7


def load(folder: str | Path | None = None) -> Splits:
    """The three splits; inputs (count, 54): ten measures with mean 0 and deviation 1 on the training split, then one
    of 4 areas and one of 40 soils as ones.

    folder  parent of `forest/`, by default ZEROSKIP_DATA. Raises DataError where the file is absent or damaged.
    """
    return _load(data_folder("forest", folder) / "forest_covertype.npz")


def read(path: Path) -> Split:
    """All rows as stored, inputs (count, 54) with unscaled measures; DataError where columns do not fit together."""
    arrays = npz.read(path, ["numeric", "wilderness", "soil", "y"])
    numeric, labels, count = arrays["numeric"], arrays["y"], len(np.atleast_1d(arrays["y"]))
    npz.check(path, numeric.shape == (count, NUMERIC), f"numeric is {numeric.shape}, not {(count, NUMERIC)}")
    for name, kinds in (("wilderness", WILDERNESS), ("soil", SOIL), ("y", COVERS)):
        codes = arrays[name]
        fits = codes.shape == (count,) and codes.dtype.kind in "iu" and ((codes >= 0) & (codes < kinds)).all()
        npz.check(path, fits, f"{name} is no list of {count} numbers below {kinds}")
    ground = np.eye(WILDERNESS)[arrays["wilderness"]], np.eye(SOIL)[arrays["soil"]]
    inputs = np.hstack([numeric, *ground]).astype(np.float32)  # (count, 54)
    return Split(torch.from_numpy(inputs), torch.from_numpy(labels.astype(np.int64)))


@cache
def _load(path: Path) -> Splits:
    whole = read(path)
    npz.check(path, len(whole) > 2 * HELD_OUT, f"{len(whole)} rows are too few for three splits")
    test = Split(whole.inputs[-HELD_OUT:].clone(), whole.targets[-HELD_OUT:])
    train, validation = hold_out(Split(whole.inputs[:-HELD_OUT], whole.targets[:-HELD_OUT]), HELD_OUT)
    measures = train.inputs[:, :NUMERIC]
    mean, deviation = measures.mean(0), measures.std(0)
    for part in (validation, test, train):
        part.inputs[:, :NUMERIC] = (part.inputs[:, :NUMERIC] - mean) / deviation
    return Splits(train, validation, test)
