"""Shared values, fine-tuned on the task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Tiny
from torch import nn

from zeroskip import codebooks, prune, retrain
from zeroskip.concepts import Round, Sparse
from zeroskip.errors import ModelError, RecipeError


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


class Dies(Tiny):
    """Is killed after its second epoch, once."""

    def train(self, model: nn.Module, **keywords: Any) -> None:
        told = keywords["on_epoch"]

        def on_epoch(done: int, total: int, state: Any) -> None:
            told(done, total, state)
            if done == 2:
                raise KeyboardInterrupt

        super().train(model, **{**keywords, "on_epoch": on_epoch})


@pytest.mark.parametrize("start", codebooks.STARTS)
def test_killed_between_epochs_it_ends_with_the_same_values(tmp_path: Path, start: str) -> None:
    told: dict[str, Any] = {"bits": 2, "epochs": 5, "start": start}
    whole = retrain.centroids(sparse(), Tiny(), **told).model.state_dict()
    with pytest.raises(KeyboardInterrupt):
        retrain.centroids(sparse(), Dies(), folder=tmp_path, **told)
    continued = retrain.centroids(sparse(), Tiny(), folder=tmp_path, **told).model.state_dict()
    assert all(torch.equal(tensor, continued[name]) for name, tensor in whole.items())


def test_beyond_the_error_that_is_allowed_the_network_stays_unshared() -> None:
    start = sparse()
    kept = retrain.centroids(start, Tiny(), bits=1, epochs=0, max_error=0.0)
    assert kept.model is start.model
    assert [point.good for point in kept.history] == [False]


def test_layers_that_share_a_weight_cannot_share_values() -> None:
    tied = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    tied[2].weight = tied[0].weight
    with pytest.raises(ModelError, match='"0.weight" is used by 2 layers'):
        codebooks.hold_(tied, {"0.weight": 2})


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
