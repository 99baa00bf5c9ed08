"""Han, Mao, Dally: Deep Compression, ICLR 2016."""

from __future__ import annotations

from dataclasses import dataclass

NAME = "deep-compression"
FC_LAYERS = "fc-layers"  # of table 8, among the networks
TITLE = "Deep Compression (Han, Mao, Dally, ICLR 2016, arXiv 1510.00149)"


@dataclass(frozen=True)
class CodedSizes:
    """Table 1 of one network: error in % before and after (top-1; top-5), size before and after, times smaller.

    unit  bytes that one of the printed size's units is worth
    """

    error: str
    error_after: str
    top5: str
    top5_after: str
    size: str
    size_after: str
    unit: float
    rate: str


TABLE1 = {
    "lenet-300-100": CodedSizes("1.64", "1.58", "", "", "1070", "27", 1e3, "40"),
    "lenet-5": CodedSizes("0.80", "0.74", "", "", "1720", "44", 1e3, "39"),
    "alexnet": CodedSizes("42.78", "42.78", "19.73", "19.70", "240", "6.9", 1e6, "35"),
    "vgg16": CodedSizes("31.50", "31.17", "11.32", "10.91", "552", "11.3", 1e6, "49"),
}


@dataclass(frozen=True)
class CodedLayer:
    """One row of tables 2 to 5. Shares in %, of the layer's 32-bit weights.

    kept                         weights left after pruning (P)
    bits, bits_huffman           of a weight's code after sharing (P+Q), and on average after Huffman (P+Q+H)
    index, index_huffman         of a position, likewise
    stored, stored_huffman       size after P+Q, and after P+Q+H
    """

    name: str
    weights: str
    kept: str
    bits: str
    bits_huffman: str
    index: str
    index_huffman: str
    stored: str
    stored_huffman: str


LAYERS = {
    "lenet-300-100": (
        CodedLayer("ip1", "235K", "8", "6", "4.4", "5", "3.7", "3.1", "2.32"),
        CodedLayer("ip2", "30K", "9", "6", "4.4", "5", "4.3", "3.8", "3.04"),
        CodedLayer("ip3", "1K", "26", "6", "4.3", "5", "3.2", "15.7", "12.70"),
    ),
    "lenet-5": (
        CodedLayer("conv1", "0.5K", "66", "8", "7.2", "5", "1.5", "78.5", "67.45"),
        CodedLayer("conv2", "25K", "12", "8", "7.2", "5", "3.9", "6.0", "5.28"),
        CodedLayer("ip1", "400K", "8", "5", "4.5", "5", "4.5", "2.7", "2.45"),
        CodedLayer("ip2", "5K", "19", "5", "5.2", "5", "3.7", "6.9", "6.13"),
    ),
    "alexnet": (
        CodedLayer("conv1", "35K", "84", "8", "6.3", "4", "1.2", "32.6", "20.53"),
        CodedLayer("conv2", "307K", "38", "8", "5.5", "4", "2.3", "14.5", "9.43"),
        CodedLayer("conv3", "885K", "35", "8", "5.1", "4", "2.6", "13.1", "8.44"),
        CodedLayer("conv4", "663K", "37", "8", "5.2", "4", "2.5", "14.1", "9.11"),
        CodedLayer("conv5", "442K", "37", "8", "5.6", "4", "2.5", "14.0", "9.43"),
        CodedLayer("fc6", "38M", "9", "5", "3.9", "4", "3.2", "3.0", "2.39"),
        CodedLayer("fc7", "17M", "9", "5", "3.6", "4", "3.7", "3.0", "2.46"),
        CodedLayer("fc8", "4M", "25", "5", "4", "4", "3.2", "7.3", "5.85"),
    ),
    "vgg16": (
        CodedLayer("conv1_1", "2K", "58", "8", "6.8", "5", "1.7", "40.0", "29.97"),
        CodedLayer("conv1_2", "37K", "22", "8", "6.5", "5", "2.6", "9.8", "6.99"),
        CodedLayer("conv2_1", "74K", "34", "8", "5.6", "5", "2.4", "14.3", "8.91"),
        CodedLayer("conv2_2", "148K", "36", "8", "5.9", "5", "2.3", "14.7", "9.31"),
        CodedLayer("conv3_1", "295K", "53", "8", "4.8", "5", "1.8", "21.7", "11.15"),
        CodedLayer("conv3_2", "590K", "24", "8", "4.6", "5", "2.9", "9.7", "5.67"),
        CodedLayer("conv3_3", "590K", "42", "8", "4.6", "5", "2.2", "17.0", "8.96"),
        CodedLayer("conv4_1", "1M", "32", "8", "4.6", "5", "2.6", "13.1", "7.29"),
        CodedLayer("conv4_2", "2M", "27", "8", "4.2", "5", "2.9", "10.9", "5.93"),
        CodedLayer("conv4_3", "2M", "34", "8", "4.4", "5", "2.5", "14.0", "7.47"),
        CodedLayer("conv5_1", "2M", "35", "8", "4.7", "5", "2.5", "14.3", "8.00"),
        CodedLayer("conv5_2", "2M", "29", "8", "4.6", "5", "2.7", "11.7", "6.52"),
        CodedLayer("conv5_3", "2M", "36", "8", "4.6", "5", "2.3", "14.8", "7.79"),
        CodedLayer("fc6", "103M", "4", "5", "3.6", "5", "3.5", "1.6", "1.10"),
        CodedLayer("fc7", "17M", "4", "5", "4", "5", "4.3", "1.5", "1.25"),
        CodedLayer("fc8", "4M", "23", "5", "4", "5", "3.4", "7.1", "5.24"),
    ),
}

TOTALS = {
    "lenet-300-100": CodedLayer("total", "266K", "8", "6", "5.1", "5", "3.7", "3.1", "2.49"),
    "lenet-5": CodedLayer("total", "431K", "8", "5.3", "4.1", "5", "4.4", "3.05", "2.55"),
    "alexnet": CodedLayer("total", "61M", "11", "5.4", "4", "4", "3.2", "3.7", "2.88"),
    "vgg16": CodedLayer("total", "138M", "7.5", "6.4", "4.1", "5", "3.1", "3.2", "2.05"),
}

# Times smaller after P+Q and after P+Q+H, from the total rows.
_RATES = ("32", "40"), ("33", "39"), ("27", "35"), ("31", "49")
RATES = dict(zip(LAYERS, _RATES, strict=True))

# Bits of a position in conv layers as the text has them; tables 2 to 5 say otherwise.
TEXT_INDEX = "8"

# Table 6, AlexNet: bits of a conv and an fc weight, rise of the top-1 and top-5 error in points.
TABLE6 = (("8/5", "0.00", "-0.03"), ("8/4", "0.01", "0.00"), ("4/2", "1.99", "2.60"))

# Table 7, AlexNet in MB by other methods, and by the paper's own stages with times smaller.
TABLE7_OTHERS = (("Fastfood-32", "131"), ("Fastfood-16", "64"), ("Collins & Kohli", "61"), ("SVD", "47.6"))
STAGES = ("pruning", "pruning, sharing", "pruning, sharing, Huffman")
TABLE7 = tuple(zip(STAGES, ("27", "8.9", "6.9"), ("9", "27", "35"), strict=True))

# Table 8: microseconds of the fc layers, (machine, batch) -> layer -> (dense, sparse).
TABLE8_LAYERS = ("AlexNet fc6", "AlexNet fc7", "AlexNet fc8", "VGG-16 fc6", "VGG-16 fc7", "VGG-16 fc8")
TABLE8 = {
    ("i7-5930K", 1): (
        (7516.2, 6187.1, 1134.9, 35022.8, 5372.8, 774.2),
        (3066.5, 1282.1, 890.5, 3774.3, 545.1, 777.3),
    ),
    ("i7-5930K", 64): (
        (318.4, 188.9, 45.8, 1056.0, 188.3, 45.7),
        (1417.6, 682.1, 407.7, 1780.3, 274.9, 363.1),
    ),
    ("Titan X", 1): ((541.5, 243.0, 80.5, 1467.8, 243.0, 80.5), (134.8, 65.8, 54.6, 167.0, 39.8, 48.0)),
    ("Titan X", 64): ((19.8, 8.9, 5.9, 53.6, 8.9, 5.9), (94.6, 51.5, 23.2, 121.5, 24.4, 22.0)),
    ("Tegra K1", 1): (
        (12437.2, 5765.0, 2252.1, 35427.0, 5544.3, 2243.1),
        (2879.3, 1256.5, 837.0, 4377.2, 626.3, 745.1),
    ),
    ("Tegra K1", 64): (
        (1663.6, 2056.8, 298.0, 2001.4, 2050.7, 483.9),
        (4003.9, 1372.8, 576.7, 8024.8, 660.2, 544.1),
    ),
}
# Dense time over sparse time, per layer in the order above, on the CPU by batch.
TABLE8_CPU = {
    1: ("2.45", "4.83", "1.27", "9.28", "9.86", "1.00"),
    64: ("0.22", "0.28", "0.11", "0.59", "0.68", "0.13"),
}
# Geometric means of batch 1 over the six layers, and the text's headline.
TABLE8_MEANS = {"i7-5930K": "3.33", "Titan X": "3.54"}
TABLE8_TEXT = {"i7-5930K": "3", "Titan X": "3.5", "Tegra K1": "4.2"}
