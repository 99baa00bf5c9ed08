"""Eyeriss: published traffic against the code on random maps, and real maps of trained networks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from zeroskip.codecs import runlength
from zeroskip.errors import DataError
from zeroskip.models import AlexNetCaffe, LeNet5
from zeroskip.papers import PaperRow, Setup, named, rows
from zeroskip.papers.common.network_sizes import sizes
from zeroskip.papers.eyeriss import measure as coded
from zeroskip.papers.eyeriss import published
from zeroskip.papers.eyeriss import rows as eyeriss

ALL_ROWS = eyeriss.analytic()
ROWS = [row for row in ALL_ROWS if row.table.startswith(published.CODEC_TABLES)]


def pick(some: list[PaperRow], column: str) -> dict[str, PaperRow]:
    return {row.row: row for row in some if row.column == column}


def test_all_25_analytic_rows_hold_but_the_entropy_claim_at_38_7_and_72_5_percent_zeros() -> None:
    failing = [row for row in ROWS if row.holds is not True]
    assert len(ROWS) == 25
    assert [(row.row, row.column.split(", ")[0]) for row in failing] == [
        ("CONV2", "above the entropy"), ("CONV3", "above the entropy"),
    ]  # fmt: skip
    assert all(row.holds is False and "78 to 92 % zeros" in row.reason for row in failing)


def test_random_maps_at_the_published_zeros_need_21_12_9_and_10_percent_above_the_entropy() -> None:
    found = [row.ours for row in ROWS if row.column.startswith("above the entropy")]
    assert found == ["21.4 %", "11.8 %", "9.1 %", "9.8 %"]


def test_the_five_layers_of_alexnet_move_15_4_megabytes_a_third_less_than_without_the_code() -> None:
    layers = pick(ROWS, "with the code")
    assert [round(float(layers[one.name].ours), 1) for one in published.ALEXNET] == [4.9, 4.0, 2.9, 2.1, 1.3]
    assert layers["total"].ours == pytest.approx(15.4, rel=0.02)
    assert pick(ROWS, "saved by the code")["total"].ours == pytest.approx(32.9, abs=1.2)


def test_32_9_percent_is_what_the_published_megabytes_and_ratios_make() -> None:
    coded_bytes = [float(layer.dram) for layer in published.ALEXNET]
    dense = [float(layer.dram) * float(layer.ratio) for layer in published.ALEXNET]
    assert sum(dense) == pytest.approx(22.95)
    assert f"{100 * (1 - sum(coded_bytes) / sum(dense)):.1f}" == published.SAVED


def test_conv1_saves_30_percent_of_its_accesses_to_maps_and_conv5_three_quarters() -> None:
    saved = pick(ROWS, "accesses to maps saved")
    assert (round(float(saved["CONV1"].ours)), round(float(saved["CONV5"].ours))) == (30, 73)


def test_the_traffic_of_conv2_is_its_maps_twice_its_weights_and_its_output_by_hand() -> None:
    found = eyeriss.traffic(published.ALEXNET[1])
    # 128 filters of each group, 64 at a time: the input is read twice. Four images, 16 bits a value.
    read, written = 2 * 4 * 96 * 31 * 31, 4 * 256 * 27 * 27
    assert found.maps == 16 * (read + written)
    assert found.weights == 16 * 4 * 256 * 48 * 25
    random = 2 * runlength.expected_bits(4 * 96 * 31**2, 0.387) + runlength.expected_bits(written, 0.831)
    assert found.maps_coded == pytest.approx(random, rel=0.005)


def test_the_published_shapes_are_those_of_the_model() -> None:
    layers = dict(AlexNetCaffe().named_modules())
    for told, ours in zip(published.ALEXNET, sizes("alexnet"), strict=False):
        conv = layers[ours.name]
        assert (conv.kernel_size[0], conv.stride[0], conv.groups) == (told.window, told.stride, told.groups)
        assert (conv.in_channels, conv.out_channels) == (told.channels, told.filters)
        assert (told.size - told.window) // told.stride + 1 == told.output  # its size includes the padding
        assert ours.macs * published.ALEXNET_IMAGES == pytest.approx(ours.weights * 4 * told.output**2)
    macs = sum(one.macs for one in sizes("alexnet")[:5])
    assert published.TOTALS["alexnet"].macs == pytest.approx(4e-9 * macs, abs=0.01)


def test_the_tables_of_the_code_are_told_by_their_titles() -> None:
    listed = [*ALL_ROWS, *(row for one in published.MEASURED for row in eyeriss.measured_rows(one, FOUND))]
    assert all(row.table.startswith((*published.CODEC_TABLES, "Chip: ")) for row in listed)
    assert len(ALL_ROWS) - len(ROWS) == sum(row.table.startswith("Chip: ") for row in listed) == 56


LAYER = {"examples": 1, "elements": 1000, "zeros": 800, "bits": {"run-length": 4288}, "bound": 3922.0}
FOUND: dict[str, Any] = {
    "layers": {"conv1": LAYER, "conv2": LAYER, "fc": {**LAYER, "bits": {"run-length": 5000}}},
    "traffic": {"dense": 100_000, "coded": 70_000},
}


def test_findings_give_a_row_for_each_layer_but_the_picture_s_and_two_for_all() -> None:
    found = eyeriss.measured_rows("resnet20", FOUND)
    assert [row.row for row in found] == [
        "conv2 (80.0 % zeros, 3.73x smaller)", "fc (80.0 % zeros, 3.20x smaller)", "all layers", "all layers",
    ]  # fmt: skip
    assert [row.holds for row in found] == [True, False, False, True]
    assert (
        found[0].published == 9.9
    )  # pairs: 200 / (1 - 0.8^32), 0.8 for the zeros at the end, 1 that fills up
    assert found[0].ours == pytest.approx(100 * (4288 / 3922 - 1))
    assert found[1].reason == eyeriss.RUNS
    assert found[2].ours == "1 of 2 layers; 9.3 to 27.5 %"
    assert found[3].ours == "30.0 % less"


def test_without_findings_both_rows_of_every_network_wait_with_a_reason() -> None:
    waiting = [row for row in rows([named("eyeriss")]) if row.holds is None]
    assert [row.network for row in waiting] == ["lenet-5"] * 2 + ["resnet20"] * 2 + ["squeezenet"] * 2
    assert {row.reason for row in waiting} == {eyeriss.DATA}


def test_a_code_that_makes_the_traffic_larger_says_that_there_is_no_relu() -> None:
    grown = eyeriss.measured_rows("lenet-5", {"traffic": {"dense": 100, "coded": 102}})[-1]
    assert (grown.ours, grown.holds, grown.reason) == ("-2.0 % less", False, eyeriss.GROWN)


def test_without_a_data_folder_measuring_says_what_to_give(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZEROSKIP_DATA", "")
    with pytest.raises(DataError, match="--data DIR"):
        coded.measure_network("lenet-5", Setup(tmp_path, 1))


@pytest.mark.real_data
def test_lenet_5_of_caffe_has_zeros_at_its_input_and_after_fc1_only_and_weights_of_one_s_own_change_that(
    mnist_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not (mnist_folder / "weights").is_dir():
        pytest.skip("the trained networks are absent: set ZEROSKIP_DATA to the folder that holds weights/")
    monkeypatch.setenv("ZEROSKIP_DATA", os.fspath(mnist_folder))
    monkeypatch.setattr(coded, "PICTURES", 12)
    steps: list[tuple[int, int]] = []
    setup = Setup(tmp_path, 1, lambda _, done, of: steps.append((done, of)))
    found = cast(dict[str, Any], coded.measure_network("lenet-5", setup))
    shares = {name: one["zeros"] / one["elements"] for name, one in found["layers"].items()}
    assert shares["conv1"] > 0.7
    assert max(shares["conv2"], shares["fc1"]) < 0.01
    assert 0.3 < shares["fc2"] < 0.8
    assert found["traffic"]["dense"] == 16 * (3 * 430_500 + 12 * (784 + 2 * (2880 + 800 + 500)))
    assert steps == [(0, 12), (4, 12), (8, 12), (12, 12)]
    assert found["inputs"] == "the first 12 of MNIST, test set"
    zeros = {name: torch.zeros_like(one) for name, one in LeNet5().state_dict().items()}
    blank: Any = coded.measure_network("lenet-5", Setup(tmp_path, 1, weights=zeros))
    assert blank["layers"]["fc2"]["zeros"] == 12 * 500
