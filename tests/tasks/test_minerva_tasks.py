"""Minerva's five networks and the two on CIFAR-10 as tasks; the regularisers and pictures turned round."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from tiny import TRAIN, Tiny
from torch import Tensor, nn

from zeroskip import task_api, tasks
from zeroskip.data import Split, Splits
from zeroskip.data.sparse_rows import SparseRows
from zeroskip.models import MLP
from zeroskip.papers.minerva.published import TABLE1
from zeroskip.tasks import training


def test_an_mlp_is_the_same_network_written_layer_by_layer() -> None:
    torch.manual_seed(0)
    ours = MLP(12, (7, 5, 3), dropout=0.5).eval()
    theirs = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3)
    )
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(6, 1, 3, 4)
    assert torch.equal(ours(x), theirs(x))
    assert [name for name, _ in ours.named_parameters() if name.endswith("weight")] == [
        "fc1.weight", "fc2.weight", "fc3.weight",
    ]  # fmt: skip


def test_dropout_leaves_out_half_of_the_hidden_neurons_in_training_only() -> None:
    model = MLP(4, (1000, 1), dropout=0.5)
    nn.init.ones_(model.get_parameter("fc1.weight"))
    nn.init.ones_(model.get_parameter("fc2.weight"))
    seen: list[Tensor] = []
    model.get_submodule("fc2").register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.train()(torch.ones(1, 4))
    model.eval()(torch.ones(1, 4))
    assert 400 < int((seen[0] == 0).sum()) < 600
    assert int((seen[1] == 0).sum()) == 0


@pytest.mark.parametrize("task", tasks.MINERVA, ids=lambda task: task.name)
def test_the_five_have_the_published_inputs_widths_and_weights(task: tasks.Classification) -> None:
    told, model = TABLE1[task.name], task.model()
    weights = [weight for weight in model.parameters() if weight.ndim == 2]
    assert weights[0].shape[1] == told.inputs
    assert tuple(len(weight) for weight in weights) == told.widths
    assert f"{sum(weight.numel() for weight in weights):,}" == told.weights
    assert tasks.load(task.name) is task


def test_the_two_networks_for_cifar10_take_its_pictures() -> None:
    for word, weights in (("cifar10", 145_376), ("cifar10-resnet20", 268_336)):
        model = tasks.load(word).model()
        assert sum(one.numel() for one in model.parameters() if one.ndim > 1) == weights
        assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_keras_l1_and_l2_add_the_sums_of_sizes_and_squares_of_weights_and_not_of_biases() -> None:
    model, plain = Tiny().model(), Tiny().loss
    weights = [weight.detach().double() for weight in model.parameters() if weight.ndim == 2]
    added = sum(float(0.5 * weight.abs().sum() + 0.25 * weight.square().sum()) for weight in weights)
    with torch.no_grad():
        ours = training.regularized(plain, l1=0.5, l2=0.25)(model, TRAIN.inputs, TRAIN.targets)
        assert float(ours - plain(model, TRAIN.inputs, TRAIN.targets)) == pytest.approx(added, rel=1e-5)
    assert training.regularized(plain) is plain


def test_a_task_with_l1_trains_to_smaller_weights() -> None:
    def total(l1: float) -> float:
        task = replace(TINY, l1=l1)
        torch.manual_seed(0)
        model = task.model()
        task.train(model)
        return sum(float(weight.detach().abs().sum()) for weight in model.parameters())

    assert total(0.02) < 0.8 * total(0.0)


TINY = tasks.Classification(
    "tiny-mlp", lambda: MLP(8, (16, 3)), lambda: Splits(TRAIN, TRAIN, TRAIN),
    epochs=10, batch_size=50, learning_rate=0.02, weight_decay=0.0,
)  # fmt: skip


def test_training_and_error_on_rows_of_non_zeros_are_those_on_the_dense_tensor() -> None:
    inputs = TRAIN.inputs.masked_fill(TRAIN.inputs < 0.5, 0.0)
    row, columns = inputs.nonzero(as_tuple=True)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(row, minlength=200).cumsum(0)])
    compressed = cast(Tensor, SparseRows(offsets, columns, inputs[row, columns], 8))
    trained = []
    for one in (inputs, compressed):
        split = Split(one, TRAIN.targets)
        task = replace(TINY, splits=lambda split=split: Splits(split, split, split), input_noise=0.1)
        torch.manual_seed(0)
        model = task.model()
        task.train(model)
        assert task_api.batch(task).shapes == ((64, 8),)
        assert sum(batch.size for batch in task_api.batches(task)) == 200
        trained.append((model.state_dict(), task.evaluate(model)))
    assert trained[0][1] == trained[1][1] < 0.3
    assert all(torch.equal(trained[0][0][name], trained[1][0][name]) for name in trained[0][0])


def test_half_of_the_pictures_are_turned_left_to_right_and_none_is_changed_otherwise() -> None:
    torch.manual_seed(0)
    pictures = torch.rand(400, 3, 4, 5)
    seen = training.jittered(pictures, mirror=True)
    turned = (seen == pictures.flip(3)).all(dim=(1, 2, 3))  # type: ignore[call-overload]
    same = (seen == pictures).all(dim=(1, 2, 3))  # type: ignore[call-overload]
    assert (turned ^ same).all()
    assert 160 < int(turned.sum()) < 240


def test_a_third_of_the_values_are_left_out_and_the_others_grow_by_half() -> None:
    torch.manual_seed(0)
    seen = training.jittered(torch.full((200, 30), 2.0), drop=1 / 3)
    assert seen.unique().tolist() == [0, pytest.approx(3.0)]
    assert float((seen == 0).float().mean()) == pytest.approx(1 / 3, abs=0.03)


@pytest.mark.real_data
def test_webkb_trained_for_4_epochs_is_below_minerva_s_literature_error_of_14_percent() -> None:
    if not (Path(os.environ.get("ZEROSKIP_DATA") or "absent") / "text").is_dir():
        pytest.skip("text is absent: set ZEROSKIP_DATA to the folder that holds text/")
    torch.manual_seed(0)
    model = tasks.minerva_webkb.model()
    tasks.minerva_webkb.train(model, epochs=4)
    assert tasks.minerva_webkb.evaluate(model, "test") < 0.1418
