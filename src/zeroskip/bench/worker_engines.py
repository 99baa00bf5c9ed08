"""What a worker calls: each engine's form of a case's network, made once, and its first answer.

Like `worker.py`, which loads this file by its path, it imports engines when asked for, and is read by Python 3.8.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

    EngineCall = Callable[[], object]

SUPPORTED = 0.9  # share of operations that DeepSparse is to run itself: others it leaves to ONNX Runtime


@dataclass(frozen=True)
class WorkerJob:
    """What a call is made of: where input and model lie, the case by the names of `Case`, and threads."""

    folder: Path
    case: Mapping[str, object]
    threads: int


@dataclass(frozen=True)
class Prepared:
    """What is timed, and what gives the answer where that is another function.

    loading  seconds from what is stored to something that can be called; None where no network is
    """

    call: EngineCall
    answer: EngineCall | None = None
    loading: float | None = 0.0


def _loaded(load: Callable[[], EngineCall], answer: EngineCall | None = None) -> Prepared:
    """What `load` makes of a stored network, and how long that takes."""
    before = time.perf_counter()
    call = load()
    return Prepared(call, answer, time.perf_counter() - before)


def _input(job: WorkerJob) -> np.ndarray:
    return _stored(job.folder / "input")


def _calibration(job: WorkerJob) -> np.ndarray:
    """What scales are chosen on, in batches of the case: (count, batch, ...)."""
    x = _stored(job.folder / "calibration")
    return x.reshape(-1, len(_input(job)), *x.shape[1:])


def _store(path: Path, array: np.ndarray) -> None:
    array.tofile(path.with_suffix(".f32"))
    path.with_suffix(".json").write_text(json.dumps(list(array.shape)))


def _stored(path: Path) -> np.ndarray:
    shape = json.loads(path.with_suffix(".json").read_text())
    return np.fromfile(path.with_suffix(".f32"), dtype=np.float32).reshape(shape)


def _in_int8(job: WorkerJob) -> bool:
    """Whether all engines that compute in eight bits are calibrated on the same inputs."""
    return job.case.get("precision") == "int8"


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
    """Writes what the engines are given, unless it is there; answers as they should."""
    from zeroskip.bench import cases, onnx_file, seeded_networks

    folder, case = job.folder, cases.Case.from_json(job.case)
    model, x = seeded_networks.network(case), seeded_networks.example(case)
    if not (folder / "input.json").is_file():
        if _in_int8(job):
            _store(folder / "calibration", seeded_networks.calibration(case).numpy())
        onnx_file.write(model, x, folder, 13 if case.in_int8 or case.is_transformer else 11)
        _store(folder / "input", x.numpy())
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


def _torch_fx(job: WorkerJob) -> Prepared:
    """PyTorch's quantisation of a traced network, for its kernels for x86."""
    import warnings

    import torch
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    model, x = _network(job)
    if "x86" not in torch.backends.quantized.supported_engines:
        raise ValueError("this PyTorch has no 8-bit kernels for x86")
    torch.backends.quantized.engine = "x86"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and what replaces it is another package
        watched = prepare_fx(model, get_default_qconfig_mapping("x86"), (x,))
        for batch in _calibration(job):
            _without_gradients(watched, torch.from_numpy(batch))
        quantised = convert_fx(watched)
    return Prepared(partial(_without_gradients, quantised, x))


def _onnxruntime(job: WorkerJob, *, path: Callable[[WorkerJob], str]) -> Prepared:
    import onnxruntime

    stored, x = path(job), _input(job)

    def load() -> EngineCall:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = job.threads, 1
        session = onnxruntime.InferenceSession(stored, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"x": x})[0]

    return _loaded(load)


def _dynamic(job: WorkerJob) -> str:
    """Path of the network as ONNX with weights in eight bits, whose inputs are quantised at every call."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = str(job.folder / "int8.onnx")
    quantize_dynamic(_onnx(job), path, weight_type=QuantType.QInt8)
    return path


def _static(job: WorkerJob) -> str:
    """Path of the network as ONNX with scales of inputs and weights (QDQ), made by who needs it first.

    Without VNNI two products of bytes are added in 16 bits, which all the bits of a weight would pass.
    """
    path = job.folder / "qdq.onnx"
    if path.is_file():
        return str(path)
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Inputs(CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[np.ndarray] = iter(_calibration(job))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.left, None)
            return None if batch is None else {"x": batch}

    unfinished = str(path.with_suffix(".part"))
    quantize_static(
        _onnx(job),
        unfinished,
        Inputs(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=not _has_vnni(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    Path(unfinished).rename(path)
    return str(path)


def _has_vnni() -> bool:
    """Whether this processor says so; only Linux is asked."""
    flags = Path("/proc/cpuinfo")
    return not flags.is_file() or "vnni" in flags.read_text()


def _openvino(job: WorkerJob, *, precision: str) -> Prepared:
    import openvino

    stored, x = _openvino_int8(job) if precision == "int8" else _onnx(job), _input(job)
    options: dict[str, object] = {
        "INFERENCE_NUM_THREADS": job.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # all engines are on the same cores already
    }
    if precision == "f32":
        options["INFERENCE_PRECISION_HINT"] = "f32"

    def load() -> EngineCall:
        core = openvino.Core()
        request = core.compile_model(core.read_model(stored), "CPU", options).create_infer_request()
        request.set_input_tensor(openvino.Tensor(x))
        output = request.get_output_tensor(0)

        def call() -> object:
            request.infer()
            return output.data

        return call

    return _loaded(load)


def _openvino_int8(job: WorkerJob) -> str:
    """Path of the network as NNCF quantises it, unless it has done so."""
    import nncf
    import openvino

    path = job.folder / "openvino.xml"
    if not path.is_file():
        batches = list(_calibration(job)) if _in_int8(job) else [_input(job)]
        model = openvino.Core().read_model(_onnx(job))
        kind = nncf.ModelType.TRANSFORMER if job.case.get("tokens") else None
        model = nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches), model_type=kind)
        openvino.save_model(model, str(path), compress_to_fp16=False)
    return str(path)


def _deepsparse(job: WorkerJob, *, path: Callable[[WorkerJob], str], least: float = 0.0) -> Prepared:
    import deepsparse

    stored, x = path(job), _input(job)

    def load() -> EngineCall:
        engine = deepsparse.Engine(model=stored, batch_size=len(x), num_cores=job.threads)
        own = engine.fraction_of_supported_ops
        if own < least:
            raise ValueError(
                f"only {own:.0%} of the operations run in its engine, the others in ONNX Runtime"
            )
        return lambda: engine.run([x], val_inp=False)[0]

    return _loaded(load)


def _own() -> ModuleType:
    from zeroskip.bench import zeroskip_engines

    return zeroskip_engines


def _ours(job: WorkerJob, *, engine: str, **options: str) -> Prepared:
    return Prepared(getattr(_own(), engine)(*_network(job), **options), loading=None)


def _compiled(job: WorkerJob, **options: str) -> Prepared:
    """A network compiled, stored and loaded again, as whoever ships it does."""
    model, x = _network(job)
    path = _own().stored(model, x, job.folder / "program", **options)
    return _loaded(lambda: _own().loaded(path, x))


def _free_zeros(job: WorkerJob, *, precision: str) -> Prepared:
    """As many zeros, wherever they lie. The race knows the answer of another network: ours is that plus our error."""
    from dataclasses import replace

    from zeroskip.bench import cases, seeded_networks

    in_blocks, x = _network(job)
    case = replace(cases.Case.from_json(job.case), pattern="free", precision="fp32")
    model = seeded_networks.network(case)
    path = _own().stored(model, x, job.folder / "free", precision=precision)

    def answer() -> object:
        error = _own().loaded(path, x)() - _without_gradients(model, x)
        return _without_gradients(in_blocks, x) + error

    return _loaded(lambda: _own().loaded(path, x), answer)


def _quantised(job: WorkerJob) -> Prepared:
    model, x = _network(job)
    # Answers are judged by their largest difference, and other methods cut off single numbers of a token.
    method = "min-max" if job.case.get("tokens") else None
    path = _own().quantised(model, x, _calibration(job), job.folder, method=method)
    return _loaded(lambda: _own().loaded(path, x))


def _on_tiles(job: WorkerJob) -> Prepared:
    call, answer = _own().on_tiles(*_network(job))
    return Prepared(call, answer, loading=None)


def _on_tiles_in_int8(job: WorkerJob) -> Prepared:
    call, answer = _own().on_tiles_in_int8(*_network(job), _calibration(job), job.folder)
    return Prepared(call, answer, loading=None)


# The word on the command line -> libraries to load, and what makes a call of a job.
BUILDERS: Mapping[str, tuple[Sequence[str], Callable[[WorkerJob], Prepared]]] = {
    "reference": (("torch", "zeroskip"), _reference),
    "torch-fp32": (("torch",), _torch),
    "torch-contiguous-fp32": (("torch",), partial(_torch, channels_last=False)),
    "torch-bf16": (("torch",), partial(_torch, bf16=True)),
    "im2col-fp32": (("torch",), _im2col),
    "torch-int8": (("torch",), _torch_int8),
    "torch-fx-int8": (("torch",), _torch_fx),
    "compile-fp32": (("torch",), partial(_torch, compiled=True)),
    "compile-bf16": (("torch",), partial(_torch, bf16=True, compiled=True)),
    "onnxruntime-fp32": (("onnxruntime",), partial(_onnxruntime, path=_onnx)),
    "onnxruntime-int8": (("onnxruntime", "onnx"), partial(_onnxruntime, path=_dynamic)),
    "onnxruntime-static": (("onnxruntime", "onnx"), partial(_onnxruntime, path=_static)),
    "openvino-f32": (("openvino",), partial(_openvino, precision="f32")),
    "openvino-bf16": (("openvino",), partial(_openvino, precision="bf16")),
    "openvino-int8": (("openvino", "nncf"), partial(_openvino, precision="int8")),
    "deepsparse": (("deepsparse",), partial(_deepsparse, path=_onnx)),
    "deepsparse-int8": (("deepsparse",), partial(_deepsparse, path=_static, least=SUPPORTED)),
    "zeroskip-fp32": (("zeroskip",), partial(_compiled, precision="fp32")),
    "zeroskip-skipping": (("zeroskip",), partial(_ours, engine="skipping")),
    "zeroskip-skipping-bf16": (("zeroskip",), partial(_ours, engine="skipping", storage="bf16")),
    "zeroskip-skipping-fp16": (("zeroskip",), partial(_ours, engine="skipping", storage="fp16")),
    "zeroskip-scatter": (("zeroskip",), partial(_ours, engine="scatter", storage="fp32")),
    "zeroskip-scatter-bf16": (("zeroskip",), partial(_ours, engine="scatter", storage="bf16")),
    "zeroskip-chosen": (("zeroskip",), partial(_ours, engine="chosen")),
    "zeroskip-tiles": (("zeroskip",), _on_tiles),
    "zeroskip-fp16": (("zeroskip",), partial(_compiled, precision="fp16")),
    "zeroskip-int8": (("zeroskip",), partial(_compiled, weights="int8")),
    "zeroskip-quantised": (("zeroskip",), _quantised),
    "zeroskip-tiles-int8": (("zeroskip",), _on_tiles_in_int8),
    "zeroskip-free": (("zeroskip",), partial(_free_zeros, precision="fp32")),
    "zeroskip-free-fp16": (("zeroskip",), partial(_free_zeros, precision="fp16")),
}
