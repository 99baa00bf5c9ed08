"""Chen, Krishna, Emer, Sze: Eyeriss, JSSC 52(1), 2017: its code, its traffic to DRAM, its latencies."""

from functools import partial

from zeroskip.papers.common.paper import Paper, later
from zeroskip.papers.eyeriss.published import CODEC_TABLES, MEASURED, NAME, TITLE

__all__ = ["CODEC_TABLES", "PAPER"]

measure_network = later("zeroskip.papers.eyeriss.measure", "measure_network")
PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=tuple(MEASURED),
    analytic=later("zeroskip.papers.eyeriss.rows", "analytic"),
    measured_rows=later("zeroskip.papers.eyeriss.rows", "measured_rows"),
    measure={network: partial(measure_network, network) for network in MEASURED},
    default=("lenet-5",),
)
