"""Reagen et al.: Minerva: Enabling Low-Power, Highly-Accurate Deep Neural Network Accelerators, ISCA 2016."""

from functools import partial

from zeroskip.papers.common.paper import Paper, later
from zeroskip.papers.minerva.published import MEAN, NAME, TABLE1, TITLE

measure_network = later("zeroskip.papers.minerva.train", "measure_network")
measure_mean = later("zeroskip.papers.minerva.train", "measure_mean")
PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=(*TABLE1, MEAN),
    analytic=later("zeroskip.papers.minerva.rows", "analytic"),
    measured_rows=later("zeroskip.papers.minerva.rows", "measured_rows"),
    unmeasurable=later("zeroskip.papers.minerva.rows", "unmeasurable"),
    measure={**{network: partial(measure_network, network) for network in TABLE1}, MEAN: measure_mean},
)
