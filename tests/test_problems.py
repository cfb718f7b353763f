"""What must hold of every generated problem: tests go through all families, slow ones through thousands of draws."""

import math
import re

import pytest

from problems import MODULES, families, pairs, solver
from problems.equations import EquationError, check_equations
from problems.exact import Answer
from problems.figure import NoLayout, random_style
from problems.problem import Reject

ALL = [(category, family) for category in MODULES for family in families(category)]
FAMILIES = pytest.mark.parametrize(("category", "family"), ALL, ids=[family.__name__ for _, family in ALL])
READ_ALL = ("text-only", "text-dominant", "text-lite", "vision-intensive", "vision-dominant", "vision-only")


def problems_of(category, family, count, small=False, seed="test"):
    """The first `count` problems of a family that are not rejected."""
    found, number = [], 0
    while len(found) < count:
        number += 1
        assert number < 400 * count, f"{family.__name__} rejects nearly everything"
        try:
            found.append(pairs.design(family, category, f"{seed}/{number}", small))
        except Reject:
            continue
    return found


@pytest.mark.parametrize("count", [8, pytest.param(250, marks=pytest.mark.slow)])
@FAMILIES
def test_the_answer_can_be_measured_off_the_figure(category, family, count):
    for problem in problems_of(category, family, count):
        solver.check(problem)


@FAMILIES
def test_a_wrong_answer_is_caught(category, family):
    """A formula that is off by little or by much does not pass the measurement, in any family."""
    for problem in problems_of(category, family, 4):
        right = problem.ask.answer
        for change in (lambda v: v + 1, lambda v: v * 1.001 + 1e-4, lambda v: v / 2 + 0.3):
            values = tuple(change(value) if math.isfinite(value) else value for value in right.values)
            object.__setattr__(problem.ask, "answer", Answer(right.text, values))
            with pytest.raises(solver.WrongProblem):
                solver.check(problem)
        object.__setattr__(problem.ask, "answer", right)


@pytest.mark.parametrize("count", [3, pytest.param(60, marks=pytest.mark.slow)])
@FAMILIES
def test_what_is_not_stated_does_not_change_the_answer(category, family, count):
    for problem in problems_of(category, family, count):
        for redraw in range(1, 4):
            try:
                other = pairs.design(family, category, problem.seed, False, givens=problem.givens, redraw=redraw)
            except Reject:
                continue
            assert other.ask.answer.values == pytest.approx(problem.ask.answer.values, rel=1e-9)
            assert other.key == problem.key


@FAMILIES
def test_text_and_picture_hold_all_facts_at_every_level(category, family):
    import random

    for problem in problems_of(category, family, 3):
        for level in dict.fromkeys((*pairs.LEVELS, *pairs.VERSIONS)):
            for seed in range(5):
                in_text, in_picture = pairs.carriers(problem, level, random.Random(seed))
                assert set(in_text) | set(in_picture or ()) == set(range(len(problem.facts))), level
                for number in set(in_picture or ()) - set(in_text):
                    fact = problem.facts[number]
                    assert fact.marks or fact.kind != "condition", f"no mark carries {fact.text!r}"


@pytest.mark.parametrize("count", [6, pytest.param(150, marks=pytest.mark.slow)])
@FAMILIES
def test_the_asked_quantity_is_not_given_away(category, family, count):
    for problem in problems_of(category, family, count):
        shown = " | ".join(solver.texts_of(problem))
        if re.fullmatch(r"-?\d+", problem.ask.answer.text):
            assert not re.search(rf"(?<![\d.\w-]){re.escape(problem.ask.answer.text)}(?![\d.\w√π/²³])", shown), shown


def boxes_touch(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def segment_enters(box, start, end):
    """Whether a segment enters a box, by clipping it (Liang and Barsky)."""
    low, high = 0.0, 1.0
    for k in (0, 1):
        step = end[k] - start[k]
        for edge, sign in ((box[k], -1), (box[k + 2], 1)):
            gap = sign * (edge - start[k])
            if abs(step) < 1e-12:
                if gap < 0:
                    return False
            elif sign * step > 0:
                high = min(high, gap / (sign * step))
            else:
                low = max(low, gap / (sign * step))
    return low < high


def assert_legible(picture):
    layout = picture.layout
    width, height = layout.size
    assert picture.image.size == (width, height)
    boxes = [box for _, box, _ in layout.labels]
    for number, (text, box, _) in enumerate(layout.labels):
        assert box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height, f"{text!r} leaves the canvas"
        for other in boxes[number + 1 :]:
            assert not boxes_touch(box, other), f"a label overlaps {text!r}"
        for points, _ in layout.strokes:
            for start, end in zip(points, points[1:], strict=False):
                assert not segment_enters(box, start, end), f"a line crosses {text!r}"
    assert all(13 <= angle <= 176 for angle in layout.angles)


@pytest.mark.parametrize("count", [2, pytest.param(60, marks=pytest.mark.slow)])
@FAMILIES
def test_every_picture_is_legible(category, family, count):
    """Checked on the final layout by geometry of its own, while the Plotter searches on pixels."""
    drawn = number = 0
    while drawn < count:
        number += 1
        try:
            example = pairs.construct(
                family, category, f"legible/{number}", small=False, picture_size=400, levels=pairs.LEVELS
            )
        except (Reject, NoLayout):
            assert number < 400 * count
            continue
        drawn += 1
        for version, picture in zip(example.versions, example.pictures, strict=True):
            if picture is None:
                continue
            assert_legible(picture)
            if version.level == "vision-only":
                scale = 384 / max(picture.layout.size)
                assert min(glyph * scale for _, _, glyph in picture.layout.labels) >= 11


def test_choices_are_balanced_and_hold_the_answer():
    import random

    letters = []
    for category, family in ALL:
        for problem in problems_of(category, family, 6):
            for seed in range(20):
                choices, letter = pairs.choose(problem, random.Random(f"{problem.key}/{seed}"))
                if choices:
                    assert len(set(choices)) == 4 and choices["ABCD".index(letter)] == problem.ask.answer.text
                    letters.append(letter)
    shares = [letters.count(letter) / len(letters) for letter in "ABCD"]
    assert len(letters) > 500 and max(shares) - min(shares) < 0.08


def test_there_are_enough_families_and_each_asks_several_things():
    assert len(families("plane_geometry")) >= 16
    assert len(families("solid_geometry")) >= 12
    assert len(families("functions")) >= 15
    for category, family in ALL:
        assert len({problem.ask.quantity for problem in problems_of(category, family, 30)}) >= 2, family.__name__


@pytest.mark.parametrize(
    "steps",
    [
        ["angle C = 180° - 40° = 130°"],
        ["x² - 3x = x(x - 2)"],
        ["V = πr²h = 10"],
        ["AB = 5", "AB = 6"],
        ["2u = 10", "u = 6"],
        ["AB = √20 = 4.47"],
        ["AB = √20 ≈ 4.48"],
        ["W + 2 = 3"],
    ],
)
def test_a_wrong_equation_is_found(steps):
    with pytest.raises(EquationError):
        check_equations(steps, {"r": 1, "h": 2})


def test_right_equations_are_read():
    steps = [
        "AB² = 3² + 4² = 25.",
        "AB = √25 = 5",
        "V = πr²h = π × 3² × 4 = 36π",
        "y = 3√2 ≈ 4.24",
        "log₂(8) = 3",
        "So 2u - 3 = 7, 2u = 10 and u = 5",
        "f(2) = 2 × 2 + 3 = 7",
        "|-3 + 1| = 2",
        "sin(30°) = 1/2",
    ]
    assert check_equations(steps, {"r": 3, "h": 4}) >= 10


def test_styles_keep_contrast():
    import random

    def luminance(colour):
        linear = [(c / 255) ** 2.2 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for seed in range(400):
        style = random_style(random.Random(seed), 400)
        for paper in (style.paper, style.fill):
            for ink in (style.ink, style.accent):
                bright, dark = sorted((luminance(paper), luminance(ink)), reverse=True)
                assert (bright + 0.05) / (dark + 0.05) >= 4.5
