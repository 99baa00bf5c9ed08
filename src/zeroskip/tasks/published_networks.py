"""Trained networks that others published, with their weights and inputs, found in the folder of data sets."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from zeroskip import run_folder
from zeroskip.data import Split, cifar10, imagenet, mnist, onnx_weights
from zeroskip.models import EfficientNetLite0, LeNet5, SqueezeNet10, resnet20, resnet56
from zeroskip.models.lenet import caffe_names
from zeroskip.models.mlp import MLP
from zeroskip.models.resnet import cifar_names
from zeroskip.tasks.training import batches

Pairs = Iterable[tuple[Tensor, Tensor]]
BATCH = 250


@dataclass(frozen=True)
class PublishedNetwork:
    """A trained network: its file in weights/, how to build it and read it, and the inputs to count zeros on.

    batches  folder of data sets -> pairs (inputs, classes)
    data     what these inputs are, for people
    """

    file: str
    build: Callable[[], nn.Module]
    read: Callable[[Path], dict[str, Tensor]]
    batches: Callable[[Path], Pairs]
    data: str


def trained(name: str, folder: str | Path) -> nn.Module:
    """The network called `name` in NETWORKS, with its published weights."""
    return with_weights(NETWORKS[name], folder)


def with_weights(network: PublishedNetwork, folder: str | Path) -> nn.Module:
    """A network with its published weights, in evaluation mode."""
    model = network.build()
    model.load_state_dict(network.read(Path(folder) / "weights" / network.file))
    return model.eval()


def _digits(folder: Path, scale: float = 1.0) -> Pairs:
    test = mnist.load(folder).test
    return batches(Split(test.inputs * scale, test.targets), BATCH)


def _pictures(folder: Path, preprocess: imagenet.Preprocess = imagenet.CAFFE) -> Pairs:
    with warnings.catch_warnings():
        # That a sample is training, validation and test alike matters to trainings only.
        warnings.filterwarnings("ignore", ".*holds one set of", UserWarning)
        test = imagenet.load(folder)["test"]
    return imagenet.batches(test, preprocess)


def _numbered(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network of layers.0, layers.2, ... (ReLUs between) under the names of `MLP`: fc1, fc2, ..."""
    parts = [name.split(".") for name in weights]
    return {f"fc{int(i) // 2 + 1}.{kind}": weights[f"layers.{i}.{kind}"] for _, i, kind in parts}


_CIFAR, _MNIST = "CIFAR-10, the lossless pictures of the test set", "MNIST, test set"
_lossless = lambda folder: batches(cifar10.lossless("test", folder), BATCH)

CENTRED = imagenet.Preprocess(224, "RGB", (127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
EFFICIENTNET_LITE0 = PublishedNetwork(
    "efficientnet_lite0.safetensors", EfficientNetLite0, run_folder.load_tensors,
    partial(_pictures, preprocess=CENTRED), "ImageNet, a picture of every class that the folder holds",
)  # fmt: skip
"""For eight bits; its zeros are not counted."""

NETWORKS = {
    "LeNet-5": PublishedNetwork(
        "lenet5_caffe_mnist.safetensors", partial(LeNet5, rectified=False),
        lambda path: caffe_names(run_folder.load_tensors(path)), partial(_digits, scale=255 / 256), _MNIST,
    ),
    "MLP 2x256": PublishedNetwork(
        "mnist_fc_256x2.onnx", partial(MLP, 784, (256, 256, 10)),
        lambda path: _numbered(onnx_weights.read(path)), _digits, _MNIST,
    ),
    "MLP 4x256": PublishedNetwork(
        "mnist_fc_256x4.onnx", partial(MLP, 784, (256, 256, 256, 256, 10)),
        lambda path: _numbered(onnx_weights.read(path)), _digits, _MNIST,
    ),
    "ResNet-20": PublishedNetwork(
        "resnet20_cifar10.safetensors", partial(resnet20, option="A"),
        lambda path: cifar_names(run_folder.load_tensors(path)), _lossless, _CIFAR,
    ),
    "ResNet-56": PublishedNetwork(
        "resnet56_cifar10.safetensors", partial(resnet56, option="A"),
        lambda path: cifar_names(run_folder.load_tensors(path)), _lossless, _CIFAR,
    ),
    "SqueezeNet": PublishedNetwork(
        "squeezenet_v10_deep_compression.safetensors", SqueezeNet10, run_folder.load_tensors, _pictures,
        "ImageNet, a picture of every class that the folder holds",
    ),
}  # fmt: skip
"""Published networks by name; SqueezeNet is the one that Deep Compression pruned and quantised."""
