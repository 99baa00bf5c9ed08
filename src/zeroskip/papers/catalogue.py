"""The papers, and how their rows are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache

import torch

from zeroskip.concepts import MeasuredNetwork, PaperFigures, PaperRow
from zeroskip.errors import FileError, RecipeError, ZeroskipError
from zeroskip.papers import (
    cambricon_s,
    cnvlutin,
    deep_compression,
    eie,
    extensor,
    eyeriss,
    eyeriss_v2,
    han2015,
    minerva,
    scnn,
    shi2017,
    sparten,
)
from zeroskip.papers.common.findings import read
from zeroskip.papers.common.frontier_rows import read_frontiers
from zeroskip.papers.common.paper import Paper
from zeroskip.papers.common.results import PaperResult
from zeroskip.papers.deep_compression.findings import CodedFindings
from zeroskip.papers.han2015.findings import HanFindings

_TRAINED = (han2015, deep_compression, shi2017, eyeriss, minerva)
_SIMULATED = (eie, eyeriss_v2, cnvlutin, scnn, cambricon_s, sparten, extensor)
PAPERS: tuple[Paper, ...] = tuple(module.PAPER for module in (*_TRAINED, *_SIMULATED))


def named(name: str) -> Paper:
    """The paper called `name`; RecipeError with the names there are.

    >>> named("han2015").title
    'Learning both Weights and Connections (Han et al. 2015, arXiv 1506.02626)'
    """
    for paper in PAPERS:
        if paper.name == name:
            return paper
    raise RecipeError(f'there is no paper "{name}". Use one of {", ".join(paper.name for paper in PAPERS)}.')


def rows(
    papers: Sequence[Paper] = PAPERS,
    *,
    analytic: bool = False,
    networks: Sequence[str] = (),
    results: Sequence[PaperResult] = (),
) -> list[PaperRow]:
    """All rows of `papers`, table by table and line by line.

    analytic  only rows that need no training
    networks  only rows of these; none named: all, and those of no network
    results   stored findings, one per paper and network; the last one given counts
    Raises RecipeError for a network no paper has, FileError for findings of another form.

    >>> len(rows([named("han2015")], analytic=True, networks=["alexnet"]))
    44
    """
    check(networks, papers)
    for result in results:
        check([result.network], [named(result.paper)])
    findings = {(result.paper, result.network): result.findings for result in results}
    listed = []
    for paper in papers:
        own = list(_analytic(paper.analytic))
        if not analytic:
            stored = [network for network in paper.on_request if (paper.name, network) in findings]
            known = [network for network in networks if network in (*paper.networks, *paper.on_request)]
            for network in dict.fromkeys([*paper.networks, *stored, *known]):
                with _refusing_damage(paper.name, network):
                    own += paper.measured_rows(network, findings.get((paper.name, network), {}))
            own += paper.unmeasurable()
        listed += _grouped(own)
    return [row for row in listed if not networks or row.network in networks]


def measurable(paper: Paper, networks: Sequence[str] = ()) -> list[str]:
    """Those of `networks` that zeroskip can train or time for `paper`; none named: those it has for this case.

    Raises RecipeError where there is none.

    >>> measurable(named("han2015"), ["lenet-5", "alexnet"])
    ['lenet-5', 'alexnet']
    """
    check(networks, [paper])
    asked = networks or paper.default or paper.measure
    able = [network for network in asked if network in paper.measure]
    if not able:
        known = ", ".join(paper.measure) or "none"
        raise RecipeError(
            f"{paper.name} cannot be measured here on {', '.join(networks) or 'anything'}. Networks that can: "
            f"{known}. Leave out --out, or give stored findings with --results."
        )
    return able


def check(networks: Sequence[str], papers: Sequence[Paper]) -> None:
    """RecipeError for a network that none of the papers has."""
    known = dict.fromkeys(network for paper in papers for network in (*paper.networks, *paper.on_request))
    for network in networks:
        if network not in known:
            raise RecipeError(f'there is no network "{network}" here. Use one of {", ".join(known)}.')


def measured_networks(rows: Sequence[PaperRow], results: Sequence[PaperResult]) -> list[MeasuredNetwork]:
    """What a page shows of each network that has rows and results: where they come from, and the papers' figures.

    Of several results for one paper and network the last one counts. FileError for findings of another form.

    >>> result = PaperResult("han2015", "lenet-5", "2026-01-31", "M", "", 3, {"figure4": {"kept_by_pixel": [3, 4]}})
    >>> measured_networks(rows([named("han2015")]), [result])[0].figures.kept_by_pixel
    (3.0, 4.0)
    """
    asked = {(row.paper, row.network): None for row in rows}
    last = {(result.paper, result.network): result for result in results}
    shown = {key: last[key] for key in asked if key in last}
    measured = []
    for network in dict.fromkeys(key[1] for key in last if key in asked):
        own = {result.paper: result for result in shown.values() if result.network == network}
        origins = tuple(result.origin for result in own.values())
        measured.append(MeasuredNetwork(network, origins, _figures(network, own)))
    return measured


def _figures(network: str, results: Mapping[str, PaperResult]) -> PaperFigures:
    names = (han2015.PAPER.name, deep_compression.PAPER.name)
    findings = [results[name].findings if name in results else {} for name in names]
    with _refusing_damage(" and ".join(results), network):
        han, coded = read(HanFindings, findings[0]), read(CodedFindings, findings[1])
        frontiers = read_frontiers(findings[0]) or read_frontiers(
            findings[1]
        )  # both papers train the same ones
    return PaperFigures(
        trade_off=han.figure5,
        trade_off_dense=han.figure5_dense,
        sensitivity=han.figure6,
        histograms=han.figure7,
        kept_by_pixel=han.figure4.kept_by_pixel if han.figure4 else (),
        sizes=coded.figure6,
        widths=coded.figure7,
        starts=coded.figure8,
        coded_dense=coded.figures_dense,
        frontiers=frontiers,
    )


@cache  # some take seconds
def _analytic(make: Callable[[], list[PaperRow]]) -> tuple[PaperRow, ...]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # thousands of small products; more threads make them several times slower
    try:
        return tuple(make())
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _refusing_damage(paper: str, network: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, ArithmeticError, ZeroskipError) as fact:
        raise FileError(
            f"the findings of {network} for {paper} are damaged ({type(fact).__name__}: {fact}). Delete their "
            "file and measure again."
        ) from None


def _grouped(rows: list[PaperRow]) -> list[PaperRow]:
    """Table by table and line by line, each where it came first."""
    tables = list(dict.fromkeys(row.table for row in rows))
    lines = list(dict.fromkeys((row.table, row.row) for row in rows))
    return sorted(rows, key=lambda row: (tables.index(row.table), lines.index((row.table, row.row))))
