"""The networks of the papers as plain `nn.Module`s, one file each."""

from zeroskip.models.alexnet import AlexNet, AlexNetCaffe
from zeroskip.models.lenet import LeNet5, LeNet300100
from zeroskip.models.squeezenet import SqueezeNet10
from zeroskip.models.vgg import VGG16

__all__ = ["VGG16", "AlexNet", "AlexNetCaffe", "LeNet5", "LeNet300100", "SqueezeNet10"]
