"""Checks every equation of a written solution, reading it as a pupil's teacher would: side by side, number by number.

The reader knows numbers, + - × / ², √, π, °, |x|, sin/cos/tan/log/ln, names of segments (AB), angles (∠ABC), values
(f(2)) and single letters. A side whose letters are known must have the value of the other sides; a bare name that is
not known yet takes that value and keeps it for the rest of the solution; two sides in an unknown x must agree for
every x (an identity). An equation that cannot be checked in one of these ways is an error.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

FUNCTIONS = ("arctan", "arcsin", "arccos", "sin", "cos", "tan", "log", "ln")
_WORD = re.compile(r"(?<![A-Za-z])(?!(?:" + "|".join(FUNCTIONS) + r")(?![a-z]))(?:[A-Z][a-z]+|[a-z]{2,})(?![a-z])")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<function>" + "|".join(FUNCTIONS) + r")(?P<base>[₂₃₁₀₅]*)"
    r"|(?P<value>[fgh](?:⁻¹)?\((?:[^()]|\([^()]*\))*\))|(?P<name>∠?[A-Z][A-Z']*[₁₂₃]?|∠[1-9]|[a-z][₁₂₃]?|[αβθ])"
    r"|(?P<power>[²³⁴])|(?P<symbol>[-−+×·÷/^()√π°|,]))"
)
_OPERATORS = {"×": "*", "·": "*", "÷": "/", "−": "-", "^": "**", "²": "**2", "³": "**3", "⁴": "**4"}
_SUBSCRIPTS = str.maketrans("₀₁₂₃₅", "01235")


class EquationError(ValueError):
    """An equation of a solution that is wrong, or that cannot be checked."""


def check_equations(steps: Sequence[str], symbols: Mapping[str, float]) -> int:
    """Check every equation in the steps and return how many relations were checked.

    Args:
        steps: sentences of the solution.
        symbols: values of the letters and names that the problem defines; angles (∠ABC) in degrees.

    Raises:
        EquationError: an equation is wrong or cannot be checked; the message quotes the step.
    """
    chains = []
    for step in steps:
        for fragment in re.split(r"(?<!\d)\. |[.:;]$|[;:] | and | so |, (?![^()]*\))|\.$", step):
            if fragment and re.search(r"[=≈]", fragment):
                chains.append((step, *_read_chain(fragment, step)))
    known = {name: math.radians(value) if name.startswith("∠") else value for name, value in symbols.items()}
    for _, sides, _ in chains:  # first learn what bare names stand for, then hold every side against it
        value = next((_value(code, known) for code, names, _ in sides if names <= known.keys()), None)
        for code, names, _ in sides:
            if value is not None and _is_bare(code) and not names <= known.keys():
                known[next(iter(names))] = value
    return sum(_check_chain(step, sides, signs, known) for step, sides, signs in chains)


def evaluate(text: str, letters: Mapping[str, float]) -> float:
    """The value of one expression, as the solutions write them; degrees become radians.

    Raises:
        EquationError: it cannot be read, or holds an unknown letter.
    """
    code, names = _translate(text)
    if not code or not names <= letters.keys():
        raise EquationError(f"cannot evaluate {text!r}")
    return _value(code, letters)


def _is_bare(code: str) -> bool:
    return code.startswith("n[") and code.count("[") == 1 and code.endswith("]")


def _read_chain(fragment: str, step: str) -> tuple[list[tuple[str, frozenset[str], str]], list[str]]:
    parts = re.split(r"\s*([=≈])\s*", fragment)
    texts, signs = parts[0::2], parts[1::2]
    sides = []
    for position, text in enumerate(texts):
        code, names = _translate(_trim(text, first=position == 0, last=position == len(texts) - 1))
        if not code:
            raise EquationError(f"cannot read {text!r} in the step {step!r}")
        sides.append((code, names, text))
    return sides, signs


def _check_chain(
    step: str, sides: list[tuple[str, frozenset[str], str]], signs: list[str], known: Mapping[str, float]
) -> int:
    values, approximate, open_sides, definitions = [], False, [], 0
    for index, (code, names, text) in enumerate(sides):
        approximate = approximate or (index > 0 and signs[index - 1] == "≈")
        unknown = names - known.keys()
        if not unknown:
            values.append((_value(code, known), approximate, text))
        elif _is_bare(code):
            definitions += 1
        elif unknown == {"x"}:
            open_sides.append(code)
        else:
            raise EquationError(f"{sorted(unknown)} unknown in the step {step!r}")
    if values and open_sides or len(values) + len(open_sides) + definitions < 2:
        raise EquationError(f"cannot be checked: {step!r}")
    for value, rough, text in values[1:]:
        tolerance = _tolerance(text, value) if rough else 1e-9 * max(1.0, abs(values[0][0]))
        if abs(value - values[0][0]) > tolerance:
            raise EquationError(f"{text!r} is {value}, not {values[0][0]}, in the step {step!r}")
    _check_identity(open_sides, known, step)
    return max(0, len(values) - 1) + max(0, len(open_sides) - 1)


def _check_identity(open_sides: list[str], known: Mapping[str, float], step: str) -> None:
    for x in (0.7310585, 1.9171717, 3.1234567) if len(open_sides) > 1 else ():
        values = [_value(code, {**known, "x": x}) for code in open_sides]
        if any(abs(value - values[0]) > 1e-9 * max(1.0, abs(values[0])) for value in values):
            raise EquationError(f"not an identity: {step!r}")


def _tolerance(side: str, value: float) -> float:
    digits = re.findall(r"\d+(?:\.(\d+))?", side)
    places = len(digits[-1]) if digits else 0
    return 0.5 * 10**-places + 1e-9 * max(1.0, abs(value))


def _trim(side: str, first: bool, last: bool) -> str:
    """Cut the words off the outer ends of a chain, leaving the expression that touches the equals sign."""
    side = re.sub(r"\b[Aa]ngle (?=[A-Z1-9])", "∠", side)
    side = re.sub(r"(?<=\d) (?:cm|mm|km|m)[²³]?(?![a-z])", "", side).strip(" ,")
    if first:
        words = list(_WORD.finditer(side))
        if words and words[-1].end() == len(side):
            return words[-1].group()  # a quantity named by a word: "Area = ..."
        side = side[words[-1].end() :] if words else side
    if last:
        words = _WORD.search(side)
        side = side[: words.start()] if words else side
    return side.strip(" ,")


@lru_cache(maxsize=16384)
def _translate(side: str) -> tuple[str | None, frozenset[str]]:
    """Python source of an expression in the names `n[...]`, and the names in it; None where it is no expression."""
    if _WORD.fullmatch(side):
        return f"n[{side!r}]", frozenset([side])
    position, code, names, operand, bars, root = 0, [], set(), False, 0, False
    while position < len(side):
        match = _TOKEN.match(side, position)
        if match is None or match.end() == position:
            return (None, frozenset()) if side[position:].strip() else ("".join(code), frozenset(names))
        position, kind, text = match.end(), match.lastgroup, match.group().strip()
        opens = kind in ("number", "function", "base", "value", "name") or text in ("(", "√", "π")
        if text == "|" and bars % 2 == 0:
            opens = True
        if opens and operand:
            code.append("*")
        operand = True
        if kind in ("number", "value", "name"):
            item = text if kind == "number" else f"n[{text!r}]"
            if kind != "number":
                names.add(text)
            code.append(f"sqrt({item})" if root else item)
            root = False
        elif match.group("function"):
            base = match.group("base").translate(_SUBSCRIPTS)
            code.append(f"log_{base}" if base else match.group("function"))
            operand = False
        elif text == "√":
            root, operand = True, False
            continue
        elif text == "(":
            code.append("sqrt(" if root else "(")
            root, operand = False, False
        elif text == "|":
            code.append("abs(" if bars % 2 == 0 else ")")
            operand = bars % 2 == 1
            bars += 1
        elif text in ("π", ")"):
            code.append("pi" if text == "π" else text)
        elif text == "°":
            code.append("*DEGREE")
        elif kind == "power":
            code.append(_OPERATORS[text])
        else:
            code.append(_OPERATORS.get(text, text))
            operand = False
    return "".join(code), frozenset(names)


_BASE: dict[str, object] = {
    "__builtins__": {}, "sqrt": math.sqrt, "pi": math.pi, "abs": abs, "DEGREE": math.pi / 180, "sin": math.sin,
    "cos": math.cos, "tan": math.tan, "ln": math.log, "log": math.log10, "arctan": math.atan, "arcsin": math.asin,
    "arccos": math.acos
} | {f"log_{base}": (lambda value, base=base: math.log(value, base)) for base in (2, 3, 5, 10)}


@lru_cache(maxsize=16384)
def _compiled(code: str) -> object:
    return compile(code, "solution", "eval")


def _value(code: str, names: Mapping[str, float]) -> float:
    try:
        return float(eval(_compiled(code), _BASE, {"n": names}))  # our own translation, no builtins
    except (SyntaxError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise EquationError(f"cannot evaluate {code!r}: {error}") from error
