"""A scene: the coordinates of one figure, what is always drawn of it, and the marks that carry facts.

Scenes live in the problem's own units, drawn to scale, in two dimensions, or in three with a projection. The Plotter
(figure.py) turns them into pixels; the measurer (measure.py) reads answers off them. Neither knows the other.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Point = tuple[float, ...]
Place = str | Point  # a named point, or coordinates

# ---------------------------------------------------------------------------------------------------------------------
# Marks. A family lists them as the base of its figure or as the picture form of a fact.


@dataclass(frozen=True)
class Segment:
    """A straight line; `arrow` puts a head on its end, `thin` is for auxiliary lines."""

    start: Place
    end: Place
    dashed: bool = False
    thin: bool = False
    arrow: bool = False


@dataclass(frozen=True)
class Path:
    """A line through many points: a curve, or the projection of a round edge."""

    points: tuple[Point, ...]
    dashed: bool = False
    thin: bool = False


@dataclass(frozen=True)
class Circle:
    """A circle of a plane figure."""

    center: Place
    radius: float


@dataclass(frozen=True)
class Arc:
    """Part of a circle, anticlockwise from `start` to `end` (degrees)."""

    center: Place
    radius: float
    start: float
    end: float
    dashed: bool = False


@dataclass(frozen=True)
class Shade:
    """A shaded region: its outline, and holes left white."""

    outline: tuple[Place, ...]
    holes: tuple[tuple[Place, ...], ...] = ()
    darker: bool = False


@dataclass(frozen=True)
class Dot:
    """A point drawn as a small disc, or as a ring where it does not belong to the curve."""

    at: Place
    open: bool = False


@dataclass(frozen=True)
class Name:
    """The name of a point, or the coordinates of one, set beside it."""

    at: Place
    text: str
    italic: bool = True


@dataclass(frozen=True)
class Angle:
    """The angle first-vertex-last marked by `arcs` small arcs and a label; arcs = 0 sets the label alone."""

    first: Place
    vertex: Place
    last: Place
    text: str = ""
    arcs: int = 1


@dataclass(frozen=True)
class RightAngle:
    """The little square in a right angle."""

    first: Place
    vertex: Place
    last: Place


@dataclass(frozen=True)
class Ticks:
    """Strokes across a segment: segments with as many strokes are equal."""

    start: Place
    end: Place
    count: int = 1


@dataclass(frozen=True)
class ParallelArrows:
    """Arrow heads along a segment: segments with as many heads are parallel."""

    start: Place
    end: Place
    count: int = 1


@dataclass(frozen=True)
class Length:
    """A label beside the middle of a segment."""

    start: Place
    end: Place
    text: str


@dataclass(frozen=True)
class Dimension:
    """A dimension line beside a segment, with a label."""

    start: Place
    end: Place
    text: str


@dataclass(frozen=True)
class CurveName:
    """A label beside a curve, given by points of it."""

    points: tuple[Point, ...]
    text: str


@dataclass(frozen=True)
class Note:
    """A remark in a free corner of the picture, for facts that no mark can carry."""

    text: str


Mark = (Segment | Path | Circle | Arc | Shade | Dot | Name | Angle | RightAngle | Ticks | ParallelArrows | Length
        | Dimension | CurveName | Note)


@dataclass(frozen=True)
class Axes:
    """Coordinate axes over [x_low, x_high] × [y_low, y_high] with a tick every `x_step`, `y_step`."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    x_step: float = 1
    y_step: float = 1
    x_name: str = "x"
    y_name: str = "y"
    x_ticks: tuple[tuple[float, str], ...] = ()  # ticks with texts of their own, such as π/2
    grid: bool = False
    ticks: bool = True
    boxed: bool = False  # tick labels along a frame instead of along the axes
    equal: bool = False  # the same scale on both axes

    def texts(self) -> list[str]:
        """What the ticks say."""
        return [self.tick_text(value) for value in self.x_values() + self.y_values()] if self.ticks else []

    def origin(self) -> Point:
        """Where the axes stand: at zero, or at the edge nearest to it."""
        return (min(max(0.0, self.x_low), self.x_high), min(max(0.0, self.y_low), self.y_high))

    def x_values(self) -> list[float]:
        return [x for x, _ in self.x_ticks] or self._values(self.x_low, self.x_high, self.x_step)

    def y_values(self) -> list[float]:
        return self._values(self.y_low, self.y_high, self.y_step)

    def _values(self, low: float, high: float, step: float) -> list[float]:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [k * step for k in range(first, last + 1) if k or self.boxed]

    def tick_text(self, value: float) -> str:
        return dict(self.x_ticks).get(value) or f"{value:g}"


# ---------------------------------------------------------------------------------------------------------------------
# Scenes


@dataclass
class Scene:
    """Everything that can be drawn or measured. Names of points are the letters that the reader sees."""

    points: dict[str, Point] = field(default_factory=dict)
    base: list[Mark] = field(default_factory=list)  # drawn in every picture of the problem
    circles: dict[str, tuple[Point, float]] = field(default_factory=dict)
    functions: dict[str, Callable[[float], float]] = field(default_factory=dict)
    axes: Axes | None = None
    projection: "Projection | None" = None  # for scenes in three dimensions
    faces: list[tuple[Point, ...]] = field(default_factory=list)  # closed surface of a polyhedron, seen from outside
    profiles: dict[str, list[Callable[[float], Point]]] = field(default_factory=dict)  # of revolution: t -> (r, z)

    def at(self, place: Place) -> Point:
        """Coordinates of a named point (coordinates pass through)."""
        return self.points[place] if isinstance(place, str) else place


@dataclass(frozen=True)
class Projection:
    """A parallel projection: two rows that map space to the picture, and the direction towards the viewer."""

    right: Point
    up: Point
    towards_viewer: Point

    def __call__(self, point: Point) -> Point:
        return (dot(self.right, point), dot(self.up, point))


def orthographic(yaw: float, pitch: float) -> Projection:
    """A view from above the horizon: the viewer stands at `yaw` degrees around the z-axis, `pitch` degrees up."""
    a, b = math.radians(yaw), math.radians(pitch)
    right = (-math.sin(a), math.cos(a), 0.0)
    up = (-math.cos(a) * math.sin(b), -math.sin(a) * math.sin(b), math.cos(b))
    return Projection(right, up, (math.cos(a) * math.cos(b), math.sin(a) * math.cos(b), math.sin(b)))


def cabinet(angle: float, shortening: float, left: bool = False) -> Projection:
    """The schoolbook view of a box: x to the right, z up, depth y drawn shortened at an angle (degrees)."""
    c, s = shortening * math.cos(math.radians(angle)), shortening * math.sin(math.radians(angle))
    c = -c if left else c
    length = math.sqrt(c * c + s * s + 1)
    return Projection((1.0, c, 0.0), (0.0, s, 1.0), (c / length, -1 / length, s / length))


# ---------------------------------------------------------------------------------------------------------------------
# Vectors. The plane has branches of its own because the Plotter lives in these functions.


def add(a: Point, b: Point) -> Point:
    """a + b, in the plane or in space."""
    if len(a) == 2:
        return (a[0] + b[0], a[1] + b[1])
    return tuple(x + y for x, y in zip(a, b, strict=True))


def sub(a: Point, b: Point) -> Point:
    """a - b."""
    if len(a) == 2:
        return (a[0] - b[0], a[1] - b[1])
    return tuple(x - y for x, y in zip(a, b, strict=True))


def mul(a: Point, factor: float) -> Point:
    """a times a number."""
    if len(a) == 2:
        return (a[0] * factor, a[1] * factor)
    return tuple(x * factor for x in a)


def dot(a: Point, b: Point) -> float:
    """The inner product."""
    if len(a) == 2:
        return a[0] * b[0] + a[1] * b[1]
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Point, b: Point) -> Point:
    """The cross product, in space."""
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def norm(a: Point) -> float:
    """The length of a vector."""
    return math.sqrt(dot(a, a))


def unit(a: Point) -> Point:
    """The vector of length 1 in a's direction."""
    return mul(a, 1 / norm(a))


def between(a: Point, b: Point, share: float) -> Point:
    """The point that lies `share` of the way from a to b."""
    if len(a) == 2:
        return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share)
    return tuple(x + (y - x) * share for x, y in zip(a, b, strict=True))


def polar(center: Point, radius: float, degrees: float) -> Point:
    """The point of a plane circle at an angle, counterclockwise from the right."""
    return (center[0] + radius * math.cos(math.radians(degrees)), center[1] + radius * math.sin(math.radians(degrees)))


def meet(a: Point, a_direction: Point, b: Point, b_direction: Point) -> Point:
    """Where the line through a meets the line through b (in the plane)."""
    determinant = a_direction[0] * b_direction[1] - a_direction[1] * b_direction[0]
    offset = sub(b, a)
    share = (offset[0] * b_direction[1] - offset[1] * b_direction[0]) / determinant
    return add(a, mul(a_direction, share))


def direction(degrees: float) -> Point:
    """The plane unit vector at an angle, counterclockwise from the right."""
    return (math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))


def circle_points(center: Point, radius: float, start: float = 0, end: float = 360,
                  steps: int = 72) -> tuple[Point, ...]:
    """Points on an arc, for outlines of shaded regions."""
    return tuple(polar(center, radius, start + (end - start) * k / steps) for k in range(steps + 1))


def sides(names: Sequence[Place], closed: bool = True, **style: bool) -> list[Mark]:
    """The segments that join the points in turn."""
    following = list(names[1:]) + ([names[0]] if closed else [])
    return [Segment(a, b, **style) for a, b in zip(names, following, strict=False)]


def names(points: Sequence[str]) -> list[Mark]:
    """A name mark for every point."""
    return [Name(point, point) for point in points]
