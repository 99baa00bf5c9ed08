"""EfficientNet-B0 (Tan and Le 2019): blocks of MobileNet with squeeze and excite, found by search."""

from __future__ import annotations

from torch import nn

from zeroskip.models.mobile_blocks import BlockShape, MBConv, SqueezeExcitation, conv_norm, with_classifier

STAGES = (
    *((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3)),
    *((6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)),
)
"""Table 1: expansion, kernel, stride of the first block, channels, number of blocks."""


def efficientnet_b0(*, classes: int = 1000) -> nn.Sequential:
    """EfficientNet-B0 with torchvision's names, so that its checkpoints load.

    (batch, 3, 224, 224) -> (batch, classes); 5,288,548 parameters with 1,000 classes. No block is left out at random
    while it trains (stochastic depth), as the paper does; the answers of a trained network do not depend on that.

    >>> efficientnet_b0()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 1000])
    """
    features: list[nn.Module] = [conv_norm(3, 32, 3, nn.SiLU(), stride=2)]
    channels = 32
    for expansion, kernel, first, out, blocks in STAGES:
        stage = []
        for number in range(blocks):
            wide, stride = expansion * channels, 1 if number else first
            squeeze = SqueezeExcitation(wide, channels // 4, nn.SiLU(), nn.Sigmoid())
            stage.append(MBConv(channels, BlockShape(wide, kernel, stride, out), nn.SiLU, squeeze))
            channels = out
        features.append(nn.Sequential(*stage))
    features.append(conv_norm(channels, 1280, 1, nn.SiLU()))
    return with_classifier(features, nn.Dropout(0.2), nn.Linear(1280, classes))
