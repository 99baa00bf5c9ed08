"""LSTM, GRU and RNN operations with constant weights: their matrices as Layers, and what PyTorch computes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, fx

from zeroskip.concepts import Layer
from zeroskip.errors import EngineError
from zeroskip.graph.packing import sizes_of
from zeroskip.graph.torch_operations import Argument, Constants
from zeroskip.graph.weighted_nodes import layer_name

ATEN = torch.ops.aten
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
PACKED: dict[object, str] = {getattr(ATEN, kind).data: kind for kind in GATES}
SEQUENCES: dict[object, str] = {getattr(ATEN, kind).input: kind for kind in GATES} | PACKED
CELLS: dict[object, str] = {
    ATEN.lstm_cell.default: "lstm",
    ATEN.gru_cell.default: "gru",
    ATEN.rnn_tanh_cell.default: "rnn_tanh",
    ATEN.rnn_relu_cell.default: "rnn_relu",
}
StepOutputs: TypeAlias = Tensor | tuple[Tensor, ...]
"""What a recurrent operation returns."""
ZEROS = (ATEN.zeros.default, ATEN.zeros_like.default, ATEN.new_zeros.default)


@dataclass(frozen=True)
class Cell:
    """The weights of one layer in one direction; biases belong to their matrices.

    inputs      (gates x units, in): of an LSTM i, f, g, o; of a GRU r, z, n
    hidden      (gates x units, states)
    projection  (states, units) of an LSTM with `proj_size`; otherwise there are as many states as units

    >>> cell.units, cell.states
    (4, 4)
    """

    inputs: Layer
    hidden: Layer
    projection: Layer | None = None

    @property
    def matrices(self) -> tuple[Layer, ...]:
        """All of them."""
        return (self.inputs, self.hidden, *([self.projection] if self.projection else []))

    @property
    def states(self) -> int:
        """Numbers that a step hands to the next one, and outputs."""
        return self.hidden.weight.shape[1]

    @property
    def units(self) -> int:
        """Numbers in each gate."""
        return self.states if self.projection is None else self.projection.weight.shape[1]


@dataclass(frozen=True)
class Recurrent:
    """An operation that goes through a sequence step by step, in all its layers and directions.

    kind         "lstm", "gru", "rnn_tanh" or "rnn_relu"
    cells        layer after layer; forward before backward
    directions   1 or 2
    batch_first  whether values are (batch, steps, features), otherwise (steps, batch, features)
    given        whether the first states are inputs; otherwise they are zeros
    is_step      whether it is one step of a cell: values are (batch, features)
    is_packed    whether it takes packed sequences: values are (steps of all sequences, features), step after step of
                 those that are not over, the longest sequence first; how many have each step is an input

    >>> recurrent.name, [layer.name for layer in recurrent.matrices]
    ('lstm', ['lstm.weight_ih_l0', 'lstm.weight_hh_l0'])
    """

    kind: str
    cells: tuple[Cell, ...]
    directions: int = 1
    batch_first: bool = False
    given: bool = False
    is_step: bool = False
    is_packed: bool = False

    @property
    def matrices(self) -> tuple[Layer, ...]:
        """The matrices of all cells."""
        return tuple(layer for cell in self.cells for layer in cell.matrices)

    @property
    def name(self) -> str:
        """That of the module that owns the weights; "" for a bare one."""
        return self.matrices[0].name.rpartition(".")[0]


def function_of(recurrent: Recurrent) -> Callable[..., StepOutputs]:
    """It as PyTorch computes it: of the sequence, of packed ones their sizes, and the first states where given.

    A cell returns its state (of an LSTM: both), anything else its outputs and the last states.

    >>> y, h, c = function_of(recurrent)(torch.zeros(2, 3, 5))
    >>> y.shape, h.shape
    (torch.Size([2, 3, 4]), torch.Size([1, 3, 4]))
    """
    return _step(recurrent) if recurrent.is_step else _sequence(recurrent)


def _sequence(recurrent: Recurrent) -> Callable[..., StepOutputs]:
    overloads = getattr(ATEN, recurrent.kind)
    biased = recurrent.cells[0].inputs.bias is not None
    parameters = [each for cell in recurrent.cells for each in _parameters(cell)]
    layers = len(recurrent.cells) // recurrent.directions
    # has_biases, num_layers, dropout, train, bidirectional, batch_first
    rest = biased, layers, 0.0, False, recurrent.directions == 2

    def first_states(x: Tensor, batch: int, states: Sequence[Tensor]) -> Tensor | list[Tensor]:
        first = list(states) or [x.new_zeros(shape) for shape in state_shapes(recurrent, batch)]
        return first if recurrent.kind == "lstm" else first[0]

    def run(x: Tensor, *states: Tensor) -> StepOutputs:
        _check(recurrent, x, states)
        first = first_states(x, x.shape[0 if recurrent.batch_first else 1], states)
        return cast(StepOutputs, overloads.input(x, first, parameters, *rest, recurrent.batch_first))

    def run_packed(x: Tensor, sizes: Tensor, *states: Tensor) -> StepOutputs:
        first = first_states(x, batch_of(recurrent, x, sizes, states), states)
        return cast(StepOutputs, overloads.data(x, sizes, first, parameters, *rest))

    return run_packed if recurrent.is_packed else run


def batch_of(recurrent: Recurrent, x: Tensor, sizes: Tensor, states: Sequence[Tensor]) -> int:
    """How many packed sequences there are; EngineError for sizes and states that are not theirs.

    >>> packed = replace(recurrent, is_packed=True)
    >>> batch_of(packed, torch.zeros(5, 5), torch.tensor([3, 2]), [])
    3
    """
    features = recurrent.cells[0].inputs.weight.shape[1]
    name = recurrent.name or recurrent.kind
    if x.ndim != 2 or x.shape[1] != features:
        raise EngineError(
            f"{name} takes packed sequences of {features} features, and was given {tuple(x.shape)}."
        )
    given = sizes_of(x, sizes, name)
    wanted = state_shapes(recurrent, given[0]) if recurrent.given else []
    if [state.shape for state in states] != wanted:
        shapes = " and ".join(str(tuple(state.shape)) for state in states)
        raise EngineError(
            f"{name} begins with states of {' and '.join(map(str, wanted)) or 'zeros'}, and was given "
            f"{shapes or 'none'}."
        )
    return given[0]


def _check(recurrent: Recurrent, x: Tensor, states: Sequence[Tensor]) -> None:
    """EngineError for sizes that torch's own modules refuse: the operation below them would read foreign memory."""
    features = recurrent.cells[0].inputs.weight.shape[1]
    batch = x.shape[0 if recurrent.batch_first else 1] if x.ndim == 3 else 0
    expected = state_shapes(recurrent, batch) if recurrent.given else []
    if x.ndim != 3 or x.shape[2] != features or [state.shape for state in states] != expected:
        given = ", ".join(str(tuple(each.shape)) for each in (x, *states))
        raise EngineError(
            f"{recurrent.name or recurrent.kind} takes {features} features, and was given {given}."
        )


def _step(recurrent: Recurrent) -> Callable[..., StepOutputs]:
    operation = getattr(ATEN, "lstm_cell" if recurrent.kind == "lstm" else f"{recurrent.kind}_cell").default
    (cell,) = recurrent.cells
    weights = cell.inputs.weight, cell.hidden.weight, cell.inputs.bias, cell.hidden.bias

    def run(x: Tensor, *states: Tensor) -> StepOutputs:
        first = states or [x.new_zeros(shape[1:]) for shape in state_shapes(recurrent, len(x))]
        given = list(first) if recurrent.kind == "lstm" else first[0]
        return cast(StepOutputs, operation(x, given, *weights))

    return run


def state_shapes(recurrent: Recurrent, batch: int) -> list[tuple[int, int, int]]:
    """The shapes of the states, (cells, batch, numbers): of an LSTM those of h and c.

    >>> state_shapes(recurrent, 3)
    [(1, 3, 4), (1, 3, 4)]
    """
    cell, cells = recurrent.cells[0], len(recurrent.cells)
    sizes = (cell.states, cell.units) if recurrent.kind == "lstm" else (cell.states,)
    return [(cells, batch, size) for size in sizes]


def _parameters(cell: Cell) -> list[Tensor]:
    weights = [cell.inputs.weight, cell.hidden.weight]
    biases = [layer.bias for layer in (cell.inputs, cell.hidden) if layer.bias is not None]
    return [*weights, *biases, *([cell.projection.weight] if cell.projection else [])]


@dataclass(frozen=True)
class Found:
    """A recurrent operation of an exported network, and the changing values that it reads."""

    recurrent: Recurrent
    inputs: tuple[fx.Node, ...]


def recurrent_of(
    node: fx.Node, constants: Constants, values: Mapping[fx.Node, Argument], names: Mapping[fx.Node, str]
) -> Found | None:
    """The node as a recurrent operation with constant weights; None where it is something else."""
    kind = SEQUENCES.get(node.target) or CELLS.get(node.target)
    if kind is None or node.kwargs:
        return None
    args: tuple[Any, ...] = node.args
    is_packed = node.target in PACKED
    sizes = list(args[1:2]) if is_packed else []
    if is_packed:  # the sizes come second, and nothing says which axis is that of examples
        args = (args[0], *args[2:], False)
    x, states = args[0], list(args[1]) if kind == "lstm" else [args[1]]
    is_step = node.target in CELLS
    parameters = list(args[2:6]) + [None] * (6 - len(args)) if is_step else list(args[2])
    if x in constants or not all(each is None or each in constants for each in parameters):
        return None
    if not is_step and args[6]:  # in training
        return None
    zeros = all(_is_zero(each, constants) for each in states)
    if not zeros and any(each in constants for each in states):
        return None
    biased, steps, layers, directions, batch_first = True, 1, 1, 1, False
    if not is_step:
        biased, layers, directions, batch_first = args[3], args[4], 1 + args[7], args[8]
        steps = cast(Tensor, values[x]).shape[1 if batch_first else 0]
    if is_packed:  # of one sequence, in the mean
        if sizes[0] in constants:
            return None
        steps //= int(cast(Tensor, values[sizes[0]])[0])
    every = len(parameters) // (layers * directions)
    parts = [parameters[start : start + every] for start in range(0, len(parameters), every)]
    cells = tuple(_cell(part, biased, steps, constants, names) for part in parts)
    found = Recurrent(kind, cells, directions, batch_first, not zeros, is_step, is_packed)
    # torch takes one bias without the other; the kernels, as the modules, have both or none.
    return Found(found, (x, *sizes, *([] if zeros else states))) if fits(found) else None


def _cell(
    nodes: Sequence[fx.Node | None], biased: bool, steps: int, constants: Constants, names: Mapping[fx.Node, str]
) -> Cell:  # fmt: skip
    """A cell of w_ih, w_hh, b_ih and b_hh where there are biases, w_hr where there is a projection."""
    weights = [*nodes[:2], *nodes[4 if biased else 2 :]]
    biases = [*(nodes[2:4] if biased else (None, None)), None]

    def layer(weight: fx.Node | None, bias: fx.Node | None) -> Layer:
        assert weight is not None
        matrix = cast(Tensor, constants[weight])
        shift = None if bias is None else cast(Tensor, constants[bias])
        shapes = (steps, matrix.shape[1]), (steps, matrix.shape[0])
        return Layer(layer_name(weight, names), "linear", matrix, shift, *shapes)

    return Cell(*(layer(weight, bias) for weight, bias in zip(weights, biases, strict=False)))


def _is_zero(state: fx.Node, constants: Constants) -> bool:
    """Whether a first state is nothing but zeros at every call."""
    if state in constants:
        return not torch.any(cast(Tensor, constants[state]))
    read_alone = all(user.target in SEQUENCES or user.target in CELLS for user in state.users)
    return state.target in ZEROS and read_alone  # another reader might be one that writes


def with_weights_of(known: Recurrent, recurrent: Recurrent) -> Recurrent:
    """`recurrent` with the tensors of `known` where they are equal, so that they are in memory once."""
    if len(known.cells) != len(recurrent.cells) or known.kind != recurrent.kind:
        return recurrent
    pairs = zip(recurrent.cells, known.cells, strict=True)
    return replace(recurrent, cells=tuple(_shared(cell, other) for cell, other in pairs))


def fits(recurrent: Recurrent) -> bool:
    """Whether the shapes of all matrices and biases are those of such an operation.

    >>> fits(recurrent), fits(replace(recurrent, kind="gru"))
    (True, False)
    """
    gates, directions, cells = GATES.get(recurrent.kind, 0), recurrent.directions, recurrent.cells
    if not gates or not cells or directions not in (1, 2) or len(cells) % directions:
        return False
    if recurrent.is_step and (len(cells) > 1 or cells[0].projection is not None):
        return False
    states, biased = cells[0].states, cells[0].inputs.bias is not None
    for number, cell in enumerate(cells):
        rows = gates * cell.units
        columns = cell.inputs.weight.shape[1] if number < directions else directions * states
        shapes = [(rows, columns), (rows, states), *([(states, cell.units)] if cell.projection else [])]
        same = [tuple(layer.weight.shape) for layer in cell.matrices] == shapes
        biases = [layer.bias is not None for layer in cell.matrices] == [biased, biased, False][
            : len(cell.matrices)
        ]
        projected = cell.projection is None or recurrent.kind == "lstm"
        if not (same and biases and projected and cell.units == cells[0].units):
            return False
        if number % directions and cell.inputs.weight.shape != cells[number - 1].inputs.weight.shape:
            return False
    return len({layer.weight.dtype for layer in recurrent.matrices}) == 1


def is_same(known: Recurrent, recurrent: Recurrent) -> bool:
    """Whether the two compute the same of a sequence of any length, with the same tensors.

    >>> is_same(recurrent, recurrent)
    True
    """
    pairs = list(zip(known.matrices, recurrent.matrices, strict=False))
    same = replace(known, cells=()) == replace(recurrent, cells=()) and len(known.matrices) == len(
        recurrent.matrices
    )
    return same and all(a.weight is b.weight and a.bias is b.bias for a, b in pairs)


def _shared(cell: Cell, known: Cell) -> Cell:
    layers = []
    for layer, other in zip(cell.matrices, known.matrices, strict=True):
        biases = [each for each in (layer.bias, other.bias) if each is not None]
        same = layer.weight.shape == other.weight.shape and torch.equal(layer.weight, other.weight)
        same = same and len(biases) != 1 and (not biases or torch.equal(*biases))
        layers.append(replace(layer, weight=other.weight, bias=other.bias) if same else layer)
    return Cell(*layers)
