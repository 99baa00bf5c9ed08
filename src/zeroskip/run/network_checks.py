"""What is checked of a network before it is compiled, and of a compiled one, so that bad input gets a sentence."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zeroskip.concepts import Packed
from zeroskip.errors import EngineError, ModelError, ZeroskipError
from zeroskip.graph import Given, Graph, Inputs, capture, forward, weight_name
from zeroskip.graph.capture import NO_BATCH_AXIS, demand_numbers
from zeroskip.graph.exporting import first_line
from zeroskip.graph.inputs import of
from zeroskip.run.call_checks import PLAIN
from zeroskip.run.captured import Captured, examples_in, run_once, taken
from zeroskip.run.output_difference import agree, difference, leaves, no_further, relative_error
from zeroskip.run.runner import Runner, runner
from zeroskip.run.select.network_selection import Selection

UNPACK = """A file holds no code: load it into the network.
    model.load_state_dict(pack.decode(packed))
    program = run.compile(model, example)"""
GENERATE = (
    "It calls forward again and again. Compile the network, run.compile(model, example), and call the program in a "
    "loop, with all tokens so far; use_cache=False belongs into the example."
)


def checked(model: nn.Module, example: Given | Inputs, batch_axis: int | None) -> Inputs:
    """The example in one form, contiguous, on which the network has run; ModelError or EngineError with what to do."""
    if not isinstance(model, nn.Module):
        raise EngineError(
            f"run.compile was given a {_title(model)}, and needs a torch.nn.Module. {_instead(model)}"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise EngineError(
            "the network is a ScriptModule, whose operations cannot be followed. Compile the module it was made from."
        )
    if isinstance(example, Tensor) and not example.ndim and batch_axis == 0:
        raise EngineError(
            "the example is a single number, and no batch. Give a tensor, examples along its first axis."
        )
    given = of(example, batch_axis)
    for tensor in given.tensors:
        if type(tensor) not in PLAIN or tensor.layout is not torch.strided:
            raise EngineError(
                f"the example holds a {type(tensor).__name__} stored as {tensor.layout}, and programs read plain dense "
                "tensors. Convert it with x.to_dense(), or x.as_subclass(torch.Tensor)."
            )
    inputs = given.map(lambda tensor: tensor.detach().contiguous())
    demand_numbers(inputs)
    tensors = [*inputs.tensors, *model.parameters(), *model.buffers()]
    elsewhere = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), None)
    if elsewhere is not None:
        raise EngineError(
            f"the network or the example is on {elsewhere}, and programs run on the cpu. "
            "Move both with .cpu(), then compile."
        )
    _check_types(model)
    try:
        forward(model, _copied(inputs))  # a network that cannot run at all says so in its own words
    except ModelError as error:
        raise (_without_batch(model, inputs) or error) from error
    return inputs


def captured_graph(model: nn.Module, inputs: Inputs) -> Graph:
    """The network's operations; EngineError where they cannot be followed."""
    try:
        graph = capture(model, inputs)
    except ZeroskipError as error:
        raise (_without_batch(model, inputs) or error) from error
    except Exception as fact:  # whatever Python says of a forward that has no signature
        raise EngineError(f"the network cannot be captured: {first_line(fact)}") from fact
    bound = graph.batch is not None or not any(each.has_batch for each in graph.inputs)
    refusal = _without_batch(model, inputs) if bound else None
    if refusal is not None:
        raise refusal
    return graph


def tensors_of(graph: Graph, inputs: Inputs) -> list[Tensor]:
    """The tensors of an example, in the order of the graph's inputs."""
    assert graph.signature is not None
    return graph.signature.tensors(inputs.args, inputs.kwargs)


def run_on(graph: Graph, tensors: Sequence[Tensor], kept: Collection[str]) -> Captured:
    """`run_once`, whose failure is an EngineError."""
    try:
        return run_once(graph, tensors, kept)
    except ZeroskipError:
        raise
    except Exception as fact:  # of an operation of torch that was captured for another number of examples
        raise EngineError(_fails(examples_in(graph, tensors), fact)) from fact


def network_on(model: nn.Module, graph: Graph, tensors: Sequence[Tensor]) -> object:
    """What the network itself returns for these tensors."""
    assert graph.signature is not None
    args, kwargs = graph.signature.call(tensors)
    return forward(model, Inputs(tuple(args), kwargs))


def verify(selection: Selection, model: nn.Module, tensors: Sequence[Tensor], tolerance: float) -> float:
    """The error of the selected program on the example.

    EngineError unless program and network agree on one example, on all, and on one more. Where weights are rounded
    on purpose, the graph is compared with the network, and the program with the graph of rounded layers: it is the
    same, or as near to the network.
    """
    graph, run = selection.compiled.origin.graph, selection.compiled.run
    rounds, error, size = any(choice.error for choice in selection.choices), 0.0, examples_in(graph, tensors)
    free = any(each.has_batch for each in graph.inputs)
    for count in sorted({1, size, size + 1}) if free else [size]:
        given = taken(graph, tensors, count)
        answer = _answer(graph, run, given, count)
        expected = _expected(graph, model, tensors, count, answer)
        if rounds:
            error = relative_error(answer, expected) if count == size else error
            exact = _answer(graph, runner(graph, {}), taken(graph, tensors, count), count)
            if not agree(exact, expected):
                answer = exact
            else:
                runs = run, selection.rounded
                answer, expected = beside_rounded(graph, runs, taken(graph, tensors, count), answer)
                if no_further(answer, expected, exact):
                    continue
        if not agree(answer, expected, tolerance=tolerance):
            raise EngineError(
                f"on {_examples(count)} the compiled program differs from the network by "
                f"{difference(answer, expected):.3g}. {why_different(model)} {NO_BATCH_AXIS}"
            )
    return error


def beside_rounded(
    graph: Graph, runs: tuple[Runner, Runner], given: Sequence[Tensor], answer: object
) -> tuple[object, object]:
    """What has to agree: an answer for `given`, and that of the network whose layers are rounded in PyTorch.

    runs  the program, and that network. It takes long: where the program answers every example as it answers it alone,
          their answers for the first one stand for all.

    >>> by_torch = torch.no_grad()(runner(graph, {}))
    >>> [tuple(answer.shape) for answer in beside_rounded(graph, (by_torch,) * 2, [x], model(x).detach())]
    [(1, 4), (1, 4)]
    """
    run, rounded = runs
    count = examples_in(graph, given)
    each = [
        [
            x[number : number + 1] if known.has_batch else x
            for known, x in zip(graph.inputs, given, strict=True)
        ]
        for number in range(count if count > 1 and graph.batch is None else 0)
    ]
    alone = [_answer(graph, run, [x.clone() for x in one], 1) for one in each]
    if alone and agree(answer, _joined(alone)):
        answer, given, count = alone[0], each[0], 1
    return answer, _answer(graph, rounded, [x.clone() for x in given], count)


def _joined(answers: Sequence[object]) -> list[Tensor]:
    """The tensors of several answers, one behind the other where they can be."""
    several = zip(*map(leaves, answers), strict=True)
    return [torch.cat([*map(torch.atleast_1d, parts)]) for parts in several]


def why_different(model: nn.Module) -> str:
    """What makes a network compute something else than was captured, and the remedy.

    >>> why_different(model).split(",")[0]
    'Either the network is random in evaluation mode'
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.TransformerEncoder) and getattr(module, "use_nested_tensor", False):
            where = f"model.{name}" if name else "model"
            return (
                f"{where} is an nn.TransformerEncoder, which returns zeros for tokens that its mask hides, unless it "
                f"is being exported. Set {where}.use_nested_tensor = False: it then always computes the same."
            )
    return (
        "Either the network is random in evaluation mode, or its answers depend on the number of examples in a way "
        "that torch.export cannot follow (if, squeeze(), or len(x) where x.shape[0] would do). Change that, then "
        "compile."
    )


def _answer(graph: Graph, run: Runner, given: Sequence[Tensor], count: int) -> object:
    try:
        return graph.rebuild(run(*given))
    except ZeroskipError:
        raise
    except Exception as fact:  # of an operation of torch that was captured for another number of examples
        raise EngineError(_fails(count, fact)) from fact


def _fails(count: int, fact: Exception) -> str:
    return (
        f"the compiled program fails on {_examples(count)}: {first_line(fact)} The network depends on the number of "
        f"examples in a way that torch.export cannot follow. {NO_BATCH_AXIS}"
    )


def _expected(
    graph: Graph, model: nn.Module, tensors: Sequence[Tensor], count: int, answer: object
) -> object:
    """What the network returns for the first `count` examples."""
    try:
        return network_on(model, graph, taken(graph, tensors, count))
    except ModelError as error:
        if graph.batch is None:
            if count == examples_in(graph, tensors):
                raise
            raise EngineError(
                f"the network runs on {_examples(examples_in(graph, tensors))} and fails on {count}: {error} "
                f"{NO_BATCH_AXIS}"
            ) from error
    # The network itself takes no other size; the program computes its examples in batches of that one.
    answers = leaves(network_on(model, graph, taken(graph, tensors, graph.batch)))
    return [each[torch.arange(count).clamp(max=graph.batch - 1)] for each in answers]


def _examples(count: int) -> str:
    return f"{count} example{'' if count == 1 else 's'}"


def _copied(inputs: Inputs) -> Inputs:
    return inputs.map(Tensor.clone)


def _title(given: Any) -> str:
    bound = isinstance(getattr(given, "__self__", None), nn.Module)
    return f"method, {given.__name__}" if bound else type(given).__name__


def _instead(given: Any) -> str:
    if isinstance(given, Packed):
        return UNPACK
    if isinstance(getattr(given, "__self__", None), nn.Module):
        return (
            GENERATE
            if given.__name__ == "generate"
            else "Compile the network itself, or put that into a forward."
        )
    return "Put it into the forward of one."


def _without_batch(model: nn.Module, inputs: Inputs) -> EngineError | None:
    """The error for an example that lacks the axis of examples: with one in front, any number of them is possible."""
    if inputs.batch_axis is None or all(tensor.ndim == 0 for tensor in inputs.tensors):
        return None
    one = inputs.map(lambda tensor: tensor[None].clone() if tensor.ndim else tensor.clone())
    try:
        graph = capture(model, one)
    except Exception:  # whatever: it was a guess
        return None
    if graph.batch is not None or not any(each.has_batch for each in graph.inputs):
        return None
    return EngineError(
        f"the example, {inputs.title}, has no axis of examples: the network takes any number of them along an axis in "
        "front. Compile with one: run.compile(model, example[None]), and tensors in a tuple or dict alike. Where no "
        "axis is that of examples, as in a graph, give batch_axis=None."
    )


def _check_types(model: nn.Module) -> None:
    """EngineError where no weight is float32, and one warning where some are not: no kernel of ours is for others."""
    matrices = {name: weight for name, weight in model.named_parameters() if weight.ndim > 1}
    odd = {name: weight.dtype for name, weight in matrices.items() if weight.dtype is not torch.float32}
    if not odd:
        return
    name, dtype = next(iter(odd.items()))
    shown = str(dtype).removeprefix("torch.")
    if len(odd) == len(matrices):
        raise EngineError(
            f"the network's weights are {shown} ({weight_name(name) or 'weight'} and the others), and kernels compute "
            "with float32 weights: nothing would be faster. Convert with model.float(), and the example likewise. "
            'Fewer bits are asked for by precision="bf16" or "fp16", and weights="bf16" or "int8".'
        )
    warnings.warn(
        f"{len(odd)} of {len(matrices)} weights are not float32 ({weight_name(name)} is {shown}); they stay dense. "
        "Convert with model.float().",
        stacklevel=4,
    )
