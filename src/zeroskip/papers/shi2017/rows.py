"""Shi and Chu 2017: how much faster a convolution gets by skipping the zeros of its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import mean

from zeroskip.concepts import PaperRow
from zeroskip.models.convolutions import RECTIFIED, RECTIFIED_OTHERWISE, Convolution
from zeroskip.papers.common.figure_checks import Verdict
from zeroskip.papers.common.findings import read
from zeroskip.papers.common.paper import Findings
from zeroskip.papers.common.rules import AT_LEAST, figure
from zeroskip.papers.common.tables import Table
from zeroskip.papers.shi2017 import published

TIMING = "needs timing on this machine (--out or --results)"
BASE = "times faster than im2col and GEMM, one picture, one thread"
UNSOURCED = "handed down; not found in a primary source"


@dataclass(frozen=True)
class LayerSeconds:
    """Seconds of one call of a layer: im2col and GEMM; the faster of PyTorch's two layouts; skipping zero inputs.

    "skipping" includes finding the zeros.
    """

    im2col: float
    dense: float
    skipping: float


@dataclass(frozen=True)
class ShiFindings:
    """The 13 layers as first listed, and those of them that are listed in another way as well."""

    layers: Mapping[str, LayerSeconds] = field(default_factory=dict)
    otherwise: Mapping[str, LayerSeconds] = field(default_factory=dict)


def measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    """The 13 layers; layers listed in two ways have a row for each.

    The paper's mean, lowest and highest are over all layers as first listed.
    """
    table = Table(published.NAME, "Layers after rectifiers", network, TIMING)
    timed = read(ShiFindings, findings)
    rows = [_layer(table, name, layer, timed.layers.get(name)) for name, layer in RECTIFIED.items()]
    for name, layer in RECTIFIED_OTHERWISE.items():
        rows.append(_layer(table, f"{name}, listed otherwise", layer, timed.otherwise.get(name)))
    seconds = [timed.layers[name] for name in RECTIFIED if name in timed.layers]
    ratios = [layer.im2col / layer.skipping for layer in seconds]
    whole = ratios if len(ratios) == len(RECTIFIED) else []
    for name, take in (("lowest", min), ("mean", mean), ("highest", max)):
        printed = figure(published.SPEEDUPS[name], "x", UNSOURCED)
        rows.append(table.judge(f"{name} of the 13", BASE, printed, take(whole) if whole else None, AT_LEAST))
    return rows


def _layer(table: Table, name: str, layer: Convolution, seconds: LayerSeconds | None) -> PaperRow:
    """Whether skipping wins, which the paper claims from 90 % zeros on, and its lowest figure implies for all."""
    about = f"{layer.channels} x {layer.size}x{layer.size} -> {layer.outputs}, {layer.window.side}x{layer.window.side}"
    row = f"{name} ({about}, stride {layer.window.stride}, {100 * layer.sparsity:g} % zeros)"
    verdict: Verdict = None
    if seconds is not None:
        ratio, modern = seconds.im2col / seconds.skipping, seconds.dense / seconds.skipping
        verdict = f"{ratio:.2f}x; {modern:.2f}x PyTorch's best", ratio > 1
    claimed = "faster" if layer.sparsity >= published.WINS_FROM else "faster (implied by the lowest)"
    return table.fact(row, BASE, claimed, verdict, "above 1x")
