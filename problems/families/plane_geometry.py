"""Plane geometry: lines, triangles, quadrilaterals. Each public function is a family of problems."""

import math
from fractions import Fraction

from problems import measure
from problems import scene as s
from problems.exact import decimal, number, sqrt
from problems.families.common import bracketed, length_fact, measuring
from problems.problem import Ask, Draw, Problem, condition, description, property_, wrong
from problems.scene import Angle, Length, Name, ParallelArrows, RightAngle, Scene, Segment, Ticks

TRIPLES = ((3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25), (20, 21, 29), (12, 35, 37), (9, 40, 41))


def _other(used: str, count: int = 1) -> list[str]:
    """Letters for further points."""
    return [letter for letter in "DEFGHMNPQTXYZ" if letter not in used][:count]


def triangle_angle_sum(draw: Draw) -> Problem:
    """Two angles of a triangle are given; the third, or an exterior angle, is asked."""
    first = draw.degrees("first", 25, 110)
    second = draw.degrees("second", 25, 110)
    third = 180 - first - second
    draw.require(third >= (30 if draw.small else 20) and max(first, second) <= (90 if draw.small else 120))
    asked = draw.asked("third angle") if draw.small else draw.asked("third angle", "exterior angle")
    A, B, C = draw.letters(3)
    base = draw.free.uniform(4, 6)
    top = s.meet((0, 0), s.direction(first), (base, 0), s.direction(180 - second))
    points = {A: (0.0, 0.0), B: (base, 0.0), C: top}
    drawing = s.sides([A, B, C]) + s.names([A, B, C])
    angle = draw.angle_word
    facts = [description(draw.say(f"{A}{B}{C} is a triangle", f"Consider triangle {A}{B}{C}",
                                  brief=f"Triangle {A}{B}{C}")),
             condition(f"{angle}{A} = {first}°", Angle(B, A, C, f"{first}°")),
             condition(f"{angle}{B} = {second}°", Angle(C, B, A, f"{second}°"))]
    total = first + second
    symbols = {f"∠{A}": first, f"∠{B}": second}
    if asked == "third angle":
        ask = Ask(asked,
                  draw.say(f"Find angle {C}.", f"What is the size of {angle}{C}?",
                           f"Calculate the measure of {angle}{C}."),
                  f"Find angle {C}", number(third, "°"),
                  ("The angles of a triangle add up to 180°.",
                   ("" if draw.small else f"{angle}{A} + {angle}{B} = ") + f"{first}° + {second}° = {total}°",
                   f"{angle}{C} = 180° - {total}° = {third}°"),
                  lambda scene: measure.angle(scene, A, C, B),
                  wrong("°", total, 360 - total, abs(180 - 2 * first), abs(second - first) + 90), symbols)
        return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())
    (D,) = _other(A + B + C)
    points[D] = s.add(top, s.mul(s.unit(s.sub(top, points[B])), draw.free.uniform(1.2, 1.8)))
    drawing += [Segment(C, D), Name(D, D)]
    facts[0] = description(f"In triangle {A}{B}{C}, side {B}{C} is extended beyond {C} to {D}")
    ask = Ask(asked, draw.say(f"Find angle {A}{C}{D}.", f"What is the size of the exterior angle {A}{C}{D}?"),
              f"Find angle {A}{C}{D}", number(total, "°"),
              ("An exterior angle of a triangle equals the sum of the two opposite interior angles.",
               f"∠{A}{C}{D} = ∠{A} + ∠{B} = {first}° + {second}° = {total}°"),
              lambda scene: measure.angle(scene, A, C, D), wrong("°", third, 180 - first, 180 - second, 360 - total),
              symbols)
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def isosceles_triangle(draw: Draw) -> Problem:
    """An isosceles triangle: from the apex to a base angle, back, on to an exterior angle or to an unknown x."""
    asked = draw.asked("base angle", "apex angle", "exterior angle", *["unknown"] * 3)
    A, B, C = draw.letters(3)
    angle, leg = draw.angle_word, draw.free.uniform(4, 6)
    (D,) = _other(A + B + C)
    if asked == "apex angle":
        base_angle = draw.degrees("base angle", 26, 77)
        answer = 180 - 2 * base_angle
        apex = s.meet((0, 0), s.direction(base_angle), (leg, 0), s.direction(180 - base_angle))
        points = {A: apex, B: (0.0, 0.0), C: (leg, 0.0)}
        stated, fact = B, condition(f"{angle}{B} = {base_angle}°", Angle(A, B, C, f"{base_angle}°"))
    else:
        apex_angle = draw.degrees("apex angle", 24, 130)
        draw.require(apex_angle % 2 == 0)
        base_angle = (180 - apex_angle) // 2
        answer = 180 - base_angle if asked == "exterior angle" else base_angle
        half = apex_angle / 2
        points = {A: (0.0, 0.0), B: s.polar((0, 0), leg, 270 - half), C: s.polar((0, 0), leg, 270 + half)}
        stated, fact = A, condition(f"{angle}{A} = {apex_angle}°", Angle(B, A, C, f"{apex_angle}°"))
    drawing = s.sides([A, B, C]) + s.names([A, B, C])
    equal = property_(draw.say(f"{A}{B} = {A}{C}", f"the sides {A}{B} and {A}{C} are equal"), Ticks(A, B), Ticks(A, C))
    text = draw.say(f"{A}{B}{C} is a triangle", f"Consider triangle {A}{B}{C}")
    given = f"∠{stated}"
    if asked == "apex angle":
        steps = (f"In an isosceles triangle the base angles are equal, so ∠{C} = ∠{B} = {base_angle}°.",
                 f"∠{A} = 180° - 2 × {base_angle}° = {answer}°")
        target, place, symbols = A, (B, A, C), {given: base_angle}
        mistakes = wrong("°", 180 - base_angle, base_angle, 2 * base_angle, abs(90 - base_angle))
    else:
        steps = ("In an isosceles triangle the base angles are equal.",
                 f"∠{B} = (180° - {apex_angle}°)/2 = {180 - apex_angle}°/2 = {base_angle}°")
        target, place, symbols = B, (A, B, C), {given: apex_angle}
        mistakes = wrong("°", 180 - apex_angle, apex_angle, 180 - answer, abs(90 - apex_angle))
    if asked == "exterior angle":
        far = s.add(points[C], s.mul(s.unit(s.sub(points[C], points[B])), draw.free.uniform(1.4, 2)))
        points[D] = far
        drawing += [Segment(C, D), Name(D, D)]
        text = f"In triangle {A}{B}{C}, side {B}{C} is extended beyond {C} to {D}"
        steps = (*steps, f"∠{A}{C}{B} = ∠{B} = {base_angle}°", f"∠{A}{C}{D} = 180° - {base_angle}° = {answer}°")
        target, place = f"{A}{C}{D}", (A, C, D)
    facts = [description(text), equal, fact]
    if asked == "unknown":
        factor, offset = draw.given("factor", (2, 3, 4, 5)), draw.given("offset", [k for k in range(-20, 31) if k])
        x = (base_angle - offset) // factor
        draw.require((base_angle - offset) % factor == 0 and x > 3)
        plus, minus = ("+", "-") if offset > 0 else ("-", "+")
        term = f"{factor}x {plus} {abs(offset)}"
        facts.append(condition(f"{angle}{B} = ({term})°", Angle(A, B, C, f"({term})°")))
        steps = (*steps, f"{term} = {base_angle}",
                 f"{factor}x = {base_angle} {minus} {abs(offset)} = {base_angle - offset}",
                 f"x = {base_angle - offset}/{factor} = {x}")
        ask = Ask(asked, draw.say("Find x.", "What is the value of x?"), "Find x", number(x), steps,
                  lambda scene: (measure.angle(scene, A, B, C) - offset) / factor,
                  wrong("", base_angle, base_angle - offset, x + 5, abs(apex_angle - offset) // factor, x + offset),
                  symbols)
        return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())
    ask = Ask(asked,
              draw.say(f"Find angle {target}.", f"What is the size of {angle}{target}?", f"Calculate {angle}{target}."),
              f"Find angle {target}", number(answer, "°"), steps, lambda scene: measure.angle(scene, *place), mistakes,
              symbols)
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def angles_on_a_line(draw: Draw) -> Problem:
    """Rays stand on a straight line and divide its straight angle."""
    count = draw.given("rays", (1, 2, 2))
    given = [draw.degrees(f"angle {k}", 25, 150 if count == 1 else 90) for k in range(count)]
    rest = 180 - sum(given)
    draw.require(rest >= 25)
    simple = count == 1 or draw.small
    asked = draw.asked("remaining angle") if simple else draw.asked("remaining angle", "bisector")
    A, B, C, D = draw.letters(4, avoid="O")
    O, (E,) = "O", _other(A + B + C + D)
    points = {O: (0.0, 0.0), A: (-3.0, 0.0), B: (3.0, 0.0)}
    rays, reached = [C, D][:count], 180.0
    for name, degrees in zip(rays, given, strict=True):
        reached -= degrees
        points[name] = s.polar((0.0, 0.0), draw.free.uniform(2.6, 3.2), reached)
    drawing = [Segment(A, B)] + [Segment(O, ray) for ray in rays] + s.names([A, B, O, *rays])
    order = [A, *rays, B]
    if count == 1:
        text = draw.say(f"Ray {O}{C} stands on line {A}{O}{B}", f"{O} is a point of line {A}{B}, and {O}{C} is a ray")
    elif draw.small:
        text = f"Rays {O}{C} and {O}{D} stand on line {A}{O}{B}"
    else:
        text = f"{O} lies on line {A}{B}; going round {O} from {O}{A} to {O}{B} one meets the rays {O}{C} and {O}{D}"
    facts = [description(text)]
    for first, last, degrees in zip(order, order[1:], given, strict=False):
        facts.append(condition(f"{draw.angle_word}{first}{O}{last} = {degrees}°", Angle(first, O, last, f"{degrees}°")))
    last, total, answer = order[-2], sum(given), rest
    steps = ["The angles at a point on one side of a straight line add up to 180°."]
    if count == 2:
        steps.append(("" if draw.small else "The given angles make ") + f"{given[0]}° + {given[1]}° = {total}°")
    steps.append(f"{draw.angle_word}{last}{O}{B} = 180° - {total}° = {rest}°")
    target = f"{last}{O}{B}"
    if asked == "bisector":
        draw.require(rest % 2 == 0 and rest >= 56)
        answer = rest // 2
        drop = math.radians(rest) / 2  # the ray halves the angle: its foot on the chord of equal arms is the midpoint
        chord_middle = s.between(s.polar((0, 0), 1, reached), (1.0, 0.0), 0.5)
        points[E] = s.mul(chord_middle, 2.8 / max(math.cos(drop), 0.2))
        drawing += [Segment(O, E), Name(E, E)]
        facts.append(property_(f"{O}{E} bisects {draw.angle_word}{D}{O}{B}", Angle(D, O, E), Angle(E, O, B)))
        steps.append(f"{draw.angle_word}{E}{O}{B} = {rest}°/2 = {answer}°")
        target = f"{E}{O}{B}"
    first_letter = target[0]
    ask = Ask(asked, draw.say(f"Find angle {target}.", f"What is the size of {draw.angle_word}{target}?"),
              f"Find angle {target}", number(answer, "°"), tuple(steps),
              lambda scene: measure.angle(scene, first_letter, O, B),
              wrong("°", total, 360 - total, abs(90 - given[0]), 180 - given[0],
                    rest if asked == "bisector" else rest + 10))
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def parallel_lines(draw: Draw) -> Problem:
    """A transversal cuts two parallel lines: corresponding, alternate, co-interior angles; an unknown x."""
    asked = draw.asked("corresponding", "alternate", "co-interior", "unknown")
    theta = draw.degrees("angle", 35, 145)
    draw.require(abs(theta - 90) >= 4)
    A, B, C, D = draw.letters(4, avoid="EFGH")
    E, F, G, H = "EFGH"
    if {A, B, C, D} & set("EFGH"):
        A, B, C, D = "ABCD"
    height = draw.free.uniform(1.8, 2.4)
    foot = (0.0, 0.0)
    upper = s.meet(foot, s.direction(theta), (0.0, height), (1.0, 0.0))
    middle = upper[0] / 2
    points = {A: (middle - 3.2, height), B: (middle + 3.2, height), C: (middle - 3.2, 0.0), D: (middle + 3.2, 0.0),
              E: upper, F: foot, G: s.add(upper, s.mul(s.direction(theta), 1.2)), H: s.polar(foot, 1.2, theta + 180)}
    drawing = [Segment(A, B), Segment(C, D), Segment(G, H), *s.names([A, B, C, D, E, F, G, H])]
    word = draw.angle_word
    rules = {
        "corresponding": ((G, E, B), theta, theta, "Corresponding angles between parallel lines are equal."),
        "alternate": ((A, E, F), theta, theta, "Alternate angles between parallel lines are equal."),
        "co-interior": ((B, E, F), 180 - theta, theta, "Co-interior angles between parallel lines add up to 180°."),
        "unknown": ((A, E, F), theta, theta, "Alternate angles between parallel lines are equal."),
    }
    place, stated, found, rule = rules[asked]
    name = "".join(place)
    facts = [description(f"Line {G}{H} crosses line {A}{B} at {E} and then line "
                         f"{C}{D} at {F}; {B} and {D} lie on the same side of it"),
             property_(draw.say(f"{A}{B} ∥ {C}{D}", f"{A}{B} is parallel to {C}{D}"), ParallelArrows(A, B),
                       ParallelArrows(C, D)),
             condition(f"{word}{name} = {stated}°", Angle(*place, f"{stated}°"))]
    symbols = {f"∠{name}": stated}
    if asked == "unknown":
        factor, offset = draw.given("factor", (2, 3, 4, 5)), draw.given("offset", [k for k in range(-20, 41, 5) if k])
        draw.require((theta - offset) % factor == 0 and (theta - offset) // factor > 4)
        x = (theta - offset) // factor
        term = f"({factor}x {'+' if offset > 0 else '-'} {abs(offset)})°"
        facts.append(condition(f"{word}{E}{F}{D} = {term}", Angle(E, F, D, term)))
        back = f"{theta} {'-' if offset > 0 else '+'} {abs(offset)}"
        steps = (f"{rule}", f"{factor}x {'+' if offset > 0 else '-'} {abs(offset)} = {theta}",
                 f"{factor}x = {back} = {theta - offset}", f"x = {theta - offset}/{factor} = {x}")
        ask = Ask(asked, draw.say("Find x.", "What is the value of x?"), "Find x", number(x), steps,
                  lambda scene: (measure.angle(scene, E, F, D) - offset) / factor,
                  wrong("", theta - offset, theta, x + offset, abs(180 - theta - offset) // factor, x + 5))
    else:
        steps = (rule, f"∠{E}{F}{D} = ∠{name} = {found}°")
        if asked == "co-interior":
            steps = (rule, f"∠{E}{F}{D} = 180° - ∠{name} = 180° - {stated}° = {found}°")
        else:
            draw.require(theta != 90)
            steps = (*steps, f"∠{C}{F}{E} = 180° - ∠{E}{F}{D} = 180° - {found}° = {180 - found}°")
        ends, value = ((E, F, D), found) if asked == "co-interior" else ((C, F, E), 180 - found)
        ask = Ask(asked, draw.say(f"Find angle {''.join(ends)}.", f"What is the size of {word}{''.join(ends)}?"),
                  f"Find angle {''.join(ends)}", number(value, "°"), steps, lambda scene: measure.angle(scene, *ends),
                  wrong("°", stated, 180 - value, abs(90 - stated), 90 + abs(90 - stated), 360 - stated), symbols)
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def right_triangle(draw: Draw) -> Problem:
    """Pythagoras: a side, then what follows from it (area, altitude on the hypotenuse, circumradius)."""
    asked = draw.asked("hypotenuse", "leg", "area", "altitude", "median")
    A, B, C = draw.letters(3)
    if asked in ("hypotenuse", "leg"):
        p, q = draw.length("p", 2, 20), draw.length("q", 2, 20)
        hypotenuse = sqrt(p * p + q * q)
    else:
        t, k = draw.given("triple", TRIPLES), draw.given("factor", range(1, 5))
        p, q, hypotenuse = (k * side for side in t)
        p, q = (p, q) if draw.given("swap", (False, True)) else (q, p)
    draw.require(p != q and max(p, q) <= 3 * min(p, q))
    points = {C: (0.0, 0.0), A: (float(p), 0.0), B: (0.0, float(q))}
    drawing = s.sides([A, B, C]) + s.names([A, B, C])
    CA, CB, AB = C + A, C + B, A + B
    leg_p = length_fact(C, A, draw.size(p))
    leg_q = length_fact(C, B, draw.size(q))
    long_side = length_fact(A, B, draw.size(hypotenuse))
    facts = [description(draw.say(f"{A}{B}{C} is a triangle", f"Consider triangle {A}{B}{C}")),
             property_(draw.say(f"angle {C} is a right angle", f"{CA} ⊥ {CB}", f"angle {C} = 90°"),
                       RightAngle(A, C, B))]
    scene, unit = Scene(points, drawing), draw.unit
    square = p * p + q * q
    pythagoras = f"{AB}² = {CA}² + {CB}² = {p}² + {q}² = {p * p} + {q * q} = {square}"
    question = {
        "hypotenuse": draw.say(f"Find {AB}.", f"How long is the hypotenuse {AB}?"),
        "leg": draw.say(f"Find {CB}.", f"How long is the leg {CB}?"),
        "area": draw.say("Find the area of the triangle.", f"What is the area of triangle {A}{B}{C}?"),
        "altitude": f"What is the distance from {C} to line {AB}?",
        "median": f"How long is the median from {C} to the midpoint of {AB}?",
    }[asked]
    if asked == "hypotenuse":
        facts += [leg_p, leg_q]
        answer, steps = number(hypotenuse, unit), (f"By Pythagoras, {pythagoras}.", f"{AB} = √{square} = {hypotenuse}")
        mistakes = wrong(unit, p + q, square, sqrt(abs(p * p - q * q)), sqrt(square + p))
        ask = Ask(asked, question, f"Find {AB}", answer, steps, lambda at: measure.distance(at, A, B), mistakes)
    elif asked == "leg":
        facts += [leg_p, long_side]
        hyp_square = square
        answer = number(q, unit)
        steps = (f"By Pythagoras, {CB}² = {AB}² - {CA}² = {hyp_square} - {p * p} = {q * q}.", f"{CB} = √{q * q} = {q}")
        mistakes = wrong(unit, sqrt(hyp_square + p * p), hyp_square - p * p, abs(q - p), q + p)
        ask = Ask(asked, question, f"Find {CB}", answer, steps, lambda at: measure.distance(at, C, B), mistakes)
    elif asked == "area":
        facts += [leg_p, long_side]
        steps = (f"By Pythagoras, {CB}² = {AB}² - {CA}² = {hypotenuse}² - {p}² = {q * q}, so {CB} = √{q * q} = {q}.",
                 f"Area = {CA} × {CB}/2 = {p} × {q}/2 = {number(Fraction(p * q, 2)).text}")
        answer = number(Fraction(p * q, 2), draw.area_unit)
        mistakes = wrong(draw.area_unit, p * q, Fraction(p * hypotenuse, 2), p * hypotenuse, p + q + hypotenuse)
        ask = Ask(asked, question, "Find the area", answer, steps, lambda at: measure.area(at, [A, B, C]), mistakes)
    elif asked == "altitude":
        facts += [leg_p, leg_q]
        height = Fraction(p * q, hypotenuse)
        steps = (f"By Pythagoras, {pythagoras}, so {AB} = √{square} = {hypotenuse}.",
                 f"Twice the area is {CA} × {CB} = {p} × {q} = {p * q}, and also {AB} times the distance.",
                 f"Distance = {p * q}/{hypotenuse} = {height}"
                 if p * q % hypotenuse == 0 or height.denominator != hypotenuse
                 else f"Distance = {p * q}/{hypotenuse}")
        answer = number(height, unit)
        mistakes = wrong(unit, Fraction(p * q, 2), Fraction(hypotenuse, 2), Fraction(p + q, 2), Fraction(p * q, p + q))
        distance = measuring(measure.distance_to_line, C, A, B)
        ask = Ask(asked, question, f"Distance of {C} from {AB}?", answer, steps, distance, mistakes)
    else:
        facts += [leg_p, leg_q]
        steps = (f"By Pythagoras, {pythagoras}, so {AB} = √{square} = {hypotenuse}.",
                 "The midpoint of the hypotenuse is equally far from all three corners.",
                 f"Median = {AB}/2 = {hypotenuse}/2" + (f" = {hypotenuse // 2}" if hypotenuse % 2 == 0 else ""))
        answer = number(Fraction(hypotenuse, 2), unit)
        mistakes = wrong(unit, hypotenuse, Fraction(p + q, 2), Fraction(p, 2), Fraction(q, 2))
        ask = Ask(asked, question, f"Median from {C}?", answer, steps,
                  lambda at: math.dist(at.points[C], s.between(at.points[A], at.points[B], 0.5)), mistakes)
    ask.symbols.update({CA: p} if asked in ("leg", "area") else {CA: p, CB: q})
    if asked in ("leg", "area"):
        ask.symbols[AB] = float(hypotenuse)
    return draw.finish(facts, ask, scene, draw.turn(), draw.mirror())


def trigonometry(draw: Draw) -> Problem:
    """A right triangle with one side and one angle: another side to one decimal, as a bare triangle or a tower."""
    asked = draw.asked("opposite", "adjacent", "hypotenuse", "tower")
    degrees, side = draw.degrees("angle", 22, 68), draw.length("side", 5, 60)
    draw.require(degrees != 45)
    A, B, C = draw.letters(3)
    tangent, sine, cosine = (f(math.radians(degrees)) for f in (math.tan, math.sin, math.cos))
    corner = s.meet((0, 0), s.direction(degrees), (1.0, 0.0), (0.0, 1.0))  # the triangle up to its size
    reference = {"opposite": 1.0, "adjacent": corner[1], "hypotenuse": corner[1], "tower": 1.0}[asked]
    scale = side / reference
    points = {A: (0.0, 0.0), B: (scale, 0.0), C: s.mul(corner, scale)}
    drawing = [*s.sides([A, B, C]), *s.names([A, B, C])]
    AB, BC, AC = A + B, B + C, A + C
    word, unit = draw.angle_word, draw.unit
    facts = [description(f"{A}{B}{C} is a triangle"), property_(f"angle {B} is a right angle", RightAngle(A, B, C)),
             condition(f"{word}{A} = {degrees}°", Angle(B, A, C, f"{degrees}°"))]
    if asked in ("opposite", "tower"):
        facts.append(length_fact(A, B, draw.size(side)))
        value, wanted = side * tangent, (B, C)
        relation = f"{BC} = {AB} × tan({degrees}°) = {side} × tan({degrees}°)"
        others = (side * sine, side * cosine, side / tangent)
    else:
        facts.append(length_fact(B, C, draw.size(side)))
        value, wanted = (side / tangent, (A, B)) if asked == "adjacent" else (side / sine, (A, C))
        relation = (f"{AB} = {BC}/tan({degrees}°) = {side}/tan({degrees}°)"
                    if asked == "adjacent"
                    else f"{AC} = {BC}/sin({degrees}°) = {side}/sin({degrees}°)")
        others = (side * tangent, side * cosine, side * sine, side / cosine)
    if asked == "tower":
        unit = "m"
        facts = [description(f"A tower {B}{C} stands upright on level ground, and {A} is a point of the ground"),
                 condition(f"the distance from {A} to the foot {B} is {side} m", Length(A, B, f"{side} m")),
                 condition(f"from {A} the top {C} appears at an angle of elevation of {degrees}°",
                           Angle(B, A, C, f"{degrees}°"))]
        drawing.append(RightAngle(A, B, C))
    answer = decimal(value, 1, unit)
    wanted_name = "".join(wanted)
    ask = Ask(asked,
              "How high is the tower, to one decimal place?"
              if asked == "tower"
              else draw.say(
                  f"Find {wanted_name}, to one decimal place.", f"How long is {wanted_name}, to one decimal place?"
              ),
              f"Find {wanted_name} to 1 decimal",
              answer,
              (
                  {
                      "opposite": "The tangent is opposite over adjacent.",
                      "tower": "The tangent is opposite over adjacent.",
                      "adjacent": "The tangent is opposite over adjacent.",
                      "hypotenuse": "The sine is opposite over hypotenuse.",
                  }[asked],
                  f"{relation} ≈ {decimal(value, 1).text}",
              ),
              lambda scene: measure.distance(scene, *wanted),
              tuple(decimal(v, 1, unit).text for v in others),
              {AB: scale, BC: scale * tangent, AC: scale / cosine})
    turn, mirror = (0.0, draw.mirror()) if asked == "tower" else (draw.turn(), draw.mirror())
    return draw.finish(facts, ask, Scene(points, drawing), turn, mirror)


def similar_triangles(draw: Draw) -> Problem:
    """A line parallel to the base of a triangle cuts off a similar one: a length, or a ratio of areas."""
    asked = draw.asked("parallel", "base", "side", "area")
    upper, lower = draw.length("upper", 2, 12), draw.length("lower", 2, 12)
    draw.require(Fraction(1, 3) <= Fraction(upper, lower) <= 3)
    share = Fraction(upper, upper + lower)
    A, B, C, D, E = draw.letters(5)
    if asked == "area":
        whole = draw.given("area", range(20, 200)) * 1
        small_part = share * share * whole
        draw.require(small_part.denominator == 1)
        base, short = None, None
    else:
        base = draw.given("base", range(4, 31))
        short = share * base
        draw.require(short.denominator <= 2)
    left = float(upper + lower)
    width = float(base) if base else draw.free.uniform(0.8, 1.4) * left
    slant = draw.free.uniform(62, 100) if not base else draw.free.uniform(58, 105)
    if asked == "area":
        width = 2 * whole / (left * math.sin(math.radians(slant)))
    draw.require(0.45 <= width / left <= 2.2)
    top = s.polar((0, 0), left, slant)
    points = {A: top, B: (0.0, 0.0), C: (width, 0.0), D: s.between(top, (0.0, 0.0), upper / left)}
    points[E] = s.meet(points[D], (1.0, 0.0), top, s.sub((width, 0.0), top))
    drawing = [*s.sides([A, B, C]), Segment(D, E), *s.names([A, B, C, D, E])]
    AD, DB, AB, DE, BC = A + D, D + B, A + B, D + E, B + C
    size = draw.size
    facts = [description(f"In triangle {A}{B}{C}, {D} lies on {A}{B} and {E} lies on {A}{C}"),
             property_(f"{DE} ∥ {BC}", ParallelArrows(D, E), ParallelArrows(B, C)), length_fact(A, D, size(upper))]
    if asked != "side":
        facts.append(length_fact(D, B, size(lower)))
    symbols = {AD: upper, DB: lower, AB: upper + lower}
    start = (f"Triangle {A}{D}{E} is similar to triangle {A}{B}{C}.",
             f"{AB} = {AD} + {DB} = {upper} + {lower} = {upper + lower}")
    if asked == "parallel":
        facts.append(length_fact(B, C, size(base)))
        steps = (*start, f"{DE} = {BC} × {AD}/{AB} = {base} × {upper}/{upper + lower} = {number(short).text}")
        answer, target, measured = number(short, draw.unit), DE, lambda at: measure.distance(at, D, E)
        mistakes = wrong(draw.unit, Fraction(base * upper, lower), base - short, Fraction(base, 2), base - upper)
        symbols |= {BC: base}
    elif asked == "base":
        facts.append(length_fact(D, E, size(short)))
        steps = (*start, f"{BC} = {DE} × {AB}/{AD} = {number(short).text} × {upper + lower}/{upper} = {base}")
        answer, target, measured = number(base, draw.unit), BC, lambda at: measure.distance(at, B, C)
        mistakes = wrong(draw.unit, short * Fraction(lower, upper), short + lower, 2 * short, base + upper)
        symbols |= {DE: short}
    elif asked == "side":
        facts.append(length_fact(D, E, size(short)))
        facts.append(length_fact(B, C, size(base)))
        steps = (start[0], f"{AB} = {AD} × {BC}/{DE} = {upper} × {base}/{bracketed(short)} = {upper + lower}",
                 f"{DB} = {AB} - {AD} = {upper + lower} - {upper} = {lower}")
        answer, target, measured = number(lower, draw.unit), DB, lambda at: measure.distance(at, D, B)
        mistakes = wrong(draw.unit, upper + lower, base - short, upper, 2 * upper)
        symbols = {AD: upper, BC: base, DE: short}
    else:
        facts.append(condition(f"the area of triangle {A}{B}{C} is {number(whole, draw.area_unit).text}",
                               s.Note(f"area {A}{B}{C} = {number(whole, draw.area_unit).text}")))
        steps = (*start, "Areas of similar triangles are as the squares of their sides.",
                 f"Area = {whole} × ({upper}/{upper + lower})² = {number(small_part).text}")
        answer, target = number(small_part, draw.area_unit), f"the area of triangle {A}{D}{E}"
        mistakes = wrong(draw.area_unit, share * whole, whole - small_part, Fraction(whole, 4), Fraction(whole, 2))
        measured = measuring(measure.area, [A, D, E])
    ask = Ask(asked, draw.say(f"Find {target}.", f"What is {target}?"), f"Find {target}", answer, steps, measured,
              mistakes, symbols)
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())



def law_of_cosines(draw: Draw) -> Problem:
    """Two sides and the angle between them: the third side or the area, exactly."""
    asked = draw.asked("third side", "area", "altitude")
    p, q = draw.length("p", 2, 24), draw.length("q", 2, 24)
    degrees = draw.given("angle", (60, 120) if asked == "third side" else (30, 45, 60, 120, 135, 150))
    draw.require(max(p, q) <= 2.5 * min(p, q))
    A, B, C = draw.letters(3)
    points = {A: (0.0, 0.0), B: (float(p), 0.0), C: s.polar((0, 0), q, degrees)}
    AB, AC, BC = A + B, A + C, B + C
    facts = [description(draw.say(f"{A}{B}{C} is a triangle", f"Consider triangle {A}{B}{C}")),
             length_fact(A, B, draw.size(p)), length_fact(A, C, draw.size(q)),
             condition(f"{draw.angle_word}{A} = {degrees}°", Angle(B, A, C, f"{degrees}°"))]
    sine = {30: Fraction(1, 2), 150: Fraction(1, 2), 60: sqrt(3) / 2, 120: sqrt(3) / 2}.get(degrees, sqrt(2) / 2)
    symbols = {AB: p, AC: q}
    if asked == "third side":
        sign, cosine = (-1, "1/2") if degrees == 60 else (1, "(-1/2)")
        other = p * p + q * q + sign * p * q
        side = sqrt(other)
        steps = (f"The law of cosines says {BC}² = {AB}² + {AC}² - 2 × {AB} × {AC} × cos({degrees}°).",
                 f"{BC}² = {p * p} + {q * q} - 2 × {p} × {q} × {cosine} = {other}", f"{BC} = √{other} = {side}")
        answer, target, measured = number(side, draw.unit), BC, lambda at: measure.distance(at, B, C)
        mistakes = wrong(draw.unit, sqrt(p * p + q * q), other, p + q, sqrt(p * p + q * q - sign * p * q))
    elif asked == "area":
        area = sine * p * q / 2 if not isinstance(sine, Fraction) else Fraction(p * q, 4)
        steps = ("The area is half the product of two sides and the sine of the angle between them.",
                 f"sin({degrees}°) = {sine}",
                 f"Area = {AB} × {AC} × sin({degrees}°)/2 = {p} × {q} × ({sine})/2 = {number(area).text}")
        answer, target = number(area, draw.area_unit), f"the area of triangle {A}{B}{C}"
        mistakes = wrong(draw.area_unit, Fraction(p * q, 2), area * 2, p * q, area + p)
        measured = measuring(measure.area, [A, B, C])
    else:
        height = sine * q
        steps = (f"The altitude from {C} is {AC} times the sine of the angle at {A}.", f"sin({degrees}°) = {sine}",
                 f"Altitude = {q} × ({sine}) = {number(height).text}")
        answer, target = number(height, draw.unit), f"the distance of {C} from line {AB}"
        mistakes = wrong(draw.unit, sine * p, Fraction(q, 2) + 1, sqrt(3) * q, sqrt(2) * q)
        measured = measuring(measure.distance_to_line, C, A, B)
    ask = Ask(asked, draw.say(f"Find {target}.", f"What is {target}?"), f"Find {target}", answer, steps, measured,
              mistakes, symbols)
    drawing = s.sides([A, B, C]) + s.names([A, B, C])
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())
