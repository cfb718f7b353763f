"""Units of measure after a number: metres and their squares, degrees, per cent, litres, money, things counted; and
whether two numbers with units agree.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from evaluation.algebra import PI, Expression, divide, is_infinite, power, real, same_number, symbols, times

ANY_UNIT = "unit"  # "units": a measure without a name, which fits every other of its power

# name: (spellings, dimension, factor to the base)
LENGTH, MASS, TIME, ANGLE, MONEY, SHARE, COUNT = range(7)
R = Fraction
KNOWN: dict[str, tuple[str, dict[int, int], Expression]] = {
    "mm": ("mm millimeter millimeters millimetre millimetres", {LENGTH: 1}, R(1, 1000)),
    "cm": ("cm cms centimeter centimeters centimetre centimetres 厘米", {LENGTH: 1}, R(1, 100)),
    "dm": ("dm decimeter decimeters decimetre decimetres", {LENGTH: 1}, R(1, 10)),
    "m": ("m meter meters metre metres 米", {LENGTH: 1}, R(1)),
    "km": ("km kms kilometer kilometers kilometre kilometres 千米", {LENGTH: 1}, R(1000)),
    "in": ("inch inches", {LENGTH: 1}, R(254, 10000)), "ft": ("ft foot feet", {LENGTH: 1}, R(3048, 10000)),
    "yd": ("yd yard yards", {LENGTH: 1}, R(9144, 10000)), "mi": ("mi mile miles", {LENGTH: 1}, R(1609344, 1000)),
    "nmi": ("nmi 海里", {LENGTH: 1}, R(1852)), "mph": ("mph", {LENGTH: 1, TIME: -1}, R(1609344, 3600000)),
    "kph": ("kph kmh", {LENGTH: 1, TIME: -1}, R(1000, 3600)), "ha": ("ha hectare hectares", {LENGTH: 2}, R(10000)),
    "L": ("l L litre litres liter liters Litre Litres", {LENGTH: 3}, R(1, 1000)),
    "mL": ("ml mL millilitre millilitres milliliter milliliters", {LENGTH: 3}, R(1, 10**6)),
    "mg": ("mg milligram milligrams", {MASS: 1}, R(1, 1000)), "g": ("g gram grams", {MASS: 1}, R(1)),
    "t": ("tonne tonnes", {MASS: 1}, R(10**6)), "kg": ("kg kgs kilogram kilograms", {MASS: 1}, R(1000)),
    "s": ("s sec secs second seconds", {TIME: 1}, R(1)), "min": ("min mins minute minutes", {TIME: 1}, R(60)),
    "h": ("h hr hrs hour hours", {TIME: 1}, R(3600)), "day": ("day days", {TIME: 1}, R(86400)),
    "week": ("week weeks", {TIME: 1}, R(7 * 86400)), "year": ("year years yr yrs", {TIME: 1}, R(86400 * 1461, 4)),
    "°": ("°", {ANGLE: 1}, divide(PI, R(180))), "rad": ("rad rads radian radians", {ANGLE: 1}, R(1)),
    "%": ("%", {SHARE: 1}, R(1, 100)), "$": ("dollar dollars USD", {MONEY: 1}, R(1)),
    "cent": ("cent cents", {MONEY: 1}, R(1, 100)), ANY_UNIT: ("unit units", {}, R(1))
}
SPELLINGS = {spelling: name for name, (spellings, _, _) in KNOWN.items() for spelling in spellings.split()}
NOT_UNITS = set(
    "million thousand hundred billion trillion dozen half third quarter times squared cubed more less fewer than "
    "tenths hundredths mln score percent sin cos tan log sqrt theta alpha beta gamma point minus plus over and not "
    "east west north south left right down negative pairs tens true false clockwise anticlockwise".split()
)


@dataclass(frozen=True)
class Unit:
    """dimension: sorted (base, power) pairs, ANY_UNIT's power too; factor: how many base units one of these is."""

    name: str
    dimension: tuple[tuple[int, int], ...]
    factor: Expression

    @staticmethod
    def named(spelling: str) -> "Unit":
        """The unit of one spelling, e.g. "metres". KeyError for an unknown one."""
        name = SPELLINGS[spelling]
        return Unit(name, tuple(sorted(KNOWN[name][1].items())), KNOWN[name][2])

    def power(self) -> int:
        """Sum of the dimension's powers: 2 for an area, 0 where none is known."""
        return sum(power for _, power in self.dimension)


_NAMES = "|".join(sorted(map(re.escape, SPELLINGS), key=len, reverse=True))
_ATOM = (rf"(?P<before{{0}}>square|sq\.?|cubic|平方|立方)?\s*(?P<name{{0}}>{_NAMES})(?![A-Za-z])\s*"
         r"(?:\^?\s*\{{?\s*(?P<power{0}>-?[1-3])\s*\}}?(?!\d)|(?P<word{0}>squared|cubed)(?![a-z]))?")
_UNIT = re.compile(rf"\s*{_ATOM.format(0)}(?:\s*(?P<joint>[/*]|\bper\b|\ba\b|\s)\s*{_ATOM.format(1)})?"
                   r"\s*(?:long|wide|high|tall|away|deep|old|of \w+)?\s*$")
_COUNTED = re.compile(r"^(?P<head>[-+]?[\d.,/\s]*\d)\s*(?P<word>[A-Za-z]{3,})$")
POWERS = {"square": 2, "sq": 2, "sq.": 2, "cubic": 3, "squared": 2, "cubed": 3, "平方": 2, "立方": 3, None: 1}
LONGEST_UNIT = 48


def split_unit(text: str) -> Iterator[tuple[str, Unit | None]]:
    """Readings of "12 cm^2": ("12", cm²) first, then ("12 cm^2", None), where cm may be letters."""
    found = False
    for position in range(max(0, len(text) - LONGEST_UNIT), len(text)):
        before = text[position - 1] if position else ""
        if not before or not (before.isdigit() or before in ")}]. °%|" or text[:position].endswith("pi")):
            continue
        if before == "." and not text[: position - 1][-1:].isdigit():
            continue
        match = _UNIT.match(text, position)
        head = text[:position].rstrip()
        if match and head and head[-1] not in "+-*/^=(_":
            found = True
            yield head.removesuffix("{"), _unit_of(match)
            break
    if not found and (match := _COUNTED.match(text)) and match["word"].lower() not in NOT_UNITS:
        yield match["head"], Unit("counted", ((COUNT, 1),), R(1))  # students, apples: never metres
    yield text, None


def _unit_of(match: re.Match) -> Unit:
    first = _atom(match, 0)
    if match["name1"] is None:
        return first
    second, sign = _atom(match, 1), 1 if match["joint"].strip() in ("", "*") else -1
    dimension = dict(first.dimension)
    for base, exponent in second.dimension:
        dimension[base] = dimension.get(base, 0) + sign * exponent
    return Unit(f"{first.name}{'*' if sign > 0 else '/'}{second.name}",
                tuple(sorted((b, p) for b, p in dimension.items() if p)),
                times(first.factor, power(second.factor, R(sign))))


def _atom(match: re.Match, k: int) -> Unit:
    unit = Unit.named(match[f"name{k}"])
    exponent = int(match[f"power{k}"] or POWERS[match[f"word{k}"]]) * POWERS[match[f"before{k}"]]
    if unit.name == ANY_UNIT:
        return Unit(ANY_UNIT, ((LENGTH, exponent),) if exponent != 1 else (), R(1))
    return Unit(unit.name, tuple((base, p * exponent) for base, p in unit.dimension), power(unit.factor, R(exponent)))


@dataclass(frozen=True)
class Quantity:
    """An expression and its unit, in each reading of the text: "5 m" is five metres or five times m."""

    readings: tuple[tuple[Expression, Unit | None], ...]


def full_reading(quantity: Quantity) -> Expression:
    """The reading in which every letter is a variable, if there is one."""
    return next((expression for expression, unit in quantity.readings if unit is None), quantity.readings[0][0])


def lone_number(value: object, allowed: Iterable[str] = ("°",)) -> Expression | None:
    """The finite number of a quantity without a unit, or with one of the allowed ones."""
    readings = value.readings if isinstance(value, Quantity) else ()
    return next((e for e, unit in readings if not symbols(e) and not is_infinite(e)
                 and (unit is None or unit.name in allowed)), None)


def same_quantity(answer: Quantity, gold: Quantity, decimals: int | None) -> bool:
    """Whether they agree in some reading of each."""
    return any(same_reading(a, g, decimals) for a in answer.readings for g in gold.readings)


def same_reading(answer: tuple[Expression, Unit | None], gold: tuple[Expression, Unit | None],
                 decimals: int | None) -> bool:
    """Whether two (number or expression, unit) agree, units converted.

    One side without a unit agrees with the other in any unit; with a percent sign it may mean the share or the number,
    but a number below 1 % is not read as the share.
    """
    (a, a_unit), (g, g_unit) = answer, gold
    if a_unit is not None and g_unit is not None and ANY_UNIT not in (a_unit.name, g_unit.name):
        if a_unit.dimension != g_unit.dimension:
            return False
        a = divide(times(a, a_unit.factor), g_unit.factor) if a_unit.factor != g_unit.factor else a
    elif a_unit is not None and g_unit is not None:
        if a_unit.power() != g_unit.power() and 0 not in (a_unit.power(), g_unit.power()):
            return False
    elif (a_unit or g_unit) is not None and "%" in (a_unit or g_unit).name:
        a_share, g_share = (divide(e, Fraction(100)) if u is not None else e for e, u in (answer, gold))
        if same_number(a_share, g_share, None):
            return True
        if (value := real(a)) is not None and abs(value) < 1:  # 0.13 % is not 0.13
            return False
    return same_number(a, g, decimals)
