"""Zhou et al.: Cambricon-S: Addressing Irregularity in Sparse Neural Networks, MICRO 2018."""

NAME = "cambricon-s"
TITLE = "Cambricon-S (Zhou et al., MICRO 2018)"

SPEEDUP, ENERGY = "1.71", "1.37"  # over Cambricon-X, means of its networks
IRREGULARITY = "20.13"  # times less
# What tells where AlexNet's weights are: one by one, in blocks, and times less. That ratio is the one of 2.95 x 2^20 to
# 29.38 x 2^10, so megabytes and kilobytes are powers of two.
INDEX, INDEX_BLOCKS, INDEX_RATIO = "2.95", "29.4", "102.8"
BLOCK = 16  # filters of a convolution that share their zeros
# Weights of a block in AlexNet's fully connected layers.
LINEAR_BLOCKS = {"fc6": 32 * 32, "fc7": 32 * 32, "fc8": 16 * 16}
