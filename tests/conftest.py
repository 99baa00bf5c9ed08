"""Shared by all tests: small networks, and a count of the tests that ran on real data sets."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from zeroskip import cli, run
from zeroskip.run.comparison import eager


@pytest.fixture(autouse=True)
def data_folder_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command with --data changes ZEROSKIP_DATA for its process; the next test finds it as it was."""
    monkeypatch.setenv("ZEROSKIP_DATA", os.environ.get("ZEROSKIP_DATA", ""))


@pytest.fixture(autouse=True)
def compiled_code_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test is served by what another one, or the user of this machine, compiled before."""
    monkeypatch.setenv("ZEROSKIP_CACHE", "")


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The parent of mnist/; skips with the reason where ZEROSKIP_DATA does not name one."""
    parent = os.environ.get("ZEROSKIP_DATA")
    if not parent or not (Path(parent) / "mnist").is_dir():
        pytest.skip("MNIST is absent: set ZEROSKIP_DATA to the folder that holds mnist/")
    return Path(parent)


@pytest.fixture(scope="session")
def trained_folder() -> Path:
    """The parent of weights/, trained networks of others; skips with the reason where ZEROSKIP_DATA names none."""
    parent = os.environ.get("ZEROSKIP_DATA")
    if not parent or not (Path(parent) / "weights").is_dir():
        pytest.skip("trained networks are absent: set ZEROSKIP_DATA to the folder that holds weights/")
    return Path(parent)


@pytest.fixture(scope="session")
def sentence_folder() -> Path:
    """The parent of sts/ and weights/; skips with the reason where ZEROSKIP_DATA names none."""
    parent = os.environ.get("ZEROSKIP_DATA")
    if not parent or not all((Path(parent) / name).is_dir() for name in ("sts", "weights")):
        pytest.skip("sentences are absent: set ZEROSKIP_DATA to the folder that holds sts/ and weights/")
    return Path(parent)


@pytest.fixture
def mlp() -> nn.Sequential:
    """Three linear layers, "0", "2" and "4": 6 -> 8 -> 8 -> 4, ReLU between."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `zeroskip WORDS...` in this process: (exit status, stdout, stderr)."""
    short = partial(run.compare, engines={"torch eager": eager}, runs=1, rounds=2)
    monkeypatch.setattr(run, "compare", short)

    def calling(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["zeroskip", *map(str, words)])
        try:
            cli.main()
            status = 0
        except SystemExit as fact:
            status = int(fact.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return calling


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests saw a real data set, and how many could not."""

    def real(outcome: str) -> list[pytest.TestReport]:
        reports = terminalreporter.stats.get(outcome, [])
        return [one for one in reports if "real_data" in getattr(one, "keywords", {})]

    ran, skipped = len(real("passed")) + len(real("failed")), len(real("skipped"))
    terminalreporter.write_line(f"real-data tests: {ran} ran, {skipped} skipped for want of data")
