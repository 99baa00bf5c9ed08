"""What a race comes to: rows, their order, ratios, what is missing; and results as they are stored, old ones too."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.bench import (
    CASES,
    ENTRANTS,
    Case,
    RaceResult,
    Store,
    race_report,
    ratios,
    rows,
    worst_first,
)
from zeroskip.errors import FileError

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
Make = Callable[..., RaceResult]
TIMES = st.floats(1e-6, 1.0)


def a_result(theirs: float, ours: float, case: Case = CASES[0]) -> RaceResult:
    seconds = {"DeepSparse fp32": (theirs,), "zeroskip fp32": (ours,)}
    return RaceResult(case, seconds, dict.fromkeys(seconds, 0.0), {}, {}, 1, 1, "2026-01-02")


@given(st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=9))
def test_ratios_are_of_each_case_and_their_mean_is_geometric(times: list[tuple[float, float]]) -> None:
    table = [row for theirs, ours in times for row in rows(a_result(theirs, ours))]
    (engine,) = ratios(table)
    assert engine.engine == "DeepSparse fp32"
    assert engine.values == tuple(pytest.approx(theirs / ours) for theirs, ours in times)
    assert math.log(engine.mean) == pytest.approx(
        sum(math.log(theirs / ours) for theirs, ours in times) / len(times), abs=1e-9
    )
    assert engine.losses == sum(theirs < ours for theirs, ours in times)


def test_engines_are_ordered_by_their_mean_and_ours_is_none_of_them(result: Make) -> None:
    seconds = {
        "torch eager fp32": (3.0,),
        "OpenVINO fp32": (2.0,),
        "zeroskip fp32": (1.0,),
        "zeroskip fp16": (0.5,),
    }
    found = ratios(rows(result(seconds)))
    assert [engine.engine for engine in found] == ["OpenVINO fp32", "torch eager fp32"]


@given(st.lists(st.tuples(TIMES, TIMES), max_size=9))
def test_the_rows_where_we_lose_most_stand_first_and_those_without_a_ratio_last(
    times: list[tuple[float, float]],
) -> None:
    table = [row for theirs, ours in times for row in rows(a_result(theirs, ours))]
    alone = RaceResult(
        CASES[0], {"DeepSparse fp32": (1.0,)}, {"DeepSparse fp32": 0.0}, {}, {}, 1, 1, "2026-01-02"
    )
    ordered = worst_first([*rows(alone), *table])
    assert ordered[-1].speedup is None
    speedups = [row.speedup for row in ordered[:-1]]
    assert speedups == sorted(speedups)


def test_a_report_names_the_last_date_the_fewest_runs_and_all_versions(result: Make) -> None:
    first = result({"zeroskip fp32": (1.0,)}, OpenVINO_bf16="this CPU lacks it")
    later = RaceResult(
        CASES[1], {"zeroskip fp32": (1.0,)}, {"zeroskip fp32": 0.0}, {}, {"numpy": "2"}, 1, 5, "2027-01-01"
    )
    report = race_report([first, later], "a machine", 12.5)
    assert (report.date, report.runs, report.rounds) == ("2027-01-01", 1, 5)
    assert report.versions == {"torch": "2", "numpy": "2"}
    assert (report.machine, report.seconds) == ("a machine", 12.5)
    (missing,) = report.missing
    assert (missing.case, missing.engine, missing.reason) == (
        first.case.key,
        "OpenVINO bf16",
        "this CPU lacks it",
    )
    assert [row.case for row in report.rows] == [first.case.network, CASES[1].network]


def test_a_report_is_plain_json(result: Make) -> None:
    report = race_report([result({"torch eager fp32": (2.0,), "zeroskip fp32": (1.0,)})], "a machine", 1.0)
    again = json.loads(json.dumps(report.to_json()))
    assert again["rows"][0] == asdict(report.rows[0])
    assert list(again) == ["machine", "versions", "date", "seconds", "runs", "rounds", "rows", "missing"]


# --- whose time is compared with whose


@pytest.mark.parametrize(
    ("ours", "against"),
    [
        ({"bf16 weights": 3.0, "fp32": 4.0}, "bf16 weights"),
        ({"fp16": 2.0, "bf16 weights": 3.0, "fp32": 4.0}, "fp16"),
        ({"fp32": 4.0}, "fp32"),
        ({}, None),
    ],
)
def test_a_peer_in_bf16_is_judged_by_our_fewest_bits(
    ours: dict[str, float], against: str | None, result: Make
) -> None:
    seconds = {"torch eager bf16": (6.0,)} | {f"zeroskip {name}": (time,) for name, time in ours.items()}
    (row,) = [row for row in rows(result(seconds)) if row.engine == "torch eager"]
    assert row.against == against
    assert row.speedup == (6.0 / ours[against] if against else None)


def test_our_own_rows_are_compared_with_themselves(result: Make) -> None:
    found = rows(result({"zeroskip fp32": (3.0,), "zeroskip fp16": (1.5,)}))
    assert [(row.precision, row.speedup, row.against) for row in found] == [
        ("fp32", 1.0, "fp32"),
        ("fp16", 1.0, "fp16"),
    ]


def test_8_bit_engines_are_judged_by_fp32_unless_weights_may_have_8_bits(result: Make) -> None:
    seconds = {"OpenVINO int8": (4.0,), "zeroskip fp32": (2.0,), "zeroskip int8 weights": (1.0,)}
    by_fp32 = {row.engine: row for row in rows(result(seconds))}["OpenVINO"]
    assert (by_fp32.against, by_fp32.speedup) == ("fp32", 2.0)
    small = Case("alexnet_fc7", 0.91, weights="int8", cold=True)
    by_int8 = {row.engine: row for row in rows(result(seconds, small))}["OpenVINO"]
    assert (by_int8.against, by_int8.speedup) == ("int8 weights", 4.0)


# --- what is stored


def test_an_engine_that_is_no_longer_raced_is_named_with_those_that_are(result: Make) -> None:
    with pytest.raises(
        FileError, match=r'the engine "TVM fp32", which this zeroskip does not race: torch eager fp32'
    ):
        rows(result({"TVM fp32": (1.0,), "zeroskip fp32": (1.0,)}))


def test_an_engine_that_is_no_longer_raced_is_one_sentence_on_the_terminal(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, result: Make
) -> None:
    from zeroskip.emit import detect

    monkeypatch.setattr("zeroskip.cli.bench._file", lambda *words: tmp_path / "results.json")
    case = next(case for case in CASES if case.network == "vgg16")
    Store(tmp_path / "results.json", detect().title).add([result({"TVM fp32": (1.0,)}, case)])
    status, out, err = call("bench", "--case", "vgg16", "--precision", "fp32", "--out", tmp_path)
    assert (status, out) == (1, "")
    assert '"TVM fp32"' in err
    assert "--fresh" in err


@given(
    st.builds(
        Case,
        st.text(min_size=1, max_size=9),
        st.floats(0, 1),
        st.integers(1, 64),
        st.integers(1, 8),
        cold=st.booleans(),
        input_sparsity=st.floats(0, 1),
        precision=st.sampled_from(["fp32", "int8"]),
        clock=st.sampled_from(["wall", "cpu"]),
    ),
    st.dictionaries(
        st.sampled_from([entrant.label for entrant in ENTRANTS]), st.lists(TIMES, min_size=1, max_size=3)
    ),
)
def test_results_go_through_json(case: Case, seconds: dict[str, list[float]]) -> None:
    times = {label: tuple(values) for label, values in seconds.items()}
    made = RaceResult(
        case, times, dict.fromkeys(times, 1e-7), {"x": "absent"}, {"torch": "2"}, 3, 9, "2026-01-02"
    )
    assert RaceResult.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_a_case_of_an_older_zeroskip_is_read() -> None:
    old = {
        "network": "vgg16",
        "sparsity": 0.9,
        "batch": 1,
        "threads": 1,
        "weights": "fp32",
        "cold": False,
        "needs": [],
    }
    assert Case.from_json(old) == Case("vgg16", 0.9)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_stored_result_is_read_and_makes_rows(path: Path) -> None:
    machine = json.loads(path.read_text())["machine"]
    results = Store(path, machine).load()
    report = race_report(results, machine, 0.0)
    assert len({result.case.key for result in results}) == len(results)
    assert len(report.rows) == sum(len(result.seconds) for result in results) > 0
    for row in report.rows:
        assert 0 < row.seconds_low <= row.seconds <= row.seconds_high
        assert 0 <= row.difference < 0.1
    assert any(row.engine == "zeroskip" for row in report.rows)


@pytest.mark.parametrize(
    "content",
    ['{"machine": "one", "cases": [{}]}', '{"machine": "one", "cases": [{"case": {}, "seconds": {}}]}',
     '{"machine": "one", "cases": [{"case": {"network": "n", "sparsity": 0.5}, "seconds": 5}]}', '{"cases": []}'],
)  # fmt: skip
def test_a_file_with_cases_that_are_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(FileError, match="holds no results"):
        Store(tmp_path / "results.json", "one").load()
