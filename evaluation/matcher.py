"""Are two answers the same mathematics? Exact, offline, and safe for any text a model may write.

    equal("4.4 metres", "440 cm")          True: units are converted, and one that is left out is forgiven
    equal("x = 8", "$x=8 \\\\mathrm{~cm}$")  True: a name in front is no part of the value
    equal("0.33", "1/3")                   False: exact, unless `decimals` (what the question asks to round to) says so
    equal("S 25 W", "205° T")              True: bearings
    equal("y = -2, x = 2", "(2, -2)")      True: values go by their names
    equal("7 * 2 = 14", "14")              True: of a computation the last side counts

Values: numbers and expressions with units, points and intervals, unions, lists, ratios, equations, inequalities,
bearings, labelled parts ("domain: ... and range: ..."), words. What cannot be read is compared as words; what is too
large is wrong.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

from evaluation.algebra import (
    DEGREE,
    PERCENT,
    TOLERANCE,
    Expression,
    NotMath,
    agree,
    coefficient,
    divide,
    is_infinite,
    negative,
    plus,
    proportional,
    real,
    symbols,
    times,
    whole,
)
from evaluation.expressions import number, parse_expression, plain
from evaluation.units import ANY_UNIT, KNOWN, Unit, split_unit


# -----------------------------------------------------------------------------
# values


@dataclass(frozen=True)
class Quantity:
    """An expression and its unit, in each reading of the text: "5 m" is five metres or five times m."""

    readings: tuple[tuple[Expression, Unit | None], ...]


@dataclass(frozen=True)
class Sequence:
    """kind: "()", "(]" ... points and intervals (ordered), "∪", "," unions and lists (in any order), ":" a ratio."""

    kind: str
    items: tuple


@dataclass(frozen=True)
class Relation:
    """sign: "=", "<", "<=" or "≠"; sides: two values. Of `a = b = c` a name and the last side; `steps` keeps the
    values between.
    """

    sign: str
    left: object
    right: object
    name: str = ""
    steps: tuple = ()


@dataclass(frozen=True)
class Bearing:
    """A direction: degrees clockwise from north."""

    azimuth: Expression


@dataclass(frozen=True)
class Labelled:
    """Parts under their labels: (("domain",), value), ..."""

    parts: frozenset


@dataclass(frozen=True)
class Words:
    """Text that is no mathematics: its words without the small ones."""

    words: tuple[str, ...]


# -----------------------------------------------------------------------------
# text → value

MAX_PARTS = 32  # of a list, a union, a chain of equations
OPEN, CLOSE = "([{⦃", ")]}⦄"
SMALL_WORDS = set(
    "the a an is are was be it this that function graph on at in for of interval intervals and from over has have "
    "with statement value values point points to by its answer option choice which when f g h x y s".split()
)
NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
APPROXIMATELY = re.compile(
    r"^(?:approximately|approx\.?|about|around|roughly|nearly|exactly|equal to|equals|≈|~|=|is|are|only|just"
    r"|(?:therefore|thus|hence|so),?|a total of|the (?:interval|point|set)|:)\s+|^(?:[-=]>|[≈=~:∴⇒→])\s*",
    re.I,
)
NAME = re.compile(
    r"^(?:m\s+)?([A-Za-z](?:_\{?\s*\w+\s*\}?)?'?|[A-Z]{2,3}|\|\s*[A-Z]{2}\s*\||[A-Za-z]\(-?\d+(?:\.\d+)?\))"
    r"(?:\(([A-Za-z])\))?$"
    r"|^\\?(theta|alpha|beta|gamma|phi|delta|lambda|mu|omega|sigma|rho|tau)$"
)
RATIO_NAME = re.compile(
    r"^\\?(sin|cos|tan|sec|csc|cot|P)\s*\(?\s*\\?([A-Za-z]|[A-Z]{3}|theta|alpha|beta|gamma|phi)\s*\)?$"
)
SET_BUILDER = re.compile(r"^[{⦃]\s*([A-Za-z])\s*(?:∈\s*\(-oo, oo\)\s*)?[|:]\s*([^{}⦃⦄]*\1[^{}⦃⦄]*)[}⦄]$")
BOTH_SIDES = re.compile(r"^([A-Za-z])\s*(>=?)\s*([^<>]+?)\s*(?:,\s*|\s)and\s+\1\s*(<=?)\s*([^<>]+)$")
# labels of one value that say nothing of which value it is, as stem() leaves them
NEUTRAL = set(
    "midpoint coordinat vertex vertic cent centr center centre interv domain rang solution set intersection endpoint "
    "other pair order origin system equation inequality parabol circl lin segment imag result notation intersect "
    "locat defin giv thu henc so therefor".split()
)
FUNCTIONS = set("fghxy")  # "the domain of f"
COMPASS = re.compile(
    r"^(N|S|E|W|north|south|east|west)\s*(\d+(?:\.\d+)?)\s*°?\s*(N|S|E|W|north|south|east|west)$", re.I
)
DIRECTION = re.compile(r"^(?i:due[\s-]*)?((?i:north|south)|[NS])?[\s-]*((?i:east|west)|[EW])?(?i:ward)?$")
COMPASS_WORDS = re.compile(
    r"^(\d+(?:\.\d+)?)\s*°?\s*(N|S|E|W|north|south|east|west)(?:ward)?\s*(?:of|from)\s*(?:due\s+)?(N|S|E|W|north|south|east|west)$",
    re.I,
)
TRUE_BEARING = re.compile(r"^(?:T\s*)?(\d+(?:\.\d+)?)\s*°?\s*(?:T|true)(?:\s+(?:bearing|north))?$", re.I)
QUARTERS = {"n": 0, "e": 90, "s": 180, "w": 270}
BRACKETED = re.compile(r"[(\[⦃][^()\[\]⦃⦄]*[)\]⦄](?:\s*(?:∪|U|or|and)\s*[(\[][^()\[\]⦃⦄]*[)\]])*")


def split_top(text: str, separators: str) -> list[str]:
    """Split at a separator (a regex) that stands outside all brackets; ( may close with ], as intervals do. NotMath for
    more than MAX_PARTS.
    """
    pieces, depth, start, position = [], 0, 0, 0
    pattern = re.compile(separators)
    while position < len(text):
        sign = text[position]
        depth += (sign in OPEN) - (sign in CLOSE and depth > 0)
        match = pattern.match(text, position) if depth == 0 else None
        if match and match.end() > position:
            pieces.append(text[start:position])
            start = position = match.end()
        else:
            position += 1
    if sum(bool(piece.strip()) for piece in pieces) > MAX_PARTS:
        raise NotMath("too many parts")
    return [*pieces, text[start:]]


@lru_cache(maxsize=1024)
def read(text: str) -> object:
    """Text → value; Words where it is no mathematics. NotMath where a limit is passed (length, control characters)."""
    text = strip_end(plain(text))
    value = read_value(text, depth=0)
    if value is None:
        parted = r"\b(?:is|are|equals|be)\b(?!.*\b(?:is|are|equals|be)\b)|^[A-Za-z][A-Za-z .]*:\s|[是为]|等于"
        bare = re.split(parted, text, maxsplit=1)[-1].strip()
        value = read_value(strip_end(bare), depth=0) if bare != text and bare else None
    return value if value is not None else Words(words_of(text))


def strip_end(text: str) -> str:
    """Without the marks that end or wrap a phrase."""
    text = re.sub(r"(?<![\w)])\*\*|\*\*(?![\w(])|`", " ", text).strip()
    text = re.sub(r"(?:[\s.,;:?\"`]|(?<!\d)['!])+$", "", text).lstrip("\"' ")  # 60' are minutes
    for _ in range(3):
        text = APPROXIMATELY.sub("", text).strip()
    return text


def words_of(text: str) -> tuple[str, ...]:
    """The words and numbers of a text in lower case, without small words and punctuation."""
    words = re.findall(r"[a-z]+|\d+(?:\.\d+)?|[^\sa-z0-9.,;:!?\"'()$]", text.lower())
    small = SMALL_WORDS if not re.search(r"[=<>≤≥]", text) else SMALL_WORDS - set("fghxys")
    return tuple(w for w in words if w not in small) or tuple(words)


def read_value(text: str, depth: int) -> object | None:
    """A value, or None where the text is no mathematics."""
    if not text or depth > 4:
        return None
    if text.lower() in NUMBER_WORDS:
        return Quantity(((Fraction(NUMBER_WORDS.index(text.lower())), None),))
    text = re.sub(r"^[A-Za-z]\s*(?:∈|\bin\b)\s*(?=[(\[{⦃])", "", text)
    if match := SET_BUILDER.match(text):
        text = match.group(2).strip()
    if match := BOTH_SIDES.match(text):  # x > -2 and x <= 1
        name, above, low, below, high = match.groups()
        text = f"{low} {above.replace('>', '<')} {name} {below} {high}"
    labelled = read_labelled(text, depth)
    if labelled is not None and len(labelled.parts) > 1:
        return labelled
    for reader in (read_bearing, read_several, read_relation, read_brackets, read_ratio, read_quantity):
        value = reader(text, depth)
        if value is not None:
            return value
    if labelled is not None:
        label, value = next(iter(labelled.parts))
        if isinstance(value, Sequence) and all(word in NEUTRAL or word in FUNCTIONS for word in label):
            return value
    return labelled


def read_bearing(text: str, depth: int) -> Bearing | None:
    """S 23.5° W, 34° west of north, 315°T."""
    if match := COMPASS.match(text):
        origin, angle, towards = match.groups()
    elif match := COMPASS_WORDS.match(text):
        angle, towards, origin = match.groups()
    elif match := TRUE_BEARING.match(text):
        return Bearing(number(match.group(1)))
    elif len(text) > 1 and (match := DIRECTION.match(text)):
        first, second = ((part or "")[:1].lower() for part in match.groups())
        if not (first and second):
            known = (first or second) and "due" in text.lower()
            return Bearing(Fraction(QUARTERS[first or second])) if known else None
        return Bearing(Fraction((QUARTERS[second] + (45 if (first == "n") == (second == "w") else -45)) % 360))
    else:
        return None
    start, end, angle = QUARTERS[origin[0].lower()], QUARTERS[towards[0].lower()], number(angle)
    turn = (end - start) % 360
    return Bearing((start + (angle if turn == 90 else -angle)) % 360) if turn in (90, 270) else None


def read_several(text: str, depth: int) -> object | None:
    """Unions, lists, and both signs of ±."""
    if "±" in text:
        both = [read_value(text.replace("±", sign), depth + 1) for sign in "+-"]
        return Sequence(",", tuple(both)) if None not in both else None
    for kind, separators in (("∪", r"∪|(?<=[)\]])\s*(?:U|or|and)\s*(?=[(\[])"),
                             (",", r"\n|;|\s+(?:and|or)\s+|,\s*(?:and|or)\s+"), (",", r",(?!\d{3}(?!\d))|,(?=\s)")):
        pieces = [piece.strip() for piece in split_top(text, separators)]
        pieces = [piece for piece in pieces if piece]
        if len(pieces) > 1:
            values = [read_value(strip_end(piece), depth + 1) for piece in pieces]
            if all(isinstance(value, Sequence) if kind == "∪" else value is not None and not isinstance(value, Labelled)
                   for value in values):
                return Sequence(kind, tuple(values))
    return None


def read_relation(text: str, depth: int) -> object | None:
    """Equations and inequalities; a label or a side left empty is dropped, so `Area = 9` is 9."""
    pieces = split_top(text, r"<=|>=|≠|[=<>≈](?!=)|:(?=\s*[=\[({])")
    if len(pieces) < 2:
        return None
    signs = re.findall(r"<=|>=|≠|[=<>≈:]", text) if text.count("<") + text.count(">") else ["="] * (len(pieces) - 1)
    if len(signs) != len(pieces) - 1 or "≠" in text:
        return None
    pieces = [piece.strip() for piece in pieces]
    if set(signs) <= {"=", ":", "≈"}:
        return read_equation(pieces, depth)
    sides = [read_value(piece, depth + 1) for piece in pieces]
    if any(not isinstance(side, Quantity) for side in sides):
        return None
    if len(signs) == 2 and {s[0] for s in signs} in ({"<"}, {">"}):
        low, middle, high = sides if signs[0][0] == "<" else sides[::-1]
        strict = [sign == "<" or sign == ">" for sign in (signs if signs[0][0] == "<" else signs[::-1])]
        return Sequence("[("[strict[0]] + "])"[strict[1]], (low, high)) if NAME.match(pieces[1]) else None
    if len(signs) != 1:
        return None
    left, right = sides if signs[0][0] == "<" else sides[::-1]
    return Relation("<=" if "=" in signs[0] else "<", left, right)


def read_equation(pieces: list[str], depth: int) -> object | None:
    """A chain of equal sides → the value where one side remains, else name = value, else left = right."""
    name, values = "", []
    for piece in pieces:
        if not name and (found := name_of(piece, pieces[-1])):
            name = found
            continue
        if match := re.fullmatch(r"\(\s*([A-Za-z])\s*,\s*([A-Za-z])\s*\)", piece):  # (x, y) = ...
            if match.group(1) < match.group(2):
                continue
            return None
        value = read_value(piece, depth + 1)
        if value is not None and not isinstance(value, Labelled | Relation):
            values.append(value)
        elif not LABEL.match(piece) or re.search(r"\b(?:not?|never)\b|n't", piece, re.I):
            return None
    if not values:
        return None
    if name:
        return Relation("=", Quantity(((name, None),)), values[-1], name, tuple(values[:-1]))
    if len(values) == 1:
        return values[0]
    if all(isinstance(value, Quantity) for value in values):
        if len(values) == len(pieces) and all(lone_number(value, KNOWN) is not None for value in values):
            computed = [bool(COMPUTED.search(piece)) for piece in (pieces[0], pieces[-1])]
            if computed[0] and not computed[1]:  # 7 * 2 = 14: the answer is the last one
                return values[-1]
            if computed[1] and not computed[0] and same_quantity(values[0], values[-1], None):  # 14 = 7 * 2
                return values[0]
        if len(values) == 2:
            return Relation("=", *values)
    return None


def name_of(piece: str, last: str) -> str:
    """The name that an equation gives a value: "x", "AB", "f()" for f(x), "f(3)", "sin(A)"; "" for none."""
    if (match := NAME.match(piece)) and piece != "e":
        return "f()" if match.group(2) else (match.group(1) or match.group(3)).strip("| ").replace(" ", "")
    if (match := RATIO_NAME.match(piece)) and not re.search("sin|cos|tan|log", last):
        return f"{match.group(1)}({match.group(2)})"
    return ""


LABEL = re.compile(r"^(?:[A-Za-z\\][\w .,'(){}\\]*)?$")  # "Total S.A.", "Weekly water intake", nothing
COMPUTED = re.compile(r"[\w)}°%!]\s*[-+*/^]|\\(?:sqrt|frac)|sin|cos|tan")


def read_brackets(text: str, depth: int) -> object | None:
    """(a, b), [a, b), {a, b}: points, intervals and sets; M(a, b) is the point (a, b)."""
    text = re.sub(r"^[A-Z]\s*(?=\([^()]+,)", "", text)
    if len(text) < 3 or text[0] not in "([⦃{" or text[-1] not in ")]⦄}":
        return None
    inner = text[1:-1]
    if min(accumulate(((sign in OPEN) - (sign in CLOSE) for sign in inner), initial=0)) < 0:
        return None
    pieces = split_top(inner, r"[,;]")
    if len(pieces) < 2:
        return read_value(inner.strip(), depth + 1) if text[0] == "⦃" else None
    values = [read_value(piece.strip(), depth + 1) for piece in pieces]
    return Sequence("," if text[0] in "⦃{" else text[0] + text[-1], tuple(values)) if None not in values else None


def read_ratio(text: str, depth: int) -> Sequence | None:
    """1:64, 1 : 2 : 3, 3 to 5."""
    pieces = [piece.strip() for piece in split_top(text, r":|\s+to\s+")]
    if len(pieces) < 2:
        return None
    values = [read_quantity(piece, depth + 1) for piece in pieces]
    if None in values or any(is_infinite(value.readings[0][0]) or value.readings[0][0] == 0 for value in values):
        return None
    return Sequence(":", tuple(values))


def read_quantity(text: str, depth: int) -> Quantity | None:
    """An expression, with a unit after it or without."""
    readings = []
    for head, unit in split_unit(text):
        try:
            expression = parse_expression(head)
            for symbol in (DEGREE, PERCENT):
                found = coefficient(expression, symbol) if symbol in symbols(expression) else None
                if found and not (found[1] and unit):
                    expression, unit = found[0], Unit.named(symbol) if found[1] else unit
        except NotMath:
            continue
        if unit is None or not symbols(expression) & {DEGREE, PERCENT}:
            readings.append((expression, unit))
    return Quantity(tuple(readings)) if readings else None


def read_labelled(text: str, depth: int) -> Labelled | None:
    """ "domain: [-4, 0) and range: (-3, 1]" → a value under each label."""
    if depth > 1 or not re.search(r"[A-Za-z]{4}", text):
        return None
    text = as_intervals(text)
    parts, position = [], 0
    for match in BRACKETED.finditer(text):
        before = text[position : match.start()]
        words = (word for word in words_of(before) if word.isalpha() and word not in SMALL_WORDS)
        label, value = tuple(sorted(map(stem, words))), read_value(match.group().strip(), depth + 2)
        if not label or value is None or re.search(r"\d", before):
            return None
        parts.append((label, value))
        position = match.end()
    if not parts or any(word.isalnum() and word not in SMALL_WORDS for word in words_of(text[position:])):
        return None
    return Labelled(frozenset(parts))


def stem(word: str) -> str:
    """increasing, increases, increase → increas; maxima and maximum → maxim."""
    word = {"max": "maximum", "min": "minimum"}.get(word, word)
    return re.sub(r"(ing|es|ed|um|al|a|s|e)$", "", word)


def as_intervals(text: str) -> str:
    """ "domain: -4 <= x < 0" → "domain: [-4, 0)"; "increasing on x > 2" → "increasing on (2, oo)"."""
    number = r"(-?\d+(?:\.\d+|/\d+)?)"
    text = re.sub(rf"{number}\s*(<=?)\s*[xy]\s*(<=?)\s*{number}",
                  lambda m: f"{'[' if '=' in m[2] else '('}{m[1]}, {m[4]}{']' if '=' in m[3] else ')'}", text)
    text = re.sub(rf"\b[xy]\s*(>=?)\s*{number}", lambda m: f"{'[' if '=' in m[1] else '('}{m[2]}, oo)", text)
    return re.sub(rf"\b[xy]\s*(<=?)\s*{number}", lambda m: f"(-oo, {m[2]}{']' if '=' in m[1] else ')'}", text)


# -----------------------------------------------------------------------------
# value against value


def same(answer: object, gold: object, decimals: int | None) -> bool:
    """Whether two values are equal; `decimals` rounds numbers, None compares them exactly."""
    if not isinstance(gold, Labelled):
        answer = unnamed(answer)
    if isinstance(answer, Relation) or isinstance(gold, Relation):
        return same_relation(answer, gold, decimals)
    if isinstance(gold, Bearing) or isinstance(answer, Bearing):
        first, second = (v.azimuth if isinstance(v, Bearing) else lone_number(v) for v in (answer, gold))
        return first is not None and second is not None and same_number(first, second, decimals)
    if isinstance(answer, Quantity) and isinstance(gold, Quantity):
        return same_quantity(answer, gold, decimals)
    if isinstance(answer, Sequence) or isinstance(gold, Sequence):
        return same_sequence(answer, gold, decimals)
    if isinstance(answer, Labelled) and isinstance(gold, Labelled):
        mine, theirs = dict(answer.parts), dict(gold.parts)
        return mine.keys() == theirs.keys() and all(same(mine[label], theirs[label], decimals) for label in theirs)
    if isinstance(answer, Words) and isinstance(gold, Words):
        return answer.words == gold.words and bool(gold.words)
    return False


def unnamed(value: object) -> object:
    """The point of "the midpoint M is (2, -2)", for a gold that names none: a name in the gold must be the answer's."""
    if isinstance(value, Labelled) and len(value.parts) == 1:
        label, point = next(iter(value.parts))
        if isinstance(point, Sequence) and all(word in NEUTRAL or len(word) == 1 for word in label):
            return point
    return value


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


def same_relation(answer: object, gold: object, decimals: int | None) -> bool:
    """Whether an equation or inequality agrees with another, or with a bare value or interval.

    x = 5 agrees with 5 and with r = 5 for a name that may stand for x; x > 2 agrees with (2, oo).
    """
    if isinstance(answer, Relation) and isinstance(gold, Relation):
        if answer.sign != gold.sign:
            return False
        if answer.name and gold.name:
            if "f()" not in (answer.name, gold.name) and other_name(answer.name, gold.name):
                return bool(variables(answer.right) and variables(gold.right)) and same_equation(answer, gold)
            return any(same(answer.right, value, decimals) for value in (gold.right, *gold.steps))
        return same_equation(answer, gold)
    relation, other = (answer, gold) if isinstance(answer, Relation) else (gold, answer)
    if relation.sign == "=":
        if relation is answer:
            return bool(relation.name) and same(relation.right, other, decimals)
        return bool(relation.name) and any(same(other, v, decimals) for v in (relation.right, *relation.steps))
    interval = as_interval(relation)
    return interval is not None and isinstance(other, Sequence) and same_sequence(interval, other, decimals)


def other_name(first: str, second: str) -> bool:
    """x is not y and AB is not BC; but AB is BA, D is d, and V may well stand for the volume. sin(x) is only itself."""
    if "(" in first[1:-2] + second[1:-2]:
        return first != second
    if len(first) > 1 and len(second) > 1:
        return second not in (first, first[::-1])
    return len(first) == len(second) == 1 and first.lower() != second.lower()


def variables(value: object) -> frozenset[str]:
    """The letters of a quantity."""
    return symbols(full_reading(value)) if isinstance(value, Quantity) else frozenset()


def same_equation(answer: Relation, gold: Relation) -> bool:
    """Equations, or inequalities, of which one is a multiple of the other."""
    if not all(isinstance(side, Quantity) for relation in (answer, gold) for side in (relation.left, relation.right)):
        return False
    a, g = (plus(full_reading(relation.left), negative(full_reading(relation.right))) for relation in (answer, gold))
    return proportional(a, g, positive=gold.sign != "=")


def full_reading(quantity: Quantity) -> Expression:
    """The reading in which every letter is a variable, if there is one."""
    return next((expression for expression, unit in quantity.readings if unit is None), quantity.readings[0][0])


def as_interval(relation: Relation) -> Sequence | None:
    """x > 2 → (2, oo)."""
    left, right = full_reading(relation.left), full_reading(relation.right)
    strict = relation.sign == "<"
    if isinstance(left, str) and not symbols(right):
        return Sequence("(" + "])"[strict], (Quantity(((-math.inf, None),)), relation.right))
    if isinstance(right, str) and not symbols(left):
        return Sequence("[("[strict] + ")", (relation.left, Quantity(((math.inf, None),))))
    return None


def same_sequence(answer: object, gold: object, decimals: int | None) -> bool:
    """Whether tuples, sets, intervals, unions or ratios agree: item by item, and by kind.

    Ratios agree up to a common factor, a ratio of two also with its quotient.
    """
    if not (isinstance(answer, Sequence) and isinstance(gold, Sequence)):
        sequence, other = (answer, gold) if isinstance(answer, Sequence) else (gold, answer)
        if sequence.kind == ":" and len(sequence.items) == 2 and isinstance(other, Quantity):
            first, second = map(full_reading, sequence.items)
            return same_number(divide(first, second), full_reading(other), None)
        return False
    if len(answer.items) != len(gold.items):
        return False
    (answer, answer_named), (gold, gold_named) = by_name(answer), by_name(gold)
    if answer_named != gold_named and answer.kind == gold.kind:  # "4, 3" for a = 4, b = 3: in that order alone
        return all(same(a, g, decimals) for a, g in zip(answer.items, gold.items, strict=True))
    if ":" in (answer.kind, gold.kind):
        if answer.kind != gold.kind:
            return False
        first_a, first_g = (full_reading(s.items[0]) for s in (answer, gold))
        return all(same_number(times(full_reading(a), first_g), times(full_reading(g), first_a), None)
                   for a, g in zip(answer.items, gold.items, strict=True))
    in_order = all(same(a, g, decimals) for a, g in zip(answer.items, gold.items, strict=True))
    kinds = {answer.kind, gold.kind}
    if not kinds <= {"∪", ","}:
        return in_order and (len(kinds) == 1 or kinds == {",", "()"})  # "2, -2" for the point (2, -2); never ( for [
    left = list(gold.items)
    for a in answer.items:
        found = next((g for g in left if same(a, g, decimals)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def by_name(sequence: Sequence) -> tuple[Sequence, bool]:
    """ "y = -2, x = 2" in the order of its names, and whether each item has its own (x_1 and x_2 share one)."""
    names = [item.name.split("_")[0] if isinstance(item, Relation) else "" for item in sequence.items]
    if sequence.kind != "," or not all(names) or len(set(names)) < len(names):
        return sequence, False
    return Sequence(",", tuple(sorted(sequence.items, key=lambda item: item.name))), True


# -----------------------------------------------------------------------------
# number against number


def same_number(a: Expression, g: Expression, decimals: int | None) -> bool:
    """Exactly equal expressions; with `decimals`, a number that rounds to the gold one."""
    if a == g:
        return True
    if is_infinite(a) or is_infinite(g):
        return False
    if decimals is None:
        return not (isinstance(a, Fraction) and isinstance(g, Fraction)) and agree(a, g)
    x, y = real(a), real(g)
    if x is None or y is None or whole(y * 10**decimals) is None:
        return agree(a, g)
    return bool(abs(x - y) <= y.context.mpf(10) ** -decimals / 2 + TOLERANCE)


# -----------------------------------------------------------------------------
# the one question


def split_approximation(answer: str) -> list[str]:
    """ "x = √147 ≈ 12.12" → both values, if they agree to a hundredth part; else the text as it is."""
    pieces = [piece for piece in re.split(r"≈|\\approx(?![a-z])", answer) if piece.strip()]
    if len(pieces) != 2:
        return [answer]
    values = [read(piece) for piece in pieces]
    exact, rounded = (lone_number(v.right if isinstance(v, Relation) else v, KNOWN) for v in values)
    exact, rounded = (None if value is None else real(value) for value in (exact, rounded))
    if exact is None or rounded is None or abs(exact - rounded) > abs(exact) / 100:
        return [answer]
    return pieces


def equal(answer: str, gold: str, decimals: int | None = None) -> bool:
    """Whether an answer is the gold answer. decimals: the places the question asks to round to, None for exact.

    Never raises for any text: what is too long, too deep or too large is wrong.
    """
    if "\0" in answer or len(answer) > 2000:
        return False
    if answer.strip() == gold.strip():
        return bool(answer.strip())
    return _equal(answer, gold, decimals)


@lru_cache(maxsize=8192)  # a response's phrases meet the same choices several times
def _equal(answer: str, gold: str, decimals: int | None) -> bool:
    try:
        return any(same(read(part), read(gold), decimals) for part in split_approximation(answer))
    except NotMath:
        return False


PLACES = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
WHOLE = (
    r"whole|integer|degree|(?:square |cubic )?(?:kilo|centi|milli)?(?:metre|meter|gram|litre|liter)s?\b|cm|mm|km|mile"
    r"|foot|feet|dollar|minute|second|hour|year|unit|percent"
)


def decimals_asked(question: str) -> int | None:
    """The decimal places a question asks to round to ("to two decimal places", "nearest tenth"), None for none."""
    text = question.lower()
    if match := re.search(r"\b(one|two|three|four|five|[1-5])\s+decimal", text):
        return PLACES.get(match.group(1)) or int(match.group(1))
    if match := re.search(r"nearest\s+(tenth|hundredth|thousandth)", text):
        return ("tenth", "hundredth", "thousandth").index(match.group(1)) + 1
    return 0 if re.search(rf"nearest\s+(?:{WHOLE})", text) else None
