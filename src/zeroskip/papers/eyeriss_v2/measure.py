"""Layers of a pruned MobileNet on one element of Eyeriss v2; nothing is trained.

The file is in the folder `accelerators` of ZEROSKIP_DATA.
"""

from __future__ import annotations

import torch

from zeroskip.data import data_folder, npz
from zeroskip.papers.common.paper import Setup
from zeroskip.papers.eyeriss_v2 import published
from zeroskip.simulate import Workload, chips, dataflows, of_masks

FILE = "eyeriss_v2_pe_mobilenet.npz"


def measure_element(setup: Setup) -> dict[str, dict[str, int]]:
    """What `ElementFindings` holds. Raises DataError where the file is absent or damaged."""
    chip = chips.EYERISS_V2_PE
    return {"cycles": {name: dataflows.cartesian(work, chip).cycles for name, work in mobilenet().items()}}


def mobilenet() -> dict[str, Workload]:
    """Five layers of a pruned MobileNet with the inputs that the authors of Sparseloop recorded, pixels as examples."""
    names = {layer: (f"{layer}_weight_mask", f"{layer}_input_mask") for layer in published.CYCLES}
    arrays = npz.read(data_folder("accelerators") / FILE, [name for pair in names.values() for name in pair])
    masks = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {layer: of_masks(layer, masks[weight], masks[x]) for layer, (weight, x) in names.items()}
