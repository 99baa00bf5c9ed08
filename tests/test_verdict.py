"""The verdict says what to ship, and plainly when dense wins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from zeroskip.concepts import Choice, EightBits, LayerSummary, Summary, Timing
from zeroskip.verdict import verdict

Ends = tuple[float, float]


def timing(batch: int, ours: Ends, dense: Ends) -> Timing:
    middle = {"zeroskip": sum(ours) / 2, "torch eager": sum(dense) / 2, "torch.compile": 1.0}
    spread = {"zeroskip": ours, "torch eager": dense, "torch.compile": (1.0, 1.0)}
    return Timing(middle, spread, {}, {}, batch, 1, "fp32", "M", 3, 9)


FASTER, SLOWER, LEVEL = (1e-6, 1e-6, 3e-6, 3e-6), (4e-6, 4e-6, 2e-6, 2e-6), (1e-6, 3e-6, 2e-6, 4e-6)


def summary(*speeds: tuple[float, float, float, float], **changes: Any) -> Summary:
    timings = tuple(timing(4**place, ends[:2], ends[2:]) for place, ends in enumerate(speeds))
    figures = Summary(
        task="tiny", seeds=1, seed=0, pattern="free", max_error_rise=0.0, sparsity=None, bits=None, error_dense=0.02,
        error_sparse=0.02, error_unpacked=0.02, error_run=0.02, weights=1000, weights_kept=50, weights_times_fewer=20.0,
        stored_bytes_dense=4000, stored_bytes=267, stored_times_smaller=15.0, dense_seconds=3e-6, sparse_seconds=1e-6,
        dense_engine="torch eager", batch=1, threads=1, precision="fp32", machine="M", selected_on="validation",
        splits={"test": 100}, timings=timings,
        layers=tuple(LayerSummary(name, 500, 25, 0.95, 0.0, "", "") for name in ("fc1", "fc2")),
    )  # fmt: skip
    return replace(figures, **changes)


def choices(*skips: str) -> list[Choice]:
    """Those of fc1, fc2, ...: what their kernels skip."""
    return [
        Choice(f"fc{place}", "linear", (1, 1), 0.95, "", {}, {}, "", skips=word)
        for place, word in enumerate(skips, 1)
    ]


SPARSE = choices("weights", "nothing")


def test_smaller_as_good_and_faster_is_shipped_sparse() -> None:
    text = verdict(summary(FASTER), SPARSE)
    assert text.startswith(
        "Ship model.zs and run it with zeroskip: 20.0x fewer weights, a file 15.0x smaller"
    )
    assert "At batch 1 3.0x faster than torch eager, the fastest dense engine" in text


def test_what_zeros_alone_gain_is_told_apart_from_what_compiling_gains() -> None:
    figures = summary(FASTER)
    figures.timings[0].seconds["zeroskip, all dense"] = 1.5e-6
    gain = "3.0x faster than torch eager, the fastest dense engine (1.5x faster than itself without"
    assert gain in verdict(figures, SPARSE)


def test_eight_bits_are_named_with_the_layers_that_have_them() -> None:
    by_batch = {1: {"fc1": "fewer than 8 rows"}, 4: {}}
    figures = summary(FASTER, eight_bits=EightBits(0.01, 64, "min-max", by_batch), precision="int8")
    figures.timings[0].seconds["zeroskip, all dense"] = 1.5e-6
    figures = replace(figures, timings=tuple(replace(each, precision="int8") for each in figures.timings))
    text = verdict(figures, SPARSE)
    assert "error 2.00% in int8 against 2.00% dense" in text
    assert "(1.5x faster than itself in fp32 and without skipping zeros)" in text
    assert text.endswith(
        "Layers in int8: 1 of 2 at batch 1, 2 of 2 at batch 4; the dense engines compute in fp32."
    )
    nowhere = replace(
        figures, eight_bits=EightBits(0.01, 64, "min-max", {1: dict.fromkeys(("fc1", "fc2"), "")})
    )
    assert "error 2.00% against 2.00% dense" in verdict(nowhere, SPARSE)
    assert verdict(nowhere, SPARSE).endswith("Layers in int8: 0 of 2; the dense engines compute in fp32.")
    whole = {"weights_kept": 1000, "weights_times_fewer": 1.0, "stored_times_smaller": 1.0}
    assert verdict(replace(figures, **whole), SPARSE).startswith(
        "Ship model.zs and run it with zeroskip in int8: no weight went, and it has"
    )
    assert verdict(replace(nowhere, **whole), SPARSE).startswith("Ship the dense network: no weight could go")


def test_smaller_but_slower_is_shipped_for_its_size_and_run_dense() -> None:
    text = verdict(summary(SLOWER), SPARSE)
    assert text.startswith("Ship model.zs for its size, but run it dense")
    assert "2.0x SLOWER than torch eager" in text


def test_what_overlaps_is_not_called_faster() -> None:
    text = verdict(summary(LEVEL), SPARSE)
    assert text.startswith("Ship model.zs for its size")
    assert "about as fast as torch eager" in text


def test_what_is_neither_smaller_nor_faster_is_not_shipped_for_its_size() -> None:
    text = verdict(summary(SLOWER, stored_times_smaller=0.8), SPARSE)
    assert text.startswith("Ship the dense network: the sparse one is neither smaller nor faster")
    assert "a file 1.2x LARGER" in text


@pytest.mark.parametrize(("size", "words"), [(1.0008, "a file as large"), (1.04, "a file 1.04x smaller")])
def test_a_gain_below_five_percent_is_no_reason_to_ship_another_network(size: float, words: str) -> None:
    text = verdict(summary(SLOWER, stored_times_smaller=size), SPARSE)
    assert text.startswith(
        "Ship the dense network: the sparse one is neither smaller nor faster by 5%. It has"
    )
    assert words in text
    assert verdict(summary(SLOWER, stored_times_smaller=1.05), SPARSE).startswith(
        "Ship model.zs for its size"
    )


def test_three_percent_faster_is_said_and_not_recommended() -> None:
    text = verdict(summary((1e-6, 1e-6, 1.03e-6, 1.03e-6), stored_times_smaller=1.0), SPARSE)
    assert text.startswith("Ship the dense network")
    assert "At batch 1 1.03x faster than torch eager" in text
    level = verdict(summary((1e-6, 1e-6, 1.001e-6, 1.001e-6), stored_times_smaller=1.0), SPARSE)
    assert "about as fast as torch eager" in level


def test_a_program_that_is_fast_without_its_zeros_is_no_reason_to_ship_zeros() -> None:
    figures = summary(FASTER, stored_times_smaller=1.01)
    assert verdict(figures, SPARSE).startswith(
        "Ship model.zs and run it"
    )  # nothing is known against the zeros
    figures.timings[0].seconds["zeroskip, all dense"] = 1.02e-6
    text = verdict(figures, SPARSE)
    assert text.startswith(
        "Ship the dense network and run it with zeroskip: zeros make it neither smaller nor faster"
    )
    smaller = summary(FASTER)
    smaller.timings[0].seconds["zeroskip, all dense"] = 1.02e-6
    assert verdict(smaller, SPARSE).startswith("Ship model.zs and run it with zeroskip")


def whole(name: str, weights: int, dense: str = "nothing of it was pruned") -> LayerSummary:
    return LayerSummary(name, weights, weights, 0.0, None, "none", "", dense=dense, raced=False)


HEAD = LayerSummary("head", 64, 6, 58 / 64, 0.0, "sell", "fastest")


def test_what_stays_dense_is_named_where_it_is_more_than_a_twentieth_of_the_weights() -> None:
    lstm = (whole("lstm.weight_ih_l0", 1024), whole("lstm.weight_hh_l0", 4096))
    figures = {
        "weights": 5184,
        "weights_kept": 5126,
        "weights_times_fewer": 5184 / 5126,
        "stored_times_smaller": 1.01,
    }
    text = verdict(summary(SLOWER, layers=(*lstm, HEAD), **figures), SPARSE)
    assert text.startswith("Ship the dense network: the sparse one is neither")
    assert "1.01x fewer weights" in text
    assert text.endswith(
        "Stays dense: lstm.weight_hh_l0, lstm.weight_ih_l0, 98.8% of the weights (nothing of it was pruned)."
    )
    small = (whole("table", 3, "its rows are looked up"), HEAD)
    assert "Stays dense" not in verdict(summary(FASTER, layers=small, weights=67, weights_kept=9), SPARSE)


def test_each_reason_stands_beside_its_own_layers() -> None:
    layers = (whole("table", 500, "its rows are looked up"), whole("lstm", 400), HEAD)
    text = verdict(summary(FASTER, layers=layers, weights=964, weights_kept=906), SPARSE)
    assert (
        "Stays dense: table, 51.9% of the weights (its rows are looked up); lstm, 41.5% of the weights"
        in text
    )


def test_zeros_that_no_kernel_skips_are_named_where_they_are_most() -> None:
    reason = "no kernel that skips zeros takes it as conv1d"
    conv = LayerSummary(
        "conv", 1000, 100, 0.9, 0.0, "dense", "the only one possible", dense=reason, raced=False
    )
    text = verdict(summary(SLOWER, layers=(conv, HEAD), weights=1064, weights_kept=106), SPARSE)
    assert text.endswith(f"93.9% of the zeros are where none is skipped: conv ({reason}).")
    raced = replace(conv, dense="dense was faster", raced=True)
    assert "zeros are where" not in verdict(summary(SLOWER, layers=(raced, HEAD), weights=1064), SPARSE)


def test_a_program_without_a_sparse_kernel_does_not_credit_the_zeros() -> None:
    sentence = "every layer runs dense, so zeros have no part in this"
    assert sentence in verdict(summary(FASTER), choices("nothing", "nothing"))
    for skips in ("weights", "inputs", "both"):
        assert sentence not in verdict(summary(FASTER), choices("nothing", skips))


def test_a_kernel_of_a_layer_that_was_not_pruned_earns_no_credit() -> None:
    assert "every layer runs dense" in verdict(summary(FASTER), choices("nothing", "nothing", "inputs"))


def test_of_several_seeds_the_file_of_the_shown_one_is_named() -> None:
    assert verdict(summary(FASTER, shown="seed-1"), SPARSE).startswith("Ship seed-1/model.zs and run it")


def test_one_batch_size_may_win_and_another_lose() -> None:
    text = verdict(summary(FASTER, SLOWER), SPARSE)
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
    text = verdict(summary(FASTER, error_run=error, max_error_rise=rise, splits=splits), SPARSE)
    assert text.startswith("Ship the dense network") == dense


def test_a_network_that_could_not_be_pruned_is_shipped_dense() -> None:
    text = verdict(summary(FASTER, weights_kept=1000, weights_times_fewer=1.0), SPARSE)
    assert text.startswith("Ship the dense network: no weight could go")


def test_a_choice_made_on_the_reported_set_is_called_that() -> None:
    assert "(chosen on the same set it is reported on)" in verdict(
        summary(FASTER, selected_on="the reported set"), SPARSE
    )


def test_errors_that_are_no_shares_are_printed_as_numbers() -> None:
    assert "error 21.5 against 21.6 dense" in verdict(
        summary(FASTER, error_run=21.5, error_dense=21.6), SPARSE
    )
