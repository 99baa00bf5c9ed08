"""Eyeriss: a row of weights stays in each element, and all cycles are spent (Chen et al., ISCA 2016, JSSC 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from zeroskip.simulate.accelerator import Accelerator, Bytes, divided, size
from zeroskip.simulate.formats import Stored
from zeroskip.simulate.lane_counts import Schedule, tiles
from zeroskip.simulate.workload import Workload, count_macs


class Pass(NamedTuple):
    """How a layer is cut into what fits the chip at once.

    rows     output rows of one strip (e in the paper)
    inputs   channels added up before a partial sum goes back to the buffer (q x r)
    outputs  filters that share one reading of the input from the buffer (p x t)
    filters  filters that share one reading of the input from DRAM (m)
    images   images that share one reading of the weights from DRAM (n)
    """

    rows: int
    inputs: int
    outputs: int
    filters: int = 64
    images: int = 1


# (kernel rows, output rows, channels of a group) -> the chip's own pass. AlexNet: JSSC 2017, table III. VGG-16: not
# published; what its published buffer traffic, latency and active elements imply, so no prediction of these.
PASSES = {
    (11, 55, 3): Pass(rows=7, inputs=1, outputs=32, filters=96),
    (5, 27, 48): Pass(rows=27, inputs=2, outputs=16),
    (3, 13, 256): Pass(rows=13, inputs=4, outputs=64, images=4),
    (3, 13, 192): Pass(rows=13, inputs=6, outputs=32, images=4),
    (3, 224, 3): Pass(rows=52, inputs=1, outputs=24),
    (3, 224, 64): Pass(rows=52, inputs=1, outputs=24),
    (3, 112, 64): Pass(rows=52, inputs=1, outputs=24),
    (3, 112, 128): Pass(rows=52, inputs=1, outputs=24),
    (3, 56, 128): Pass(rows=26, inputs=2, outputs=32),
    (3, 56, 256): Pass(rows=26, inputs=2, outputs=32),
    (3, 28, 256): Pass(rows=14, inputs=4, outputs=24),
    (3, 28, 512): Pass(rows=14, inputs=4, outputs=24),
    (3, 14, 512): Pass(rows=14, inputs=8, outputs=20),
}


def row_stationary(work: Workload, chip: Accelerator) -> Schedule:
    """Every MAC, on the elements that the layer's shape makes use of.

    >>> work = of_masks("3x3", torch.ones(8, 16, 3, 3) != 0, torch.ones(1, 16, 15, 15) != 0)
    >>> row_stationary(work, chips.EYERISS).cycles, work.macs // active(work, chips.EYERISS)
    (1248, 1248)
    """
    return Schedule(tiles(work.macs, active(work, chip)), work.macs)


def active(work: Workload, chip: Accelerator) -> int:
    """Elements at work: as many sets of kernel rows x output rows as fit the grid.

    >>> conv2 = of_masks("conv2", torch.ones(1, 48, 5, 5) != 0, torch.ones(1, 48, 31, 31) != 0)
    >>> active(conv2, chips.EYERISS)  # as published
    135
    """
    return _fit(work.weight.shape[3], plan(work, chip).rows, chip)


def plan(work: Workload, chip: Accelerator) -> Pass:
    """The chip's own pass where it is known, else one by rule.

    The rule takes the tallest strip, which overlaps the next least, of those that keep nearly as many elements at work
    as any (0.9 is ours), then fills the scratch pads with inputs, and with filters what is left of them. On AlexNet it
    keeps as many elements at work as the chip. On VGG-16 the chip took up to 3.7 times the rule's cycles.
    """
    kernel, channels, rows = work.weight.shape[3:], work.weight.shape[2], work.output.shape[3]
    known = PASSES.get((kernel[0], rows, channels))
    if known:
        return known
    strips = range(1, min(rows, chip.lanes) + 1)
    at_work = {s: _fit(kernel[0], s, chip) * rows / (tiles(rows, s) * s) for s in strips}
    strip = max(s for s in strips if at_work[s] >= 0.9 * max(at_work.values()))
    copies = max(1, _fit(kernel[0], strip, chip) // (kernel[0] * strip))
    held = max(1, min(channels, size(chip, "input_row") // kernel[1]))  # q, of the input's scratch pad
    down = min(copies, tiles(channels, held))  # r; what is left of the copies takes other filters
    outputs = max(1, min(size(chip, "sums"), size(chip, "weights") // (held * kernel[1])))  # p
    return Pass(strip, held * down, outputs * (copies // down))


def traffic(work: Workload, chip: Accelerator, stored: Mapping[str, Stored]) -> Bytes:
    """Bytes of DRAM, global buffer and scratch pads.

    Strips overlap, so input rows are read more than once; partial sums go to the buffer and back.
    """
    step, macs = plan(work, chip), count_macs(work)
    taken = macs.input if "A" in chip.gates else macs.total
    examples, _, _, height, _ = work.input.shape
    kernel, stride, rows = work.weight.shape[3], work.stride[0], work.output.shape[3]
    strips = tiles(rows, step.rows)
    read = strips * ((min(step.rows, rows) - 1) * stride + kernel) / height  # times that a row is read
    outputs, channels = work.weight.shape[1:3]
    sizes = {operand: size.bits / 8 for operand, size in stored.items()}
    plain = {"A": work.input.numel(), "O": work.output.numel()}
    word = {operand: bits / 8 for operand, bits in chip.bits.items()}
    moved = {
        ("DRAM", "A"): sizes["A"] * read * tiles(outputs, step.filters),
        ("DRAM", "W"): sizes["W"] * tiles(examples, step.images) * strips,
        ("DRAM", "O"): sizes["O"],
        ("global buffer", "A"): plain["A"] * word["A"] * read * tiles(outputs, step.outputs),
        ("global buffer", "O"): plain["O"] * word["O"] * 2 * tiles(channels, step.inputs),
        ("input pad", "A"): macs.total * word["A"],
        ("weight pad", "W"): taken * word["W"],
        ("sum pad", "O"): 2 * taken * word["O"],
    }
    return {key: round(value) for key, value in moved.items()}


def _fit(kernel: int, strip: int, chip: Accelerator) -> int:
    """Elements that sets of kernel x strip take of the grid; a strip wider than the grid goes below itself."""
    tall, wide = size(chip, "rows"), divided(chip, "rows")
    folds = tiles(strip, wide)
    if kernel * folds > tall:  # larger than the grid: as much of it as there is
        return min(kernel, tall) * min(strip, wide) if folds == 1 else 0
    return kernel * strip * (tall // (kernel * folds)) * (wide // strip if folds == 1 else 1)
