"""The Question Designer and the Pair Constructor: which carrier, text or picture, holds which fact.

Four levels in training, the most textual first: text-only, text-dominant, vision-dominant, vision-only.
Six versions in the benchmark, as MathVerse has them. At every one of them the facts in the text and the facts in the
picture together are the same set, and the solution is the same.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from problems import solver
from problems.figure import Picture, plot, random_style
from problems.problem import Draw, Problem, Reject
from problems.scene import Mark, Name
from problems.sheet import NoLayout, Style

LEVELS = ("text-only", "text-dominant", "vision-dominant", "vision-only")  # most textual first
VERSIONS = ("text-only", "text-dominant", "text-lite", "vision-intensive", "vision-dominant", "vision-only")
LETTERS = "ABCD"
NBSP = "\u00a0"  # keeps a choice in one piece when lines are broken
LOOK = ("Solve the problem in the picture.", "Answer the question that is written in the picture.",
        "The picture states a problem. Solve it.", "Read the problem in the image and solve it step by step.")
POINTERS = ("", "", "Look at the figure. ", "Some of the data are in the figure. ", "Use the figure. ")


@dataclass(frozen=True)
class Version:
    """One version of a problem: what its text says, and the facts that its picture holds (None: no picture)."""

    level: str
    instruction: str
    question: str
    in_text: tuple[int, ...]
    in_picture: tuple[int, ...] | None
    picture_question: str = ""


# ---------------------------------------------------------------------------------------------------------------------
# Question Designer


def design(family: Callable[[Draw], Problem], category: str, seed: str, small: bool, **replay: object) -> Problem:
    """Draw a problem of a family from a seed, and check that it does not give its answer away.

    Raises:
        Reject: the parameters drawn make no good problem.
    """
    draw = Draw(f"{seed}/{family.__name__}", small, **replay)
    problem = family(draw)
    problem.family, problem.category, problem.seed = family.__name__, category, seed
    solver.require_hidden_answer(problem)
    return problem


def carriers(problem: Problem, level: str,
             free: random.Random | None) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """The facts in the text and the facts whose marks stand in the picture, by number.

    free: the middle levels of training vary, a fact or two change their carrier; None: as the benchmark has them, where
    text-dominant says everything, and each further version says one kind of fact less.
    """
    facts = range(len(problem.facts))
    kind = [fact.kind for fact in problem.facts]
    drawable = [bool(fact.marks) or fact.kind == "description" for fact in problem.facts]
    if level == "text-only":
        return tuple(facts), None
    if level == "vision-only":
        in_picture = set(facts)
    elif level == "text-dominant" and free is None:
        in_picture = set()
    elif level == "text-dominant":
        in_picture = {k for k in facts if kind[k] == "property" and free.random() < 0.3}
        data = [k for k in facts if kind[k] == "condition"]
        in_picture |= {k for k in data if free.random() < 0.15} if len(data) > 2 else set()
        return tuple(k for k in facts if k not in in_picture), tuple(k for k in facts if k in in_picture)
    elif level == "text-lite":
        in_picture = {k for k in facts if kind[k] == "description"}
    elif level == "vision-intensive":
        in_picture = {k for k in facts if kind[k] != "condition"}
    elif level == "vision-dominant":
        data = [k for k in facts if kind[k] != "description"]
        kept = {k for k in data if free is not None and len(data) > 1 and free.random() < 0.2}
        kept = set() if len(kept) * 2 > len(data) else kept
        in_picture = {k for k in facts if k not in kept}
    else:
        raise ValueError(f"unknown level {level!r}")
    in_picture = {k for k in in_picture if drawable[k]}
    return tuple(k for k in facts if k not in in_picture), tuple(sorted(in_picture))


def word(problem: Problem, level: str, free: random.Random, choices: tuple[str, ...],
         benchmark: bool = False) -> Version:
    """Word one version of the problem, as training or as the benchmark has it."""
    in_text, in_picture = carriers(problem, level, None if benchmark else free)
    options = [f"{letter}: {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    if level == "vision-only":
        question = problem.ask.short if problem.small else problem.ask.question
        in_line = "\n" + " ".join(option.replace(" ", NBSP) for option in options) if options else ""
        look = LOOK[0] if problem.small else free.choice(LOOK)
        return Version(level, look, "", in_text, in_picture, question + in_line)
    given = [problem.facts[k] for k in in_text]
    text = "".join(sentence(fact.text) + " " for fact in given if fact.kind == "description")
    text += join([fact.text for fact in given if fact.kind != "description"], problem.small, free)
    if level == "vision-dominant" and not problem.small:
        text = free.choice(POINTERS) + text
    text += "\n".join([problem.ask.question, *options])
    return Version(level, text, problem.ask.question, in_text, in_picture)


def choices_of(instruction: str) -> tuple[str, ...]:
    """The texts of the choices that `word` has set under a question; none where it has none."""
    return tuple(re.findall(rf"^[{LETTERS}]: (.*)$", instruction, re.MULTILINE))


def join(clauses: list[str], small: bool, free: random.Random) -> str:
    """Clauses as sentences, or two or more of them as one."""
    if not clauses:
        return ""
    if len(clauses) > 1 and (small or free.random() < 0.6):
        return sentence(", ".join(clauses[:-1]) + f" and {clauses[-1]}") + " "
    return "".join(sentence(clause) + " " for clause in clauses)


def sentence(clause: str) -> str:
    """A clause with its full stop, and with a capital where it begins with a word and not with a symbol."""
    if re.match(r"[a-z]{2,}[ ,]", clause):
        clause = clause[0].upper() + clause[1:]
    return clause + "."


def choose(problem: Problem, free: random.Random) -> tuple[tuple[str, ...], str]:
    """Four choices for a third of the problems that know typical mistakes: the texts, and the right letter."""
    mistakes = list(dict.fromkeys(text for text in problem.ask.mistakes if text != problem.ask.answer.text))
    if problem.small or len(mistakes) < 3 or free.random() > 0.35:
        return (), ""
    wrong = free.sample(mistakes, 3)
    letter = free.choice(LETTERS)
    wrong.insert(LETTERS.index(letter), problem.ask.answer.text)
    return tuple(wrong), letter


# ---------------------------------------------------------------------------------------------------------------------
# Plotter


def draw_version(problem: Problem, version: Version, style: Style, free: random.Random) -> Picture | None:
    """The picture of a version; raises NoLayout where no legible one exists for these free choices."""
    if version.in_picture is None:
        return None
    return plot(problem.scene, marks_of(problem, version), style, turn=problem.turn, mirror=problem.mirror,
                question=version.picture_question, below=free.random() < 0.3 and not problem.small)


def marks_of(problem: Problem, version: Version) -> list[Mark]:
    """The base of the figure and the marks of the facts that the picture carries.

    A point whose coordinates only the text states keeps its name in the picture: the text speaks of it by that name.
    """
    shown = set(version.in_picture or ())
    marks = problem.scene.base + [mark for k in sorted(shown) for mark in problem.facts[k].marks]
    if problem.small:
        return marks
    stated = [mark for k, fact in enumerate(problem.facts) if k not in shown for mark in fact.marks]
    return marks + [
        Name(mark.at, mark.at, italic=False)
        for mark in stated
        if isinstance(mark, Name) and isinstance(mark.at, str) and mark.text.startswith(f"{mark.at}(")
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Pair Constructor


@dataclass
class Example:
    """A problem in several versions, solved and drawn."""

    problem: Problem
    versions: list[Version]
    pictures: list[Picture | None]
    choices: tuple[str, ...]
    letter: str
    text_only: str  # the whole problem as text, for stage 1

    @property
    def answer(self) -> str:
        """The right letter where there are choices, else the answer's text."""
        return self.letter or self.problem.ask.answer.text

    @property
    def response(self) -> str:
        """The solution and the line that states the answer."""
        return f"{solver.solution(self.problem)}\nAnswer: {self.answer}"


def construct(family: Callable[[Draw], Problem], category: str, seed: str, *, small: bool, picture_size: int,
              levels: tuple[str, ...] = (), attempts: int = 40) -> Example:
    """Design, solve and draw one problem in the versions asked for; by default a pair of two levels drawn at random;
    levels are the benchmark's.

    The parameters stay those of the seed; where no legible picture is found, only what is free is drawn again.

    Raises:
        Reject: the parameters make no good problem.
        NoLayout: no legible picture in so many attempts.
    """
    problem = design(family, category, seed, small)
    for redraw in range(attempts):
        if redraw:
            try:
                problem = design(family, category, seed, small, givens=problem.givens, redraw=redraw)
            except Reject:  # these free choices do not go with the parameters
                continue
        free = random.Random(f"{seed}/design/{redraw}")
        pair = levels or tuple(LEVELS[k] for k in sorted(free.sample(range(len(LEVELS)), 2)))
        choices, letter = choose(problem, free)
        style = random_style(free, picture_size)
        versions = [word(problem, level, free, choices, benchmark=bool(levels)) for level in pair]
        try:
            # the fullest picture first: it is the one that most often finds no place for a label
            pictures = [draw_version(problem, version, style, free) for version in reversed(versions)][::-1]
        except NoLayout:
            continue
        solver.check(problem)
        text_only = word(problem, "text-only", free, choices).instruction
        return Example(problem, versions, pictures, choices, letter, text_only)
    raise NoLayout(f"{family.__name__} {problem.givens}: no legible picture in {attempts} attempts")


def caption(example: Example) -> str:
    """What the picture of the last version shows, in words."""
    version, facts = example.versions[-1], example.problem.facts
    clauses = [fact.text for fact in facts if fact.kind == "description"]
    clauses += [facts[k].text for k in version.in_picture or ()]
    text = " ".join(sentence(clause) for clause in dict.fromkeys(clauses))
    if version.picture_question:
        text += f' The question reads: "{version.picture_question}"'.replace("\n", " ").replace(NBSP, " ")
    return text
