"""What was found about each network, on disk: one file of JSON for a machine, written after each network."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# What decides whether a network compiles, and to what. A change of anything else asks for no new run.
ROOMS = ("concepts", "graph", "emit", "measure", "run")


def machine() -> str:
    """What the computer is, in words."""
    from zeroskip.emit import detect

    return detect().title


def path() -> Path:
    """Where the results of this machine are kept."""
    name = "-".join(re.findall(r"[a-z0-9]+", machine().lower()))
    return ROOT / "benchmarks" / "results" / "zoo" / f"{name}.json"


def state() -> str:
    """A digest of the code that the results rest on."""
    digest = hashlib.sha256()
    for room in (*(ROOT / "src" / "zeroskip" / room for room in ROOMS), ROOT / "zoo" / "networks"):
        for path in sorted(room.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def version(package: str) -> str:
    """The version of the package that a module comes from: "2.13.0" of "torch"."""
    names = importlib.metadata.packages_distributions().get(package, [package])
    try:
        return importlib.metadata.version(names[0])
    except importlib.metadata.PackageNotFoundError:
        return "none"


def load(path: Path) -> dict[str, Any]:
    """The machine, the rounds of a race, and for each network what each phase found."""
    return json.loads(path.read_text()) if path.exists() else {"networks": {}}


def store(path: Path, stored: dict[str, Any]) -> None:
    """All of it at once, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    os.replace(part, path)


def line(name: str, phase: str, found: dict[str, Any]) -> str:
    """What is said on the terminal once a network is done."""
    for word in ("failed", "refused"):
        if word in found:
            return f"{name}: {word}: {str(found[word])[:300]}"
    if phase == "time":
        seconds = found["seconds"]
        return f"{name}: " + ", ".join(f"{engine} {1e3 * each:.2f} ms" for engine, each in seconds.items())
    shares = [each.get("share", each.get("refused")) for each in found["differences"]]
    counted, ours = found["costs"]["counted"], found["costs"]["ours"]
    same = all(counted.get(key) == value for key, value in ours.items())
    return f"{name}: compiled in {found['compile_seconds']:.0f} s, {found['peak_bytes'] >> 20} MiB, " + (
        f"differences {shares}, counts {'equal' if same else f'DIFFER: {ours} beside {counted}'}"
    )
