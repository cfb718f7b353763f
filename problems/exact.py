"""Exact numbers and the answers made of them: integers, fractions, surds, multiples of π, points, intervals, equations.

An `Exact` is a sum of terms fraction · √root · π^power. That ring holds every exact answer of the families, prints as a
pupil would write it and costs microseconds, where a computer-algebra system costs milliseconds for each problem.
"""

import math
import re
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from functools import lru_cache

Rational = int | Fraction
INFINITY = math.inf


class Exact:
    """An exact number, kept as {(root, power of π): fraction}, each root free of squares."""

    __slots__ = ("terms",)

    def __init__(self, value: "Rational | Exact | dict[tuple[int, int], Fraction]" = 0):
        if isinstance(value, Exact):
            self.terms = value.terms
        elif isinstance(value, dict):
            self.terms = {key: coefficient for key, coefficient in value.items() if coefficient}
        else:
            self.terms = {(1, 0): Fraction(value)} if value else {}

    def __add__(self, other: "Rational | Exact") -> "Exact":
        terms = dict(self.terms)
        for key, coefficient in Exact(other).terms.items():
            terms[key] = terms.get(key, Fraction(0)) + coefficient
        return Exact(terms)

    def __neg__(self) -> "Exact":
        return Exact({key: -coefficient for key, coefficient in self.terms.items()})

    def __sub__(self, other: "Rational | Exact") -> "Exact":
        return self + (-Exact(other))

    def __rsub__(self, other: Rational) -> "Exact":
        return Exact(other) - self

    def __mul__(self, other: "Rational | Exact") -> "Exact":
        product: dict[tuple[int, int], Fraction] = {}
        for (root, power), coefficient in self.terms.items():
            for (other_root, other_power), other_coefficient in Exact(other).terms.items():
                common = math.gcd(root, other_root)
                key = (root * other_root // common**2, power + other_power)
                product[key] = product.get(key, Fraction(0)) + coefficient * other_coefficient * common
        return Exact(product)

    def __truediv__(self, other: "Rational | Exact") -> "Exact":
        divisor = Exact(other)
        if len(divisor.terms) != 1:
            raise ZeroDivisionError(f"cannot divide exactly by {divisor}")
        (((root, power), coefficient),) = divisor.terms.items()
        return self * Exact({(root, -power): 1 / (coefficient * root)})

    def __rtruediv__(self, other: Rational) -> "Exact":
        return Exact(other) / self

    def __pow__(self, exponent: int) -> "Exact":
        result = Exact(1)
        for _ in range(exponent):
            result = result * self
        return result

    __radd__ = __add__
    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | Fraction | Exact) and self.terms == Exact(other).terms

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.terms.items())))

    def __float__(self) -> float:
        return float(sum(float(c) * math.sqrt(root) * math.pi**power for (root, power), c in self.terms.items()))

    def __lt__(self, other: "Rational | Exact | float") -> bool:
        return float(self) < float(other)

    def __gt__(self, other: "Rational | Exact | float") -> bool:
        return float(self) > float(other)

    @property
    def is_rational(self) -> bool:
        """Whether no surd and no π is left."""
        return all(key == (1, 0) for key in self.terms)

    def fraction(self) -> Fraction:
        """The value as a Fraction; only for rational numbers."""
        if not self.is_rational:
            raise ValueError(f"{self} is not rational")
        return self.terms.get((1, 0), Fraction(0))

    def __str__(self) -> str:
        if not self.terms:
            return "0"
        text = ""
        for (root, power), coefficient in sorted(self.terms.items(), key=lambda item: (item[0][1], item[0][0])):
            term = _term_text(abs(coefficient), root, power)
            text += _summand(term, coefficient, first=not text)
        return text

    __repr__ = __str__

    def __format__(self, specification: str) -> str:
        return format(str(self), specification)


def _summand(term: str, value: Rational, first: bool) -> str:
    """A term with the sign of its value, as the first or as a further one of a sum."""
    if first:
        return f"-{term}" if value < 0 else term
    return f" - {term}" if value < 0 else f" + {term}"


def _term_text(coefficient: Fraction, root: int, power: int) -> str:
    symbol = "π" * power + (f"√{root}" if root > 1 else "")
    numerator = "" if coefficient.numerator == 1 and symbol else str(coefficient.numerator)
    denominator = "" if coefficient.denominator == 1 else f"/{coefficient.denominator}"
    return numerator + symbol + denominator


PI = Exact({(1, 1): Fraction(1)})


@lru_cache(maxsize=65536)
def sqrt(value: "Rational | Exact") -> Exact:
    """The exact square root of a rational number that is not negative, for example √(12) = 2√3 and √(1/2) = √2/2."""
    fraction = Exact(value).fraction()
    if fraction < 0:
        raise ValueError(f"√{fraction} is not real")
    radicand, outside, factor = fraction.numerator * fraction.denominator, 1, 2
    while factor * factor <= radicand:
        while radicand % (factor * factor) == 0:
            radicand //= factor * factor
            outside *= factor
        factor += 1
    return Exact({(radicand, 0): Fraction(outside, fraction.denominator)}) if radicand else Exact(0)


def plain(value: "Rational | Exact | float") -> str:
    """A number as it stands in text: 7, 5/2, 3√2; a finite decimal as 2.5 only where it came as a float."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(Exact(value))


def rounded(value: "Rational | Exact | float", places: int) -> str:
    """The value to so many decimal places, halves away from zero, trailing zeros kept."""
    if not isinstance(value, float) and Exact(value).is_rational:
        fraction = Exact(value).fraction()
        decimal = Decimal(fraction.numerator) / Decimal(fraction.denominator)
    else:
        decimal = Decimal(repr(float(value)))
    return str(decimal.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP))


# ---------------------------------------------------------------------------------------------------------------------
# Answers


@dataclass(frozen=True)
class Answer:
    """What is asked for: its text, and the numbers in it before any rounding, which a measurement must reproduce."""

    text: str
    values: tuple[float, ...]


def number(value: "Rational | Exact", unit: str = "") -> Answer:
    """An exact number with its unit ("°" is set close, other units after a space)."""
    return Answer(with_unit(plain(value), unit), (float(Exact(value)),))


def decimal(value: "Exact | float", places: int, unit: str = "") -> Answer:
    """A number rounded to so many decimal places; the question must state the rounding."""
    return Answer(with_unit(rounded(value, places), unit), (float(value),))


def point(x: "Rational | Exact", y: "Rational | Exact") -> Answer:
    """A point as answer."""
    return Answer(f"({plain(x)}, {plain(y)})", (float(Exact(x)), float(Exact(y))))


def interval(low: "Rational | float", high: "Rational | float", brackets: str = "()") -> Answer:
    """An interval; ±INFINITY for an open end. `brackets` holds the two brackets, "[)" for example."""
    low_text = "-∞" if low == -INFINITY else plain(low)
    high_text = "∞" if high == INFINITY else plain(high)
    return Answer(f"{brackets[0]}{low_text}, {high_text}{brackets[1]}", (float(low), float(high)))


def equation(text: str, *values: "Rational | Exact") -> Answer:
    """An equation, with the numbers that fix it in the order in which the measurement reads them."""
    return Answer(text, tuple(float(Exact(value)) for value in values))


def with_unit(text: str, unit: str) -> str:
    """The text with its unit: a degree sign close to the number, other units after a space, a sum in brackets."""
    if not unit:
        return text
    if unit == "°":
        return text + unit
    return f"({text}) {unit}" if re.search(r" [+-] ", text) else f"{text} {unit}"


# ---------------------------------------------------------------------------------------------------------------------
# Expressions in x


def signed(value: Rational) -> str:
    """A number to be added: "+ 3" or "- 3"."""
    return f"+ {plain(value)}" if value >= 0 else f"- {plain(-value)}"


def polynomial(*coefficients: Rational, variable: str = "x") -> str:
    """A polynomial from its coefficients, the highest power first: polynomial(1, -3, 0) is "x² - 3x"."""
    powers = {0: "", 1: variable, 2: f"{variable}²", 3: f"{variable}³"}
    text = ""
    for power, coefficient in zip(range(len(coefficients) - 1, -1, -1), coefficients, strict=True):
        if not coefficient:
            continue
        size = abs(coefficient)
        factor = "" if size == 1 and power else plain(size)
        if power and Fraction(size).denominator != 1:
            factor = f"({factor})"
        text += _summand(factor + powers[power], coefficient, first=not text)
    return text or "0"
