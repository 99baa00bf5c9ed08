"""Steps of many examples: one example of the batch in each lane, so that a non-zero weight meets all of them at once.

Inputs and states lie as (features, lanes) in working memory. A group of rows, the gates of a unit (of an RNN: of four
units), is summed together: an entry of its list has a weight for each of the rows, and where each one's input lies.
Rows that end before others of their group meet weights of 0, at columns where they have a zero: an infinite input there
does what it does in PyTorch. Lists of a group begin and end at the same time, so that the end of a loop surprises the
processor once for a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector
from zeroskip.graph.recurrent import GATES, Cell
from zeroskip.run.argument_block import argument_block, offsets
from zeroskip.run.linear.stored_weights import arrays
from zeroskip.run.recurrent import gates
from zeroskip.run.recurrent.steps import PARAMETERS, Steps, at, compiled

ROWS = (
    4  # of an RNN or a projection, which have one row for each unit: sums in turn hide each other's latency
)


def build(kind: str, cell: Cell, machine: Machine) -> Steps:
    """The steps of a cell, with the products of the input matrix; weights in float32."""
    lanes, gates_ = machine.vector_bytes // 4, GATES[kind]
    (weight, bias), (hidden, hidden_bias) = arrays(cell.inputs), arrays(cell.hidden)
    if kind == "gru":  # what the hidden matrix adds to n is kept apart
        lists = [_lists(weight, bias, gates_, lanes), _lists(hidden, hidden_bias, gates_, lanes)]
    else:
        joint = np.concatenate([weight, hidden], axis=1)
        lists = [_lists(joint, bias + hidden_bias, gates_, lanes)]
    if cell.projection is not None:
        lists.append(_lists(*arrays(cell.projection), 1, lanes))
    units, states, inputs = cell.units, cell.states, weight.shape[1]
    arguments = argument_block(inputs, units, states, *(array for each in lists for array in each))
    # x and h, the new h or what is projected, c, and the projected h.
    rows = inputs + states + max(_whole(units), _whole(states)) + _whole(units) + _whole(states)
    run = compiled(emit, machine, kind, int(cell.projection is not None))
    return Steps(run, arguments, rows * lanes)


def _whole(count: int, group: int = 16) -> int:
    """As many rows as are read and written: those of whole groups and squares."""
    return -(-count // group) * group


def _lists(weight: np.ndarray, bias: np.ndarray, gates_: int, lanes: int) -> list[np.ndarray]:
    """A matrix (gates x units, columns) as lists.

    begin (groups + 1,), places and weights (entries, rows), bias (groups, rows).
    """
    order = _order(len(weight) // gates_, gates_)  # (groups, rows)
    groups, rows = order.shape
    padded = np.concatenate([weight, np.zeros((1, weight.shape[1]), np.float32)])[order.reshape(-1)]
    counts = np.count_nonzero(padded, axis=1).reshape(groups, rows)
    begin = offsets(counts.max(axis=1, initial=0))
    places, weights = np.zeros((begin[-1], rows), np.uint32), np.zeros((begin[-1], rows), np.float32)
    for group in range(groups):
        mine = padded[group * rows : (group + 1) * rows]
        length = begin[group + 1] - begin[group]
        columns = np.argsort(mine == 0, axis=1, kind="stable")[:, :length]  # non-zeros first
        places[begin[group] : begin[group + 1]] = (columns * lanes).T
        weights[begin[group] : begin[group + 1]] = np.take_along_axis(mine, columns, axis=1).T
    shift = np.append(bias, np.float32(0))[order]
    return [begin, places, weights, shift]


def _order(units: int, gates_: int) -> np.ndarray:
    """The row of the matrix in each row of each group (groups, rows); -1 where there is none."""
    if gates_ > 1:
        return np.arange(units)[:, None] + units * np.arange(gates_)
    order = np.arange(_whole(units, ROWS))
    return np.where(order < units, order, -1).reshape(-1, ROWS)


def emit(machine: Machine, kind: str, projected: int) -> Function:
    """The steps in LLVM IR."""
    f = Function("spmm_steps", PARAMETERS)
    count = 1 + (kind == "gru") + projected
    fields = f.fields("%plan", [INTEGER] * 3 + [POINTER] * 4 * count)
    lists = [fields[3 + 4 * number : 7 + 4 * number] for number in range(count)]
    v = Vector(machine.vector_bytes // 4)
    with f.loop(0, "%batch", v.lanes) as first:
        inputs, units, states = fields[:3]
        _Writer(f, v, kind, first, inputs, units, states, lists, bool(projected)).emit()
    return f


@dataclass(frozen=True)
class _Writer:
    """Writes the steps of as many examples as there are lanes, of which the one at `first` is the first."""

    f: Function
    v: Vector
    kind: str
    first: str
    inputs: str
    units: str
    states: str
    lists: list[list[str]]
    projected: bool

    def emit(self) -> None:
        """All steps, from the first states to the last."""
        f, v = self.f, self.v
        h = self._row("%scratch", self.inputs)
        new = self._row(h, self.states)
        whole = [f.value(f"and i64 {f.add(each, 15)}, -16") for each in (self.units, self.states)]
        widest = f.call(INTEGER, "llvm.smax.i64", f"i64 {whole[0]}", f"i64 {whole[1]}")
        c = self._row(new, widest)
        projected = self._row(c, whole[0])
        last = f.add("%batch", -1)
        examples = [f.smaller(f.add(self.first, lane), last) for lane in range(v.lanes)]
        self._read([f.at("%h", f.multiply(each, self.states)) for each in examples], h, self.states)
        if self.kind == "lstm":
            self._read([f.at("%c", f.multiply(each, self.units)) for each in examples], c, self.units)
        with f.loop(0, "%steps") as step:
            self._read([at(f, "x", step, each) for each in examples], "%scratch", self.inputs)
            self._emit_units(h, new, c)
            after = projected if self.projected else new
            if self.projected:
                self._emit_projection(new, after)
            with f.loop(0, self.states) as row:
                f.store(v, f.load(v, self._row(after, row)), self._row(h, row))
            self._write(h, [at(f, "y", step, each) for each in examples], self.states)
        self._write(h, [f.at("%h", f.multiply(each, self.states)) for each in examples], self.states)
        if self.kind == "lstm":
            self._write(c, [f.at("%c", f.multiply(each, self.units)) for each in examples], self.units)

    def _row(self, pointer: str, number: str) -> str:
        return self.f.at(pointer, self.f.multiply(number, self.v.lanes))

    def _emit_units(self, h: str, new: str, c: str) -> None:
        """The new state of every unit, to `new`."""
        f, v, kind = self.f, self.v, self.kind
        each = ROWS if GATES[kind] == 1 else 1  # units in a group
        groups = f.value(f"sdiv i64 {f.add(self.units, each - 1)}, {each}")
        with f.loop(0, groups) as group:
            sums = self._sums(self.lists[0], group, GATES[kind] * each, "%scratch")
            row = self._row(new, f.multiply(group, each))
            if kind == "lstm":
                state, after = gates.lstm(f, v, sums, f.load(v, self._row(c, group)))
                f.store(v, after, self._row(c, group))
                f.store(v, state, row)
            elif kind == "gru":
                *both, apart = self._sums(self.lists[1], group, GATES[kind], h)
                r, z = (f.value(f"fadd {v} {a}, {b}") for a, b in zip(sums, both, strict=False))
                f.store(v, gates.gru(f, v, [r, z, sums[2]], apart, f.load(v, self._row(h, group))), row)
            else:
                for number, total in enumerate(sums):
                    f.store(v, gates.rnn(f, v, kind, total), f.at(row, number * v.lanes))

    def _emit_projection(self, source: str, target: str) -> None:
        f, v = self.f, self.v
        with f.loop(0, f.value(f"sdiv i64 {f.add(self.states, ROWS - 1)}, {ROWS}")) as group:
            row = self._row(target, f.multiply(group, ROWS))
            for number, total in enumerate(self._sums(self.lists[-1], group, ROWS, source)):
                f.store(v, total, f.at(row, number * v.lanes))

    def _sums(self, lists: list[str], group: str, rows: int, source: str) -> list[str]:
        """The vectors of sums of a group's rows, over what lies at `source`."""
        f, v = self.f, self.v
        begin, places, weights, bias = lists
        first, stop = (f.load(INTEGER, f.at(begin, each, INTEGER)) for each in (group, f.add(group, 1)))
        shift = f.at(bias, f.multiply(group, rows))
        sums = [f.slot(v, f.splat(v, f.load("float", f.at(shift, row)))) for row in range(rows)]
        with f.loop(first, stop) as entry:
            begins = f.multiply(entry, rows)
            for row, slot in enumerate(sums):
                at_row = f.add(begins, row)
                place = f.value(f"zext i32 {f.load('i32', f.at(places, at_row, 'i32'))} to i64")
                weight = f.splat(v, f.load("float", f.at(weights, at_row)))
                f.store(v, f.multiply_add(v, weight, f.load(v, f.at(source, place)), f.load(v, slot)), slot)
        return [f.load(v, slot) for slot in sums]

    def _read(self, sources: list[str], target: str, count: str) -> None:
        """`count` numbers of each example, as (numbers, lanes) to `target`."""
        f, v = self.f, self.v
        with f.loop(0, count, v.lanes) as column:
            left = f.smaller(v.lanes, f.subtract(count, column))
            mask = f.below(v.lanes, left)
            square = [f.load_masked(v, mask, f.at(source, column)) for source in sources]
            for offset, examples in enumerate(f.transposed(v, square)):
                with f.when(f.value(f"icmp slt i64 {offset}, {left}")):
                    f.store(v, examples, self._row(target, f.add(column, offset)))

    def _write(self, source: str, targets: list[str], count: str) -> None:
        """The inverse of `_read`; of lanes without an example the last one is written again."""
        f, v = self.f, self.v
        with f.loop(0, count, v.lanes) as column:
            mask = f.below(v.lanes, f.subtract(count, column))
            rows = [f.load(v, self._row(source, f.add(column, offset))) for offset in range(v.lanes)]
            for target, numbers in zip(targets, f.transposed(v, rows), strict=True):
                f.store_masked(v, mask, numbers, f.at(target, column))
