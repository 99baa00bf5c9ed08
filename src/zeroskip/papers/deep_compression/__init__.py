"""Han, Mao, Dally: Deep Compression, ICLR 2016."""

from functools import partial

from zeroskip.papers.common.paper import TITLES, TRAINED_BY_DEFAULT, WITH_TRAINING, Paper, later
from zeroskip.papers.deep_compression.published import FC_LAYERS, NAME, TITLE

measure_network = later("zeroskip.papers.deep_compression.train", "measure_network")
time_layers = later("zeroskip.papers.deep_compression.fc_layer_timing", "time_layers")
PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=(*TITLES, FC_LAYERS),
    on_request=("digits", "digits-conv"),
    analytic=later("zeroskip.papers.deep_compression.rows", "analytic"),
    measured_rows=later("zeroskip.papers.deep_compression.rows", "measured_rows"),
    unmeasurable=later("zeroskip.papers.deep_compression.rows", "unmeasurable"),
    measure={
        **{network: partial(measure_network, network) for network in WITH_TRAINING},
        FC_LAYERS: time_layers,
    },
    default=TRAINED_BY_DEFAULT,
)
