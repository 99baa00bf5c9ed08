"""A program where a task or a library holds a network and calls it."""

from __future__ import annotations

import copy
from collections import OrderedDict

from torch import nn

from zeroskip.run.program import Program


def as_module(program: Program, model: nn.Module) -> nn.Module:
    """A module that runs `program` where `model` would run, for what holds a network: a task, a library.

    It has the parameters, configuration and methods of the model, which itself stays as it is; training it is of no
    use. A program in a SentenceTransformer (its `model` was `auto_model` before version 5):

        inner = sentences[0].model
        example = dict(sentences.tokenizer(["A sentence as long as most."], return_tensors="pt"), return_dict=True)
        sentences[0].model = run.as_module(run.compile(inner, example), inner)

    >>> module = as_module(run.compile(model, x), model)
    >>> module(x).shape, len(list(module.parameters()))
    (torch.Size([3, 4]), 4)
    """
    module = copy.copy(model)
    # What hangs on the model is part of the program.
    module._forward_hooks, module._forward_pre_hooks = OrderedDict(), OrderedDict()
    module.forward = program
    return module
