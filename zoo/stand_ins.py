"""What torchvision and torchaudio miss beside a torch for the CPU: declarations in place of their compiled parts.

Their wheels hold operators compiled for CUDA, which do not load there. No network of the table calls one of them;
the packages only have to be imported.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import NoReturn

import torch


def declare() -> None:
    """Let torchvision and torchaudio be imported. Without effect where their own operators load."""
    _torchvision()
    _torchaudio()


def _torchvision() -> None:
    """torchvision describes two operators to torch.export at its import, which needs their names."""
    if _loads("torchvision", "_C"):
        return
    for schema in (
        "torchvision::nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "torchvision::qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        name, signature = schema.split("(", 1)
        if not hasattr(torch.ops.torchvision, name.split("::")[1]):
            torch.library.define(name, "(" + signature)


def _torchaudio() -> None:
    """torchaudio loads its operators at its import, and fails where they do not."""
    if _loads("torchaudio", "lib/_torchaudio") or "torchaudio" in sys.modules:
        return
    extension = types.ModuleType("torchaudio._extension")
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
    extension._IS_ALIGN_AVAILABLE = False
    extension._check_cuda_version = lambda: None
    extension.fail_if_no_align = lambda function: _unavailable
    sys.modules["torchaudio._extension"] = extension


def _unavailable(*args: object, **kwargs: object) -> NoReturn:
    raise RuntimeError("torchaudio's compiled operators are not available beside this torch")


def _loads(package: str, library: str) -> bool:
    """Whether the compiled library of a package is there and loads; True too where there is no such package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return True
    folder = spec.submodule_search_locations[0]
    try:
        torch.ops.load_library(f"{folder}/{library}.so")
    except OSError:
        return False
    return True
