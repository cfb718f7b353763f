"""Plane geometry: triangles, quadrilaterals, lines. Each public function is a family of problems."""


from problems import measure
from problems import scene as s
from problems.exact import number
from problems.problem import Ask, Draw, Problem, condition, description
from problems.scene import Angle, Length, Name, RightAngle, Scene, Segment


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
    facts = [
        description(draw.say(f"Triangle {A}{B}{C}", f"{A}{B}{C} is a triangle", f"Consider triangle {A}{B}{C}")),
        condition(f"{angle}{A} = {first}°", Angle(B, A, C, f"{first}°")),
        condition(f"{angle}{B} = {second}°", Angle(C, B, A, f"{second}°")),
    ]
    total = first + second
    if asked == "third angle":
        ask = Ask(
            asked,
            draw.say(f"Find angle {C}.", f"What is the size of {angle}{C}?", f"Calculate the measure of {angle}{C}."),
            f"Find angle {C}",
            number(third, "°"),
            (
                "The angles of a triangle add up to 180°.",
                ("" if draw.small else f"{angle}{A} + {angle}{B} = ") + f"{first}° + {second}° = {total}°",
                f"{angle}{C} = 180° - {total}° = {third}°",
            ),
            lambda scene: measure.angle(scene, A, C, B),
            mistakes=(f"{total}°", f"{360 - total}°", f"{abs(180 - 2 * first)}°", f"{abs(second - first) + 90}°"),
            symbols={f"∠{A}": first, f"∠{B}": second},
        )
        return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())
    (D,) = [letter for letter in "DETXM" if letter not in (A, B, C)][:1]
    points[D] = s.add(top, s.mul(s.unit(s.sub(top, points[B])), draw.free.uniform(1.2, 1.8)))
    drawing += [Segment(C, D), Name(D, D)]
    facts[0] = description(f"In triangle {A}{B}{C}, side {B}{C} is extended beyond {C} to {D}")
    ask = Ask(
        asked,
        draw.say(f"Find angle {A}{C}{D}.", f"What is the size of the exterior angle {A}{C}{D}?"),
        f"Find angle {A}{C}{D}",
        number(total, "°"),
        (
            "An exterior angle of a triangle equals the sum of the two opposite interior angles.",
            f"∠{A}{C}{D} = ∠{A} + ∠{B} = {first}° + {second}° = {total}°",
        ),
        lambda scene: measure.angle(scene, A, C, D),
        mistakes=(f"{third}°", f"{180 - first}°", f"{180 - second}°", f"{360 - total}°"),
        symbols={f"∠{A}": first, f"∠{B}": second},
    )
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def rectangle(draw: Draw) -> Problem:
    """The sides of a rectangle are given; its perimeter or its area is asked."""
    width, height = draw.length("width"), draw.length("height")
    draw.require(width != height and max(width, height) <= 3.2 * min(width, height))
    asked = draw.asked("perimeter", "area")
    A, B, C, D = draw.letters(4)
    points = {A: (0.0, 0.0), B: (float(width), 0.0), C: (float(width), float(height)), D: (0.0, float(height))}
    drawing = s.sides([A, B, C, D]) + s.names([A, B, C, D])
    unit = draw.unit
    w, h = number(width, unit).text, number(height, unit).text
    right = [RightAngle(D, A, B), RightAngle(A, B, C), RightAngle(B, C, D), RightAngle(C, D, A)]
    facts = [
        description(draw.say(f"Rectangle {A}{B}{C}{D}", f"{A}{B}{C}{D} is a rectangle"), *right),
        condition(f"{A}{B} = {w}", Length(A, B, w)),
        condition(f"{B}{C} = {h}", Length(B, C, h)),
    ]
    name = f"{A}{B}{C}{D}"
    if asked == "perimeter":
        half = width + height
        ask = Ask(
            asked,
            draw.say("Find the perimeter.", f"What is the perimeter of rectangle {name}?", f"How long is the boundary of {name}?"),
            "Find the perimeter",
            number(2 * half, unit),
            (
                "The perimeter is twice the sum of two neighbouring sides.",
                f"{A}{B} + {B}{C} = {width} + {height} = {half}",
                f"Perimeter = 2 × {half} = {2 * half}",
            ),
            lambda scene: measure.perimeter(scene, [A, B, C, D]),
            mistakes=tuple(number(v, unit).text for v in (half, width * height, half + width, half + height)),
            symbols={f"{A}{B}": width, f"{B}{C}": height},
        )
    else:
        square_unit = unit and unit + "²"
        ask = Ask(
            asked,
            draw.say("Find the area.", f"What is the area of rectangle {name}?", f"Calculate the area of {name}."),
            "Find the area",
            number(width * height, square_unit),
            (
                "The area is the product of two neighbouring sides.",
                f"Area = {width} × {height} = {width * height}",
            ),
            lambda scene: measure.area(scene, [A, B, C, D]),
            mistakes=tuple(
                number(v, square_unit).text
                for v in (width + height, 2 * (width + height), width * height * 2, width * width)
            ),
        )
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())


def angles_on_a_line(draw: Draw) -> Problem:
    """Rays stand on a straight line and divide its straight angle."""
    count = draw.given("rays", (1,) if draw.small else (1, 2, 2))
    given = [draw.degrees(f"angle {k}", 25, 150 if count == 1 else 90) for k in range(count)]
    rest = 180 - sum(given)
    draw.require(rest >= 25)
    asked = draw.asked("remaining angle")
    A, B, C, D, O = [*draw.letters(4, avoid="O"), "O"]
    points = {O: (0.0, 0.0), A: (-3.0, 0.0), B: (3.0, 0.0)}
    rays = [C, D][:count]
    reached = 180.0
    for name, degrees in zip(rays, given, strict=True):
        reached -= degrees
        points[name] = s.polar((0.0, 0.0), draw.free.uniform(2.6, 3.2), reached)
    drawing = [Segment(A, B)] + [Segment(O, ray) for ray in rays] + s.names([A, B, O, *rays])
    order = [A, *rays, B]
    if count == 1:
        text = draw.say(f"Ray {O}{C} stands on line {A}{O}{B}", f"{O} is a point of line {A}{B}, and {O}{C} is a ray")
    else:
        order_text = ", ".join([A, *rays, B])
        text = f"{O} is a point of line {A}{B}, and two rays lie on one side of it, through {C} and {D} in the order {order_text}"
    facts = [description(text)]
    for first, last, degrees in zip(order, order[1:], given, strict=False):
        facts.append(condition(f"{draw.angle_word}{first}{O}{last} = {degrees}°", Angle(first, O, last, f"{degrees}°")))
    last = order[-2]
    total = sum(given)
    steps = ["The angles at a point on one side of a straight line add up to 180°."]
    if count == 2:
        steps.append(f"The given angles make {given[0]}° + {given[1]}° = {total}°")
    steps.append(f"{draw.angle_word}{last}{O}{B} = 180° - {total}° = {rest}°")
    ask = Ask(
        asked,
        draw.say(f"Find angle {last}{O}{B}.", f"What is the size of {draw.angle_word}{last}{O}{B}?"),
        f"Find angle {last}{O}{B}",
        number(rest, "°"),
        tuple(steps),
        lambda scene: measure.angle(scene, last, O, B),
        mistakes=(f"{total}°", f"{360 - total}°", f"{abs(90 - given[0])}°", f"{180 - given[0] // 2}°"),
    )
    return draw.finish(facts, ask, Scene(points, drawing), draw.turn(), draw.mirror())
