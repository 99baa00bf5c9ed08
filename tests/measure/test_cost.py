"""measure.cost against counts by hand, parameter by parameter, and PyTorch's own counter of operations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import NETWORKS, Lstm
from torch import Tensor, nn
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


def product(layer: Layer, x: Tensor) -> Tensor:
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


class Stacked(nn.Module):
    """Three weights as one matrix, and a copy of one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights, biases = zip(*((each.weight, each.bias) for each in (self.q, self.k, self.v)), strict=True)
        x = nn.functional.linear(x, torch.cat(weights), torch.cat(biases))[..., :4]
        copy = torch.empty(2, 4)
        copy[:] = self.k.weight.data
        return nn.functional.linear(x, copy) + torch.vmap(self.k)(x)


def test_weights_stacked_copied_and_under_vmap_are_those_that_they_were_made_of() -> None:
    layers = measure.cost(Stacked(), torch.randn(2, 5, 4)).layers
    assert {name: (layer.macs, layer.runs) for name, layer in layers.items()} == {
        "q": (80, 1), "k": (3 * 40, 3), "v": (60, 1),
    }  # fmt: skip
    for layer, x, y in record(Stacked(), torch.randn(2, 5, 4))[:3]:
        assert y.shape == (2, 5, len(layer.weight)) == (*x.shape[:2], *layer.output_shape[1:])


class InInferenceMode(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Lstm()

    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.inner(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_numbers_do_not_depend_on_the_type_nor_on_inference_mode(dtype: torch.dtype) -> None:
    expected = measure.cost(Lstm(), torch.randn(2, 5, 8))
    other = measure.cost(Lstm().to(dtype), torch.randn(2, 5, 8, dtype=dtype))
    inside = measure.cost(InInferenceMode(), torch.randn(2, 5, 8))
    for cost in (other, inside):
        assert [layer.macs for layer in cost.layers.values()] == [
            layer.macs for layer in expected.layers.values()
        ]
    assert other.stored_bytes == expected.stored_bytes * dtype.itemsize // 4


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(nn.utils.rnn.pack_padded_sequence(x, [5, 3], batch_first=True))[1][0]


def test_of_sequences_of_different_length_the_mean_is_counted_and_none_is_recorded() -> None:
    layers = measure.cost(Packed(), torch.randn(2, 5, 4)).layers
    assert {name: layer.macs for name, layer in layers.items()} == {
        "lstm.weight_ih_l0": 4 * 48,
        "lstm.weight_hh_l0": 4 * 36,
    }
    with pytest.raises(ModelError, match="Give a single example"):
        record(Packed(), torch.randn(2, 5, 4))


def test_a_sentence_without_words_costs_nothing_and_has_no_zeros() -> None:
    model, nothing = NETWORKS["encoder"].build(), torch.randn(2, 0, 8)
    cost = measure.cost(model, nothing)
    assert (cost.macs, cost.activation_macs, cost.weights) == (0, 0, 2 * 512)
    zeros = measure.activations(model, [nothing], by=("example",))["layers.0.linear1"]
    assert (zeros.input, zeros.before.elements) == (0.0, 0)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_networks_of_torchscript_are_counted_like_any_other() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.ReLU(), nn.Conv1d(3, 2, 1))
    x = torch.randn(2, 2, 6)
    traced = torch.jit.trace(model.eval(), x)
    assert measure.cost(traced, x).layers == measure.cost(model, x).layers


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
    with pytest.raises(ModelError, match=r"example\[None\]"):
        measure.cost(nn.Linear(4, 2), torch.randn(4))


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(
        st.sampled_from(["conv", "transposed", "linear", "gru", "attention"]), min_size=1, max_size=4
    ),
    sizes=st.tuples(*[st.integers(1, 4)] * 6),
    step=st.integers(1, 2),
    groups=st.integers(1, 2),
)
def test_any_small_network_costs_what_torch_counts(
    kinds: list[str], sizes: tuple[int, ...], step: int, groups: int
) -> None:
    """Drawn layers on (n, channels, steps) one after the other; linear ones and those that follow on every step."""
    batch, steps, *widths = sizes
    widths = [groups * width for width in widths] + [groups]
    pairs = zip(kinds, widths, widths[1:], strict=False)
    model = nn.Sequential(*(drawn(kind, inputs, outputs, step, groups) for kind, inputs, outputs in pairs))
    x = torch.randn(batch, widths[0], steps)
    cost = measure.cost(model, x)
    assert cost.weights == sum(each.numel() for each in model.parameters() if each.ndim > 1)
    assert (cost.macs + cost.activation_macs) * batch == counted_by_torch(model, x)


def drawn(kind: str, inputs: int, outputs: int, step: int, groups: int) -> nn.Module:
    if kind == "conv":
        return nn.Conv1d(inputs, outputs, 3, padding=1, stride=step, groups=groups)
    if kind == "transposed":
        return nn.ConvTranspose1d(inputs, outputs, 2, stride=step, groups=groups)
    if kind == "attention":
        return nn.Sequential(OverSteps(Mixed(inputs)), nn.Conv1d(inputs, outputs, 1))
    return OverSteps(nn.Linear(inputs, outputs) if kind == "linear" else Gru(inputs, outputs))


class OverSteps(nn.Module):
    """A layer on features, for maps with the channels first."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(1, 2)).transpose(1, 2)


class Gru(nn.GRU):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[0]


class Mixed(nn.MultiheadAttention):
    def __init__(self, features: int) -> None:
        super().__init__(features, 1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, x.flip(1), x)[0]
