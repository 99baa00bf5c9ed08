"""The tables: what a run found, as `Grid`s that rich prints and the HTML page shows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zeroskip.concepts import Choice, Point, Profile, Record, Timing
from zeroskip.report.grid import Grid
from zeroskip.report.number_format import (
    LEDGER_PARTS,
    show_bytes,
    show_count,
    show_error,
    show_error_change,
    show_macs,
    show_seconds,
    show_share,
    show_speed,
    show_times,
)

OURS = "zeroskip"


def summary_table(record: Record) -> Grid:
    """Dense, sparse and their ratio: test error, weights, stored bytes, time at every measured batch.

    A row whose sparse figure the record lacks is left out.

    >>> Console().print(summary_table(record))
    """
    value: Callable[..., Any] = record.summary.get
    change = _known(show_error_change, value("error_dense"), value("error_sparse"))
    fewer = _known(_fewer, value("weights_times_fewer"))
    smaller = _known(_smaller, value("stored_times_smaller"))
    rows = [
        ("test error", show_error, "error_dense", "error_sparse", change),
        ("test error, unpacked file", show_error, "", "error_unpacked", ""),
        ("test error, compiled program", show_error, "", "error_run", ""),
        ("weights", show_count, "weights", "weights_kept", fewer),
        ("stored bytes", show_bytes, "stored_bytes_dense", "stored_bytes", smaller),
    ]
    cells = [
        (label, _known(form, value(dense)), form(value(sparse)), ratio)
        for label, form, dense, sparse, ratio in rows
        if value(sparse) is not None
    ]
    times = races(record)
    marks = {len(cells) + i: mark(dense, sparse) for i, (*_, dense, sparse, sure) in enumerate(times) if sure}
    cells += [
        (
            f"time per call, batch {batch}",
            show_seconds(dense),
            show_seconds(sparse),
            show_speed(dense, sparse, than=engine) + ("" if sure else "; spreads overlap"),
        )
        for batch, engine, dense, sparse, sure in times
    ]
    title, note = str(value("task", "Summary")), conditions(record)
    return Grid(title, ("", "dense", "sparse", "ratio"), tuple(cells), note, prose=("ratio",), marks=marks)


def races(record: Record) -> list[tuple[Any, ...]]:
    """(batch, fastest dense engine, its seconds, zeroskip's, whether that is settled) of every race.

    >>> races(record)[0]
    (1, 'torch eager', 2.1e-05, 1.4e-05, True)
    """
    found = [
        (t.batch, t.dense_engine, t.dense_seconds, t.sparse_seconds, t.settled)
        for t in record.timings
        if _raced(t)
    ]
    from_summary = tuple(
        map(record.summary.get, ("batch", "dense_engine", "dense_seconds", "sparse_seconds"))
    )
    return found or ([] if None in from_summary else [(*from_summary, True)])


def conditions(record: Record) -> str:
    """Under which conditions the summary's numbers were taken, in one line.

    >>> conditions(record)
    'seed 0; chosen on validation; 2 threads; float32; AMD EPYC'
    """
    seeds = record.summary.get("seeds", 1)
    forms = {
        "seed": "seed {}" if seeds == 1 else f"means of {seeds} seeds, times and layers of seed {{}}",
        "selected_on": "chosen on {}",
        "threads": "{}",
        "precision": "{}",
        "machine": "{}",
    }
    known = {key: record.summary.get(key) for key in forms}
    known["threads"] = known["threads"] and _threads(known["threads"])
    return "; ".join(forms[key].format(value) for key, value in known.items() if value is not None)


def _threads(count: int) -> str:
    return f"{count} thread" if count == 1 else f"{count} threads"


def layer_table(record: Record) -> Grid:
    """Per layer: weights before and after, zeros in weight and input, the kernel that runs it, and why.

    >>> Console().print(layer_table(record))
    """
    rows = tuple(
        (
            layer["name"],
            show_count(layer["weights"]),
            show_count(layer["weights_kept"]),
            show_share(layer["weight_sparsity"]),
            _known(show_share, layer["input_sparsity"]),
            layer["kernel"],
            layer["reason"],
        )
        for layer in record.summary.get("layers", ())
    )
    columns = ("layer", "weights", "kept", "zeros in weight", "zeros in input", "kernel", "reason")
    return Grid("Layers", columns, rows, prose=("kernel", "reason"))


def choice_table(choices: Sequence[Choice]) -> Grid:
    """Per layer: the kernel that runs it, the seconds of every kernel timed, why the others could not run.

    >>> Console().print(choice_table(program.choices))
    """
    rows = tuple(
        (
            choice.layer,
            choice.kernel,
            "; ".join(f"{name} {show_seconds(s)}" for name, s in sorted(choice.seconds.items(), key=_second)),
            "; ".join(f"{name}: {why}" for name, why in choice.refused.items()),
        )
        for choice in choices
    )
    columns = ("layer", "chosen", "timed, fastest first", "could not run")
    return Grid("Kernels considered", columns, rows, prose=columns[1:])


def timing_table(timing: Timing) -> Grid:
    """Every engine of one race, fastest first, with its spread; an engine that beats zeroskip is said to.

    >>> Console().print(timing_table(timing))
    """
    engines = sorted(timing.seconds, key=timing.seconds.__getitem__)
    rows = [
        (
            name,
            show_seconds(timing.seconds[name]),
            _known(_interval, timing.spread.get(name)),
            _known(_difference, timing.max_difference.get(name)),
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
    return Grid(title, columns, tuple(rows), note, prose=("against zeroskip",), marks=marks)


def profile_table(profile: Profile) -> Grid:
    """Per layer: size, work, zeros, and the network's error when this layer alone is pruned.

    The error is shown at two of the sparsities tried: a middle one and the highest.

    >>> Console().print(profile_table(measure.profile(model, task)))
    """
    tried = sorted({sparsity for layer in profile.layers for sparsity in layer.sensitivity})
    shown = sorted({tried[len(tried) // 2], tried[-1]}) if tried else []
    rows = tuple(
        (
            layer.name,
            "x".join(map(str, layer.weight_shape)),
            show_count(layer.weights),
            show_macs(layer.macs),
            show_share(layer.weight_sparsity),
            show_share(layer.input_sparsity),
            show_share(layer.output_sparsity),
            *(_known(show_error, layer.sensitivity.get(sparsity)) for sparsity in shown),
        )
        for layer in profile.layers
    )
    sizes = ("layer", "shape", "weights", "MACs", "zero weights", "zero inputs", "zero outputs")
    columns = (*sizes, *(f"error at {100 * sparsity:g} %" for sparsity in shown))
    note = f"Error of the whole network on validation: {show_error(profile.error)}."
    if shown:
        note += " Error at s: with s of this layer's weights zero, all other layers untouched."
    return Grid("Profile", columns, rows, note)


def history_table(history: Sequence[Point]) -> Grid:
    """Every point the pruning went through, and the one that was chosen: the last good one.

    >>> Console().print(history_table(sparse.history))
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
    """The place of the last good point, which is the network that was kept; None where no point is good.

    >>> chosen(sparse.history)
    3
    """
    return max((number for number, point in enumerate(history) if point.good), default=None)


def ledger_table(ledger: Mapping[str, Mapping[str, int]]) -> Grid:
    """Bytes of the stored file per tensor, exactly: LEDGER_PARTS and their sums.

    >>> Console().print(ledger_table(packed.ledger))
    """
    counts = {name: [parts.get(kind, 0) for kind in LEDGER_PARTS] for name, parts in ledger.items()}
    sums = [sum(column) for column in zip(*counts.values(), strict=True)]
    rows = [(name, *map(show_count, (*parts, sum(parts)))) for name, parts in counts.items()]
    if rows:
        rows.append(("all", *map(show_count, (*sums, sum(sums)))))
    return Grid("Stored bytes", ("tensor", *LEDGER_PARTS, "all"), tuple(rows), marks={len(counts): "total"})


def seeds_table(record: Record) -> Grid:
    """One row per seed, then the median, the lowest and the highest of every column.

    >>> Console().print(seeds_table(record))
    """
    columns: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("error dense", "error_dense", show_error),
        ("error sparse", "error_sparse", show_error),
        ("weights kept", "weights_kept", show_count),
        ("fewer", "weights_times_fewer", show_times),
        ("stored bytes", "stored_bytes", show_bytes),
        ("time dense", "dense_seconds", show_seconds),
        ("time sparse", "sparse_seconds", show_seconds),
    )
    runs = record.summary.get("runs") or [record.summary]
    rows = [
        (str(run.get("seed", "?")), *(_known(form, run.get(key)) for _, key, form in columns)) for run in runs
    ]
    for name, summarise in (("median", statistics.median), ("lowest", min), ("highest", max)):
        found = [[run[key] for run in runs if run.get(key) is not None] for _, key, _ in columns]
        cells = (
            form(summarise(values)) if values else "-"
            for values, (_, _, form) in zip(found, columns, strict=True)
        )
        rows.append((name, *cells))
    titles = ("seed", *(title for title, _, _ in columns))
    return Grid("Seeds", titles, tuple(rows), marks={len(runs): "total"})


def comparison_table(records: Sequence[Record]) -> Grid:
    """One row per run: errors, weights, bytes, and the time at the batch that the run's summary names.

    >>> Console().print(comparison_table([one, other]))
    """
    rows, marks = [], {}
    for number, (name, record) in enumerate(zip(run_names(records), records, strict=True)):
        value: Callable[..., Any] = record.summary.get
        times = value("dense_seconds"), value("sparse_seconds")
        marks[number] = "" if None in times else mark(*times)
        cells = (
            _known(show_error, value("error_dense")),
            _known(show_error, value("error_sparse")),
            _bracketed(show_count, value("weights_kept"), value("weights_times_fewer")),
            _bracketed(show_bytes, value("stored_bytes"), value("stored_times_smaller")),
            _known(str, value("batch")),
            _known(show_seconds, times[1]),
            _known(show_speed, *times),
        )
        rows.append((name, *cells))
    columns = (
        "run",
        "error dense",
        "error sparse",
        "weights kept",
        "stored bytes",
        "batch",
        "time",
        "against dense",
    )
    note = (
        "In brackets: times fewer, times smaller. Against dense: the fastest dense engine of the same race."
    )
    return Grid("Runs", columns, tuple(rows), note, marks=marks)


def run_names(records: Sequence[Record]) -> list[str]:
    """The last part of each run's folder, or the whole folder where two runs share the last part.

    >>> run_names([one, other])
    ['digits', 'digits-conv']
    """
    short = [Path(record.folder).name or record.folder for record in records]
    return short if len(set(short)) == len(short) else [record.folder for record in records]


def _known(form: Callable[..., str], *values: Any) -> str:
    return "-" if None in values else form(*values)


def _fewer(times: float) -> str:
    return f"{show_times(times)} fewer"


def _smaller(times: float) -> str:
    return f"{show_times(times)} smaller"


def _bracketed(form: Callable[[float], str], number: float | None, times: float | None) -> str:
    return f"{_known(form, number)} ({_known(show_times, times)})"


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


def _raced(timing: Timing) -> bool:
    return OURS in timing.seconds and len(timing.seconds) > 1


def _second(pair: tuple[str, float]) -> float:
    return pair[1]


def _interval(ends: Sequence[float]) -> str:
    return f"{show_seconds(ends[0])} to {show_seconds(ends[1])}"


def mark(dense_seconds: float, sparse_seconds: float) -> str:
    """The Grid's mark of a race: "win", "loss", or nothing where both are as fast.

    >>> mark(1e-6, 2e-6)
    'loss'
    """
    speed = show_speed(dense_seconds, sparse_seconds)
    return "" if speed == "as fast" else "loss" if sparse_seconds > dense_seconds else "win"


def _against_ours(timing: Timing, engine: str) -> str:
    if engine == OURS or OURS not in timing.seconds:
        return ""
    theirs, ours = timing.seconds[engine], timing.seconds[OURS]
    speed = show_speed(theirs, ours)
    verdict = {"as fast": "as fast as zeroskip"}.get(speed, f"zeroskip is {speed}")
    if speed.endswith("slower"):
        verdict = f"zeroskip loses: it is {speed}"
    if (
        engine in timing.spread
        and OURS in timing.spread
        and _overlap(timing.spread[engine], timing.spread[OURS])
    ):
        verdict += ", but the spreads overlap"
    return verdict


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]
