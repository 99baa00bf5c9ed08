"""The tasks that come with the package: networks of the papers on real data, with a training that suits each."""

from __future__ import annotations

from zeroskip import models
from zeroskip.data import cifar10 as cifar10_data
from zeroskip.data import digits as digits_data
from zeroskip.data import forest as forest_data
from zeroskip.data import mnist as mnist_data
from zeroskip.data import word_counts
from zeroskip.data.imagenet import CAFFE, TORCHVISION
from zeroskip.tasks.classification import Classification
from zeroskip.tasks.imagenet import ImageNet, linear
from zeroskip.tasks.sentences import SentenceSimilarity

digits = Classification(
    "digits", lambda: models.LeNet300100(inputs=64), digits_data.load,
    epochs=60, batch_size=32, learning_rate=2e-3, weight_decay=0.3, label_smoothing=0.1, input_noise=0.1,
)  # fmt: skip
SMALL = models.LeNet5Sizes(side=8, kernel=3, padding=1, channels=(20, 50, 120))
digits_conv = Classification(
    "digits-conv", lambda: models.LeNet5(SMALL), digits_data.load,
    epochs=30, batch_size=32, learning_rate=2e-3, weight_decay=0.1, label_smoothing=0.1, input_noise=0.1,
)  # fmt: skip
mnist = Classification(
    "mnist", models.LeNet300100, mnist_data.load,
    epochs=30, batch_size=128, learning_rate=2e-3, weight_decay=0.3, label_smoothing=0.1, input_noise=0.2,
    precision="bf16-mixed",
)  # fmt: skip
mnist_conv = Classification(
    "mnist-conv", models.LeNet5, mnist_data.load,
    epochs=10, batch_size=64, learning_rate=1e-3, weight_decay=0.1, label_smoothing=0.1, input_noise=0.2,
    precision="bf16-mixed",
)  # fmt: skip

cifar10 = Classification(
    "cifar10", models.AlexNetCifar, cifar10_data.load,
    epochs=15, batch_size=128, learning_rate=2e-3, weight_decay=0.05, shift=2, mirror=True,
    precision="bf16-mixed",
)  # fmt: skip
cifar10_resnet20 = Classification(
    "cifar10-resnet20", lambda: models.resnet20(option="A"), cifar10_data.load,
    epochs=20, batch_size=128, learning_rate=4e-3, weight_decay=0.1, shift=4, mirror=True,
    precision="bf16-mixed",
)  # fmt: skip

# The five networks of Minerva (Reagen et al. 2016, table 1), each with its published widths. Label smoothing, noise
# and dropout take the place of most of its L1 and L2: the errors are lower, and thresholds remove more.
minerva_mnist = Classification(
    "minerva-mnist", lambda: models.MLP(784, (256, 256, 256, 10)), mnist_data.load,
    epochs=10, batch_size=128, learning_rate=2e-3, weight_decay=0.3, label_smoothing=0.1, input_noise=0.2,
    precision="bf16-mixed",
)  # fmt: skip
# 8 outputs for 7 covers, as published: covers are numbered from 1 in the original file. With the published L2 of 1e-2
# the error is 29.3 % (theirs: 28.87 %), with 1e-3 it is 24 %.
minerva_forest = Classification(
    "minerva-forest", lambda: models.MLP(54, (128, 512, 128, 8)), forest_data.load,
    epochs=4, batch_size=256, learning_rate=2e-3, weight_decay=0.0, label_smoothing=0.1, l2=1e-3,
)  # fmt: skip
minerva_reuters = Classification(
    "minerva-reuters", lambda: models.MLP(2837, (128, 64, 512, 52)), word_counts.reuters,
    epochs=12, batch_size=32, learning_rate=1e-3, weight_decay=0.0, label_smoothing=0.1, input_noise=0.2,
)  # fmt: skip
minerva_webkb = Classification(
    "minerva-webkb", lambda: models.MLP(3418, (128, 32, 128, 4)), word_counts.webkb,
    epochs=12, batch_size=32, learning_rate=1e-3, weight_decay=0.0, label_smoothing=0.1, input_noise=0.2, l2=1e-3,
)  # fmt: skip
minerva_20ng = Classification(
    "minerva-20ng", lambda: models.MLP(21979, (64, 64, 256, 20), dropout=0.2), word_counts.newsgroups,
    epochs=5, batch_size=64, learning_rate=1e-3, weight_decay=0.0, label_smoothing=0.1, input_dropout=0.5,
)  # fmt: skip
MINERVA = (minerva_mnist, minerva_forest, minerva_reuters, minerva_webkb, minerva_20ng)

alexnet_caffe = ImageNet(
    "alexnet-caffe", models.AlexNetCaffe, CAFFE,
    epochs=90, batch_size=256, learning_rate=0.01, weight_decay=5e-4,
)  # fmt: skip
alexnet = ImageNet(
    "alexnet", models.AlexNet, TORCHVISION,
    epochs=90, batch_size=256, learning_rate=0.01, weight_decay=1e-4,
)  # fmt: skip
# A quarter of the published batch, and so of the rate: a batch of VGG-16 or SqueezeNet then fits into 16 GB.
vgg16 = ImageNet(
    "vgg16", models.VGG16, TORCHVISION,
    epochs=74, batch_size=64, learning_rate=0.0025, weight_decay=5e-4,
)  # fmt: skip
squeezenet = ImageNet(
    "squeezenet", models.SqueezeNet10, CAFFE,
    epochs=68, batch_size=128, learning_rate=0.01, weight_decay=2e-4, schedule=linear,
)  # fmt: skip

# A pruned network learns the vectors of the published one, on sentences without scores.
sts = SentenceSimilarity("sts", epochs=4, sentences=512, batch_size=32, learning_rate=1e-4)

BUILT_IN = (
    *(digits, digits_conv, mnist, mnist_conv, cifar10, cifar10_resnet20, *MINERVA),
    *(alexnet_caffe, alexnet, vgg16, squeezenet, sts),
)
