"""Shared values, fine-tuned on the task."""

from __future__ import annotations

import pytest
import torch
from tiny import Tiny
from torch import nn

from zeroskip import prune, retrain
from zeroskip.concepts import Round, Sparse
from zeroskip.errors import RecipeError


def sparse() -> Sparse:
    torch.manual_seed(0)
    model = Tiny().model()
    Tiny().train(model, epochs=20)
    prune.remove_(prune.apply_(model, prune.choose(model, Round(sparsity=0.5))))
    return retrain.as_sparse(model)


def distinct(model: nn.Module) -> dict[str, int]:
    return {name: len(tensor[tensor != 0].unique()) for name, tensor in model.state_dict().items()}


def test_each_tensor_ends_with_few_values_that_float16_holds_and_the_same_zeros() -> None:
    before = sparse()
    weights = {name: tensor.clone() for name, tensor in before.model.state_dict().items()}
    after = retrain.centroids(before, Tiny(), bits=2, bias_bits=3, epochs=5)
    assert distinct(after.model) == {"0.weight": 4, "0.bias": 8, "2.weight": 4, "2.bias": 3}
    for name, tensor in after.model.state_dict().items():
        assert torch.equal(tensor == 0, weights[name] == 0)
        assert torch.equal(tensor, tensor.half().float())
        assert torch.equal(before.model.state_dict()[name], weights[name]), "the given network is left alone"
    assert after.history[-1].kind == "centroids"
    assert all(torch.equal(mask, before.masks[name]) for name, mask in after.masks.items())


def test_fine_tuning_gives_back_what_two_values_a_layer_cost() -> None:
    start = sparse()
    clustered = retrain.centroids(start, Tiny(), bits=1, epochs=0).history[-1].error
    tuned = retrain.centroids(start, Tiny(), bits=1, epochs=30).history[-1].error
    assert tuned < clustered


class Harmful(Tiny):
    """A training that makes everything worse."""

    def train(self, model: nn.Module, **keywords: object) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(-1)


def test_a_fine_tuning_that_harms_is_not_taken() -> None:
    start = sparse()
    plain = retrain.centroids(start, Tiny(), bits=3, epochs=0)
    kept = retrain.centroids(start, Harmful(), bits=3)
    assert kept.history[-1].error == plain.history[-1].error


def test_layers_may_have_widths_of_their_own() -> None:
    after = retrain.centroids(sparse(), Tiny(), bits={"0": 3, "2": 1}, epochs=0)
    assert 2 < distinct(after.model)["0.weight"] <= 8
    assert distinct(after.model)["2.weight"] == 2


def test_unknown_layers_and_widths_are_refused() -> None:
    with pytest.raises(RecipeError, match='no layer "fc9"'):
        retrain.centroids(sparse(), Tiny(), bits={"fc9": 3})
    with pytest.raises(RecipeError, match="codes of 0 bits"):
        retrain.centroids(sparse(), Tiny(), bits=0)
