"""The verdict says what to ship, and plainly when dense wins."""

from __future__ import annotations

from typing import Any

import pytest

from zeroskip.verdict import verdict


def timing(batch: int, ours: tuple[float, float], dense: tuple[float, float]) -> dict[str, Any]:
    middle = {"zeroskip": sum(ours) / 2, "torch eager": sum(dense) / 2, "torch.compile": 1.0}
    spread = {"zeroskip": list(ours), "torch eager": list(dense), "torch.compile": [1.0, 1.0]}
    return {"batch": batch, "seconds": middle, "spread": spread}


FASTER, SLOWER, LEVEL = (1e-6, 1e-6, 3e-6, 3e-6), (4e-6, 4e-6, 2e-6, 2e-6), (1e-6, 3e-6, 2e-6, 4e-6)


def summary(*speeds: tuple[float, float, float, float], **changes: Any) -> dict[str, Any]:
    return {
        "layers": [{"kernel": "sell"}, {"kernel": "dense"}],
        "weights": 1000, "weights_kept": 50, "weights_times_fewer": 20.0, "stored_times_smaller": 15.0,
        "error_dense": 0.02, "error_run": 0.02, "max_error_rise": 0.0, "splits": {"test": 100},
        "selected_on": "validation",
        "timings": [timing(4**i, one[:2], one[2:]) for i, one in enumerate(speeds)], **changes,
    }  # fmt: skip


def test_smaller_as_good_and_faster_is_shipped_sparse() -> None:
    text = verdict(summary(FASTER))
    assert text.startswith(
        "Ship model.zs and run it with zeroskip: 20.0x fewer weights, a file 15.0x smaller"
    )
    assert "At batch 1 3.0x faster than torch eager, the fastest dense engine" in text


def test_what_zeros_alone_gain_is_told_apart_from_what_compiling_gains() -> None:
    figures = summary(FASTER)
    figures["timings"][0]["seconds"]["zeroskip, all dense"] = 1.5e-6
    assert (
        "3.0x faster than torch eager, the fastest dense engine (1.5x faster than itself without"
        in verdict(figures)
    )


def test_smaller_but_slower_is_shipped_for_its_size_and_run_dense() -> None:
    text = verdict(summary(SLOWER))
    assert text.startswith("Ship model.zs for its size, but run it dense")
    assert "2.0x SLOWER than torch eager" in text


def test_what_overlaps_is_not_called_faster() -> None:
    text = verdict(summary(LEVEL))
    assert text.startswith("Ship model.zs for its size")
    assert "about as fast as torch eager" in text


def test_what_is_neither_smaller_nor_faster_is_not_shipped_for_its_size() -> None:
    text = verdict(summary(SLOWER, stored_times_smaller=0.8))
    assert text.startswith("Ship the dense network: the sparse one is neither smaller nor faster")
    assert "a file 1.2x LARGER" in text


def test_a_program_without_a_sparse_kernel_does_not_credit_the_zeros() -> None:
    text = verdict(summary(FASTER, layers=[{"kernel": "dense"}, {"kernel": "channels_last"}]))
    assert "every layer runs dense, so zeros have no part in this" in text


def test_of_several_seeds_the_file_of_the_shown_one_is_named() -> None:
    assert verdict(summary(FASTER, shown="seed-1")).startswith("Ship seed-1/model.zs and run it")


def test_one_batch_size_may_win_and_another_lose() -> None:
    text = verdict(summary(FASTER, SLOWER))
    assert "At batch 1 3.0x faster" in text
    assert "at batch 4 2.0x SLOWER" in text


@pytest.mark.parametrize(
    ("error", "rise", "splits", "dense"),
    [
        (0.03, 0.0, {"test": 100}, False),  # one test example more cannot be told apart
        (0.031, 0.0, {"test": 100}, True),
        (0.04, 0.02, {"test": 100}, False),
        (0.041, 0.02, {"test": 100}, True),
        (0.021, 0.0, {}, True),  # a task that does not tell its sizes gets no allowance
    ],
)
def test_more_errors_than_allowed_ship_dense(
    error: float, rise: float, splits: dict[str, int], dense: bool
) -> None:
    text = verdict(summary(FASTER, error_run=error, max_error_rise=rise, splits=splits))
    assert text.startswith("Ship the dense network") == dense


def test_a_network_that_could_not_be_pruned_is_shipped_dense() -> None:
    text = verdict(summary(FASTER, weights_kept=1000, weights_times_fewer=1.0))
    assert text.startswith("Ship the dense network: no weight could go")


def test_a_choice_made_on_the_reported_set_is_called_that() -> None:
    assert "(chosen on the same set it is reported on)" in verdict(
        summary(FASTER, selected_on="the reported set")
    )


def test_errors_that_are_no_shares_are_printed_as_numbers() -> None:
    assert "error 21.5 against 21.6 dense" in verdict(summary(FASTER, error_run=21.5, error_dense=21.6))
