"""Masks held on a model while it trains, and turned into plain zeros afterwards."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from zeroskip import graph
from zeroskip.concepts import Masks, under_torch_pruning
from zeroskip.errors import ModelError, RecipeError
from zeroskip.graph import Given, Inputs, Weight
from zeroskip.graph.structure import tensors_in
from zeroskip.held import Holder, check_holdable, held_tensors, hold_tensor_, release_tensors_


def weights(model: nn.Module, *, attached: bool = False) -> dict[str, Tensor]:
    """Name -> every weight that is pruned unless a recipe says otherwise: parameters with two or more axes, but no
    tables of embeddings and what else `graph.weights` says is `kept_dense`.

    A weight that several layers share is listed once, under the first's name. ModelError where there is none.
    attached  gradients flow through them, as a penalty in a loss needs

    >>> {name: tuple(weight.shape) for name, weight in weights(model).items()}
    {'fc1': (8, 6), 'fc2': (4, 8)}
    """
    computed = {name: weight.tensor for name, weight in _pruned(model).items()}
    return {name: weight if attached else weight.detach() for name, weight in computed.items()}


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> what an optimizer changes in a weight: the parameter, or, while masked, the one behind the mask.

    Listed and raising as `weights` does.

    >>> parameters(model)["fc2"] is model.fc2.weight
    True
    """
    return {name: weight.parameter for name, weight in _pruned(model).items()}


def named(model: nn.Module, names: Iterable[str]) -> dict[str, Weight]:
    """The weights with these names, also those that stay dense unless they are named.

    RecipeError where the network has none of that name, or computes it, so that a mask cannot hold its zeros.

    >>> named(model, ["fc1"])["fc1"].tensor.shape
    torch.Size([8, 6])
    """
    every, names = graph.weights(model), list(names)
    check_names(names, every)
    computed = next((name for name in names if every[name].computed), None)
    if computed is not None:
        raise RecipeError(
            f'"{computed}" cannot be pruned: {every[computed].kept_dense}. Leave it out, or make it a plain parameter '
            f"first: in torch.nn.utils parametrize.remove_parametrizations, remove_weight_norm and prune.remove do."
        )
    return {name: every[name] for name in names}


def check_names(named: Iterable[str], layers: Collection[str]) -> None:
    """RecipeError where `named` holds a name that is no layer of the network.

    >>> check_names(["fc1"], weights(model))
    """
    unknown = sorted(set(named) - set(layers))
    if unknown:
        raise RecipeError(f'the network has no layer "{unknown[0]}". It has {", ".join(layers)}. Use these.')


def _pruned(model: nn.Module) -> dict[str, Weight]:
    if halfway := under_torch_pruning(model.state_dict()):
        raise ModelError(
            f'"{halfway[0]}" is still under torch.nn.utils.prune, whose mask is not ours. Make it plain, its zeros in '
            f"place: torch.nn.utils.prune.remove(module, name) for each."
        )
    every = graph.weights(model)
    found = {name: weight for name, weight in every.items() if not weight.kept_dense}
    if not found:
        dense = [f'"{name}": {weight.kept_dense}' for name, weight in every.items()][:3]
        raise ModelError(
            f"there is nothing to prune in the network: {'; '.join(dense)}. A recipe can name a table."
            if dense
            else "the network has no weight, a parameter with two or more axes. There is nothing to prune in it."
        )
    return found


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

    A mask may be of any weight, of one that stays dense only because nobody named it too, and holds in all places that
    share it. Raises RecipeError for unknown names, a mask of another shape, and zeros in a weight that the network
    computes, before anything is changed; ModelError for a tensor whose name torch needs.

    >>> masks = {"fc2": torch.eye(4, 8).bool()}
    >>> weights(hold_(model, masks))["fc2"].count_nonzero()
    tensor(4)
    """
    every = graph.weights(model)
    check_names(masks, every)
    for name, mask in masks.items():
        shape = tuple(every[name].tensor.shape)
        if not isinstance(mask, Tensor) or mask.shape != shape or mask.dtype != torch.bool:
            given = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise RecipeError(
                f'the mask of "{name}" is {given}; it must be torch.bool {shape}, True where a weight is kept.'
            )
    # What the network computes may be among masks that were read off a network, where it keeps everything.
    held = named(model, [name for name, mask in masks.items() if not (every[name].computed and mask.all())])
    for place in (place for weight in held.values() for place in weight.places):
        check_holdable(place.module, place.tensor)
    release_(model)
    for name, weight in held.items():
        with torch.no_grad():
            weight.parameter.masked_fill_(~masks[name].to(weight.parameter.device), 0.0)
        for place in weight.places:
            hold_tensor_(place.module, place.tensor, Mask(masks[name].to(weight.parameter.device)))
    return model


def check_reach(model: nn.Module, example: Given | Inputs) -> None:
    """ModelError where a masked network reads a weight past its mask, in a list that it keeps of its parameters.

    A pruned NaN then reaches its answer to `example`. The model comes back as it was.

    >>> check_reach(hold_(model, {"fc2": torch.eye(4, 8).bool()}), x)
    """
    held = masked(model)
    if not _leaks(model, held, example):
        return
    past = next((name for name in held if _leaks(model, {name: held[name]}, example)), next(iter(held)))
    raise ModelError(
        f'the network reads "{past}" past its mask: its forward takes the parameter from a list, or another place '
        f"that is no attribute of a module. Read it as one, or keep such lists in an nn.ParameterList."
    )


def _leaks(model: nn.Module, held: Mapping[str, Weight], example: Given | Inputs) -> bool:
    """Whether NaN arrives in the answer while the first number of each of these weights is NaN and pruned."""
    weights = [weight for weight in held.values() if weight.parameter.numel()]
    places = [place for weight in weights for place in weight.places]
    shares = [_first(held_tensors(place.module, Mask)[place.tensor].share) for place in places]
    firsts = [_first(weight.parameter.data) for weight in weights]
    before = [tensor.clone() for tensor in (*firsts, *shares)]
    try:
        for tensor in shares:
            tensor.zero_()
        for tensor in firsts:
            tensor.fill_(torch.nan)
        leaked = _has_nan(graph.forward(model, example))
        for tensor in firsts:
            tensor.zero_()
        return leaked and not _has_nan(graph.forward(model, example))  # which may hold NaN of its own
    finally:
        for tensor, values in zip((*firsts, *shares), before, strict=True):
            tensor.copy_(values)


def _first(tensor: Tensor) -> Tensor:
    """The first number, in its place: a view, whatever the strides."""
    return tensor[(0,) * tensor.ndim]


def _has_nan(answer: object) -> bool:
    return any(bool(tensor.isnan().any()) for tensor in tensors_in(answer))


def update_(model: nn.Module, masks: Masks) -> nn.Module:
    """Give a masked model other masks, of the same layers, while an optimizer works on it.

    >>> masked = hold_(model, {"fc2": torch.eye(4, 8).bool()})
    >>> weights(update_(masked, {"fc2": torch.eye(4, 8).bool() & (torch.arange(8) < 3)}))["fc2"].count_nonzero()
    tensor(3)
    """
    for name, weight in masked(model).items():
        for place in weight.places:
            held_tensors(place.module, Mask)[place.tensor].share.copy_(masks[name])
    return model


def release_(model: nn.Module) -> nn.Module:
    """Make the model plain again, its zeros in place. A model without masks stays as it is.

    >>> release_(hold_(model, {"fc2": torch.eye(4, 8).bool()})).fc2
    Linear(in_features=8, out_features=4, bias=True)
    """
    release_tensors_(model, Mask)
    return model


def masked(model: nn.Module) -> dict[str, Weight]:
    """The weights that a mask holds now.

    >>> list(masked(hold_(model, {"fc2": torch.eye(4, 8).bool()})))
    ['fc2']
    """
    return {
        name: weight
        for name, weight in graph.weights(model).items()
        if weight.places[0].tensor in held_tensors(weight.places[0].module, Mask)
    }


def plain_zeros_(model: nn.Module) -> int:
    """Make 0.0 of every -0.0 among the model's parameters, as a product with a mask leaves them; returns how many.

    `pack` stores every bit, and -0.0 is no zero to it.

    >>> with torch.no_grad():
    ...     _ = model.fc2.weight.mul_(0.0)  # half of them were negative
    >>> plain_zeros_(model) > 0, plain_zeros_(model)
    (True, 0)
    """
    count = 0
    for parameter in model.parameters():
        if parameter.is_floating_point():
            negative = torch.signbit(parameter.detach()) & (parameter.detach() == 0)
            parameter.data.masked_fill_(negative, 0.0)
            count += int(negative.sum())
    return count


def is_masked(module: nn.Module) -> bool:
    """Whether a tensor of this module itself is held by a Mask.

    >>> is_masked(model.fc1)
    False
    """
    return bool(held_tensors(module, Mask))
