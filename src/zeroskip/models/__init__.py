"""The networks of the papers as plain `nn.Module`s, one file for each family."""

from zeroskip.models.alexnet import AlexNet, AlexNetCaffe, AlexNetCifar
from zeroskip.models.bert import BertSizes, SentenceEncoder
from zeroskip.models.dcgan import dcgan_generator
from zeroskip.models.efficientnet import efficientnet_b0
from zeroskip.models.efficientnet_lite import EfficientNetLite0
from zeroskip.models.googlenet import googlenet
from zeroskip.models.lenet import LeNet5, LeNet5Sizes, LeNet300100
from zeroskip.models.lstm import LSTMClassifier
from zeroskip.models.mlp import MLP
from zeroskip.models.mobilenet import mobilenet_v1, mobilenet_v2, mobilenet_v3_large
from zeroskip.models.resnet import resnet20, resnet50, resnet56
from zeroskip.models.squeezenet import SqueezeNet10
from zeroskip.models.vgg import VGG16
from zeroskip.models.wav2letter import wav2letter

__all__ = [
    "MLP", "VGG16", "AlexNet", "AlexNetCaffe", "AlexNetCifar", "BertSizes", "EfficientNetLite0", "LSTMClassifier",
    "LeNet5", "LeNet5Sizes", "LeNet300100", "SentenceEncoder", "SqueezeNet10", "dcgan_generator", "efficientnet_b0",
    "googlenet", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "resnet20", "resnet50", "resnet56", "wav2letter",
]  # fmt: skip
