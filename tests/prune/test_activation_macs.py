"""Counting the work that zeros in weights and activations leave, against counts made one product at a time."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tiny import Bare, Tiny
from torch import Tensor, nn

from zeroskip import prune, thresholds
from zeroskip.concepts import Round
from zeroskip.errors import ModelError, RecipeError, TaskError


class Shown(Bare):
    """Shows a network the batches it was made of, and calls the share of negative sums its error."""

    def __init__(self, *batches: Tensor) -> None:
        self.shown = batches

    def evaluate(self, model: nn.Module) -> float:
        with torch.inference_mode():
            return float(torch.cat([(model(x).flatten(1).sum(1) < 0).float() for x in self.shown]).mean())


def sparse(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw) * (torch.rand(*shape, generator=draw) < 0.4)


def conv_macs(layer: nn.Conv2d, x: Tensor) -> tuple[int, int]:
    """Multiply-accumulates of nonzero weights, and of those with nonzero inputs too, each looked at by itself."""
    assert isinstance(layer.padding, tuple)
    padded = F.pad(x, (layer.padding[1],) * 2 + (layer.padding[0],) * 2)
    weight, (out, per_group, kh, kw) = layer.weight, layer.weight.shape
    rows, columns = layer(x).shape[2:]
    both = every = 0
    for n, o, c, i, j in itertools.product(range(len(x)), range(out), range(per_group), range(kh), range(kw)):
        channel = o // (out // layer.groups) * per_group + c
        for r, s in itertools.product(range(rows), range(columns)):
            at = (r * layer.stride[0] + i * layer.dilation[0], s * layer.stride[1] + j * layer.dilation[1])
            every += int(weight[o, c, i, j] != 0)
            both += int(weight[o, c, i, j] != 0 and padded[n, channel, at[0], at[1]] != 0)
    return every, both


@pytest.mark.parametrize(
    "settings",
    [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": (2, 1)}, {"groups": 2, "padding": 1}],
    ids=str,
)
def test_the_work_of_a_convolution_is_what_brute_force_counts(settings: dict) -> None:  # type: ignore[type-arg]
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, **settings)
    with torch.no_grad():
        layer.weight.mul_(torch.rand_like(layer.weight) < 0.7)
    x = sparse(3, 4, 7, 6)
    every, both = conv_macs(layer, x)
    found = prune.judge(layer, Shown(x)).layers[""]
    assert (found.macs * 3, found.nonzero * 3) == (pytest.approx(every), pytest.approx(both))


def test_padding_by_name_or_by_wrapping_round_is_counted_too() -> None:
    x = torch.ones(2, 1, 5, 5)
    same = prune.judge(nn.Conv2d(1, 1, 3, padding="same"), Shown(x)).layers[""]
    assert (same.macs, same.nonzero) == (
        225,
        169,
    )  # 13^2: along an edge, 3 taps of 5 places without the outer two
    wrapped = prune.judge(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), Shown(x)).layers[""]
    assert (wrapped.macs, wrapped.nonzero) == (225, 225)


def test_the_work_of_linear_layers_over_batches_of_changing_size() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    batches = [sparse(n, 6, seed=n) for n in (4, 1, 0, 7)]
    found = prune.judge(model, Shown(*batches))
    x = torch.cat(batches)
    hidden = model[1](model[0](x))
    assert found.layers["0"] == prune.LayerMacs(30.0, 5 * int(x.count_nonzero()) / 12)
    assert found.layers["2"] == prune.LayerMacs(15.0, 3 * int(hidden.count_nonzero()) / 12)
    assert found.nonzero == found.layers["0"].nonzero + found.layers["2"].nonzero


def test_a_layer_that_runs_twice_works_twice_and_one_on_tokens_for_each() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.fc(x))

    found = prune.judge(Twice(), Shown(torch.ones(2, 3, 4))).layers["fc"]
    assert (found.macs, found.nonzero) == (2 * 3 * 16, 2 * 3 * 16)


def test_thresholds_and_masks_leave_the_products_of_survivors() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 4)), sparse(10, 8)
    prune.hold_(model, prune.choose(model, Round(sparsity=0.5)))
    found = prune.judge(model, Shown(x), {"0": 0.6})
    survivors = (x.abs() >= 0.6).sum(0) @ (model[0].weight != 0).sum(0)
    assert found.layers["0"] == prune.LayerMacs(16.0, int(survivors) / 10)
    assert thresholds.held(model) == {}
    assert prune.is_masked(model[0])


def test_nan_and_inf_count_as_inputs_that_are_not_zero() -> None:
    x = torch.tensor([[torch.nan, torch.inf, 0.0, 0.1]])
    assert prune.judge(nn.Linear(4, 1), Shown(x), {"": 0.5}).layers[""].nonzero == 2.0


def test_a_threshold_above_every_input_is_refused_by_name_but_not_a_layer_that_was_dead_before() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    with pytest.raises(RecipeError, match='with a threshold of 1e\\+06, "2" sees nothing but zeros'):
        prune.judge(model, Tiny(), {"2": 1e6})
    with torch.no_grad():
        model[0].bias.fill_(-1e6)
    assert prune.judge(model, Tiny(), {"0": 0.5}).layers["2"].nonzero == 0


def test_the_error_is_that_of_the_split_and_ruin_on_validation_is_infinite() -> None:
    task, model = Tiny(), Tiny().model()
    assert prune.judge(model, task, split="test").error == task.evaluate(model, "test")
    task.evaluate = lambda model, split: model(torch.ones(1, 8)).sum().item() * math.nan  # type: ignore[method-assign]
    assert prune.judge(model, task).error == float("inf")
    with pytest.raises(TaskError, match="not a finite number"):
        prune.judge(model, task, split="test")


def test_an_evaluation_that_shows_the_network_nothing_is_named() -> None:
    task = Bare()
    task.evaluate = lambda model: 0.5  # type: ignore[method-assign]
    with pytest.raises(TaskError, match="ran no linear or convolution layer"):
        prune.judge(task.model(), task)
    with pytest.raises(TaskError, match="ran no linear or convolution layer"):
        prune.judge(task.model(), Shown(torch.zeros(0, 8)))


def test_no_hook_is_left_in_a_network_that_failed() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            raise ModelError(str(self.fc(x).shape))

    model = Fails()
    with pytest.raises(ModelError):
        prune.activation_macs.look(model, Tiny())
    assert not any(module._forward_hooks for module in model.modules())


def test_thresholds_are_replayed_as_edits_and_survive_json() -> None:
    model = Tiny().model()
    made = prune.rebuild(model, prune.threshold_edits({"0": 0.5, "2": 0.25}))
    assert thresholds.held(made) == {"0": 0.5, "2": 0.25}
    assert thresholds.held(model) == {}


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ({"edit": "threshold", "layer": "2"}, 'edit 0, a threshold, must have "edit", "layer"'),
        ({"edit": "threshold", "layer": 2, "value": 0.5}, 'edit 0, a threshold, must have "edit", "layer"'),
        ({"edit": "threshold", "layer": "1", "value": 0.5}, 'no linear or convolution layer "1"'),
        ({"edit": "threshold", "layer": "2", "value": -0.5}, '"2" cannot have the threshold -0.5'),
        ({"edit": "relu", "layer": "1"}, "no such GELU or SiLU"),
        ({"edit": "relu", "layer": "1", "value": 0}, "no such GELU or SiLU"),
    ],
)
def test_edits_that_do_not_fit_are_refused(edit: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        prune.rebuild(Tiny().model(), [edit])


def test_a_compact_network_keeps_its_thresholds_and_its_edits_lead_there(mlp: nn.Sequential) -> None:
    with torch.no_grad():
        mlp[2].weight[:, 3] = 0.0
        mlp[2].weight[5] = 0.0
    thresholds.hold_(mlp, {"2": 0.3, "4": 0.2})
    small, edits = prune.compact(mlp, torch.randn(2, 6))
    assert (small[0].out_features, small[2].out_features) == (7, 7)
    assert edits == prune.dead_neurons(mlp, torch.randn(2, 6))
    fresh = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    again = prune.rebuild(fresh, edits)
    again.load_state_dict(small.state_dict())
    x = torch.randn(20, 6)
    torch.testing.assert_close(again(x), mlp(x))


def test_a_recurrent_network_of_two_inputs_says_which_of_its_weights_are_not_counted() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 2)

        def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
            return self.head(torch.relu(self.lstm(x)[0][:, -1])) * scale

    class Reading:
        name = "reading"

        def evaluate(self, model: nn.Module, split: str = "validation") -> float:
            return float(model(torch.ones(6, 5, 4), scale=torch.ones(6, 1)).detach().abs().mean())

    judged = prune.judge(Reads(), Reading())  # type: ignore[arg-type]
    assert {name: layer.macs for name, layer in judged.layers.items()} == {"head": 6.0}
    found = prune.thresholds(Reads(), Reading(), max_error_rise=10.0, evaluations=5)  # type: ignore[arg-type]
    words = "lstm.weight_ih_l0, lstm.weight_hh_l0 (93 % of the weights) are not counted"
    assert words in found.note
    with pytest.raises(
        RecipeError, match='no linear or convolution layer "lstm" for a threshold. It has head'
    ):
        prune.judge(Reads(), Reading(), {"lstm": 0.1})  # type: ignore[arg-type]
