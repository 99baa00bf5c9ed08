"""Parashar et al.: SCNN: An Accelerator for Compressed-sparse Convolutional Neural Networks, ISCA 2017."""

from zeroskip.papers.common.paper import Paper, later
from zeroskip.papers.scnn.published import NAME, TITLE

PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=("alexnet", "vgg16"),
    analytic=later("zeroskip.papers.scnn.rows", "analytic"),
    unmeasurable=later("zeroskip.papers.scnn.rows", "unmeasurable"),
)
