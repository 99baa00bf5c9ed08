"""Why a program is not faster: where its zeros are, in how many pieces it runs, and what would gain most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LEAST = 0.05
"""The share of a program's time that a change must gain to be worth naming."""
SHOWN = 3  # of what is listed in one line


@dataclass(frozen=True)
class Unskipped:
    """The share of a network's zeros that one reason keeps from being skipped.

    >>> explanation.unskipped[0]
    Unskipped(reason='lstm: no sparse kernel', share=0.25)
    """

    reason: str
    share: float


@dataclass(frozen=True)
class Between:
    """An operation that PyTorch computes between the pieces: how often, and its seconds in all.

    >>> explanation.between[0]
    Between(operation='lstm', count=1, seconds=0.0025)
    """

    operation: str
    count: int
    seconds: float


@dataclass(frozen=True)
class Gain:
    """A change, the seconds that it gains at most, and where that bound comes from.

    >>> explanation.advice[1]
    Gain(change='silu in compiled code', seconds=0.0005, why='its own time')
    """

    change: str
    seconds: float
    why: str


@dataclass(frozen=True)
class Explanation:
    """What keeps a program from being faster, from one run on the example, measured part by part.

    zeros            in all weights of the network, each counted once
    zeros_reached    the share of them in weights on which a kernel that skips zero weights was timed
    zeros_won        the share in weights where such a kernel was chosen; `unskipped` has the rest, by reason
    pieces           calls that compute layers: a segment on tiles is one, a chain of linear layers too
    between          the operations that PyTorch computes between them, longest first
    seconds          of that run: the sum of `piece_seconds` and of what is between
    sparse_seconds   of `piece_seconds`, what kernels that skip zero weights take
    tiles_pieces     pieces that the network would have on tiles, where it was tried and lost: else 0;
    tiles_seconds    and what a call took then
    advice           changes that may gain something, largest first

    >>> explanation.zeros_won, sum(each.share for each in explanation.unskipped)
    (0.75, 0.25)
    >>> print(*explanation.lines, sep="\\n")
    zeros: 75.0% lie where a sparse kernel was timed, 75.0% where one won; 25.0% lstm: no sparse kernel
    time: 2.0 ms of 5.0 in 2 pieces, 3.0 ms between them: lstm (1, 2.5 ms), silu (4, 0.5 ms)
    most to gain: a sparse kernel for lstm: at most 2.2 ms of 5.0 (its time x its share of zeros); silu in compiled ...
    """

    zeros: int
    zeros_reached: float
    zeros_won: float
    unskipped: tuple[Unskipped, ...]
    pieces: int
    between: tuple[Between, ...]
    piece_seconds: float
    sparse_seconds: float
    tiles_pieces: int = 0
    tiles_seconds: float = 0.0
    advice: tuple[Gain, ...] = ()

    @property
    def between_seconds(self) -> float:
        """Seconds of all operations between the pieces.

        >>> explanation.between_seconds
        0.003
        """
        return sum((each.seconds for each in self.between), 0.0)

    @property
    def seconds(self) -> float:
        """Seconds of the run that was measured part by part."""
        return self.piece_seconds + self.between_seconds

    @property
    def paying(self) -> tuple[Gain, ...]:
        """The changes that may gain 5 % of the time or more.

        >>> [gain.change for gain in explanation.paying]
        ['a sparse kernel for lstm', 'silu in compiled code']
        """
        return tuple(gain for gain in self.advice if gain.seconds >= LEAST * self.seconds)

    @property
    def lines(self) -> tuple[str, str, str]:
        """The three sentences of a table: zeros, time, what would gain most."""
        return self._zeros_line(), self._time_line(), self._advice_line()

    def to_json(self) -> dict[str, object]:
        """The explanation as JSON, with its sums and lines for those who read it elsewhere.

        >>> Explanation.from_json(explanation.to_json()) == explanation
        True
        """
        sums = {"seconds": self.seconds, "between_seconds": self.between_seconds, "lines": list(self.lines)}
        return {**asdict(self), **sums}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Explanation:
        """The explanation of a file; raises whatever Python says of what makes no sense."""
        return cls(
            zeros=int(stored["zeros"]),
            zeros_reached=float(stored["zeros_reached"]),
            zeros_won=float(stored["zeros_won"]),
            unskipped=tuple(
                Unskipped(str(each["reason"]), float(each["share"])) for each in stored["unskipped"]
            ),
            pieces=int(stored["pieces"]),
            between=tuple(
                Between(str(each["operation"]), int(each["count"]), float(each["seconds"]))
                for each in stored["between"]
            ),
            piece_seconds=float(stored["piece_seconds"]),
            sparse_seconds=float(stored["sparse_seconds"]),
            tiles_pieces=int(stored["tiles_pieces"]),
            tiles_seconds=float(stored["tiles_seconds"]),
            advice=tuple(
                Gain(str(each["change"]), float(each["seconds"]), str(each["why"]))
                for each in stored["advice"]
            ),
        )

    def _zeros_line(self) -> str:
        if not self.zeros:
            return "zeros: the network's weights have none"
        won, *others = percents([self.zeros_won, *(each.share for each in self.unskipped)])
        (reached,) = percents([self.zeros_reached])
        named = zip(others, self.unskipped, strict=True)
        rest = [f"{share} {each.reason}" for share, each in named if share != "0.0%"]
        if len(rest) > SHOWN + 1:
            (left,) = percents([sum(each.share for each in self.unskipped[SHOWN:])])
            rest[SHOWN:] = [f"{left} for {len(rest) - SHOWN} more reasons"]
        won = f"zeros: {reached} lie where a sparse kernel was timed, {won} where one won"
        return "; ".join([won, ", ".join(rest)] if rest else [won])

    def _time_line(self) -> str:
        unit = _unit(self.seconds)
        first = [
            f"{each.operation} ({each.count}, {_number(each.seconds, unit)} {unit})"
            for each in self.between[:SHOWN]
        ]
        if left := self.between[SHOWN:]:
            seconds = sum(each.seconds for each in left)
            first.append(f"{len(left)} more ({_number(seconds, unit)} {unit})")
        line = f"time: {_number(self.piece_seconds, unit)} {unit} of {_number(self.seconds, unit)} in "
        line += _pieces(self.pieces)
        if first:
            line += f", {_number(self.between_seconds, unit)} {unit} between them: {', '.join(first)}"
        if self.tiles_pieces:
            tiles = f"{_number(self.tiles_seconds, unit)} {unit} in {_pieces(self.tiles_pieces)}"
            line += f"; on tiles it took {tiles}"
        return line

    def _advice_line(self) -> str:
        (share,) = percents([self.sparse_seconds / self.seconds if self.seconds else 0.0])
        if not self.paying:
            return f"most to gain: nothing by {LEAST:.0%}; sparse kernels take {share} of the time"
        unit = _unit(self.seconds)
        of = f"{unit} of {_number(self.seconds, unit)}"
        gains = [
            f"{gain.change}: at most {_number(gain.seconds, unit)} {of} ({gain.why})" for gain in self.paying
        ]
        return f"most to gain: {'; '.join(gains[: SHOWN - 1])}"


def percents(shares: Sequence[float]) -> list[str]:
    """Shares in tenths of a percent, rounded so that they sum to 100.0 % where the shares sum to 1.

    >>> percents([1 / 3, 1 / 3, 1 / 3])
    ['33.4%', '33.3%', '33.3%']
    """
    tenths = [1000 * share for share in shares]
    counts = [int(each + 1e-6) for each in tenths]
    missing = round(sum(tenths)) - sum(counts)
    by_rest = sorted(range(len(counts)), key=lambda place: counts[place] - tenths[place])
    for place in by_rest[: max(0, missing)]:
        counts[place] += 1
    return [f"{count / 10:.1f}%" for count in counts]


def _pieces(count: int) -> str:
    return f"{count} piece{'' if count == 1 else 's'}"


def _unit(seconds: float) -> str:
    return "ms" if seconds >= 1e-3 else "us"


def _number(seconds: float, unit: str) -> str:
    return f"{seconds * {'ms': 1e3, 'us': 1e6}[unit]:.1f}"
