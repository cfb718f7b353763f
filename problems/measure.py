"""Measures answers off a scene: by coordinates in the plane, by the surface in space, by sampling for curves.

Nothing here knows a family or a formula of one. The Solver's answers must agree with these to 1e-6.
"""

import math
from collections.abc import Callable, Sequence

import numpy

from problems.scene import Place, Point, Scene

_NODES, _WEIGHTS = numpy.polynomial.legendre.leggauss(24)
_NODES, _WEIGHTS = ((_NODES + 1) / 2).tolist(), (_WEIGHTS / 2).tolist()
Function = Callable[[float], float]


def distance(scene: Scene, start: Place, end: Place) -> float:
    """The distance of two places, in the plane or in space."""
    return math.dist(scene.at(start), scene.at(end))


def angle(scene: Scene, first: Place, vertex: Place, last: Place) -> float:
    """The angle first-vertex-last in degrees, 0 to 180, in the plane or in space."""
    corner = scene.at(vertex)
    a = [x - y for x, y in zip(scene.at(first), corner, strict=True)]
    b = [x - y for x, y in zip(scene.at(last), corner, strict=True)]
    inner = sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
    return math.degrees(math.acos(max(-1.0, min(1.0, inner))))


def perimeter(scene: Scene, corners: Sequence[Place]) -> float:
    """The length of a closed line through the corners."""
    return sum(distance(scene, a, b) for a, b in zip(corners, [*corners[1:], corners[0]], strict=True))


def area(scene: Scene, corners: Sequence[Place]) -> float:
    """Area of a plane polygon by the shoelace sum."""
    points = [scene.at(corner) for corner in corners]
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, points[1:] + points[:1], strict=True))) / 2


def distance_to_line(scene: Scene, place: Place, start: Place, end: Place) -> float:
    """The distance of a place from the line through two others, in the plane."""
    (x, y), (x1, y1), (x2, y2) = scene.at(place), scene.at(start), scene.at(end)
    return abs((x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)) / math.hypot(x2 - x1, y2 - y1)


def integral(function: Function, low: float, high: float, pieces: int = 1) -> float:
    """Gauss-Legendre quadrature."""
    width = (high - low) / pieces
    starts = [low + piece * width for piece in range(pieces)]
    return width * sum(w * function(s + x * width) for s in starts for x, w in zip(_NODES, _WEIGHTS, strict=True))


def arc_length(scene: Scene, circle: str, degrees: float) -> float:
    """Length of the part of a circle that an angle at its centre cuts out, by integrating along it."""
    radius = scene.circles[circle][1]
    return integral(lambda t: math.hypot(radius * math.sin(t), radius * math.cos(t)), 0, math.radians(degrees), 4)


def sector_area(radius: float, degrees: float) -> float:
    """Area that a radius sweeps over while it turns, by Green's theorem along the arc."""

    def swept(t: float) -> float:
        x, y = radius * math.cos(t), radius * math.sin(t)
        return (x * radius * math.cos(t) + y * radius * math.sin(t)) / 2

    return integral(swept, 0, math.radians(degrees), 4)


def disc_area(radius: float) -> float:
    """Area of a disc: the ring lengths added up."""

    def ring(r: float) -> float:
        return integral(lambda t: math.hypot(r * math.sin(t), r * math.cos(t)), 0, 2 * math.pi, 2)

    return integral(ring, 0, radius)


# ---------------------------------------------------------------------------------------------------------------------
# Solids


def _triangles(scene: Scene) -> list[tuple[Point, Point, Point]]:
    return [(face[0], face[k], face[k + 1]) for face in scene.faces for k in range(1, len(face) - 1)]


def mesh_volume(scene: Scene) -> float:
    """Volume of the closed polyhedron, as signed tetrahedra over its triangulated faces."""
    total = 0.0
    for (ax, ay, az), (bx, by, bz), (cx, cy, cz) in _triangles(scene):
        total += ax * (by * cz - bz * cy) - ay * (bx * cz - bz * cx) + az * (bx * cy - by * cx)
    return abs(total) / 6


def face_area(face: Sequence[Point]) -> float:
    """The area of a flat face in space."""
    total = 0.0
    for k in range(1, len(face) - 1):
        u = [x - y for x, y in zip(face[k], face[0], strict=True)]
        v = [x - y for x, y in zip(face[k + 1], face[0], strict=True)]
        total += math.hypot(u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]) / 2
    return total


def mesh_surface(scene: Scene, upright_only: bool = False) -> float:
    """Area of all faces, or only of those that are not horizontal."""
    chosen = [f for f in scene.faces if not (upright_only and max(p[2] for p in f) - min(p[2] for p in f) < 1e-9)]
    return sum(face_area(face) for face in chosen)


def revolution_volume(scene: Scene) -> float:
    """Volume of the solids of revolution in the scene: discs along each profile t -> (r, z), upward pieces positive."""
    total = 0.0
    for pieces in scene.profiles.values():
        for piece in pieces:
            total += integral(lambda t, piece=piece: math.pi * piece(t)[0] ** 2 * _slope(piece, t)[1], 0, 1)
    return abs(total)


def revolution_surface(scene: Scene, *profiles: str) -> float:
    """Area that the named profiles (all when none is named) sweep round the axis."""
    total = 0.0
    for name in profiles or scene.profiles:
        for piece in scene.profiles[name]:
            total += integral(lambda t, piece=piece: 2 * math.pi * piece(t)[0] * math.hypot(*_slope(piece, t)), 0, 1)
    return total


def _slope(piece: Callable[[float], Point], t: float) -> tuple[float, float]:
    step = 1e-3  # a five-point stencil: exact for the lines and to 1e-12 for the arcs that occur
    (r1, z1), (r2, z2), (r3, z3), (r4, z4) = (piece(t + k * step) for k in (-2, -1, 1, 2))
    return ((r1 - 8 * r2 + 8 * r3 - r4) / (12 * step), (z1 - 8 * z2 + 8 * z3 - z4) / (12 * step))


# ---------------------------------------------------------------------------------------------------------------------
# Curves


def crossing(function: Function, low: float, high: float) -> float:
    """The place in [low, high] where the function changes sign, by bisection."""
    sign = function(low) > 0
    for _ in range(200):
        middle = (low + high) / 2
        if (function(middle) > 0) == sign:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def crossings(function: Function, low: float, high: float, samples: int = 400) -> list[float]:
    """All changes of sign of a continuous function in [low, high]."""
    offset = (high - low) * 1.2345e-4  # keeps sample points off round numbers, where roots lie
    xs = [low - offset + (high - low + 2 * offset) * k / samples for k in range(samples + 1)]
    values = [function(x) for x in xs]
    return [
        crossing(function, xs[k], xs[k + 1])
        for k in range(samples)
        if math.isfinite(values[k]) and math.isfinite(values[k + 1]) and (values[k] > 0) != (values[k + 1] > 0)
    ]


def derivative(function: Function, x: float, step: float = 1e-3) -> float:
    """The derivative at x, by the five-point formula."""
    a, b, c, d = (function(x + k * step) for k in (-2, -1, 1, 2))
    return (a - 8 * b + 8 * c - d) / (12 * step)


def extremum(function: Function, low: float, high: float) -> tuple[float, float]:
    """The turning point in [low, high]: where the slope changes sign, and the value there."""
    x = crossing(lambda t: derivative(function, t), low, high)
    return x, function(x)


def greatest(function: Function, low: float, high: float, sign: int = 1) -> tuple[float, float]:
    """Where a curve with one peak (a corner too) in [low, high] is greatest (sign = -1: least), by ternary search."""
    for _ in range(200):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if sign * function(left) < sign * function(right):
            low = left
        else:
            high = right
    x = (low + high) / 2
    return x, function(x)


def edge_of_domain(function: Function, outside: float, inside: float) -> float:
    """Where the function begins to be defined between a place outside its domain and one inside."""
    for _ in range(200):
        middle = (outside + inside) / 2
        if math.isfinite(function(middle)):
            inside = middle
        else:
            outside = middle
    return inside
