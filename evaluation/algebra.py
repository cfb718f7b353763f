"""Expressions as tuples, and their values: exact where they are rational, else to fifty digits.

    power(Fraction(2), Fraction(10))          Fraction(1024)
    plus("x", Fraction(1))                    ("+", "x", Fraction(1))
    value_at(("sin", ("pi",)), 0)             0, to fifty digits

An expression is a Fraction, an infinity (a float), a symbol (a str), or (operation, operands ...). A computer algebra
system simplifies as it builds, at a cost that nobody can tell from the text; here an expression of n operations costs n
steps, each of which is bounded: exact numbers by MAX_BITS, values by their size and by a fixed precision. So no
comparison needs a clock, and the same texts get the same verdict on every machine.
"""

import math
import random
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, reduce

from mpmath import MPContext

Expression = Fraction | float | str | tuple

MAX_EXPONENT = 512
MAX_BITS = 4096  # of an exact number, and of an angle
MAX_SIZE = 65536  # a value lies within 2 ** ±MAX_SIZE
POINTS = 6  # at which expressions with symbols are compared

PI, E = ("pi",), ("e",)
DEGREE, PERCENT = "°", "%"


class NotMath(Exception):
    """The text is no expression this parser knows, or a larger one than it accepts, or has no value."""


def context(digits: int) -> MPContext:
    """Arithmetic of its own, so that nothing shares a precision with anyone else."""
    mp = MPContext()
    mp.dps = digits
    return mp


MP, TWICE = context(120), context(240)
TOLERANCE = MP.mpf(10) ** -50
NOISE = MP.mpf(10) ** -80  # beside the other part of a complex number


# -----------------------------------------------------------------------------
# building


def exact(number: Fraction) -> Fraction:
    """A rational number as it is; NotMath for a large one."""
    if number.numerator.bit_length() + number.denominator.bit_length() > MAX_BITS:
        raise NotMath("number too large")
    return number


def is_infinite(expression: Expression) -> bool:
    """Whether it is oo or -oo, or what arithmetic makes of them: nan, which equals nothing."""
    return isinstance(expression, float)


def plus(a: Expression, b: Expression) -> Expression:
    """a + b."""
    return exact(a + b) if isinstance(a, Fraction) and isinstance(b, Fraction) else joined("+", a, b)


def joined(operation: str, a: Expression, b: Expression) -> Expression:
    """A sum or a product, flat on its left: a long one is no deep one."""
    if is_infinite(a) or is_infinite(b):
        return math.nan
    return (*a, b) if isinstance(a, tuple) and a[0] == operation else (operation, a, b)


def negative(a: Expression) -> Expression:
    """-a, of an infinity too."""
    return -a if is_infinite(a) else times(Fraction(-1), a)


def times(a: Expression, b: Expression) -> Expression:
    """a · b."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return exact(a * b)
    if a == 0 or b == 0:
        return Fraction(0)
    return b if a == 1 else a if b == 1 else joined("*", a, b)


def divide(a: Expression, b: Expression) -> Expression:
    """a / b; NotMath for a division by nought."""
    return times(a, power(b, Fraction(-1)))


def power(base: Expression, exponent: Expression) -> Expression:
    """base ** exponent; NotMath where it would be large."""
    if is_infinite(base) or is_infinite(exponent):
        return math.nan
    if not isinstance(exponent, Fraction):
        return ("^", base, exponent)
    if abs(exponent) > MAX_EXPONENT:
        raise NotMath("exponent too large")
    if base == 0 and exponent <= 0:
        raise NotMath("division by nought")
    if isinstance(base, Fraction):
        if (base.numerator.bit_length() + base.denominator.bit_length()) * abs(exponent) > MAX_BITS:
            raise NotMath("power too large")
        if exponent.denominator == 1:
            return exact(base ** int(exponent))
    return base if exponent == 1 else ("^", base, exponent)


def apply(name: str, argument: Expression) -> Expression:
    """A function of OPERATIONS of an expression."""
    if is_infinite(argument):
        return math.nan
    return abs(argument) if name == "abs" and isinstance(argument, Fraction) else (name, argument)


BUILD = {"+": plus, "*": times, "^": power}


def substitute(expression: Expression, symbol: str, number: Fraction) -> Expression:
    """The expression with a number in a symbol's place."""
    if not isinstance(expression, tuple):
        return number if expression == symbol else expression
    operation, *operands = expression
    operands = [substitute(operand, symbol, number) for operand in operands]
    if operation in BUILD:
        return reduce(BUILD[operation], operands)
    return apply(operation, *operands) if operands else expression


@lru_cache(maxsize=1024)
def symbols(expression: Expression) -> frozenset[str]:
    """The letters in it; a number has none."""
    if isinstance(expression, tuple):
        return frozenset().union(*map(symbols, expression[1:]))
    return frozenset((expression,)) if isinstance(expression, str) else frozenset()


def coefficient(expression: Expression, symbol: str) -> tuple[Expression, int] | None:
    """(c, 1) where the expression is c · symbol, (c, 0) where it is c whatever the symbol, else None."""
    c = substitute(expression, symbol, Fraction(1))
    return (c, 1) if agree(expression, times(c, symbol)) else (c, 0) if agree(expression, c) else None


# -----------------------------------------------------------------------------
# values


def raised(mp: MPContext, base: object, exponent: object) -> object:
    """base ** exponent; NotMath for a large exponent."""
    if abs(exponent) > MAX_SIZE:
        raise NotMath("exponent too large")
    return base**exponent


RECIPROCAL = {"sec": "cos", "csc": "sin", "cot": "tan"}


def circular(mp: MPContext, name: str, angle: object) -> object:
    """A trigonometric function; NotMath for a large angle, which takes as many digits of pi as it has itself."""
    if mp.mag(angle) > MAX_BITS:
        raise NotMath("angle too large")
    value = getattr(mp, RECIPROCAL.get(name, name))(angle)  # mpmath's own sec is no function for threads
    return 1 / value if name in RECIPROCAL else value


OPERATIONS: dict[str, Callable] = {
    "+": lambda mp, *terms: sum(terms), "*": lambda mp, *factors: math.prod(factors), "^": raised,
    "pi": lambda mp: +mp.pi, "e": lambda mp: +mp.e, "abs": lambda mp, a: abs(a),
    **{name: lambda mp, a, name=name: circular(mp, name, a) for name in ("sin", "cos", "tan", "sec", "csc", "cot")},
    **{name: lambda mp, a, name=name: getattr(mp, name)(a) for name in ("asin", "acos", "atan", "log")}
}


def evaluate(mp: MPContext, expression: Expression, k: int) -> object:
    """The value at point k to the context's precision; NotMath where it has none, or a huge or tiny one."""
    if isinstance(expression, str):
        return evaluate(mp, coordinate(expression, k), k)
    if isinstance(expression, Fraction):
        return mp.mpf(expression.numerator) / expression.denominator
    if is_infinite(expression):
        raise NotMath("an infinity")
    value = OPERATIONS[expression[0]](mp, *(evaluate(mp, operand, k) for operand in expression[1:]))
    if value and not abs(mp.mag(value)) <= MAX_SIZE:  # nan too
        raise NotMath("no finite value, or too large a one")
    if isinstance(value, mp.mpc):  # a part that is noise could be so small that mpmath takes ages over it
        noise = abs(value) * NOISE
        value = mp.mpc(*(part if abs(part) > noise else 0 for part in (value.real, value.imag)))
        value = value if value.imag else value.real
    return value


@lru_cache(maxsize=4096)
def coordinate(symbol: str, k: int) -> Fraction:
    """Where a symbol stands at point k: drawn by its name, so it is the same in every expression. The last two points
    lie far out on either side, where |x - 100| is no longer 100 - x.
    """
    draw = random.Random(f"{symbol} {k}")
    near_by = Fraction(draw.randint(-999, 999) * 2 + 1, 2 * draw.randint(100, 300) + 1)
    return near_by if k < POINTS - 2 else (-1) ** k * 1000 * (1 + abs(near_by))


@lru_cache(maxsize=4096)
def value_at(expression: Expression, k: int, mp: MPContext = MP) -> object:
    """The value at point k (0 to POINTS - 1); NotMath where it has none."""
    try:
        return evaluate(mp, expression, k)
    except (ArithmeticError, ValueError) as error:
        raise NotMath(str(error)) from error


def checked(expression: Expression) -> Expression:
    """The expression; NotMath unless it is an infinity, or has a value that twice the precision does not change."""
    if not is_infinite(expression) and not near(value_at(expression, 0), value_at(expression, 0, TWICE)):
        raise NotMath("no value: digits cancel")
    return expression


def near(x: object, y: object) -> bool:
    """Whether two values are equal to fifty digits. A near miss differs far earlier."""
    return abs(x - y) <= TOLERANCE * max(1, abs(x), abs(y))


def points(*expressions: Expression) -> range:
    """The points at which they are looked at: one where none has a symbol."""
    return range(POINTS if any(map(symbols, expressions)) else 1)


def agree(a: Expression, b: Expression) -> bool:
    """Whether two expressions have the same value wherever we look."""
    return a == b or all(near(value_at(a, k), value_at(b, k)) for k in points(a, b))


def real(expression: Expression) -> object | None:
    """The value of a real number; None for an infinity, a complex number and what its symbols change."""
    if is_infinite(expression):
        return None
    value, *others = (value_at(expression, k) for k in points(expression))
    return value if isinstance(value, MP.mpf) and all(near(value, other) for other in others) else None


def whole(value: object) -> int | None:
    """The whole number that a real value is to fifty decimals, None where it is none."""
    return int(MP.nint(value)) if abs(value) < 1 / TOLERANCE and abs(value - MP.nint(value)) < TOLERANCE else None


def proportional(a: Expression, b: Expression, positive: bool) -> bool:
    """Whether a = c·b for one constant c (above nought where `positive`): the same equation or inequality."""
    if not symbols(a) or not symbols(b):
        return False
    values = [(value_at(a, k), value_at(b, k)) for k in range(POINTS)]
    first = values[0][0]
    if any(min(abs(x), abs(y)) < TOLERANCE for x, y in values) or all(near(x, first) for x, _ in values):
        return False  # nought on a side, or nothing that varies
    ratio, *others = (x / y for x, y in values)
    constant = all(abs(other - ratio) <= TOLERANCE * abs(ratio) for other in others)
    return bool(constant and abs(ratio.imag) <= TOLERANCE * abs(ratio) and (ratio.real > 0 or not positive))


def same_number(a: Expression, g: Expression, decimals: int | None) -> bool:
    """Exactly equal expressions; with `decimals`, a number that rounds to the gold one."""
    if a == g:
        return True
    if is_infinite(a) or is_infinite(g):
        return False
    if decimals is None or symbols(a) or symbols(g):
        return not (isinstance(a, Fraction) and isinstance(g, Fraction)) and agree(a, g)
    x, y = real(a), real(g)
    if x is None or y is None or whole(y * 10**decimals) is None:
        return agree(a, g)
    return bool(abs(x - y) <= MP.mpf(10) ** -decimals / 2 + TOLERANCE)
