"""Real zeros through the simulator, where a paper's own cycles for them are known; nothing is trained.

Both files are in the folder `accelerators` of ZEROSKIP_DATA.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from zeroskip.concepts import Progress, silent
from zeroskip.data import data_folder, npz
from zeroskip.papers.eyeriss_v2 import published
from zeroskip.simulate import Workload, chips, dataflows, of_masks
from zeroskip.simulate.workload import count_macs

ELEMENTS, OUTPUTS = 64, 1000
FC8, MOBILENET = "eie_alexnet_fc8.npz", "eyeriss_v2_pe_mobilenet.npz"


def measure_fc8(
    *, out: Path, seeds: int = 1, progress: Progress = silent, weights: object = None
) -> dict[str, int]:
    """{"cycles", "entries"} of AlexNet's fc8 on EIE, at its authors' own places.

    There is nothing random, nothing to start from, and nothing is kept in `out`. Raises DataError where the file is
    absent or damaged.

    >>> measure_fc8(out=Path("runs/eie"))["cycles"]
    7865
    """
    work = fc8()
    found = dataflows.columns(work, chips.EIE)
    return {"cycles": found.cycles, "entries": found.useless + count_macs(work).both}


def measure_element(
    *, out: Path, seeds: int = 1, progress: Progress = silent, weights: object = None
) -> dict[str, dict[str, int]]:
    """{"cycles": layer -> cycles} of pruned MobileNet layers on one element of Eyeriss v2; as `measure_fc8`.

    >>> measure_element(out=Path("runs/eyeriss-v2"))["cycles"]["L07"]
    1702140
    """
    chip = chips.EYERISS_V2_PE
    return {"cycles": {name: dataflows.cartesian(work, chip).cycles for name, work in mobilenet().items()}}


def mobilenet() -> dict[str, Workload]:
    """Five layers of a pruned MobileNet with the inputs that the authors of Sparseloop recorded, pixels as examples.

    >>> mobilenet()["L07"].positions
    1024
    """
    operands = ("weight", "input")
    names = {layer: [f"{layer}_{operand}_mask" for operand in operands] for layer in published.CYCLES}
    arrays = npz.read(
        data_folder("accelerators") / MOBILENET, [one for pair in names.values() for one in pair]
    )
    return {
        layer: of_masks(layer, *(torch.from_numpy(arrays[name]) for name in pair))
        for layer, pair in names.items()
    }


def fc8() -> Workload:
    """AlexNet's last layer as the authors of EIE pruned it, from their entries: runs of zeros and codes, by element.

    >>> fc8().inputs
    4096
    """
    names = ["activations", "pointers", "entry_offsets", "codes", "zero_runs"]
    found = npz.read(data_folder("accelerators") / FC8, names)
    inputs = len(found["activations"])
    mask = np.zeros((-(-OUTPUTS // ELEMENTS) * ELEMENTS, inputs), bool)
    for element in range(ELEMENTS):
        part = slice(*found["entry_offsets"][element : element + 2])
        counts = np.diff(found["pointers"][element])[:inputs]
        column = np.repeat(np.arange(inputs), counts)
        steps = np.concatenate([[0], np.cumsum(found["zero_runs"][part][: len(column)].astype(np.int64) + 1)])
        begun = np.repeat(steps[found["pointers"][element, :inputs]], counts)
        row = steps[1:] - begun - 1
        real = found["codes"][part][: len(column)] != 0  # the others pad long runs
        mask[row[real] * ELEMENTS + element, column[real]] = True
    seen = torch.from_numpy(found["activations"] != 0)[None]
    return of_masks("fc8", torch.from_numpy(mask[:OUTPUTS]), seen)
