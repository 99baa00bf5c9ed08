"""What pruning changes in a network besides its weights, as data: what `rebuild` replays on a fresh network."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from zeroskip.concepts import Edits
from zeroskip.errors import ModelError, RecipeError
from zeroskip.prune.masks import is_masked
from zeroskip.thresholds import hold_

_LAYERS = (nn.Linear, nn.Conv2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
Cuttable = nn.Linear | nn.Conv2d | nn.BatchNorm1d | nn.BatchNorm2d
Edit = Mapping[str, object]
_SMOOTH = (nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish)


def rebuild(model: nn.Module, edits: Edits) -> nn.Module:
    """A copy of `model` whose layers have the sizes and thresholds that `edits` say; see `concepts.Edits`.

    The state of the network that the edits were made from loads into it. What stays keeps its values, but
    constants are not folded: that is done by `compact`. Raises RecipeError with layer and index where an edit
    does not fit the network, ModelError where the network is masked.

    >>> rebuild(model, [{"edit": "remove", "layer": "fc1", "inputs": [], "outputs": [0, 7]}]).fc1
    Linear(in_features=6, out_features=6, bias=True)
    """
    made = plain_copy(model)
    if not isinstance(edits, list):
        raise RecipeError(f"edits are a list, as `prune.compact` returns them, not {type(edits).__name__}.")
    for index, edit in enumerate(edits):
        kind = str(edit.get("edit")) if isinstance(edit, dict) else ""
        replay_ = {"threshold": _threshold_, "relu": _relu_}.get(kind, _remove_)
        replay_(made, edit, f"edit {index}")
    return made


def threshold_edits(thresholds: Mapping[str, float]) -> Edits:
    """Thresholds, by layer name, as edits.

    >>> threshold_edits({"fc2": 0.25})
    [{'edit': 'threshold', 'layer': 'fc2', 'value': 0.25}]
    """
    return [{"edit": "threshold", "layer": name, "value": theta} for name, theta in thresholds.items()]


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy of a network without masks. ModelError where it has some: it is still being pruned."""
    if not isinstance(model, nn.Module):
        raise ModelError(f"the network is a {type(model).__name__}. Give a torch.nn.Module.")
    if any(is_masked(module) for module in model.modules()):
        raise ModelError("the network still holds masks. Make it plain first: prune.release_(model).")
    return deepcopy(model)


def relu_edits(model: nn.Module) -> Edits:
    """The edits that make plain nn.ReLU of every nn.GELU, nn.SiLU, nn.Mish and nn.Hardswish.

    >>> relu_edits(nn.Sequential(nn.Linear(4, 4), nn.GELU()))
    [{'edit': 'relu', 'layer': '1'}]
    """
    modules = model.named_modules(remove_duplicate=False)
    names = [name for name, module in modules if isinstance(module, _SMOOTH)]
    return [{"edit": "relu", "layer": name} for name in names if name]


def _threshold_(model: nn.Module, edit: Edit, what: str) -> None:
    name = edit.get("layer")
    if set(edit) != {"edit", "layer", "value"} or not isinstance(name, str):
        raise RecipeError(f'{what}, a threshold, must have "edit", "layer" (a name) and "value" only.')
    hold_(model, {name: edit["value"]})  # type: ignore[dict-item] # which checks it


def _relu_(model: nn.Module, edit: Edit, what: str) -> None:
    if set(edit) != {"edit", "layer"} or edit not in relu_edits(model):
        raise RecipeError(f"{what} is {str(edit)[:80]!r}: no such GELU or SiLU could become a ReLU.")
    model.set_submodule(str(edit["layer"]), nn.ReLU())


def _remove_(model: nn.Module, edit: Edit, what: str) -> None:
    module = _cuttable(model, edit, what)
    inputs, outputs = (torch.tensor(edit[key], dtype=torch.long) for key in ("inputs", "outputs"))
    if isinstance(module, _NORMS):
        _cut_norm_(module, inputs)
    else:
        _cut_layer_(module, inputs, outputs)


def _cuttable(model: nn.Module, edit: Edit, what: str) -> Cuttable:
    """The module of an edit; RecipeError unless the edit can be done to it."""
    if not isinstance(edit, dict) or edit.get("edit") != "remove":
        kinds = 'dicts with "edit": "remove", "threshold" or "relu"'
        raise RecipeError(f"{what} is {str(edit)[:80]!r}. Edits are {kinds}.")
    name = edit.get("layer")
    if set(edit) != {"edit", "layer", "inputs", "outputs"} or not isinstance(name, str):
        raise RecipeError(f'{what} must have "edit", "layer" (a name), "inputs" and "outputs", and no more.')
    module = dict(model.named_modules()).get(name)
    is_plain = type(module) in _LAYERS + _NORMS
    if not isinstance(module, Cuttable) or not is_plain or "weight" not in module._parameters:
        raise RecipeError(
            f'{what}: the network has no linear, convolution or batch norm layer "{name}". It was made for another.'
        )
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        raise RecipeError(f'{what}: layer "{name}" has {module.groups} groups, which have to stay equal.')
    _check_indices(edit["inputs"], _sizes(module)[0], f'{what}: the inputs of "{name}"')
    _check_indices(edit["outputs"], _sizes(module)[1], f'{what}: the outputs of "{name}"')
    return module


def _check_indices(indices: object, size: int, what: str) -> None:
    if not isinstance(indices, list) or any(type(index) is not int for index in indices):
        raise RecipeError(f"{what} to remove are no list of integers.")
    outside = [index for index in indices if not 0 <= index < size]
    if outside:
        raise RecipeError(f"{what} are numbered 0 to {size - 1}; {outside[0]} cannot be removed.")
    if len(set(indices)) < len(indices):
        twice = next(index for index in indices if indices.count(index) > 1)
        raise RecipeError(f"{what}: {twice} is to be removed twice. Name it once.")
    if indices and len(indices) == size:
        raise RecipeError(f"{what} would all go. Leave one, which torch needs.")


def _sizes(module: Cuttable) -> tuple[int, int]:
    """Inputs and outputs; a batch norm's channels are its inputs, its outputs cannot be cut apart from them."""
    if isinstance(module, _NORMS):
        return module.num_features, 0
    out, into = module.weight.shape[:2]
    return into, out


def _cut_norm_(module: nn.BatchNorm1d | nn.BatchNorm2d, inputs: Tensor) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        if getattr(module, name) is not None:
            _cut_(module, name, 0, inputs)
    module.num_features -= len(inputs)


def _cut_layer_(module: nn.Linear | nn.Conv2d, inputs: Tensor, outputs: Tensor) -> None:
    _cut_(module, "weight", 0, outputs)
    _cut_(module, "weight", 1, inputs)
    if module.bias is not None:
        _cut_(module, "bias", 0, outputs)
    if isinstance(module, nn.Linear):
        module.in_features, module.out_features = _sizes(module)
    else:
        module.in_channels, module.out_channels = _sizes(module)


def _cut_(module: nn.Module, name: str, axis: int, gone: Tensor) -> None:
    old = getattr(module, name)
    stays = torch.ones(old.shape[axis], dtype=torch.bool)
    stays[gone] = False
    new = old.detach().index_select(axis, stays.nonzero()[:, 0].to(old.device))
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    setattr(module, name, new)
