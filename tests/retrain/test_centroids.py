"""Shared values, fine-tuned on the task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Tiny
from torch import nn

from zeroskip import codebooks, prune, retrain
from zeroskip.concepts import Round, Sparse
from zeroskip.errors import RecipeError
from zeroskip.retrain import CodebookRecipe

AT_K_MEANS = CodebookRecipe(1, train={"epochs": 0})


def sparse() -> Sparse:
    torch.manual_seed(0)
    model = Tiny().model()
    Tiny().train(model, epochs=20)
    prune.release_(prune.hold_(model, prune.choose(model, Round(sparsity=0.5))))
    return retrain.as_sparse(model)


def distinct(model: nn.Module) -> dict[str, int]:
    return {name: len(tensor[tensor != 0].unique()) for name, tensor in model.state_dict().items()}


def test_each_tensor_ends_with_few_values_that_float16_holds_and_the_same_zeros() -> None:
    before = sparse()
    weights = {name: tensor.clone() for name, tensor in before.model.state_dict().items()}
    after = retrain.centroids(before, CodebookRecipe(2, 3, train={"epochs": 5}), Tiny())
    assert distinct(after.model) == {"0.weight": 4, "0.bias": 8, "2.weight": 4, "2.bias": 3}
    for name, tensor in after.model.state_dict().items():
        assert torch.equal(tensor == 0, weights[name] == 0)
        assert torch.equal(tensor, tensor.half().float())
        assert torch.equal(before.model.state_dict()[name], weights[name]), "the given network is left alone"
    assert after.history[-1].kind == "centroids"
    assert all(torch.equal(mask, before.masks[name]) for name, mask in after.masks.items())


def test_fine_tuning_gives_back_what_two_values_a_layer_cost() -> None:
    start = sparse()
    clustered = retrain.centroids(start, AT_K_MEANS, Tiny()).history[-1].error
    tuned = retrain.centroids(start, CodebookRecipe(1, train={"epochs": 30}), Tiny()).history[-1].error
    assert tuned < clustered


class Dies(Tiny):
    """Is killed after its second epoch, once."""

    def train(self, model: nn.Module, **keywords: Any) -> None:
        report = keywords["on_epoch"]

        def on_epoch(done: int, total: int, state: Any) -> None:
            report(done, total, state)
            if done == 2:
                raise KeyboardInterrupt

        super().train(model, **{**keywords, "on_epoch": on_epoch})


@pytest.mark.parametrize("start", codebooks.STARTS)
def test_killed_between_epochs_it_ends_with_the_same_values(tmp_path: Path, start: str) -> None:
    recipe = CodebookRecipe(2, start=start, train={"epochs": 5})
    whole = retrain.centroids(sparse(), recipe, Tiny()).model.state_dict()
    with pytest.raises(KeyboardInterrupt):
        retrain.centroids(sparse(), recipe, Dies(), folder=tmp_path)
    continued = retrain.centroids(sparse(), recipe, Tiny(), folder=tmp_path).model.state_dict()
    assert all(torch.equal(tensor, continued[name]) for name, tensor in whole.items())


def test_beyond_the_error_that_is_allowed_the_network_stays_unshared() -> None:
    start = sparse()
    kept = retrain.centroids(start, replace(AT_K_MEANS, max_error=0.0), Tiny())
    assert kept.model is start.model
    assert [point.good for point in kept.history] == [False]


def test_a_tied_weight_shares_its_values_in_all_places() -> None:
    tied = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    tied[2].weight = tied[0].weight
    assert retrain.widths(tied, 2, 1) == {"0.weight": 2, "0.bias": 1}
    codebooks.hold_(tied, {"0.weight": 2})
    before, optimizer = tied[0].weight.clone(), torch.optim.SGD(tied.parameters(), 0.1)
    tied(torch.randn(9, 8)).square().sum().backward()
    optimizer.step()
    assert torch.equal(tied[0].weight, tied[2].weight)
    assert not torch.equal(tied[0].weight, before)
    assert len(tied[0].weight.unique()) == 4
    codebooks.release_(tied)
    assert tied[0].weight is tied[2].weight
    assert tied[0].weight.shape == (8, 8)
    assert len(tied[0].weight.unique()) == 4


def test_a_recurrent_network_shares_its_weights_and_the_biases_beside_them() -> None:
    model = nn.Sequential(nn.Embedding(4, 3), nn.LSTM(3, 2))
    names = ["1.weight_ih_l0", "1.weight_hh_l0"], ["1.bias_ih_l0", "1.bias_hh_l0"]
    assert retrain.widths(model, 3, 4) == dict.fromkeys(names[0], 3) | dict.fromkeys(names[1], 4)
    assert retrain.widths(model, {"0": 2}) == {"0.weight": 2}  # a table shares values where it is named


class Harmful(Tiny):
    """A training that makes everything worse."""

    def train(self, model: nn.Module, **keywords: object) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(-1)


def test_a_fine_tuning_that_harms_is_not_taken() -> None:
    start = sparse()
    plain = retrain.centroids(start, replace(AT_K_MEANS, bits=3), Tiny())
    kept = retrain.centroids(start, CodebookRecipe(3), Harmful())
    assert kept.history[-1].error == plain.history[-1].error


def test_layers_may_have_widths_of_their_own() -> None:
    after = retrain.centroids(sparse(), replace(AT_K_MEANS, bits={"0": 3, "2": 1}), Tiny())
    assert 2 < distinct(after.model)["0.weight"] <= 8
    assert distinct(after.model)["2.weight"] == 2


def test_unknown_layers_and_widths_are_refused() -> None:
    with pytest.raises(RecipeError, match='no layer "fc9"'):
        retrain.centroids(sparse(), CodebookRecipe({"fc9": 3}), Tiny())
    with pytest.raises(RecipeError, match="codes of 0 bits"):
        retrain.centroids(sparse(), CodebookRecipe(0), Tiny())
