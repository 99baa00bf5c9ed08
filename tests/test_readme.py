"""The README keeps its word: its commands run, its figures are those of the stored results."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import pytest
from tiny import Tiny

from zeroskip import cli, papers, run, tasks
from zeroskip.bench import Case, RaceResult, Store
from zeroskip.bench.cases import LAYERS
from zeroskip.concepts import PrunedFrontier
from zeroskip.papers.common.frontier_rows import read_frontiers
from zeroskip.papers.deep_compression import published
from zeroskip.run.comparison import eager
from zeroskip.tasks import built_in

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
RESULTS = [json.loads((ROOT / f"docs/results/{name}.json").read_text()) for name in ("digits", "digits-conv")]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything runs in an empty folder, on the tiny task, with one dense engine and two rounds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(built_in, "BUILT_IN", (Tiny("digits"), Tiny("digits-conv"), Tiny("mnist")))
    monkeypatch.setattr(tasks, "digits", Tiny("digits"))
    monkeypatch.setattr(
        run, "compare", partial(run.compare, engines={"torch eager": eager}, runs=1, rounds=2)
    )


def commands() -> list[str]:
    found = re.findall(r"zeroskip (sparsify [^#`\n]*)", README)
    return [command.strip() for command in found]


def test_the_readme_is_one_screen_and_names_commands() -> None:
    assert len(README.splitlines()) <= 66
    assert len(commands()) == 4


@pytest.mark.parametrize("command", commands())
def test_every_zeroskip_command_of_the_readme_runs(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("my_task.py").write_text((ROOT / "tests" / "tiny_task.py").read_text())
    words = shlex.split(command.replace("--data DIR", "--data . --out runs/mnist"))
    monkeypatch.setattr(sys, "argv", ["zeroskip", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert (Path(words[words.index("--out") + 1]) / "report.html").exists()


def test_the_step_commands_it_names_are_all_there_are_beside_sparsify() -> None:
    named = re.search(r"Each step alone: `zeroskip ([\s\S]*?); all take", README)
    assert named is not None
    words = set(re.findall(r"[a-z-]+", named.group(1)))
    known = [command.name or command.callback.__name__ for command in cli.app.registered_commands]  # type: ignore[union-attr]
    assert words == {name.replace("_", "-") for name in known} - {"sparsify"}


def test_the_python_lines_of_the_readme_run(capsys: pytest.CaptureFixture[str]) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    Path("runs").mkdir()
    exec(code.group(1), {})
    assert "dense" in capsys.readouterr().out
    assert Path("runs/digits.zs").exists()


def row(name: str, cell: Any) -> str:
    return f"| {name} | " + " | ".join(cell(summary) for summary in RESULTS) + " |"


def seconds(timing: dict[str, Any], engine: str) -> str:
    return f"{1e6 * timing['seconds'][engine]:.3g} us"


def race(place: int) -> Any:
    def cell(summary: dict[str, Any]) -> str:
        timing = summary["timings"][place]
        dense = min(
            (name for name in timing["seconds"] if not name.startswith("zeroskip")),
            key=timing["seconds"].__getitem__,
        )
        ratio = timing["seconds"][dense] / timing["seconds"]["zeroskip"]
        ours, theirs = timing["spread"]["zeroskip"], timing["spread"][dense]
        doubt = " (spreads overlap)" if ours[0] <= theirs[1] and theirs[0] <= ours[1] else ""
        return f"{seconds(timing, 'zeroskip')}, {dense} {seconds(timing, dense)}: {ratio:.2f}x{doubt}"

    return cell


def table() -> str:
    """The README's table, from the stored summaries."""
    return "\n".join(
        [
            row("test error, dense -> sparse", lambda s: f"{s['error_dense']:.2%} -> {s['error_run']:.2%}"),
            row(
                "weights, dense -> sparse",
                lambda s: (
                    f"{s['weights']:,} -> {s['weights_kept']:,.0f}: **{s['weights_times_fewer']:.1f}x** fewer, "
                    f"{s['stored_times_smaller']:.1f}x fewer bytes"
                ),
            ),
            row("one input a call (median seed)", race(0)),
            row("64 inputs a call (median seed)", race(1)),
        ]
    )


def test_the_figures_of_the_readme_are_those_of_the_stored_results() -> None:
    assert table() in README
    assert all(summary["machine"] in README.replace("\n", " ") for summary in RESULTS)


def test_the_stored_results_keep_the_promise() -> None:
    digits = RESULTS[0]
    assert digits["seeds"] == 3
    assert digits["weights_times_fewer"] >= 12
    assert digits["error_sparse"] <= digits["error_dense"] + 1 / 360 + 1e-9


def mnist_sentence() -> str:
    """The README's sentence of both papers' networks, from the findings that come with zeroskip."""
    results = [result for result in papers.committed() if result.paper == "deep-compression"]
    found = {result.network: read_frontiers(result.findings) for result in results}
    parts = []
    for name, network in (("LeNet-300-100", "lenet-300-100"), ("LeNet-5", "lenet-5")):
        ours, theirs = reached(found[network]["frontier_plain"], 0), published.TABLE1[network]
        error = f"{theirs.error} % -> {theirs.error_after} %"
        parts.append(f"{name} {ours} (they: {error}, 12x, {theirs.rate}x)")
    return "; ".join(parts)


def reached(frontier: PrunedFrontier, place: int) -> str:
    point = frontier.points[place]
    times = frontier.stored_bytes_dense / point.stored_bytes["arithmetic"]
    errors = f"{100 * frontier.error_continued:.2f} % -> {100 * point.error_stored:.2f} %"
    return f"{errors}, {point.times_fewer:g}x, {times:.0f}x"


def test_the_mnist_figures_of_the_readme_are_those_that_come_with_zeroskip() -> None:
    assert mnist_sentence() in README.replace("\n", " ")


def in_blocks(network: str, sparsity: float, batch: int = 1) -> Case:
    return Case(network, sparsity, batch, pattern="1x4", precision="int8")


DENSE = [
    "torch eager fp32",
    "torch eager, contiguous fp32",
    "torch.compile fp32",
    "ONNX Runtime fp32",
    "OpenVINO fp32",
]
IN_INT8 = {
    "ResNet-50, 90 % zeros": in_blocks("resnet50", 0.90),
    "ResNet-50, 80 %": in_blocks("resnet50", 0.80),
    "ResNet-50, 90 %, 16 pictures": in_blocks("resnet50", 0.90, 16),
    "VGG-16, 90 %": in_blocks("vgg16", 0.90),
    "MobileNet-v1, 90 %": in_blocks("mobilenet_v1", 0.90),
    "AlexNet, 90 %": in_blocks("alexnet", 0.90),
    "EfficientNet-Lite0, trained, 80 %": in_blocks("efficientnet_lite0", 0.80),
}
ENGINES_IN_INT8 = {
    "OpenVINO int8": ["OpenVINO int8"],
    "ONNX Runtime int8": ["ONNX Runtime int8"],
    "zeroskip int8": ["zeroskip int8"],
    "best dense fp32": DENSE,
    "zeroskip fp32, free zeros": ["zeroskip, free zeros fp32"],
}
# The others stand in the guide.
IN_README = ("ResNet-50, 90 % zeros", "MobileNet-v1, 90 %", "EfficientNet-Lite0, trained, 80 %")
SENTENCES = {
    "BERT-base, 128 tokens, 90 % zeros": Case("bert_base", 0.90, tokens=128),
    "BERT-base, 128 tokens, 80 %": Case("bert_base", 0.80, tokens=128),
    "BERT-base, 384 tokens, 90 %": Case("bert_base", 0.90, tokens=384),
    "BERT-base, 16 x 128 tokens, 90 %": Case("bert_base", 0.90, batch=16, tokens=128),
    "MiniLM, 128 tokens, 90 %": Case("minilm", 0.90, tokens=128),
    "MiniLM, 16 tokens, 90 %": Case("minilm", 0.90, tokens=16),
    "ViT-tiny, 197 tokens, 80 %": Case("vit_tiny", 0.80, tokens=197),
}
# Column -> the precision of the case, so of our program, and the engines of which the fastest is shown.
ON_TOKENS = {
    "zeroskip int8": ("int8", ["zeroskip int8"]),
    "OpenVINO int8": ("int8", ["OpenVINO int8"]),
    "ONNX Runtime int8": ("int8", ["ONNX Runtime dynamic int8"]),
    "zeroskip fp32": ("fp32", ["zeroskip fp32"]),
    "DeepSparse fp32": ("fp32", ["DeepSparse fp32"]),
    "best dense fp32": ("fp32", DENSE),
    "OpenVINO bf16": ("fp32", ["OpenVINO bf16"]),
}
RACED = {
    "ResNet-50, 90 % zeros": Case("resnet50", 0.90),
    "ResNet-50, 95 %": Case("resnet50", 0.95),
    "VGG-16, 90 %": Case("vgg16", 0.90),
    "AlexNet, 90 %": Case("alexnet", 0.90),
    "MobileNet-v1, 90 %": Case("mobilenet_v1", 0.90),
    "ResNet-50, 90 %, 16 pictures": Case("resnet50", 0.90, batch=16),
    "MobileNet-v1, 90 %, 16 pictures": Case("mobilenet_v1", 0.90, batch=16),
}
RIVALS = {
    "DeepSparse": ["DeepSparse fp32"],
    "best dense fp32": DENSE,
    "torch, OpenVINO bf16": ["torch eager bf16", "OpenVINO bf16"],
    "OpenVINO int8": ["OpenVINO int8"],
}


def stored_race() -> dict[Case, RaceResult]:
    stored = (ROOT / "benchmarks" / "results").glob("*.json")
    (path,) = (one for one in stored if not one.name.startswith("activations-"))
    machine = json.loads(path.read_text())["machine"]
    return {result.case: result for result in Store(path, machine).load()}


def medians(result: RaceResult) -> dict[str, float]:
    return {label: median(runs) for label, runs in result.seconds.items()}


def fastest(seconds: dict[str, float], names: list[str]) -> str | None:
    return min((name for name in names if name in seconds), key=seconds.__getitem__, default=None)


def cell(result: RaceResult, names: list[str], ours: str = "zeroskip int8") -> str:
    """Time of the fastest; over ours; below fp32 how far the answer is from it."""
    seconds = medians(result)
    name = fastest(seconds, names)
    if name is None or ours not in seconds:
        return "-"
    ratio = "" if name == ours else f", {seconds[name] / seconds[ours]:.1f}x"
    error = "" if name.endswith("fp32") else f" ({result.difference[name]:.1%})"
    return f"{1e3 * seconds[name]:.3g} ms{ratio}{error}"


def layers_cell(results: list[RaceResult], names: list[str]) -> str:
    """Geometric mean over ours, with fp32 in and out for all; "-" where an engine lacks a layer."""
    ratios = [
        seconds[name] / seconds["zeroskip int8"]
        for seconds in map(medians, results)
        if (name := fastest(seconds, names)) is not None
    ]
    return f"{geometric_mean(ratios):.1f}x" if len(ratios) == len(LAYERS) else "-"


def int8_table(names: Iterable[str] = IN_INT8) -> str:
    """The table of engines in eight bits, from the stored results."""
    results = stored_race()
    lines = [f"| | {' | '.join(ENGINES_IN_INT8)} |", "|---" * (1 + len(ENGINES_IN_INT8)) + "|"]
    for name in names:
        if IN_INT8[name] in results:
            cells = [cell(results[IN_INT8[name]], engines) for engines in ENGINES_IN_INT8.values()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    layers = [results[case] for layer in LAYERS if (case := in_blocks(layer, 0.90)) in results]
    if len(layers) == len(LAYERS):
        cells = [layers_cell(layers, engines) for engines in ENGINES_IN_INT8.values()]
        lines.append(f"| 19 single layers, 90 %, mean | {' | '.join(cells)} |")
    return "\n".join(lines)


def transformer_table(results: Mapping[Case, RaceResult]) -> str:
    """The README's table of transformers; "" as long as none was raced."""
    lines = [f"| | {' | '.join(ON_TOKENS)} |", "|---" * (1 + len(ON_TOKENS)) + "|"]
    for name, free in SENTENCES.items():
        cases = {"fp32": free, "int8": replace(free, pattern="1x4", precision="int8")}
        if not results.keys().isdisjoint(cases.values()):
            cells = [
                cell(results[cases[precision]], names, f"zeroskip {precision}")
                if cases[precision] in results
                else "-"
                for precision, names in ON_TOKENS.values()
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def engine_table() -> str:
    """The guide's table of the race in fp32, from the stored results."""
    results = stored_race()
    lines = [f"| | zeroskip | {' | '.join(RIVALS)} |", "|---|---|---|---|---|---|"]
    for name, case in RACED.items():
        seconds = medians(results[case])
        ours = seconds["zeroskip fp32"]
        best = [fastest(seconds, names) for names in RIVALS.values()]
        cells = [f"{seconds[each] / ours:.1f}x" if each else "-" for each in best]
        lines.append(f"| {name} | {1e3 * ours:.3g} ms | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_figures_of_engines_are_those_of_the_stored_race() -> None:
    guide = (ROOT / "docs" / "ENGINE.md").read_text()
    assert int8_table(IN_README) in README
    assert transformer_table(stored_race()) in README
    assert engine_table() in guide
    assert int8_table() in guide


def test_a_table_of_transformers_compares_each_engine_with_our_program_of_its_precision() -> None:
    def raced(case: Case, **seconds: float) -> RaceResult:
        times = {label.replace("_", " "): (each,) for label, each in seconds.items()}
        return RaceResult(case, times, dict.fromkeys(times, 0.012), {}, {}, 1, 9, "2026-12-01")

    free = Case("minilm", 0.90, tokens=16)
    blocks = replace(free, pattern="1x4", precision="int8")
    fp32 = {"torch_eager_fp32": 0.009, "OpenVINO_fp32": 0.008, "OpenVINO_bf16": 0.003, "zeroskip_fp32": 0.002}
    made = {
        free: raced(free, **fp32),
        blocks: raced(blocks, torch_eager_fp32=0.009, OpenVINO_int8=0.003, zeroskip_int8=0.001),
    }
    assert transformer_table(made).splitlines()[2:] == [
        "| MiniLM, 16 tokens, 90 % | 1 ms (1.2%) | 3 ms, 3.0x (1.2%) | - | 2 ms | - | 8 ms, 4.0x | 3 ms, 1.5x (1.2%) |"
    ]
    assert transformer_table({blocks: made[blocks]}).endswith("3.0x (1.2%) | - | - | - | - | - |")
    assert transformer_table({}) == ""
