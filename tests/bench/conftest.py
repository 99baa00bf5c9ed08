"""Shared by the tests of the race: results made by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from zeroskip.bench import Case, RaceResult

LAYER = Case("alex2_64_192_5x5_27", 0.9)


@pytest.fixture
def result() -> Callable[..., RaceResult]:
    """A result from seconds by engine."""

    def make(seconds: dict[str, tuple[float, ...]], case: Case = LAYER, **missing: str) -> RaceResult:
        return RaceResult(
            case=case,
            seconds=seconds,
            difference=dict.fromkeys(seconds, 1e-7),
            missing={name.replace("_", " "): reason for name, reason in missing.items()},
            versions={"torch": "2"},
            runs=3,
            rounds=9,
            date="2026-01-02",
        )

    return make
