"""What tables call the networks, and why a row of one has no figure."""

from __future__ import annotations

TITLES = {"lenet-300-100": "LeNet-300-100", "lenet-5": "LeNet-5", "alexnet": "AlexNet", "vgg16": "VGG-16"}
"""The four networks of Han et al. 2015 and of Deep Compression."""

# Those that can be trained; the two first are unless others are named.
WITH_TRAINING = ("lenet-300-100", "lenet-5", "digits", "alexnet", "vgg16")
TRAINED_BY_DEFAULT = WITH_TRAINING[:2]
IMAGENET = "needs training on ImageNet"
TRAINING = "needs training (--out or --results)"


def title(network: str) -> str:
    """What a table calls a network; its own word for those without published figures.

    >>> title("vgg16"), title("digits")
    ('VGG-16', 'digits')
    """
    return TITLES.get(network, network)


def missing(network: str) -> str:
    """Why a row of `network` that needs training has no figure.

    >>> missing("vgg16")
    'needs training on ImageNet'
    """
    return IMAGENET if network in ("alexnet", "vgg16") else TRAINING
