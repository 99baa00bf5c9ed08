"""What is measured for Deep Compression. Shares and errors are 0..1, errors those of the test split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from zeroskip.concepts import Curve
from zeroskip.papers.common.findings import read


@dataclass(frozen=True)
class CodedShares:
    """Of a layer or of all: share of weights left; mean bits of a code and of a position, before and after Huffman;
    share of the 32-bit weights' size, likewise."""

    kept: float | None = None
    bits: float | None = None
    bits_huffman: float | None = None
    index: float | None = None
    index_huffman: float | None = None
    stored: float | None = None
    stored_huffman: float | None = None


@dataclass(frozen=True)
class CodedFindings:
    """One network, whose findings hold those of `frontier_rows.IMAGES` too; every part may be absent.

    Up to `total` means over the seeds, the rest of seed 0.

    error_dense, error          of the network before, and of the one that is stored; top5_dense, top5 likewise
    stored_bytes                of the file after pruning, sharing and Huffman, everything counted
    layers                      our layer name -> shares
    figures_dense               error of the dense network that the figures start from
    figure6                     "pruned", "shared", "both" -> (share of the dense size, error)
    figure7                     "conv", "fc" -> bits -> error with only these layers' codes that narrow
    figure8                     "linear", "density", "random" -> bits -> error after training the centroids
    """

    error_dense: float | None = None
    error: float | None = None
    top5_dense: float | None = None
    top5: float | None = None
    stored_bytes_dense: float | None = None
    stored_bytes: float | None = None
    layers: Mapping[str, CodedShares] = field(default_factory=dict)
    total: CodedShares = CodedShares()
    figures_dense: float | None = None
    figure6: Mapping[str, Curve] = field(default_factory=dict)
    figure7: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    figure8: Mapping[str, Mapping[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class FcLayerTimes:
    """One layer of table 8: batch -> seconds (dense, sparse); batch -> which of zeroskip's kernels ran."""

    seconds: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    kernels: Mapping[int, str] = field(default_factory=dict)


def fc_layer_times(findings: Mapping[str, object]) -> dict[str, FcLayerTimes]:
    """Layer of table 8 -> its times, from {"table8": {layer: {batch: [dense, sparse], "kernel": {batch: name}}}}.

    >>> fc_layer_times({"table8": {"AlexNet fc6": {"1": [0.004, 0.001], "kernel": {"1": "sell"}}}})["AlexNet fc6"]
    FcLayerTimes(seconds={1: (0.004, 0.001)}, kernels={1: 'sell'})
    """
    times = {}
    for layer, parts in read(dict[str, dict[str, object]], findings.get("table8", {})).items():
        seconds = {batch: pair for batch, pair in parts.items() if batch != "kernel"}
        times[layer] = FcLayerTimes(
            read(dict[int, tuple[float, float]], seconds), read(dict[int, str], parts.get("kernel", {}))
        )
    return times
