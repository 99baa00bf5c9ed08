"""Deep Compression on one network: pruned, shared, coded; and what each of the three does alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from zeroskip import codebooks, pack, prune, retrain, task_api
from zeroskip.concepts import Packed, Recipe, Round, Sparse
from zeroskip.papers.common import trainings
from zeroskip.papers.common.frontier_training import TUNING, all_frontiers, dense_bytes, mean
from zeroskip.papers.common.paper import Findings, Setup
from zeroskip.papers.common.training_plans import PLANS, TrainingPlan
from zeroskip.papers.common.trainings import Seed
from zeroskip.papers.han2015.train import iterative

INDEX_BITS = 5  # the width in the paper's tables for both LeNets
STARTS_BITS = range(2, 9)
FEWEST_BITS = (8, 6, 5, 4, 3, 2, 1)


def measure_network(network: str, setup: Setup) -> Findings:
    """What `CodedFindings` holds; resumes in the folder, where the networks are those that `han2015` trains."""
    return of_plan(replace(PLANS[network], weights=setup.weights), setup.folder / network, setup)


def of_plan(plan: TrainingPlan, out: Path, setup: Setup) -> Findings:
    """The findings of one network by a plan of one's own, with everything in `out`."""
    seeds = trainings.seeds(plan, out, setup.seeds, setup.progress)
    tables = trainings.of_each(seeds, "dc-tables", _tables)
    figures = {NUMBERS[name]: one for name, one in trainings.figures(seeds[0], FIGURES).items()}
    return {
        **mean(tables, lists=False),
        "figures_dense": tables[0]["error_dense"],  # figures are those of seed 0
        **figures,
        **all_frontiers(plan, out, setup.seeds, setup.progress),
    }


def _published(seed: Seed) -> Sparse:
    """The paper's network: as many weights left, codes as wide, centroids trained."""
    return _shared(seed, "published-bits", _pruned(seed), bits=dict(seed.plan.bits), epochs=TUNING["epochs"])


def _pruned(seed: Seed) -> Sparse:
    return retrain.as_sparse(iterative(seed))


def _shared(seed: Seed, name: str, sparse: Sparse, **keywords: Any) -> Sparse:
    return trainings.shared(seed, name, sparse, **{**TUNING, "bias_bits": 8, "epochs": 1, **keywords})


def _tables(seed: Seed) -> dict[str, Any]:
    dense, small = trainings.dense(seed), _published(seed)
    widths = {f"{name}.weight": INDEX_BITS for name in small.masks}
    fixed, huffman = pack.encode(small, coder="fixed", index_bits=widths), pack.encode(small, coder="huffman")
    return {
        **trainings.errors(seed, error_dense=dense, error=small.model),
        "stored_bytes_dense": dense_bytes(dense),
        "stored_bytes": huffman.stored_bytes,
        **_layers(small, fixed, huffman),
    }


def _layers(small: Sparse, fixed: Packed, huffman: Packed) -> dict[str, object]:
    """Bits of a code and of a position, and shares of the dense size, by layer and of all weights together."""
    rows = {name: _row(small, fixed, huffman, [name]) for name in small.masks}
    return {"layers": rows, "total": _row(small, fixed, huffman, list(small.masks))}


def _row(small: Sparse, fixed: Packed, huffman: Packed, layers: list[str]) -> dict[str, float]:
    weights = sum(small.masks[name].numel() for name in layers)
    kept = sum(int(small.masks[name].sum()) for name in layers)

    def bits(packed: Packed, *parts: str) -> float:
        return 8 * sum(packed.ledger[f"{name}.weight"][part] for name in layers for part in parts)

    every = ("values", "positions", "codebook", "tables", "header")
    return {
        "kept": kept / weights,
        "bits": bits(fixed, "values") / kept,
        "bits_huffman": bits(huffman, "values") / kept,
        "index": bits(fixed, "positions") / kept,
        "index_huffman": bits(huffman, "positions") / kept,
        "stored": bits(fixed, *every) / (32 * weights),
        "stored_huffman": bits(huffman, *every) / (32 * weights),
    }


def _sizes(seed: Seed) -> dict[str, list[list[float]]]:
    """Figure 6: share of the dense size against error, for pruning alone, sharing alone, and both."""
    dense, sparse = retrain.as_sparse(trainings.dense(seed)), _pruned(seed)
    whole = dense_bytes(dense.model)

    def point(small: Sparse) -> list[float]:
        size = pack.encode(small, coder="fixed").stored_bytes
        return [size / whole, task_api.evaluate(seed.task, small.model, "test")]

    further = [retrain.as_sparse(cut(seed, sparse.model, times)) for times in (2, 4)]
    return {
        "pruned": [point(small) for small in (sparse, *further)],
        "shared": [point(_shared(seed, f"dense-{bits}-bits", dense, bits=bits)) for bits in FEWEST_BITS],
        "both": [point(_shared(seed, f"pruned-{bits}-bits", sparse, bits=bits)) for bits in FEWEST_BITS],
    }


def cut(seed: Seed, model: nn.Module, times_fewer: float) -> nn.Module:
    """`model` with the smallest of its weights gone, so that `times_fewer` are left, and retrained for a round."""
    weights = list(prune.weights(model).values())
    left, whole = sum(int((w != 0).sum()) for w in weights), sum(w.numel() for w in weights)
    sparsity = 1 - left / times_fewer / whole
    train = {"epochs": seed.plan.rounds, "learning_rate_divisor": seed.plan.divisor}
    recipe = Recipe((Round(sparsity=sparsity, train=train),))
    return trainings.pruned(seed, f"cut-{times_fewer:g}x", model, recipe).model


def _fewest_bits(seed: Seed) -> dict[str, dict[str, float]]:
    """Figure 7: error with the codes of one kind of layer that narrow, the others left as they are."""
    sparse = _pruned(seed)
    kinds = {kind: [name for name in sparse.masks if name.startswith(kind)] for kind in ("conv", "fc")}
    errors: dict[str, dict[str, float]] = {kind: {} for kind, names in kinds.items() if names}
    for kind, curve in errors.items():
        for bits in FEWEST_BITS:
            narrow = dict.fromkeys(kinds[kind], bits)
            curve[str(bits)] = _error(seed, f"{kind}-{bits}-bits", sparse, bits=narrow)
    return errors


def _starts(seed: Seed) -> dict[str, dict[str, float]]:
    """Figure 8: error by where k-means starts and by the width of the codes."""
    sparse = _pruned(seed)
    errors: dict[str, dict[str, float]] = {start: {} for start in codebooks.STARTS}
    for start, curve in errors.items():
        for bits in STARTS_BITS:
            curve[str(bits)] = _error(seed, f"{start}-{bits}-bits", sparse, bits=bits, start=start)
    return errors


def _error(seed: Seed, name: str, sparse: Sparse, **keywords: Any) -> float:
    return task_api.evaluate(seed.task, _shared(seed, name, sparse, **keywords).model, "test")


FIGURES = {"sizes": _sizes, "fewest_bits": _fewest_bits, "starts": _starts}
NUMBERS = {"sizes": "figure6", "fewest_bits": "figure7", "starts": "figure8"}
