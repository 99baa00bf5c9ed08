"""Why a program is not faster, as a table: its zeros, its time, and what would gain most."""

from __future__ import annotations

from zeroskip.concepts import Explanation
from zeroskip.concepts.explanation import percents
from zeroskip.report.grid import Grid
from zeroskip.report.number_format import show_count, show_seconds

TITLE = "Why it is not faster"


def explanation_table(explanation: Explanation) -> Grid:
    """Where the zeros are, what takes the time, and the changes that may gain 5 % of it or more.

    >>> for row in explanation_table(explanation).rows:
    ...     print(*row, sep=" | ")
    zeros where a sparse kernel was timed | 75.0% | of 4,000
    zeros where one won | 75.0% |
    other zeros | 25.0% | lstm: no sparse kernel
    time in 2 pieces | 2 ms | of 5 ms in all; in sparse kernels 1.5 ms
    time between them | 2.5 ms | lstm, once
    time between them | 500 µs | silu, 4 times
    gains at most | 2.2 ms | a sparse kernel for lstm: its time x its share of zeros
    gains at most | 500 µs | silu in compiled code: its own time
    """
    rows = [*_zeros(explanation), *_times(explanation), *_gains(explanation)]
    note = "Times are of one run on the example, measured part by part. A gain is an upper bound."
    return Grid(TITLE, ("", "figure", "of what"), tuple(rows), note, prose=("of what",))


def _zeros(explanation: Explanation) -> list[tuple[str, str, str]]:
    if not explanation.zeros:
        return [("zeros", "0", "no weight of the network is zero")]
    (reached,) = percents([explanation.zeros_reached])
    won, *others = percents([explanation.zeros_won, *(each.share for each in explanation.unskipped)])
    return [
        ("zeros where a sparse kernel was timed", reached, f"of {show_count(explanation.zeros)}"),
        ("zeros where one won", won, ""),
        *(
            ("other zeros", share, each.reason)
            for share, each in zip(others, explanation.unskipped, strict=True)
        ),
    ]


def _times(explanation: Explanation) -> list[tuple[str, str, str]]:
    pieces = f"{explanation.pieces} piece{'' if explanation.pieces == 1 else 's'}"
    whole, sparse = show_seconds(explanation.seconds), show_seconds(explanation.sparse_seconds)
    rows = [
        (
            f"time in {pieces}",
            show_seconds(explanation.piece_seconds),
            f"of {whole} in all; in sparse kernels {sparse}",
        )
    ]
    for each in explanation.between:
        often = "once" if each.count == 1 else f"{each.count} times"
        rows.append(("time between them", show_seconds(each.seconds), f"{each.operation}, {often}"))
    if explanation.tiles_pieces:
        tiles = show_seconds(explanation.tiles_seconds)
        rows.append(("the network on tiles", tiles, f"in {explanation.tiles_pieces} pieces: not faster"))
    return rows


def _gains(explanation: Explanation) -> list[tuple[str, str, str]]:
    gains = [
        ("gains at most", show_seconds(gain.seconds), f"{gain.change}: {gain.why}")
        for gain in explanation.paying
    ]
    return gains or [("gains 5 % or more", "-", "no single change")]
