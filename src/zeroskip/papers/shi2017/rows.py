"""Shi and Chu 2017: how much faster a convolution gets by skipping the zeros of its input."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

from zeroskip.models.convolutions import RECTIFIED, RECTIFIED_OTHERWISE, Convolution
from zeroskip.papers.common.row import AT_LEAST, Row, Table
from zeroskip.papers.shi2017 import published

PAPER = "shi2017"
NETWORK = "rectified-layers"
TIMING = "needs timing on this machine (--out or --results)"
BASE = "times faster than im2col and GEMM, one picture, one thread"
UNSOURCED = "handed down; not found in a primary source"


def measured_rows(network: str, findings: Mapping[str, Any]) -> list[Row]:
    """The 13 layers, from {"layers": {layer: {"im2col": seconds, "dense": ..., "skipping": ...}}, "otherwise": ...}.

    "dense" is the faster of PyTorch's two ways; "skipping" includes finding the zeros. The paper's mean, lowest and
    highest are over all layers as first listed; layers listed in two ways have a row for each.

    >>> [row.holds for row in measured_rows(NETWORK, {})][0] is None
    True
    """
    table = Table(PAPER, "Layers after rectifiers", NETWORK, TIMING)
    found = findings.get("layers", {})
    rows = [_layer(table, name, layer, found.get(name)) for name, layer in RECTIFIED.items()]
    for name, layer in RECTIFIED_OTHERWISE.items():
        remark = f"{name}, listed otherwise"
        rows.append(_layer(table, remark, layer, findings.get("otherwise", {}).get(name)))
    ratios = [found[name]["im2col"] / found[name]["skipping"] for name in RECTIFIED if name in found]
    whole = ratios if len(ratios) == len(RECTIFIED) else []
    for name, take in (("lowest", min), ("mean", mean), ("highest", max)):
        ours = take(whole) if whole else None
        printed = published.SPEEDUPS[name]
        rows.append(
            table.judge(f"{name} of the 13", BASE, printed, ours, AT_LEAST, unit="x", trust=UNSOURCED)
        )
    return rows


def _layer(table: Table, name: str, layer: Convolution, found: Mapping[str, float] | None) -> Row:
    """Whether skipping wins, which the paper claims from 90 % zeros on, and its lowest figure implies for all."""
    about = f"{layer.channels} x {layer.size}x{layer.size} -> {layer.outputs}, {layer.window}x{layer.window}"
    row = f"{name} ({about}, stride {layer.stride}, {100 * layer.sparsity:g} % zeros)"
    told = None
    if found is not None:
        ratio, modern = found["im2col"] / found["skipping"], found["dense"] / found["skipping"]
        told = f"{ratio:.2f}x; {modern:.2f}x PyTorch's best", ratio > 1
    claimed = "faster" if layer.sparsity >= published.WINS_FROM else "faster (implied by the lowest)"
    return table.fact(row, BASE, claimed, told, "above 1x")
