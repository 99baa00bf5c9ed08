"""What a step does with the sums of its gates: the activations, and the new state."""

from __future__ import annotations

from collections.abc import Sequence

from zeroskip.emit import Function, Vector
from zeroskip.emit.activations import sigmoid, tanh


def lstm(f: Function, v: Vector, sums: Sequence[str], c: str) -> tuple[str, str]:
    """The vectors (h, c) of the gates i, f, g, o and of c before."""
    i, forget, g, o = (
        act(f, v, each) for act, each in zip((sigmoid, sigmoid, tanh, sigmoid), sums, strict=True)
    )
    c = f.multiply_add(v, forget, c, f.value(f"fmul {v} {i}, {g}"))
    return f.value(f"fmul {v} {o}, {tanh(f, v, c)}"), c


def gru(f: Function, v: Vector, sums: Sequence[str], hidden: str, h: str) -> str:
    """The vector h of the gates r, z and n, of what the hidden matrix adds to n, and of h before."""
    r, z = (sigmoid(f, v, each) for each in sums[:2])
    n = tanh(f, v, f.multiply_add(v, r, hidden, sums[2]))
    return f.multiply_add(v, z, f.value(f"fsub {v} {h}, {n}"), n)


def rnn(f: Function, v: Vector, kind: str, total: str) -> str:
    """The vector h of an "rnn_tanh" or "rnn_relu"."""
    return f.relu(v, total) if kind == "rnn_relu" else tanh(f, v, total)
