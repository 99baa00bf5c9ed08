"""The plan of a pruning: how much each layer loses in each round, from a measured profile."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from zeroskip.concepts import STAYS_DENSE, LayerProfile, Profile, Recipe, Round
from zeroskip.errors import PatternError, RecipeError
from zeroskip.patterns import DENSE, check_fit, check_sparsity, parse
from zeroskip.prune.schedules import geometric

Patterns = str | Mapping[str, str]
"""One of `zeroskip.patterns` for all layers, or by layer name."""
PlanCost = Callable[[Mapping[str, float]], float]
"""Layer name -> sparsity, the others dense; gives the network's cost in cycles, joules, bytes, ..."""
WeightShapes = Mapping[str, tuple[int, ...]]
"""Layer name -> shape of its weight."""
CostPoint = tuple[float, float, float]
"""(sparsity, damage squared, cost)."""
DamageCurve = list[tuple[float, float]]
"""(sparsity, damage 0..1), damage rising strictly so that it can be inverted."""


def plan(
    profile: Profile,
    *,
    pattern: Patterns = "free",
    max_error_rise: float | None = 0.0,
    sparsities: Sequence[float] | None = None,
    cost: PlanCost | None = None,
    train: Mapping[str, object] | None = None,
) -> Recipe:
    """A recipe whose rounds reach `sparsities` of the layers that `pattern` fits, spread by sensitivity.

    Each layer is cut so far that pruning it alone would raise the error by the same amount: the least sensitive
    layers lose most (Han et al. 2015, section 4.3). By default each round keeps 0.7 of the one before. A layer that
    the pattern does not fit stays dense, with a warning; so does, with its reason, what `graph.weights` keeps dense.
    RecipeError or PatternError where there is no such plan.

    cost   what a network of given sparsities costs (`simulate.cost_on`): each round then leaves 0.7 of what can be
           saved of it, pruned where it falls most for the rise in error
    train  keywords for each retraining. By default it is the task's own training over again: on digits that left
           19x fewer weights, and {"learning_rate_divisor": 10}, as in Han et al., 9x (3 seeds, no error rise)

    >>> from zeroskip import measure
    >>> [list(each.sparsity) for each in plan(measure.profile(dense, task), sparsities=[0.5, 0.8]).rounds]
    [['fc1', 'fc2'], ['fc1', 'fc2']]
    """
    pruned = [layer for layer in profile.layers if not layer.kept_dense]
    shapes = {layer.name: layer.weight_shape for layer in pruned}
    check(shapes, pattern, max_error_rise)
    misfits = _misfits(pruned, pattern)
    named = {name: text for name, text in _wanted(shapes, pattern).items() if name not in misfits}
    if not named:
        raise RecipeError(_none_fits(pattern))
    _warn_of_dense(shapes, named, pattern)
    fixed = {name: s for name, text in named.items() if (s := parse(text).fixed_sparsity) is not None}
    free = [layer for layer in pruned if layer.name in named and layer.name not in fixed]
    if cost is None:
        parts = [allocate(free, total) for total in _reachable(free, fixed, named, sparsities)]
    else:
        parts = _by_cost(free, cost, sparsities)
    shares = [{**fixed, **part} for part in parts]
    rounds = tuple(Round(sparsity=share, pattern=named, train=dict(train or {})) for share in shares)
    reasons = {
        each.name: _dense_reason(each, misfits) or _reason(each, profile.error, shares[-1][each.name])
        for each in profile.layers
    }
    return Recipe(rounds, max_error_rise, reasons)


def while_training(
    sparsity: float,
    *,
    pattern: str = "free",
    profile: Profile | None = None,
    train: Mapping[str, object] | None = None,
) -> Recipe:
    """One training in whose first 70 % the network loses all of `sparsity`, one threshold of saliency for all layers.

    On MNIST it leaves 30x fewer weights where rounds by magnitude leave 5x, at the same error. The task's train
    has to call `on_step`, with Adam's moments. Raises RecipeError for a sparsity outside 0..1.

    profile  of the network, whose layers that the pattern does not fit stay dense, with a warning; `sparsity` is that
             of the others. Without one the pattern has to fit all

    >>> while_training(0.967).rounds[0].score
    'saliency'
    """
    check_sparsity(sparsity, parse("free"))
    if (fixed := parse(pattern).fixed_sparsity) is not None:
        raise RecipeError(
            f'pattern "{pattern}" fixes the sparsity at {fixed:g}, so it cannot grow in a training. Leave the sparsity '
            "out, or choose blocks."
        )
    layers = [layer for layer in profile.layers if not layer.kept_dense] if profile else []
    shapes, misfits = {layer.name: layer.weight_shape for layer in layers}, _misfits(layers, pattern)
    if profile:
        check(shapes, pattern, None)
    _warn_of_dense(shapes, {name: pattern for name in shapes if name not in misfits}, pattern)
    patterns = {name: DENSE if name in misfits else pattern for name in shapes} if misfits else pattern
    round_ = Round(
        sparsity=sparsity, pattern=patterns, score="saliency", gradual=0.7, train=dict(train or {})
    )
    reasons = {layer.name: _dense_reason(layer, misfits) for layer in (profile.layers if profile else ())}
    return Recipe((round_,), reasons={name: reason for name, reason in reasons.items() if reason})


def check(shapes: WeightShapes, pattern: Patterns, max_error_rise: float | None) -> None:
    """RecipeError or PatternError where no plan can be made for weights of these shapes, by layer name.

    >>> check({"fc1": (300, 784)}, "free", 0.0)
    """
    if max_error_rise is not None and not 0 <= max_error_rise < math.inf:
        raise RecipeError(f"max_error_rise {max_error_rise} is not a number from 0 up. 0.01 is one point.")
    if all(_misfit(shapes, name, text) for name, text in _wanted(shapes, pattern).items()):
        raise RecipeError(_none_fits(pattern))


def _none_fits(pattern: Patterns) -> str:
    return f'no layer of the network can take the pattern "{pattern}". Try "free".'


def _reachable(
    free: Sequence[LayerProfile],
    fixed: Mapping[str, float],
    named: Mapping[str, str],
    sparsities: Sequence[float] | None,
) -> list[float]:
    """The sparsity of each round: those given, or a geometric schedule as far as one weight per output stays."""
    for sparsity in sparsities or ():
        check_sparsity(sparsity, parse("free"))
    if not free:
        for name in fixed if sparsities else ():
            check_sparsity(max(sparsities or (0,)), parse(named[name]))
        return [0.0]  # one round: the patterns fix everything
    most = sum(_highest(layer) * layer.weights for layer in free) / sum(layer.weights for layer in free)
    if sparsities and max(sparsities) > most:
        raise RecipeError(
            f"{max(sparsities):.2%} of the weights cannot go: one weight per output stays in every layer, which leaves "
            f"{most:.2%}. Ask for less."
        )
    return list(sparsities or [sparsity for sparsity in geometric(0.7, 16) if sparsity < most] or [most])


def _warn_of_dense(shapes: WeightShapes, named: Mapping[str, str], pattern: Patterns) -> None:
    left = [f'"{name}" {shape}' for name, shape in shapes.items() if name not in named]
    if left and isinstance(pattern, str):
        warnings.warn(
            f'these layers stay dense, since the pattern "{pattern}" does not fit them: {", ".join(left)}'
            + (" (the channels of the last layer are the answers)" if pattern == "channel" else ""),
            stacklevel=3,
        )


def allocate(layers: Sequence[LayerProfile], sparsity: float) -> dict[str, float]:
    """Layer name -> sparsity, so that together `sparsity` of their weights goes and each layer alone would
    raise the error equally. Every layer keeps at least one weight per output.

    >>> from zeroskip import measure
    >>> shares = allocate(measure.profile(dense, task).layers, 0.6)  # fc1 has 48 weights, fc2 32
    >>> round(shares["fc1"] * 48 + shares["fc2"] * 32)
    48
    """
    if not layers:
        return {}
    curves = _curves(layers)
    total = sum(layer.weights for layer in layers)

    def shares(tolerance: float) -> dict[str, float]:
        return {one.name: min(_sparsity_at(curves[one.name], tolerance), _highest(one)) for one in layers}

    low, high = 0.0, 1.0  # in curve units: 0 is nothing lost, 1 is everything
    for _ in range(50):  # halves until the tolerance is known to double precision
        middle = (low + high) / 2
        pruned = sum(shares(middle)[layer.name] * layer.weights for layer in layers)
        low, high = (middle, high) if pruned < sparsity * total else (low, middle)
    return shares(high)


class _Step(NamedTuple):
    """A rise of one layer's sparsity, its damage to the network and the cost that it saves."""

    layer: str
    sparsity: float
    damage: float
    saved: float


def _by_cost(
    layers: Sequence[LayerProfile], cost: PlanCost, sparsities: Sequence[float] | None
) -> list[dict[str, float]]:
    """Rounds that each leave 0.7 of the cost that can be saved; steps that save most for their damage come first.

    Costs and damages of layers are added up, as on chips that compute one layer after the other.
    """
    if sparsities is not None:
        raise RecipeError("a plan by cost makes its own rounds. Give `sparsities` or `cost`, not both.")
    curves, dense = _curves(layers), _checked_cost(cost, {})
    steps = [step for layer in layers for step in _steps(layer, curves[layer.name], cost, dense)]
    if not steps:
        raise RecipeError(
            f"the cost stays {dense:g} whatever is pruned, so there is nothing to plan by it. Leave `cost` out, or "
            f"choose a pattern that leaves the sparsity free and a machine that gains from zeros in weights."
        )
    steps.sort(key=lambda step: -step.saved / step.damage)
    return [_after_steps(layers, steps, share) for share in geometric(0.7, 16)]


def _steps(layer: LayerProfile, curve: DamageCurve, cost: PlanCost, dense: float) -> list[_Step]:
    """The convex hull of cost over damage: each step from dense on goes to where most is saved for its damage."""
    points, hull = _points(layer, curve, cost, dense), []
    while len(points) > 1:
        (start, before, paid), *ahead = points
        steps = [_Step(layer.name, end - start, hurt - before, paid - left) for end, hurt, left in ahead]
        best = max(range(len(steps)), key=lambda at: steps[at].saved / steps[at].damage)
        if steps[best].saved <= 0:
            break
        hull.append(steps[best])
        points = ahead[best:]
    return hull


def _points(layer: LayerProfile, curve: DamageCurve, cost: PlanCost, dense: float) -> list[CostPoint]:
    """Eight for each piece of the curve.

    Damage is squared, since retraining repairs many small damages better than a large one: each layer that costs
    anything then loses its easy weights first.
    """
    places = [min(sparsity, _highest(layer)) for sparsity, _ in curve]
    costs = [dense, *(_checked_cost(cost, {layer.name: place}) for place in places[1:])]
    known = [(place, hurt, paid) for place, (_, hurt), paid in zip(places, curve, costs, strict=True)]
    finer = [(0.0, 0.0, dense)]
    for (s0, d0, c0), (s1, d1, c1) in pairwise(known):
        parts = [part / 8 for part in range(1, 9)]
        finer += [(s0 + f * (s1 - s0), (d0 + f * (d1 - d0)) ** 2, c0 + f * (c1 - c0)) for f in parts]
    return finer


def _after_steps(layers: Sequence[LayerProfile], steps: Sequence[_Step], share: float) -> dict[str, float]:
    """Layer name -> sparsity after steps that save `share` of what all save; the last one in part."""
    shares = dict.fromkeys((layer.name for layer in layers), 0.0)
    left = share * sum(step.saved for step in steps)
    for step in steps:
        shares[step.layer] += min(1.0, left / step.saved) * step.sparsity
        left -= step.saved
        if left <= 0:
            break
    return shares


def _checked_cost(cost: PlanCost, sparsities: Mapping[str, float]) -> float:
    value = cost(sparsities)
    if not 0 <= value < math.inf:  # also catches NaN
        raise RecipeError(f"cost gave {value} for {dict(sparsities)}. It must be a number from 0 up.")
    return value


def _curves(layers: Sequence[LayerProfile]) -> dict[str, DamageCurve]:
    """Layer name -> its curve, on one scale of damage."""
    seen = [error for layer in layers for error in layer.sensitivity.values() if math.isfinite(error)]
    return {layer.name: _curve(layer, max(seen, default=1.0)) for layer in layers}


def _curve(layer: LayerProfile, worst: float) -> DamageCurve:
    """Damage is mostly the rise in error as a share of the worst seen in any layer. A tenth of it is the
    sparsity itself: where the error does not move at all, layers are cut alike.
    """
    best = min([worst, *layer.sensitivity.values()])
    span = max(worst - best, 1e-9)
    curve, highest = [(0.0, 0.0)], 0.0
    for sparsity, error in sorted(layer.sensitivity.items()):
        highest = max(highest, (min(error, worst) - best) / span)
        curve.append((sparsity, 0.9 * highest + 0.1 * sparsity))
    return [*curve, (1.0, 1.0)]


def _sparsity_at(curve: DamageCurve, damage: float) -> float:
    for (s0, d0), (s1, d1) in pairwise(curve):
        if damage <= d1:
            return s0 + (s1 - s0) * (damage - d0) / (d1 - d0)
    return 1.0


def _highest(layer: LayerProfile) -> float:
    """The sparsity that leaves one weight per output."""
    return 1 - layer.weight_shape[0] / layer.weights


def _wanted(shapes: WeightShapes, pattern: Patterns) -> dict[str, str]:
    """Layer name -> the pattern that is asked for it."""
    if isinstance(pattern, str):
        return dict.fromkeys(shapes, pattern)
    return {name: pattern[name] for name in shapes if name in pattern}


def _misfits(layers: Sequence[LayerProfile], pattern: Patterns) -> dict[str, str]:
    """Layer name -> why it cannot take the pattern, of those that cannot, or for which none is asked."""
    shapes = {layer.name: layer.weight_shape for layer in layers}
    wanted = _wanted(shapes, pattern)
    found = {}
    for layer in layers:
        text = wanted.get(layer.name)
        why = "no pattern is named for it" if text is None else _misfit(shapes, layer.name, text)
        # A transposed convolution stores (in, out, ...), and a pattern lies on outputs first.
        if layer.op.startswith("conv_transpose") and text not in (None, "free"):
            why = f'pattern "{text}" does not fit: its weight is stored (in, out, taps ...)'
        if why:
            found[layer.name] = why
    return found


def _misfit(shapes: WeightShapes, name: str, text: str) -> str:
    """Why a weight of its shape cannot take the pattern; "" where it can."""
    pattern = parse(text)
    if text == "channel" and name == list(shapes)[-1]:
        return 'pattern "channel" does not fit: its channels are the answers'
    try:
        check_fit(shapes[name], pattern)
    except PatternError as fact:
        return f'pattern "{text}" does not fit: {fact}'
    return ""


def _dense_reason(layer: LayerProfile, misfits: Mapping[str, str]) -> str:
    """Why the layer stays dense, for people; "" where it does not."""
    why = layer.kept_dense or misfits.get(layer.name, "")
    return f"{STAYS_DENSE}{why}" if why else ""


def _reason(layer: LayerProfile, error: float, share: float) -> str:
    if not layer.sensitivity:
        return f"up to {share:.1%} zeros"
    probe = max(layer.sensitivity)
    rise = f"from {error:.4g} to {layer.sensitivity[probe]:.4g}"
    return f"up to {share:.1%} zeros: alone at {probe:.0%} it takes the error {rise}"
