"""Real masks with known cycles: an element of Eyeriss v2, exactly; a layer of EIE, within 1 % of the paper."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from zeroskip.simulate import chips
from zeroskip.simulate.energy import EIE_2016
from zeroskip.simulate.operations import of_masks
from zeroskip.simulate.simulation import estimate
from zeroskip.simulate.workload import Workload

pytestmark = pytest.mark.real_data

# Layers of MobileNet v1 0.5, pruned, and the cycles that Sparseloop's cycle-level baseline counts (MICRO 2022).
CYCLES = {"L07": 1_702_140, "L09": 1_499_682, "L19": 1_457_458, "L23": 1_821_557, "L25": 948_572}


def arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of a file in the folder `accelerators`; skips where it is absent."""
    parent = os.environ.get("ZEROSKIP_DATA")
    path = Path(parent or "") / "accelerators" / name
    if not parent or not path.is_file():
        pytest.skip(f"{name} is absent: set ZEROSKIP_DATA to the folder that holds accelerators/")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("layer", CYCLES)
def test_eyeriss_v2_element_takes_exactly_the_cycles_of_the_baseline(layer):
    found = arrays("eyeriss_v2_pe_mobilenet.npz")
    weight, x = (torch.from_numpy(found[f"{layer}_{name}_mask"]) for name in ("weight", "input"))
    ours = estimate([of_masks(layer, weight, x)], chips.EYERISS_V2_PE)
    assert ours.cycles == CYCLES[layer] == int(found[f"{layer}_cycles"])


def fc8() -> tuple[Workload, int]:
    """AlexNet's last layer as the EIE authors pruned it, and the entries of its file, padding included."""
    found = arrays("eie_alexnet_fc8.npz")
    mask, pointers, offsets = np.zeros((1024, 4096), bool), found["pointers"], found["entry_offsets"]
    for lane in range(64):
        part = slice(offsets[lane], offsets[lane + 1])
        steps = np.cumsum(found["zero_runs"][part].astype(np.int64) + 1)
        starts = np.repeat(pointers[lane, :4096], np.diff(pointers[lane])[:4096])
        before = np.concatenate([[0], steps])[starts]
        column = np.repeat(np.arange(4096), np.diff(pointers[lane])[:4096])
        kept = found["codes"][part][: len(column)] != 0
        mask[((steps[: len(column)] - before - 1) * 64 + lane)[kept], column[kept]] = True
    x = torch.from_numpy(found["activations"] != 0)[None]
    return of_masks("fc8", torch.from_numpy(mask[:1000]), x), len(found["codes"])


def test_eie_takes_9_9_microseconds_for_the_fc8_of_its_authors_within_1_percent():
    work, _ = fc8()
    found = estimate([work], chips.EIE)
    assert found.cycles == 7865
    assert abs(found.seconds / 9.9e-6 - 1) < 0.01


def test_eie_without_waiting_would_take_8_9_microseconds_within_1_percent():
    work, _ = fc8()
    total = estimate([work], chips.EIE).total
    assert abs((total.done + total.idle["useless"]) / 64 / 800e6 / 8.9e-6 - 1) < 0.01


def test_eie_uses_590_milliwatts_by_its_own_table():
    work, _ = fc8()
    found = estimate([work], chips.EIE, energy=EIE_2016)
    assert found.total.picojoules["clock"] * 1e-12 / found.seconds == pytest.approx(64 * 9.157e-3)
