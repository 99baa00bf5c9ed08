"""The table of thresholds: what is left of the products, layer by layer and in all."""

from __future__ import annotations

from zeroskip.prune import ActivationPruning, Judged, LayerMacs
from zeroskip.report import threshold_table


def test_each_layer_and_all_of_them_tell_what_thresholds_remove_of_products_with_an_input() -> None:
    before = Judged({}, 0.02, {"fc1": LayerMacs(1000.0, 400.0), "fc2": LayerMacs(100.0, 0.0)})
    after = Judged({"fc1": 0.5}, 0.025, {"fc1": LayerMacs(1000.0, 100.0), "fc2": LayerMacs(100.0, 0.0)})
    grid = threshold_table(ActivationPruning(before, after, max_error=0.03, history=(after,)))
    assert grid.rows == (
        ("fc1", "0.5", "1,000", "400", "100", "75.0 %"),
        ("fc2", "0", "100", "0", "0", "0.0 %"),
        ("all", "", "1,100", "400", "100", "75.0 %"),
    )
    assert grid.note == "validation error 2.00 % -> 2.50 %"
    assert grid.marks == {2: "total"}
