"""Published tables beside ours, row by row: one file per paper, its printed figures in `published/`.

rows.py       a Row, and the rules that say whether it holds
networks.py   exact layer sizes, from the models
masked.py     the papers' layers as masks, for rows by the simulator
facts.py      what a figure states, judged on numbers
results.py    findings of long runs, stored as JSON; measured/ holds those that come with zeroskip
trained/      what is trained, and the findings that come of it

A paper has rows that follow from sizes and arithmetic (`analytic`) and rows that need training or timing
(`measured_rows`, from the findings of one network); those without findings stay, with the reason.
"""

from zeroskip.papers.catalogue import PAPERS, Paper, measurable, named, rows
from zeroskip.papers.common.activation_tables import measure_trained
from zeroskip.papers.common.results import Result, committed, load, store, stored
from zeroskip.papers.common.row import Row
from zeroskip.papers.eyeriss.rows import CODEC_TABLES

__all__ = [
    "CODEC_TABLES",
    "PAPERS",
    "Paper",
    "Result",
    "Row",
    "committed",
    "load",
    "measurable",
    "measure_trained",
    "named",
    "rows",
    "store",
    "stored",
]
