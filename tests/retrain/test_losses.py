"""Penalties and teachers, against their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny import TRAIN, VALIDATION, Bare, Tiny
from torch import nn

from zeroskip import prune, retrain
from zeroskip.concepts import Recipe, Round
from zeroskip.errors import RecipeError, TaskError
from zeroskip.retrain.losses import penalized, taught


def model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    made = Tiny().model()
    assert isinstance(made, nn.Sequential)
    return made


def test_a_penalty_adds_the_norms_of_the_weights_without_biases() -> None:
    network = model()
    plain = Tiny().loss(network, TRAIN.inputs, TRAIN.targets)
    added = penalized(Tiny().loss, {"l1": 0.1, "l2": 0.2})(network, TRAIN.inputs, TRAIN.targets)
    weights = [network[0].weight, network[2].weight]
    norms = sum(0.1 * w.abs().sum() + 0.1 * w.square().sum() for w in weights)
    torch.testing.assert_close(added, plain + norms)


def test_l1_s_gradient_is_the_sign_and_pruned_weights_have_none() -> None:
    network = model()
    masks = {name: torch.rand_like(weight) < 0.5 for name, weight in prune.weights(network).items()}
    prune.hold_(network, masks)
    penalized(lambda *_: torch.zeros(()), {"l1": 0.5})(network, TRAIN.inputs, TRAIN.targets).backward()
    behind = prune.parameters(network)["0"]
    torch.testing.assert_close(behind.grad, 0.5 * behind.sign() * masks["0"])


def test_a_teacher_with_all_the_weight_is_hinton_s_formula() -> None:
    student, teacher = model(0), model(1)
    reached = taught(Tiny().loss, teacher, {"weight": 1.0, "temperature": 3.0})(
        student, TRAIN.inputs, TRAIN.targets
    )
    wanted = (teacher(TRAIN.inputs) / 3).softmax(1)
    distance = -(wanted * F.log_softmax(student(TRAIN.inputs) / 3, 1)).sum(1).mean() * 9
    torch.testing.assert_close(reached, distance)
    reached.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_teacher_without_weight_changes_nothing() -> None:
    student = model()
    plain = Tiny().loss(student, TRAIN.inputs, TRAIN.targets)
    same = taught(Tiny().loss, model(1), {"weight": 0.0})(student, TRAIN.inputs, TRAIN.targets)
    torch.testing.assert_close(same, plain)


def test_a_round_may_have_a_teacher_and_a_penalty_at_once() -> None:
    one = Round(sparsity=0.5, penalty={"l1": 0.01}, teacher={"weight": 0.5}, train={"epochs": 20})
    light = Round(sparsity=0.5, teacher={"weight": 0.5}, train={"epochs": 20})

    def size(one: Round) -> float:
        sparse = retrain.loop(model(), Recipe((one,)), Tiny())
        return sum(float(weight.abs().sum()) for weight in prune.weights(sparse.model).values())

    assert size(one) < size(light)


def test_the_loop_s_teacher_is_the_network_that_it_started_from() -> None:
    start = model()
    Tiny().train(start, epochs=40)
    answers = start(VALIDATION.inputs)
    recipe = Recipe((Round(sparsity=0.5, teacher={"weight": 1.0, "temperature": 1.0}, train={"epochs": 40}),))
    untaught = retrain.loop(model(), Recipe((Round(sparsity=0.5, train={"epochs": 1}),)), Tiny())
    student = retrain.loop(start, recipe, Tiny()).model
    agree = (student(VALIDATION.inputs).argmax(1) == answers.argmax(1)).float().mean()
    assert agree > 0.9 > (untaught.model(VALIDATION.inputs).argmax(1) == answers.argmax(1)).float().mean()


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (Round(sparsity=0.5, penalty={"l3": 0.1}), 'penalty "l3"'),
        (Round(sparsity=0.5, penalty={"l1": -0.1}), 'penalty "l1": -0.1'),
        (Round(sparsity=0.5, teacher={"heat": 2.0}), 'teacher "heat"'),
        (Round(sparsity=0.5, teacher={"weight": 2.0}), "weight from 0 to 1"),
        (Round(sparsity=0.5, teacher={"temperature": 0.0}), "temperature from 0.1"),
    ],
)
def test_unknown_terms_are_refused_before_any_training(one: Round, told: str) -> None:
    task = Tiny()
    with pytest.raises(RecipeError, match=told):
        retrain.loop(model(), Recipe((one,)), task)
    assert not task.calls


def test_a_task_without_a_loss_cannot_be_penalized() -> None:
    with pytest.raises(TaskError, match="no loss"):
        retrain.loop(model(), Recipe((Round(sparsity=0.5, penalty={"l1": 0.1}),)), Bare())
