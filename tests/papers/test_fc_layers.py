"""Timing single layers: what is timed, not how long it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zeroskip.concepts import Timing
from zeroskip.papers import Setup, named
from zeroskip.papers.deep_compression import fc_layer_rows as rows
from zeroskip.papers.deep_compression import fc_layer_timing
from zeroskip.run import kernels


def test_the_six_layers_have_the_sizes_of_the_networks_and_the_published_shares() -> None:
    found = fc_layer_timing.shapes()
    weights = [inputs * outputs for inputs, outputs, _ in found.values()]
    assert weights == [37_748_736, 16_777_216, 4_096_000, 102_760_448, 16_777_216, 4_096_000]
    assert [share for *_, share in found.values()] == [0.09, 0.09, 0.25, 0.04, 0.04, 0.23]


def test_a_layer_is_timed_at_batch_1_and_64_with_zeros_where_the_mask_is() -> None:
    found = fc_layer_timing.timed(64, 32, 0.1)
    assert set(found) == {"1", "64", "kernel"}
    assert all(0 < seconds < 1 for batch in ("1", "64") for seconds in found[batch])
    assert set(found["kernel"].values()) <= {kernel.name for kernel in kernels.ALL}


def test_each_layer_is_timed_once_and_its_ratio_becomes_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[tuple[int, int, float]] = []

    def pretend(*layer: Any) -> dict[str, list[float]]:
        timed.append(layer)
        return {"1": [4e-3, 1e-3], "64": [1e-3, 2e-3]}

    monkeypatch.setattr(fc_layer_timing, "timed", pretend)
    measure = named("deep-compression").measure["fc-layers"]
    found = measure(Setup(tmp_path, 1))
    assert measure(Setup(tmp_path, 1)) == found
    assert timed == list(fc_layer_timing.shapes().values())
    measured = {row.column: row.ours for row in rows.measured_rows(found) if row.row == "VGG-16 fc6"}
    assert measured["i7-5930K, batch 1: dense / sparse time, measured"] == pytest.approx(4.0)
    assert measured["i7-5930K, batch 64: dense / sparse time, measured"] == pytest.approx(0.5)


def test_what_is_compared_is_a_timing_of_ours_against_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def compare(program: Any, model: Any, x: Any, **_: Any) -> Timing:
        seen.append(float((model.weight == 0).float().mean()))
        seconds = {"zeroskip": 1.0, "torch eager": 2.0}
        return Timing(seconds, {}, {}, {}, len(x), 1, "fp32", "", 1, 1)

    monkeypatch.setattr("zeroskip.run.compare", compare)
    found = fc_layer_timing.timed(400, 100, 0.09)
    assert {batch: found[batch] for batch in ("1", "64")} == {"1": [2.0, 1.0], "64": [2.0, 1.0]}
    assert seen == pytest.approx([0.91, 0.91], abs=0.01)
