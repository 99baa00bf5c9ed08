"""The tables: what a run found, as `Grid`s that rich prints and the HTML page shows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from zeroskip.concepts import Point, Record, Summary, Timing
from zeroskip.report.grid import Grid
from zeroskip.report.number_format import (
    LEDGER_PARTS,
    show_bytes,
    show_count,
    show_error,
    show_error_change,
    show_gain,
    show_known,
    show_seconds,
    show_share,
    show_speed,
    show_times,
)
from zeroskip.report.weight_tables import dense_rows, eight_bits_rows, macs_rows

OURS = "zeroskip"


def summary_table(record: Record) -> Grid:
    """Dense, sparse and their ratio: test error, weights, MACs, stored bytes, time at every measured batch.

    All are of the whole network; what stays dense has a row for each reason.

    >>> for row in summary_table(record).rows[3:]:
    ...     print(*row, sep=" | ")
    weights | 80 | 44 | 1.82x fewer
    stay dense: fc2 | 32 | 32 | 40.0 % of the weights, 40.0 % of the MACs: nothing of it was pruned
    MACs of an example | 80 | 44 | 1.82x fewer
    stored bytes | 368 B | 316 B | 1.16x smaller
    time per call, batch 1 | 20 µs | 10 µs | 2x faster than torch eager
    time per call, batch 3 | 21 µs | 21 µs | as fast as torch eager; spreads overlap
    """
    figures = record.summary
    fewer = show_gain(figures.weights_times_fewer, "fewer", "MORE", "as many")
    smaller = show_gain(figures.stored_times_smaller, "smaller", "LARGER", "as large")
    change = show_error_change(figures.error_dense, figures.error_sparse)
    in_int8 = " in int8" if figures.in_int8 else ""
    bytes_dense, bytes_sparse = show_bytes(figures.stored_bytes_dense), show_bytes(figures.stored_bytes)
    cells = [
        ("test error", show_error(figures.error_dense), show_error(figures.error_sparse), change),
        ("test error, unpacked file", "-", show_error(figures.error_unpacked), ""),
        (f"test error, compiled program{in_int8}", "-", show_error(figures.error_run), ""),
        ("weights", show_count(figures.weights), show_count(figures.weights_kept), fewer),
        *dense_rows(figures),
        *eight_bits_rows(figures),
        *macs_rows(figures),
        ("stored bytes", bytes_dense, bytes_sparse, smaller),
    ]
    marks = {}
    for timing in comparable(record.timings):
        dense, sparse = timing.dense_seconds, timing.sparse_seconds
        speed = show_speed(dense, sparse, than=timing.dense_engine)
        speed += "" if timing.settled else "; spreads overlap"
        marks[len(cells)] = outcome(timing)
        seconds = show_seconds(dense), show_seconds(sparse)
        cells.append((f"time per call, batch {timing.batch}", *seconds, speed))
    columns = ("", "dense", "sparse", "ratio")
    return Grid(figures.task, columns, tuple(cells), conditions(figures), prose=("ratio",), marks=marks)


def comparable(timings: Sequence[Timing]) -> list[Timing]:
    """The timings that zeroskip and a dense engine took part in."""
    return [timing for timing in timings if OURS in timing.seconds and len(timing.seconds) > 1]


def conditions(summary: Summary) -> str:
    """Under which conditions the summary's numbers were taken, in one line.

    >>> conditions(record.summary)
    'seed 0; chosen on validation; 1 thread; fp32; an example, 2 cores, 512-bit vectors'
    """
    seeds, seed = summary.seeds, summary.seed
    drawn = f"seed {seed}" if seeds == 1 else f"means of {seeds} seeds, times and layers of seed {seed}"
    chosen_on, threads = f"chosen on {summary.selected_on}", _threads(summary.threads)
    precision = summary.precision + ("" if summary.eight_bits is None else ", dense engines in fp32")
    return "; ".join((drawn, chosen_on, threads, precision, summary.machine))


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def timing_table(timing: Timing) -> Grid:
    """Every engine of one comparison, fastest first, with its spread; one that beats zeroskip is called faster.

    >>> timing_table(record.timings[0]).rows[1]
    ('torch eager', '20 µs', '19 µs to 22 µs', '0', 'zeroskip is 2x faster')
    """
    engines = sorted(timing.seconds, key=timing.seconds.__getitem__)
    rows = [
        (
            name,
            show_seconds(timing.seconds[name]),
            " to ".join(map(show_seconds, timing.spread[name])) if name in timing.spread else "-",
            show_known(_difference, timing.max_difference.get(name)),
            _against_ours(timing, name),
        )
        for name in engines
    ]
    rows += [(name, "-", "-", "-", f"did not take part: {why}") for name, why in timing.skipped.items()]
    ours = timing.seconds.get(OURS)
    marks = {i: mark(timing.seconds[name], ours) for i, name in enumerate(engines) if ours and name != OURS}
    columns = ("engine", "median", "lowest to highest", "difference", "against zeroskip")
    title = f"Time per call: batch {timing.batch}, {_threads(timing.threads)}, {timing.precision}, {timing.machine}"
    note = (
        f"Median of {timing.runs} runs of {timing.rounds} interleaved rounds; lowest and highest run. "
        "Difference: largest absolute difference of the output from torch eager's."
    )
    note += " zeroskip may compute in int8, the others compute in fp32." if timing.precision == "int8" else ""
    return Grid(title, columns, tuple(rows), note, prose=("against zeroskip",), marks=marks)


def history_table(history: Sequence[Point]) -> Grid:
    """Every point the pruning went through, and the one that was chosen: the last good one.

    >>> [row[-1] for row in history_table(record.history).rows]
    ['the start', 'chosen', 'over the budget']
    """
    best, limited = chosen(history), not all(point.good for point in history)
    rows = tuple(
        (
            point.kind,
            show_count(point.weights_kept),
            show_share(point.sparsity),
            show_times(point.weights / point.weights_kept) if point.weights_kept else "all gone",
            show_error(point.error),
            _outcome(point, number == best, limited),
        )
        for number, point in enumerate(history)
    )
    columns = ("step", "weights kept", "zeros", "fewer", "validation error", "outcome")
    marks = {number: "win" if number == best else "" for number in range(len(rows))}
    marks |= {number: "loss" for number, point in enumerate(history) if not point.good}
    return Grid("Trade-off", columns, rows, prose=("outcome",), marks=marks)


def chosen(history: Sequence[Point]) -> int | None:
    """The place of the last good point, which is the network that was kept; None where no point is good."""
    return max((number for number, point in enumerate(history) if point.good), default=None)


def ledger_table(ledger: Mapping[str, Mapping[str, int]], codings: Mapping[str, str] | None = None) -> Grid:
    """Bytes of the stored file per tensor, exactly: LEDGER_PARTS and their sums; with `codings`, how each is stored.

    Scales have a column where there are any.

    >>> ledger_table(record.ledger).rows[-1]
    ('all', '224', '12', '0', '0', '80', '316')
    """
    kinds = [kind for kind in LEDGER_PARTS if kind != "scales" or any(map(_has_scales, ledger.values()))]
    counts = {name: [parts.get(kind, 0) for kind in kinds] for name, parts in ledger.items()}
    sums = [sum(column) for column in zip(*counts.values(), strict=True)]
    rows = [(name, *map(show_count, (*parts, sum(parts)))) for name, parts in counts.items()]
    if rows:
        rows.append(("all", *map(show_count, (*sums, sum(sums)))))
    titles = ("tensor", *kinds, "all")
    if codings is not None:
        rows, titles = [(*row, codings.get(row[0], "")) for row in rows], (*titles, "coding")
    return Grid("Stored bytes", titles, tuple(rows), marks={len(counts): "total"})


def _has_scales(parts: Mapping[str, int]) -> bool:
    return parts.get("scales", 0) > 0


def seeds_table(record: Record) -> Grid:
    """One row per seed, then the median, the lowest and the highest of every column.

    >>> [row[0] for row in seeds_table(record).rows]
    ['0', 'median', 'lowest', 'highest']
    """
    columns: tuple[tuple[str, Callable[[Summary], float], Callable[[float], str]], ...] = (
        ("error dense", lambda run: run.error_dense, show_error),
        ("error sparse", lambda run: run.error_sparse, show_error),
        ("weights kept", lambda run: run.weights_kept, show_count),
        ("fewer", lambda run: run.weights_times_fewer, show_times),
        ("stored bytes", lambda run: run.stored_bytes, show_bytes),
        ("time dense", lambda run: run.dense_seconds, show_seconds),
        ("time sparse", lambda run: run.sparse_seconds, show_seconds),
    )
    runs = record.summary.runs or (record.summary,)
    rows = [(str(run.seed), *(form(figure(run)) for _, figure, form in columns)) for run in runs]
    for name, summarise in (("median", statistics.median), ("lowest", min), ("highest", max)):
        rows.append((name, *(form(summarise(list(map(figure, runs)))) for _, figure, form in columns)))
    titles = ("seed", *(title for title, _, _ in columns))
    return Grid("Seeds", titles, tuple(rows), marks={len(runs): "total"})


def comparison_table(records: Sequence[Record]) -> Grid:
    """One row per run: errors, weights, bytes, and the time at the batch that the run's summary names.

    >>> comparison_table([record]).rows[0][:4]
    ('demo', '2.00 %', '3.00 %', '44 (1.82x)')
    """
    rows, marks = [], {}
    for number, (name, record) in enumerate(zip(run_names(records), records, strict=True)):
        run = record.summary
        marks[number] = mark(run.dense_seconds, run.sparse_seconds)
        cells = (
            show_error(run.error_dense),
            show_error(run.error_sparse),
            f"{show_count(run.weights_kept)} ({show_times(run.weights_times_fewer)})",
            f"{show_bytes(run.stored_bytes)} ({show_times(run.stored_times_smaller)})",
            str(run.batch),
            show_seconds(run.sparse_seconds),
            show_speed(run.dense_seconds, run.sparse_seconds),
        )
        rows.append((name, *cells))
    figures = ("error dense", "error sparse", "weights kept", "stored bytes", "batch", "time")
    note = "In brackets: times fewer, times smaller. "
    note += "Against dense: the fastest dense engine of the same race."
    return Grid("Runs", ("run", *figures, "against dense"), tuple(rows), note, marks=marks)


def run_names(records: Sequence[Record]) -> list[str]:
    """The last part of each run's folder, or the whole folder where two runs share the last part."""
    short = [Path(record.folder).name or record.folder for record in records]
    return short if len(set(short)) == len(short) else [record.folder for record in records]


def _outcome(point: Point, is_chosen: bool, limited: bool) -> str:
    if is_chosen:
        return "chosen"
    if point.kind == "dense":
        return "the start"
    if not limited:  # there may have been no budget at all, which the points do not tell
        return "on the way"
    return "within the budget" if point.good else "over the budget"


def _difference(largest: float) -> str:
    return f"{largest:.1e}" if largest else "0"


def mark(dense_seconds: float, sparse_seconds: float) -> str:
    """The Grid's mark of a comparison: "win", "loss", or nothing where both are as fast."""
    speed = show_speed(dense_seconds, sparse_seconds)
    return "" if speed == "as fast" else "loss" if sparse_seconds > dense_seconds else "win"


def outcome(timing: Timing) -> str:
    """The mark of zeroskip beside the fastest dense engine: nothing where their spreads overlap."""
    return mark(timing.dense_seconds, timing.sparse_seconds) if timing.settled else ""


def _against_ours(timing: Timing, engine: str) -> str:
    if engine == OURS or OURS not in timing.seconds:
        return ""
    theirs, ours = timing.seconds[engine], timing.seconds[OURS]
    speed = show_speed(theirs, ours)
    verdict = {"as fast": "as fast as zeroskip"}.get(speed, f"zeroskip is {speed}")
    if speed.endswith("slower"):
        verdict = f"zeroskip loses: it is {speed}"
    if {engine, OURS} <= set(timing.spread) and not timing.settled_against(engine):
        verdict += ", but the spreads overlap"
    return verdict
