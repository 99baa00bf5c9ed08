"""Run a network fast: the quickest kernel for each layer, measured here, and dense where that is quickest."""

from zeroskip.run.choose import check, compile
from zeroskip.run.compare import compare
from zeroskip.run.module import as_module
from zeroskip.run.program import Program
from zeroskip.run.saved import load, save

__all__ = ["Program", "as_module", "check", "compare", "compile", "load", "save"]
