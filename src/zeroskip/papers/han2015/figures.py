"""Han et al. 2015: what its figures and its section on the method state, judged on findings (see han2015.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zeroskip.papers.common import figure_checks
from zeroskip.papers.common.network_sizes import missing, title
from zeroskip.papers.common.row import EQUAL, Row, Table

PAPER = "han2015"


def rows(network: str, findings: Mapping[str, Any]) -> list[Row]:
    """Every row of `network` about a figure or about section 3, from its findings.

    >>> [row.holds for row in rows("digits", {"dropout": {"rule": 0.02, "unchanged": 0.03}})][-2:]
    [True, None]
    """
    found = [] if network == "vgg16" else _trade_off(network, findings)  # the figures are AlexNet's
    if network == "lenet-300-100":
        found = [*_mask(network, findings), *found]
    if network not in ("lenet-300-100", "digits", "vgg16"):
        found += _sensitivity(network, findings)
    if network != "vgg16":
        found += _histogram(network, findings)
    return [*found, *_methods(network, findings)]


def _mask(network: str, findings: Mapping[str, Any]) -> list[Row]:
    pixels = findings.get("figure4", {}).get("kept_by_pixel")
    table = Table(PAPER, f"Figure 4: {title(network)}", network, missing(network))
    period = None if pixels is None else figure_checks.period(pixels)
    return [
        table.judge("mask of fc1", "width of a band", "28", period, EQUAL, unit="pixels"),
        table.fact(
            "mask of fc1",
            "connections at the border",
            "few",
            figure_checks.border(pixels),
            "a border pixel (2 outer rings) keeps less than a tenth of what an inner one keeps",
        ),
    ]


def _sensitivity(network: str, findings: Mapping[str, Any]) -> list[Row]:
    table = Table(PAPER, f"Figure 6: {title(network)}", network, missing(network))
    seen = figure_checks.most_sensitive(findings.get("figure6"))
    return [
        table.fact(
            "layers pruned alone",
            "most sensitive",
            "the first convolution",
            None if seen is None else (seen, seen == "conv1"),
            "the same layer: highest mean error over the sparsities tried",
        ),
        table.fact(
            "layers pruned alone",
            "conv against fc",
            "conv is more sensitive",
            figure_checks.conv_against_fc(findings.get("figure6")),
            "mean error of the conv layers above that of the fc layers",
        ),
    ]


def _trade_off(network: str, findings: Mapping[str, Any]) -> list[Row]:
    table = Table(PAPER, f"Figure 5: {title(network)}", network, missing(network))
    curves, dense = findings.get("figure5", {}), findings.get("figure5_dense", {}).get("L2")
    order = ("L2", "L2 retrained", "L2 iterative")
    return [
        table.fact(
            "times fewer without loss",
            "iterative > retrained once > not retrained",
            "9x > 5x > 2x",
            figure_checks.reach(curves, order, dense),
            "the same order, each the most at an error at most 0.1 points above that of the dense network pruned",
        ),
        table.fact(
            "without retraining",
            "L1 against L2",
            "L1 is better",
            figure_checks.better(curves, "L1", "L2"),
            "lower mean error over the shares kept that both curves have",
        ),
        table.fact(
            "with retraining",
            "L2 against L1",
            "L2 is better",
            figure_checks.better(curves, "L2 retrained", "L1 retrained"),
            "lower mean error over the shares kept that both curves have",
        ),
    ]


def _histogram(network: str, findings: Mapping[str, Any]) -> list[Row]:
    table = Table(PAPER, f"Figure 7: {title(network)}", network, missing(network))
    before, after = (findings.get("figure7", {}).get(key) for key in ("before", "after"))
    whole = figure_checks.wider(before, after)
    cut_alone = f"of all weights it is {whole[0]}, but the cut does that, not retraining" if whole else ""
    return [
        table.fact(
            "fc1 before",
            "peaks",
            "one, at zero",
            figure_checks.one_peak(before),
            "the highest bin is next to zero",
        ),
        table.fact(
            "fc1 after",
            "peaks",
            "two, none at zero",
            figure_checks.two_peaks(after),
            "left and right of zero each have a peak at least twice as high as the bin at zero; pruning by "
            "threshold makes the gap, so only retraining could undo it",
        ),
        table.fact(
            "fc1 after",
            "spread of the same weights",
            "wider: 0.025 from 0.015",
            figure_checks.wider(findings.get("figure7_survivors"), after),
            "the interval that holds all but 1 % of the weights left is wider than that of the same weights before; "
            "that of all weights before is no measure, as without its small ones it is wider anyway",
            reason=cut_alone,
        ),
    ]


def _methods(network: str, findings: Mapping[str, Any]) -> list[Row]:
    table = Table(PAPER, f"Section 3: {title(network)}", network, missing(network))
    dead = findings.get("dead_neurons")
    nothing = "no neuron was dead, so nothing was removed" if dead and not dead["removed"] else ""
    removal = table.fact(
        "neurons without inputs or outputs",
        "removed",
        "the network's outputs stay as they are",
        figure_checks.removal(dead),
        "some are removed, and no output changes by more than 0.00001",
        reason=nothing,
    )
    if network in ("alexnet", "vgg16"):
        return [removal]  # one retraining fewer where each takes days
    dropout = table.fact(
        "dropout while retraining",
        "by the rule against unchanged",
        "by the rule is better",
        figure_checks.lower(findings.get("dropout"), "rule", "unchanged"),
        "the error with dropout x sqrt(connections left / connections) is at most that with dropout as before",
    )
    return [dropout, removal]
