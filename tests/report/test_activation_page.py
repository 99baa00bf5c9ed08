"""docs/ACTIVATIONS.md from figures made by hand: every number in it is one of these or follows from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from zeroskip.bench import RaceReport, RaceResult, RaceRow, race_report
from zeroskip.concepts import CodedNetwork, MapSizes, NetworkZeros, ShapeRow
from zeroskip.report.activation_page import activations_markdown

LAYER = ShapeRow("conv1", "conv2d", 3, 8, 9, 16, (3, 5), (1, 1), (2, 1), 1, before=0.25, after=0.5)
NETWORKS = [NetworkZeros("Net", "pictures", 1000, (LAYER,))]
BITS = {"run-length": 10_000, "bitmask": 9_100, "gaps": 9_900, "csr": 16_000}
CODED = {"Net": CodedNetwork("100 pictures", {"conv1": MapSizes(1000, 500, 9000.0, BITS)})}


def rows(case: str, seconds: dict[tuple[str, str], float], *, cold: bool = False) -> list[RaceRow]:
    return [
        RaceRow(
            case,
            0.0,
            1,
            1,
            precision,
            engine,
            took,
            None,
            None,
            took,
            took,
            0.0,
            "fp32",
            cold,
            "free",
            0.9,
            "fp32",
            None,
            None,
        )
        for (engine, precision), took in seconds.items()
    ]


DENSE = {("torch eager", "fp32"): 4e-5, ("ONNX Runtime", "fp32"): 3e-5, ("torch eager", "bf16"): 2e-5}
OURS = {("zeroskip", "fp32"): 1e-5, ("zeroskip", "bf16 weights"): 8e-6}
FASTER = {("zeroskip", "fp32"): 5e-6, ("zeroskip", "bf16 weights"): 5e-6, ("zeroskip", "fp16"): 4e-6}
SCATTER = {("zeroskip scatter", "fp32"): 6e-6, ("zeroskip scatter", "bf16 weights"): 1e-5}
RACE = RaceReport(
    "a machine", {"torch": "2"}, "2026-01-02", 1.0, 3, 9,
    (
        *rows("slow", {**DENSE, **OURS, ("im2col and GEMM", "fp32"): 8e-5}),
        *rows("fast", {**DENSE, **FASTER, ("im2col and GEMM", "fp32"): 8e-5}),
        *rows("far", {**DENSE, **OURS, **SCATTER}, cold=True),
        *rows("ffn", {**DENSE, **OURS}, cold=True),
        *rows("Net/conv1", {**DENSE, **OURS}),
        *rows("Net/conv2", {**DENSE, ("zeroskip", "fp32"): 4e-5}),
    ),
    missing=(),
)  # fmt: skip


def page() -> list[str]:
    return activations_markdown(NETWORKS, CODED, RACE).splitlines()


def test_a_layer_is_listed_with_its_shape_and_its_zeros() -> None:
    assert "| conv1 | 3 | 8x9 | 16 | 3x5 | 1 | 2x1 | 1 | 25.0 % | 50.0 % |" in page()


def test_formats_are_ratios_to_16_bits_and_the_distance_from_the_limit() -> None:
    assert "| conv1 | 50.0 % | 1.60x | 1.76x | 1.62x | 1.00x | 11.1 % |" in page()


def test_a_convolution_is_compared_with_im2col_the_best_dense_engine_and_in_16_bits_with_any() -> None:
    (line,) = [one for one in page() if one.startswith("| slow |")]
    assert line.endswith("| 8 µs (bf16 weights) | 8.00 | 3.00 | 2.50 |")
    assert "(ONNX Runtime)" in line
    assert next(one for one in page() if one.startswith("| fast |")).endswith(
        "(fp16) | 16.00 | 6.00 | 5.00 |"
    )
    assert "| **lowest** |  |  |  |  |  |  | **8.00** | **3.00** | **2.50** |" in page()
    assert "| **mean** |  |  |  |  |  |  | **12.00** | **4.50** | **3.75** |" in page()
    assert "| **highest** |  |  |  |  |  |  | **16.00** | **6.00** | **5.00** |" in page()


def test_a_linear_layer_is_compared_with_the_best_fp32_engine_and_in_16_bits_with_any() -> None:
    (line,) = [one for one in page() if one.startswith("| 90.0 % |")]
    assert line.endswith("| 20 µs | 10 µs | 8 µs | 3.00 | 2.50 |")


def test_a_convolution_with_weights_in_memory_is_compared_by_both_kernels_and_precisions() -> None:
    (line,) = [one for one in page() if one.startswith("| far |")]
    assert line == ("| far | 90.0 % | 30 µs | 10 µs | 6 µs | 5.00 | 20 µs | 8 µs | 10 µs | 2.50 |")


def test_layers_of_a_trained_network_are_summed_up_in_one_line() -> None:
    (line,) = [one for one in page() if one.startswith("| Net | 1 |")]
    assert line == "| Net | 1 | 2 | 1 (by over 3 %) | 1.00 | 2.00 | 4.00 | 1 | 1.50 |"


def test_the_order_of_rows_among_each_other_does_not_matter() -> None:
    mixed = tuple(sorted(RACE.rows, key=lambda row: row.seconds))
    lines = activations_markdown(NETWORKS, CODED, replace(RACE, rows=mixed)).splitlines()
    assert sorted(lines) == sorted(page())


def test_a_case_that_an_engine_failed_is_left_out_and_the_rest_stays() -> None:
    failed = {("slow", "im2col and GEMM"), ("Net/conv1", "zeroskip")}
    fewer = tuple(row for row in RACE.rows if (row.case, row.engine) not in failed)
    lines = activations_markdown(NETWORKS, CODED, replace(RACE, rows=fewer)).splitlines()
    assert not [one for one in lines if one.startswith("| slow |")]
    assert "| **mean** |  |  |  |  |  |  | **16.00** | **6.00** | **5.00** |" in lines
    assert "| Net | 1 | 1 |" in "\n".join(lines)


def test_the_page_names_machine_runs_rounds_versions_and_date() -> None:
    text = " ".join(page())
    assert "a machine; one thread; process CPU time; medians of 3 runs of fresh processes, 9 rounds" in text
    assert "(torch 2; 2026-01-02)" in text


def test_docs_activations_md_holds_every_figure_of_the_stored_race() -> None:
    root = Path(__file__).parents[2]
    (path,) = (root / "benchmarks" / "results").glob("activations-*.json")
    stored = json.loads(path.read_text())
    results = [RaceResult.from_json(case) for case in stored["cases"]]
    race = race_report(results, stored["machine"], 0.0)
    found = activations_markdown([], {}, race).splitlines()
    missing = {line for line in found if line.startswith("| ")} - set(
        (root / "docs" / "ACTIVATIONS.md").read_text().splitlines()
    )
    assert not missing, "run: make bench-activations"
