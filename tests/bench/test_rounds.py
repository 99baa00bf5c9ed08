"""The race itself: who is measured, who is missing and why."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.bench import (
    CASES,
    ENTRANTS,
    FULL,
    Case,
    Effort,
    Entrant,
    Environments,
    RaceSetup,
    entrants,
    race,
)
from zeroskip.bench.engines import refusal
from zeroskip.bench.rounds import difference
from zeroskip.concepts import Machine
from zeroskip.emit import detect

FAKE = str(Path(__file__).parent / "fake_engine.py")
CASE = Case("1x1_2048_512_7", 0.95)
PLAIN = Machine("plain", "x86_64", frozenset(), 1, 16)
BEHAVIOURS = ("good", "wrong", "short", "nan", "dies", "sleeps", "refuses", "absent")


class Fakes(Environments):
    """Every engine is a script that behaves as its word says."""

    def python(self, word: str) -> Path:
        return Path(sys.executable)

    def command(self, word: str, threads: int) -> list[str]:
        return [sys.executable, FAKE, word]


FAKES = Fakes(Path("nowhere"))


def engine(word: str) -> Entrant:
    return next(one for one in ENTRANTS if one.word == word)


def made(*behaviours: str) -> tuple[Entrant, ...]:
    return tuple(Entrant(word, "fp32", word, 1e-3) for word in behaviours)


def test_engines_that_fail_are_missing_with_the_reason_and_the_others_are_measured() -> None:
    effort = Effort(runs=2, rounds=2, slot=0.0, limit=2.0)
    (result,) = race([CASE], RaceSetup(PLAIN, FAKES, effort, made(*BEHAVIOURS)))
    assert result.seconds == {"good fp32": (2e-3, 2e-3)}
    assert result.difference == {"good fp32": 0.0}
    assert "differs from torch eager's by 0.25 of the largest output" in result.missing["wrong fp32"]
    assert "by inf" in result.missing["short fp32"]
    assert "by inf" in result.missing["nan fp32"]
    assert "status 3: segmentation fault" in result.missing["dies fp32"]
    assert "no answer within 2 seconds" in result.missing["sleeps fp32"]
    assert "cannot compile" in result.missing["refuses fp32"]
    assert "No module named 'rival'" in result.missing["absent fp32"]
    assert result.versions["good"] == "1.0"


@pytest.mark.parametrize(("behaviour", "reason"), [("dies", "status 3"), ("absent", "No module named")])
def test_an_engine_that_failed_in_one_case_is_started_again_for_the_next(behaviour: str, reason: str) -> None:
    cases = [CASE, replace(CASE, sparsity=0.9)]
    results = race(cases, RaceSetup(PLAIN, FAKES, Effort(runs=1, rounds=1, slot=0.0), made(behaviour)))
    assert [reason in result.missing[f"{behaviour} fp32"] for result in results] == [True, True]


def test_a_network_that_cannot_be_made_leaves_every_engine_missing() -> None:
    class Broken(Fakes):
        def command(self, word: str, threads: int) -> list[str]:
            return super().command("refuses" if word == "reference" else word, threads)

    effort = Effort(runs=1, rounds=1, slot=0.0)
    (result,) = race([CASE], RaceSetup(PLAIN, Broken(Path("nowhere")), effort, made("good")))
    assert result.seconds == {}
    assert "network itself cannot be made: ValueError: cannot compile" in result.missing["good fp32"]


@pytest.mark.slow
def test_torch_and_zeroskip_race_on_a_real_layer(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    effort, engines = Effort(runs=1, rounds=2, slot=0.0), (engine("torch-fp32"), engine("zeroskip-fp32"))
    setup = RaceSetup(detect(), Environments(tmp_path), effort, engines)
    (result,) = race([CASE], setup, progress=lambda what, done, total: seen.append((done, total)))
    assert result.missing == {}
    assert set(result.seconds) == {"torch eager fp32", "zeroskip fp32"}
    assert all(seconds > 0 for runs in result.seconds.values() for seconds in runs)
    assert max(result.difference.values()) < 1e-5
    assert {"torch", "zeroskip"} <= set(result.versions)
    assert seen[-1] == (1, 1)


@pytest.mark.parametrize(
    ("word", "case", "reason"),
    [
        ("openvino-bf16", CASE, "avx512bf16 or amx-bf16"),
        ("zeroskip-fp16", CASE, "where the CPU computes in it (avx512fp16), and this one does not"),
        ("deepsparse", CASE, "`make bench` makes the environment"),
        ("torch-fp32", replace(CASE, threads=2), "2 cores, and this machine has 1"),
    ],
)
def test_what_a_plain_machine_cannot_do_is_said_beforehand(
    word: str, case: Case, reason: str, tmp_path: Path
) -> None:
    assert reason in (refusal(engine(word), case, PLAIN, Environments(tmp_path)) or "")


def test_a_machine_that_has_everything_refuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    features = frozenset({"avx512bf16", "amx-bf16", "avx512fp16"})
    rich, environments = Machine("rich", "x86_64", features, 2, 64), Fakes(tmp_path)
    assert {refusal(one, case, rich, environments) for case in CASES for one in entrants(case)} == {None}


def test_without_a_compiler_torch_compile_is_named_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "C++ compiler" in (refusal(engine("compile-fp32"), CASE, PLAIN, Environments(tmp_path)) or "")


def test_8_bit_weights_race_on_fully_connected_layers_and_dynamic_engines_on_an_lstm_and_tokens_too() -> None:
    for case in CASES:
        words = {one.word for one in entrants(case)}
        assert ("zeroskip-int8" in words) == ("fc" in case.network)
        dynamic = {"torch-int8", "onnxruntime-int8"} & words
        if case.is_transformer:
            assert dynamic == ({"onnxruntime-int8"} if case.in_int8 else set())
        else:
            assert len(dynamic) == (2 if "fc" in case.network or case.network == "lstm" else 0)


@pytest.mark.slow  # races of the other precisions are in the short form
def test_fp16_races_wherever_there_are_convolutions_and_its_answer_is_near() -> None:
    for case in CASES:
        words = {one.word for one in entrants(case)}
        fp16 = "fc" not in case.network and case.network != "lstm" and not case.in_int8
        assert ("zeroskip-fp16" in words) == fp16
    effort = Effort(runs=1, rounds=1, slot=0.0)
    able = replace(detect(), features=detect().features | {"avx512fp16"})
    setup = RaceSetup(able, Environments(Path("nowhere")), effort, (engine("zeroskip-fp16"),))
    (result,) = race([CASE], setup)
    assert result.missing == {}
    assert result.difference["zeroskip fp16"] < 5e-3


def test_the_peers_run_in_their_environment_where_there_is_one(tmp_path: Path) -> None:
    environments = Environments(tmp_path)
    assert environments.command("torch-fp32", 2)[0] == sys.executable
    python = tmp_path / "peers" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert environments.command("torch-fp32", 2)[0] == str(python)
    assert environments.command("deepsparse", 2)[0] == str(tmp_path / "deepsparse" / "bin" / "python")


@pytest.mark.parametrize(
    ("answer", "far"), [([1.0, 4.0], 0.0), ([1.0, 2.0], 0.5), ([1.0], np.inf), ([np.nan, 4.0], np.inf)]
)
def test_difference_is_a_share_of_the_largest_value(answer: list[float], far: float) -> None:
    assert difference(np.array(answer), np.array([1.0, 4.0])) == far


def test_the_full_race_is_3_runs_of_9_rounds() -> None:
    assert (FULL.runs, FULL.rounds) == (3, 9)


# --- turns


class Turns:
    """Workers that are none: they write down who did what, and answer at once."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []

    def start(self, command: list[str], log: Path, **how: object) -> _Fake:
        self.done.append(("start", command[-1]))
        return _Fake(command[-1], self.done)


class _Fake:
    alive = True

    def __init__(self, word: str, done: list[tuple[str, str]]) -> None:
        self.word, self.done = word, done

    def ready(self) -> dict[str, str]:
        return {self.word: "1"}

    def build(self, folder: Path, case: object) -> float | None:
        assert folder.is_dir()
        (folder / "made").touch()
        self.done.append(("build", self.word))
        return None if self.word == "on tiles" else 0.25

    def answer(self) -> np.ndarray:
        return np.ones(3, np.float32)

    def time(self, seconds: float, *, cold: bool, clock: str) -> list[float]:
        self.done.append((f"time {seconds} {cold} {clock}", self.word))
        return [1.0, 3.0, 2.0]

    def close(self) -> None:
        self.done.append(("close", self.word))


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    made = Turns()
    monkeypatch.setattr("zeroskip.bench.rounds.WorkerProcess", made.start)
    return made


def test_in_every_round_each_engine_has_a_turn_and_another_begins(turns: Turns) -> None:
    effort = Effort(runs=1, rounds=4, slot=0.5)
    race([CASE], RaceSetup(PLAIN, FAKES, effort, made("a", "b", "c")))
    order = [word for what, word in turns.done if what == "time 0.5 False wall"]
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b", "a", "b", "c"]


def test_the_seconds_of_a_run_are_the_median_of_its_rounds_of_the_median_call(turns: Turns) -> None:
    (result,) = race([CASE], RaceSetup(PLAIN, FAKES, Effort(runs=3, rounds=2, slot=0.0), made("a")))
    assert result.seconds == {"a fp32": (2.0, 2.0, 2.0)}
    assert (result.runs, result.rounds) == (3, 2)
    assert result.versions == {"a": "1", "reference": "1"}


def test_of_each_run_the_99th_percentile_of_all_calls_and_the_first_call_are_kept(turns: Turns) -> None:
    (result,) = race(
        [CASE], RaceSetup(PLAIN, FAKES, Effort(runs=2, rounds=9, slot=0.0), made("a", "on tiles"))
    )
    assert result.slowest["a fp32"] == (3.0, 3.0)
    assert result.first_call == {"a fp32": (0.25, 0.25)}


def test_an_engine_that_is_slower_than_what_it_replaces_has_no_figure(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Entrant("slow", "int8", "slow", 0.1, must_beat="a fp32")
    times = {"a": [1.0], "slow": [2.0]}
    monkeypatch.setattr(_Fake, "time", lambda self, *args, **how: times[self.word])
    setup = RaceSetup(PLAIN, FAKES, Effort(runs=1, rounds=1, slot=0.0), (*made("a"), slow))
    (result,) = race([CASE], setup)
    assert set(result.seconds) == set(result.difference) == set(result.slowest) == {"a fp32"}
    assert result.missing == {"slow int8": "it takes 2.00 times as long as a fp32"}
    times["slow"] = [0.5]
    assert set(race([CASE], setup)[0].seconds) == {"a fp32", "slow int8"}


def test_what_is_quantised_in_the_first_run_is_there_in_the_next(
    turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[bool] = []
    plain = _Fake.build

    def build(self: _Fake, folder: Path, case: object) -> float | None:
        there.append((folder / "made").exists())
        return plain(self, folder, case)

    monkeypatch.setattr(_Fake, "build", build)
    for case, kept in (
        (CASE, [False, True] * 2),
        (replace(CASE, precision="int8"), [False, True, True, True]),
    ):
        race([case], RaceSetup(PLAIN, FAKES, Effort(runs=2, rounds=1, slot=0.0), made("a")))
        assert there == kept
        there.clear()


def test_every_run_starts_each_engine_anew_and_ends_it(turns: Turns) -> None:
    race([CASE], RaceSetup(PLAIN, FAKES, Effort(runs=2, rounds=1, slot=0.0), made("a", "b")))
    for word in ("reference", "a", "b"):
        assert [what for what, who in turns.done if who == word and what in ("start", "close")] == [
            "start", "close", "start", "close",
        ]  # fmt: skip


def test_cases_of_one_race_share_the_processes_and_not_the_networks(turns: Turns) -> None:
    cases = [CASE, replace(CASE, sparsity=0.9)]
    race(cases, RaceSetup(PLAIN, FAKES, Effort(runs=1, rounds=1, slot=0.0), made("a")))
    assert turns.done.count(("start", "a")) == 1
    assert turns.done.count(("build", "a")) == 2


def test_a_cold_case_on_the_cpu_s_clock_is_timed_so(turns: Turns) -> None:
    case = replace(CASE, cold=True, clock="cpu")
    race([case], RaceSetup(PLAIN, FAKES, Effort(runs=1, rounds=1, slot=0.25), made("a")))
    assert ("time 0.25 True cpu", "a") in turns.done


def test_an_engine_that_is_refused_is_never_started(turns: Turns) -> None:
    on_two = replace(CASE, threads=2)
    (result,) = race([on_two], RaceSetup(PLAIN, FAKES, Effort(runs=1, rounds=1, slot=0.0), made("a")))
    assert turns.done == []
    assert result.missing == {"a fp32": "the case needs 2 cores, and this machine has 1"}
    assert result.seconds == {}


def test_progress_reaches_all_runs_of_all_cases(turns: Turns) -> None:
    seen: list[tuple[str, int, int]] = []
    cases = [CASE, Case("vgg16", 0.9)]
    setup = RaceSetup(PLAIN, FAKES, Effort(runs=2, rounds=1, slot=0.0), made("a"))
    race(cases, setup, progress=lambda *step: seen.append(step))
    assert seen == [("1x1_2048_512_7, vgg16", done, 4) for done in range(5)]


# --- answers compared

VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=9)


@given(VALUES)
def test_an_answer_does_not_differ_from_itself_whatever_its_shape(values: list[float]) -> None:
    answer = np.array(values)
    assert difference(answer, answer[None, :, None]) == 0.0


@given(VALUES, st.floats(1e-6, 10))
def test_a_difference_is_the_largest_gap_over_the_largest_value(values: list[float], gap: float) -> None:
    expected = np.array([*values, 128.0])
    answer = expected.copy()
    answer[0] += gap
    assert difference(answer, expected) == pytest.approx(gap / 128.0, rel=1e-6, abs=1e-12)


@given(VALUES, st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_value_that_is_no_number_makes_a_difference_infinite(values: list[float], odd: float) -> None:
    answer = np.array([*values, odd])
    assert difference(answer, np.ones(len(answer))) == np.inf


def test_zeros_that_are_expected_and_given_do_not_differ() -> None:
    assert difference(np.zeros(4), np.zeros(4)) == 0.0
    assert difference(np.ones(4), np.zeros(4)) > 1e6
