"""A network that keeps something from its last call, as it was before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

FIXED = (Tensor, nn.Module, type, FunctionType, MethodType, ModuleType, str, int, float, type(None))


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """What forward leaves in attributes of modules, and of objects, lists and dicts in them, is gone afterwards.

    torch.export would leave tensors without memory there. What is written into tensors stays.

    >>> model.last = 1
    >>> with undisturbed(model):
    ...     model.last = 2
    >>> model.last
    1
    """
    kept = [(container, container.copy()) for container in _containers(model)]
    try:
        yield
    finally:
        for container, before in kept:
            container.clear()
            (container.update if isinstance(container, dict) else container.extend)(before)


def _containers(model: nn.Module) -> list[Any]:
    """The dicts and lists in which the modules hold what they have, three levels deep; each once."""
    found: dict[int, Any] = {}
    waiting: list[tuple[Any, int]] = [(vars(module), 3) for module in model.modules()]
    while waiting:
        container, levels = waiting.pop()
        if id(container) in found:
            continue
        found[id(container)] = container
        for value in container.values() if isinstance(container, dict) else container:
            inner = value if type(value) in (dict, list) else getattr(value, "__dict__", None)
            if levels and type(inner) in (dict, list) and not isinstance(value, FIXED):
                waiting.append((inner, levels - 1))
    return list(found.values())
