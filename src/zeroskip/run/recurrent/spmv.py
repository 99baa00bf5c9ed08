"""Steps of a few examples: as many units as a vector has lanes at a time, all their gates together.

The products of the hidden matrix go through windows of columns (window_lists.py). Those of the input matrix are either
made beforehand, for all steps at once, or alike in the same call: for one step of one example there is no use in
making them beforehand. Up to four examples share the reading of a weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from zeroskip.concepts import Layer, Machine
from zeroskip.emit import INTEGER, POINTER, Function, Vector
from zeroskip.graph.recurrent import GATES, Cell
from zeroskip.run.argument_block import argument_block
from zeroskip.run.recurrent import gates
from zeroskip.run.recurrent.steps import PARAMETERS, Steps, at, compiled
from zeroskip.run.recurrent.window_lists import FIELDS, Windows, lanes_of, room, window_lists

TOGETHER = 4  # examples


def build(kind: str, cell: Cell, storage: str, machine: Machine, *, fused: bool) -> Steps:
    """The steps of a cell; `fused`: with the products of the input matrix."""
    count, lanes = GATES[kind], lanes_of(machine)
    inputs, slices = cell.inputs.weight.shape[1], -(-cell.units // lanes)
    empty = Layer("", "linear", torch.zeros(len(cell.inputs.weight), 1), None, (1,), (1,))
    matrices = [(cell.inputs if fused else empty, count), (cell.hidden, count)]
    matrices += [(cell.projection, 1)] if cell.projection else []
    rooms = room(inputs if fused else 0, machine), room(max(cell.units, cell.states), machine)
    bias = np.zeros(slices * lanes, np.float32)  # of the hidden matrix, for n of a GRU
    if kind == "gru" and cell.hidden.bias is not None:
        bias[: cell.units] = cell.hidden.bias.detach().numpy()[2 * cell.units :]
    arrays = [array for layer, gates_ in matrices for array in window_lists(layer, gates_, storage, machine)]
    arguments = argument_block(
        *(inputs if fused else 0, cell.units, cell.states, slices, -(-cell.states // lanes), *rooms),
        bias,
        *arrays,
    )
    run = compiled(emit, machine, kind, storage, int(fused), int(cell.projection is not None))
    return Steps(run, arguments, TOGETHER * (rooms[0] + 3 * rooms[1]))


def emit(machine: Machine, kind: str, storage: str, fused: int, projected: int) -> Function:
    """The steps in LLVM IR."""
    f = Function("spmv_steps", PARAMETERS)
    pointers = 1 + FIELDS * (2 + projected)
    fields = f.fields("%plan", [INTEGER] * 7 + [POINTER] * pointers)
    counts = GATES[kind], GATES[kind], 1
    starts = range(8, 8 + FIELDS * (2 + projected), FIELDS)
    matrices = [
        Windows(f, machine, storage, count, fields[start : start + FIELDS])
        for count, start in zip(counts, starts, strict=False)
    ]
    whole = f.value(f"and i64 %batch, {-TOGETHER}")
    for start, stop, count in ((0, whole, TOGETHER), (whole, "%batch", 1)):
        with f.loop(start, stop, count) as first:
            examples = [f.add(first, each) for each in range(count)]
            _Writer(f, machine, kind, bool(fused), fields[:8], matrices, examples).emit()
    return f


@dataclass(frozen=True)
class _Writer:
    """Writes the steps of a few examples.

    fields    inputs, units, states, slices of units and of states, the room of x and of h, the bias of a GRU's n
    matrices  input, hidden, and the projection if there is one
    """

    f: Function
    machine: Machine
    kind: str
    fused: bool
    fields: list[str]
    matrices: list[Windows]
    examples: list[str]

    @property
    def v(self) -> Vector:
        return Vector(lanes_of(self.machine))

    def emit(self) -> None:
        """All steps, from the first states to the last."""
        f, (_, _, states, _, _, x_room, h_room, _) = self.f, self.fields
        count = len(self.examples)
        xs = [f.at("%scratch", f.multiply(x_room, number)) for number in range(count)]
        begin = f.at("%scratch", f.multiply(x_room, count))
        old, new, between = (
            [f.at(begin, f.multiply(h_room, part * count + number)) for number in range(count)]
            for part in range(3)
        )
        olds, news = ([f.slot(POINTER, each) for each in part] for part in (old, new))
        hs = [f.at("%h", f.multiply(example, states)) for example in self.examples]
        for h, room_ in zip(hs, old, strict=True):
            self._copy(h, room_, states)
        with f.loop(0, "%steps") as step:
            befores, afters = ([f.load(POINTER, slot) for slot in part] for part in (olds, news))
            self._emit_step(step, xs, befores, between, afters)
            for slots, pointers in ((olds, afters), (news, befores)):
                for slot, pointer in zip(slots, pointers, strict=True):
                    f.store(POINTER, pointer, slot)
        for h, slot in zip(hs, olds, strict=True):
            self._write(f.load(POINTER, slot), h, states)

    def _emit_step(
        self, step: str, xs: list[str], befores: list[str], between: list[str], afters: list[str]
    ) -> None:
        """One step: the states of `befores` become those of `afters`."""
        f, (inputs, _, _, slices, state_slices, *_) = self.f, self.fields
        projected = len(self.matrices) > 2
        for example, x in zip(self.examples, xs, strict=True) if self.fused else ():
            self._copy(at(f, "x", step, example), x, inputs)
        with f.loop(0, slices) as number:
            self._emit_slice(
                step, number, xs, befores, between if projected else afters, outputs=not projected
            )
        if projected:
            with f.loop(0, state_slices) as number:
                self._emit_projection(step, number, between, afters)

    def _copy(self, source: str, target: str, count: str) -> None:
        """`count` numbers into working memory, in whole vectors."""
        f, v = self.f, self.v
        with f.loop(0, self._slices(count)) as number:
            f.store(v, self._load(source, number, count), f.at(target, f.multiply(number, v.lanes)))

    def _write(self, source: str, target: str, count: str) -> None:
        """`count` numbers of working memory, and no more."""
        f, v = self.f, self.v
        with f.loop(0, self._slices(count)) as number:
            self._store(f.load(v, f.at(source, f.multiply(number, v.lanes))), target, number, count)

    def _slices(self, count: str) -> str:
        """How many vectors hold so many numbers."""
        return self.f.value(f"sdiv i64 {self.f.add(count, self.v.lanes - 1)}, {self.v.lanes}")

    def _mask(self, number: str, count: str) -> str:
        return self.f.below(self.v.lanes, self.f.subtract(count, self.f.multiply(number, self.v.lanes)))

    def _load(self, pointer: str, number: str, count: str) -> str:
        """The vector of that number of `count` floats; 0 behind the last of them."""
        place = self.f.at(pointer, self.f.multiply(number, self.v.lanes))
        return self.f.load_masked(self.v, self._mask(number, count), place)

    def _store(self, value: str, pointer: str, number: str, count: str) -> None:
        place = self.f.at(pointer, self.f.multiply(number, self.v.lanes))
        self.f.store_masked(self.v, self._mask(number, count), value, place)

    def _emit_slice(
        self, step: str, number: str, xs: list[str], befores: list[str], afters: list[str], *, outputs: bool
    ) -> None:  # fmt: skip
        """The units of a slice: their gates, their new state, and where it is the output that too."""
        f, v, count = self.f, self.v, GATES[self.kind]
        _, units, _, slices, *_, bias = self.fields
        of_x = self.matrices[0].emit_sums(number, xs) if self.fused else None
        of_h = self.matrices[1].emit_sums(number, befores)
        lane = f.multiply(number, v.lanes)
        for place, example in enumerate(self.examples):
            begin = at(f, "sums", step, example)
            sums = [self._load(f.at(begin, f.multiply(units, gate)), number, units) for gate in range(count)]
            if of_x is not None:
                sums = [
                    self.matrices[0].emit_scaled(number, gate, slices, of_x[place][gate], sums[gate])
                    for gate in range(count)
                ]
            shifts = [*sums[:2], f.load(v, f.at(bias, lane))] if self.kind == "gru" else sums
            totals = [
                self.matrices[1].emit_scaled(number, gate, slices, of_h[place][gate], shifts[gate])
                for gate in range(count)
            ]
            h = self._new_state(number, example, sums, totals, f.at(befores[place], lane))
            f.store(v, h, f.at(afters[place], lane))
            if outputs:
                self._store(h, at(f, "y", step, example), number, units)

    def _new_state(self, number: str, example: str, sums: list[str], totals: list[str], before: str) -> str:
        f, v, units = self.f, self.v, self.fields[1]
        if self.kind == "lstm":
            c = f.at("%c", f.multiply(example, units))
            h, after = gates.lstm(f, v, totals, self._load(c, number, units))
            self._store(after, c, number, units)
            return h
        if self.kind == "gru":
            return gates.gru(f, v, [*totals[:2], sums[2]], totals[2], f.load(v, before))
        return gates.rnn(f, v, self.kind, totals[0])

    def _emit_projection(self, step: str, number: str, between: list[str], afters: list[str]) -> None:
        """A slice of an LSTM's states, which are sums over its units."""
        f, v, matrix = self.f, self.v, self.matrices[2]
        states, state_slices = self.fields[2], self.fields[4]
        totals = matrix.emit_sums(number, between)
        for example, (total,), after in zip(self.examples, totals, afters, strict=True):
            h = matrix.emit_scaled(number, 0, state_slices, total, "zeroinitializer")
            f.store(v, h, f.at(after, f.multiply(number, v.lanes)))
            self._store(h, at(f, "y", step, example), number, states)
