"""The papers, and how their rows are put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from zeroskip.errors import FileError, RecipeError
from zeroskip.papers.cambricon_s import published as published_cambricon
from zeroskip.papers.cambricon_s import rows as cambricon_s
from zeroskip.papers.cnvlutin import published as published_cnvlutin
from zeroskip.papers.cnvlutin import rows as cnvlutin
from zeroskip.papers.common import accelerators as real
from zeroskip.papers.common.network_sizes import NETWORKS
from zeroskip.papers.common.recipes import RECIPES
from zeroskip.papers.common.results import Result
from zeroskip.papers.common.row import Row
from zeroskip.papers.deep_compression import fc_layer_rows, fc_layer_timing
from zeroskip.papers.deep_compression import published as published_dc
from zeroskip.papers.deep_compression import rows as deep_compression
from zeroskip.papers.deep_compression import train as trained_dc
from zeroskip.papers.eie import published as published_eie
from zeroskip.papers.eie import rows as eie
from zeroskip.papers.extensor import measure as sparse
from zeroskip.papers.extensor import published as published_extensor
from zeroskip.papers.extensor import rows as extensor
from zeroskip.papers.eyeriss import chip_rows
from zeroskip.papers.eyeriss import measure as coded
from zeroskip.papers.eyeriss import published as published_eyeriss
from zeroskip.papers.eyeriss import rows as eyeriss
from zeroskip.papers.eyeriss_v2 import published as published_v2
from zeroskip.papers.eyeriss_v2 import rows as eyeriss_v2
from zeroskip.papers.han2015 import published as published_han
from zeroskip.papers.han2015 import rows as han2015
from zeroskip.papers.han2015 import train as trained_han
from zeroskip.papers.minerva import published as published_minerva
from zeroskip.papers.minerva import rows as minerva
from zeroskip.papers.minerva import train as trained_minerva
from zeroskip.papers.scnn import published as published_scnn
from zeroskip.papers.scnn import rows as scnn
from zeroskip.papers.shi2017 import measure as timed_shi
from zeroskip.papers.shi2017 import published as published_shi
from zeroskip.papers.shi2017 import rows as shi2017
from zeroskip.papers.sparten import measure as pruned
from zeroskip.papers.sparten import published as published_sparten
from zeroskip.papers.sparten import rows as sparten

Findings = Mapping[str, Any]
TWO = ("alexnet", "vgg16")
NETWORKS_TRAINED = ("lenet-300-100", "lenet-5")  # unless others are named


@dataclass(frozen=True)
class Paper:
    """One paper: its rows without training, its rows from a network's findings, and how to get findings.

    networks      those whose measured rows are listed always
    more          those that have measured rows too, listed when asked for
    unmeasurable  rows that are listed and never measured
    measure       network -> how to train or time it: measure(out=folder, seeds=3, progress=...) -> findings
    """

    name: str
    title: str
    networks: tuple[str, ...]
    more: tuple[str, ...]
    analytic: Callable[[], list[Row]]
    measured_rows: Callable[[str, Findings], list[Row]]
    unmeasurable: Callable[[], list[Row]]
    measure: Mapping[str, Callable[..., Findings]]


def _trained(measure: Callable[..., Findings]) -> dict[str, Callable[..., Findings]]:
    return {network: partial(measure, network) for network in RECIPES}


def _eyeriss() -> list[Row]:
    return [*eyeriss.analytic(), *chip_rows.analytic()]


def _simulated(
    name: str,
    title: str,
    networks: tuple[str, ...],
    analytic: Callable[[], list[Row]],
    unmeasurable: Callable[[], list[Row]] = list,
) -> Paper:
    """A paper whose rows all follow from published shares of zeros."""
    return Paper(name, title, networks, (), analytic, lambda network, findings: [], unmeasurable, {})


PAPERS = (
    Paper(
        han2015.PAPER,
        published_han.TITLE,
        tuple(NETWORKS),
        ("digits", "digits-conv"),
        han2015.analytic,
        han2015.measured_rows,
        han2015.unmeasurable,
        _trained(trained_han.measure_network),
    ),
    Paper(
        deep_compression.PAPER,
        published_dc.TITLE,
        (*NETWORKS, fc_layer_rows.NETWORK),
        ("digits", "digits-conv"),
        deep_compression.analytic,
        deep_compression.measured_rows,
        deep_compression.unmeasurable,
        _trained(trained_dc.measure_network) | {fc_layer_rows.NETWORK: fc_layer_timing.measure_network},
    ),
    Paper(
        shi2017.PAPER,
        published_shi.TITLE,
        (shi2017.NETWORK,),
        (),
        list,  # nothing can be told without a clock
        shi2017.measured_rows,
        list,
        {shi2017.NETWORK: timed_shi.measure_network},
    ),
    Paper(
        eyeriss.PAPER,
        published_eyeriss.TITLE,
        tuple(eyeriss.NETWORKS),
        (),
        _eyeriss,
        eyeriss.measured_rows,
        list,  # none
        {network: partial(coded.measure_network, network) for network in eyeriss.NETWORKS},
    ),
    Paper(
        minerva.PAPER,
        published_minerva.TITLE,
        (*minerva.NETWORKS, minerva.MEAN),
        (),
        minerva.analytic,
        minerva.measured_rows,
        minerva.unmeasurable,
        {network: partial(trained_minerva.measure_network, network) for network in minerva.NETWORKS}
        | {minerva.MEAN: trained_minerva.measure_mean},
    ),
    Paper(
        eie.PAPER,
        published_eie.TITLE,
        (eie.FC8, *TWO),
        (),
        eie.analytic,
        eie.measured_rows,
        list,
        {eie.FC8: real.measure_fc8},
    ),
    Paper(
        eyeriss_v2.PAPER,
        published_v2.TITLE,
        (eyeriss_v2.ELEMENT,),
        (),
        list,  # its shares of zeros alone would not give its cycles
        eyeriss_v2.measured_rows,
        list,
        {eyeriss_v2.ELEMENT: real.measure_element},
    ),
    _simulated(cnvlutin.PAPER, published_cnvlutin.TITLE, TWO, cnvlutin.analytic),
    _simulated(scnn.PAPER, published_scnn.TITLE, TWO, scnn.analytic, scnn.unmeasurable),
    _simulated(
        cambricon_s.PAPER,
        published_cambricon.TITLE,
        TWO[:1],
        cambricon_s.analytic,
        cambricon_s.unmeasurable,
    ),
    Paper(
        sparten.PAPER,
        published_sparten.TITLE,
        (*TWO, *sparten.REAL),
        (),
        sparten.analytic,
        sparten.measured_rows,
        list,
        {network: partial(pruned.measure_network, network) for network in sparten.REAL},
    ),
    Paper(
        extensor.PAPER,
        published_extensor.TITLE,
        (TWO[0], extensor.MATRICES),
        (),
        extensor.analytic,
        extensor.measured_rows,
        extensor.unmeasurable,
        {extensor.MATRICES: sparse.measure_matrices},
    ),
)


def named(name: str) -> Paper:
    """The paper called `name`; RecipeError with the names there are.

    >>> named("han2015").title
    'Learning both Weights and Connections (Han et al. 2015, arXiv 1506.02626)'
    """
    for paper in PAPERS:
        if paper.name == name:
            return paper
    raise RecipeError(f'there is no paper "{name}". Use one of {", ".join(one.name for one in PAPERS)}.')


def rows(
    papers: Sequence[Paper] = PAPERS,
    *,
    analytic: bool = False,
    networks: Sequence[str] = (),
    results: Sequence[Result] = (),
) -> list[Row]:
    """All rows of `papers`, table by table and line by line.

    analytic  only rows that need no training
    networks  only rows of these; none named: all, and those of no network
    results   stored findings, one per paper and network; the last one given counts
    Raises RecipeError for a network no paper has, FileError for findings of another form.

    >>> len(rows(analytic=True, networks=["alexnet"]))
    91
    """
    check(networks, papers)
    for one in results:
        check([one.network], [named(one.paper)])
    found = {(one.paper, one.network): one.findings for one in results}
    listed = []
    for paper in papers:
        own = paper.analytic()
        if not analytic:
            stored = [network for network in paper.more if (paper.name, network) in found]
            for network in dict.fromkeys([*paper.networks, *stored, *_known(networks, paper)]):
                own += _measured(paper, network, found.get((paper.name, network), {}))
            own += paper.unmeasurable()
        listed += _together(own)
    return [row for row in listed if not networks or row.network in networks]


def measurable(paper: Paper, networks: Sequence[str] = ()) -> list[str]:
    """Those of `networks` that zeroskip can train or time for `paper`; none named: the two LeNets or, where the
    paper has others, all of those.

    Raises RecipeError where there is none.

    >>> measurable(named("han2015"), ["lenet-5", "alexnet"])
    ['lenet-5', 'alexnet']
    """
    check(networks, [paper])
    short = [network for network in NETWORKS_TRAINED if network in paper.measure]
    found = [network for network in networks or short or paper.measure if network in paper.measure]
    if not found:
        known = ", ".join(paper.measure) or "none"
        raise RecipeError(
            f"{paper.name} cannot be measured here on {', '.join(networks) or 'anything'}. Networks that can: "
            f"{known}. Leave out --out, or give stored findings with --results."
        )
    return found


def check(networks: Sequence[str], papers: Sequence[Paper]) -> None:
    """RecipeError for a network that none of the papers has.

    >>> check(["lenet-5"], PAPERS)
    """
    known = dict.fromkeys(network for paper in papers for network in (*paper.networks, *paper.more))
    for network in networks:
        if network not in known:
            raise RecipeError(f'there is no network "{network}" here. Use one of {", ".join(known)}.')


def _measured(paper: Paper, network: str, findings: Findings) -> list[Row]:
    try:
        return paper.measured_rows(network, findings)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as fact:
        raise FileError(
            f"the findings of {network} for {paper.name} are damaged ({type(fact).__name__}: {fact}). Delete their "
            "file and measure again."
        ) from None


def _together(some: list[Row]) -> list[Row]:
    """Table by table and line by line, each where it came first."""
    tables = list(dict.fromkeys(row.table for row in some))
    lines = list(dict.fromkeys((row.table, row.row) for row in some))
    return sorted(some, key=lambda row: (tables.index(row.table), lines.index((row.table, row.row))))


def _known(networks: Sequence[str], paper: Paper) -> list[str]:
    return [network for network in networks if network in (*paper.networks, *paper.more)]
