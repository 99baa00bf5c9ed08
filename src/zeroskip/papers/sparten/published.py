"""Gondimalla et al.: SparTen: A Sparse Tensor Accelerator for Convolutional Neural Networks, MICRO 2019."""

NAME = "sparten"
TITLE = "SparTen (Gondimalla, Chesnut, Thottethodi, Vijaykumar, MICRO 2019)"

# The abstract: times faster, simulated, mean of AlexNet, VGG-16 and GoogLeNet.
DENSE, ONE_SIDED, SCNN = "4.7", "1.8", "3.0"

# Networks of ours on which it is measured, as tables call them.
REAL = {"squeezenet": "SqueezeNet", "mobilenet-element": "MobileNet", "resnet20": "ResNet-20"}
