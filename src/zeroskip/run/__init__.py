"""Run a network fast: the quickest kernel for each layer, measured here, and dense where that is quickest."""

from zeroskip.run.as_module import as_module
from zeroskip.run.calibration import calibrate
from zeroskip.run.comparison import compare
from zeroskip.run.compiler import check, compile
from zeroskip.run.onnx_export import OnnxDifference, onnx_difference, save_onnx
from zeroskip.run.onnx_import import quantisation_from_onnx
from zeroskip.run.program import Program
from zeroskip.run.program_file import load, save
from zeroskip.run.quantisation import Quantisation
from zeroskip.run.rounding import Rounded, rounded

__all__ = [
    "OnnxDifference", "Program", "Quantisation", "Rounded", "as_module", "calibrate", "check", "compare", "compile",
    "load", "onnx_difference", "quantisation_from_onnx", "rounded", "save", "save_onnx",
]  # fmt: skip
