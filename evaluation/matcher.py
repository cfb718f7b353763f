"""Are two answers the same mathematics? Exact, offline, and safe for any text a model may write.

    equal("4.4 metres", "440 cm")          True: units are converted, and one that is left out is forgiven
    equal("x = 8", "$x=8 \\\\mathrm{~cm}$")  True: a name in front is no part of the value
    equal("0.33", "1/3")                   False: exact, unless `decimals` (what the question asks to round to) says so
    equal("S 25 W", "205° T")              True: bearings
    equal("y = -2, x = 2", "(2, -2)")      True: values go by their names
    equal("7 * 2 = 14", "14")              True: of a computation the last side counts

What cannot be read is compared as words; what is too large is wrong.
"""

import math
import re
from functools import lru_cache

from evaluation.algebra import NotMath, divide, negative, plus, proportional, real, same_number, symbols, times
from evaluation.units import KNOWN, Quantity, full_reading, lone_number, same_quantity
from evaluation.values import NEUTRAL, Bearing, Labelled, Relation, Sequence, Words, read

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
