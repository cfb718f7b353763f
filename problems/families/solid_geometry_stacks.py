"""Solid geometry: stacks of unit cubes. Each public function is a family of problems."""

import math

from problems import measure
from problems import scene as s
from problems.exact import number
from problems.problem import Ask, Draw, Problem, condition, description, wrong
from problems.scene import Point, Scene, Shade


def cube_stack(draw: Draw) -> Problem:
    """Unit cubes stacked in a corner: how many there are, how many are missing to a box, the surface of the stack."""
    columns, rows = draw.given("columns", (2, 3, 4)), draw.given("rows", (2, 3))
    heights = [[0] * rows for _ in range(columns)]
    for x in range(columns):
        for y in range(rows):  # never higher than the columns behind, so every column can be seen
            limit = min([4] + ([heights[x][y - 1]] if y else []) + ([heights[x - 1][y]] if x else []))
            heights[x][y] = draw.given(f"h{x}{y}", [*range(1, limit + 1), limit])
    asked = draw.asked("count", "missing", "surface")
    total, highest = sum(map(sum, heights)), heights[0][0]
    # Column (0, 0) stands in the far corner; the viewer looks from the side of large x and y.
    projection = s.orthographic(draw.free.uniform(35, 55), draw.free.uniform(28, 36))
    base: list[s.Mark] = []
    faces: list[tuple[Point, ...]] = []
    for x in range(columns):
        for y in range(rows):
            for z in range(heights[x][y]):
                faces += _cube_faces(heights, x, y, z)
    for face in faces:
        normal = s.cross(s.sub(face[1], face[0]), s.sub(face[2], face[1]))
        if s.dot(normal, projection.towards_viewer) > 1e-9:
            base += [Shade(face, darker=normal[1] > 0.5)] if normal[2] < 0.5 else []
            base += s.sides(list(face))
    scene = Scene(base=list(dict.fromkeys(base)), projection=projection, faces=faces)
    rows_text = "; ".join(" ".join(str(heights[x][y]) for x in range(columns)) for y in range(rows))
    facts = [description("Equal cubes with edges of length 1 are stacked in the corner of a "
                         "room; no cube floats, and no column is higher than one behind it"),
             condition(f"from the back row to the front row, the columns have these numbers of cubes: {rows_text}",
                       *base[:1])]
    sums = [" + ".join(str(heights[x][y]) for x in range(columns)) for y in range(rows)]
    row_totals = [sum(heights[x][y] for x in range(columns)) for y in range(rows)]
    counted = (*(f"Row {'one two three'.split()[y]} has {text} = {value} cubes."
                 for y, (text, value) in enumerate(zip(sums, row_totals, strict=True))),
               f"Together = {' + '.join(map(str, row_totals))} = {total}")
    if asked == "count":
        ask = Ask(asked, draw.say("How many cubes are there?", "How many cubes does the stack have?"),
                  "How many cubes?", number(total), counted, measure.mesh_volume,
                  wrong("", total - 1, total + 1, total - 2, total + 2))
    elif asked == "missing":
        box = columns * rows * highest
        steps = (*counted, f"The box has {columns} × {rows} × {highest} = {box} places.",
                 f"Missing = {box} - {total} = {box - total}")
        draw.require(box > total)
        ask = Ask(asked,
                  f"How many more cubes fill it up to a solid box {columns} wide, {rows} deep and {highest} high?",
                  f"Cubes missing to a {columns} × {rows} × {highest} box?", number(box - total), steps,
                  lambda at: _bounding_volume(at) - measure.mesh_volume(at),
                  wrong("", total, box - total + 1, box - total + 2, box - total - 1))
    else:
        visible = _surface(heights)
        steps = _surface_steps(heights, visible)
        ask = Ask(asked, "What is the whole surface area of the stack, its underside included?",
                  "Whole surface area, with the underside?", number(visible), steps, measure.mesh_surface,
                  wrong("", 6 * total, visible - columns * rows, total, visible + 2))
    return draw.finish(facts, ask, scene)


def _cube_faces(heights: list[list[int]], x: int, y: int, z: int) -> list[tuple[Point, ...]]:
    """The faces of one cube of a stack that no other cube covers, anticlockwise from outside."""

    def filled(i: int, j: int, k: int) -> bool:
        return 0 <= i < len(heights) and 0 <= j < len(heights[0]) and 0 <= k < heights[i][j]

    sides = {(1, 0, 0): ((1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1)),
             (-1, 0, 0): ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0)),
             (0, 1, 0): ((0, 1, 0), (0, 1, 1), (1, 1, 1), (1, 1, 0)),
             (0, -1, 0): ((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)),
             (0, 0, 1): ((0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)),
             (0, 0, -1): ((0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0))}
    return [tuple((float(x + a), float(y + b), float(z + c)) for a, b, c in square)
            for (i, j, k), square in sides.items() if not filled(x + i, y + j, z + k)]


def _bounding_volume(at: Scene) -> float:
    spans = [[corner[k] for face in at.faces for corner in face] for k in range(3)]
    return math.prod(max(span) - min(span) for span in spans)


def _surface(heights: list[list[int]]) -> int:
    columns, rows = len(heights), len(heights[0])
    return 2 * columns * rows + 2 * sum(heights[0]) + 2 * sum(column[0] for column in heights)


def _surface_steps(heights: list[list[int]], surface: int) -> tuple[str, ...]:
    columns, rows = len(heights), len(heights[0])
    back, side = sum(column[0] for column in heights), sum(heights[0])
    return ("No column is hidden, so opposite views show the same area.",
            f"Top and bottom show {columns} × {rows} = {columns * rows} squares each.",
            f"Front and back show {' + '.join(str(column[0]) for column in heights)} = {back} squares each.",
            f"Left and right show {' + '.join(map(str, heights[0]))} = {side} squares each.",
            f"Surface = 2 × ({columns * rows} + {back} + {side}) = {surface}")
