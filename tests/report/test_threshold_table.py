"""The table of thresholds: what is left of the products, layer by layer and in all."""

from __future__ import annotations

from zeroskip.report import threshold_table


def test_each_layer_and_all_of_them_tell_what_thresholds_remove_of_products_with_an_input() -> None:
    before = {"fc1": {"macs": 1000.0, "nonzero": 400.0}, "fc2": {"macs": 100.0, "nonzero": 0.0}}
    after = {"fc1": {"macs": 1000.0, "nonzero": 100.0}, "fc2": {"macs": 100.0, "nonzero": 0.0}}
    grid = threshold_table(
        {
            "before": {"error": 0.02, "layers": before},
            "after": {"error": 0.025, "layers": after},
            "thresholds": {"fc1": 0.5},
        }
    )
    assert grid.rows == (
        ("fc1", "0.5", "1,000", "400", "100", "75.0 %"),
        ("fc2", "0", "100", "0", "0", "0.0 %"),
        ("all", "", "1,100", "400", "100", "75.0 %"),
    )
    assert grid.note == "validation error 2.00 % -> 2.50 %"
    assert grid.marks == {2: "total"}
