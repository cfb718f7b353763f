"""Solid geometry: polyhedra, solids of revolution, nets and stacks. Each public function is a family of problems."""

from problems import measure
from problems import scene as s
from problems.exact import number
from problems.problem import Ask, Draw, Problem, condition, description
from problems.scene import Length, Point, Scene


def _box(width: float, depth: float, height: float) -> tuple[list[Point], list[tuple[int, ...]]]:
    """Corners (bottom ring, then top ring) and faces of a cuboid, the faces anticlockwise from outside."""
    corners = [(x, y, z) for z in (0.0, float(height)) for x, y in ((0.0, 0.0), (width, 0.0), (width, depth), (0.0, depth))]
    faces = [(3, 2, 1, 0), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)]
    return [tuple(map(float, corner)) for corner in corners], faces


def _edges(corners: list[Point], faces: list[tuple[int, ...]], projection: s.Projection) -> list[s.Mark]:
    """The edges of a convex polyhedron, dashed where both faces beside them are turned away from the viewer."""
    visible: dict[tuple[int, int], bool] = {}
    for face in faces:
        a, b, c = (corners[k] for k in face[:3])
        seen = s.dot(s.cross(s.sub(b, a), s.sub(c, b)), projection.towards_viewer) > 1e-9
        for start, end in zip(face, face[1:] + face[:1], strict=True):
            edge = (min(start, end), max(start, end))
            visible[edge] = visible.get(edge, False) or seen
    return [s.Segment(corners[a], corners[b], dashed=not seen) for (a, b), seen in visible.items()]


def _view(draw: Draw) -> s.Projection:
    """A view of a box-like solid, as schoolbooks draw it or from a corner."""
    if draw.small or draw.free.random() < 0.5:
        return s.cabinet(draw.free.choice([35, 40, 45]), draw.free.choice([0.45, 0.5, 0.55]), draw.free.random() < 0.3)
    return s.orthographic(draw.free.uniform(-68, -52), draw.free.uniform(16, 26))


def _polyhedron(
    corners: list[Point], faces: list[tuple[int, ...]], projection: s.Projection, extra: list[s.Mark] | None = None
) -> Scene:
    return Scene(
        base=_edges(corners, faces, projection) + (extra or []),
        projection=projection,
        faces=[tuple(corners[k] for k in face) for face in faces],
    )


def cuboid(draw: Draw) -> Problem:
    """The edges of a cuboid are given; its volume or its surface is asked."""
    width, depth, height = (
        draw.given(name, range(2, 7) if draw.small else range(2, 16)) for name in ("width", "depth", "height")
    )
    draw.require(max(width, depth, height) <= 3.5 * min(width, depth, height))
    asked = draw.asked(*(("volume", "edge length") if draw.small else ("volume", "surface area", "edge length")))
    corners, faces = _box(width, depth, height)
    unit = draw.unit
    w, d, h = (number(v, unit).text for v in (width, depth, height))
    scene = _polyhedron(corners, faces, _view(draw))
    front_right = 1
    facts = [
        description(draw.say("Cuboid", "The solid is a cuboid", "The figure is a rectangular box")),
        condition(f"length {w}" if draw.small else f"the length is {w}", Length(corners[0], corners[front_right], w)),
        condition(f"width {d}" if draw.small else f"the width is {d}", Length(corners[1], corners[2], d)),
        condition(f"height {h}" if draw.small else f"the height is {h}", Length(corners[0], corners[4], h)),
    ]
    base_area = width * depth
    if asked == "volume":
        value = base_area * height
        ask = Ask(
            asked,
            draw.say("Find the volume.", "What is the volume of the cuboid?", "How much space does the box take up?"),
            "Find the volume",
            number(value, unit and unit + "³"),
            (
                "The volume is length × width × height.",
                f"Base = {width} × {depth} = {base_area}",
                f"Volume = {base_area} × {height} = {value}",
            ),
            measure.mesh_volume,
            mistakes=tuple(
                number(v, unit and unit + "³").text
                for v in (width + depth + height, value * 2, 2 * (base_area + depth * height + width * height), base_area)
            ),
        )
    elif asked == "surface area":
        sides = (base_area, depth * height, width * height)
        value = 2 * sum(sides)
        ask = Ask(
            asked,
            draw.say("Find the surface area.", "What is the total surface area of the cuboid?"),
            "Find the surface area",
            number(value, unit and unit + "²"),
            (
                "A cuboid has three pairs of equal faces.",
                f"The faces have areas {width} × {depth} = {sides[0]}, {depth} × {height} = {sides[1]} "
                f"and {width} × {height} = {sides[2]}.",
                f"Surface = 2 × ({sides[0]} + {sides[1]} + {sides[2]}) = 2 × {sum(sides)} = {value}",
            ),
            measure.mesh_surface,
            mistakes=tuple(
                number(v, unit and unit + "²").text for v in (sum(sides), base_area * height, value - 2 * base_area, value * 2)
            ),
        )
    else:
        total = 4 * (width + depth + height)
        ask = Ask(
            asked,
            draw.say("Add up all edges.", "What is the total length of all edges?", "How much wire is needed for a frame of all its edges?"),
            "Add up all edges",
            number(total, unit),
            (
                "Each of the three edge lengths occurs four times.",
                f"{width} + {depth} + {height} = {width + depth + height}",
                f"Total = 4 × {width + depth + height} = {total}",
            ),
            lambda scene: sum(s.norm(s.sub(mark.end, mark.start)) for mark in scene.base if isinstance(mark, s.Segment)),
            mistakes=tuple(
                number(v, unit).text for v in (total // 4, total // 2, 3 * (width + depth + height), width * depth * height)
            ),
        )
    return draw.finish(facts, ask, scene)


def cube(draw: Draw) -> Problem:
    """The edge of a cube is given; its volume or its surface is asked."""
    edge = draw.given("edge", range(2, 13) if draw.small else range(2, 41))
    asked = draw.asked("volume", "surface area") if not draw.small else draw.asked("surface area", "face area")
    corners, faces = _box(edge, edge, edge)
    unit = draw.unit
    e = number(edge, unit).text
    scene = _polyhedron(corners, faces, _view(draw))
    facts = [
        description(draw.say("Cube", "The solid is a cube")),
        condition(f"edge {e}" if draw.small else f"its edges are {e} long", Length(corners[0], corners[1], e)),
    ]
    face = edge * edge
    if asked == "volume":
        answer, power = number(edge**3, unit and unit + "³"), "³"
        question = draw.say("Find the volume.", "What is the volume of the cube?")
        steps = ("The volume of a cube is the third power of its edge.", f"Volume = {edge}³ = {edge**3}")
        wrong, measured = (face, 6 * face, 3 * edge, 12 * edge), measure.mesh_volume
    elif asked == "face area":
        answer, power = number(face, unit and unit + "²"), "²"
        question, steps = "Find the area of a face.", (f"Area = {edge} × {edge} = {face}",)
        wrong, measured = (), lambda scene: measure.face_area(scene.faces[0])
    else:
        answer, power = number(6 * face, unit and unit + "²"), "²"
        question = draw.say("Find the surface.", "Find the surface area of the cube.", "What is the cube's surface area?")
        steps = (
            "A cube has six equal square faces.",
            f"Face = {edge} × {edge} = {face}",
            f"Surface = 6 × {face} = {6 * face}",
        )
        wrong, measured = (face, 4 * face, edge**3, 12 * edge), measure.mesh_surface
    ask = Ask(
        asked, question, {"volume": "Find the volume", "face area": "Find a face area"}.get(asked, "Find the surface"),
        answer, steps, measured, mistakes=tuple(number(v, unit and unit + power).text for v in wrong),
    )
    return draw.finish(facts, ask, scene)
