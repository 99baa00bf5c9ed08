"""Sentences in, a line each, and vectors out: all-MiniLM-L6-v2 on the sparse engine, timed with ONNX Runtime."""

import sys
from functools import cache
from importlib import import_module, util
from pathlib import Path
from tempfile import TemporaryDirectory
from timeit import timeit

import numpy as np
import torch
import typer

from zeroskip import files, pack, run
from zeroskip.data import tokens
from zeroskip.errors import ZeroskipError
from zeroskip.tasks.sentences import published, tokenizer, vectors


def in_onnx_runtime(model, folder):
    @cache
    def session(length):  # a file for each length
        onnxruntime, example = import_module("onnxruntime"), tokens.padded([[1] * length])
        (options := onnxruntime.SessionOptions()).intra_op_num_threads = 1
        return onnxruntime.InferenceSession(run.save_onnx(model, example, f"{folder}/{length}.onnx"), options)

    return lambda **given: torch.from_numpy(
        session(given["input_ids"].shape[1]).run(None, {name: x.numpy() for name, x in given.items()})[0]
    )


def show_times(name, call, words, lines):
    vectors(call, words, lines)  # compiled for all lengths
    took = lambda part: timeit(lambda: vectors(call, words, part), number=1)
    one = 1000 * np.median([took([line]) for line in lines[:100]])
    print(f"{name}: {len(lines) / took(lines):.0f} sentences a second, {one:.2f} ms for one")


def main(file: Path, out: Path, data: str = "", zs: str = "", precision: str = "fp32"):
    torch.set_num_threads(1)
    model, words = published(data), tokenizer(data)
    if zs:  # of `zeroskip pack sts`
        model.load_state_dict(pack.decode(pack.load(zs)))
    lines = files.read(file).decode().splitlines()
    ids = tokens.encode(words, lines)
    scales = run.calibrate(model, tokens.alike(ids[:512])) if precision == "int8" else None
    usual = tokens.padded(sorted(ids, key=len)[len(ids) // 2 :][:1])
    program = run.compile(model, usual, precision=precision, quantisation=scales)
    np.save(out, vectors(program, words, lines).numpy())
    show_times(f"zeroskip {precision}", program, words, lines)
    if util.find_spec("onnxruntime"):
        with TemporaryDirectory() as folder:
            show_times("ONNX Runtime fp32", in_onnx_runtime(model, folder), words, lines)


try:
    typer.run(main)
except ZeroskipError as fact:
    sys.exit(f"error: {fact}")
