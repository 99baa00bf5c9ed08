"""The command that writes what a run left behind for other engines. Its docstring is the --help."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zeroskip.cli.options import DATA, JSON, app, load_task, print_json, say
from zeroskip.errors import RunError

if TYPE_CHECKING:
    from zeroskip.run import OnnxDifference
    from zeroskip.task_api import Task

RUN = typer.Argument(metavar="RUN", help="The folder that `zeroskip sparsify` made.")
ONNX = typer.Option(metavar="FILE", help="The ONNX file to write.")
TASK = typer.Option(
    metavar="TASK",
    help="The run's task; needed where it is a file of yours that does not lie in this folder.",
)


@app.command()
def export(
    run: Annotated[Path, RUN],
    onnx: Annotated[Path, ONNX],
    task: Annotated[str | None, TASK] = None,
    data: Annotated[Path | None, DATA] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write a run's sparse network as an ONNX file, in eight bits where the run is.

    In eight bits, weights are int8, and pairs of QuantizeLinear and DequantizeLinear stand where our program rounds;
    layers that lose too much stay in fp32. At the end, ONNX Runtime answers the task's batch, beside our program.
    Needs: pip install 'zeroskip[onnx]'
    """
    from zeroskip import run as running
    from zeroskip import run_folder, task_api
    from zeroskip.run.onnx_package import package

    package("onnxruntime")
    folder = run_folder.shown(run)
    stored = run_folder.scales(folder)
    loaded = _task(folder, task, data)
    model = task_api.model(loaded, run_folder.load_tensors(folder / "sparse.safetensors"))
    quantisation = None if stored is None else running.quantisation.load(stored)
    batch = task_api.batch(loaded)
    written = running.save_onnx(model, batch, onnx, quantisation=quantisation)
    found = running.onnx_difference(written, model, batch, quantisation=quantisation)
    size = written.stat().st_size
    if as_json:
        print_json({"written": str(written), "bytes": size, **asdict(found)})
    else:
        say(f"wrote {written}, {size:,} bytes, {found.layers_in_bytes} layers in eight bits")
        say(_sentence(found))


def _task(folder: Path, word: str | None, data: Path | None) -> Task:
    """The task that the run was made with: the one of this name, or the file of this name in the current folder."""
    from zeroskip import files, task_api
    from zeroskip.tasks import built_in

    owner = files.read_json(folder / "run.json")
    made = str(owner.get("task", "")) if isinstance(owner, dict) else ""
    name = made.split(" ")[0]
    known = name in {task.name for task in built_in.BUILT_IN}
    if word is None and not known and not Path(f"{name}.py").is_file():
        raise RunError(
            f"{folder} was made with the task file {name}.py, which is not here. Give it: --task FILE."
        )
    loaded = load_task(word or (name if known else f"{name}.py"), data)
    if task_api.identity(loaded) != made:
        raise RunError(
            f"{folder} was made with the task {made}, not {task_api.identity(loaded)}: its file was changed since, or "
            "it is another one. Give the one that the run was made with: --task FILE."
        )
    return loaded


def _sentence(found: OnnxDifference) -> str:
    steps = "" if found.steps is None else f", {found.steps:.2g} steps of the last scale"
    return (
        f"ONNX Runtime's answers to the task's batch are at most {found.share:.2g} of the largest output{steps} away "
        "from those of our program"
    )
