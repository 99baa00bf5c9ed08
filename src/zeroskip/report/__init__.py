"""Say what a run found: tables for a terminal, and one HTML page that opens anywhere.

Record -> summary_table, layer_table, timing_table, ...  -> rich's Console.print
Record -> html(path, record)                              -> report.html
rows and results of `reproduce` -> reproduction_html      -> report.html
rows and zeros of `measure`     -> activations_html       -> zeros.html
"""

from __future__ import annotations

from zeroskip.report.activation_page import activations_markdown
from zeroskip.report.activation_tables import (
    activation_sections,
    activation_table,
    activations_html,
    threshold_table,
)
from zeroskip.report.explanation_table import explanation_table
from zeroskip.report.grid import Grid
from zeroskip.report.number_format import (
    show_bytes,
    show_count,
    show_error,
    show_seconds,
    show_share,
    show_times,
)
from zeroskip.report.page import html
from zeroskip.report.paper_tables import (
    reproduction_html,
    reproduction_markdown,
    reproduction_summary,
    reproduction_tables,
)
from zeroskip.report.run_tables import (
    comparison_table,
    history_table,
    ledger_table,
    seeds_table,
    summary_table,
    timing_table,
)
from zeroskip.report.simulation_page import simulation_html, sweep_html
from zeroskip.report.simulation_tables import (
    chip_table,
    layer_cost_table,
    left_out_sentences,
    left_out_table,
    sweep_table,
)
from zeroskip.report.weight_tables import choice_table, layer_table, profile_table, weight_table

__all__ = [
    "Grid", "activation_sections", "activation_table", "activations_html", "activations_markdown", "chip_table",
    "choice_table", "comparison_table", "explanation_table", "history_table", "html", "layer_cost_table", "layer_table",
    "ledger_table", "left_out_sentences", "left_out_table", "profile_table", "reproduction_html",
    "reproduction_markdown", "reproduction_summary", "reproduction_tables", "seeds_table", "show_bytes",
    "show_count", "show_error", "show_seconds", "show_share", "show_times", "simulation_html", "summary_table",
    "sweep_html", "sweep_table", "threshold_table", "timing_table", "weight_table",
]  # fmt: skip
