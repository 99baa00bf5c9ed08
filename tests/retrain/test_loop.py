"""The loop: rounds, budget, bisection, resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Bare, Tiny
from torch import nn

from zeroskip import prune, retrain, task_api
from zeroskip.concepts import Point, Recipe, Round, Sparse
from zeroskip.errors import ModelError, RecipeError, RunError
from zeroskip.prune import schedules
from zeroskip.retrain.loop import between


def dense() -> nn.Module:
    torch.manual_seed(0)
    model = Tiny().model()
    Tiny().train(model, epochs=10)
    return model


def rounds(*sparsities: float, **train: Any) -> tuple[Round, ...]:
    return tuple(Round(sparsity=one, train=train) for one in sparsities)


def weights(sparse: Sparse) -> list[float]:
    return torch.cat([tensor.flatten() for _, tensor in sorted(sparse.model.state_dict().items())]).tolist()


def test_without_a_budget_every_round_is_done_and_the_last_counts() -> None:
    sparse = retrain.loop(dense(), Recipe(rounds(*schedules.cubic(0.75, 3))), Tiny())
    assert [point.kind for point in sparse.history] == ["dense", "round", "round", "round"]
    kept = sum(int(mask.sum()) for mask in sparse.masks.values())
    assert kept == sparse.history[-1].weights_kept == 176 - round(0.75 * 176)
    assert all((w[~sparse.masks[name]] == 0).all() for name, w in prune.weights(sparse.model).items())
    assert not any(prune.is_masked(module) for module in sparse.model.modules())


class Scripted(Tiny):
    """Its error depends on nothing but how many weights are left: over the budget below `enough` of 176."""

    enough = 60

    def train(self, model: nn.Module, **keywords: Any) -> None:
        self.calls.append(keywords)

    def evaluate(self, model: nn.Module, split: str = "validation") -> float:
        kept = sum(int((weight != 0).sum()) for weight in prune.weights(model).values())
        return 0.1 if kept >= self.enough else 0.2


def test_a_budget_stops_at_the_first_bad_round_and_bisects_twice() -> None:
    recipe = Recipe(rounds(*schedules.geometric(0.7, 9)), max_error_rise=0.05)
    history = retrain.loop(dense(), recipe, Scripted()).history
    assert [(point.kind, point.weights_kept, point.good) for point in history] == [
        ("dense", 176, True),
        ("round", 123, True),
        ("round", 86, True),
        ("round", 60, True),
        ("round", 42, False),
        ("bisection", 51, False),  # 0.7^3.5 of 176, rounded
        ("bisection", 55, False),
    ]


def test_a_rise_of_exactly_the_budget_is_within_it() -> None:
    class Counting(Scripted):
        def evaluate(self, model: nn.Module, split: str = "validation") -> float:
            return 13 / 360 if super().evaluate(model, split) == 0.1 else 14 / 360

    assert 13 / 360 + 1 / 360 < 14 / 360  # in floating point
    history = retrain.loop(dense(), Recipe(rounds(0.9), max_error_rise=1 / 360), Counting()).history
    assert [point.good for point in history] == [True, True]


def test_the_last_good_point_is_what_is_returned() -> None:
    recipe = Recipe(rounds(*schedules.geometric(0.7, 9)), max_error_rise=0.05)
    sparse = retrain.loop(dense(), recipe, Scripted())
    assert sum(int(mask.sum()) for mask in sparse.masks.values()) == 60
    scripted = Scripted()
    scripted.enough = 52
    sparse = retrain.loop(dense(), recipe, scripted)
    assert [point.good for point in sparse.history[-3:]] == [False, False, True]
    assert sum(int(mask.sum()) for mask in sparse.masks.values()) == sparse.history[-1].weights_kept == 55


def test_if_no_round_is_good_the_dense_network_comes_back_unchanged() -> None:
    scripted, model = Scripted(), dense()
    scripted.enough = 176
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sparse = retrain.loop(model, Recipe(rounds(0.5), max_error_rise=0.0), scripted)
    assert all(torch.equal(before[name], tensor) for name, tensor in sparse.model.state_dict().items())
    assert all(mask.all() for mask in sparse.masks.values())


def test_half_way_between_two_rounds_keeps_the_geometric_mean_of_each_layer() -> None:
    assert between(Round(sparsity=0.0), Round(sparsity=0.75)).sparsity == pytest.approx(0.5)
    middle = between(Round(sparsity={"a": 0.0, "b": 0.36}), Round(sparsity={"a": 0.75, "b": 0.84}))
    assert middle.sparsity == pytest.approx({"a": 0.5, "b": 1 - (0.64 * 0.16) ** 0.5})
    from_dense = between(Round(sparsity=0.0), Round(sparsity={"a": 0.75}))
    assert from_dense.sparsity == pytest.approx({"a": 0.5})


def test_the_learning_rate_is_divided_as_the_round_says() -> None:
    task = Tiny(learning_rate=0.3)
    retrain.loop(dense(), Recipe(rounds(0.5, learning_rate_divisor=10, epochs=1)), task)
    assert task.calls[0]["learning_rate"](5) == pytest.approx(0.03)
    assert task.calls[0]["epochs"] == 1
    assert "learning_rate_divisor" not in task.calls[0]


def test_frozen_layers_do_not_change_while_the_others_learn() -> None:
    model = dense()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    retrain.loop(model, Recipe((Round(sparsity={"0": 0.5}, frozen=("2",)),)), Tiny())
    assert torch.equal(model[2].weight, before["2.weight"])
    assert torch.equal(model[2].bias, before["2.bias"])
    assert not torch.equal(model[0].bias, before["0.bias"])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_task_with_the_four_functions_only_is_enough() -> None:
    with pytest.warns(UserWarning, match="takes no epochs"):
        sparse = retrain.loop(dense(), Recipe(rounds(0.5, epochs=2)), Bare())
    assert len(sparse.history) == 2


class Interrupting(Tiny):
    """Dies in the middle of training, like a killed process: after so many epochs in all."""

    def __init__(self, epochs_to_live: int) -> None:
        super().__init__()
        self.left = epochs_to_live

    def train(self, model: nn.Module, **keywords: Any) -> None:
        after = keywords.pop("on_epoch")

        def on_epoch(done: int, total: int, state: dict[str, torch.Tensor]) -> None:
            after(done, total, state)
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

        super().train(model, on_epoch=on_epoch, **keywords)


@pytest.mark.parametrize("epochs", [0, 2, 4, 7, 9, 13])
def test_a_loop_killed_at_any_epoch_ends_as_if_it_had_not_been(tmp_path: Path, epochs: int) -> None:
    recipe = Recipe(rounds(0.3, 0.6, 0.8, 0.9), max_error_rise=0.1)
    whole = retrain.loop(dense(), recipe, Tiny(), seed=5)
    with pytest.raises(KeyboardInterrupt):
        retrain.loop(dense(), recipe, Interrupting(epochs), folder=tmp_path, seed=5)
    task = Tiny()
    resumed = retrain.loop(dense(), recipe, task, folder=tmp_path, seed=5)
    assert weights(resumed) == weights(whole)
    assert resumed.history == whole.history
    assert len(task.calls) == len(whole.history) - 1 - epochs // 4  # finished rounds are not trained again


def test_a_finished_loop_is_read_not_trained(tmp_path: Path) -> None:
    recipe = Recipe(rounds(0.5, 0.7))
    first, task = retrain.loop(dense(), recipe, Tiny(), folder=tmp_path), Tiny()
    second = retrain.loop(dense(), recipe, task, folder=tmp_path)
    assert weights(first) == weights(second)
    assert task.calls == []


def test_a_task_without_resume_continues_between_rounds_with_the_same_result(tmp_path: Path) -> None:
    recipe = Recipe(rounds(0.3, 0.6))
    whole = retrain.loop(dense(), recipe, Bare())
    retrain.loop(dense(), recipe, Bare(), folder=tmp_path)
    for path in tmp_path.rglob("002.*"):  # as if killed after the first round
        path.unlink()
    assert weights(retrain.loop(dense(), recipe, Bare(), folder=tmp_path)) == weights(whole)


def test_attempts_of_another_recipe_or_start_are_not_taken_for_one_s_own(tmp_path: Path) -> None:
    retrain.loop(dense(), Recipe(rounds(0.5)), Tiny(), folder=tmp_path)
    with pytest.raises(RunError, match="other settings .recipe"):
        retrain.loop(dense(), Recipe(rounds(0.9)), Tiny(), folder=tmp_path)
    with pytest.raises(RunError, match="other settings .start"):
        retrain.loop(Tiny().model(), Recipe(rounds(0.5)), Tiny(), folder=tmp_path)


def test_a_pattern_that_fixes_its_sparsity_is_within_the_budget_or_the_network_stays_dense() -> None:
    fixed = Recipe((Round(sparsity={"0": 0.5}, pattern="2:4"),), max_error_rise=0.05)
    scripted = Scripted()
    scripted.enough = 176  # no weight may go
    assert [point.kind for point in retrain.loop(dense(), fixed, scripted).history] == ["dense", "round"]
    mixed = Round(sparsity={"0": 0.5, "2": 0.75}, pattern={"0": "2:4"})
    assert between(Round(sparsity=0.0), mixed).sparsity == pytest.approx({"0": 0.5, "2": 0.5})


def test_a_ruined_network_of_infinite_error_is_over_the_budget_and_no_failure() -> None:
    class Ruined(Scripted):
        def evaluate(self, model: nn.Module, split: str = "validation") -> float:
            return 0.1 if super().evaluate(model, split) == 0.1 else float("inf")

    history = retrain.loop(dense(), Recipe(rounds(0.9), max_error_rise=0.1), Ruined()).history
    assert [point.good for point in history] == [True, False, False, True]


def test_a_divisor_without_a_learning_rate_to_divide_is_named() -> None:
    with pytest.warns(UserWarning, match="Bare has no learning_rate to divide by 10"):
        retrain.loop(dense(), Recipe(rounds(0.5, learning_rate_divisor=10)), Bare())


def test_tied_weights_are_pruned_together_and_counted_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Linear(8, 8), nn.Linear(8, 8)
            self.up.weight = self.down.weight
            self.last = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.up(torch.relu(self.down(x)))))

    sparse = retrain.loop(Tied(), Recipe(rounds(0.5, epochs=2)), Tiny())
    assert sparse.history[-1].weights == 64 + 24
    assert sparse.model.up.weight is sparse.model.down.weight
    assert sparse.history[-1].weights_kept == 44
    assert int((sparse.model.up.weight != 0).sum()) == int(sparse.masks["down"].sum())


class Diverging(Tiny):
    def train(self, model: nn.Module, **_: Any) -> None:
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))


def test_a_training_that_diverges_is_an_error_and_leaves_no_masks_behind() -> None:
    model = dense()
    with pytest.raises(ModelError, match="Train again, with a lower learning rate"):
        retrain.loop(model, Recipe(rounds(0.5)), Diverging())
    assert not any(prune.is_masked(module) for module in model.modules())


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Recipe(()), "no rounds"),
        (Recipe((Round(sparsity=0.5, frozen=("fc9",)),)), 'no layer "fc9"'),
        (Recipe((Round(quality={"0": 1.0}, pattern="2:4"),)), "takes neither pattern nor sparsity"),
        (Recipe((Round(quality={"0": 1.0}),), max_error_rise=0.0), "cannot be bisected"),
        (Recipe((Round(sparsity=0.5), Round(sparsity={"0": 0.6})), max_error_rise=0.0), "Use one form"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(recipe: Recipe, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        retrain.loop(dense(), recipe, Tiny())


def test_a_point_tells_its_sparsity() -> None:
    assert Point("round", 25, 100, 0.1, True).sparsity == 0.75


def test_quality_rounds_prune_below_q_standard_deviations() -> None:
    model = dense()
    threshold = prune.quality_threshold(model[0].weight.detach(), 0.8)
    expected = model[0].weight.abs() >= threshold
    sparse = retrain.loop(model, Recipe((Round(quality={"0": 0.8}),)), Tiny())
    assert torch.equal(sparse.masks["0"], expected)


def test_training_runs_from_the_seed_it_is_given_whatever_came_before() -> None:
    states = []
    for _ in range(2):
        torch.rand(3)
        model = Tiny().model()
        model.load_state_dict(dense().state_dict())
        retrain.train(Tiny(), model, stage="dense", seed=3)
        states.append(task_api.model(Tiny(), model.state_dict()).state_dict()["0.weight"])
    assert torch.equal(*states)


class Reads(Tiny):
    """Two inputs by keyword, tokens and a scale: a table, an LSTM and a head."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.lstm = nn.Embedding(8, 6), nn.LSTM(6, 5, batch_first=True)
            self.head = nn.Linear(5, 3)

        def forward(self, *, tokens: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(self.table(tokens))[0][:, -1]) * scale

    def __init__(self) -> None:
        super().__init__()
        self.inputs = {"tokens": torch.arange(8)[None].expand(4, 8), "scale": torch.ones(4, 1)}

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.Network()

    def batch(self) -> Any:
        return self.inputs

    @staticmethod
    def loss(model: nn.Module, inputs: dict[str, torch.Tensor], targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(model(**inputs), targets)

    def train(self, model: nn.Module, *, loss: Any = None, **keywords: Any) -> None:
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(learning, 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (loss or self.loss)(model.train(), self.inputs, torch.tensor([0, 1, 2, 0])).backward()
            optimizer.step()

    def evaluate(self, model: nn.Module, split: str = "validation") -> float:
        return float(model(**self.inputs).detach().abs().sum())


def test_a_recurrent_network_of_two_inputs_is_pruned_and_every_weight_of_it_is_counted() -> None:
    taught = {"weight": 0.5, "temperature": 2.0}
    one = Round(sparsity=0.5, penalty={"l1": 1e-3}, teacher=taught)
    sparse = retrain.loop(Reads().model(), Recipe((one,)), Reads())
    table, pruned = 48, 20 * 6 + 20 * 5 + 15
    last = sparse.history[-1]
    assert (last.weights, last.weights_kept) == (table + pruned, table + pruned - round(0.5 * pruned))
    assert {name: int(mask.sum()) for name, mask in sparse.masks.items()} == last.layers_kept
    assert last.layers_kept["table"] == table


def test_what_one_round_names_stays_pruned_in_the_next() -> None:
    two = Recipe((Round(sparsity={"table": 0.5}), Round(sparsity=0.5)))
    history = retrain.loop(Reads().model(), two, Reads()).history
    assert [point.layers_kept["table"] for point in history] == [48, 24, 24]
    assert history[1].weights_kept == 24 + 235


def test_a_frozen_weight_is_named_like_any_and_takes_the_bias_that_belongs_to_it_along() -> None:
    model = Reads().model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one = Round(sparsity={"lstm.weight_hh_l0": 0.5}, frozen=("lstm.weight_ih_l0", "table"))
    retrain.loop(model, Recipe((one,)), Reads())
    same = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert same == {"lstm.weight_ih_l0", "lstm.bias_ih_l0", "table.weight"}


def test_an_lstm_whose_head_is_pruned_has_hardly_fewer_weights() -> None:
    model = nn.ModuleDict({"lstm": nn.LSTM(8, 32), "head": nn.Linear(32, 2)})
    prune.release_(prune.hold_(model, prune.choose(model, Round(sparsity={"head": 0.9}))))
    sparse = retrain.as_sparse(model)
    counts = [(mask.numel(), int(mask.sum())) for mask in sparse.masks.values()]
    assert tuple(map(sum, zip(*counts, strict=True))) == (5184, 5126)
