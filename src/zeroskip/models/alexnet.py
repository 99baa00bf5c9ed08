"""AlexNet (Krizhevsky et al. 2012): the grouped Caffe form of the papers' tables, torchvision's, and a small one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class AlexNetCaffe(nn.Module):
    """Caffe's `bvlc_alexnet`: two groups in conv2, conv4 and conv5, response normalisation, overlapping pools.

    (batch, 3, 227, 227) -> (batch, classes). With 1,000 classes it has 60,954,656 weights (Han et al. 2015,
    table 4); that paper calls fc6, fc7 and fc8 fc1 to fc3. Initial weights are those of its `train_val.prototxt`.

    >>> with torch.device("meta"):
    ...     y = AlexNetCaffe()(torch.zeros(1, 3, 227, 227))
    >>> y.shape
    torch.Size([1, 1000])
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.drop6 = nn.Dropout(0.5)
        self.fc7 = nn.Linear(4096, 4096)
        self.drop7 = nn.Dropout(0.5)
        self.fc8 = nn.Linear(4096, classes)
        for name, layer in self.named_children():
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                nn.init.normal_(layer.weight, std=0.005 if name in ("fc6", "fc7") else 0.01)
                nn.init.constant_(layer.bias, 0.0 if name in ("conv1", "conv3", "fc8") else 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the softmax."""
        x = F.max_pool2d(_normalised(F.relu(self.conv1(x))), 3, 2)  # (batch, 96, 27, 27)
        x = F.max_pool2d(_normalised(F.relu(self.conv2(x))), 3, 2)  # (batch, 256, 13, 13)
        x = F.relu(self.conv3(x))  # (batch, 384, 13, 13)
        x = F.relu(self.conv4(x))  # (batch, 384, 13, 13)
        x = F.max_pool2d(F.relu(self.conv5(x)), 3, 2)  # (batch, 256, 6, 6)
        x = self.drop6(F.relu(self.fc6(x.flatten(1))))  # (batch, 4096)
        x = self.drop7(F.relu(self.fc7(x)))  # (batch, 4096)
        return self.fc8(x)


class AlexNet(nn.Module):
    """AlexNet with torchvision's layers and names, so that its checkpoints load.

    (batch, 3, 224, 224) -> (batch, classes); 61,100,840 parameters with 1,000 classes. No groups and no
    response normalisation, after Krizhevsky's "One weird trick" (2014).

    >>> with torch.device("meta"):
    ...     y = AlexNet()(torch.zeros(1, 3, 224, 224))
    >>> y.shape
    torch.Size([1, 1000])
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),  # (batch, 64, 27, 27)
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),  # (batch, 192, 13, 13)
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),  # (batch, 256, 6, 6)
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d((6, 6))
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
            nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the softmax."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class AlexNetCifar(nn.Module):
    """Caffe's `cifar10_quick`: three 5x5 convolutions with overlapping pools, two linear layers.

    (batch, 3, 32, 32) -> (batch, classes); 145,376 weights with 10 classes. As in Caffe the first ReLU comes after
    its pool, there is none between fc1 and fc2, and pools round sizes up. Initial weights are torch's own: Caffe's
    are for pixels of 0 to 255.

    >>> AlexNetCifar()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2)
        self.conv3 = nn.Conv2d(32, 64, 5, padding=2)
        self.fc1 = nn.Linear(64 * 4 * 4, 64)
        self.fc2 = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the softmax."""
        x = F.relu(F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True))  # (batch, 32, 16, 16)
        x = F.avg_pool2d(F.relu(self.conv2(x)), 3, 2, ceil_mode=True)  # (batch, 32, 8, 8)
        x = F.avg_pool2d(F.relu(self.conv3(x)), 3, 2, ceil_mode=True)  # (batch, 64, 4, 4)
        return self.fc2(self.fc1(x.flatten(1)))


def _normalised(x: Tensor) -> Tensor:
    return F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)  # as in Caffe, alpha is shared by the 5
