"""The kernels for recurrent operations: `layout="steps"`, so that they are asked about these and no others."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from zeroskip.concepts import Kernel, Layer, Machine, Precision, weight_sparsity
from zeroskip.graph.recurrent import Cell, Recurrent, StepOutputs, function_of
from zeroskip.run.dense import pytorch
from zeroskip.run.linear.refusals import WIDEST
from zeroskip.run.linear.stored_weights import cannot_be_stored, rounded
from zeroskip.run.linear.zero_weights import spmm
from zeroskip.run.recurrent import spmm as many_examples
from zeroskip.run.recurrent import spmv
from zeroskip.run.recurrent.call import Compiled, CompiledCell, Product, compiled

BEFOREHAND = 8  # rows from which on the products of the input matrix are made beforehand, for all at once
DENSE = 0.5  # share of zeros below which PyTorch makes them


def accepts(storage: str, recurrent: Layer | Recurrent, machine: Machine, precision: Precision) -> str | None:
    """None, or why not.

    >>> accepts("int8", recurrent, machine, Precision(weights="bf16"))
    '0 % zeros: nothing to skip'
    """
    if not isinstance(recurrent, Recurrent):
        return f"computes LSTM, GRU and RNN, not {recurrent.op}"
    matrices = recurrent.matrices
    if any(layer.weight.dtype is not torch.float32 for layer in matrices):
        return f"computes float32 weights, not {str(matrices[0].weight.dtype).removeprefix('torch.')}"
    if any(0 in layer.weight.shape for layer in matrices):
        return "a matrix has no weights at all"
    if not any(layer.sparsity for layer in matrices):
        return "0 % zeros: nothing to skip"
    widest = max(max(layer.weight.shape[1] for layer in cell.matrices) for cell in recurrent.cells)
    if widest > WIDEST:
        return f"{widest} columns: numbers of 16 bits reach {WIDEST}"
    if storage == "fp32":
        return None
    reasons = (cannot_be_stored(storage, layer, precision) for layer in matrices)
    return next((why for why in reasons if why is not None), None)


def build(storage: str, recurrent: Recurrent, machine: Machine, precision: Precision, relu: bool) -> Compiled:
    """The operation as a function of the sequence, and of the first states where they are given."""
    make = partial(_few_examples, storage, recurrent.kind, machine=machine, precision=precision)
    return compiled(recurrent, [make(cell) for cell in recurrent.cells])


def build_spmm(recurrent: Recurrent, machine: Machine, precision: Precision, relu: bool) -> Compiled:
    """The same for many examples."""
    kind = recurrent.kind
    cells = [
        CompiledCell(many_examples.build(kind, cell, machine), torch.zeros(0)) for cell in recurrent.cells
    ]
    return compiled(recurrent, cells)


def _few_examples(
    storage: str, kind: str, cell: Cell, *, machine: Machine, precision: Precision
) -> CompiledCell:
    return CompiledCell(
        fused=spmv.build(kind, cell, storage, machine, fused=True),
        bias=_bias(kind, cell),
        steps=spmv.build(kind, cell, storage, machine, fused=False),
        product=_product(storage, kind, cell, machine, precision),
        few=BEFOREHAND,
    )


def _bias(kind: str, cell: Cell) -> Tensor:
    """What the gates begin with: both biases, without that of the hidden matrix for n of a GRU."""
    if cell.inputs.bias is None or cell.hidden.bias is None:
        return torch.zeros(len(cell.inputs.weight))
    hidden = cell.hidden.bias.detach().clone()
    if kind == "gru":
        hidden[2 * cell.units :] = 0
    return cell.inputs.bias.detach() + hidden


def _product(storage: str, kind: str, cell: Cell, machine: Machine, precision: Precision) -> Product:
    weight = rounded(storage, cell.inputs.weight.detach())
    layer = replace(cell.inputs, weight=weight, bias=_bias(kind, cell))
    made_by = spmm.KERNEL if weight_sparsity(weight) >= DENSE else pytorch.KERNEL
    return made_by.build(layer, machine, precision, False)


def reference(storage: str, recurrent: Recurrent, *values: Tensor) -> StepOutputs:
    """The operation in PyTorch, of rounded weights."""
    if storage == "fp32":
        return function_of(recurrent)(*values)
    cells = tuple(Cell(*(_rounded(storage, layer) for layer in cell.matrices)) for cell in recurrent.cells)
    return function_of(replace(recurrent, cells=cells))(*values)


def _rounded(storage: str, layer: Layer) -> Layer:
    return replace(layer, weight=rounded(storage, layer.weight))


SPMV = tuple(
    Kernel(
        name=f"spmv_{storage}",
        method="spmv",
        accepts=partial(accepts, storage),
        build=partial(build, storage),
        reference=partial(reference, storage),
        weights=storage,
        layout="steps",
    )
    for storage in ("fp32", "bf16", "int8")
)
SPMM = Kernel(
    "spmm_steps", "spmm", partial(accepts, "fp32"), build_spmm, partial(reference, "fp32"), layout="steps"
)
KERNELS = (*SPMV, SPMM)
