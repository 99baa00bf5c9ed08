"""Every error that zeroskip raises on purpose: ZeroskipError, and below it

    TaskError, DataError, ModelError, PatternError, RecipeError
    PackError, FileError, RunError, EngineError, AcceleratorError

A message has three parts: what was given, why it cannot work, what to do. The command line prints it as it is,
without a traceback, and exits with status 1.
"""

from __future__ import annotations


class ZeroskipError(Exception):
    """Base of all errors below; catch this one to catch them all."""


class TaskError(ZeroskipError):
    """The task is unknown, or its file lacks one of the four functions."""


class DataError(ZeroskipError):
    """A data set is absent or damaged."""


class ModelError(ZeroskipError):
    """The network cannot be worked on: nothing to prune, NaN weights, wrong shapes."""


class PatternError(ZeroskipError):
    """A sparsity pattern that cannot be read, or does not fit a layer."""


class RecipeError(ZeroskipError):
    """A sparsity outside 0..1, an unknown layer or score, a recipe that cannot be followed."""


class PackError(ZeroskipError):
    """A `.zs` file that is truncated, altered or foreign, or a tensor that cannot be stored."""


class FileError(ZeroskipError):
    """A file or folder that cannot be read or written."""


class RunError(ZeroskipError):
    """A RUN folder that belongs to another command, or is damaged."""


class EngineError(ZeroskipError):
    """The compiled program cannot be built, or was called wrongly."""


class AcceleratorError(ZeroskipError):
    """An accelerator whose description contradicts itself, or that cannot run a layer."""
