"""Orders and replies: what goes over the pipes survives them, and damage is never taken for an answer."""

from __future__ import annotations

import ast
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.bench import ENTRANTS, Case, Environments, worker, worker_engines
from zeroskip.bench.engines import refusal
from zeroskip.bench.worker import Order, Reply
from zeroskip.bench.worker_engines import BUILDERS, Prepared, WorkerJob
from zeroskip.bench.worker_process import WorkerProcess
from zeroskip.emit import detect
from zeroskip.errors import EngineError

FAKE = str(Path(__file__).parent / "fake_engine.py")
Start = Callable[[str], WorkerProcess]
CASE = Case("LeNet Conv2", 0.0, input_sparsity=0.95, clock="cpu")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A fake engine that behaves as a word says, its libraries loaded."""
    started: list[WorkerProcess] = []

    def starting(behaviour: str) -> WorkerProcess:
        command = [sys.executable, FAKE, behaviour]
        environment = {"OMP_NUM_THREADS": "7"}
        started.append(WorkerProcess(command, tmp_path / "log", environment=environment, limit=30.0))
        started[-1].ready()
        return started[-1]

    yield starting
    for process in started:
        process.close()


# --- orders and replies as JSON


@given(
    seconds=st.floats(0, 100),
    cold=st.booleans(),
    clock=st.sampled_from(["wall", "cpu"]),
    folder=st.text(min_size=1, max_size=9),
)
def test_orders_go_through_json_and_hold_only_what_they_need(seconds, cold, clock, folder) -> None:
    build = Order("build", folder=folder, case=CASE.to_json())
    time = Order("time", seconds=seconds, cold=cold, clock=clock)
    for order in (build, time, Order("answer")):
        assert Order.from_json(json.loads(json.dumps(order.to_json()))) == order
    assert set(build.to_json()) == {"do", "folder", "case"}
    assert set(time.to_json()) == {"do", "seconds", "cold", "clock"}
    assert Order("answer").to_json() == {"do": "answer"}


@given(
    st.builds(
        Reply,
        versions=st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5)),
        seconds=st.none() | st.lists(st.floats(0, 1)),
        shape=st.none() | st.lists(st.integers(0, 9)),
        first=st.none() | st.floats(0, 9),
        error=st.none() | st.text(min_size=1, max_size=9),
    )
)
def test_replies_go_through_json(reply: Reply) -> None:
    assert Reply.from_json(json.loads(json.dumps(reply.to_json()))) == reply


@pytest.mark.parametrize("value", [{}, {"do": "dance"}, {"do": None}])
def test_an_order_that_is_none_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="there is no order"):
        Order.from_json(value)


@pytest.mark.parametrize(
    "value",
    [None, [], "ok", 1, {}, {"ok": False}, {"ok": "yes"}, {"ok": True, "seconds": 1.0}, {"ok": True, "shape": {}},
     {"ok": True, "versions": []}, {"ok": True, "first": "soon"}, {"error": 404}],
)  # fmt: skip
def test_a_reply_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is no"):
        Reply.from_json(value)


# --- damage on the way


@pytest.mark.parametrize("behaviour", ["list", "no-number", "no", "babbles"])
def test_a_damaged_reply_ends_the_process_and_is_an_engine_error(start: Start, behaviour: str) -> None:
    process = start(behaviour)
    with pytest.raises(EngineError, match="its process ended"):
        process.time(0.1, cold=False, clock="wall")
    assert not process.alive


def test_a_reply_without_what_was_asked_for_names_it(start: Start) -> None:
    with pytest.raises(EngineError, match="its reply has no seconds"):
        start("silent").time(0.1, cold=False, clock="wall")


def test_an_array_of_fewer_bytes_than_its_shape_is_no_answer(start: Start) -> None:
    process = start("truncated")
    process.build(Path("somewhere"), {})
    with pytest.raises(EngineError, match="its process ended"):
        process.answer()


def test_versions_that_are_none_end_the_process(tmp_path: Path) -> None:
    process = WorkerProcess([sys.executable, FAKE, "nameless"], tmp_path / "log", environment={}, limit=30.0)
    with pytest.raises(EngineError):
        process.ready()
    assert not process.alive


def test_an_order_to_a_process_that_is_gone_is_an_engine_error(start: Start) -> None:
    process = start("good")
    process.close()
    with pytest.raises(EngineError, match="its process ended"):
        process.answer()


def test_a_command_that_cannot_be_started_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        WorkerProcess([str(tmp_path / "absent")], tmp_path / "log", environment={}, limit=1.0)


def test_the_process_has_the_variables_it_was_given_and_those_of_its_parent(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_PARENT", "here")
    process = start("environment")
    with pytest.raises(EngineError) as raised:
        process.time(0.1, cold=False, clock="OMP_NUM_THREADS FROM_PARENT")
    assert json.loads(str(raised.value)) == {"OMP_NUM_THREADS": "7", "FROM_PARENT": "here"}


def test_an_order_arrives_as_it_was_given(start: Start) -> None:
    process = start("repeats")
    with pytest.raises(EngineError) as raised:
        process.time(0.25, cold=True, clock="cpu")
    assert json.loads(str(raised.value)) == {"do": "time", "seconds": 0.25, "cold": True, "clock": "cpu"}


# --- serving


Build = Callable[[Path, dict[str, object]], Prepared]


def replies(build: Build, *lines: bytes) -> list[bytes]:
    out = io.BytesIO()
    worker.serve(lines, out, build)
    return out.getvalue().splitlines()


def unused(folder: Path, case: dict[str, object]) -> Prepared:
    raise AssertionError("nothing was to be built")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"do": "answer"}', "ValueError: nothing is built"),
        (b'{"do": "time", "seconds": 0}', "ValueError: nothing is built"),
        (b'{"do": "dance"}', "ValueError: there is no order 'dance'"),
        (b"no JSON", "JSONDecodeError"),
        (b'{"do": "build", "colour": 1}', "TypeError"),
    ],
)
def test_an_order_that_cannot_be_carried_out_is_answered_and_the_next_one_read(
    line: bytes, reason: str
) -> None:
    first, second = (json.loads(text) for text in replies(unused, line, b'{"do": "answer"}'))
    assert reason in first["error"]
    assert "nothing is built" in second["error"]


def test_a_build_that_fails_leaves_nothing_of_the_one_before() -> None:
    def build(folder: Path, case: dict[str, object]) -> Prepared:
        if case["network"] == "bad":
            raise MemoryError("too large")
        return Prepared(lambda: np.zeros(1))

    good, bad = (
        json.dumps(Order("build", case={"network": name}).to_json()).encode() for name in ("good", "bad")
    )
    out = replies(build, good, bad, b'{"do": "answer"}')
    assert json.loads(out[1])["error"] == "MemoryError: too large"
    assert json.loads(out[2])["error"] == "ValueError: nothing is built"


def test_what_is_built_is_of_the_folder_and_the_case() -> None:
    jobs: list[object] = []

    def build(*job: object) -> Prepared:
        jobs.append(job)
        return Prepared(lambda: np.zeros(1))

    replies(build, json.dumps(Order("build", folder="here", case={"network": "n"}).to_json()).encode())
    assert jobs == [(Path("here"), {"network": "n"})]


@pytest.mark.parametrize(("loading", "first"), [(2.0, 2.5), (0.0, 0.5), (None, None)])
def test_the_first_call_counts_from_what_is_stored(
    loading: float | None, first: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter([1.0, 1.5])
    monkeypatch.setattr(worker.time, "perf_counter", lambda: next(ticks))
    prepared = Prepared(lambda: np.zeros(1), loading=loading)
    (line,) = replies(lambda *job: prepared, b'{"do": "build"}')
    assert json.loads(line).get("first") == first


def test_the_answer_comes_from_its_own_function_where_there_is_one() -> None:
    prepared = Prepared(lambda: None, answer=lambda: np.array([[1, 2, 3]]))
    lines = b'{"do": "build", "case": {}}', b'{"do": "answer"}'
    out = io.BytesIO()
    worker.serve(lines, out, lambda *job: prepared)
    _, header, content = out.getvalue().split(b"\n", 2)
    assert json.loads(header) == {"ok": True, "shape": [1, 3]}
    assert np.frombuffer(content, np.float32).tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([[1.5, -2.0], [0.0, 4.0]]),
        torch.tensor([[1.5, -2.0], [0.0, 4.0]], dtype=torch.bfloat16),
        torch.tensor([[1.5, 0.0], [-2.0, 4.0]]).T,
        np.array([[1.5, -2.0], [0.0, 4.0]], dtype=np.float64),
    ],
)
def test_answers_of_every_kind_become_float32_in_order(value: object) -> None:
    found = worker._array(value)
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    assert found.tolist() == [[1.5, -2.0], [0.0, 4.0]]


def test_a_long_reason_is_cut_and_has_one_line() -> None:
    def build(*job: object) -> Prepared:
        raise RuntimeError("x" * 1000 + "\nsecond line")

    (line,) = replies(build, b'{"do": "build", "case": {}}')
    assert len(json.loads(line)["error"]) == 300


# --- the file


def test_every_engine_that_races_has_a_builder_and_every_builder_races() -> None:
    assert {entrant.word for entrant in ENTRANTS} | {"reference"} == set(BUILDERS)
    for libraries, _ in BUILDERS.values():
        assert isinstance(libraries, tuple)
        assert libraries


@pytest.mark.parametrize("module", [worker, worker_engines], ids=["worker", "its engines"])
def test_the_worker_is_read_by_python_3_8(module: ModuleType) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text(), feature_version=(3, 8))
    values = [node.value for node in ast.walk(tree) if isinstance(node, ast.Assign) and node in tree.body]
    # What is evaluated when the file is run must be known to 3.8: no subscripts of builtins, no unions.
    assert not [
        ast.unparse(node)
        for value in values
        for node in ast.walk(value)
        if (isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr))
        or (
            isinstance(node, ast.Subscript)
            and ast.unparse(node.value) in {"dict", "list", "tuple", "Callable"}
        )
    ]


def test_a_worker_of_an_engine_that_is_not_installed_says_so(tmp_path: Path) -> None:
    command = [sys.executable, worker.__file__, "deepsparse", "1"]
    process = WorkerProcess(command, tmp_path / "log", environment={}, limit=60.0)
    with pytest.raises(EngineError, match="No module named 'deepsparse'"):
        process.ready()


# --- builders, on a small convolution


@pytest.fixture
def job(tmp_path: Path) -> WorkerJob:
    """A case whose reference has been built: its input lies in the folder."""
    made = WorkerJob(tmp_path, CASE.to_json(), 1)
    BUILDERS["reference"][1](made)
    return made


def test_the_reference_writes_the_input_and_an_onnx_file_or_why_there_is_none(job: WorkerJob) -> None:
    from zeroskip.bench.seeded_networks import example

    assert np.array_equal(worker_engines._input(job), example(CASE).numpy())
    reason = job.folder / "no-onnx.txt"
    assert (job.folder / "model.onnx").is_file() != reason.is_file()
    if reason.is_file():
        with pytest.raises(ValueError, match=r"no ONNX file: \S"):
            worker_engines._onnx(job)


@pytest.mark.parametrize(
    ("word", "tolerance"),
    [("torch-fp32", 1e-5), ("im2col-fp32", 1e-4), ("torch-bf16", 0.03)],
)
def test_torch_s_engines_compute_what_the_network_does(job: WorkerJob, word: str, tolerance: float) -> None:
    from zeroskip.bench.rounds import difference
    from zeroskip.bench.seeded_networks import example, network

    prepared = BUILDERS[word][1](job)
    with torch.no_grad():
        expected = network(CASE)(example(CASE)).numpy()
    assert difference(worker._array((prepared.answer or prepared.call)()), expected) <= tolerance


IN_INT8 = {"zeroskip-quantised", "zeroskip-tiles-int8", "zeroskip-free", "zeroskip-free-fp16"}


@pytest.mark.parametrize(
    "word", [word for word in BUILDERS if word.startswith("zeroskip-") and word not in IN_INT8]
)
def test_our_engines_compute_what_the_network_does_or_give_a_reason(job: WorkerJob, word: str) -> None:
    from zeroskip.bench.rounds import difference
    from zeroskip.bench.seeded_networks import example, network

    (entrant,) = [entrant for entrant in ENTRANTS if entrant.word == word]
    if refusal(entrant, CASE, detect(), Environments(Path("nowhere"))):
        return
    with torch.no_grad():
        expected = network(CASE)(example(CASE)).numpy()
    try:
        prepared = BUILDERS[word][1](job)
    except (EngineError, ValueError):  # this machine cannot, and the race says why
        return
    assert difference(worker._array((prepared.answer or prepared.call)()), expected) <= entrant.tolerance


@pytest.mark.parametrize(
    ("word", "stores"),
    [("zeroskip-quantised", "quantisation"), ("zeroskip-tiles-int8", "ranges"),
     pytest.param("zeroskip-free", "free", marks=pytest.mark.slow)],
)  # fmt: skip
def test_in_a_case_of_eight_bits_our_engines_are_near_and_a_second_run_calibrates_nothing(
    word: str, stores: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zeroskip import run
    from zeroskip.bench import seeded_networks
    from zeroskip.bench.rounds import difference

    layer = lambda: torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU())
    monkeypatch.setitem(seeded_networks.MODELS, "small", (layer, (8, 6, 6)))
    made = WorkerJob(tmp_path, Case("small", 0.5, batch=2, pattern="1x4", precision="int8").to_json(), 1)
    expected = worker._array(BUILDERS["reference"][1](made).call())
    assert worker_engines._calibration(made).shape == (16, 2, 8, 6, 6)
    for _ in range(2):
        prepared = BUILDERS[word][1](made)
        assert difference(worker._array((prepared.answer or prepared.call)()), expected) < 0.03
        assert (prepared.loading is None) == (word == "zeroskip-tiles-int8")
        assert (tmp_path / stores).is_file()
        monkeypatch.setattr(run, "calibrate", None)


@pytest.mark.parametrize(
    ("share", "reason"), [(0.89, "only 89% of the operations run in its engine"), (0.9, None)]
)
def test_deepsparse_races_where_nearly_all_operations_run_in_its_own_engine(
    share: float, reason: str | None, job: WorkerJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Engine:
        fraction_of_supported_ops = share

        def __init__(self, **how: object) -> None:
            self.how = how

        def run(self, inputs: list[np.ndarray], val_inp: bool) -> list[np.ndarray]:
            return inputs

    monkeypatch.setitem(sys.modules, "deepsparse", SimpleNamespace(Engine=Engine))
    (job.folder / "qdq.onnx").touch()
    build = BUILDERS["deepsparse-int8"][1]
    if reason is None:
        assert np.array_equal(build(job).call(), worker_engines._input(job))
    else:
        with pytest.raises(ValueError, match=reason):
            build(job)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_fx_computes_in_eight_bits_what_the_network_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zeroskip.bench import seeded_networks
    from zeroskip.bench.rounds import difference

    if "x86" not in torch.backends.quantized.supported_engines:
        pytest.skip("this PyTorch has no 8-bit kernels for x86")
    layer = lambda: torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU())
    monkeypatch.setitem(seeded_networks.MODELS, "small", (layer, (8, 6, 6)))
    made = WorkerJob(tmp_path, Case("small", 0.5, pattern="1x4", precision="int8").to_json(), 1)
    expected = worker._array(BUILDERS["reference"][1](made).call())
    found = worker._array(BUILDERS["torch-fx-int8"][1](made).call())
    assert 0 < difference(found, expected) < 0.05


@pytest.mark.parametrize(
    ("word", "tolerance"),
    [("torch-fp32", 1e-5), ("torch-bf16", 0.03), pytest.param("zeroskip-fp32", 1e-5, marks=pytest.mark.slow)],
)
def test_engines_take_steps_of_a_sequence(
    word: str, tolerance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zeroskip import models
    from zeroskip.bench import seeded_networks
    from zeroskip.bench.rounds import difference

    small = (lambda: models.LSTMClassifier(6, 8, layers=2)), (5, 6)
    monkeypatch.setitem(seeded_networks.MODELS, "lstm", small)
    made = WorkerJob(tmp_path, Case("lstm", 0.5, batch=2).to_json(), 1)
    expected = worker._array(BUILDERS["reference"][1](made).call())
    prepared = BUILDERS[word][1](made)
    assert difference(worker._array((prepared.answer or prepared.call)()), expected) <= tolerance


@pytest.mark.parametrize("word", ["torch-fp32", "torch-contiguous-fp32"])
def test_maps_are_laid_out_as_the_word_says(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zeroskip.bench import seeded_networks

    seen = []

    class Watched(torch.nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return super().forward(x)

    monkeypatch.setattr(seeded_networks, "network", lambda case: Watched(4, 2, 3))
    monkeypatch.setattr(seeded_networks, "example", lambda case: torch.ones(1, 4, 5, 5))
    made = WorkerJob(tmp_path, CASE.to_json(), 1)
    BUILDERS["reference"][1](made)
    seen.clear()
    BUILDERS[word][1](made).call()
    assert seen == [word == "torch-fp32"]
