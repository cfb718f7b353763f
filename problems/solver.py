"""The Solver's conscience: an answer is kept only when facts and answer can be measured off the figure and every
equation holds.

Also here: the written solution of a problem, and the rule that what is asked for must not be given away.
"""

import re

from problems.equations import EquationError, check_equations
from problems.evidence import contradictions
from problems.problem import Problem, Reject

TOLERANCE = 1e-6
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\d.]*[√π/²³]|\w)")
_REPEATED = re.compile(r"= ([^=≈,;:]*[^=≈,;:. ])(?: = \1)+(?=$|[.,;]| so| and)")  # y = 5/2 = 5/2


class WrongProblem(Exception):
    """A family's answer or solution is wrong: a defect of the family, never of the draw."""


def check(problem: Problem) -> None:
    """Hold the facts and the answer against the measured figure and check every equation of the solution.

    Raises:
        WrongProblem: they disagree; the message names the family, its parameters and both values.
    """
    if wrong := contradictions(problem):
        raise WrongProblem(f"{_where(problem)}: measured otherwise: {'; '.join(wrong)}")
    measured = problem.ask.measure(problem.scene)
    measured = measured if isinstance(measured, tuple) else (measured,)
    values = problem.ask.answer.values
    if len(measured) != len(values) or not all(_close(m, v) for m, v in zip(measured, values, strict=True)):
        raise WrongProblem(f"{_where(problem)}: solved {values} ({problem.ask.answer.text}), measured {measured}")
    try:
        checked = check_equations(problem.ask.steps, problem.ask.symbols)
    except EquationError as error:
        raise WrongProblem(f"{_where(problem)}: {error}") from error
    if not checked:
        raise WrongProblem(f"{_where(problem)}: no equation of the solution could be checked")


def _close(a: float, b: float) -> bool:
    return a == b or abs(a - b) <= TOLERANCE * max(1.0, abs(b))


def _where(problem: Problem) -> str:
    return f"{problem.family} {problem.givens} seed {problem.seed}"


def solution(problem: Problem) -> str:
    """The written solution, without its last line; only the equations where numbers are to be small."""
    steps = [step for step in problem.ask.steps if not problem.small or re.search("[=≈]", step)]
    return "\n".join(_REPEATED.sub(r"= \1", step) for step in steps)


def texts_of(problem: Problem) -> list[str]:
    """Every text that a reader of the problem may see at some level: clauses of facts, labels, the question."""
    marks = [mark for fact in problem.facts for mark in fact.marks] + problem.scene.base
    texts = [fact.text for fact in problem.facts] + [problem.ask.question, problem.ask.short]
    return texts + [mark.text for mark in marks if hasattr(mark, "text")]


def require_hidden_answer(problem: Problem) -> None:
    """Reject a problem in which a number that is stated or labelled equals the answer, by chance or otherwise."""
    answer = problem.ask.answer
    for text in texts_of(problem):
        if len(answer.values) == 1:
            stated = {abs(float(item)) for item in _NUMBER.findall(text)}
            if abs(answer.values[0]) in stated and not re.search(r"[√π]", answer.text):
                raise Reject
        if len(answer.text) > 2 and re.search(rf"(?<![\w(]){re.escape(answer.text)}(?!\w)", text):
            raise Reject
