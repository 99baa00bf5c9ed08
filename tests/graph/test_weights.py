"""The weights of a network by one name each: parameters counted by hand, whatever uses them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zeroskip import prune
from zeroskip.graph import weight_name, weights
from zeroskip.graph.weights import ADDED, COMPUTED, TABLE


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.tensor.shape) for name, weight in weights(model).items()}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Linear(3, 5), {"": (5, 3)}),
        (nn.GRU(3, 5, bidirectional=True), {"weight_ih_l0": (15, 3), "weight_hh_l0": (15, 5),
                                            "weight_ih_l0_reverse": (15, 3), "weight_hh_l0_reverse": (15, 5)}),
        (nn.LSTM(3, 5, proj_size=2), {"weight_ih_l0": (20, 3), "weight_hh_l0": (20, 2), "weight_hr_l0": (2, 5)}),
        (nn.LSTMCell(3, 5), {"weight_ih": (20, 3), "weight_hh": (20, 5)}),
        (nn.Conv1d(4, 6, 3, groups=2), {"": (6, 2, 3)}),
        (nn.Conv3d(2, 3, (1, 2, 3)), {"": (3, 2, 1, 2, 3)}),
        (nn.ConvTranspose2d(4, 6, 3), {"": (4, 6, 3, 3)}),
        (nn.Bilinear(2, 3, 4), {"": (4, 2, 3)}),
        (nn.Embedding(7, 2), {"": (7, 2)}),
        (nn.MultiheadAttention(8, 2), {"in_proj_weight": (24, 8), "out_proj": (8, 8)}),
        (nn.MultiheadAttention(8, 2, kdim=3), {"q_proj_weight": (8, 8), "k_proj_weight": (8, 3),
                                               "v_proj_weight": (8, 8), "out_proj": (8, 8)}),
        (nn.BatchNorm2d(4), {}),
    ],
)  # fmt: skip
def test_every_parameter_with_two_or_more_axes_is_a_weight(
    module: nn.Module, expected: dict[str, tuple[int, ...]]
) -> None:
    assert shapes(module) == expected
    by_hand = sum(each.numel() for each in module.parameters() if each.ndim > 1)
    assert sum(weight.tensor.numel() for weight in weights(module).values()) == by_hand


class Bare(nn.Module):
    """A network with parameters that belong to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.codes = nn.Parameter(torch.randn(6, 4))
        self.head = nn.Linear(4, 1)
        self.norm = nn.LayerNorm((3, 4))
        self.parts = nn.ParameterList([nn.Parameter(torch.ones(2, 2))])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.linear(x, self.codes[:4]))


def test_bare_parameters_are_named_in_full_and_those_that_are_added_stay_dense() -> None:
    reasons = {name: weight.kept_dense for name, weight in weights(Bare()).items()}
    added = dict.fromkeys(["token", "norm", "norm.bias"], ADDED)
    assert reasons == {**added, "codes": "", "head": "", "parts.0": ""}


def test_tied_matrices_are_one_weight_with_two_places_and_stay_dense_as_tables() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False))
    model[1].weight = model[0].weight
    (weight,) = weights(model).values()
    assert [place.path for place in weight.places] == ["0", "1"]
    assert weight.kept_dense == TABLE


def test_a_masked_weight_is_the_same_weight_with_its_zeros_in_place() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = weights(model)["0"].parameter
    prune.hold_(model, {"0": torch.eye(2, 3).bool()})
    weight = weights(model)["0"]
    assert weight.parameter is before
    assert weight.kept_dense == ""
    assert int(weight.tensor.count_nonzero()) == 2


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_what_the_network_computes_is_counted_and_stays_dense() -> None:
    new = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 6, 3))
    assert shapes(new) == {"": (6, 4, 3)}
    assert weights(new)[""].kept_dense == COMPUTED
    old = nn.utils.weight_norm(nn.Linear(4, 6))
    assert shapes(old) == {"weight_g": (6, 1), "weight_v": (6, 4)}
    assert {weight.kept_dense for weight in weights(old).values()} == {COMPUTED}


@pytest.mark.parametrize(
    ("parameter", "name"),
    [("weight", ""), ("fc1.weight", "fc1"), ("a.lstm.weight_hh_l0", "a.lstm.weight_hh_l0"), ("codes", "codes"),
     ("fc.parametrizations.weight.original", "fc"), ("parametrizations.weight.original1", ""),
     ("lstm.parametrizations.weight_ih_l0.original", "lstm.weight_ih_l0")],
)  # fmt: skip
def test_a_weight_is_named_after_its_parameter(parameter: str, name: str) -> None:
    assert weight_name(parameter) == name
