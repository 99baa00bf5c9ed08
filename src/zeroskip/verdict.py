"""The last line of a run: what to ship, and why. It says plainly when dense wins."""

from __future__ import annotations

from typing import Any


def verdict(summary: dict[str, Any]) -> str:
    """One or two sentences from the figures of a run's summary.

    The sparse network may lose what was allowed, or one test example: less cannot be told apart.

    >>> verdict(summary)
    'Ship model.zs and run it with zeroskip: 24.8x fewer weights, ...'
    """
    figures = (
        f"{summary['weights_times_fewer']:.1f}x fewer weights, a {summary['stored_times_smaller']:.1f}x smaller "
        f"file, error {_error(summary['error_run'])} against {_error(summary['error_dense'])} dense"
    )
    caution = "" if summary["selected_on"] == "validation" else " (chosen on the same set it is reported on)"
    if summary["error_run"] > summary["error_dense"] + _allowed(summary):
        return f"Ship the dense network: the sparse one makes more errors. It has {figures}{caution}."
    speeds = "; ".join(_speed(timing) for timing in summary["timings"])
    faster = [timing for timing in summary["timings"] if _compare(timing) > 0]
    if summary["weights_kept"] == summary["weights"]:
        return f"Ship the dense network: no weight could go within the allowed error. {_sentence(speeds)}."
    if not faster:
        return f"Ship model.zs for its size, but run it dense: {figures}{caution}. {_sentence(speeds)}."
    return f"Ship model.zs and run it with zeroskip: {figures}{caution}. {_sentence(speeds)}."


def _allowed(summary: dict[str, Any]) -> float:
    sizes = summary.get("splits") or {}
    return max(summary["max_error_rise"], 1 / sizes["test"] if sizes.get("test") else 0.0) + 1e-9


def _speed(timing: dict[str, Any]) -> str:
    name, dense = _fastest_dense(timing)
    ratio = dense / timing["seconds"]["zeroskip"]
    order = _compare(timing)
    if order == 0:
        return f"at batch {timing['batch']} about as fast as {name}, the fastest dense engine"
    how = f"{ratio:.1f}x faster than" if order > 0 else f"{1 / ratio:.1f}x SLOWER than"
    return f"at batch {timing['batch']} {how} {name}, the fastest dense engine"


def _compare(timing: dict[str, Any]) -> int:
    """1 where ours is faster beyond the spread of both, -1 where it is slower, 0 where they overlap."""
    name, _ = _fastest_dense(timing)
    ours, dense = timing["spread"]["zeroskip"], timing["spread"][name]
    return 1 if ours[1] < dense[0] else -1 if ours[0] > dense[1] else 0


def _fastest_dense(timing: dict[str, Any]) -> tuple[str, float]:
    dense = {name: seconds for name, seconds in timing["seconds"].items() if name != "zeroskip"}
    name = min(dense, key=dense.__getitem__)
    return name, dense[name]


def _error(value: float) -> str:
    return f"{value:.2%}" if 0 <= value <= 1 else f"{value:.4g}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
