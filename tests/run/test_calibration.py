"""Calibration: the ranges of values from batches, the error that eight bits cost, and what is refused in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zeroskip import run
from zeroskip.errors import EngineError, FileError, ModelError
from zeroskip.graph import Graph, capture
from zeroskip.run import quantisation as files
from zeroskip.run.calibration import best
from zeroskip.run.element import Scaling
from zeroskip.run.integer_network import byte_operations, demand_fit, in_bytes, integer_network
from zeroskip.run.quantisation import Quantisation, checksum
from zeroskip.run.value_ranges import BINS, METHODS, ValueRange, scale_of


class Branches(nn.Module):
    """Two convolutions whose channels are joined, pools, a depthwise one with a shortcut, a mean and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.left, self.right = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3, 1, 1)
        self.depthwise, self.project = nn.Conv2d(12, 12, 3, 1, 1, groups=12), nn.Conv2d(12, 12, 1)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem(F.pad(x, (0, 1, 0, 1))))
        x = torch.cat([self.left(x).relu(), self.right(x).relu()], 1)
        x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        x = F.hardswish(self.project(F.avg_pool2d(self.depthwise(x).relu(), 3, 1, 1)) + x)
        return self.fc(x.mean((2, 3)))


def pictures(count: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def calibrated() -> tuple[nn.Module, Graph, Quantisation]:
    model = Branches().eval()
    made = run.calibrate(model, [pictures(), pictures(2, 1)], method="min-max")
    return model, capture(model, pictures()), made


def test_a_calibrated_network_computes_what_pytorch_does_up_to_its_measured_error(calibrated) -> None:
    model, graph, quantisation = calibrated
    integer = integer_network(graph, quantisation)
    found, wanted = integer(pictures(5, 2))[0], model(pictures(5, 2))
    assert quantisation.examples == 6
    assert 0 < quantisation.error < 0.05
    assert (found - wanted).norm() / wanted.norm() < 3 * quantisation.error
    kinds = [
        each.operation.kind
        for each in in_bytes(byte_operations(graph), quantisation.values, quantisation.errors)
    ]
    assert kinds == [
        "conv",
        "conv",
        "conv",
        "concat",
        "max",
        "depthwise",
        "average",
        "conv",
        "mean",
        "linear",
    ]


def test_maps_made_in_place_or_only_moved_have_one_scale_and_those_behind_a_relu_zero_point_0(
    calibrated,
) -> None:
    values = calibrated[2].values
    concat = next(name for name in values if name.startswith("cat"))
    pooled = next(name for name in values if name.startswith("max_pool2d"))
    read_by_concat = [values[name] for name in ("conv2d_1", "conv2d_2")]
    assert {values[concat], values[pooled], *read_by_concat} == {values[concat]}
    assert values[concat].zero_point == 0
    assert {values[name].zero_point for name in values if name.startswith(("pad", "linear"))} == {128}


def test_layers_that_lose_more_than_the_limit_are_named_and_stay_in_fp32(calibrated) -> None:
    model, graph, quantisation = calibrated
    assert quantisation.in_fp32() == ()
    assert quantisation.in_fp32(limit=0.0) == tuple(quantisation.errors)
    assert torch.equal(integer_network(graph, quantisation, limit=0.0)(pictures())[0], model(pictures()))


def test_a_layer_with_one_huge_channel_loses_too_much_and_the_answer_stays_right() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)).eval()
    with torch.no_grad():
        model[0].weight[0] *= 2000
        model[1].weight[:, 0] *= 1e-4
    quantisation = run.calibrate(model, [pictures()], method="min-max")
    assert quantisation.in_fp32() == ("conv2d_1",)
    graph = capture(model, pictures())
    found, wanted = integer_network(graph, quantisation)(pictures())[0], model(pictures())
    assert (found - wanted).norm() / wanted.norm() < 0.05


def test_by_default_the_method_is_that_by_which_the_outputs_change_least() -> None:
    model = nn.Conv2d(3, 4, 3).eval()
    best = run.calibrate(model, [pictures()])
    assert best.error == min(
        run.calibrate(model, [pictures()], method=each).error for each in ("min-max", best.method)
    )
    assert best.method in METHODS


def test_a_network_of_sequences_and_one_of_several_inputs() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv1d(4, 6, 3), nn.Linear(6, 3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.fc(self.conv(x).relu().mean(2)) * y

    torch.manual_seed(0)
    model, batch = Both().eval(), (torch.randn(3, 4, 9), torch.randn(3, 3))
    quantisation = run.calibrate(model, [batch])
    found = integer_network(capture(model, batch), quantisation)(*batch)[0]
    wanted = model(*batch)
    assert (found - wanted).norm() / wanted.norm() < 0.05


NONE: list[Tensor] = []
REFUSED = {
    "there is no batch": lambda: NONE,
    "needs several batches. Give a list": lambda: pictures(),
    "nothing but the number 0.5": lambda: [torch.full((2, 3, 12, 12), 0.5)] * 2,
    "is not finite on a batch": lambda: [pictures(), pictures() * torch.nan],
    "batch 1 is not like the first": lambda: [pictures(), pictures().double()],
    "batch 2 is not like the first": lambda: [pictures(), pictures(), (pictures(), pictures())],
    "Calibrate with examples of one size": lambda: [pictures(), pictures()[:, :, :9]],
    "input was .batch, 3, 12, 12. of torch.float32, and is .0, 3, 12, 12. of torch.float32. Leave it out": lambda: [
        pictures(),
        pictures(0),
    ],
    "the batch of examples is empty": lambda: [pictures(0)],
}


@pytest.mark.parametrize("words", REFUSED)
def test_bad_batches_are_refused_in_a_sentence(words: str) -> None:
    model = nn.Conv2d(3, 4, 3).eval()
    with pytest.raises(EngineError, match=words):
        run.calibrate(model, REFUSED[words]())


def test_networks_and_methods_that_cannot_be_calibrated_are_refused_in_a_sentence() -> None:
    with pytest.raises(EngineError, match="no layer of the network can compute in eight bits"):
        run.calibrate(nn.ReLU(), [pictures()])
    with pytest.raises(EngineError, match="given a function, and needs a torch.nn.Module"):
        run.calibrate(pictures, [pictures()])  # type: ignore[arg-type]
    with pytest.raises(EngineError, match='method "best" is unknown. Give one of min-max'):
        run.calibrate(nn.Conv2d(3, 4, 3), [pictures()], method="best")
    with pytest.raises(ModelError):
        run.calibrate(nn.Conv2d(4, 4, 3), [pictures()])


def test_a_mean_over_tokens_is_not_taken_for_one_over_pixels() -> None:
    torch.manual_seed(0)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(9, 9), nn.Linear(9, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).relu().mean(1))

    model, x = Tokens().eval(), torch.randn(3, 9, 9)
    found = integer_network(capture(model, x), run.calibrate(model, [x]))(x)[0]
    assert (found - model(x)).norm() / model(x).norm() < 0.05


def test_a_layer_whose_sums_int32_cannot_hold_stays_in_fp32() -> None:
    model, x = (
        nn.Sequential(nn.Linear(70_000, 2, bias=False), nn.ReLU(), nn.Linear(2, 3)).eval(),
        torch.rand(2, 70_000),
    )
    nn.init.constant_(model[0].weight, 1e-5)
    assert set(run.calibrate(model, [x], method="min-max").errors) == {"linear_1"}


def test_maps_and_weights_that_are_all_zero_have_scale_1_and_answer_zero() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-1.0)
        model[2].bias.zero_()
    quantisation = run.calibrate(model, [pictures()])
    assert quantisation.values["conv2d"] == Scaling(1.0, 0)
    assert quantisation.weights["conv2d"].tolist() == [1.0] * 4
    assert quantisation.error == 0
    assert not integer_network(capture(model, pictures()), quantisation)(pictures())[0].any()


def test_a_quantisation_of_another_network_is_refused(calibrated) -> None:
    quantisation = calibrated[2]
    other = Branches().eval()
    with torch.no_grad():
        other.fc.weight[0, 0] += 1e-3
    with pytest.raises(EngineError, match="of another network"):
        integer_network(capture(other, pictures()), quantisation)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e-30, math.nan, math.inf])
def test_scales_that_are_no_sensible_numbers_are_refused(calibrated, scale: float, tmp_path: Path) -> None:
    _, graph, quantisation = calibrated
    stored, tensors = files.to_json(quantisation)
    with pytest.raises(EngineError, match="linear: 8-bit maps have a scale from"):
        files.from_json({**stored, "values": {"linear": [scale, 128]}}, tensors)
    wrong = replace(quantisation, weights={**quantisation.weights, "linear": torch.full((5,), scale)})
    with pytest.raises(EngineError, match="the scale of the weights of linear is"):
        integer_network(graph, wrong)
    with pytest.raises(EngineError, match="the scale of the weights of linear is"):
        files.save(wrong, tmp_path / "wrong")


def test_missing_scales_and_scales_of_another_number_of_outputs_are_refused(calibrated) -> None:
    graph, quantisation = calibrated[1:]
    weights = {name: scales for name, scales in quantisation.weights.items() if name != "linear"}
    with pytest.raises(EngineError, match="no scale for linear"):
        integer_network(graph, replace(quantisation, weights=weights))
    values = {name: at for name, at in quantisation.values.items() if name != "mean"}
    with pytest.raises(EngineError, match="no scale for mean"):
        integer_network(graph, replace(quantisation, values=values))
    with pytest.raises(EngineError, match="3 scales for the 8 outputs of conv2d_1"):
        integer_network(
            graph, replace(quantisation, weights={**quantisation.weights, "conv2d_1": torch.ones(3)})
        )


def test_a_file_gives_back_what_was_saved(calibrated, tmp_path: Path) -> None:
    quantisation = calibrated[2]
    found = files.load(files.save(quantisation, tmp_path / "scales"))
    assert replace(found, weights={}) == replace(quantisation, weights={})
    assert found.weights.keys() == quantisation.weights.keys()
    assert all(torch.equal(found.weights[name], scales) for name, scales in quantisation.weights.items())


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[:-5],
    "altered": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "empty": lambda data: b"",
    "other": lambda data: b"{}" * 50,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused(calibrated, tmp_path: Path, damage: str) -> None:
    path = files.save(calibrated[2], tmp_path / "scales")
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(EngineError, match="holds no quantisation"):
        files.load(path)


def test_a_file_that_is_absent_or_holds_a_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no file"):
        files.load(tmp_path / "absent")
    with pytest.raises(EngineError, match="it is another file"):
        files.load(run.save(run.compile(nn.Linear(3, 2).eval(), torch.zeros(1, 3)), tmp_path / "program"))


def test_of_methods_that_are_as_good_the_one_with_fewest_layers_in_fp32_is_taken() -> None:
    made = run.calibrate(nn.Linear(3, 2).eval(), [torch.randn(4, 3)], method="min-max")
    few, many = ({"a": 0.2, "b": low, "c": low} for low in (0.01, 0.2))
    found = [
        replace(made, errors=errors, error=error, method=method)
        for errors, error, method in (
            (many, 0.100, "least"),
            (few, 0.104, "as good"),
            (few, 0.105, "as good, and worse"),
            ({}, 0.106, "no layer in fp32, too bad"),
            ({}, math.nan, "unknown"),
        )
    ]
    assert best(found).method == "as good"
    assert best(found[-1:]).method == "unknown"


def test_the_checksum_is_of_every_weight_and_bias() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).eval()
    before = checksum(capture(model, torch.zeros(1, 3)))
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 1
        assert checksum(capture(model, torch.zeros(1, 3))) != before
        with torch.no_grad():
            parameter.view(-1)[-1] -= 1


class Places(nn.Module):
    """A linear layer on words to which numbers of their places are added, as many as there are words."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.linear = nn.Embedding(9, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x + self.places(torch.arange(x.shape[1])))


@pytest.mark.filterwarnings("ignore:the program was compiled for")
def test_scales_found_on_sentences_of_one_length_serve_those_of_another() -> None:
    torch.manual_seed(0)
    model = Places().eval()
    short, long = torch.randn(2, 3, 4), torch.randn(2, 9, 4)
    made = run.calibrate(model, [long], method="min-max")
    program = run.compile(model, short, precision="int8", quantisation=made)
    for x in (short, long):
        torch.testing.assert_close(program(x), model(x), atol=0.1, rtol=0.0)
    before = checksum(capture(model, long), of_size=True)
    assert before != made.network
    demand_fit(capture(model, long), replace(made, network=before))  # as older versions stored it


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=1, max_size=6), st.randoms())
def test_what_was_seen_of_a_value_is_the_same_in_any_order_and_bounded(exponents: list[int], random) -> None:
    batches = [torch.linspace(-1, 2, 50) * 2.0**each for each in exponents]
    ranges = []
    for _ in range(2):
        one_range = ValueRange()
        for batch in batches:
            one_range.see_("x", batch)
        ranges.append(one_range)
        random.shuffle(batches)
    assert [each.largest for each in ranges] == [2 * 2.0 ** max(exponents)] * 2
    assert torch.equal(ranges[0].counts, ranges[1].counts)
    assert (len(ranges[0].counts), int(ranges[0].counts.sum())) == (BINS, 50 * len(batches))


def test_min_max_covers_everything_and_the_others_cut_an_outlier_off() -> None:
    one_range = ValueRange()
    one_range.see_("x", torch.cat([torch.linspace(0, 1, 100_000), torch.tensor([100.0])]))
    ends = {method: 255 * scale_of(one_range, negative=False, method=method).scale for method in METHODS}
    assert ends["min-max"] == pytest.approx(100)
    assert ends["percentile 99.9"] == pytest.approx(1, rel=0.05)
    assert ends["percentile 99.99"] == pytest.approx(1, rel=0.05)
    assert 1 < ends["least squares"] < 100


def test_least_squares_is_the_best_of_all_ends_by_brute_force() -> None:
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    one_range = ValueRange()
    one_range.see_("x", x)

    def cost(at: Scaling) -> float:
        return float((((x / at.scale).round().clamp(-127, 127) * at.scale) - x).square().mean())

    best = min(cost(Scaling(end / 127, 128)) for end in torch.linspace(1, 5, 200).tolist())
    assert cost(scale_of(one_range, negative=True, method="least squares")) < 1.02 * best
