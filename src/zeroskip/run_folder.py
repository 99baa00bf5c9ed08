"""The RUN folder: what a run needs to continue after being killed, and what its report shows.

    run.json                the command that owns the folder
    dense.safetensors       the network before pruning
    profile.json            what was measured of it
    recipe.json             the rounds to go
    rounds/003.safetensors  the weights after attempt 3, and rounds/003.json its point of the trade-off
    unfinished.safetensors  a training between two epochs, tagged with the stage it belongs to
    sparse.safetensors      the outcome
    model.zs                the outcome, packed
    quantisation.safetensors  in int8: the scales of its values and weights
    history.json            the points of the trade-off;  engine.json  kernels chosen, seconds, bytes
    summary.json            the figures;  report.html  the pictures

Every file is written whole or not at all, so whatever is there can be trusted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from zeroskip import files
from zeroskip.concepts import Choice, Packed, Point, Profile, Record, Summary, Timing, TrainState
from zeroskip.errors import FileError, RunError

_Noun = TypeVar("_Noun")

QUANTISATION = "quantisation.safetensors"
"""The scales of a run in eight bits, beside its model.zs."""

# The kernels that skip no zeros in runs stored before `Choice.skips`.
_DENSE_KERNELS = ("dense", "dense_bf16", "channels_last", "depthwise", "depthwise_fp16")


def claim(folder: str | Path, command: Mapping[str, object]) -> Path:
    """Make `folder` the RUN folder of `command`, or continue the same command's run in it.

    Raises RunError where the folder belongs to another command or holds other files.

    >>> claim("runs/demo", {"task": "digits", "seed": 0})
    PosixPath('runs/demo')
    >>> claim("runs/demo", {"task": "digits", "seed": 1})
    Traceback (most recent call last):
    zeroskip.errors.RunError: runs/demo holds a run with other settings (seed 0, now 1). Choose another --out, ...
    """
    path = files.folder(folder)
    owner = path / "run.json"
    if owner.exists():
        before = files.read_json(owner)
        if before != command:
            changed = [key for key in sorted({*before, *command}) if before.get(key) != command.get(key)]
            pairs = [[each.get(key, "not given") for each in (before, command)] for key in changed]
            changes = ", ".join(
                f"{key} {old!r}, now {new!r}" for key, (old, new) in zip(changed, pairs, strict=True)
            )
            what = f"{path} holds a run with other settings ({changes})"
            raise RunError(f"{what}. Choose another --out, or delete the folder.")
    elif any(not file.name.startswith(".") for file in path.iterdir()):
        raise RunError(f"{path} is not empty and not a RUN folder. Choose another --out.")
    else:
        files.write_json(owner, command)
    return path


def scales(folder: Path) -> Path | None:
    """The file with the scales of a run in eight bits; None for one in fp32. RunError where it is gone.

    >>> print(scales(Path(".")))
    None
    """
    stored, owner = folder / QUANTISATION, folder / "run.json"
    if stored.exists():
        return stored
    if owner.exists() and files.read_json(owner).get("precision") == "int8":
        raise RunError(
            f"{folder} is of a run in eight bits, and its {QUANTISATION} is gone. Run `zeroskip sparsify` into another "
            "folder, or compute in fp32: `zeroskip run TASK RUN --precision fp32`."
        )
    return None


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], *, through: bool = True) -> Path:
    """Write named tensors as safetensors, whole or not at all."""
    # Tied tensors share storage, which safetensors refuses: a copy each is always right.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    return files.write(path, safetensors.torch.save(copies), through=through)


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read named tensors from a safetensors file; FileError where it is absent, damaged or another format.

    >>> load_tensors(save_tensors("dense.safetensors", model.state_dict()))["fc1.weight"].shape
    torch.Size([8, 6])
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

    >>> fingerprint({"weight": torch.zeros(2)}) == fingerprint({"weight": torch.tensor([0.0, -0.0])})
    False
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def unfinished(folder: Path, stage: str) -> TrainState | None:
    """The training state that `keep_unfinished` left for this stage, if any."""
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

    >>> keep_unfinished(Path(), "dense", {"epoch": torch.tensor(2)})
    >>> unfinished(Path(), "dense")
    {'epoch': tensor(2)}
    """
    tag = torch.tensor(list(stage.encode()), dtype=torch.uint8)
    # Often, and soon outdated: worth surviving a killed process, not worth waiting for the disk.
    save_tensors(folder / "unfinished.safetensors", {**state, "stage": tag}, through=False)


def save_json(path: str | Path, value: Any) -> Path:
    """Write a noun, or a sequence of nouns, as JSON."""
    plain = _plain(value) if isinstance(value, list | tuple) else dataclasses.asdict(value)
    return files.write_json(path, plain)


def save_findings(
    folder: Path,
    history: tuple[Point, ...],
    choices: tuple[Choice, ...],
    timings: Sequence[Timing],
    packed: Packed,
) -> None:
    """Store what `load` and the report need beyond weights, profile and summary."""
    save_json(folder / "history.json", history)
    engine = {"choices": _plain(choices), "timings": _plain(timings), "ledger": packed.ledger}
    files.write_json(folder / "engine.json", engine)


def finish(folder: Path, summary: Summary) -> None:
    """Write the summary, which vouches for everything else, and drop what only a continuation needs."""
    files.write_json(folder / "summary.json", summary.to_json())
    for pattern in ("unfinished.safetensors", ".*.part"):
        for path in folder.rglob(pattern):
            path.unlink(missing_ok=True)


def from_json(kind: type[_Noun], value: object) -> _Noun:
    """A noun of type `kind` (a dataclass, or tuple, dict, number, text) from its JSON value.

    Raises RunError where the value has another form.
    """
    try:
        decoded: _Noun = _decode(kind, value)
    except (TypeError, ValueError, KeyError, AttributeError) as fact:
        reason = re.sub(r".*__init__\(\) missing .*?: ", "it lacks ", str(fact))
        raise RunError(f"a file of the RUN folder is damaged: {reason}. Delete it and run again.") from None
    return decoded


def load(folder: str | Path) -> Record:
    """What a finished run left behind. Raises RunError where it is absent or not finished.

    >>> load("runs/demo")
    Traceback (most recent call last):
    zeroskip.errors.RunError: runs/demo is not a RUN folder. `zeroskip sparsify TASK --out runs/demo` makes one.
    """
    path, values = Path(folder), _summary(folder)
    if isinstance(values, dict):  # older versions wrote more
        known = {field.name for field in dataclasses.fields(Summary)}
        values = {name: value for name, value in values.items() if name in known}
    summary = from_json(Summary, values)
    shown = path / summary.shown  # with several seeds: the median one
    engine = files.read_json(shown / "engine.json")
    if not isinstance(engine, dict) or not {"choices", "timings", "ledger"} <= set(engine):
        raise RunError(f"{shown / 'engine.json'} is damaged. Delete the folder and run again.")
    profile = from_json(Profile, files.read_json(shown / "profile.json"))
    dense, sparse = (load_tensors(shown / f"{which}.safetensors") for which in ("dense", "sparse"))
    names = [layer.name for layer in profile.layers]
    return Record(
        folder=str(path),
        summary=summary,
        profile=profile,
        history=from_json(tuple[Point, ...], files.read_json(shown / "history.json")),
        choices=from_json(tuple[Choice, ...], [_choice(value) for value in engine["choices"]]),
        timings=from_json(tuple[Timing, ...], engine["timings"]),
        ledger=engine["ledger"],
        dense_weights=_weights(dense, names),
        sparse_weights=_weights(sparse, names),
    )


def shown(folder: str | Path) -> Path:
    """The folder with the weights of a finished run: of several seeds, that of the median one. RunError as `load`.

    >>> files.write_json("runs/three/summary.json", {"shown": "seed-1"})
    PosixPath('runs/three/summary.json')
    >>> shown("runs/three")
    PosixPath('runs/three/seed-1')
    """
    values = _summary(folder)
    if not isinstance(values, dict) or not isinstance(inside := values.get("shown", ""), str):
        raise RunError(f"{Path(folder) / 'summary.json'} is damaged. Delete it and run again.")
    return Path(folder) / inside


def _summary(folder: str | Path) -> object:
    """What summary.json holds; RunError where the run is absent or not finished."""
    path = Path(folder)
    if not (path / "summary.json").exists():
        is_begun = (path / "run.json").exists()
        state = "not finished: run the same command again" if is_begun else "not a RUN folder"
        raise RunError(f"{path} is {state}. `zeroskip sparsify TASK --out {path}` makes one.")
    found: object = files.read_json(path / "summary.json")
    return found


def _weights(tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Name of a weight -> it: "fc1" is stored as "fc1.weight", "lstm.weight_hh_l0" under its own name."""
    keys = {name: (f"{name}.weight".removeprefix("."), name) for name in names}
    return {name: tensors[key] for name, forms in keys.items() for key in forms if key in tensors}


def _plain(nouns: Sequence[Any]) -> list[object]:
    return [dataclasses.asdict(noun) for noun in nouns]


def _choice(value: object) -> object:
    """A stored choice; before kernels said what they skip, their names did."""
    if not isinstance(value, dict) or "skips" in value:
        return value
    return value | {"skips": "nothing" if value.get("kernel") in _DENSE_KERNELS else "weights"}


def _decode(kind: Any, value: Any) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if hasattr(kind, "from_json"):
        return kind.from_json(value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _decode(hints[name], part) for name, part in value.items()})  # type: ignore[operator]
    if origin is tuple:
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_decode(inside, item) for inside, item in zip(kinds, value, strict=True))
    if origin in (dict, Mapping):
        # JSON knows only text as keys: {"0.9": ...} goes back to {0.9: ...}.
        return {_decode(inner[0], key): _decode(inner[1], part) for key, part in value.items()}
    if origin in (typing.Union, types.UnionType) or kind is Any:
        nouns = [each for each in inner if dataclasses.is_dataclass(each) and isinstance(value, dict)]
        return _decode(nouns[0], value) if nouns else value
    return kind(value)
