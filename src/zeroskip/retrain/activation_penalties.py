"""Training that makes more zeros among activations: penalties on what ReLUs let through, and growing thresholds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from zeroskip.task_api import OnStep
from zeroskip.thresholds import held, hold_

_RELUS = {"relu", "relu_", "relu6", "threshold", "_threshold", "threshold_", "hardtanh", "hardtanh_"}


class ReluOutputs(TorchFunctionMode):
    """Inside, `outputs` collects what each ReLU gives, batch axis first: modules, functions and methods alike.

    Those in a `no_grad` of their own, as a teacher's, do not count.

    >>> with ReluOutputs() as seen:
    ...     y = model(x)
    >>> [tuple(output.shape) for output in seen.outputs]
    [(3, 8)]
    """

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []
        self.learning = torch.is_grad_enabled()

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """What the function answers, kept where it is a ReLU."""
        result = func(*args, **(kwargs or {}))
        if func.__name__ in _RELUS and torch.is_grad_enabled() == self.learning:
            assert isinstance(result, Tensor)
            self.outputs.append(result)
        return result


def activation_l1(output: Tensor) -> Tensor:
    """sum |x| of an example, mean over the batch. output (batch, ...).

    >>> activation_l1(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
    tensor(3.)
    """
    return output.flatten(1).abs().sum(1).mean()


def activation_hoyer(output: Tensor) -> Tensor:
    """(sum |x|)^2 / sum x^2 of an example, mean over the batch: from 1, one value alone, to n, all n alike.

    It minds how many values there are and not how large they are (Hoyer 2004; Kurtz et al. 2020 train with it). An
    example of zeros counts 0. output (batch, ...)

    >>> activation_hoyer(torch.tensor([[0.0, 5.0], [2.0, 2.0]]))
    tensor(1.5000)
    """
    flat = output.flatten(1)
    squares = flat.square().sum(1).clamp(min=torch.finfo(flat.dtype).tiny)
    return (flat.abs().sum(1).square() / squares).mean()


def raising(model: nn.Module, thresholds: Mapping[str, float], *, share: float = 0.7) -> OnStep:
    """The `on_step` under which the thresholds of layers' inputs grow evenly over the first `share` of a training.

    Behind ReLUs that is a FATReLU (Kurtz et al. 2020; Song et al. 2024) that the network learns to live with. The
    model holds thresholds from now on. Raises RecipeError as `thresholds.hold_` does.

    >>> task.train(model, on_step=raising(model, {"fc2": 0.5}))
    >>> held(model)
    {'fc2': 0.5}
    """
    begin = held(model)

    def grown(part: float) -> dict[str, float]:
        ways = {name: (begin.get(name, 0.0), theta) for name, theta in thresholds.items()}
        # However small, they are there from the start, since the state of a training that was stopped names them.
        return {name: max(theta / 1024, low + (theta - low) * part) for name, (low, theta) in ways.items()}

    hold_(model, grown(0.0))

    def on_step(step: int, steps: int, optimizer: Optimizer) -> None:
        last = max(1, min(int(share * steps), steps - 1))
        hold_(model, grown(min(1.0, step / last)))

    return on_step
