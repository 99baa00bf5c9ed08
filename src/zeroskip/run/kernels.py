"""Every kernel there is: `ALL` is what `run.compile` tries, `BY_NAME` what a file may name."""

from zeroskip.concepts import Kernel
from zeroskip.run.convolution.tiles import kernels as tiles
from zeroskip.run.convolution.zero_inputs import kernels as zero_inputs
from zeroskip.run.dense import bfloat16, channels_last, pytorch
from zeroskip.run.linear.zero_inputs import columns, columns_sparse
from zeroskip.run.linear.zero_weights import balanced, gaps, sell, spmm, windows
from zeroskip.run.linear_quads import kernels as linear_quads
from zeroskip.run.recurrent import kernels as recurrent

ALL = (
    *(pytorch.KERNEL, channels_last.KERNEL, bfloat16.KERNEL),  # they multiply zeros like any other weight
    *(sell.KERNEL, spmm.KERNEL, *gaps.KERNELS, *windows.KERNELS, *balanced.KERNELS),
    *linear_quads.KERNELS,  # in eight bits
    *(*columns.KERNELS, columns_sparse.KERNEL, *zero_inputs.KERNELS),
    *recurrent.KERNELS,
    *tiles.KERNELS,
)

BY_NAME: dict[str, Kernel] = {kernel.name: kernel for kernel in (*ALL, *tiles.DEPTHWISE_KERNELS)}
