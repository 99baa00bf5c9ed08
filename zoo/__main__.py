"""`python -m zoo check`, `time`, `page`: each network in a process of its own, results kept one by one."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys

from zoo import results

ROUNDS = 7  # turns of an engine
SECONDS = {"check": 1200, "time": 2400}
# No package of the zoo asks for anything over a network.
QUIET = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "YOLO_OFFLINE": "true",
    "YOLO_CONFIG_DIR": str(results.ROOT / ".bench" / "zoo"),
    "TORCHINDUCTOR_CACHE_DIR": str(results.ROOT / ".bench" / "zoo" / "inductor"),
    "TOKENIZERS_PARALLELISM": "false",
    "USE_TORCH": "1",
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m zoo")
    parser.add_argument("phase", choices=("check", "time", "page", "one"))
    parser.add_argument("names", nargs="*", help="networks whose names hold one of these; all without")
    parser.add_argument("--again", action="store_true", help="also those that are done")
    options = parser.parse_args()
    if options.phase == "one":
        _one(*options.names)
    elif options.phase == "page":
        from zoo import page

        page.write()
    else:
        _all(options.phase, options.names, options.again)


def _all(phase: str, names: list[str], again: bool) -> None:
    path, state = results.path(), results.state()
    for name in _names(names):
        done = results.load(path)["networks"].get(name, {}).get(phase, {})
        if done.get("state") == state and not again:
            continue
        found = _process(phase, name)
        stored = results.load(path)  # as it is now: two phases may be under way
        stored.update(machine=results.machine(), rounds=ROUNDS)
        record = stored["networks"].setdefault(name, {})
        record[phase] = {**found, "state": state, "date": str(datetime.date.today())}
        results.store(path, stored)
        print(results.line(name, phase, found), flush=True)


def _names(wanted: list[str]) -> list[str]:
    from zoo.networks import NETWORKS

    names = [network.name for network in NETWORKS]
    return [name for name in names if not wanted or any(word.lower() in name.lower() for word in wanted)]


def _process(phase: str, name: str) -> dict[str, object]:
    """What a process of its own found; how it ended where it did not come to that."""
    command = [sys.executable, "-m", "zoo", "one", phase, name]
    try:
        ended = subprocess.run(
            command,
            cwd=results.ROOT,
            env={**os.environ, **QUIET},
            capture_output=True,
            text=True,
            timeout=SECONDS[phase],
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer in {SECONDS[phase]} seconds"}
    _, _, answer = ended.stdout.rpartition("\nRESULT ")
    if ended.returncode == 0 and answer:
        return json.loads(answer)
    failure = results.ROOT / ".bench" / "zoo" / "last_failure.txt"
    failure.parent.mkdir(parents=True, exist_ok=True)
    failure.write_text(ended.stderr)
    words = ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"]
    return {"failed": words[-1]}


def _one(phase: str, name: str) -> None:
    """In the process of a network."""
    from zoo import stand_ins

    stand_ins.declare()
    import torch

    from zoo import check, timing
    from zoo.networks import NETWORKS

    torch.set_num_threads(1)
    network = next(network for network in NETWORKS if network.name == name)
    found = check.check(network) if phase == "check" else timing.time(network, ROUNDS)
    versions = {package: results.version(package) for package in ("torch", network.package)}
    print("\nRESULT " + json.dumps({**found, "versions": versions}))


main()
