"""Gondimalla et al.: SparTen: A Sparse Tensor Accelerator for Convolutional Neural Networks, MICRO 2019."""

from functools import partial

from zeroskip.papers.common.paper import Paper, later
from zeroskip.papers.sparten.published import NAME, REAL, TITLE

measure_network = later("zeroskip.papers.sparten.measure", "measure_network")
PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=("alexnet", "vgg16", *REAL),
    analytic=later("zeroskip.papers.sparten.rows", "analytic"),
    measured_rows=later("zeroskip.papers.sparten.rows", "measured_rows"),
    measure={network: partial(measure_network, network) for network in REAL},
)
