"""Structures of tensors, and the ways a network is called, as JSON and back. Classes are stored by their fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from zeroskip.errors import EngineError
from zeroskip.graph.signature import Signature, places
from zeroskip.graph.structure import Branch, Make, Tree, maker, taken_apart
from zeroskip.graph.torch_operations import Slot

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
WHOLE = {"tuple": tuple, "list": list}


class Fields(dict[str, Any]):
    """What a saved program returns where the network returned an object of a class: its fields, by name or number.

    >>> returned = Fields(logits=1.0)
    >>> returned.logits, returned["logits"], returned[0]
    (1.0, 1.0, 1.0)
    """

    def __init__(self, *parts: object, **named: object) -> None:
        super().__init__(*parts, **named)
        self.__dict__ = self

    def __getitem__(self, key: str | int) -> Any:
        return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)


def to_words(value: object) -> Json:
    """A value with Slots in place of its tensors as JSON; EngineError for what a file cannot hold.

    >>> to_words((Slot(0), {"scale": None}))
    {'tuple': [0, {'dict': {'scale': {'constant': None}}}]}
    """
    if isinstance(value, Slot):
        return value.number
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"constant": value}
    if type(value) in (tuple, list):
        return {type(value).__name__: [to_words(part) for part in value]}  # type: ignore[attr-defined]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {"fields": {key: to_words(part) for key, part in zip(value._fields, value, strict=True)}}
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        kept = [name for name in names if not isinstance(value, Mapping) or name in value]
        return {"fields": {name: to_words(getattr(value, name)) for name in kept}}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"dict": {key: to_words(part) for key, part in value.items()}}
    raise EngineError(
        f"the network takes or returns a {type(value).__name__}, and a saved program tuples, lists, dicts and "
        "dataclasses"
    )


def put_together(make: Make, count: int) -> object:
    """What `make` makes of `count` Slots in place of tensors; EngineError where it takes nothing but tensors.

    >>> put_together(list, 2)
    [Slot(number=0), Slot(number=1)]
    """
    try:
        return make([Slot(number) for number in range(count)])
    except Exception as fact:  # whatever a class of the user's, which looks at its fields, says of a Slot
        raise EngineError(
            "the network takes or returns an object of a class that cannot be made without its tensors "
            f"({type(fact).__name__}: {fact})"
        ) from fact


def of_words(words: Json, count: int) -> Tree:
    """The structure of `to_words`, whose Slots are below `count`; whatever Python raises where it is none.

    >>> maker(of_words(to_words([Slot(0), None]), 1))(["x"])
    ['x', None]
    """
    return taken_apart_with_slots(_value(words, count))


def taken_apart_with_slots(value: object) -> Tree:
    """The structure of a value with Slots in place of its tensors."""
    if isinstance(value, Slot):
        return value
    if isinstance(value, Fields):
        keys = tuple(value)
        parts = tuple(taken_apart_with_slots(part) for part in value.values())
        return Branch(Fields, keys, parts, lambda made: Fields(zip(keys, made, strict=True)))
    tree = taken_apart(value, [])
    if not isinstance(tree, Branch):
        return tree
    inner = value.values() if isinstance(value, dict) else value
    parts = tuple(taken_apart_with_slots(part) for part in inner)  # type: ignore[attr-defined]
    return dataclasses.replace(tree, parts=parts)


def signature_to_json(signature: Signature) -> Json:
    """How a network is called, as JSON; EngineError for what a file cannot hold."""
    count = len(places(signature))
    return {
        "positional": list(signature.positional),
        "rest": signature.rest,
        "defaults": {
            name: value
            for name, value in signature.defaults.items()
            if value is None or isinstance(value, (bool, int, float, str))
        },
        "given": {name: to_words(put_together(maker(tree), count)) for name, tree in signature.given.items()},
    }


def signature_of_json(stored: Mapping[str, Any], count: int) -> Signature:
    """The inverse of `signature_to_json`, for a network of `count` tensors."""
    given = {str(name): of_words(words, count) for name, words in stored["given"].items()}
    positional = tuple(map(str, stored["positional"]))
    signature = Signature(positional, str(stored["rest"]), dict(stored["defaults"]), given)
    if len(places(signature)) != count:
        raise EngineError("it is called with other tensors than it takes")
    return signature


def _value(words: Json, count: int) -> object:
    if isinstance(words, int) and not isinstance(words, bool):
        if not 0 <= words < count:
            raise EngineError("it takes or returns more than there is")
        return Slot(words)
    if not isinstance(words, Mapping):
        raise EngineError(f"{words!r} is no structure of tensors")
    ((kind, inner),) = words.items()
    if kind == "constant" and (inner is None or isinstance(inner, (bool, int, float, str))):
        return inner
    if kind in WHOLE and isinstance(inner, list):
        return WHOLE[kind](_value(part, count) for part in inner)
    if kind in ("dict", "fields") and isinstance(inner, Mapping):
        parts = {str(key): _value(part, count) for key, part in inner.items()}
        return Fields(parts) if kind == "fields" else parts
    raise EngineError(f"{kind} is no kind of structure")
