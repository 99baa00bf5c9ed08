"""Numbers as people read them: three significant digits and a unit, never a rounding that hides a fact."""

from __future__ import annotations

from collections.abc import Callable

LEDGER_PARTS = ("values", "positions", "codebook", "scales", "tables", "header")
"""What the bytes of a file are spent on."""

_SECONDS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))
_BYTES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))


def show_seconds(seconds: float) -> str:
    """Seconds with the unit that suits them.

    >>> show_seconds(0.00123), show_seconds(45e-6)
    ('1.23 ms', '45 µs')
    """
    return _scaled(seconds, _SECONDS)


def show_bytes(size: float) -> str:
    """Bytes in decimal units: 1 kB is 1000 B.

    >>> show_bytes(12_345)
    '12.3 kB'
    """
    return _scaled(size, _BYTES)


def show_count(number: float) -> str:
    """A whole number with a comma every three digits.

    >>> show_count(266200)
    '266,200'
    """
    return f"{number:,.0f}"


def show_macs(macs: float) -> str:
    """Multiply-accumulates in thousands, millions or billions.

    >>> show_macs(14_400_000)
    '14.4 M'
    """
    return _scaled(macs, (("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0))).strip()


def show_share(share: float) -> str:
    """A share (0..1) in percent with one digit, or with as many as keep it apart from 0 % and 100 %.

    >>> show_share(0.942), show_share(0.99996)
    ('94.2 %', '99.996 %')
    """
    # 7 digits end the search for shares that floating point can hardly tell from a whole.
    for digits in range(1, 8):
        text = f"{100 * share:.{digits}f}"
        if share in (0, 1) or float(text) not in (0, 100):
            break
    return f"{text} %"


def show_error(error: float) -> str:
    """An error of a network (0..1) in percent with two digits; above 1 (a perplexity) it is a plain number.

    >>> show_error(0.0194), show_error(23.4)
    ('1.94 %', '23.4')
    """
    return f"{100 * error:.2f} %" if error <= 1 else _three_digits(error)


def show_times(factor: float) -> str:
    """A factor.

    >>> show_times(9.84)
    '9.84x'
    """
    return f"{_three_digits(factor)}x"


def show_speed(dense_seconds: float, sparse_seconds: float, *, than: str = "") -> str:
    """How sparse compares with dense, in words; a loss is called slower.

    than  name of the dense engine, if the words should name it

    >>> show_speed(3e-6, 2e-6), show_speed(2e-6, 3e-6, than="torch eager")
    ('1.5x faster', '1.5x slower than torch eager')
    """
    factor = max(dense_seconds, sparse_seconds) / min(dense_seconds, sparse_seconds)
    if factor < 1.005:
        return f"as fast as {than}" if than else "as fast"
    word = "faster" if sparse_seconds < dense_seconds else "slower"
    return f"{_three_digits(factor)}x {word}" + (f" than {than}" if than else "")


def show_gain(factor: float, better: str, worse: str, same: str) -> str:
    """A factor with the word for what it is: a gain, a loss, or neither as far as three digits tell.

    >>> [show_gain(factor, "smaller", "LARGER", "as large") for factor in (1.82, 1.0008, 0.5)]
    ['1.82x smaller', 'as large', '2x LARGER']
    """
    if _three_digits(factor) == "1":
        return same
    return f"{show_times(factor)} {better}" if factor > 1 else f"{show_times(1 / factor)} {worse}"


def show_error_change(dense: float, sparse: float) -> str:
    """What became of an error, in percentage points; errors above 1 are no shares and differ by a number.

    >>> show_error_change(0.0194, 0.0222)
    '0.28 points worse'
    """
    if sparse == dense:
        return "the same"
    change = abs(sparse - dense)
    text = f"{100 * change:.2f} points" if max(dense, sparse) <= 1 else _three_digits(change)
    return f"{text} {'worse' if sparse > dense else 'better'}"


def show_known(form: Callable[[float], str], value: float | None) -> str:
    """The value in its form, or "-" where it is not known.

    >>> show_known(show_share, 0.5), show_known(show_share, None)
    ('50.0 %', '-')
    """
    return "-" if value is None else form(value)


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    for unit, size in units:
        # Judged after rounding, so that 999.9 µs reads "1 ms" and not "1000 µs".
        if float(f"{value / size:.3g}") >= 1:
            return f"{_three_digits(value / size)} {unit}"
    unit, size = units[-1] if value else next(pair for pair in units if pair[1] == 1)
    return f"{_three_digits(value / size)} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def show_sides(value: tuple[int, ...] | str) -> str:
    """A stride or padding: one number where both sides are the same, "2x1" where they differ; a word stays.

    >>> show_sides((2, 1))
    '2x1'
    """
    return value if isinstance(value, str) else "x".join(map(str, dict.fromkeys(value)))
