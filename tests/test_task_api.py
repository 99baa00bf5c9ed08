"""What a task must have, may have, and what is said where it fails."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import Bare, Tiny
from torch import Tensor, nn

from zeroskip import task_api
from zeroskip.errors import ModelError, TaskError
from zeroskip.graph import Inputs


def test_a_task_with_splits_is_asked_for_the_one_that_is_meant() -> None:
    model = Tiny().model()
    assert task_api.has_splits(Tiny())
    assert task_api.evaluate(Tiny(), model, "test") == Tiny().evaluate(model, "test")
    assert not task_api.has_splits(Bare())
    assert task_api.evaluate(Bare(), model, "test") == Tiny().evaluate(model, "validation")


def test_one_example_is_a_share_of_the_validation_split_where_its_size_is_told() -> None:
    assert task_api.one_example(Bare()) == 0.0
    task = Tiny()
    task.split_sizes = lambda: {"validation": 50, "test": 10}  # type: ignore[attr-defined]
    assert task_api.one_example(task) == 0.02


def test_keywords_that_train_does_not_take_are_named_and_left_out() -> None:
    with pytest.warns(
        UserWarning, match=r"Bare: train\(\) takes no epochs, weight_decay; it is called without"
    ):
        task_api.train(Bare(), Bare().model(), epochs=3, weight_decay=0.1, loss=None)


def test_resume_and_on_epoch_are_left_out_silently() -> None:
    task_api.train(Bare(), Bare().model(), resume={}, on_epoch=print)  # a warning would be an error here


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "low"])
def test_an_error_that_is_no_number_is_refused(value: object) -> None:
    task = Bare()
    task.evaluate = lambda model: value  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(TaskError, match="not a (finite )?number. Return the error, lower is better"):
        task_api.evaluate(task, Bare().model(), "test")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "a batch is a NoneType. Give a tensor, a tuple"),
        ([1, 2], "a batch holds no tensor"),
        ({}, "a batch holds no tensor"),
        (
            torch.zeros(3),
            r"\(3,\) of torch.float32, without an axis of examples. .* one example as x\[None\]",
        ),
        ({"x": torch.tensor(1.0)}, r"without an axis of examples. .* or set batch_axis = None"),
        (torch.zeros(0, 8), r"\(0, 8\) of torch.float32, one of them empty. Return one or more examples"),
        ((torch.zeros(2, 8), torch.zeros(2, 0).long()), r"\(2, 0\) of torch.int64, one of them empty"),
    ],
)
def test_a_batch_that_is_no_batch_is_refused(value: object, words: str) -> None:
    task = Bare()
    task.batch = lambda: value  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(TaskError, match=rf"Bare: batch\(\) returned .*{words}"):
        task_api.batch(task)


def test_a_batch_is_a_tensor_a_tuple_or_keywords() -> None:
    ids, mask = torch.zeros(4, 7, dtype=torch.long), torch.ones(4, 7)
    task = Bare()
    for value in (ids, (ids, mask), {"ids": ids, "mask": mask}, (ids[:, 0], ids[:, 1]), ids[:, 0]):
        task.batch = lambda value=value: value  # type: ignore[method-assign, misc]
        assert task_api.batch(task).size == 4
        assert task_api.batch(task).take(1).size == 1


def test_a_graph_has_no_axis_of_examples_and_is_never_cut() -> None:
    task = Bare()
    task.batch_axis = None  # type: ignore[attr-defined]
    task.batch = lambda: (torch.zeros(9, 4), torch.zeros(2, 30))  # type: ignore[method-assign, assignment, return-value]
    assert task_api.batch(task).size == 1
    assert task_api.batch(task).take(1).shapes == ((9, 4), (2, 30))
    task.batch_axis = 1  # type: ignore[attr-defined]
    with pytest.raises(TaskError, match=r"Bare: batch\(\) returned .*batch_axis=1 is unknown"):
        task_api.batch(task)


def test_a_failure_inside_the_task_names_function_file_and_line() -> None:
    task = Bare()

    def train(model: nn.Module) -> None:
        raise ZeroDivisionError("no steps")

    task.train = train  # type: ignore[method-assign]
    words = r"Bare: train\(model\) failed in .*test_task_api.py, line \d+: ZeroDivisionError: no steps"
    with pytest.raises(TaskError, match=words):
        task_api.train(task, Bare().model())


def test_what_fails_in_a_library_is_blamed_on_the_line_that_called_it() -> None:
    task = Bare()

    def evaluate(model: nn.Module) -> float:
        return float(model(torch.zeros(2, 99)).sum())  # the network takes 8

    task.evaluate = evaluate  # type: ignore[method-assign]
    line = evaluate.__code__.co_firstlineno + 1
    with pytest.raises(
        TaskError, match=rf"evaluate\(model\) failed in .*test_task_api.py, line {line}: Runtime"
    ):
        task_api.evaluate(task, Bare().model(), "test")


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("model", lambda task: task_api.model(task)),
        ("train", lambda task: task_api.train(task, nn.Linear(1, 1))),
        ("evaluate", lambda task: task_api.evaluate(task, nn.Linear(1, 1), "test")),
        ("batch", lambda task: task_api.batch(task)),
        ("batches", lambda task: list(task_api.batches(task))),
        ("split_sizes", lambda task: task_api.split_sizes(task)),
    ],
)
def test_a_function_of_other_parameters_is_blamed_on_its_own_line(function: str, call: Any) -> None:
    def too_many(first: object, second: object, third: object) -> None: ...

    task, line = Bare(), too_many.__code__.co_firstlineno
    setattr(task, function, too_many)
    words = rf"Bare: {function}\((model)?\) failed in {__file__}, line {line}: TypeError: .*missing"
    with pytest.raises(TaskError, match=words):
        call(task)


def test_batches_that_are_no_pairs_are_refused() -> None:
    task = Bare()
    for value, words in ((torch.zeros(2, 8), "a Tensor"), ((1, 2, 3), "a tuple of 3"), ({}, "a dict")):
        task.batches = lambda value=value: [value]  # type: ignore[attr-defined]
        with pytest.raises(
            TaskError, match=rf"Bare: batches\(\) yields {words}. Yield pairs \(inputs, targets\)"
        ):
            list(task_api.batches(task))


@pytest.mark.parametrize("function", ["split_sizes", "batches"])
def test_optional_functions_that_fail_are_named_too(function: str) -> None:
    task = Bare()
    setattr(task, function, lambda: 1 / 0)
    with pytest.raises(TaskError, match=rf"{function}\(\) failed in .*ZeroDivisionError"):
        _ = task_api.split_sizes(task), list(task_api.batches(task))


def test_an_exit_inside_the_task_is_no_success() -> None:
    def leave(model: nn.Module) -> None:
        raise SystemExit(0)

    task = Bare()
    task.train = leave  # type: ignore[method-assign]
    with pytest.raises(TaskError, match="SystemExit"):
        task_api.train(task, Bare().model())


def test_lazy_layers_must_have_run_once() -> None:
    task = Bare()
    task.model = lambda: nn.Sequential(nn.LazyLinear(3))  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="has no values yet"):
        task_api.model(task)


def test_our_own_errors_and_interrupts_pass_through() -> None:
    task = Bare()
    for error in (ModelError("ours"), KeyboardInterrupt()):

        def evaluate(model: nn.Module, error: BaseException = error) -> float:
            raise error

        task.evaluate = evaluate  # type: ignore[method-assign, assignment]
        with pytest.raises(type(error)):
            task_api.evaluate(task, Bare().model(), "test")


def test_a_model_that_is_none_and_weights_of_another_network_are_refused() -> None:
    task = Bare()
    with pytest.raises(ModelError, match="these weights do not fit the network of Bare"):
        task_api.model(task, {"0.weight": torch.zeros(2, 2)})
    task.model = lambda: "net"  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(TaskError, match=r"model\(\) returned str"):
        task_api.model(task)


def test_nan_weights_are_named() -> None:
    state = Tiny().model().state_dict()
    state["2.bias"][1] = float("inf")
    with pytest.raises(ModelError, match=r'"2.bias" holds NaN or Inf'):
        task_api.model(Tiny(), state)


def test_batches_fall_back_to_the_one_batch() -> None:
    assert [one.size for one in task_api.batches(Bare())] == [4]

    class Many(Bare):
        def batches(self) -> list[tuple[Tensor, Tensor]]:
            return [(torch.zeros(2, 8), torch.zeros(2)), (torch.zeros(3, 8), torch.zeros(3))]

    assert [one.size for one in task_api.batches(Many())] == [2, 3]


def test_examples_are_pairs_where_the_task_has_them_and_tell_classes_from_numbers() -> None:
    class Many(Bare):
        targets = torch.zeros(2, dtype=torch.long)

        def batches(self) -> list[tuple[Tensor, Tensor]]:
            return [(torch.zeros(2, 8), self.targets)]

    class Numbers(Many):
        targets = torch.zeros(2)

    assert [len(pair) for pair in task_api.examples(Many())] == [2]
    assert isinstance(next(task_api.examples(Bare())), Inputs)
    assert [task_api.has_classes(task) for task in (Many(), Numbers(), Bare())] == [True, False, False]
