"""Pruning while training: the cubic schedule, what it must never do, and where it cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TRAIN, Bare, Tiny
from torch import nn

from zeroskip import prune, retrain
from zeroskip.concepts import Recipe, Round, Sparse
from zeroskip.errors import RecipeError, TaskError
from zeroskip.retrain import gradual

GROWING = Round(sparsity=0.75, gradual=0.5, score="saliency", train={"epochs": 60})


def dense() -> nn.Module:
    torch.manual_seed(0)
    model = Tiny().model()
    Tiny().train(model, epochs=10)
    return model


def zeros(model: nn.Module) -> int:
    return sum(int((weight == 0).sum()) for weight in prune.weights(model).values())


class Watched(Tiny):
    """Notes after each step how many of the 176 weights are zero, and which."""

    def __init__(self) -> None:
        super().__init__()
        self.zeros: list[int] = []
        self.returned = 0

    def train(self, model: nn.Module, **keywords: Any) -> None:
        before = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in prune.weights(model).items()}

        def on_step(step: int, steps: int, optimizer: torch.optim.Optimizer) -> None:
            keywords["on_step"](step, steps, optimizer)
            self.zeros.append(zeros(model))
            for name, weight in prune.weights(model).items():
                self.returned += int((before[name] & (weight != 0)).sum())
                before[name] = weight == 0

        super().train(model, **{**keywords, "on_step": on_step})


def test_sparsity_follows_the_cubic_schedule_at_every_50th_step() -> None:
    task = Watched()  # 4 steps an epoch: 240 steps, pruned until step 120
    sparse = retrain.loop(dense(), Recipe((GROWING,)), task)
    wanted = [176 * 0.75 * (1 - (1 - step / 120) ** 3) for step in (50, 100, 120)]
    assert task.zeros[49] == 0
    assert [task.zeros[step] for step in (50, 100, 120)] == pytest.approx(wanted, abs=1)
    assert task.zeros[50:100] == [task.zeros[50]] * 50
    assert task.zeros[120:] == [132] * 120
    assert sparse.history[-1].weights_kept == 44


def test_no_pruned_weight_ever_returns() -> None:
    task = Watched()
    retrain.loop(dense(), Recipe((GROWING,)), task)
    assert task.returned == 0


class Dies(Tiny):
    """Is killed after an epoch, once."""

    at = 35

    def train(self, model: nn.Module, **keywords: Any) -> None:
        told = keywords["on_epoch"]

        def on_epoch(done: int, total: int, state: Any) -> None:
            told(done, total, state)
            if done == self.at:
                raise KeyboardInterrupt

        super().train(model, **{**keywords, "on_epoch": on_epoch})


def flat(sparse: Sparse) -> list[float]:
    return torch.cat([tensor.flatten() for _, tensor in sorted(sparse.model.state_dict().items())]).tolist()


@pytest.mark.parametrize("epoch", [10, 35])  # while masks still grow, and after
def test_killed_between_epochs_it_ends_with_the_same_network(tmp_path: Path, epoch: int) -> None:
    whole = retrain.loop(dense(), Recipe((GROWING,)), Tiny())
    dying = Dies()
    dying.at = epoch
    with pytest.raises(KeyboardInterrupt):
        retrain.loop(dense(), Recipe((GROWING,)), dying, folder=tmp_path)
    continued = retrain.loop(dense(), Recipe((GROWING,)), Tiny(), folder=tmp_path)
    assert flat(continued) == flat(whole)


def test_each_layer_grows_to_its_own_sparsity() -> None:
    one = Round(sparsity={"0": 0.5, "2": 0.25}, gradual=0.5, train={"epochs": 40})
    sparse = retrain.loop(dense(), Recipe((one,)), Tiny())
    assert sparse.history[-1].layers_kept == {"0": 64, "2": 36}


def test_adam_s_second_moments_are_found_behind_the_masks() -> None:
    model = dense()
    prune.hold_(model, {name: weight != 0 for name, weight in prune.weights(model).items()})
    optimizer = torch.optim.Adam(model.parameters())
    found = gradual.Moments(model)
    assert found.of(optimizer) == {}
    model(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    squared = prune.parameters(model)["0"].grad.square()  # type: ignore[union-attr]
    torch.testing.assert_close(found.of(optimizer)["0"], squared * (1 - 0.999))


def test_an_optimizer_without_moments_gets_the_same_from_us() -> None:
    model = dense()
    sgd, adam = torch.optim.SGD(model.parameters(), 0.0), torch.optim.Adam(model.parameters(), 0.0)
    found = gradual.Moments(model)
    for _ in range(5):
        sgd.zero_grad()
        model(torch.randn(4, 8)).square().sum().backward()
        found.update_(sgd)
        adam.step()
    kept = adam.state[prune.parameters(model)["2"]]["exp_avg_sq"]
    torch.testing.assert_close(found.of(sgd)["2"], kept)


class Descending(Tiny):
    """Trains by plain gradient descent."""

    def train(self, model: nn.Module, *, epochs: int = 4, on_step: Any = None, **_: Any) -> None:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for step in range(4 * epochs):
            optimizer.zero_grad()
            self.loss(model, TRAIN.inputs, TRAIN.targets).backward()
            if on_step is not None:
                on_step(step, 4 * epochs, optimizer)
            optimizer.step()


def test_saliency_works_with_plain_gradient_descent() -> None:
    assert retrain.loop(dense(), Recipe((GROWING,)), Descending()).history[-1].weights_kept == 44


def test_pruning_to_the_very_last_step_reaches_the_sparsity() -> None:
    one = Round(sparsity=0.75, gradual=1.0, train={"epochs": 30})
    assert retrain.loop(dense(), Recipe((one,)), Tiny()).history[-1].weights_kept == 44


def test_a_train_that_takes_no_on_step_is_refused_before_any_training() -> None:
    with pytest.raises(TaskError, match="train\\(\\) takes no on_step"):
        retrain.loop(dense(), Recipe((Round(sparsity=0.5, gradual=0.7),)), Bare())


class Forgetful(Tiny):
    """Takes on_step and never calls it."""

    def train(self, model: nn.Module, *, on_step: Any = None, **keywords: Any) -> None:
        super().train(model, **keywords)


def test_a_train_that_never_calls_on_step_does_not_pass_for_sparse() -> None:
    with pytest.raises(TaskError, match="did not call on_step"):
        retrain.loop(dense(), Recipe((Round(sparsity=0.5, gradual=0.7),)), Forgetful())


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (Round(sparsity=0.5, gradual=1.5), "gradual 1.5 is no share"),
        (Round(sparsity=0.5, gradual=0.5, pattern="2:4"), '"2:4" has no sparsity that could grow'),
        (Round(quality={"0": 1.0}, gradual=0.5), "a quality has no sparsity that could grow"),
        (Round(sparsity=0.5, score="saliency"), "give the round gradual"),
        (
            Round(sparsity=0.5, score="saliency", gradual=0.7, frozen=("0",)),
            '"0" is frozen and has no gradients',
        ),
    ],
)
def test_what_cannot_grow_is_refused(one: Round, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        retrain.loop(dense(), Recipe((one,)), Tiny())


def test_saliency_prefers_weights_whose_loss_is_steep() -> None:
    weight, moment = torch.tensor([1.0, 1.0, 2.0]), torch.tensor([4.0, 1.0, 0.25])
    assert prune.scores.saliency(weight, moment).tolist() == [2.0, 1.0, 2.0]
    untouched = prune.scores.saliency(torch.tensor([2.0, 1.0, 0.0]), torch.zeros(3))
    assert untouched[0] > untouched[1] > untouched[2] == 0


class Early(Tiny):
    """Announces 10 steps and stops early, or announces one."""

    def __init__(self, *, runs: int, announced: int = 10) -> None:
        super().__init__()
        self.runs, self.announced = runs, announced

    def train(self, model: nn.Module, *, on_step: Any = None, **keywords: Any) -> None:
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for step in range(self.runs):
            optimizer.zero_grad()
            self.loss(model, TRAIN.inputs, TRAIN.targets).backward()
            on_step(step, self.announced, optimizer)
            optimizer.step()


@pytest.mark.parametrize(
    ("task", "seen"),
    [
        (Early(runs=5), "called on_step for 5 of 10 steps, and the schedule ends at step 7"),
        (Early(runs=1, announced=1), "called on_step for 1 of 1 steps, and the schedule ends at step 1"),
        (Forgetful(), r"did not call on_step\(step, steps, optimizer\)"),
    ],
)
@pytest.mark.parametrize("score", ["magnitude", "saliency"])
def test_a_training_that_ends_early_says_what_was_seen_and_does_not_pass_for_sparse(
    task: Tiny, seen: str, score: str
) -> None:
    one = Round(sparsity=0.5, gradual=0.7, score=score)
    with pytest.raises(TaskError, match=f"{seen}, so it ends with too few zeros.*gradual than 0.7"):
        retrain.loop(dense(), Recipe((one,)), task)


def test_a_training_that_ends_just_behind_its_schedule_is_pruned() -> None:
    one = Round(sparsity=0.5, gradual=0.7, score="saliency")
    assert retrain.loop(dense(), Recipe((one,)), Early(runs=8)).history[-1].weights_kept == 88


class Frozen(Tiny):
    """Its first layer is frozen, and the last one has no part in the answer."""

    def model(self) -> nn.Module:
        class Network(nn.Sequential):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self[2](self[1](self[0](x)))

        model = Network(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3), nn.Linear(3, 3))
        model[0].requires_grad_(False)
        return model


@pytest.mark.parametrize("score", ["saliency", "magnitude"])
@pytest.mark.parametrize("epochs", [4, 60])
def test_layers_without_gradients_stay_dense_with_a_note_where_the_score_needs_them(
    score: str, epochs: int
) -> None:
    torch.manual_seed(0)
    one = Recipe((Round(sparsity=0.5, score=score, gradual=0.7, train={"epochs": epochs}),))
    if score == "magnitude":
        kept = retrain.loop(Frozen().model(), one, Frozen()).history[-1].layers_kept
        assert sum(kept.values()) == (128 + 48 + 9 + 1) // 2
        return
    note = r'stay dense: "0" \(it is frozen\), "3" \(it is in no path to the loss\)'
    with pytest.warns(UserWarning, match=note):
        sparse = retrain.loop(Frozen().model(), one, Frozen())
    assert sparse.history[-1].layers_kept == {"0": 128, "2": 24, "3": 9}
    assert sparse.history[-1].weights == 128 + 48 + 9


def test_a_frozen_layer_that_the_round_names_is_refused_before_the_training() -> None:
    one = Round(sparsity={"0": 0.5}, score="saliency", gradual=0.7)
    task = Frozen()
    with pytest.raises(
        RecipeError, match='"0" is frozen and has no gradients for "saliency". Use "magnitude"'
    ):
        retrain.loop(task.model(), Recipe((one,)), task)
    assert not task.calls
    with pytest.raises(RecipeError, match='no weight had a gradient, which the score "saliency" needs'):
        retrain.loop(task.model(), Recipe((Round(sparsity={"3": 0.5}, score="saliency", gradual=0.7),)), task)
