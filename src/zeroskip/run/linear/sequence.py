"""Linear layers one after the other in one call: in small networks a call costs more than its arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Function
from zeroskip.emit.python_call import address
from zeroskip.run.argument_block import argument_block
from zeroskip.run.linear.compiled_linear import ARGUMENTS, CompiledLinear, compiled, kernel


def sequence(layers: Sequence[CompiledLinear]) -> CompiledLinear:
    """The layers one after the other; the output of each is the input of the next."""
    machine, widest = layers[0].machine, max(layer.outputs for layer in layers)
    scratch = max(layer.scratch for layer in layers)
    calls = [word for layer in layers for word in (address(layer.run), layer.arguments.address)]
    arguments = argument_block(len(layers), scratch, widest, *calls, alive=layers)
    return CompiledLinear(
        run=compiled(emit_sequence, machine),
        arguments=arguments,
        inputs=layers[0].inputs,
        outputs=layers[-1].outputs,
        machine=machine,
        scratch=scratch,
        scratch_per_row=2 * widest,
    )


def emit_sequence(machine: Machine) -> Function:
    """The function that calls others in turn, passing results through two buffers behind their scratch."""
    f = kernel("sequence")
    count, scratch, widest = f.fields(ARGUMENTS, [INTEGER] * 3)
    even = f.at("%scratch", scratch)
    odd = f.at(even, f.multiply(widest, "%rows"))
    last = f.add(count, -1)
    with f.loop(0, count) as number:
        code, arguments = f.fields(f.at(ARGUMENTS, f.add(f.multiply(number, 2), 3), INTEGER), [POINTER] * 2)
        is_odd = f.value(f"trunc i64 {number} to i1")
        before, after = (f"select i1 {is_odd}, ptr {a}, ptr {b}" for a, b in ((even, odd), (odd, even)))
        source = _select(f, f"eq i64 {number}, 0", "%x", f.value(before))
        target = _select(f, f"eq i64 {number}, {last}", "%y", f.value(after))
        f.do(f"call void {code}(ptr {arguments}, ptr {source}, ptr {target}, ptr %scratch, i64 %rows)")
    return f


def _select(f: Function, condition: str, yes: str, no: str) -> str:
    return f.value(f"select i1 {f.value(f'icmp {condition}')}, ptr {yes}, ptr {no}")
