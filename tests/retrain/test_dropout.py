"""Dropout in a retraining: p x sqrt(connections left / connections), and p itself afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroskip import prune
from zeroskip.errors import ModelError
from zeroskip.retrain import dropout_layers, rescaled_dropout


def three() -> nn.Sequential:
    """8 -> 6 -> 5 -> 3, a dropout "2" of 0.5 before the second and "5" of 0.4 before the third layer."""
    return nn.Sequential(
        nn.Linear(8, 6), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.4),
        nn.Linear(5, 3),
    )  # fmt: skip


def rates(model: nn.Module) -> list[float]:
    return [module.p for module in model.modules() if hasattr(module, "p")]


def test_p_is_that_of_han_2015_for_the_layer_that_follows_and_comes_back() -> None:
    model = three()
    model[0].weight.data[:] = 0  # feeds no dropout's layer: it does not count
    model[3].weight.data[:, :3] = 0  # 15 of 30 are left
    model[6].weight.data[0] = 0  # 10 of 15 are left
    with rescaled_dropout(model, torch.zeros(1, 8)) as now:
        assert now == {"2": pytest.approx(0.5 * (15 / 30) ** 0.5), "5": pytest.approx(0.4 * (10 / 15) ** 0.5)}
        assert rates(model) == list(now.values())
    assert rates(model) == [0.5, 0.4]


def test_masks_count_as_zeros_and_a_dense_network_keeps_its_p() -> None:
    model = three()
    with rescaled_dropout(model, torch.zeros(1, 8)) as now:
        assert now == {"2": 0.5, "5": 0.4}
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[0, 0] = True
    prune.hold_(model, {"3": mask})
    with rescaled_dropout(model, torch.zeros(1, 8)) as now:
        assert now == {"2": pytest.approx(0.5 / 30**0.5), "5": 0.4}


def test_a_layer_without_connections_left_needs_no_dropout() -> None:
    model = three()
    model[3].weight.data.zero_()
    with rescaled_dropout(model, torch.zeros(1, 8)) as now:
        assert now["2"] == 0


def test_p_comes_back_after_an_error_and_hooks_go_whatever_happens() -> None:
    model = three()
    model[3].weight.data[0] = 0
    with pytest.raises(KeyError), rescaled_dropout(model, torch.zeros(1, 8)):
        raise KeyError
    assert rates(model) == [0.5, 0.4]
    with (
        pytest.raises(ModelError, match="cannot run on an input"),
        rescaled_dropout(model, torch.zeros(1, 9)),
    ):
        raise AssertionError("never inside")
    assert rates(model) == [0.5, 0.4]
    assert not any(module._forward_hooks for module in model.modules())


def test_looking_changes_neither_answers_nor_random_numbers_nor_the_training_flag() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 2))
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    with rescaled_dropout(model, torch.randn(4, 8, generator=torch.Generator().manual_seed(0))):
        assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


class Nested(nn.Module):
    """Dropouts in blocks; one that feeds two layers, one used twice, one after the last layer, one never run."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.Dropout2d(0.2), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.twice = nn.Dropout(0.5)
        self.a, self.b = nn.Linear(16, 4), nn.Linear(16, 4)
        self.c, self.d = nn.Linear(4, 4), nn.Linear(8, 2)
        self.end, self.idle = nn.Sequential(nn.AlphaDropout(0.3)), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.block(x).flatten(1))
        a, b = F.gelu(self.a(x)), self.b(x)
        # The dropout runs before c, which it does not feed: d reads what it gives.
        dropped = self.twice(a)
        return self.end(self.d(torch.cat([dropped, self.c(b)], 1)))


def test_nested_shared_and_branching_dropouts_find_the_layers_that_read_them() -> None:
    model = Nested()
    assert dropout_layers(model, torch.zeros(2, 1, 4, 4)) == {
        "block.1": ("a", "b"),
        "twice": ("a", "b", "d"),
        "end.0": ("d",),
        "idle": (),
    }
    model.a.weight.data[:] = 0
    model.d.weight.data[0, :4] = 0
    with rescaled_dropout(model, torch.zeros(2, 1, 4, 4)) as now:
        assert now == {
            "block.1": pytest.approx(0.2 * (64 / 128) ** 0.5),
            "twice": pytest.approx(0.5 * ((64 + 12) / (128 + 16)) ** 0.5),
            "end.0": pytest.approx(0.3 * (12 / 16) ** 0.5),
            "idle": 0.1,
        }
    assert rates(model) == [0.2, 0.5, 0.3, 0.1]


def test_an_inner_call_scales_what_the_outer_one_has_set_and_both_are_undone() -> None:
    model: Any = three()
    model[3].weight.data[:, :3] = 0
    with rescaled_dropout(model, torch.zeros(1, 8)):
        with rescaled_dropout(model, torch.zeros(1, 8)) as now:
            assert now["2"] == pytest.approx(0.5 * 0.5)
        assert model[2].p == pytest.approx(0.5 * 0.5**0.5)
    assert model[2].p == 0.5


def test_a_dropout_before_every_layer_feeds_the_first_and_functional_dropout_is_not_seen() -> None:
    class Functional(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(super().forward(x), 0.5, self.training)

    model = Functional(nn.Dropout(), nn.Flatten(), nn.Linear(8, 2), nn.Linear(2, 2))
    assert dropout_layers(model, torch.zeros(1, 2, 4)) == {"0": ("2",)}


class Reader(nn.Module):
    """Two inputs: tokens and a mask. Dropout before the recurrent layer and before the attention that reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first = nn.Embedding(7, 4), nn.Dropout(0.5)
        self.lstm, self.second = nn.LSTM(4, 4, batch_first=True), nn.Dropout(0.4)
        self.attend, self.last = nn.MultiheadAttention(4, 1, batch_first=True), nn.Dropout(0.2)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        y = self.second(self.lstm(self.first(self.table(tokens)))[0])
        return self.last(self.attend(y, y, y, key_padding_mask=mask)[0])


def test_recurrent_layers_and_attention_count_the_connections_that_they_have_left() -> None:
    model, example = Reader(), {"tokens": torch.arange(3)[None], "mask": torch.zeros(1, 3, dtype=torch.bool)}
    layers = {"first": ("lstm",), "second": ("attend",), "last": ("attend",)}
    assert dropout_layers(model, example) == layers
    mask = torch.zeros(16, 4, dtype=torch.bool)
    mask[0, 0] = True
    prune.hold_(model, {"lstm.weight_ih_l0": mask})  # 1 of 64 is left, and all 64 of weight_hh_l0
    with rescaled_dropout(model, example) as now:
        assert now == {"first": pytest.approx(0.5 * (65 / 128) ** 0.5), "second": 0.4, "last": 0.2}


def test_dropout_is_found_where_torch_has_a_fast_path_for_attention() -> None:
    layer = nn.TransformerEncoderLayer(4, 1, 8, batch_first=True)
    assert dropout_layers(nn.Sequential(layer), torch.zeros(1, 3, 4)) == {
        "0.dropout1": ("0.linear1",), "0.dropout": ("0.linear2",), "0.dropout2": ("0.linear2",)
    }  # fmt: skip
