"""GELU and SiLU networks turned into ReLU networks while they train (Mirzadeh et al. 2023, "ReLU strikes back")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from zeroskip import prune
from zeroskip.errors import ModelError, TaskError
from zeroskip.task_api import OnStep


class _Blend(nn.Module):
    """(1 - share) x smooth + share x ReLU."""

    def __init__(self, smooth: nn.Module) -> None:
        super().__init__()
        self.smooth, self.share = smooth, 0.0

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(self.smooth(x), F.relu(x), self.share)


@contextmanager
def relufied(model: nn.Module, *, share: float = 0.7) -> Iterator[OnStep]:
    """Yields an `on_step` that leads each nn.GELU, nn.SiLU, nn.Mish and nn.Hardswish evenly over to ReLU in the first
    `share` of a training; afterwards they are plain nn.ReLU modules.

    A state dict does not tell: `prune.relu_edits(model)`, asked before, replays it on a fresh network by `rebuild`.
    Raises ModelError where there is no such module (a function in `forward` cannot be exchanged), TaskError where the
    training ended before all was ReLU. After an error the modules are what they were.

    >>> smooth = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4))
    >>> with relufied(smooth) as on_step:
    ...     task.train(smooth, on_step=on_step)
    >>> smooth[1]
    ReLU()
    """
    before = {edit["layer"]: model.get_submodule(edit["layer"]) for edit in prune.relu_edits(model)}
    if not before:
        raise ModelError(
            "the network has no nn.GELU, nn.SiLU, nn.Mish or nn.Hardswish module that could become a ReLU. Where "
            "forward calls functional.gelu or silu, let it call a module instead."
        )
    blends = {name: _Blend(smooth) for name, smooth in before.items()}

    def on_step(step: int, steps: int, optimizer: Optimizer) -> None:
        for blend in blends.values():
            blend.share = min(1.0, step / max(1, min(int(share * steps), steps - 1)))

    _exchange_(model, blends)
    try:
        yield on_step
        if left := [name for name, blend in blends.items() if blend.share < 1]:
            raise TaskError(
                f'"{left[0]}" is no ReLU yet: the training did not call on_step(step, steps, optimizer) at each step '
                f"to its end. Give it to train() as on_step, which train() has to take, and call it after backward."
            )
    except BaseException:
        _exchange_(model, before)
        raise
    _exchange_(model, {name: nn.ReLU() for name in before})


def _exchange_(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    for name, module in modules.items():
        model.set_submodule(name, module.train(model.training))
