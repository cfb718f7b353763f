"""Solid geometry: cylinders, cones, spheres and what is made of them. Each public function is a family of problems."""

import math
from fractions import Fraction

from problems import measure
from problems import scene as s
from problems.exact import PI, Exact, number, sqrt
from problems.families.common import bracketed, find
from problems.problem import Draw, Problem, condition, description, wrong
from problems.scene import Dot, Length, Name, Note, Path, Point, RightAngle, Scene, Segment

TRIPLES = ((3, 4, 5), (4, 3, 5), (5, 12, 13), (12, 5, 13), (8, 15, 17), (15, 8, 17), (20, 21, 29), (7, 24, 25))


def _camera(draw: Draw) -> s.Projection:
    return s.orthographic(0.0, draw.free.uniform(14, 24))


def _ring(radius: float, height: float, start: float = 0, end: float = 360) -> tuple[Point, ...]:
    steps = max(8, round((end - start) / 5))
    turns = [math.radians(start + (end - start) * k / steps) for k in range(steps + 1)]
    return tuple((radius * math.cos(t), radius * math.sin(t), height) for t in turns)


def _rings(low: Point, high: Point, view: s.Projection, capped: bool = True) -> list[s.Mark]:
    """The edges of a piece between two radii (r, z): rings, hidden parts dashed, and the outline's two lines.

    The camera looks along the x-axis from above, so a ring's far half is the one with x < 0.
    """
    (r1, z1), (r2, z2) = low, high
    rise, narrowing = z2 - z1, r1 - r2
    x, _, z = view.towards_viewer
    turn = math.degrees(math.acos(max(-1.0, min(1.0, -narrowing * z / (rise * x)))))  # where the outline touches
    marks: list[s.Mark] = []
    if r1:
        marks += [Path(_ring(r1, z1, -turn, turn)), Path(_ring(r1, z1, turn, 360 - turn), dashed=True)]
    if r2:
        marks.append(Path(_ring(r2, z2)) if capped else Path(_ring(r2, z2, -90, 90)))
    for sign in (1, -1):
        a, b = math.cos(math.radians(turn)), sign * math.sin(math.radians(turn))
        marks.append(Segment((r1 * a, r1 * b, z1), (r2 * a, r2 * b, z2)))
    return marks


def _line(start: Point, end: Point):
    """A straight profile from (r, z) to (r, z)."""
    return lambda t: s.between(start, end, t)


def _arc(radius: float, start: float, end: float, center: float = 0.0):
    """A circular profile; angles from the horizontal, in degrees."""

    def profile(t: float) -> Point:
        angle = math.radians(start + (end - start) * t)
        return radius * math.cos(angle), center + radius * math.sin(angle)

    return profile


def _revolution(view: s.Projection, base: list[s.Mark], /, **profiles: list) -> Scene:
    return Scene(base=base, projection=view, profiles=profiles)


def _p(value: Exact | Fraction | int) -> str:
    return number(value).text


def cylinder(draw: Draw) -> Problem:
    """A cylinder: volume, lateral area, surface, or its height back from the volume, as multiples of π."""
    asked = (draw.asked("lateral area", "volume")
             if draw.small
             else draw.asked("volume", "lateral area", "surface", "height"))
    r, h = (draw.given("r", range(2, 6) if draw.small else range(2, 31)),
            draw.given("h", range(2, 10) if draw.small else range(2, 61)))
    draw.require(draw.small or 0.6 <= h / r <= 4)
    diameter_given = not draw.small and draw.given("diameter", (False, False, True))
    view = _camera(draw)
    top = (0.0, 0.0, float(h))
    scene = _revolution(view, _rings((r, 0.0), (r, float(h)), view), mantle=[_line((r, 0), (r, h))],
                        caps=[_line((0, 0), (r, 0)), _line((r, h), (0, h))])
    R, H = draw.size(r), draw.size(h)
    if diameter_given:
        width = condition(f"the diameter of the base is {draw.size(2 * r)}",
                          Segment((0.0, -float(r), float(h)), (0.0, float(r), float(h)), thin=True),
                          Length((0.0, -float(r), float(h)), (0.0, float(r), float(h)), draw.size(2 * r)))
        start = (f"r = {2 * r}/2 = {r}",)
    else:
        width = condition("radius " + R if draw.small else f"the radius of the base is {R}", Dot(top),
                          Segment(top, (0.0, float(r), float(h)), thin=True), Length(top, (0.0, float(r), float(h)), R))
        start = ()
    tall = condition("height " + H if draw.small else f"the height is {H}",
                     Length((0.0, float(r), 0.0), (0.0, float(r), float(h)), H))
    facts = [description(draw.say("The solid is a right circular cylinder",
                                  "A solid has the shape of a right circular cylinder", brief="Cylinder")),
             width, tall]
    symbols = {"r": r, "h": h}
    volume, mantle = PI * r * r * h, PI * 2 * r * h
    if asked == "volume":
        steps = (*start, f"Volume = πr²h = π × {r}² × {h} = {volume}")
        if draw.small:
            steps = (f"{r} × {r} = {r * r}", f"Volume = {r * r} × {h} × π = {volume}")
        ask = find(draw, asked, "the volume", number(volume, draw.volume_unit), steps, measure.revolution_volume,
                   wrong(draw.volume_unit, mantle, volume * 4, volume / 3, PI * r * h, PI * r * h * h), symbols)
    elif asked == "lateral area":
        steps = (*start, f"Lateral area = 2πrh = 2π × {r} × {h} = {mantle}")
        if draw.small:
            steps = (f"2 × {r} = {2 * r}", f"Mantle = {2 * r} × {h} × π = {mantle}")
        ask = find(draw, asked, "the side area" if draw.small else "the lateral area", number(mantle, draw.area_unit),
                   steps, lambda at: measure.revolution_surface(at, "mantle"),
                   wrong(draw.area_unit, mantle * 2, mantle / 2, volume, mantle + PI * r * r), symbols)
    elif asked == "surface":
        total = mantle + PI * 2 * r * r
        steps = (*start, f"Lateral area = 2πrh = 2π × {r} × {h} = {mantle}",
                 f"Both bases together have the area 2πr² = 2π × {r}² = {PI * 2 * r * r}.",
                 f"Surface = {mantle} + {PI * 2 * r * r} = {total}")
        ask = find(draw, asked, "the surface area", number(total, draw.area_unit), steps, measure.revolution_surface,
                   wrong(draw.area_unit, mantle, mantle + PI * r * r, volume, total * 2), symbols)
    else:
        facts[2] = condition(f"the volume is {number(volume, draw.volume_unit).text}",
                             Note(f"V = {number(volume, draw.volume_unit).text}"))
        steps = (*start, f"Base = πr² = π × {r}² = {PI * r * r}", f"Height = {r * r * h}π/({r * r}π) = {h}")
        ask = find(draw, asked, "the height", number(h, draw.unit), steps,
                   lambda at: at.profiles["mantle"][0](1.0)[1] - at.profiles["mantle"][0](0.0)[1],
                   wrong(draw.unit, r * h, 3 * h, h + r, Fraction(h, 2)), {"r": r})
    return draw.finish(facts, ask, scene)


def cone(draw: Draw) -> Problem:
    """A cone: volume, slant height, lateral area, the angle of its unrolled surface, the height from the volume."""
    asked = draw.asked("volume", "slant height", "lateral area", "unrolled angle", "height")
    t, k = draw.given("triple", TRIPLES), draw.given("factor", range(1, 13))
    r, h, slant = (k * side for side in t)
    if asked in ("volume", "height", "slant height"):
        r, h = draw.given("r", range(2, 31)), draw.given("h", range(3, 61))
    draw.require(0.6 <= h / r <= 3.2)
    slant = sqrt(r * r + h * h)
    view = _camera(draw)
    tip, foot, rim = (0.0, 0.0, float(h)), (0.0, 0.0, 0.0), (0.0, float(r), 0.0)
    scene = _revolution(view, [*_rings((r, 0.0), (0.0, float(h)), view), Name(tip, "S")],
                        mantle=[_line((r, 0), (0, h))], base=[_line((0, 0), (r, 0))])
    R, H, L = draw.size(r), draw.size(h), draw.size(slant)
    radius = condition(f"the radius of the base is {R}", Segment(foot, rim, dashed=True), Length(foot, rim, R))
    height = condition(f"the height is {H}", Segment(tip, foot, dashed=True), RightAngle(tip, foot, rim),
                       Length(tip, foot, H))
    facts = [description(draw.say("The solid is a right circular cone with apex S",
                                  "A right circular cone has the apex S")),
             radius, height]
    symbols, volume = {"r": r, "h": h, "s": float(slant)}, PI * r * r * h / 3
    side = (f"s² = r² + h² = {r}² + {h}² = {r * r + h * h}", f"s = √{r * r + h * h} = {slant}")

    def slant_of(at: Scene) -> float:
        return math.dist(at.profiles["mantle"][0](0.0), at.profiles["mantle"][0](1.0))

    if asked == "volume":
        ask = find(draw, asked, "the volume", number(volume, draw.volume_unit),
                   (f"Volume = πr²h/3 = π × {r}² × {h}/3 = {volume}",), measure.revolution_volume,
                   wrong(draw.volume_unit, volume * 3, volume * 3 / 2, PI * r * h, volume * 2), symbols)
    elif asked == "slant height":
        ask = find(draw, asked, "the slant height s", number(slant, draw.unit), side, slant_of,
                   wrong(draw.unit, r + h, r * r + h * h, sqrt(abs(h * h - r * r)), sqrt(4 * r * r + h * h)),
                   {"r": r, "h": h})
    elif asked == "lateral area":
        mantle = PI * slant * r
        ask = find(draw, asked, "the lateral area", number(mantle, draw.area_unit),
                   (*side, f"Lateral area = πrs = π × {r} × {slant} = {mantle}"),
                   lambda at: measure.revolution_surface(at, "mantle"),
                   wrong(draw.area_unit, mantle * 2, PI * r * h, mantle + PI * r * r, volume), symbols)
    elif asked == "unrolled angle":
        facts[2] = condition(f"the slant height is {L}", Length(rim, tip, L))
        angle = Fraction(360 * r, 1) / slant.fraction()
        draw.require(angle.denominator <= 1 or angle.denominator == 2)
        draw.require(angle.denominator == 1)
        ask = find(draw,
                   asked,
                   "the angle of the sector that the unrolled lateral surface forms",
                   number(angle, "°"),
                   (
                       "The sector's arc is the circumference of the base, and its radius is the slant height.",
                       f"Angle = 360° × r/s = 360° × {r}/{slant} = {angle}°",
                   ),
                   lambda at: (
                       360
                       * (measure.integral(lambda u: at.profiles["mantle"][0](0.0)[0], 0, 2 * math.pi))
                       / (2 * math.pi * slant_of(at))
                   ),
                   wrong("°", 360 - angle, angle / 2, 180, 90 + angle),
                   symbols)
    else:
        text = number(volume, draw.volume_unit).text
        draw.require((r * r * h) % 3 == 0)
        facts[2] = condition(f"the volume is {text}", Note(f"V = {text}"))
        ask = find(draw, asked, "the height", number(h, draw.unit),
                   (f"Base = πr² = π × {r}² = {PI * r * r}", f"Height = 3 × {r * r * h // 3}π/({r * r}π) = {h}"),
                   lambda at: at.profiles["mantle"][0](1.0)[1], wrong(draw.unit, Fraction(h, 3), 3 * h, h + r, 2 * h),
                   {"r": r})
    return draw.finish(facts, ask, scene)


def sphere(draw: Draw) -> Problem:
    """A sphere or a half of one: volume, surface, the circle that a plane cuts out."""
    asked = draw.asked("volume", "surface", "half volume", "half surface", "section")
    r = draw.given("r", range(2, 61))
    view = _camera(draw)
    half = asked.startswith("half")
    outline = tuple(s.add(s.mul(view.right, r * math.cos(math.radians(d))),
                          s.mul(view.up, r * math.sin(math.radians(d))))
                    for d in range(0, 181 if half else 361, 5))
    base: list[s.Mark] = [Path(outline), Path(_ring(r, 0.0, -90, 90)), Path(_ring(r, 0.0, 90, 270), dashed=True)]
    center, rim = (0.0, 0.0, 0.0), (0.0, float(r), 0.0)
    R = draw.size(r)
    scene = _revolution(view, base, ball=[_arc(r, 0 if half else -90, 90)],
                        **({"base": [_line((0, 0), (r, 0))]} if half else {}))
    scene.points = {"M": center}
    scene.base += [Dot("M"), Name("M", "M")]
    kind = (draw.say("The solid is a hemisphere with centre M", "A hemisphere has the centre M")
            if half
            else draw.say("The solid is a sphere with centre M", "A sphere has the centre M"))
    facts = [description(kind),
             condition(f"the radius is {R}", Segment(center, rim, dashed=True), Length(center, rim, R))]
    volume, surface = PI * 4 * r**3 / 3, PI * 4 * r * r
    symbols = {"r": r}
    if asked == "volume":
        ask = find(draw, asked, "the volume", number(volume, draw.volume_unit),
                   (f"Volume = 4πr³/3 = 4π × {r}³/3 = {volume}",), measure.revolution_volume,
                   wrong(draw.volume_unit, surface, PI * r**3, volume / 2, volume * 8), symbols)
    elif asked == "surface":
        ask = find(draw, asked, "the surface area", number(surface, draw.area_unit),
                   (f"Surface = 4πr² = 4π × {r}² = {surface}",), measure.revolution_surface,
                   wrong(draw.area_unit, surface / 4, surface / 2, volume, surface * 4), symbols)
    elif asked == "half volume":
        ask = find(draw, asked, "the volume", number(volume / 2, draw.volume_unit),
                   (f"A whole sphere has the volume 4πr³/3 = 4π × {r}³/3 = {volume}.",
                    f"Volume = {volume}/2 = {volume / 2}"
                    if "/" not in str(volume)
                    else f"Volume = ({volume})/2 = {volume / 2}"),
                   measure.revolution_volume, wrong(draw.volume_unit, volume, volume / 4, PI * r**3, surface), symbols)
    elif asked == "half surface":
        total = PI * 3 * r * r
        ask = find(draw, asked, "the whole surface area, the flat face included", number(total, draw.area_unit),
                   (f"The round part has the area 2πr² = 2π × {r}² = {surface / 2}.",
                    f"The flat part has the area πr² = π × {r}² = {PI * r * r}.",
                    f"Surface = {surface / 2} + {PI * r * r} = {total}"),
                   measure.revolution_surface,
                   wrong(draw.area_unit, surface / 2, surface, surface + PI * r * r, volume), symbols)
    else:
        d = draw.given("d", range(1, 60))
        draw.require(0.3 <= d / r <= 0.85)
        square = r * r - d * d
        cut = math.sqrt(square)
        center_2, edge = (0.0, 0.0, float(d)), (0.0, cut, float(d))
        scene.base += [Path(_ring(cut, float(d)))]
        scene.points["P"] = edge
        facts[0] = description("A plane cuts a sphere with centre M in a circle")
        facts[1] = condition(f"the radius of the sphere is {R}", Segment(center, edge, dashed=True),
                             Length(center, edge, R))
        facts.append(condition(f"the plane is {draw.size(d)} away from M", Segment(center, center_2, dashed=True),
                               RightAngle(center, center_2, edge), Length(center, center_2, draw.size(d))))
        value = sqrt(square)
        ask = find(draw, asked, "the radius of the circle of intersection", number(value, draw.unit),
                   (f"By Pythagoras its square is {r}² - {d}² = {square}.", f"Radius = √{square} = {value}"),
                   lambda at: math.dist(at.points["P"], (0.0, 0.0, at.points["P"][2])),
                   wrong(draw.unit, r - d, sqrt(r * r + d * d), square, Fraction(r + d, 2)))
    return draw.finish(facts, ask, scene)


def frustum(draw: Draw) -> Problem:
    """A frustum of a cone: volume, slant height, lateral area."""
    asked = draw.asked("volume", "slant height", "lateral area")
    if asked == "lateral area":
        t, k = draw.given("triple", TRIPLES), draw.given("factor", range(1, 9))
        gap, h, _ = (k * side for side in t)
        small = draw.given("small", range(2, 26))
    else:
        small, gap, h = (draw.given("small", range(2, 21)), draw.given("gap", range(1, 16)),
                         draw.given("h", range(3, 41)))
    r = small + gap
    draw.require(0.5 <= h / r <= 2 and small >= 0.3 * r)
    view = s.orthographic(0.0, draw.free.uniform(19, 27))  # steeper: both radii need room for their sizes
    top, foot = (0.0, 0.0, float(h)), (0.0, 0.0, 0.0)
    edge_top, edge_low = (0.0, float(small), float(h)), (0.0, float(r), 0.0)
    scene = _revolution(view, _rings((r, 0.0), (small, float(h)), view), mantle=[_line((r, 0), (small, h))],
                        caps=[_line((0, 0), (r, 0)), _line((small, h), (0, h))])
    facts = [description(draw.say("The solid is a frustum of a right circular cone",
                                  "The tip of a right circular cone is cut off parallel to the base")),
             condition(f"the radius of the lower base is {draw.size(r)}", Segment(foot, edge_low, dashed=True),
                       Length(foot, edge_low, draw.size(r))),
             condition(f"the radius of the upper base is {draw.size(small)}", Segment(top, edge_top),
                       Length(top, edge_top, draw.size(small))),
             condition(f"the height is {draw.size(h)}", Segment(top, foot, dashed=True),
                       Length(top, foot, draw.size(h)))]
    slant = sqrt(gap * gap + h * h)
    side = (f"The radii differ by {r} - {small} = {gap}.", f"s² = {gap}² + {h}² = {gap * gap + h * h}",
            f"s = √{gap * gap + h * h} = {slant}")
    if asked == "volume":
        total = r * r + r * small + small * small
        volume = PI * total * h / 3
        ask = find(draw, asked, "the volume", number(volume, draw.volume_unit),
                   ("The volume is a third of πh times the sum of both squared radii and their product.",
                    f"{r}² + {r} × {small} + {small}² = {total}",
                    f"Volume = π × {h} × {total}/3 = {volume}"),
                   measure.revolution_volume,
                   wrong(draw.volume_unit, volume * 3, PI * (r * r + small * small) * h / 2,
                         PI * (r + small) ** 2 * h / 4, volume * 2))
    elif asked == "slant height":
        ask = find(draw, asked, "the slant height s", number(slant, draw.unit), side,
                   lambda at: math.dist(at.profiles["mantle"][0](0.0), at.profiles["mantle"][0](1.0)),
                   wrong(draw.unit, sqrt(r * r + h * h), gap + h, sqrt(abs(h * h - gap * gap)), gap * gap + h * h))
    else:
        mantle = PI * slant * (r + small)
        ask = find(draw, asked, "the lateral area", number(mantle, draw.area_unit),
                   (*side, f"Lateral area = π × ({r} + {small}) × s = π × {r + small} × {slant} = {mantle}"),
                   lambda at: measure.revolution_surface(at, "mantle"),
                   wrong(draw.area_unit, mantle * 2, PI * (r + small) * h, PI * r * slant, PI * small * slant),
                   {"s": float(slant)})
    return draw.finish(facts, ask, scene)


def composite(draw: Draw) -> Problem:
    """A cylinder with a cone or a hemisphere on top, or with a conical hole: volume and surface."""
    asked = draw.asked("cone on top", "half ball on top", "conical hole", "surface with half ball")
    r, h = draw.given("r", range(2, 25)), draw.given("h", range(2, 41))
    draw.require(0.5 <= h / r <= 2.5)
    view = _camera(draw)
    R, H = draw.size(r), draw.size(h)
    foot, rim, low, high = (0.0, 0.0, 0.0), (0.0, float(r), 0.0), (0.0, float(r), 0.0), (0.0, float(r), float(h))
    base = _rings((r, 0.0), (r, float(h)), view, capped=False)
    facts = [condition(f"the radius of the cylinder is {R}", Segment(foot, rim, dashed=True), Length(foot, rim, R)),
             condition(f"the height of the cylinder is {H}", Length(low, high, H))]
    cylinder_volume = PI * r * r * h
    step = f"The cylinder has the volume πr²h = π × {r}² × {h} = {cylinder_volume}."
    symbols = {"r": r, "h": h}
    mantle, bottom = _line((r, 0), (r, h)), _line((0, 0), (r, 0))
    if asked in ("cone on top", "conical hole"):
        k = draw.given("k", range(2, 31))
        draw.require(0.5 <= k / r <= 2 and (asked == "cone on top" or 0.4 * h <= k <= 0.9 * h))
        part = PI * r * r * k / 3
        K = draw.size(k)
        if asked == "cone on top":
            tip = (0.0, 0.0, float(h + k))
            base = (base[:1]
                    + base[1:2]
                    + base[3:]
                    + [Path(_ring(r, float(h), -90, 90))]
                    + [m for m in _rings((r, float(h)), (0.0, float(h + k)), view) if isinstance(m, Segment)])
            base = [m for m in base]
            scene = _revolution(view, base, body=[bottom, mantle, _line((r, h), (0, h + k))])
            facts.insert(0, description("A cone stands on a cylinder of the same radius"))
            facts.append(condition(f"the height of the cone is {K}", Segment(tip, (0.0, 0.0, float(h)), dashed=True),
                                   Length(tip, (0.0, 0.0, float(h)), K)))
            total = cylinder_volume + part
            steps = (step, f"The cone has the volume π × {r}² × {k}/3 = {part}.",
                     f"Volume = {cylinder_volume} + {bracketed(part)} = {total}")
        else:
            tip = (0.0, 0.0, float(h - k))
            base = _rings((r, 0.0), (r, float(h)), view)
            hole = [Segment((0.0, y, float(h)), tip, dashed=True) for y in (-float(r), float(r))]
            scene = _revolution(view, base + hole, body=[bottom, mantle, _line((r, h), (0, h - k))])
            facts.insert(
                0, description("A cone is drilled out of a cylinder from above; its opening is the whole upper face")
            )
            facts.append(condition(f"the hole is {K} deep", Segment((0.0, 0.0, float(h)), tip, dashed=True, thin=True),
                                   Length((0.0, 0.0, float(h)), tip, K)))
            total = cylinder_volume - part
            steps = (step, f"The hole has the volume π × {r}² × {k}/3 = {part}.",
                     f"Volume = {cylinder_volume} - {bracketed(part)} = {total}")
        ask = find(draw, asked, "the volume", number(total, draw.volume_unit), steps, measure.revolution_volume,
                   wrong(draw.volume_unit, cylinder_volume, cylinder_volume + part * 3, part,
                         cylinder_volume - part if asked == "cone on top" else cylinder_volume + part),
                   symbols)
        return draw.finish(facts, ask, scene)
    dome = tuple(s.add((0.0, 0.0, float(h)),
                       s.add(s.mul(view.right, r * math.cos(math.radians(d))),
                             s.mul(view.up, r * math.sin(math.radians(d)))))
                 for d in range(0, 181, 5))
    scene = _revolution(view, [*base, Path(dome)], body=[mantle, _arc(r, 0, 90, h)], bottom=[bottom])
    facts.insert(0, description("A hemisphere stands with its flat face on a cylinder of the same radius"))
    if asked == "half ball on top":
        part = PI * 2 * r**3 / 3
        total = cylinder_volume + part
        steps = (step, f"The hemisphere has the volume 2πr³/3 = 2π × {r}³/3 = {part}.",
                 f"Volume = {cylinder_volume} + {bracketed(part)} = {total}")
        ask = find(draw, asked, "the volume", number(total, draw.volume_unit), steps, measure.revolution_volume,
                   wrong(draw.volume_unit, cylinder_volume, cylinder_volume + part * 2, part, cylinder_volume - part),
                   symbols)
    else:
        sides, round_part, flat = PI * 2 * r * h, PI * 2 * r * r, PI * r * r
        total = sides + round_part + flat
        steps = (f"The side of the cylinder has the area 2πrh = 2π × {r} × {h} = {sides}.",
                 f"The hemisphere has the area 2πr² = 2π × {r}² = {round_part}.",
                 f"The bottom has the area πr² = π × {r}² = {flat}.",
                 f"Surface = {sides} + {round_part} + {flat} = {total}")
        ask = find(draw, asked, "the whole surface area, the bottom included", number(total, draw.area_unit), steps,
                   measure.revolution_surface,
                   wrong(draw.area_unit, sides + round_part, sides + round_part * 2, total + flat, sides + flat),
                   symbols)
    return draw.finish(facts, ask, scene)
