"""Plane geometry: circles, their angles, chords, tangents, sectors and rings. Each public function is a family."""

import math
from dataclasses import replace
from fractions import Fraction

from problems import measure
from problems import scene as s
from problems.exact import PI, Exact, number, sqrt
from problems.families.common import length_fact, measuring
from problems.problem import Ask, Draw, Fact, Problem, condition, description, property_, wrong
from problems.scene import Angle, Circle, Dot, Length, Name, RightAngle, Scene, Segment

O = "O"  # the centre in every figure of this file
ORIGIN = (0.0, 0.0)
TRIPLES = ((3, 4, 5), (4, 3, 5), (5, 12, 13), (12, 5, 13), (8, 15, 17), (15, 8, 17), (20, 21, 29))


def _circle(radius: float) -> list[s.Mark]:
    return [Circle(O, radius), Dot(O), Name(O, O)]


def _angle_fact(draw: Draw, first: str, vertex: str, last: str, degrees: int) -> Fact:
    return condition(f"{draw.angle_word}{first}{vertex}{last} = {degrees}°",
                     Angle(first, vertex, last, f"{degrees}°", arcs=1))


def _ask_angle(draw: Draw, asked: str, place: tuple[str, str, str], value: int, steps, mistakes, symbols) -> Ask:
    name = "".join(place)
    question = draw.say(f"Find angle {name}.", f"What is the size of {draw.angle_word}{name}?", f"Work out ∠{name}.")
    return Ask(asked, question, f"Find angle {name}", number(value, "°"), tuple(steps),
               lambda at: measure.angle(at, *place), wrong("°", *mistakes), symbols)


def inscribed_angle(draw: Draw) -> Problem:
    """The angle at the centre is twice the angle at the circle; Thales; base angles of the triangles at the centre."""
    asked = draw.asked("inscribed angle", "central angle", "base angle", "diameter", *["two base angles"] * 2)
    A, B, C = draw.letters(3, avoid=O)
    start = draw.free.uniform(200, 250)
    AOB, ACB, OAB = f"∠{A}{O}{B}", f"∠{A}{C}{B}", f"∠{O}{A}{B}"
    points, drawing = {O: ORIGIN}, _circle(3.0) + s.names([A, B, C])
    text = description(draw.say(f"{A}, {B} and {C} are points of a circle with centre {O}",
                                f"A circle with centre {O} passes through {A}, {B} and {C}"))
    if asked == "diameter":
        given = draw.degrees("angle", 22, 68)
        points |= {A: (-3.0, 0.0), B: (3.0, 0.0), C: s.polar(ORIGIN, 3, 2 * given)}
        drawing += s.sides([A, B, C])
        facts = [text, property_(f"{A}{B} is a diameter", Dot(O)), _angle_fact(draw, C, A, B, given)]
        steps = (f"The angle in a semicircle is a right angle, so {ACB} = 90°.",
                 f"∠{A}{B}{C} = 90° - {given}° = {90 - given}°")
        mistakes = (180 - given, given, 2 * given, 180 - 2 * given)
        ask = _ask_angle(draw, asked, (A, B, C), 90 - given, steps, mistakes, {f"∠{C}{A}{B}": given})
        return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())
    if asked == "two base angles":
        first, second = draw.degrees("first", 16, 44), draw.degrees("second", 16, 44)
        half = first + second
        draw.require(36 <= half <= 80)
        points |= {C: s.polar(ORIGIN, 3, 90), A: s.polar(ORIGIN, 3, 90 + 180 - 2 * first),
                   B: s.polar(ORIGIN, 3, 90 - 180 + 2 * second)}
        drawing += [Segment(a, b) for a, b in ((C, A), (C, B), (O, A), (O, B), (O, C))]
        text = replace(text, text=f"{text.text}, and {O} lies inside angle {A}{C}{B}")
        facts = [text, _angle_fact(draw, O, A, C, first), _angle_fact(draw, O, B, C, second)]
        steps = (f"{O}{A} = {O}{B} = {O}{C}, so the triangles {O}{A}{C} and {O}{B}{C} are isosceles.",
                 f"∠{O}{C}{A} = {first}° and ∠{O}{C}{B} = {second}°", f"{ACB} = {first}° + {second}° = {half}°",
                 f"{AOB} = 2 × {half}° = {2 * half}°")
        radii = {O + A: 3, O + B: 3, O + C: 3, f"∠{O}{C}{A}": first, f"∠{O}{C}{B}": second}
        mistakes = (half, 180 - half, 180 - 2 * half, 360 - 2 * half)
        ask = _ask_angle(draw, asked, (A, O, B), 2 * half, steps, mistakes, radii)
        return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())
    half = draw.degrees("angle", 25, 80)
    draw.require(half != 60 or asked != "base angle")
    points |= {A: s.polar(ORIGIN, 3, start), B: s.polar(ORIGIN, 3, start + 2 * half)}
    beyond = (360 - 2 * half) * draw.free.uniform(0.36, 0.64)
    draw.require(abs(beyond - 180) > 16 and abs(2 * half + beyond - 180) > 16)  # C opposite A or B would hide a line
    points[C] = s.polar(ORIGIN, 3, start + 2 * half + beyond)
    drawing += [Segment(a, b) for a, b in ((C, A), (C, B), (O, A), (O, B))]
    rule = "The angle at the centre is twice the angle at the circle on the same arc."
    central, inscribed = _angle_fact(draw, A, O, B, 2 * half), _angle_fact(draw, A, C, B, half)
    if asked == "inscribed angle":
        steps = (rule, f"{ACB} = {AOB}/2 = {2 * half}°/2 = {half}°")
        ask = _ask_angle(draw, asked, (A, C, B), half, steps, (4 * half, 180 - 2 * half, 180 - half, 90 - half),
                         {AOB: 2 * half})
        text = replace(text, text=f"{text.text}, and {C} lies on the longer arc {A}{B}")
        return draw.finish([text, central], ask, Scene(points, drawing), draw.turn(), draw.mirror())
    if asked == "central angle":
        steps = (rule, f"{AOB} = 2 × {ACB} = 2 × {half}° = {2 * half}°")
        mistakes = (180 - half, 180 - 2 * half, 360 - 2 * half, 90 - half)
        ask = _ask_angle(draw, asked, (A, O, B), 2 * half, steps, mistakes, {ACB: half})
    else:
        drawing.append(Segment(A, B))
        steps = (f"{AOB} = 2 × {ACB} = 2 × {half}° = {2 * half}°, because it stands on the same arc.",
                 f"Triangle {O}{A}{B} is isosceles, so {OAB} = (180° - {2 * half}°)/2 = {90 - half}°.")
        mistakes = (2 * half, half, 180 - 2 * half, 180 - half)
        ask = _ask_angle(draw, asked, (O, A, B), 90 - half, steps, mistakes, {ACB: half})
    return draw.finish([text, inscribed], ask, Scene(points, drawing), draw.turn(), draw.mirror())


def cyclic_quadrilateral(draw: Draw) -> Problem:
    """Opposite angles of a quadrilateral in a circle make 180°: an angle, an exterior angle, a central angle, an x."""
    asked = draw.asked("opposite angle", "exterior angle", "central angle", "unknown")
    first, second = draw.degrees("first", 58, 122), draw.degrees("second", 58, 122)
    draw.require(first != 90 and second != 90 and (asked != "central angle" or 58 <= first <= 84))
    low, high = max(35, 2 * (first + second) - 360 + 35), 2 * min(first, second) - 35
    draw.require(low < high)
    A, B, C, D = draw.letters(4, avoid=O)
    arc = draw.free.uniform(low, high)  # from C to D; the other arcs follow from the two angles
    b, c = 2 * second - arc, 2 * first - arc  # arcs DA and BC
    d_at = draw.free.uniform(0, 60)
    at = {D: d_at, A: d_at + b, C: d_at - arc, B: d_at - arc - c}
    draw.require(360 - arc - b - c >= 35)
    points = {O: ORIGIN} | {name: s.polar(ORIGIN, 3, turn) for name, turn in at.items()}
    drawing = [Circle(O, 3.0), *s.sides([A, B, C, D]), *s.names([A, B, C, D])]
    name, word = f"{A}{B}{C}{D}", draw.angle_word
    facts = [description(f"The corners of {draw.say('quadrilateral ', 'the quadrilateral ')}{name} lie on a circle"),
             _angle_fact(draw, D, A, B, first)]
    rule = "Opposite angles of a quadrilateral in a circle add up to 180°."
    rest, symbols = 180 - first, {f"∠{D}{A}{B}": first, f"∠{A}{B}{C}": second}
    if asked == "opposite angle":
        facts.append(_angle_fact(draw, A, B, C, second))
        steps = (rule, f"∠{C}{D}{A} = 180° - ∠{A}{B}{C} = 180° - {second}° = {180 - second}°")
        mistakes = (rest, 360 - first - second, first, abs(90 - second) + 90)
        ask = _ask_angle(draw, asked, (C, D, A), 180 - second, steps, mistakes, symbols)
    elif asked == "exterior angle":
        E = next(letter for letter in "EFGHXYZ" if letter not in name)
        points[E] = s.add(points[C], s.mul(s.unit(s.sub(points[C], points[D])), 2.0))
        drawing += [Segment(C, E), Name(E, E)]
        facts[0] = description(f"The corners of {name} lie on a circle, and {D}{C} is extended beyond {C} to {E}")
        facts.append(_angle_fact(draw, A, B, C, second))
        draw.require(second != first)
        steps = (f"{rule} So ∠{B}{C}{D} = 180° - {first}° = {rest}°.",
                 f"∠{B}{C}{E} = 180° - ∠{B}{C}{D} = 180° - {rest}° = {first}°")
        # the exterior angle equals the angle that is given, so it is asked together with what it makes of the other
        steps = (*steps, f"∠{B}{C}{E} + ∠{A}{B}{C} = {first}° + {second}° = {first + second}°")
        total = first + second
        ask = Ask(asked,
                  draw.say(f"Find the sum of the angles {B}{C}{E} and {A}{B}{C}.",
                           f"How large is ∠{B}{C}{E} + ∠{A}{B}{C}?"),
                  f"Find angle {B}{C}{E} + angle {A}{B}{C}", number(total, "°"), steps,
                  lambda at: measure.angle(at, B, C, E) + measure.angle(at, A, B, C),
                  wrong("°", 180 - first + second, 360 - total, 180 - second + first, 180), symbols)
    elif asked == "central angle":
        drawing += [Segment(O, B), Segment(O, D), Dot(O), Name(O, O)]
        facts[0] = description(f"The corners of {name} lie on a circle with centre {O}")
        steps = ("The angle at the centre is twice the angle at the circle on the same arc.",
                 f"∠{B}{O}{D} = 2 × ∠{D}{A}{B} = 2 × {first}° = {2 * first}°")
        mistakes = (rest, 360 - 2 * first, 2 * rest, 90 + first)
        ask = _ask_angle(draw, asked, (B, O, D), 2 * first, steps, mistakes, symbols)
    else:
        factor, offset = draw.given("factor", (2, 3, 4, 5)), draw.given("offset", range(4, 41))
        draw.require((rest - offset) % factor == 0 and rest - offset > 5 * factor)
        x, term = (rest - offset) // factor, f"({factor}x + {offset})°"
        facts.append(condition(f"{word}{B}{C}{D} = {term}", Angle(B, C, D, term)))
        steps = (rule, f"{factor}x + {offset} = 180 - {first} = {rest}",
                 f"{factor}x = {rest} - {offset} = {rest - offset}", f"x = {rest - offset}/{factor} = {x}")
        ask = Ask(asked, draw.say("Find x.", "What is the value of x?", "Work out x."), "Find x", number(x), steps,
                  lambda at: (measure.angle(at, B, C, D) - offset) / factor,
                  wrong("", rest, rest - offset, abs(first - offset) // factor, x + offset, x + 6))
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def tangent(draw: Draw) -> Problem:
    """A tangent is perpendicular to the radius: lengths by Pythagoras, angles of two tangents."""
    asked = draw.asked("tangent length", "distance", "nearest point", "angle of tangents", "chord of contact")
    if asked in ("angle of tangents", "chord of contact"):
        return _two_tangents(draw, asked)
    T, P, Q = draw.letters(3, avoid=O)
    if asked == "nearest point":
        t = draw.given("triple", TRIPLES)
        k = draw.given("factor", range(1, 13))
        radius, length, far = (k * side for side in t)
    elif asked == "distance":
        radius, length = draw.length("radius"), draw.length("tangent")
        far = sqrt(radius * radius + length * length)
    else:
        radius, far = draw.length("radius"), draw.length("distance", 5, 50)
        draw.require(far > radius)
        length = sqrt(far * far - radius * radius)
    r, d = float(radius), float(far)
    draw.require(0.28 <= r / d <= 0.87)
    points = {O: ORIGIN, P: (d, 0.0), T: s.polar(ORIGIN, r, math.degrees(math.acos(r / d)))}
    drawing = _circle(r) + [Segment(P, T), Segment(O, T), Segment(O, P), *s.names([P, T])]
    PT, OT, OP, PQ = P + T, O + T, O + P, P + Q
    facts = [description(f"{T} is a point of a circle with centre {O}, and {P} is a point outside the circle"),
             property_(draw.say(f"{PT} touches the circle at {T}", f"{PT} is a tangent"), RightAngle(O, T, P)),
             condition(draw.say(f"{OT} = {draw.size(radius)}"), Length(O, T, draw.size(radius)))]
    tangent_fact = length_fact(P, T, draw.size(length))
    rule = f"A tangent is perpendicular to the radius at its point of contact, so ∠{O}{T}{P} = 90°."
    square = radius * radius + (length * length if asked == "distance" else 0)
    if asked == "tangent length":
        facts.append(length_fact(O, P, draw.size(far)))
        rest = far * far - radius * radius
        steps = (rule, f"{PT}² = {OP}² - {OT}² = {far}² - {radius}² = {rest}", f"{PT} = √{rest} = {length}")
        question, short, answer = _find(draw, "the length", PT), f"Find {PT}", number(length, draw.unit)
        mistakes = (far - radius, far + radius, sqrt(far * far + radius * radius), rest)
        ends, symbols = (P, T), {OP: far, OT: radius}
    elif asked == "distance":
        facts.append(tangent_fact)
        steps = (rule, f"{OP}² = {OT}² + {PT}² = {radius}² + {length}² = {square}", f"{OP} = √{square} = {far}")
        question, short, answer = _find(draw, "the distance", OP), f"Find {OP}", number(far, draw.unit)
        mistakes = (radius + length, sqrt(abs(radius**2 - length**2)), square, 2 * length)
        ends, symbols = (O, P), {OT: radius, PT: length}
    else:
        points[Q] = (r, 0.0)
        drawing += [Dot(Q), Name(Q, Q)]
        facts[0] = description(f"{T} is a point of a circle with centre {O}, and {OP} meets the circle at {Q}")
        facts.append(tangent_fact)
        near = far - radius
        steps = (rule, f"{OP}² = {OT}² + {PT}² = {radius}² + {length}² = {far * far}, so {OP} = √{far * far} = {far}.",
                 f"{PQ} = {OP} - {O}{Q} = {far} - {radius} = {near}")
        question, short, answer = _find(draw, "the distance", PQ), f"Find {PQ}", number(near, draw.unit)
        mistakes = (far, abs(length - radius), far + radius, length)
        ends, symbols = (P, Q), {OT: radius, PT: length, O + Q: radius}
    ask = Ask(asked, question, short, answer, steps, lambda at: measure.distance(at, *ends),
              wrong(draw.unit, *mistakes), {key: float(value) for key, value in symbols.items()})
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def _find(draw: Draw, what: str, name: str) -> str:
    return draw.say(f"Find {name}.", f"What is {what}{' of' * (what == 'the length')} {name}?", f"Calculate {name}.")


def _two_tangents(draw: Draw, asked: str) -> Problem:
    """Two tangents from one point: the angle between them and the angles at the chord that joins their ends."""
    A, B, P = draw.letters(3, avoid=O)
    central = draw.degrees("central", 70, 140)
    draw.require(central % 2 == 0 or asked == "angle of tangents")
    between = 180 - central
    reach = 3 / math.cos(math.radians(central / 2))
    points = {O: ORIGIN, P: (reach, 0.0), A: s.polar(ORIGIN, 3, central / 2), B: s.polar(ORIGIN, 3, -central / 2)}
    drawing = _circle(3.0) + [Segment(P, A), Segment(P, B), Segment(O, A), Segment(O, B), *s.names([A, B, P])]
    facts = [description(f"From {P} lines are drawn to the points {A} and {B} of a circle with centre {O}"),
             property_(draw.say(f"{P}{A} and {P}{B} are tangents",
                                f"{P}{A} and {P}{B} touch the circle at {A} and {B}"),
                       RightAngle(O, A, P), RightAngle(O, B, P))]
    rule = f"Tangents are perpendicular to the radii, so ∠{O}{A}{P} = ∠{O}{B}{P} = 90°."
    if asked == "angle of tangents":
        facts.append(_angle_fact(draw, A, O, B, central))
        steps = (rule, f"∠{A}{P}{B} = 360° - 2 × 90° - {central}° = {between}°")
        mistakes = (central // 2, 360 - central, 90 + central // 2, abs(central - 90))
        ask = _ask_angle(draw, asked, (A, P, B), between, steps, mistakes, {})
    else:
        drawing.append(Segment(A, B))
        facts.append(_angle_fact(draw, A, P, B, between))
        value = central // 2
        steps = (f"The tangents {P}{A} and {P}{B} are equally long, so triangle {P}{A}{B} is isosceles.",
                 f"∠{P}{A}{B} = (180° - {between}°)/2 = {value}°", f"∠{O}{A}{B} = 90° - {value}° = {90 - value}°")
        mistakes = (value, central, 180 - value, between)
        ask = _ask_angle(draw, asked, (O, A, B), 90 - value, steps, mistakes, {})
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def chord(draw: Draw) -> Problem:
    """A chord and its distance from the centre: any of the three from the others; the height of the segment."""
    asked = draw.asked("chord", "distance", "radius", "height of segment")
    if asked == "height of segment":
        t = draw.given("triple", TRIPLES)
        k = draw.given("factor", range(1, 13))
        gap, half, radius = (k * side for side in t)
    elif asked == "radius":
        gap, half = draw.length("gap", 2), draw.length("half", 2)
        radius = sqrt(gap * gap + half * half)
    elif asked == "chord":
        radius, gap = draw.length("radius", 4, 40), draw.length("gap", 2)
        draw.require(radius > gap)
        half = sqrt(radius * radius - gap * gap)
    else:
        radius, half = draw.length("radius", 4, 40), draw.length("half", 2)
        draw.require(radius > half)
        gap = sqrt(radius * radius - half * half)
    r, h, g = float(radius), float(half), float(gap)
    draw.require(0.3 <= g / r <= 0.8 and 0.4 <= h / r <= 0.94)
    A, B, M, N = draw.letters(4, avoid=O)
    points = {O: ORIGIN, A: (-h, -g), B: (h, -g), M: (0.0, -g)}
    drawing = _circle(r) + [Segment(A, B), Segment(O, M), *s.names([A, B, M])]
    OA, OM, AM, AB = O + A, O + M, A + M, A + B
    whole = half * 2
    said = {name: draw.size(value) for name, value in ((OA, radius), (OM, gap), (AB, whole))}
    facts = [description(draw.say(f"{AB} is a chord of a circle with centre {O}, and {M} is a point of {AB}")),
             property_(draw.say(f"{OM} ⊥ {AB}", f"{OM} is perpendicular to {AB}"), RightAngle(O, M, B))]
    radius_fact = condition(f"the radius {OA} is {said[OA]}", Segment(O, A), Length(O, A, said[OA]))
    gap_fact = length_fact(O, M, said[OM])
    chord_fact = condition(f"{AB} = {said[AB]}", s.Note(f"{AB} = {said[AB]}"))  # on the chord it could mean a half
    rule = f"The perpendicular from the centre halves a chord, and triangle {O}{M}{A} has a right angle at {M}."
    unit, halving = draw.unit, f"{AM} = {AB}/2 = {whole}/2 = {half}"
    place, symbols = (O, M), {OA: radius, OM: gap, AB: whole}
    if asked == "chord":
        facts += [radius_fact, gap_fact]
        rest = radius * radius - gap * gap
        steps = ("The perpendicular from the centre halves a chord.",
                 f"{AM}² = {OA}² - {OM}² = {radius}² - {gap}² = {rest}, so {AM} = √{rest} = {half}.",
                 f"{AB} = 2 × {AM} = {whole}")
        answer, place, target = number(whole, unit), (A, B), AB
        mistakes = (half, 2 * (radius - gap), sqrt(radius * radius + gap * gap) * 2, rest)
    elif asked == "distance":
        facts += [radius_fact, chord_fact]
        rest = radius * radius - half * half
        steps = (rule, halving, f"{OM}² = {OA}² - {AM}² = {radius}² - {half}² = {rest}", f"{OM} = √{rest} = {gap}")
        answer, target = number(gap, unit), OM
        mistakes = (radius - half, sqrt(abs(whole * whole - radius * radius)), rest, sqrt(radius**2 + half**2))
    elif asked == "radius":
        facts += [gap_fact, chord_fact]
        square = gap * gap + half * half
        steps = (rule, halving, f"{OA}² = {OM}² + {AM}² = {gap}² + {half}² = {square}", f"{OA} = √{square} = {radius}")
        answer, place, target = number(radius, unit), (O, A), OA
        mistakes = (gap + half, sqrt(gap * gap + whole * whole), square, whole)
        drawing.append(Segment(O, A))
    else:
        facts += [radius_fact, chord_fact]
        points[N] = (0.0, -r)
        drawing += [Segment(M, N), Name(N, N)]
        facts[0] = description(f"{AB} is a chord of a circle with centre {O}; the radius {O}{N} crosses it at {M}")
        rest, height = radius * radius - half * half, radius - gap
        steps = (rule, halving, f"{OM}² = {OA}² - {AM}² = {radius}² - {half}² = {rest}, so {OM} = √{rest} = {gap}.",
                 f"{M}{N} = {O}{N} - {OM} = {radius} - {gap} = {height}")
        answer, place, target = number(height, unit), (M, N), M + N
        mistakes = (gap, radius - half, radius + gap, whole - radius)
        symbols[O + N] = radius
    ask = Ask(asked, draw.say(f"Find {target}.", f"How long is {target}?", f"What is the length of {target}?"),
              f"Find {target}", answer, steps, lambda at: measure.distance(at, *place), wrong(unit, *mistakes),
              {key: float(value) for key, value in symbols.items() if key != target})
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def intersecting_chords(draw: Draw) -> Problem:
    """Two chords cross: the products of their parts are equal; a part, a whole chord, the parts' difference."""
    asked = draw.asked("part", "chord", "difference")
    a, b, c = draw.length("a", 2), draw.length("b", 2), draw.length("c", 2)
    d = Fraction(a * b, c)
    draw.require(len({a, b, c, d}) == 4 and d.denominator <= 2 and max(a, b, c, d) <= 4 * min(a, b, c, d))
    A, B, C, D, P = draw.letters(5, avoid=O)
    tilt = draw.free.uniform(55, 125)
    points = {P: ORIGIN, A: (-float(a), 0.0), B: (float(b), 0.0), C: s.polar(ORIGIN, c, tilt)}
    center = _circumcenter(points[A], points[B], points[C])
    radius = math.dist(center, points[A])
    draw.require(radius <= 1.15 * max(a + b, c + d) / 2 * 1.3)
    along = s.direction(tilt)  # D is where the line CP meets the circle again: C mirrored in the foot of the centre
    foot = s.mul(along, s.dot(center, along))
    points[D] = s.sub(s.mul(foot, 2), points[C])
    drawing = [Circle(center, radius), Segment(A, B), Segment(C, D), *s.names([A, B, C, D, P])]
    PA, PB, PC, PD, CD = P + A, P + B, P + C, P + D, C + D
    facts = [description(f"The chords {A}{B} and {CD} of a circle {draw.say('meet', 'cross')} at {P}")]
    facts += [condition(f"{P}{name} = {draw.size(value)}", Length(P, name, draw.size(value)))
              for name, value in ((A, a), (B, b), (C, c))]
    shown, unit = number(d).text, draw.unit
    steps = [f"The products of the parts of chords that cross are equal: {PC} × {PD} = {PA} × {PB}.",
             f"{PD} = {PA} × {PB}/{PC} = {a} × {b}/{c} = {shown}"]
    if asked == "part":
        question = draw.say(f"Find {PD}.", f"How long is {PD}?", f"What is the length of {PD}?")
        value, short, mistakes = d, f"Find {PD}", (Fraction(a * c, b), Fraction(b * c, a), a + b - c, c + b - a)
        measured = measuring(measure.distance, P, D)
    elif asked == "chord":
        question = draw.say(f"Find the length of the chord {CD}.", f"How long is the chord {CD}?", f"What is {CD}?")
        value, short, mistakes = d + c, f"Find {CD}", (a + b, d, abs(d - c), Fraction(a * c, b) + c)
        steps.append(f"{CD} = {PC} + {PD} = {c} + {shown} = {number(value).text}")
        measured = measuring(measure.distance, C, D)
    else:
        longer, other = (PC, PD) if c > d else (PD, PC)
        question = draw.say(f"By how much do {PC} and {PD} differ?", f"What is the difference of {PC} and {PD}?")
        value, short, mistakes = abs(d - c), f"How much do {PC} and {PD} differ?", (d, d + c, abs(a - b), abs(a - c))
        steps.append(f"{longer} - {other} = {number(max(c, d)).text} - {number(min(c, d)).text} = {number(value).text}")

        def measured(at: Scene) -> float:
            return abs(measure.distance(at, P, C) - measure.distance(at, P, D))

    symbols = {PA: a, PB: b, PC: c, PD: float(d)}
    ask = Ask(asked, question, short, number(value, unit), tuple(steps), measured, wrong(unit, *mistakes), symbols)
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def _circumcenter(a: s.Point, b: s.Point, c: s.Point) -> s.Point:
    """The centre of the circle through three points: where two perpendicular bisectors meet."""
    ab, bc = s.sub(b, a), s.sub(c, b)
    return s.meet(s.between(a, b, 0.5), (-ab[1], ab[0]), s.between(b, c, 0.5), (-bc[1], bc[0]))


def sector(draw: Draw) -> Problem:
    """Radius and angle of a sector: its arc, its area, its boundary; the angle from the arc."""
    asked = draw.asked("arc length", "area", "perimeter", "angle")
    radius, degrees = draw.length("radius"), draw.given("angle", [k for k in range(20, 171, 5) if k != 60])
    A, B = draw.letters(2, avoid=O)
    begin = draw.free.uniform(0, 90)
    points = {O: ORIGIN, A: s.polar(ORIGIN, radius, begin), B: s.polar(ORIGIN, radius, begin + degrees)}
    drawing = [s.Arc(O, radius, begin, begin + degrees), Segment(O, A), Segment(O, B), *s.names([O, A, B])]
    share = Fraction(degrees, 360)
    arc, area = PI * (2 * radius * share), PI * (radius * radius * share)
    OA, unit = O + A, draw.unit
    text = draw.say(f"{O}{A}{B} is a sector of a circle with centre {O}", f"Consider the sector {O}{A}{B}, centre {O}")
    facts = [description(text), condition(f"the radius is {draw.size(radius)}", Length(O, A, draw.size(radius)))]
    angle_fact = condition(f"the angle of the sector is {degrees}°", Angle(A, O, B, f"{degrees}°"))
    arc_step = f"Arc = {degrees}/360 × 2π × {radius} = {arc}"
    if asked == "angle":
        label = _arc_label(begin, degrees, radius, draw.size(arc))
        facts.append(condition(f"the arc of the sector is {draw.size(arc)} long", label))
        turn = f"{2 * radius}π"
        steps = (f"The whole circle is 2π × {radius} = {turn} long.", f"Angle = 360° × ({arc})/({turn}) = {degrees}°")
        answer, target = number(degrees, "°"), "the angle of the sector"
        measured = measuring(measure.angle, A, O, B)
        choices = wrong("°", 180 - degrees, 2 * degrees, 90 + degrees)
    else:
        facts.append(angle_fact)
        around = arc + 2 * radius
        if asked == "arc length":
            steps = (f"The sector is {degrees}/360 of the whole disc.", arc_step)
            answer, target = number(arc, unit), f"the length of arc {A}{B}"
            choices = wrong(unit, arc / 2, arc * 2, area)
        elif asked == "area":
            steps = (f"The sector is {degrees}/360 of the whole disc.",
                     f"Area = {degrees}/360 × π × {radius}² = {area}")
            answer, target = number(area, draw.area_unit), "the area of the sector"
            choices = wrong(draw.area_unit, area * 2, area / 2, arc, PI * (radius * radius))
        else:
            steps = (arc_step, f"Perimeter = {arc} + 2 × {radius} = {around}")
            answer, target = number(around, unit), "the perimeter of the sector"
            choices = wrong(unit, arc, arc + radius, arc / 2 + 2 * radius, arc * 2 + 2 * radius)

        def measured(at: Scene) -> float:
            turn, reach = measure.angle(at, A, O, B), measure.distance(at, O, A)
            if asked == "area":
                return measure.sector_area(reach, turn)
            length = measure.arc_length(Scene(circles={"c": (ORIGIN, reach)}), "c", turn)
            return length + (measure.distance(at, O, B) + reach if asked == "perimeter" else 0)

    question = draw.say(f"Find {target}.", f"What is {target}?", f"Calculate {target}.")
    symbols = {OA: radius}
    ask = Ask(asked, _exactly(question, asked), f"Find {target}", answer, steps, measured, choices, symbols)
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def _exactly(question: str, asked: str) -> str:
    return question if asked == "angle" else f"{question} Give an exact answer."


def _arc_label(begin: float, degrees: float, radius: float, text: str) -> s.CurveName:
    return s.CurveName(s.circle_points(ORIGIN, radius, begin + degrees * 0.2, begin + degrees * 0.8, 24), text)


def ring(draw: Draw) -> Problem:
    """Two circles with one centre: the shaded ring's area, boundary or width; the inner radius from the area."""
    asked = draw.asked("area", "boundary", "inner radius")
    outer, inner = draw.length("outer", 5, 30), draw.length("inner", 2, 24)
    draw.require(outer > inner and 0.3 <= inner / outer <= 0.8)
    A, B = draw.letters(2, avoid=O)
    turn = draw.free.uniform(20, 70)
    points = {O: ORIGIN, A: s.polar(ORIGIN, outer, turn), B: s.polar(ORIGIN, inner, -turn)}
    shade = s.Shade(s.circle_points(ORIGIN, outer), (s.circle_points(ORIGIN, inner),))
    drawing = [shade, Circle(O, outer), Circle(O, inner), Dot(O), Dot(A), Dot(B), *s.names([O, A, B]), Segment(O, A)]
    drawing.append(Segment(O, B))
    OB, unit = O + B, draw.unit
    big, small = draw.size(outer), draw.size(inner)
    facts = [description(f"Two circles have the centre {O}; {A} lies on the outer and {B} on the inner one"),
             length_fact(O, A, big)]
    inner_fact = length_fact(O, B, small)
    difference, total = outer * outer - inner * inner, outer + inner
    circles = {"outer": (ORIGIN, float(outer)), "inner": (ORIGIN, float(inner))}
    if asked == "area":
        facts.append(inner_fact)
        steps = ("The ring is the outer disc without the inner one.",
                 f"Area = π × {outer}² - π × {inner}² = {outer * outer}π - {inner * inner}π = {difference}π")
        question = draw.say("Find the area of the ring between the circles.",
                            "What is the area between the two circles?")
        answer, short = number(PI * difference, draw.area_unit), "Find the shaded area"
        mistakes = wrong(draw.area_unit, PI * (outer - inner) ** 2, PI * (difference + 2 * inner**2), PI * (2 * total))

        def measured(at: Scene) -> float:
            return measure.disc_area(measure.distance(at, O, A)) - measure.disc_area(measure.distance(at, O, B))
    elif asked == "boundary":
        facts.append(inner_fact)
        steps = ("The boundary of the ring consists of both circles.",
                 f"Length = 2π × {outer} + 2π × {inner} = {2 * outer}π + {2 * inner}π = {2 * total}π")
        question = draw.say("How long is the whole boundary of the ring?", "Find the total length of both circles.")
        answer, short = number(PI * (2 * total), unit), "Find the length of both circles"
        mistakes = wrong(unit, PI * total, PI * (2 * (outer - inner)), PI * difference, PI * (2 * outer))

        def measured(at: Scene) -> float:
            return measure.arc_length(at, "outer", 360) + measure.arc_length(at, "inner", 360)
    else:
        stated = draw.unit and f"{PI * difference} {draw.area_unit}" or str(PI * difference)
        facts.append(condition(f"the ring between the circles has the area {stated}",
                               s.Note(f"area of the ring: {stated}")))
        steps = (f"π × {outer}² - π × {OB}² = {difference}π", f"{OB}² = {outer}² - {difference} = {inner * inner}",
                 f"{OB} = √{inner * inner} = {inner}")
        question = draw.say(f"Find {OB}.", f"What is the radius {OB} of the inner circle?")
        answer, short = number(inner, unit), f"Find {OB}"
        mistakes = wrong(unit, outer - 1, inner + 1, inner * 2, sqrt(difference))
        measured = measuring(measure.distance, O, B)
    question = question if asked == "inner radius" else f"{question} Give an exact answer."
    ask = Ask(asked, question, short, answer, steps, measured, mistakes, {OB: float(Exact(inner))})
    return draw.finish(facts, ask, Scene(points, drawing, circles=circles), draw.turn(), draw.mirror())
