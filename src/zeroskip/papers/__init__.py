"""Published tables beside ours, row by row: a folder for each paper.

__init__       PAPER: its name, its networks, its rows, and how its findings are measured
published      what the paper prints
rows, figures  the paper's figures beside ours, with the rule that says whether ours holds
findings       what is measured on a network, and read from JSON
train, measure what makes the findings;  results/ holds those that come with zeroskip

A paper has rows that follow from sizes and arithmetic (`analytic`) and rows that need training or timing
(`measured_rows`, from the findings of one network); those without findings stay, with the reason.

`common` holds what serves several papers, and knows none of them; `published_shares` the shares of zeros on which the
rows of several rest. Papers take from others: all of the simulator from `published_shares`; deep_compression from
han2015; cambricon_s from eie and han2015; sparten from scnn and eyeriss_v2.
"""

from zeroskip.concepts import PaperRow
from zeroskip.papers.catalogue import PAPERS, measurable, measured_networks, named, rows
from zeroskip.papers.common.paper import Paper, Setup
from zeroskip.papers.common.results import PaperResult, committed, load, results_folder, store, stored
from zeroskip.papers.eyeriss.published import CODEC_TABLES

__all__ = [
    "CODEC_TABLES",
    "PAPERS",
    "Paper",
    "PaperResult",
    "PaperRow",
    "Setup",
    "committed",
    "load",
    "measurable",
    "measured_networks",
    "named",
    "results_folder",
    "rows",
    "store",
    "stored",
]
