"""What can be sparsified: a model, its data, its training. A user's own file is the same thing.

A task has `model()`, `train(model)` (in place), `evaluate(model)` (a number, lower is better) and `batch()`.
"""

from zeroskip.data import digits as _digits
from zeroskip.data import mnist as _mnist
from zeroskip.data.imagenet import CAFFE, TORCHVISION
from zeroskip.models import VGG16, AlexNet, AlexNetCaffe, LeNet5, LeNet300100, SqueezeNet10
from zeroskip.tasks.classification import Classification
from zeroskip.tasks.imagenet import ImageNet, linear
from zeroskip.tasks.load import load

digits = Classification(
    "digits", lambda: LeNet300100(inputs=64), _digits.load,
    epochs=60, batch_size=32, learning_rate=2e-3, weight_decay=0.3, label_smoothing=0.1, input_noise=0.1,
)  # fmt: skip
digits_conv = Classification(
    "digits-conv", lambda: LeNet5(side=8, kernel=3, padding=1, channels=(20, 50, 120)), _digits.load,
    epochs=30, batch_size=32, learning_rate=2e-3, weight_decay=0.1, label_smoothing=0.1, input_noise=0.1,
)  # fmt: skip
mnist = Classification(
    "mnist", LeNet300100, _mnist.load,
    epochs=30, batch_size=128, learning_rate=2e-3, weight_decay=0.3, label_smoothing=0.1, input_noise=0.2,
    precision="bf16-mixed",
)  # fmt: skip
mnist_conv = Classification(
    "mnist-conv", LeNet5, _mnist.load,
    epochs=10, batch_size=64, learning_rate=1e-3, weight_decay=0.1, label_smoothing=0.1, input_noise=0.2,
    precision="bf16-mixed",
)  # fmt: skip

alexnet_caffe = ImageNet(
    "alexnet-caffe", AlexNetCaffe, CAFFE,
    epochs=90, batch_size=256, learning_rate=0.01, weight_decay=5e-4,
)  # fmt: skip
alexnet = ImageNet(
    "alexnet", AlexNet, TORCHVISION,
    epochs=90, batch_size=256, learning_rate=0.01, weight_decay=1e-4,
)  # fmt: skip
# A quarter of the published batch, and so of the rate: a batch of VGG-16 or SqueezeNet then fits into 16 GB.
vgg16 = ImageNet(
    "vgg16", VGG16, TORCHVISION,
    epochs=74, batch_size=64, learning_rate=0.0025, weight_decay=5e-4,
)  # fmt: skip
squeezenet = ImageNet(
    "squeezenet", SqueezeNet10, CAFFE,
    epochs=68, batch_size=128, learning_rate=0.01, weight_decay=2e-4, schedule=linear,
)  # fmt: skip

BUILT_IN = (digits, digits_conv, mnist, mnist_conv, alexnet_caffe, alexnet, vgg16, squeezenet)

__all__ = [
    "BUILT_IN",
    "Classification",
    "ImageNet",
    "alexnet",
    "alexnet_caffe",
    "digits",
    "digits_conv",
    "load",
    "mnist",
    "mnist_conv",
    "squeezenet",
    "vgg16",
]
