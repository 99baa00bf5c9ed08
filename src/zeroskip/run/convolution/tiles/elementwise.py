"""Operations that look at one place: scales, activations, and two maps combined number by number."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from zeroskip.concepts import Machine
from zeroskip.emit import INTEGER, POINTER, Vector
from zeroskip.run.argument_block import argument_block
from zeroskip.run.convolution.tiles.layout import Map
from zeroskip.run.convolution.tiles.operations import Operation
from zeroskip.run.convolution.tiles.steps import (
    Epilogue,
    Step,
    at_offset,
    compiled,
    finished,
    function,
    kept,
    mask_at,
)

# What is done to two numbers: LLVM's instruction, or the intrinsic that keeps NaN.
FUNCTIONS = {
    "multiply": "fmul",
    "subtract": "fsub",
    "add": "fadd",
    "maximum": "llvm.maximum",
    "minimum": "llvm.minimum",
}


def pointwise(operation: Operation, x: Map, other: Map | None, y: Map, machine: Machine) -> Step:
    """y = epilogue(scale x + shift), scale and shift for each channel; `other` is what the epilogue adds."""
    places, layout = y.layout.inside(), y.layout
    maps = [x, y if other is None else other, y]
    offsets = [each.first + each.layout.offset(*places.T) for each in maps]
    channels = len(y.channels)
    scale, shift = (np.ones(channels, np.float32), np.zeros(channels, np.float32))
    if operation.factors is not None:
        scale, shift = (factor.numpy() for factor in operation.factors)
    epilogue = Epilogue(other is not None, operation.activation)
    code = _pointwise_code(machine, layout.vector, operation.factors is not None, epilogue)
    factors = [factor.astype(layout.element.dtype) for factor in (scale, shift)]
    block = argument_block(len(places), channels, *offsets, layout.masks(places), *factors)
    return Step("pointwise", operation.name, code, block)


def prelu(operation: Operation, x: Map, y: Map, machine: Machine) -> Step:
    """y = x, below 0 times the slope of its channel."""
    places, layout = y.layout.inside(), y.layout
    offsets = [each.first + each.layout.offset(*places.T) for each in (x, y)]
    assert operation.factors is not None
    slopes = operation.factors[0].numpy().astype(layout.element.dtype)
    code = _prelu_code(machine, layout.vector)
    block = argument_block(len(places), len(y.channels), *offsets, layout.masks(places), slopes)
    return Step("prelu", operation.name, code, block)


def combine(operation: Operation, x: Map, other: Map, y: Map, machine: Machine) -> Step:
    """y = activation(x function other), for the operation's function; an `other` of one pixel goes to all pixels."""
    places, layout = y.layout.inside(), y.layout
    single = (other.layout.height, other.layout.width) == (1, 1)  # where its own tiles may be others
    where = places * (1, 0, 0) if single else places
    offsets = [x.first + x.layout.offset(*places.T), other.first + other.layout.offset(*where.T)]
    offsets.append(y.first + layout.offset(*places.T))
    code = _combine_code(
        machine, layout.vector, operation.function, single, Epilogue(False, operation.activation)
    )
    block = argument_block(len(places), len(y.channels), *offsets, layout.masks(places))
    return Step(operation.function, operation.name, code, block)


@cache
def _pointwise_code(machine: Machine, v: Vector, scaled: bool, epilogue: Epilogue) -> Callable[..., None]:
    f, (count, channels, *arrays) = function("pointwise", [INTEGER] * 2 + [POINTER] * 6)
    masks, scale, shift = arrays[3:]
    with f.loop(0, count) as number:
        source, other, target = (at_offset(f, array, number) for array in arrays[:3])
        mask = mask_at(f, v, masks, number)
        with f.loop(0, channels) as channel:
            at = f.multiply(channel, v.lanes)
            value = f.load(v, f.at(source, at, v.element))
            if scaled:
                factor, term = (
                    f.splat(v, f.load(v.element, f.at(each, channel, v.element))) for each in (scale, shift)
                )
                value = f.multiply_add(v, value, factor, term)
            residual = f.at(other, at, v.element) if epilogue.residual else None
            value = finished(f, v, epilogue, value, residual, mask)
            f.store(v, value, f.at(target, at, v.element))
    return compiled(f, machine)


@cache
def _prelu_code(machine: Machine, v: Vector) -> Callable[..., None]:
    f, (count, channels, *arrays) = function("prelu", [INTEGER] * 2 + [POINTER] * 4)
    with f.loop(0, count) as number:
        source, target = (at_offset(f, array, number) for array in arrays[:2])
        mask = mask_at(f, v, arrays[2], number)
        with f.loop(0, channels) as channel:
            at = f.multiply(channel, v.lanes)
            value = f.load(v, f.at(source, at, v.element))
            slope = f.splat(v, f.load(v.element, f.at(arrays[3], channel, v.element)))
            below = f.value(f"fcmp olt {v} {value}, zeroinitializer")
            value = kept(f, v, below, f.value(f"fmul {v} {value}, {slope}"), value)
            f.store(v, kept(f, v, mask, value), f.at(target, at, v.element))
    return compiled(f, machine)


@cache
def _combine_code(
    machine: Machine, v: Vector, name: str, single: bool, epilogue: Epilogue
) -> Callable[..., None]:
    f, (count, channels, *arrays) = function("combine", [INTEGER] * 2 + [POINTER] * 4)
    with f.loop(0, count) as number:
        source, other, target = (at_offset(f, array, number) for array in arrays[:3])
        mask = mask_at(f, v, arrays[3], number)
        with f.loop(0, channels) as channel:
            at = f.multiply(channel, v.lanes)
            place = f.at(other, at, v.element)
            second = f.splat(v, f.load(v.element, place)) if single else f.load(v, place)
            value = f.load(v, f.at(source, at, v.element))
            operation = FUNCTIONS[name]
            if operation.startswith("llvm."):
                value = f.call(v, f"{operation}.{v.suffix}", f"{v} {value}", f"{v} {second}")
            else:
                value = f.value(f"{operation} {v} {value}, {second}")
            f.store(v, finished(f, v, epilogue, value, None, mask), f.at(target, at, v.element))
    return compiled(f, machine)
