"""measure.cost against counts by hand, parameter by parameter, and PyTorch's own counter of operations."""

from __future__ import annotations

import pytest
import torch
from small_networks import NETWORKS, Lstm
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from zeroskip import measure, prune
from zeroskip.concepts import Layer
from zeroskip.errors import ModelError
from zeroskip.graph import Given, inputs, layers, record
from zeroskip.measure.cost import UNMULTIPLIED, UNUSED


def counted_by_torch(model: nn.Module, batch: Given) -> float:
    """Multiply-accumulates of a call, where everything is done by operations that the counter knows."""
    given, fast = inputs.of(batch), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    mkldnn = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model.eval()(*given.args, **given.kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(mkldnn)
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_is_counted_once_and_its_macs_in_every_run(name: str) -> None:
    model, batch = NETWORKS[name].build(), NETWORKS[name].batch
    cost = measure.cost(model, batch)
    assert {weight: layer.macs for weight, layer in cost.layers.items()} == NETWORKS[name].macs
    assert cost.activation_macs == NETWORKS[name].activation_macs
    if name != "weight-norm":  # whose scales are no weights
        numbers = [each.numel() for each in model.parameters() if each.ndim > 1]
        assert [layer.weights for layer in cost.layers.values()] == numbers
    assert cost.stored_bytes == sum(each.nbytes for each in model.parameters())


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"siamese"}))
def test_macs_are_those_that_torch_counts(name: str) -> None:
    """Which counts no bilinear form, as the siamese network has."""
    model, batch = NETWORKS[name].build(), NETWORKS[name].batch
    cost = measure.cost(model, batch)
    assert (cost.macs + cost.activation_macs) * inputs.of(batch).size == counted_by_torch(model, batch)


def product(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    weight, bias = layer.weight, layer.bias
    if layer.op == "linear":
        return nn.functional.linear(x, weight, bias)
    keywords = {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
    }
    if layer.transposed:
        keywords["output_padding"] = layer.output_padding
    return getattr(nn.functional, layer.op)(x, weight, bias, **keywords)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_recorded_output_is_the_operation_on_the_recorded_input(name: str) -> None:
    model, batch = NETWORKS[name].build(), NETWORKS[name].batch
    trace = record(model, batch)
    assert [(layer.name, layer.macs) for layer, _, _ in trace] == [
        (layer.name, layer.macs) for layer in layers(model, batch)
    ]
    for layer, x, y in trace:
        if layer.op == "bilinear":
            continue  # of whose two inputs one is recorded
        assert (x.shape[1:], y.shape[1:]) == (layer.input_shape, layer.output_shape)
        torch.testing.assert_close(product(layer, x), y)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_answers_as_before_and_what_is_faster_is_in_use_again(name: str) -> None:
    model, given = NETWORKS[name].build().eval(), inputs.of(NETWORKS[name].batch)
    before = model(*given.args, **given.kwargs)
    record(model, given)
    torch.testing.assert_close(model(*given.args, **given.kwargs), before, rtol=0, atol=0)
    assert torch._C._get_mkldnn_enabled()


def test_an_lstm_with_a_pruned_head_keeps_5126_of_its_5184_weights() -> None:
    model = Lstm()
    with torch.no_grad():
        model.head.weight.view(-1)[torch.arange(64) >= 6] = 0
    cost = measure.cost(model, torch.randn(1, 5, 8))
    assert (cost.weights, cost.kept) == (5184, 5126)
    assert cost.layers["head"].kept == 6


def test_masked_weights_count_as_the_network_uses_them_and_bytes_as_they_are_dense() -> None:
    model = Lstm()
    plain = measure.cost(model, torch.randn(1, 5, 8))
    prune.hold_(model, {"head": torch.arange(64).view(2, 32) < 6})
    masked = measure.cost(model, torch.randn(1, 5, 8))
    assert (masked.kept, masked.macs, masked.stored_bytes) == (5126, plain.macs, plain.stored_bytes)


def test_what_multiplies_nothing_says_why() -> None:
    layers = measure.cost(NETWORKS["tied"].build(), NETWORKS["tied"].batch).layers
    assert {name: layer.unmultiplied for name, layer in layers.items()} == {
        "table": "", "position": UNMULTIPLIED, "spare": UNUSED,
    }  # fmt: skip
    assert (layers["table"].ops, layers["position"].runs) == (("linear",), 0)


def test_bytes_of_a_weight_are_its_own_and_those_of_its_bias() -> None:
    cost = measure.cost(Lstm(), torch.randn(1, 5, 8))
    assert {name: layer.stored_bytes for name, layer in cost.layers.items()} == {
        "lstm.weight_ih_l0": 4 * (128 * 8 + 128), "lstm.weight_hh_l0": 4 * (128 * 32 + 128), "head": 4 * (64 + 2),
    }  # fmt: skip


def test_what_forward_does_not_take_is_refused_in_its_own_words() -> None:
    siamese = NETWORKS["siamese"].build()
    for wrong in (torch.randn(3, 6), {"left": torch.randn(3, 6), "mask": torch.ones(3)}):
        with pytest.raises(ModelError, match=r"Its forward takes \(left, right\): give a tuple"):
            measure.cost(siamese, wrong)


def test_an_example_without_an_axis_for_examples_is_recognised() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2))
    with pytest.raises(ModelError, match=r"It runs on example\[None\]"):
        measure.cost(model, torch.randn(1, 8, 8))
    with pytest.raises(ModelError, match=r"example\[None\]"):
        measure.cost(nn.Conv2d(3, 2, 3), torch.randn(3, 8, 8))
