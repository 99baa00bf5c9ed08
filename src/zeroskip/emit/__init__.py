"""Patterns into code: LLVM IR as text, and this machine as data."""

from zeroskip.emit.llvm import INTEGER, POINTER, Function, Vector, assembly, compile_function
from zeroskip.emit.machine import detect

__all__ = ["INTEGER", "POINTER", "Function", "Vector", "assembly", "compile_function", "detect"]
