"""LSTM, GRU and RNN modules with zeros, and the operations that they are captured as."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from zeroskip.concepts import Kernel, Layer, Machine, Precision
from zeroskip.graph.recurrent import Cell, Recurrent
from zeroskip.run.output_difference import leaves

KINDS: dict[str, Callable[..., nn.Module]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
}
CELLS: dict[str, Callable[..., nn.Module]] = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn_tanh": nn.RNNCell}


def sparse(module: nn.Module, zeros: float = 0.8, *, seed: int = 0) -> nn.Module:
    """The module in evaluation mode, with normal biases and that share of zeros in its matrices."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        drawn = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
        if parameter.ndim > 1:
            drawn[torch.rand(parameter.shape, generator=generator) < zeros] = 0
            drawn.view(-1)[0] = 0  # at least one
        parameter.data.copy_(drawn)
    return module.eval().requires_grad_(False)


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    """A kind with sizes, layers, directions, projection, bias, layout, zeros and seed."""
    units = draw(st.sampled_from([1, 2, 7, 16, 17, 33]))
    kind = draw(st.sampled_from([*KINDS]))
    projected = kind == "lstm" and units > 1 and draw(st.booleans())
    return {
        "kind": kind,
        "sizes": (draw(st.integers(1, 40)), units, draw(st.integers(1, 3))),
        "options": {
            "bias": draw(st.booleans()),
            "batch_first": draw(st.booleans()),
            "bidirectional": draw(st.booleans()),
            **({"proj_size": draw(st.integers(1, units - 1))} if projected else {}),
        },
        "zeros": draw(st.sampled_from([0.0, 0.5, 0.9, 1.0])),
        "seed": draw(st.integers(0, 9)),
    }


def module_of(drawn: dict[str, Any]) -> nn.Module:
    """The module of `options`."""
    return sparse(
        KINDS[drawn["kind"]](*drawn["sizes"], **drawn["options"]), drawn["zeros"], seed=drawn["seed"]
    )


def first_states(module: nn.Module, batch: int) -> tuple[list[Tensor], tuple[Any, ...]]:
    """Normal numbers, as operations take them and as the module does."""
    sizes = (module.proj_size or module.hidden_size, module.hidden_size)[: 1 + (module.mode == "LSTM")]
    states = [torch.randn(module.num_layers * (1 + module.bidirectional), batch, size) for size in sizes]
    return states, (tuple(states) if len(states) > 1 else states[0],)


def operation(module: nn.Module, *, given: bool = False, packed: bool = False) -> Recurrent:
    """The module as an operation, put together by hand: to capture it takes a second."""
    is_step = isinstance(module, nn.RNNCellBase)
    kind = type(module).__name__.removesuffix("Cell").lower()
    kind = kind if kind != "rnn" else f"rnn_{module.nonlinearity}"
    if is_step:
        return Recurrent(kind, (_cell(module, ""),), given=given, is_step=True)
    ends = [
        f"_l{layer}{way}"
        for layer in range(module.num_layers)
        for way in ("", "_reverse")[: 1 + module.bidirectional]
    ]
    cells = tuple(_cell(module, end) for end in ends)
    batch_first = module.batch_first and not packed
    return Recurrent(kind, cells, 1 + module.bidirectional, batch_first, given, is_packed=packed)


def _cell(module: nn.Module, end: str) -> Cell:
    parts = ("ih", "hh", *(["hr"] if getattr(module, "proj_size", 0) else []))
    weights = {part: getattr(module, f"weight_{part}{end}") for part in parts}
    biases = {part: getattr(module, f"bias_{part}{end}", None) for part in parts}
    shapes = {part: tuple(reversed(weight.shape)) for part, weight in weights.items()}
    return Cell(
        *(
            Layer(f"weight_{part}{end}", "linear", weight, biases[part], shapes[part][:1], shapes[part][1:])
            for part, weight in weights.items()
        )
    )


def built(kernel: Kernel, recurrent: Recurrent, machine: Machine) -> Callable[..., Any]:
    """The kernel's function, after asking whether it accepts the operation."""
    precision = Precision(weights=kernel.weights)
    assert kernel.accepts(recurrent, machine, precision) is None
    return kernel.build(recurrent, machine, precision, False)


def assert_close(value: Any, expected: Any, *, far: float = 2e-6) -> None:
    """Equal up to rounding: of states between -1 and 1, or as share of the largest."""
    for one, other in zip(leaves(value), leaves(expected), strict=True):
        most = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        torch.testing.assert_close(one, other, rtol=0, atol=far * most, equal_nan=True)
