"""The networks of the papers as plain `nn.Module`s, one file each."""

from zeroskip.models.lenet import LeNet5, LeNet300100

__all__ = ["LeNet5", "LeNet300100"]
