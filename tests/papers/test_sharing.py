"""What papers share: functions imported when called, means over seeds, frontiers from JSON, findings there and back."""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zeroskip.concepts import FrontierPoint, PrunedFrontier
from zeroskip.errors import FileError, RecipeError, RunError
from zeroskip.papers import PAPERS, PaperResult, Setup, measured_networks, named, rows
from zeroskip.papers.common import frontier_rows, trainings
from zeroskip.papers.common.findings import read
from zeroskip.papers.common.frontier_training import mean
from zeroskip.papers.common.paper import TITLES, WITH_TRAINING, Paper, later
from zeroskip.papers.common.tables import layer_table
from zeroskip.papers.common.training_plans import PLANS
from zeroskip.papers.deep_compression.findings import CodedFindings, fc_layer_times
from zeroskip.papers.eie.rows import Fc8Findings
from zeroskip.papers.eyeriss.rows import EyerissFindings
from zeroskip.papers.eyeriss_v2.rows import ElementFindings
from zeroskip.papers.han2015.findings import HanFindings
from zeroskip.papers.minerva.findings import MinervaFindings, MinervaMeans
from zeroskip.papers.shi2017.rows import ShiFindings
from zeroskip.papers.sparten.rows import SparTenFindings

# --- functions that are imported when they are called


def test_a_module_is_imported_at_the_first_call_and_gets_the_arguments_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows_of_nobody.py").write_text("def given(*arguments):\n    return arguments\n")
    monkeypatch.syspath_prepend(tmp_path)
    call = later("rows_of_nobody", "given")
    assert "rows_of_nobody" not in sys.modules
    assert call("eie-fc8", {}) == ("eie-fc8", {})
    assert "rows_of_nobody" in sys.modules


def test_a_function_or_module_that_is_not_there_is_an_error_when_it_is_called_and_not_before() -> None:
    wrong = later("zeroskip.papers.eie.rows", "guessed"), later("zeroskip.papers.eie.guesses", "analytic")
    with pytest.raises(AttributeError, match="guessed"):
        wrong[0]()
    with pytest.raises(ModuleNotFoundError, match="guesses"):
        wrong[1]()


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
def test_every_function_that_a_paper_names_is_there(paper: Paper, tmp_path: Path) -> None:
    assert isinstance(paper.unmeasurable(), list)
    assert all(row.paper == paper.name and row.holds is None for row in paper.unmeasurable())
    for network in (*paper.networks, *paper.on_request):
        assert all(row.network == network for row in paper.measured_rows(network, {}))
    assert all(callable(measure) for measure in paper.measure.values())


# --- means over seeds

LEAVES = st.dictionaries(
    st.sampled_from(["error", "error_dense", "kept", "bits"]), st.floats(0, 1), min_size=1
)


@given(st.integers(1, 4), LEAVES, st.data())
def test_means_are_those_of_each_number_and_only_errors_are_listed(
    count: int, first: dict[str, float], data: st.DataObject
) -> None:
    seeds = [{key: data.draw(st.floats(0, 1)) for key in first} for _ in range(count)]
    plain, listed = mean(seeds, lists=False), mean(seeds)
    assert plain == pytest.approx({key: statistics.fmean(seed[key] for seed in seeds) for key in first})
    errors = {key for key in first if key.startswith("error")}
    assert set(listed) - set(plain) == {key.replace("error", "errors", 1) for key in errors}
    assert all(listed[key.replace("error", "errors", 1)] == [seed[key] for seed in seeds] for key in errors)


@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=1, max_size=3))
def test_a_mean_goes_into_lists_and_dictionaries_place_by_place(seeds: list[list[float]]) -> None:
    nested = [{"total": {"kept": seed[0]}, "points": seed} for seed in seeds]
    means = mean(nested, lists=False)
    assert means["points"] == pytest.approx([statistics.fmean(place) for place in zip(*seeds, strict=True)])
    assert means["total"]["kept"] == means["points"][0]


def test_a_seed_that_was_found_before_the_run_was_killed_is_not_looked_for_again(tmp_path: Path) -> None:
    looked: list[int] = []

    def find(seed: trainings.Seed) -> dict[str, int]:
        looked.append(seed.number)
        if looked == [0, 1]:
            raise KeyboardInterrupt
        return {"number": seed.number}

    seeds = trainings.seeds(PLANS["digits"], tmp_path, 3, lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        trainings.of_each(seeds, "tables", find)
    assert trainings.of_each(seeds, "tables", find) == [{"number": number} for number in range(3)]
    assert looked == [0, 1, 1, 2]


# --- zeroskip's own frontiers

POINT = FrontierPoint(30, 0.0081, 4, 0.0082, {"huffman": 100, "arithmetic": 80}, (0.008, 0.0082))
FRONTIER = PrunedFrontier(4000, 0.0079, 0.0078, (POINT,))


def test_frontiers_are_read_in_their_order_and_what_is_absent_or_null_is_left_out() -> None:
    stored = json.loads(json.dumps(asdict(FRONTIER)))
    found = frontier_rows.read_frontiers(
        {"frontier_shifts": stored, "frontier_plain": stored, "frontier": None}
    )
    assert found == {"frontier_plain": FRONTIER, "frontier_shifts": FRONTIER}
    assert list(found) == ["frontier_plain", "frontier_shifts"]
    assert frontier_rows.read_frontiers({"error": 0.01}) == {}
    with pytest.raises(FileError, match='lacks "stored_bytes_dense"'):
        frontier_rows.read_frontiers({"frontier": {"points": []}})


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_file_is_so_many_times_smaller_as_its_bytes_say_for_each_coder(dense: int, small: int) -> None:
    point = dataclasses.replace(POINT, stored_bytes={"huffman": small, "arithmetic": 2 * small})
    frontiers = {"frontier": dataclasses.replace(FRONTIER, stored_bytes_dense=dense, points=(point,))}
    listed = frontier_rows.bytes_rows("deep-compression", "lenet-5", frontiers, "0.80", "39")
    times = {row.column: row for row in listed if row.column.startswith("times smaller")}
    assert times["times smaller, Huffman codes"].ours == pytest.approx(dense / small)
    assert times["times smaller, arithmetic codes"].ours == pytest.approx(dense / small / 2)
    assert all(row.holds is (float(row.ours or 0) >= 39) for row in times.values())


def test_layers_are_in_tables_2_to_5_of_both_papers() -> None:
    titles = [layer_table("han2015", network).title for network in TITLES]
    assert titles == ["Table 2: LeNet-300-100", "Table 3: LeNet-5", "Table 4: AlexNet", "Table 5: VGG-16"]


# --- findings to JSON and back


def instances(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a dataclass of findings, or of the types of its fields, as JSON can hold them."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return st.none() | instances(inner[0])
    if dataclasses.is_dataclass(kind):
        fields = typing.get_type_hints(kind)
        return st.builds(typing.cast(Any, kind), **{name: instances(field) for name, field in fields.items()})
    if origin in (dict, Mapping):
        return st.dictionaries(instances(inner[0]), instances(inner[1]), max_size=2)
    if origin is tuple and inner[-1] is Ellipsis:
        return st.lists(instances(inner[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*map(instances, inner))
    finite = st.floats(allow_nan=False, allow_infinity=False)
    return {float: finite, int: st.integers(), str: st.text(max_size=4)}[kind]


KINDS = (HanFindings, CodedFindings, ShiFindings, EyerissFindings, MinervaFindings, MinervaMeans)
KINDS += (Fc8Findings, ElementFindings, SparTenFindings, PrunedFrontier)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_findings_written_as_json_are_read_as_they_were(kind: Any, data: st.DataObject) -> None:
    findings = data.draw(instances(kind))
    assert read(kind, json.loads(json.dumps(asdict(findings)))) == findings


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [None, 1, "text", [], [[1]]])
def test_findings_that_are_no_object_are_refused(kind: Any, value: object) -> None:
    with pytest.raises(FileError, match="not an object"):
        read(kind, value)


@pytest.mark.parametrize(
    "table", [1, [], {"fc6": 1}, {"fc6": {"1": 0.5}}, {"fc6": {"one": [1, 2]}}, {"fc6": {"kernel": ["sell"]}}]
)
def test_times_of_fc_layers_in_another_form_are_refused(table: object) -> None:
    with pytest.raises(FileError, match="not "):
        fc_layer_times({"table8": table})
    assert fc_layer_times({}) == {}


# --- the catalogue


def test_papers_stand_in_the_order_asked_for_and_tables_of_one_paper_together() -> None:
    listed = rows([named("han2015"), named("eie"), named("cnvlutin")], analytic=True)
    assert list(dict.fromkeys(row.paper for row in listed)) == ["han2015", "eie", "cnvlutin"]
    tables = [(row.paper, row.table) for row in listed]
    assert [key for key, last in zip(tables, [None, *tables], strict=False) if key != last] == list(
        dict.fromkeys(tables)
    )


def test_of_two_results_for_a_network_the_last_one_counts_in_rows_and_figures() -> None:
    about = ("2026-01-31", "M", "zeroskip", 1)
    first, last = (
        PaperResult("han2015", "lenet-5", *about, {"error_pruned": error, "figure5_dense": {"L2": error}})
        for error in (0.02, 0.0077)
    )
    listed = rows([named("han2015")], networks=["lenet-5"], results=[first, last])
    assert {row.ours for row in listed if row.row == "LeNet-5 pruned" and row.unit == "%"} == {0.77}
    (shown,) = measured_networks(listed, [first, last])
    assert shown.figures.trade_off_dense == {"L2": 0.0077}
    assert [origin.date for origin in shown.origins] == ["2026-01-31"]


def test_unknown_names_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(RecipeError, match='no paper "lecun". Use one of han2015, deep-compression, '):
        named("lecun")
    with pytest.raises(
        RecipeError,
        match=f'no network "lenet". Use one of|no network "lenet" here. Use one of {WITH_TRAINING[0]}',
    ):
        rows([named("han2015")], networks=["lenet"])


def test_weights_of_one_s_own_start_trainings_that_others_cannot_continue(tmp_path: Path) -> None:
    setup = Setup(tmp_path, 1)
    trainings.seeds(PLANS["digits"], setup.folder / "digits", setup.seeds, setup.progress)
    own = dataclasses.replace(PLANS["digits"], weights=PLANS["digits"].task.network().state_dict())
    with pytest.raises(RunError):
        trainings.seeds(own, setup.folder / "digits", setup.seeds, setup.progress)
