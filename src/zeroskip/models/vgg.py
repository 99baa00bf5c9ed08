"""VGG-16 (Simonyan and Zisserman 2015, configuration D) with torchvision's names."""

from __future__ import annotations

from torch import Tensor, nn

from zeroskip.models.resnet import he_

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Output channels of the 3x3 convolutions; a pool ends each block."""


class VGG16(nn.Module):
    """Thirteen convolutions and three linear layers, named as torchvision's, so that its checkpoints load.

    (batch, 3, 224, 224) -> (batch, classes). With 1,000 classes it has 138,344,128 weights (Han et al. 2015,
    table 5). Convolutions start as He et al. 2015 have it: without batch norm a smaller start does not train.

    >>> with torch.device("meta"):
    ...     y = VGG16()(torch.zeros(1, 3, 224, 224))
    >>> y.shape
    torch.Size([1, 1000])
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = _features()
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout(),
            nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(),
            nn.Linear(4096, classes),
        )  # fmt: skip
        self.apply(start_)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores before the softmax."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def _features() -> nn.Sequential:
    steps: list[nn.Module] = []
    channels = 3
    for block in BLOCKS:
        for wider in block:
            steps += [nn.Conv2d(channels, wider, 3, padding=1), nn.ReLU()]
            channels = wider
        steps.append(nn.MaxPool2d(2))
    return nn.Sequential(*steps)


def start_(module: nn.Module) -> None:
    """Start convolutions as He et al. 2015 have it, linear layers small, biases at 0. For `model.apply`."""
    he_(module)
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
