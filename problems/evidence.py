"""Holds what is given against the figure: every size, angle, point and equation that a fact states is measured in it.

The Solver reasons from the facts and the measurer reads the answer off the figure. The two prove something only if
the facts are true of that figure, so a family that draws another figure than the one it describes is found here.
"""

import math
import re
from collections.abc import Iterator

from problems import measure
from problems import scene as s
from problems.equations import EquationError, evaluate
from problems.problem import Fact, Problem
from problems.scene import Scene

TOLERANCE = 1e-6
_UNIT = re.compile(r" (?:cm|m|km)[²³]?$")
_POINT = re.compile(r"(\w)\((-?\d+), (-?\d+)\)")


def contradictions(problem: Problem) -> list[str]:
    """What the facts or the marks say and the figure does not bear out; empty for a sound problem."""
    try:
        return _untrue(problem) + _unequal(problem) + _astray(problem.scene)
    except EquationError as error:  # a point outside the domain of its own curve's equation
        return [str(error)]


def _untrue(problem: Problem) -> list[str]:
    """Numbers that are stated otherwise than they are drawn."""
    return [
        f"{what} is stated as {stated:.9g} and drawn as {drawn:.9g}"
        for fact in problem.facts
        for what, stated, drawn in measured(problem, fact)
        if abs(stated - drawn) > TOLERANCE * max(1.0, abs(stated))
    ]


def measured(problem: Problem, fact: Fact) -> Iterator[tuple[str, float, float]]:
    """(what, its stated value, its value in the figure) for all numbers of a fact that can be measured."""
    scene, letters = problem.scene, {"x": problem.ask.answer.values[0]}  # an unknown angle is (3x + 5)°, asked is x
    for mark in fact.marks:
        if isinstance(mark, s.Length | s.Dimension):
            yield fact.text, _number(mark.text, letters), measure.distance(scene, mark.start, mark.end)
        elif isinstance(mark, s.Angle) and mark.text:
            drawn = measure.angle(scene, mark.first, mark.vertex, mark.last)
            yield fact.text, math.degrees(_number(mark.text, letters)), drawn
        elif isinstance(mark, s.RightAngle):
            yield fact.text, 90.0, measure.angle(scene, mark.first, mark.vertex, mark.last)
        elif isinstance(mark, s.CurveName):
            yield from _on_curve(mark, letters)
        elif isinstance(mark, s.Note):
            yield from _noted(scene, fact.text, mark.text)
    if stack := re.search(r"numbers of cubes: (.*)", fact.text):
        for y, row in enumerate(stack.group(1).split("; ")):
            for x, stated in enumerate(row.split()):
                yield f"column {x} of row {y}", float(stated), _column(scene, x, y)
    for name, x, y in _POINT.findall(" ".join([fact.text, *(m.text for m in fact.marks if isinstance(m, s.Name))])):
        if name in scene.points:
            yield from zip((f"x of {name}", f"y of {name}"), (float(x), float(y)), scene.points[name], strict=True)


def _column(scene: Scene, x: int, y: int) -> float:
    """How high the cubes stand on the unit square with the least corner (x, y)."""
    tops = [face[0][2] for face in scene.faces if min(face)[:2] == (x, y) and max(face)[:2] == (x + 1, y + 1)]
    return max(tops)


def _number(text: str, letters: dict[str, float]) -> float:
    return evaluate(_UNIT.sub("", text).lstrip("0"), letters)  # a bearing is written 045°


def _on_curve(mark: s.CurveName, letters: dict[str, float]) -> Iterator[tuple[str, float, float]]:
    """Points of a labelled curve put into its equation, or into its inequality as where that is an equality."""
    left, sign, right = re.fullmatch(r"(.*?)(?: ?([=≤]) ?(.*))?", mark.text).groups()
    if sign is None:  # the length of an arc: the points are evenly spaced on the middle three fifths of it
        steps = [math.dist(a, b) for a, b in zip(mark.points, mark.points[1:], strict=False)]
        turn = math.acos(_cosine(*mark.points[:3]))  # of one chord against the next
        yield "arc", _number(left, letters), sum(steps) / 0.6 * (turn / 2) / math.sin(turn / 2)
    elif "c × b" not in right:
        for x, y in mark.points[:: max(1, len(mark.points) // 5)]:
            known = {"x": x, "y": y, "f(x)": y, "g(x)": y}
            yield mark.text, evaluate(right, known), evaluate(left, known)


def _cosine(a: s.Point, b: s.Point, c: s.Point) -> float:
    u, v = s.sub(b, a), s.sub(c, b)
    return s.dot(u, v) / s.norm(u) / s.norm(v)


def _noted(scene: Scene, text: str, note: str) -> Iterator[tuple[str, float, float]]:
    """The sizes that no single mark can carry: volumes, surfaces, areas, perimeters, whole chords, bearings."""
    value = re.search(r"(?<![A-Z])(?:√?\d[\d√π/]*|π)", note)
    if value is None:
        return
    stated = evaluate(value.group(), {})
    corners = "".join(name for name in scene.points if len(name) == 1)
    if note.startswith("V "):
        yield note, stated, measure.mesh_volume(scene) if scene.faces else measure.revolution_volume(scene)
    elif note.startswith("surface area"):
        yield note, stated, measure.mesh_surface(scene)
    elif note.startswith("area of the ring"):
        outer, inner = (measure.disc_area(radius) for _, radius in scene.circles.values())
        yield note, stated, outer - inner
    elif note.startswith("area"):
        named = re.search(r"[A-Z]{3,}", text).group()
        yield note, stated, measure.area(scene, named)
    elif note.startswith("perimeter"):
        yield note, stated, measure.perimeter(scene, corners)
    elif chord := re.match(r"([A-Z])([A-Z]) =", note):
        yield note, stated, measure.distance(scene, *chord.groups())
    elif way := re.match(r"bearing of (\w) from (\w)", note):
        east, north = s.sub(scene.at(way.group(1)), scene.at(way.group(2)))
        yield note, stated, math.degrees(math.atan2(east, north)) % 360


def _unequal(problem: Problem) -> list[str]:
    """Marks that call lengths or angles equal, or lines parallel, which are not."""
    scene = problem.scene
    marks = scene.base + [mark for fact in problem.facts for mark in fact.marks]
    lengths: dict[int, list[float]] = {}
    angles: dict[int, list[float]] = {}
    ways: dict[int, list[float]] = {}
    for mark in marks:
        if isinstance(mark, s.Ticks):
            lengths.setdefault(mark.count, []).append(measure.distance(scene, mark.start, mark.end))
        elif isinstance(mark, s.Angle) and not mark.text and mark.arcs:
            angles.setdefault(mark.arcs, []).append(measure.angle(scene, mark.first, mark.vertex, mark.last))
        elif isinstance(mark, s.ParallelArrows):
            x, y = s.sub(scene.at(mark.end), scene.at(mark.start))
            ways.setdefault(mark.count, []).append(math.degrees(math.atan2(y, x)) % 180)
    found = []
    for what, groups in (("ticks", lengths), ("arcs", angles), ("parallel arrows", ways)):
        for sizes in groups.values():
            spread = max(sizes) - min(sizes)
            if spread > TOLERANCE * max(1.0, max(sizes)) and not (groups is ways and abs(spread - 180) < TOLERANCE):
                found.append(f"{what} on {min(sizes):.9g} and {max(sizes):.9g}")
    return found


def _astray(scene: Scene) -> list[str]:
    """Named points of a graph that its curve misses, and named points beside circles that are drawn through them."""
    found = []
    for name, point in scene.points.items():
        if scene.functions.keys() == {"f"}:
            near = (scene.functions["f"](point[0] + shift) for shift in (0.0, -1e-9, 1e-9))  # beside a jump too
            if not any(abs(value - point[1]) <= TOLERANCE * max(1.0, abs(value)) for value in near):
                found.append(f"{name} does not lie on the curve")
        misses = [abs(math.dist(point, center) - radius) for center, radius in scene.circles.values()]
        centers = [center for center, _ in scene.circles.values()]
        if misses and point not in centers and min(misses) > TOLERANCE:
            found.append(f"{name} does not lie on the circle")
    return found
