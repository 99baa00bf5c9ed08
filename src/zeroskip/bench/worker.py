"""One engine in a process of its own: orders come as JSON lines on stdin, answers go to stdout.

    python worker.py ENGINE THREADS
    {"do": "build", "folder": ..., "case": {...}}   -> {"ok": true}, after the first two calls
    {"do": "time", "seconds": 0.05, "cold": false, "clock": "wall"}  -> {"ok": true, "seconds": [...]} of calls
    {"do": "answer"}                                -> {"ok": true, "shape": [...]}, a line; then float32 bytes

The first line says which versions were loaded; whatever goes wrong is {"error": reason}. The file is run by its path
and imports engines when asked for: their environments may have neither zeroskip nor torch, and Python 3.8 or later.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

    EngineCall = Callable[[], object]

STREAMED = 200_000_000  # bytes that go through the caches before each call of a cold case
SHORTEST = 2e-4  # seconds that are read from the clock at once: it takes up to a microsecond itself
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SET_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Order:
    """A line on stdin. do: "build" a case in a folder, "time" it for about so many seconds, or "answer".

    >>> Order("time", seconds=0.05).to_json()
    {'do': 'time', 'seconds': 0.05, 'cold': False, 'clock': 'wall'}
    """

    do: str
    folder: str = ""
    case: Mapping[str, object] | None = None
    seconds: float = 0.0
    cold: bool = False
    clock: str = "wall"

    def to_json(self) -> dict[str, object]:
        """What the worker has to know for it."""
        names = {"build": ("do", "folder", "case"), "time": ("do", "seconds", "cold", "clock")}
        return {name: getattr(self, name) for name in names.get(self.do, ("do",))}

    @staticmethod
    def from_json(value: Mapping[str, object]) -> Order:
        """ValueError where it is none."""
        if value.get("do") not in ("build", "time", "answer"):
            raise ValueError(f"there is no order {value.get('do')!r}")
        return Order(**value)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Reply:
    """A line on stdout: what was asked for, or why there is none.

    versions  of the libraries, in the first line;  shape: of the array that follows
    """

    versions: dict[str, str] | None = None
    seconds: list[float] | None = None
    shape: list[int] | None = None
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        """Only what is there; {"ok": true} where nothing went wrong."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        return values if self.error is not None else {"ok": True, **values}

    @staticmethod
    def from_json(value: object) -> Reply:
        """ValueError where it is none."""
        if not isinstance(value, dict) or not ("error" in value or value.get("ok") is True):
            raise ValueError(f"{value!r:.100} is no reply")
        kinds = {"versions": dict, "seconds": list, "shape": list, "error": str}
        values = {name: value[name] for name in kinds if name in value}
        for name, content in values.items():
            if not isinstance(content, kinds[name]):
                raise ValueError(f"{name} = {content!r:.100} is no {kinds[name].__name__}")
        return Reply(**values)


@dataclass(frozen=True)
class WorkerJob:
    """What a call is made of: where input and model lie, the case by the names of `Case`, and threads."""

    folder: Path
    case: Mapping[str, object]
    threads: int


@dataclass(frozen=True)
class Prepared:
    """What is timed, and what gives the answer where that is another function."""

    call: EngineCall
    answer: EngineCall | None = None


def main() -> None:
    """Serve the engine named on the command line until stdin ends."""
    word, threads = sys.argv[1], int(sys.argv[2])
    _settle(threads)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    libraries, build = BUILDERS[word]
    try:
        for library in libraries:
            importlib.import_module(library)
        _reply(answers, Reply(versions={library: version(library) for library in libraries}))
    except Exception as fact:
        _reply(answers, _failure(fact))
        return
    serve(sys.stdin.buffer, answers, build, threads)


def serve(
    orders: Iterable[bytes], answers: BinaryIO, build: Callable[[WorkerJob], Prepared], threads: int = 1
) -> None:
    """Carry out orders, one a line, with what `build` makes of a job; a failure is a reply, and the next is read."""
    prepared: Prepared | None = None
    for line in orders:
        try:
            order = Order.from_json(json.loads(line))
            if order.do == "build":
                prepared = None  # the network before this one may fill the memory
                prepared = build(WorkerJob(Path(order.folder), order.case or {}, threads))
                prepared.call(), prepared.call()
                _reply(answers, Reply())
            elif prepared is None:
                raise ValueError("nothing is built")
            elif order.do == "time":
                seconds = timed(prepared.call, order.seconds, cold=order.cold, clock=order.clock)
                _reply(answers, Reply(seconds=seconds))
            else:
                array = _array((prepared.answer or prepared.call)())
                _reply(answers, Reply(shape=list(array.shape)), array.tobytes())
        except Exception as fact:
            _reply(answers, _failure(fact))


def timed(call: EngineCall, seconds: float, *, cold: bool = False, clock: str = "wall") -> list[float]:
    """Seconds of a call, at least twice, for about `seconds`, after one that does not count.

    Calls that are too short for the clock are counted several at a time, unless caches are to be `cold`.
    """
    call()
    now = CLOCKS[clock]
    together = 1 if cold else _together(call, now)
    stream = np.zeros(STREAMED // 4 if cold else 0, dtype=np.float32)
    measured: list[float] = []
    start = time.perf_counter()
    while len(measured) < 2 or time.perf_counter() - start < seconds:
        stream += 1
        before = now()
        for _ in range(together):
            call()
        measured.append((now() - before) / together)
    return measured


def _together(call: EngineCall, now: Callable[[], float]) -> int:
    """How many calls the clock can tell from none."""
    before = now()
    call()
    return max(1, round(SHORTEST / max(now() - before, 1e-7)))


def _settle(threads: int) -> None:
    """Before any library counts cores: the first `threads` of them are ours, and we end with our parent."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)


def _reply(answers: BinaryIO, reply: Reply, content: bytes = b"") -> None:
    answers.write(json.dumps(reply.to_json()).encode() + b"\n" + content)
    answers.flush()


def _failure(fact: Exception) -> Reply:
    traceback.print_exc()
    lines = str(fact).strip().splitlines() or [""]
    return Reply(error=f"{type(fact).__name__}: {lines[0]}"[:300])


def _array(answer: object) -> np.ndarray:
    """A tensor or an array as float32."""
    as_float = getattr(answer, "float", None)
    return np.ascontiguousarray(as_float().numpy() if as_float else answer, dtype=np.float32)


def _input(job: WorkerJob) -> np.ndarray:
    shape = json.loads((job.folder / "input.json").read_text())
    return np.fromfile(job.folder / "input.f32", dtype=np.float32).reshape(shape)


def _onnx(job: WorkerJob) -> str:
    """Path of the network as ONNX; ValueError with the reason why there is none."""
    path = job.folder / "model.onnx"
    if not path.is_file():
        raise ValueError(f"no ONNX file: {(job.folder / 'no-onnx.txt').read_text()}")
    return str(path)


def _network(job: WorkerJob) -> tuple[nn.Module, Tensor]:
    """The network of the case and its input, as torch has them; torch takes the job's number of threads."""
    import torch

    from zeroskip.bench import cases, seeded_networks

    torch.set_num_threads(job.threads)
    return seeded_networks.network(cases.Case.from_json(job.case)), torch.from_numpy(_input(job))


def _reference(job: WorkerJob) -> Prepared:
    """Writes what the engines are given; answers as they should."""
    import torch

    from zeroskip.bench import cases, seeded_networks
    from zeroskip.graph import quiet

    folder, case = job.folder, cases.Case.from_json(job.case)
    model, x = seeded_networks.network(case), seeded_networks.example(case)
    x.numpy().tofile(folder / "input.f32")
    (folder / "input.json").write_text(json.dumps(list(x.shape)))
    try:
        # The newest operation set that DeepSparse reads.
        with quiet():
            torch.onnx.export(
                model, (x,), str(folder / "model.onnx"), dynamo=False, opset_version=11, input_names=["x"]
            )
    except Exception as fact:
        (folder / "no-onnx.txt").write_text(str(fact).strip().splitlines()[0])
    return Prepared(partial(_without_gradients, model, x))


def _without_gradients(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    import torch

    # torch.compile freezes weights under no_grad only; in inference mode it would not.
    with torch.no_grad():
        return function(*inputs)


def _torch(
    job: WorkerJob, *, bf16: bool = False, compiled: bool = False, channels_last: bool = True
) -> Prepared:
    import torch

    model, x = _network(job)
    if channels_last and x.ndim == 4:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.contiguous(memory_format=torch.channels_last)
    if bf16:  # its input is bf16 from the start: a conversion would count against it
        model, x = model.bfloat16(), x.bfloat16()
    if compiled:
        from torch._inductor import config

        config.freezing = True
        model = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    return Prepared(partial(_without_gradients, model, x))


def _im2col(job: WorkerJob) -> Prepared:
    from zeroskip.models.convolutions import im2col

    model, x = _network(job)
    return Prepared(partial(_without_gradients, im2col(model, x)))


def _torch_int8(job: WorkerJob) -> Prepared:
    import torch

    model, x = _network(job)
    quantised = torch.ao.quantization.quantize_dynamic(
        model, {torch.nn.Linear, torch.nn.LSTM}, dtype=torch.qint8
    )
    return Prepared(partial(_without_gradients, quantised, x))


def _onnxruntime(job: WorkerJob, *, int8: bool) -> Prepared:
    import onnxruntime

    path = _onnx(job)
    if int8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        smaller = str(job.folder / "int8.onnx")
        quantize_dynamic(path, smaller, weight_type=QuantType.QInt8)
        path = smaller
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job.threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = _input(job)
    return Prepared(lambda: session.run(None, {"x": x})[0])


def _openvino(job: WorkerJob, *, precision: str) -> Prepared:
    import openvino

    core, x = openvino.Core(), _input(job)
    model = core.read_model(_onnx(job))
    options: dict[str, object] = {
        "INFERENCE_NUM_THREADS": job.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # all engines are on the same cores already
    }
    if precision == "f32":
        options["INFERENCE_PRECISION_HINT"] = "f32"
    if precision == "int8":
        import nncf

        model = nncf.quantize(model, nncf.Dataset([x]), subset_size=1)
    request = core.compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x))
    output = request.get_output_tensor(0)

    def call() -> object:
        request.infer()
        return output.data

    return Prepared(call)


def _deepsparse(job: WorkerJob) -> Prepared:
    import deepsparse

    x = _input(job)
    engine = deepsparse.Engine(model=_onnx(job), batch_size=len(x), num_cores=job.threads)
    return Prepared(lambda: engine.run([x], val_inp=False)[0])


def _ours(job: WorkerJob, *, engine: str, **options: str) -> Prepared:
    from zeroskip.bench import zeroskip_engines

    return Prepared(getattr(zeroskip_engines, engine)(*_network(job), **options))


def _on_tiles(job: WorkerJob) -> Prepared:
    from zeroskip.bench import zeroskip_engines

    return Prepared(*zeroskip_engines.on_tiles(*_network(job)))


# The word on the command line -> libraries to load, and what makes a call of a job.
BUILDERS: Mapping[str, tuple[Sequence[str], Callable[[WorkerJob], Prepared]]] = {
    "reference": (("torch", "zeroskip"), _reference),
    "torch-fp32": (("torch",), _torch),
    "torch-contiguous-fp32": (("torch",), partial(_torch, channels_last=False)),
    "torch-bf16": (("torch",), partial(_torch, bf16=True)),
    "im2col-fp32": (("torch",), _im2col),
    "torch-int8": (("torch",), _torch_int8),
    "compile-fp32": (("torch",), partial(_torch, compiled=True)),
    "compile-bf16": (("torch",), partial(_torch, bf16=True, compiled=True)),
    "onnxruntime-fp32": (("onnxruntime",), partial(_onnxruntime, int8=False)),
    "onnxruntime-int8": (("onnxruntime", "onnx"), partial(_onnxruntime, int8=True)),
    "openvino-f32": (("openvino",), partial(_openvino, precision="f32")),
    "openvino-bf16": (("openvino",), partial(_openvino, precision="bf16")),
    "openvino-int8": (("openvino", "nncf"), partial(_openvino, precision="int8")),
    "deepsparse": (("deepsparse",), _deepsparse),
    "zeroskip-fp32": (("zeroskip",), partial(_ours, engine="compiled", precision="fp32")),
    "zeroskip-skipping": (("zeroskip",), partial(_ours, engine="skipping")),
    "zeroskip-skipping-bf16": (("zeroskip",), partial(_ours, engine="skipping", storage="bf16")),
    "zeroskip-skipping-fp16": (("zeroskip",), partial(_ours, engine="skipping", storage="fp16")),
    "zeroskip-scatter": (("zeroskip",), partial(_ours, engine="scatter", storage="fp32")),
    "zeroskip-scatter-bf16": (("zeroskip",), partial(_ours, engine="scatter", storage="bf16")),
    "zeroskip-chosen": (("zeroskip",), partial(_ours, engine="chosen")),
    "zeroskip-tiles": (("zeroskip",), _on_tiles),
    "zeroskip-fp16": (("zeroskip",), partial(_ours, engine="compiled", precision="fp16")),
    "zeroskip-int8": (("zeroskip",), partial(_ours, engine="compiled", weights="int8")),
}


if __name__ == "__main__":
    main()
