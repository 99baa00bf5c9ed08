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


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Layer name -> weight of every linear and convolution layer: what can be pruned.

    Raises ModelError where the network has none.

    >>> list(weights(LeNet300100()))
    ['fc1', 'fc2', 'fc3']
    """
    found = {
        name: module.weight.detach()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
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
        module = model.get_submodule(name)
        with torch.no_grad():
            module.get_parameter("weight").masked_fill_(~mask, 0.0)
        held = Mask(mask.to(found[name].device))
        parametrize.register_parametrization(module, "weight", held)
        held.hooks.append(module.register_state_dict_post_hook(_save_plain))
        held.hooks.append(module.register_load_state_dict_pre_hook(_load_plain))
    return model


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


_ORIGINAL = "parametrizations.weight.original"


def _save_plain(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    original, held = state.pop(prefix + _ORIGINAL, None), _held(module)
    if original is not None and held is not None:
        state[prefix + "weight"] = torch.where(held.mask, original, 0.0)


def _load_plain(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    if prefix + "weight" in state:
        state[prefix + _ORIGINAL] = state.pop(prefix + "weight")
