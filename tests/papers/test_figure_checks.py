"""What figures state, judged on numbers made so that the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip.concepts import Curve, Histogram
from zeroskip.papers.common import figure_checks
from zeroskip.papers.han2015.figures import removal, rule_is_better
from zeroskip.papers.han2015.findings import DeadNeurons, DropoutErrors


def image(inner: float, outer: float) -> list[float]:
    picture = np.full((28, 28), outer)
    picture[2:-2, 2:-2] = inner
    return picture.flatten().tolist()


@pytest.mark.parametrize("width", [20, 28, 35])
def test_bands_of_20_28_and_35_pixels_are_found(width: int) -> None:
    band = np.r_[np.zeros(4), np.arange(width - 8) % 5 + 5, np.zeros(4)]
    assert figure_checks.period(np.tile(band, 28).tolist()) == width


def test_a_border_that_keeps_less_than_a_tenth_is_pruned() -> None:
    assert figure_checks.border(image(100, 5)) == ("5.00 % of an inner pixel", True)
    assert figure_checks.border(image(100, 20)) == ("20.00 % of an inner pixel", False)
    assert figure_checks.border(None) is None


CURVES: dict[str, Curve] = {"once": ((0.5, 0.01), (0.1, 0.05)), "often": ((0.1, 0.0105), (0.05, 0.5))}


def test_how_far_a_curve_reaches_without_loss() -> None:
    assert figure_checks.reach(CURVES, ("once", "often"), 0.01) == ("10x > 2x", True)
    assert figure_checks.reach(CURVES, ("often", "once"), 0.01) == ("2x and 10x", False)
    assert figure_checks.reach(CURVES, ("once", "absent"), 0.01) is None
    assert figure_checks.reach(CURVES, ("once", "often"), None) is None


def test_a_curve_that_always_loses_reaches_1x() -> None:
    assert figure_checks.reach({**CURVES, "bad": ((0.9, 1.0),)}, ("bad", "once"), 0.01) == ("2x > 1x", True)


def test_two_curves_are_compared_where_both_have_points() -> None:
    one: Curve = ((0.5, 0.01), (0.1, 0.03))
    other: Curve = ((0.5, 0.02), (0.1, 0.04), (0.01, 0.0))
    assert figure_checks.better({"a": one, "b": other}, "a", "b") == ("a 2.00 %, b 3.00 %", True)
    assert figure_checks.better({"a": one, "b": other}, "b", "a") == ("b 3.00 %, a 2.00 %", False)
    assert figure_checks.better({"a": one, "b": ((0.3, 0.1),)}, "a", "b") is None
    assert figure_checks.better({"a": one}, "a", "b") is None


def test_the_layer_that_minds_most_is_the_one_with_the_highest_mean_error() -> None:
    curves = {"conv1": {0.5: 0.0, 0.9: 0.9}, "fc1": {0.5: 0.4, 0.9: 0.4}}
    assert figure_checks.most_sensitive(curves) == ("conv1", True)
    assert figure_checks.conv_against_fc(curves) == ("conv 45.00 %, fc 40.00 %", True)
    assert figure_checks.most_sensitive(None) is None
    assert figure_checks.conv_against_fc({"fc1": {0.5: 0.4}}) is None


def histogram(values: np.ndarray) -> Histogram:
    counts, edges = np.histogram(values, bins=61, range=(-3, 3))
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()))


def test_a_bell_has_one_peak_at_zero_and_a_pruned_bell_two_beside_it() -> None:
    bell = np.random.default_rng(0).normal(0, 0.7, 100_000)
    before, after = histogram(bell), histogram(1.5 * bell[np.abs(bell) > 0.5])
    assert figure_checks.one_peak(before)[1]  # type: ignore[index]
    assert not figure_checks.one_peak(after)[1]  # type: ignore[index]
    assert figure_checks.two_peaks(after)[1]  # type: ignore[index]
    assert not figure_checks.two_peaks(before)[1]  # type: ignore[index]
    assert figure_checks.wider(before, after)[1]  # type: ignore[index]
    assert not figure_checks.wider(after, before)[1]  # type: ignore[index]


def test_the_width_of_a_histogram_leaves_out_one_weight_in_a_hundred() -> None:
    values = np.r_[np.linspace(-0.99, 0.99, 995), np.full(5, 2.9)]
    assert figure_checks.wider(histogram(values), histogram(values)) == ("1.03 from 1.03", False)


def test_no_histogram_no_fact() -> None:
    assert (
        figure_checks.one_peak(None)
        is figure_checks.two_peaks(None)
        is figure_checks.wider(None, None)
        is None
    )


def test_conv_layers_need_more_bits_than_fc_layers() -> None:
    bits = {"conv": {8: 0.01, 4: 0.01, 2: 0.5}, "fc": {8: 0.01, 4: 0.01, 2: 0.01}}
    assert figure_checks.fewest_bits(bits, 0.01) == ("conv 4, fc 2", True)
    assert figure_checks.fewest_bits({"conv": bits["fc"], "fc": bits["conv"]}, 0.01) == (
        "conv 2, fc 4",
        False,
    )
    assert figure_checks.fewest_bits(bits, None) is None


def test_the_best_start_of_centroids_and_a_tie() -> None:
    errors = {"linear": {2: 0.02, 3: 0.02}, "random": {2: 0.03, 3: 0.01}}
    assert figure_checks.best_start(errors, 2) == ("linear 2.00 %, random 3.00 %", True)
    assert figure_checks.best_start(errors, 3) == ("random 1.00 %, linear 2.00 %", False)
    assert figure_checks.best_start({"linear": {2: 0.02}, "random": {2: 0.02}}, 2)[1]  # type: ignore[index]
    assert figure_checks.best_start(errors, 4) is None


def test_a_paper_that_says_not_linear_is_met_only_by_an_error_below_that_of_linear() -> None:
    errors = {"linear": {2: 0.02, 3: 0.02, 4: 0.01}, "random": {2: 0.03, 3: 0.01, 4: 0.01}}
    held = [figure_checks.best_start(errors, bits, linear=False) for bits in (2, 3, 4)]
    assert [one and one[1] for one in held] == [False, True, False]


def test_a_removal_counts_neurons_and_agrees_up_to_a_change_of_0_00001() -> None:
    assert removal(DeadNeurons(28, 1e-5)) == ("28 removed, change 1e-05", True)
    assert removal(DeadNeurons(28, 2e-5)) == ("28 removed, change 2e-05", False)
    assert removal(DeadNeurons(0, 0.0)) == ("0 removed, change 0", False)
    assert removal(None) is None


def test_dropout_by_the_rule_agrees_up_to_the_error_with_dropout_unchanged() -> None:
    assert rule_is_better(DropoutErrors(0.01, 0.01)) == ("1.00 % and 1.00 %", True)
    assert rule_is_better(DropoutErrors(0.0101, 0.01)) == ("1.01 % and 1.00 %", False)
    assert rule_is_better(None) is None
    assert figure_checks.percent(None) is None
