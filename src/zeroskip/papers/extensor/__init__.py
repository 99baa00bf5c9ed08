"""Hegde et al.: ExTensor: An Accelerator for Sparse Tensor Algebra, MICRO 2019."""

from zeroskip.papers.common.paper import Paper, later
from zeroskip.papers.extensor.published import NAME, NETWORK, TITLE

PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=("alexnet", NETWORK),
    analytic=later("zeroskip.papers.extensor.rows", "analytic"),
    measured_rows=later("zeroskip.papers.extensor.rows", "measured_rows"),
    unmeasurable=later("zeroskip.papers.extensor.rows", "unmeasurable"),
    measure={NETWORK: later("zeroskip.papers.extensor.measure", "measure_matrices")},
)
