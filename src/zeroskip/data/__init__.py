"""Real data sets as tensors, and what reads their files. Nothing is downloaded unless asked."""

from zeroskip.data.splits import Split, Splits, data_folder

__all__ = ["Split", "Splits", "data_folder"]
