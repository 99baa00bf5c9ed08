"""How findings come about: trainings that are kept and continued, files of real zeros made here, refusals."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Tiny
from torch import nn

from zeroskip import prune, run_folder, task_api
from zeroskip.concepts import silent
from zeroskip.errors import DataError, FileError, RunError
from zeroskip.papers import Setup, named
from zeroskip.papers.common import frontier_training, trainings
from zeroskip.papers.common.findings import read
from zeroskip.papers.common.training_plans import FrontierPlan, TrainingPlan
from zeroskip.papers.deep_compression import train as coded
from zeroskip.papers.eie import measure as eie
from zeroskip.papers.eie.rows import Fc8Findings
from zeroskip.papers.extensor.published import MATRICES
from zeroskip.papers.eyeriss_v2 import measure as eyeriss_v2
from zeroskip.papers.eyeriss_v2.published import CYCLES
from zeroskip.papers.han2015 import train as han2015
from zeroskip.retrain import as_sparse
from zeroskip.simulate.workload import count_macs

PLAN = TrainingPlan(Tiny(), published=2.0, rounds=1)


@pytest.fixture
def seed(tmp_path: Path) -> trainings.Seed:
    return trainings.seeds(PLAN, tmp_path / "tiny", 1, silent)[0]


@pytest.fixture
def never_again(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called: from now on a training is an error."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    return lambda: monkeypatch.setattr("zeroskip.task_api.train", fail)


# --- trainings


def test_each_seed_has_a_folder_a_number_and_words_of_its_own(tmp_path: Path) -> None:
    heard: list[str] = []
    seeds = trainings.seeds(PLAN, tmp_path, 3, lambda what, done, total: heard.append(what))
    assert [seed.folder for seed in seeds] == [tmp_path / f"seed-{number}" for number in range(3)]
    for seed in seeds:
        seed.progress("dense", 1, 4)
    assert heard == [f"seed {number} of 3: dense" for number in (1, 2, 3)]


def test_a_folder_of_another_task_or_of_other_weights_is_refused(tmp_path: Path) -> None:
    trainings.seeds(PLAN, tmp_path, 1, silent)
    trainings.seeds(PLAN, tmp_path, 2, silent)  # more seeds of the same are welcome
    with pytest.raises(RunError):
        trainings.seeds(replace(PLAN, task=Tiny(name="other")), tmp_path, 1, silent)
    with pytest.raises(RunError):
        trainings.seeds(replace(PLAN, weights=Tiny().model().state_dict()), tmp_path, 1, silent)


def test_a_dense_network_is_trained_once_by_seed_and_name(
    seed: trainings.Seed, never_again: Callable[[], None]
) -> None:
    first, other = trainings.dense(seed), trainings.dense(seed, "other", epochs=1)
    assert not torch.equal(first[0].weight, other[0].weight)  # type: ignore[index]
    never_again()
    again = trainings.dense(seed)
    assert torch.equal(first[0].weight, again[0].weight)  # type: ignore[index]
    assert not again.training


def test_two_seeds_start_from_different_numbers(tmp_path: Path) -> None:
    one, two = (trainings.dense(seed) for seed in trainings.seeds(PLAN, tmp_path, 2, silent))
    assert not torch.equal(one[0].weight, two[0].weight)  # type: ignore[index]


def test_given_weights_are_the_dense_network_and_nothing_is_trained(
    tmp_path: Path, never_again: Callable[[], None]
) -> None:
    weights = Tiny().model().state_dict()
    never_again()
    (seed,) = trainings.seeds(replace(PLAN, weights=weights), tmp_path, 1, silent)
    dense = trainings.dense(seed).state_dict()
    assert all(torch.equal(dense[name], weights[name]) for name in weights)


def test_a_kept_answer_is_read_back_as_json_has_it_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "answer.json"
    assert trainings.once(path, lambda: {"1": [0.5]}) == {"1": [0.5]}
    assert trainings.once(path, dict) == {"1": [0.5]}
    path.write_text("{")
    with pytest.raises(FileError, match=r"answer\.json"):
        trainings.once(path, dict)


def test_a_plan_says_which_figures_are_made_and_no_other_function_is_called(seed: trainings.Seed) -> None:
    finders = {name: lambda _, name=name: [name] for name in ("figure6", "figure7", "unknown")}
    asked = replace(seed, plan=replace(PLAN, figures=("figure7",)))
    assert trainings.figures(asked, finders) == {"figure7": ["figure7"]}
    assert [path.name for path in seed.folder.glob("*.json") if "figure" in path.name] == ["figure7.json"]


def test_top_5_errors_stand_with_the_others_where_the_task_knows_them(seed: trainings.Seed) -> None:
    model = Tiny().model()
    plain = trainings.errors(seed, error_dense=model)
    assert plain == {"error_dense": task_api.evaluate(seed.task, model, "test")}

    class WithTop5(Tiny):
        def errors(self, model: nn.Module, split: str) -> tuple[float, float]:
            return 0.4, 0.2

    knowing = replace(seed, plan=replace(PLAN, task=WithTop5()))
    assert trainings.errors(knowing, error_dense=model) == {"error_dense": 0.4, "top5_dense": 0.2}


def test_the_published_method_leaves_as_many_weights_as_the_plan_says(seed: trainings.Seed) -> None:
    weights = prune.weights(han2015.iterative(seed))
    total, left = (
        sum(int(count(w)) for w in weights.values()) for count in (torch.numel, torch.count_nonzero)
    )
    assert left == pytest.approx(total / PLAN.published, rel=0.05)


def test_values_are_shared_once_by_name_and_their_number_is_that_of_the_bits(
    seed: trainings.Seed, never_again: Callable[[], None]
) -> None:
    sparse = as_sparse(trainings.dense(seed))
    keywords = {"bits": 2, "bias_bits": 4, "epochs": 1}
    small = trainings.shared(seed, "two-bits", sparse, **keywords)
    assert all(len(weight.unique()) <= 4 for weight in prune.weights(small.model).values())
    never_again()
    again = trainings.shared(seed, "two-bits", sparse, **keywords)
    assert torch.equal(small.model[0].weight, again.model[0].weight)  # type: ignore[index]
    with pytest.raises(RunError):
        trainings.shared(seed, "two-bits", sparse, **{**keywords, "bits": 3})


def test_a_cut_leaves_so_many_times_fewer_of_the_weights_that_are_there(seed: trainings.Seed) -> None:
    dense = trainings.dense(seed)
    left = sum(int((weight != 0).sum()) for weight in prune.weights(coded.cut(seed, dense, 4)).values())
    assert left == pytest.approx((8 * 16 + 16 * 3) / 4, abs=2)
    assert coded.dense_bytes(dense) == 4 * (8 * 16 + 16 + 16 * 3 + 3)


def test_a_frontier_has_a_folder_next_to_the_network_for_each_change_of_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, str]] = []

    def pretend(seeds: list[trainings.Seed], frontier: FrontierPlan) -> object:
        made.append((seeds[0].folder.parent.name, seeds[0].task.name))  # type: ignore[attr-defined]
        return {}

    monkeypatch.setattr(frontier_training, "of_seeds", pretend)
    frontiers = {
        "frontier": FrontierPlan({2: 4}, {}),
        "frontier_shifts": FrontierPlan({2: 4}, {}, {"learning_rate": 0.02}),
    }
    plan = replace(PLAN, frontiers=frontiers)
    assert list(frontier_training.all_frontiers(plan, tmp_path / "tiny", 1, silent)) == list(frontiers)
    assert made == [("tiny", "tiny"), ("tiny-shifts", "tiny-shifts")]


# --- files of real zeros, made here


@pytest.fixture
def accelerators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "accelerators"
    folder.mkdir()
    monkeypatch.setenv("ZEROSKIP_DATA", str(tmp_path))
    return folder


def stored_fc8(folder: Path, weights: np.ndarray, seen: np.ndarray) -> Path:
    """The layer as EIE's authors store it, with no run of more than 15 zeros: (1000, inputs) and (inputs,)."""
    rows = np.zeros((eie.ELEMENTS * 16, weights.shape[1]), bool)
    rows[: len(weights)] = weights
    pointers, offsets, runs = [], [0], []
    for element in range(eie.ELEMENTS):
        places = [np.flatnonzero(column) for column in rows[element :: eie.ELEMENTS].T]
        runs += [run for column in places for run in np.diff(column, prepend=-1) - 1]
        pointers.append(np.cumsum([0, *map(len, places)]))
        offsets.append(len(runs))
    path = folder / eie.FILE
    np.savez(
        path, activations=seen.astype(np.float32), pointers=np.array(pointers), entry_offsets=np.array(offsets),
        codes=np.ones(len(runs), np.uint8), zero_runs=np.array(runs),
    )  # fmt: skip
    return path


def test_fc8_is_read_from_the_authors_form_and_its_entries_are_counted(accelerators: Path) -> None:
    random = np.random.default_rng(0)
    weights, seen = random.random((eie.OUTPUTS, 24)) < 0.3, random.random(24) < 0.5
    stored_fc8(accelerators, weights, seen)
    work = eie.fc8()
    assert torch.equal(work.weight[0, :, :, 0, 0], torch.from_numpy(weights))
    found = read(Fc8Findings, named("eie").measure["eie-fc8"](Setup(accelerators, 1)))
    assert found.entries == count_macs(work).both == int(weights[:, seen].sum())
    assert found.cycles >= found.entries / eie.ELEMENTS


def test_a_file_without_one_of_its_arrays_or_cut_short_is_refused(accelerators: Path) -> None:
    path = stored_fc8(accelerators, np.ones((eie.OUTPUTS, 4), bool), np.ones(4, bool))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is damaged"):
        eie.measure_fc8(Setup(accelerators, 1))
    np.savez(path, activations=np.ones(4))
    with pytest.raises(DataError, match="is damaged"):
        eie.measure_fc8(Setup(accelerators, 1))
    path.unlink()
    with pytest.raises(DataError, match="there is no file"):
        eie.measure_fc8(Setup(accelerators, 1))


def test_cycles_of_an_element_without_zeros_are_all_products_of_a_channel(accelerators: Path) -> None:
    masks = {f"{layer}_weight_mask": np.ones((3, 5), bool) for layer in CYCLES}
    masks |= {f"{layer}_input_mask": np.ones((2, 5), bool) for layer in CYCLES}
    np.savez(accelerators / eyeriss_v2.FILE, **masks)  # type: ignore[arg-type]
    assert eyeriss_v2.measure_element(Setup(accelerators, 1)) == {"cycles": dict.fromkeys(CYCLES, 3 * 5 * 2)}
    works = eyeriss_v2.mobilenet()
    assert {name: work.positions for name, work in works.items()} == dict.fromkeys(CYCLES, 2)


def test_of_four_matrices_the_first_that_is_not_as_published_is_named(accelerators: Path) -> None:
    for matrix in MATRICES:
        (accelerators / f"{matrix.name}.txt.gz").write_bytes(gzip.compress(b"1 2\n2 3\n"))
    with pytest.raises(DataError, match=rf"{MATRICES[0].name}.*2 entries, not {MATRICES[0].entries}"):
        named("extensor").measure["sparse-matrices"](Setup(accelerators, 1))


MEASURED_FROM_FILES = {
    "eie": "eie-fc8",
    "eyeriss-v2": "mobilenet-element",
    "eyeriss": "lenet-5",
    "sparten": "squeezenet",
    "extensor": "sparse-matrices",
}


@pytest.mark.parametrize(("paper", "network"), MEASURED_FROM_FILES.items())
def test_without_data_each_paper_says_what_to_give(
    paper: str, network: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ZEROSKIP_DATA", raising=False)
    with pytest.raises(DataError, match="--data DIR or ZEROSKIP_DATA"):
        named(paper).measure[network](Setup(tmp_path, 1))
    assert not list(tmp_path.iterdir())


def test_the_seeds_folders_hold_nothing_but_tensors_and_json(seed: trainings.Seed) -> None:
    trainings.dense(seed)
    trainings.of_each([seed], "answer", lambda seed: {"seed": seed.number})
    for path in filter(Path.is_file, seed.folder.rglob("*")):
        assert path.suffix in (".json", ".safetensors"), path
        content: Any = (
            json.loads(path.read_text()) if path.suffix == ".json" else run_folder.load_tensors(path)
        )
        assert content
