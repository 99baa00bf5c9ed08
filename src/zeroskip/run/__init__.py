"""Run a network fast: the quickest kernel for each layer, measured here, and dense where that is quickest."""

from zeroskip.run.comparison import compare
from zeroskip.run.compiler import check, compile
from zeroskip.run.program import Program, as_module
from zeroskip.run.program_file import load, save

__all__ = ["Program", "as_module", "check", "compare", "compile", "load", "save"]
