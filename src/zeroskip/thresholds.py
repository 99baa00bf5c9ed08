"""A threshold on the input of a layer: every |x| below it becomes 0, so that its products can be skipped.

This is stage 4 of Minerva (Reagen et al. 2016); behind a ReLU it is FATReLU, before any layer it is TEAL's rule. A
threshold is a forward pre-hook of a plain nn.Linear or nn.Conv2d: layers, names and weights stay what they are,
whoever looks at a layer's input (hooks, traces) sees its zeros, and torch.export shows one `aten.hardshrink` before
it. In a state dict it is one more number, `fc2.input_threshold`, stored with the weights in every file format.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from zeroskip.errors import RecipeError
from zeroskip.held import Loading, State, add_to_state_

KEY = "input_threshold"
_LARGEST = torch.finfo(torch.float32).max


class Threshold:
    """The hook that holds a threshold: x -> 0 where |x| < theta, x elsewhere; NaN and Inf stay as they are.

    It never changes: another threshold is another hook, by which a compiled program notices it.
    """

    def __init__(self, theta: float) -> None:
        self.theta = theta
        # hardshrink zeroes |x| <= lambd, so lambd is the last number below theta, which each type has its own of.
        types = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
        self.lambd = {dtype: _below(theta, dtype) for dtype in types}
        self.handles: list[RemovableHandle] = []

    def __call__(
        self, module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """The layer's arguments, its input thresholded."""
        x = args[0] if args else named["input"]
        return (F.hardshrink(x, self.lambd[x.dtype]), *args[1:]), {}


def hold_(model: nn.Module, thresholds: Mapping[str, float]) -> nn.Module:
    """Put `thresholds` (layer name -> theta, kept as float32) before linear and convolution layers; 0 takes one away.

    Layers that are not named keep what they have. Gradients pass where |x| >= theta. Raises RecipeError for an unknown
    layer, and for a theta that is negative, NaN or infinite, before anything is changed.

    >>> held(hold_(model, {"fc2": 0.25}))
    {'fc2': 0.25}
    """
    check(model, thresholds)
    for name, theta in thresholds.items():
        _put_(model.get_submodule(name), theta)
    return model


def held(model: nn.Module) -> dict[str, float]:
    """Layer name -> theta, of the layers that have a threshold."""
    return {name: hook.theta for name, layer in _layers(model).items() if (hook := _held(layer)) is not None}


def release_(model: nn.Module) -> nn.Module:
    """Take all thresholds away. A model without any stays as it is.

    >>> held(release_(hold_(model, {"fc2": 0.25})))
    {}
    """
    return hold_(model, dict.fromkeys(held(model), 0.0))


def stored(state: Mapping[str, Tensor]) -> dict[str, float]:
    """The thresholds in a state dict, by layer name."""
    keys = [key for key in state if key == KEY or key.endswith(f".{KEY}")]
    wrong = next((key for key in keys if state[key].numel() != 1), None)
    if wrong is not None:
        raise RecipeError(f"{wrong} holds {state[wrong].numel()} numbers, and a threshold is one.")
    return {key.removesuffix(KEY).removesuffix("."): float(state[key]) for key in keys}


def without(state: Mapping[str, Tensor]) -> list[str]:
    """The names in a state dict that are no threshold's.

    >>> without({"fc2.weight": torch.ones(2, 2), "fc2.input_threshold": torch.tensor(0.25)})
    ['fc2.weight']
    """
    return [key for key in state if key != KEY and not key.endswith(f".{KEY}")]


def load_(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Load a state dict with the thresholds in it, and no others: those that the model had before are gone.

    Raises RecipeError as `hold_` does, and RuntimeError, torch's own, where the weights do not fit.

    >>> held(load_(model, {**model.state_dict(), "fc2.input_threshold": torch.tensor(0.25)}))
    {'fc2': 0.25}
    """
    # A network may have numbers of its own that are called so.
    own = stored({key: state[key] for key in release_(model).state_dict() if key in state})
    given = {name: theta for name, theta in stored(state).items() if name not in own}
    hold_(model, given).load_state_dict(state)
    return model


def check(model: nn.Module, thresholds: Mapping[str, float]) -> None:
    """Raises as `hold_` does, and changes nothing."""
    layers = _layers(model)
    for name, theta in thresholds.items():
        if name not in layers:
            raise RecipeError(
                f'the network has no linear or convolution layer "{name}" for a threshold. It has '
                f"{', '.join(layers) or 'none'}. Use one of these names."
            )
        if isinstance(theta, bool) or not isinstance(theta, int | float) or not 0 <= theta <= _LARGEST:
            raise RecipeError(
                f'"{name}" cannot have the threshold {theta!r}: |x| is compared with it. Give a number from 0 up.'
            )


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    return {n: layer for n, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}


def _below(theta: float, dtype: torch.dtype) -> float:
    """The largest number of the type below theta."""
    nearest = torch.tensor(theta, dtype=dtype)
    return float(torch.nextafter(nearest, torch.zeros_like(nearest)) if float(nearest) >= theta else nearest)


def _held(module: nn.Module) -> Threshold | None:
    """The layer's threshold, which is one of its hooks."""
    return next((hook for hook in module._forward_pre_hooks.values() if isinstance(hook, Threshold)), None)


def _put_(module: nn.Module, theta: float) -> None:
    """Give the layer this threshold in place of the one it has; none where theta is 0."""
    theta = float(torch.tensor(float(theta), dtype=torch.float32))
    old = _held(module)
    if old is not None and theta:
        _exchange_(module, old, theta)
    elif old is not None:
        for handle in old.handles:
            handle.remove()
    elif theta:
        hook = Threshold(theta)
        # First of all hooks: whoever listens at the layer, already now or later, hears the zeros.
        first = module.register_forward_pre_hook(hook, with_kwargs=True, prepend=True)
        hook.handles = [first, *add_to_state_(module, _save, _load)]


def _exchange_(module: nn.Module, old: Threshold, theta: float) -> None:
    hook = Threshold(theta)
    hook.handles = old.handles
    key = next(key for key, value in module._forward_pre_hooks.items() if value is old)
    module._forward_pre_hooks[key] = hook


def _save(module: nn.Module, state: State, prefix: str) -> None:
    if (hook := _held(module)) is not None:
        state[prefix + KEY] = torch.tensor(hook.theta, dtype=torch.float32)


def _load(module: nn.Module, state: State, prefix: str, loading: Loading) -> None:
    if prefix + KEY not in state:
        loading.missing.extend([prefix + KEY] if loading.strict else [])
        return
    theta = float(state.pop(prefix + KEY))
    old = _held(module)
    if old is None or not 0 <= theta <= _LARGEST:
        loading.errors.append(f"{prefix}{KEY} is {theta}, which is no threshold")
    else:
        _exchange_(module, old, theta)
