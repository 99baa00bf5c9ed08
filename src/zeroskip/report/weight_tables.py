"""The tables of a network's weights: what each costs, what is left of it, what runs it, and what stays dense."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from zeroskip.concepts import Choice, LayerSummary, Profile, Record, Summary
from zeroskip.concepts.record import by_reason
from zeroskip.report.grid import Grid
from zeroskip.report.number_format import (
    show_count,
    show_error,
    show_gain,
    show_known,
    show_macs,
    show_seconds,
    show_share,
)


def layer_table(record: Record) -> Grid:
    """Per weight: how many before and after, zeros in it and in what it meets, the kernel that runs it, and why.

    >>> layer_table(record).rows[0]
    ('fc1', '48', '12', '75.0 %', '0.0 %', '48', 'sell', 'fastest')
    """
    return weight_table(record.summary.layers)


def weight_table(layers: Sequence[LayerSummary]) -> Grid:
    """The table of a network's weights, whose last row is the whole network.

    >>> weight_table(record.summary.layers).rows[-1]
    ('whole network', '80', '44', '45.0 %', '', '80', '', '')
    """
    rows = [
        (
            each.name or "(itself)",
            show_count(each.weights),
            show_count(each.weights_kept),
            show_share(each.weight_sparsity),
            show_known(show_share, each.input_sparsity),
            show_macs(each.macs),
            each.kernel,
            _why(each),
        )
        for each in layers
    ]
    weights, kept = sum(each.weights for each in layers), sum(each.weights_kept for each in layers)
    macs = show_macs(sum(each.macs for each in layers))
    share = show_share(1 - kept / max(weights, 1))
    rows += (
        [("whole network", show_count(weights), show_count(kept), share, "", macs, "", "")] if layers else []
    )
    columns = ("layer", "weights", "kept", "zeros in weight", "zeros in input", "MACs", "kernel", "reason")
    grid = Grid("Layers", columns, tuple(rows), prose=("kernel", "reason"), marks={len(layers): "total"})
    return grid if any(each.macs for each in layers) else grid.without("MACs")


def _why(layer: LayerSummary) -> str:
    """Why it runs as it does, and that it was left whole where that is not said with it."""
    whole = layer.weights_kept == layer.weights and layer.dense not in layer.reason
    return f"{layer.reason}; {layer.dense}" if whole else layer.reason


def choice_table(choices: Sequence[Choice]) -> Grid:
    """Per layer: the kernel that runs it, the seconds of every kernel timed, why the others could not run.

    "9 as in fc1": nine kernels are refused for the reasons that stand in the row of fc1.

    >>> choice_table(record.choices).rows[0]
    ('fc1', 'sell', 'sell 1 µs; dense 2 µs', 'spmm: no batch')
    """
    names = _runs([choice.layer for choice in choices])
    rows = tuple(
        (
            name,
            choice.kernel,
            "; ".join(
                f"{name} {show_seconds(s)}"
                for name, s in sorted(choice.seconds.items(), key=lambda pair: pair[1])
            ),
            refused,
        )
        for name, choice, refused in zip(names, choices, _refusals(names, choices), strict=True)
    )
    columns = ("layer", "chosen", "timed, fastest first", "could not run")
    return Grid("Kernels considered", columns, rows, prose=columns[1:])


def _refusals(names: Sequence[str], choices: Sequence[Choice]) -> list[str]:
    """For each layer the kernels that could not run it, by reason; of those that a layer above has, how many."""
    first: dict[str, str] = {}  # kernels and their reason -> the first layer that has them
    cells = []
    for layer, choice in zip(names, choices, strict=True):
        by_reason: dict[str, list[str]] = {}
        for name, why in choice.refused.items():
            by_reason.setdefault(why, []).append(name)
        parts, repeated = [], Counter[str]()
        for why, kernels in by_reason.items():
            part = f"{', '.join(kernels)}: {why}"
            if first.setdefault(part, layer) == layer:
                parts.append(part)
            else:
                repeated[first[part]] += len(kernels)
        cells.append("; ".join([*parts, *(f"{count} as in {above}" for above, count in repeated.items())]))
    return cells


def _runs(names: Sequence[str]) -> list[str]:
    """The names; of one that stands there several times, each with its place: "cell, run 2 of 4"."""
    counts, seen = Counter(names), Counter[str]()
    numbered = []
    for name in names:
        seen[name] += 1
        more = f", run {seen[name]} of {counts[name]}" if counts[name] > 1 else ""
        numbered.append(f"{name or '(itself)'}{more}")
    return numbered


def profile_table(profile: Profile, activation_macs: int = 0) -> Grid:
    """Per weight: size, work of all its runs, zeros, and the network's error when it alone is pruned; then the network.

    The error is shown at two of the sparsities tried: a middle one and the highest.
    activation_macs  products of two activations, which belong to no weight

    >>> profile_table(record.profile).rows[-1][:5]
    ('whole network', '', '80', '80', '0.0 %')
    """
    tried = sorted({sparsity for layer in profile.layers for sparsity in layer.sensitivity})
    shown = sorted({tried[len(tried) // 2], tried[-1]}) if tried else []
    rows = [
        (
            layer.name or "(itself)",
            "x".join(map(str, layer.weight_shape)),
            show_count(layer.weights),
            show_macs(layer.macs),
            show_share(layer.weight_sparsity),
            show_known(show_share, layer.input_sparsity),
            show_known(show_share, layer.output_sparsity),
            *(show_known(show_error, layer.sensitivity.get(sparsity)) for sparsity in shown),
        )
        for layer in profile.layers
    ]
    sizes = ("layer", "shape", "weights", "MACs", "zero weights", "zero inputs", "zero outputs")
    columns = (*sizes, *(f"error at {100 * sparsity:g} %" for sparsity in shown))
    if rows:
        rows.append((*_sums(profile), *[""] * (len(columns) - 5)))
    note = f"Error of the whole network on validation: {show_error(profile.error)}."
    if shown:
        note += " Error at s: with s of this layer's weights zero, all other layers untouched."
    note = " ".join([note, *_notes(profile, activation_macs)])
    return Grid("Profile", columns, tuple(rows), note, marks={len(profile.layers): "total"})


def _sums(profile: Profile) -> tuple[str, ...]:
    weights, macs = (sum(getattr(layer, which) for layer in profile.layers) for which in ("weights", "macs"))
    zeros = sum(layer.weight_sparsity * layer.weights for layer in profile.layers)
    return "whole network", "", show_count(weights), show_macs(macs), show_share(zeros / max(weights, 1))


def _notes(profile: Profile, activation_macs: int) -> list[str]:
    """What runs several times, what stays dense and why, and what no weight takes part in."""
    often = [f"{layer.name} runs {layer.runs} times" for layer in profile.layers if layer.runs > 1]
    notes = [f"MACs are those of all runs: {_few(often)}."] if often else []
    reasons = dict.fromkeys(layer.kept_dense for layer in profile.layers if layer.kept_dense)
    total = sum(layer.weights for layer in profile.layers)
    for reason in reasons:
        dense = [layer for layer in profile.layers if layer.kept_dense == reason]
        share = show_share(sum(layer.weights for layer in dense) / max(total, 1))
        notes.append(f"Stays dense: {_few([each.name for each in dense])}, {share} of the weights: {reason}.")
    if activation_macs:
        notes.append(f"Products of two activations: {show_macs(activation_macs)} MACs more.")
    return notes


def dense_rows(summary: Summary) -> list[tuple[str, str, str, str]]:
    """A row for each reason why weights stay dense, the largest part first."""
    rows = []
    for reason, layers in by_reason(summary.dense_layers).items():
        counts = (
            show_count(sum(each.weights for each in layers)),
            show_count(sum(each.weights_kept for each in layers)),
        )
        word = "stay" if all(each.weights_kept == each.weights for each in layers) else "run"
        rows.append((f"{word} dense: {_names(layers)}", *counts, f"{_part(summary, layers)}: {reason}"))
    return rows


def eight_bits_rows(summary: Summary) -> list[tuple[str, str, str, str]]:
    """What eight bits cost the outputs, and for each batch size and reason the layers that stay in fp32; none in fp32.

    >>> eight_bits_rows(record.summary)
    []
    """
    if (bits := summary.eight_bits) is None:
        return []
    off = f"their distance from fp32, as share of them: {bits.examples} examples, {bits.method}"
    rows = [("outputs in int8", "-", show_share(bits.error), off)]
    for when, reasons in bits.by_program.items():
        for reason in dict.fromkeys(reasons.values()):
            layers = [each for each in summary.layers if reasons.get(each.name) == reason]
            weights = show_count(sum(each.weights for each in layers))
            kept = show_count(sum(each.weights_kept for each in layers))
            rows.append(
                (f"in fp32{when}: {_names(layers)}", weights, kept, f"{_part(summary, layers)}: {reason}")
            )
    return rows


def macs_rows(summary: Summary) -> list[tuple[str, str, str, str]]:
    """A row of the products with weights and, where there are any, one of those without; none in old records."""
    if not summary.macs:
        return []
    macs, kept = show_macs(summary.macs), show_macs(summary.macs_kept)
    fewer = show_gain(summary.macs / max(summary.macs_kept, 1), "fewer", "MORE", "as many")
    rows = [("MACs of an example", macs, kept, fewer)]
    without = show_macs(summary.activation_macs)
    return (
        [*rows, ("MACs without a weight", without, without, "as many")] if summary.activation_macs else rows
    )


def _names(layers: Sequence[LayerSummary]) -> str:
    return _few([each.name or "the network itself" for each in layers])


def _few(names: Sequence[str], most: int = 3) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _part(summary: Summary, layers: Sequence[LayerSummary]) -> str:
    """The share of the network that these are."""
    macs = sum(each.macs for each in layers) / max(summary.macs, 1)
    of_macs = f", {show_share(macs)} of the MACs" if summary.macs else ""
    return f"{show_share(summary.share(layers))} of the weights{of_macs}"
