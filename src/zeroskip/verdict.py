"""The last line of a run: what to ship, and why. It says plainly when dense wins."""

from __future__ import annotations

from collections.abc import Sequence

from zeroskip.concepts import Choice, Summary, Timing


def verdict(summary: Summary, choices: Sequence[Choice]) -> str:
    """One or two sentences from the figures of a run; `choices` are the kernels of its program.

    The sparse network may lose what was allowed, or one test example: less cannot be told apart.

    >>> print(verdict(record.summary, record.choices))
    Ship model.zs and run it with zeroskip: 1.8x fewer weights, a file 1.2x smaller, error 3.00% against 2.00% dense.
    At batch 1 2.0x faster than torch eager, the fastest dense engine; at batch 3 about as fast as torch eager, ...
    """
    file = f"{summary.shown}/model.zs" if summary.shown else "model.zs"
    size = summary.stored_times_smaller
    figures = (
        f"{summary.weights_times_fewer:.1f}x fewer weights, a file {_ratio(size, 'smaller', 'LARGER')}, "
        f"error {_error(summary.error_run)} against {_error(summary.error_dense)} dense"
    )
    if summary.selected_on != "validation":
        figures += " (chosen on the same set it is reported on)"
    speeds = "; ".join(map(_speed, summary.timings)) + _credit(summary, choices)
    speeds, ship_dense = speeds[:1].upper() + speeds[1:], "Ship the dense network"
    if summary.weights_kept == summary.weights:
        return f"{ship_dense}: no weight could go within the allowed error. {speeds}."
    examples = summary.splits.get("test", 0)
    allowed = max(summary.max_error_rise, 1 / examples if examples else 0.0) + 1e-9
    if summary.error_run > summary.error_dense + allowed:
        return f"{ship_dense}: the sparse one makes more errors. It has {figures}. {speeds}."
    if any(timing.settled and timing.speedup > 1 for timing in summary.timings):
        return f"Ship {file} and run it with zeroskip: {figures}. {speeds}."
    if size > 1:
        return f"Ship {file} for its size, but run it dense: {figures}. {speeds}."
    return f"{ship_dense}: the sparse one is neither smaller nor faster. It has {figures}. {speeds}."


def _credit(summary: Summary, choices: Sequence[Choice]) -> str:
    """Zeros get the credit only where a kernel skips them."""
    names = {layer.name for layer in summary.layers}
    if all(choice.skips == "nothing" for choice in choices if choice.layer in names):
        return " (every layer runs dense, so zeros have no part in this)"
    return ""


def _speed(timing: Timing) -> str:
    name = timing.dense_engine
    if not timing.settled:
        return f"at batch {timing.batch} about as fast as {name}, the fastest dense engine"
    speedup = _ratio(timing.speedup, "faster", "SLOWER")
    return f"at batch {timing.batch} {speedup} than {name}, the fastest dense engine{_by_zeros(timing)}"


def _by_zeros(timing: Timing) -> str:
    """What of the gain is due to zeros: against the same program with every layer dense."""
    without = timing.seconds.get("zeroskip, all dense")
    if without is None:
        return ""
    speedup = _ratio(without / timing.sparse_seconds, "faster", "SLOWER")
    return f" ({speedup} than itself without skipping zeros)"


def _ratio(value: float, better: str, worse: str) -> str:
    return f"{value:.1f}x {better}" if value >= 1 else f"{1 / value:.1f}x {worse}"


def _error(value: float) -> str:
    return f"{value:.2%}" if 0 <= value <= 1 else f"{value:.4g}"
