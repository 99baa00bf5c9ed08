"""The search for thresholds: those that together remove most, within a budget of error."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from zeroskip import task_api
from zeroskip.concepts import Progress, silent
from zeroskip.errors import RecipeError, TaskError
from zeroskip.prune.activation_macs import ActivationPruning, Judged, dead, look, uncounted
from zeroskip.prune.masks import check_names
from zeroskip.thresholds import held, hold_, release_

LEVELS = 100
"""Candidates of a layer: the percentiles of its inputs that are not zero."""
STRIDES = (8, 4, 2, 1)
HEAT = 0.02
"""How much worse, as share of the work, a step of the search may make things at first."""
_SAMPLE = 4096
"""Inputs kept of each layer and batch, from which the percentiles are taken."""

Levels = dict[str, int]
"""Layer name -> which of its candidates; 0 is no threshold."""


def thresholds(
    model: nn.Module,
    task: task_api.Task,
    *,
    max_error_rise: float,
    layers: Sequence[str] | None = None,
    evaluations: int = 400,
    progress: Progress = silent,
) -> ActivationPruning:
    """Search the thresholds that leave the fewest products with a non-zero input, while the validation error rises by
    at most `max_error_rise`. `model` is unchanged; thresholds that it holds are one start of the search.

    layers       the layers that may get a threshold, by default all that run; thresholds held elsewhere stay
    evaluations  number of sets of thresholds to try, each in one call of the task's `evaluate`

    Raises RecipeError for a rise that is no number from 0 up and for unknown layers, TaskError for an infinite error.

    >>> found = thresholds(model, task, max_error_rise=0.05, evaluations=20)
    >>> 0 < found.removed < 1, found.after.error <= found.before.error + 0.05
    (True, True)
    """
    if layers is not None and not layers:
        raise RecipeError("layers=[] names none that may get a threshold. Leave it out for all layers.")
    if evaluations < 1:
        raise RecipeError(f"{evaluations} evaluations find nothing. Give 100 or more.")
    if not 0 <= max_error_rise < math.inf:
        raise RecipeError(f"max_error_rise {max_error_rise} is not a number from 0 up. 0.01 is one point.")
    own, plain = held(model), release_(deepcopy(model))
    before, candidates = _candidates(plain, task)
    check_names(layers or (), {name: torch.empty(0) for name in candidates})
    given = look(deepcopy(model), task) if own else before
    if not math.isfinite(given.error):
        raise TaskError(
            f"{task_api.name(task)}: evaluate(model) returned {given.error}, not a finite number, for the network as "
            f"it is. Start from one that works."
        )
    # A billionth more, since sums of shares such as 13/360 + 1/360 need not equal 14/360 to the last bit.
    search = _Search(plain, task, before, given.error + max_error_rise + 1e-9, evaluations, progress)
    free = candidates if layers is None else layers
    search.candidates = {name: sorted({*candidates[name], own.get(name, 0.0)}) for name in free}
    # What the model holds elsewhere stays as it is, and is part of everything that is judged.
    search.candidates |= {name: [theta] for name, theta in own.items() if name not in free}
    at = {name: each.index(own.get(name, 0.0)) for name, each in search.candidates.items()}
    none = dict.fromkeys(search.candidates, 0)
    starts = [search.climb(start, (16, *STRIDES)) for start in (at, search.even(), none)]
    best = min(starts, key=search.work)
    for stride in STRIDES:
        best = search.exchange(best, stride)
    search.anneal(best)
    after = search.verified()
    notes = "; ".join(note for note in (_note(before), uncounted(plain)) if note)
    return ActivationPruning(before, after, search.bound, tuple(search.tried.values()), notes)


@dataclass
class _Search:
    """What has been tried so far, and how to try more."""

    model: nn.Module
    task: task_api.Task
    before: Judged
    bound: float
    evaluations: int
    progress: Progress
    candidates: dict[str, list[float]] = field(default_factory=dict)
    tried: dict[tuple[float, ...], Judged] = field(default_factory=dict)

    def judged(self, at: Levels) -> Judged | None:
        """What the network does at these levels, all together; None when no evaluation is left."""
        thetas = {name: self.candidates[name][level] for name, level in at.items()}
        key = tuple(thetas.values())
        if not any(key):
            return self.before
        if key not in self.tried:
            if len(self.tried) >= self.evaluations:
                return None
            self.tried[key] = look(hold_(self.model, thetas), self.task)
            self.progress("searching thresholds", len(self.tried), self.evaluations)
        return self.tried[key]

    def fits(self, judged: Judged | None) -> bool:
        return judged is not None and judged.error <= self.bound and not dead(judged, self.before)

    def work(self, at: Levels) -> float:
        """Work that is left, infinite where the error is too high or a layer sees only zeros."""
        judged = self.judged(at)
        return judged.nonzero if judged is not None and self.fits(judged) else math.inf

    def even(self) -> Levels:
        """The same percentile for all layers, the highest that fits."""
        low, high = 0, LEVELS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.work(self._all_at(middle)) < math.inf else (low, middle)
        return self._all_at(low)

    def _all_at(self, percent: int) -> Levels:
        return {name: (len(each) - 1) * percent // LEVELS for name, each in self.candidates.items()}

    def climb(self, at: Levels, strides: Sequence[int], without: str = "") -> Levels:
        """Raise one layer after the other, always the one that removes most for what it costs."""
        for stride in strides:
            worth = {name: math.inf for name in at if name != without}  # as it was when last tried
            while worth:
                name = max(worth, key=worth.__getitem__)
                higher = self.moved(at, name, stride)
                worth[name] = self.worth(at, higher)
                if worth[name] <= 0:
                    del worth[name]
                elif worth[name] >= max(worth.values()):
                    at = higher
        return at

    def moved(self, at: Levels, name: str, stride: int) -> Levels:
        top = len(self.candidates[name]) - 1
        return {**at, name: max(0, min(at[name] + stride, top))}

    def worth(self, at: Levels, higher: Levels) -> float:
        """Work removed per error on the way from one to the other; 0 where that does not fit or removes none."""
        now, then = self.judged(at), self.judged(higher)
        if now is None or then is None or not self.fits(then):
            return 0.0
        # A model with thresholds of its own may be allowed less than the error without any.
        # Less than a hundredth of it is noise, and ranks by what is removed.
        free = max(0.0, self.bound - self.before.error) / 100 + 1e-9
        return (now.nonzero - then.nonzero) / max(then.error - now.error, free)

    def exchange(self, at: Levels, stride: int) -> Levels:
        """Lower one layer and raise the others in its place, as long as that removes more."""
        waiting = list(at)
        while waiting:
            name = waiting.pop(0)
            lower = self.moved(at, name, -stride)
            better = self.climb(lower, (stride, max(1, stride // 2)), without=name)
            better = self.climb(better, (max(1, stride // 2),))
            if self.work(better) < self.work(at):
                at, waiting = better, [other for other in at if other != name]
        return at

    def anneal(self, at: Levels) -> None:
        """Spend the evaluations left on changes of up to three layers at once, which may first be a little worse:
        errors are counts of few examples, so that a search which only improves stops at the nearest step."""
        draw, names = random.Random(0), list(at)
        for _ in range(100 * self.evaluations):  # most are not worth an evaluation
            left = 1 - len(self.tried) / self.evaluations
            if left <= 0:
                break
            new = at
            for name in draw.sample(names, draw.randint(1, min(3, len(names)))):
                new = self.moved(new, name, draw.choice((-8, -4, -2, -1, 1, 2, 4, 8)))
            worse = 1 + HEAT * left
            if self.expected(new) <= worse * self.expected(at) and self.work(new) <= worse * self.work(at):
                at = new

    def expected(self, at: Levels) -> float:
        """An estimate of `work` without an evaluation: as if thresholds did not change what other layers see."""
        shares = {name: level / len(self.candidates[name]) for name, level in at.items()}
        return sum(self.before.layers[name].nonzero * (1 - share) for name, share in shares.items())

    def verified(self) -> Judged:
        """The best that was tried, looked at once more: the error of a task may differ from call to call."""
        fitting = [judged for judged in self.tried.values() if self.fits(judged)]
        for best in sorted(fitting, key=lambda judged: judged.nonzero):
            again = look(hold_(release_(self.model), best.thresholds), self.task)
            if self.fits(again):
                return again
        return self.before


def _candidates(model: nn.Module, task: task_api.Task) -> tuple[Judged, dict[str, list[float]]]:
    """What the network does as it is, and for each layer the thresholds to try, rising from 0."""
    kept: dict[str, list[Tensor]] = {}

    def keep(name: str, x: Tensor) -> None:
        sizes = x[(x != 0) & x.isfinite()].abs().float()
        # Evenly spaced, so that every run of the search sees the same.
        kept.setdefault(name, []).append(sizes[:: -(-len(sizes) // _SAMPLE) or 1].cpu())

    before = look(model, task, seen=keep)
    return before, {name: _percentiles(torch.cat(sizes)) for name, sizes in kept.items()}


def _percentiles(sizes: Tensor) -> list[float]:
    if not len(sizes):
        return [0.0]
    ordered = sizes.sort().values
    places = (torch.arange(1, LEVELS + 1) * (len(ordered) - 1)).div(LEVELS).long()
    return [0.0, *ordered[places].unique().tolist()]


def _note(before: Judged) -> str:
    if any(layer.macs > layer.nonzero for layer in list(before.layers.values())[1:]):
        return ""
    return "no layer's input has zeros: without ReLU in the network, thresholds alone make them (as in TEAL)"
