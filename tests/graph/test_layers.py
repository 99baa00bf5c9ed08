"""graph.layers and graph.record: what runs, in which order, with which shapes, and the network as it was."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zeroskip.errors import ModelError
from zeroskip.graph import evaluating, layers, record


class Backwards(nn.Module):
    """Defined first to last, run last to first; `shared` runs twice, `unused` never."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 2)
        self.shared = nn.Linear(3, 3)
        self.first = nn.Linear(5, 3)
        self.unused = nn.Linear(7, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.shared(self.shared(self.first(input=x))))


class Halve(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.frozen = nn.Dropout().eval()

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("the dog ate it")


class Folding(nn.Module):
    """Sees every example as 4 pieces of 3 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(-1, 3)).reshape(len(x), -1)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_layers_are_listed_in_the_order_of_running_and_as_often_as_they_run() -> None:
    names = [layer.name for layer in layers(Backwards(), torch.zeros(2, 5))]
    assert names == ["first", "shared", "shared", "last"]


def test_shapes_are_those_of_one_example() -> None:
    first = layers(Backwards(), torch.zeros(2, 5))[0]
    assert (first.op, first.input_shape, first.output_shape, first.macs) == ("linear", (5,), (3,), 15)


def test_a_bare_linear_layer_has_the_empty_name_that_named_modules_gives_it() -> None:
    (layer,) = layers(nn.Linear(4, 2, bias=False), torch.zeros(1, 4))
    assert layer.name == ""
    assert layer.bias is None


def test_a_convolution_keeps_its_stride_padding_dilation_and_groups() -> None:
    model = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2)
    (layer,) = layers(model, torch.zeros(5, 4, 9, 9))
    assert (layer.stride, layer.padding, layer.dilation, layer.groups) == ((2, 1), (1, 0), (1, 2), 2)
    assert (layer.op, layer.input_shape, layer.output_shape) == ("conv2d", (4, 9, 9), (6, 5, 7))
    assert layers(nn.Conv2d(1, 1, 3, padding="same"), torch.zeros(1, 1, 5, 5))[0].padding == (1, 1)


def test_weights_share_memory_with_the_network_and_a_parametrized_weight_is_the_effective_one() -> None:
    model = nn.Linear(3, 2)
    assert layers(model, torch.zeros(1, 3))[0].weight.data_ptr() == model.weight.data_ptr()
    original = model.weight.detach().clone()
    parametrize.register_parametrization(model, "weight", Halve())
    assert torch.equal(layers(model, torch.zeros(1, 3))[0].weight, original / 2)


def test_pieces_folded_into_the_batch_belong_to_their_example() -> None:
    (layer,) = layers(Folding(), torch.zeros(2, 12))
    assert (layer.input_shape, layer.output_shape, layer.macs) == ((4, 3), (4, 2), 24)


def test_rows_are_shared_out_among_the_examples_whichever_axis_theirs_is() -> None:
    pieces = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 3)), nn.Linear(3, 2))
    examples_second = nn.Sequential(nn.Unflatten(1, (2, 3)), Transposed(), nn.Linear(3, 2))
    for model in (pieces, examples_second):
        (layer,) = layers(model, torch.zeros(7, 6))
        assert (layer.input_shape, layer.output_shape, layer.macs) == ((2, 3), (2, 2), 12)


def test_rows_that_7_examples_do_not_divide_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"\(2, 3\).*7 examples.*a batch of 1.*batch_axis=None"):
        layers(nn.Sequential(Two(), nn.Linear(3, 2)), torch.zeros(7, 3))
    with pytest.raises(ModelError, match=r"holds no example: \(0, 3\)"):
        layers(nn.Linear(3, 2), torch.zeros(0, 3))


class Two(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:2]


class Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1)


def test_a_failing_network_is_named_with_its_own_words_and_the_shape_it_was_given() -> None:
    with pytest.raises(ModelError, match=r"\(4, 9\).*ValueError: the dog ate it"):
        layers(Fails(), torch.zeros(4, 9))


@pytest.mark.parametrize("model", [Backwards(), Fails()], ids=["running", "failing"])
def test_the_network_comes_back_without_hooks_and_with_each_training_flag_as_it_was(model: nn.Module) -> None:
    before = [module.training for module in model.modules()]
    with contextlib.suppress(ModelError):
        record(model, torch.zeros(1, 5))
    assert [module.training for module in model.modules()] == before
    assert True in before
    assert hooks(model) == 0


def test_the_pass_is_in_evaluation_mode_and_without_gradients() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(50, 1))
    x = torch.ones(1, 50)
    ((_, seen, y),) = record(model, x)
    assert torch.equal(seen, x)
    assert not y.requires_grad


def test_recorded_tensors_survive_operations_in_place() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    (first, x0, y0), (second, x1, y1) = record(model, x)
    assert (first.name, second.name) == ("0", "2")
    assert torch.equal(x0, x)
    assert torch.equal(y0, model[0](x))
    assert bool((y0 < 0).any())
    assert torch.equal(x1, y0.relu())
    assert torch.equal(y1, model(x))


def test_evaluating_gives_the_flags_back_also_after_an_exception() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with evaluating(model):
        assert [module.training for module in model.modules()] == [False] * 3
        assert not torch.is_grad_enabled()
    with pytest.raises(IndexError), evaluating(model):
        _ = model[2]
    assert [module.training for module in model.modules()] == [True, True, False]
    assert torch.is_grad_enabled()
