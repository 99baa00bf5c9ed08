"""Every kernel there is: `ALL` is what `run.compile` tries."""

from zeroskip.run.convolution.tiles import baked_kernel, blocks_kernel, half_kernels, streamed_kernel
from zeroskip.run.convolution.zero_inputs import gather_kernels, scatter_kernels
from zeroskip.run.dense import bfloat16, channels_last, pytorch
from zeroskip.run.linear.zero_inputs import columns, columns_sparse
from zeroskip.run.linear.zero_weights import balanced, gaps, sell, spmm, windows

DENSE = (pytorch.KERNEL, channels_last.KERNEL, bfloat16.KERNEL)  # they multiply zeros like any other weight

ALL = (
    *DENSE,
    *(sell.KERNEL, spmm.KERNEL, *gaps.KERNELS, *windows.KERNELS, *balanced.KERNELS),
    *(*columns.KERNELS, columns_sparse.KERNEL, *gather_kernels.KERNELS, *scatter_kernels.KERNELS),
    *(baked_kernel.KERNEL, streamed_kernel.KERNEL, blocks_kernel.KERNEL),
    *half_kernels.KERNELS,
)
