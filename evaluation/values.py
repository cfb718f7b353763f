"""An answer's text → its value: numbers and expressions with units, points and intervals, unions, lists, ratios,
equations, inequalities, bearings, labelled parts ("domain: ... and range: ..."), words. What cannot be read is words.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

from evaluation.algebra import DEGREE, PERCENT, Expression, NotMath, coefficient, is_infinite, symbols
from evaluation.expressions import number, parse_expression, plain
from evaluation.units import KNOWN, Quantity, Unit, lone_number, same_quantity, split_unit

# -----------------------------------------------------------------------------
# values


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


MATHEMATICS = re.compile(r"[\d\\+*/^]|\b(?:arc)?(?:sin|cos|tan|sec|csc|cot)\b|\b(?:log|ln|exp|sqrt|abs|frac)\b")


def read_labelled(text: str, depth: int) -> Labelled | None:
    """ "domain: [-4, 0) and range: (-3, 1]" → a value under each label."""
    if depth > 1 or not re.search(r"[A-Za-z]{4}", text):
        return None
    text = as_intervals(text)
    parts, position = [], 0
    for match in BRACKETED.finditer(text):
        before = text[position : match.start()]
        if MATHEMATICS.search(before):  # sin(x) + cos(x) has no labels
            return None
        words = (word for word in words_of(before) if word.isalpha() and word not in SMALL_WORDS)
        label, value = tuple(sorted(map(stem, words))), read_value(match.group().strip(), depth + 2)
        if not label or value is None:
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
