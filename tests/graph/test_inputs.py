"""What a network is called with: tensors, tuples, dicts; and which axis holds the examples."""

from __future__ import annotations

from collections import UserDict

import pytest
import torch

from zeroskip.errors import ModelError
from zeroskip.graph import inputs


def test_a_tensor_a_tuple_and_a_mapping_are_calls_of_the_network() -> None:
    x, y = torch.ones(3, 2), torch.ones(3, 5)
    assert inputs.of(x).args == (x,)
    assert inputs.of((x, y)).args == (x, y)
    assert inputs.of(UserDict(a=x, b=y)).kwargs == {"a": x, "b": y}  # as a tokenizer's BatchEncoding


def test_tensors_without_the_examples_axis_are_the_same_for_all_examples() -> None:
    batch = inputs.of((torch.arange(6).view(3, 2), torch.arange(2), torch.tensor(7)))
    assert batch.size == 3
    assert batch.take(5).shapes == ((5, 2), (2,), ())
    assert batch.take(5).tensors[0][:, 0].tolist() == [0, 2, 4, 0, 2]


def test_tensors_in_lists_and_dicts_are_found_and_constants_stay() -> None:
    batch = inputs.of({"pairs": [torch.ones(2, 1), {"k": torch.ones(2, 4)}], "use_cache": False})
    assert batch.take(1).shapes == ((1, 1), (1, 4))
    assert batch.take(1).kwargs["use_cache"] is False


def test_without_a_batch_axis_there_is_one_example() -> None:
    graph = inputs.of((torch.ones(5, 3), torch.ones(2, 9)), batch_axis=None)
    assert graph.size == 1
    assert graph.take(4) is graph


@pytest.mark.parametrize("given", ["text", 3, None, (), {}, (1, "a"), {"use_cache": False}])
def test_what_no_network_can_be_called_with_is_refused(given: object) -> None:
    with pytest.raises(ModelError, match="batch"):
        inputs.of(given)  # type: ignore[arg-type]


def test_another_batch_axis_is_refused() -> None:
    with pytest.raises(ModelError, match="Transpose"):
        inputs.of(torch.ones(2, 3), batch_axis=1)
