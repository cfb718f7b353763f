"""What a problem is: facts, one question with its exact answer and solution, and a scene to draw and to measure.

A family is one function `family(draw) -> Problem`. Through `draw` it takes two kinds of random choices:

- `draw.given(name, values)`: a parameter that the facts state. Family and givens are the problem's identity: they
  decide whether it belongs to the training data or to the benchmark, and whether two problems are the same.
- `draw.free`: everything that the facts leave open (lengths not stated, position, letters, wording). Drawing it anew
  must not change the answer; a test replays every family's givens with other free choices.
"""

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from problems.exact import Answer, Exact, Rational, plain, with_unit
from problems.scene import Mark, Scene

Value = TypeVar("Value")
LETTER_SETS = ("ABCDEFGH", "PQRSTUVW", "KLMNPQRS", "DEFGHJKL", "STUVWXYZ", "EFGHJKLM", "MNPQRSTU", "ABCDMNPQ")


class Reject(Exception):
    """These parameters make no good problem; the designer draws again."""


@dataclass(frozen=True)
class Fact:
    """One piece of what is given, with its two carriers: a clause of text, or marks in the picture.

    A description says what the figure is, a property a relation (parallel, equal, tangent), a condition a size or an
    equation. The base of the scene already shows a description; its marks are what the bare drawing does not say.
    """

    kind: str
    text: str
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Ask:
    """The question and all that the Solver knows about it.

    `measure` recomputes the values of the answer from the scene's coordinates alone. `mistakes` are the texts of wrong
    answers that pupils typically give. `symbols` are the letters that the solution uses, to check its equations.
    """

    quantity: str
    question: str
    short: str
    answer: Answer
    steps: tuple[str, ...]
    measure: Callable[[Scene], float | tuple[float, ...]]
    mistakes: tuple[str, ...] = ()
    symbols: dict[str, float] = field(default_factory=dict)


@dataclass
class Problem:
    """A drawn problem: its facts, what is asked, the scene that the Plotter draws, and what fixed it."""

    facts: list[Fact]
    ask: Ask
    scene: Scene
    turn: float = 0.0  # degrees by which the Plotter turns a plane figure
    mirror: bool = False
    family: str = ""
    category: str = ""
    seed: str = ""
    givens: dict[str, object] = field(default_factory=dict)
    small: bool = False

    @property
    def key(self) -> str:
        """Canonical hash of family and parameters: problems that differ only in order, letters or position share it."""
        values = sorted(json.dumps(value) for value in self.givens.values())
        answer = [f"{value:.9g}" for value in self.ask.answer.values]
        identity = json.dumps([self.family, self.ask.quantity, values, answer])
        return hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()


class Draw:
    """The random choices of one problem, repeatable from its seed."""

    def __init__(self, seed: str, small: bool = False, givens: dict[str, object] | None = None, redraw: int = 0):
        self._given = random.Random(f"{seed}/given")
        self.free = random.Random(f"{seed}/free/{redraw}")
        self.small = small
        self.givens: dict[str, object] = {}
        self._replayed = givens
        self.angle_word = "angle " if small else self.free.choice(["angle ", "angle ", "∠"])
        self.unit = "" if small else self.free.choice(["", "", "cm", "cm", "m"])
        self.area_unit, self.volume_unit = (self.unit and self.unit + power for power in "²³")

    def given(self, name: str, values: Sequence[Value]) -> Value:
        """Choose one of the values for a parameter that the facts state."""
        if not values:  # what was drawn before leaves nothing to choose from
            raise Reject
        replayed = self._replayed is not None
        self.givens[name] = self._replayed[name] if replayed else values[self._given.randrange(len(values))]
        return self.givens[name]

    def degrees(self, name: str, low: int, high: int, step: int = 1) -> int:
        """A stated angle; multiples of five where numbers are to be small."""
        step = 5 if self.small else step
        return self.given(name, range(-(-low // step) * step, high + 1, step))

    def length(self, name: str, low: int = 3, high: int = 30) -> int:
        """A stated length; 2 to 9 where numbers are to be small."""
        return self.given(name, range(2, 10) if self.small else range(low, high + 1))

    def asked(self, *quantities: str) -> str:
        """Which of the askable quantities this problem asks for."""
        return self.given("asked", quantities)

    def say(self, *wordings: str, brief: str = "") -> str:
        """One of several wordings; where numbers are to be small, always the brief one, or the first."""
        return (brief or wordings[0]) if self.small else self.free.choice(wordings)

    def size(self, value: "Rational | Exact") -> str:
        """A length as the facts state it, with this problem's unit."""
        return with_unit(plain(value), self.unit)

    def letters(self, count: int, avoid: str = "") -> list[str]:
        """Names for points: neighbours in the alphabet, in order or not."""
        if self.small:
            return list("ABCDEFGH"[:count])
        row = [letter for letter in self.free.choice(LETTER_SETS) if letter not in avoid][:count]
        if len(row) < count:
            row = [letter for letter in "ABCDEFGH" if letter not in avoid][:count]
        if self.free.random() < 0.25:
            self.free.shuffle(row)
        return row

    def turn(self) -> float:
        """A turn for a plane figure: often upright, else any."""
        if self.small:
            return self.free.uniform(-8, 8)
        return self.free.choice([0.0, self.free.uniform(-25, 25), self.free.uniform(0, 360)])

    def mirror(self) -> bool:
        """Whether the figure is drawn mirrored."""
        return self.free.random() < 0.5

    def require(self, holds: bool) -> None:
        """Give these parameters up unless the condition holds."""
        if not holds:
            raise Reject

    def finish(self, facts: Sequence[Fact], ask: Ask, scene: Scene, turn: float = 0.0, mirror: bool = False) -> Problem:
        """The problem, with what was drawn for it."""
        return Problem(list(facts), ask, scene, turn, mirror, givens=dict(self.givens), small=self.small)


def wrong(unit: str, *values: "Rational | Exact") -> tuple[str, ...]:
    """Texts of typical wrong answers; those that no pupil would write (not positive) are left out."""
    return tuple(with_unit(plain(value), unit) for value in values if float(value) > 0)


def description(text: str, *marks: Mark) -> Fact:
    """What the figure is: text, and marks where the picture says it with more than its lines."""
    return Fact("description", text, marks)


def property_(text: str, *marks: Mark) -> Fact:
    """Parallel, tangent, equal, perpendicular ...: text, and the marks that say it in the picture."""
    return Fact("property", text, marks)


def condition(text: str, *marks: Mark) -> Fact:
    """A length, an angle, an equation: text, and its label in the picture."""
    return Fact("condition", text, marks)
