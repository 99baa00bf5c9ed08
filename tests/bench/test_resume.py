"""Races that go on: what is kept is not raced again, and what is raced is kept as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from zeroskip.bench import SHORT, Case, Environments, RaceResult, RaceSetup, Store, race_rest
from zeroskip.concepts import Machine
from zeroskip.errors import EngineError, FileError

PLAIN = Machine("plain", "x86_64", frozenset(), 2, 16)
SETUP = RaceSetup(PLAIN, Environments(Path("nowhere")), SHORT)
LAYER, OTHER, NETWORK = Case("3x3_64_64_56", 0.9), Case("1x1_64_256_56", 0.9), Case("resnet20", 0.9)
Make = Callable[..., RaceResult]


class Races:
    """Stands in for `race`: keeps the groups of cases that it was asked for, and fails at a case that it is told."""

    def __init__(self, make: Make, fails_at: Case | None = None) -> None:
        self.make, self.fails_at, self.groups = make, fails_at, list[list[Case]]()

    def __call__(self, cases: Sequence[Case], setup: RaceSetup, **others: object) -> list[RaceResult]:
        assert setup is SETUP
        self.groups.append(list(cases))
        if self.fails_at in cases:
            raise EngineError("the machine went away")
        return [self.make({"zeroskip fp32": (1.0,), "torch eager fp32": (2.0,)}, case) for case in cases]


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch, result: Make) -> Races:
    made = Races(result)
    monkeypatch.setattr("zeroskip.bench.rounds.race", made)
    return made


def test_results_come_in_the_order_of_the_cases_whatever_was_kept(
    tmp_path: Path, races: Races, result: Make
) -> None:
    store = Store(tmp_path / "results.json", "plain")
    store.add([result({"zeroskip fp32": (9.0,)}, OTHER)])
    found = race_rest([LAYER, OTHER, NETWORK], SETUP, store)
    assert [one.case for one in found] == [LAYER, OTHER, NETWORK]
    assert found[1].seconds == {"zeroskip fp32": (9.0,)}
    assert races.groups == [[LAYER], [NETWORK]]
    assert {one.case for one in store.load()} == {LAYER, OTHER, NETWORK}


def test_what_is_there_is_raced_again_where_it_shall_be_fresh(
    tmp_path: Path, races: Races, result: Make
) -> None:
    store = Store(tmp_path / "results.json", "plain")
    store.add([result({"zeroskip fp32": (9.0,)}, LAYER), result({"zeroskip fp32": (8.0,)}, OTHER)])
    (found,) = race_rest([LAYER], SETUP, store, fresh=True)
    assert found.seconds["zeroskip fp32"] == (1.0,)
    kept = {one.case: one.seconds["zeroskip fp32"] for one in store.load()}
    assert kept == {LAYER: (1.0,), OTHER: (8.0,)}


def test_a_case_that_no_engine_finished_is_raced_again(tmp_path: Path, races: Races, result: Make) -> None:
    store = Store(tmp_path / "results.json", "plain")
    store.add([result({}, LAYER, zeroskip_fp32="its process ended with status 9")])
    race_rest([LAYER], SETUP, store)
    assert races.groups == [[LAYER]]


def test_a_race_that_breaks_off_keeps_what_it_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: Make
) -> None:
    store = Store(tmp_path / "results.json", "plain")
    breaking = Races(result, fails_at=NETWORK)
    monkeypatch.setattr("zeroskip.bench.rounds.race", breaking)
    with pytest.raises(EngineError):
        race_rest([LAYER, OTHER, NETWORK], SETUP, store)
    again = Races(result)
    monkeypatch.setattr("zeroskip.bench.rounds.race", again)
    assert len(race_rest([LAYER, OTHER, NETWORK], SETUP, store)) == 3
    assert again.groups == [[NETWORK]]


def test_cases_of_one_network_and_number_of_threads_share_their_processes(
    tmp_path: Path, races: Races
) -> None:
    more = [replace(LAYER, sparsity=sparsity) for sparsity in (0.8, 0.9)]
    on_two = replace(LAYER, threads=2)
    race_rest([*more, on_two, OTHER], SETUP, Store(tmp_path / "results.json", "plain"))
    assert races.groups == [more, [on_two], [OTHER]]


def test_layers_with_sparse_inputs_share_their_processes_and_those_of_a_trained_network_too(
    tmp_path: Path, races: Races
) -> None:
    small = [Case(name, 0.0, input_sparsity=0.9) for name in ("LeNet Conv2", "Inception4a.2")]
    trained = [Case(f"ResNet-20/layer{place}", 0.0, input_sparsity=0.5) for place in (1, 2)]
    race_rest([*small, *trained], SETUP, Store(tmp_path / "results.json", "plain"))
    assert races.groups == [small, trained]


def test_without_a_store_all_cases_of_a_number_of_threads_are_one_race(races: Races) -> None:
    on_two = replace(LAYER, threads=2)
    race_rest([LAYER, OTHER, NETWORK, on_two], SETUP, Store(None, "plain"))
    assert races.groups == [[LAYER, OTHER, NETWORK], [on_two]]


def test_progress_counts_cases_those_that_were_kept_among_them(
    tmp_path: Path, races: Races, result: Make
) -> None:
    store = Store(tmp_path / "results.json", "plain")
    store.add([result({"zeroskip fp32": (9.0,)}, LAYER)])
    seen: list[tuple[str, int, int]] = []
    race_rest([LAYER, OTHER, NETWORK], SETUP, store, progress=lambda *step: seen.append(step))
    assert seen == [("cases", 2, 3), ("cases", 3, 3)]


def test_nothing_is_raced_where_the_file_is_another_machine_s(
    tmp_path: Path, races: Races, result: Make
) -> None:
    Store(tmp_path / "results.json", "another").add([result({"zeroskip fp32": (9.0,)}, LAYER)])
    with pytest.raises(FileError, match="measured on another, and this is plain"):
        race_rest([LAYER], SETUP, Store(tmp_path / "results.json", "plain"))
    assert races.groups == []


def test_no_cases_are_no_race(races: Races) -> None:
    assert race_rest([], SETUP, Store(None, "plain")) == []
    assert races.groups == []
