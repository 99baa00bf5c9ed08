"""What is raced: the cases, and the networks that are drawn for them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zeroskip import models
from zeroskip.bench import ACTIVATIONS, CASES, ENCODERS, QUICK, TRANSFORMERS, Case, seeded_networks, select
from zeroskip.bench.cases import LAYERS
from zeroskip.bench.seeded_networks import MODELS, _folded, calibration, example, network
from zeroskip.errors import RecipeError
from zeroskip.models.mobile_blocks import BlockShape, MBConv, SqueezeExcitation


def layers(model: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def zeros(layer: nn.Conv2d | nn.Linear) -> float:
    return (layer.weight == 0).float().mean().item()


def test_19_layers_are_raced_at_80_90_and_95_percent_zeros() -> None:
    alone = [case for case in CASES if case.network in LAYERS and not case.in_int8]
    assert len(LAYERS) == 19
    assert {(case.network, case.sparsity) for case in alone} == {
        (layer, sparsity) for layer in LAYERS for sparsity in (0.80, 0.90, 0.95)
    }


def test_networks_of_gates_steps_and_transposed_convolutions_are_raced_at_90_percent() -> None:
    chosen = select(
        CASES,
        networks=["efficientnet_b0", "mobilenet_v3_large", "dcgan_generator", "wav2letter", "lstm"],
        sparsities=[0.9],
    )
    assert [case.batch for case in chosen] == [1, 1, 1, 1, 1, 16]
    assert {(case.threads, case.weights, case.cold) for case in chosen} == {(1, "fp32", False)}


def test_the_quick_race_is_a_layer_and_resnet20_in_fp32_and_in_int8() -> None:
    assert [(case.network in LAYERS, case.precision) for case in QUICK] == [
        (True, "fp32"), (False, "fp32"), (True, "int8"), (False, "int8"),
    ]  # fmt: skip
    assert {case.network for case in QUICK if case.network not in LAYERS} == {"resnet20"}


def test_in_int8_six_networks_and_all_19_layers_are_raced_with_zeros_in_blocks_of_four() -> None:
    chosen = [case for case in select(CASES, precisions=["int8"]) if not case.is_transformer]
    assert {case.pattern for case in chosen} == {"1x4"}
    networks = [(case.network, case.sparsity, case.batch) for case in chosen if case.network not in LAYERS]
    assert networks == [
        ("resnet50", 0.9, 1), ("resnet50", 0.8, 1), ("resnet50", 0.9, 16), ("vgg16", 0.9, 1),
        ("mobilenet_v1", 0.9, 1), ("alexnet", 0.9, 1),
    ]  # fmt: skip
    assert {(case.network, case.sparsity) for case in chosen} - {case[:2] for case in networks} == {
        (layer, 0.9) for layer in LAYERS
    }


def test_transformers_are_raced_with_free_zeros_in_fp32_and_with_blocks_of_four_in_int8() -> None:
    assert set(TRANSFORMERS) == {case for case in CASES if case.is_transformer}
    assert {(case.pattern, case.precision) for case in TRANSFORMERS} == {("free", "fp32"), ("1x4", "int8")}
    sizes = {"bert_base": {128, 384}, "minilm": {16, 128}, "vit_tiny": {197}}
    assert {name: {case.tokens for case in select(TRANSFORMERS, networks=[name])} for name in sizes} == sizes
    # What would take hours is asked for by a word of its own.
    every = {(case.tokens, case.batch, case.sparsity, case.precision) for case in ENCODERS}
    assert len(every) == 3 * 2 * 2 * 2 == len(ENCODERS) / 2
    assert {case for case in TRANSFORMERS if case.network != "vit_tiny"} < set(ENCODERS)
    assert [case.tokens for case in select(ENCODERS, networks=["minilm"], tokens=[16])] == [16] * 8


def test_inputs_for_calibration_are_others_in_whole_batches() -> None:
    for batch, count in ((1, 32), (16, 32), (3, 33)):
        case = Case("alexnet_fc7", 0.9, batch=batch)
        inputs = calibration(case)
        assert inputs.shape == (count, 4096)
        assert not torch.equal(inputs[:batch], example(case))
        assert torch.equal(inputs, calibration(case))


def test_every_case_has_a_key_of_its_own_and_survives_json() -> None:
    assert len({case.key for case in {*CASES, *ENCODERS}}) == len({*CASES, *ENCODERS})
    assert all(Case(**case.to_json()) == case for case in CASES)


def test_select_joins_its_conditions_with_and() -> None:
    networks = ["resnet50", "vgg16"]
    chosen = select(CASES, networks=networks, sparsities=[0.9], threads=[1], precisions=["fp32"])
    assert [(case.network, case.batch) for case in chosen] == [
        ("resnet50", 1),
        ("vgg16", 1),
        ("resnet50", 16),
    ]


def test_selecting_nothing_names_what_there_is() -> None:
    with pytest.raises(RecipeError, match=r"network lenet.*vgg16.*sparsities: 0.8 or 0.9"):
        select(CASES, networks=["lenet"])


def test_two_processes_would_draw_the_same_network_and_input_whatever_was_drawn_before() -> None:
    case = Case("1x1_64_256_56", 0.9)
    torch.manual_seed(7)
    first, x = network(case), example(case)
    torch.manual_seed(8)
    second, y = network(case), example(case)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(x, y)


def test_a_layer_has_its_share_of_zeros_and_weights_as_large_as_he_et_al_draw_them() -> None:
    (layer,) = layers(network(Case("3x3_128_128_28", 0.95)))
    assert zeros(layer) == pytest.approx(0.95, abs=2e-3)
    std = layer.weight[layer.weight != 0].std().item()
    assert std == pytest.approx(math.sqrt(2 / (128 * 9 * 0.05)), rel=0.03)


def test_block_zeros_come_in_whole_blocks() -> None:
    (layer,) = layers(network(Case("3x3_256_256_14", 0.9, pattern="32x32")))
    blocks = (layer.weight != 0).reshape(8, 32, 8, 32, 9).float().mean(dim=(1, 3))
    assert set(blocks.flatten().tolist()) == {0.0, 1.0}


def test_the_first_convolution_of_a_network_and_depthwise_ones_stay_dense() -> None:
    first, *others = layers(network(Case("mobilenet_v1", 0.9)))
    assert zeros(first) == 0
    for layer in others:
        depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
        assert zeros(layer) == pytest.approx(0 if depthwise else 0.9, abs=0.03)


TINY = {
    "lstm": (lambda: models.LSTMClassifier(24, 32, layers=2), (9, 24)),
    "mbconv": (lambda: tiny_mbconv(), (3, 16, 16)),
    "generator": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(32, 48, 4, 2, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU(),
            nn.ConvTranspose2d(48, 16, 4, 2, 1), nn.Tanh(),
        ),
        (32, 4, 4),
    ),
    "tcn": (
        lambda: nn.Sequential(nn.Conv1d(16, 64, 7, padding=3), nn.ReLU(), nn.Conv1d(64, 64, 3, padding=1)),
        (16, 20),
    ),
    "vit": (lambda: models.VisionTransformer(SMALL, side=64, classes=40), (3, 64, 64)),
}  # fmt: skip
SMALL = models.EncoderSizes(layers=3, width=64, heads=4, hidden=128)


def tiny_mbconv() -> nn.Sequential:
    """A convolution of a picture and eight blocks of MBConv, half of them with shortcuts."""
    blocks: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1)]
    for out in (16, 24, 24, 16, 16, 24, 24, 16):
        channels = blocks[-1].out if isinstance(blocks[-1], Stage) else 16
        blocks.append(Stage(channels, out))
    return nn.Sequential(*blocks)


class Stage(MBConv):
    """A block that knows how many channels leave it."""

    def __init__(self, channels: int, out: int) -> None:
        squeeze = SqueezeExcitation(48, 4, nn.SiLU(), nn.Sigmoid())
        super().__init__(channels, BlockShape(48, 3, 1, out), nn.SiLU, squeeze)
        self.out = out


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks of each kind besides those that are raced."""
    for name, entry in TINY.items():
        monkeypatch.setitem(MODELS, name, entry)
    monkeypatch.setitem(seeded_networks.ENCODERS, "encoder", SMALL)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", TINY)
def test_every_weight_has_its_share_of_zeros_but_depthwise_ones_and_those_that_read_a_picture(
    name: str,
) -> None:
    weights = {k: w for k, w in network(Case(name, 0.9)).named_parameters() if w.ndim > 1}
    for weight in weights.values():
        dense = weight.ndim == 3 and len(weight) == 1  # tokens that a ViT adds
        dense |= weight.ndim == 4 and weight.shape[1] in (1, 3)
        assert (weight == 0).float().mean().item() == pytest.approx(0 if dense else 0.9, abs=0.07)
    assert (
        len(weights) == {"lstm": 5, "mbconv": 1 + 8 * 5, "generator": 2, "tcn": 2, "vit": 2 + 3 * 6 + 2}[name]
    )


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", TINY)
def test_answers_depend_on_the_input_by_far_more_than_the_limits_of_the_race_and_bf16_is_within_its_own(
    name: str,
) -> None:
    case = Case(name, 0.9, batch=2)
    model, x = network(case), example(case)
    with torch.no_grad():
        y, other = model(x), model(x.flip(0))
        rounded = model.bfloat16()(x.bfloat16())
    assert bool(y.isfinite().all())
    assert (y - other).abs().max() > 0.2 * y.abs().max()
    assert (y - rounded).abs().max() < 0.03 * y.abs().max()


@pytest.mark.usefixtures("tiny")
def test_what_an_encoder_says_of_a_token_depends_on_that_token_and_on_the_others() -> None:
    case = Case("encoder", 0.9, tokens=20, pattern="1x4", precision="int8")
    model, x = network(case), example(case)
    assert x.shape == (1, 20, 64)
    assert calibration(case).shape == (32, 20, 64)
    changed = x.clone()
    changed[:, 10:] = -changed[:, 10:]
    with torch.no_grad():
        y, other, turned = model(x), model(changed), model(x.flip(1)).flip(1)
        rounded = model.bfloat16()(x.bfloat16())
    torch.testing.assert_close(turned, y, rtol=1e-4, atol=1e-5)  # the order of tokens says nothing
    largest = y.abs().max()
    assert (y - other)[:, :10].abs().max() > 0.1 * largest
    assert (y[:, 1:] - y[:, :-1]).abs().amax(-1).min() > 0.1 * largest
    assert (y - rounded).abs().max() < 0.03 * largest


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", ["mbconv", "generator"])
def test_batch_norms_are_folded_into_transposed_and_depthwise_convolutions_too(name: str) -> None:
    model = network(Case(name, 0.9))
    assert not [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def test_resnet20_has_no_batch_norm_left_and_16_bits_change_its_answer_by_less_than_2_percent() -> None:
    case = Case("resnet20", 0.9, batch=4)
    model, x = network(case), example(case)
    assert not [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        answer, rounded = model(x), model.bfloat16()(x.bfloat16())
    assert (answer - rounded).abs().max() < 0.02 * answer.abs().max()


def test_folding_batch_norms_leaves_the_answer_and_the_zeros_as_they_were() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU()).eval()
    with torch.no_grad():
        model[0].weight[:, 1] = 0
        for tensor in (model[1].weight, model[1].bias, model[1].running_mean, model[1].running_var):
            tensor.uniform_(0.5, 2)
        x = torch.randn(2, 3, 6, 6)
        expected, folded = model(x), _folded(model)
        torch.testing.assert_close(folded(x), expected)
    (layer,) = layers(folded)
    assert zeros(layer) == pytest.approx(1 / 3)
    assert [type(module) for module in folded.children()] == [nn.Conv2d, nn.ReLU]


def test_an_unknown_network_is_refused_by_name() -> None:
    with pytest.raises(RecipeError, match="lenet"):
        network(Case("lenet", 0.9))


# --- what is selected


@settings(max_examples=60)
@given(
    networks=st.lists(st.sampled_from(["resnet50", "vgg16", "alexnet_fc6"]), max_size=3),
    sparsities=st.lists(st.sampled_from([0.8, 0.9, 0.91, 0.95]), max_size=3),
    threads=st.lists(st.sampled_from([1, 2]), max_size=2),
)
def test_what_is_selected_is_in_the_lists_that_are_not_empty_and_in_order(
    networks: list[str], sparsities: list[float], threads: list[int]
) -> None:
    fits = [
        case
        for case in CASES
        if case.network in (networks or [case.network])
        and case.sparsity in (sparsities or [case.sparsity])
        and case.threads in (threads or [case.threads])
    ]
    if fits:
        assert select(CASES, networks=networks, sparsities=sparsities, threads=threads) == fits
    else:
        with pytest.raises(RecipeError, match="no case has network"):
            select(CASES, networks=networks, sparsities=sparsities, threads=threads)


@pytest.mark.parametrize(
    ("case", "key"),
    [
        (Case("vgg16", 0.9), "vgg16 90 %, batch 1, 1 thread"),
        (Case("vgg16", 0.9, 16, 2), "vgg16 90 %, batch 16, 2 threads"),
        (Case("vgg16", 0.9, weights="int8", cold=True), "vgg16 90 %, batch 1, 1 thread, int8 weights, cold"),
        (Case("vgg16", 0.9, pattern="2:4"), "vgg16 90 %, batch 1, 1 thread, 2:4"),
        (Case("c", 0.9, pattern="1x4", precision="int8"), "c 90 %, batch 1, 1 thread, 1x4, int8"),
        (Case("c", 0.9, batch=16, tokens=128), "c 90 %, 128 tokens, batch 16, 1 thread"),
        (Case("c", 0.0, input_sparsity=0.95), "c, batch 1, 1 thread, 95 % zeros in the input"),
    ],
)
def test_a_key_says_what_is_not_usual(case: Case, key: str) -> None:
    assert case.key == key


def test_cases_with_sparse_inputs_are_timed_by_the_cpu_s_clock_and_have_dense_weights() -> None:
    assert len({case.key for case in ACTIVATIONS}) == len(ACTIVATIONS)
    assert {(case.clock, case.sparsity) for case in ACTIVATIONS} == {("cpu", 0.0)}
    assert all(0 < case.input_sparsity < 1 for case in ACTIVATIONS)


# --- inputs


@pytest.mark.parametrize("sparsity", [0.7, 0.95])
def test_a_sparse_input_has_its_share_of_zeros_and_is_else_positive(sparsity: float) -> None:
    x = example(Case("ffn_down", 0.0, batch=4, input_sparsity=sparsity))
    assert x.shape == (4, 11008)
    assert (x == 0).float().mean().item() == pytest.approx(sparsity, abs=0.01)
    assert bool((x >= 0).all())


def test_an_input_without_zeros_is_normal_and_the_batch_only_adds_to_it() -> None:
    x = example(Case("alexnet_fc7", 0.9, batch=8))
    assert x.std().item() == pytest.approx(1, abs=0.02)
    assert bool((x < 0).any())


@pytest.mark.parametrize(
    ("name", "shape"),
    [("efficientnet_b0", (2, 3, 224, 224)), ("mobilenet_v3_large", (2, 3, 224, 224)),
     ("dcgan_generator", (2, 100, 1, 1)), ("wav2letter", (2, 80, 200)), ("lstm", (2, 64, 256)),
     ("resnet20", (2, 3, 32, 32)), ("mobilenet_v1", (2, 3, 224, 224)), ("3x3_64_64_56", (2, 64, 56, 56)),
     ("LeNet Conv2", (2, 20, 11, 11)), ("alexnet_fc6", (2, 9216))],
)  # fmt: skip
def test_inputs_have_the_shape_that_their_network_reads(name: str, shape: tuple[int, ...]) -> None:
    assert example(Case(name, 0.9, batch=2)).shape == shape


def test_a_layer_keeps_its_map_and_is_rectified() -> None:
    case = Case("5x5", 0.0)
    with pytest.raises(RecipeError):
        network(case)
    for name, (kernel, inputs, outputs, size) in LAYERS.items():
        if inputs * outputs * size > 1 << 20:
            continue  # the larger ones take their time and are no different
        model = network(Case(name, 0.9))
        (layer,) = layers(model)
        assert layer.kernel_size == (kernel, kernel)
        with torch.no_grad():
            y = model(torch.ones(1, inputs, size, size))
        assert y.shape == (1, outputs, size, size)
        assert bool((y >= 0).all())
