"""The last line of a run: what to ship, and why. It says plainly when dense wins, and what stays dense."""

from __future__ import annotations

from collections.abc import Sequence

from zeroskip.concepts import Choice, LayerSummary, Summary, Timing
from zeroskip.concepts.record import by_reason

PAYS = 1.05
"""A gain below this factor, in speed or in size, is no reason to ship another network."""
ALL_DENSE = "zeroskip, all dense"
"""The entrant that is our program with no kernel that skips zeros."""
NOTABLE = 0.05
"""A share of the weights above which it is said that they stay dense."""


def verdict(summary: Summary, choices: Sequence[Choice]) -> str:
    """A few sentences from the figures of a run; `choices` are the kernels of its program.

    The sparse network may lose what was allowed, or one test example: less cannot be told apart. It is recommended
    for what pays, by PAYS or more.

    >>> print(verdict(record.summary, record.choices))
    Ship model.zs and run it with zeroskip: 1.8x fewer weights, a file 1.2x smaller, error 3.00% against 2.00% dense.
    At batch 1 2.0x faster than torch eager, the fastest dense engine; at batch 3 about as fast as torch eager, ...
    Stays dense: fc2, 40.0% of the weights (nothing of it was pruned).
    """
    parts = [_advice(summary, choices), *_whole(summary), *_unskipped(summary), *_in_int8(summary)]
    return " ".join(parts)


def _advice(summary: Summary, choices: Sequence[Choice]) -> str:
    file = f"{summary.shown}/model.zs" if summary.shown else "model.zs"
    size, whole = summary.stored_times_smaller, summary.weights_kept == summary.weights
    run = f"error {_error(summary.error_run)}{' in int8' if summary.in_int8 else ''}"
    figures = (
        f"{_times(summary.weights_times_fewer)} fewer weights, {_size(size)}, "
        f"{run} against {_error(summary.error_dense)} dense"
    )
    if summary.selected_on != "validation":
        figures += " (chosen on the same set it is reported on)"
    speeds = "; ".join(map(_speed, summary.timings)) + _credit(summary, choices)
    speeds, ship_dense = speeds[:1].upper() + speeds[1:], "Ship the dense network"
    if whole and not summary.in_int8:
        return f"{ship_dense}: no weight could go within the allowed error. {speeds}."
    examples = summary.splits.get("test", 0)
    allowed = max(summary.max_error_rise, 1 / examples if examples else 0.0) + 1e-9
    if summary.error_run > summary.error_dense + allowed:
        return f"{ship_dense}: the sparse one makes more errors. It has {figures}. {speeds}."
    faster = [timing for timing in summary.timings if timing.settled and timing.speedup >= PAYS]
    if faster and whole:
        return (
            f"Ship {file} and run it with zeroskip in int8: no weight went, and it has {figures}. {speeds}."
        )
    if faster and (size >= PAYS or any(map(_zeros_pay, faster))):
        return f"Ship {file} and run it with zeroskip: {figures}. {speeds}."
    if size >= PAYS:
        return f"Ship {file} for its size, but run it dense: {figures}. {speeds}."
    neither = f"neither smaller nor faster by {PAYS - 1:.0%}"
    if faster:
        return f"{ship_dense} and run it with zeroskip: zeros make it {neither}. It has {figures}. {speeds}."
    return f"{ship_dense}: the sparse one is {neither}. It has {figures}. {speeds}."


def _zeros_pay(timing: Timing) -> bool:
    """Whether zeros are the reason for a gain; nothing is known against it where the rival was not timed."""
    return timing.seconds.get(ALL_DENSE, timing.dense_seconds) / timing.sparse_seconds >= PAYS


def _whole(summary: Summary) -> list[str]:
    """What was not pruned at all, where it is a notable share of the weights."""
    whole = [layer for layer in summary.dense_layers if layer.weights_kept == layer.weights]
    if summary.share(whole) <= NOTABLE or len(whole) == len(summary.layers):
        return []
    groups = [
        f"{_named(layers)}, {_share(summary.share(layers))} of the weights ({reason})"
        for reason, layers in by_reason(whole).items()
    ]
    return [f"Stays dense: {'; '.join(groups)}."]


def _unskipped(summary: Summary) -> list[str]:
    """Where most of the zeros are, if no kernel that skips zeros computes that."""
    unskipped = [
        layer for layer in summary.dense_layers if not layer.raced and layer.weights_kept < layer.weights
    ]
    share = _zeros(unskipped) / max(_zeros(summary.layers), 1)
    if share <= 0.5:
        return []
    groups = [f"{_named(layers)} ({reason})" for reason, layers in by_reason(unskipped).items()]
    return [f"{_share(share)} of the zeros are where none is skipped: {'; '.join(groups)}."]


def _zeros(layers: Sequence[LayerSummary]) -> int:
    return sum(layer.weights - layer.weights_kept for layer in layers)


def _named(layers: Sequence[LayerSummary], most: int = 3) -> str:
    names = ", ".join(layer.name or "the network itself" for layer in layers[:most])
    return names + (f" and {len(layers) - most} more" if len(layers) > most else "")


def _credit(summary: Summary, choices: Sequence[Choice]) -> str:
    """Zeros get the credit only where a kernel skips them."""
    names = {layer.name for layer in summary.layers}
    if all(choice.skips == "nothing" for choice in choices if choice.layer in names):
        return " (every layer runs dense, so zeros have no part in this)"
    return ""


def _in_int8(summary: Summary) -> list[str]:
    """How many layers compute in eight bits, by batch size, and that the engines beside them do not."""
    if summary.eight_bits is None:
        return []
    count = len(summary.layers)
    counts = [
        f"{count - len(reasons)} of {count}{when}" for when, reasons in summary.eight_bits.by_program.items()
    ]
    return [f"Layers in int8: {', '.join(counts)}; the dense engines compute in fp32."]


def _speed(timing: Timing) -> str:
    name = timing.dense_engine
    if not timing.settled or _level(timing.speedup):
        return f"at batch {timing.batch} about as fast as {name}, the fastest dense engine"
    speedup = _ratio(timing.speedup, "faster", "SLOWER")
    return f"at batch {timing.batch} {speedup} than {name}, the fastest dense engine{_by_zeros(timing)}"


def _by_zeros(timing: Timing) -> str:
    """What of the gain is due to zeros, or to them and eight bits: against the program with every layer dense."""
    without = timing.seconds.get(ALL_DENSE)
    if without is None:
        return ""
    speedup = without / timing.sparse_seconds
    than = "as fast as" if _level(speedup) else f"{_ratio(speedup, 'faster', 'SLOWER')} than"
    return f" ({than} itself {'in fp32 and ' if timing.precision == 'int8' else ''}without skipping zeros)"


def _size(smaller: float) -> str:
    return "a file as large" if _level(smaller) else f"a file {_ratio(smaller, 'smaller', 'LARGER')}"


def _level(factor: float) -> bool:
    """Whether two digits do not tell it from 1."""
    return f"{factor:.2f}" == f"{1 / factor:.2f}" == "1.00"


def _ratio(value: float, better: str, worse: str) -> str:
    return f"{_times(value)} {better}" if value >= 1 else f"{_times(1 / value)} {worse}"


def _times(value: float) -> str:
    """With as many digits as tell it from 1, as far as two."""
    return f"{value:.1f}x" if value >= 1.095 else f"{value:.2f}x"


def _share(value: float) -> str:
    return f"{value:.1%}"


def _error(value: float) -> str:
    return f"{value:.2%}" if 0 <= value <= 1 else f"{value:.4g}"
