"""Plane geometry: segments in triangles, quadrilaterals, polygons. Each public function is a family of problems."""

import math
from fractions import Fraction

from problems import measure
from problems import scene as s
from problems.exact import number, sqrt
from problems.families.common import length_fact, measuring
from problems.problem import Ask, Draw, Problem, condition, description, property_, wrong
from problems.scene import Angle, Name, ParallelArrows, RightAngle, Scene, Segment, Ticks


def rectangle(draw: Draw) -> Problem:
    """The sides of a rectangle are given; its perimeter, its area or its diagonal is asked."""
    width, height = draw.length("width"), draw.length("height")
    draw.require(width != height and max(width, height) <= 3.2 * min(width, height))
    asked = (
        draw.asked("perimeter", "area") if draw.small else draw.asked("perimeter", "area", "diagonal", "missing side")
    )
    A, B, C, D = draw.letters(4)
    name, AB, BC = f"{A}{B}{C}{D}", A + B, B + C
    points = {A: (0.0, 0.0), B: (float(width), 0.0), C: (float(width), float(height)), D: (0.0, float(height))}
    drawing = s.sides([A, B, C, D]) + s.names([A, B, C, D])
    w, h = draw.size(width), draw.size(height)
    right = [RightAngle(D, A, B), RightAngle(A, B, C), RightAngle(B, C, D), RightAngle(C, D, A)]
    facts = [description(draw.say(f"{name} is a rectangle", f"The quadrilateral {name} is a rectangle",
                                  brief=f"Rectangle {name}"),
                         *right),
             length_fact(A, B, w), length_fact(B, C, h)]
    symbols = {AB: width, BC: height}
    half, area = width + height, width * height
    if asked == "perimeter":
        question = draw.say("Find the perimeter.", f"What is the perimeter of rectangle {name}?",
                            "How long is its boundary?")
        answer, short = number(2 * half, draw.unit), "Find the perimeter"
        steps = ("The perimeter is twice the sum of two neighbouring sides.",
                 f"{AB} + {BC} = {width} + {height} = {half}", f"Perimeter = 2 × {half} = {2 * half}")
        mistakes = wrong(draw.unit, half, area, half + width, half + height)
        measured = measuring(measure.perimeter, [A, B, C, D])
    elif asked == "area":
        question = draw.say("Find the area.", f"What is the area of rectangle {name}?",
                            f"Calculate the area of {name}.")
        answer, short = number(area, draw.area_unit), "Find the area"
        steps = ("The area is the product of two neighbouring sides.", f"Area = {width} × {height} = {area}")
        mistakes = wrong(draw.area_unit, half, 2 * half, area * 2, width * width)
        measured = measuring(measure.area, [A, B, C, D])
    elif asked == "diagonal":
        square, AC = width * width + height * height, A + C
        diagonal = sqrt(square)
        drawing.append(Segment(A, C))
        question = draw.say(f"How long is the diagonal {AC}?", f"Find the diagonal {AC}.")
        answer, short = number(diagonal, draw.unit), f"Find {AC}"
        steps = ("The diagonal is the hypotenuse of a right triangle, so "
                 f"{AC}² = {AB}² + {BC}² = {width}² + {height}² = {square}.",
                 f"{AC} = √{square} = {diagonal}")
        mistakes = wrong(draw.unit, half, square, 2 * half, sqrt(abs(width**2 - height**2)))
        measured = measuring(measure.distance, A, C)
    else:
        facts[2] = condition(f"the perimeter is {draw.size(2 * half)}", s.Note(f"perimeter {draw.size(2 * half)}"))
        question = draw.say(f"Find {BC}.", f"How long is side {BC}?")
        answer, short = number(height, draw.unit), f"Find {BC}"
        steps = ("Half the perimeter is the sum of two neighbouring sides.", f"{AB} + {BC} = {2 * half}/2 = {half}",
                 f"{BC} = {half} - {width} = {height}")
        mistakes = wrong(draw.unit, half, 2 * half - width, abs(half - 2 * width), 2 * height)
        measured = measuring(measure.distance, B, C)
    ask = Ask(asked, question, short, answer, steps, measured, mistakes, symbols)
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def parallelogram(draw: Draw) -> Problem:
    """A parallelogram: its angles, its area from base and height, its perimeter from a side and a ratio."""
    asked = draw.asked("angle", "area", "height", "perimeter")
    A, B, C, D = draw.letters(4)
    name, AB, AD = f"{A}{B}{C}{D}", A + B, A + D
    base, side = draw.length("base", 4, 30), draw.length("side", 3, 24)
    draw.require(0.5 <= base / side <= 2.6)
    facts = [description(draw.say(f"{name} is a parallelogram", f"The quadrilateral {name} is a parallelogram"),
                         ParallelArrows(A, B), ParallelArrows(D, C), ParallelArrows(A, D, 2), ParallelArrows(B, C, 2))]
    unit, word, symbols = draw.unit, draw.angle_word, {AB: base, AD: side}
    (E,) = [letter for letter in "EFHXT" if letter not in name][:1]
    degrees = draw.degrees("angle", 40, 140) if asked == "angle" else draw.free.uniform(48, 78)
    slope = s.direction(degrees)
    if asked in ("area", "height"):
        height = draw.given("height", range(2, side))
        draw.require(0.55 <= height / side <= 0.95)
        top = (math.sqrt(side * side - height * height), float(height))
    else:
        draw.require(asked != "angle" or abs(degrees - 90) > 6)
        top = s.mul(slope, float(side))
    points = {A: (0.0, 0.0), B: (float(base), 0.0), C: s.add(top, (float(base), 0.0)), D: top}
    drawing = s.sides([A, B, C, D]) + s.names([A, B, C, D])
    if asked == "angle":
        facts.append(condition(f"{word}{A} = {degrees}°", Angle(B, A, D, f"{degrees}°")))
        question = draw.say(f"Find angle {B}.", f"What is the size of {word}{B}?")
        answer, short = number(180 - degrees, "°"), f"Find angle {B}"
        steps = ("Neighbouring angles of a parallelogram add up to 180°.",
                 f"∠{B} = 180° - ∠{A} = 180° - {degrees}° = {180 - degrees}°")
        mistakes, symbols = wrong("°", degrees, 360 - degrees, abs(90 - degrees), 90), {f"∠{A}": degrees}
        measured = measuring(measure.angle, A, B, C)
    elif asked in ("area", "height"):
        points[E] = (top[0], 0.0)
        draw.require(top[0] < 0.8 * base)
        drawing += [Segment(D, E, dashed=True), Name(E, E), RightAngle(D, E, B)]
        facts.append(property_(f"{D}{E} is perpendicular to {AB}, with {E} on {AB}"))
        area = base * height
        facts.append(length_fact(A, B, draw.size(base)))
        DE = D + E
        if asked == "area":
            facts.append(length_fact(D, E, draw.size(height)))
            facts.append(length_fact(A, D, draw.size(side)))
            question = draw.say(f"What is the area of {name}?", "Find the area of the parallelogram.")
            answer, short = number(area, draw.area_unit), "Find the area"
            steps = ("The area is base times height; the slanted side does not matter.",
                     f"Area = {AB} × {DE} = {base} × {height} = {area}")
            mistakes = wrong(draw.area_unit, base * side, Fraction(area, 2), 2 * (base + side), side * height)
            symbols[DE] = height
            measured = measuring(measure.area, [A, B, C, D])
        else:
            area_text = number(area, draw.area_unit).text
            facts.append(condition(f"the area of {name} is {area_text}", s.Note(f"area {area_text}")))
            facts.append(length_fact(A, D, draw.size(side)))
            AE, rest = A + E, sqrt(side * side - height * height)
            question = draw.say(f"Find {AE}.", f"How long is {AE}?")
            answer, short = number(rest, draw.unit), f"Find {AE}"
            steps = (f"The area is base times height, so {DE} = {area}/{base} = {height}.",
                     f"By Pythagoras, {AE}² = {AD}² - {DE}² = {side * side} - "
                     f"{height * height} = {side * side - height * height}.",
                     f"{AE} = √{side * side - height * height} = {rest}")
            mistakes = wrong(draw.unit, side - height, sqrt(side**2 + height**2), height, base - side)
            measured = measuring(measure.distance, A, E)
    else:
        facts.append(length_fact(A, B, draw.size(base)))
        facts.append(length_fact(A, D, draw.size(side)))
        question = draw.say(f"What is the perimeter of {name}?", "Find the perimeter of the parallelogram.")
        answer, short = number(2 * (base + side), unit), "Find the perimeter"
        steps = ("Opposite sides of a parallelogram are equal.",
                 f"Perimeter = 2 × ({AB} + {AD}) = 2 × ({base} + {side}) = {2 * (base + side)}")
        mistakes = wrong(unit, base + side, base * side, 4 * base, 4 * side)
        measured = measuring(measure.perimeter, [A, B, C, D])
    ask = Ask(asked, question, short, answer, steps, measured, mistakes, symbols)
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def rhombus(draw: Draw) -> Problem:
    """The diagonals of a rhombus: area, side, perimeter, and back from the side to a diagonal."""
    asked = draw.asked("area", "side", "perimeter", "diagonal")
    t, k = (draw.given("triple", ((3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25), (20, 21, 29))),
            draw.given("factor", range(1, 9)))
    if asked == "area":
        p, q = draw.given("p", range(3, 26)), draw.given("q", range(3, 26))
        side = sqrt(p * p + q * q)
    else:
        p, q, side = (k * v for v in t)
        p, q = (p, q) if draw.given("swap", (False, True)) else (q, p)
    draw.require(p != q and max(p, q) <= 3 * min(p, q))
    A, B, C, D = draw.letters(4, avoid="O")
    name, AC, BD, AB = A + B + C + D, A + C, B + D, A + B
    points = {A: (-float(p), 0.0), B: (0.0, -float(q)), C: (float(p), 0.0), D: (0.0, float(q)), "O": (0.0, 0.0)}
    drawing = [*s.sides([A, B, C, D]), Segment(A, C), Segment(B, D), *s.names([A, B, C, D, "O"])]
    facts = [description(f"{name} is a rhombus whose diagonals meet at O", Ticks(A, B), Ticks(B, C), Ticks(C, D),
                         Ticks(D, A))]
    OA, OB = "O" + A, "O" + B
    oa = length_fact("O", A, draw.size(p))
    ob = length_fact("O", B, draw.size(q))
    symbols = {AC: 2 * p, BD: 2 * q, AB: float(side)}
    rule = "The diagonals of a rhombus are perpendicular and bisect each other."
    if asked == "area":
        facts += [oa, ob]
        question = draw.say(f"What is the area of the rhombus {name}?", "Find the area of the rhombus.")
        answer, short, mistakes = (number(2 * p * q, draw.area_unit), "Find the area",
                                   wrong(draw.area_unit, p * q, 4 * p * q, 2 * (p + q), Fraction(p * q, 2)))
        steps = (rule, f"{AC} = 2 × {p} = {2 * p} and {BD} = 2 × {q} = {2 * q}.",
                 f"Area = {AC} × {BD}/2 = {2 * p} × {2 * q}/2 = {2 * p * q}")
        measured = measuring(measure.area, [A, B, C, D])
    elif asked in ("side", "perimeter"):
        facts += [oa, ob]
        steps = (rule, f"{AB}² = {OA}² + {OB}² = {p}² + {q}² = {side * side}", f"{AB} = √{side * side} = {side}")
        symbols |= {OA: p, OB: q}
        if asked == "side":
            question, short, answer = (draw.say(f"Find {AB}.", f"How long is the side {AB}?"), f"Find {AB}",
                                       number(side, draw.unit))
            mistakes = wrong(draw.unit, p + q, 2 * side, abs(p - q), p * q)
            measured = measuring(measure.distance, A, B)
        else:
            question, short, answer = (draw.say(f"What is the perimeter of {name}?",
                                                "Find the perimeter of the rhombus."),
                                       "Find the perimeter", number(4 * side, draw.unit))
            steps = (*steps, f"Perimeter = 4 × {side} = {4 * side}")
            mistakes = wrong(draw.unit, side, 2 * side, 4 * (p + q), 2 * (p + q))
            measured = measuring(measure.perimeter, [A, B, C, D])
    else:
        facts += [oa, length_fact(A, B, draw.size(side))]
        question, short, answer = (draw.say(f"Find the diagonal {BD}.", f"How long is {BD}?"), f"Find {BD}",
                                   number(2 * q, draw.unit))
        steps = (rule, f"{OB}² = {AB}² - {OA}² = {side * side} - {p * p} = {q * q}", f"{OB} = √{q * q} = {q}",
                 f"{BD} = 2 × {q} = {2 * q}")
        symbols = {AB: side, OA: p}
        mistakes = wrong(draw.unit, q, side - p, 2 * (side - p), 2 * side)
        measured = measuring(measure.distance, B, D)
    ask = Ask(asked, question, short, answer, steps, measured, mistakes, symbols)
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def trapezoid(draw: Draw) -> Problem:
    """A trapezoid: its midsegment, its area, or a base found back from the area."""
    asked = draw.asked("midsegment", "area", "base", "leg")
    lower, upper = draw.length("lower", 6, 30), draw.length("upper", 2, 24)
    height = draw.length("height", 3, 20)
    draw.require(lower - upper >= 2 and upper * 4 >= lower and 0.3 <= height / lower <= 1.0)
    A, B, C, D = draw.letters(4)
    M, N = [letter for letter in "MNXYEF" if letter not in (A, B, C, D)][:2]
    E = next(letter for letter in "EFGHT" if letter not in (A, B, C, D, M, N))
    name, AB, DC = A + B + C + D, A + B, D + C
    left = 0.0 if asked == "leg" else draw.free.uniform(0.18, 0.8) * (lower - upper)
    points = {A: (0.0, 0.0), B: (float(lower), 0.0), C: (left + upper, float(height)), D: (left, float(height))}
    drawing = s.sides([A, B, C, D]) + s.names([A, B, C, D])
    size, total = draw.size, lower + upper
    facts = [description(draw.say(f"{name} is a trapezoid", f"The quadrilateral {name} is a trapezoid")),
             property_(draw.say(f"{AB} ∥ {DC}", f"{AB} is parallel to {DC}"), ParallelArrows(A, B),
                       ParallelArrows(D, C)),
             length_fact(A, B, size(lower))]
    top = length_fact(D, C, size(upper))
    symbols = {AB: lower, DC: upper}
    area = Fraction(total * height, 2)
    if asked == "midsegment":
        facts.append(top)
        points[M], points[N] = s.between(points[A], points[D], 0.5), s.between(points[B], points[C], 0.5)
        drawing += [Segment(M, N), *s.names([M, N])]
        facts.append(property_(f"{M} and {N} are the midpoints of {A}{D} and {B}{C}", Ticks(A, M), Ticks(M, D),
                               Ticks(B, N, 2), Ticks(N, C, 2)))
        value = Fraction(total, 2)
        question, short = draw.say(f"Find {M}{N}.", f"How long is {M}{N}?"), f"Find {M}{N}"
        answer, mistakes = (number(value, draw.unit),
                            wrong(draw.unit, total, lower - upper, Fraction(lower, 2), upper + 1))
        steps = ("The midsegment is the mean of the two bases.",
                 f"{M}{N} = ({AB} + {DC})/2 = ({lower} + {upper})/2 = {number(value).text}")
        measured = measuring(measure.distance, M, N)
    elif asked in ("area", "base"):
        foot = (left, 0.0)
        points[E] = foot
        drawing += [Segment(D, E, dashed=True), Name(E, E), RightAngle(D, E, B)]
        facts.append(property_(f"{D}{E} is perpendicular to {AB}, with {E} on {AB}"))
        facts.append(length_fact(D, E, size(height)))
        symbols[D + E] = height
        if asked == "area":
            facts.append(top)
            question, short = (draw.say(f"What is the area of {name}?", "Find the area of the trapezoid."),
                               "Find the area")
            answer = number(area, draw.area_unit)
            mistakes = wrong(draw.area_unit, area * 2, lower * height, upper * height, Fraction(lower * upper, 2))
            steps = ("The area is half the sum of the bases times the height.",
                     f"Area = ({AB} + {DC}) × {D}{E}/2 = ({lower} + {upper}) × {height}/2 = {number(area).text}")
            measured = measuring(measure.area, [A, B, C, D])
        else:
            draw.require(area.denominator == 1)
            text = number(area, draw.area_unit).text
            facts.append(condition(f"the area of {name} is {text}", s.Note(f"area {text}")))
            question, short = draw.say(f"Find {DC}.", f"How long is {DC}?"), f"Find {DC}"
            answer, mistakes = (number(upper, draw.unit),
                                wrong(draw.unit, total, abs(Fraction(area, height) - lower), height, lower - upper))
            steps = ("The area is half the sum of the bases times the height.",
                     f"The sum of the bases is 2 × {area}/{height} = {total}.", f"{DC} = {total} - {lower} = {upper}")
            symbols = {}
            measured = measuring(measure.distance, D, C)
    else:
        gap = lower - upper
        facts += [top, property_(f"angle {A} is a right angle", RightAngle(B, A, D)), length_fact(A, D, size(height))]
        square = gap * gap + height * height
        question, short = draw.say(f"Find {B}{C}.", f"How long is the leg {B}{C}?"), f"Find {B}{C}"
        answer, mistakes = (number(sqrt(square), draw.unit),
                            wrong(draw.unit, gap + height, height, sqrt(abs(gap**2 - height**2)), square))
        steps = (f"Drop a perpendicular from {C} on {AB}; it cuts off {lower} - {upper} = {gap} from {AB}.",
                 f"By Pythagoras, {B}{C}² = {gap}² + {height}² = {square}.", f"{B}{C} = √{square} = {sqrt(square)}")
        measured = measuring(measure.distance, B, C)
    ask = Ask(asked, question, short, answer, steps, measured, mistakes, symbols)
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def midline(draw: Draw) -> Problem:
    """Midpoints of a triangle's sides: the midline, the perimeter of the inner triangle, the centroid on a median."""
    asked = draw.asked("midline", "inner perimeter", "centroid", "whole median")
    A, B, C, D, E, F = draw.letters(6, avoid="G")
    stated = asked in ("midline", "inner perimeter")  # else only a part of the median is, which fixes the size
    a, b, c = (draw.given(side, range(5, 31)) if stated else draw.free.randrange(5, 31) for side in "abc")
    while not stated and max(a, b, c) * 1.25 > a + b + c - max(a, b, c):
        a, b, c = (draw.free.randrange(5, 31) for _ in "abc")
    draw.require(a + b > 1.25 * c and b + c > 1.25 * a and a + c > 1.25 * b)
    x = (c * c + b * b - a * a) / (2 * c)  # the third corner from the three sides
    points = {A: (0.0, 0.0), B: (float(c), 0.0), C: (x, math.sqrt(b * b - x * x))}
    half = {D: (B, C), E: (C, A), F: (A, B)}
    for middle, (p, q) in half.items():
        points[middle] = s.between(points[p], points[q], 0.5)
    size = draw.size
    text = draw.say(f"{A}{B}{C} is a triangle", f"Consider triangle {A}{B}{C}")
    tick = {D: 1, E: 2, F: 3}

    def midpoint(name: str) -> tuple[Ticks, Ticks]:
        return tuple(Ticks(end, name, tick[name]) for end in half[name])

    if asked == "midline":
        del points[F]
        drawing = [*s.sides([A, B, C]), Segment(D, E), *s.names([A, B, C, D, E])]
        facts = [description(text),
                 property_(f"{D} and {E} are the midpoints of {B}{C} and {C}{A}", *midpoint(D), *midpoint(E)),
                 length_fact(A, B, size(c))]
        value, target = Fraction(c, 2), D + E
        answer, mistakes = number(value, draw.unit), wrong(draw.unit, c, 2 * c, Fraction(c, 3), Fraction(2 * c, 3))
        steps = ("The segment between the midpoints of two sides is half as long as the third side.",
                 f"{D}{E} = {A}{B}/2 = {c}/2" + (f" = {c // 2}" if c % 2 == 0 else ""))
        symbols = {A + B: c}
        measured = measuring(measure.distance, D, E)
    elif asked == "inner perimeter":
        drawing = [*s.sides([A, B, C]), *s.sides([D, E, F]), *s.names([A, B, C, D, E, F])]
        facts = [description(text),
                 property_(f"{D}, {E} and {F} are the midpoints of {B}{C}, {C}{A} and {A}{B}", *midpoint(D),
                           *midpoint(E), *midpoint(F)),
                 condition(f"{B}{C} = {size(a)}", s.Dimension(B, C, size(a))),
                 condition(f"{C}{A} = {size(b)}", s.Dimension(C, A, size(b))),
                 condition(f"{A}{B} = {size(c)}", s.Dimension(A, B, size(c)))]
        value, target = Fraction(a + b + c, 2), f"the perimeter of triangle {D}{E}{F}"
        answer, mistakes = (number(value, draw.unit),
                            wrong(draw.unit, a + b + c, Fraction(a + b + c, 3), Fraction(a + b + c, 4),
                                  2 * (a + b + c)))
        steps = (f"The perimeter of {A}{B}{C} is {a} + {b} + {c} = {a + b + c}.",
                 f"Each side of {D}{E}{F} is half a side of {A}{B}{C}.",
                 f"Perimeter = {a + b + c}/2" + (f" = {(a + b + c) // 2}" if (a + b + c) % 2 == 0 else ""))
        symbols = {}
        measured = measuring(measure.perimeter, [D, E, F])
    else:
        del points[F]
        points["G"] = s.meet(points[A], s.sub(points[D], points[A]), points[B], s.sub(points[E], points[B]))
        drawing = [*s.sides([A, B, C]), Segment(A, D), Segment(B, E), *s.names([A, B, C, D, E, "G"])]
        long_part = 2 * draw.given("part", range(2, 25))
        scale = long_part / math.dist(points[A], points["G"])  # the median's length fixes the size
        points = {name: s.mul(point, scale) for name, point in points.items()}
        AG, GD, AD = A + "G", "G" + D, A + D
        facts = [description(text + f" whose medians {A}{D} and {B}{E} meet at G", *midpoint(D), *midpoint(E))]
        rule = "The centroid divides a median in the ratio 2 : 1, counted from the corner."
        if asked == "centroid":
            facts.append(length_fact(A, "G", size(long_part)))
            target, value, symbols = GD, long_part // 2, {AG: long_part}
            steps, wanted = (rule, f"{GD} = {AG}/2 = {long_part}/2 = {value}"), ("G", D)
        else:
            facts.append(length_fact("G", D, size(long_part // 2)))
            target, value, symbols = AD, 3 * long_part // 2, {GD: long_part // 2}
            steps, wanted = (rule, f"{AD} = 3 × {GD} = 3 × {long_part // 2} = {value}"), (A, D)
        answer, mistakes = (number(value, draw.unit),
                            wrong(draw.unit, long_part * 2, 3 * long_part, Fraction(long_part, 3), long_part + value))
        measured = measuring(measure.distance, *wanted)
    ask = Ask(asked, draw.say(f"Find {target}.", f"What is {target}?"), f"Find {target}", answer, steps, measured,
              mistakes, symbols)
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def angle_bisector(draw: Draw) -> Problem:
    """The bisector of a triangle's angle divides the opposite side as the other two sides."""
    asked = draw.asked("part", "side", "whole side", "perimeter")
    ratio, k, m = (draw.given("ratio",
                              ((2, 3), (3, 4), (3, 5), (4, 5), (1, 2), (2, 5), (5, 6), (4, 7), (5, 7), (5, 8))),
                   draw.given("k", range(1, 10)), draw.given("m", range(1, 10)))
    swap = draw.given("swap", (False, True))
    p, q = (ratio[1], ratio[0]) if swap else ratio
    b, c, near, far = q * k, p * k, p * m, q * m  # AC, AB, BD, DC
    whole = near + far
    draw.require(b + c > 1.2 * whole and abs(b - c) * 1.2 < whole and max(b, c, whole) <= 60 and min(b, c, whole) >= 3)
    A, B, C, D = draw.letters(4)
    x = (c * c - b * b + whole * whole) / (2 * whole)
    points = {B: (0.0, 0.0), C: (float(whole), 0.0), A: (x, math.sqrt(c * c - x * x))}
    to_b, to_c = s.unit(s.sub(points[B], points[A])), s.unit(s.sub(points[C], points[A]))
    draw.require(s.dot(to_b, to_c) < 0.9)  # the halves of a sharper angle could not be drawn apart
    points[D] = s.meet(points[A], s.add(to_b, to_c), points[B], (1.0, 0.0))
    drawing = [*s.sides([A, B, C]), Segment(A, D), *s.names([A, B, C, D])]
    AB, AC, BD, DC, size = A + B, A + C, B + D, D + C, draw.size
    facts = [description(f"In triangle {A}{B}{C}, point {D} lies on side {B}{C}"),
             property_(f"{A}{D} bisects angle {B}{A}{C}", Angle(B, A, D), Angle(D, A, C)), length_fact(A, B, size(c)),
             length_fact(B, D, size(near))]
    rule = f"The bisector divides the opposite side as the other two sides: {BD}/{DC} = {AB}/{AC}."
    if asked != "side":
        facts.append(length_fact(A, C, size(b)))
        steps = (rule, f"{DC} = {BD} × {AC}/{AB} = {near} × {b}/{c} = {far}")
        target, value, wanted, symbols = DC, far, (D, C), {AB: c, BD: near, AC: b}
        mistakes = wrong(draw.unit, near, Fraction(near * c, b), b - c + near, whole)
        if asked != "part":
            steps = (*steps, f"{B}{C} = {BD} + {DC} = {near} + {far} = {whole}")
            target, value, wanted = B + C, whole, (B, C)
            mistakes = wrong(draw.unit, far, 2 * near, near + Fraction(near * c, b), b + c - near, 2 * far)
        if asked == "perimeter":
            value = whole + b + c
            steps = (*steps, f"Perimeter = {AB} + {B}{C} + {AC} = {c} + {whole} + {b} = {value}")
            target, wanted = "the perimeter of the triangle", (A, B, C)
            mistakes = wrong(draw.unit, far + b + c, near + b + c, 2 * (b + c), 2 * whole + c)
    else:
        facts.append(length_fact(D, C, size(far)))
        steps = (rule, f"{AC} = {AB} × {DC}/{BD} = {c} × {far}/{near} = {b}")
        target, value, wanted, symbols = AC, b, (A, C), {AB: c, BD: near, DC: far}
        mistakes = wrong(draw.unit, c, Fraction(near * c, far), far - near + c, whole)
    ask = Ask(asked, draw.say(f"Find {target}.", f"How long is {target}?"), f"Find {target}", number(value, draw.unit),
              steps,
              lambda at: measure.perimeter(at, wanted) if asked == "perimeter" else measure.distance(at, *wanted),
              mistakes, symbols)
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())
