"""The figures show the record's own numbers, and are absent where it has none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from zeroskip.concepts import Point, Profile, Record
from zeroskip.report import figures


def bars(plot: figures.Plot) -> dict[str, dict[str, float]]:
    """Series -> row -> length of the bar."""
    return {bar.name: dict(zip(bar.y, bar.x, strict=True)) for bar in plot.figure.data}


def colours(plot: figures.Plot) -> dict[str, str]:
    return {line.name: line.line.color for line in plot.figure.data}


def test_the_layer_bars_are_the_weights_before_and_the_nonzeros_after(record: Record):
    weights, zeros = figures.layers(record)
    assert bars(weights)["before"] == {"fc1": 19200, "fc2": 30000, "fc3": 1000}
    assert bars(weights)["kept"] == {"fc1": 1632, "fc2": 2550, "fc3": 85}
    assert weights.figure.data[1].text == ("8.5 % kept",) * 3
    assert bars(zeros) == {
        "input": {layer.name: layer.input_sparsity for layer in record.profile.layers},
        "output": {layer.name: layer.output_sparsity for layer in record.profile.layers},
    }


def test_each_sensitivity_line_is_one_layers_curve_and_the_dotted_one_the_unpruned_error(record: Record):
    *lines, level = figures.sensitivity(record)[0].figure.data
    for line, layer in zip(lines, record.profile.layers, strict=True):
        assert (line.name, dict(zip(line.x, line.y, strict=True))) == (layer.name, layer.sensitivity)
    assert list(level.y) == [record.profile.error] * 2


def test_a_layer_has_the_same_colour_in_every_figure(record: Record):
    lines = colours(figures.sensitivity(record)[0])
    kept = figures.layers(record)[0].figure.data[1]
    assert list(kept.marker.color) == [lines[name] for name in kept.y]
    for plot in figures.histograms(record):
        assert colours(plot)["kept"] == lines[plot.title]


def test_the_trade_off_has_all_seven_points_and_a_ring_around_the_chosen_one(record: Record):
    path, *marks, ring = figures.trade_off(record)[0].figure.data
    shown = {(x, y) for mark in marks for x, y in zip(mark.x, mark.y, strict=True)}
    assert shown == {(point.weights_kept / point.weights, point.error) for point in record.history}
    names = ["dense", "round", "round, over the budget", "bisection", "bisection, over the budget"]
    assert [mark.name for mark in marks] == names
    assert len(path.x) == 5  # the dense network and four rounds; bisections are off the path
    assert (ring.name, ring.x, ring.y) == ("chosen", (4267 / 50200,), (0.025,))


def test_shared_values_have_a_star_of_their_own(record: Record):
    point = Point("centroids", 4267, 50200, 0.026, good=True)
    marks = figures.trade_off(replace(record, history=(*record.history, point)))[0].figure.data
    star = next(mark for mark in marks if mark.name == "shared values")
    assert (star.x, star.y, star.marker.symbol) == ((4267 / 50200,), (0.026,), "star")


def test_a_histogram_leaves_out_the_removed_weights_and_sums_to_one(record: Record):
    before, kept = figures.histograms(record)[0].figure.data
    assert before.y.sum() == pytest.approx(1)
    assert kept.y.sum() == pytest.approx(1)
    smallest = record.sparse_weights["fc1"].abs()
    smallest = smallest[smallest > 0].min().item()
    width = before.x[1] - before.x[0]
    assert kept.y[np.abs(kept.x) < smallest - width].sum() == 0


def test_a_layer_without_a_weight_left_has_an_empty_histogram(record: Record):
    gone = replace(record, sparse_weights=record.sparse_weights | {"fc3": torch.zeros(10, 100)})
    assert figures.histograms(gone)[2].figure.data[1].y.sum() == 0


def test_of_20_layers_the_12_largest_have_a_histogram_in_the_networks_order(record: Record):
    weights = {f"layer{i}": torch.randn(10 + i, 4) for i in range(20)}
    many = replace(record, dense_weights=weights, sparse_weights=weights)
    assert [plot.title for plot in figures.histograms(many)] == [f"layer{i}" for i in range(8, 20)]


def test_the_mask_is_the_first_layers_and_64_inputs_make_a_picture_of_8x8_counts(record: Record):
    mask, pixels = figures.first_layer(record)
    kept = record.sparse_weights["fc1"] != 0
    assert np.array_equal(mask.figure.data[0].z, kept.numpy())
    assert np.array_equal(pixels.figure.data[0].z, kept.sum(0).reshape(8, 8).numpy())


def test_12_inputs_are_no_square_and_have_no_pixel_picture(record: Record):
    first = replace(record.profile.layers[0], weight_shape=(5, 12), input_shape=(12,))
    narrow = replace(
        record, profile=Profile((first,), 0.1), sparse_weights={"fc1": torch.ones(5, 12)}, dense_weights={}
    )
    assert [plot.title for plot in figures.first_layer(narrow)] == ["Mask of fc1"]


def test_a_mask_of_4000_columns_is_averaged_down_to_1200_and_keeps_its_share(record: Record):
    first = replace(record.profile.layers[0], input_shape=(2400,))
    half = (torch.arange(2400) % 2 == 0).float().expand(10, 2400)
    wide = replace(record, profile=Profile((first,), 0.1), sparse_weights={"fc1": half})
    picture = figures.first_layer(wide)[0].figure.data[0].z
    assert picture.shape == (10, 1200)
    assert (picture == 0.5).all()


def test_a_convolution_shows_its_kernels_one_filter_per_row_with_removed_weights_blank(conv_record: Record):
    (kernels,) = figures.first_layer(conv_record)
    weight = conv_record.sparse_weights["conv1"].flatten(1).numpy()
    shown = kernels.figure.data[0].z
    assert shown.shape == (20, 25)
    assert np.array_equal(np.isnan(shown), weight == 0)
    assert np.array_equal(shown[weight != 0], weight[weight != 0])


def test_the_ledger_bars_add_up_to_the_stored_bytes(record: Record):
    found = bars(figures.ledger(record)[0])
    assert found["positions"]["fc1.weight"] == record.ledger["fc1.weight"]["positions"]
    assert sum(sum(series.values()) for series in found.values()) == record.summary.stored_bytes


def test_of_30_tensors_the_24_largest_have_a_bar_and_6_others_share_one(record: Record):
    ledger = {f"t{i}": {"values": i, "positions": 1, "header": 0} for i in range(30)}
    found = bars(figures.ledger(replace(record, ledger=ledger))[0])
    assert len(found["values"]) == 25
    assert found["values"]["6 others"] == sum(range(6))
    assert found["positions"]["6 others"] == 6


def test_a_comparison_goes_from_each_dense_network_to_its_sparse_one(record: Record, conv_record: Record):
    weights, stored = figures.comparison([record, conv_record])
    assert [(line.name, line.x, line.y) for line in weights.figure.data] == [
        ("digits", (50200, 4267), (0.0222, 0.025)),
        ("digits-conv", (430500, 36593), (0.0083, 0.0097)),
    ]
    assert stored.figure.data[1].x[1] == conv_record.summary.stored_bytes


def test_a_perplexity_is_not_shown_in_percent(record: Record):
    history = tuple(replace(point, error=20.0 + point.error) for point in record.history)
    axis = figures.trade_off(replace(record, history=history))[0].figure.layout.yaxis
    assert axis.tickformat is None
    assert figures.trade_off(record)[0].figure.layout.yaxis.tickformat.endswith("%")


def test_layers_called_0_and_2_are_names_and_not_numbers(record: Record):
    names = {"fc1": "0", "fc2": "2", "fc3": "4"}
    profiles = tuple(replace(layer, name=names[layer.name]) for layer in record.profile.layers)
    weights = {names[name]: weight for name, weight in record.sparse_weights.items()}
    shown = replace(record, profile=Profile(profiles, 0.1), sparse_weights=weights)
    assert figures.layers(shown)[0].figure.layout.yaxis.type == "category"


def test_an_empty_record_has_no_figure_at_all():
    empty = Record("runs/none", None, Profile((), 0.0), (), (), (), {}, {}, {})
    drawn = (figures.layers, figures.sensitivity, figures.trade_off, figures.histograms, figures.first_layer)
    assert [draw(empty) for draw in (*drawn, figures.ledger)] == [[]] * 6


def test_a_table_of_embeddings_has_no_bar_of_zeros_and_is_passed_over_for_the_first_mask(record: Record):
    unknown = {
        "input_sparsity": None,
        "output_sparsity": None,
        "sensitivity": {},
        "op": "",
        "input_shape": (),
    }
    table = replace(record.profile.layers[0], name="table", kept_dense="its rows are looked up", **unknown)
    layers = (table, *record.profile.layers)
    weights = {"table": torch.ones(300, 64), **record.sparse_weights}
    shown = replace(record, profile=Profile(layers, 0.02), sparse_weights=weights, dense_weights=weights)
    _, zeros = figures.layers(shown)
    assert (bars(zeros)["input"]["table"], bars(zeros)["input"]["fc1"]) == (None, 0.5)
    assert figures.first_layer(shown)[0].title == "Mask of fc1"
    assert "table" not in [line.name for line in figures.sensitivity(shown)[0].figure.data]


def test_a_one_dimensional_convolution_shows_its_kernels(conv_record: Record):
    first = replace(conv_record.profile.layers[0], op="conv1d")
    weights = {**conv_record.sparse_weights, "conv1": torch.ones(20, 1, 5)}
    shown = replace(conv_record, profile=Profile((first,), 0.02), sparse_weights=weights)
    assert figures.first_layer(shown)[0].figure.data[0].z.shape == (20, 5)
