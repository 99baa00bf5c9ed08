"""What compiling found out about a program, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from zeroskip.concepts import Choice
from zeroskip.errors import EngineError

JsonObject = Mapping[str, Any]
"""An object of JSON, as it was read."""


@dataclass(frozen=True)
class Measurement:
    """What was chosen and measured on the example; `run.Program` explains its attributes of the same names."""

    choices: tuple[Choice, ...]
    precision: str
    threads: int
    batch: int
    seconds: float
    dense_seconds: float
    error: float = 0.0


def to_json(measurement: Measurement) -> JsonObject:
    """The measurement as JSON.

    >>> from_json(to_json(Measurement((), "fp32", 1, 64, 1e-3, 2e-3))).batch
    64
    """
    return asdict(measurement)


def from_json(stored: JsonObject) -> Measurement:
    """The measurement of a file; raises whatever Python says of what makes no sense."""
    return Measurement(
        choices=tuple(map(_choice, stored["choices"])),
        precision=str(stored["precision"]),
        threads=stored["threads"],
        batch=stored["batch"],
        seconds=float(stored["seconds"]),
        dense_seconds=float(stored["dense_seconds"]),
        error=float(stored["error"]),
    )


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
