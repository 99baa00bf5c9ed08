"""Shi, Chu: speeding up convolution by the zeros that rectifiers leave, 2017."""

from zeroskip.papers.common.paper import Paper, later
from zeroskip.papers.shi2017.published import NAME, NETWORK, TITLE

# Without a clock there is nothing to say, so no row is analytic.
PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=(NETWORK,),
    measured_rows=later("zeroskip.papers.shi2017.rows", "measured_rows"),
    measure={NETWORK: later("zeroskip.papers.shi2017.measure", "measure_layers")},
)
