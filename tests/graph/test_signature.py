"""How networks are called: one form for the same call however it is written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from zeroskip.errors import EngineError, ModelError
from zeroskip.graph import Inputs, forward
from zeroskip.graph.signature import of_tensor, places, signature_of
from zeroskip.graph.structure import maker, taken_apart
from zeroskip.graph.structure_json import Fields, of_words, signature_of_json, signature_to_json, to_words
from zeroskip.graph.torch_operations import Slot


class Network(nn.Module):
    """Only its forward's parameters matter."""

    def forward(
        self, x: Tensor, mask: Tensor | None = None, scale: float = 1.0, *, flag: bool = False
    ) -> Tensor:
        return x


X, MASK = torch.ones(2, 3), torch.zeros(2, 3)


@given(st.integers(0, 3), st.booleans(), st.booleans())
def test_a_call_is_the_same_by_position_by_keyword_and_with_defaults_written_out(
    by_position: int, with_scale: bool, with_flag: bool
) -> None:
    values: dict[str, Any] = {"x": X, "mask": MASK, "scale": 1.0}
    names = list(values)
    args = [values[name] for name in names[:by_position]]
    kwargs = {name: values[name] for name in names[by_position:] if name != "scale" or with_scale}
    kwargs |= {"flag": False} if with_flag else {}
    signature = signature_of(Network(), Inputs(tuple(args), dict(reversed(kwargs.items()))))
    assert signature == signature_of(Network(), Inputs((X, MASK), {}))
    assert signature.call([X, MASK]) == ([X, MASK], {})
    assert places(signature) == ["x", "mask"]


def test_a_forward_that_is_not_written_in_python_is_refused_in_our_words() -> None:
    class Builtin(nn.Linear):
        forward = staticmethod(torch.relu)  # type: ignore[assignment]

    with pytest.raises(EngineError, match="forward are unknown: no signature found.*Write a forward that"):
        signature_of(Builtin(3, 2), Inputs((X,), {}))
    with pytest.raises(ModelError, match="cannot run on inputs.*as the network takes it"):
        forward(Builtin(3, 2), (X, X))


def test_what_follows_a_parameter_that_is_left_out_is_given_by_name() -> None:
    signature = signature_of(Network(), Inputs((X,), {"scale": 2.0, "flag": True}))
    assert signature.call(["a tensor"]) == (["a tensor"], {"scale": 2.0, "flag": True})
    assert not signature.single


LEAVES = st.sampled_from([X, MASK, None, 1, 2.5, True, "word"])
STRUCTURES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(STRUCTURES)
def test_a_structure_is_put_together_as_it_was_also_after_json(structure: Any) -> None:
    leaves: list[Any] = []
    tree = taken_apart(structure, leaves)
    assert all(isinstance(leaf, Tensor) for leaf in leaves)
    assert str(maker(tree)(leaves)) == str(structure)
    words = to_words(maker(tree)([Slot(number) for number in range(len(leaves))]))
    assert str(maker(of_words(words, len(leaves)))(leaves)) == str(structure)


def test_a_signature_is_the_same_after_json() -> None:
    signature = signature_of(Network(), Inputs((X,), {"mask": [MASK, X], "flag": True}))
    again = signature_of_json(signature_to_json(signature), 3)  # type: ignore[arg-type]
    assert again.call("abc") == signature.call("abc") == (["a", ["b", "c"]], {"flag": True})
    with pytest.raises(EngineError, match="other tensors than it takes"):
        signature_of_json(signature_to_json(signature), 4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words", [1, -1, {"set": [0]}, {"constant": [1]}, {"tuple": 0}, "x", None, {"dict": []}]
)
def test_words_that_are_no_structure_are_refused(words: Any) -> None:
    with pytest.raises(EngineError):
        of_words(words, 1)


def test_a_signature_of_more_tensors_than_anyone_counts_is_stored() -> None:
    signature = signature_of(Network(), Inputs(([X] * 1100,), {}))
    assert places(signature_of_json(signature_to_json(signature), 1100)) == places(signature)  # type: ignore[arg-type]


def test_fields_are_read_by_name_number_and_as_attributes() -> None:
    fields = Fields(a=1, b=2)
    assert (fields.a, fields["b"], fields[1]) == (1, 2, 2)
    with pytest.raises(AttributeError, match="c"):
        fields.c  # noqa: B018


def test_one_tensor_is_the_simplest_signature() -> None:
    assert of_tensor("x").single
    assert signature_of(nn.Linear(2, 2), Inputs((X,), {})) == of_tensor("input")
