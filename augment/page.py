"""A question set on a page: paragraphs, formulas, tables, choices and the source picture, in the look of many books.

    style = random_style(random.Random(7))
    layout = lay_out("Find $x$ if $x^2 = 9$.\\nA. 3\\nB. 4", style, picture_size=(300, 200))
    image = draw(layout, style, picture)

LaTeX that cannot be set raises CannotSet, a character that no font has MissingGlyphs: no page shows source or boxes.
"""

import html
import itertools
import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageColor

from augment.typeset import (BLANK, EAST_ASIAN, FALLBACKS, FAMILIES, FULL_WIDTH, Box, CannotSet, composed, font_path,
                             math_box, rewrite_latex, space_width, word_box)

# ----------------------------------------------------------------------------------------------------------------------
# From text to items: words, formulas, tables


_DISPLAY_NAMES = r"equation|align|alignat|gather|eqnarray|displaymath|multline|cases|[pbvBV]?matrix|aligned"
_SEGMENTS = re.compile(r"(?P<escaped>\\[$%&#_])|(?P<display>\$\$|\\\[)|(?P<parens>\\\()|(?P<dollar>\$)"
                       rf"|\\begin\{{(?P<name>(?:{_DISPLAY_NAMES})\*?|tabular|array)\}}")
_CLOSERS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)"}
_TO_DOLLAR = re.compile(r"(?:[^$\\]|\\.)+", re.DOTALL)
_OPEN_WORDS = re.compile(r"\\(?:text|mbox|textrm|hbox)\s{0,3}\{[^{}]*\Z")
_CHOICE_LINE = re.compile(r"\n[ \t]*[(（]?[A-H][)）.．、:：]")
_MATH_SIGNS = re.compile(r"[\\^_={}<>+|]")


def _is_math(content: str, before_digit: bool) -> bool:
    """Whether "$content$" is a formula rather than two prices."""
    if "\n\n" in content or "\\[" in content or "\\(" in content:
        return False
    prose = re.search(r"[A-Za-z]{3}\s+[A-Za-z]{2}", content)
    if prose and content[0].isdigit() and "\\text" not in content and "\\mbox" not in content:
        return False
    if _MATH_SIGNS.search(content):
        return True
    if before_digit or (content[-1].isspace() and re.search(r"[A-Za-z]{2,}", content)):
        return False
    return not prose


def split_math(text: str) -> list[tuple[str, str]]:
    """Text → [("text" | "inline" | "display" | "tabular", content)]. A lone dollar sign stays a dollar sign."""
    segments: list[tuple[str, str]] = []
    ends: dict[str, int] = {}  # where the next closer of each kind stands: every stretch is searched once

    def add(kind: str, content: str) -> None:
        if kind == "text" and segments and segments[-1][0] == "text":
            words.append(content)
        elif content:
            if words:
                segments[-1] = ("text", "".join(words))
            words[:] = [content] if kind == "text" else []
            segments.append((kind, content))

    def find(closer: str, start: int) -> int:
        if -1 < ends.get(closer, 0) < start:
            ends[closer] = text.find(closer, start)
        return ends[closer]

    words: list[str] = []
    position = 0
    while match := _SEGMENTS.search(text, position):
        add("text", text[position : match.start()])
        position = match.end()
        if match["escaped"]:
            add("text", match["escaped"][1])
        elif match["dollar"]:
            content = _inline(text, position)
            if content is None:
                add("text", "$")
                continue
            position += len(content)
            position += text.startswith("$", position)
            add("inline", content)
        else:
            closer = _CLOSERS.get(match[0], f"\\end{{{match['name']}}}")
            end = find(closer, position + 1)
            if end < 0:
                add("text", match[0])
            elif match["name"]:
                position = end + len(closer)
                kind = "tabular" if match["name"] in ("tabular", "array") else "display"
                add(kind, text[match.start() : position])
            else:
                add("inline" if match["parens"] else "display", text[position:end])
                position = end + len(closer)
    add("text", text[position:])
    if words:
        segments[-1] = ("text", "".join(words))
    return segments


def _inline(text: str, start: int) -> str | None:
    """The formula that begins after the dollar sign at start - 1; None where that is a price or stands alone."""
    match = _TO_DOLLAR.match(text, start)
    if not match:
        return None
    end = match.end()
    if choice := _CHOICE_LINE.search(match[0]):  # never closed: the next dollar sign is a choice's
        content = match[0][: choice.start()]
        return content if _MATH_SIGNS.search(content) else None
    line = match[0].split("\n")[0]
    if end >= len(text) and re.match(r"\\?[a-zA-Z(|]", line) and _is_math(line, False) and _MATH_SIGNS.search(line):
        return line.rstrip(".,;:?。，？")  # closed nowhere
    if text[end : end + 1] != "$" or not _is_math(match[0], text[end + 1 : end + 2].isdigit()):
        return None
    while _OPEN_WORDS.search(text[max(start, end - 200) : end]):
        match = _TO_DOLLAR.match(text, end + 1)  # \text{if $n$ is odd}: these are not the formula's own
        if not match or text[match.end() : match.end() + 1] != "$" or "\n\n" in match[0]:
            break
        end = match.end()
    return text[start:end]


_LINE_FORMS = [re.compile(pattern, re.MULTILINE) for pattern in (  # each choice on a line of its own
    r"^[ \t]*[(（]([A-H])[)）][ \t]*", r"^[ \t]*([A-H])[.:、)．][ \t]*")]
_RUNNING_FORMS = [re.compile(pattern) for pattern in (  # several on a line
    r"(?:(?<=\s)|^)[(（]([A-H])[)）][ \t]*", r"(?:(?<=[\s)）?？。])|^)([A-H])[.、．)）:：][ \t]*")]
_STYLED_FORM = re.compile(  # \textbf{(A)}, \mathrm{(A) \ }, \mathrm{\textbf{(A)} \ }
    r"(?:\\mathrm\s{0,2}\{\s{0,2})?\\(?:textbf|mathbf|bold|text|textrm|mathrm)\s{0,2}\{\s{0,2}\(([A-H])\)"
    r"(?:(?:\s|~|\\[ ,;:]){0,4}\}){1,2}")
_JOINED = re.compile(r"(?:\b(?:and|or)|[和与或及])\Z")  # A. Smith and B. Jones
_SPACING = r"(?:\\q?quad(?![a-zA-Z])|\\\\|\\[ ,;:!]|[\s~])"
_SPACE_RUN = re.compile(f"{_SPACING}+")


def split_choices(text: str) -> tuple[str, list[tuple[str, str]]]:
    """A question that ends in its choices → (stem, [(label as written, text)]); no choices: (text, []).

    The stem is how the text begins. Choices that run on in a line are three or more, or begin the line.
    """
    for form in [*_LINE_FORMS, *_RUNNING_FORMS, _STYLED_FORM]:
        marks = list(form.finditer(text))
        letters = "".join(mark[1] for mark in marks)
        first = max(0, letters.find("A"))
        marks, letters = marks[first:], letters[first:]
        if len(letters) < 2 or letters != "ABCDEFGH"[: len(letters)]:
            continue
        ends = [mark.start() for mark in marks[1:]] + [len(text)]
        stem = text[: marks[0].start()].rstrip(" \t")
        spans = [text[mark.end() : end] for mark, end in zip(marks, ends, strict=True)]
        if form is _STYLED_FORM:
            return _styled_choices(text, marks, spans) or (text, [])
        choices = [(mark[0].strip(), span.strip()) for mark, span in zip(marks, spans, strict=True)]
        if form in _RUNNING_FORMS:
            begins = not stem or stem[-1] == "\n"
            many = len(letters) > 2 and (form is _RUNNING_FORMS[0] or stem[-1:] in ".?:)]_？。：）．$")
            joined = any(_JOINED.search(content) for _, content in choices)
            if not (begins or many) or joined or "\n" in choices[-1][1]:
                continue
        if all(content.strip(",;，；.") and "\n\n" not in content for _, content in choices):
            return stem.rstrip(), choices
    return text, []


def _styled_choices(text: str, marks: list[re.Match], spans: list[str]) -> tuple[str, list[tuple[str, str]]] | None:
    r"""Choices as contests write them, $\textbf{(A)}\ 3\qquad\textbf{(B)}\ 4$, each with dollar signs of its own."""
    begin = marks[0].start()
    dollars = [match.start() for match in re.finditer(r"(?<!\\)\$", text[:begin])]
    inside = len(dollars) % 2 == 1
    stem = text[: dollars[-1] if inside else begin]
    if inside and not re.fullmatch(rf"{_SPACING}*", text[dollars[-1] + 1 : begin]):
        return None
    choices = []
    for mark, span in zip(marks, spans, strict=True):
        before, inside = inside, (inside + len(re.findall(r"(?<!\\)\$", span))) % 2 == 1
        content = ("$" if before else "") + span.strip() + ("$" if inside else "")
        content = re.sub(r"^\$\s*\$|\$\s*\$\Z", "", _trimmed(content))
        content = _trimmed(content)
        if not content.strip("$ .") or "\n\n" in content:
            return None
        choices.append((f"({mark[1]})", content))
    return (stem.rstrip(), choices) if len(choices) > 2 else None


def _trimmed(content: str) -> str:
    """A choice without the spacing around it, also inside of its dollar signs."""
    content = _without_edges(content)
    head, tail = content[:1] == "$", content[1:].endswith("$")
    return "$" * head + _without_edges(content[head : len(content) - tail]) + "$" * tail


def _without_edges(content: str) -> str:
    runs = list(_SPACE_RUN.finditer(content))
    start = runs[0].end() if runs and runs[0].start() == 0 else 0
    end = runs[-1].start() if runs and runs[-1].end() == len(content) else len(content)
    return content[start:end]


def markdown_table(lines: list[str]) -> list[list[str]] | None:
    """Rows of cells when these lines are a table of pipes, else None."""
    if len(lines) < 2 or not all(line.strip().startswith("|") and line.strip().endswith("|") for line in lines):
        return None
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    rows = [row for row in rows if not all(re.fullmatch(r":?-{2,}:?", cell) for cell in row)]
    return rows if rows and max(map(len, rows)) > 1 else None


_TABULAR_REST = re.compile(r"^\\begin\{\w+\}\s*(?:\[[tcb]\])?\s*(?:\{(?:[^{}]|\{[^{}]*\})*\})?|\\end\{\w+\}$|"
                           r"\\(?:hline|(?:top|mid|bottom)rule|centering|cline\{[\d-]+\})")


def _tabular_rows(source: str) -> list[list[str]]:
    body = _TABULAR_REST.sub("", source)
    array = source.startswith("\\begin{array}")
    rows = filter(str.strip, re.split(r"\\\\(?:\[[^\]\n]{0,20}\])?", body))
    cells = [[part.strip() for part in re.split(r"(?<!\\)&", row)] for row in rows]
    return [[f"${cell}$" if array and cell else cell.replace("~", " ") for cell in row] for row in cells]


# ----------------------------------------------------------------------------------------------------------------------
# Pages


PAPERS = {  # name: (paper, ink colours that stand out on it, colour of its ruling or None)
    "white": ("#ffffff", ("#000000", "#1a1a1a", "#10207a"), None),
    "cream": ("#fbf5e2", ("#000000", "#2b1d0e"), None),
    "grey": ("#ececec", ("#000000", "#202020"), None),
    "blue": ("#e8f0fa", ("#000000", "#0b1d51"), None),
    "ruled": ("#ffffff", ("#000000", "#14267f"), "#c9d8ee"),
    "squared": ("#fdfdfb", ("#000000", "#1b2a6b"), "#d9e4ea"),
    "slate": ("#22303a", ("#ffffff", "#f4f1de"), None),
    "blackboard": ("#1f3d2b", ("#ffffff", "#fdf6c9"), None),
}


WIDEST = 1.5  # a page's longer side over its shorter one, at most


@dataclass(frozen=True)
class Style:
    """How one page looks. Lengths in em unless they say pixels."""

    family: str = "dejavu sans"
    size: int = 22  # pixels per em
    paper: str = "white"
    ink: str = "#000000"
    leading: float = 1.35  # from baseline to baseline
    margin: float = 1.2
    aspect: float = 1.1  # the width that is aimed at, over the height
    picture_place: str = "under"  # "under", "above", "right"
    picture_length: float = 14.0  # the longer side of the source picture
    table: str = "grid"  # borders of tables and choices: "grid", "rules", "none"
    choices: str = "table"  # "table" or "lines"


def random_style(rng: random.Random) -> Style:
    """One of the many ways in which textbooks, slides and web pages look."""
    paper = rng.choices(list(PAPERS), weights=(8, 2, 2, 2, 2, 2, 1, 1))[0]
    return Style(family=rng.choice(list(FAMILIES)), size=rng.choice((18, 20, 22, 24, 26, 28)), paper=paper,
                 ink=rng.choice(PAPERS[paper][1]), leading=rng.choice((1.25, 1.35, 1.5)),
                 margin=rng.choice((0.8, 1.2, 1.8)), aspect=rng.choice((0.85, 1.0, 1.15, 1.3)),
                 picture_place=rng.choice(("under", "under", "above", "right")),
                 picture_length=rng.choice((12.0, 14.0, 16.0)), table=rng.choice(("grid", "rules", "none")),
                 choices=rng.choice(("table", "table", "lines")))


@dataclass
class Layout:
    """A page before it is drawn: every box with its pen position on its baseline, all in pixels."""

    width: int
    height: int
    boxes: list[tuple[Box, int, int]]  # box, pen x, baseline y
    lines: list[tuple[int, int, int, int]]  # rows y0:y1 of a line of text, and its boxes' range i:j
    rules: list[tuple[int, int, int, int]]  # borders of tables: x0, y0, x1, y1
    picture: tuple[int, int, int, int] | None = None  # where the source picture goes
    counts: Counter = field(default_factory=Counter)


# ("word", Box, space before in pixels, may break before), ("newline",), ("display", [Box, ...]), ("table", rows)
Item = tuple


_WORDS = re.compile(rf"\n|[^\S\n]+|[{EAST_ASIAN}]|[^\s{EAST_ASIAN}]+")


def _word_items(text: str, fonts: tuple[str, ...], size: int, glued: bool) -> list[Item]:
    """Words with the space before each; Chinese and Japanese may break anywhere."""
    items: list[Item] = []
    space = max(space_width(fonts[0], size), 0.28 * size)  # STIX has less, which is lost when a page is shrunk
    for match in _WORDS.finditer(text):
        word = match[0]
        if word == "\n":
            items.append(("newline",))
            glued = True
        elif word.isspace():
            glued = False
        else:
            wide = unicodedata.east_asian_width(word[0]) in ("W", "F") and word not in "，。、；：？！．）》”"
            items.append(("word", word_box(word, fonts, size), 0.0 if glued else space, not glued or wide))
            glued = True
    return items


_STYLES = re.compile(r"\\(?:(?P<heading>(?:sub)*section|paragraph|title|caption)|textbf|textit|emph|textrm|textsf|"
                     r"texttt|textsc|textup|text|mbox|mathrm|mathbf|underline)\*?\s{0,3}\{|\\?[{}]")
_LISTS = r"center|flushleft|flushright|itemize|enumerate|quote|quotation|document|table"
_TEXT_MACROS = [(re.compile(pattern), replacement) for pattern, replacement in (
    (rf"\\(?:begin|end)\{{(?:{_LISTS})\*?\}}(?:\[[^\]\n]{{0,80}}\])?|\\\\(?:\[[^\]\n]{{0,20}}\])?|\\(?:newline|par)(?![a-zA-Z])",
     "\n"),
    (r"\\item\s{0,3}\[([^\]\n]{0,20})\]", r"\n\1 "), (r"\\item(?![a-zA-Z])", "\n• "),
    (r"\\n(?![a-z]|Rightarrow|Leftarrow|Vdash|VDash)", "\n"),  # a newline that was escaped twice
    (r"\\(?:q?quad|enspace|hfill|noindent|centering|(?:small|med|big)skip|bf|it|rm)(?![a-zA-Z])|\\[ ,;:!/]"
     r"|\\[hv]space\*?\{[^{}]{0,20}\}|\\label\{[^{}]{0,60}\}", " "),
    (r"\\(?:ldots|dots|textellipsis)(?![a-zA-Z])", "…"), (r"\\(?:textdegree|degree)(?![a-zA-Z])", "°"),
    (r"\\([{}|])", r"\1"), (r"(?<=[a-z\d.])~(?=[A-Za-z\d])|^~(?=[a-z])", " "), (r"(?<![-|])---(?![-|])", "—")
)]


def _plain_words(text: str, closers: list[str]) -> str:
    r"""Text without the macros that only style or space it. closers: for each { that is open what its } becomes."""

    def brace(match: re.Match) -> str:
        if match[0] == "}" and closers:
            return closers.pop()
        if match[0] in (r"\{", r"\}", "}"):
            return match[0]
        closers.append("}" if match[0] == "{" else "\n" if match["heading"] else "")
        return "{" if match[0] == "{" else closers[-1]

    text = _STYLES.sub(brace, text)
    for pattern, replacement in _TEXT_MACROS:
        text = pattern.sub(replacement, text)
    return text


_GROUP = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
_BARE = re.compile(rf"(?:\\(?:angle|triangle|odot|measuredangle)\s{{1,3}}(?=[A-Z])|\\[a-zA-Z]+\s{{0,3}}(?=[{{\[])"
                   rf"|\\[a-zA-Z]+|\\[^a-zA-Z\s]|{_GROUP}|[^\s\\{{}}{EAST_ASIAN}])+")
_MARKUP = re.compile(
    r"(?P<macro>\\[a-zA-Z]+)|<(?P<tag>su[pb])>(?P<tagged>[^<>\n]{1,60})</su[pb]>"
    r"|(?<=[\w)）\]}'′π°²³△])(?:\s?\^\s?)(?P<up>\{[^{}\n]{1,60}\}|-?\d+(?:\.\d+)?|[a-zA-Z°](?![a-zA-Z]))\^?"
    r"|(?<=[\w)\]}])_(?P<down>\{[^{}\n]{1,60}\})"
    r"|(?<![A-Za-z0-9_][A-Za-z])(?<=[A-Za-z])_(?P<index>\d{1,3}|[A-Za-z])(?![A-Za-z0-9_])")
_SOURCE = re.compile(r"\\[a-zA-Z(\[]|\$\$|[\w)]\^\{|⁀\{")


def _text_items(text: str, style: Style, fonts: tuple[str, ...], glued: bool) -> list[Item]:
    """Text outside of dollar signs: words, and as formulas what is written as one. Raises CannotSet for other LaTeX."""
    items: list[Item] = []

    def words(part: str) -> None:
        nonlocal glued
        if found := _SOURCE.search(part):
            raise CannotSet(f"{part[found.start() :][:20]} outside of a formula")
        items.extend(_word_items(part, fonts, style.size, glued))
        glued = not part[-1:].isspace() if part else glued

    def formula(latex: str) -> None:
        nonlocal glued
        box = math_box(latex, style.family, style.size, fonts)
        items.append(("word", box, 0.0 if glued else 0.28 * style.size, not glued))
        glued = True

    position = 0
    while match := _MARKUP.search(text, position):
        start, end = match.span()
        if match["macro"]:
            before = re.search(rf"[^\s{EAST_ASIAN}]*\Z", text[max(position, start - 60) : start])[0]
            before = re.sub(r"^.*[A-Za-z]{3}(?=[^A-Za-z(\[]*\Z)|^.*[,;:]", "", before)
            latex = before + _BARE.match(text, start, start + 600)[0]
            core = latex.rstrip(".,;:?!")
            words(text[position : start - len(before)])
            formula(core)
            position = start - len(before) + len(core)
            continue
        words(text[position:start])
        script = match["tagged"] or match["up"] or match["down"] or match["index"]
        up = match["tag"] == "sup" or match["up"] is not None
        if script == "°":
            words("°")
        else:
            formula(f"{'^' if up else '_'}{{{script.strip('{}')}}}")
        position = end
    words(text[position:])
    return items


_BREAKS = set(r"= < > , + \leq \geq \neq \approx \equiv \Rightarrow \rightarrow \to \in \cdot \times".split())


def _break_math(latex: str) -> list[str]:
    """A long formula cut after its relations, at the outermost level of braces and brackets."""
    pieces, depth, start = [], 0, 0
    for match in re.finditer(r"\\[a-zA-Z]+|\\[{}]|[{}=<>,+]", latex):
        token = match[0]
        if token in ("{", "\\left"):
            depth += 1
        elif token in ("}", "\\right"):
            depth -= 1
        elif depth == 0 and token in _BREAKS:
            pieces.append(latex[start : match.end()])
            start = match.end()
    pieces.append(latex[start:])
    return [piece for piece in pieces if piece.strip()]


def _full_size_fractions(latex: str) -> str:
    """\\frac → \\dfrac outside of every brace, as TeX sets a display."""
    depth, out = 0, []
    for token in re.findall(r"\\[a-zA-Z]+|\\.|.", latex, re.DOTALL):
        depth += (token == "{") - (token == "}")
        out.append(r"\dfrac" if token in (r"\frac", r"\dfrac") and depth == 0 else token)
    return "".join(out)


def _math_boxes(latex: str, style: Style, fonts: tuple[str, ...], widest: float, display: bool) -> list[Box]:
    """The formula as one box, or, wider than `widest` pixels, as boxes between which a line may break."""
    latex = _SCRIPT_TAG.sub(lambda tag: f"{'^' if tag[1] == 'sup' else '_'}{{{tag[2]}}}", latex.translate(FULL_WIDTH))
    if display:
        latex = _full_size_fractions(latex)
    box = math_box(latex, style.family, style.size, fonts)
    pieces = _break_math(rewrite_latex(latex)) if box.advance > widest and not composed(latex) else []
    if len(pieces) < 2:
        return [box]
    try:
        return [math_box(piece, style.family, style.size) for piece in pieces]
    except CannotSet:
        return [box]


def items_of(text: str, style: Style, extra_fonts: tuple[str, ...], counts: Counter, widest: float) -> list[Item]:
    """A paragraph's words and formulas in order. Raises CannotSet and MissingGlyphs."""
    fonts = tuple(font_path(name) for name in (FAMILIES[style.family][0], *FALLBACKS)) + extra_fonts
    items: list[Item] = []
    closers: list[str] = []
    glued = True
    latex = "\\" in text
    for kind, content in split_math(text):
        if kind == "text":
            content = _plain_words(content, closers) if latex else content
            if content:
                items += _text_items(content, style, fonts, glued)
                glued = not content[-1].isspace()
        elif kind == "tabular":
            rows = _tabular_rows(content)
            items += [("table", rows)] if rows else []
            glued = True
        elif BLANK.fullmatch(content):
            glued = False
        else:
            boxes = _math_boxes(content, style, fonts, widest, kind == "display")
            counts["formulas"] += 1
            if kind == "display":
                items.append(("display", boxes))
            else:
                items.append(("word", boxes[0], 0.0 if glued or not items else 0.28 * style.size, not glued))
                items += [("word", box, 0.2 * style.size, True) for box in boxes[1:]]
            glued = True
    return items


def _blocks(text: str, style: Style) -> Iterator[tuple[str, object]]:
    """The page's blocks in order: ("text", paragraph), ("table", rows of cells), ("choices", cells)."""
    stem, choices = split_choices(text)
    lines: list[str] = []
    for piped, group in itertools.groupby(stem.split("\n"), key=lambda line: line.lstrip().startswith("|")):
        part = list(group)
        if piped and (table := markdown_table(part)):
            yield from _paragraph(lines)
            yield "table", table
            lines = []
        else:
            lines += part
    yield from _paragraph(lines)
    cells = [f"{label} {content}" for label, content in choices]
    if cells:
        yield ("choices", cells) if style.choices == "table" else ("text", "\n".join(cells))


def _paragraph(lines: list[str]) -> list[tuple[str, str]]:
    return [("text", "\n".join(lines).strip("\n"))] if any(map(str.strip, lines)) else []


# ----------------------------------------------------------------------------------------------------------------------
# Layout


class _Column:
    """Lines set one under another in a column of a given width."""

    def __init__(self, style: Style, width: float, layout: Layout, x: int, y: int):
        self.style, self.width, self.layout, self.x, self.y = style, width, layout, x, y
        self.right = float(x)  # the furthest ink

    def line(self, items: list[tuple[Box, float]], centred: bool = False) -> None:
        """One line of (box, space before)."""
        size, layout = self.style.size, self.layout
        ascent = max([box.top for box, _ in items] + [round(0.75 * size)])
        descent = max([box.descent for box, _ in items] + [round(0.25 * size)])
        slack = max(round(self.style.leading * size) - ascent - descent, round(0.15 * size))
        baseline = self.y + slack // 2 + ascent
        total = sum(space + box.advance for box, space in items)
        pen = self.x + (max(0.0, self.width - total) / 2 if centred else 0.0)
        first = len(layout.boxes)
        for box, space in items:
            pen += space
            at = round(pen) + max(0, -box.left if pen == self.x else 0)
            layout.boxes.append((box, at, baseline))
            self.right = max(self.right, at + box.left + box.mask.shape[1])
            pen += box.advance
        layout.lines.append((baseline - ascent, baseline + descent, first, len(layout.boxes)))
        self.y = baseline + descent + slack - slack // 2

    def gap(self, ems: float) -> None:
        self.y += round(ems * self.style.size)

    def paragraph(self, items: list[Item]) -> None:
        """Greedy line breaking; a word wider than the column stands alone and widens the page."""
        current: list[tuple[Box, float]] = []
        used, newlines = 0.0, 0
        for kind, *item in items:
            newlines = newlines + 1 if kind == "newline" else 0
            if kind == "word":
                box, space, breakable = item
                if current and breakable and used + space + box.advance > self.width:
                    self.line(current)
                    current, used = [], 0.0
                current.append((box, space if current else 0.0))
                used += current[-1][1] + box.advance
                continue
            if current:
                self.line(current)
                current, used = [], 0.0
            if newlines == 2:
                self.gap(0.5)
            if kind == "display":
                self.display(*item)
        if current:
            self.line(current)

    def display(self, boxes: list[Box]) -> None:
        """A formula on lines of its own, broken between its boxes where it is too wide."""
        self.gap(0.25)
        row: list[tuple[Box, float]] = []
        for box in boxes:
            if row and sum(b.advance for b, _ in row) + box.advance > self.width:
                self.line(row, centred=True)
                row = []
            row.append((box, 0.2 * self.style.size if row else 0.0))
        self.line(row, centred=True)
        self.gap(0.25)

    def table(self, rows: list[list[list[Item]]], borders: str) -> None:
        """Cells of items; columns as wide as they need, or shared out and wrapped when that is too wide."""
        style, layout = self.style, self.layout
        pad = _pad(style)
        columns = max(map(len, rows))
        rows = [row + [[]] * (columns - len(row)) for row in rows]
        natural = [math.ceil(max(_width(row[column]) for row in rows)) for column in range(columns)]
        room = self.width - 2 * pad * columns
        if sum(natural) > room:
            fair = max(room / columns, 3.0 * style.size)
            natural = [min(width, fair) for width in natural]
        widths = [round(width) + 2 * pad for width in natural]
        self.gap(0.3)
        left, top = self.x, self.y
        edges, row_edges = [left], [top]
        for row in rows:
            bottom, x = row_edges[-1], left
            edges = [left]
            for column, cell in enumerate(row):
                sub = _Column(style, widths[column] - 2 * pad, layout, x + pad, row_edges[-1] + pad // 2)
                sub.paragraph([item for item in cell if item[0] != "table"])
                widths[column] = max(widths[column], round(sub.right) - x + pad)
                bottom, x = max(bottom, sub.y + pad // 2), x + widths[column]
                edges.append(x)
            row_edges.append(bottom)
        self.right, self.y = max(self.right, edges[-1] + 1), row_edges[-1]
        if borders in ("grid", "rules"):
            layout.rules += [(left, y, edges[-1] + 1, y + 1) for y in row_edges]
        if borders == "grid":
            layout.rules += [(x, top, x + 1, row_edges[-1] + 1) for x in edges]
        self.gap(0.3)


def _pad(style: Style) -> int:
    """From a table's border to its words, in pixels."""
    return round(0.45 * style.size)


def _width(items: list[Item]) -> float:
    """The width of items on one line, or of the widest of several."""
    widest, used = 0.0, 0.0
    for item in items:
        if item[0] == "word":
            used += (item[2] if used else 0.0) + item[1].advance
        elif item[0] == "display":
            used += sum(box.advance for box in item[1])
        else:
            used = 0.0
        widest = max(widest, used)
    return widest


_SCRIPT_TAG = re.compile(r"<(su[pb])>([^<>\n]{1,60})</su[pb]>")
_BREAK_TAG = re.compile(r"<(?:br|/?(?:p|div|li|ul|ol))\b[^<>]{0,200}>", re.IGNORECASE)
_LONG_TAG = re.compile(rf"({_SCRIPT_TAG.pattern})|</?(?:strong|em|span|font|center|small|big|sub|sup)\b[^<>]{{0,200}}>",
                       re.IGNORECASE)
_OTHER_TAG = re.compile(r"</?(?:table|t[rdh]|thead|tbody|img|svg|math|script|a)(?: [^<>]{0,400})?>", re.IGNORECASE)
# LaTeX that went through JSON once too often has \\\\frac; once too rarely, a form feed and "rac".
_ESCAPED_TWICE = re.compile(r"(?<!\\)\\\\(?=(?:[dt]?frac|sqrt|left|right|begin|end|text|angle|triangle|widehat|"
                            r"overline|times|cdot|circ|pi|because|therefore|odot|perp|parallel|overset)(?![a-zA-Z]))")
_ESCAPED_ONCE = re.compile("\f(?=rac|orall)|\b(?=ar|eta|egin|inom|oxed)|\t(?=ext\\{|imes|heta|riangle|herefore|frac)")


def plain_text(text: str) -> str:
    """A question with one kind of space and newline, and without the invisible and HTML remains of web pages.

    Full-width punctuation in a text without Chinese or Japanese letters is a translator's leftover: it becomes ASCII.
    Raises CannotSet for HTML that is more than words.
    """
    if "<" in text or "&" in text:
        text = re.sub(r"&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,5});", lambda name: html.unescape(name[0]), text)
        text = _BREAK_TAG.sub("\n", text)
        for name in "biu":
            if f"</{name}>" in text:
                text = re.sub(f"</?{name}>", "", text)
        text = _LONG_TAG.sub(lambda tag: tag[1] or "", text)
        if tag := _OTHER_TAG.search(text):
            raise CannotSet(f"HTML: {tag[0][:20]}")
    text = _ESCAPED_ONCE.sub(lambda sign: "\\" + "bft"["\b\f\t".index(sign[0])], text)
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\u00a0", " ").replace("\t", "    "))
    text = re.sub(r"[\u200b\u200c\u200d\u2060\ufeff\u00ad\ufe0f]", "", text).replace("\uf0b7", "•")  # Word's bullet
    text = re.sub(r"√\s{0,3}\{", r"\\sqrt{", text)  # the way in which GeoQA and its relatives write roots,
    text = re.sub(r"(?<!\\)(?<!\\[dtc])frac\s{0,3}(?=\{)", r" \\frac", text)  # and fractions
    text = re.sub(r"⁀(?=\{)", r"\\overarc", text)
    text = _ESCAPED_TWICE.sub(r"\\", text)
    if not re.search(r"[\u3040-\u30ff\u3400-\u9fff]", text):
        text = re.sub(r"([，、；：。？！])(?=\S)", r"\1 ", text)
        text = text.translate(FULL_WIDTH)
    return text


def lay_out(
    text: str, style: Style, picture_size: tuple[int, int] | None = None, extra_fonts: tuple[str, ...] = ()
) -> Layout:
    """Set `text` (LaTeX between dollar signs, tables of pipes, choices) and leave room for a picture (width, height).

    The page's width is chosen so that it comes out near style.aspect: models squash a page to a square, and a long
    narrow page would lose its letters. Raises CannotSet and MissingGlyphs.
    """
    if "[asy]" in text:
        raise CannotSet("a figure as a program")
    if re.search(r"!\[[^\]\n]{0,200}\]\(", text):
        raise CannotSet("a picture's address in the text")
    text = plain_text(text)
    counts: Counter = Counter()
    blocks: list[tuple[str, list]] = []

    def items(cell: str) -> list[Item]:
        return items_of(cell, style, extra_fonts, counts, 24.0 * style.size)

    def table(rows: list[list[str]]) -> tuple[str, list]:
        return "table", [list(map(items, row)) for row in rows]

    for kind, content in _blocks(text, style):
        if kind == "choices":
            blocks.append((kind, list(map(items, content))))
        elif kind == "table":
            blocks.append(table(content))
        else:
            for is_table, group in itertools.groupby(items(content), key=lambda item: item[0] == "table"):
                parts = list(group)
                blocks += [table(rows) for _, rows in parts] if is_table else [("text", parts)]
    width, area = _text_width(blocks, style, picture_size)
    layout = _compose(blocks, style, width, picture_size)
    ratio = layout.width / layout.height / style.aspect
    if (ratio < 0.8 or ratio > 1.25) and area:  # once more, by what the first try taught
        second = _compose(blocks, style, width / ratio**0.5, picture_size)
        if abs(np.log(second.width / second.height / style.aspect)) < abs(np.log(ratio)):
            layout = second
    layout.counts = counts
    return layout


def _text_width(blocks: list, style: Style, picture_size: tuple[int, int] | None) -> tuple[float, float]:
    line_height = style.leading * style.size
    area = 0.0
    for kind, content in blocks:
        rows = {"text": [[content]], "choices": [content], "table": content}[kind]
        for items in (cell for row in rows for cell in row):
            words = sum(item[1].advance + item[2] for item in items if item[0] == "word")
            tall = sum(sum(box.advance for box in item[1]) * 2.5 for item in items if item[0] == "display")
            area += (words + tall) * line_height * 1.1
    picture_area = 0.0
    if picture_size:
        scale = style.picture_length * style.size / max(picture_size)
        picture_area = picture_size[0] * picture_size[1] * scale * scale
    if style.picture_place == "right" and picture_size:
        height = max(picture_size[1] * scale, ((area + picture_area) / style.aspect) ** 0.5)
        return max(area / height, 7.0 * style.size), area
    return max(((area + picture_area) * style.aspect) ** 0.5, 8.0 * style.size), area


def _compose(blocks: list, style: Style, text_width: float, picture_size: tuple[int, int] | None) -> Layout:
    margin = max(4, round(style.margin * style.size))
    gap = round(0.8 * style.size)
    layout = Layout(0, 0, [], [], [])
    top = margin
    picture = None
    if picture_size:
        longest = style.picture_length * style.size
        if style.picture_place != "right":  # nearly as wide as the text, if its pixels allow
            longest = max(longest, min(0.85 * text_width, 1.5 * max(picture_size)))
        scale = longest / max(picture_size)
        picture = max(1, round(picture_size[0] * scale)), max(1, round(picture_size[1] * scale))
        if style.picture_place == "above":
            layout.picture = (margin, margin, margin + picture[0], margin + picture[1])
            top += picture[1] + gap
    column = _Column(style, max(text_width, 4.0 * style.size), layout, margin, top)
    for number, (kind, content) in enumerate(blocks):
        if number:
            column.gap(0.35)
        if kind == "text":
            column.paragraph(content)
        elif kind == "table":
            column.table(content, style.table)
        else:
            widest = math.ceil(max(map(_width, content))) + 2 * _pad(style)
            fitting = [n for n in (len(content), 4, 2) if n <= len(content) and n * widest <= column.width]
            per_row = fitting[0] if fitting else 1
            rows = [content[at : at + per_row] for at in range(0, len(content), per_row)]
            column.table(rows, style.table)
    right, bottom = column.right, column.y
    if picture and style.picture_place == "right":
        x = round(right) + gap
        layout.picture = (x, margin, x + picture[0], margin + picture[1])
    elif picture and style.picture_place == "under":
        layout.picture = (margin, bottom + gap, margin + picture[0], bottom + gap + picture[1])
    if layout.picture:
        right, bottom = max(right, layout.picture[2]), max(bottom, layout.picture[3])
    width, height = round(right) + margin, bottom + margin
    # Models squash a page to a square: blank paper rather than letters drawn out to twice their height.
    layout.width, layout.height = max(width, round(height / WIDEST)), max(height, round(width / WIDEST))
    return layout


# ----------------------------------------------------------------------------------------------------------------------
# Drawing


def ink_mask(layout: Layout) -> np.ndarray:
    """The ink of the text and the tables' borders [height, width] uint8: 0 is paper, 255 is ink."""
    canvas = np.zeros((layout.height, layout.width), np.uint8)
    for box, x, baseline in layout.boxes:
        x, y = x + box.left, baseline - box.top
        part = canvas[y : y + box.mask.shape[0], x : x + box.mask.shape[1]]
        np.maximum(part, box.mask, out=part)
    for x0, y0, x1, y1 in layout.rules:
        canvas[y0:y1, x0:x1] = 255
    return canvas


def _rgb(colour: str) -> np.ndarray:
    return np.array(ImageColor.getrgb(colour), np.float32)


def draw(layout: Layout, style: Style, picture: Image.Image | None = None) -> Image.Image:
    """The page: without a picture mode "P" (ramps from paper and ruling to ink, a third of the bytes), else "RGB"."""
    indices = ink_mask(layout) >> 1
    paper, _, ruling = PAPERS[style.paper]
    ramps = np.concatenate([np.linspace(_rgb(under), _rgb(style.ink), 128) for under in (paper, ruling or paper)])
    if ruling is not None:
        step = round(style.leading * style.size)
        ruled = np.zeros(indices.shape, bool)
        ruled[step::step] = True
        if style.paper == "squared":
            ruled[:, step::step] = True
        indices[ruled] += 128
    image = Image.fromarray(indices)
    image.putpalette(ramps.round().astype(np.uint8).tobytes(), "RGB")
    if picture is not None:
        image = image.convert("RGB")
        x0, y0, x1, y1 = layout.picture
        small = picture.convert("RGB").resize((x1 - x0, y1 - y0), Image.Resampling.LANCZOS, reducing_gap=3.0)
        image.paste(small, (x0, y0))
    return image
