"""Chen, Yang, Emer, Sze: Eyeriss v2, JETCAS 2019: cycles of one element, as counted by Sparseloop's baseline."""

from zeroskip.papers.common.paper import Paper, later
from zeroskip.papers.eyeriss_v2.published import ELEMENT, NAME, TITLE

# Its shares of zeros alone would not give its cycles, so no row is analytic.
PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=(ELEMENT,),
    measured_rows=later("zeroskip.papers.eyeriss_v2.rows", "measured_rows"),
    measure={ELEMENT: later("zeroskip.papers.eyeriss_v2.measure", "measure_element")},
)
