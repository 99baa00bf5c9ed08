"""Plans that spend the error budget where a cost falls most: against brute force, and on a chip."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip import measure, prune, retrain, simulate, task_api
from zeroskip.concepts import Histogram, LayerProfile, Profile
from zeroskip.errors import AcceleratorError, RecipeError
from zeroskip.prune.plan import PlanCost
from zeroskip.simulate import chips
from zeroskip.tasks import load

MOST = 0.999  # one weight per output stays
RISES = {0.5: 0.1, 0.8: 0.3, 0.9: 0.6}


def layer(name: str, rises: dict[float, float]) -> LayerProfile:
    return LayerProfile(
        name, "linear", (10, 1000), (1000,), (10,), 10_000, 10_000, 40_000, 0.0, 1.0,
        Histogram((0.0, 1.0), (10_000,)), 0.0, 0.0, (), (), rises,
    )  # fmt: skip


def linear(**prices: float) -> PlanCost:
    """Each weight that is left has the price of its layer."""
    return lambda sparsities: sum(price * (1 - sparsities.get(name, 0.0)) for name, price in prices.items())


TWINS = Profile((layer("cheap", RISES), layer("dear", RISES)), 0.0)


def test_of_two_layers_that_mind_alike_each_loses_in_proportion_to_its_price() -> None:
    """Damage is a line up to 0.5, so least squares has a closed form: sparsities 1 : 10."""
    first = prune.plan(TWINS, cost=linear(cheap=1, dear=10)).rounds[0].sparsity
    unit = 0.3 * MOST * 11 / (1 + 10 * 10)
    step = 0.5 / 8
    assert first == {"cheap": pytest.approx(unit, abs=step), "dear": pytest.approx(10 * unit, abs=step)}


def test_at_equal_damage_the_plan_by_cost_leaves_less_of_it_than_the_plan_by_weights() -> None:
    cost = linear(cheap=1, dear=10)
    ours = dict(prune.plan(TWINS, cost=cost).rounds[0].sparsity)  # type: ignore[arg-type]
    damage = sum(share**2 for share in ours.values())
    theirs = prune.allocate(TWINS.layers, (damage / 2) ** 0.5)
    assert sum(share**2 for share in theirs.values()) == pytest.approx(damage)
    assert theirs["cheap"] == pytest.approx(theirs["dear"])
    assert cost(ours) < 0.92 * cost(theirs)


def test_every_round_leaves_0_7_of_what_can_be_saved_and_gives_no_weight_back() -> None:
    cost = linear(cheap=1, dear=10)
    rounds = [dict(one.sparsity) for one in prune.plan(TWINS, cost=cost).rounds]  # type: ignore[arg-type]
    left = [(cost(one) - 11 * (1 - MOST)) / (11 * MOST) for one in rounds]
    assert left == pytest.approx([0.7**number for number in range(1, 17)])
    assert all(early[name] <= late[name] for early, late in pairwise(rounds) for name in early)


def test_a_layer_whose_zeros_save_nothing_stays_dense() -> None:
    rounds = prune.plan(TWINS, cost=linear(dear=1)).rounds
    assert {one.sparsity["cheap"] for one in rounds} == {0.0}  # type: ignore[index]


def test_a_cost_that_only_falls_behind_a_step_is_reached_in_one_stride() -> None:
    blocks = Profile((layer("a", RISES),), 0.0)
    first = prune.plan(blocks, cost=lambda s: 1.0 if s.get("a", 0) >= 0.8 else 2.0).rounds[0].sparsity
    assert first == {"a": pytest.approx(0.5 + 0.3 * 0.3)}  # not stopped by the flat piece up to 0.5


@given(
    st.lists(st.lists(st.floats(0.0, 0.9), min_size=3, max_size=3), min_size=3, max_size=3),
    st.lists(st.floats(0.1, 10), min_size=3, max_size=3),
    st.integers(0, 15),
)
@settings(max_examples=50)
def test_no_choice_on_the_measured_points_saves_as_much_for_less_damage(
    errors: list[list[float]], prices: list[float], place: int
) -> None:
    names = "abc"
    layers = tuple(
        layer(n, dict(zip(RISES, sorted(rise), strict=True))) for n, rise in zip(names, errors, strict=True)
    )
    cost = linear(**dict(zip(names, prices, strict=True)))
    shares = prune.plan(Profile(layers, 0.0), cost=cost).rounds[place].sparsity
    assert isinstance(shares, Mapping)
    points = [0.0, *RISES, MOST]
    damages = _damages(layers)
    every = [dict(zip(names, some, strict=True)) for some in product(points, repeat=3)]
    rivals = [one for one in every if cost(one) <= cost(shares) + 1e-9]
    ours = sum(damages[name](shares[name]) for name in names)
    best = min((sum(damages[name](one[name]) for name in names) for one in rivals), default=float("inf"))
    assert ours <= best + 1e-6


def _damages(layers: tuple[LayerProfile, ...]):  # type: ignore[no-untyped-def]
    """What a plan takes as damage: nine tenths the rise in error over the worst, one the sparsity; squared."""
    worst = max(max(one.sensitivity.values()) for one in layers)
    found = {}
    for one in layers:
        low = min(one.sensitivity.values())
        points = [(0.0, 0.0)]
        for sparsity, error in one.sensitivity.items():
            points.append((sparsity, 0.9 * (error - low) / max(worst - low, 1e-9) + 0.1 * sparsity))
        x, y = zip(*points, (MOST, 1.0), strict=True)
        fine = np.concatenate([np.linspace(a, b, 8, endpoint=False) for a, b in pairwise(x)] + [[MOST]])
        found[one.name] = _hull(dict(zip(fine.tolist(), (np.interp(fine, x, y) ** 2).tolist(), strict=True)))
    return found


def _hull(points: Mapping[float, float]):  # type: ignore[no-untyped-def]
    """The lower convex hull by its definition: the least mean of two points on either side."""

    def at(x: float) -> float:
        pairs = [(a, b) for a in points for b in points if a <= x <= b]
        return min(
            points[a] if a == b else points[a] + (points[b] - points[a]) * (x - a) / (b - a) for a, b in pairs
        )

    return at


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"cost": linear(dear=1), "sparsities": (0.5,)}, "Give `sparsities` or `cost`, not both"),
        ({"cost": lambda sparsities: 7.0}, "the cost stays 7 whatever is pruned"),
        ({"cost": linear(dear=1), "pattern": "2:4"}, "the cost stays 1 whatever is pruned"),
        ({"cost": lambda sparsities: float("nan")}, "cost gave nan for {}"),
        ({"cost": lambda sparsities: -1.0}, "cost gave -1.0"),
    ],
)
def test_a_cost_that_cannot_be_planned_by_is_refused(keywords, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RecipeError, match=sentence):
        prune.plan(TWINS, **keywords)


def test_what_a_chip_would_cost_is_the_estimate_of_the_pruned_weights(mlp: torch.nn.Sequential) -> None:
    trace = measure.trace(mlp, torch.rand(3, 6))
    cost = simulate.cost_on(chips.EYERISS_V2_PE, trace)
    assert cost({}) == simulate.estimate_trace(trace, chips.EYERISS_V2_PE).cycles
    pruned = deepcopy(trace)
    weight = pruned[1][0].weight.data
    weight[weight.abs() <= weight.abs().flatten().sort().values[47]] = 0  # 48 of 64
    assert cost({"2": 0.75}) == simulate.estimate_trace(pruned, chips.EYERISS_V2_PE).cycles < cost({})


def test_joules_are_another_cost_than_cycles_and_layers_a_chip_cannot_run_cost_nothing() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 4)).eval()
    trace = measure.trace(net, torch.rand(1, 1, 4, 4))
    joules = simulate.cost_on(chips.EIE, trace, of="joules")
    assert 0 < joules({}) < 1e-3
    assert joules({"0": 0.9}) == joules({})


def test_a_cost_of_no_such_thing_or_layer_is_refused(mlp: torch.nn.Sequential) -> None:
    trace = measure.trace(mlp, torch.rand(1, 6))
    with pytest.raises(AcceleratorError, match='a cost is one of cycles, joules, not "euros"'):
        simulate.cost_on(chips.EIE, trace, of="euros")
    with pytest.raises(AcceleratorError, match=r"\['fc9'\] are no layers of the trace: 0, 2, 4"):
        simulate.cost_on(chips.EIE, trace)({"fc9": 0.5})


@pytest.mark.slow
def test_on_digits_conv_the_plan_for_scnn_needs_fewer_cycles_than_the_plan_for_weights_in_the_same_budget() -> (
    None
):
    task = load("digits-conv")
    torch.manual_seed(0)
    dense = task_api.model(task, None)
    retrain.train(task, dense, stage="dense", seed=0)
    profile = measure.profile(dense, task)
    chip = replace(chips.SCNN, dram_bytes_per_cycle=math.inf)  # else the fully connected layers wait for it
    cost = simulate.cost_on(chip, measure.trace(dense.eval(), task_api.first(task, 4)))
    cycles = {}
    for name, keywords in {"weights": {}, "cycles": {"cost": cost}}.items():
        recipe = prune.plan(profile, max_error_rise=0.0, **keywords)  # type: ignore[arg-type]
        sparse = retrain.loop(deepcopy(dense), recipe, task)
        assert task_api.evaluate(task, sparse.model, "validation") <= profile.error + 1e-9
        trace = measure.trace(sparse.model, task_api.first(task, 4))
        cycles[name] = simulate.estimate_trace(trace, chip).cycles
    assert cycles["cycles"] < 0.9 * cycles["weights"]  # docs/PLANNING.md has more seeds and budgets
