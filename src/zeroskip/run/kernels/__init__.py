"""The ways to compute a layer, one file each. `ALL` is what `run.compile` tries."""

from zeroskip.run.kernels import channels_last, dense, sell, spmm

ALL = (dense.KERNEL, channels_last.KERNEL, sell.KERNEL, spmm.KERNEL)

__all__ = ["ALL", "channels_last", "dense", "sell", "spmm"]
