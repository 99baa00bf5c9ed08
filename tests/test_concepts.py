"""What the nouns promise: timings are settled where intervals do not touch, summaries and recipes go through JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.concepts import Point, Recipe, Round, Summary, Timing

SECONDS = st.floats(1e-6, 1e-3)
INTERVALS = st.tuples(SECONDS, SECONDS).map(lambda ends: (min(ends), max(ends)))


def timing(ours: tuple[float, float], *dense: tuple[float, float]) -> Timing:
    spread = {"zeroskip": ours} | {f"engine {place}": ends for place, ends in enumerate(dense)}
    middle = {name: (low + high) / 2 for name, (low, high) in spread.items()}
    return Timing(middle, spread, {}, {}, 1, 1, "fp32", "M", 3, 9)


@given(INTERVALS, INTERVALS)
def test_a_comparison_is_settled_where_no_time_lies_in_both_spreads(
    ours: tuple[float, float], dense: tuple[float, float]
) -> None:
    common = max(ours[0], dense[0]) <= min(ours[1], dense[1])
    assert timing(ours, dense).settled is not common


@given(INTERVALS, st.lists(INTERVALS, min_size=1, max_size=4))
def test_the_fastest_dense_engine_is_the_one_that_counts(
    ours: tuple[float, float], dense: list[tuple[float, float]]
) -> None:
    compared = timing(ours, *dense)
    assert compared.dense_seconds == min(sum(ends) / 2 for ends in dense)
    assert compared.settled == compared.settled_against(compared.dense_engine)
    if compared.settled:  # then medians are ordered as the spreads are
        assert (compared.speedup > 1) == (ours[1] < compared.spread[compared.dense_engine][0])


def test_our_own_program_without_skipping_is_no_dense_engine() -> None:
    compared = timing((1e-6, 1e-6), (3e-6, 3e-6))
    seconds = compared.seconds | {"zeroskip, all dense": 2e-6}
    assert replace(compared, seconds=seconds).dense_engine == "engine 0"


def summary(**changes: object) -> Summary:
    figures = Summary(
        "tiny", 1, 0, "free", 0.01, None, None, 0.02, 0.03, 0.03, 0.03, 80, 44, 80 / 44, 368, 316, 368 / 316, 2e-5,
        1e-5, "torch eager", 1, 1, "fp32", "M", "validation", {},
    )  # fmt: skip
    return replace(figures, **changes)  # type: ignore[arg-type]


def test_a_summary_writes_null_for_what_was_not_asked_for_and_leaves_out_what_there_is_not() -> None:
    value = summary().to_json()
    assert (value["sparsity"], value["bits"], value["splits"]) == (None, None, {})
    assert not {"runs", "shown", "layers", "timings", "spread"} & set(value)


def test_the_spread_of_a_summary_is_that_of_its_first_timing() -> None:
    timings = timing((1e-6, 2e-6), (3e-6, 4e-6)), timing((5e-6, 6e-6), (7e-6, 8e-6))
    assert summary(timings=timings).to_json()["spread"] == timings[0].spread


def test_a_summary_of_several_seeds_holds_one_for_each() -> None:
    several = summary(seeds=2, shown="seed-1", runs=(summary(), summary(seed=1)))
    value = json.loads(json.dumps(several.to_json()))
    assert [run["seed"] for run in value["runs"]] == [0, 1]
    assert all("runs" not in run for run in value["runs"])


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe((Round(0.5), Round({"fc1": 0.9}, pattern={"fc1": "4x1"}, frozen=("fc2",))), 0.01, {"fc1": "why"}),
        Recipe((Round(quality={"fc1": 1.5}, penalty={"l2": 1e-4}, gradual=0.7, train={"epochs": 3}),)),
    ],
)  # fmt: skip
def test_a_recipe_comes_back_from_json_as_it_was(recipe: Recipe) -> None:
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_the_sparsity_of_a_point_is_the_share_of_weights_that_are_gone() -> None:
    assert [Point("round", kept, 8, 0.1, True).sparsity for kept in (8, 6, 0)] == [0.0, 0.25, 1.0]
