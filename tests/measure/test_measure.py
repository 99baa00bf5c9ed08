"""Measurements against closed forms, brute force and plain PyTorch."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from small_networks import NETWORKS, Lstm
from torch import Tensor, nn

from zeroskip import graph, measure, prune, tasks
from zeroskip.concepts import ShapeRow
from zeroskip.errors import ModelError, PatternError
from zeroskip.graph.weights import TABLE
from zeroskip.measure.cost import UNUSED
from zeroskip.models import LeNet5, LeNet300100


def test_lenet_300_100_costs_what_han_2015_table_2_says() -> None:
    costs = measure.cost(LeNet300100(), torch.zeros(1, 1, 28, 28)).layers
    assert {name: one.weights for name, one in costs.items()} == {"fc1": 235_200, "fc2": 30_000, "fc3": 1_000}
    assert sum(one.weights for one in costs.values()) == 266_200
    # The table counts two FLOPs for a multiply-accumulate: 470K, 60K, 2K.
    assert [2 * one.macs for one in costs.values()] == [470_400, 60_000, 2_000]
    assert sum(one.stored_bytes for one in costs.values()) == 4 * (266_200 + 410)


def test_lenet_5_costs_what_han_2015_table_3_says() -> None:
    costs = measure.cost(LeNet5(), torch.zeros(1, 1, 28, 28)).layers
    assert {name: one.weights for name, one in costs.items()} == {
        "conv1": 500, "conv2": 25_000, "fc1": 400_000, "fc2": 5_000,
    }  # fmt: skip
    # 576K, 3200K, 800K, 10K in the table
    assert [2 * one.macs for one in costs.values()] == [576_000, 3_200_000, 800_000, 10_000]


def test_grouped_and_strided_convolutions_are_counted_as_brute_force_does() -> None:
    conv = nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=4)
    macs = measure.cost(nn.Sequential(conv), torch.zeros(1, 8, 9, 7)).layers["0"].macs
    outputs = conv(torch.zeros(1, 8, 9, 7)).numel()
    assert macs == outputs * 2 * 9  # each output sees 8 / 4 inputs at 9 taps


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "unbiased"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_bytes_are_those_of_weights_and_biases_in_their_own_type(dtype: torch.dtype, bias: bool) -> None:
    layer = nn.Linear(5, 3, bias=bias, dtype=dtype)
    stored = sum(parameter.numel() * parameter.element_size() for parameter in layer.parameters())
    cost = measure.cost(layer, torch.zeros(1, 5, dtype=dtype))
    assert cost.stored_bytes == cost.layers[""].stored_bytes == stored


def test_a_linear_layer_on_7_rows_multiplies_7_times_with_each_weight() -> None:
    assert measure.cost(nn.Linear(5, 3), torch.zeros(2, 7, 5)).layers[""].macs == 7 * 15


def test_sensitivity_is_the_error_of_a_hand_pruned_copy(mlp: nn.Sequential) -> None:
    x = torch.randn(16, 6)
    truth = mlp(x).detach()

    def error(model: nn.Module) -> float:
        return float((model(x).detach() - truth).abs().mean())

    curves = measure.sensitivity(mlp, error, at=[0.25, 0.75])
    for index in (0, 2, 4):
        copied = copy.deepcopy(mlp)
        weight = copied[index].weight.data
        count = round(0.75 * weight.numel())
        weight.flatten()[weight.abs().flatten().argsort()[:count]] = 0
        assert curves[str(index)][0.75] == pytest.approx(error(copied))


def test_sensitivity_prunes_the_named_layers_one_at_a_time_and_reports_progress(mlp: nn.Sequential) -> None:
    pruned: list[list[int]] = []
    steps: list[tuple[str, int, int]] = []

    def zeros(model: nn.Module) -> float:
        pruned.append([int((model[index].weight == 0).sum()) for index in (0, 2, 4)])
        return 0.0

    curves = measure.sensitivity(
        mlp, zeros, names=["4", "0"], at=[0, 1], progress=lambda *step: steps.append(step)
    )
    last, first = mlp[4].weight.numel(), mlp[0].weight.numel()
    assert curves == {"4": {0.0: 0.0, 1.0: 0.0}, "0": {0.0: 0.0, 1.0: 0.0}}
    assert pruned == [[0, 0, 0], [0, 0, last], [0, 0, 0], [first, 0, 0]]
    assert steps == [("sensitivity", done, 2) for done in (0, 1, 2)]


def test_sensitivity_refuses_a_layer_whose_weight_is_computed() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), nn.Linear(2, 2))
    assert list(measure.sensitivity(model, lambda _: 0.0)) == ["1"]
    with pytest.raises(ModelError, match=r'computes its weight "0" \(weight norm'):
        measure.sensitivity(model, lambda _: 0.0, names=["0"])


def test_sensitivity_prunes_masked_weights_further_and_those_of_recurrent_layers_in_place() -> None:
    model, seen = Lstm(), []
    mask = torch.arange(64).view(2, 32) % 2 == 0
    prune.hold_(model, {"head": mask})
    before = copy.deepcopy(model.state_dict())

    def zeros(pruned: nn.Module) -> float:
        out = pruned(torch.ones(1, 3, 8))
        seen.append(out.clone())
        return float(sum((weight.tensor == 0).sum() for weight in graph.weights(pruned).values()))

    curves = measure.sensitivity(model, zeros, at=[0.5, 0.75])
    assert curves == {
        "lstm.weight_ih_l0": {0.5: 512 + 32, 0.75: 768 + 32},
        "lstm.weight_hh_l0": {0.5: 2048 + 32, 0.75: 3072 + 32},
        "head": {0.5: 32, 0.75: 48},
    }
    assert len({tuple(each.flatten().tolist()) for each in seen}) == 6  # half of the head was gone before
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_sensitivity_returns_the_model_exactly_even_when_evaluation_fails(mlp: nn.Sequential) -> None:
    before = copy.deepcopy(mlp.state_dict())

    def failing(_: nn.Module) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure.sensitivity(mlp, failing)
    assert all(torch.equal(before[name], tensor) for name, tensor in mlp.state_dict().items())


def test_sensitivity_refuses_what_cannot_be() -> None:
    with pytest.raises(ModelError, match="no weight that can be pruned"):
        measure.sensitivity(nn.ReLU(), lambda _: 0.0)
    with pytest.raises(ModelError, match=r'no weight "fc9"\. It has 0\.'):
        measure.sensitivity(nn.Sequential(nn.Linear(2, 2)), lambda _: 0.0, names=["fc9"])
    with pytest.raises(PatternError, match="not a share"):
        measure.sensitivity(nn.Linear(2, 2), lambda _: 0.0, at=[1.5])


def test_a_histogram_counts_every_weight_that_is_not_zero() -> None:
    weight = torch.randn(50, 50)
    weight[:10] = 0
    found = measure.histogram(weight, bins=11)
    assert sum(found.counts) == 2000
    assert found.edges[0] == pytest.approx(-found.edges[-1])
    assert sum(measure.histogram(torch.zeros(3, 3)).counts) == 0


@example([1.401298464324817e-45], 3)
@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=50), st.integers(1, 9))
def test_a_bin_counts_the_weights_between_its_edges(values: list[float], bins: int) -> None:
    weight = torch.tensor(values)
    histogram = measure.histogram(weight, bins=bins)
    nonzeros = weight[weight != 0].double()
    assert len(histogram.counts) == len(histogram.edges) - 1 == bins
    for count, low, high in zip(histogram.counts, histogram.edges, histogram.edges[1:], strict=False):
        inside = int(((nonzeros > low) & (nonzeros < high)).sum())
        touching = int(((nonzeros >= low) & (nonzeros <= high)).sum())
        assert inside <= count <= touching


def test_layers_that_share_a_weight_are_profiled_once_as_the_first() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(64, 64), nn.Linear(64, 64)
            self.fc2.weight, self.out = self.fc1.weight, nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.fc2(torch.relu(self.fc1(x.flatten(1)))))

    profile = measure.profile(Shared(), tasks.digits)
    assert [layer.name for layer in profile.layers] == ["fc1", "out"]


def test_importing_codecs_pack_graph_and_measure_waits_for_neither_numba_nor_the_exporter() -> None:
    packages = "zeroskip.codecs, zeroskip.pack, zeroskip.graph, zeroskip.measure"
    slow = ("numba", "sympy", "torch._dynamo", "torch.fx.experimental.symbolic_shapes")
    code = f"import sys, {packages}; print([name for name in {slow} if name in sys.modules])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_a_profile_holds_all_measurements_of_a_task() -> None:
    torch.manual_seed(0)
    model = tasks.digits.model()
    profile = measure.profile(model, tasks.digits)
    assert [layer.name for layer in profile.layers] == ["fc1", "fc2", "fc3"]
    assert profile.error == tasks.digits.evaluate(model)
    first = profile.layer("fc1")
    images = tasks.digits.splits().validation.inputs
    assert first.input_sparsity == pytest.approx((images == 0).float().mean().item())
    assert first.output_sparsity == profile.layer("fc2").input_sparsity > 0
    assert first.weight_std == pytest.approx(model.fc1.weight.std(correction=0).item())
    assert len(first.input_sparsity_by_channel) == 64
    assert max(first.sensitivity) == 0.98


def test_a_profile_of_nan_weights_names_the_tensor() -> None:
    model = tasks.digits.model()
    model.fc2.weight.data[3, 3] = float("nan")
    with pytest.raises(ModelError, match=r'"fc2.weight" holds NaN'):
        measure.profile(model, tasks.digits)


class Words:
    """A task of sequences: a table, an LSTM, a linear layer, and one layer that nothing uses."""

    def model(self) -> nn.Module:
        class Reader(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table, self.body, self.spare = nn.Embedding(9, 8), Lstm(), nn.Linear(2, 2)

            def forward(self, ids: Tensor) -> Tensor:
                return self.body(self.table(ids))

        return Reader().eval()

    def train(self, model: nn.Module) -> None:
        return None

    def evaluate(self, model: nn.Module) -> float:
        return float(model(self.batch()).detach().abs().mean())

    def batch(self) -> Tensor:
        return torch.arange(18).view(3, 6) % 9


def test_a_profile_lists_every_weight_and_says_why_what_stays_dense_does() -> None:
    model = Words().model()
    profile = measure.profile(model, Words())
    assert [layer.name for layer in profile.layers] == list(graph.weights(model))
    assert sum(layer.weights for layer in profile.layers) == sum(
        p.numel() for p in model.parameters() if p.ndim > 1
    )
    dense = {layer.name: layer.kept_dense for layer in profile.layers if layer.kept_dense}
    assert dense == {"table": TABLE, "spare": UNUSED}
    assert [name for name in graph.weights(model) if profile.layer(name).sensitivity] == [
        "body.lstm.weight_ih_l0", "body.lstm.weight_hh_l0", "body.head",
    ]  # fmt: skip
    hidden = profile.layer("body.lstm.weight_hh_l0")
    assert (hidden.runs, hidden.macs, hidden.input_shape, hidden.op) == (6, 6 * 4096, (32,), "linear")
    assert hidden.input_sparsity == pytest.approx(1 / 6)  # the first state is zero
    spare = profile.layer("spare")
    assert (spare.op, spare.input_shape, spare.runs, spare.macs, spare.input_sparsity) == ("", (), 0, 0, None)


class Unclean(Words):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).eval()

    def evaluate(self, model: nn.Module) -> float:
        return 0.5

    def batch(self) -> Tensor:
        return torch.tensor([[1.0, torch.nan, 0.0, torch.inf]] * 3)


def test_a_profile_of_inputs_that_are_nan_warns_of_the_first_weight_that_meets_them() -> None:
    with pytest.warns(UserWarning, match='"0" is multiplied with 6 values that are NaN or Inf') as noted:
        profile = measure.profile(Unclean().model(), Unclean())
    assert len(noted) == 1
    assert profile.layer("0").input_sparsity == 0.25


def test_a_profile_of_what_can_only_be_looked_up_is_refused() -> None:
    table = nn.Sequential(nn.Embedding(9, 4))
    with pytest.raises(ModelError, match="nothing with a weight that can be pruned"):
        measure.profile(table, Words())


def test_a_table_of_shapes_has_a_row_for_each_weight_whatever_its_axes() -> None:
    volume, sequence = NETWORKS["unet3d"], NETWORKS["lstm"]
    first, up, last = shapes(volume.build(), volume.batch)
    assert (first.channels, first.depth, first.height, first.width, first.kernel) == (1, 4, 4, 2, (3, 3, 3))
    assert (up.channels, up.filters, up.depth, up.stride) == (4, 2, 2, (2, 2, 2))
    assert (last.op, last.filters, last.kernel) == ("conv3d", 1, (1, 1, 1))
    names = [row.layer for row in shapes(sequence.build(), sequence.batch)]
    assert names == ["lstm.weight_ih_l0", "lstm.weight_hh_l0", "head"]  # one for all steps
    (row, _) = shapes(NETWORKS["conv1d"].build(), NETWORKS["conv1d"].batch)
    assert (row.height, row.width, row.kernel, row.padding, row.groups) == (1, 9, (3,), (1,), 2)


def shapes(model: nn.Module, batch: Tensor) -> list[ShapeRow]:
    return measure.table(model, batch, measure.activations(model, [batch]))
