"""The weights of a network: every parameter with two or more axes, whatever uses it, by one name each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from zeroskip.held import Holder

TABLE = "its rows are looked up, not multiplied"
ADDED = "it is added or scales number by number, so its zeros save no multiplication"
COMPUTED = "the network computes it (weight norm, torch's pruning or parametrizations), so zeros in it would not stay"

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Place:
    """A tensor of a module: `path` is the module's in the network, `tensor` the name in the module.

    >>> place = weights(model)["fc1"].places[0]
    >>> place.path, place.tensor, place.module is model.fc1
    ('fc1', 'weight', True)
    """

    path: str
    module: nn.Module
    tensor: str


@dataclass(frozen=True)
class Weight:
    """A parameter with two or more axes. Tied ones are one Weight, named after the first.

    name        "fc1" of the parameter "fc1.weight", otherwise in full: "lstm.weight_ih_l0"
    parameter   what an optimizer changes: behind a mask or another parametrization, where there is one
    places      all that have it
    kept_dense  why it is not pruned unless named; "" where it is

    >>> weight = weights(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)))["0"]
    >>> weight.tensor.shape, weight.kept_dense
    (torch.Size([9, 4]), 'its rows are looked up, not multiplied')
    """

    name: str
    parameter: nn.Parameter
    places: tuple[Place, ...]
    kept_dense: str = ""

    @property
    def tensor(self) -> Tensor:
        """The weight as the network uses it: masks and other parametrizations applied."""
        place = self.places[0]
        return getattr(place.module, place.tensor)

    @property
    def stored(self) -> str:
        """Its name in a state dict, "fc1.weight"; not there while the network computes it.

        >>> weights(model)["fc1"].stored
        'fc1.weight'
        """
        place = self.places[0]
        return f"{place.path}.{place.tensor}".removeprefix(".")

    @property
    def stored_bias(self) -> str:
        """The name that the bias beside it has, if there is one: "fc1.bias", "lstm.bias_ih_l0".

        >>> weights(nn.LSTM(8, 32))["weight_ih_l0"].stored_bias
        'bias_ih_l0'
        """
        path, dot, tensor = self.stored.rpartition(".")
        return path + dot + tensor.replace("weight", "bias", 1) if "weight" in tensor else ""

    @property
    def computed(self) -> bool:
        """Whether the network computes it in another way than by a mask, so that no mask can hold its zeros."""
        return self.kept_dense == COMPUTED


def weights(model: nn.Module) -> dict[str, Weight]:
    """Name -> every parameter of `model` with two or more axes, in the order of `named_parameters`.

    Of a weight that the network computes (weight norm) the parameter of its own size counts, not the scales.

    >>> {name: tuple(weight.tensor.shape) for name, weight in weights(nn.LSTM(8, 32)).items()}
    {'weight_ih_l0': (128, 8), 'weight_hh_l0': (128, 32)}
    """
    places: dict[nn.Parameter, list[Place]] = {}
    for place, parameter in _tensors(model):
        places.setdefault(parameter, []).append(place)
    found = (_weight(parameter, tuple(all_places)) for parameter, all_places in places.items())
    return {weight.name: weight for weight in found}


def weight_name(parameter: str) -> str:
    """The weight's name, of its parameter's.

    >>> weight_name("fc1.weight"), weight_name("weight"), weight_name("attention.in_proj_weight")
    ('fc1', '', 'attention.in_proj_weight')
    """
    module, computed, tensor = f".{parameter}".rpartition(".parametrizations.")
    name = (f"{module}.{tensor.split('.')[0]}" if computed else f".{parameter}").removesuffix(".weight")
    return name.removeprefix(".")


def _tensors(model: nn.Module) -> Iterator[tuple[Place, nn.Parameter]]:
    """Each tensor of each module that is a parameter with two or more axes, or is computed from one."""
    for path, module in model.named_modules():
        if isinstance(module, nn.utils.parametrize.ParametrizationList):
            continue
        for tensor, parameter in module._parameters.items():
            if parameter is not None and parameter.ndim > 1:
                yield Place(path, module, _torch_pruned(module, tensor) or tensor), parameter
        for tensor, steps in getattr(module, "parametrizations", {}).items():
            originals = sorted(steps.parameters(recurse=False), key=Tensor.numel)
            if originals and originals[-1].ndim > 1:
                yield Place(path, module, tensor), originals[-1]


def _weight(parameter: nn.Parameter, places: tuple[Place, ...]) -> Weight:
    first = places[0]
    name = weight_name(f"{first.path}.{first.tensor}" if first.path else first.tensor)
    reasons = [reason for place in places if (reason := _kept_dense(place, parameter))]
    return Weight(name, parameter, places, reasons[0] if reasons else "")


def _kept_dense(place: Place, parameter: nn.Parameter) -> str:
    module, steps = place.module, getattr(place.module, "parametrizations", {})
    held = place.tensor in steps and isinstance(steps[place.tensor][0], Holder)
    if (
        (place.tensor in steps and not held)
        or _is_norm_of_old(place)
        or _torch_pruned(module, f"{place.tensor}_orig")
    ):
        return COMPUTED
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return TABLE
    bare = not any(base.__module__.startswith("torch.nn.modules") for base in _own_bases(module))
    return ADDED if isinstance(module, NORMS) or (bare and parameter.shape[0] == 1) else ""


def _own_bases(module: nn.Module) -> list[type]:
    """The classes that the module is of, besides nn.Module and what holds a tensor for us."""
    return [base for base in type(module).__mro__ if base not in (nn.Module, object)]


def _is_norm_of_old(place: Place) -> bool:
    """Whether torch.nn.utils.weight_norm made the tensor: `weight` is then the product of `weight_v` and a scale."""
    stem = place.tensor.removesuffix("_v").removesuffix("_g")
    return {f"{stem}_v", f"{stem}_g"} <= {name for name, _ in place.module.named_parameters(recurse=False)}


def _torch_pruned(module: nn.Module, tensor: str) -> str:
    """The tensor that torch.nn.utils.prune makes of this parameter, `weight` of `weight_orig`, or ""."""
    stem = tensor.removesuffix("_orig")
    return stem if stem != tensor and f"{stem}_mask" in module._buffers else ""
