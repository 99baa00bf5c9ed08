"""Activation functions of operations on tiles: which node of a graph is one, and how it becomes machine code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import Function, Vector
from zeroskip.emit import activations as emitted
from zeroskip.emit.activation_tables import LANES, TABLES, looked_up
from zeroskip.graph import Node
from zeroskip.graph.torch_operations import Argument

# Alpha, scale and scale of the input (Klambauer 2017).
SELU = (1.6732632423543772, 1.0507009873554805, 1.0)


@dataclass(frozen=True)
class Activation:
    """A function of each number of a map.

    kind     "relu", "bounded" (ReLU and an upper bound, as in ReLU6), "clamp", "leaky_relu", "silu", "gelu",
             "gelu_tanh", "sigmoid", "tanh", "hardswish", "hardsigmoid", "elu", "softplus", "mish", "abs", "exp",
             "sqrt", "rsqrt", "reciprocal", "square", "cube"
    numbers  its parameters, in the order of PyTorch's arguments

    >>> Activation("bounded", (6.0,)).keeps_positive
    True
    """

    kind: str
    numbers: tuple[float, ...] = ()

    @property
    def keeps_positive(self) -> bool:
        """Whether no result is below 0."""
        return self.kind in ("relu", "bounded", "sigmoid", "hardsigmoid", "softplus", "abs", "exp", "square")

    @property
    def can_be_baked(self) -> bool:
        """Whether baked code has it; others follow it as a step of their own."""
        return self.kind in ("relu", "bounded")

    @property
    def bound(self) -> float | None:
        """The largest result of a bounded ReLU."""
        return self.numbers[0] if self.kind == "bounded" else None


RELU = Activation("relu")
POWERS: Mapping[float, str] = {2: "square", 3: "cube", 1 / 2: "sqrt", -1 / 2: "rsqrt", -1: "reciprocal"}
WITHOUT_NUMBERS = (
    "relu", "silu", "gelu", "gelu_tanh", "sigmoid", "tanh", "hardswish", "hardsigmoid", "mish", "abs", "exp", "sqrt",
    "rsqrt", "reciprocal", "square", "cube",
)  # fmt: skip
NUMBERS = {
    **dict.fromkeys(WITHOUT_NUMBERS, 0),
    "bounded": 1, "leaky_relu": 1, "clamp": 2, "softplus": 2, "elu": 3,
}  # fmt: skip
"""How many numbers each activation has."""


def activation_of(node: Node) -> Activation | None:
    """The node as an activation; None where it is none, or one that is not known with these arguments.

    >>> activation_of(Node("y", "aten.elu.default", ("x",), torch.selu, arguments={"alpha": 2.0}))
    Activation(kind='elu', numbers=(2.0, 1.0, 1.0))
    """
    kind = node.op.removeprefix("aten.").split(".")[0].rstrip("_")
    arguments = node.arguments
    if len(node.inputs) != 1:
        return None
    if kind in WITHOUT_NUMBERS and kind not in ("gelu", "gelu_tanh", "cube"):
        return Activation(kind)
    if kind == "pow":
        exponent = arguments.get("exponent")
        power = POWERS.get(exponent) if isinstance(exponent, (int, float)) else None
        return None if power is None else Activation(power)
    if kind == "relu6":
        return Activation("bounded", (6.0,))
    if kind in ("hardtanh", "clamp", "clamp_min", "clamp_max"):
        return _clamp(
            arguments.get("min_val", arguments.get("min")), arguments.get("max_val", arguments.get("max"))
        )
    if kind == "gelu":
        return Activation("gelu_tanh" if arguments.get("approximate") == "tanh" else "gelu")
    if kind == "selu":
        return Activation("elu", SELU)
    if kind == "celu":
        alpha = _numbers(arguments, {"alpha": 1.0})[0]
        return Activation("elu", (alpha, 1.0, 1 / alpha)) if alpha > 0 else None
    defaults = {
        "leaky_relu": {"negative_slope": 0.01},
        "elu": {"alpha": 1.0, "scale": 1.0, "input_scale": 1.0},
        "softplus": {"beta": 1.0, "threshold": 20.0},
    }
    numbers = _numbers(arguments, defaults.get(kind, {}))
    # Over 0, which PyTorch leaves to infinities, or e^x of positive numbers, which the code of an ELU lacks.
    odd = (kind == "softplus" and numbers[0] == 0) or (kind == "elu" and numbers[2] < 0)
    return Activation(kind, numbers) if kind in defaults and not odd else None


def activated(f: Function, v: Vector, activation: Activation, x: str) -> str:
    """The vector x after the activation; NaN stays NaN."""
    kind, numbers = activation.kind, activation.numbers
    if kind in ("relu", "bounded"):
        x = f.relu(v, x)
        return x if activation.bound is None else _at_most(f, v, x, activation.bound)
    if kind == "clamp":
        return _at_most(f, v, _at_least(f, v, x, numbers[0]), numbers[1])
    if kind == "leaky_relu":
        below = f.value(f"fcmp olt {v} {x}, zeroinitializer")
        small = f.value(f"fmul {v} {x}, {f.constant(v, numbers[0])}")
        return f.value(f"select {v.mask} {below}, {v} {small}, {v} {x}")
    if kind == "hardsigmoid":
        return _hardsigmoid(f, v, x)
    if kind == "hardswish":
        return f.value(f"fmul {v} {x}, {_hardsigmoid(f, v, x)}")
    if kind == "elu":
        return emitted.elu(*numbers)(f, v, x)
    if kind == "softplus":
        return emitted.softplus(*numbers)(f, v, x)
    return SMOOTH[kind](f, v, x)


def activated_on(machine: Machine, f: Function, v: Vector, activation: Activation, x: str) -> str:
    """As `activated`, by tables where the machine has instructions for them."""
    if activation.kind in TABLES and v == Vector(LANES) and "avx512f" in machine.features:
        return looked_up(f, v, activation.kind, x)
    return activated(f, v, activation, x)


SMOOTH: Mapping[str, Callable[[Function, Vector, str], str]] = {
    "silu": emitted.silu,
    "sigmoid": emitted.sigmoid,
    "tanh": emitted.tanh,
    "gelu": emitted.gelu,
    "gelu_tanh": emitted.gelu_tanh,
    "mish": emitted.mish,
    "exp": emitted.exp,
    "abs": emitted.magnitude,
    "sqrt": emitted.sqrt,
    "rsqrt": emitted.rsqrt,
    "reciprocal": emitted.reciprocal,
    "square": emitted.square,
    "cube": emitted.cube,
}


def _clamp(low: Argument, high: Argument) -> Activation | None:
    ends = tuple(default if end is None else end for end, default in ((low, -np.inf), (high, np.inf)))
    if not all(isinstance(end, (int, float)) for end in ends):
        return None
    least, most = cast("tuple[float, float]", ends)
    if least == 0:
        return RELU if most == np.inf else Activation("bounded", (float(most),))
    return Activation("clamp", (float(least), float(most)))


def _numbers(arguments: Mapping[str, Argument], defaults: Mapping[str, float]) -> tuple[float, ...]:
    return tuple(float(cast(float, arguments.get(name, default))) for name, default in defaults.items())


def _hardsigmoid(f: Function, v: Vector, x: str) -> str:
    """min(max(x + 3, 0), 6) / 6."""
    moved = f.relu(v, f.value(f"fadd {v} {x}, {f.constant(v, 3.0)}"))
    return f.value(f"fmul {v} {_at_most(f, v, moved, 6.0)}, {f.constant(v, 1 / 6)}")


def _at_most(f: Function, v: Vector, x: str, bound: float) -> str:
    most = f.constant(v, bound)
    above = f.value(f"fcmp ogt {v} {x}, {most}")
    return f.value(f"select {v.mask} {above}, {v} {most}, {v} {x}")


def _at_least(f: Function, v: Vector, x: str, bound: float) -> str:
    least = f.constant(v, bound)
    below = f.value(f"fcmp olt {v} {x}, {least}")
    return f.value(f"select {v.mask} {below}, {v} {least}, {v} {x}")
