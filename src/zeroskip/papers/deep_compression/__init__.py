"""Han, Mao, Dally: Deep Compression, ICLR 2016."""

from __future__ import annotations

from functools import partial

from zeroskip.concepts import PaperRow
from zeroskip.papers.common.network_names import TITLES, TRAINED_BY_DEFAULT, WITH_TRAINING
from zeroskip.papers.common.paper import Findings, Paper, Setup
from zeroskip.papers.deep_compression.published import FC_LAYERS, NAME, TITLE


def _analytic() -> list[PaperRow]:
    from zeroskip.papers.deep_compression import rows

    return rows.analytic()


def _measured_rows(network: str, findings: Findings) -> list[PaperRow]:
    from zeroskip.papers.deep_compression import rows

    return rows.measured_rows(network, findings)


def _unmeasurable() -> list[PaperRow]:
    from zeroskip.papers.deep_compression import rows

    return rows.unmeasurable()


def _measure(network: str, setup: Setup) -> Findings:
    from zeroskip.papers.deep_compression import train

    return train.measure_network(network, setup)


def _time_fc_layers(setup: Setup) -> Findings:
    from zeroskip.papers.deep_compression import fc_layer_timing

    return fc_layer_timing.time_layers(setup)


PAPER = Paper(
    name=NAME,
    title=TITLE,
    networks=(*TITLES, FC_LAYERS),
    on_request=("digits", "digits-conv"),
    analytic=_analytic,
    measured_rows=_measured_rows,
    unmeasurable=_unmeasurable,
    measure={network: partial(_measure, network) for network in WITH_TRAINING} | {FC_LAYERS: _time_fc_layers},
    default=TRAINED_BY_DEFAULT,
)
