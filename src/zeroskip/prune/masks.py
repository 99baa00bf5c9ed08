"""Masks held on a model while it trains, and turned into plain zeros afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from zeroskip.concepts import Masks
from zeroskip.errors import ModelError, RecipeError
from zeroskip.held import Holder, held_tensors, hold_tensor_, original, release_tensor_


def weights(model: nn.Module, *, attached: bool = False) -> dict[str, Tensor]:
    """Layer name -> weight of every linear and convolution layer: what can be pruned.

    A weight that several layers share is listed once, under the first's name. Raises ModelError where the
    network has none, or computes one (weight norm).
    attached  gradients flow through them, as a penalty in a loss needs

    >>> {name: tuple(weight.shape) for name, weight in weights(model).items()}
    {'fc1': (8, 6), 'fc2': (4, 8)}
    """
    computed: dict[str, Tensor] = {name: model.get_submodule(name).weight for name in parameters(model)}  # type: ignore[misc]
    return {name: weight if attached else weight.detach() for name, weight in computed.items()}


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Layer name -> what an optimizer changes in it: the weight, or, while masked, the weight behind the mask.

    Listed and raising as `weights` does.

    >>> parameters(model)["fc2"] is model.fc2.weight
    True
    """
    names: dict[nn.Parameter, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            names.setdefault(_parameter(name, module), name)
    if not names:
        raise ModelError("the network has no linear or convolution layer. There is nothing to prune in it.")
    return {name: parameter for parameter, name in names.items()}


def check_names(named: Iterable[str], layers: Mapping[str, Tensor]) -> None:
    """RecipeError where `named` holds a name that is no layer of the network.

    >>> check_names(["fc1"], weights(model))
    """
    unknown = sorted(set(named) - set(layers))
    if unknown:
        raise RecipeError(f'the network has no layer "{unknown[0]}". It has {", ".join(layers)}. Use these.')


class Mask(Holder):
    """The holder of a mask: weight -> weight where kept, exactly 0 elsewhere."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.share: Tensor
        # Numbers, since AveragedModel averages buffers: the share of the networks that keep a weight.
        self.register_buffer("share", mask.half(), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """`where`, not a product: it leaves no negative zeros and stops NaN in a pruned weight."""
        return torch.where(self.share > 0.5, weight, 0.0)


def hold_(model: nn.Module, masks: Masks) -> nn.Module:
    """Hold `masks` on the model through any optimizer; it still loads and saves plain names.

    Raises RecipeError for an unknown layer or a mask of another shape, before anything is changed.

    >>> masks = {"fc2": torch.eye(4, 8).bool()}
    >>> weights(hold_(model, masks))["fc2"].count_nonzero()
    tensor(4)
    """
    layers = weights(model)
    check_names(masks, layers)
    for name, mask in masks.items():
        if mask.shape != layers[name].shape or mask.dtype != torch.bool:
            raise RecipeError(
                f'the mask of "{name}" is {mask.dtype} {tuple(mask.shape)}; '
                f"it must be torch.bool {tuple(layers[name].shape)}, True where a weight is kept."
            )
    release_(model)
    for name, mask in masks.items():
        weight = model.get_submodule(name).get_parameter("weight")
        with torch.no_grad():
            weight.masked_fill_(~mask, 0.0)
        for module in _users(model, weight):
            hold_tensor_(module, "weight", Mask(mask.to(weight.device)))
    return model


def update_(model: nn.Module, masks: Masks) -> nn.Module:
    """Give a masked model other masks, of the same layers, while an optimizer works on it.

    >>> masked = hold_(model, {"fc2": torch.eye(4, 8).bool()})
    >>> weights(update_(masked, {"fc2": torch.eye(4, 8).bool() & (torch.arange(8) < 3)}))["fc2"].count_nonzero()
    tensor(3)
    """
    names = {parameter: name for name, parameter in parameters(model).items()}
    for module in model.modules():
        if is_masked(module):
            held_tensors(module, Mask)["weight"].share.copy_(masks[names[original(module, "weight")]])
    return model


def release_(model: nn.Module) -> nn.Module:
    """Make the model plain again, its zeros in place. A model without masks stays as it is.

    >>> release_(hold_(model, {"fc2": torch.eye(4, 8).bool()})).fc2
    Linear(in_features=8, out_features=4, bias=True)
    """
    for module in model.modules():
        if is_masked(module):
            release_tensor_(module, "weight")
    return model


def is_masked(module: nn.Module) -> bool:
    """Whether this layer's weight is held by a Mask.

    >>> is_masked(model.fc1)
    False
    """
    return "weight" in held_tensors(module, Mask)


def _users(model: nn.Module, weight: nn.Parameter) -> list[nn.Module]:
    """The linear and convolution layers that have this weight: several may share it."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return [module for module in layers if module._parameters.get("weight") is weight]


def _parameter(name: str, module: nn.Module) -> nn.Parameter:
    """The parameter behind the layer's weight."""
    if is_masked(module):
        return original(module, "weight")
    parameter = module._parameters.get("weight")
    if parameter is None:
        raise ModelError(
            f'layer "{name}" computes its weight (weight norm, or another parametrization), so zeros put into it '
            f"would not stay. Make it plain first, for example with torch.nn.utils.parametrize."
        )
    return parameter
