"""The sheet that a figure is drawn on: the way from a scene to pixels, ink in layers, free places for labels, colours.

Lines are drawn three times too large in greyscale and averaged down, which smooths them at little cost; labels are
bitmaps from typeset.py. No label touches a line or another label: where no place is free the figure is given up
(`NoLayout`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy
from PIL import Image, ImageChops, ImageDraw

from problems import scene as s
from problems.scene import Mark, Point, Scene
from problems.typeset import Label, gap, lines_of, typeset

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
SUPERSAMPLING = 3
SHARPEST = 6.0  # degrees between two lines that leave the same point
CLOSEST = 0.8  # ems between two named points


class NoLayout(Exception):
    """The figure cannot be drawn legibly with these free choices."""


@dataclass(frozen=True)
class Style:
    """How one picture looks. Sizes in pixels."""

    width: int
    height: int
    em: int
    line: float
    font: str
    ink: tuple[int, int, int] = (0, 0, 0)
    accent: tuple[int, int, int] = (0, 0, 0)
    fill: tuple[int, int, int] = (205, 205, 205)
    paper: tuple[int, int, int] = (255, 255, 255)


@dataclass
class Layout:
    """What was drawn where, in pixels: the tests check legibility on it."""

    size: tuple[int, int]
    strokes: list[tuple[tuple[Point, ...], float]] = field(default_factory=list)  # polylines and their widths
    labels: list[tuple[str, Box, float]] = field(default_factory=list)  # text, box, glyph height
    beside: list[tuple[Box, tuple[Point, Point]]] = field(default_factory=list)  # labels of sizes, and whose size
    lines: list[list[Point]] = field(default_factory=list)  # of the figure itself, without axes and small marks
    points: dict[str, Point] = field(default_factory=dict)
    angles: list[float] = field(default_factory=list)
    segments: list[tuple[Point, Point]] = field(default_factory=list)  # straight lines between places of the scene


class Sheet:
    """The state of one drawing: the mapping to pixels, the ink so far, the labels placed."""

    def __init__(self, scene: Scene, style: Style, em: int, turn: float, mirror: bool):
        self.scene, self.style, self.em = scene, style, em
        self.turn = (math.cos(math.radians(turn)), math.sin(math.radians(turn)))
        self.mirror = -1.0 if mirror else 1.0
        self.layout = Layout((style.width, style.height))
        self.scale, self.offset = (1.0, 1.0), (0.0, 0.0)
        self.layers: dict[str, Image.Image] = {}
        self.pens: dict[str, ImageDraw.ImageDraw] = {}
        self.placed: list[tuple[Label, int, int]] = []
        self.boxes: list[Box] = []
        self.angle_count: dict[Point, int] = {}
        self.frame = (0.0, 0.0, float(style.width), float(style.height))
        self.dimension_lines: dict[s.Dimension, tuple[Point, Point]] = {}
        self.accent = "ink" if style.accent == style.ink else "accent"  # the layer of the small marks

    # --- where things go

    def set_question(self, question: str, below: bool) -> None:
        """Set the question's lines along the top or the bottom and take their room from the figure."""
        if not question:
            return
        width, height = self.layout.size
        margin, em = round(width * 0.03) + 1, self.em
        lines = lines_of(question, self.style.font, em, width - 2 * margin)
        step = max(round(em * 1.35), max(label.size[1] for line in lines for label in line) + 2)
        depth = step * len(lines)
        if depth > height * 0.45:
            raise NoLayout("the question leaves no room for the figure")
        top = height - depth - margin // 2 if below else margin // 2
        for number, line in enumerate(lines):
            x, baseline = margin, top + number * step + round(em * 0.98)
            for label in line:
                y = baseline - label.rise
                self._put(label, x, y, margin=0.0)
                x += label.size[0] + gap(em)
                if x > width:
                    raise NoLayout("the question is wider than the picture")
                x += gap(em) if "\u00a0" in label.text else 0  # choices stand further apart than words
        self.frame = (0.0, 0.0, width, top) if below else (0.0, depth + margin / 2, width, height)

    def flat(self, place: s.Place) -> Point:
        """Scene coordinates as the page shows them: projected, mirrored, turned; not yet scaled."""
        point = self.scene.at(place)
        if self.scene.projection is not None:
            return self.scene.projection(point) if len(point) == 3 else point
        x, y = point[0] * self.mirror, point[1]
        c, k = self.turn
        return (c * x - k * y, k * x + c * y)

    def pixel(self, place: s.Place) -> Point:
        x, y = self.flat(place)
        return (self.offset[0] + self.scale[0] * x, self.offset[1] - self.scale[1] * y)

    def fit(self, marks: list[Mark]) -> None:
        """Choose the scale so that the figure fills its frame and leaves room for labels outside it."""
        left, top, right, bottom = self.frame
        em, axes = self.em, self.scene.axes
        if axes is not None:
            flat = [(axes.x_low, axes.y_low), (axes.x_high, axes.y_high)]
            framed = axes.boxed and axes.ticks
            margin = (em * (1.9 if framed else 0.9), em * (1.5 if framed else 0.9))
        else:
            flat = [self.flat(place) for place in _extent(marks, self.scene)]
            margin = (em * 1.5 + 2, em * 1.45 + 2)
            if any(isinstance(mark, s.Dimension) for mark in marks):
                margin = (em * 2.9, em * 2.6)
        x_low, x_high = min(p[0] for p in flat), max(p[0] for p in flat)
        y_low, y_high = min(p[1] for p in flat), max(p[1] for p in flat)
        room_x, room_y = right - left - 2 * margin[0], bottom - top - 2 * margin[1]
        if room_x < 4 * em or room_y < 3 * em:
            raise NoLayout("no room for the figure")
        scale_x, scale_y = room_x / max(x_high - x_low, 1e-9), room_y / max(y_high - y_low, 1e-9)
        if axes is None or axes.equal:
            scale_x = scale_y = min(scale_x, scale_y)
        self.scale = (scale_x, scale_y)
        self.offset = ((left + right) / 2 - scale_x * (x_low + x_high) / 2,
                       (top + bottom) / 2 + scale_y * (y_low + y_high) / 2)
        self.layout.points = {name: self.pixel(name) for name in self.scene.points}

    def require_room(self, marks: list[Mark]) -> None:
        """Give up a figure with points too close together, or with lines that nearly cover each other."""
        points = list(self.layout.points.values())
        if any(math.dist(a, b) < CLOSEST * self.em for k, a in enumerate(points) for b in points[:k]):
            raise NoLayout("two points lie too close together")
        leaving: dict[s.Place, list[tuple[float, Point]]] = {}
        for mark in marks:
            if isinstance(mark, s.Segment):
                ends = (self.scene.at(mark.start), self.scene.at(mark.end))
                seen = (self.pixel(mark.start), self.pixel(mark.end))
                self.layout.segments.append(seen)
                for near, far in ((0, 1), (1, 0)):
                    x, y = s.sub(seen[far], seen[near])
                    way = (math.degrees(math.atan2(y, x)), s.sub(ends[far], ends[near]))
                    leaving.setdefault(ends[near], []).append(way)
        for ways in leaving.values():
            ways.sort(key=lambda way: way[0])
            for (low, a), (high, b) in zip(ways, [*ways[1:], (ways[0][0] + 360, ways[0][1])], strict=True):
                if high - low < SHARPEST and not _same_way(a, b):
                    raise NoLayout("two lines nearly cover each other")

    # --- ink

    def pen(self, layer: str) -> ImageDraw.ImageDraw:
        if layer not in self.layers:
            width, height = self.layout.size
            self.layers[layer] = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING), 0)
            self.pens[layer] = ImageDraw.Draw(self.layers[layer])
        return self.pens[layer]

    def line(self, points: list[Point], width: float = 1.0, dashed: bool = False, layer: str = "ink") -> None:
        """Ink along a polyline given in pixels; `width` in units of the style's line."""
        if dashed:
            for dash in _dashes(points, max(4.0, self.style.line * 3.2), max(3.0, self.style.line * 2.4)):
                self.line(dash, width, layer=layer)
            return
        pen, size = self.pen(layer), max(1.0, self.style.line * width)
        self.layout.strokes.append((tuple(points), size))
        scaled = [(x * SUPERSAMPLING + 1, y * SUPERSAMPLING + 1) for x, y in points]
        thick = max(1, round(size * SUPERSAMPLING))
        pen.line(scaled, fill=255, width=thick, joint="curve" if len(scaled) > 2 and thick > 4 else None)
        if thick > 4:
            for x, y in (scaled[0], scaled[-1]):
                pen.ellipse([x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2], fill=255)

    def area(self, points: list[Point], value: int, layer: str) -> None:
        self.pen(layer).polygon([(x * SUPERSAMPLING + 1, y * SUPERSAMPLING + 1) for x, y in points], fill=value)

    def draw_strokes(self, marks: list[Mark]) -> None:
        """All ink but the labels."""
        if self.scene.axes is not None:
            self._axes(self.scene.axes)
        for mark in marks:
            getattr(self, f"_{type(mark).__name__.lower()}", lambda mark: None)(mark)  # others are labels alone

    def _segment(self, mark: s.Segment) -> None:
        start, end = self.pixel(mark.start), self.pixel(mark.end)
        self.layout.lines.append([start, end])
        self.line([start, end], 0.7 if mark.thin else 1.0, mark.dashed)
        if mark.arrow:
            self._arrow_head(start, end)

    def _arrow_head(self, start: Point, end: Point, layer: str = "ink") -> None:
        length = max(4.0, self.em * 0.36)
        back = math.atan2(start[1] - end[1], start[0] - end[0])
        wings = [s.add(end, (length * math.cos(back + turn), length * math.sin(back + turn))) for turn in (-0.4, 0.4)]
        self.area([end, *wings], 255, layer)
        self.layout.strokes.append(((wings[0], end, wings[1]), 1.0))

    def _path(self, mark: s.Path) -> None:
        self.layout.lines.append([self.pixel(point) for point in mark.points])
        self.line(self.layout.lines[-1], 0.7 if mark.thin else 1.0, mark.dashed)

    def _circle(self, mark: s.Circle) -> None:
        self._arc(s.Arc(mark.center, mark.radius, 0, 360))

    def _arc(self, mark: s.Arc) -> None:
        steps = max(8, round((mark.end - mark.start) / 4))
        points = s.circle_points(self.scene.at(mark.center), mark.radius, mark.start, mark.end, steps)
        self._path(s.Path(points, mark.dashed))

    def _shade(self, mark: s.Shade) -> None:
        self.area([self.pixel(place) for place in mark.outline], 255 if mark.darker else 190, "fill")
        for hole in mark.holes:
            self.area([self.pixel(place) for place in hole], 0, "fill")

    def _dot(self, mark: s.Dot) -> None:
        x, y = self.pixel(mark.at)
        radius = max(1.6, self.style.line * 1.3 + (0.8 if mark.open else 0.4)) if self.style.width > 200 else 1.7
        box = [(v * SUPERSAMPLING + 1) for v in (x - radius, y - radius, x + radius, y + radius)]
        self.pen("ink").ellipse(box, fill=255)
        if mark.open:
            inner = radius - max(0.8, self.style.line * 0.7)
            box = [(v * SUPERSAMPLING + 1) for v in (x - inner, y - inner, x + inner, y + inner)]
            self.pen("ink").ellipse(box, fill=0)
        self.layout.strokes.append((((x - radius, y), (x + radius, y), (x, y - radius), (x, y + radius)), 1.0))

    def _angle(self, mark: s.Angle) -> None:
        corner, first, last = self.scene.at(mark.vertex), self.scene.at(mark.first), self.scene.at(mark.last)
        seen = angle_between(self.pixel(mark.first), self.pixel(mark.vertex), self.pixel(mark.last))
        self.layout.angles.append(seen)
        if not 13 <= seen <= 176:
            raise NoLayout("an angle looks too sharp or too flat")
        arms = min(math.dist(self.pixel(corner), self.pixel(place)) for place in (first, last))
        for _ in range(mark.arcs if self.style.width >= 200 else 0):  # an arc would fill a small picture's corner
            count = self.angle_count.get(corner, 0) if mark.text else 0  # equal angles without a size look the same
            self.angle_count[corner] = count + 1
            radius = min(self.em * 0.95, arms * 0.3) + count * max(2.5, self.style.line * 1.9)
            self.line(self._corner_arc(corner, first, last, radius), 0.75, layer=self.accent)

    def _corner_arc(self, corner: Point, first: Point, last: Point, radius: float) -> list[Point]:
        u, v = s.unit(s.sub(first, corner)), s.unit(s.sub(last, corner))
        whole = math.acos(max(-1.0, min(1.0, s.dot(u, v))))
        w = s.unit(s.sub(v, s.mul(u, s.dot(u, v))))
        reach, steps = radius / self.scale[0], max(6, round(math.degrees(whole) / 9))
        ways = [(math.cos(whole * k / steps) * reach, math.sin(whole * k / steps) * reach) for k in range(steps + 1)]
        return [self.pixel(s.add(corner, s.add(s.mul(u, a), s.mul(w, b)))) for a, b in ways]

    def _rightangle(self, mark: s.RightAngle) -> None:
        corner = self.scene.at(mark.vertex)
        arms = [s.sub(self.scene.at(place), corner) for place in (mark.first, mark.last)]
        size = min(self.em * 0.5 / self.scale[0], *(s.norm(arm) * 0.3 for arm in arms))
        u, v = (s.mul(s.unit(arm), size) for arm in arms)
        points = [s.add(corner, u), s.add(s.add(corner, u), v), s.add(corner, v)]
        self.line([self.pixel(point) for point in points], 0.75, layer=self.accent)

    def _ticks(self, mark: s.Ticks) -> None:
        self._along(mark, lambda at, along, across: [s.add(at, across), s.sub(at, across)])

    def _parallelarrows(self, mark: s.ParallelArrows) -> None:
        self._along(mark, lambda at, out, up: [s.sub(s.add(at, up), out), at, s.sub(s.sub(at, up), out)])

    def _along(self, mark: s.Ticks | s.ParallelArrows, shape) -> None:
        start, end = self.pixel(mark.start), self.pixel(mark.end)
        if math.dist(start, end) < self.em:
            raise NoLayout("a segment is too short for its marks")
        along = s.unit(s.sub(end, start))
        if isinstance(mark, s.ParallelArrows) and (along[0] < -1e-9 or (abs(along[0]) < 1e-9 and along[1] > 0)):
            along = s.mul(along, -1)  # heads of parallel lines point the same way
        size, gap = max(2.5, self.em * 0.24), max(3.0, self.style.line * 2.2)
        center = s.between(start, end, 0.5 if isinstance(mark, s.Ticks) else 0.6)
        for k in range(mark.count):
            at = s.add(center, s.mul(along, gap * (k - (mark.count - 1) / 2)))
            self.line(shape(at, s.mul(along, size), s.mul((-along[1], along[0]), size)), 0.85, layer=self.accent)

    def _dimension(self, mark: s.Dimension) -> None:
        start, end = self.pixel(mark.start), self.pixel(mark.end)
        outward = self._outward(start, end)
        shift = s.mul(outward, self.em * 0.75)
        a, b = s.add(start, shift), s.add(end, shift)
        self.line([a, b], 0.6)
        for tip, tail in ((a, b), (b, a)):
            self._arrow_head(tail, tip)
        for foot, tip in ((start, a), (end, b)):
            self.line([s.between(foot, tip, 0.3), s.add(tip, s.mul(outward, self.em * 0.18))], 0.6)
        self.dimension_lines[mark] = (a, b)

    def _outward(self, start: Point, end: Point) -> Point:
        """The unit normal of a segment that points away from the middle of the figure."""
        along = s.unit(s.sub(end, start))
        normal = (-along[1], along[0])
        left, top, right, bottom = self.frame
        center = ((left + right) / 2, (top + bottom) / 2)
        if self.layout.points:
            count = len(self.layout.points)
            center = tuple(sum(point[k] for point in self.layout.points.values()) / count for k in (0, 1))
        return normal if s.dot(normal, s.sub(s.between(start, end, 0.5), center)) >= 0 else s.mul(normal, -1)

    def _axes(self, axes: s.Axes) -> None:
        if axes.grid:
            for value in axes.x_values():
                self._grid_line((value, axes.y_low), (value, axes.y_high))
            for value in axes.y_values():
                self._grid_line((axes.x_low, value), (axes.x_high, value))
        if axes.boxed:
            left, right, low, high = axes.x_low, axes.x_high, axes.y_low, axes.y_high
            corners = ((left, low), (right, low), (right, high), (left, high), (left, low))
            self.line([self.pixel(corner) for corner in corners], 0.7)
        x0, y0 = axes.origin()
        overhang = 0.0 if axes.boxed else self.em * 0.5
        for start, end in (((axes.x_low, y0), (axes.x_high, y0)), ((x0, axes.y_low), (x0, axes.y_high))):
            a, b = self.pixel(start), self.pixel(end)
            along = s.unit(s.sub(b, a))
            tip = s.add(b, s.mul(along, overhang))
            self.line([s.sub(a, s.mul(along, overhang / 2)), tip], 0.8)
            if not axes.boxed:
                self._arrow_head(a, tip)
        if axes.ticks and not axes.boxed:
            half = max(1.5, self.em * 0.13)
            for value in axes.x_values():
                x, y = self.pixel((value, y0))
                self.line([(x, y - half), (x, y + half)], 0.7)
            for value in axes.y_values():
                x, y = self.pixel((x0, value))
                self.line([(x - half, y), (x + half, y)], 0.7)

    def _grid_line(self, start: Point, end: Point) -> None:
        (x1, y1), (x2, y2) = self.pixel(start), self.pixel(end)
        scaled = [(x * SUPERSAMPLING + 1, y * SUPERSAMPLING + 1) for x, y in ((x1, y1), (x2, y2))]
        self.pen("grid").line(scaled, fill=255, width=SUPERSAMPLING)

    # --- labels

    def dry(self) -> None:
        """All strokes are drawn: what is inked now leaves no place for labels."""
        self.masks = {name: layer.reduce(SUPERSAMPLING) for name, layer in self.layers.items()}
        width, height = self.layout.size
        self.inked = numpy.zeros((height, width), dtype=bool)
        for name, mask in self.masks.items():
            if name in ("ink", "accent"):
                self.inked |= numpy.asarray(mask) > 24

    def find(self, label: Label, candidates: numpy.ndarray, margin: float, optional: bool = False, apart: float = 0.0,
             accept: Callable[[Box], bool] = lambda box: True) -> bool:
        """Put the label at the first candidate centre [n, 2] where its box with a margin is free of ink and canvas
        edges, further from other labels by `apart`, and acceptable to the caller."""
        width, height = label.size
        x0 = numpy.rint(candidates[:, 0] - width / 2).astype(numpy.int64)
        y0 = numpy.rint(candidates[:, 1] - height / 2).astype(numpy.int64)
        pad = math.ceil(margin)
        left, top, right, bottom = x0 - pad, y0 - pad, x0 + width + pad, y0 + height + pad
        page_width, page_height = self.layout.size
        free = (left >= 0) & (top >= 0) & (right <= page_width) & (bottom <= page_height)
        for a, b, c, d in self.boxes:
            free &= (right <= a - apart) | (left >= c + apart) | (bottom <= b) | (top >= d)
        for row in numpy.flatnonzero(free):
            x, y = int(x0[row]), int(y0[row])
            under = self.inked[y - pad : y + height + pad, x - pad : x + width + pad]
            if not under.any() and accept((x, y, x + width, y + height)):
                self._put(label, x, y, max(1.0, margin / 2))
                return True
        if optional:
            return False
        raise NoLayout(f"no free place for the label {label.text!r}")

    def segments(self) -> numpy.ndarray:
        """All straight pieces of ink so far, [m, 2, 2] in pixels."""
        pieces = [pair for points, _ in self.layout.strokes for pair in zip(points, points[1:], strict=False)]
        return numpy.array(pieces, dtype=float).reshape(-1, 2, 2)

    def _put(self, label: Label, x: int, y: int, margin: float) -> None:
        width, height = label.size
        self.placed.append((label, x, y))
        self.boxes.append((x - margin, y - margin, x + width + margin, y + height + margin))
        self.layout.labels.append((label.text, (x, y, x + width, y + height), label.glyph_height))

    def type(self, text: str, italic: bool = False) -> Label:
        return typeset(text, self.style.font, self.em, italic)

    def smallest_glyph(self) -> float:
        return min((glyph for _, _, glyph in self.layout.labels), default=float(self.em))

    # --- paper

    def compose(self) -> Image.Image:
        """Fill, grid, ink and labels on paper; a palette of the inks' strengths where one ink is all there is."""
        style, size = self.style, self.layout.size
        for label, x, y in self.placed if "grid" in self.masks else ():
            self.masks["grid"].paste(0, (x - 2, y - 2, x + label.size[0] + 2, y + label.size[1] + 2))
        if self.masks.keys() <= {"ink", "grid"}:
            return self._compose_one_ink()
        colourful = [style.ink, style.accent, style.paper] + ([style.fill] if "fill" in self.masks else [])
        mode = "RGB" if any(len(set(colour)) > 1 for colour in colourful) else "L"

        def colour(value: tuple[int, int, int]) -> tuple[int, int, int] | int:
            return value if mode == "RGB" else value[0]

        image = Image.new(mode, size, colour(style.paper))
        if "fill" in self.masks:
            image.paste(colour(style.fill), (0, 0), self.masks["fill"])
        if "grid" in self.masks:
            middle = tuple((3 * paper + ink) // 4 for paper, ink in zip(style.paper, style.ink, strict=True))
            image.paste(colour(middle), (0, 0), self.masks["grid"])
        for layer in ("ink", "accent"):
            if layer in self.masks:
                image.paste(colour(getattr(style, layer)), (0, 0), self.masks[layer])
        for label, x, y in self.placed:
            image.paste(colour(style.ink), (x, y), label.mask)
        return image

    def _compose_one_ink(self) -> Image.Image:
        """How much of each pixel is inked, 0 to 255, and a palette from paper to ink."""
        style = self.style
        image = self.masks["ink"] if "ink" in self.masks else Image.new("L", self.layout.size, 0)
        if "grid" in self.masks:
            image = ImageChops.lighter(image, self.masks["grid"].point(lambda strength: strength // 4))
        for label, x, y in self.placed:
            image.paste(255, (x, y), label.mask)
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(_palette(style.paper, style.ink))
        return image


@lru_cache(maxsize=256)
def _palette(paper: tuple[int, int, int], ink: tuple[int, int, int]) -> list[int]:
    """256 colours from paper to ink."""
    return [round(a + (b - a) * k / 255) for k in range(256) for a, b in zip(paper, ink, strict=True)]


# ---------------------------------------------------------------------------------------------------------------------
# Geometry of the page


def _extent(marks: list[Mark], scene: Scene) -> list[s.Place]:
    """Places that the frame must hold."""
    places: list[s.Place] = list(scene.points)
    for mark in marks:
        if isinstance(mark, s.Segment):
            places += [mark.start, mark.end]
        elif isinstance(mark, s.Path):
            places += mark.points
        elif isinstance(mark, s.Circle):
            places += s.circle_points(scene.at(mark.center), mark.radius, steps=12)
        elif isinstance(mark, s.Arc):
            places += s.circle_points(scene.at(mark.center), mark.radius, mark.start, mark.end, steps=12)
        elif isinstance(mark, s.Shade):
            places += mark.outline
    return places


def _same_way(a: Point, b: Point) -> bool:
    """Whether one line lies on the other in the scene itself, and not only in the picture."""
    return s.dot(a, b) > (1 - 1e-12) * s.norm(a) * s.norm(b)


def angle_between(first: Point, vertex: Point, last: Point) -> float:
    """The angle at a vertex, in degrees from 0 to 180."""
    a, b = s.sub(first, vertex), s.sub(last, vertex)
    return math.degrees(math.acos(max(-1.0, min(1.0, s.dot(a, b) / max(1e-9, s.norm(a) * s.norm(b))))))


def _dashes(points: list[Point], on: float, off: float) -> list[list[Point]]:
    """Cut a polyline into dashes; the first and the last are whole, so that corners stay closed."""
    length = sum(math.dist(a, b) for a, b in zip(points, points[1:], strict=False))
    count = max(1, round((length + off) / (on + off)))
    on = on * length / (count * on + (count - 1) * off)
    off = (length - count * on) / max(1, count - 1)
    dashes, dash, travelled, drawing = [], [points[0]], 0.0, True
    limit = on
    for a, b in zip(points, points[1:], strict=False):
        left = math.dist(a, b)
        here = a
        while left > 1e-9 and travelled + left >= limit - 1e-9:
            step = limit - travelled
            here = s.between(here, b, min(1.0, step / left))
            left -= step
            if drawing:
                dashes.append([*dash, here])
            dash, travelled, drawing = [here], 0.0, not drawing
            limit = on if drawing else off
        if left > 1e-9:
            travelled += left
            dash.append(b)
    return dashes
