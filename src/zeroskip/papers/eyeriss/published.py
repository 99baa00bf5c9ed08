"""Chen, Krishna, Emer, Sze: Eyeriss, JSSC 52(1), 2017: its code, its traffic to DRAM, its latencies."""

from __future__ import annotations

from dataclasses import dataclass

NAME = "eyeriss"
TITLE = "Eyeriss (Chen, Krishna, Emer, Sze, JSSC 2017, doi 10.1109/JSSC.2016.2616357)"


# Networks of ours on whose maps the code is measured, as tables call them.
MEASURED = {"lenet-5": "LeNet-5", "resnet20": "ResNet-20", "squeezenet": "SqueezeNet"}
CODEC_TABLES = (
    "Run-length code",
    "DRAM traffic: AlexNet",
    "DRAM traffic: VGG-16",
    "Run-length code on real maps",
)
"""What the titles of all tables about the code begin with."""


@dataclass(frozen=True)
class EyerissLayer:
    """One convolution of AlexNet on the chip. Sizes are of one side, in pixels; the input's includes its padding.

    filters_held, rows_held   of table III (m, e): filters, and output rows, that the chip works on at a time
    images_held               of table III (n): images that share a filter once it is read
    zeros                     of table V, of the input, in %
    zeros_written             of the output before any pooling, in %: where none follows, the next layer's `zeros`;
                              else by the densities that come with Sparseloop (Wu et al., MICRO 2022)
    dram, ratio               of table V in MB, and of figure 9: times less traffic with the code
    buffer                    of table V: MB to and from the global buffer
    """

    name: str
    channels: int
    size: int
    filters: int
    window: int
    stride: int
    groups: int
    output: int
    filters_held: int
    images_held: int
    rows_held: int
    zeros: str
    zeros_written: str
    dram: str
    ratio: str
    buffer: str


ALEXNET_IMAGES = 4
ALEXNET = (
    EyerissLayer("CONV1", 3, 227, 96, 11, 4, 1, 55, 96, 1, 7, "0.01", "62.2", "5.0", "1.2", "18.5"),
    EyerissLayer("CONV2", 96, 31, 256, 5, 1, 2, 27, 64, 1, 27, "38.7", "83.1", "4.0", "1.4", "77.6"),
    EyerissLayer("CONV3", 256, 15, 384, 3, 1, 1, 13, 64, 4, 13, "72.5", "79.3", "3.0", "1.7", "50.2"),
    EyerissLayer("CONV4", 384, 15, 384, 3, 1, 2, 13, 64, 4, 13, "79.3", "77.6", "2.1", "1.8", "37.4"),
    EyerissLayer("CONV5", 384, 15, 256, 3, 1, 2, 13, 64, 4, 13, "77.6", "90.0", "1.3", "1.9", "24.9"),
)

# Table VI: megabytes between VGG-16's convolutions and DRAM.
VGG16_DRAM = (
    "15.4", "54.0", "33.4", "48.5", "20.2", "32.2", "30.8", "17.8", "28.6", "22.8", "6.3", "5.7", "5.6"
)  # fmt: skip


@dataclass(frozen=True)
class TrafficTotals:
    """What the text says of a network's convolutions: megabytes, accesses of 16 bits per MAC and per input pixel.

    macs  in billions;  pixels  values of one input picture's plane
    """

    images: int
    dram: str
    macs: float
    pixels: int
    per_mac: str
    per_pixel: str


TOTALS = {
    "alexnet": TrafficTotals(ALEXNET_IMAGES, "15.4", 2.66, 227 * 227, "0.0029", "37.4"),
    "vgg16": TrafficTotals(3, "321.1", 46.04, 224 * 224, "0.0035", "1066.6"),
}

# The text: "nearly" so many percent of the accesses to feature maps are saved.
MAPS_SAVED = {"CONV1": "30", "CONV5": "75"}
# Table V against table V times figure 9: 15.4 MB instead of 22.95.
SAVED = "32.9"
# The code needs so many percent more than the entropy limit.
ABOVE_ENTROPY = (5, 10)

# Tables V and VI: milliseconds at work on ALEXNET_IMAGES and VGG16_IMAGES pictures, without waiting for DRAM.
LATENCIES = ("16.5", "39.2", "21.8", "16.0", "10.0")
# Elements at work of 168; VGG-16's are handed down.
ACTIVE = ("154", "135", "156", "156", "156")
VGG16_IMAGES = 3


@dataclass(frozen=True)
class ChipLayer:
    """One convolution of VGG-16 on the chip: zeros in its input in %, milliseconds at work, elements at work."""

    name: str
    zeros: str
    latency: str
    active: str


VGG16_CHIP = (
    ChipLayer("CONV1-1", "1.6", "38.0", "156"),
    ChipLayer("CONV1-2", "47.7", "810.6", "156"),
    ChipLayer("CONV2-1", "24.8", "405.3", "156"),
    ChipLayer("CONV2-2", "38.7", "810.8", "156"),
    ChipLayer("CONV3-1", "39.7", "204.0", "156"),
    ChipLayer("CONV3-2", "58.1", "408.1", "156"),
    ChipLayer("CONV3-3", "58.7", "408.1", "156"),
    ChipLayer("CONV4-1", "64.3", "105.1", "168"),
    ChipLayer("CONV4-2", "74.7", "210.0", "168"),
    ChipLayer("CONV4-3", "85.4", "210.0", "168"),
    ChipLayer("CONV5-1", "79.4", "48.3", "168"),
    ChipLayer("CONV5-2", "87.4", "48.5", "168"),
    ChipLayer("CONV5-3", "88.5", "48.5", "168"),
)
# Zeros in the inputs of the convolutions in %, tables V and VI.
ZEROS = {
    "alexnet": tuple(layer.zeros for layer in ALEXNET),
    "vgg16": tuple(layer.zeros for layer in VGG16_CHIP),
}
LATENCY_TOTALS = {"alexnet": "103.5", "vgg16": "3755.2"}
# The text: percent of the power of the elements saved by gating, AlexNet; percent less traffic to DRAM in all.
GATED = "45"
