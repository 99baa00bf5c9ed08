"""Minerva's rows: exact sizes, what thresholds remove at what error; and all of it on a tiny network."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TEST, Tiny
from torch import nn

from zeroskip import run_folder, task_api, tasks
from zeroskip.errors import FileError, RecipeError
from zeroskip.papers import PaperResult, PaperRow, Setup, committed, measurable, named, rows
from zeroskip.papers.common.findings import read
from zeroskip.papers.common.training_plans import MINERVA, TrainingPlan
from zeroskip.papers.minerva import power
from zeroskip.papers.minerva import rows as minerva
from zeroskip.papers.minerva import train as trained
from zeroskip.papers.minerva.findings import MinervaFindings, MinervaMeans
from zeroskip.papers.minerva.published import TABLE1

MACS = {"all": 1000, "zero_inputs": 700, "zero_activations": 100, "nonzero": 200, "kept": 80}
FOUND = {
    "errors": [0.08, 0.09, 0.10, 0.09, 0.09],  # mean 9 %, sigma 0.707 points
    "validation": [0.07, 0.08, 0.09, 0.08, 0.08],
    "thresholds": {"fc1": 0.5},
    "validation_pruned": 0.085,
    "test": 0.09,
    "test_pruned": 0.10,
    "macs": MACS,
}


def judged(
    found: dict[str, Any], network: str = "minerva-webkb", *, beyond: bool = False
) -> dict[str, PaperRow]:
    """PaperRow by its column; of the paper's own tables but that of power, or of the one beyond them."""
    listed = [row for row in minerva.measured_rows(network, found) if row.table != minerva.POWER]
    return {row.column: row for row in listed if row.table.startswith("Beyond") is beyond}


def test_the_five_networks_have_exactly_the_weights_and_macs_of_their_widths() -> None:
    sizes = [row for row in minerva.analytic() if row.table == "Table 1"]
    exact = {row.network: row.ours for row in sizes if row.column == "MACs, exact"}
    assert list(exact.values()) == [334_336, 139_008, 430_720, 446_208, 1_432_256]
    assert len(sizes) == 15
    assert all(row.holds for row in sizes)


def test_printed_parameters_are_the_weights_to_within_a_step_of_their_last_digit() -> None:
    """430,720 is printed as 430K: the paper cuts where others round."""
    for network, told in TABLE1.items():
        by_hand = sum(
            before * after for before, after in zip([told.inputs, *told.widths], told.widths, strict=False)
        )
        assert minerva.sizes(network) == (by_hand, by_hand)


def test_without_findings_every_measured_row_waits_with_a_reason() -> None:
    listed = rows([named("minerva")])
    waiting = [row for row in listed if row.holds is None]
    assert len(waiting) == 5 * (6 + 1 + 3) + 8 == len(listed) - 15 - 2
    assert all(row.ours is None and row.reason for row in waiting)


def test_findings_fill_the_rows_and_are_judged_by_sigma() -> None:
    found = judged(FOUND)
    assert found["test error, mean"].ours == pytest.approx(9.0)
    assert found["sigma of the test error"].ours == pytest.approx(0.7071, rel=1e-3)
    assert found["MACs with a non-zero input removed"].ours == pytest.approx(60)
    where = found["MACs skipped: zero inputs + zeros of ReLU + thresholds"]
    assert (where.ours, where.holds) == ("70.0 + 10.0 + 12.0 = 92.0 %", True)
    assert found["rise of the validation error over the mean"].ours == pytest.approx(
        0.005 / 0.00707, rel=1e-3
    )
    assert found["rise of its test error"].ours == pytest.approx(0.01 / 0.00707, rel=1e-3)
    assert [row.holds for row in found.values()] == [True, True, True, True, True, False]
    assert "9.00 to 10.00 %" in found["rise of its test error"].reason


def test_a_network_trained_again_with_its_thresholds_has_rows_of_its_own() -> None:
    again = {
        "test": 0.09,
        "test_pruned": 0.095,
        "validation_pruned": 0.086,
        "macs": {**MACS, "kept": 50},
    }
    found = judged({**FOUND, "retrained": again}, beyond=True)
    assert [row.holds for row in found.values()] == [True, True, True]
    assert found["MACs with a non-zero input removed"].ours == pytest.approx(75)
    assert all(row.holds is None for row in judged({}, beyond=True).values())


def test_an_error_passes_up_to_the_published_one_and_its_sigma() -> None:
    """WebKB: 9.89 and 0.71 points."""
    for error, holds in ((0.1059, True), (0.1061, False)):
        assert judged({**FOUND, "errors": [error, error + 1e-6]})["test error, mean"].holds is holds


def test_the_mean_of_the_five_is_judged_against_30_and_75_percent() -> None:
    means = {"removed": 0.29, "skipped": 0.8, "retrained": {"removed": 0.31, "skipped": 0.9}}
    found = judged(means, minerva.MEAN)
    assert [row.holds for row in found.values()] == [False, True]
    assert "our own bound" in found["MACs with a non-zero input removed"].trust
    assert [row.holds for row in judged(means, minerva.MEAN, beyond=True).values()] == [True]


def test_damaged_findings_are_refused_and_all_six_can_be_measured() -> None:
    result = PaperResult("minerva", "minerva-webkb", "2026-01-31", "M", "c", 5, {**FOUND, "macs": {}})
    with pytest.raises(FileError, match="findings of minerva-webkb for minerva are damaged"):
        rows([named("minerva")], results=[result])
    assert measurable(named("minerva")) == [*TABLE1, "minerva-mean"]
    assert list(MINERVA) == list(TABLE1) == [task.name for task in tasks.MINERVA]
    with pytest.raises(RecipeError, match="cannot be measured here on mnist|no network"):
        measurable(named("minerva"), ["mnist"])


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("minerva")


@pytest.fixture(scope="module")
def found(out: Path) -> Any:
    return trained.of_plan(TrainingPlan(Tiny()), out / "tiny", Setup(out, 3))


def test_three_trainings_and_thresholds_within_one_sigma_of_their_mean(found: dict[str, Any]) -> None:
    limit = statistics.fmean(found["validation"]) + statistics.stdev(found["validation"])
    assert len(found["errors"]) == len(found["validation"]) == 3
    assert len(set(found["errors"])) > 1
    assert found["validation_pruned"] <= limit + 1e-9
    assert 0 < found["removed_validation"] < 1
    macs = found["macs"]
    assert macs["all"] == 8 * 16 + 16 * 3
    assert macs["zero_inputs"] + macs["zero_activations"] + macs["nonzero"] == pytest.approx(macs["all"])


def test_what_is_kept_is_what_a_forward_pass_by_hand_counts(out: Path, found: dict[str, Any]) -> None:
    """The network of the median validation error, on the test split."""
    middle = found["validation"].index(statistics.median_low(found["validation"]))
    model = task_api.model(Tiny(), _weights(out / "tiny" / f"seed-{middle}"))
    first, last = model[0], model[2]  # type: ignore[index]
    theta = [found["thresholds"].get(name, 0.0) for name in ("0", "2")]
    with torch.no_grad():
        x = TEST.inputs.where(TEST.inputs.abs() >= theta[0], 0.0)
        h = first(x).relu()
        h = h.where(h >= theta[1], 0.0)
        wrong = (last(h).argmax(1) != TEST.targets).double().mean()
    kept = (torch.count_nonzero(x) * 16 + torch.count_nonzero(h) * 3) / len(TEST)
    assert found["macs"]["kept"] == pytest.approx(float(kept))
    assert found["test_pruned"] == pytest.approx(float(wrong))
    assert found["test"] == Tiny().evaluate(model, "test")


def _weights(folder: Path) -> dict[str, torch.Tensor]:

    return run_folder.load_tensors(folder / "dense.safetensors")


def test_found_once_it_is_read_back_and_fits_into_json(
    out: Path, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> nn.Module:
        raise AssertionError("trained again")

    task = Tiny()
    monkeypatch.setattr(task, "train", fail, raising=False)
    assert (
        trained.of_plan(TrainingPlan(task), out / "tiny", Setup(out, 3))
        == found
        == json.loads(json.dumps(found))
    )


def test_the_mean_is_over_the_five_networks() -> None:
    networks = {
        network: read(
            MinervaFindings,
            {
                **FOUND,
                "macs": {**MACS, "kept": 200 - 20 * index},
                "layers": {
                    name: asdict(layer) for name, layer in power.evenly(network, 0.1 * (index + 1)).items()
                },
                "retrained": {**FOUND, "macs": {**MACS, "kept": 50}},
            },
        )
        for index, network in enumerate(TABLE1)
    }
    means = read(MinervaMeans, trained.means(networks))
    assert (means.removed, means.skipped) == pytest.approx((0.2, 0.84))
    assert (means.retrained.removed, means.retrained.skipped) == pytest.approx((0.75, 0.95))
    powers = [power.saved(network, found.layers) for network, found in networks.items()]
    for prices, ratios in means.power.items():
        assert ratios["no gating"] == pytest.approx(
            statistics.fmean(saved[prices]["no gating"] for saved in powers)
        )


def test_findings_that_come_with_zeroskip_remove_30_percent_in_the_mean_of_five_data_sets() -> None:
    mine = [one for one in committed() if one.paper == "minerva"]
    if not mine:
        pytest.skip("no findings of Minerva come with this version")
    assert {one.network for one in mine} == {*TABLE1, "minerva-mean"}
    assert all(one.seeds == 5 for one in mine)
    each = [read(MinervaFindings, one.findings).macs.removed for one in mine if one.network != "minerva-mean"]
    mean = next(read(MinervaMeans, one.findings).removed for one in mine if one.network == "minerva-mean")
    assert mean == pytest.approx(statistics.fmean(each))
    assert mean >= 0.30


def test_a_second_training_wins_back_what_thresholds_cost_within_the_same_bound(
    found: dict[str, Any],
) -> None:
    limit = statistics.fmean(found["validation"]) + statistics.stdev(found["validation"])
    again = found["retrained"]
    assert again["validation_pruned"] <= limit + 1e-9
    assert again["macs"]["nonzero"] == found["macs"]["nonzero"]
    assert again["macs"]["kept"] <= found["macs"]["kept"]


def test_a_plan_needs_a_task_and_nothing_else() -> None:
    assert replace(TrainingPlan(Tiny()), rounds=1).bits == {}
