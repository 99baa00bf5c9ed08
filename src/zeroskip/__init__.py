"""zeroskip finds, makes, stores and runs the zeros of a neural network, and measures whether they pay.

    from zeroskip import measure, prune, retrain, pack, run, report
    from zeroskip.tasks import digits as task

The modules are imported when first used; the nouns they exchange are in `zeroskip.concepts`.
"""

__version__ = "0.1.0"

__all__ = [
    "concepts",
    "errors",
    "journey",
    "measure",
    "pack",
    "patterns",
    "prune",
    "report",
    "retrain",
    "run",
    "tasks",
]
