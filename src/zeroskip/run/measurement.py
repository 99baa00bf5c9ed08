"""What compiling measured about a program, as JSON and as a table."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zeroskip.concepts import Choice, Explanation, Machine
from zeroskip.errors import EngineError

JsonObject = Mapping[str, Any]
"""An object of JSON, as it was read."""

WIDE = 120  # columns of a printed program
TIED = "\xa0"  # a space at which no line is broken

Refusal = tuple[tuple[str, ...], str]
"""Kernels, and why none of them can run a layer."""


@dataclass(frozen=True)
class Unreached:
    """A weight that is in no layer, so that no kernel skips its zeros.

    weights, zeros  how many it has, and how many of them are zero
    why             e.g. "lstm: no sparse kernel"
    operation       that multiplies with it, "lstm"; "" where none does
    """

    name: str
    weights: int
    zeros: int
    why: str
    operation: str = ""


@dataclass(frozen=True)
class Measurement:
    """What was chosen and measured on the example; `run.Program` explains its attributes of the same names.

    explanation  None in files that older versions wrote
    """

    choices: tuple[Choice, ...]
    precision: str
    threads: int
    batch: int
    seconds: float
    dense_seconds: float
    error: float = 0.0
    unreached: tuple[Unreached, ...] = ()
    explanation: Explanation | None = None


def to_json(measurement: Measurement) -> JsonObject:
    """The measurement as JSON.

    >>> from_json(to_json(Measurement((), "fp32", 1, 64, 1e-3, 2e-3))).batch
    64
    """
    explanation = measurement.explanation
    return {**asdict(measurement), "explanation": explanation and explanation.to_json()}


def from_json(stored: JsonObject) -> Measurement:
    """The measurement of a file; raises whatever Python says of what makes no sense."""
    explained = stored.get("explanation")
    return Measurement(
        choices=tuple(map(_choice, stored["choices"])),
        precision=str(stored["precision"]),
        threads=stored["threads"],
        batch=stored["batch"],
        seconds=float(stored["seconds"]),
        dense_seconds=float(stored["dense_seconds"]),
        error=float(stored["error"]),
        unreached=tuple(map(_unreached, stored.get("unreached", []))),
        explanation=Explanation.from_json(explained) if explained else None,
    )


def _unreached(stored: JsonObject) -> Unreached:
    name, why, operation = str(stored["name"]), str(stored["why"]), str(stored.get("operation", ""))
    return Unreached(name, int(stored["weights"]), int(stored["zeros"]), why, operation)


def _choice(stored: JsonObject) -> Choice:
    choice = Choice(
        layer=str(stored["layer"]),
        op=str(stored["op"]),
        weight_shape=tuple(map(int, stored["weight_shape"])),
        sparsity=float(stored["sparsity"]),
        kernel=str(stored["kernel"]),
        seconds={str(name): float(took) for name, took in stored["seconds"].items()},
        refused={str(name): str(why) for name, why in stored["refused"].items()},
        reason=str(stored["reason"]),
        error=float(stored["error"]),
        skips=str(stored.get("skips", "")),
    )
    if not {"dense", choice.kernel} <= set(choice.seconds):
        raise EngineError(f'no seconds of "{choice.kernel}" are known for {choice.layer}')
    return choice


def table(
    measurement: Measurement, machine: Machine, scratch_bytes: int = 0, through: Sequence[str] = ()
) -> str:
    """The table of a program; `through` is what PyTorch computes between the layers, if nothing else says so.

    >>> seconds = {"sell": 6.1e-6, "dense": 15.4e-6, "spmm": 10.9e-6}
    >>> refused = {"channels_last": "a layout of images, and linear has none"}
    >>> choice = Choice("fc1", "linear", (300, 784), 0.92, "sell", seconds, refused, "fastest")
    >>> print(table(Measurement((choice,), "fp32", 1, 1, 4.9e-6, 15.3e-6), machine, through=["softmax"]))
    an example, 2 cores, 512-bit vectors; fp32, batch 1, 1 thread: 4.9 us a call, 15.3 us with every layer dense
    through torch: softmax
    layer  weight   zeros  kernel  time    dense    why, and the others
    fc1    300x784  92.0%  sell    6.1 us  15.4 us  fastest; spmm 10.9 us [1]
    [1] channels_last: a layout of images, and linear has none
    """
    choices, count = measurement.choices, measurement.threads
    threads = f"{count} thread{'s' if count > 1 else ''}"
    head = f"{machine.title}; {measurement.precision}, batch {measurement.batch}, {threads}: "
    times = f"{_time(measurement.seconds)} a call, {_time(measurement.dense_seconds)} with every layer dense"
    explained = measurement.explanation
    more = [f"through torch: {', '.join(through)}"] if through and explained is None else []
    more += [f"scratch {scratch_bytes / 1e6:.1f} MB a call"] if scratch_bytes else []
    notes = _footnotes(choices)
    titles = ("layer", "weight", "zeros", "kernel", "time", "dense", "why, and the others")
    rows = [titles, *(_row(choice, notes) for choice in choices)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles) - 1)]
    above = [*(explained.lines if explained else ()), *(["; ".join(more)] if more else [])]
    lines = [_folded(head + times), *map(_folded, above)]
    lines += [_line(row, widths) for row in rows]
    lines += list(map(_folded, _elsewhere(measurement.unreached)))
    lines += [_folded(f"[{number}] {', '.join(names)}: {why}") for (names, why), number in notes.items()]
    return "\n".join(lines)


def _elsewhere(unreached: Sequence[Unreached]) -> list[str]:
    """The weights that are in no layer, a line for each reason."""
    by_reason: dict[str, list[Unreached]] = {}
    for each in unreached:
        by_reason.setdefault(each.why, []).append(each)
    return [
        f"in no layer: {', '.join(each.name or 'weight' for each in group[:2])}"
        f"{f' and {len(group) - 2} more' if len(group) > 2 else ''}, "
        f"{sum(each.weights for each in group):,} weights: {why}"
        for why, group in by_reason.items()
    ]


def _footnotes(choices: Sequence[Choice]) -> dict[Refusal, int]:
    """Each refusal once, numbered: in a deep network most layers share theirs."""
    refusals = dict.fromkeys(each for choice in choices for each in _refusals(choice))
    return {each: number for number, each in enumerate(refusals, start=1)}


def _refusals(choice: Choice) -> list[Refusal]:
    reasons = dict.fromkeys(choice.refused.values())
    return [(tuple(name for name, each in choice.refused.items() if each == why), why) for why in reasons]


def _row(choice: Choice, notes: Mapping[Refusal, int]) -> tuple[str, ...]:
    others = {name: took for name, took in choice.seconds.items() if name not in ("dense", choice.kernel)}
    rounded = [f"rounds by {choice.error:.2g} of the largest output"] if choice.error else []
    slower = ", ".join(f"{name} {_time(took)}".replace(" ", TIED) for name, took in others.items())
    why = "; ".join([choice.reason, *rounded, *([slower] if slower else [])])
    numbers = ",".join(str(number) for number in sorted(notes[each] for each in _refusals(choice)))
    shape = "x".join(map(str, choice.weight_shape))
    times = _time(choice.seconds[choice.kernel]), _time(choice.seconds["dense"])
    why += f" [{numbers}]" if numbers else ""
    return choice.layer or "(itself)", shape, f"{choice.sparsity:.1%}", choice.kernel, *times, why


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """The row with its columns below each other, the last one folded."""
    *cells, why = row
    start = "".join(f"{cell.ljust(width)}  " for cell, width in zip(cells, widths, strict=True))
    wide, space = max(WIDE, len(start) + 40), " " * len(start)
    folded = textwrap.fill(why, wide, initial_indent=start, subsequent_indent=space, break_long_words=False)
    return folded.replace(TIED, " ")


def _folded(line: str) -> str:
    return textwrap.fill(line, WIDE, subsequent_indent="    ", break_long_words=False)


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.1f} us"
