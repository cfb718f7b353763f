"""Typesets labels into small greyscale bitmaps: FreeType for plain text, matplotlib's mathtext for mathematics.

Every label is made once for each font and size and kept in a bounded cache, because the same numbers and letters come
back in thousands of pictures. The fonts are those that matplotlib ships, so that every machine draws the same bytes.
"""

import os
import re
from dataclasses import dataclass
from functools import lru_cache

import matplotlib
import numpy
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from PIL import Image, ImageFont

_FOLDER = os.path.join(matplotlib.get_data_path(), "fonts", "ttf")
FONTS = {  # upright file, italic file, mathtext's name for the matching set
    "sans": ("DejaVuSans.ttf", "DejaVuSans-Oblique.ttf", "dejavusans"),
    "serif": ("DejaVuSerif.ttf", "DejaVuSerif-Italic.ttf", "dejavuserif"),
    "times": ("STIXGeneral.ttf", "STIXGeneralItalic.ttf", "stix"),
}
_NEEDS_MATHTEXT = re.compile(r"[√²³⁴⁻₁₂₃₅^π|≤≥∞=]|\d/\d|[a-z]/\d|\)/")
_VARIABLE = re.compile(r"[a-zA-Z]+")


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


@lru_cache(maxsize=8192)
def typeset(text: str, family: str, size: int, italic: bool = False) -> Label:
    """A label in a font of `size` pixels to the em."""
    if _NEEDS_MATHTEXT.search(text):
        return _mathematics(text, family, size)
    return _plain(text.replace("-", "−"), family, size, italic)


def _plain(text: str, family: str, size: int, italic: bool) -> Label:
    font = _font(family, size, italic)
    mask, offset = font.getmask2(text, mode="L", anchor="ls")
    image = Image.frombytes("L", mask.size, bytes(mask))
    box = image.getbbox() or (0, 0, 1, 1)
    heights = [_character_height(family, size, italic, character) for character in text if character.isalnum()]
    return Label(text, image.crop(box), min(heights, default=float(size)), -offset[1] - box[1])


@lru_cache(maxsize=1)
def _parsers() -> tuple[MathTextParser, MathTextParser]:
    return MathTextParser("agg"), MathTextParser("path")


def _mathematics(text: str, family: str, size: int) -> Label:
    source = f"${to_mathtext(text)}$"
    properties = FontProperties(math_fontfamily=FONTS[family][2], size=size)
    raster, paths = _parsers()
    parsed = raster.parse(source, 72, properties)
    image = Image.fromarray(numpy.asarray(parsed.image, dtype=numpy.uint8))
    box = image.getbbox()
    heights = []
    for font, font_size, code, *_ in paths.parse(source, 72, properties).glyphs:
        if chr(code).isalnum() if code < 0x2000 else False:
            font.set_size(font_size, 72)
            heights.append(font.load_char(code).height / 64)
    rise = round(parsed.height - parsed.depth) - box[1]
    return Label(text, image.crop(box), min(heights, default=float(size)), rise)


def to_mathtext(text: str) -> str:
    """mathtext's source of a text as the problems write it: x², √(2), 5π/3, log₂(x), (a + b)/2."""
    text = re.sub(r"√\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"√(\d+|[a-z])", r"\\sqrt{\1}", text)
    part = r"(?:\\sqrt\{[^{}]*\}|[\dπa-z])+"
    text = re.sub(r"\(([^()]*)\)/\(([^()]*)\)", r"\\frac{\1}{\2}", text)
    text = re.sub(rf"\(([^()]*)\)/({part})", r"\\frac{\1}{\2}", text)
    text = re.sub(rf"({part})/\(([^()]*)\)", r"\\frac{\1}{\2}", text)
    text = re.sub(rf"({part})/({part})", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\^\(([^()]*)\)", r"^{\1}", text)
    text = re.sub(r"\b(sin|cos|tan|log|ln)", r"\\\1 ", text)
    text = re.sub(r"(\\sqrt|\\frac|\\sin|\\cos|\\tan|\\log|\\ln)|([A-Za-z]{2,})", _word, text)
    for sign, source in (
        ("⁻¹", "^{-1}"),
        ("²", "^2"),
        ("³", "^3"),
        ("⁴", "^4"),
        ("₁", "_1"),
        ("₂", "_2"),
        ("₃", "_3"),
        ("₅", "_5"),
        ("π", r"\pi "),
        ("°", r"^{\circ}"),
        ("×", r"\times "),
        ("≤", r"\leq "),
        ("≥", r"\geq "),
        ("∞", r"\infty "),
        ("\u00a0", r"\ "),
        ("<", r"\lt "),
        (">", r"\gt "),
        ("∠", r"\angle "),
        ("|", r"\vert "),
        ("−", "-"),
    ):
        text = text.replace(sign, source)
    return text


def _word(match: re.Match[str]) -> str:
    return match.group(1) or rf"\mathrm{{{match.group(2)}}}"


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
