"""The whole journey, and what comes after pruning: pack, run, report. Their docstrings are the --help."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from zeroskip.cli.options import (
    DATA,
    DOWNLOAD,
    JSON,
    PATTERN,
    RISE,
    TASK,
    THREADS,
    WEIGHTS,
    app,
    load_task,
    load_weights,
    note,
    print_json,
    progress_bars,
    say,
    show,
    use_data,
)
from zeroskip.errors import RecipeError


@app.command()
def sparsify(
    task: Annotated[str, TASK],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Folder for everything the run leaves behind.")],
    seeds: Annotated[int, typer.Option(min=1, help="Repeat with this many seeds and report means.")] = 1,
    pattern: Annotated[str, PATTERN] = "free",
    max_error_rise: Annotated[float | None, RISE] = None,
    sparsity: Annotated[
        float | None,
        typer.Option(
            help="Prune to this share of zeros in the course of one training, whatever the error, instead of rounds "
            "within a budget: far fewer weights where train() takes on_step and uses Adam."
        ),
    ] = None,
    bits: Annotated[
        int | None, typer.Option(min=1, max=16, help="Let each layer share 2^BITS trained values.")
    ] = None,
    weights: Annotated[Path | None, WEIGHTS] = None,
    threads: Annotated[int, THREADS] = 1,
    data: Annotated[Path | None, DATA] = None,
    download: Annotated[bool, DOWNLOAD] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """The whole journey: train, measure, prune, retrain, pack, run. Ends with a table and a verdict.

    Writes report.html, summary.json, model.zs and sparse.safetensors into RUN. Killed at any moment and
    started again with the same words, it continues where it was.
    """
    from zeroskip import journey, report, task_api

    loaded = load_task(task, data, download)
    options: dict[str, Any] = {
        "pattern": pattern,
        "max_error_rise": max_error_rise,
        "sparsity": sparsity,
        "bits": bits,
        "weights": load_weights(weights),
        "threads": threads,
    }
    if (out / "summary.json").exists():
        note(f"{out} is finished; its figures are shown again. Another --out runs anew.")
    with progress_bars() as progress:
        if seeds > 1:
            record = journey.sparsify_seeds(loaded, out, seeds=seeds, progress=progress, **options)
        else:
            record = journey.sparsify(loaded, out, progress=progress, **options)
    if not as_json and (sizes := task_api.split_sizes(loaded)):
        say(f"{task}: " + ", ".join(f"{count:,} {split}" for split, count in sizes.items()) + " examples")
    tables = [report.summary_table(record), report.layer_table(record)]
    tables += [report.timing_table(timing) for timing in record.timings]
    tables += [report.seeds_table(record)] if seeds > 1 else []
    show(record.summary, *tables, as_json=as_json)
    if not as_json:
        say(f"wrote {out / 'report.html'}, {out / 'summary.json'}")
        say(str(record.summary["verdict"]))


@app.command()
def pack(
    task: Annotated[str, TASK],
    sparse: Annotated[Path, typer.Argument(metavar="SPARSE", help="Weights to store (safetensors).")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The .zs file to write.")],
    bits: Annotated[
        int | None,
        typer.Option(
            min=1, max=16, help="Let each layer's weights share 2^BITS values; default: stored exactly."
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=0, help="With --bits: train the shared values for so long, default 4; 0: k-means alone."
        ),
    ] = None,
    coder: Annotated[
        str, typer.Option(help="fixed, huffman, or arithmetic: the smallest file, and the slowest to read.")
    ] = "huffman",
    index_bits: Annotated[
        int | None, typer.Option(min=2, max=16, help="Width of the gaps; default: the best for each layer.")
    ] = None,
    data: Annotated[Path | None, DATA] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Store sparse weights as a .zs file, and say where its bytes go.

    Without --bits the file holds the very weights. With --bits it holds few values a layer, trained on the task
    (Deep Compression); the error before and after is shown.
    """
    from zeroskip import pack as packing
    from zeroskip import report, retrain, run_folder, task_api

    if epochs is not None and bits is None:
        raise RecipeError("--epochs goes with --bits: without shared values nothing is trained.")
    packing.encode({}, coder=coder)  # an unknown coder is better known before the training
    loaded = load_task(task, data)
    model = task_api.model(loaded, run_folder.load_tensors(sparse))  # refuses weights of another network
    small, errors = retrain.as_sparse(model), {}
    if bits is not None:
        with progress_bars() as progress:
            errors["error_given"] = task_api.evaluate(loaded, model, "validation")
            small = retrain.centroids(
                small, loaded, bits=bits, progress=progress, epochs=4 if epochs is None else epochs
            )
            errors["error_shared"] = small.history[-1].error
    widths = None if index_bits is None else {f"{name}.weight": index_bits for name in small.masks}
    packed = packing.encode(small, coder=coder, index_bits=widths)
    packing.save(packed, out)
    figures = {"written": str(out), "stored_bytes": packed.stored_bytes, "ledger": packed.ledger, **errors}
    figures["escapes"] = {one.name: one.escapes for one in packed.tensors}
    show(figures, report.ledger_table(packed.ledger), as_json=as_json)
    if not as_json:
        for name, error in errors.items():
            say(f"{name.removeprefix('error_')} weights: validation error {report.show_error(error)}")
        say(f"wrote {out}, {packed.stored_bytes:,} bytes; next: zeroskip run {task} {out}")


@app.command()
def unpack(
    packed: Annotated[Path, typer.Argument(metavar="FILE", help="The .zs file to read.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the plain weights go (safetensors).")],
    prototxt: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="FILE is a .net of Deep Compression's authors; this is its network."
        ),
    ] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Turn a .zs file back into plain weights, checked, exactly as they were."""
    from zeroskip import pack as packing
    from zeroskip import run_folder

    if prototxt is None:
        tensors = packing.decode(packing.load(packed))
    else:
        tensors = packing.read_deep_compression(packed, prototxt)
    run_folder.save_tensors(out, tensors)
    if as_json:
        print_json({"written": str(out), "tensors": {name: list(one.shape) for name, one in tensors.items()}})
    else:
        say(f"wrote {out}: {len(tensors)} tensors, {sum(one.numel() for one in tensors.values()):,} values")


@app.command()
def run(
    task: Annotated[str, TASK],
    packed: Annotated[Path, typer.Argument(metavar="FILE", help="The .zs file to run.")],
    batch: Annotated[
        int | None, typer.Option(min=1, help="Inputs per call; default: 1, and the task's batch.")
    ] = None,
    threads: Annotated[int, THREADS] = 1,
    data: Annotated[Path | None, DATA] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Run a .zs file beside every dense engine on this machine, and give the error of what runs."""
    from zeroskip import journey, report, task_api
    from zeroskip import pack as packing
    from zeroskip import run as running

    loaded = load_task(task, data)
    model = task_api.model(loaded, packing.decode(packing.load(packed)))
    with progress_bars() as progress:
        raced = journey.race(loaded, model, batch=batch, threads=threads, progress=progress)
    program, timings = raced[0][0], [timing for _, timing in raced]
    error = task_api.evaluate(loaded, running.as_module(program, model), "test")
    figures = {
        "error_run": error,
        "choices": [asdict(one) for one in program.choices],
        "timings": [asdict(one) for one in timings],
    }
    show(figures, report.choice_table(program.choices), *map(report.timing_table, timings), as_json=as_json)
    if not as_json:
        say(f"error of what runs, test split: {report.show_error(error)}")


@app.command()
def report(
    runs_: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="One RUN folder, or several to compare.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the page goes; default: report.html in the first RUN."),
    ] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write the HTML report of one run, or compare several."""
    from zeroskip import report as reporting
    from zeroskip import run_folder

    records = [run_folder.load(one) for one in runs_]
    path = reporting.html(out or runs_[0] / "report.html", *records)
    table = (
        reporting.summary_table(records[0])
        if len(records) == 1
        else reporting.comparison_table(tuple(records))
    )
    show({"written": str(path), "runs": [record.summary for record in records]}, table, as_json=as_json)
    if not as_json:
        say(f"wrote {path}")


@app.command()
def doctor(
    data: Annotated[Path | None, DATA] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """This machine: what it is, which kernels it can run, which data sets are found."""
    from zeroskip.doctor import examine
    from zeroskip.doctor import show as table

    use_data(data)
    found = examine()
    show(found, table(found), as_json=as_json)
