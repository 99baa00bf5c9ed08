"""Albericio et al.: Cnvlutin: Ineffectual-Neuron-Free Deep Neural Network Computing, ISCA 2016."""

from zeroskip.papers.cnvlutin.published import NAME, TITLE
from zeroskip.papers.common.paper import Paper, later

PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=("alexnet", "vgg16"),
    analytic=later("zeroskip.papers.cnvlutin.rows", "analytic"),
)
