"""Han, Pool, Tran, Dally: Learning both Weights and Connections for Efficient Neural Networks, NIPS 2015."""

from functools import partial

from zeroskip.papers.common.paper import TITLES, TRAINED_BY_DEFAULT, WITH_TRAINING, Paper, later
from zeroskip.papers.han2015.published import NAME, TITLE

measure_network = later("zeroskip.papers.han2015.train", "measure_network")
PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=tuple(TITLES),
    on_request=("digits", "digits-conv"),
    analytic=later("zeroskip.papers.han2015.rows", "analytic"),
    measured_rows=later("zeroskip.papers.han2015.rows", "measured_rows"),
    unmeasurable=later("zeroskip.papers.han2015.rows", "unmeasurable"),
    measure={network: partial(measure_network, network) for network in WITH_TRAINING},
    default=TRAINED_BY_DEFAULT,
)
