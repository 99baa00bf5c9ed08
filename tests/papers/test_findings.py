"""Findings from JSON: what fits is read whole; what does not is one sentence, whatever part of a file is damaged."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zeroskip.errors import FileError
from zeroskip.papers import PAPERS, PaperResult, committed, measured_networks, named, rows, store
from zeroskip.papers.common.findings import read

RESULTS = {f"{result.paper}, {result.network}": result for result in committed()}


@dataclass(frozen=True)
class Layer:
    name: str
    share: float
    counts: tuple[int, ...] = ()
    around: tuple[float, float] | None = None


@dataclass(frozen=True)
class Network:
    layers: Mapping[str, Layer]
    by_bits: Mapping[int, float]


LAYER = {"name": "fc1", "share": 1, "counts": [1, 2], "around": [0.5, 1], "unknown": {}}


def test_a_noun_is_read_with_the_nouns_in_it_and_keys_that_are_numbers() -> None:
    whole = read(Network, {"layers": {"a": LAYER}, "by_bits": {"8": 0.5}})
    assert whole == Network({"a": Layer("fc1", 1.0, (1, 2), (0.5, 1.0))}, {8: 0.5})
    assert isinstance(whole.layers["a"].share, float)


def test_what_has_a_default_may_be_absent_and_none_where_none_is_meant() -> None:
    assert read(Layer, {"name": "fc1", "share": 0.5}) == Layer("fc1", 0.5)
    assert read(Layer, {"name": "fc1", "share": 0.5, "around": None}).around is None


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ({"share": "0.5"}, r'\["share"\] is "0.5", not a number'),
        ({"share": True}, r'\["share"\] is True, not a number'),
        ({"share": None}, r'\["share"\] is None, not a number'),
        ({"name": 1}, r'\["name"\] is 1, not a text'),
        ({"counts": [1, 2.5]}, r'\["counts"\]\[1\] is 2.5, not a whole number'),
        ({"counts": 3}, r'\["counts"\] is 3, not a list'),
        ({"counts": "12"}, r'\["counts"\] is "12", not a list'),
        ({"around": [1, 2, 3]}, r'\["around"\] is \[1, 2, 3\], not a list of 2'),
    ],
)
def test_the_place_of_what_has_another_form_is_named(damage: dict[str, object], sentence: str) -> None:
    with pytest.raises(FileError, match=sentence):
        read(Layer, {**LAYER, **damage})


def test_a_missing_key_an_object_that_is_none_and_a_key_that_is_no_number_are_named() -> None:
    with pytest.raises(FileError, match='the object lacks "name"'):
        read(Layer, {"share": 1.0})
    with pytest.raises(FileError, match=r"it is \[1\], not an object"):
        read(Layer, [1])
    with pytest.raises(FileError, match=r'a key of \["by_bits"\] is "wide", not a number'):
        read(Network, {"layers": {}, "by_bits": {"wide": 1}})


@given(st.dictionaries(st.text(), st.lists(st.floats(allow_nan=False, allow_infinity=False))))
def test_what_json_writes_is_what_is_read(values: dict[str, list[float]]) -> None:
    stored = json.loads(json.dumps(values))
    assert read(dict[str, tuple[float, ...]], stored) == {key: tuple(row) for key, row in values.items()}


# --- every result that comes with zeroskip


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The place of every part of a JSON value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from places(part, (*path, key))


def damaged(result: PaperResult, place: tuple[str | int, ...], new: object) -> PaperResult:
    """The result with another value at that place; without it where `new` is ..."""
    findings: Any = copy.deepcopy(dict(result.findings))
    *way, last = place
    part = findings
    for key in way:
        part = part[key]
    if new is ...:
        del part[last]
    else:
        part[last] = new
    return replace(result, findings=findings)


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_that_comes_with_zeroskip_gives_rows_that_are_measured(name: str) -> None:
    result = RESULTS[name]
    listed = named(result.paper).measured_rows(result.network, result.findings)
    waiting = named(result.paper).measured_rows(result.network, {})
    measured = [row for row in listed if row.ours is not None]
    assert len(measured) > len(listed) / 2
    assert all(row.network == result.network and row.paper == result.paper for row in listed)
    assert all(row.holds is None and row.reason for row in waiting)


@pytest.mark.parametrize("name", RESULTS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_part_of_a_result_deleted_or_of_another_type_is_refused_in_one_sentence_or_not_needed(
    name: str, data: st.DataObject
) -> None:
    result = RESULTS[name]
    place = data.draw(st.sampled_from(list(places(result.findings))))
    new = data.draw(st.sampled_from([..., None, "a text", -1, 0, True, [], {}, [[]], {"a": {}}, 1e400]))
    broken = damaged(result, place, new)
    try:
        listed = rows([named(result.paper)], networks=[result.network], results=[broken])
        measured_networks(listed, [broken])
    except FileError as fact:
        sentence = str(fact)
        assert sentence.startswith(f"the findings of {result.network} for {result.paper} are damaged")
        assert sentence.endswith("Delete their file and measure again.")
        assert "\n" not in sentence


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
@pytest.mark.parametrize(
    "findings", [{"layers": 1, "cycles": 1, "table8": 1, "errors": 1, "removed": 1, "wiki-Vote": 1}]
)
def test_findings_of_another_form_are_refused_for_every_paper_that_measures(
    paper: Any, findings: Any
) -> None:
    for network in paper.measure:
        result = PaperResult(paper.name, network, "2026-01-31", "M", "c", 1, findings)
        with pytest.raises(FileError, match=f"findings of {network} for {paper.name} are damaged"):
            rows([paper], networks=[network], results=[result])


def test_a_stored_result_is_read_back_with_the_same_rows(tmp_path: Any) -> None:
    for result in RESULTS.values():
        path = store(tmp_path, result)
        assert json.loads(path.read_text())["findings"] == result.findings
