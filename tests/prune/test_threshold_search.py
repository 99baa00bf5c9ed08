"""The search for thresholds, where all that can be chosen can also be tried."""

from __future__ import annotations

import copy
import itertools
import math
from functools import cache

import pytest
import torch
from tiny import Bare, Tiny
from torch import Tensor, nn

from zeroskip import prune, thresholds
from zeroskip.concepts import Round
from zeroskip.errors import RecipeError, TaskError


class Whole(Bare):
    """A network of small whole numbers, so that few thresholds differ; its error is how often it changes its mind."""

    def __init__(self, seed: int, layers: int = 2) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.x = torch.randint(-3, 4, (40, 5), generator=draw).float()
        sizes = [*[5, 6, 4][:layers], 4]
        linears = [nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
        for layer in linears:
            layer.weight.data = torch.randint(-1, 2, layer.weight.shape, generator=draw).float()
            layer.bias.data = torch.randint(-1, 2, layer.bias.shape, generator=draw).float()
        parts = [part for layer in linears for part in (layer, nn.ReLU())]
        self.network = nn.Sequential(*parts[:-1])
        self.answers = self.network(self.x).argmax(1)

    def evaluate(self, model: nn.Module) -> float:
        with torch.inference_mode():
            return float((model(self.x).argmax(1) != self.answers).float().mean())


@cache
def choices(seed: int, layers: int = 2) -> list[tuple[float, float]]:
    """The error and the work of every combination of the thresholds at which something changes."""
    task = Whole(seed, layers)
    inputs: dict[str, Tensor] = {}
    before = prune.activation_macs.look(task.network, task, seen=inputs.__setitem__)
    values = {name: [0.0, *x[x != 0].abs().unique().tolist()] for name, x in inputs.items()}
    combined = (dict(zip(values, each, strict=True)) for each in itertools.product(*values.values()))
    tried = [prune.activation_macs.look(thresholds.hold_(task.network, each), task) for each in combined]
    thresholds.release_(task.network)
    alive = [one for one in tried if not prune.activation_macs.dead(one, before)]
    return [(one.error, one.nonzero) for one in alive]


def fewest(seed: int, max_error: float, layers: int = 2) -> float:
    """The least work that any combination leaves."""
    return min(work for error, work in choices(seed, layers) if error <= max_error + 1e-9)


@pytest.mark.parametrize("rise", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_two_layers_get_the_best_of_all_choices(seed: int, rise: float) -> None:
    task = Whole(seed)
    best = fewest(seed, rise)
    found = prune.thresholds(task.network, task, max_error_rise=rise)
    assert found.after.nonzero == best
    assert found.after.error <= rise + 1e-9


def test_of_three_layers_the_search_removes_all_but_a_hundredth_of_what_can_be_removed() -> None:
    task = Whole(5, layers=3)
    best = fewest(5, 0.1, layers=3)
    found = prune.thresholds(task.network, task, max_error_rise=0.1)
    removable = found.before.nonzero - best
    assert found.before.nonzero - found.after.nonzero >= 0.99 * removable


def test_what_is_found_is_what_judging_it_shows_and_the_network_is_left_alone() -> None:
    task = Whole(1)
    before = {name: tensor.clone() for name, tensor in task.network.state_dict().items()}
    found = prune.thresholds(task.network, task, max_error_rise=0.1)
    assert set(task.network.state_dict()) == set(before)
    assert prune.judge(task.network, task) == found.before
    assert prune.judge(task.network, task, found.thresholds) == found.after
    assert found.removed == 1 - found.after.nonzero / found.before.nonzero > 0
    assert thresholds.held(prune.rebuild(task.network, found.edits)) == found.thresholds


def test_a_search_twice_is_the_same_and_tells_its_progress() -> None:
    told: list[tuple[str, int, int]] = []
    first, second = (
        prune.thresholds(Whole(2).network, Whole(2), max_error_rise=0.1, progress=lambda *at: told.append(at))
        for _ in range(2)
    )
    assert first == second
    assert told[len(first.history) - 1] == ("searching thresholds", len(first.history), 400)


def test_no_more_evaluations_are_made_than_allowed_and_the_best_of_them_wins() -> None:
    task, calls = Whole(3), []
    evaluate = task.evaluate
    task.evaluate = lambda model: calls.append(model) or evaluate(model)  # type: ignore[method-assign, func-returns-value]
    found = prune.thresholds(task.network, task, max_error_rise=0.2, evaluations=10)
    assert len(found.history) == 10
    assert len(calls) <= 12  # the network as it was, and the outcome once more
    fitting = [one.nonzero for one in found.history if one.error <= found.max_error]
    assert found.after.nonzero == min([*fitting, found.before.nonzero])


def test_only_the_layers_named_get_a_threshold() -> None:
    task = Whole(1)
    found = prune.thresholds(task.network, task, max_error_rise=0.3, layers=["2"])
    assert set(found.thresholds) == {"2"}
    with pytest.raises(RecipeError, match='no layer "fc9"'):
        prune.thresholds(task.network, task, max_error_rise=0.3, layers=["fc9"])


def test_thresholds_held_on_other_layers_stay_and_are_judged_too() -> None:
    task = Whole(1)
    thresholds.hold_(task.network, {"0": 2.0})
    found = prune.thresholds(task.network, task, max_error_rise=0.1, layers=["2"])
    assert found.thresholds["0"] == 2.0
    changed = thresholds.hold_(copy.deepcopy(task.network), found.thresholds)
    assert prune.judge(changed, task).error == found.after.error <= found.max_error


def test_a_search_of_no_layer_or_without_evaluations_is_refused() -> None:
    task = Whole(1)
    with pytest.raises(RecipeError, match="names none"):
        prune.thresholds(task.network, task, max_error_rise=0.3, layers=[])
    with pytest.raises(RecipeError, match="0 evaluations find nothing"):
        prune.thresholds(task.network, task, max_error_rise=0.3, evaluations=0)


@pytest.mark.parametrize("rise", [-0.01, math.nan, math.inf])
def test_a_rise_that_is_no_number_from_0_up_is_refused(rise: float) -> None:
    with pytest.raises(RecipeError, match="is not a number from 0 up"):
        prune.thresholds(Whole(1).network, Whole(1), max_error_rise=rise)


def test_without_a_limit_a_layer_still_sees_its_largest_input() -> None:
    found = prune.thresholds(Whole(1).network, Whole(1), max_error_rise=1.0)
    assert all(layer.nonzero > 0 for layer in found.after.layers.values())
    assert found.removed > 0.8


def test_masked_weights_are_neither_work_nor_a_hindrance() -> None:
    task = Whole(4)
    prune.hold_(task.network, prune.choose(task.network, Round(sparsity=0.3)))
    task.answers = task.network(task.x).argmax(1)
    found = prune.thresholds(task.network, task, max_error_rise=0.1)
    assert found.before.layers["0"].macs == int((task.network[0].weight != 0).sum())
    assert found.removed > 0
    assert prune.is_masked(task.network[0])


def test_the_bound_is_that_of_the_network_with_the_thresholds_it_has_been_trained_with() -> None:
    task = Whole(1)
    thresholds.hold_(task.network, {"2": 3.0})
    given = prune.judge(task.network, task)
    assert given.error > 0
    found = prune.thresholds(task.network, task, max_error_rise=0.0)
    assert found.max_error == pytest.approx(given.error)
    assert found.before.thresholds == {}
    assert found.after.nonzero <= given.nonzero
    assert thresholds.held(task.network) == {"2": 3.0}


def test_without_relu_it_works_and_says_so() -> None:
    task = Tiny()
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    task.train(model, epochs=20)
    found = prune.thresholds(model, task, max_error_rise=0.05)
    assert (
        found.note
        == "no layer's input has zeros: without ReLU in the network, thresholds alone make them (as in TEAL)"
    )
    assert found.removed > 0.1
    relu = task.model()
    assert prune.thresholds(relu, task, max_error_rise=0.0, evaluations=2).note == ""


def test_noise_is_the_spread_of_trainings_and_its_rise_ends_at_mean_plus_sigma() -> None:
    task = Tiny()
    noise = prune.noise(task, seeds=4)
    assert noise.errors == tuple(task.evaluate(model) for model in noise.models)
    mean = sum(noise.errors) / 4
    assert noise.mean == pytest.approx(mean)
    assert noise.sigma == pytest.approx((sum((e - mean) ** 2 for e in noise.errors) / 3) ** 0.5)
    assert task.evaluate(noise.middle) == sorted(noise.errors)[1]
    assert task.evaluate(noise.middle) + noise.rise == pytest.approx(noise.mean + noise.sigma)
    assert prune.noise(Tiny(), seeds=4).errors == noise.errors
    with pytest.raises(RecipeError, match="1 trainings have no standard deviation"):
        prune.noise(task, seeds=1)


def test_a_search_needs_an_error_that_is_a_number() -> None:
    task = Tiny()
    task.evaluate = lambda model, split="validation": model(torch.ones(1, 8)).sum().item() * math.nan  # type: ignore[method-assign]
    with pytest.raises(TaskError, match="not a finite number"):
        prune.thresholds(task.model(), task, max_error_rise=0.1)


def test_of_a_network_that_has_thresholds_the_outcome_is_never_less_than_these() -> None:
    task = Whole(2)
    thresholds.hold_(task.network, {"0": 2.0, "2": 1.0})
    given = prune.judge(task.network, task)
    found = prune.thresholds(task.network, task, max_error_rise=0.0, evaluations=5)
    assert found.after.nonzero <= given.nonzero
    assert found.after.error <= given.error + 1e-9
