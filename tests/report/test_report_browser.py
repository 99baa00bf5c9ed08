"""A real browser opens the page: every figure is drawn, and the console stays silent."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from zeroskip import files, report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed")


def opened(path: Path) -> tuple[str, str]:
    """The document after its scripts ran, and what the browser logged."""
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000",
        "--enable-logging=stderr", f"--user-data-dir={path.parent / 'browser'}", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


@pytest.mark.parametrize("run", ["record", pytest.param("conv_record", marks=pytest.mark.slow)])
def test_all_ten_figures_are_drawn_without_a_word_on_the_console(
    request: pytest.FixtureRequest, tmp_path: Path, run: str
):
    document, log = opened(report.html(tmp_path / "report.html", request.getfixturevalue(run)))
    places = document.split("data-plot=")[1:]
    drawn = [place for place in places if "main-svg" in place and re.search('class="(trace|hm|point)', place)]
    assert len(drawn) == len(places) == 10
    assert "CONSOLE" not in log, log


def test_an_error_on_the_console_would_be_seen(tmp_path: Path):
    broken = files.write(tmp_path / "broken.html", "<script>Plotly.newPlot()</script>")
    assert "Plotly is not defined" in opened(broken)[1]
