"""The ways to compute a layer, one file each. `ALL` is what `run.compile` tries."""

from zeroskip.run.kernels import (
    amx,
    baked,
    balanced,
    blocks,
    channels_last,
    columns,
    columns_sparse,
    dense,
    dense_bf16,
    gaps,
    gather,
    half,
    scatter,
    sell,
    spmm,
    streamed,
    windows,
)

ALL = (
    *(dense.KERNEL, channels_last.KERNEL, dense_bf16.KERNEL),
    *(sell.KERNEL, spmm.KERNEL, *gaps.KERNELS, *windows.KERNELS, *balanced.KERNELS),
    *(*columns.KERNELS, columns_sparse.KERNEL, *gather.KERNELS, *scatter.KERNELS),
    *(baked.KERNEL, streamed.KERNEL, blocks.KERNEL, amx.KERNEL),
    *half.KERNELS,
)

__all__ = [
    "ALL",
    "amx",
    "baked",
    "balanced",
    "blocks",
    "channels_last",
    "columns",
    "columns_sparse",
    "dense",
    "dense_bf16",
    "gaps",
    "gather",
    "half",
    "scatter",
    "sell",
    "spmm",
    "streamed",
    "windows",
]
