"""Zhou et al.: Cambricon-S: Addressing Irregularity in Sparse Neural Networks, MICRO 2018."""

from zeroskip.papers.cambricon_s.published import NAME, TITLE
from zeroskip.papers.common.paper import Paper, later

PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=("alexnet",),
    analytic=later("zeroskip.papers.cambricon_s.rows", "analytic"),
    unmeasurable=later("zeroskip.papers.cambricon_s.rows", "unmeasurable"),
)
