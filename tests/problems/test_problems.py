"""What must hold of every generated problem: tests go through all families, slow ones through thousands of draws."""

import ast
import inspect
import math
import random
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from problems import evidence, pairs, solver, store
from problems.equations import EquationError, check_equations
from problems.exact import Answer
from problems.families import MODULES, families, plane_geometry
from problems.figure import random_style
from problems.problem import Reject
from problems.sheet import CLOSEST, SHARPEST, NoLayout

ALL = [(category, family) for category in MODULES for family in families(category)]
FAMILIES = pytest.mark.parametrize(("category", "family"), ALL, ids=[family.__name__ for _, family in ALL])


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


@pytest.mark.parametrize("count", [40, pytest.param(250, marks=pytest.mark.slow)])
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


SWAPPED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.Pow: ast.Mult}


def mutants(family, count):
    """The family with one formula changed: a sign swapped, a quotient turned over, a result off by one; `count` such
    changes drawn at random."""
    tree = ast.parse(inspect.getsource(family))
    looping = {id(node) for loop in ast.walk(tree) if isinstance(loop, ast.While) for node in ast.walk(loop)}
    nodes = [node for node in ast.walk(tree) if changed_field(node) and id(node) not in looping]  # no endless loops
    for node in random.Random(0).sample(nodes, min(count, len(nodes))):
        name, value = changed_field(node)
        before, old = ast.unparse(node), getattr(node, name)
        setattr(node, name, value)
        names = dict(vars(sys.modules[family.__module__]))
        exec(compile(ast.fix_missing_locations(tree), f"<{family.__name__}>", "exec"), names)
        yield f"{before} -> {ast.unparse(node)}", names[family.__name__]
        setattr(node, name, old)


def changed_field(node):
    """The field of a formula's node that a mutant changes, and its new value; None for other nodes."""
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
        return "op", SWAPPED[type(node.op)]()
    called = ast.unparse(node.func) if isinstance(node, ast.Call) and node.args else ""
    if called in ("Fraction", "math.atan2") and len(node.args) == 2:
        return "args", node.args[::-1]
    if called in ("number", "decimal", "point", "interval") and isinstance(node.args[0], ast.Starred):
        backwards = ast.parse(f"f(*({ast.unparse(node.args[0].value)})[::-1])", mode="eval").body
        return "args", [*backwards.args, *node.args[1:]]
    if called in ("number", "decimal", "point", "interval"):
        return "args", [ast.BinOp(node.args[0], ast.Add(), ast.Constant(1)), *node.args[1:]]
    return None


def stated(problem):
    """All that a reader is told: the same problem, whatever figure a mutant draws for it."""
    return [fact.text for fact in problem.facts] + [problem.ask.question]


def refused(problem):
    """Whether the measurement, and not only an equation, speaks against the answer."""
    try:
        solver.check(problem)
    except solver.WrongProblem as error:
        return "measured" in str(error)
    except LookupError:  # the curve has no such place at all
        return True
    return False


@pytest.mark.parametrize("count", [24, pytest.param(1000, marks=pytest.mark.slow)])
@FAMILIES
def test_a_changed_formula_is_caught(category, family, count):
    """The family's formulas are changed one at a time. Where that changes the answer to the same question, the
    measurement must refuse it: it cannot if it shares a formula with the Solver, or with what draws the figure."""
    right = [(problem, stated(problem)) for problem in problems_of(category, family, 8)]
    effective = 0
    for change, mutant in mutants(family, count):
        for problem, question in right:
            try:
                wrong = pairs.design(mutant, category, problem.seed, False)
                same = stated(wrong) == question and wrong.givens == problem.givens
            except (Reject, ArithmeticError, RuntimeError, TypeError, ValueError, LookupError, AttributeError):
                continue
            if not same or wrong.ask.answer.values == pytest.approx(problem.ask.answer.values, rel=1e-4, abs=1e-4):
                continue
            effective += 1
            assert refused(wrong), f"{change} passed: {problem.givens}"
            break
    assert effective or count < 1000, "no change of a formula altered an answer"


@FAMILIES
def test_askable_quantities_count_only_if_their_solutions_differ(category, family):
    """Solutions that differ in nothing but numbers and letters are one way of asking."""
    ways = {}
    for problem in problems_of(category, family, 40):
        shape = re.sub(r"√?\d+(\.\d+)?", "#", " | ".join(problem.ask.steps))
        shape = re.sub(r"∠|[Aa]ngle |[A-Z]+(?![a-z])", "N", shape)
        ways.setdefault(shape, set()).add(problem.ask.quantity)
    quantities = {quantity: {quantity} for known in ways.values() for quantity in known}
    for known in ways.values():  # quantities that share a solution are one
        together = set().union(*(quantities[quantity] for quantity in known))
        for quantity in together:
            quantities[quantity] = together
    assert len({frozenset(group) for group in quantities.values()}) >= 2


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
def test_the_text_alone_speaks_of_no_figure_and_asks_properly(category, family):
    """Stage 1 and the text-only rows have no picture; a question ends in a question mark, an order in a full stop."""
    for problem in problems_of(category, family, 24):
        text = pairs.word(problem, "text-only", random.Random(problem.seed), ()).instruction
        assert not re.search(r"\b(figure|picture|diagram|image|shaded|dashed|shown)\b", text), text
        for sentence in re.split(r"(?<=[.?]) (?=[A-Z])", problem.ask.question):
            is_question = re.search(r"^(What|Which|Where|How|\w+ (how|which))\b|, (what|how) ", sentence)
            assert sentence.endswith("?" if is_question else "."), sentence


@FAMILIES
def test_text_and_picture_hold_all_facts_at_every_level(category, family):
    for problem in problems_of(category, family, 3):
        for level in dict.fromkeys((*pairs.LEVELS, *pairs.VERSIONS)):
            for seed in range(5):
                in_text, in_picture = pairs.carriers(problem, level, random.Random(seed))
                assert set(in_text) | set(in_picture or ()) == set(range(len(problem.facts))), level
                for number in set(in_picture or ()) - set(in_text):
                    fact = problem.facts[number]
                    assert fact.marks or fact.kind != "condition", f"no mark carries {fact.text!r}"


@FAMILIES
def test_benchmark_versions_say_one_kind_of_fact_less_each(category, family):
    """As MathVerse: text-dominant says all, lite no description, intensive no property, dominant no condition."""
    silent = {"text-dominant": (), "text-lite": ("description",), "vision-intensive": ("description", "property"),
              "vision-dominant": ("description", "property", "condition")}
    for problem in problems_of(category, family, 6):
        for level, kinds in silent.items():
            in_text, _ = pairs.carriers(problem, level, None)
            assert set(in_text) == {k for k, fact in enumerate(problem.facts) if fact.kind not in kinds
                                    or not (fact.marks or fact.kind == "description")}, level


@pytest.mark.parametrize("count", [6, pytest.param(150, marks=pytest.mark.slow)])
@FAMILIES
def test_the_asked_quantity_is_not_given_away(category, family, count):
    for problem in problems_of(category, family, count):
        shown = " | ".join(solver.texts_of(problem))
        value = re.sub(r" (?:k?m|cm|km/h)[²³]?$", "", problem.ask.answer.text)  # with a unit or without
        assert not re.search(rf"(?<![\d.\w(√/-]){re.escape(value)}(?![\d\w√π/²³]|\.\d)", shown), (value, shown)


@FAMILIES
def test_what_is_stated_is_so_in_the_figure(category, family):
    """Every condition can be measured, at least in part, and a figure that breaks it is refused."""
    for problem in problems_of(category, family, 20):
        numbers = [list(evidence.measured(problem, fact)) for fact in problem.facts if fact.kind == "condition"]
        assert all(numbers) and not evidence.contradictions(problem)
        fact = next(fact for fact in problem.facts if fact.kind == "condition")
        number = problem.facts.index(fact)
        digits = re.compile(r"\d+(?=\D*$)")  # the last number of the fact and of its labels becomes another one

        def changed(text, digits=digits):
            return digits.sub(lambda match: str(int(match.group()) + 1), text)

        marks = tuple(replace(mark, text=changed(mark.text)) if getattr(mark, "text", "") else mark
                      for mark in fact.marks)
        problem.facts[number] = replace(fact, text=changed(fact.text), marks=marks)
        assert evidence.contradictions(problem), problem.facts[number]


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


def distance_to_line(point, start, end):
    along = (end[0] - start[0], end[1] - start[1])
    return abs(along[0] * (point[1] - start[1]) - along[1] * (point[0] - start[0])) / math.hypot(*along)


def distance_to_box(box, start, end):
    """The distance of a box from points set closely along a segment."""
    count = max(2, round(math.dist(start, end) / 2))
    places = [tuple(a + (b - a) * k / count for a, b in zip(start, end, strict=True)) for k in range(count + 1)]
    return min(math.hypot(max(box[0] - x, 0, x - box[2]), max(box[1] - y, 0, y - box[3])) for x, y in places)


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
    for box, (start, end) in layout.beside:
        own = distance_to_box(box, start, end)
        for line in layout.lines:
            for a, b in zip(line, line[1:], strict=False):
                if max(distance_to_line(point, start, end) for point in (a, b)) > 2.5:  # not on the segment's own line
                    assert distance_to_box(box, a, b) > own, "a size stands nearer to a foreign line"
    assert_roomy(layout, min(style_em for _, _, style_em in layout.labels) if layout.labels else 1)


def assert_roomy(layout, glyph):
    """The marked angles, the distances of named points and the angles between lines keep their bounds."""
    assert all(13 <= angle <= 176 for angle in layout.angles)
    points = list(layout.points.values())
    for number, point in enumerate(points):
        for other in points[:number]:
            assert math.dist(point, other) >= CLOSEST * glyph, "two points lie too close together"
    ends = [end for segment in layout.segments for end in (segment, segment[::-1])]
    for number, (corner, far) in enumerate(ends):
        for other_corner, other_far in ends[:number]:
            if math.dist(corner, other_corner) > 1e-6:
                continue
            turn = math.degrees(math.atan2(far[1] - corner[1], far[0] - corner[0])
                                - math.atan2(other_far[1] - corner[1], other_far[0] - corner[0]))
            turn = abs((turn + 180) % 360 - 180)
            assert turn < 1e-4 or turn >= SHARPEST - 1e-6, f"two lines nearly cover each other: {turn}°"


@pytest.mark.parametrize("count", [2, pytest.param(200, marks=pytest.mark.slow)])
@FAMILIES
def test_every_picture_is_legible(category, family, count):
    """Checked on the final layout by geometry of its own, while the Plotter searches on pixels."""
    drawn = number = 0
    while drawn < count:
        number += 1
        try:
            example = pairs.construct(family, category, f"legible/{number}", small=False, picture_size=400,
                                      levels=pairs.LEVELS)
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


def test_the_family_in_the_readme_makes_problems():
    (source,) = re.findall(r"```python\n(.*?)```", Path("problems/README.md").read_text(encoding="utf-8"), re.DOTALL)
    names = dict(vars(plane_geometry))  # it is written as a function of such a file
    exec(compile(source, "problems/README.md", "exec"), names)
    made = 0
    for seed in range(20):
        try:  # solved, measured, its equations checked, drawn in all six versions
            example = pairs.construct(names["square_diagonal"], "plane_geometry", str(seed), small=False,
                                      picture_size=400, levels=pairs.VERSIONS)
        except Reject:  # the answer happened to stand in the text
            continue
        assert example.problem.ask.answer.text in example.response and len(example.pictures) == 6
        made += 1
    assert made > 12


def test_there_are_enough_families_and_each_asks_several_things():
    assert len(families("plane_geometry")) >= 16
    assert len(families("solid_geometry")) >= 12
    assert len(families("functions")) >= 15
    for category, family in ALL:
        assert len({problem.ask.quantity for problem in problems_of(category, family, 30)}) >= 2, family.__name__


@pytest.mark.parametrize("steps", [
    ["angle C = 180° - 40° = 130°"], ["x² - 3x = x(x - 2)"], ["V = πr²h = 10"], ["AB = 5", "AB = 6"],
    ["2u = 10", "u = 6"], ["AB = √20 = 4.47"], ["AB = √20 ≈ 4.48"], ["W + 2 = 3"],
])
def test_a_wrong_equation_is_found(steps):
    with pytest.raises(EquationError):
        check_equations(steps, {"r": 1, "h": 2})


def test_right_equations_are_read():
    steps = [
        "AB² = 3² + 4² = 25.", "AB = √25 = 5", "V = πr²h = π × 3² × 4 = 36π", "y = 3√2 ≈ 4.24", "log₂(8) = 3",
        "So 2u - 3 = 7, 2u = 10 and u = 5", "f(2) = 2 × 2 + 3 = 7", "|-3 + 1| = 2", "sin(30°) = 1/2"
    ]
    assert check_equations(steps, {"r": 3, "h": 4}) >= 10


def test_choices_are_read_back():
    assert pairs.choices_of("Find x.\nA: 12 cm\nB: x = 3\nC: (1, 2)\nD: √3/2") == ("12 cm", "x = 3", "(1, 2)", "√3/2")
    assert pairs.choices_of("In triangle ABC, A: B is 2. Find C.") == ()


def test_styles_keep_contrast():
    def luminance(colour):
        linear = [(c / 255) ** 2.2 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for seed in range(400):
        style = random_style(random.Random(seed), 400)
        for paper in (style.paper, style.fill):
            for ink in (style.ink, style.accent):
                bright, dark = sorted((luminance(paper), luminance(ink)), reverse=True)
                assert (bright + 0.05) / (dark + 0.05) >= 4.5


def test_a_family_that_runs_out_leaves_its_places_to_others(monkeypatch):
    monkeypatch.setattr(store, "PATIENCE", 60)

    def walked(*names):
        plan = store.Plan(0, 600, 0, {"solid_geometry": names}, (), 400, False, 1)
        counts = Counter()
        return Counter(item.family for item in store.walk(plan, counts)), counts

    shared, counts = walked("cube", "cuboid")
    places = store.with_spares(600, store.SPARES)
    assert sum(shared.values()) == places and shared["cube"] < 290
    assert counts["exhausted cube"] == 1
    alone, counts = walked("cube")  # ends, and says so, where nobody is left
    assert 0 < alone["cube"] < 290 and counts["exhausted cube"] == 1
