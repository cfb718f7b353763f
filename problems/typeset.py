"""Typesets labels into small greyscale bitmaps with FreeType: plain text, and the mathematics of the problems' texts.

The mathematics (roots, fractions, powers, indices) is laid out here rather than by a TeX parser, which took longer than
all the drawing. Every label is made once for each font and size and kept in a bounded cache, because the same numbers
and letters come back in thousands of pictures. The fonts are those that matplotlib ships: every machine draws the same
bytes.
"""

import itertools
import math
import os
import re
from dataclasses import dataclass, field
from functools import lru_cache

import matplotlib
from PIL import Image, ImageDraw, ImageFont

_FOLDER = os.path.join(matplotlib.get_data_path(), "fonts", "ttf")
FONTS = {  # upright file, italic file
    "sans": ("DejaVuSans.ttf", "DejaVuSans-Oblique.ttf"),
    "serif": ("DejaVuSerif.ttf", "DejaVuSerif-Italic.ttf"),
    "times": ("STIXGeneral.ttf", "STIXGeneralItalic.ttf"),
}
_NEEDS_LAYOUT = re.compile(r"[√²³⁴⁻₁₂₃₅^π|≤≥∞=]|\d/\d|[a-z]/\d|\)/")
_MINUS = re.compile(r"-(?![a-z]{2})")  # x-axis keeps its hyphen
SCRIPT = 0.74  # size of powers, indices and fractions against the text around them


@dataclass(frozen=True)
class Label:
    """A typeset text, cropped to its ink. `glyph_height` is the height of its smallest letter or digit in pixels."""

    text: str
    mask: Image.Image
    glyph_height: float
    rise: int  # pixels from the top of the ink down to the baseline

    @property
    def size(self) -> tuple[int, int]:
        return self.mask.size


@lru_cache(maxsize=256)
def _font(family: str, size: int, italic: bool) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(os.path.join(_FOLDER, FONTS[family][1 if italic else 0]), size)


@lru_cache(maxsize=8192)
def _character_height(family: str, size: int, italic: bool, character: str) -> float:
    _, top, _, bottom = _font(family, size, italic).getbbox(character)
    return bottom - top


@lru_cache(maxsize=16384)
def typeset(text: str, family: str, size: int, italic: bool = False) -> Label:
    """A label in a font of `size` pixels to the em."""
    if _NEEDS_LAYOUT.search(text):
        return _mathematics(text, family, size)
    return _plain(_MINUS.sub("−", text), family, size, italic)


def _plain(text: str, family: str, size: int, italic: bool) -> Label:
    font = _font(family, size, italic)
    mask, offset = font.getmask2(text, mode="L", anchor="ls")
    image = Image.frombytes("L", mask.size, bytes(mask))
    box = image.getbbox() or (0, 0, 1, 1)
    return Label(text, image.crop(box), _lowest(text, family, size, italic), -offset[1] - box[1])


def _lowest(text: str, family: str, size: int, italic: bool) -> float:
    heights = [_character_height(family, size, italic, character) for character in text if character.isalnum()]
    return min(heights, default=float(size))


@lru_cache(maxsize=16384)
def glyph_height(text: str, family: str, size: int, italic: bool = False) -> float:
    """The glyph height that a label will have, without drawing it."""
    if not _NEEDS_LAYOUT.search(text):
        return _lowest(text, family, size, italic)
    runs = _row(text, family, size).glyphs
    return min((_lowest(run, family, run_size, slanted) for run, run_size, slanted, _, _ in runs), default=float(size))


def character_places(text: str, family: str, size: int, italic: bool = False) -> list[tuple[str, float, float, int]]:
    """Where a label's characters stand: (character, x and y of its middle, its size), in pixels from the left end of
    the label's ink and from the baseline, y downwards. Spaces are left out."""
    if _NEEDS_LAYOUT.search(text):
        row = _row(text, family, size)
    else:
        row = _run(_MINUS.sub("−", text), family, size, italic, 0.0)
    found, left = [], min([x0 for x0, *_ in row.rules], default=math.inf)
    for run, run_size, slanted, x, y in row.glyphs:
        font = _font(family, run_size, slanted)
        left = min(left, x + font.getbbox(run, anchor="ls")[0])
        ends = [x + font.getlength(run[:k]) for k in range(len(run) + 1)]
        middles = [(a + b) / 2 for a, b in itertools.pairwise(ends)]
        found += [(c, middle, y - 0.36 * run_size, run_size) for c, middle in zip(run, middles, strict=True)]
    return [(c, x - left, y, run_size) for c, x, y, run_size in found if not c.isspace()]


# ---------------------------------------------------------------------------------------------------------------------
# Mathematics: a row of boxes side by side on one baseline


@dataclass
class _Row:
    """Glyphs and rules placed from the row's own origin: x to the right, y down from the baseline."""

    width: float = 0.0
    top: float = 0.0  # of the ink, above the baseline (negative)
    bottom: float = 0.0
    glyphs: list[tuple[str, int, bool, float, float]] = field(default_factory=list)  # text, size, italic, x, y
    rules: list[tuple[float, float, float, float]] = field(default_factory=list)

    def put(self, other: "_Row", x: float, y: float) -> None:
        """Take over another row, moved."""
        self.glyphs += [(text, size, italic, a + x, b + y) for text, size, italic, a, b in other.glyphs]
        self.rules += [(a + x, b + y, c + x, d + y) for a, b, c, d in other.rules]
        self.top, self.bottom = min(self.top, other.top + y), max(self.bottom, other.bottom + y)

    def append(self, other: "_Row", y: float = 0.0) -> None:
        self.put(other, self.width, y)
        self.width += other.width


_POWERS = str.maketrans("⁻¹²³⁴", "-1234")
_INDICES = str.maketrans("₀₁₂₃₅", "01235")
_PART = r"(?:√\([^()]*\)|√?[\dπ]+|√?[a-z](?![a-z]))+"
_GROUP = r"\((?:[^()]|\([^()]*\))*\)"
_ATOM = re.compile(
    rf"(?P<fraction>(?P<over>{_GROUP}|{_PART})/(?P<under>{_GROUP}|{_PART}))|√(?P<root>{_GROUP}|\d+|[a-z])"
    rf"|(?P<power>[⁻¹²³⁴]+)|\^(?P<exponent>{_GROUP}|-?\d+|[a-z])|(?P<index>[₀₁₂₃₅]+)"
    r"|[ \u00a0]*(?P<relation>[=≤≥<>])[ \u00a0]*|(?P<space>[ \u00a0]+)|(?P<sign>[-−+×·])|(?P<choice>[A-D]:)"
    r"|(?P<unit>(?<=[\dπ)][ \u00a0])m)"
    r"|(?P<word>[A-Za-z]{2,}'*)|(?P<letter>[A-Za-z])|(?P<other>.)"
)


def _mathematics(text: str, family: str, size: int) -> Label:
    row = _row(text, family, size)
    pad = size  # room for what sticks out; the bitmap is cropped to its ink
    baseline = round(pad - row.top)
    image = Image.new("L", (round(row.width) + 2 * pad, round(row.bottom) + baseline + pad), 0)
    pen = ImageDraw.Draw(image)
    for run, run_size, italic, x, y in row.glyphs:
        pen.text((pad + x, baseline + round(y)), run, fill=255, font=_font(family, run_size, italic), anchor="ls")
    for x0, y0, x1, y1 in row.rules:
        top = baseline + round(y0)
        pen.rectangle((round(pad + x0), top, round(pad + x1) - 1, top + max(1, round(y1 - y0)) - 1), fill=255)
    box = image.getbbox() or (0, 0, 1, 1)
    return Label(text, image.crop(box), glyph_height(text, family, size), baseline - box[1])


def _row(text: str, family: str, size: int) -> _Row:
    """Lay a text out: x² - 3x, √(2), 5π/3, log₂(x), (a + b)/2."""
    row, small, operand = _Row(), max(6, round(size * SCRIPT)), False
    for match in _ATOM.finditer(text):
        kind, atom = match.lastgroup, match.group()
        if match.group("fraction"):
            row.append(_fraction(match.group("over"), match.group("under"), family, size))
        elif kind == "root":
            row.append(_radical(_bare(match.group("root")), family, size))
        elif kind in ("power", "exponent"):
            raised = match.group("power") or _bare(match.group("exponent"))
            row.append(_row(raised.translate(_POWERS), family, small), -0.36 * size)
        elif kind == "index":
            row.append(_row(match.group("index").translate(_INDICES), family, small), 0.16 * size)
        elif kind == "relation":
            row.append(_run(match.group("relation"), family, size, False, 0.24))
        elif kind == "space":
            row.width += 0.3 * size if match.end() < len(text) else 0.0
        elif kind == "sign":
            spaced = text[match.start() - 1 : match.start()] == " " or not operand
            row.append(_run(atom.replace("-", "−"), family, size, False, 0.0 if spaced else 0.12))
        else:
            row.append(_run(atom, family, size, kind == "letter", 0.0))
        operand = operand if kind == "space" else kind not in ("relation", "sign") and atom not in "(["
    return row


def _bare(group: str) -> str:
    return group[1:-1] if group.startswith("(") else group


@lru_cache(maxsize=8192)
def _extent(text: str, family: str, size: int, italic: bool) -> tuple[float, float, float]:
    """Advance, top and bottom of a run."""
    font = _font(family, size, italic)
    _, top, _, bottom = font.getbbox(text, anchor="ls")
    return font.getlength(text), top, bottom


def _run(text: str, family: str, size: int, italic: bool, pad: float) -> _Row:
    """Characters in one font, with `pad` ems of space on both sides."""
    width, top, bottom = _extent(text, family, size, italic)
    lean = 0.04 * size if italic else 0.0  # an italic letter leans over its advance
    return _Row(width + 2 * pad * size + lean, top, bottom, [(text, size, italic, pad * size, 0.0)])


def _fraction(over: str, under: str, family: str, size: int) -> _Row:
    small = max(6, round(size * SCRIPT))
    above, below = (_row(_bare(part), family, small) for part in (over, under))
    thick, air = max(1, round(size / 18)), max(1.5, size * 0.1)
    axis = -0.3 * size  # the bar stands where a minus sign does
    width = max(above.width, below.width) + 0.16 * size
    row = _Row(width + 0.12 * size)
    row.rules.append((0.06 * size, axis - thick / 2, 0.06 * size + width, axis + thick / 2))
    middle = row.width / 2
    row.put(above, middle - above.width / 2, axis - thick / 2 - air - above.bottom)
    row.put(below, middle - below.width / 2, axis + thick / 2 + air - below.top)
    return row


def _radical(inside: str, family: str, size: int) -> _Row:
    """A root sign as tall as what stands under its bar."""
    content = _row(inside, family, size)
    thick, air = max(1, round(size / 18)), max(1.5, size * 0.1)
    top = min(content.top, -0.7 * size) - air - thick
    sign_size, depth = size, content.bottom + 0.06 * size
    _, sign_top, sign_bottom = _extent("√", family, size, False)
    if depth - top > sign_bottom - sign_top:
        sign_size = round(size * (depth - top) / (sign_bottom - sign_top))
        _, sign_top, sign_bottom = _extent("√", family, sign_size, False)
    right = _font(family, sign_size, False).getbbox("√", anchor="ls")[2]
    row = _Row()
    row.put(_Row(0.0, sign_top, sign_bottom, [("√", sign_size, False, 0.0, 0.0)]), 0.0, top - sign_top)
    row.rules.append((right - 1, top, right + content.width + 0.1 * size, top + thick))
    row.put(content, right + 0.04 * size, 0.0)
    row.width = right + content.width + 0.18 * size
    return row


def gap(size: int) -> int:
    """The space between two words."""
    return max(3, round(size * 0.3))


def lines_of(text: str, family: str, size: int, width: int) -> list[list[Label]]:
    """Break a text into lines of words, each typeset, no line wider than `width` pixels unless one word is."""
    space = gap(size)
    lines: list[list[Label]] = []
    for paragraph in text.split("\n"):
        line: list[Label] = []
        used = 0
        for word in paragraph.split(" "):
            label = typeset(word, family, size)
            if line and used + space + label.size[0] > width:
                lines.append(line)
                line, used = [], 0
            used += (space if line else 0) + label.size[0]
            line.append(label)
        lines.append(line)
    return lines
