"""The pictures that tiny's vision tower learns to read on: labels among lines, and what each patch shows.

Three quarters look as the problem engine draws small pictures; in the others fonts, colours, rasterisers and scales
vary. The same seed gives the same picture.
"""

import math
import random
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties
from PIL import Image, ImageDraw, ImageFont

from problems.typeset import character_places, lines_of, typeset

SIZE, PATCH = 96, 8
GRID = SIZE // PATCH

DIGITS = "0123456789"
UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LOWER = UPPER.lower()
SIGNS = ".,:;?!=+-−×÷·/()[]<>≤≥|%°'√²³π∠△⊥∥θαβ"
CHARACTERS = DIGITS + UPPER + LOWER + SIGNS  # class 0 is "no character"
CLASS_OF = {character: index + 1 for index, character in enumerate(CHARACTERS)}
NUM_CLASSES = len(CHARACTERS) + 1
OFFSETS = (0, 1, 2, 3, 4, 5, 6, -1, -2, -3)  # characters a patch names, counted from the first that it holds
NUM_DIRECTIONS = 8  # lines by their angle, in steps of 180 / 8 degrees

FONTS = {  # DejaVu Sans is what the engine draws with; the others keep the tower from learning one outline by heart
    "DejaVuSans": 70,
    "DejaVuSans-Oblique": 10,
    "DejaVuSans-Bold": 6,
    "DejaVuSerif": 4,
    "DejaVuSansMono": 3,
    "STIXGeneral": 4,
    "STIXGeneralItalic": 3,
}
WORDS = ("find angle area side length value volume radius height base circle triangle square the of is a what cm m x y "
         "f(x) perimeter diameter slope vertex point line cube cone cylinder sphere prism edge surface total roots "
         "zero at how many for and in to sum axis sin cos tan max min degree degrees arc chord sector midpoint "
         "distance equal parallel right").split()
QUESTIONS = ("Find angle {A}.", "Find angle {A}", "Find {A}{B}.", "Find {A}{B}", "Find x.", "Find x", "angle {A}?",
             "area?", "Area = ?", "Find the area.", "volume?", "Find the volume.", "perimeter?", "What is x?",
             "Find f({n}).", "f({n}) = ?", "Find y at x = {n}.", "slope?", "Find the slope.", "How long is {A}{B}?",
             "{A}{B} = ?", "Radius?", "Find r.", "Find h.", "surface area?", "Zero of f?", "∠{A} = ?", "∠{A}{B}{C} = ?",
             "{A}{B} ∥ {C}{D}", "{A}{B} ⊥ {C}{D}", "{A}{B} = {n}", "∠{A} = {m}°", "V = ?", "S = ?", "Find the",
             "side {A}{B}", "angle {A}{B}{C}", "Perimeter of", "{A}{B}{C}{D}?", "radius {n}", "height {n}", "What is",
             "max of f?", "vertex?")
FORMULAS = ("{A}{B}={n} cm", "{A}{B} = {n}", "{A}{B}={n}", "f(x)={n}x+{k}", "f(x)=x²-{k}", "y={n}x+{k}",
            "y = {n}x − {k}", "y=-{n}x", "r={n}", "r = {n}", "h={n}", "h = {n}", "a={n}", "x={n}", "x = {n}",
            "l = {n} cm", "y=x²", "f(x)=({k}-x)", "y = {n}", "d={n}", "{n}x+{k}", "x²+{n}x", "√{n}", "{n}π", "{n}/{k}",
            "2x+{n}", "f", "g(x)", "f(x)", "({n},{k})", "({n}, {k})", "x>{n}", "x ≤ {n}", "3x°", "{n}x", "sin x",
            "+{n}", "-{n}", "−{n}", "s={n}", "w = {n}", "b={n} m", "{n}%", "V={n}", "S={n}")


# ----------------------------------------------------------------------------------------------------------------------
# labels: what is written


def number(rng: random.Random) -> str:
    """A number as it stands in figures: mostly one to three digits."""
    kind = rng.random()
    if kind < 0.30:
        return str(rng.randint(0, 9))
    if kind < 0.72:
        return str(rng.randint(10, 99))
    if kind < 0.92:
        return str(rng.randint(100, 999))
    if kind < 0.96:
        return f"{rng.randint(0, 99)}.{rng.randint(0, 9)}"
    return str(rng.randint(1000, 9999))


def fill(template: str, rng: random.Random) -> str:
    """A question or a formula with letters and numbers put in."""
    letters = rng.sample(UPPER[:6] if rng.random() < 0.4 else UPPER, 4)
    return template.format(A=letters[0], B=letters[1], C=letters[2], D=letters[3], n=number(rng), m=rng.randint(1, 179),
                           k=rng.randint(0, 12))


FORMULA_POOL = [fill(template, random.Random(f"{template}/{k}")) for k in range(24) for template in FORMULAS]  # cached


def question_line(rng: random.Random) -> str:
    """A short question, or a formula."""
    return fill(rng.choice(QUESTIONS), rng) if rng.random() < 0.65 else rng.choice(FORMULA_POOL)


def label_text(rng: random.Random) -> str:
    """One label: a number with or without its unit, a point's letter, a formula, a few words."""
    kind = rng.random()
    if kind < 0.22:
        return number(rng)
    if kind < 0.34:
        return number(rng) + rng.choice(("°", "°", "°", " cm", "cm", " m", "m", "x", " mm"))
    if kind < 0.56:
        return rng.choice(UPPER)
    if kind < 0.61:
        return rng.choice(LOWER + "θαβπ?")
    if kind < 0.71:
        return rng.choice(FORMULA_POOL)
    if kind < 0.86:
        return fill(rng.choice(QUESTIONS), rng)
    if kind < 0.96:
        text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 3)))
        return text[:1].upper() + text[1:] if rng.random() < 0.3 else text
    return "".join(rng.choice(DIGITS + UPPER + LOWER + ".,?()°+") for _ in range(rng.randint(1, 6)))


# ----------------------------------------------------------------------------------------------------------------------
# pictures: labels among lines


class Canvas:
    """A picture under construction, and what its patches are asked. Drawn at `scale` times its size, shrunk in the end.

    plain: as the problem engine draws small pictures: black, lines averaged down from three times the size, labels by
    problems/typeset.py on whole pixels. Otherwise colours, fonts, rasterisers and scales vary.
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.plain = rng.random() < 0.75
        self.scale = 3 if self.plain else rng.choices((1, 2, 3), (0.6, 0.2, 0.2))[0]
        self.ticks: list[tuple[str, float, float]] = []
        tint = tuple(rng.randint(225, 255) for _ in range(3)) if not self.plain and rng.random() < 0.4 else (255,) * 3
        self.image = Image.new("RGB", (SIZE * self.scale, SIZE * self.scale), tint)
        self.draw = ImageDraw.Draw(self.image)
        self.background = tint
        self.lines = np.zeros((GRID, GRID, NUM_DIRECTIONS), dtype=np.uint8)
        self.characters = np.zeros((GRID, GRID, len(OFFSETS)), dtype=np.int64)
        self.taken: list[tuple[float, float, float, float]] = []
        self.texts: list[str] = []

    def color(self, dark: float = 0.75) -> tuple[int, int, int]:
        if self.plain:
            return (0, 0, 0)
        if self.rng.random() < dark:
            return tuple([self.rng.randint(0, 70)] * 3)
        return tuple(self.rng.randint(0, 190) for _ in range(3))

    def path(
        self, points: list[tuple[float, float]], color: tuple[int, int, int], width: float, dashed: bool = False
    ) -> None:
        """A line through the points (in pixels of the small picture). Its directions are noted patch by patch."""
        for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
            steps = max(1, round(math.hypot(x1 - x0, y1 - y0) / 2))
            direction = round(math.atan2(y1 - y0, x1 - x0) / math.pi * NUM_DIRECTIONS) % NUM_DIRECTIONS
            for k in range(steps + 1):
                x, y = x0 + (x1 - x0) * k / steps, y0 + (y1 - y0) * k / steps
                if 0 <= x < SIZE and 0 <= y < SIZE:
                    self.lines[int(y) // PATCH, int(x) // PATCH, direction] = 1
            pieces = range(0, steps, 3) if dashed else (None,)
            for k in pieces:
                a, b = (0.0, 1.0) if k is None else (k / steps, min(1.0, (k + 1.6) / steps))
                ends = ([(x0 + (x1 - x0) * t) * self.scale for t in (a, b)],
                        [(y0 + (y1 - y0) * t) * self.scale for t in (a, b)])
                self.draw.line(list(zip(*ends, strict=True)), fill=color, width=max(1, round(width * self.scale)))

    def ink(self, box: tuple[float, float, float, float]) -> bool:
        """Whether anything is drawn inside the box."""
        corner = [max(0, round(value * self.scale)) for value in box]
        piece = np.asarray(self.image.crop(corner), dtype=np.int16)
        return bool(piece.size) and bool((np.abs(piece - np.array(self.background)) > 60).any())

    def flatten(self) -> None:
        """Shrink what is drawn so far; labels of plain pictures are set at the final size."""
        if self.plain:
            self.image = self.image.resize((SIZE, SIZE), Image.Resampling.BOX)
            self.draw, self.scale = ImageDraw.Draw(self.image), 1

    def write(self, glyphs: list[tuple[str, float, float]]) -> None:
        """Note a label's characters, each with its centre, in their reading order (spaces have none)."""
        codes = [CLASS_OF.get(character, 0) for character, _, _ in glyphs]
        seen = set()
        for k, (character, x, y) in enumerate(glyphs):
            row, column = int(y) // PATCH, int(x) // PATCH
            if character == " " or (row, column) in seen or not (0 <= row < GRID and 0 <= column < GRID):
                continue
            seen.add((row, column))
            for slot, offset in enumerate(OFFSETS):
                self.characters[row, column, slot] = codes[k + offset] if 0 <= k + offset < len(codes) else 0
        self.texts.append("".join(character for character, _, _ in glyphs))

    def free(self, box: tuple[float, float, float, float], avoid_ink: bool) -> bool:
        """Whether the box lies inside the picture, on no label and, where asked, on no ink (with a few exceptions)."""
        if box[0] < 0 or box[1] < 0 or box[2] > SIZE or box[3] > SIZE:
            return False
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in self.taken):
            return False
        return not (avoid_ink and self.ink(box) and self.rng.random() < 0.9)

    def finish(self) -> Image.Image:
        if self.scale == 1:
            return self.image
        filters = (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BOX)
        return self.image.resize((SIZE, SIZE), self.rng.choice(filters))


def font_path(name: str) -> str:
    """The file of a font that matplotlib ships."""
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf")


@lru_cache(maxsize=256)
def load_font(name: str, size: float) -> ImageFont.FreeTypeFont:
    """A font at a size in pixels."""
    return ImageFont.truetype(font_path(name), size)


_AGG: list[RendererAgg] = []


def text_mask(text: str, style: dict, x: float, y: float, canvas: Canvas) -> Image.Image:
    """Mask of the text over the whole canvas, its baseline starting at (x, y) small pixels.

    Two rasterisers with different hinting: Pillow's and matplotlib's Agg.
    """
    scale, name, size = canvas.scale, style["font"], style["size"]
    if style["agg"] and scale == 1:
        if not _AGG:
            _AGG.append(RendererAgg(SIZE, SIZE, 72))
        renderer = _AGG[0]
        renderer.clear()
        graphics = renderer.new_gc()
        graphics.set_foreground((0, 0, 0))
        renderer.draw_text(graphics, round(x), round(y), text, FontProperties(fname=font_path(name), size=size), 0)
        graphics.restore()
        return Image.fromarray(np.asarray(renderer.buffer_rgba())[:, :, 3].copy())
    mask = Image.new("L", canvas.image.size)
    font = load_font(name, size * scale)
    ImageDraw.Draw(mask).text((x * scale, y * scale), text, fill=255, font=font, anchor="ls")
    return mask


@lru_cache(maxsize=16384)
def plain_glyphs(text: str, size: int, italic: bool) -> tuple[Image.Image, int, list[tuple[str, float, float]]]:
    """The engine's bitmap of a label, its rise above the baseline, its characters with their centres in the bitmap."""
    label = typeset(text, "sans", size, italic)
    found = []
    for character, x, y, glyph_size in character_places(text, "sans", size, italic):
        raised = y < -0.6 * size and glyph_size < size and "/" not in text
        character = {"2": "²", "3": "³"}.get(character, character) if raised else character
        found.append((character, x, label.rise + y))
    return label.mask, label.rise, found


def add_plain_label(canvas: Canvas, text: str, x: float, y: float, size: int, italic: bool, force: bool) -> bool:
    """As add_label, drawn by the engine's typesetting."""
    mask, rise, glyphs = plain_glyphs(text, size, italic)
    left, top = round(x), round(y) - rise
    box = (left - 1, top - 1, left + mask.width + 1, top + mask.height + 1)
    if not canvas.free(box, avoid_ink=not force):
        return False
    canvas.image.paste((0, 0, 0), (left, top), mask)
    canvas.write([(character, left + dx, top + dy) for character, dx, dy in glyphs])
    canvas.taken.append(box)
    return True


def add_label(canvas: Canvas, text: str, x: float, y: float, style: dict, force: bool = False) -> bool:
    """Write `text` with its baseline starting at (x, y); False where it would leave the picture or touch a label."""
    if canvas.plain:
        italic = len(text) == 1 and text.isalpha() and style["italic"]
        return add_plain_label(canvas, text, x, y, style["em"], italic, force)
    size, halo = style["size"], style["halo"]
    font = load_font(style["font"], size)
    ends = [x + font.getlength(text[:k]) for k in range(len(text) + 1)]
    box = (x - 1.5, y - 0.8 * size, ends[-1] + 1.5, y + 0.25 * size)
    if not canvas.free(box, avoid_ink=not (halo or force)):
        return False
    mask = text_mask(text, style, x, y, canvas)
    if halo:
        canvas.draw.rectangle([value * canvas.scale for value in box], fill=canvas.background)
    canvas.image.paste(style["color"], (0, 0), mask)
    canvas.write([(c, (a + b) / 2, y - 0.36 * size) for c, a, b in zip(text, ends, ends[1:], strict=False)])
    canvas.taken.append(box)
    return True


def add_question(canvas: Canvas, text: str, x: float, y: float, style: dict, halo: bool) -> None:
    """One line of a question, its baseline at y. The engine sets words one by one."""
    if not canvas.plain:
        add_label(canvas, text, x, y, style | {"halo": halo}, force=True)
        return
    em, glyphs, left = style["em"], [], round(x)
    for label in lines_of(text, "sans", em, 10 * SIZE)[0]:
        top = round(y) - label.rise
        box = (left - 1, top - 1, left + label.size[0] + 1, top + label.size[1] + 1)
        if not canvas.free(box, avoid_ink=False):
            break
        if halo:
            canvas.draw.rectangle(box, fill=canvas.background)
        canvas.image.paste((0, 0, 0), (left, top), label.mask)
        canvas.taken.append(box)
        glyphs += [(" ", 0.0, 0.0)] if glyphs else []
        glyphs += [(c, left + dx, top + dy) for c, dx, dy in plain_glyphs(label.text, em, False)[2]]
        left += label.size[0] + max(3, round(em * 0.3))
    canvas.write(glyphs)


def label_style(rng: random.Random, canvas: Canvas) -> dict:
    """Font, size, colour, halo and renderer of the labels of one picture."""
    return dict(
        font=rng.choices(list(FONTS), list(FONTS.values()))[0],
        size=rng.choice((8, 9, 9, 9.5, 10, 10, 10.5, 11, 11, 12, 13)),
        color=canvas.color(0.8),
        halo=rng.random() < 0.3,
        agg=rng.random() < 0.5,
        em=rng.choice((9, 10, 10, 10, 10, 11, 11, 12)),  # of plain pictures
        italic=rng.random() < 0.4,
    )


def draw_polygon(canvas: Canvas) -> list[tuple[float, float]]:
    """A polygon with some of what goes with it: a tint, diagonals, an altitude, marks. Returns its corners."""
    rng = canvas.rng
    corners = rng.choice((3, 3, 3, 4, 4, 5, 6))
    cx, cy, radius, turn = rng.uniform(30, 66), rng.uniform(30, 66), rng.uniform(14, 40), rng.uniform(0, 7)
    angles = sorted(turn + (k + rng.uniform(-0.35, 0.35)) * 2 * math.pi / corners for k in range(corners))
    points = [
        (cx + radius * rng.uniform(0.7, 1.2) * math.cos(a), cy + radius * rng.uniform(0.7, 1.2) * math.sin(a))
        for a in angles
    ]
    if rng.random() < 0.25:  # right angles, as in rectangles and boxes
        w, h = rng.uniform(20, 60), rng.uniform(15, 50)
        points = [
            (cx - w / 2, cy - h / 2), (cx + w / 2, cy - h / 2), (cx + w / 2, cy + h / 2), (cx - w / 2, cy + h / 2)
        ]
        if rng.random() < 0.4:
            dx, dy = rng.uniform(5, 16), -rng.uniform(4, 12)
            shifted = [(x + dx, y + dy) for x, y in points]
            canvas.path(shifted + shifted[:1], canvas.color(), 1, dashed=rng.random() < 0.4)
            for a, b in zip(points, shifted, strict=True):
                canvas.path([a, b], canvas.color(), 1)
    if rng.random() < 0.25:
        tint = tuple(rng.randint(190, 250) for _ in range(3))
        canvas.draw.polygon([(x * canvas.scale, y * canvas.scale) for x, y in points], fill=tint)
    color, width = canvas.color(), rng.choice((1, 1, 1, 1.5, 2))
    canvas.path(points + points[:1], color, width)
    if rng.random() < 0.35:
        a, b = rng.sample(points, 2)
        middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
        canvas.path([rng.choice(points), middle], canvas.color(), 1, dashed=rng.random() < 0.5)
    if rng.random() < 0.5:
        arc(canvas, *rng.choice(points), rng.uniform(4, 9), rng.uniform(0, 6), rng.uniform(0.5, 2.5))
    return points


def arc(canvas: Canvas, cx: float, cy: float, radius: float, start: float, sweep: float, squash: float = 1.0,
        dashed: bool = False) -> None:
    """Draw an arc of a circle, or of one that is seen from the side (squash); angles in radians."""
    steps = max(4, round(radius * sweep / 3))
    points = [
        (cx + radius * math.cos(start + sweep * k / steps), cy + squash * radius * math.sin(start + sweep * k / steps))
        for k in range(steps + 1)
    ]
    canvas.path(points, canvas.color(), canvas.rng.choice((1, 1, 1.5)), dashed)


def draw_round(canvas: Canvas) -> list[tuple[float, float]]:
    """A circle with radii and chords, or a cylinder, a cone, a sphere. Returns points worth a label."""
    rng = canvas.rng
    cx, cy, radius = rng.uniform(30, 66), rng.uniform(30, 66), rng.uniform(12, 36)
    if rng.random() < 0.6:
        arc(canvas, cx, cy, radius, 0, 2 * math.pi)
        rim = [(cx + radius * math.cos(a), cy + radius * math.sin(a)) for a in (rng.uniform(0, 6.3) for _ in range(3))]
        for point in rim:
            if rng.random() < 0.5:
                canvas.path([(cx, cy), point], canvas.color(), 1)
        if rng.random() < 0.5:
            canvas.path(rim[:2], canvas.color(), 1)
        return rim + [(cx, cy)]
    squash, height = rng.uniform(0.2, 0.4), rng.uniform(18, 45)
    top, bottom = cy - height / 2, cy + height / 2
    arc(canvas, cx, bottom, radius, 0, math.pi, squash)
    arc(canvas, cx, bottom, radius, math.pi, math.pi, squash, dashed=True)
    apex = rng.random() < 0.5
    if apex:
        canvas.path([(cx - radius, bottom), (cx, top), (cx + radius, bottom)], canvas.color(), 1)
        canvas.path([(cx, top), (cx, bottom)], canvas.color(), 1, dashed=True)
    else:
        arc(canvas, cx, top, radius, 0, 2 * math.pi, squash)
        for side in (-1, 1):
            canvas.path([(cx + side * radius, top), (cx + side * radius, bottom)], canvas.color(), 1)
    canvas.path([(cx, bottom), (cx + radius, bottom)], canvas.color(), 1)
    return [(cx, top), (cx + radius, cy), (cx + radius / 2, bottom), (cx - radius, cy)]


def draw_axes(canvas: Canvas) -> list[tuple[float, float]]:
    """Axes with ticks, their numbers, sometimes a grid, and the graph of a function. Returns points worth a label."""
    rng = canvas.rng
    x0, y0 = rng.uniform(8, 55), rng.uniform(40, 88)
    step = rng.uniform(7, 16)
    if rng.random() < 0.4:
        shade = tuple([rng.randint(195, 235)] * 3)
        for k in range(-12, 13):
            canvas.draw.line(
                [((x0 + k * step) * canvas.scale, 0), ((x0 + k * step) * canvas.scale, SIZE * canvas.scale)], fill=shade
            )
            canvas.draw.line(
                [(0, (y0 + k * step) * canvas.scale), (SIZE * canvas.scale, (y0 + k * step) * canvas.scale)], fill=shade
            )
    canvas.path([(2, y0), (SIZE - 2, y0)], canvas.color(), 1)
    canvas.path([(x0, 2), (x0, SIZE - 2)], canvas.color(), 1)
    size = rng.choice((8, 9, 10, 11))
    unit, every = rng.choice((1, 1, 1, 2, 5, 10)), rng.choice((1, 1, 2))
    for k in range(-8, 9):
        if k == 0:
            continue
        x, y = x0 + k * step, y0 - k * step
        canvas.path([(x, y0 - 1.5), (x, y0 + 1.5)], (0, 0, 0), 1)
        canvas.path([(x0 - 1.5, y), (x0 + 1.5, y)], (0, 0, 0), 1)
        if k % every == 0 and rng.random() < 0.75:
            text = str(k * unit).replace("-", rng.choice(("-", "−")))
            canvas.ticks.append((text, x - 0.3 * size * len(text), y0 + 2 + 0.8 * size))
            canvas.ticks.append((text, x0 - 3 - 0.62 * size * len(text), y + 0.35 * size))
    a, b, c = rng.uniform(-2, 2), rng.uniform(-25, 25), rng.choice((0, 0, rng.uniform(-0.06, 0.06)))
    xs = np.linspace(2, SIZE - 2, 40)
    ys = y0 - (a * (xs - x0) + b + c * (xs - x0) ** 2)
    color, width = canvas.color(0.4), rng.choice((1, 1.5, 2))
    inside = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
    canvas.path(inside, color, width)
    seen = [point for point in inside if 8 < point[1] < SIZE - 8]
    return rng.sample(seen, min(2, len(seen))) + [(SIZE - 10, y0 - 3), (x0 + 3, 10)]


def picture(seed: str) -> Canvas:
    """A picture and its answers, the same for the same seed."""
    rng = random.Random(seed)
    canvas = Canvas(rng)
    style = label_style(rng, canvas)
    question, top, left = label_style(rng, canvas), rng.random() < 0.7, rng.uniform(1, 12)
    lines = [question_line(rng) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
    height_of_line = 1.33 * question["em" if canvas.plain else "size"]
    height = height_of_line * len(lines) + 2
    kept_free = (0, 0, SIZE, height) if top else (0, SIZE - height, SIZE, SIZE)
    canvas.taken += [kept_free] if lines else []
    anchors: list[tuple[float, float]] = []
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        anchors += rng.choices((draw_polygon, draw_round, draw_axes), (0.5, 0.3, 0.2))[0](canvas)
    for _ in range(rng.choice((0, 0, 1, 3))):
        points = [(rng.uniform(0, SIZE), rng.uniform(0, SIZE)) for _ in range(2)]
        canvas.path(points, canvas.color(0.5), rng.choice((1, 1, 2)))
    for x, y in anchors:
        if rng.random() < 0.4:
            r = rng.uniform(1, 2.2)
            canvas.draw.ellipse([v * canvas.scale for v in (x - r, y - r, x + r, y + r)], fill=canvas.color())
    canvas.flatten()
    if lines:  # a question of one or two lines, above or below
        canvas.taken.remove(kept_free)
        halo, jitter = rng.random() < 0.7, rng.uniform(0, 2)
        for k, line in enumerate(lines):
            y = height_of_line * (0.75 + k) + jitter
            add_question(canvas, line, left, y if top else SIZE - height + y, question, halo)
    for text, x, y in canvas.ticks:
        add_label(canvas, text, x, y, style, force=True)
    for x, y in anchors:
        for _ in range(5):  # beside a corner, as close as it fits
            text, angle, distance = label_text(rng), rng.uniform(0, 2 * math.pi), rng.uniform(6, 14)
            text = rng.choice(UPPER) if rng.random() < 0.6 else text
            start = x + distance * math.cos(angle) - 0.3 * style["size"] * len(text)
            if add_label(canvas, text, start, y + distance * math.sin(angle) + 0.36 * style["size"], style):
                break
    for _ in range(rng.randint(3, 20)):
        if rng.random() < 0.2:
            style = label_style(rng, canvas)
        add_label(canvas, label_text(rng), rng.uniform(1, 88), rng.uniform(8, 94), style)
    return canvas
