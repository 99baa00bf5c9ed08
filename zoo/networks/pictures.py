"""Networks that read pictures."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from zoo.network import Network


def picture(batch: int, size: int, generator: Generator) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=generator)


def timm_model(name: str, **options: object) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, **options)


def torchvision_model(name: str, **options: object) -> nn.Module:
    import torchvision.models

    return getattr(torchvision.models, name)(weights=None, **options)


def resnet20() -> nn.Module:
    from pytorchcv.model_provider import get_model

    return get_model("resnet20_cifar10", pretrained=False)


def u_net() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet18", encoder_weights=None, classes=4)


def deeplab() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes=4)


def yolo() -> nn.Module:
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel("yolov8n.yaml", verbose=False)


def u_net_3d() -> nn.Module:
    from monai.networks.nets import UNet

    widths, strides = (16, 32, 64, 128), (2, 2, 2)
    return UNet(3, in_channels=1, out_channels=2, channels=widths, strides=strides, num_res_units=2)


def volume(batch: int, size: int, generator: Generator) -> Tensor:
    return torch.randn(batch, 1, size, size, size, generator=generator)


def generator_of_pictures() -> nn.Module:
    from monai.networks.nets import Generator as Dcgan

    return Dcgan(latent_shape=(64,), start_shape=(128, 4, 4), channels=(128, 64, 32, 3), strides=(2, 2, 2, 1))


def latent(batch: int, size: int, generator: Generator) -> Tensor:
    return torch.randn(batch, size, generator=generator)


def raft() -> nn.Module:
    from torchvision.models.optical_flow import raft_small

    model = raft_small(weights=None)
    # Its context encoder has no norms: with random weights, numbers grow to a million and saturate what follows.
    for weight in model.context_encoder.parameters():
        weight.data.mul_(0.3)
    return model


def two_pictures(batch: int, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    return picture(batch, size, generator), picture(batch, size, generator)


def diffusion() -> nn.Module:
    from diffusers import UNet2DModel

    down, up = ("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")
    widths = (64, 128)
    return UNet2DModel(
        in_channels=3, out_channels=3, block_out_channels=widths, down_block_types=down, up_block_types=up
    )


def noisy_picture(batch: int, size: int, generator: Generator) -> dict[str, Tensor]:
    steps = torch.randint(0, 1000, (batch,), generator=generator)
    return {"sample": picture(batch, size, generator), "timestep": steps}


def text_to_picture() -> nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        block_out_channels=(64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
    )


def noise_and_text(batch: int, size: int, generator: Generator) -> dict[str, Tensor]:
    return {
        "sample": torch.randn(batch, 4, size, size, generator=generator),
        "timestep": torch.randint(0, 1000, (batch,), generator=generator),
        "encoder_hidden_states": torch.randn(batch, 16, 64, generator=generator),
    }


FIXED = "the network takes pictures of one size"
NETWORKS = (
    Network("ResNet-18", "timm", lambda: timm_model("resnet18"), picture, (224, 160)),
    Network("ResNet-20 (CIFAR)", "pytorchcv", resnet20, picture, (32, 32), fixed=FIXED),
    Network("ResNeXt-50", "timm", lambda: timm_model("resnext50_32x4d"), picture, (224, 160)),
    Network("DenseNet-121", "timm", lambda: timm_model("densenet121"), picture, (224, 160)),
    Network("SqueezeNet 1.1", "torchvision", lambda: torchvision_model("squeezenet1_1"), picture, (224, 160)),
    Network(
        "ShuffleNet-v2", "torchvision", lambda: torchvision_model("shufflenet_v2_x1_0"), picture, (224, 160)
    ),
    Network("MobileNet-v2", "timm", lambda: timm_model("mobilenetv2_100"), picture, (224, 160)),
    Network("MobileNet-v3-large", "timm", lambda: timm_model("mobilenetv3_large_100"), picture, (224, 160)),
    Network("EfficientNet-B0", "timm", lambda: timm_model("efficientnet_b0"), picture, (224, 160)),
    Network("GhostNet", "timm", lambda: timm_model("ghostnet_100"), picture, (224, 160)),
    Network("ConvNeXt-atto", "timm", lambda: timm_model("convnext_atto"), picture, (224, 160)),
    Network(
        "ViT tiny",
        "timm",
        lambda: timm_model("vit_tiny_patch16_224", dynamic_img_size=True),
        picture,
        (224, 160),
        sparsity=0.8,
    ),
    Network(
        "Swin, narrow",
        "timm",
        lambda: timm_model("swin_tiny_patch4_window7_224", embed_dim=48, depths=(2, 2, 2, 2)),
        picture,
        (224, 224),
        sparsity=0.8,
        fixed=FIXED,
    ),
    Network("YOLOv8n", "ultralytics", yolo, picture, (320, 256)),
    Network("U-Net (ResNet-18)", "segmentation_models_pytorch", u_net, picture, (224, 160)),
    Network("DeepLab-v3+ (MobileNet-v2)", "segmentation_models_pytorch", deeplab, picture, (224, 160)),
    Network("3-D U-Net", "monai", u_net_3d, volume, (32, 48)),
    Network("GAN generator", "monai", generator_of_pictures, latent, (64, 64), fixed="its input is a vector"),
    Network("RAFT (small)", "torchvision", raft, two_pictures, (128, 160)),
    Network("diffusion U-Net", "diffusers", diffusion, noisy_picture, (32, 48)),
    Network("diffusion U-Net with text", "diffusers", text_to_picture, noise_and_text, (32, 48)),
)
