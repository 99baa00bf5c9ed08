"""Masks held on a model while it trains, and turned into plain zeros afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from zeroskip.concepts import Masks
from zeroskip.errors import ModelError, RecipeError

_ORIGINAL = "parametrizations.weight.original"


def weights(model: nn.Module, *, attached: bool = False) -> dict[str, Tensor]:
    """Layer name -> weight of every linear and convolution layer: what can be pruned.

    A weight that several layers share is listed once, under the first's name. Raises ModelError where the
    network has none, or computes one (weight norm).
    attached  gradients flow through them, as a penalty in a loss needs

    >>> list(weights(LeNet300100()))
    ['fc1', 'fc2', 'fc3']
    """
    found: dict[str, Any] = {name: model.get_submodule(name).weight for name in parameters(model)}
    return {name: weight if attached else weight.detach() for name, weight in found.items()}


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Layer name -> what an optimizer changes in it: the weight, or, while masked, the weight behind the mask.

    Listed and raising as `weights` does.

    >>> parameters(LeNet300100())["fc3"].shape
    torch.Size([10, 100])
    """
    found: dict[str, nn.Parameter] = {}
    seen = set()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            parameter = _parameter(name, module)
            if parameter not in seen:
                found[name] = parameter
            seen.add(parameter)
    if not found:
        raise ModelError("the network has no linear or convolution layer. There is nothing to prune in it.")
    return found


def check_names(named: Iterable[str], found: Mapping[str, Tensor]) -> None:
    """RecipeError where `named` holds a name that is no layer of the network.

    >>> check_names(["fc1"], weights(model))
    """
    unknown = sorted(set(named) - set(found))
    if unknown:
        raise RecipeError(
            f'the network has no layer "{unknown[0]}". It has {", ".join(found)}. Use one of these names.'
        )


class Mask(nn.Module):
    """The parametrization that holds a mask: weight -> weight where kept, exactly 0 elsewhere."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask: Tensor
        self.register_buffer("mask", mask, persistent=False)
        self.hooks: list[RemovableHandle] = []

    def forward(self, weight: Tensor) -> Tensor:
        """`where`, not a product: it leaves no negative zeros and stops NaN in a pruned weight."""
        return torch.where(self.mask, weight, 0.0)


def apply_(model: nn.Module, masks: Masks) -> nn.Module:
    """Hold `masks` on the model through any optimizer; it still loads and saves plain names.

    Raises RecipeError for an unknown layer or a mask of another shape, before anything is changed.

    >>> apply_(model, masks); train(model); remove_(model)
    """
    found = weights(model)
    check_names(masks, found)
    for name, mask in masks.items():
        if mask.shape != found[name].shape or mask.dtype != torch.bool:
            raise RecipeError(
                f'the mask of "{name}" is {mask.dtype} {tuple(mask.shape)}; '
                f"it must be torch.bool {tuple(found[name].shape)}, True where a weight is kept."
            )
    remove_(model)
    for name, mask in masks.items():
        shared = model.get_submodule(name).get_parameter("weight")
        with torch.no_grad():
            shared.masked_fill_(~mask, 0.0)
        layers = [one for one in model.modules() if isinstance(one, nn.Linear | nn.Conv2d)]
        for module in [one for one in layers if one._parameters.get("weight") is shared]:
            _hold_(module, mask.to(shared.device))
    return model


def update_(model: nn.Module, masks: Masks) -> nn.Module:
    """Give a masked model other masks, of the same layers, while an optimizer works on it.

    >>> update_(apply_(model, masks), later)
    """
    behind = parameters(model)
    for module in model.modules():
        if (held := _held(module)) is not None:
            names = [name for name, one in behind.items() if one is module.get_parameter(_ORIGINAL)]
            held.mask.copy_(masks[names[0]])
    return model


def _hold_(module: nn.Module, mask: Tensor) -> None:
    held = Mask(mask)
    parametrize.register_parametrization(module, "weight", held)
    held.hooks.append(module.register_state_dict_post_hook(_save_plain))
    held.hooks.append(module.register_load_state_dict_pre_hook(_load_plain))


def _parameter(name: str, module: nn.Module) -> nn.Parameter:
    """The parameter behind the layer's weight."""
    if _held(module) is not None:
        return module.get_parameter(_ORIGINAL)
    parameter = module._parameters.get("weight")
    if parameter is None:
        raise ModelError(
            f'layer "{name}" computes its weight (weight norm, or another parametrization), so zeros put into it '
            f"would not stay. Make it plain first, for example with torch.nn.utils.parametrize."
        )
    return parameter


def remove_(model: nn.Module) -> nn.Module:
    """Make the model plain again, its zeros in place. A model without masks stays as it is.

    >>> remove_(apply_(model, masks))
    """
    for module in model.modules():
        if (held := _held(module)) is not None:
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
            for hook in held.hooks:
                hook.remove()
    return model


def is_masked(module: nn.Module) -> bool:
    """Whether this layer's weight is held by a Mask.

    >>> is_masked(apply_(model, masks).fc1)
    True
    """
    return _held(module) is not None


def _held(module: nn.Module) -> Mask | None:
    if not parametrize.is_parametrized(module, "weight"):
        return None
    steps: Any = module.parametrizations
    return steps.weight[0] if isinstance(steps.weight[0], Mask) else None


def _save_plain(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    original, held = state.pop(prefix + _ORIGINAL, None), _held(module)
    if original is not None and held is not None:
        state[prefix + "weight"] = torch.where(held.mask, original, 0.0)


def _load_plain(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    if prefix + "weight" in state:
        state[prefix + _ORIGINAL] = state.pop(prefix + "weight")
