"""What compiling measured, as JSON, and as a table of a described computer."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from zeroskip.concepts import Choice, Machine
from zeroskip.errors import EngineError
from zeroskip.run.measurement import Measurement, Unreached, from_json, table, to_json

SECONDS = {"dense": 15.4e-6, "sell": 6.1e-6, "spmm": 10.9e-6}
REFUSED = {
    "channels_last": "a layout of images, and linear has none",
    "gather": "computes convolutions, not linear",
}
FC1 = Choice("fc1", "linear", (300, 784), 0.92, "sell", SECONDS, REFUSED, "fastest", 0.0, "weights")
FC2 = Choice("fc2", "linear", (10, 300), 0.0, "dense", {"dense": 3e-6}, REFUSED, "fastest", 0.0, "nothing")
MEASURED = Measurement((FC1, FC2), "fp32, int8 weights", 2, 64, 1.5e-3, 9.99e-4, 0.004)
LONG = Machine("A processor (R) whose name is " + "long, " * 20 + "@ 2.00GHz", "x86_64", frozenset(), 64, 64)
SHORT = Machine("Zen", "x86_64", frozenset(), 2, 32)


def test_a_measurement_goes_through_json_unchanged() -> None:
    assert from_json(json.loads(json.dumps(to_json(MEASURED)))) == MEASURED


def test_files_of_before_do_not_say_what_a_kernel_skips() -> None:
    stored = json.loads(json.dumps(to_json(MEASURED)))
    for choice in stored["choices"]:
        del choice["skips"]
    assert [choice.skips for choice in from_json(stored).choices] == ["", ""]


def test_a_kernel_without_seconds_is_refused() -> None:
    stored = json.loads(json.dumps(to_json(MEASURED)))
    del stored["choices"][0]["seconds"]["sell"]
    with pytest.raises(EngineError, match='no seconds of "sell" are known for fc1'):
        from_json(stored)


def test_the_table_says_what_was_measured_on_how_many_threads() -> None:
    lines = table(MEASURED, SHORT, 2_500_000, ["flatten", "softmax"]).splitlines()
    assert lines[0].startswith(
        "Zen, 2 cores, 256-bit vectors; fp32, int8 weights, batch 64, 2 threads: 1.5 ms a call,"
    )
    assert lines[1] == "through torch: flatten, softmax; scratch 2.5 MB a call"
    assert lines[3].split() == ["fc1", "300x784", "92.0%", "sell", "6.1", "us", "15.4", "us",
                                "fastest;", "spmm", "10.9", "us", "[1,2]"]  # fmt: skip
    assert lines[5:] == [
        "[1] channels_last: a layout of images, and linear has none",
        "[2] gather: computes convolutions, not linear",
    ]


def test_the_table_names_weights_that_are_in_no_layer_with_their_reason() -> None:
    gates = [
        Unreached(f"lstm.weight_{which}", 500, 450, "lstm: no sparse kernel", "lstm")
        for which in ("ih_l0", "hh_l0", "ih_l1", "hh_l1")
    ]
    looked_up = Unreached("emb", 1600, 0, "its rows are looked up, not multiplied")
    lines = table(replace(MEASURED, unreached=(looked_up, *gates)), SHORT).splitlines()
    assert lines[4:6] == [
        "in no layer: emb, 1,600 weights: its rows are looked up, not multiplied",
        "in no layer: lstm.weight_ih_l0, lstm.weight_hh_l0 and 2 more, 2,000 weights: lstm: no sparse kernel",
    ]


def test_long_names_of_computers_are_folded_into_120_columns() -> None:
    lines = table(MEASURED, LONG).splitlines()
    assert all(len(line) <= 120 for line in lines)
    assert LONG.title in " ".join(" ".join(lines).split())
