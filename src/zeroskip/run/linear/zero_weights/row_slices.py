"""Slices: as many rows of a weight as a vector has lanes, which a kernel computes together, one row in each lane."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from zeroskip.emit import INTEGER, Function, Vector
from zeroskip.run.linear.weight_loads import StoredVectors, inputs_of_weights, two_vectors


def by_length(lengths: np.ndarray, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows by length, longest first, in whole slices of `lanes`: the row of each lane and the lane of each row.

    The first slice is filled up with lanes that belong to no row, before the lane of the row that they name.

    >>> by_length(np.array([3, 9, 5]), 4)
    (array([1, 1, 2, 0]), array([3, 1, 2]))
    """
    order = np.argsort(-lengths, kind="stable")
    rows = np.append(np.repeat(order[:1], -len(order) % lanes), order)
    lane = np.empty(len(order), np.int64)
    lane[order] = np.arange(len(rows) - len(order), len(rows))
    return rows, lane


def emit_two_steps(
    stored: StoredVectors,
    step: str,
    inputs: Callable[[int, str], Iterable[str]],
    sums: Sequence[Sequence[str]],
) -> str:
    """Add two steps' weights, times the inputs of each example, to sums; returns where their numbers begin.

    inputs  (0 or 1, where the numbers of the vector begin) -> for each example, the vector of inputs of its lanes
    sums    for each example, the slot of the first and of the second step
    """
    f, v = stored.f, stored.v
    place = f.multiply(step, v.lanes)
    for offset, values in enumerate(two_vectors(stored, place)):
        for vector, slots in zip(inputs(offset, place), sums, strict=True):
            fetched = inputs_of_weights(stored, vector, values, f.add(step, offset))
            f.store(v, f.multiply_add(v, values, fetched, f.load(v, slots[offset])), slots[offset])
    return place


def emit_scatter(f: Function, v: Vector, result: str, y: str, rows: str) -> None:
    """Write each lane to its own row of the output; `rows` points to their numbers."""
    for lane in range(v.lanes):
        value = f.value(f"extractelement {v} {result}, i32 {lane}")
        f.store("float", value, f.at(y, f.load(INTEGER, f.at(rows, lane, INTEGER))))
