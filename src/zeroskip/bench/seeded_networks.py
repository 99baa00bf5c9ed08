"""The same pruned network and the same input in every process: everything is drawn from fixed seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from zeroskip import models, patterns
from zeroskip.bench import recorded_layers, trained_networks
from zeroskip.bench.cases import LAYERS, LINEAR, Case
from zeroskip.errors import RecipeError
from zeroskip.models.convolutions import RECTIFIED
from zeroskip.models.mobile_blocks import MBConv
from zeroskip.models.transformer import EncoderLayer

SEED = 1
CALIBRATION = 32  # inputs on which engines in eight bits choose their scales

# name -> what makes it, shape of one input
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "alexnet": (models.AlexNet, (3, 224, 224)),
    "vgg16": (models.VGG16, (3, 224, 224)),
    "resnet20": (models.resnet20, (3, 32, 32)),
    "resnet50": (models.resnet50, (3, 224, 224)),
    "mobilenet_v1": (models.mobilenet_v1, (3, 224, 224)),
    "mobilenet_v3_large": (models.mobilenet_v3_large, (3, 224, 224)),
    "efficientnet_b0": (models.efficientnet_b0, (3, 224, 224)),
    "dcgan_generator": (models.dcgan_generator, (100, 1, 1)),
    "wav2letter": (models.wav2letter, (80, 200)),
    "lstm": (partial(models.LSTMClassifier, 256, 256, layers=2), (64, 256)),
    "vit_tiny": (models.vit_tiny, (3, 224, 224)),
    trained_networks.LITE: (trained_networks.network, (3, 224, 224)),
}
ENCODERS = {
    "bert_base": models.BERT_BASE,
    "minilm": models.MINILM,
}  # embeddings go in, for any number of tokens


def network(case: Case) -> nn.Module:
    """The pruned network of a case, in evaluation mode, its batch norms folded into the layers before them.

    Weights are drawn as He et al. (2015) do, for the inputs that pruning leaves: variance 2 / (fan-in x share left);
    half of that in recurrent layers, whose answers would hang on rounding else. Zeros lie where a seeded coin says.
    Convolutions of a picture's three channels and depthwise convolutions stay dense. Statistics of batch norms
    are 0 and 1; in networks of `MBConv`, those of two random inputs. Of a trained network the weights are its own,
    and zeros lie where the magnitudes of a block are least.
    """
    if case.is_recorded:
        return recorded_layers.network(case)
    if case.network == trained_networks.LITE:
        return _folded(_pruned(trained_networks.network(), case))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = _architecture(case)[0]().eval()
        _draw_(model, case)
        if any(isinstance(module, MBConv) for module in model.modules()):
            _calibrate_(model, torch.randn(2, *_architecture(case)[1]))
    return _folded(model)


def example(case: Case) -> Tensor:
    """The input of a case: (batch, *input shape), normally distributed, or with zeros as after a ReLU.

    >>> example(Case("alexnet_fc7", 0.9, batch=2)).shape
    torch.Size([2, 4096])
    """
    if case.is_recorded:
        return recorded_layers.example(case)
    if case.network == trained_networks.LITE:
        return trained_networks.example(case.batch)
    generator = torch.Generator().manual_seed(SEED + 1)
    x = _drawn(case, case.batch, generator)
    if not case.input_sparsity:
        return x
    return x.abs() * (torch.rand(x.shape, generator=generator) >= case.input_sparsity)


def calibration(case: Case) -> Tensor:
    """What engines in eight bits are calibrated on: other inputs like the example, in whole batches of the case.

    >>> calibration(Case("alexnet_fc7", 0.9, batch=16)).shape
    torch.Size([32, 4096])
    """
    if case.network == trained_networks.LITE:
        pictures = trained_networks.calibration()
        return pictures[: max(1, len(pictures) // case.batch) * case.batch]
    generator = torch.Generator().manual_seed(SEED + 2)
    count = -(-CALIBRATION // case.batch) * case.batch
    return _drawn(case, count, generator)


def _drawn(case: Case, count: int, generator: torch.Generator) -> Tensor:
    """So many inputs: (count, *shape of one), normally distributed; embeddings evenly, as far from 0.

    The rare large numbers of a normal distribution are not seen in calibration: a residual sum in bytes would cut them
    off, and the largest difference of an answer, by which engines are judged, be theirs.
    """
    shape = count, *_architecture(case)[1]
    if case.network in ENCODERS:
        return (torch.rand(shape, generator=generator) - 0.5) * math.sqrt(12)
    return torch.randn(shape, generator=generator)


def _architecture(case: Case) -> tuple[Callable[[], nn.Module], tuple[int, ...]]:
    """What makes a network, and the shape of one input."""
    name = case.network
    if name in ENCODERS:
        sizes = ENCODERS[name]
        return partial(models.encoder, sizes), (case.tokens, sizes.width)
    if name in LAYERS:
        kernel, inputs, outputs, size = LAYERS[name]
        convolution = partial(nn.Conv2d, inputs, outputs, kernel, padding=kernel // 2)
        return lambda: nn.Sequential(convolution(), nn.ReLU()), (inputs, size, size)
    if name in RECTIFIED:
        layer = RECTIFIED[name]
        return layer.network, (layer.channels, layer.size, layer.size)
    if name in LINEAR:
        return lambda: nn.Sequential(nn.Linear(*LINEAR[name])), LINEAR[name][:1]
    if name in MODELS:
        return MODELS[name]
    raise RecipeError(
        f'there is no network "{name}". Choose one of '
        f"{', '.join([*LAYERS, *RECTIFIED, *LINEAR, *MODELS, *ENCODERS])}."
    )


@torch.no_grad()
def _draw_(model: nn.Module, case: Case) -> None:
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.bias.normal_(std=0.1)  # statistics of 0 and 1 keep values in bounds, with these weights
    for layer_norm in (module for module in model.modules() if isinstance(module, nn.LayerNorm)):
        layer_norm.weight.normal_(1, 0.1)
        layer_norm.bias.normal_(std=0.1)
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            _draw_recurrent_(module, case)
        elif isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
            _draw_layer_(module, case)
    for layer in (module for module in model.modules() if isinstance(module, EncoderLayer)):
        _soften_(layer)


def _soften_(layer: EncoderLayer) -> None:
    """Attention looks at many tokens, as it does after training, and what is added leaves tokens different."""
    for linear, factor in ((layer.query, 0.5), (layer.key, 0.5), (layer.output, 0.25), (layer.down, 0.25)):
        linear.weight.mul_(factor)
        linear.bias.mul_(factor)


def _draw_recurrent_(layer: nn.RNNBase, case: Case) -> None:
    for name, parameter in layer.named_parameters():
        if name.startswith("weight"):
            _draw_weight_(parameter, case, case.sparsity, gain=1, fan_in=parameter.shape[1])
        else:
            parameter.normal_(std=0.1)


def _draw_layer_(layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d, case: Case) -> None:
    sparsity = 0.0 if _stays_dense(layer) else case.sparsity
    _draw_weight_(layer.weight, case, sparsity, gain=2, fan_in=_fan_in(layer))
    if layer.bias is not None:
        layer.bias.normal_(std=0.1)


def _stays_dense(layer: nn.Module) -> bool:
    """Whether it convolves a picture's three channels, or each channel by itself."""
    if not isinstance(layer, nn.Conv2d):
        return False
    inputs = layer.weight.shape[1]
    return inputs == 3 or (layer.groups > 1 and inputs == 1)


def _fan_in(layer: nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d) -> int:
    """How many products are added up for one output, away from the border."""
    if isinstance(
        layer, nn.ConvTranspose2d
    ):  # (inputs, outputs, h, w): zeros lie between the pixels that are read
        return layer.weight[:, 0].numel() // math.prod(layer.stride)
    return layer.weight[0].numel()


def _draw_weight_(weight: Tensor, case: Case, sparsity: float, *, gain: int, fan_in: int) -> None:
    weight.normal_(std=math.sqrt(gain / max(fan_in * (1 - sparsity), 1)))
    if sparsity:
        weight[~_mask(weight.shape, case.pattern, sparsity)] = 0


@torch.no_grad()
def _pruned(model: nn.Module, case: Case) -> nn.Module:
    """The trained network without the blocks of least magnitude.

    Its batch norms keep their statistics: with those of what is left, channels that died would be multiplied by up to
    30, and no engine could compute that in eight bits.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and not _stays_dense(layer):
            layer.weight[~patterns.keep(layer.weight.abs(), case.pattern, case.sparsity)] = 0
    return model


@torch.no_grad()
def _calibrate_(model: nn.Module, x: Tensor) -> None:
    """Give batch norms the statistics of x: else what passes many gates would fade, and answers not depend on it.

    Sums with a shortcut take a quarter of what is added: else rounding to bf16 would grow from block to block.
    """
    for block in (module for module in model.modules() if isinstance(module, MBConv)):
        if block.has_shortcut:
            block.get_parameter(f"block.{len(block.block) - 1}.1.weight").fill_(0.25)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = 1.0
        norm.train()
    model(x)
    model.eval()


def _mask(shape: torch.Size, pattern: str, sparsity: float) -> Tensor:
    score = torch.rand(shape)
    # For free zeros a threshold draws the same kind of mask without sorting a hundred million scores.
    return score >= sparsity if pattern == "free" else patterns.keep(score, pattern, sparsity)


def _folded(model: nn.Module) -> nn.Module:
    """The network without batch norms, so that an engine that keeps them does not lose by that alone."""
    traced = fx.symbolic_trace(model)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        before = node.args[0]
        layer = modules[before.target]
        fused = fuse_conv_bn_eval(layer, modules[node.target], isinstance(layer, nn.ConvTranspose2d))
        traced.set_submodule(before.target, fused)
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
