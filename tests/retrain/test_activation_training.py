"""Training that makes more zeros among activations, and thresholds that a network learns to live with."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny import TRAIN, VALIDATION, Bare, Tiny
from torch import Tensor, nn

from zeroskip import prune, retrain, thresholds
from zeroskip.concepts import Recipe, Round
from zeroskip.errors import ModelError, RecipeError, TaskError
from zeroskip.retrain.loop import between
from zeroskip.retrain.losses import penalized


def model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    made = Tiny().model()
    assert isinstance(made, nn.Sequential)
    return made


def hidden_zeros(network: nn.Module) -> float:
    """Share of the second layer's inputs that is zero on validation."""
    second = prune.judge(network, Tiny()).layers["2"]
    return 1 - second.nonzero / second.macs


def test_the_penalties_are_their_formulas() -> None:
    x = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    assert retrain.activation_l1(x) == (7 + 0) / 2
    assert retrain.activation_hoyer(x) == pytest.approx((49 / 25 + 0) / 2)
    maps = torch.ones(2, 3, 4, 4)
    assert retrain.activation_hoyer(maps) == 48  # all alike: as many as there are
    assert retrain.activation_hoyer(7 * maps) == 48


def test_hoyer_s_gradient_at_zeros_is_a_number() -> None:
    x = torch.zeros(2, 3, requires_grad=True)
    retrain.activation_hoyer(x).backward()
    assert torch.equal(x.grad, torch.zeros(2, 3))  # type: ignore[arg-type]


class EveryWay(nn.Module):
    """ReLUs as module, function, method, and in place."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.relu, self.other = nn.Linear(8, 4), nn.ReLU(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        return (
            self.relu(y) + F.relu(y) + y.relu() + torch.relu(y) + self.other(y + 0) + nn.Threshold(0.1, 0)(y)
        )


def test_every_relu_is_seen_once_however_it_is_written() -> None:
    network = EveryWay()
    with retrain.ReluOutputs() as seen:
        network(VALIDATION.inputs)
    y = network.fc(VALIDATION.inputs)
    assert len(seen.outputs) == 6
    assert all(torch.equal(each, y.relu()) for each in seen.outputs[:5])


def test_a_penalty_is_added_to_the_loss_once_per_relu_and_example() -> None:
    network = model()
    plain = Tiny().loss(network, TRAIN.inputs, TRAIN.targets)
    both = {"activation_l1": 0.1, "activation_hoyer": 0.01}
    added = penalized(Tiny().loss, both)(network, TRAIN.inputs, TRAIN.targets)
    given = network[:2](TRAIN.inputs)
    expected = plain + 0.1 * retrain.activation_l1(given) + 0.01 * retrain.activation_hoyer(given)
    torch.testing.assert_close(added, expected)


def test_a_teacher_s_activations_are_not_penalized() -> None:
    student, teacher = model(0), model(1)
    taught = retrain.taught(Tiny().loss, teacher, {"weight": 0.5})
    plain = taught(student, TRAIN.inputs, TRAIN.targets)
    added = penalized(taught, {"activation_l1": 0.1})(student, TRAIN.inputs, TRAIN.targets)
    torch.testing.assert_close(added, plain + 0.1 * retrain.activation_l1(student[:2](TRAIN.inputs)))


def test_a_network_without_relu_is_not_penalized_in_silence() -> None:
    loss = penalized(Tiny().loss, {"activation_l1": 0.1})
    with pytest.raises(ModelError, match="no ReLU ran, so activation_l1 can make nothing sparse"):
        loss(nn.Linear(8, 3), TRAIN.inputs, TRAIN.targets)


@pytest.mark.parametrize("penalty", [{"activation_l1": 0.05}, {"activation_hoyer": 0.05}], ids=str)
def test_a_round_with_an_activation_penalty_makes_a_quarter_more_zeros_at_the_same_error(
    penalty: dict[str, float],
) -> None:
    found = {}
    for name, given in (("plain", {}), ("penalized", penalty)):
        one = Round(sparsity=0.0, penalty=given, train={"epochs": 80})
        sparse = retrain.loop(model(), Recipe((one,)), Tiny())
        found[name] = hidden_zeros(sparse.model), sparse.history[-1].error
    (before, error), (after, error_after) = found.values()
    assert after > before + 0.25
    assert error_after <= error + 0.02


def test_thresholds_of_a_round_hold_during_its_training_and_afterwards() -> None:
    start = model()
    Tiny().train(start, epochs=40)
    cut = thresholds.hold_(copy.deepcopy(start), {"2": 2.0})
    ruined = prune.judge(cut, Tiny())
    one = Round(sparsity=0.3, thresholds={"2": 2.0}, train={"epochs": 60})
    sparse = retrain.loop(start, Recipe((one,)), Tiny())
    assert thresholds.held(sparse.model) == {"2": 2.0}
    learned = prune.judge(sparse.model, Tiny())
    assert learned.error < ruined.error - 0.02
    assert sparse.history[-1].sparsity == pytest.approx(0.3, abs=0.01)


def test_gradual_thresholds_grow_evenly_and_are_there_at_the_end() -> None:
    network, seen = model(), []
    on_step = retrain.raising(network, {"2": 0.8}, share=0.5)
    for step in range(10):
        on_step(step, 10, torch.optim.SGD(network.parameters(), lr=0.1))
        seen.append(thresholds.held(network)["2"])
    expected = [0.8 / 1024, *(0.8 * step / 5 for step in range(1, 6)), 0.8, 0.8, 0.8, 0.8]
    assert seen == pytest.approx(expected)
    one = Round(sparsity=0.5, thresholds={"2": 0.8}, gradual=0.5, train={"epochs": 20})
    sparse = retrain.loop(model(), Recipe((one,)), Tiny())
    assert thresholds.held(sparse.model) == {"2": pytest.approx(0.8)}
    assert sparse.history[-1].sparsity == pytest.approx(0.5, abs=0.01)


def test_a_training_that_never_calls_on_step_has_no_thresholds_and_says_so() -> None:
    class Deaf(Tiny):
        def train(self, model: nn.Module, *, on_step: object = None, **keywords: object) -> None:
            super().train(model, epochs=1)

    one = Round(sparsity=0.0, thresholds={"2": 0.8}, gradual=0.5)
    with pytest.raises(TaskError, match=r"train\(\) did not call on_step"):
        retrain.loop(model(), Recipe((one,)), Deaf())
    with pytest.raises(TaskError, match="takes no on_step"):
        retrain.loop(model(), Recipe((one,)), Bare())


def test_a_bad_round_goes_back_to_the_thresholds_before_it(tmp_path: Path) -> None:
    rounds = (
        Round(sparsity=0.0, thresholds={"2": 0.01}),
        Round(sparsity=0.0, thresholds={"2": 500.0, "0": 9.0}),
    )
    start = model()
    Tiny().train(start, epochs=40)
    recipe = Recipe(rounds, max_error_rise=0.05)
    sparse = retrain.loop(copy.deepcopy(start), recipe, Tiny(), folder=tmp_path)
    assert [(one.kind, one.good) for one in sparse.history[:3]] == [
        ("dense", True), ("round", True), ("round", False)
    ]  # fmt: skip
    assert thresholds.held(sparse.model) == {"2": pytest.approx(0.01)}
    again = retrain.loop(copy.deepcopy(start), recipe, Tiny(), folder=tmp_path)  # reads what the first left
    assert again.history == sparse.history
    assert thresholds.held(again.model) == thresholds.held(sparse.model)


def test_half_way_between_two_rounds_is_the_mean_of_their_thresholds() -> None:
    low, high = (
        Round(sparsity=0.0, thresholds={"2": 0.2}),
        Round(sparsity=0.0, thresholds={"2": 0.4, "0": 1.0}),
    )
    assert between(low, high).thresholds == pytest.approx({"2": 0.3, "0": 0.5})


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (Round(sparsity=0.0, thresholds={"9": 0.1}), 'no linear or convolution layer "9"'),
        (Round(sparsity=0.0, thresholds={"2": -1.0}), '"2" cannot have the threshold -1.0'),
        (Round(sparsity=0.0, penalty={"activation_l2": 0.1}), 'penalty "activation_l2"'),
        (Round(sparsity=0.0, penalty={"activation_l1": -0.1}), 'penalty "activation_l1": -0.1'),
    ],
)
def test_what_cannot_be_followed_is_refused_before_any_training(one: Round, told: str) -> None:
    task = Tiny()
    with pytest.raises(RecipeError, match=told):
        retrain.loop(model(), Recipe((one,)), task)
    assert not task.calls


def test_recipes_for_activations_survive_json() -> None:
    one = Round(sparsity=0.5, penalty={"activation_hoyer": 0.1}, thresholds={"fc2": 0.25}, gradual=0.7)
    recipe = Recipe((one,), 0.01)
    assert Recipe.from_json(recipe.to_json()) == recipe
    older = recipe.to_json()
    del older["rounds"][0]["thresholds"]
    assert Recipe.from_json(older).rounds[0].thresholds == {}
