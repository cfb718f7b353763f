r"""Words and LaTeX as grey masks with a baseline: words by Pillow, mathematics by matplotlib's mathtext, in its fonts.

    box = math_box(r"\frac{1}{2}x^2", "dejavu sans", 20)      # raises Unrenderable when mathtext cannot
    box = word_box("50°", fonts, 20)                          # raises MissingGlyphs rather than draw a box for a glyph

Everything is cached, and mathematics is parsed once for all sizes. Positions are whole pixels, so the same box gives
the same pixels wherever it stands, on every machine with the same versions of Pillow and matplotlib.
"""

import functools
import itertools
import logging
import os
import re
import string
import unicodedata
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib import ft2font
from matplotlib.font_manager import FontProperties, get_font
from matplotlib.mathtext import MathTextParser
from PIL import Image, ImageDraw, ImageFont

logging.getLogger("matplotlib.mathtext").setLevel(logging.ERROR)  # it warns of dummy glyphs; we refuse them

FONT_FOLDER = os.path.join(matplotlib.get_data_path(), "fonts", "ttf")
# family: (font of the words, mathtext's font set). Computer Modern's file maps TeX's codes: few are what they say.
FAMILIES = {
    "dejavu sans": ("DejaVuSans.ttf", "dejavusans"), "dejavu serif": ("DejaVuSerif.ttf", "dejavuserif"),
    "stix": ("STIXGeneral.ttf", "stix"), "computer modern": ("cmr10.ttf", "cm"),
    "typewriter": ("DejaVuSansMono.ttf", "dejavusans"), "sans with stix": ("DejaVuSans.ttf", "stixsans")
}
MONO = "DejaVuSansMono.ttf"
FALLBACKS = ("DejaVuSans.ttf", "STIXGeneral.ttf")
CMR_CHARACTERS = frozenset(map(ord, string.ascii_letters + string.digits + ".,;:!?()[]+=/%&#*@-"))
REFERENCE_SIZE = 100.0  # mathtext lays an expression out once, at this size; every other size is a scaling


class Unrenderable(Exception):
    """mathtext cannot typeset this LaTeX; the message says why."""


class MissingGlyphs(Exception):
    """No font at hand has these characters."""

    def __init__(self, characters: set[str]):
        super().__init__("no glyph for " + ", ".join(f"{c} (U+{ord(c):04X})" for c in sorted(characters)))
        self.characters = characters


@dataclass(frozen=True)
class Box:
    """Ink on a baseline. mask [h, w] uint8 is put with its corner at (pen + left, baseline - top)."""

    mask: np.ndarray
    left: int
    top: int
    advance: float
    text: str = ""  # of a word, for whoever reads a layout back

    @property
    def descent(self) -> int:
        """Pixel rows below the baseline."""
        return self.mask.shape[0] - self.top


# ----------------------------------------------------------------------------------------------------------------------
# Words


@functools.lru_cache(256)
def _truetype(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)  # the same with and without raqm


def space_width(path: str, size: int) -> float:
    """The advance of a space, in pixels."""
    return _truetype(path, size).getlength(" ")


@functools.lru_cache(64)
def coverage(path: str) -> frozenset[int]:
    """The code points a font file has glyphs for."""
    if os.path.basename(path) == "cmr10.ttf":
        return CMR_CHARACTERS
    return frozenset(code for code, glyph in ft2font.FT2Font(path).get_charmap().items() if glyph)


def font_path(name: str) -> str:
    """A bundled font's file by its name; a path, or a name not bundled, as it is."""
    bundled = os.path.join(FONT_FOLDER, name)
    return bundled if os.path.exists(bundled) else name


def needs_shaping(character: str) -> bool:
    """Right-to-left and combining characters: FreeType alone would draw them in the wrong place."""
    category = unicodedata.category(character)
    return category in ("Mn", "Me", "Cn", "Co") or unicodedata.bidirectional(character) in ("R", "AL")


def pick_font(character: str, fonts: tuple[str, ...]) -> str | None:
    """The first of `fonts` (paths) that has this character."""
    if needs_shaping(character):
        return None
    return next((path for path in fonts if ord(character) in coverage(path)), None)


@functools.lru_cache(20000)
def word_box(word: str, fonts: tuple[str, ...], size: int) -> Box:
    """A word of any characters, each from the first font that has it. Raises MissingGlyphs."""
    chosen = [pick_font(character, fonts) for character in word]
    if None in chosen:
        raise MissingGlyphs({character for character, path in zip(word, chosen, strict=True) if path is None})
    placed, pen = [], 0.0
    for path, run in itertools.groupby(zip(word, chosen, strict=True), key=lambda pair: pair[1]):
        text, font = "".join(character for character, _ in run), _truetype(path, size)
        x0, y0, x1, y1 = (int(v) for v in font.getbbox(text, anchor="ls"))
        mask = Image.new("L", (max(1, x1 - x0 + 2), max(1, y1 - y0 + 2)))
        ImageDraw.Draw(mask).text((1 - x0, 1 - y0), text, fill=255, font=font, anchor="ls")
        placed.append((np.asarray(mask), round(pen) + x0 - 1, y0 - 1))
        pen += font.getlength(text)
    return _assemble(placed, pen, word)


def _assemble(placed: list[tuple[np.ndarray, int, int]], advance: float, text: str = "") -> Box:
    """One Box of masks with their corners (x, y) from the pen on the baseline."""
    if not placed:
        return Box(np.zeros((1, 1), np.uint8), 0, 1, advance)
    x0, y0 = min(x for _, x, _ in placed), min(y for _, _, y in placed)
    x1, y1 = max(x + m.shape[1] for m, x, _ in placed), max(y + m.shape[0] for m, _, y in placed)
    canvas = np.zeros((y1 - y0, x1 - x0), np.uint8)
    for mask, x, y in placed:
        part = canvas[y - y0 : y - y0 + mask.shape[0], x - x0 : x - x0 + mask.shape[1]]
        np.maximum(part, mask, out=part)
    return Box(canvas, x0, -y0, advance, text)


# ----------------------------------------------------------------------------------------------------------------------
# Mathematics

_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\\(?:t|c)frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(d?frac)\s*(\d)\s*(\w)", r"\\\1{\2}{\3}"),
        (r"\\(d?frac)\s*(\d)\s*\{", r"\\\1{\2}{"),
        (r"\\(d?frac)\s*(\{[^{}]*\})\s*(\w)", r"\\\1\2{\3}"),
        (r"\\sqrt\s*(\d|(?<=\s)[a-zA-Z])", r"\\sqrt{\1}"),
        (r"\\(?:d|t)binom(?![a-zA-Z])", r"\\binom"),
        (r"\\(?:mbox|hbox|textrm|textnormal|textbf|textit|textsf|emph)(?=\s*\{)", r"\\text"),
        (r"\\(?:overparen|wideparen|overgroup|arc)(?=\s*\{)", r"\\overarc"),
        (r"\\(?:bm|pmb)(?=\s*\{)", r"\\boldsymbol"),
        (r"\\operatorname\*", r"\\operatorname"),
        (r"\\(?:stackrel)(?![a-zA-Z])", r"\\overset"),
        (r"\\xrightarrow\s*\{([^{}]*)\}", r"\\overset{\1}{\\longrightarrow}"),
        (r"\{\s*([^{}]*?)\s*\\choose\s*([^{}]*?)\s*\}", r"\\binom{\1}{\2}"),
        (r"\\pmod\s*\{([^{}]*)\}", r"\\ (\\mathrm{mod}\\ \1)"),
        (r"\\pmod\s*(\w)", r"\\ (\\mathrm{mod}\\ \1)"),
        (r"\\b?mod(?![a-zA-Z])", r"\\ \\mathrm{mod}\\ "),
        (r"\\tag\s*\{([^{}]*)\}", r"\\qquad (\1)"),
        (r"\\label\s*\{[^{}]*\}|\\(?:color|textcolor)\s*\{[^{}]*\}", ""),
        (r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|nonumber|notag|centering|noindent|hfill|normalsize|"
         r"mathbin|mathrel|mathop|mathopen|mathclose|allowbreak)(?![a-zA-Z])", " "),
        (r"\\(?:[bB]igg?|[bB]igg?[lrm])(?![a-zA-Z])", ""),
        (r"\\hspace\*?\s*\{[^{}]*\}|\\enskip(?![a-zA-Z])|\\hskip\s*[\d.]+\s*(?:pt|em|cm|mm)", r"\\quad "),
        (r"\\phantom\s*\{[^{}]*\}", r"\\ "),
        (r"\\(?:lvert|rvert)(?![a-zA-Z])", "|"),
        (r"\\(?:lVert|rVert)(?![a-zA-Z])", r"\\Vert "),
        (r"\\ast(?![a-zA-Z])", "*"),
        (r"\\(?:square|Box)(?![a-zA-Z])", "□"),
        (r"\\(?:Diamond|lozenge)(?![a-zA-Z])", "◊"),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z])|\{\s*\\(?:text)?degree\s*\})|\\(?:text)?degree(?![a-zA-Z])",
         "°"),
        (r"(?<!\\)\\&", r"\\text{&}"),
    ]
] + [
    (re.compile(rf"\\{name}(?![a-zA-Z])"), replacement)
    for name, replacement in {
        "implies": r"\\Longrightarrow ", "impliedby": r"\\Longleftarrow ", "iff": r"\\Longleftrightarrow ",
        "land": r"\\wedge ", "lor": r"\\vee ", "lnot": r"\\neg ", "lt": "< ", "gt": "> ", "le": r"\\leq ",
        "ge": r"\\geq ", "gets": r"\\leftarrow ", "owns": r"\\ni ", "dotsb": r"\\cdots ", "dotsm": r"\\cdots ",
        "dotsc": r"\\ldots ", "dotso": r"\\ldots ", "ldotp": ".", "negthinspace": r"\\!", "lg": r"\\mathrm{lg}\\,",
        "sgn": r"\\mathrm{sgn}\\,", "lcm": r"\\mathrm{lcm}\\,"
    }.items()
]


def rewrite_latex(latex: str) -> str:
    """LaTeX in the words mathtext knows: the same mathematics, other macro names."""
    latex = latex.strip()
    if "\\" in latex:
        # A raised ring is the degree sign: set as a superscript its few pixels are no longer round.
        for pattern, replacement in _REWRITES:
            latex = pattern.sub(replacement, latex)
    return re.sub(r"\s+", " ", latex).strip()


_OPERATORS = set("= + - < >".split()) | set(
    r"\leq \geq \neq \times \cdot \div \pm \parallel \perp \to \rightarrow \in \approx \cong \sim \equiv".split()
)
_ATOMS = re.compile(r"\\[a-zA-Z]+|\\.|\s+|.", re.DOTALL)
_LEAKS = re.compile(r"\\(?:rm|bf|it|cal|sf|tt|not|middle)(?![a-zA-Z])")  # these reach beyond the next operator


@functools.lru_cache(20000)
def _parse(latex: str, fontset: str) -> tuple | str:
    """mathtext's layout at the reference size: (width, glyphs, rects), or in words why there is none.

    A formula is cut at its outermost operators and its terms are laid out one by one: parsing is nearly all of the cost
    of a page, and terms come back ("5", "f(x)") where whole formulas do not. mathtext sets operators apart by a space
    of their own, so the joined parts are what it would make of the whole.
    """
    pieces = _terms(latex)
    if len(pieces) == 1:
        return _parse_whole(latex, fontset)
    width, glyphs, rects = 0.0, [], []
    for index, piece in enumerate(pieces):
        part = _operator(piece, fontset) if index % 2 else _parse_whole(piece, fontset)
        if isinstance(part, str):
            return _parse_whole(latex, fontset)
        glyphs += [(path, number, size, width + x, y) for path, number, size, x, y in part[1]]
        rects += [(width + x, y, w, h) for x, y, w, h in part[2]]
        width += part[0]
    return width, glyphs, rects


def _terms(latex: str) -> list[str]:
    """[term, operator, term, ...]; the whole alone where it cannot be cut."""
    if _LEAKS.search(latex):
        return [latex]
    pieces, depth = [""], 0
    for atom in _ATOMS.findall(latex):
        depth += (atom in ("{", r"\left")) - (atom in ("}", r"\right"))
        if depth == 0 and atom in _OPERATORS and pieces[-1].strip() and pieces[-1].rstrip()[-1] not in "([|,;:":
            pieces += [atom, ""]
        else:
            pieces[-1] += atom
    pieces = [piece.strip() for piece in pieces]
    return pieces if all(piece and piece[0] not in "^_'" for piece in pieces) and depth == 0 else [latex]


@functools.lru_cache(2000)
def _operator(operator: str, fontset: str) -> tuple | str:
    """An operator between two terms, with its spaces."""
    both, one = _parse_whole(f"x{operator} x", fontset), _parse_whole("x", fontset)
    if isinstance(both, str) or isinstance(one, str):
        return "no such operator"
    advance = both[1][-1][3]  # where the second x begins
    glyphs = [(path, number, size, x - one[0], y) for path, number, size, x, y in both[1][1:-1]]
    return advance - one[0], glyphs, []


@functools.lru_cache(20000)
def _parse_whole(latex: str, fontset: str) -> tuple | str:
    if len(latex) > 1500:
        return "too long for one formula"
    properties = FontProperties(size=REFERENCE_SIZE, math_fontfamily=fontset)
    try:
        vector = MathTextParser("path").parse(f"${latex}$", 72, properties)
    except (ValueError, RecursionError, RuntimeError) as error:  # RuntimeError: FreeType
        return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    glyphs = [(font.fname, number, fontsize, x, y) for font, fontsize, number, *_, x, y in vector.glyphs]
    if any(number == 0xA4 for _, number, *_ in glyphs) and "¤" not in latex:
        return "a symbol that this font set lacks"
    if not glyphs and not vector.rects:
        return "nothing to draw"
    return float(vector.width), glyphs, vector.rects


_AUTOHINT = (ft2font.LoadFlags.FORCE_AUTOHINT if hasattr(ft2font, "LoadFlags")
             else ft2font.LOAD_FORCE_AUTOHINT)  # matplotlib below 3.10


@functools.lru_cache(20000)
def _glyph(path: str, number: int, size: float) -> tuple[np.ndarray | None, int, int]:
    """One glyph's mask, its left bearing and its top above the baseline, in pixels."""
    font = get_font(path)
    font.set_size(size, 72)
    glyph = font.load_char(number, flags=_AUTOHINT)
    x0, y0, x1, y1 = glyph.bbox
    if x1 <= x0 or y1 <= y0:
        return None, 0, 0
    left, top = int(np.floor(x0 / 64)), int(np.ceil(y1 / 64))
    shape = (top - int(np.floor(y0 / 64)) + 1, int(np.ceil(x1 / 64)) - left + 1)
    image = _glyph_canvas(shape)
    font.draw_glyph_to_bitmap(image, -left, 0, glyph, antialiased=True)  # it adds the left bearing itself
    return np.array(image), left, top


def _glyph_canvas(shape: tuple[int, int]) -> np.ndarray:
    if tuple(map(int, matplotlib.__version__.split(".")[:2])) >= (3, 11):
        return np.zeros(shape, np.uint8)
    return ft2font.FT2Image(shape[1], shape[0])


@functools.lru_cache(20000)
def _simple_math_box(latex: str, fontset: str, size: int) -> Box:
    parsed = _parse(latex, fontset)
    if isinstance(parsed, str):
        raise Unrenderable(parsed)
    width, glyphs, rects = parsed
    scale = size / REFERENCE_SIZE
    placed = []
    for path, number, fontsize, x, y in glyphs:
        mask, left, top = _glyph(path, number, round(fontsize * scale, 2))
        if mask is None:
            if not chr(number).isspace():
                raise Unrenderable(f"an empty glyph, {number}")
            continue
        placed.append((mask, round(x * scale) + left, -round(y * scale) - top))
    for x, y, w, h in rects:
        thickness = max(1, round(h * scale))
        x0, x1, y0 = round(x * scale), max(round(x * scale) + 1, round((x + w) * scale)), -round((y + h) * scale)
        placed.append((np.full((thickness, x1 - x0), 255, np.uint8), x0, y0))
    if not placed:
        raise Unrenderable("nothing to draw")
    return _assemble(placed, width * scale)


_ENVIRONMENT = re.compile(r"(?:\\left\s*(?P<left>\\?[.\[({|]|\\lbrace|\\lvert)\s*)?"
                          r"\\begin\{(?P<name>[a-zA-Z]+)\*?\}(?P<body>.*?)\\end\{(?P=name)\*?\}"
                          r"(?:\s*\\right\s*(?P<right>\\?[.\])}|]|\\rbrace|\\rvert))?",
                          re.DOTALL)
_GRIDS = {  # environment: (alignment of its columns, in turn; delimiters)
    "cases": ("l", "{", ""), "dcases": ("l", "{", ""), "matrix": ("c", "", ""), "pmatrix": ("c", "(", ")"),
    "bmatrix": ("c", "[", "]"), "vmatrix": ("c", "|", "|"), "Bmatrix": ("c", "{", "}"), "smallmatrix": ("c", "", ""),
    "array": ("c", "", ""), "aligned": ("rl", "", ""), "align": ("rl", "", ""), "alignat": ("rl", "", ""),
    "split": ("rl", "", ""), "gathered": ("c", "", ""), "gather": ("c", "", ""), "eqnarray": ("rcl", "", ""),
    "equation": ("c", "", ""), "multline": ("c", "", ""), "displaymath": ("c", "", "")
}


def math_box(latex: str, family: str, size: int) -> Box:
    """LaTeX without its dollar signs, as a Box. family: of FAMILIES; size: pixels per em. Raises Unrenderable."""
    fontset = FAMILIES[family][1]
    if "\\begin" not in latex and "\\\\" not in latex:
        return _simple_math_box(rewrite_latex(latex), fontset, size)
    return _grid_math_box(latex, fontset, size)


@functools.lru_cache(2000)
def _grid_math_box(latex: str, fontset: str, size: int) -> Box:
    """A formula with matrices, cases or aligned lines: the grids are set here, their cells and the rest by mathtext."""
    pieces, position = [], 0
    for match in _ENVIRONMENT.finditer(latex):
        if "\\begin" in match["body"] or match["name"] not in _GRIDS:
            raise Unrenderable(f"the environment {match['name']}")
        if latex[position : match.start()].strip():
            pieces.append(_simple_math_box(rewrite_latex(latex[position : match.start()]), fontset, size))
        alignment, left, right = _GRIDS[match["name"]]
        body = match["body"]
        if match["name"] in ("array", "alignat"):
            columns = re.match(r"\s*\{([^{}]*)\}", body)
            body = body[columns.end() :] if columns else body
            letters = "".join(re.findall("[lcr]", columns[1])) if columns else ""
            alignment = letters or alignment
        left = left or (match["left"] or "").replace("\\lbrace", "{").replace("\\lvert", "|").lstrip("\\").strip(".")
        right = right or (match["right"] or "").replace("\\rbrace", "}").replace("\\rvert", "|").lstrip("\\").strip(".")
        pieces.append(_grid_box(body, alignment, (left, right), fontset, size))
        position = match.end()
    rest = latex[position:].strip()
    if not pieces:  # lines without an environment
        return _grid_box(rest, "rl" if "&" in rest else "c", ("", ""), fontset, size)
    if rest:
        pieces.append(_simple_math_box(rewrite_latex(rest), fontset, size))
    placed, pen = [], 0.0
    for box in pieces:
        placed.append((box, round(pen), 0))
        pen += box.advance + 0.2 * size
    return _join(placed, pen)


def _join(placed: list[tuple[Box, int, int]], advance: float) -> Box:
    """Boxes at (pen, baseline) offsets as one Box."""
    return _assemble([(box.mask, x + box.left, y - box.top) for box, x, y in placed], advance)


def _grid_box(body: str, alignment: str, delimiters: tuple[str, str], fontset: str, size: int) -> Box:
    body = re.sub(r"\\(?:hline|toprule|midrule|bottomrule)", "", body)
    rows = re.split(r"\\\\(?:\s*\[[^\]]*\])?", body)
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)&", row)] for row in rows if row.strip()]
    if not cells:
        raise Unrenderable("an empty environment")
    boxes = [[_simple_math_box(rewrite_latex(cell), fontset, size) if cell else None for cell in row] for row in cells]
    columns = max(map(len, boxes))
    widths = [max([box.advance for row in boxes if column < len(row) and (box := row[column])], default=0.0)
              for column in range(columns)]
    gap = 0.3 * size if alignment == "rl" else 0.9 * size
    placed, y = [], 0
    for row in boxes:
        present = [box for box in row if box]
        ascent = max([box.top for box in present] + [round(0.8 * size)])
        descent = max([box.descent for box in present] + [round(0.3 * size)])
        y += ascent
        pen = 0.0
        for column, box in enumerate(row):
            if box:
                spare = widths[column] - box.advance
                shift = {"l": 0.0, "c": spare / 2, "r": spare}[alignment[column % len(alignment)]]
                placed.append((box, round(pen + shift), y))
            pen += widths[column] + gap
        y += descent + round(0.2 * size)
    height = y - round(0.2 * size)
    baseline = height // 2 + round(0.28 * size)  # the middle of the grid on the axis of the line
    width = sum(widths) + gap * (columns - 1)
    inset = round(0.5 * size) if delimiters[0] else 0
    placed = [(box, x + inset, row_y - baseline) for box, x, row_y in placed]
    for delimiter, x in ((delimiters[0], 0), (delimiters[1], round(inset + width + 0.12 * size))):
        if delimiter:
            placed.append((_tall_delimiter(delimiter, height, baseline, size), x, 0))
    return _join(placed, inset + width + (0.5 * size if delimiters[1] else 0.0))


def _tall_delimiter(delimiter: str, height: int, baseline: int, size: int) -> Box:
    """A bracket as high as a grid: straight ones are drawn, curved ones are the font's own, stretched."""
    if delimiter in "[]|":
        stroke, width = max(1, round(size / 14)), round((0.12 if delimiter == "|" else 0.26) * size)
        mask = np.zeros((height, width), np.uint8)
        if delimiter == "|":
            mask[:, width // 2 : width // 2 + stroke] = 255
        else:
            mask[:stroke], mask[-stroke:] = 255, 255
            mask[:, slice(0, stroke) if delimiter == "[" else slice(width - stroke, width)] = 255
        return Box(mask, 0, baseline, float(width))
    mask, _, _ = _glyph(font_path("DejaVuSans.ttf"), ord(delimiter), float(min(3 * size, height)))
    if mask is None:
        raise Unrenderable(f"the delimiter {delimiter}")
    rows, columns = np.nonzero(mask.max(1))[0], np.nonzero(mask.max(0))[0]
    ink = Image.fromarray(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    width = max(2, round(0.32 * size))
    stretched = np.asarray(ink.resize((width, height), Image.Resampling.BILINEAR))
    return Box(stretched, 0, baseline, float(width))
