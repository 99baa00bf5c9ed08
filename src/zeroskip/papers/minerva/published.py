"""Reagen et al.: Minerva: Enabling Low-Power, Highly-Accurate Deep Neural Network Accelerators, ISCA 2016."""

from __future__ import annotations

from dataclasses import dataclass

NAME = "minerva"
MEAN = "minerva-mean"
TITLE = "Minerva: low-power, highly accurate accelerators (Reagen et al., ISCA 2016)"


@dataclass(frozen=True)
class MinervaRow:
    """One row of table 1: the network, its error and its spread over trainings in %.

    parameters  as printed;  weights  the same exactly, from the widths
    """

    inputs: int
    widths: tuple[int, ...]
    parameters: str
    weights: str
    literature: str
    error: str
    sigma: str


TABLE1 = {
    "minerva-mnist": MinervaRow(784, (256, 256, 256, 10), "334K", "334,336", "0.21", "1.4", "0.14"),
    "minerva-forest": MinervaRow(54, (128, 512, 128, 8), "139K", "139,008", "29.42", "28.87", "2.7"),
    "minerva-reuters": MinervaRow(2837, (128, 64, 512, 52), "430K", "430,720", "13.00", "5.30", "1.0"),
    "minerva-webkb": MinervaRow(3418, (128, 32, 128, 4), "446K", "446,208", "14.18", "9.89", "0.71"),
    "minerva-20ng": MinervaRow(21979, (64, 64, 256, 20), "1.43M", "1,432,256", "17.16", "17.8", "1.4"),
}

PRUNED = "75"  # of all multiply-accumulates, in %: those whose input is zero or small, mean of the five
POWER = "2.0"  # times less power for skipping them, after the bit widths were chosen; mean of the five
POWER_ALL = "8.1"  # times less power by all stages: bit widths, skipped MACs, lower voltages of memories
