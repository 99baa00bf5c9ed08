"""GELU and SiLU networks led over to ReLU."""

from __future__ import annotations

import pytest
import torch
from tiny import VALIDATION, Tiny
from torch import nn

from zeroskip import prune, retrain
from zeroskip.errors import ModelError, TaskError


class Smooth(Tiny):
    """The tiny task with another activation function."""

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 3))


def zeros(model: nn.Module) -> float:
    layers = prune.judge(model, Smooth()).layers
    return 1 - sum(layers[name].nonzero for name in "24") / sum(layers[name].macs for name in "24")


def test_a_network_without_zeros_has_a_third_of_them_at_no_more_error() -> None:
    task, model = Smooth(), Smooth().model()
    task.train(model, epochs=40)
    error = task.evaluate(model)
    assert zeros(model) == 0.0
    with retrain.relufied(model) as on_step:
        task.train(model, epochs=40, on_step=on_step)
    assert zeros(model) > 0.33
    assert task.evaluate(model) <= error + 0.02


def test_what_is_left_are_plain_relus_and_the_edits_replay_them() -> None:
    task, model = Smooth(), Smooth().model()
    edits = prune.relu_edits(model)
    with retrain.relufied(model) as on_step:
        task.train(model, epochs=2, on_step=on_step)
    assert [type(module) for module in model] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    again = prune.rebuild(task.model(), edits)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(VALIDATION.inputs), model(VALIDATION.inputs))
    assert edits == [{"edit": "relu", "layer": "1"}, {"edit": "relu", "layer": "3"}]


def test_on_the_way_it_is_a_mixture_of_both() -> None:
    model, x = nn.Sequential(nn.GELU()), torch.linspace(-3, 3, 13)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with retrain.relufied(model, share=0.8) as on_step:
        for step, share in ((0, 0.0), (2, 0.25), (4, 0.5), (8, 1.0), (9, 1.0)):
            on_step(step, 10, optimizer)
            torch.testing.assert_close(model(x), (1 - share) * nn.GELU()(x) + share * x.relu())


def test_a_training_that_stopped_early_leaves_the_network_as_it_was_and_says_so() -> None:
    model = Smooth().model()
    with (
        pytest.raises(TaskError, match='"1" is no ReLU yet: the training did not call on_step'),
        retrain.relufied(model),
    ):
        Smooth().train(model, epochs=1)
    assert [type(model[at]) for at in (1, 3)] == [nn.GELU, nn.SiLU]
    with pytest.raises(KeyboardInterrupt), retrain.relufied(model):
        raise KeyboardInterrupt
    assert [type(model[at]) for at in (1, 3)] == [nn.GELU, nn.SiLU]


def test_a_network_without_such_modules_is_refused() -> None:
    with (
        pytest.raises(ModelError, match=r"no nn.GELU, nn.SiLU, .* module that could become a ReLU"),
        retrain.relufied(Tiny().model()),
    ):
        pass
