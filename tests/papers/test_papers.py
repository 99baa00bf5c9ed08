"""Every analytic row holds or fails as it is known to; measured rows wait for findings and use them."""

from __future__ import annotations

from typing import Any

import pytest

from zeroskip.codecs import relative
from zeroskip.errors import FileError, RecipeError
from zeroskip.papers import PAPERS, PaperResult, PaperRow, measurable, named, rows
from zeroskip.papers.common.network_sizes import sizes
from zeroskip.papers.common.paper import IMAGENET, TRAINING
from zeroskip.papers.common.rules import RECOMPUTED, figure
from zeroskip.papers.deep_compression import published
from zeroskip.papers.deep_compression import rows as deep_compression
from zeroskip.papers.han2015 import rows as han2015

TWO = [named("han2015"), named("deep-compression")]  # the others have tests of their own
HAN, DEEP = (paper.analytic() for paper in TWO)

# What is known to fail: the paper contradicts itself, or the size model does not reach the figure.
FAILING = {
    ("Table 5: VGG-16", "caption", "rate"),
    ("Text", "LeNet-5 conv", "index bits that give the P+Q sizes"),
    ("Text", "AlexNet conv", "index bits that give the P+Q sizes"),
    ("Text", "VGG-16 conv", "index bits that give the P+Q sizes"),
    ("Table 2: LeNet-300-100", "total", "weight bits P+Q+H"),
    ("Table 3: LeNet-5", "conv1", "P+Q+H %"),
    ("Table 3: LeNet-5", "total", "weight bits P+Q+H"),
    ("Table 5: VGG-16", "conv1_1", "P+Q %"),
    ("Table 8", "geometric mean", "Tegra K1, batch 1: times faster, as in the text"),
}


def pick(some: list[PaperRow], column: str, **fields: str) -> list[PaperRow]:
    found = [row for row in some if row.column == column]
    return [row for row in found if all(getattr(row, key) == value for key, value in fields.items())]


def test_all_analytic_rows_hold_but_the_nine_known_ones_and_these_say_why() -> None:
    failing = [row for row in HAN + DEEP if row.holds is not True]
    assert {(row.table, row.row, row.column) for row in failing} == FAILING
    assert len(failing) == len(FAILING)
    assert all(row.holds is False and row.reason for row in failing)
    assert (len(HAN), len(DEEP)) == (149, 181)


def test_flop_left_is_weights_left_times_the_activations_of_the_layer_before_in_all_31_rows() -> None:
    layers = [row for row in pick(HAN, "FLOP%") if row.row != "total"]
    assert len(layers) == 31
    assert all(abs(row.difference or 0) <= 1 for row in layers)
    conv2 = pick(HAN, "FLOP%", table="Table 4: AlexNet", row="conv2")
    assert conv2[0].ours == pytest.approx(0.38 * 88)


def test_activation_totals_after_pooling_are_46_77_54_and_64() -> None:
    totals = pick(HAN, "Act%", row="total")
    assert [row.ours for row in totals] == pytest.approx([46.1, 76.9, 54.0, 64.2], abs=0.05)
    assert [round(float(row.ours or 0)) for row in totals] == [46, 77, 54, 64]


def test_flop_totals_are_8_16_30_and_21_percent() -> None:
    assert [row.ours for row in pick(HAN, "FLOP%", row="total")] == pytest.approx(
        [7.5, 16.2, 30.3, 20.7], abs=0.05
    )


def test_zeros_by_exact_sizes_are_88_85_and_92_39_percent() -> None:
    zeros = pick(HAN, "zeros, by exact sizes")
    assert [round(float(row.ours or 0), 2) for row in zeros] == [88.85, 92.39]
    assert [row.ours for row in pick(HAN, "weights, exact")] == [60_954_656, 138_344_128]
    assert pick(HAN, "weights left, exact")[0].ours == 6_796_192
    assert all(row.trust == RECOMPUTED for row in zeros)


def test_the_memory_of_a_gigaconnection_network_takes_12_8_watts() -> None:
    assert pick(HAN, "DRAM power")[0].ours == pytest.approx(12.8)


def test_the_caption_of_table_5_contradicts_table_1() -> None:
    assert pick(HAN, "rate", row="caption")[0].ours == pick(HAN, "rate", row="VGG-16 pruned")[0].ours


def test_all_31_sizes_after_sharing_are_within_half_a_point_but_vgg_conv1_1_at_1_6() -> None:
    layers = [row for row in pick(DEEP, "P+Q %") if row.row != "total"]
    assert len(layers) == 31
    wrong = [row for row in layers if abs(row.difference or 0) > 0.5]
    assert [(row.network, row.row) for row in wrong] == [("vgg16", "conv1_1")]
    assert wrong[0].difference == pytest.approx(-1.6, abs=0.05)


@pytest.mark.parametrize(
    ("network", "shares"),
    [
        ("lenet-5", [78.0, 5.98, 2.69, 6.58]),
        ("alexnet", [32.2, 14.3, 13.2, 13.9, 13.9, 3.25, 3.25, 7.1]),
    ],
)
def test_sizes_after_sharing_are_those_of_the_closed_form(network: str, shares: list[float]) -> None:
    layers = [row for row in pick(DEEP, "P+Q %", network=network) if row.row != "total"]
    assert [row.ours for row in layers] == pytest.approx(shares, rel=0.004)
    for size, told, row in zip(sizes(network), published.LAYERS[network], layers, strict=True):
        density, code, index = (figure(text).value for text in (told.kept, told.bits, told.index))
        empty = (1 - density / 100) ** (2**index)
        entries = size.weights * density / 100 / (1 - empty)
        bits = entries * (code + index) + 2**code * 32
        # The closed form is that of an endless layer; conv1 of LeNet-5 has 500 weights.
        assert row.ours == pytest.approx(100 * bits / (32 * size.weights), rel=1e-3)


def test_without_fillers_fc6_of_alexnet_would_be_2_53_percent() -> None:
    size, told = sizes("alexnet")[5], published.LAYERS["alexnet"][5]
    bits, _ = deep_compression.stored(size, told)
    fillers = relative.expected_bits(size.weights, 0.91, 4, 5) - 0.09 * size.weights * 9
    assert 100 * (bits - fillers) / (32 * size.weights) == pytest.approx(2.53, abs=0.005)


def test_a_size_model_without_fillers_passes_half_a_point_in_all_layers_but_fails_4_of_7_relative_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def bare(weights: int, sparsity: float, index: int, code: int) -> float:
        return weights * (1 - sparsity) * (index + code)

    relative_rows = pick(DEEP, "P+Q %, relative")
    assert [row.holds for row in relative_rows] == [True] * 7
    monkeypatch.setattr(relative, "expected_bits", bare)
    without = deep_compression.analytic()
    failing = [row for row in pick(without, "P+Q %, relative") if row.holds is False]
    assert [(row.network, row.row) for row in failing] == [
        (network, layer) for network in ("alexnet", "vgg16") for layer in ("fc6", "fc7")
    ]
    absolute = [row for row in pick(without, "P+Q %") if row.row.startswith(("fc", "ip"))]
    assert all(row.holds for row in absolute)


def test_totals_after_sharing_are_3_1_and_3_05_and_3_7_and_3_2() -> None:
    totals = pick(DEEP, "P+Q %", row="total")
    assert [row.published for row in totals] == [3.1, 3.05, 3.7, 3.2]
    assert all(row.holds and abs(row.difference or 0) <= 0.25 for row in totals)


def test_sixteen_weights_in_four_clusters_are_3_2_times_smaller() -> None:
    assert DEEP[0].ours == pytest.approx(3.2)


def test_sparse_is_3_33_times_faster_on_the_cpu_at_batch_1_and_slower_everywhere_at_64() -> None:
    means = pick(DEEP, "i7-5930K, batch 1: dense / sparse time", row="geometric mean")
    assert means[0].ours == pytest.approx(3.33, abs=0.005)
    assert pick(DEEP, "Titan X, batch 1: dense / sparse time")[0].ours == pytest.approx(3.54, abs=0.005)
    assert pick(DEEP, "i7-5930K, batch 64: sparse slower")[0].ours == 6


def test_index_bits_that_fit_the_tables_are_those_printed_in_them() -> None:
    fitted = pick(DEEP, "index bits that give the P+Q sizes")
    printed = [figure(published.LAYERS[row.network][0].index).value for row in fitted]
    assert [row.ours for row in fitted] == printed == [5, 4, 5]


def test_without_findings_every_measured_row_is_listed_with_a_reason() -> None:
    some = rows(TWO)
    waiting = [row for row in some if row.holds is None]
    assert len(some) == len(HAN) + len(DEEP) + len(waiting)
    assert all(row.ours is None and row.reason for row in waiting)
    for table in ("Figure 4: LeNet-300-100", "Figure 6: LeNet-5", "Figure 7: AlexNet", "Figure 8: LeNet-5"):
        assert any(row.table == table for row in waiting), table
    assert {row.reason for row in waiting if row.network == "lenet-5"} == {TRAINING}
    assert {row.reason for row in waiting if row.network == "vgg16"} == {IMAGENET}


@pytest.mark.parametrize(
    "names", [("han2015", "deep-compression", "eyeriss"), pytest.param((), marks=pytest.mark.slow)], ids=len
)
def test_the_rows_of_one_table_and_of_one_line_of_it_stand_together(names: tuple[str, ...]) -> None:
    listed = rows([named(name) for name in names] or PAPERS)
    for places in (
        [(row.paper, row.table) for row in listed],
        [(row.paper, row.table, row.row) for row in listed],
    ):
        changes = [place for place, before in zip(places, [None, *places], strict=False) if place != before]
        assert len(changes) == len(set(changes))


def test_analytic_leaves_out_what_needs_training_and_a_network_what_is_not_its_own() -> None:
    assert sorted(map(str, rows(TWO, analytic=True))) == sorted(map(str, HAN + DEEP))
    assert {row.network for row in rows(TWO, networks=["lenet-5"])} == {"lenet-5"}
    assert {row.network for row in rows(networks=["digits"])} == {"digits"}
    assert not [row for row in rows(TWO) if row.network == "digits"]


HISTOGRAMS = {
    "before": {"edges": [-3, -2, -1, 1, 2, 3], "counts": [0, 10, 90, 10, 0]},
    "after": {"edges": [-3, -2, -1, 1, 2, 3], "counts": [5, 20, 0, 22, 5]},
}
FOUND_HAN = {
    "error_dense": 0.0070,
    "error_pruned": 0.0081,
    "weights_kept": 30_000,
    "layers": {"conv1": {"kept": 0.5, "output": 0.8, "work": 0.5}, "conv2": {"kept": 0.2}},
    "total": {"kept": 30_000 / 430_500},
    "figure5": {
        "L2": [[0.5, 0.007], [0.1, 0.3]],
        "L1": [[0.5, 0.007], [0.1, 0.2]],
        "L2 retrained": [[0.2, 0.007], [0.1, 0.02]],
        "L1 retrained": [[0.2, 0.008], [0.1, 0.03]],
        "L2 iterative": [[0.05, 0.0075]],
    },
    "figure5_dense": {"L1": 0.007, "L2": 0.007},
    "figure6": {"conv1": {"0.9": 0.9}, "conv2": {"0.9": 0.1}, "fc1": {"0.9": 0.01}, "fc2": {"0.9": 0.02}},
    "figure7": HISTOGRAMS,
    "figure7_survivors": {"edges": [-3, -2, -1, 1, 2, 3], "counts": [0, 20, 0, 22, 0]},
    "dropout": {"rule": 0.008, "unchanged": 0.009},
    "dead_neurons": {"removed": 12, "largest_difference": 0.0},
}


def test_findings_fill_the_measured_rows_of_han_and_are_judged() -> None:
    found = han2015.measured_rows("lenet-5", FOUND_HAN)
    holds = {(row.table.split(":")[0], row.row, row.column): row.holds for row in found}
    assert holds["Table 1", "LeNet-5 ref", "top-1 error"] is True
    assert holds["Table 1", "LeNet-5 pruned", "top-1 error"] is False  # 0.81 % against 0.80 %
    assert holds["Table 1", "LeNet-5 pruned", "rise over our own dense network"] is False  # 0.11 points
    assert holds["Table 1", "LeNet-5 pruned", "rate, measured"] is True
    assert holds["Table 3", "conv1", "Weights%, measured"] is True
    assert holds["Table 3", "conv2", "Weights%, measured"] is False
    assert holds["Table 3", "fc1", "Weights%, measured"] is None
    facts = [row for row in found if row.table.startswith(("Figure", "Section"))]
    assert [row.holds for row in facts] == [True] * len(facts)
    assert len(facts) == 3 + 2 + 3 + 2


def judged(found: dict[str, Any], network: str = "lenet-5") -> dict[str, PaperRow]:
    """PaperRow by its column, of han2015."""
    return {row.column: row for row in han2015.measured_rows(network, found)}


def test_no_loss_is_judged_against_our_own_dense_network_even_where_the_published_error_is_met() -> None:
    rows = [
        row
        for row in han2015.measured_rows("lenet-5", {"error_dense": 0.0060, "error_pruned": 0.0075})
        if row.row == "LeNet-5 pruned"
    ]
    assert [(row.column, row.holds) for row in rows][:2] == [
        ("top-1 error", True),
        ("rise over our own dense network", False),
    ]
    assert rows[1].ours == pytest.approx(0.15)
    assert "our own bound" in rows[1].trust
    dc = deep_compression.measured_rows("lenet-5", {"error_dense": 0.0060, "error": 0.0070})
    rise = pick(dc, "rise over our own dense network")[0]
    assert (rise.row, rise.holds) == ("LeNet-5 compressed", True)  # 0.1 points and no more


@pytest.mark.parametrize(("kept", "holds"), [(22_183, True), (23_140, True), (23_200, False)])
def test_266200_weights_with_22183_left_are_12x_as_are_all_that_round_to_12x(kept: int, holds: bool) -> None:
    found = judged({"weights_kept": kept}, "lenet-300-100")
    assert found["rate, measured"].holds is holds


def test_curves_are_judged_by_the_dense_network_they_start_from_not_by_the_mean() -> None:
    name = "iterative > retrained once > not retrained"
    assert judged({**FOUND_HAN, "error_dense": 0.5})[name].ours == "20x > 5x > 2x"
    worse = {**FOUND_HAN, "figure5_dense": {"L1": 0.007, "L2": 0.001}}
    assert judged(worse)[name].holds is False
    size = pick(deep_compression.measured_rows("lenet-5", FOUND_DEEP | {"figures_dense": 0.001}),
                "both against pruned alone")  # fmt: skip
    assert size[0].holds is False


def test_weights_spread_only_if_the_same_weights_do_and_else_the_reason_tells_of_all_weights() -> None:
    still = {**FOUND_HAN, "figure7_survivors": HISTOGRAMS["after"]}
    row = judged(still)["spread of the same weights"]
    assert (row.ours, row.holds) == ("3 from 3", False)
    assert "of all weights it is 3 from 2" in row.reason


def test_dead_neurons_hold_only_where_some_were_removed_and_nothing_changed() -> None:
    column = "removed"
    none = judged({"dead_neurons": {"removed": 0, "largest_difference": 0.0}})[column]
    assert (none.ours, none.holds) == ("0 removed, change 0", False)
    assert "nothing was removed" in none.reason
    changed = judged({"dead_neurons": {"removed": 3, "largest_difference": 0.1}}, "vgg16")[column]
    assert (changed.holds, changed.reason) == (False, "")
    assert judged(FOUND_HAN, "alexnet")[column].holds is True


FOUND_DEEP = {
    "error_dense": 0.0070,
    "error": 0.0072,
    "stored_bytes_dense": 1_724_320,
    "stored_bytes": 20_000,
    "layers": {"conv1": {"kept": 0.5, "bits": 5, "bits_huffman": 4.2, "stored": 0.3, "stored_huffman": 0.29}},
    "figures_dense": 0.007,
    "figure6": {"pruned": [[0.08, 0.007]], "shared": [[0.2, 0.007]], "both": [[0.03, 0.007]]},
    "figure7": {"conv": {"4": 0.007, "2": 0.5}, "fc": {"4": 0.007, "2": 0.007}},
    "figure8": {"linear": {"2": 0.01, "3": 0.02}, "density": {"2": 0.02, "3": 0.01}},
}


def test_findings_fill_the_measured_rows_of_deep_compression_and_are_judged() -> None:
    found = deep_compression.measured_rows("lenet-5", FOUND_DEEP)
    measured = {(row.table.split(":")[0], row.row, row.column): row for row in found if row.ours is not None}
    assert measured["Table 1", "LeNet-5 compressed", "size, measured"].ours == 20
    assert measured["Table 3", "conv1", "P+Q %, measured"].ours == pytest.approx(30)
    assert measured["Table 3", "conv1", "weight bits P+Q+H, measured"].ours == 4.2
    assert [row.holds for row in measured.values()] == [True] * len(measured)
    assert len(measured) == 5 + 5 + 2 + 1 + 2
    assert measured["Figure 8", "3 bits", "best start of the centroids"].published == "not linear"


def test_digits_have_the_rows_of_the_figures_only() -> None:
    tables = {row.table for row in han2015.measured_rows("digits-conv", {})}
    assert tables == {f"Figure {n}: digits-conv" for n in (5, 6, 7)} | {"Section 3: digits-conv"}
    assert {row.table for row in deep_compression.measured_rows("digits", {})} == {
        "Figure 6: digits",
        "Figure 8: digits",
    }


def test_timed_fc_layers_give_ratios_and_their_mean() -> None:
    times = {layer: {"1": [8.0, 2.0], "64": [1.0, 2.0]} for layer in published.TABLE8_LAYERS}
    found = deep_compression.measured_rows("fc-layers", {"table8": times})
    cpu = [row for row in found if row.ours is not None]
    assert len(cpu) == 13
    assert cpu[-1].ours == pytest.approx(4.0)
    assert [row.ours for row in cpu[:6]] == [4.0] * 6
    assert all("graphics card" in row.reason for row in found if row.column.startswith("Titan"))


def test_a_row_of_table_8_says_where_a_dense_kernel_ran() -> None:
    times = {"1": [8.0, 2.0], "64": [1.0, 1.0], "kernel": {"1": "sell", "64": "dense"}}
    found = deep_compression.measured_rows("fc-layers", {"table8": {"AlexNet fc6": times}})
    told = {row.column.split(":")[0]: row.column for row in found if row.ours is not None}
    assert told["i7-5930K, batch 1"].endswith("time, measured")
    assert told["i7-5930K, batch 64"].endswith("time, measured (a dense kernel ran)")


def result(**changes: Any) -> PaperResult:
    fields = {"paper": "han2015", "network": "lenet-5", "date": "2026-01-31", "machine": "M", "command": "c"}
    return PaperResult(**{**fields, "seeds": 3, "findings": FOUND_HAN, **changes})


def test_stored_results_are_merged_into_the_rows_of_their_paper_and_network() -> None:
    digits = result(network="digits", findings={"figure7": HISTOGRAMS})
    some = rows(TWO, results=[result(), digits])
    measured = [row for row in some if row.ours is not None and row not in HAN + DEEP]
    assert {(row.paper, row.network) for row in measured} == {("han2015", "lenet-5"), ("han2015", "digits")}


def test_results_of_an_unknown_paper_or_network_or_of_another_form_are_refused() -> None:
    with pytest.raises(RecipeError, match='no paper "lecun"'):
        rows(results=[result(paper="lecun")])
    with pytest.raises(RecipeError, match='no network "lenet-6"'):
        rows(results=[result(network="lenet-6")])
    with pytest.raises(FileError, match="findings of lenet-5 for han2015 are damaged"):
        rows(results=[result(findings={"layers": [1]})])
    with pytest.raises(FileError, match="ZeroDivisionError"):
        rows(results=[result(findings={"weights_kept": 0})])


def test_a_paper_and_a_network_that_cannot_be_measured_are_named() -> None:
    with pytest.raises(RecipeError, match="Use one of han2015, deep-compression"):
        named("han2016")
    with pytest.raises(RecipeError, match='no network "resnet"'):
        rows(networks=["resnet"])
    with pytest.raises(RecipeError, match="cannot be measured here on digits-conv"):
        measurable(named("han2015"), ["digits-conv"])
