"""Weights whose names are not the network's: what is missing, what is left over, and the line that renames them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_pruning

from zeroskip import task_api, thresholds
from zeroskip.errors import ModelError
from zeroskip.graph.state_names import misfit


class Small:
    """A task of the four functions whose network is built in place."""

    name = "small"

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        self.model = make

    def train(self, model: nn.Module) -> None: ...

    def evaluate(self, model: nn.Module) -> float:
        return 0.0

    def batch(self) -> Tensor:
        return torch.zeros(2, 4)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


RENAMED = {
    "module. of DataParallel": (lambda name: "module." + name, 'name.removeprefix("module.")'),
    "_orig_mod. of torch.compile": (lambda name: "_orig_mod." + name, 'name.removeprefix("_orig_mod.")'),
    "both": (lambda name: "_orig_mod.module." + name, 'name.removeprefix("_orig_mod.module.")'),
    "inside": (lambda name: name.replace(".", "._orig_mod.", 1), 'name.replace("_orig_mod.", "")'),
    "behind": (lambda name: name + ".ema", 'name.removesuffix(".ema")'),
}


@pytest.mark.parametrize(("rename", "expression"), RENAMED.values(), ids=RENAMED.keys())
def test_names_with_something_in_common_are_refused_with_the_line_that_renames_them(
    rename: Callable[[str], str], expression: str
) -> None:
    held = thresholds.hold_(network(), {"2": 0.25}).state_dict()
    weights = {rename(name): tensor for name, tensor in held.items()}
    with pytest.raises(ModelError) as refused:
        task_api.model(Small(network), weights)
    first, other = "0.weight", rename("0.weight")
    assert f"missing: 8 ({first}, 0.bias, 1.weight, ...)" in str(refused.value)
    assert f"({other}, {rename('0.bias')}, {rename('1.weight')}, ...)" in str(refused.value)
    assert f"save_file({{{expression}: tensor for name, tensor" in str(refused.value)
    mended = {eval(expression, {"name": name}): tensor for name, tensor in weights.items()}
    assert thresholds.held(task_api.model(Small(network), mended)) == {"2": 0.25}


def test_a_network_that_has_a_prefix_more_than_its_file_is_named_likewise() -> None:
    inner = network().state_dict()
    with pytest.raises(ModelError, match=re.escape('save_file({"body." + name: tensor')):
        task_api.model(Small(lambda: nn.ModuleDict({"body": network()})), inner)


def test_names_that_have_nothing_in_common_are_shown_from_both_sides() -> None:
    state = {f"layer{index}.w": torch.ones(1) for index in range(5)}
    words = r"missing: 8 \(0.weight, 0.bias, 1.weight, ...\); unexpected: 5 \(layer0.w, layer1.w, layer2.w, ...\)\.$"
    with pytest.raises(ModelError, match=words):
        task_api.model(Small(network), state)
    one = dict(network().state_dict())
    del one["2.bias"]
    assert misfit(network(), one) == "missing: 1 (2.bias)."
    assert misfit(network(), [*network().state_dict(), "extra"]) == "unexpected: 1 (extra)."
    assert misfit(network(), network().state_dict()) == ""


def test_files_older_than_the_counter_of_batch_norm_still_load_and_do_not_confuse() -> None:
    state = {name: t for name, t in network().state_dict().items() if "num_batches" not in name}
    assert isinstance(task_api.model(Small(network), state), nn.Sequential)
    assert 'removeprefix("module.")' in misfit(network(), ["module." + name for name in state])


def test_weights_that_are_still_under_torch_s_pruning_are_refused_with_the_remedy() -> None:
    pruned = network()
    torch_pruning.l1_unstructured(pruned[0], "weight", 0.5)
    words = "Still under torch.nn.utils.prune: 0.weight. Call torch.nn.utils.prune.remove"
    with pytest.raises(ModelError, match=words):
        task_api.model(Small(network), pruned.state_dict())


def test_a_file_that_names_a_tied_tensor_once_loads_under_all_its_names() -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        return model

    state = tied().state_dict()
    for gone in ("0.weight", "1.weight"):
        once = {name: tensor for name, tensor in state.items() if name != gone}
        loaded = task_api.model(Small(tied), once)
        assert torch.equal(loaded[0].weight, state["0.weight"])
        assert loaded[0].weight is loaded[1].weight
