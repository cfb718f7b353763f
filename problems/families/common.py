"""What several families write: a stated length, a plain question, how the Solver measures its answer."""

from collections.abc import Callable, Sequence

from problems.exact import Answer, Exact, Rational
from problems.problem import Ask, Draw, Fact, condition
from problems.scene import Length, Scene


def length_fact(start: str, end: str, size: str) -> Fact:
    """A stated length between two named points: "AB = 5 cm" in the text, "5 cm" beside the line in the picture."""
    return condition(f"{start}{end} = {size}", Length(start, end, size))


def measuring(quantity: Callable[..., float], *places: object) -> Callable[[Scene], float]:
    """For `Ask.measure`: a function of problems/measure.py at fixed places, `measuring(measure.angle, A, B, C)`."""
    return lambda scene: quantity(scene, *places)


def find(draw: Draw, asked: str, what: str, answer: Answer, steps: Sequence[str],
         measure: Callable[[Scene], float | tuple[float, ...]], mistakes: tuple[str, ...] = (),
         symbols: dict[str, float] | None = None) -> Ask:
    """A question in one of the forms Find ... / What is ...? / Calculate ...; `what` comes with its article."""
    question = draw.say(f"Find {what}.", f"What is {what}?", f"Calculate {what}.")
    return Ask(asked, question, f"Find {what}", answer, tuple(steps), measure, mistakes, symbols or {})


def bracketed(value: Rational | Exact) -> str:
    """A number as it stands in a product or under a fraction stroke: a fraction in brackets."""
    return f"({value})" if "/" in str(value) else str(value)
