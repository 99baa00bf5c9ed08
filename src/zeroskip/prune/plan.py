"""From what was measured to a recipe: how much each layer will lose, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from zeroskip.concepts import LayerProfile, Profile, Recipe, Round
from zeroskip.errors import PatternError, RecipeError
from zeroskip.patterns import block_size, check_sparsity, parse
from zeroskip.prune.schedules import geometric


def plan(
    profile: Profile,
    *,
    pattern: str | Mapping[str, str] = "free",
    max_error_rise: float | None = 0.0,
    sparsities: Sequence[float] = geometric(0.7, 16),
    train: Mapping[str, Any] | None = None,
) -> Recipe:
    """A recipe whose rounds reach `sparsities` of the whole network, spread over the layers by sensitivity.

    Every layer is cut to where pruning it alone would raise the error by the same amount, so the layers
    that mind least lose most (Han et al. 2015, section 4.3: thresholds from the sensitivity scan). A layer
    that `pattern` does not fit stays dense. A pattern such as "2:4" needs one round.

    train  keywords for each retraining. By default it is the task's own training over again, which on digits
           kept 1.7 times fewer weights than {"learning_rate_divisor": 10}, the rate of Han et al.

    >>> plan(profile).rounds[0].sparsity
    {'fc1': 0.33, 'fc2': 0.2, 'fc3': 0.05}
    """
    if max_error_rise is not None and not max_error_rise >= 0:
        raise RecipeError(
            f"max_error_rise {max_error_rise} is not a number from 0 up. 0.01 allows one point more."
        )
    patterns = {layer.name: _pattern(layer, pattern) for layer in profile.layers}
    fitting = [layer for layer in profile.layers if patterns[layer.name] is not None]
    if not fitting:
        raise RecipeError(
            f'no layer of the network can take the pattern "{pattern}". Choose another, such as "free".'
        )
    named = {layer.name: str(patterns[layer.name]) for layer in fitting}
    fixed = {name: s for name, text in named.items() if (s := parse(text).fixed_sparsity) is not None}
    free = [layer for layer in fitting if layer.name not in fixed]
    rounds: list[Round] = []
    for sparsity in sparsities if free else sparsities[:1]:
        check_sparsity(sparsity, parse("free"))
        rounds.append(
            Round(sparsity=fixed | allocate(free, sparsity), pattern=named, train=dict(train or {}))
        )
    return Recipe(tuple(rounds), max_error_rise, _reasons(profile, patterns, rounds[-1]))


def allocate(layers: Sequence[LayerProfile], sparsity: float) -> dict[str, float]:
    """Layer name -> sparsity, so that together `sparsity` of their weights goes and each layer alone would
    raise the error equally. Every layer keeps at least one weight per output.

    >>> allocate(profile.layers, 0.9)
    {'fc1': 0.92, 'fc2': 0.88, 'fc3': 0.55}
    """
    if not layers:
        return {}
    worst = max((error for layer in layers for error in layer.sensitivity.values()), default=1.0)
    curves = {layer.name: _curve(layer, worst) for layer in layers}
    total = sum(layer.weights for layer in layers)

    def shares(tolerance: float) -> dict[str, float]:
        return {
            layer.name: min(_sparsity_at(curves[layer.name], tolerance), _most(layer)) for layer in layers
        }

    low, high = 0.0, 1.0  # in curve units: 0 is nothing lost, 1 is everything
    for _ in range(50):  # halves until the tolerance is known to double precision
        middle = (low + high) / 2
        pruned = sum(shares(middle)[layer.name] * layer.weights for layer in layers)
        low, high = (middle, high) if pruned < sparsity * total else (low, middle)
    return shares(high)


def _curve(layer: LayerProfile, worst: float) -> list[tuple[float, float]]:
    """(sparsity, damage 0..1), damage rising strictly so that it can be inverted.

    Damage is mostly the rise in error as a share of the worst seen in any layer. A tenth of it is the
    sparsity itself: where the error does not move at all, layers are cut alike.
    """
    best = min(layer.sensitivity.values(), default=0.0)
    span = max(worst - best, 1e-9)
    curve, highest = [(0.0, 0.0)], 0.0
    for sparsity, error in sorted(layer.sensitivity.items()):
        highest = max(highest, (error - best) / span)
        curve.append((sparsity, 0.9 * highest + 0.1 * sparsity))
    return [*curve, (1.0, 1.0)]


def _sparsity_at(curve: list[tuple[float, float]], damage: float) -> float:
    for (s0, d0), (s1, d1) in pairwise(curve):
        if damage <= d1:
            return s0 + (s1 - s0) * (damage - d0) / (d1 - d0)
    return 1.0


def _most(layer: LayerProfile) -> float:
    return 1 - layer.weight_shape[0] / layer.weights


def _pattern(layer: LayerProfile, pattern: str | Mapping[str, str]) -> str | None:
    text = pattern if isinstance(pattern, str) else pattern.get(layer.name)
    if text is None:
        return None
    parsed = parse(text)
    try:
        block_size(layer.weight_shape, parsed)
    except PatternError:
        return None
    fits = not parsed.of or layer.weight_shape[1] % parsed.of == 0
    return text if fits else None


def _reasons(profile: Profile, patterns: Mapping[str, str | None], last: Round) -> dict[str, str]:
    reasons = {}
    for layer in profile.layers:
        if patterns[layer.name] is None:
            reasons[layer.name] = f"stays dense: {tuple(layer.weight_shape)} does not fit the pattern"
            continue
        assert isinstance(last.sparsity, Mapping)
        worst = max(layer.sensitivity.items(), key=lambda item: item[0], default=(math.nan, math.nan))
        reasons[layer.name] = (
            f"up to {last.sparsity[layer.name]:.1%} zeros: alone at {worst[0]:.0%} it takes the error "
            f"from {profile.error:.2%} to {worst[1]:.2%}"
        )
    return reasons
