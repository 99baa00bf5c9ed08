"""Every engine on this machine, raced in turns: each in a process and an environment of its own.

cases.py             what is raced: layers and networks, their zeros, batch and threads
recorded_layers.py   layers of trained networks, with the inputs that they really see
trained_networks.py  a trained network, for engines in eight bits
seeded_networks.py   the same pruned network and input for every engine
worker.py            one engine in its process; needs neither zeroskip nor torch to be installed
worker_engines.py    what it calls: how each library computes the network of a case
onnx_file.py         the network as other engines read it
zeroskip_engines.py  our own engines, as a worker times them
engines.py           who races, and why an engine cannot
worker_process.py    the parent's end of a worker
results.py           what was measured: results, rows, ratios, and finished cases on disk
rounds.py            rounds in turns, answers compared, medians over fresh processes; a race that goes on
"""

from __future__ import annotations

from zeroskip.bench import recorded_layers, trained_networks
from zeroskip.bench.cases import ACTIVATIONS, CASES, ENCODERS, QUICK, TRANSFORMERS, Case, select
from zeroskip.bench.engines import ENTRANTS, QUICK_ENTRANTS, Entrant, Environments, entrants
from zeroskip.bench.results import (
    RaceReport,
    RaceResult,
    RaceRow,
    Store,
    race_report,
    ratios,
    rows,
    worst_first,
)
from zeroskip.bench.rounds import FULL, SHORT, Effort, RaceSetup, race, race_rest

__all__ = [
    "ACTIVATIONS",
    "CASES",
    "ENCODERS",
    "ENTRANTS",
    "FULL",
    "QUICK",
    "QUICK_ENTRANTS",
    "SHORT",
    "TRANSFORMERS",
    "Case",
    "Effort",
    "Entrant",
    "Environments",
    "RaceReport",
    "RaceResult",
    "RaceRow",
    "RaceSetup",
    "Store",
    "entrants",
    "race",
    "race_report",
    "race_rest",
    "ratios",
    "recorded_layers",
    "rows",
    "select",
    "trained_networks",
    "worst_first",
]
