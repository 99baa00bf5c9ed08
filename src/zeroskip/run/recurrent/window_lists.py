"""A sparse matrix as windows of columns that the gates of as many units as a vector has lanes go through together.

Rows g x units + u (gate g, unit u) are cut into slices: all gates of the units of a vector. A step looks at a window of
neighbouring columns, out of which each row of the slice takes its next non-zero; the window begins where the slowest
row goes on. Rows whose next non-zero lies behind it wait. With AVX-512 a window is 32 columns, held by two registers,
and one permutation gives each lane its own: for four gates the two are loaded once. Elsewhere it is as wide as a byte
reaches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.concepts import Layer, Machine
from zeroskip.emit import INTEGER, Function, Vector
from zeroskip.run.argument_block import offsets
from zeroskip.run.linear.stored_weights import nonzeros
from zeroskip.run.linear.weight_loads import StoredVectors, inputs_of_weights, one_vector

FIELDS = 5  # pointers of one matrix in an argument block


def lanes_of(machine: Machine) -> int:
    """Units that are computed together."""
    return machine.vector_bytes // 4


def window_of(machine: Machine) -> int:
    """Columns in a window."""
    return 32 if machine.vector_bytes == 64 else 256


def room(count: int, machine: Machine) -> int:
    """Floats that a vector of so many inputs or states takes in working memory: no window passes its end."""
    return max(-(-count // 16) * 16, window_of(machine))


def window_lists(layer: Layer, gates: int, storage: str, machine: Machine) -> list[np.ndarray]:
    """The arrays of a matrix (gates x units, columns), as `Windows` reads them.

    begin (slices + 1,), window (steps,), picks and numbers (steps, gates, lanes), scale (gates, slices x lanes).
    """
    lanes, window = lanes_of(machine), window_of(machine)
    stored = nonzeros(storage, layer)
    units = len(layer.weight) // gates
    slices = -(-units // lanes)
    gate, unit = np.divmod(stored.rows, max(units, 1))
    # Rows in the order of steps: slice, gate, lane.
    row = (unit // lanes * gates + gate) * lanes + unit % lanes
    order = np.argsort(row * layer.weight.shape[1] + stored.columns)
    row, columns, numbers = row[order], stored.columns[order], stored.numbers[order]
    last = room(layer.weight.shape[1], machine) - window
    begins, step = _stepwise(row, columns, slices, gates * lanes, window, last)
    begin = offsets([len(each) for each in begins])
    starts = np.concatenate([*begins, np.zeros(0, np.int64)]).astype(np.uint16)
    step = begin[row // (gates * lanes)] + step
    place = step * gates * lanes + row % (gates * lanes)
    picks, placed = (
        np.zeros(begin[-1] * gates * lanes, np.uint8),
        np.zeros(begin[-1] * gates * lanes, numbers.dtype),
    )
    picks[place], placed[place] = columns - starts[step], numbers
    scale = np.ones((gates, slices * lanes), np.float32)
    scale[:, :units] = stored.scale.reshape(gates, units)
    return [begin, starts, picks, placed, scale]


def _stepwise(
    row: np.ndarray, columns: np.ndarray, slices: int, rows: int, window: int, last: int
) -> tuple[list[np.ndarray], np.ndarray]:  # fmt: skip
    """Where the windows of each slice begin, and in which of its slice's steps each non-zero is."""
    done = np.iinfo(np.int64).max
    counts = np.bincount(row, minlength=slices * rows)
    ends = offsets(counts + 1)  # a mark behind the columns of each row
    listed = np.full(ends[-1], done)
    place = ends[row] + np.arange(len(row)) - offsets(counts)[row]
    listed[place] = columns
    step, following = np.zeros(ends[-1], np.int64), ends[:-1].copy()
    begun: list[np.ndarray] = []
    while True:
        column = listed[following]
        first = column.reshape(slices, rows).min(axis=1) if slices else np.zeros(0, np.int64)
        if (first == done).all():
            break
        start = np.where(first == done, -1, np.minimum(first, last))
        taken = (column < np.repeat(start + window, rows)) & np.repeat(start >= 0, rows)
        step[following[taken]] = len(begun)
        following += taken
        begun.append(start)
    table = np.stack(begun, axis=1) if begun else np.zeros((slices, 0), np.int64)
    return [each[each >= 0] for each in table], step[place]


@dataclass(frozen=True)
class Windows:
    """A matrix of so many gates in memory, as the function `f` reads it; `fields` are pointers to its arrays."""

    f: Function
    machine: Machine
    storage: str
    gates: int
    fields: list[str]

    def emit_sums(self, slice_: str, sources: list[str]) -> list[list[str]]:
        """For each source (an example's inputs) and each gate, the vector of a slice's sums."""
        f, v = self.f, Vector(lanes_of(self.machine))
        begin, window, picks, numbers, _ = self.fields
        stored = StoredVectors(f, self.machine, v, self.storage, numbers, "")
        sums = [[f.slot(v, "zeroinitializer") for _ in range(self.gates)] for _ in sources]
        first, stop = (f.load(INTEGER, f.at(begin, each, INTEGER)) for each in (slice_, f.add(slice_, 1)))
        with f.loop(first, stop) as step:
            start = f.value(f"zext i16 {f.load('i16', f.at(window, step, 'i16'))} to i64")
            inputs = [self._window(f.at(source, start)) for source in sources]
            for gate in range(self.gates):
                place = f.add(f.multiply(step, self.gates * v.lanes), gate * v.lanes)
                values = one_vector(stored, place)
                for picked, slots in zip(self._picked(inputs, f.at(picks, place, "i8")), sums, strict=True):
                    there = inputs_of_weights(stored, picked, values, "")
                    f.store(v, f.multiply_add(v, values, there, f.load(v, slots[gate])), slots[gate])
        return [[f.load(v, slot) for slot in slots] for slots in sums]

    def emit_scaled(self, slice_: str, gate: int, slices: str, total: str, shift: str) -> str:
        """The vector of sums times the scale of their rows, plus `shift`."""
        f, v = self.f, Vector(lanes_of(self.machine))
        if self.storage != "int8":
            return f.value(f"fadd {v} {total}, {shift}")
        place = f.multiply(f.add(f.multiply(slices, gate), slice_), v.lanes)
        return f.multiply_add(v, total, f.load(v, f.at(self.fields[4], place)), shift)

    def _window(self, pointer: str) -> tuple[str, ...]:
        """A window of inputs: two registers of it, or where it lies."""
        if self.machine.vector_bytes != 64:
            return (pointer,)
        v = Vector(16)
        return tuple(self.f.load(v, self.f.at(pointer, offset)) for offset in (0, v.lanes))

    def _picked(self, windows: list[tuple[str, ...]], picks: str) -> list[str]:
        """Of each window the inputs that the bytes at `picks` name, one for each lane."""
        f, v = self.f, Vector(lanes_of(self.machine))
        if self.machine.vector_bytes == 64:
            words = v.of("i32")
            wide = f.value(f"zext {v.of('i8')} {f.load(v.of('i8'), picks)} to {words}")
            name = "llvm.x86.avx512.vpermi2var.ps.512"
            return [f.call(v, name, f"{v} {low}", f"{words} {wide}", f"{v} {high}") for low, high in windows]
        places = [
            f.value(f"zext i8 {f.load('i8', f.at(picks, lane, 'i8'))} to i64") for lane in range(v.lanes)
        ]
        return [self._fetched(pointer, places) for (pointer,) in windows]

    def _fetched(self, pointer: str, places: list[str]) -> str:
        f, v, fetched = self.f, Vector(len(places)), "poison"
        for lane, place in enumerate(places):
            value = f.load("float", f.at(pointer, place))
            fetched = f.value(f"insertelement {v} {fetched}, float {value}, i32 {lane}")
        return fetched
