"""One engine in a process of its own: orders come as JSON lines on stdin, answers go to stdout.

    python worker.py ENGINE THREADS
    {"do": "build", "folder": ..., "case": {...}}   -> {"ok": true}, after the first two calls
    {"do": "time", "seconds": 0.05, "cold": false, "clock": "wall"}  -> {"ok": true, "seconds": [...]} of calls
    {"do": "answer"}                                -> {"ok": true, "shape": [...]}, a line; then float32 bytes

The first line says which versions were loaded; whatever goes wrong is {"error": reason}. The file is run by its
path and imports engines when asked for, since an engine's environment may have neither zeroskip nor torch.
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
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Call = Callable[[], Any]
Job = dict[str, Any]
"""{"folder": where input and model lie, "case": the case as a dict, "threads": number}"""

STREAMED = 200_000_000  # bytes that go through the caches before each call of a cold case
SHORTEST = 2e-4  # seconds that are read from the clock at once: it takes up to a microsecond itself
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SET_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG


def main() -> None:
    """Serve the engine named on the command line until stdin ends.

    >>> main()
    """
    word, threads = sys.argv[1], int(sys.argv[2])
    _settle(threads)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    libraries, build = BUILDERS[word]
    try:
        for library in libraries:
            importlib.import_module(library)
        _reply(answers, {"ok": True, "versions": {library: version(library) for library in libraries}})
    except Exception as fact:
        _reply(answers, _failure(fact))
        return
    serve(sys.stdin.buffer, answers, lambda job: build(job | {"threads": threads}))


def serve(orders: Iterable[bytes], answers: BinaryIO, build: Callable[[Job], Call]) -> None:
    """Carry out orders, one a line, with the calls that `build` makes.

    >>> serve(sys.stdin.buffer, sys.stdout.buffer, build)
    """
    call: Call | None = None
    for line in orders:
        order = json.loads(line)
        try:
            if order["do"] == "build":
                call = None  # the network before this one may fill the memory
                call = build(order)
                call(), call()
                _reply(answers, {"ok": True})
            elif order["do"] == "time" and call is not None:
                how = {key: order[key] for key in ("cold", "clock")}
                _reply(answers, {"ok": True, "seconds": timed(call, order["seconds"], **how)})
            elif call is not None:
                answer = _array(getattr(call, "answer", call)())
                _reply(answers, {"ok": True, "shape": answer.shape}, answer.tobytes())
        except Exception as fact:
            _reply(answers, _failure(fact))


def timed(call: Call, seconds: float, *, cold: bool = False, clock: str = "wall") -> list[float]:
    """Seconds of a call, at least twice, for about `seconds`, after one that does not count.

    Calls that are too short for the clock are counted several at a time, unless caches are to be `cold`.

    >>> len(timed(lambda: None, 0.0))
    2
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


def _together(call: Call, now: Callable[[], float]) -> int:
    """How many calls the clock can tell apart from none."""
    before = now()
    call()
    return max(1, round(SHORTEST / max(now() - before, 1e-7)))


def _settle(threads: int) -> None:
    """Before any library counts cores: the first `threads` of them are ours, and we end with our parent."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)


def _reply(answers: BinaryIO, value: dict[str, Any], content: bytes = b"") -> None:
    answers.write(json.dumps(value).encode() + b"\n" + content)
    answers.flush()


def _failure(fact: Exception) -> dict[str, Any]:
    traceback.print_exc()
    lines = str(fact).strip().splitlines() or [""]
    return {"error": f"{type(fact).__name__}: {lines[0]}"[:300]}


def _array(value: Any) -> Any:
    value = value.float().numpy() if hasattr(value, "float") else value
    return np.ascontiguousarray(value, dtype=np.float32)


def _input(job: Job) -> Any:
    shape = json.loads(Path(job["folder"], "input.json").read_text())
    return np.fromfile(Path(job["folder"], "input.f32"), dtype=np.float32).reshape(shape)


def _onnx(job: Job) -> str:
    """Path of the network as ONNX; ValueError with the reason why there is none."""
    path = Path(job["folder"], "model.onnx")
    if not path.is_file():
        raise ValueError(f"no ONNX file: {Path(job['folder'], 'no-onnx.txt').read_text()}")
    return str(path)


def _network(job: Job) -> tuple[Any, Any]:
    """The network of the case and its input, as torch has them."""
    import torch

    from zeroskip.bench import cases, seeded_networks

    torch.set_num_threads(job["threads"])
    return seeded_networks.network(cases.Case(**job["case"])), torch.from_numpy(_input(job))


def _reference(job: Job) -> Call:
    """Writes what the engines are given; answers as they should."""
    import torch

    from zeroskip.bench import cases, seeded_networks
    from zeroskip.graph import quiet

    folder, case = Path(job["folder"]), cases.Case(**job["case"])
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
    return partial(_without_gradients, model, x)


def _without_gradients(function: Callable[[Any], Any], x: Any) -> Any:
    import torch

    # torch.compile freezes weights under no_grad only; in inference mode it would not.
    with torch.no_grad():
        return function(x)


def _torch(job: Job, *, bf16: bool, compiled: bool) -> Call:
    import torch

    model, x = _network(job)
    model = model.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    if bf16:  # its input is bf16 from the start: a conversion would count against it
        model, x = model.bfloat16(), x.bfloat16()
    if compiled:
        from torch._inductor import config

        config.freezing = True
        model = torch.compile(model, dynamic=False)
    return partial(_without_gradients, model, x)


def _im2col(job: Job) -> Call:
    from zeroskip.models.convolutions import im2col

    model, x = _network(job)
    return partial(_without_gradients, lambda call: call(), im2col(model, x))


def _torch_int8(job: Job) -> Call:
    import torch

    model, x = _network(job)
    quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    return partial(_without_gradients, quantised, x)


def _onnxruntime(job: Job, *, int8: bool) -> Call:
    import onnxruntime

    path = _onnx(job)
    if int8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        smaller = str(Path(job["folder"], "int8.onnx"))
        quantize_dynamic(path, smaller, weight_type=QuantType.QInt8)
        path = smaller
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job["threads"], 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = _input(job)
    return lambda: session.run(None, {"x": x})[0]


def _openvino(job: Job, *, precision: str) -> Call:
    import openvino

    core, x = openvino.Core(), _input(job)
    model = core.read_model(_onnx(job))
    options: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": job["threads"],
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

    def call() -> Any:
        request.infer()
        return output.data

    return call


def _deepsparse(job: Job) -> Call:
    import deepsparse

    x = _input(job)
    engine = deepsparse.Engine(model=_onnx(job), batch_size=len(x), num_cores=job["threads"])
    return lambda: engine.run([x], val_inp=False)[0]


def _zeroskip(job: Job, **how: Any) -> Call:
    from zeroskip import run

    model, x = _network(job)
    return partial(run.compile(model, x, threads=job["threads"], **how), x)


def _skipping(job: Job, *, alone: bool, kind: str = "fp32") -> Call:
    """The layer by the kernel that skips the zeros of its input, alone, or by the fastest of it and the dense ones.

    As for torch, images come and go pixel by pixel. Weights are stored as `kind` says.
    """
    import torch

    from zeroskip.concepts import Precision
    from zeroskip.emit import detect
    from zeroskip.graph import capture
    from zeroskip.run.convolution.zero_inputs import gather_kernels
    from zeroskip.run.dense import channels_last
    from zeroskip.run.linear.zero_inputs import columns
    from zeroskip.run.select.layers import race

    model, x = _network(job)
    (node,) = [node for node in capture(model, x).nodes if node.layer is not None]
    assert node.layer is not None
    machine, precision = detect(), Precision()
    x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    if alone and x.ndim == 4:
        return partial(gather_kernels.alone(node.layer, machine, node.relu, x, kind=kind), x)
    if alone:
        return partial(columns.build(kind, node.layer, machine, precision, node.relu, fall_back=False), x)
    kernels = channels_last.KERNEL, *gather_kernels.KERNELS
    raced = race(node.layer, node.relu, x, machine=machine, precision=precision, kernels=kernels)
    return partial(raced.built[raced.choice.kernel], x)


def _scatter(job: Job, *, kind: str) -> Call:
    """The layer by the kernel that walks the weights once, in order."""
    import torch

    from zeroskip.emit import detect
    from zeroskip.graph import capture
    from zeroskip.run.convolution.zero_inputs import scatter

    model, x = _network(job)
    (node,) = [node for node in capture(model, x).nodes if node.layer is not None]
    assert node.layer is not None
    call = scatter.build(node.layer, detect(), node.relu, kind=kind)
    return partial(call, x.contiguous(memory_format=torch.channels_last))


def _on_tiles(job: Job) -> Call:
    """The layer without the way of its images onto tiles and back, which a network goes once, not in every layer."""
    from zeroskip.emit import detect
    from zeroskip.graph import capture
    from zeroskip.run.convolution.tiles.segment import between_doors
    from zeroskip.run.convolution.tiles.tiling import tiled

    model, x = _network(job)
    graph = capture(model, x)
    kernels = {node.layer.name: ["baked", "streamed"] for node in graph.nodes if node.layer is not None}
    found = tiled(graph, x, detect(), kernels, images=len(x), threads=1)
    if found is None:
        raise ValueError("the layer cannot work on tiles")
    segment: Any = found.graph.nodes[0].function
    call = partial(between_doors(segment, detect(), x))
    call.answer = lambda: segment(x)[0]  # type: ignore[attr-defined]
    return call


# The word on the command line -> libraries to load, and what makes a call of a job.
BUILDERS: dict[str, tuple[tuple[str, ...], Callable[[Job], Call]]] = {
    "reference": (("torch", "zeroskip"), _reference),
    "torch-fp32": (("torch",), partial(_torch, bf16=False, compiled=False)),
    "torch-bf16": (("torch",), partial(_torch, bf16=True, compiled=False)),
    "im2col-fp32": (("torch",), _im2col),
    "torch-int8": (("torch",), _torch_int8),
    "compile-fp32": (("torch",), partial(_torch, bf16=False, compiled=True)),
    "compile-bf16": (("torch",), partial(_torch, bf16=True, compiled=True)),
    "onnxruntime-fp32": (("onnxruntime",), partial(_onnxruntime, int8=False)),
    "onnxruntime-int8": (("onnxruntime", "onnx"), partial(_onnxruntime, int8=True)),
    "openvino-f32": (("openvino",), partial(_openvino, precision="f32")),
    "openvino-bf16": (("openvino",), partial(_openvino, precision="bf16")),
    "openvino-int8": (("openvino", "nncf"), partial(_openvino, precision="int8")),
    "deepsparse": (("deepsparse",), _deepsparse),
    "zeroskip-fp32": (("zeroskip",), partial(_zeroskip, precision="fp32")),
    "zeroskip-skipping": (("zeroskip",), partial(_skipping, alone=True)),
    "zeroskip-skipping-bf16": (("zeroskip",), partial(_skipping, alone=True, kind="bf16")),
    "zeroskip-skipping-fp16": (("zeroskip",), partial(_skipping, alone=True, kind="fp16")),
    "zeroskip-scatter": (("zeroskip",), partial(_scatter, kind="fp32")),
    "zeroskip-scatter-bf16": (("zeroskip",), partial(_scatter, kind="bf16")),
    "zeroskip-chosen": (("zeroskip",), partial(_skipping, alone=False)),
    "zeroskip-tiles": (("zeroskip",), _on_tiles),
    "zeroskip-fp16": (("zeroskip",), partial(_zeroskip, precision="fp16")),
    "zeroskip-int8": (("zeroskip",), partial(_zeroskip, weights="int8")),
}


if __name__ == "__main__":
    main()
