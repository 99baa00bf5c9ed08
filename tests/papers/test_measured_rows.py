"""Rows from findings made so that every verdict is known: on the border a row holds, a step beyond it does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.concepts import Curve, Histogram, PaperRow
from zeroskip.papers import named
from zeroskip.papers.common import figure_checks
from zeroskip.papers.common.rules import (
    AT_LEAST,
    EQUAL,
    LAST_DIGIT,
    ROUNDS,
    Figure,
    Rule,
    at_least,
    at_most,
    figure,
    within,
    within_share,
)
from zeroskip.papers.common.tables import Table, error_rows
from zeroskip.papers.common.training_plans import PLANS, gradual
from zeroskip.papers.extensor import published as extensor
from zeroskip.papers.eyeriss_v2.published import CYCLES
from zeroskip.papers.sparten import rows as sparten
from zeroskip.simulate import chips

PRINTED = st.decimals(0, 10_000, places=2).map(lambda number: figure(f"{number:.2f}"))
STEP = 1e-4  # far above what floating point may do at these sizes, far below every tolerance


# --- rules, at their border


@pytest.mark.parametrize("sign", [1, -1])
@given(printed=PRINTED, tolerance=st.floats(0.01, 100))
def test_within_holds_up_to_the_tolerance_on_both_sides(sign: int, printed: Figure, tolerance: float) -> None:
    rule = within(tolerance, "so much")
    assert rule.holds(printed, printed.value + sign * (tolerance - STEP))
    assert not rule.holds(printed, printed.value + sign * (tolerance + STEP))


@pytest.mark.parametrize("sign", [1, -1])
@given(printed=PRINTED, share=st.floats(0.01, 1))
def test_within_a_share_holds_up_to_that_share_of_the_published_figure(
    sign: int, printed: Figure, share: float
) -> None:
    rule, tolerance = within_share(share), share * printed.value
    assert rule.holds(printed, printed.value + sign * max(tolerance - STEP, 0))
    assert not rule.holds(printed, printed.value + sign * (tolerance + STEP))


@pytest.mark.parametrize(("rule", "digits"), [(ROUNDS, 0.5), (LAST_DIGIT, 1.0)])
@given(printed=PRINTED)
def test_rounding_allows_half_a_digit_and_a_step_of_the_last_digit_a_whole_one(
    rule: Rule, digits: float, printed: Figure
) -> None:
    for sign in (1, -1):
        assert rule.holds(printed, printed.value + sign * (digits * printed.digit - STEP))
        assert not rule.holds(printed, printed.value + sign * (digits * printed.digit + STEP))


@given(printed=PRINTED, slack=st.floats(0, 10))
def test_at_most_and_at_least_are_one_sided(printed: Figure, slack: float) -> None:
    most, least = at_most(words="so much", slack=slack), at_least("so much", slack=slack)
    assert most.holds(printed, printed.value + slack)
    assert not most.holds(printed, printed.value + slack + STEP)
    assert most.holds(printed, -1e9)
    assert least.holds(printed, printed.value - slack)
    assert not least.holds(printed, printed.value - slack - STEP)
    assert least.holds(printed, 1e9)


@given(printed=PRINTED, limit=st.floats(0, 100))
def test_a_limit_of_its_own_replaces_the_published_figure(printed: Figure, limit: float) -> None:
    assert at_most(limit, "a limit").holds(printed, limit)
    assert not at_most(limit, "a limit").holds(printed, limit + STEP)


@given(printed=PRINTED)
def test_equal_is_equal(printed: Figure) -> None:
    assert EQUAL.holds(printed, printed.value)
    assert not EQUAL.holds(printed, printed.value + STEP)
    assert AT_LEAST.holds(printed, printed.value)


@given(st.integers(0, 10**9))
def test_an_integer_with_commas_is_read_exactly(number: int) -> None:
    assert figure(f"{number:,}") == Figure(number, 1.0)


@pytest.mark.parametrize(
    ("printed", "value"), [("1K", 1e3), ("2.5M", 2.5e6), ("0.9B", 9e8), ("-1.5K", -1500)]
)
def test_letters_scale_the_value_and_the_digit(printed: str, value: float) -> None:
    assert figure(printed).value == value
    decimals = len(printed.rstrip("KMB").partition(".")[2])
    scale = {"K": 1e3, "M": 1e6, "B": 1e9}[printed[-1]]
    assert figure(printed).digit == pytest.approx(scale / 10**decimals)


@pytest.mark.parametrize("printed", ["", "about 5", "5 %", "1.2.3", "5m"])
def test_what_is_no_printed_figure_is_our_mistake(printed: str) -> None:
    with pytest.raises(AssertionError):
        figure(printed)


def test_top_5_rows_are_there_where_the_paper_has_them() -> None:
    table = Table("han2015", "Table 1", "alexnet", "needs training")
    before, after = [("42.78", 0.42), ("19.73", None)], [("42.77", 0.43), ("19.67", None)]
    rows = error_rows(table, "AlexNet", before, after, word="pruned", step=" pruning")
    assert [(row.row, row.column) for row in rows] == [
        ("AlexNet ref", "top-1 error"), ("AlexNet pruned", "top-1 error"),
        ("AlexNet ref", "top-5 error"), ("AlexNet pruned", "top-5 error"),
    ]  # fmt: skip
    assert [row.holds for row in rows] == [True, False, None, None]
    assert len(error_rows(table, "LeNet-5", [("0.80", None), ("", None)], after, word="pruned", step="")) == 2


# --- what figures state


CURVES = st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1)), min_size=1, max_size=8).map(tuple)


@given(CURVES, CURVES, st.floats(0, 1))
def test_a_curve_reaches_as_far_as_its_smallest_share_without_loss(
    one: Curve, other: Curve, dense: float
) -> None:
    verdict = figure_checks.reach({"a": one, "b": other}, ("a", "b"), dense)
    assert verdict is not None
    least = [
        min((kept for kept, error in curve if error <= dense + 0.001), default=1.0) for curve in (one, other)
    ]
    assert verdict[1] is (least[0] > least[1])
    assert verdict[0].startswith(f"{1 / least[1]:.3g}x")


@given(CURVES)
def test_no_curve_is_better_than_itself(curve: Curve) -> None:
    verdict = figure_checks.better({"a": curve, "b": curve}, "a", "b")
    assert verdict is not None
    assert verdict[1] is False


ERRORS = st.dictionaries(st.sampled_from(["conv1", "conv2", "fc1", "fc2"]),
                         st.dictionaries(st.floats(0, 1), st.floats(0, 1), min_size=1), min_size=1)  # fmt: skip


@given(ERRORS)
def test_the_most_sensitive_layer_has_no_lower_mean_than_any_other(
    curves: dict[str, dict[float, float]],
) -> None:
    most = figure_checks.most_sensitive(curves)
    means = {name: sum(curve.values()) / len(curve) for name, curve in curves.items()}
    assert most is not None
    assert most[1] is (most[0] == "conv1")
    assert means[most[0]] == pytest.approx(max(means.values()))
    verdict = figure_checks.conv_against_fc(curves)
    assert (verdict is None) == (len({name[:2] for name in curves}) == 1)


@given(st.lists(st.integers(0, 1000), min_size=9, max_size=9))
def test_peaks_are_told_by_the_bin_at_zero(counts: list[int]) -> None:
    histogram = Histogram(tuple(place - 4.5 for place in range(10)), tuple(counts))
    one, two = figure_checks.one_peak(histogram), figure_checks.two_peaks(histogram)
    assert one is not None
    assert two is not None
    assert one[1] == (abs(counts.index(max(counts)) - 4) <= 1)
    assert two[1] == (min(max(counts[:4]), max(counts[5:])) >= 2 * max(counts[4], 0.5))


@given(st.integers(1, 50), st.integers(51, 1000))
def test_a_histogram_stretched_is_wider_and_shrunk_is_not(narrow: int, wide: int) -> None:
    before, after = (Histogram((-edge, 0, edge), (5, 5)) for edge in (narrow, wide))
    assert figure_checks.wider(before, after) == (f"{wide:.3g} from {narrow:.3g}", True)
    assert figure_checks.wider(after, before) == (f"{narrow:.3g} from {wide:.3g}", False)


@given(st.integers(14, 42))
def test_a_pattern_repeats_at_its_own_length_or_at_a_multiple_of_it(width: int) -> None:
    row = [0] * 4 + [(7 * place) % 11 + 5 for place in range(width - 4)]
    assert figure_checks.period(row * 30) % width == 0


@given(st.floats(0.01, 100), st.floats(0, 100))
def test_a_border_agrees_below_a_tenth_of_the_inside(inner: float, outer: float) -> None:
    image = [outer] * 64
    for row in range(2, 6):
        image[8 * row + 2 : 8 * row + 6] = [inner] * 4
    verdict = figure_checks.border(image)
    assert verdict is not None
    assert verdict[1] is bool(outer / inner < 0.1) or outer / inner == pytest.approx(0.1)


WIDTHS = st.dictionaries(st.integers(1, 8), st.floats(0, 1), min_size=1)


@given(WIDTHS, WIDTHS, st.floats(0, 1))
def test_the_fewest_bits_are_the_narrowest_without_loss_or_32(
    conv: dict[int, float], fc: dict[int, float], dense: float
) -> None:
    least = [
        min((bits for bits, error in curve.items() if error <= dense + 0.001), default=32)
        for curve in (conv, fc)
    ]
    told = figure_checks.fewest_bits({"conv": conv, "fc": fc}, dense)
    assert told == (f"conv {least[0]}, fc {least[1]}", least[0] > least[1])


@given(st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_linear_is_the_best_start_unless_another_is_below_it(
    linear: float, other: float, claim: bool
) -> None:
    verdict = figure_checks.best_start({"linear": {5: linear}, "random": {5: other}}, 5, linear=claim)
    assert verdict is not None
    assert verdict[1] is ((linear <= other) is claim)


# --- papers about chips


def rows(paper: str, network: str, findings: dict[str, Any]) -> list[PaperRow]:
    return named(paper).measured_rows(network, findings)


@pytest.mark.parametrize(("layer", "cycles"), [("L07", 1_702_140), ("L25", 948_572)])
def test_cycles_of_the_element_are_equal_or_wrong(layer: str, cycles: int) -> None:
    for ours, holds in ((cycles, True), (cycles + 1, False), (cycles - 1, False)):
        found = {row.row: row for row in rows("eyeriss-v2", "mobilenet-element", {"cycles": {layer: ours}})}
        assert list(found) == list(CYCLES)
        assert found[layer].holds is holds
        assert [row.holds for name, row in found.items() if name != layer] == [None] * 4


@pytest.mark.parametrize("share", [-0.0201, -0.0199, 0.0, 0.0199, 0.0201])
def test_the_authors_own_layer_on_eie_is_within_two_percent(share: float) -> None:
    cycles = round(9.9e-6 * (1 + share) * chips.EIE.hertz)
    actual, _ = rows("eie", "eie-fc8", {"cycles": cycles, "entries": 452_800})
    assert actual.holds is (abs(share) < 0.02)
    assert actual.ours == pytest.approx(9.9 * (1 + share), rel=1e-4)


def test_a_network_that_is_not_measured_for_a_paper_has_no_rows() -> None:
    assert rows("eie", "alexnet", {}) == rows("extensor", "alexnet", {}) == rows("sparten", "vgg16", {}) == []
    assert (
        rows("scnn", "alexnet", {})
        == rows("cnvlutin", "vgg16", {})
        == rows("cambricon-s", "alexnet", {})
        == []
    )


MATRIX = {"products": 538_318, "comparisons": 29_738_344, "one": 12_312_364, "two": 3_391_516, "sums": 8_601_616,
          "again": 53_963_488, "nanoseconds": 1_089_105}  # fmt: skip


def test_a_matrix_with_the_authors_own_figures_differs_in_nothing() -> None:
    own = [
        row for row in rows("extensor", "sparse-matrices", {"p2p-Gnutella31": MATRIX}) if row.ours is not None
    ]
    assert [row.row for row in own] == ["p2p-Gnutella31"] * 7
    assert all(row.holds and row.difference == 0 for row in own)


@pytest.mark.parametrize(
    ("key", "share"), [("one", 0.10), ("two", 0.10), ("sums", 0.10), ("again", 0.10), ("nanoseconds", 0.15)]
)
def test_bytes_are_within_a_tenth_of_the_authors_and_times_within_15_percent(key: str, share: float) -> None:
    for factor, holds in ((1 + 0.99 * share, True), (1 + 1.01 * share, False), (1 - 1.01 * share, False)):
        counted = {**MATRIX, key: round(MATRIX[key] * factor)}
        judged = [row.holds for row in rows("extensor", "sparse-matrices", {"p2p-Gnutella31": counted})]
        assert judged.count(False) == (not holds)
    assert len(extensor.MATRICES) == 4


def layer(kept: float = 0.4, filters: int = 1000, spread: float = 0.3, **cycles: int) -> dict[str, Any]:
    counted = {"GB-H": 100, "GB-S": 110, "none": 132, "one-sided": 300, "dense": 800, "SCNN": 200}
    return {"filters": filters, "kept": kept, "spread": spread, "cycles": {**counted, **cycles}}


def sparse(**layers: dict[str, Any]) -> list[PaperRow]:
    return rows("sparten", "squeezenet", {"inputs": "pictures", "pruned": "somehow", "layers": layers})


def test_balance_gains_are_of_all_layers_and_of_those_that_can_be_balanced() -> None:
    listed = sparse(a=layer(), b=layer(kept=0.95, none=110), c=layer(filters=sparten.UNITS, none=110))
    gains = {(row.row, row.column[:4]): row.ours for row in listed if "without balance" in row.column}
    assert gains["all layers (3)", "GB-H"] == pytest.approx((132 + 110 + 110) / 300)
    assert gains[f"pruned, over {sparten.UNITS} filters (1)", "GB-H"] == pytest.approx(1.32)
    assert gains[f"pruned, over {sparten.UNITS} filters (1)", "GB-S"] == pytest.approx(1.2)


def test_where_every_layer_can_be_balanced_there_is_one_part_and_the_spread_is_the_reason() -> None:
    listed = sparse(a=layer(none=105), b=layer(none=105, spread=0.1))
    assert {row.row for row in listed} == {"all layers (2)"}
    failing = [row for row in listed if row.holds is False]
    assert all("spread by 0.20" in row.reason for row in failing if "without balance" in row.column)


@pytest.mark.parametrize(("way", "cycles"), [("GB-S", 99), ("none", 109), ("one-sided", 131), ("dense", 299)])
def test_an_order_is_broken_by_any_pair_of_neighbours(way: str, cycles: int) -> None:
    (order,) = [row for row in sparse(a=layer(**{way: cycles})) if row.column == "cycles"]
    assert order.holds is False
    assert [row.holds for row in sparse(a=layer()) if row.column == "cycles"] == [True]


def test_a_way_that_a_layer_cannot_be_run_by_has_no_row() -> None:
    without = layer()
    del without["cycles"]["SCNN"]
    columns = {row.column for row in sparse(a=layer(), b=without)}
    assert "GB-H over SCNN" not in columns
    assert {"GB-H over dense", "GB-H over one-sided"} <= columns


# --- how networks are trained


@pytest.mark.parametrize("times", [2, 30, 150])
def test_one_training_prunes_until_one_weight_in_so_many_is_left(times: int) -> None:
    frontier = PLANS["lenet-5"].frontiers["frontier"]
    (pruned,) = gradual(frontier, times).rounds
    assert pruned.sparsity == pytest.approx(1 - 1 / times)
    assert pruned.train == frontier.retraining


def test_networks_of_imagenet_are_pruned_in_turn_and_have_no_curve() -> None:
    for network, plan in PLANS.items():
        imagenet = network in ("alexnet", "vgg16")
        assert plan.alternate is imagenet
        assert bool(plan.curve) is not imagenet
        assert all(0 < share < 1 for share in plan.curve)
        assert list(plan.curve) == sorted(plan.curve, reverse=True)
        assert set(plan.bits.values()) <= {5, 6, 8}


def test_smaller_networks_have_codes_no_wider() -> None:
    for plan in PLANS.values():
        for frontier in plan.frontiers.values():
            times = sorted(frontier.points)
            widths = [frontier.points[one] for one in times]
            assert widths == sorted(widths, reverse=True)
