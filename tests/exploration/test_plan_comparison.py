"""Plans by what chips gain and by the number of weights, from Python: pairs, points, budgets, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from zeroskip import measure, prune, retrain, simulate, task_api
from zeroskip.concepts import Trace
from zeroskip.errors import AcceleratorError, TaskError
from zeroskip.exploration import PlanStudy, compare_plans, find_chips, plan_comparison
from zeroskip.exploration.plan_comparison import COST_EXAMPLES, example_trace
from zeroskip.report.plan_tables import plans_table
from zeroskip.tasks.load import load

TASK = str(Path(__file__).parent.parent / "tiny_task.py")
CHIPS = """
from dataclasses import replace
from zeroskip.simulate import chips
ONE = replace(chips.EIE, name="one", lanes=1)
TWO = replace(chips.EIE, name="two", lanes=2)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans")
    (path / "chips.py").write_text(CHIPS)
    return path


@pytest.fixture
def study(folder: Path) -> PlanStudy:
    return PlanStudy(TASK, str(folder / "chips.py"))


@pytest.fixture
def comparison(study: PlanStudy, folder: Path) -> plan_comparison.PlanComparison:
    """Trained by the first test that asks, read by the others."""
    return compare_plans(study, max_error_rises=[0.0, 0.05], seeds=2, folder=folder / "points")


def test_pairs_are_chip_by_chip_budget_by_budget_seed_by_seed(
    comparison: plan_comparison.PlanComparison, folder: Path
) -> None:
    keys = [(pair.chip, pair.max_error_rise, pair.seed) for pair in comparison.pairs]
    assert keys == [(chip, rise, seed) for chip in ("one", "two") for rise in (0.0, 0.05) for seed in (0, 1)]
    assert len(list((folder / "points").iterdir())) == 4
    assert (comparison.cost, comparison.pattern) == ("cycles", "free")


def test_all_chips_see_the_same_dense_network_and_the_same_plan_by_weights(
    comparison: plan_comparison.PlanComparison,
) -> None:
    half = len(comparison.pairs) // 2
    for one, two in zip(comparison.pairs[:half], comparison.pairs[half:], strict=True):
        for name in ("dense", "by_weights"):
            first, second = getattr(one, name), getattr(two, name)
            assert first.sparsity == second.sparsity
            assert first.test_error == second.test_error
            assert first.cycles > second.cycles  # two lanes are faster than one


def test_every_network_is_within_its_budget_and_sparser_than_the_dense_one(
    comparison: plan_comparison.PlanComparison,
) -> None:
    for pair in comparison.pairs:
        assert pair.dense.sparsity == 0
        for network in (pair.by_weights, pair.by_cost):
            assert 0 < network.sparsity < 1
            assert network.validation_error <= pair.dense.validation_error + pair.max_error_rise + 1e-9
            assert network.cycles < pair.dense.cycles


def test_the_dense_network_of_a_seed_is_the_task_s_own_training(
    comparison: plan_comparison.PlanComparison, folder: Path
) -> None:
    task, chip = load(TASK), find_chips(str(folder / "chips.py"))[0]
    torch.manual_seed(0)
    model = task_api.model(task, None)
    retrain.train(task, model, stage="dense training", seed=0)
    found = simulate.estimate_trace(example_trace(model.eval(), task), chip)
    pair = comparison.pairs[0]
    assert (pair.dense.cycles, pair.dense.joules) == (found.cycles, pytest.approx(found.joules))
    assert pair.dense.validation_error == task_api.evaluate(task, model, "validation")


def test_a_plan_by_cost_follows_from_the_profile_and_the_cost_of_the_dense_network(
    comparison: plan_comparison.PlanComparison, folder: Path
) -> None:
    task, chip = load(TASK), find_chips(str(folder / "chips.py"))[1]
    torch.manual_seed(1)
    model = task_api.model(task, None)
    retrain.train(task, model, stage="dense training", seed=1)
    profile = measure.profile(model.eval(), task)
    cost = simulate.cost_on(chip, example_trace(model, task))
    sparse = retrain.loop(model, prune.plan(profile, max_error_rise=0.05, cost=cost), task, seed=1).model
    (pair,) = [
        pair for pair in comparison.pairs if (pair.chip, pair.max_error_rise, pair.seed) == ("two", 0.05, 1)
    ]
    assert pair.by_cost.cycles == simulate.estimate_trace(example_trace(sparse, task), chip).cycles


def test_what_is_stored_is_read_again_without_a_training(
    comparison: plan_comparison.PlanComparison,
    study: PlanStudy,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(retrain, "train", fail)
    again = compare_plans(study, max_error_rises=[0.05, 0.0], seeds=2, folder=folder / "points")
    assert set(again.pairs) == set(comparison.pairs)
    fewer = compare_plans(study, max_error_rises=[0.0], seeds=1, folder=folder / "points")
    assert [pair.seed for pair in fewer.pairs] == [0, 0]


def test_other_words_are_other_points(
    comparison: plan_comparison.PlanComparison,
    study: PlanStudy,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(plan_comparison, "sweep", lambda points, *_, **__: asked.extend(points) or [])
    changes = ({}, {"cost": "joules"}, {"pattern": "2:4"}, {"train": {"learning_rate_divisor": 10.0}})
    for change in changes:
        compare_plans(
            PlanStudy(**{"task": study.task, "chips": study.chips} | change), max_error_rises=[0.0], seeds=1
        )
    texts = [json.dumps(point, sort_keys=True) for point in asked]
    assert len(set(texts)) == len(changes)
    stored = [json.loads(path.read_text())["point"] for path in (folder / "points").iterdir()]
    assert asked[0] in stored


def test_without_budgets_the_budget_is_one_example(study: PlanStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(plan_comparison, "sweep", lambda points, *_, **__: asked.extend(points) or [])
    compare_plans(study)
    assert [point["seed"] for point in asked] == [0, 1, 2]
    assert {point["rise"] for point in asked} == {task_api.one_example(load(TASK))}


def test_layers_that_a_chip_refuses_are_known_without_training() -> None:
    found = compare_plans(PlanStudy("digits-conv", "scnn,eie"), seeds=0)
    assert found.pairs == ()
    assert found.layers["EIE"].run == ("fc1", "fc2")
    assert found.layers["EIE"].refused == ("conv1", "conv2")
    assert found.layers["SCNN"].refused == ()
    assert found.task == "digits-conv"


@pytest.mark.parametrize(
    ("task", "chips", "error", "sentence"),
    [
        ("no-task", "eie", TaskError, 'there is no task "no-task"'),
        ("digits", "tpu", AcceleratorError, 'there is no chip "tpu"'),
        ("digits", "eie,scnn,eie", AcceleratorError, 'two chips are called "EIE".* name="mine"'),
        ("digits-conv", "minerva,eyeriss-v2-pe", AcceleratorError, 'there is no chip "eyeriss-v2-pe"'),
    ],
)
def test_words_that_name_nothing_are_refused_before_any_training(
    task: str, chips: str, error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=sentence):
        compare_plans(PlanStudy(task, chips), folder=tmp_path / "points")
    assert not (tmp_path / "points").exists()


def test_a_trace_of_examples_is_of_the_first_few() -> None:
    task = load("digits")
    trace: Trace = example_trace(task.model(), task)
    assert {len(x) for _, x, _ in trace} == {COST_EXAMPLES}
    assert torch.equal(trace[0][1], task_api.first(task, COST_EXAMPLES).args[0].flatten(1))


def test_a_comparison_is_what_the_table_shows(comparison: plan_comparison.PlanComparison) -> None:
    table = plans_table(comparison)
    assert len(table.rows) == 2 * (2 * 4 + 1)
    value = json.loads(json.dumps(comparison.to_json()))
    assert list(value) == ["task", "of", "pattern", "layers", "pairs"]
    assert [pair["machine"] for pair in value["pairs"]] == [pair.chip for pair in comparison.pairs]
    first, pair = value["pairs"][0], comparison.pairs[0]
    assert first["rise"] == pair.max_error_rise
    assert first["weights"]["zeros"] == pair.by_weights.sparsity
    assert first["cost"]["cycles"] == pair.by_cost.cycles
