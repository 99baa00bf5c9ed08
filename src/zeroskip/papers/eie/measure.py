"""AlexNet's fc8 as the authors of EIE pruned it, through the simulator; nothing is trained.

The file is in the folder `accelerators` of ZEROSKIP_DATA.
"""

from __future__ import annotations

import numpy as np
import torch

from zeroskip.data import data_folder, npz
from zeroskip.papers.common.paper import Setup
from zeroskip.simulate import Workload, chips, dataflows, of_masks
from zeroskip.simulate.workload import count_macs

ELEMENTS, OUTPUTS = 64, 1000
FILE = "eie_alexnet_fc8.npz"


def measure_fc8(setup: Setup) -> dict[str, int]:
    """What `Fc8Findings` holds. Raises DataError where the file is absent or damaged."""
    work = fc8()
    schedule = dataflows.columns(work, chips.EIE)
    return {"cycles": schedule.cycles, "entries": schedule.useless + count_macs(work).both}


def fc8() -> Workload:
    """The layer from the authors' entries, which are runs of zeros and codes, by element."""
    names = ["activations", "pointers", "entry_offsets", "codes", "zero_runs"]
    arrays = npz.read(data_folder("accelerators") / FILE, names)
    mask = weight_mask(arrays)
    return of_masks(
        "fc8", torch.from_numpy(mask[:OUTPUTS]), torch.from_numpy(arrays["activations"] != 0)[None]
    )


def weight_mask(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Where weights are, (outputs filled up to whole elements, inputs): row i belongs to element i mod ELEMENTS.

    pointers       (elements, inputs + 1): where each column begins among the entries of an element
    entry_offsets  (elements + 1): where the entries of an element begin
    codes          of each entry; 0 is a filler, which a run of more than 15 zeros needs
    zero_runs      zeros before each entry, in its column
    """
    inputs = len(arrays["activations"])
    mask = np.zeros((-(-OUTPUTS // ELEMENTS) * ELEMENTS, inputs), bool)
    for element in range(ELEMENTS):
        part = slice(*arrays["entry_offsets"][element : element + 2])
        counts = np.diff(arrays["pointers"][element])[:inputs]
        column = np.repeat(np.arange(inputs), counts)
        steps = np.concatenate(
            [[0], np.cumsum(arrays["zero_runs"][part][: len(column)].astype(np.int64) + 1)]
        )
        begun = np.repeat(steps[arrays["pointers"][element, :inputs]], counts)
        row = steps[1:] - begun - 1
        real = arrays["codes"][part][: len(column)] != 0
        mask[row[real] * ELEMENTS + element, column[real]] = True
    return mask
