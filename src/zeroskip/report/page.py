"""One HTML file that holds everything, opens offline and asks nobody for anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zeroskip import files
from zeroskip.concepts import Record
from zeroskip.errors import RunError
from zeroskip.report import explanation_table, figures, weight_tables
from zeroskip.report import run_tables as tables
from zeroskip.report.captions import CAPTIONS
from zeroskip.report.figures import Plot
from zeroskip.report.grid import Grid
from zeroskip.report.number_format import show_count


@dataclass(frozen=True)
class Section:
    """A part of the page: what to see, then a verdict, tables and figures; `details` are tables folded away.

    linked  the rows of its tables are the sections that follow
    mood    colours the verdict: "win" or "loss" where zeroskip won or lost every race, else ""
    """

    title: str
    caption: str = ""
    grids: Sequence[Grid] = ()
    plots: Sequence[Plot] = ()
    details: Sequence[Grid] = ()
    verdict: str = ""
    linked: bool = False
    mood: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to look at."""
        return not (self.verdict or self.plots or any(grid.rows for grid in self.grids))


def html(path: str | Path, *records: Record) -> Path:
    """Write the report of one run, or the comparison of several, as one self-contained HTML file.

    What a record lacks (timings, sensitivity, ledger, ...) has no section. Raises FileError where the
    file cannot be written and RunError where no record is given.

    >>> html("report.html", record).read_text()[:15]
    '<!DOCTYPE html>'
    """
    if not records:
        raise RunError("a report of no runs was asked for: there is nothing to show. Name at least one run.")
    if len(records) == 1:
        return files.write(path, render(f"{records[0].summary.task}: do its zeros pay?", one_run(records[0])))
    return files.write(path, render(f"{len(records)} runs compared", several_runs(records)))


def one_run(record: Record) -> list[Section]:
    """The sections of one run's page; those without content are left out."""
    seeds = [tables.seeds_table(record)] if len(record.summary.runs) > 1 else []
    times = [tables.timing_table(timing) for timing in record.timings]
    why = record.summary.explanation
    explained = [explanation_table.explanation_table(why)] if why else []
    choices, history = weight_tables.choice_table(record.choices), tables.history_table(record.history)
    parts = [
        _verdict("Verdict", record, [tables.summary_table(record), *seeds]),
        _section("Time on this machine", grids=times),
        _section(explanation_table.TITLE, grids=explained),
        _section("Layer by layer", grids=[weight_tables.layer_table(record)], detail=choices),
        _section(
            "Where the zeros are", figures.layers(record), detail=weight_tables.profile_table(record.profile)
        ),
        _section("How much each layer minds", figures.sensitivity(record)),
        _section("Error against weights kept", figures.trade_off(record), detail=history),
        _section("Weights before and after", figures.histograms(record)),
        _section("What the first layer keeps", figures.first_layer(record)),
        _section("Where the bytes go", figures.ledger(record), detail=tables.ledger_table(record.ledger)),
    ]
    return [part for part in parts if not part.empty]


def several_runs(records: Sequence[Record]) -> list[Section]:
    """The sections of a comparison: all runs in one table and two figures, then each run's own verdict."""
    grids, plots = [tables.comparison_table(records)], figures.comparison(records)
    first = Section("Comparison", CAPTIONS["Comparison"], grids, plots, linked=True)
    named = zip(tables.run_names(records), records, strict=True)
    return [first, *(_verdict(name, record, [tables.summary_table(record)]) for name, record in named)]


def _section(
    title: str, plots: Sequence[Plot] = (), *, grids: Sequence[Grid] = (), detail: Grid | None = None
) -> Section:
    return Section(title, CAPTIONS[title], grids, plots, [detail] if detail and detail.rows else [])


def _verdict(title: str, record: Record, grids: Sequence[Grid]) -> Section:
    splits = ", ".join(f"{name} {show_count(count)}" for name, count in record.summary.splits.items())
    caption = f"Examples: {splits}." if splits else ""
    marks = {tables.outcome(timing) for timing in tables.comparable(record.timings)}
    mood = marks.pop() if len(marks) == 1 else ""
    return Section(title, caption, grids, verdict=record.summary.verdict, mood=mood)


def render(title: str, sections: Sequence[Section]) -> str:
    """The text of a whole page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    # Plotly's own source goes in once, as it is; everything else is escaped.
    loader = FileSystemLoader(Path(__file__).parent)
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    plots = [json.loads(plot.figure.to_json()) for section in sections for plot in section.plots]
    given = {"title": title, "sections": sections, "plots": plots, "plotly": get_plotlyjs()}
    return page.get_template("template.html.j2").render(given)
