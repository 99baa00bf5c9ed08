"""Han, Pool, Tran, Dally: Learning both Weights and Connections for Efficient Neural Networks, NIPS 2015."""

from __future__ import annotations

from dataclasses import dataclass

NAME = "han2015"
TITLE = "Learning both Weights and Connections (Han et al. 2015, arXiv 1506.02626)"


@dataclass(frozen=True)
class PrintedErrors:
    """Table 1 of one network: top-1 (and top-5) error in %, parameters, times fewer. "" where not given."""

    error: str
    error_pruned: str
    top5: str
    top5_pruned: str
    parameters: str
    parameters_pruned: str
    rate: str


TABLE1 = {
    "lenet-300-100": PrintedErrors("1.64", "1.59", "", "", "267K", "22K", "12"),
    "lenet-5": PrintedErrors("0.80", "0.77", "", "", "431K", "36K", "12"),
    "alexnet": PrintedErrors("42.78", "42.77", "19.73", "19.67", "61M", "6.7M", "9"),
    "vgg16": PrintedErrors("31.50", "31.34", "11.32", "10.88", "138M", "10.3M", "13"),
}


@dataclass(frozen=True)
class HanLayer:
    """One row of tables 2 to 5: weights, FLOP (2 per multiply-accumulate), and shares in %.

    output  activations that are not zero, after ReLU and pooling
    kept    weights left;  work  FLOP left
    """

    name: str
    weights: str
    flop: str
    output: str
    kept: str
    work: str


LAYERS = {
    "lenet-300-100": (
        HanLayer("fc1", "235K", "470K", "38", "8", "8"),
        HanLayer("fc2", "30K", "60K", "65", "9", "4"),
        HanLayer("fc3", "1K", "2K", "100", "26", "17"),
    ),
    "lenet-5": (
        HanLayer("conv1", "0.5K", "576K", "82", "66", "66"),
        HanLayer("conv2", "25K", "3200K", "72", "12", "10"),
        HanLayer("fc1", "400K", "800K", "55", "8", "6"),
        HanLayer("fc2", "5K", "10K", "100", "19", "10"),
    ),
    "alexnet": (
        HanLayer("conv1", "35K", "211M", "88", "84", "84"),
        HanLayer("conv2", "307K", "448M", "52", "38", "33"),
        HanLayer("conv3", "885K", "299M", "37", "35", "18"),
        HanLayer("conv4", "663K", "224M", "40", "37", "14"),
        HanLayer("conv5", "442K", "150M", "34", "37", "14"),
        HanLayer("fc1", "38M", "75M", "36", "9", "3"),
        HanLayer("fc2", "17M", "34M", "40", "9", "3"),
        HanLayer("fc3", "4M", "8M", "100", "25", "10"),
    ),
    "vgg16": (
        HanLayer("conv1_1", "2K", "0.2B", "53", "58", "58"),
        HanLayer("conv1_2", "37K", "3.7B", "89", "22", "12"),
        HanLayer("conv2_1", "74K", "1.8B", "80", "34", "30"),
        HanLayer("conv2_2", "148K", "3.7B", "81", "36", "29"),
        HanLayer("conv3_1", "295K", "1.8B", "68", "53", "43"),
        HanLayer("conv3_2", "590K", "3.7B", "70", "24", "16"),
        HanLayer("conv3_3", "590K", "3.7B", "64", "42", "29"),
        HanLayer("conv4_1", "1M", "1.8B", "51", "32", "21"),
        HanLayer("conv4_2", "2M", "3.7B", "45", "27", "14"),
        HanLayer("conv4_3", "2M", "3.7B", "34", "34", "15"),
        HanLayer("conv5_1", "2M", "925M", "32", "35", "12"),
        HanLayer("conv5_2", "2M", "925M", "29", "29", "9"),
        HanLayer("conv5_3", "2M", "925M", "19", "36", "11"),
        HanLayer("fc6", "103M", "206M", "38", "4", "1"),
        HanLayer("fc7", "17M", "34M", "42", "4", "2"),
        HanLayer("fc8", "4M", "8M", "100", "23", "9"),
    ),
}

TOTALS = {
    "lenet-300-100": HanLayer("total", "266K", "532K", "46", "8", "8"),
    "lenet-5": HanLayer("total", "431K", "4586K", "77", "8", "16"),
    "alexnet": HanLayer("total", "61M", "1.5B", "54", "11", "30"),
    "vgg16": HanLayer("total", "138M", "30.9B", "64", "7.5", "21"),
}

# Often quoted from this paper: the W% column weighted by the exact layer sizes.
ZEROS = {"alexnet": "88.85", "vgg16": "92.39"}
KEPT = {"alexnet": "6,796,192", "vgg16": "10,532,391"}
SIZES = {"alexnet": "60,954,656", "vgg16": "138,344,128"}

# Table 6, AlexNet by other methods: parameters, times fewer, top-1 and top-5 error in %.
TABLE6 = (
    ("data-free pruning", "39.6M", "1.5", "44.40", ""),
    ("Fastfood-32-AD", "32.8M", "2", "41.93", ""),
    ("Fastfood-16-AD", "16.4M", "3.7", "42.90", ""),
    ("Collins & Kohli", "15.2M", "4", "44.40", ""),
    ("naive cut", "13.8M", "4.4", "47.18", "23.23"),
    ("SVD", "11.9M", "5", "44.02", "20.56"),
    ("pruning", "6.7M", "9", "42.77", "19.67"),
)

# Energy of one 32-bit operation in 45 nm CMOS: picojoules, and times an integer addition.
ENERGY = (
    ("int ADD", "0.1", "1"),
    ("float ADD", "0.9", "9"),
    ("register file", "1", "10"),
    ("int MULT", "3.1", "31"),
    ("float MULT", "3.7", "37"),
    ("SRAM cache", "5", "50"),
    ("DRAM", "640", "6400"),
)
