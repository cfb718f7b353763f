"""Plane geometry: polygons, grids, maps, shadows. Each public function is a family of problems."""

import math
from fractions import Fraction

from problems import measure
from problems import scene as s
from problems.exact import number, sqrt
from problems.families.common import measuring
from problems.problem import Ask, Draw, Problem, condition, description, wrong
from problems.scene import Angle, Axes, Dot, Length, Name, RightAngle, Scene, Segment


def polygon_angles(draw: Draw) -> Problem:
    """Angles of a quadrilateral or pentagon: the last angle from the others; a regular polygon's angle."""
    asked = draw.asked("last angle", "unknown")
    corners = draw.given("corners", (4, 4, 5))
    given = [draw.degrees(f"angle {k}", 55, 135) for k in range(corners - 1)]
    total = 180 * (corners - 2)
    rest = total - sum(given)
    draw.require(50 <= rest <= 150)
    row = draw.letters(corners)
    points = _closed_polygon(row, [rest, *given], draw)
    drawing = s.sides(row) + s.names(row)
    word, kind = draw.angle_word, {4: "quadrilateral", 5: "pentagon"}[corners]
    facts = [description(f"{''.join(row)} is a {kind}")]
    for k, degrees in enumerate(given, start=1):
        place = (row[k - 1], row[k], row[(k + 1) % corners])
        facts.append(condition(f"{word}{row[k]} = {degrees}°", Angle(*place, f"{degrees}°")))
    A, B, Z = row[0], row[1], row[-1]
    summed = " + ".join(f"{degrees}°" for degrees in given)
    steps = (f"The angles of a {kind} add up to {corners - 2} × 180° = {total}°.",
             f"The known angles make {summed} = {sum(given)}°.", f"∠{A} = {total}° - {sum(given)}° = {rest}°")
    if asked == "last angle":
        ask = Ask(asked, draw.say(f"Find angle {A}.", f"What is the size of {word}{A}?"), f"Find angle {A}",
                  number(rest, "°"), steps, lambda at: measure.angle(at, Z, A, B),
                  wrong("°", abs(540 - 180 * (corners == 5) - sum(given)), sum(given) - 180, rest + 20, 180 - rest))
    else:
        offset, factor = draw.given("offset", range(5, 41, 5)), draw.given("factor", (2, 3, 4))
        draw.require((rest - offset) % factor == 0)
        x = (rest - offset) // factor
        term = f"({factor}x + {offset})°"
        facts.append(condition(f"{word}{A} = {term}", Angle(Z, A, B, term)))
        steps = (*steps, f"{factor}x + {offset} = {rest}", f"{factor}x = {rest - offset}",
                 f"x = {rest - offset}/{factor} = {x}")
        ask = Ask(asked, draw.say("Find x.", "What is the value of x?"), "Find x", number(x), steps,
                  lambda at: (measure.angle(at, Z, A, B) - offset) / factor,
                  wrong("", rest, rest - offset, x + offset, (rest + offset) // factor))
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def _closed_polygon(row: list[str], angles: list[int], draw: Draw) -> dict[str, s.Point]:
    """A convex polygon with these angles: all sides but the last two are free, and those two close it."""
    corners, heading = len(row), 0.0
    points: list[s.Point] = [(0.0, 0.0)]
    headings = []
    for k in range(corners):
        headings.append(heading)
        heading += 180 - angles[(k + 1) % corners]
    for k in range(corners - 2):
        points.append(s.add(points[-1], s.mul(s.direction(headings[k]), draw.free.uniform(2.4, 4))))
    last = s.meet(points[-1], s.direction(headings[corners - 2]), points[0], s.direction(headings[corners - 1]))
    ahead = s.dot(s.sub(last, points[-1]), s.direction(headings[corners - 2]))
    home = s.dot(s.sub(points[0], last), s.direction(headings[corners - 1]))
    if ahead < 1 or home < 1 or ahead > 8 or home > 8:
        if draw.free.random() > 0.02:
            return _closed_polygon(row, angles, draw)
        draw.require(False)
    return dict(zip(row, [*points, last], strict=True))


def grid_polygon(draw: Draw) -> Problem:
    """Points on a coordinate grid: the area of a polygon, the distance of two corners, the perimeter of a triangle."""
    asked = draw.asked(*["area", "distance"] * 3, "perimeter")  # the first two are rejected more often
    corners = 3 if asked == "perimeter" else draw.given("corners", (3, 4))
    row = draw.letters(4)[:corners]
    places = [(draw.given(f"x{k}", range(-5, 7)), draw.given(f"y{k}", range(-4, 7))) for k in range(corners)]
    if asked == "perimeter":  # a right triangle along the axes
        t = draw.given("legs", [(a, b) for a in range(3, 9) for b in range(3, 9) if a != b])
        places = [places[0], (places[0][0] + t[0], places[0][1]), (places[0][0], places[0][1] + t[1])]
    points = dict(zip(row, [(float(x), float(y)) for x, y in places], strict=True))
    turns = [s.cross((*s.sub(b, a), 0), (*s.sub(c, b), 0))[2]
             for a, b, c in zip(places, places[1:] + places[:1], places[2:] + places[:2], strict=True)]
    draw.require(min(turns) > 4 and min(math.dist(a, b) for a in places for b in places if a != b) >= 3)
    x_low, x_high = min(0, *(x for x, _ in places)) - 1, max(0, *(x for x, _ in places)) + 1
    y_low, y_high = min(0, *(y for _, y in places)) - 1, max(0, *(y for _, y in places)) + 1
    axes = Axes(x_low, x_high, y_low, y_high, grid=True, boxed=True, equal=True)
    draw.require(0.6 <= (x_high - x_low) / (y_high - y_low) <= 1.7)
    drawing = [*s.sides(row), *(Dot(name) for name in row), *s.names(row)]
    name = "".join(row)
    facts = [description(f"{name} is a {'triangle' if corners == 3 else 'quadrilateral'} in the coordinate plane")]
    listed = [f"{letter}({x}, {y})" for letter, (x, y) in zip(row, places, strict=True)]
    # The grid itself carries the coordinates: every picture shows them, so the marks add nothing.
    facts.append(condition(f"the corners of the polygon are {', '.join(listed[:-1])} and {listed[-1]}", Dot(row[0])))
    if asked == "area":
        crossed = [f"{_term(a[0])} × {_term(b[1])} - {_term(b[0])} × {_term(a[1])}"
                   for a, b in zip(places, places[1:] + places[:1], strict=True)]
        values = [a[0] * b[1] - b[0] * a[1] for a, b in zip(places, places[1:] + places[:1], strict=True)]
        area = Fraction(sum(values), 2)
        steps = ("The shoelace rule adds x₁ times y₂ minus x₂ times y₁ along every side.",
                 *(f"{term} = {value}" for term, value in zip(crossed, values, strict=True)),
                 f"Area = ({' + '.join(_term(value) for value in values)})/2 = {sum(values)}/2 = {number(area).text}")
        target, short, answer = f"the area of {name}", "Find the area", number(area)
        mistakes = wrong("", area * 2, area + 1, area / 2, area + 3)
        measured = measuring(measure.area, row)
    elif asked == "distance":
        (x1, y1), (x2, y2) = places[0], places[1]
        square = (x2 - x1) ** 2 + (y2 - y1) ** 2
        AB = row[0] + row[1]
        steps = (f"The differences are {x2} - {_term(x1)} = {x2 - x1} and {y2} - {_term(y1)} = {y2 - y1}.",
                 f"{AB}² = {_term(x2 - x1)}² + {_term(y2 - y1)}² = {square}", f"{AB} = √{square} = {sqrt(square)}")
        target, short, answer = f"the distance {AB}", f"Find {AB}", number(sqrt(square))
        mistakes = wrong("", abs(x2 - x1) + abs(y2 - y1), square, sqrt(abs((x2 - x1) ** 2 - (y2 - y1) ** 2)),
                         sqrt(square + 2))
        measured = measuring(measure.distance, row[0], row[1])
    else:
        a, b = t
        hypotenuse = sqrt(a * a + b * b)
        total = hypotenuse + a + b
        steps = (f"The legs lie along the grid: {row[0]}{row[1]} = {a} and {row[0]}{row[2]} = {b}.",
                 f"{row[1]}{row[2]}² = {a}² + {b}² = {a * a + b * b}",
                 f"{row[1]}{row[2]} = √{a * a + b * b} = {hypotenuse}",
                 f"Perimeter = {a} + {b} + {hypotenuse} = {total}")
        target, short, answer = f"the perimeter of {name}", "Find the perimeter", number(total)
        mistakes = wrong("", a * b, 2 * (a + b), a + b, Fraction(a * b, 2))
        measured = measuring(measure.perimeter, row)
    ask = Ask(asked, draw.say(f"Find {target}.", f"What is {target}?"), short, answer, steps, measured, mistakes)
    return draw.finish(facts, ask, Scene(points, drawing, axes=axes))


def _term(value: int) -> str:
    return f"({value})" if value < 0 else str(value)


def bearings(draw: Draw) -> Problem:
    """A ship sails two legs on bearings at a right angle: its distance or bearing from the start; a back bearing."""
    asked = draw.asked("distance", "back bearing", "bearing")
    first = (draw.given("first", range(20, 160))
             if asked != "back bearing"
             else draw.given("first", [*range(15, 170), *range(190, 345)]))
    t, k = (draw.given("triple", ((3, 4, 5), (4, 3, 5), (5, 12, 13), (12, 5, 13), (8, 15, 17))),
            draw.given("factor", range(1, 9)))
    p, q, far = (k * side for side in t)
    A, B, C = draw.letters(3, avoid="NOSW")
    points = {A: (0.0, 0.0), B: s.polar((0, 0), p, 90 - first)}
    second = first + 90
    north_length = 0.55 * p
    points["N"] = (0.0, north_length)
    base = [Segment(A, "N", arrow=True, thin=True), Segment(A, B), s.Name("N", "N", italic=False), Name(A, A),
            Name(B, B)]
    way = "" if asked == "back bearing" else f" and on to {C}"
    facts = [description(f"A ship sails from {A} to {B}{way}; N lies due north of {A}")]
    facts.append(condition(f"{B} lies on a bearing of {first:03d}° from {A}", *_bearing_mark(A, B, first)))
    if asked == "back bearing":
        value = (first + 180) % 360
        step = f"{first}° + 180° = {first + 180}°" if first < 180 else f"{first}° - 180° = {first - 180}°"
        ask = Ask(asked,
                  draw.say(f"What is the bearing of {A} from {B}, in three figures?",
                           f"Find the bearing of {A} from {B} in three figures."),
                  f"Bearing of {A} from {B}?", _bearing(value),
                  ("The way back differs by 180° from the way there.", f"Bearing = {step}"),
                  lambda at: _read_bearing(at, B, A),
                  tuple(f"{v % 360:03d}°" for v in (360 - first, 180 - first, first + 90, first)))
        return draw.finish(facts, ask, Scene(points, base))
    points[C] = s.add(points[B], s.polar((0, 0), q, 90 - second))
    base += [Segment(B, C), Name(C, C), Segment(A, C, dashed=True)]
    facts += [condition(f"{A}{B} = {p} km", Length(A, B, f"{p} km")),
              condition(f"{C} lies on a bearing of {second:03d}° from {B}", RightAngle(A, B, C)),
              condition(f"{B}{C} = {q} km", Length(B, C, f"{q} km"))]
    right = f"The course turns by {second}° - {first}° = 90°, so angle {B} is a right angle."
    AC = A + C
    if asked == "distance":
        steps = (right, f"{AC}² = {p}² + {q}² = {far * far}", f"{AC} = √{far * far} = {far}")
        ask = Ask(asked, draw.say(f"How far is {C} from {A}?", f"Find the distance from {A} to {C}."), f"Find {AC}",
                  number(far, "km"), steps, lambda at: measure.distance(at, A, C),
                  wrong("km", p + q, p * q, abs(p - q), far + 2))
    else:
        swing = math.degrees(math.atan2(q, p))
        value = round(first + swing)
        draw.require(abs(first + swing - value) < 0.44)  # so that rounding twice, as the steps do, is right too
        steps = (right, f"∠{C}{A}{B} = arctan({q}/{p}) ≈ {swing:.1f}°",
                 f"Bearing = {first}° + {swing:.1f}° = {first + round(swing, 1):.1f}° ≈ {value}°")
        answer = _bearing(value)
        answer = type(answer)(answer.text, (first + swing,))
        ask = Ask(asked, f"What is the bearing of {C} from {A}, to the nearest degree?", f"Bearing of {C} from {A}?",
                  answer, steps, lambda at: _read_bearing(at, A, C),
                  tuple(f"{v:03d}°" for v in (second, round(first + 90 - swing), round(swing), value + 10)),
                  {f"∠{C}{A}{B}": swing})
    return draw.finish(facts, ask, Scene(points, base))


def _bearing(value: int):
    answer = number(value, "°")
    return type(answer)(f"{value:03d}°", answer.values)


def _read_bearing(at: Scene, start: str, end: str) -> float:
    (x1, y1), (x2, y2) = at.points[start], at.points[end]
    return math.degrees(math.atan2(x2 - x1, y2 - y1)) % 360


def _bearing_mark(A: str, B: str, degrees: int) -> tuple[s.Mark, ...]:
    if degrees <= 175:
        return (Angle("N", A, B, f"{degrees:03d}°"),)
    return (s.Note(f"bearing of {B} from {A}: {degrees}°"),)


def tower_shadow(draw: Draw) -> Problem:
    """Shadows of a pole and a tree in the same sun: similar right triangles in a word problem."""
    asked = draw.asked("height", "shadow")
    pole, shadow = draw.given("pole", range(1, 10)), draw.given("shadow", range(2, 16))
    halves = draw.given("factor", range(3, 9))  # the tree is 3/2 to 8/2 times as high
    draw.require(0.45 <= pole / shadow <= 1.6 and pole != shadow)
    draw.require(pole * halves % 2 == 0 and shadow * halves % 2 == 0)
    height, long_shadow = pole * halves // 2, shadow * halves // 2
    A, B, C, D, E = draw.letters(5)
    points = {A: (0.0, 0.0), B: (float(shadow), 0.0), C: (float(shadow), float(pole)), D: (float(long_shadow), 0.0)}
    points[E] = s.meet((0.0, 0.0), points[C], points[D], (0.0, 1.0))
    base = [Segment(A, D), Segment(A, E, thin=True), Segment(B, C), Segment(D, E), RightAngle(A, B, C),
            RightAngle(A, D, E), *s.names([A, B, C, D, E])]
    facts = [description(f"A pole {B}{C} and a tree {D}{E} stand upright on level ground, "
                         f"and their shadows {A}{B} and {A}{D} end at the same point {A}"),
             condition(f"the pole is {pole} m high", Length(B, C, f"{pole} m")),
             condition(f"{A}{B} = {shadow} m", Length(A, B, f"{shadow} m"))]
    rule = f"Triangle {A}{B}{C} is similar to triangle {A}{D}{E}."
    AB, BC, AD, DE = A + B, B + C, A + D, D + E
    symbols = {AB: shadow, BC: pole}
    if asked == "height":
        BD, gap = B + D, long_shadow - shadow
        facts.append(condition(f"{BD} = {gap} m", Length(B, D, f"{gap} m")))
        steps = (rule, f"{AD} = {AB} + {BD} = {shadow} + {gap} = {long_shadow}",
                 f"{DE} = {BC} × {AD}/{AB} = {pole} × {long_shadow}/{shadow} = {height}")
        ask = Ask(asked, draw.say("How high is the tree?", f"Find the height {DE} of the tree."), f"Find {DE}",
                  number(height, "m"), steps, lambda at: measure.distance(at, D, E),
                  wrong("m", Fraction(pole * (long_shadow - shadow), shadow), long_shadow - shadow + pole,
                        height + pole, long_shadow),
                  symbols | {BD: gap})
    else:
        facts.append(condition(f"the tree is {height} m high", Length(D, E, f"{height} m")))
        steps = (rule, f"{AD} = {AB} × {DE}/{BC} = {shadow} × {height}/{pole} = {long_shadow}")
        ask = Ask(asked, draw.say("How long is the tree's shadow?", f"Find {AD}, the shadow of the tree."),
                  f"Find {AD}", number(long_shadow, "m"), steps, lambda at: measure.distance(at, A, D),
                  wrong("m", long_shadow - shadow, height - pole + shadow, long_shadow + shadow, height),
                  symbols | {DE: height})
    return draw.finish(facts, ask, Scene(points, base), 0.0, draw.mirror())
