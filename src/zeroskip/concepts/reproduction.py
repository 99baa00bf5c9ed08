"""What a reproduction hands to a report: rows, where they come from, and what the papers' figures are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from zeroskip.concepts.network import Histogram

Curve = tuple[tuple[float, float], ...]
"""Points (x, error)."""


@dataclass(frozen=True)
class PaperRow:
    """Published beside ours. `ours` and `holds` are None where nothing was measured; `reason` says why.

    published, ours  numbers in `unit`, or short texts where the paper states a fact
    rule             what holds means;  trust  how the published figure is known
    reason           why it was not measured, or what is known about a row that fails
    network          which network the row is about, "" for none
    """

    paper: str
    table: str
    row: str
    column: str
    published: float | str
    ours: float | str | None
    holds: bool | None
    unit: str
    rule: str
    trust: str = "read in the paper"
    network: str = ""
    reason: str = ""

    @property
    def difference(self) -> float | None:
        """Ours minus published, in `unit`; None where one of them is no number.

        >>> PaperRow("han2015", "Table 4", "fc1", "rate", 9.0, 9.5, True, "x", "at least").difference
        0.5
        """
        if isinstance(self.published, str) or self.ours is None or isinstance(self.ours, str):
            return None
        return self.ours - self.published

    def to_json(self) -> dict[str, str | float | bool | None]:
        """All fields, with the difference after `ours`."""
        first = {key: getattr(self, key) for key in ("paper", "table", "row", "column", "published", "ours")}
        return {**first, "difference": self.difference, **vars(self)}


@dataclass(frozen=True)
class FrontierPoint:
    """One network of zeroskip's own recipe: how small it is, and its test errors before and after storing it.

    errors, errors_stored  those of each seed, of which `error` and `error_stored` are the means
    stored_bytes           of the whole file, by coder: "huffman", "arithmetic"

    >>> FrontierPoint(30, 0.0079, 4, 0.0080, {"huffman": 44_000, "arithmetic": 41_000}).times_fewer
    30
    """

    times_fewer: float
    error: float
    bits: float
    error_stored: float
    stored_bytes: Mapping[str, float]
    errors: tuple[float, ...] = ()
    errors_stored: tuple[float, ...] = ()


@dataclass(frozen=True)
class PrunedFrontier:
    """Error against size by zeroskip's own recipe, on one kind of images.

    error_dense, error_continued  of the dense network, and after as many steps as a pruned one has had

    >>> point = FrontierPoint(30, 0.0079, 4, 0.0080, {"huffman": 44_000, "arithmetic": 41_000})
    >>> PrunedFrontier(1_724_320, 0.0070, 0.0069, (point,)).points[0].error
    0.0079
    """

    stored_bytes_dense: float
    error_dense: float
    error_continued: float
    points: tuple[FrontierPoint, ...]


@dataclass(frozen=True)
class PaperFigures:
    """What the figures of the two papers by Han et al. are drawn from; what was not found is empty.

    trade_off, trade_off_dense  curve -> (share of weights kept, error); penalty -> error of the dense network
    sensitivity                 layer -> sparsity -> validation error with this layer alone pruned
    histograms                  "before", "after" -> of the first linear layer's weights that are not zero
    kept_by_pixel               connections that the first layer keeps of each input
    sizes, widths, starts       Deep Compression's figures 6 (share of size, error), 7 and 8 (bits -> error)
    coded_dense                 error of the dense network that these three start from
    frontiers                   of zeroskip's own recipe, by what the training images went through

    >>> PaperFigures(trade_off={"L1": ((0.5, 0.02), (0.1, 0.5))}).sizes
    {}
    """

    trade_off: Mapping[str, Curve] = field(default_factory=dict)
    trade_off_dense: Mapping[str, float] = field(default_factory=dict)
    sensitivity: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    kept_by_pixel: tuple[float, ...] = ()
    sizes: Mapping[str, Curve] = field(default_factory=dict)
    widths: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    starts: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    coded_dense: float | None = None
    frontiers: Mapping[str, PrunedFrontier] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperOrigin:
    """Where the findings on one network for one paper come from."""

    paper: str
    network: str
    date: str
    machine: str
    command: str
    seeds: int

    @property
    def line(self) -> str:
        """All of it in one line.

        >>> PaperOrigin("eie", "eie-fc8", "2026-01-31", "Xeon", "zeroskip reproduce eie", 1).line
        'eie, eie-fc8: 2026-01-31, Xeon, 1 seed, `zeroskip reproduce eie`'
        """
        seeds = "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"
        return f"{self.paper}, {self.network}: {self.date}, {self.machine}, {seeds}, `{self.command}`"


@dataclass(frozen=True)
class MeasuredNetwork:
    """What was found on one network: by which runs, and what its figures are drawn from.

    >>> origin = PaperOrigin("han2015", "lenet-5", "2026-01-31", "Xeon", "zeroskip reproduce han2015", 3)
    >>> MeasuredNetwork("lenet-5", (origin,), PaperFigures()).origins[0].seeds
    3
    """

    network: str
    origins: tuple[PaperOrigin, ...]
    figures: PaperFigures
