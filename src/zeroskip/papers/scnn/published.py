"""Parashar et al.: SCNN: An Accelerator for Compressed-sparse Convolutional Neural Networks, ISCA 2017."""

NAME = "scnn"
TITLE = "SCNN (Parashar et al., ISCA 2017, arXiv 1708.04485)"

# Times faster than the dense twin DCNN, network by network.
SPEEDUPS = {"alexnet": "2.37", "vgg16": "3.52"}
GOOGLENET = "2.19"
# GoogLeNet's inception modules with one share of non-zeros in all weights and inputs: times faster than DCNN.
UNIFORM = {"1.0": "0.79", "0.1": "24"}
EVEN, EVEN_ENERGY = "0.85", "0.83"  # the shares at which both take as long, and as much; read off a figure
# Times faster, and times less energy, than skipping these zeros alone, at a share of 0.4.
ONE_SIDED = {"weights": "1.7", "inputs": "2.6"}
ONE_SIDED_ENERGY = {"weights": "1.6", "inputs": "2.1"}
BUSY = "20"  # percent of the multipliers, at most, in the last two modules, 5a and 5b
FEW_LANES = "1.11"  # times faster than 4 elements of 256 multipliers
ENERGY = "2.3"  # times less than DCNN, mean of the three networks
UNIFORM_ENERGY = {"1.0": "133", "0.1": "6"}  # percent of DCNN's energy
TOO_LARGE = "9"  # layers whose maps do not fit the chip, of the 72 of the three networks; all are VGG-16's
SPILLED = "18"  # percent more energy for these layers, mean

# name, pixels of a side, channels in, then out: 1x1; before 3x3; 3x3; before 5x5; 5x5; after the pool
# (Szegedy et al., CVPR 2015, table 1)
INCEPTION = (
    ("3a", 28, 192, 64, 96, 128, 16, 32, 32),
    ("3b", 28, 256, 128, 128, 192, 32, 96, 64),
    ("4a", 14, 480, 192, 96, 208, 16, 48, 64),
    ("4b", 14, 512, 160, 112, 224, 24, 64, 64),
    ("4c", 14, 512, 128, 128, 256, 24, 64, 64),
    ("4d", 14, 512, 112, 144, 288, 32, 64, 64),
    ("4e", 14, 528, 256, 160, 320, 32, 128, 128),
    ("5a", 7, 832, 256, 160, 320, 32, 128, 128),
    ("5b", 7, 832, 384, 192, 384, 48, 128, 128),
)
