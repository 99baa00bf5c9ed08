"""Han et al.: EIE: Efficient Inference Engine on Compressed Deep Neural Network, ISCA 2016."""

from zeroskip.papers.common.paper import Paper, later
from zeroskip.papers.eie.published import FC8, NAME, TITLE

PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=(FC8, "alexnet", "vgg16"),
    analytic=later("zeroskip.papers.eie.rows", "analytic"),
    measured_rows=later("zeroskip.papers.eie.rows", "measured_rows"),
    measure={FC8: later("zeroskip.papers.eie.measure", "measure_fc8")},
)
