"""Solid geometry: polyhedra, nets and stacks. Each public function is a family of problems."""

import math
from fractions import Fraction

from problems import measure
from problems import scene as s
from problems.exact import number, sqrt
from problems.families.common import bracketed, find, length_fact
from problems.problem import Ask, Draw, Problem, condition, description, wrong
from problems.scene import Angle, Length, Name, Note, Point, RightAngle, Scene, Segment, Ticks


def _faces(corners: list[Point], faces: list[tuple[int, ...]], projection: s.Projection, extra: list[s.Mark]) -> Scene:
    """The scene of a convex polyhedron; edges are dashed where both faces beside them are turned away."""
    visible: dict[tuple[int, int], bool] = {}
    for face in faces:
        a, b, c = (corners[k] for k in face[:3])
        seen = s.dot(s.cross(s.sub(b, a), s.sub(c, b)), projection.towards_viewer) > 1e-9
        for start, end in zip(face, face[1:] + face[:1], strict=True):
            edge = (min(start, end), max(start, end))
            visible[edge] = visible.get(edge, False) or seen
    edges = [Segment(corners[a], corners[b], dashed=not seen) for (a, b), seen in visible.items()]
    return Scene(base=edges + extra, projection=projection, faces=[tuple(corners[k] for k in face) for face in faces])


def _prism(ring: list[tuple[float, float]], height: float) -> tuple[list[Point], list[tuple[int, ...]]]:
    """Corners and faces of an upright prism over an anticlockwise ring: bottom corners, then top corners."""
    n = len(ring)
    corners = [(float(x), float(y), z) for z in (0.0, float(height)) for x, y in ring]
    walls = [(k, (k + 1) % n, n + (k + 1) % n, n + k) for k in range(n)]
    return corners, [tuple(reversed(range(n))), tuple(range(n, 2 * n)), *walls]


def _box(width: float, depth: float, height: float) -> tuple[list[Point], list[tuple[int, ...]]]:
    return _prism([(0, 0), (width, 0), (width, depth), (0, depth)], height)


def _view(draw: Draw) -> s.Projection:
    """A view of a box-like solid, as schoolbooks draw it or from a corner."""
    if draw.small or draw.free.random() < 0.5:
        return s.cabinet(draw.free.choice([35, 40, 45]), draw.free.choice([0.45, 0.5, 0.55]))
    return s.orthographic(draw.free.uniform(-68, -52), draw.free.uniform(16, 26))


def cuboid(draw: Draw) -> Problem:
    """The edges of a cuboid: volume, surface, total edge length, or an edge back from the volume."""
    names = ("width", "depth", "height")
    width, depth, height = (draw.given(name, range(2, 7) if draw.small else range(2, 31)) for name in names)
    draw.require(max(width, depth, height) <= 3.5 * min(width, depth, height))
    asked = draw.asked(*(("volume", "edges") if draw.small else ("volume", "surface", "edges", "height")))
    corners, faces = _box(width, depth, height)
    w, d, h = (draw.size(v) for v in (width, depth, height))
    scene = _faces(corners, faces, _view(draw), [])
    the, is_ = ("", "") if draw.small else ("the ", "is ")
    facts = [description(draw.say("The solid is a cuboid", "A solid has the shape of a rectangular box",
                                  brief="Cuboid")),
             condition(f"{the}length {is_}{w}", Length(corners[0], corners[1], w)),
             condition(f"{the}width {is_}{d}", Length(corners[1], corners[2], d)),
             condition(f"{the}height {is_}{h}", Length(corners[0], corners[4], h))]
    base, volume, total = width * depth, width * depth * height, width + depth + height
    if asked == "volume":
        steps = ("The volume is length times width times height.", f"Base = {width} × {depth} = {base}",
                 f"Volume = {base} × {height} = {volume}")
        ask = find(draw, asked, "the volume", number(volume, draw.volume_unit), steps, measure.mesh_volume,
                   wrong(draw.volume_unit, total, volume * 2, 2 * (base + depth * height + width * height), base,
                         volume // 2))
    elif asked == "surface":
        sides = (base, depth * height, width * height)
        value = 2 * sum(sides)
        steps = ("A cuboid has three pairs of equal faces.",
                 f"The faces are {width} × {depth} = {sides[0]}, {depth} × "
                 f"{height} = {sides[1]} and {width} × {height} = {sides[2]}.",
                 f"Surface = 2 × ({sides[0]} + {sides[1]} + {sides[2]}) = 2 × {sum(sides)} = {value}")
        ask = find(draw, asked, "the surface area", number(value, draw.area_unit), steps, measure.mesh_surface,
                   wrong(draw.area_unit, sum(sides), volume, value - 2 * base, value * 2))
    elif asked == "edges":
        steps = ("Each of the three edge lengths occurs four times.", f"{width} + {depth} + {height} = {total}",
                 f"Total = 4 × {total} = {4 * total}")
        ask = find(draw, asked, "the edge sum" if draw.small else "the total length of all edges",
                   number(4 * total, draw.unit), steps,
                   lambda at: sum(s.norm(s.sub(m.end, m.start)) for m in at.base if isinstance(m, Segment)),
                   wrong(draw.unit, total, 2 * total, 3 * total, volume))
    else:
        facts[3] = condition(f"the volume is {number(volume, draw.volume_unit).text}",
                             Note(f"V = {number(volume, draw.volume_unit).text}"))
        steps = ("The height is the volume divided by the area of the base.", f"Base = {width} × {depth} = {base}",
                 f"Height = {volume}/{base} = {height}")
        ask = find(draw, asked, "the height", number(height, draw.unit), steps,
                   lambda at: at.faces[1][0][2] - at.faces[0][0][2],
                   wrong(draw.unit, depth * height, width * height, height + 1, total))
    return draw.finish(facts, ask, scene)


def cube(draw: Draw) -> Problem:
    """A cube: volume, surface, space diagonal, or the edge back from the surface."""
    edge = draw.given("edge", range(2, 13) if draw.small else range(2, 100))
    asked = draw.asked("surface", "face") if draw.small else draw.asked("volume", "surface", "diagonal", "edge")
    draw.require(draw.small or asked in ("diagonal", "edge") or edge <= 60)
    corners, faces = _box(edge, edge, edge)
    scene, face = _faces(corners, faces, _view(draw), []), edge * edge
    equal = () if draw.small else [Ticks(corners[start], corners[end]) for start, end in ((0, 1), (1, 2), (1, 5))]
    facts = [description(draw.say("The solid is a cube", "A solid has the shape of a cube", brief="Cube"), *equal),
             condition(f"edge {edge}" if draw.small else f"the edges are {draw.size(edge)} long",
                       Length(corners[0], corners[1], draw.size(edge)))]
    if asked == "volume":
        steps = ("The volume of a cube is the third power of its edge.", f"Volume = {edge}³ = {edge**3}")
        ask = find(draw, asked, "the volume", number(edge**3, draw.volume_unit), steps, measure.mesh_volume,
                   wrong(draw.volume_unit, face, 6 * face, 3 * edge, 12 * edge))
    elif asked == "face":
        ask = find(draw, asked, "the face area", number(face), (f"Area = {edge} × {edge} = {face}",),
                   lambda at: measure.face_area(at.faces[0]))
    elif asked == "surface":
        steps = ("A cube has six equal square faces.", f"Face = {edge} × {edge} = {face}",
                 f"Surface = 6 × {face} = {6 * face}")
        ask = find(draw, asked, "the surface" if draw.small else "the surface area", number(6 * face, draw.area_unit),
                   steps, measure.mesh_surface, wrong(draw.area_unit, face, 4 * face, edge**3, 12 * edge))
    elif asked == "diagonal":
        steps = ("Pythagoras, used twice, gives the square of the diagonal as three times the square of the edge.",
                 f"d² = {edge}² + {edge}² + {edge}² = {3 * face}", f"d = √{3 * face} = {sqrt(3 * face)}")
        ask = find(draw, asked, "the space diagonal d", number(sqrt(3 * face), draw.unit), steps,
                   lambda at: math.dist(min(p for f in at.faces for p in f), max(p for f in at.faces for p in f)),
                   wrong(draw.unit, sqrt(2 * face), 3 * edge, 2 * edge, 3 * face))
        scene.base.append(Segment(min(corners), max(corners), thin=True, dashed=True))
    else:
        text = number(6 * face, draw.area_unit).text
        facts[1] = condition(f"the surface area is {text}", Note(f"surface area {text}"))
        steps = ("A cube has six equal square faces.", f"Face = {6 * face}/6 = {face}", f"Edge = √{face} = {edge}")
        ask = find(draw, asked, "the edge", number(edge, draw.unit), steps, lambda at: math.dist(*at.faces[1][:2]),
                   wrong(draw.unit, face, 2 * edge, edge + 1, Fraction(face, 4)))
    return draw.finish(facts, ask, scene)


def triangular_prism(draw: Draw) -> Problem:
    """An upright prism over a right triangle: volume, lateral area, whole surface."""
    asked = draw.asked("volume", "surface", "lateral area")
    t, k = (draw.given("triple", ((3, 4, 5), (4, 3, 5), (5, 12, 13), (12, 5, 13), (8, 15, 17), (15, 8, 17))),
            draw.given("factor", range(1, 6)))
    p, q, far = (k * side for side in t)
    if asked == "volume":
        p, q = draw.given("p", range(3, 31)), draw.given("q", range(3, 31))
        far = sqrt(p * p + q * q)
    height = draw.given("height", range(4, 60))
    draw.require(max(p, q) <= 2.6 * min(p, q) and 0.6 <= height / max(p, q) <= 1.8)
    corners, faces = _prism([(0, 0), (p, 0), (0, q)], height)
    projection = s.orthographic(draw.free.uniform(-70, -48), draw.free.uniform(20, 30))
    scene = _faces(corners, faces, projection, [RightAngle(corners[4], corners[3], corners[5])])
    P, Q, H = (draw.size(v) for v in (p, q, height))
    facts = [description("The solid is a right prism whose base is a right triangle"),
             condition(f"the legs of the triangle are {P} and {Q}", Length(corners[3], corners[4], P),
                       Length(corners[3], corners[5], Q)),
             condition(f"the height of the prism is {H}", Length(corners[1], corners[4], H))]
    base = Fraction(p * q, 2)
    b = number(base).text
    if asked == "volume":
        value = base * height
        steps = (f"Base = {p} × {q}/2 = {b}", f"Volume = {bracketed(base)} × {height} = {number(value).text}")
        ask = find(draw, asked, "the volume", number(value, draw.volume_unit), steps, measure.mesh_volume,
                   wrong(draw.volume_unit, value * 2, value / 3, p + q + height, p * q + height))
    else:
        mantle = (p + q + far) * height
        steps = (f"The third side of the triangle is √({p}² + {q}²) = √{p * p + q * q} = {far}.",
                 f"Lateral area = ({p} + {q} + {far}) × {height} = {p + q + far} × {height} = {mantle}")
        value = mantle
        if asked == "surface":
            value = mantle + p * q
            steps = (*steps, f"Both triangles together have the area {p} × {q} = {p * q}.",
                     f"Surface = {mantle} + {p * q} = {value}")
        what = "the lateral area" if asked == "lateral area" else "the surface area"
        ask = find(draw, asked, what, number(value, draw.area_unit), steps,
                   lambda at: measure.mesh_surface(at, upright_only=asked == "lateral area"),
                   wrong(draw.area_unit, mantle + base, (p + q) * height, base * height, mantle + 2 * p * q))
    return draw.finish(facts, ask, scene)


def box_diagonal(draw: Draw) -> Problem:
    """Inside a cuboid: the diagonal of the base, the space diagonal, the shortest way over two faces."""
    asked = draw.asked("face diagonal", "space diagonal", "shortest way")
    a, b = draw.given("width", range(2, 31)), draw.given("depth", range(2, 31))
    c = (draw.free.randrange(min(a, b), max(a, b) + 1)
         if asked == "face diagonal"
         else draw.given("height", range(2, 31)))
    draw.require(max(a, b, c) <= 2.6 * min(a, b, c))
    corners, faces = _box(a, b, c)
    row = "ABCDEFGH"
    projection = _view(draw)
    points = dict(zip(row, corners, strict=True))
    scene = _faces(corners, faces, projection, [Name(name, name) for name in ("A", "B", "C", "G")])
    scene.points = {name: points[name] for name in ("A", "B", "C", "G")}
    size = draw.size
    facts = [description("A rectangular box stands on its base ABCD, and G is the corner above C"),
             length_fact("A", "B", size(a)), length_fact("B", "C", size(b)), length_fact("C", "G", size(c))]
    flat, space = a * a + b * b, a * a + b * b + c * c
    symbols = {"AB": a, "BC": b, "CG": c}
    if asked == "face diagonal":
        facts.pop()
        scene.base.append(Segment("A", "C", thin=True, dashed=True))  # it lies in the hidden base
        steps = (f"AC² = AB² + BC² = {a}² + {b}² = {flat}", f"AC = √{flat} = {sqrt(flat)}")
        ask = find(draw, asked, "AC", number(sqrt(flat), draw.unit), steps, lambda at: measure.distance(at, "A", "C"),
                   wrong(draw.unit, a + b, flat, sqrt(space), sqrt(flat + 1)), symbols)
    elif asked == "space diagonal":
        scene.base += [Segment("A", "C", thin=True, dashed=True), Segment("A", "G", thin=True, dashed=True)]
        steps = (f"AC² = AB² + BC² = {a}² + {b}² = {flat}", f"AG² = AC² + CG² = {flat} + {c}² = {space}",
                 f"AG = √{space} = {sqrt(space)}")
        ask = find(draw, asked, "AG", number(sqrt(space), draw.unit), steps, lambda at: measure.distance(at, "A", "G"),
                   wrong(draw.unit, a + b + c, space, sqrt(flat), sqrt(flat) + c), symbols | {"AC": math.sqrt(flat)})
    else:
        square = (a + b) ** 2 + c * c
        steps = ("Unfold the two side faces into one rectangle; the shortest way is its diagonal.",
                 f"The rectangle is AB + BC = {a} + {b} = {a + b} wide and {c} high.",
                 f"d² = {a + b}² + {c}² = {square}", f"d = √{square} = {sqrt(square)}")
        ask = Ask(asked,
                  "An ant walks from A to G over the two side faces that stand "
                  "on AB and BC. What is the length d of its shortest way?",
                  "Shortest way from A to G over the faces on AB, BC?", number(sqrt(square), draw.unit), steps,
                  _unfolded, wrong(draw.unit, sqrt(space), a + b + c, sqrt(flat) + c, square), symbols)
    return draw.finish(facts, ask, scene)


def _unfolded(at: Scene) -> float:
    """Length of the shortest way from A to G over two walls, by trying where it crosses the edge above B."""
    corner, top = at.points["B"], at.points["G"][2]

    def way(height: float) -> float:
        crossing = (corner[0], corner[1], height)
        return math.dist(at.points["A"], crossing) + math.dist(crossing, at.points["G"])

    return measure.greatest(way, 0.0, top, sign=-1)[1]


def square_pyramid(draw: Draw) -> Problem:
    """A square pyramid: volume, slant height, lateral area, lateral edge, or the height back from the volume."""
    asked = draw.asked("volume", "slant height", "lateral area", "lateral edge", "height")
    t, k = (draw.given("triple",
                       ((3, 4, 5), (4, 3, 5), (5, 12, 13), (8, 15, 17), (15, 8, 17), (12, 5, 13), (20, 21, 29))),
            draw.given("factor", range(1, 9)))
    half, height, slant = (k * side for side in t)
    side = 2 * half
    if asked in ("volume", "height", "lateral edge"):
        side, height = 2 * draw.given("half", range(2, 31)), draw.given("height", range(3, 70))
        half = side // 2
    draw.require(0.45 <= height / side <= 1.7)
    corners = [(-half, -half, 0.0), (half, -half, 0.0), (half, half, 0.0), (-half, half, 0.0),
               (0.0, 0.0, float(height))]
    corners = [tuple(map(float, corner)) for corner in corners]
    faces = [(3, 2, 1, 0), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)]
    projection = s.orthographic(draw.free.uniform(-72, -55), draw.free.uniform(14, 24))
    foot = (0.0, 0.0, 0.0)
    scene = _faces(corners, faces, projection, [])
    scene.points = {"S": corners[4]}
    scene.base.append(Name("S", "S"))
    a, h = draw.size(side), draw.size(height)
    upright = (Segment(corners[4], foot, dashed=True), Length(corners[4], foot, h))
    facts = [description("The solid is a right pyramid with a square base and apex S", Ticks(corners[0], corners[1]),
                         Ticks(corners[1], corners[2]), RightAngle(corners[0], corners[1], corners[2])),
             condition(f"the side of the base is {a}", Length(corners[0], corners[1], a)),
             condition(f"the height is {h}", *upright)]
    symbols = {"a": side, "h": height}
    if asked == "volume":
        value = Fraction(side * side * height, 3)
        steps = ("A pyramid fills a third of the prism over its base.",
                 f"Volume = {side}² × {height}/3 = {side * side * height}/3"
                 + (f" = {value}" if value.denominator == 1 else ""))
        ask = find(draw, asked, "the volume", number(value, draw.volume_unit), steps, measure.mesh_volume,
                   wrong(draw.volume_unit, value * 3, value * 3 / 2, 4 * side * height, side * height))
    elif asked == "height":
        volume = Fraction(side * side * height, 3)
        draw.require(volume.denominator == 1)
        facts[2] = condition(f"the volume is {number(volume, draw.volume_unit).text}",
                             Note(f"V = {number(volume, draw.volume_unit).text}"))
        steps = ("The volume is a third of base times height.", f"Base = {side}² = {side * side}",
                 f"h = 3 × {volume}/{side * side} = {height}")
        ask = find(draw, asked, "the height h", number(height, draw.unit), steps, lambda at: at.points["S"][2],
                   wrong(draw.unit, Fraction(height, 3), height * 3, height + side, Fraction(height * side, 2)))
    elif asked == "lateral edge":
        square = 2 * half * half + height * height
        steps = ("The foot of the height is half a diagonal away from a corner; "
                 f"the square of that is {half}² + {half}² = {2 * half * half}.",
                 f"s² = {height}² + {2 * half * half} = {square}",
                 f"s = √{square} = {sqrt(square)}")
        ask = find(draw, asked, "the lateral edge s", number(sqrt(square), draw.unit), steps,
                   lambda at: math.dist(at.faces[1][0], at.faces[1][2]),
                   wrong(draw.unit, sqrt(half**2 + height**2), side + height, sqrt(side**2 + height**2), square))
    else:
        steps = ("The slant height is the hypotenuse over half the base side and the height.",
                 f"s² = {half}² + {height}² = {slant * slant}", f"s = √{slant * slant} = {slant}")

        def slant_of(at: Scene) -> float:
            a, b, top = at.faces[1]
            return math.dist(s.between(a, b, 0.5), top)

        if asked == "slant height":
            ask = find(draw, asked, "the slant height s", number(slant, draw.unit), steps, slant_of,
                       wrong(draw.unit, half + height, side + height, sqrt(side**2 + height**2),
                             sqrt(abs(height**2 - half**2))))
        else:
            value = 2 * side * slant
            steps = (*steps, f"Lateral area = 4 × {side} × {slant}/2 = {value}")
            ask = find(draw, asked, "the lateral area", number(value, draw.area_unit), steps,
                       lambda at: measure.mesh_surface(at, upright_only=True),
                       wrong(draw.area_unit, value * 2, value + side**2, 2 * side * height, side * slant))
    ask.symbols.update({} if asked == "height" else symbols)
    return draw.finish(facts, ask, scene)


def line_and_base(draw: Draw) -> Problem:
    """The angle between a box's diagonal and its base; a rod that leans in a box."""
    asked = draw.asked("angle", "height", "face angle")
    t = draw.given("triple",
                   ((3, 4, 5), (4, 3, 5), (8, 6, 10), (6, 8, 10), (5, 12, 13), (12, 5, 13), (9, 12, 15), (8, 15, 17),
                    (15, 8, 17)))
    k = draw.given("factor", range(1, 4))
    a, b, flat = (k * side for side in t)
    c = flat // 2 if asked == "height" else draw.given("height", range(3, 31))
    draw.require(max(a, b) <= 2.5 * min(a, b) and 0.35 <= c / flat <= 1.3)
    corners, faces = _box(a, b, c)
    names = {"A": corners[0], "B": corners[1], "C": corners[2], "G": corners[6]}
    extra: list[s.Mark] = [Name(n, n) for n in names]
    if asked == "face angle":
        extra.append(Segment("B", "G", thin=True))
    else:
        extra += [Segment("A", "C", thin=True, dashed=True), Segment("A", "G", thin=True, dashed=True)]
    scene = _faces(corners, faces, s.orthographic(draw.free.uniform(-66, -52), draw.free.uniform(20, 28)), extra)
    scene.points = names
    size = draw.size
    facts = [description("A rectangular box stands on its base ABCD, and G is the corner above C"),
             length_fact("A", "B", size(a)), length_fact("B", "C", size(b))]
    symbols = {"AB": a, "BC": b}
    start = f"AC² = AB² + BC² = {a}² + {b}² = {flat * flat}, so AC = √{flat * flat} = {flat}."
    if asked == "height":
        degrees = draw.given("angle", (30, 45, 60))
        value = {30: sqrt(3) / 3, 45: 1, 60: sqrt(3)}[degrees] * flat
        top = (float(a), float(b), float(value))
        corners, faces = _box(a, b, float(value))
        draw.require(0.35 <= float(value) / flat <= 1.3)
        names["G"] = top
        scene = _faces(corners, faces, scene.projection, extra)
        scene.points = names
        facts.append(condition(f"the diagonal AG makes an angle of {degrees}° with the base",
                               Angle("C", "A", "G", f"{degrees}°")))
        tangent = {30: "√3/3", 45: "1", 60: "√3"}[degrees]
        steps = (start, f"CG = AC × tan({degrees}°) = {flat} × {tangent} = {number(value).text}")
        ask = find(draw, asked, "CG", number(value, draw.unit), steps, lambda at: measure.distance(at, "C", "G"),
                   wrong(draw.unit, flat, sqrt(2) * flat, sqrt(3) * a, Fraction(flat, 2)), symbols)
    else:
        facts.append(length_fact("C", "G", size(c)))
        symbols["CG"] = c
        under, name, base_name = (flat, "∠GAC", "AC") if asked == "angle" else (b, "∠GBC", "BC")
        degrees = math.degrees(math.atan2(c, under))
        shown = f"{degrees:.1f}"
        answer = type(number(1))(f"{shown}°", (degrees,))
        steps = ((start,) if asked == "angle" else ()) + ("The angle lies in a right triangle whose legs are known.",
                                                          f"tan({name}) = CG/{base_name} = {c}/{under}",
                                                          f"{name} = arctan({c}/{under}) ≈ {shown}°")
        first = "A" if asked == "angle" else "B"
        question = ("What angle does the diagonal AG make with the base"
                    if asked == "angle"
                    else "What angle does BG make with the edge BC") + ", to one decimal place?"
        ask = Ask(asked,
                  question,
                  f"Find angle G{first}C to 1 decimal",
                  answer,
                  steps,
                  lambda at: measure.angle(at, "G", first, "C"),
                  tuple(
                      f"{v:.1f}°"
                      for v in (
                          90 - degrees,
                          math.degrees(math.atan2(c, a)),
                          math.degrees(math.asin(min(1, c / (under + c)))),
                          degrees + 10,
                      )
                  ),
                  symbols | {name: degrees})
    return draw.finish(facts, ask, scene)
