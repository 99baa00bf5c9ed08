"""What a forward writes: into tensors of its own, which is fine, or into what it keeps, which is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from graph.stepwise import evaluate
from torch import Tensor, nn
from torch.nn import functional

from zeroskip.errors import EngineError
from zeroskip.graph import capture


class Writing(nn.Module):
    """A layer and a buffer, and what `body` does with them and the input."""

    def __init__(self, body: Callable[[Writing, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.body = nn.Linear(4, 4), body
        self.register_buffer("kept", torch.arange(4.0))


def _forward(self: Writing, x: Tensor) -> Tensor:
    return self.body(self, x)


Writing.forward = _forward  # type: ignore[method-assign]


def a_number(self: Writing, x: Tensor) -> Tensor:
    return self.layer(x) * torch.tensor(2.0)


def a_copy_of_a_buffer(self: Writing, x: Tensor) -> Tensor:
    scale = self.kept.clone()
    scale.add_(1)
    scale[1:] *= 2
    return self.layer(x) * scale


def a_mask_written_with_what_comes_in(self: Writing, x: Tensor) -> Tensor:
    mask = torch.zeros(4)
    mask[2] = x.sum()
    return self.layer(x) + mask


def a_view_written_after_it_was_taken(self: Writing, x: Tensor) -> Tensor:
    made = torch.ones(2, 4)
    row = made[1]
    made[1] = x.mean(0)
    return self.layer(x) + row


def positions(self: Writing, x: Tensor) -> Tensor:
    return self.layer(x + torch.arange(4))


FINE = (
    a_number,
    a_copy_of_a_buffer,
    a_mask_written_with_what_comes_in,
    a_view_written_after_it_was_taken,
    positions,
)


@pytest.mark.parametrize("body", FINE, ids=lambda body: body.__name__)
def test_tensors_that_a_forward_makes_may_be_written(body: Callable[[Writing, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = Writing(body).eval().requires_grad_(False)
    graph = capture(model, torch.randn(2, 4))
    for count in (1, 3):
        x = torch.randn(count, 4)
        for _ in range(2):  # nothing of the first call is left in the second
            torch.testing.assert_close(evaluate(graph, x.clone()), model(x))


def test_what_does_not_depend_on_the_input_is_computed_once() -> None:
    assert [node.op for node in capture(Writing(positions).eval(), torch.randn(2, 4)).nodes] == [
        "aten.add.Tensor",
        "aten.linear.default",
    ]


def a_buffer(self: Writing, x: Tensor) -> Tensor:
    self.kept.add_(x.sum())  # type: ignore[operator, union-attr]
    return self.layer(x)


def a_view_of_a_parameter(self: Writing, x: Tensor) -> Tensor:
    self.layer.weight.detach()[0].zero_()
    return self.layer(x)


@pytest.mark.parametrize("body", [a_buffer, a_view_of_a_parameter], ids=lambda body: body.__name__)
def test_writing_what_the_network_keeps_is_refused(body: Callable[[Writing, Tensor], Tensor]) -> None:
    with pytest.raises(EngineError, match=r"overwrites its own buffer or parameter \(aten\.\w+_\."):
        capture(Writing(body).eval(), torch.randn(2, 4))


def dropouts(self: Writing, x: Tensor) -> Tensor:
    y = functional.dropout(self.layer(x), 0.5, self.training, inplace=True)
    y = functional.alpha_dropout(y, 0.5, self.training)
    return functional.feature_alpha_dropout(functional.dropout1d(y, 0.5, self.training), 0.5, self.training)


def test_no_kind_of_dropout_is_left() -> None:
    operations = {node.op for node in capture(Writing(dropouts).eval(), torch.randn(2, 4)).nodes}
    assert not any("dropout" in each for each in operations)


class Keeping(nn.Module):
    """A forward that leaves things in attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen, self.last = nn.Linear(4, 4), [1], None

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        self.last, self.size = x, x.shape
        return self.layer(x)


def test_what_forward_leaves_in_attributes_is_as_it_was_before() -> None:
    model = Keeping().eval()
    capture(model, torch.randn(2, 4))
    assert (model.seen, model.last, hasattr(model, "size")) == ([1], None, False)


class Regions(nn.Module):
    """Parts of a forward without gradients and without autocast, one inside the other, as rotary positions are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            y = functional.dropout(self.layer(x).relu(), 0.5, self.training)
            with torch.no_grad():
                angle, scale = y.cos(), y.sin()
        return angle * x + scale


def test_regions_without_gradients_or_autocast_are_operations_like_others() -> None:
    torch.manual_seed(0)
    model = Regions().eval()
    graph, x = capture(model, torch.randn(2, 4)), torch.randn(3, 4)
    assert [node.op.split(".")[1] for node in graph.nodes] == ["linear", "cos", "sin", "mul", "add"]
    with torch.no_grad():
        torch.testing.assert_close(evaluate(graph, x), model(x))
