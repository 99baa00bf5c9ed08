"""The names in a state dict beside those of a network: what is missing, what is left over, and how to rename."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from zeroskip.concepts import under_torch_pruning

FEW = 3
# Ways from the names in a file to those of a network, as Python.
WAYS = {
    "start": 'name.removeprefix("{}")',
    "end": 'name.removesuffix("{}")',
    "before": '"{}" + name',
    "anywhere": 'name.replace("{}", "")',
}
# What torch puts before the names of a part that it wraps.
WRAPPERS = ("_orig_mod.", "module.", "_fsdp_wrapped_module.")


def with_tied_names(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with all names of a tied tensor, where it has one of them: safetensors' save_model writes one only.

    >>> tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> tied[1].weight = tied[0].weight
    >>> list(with_tied_names(tied, {"1.weight": torch.ones(2, 2)}))
    ['1.weight', '0.weight']
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    added: dict[str, Tensor] = {}
    for tied in names.values():
        there = next((name for name in tied if name in state), None)
        added |= {} if there is None else {name: state[there] for name in tied if name not in state}
    return {**state, **added}


def misfit(model: nn.Module, state: Iterable[str]) -> str:
    """Which names of the model are not in the state dict, which others are, and how they can be made to fit.

    "" where the names are the same; counters of batch norm, which older files lack, do not matter.

    >>> print(misfit(model, ["module." + name for name in model.state_dict()]))
    missing: 4 (fc1.weight, fc1.bias, fc2.weight, ...); unexpected: 4 (module.fc1.weight, ...). Rename them: ...
    """
    own = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    given = list(state)
    missing = [name for name in own if name not in set(given)]
    unexpected = [name for name in given if name not in model.state_dict()]
    sides = [f"{side}: {len(names)} ({_few(names)})" for side, names in
             (("missing", missing), ("unexpected", unexpected)) if names]  # fmt: skip
    return f"{'; '.join(sides)}. {_remedy(own, given, missing)}".strip() if sides else ""


def _remedy(own: Sequence[str], given: Sequence[str], missing: Sequence[str]) -> str:
    if pruned := under_torch_pruning(given):
        return (
            f"Still under torch.nn.utils.prune: {_few(pruned)}. Call torch.nn.utils.prune.remove(module, name) for "
            f"each before the weights are saved."
        )
    for way, text in _renamings(given, missing):
        if missing and set(own) <= {_renamed(name, way, text) for name in given}:
            renamed = f"{{{WAYS[way].format(text)}: tensor for name, tensor in load_file(path).items()}}"
            return f"Rename them: save_file({renamed}, path), both of safetensors.torch."
    return ""


def _renamings(given: Sequence[str], missing: Sequence[str]) -> list[tuple[str, str]]:
    """(way, text) of what may lead from the names in a file to the network's."""
    found = []
    for name, first in ((name, first) for first in missing[:1] for name in given):
        if name.endswith(first):
            found.append(("start", name.removesuffix(first)))
        if name.startswith(first):
            found.append(("end", name.removeprefix(first)))
        if first.endswith(name):
            found.append(("before", first.removesuffix(name)))
    return [*found, *(("anywhere", part) for part in WRAPPERS)]


def _renamed(name: str, way: str, text: str) -> str:
    """What the expression WAYS[way] gives."""
    ways = {
        "start": name.removeprefix(text),
        "end": name.removesuffix(text),
        "before": text + name,
        "anywhere": name.replace(text, ""),
    }
    return ways[way]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (", ..." if len(names) > FEW else "")
