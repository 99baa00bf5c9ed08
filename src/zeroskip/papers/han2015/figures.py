"""Han et al. 2015: what its figures and its section on the method state, judged on findings."""

from __future__ import annotations

from zeroskip.concepts import PaperRow
from zeroskip.papers.common import figure_checks
from zeroskip.papers.common.figure_checks import Verdict
from zeroskip.papers.common.paper import missing, title
from zeroskip.papers.common.rules import EQUAL, figure
from zeroskip.papers.common.tables import Table
from zeroskip.papers.han2015.findings import DeadNeurons, DropoutErrors, HanFindings
from zeroskip.papers.han2015.published import NAME

# What makes each claim hold.
BORDER = "a border pixel (2 outer rings) keeps less than a tenth of what an inner one keeps"
SENSITIVE = "the same layer: highest mean error over the sparsities tried"
CONV_ABOVE_FC = "mean error of the conv layers above that of the fc layers"
FURTHER = (
    "the same order, each the most at an error at most 0.1 points above that of the dense network pruned"
)
LOWER = "lower mean error over the shares kept that both curves have"
ONE_PEAK = "the highest bin is next to zero"
TWO_PEAKS = (
    "left and right of zero each have a peak at least twice as high as the bin at zero; pruning by "
    "threshold makes the gap, so only retraining could undo it"
)
WIDER = (
    "the interval that holds all but 1 % of the weights left is wider than that of the same weights before; "
    "that of all weights before is no measure, as without its small ones it is wider anyway"
)
UNCHANGED = "some are removed, and no output changes by more than 0.00001"
RESCALED = (
    "the error with dropout x sqrt(connections left / connections) is at most that with dropout as before"
)


def rows(network: str, measured: HanFindings) -> list[PaperRow]:
    """Every row of `network` about a figure or about section 3.

    >>> errors = DropoutErrors(rule=0.02, unchanged=0.03)
    >>> [row.holds for row in rows("digits", HanFindings(dropout=errors))][-2:]
    [True, None]
    """
    listed = [] if network == "vgg16" else _trade_off(network, measured)  # the figures are AlexNet's
    if network == "lenet-300-100":
        listed = [*_mask(network, measured), *listed]
    if network not in ("lenet-300-100", "digits", "vgg16"):
        listed += _sensitivity(network, measured)
    if network != "vgg16":
        listed += _histogram(network, measured)
    return [*listed, *_methods(network, measured)]


def _mask(network: str, measured: HanFindings) -> list[PaperRow]:
    pixels = measured.figure4.kept_by_pixel if measured.figure4 else None
    table, row = _table("Figure 4", network), "mask of fc1"
    period = None if pixels is None else figure_checks.period(pixels)
    return [
        table.judge(row, "width of a band", figure("28", "pixels"), period, EQUAL),
        table.fact(row, "connections at the border", "few", figure_checks.border(pixels), BORDER),
    ]


def _sensitivity(network: str, measured: HanFindings) -> list[PaperRow]:
    table, row = _table("Figure 6", network), "layers pruned alone"
    most, conv = (
        find(measured.figure6) for find in (figure_checks.most_sensitive, figure_checks.conv_against_fc)
    )
    return [
        table.fact(row, "most sensitive", "the first convolution", most, SENSITIVE),
        table.fact(row, "conv against fc", "conv is more sensitive", conv, CONV_ABOVE_FC),
    ]


def _trade_off(network: str, measured: HanFindings) -> list[PaperRow]:
    table, curves = _table("Figure 5", network), measured.figure5
    order = ("L2", "L2 retrained", "L2 iterative")
    reach = figure_checks.reach(curves, order, measured.figure5_dense.get("L2"))
    cut = figure_checks.better(curves, "L1", "L2")
    retrained = figure_checks.better(curves, "L2 retrained", "L1 retrained")
    column = "iterative > retrained once > not retrained"
    return [
        table.fact("times fewer without loss", column, "9x > 5x > 2x", reach, FURTHER),
        table.fact("without retraining", "L1 against L2", "L1 is better", cut, LOWER),
        table.fact("with retraining", "L2 against L1", "L2 is better", retrained, LOWER),
    ]


def _histogram(network: str, measured: HanFindings) -> list[PaperRow]:
    table, checks = _table("Figure 7", network), figure_checks
    before, after = (measured.figure7.get(key) for key in ("before", "after"))
    whole, survivors = checks.wider(before, after), checks.wider(measured.figure7_survivors, after)
    known = f"of all weights it is {whole[0]}, but the cut does that, not retraining" if whole else ""
    column, claim = "spread of the same weights", "wider: 0.025 from 0.015"
    return [
        table.fact("fc1 before", "peaks", "one, at zero", checks.one_peak(before), ONE_PEAK),
        table.fact("fc1 after", "peaks", "two, none at zero", checks.two_peaks(after), TWO_PEAKS),
        table.fact("fc1 after", column, claim, survivors, WIDER, reason=known),
    ]


def _methods(network: str, measured: HanFindings) -> list[PaperRow]:
    table, dead = _table("Section 3", network), measured.dead_neurons
    nothing = "no neuron was dead, so nothing was removed" if dead and not dead.removed else ""
    row, claim = "neurons without inputs or outputs", "the network's outputs stay as they are"
    neurons = table.fact(row, "removed", claim, removal(dead), UNCHANGED, reason=nothing)
    if network in ("alexnet", "vgg16"):
        return [neurons]  # one retraining fewer where each takes days
    row, column = "dropout while retraining", "by the rule against unchanged"
    verdict = rule_is_better(measured.dropout)
    return [table.fact(row, column, "by the rule is better", verdict, RESCALED), neurons]


def _table(name: str, network: str) -> Table:
    return Table(NAME, f"{name}: {title(network)}", network, missing(network))


def rule_is_better(errors: DropoutErrors | None) -> Verdict:
    """The two errors; agrees where that by the rule is no higher.

    >>> rule_is_better(DropoutErrors(rule=0.01, unchanged=0.02))
    ('1.00 % and 2.00 %', True)
    """
    if errors is None:
        return None
    return f"{100 * errors.rule:.2f} % and {100 * errors.unchanged:.2f} %", errors.rule <= errors.unchanged


def removal(dead: DeadNeurons | None) -> Verdict:
    """How many neurons were removed, and what that changed; agrees where any were, and next to nothing changed.

    >>> removal(DeadNeurons(removed=28, largest_difference=1.8e-15))
    ('28 removed, change 1.8e-15', True)
    """
    if dead is None:
        return None
    agrees = dead.removed > 0 and dead.largest_difference <= 1e-5
    return f"{dead.removed:g} removed, change {dead.largest_difference:.2g}", agrees
