"""Findings of a network from their JSON into the dataclass that a paper has for them."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import TypeVar

from zeroskip.errors import FileError

Noun = TypeVar("Noun")


def read(kind: type[Noun], value: object) -> Noun:
    """`value` as a dataclass, tuple, mapping, number or text of that type, checked part by part.

    A number is finite, and may be whole where a float is asked for. What a dataclass does not know of is left out, and
    what it has a default for may be absent. Raises FileError with the place of what has another form.

    >>> read(tuple[float, ...], [1, 2.5])
    (1.0, 2.5)
    >>> read(dict[str, int], {"conv1": "many"})
    Traceback (most recent call last):
    zeroskip.errors.FileError: ["conv1"] is "many", not a whole number
    """
    decoded: Noun = _decode(kind, value, "")
    return decoded


def _decode(kind: typing.Any, value: object, where: str) -> typing.Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # of a type and None
        return None if value is None else _decode(inner[0], value, where)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, _object(value, where), where)
    if origin in (dict, Mapping):
        return {
            _key(inner[0], key, where): _decode(inner[1], part, f'{where}["{key}"]')
            for key, part in _object(value, where).items()
        }
    if origin is tuple:
        return _tuple(inner, value, where)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif kind is object or type(value) is kind:
        return value
    raise FileError(_sentence(value, where, {float: "a number", int: "a whole number", str: "a text"}[kind]))


def _dataclass(kind: typing.Any, parts: Mapping[str, object], where: str) -> object:
    types_of, values = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        if field.name in parts:
            values[field.name] = _decode(types_of[field.name], parts[field.name], f'{where}["{field.name}"]')
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise FileError(f'{where or "the object"} lacks "{field.name}"')
    return kind(**values)


def _tuple(inner: tuple[typing.Any, ...], value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise FileError(_sentence(value, where, "a list"))
    kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
    if len(kinds) != len(value):
        raise FileError(_sentence(value, where, f"a list of {len(kinds)}"))
    return tuple(_decode(kinds[place], part, f"{where}[{place}]") for place, part in enumerate(value))


def _key(kind: type, key: str, where: str) -> object:
    """JSON has only texts for keys: {"0.9": ...} is {0.9: ...}."""
    try:
        return kind(key)
    except ValueError:
        raise FileError(_sentence(key, f"a key of {where or 'the object'}", "a number")) from None


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise FileError(_sentence(value, where, "an object"))
    return value


def _sentence(value: object, where: str, wanted: str) -> str:
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return f"{where or 'it'} is {shown[:40]}, not {wanted}"
