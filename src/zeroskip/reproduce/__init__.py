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

from zeroskip.reproduce.activation_tables import measure_trained
from zeroskip.reproduce.eyeriss import CODEC_TABLES
from zeroskip.reproduce.papers import PAPERS, Paper, measurable, named, rows
from zeroskip.reproduce.results import Result, committed, load, store, stored
from zeroskip.reproduce.rows import Row

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
