"""The RUN folder: what a run needs to continue after being killed, and what its report shows.

    run.json                the command that owns the folder
    dense.safetensors       the network before pruning
    profile.json            what was measured of it
    recipe.json             the rounds to go
    rounds/003.safetensors  the weights after attempt 3, and rounds/003.json its point of the trade-off
    unfinished.safetensors  a training between two epochs, tagged with the stage it belongs to
    sparse.safetensors      the outcome
    model.zs                the outcome, packed
    history.json            the points of the trade-off;  engine.json  kernels chosen, seconds, bytes
    summary.json            the figures;  report.html  the pictures

Every file is written whole or not at all, so whatever is there can be trusted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from zeroskip import files
from zeroskip.concepts import Choice, Packed, Point, Profile, Record, Timing, TrainState
from zeroskip.errors import FileError, RunError


def claim(folder: str | Path, command: dict[str, Any]) -> Path:
    """Make `folder` the RUN folder of `command`, or continue the same command's run in it.

    Raises RunError where the folder belongs to another command or holds other files.

    >>> claim("runs/demo", {"task": "digits", "seed": 0})
    PosixPath('runs/demo')
    """
    path = files.folder(folder)
    owner = path / "run.json"
    if owner.exists():
        before = files.read_json(owner)
        if before != command:
            changed = [key for key in sorted({*before, *command}) if before.get(key) != command.get(key)]
            told = ", ".join(f"{key} {before.get(key)!r}, now {command.get(key)!r}" for key in changed)
            raise RunError(
                f"{path} holds a run with other settings ({told}). Choose another --out, or delete the folder."
            )
    elif any(one for one in path.iterdir() if not one.name.startswith(".")):
        raise RunError(f"{path} is not empty and not a RUN folder. Choose another --out.")
    else:
        files.write_json(owner, command)
    return path


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], *, through: bool = True) -> Path:
    """Write named tensors as safetensors, whole or not at all.

    >>> save_tensors("dense.safetensors", model.state_dict())
    PosixPath('dense.safetensors')
    """
    # Tied tensors share storage, which safetensors refuses: a copy each is always right.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    return files.write(path, safetensors.torch.save(copies), through=through)


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read named tensors from a safetensors file; FileError where it is absent, damaged or another format.

    >>> load_tensors("dense.safetensors")["fc1.weight"].shape
    torch.Size([300, 784])
    """
    try:
        return safetensors.torch.load(files.read(path))
    except SafetensorError as fact:
        raise FileError(
            f"{path} is not a readable safetensors file ({fact}). Save weights with "
            f'safetensors.torch.save_file(model.state_dict(), "weights.safetensors"); pickled files are never read.'
        ) from None


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A short text that changes whenever one of the tensors does.

    >>> fingerprint({"weight": torch.zeros(2)})
    '6ab5bd2bcfb0'
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def unfinished(folder: Path, stage: str) -> TrainState | None:
    """The training state that `keep_unfinished` left for this stage, if any.

    >>> unfinished(Path("runs/demo"), "dense") is None
    True
    """
    path = folder / "unfinished.safetensors"
    if not path.exists():
        return None
    try:
        state = load_tensors(path)
        tag = bytes(state.pop("stage").tolist()).decode()
    except (FileError, KeyError, UnicodeDecodeError):
        return None  # a power cut may leave it damaged: then the training starts over
    return state if tag == stage else None


def keep_unfinished(folder: Path, stage: str, state: TrainState) -> None:
    """Keep the state of a training between two epochs.

    >>> keep_unfinished(Path("runs/demo"), "dense", state)
    """
    tag = torch.tensor(list(stage.encode()), dtype=torch.uint8)
    # Often, and soon outdated: worth surviving a killed process, not worth waiting for the disk.
    save_tensors(folder / "unfinished.safetensors", {**state, "stage": tag}, through=False)


def save_json(path: str | Path, value: Any) -> Path:
    """Write a noun, or a list of nouns, as JSON.

    >>> save_json("profile.json", profile)
    PosixPath('profile.json')
    """
    plain = (
        [dataclasses.asdict(one) for one in value]
        if isinstance(value, list | tuple)
        else dataclasses.asdict(value)
    )
    return files.write_json(path, plain)


def save_findings(
    folder: Path,
    history: tuple[Point, ...],
    choices: tuple[Choice, ...],
    timings: list[Timing],
    packed: Packed,
) -> None:
    """Store what `load` and the report need beyond weights, profile and summary.

    >>> save_findings(Path("runs/demo"), sparse.history, program.choices, [timing], packed)
    """
    save_json(folder / "history.json", history)
    engine = {
        name: [dataclasses.asdict(one) for one in nouns]
        for name, nouns in (("choices", choices), ("timings", timings))
    }
    files.write_json(folder / "engine.json", {**engine, "ledger": packed.ledger})


def finish(folder: Path, summary: dict[str, Any]) -> None:
    """Write the summary, which vouches for everything else, and drop what only a continuation needs.

    >>> finish(Path("runs/demo"), summary)
    """
    files.write_json(folder / "summary.json", summary)
    for pattern in ("unfinished.safetensors", ".*.part"):
        for path in folder.rglob(pattern):
            path.unlink(missing_ok=True)


def from_json(kind: Any, value: Any) -> Any:
    """A noun of type `kind` (a dataclass, or tuple, dict, number, text) from its JSON value.

    Raises RunError where the value has another form.

    >>> from_json(tuple[int, ...], [1, 2])
    (1, 2)
    """
    try:
        return _decode(kind, value)
    except (TypeError, ValueError, KeyError, AttributeError) as fact:
        raise RunError(
            f"a file of the RUN folder is damaged: {fact}. Delete the folder and run again."
        ) from None


def load(folder: str | Path) -> Record:
    """What a finished run left behind. Raises RunError where it is absent or not finished.

    >>> load("runs/demo").summary["weights_times_fewer"]
    24.8
    """
    path = Path(folder)
    if not (path / "summary.json").exists():
        state = (
            "not finished: run the same command again" if (path / "run.json").exists() else "not a RUN folder"
        )
        raise RunError(f"{path} is {state}. `zeroskip sparsify TASK --out {path}` makes one.")
    summary = files.read_json(path / "summary.json")
    shown = path / summary["shown"] if "shown" in summary else path  # with several seeds: the median one
    engine = files.read_json(shown / "engine.json")
    if not isinstance(engine, dict) or not {"choices", "timings", "ledger"} <= set(engine):
        raise RunError(f"{shown / 'engine.json'} is damaged. Delete the folder and run again.")
    profile = from_json(Profile, files.read_json(shown / "profile.json"))
    dense, sparse = (load_tensors(shown / f"{which}.safetensors") for which in ("dense", "sparse"))
    names = {layer.name: f"{layer.name}.weight".removeprefix(".") for layer in profile.layers}
    return Record(
        folder=str(path),
        summary=summary,
        profile=profile,
        history=from_json(tuple[Point, ...], files.read_json(shown / "history.json")),
        choices=from_json(tuple[Choice, ...], engine["choices"]),
        timings=from_json(tuple[Timing, ...], engine["timings"]),
        ledger=engine["ledger"],
        dense_weights={name: dense[key] for name, key in names.items()},
        sparse_weights={name: sparse[key] for name, key in names.items()},
    )


def _decode(kind: Any, value: Any) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _decode(hints[name], one) for name, one in value.items()})  # type: ignore[operator]
    if origin is tuple:
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_decode(one, item) for one, item in zip(kinds, value, strict=True))
    if origin is dict:
        # JSON knows only text as keys: {"0.9": ...} goes back to {0.9: ...}.
        return {_decode(inner[0], key): _decode(inner[1], one) for key, one in value.items()}
    if origin in (typing.Union, types.UnionType) or kind is Any:
        return value
    return kind(value)
