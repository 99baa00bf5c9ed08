"""Masks: which weights a round keeps, and that they hold through any optimizer."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_pruning

from zeroskip import pack, prune, retrain
from zeroskip.concepts import Round
from zeroskip.errors import ModelError, PatternError, RecipeError, ZeroskipError
from zeroskip.models import LeNet5, LeNet5Sizes
from zeroskip.patterns import parse


def test_a_number_is_one_threshold_for_the_whole_network(mlp: nn.Sequential) -> None:
    masks = prune.choose(mlp, Round(sparsity=0.75))
    every = torch.cat([weight.abs().flatten() for weight in prune.weights(mlp).values()])
    kept = torch.cat([mask.flatten() for mask in masks.values()])
    assert kept.sum() == len(every) - round(0.75 * len(every))
    assert every[kept].min() > every[~kept].max()


def test_a_dict_cuts_each_layer_by_its_own_threshold_and_leaves_the_others(mlp: nn.Sequential) -> None:
    masks = prune.choose(mlp, Round(sparsity={"0": 0.5, "4": 0.25}))
    assert [int(mask.sum()) for mask in masks.values()] == [24, 64, 24]


def test_quality_cuts_below_q_standard_deviations_of_the_layer(mlp: nn.Sequential) -> None:
    masks = prune.choose(mlp, Round(quality={"2": 0.9}))
    weight = mlp[2].weight.detach()
    assert torch.equal(masks["2"], weight.abs() >= 0.9 * weight.std(correction=0))
    assert masks["0"].all()


def test_quality_of_a_pruned_layer_is_that_of_its_survivors() -> None:
    weight = torch.tensor([0.0, 0.0, 1.0, -1.0, 3.0, -3.0])
    assert prune.quality_threshold(weight, 2.0) == pytest.approx(2 * 5**0.5)
    assert prune.quality_threshold(torch.zeros(3), 2.0) == 0.0


def test_what_was_pruned_once_stays_pruned(mlp: nn.Sequential) -> None:
    first = prune.choose(mlp, Round(sparsity=0.5))
    prune.release_(prune.hold_(mlp, first))
    second = prune.choose(mlp, Round(sparsity=0.4))  # asks for less than there already is
    assert all(torch.equal(second[name], first[name]) for name in first)


def test_patterns_differ_by_layer_and_a_misfit_names_the_layer(mlp: nn.Sequential) -> None:
    masks = prune.choose(mlp, Round(sparsity={"2": 0.5, "4": 0.5}, pattern={"2": "2:4", "4": "4x1"}))
    assert (masks["2"].reshape(8, 2, 4).sum(2) == 2).all()
    assert set(masks["4"].sum(0).tolist()) == {0, 4}
    with pytest.raises(PatternError, match=r'layer "0" \(8, 6\) cannot take pattern "2:4": 6 inputs'):
        prune.choose(mlp, Round(sparsity={"0": 0.5}, pattern="2:4"))


def test_a_global_threshold_compares_blocks_by_their_mean_score() -> None:
    scored = {"big": torch.tensor([[1.0, 1.0], [1.0, 1.0]]), "small": torch.tensor([[3.0, 2.0], [0.5, 4.0]])}
    patterns = {"big": parse("2x1"), "small": parse("free")}
    assert prune.spread(scored, patterns, 5 / 8) == {"big": 1.0, "small": 0.25}


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (Round(sparsity={"fc9": 0.5}), 'no layer "fc9". It has 0, 2, 4'),
        (Round(quality={"fc9": 0.5}), 'no layer "fc9"'),
        (Round(sparsity=0.5, score="magic"), 'no score "magic"'),
        (Round(sparsity=0.5, score="Tensor"), 'no score "Tensor"'),
    ],
)
def test_a_round_that_cannot_be_followed_is_refused(mlp: nn.Sequential, one: Round, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        prune.choose(mlp, one)


@pytest.mark.parametrize("sparsity", [-0.1, 1.01, float("nan")])
def test_a_round_outside_0_to_1_is_refused(mlp: nn.Sequential, sparsity: float) -> None:
    with pytest.raises(PatternError, match="not a share from 0 to 1"):
        prune.choose(mlp, Round(sparsity=sparsity))
    with pytest.raises(PatternError, match="not a share from 0 to 1"):
        prune.choose(mlp, Round(sparsity={"0": sparsity}))


def test_a_computed_weight_stays_dense_and_is_refused_by_name_with_the_way_out() -> None:
    computed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    model = nn.Sequential(computed, nn.Linear(4, 4))
    masks = prune.choose(model, Round(sparsity=0.5))
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"1": 8}
    words = (
        '"0" cannot be pruned: the network computes it .* Leave it out, or make it a plain parameter first'
    )
    with pytest.raises(RecipeError, match=words):
        prune.choose(model, Round(sparsity={"0": 0.5}))
    with pytest.raises(RecipeError, match=words):
        prune.hold_(model, {"0": torch.eye(4).bool()})
    masks["0"] = torch.ones(4, 4, dtype=torch.bool)  # as they are read off a network
    assert list(prune.masked(prune.hold_(model, masks))) == ["1"]
    with pytest.raises(ModelError, match='nothing to prune in the network: "": the network computes it'):
        prune.choose(computed, Round(sparsity=0.5))


class Tables(nn.Module):
    """A table whose transpose is the last layer, a position that is added, and a layer between."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.middle = nn.Embedding(9, 4), nn.Linear(4, 4)
        self.place, self.last = nn.Parameter(torch.ones(1, 5, 4)), nn.Linear(4, 9, bias=False)
        self.last.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.table(x) + self.place))


def test_tables_and_what_is_added_stay_dense_unless_they_are_named() -> None:
    model, half = Tables(), Round(sparsity=0.5)
    assert {name: int(mask.sum()) for name, mask in prune.choose(model, half).items()} == {"middle": 8}
    named = Round(sparsity={"table": 0.5, "place": 0.25})
    masks = prune.choose(model, named)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"middle": 16, "table": 18, "place": 15}
    prune.release_(prune.hold_(model, masks))
    assert int(model.last.weight.count_nonzero()) == 18
    assert set(prune.choose(model, half)) == {"middle"}
    later = prune.choose(model, half, also=["table"])  # of a recipe that has named it before
    assert torch.equal(later["table"], masks["table"])
    with pytest.raises(RecipeError, match='no layer "last". It has place, table, middle'):
        prune.choose(model, Round(sparsity={"last": 0.5}))


def test_one_mask_holds_in_all_places_of_a_tied_weight() -> None:
    model, x = Tables(), torch.arange(5)[None]
    mask = torch.rand(9, 4) < 0.5
    prune.hold_(model, {"table": mask})
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        model(x).square().sum().backward()
        optimizer.step()
    assert torch.equal(model.last.weight != 0, mask)
    other = prune.release_(copy.deepcopy(model))
    for released in (other, prune.release_(model)):
        assert released.last.weight is released.table.weight
        assert torch.equal(released.table.weight != 0, mask)
    assert other.table.weight is not model.table.weight


def test_patterns_and_their_reasons_are_named_for_weights_of_all_kinds() -> None:
    model = nn.ModuleDict(
        {
            "up": nn.ConvTranspose2d(4, 4, 2),
            "one": nn.Conv1d(4, 8, 3),
            "lstm": nn.LSTM(4, 2),
            "c3": nn.Conv3d(4, 4, 2),
        }
    )
    fitting = {"one": "4x1", "lstm.weight_ih_l0": "2:4", "lstm.weight_hh_l0": "channel", "c3": "1x1x2x2x2"}
    masks = prune.choose(model, Round(sparsity=dict.fromkeys(fitting, 0.5), pattern=fitting))
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {
        "up": 64, "one": 48, "lstm.weight_ih_l0": 16, "lstm.weight_hh_l0": 8, "c3": 64,
    }  # fmt: skip
    for name, pattern, reason in (
        ("up", "4x1", "a transposed convolution stores"),
        ("one", "1x1x3x3", "blocks of 2 axes of taps need a weight of as many, and it has 1"),
        ("lstm.weight_hh_l0", "2:4", "2 inputs cannot be split into groups of 4"),
    ):
        for sparsity in (0.5, {name: 0.5}):
            with pytest.raises(
                PatternError, match=f'layer "{name}" .* cannot take pattern "{pattern}": {reason}'
            ):
                prune.choose(model, Round(sparsity=sparsity, pattern={name: pattern}))


def test_a_parameter_whose_name_torch_cannot_hold_is_refused_before_anything_is_held() -> None:
    class Memory(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.keys = nn.Parameter(torch.randn(4, 4))

    model = Memory()
    masks = {name: torch.eye(4).bool() for name in ("", "keys")}
    with pytest.raises(ModelError, match='"keys" of Memory cannot be held: .* Rename it'):
        prune.hold_(model, masks)
    assert not prune.masked(model)
    assert list(model.state_dict()) == ["weight", "bias", "keys"]


class Listed(nn.Module):
    """Keeps its matrices in a plain list, as the recurrent layers of torch do."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.matrices = [self.two.weight]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.one(x)) @ self.matrices[0]


def test_a_network_that_reads_a_weight_past_its_mask_is_noticed_and_left_as_it_was() -> None:
    model, x = Listed(), torch.randn(2, 4)
    model.one.weight = nn.Parameter(model.one.weight.detach().t().contiguous().t())  # of other strides
    prune.hold_(model, prune.choose(model, Round(sparsity={})))
    before, answer = {name: p.clone() for name, p in model.named_parameters()}, model(x)
    with pytest.raises(
        ModelError, match='the network reads "two" past its mask: its forward takes .* from a list'
    ):
        prune.check_reach(model, x)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert torch.equal(model(x), answer)
    prune.release_(model)
    prune.check_reach(prune.hold_(model, {"one": torch.eye(4).bool()}), x)
    prune.check_reach(model, torch.full((2, 4), torch.nan))  # whose answer is NaN in any case


@dataclasses.dataclass
class Answer:
    scores: torch.Tensor


def test_a_weight_read_past_its_mask_is_noticed_in_an_answer_that_is_a_dataclass() -> None:
    class Wrapped(Listed):
        def forward(self, x: torch.Tensor) -> Answer:  # type: ignore[override]
            return Answer(super().forward(x))

    model = Wrapped()
    prune.hold_(model, prune.choose(model, Round(sparsity={})))
    with pytest.raises(ModelError, match='reads "two" past its mask'):
        prune.check_reach(model, torch.randn(2, 4))


def test_a_network_under_torch_s_pruning_is_counted_as_it_is_and_refused_with_the_remedy() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    torch_pruning.l1_unstructured(model[0], "weight", 0.5)
    point = retrain.as_sparse(model)
    assert {name: int(mask.sum()) for name, mask in point.masks.items()} == {"0": 8, "1": 8}
    for refused in (lambda: prune.choose(model, Round(sparsity=0.5)), lambda: pack.encode(model)):
        with pytest.raises(
            ZeroskipError, match="0.weight. is still under torch.nn.utils.prune.*prune.remove"
        ):
            refused()
    with pytest.raises(RecipeError, match='"0" cannot be pruned: .* prune.remove do'):
        prune.hold_(model, {"0": torch.eye(4).bool()})
    torch_pruning.remove(model[0], "weight")
    assert prune.masked(prune.hold_(model, prune.choose(model, Round(sparsity=0.5))))


OPTIMIZERS = [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    lambda p: torch.optim.Adagrad(p, lr=0.1),
    lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2),
]


@pytest.mark.parametrize("make", OPTIMIZERS, ids=["sgd", "adamw", "adagrad", "lbfgs"])
def test_masks_hold_through_any_optimizer_while_the_rest_learns(mlp: nn.Sequential, make) -> None:  # type: ignore[no-untyped-def]
    masks = prune.choose(mlp, Round(sparsity=0.6))
    before = {name: weight.clone() for name, weight in prune.weights(mlp).items()}
    prune.hold_(mlp, masks)
    optimizer, x = make(mlp.parameters()), torch.randn(32, 6)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = mlp(x).square().sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    prune.release_(mlp)
    for name, weight in prune.weights(mlp).items():
        assert (weight[~masks[name]] == 0).all()
        assert not torch.signbit(weight[~masks[name]]).any()  # +0.0: a -0.0 would have to be stored
        assert (weight[masks[name]] != before[name][masks[name]]).float().mean() > 0.5


def test_a_masked_model_loads_and_saves_plain_names(mlp: nn.Sequential) -> None:
    names, fresh = set(mlp.state_dict()), copy.deepcopy(mlp)
    masks = prune.choose(mlp, Round(sparsity=0.5))
    prune.hold_(mlp, masks)
    state = mlp.state_dict()
    assert set(state) == names
    assert (state["0.weight"][~masks["0"]] == 0).all()
    fresh.load_state_dict(state)  # into a plain model ...
    mlp.load_state_dict({name: torch.ones_like(tensor) for name, tensor in state.items()})  # ... and back
    assert torch.equal(mlp[0].weight, masks["0"].float())


def test_a_plain_model_is_left_without_a_trace_of_masks(mlp: nn.Sequential) -> None:
    x = torch.randn(3, 6)
    prune.hold_(mlp, prune.choose(mlp, Round(sparsity=0.5)))
    expected = mlp(x)
    prune.release_(mlp)
    assert torch.equal(mlp(x), expected)
    assert [type(module) for module in mlp] == [nn.Linear, nn.ReLU] * 2 + [nn.Linear]
    assert not any(prune.is_masked(module) for module in mlp)
    mlp.load_state_dict(mlp.state_dict())
    assert not mlp[0]._state_dict_hooks
    assert prune.release_(mlp) is mlp  # once more does no harm


def test_masks_on_masks_replace_the_old_ones(mlp: nn.Sequential) -> None:
    prune.hold_(mlp, prune.choose(mlp, Round(sparsity=0.3)))
    prune.hold_(mlp, prune.choose(mlp, Round(sparsity=0.6)))
    assert len(mlp[0].parametrizations.weight) == 1
    kept = sum(int((weight != 0).sum()) for weight in prune.weights(mlp).values())
    assert kept == 144 - round(0.6 * 144)


def test_convolutions_are_masked_like_linear_layers() -> None:
    model = LeNet5(LeNet5Sizes(side=8, kernel=3, padding=1, channels=(4, 8, 16)))
    masks = prune.choose(model, Round(sparsity=0.5, pattern={"conv2": "1x1x3x3"}))
    prune.hold_(model, masks)
    assert set((model.conv2.weight != 0).sum((2, 3)).flatten().tolist()) <= {0, 9}


def test_a_wrong_mask_is_refused_before_anything_changes(mlp: nn.Sequential) -> None:
    before = copy.deepcopy(mlp.state_dict())
    good = torch.zeros(8, 6, dtype=torch.bool)
    with pytest.raises(
        RecipeError, match=r'mask of "2" is torch.float32 \(2, 2\); it must be torch.bool \(8, 8\)'
    ):
        prune.hold_(mlp, {"0": good, "2": torch.zeros(2, 2)})
    assert all(torch.equal(before[name], tensor) for name, tensor in mlp.state_dict().items())
    assert not prune.is_masked(mlp[0])


def test_quality_is_the_threshold_that_leaves_so_many() -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, 50)
    weight[torch.rand(40, 50) < 0.3] = 0.0
    for sparsity in (0.5, 0.9, 0.9995):
        quality = prune.quality(weight, sparsity)
        kept = int((weight.abs() >= prune.quality_threshold(weight, quality)).sum())
        assert kept == round((1 - sparsity) * 2000)


@pytest.mark.parametrize("values", [[0.0, 0.0], [3.0, 3.0], [0.0, 2.0]])
def test_survivors_without_deviation_have_quality_0(values: list[float]) -> None:
    assert prune.quality(torch.tensor(values), 0.5) == 0.0
