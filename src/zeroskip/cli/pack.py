"""The commands that write and read .zs files. Their docstrings are the --help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zeroskip.cli.options import DATA, JSON, TASK, app, load_task, note, progress_bars, say, show
from zeroskip.errors import RecipeError

BITS = typer.Option(
    min=1, max=16, help="Let each layer's weights share 2^BITS values; default: stored exactly."
)
EPOCHS = typer.Option(
    min=0, help="With --bits: train the shared values for so long, default 4; 0: k-means alone."
)
CODER = typer.Option(help="fixed, huffman, or arithmetic: the smallest file, and the slowest to read.")
INDEX_BITS = typer.Option(min=2, max=16, help="Width of the gaps; default: the best for each layer.")
PROTOTXT = typer.Option(
    metavar="FILE", help="FILE is a .net of Deep Compression's authors; this is its network."
)


@app.command()
def pack(
    task: Annotated[str, TASK],
    sparse: Annotated[Path, typer.Argument(metavar="SPARSE", help="Weights to store (safetensors).")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The .zs file to write.")],
    bits: Annotated[int | None, BITS] = None,
    epochs: Annotated[int | None, EPOCHS] = None,
    coder: Annotated[str, CODER] = "huffman",
    index_bits: Annotated[int | None, INDEX_BITS] = None,
    data: Annotated[Path | None, DATA] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Store sparse weights as a .zs file, and say where its bytes go and how each tensor is coded.

    Without --bits the file holds the very weights, but for -0.0, which becomes 0.0. With --bits it holds few values a
    layer, trained on the task (Deep Compression); the error before and after is shown. Blocks of zeros, such as 1x4,
    and weights that are bytes times a scale are found.
    """
    from zeroskip import graph, prune, report, retrain, run_folder, task_api
    from zeroskip import pack as packing

    if epochs is not None and bits is None:
        raise RecipeError("--epochs goes with --bits: without shared values nothing is trained.")
    packing.encode({}, coder=coder)  # an unknown coder is better known before the training
    loaded = load_task(task, data)
    model = task_api.model(loaded, run_folder.load_tensors(sparse))  # refuses weights of another network
    if negative := prune.plain_zeros_(model):
        note(
            f"{negative:,} numbers were -0.0, as products with masks leave them, and are stored as 0.0: -0.0 takes the "
            f"bytes of a number. w.masked_fill(~mask, 0.0), and not w * mask, makes 0.0."
        )
    small, errors = retrain.as_sparse(model), {}
    if bits is not None:
        with progress_bars() as progress:
            errors["error_given"] = task_api.evaluate(loaded, model, "validation")
            recipe = retrain.CodebookRecipe(bits=bits, train={"epochs": 4 if epochs is None else epochs})
            small = retrain.centroids(small, recipe, loaded, progress=progress)
            errors["error_shared"] = small.history[-1].error
    stored = {weight.stored for weight in graph.weights(small.model).values()} & set(small.model.state_dict())
    widths = None if index_bits is None else dict.fromkeys(sorted(stored), index_bits)
    packed = packing.encode(small, coder=coder, index_bits=widths)
    packing.save(packed, out)
    figures = {"written": str(out), "stored_bytes": packed.stored_bytes, "ledger": packed.ledger, **errors}
    figures["escapes"] = {tensor.name: tensor.escapes for tensor in packed.tensors}
    figures["weights"] = sum(mask.numel() for mask in small.masks.values())
    figures["weights_kept"] = sum(int(mask.sum()) for mask in small.masks.values())
    figures |= {"tied": packed.tied, "negative_zeros": negative, "codings": packing.codings(packed)}
    show(figures, report.ledger_table(packed.ledger, packing.codings(packed)), as_json=as_json)
    if not as_json:
        for name, error in errors.items():
            say(f"{name.removeprefix('error_')} weights: validation error {report.show_error(error)}")
        say(f"{figures['weights_kept']:,} of {figures['weights']:,} weights of the network are not zero")
        say(f"wrote {out}, {packed.stored_bytes:,} bytes; next: zeroskip run {task} {out}")


@app.command()
def unpack(
    packed: Annotated[Path, typer.Argument(metavar="FILE", help="The .zs file to read.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the plain weights go (safetensors).")],
    prototxt: Annotated[Path | None, PROTOTXT] = None,
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
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    values = sum(tensor.numel() for tensor in tensors.values())
    show({"written": str(out), "tensors": shapes}, as_json=as_json)
    if not as_json:
        say(f"wrote {out}: {len(tensors)} tensors, {values:,} values")
