r"""Words and LaTeX as grey masks with a baseline: words by Pillow, mathematics by matplotlib's mathtext, in its fonts.

    box = math_box(r"\frac{1}{2}x^2", "dejavu sans", 20)      # raises CannotSet when mathtext cannot
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
FALLBACKS = ("DejaVuSans.ttf", "STIXGeneral.ttf")
CMR_CHARACTERS = frozenset(map(ord, string.ascii_letters + string.digits + ".,;:!?()[]+=/%&#*@-"))
REFERENCE_SIZE = 100.0  # mathtext lays an expression out once, at this size; every other size is a scaling


class CannotSet(Exception):
    """This LaTeX cannot be set; the message says why."""


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

DEEPEST = 30  # levels of braces and environments
LONGEST = 1500  # characters of one formula
EAST_ASIAN = r"\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef"
FULL_WIDTH = str.maketrans({"、": ",", "。": "."} | {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)})
_TOKENS = re.compile(r"\\(?:begin|end)\{[a-zA-Z]+\*?\}|\\[a-zA-Z]+|"
                     r"\\\\(?:\*|\s{0,3}\[\s?-?[\d.]{1,6}\s?[a-z]{2}\])?|\\.|\s+|.|\\", re.DOTALL)
_GLUED = re.compile(r"\\(angle|triangle|odot|sin|cos|tan|cot|log|ln)(?=[A-Z])")  # \angleABC, as some sets write it

_ARGUMENTS = dict.fromkeys(  # macros whose arguments may stand without braces, and how many they are
    "frac dfrac binom overset underset".split(), 2) | dict.fromkeys(
    "sqrt overline underline overarc widehat widetilde hat bar vec dot ddot tilde check acute grave breve mathring "
    "overrightarrow overleftarrow overleftrightarrow mathbb mathbf mathrm mathcal mathit mathsf mathtt mathfrak "
    "mathscr boldsymbol operatorname".split(), 1)
_RENAMED = {
    "tfrac": "frac", "cfrac": "dfrac", "dbinom": "binom", "tbinom": "binom", "stackrel": "overset",
    "overparen": "overarc", "wideparen": "overarc", "overgroup": "overarc", "arc": "overarc", "bm": "boldsymbol",
    "pmb": "boldsymbol", "bold": "mathbf", "Bbb": "mathbb"
}
_FRAMES = {  # what stands around a macro's argument, {} is the argument
    "pmod": r"\ (\mathrm{{mod}}\ {})", "pod": r"\ ({})", "tag": r"\qquad ({})", "label": "", "color": "",
    "textcolor": "", "vspace": "", "hspace": r"\quad ", "phantom": r"\ ", "hphantom": r"\ ", "vphantom": "",
    "xrightarrow": r"\overset{{{}}}{{\longrightarrow}}", "xleftarrow": r"\overset{{{}}}{{\longleftarrow}}"
}
_WORDS = set("text mbox hbox textrm textnormal textbf textit textsf texttt textup textsc emph".split())
_MACROS = dict.fromkeys(
    "displaystyle textstyle scriptstyle scriptscriptstyle limits nolimits nonumber notag centering noindent hfill "
    "normalsize mathbin mathrel mathop mathopen mathclose mathord mathstrut strut allowbreak par big Big bigg Bigg "
    "bigl Bigl biggl Biggl bigr Bigr biggr Biggr bigm Bigm biggm Biggm".split(), " ") | {
    "lvert": "|", "rvert": "|", "lVert": r"\Vert ", "rVert": r"\Vert ", "ast": "*", "square": "□", "Box": "□",
    "Diamond": "◊", "lozenge": "◊", "degree": "°", "textdegree": "°", "implies": r"\Longrightarrow ",
    "impliedby": r"\Longleftarrow ", "iff": r"\Longleftrightarrow ", "land": r"\wedge ", "lor": r"\vee ",
    "lnot": r"\neg ", "lt": "<", "gt": ">", "le": r"\leq ", "ge": r"\geq ", "gets": r"\leftarrow ", "owns": r"\ni ",
    "dotsb": r"\cdots ", "dotsm": r"\cdots ", "dotsc": r"\ldots ", "dotso": r"\ldots ", "hdots": r"\ldots ",
    "ldotp": ".", "negthinspace": r"\!", "enskip": r"\quad ", "enspace": r"\ ", "bmod": r"\ \mathrm{mod}\ ",
    "mod": r"\ \mathrm{mod}\ ", "lg": r"\mathrm{lg}\,", "sgn": r"\mathrm{sgn}\,", "lcm": r"\mathrm{lcm}\,",
    "argmax": r"\mathrm{argmax}\,", "argmin": r"\mathrm{argmin}\,", "arccot": r"\mathrm{arccot}\,",
    "parallelogram": "▱", "pounds": "£"
}
_TALL = set(r"^ _ \frac \dfrac \tfrac \cfrac \binom \dbinom \choose \over \sum \prod \int \sqrt \overset \stackrel "
            r"\hat \bar \vec \overline \overrightarrow \widehat \underset \middle \lim \substack".split())
_FLAT = {".": "", "<": r"\langle ", ">": r"\rangle "}  # mathtext's brackets around low letters are lower than in words
_SIGNS = {"&": " ", "$": " ", "%": r"\%", "#": r"\text{#}", r"\#": r"\text{#}", r"\&": r"\text{&}",
          '"': r"\text{”}", "`": r"\text{‘}", r"\\": " "}
_IN_WORDS = {r"\ ": " ", "~": " ", r"\,": " ", r"\;": " ", r"\:": " ", r"\!": "", r"\quad": "  ", r"\qquad": "  ",
             "{": "", "}": ""} | {"\\" + sign: sign for sign in "%$&#_"}


def _tokens(latex: str) -> tuple[list[str], dict[int, int]]:
    r"""LaTeX's tokens, and where each {, \left and \begin is closed. Raises CannotSet where one is not."""
    tokens = _TOKENS.findall(_GLUED.sub(r"\\\1 ", latex))
    closes, opened = {}, []
    for at, token in enumerate(tokens):
        if token in ("{", r"\left") or token.startswith(r"\begin{"):
            opened.append((at, {"{": "}", r"\left": r"\right"}.get(token, token.replace("begin", "end"))))
            if len(opened) > DEEPEST:
                raise CannotSet("nested too deeply")
        elif token in ("}", r"\right") or token.startswith(r"\end{"):
            if not opened or opened[-1][1] != token:
                raise CannotSet(f"{token} without its beginning")
            closes[opened.pop()[0]] = at
    if opened:
        raise CannotSet(f"{tokens[opened[-1][0]]} without its end")
    return tokens, closes


def rewrite_latex(latex: str) -> str:
    """LaTeX in the words mathtext knows: the same mathematics, other macro names, braces around every argument.

    Raises CannotSet for what is not balanced, lacks an argument, or is too long.
    """
    if len(latex) > LONGEST:
        raise CannotSet("too long for one formula")
    latex = latex.translate(FULL_WIDTH)
    tokens, closes = _tokens(latex)
    return " ".join(_Rewriting(tokens, closes).group(0, len(tokens)).split())


class _Rewriting:
    """A formula's tokens on their way to mathtext's words."""

    def __init__(self, tokens: list[str], closes: dict[int, int]):
        self.tokens, self.closes = tokens, closes

    def group(self, at: int, end: int) -> str:
        """tokens[at:end], rewritten."""
        out: list[str] = []
        while at < end:
            if self.tokens[at] in (r"\choose", r"\over"):
                name = "binom" if self.tokens[at] == r"\choose" else "frac"
                return rf"\{name}{{{''.join(out)}}}{{{self.group(at + 1, end)}}}"
            text, at = self.one(at)
            out.append(text)
        return "".join(out)

    def argument(self, at: int) -> tuple[str, int]:
        """A macro's next argument, without its braces."""
        at = self.skip(at)
        if self.tokens[at] == "{":
            return self.group(at + 1, self.closes[at]), self.closes[at] + 1
        return self.one(at)

    def skip(self, at: int) -> int:
        """The place of the next token that is no blank; it must be one that an argument can begin with."""
        while at < len(self.tokens) and self.tokens[at].isspace():
            at += 1
        if at >= len(self.tokens) or self.tokens[at] in ("}", "^", "_", r"\right"):
            raise CannotSet("an argument is missing")
        return at

    def one(self, at: int) -> tuple[str, int]:
        """A token with its arguments."""
        token, at = self.tokens[at], at + 1
        name = _RENAMED.get(token[1:], token[1:]) if token[0] == "\\" and token[1:].isalpha() else ""
        if token == "{":
            return f"{{{self.group(at, self.closes[at - 1])}}}", self.closes[at - 1] + 1
        if token in ("^", "_"):
            text, at = self.argument(at)
            # A raised ring is the degree sign: set as a superscript its few pixels are no longer round.
            return ("°" if token == "^" and text.strip() in (r"\circ", "°") else f"{token}{{{text}}}"), at
        if name == "left" and not _TALL.intersection(self.tokens[at : self.closes[at - 1]]):
            end = self.closes[at - 1]
            first, last = self.skip(at), self.skip(end + 1)
            left, right = (_FLAT.get(self.tokens[place], self.one(place)[0]) for place in (first, last))
            return f"{left}{self.group(first + 1, end)}{right}", last + 1
        if name in _WORDS:
            at = self.skip(at)
            return (self.words(at + 1, self.closes[at]), self.closes[at] + 1) if at in self.closes else self.one(at)
        if name in _FRAMES or name in _ARGUMENTS:
            return self.macro(name, at)
        if token.startswith(r"\begin"):
            raise CannotSet("an environment inside a formula")
        if name == "substack" and (at := self.skip(at)) in self.closes:
            lines = _split(self.tokens, self.closes, at + 1, self.closes[at], "\\\\")
            return r"\substack{" + "\\\\".join(self.group(*line) for line in lines) + "}", self.closes[at] + 1
        if name:
            return _MACROS.get(name, f"\\{name}"), at
        return _SIGNS.get(token[:2], token), at

    def macro(self, name: str, at: int) -> tuple[str, int]:
        """A macro with its arguments, each in braces."""
        option = ""
        if self.tokens[at : at + 1] == ["*"]:  # \operatorname*
            at += 1
        first = self.skip(at)
        if name in ("sqrt", "xrightarrow", "xleftarrow") and self.tokens[first] == "[":
            if "]" not in self.tokens[first : first + 40]:
                raise CannotSet("[ without its end")
            end = self.tokens.index("]", first)
            option, at = f"[{self.group(first + 1, end)}]", end + 1
        texts = []
        for _ in range(_ARGUMENTS.get(name, 1)):
            text, at = self.argument(at)
            texts.append(text)
        if name in _FRAMES:
            return _FRAMES[name].format(*texts), at
        return f"\\{name}{option}" + "".join(f"{{{text}}}" for text in texts), at

    def words(self, at: int, end: int) -> str:
        r"""What stands in \text{...}: words, and mathematics between dollar signs or as macros."""
        out, word, in_math = [], "", False
        while at < end:
            token = self.tokens[at]
            plain = " " if token.isspace() else _IN_WORDS.get(token, token)
            if token == "$":
                in_math, at = not in_math, at + 1
            elif not in_math and plain[:1] != "\\":
                word, at = word + plain, at + 1
                continue
            if word:
                out.append(_quoted(word))
            word = ""
            if token != "$":
                text, at = self.one(at)
                out.append(text)
        return "".join(out + [_quoted(word)] if word else out)


def _quoted(word: str) -> str:
    return f"\\text{{{word}}}" if word.strip() else r"\ "


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
    properties = FontProperties(size=REFERENCE_SIZE, math_fontfamily=fontset)
    try:
        vector = MathTextParser("path").parse(f"${latex}$", 72, properties)
    except (ValueError, RecursionError, RuntimeError) as error:  # RuntimeError: FreeType
        return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    glyphs = [(font.fname, number, fontsize, x, y) for font, fontsize, number, *_, x, y in vector.glyphs]
    if any(number == 0xA4 for _, number, *_ in glyphs) and "¤" not in latex:
        return _parse_whole(latex, "stix") if fontset == "cm" else "a symbol that this font set lacks"
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
        raise CannotSet(parsed)
    width, glyphs, rects = parsed
    scale = size / REFERENCE_SIZE
    placed = []
    for path, number, fontsize, x, y in glyphs:
        mask, left, top = _glyph(path, number, round(fontsize * scale, 2))
        if mask is None:
            if not chr(number).isspace():
                raise CannotSet(f"an empty glyph, {number}")
            continue
        placed.append((mask, round(x * scale) + left, -round(y * scale) - top))
    for x, y, w, h in rects:
        thickness = max(1, round(h * scale))
        x0, x1, y0 = round(x * scale), max(round(x * scale) + 1, round((x + w) * scale)), -round((y + h) * scale)
        placed.append((np.full((thickness, x1 - x0), 255, np.uint8), x0, y0))
    if not placed:
        raise CannotSet("nothing to draw")
    return _assemble(placed, width * scale)


_GRIDS = {  # environment: (alignment of its columns, in turn; delimiters)
    "cases": ("l", "{", ""), "dcases": ("l", "{", ""), "matrix": ("c", "", ""), "pmatrix": ("c", "(", ")"),
    "bmatrix": ("c", "[", "]"), "vmatrix": ("c", "|", "|"), "Bmatrix": ("c", "{", "}"), "smallmatrix": ("c", "", ""),
    "array": ("c", "", ""), "aligned": ("rl", "", ""), "align": ("rl", "", ""), "alignat": ("rl", "", ""),
    "split": ("rl", "", ""), "gathered": ("c", "", ""), "gather": ("c", "", ""), "eqnarray": ("rcl", "", ""),
    "equation": ("c", "", ""), "multline": ("c", "", ""), "displaymath": ("c", "", "")
}


_COMPOSED = re.compile(rf"\\(?:begin|\\|boxed|fbox|framebox|underbrace|overbrace)|[{EAST_ASIAN}]")
BLANK = re.compile(r"(?:\\(?:q?quad|enspace|[ ,;:!])|[\s~{}])*")  # nothing but space
_CHINESE = re.compile(f"[{EAST_ASIAN}]")
_FRAMED = {r"\boxed", r"\fbox", r"\framebox"}
_BRACED = {r"\underbrace": "_", r"\overbrace": "^"}
_DELIMITERS = {r"\lbrace": "{", r"\rbrace": "}", r"\{": "{", r"\}": "}", r"\lvert": "|", r"\rvert": "|", r"\vert": "|",
               r"\|": "‖", r"\lVert": "‖", r"\rVert": "‖", r"\Vert": "‖", r"\langle": "⟨", r"\rangle": "⟩", "<": "⟨",
               ">": "⟩", r"\lfloor": "⌊", r"\rfloor": "⌋", r"\lceil": "⌈", r"\rceil": "⌉", ".": ""}


def math_box(latex: str, family: str, size: int, fonts: tuple[str, ...] = ()) -> Box:
    """LaTeX without its dollar signs, as a Box. family: of FAMILIES; size: pixels per em; fonts: for Chinese words.

    Raises CannotSet and MissingGlyphs.
    """
    if not composed(latex):
        return _simple_math_box(rewrite_latex(latex), FAMILIES[family][1], size)
    return _composed_box(latex.translate(FULL_WIDTH), family, size, fonts)


def composed(latex: str) -> bool:
    """Whether a formula is put together here (grids, frames, braces, Chinese words), its parts by mathtext."""
    return _COMPOSED.search(latex) is not None


def _split(tokens: list[str], closes: dict[int, int], at: int, end: int, separator: str) -> list[tuple[int, int]]:
    """tokens[at:end] cut at the separators outside of every group, as ranges."""
    ranges, start = [], at
    while at < end:
        if tokens[at].startswith(separator):
            ranges.append((start, at))
            start = at + 1
        at = closes.get(at, at) + 1
    return [*ranges, (start, end)]


@functools.lru_cache(2000)
def _composed_box(latex: str, family: str, size: int, fonts: tuple[str, ...]) -> Box:
    """A formula with matrices, cases, aligned lines, frames: these are set here, their parts and the rest by mathtext.

    Raises CannotSet and MissingGlyphs.
    """
    tokens, closes = _tokens(latex)
    pieces: list[Box] = []
    run: list[str] = []

    def box(at: int, end: int, scale: float = 1.0) -> Box:
        return math_box("".join(tokens[at:end]), family, round(scale * size), fonts)

    def skip(at: int) -> int:
        while at < len(tokens) and tokens[at].isspace():
            at += 1
        if at >= len(tokens):
            raise CannotSet("an argument is missing")
        return at

    def argument(at: int, scale: float = 1.0) -> tuple[Box, int]:
        """The next group or token as a box, and its last token's place."""
        at = skip(at)
        end = closes.get(at, at)
        return box(at + (end > at), end + (end == at), scale), end

    def grid(at: int, end: int, columns: str, bars: set[int]) -> Box:
        rows = [["".join(tokens[first:last]).strip() for first, last in _split(tokens, closes, *line, "&")]
                for line in _split(tokens, closes, at, end, "\\\\")]
        return _grid_box(rows, columns, bars, family, size, fonts)

    def environment(at: int, end: int) -> Box:
        name = tokens[at].rstrip("*}").split("{")[1]
        if name not in _GRIDS:
            raise CannotSet(f"the environment {name}")
        columns, left, right = _GRIDS[name]
        at = skip(at + 1)
        if tokens[at : at + 3 : 2] == ["[", "]"]:
            at = skip(at + 3)
        bars: set[int] = set()
        if name in ("array", "alignat") and tokens[at] == "{":
            letters, place = "", at + 1
            while place < closes[at]:  # what stands in braces (@{...}, p{3cm}) is skipped
                letters += {"p": "l", "m": "l"}.get(tokens[place], tokens[place] if tokens[place] in "lcr" else "")
                bars |= {len(letters)} if tokens[place] == "|" else set()
                place = closes.get(place, place) + 1
            columns, at = letters or columns, closes[at] + 1
        return _fenced(grid(at, end, columns, bars), left, right, size)

    def flush() -> None:
        text = "".join(run).strip()
        run.clear()
        if BLANK.fullmatch(text):
            pieces.extend([_assemble([], 0.8 * size)] if "quad" in text else [])
        else:
            pieces.append(_simple_math_box(rewrite_latex(text), FAMILIES[family][1], size))

    if len(_split(tokens, closes, 0, len(tokens), "\\\\")) > 1:  # lines without an environment
        return grid(0, len(tokens), "rl" if "&" in tokens else "c", set())
    at = 0
    while at < len(tokens):
        token, end = tokens[at], closes.get(at, at)
        inside = "".join(tokens[at + 1 : end])
        piece = None
        if token in ("^", "_") and pieces and not any(map(str.strip, run)):
            run.clear()
            script, end = argument(at + 1, 0.7)
            piece = _with_script(pieces.pop(), script, token, size)
        elif token.startswith(r"\begin{"):
            piece = environment(at, end)
        elif token in _FRAMED:
            piece, end = argument(at + 1)
            piece = _framed(piece, size)
        elif token in _BRACED:
            under = token == r"\underbrace"
            piece, end = argument(at + 1)
            label = None
            if tokens[end + 1 : end + 2] == ["_" if under else "^"]:
                label, end = argument(end + 2, 0.7)
            piece = _braced(piece, label, under, size)
        elif token == r"\left" and composed(inside):
            first, last = skip(at + 1), skip(end + 1)
            sides = [_DELIMITERS.get(tokens[place], tokens[place]) for place in (first, last)]
            piece, end = _fenced(box(first + 1, end), *sides, size), last
        elif token == "{" and composed(inside) and not re.match(r"\\[a-zA-Z]|[\^_}\]]", "".join(run[-1:])):
            piece = box(at + 1, end)
        elif _CHINESE.match(token):
            while end + 1 < len(tokens) and _CHINESE.match(tokens[end + 1]):
                end += 1
            piece = word_box("".join(tokens[at : end + 1]), fonts, size)
        elif token[1:] in _WORDS and (first := skip(at + 1)) in closes:
            end = closes[first]
            inside = "".join(tokens[first + 1 : end])
            if _CHINESE.search(inside):
                piece = word_box(inside.strip(), fonts, size)
            else:
                run += tokens[at : end + 1]
        else:
            run += tokens[at : end + 1]
        if piece is not None:
            flush()
            pieces.append(piece)
        at = end + 1
    flush()
    placed, pen = [], 0.0
    for piece in pieces:
        placed.append((piece, round(pen), 0))
        pen += piece.advance + 0.2 * size
    if not placed:
        raise CannotSet("nothing to draw")
    return _join(placed, pen - 0.2 * size)


def _join(placed: list[tuple[Box, int, int]], advance: float) -> Box:
    """Boxes at (pen, baseline) offsets as one Box."""
    return _assemble([(box.mask, x + box.left, y - box.top) for box, x, y in placed], advance)


def _bar(width: int, height: int) -> Box:
    """Ink that hangs from the baseline."""
    return Box(np.full((max(1, height), max(1, width)), 255, np.uint8), 0, 0, float(width))


def _with_script(box: Box, script: Box, sign: str, size: int) -> Box:
    raised = -box.top + round(0.3 * size) if sign == "^" else box.descent + round(0.1 * size)
    return _join([(box, 0, 0), (script, round(box.advance + 0.08 * size), raised)],
                 box.advance + 0.08 * size + script.advance)


def _framed(box: Box, size: int) -> Box:
    r"""\boxed{...}: a border around a formula."""
    pad, stroke = round(0.25 * size), max(1, round(size / 20))
    mask = np.pad(box.mask, pad)
    mask[:stroke], mask[-stroke:], mask[:, :stroke], mask[:, -stroke:] = 255, 255, 255, 255
    return Box(mask, 0, box.top + pad, float(mask.shape[1]))


def _braced(box: Box, label: Box | None, under: bool, size: int) -> Box:
    r"""\underbrace{...}_{...} and \overbrace{...}^{...}."""
    width = box.mask.shape[1]
    brace = np.rot90(_tall_delimiter("{", width, 0, size).mask, 1 if under else -1)
    gap = round(0.1 * size)
    y = box.descent + gap if under else -box.top - gap - brace.shape[0]
    placed = [(box, 0, 0), (Box(brace, box.left, 0, width), 0, y)]
    if label is not None:
        middle = box.left + round((width - label.advance) / 2)
        placed.append((label, middle, y + brace.shape[0] + gap + label.top if under else y - gap - label.descent))
    joined = _join(placed, box.advance)
    return Box(joined.mask, 0, joined.top, max(box.advance, float(joined.mask.shape[1])))


def _fenced(box: Box, left: str, right: str, size: int) -> Box:
    """A tall box between brackets of its height."""
    height, inset = box.mask.shape[0], round(0.5 * size) if left else 0
    placed = [(box, inset, 0)]
    for delimiter, x in ((left, 0), (right, round(inset + box.advance + 0.12 * size))):
        if delimiter:
            placed.append((_tall_delimiter(delimiter, height, box.top, size), x, 0))
    return _join(placed, inset + box.advance + (0.5 * size if right else 0.0))


_RULE = re.compile(r"\s*\\(?:hline|toprule|midrule|bottomrule|cline\s{0,3}\{(\d{1,3})-(\d{1,3})\})")


def _grid_box(rows: list[list[str]], alignment: str, bars: set[int], family: str, size: int,
              fonts: tuple[str, ...]) -> Box:
    """Cells of LaTeX in columns. bars: the columns that a vertical line stands before."""
    boxes: list[list[Box | None]] = []
    rules: list[tuple[int, int, int]] = []  # (before which row, from which column, to before which)
    for row in rows:
        start = 0
        while rule := _RULE.match(row[0], start):
            rules.append((len(boxes), int(rule[1] or 1) - 1, int(rule[2] or 0)))
            start = rule.end()
        row = [row[0][start:], *row[1:]]
        if any(map(str.strip, row)):
            boxes.append([None if BLANK.fullmatch(cell) else math_box(cell, family, size, fonts) for cell in row])
    columns = max(map(len, boxes), default=0)
    widths = [max([box.advance for row in boxes if column < len(row) and (box := row[column])], default=0.0)
              for column in range(columns)]
    if not any(widths):
        raise CannotSet("an empty environment")
    gap = 0.3 * size if alignment == "rl" else 0.9 * size
    lefts = list(itertools.accumulate((width + gap for width in widths), initial=0.0))
    stroke, space = max(1, round(size / 20)), round(0.2 * size)
    placed, y = [], 0
    for number in range(len(boxes) + 1):
        for _, first, last in (rule for rule in rules if rule[0] == number):
            first, last = min(first, columns - 1), min(last or columns, columns)
            width = round(lefts[last - 1] + widths[last - 1] - lefts[first])
            placed.append((_bar(width, stroke), round(lefts[first]), y))
            y += stroke + space
        if number == len(boxes):
            break
        present = [box for box in boxes[number] if box]
        y += max([box.top for box in present] + [round(0.8 * size)])
        for column, box in enumerate(boxes[number]):
            if box:
                spare = widths[column] - box.advance
                shift = {"l": 0.0, "c": spare / 2, "r": spare}[alignment[column % len(alignment)]]
                placed.append((box, round(lefts[column] + shift), y))
        y += max([box.descent for box in present] + [round(0.3 * size)]) + space
    height = y - space
    for column in bars & set(range(1, columns)):
        placed.append((_bar(stroke, height), round(lefts[column] - gap / 2), 0))
    baseline = height // 2 + round(0.28 * size)  # the middle of the grid on the axis of the line
    return _join([(box, x, row_y - baseline) for box, x, row_y in placed], sum(widths) + gap * (columns - 1))


def _tall_delimiter(delimiter: str, height: int, baseline: int, size: int) -> Box:
    """A bracket as high as a grid: straight ones are drawn, curved ones are the font's own, stretched."""
    if delimiter == "‖":
        bar = _tall_delimiter("|", height, baseline, size)
        return _join([(bar, 0, 0), (bar, round(0.15 * size), 0)], 0.3 * size)
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
        raise CannotSet(f"the delimiter {delimiter}")
    rows, columns = np.nonzero(mask.max(1))[0], np.nonzero(mask.max(0))[0]
    ink = Image.fromarray(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    width = max(2, round(0.32 * size))
    stretched = np.asarray(ink.resize((width, height), Image.Resampling.BILINEAR))
    return Box(stretched, 0, baseline, float(width))
