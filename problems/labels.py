"""Where labels may stand: for each kind of mark the candidate places, best first."""

import math

import numpy

from problems import scene as s
from problems.scene import Mark, Point
from problems.sheet import Box, NoLayout, Sheet, angle_between
from problems.typeset import Label

_CIRCLE = [(math.cos(math.radians(d)), math.sin(math.radians(d))) for d in range(0, 360, 15)]


def place_all(sheet: Sheet, marks: list[Mark]) -> None:
    """Place the labels of all marks, those with the least freedom first; raises NoLayout where one finds no place."""
    gap = max(1.0, sheet.em * 0.14)
    for mark in marks:
        if isinstance(mark, s.Angle) and mark.text:
            _place_angle(sheet, mark, gap)
    for mark in marks:
        if isinstance(mark, s.Length):
            _place_beside(sheet, mark.text, sheet.pixel(mark.start), sheet.pixel(mark.end), gap)
        elif isinstance(mark, s.Dimension):
            _place_beside(sheet, mark.text, *sheet.dimension_lines[mark], gap)
    for mark in marks:
        if isinstance(mark, s.Name):
            _place_name(sheet, mark, gap)
    for mark in marks:
        if isinstance(mark, s.CurveName):
            _place_curve_name(sheet, mark, gap)
    if sheet.scene.axes is not None:
        _place_axis_labels(sheet, sheet.scene.axes)
    for mark in marks:
        if isinstance(mark, s.Note):
            _place_note(sheet, mark, gap)


def _place_angle(sheet: Sheet, mark: s.Angle, gap: float) -> None:
    label = sheet.type(mark.text)
    first, corner, last = (sheet.pixel(place) for place in (mark.first, mark.vertex, mark.last))
    u, v = s.unit(s.sub(first, corner)), s.unit(s.sub(last, corner))
    bisector = s.add(u, v)
    bisector = s.unit(bisector) if s.norm(bisector) > 1e-6 else (-u[1], u[0])
    width, height = label.size
    half = abs(bisector[0]) * width / 2 + abs(bisector[1]) * height / 2
    arms = min(math.dist(corner, first), math.dist(corner, last))
    start = min(sheet.em * 0.95, arms * 0.3) * (1 if mark.arcs and sheet.style.width >= 200 else 0) + half + gap
    sharp = math.tan(math.radians(angle_between(first, corner, last)) / 2)
    fitting = (abs(bisector[1]) * width / 2 + abs(bisector[0]) * height / 2 + gap) / sharp + half
    reach = max(start + 1, min(arms * 0.95, max(start, fitting) + sheet.em * 0.9))
    across = (-bisector[1], bisector[0])
    candidates = [
        (corner[0] + bisector[0] * d + across[0] * k * d, corner[1] + bisector[1] * d + across[1] * k * d)
        for d in numpy.arange(start, reach, 1.5)
        for k in (0.0, 0.08, -0.08, 0.18, -0.18)
    ]
    # The label must be seen from the corner: one beyond a side of the triangle would belong to another angle.
    arc = s.add(corner, s.mul(bisector, max(2.0, start - half - gap)))
    seen = ~_crossed(numpy.array(arc), numpy.array(candidates), sheet.segments())
    sheet.find(label, numpy.array(candidates)[seen], gap * 0.6)


def _crossed(start: numpy.ndarray, ends: numpy.ndarray, segments: numpy.ndarray) -> numpy.ndarray:
    """Which of the straight ways from a start to the ends [n, 2] cross any of the segments [m, 2, 2]."""
    a, b = segments[:, 0], segments[:, 1]

    def side(p: numpy.ndarray, q: numpy.ndarray, r: numpy.ndarray) -> numpy.ndarray:
        return (q[..., 0] - p[..., 0]) * (r[..., 1] - p[..., 1]) - (q[..., 1] - p[..., 1]) * (r[..., 0] - p[..., 0])

    apart = side(a, b, start)[None] * side(a[None], b[None], ends[:, None]) < 0
    across = side(start, ends[:, None], a[None]) * side(start, ends[:, None], b[None]) < 0
    return (apart & across).any(1)


def _place_beside(sheet: Sheet, text: str, start: Point, end: Point, gap: float) -> None:
    label = sheet.type(text)
    length = math.dist(start, end)
    if length < sheet.em * 0.9:
        raise NoLayout("a segment is too short for its label")
    outward = sheet._outward(start, end)
    half = abs(outward[0]) * label.size[0] / 2 + abs(outward[1]) * label.size[1] / 2
    candidates = []
    shares = (0.5, 0.44, 0.56, 0.38, 0.62, 0.32, 0.68)
    for extra in (0.0, 0.12, 0.3):
        for share in shares if sheet.style.width < 200 else (*shares, 0.26, 0.74):
            for side in (1, -1):
                d = side * (half + gap + sheet.style.line / 2 + extra * sheet.em)
                at = s.between(start, end, share)
                candidates.append((at[0] + outward[0] * d, at[1] + outward[1] * d))
    if sheet.style.width < 200:
        sheet.find(label, numpy.array(candidates), gap * 0.8)
        return
    near, places = _NearestLine(sheet, start, end), numpy.array(candidates)
    if not sheet.find(label, places, gap * 0.8, True, 0.5 * sheet.em, lambda box: near.holds(box, 1.7)):
        sheet.find(label, places, gap * 0.8, False, 0.5 * sheet.em, lambda box: near.holds(box, 1.1))
    sheet.layout.beside.append((sheet.layout.labels[-1][1], (start, end)))


class _NearestLine:
    """Tells which boxes a reader takes for a label of this segment, and not of another line of the figure."""

    def __init__(self, sheet: Sheet, start: Point, end: Point):
        self.own = numpy.array([[start, end]])
        pieces = [pair for line in sheet.layout.lines for pair in zip(line, line[1:], strict=False)]
        lines = numpy.array(pieces, dtype=float).reshape(-1, 2, 2)
        along = (self.own[0, 1] - self.own[0, 0]) / math.dist(start, end)
        offset = lines - self.own[0, 0]
        away = abs(offset[..., 0] * along[1] - offset[..., 1] * along[0]).max(1)
        self.others = lines[away > 2.5]  # what lies on the segment's own line is no other line

    def holds(self, box: Box, factor: float) -> bool:
        """Whether every other line lies so many times as far from the box as the segment does."""
        return not len(self.others) or _distances(box, self.others).min() > factor * _distances(box, self.own)[0]


def _distances(box: Box, lines: numpy.ndarray) -> numpy.ndarray:
    """The distances of lines [m, 2, 2] from a box that none of them crosses."""
    left, top, right, bottom = box
    beyond = numpy.maximum(numpy.maximum((left, top) - lines, lines - (right, bottom)), 0.0)
    ends = numpy.hypot(beyond[..., 0], beyond[..., 1]).min(1)
    a, along = lines[:, 0], lines[:, 1] - lines[:, 0]
    corners = numpy.array([(left, top), (right, top), (left, bottom), (right, bottom)])
    offset = corners[:, None] - a
    share = (offset * along).sum(2) / numpy.maximum((along * along).sum(1), 1e-9)
    foot = offset - along * share.clip(0.0, 1.0)[..., None]
    return numpy.minimum(ends, numpy.hypot(foot[..., 0], foot[..., 1]).min(0))


def _place_name(sheet: Sheet, mark: s.Name, gap: float) -> None:
    label = sheet.type(mark.text, mark.italic)
    at = sheet.pixel(mark.at)
    points = list(sheet.layout.points.values()) or [at]
    center = (sum(p[0] for p in points) / len(points), sum(p[1] for p in points) / len(points))
    away = s.sub(at, center)
    away = s.unit(away) if s.norm(away) > 1 else (-0.6, -0.8)
    ways = sorted(_CIRCLE, key=lambda way: -s.dot(way, away))
    candidates = []
    for extra in (0.1, 0.3, 0.55):
        for x, y in ways:
            half = abs(x) * label.size[0] / 2 + abs(y) * label.size[1] / 2
            d = half + gap + extra * sheet.em
            candidates.append((at[0] + x * d, at[1] + y * d))
    places = numpy.array(candidates)
    if not sheet.find(label, places[:48], gap * 0.6, optional=True, apart=0.5 * sheet.em):  # "5 m B" reads as one
        sheet.find(label, places, gap * 0.6)


def _place_curve_name(sheet: Sheet, mark: s.CurveName, gap: float) -> None:
    label = sheet.type(mark.text)
    points = numpy.array([sheet.pixel(point) for point in mark.points])
    count = len(points)
    order = numpy.array(sorted(range(1, count - 1), key=lambda k: (k * 7919) % count))
    along = points[order + 1] - points[order - 1]
    length = numpy.hypot(along[:, 0], along[:, 1])
    order, along, length = order[length > 1e-6], along[length > 1e-6], length[length > 1e-6]
    normals = numpy.stack([-along[:, 1], along[:, 0]], 1) / length[:, None]
    half = numpy.abs(normals) @ numpy.array(label.size) / 2
    away = normals * (half + gap)[:, None]
    candidates = [  # both sides of every point, at one distance after another
        numpy.stack([points[order] + way, points[order] - way], 1)
        for way in (away + normals * extra * sheet.em for extra in (0.15, 0.5, 1.0))
    ]
    places = numpy.concatenate(candidates).reshape(-1, 2)
    others = [other.points for other in sheet.scene.base if isinstance(other, s.Path) and other.points != mark.points]
    if others:  # nearer to its own curve than to any other
        others = numpy.array([sheet.pixel(point) for other in others for point in other[::4]])
        own, foreign = (
            numpy.hypot(*(places[:, None] - curve[None]).transpose(2, 0, 1)).min(1) for curve in (points, others)
        )
        places = places[foreign > 1.25 * own]
    sheet.find(label, places, gap)


def _place_note(sheet: Sheet, mark: s.Note, gap: float) -> None:
    label = sheet.type(mark.text)
    left, top, right, bottom = sheet.frame
    width, height = label.size
    pad = gap + 2
    xs = numpy.linspace(left + width / 2 + pad, max(left + width / 2 + pad, right - width / 2 - pad), 9)
    clear = 0.5 * sheet.em if sheet.style.width >= 200 else 0.0  # so that it does not read on from the question
    ys = numpy.linspace(top + height / 2 + pad + clear, bottom - height / 2 - pad - clear, 15)
    grid = [(x, y) for y in ys for x in xs]
    middle = ((left + right) / 2, (top + bottom) / 2)
    grid.sort(key=lambda c: (-round(abs(c[1] - middle[1])), abs(c[0] - xs[0])))
    sheet.find(label, numpy.array(grid), gap)


def _place_axis_labels(sheet: Sheet, axes: s.Axes) -> None:
    x0, y0 = axes.origin()
    em = sheet.em
    if axes.ticks:
        across = _sparse(sheet, axes, axes.x_values(), 0)
        up = _sparse(sheet, axes, axes.y_values(), 1)
    if axes.boxed and axes.ticks:
        left, bottom = sheet.pixel((axes.x_low, axes.y_low))
        for x, label in across:
            sheet.find(label, numpy.array([(x, bottom + em * 0.3 + label.size[1] / 2)]), 0.5, True)
        for y, label in up:
            sheet.find(label, numpy.array([(left - em * 0.3 - label.size[0] / 2, y)]), 0.5, True)
    elif axes.ticks:
        axis_x, axis_y = sheet.pixel((x0, y0))
        for x, label in across:
            below = axis_y + em * 0.28 + label.size[1] / 2
            sheet.find(label, numpy.array([(x, below), (x, 2 * axis_y - below)]), 1.0, True)
        for y, label in up:
            left = axis_x - em * 0.28 - label.size[0] / 2
            sheet.find(label, numpy.array([(left, y), (2 * axis_x - left, y)]), 1.0, True)
    if not axes.boxed:
        for name, at, ways in (
            (axes.x_name, sheet.pixel((axes.x_high, y0)), ((0.2, 0.6), (0.2, -0.6), (-0.3, 0.6), (-0.3, -0.6))),
            (axes.y_name, sheet.pixel((x0, axes.y_high)), ((0.6, -0.2), (-0.6, -0.2), (0.6, 0.3), (-0.6, 0.3))),
        ):
            label = sheet.type(name, len(name) == 1)
            wide = label.size[0] / 2 - 0.3 * em if len(name) > 1 else 0.0  # a longer name stands clear of its axis
            aside = [-1 if name == axes.x_name else 1 if x > 0 else -1 for x, _ in ways]
            places = [(at[0] + x * em + side * wide, at[1] + y * em) for (x, y), side in zip(ways, aside, strict=True)]
            sheet.find(label, numpy.array(places), 1.0, optional=sheet.style.width < 200)


def _sparse(sheet: Sheet, axes: s.Axes, values: list[float], axis: int) -> list[tuple[float, Label]]:
    """Pixels and labels of the ticks, every second or third where all of them would run together."""
    if not values:
        return []
    labels = [sheet.type(axes.tick_text(value)) for value in values]
    pixels = [sheet.pixel((value, axes.y_low) if axis == 0 else (axes.x_low, value))[axis] for value in values]
    pitch = min((abs(b - a) for a, b in zip(pixels, pixels[1:], strict=False)), default=math.inf)
    needed = max(label.size[axis] for label in labels) + sheet.em * (0.4 if axis == 0 else 0.15)
    stride = max(1, math.ceil(needed / pitch))
    origin = min(range(len(values)), key=lambda k: abs(values[k]))  # zero, or the tick nearest to it, stays
    return [(pixels[k], labels[k]) for k in range(len(values)) if (k - origin) % stride == 0]
