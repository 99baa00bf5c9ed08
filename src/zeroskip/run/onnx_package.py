"""The packages that read, write and run ONNX files, which come with `zeroskip[onnx]`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from zeroskip.errors import EngineError
from zeroskip.graph.exporting import first_line

Proto: TypeAlias = Any
"""A part of an ONNX file as the onnx package has it, whose classes are made when it is imported."""


def package(name: str) -> Proto:
    """The package onnx or onnxruntime; EngineError, with what to install, where it is absent.

    >>> package("onnx").__name__
    'onnx'
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise EngineError(
            f"ONNX files need the package {name}, which is not installed. pip install 'zeroskip[onnx]'"
        ) from None


def answers(content: bytes, tensors: Sequence[Tensor], *, as_written: bool = False) -> list[Tensor]:
    """What ONNX Runtime makes of the tensors, in the order of the file's inputs, on one thread of the CPU.

    content     of the file
    as_written  every operation by itself in float32, instead of the kernels for bytes that it fuses them to
    EngineError where it cannot run the file.
    """
    runtime = package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Without VNNI, its products of uint8 and int8 are cut off at 16 bits unless it is asked not to.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if as_written:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        given = {
            each.name: tensor.detach().numpy()
            for each, tensor in zip(session.get_inputs(), tensors, strict=True)
        }
        return [torch.from_numpy(np.asarray(y)) for y in session.run(None, given)]
    except Exception as fact:  # its errors have no common class, and torch's and NumPy's come here too
        raise EngineError(f"ONNX Runtime cannot run the file: {first_line(fact)}") from fact
