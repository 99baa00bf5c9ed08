"""The names in a state dict beside those of a network: what is missing, what is left over, and how to rename."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor, nn

from zeroskip.concepts import under_torch_pruning

FEW = 3
Renamed = Callable[[str], str]


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
    added = {}
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
    for expression, renamed in _renamings(given, missing):
        if missing and set(own) <= {renamed(name) for name in given}:
            return (
                f"Rename them: save_file({{{expression}: tensor for name, tensor in load_file(path).items()}}, path), "
                f"both of safetensors.torch."
            )
    return ""


def _renamings(given: Sequence[str], missing: Sequence[str]) -> list[tuple[str, Renamed]]:
    """Python expressions of `name` that may lead from the names in a file to the network's, and what they do."""
    found: list[tuple[str, Renamed]] = []
    for name, first in ((name, first) for first in missing[:1] for name in given):
        if name.endswith(first):
            start = name.removesuffix(first)
            found.append(
                (f'name.removeprefix("{start}")', lambda each, start=start: each.removeprefix(start))
            )
        if name.startswith(first):
            end = name.removeprefix(first)
            found.append((f'name.removesuffix("{end}")', lambda each, end=end: each.removesuffix(end)))
        if first.endswith(name):
            start = first.removesuffix(name)
            found.append((f'"{start}" + name', lambda each, start=start: start + each))
    for part in ("_orig_mod.", "module.", "_fsdp_wrapped_module."):  # also inside, of a part of the network
        found.append((f'name.replace("{part}", "")', lambda each, part=part: each.replace(part, "")))
    return found


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (", ..." if len(names) > FEW else "")
