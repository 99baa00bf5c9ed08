"""What can be sparsified: a model, its data, its training. A user's own file is the same thing.

A task has `model()`, `train(model)` (in place), `evaluate(model)` (a number, lower is better) and `batch()`.
"""

from zeroskip.tasks.built_in import (
    BUILT_IN,
    MINERVA,
    alexnet,
    alexnet_caffe,
    cifar10,
    cifar10_resnet20,
    digits,
    digits_conv,
    minerva_20ng,
    minerva_forest,
    minerva_mnist,
    minerva_reuters,
    minerva_webkb,
    mnist,
    mnist_conv,
    squeezenet,
    sts,
    vgg16,
)  # fmt: skip
from zeroskip.tasks.classification import Classification
from zeroskip.tasks.imagenet import ImageNet
from zeroskip.tasks.load import load
from zeroskip.tasks.sentences import SentenceSimilarity

__all__ = [
    "BUILT_IN", "MINERVA", "Classification", "ImageNet", "SentenceSimilarity", "alexnet", "alexnet_caffe", "cifar10",
    "cifar10_resnet20", "digits", "digits_conv", "load", "minerva_20ng", "minerva_forest", "minerva_mnist",
    "minerva_reuters", "minerva_webkb", "mnist", "mnist_conv", "squeezenet", "sts", "vgg16",
]  # fmt: skip
