"""The last line of a run: what to ship, and why. It says plainly when dense wins."""

from __future__ import annotations

from typing import Any


def verdict(summary: dict[str, Any]) -> str:
    """One or two sentences from the figures of a run's summary.

    The sparse network may lose what was allowed, or one test example: less cannot be told apart.

    >>> verdict(summary)
    'Ship model.zs and run it with zeroskip: 24.8x fewer weights, ...'
    """
    file = f"{summary['shown']}/model.zs" if "shown" in summary else "model.zs"
    size = summary["stored_times_smaller"]
    figures = (
        f"{summary['weights_times_fewer']:.1f}x fewer weights, a file {_ratio(size, 'smaller', 'LARGER')}, "
        f"error {_error(summary['error_run'])} against {_error(summary['error_dense'])} dense"
    )
    if summary["selected_on"] != "validation":
        figures += " (chosen on the same set it is reported on)"
    speeds = _sentence("; ".join(_speed(timing) for timing in summary["timings"]) + _who_did_it(summary))
    if summary["weights_kept"] == summary["weights"]:
        return f"Ship the dense network: no weight could go within the allowed error. {speeds}."
    if summary["error_run"] > summary["error_dense"] + _allowed(summary):
        return f"Ship the dense network: the sparse one makes more errors. It has {figures}. {speeds}."
    if any(_compare(timing) > 0 for timing in summary["timings"]):
        return f"Ship {file} and run it with zeroskip: {figures}. {speeds}."
    if size > 1:
        return f"Ship {file} for its size, but run it dense: {figures}. {speeds}."
    return (
        f"Ship the dense network: the sparse one is neither smaller nor faster. It has {figures}. {speeds}."
    )


def _who_did_it(summary: dict[str, Any]) -> str:
    """Zeros get the credit only where a kernel skips them."""
    dense = {"dense", "dense_bf16", "channels_last", "depthwise", "none"}
    if all(layer["kernel"] in dense for layer in summary["layers"]):
        return " (every layer runs dense, so zeros have no part in this)"
    return ""


def _allowed(summary: dict[str, Any]) -> float:
    sizes = summary.get("splits") or {}
    return max(summary["max_error_rise"], 1 / sizes["test"] if sizes.get("test") else 0.0) + 1e-9


def _speed(timing: dict[str, Any]) -> str:
    name, dense = _fastest_dense(timing)
    ratio = dense / timing["seconds"]["zeroskip"]
    order = _compare(timing)
    if order == 0:
        return f"at batch {timing['batch']} about as fast as {name}, the fastest dense engine"
    how = _ratio(ratio, "faster", "SLOWER")
    return f"at batch {timing['batch']} {how} than {name}, the fastest dense engine{_by_zeros(timing)}"


def _by_zeros(timing: dict[str, Any]) -> str:
    """What of the gain is due to zeros: against the same program with every layer dense."""
    without = timing["seconds"].get("zeroskip, all dense")
    if without is None:
        return ""
    ratio = without / timing["seconds"]["zeroskip"]
    return f" ({_ratio(ratio, 'faster', 'SLOWER')} than itself without skipping zeros)"


def _compare(timing: dict[str, Any]) -> int:
    """1 where ours is faster beyond the spread of both, -1 where it is slower, 0 where they overlap."""
    name, _ = _fastest_dense(timing)
    ours, dense = timing["spread"]["zeroskip"], timing["spread"][name]
    return 1 if ours[1] < dense[0] else -1 if ours[0] > dense[1] else 0


def _fastest_dense(timing: dict[str, Any]) -> tuple[str, float]:
    dense = {name: seconds for name, seconds in timing["seconds"].items() if not name.startswith("zeroskip")}
    name = min(dense, key=dense.__getitem__)
    return name, dense[name]


def _ratio(value: float, better: str, worse: str) -> str:
    return f"{value:.1f}x {better}" if value >= 1 else f"{1 / value:.1f}x {worse}"


def _error(value: float) -> str:
    return f"{value:.2%}" if 0 <= value <= 1 else f"{value:.4g}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
