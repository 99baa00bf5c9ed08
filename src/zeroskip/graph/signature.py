"""How a network is called: which parameters of its forward are given, and where the tensors are in them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from zeroskip.errors import EngineError
from zeroskip.graph.inputs import Inputs
from zeroskip.graph.structure import PLAIN, Branch, Tree, maker, opened, taken_apart
from zeroskip.graph.torch_operations import Slot


@dataclass(frozen=True)
class Signature:
    """The call that a network is captured for.

    positional  the names of forward's parameters that may be given by position, in order
    rest        the name of its *args, or ""
    defaults    parameter -> its default, where that is a plain value
    given       parameter -> what it is given: a Slot for each tensor, numbered in order, and constants

    >>> signature = signature_of(model, Inputs((x,), {}))
    >>> signature.tensors((), {"input": x})[0] is x
    True
    """

    positional: tuple[str, ...]
    rest: str
    defaults: Mapping[str, object]
    given: Mapping[str, Tree]

    @property
    def single(self) -> bool:
        """Whether it is called with one tensor and nothing else."""
        return list(self.given.values()) == [Slot(0)] and self._positions(self.given)[:1] == [*self.given]

    @property
    def plain(self) -> bool:
        """Whether it is called with tensors alone, which may all be given by position."""
        slots = [Slot(number) for number in range(len(self.given))]
        return list(self.given.values()) == slots and self._positions(self.given) == [*self.given]

    def call(self, tensors: Sequence[object]) -> tuple[list[object], dict[str, object]]:
        """The positional and keyword arguments with which the network is called on these tensors.

        >>> signature_of(model, Inputs((x,), {})).call(["a tensor"])
        (['a tensor'], {})
        """
        values = {name: maker(tree)(tensors) for name, tree in self.given.items()}
        places = self._positions(values)
        by_name = {name: value for name, value in values.items() if name not in places}
        return [values[name] for name in places], by_name

    def tensors(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[Tensor]:
        """The tensors of a call, in order; EngineError where it is another call than the one captured.

        >>> signature_of(model, Inputs((x,), {})).tensors((x, x), {})
        Traceback (most recent call last):
        zeroskip.errors.EngineError: the network is called with input; a 2nd positional argument is unexpected.
        """
        values = self.named(args, kwargs)
        missing = [name for name in self.given if name not in values]
        unexpected = [name for name in values if name not in self.given]
        if missing or unexpected:
            raise EngineError(self._mismatch(missing, unexpected, values))
        found: list[Tensor] = []
        for name, tree in self.given.items():
            _gather(tree, values[name], name, found)
        return found

    def named(self, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Parameter -> value, without those that are given their default.

        >>> signature_of(model, Inputs((x,), {})).named((), {"input": 3})
        {'input': 3}
        """
        names = [*self.positional, *(f"{self.rest}[{number}]" for number in range(len(args)) if self.rest)]
        if len(args) > len(names):
            raise EngineError(
                f"the network is called with {', '.join(self.given)}; {_ordinal(len(names) + 1)} positional argument "
                "is unexpected."
            )
        values = dict(zip(names, args, strict=False))
        twice = next((name for name in kwargs if name in values), None)
        if twice is not None:
            raise EngineError(f"{twice} is given twice, by its position and by its name.")
        values |= kwargs
        absent = object()
        return {
            name: value for name, value in values.items() if not _same(value, self.defaults.get(name, absent))
        }

    def _positions(self, given: Mapping[str, Tree]) -> list[str]:
        """The parameters that are given by position: up to the first that is left out."""
        last = next((n for n, name in enumerate(self.positional) if name not in given), len(self.positional))
        rest = [name for name in given if self.rest and name.startswith(f"{self.rest}[")]
        return [*self.positional[:last], *rest]

    def _mismatch(
        self, missing: Sequence[str], unexpected: Sequence[str], values: Mapping[str, object]
    ) -> str:
        taken = f"the network takes {', '.join(self.given)}"
        constant = None if not missing else self.given[missing[0]]
        if missing and missing[0] in self.defaults and not isinstance(constant, (Slot, Branch)):
            name = missing[0]
            return (
                f"the program was compiled for {name}={constant!r}, and was called with {self.defaults[name]!r}, the "
                f"default. Give {name}={constant!r}, or compile again without it in the example."
            )
        if missing:
            lone = next(iter(values.values()), None) if len(values) == 1 else None
            stars = "**" if isinstance(lone, Mapping) else "*" if isinstance(lone, (tuple, list)) else ""
            remedy = f" Call it as the network is called: program({stars}batch)." if stars else ""
            return f"{taken}; {missing[0]} is missing.{remedy}"
        return f"{taken}; {unexpected[0]} is unexpected. Leave it out, or compile again with an example that has it."


def signature_of(model: nn.Module, inputs: Inputs) -> Signature:
    """How `inputs` call the network. The same, whether they are given by position or by name.

    Raises EngineError where the parameters of forward are unknown.

    >>> signature_of(model, Inputs((), {"input": x})) == signature_of(model, Inputs((x,), {}))
    True
    """
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except ValueError as fact:  # of a function that is not written in Python
        raise EngineError(
            f"the parameters of the network's forward are unknown: {fact}. Write a forward that names them."
        ) from fact
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = tuple(each.name for each in parameters if each.kind in by_position)
    rest = next((each.name for each in parameters if each.kind is inspect.Parameter.VAR_POSITIONAL), "")
    defaults = {each.name: each.default for each in parameters if isinstance(each.default, PLAIN)}
    values = Signature(positional, rest, defaults, {}).named(inputs.args, inputs.kwargs)
    order = {each.name: number for number, each in enumerate(parameters)}
    names = sorted(values, key=lambda name: order.get(name.split("[")[0], len(order)))
    leaves: list[object] = []
    given = {name: taken_apart(values[name], leaves) for name in names}
    return Signature(positional, rest, defaults, given)


def of_tensor(name: str) -> Signature:
    """The signature of a network of one tensor.

    >>> of_tensor("x").call([1])
    ([1], {})
    """
    return Signature((name,), "", {}, {name: Slot(0)})


def places(signature: Signature) -> list[str]:
    """How the tensors are called in errors: "ids", or "sizes[1]" for one in a list.

    >>> places(of_tensor("x"))
    ['x']
    """
    found: list[str] = []
    for name, tree in signature.given.items():
        _name(tree, name, found)
    return found


def _name(tree: Tree, name: str, found: list[str]) -> None:
    if isinstance(tree, Slot):
        found.append(name)
    elif isinstance(tree, Branch):
        for key, part in zip(tree.keys, tree.parts, strict=True):
            _name(part, f"{name}[{key!r}]", found)


def _gather(tree: Tree, value: object, name: str, found: list[Tensor]) -> None:
    """Append the tensors of `value`, which is called `name`, if it is like `tree`."""
    if isinstance(tree, Slot):
        if not isinstance(value, Tensor):
            raise EngineError(f"{name} is a tensor, and was given a {type(value).__name__}. {_remedy(value)}")
        found.append(value)
    elif isinstance(tree, Branch):
        container = opened(value)
        if container is None or type(value) is not tree.kind or container[0] != tree.keys:
            keys, others = (
                ", ".join(map(repr, each)) for each in (tree.keys, container[0] if container else ())
            )
            raise EngineError(
                f"{name} is a {tree.kind.__name__} of {keys}, and was given a {type(value).__name__}"
                f"{f' of {others}' if others else ''}. Compile again with an example like it."
            )
        for key, part, given in zip(tree.keys, tree.parts, container[1], strict=True):
            _gather(part, given, f"{name}[{key!r}]", found)
    elif not _same(tree, value):
        shown = "a tensor" if isinstance(value, Tensor) else repr(value)
        is_number = isinstance(tree, (int, float)) and not isinstance(tree, bool)
        remedy = f", or with {name}=torch.tensor({tree!r}), which may change" if is_number else ""
        raise EngineError(
            f"the program was compiled for {name}={tree!r}, and was given {shown}. Compile again with that in the "
            f"example{remedy}."
        )


def _remedy(value: object) -> str:
    if isinstance(value, Mapping):
        return "Call the program as the network is called: program(**batch)."
    if isinstance(value, (tuple, list)) and any(isinstance(each, Tensor) for each in value):
        return "Call the program as the network is called: program(*batch)."
    return "Convert it with torch.as_tensor."


def _same(value: object, other: object) -> bool:
    if value is other:
        return True
    return type(value) is type(other) and isinstance(value, PLAIN) and bool(value == other)


def _ordinal(number: int) -> str:
    return f"a {number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number, 'th') }"
