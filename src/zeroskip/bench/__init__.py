"""Every engine on this machine, raced in turns: each in a process and an environment of its own.

cases.py      what is raced: layers and networks, their zeros, batch and threads
networks.py   the same pruned network and input for every engine
recorded.py   layers of trained networks, with the inputs that they really see
engines.py    who races, and why an engine cannot
worker.py     one engine in its process; needs neither zeroskip nor torch to be installed
process.py    the parent's end of a worker
race.py       rounds in turns, answers compared, medians over fresh processes
results.py    what was measured, as rows and on disk
"""

from __future__ import annotations

from zeroskip.bench import recorded_layers
from zeroskip.bench.cases import ACTIVATIONS, CASES, QUICK, Case, select
from zeroskip.bench.engines import ENGINES, Engine, Environments, entrants
from zeroskip.bench.race import FULL, SHORT, Effort, race
from zeroskip.bench.results import Result, Store, rows

__all__ = [
    "ACTIVATIONS",
    "CASES",
    "ENGINES",
    "FULL",
    "QUICK",
    "SHORT",
    "Case",
    "Effort",
    "Engine",
    "Environments",
    "Result",
    "Store",
    "entrants",
    "race",
    "recorded_layers",
    "rows",
    "select",
]
