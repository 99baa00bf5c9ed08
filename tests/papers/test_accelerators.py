"""EIE, Eyeriss's chip, Eyeriss v2, Cnvlutin, SCNN, Cambricon-S, SparTen: published figures beside the simulator's."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from zeroskip.errors import AcceleratorError, DataError, RecipeError
from zeroskip.papers import PaperRow, Setup, committed, named, published_shares, rows
from zeroskip.papers.common import masked_layers
from zeroskip.papers.eie import measure as eie_measure
from zeroskip.papers.eie import rows as eie
from zeroskip.papers.eie.published import FC8
from zeroskip.papers.eyeriss import chip_rows
from zeroskip.papers.eyeriss_v2 import measure as eyeriss_v2_measure
from zeroskip.papers.eyeriss_v2 import rows as eyeriss_v2
from zeroskip.papers.eyeriss_v2.published import ELEMENT
from zeroskip.papers.scnn import inception
from zeroskip.papers.scnn import rows as scnn
from zeroskip.papers.scnn.published import INCEPTION
from zeroskip.papers.sparten import measure as pruned
from zeroskip.papers.sparten import rows as sparten
from zeroskip.papers.sparten.published import REAL
from zeroskip.simulate import chips, estimate, simulation
from zeroskip.simulate.energy import prices

COUNTS = {"eie": 33, "cnvlutin": 6, "scnn": 18, "cambricon-s": 7, "sparten": 8}  # without findings
FAILING = {
    ("eie", "Alex-8", "random places"),
    ("eie", "VGG-6", "random places"),
    ("eie", "VGG-6", eie.COLUMNS[eie.FITTED]),
    ("eie", "VGG-6", eie.TOP),
    ("cnvlutin", "AlexNet", published_shares.HAN),
    ("cnvlutin", "mean", published_shares.HAN),
    ("scnn", "mean of AlexNet, VGG-16 and GoogLeNet's modules at 0.43, which explains their speed-up", "times less"),
    ("scnn", "VGG-16", "more energy for these, mean"),
    ("scnn", "0.1", "times faster"),
    ("scnn", "SCNN", "times faster than skipping zeros of inputs alone"),
    ("cambricon-s", "AlexNet", "weight by weight"),
    ("cambricon-s", "AlexNet", "times smaller in blocks"),
    ("sparten", "over one-sided", published_shares.HAN),
    *(("sparten", "over SCNN", reading) for reading in published_shares.READINGS),
    ("eyeriss", "CONV3", "traffic to the buffer"),
    ("eyeriss", "zeros of the picture alone", "saved"),
}  # fmt: skip


@cache
def of(paper: str) -> list[PaperRow]:
    return chip_rows.analytic() if paper == "eyeriss" else rows([named(paper)], analytic=True)


def ours(paper: str, column: str, **fields: str) -> list[float]:
    found = [row for row in of(paper) if row.column == column]
    return [float(row.ours or 0) for row in found if all(getattr(row, key) == fields[key] for key in fields)]


@pytest.mark.slow
def test_every_row_holds_but_eighteen_and_these_say_why() -> None:
    failing = [row for paper in (*COUNTS, "eyeriss") for row in of(paper) if row.holds is not True]
    assert {(row.paper, row.row, row.column) for row in failing} == FAILING
    assert all(row.holds is False and row.reason for row in failing)
    assert len(failing) == len(FAILING) + 1 == 18  # VGG-6 also misses its time without waiting


@pytest.mark.parametrize("paper", COUNTS)
def test_what_cannot_be_computed_is_listed_with_a_reason(paper: str) -> None:
    some = [*of(paper), *named(paper).unmeasurable()]
    assert len(some) == COUNTS[paper]
    assert all(row.reason for row in some if row.holds is None)


def test_the_rows_are_the_same_at_every_call_and_no_caller_can_change_them() -> None:
    first = rows([named("cnvlutin")], analytic=True)
    first.clear()
    assert len(rows([named("cnvlutin")], analytic=True)) == COUNTS["cnvlutin"]


# --- the layers


def test_every_inception_module_hands_on_the_channels_that_the_next_one_reads() -> None:
    for one, following in pairwise(INCEPTION):
        assert one[3] + one[5] + one[7] + one[8] == following[2]
    assert sum(layer.macs for layer in inception.layers()) == pytest.approx(1.10e9, rel=0.02)


def test_inputs_are_sparser_as_eyeriss_met_them_than_by_han_in_all_but_the_first_layers_of_both() -> None:
    for network, count in (("alexnet", 5), ("vgg16", 13)):
        han, eyeriss = (published_shares.seen(network, reading) for reading in published_shares.READINGS)
        assert len(published_shares.kept(network)) == len(han) == len(eyeriss) == count
        assert all(less < more for less, more in zip(eyeriss, han, strict=True))


def test_masks_have_the_shares_and_shapes_they_are_made_for() -> None:
    works = masked_layers.masked(
        masked_layers.convolutions("alexnet")[2:3], masked_layers.NonZeros([0.25], [0.5], [0.1]), images=2
    )
    assert works[0].weight.shape == (1, 384, 256, 3, 3)
    assert works[0].input.shape == (2, 1, 256, 13, 13)
    shares = [getattr(works[0], name).float().mean().item() for name in ("weight", "input", "output")]
    assert shares == pytest.approx([0.25, 0.5, 0.1], abs=0.005)


# --- EIE


def test_eie_without_waiting_takes_what_its_non_zeros_take_where_columns_are_too_short_for_padding() -> None:
    # 600 rows on 64 elements are at most 10 each: no run of 16 zeros, so no padding entry.
    times = {row.row: float(row.ours or 0) for row in of("eie") if row.table.startswith("Table IV: entries")}
    assert times["NT-We"] == pytest.approx(4096 * 600 * 0.10 / 64 / 800, rel=0.01)
    assert len(times) == 9


def test_eie_medians_over_nine_layers_are_8_percent_at_random_and_5_percent_less_evenly() -> None:
    medians = [float(row.ours or 0) for row in of("eie") if row.row == "median of nine"]
    assert medians == pytest.approx([7.8, 5.3], abs=0.1)


def test_eie_takes_9_83_microseconds_for_its_authors_layer_and_without_findings_the_rows_wait() -> None:
    (found,) = [one for one in committed() if one.paper == "eie"]
    told = eie.measured_rows(FC8, found.findings)
    assert [round(float(row.ours or 0), 2) for row in told] == [9.83, 8.84]
    assert [row.holds for row in told] == [True, True]
    assert [(row.holds, row.reason) for row in eie.measured_rows(FC8, {})] == [(None, eie.DATA)] * 2


# --- Eyeriss and Eyeriss v2


def test_eyeriss_all_18_latencies_lie_within_10_percent_and_both_totals_within_3() -> None:
    latencies = [row for row in of("eyeriss") if row.column == "processing latency"]
    shares = [abs(row.difference or 0) / float(row.published) for row in latencies if row.row != "total"]
    assert (len(shares), max(shares) < 0.10) == (18, True)
    totals = [abs(row.difference or 0) / float(row.published) for row in latencies if row.row == "total"]
    assert len(totals) == 2
    assert max(totals) < 0.03


def test_vgg16_on_eyeriss_is_called_a_fit_in_its_title() -> None:
    titles = {row.table for row in of("eyeriss") if row.network == "vgg16"}
    assert len(titles) == 1
    assert "a fit" in titles.pop()


def test_eyeriss_moves_15_4_megabytes_of_alexnet_to_dram_within_6_percent_and_its_buffer_208_but_for_conv3() -> (
    None
):
    assert sum(ours("eyeriss", "traffic to DRAM")) == pytest.approx(15.4, rel=0.06)
    first, second, third, *last = ours("eyeriss", "traffic to the buffer")
    assert [first, second, *last] == pytest.approx([18.5, 77.6, 37.4, 24.9], rel=0.02)
    (row,) = [one for one in of("eyeriss") if (one.row, one.column) == ("CONV3", "traffic to the buffer")]
    assert "cut like these it would be 49.4 MB" in row.reason
    assert third == pytest.approx(1.37 * 50.2, rel=0.01)


def test_gating_saves_42_or_51_percent_of_the_elements_power_by_what_counts_as_a_zero() -> None:
    assert ours("eyeriss", "saved") == pytest.approx([42.3, 51.3], abs=0.1)


def test_no_table_of_the_chip_is_shown_among_those_of_the_code() -> None:
    from zeroskip.papers import CODEC_TABLES

    assert not [row.table for row in of("eyeriss") if row.table.startswith(CODEC_TABLES)]


def test_an_element_of_eyeriss_v2_takes_exactly_the_cycles_of_the_baseline_in_5_layers() -> None:
    (found,) = [one for one in committed() if one.paper == "eyeriss-v2"]
    told = eyeriss_v2.measured_rows(ELEMENT, found.findings)
    assert [(row.difference, row.holds) for row in told] == [(0, True)] * 5
    waiting = rows([named("eyeriss-v2")])
    assert [(row.holds, row.reason) for row in waiting] == [(None, eyeriss_v2.DATA)] * 5
    one_off = {"cycles": {"L25": 948_573}}
    assert eyeriss_v2.measured_rows(ELEMENT, one_off)[-1].holds is False


# --- SCNN, SparTen, Cambricon-S


def test_scnn_on_dense_modules_is_slower_by_the_ratio_of_two_closed_forms() -> None:
    theirs = mine = 0
    for layer in inception.layers():
        outputs, channels, kernel, _ = layer.weight.shape
        tile = (-(-layer.input_shape[1] // 8)) ** 2
        mine += -(-outputs // 8) * channels * -(-tile // 4) * (8 * kernel**2 // 4)
        theirs += outputs * tile * -(-channels * kernel**2 // 16)
    assert ours("scnn", "times faster", row="1.0") == pytest.approx([theirs / mine])


def test_scnn_is_even_with_its_dense_twin_at_a_share_of_0_76_and_in_energy_at_0_90() -> None:
    found = [row.ours for row in of("scnn") if row.row == "cross-over"]
    assert found == pytest.approx([0.756, 0.896], abs=0.005)


def test_scnn_s_energies_against_its_twin_are_those_of_its_own_loops_and_memories() -> None:
    # Of a 1 x 1 convolution without zeros, per MAC: a multiplication, an input of 16 or 20 bits from 10 or 16 KB for 8
    # filters, a weight from 500 bytes for 1 MAC or 4, a sum for 16 MACs or 1, read and written.
    bit = lambda size: max(10 / 64 * math.sqrt(size / 8192), 0.03)
    twin = 0.9 + 16 * bit(16384) / 8 + 16 * bit(500) + 2 * 16 * bit(3072) / 16
    mine = 0.9 + 20 * bit(10240) / 8 + 20 * bit(500) / 4 + 2 * 16 * bit(96)
    layer = masked_layers.convolutions("vgg16")[8]
    pointwise = replace(layer, weight=layer.weight[:, :, :1, :1], padding=(0, 0))
    for chip, expected in ((chips.DCNN, twin), (chips.SCNN, mine)):
        (found,) = estimate(
            masked_layers.masked([pointwise], masked_layers.NonZeros([1.0], [1.0])), chip
        ).layers
        on_chip = sum(found.picojoules.values()) - found.picojoules["DRAM"] - found.picojoules["outputs"]
        assert on_chip / found.macs == pytest.approx(expected, rel=1e-3)


def test_nine_layers_of_vgg16_do_not_fit_scnn_and_these_are_the_first() -> None:
    assert ours("scnn", f"layers whose maps do not fit, {published_shares.HAN}") == [9]
    works = published_shares.workloads("vgg16", published_shares.HAN)
    found = [simulation.layer(work, chips.SCNN, prices("han2015", "lpddr4")) for work in works]
    spilled = [one.bytes["DRAM", "A"] + one.bytes["DRAM", "O"] > 0 for one in found]
    assert spilled == [True] * 9 + [False] * 4


def test_without_waiting_scnn_would_be_25_times_faster_than_its_twin_at_a_share_of_0_1() -> None:
    (row,) = [one for one in of("scnn") if (one.row, one.column) == ("0.1", "times faster")]
    assert row.holds is False
    assert "ours would be 25.0x" in row.reason


def test_sparten_reaches_4_2_or_5_1_times_dense_by_the_inputs_taken() -> None:
    found = [float(row.ours or 0) for row in of("sparten") if row.row == "over dense"]
    assert found == pytest.approx([4.21, 5.08], abs=0.02)


def test_googlenet_s_share_is_the_one_with_which_scnn_is_2_19_times_faster_than_its_twin() -> None:
    share = inception.googlenet_share()
    assert share == pytest.approx(0.44, abs=0.01)
    speed = masked_layers.faster(inception.modules(share, share), chips.SCNN, chips.DCNN)
    assert speed == pytest.approx(2.19, rel=0.01)
    assert f"at {share:.2f}" in scnn.unmeasurable()[0].reason


@pytest.mark.parametrize(("told", "words"), [(1.1, "never 1.1"), (0.2, "never 0.2")])
def test_a_ratio_that_no_share_reaches_is_refused_and_not_taken_for_the_nearest_share(
    told: float, words: str
) -> None:
    ratio = {0.4: 1.0, 0.8: 0.5}.__getitem__
    assert inception.share_at((0.4, 0.8), ratio, 0.75) == pytest.approx(0.6)
    assert [inception.share_at((0.4, 0.8), ratio, end) for end in (1.0, 0.5)] == [0.4, 0.8]
    with pytest.raises(AcceleratorError, match=words):
        inception.share_at((0.4, 0.8), ratio, told)


def test_every_row_of_sparten_s_means_says_that_googlenet_s_share_follows_from_scnn_s_2_19() -> None:
    means = [row for row in of("sparten") if row.row.startswith("over ")]
    assert len(means) == 6
    assert all("share derived from SCNN's published 2.19x" in row.table for row in means)


def test_balance_by_chunk_gains_more_than_by_filter_and_that_more_than_1_2_times() -> None:
    by_filter, by_chunk = (float(row.ours or 0) for row in of("sparten") if row.table == "Balance")
    assert by_chunk > by_filter > 1.2


def test_on_the_pruned_layers_of_squeezenet_both_balances_gain_over_1_2_times_and_on_all_layers_less() -> (
    None
):
    found = {one.network: sparten.measured_rows(one.network, one.findings) for one in committed()
             if one.paper == "sparten"}  # fmt: skip
    assert set(found) == set(REAL)
    gains = [row.ours for row in found["squeezenet"] if "without balance" in row.column]
    assert gains == pytest.approx([1.085, 1.122, 1.209, 1.318], abs=0.005)
    failing = {row.reason for some in found.values() for row in some if row.holds is not True}
    assert all(row.holds is not None for some in found.values() for row in some)
    assert len(failing) == 3
    assert all(failing)


def test_on_every_real_network_balance_by_chunk_is_fastest_then_by_filter_none_one_sided_and_dense() -> None:
    real_rows = [row for one in committed() if one.paper == "sparten"
                 for row in sparten.measured_rows(one.network, one.findings)]  # fmt: skip
    orders = [row for row in real_rows if row.column == "cycles"]
    assert len(orders) == 5
    assert all(row.holds for row in orders)


def test_without_findings_the_rows_of_real_networks_wait() -> None:
    for network in REAL:
        assert {(row.holds, row.reason) for row in sparten.measured_rows(network, {})} == {
            (None, sparten.DATA)
        }
    assert sparten.measured_rows("alexnet", {}) == []


def test_cambricon_s_is_1_47_or_1_82_times_faster_than_x_and_1_71_lies_between() -> None:
    low, high = (float(row.ours or 0) for row in of("cambricon-s") if row.column.startswith("times faster"))
    assert low < 1.71 < high
    assert (low, high) == pytest.approx((1.467, 1.822), abs=0.005)


def test_alexnet_s_index_is_half_a_byte_for_each_of_6_796_192_weights_left() -> None:
    assert ours("cambricon-s", "weight by weight") == pytest.approx([6_796_192 / 2 / 2**20], rel=1e-6)


# --- the command's words, and the real data


def test_papers_of_the_simulator_cannot_be_measured_and_say_so() -> None:
    from zeroskip.papers import measurable

    with pytest.raises(RecipeError, match="scnn cannot be measured here"):
        measurable(named("scnn"))
    assert measurable(named("eie")) == [FC8]


@pytest.mark.parametrize("measure", [eie_measure.measure_fc8, eyeriss_v2_measure.measure_element])
def test_without_the_folder_of_real_zeros_measuring_says_what_to_give(
    measure: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert callable(measure)
    monkeypatch.setenv("ZEROSKIP_DATA", str(tmp_path))
    with pytest.raises(DataError, match='no folder "accelerators"'):
        measure(Setup(tmp_path, 1))


@pytest.mark.real_data
def test_measuring_gives_the_findings_that_come_with_zeroskip(tmp_path: Path) -> None:
    parent = os.environ.get("ZEROSKIP_DATA")
    if not parent or not (Path(parent) / "accelerators").is_dir():
        pytest.skip("real zeros are absent: set ZEROSKIP_DATA to the folder that holds accelerators/")
    stored = {one.network: one.findings for one in committed() if one.paper in ("eie", "eyeriss-v2")}
    assert eie_measure.measure_fc8(Setup(tmp_path, 1)) == stored[FC8]
    assert eyeriss_v2_measure.measure_element(Setup(tmp_path, 1)) == stored[ELEMENT]


@pytest.mark.real_data
@pytest.mark.parametrize(
    "network", ["mobilenet-element", "resnet20", pytest.param("squeezenet", marks=pytest.mark.slow)]
)
def test_counting_pruned_networks_on_sparten_gives_the_findings_that_come_with_zeroskip(
    network: str, tmp_path: Path
) -> None:
    parent = os.environ.get("ZEROSKIP_DATA")
    folders = ("accelerators", "weights", "cifar10", "imagenet_sample")
    if not parent or not all((Path(parent) / name).is_dir() for name in folders):
        pytest.skip(f"real zeros are absent: set ZEROSKIP_DATA to the folder of {', '.join(folders)}")
    (stored,) = [one for one in committed() if (one.paper, one.network) == ("sparten", network)]
    assert pruned.measure_network(network, Setup(tmp_path, 1)) == stored.findings
