"""Plans and schedules: closed forms, and that sensitive layers lose less."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip import prune
from zeroskip.concepts import Histogram, LayerProfile, Profile, Recipe
from zeroskip.errors import PatternError, RecipeError
from zeroskip.prune import schedules


def layer(name: str, shape: tuple[int, int], sensitivity: dict[float, float]) -> LayerProfile:
    weights = shape[0] * shape[1]
    return LayerProfile(
        name, "linear", shape, (shape[1],), (shape[0],), weights, weights, 4 * weights, 0.0, 1.0,
        Histogram((0.0, 1.0), (weights,)), 0.0, 0.0, (), (), sensitivity,
    )  # fmt: skip


ROBUST = layer("robust", (100, 100), {0.5: 0.02, 0.9: 0.03, 0.98: 0.3})
TENDER = layer("tender", (50, 40), {0.5: 0.10, 0.9: 0.60, 0.98: 0.9})
PROFILE = Profile((ROBUST, TENDER), error=0.02)


@given(st.floats(0.0, 0.97))
def test_the_shares_of_all_layers_add_up_to_what_was_asked(sparsity: float) -> None:
    shares = prune.allocate(PROFILE.layers, sparsity)
    pruned = sum(shares[one.name] * one.weights for one in PROFILE.layers)
    assert pruned == pytest.approx(sparsity * 12_000, abs=0.01)


def test_the_layer_that_minds_less_loses_more() -> None:
    shares = prune.allocate(PROFILE.layers, 0.8)
    assert shares["robust"] > 0.85 > shares["tender"]


def test_layers_that_mind_alike_lose_alike() -> None:
    flat = [layer(name, (20, 20), {0.5: 0.02, 0.98: 0.02}) for name in "ab"]
    shares = prune.allocate(flat, 0.7)
    assert shares["a"] == shares["b"] == pytest.approx(0.7)


def test_no_layer_is_emptied_while_another_still_has_weights() -> None:
    shares = prune.allocate(PROFILE.layers, 0.9999)
    assert shares == {"robust": 0.99, "tender": 1 - 50 / 2000}  # one weight per output stays


def test_a_plan_reaches_each_sparsity_it_was_given_and_says_why() -> None:
    recipe = prune.plan(PROFILE, sparsities=(0.5, 0.9))
    totals = [
        sum(one.sparsity[part.name] * part.weights for part in PROFILE.layers) / 12_000
        for one in recipe.rounds
    ]
    assert totals == pytest.approx([0.5, 0.9])
    assert "alone at 98% it takes the error from 0.02 to 0.9" in recipe.reasons["tender"]


def test_the_default_plan_multiplies_what_is_kept_by_0_7_each_round() -> None:
    rounds = prune.plan(PROFILE).rounds
    kept = [1 - sum(one.sparsity[p.name] * p.weights for p in PROFILE.layers) / 12_000 for one in rounds[:4]]
    assert kept == pytest.approx([0.7, 0.49, 0.343, 0.2401])


def test_a_pattern_that_does_not_fit_a_layer_leaves_it_dense() -> None:
    odd = layer("odd", (10, 6), {0.5: 0.02})
    with pytest.warns(UserWarning, match=r'pattern "2:4" does not fit them: "odd" \(10, 6\)'):
        recipe = prune.plan(Profile((ROBUST, odd), 0.02), pattern="2:4")
    assert [one.sparsity for one in recipe.rounds] == [{"robust": 0.5}]  # 2:4 fixes it: one round
    assert recipe.reasons["odd"] == (
        'stays dense: pattern "2:4" does not fit: 6 inputs cannot be split into groups of 4'
    )


def test_a_pattern_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(RecipeError, match='no layer of the network can take the pattern "1x1x3x3"'):
        prune.plan(PROFILE, pattern="1x1x3x3")
    with pytest.raises(PatternError, match="cannot be read"):
        prune.plan(PROFILE, pattern="nonsense")


def test_a_sparsity_that_the_pattern_does_not_have_or_no_layer_can_reach_is_refused() -> None:
    with pytest.raises(PatternError, match="fixes the sparsity at 0.5, not 0.9"):
        prune.plan(PROFILE, pattern="2:4", sparsities=(0.5, 0.9))
    with pytest.raises(
        RecipeError, match=r"99.90% of the weights cannot go: .* which leaves 98.75%. Ask for less"
    ):
        prune.plan(PROFILE, sparsities=(0.5, 0.999))


def test_rounds_end_where_there_is_nothing_left_to_prune() -> None:
    small = layer("small", (4, 8), {0.5: 0.1})
    assert [one.sparsity["small"] for one in prune.plan(Profile((small,), 0.1)).rounds][-1] < 7 / 8
    assert (
        len(prune.plan(Profile((small,), 0.1)).rounds) == 5
    )  # 0.7^5 of 32 weights is more than 4, 0.7^6 is less


def test_channels_of_the_last_layer_are_the_answers_and_stay() -> None:
    with pytest.warns(UserWarning, match='"tender"'):
        recipe = prune.plan(PROFILE, pattern="channel", sparsities=(0.5,))
    assert recipe.rounds[0].sparsity == {"robust": pytest.approx(0.5)}


def test_an_infinite_error_of_a_ruined_layer_is_the_worst_and_no_more() -> None:
    ruined = layer("ruined", (50, 40), {0.5: 0.1, 0.9: float("inf")})
    shares = prune.allocate([ROBUST, ruined], 0.8)
    assert shares["robust"] > shares["ruined"] > 0


@pytest.mark.parametrize("rise", [-0.1, float("nan"), float("inf")])
def test_an_impossible_budget_is_refused(rise: float) -> None:
    with pytest.raises(RecipeError, match="not a number from 0 up"):
        prune.plan(PROFILE, max_error_rise=rise)


def test_a_recipe_survives_json() -> None:
    recipe = prune.plan(PROFILE, sparsities=(0.5, 0.9))
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_schedules_are_their_closed_forms() -> None:
    assert schedules.one_shot(0.9) == (0.9,)
    assert schedules.linear(0.9, 3) == pytest.approx((0.3, 0.6, 0.9))
    assert schedules.cubic(0.8, 4) == pytest.approx([0.8 * (1 - (1 - t / 4) ** 3) for t in (1, 2, 3, 4)])
    assert schedules.geometric(0.7, 3) == pytest.approx((0.3, 0.51, 0.657))


@pytest.mark.parametrize(
    "wrong",
    [lambda: schedules.one_shot(1.5), lambda: schedules.linear(0.5, 0), lambda: schedules.cubic(-1, 2)],
)
def test_an_impossible_schedule_is_refused(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RecipeError):
        wrong()


def test_what_is_kept_dense_has_no_part_in_a_plan_and_says_why() -> None:
    table = replace(layer("table", (90, 40), {}), kept_dense="its rows are looked up, not multiplied")
    recipe = prune.plan(Profile((table, ROBUST, TENDER), error=0.02), sparsities=(0.5,))
    assert recipe.rounds == prune.plan(PROFILE, sparsities=(0.5,)).rounds
    assert recipe.reasons["table"] == "stays dense: its rows are looked up, not multiplied"


def test_one_training_prunes_in_blocks_and_leaves_alone_what_has_fewer_inputs_than_one() -> None:
    stem = replace(layer("stem", (8, 3), {}), weight_shape=(8, 3, 3, 3))
    table = replace(layer("table", (90, 40), {}), kept_dense="its rows are looked up")
    with pytest.warns(UserWarning, match=r'"1x4" does not fit them: "stem" \(8, 3, 3, 3\)'):
        recipe = prune.while_training(0.9, pattern="1x4", profile=Profile((stem, table, ROBUST), 0.02))
    (round_,) = recipe.rounds
    assert (round_.sparsity, round_.pattern) == (0.9, {"stem": "dense", "robust": "1x4"})
    assert recipe.reasons == {
        "stem": 'stays dense: pattern "1x4" does not fit: 3 inputs are fewer than a block of 4',
        "table": "stays dense: its rows are looked up",
    }
    assert prune.while_training(0.9, pattern="1x4", profile=PROFILE).rounds[0].pattern == "1x4"
    with pytest.raises(RecipeError, match='pattern "2:4" fixes the sparsity at 0.5, so it cannot grow'):
        prune.while_training(0.5, pattern="2:4")


def test_a_transposed_convolution_takes_no_pattern_but_free() -> None:
    up = replace(layer("up", (8, 8), {}), op="conv_transpose2d")
    with pytest.warns(UserWarning, match=r'stay dense, .* "4x1" does not fit them: "up" \(8, 8\)'):
        recipe = prune.plan(Profile((up, ROBUST), error=0.02), pattern="4x1", sparsities=(0.5,))
    assert set(recipe.rounds[0].sparsity) == {"robust"}
    assert set(prune.plan(Profile((up, ROBUST), error=0.02), sparsities=(0.5,)).rounds[0].sparsity) == {
        "up",
        "robust",
    }
    with pytest.raises(RecipeError, match='no layer of the network can take the pattern "4x1"'):
        prune.plan(Profile((up,), error=0.02), pattern="4x1")
