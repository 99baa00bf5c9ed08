"""What layers hold while a network trains: masks, codebooks, thresholds. How it is attached, saved and taken off.

A tensor is held by a module that computes it from what the optimizer changes, as torch's parametrizations do. State
dicts keep plain names. A network and its copies (deepcopy, AveragedModel) are changed and released independently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from zeroskip.errors import ModelError

State = dict[str, Tensor]


class Holder(nn.Module):
    """Holds a tensor: `forward` computes it from what the optimizer changes; moves with the network."""

    def __init__(self) -> None:
        super().__init__()
        self.handles: list[RemovableHandle] = []
        self.followers: list[str] = []

    def restored(self, plain: Tensor) -> Tensor:
        """What the optimizer has to hold for the tensor to be `plain`."""
        return plain


Held = TypeVar("Held", bound=Holder)


@dataclass(frozen=True)
class Loading:
    """A load_state_dict under way: missing names and errors are added to torch's own lists."""

    strict: bool
    missing: list[str]
    errors: list[str]


Save = Callable[[nn.Module, State, str], None]
Load = Callable[[nn.Module, State, str, Loading], None]


def hold_tensor_(module: nn.Module, name: str, holder: Holder) -> None:
    """Let `holder` compute the module's own parameter `name` from now on.

    >>> class Doubled(Holder):
    ...     def forward(self, original):
    ...         return 2 * original
    >>> before = model.fc1.weight.clone()
    >>> hold_tensor_(model.fc1, "weight", Doubled())
    >>> torch.equal(model.fc1.weight, 2 * before)
    True
    """
    names = list(module._parameters)
    holder.followers = names[names.index(name) + 1 :]
    _own_class_(module)
    parametrize.register_parametrization(module, name, holder, unsafe=True)
    if isinstance(module, nn.RNNBase):
        _read_anew_(module)
    holder.handles = add_to_state_(module, partial(_save, name), partial(_load, name))


def release_tensors_(model: nn.Module, kind: type[Holder]) -> None:
    """Make what holders of this kind hold plain parameters again, the same objects as before, with their values of now.

    >>> class Doubled(Holder):
    ...     def forward(self, original):
    ...         return 2 * original
    >>> before = model.fc1.weight.clone()
    >>> hold_tensor_(model.fc1, "weight", Doubled())
    >>> release_tensors_(model, Doubled)
    >>> torch.equal(model.fc1.weight, 2 * before)
    True
    """
    plain: set[nn.Parameter] = set()
    for module in model.modules():
        for name in held_tensors(module, kind):
            parameter = original(module, name)
            # A tied parameter has its values of now once the first of its places is released.
            _release_(module, name, values_of_now=parameter not in plain)
            plain.add(parameter)


def places(model: nn.Module, parameter: nn.Parameter) -> list[tuple[nn.Module, str]]:
    """Every (module, tensor name) that has this parameter: a tied one has several.

    >>> [name for _, name in places(model, model.fc1.weight)]
    ['weight']
    """
    own = ((module, name, each) for module in model.modules() for name, each in module._parameters.items())
    return [(module, name) for module, name, each in own if each is parameter]


def check_holdable(module: nn.Module, name: str) -> None:
    """ModelError where torch's parametrizations cannot hold this parameter of the module.

    >>> check_holdable(model.fc1, "weight")
    """
    is_script = isinstance(module, torch.jit.ScriptModule)
    # What is held becomes an entry of a ModuleDict and a property of the module's class: both may have that name.
    if (
        is_script
        or hasattr(nn.ModuleDict(), name)
        or hasattr(parametrize.type_before_parametrizations(module), name)
    ):
        raise ModelError(
            f'the parameter "{name}" of {type(module).__name__} cannot be held: '
            + ("its module is TorchScript. Give the network as it was before torch.jit."
               if is_script else "torch or its class needs that name. Rename it.")
        )  # fmt: skip


def held_tensors(module: nn.Module, kind: type[Held]) -> dict[str, Held]:
    """Tensor name -> its holder, of the module's own tensors that one of this kind holds."""
    steps = getattr(module, "parametrizations", {}).items()
    return {name: holders[0] for name, holders in steps if isinstance(holders[0], kind)}


def original(module: nn.Module, name: str) -> nn.Parameter:
    """What the optimizer changes in place of a held tensor."""
    return module.get_parameter(_behind(name))


def add_to_state_(module: nn.Module, save: Save, load: Load) -> list[RemovableHandle]:
    """Let `save` change what the module puts into a state dict, and `load` what it takes out of one.

    Both get (module, state, prefix of the module's names), `load` also the `Loading`. They keep nothing of the
    module, so that they work in its copies.
    """
    return [
        module.register_state_dict_post_hook(partial(_saving, save)),
        module.register_load_state_dict_pre_hook(partial(_loading, load)),
    ]


def _own_class_(module: nn.Module) -> None:
    # torch keeps a held tensor as a property of the module's class, and copies of the module have the same class.
    if parametrize.is_parametrized(module):
        shared = type(module)
        module.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))


def _release_(module: nn.Module, name: str, *, values_of_now: bool) -> None:
    holder = held_tensors(module, Holder)[name]
    _own_class_(module)
    parametrize.remove_parametrizations(module, name, leave_parametrized=values_of_now)
    for follower in holder.followers:  # torch puts what is released last, and files keep the order
        if follower in module._parameters:
            module._parameters[follower] = module._parameters.pop(follower)
    if isinstance(module, nn.RNNBase) and not parametrize.is_parametrized(module):
        module._init_flat_weights()
    for handle in holder.handles:
        handle.remove()


def _read_anew_(layer: nn.RNNBase) -> None:
    # A recurrent layer runs on a list of its weights as they were when it was built. While one of them is held, the
    # list is made at each reading; a property of the layer's own class goes where that class goes, also into copies.
    def made(self: nn.RNNBase) -> list[Tensor]:
        return [getattr(self, name) for name in self._flat_weights_names]

    layer.__dict__.pop("_flat_weights", None)
    type(layer)._flat_weights = property(made, lambda self, _: None)  # type: ignore[assignment]


def _behind(name: str) -> str:
    return f"parametrizations.{name}.original"


def _save(name: str, module: nn.Module, state: State, prefix: str) -> None:
    if (behind := state.pop(prefix + _behind(name), None)) is not None:
        state[prefix + name] = held_tensors(module, Holder)[name](behind)


def _load(name: str, module: nn.Module, state: State, prefix: str, loading: Loading) -> None:
    if (plain := state.pop(prefix + name, None)) is None:
        return
    given, own = tuple(plain.shape), tuple(getattr(module, name).shape)
    if given != own:
        loading.errors.append(f"size mismatch for {prefix}{name}: it is {given}, and the network's {own}.")
        plain = getattr(module, name).detach()
    state[prefix + _behind(name)] = held_tensors(module, Holder)[name].restored(plain)


def _saving(save: Save, module: nn.Module, state: State, prefix: str, _: object) -> None:
    save(module, state, prefix)


def _loading(load: Load, module: nn.Module, state: State, prefix: str, *torch_s: Any) -> None:
    _, strict, missing, _, errors = torch_s  # metadata, strict, missing names, unexpected names, errors
    load(module, state, prefix, Loading(strict, missing, errors))
