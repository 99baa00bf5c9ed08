"""Activation functions in machine code, most on one exponential: 2^n times a polynomial, the power applied last.

Each function takes (f, v, x): the function being written, the type of the vector, and the vector x; numbers of 16 bits
are computed as float and rounded once. NaN stays NaN, and infinities give what PyTorch gives.

accuracy   exp2, exp, sigmoid, silu   within 4 units in the last place, subnormal results too
           exp_of_negative            likewise, without those
           sqrt, rsqrt, reciprocal, square, cube  as PyTorch's: each of their operations is rounded once
           tanh, elu                  within 1e-6 of the result, also near 0
           gelu                       within 3e-7 x max(1, |x|)
           softplus, mish             within 2e-7 x max(1, |x|)

Polynomials are minimax fits (Remez) of ours; their largest error stands beside them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from functools import wraps
from typing import NamedTuple

from zeroskip.emit.llvm import Function, Vector

EmittedActivation = Callable[[Function, Vector, str], str]
"""(function being written, type of x, x) -> the activation of each number of x."""

LOG2_E = 1 / math.log(2)
LN2_HIGH, LN2_LOW = 0.693145751953125, 1.42860682030941723e-6  # n x the first one is exact in float
ROUNDER = 12582912.0  # 1.5 x 2^23: what is added to it is rounded to a whole number, in its lowest bits
# (e^y - 1 - y) / y^2 for |y| <= ln(2) / 2; the error of e^y is 4.8e-11.
EXPONENTIAL = (
    0.5000000078090829, 0.16666666861173565, 0.04166626930467743, 0.008333264241462584, 0.0013946119278318856,
    0.00019918448943977943,
)  # fmt: skip
# The same with an error of 3.1e-9.
SHORT_EXPONENTIAL = (
    0.4999999345137238, 0.16666520685744973, 0.04166838742137949, 0.00836871025612011, 0.0013814611202990663,
)  # fmt: skip
# 2^y for |y| <= 1/2; its error is 2.6e-6 of it.
SHORT_POWER = (
    0.9999992614093351,
    0.693121814141207,
    0.24024744903022066,
    0.05591786528311265,
    0.009570100652850771,
)
# (2 atanh(s) / s - 2) / s^2 in s^2 <= 1/9; the error of log(1 + e) is 9.1e-9 s.
LOGARITHM = (0.6666641313266393, 0.400216990612775, 0.2799914104784049, 0.28024458971022065)
# The normal distribution's share between 0 and x, over x: a quotient of polynomials in x^2 for |x| <= 5.4, where the
# share is 1/2 in float. Its error is 5.1e-9.
SHARE_END = 5.4
SHARE_ABOVE = (
    0.3989422023296356, 0.03356024622917175, 0.004662943072617054, 0.00016635205247439444, 6.3846355460226225e-06,
    2.3298403206695184e-08,
)  # fmt: skip
SHARE_BELOW = (
    1.0, 0.25078874826431274, 0.028487952426075935, 0.0018702177330851555, 7.311343506444246e-05,
    1.2158851632193546e-06,
)  # fmt: skip


def in_float(activation: EmittedActivation) -> EmittedActivation:
    """The activation, which computes vectors of half precision as float and rounds the result."""

    @wraps(activation)
    def converted(f: Function, v: Vector, x: str) -> str:
        wide = v.of("float")
        return f.converted(wide, activation(f, wide, f.converted(v, x, "float")), v.element)

    return converted


@in_float
def exp2(f: Function, v: Vector, x: str) -> str:
    """2^x."""
    x = _between(f, v, x, -160.0, 160.0)
    whole, bits = _rounded(f, v, x)
    rest = _times(f, v, _minus(f, v, x, whole), f.constant(v, math.log(2)))
    return _scaled(f, v, _one_plus(f, v, _grown(f, v, rest)), bits)


@in_float
def exp(f: Function, v: Vector, x: str) -> str:
    """e^x."""
    power = _power(f, v, _between(f, v, x, -110.0, 110.0))
    return _scaled(f, v, _one_plus(f, v, power.grown), power.bits)


def two_to(f: Function, v: Vector, x: str) -> str:
    """2^x of floats up to 127, within 4e-6 of it; of those below -126, minus infinity and NaN too, 2^-126."""
    high = f.value(f"fcmp ogt {v} {x}, {f.constant(v, -126.0)}")
    power = _either(f, v, high, x, f.constant(v, -126.0))
    whole, bits = _rounded(f, v, power)
    return _with_exponent(f, v, _polynomial(f, v, _minus(f, v, power, whole), SHORT_POWER), bits)


def exp_of_negative(f: Function, v: Vector, x: str) -> str:
    """e^x of floats up to 0, in half the instructions of `exp`; 0 below -87."""
    power = _power(f, v, x, SHORT_EXPONENTIAL)
    words = v.of("i32")
    biased = f.value(f"add {words} {power.bits}, {_integer(f, words, 127)}")
    scale = f.value(f"bitcast {words} {f.value(f'shl {words} {biased}, {_integer(f, words, 23)}')} to {v}")
    far = f.value(f"fcmp olt {v} {x}, {f.constant(v, -87.0)}")
    return _either(f, v, far, "zeroinitializer", _times(f, v, _one_plus(f, v, power.grown), scale))


@in_float
def sigmoid(f: Function, v: Vector, x: str) -> str:
    """1 / (1 + e^-x)."""
    return _times_sigmoid(f, v, x, f.constant(v, 1.0))


@in_float
def silu(f: Function, v: Vector, x: str) -> str:
    """x / (1 + e^-x), also called swish."""
    return _times_sigmoid(f, v, x, x)


@in_float
def tanh(f: Function, v: Vector, x: str) -> str:
    """The hyperbolic tangent: t / (2 - t) where t = 1 - e^(-2 |x|)."""
    less = _expm1(f, v, _times(f, v, _magnitude(f, v, x), f.constant(v, -2.0)))
    share = _over(f, v, less, _plus(f, v, less, f.constant(v, 2.0)))
    return f.call(v, f"llvm.copysign.{v.suffix}", f"{v} {share}", f"{v} {x}")


@in_float
def gelu(f: Function, v: Vector, x: str) -> str:
    """x times the normal distribution's share below x (Hendrycks 2016)."""
    near = _between(f, v, x, -SHARE_END, SHARE_END)
    square = _times(f, v, near, near)
    above, below = _polynomial(f, v, square, SHARE_ABOVE), _polynomial(f, v, square, SHARE_BELOW)
    share = _over(f, v, _times(f, v, near, above), below)
    return _times(f, v, x, _plus(f, v, share, f.constant(v, 0.5)))


@in_float
def gelu_tanh(f: Function, v: Vector, x: str) -> str:
    """The GELU by tanh, which is x sigmoid(√(8 / π) (x + 0.044715 x^3))."""
    scale = math.sqrt(8 / math.pi)
    slope = f.multiply_add(v, _times(f, v, x, x), f.constant(v, 0.044715 * scale), f.constant(v, scale))
    return _times_sigmoid(f, v, _times(f, v, x, slope), x)


@in_float
def mish(f: Function, v: Vector, x: str) -> str:
    """x tanh(softplus(x)) (Misra 2019): x (1 + 2e) / (1 + 2e + 2e^2) with e = e^-x, below 0 times e^2x."""
    e, two = _falling(f, v, x), f.constant(v, 2.0)
    positive, twice, square = _above(f, v, x), _plus(f, v, e, e), _times(f, v, e, e)
    above, below = _plus(f, v, twice, f.constant(v, 1.0)), _times(f, v, e, _plus(f, v, e, two))
    top = _either(f, v, positive, above, below)
    more = _either(f, v, positive, _plus(f, v, square, square), two)
    return _times(f, v, x, _over(f, v, top, _plus(f, v, top, more)))


@in_float
def magnitude(f: Function, v: Vector, x: str) -> str:
    """|x|."""
    return _magnitude(f, v, x)


@in_float
def sqrt(f: Function, v: Vector, x: str) -> str:
    """The square root; NaN below 0."""
    return f.call(v, f"llvm.sqrt.{v.suffix}", f"{v} {x}")


@in_float
def rsqrt(f: Function, v: Vector, x: str) -> str:
    """1 / √x."""
    return _over(f, v, f.constant(v, 1.0), sqrt(f, v, x))


@in_float
def reciprocal(f: Function, v: Vector, x: str) -> str:
    """1 / x."""
    return _over(f, v, f.constant(v, 1.0), x)


@in_float
def square(f: Function, v: Vector, x: str) -> str:
    """x^2."""
    return _times(f, v, x, x)


@in_float
def cube(f: Function, v: Vector, x: str) -> str:
    """x^3."""
    return _times(f, v, _times(f, v, x, x), x)


def elu(alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> EmittedActivation:
    """scale x, or scale alpha (e^(input_scale x) - 1) below 0: ELU, SELU and CELU (Clevert 2015, Klambauer 2017)."""

    @in_float
    def activation(f: Function, v: Vector, x: str) -> str:
        below = _expm1(f, v, _times(f, v, x, f.constant(v, input_scale)))
        low, high = _times(f, v, below, f.constant(v, alpha * scale)), _times(f, v, x, f.constant(v, scale))
        return _either(f, v, _above(f, v, x), high, low)

    return activation


def softplus(beta: float = 1.0, threshold: float = 20.0) -> EmittedActivation:
    """log(1 + e^(beta x)) / beta, and x where beta x is above the threshold."""

    @in_float
    def activation(f: Function, v: Vector, x: str) -> str:
        z, two = _times(f, v, x, f.constant(v, beta)), f.constant(v, 2.0)
        e = _falling(f, v, z)
        s = _over(f, v, e, _plus(f, v, e, two))
        square = _times(f, v, s, s)
        slope = f.multiply_add(v, square, _polynomial(f, v, square, LOGARITHM), two)
        log = _times(f, v, f.multiply_add(v, s, slope, f.relu(v, z)), f.constant(v, 1 / beta))
        straight = f.value(f"fcmp ogt {v} {z}, {f.constant(v, threshold)}")
        return _either(f, v, straight, x, log)

    return activation


class _Power(NamedTuple):
    """e^x = (1 + grown) x 2^n, where the lowest bits of `bits` hold n."""

    grown: str
    bits: str


def _power(f: Function, v: Vector, x: str, exponential: Sequence[float] = EXPONENTIAL) -> _Power:
    whole, bits = _rounded(f, v, x, LOG2_E)
    negative = _negative(f, v, whole)
    rest = f.multiply_add(v, negative, f.constant(v, LN2_HIGH), x)
    rest = f.multiply_add(v, negative, f.constant(v, LN2_LOW), rest)
    return _Power(_grown(f, v, rest, exponential), bits)


def _rounded(f: Function, v: Vector, x: str, factor: float = 1.0) -> tuple[str, str]:
    """factor x, rounded to whole numbers: as float, and the bits of a float whose lowest ones hold it."""
    shifted = f.multiply_add(v, x, f.constant(v, factor), f.constant(v, ROUNDER))
    whole = _minus(f, v, shifted, f.constant(v, ROUNDER))
    return whole, f.value(f"bitcast {v} {shifted} to {v.of('i32')}")


def _grown(f: Function, v: Vector, y: str, exponential: Sequence[float] = EXPONENTIAL) -> str:
    """e^y - 1, for |y| up to ln(2) / 2."""
    return f.multiply_add(v, _times(f, v, y, y), _polynomial(f, v, y, exponential), y)


def _one_plus(f: Function, v: Vector, x: str) -> str:
    return _plus(f, v, x, f.constant(v, 1.0))


def _raised(f: Function, v: Vector, power: _Power) -> str:
    """e^x where it is a normal number: for |x| up to 87. n goes into the exponent."""
    return _with_exponent(f, v, _one_plus(f, v, power.grown), power.bits)


def _with_exponent(f: Function, v: Vector, x: str, bits: str) -> str:
    """x times 2^n, where the lowest bits of `bits` hold n and the result is a normal number."""
    words = v.of("i32")
    grown = f.value(f"bitcast {v} {x} to {words}")
    n = f.value(f"shl {words} {bits}, {_integer(f, words, 23)}")
    return f.value(f"bitcast {words} {f.value(f'add {words} {grown}, {n}')} to {v}")


def _scaled(f: Function, v: Vector, x: str, bits: str) -> str:
    """x times 2^n, in two steps, so that results may be subnormal or infinite."""
    words = v.of("i32")
    n = f.value(f"sub {words} {bits}, {_integer(f, words, ROUNDER_BITS)}")
    first = f.value(f"ashr {words} {n}, {_integer(f, words, 1)}")
    for part in (first, f.value(f"sub {words} {n}, {first}")):
        x = _times(f, v, x, _two_to(f, v, part))
    return x


def _two_to(f: Function, v: Vector, n: str) -> str:
    """2^n for integers up to 127; 0 below -126."""
    words = v.of("i32")
    biased = f.value(f"add {words} {n}, {_integer(f, words, 127)}")
    biased = f.call(words, f"llvm.smax.{words.suffix}", f"{words} {biased}", f"{words} zeroinitializer")
    raised = f.value(f"shl {words} {biased}, {_integer(f, words, 23)}")
    return f.value(f"bitcast {words} {raised} to {v}")


def _expm1(f: Function, v: Vector, x: str) -> str:
    """e^x - 1 for x <= 0: of others anything."""
    power = _power(f, v, _between(f, v, x, -87.0, 1.0))
    words = v.of("i32")
    biased = f.value(f"add {words} {power.bits}, {_integer(f, words, 127)}")
    scale = f.value(f"bitcast {words} {f.value(f'shl {words} {biased}, {_integer(f, words, 23)}')} to {v}")
    return f.multiply_add(v, scale, power.grown, _minus(f, v, scale, f.constant(v, 1.0)))


def _times_sigmoid(f: Function, v: Vector, x: str, factor: str) -> str:
    """factor / (1 + e^-x).

    Below 0 it is factor e^x / (1 + e^x), with e^x as the square of e^(x / 2), which is a normal number where the result
    is not 0. The factor comes first, so that tiny results keep their digits.
    """
    size, one = _magnitude(f, v, x), f.constant(v, 1.0)
    half = _times(f, v, size, f.constant(v, -0.5))
    root = _zero_beyond(f, v, size, 174.0, _raised(f, v, _power(f, v, half, SHORT_EXPONENTIAL)))
    share = f.multiply_add(v, root, root, one)
    below = f.value(f"fcmp olt {v} {x}, zeroinitializer")
    each = _either(f, v, below, root, one)
    return _over(f, v, _times(f, v, _times(f, v, factor, each), each), share)


def _falling(f: Function, v: Vector, x: str) -> str:
    """e^-|x|, 0 where that is below the normal numbers."""
    return exp_of_negative(f, v, _negative(f, v, _magnitude(f, v, x)))


def _polynomial(f: Function, v: Vector, x: str, coefficients: Sequence[float]) -> str:
    *lower, value = (f.constant(v, coefficient) for coefficient in coefficients)
    for coefficient in reversed(lower):
        value = f.multiply_add(v, value, x, coefficient)
    return value


def _between(f: Function, v: Vector, x: str, low: float, high: float) -> str:
    """x, or the nearer of the bounds; NaN stays NaN."""
    least = f.constant(v, low)
    below = f.value(f"fcmp olt {v} {x}, {least}")
    return _at_most(f, v, _either(f, v, below, least, x), high)


def _at_most(f: Function, v: Vector, x: str, high: float) -> str:
    most = f.constant(v, high)
    return _either(f, v, f.value(f"fcmp ogt {v} {x}, {most}"), most, x)


def _zero_beyond(f: Function, v: Vector, size: str, most: float, value: str) -> str:
    """0 where the size is above `most`, the value elsewhere and where the size is NaN."""
    far = f.value(f"fcmp ogt {v} {size}, {f.constant(v, most)}")
    return _either(f, v, far, "zeroinitializer", value)


def _plus(f: Function, v: Vector, a: str, b: str) -> str:
    return f.value(f"fadd {v} {a}, {b}")


def _minus(f: Function, v: Vector, a: str, b: str) -> str:
    return f.value(f"fsub {v} {a}, {b}")


def _times(f: Function, v: Vector, a: str, b: str) -> str:
    return f.value(f"fmul {v} {a}, {b}")


def _over(f: Function, v: Vector, a: str, b: str) -> str:
    return f.value(f"fdiv {v} {a}, {b}")


def _negative(f: Function, v: Vector, a: str) -> str:
    return f.value(f"fneg {v} {a}")


def _either(f: Function, v: Vector, mask: str, a: str, b: str) -> str:
    """a where the mask is true, b elsewhere."""
    return f.value(f"select {v.mask} {mask}, {v} {a}, {v} {b}")


def _above(f: Function, v: Vector, x: str) -> str:
    return f.value(f"fcmp ogt {v} {x}, zeroinitializer")


def _magnitude(f: Function, v: Vector, x: str) -> str:
    return f.call(v, f"llvm.fabs.{v.suffix}", f"{v} {x}")


def _integer(f: Function, v: Vector, value: int) -> str:
    return f.splat(v, str(value))


ROUNDER_BITS = struct.unpack("<i", struct.pack("<f", ROUNDER))[0]
