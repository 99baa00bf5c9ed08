"""Tables and pictures of the zeros between layers show the numbers that were counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from zeroskip import measure, report
from zeroskip.concepts import ShapeRow
from zeroskip.report import activation_tables


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, (3, 1), padding=(1, 0), stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 3, 3)
    )


def counted(
    model: nn.Module, *, value: float = 0.0, by: tuple[str, ...] = ("position", "class", "example")
) -> tuple[list[ShapeRow], dict[str, measure.Zeros]]:
    torch.manual_seed(1)
    images = torch.randn(6, 2, 8, 5)
    images[:, 0, :, 0] = value
    zeros = measure.activations(model, [(images, torch.tensor([0, 2, 2, 0, 0, 2]))], by=by)
    return measure.table(model, images, zeros), zeros


def test_a_table_has_c_hxw_k_rxs_padding_stride_and_the_zeros_of_input_and_output() -> None:
    rows, zeros = counted(network())
    grid = report.activation_table(rows)
    assert grid.columns[:8] == ("layer", "C", "HxW", "K", "RxS", "padding", "stride", "groups")
    share = f"{100 * zeros['0'].output:.1f} %"
    assert grid.rows[0] == ("0", "2", "8x5", "4", "3x1", "1x0", "2", "1", "10.0 %", share)
    assert grid.rows[1][:8] == ("3", "48", "1x1", "3", "1x1", "0", "1", "1")
    total = (0.1 * 80 + rows[1].before * 48) / 128  # zeros of all inputs, by their sizes
    assert grid.rows[2][-2] == f"{100 * total:.1f} %"
    assert grid.marks == {2: "total"}


def test_a_network_without_a_relu_is_told_so() -> None:
    rows, _ = counted(nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 1, 1)))
    assert "no ReLU" in report.activation_table(rows).note
    assert not report.activation_table(counted(network())[0]).note


def test_a_picture_shows_the_share_of_zeros_at_each_pixel_and_plain_features_have_none() -> None:
    rows, zeros = counted(network())
    sections = {one.title: one for one in report.activation_sections(rows, zeros)}
    (plot,) = sections["By position"].plots
    assert plot.title == "0"
    expected = torch.zeros(8, 5)
    expected[:, 0] = 0.5  # one of two channels is zero there
    assert torch.equal(torch.tensor(plot.figure.data[0].z), expected)


def test_channels_are_sorted_and_of_1000_features_256_are_shown() -> None:
    model = nn.Linear(1000, 2)
    images = torch.ones(4, 1000)
    images[0, ::2] = 0
    zeros = measure.activations(model, [images])
    (plot,) = activation_tables._channels({"fc": zeros[""].before})
    shown = list(plot.figure.data[0].y)
    assert len(shown) == 256
    assert shown == sorted(shown, reverse=True)
    assert (shown[0], shown[-1]) == (0.25, 0.0)


def test_classes_are_compared_with_the_mean_of_the_classes() -> None:
    rows, zeros = counted(network())
    (section,) = [one for one in report.activation_sections(rows, zeros) if one.title == "By class"]
    data = section.plots[0].figure.data[0]
    assert list(data.x) == ["0", "2"]
    shares = zeros["3"].before.by_class
    assert data.z[1][0] == pytest.approx((shares[0] - shares[2]) / 2, abs=1e-6)


def test_the_distribution_over_examples_sums_to_one_and_its_bar_ends_at_the_extremes() -> None:
    rows, zeros = counted(network())
    (section,) = [one for one in report.activation_sections(rows, zeros) if one.title == "By example"]
    bars, heat = (plot.figure.data[0] for plot in section.plots)
    assert heat.z.sum(1) == pytest.approx([1, 1])
    spread = zeros["3"].before.by_example
    assert spread is not None
    assert bars.x[1] + bars.error_x.array[1] == pytest.approx(spread.highest)
    assert bars.x[1] - bars.error_x.arrayminus[1] == pytest.approx(spread.lowest)


def test_of_60_layers_20_are_drawn_evenly_spaced() -> None:
    shown = list(activation_tables._spaced({str(i): {} for i in range(60)}))
    assert shown == [str(i) for i in range(0, 60, 3)]


def test_nan_in_a_layer_is_said_above_the_table() -> None:
    first = report.activation_sections(*counted(network(), value=float("nan")))[0]
    assert first.verdict == '"0" reads 48 values that are NaN or Inf. They count as non-zero.'
    assert first.mood == "loss"
    assert report.activation_sections(*counted(network()))[0].verdict == ""


def test_the_page_has_a_section_for_what_was_counted_and_none_for_the_rest(tmp_path: Path) -> None:
    path = report.activations_html(tmp_path / "zeros.html", "A <network>", *counted(network(), by=()))
    page = path.read_text()
    assert "A &lt;network&gt;" in page
    assert [one.title for one in report.activation_sections(*counted(network(), by=()))] == [
        "Layer by layer", "By channel",
    ]  # fmt: skip


def test_the_terminal_shows_the_same_cells(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=140).print(report.activation_table(counted(network())[0], title="tiny"))
    printed = capsys.readouterr().out
    assert "tiny" in printed
    assert "8x5" in printed
    assert "10.0 %" in printed
