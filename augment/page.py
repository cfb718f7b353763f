"""A question set on a page: paragraphs, formulas, tables, choices and the source picture, in the look of many books.

    style = random_style(random.Random(7))
    layout = lay_out("Find $x$ if $x^2 = 9$.\\nA. 3\\nB. 4", style, picture_size=(300, 200))
    image = draw(layout, style, picture)

LaTeX that mathtext cannot typeset is shown as its source and counted in `layout.counts`; a character that no font has
raises MissingGlyphs.
"""

import html
import itertools
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageColor

from augment.typeset import (FALLBACKS, FAMILIES, MONO, Box, Unrenderable, font_path, math_box, rewrite_latex,
                             space_width, word_box)

# ----------------------------------------------------------------------------------------------------------------------
# From text to items: words, formulas, tables


_DISPLAY_NAMES = r"equation|align|alignat|gather|eqnarray|displaymath|multline"
_SEGMENTS = re.compile(r"(?P<escaped>\\[$%&#_])"
                       r"|\$\$(?P<dollars>.+?)\$\$"
                       r"|\\\[(?P<brackets>.+?)\\\]"
                       r"|\\\((?P<parens>.+?)\\\)"
                       rf"|(?P<environment>\\begin\{{(?P<name>(?:{_DISPLAY_NAMES})\*?)\}}.*?\\end\{{(?P=name)\}})"
                       r"|(?P<tabular>\\begin\{(?P<kind>tabular|array)\}.*?\\end\{(?P=kind)\})"
                       r"|\$(?P<inline>(?:[^$\\]|\\.)+?)\$(?P<digit>(?=\d))?",
                       re.DOTALL)
_MATH_SIGNS = re.compile(r"[\\^_={}<>+|]")


def _is_math(content: str, before_digit: bool) -> bool:
    """Whether "$content$" is a formula rather than two prices."""
    if "\n\n" in content:
        return False
    if _MATH_SIGNS.search(content):
        return True
    if before_digit or (content[-1].isspace() and re.search(r"[A-Za-z]{2,}", content)):
        return False
    return not re.search(r"[A-Za-z]{3,}\s+[A-Za-z]{2,}", content)


def split_math(text: str) -> list[tuple[str, str]]:
    """Text → [("text" | "inline" | "display" | "tabular", content)]. A lone dollar sign stays a dollar sign."""
    segments: list[tuple[str, str]] = []

    def add(kind: str, content: str) -> None:
        if kind == "text" and segments and segments[-1][0] == "text":
            segments[-1] = ("text", segments[-1][1] + content)
        elif content:
            segments.append((kind, content))

    position = 0
    while match := _SEGMENTS.search(text, position):
        add("text", text[position : match.start()])
        position = match.end()
        if match["escaped"]:
            add("text", match["escaped"][1])
        elif match["inline"] is not None and not _is_math(match["inline"], match["digit"] is not None):
            add("text", "$")
            position = match.start() + 1
        elif match["inline"] is not None or match["parens"] is not None:
            add("inline", match["inline"] if match["inline"] is not None else match["parens"])
        elif match["tabular"]:
            add("tabular", match["tabular"])
        else:
            add("display", next(match[name] for name in ("dollars", "brackets", "environment") if match[name]))
    add("text", text[position:])
    return segments


_CHOICE_FORMS = [re.compile(pattern) for pattern in (
    r"(?:(?<=\n)|^)[ \t]*[(（]([A-H])[)）][ \t]*", r"(?:(?<=\n)|^)[ \t]*([A-H])[.:、)．][ \t]*",
    r"(?:(?<=\s)|^)[(（]([A-H])[)）][ \t]*", r"(?:(?<=\s)|^)([A-H])[.、．][ \t]+")]


def split_choices(text: str) -> tuple[str, list[tuple[str, str]]]:
    """A question that ends in its choices → (stem, [(label as written, text)]); no choices: (text, [])."""
    for form in _CHOICE_FORMS:
        marks = list(form.finditer(text))
        while marks and marks[0][1] != "A":
            marks.pop(0)
        letters = "".join(mark[1] for mark in marks)
        fewest = 3 if form in _CHOICE_FORMS[2:] else 2
        if len(letters) < fewest or letters != "ABCDEFGH"[: len(letters)]:
            continue
        ends = [mark.start() for mark in marks[1:]] + [len(text)]
        choices = [(mark[0].strip(), text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]
        if all(content and "\n\n" not in content for _, content in choices):
            return text[: marks[0].start()].rstrip(), choices
    return text, []


def markdown_table(lines: list[str]) -> list[list[str]] | None:
    """Rows of cells when these lines are a table of pipes, else None."""
    if len(lines) < 2 or not all(line.strip().startswith("|") and line.strip().endswith("|") for line in lines):
        return None
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    rows = [row for row in rows if not all(re.fullmatch(r":?-{2,}:?", cell) for cell in row)]
    return rows if rows and max(map(len, rows)) > 1 else None


def _tabular_rows(source: str) -> list[list[str]]:
    body = re.sub(r"^\\begin\{\w+\}\s*(?:\{[^{}]*\})?|\\end\{\w+\}$|\\(?:hline|toprule|midrule|bottomrule)", "", source)
    cell = (lambda text: f"${text.strip()}$") if source.startswith("\\begin{array}") else str.strip
    rows = filter(str.strip, re.split(r"\\\\(?:\[[^\]]*\])?", body))
    return [[cell(part) if part.strip() else "" for part in re.split(r"(?<!\\)&", row)] for row in rows]


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


_EAST_ASIAN = r"\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
_WORDS = re.compile(rf"\n|[^\S\n]+|[{_EAST_ASIAN}]|[^\s{_EAST_ASIAN}]+")


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
            wide = unicodedata.east_asian_width(word[0]) in ("W", "F")
            items.append(("word", word_box(word, fonts, size), 0.0 if glued else space, not glued or wide))
            glued = True
    return items


def _bare_latex_items(text: str, style: Style, fonts: tuple[str, ...], counts: Counter, glued: bool) -> list[Item]:
    """Text outside of dollar signs. A word with LaTeX commands in it is tried as a formula; else it stays as it is."""
    text = re.sub(r"√\s*\{", r"\\sqrt{", text)  # the way in which GeoQA and its relatives write roots
    if "\\" not in text:
        return _word_items(text, fonts, style.size, glued)
    items: list[Item] = []
    for part in re.split(r"(\S*\\[a-zA-Z]+\S*)", text):
        if re.search(r"\\[a-zA-Z]+", part):
            core = part.rstrip(".,;:?")
            try:
                box = math_box(core, style.family, style.size)
            except Unrenderable:
                counts["LaTeX shown as source"] += 1
                items += _word_items(part, (font_path(MONO), *fonts), style.size, glued)
            else:
                items.append(("word", box, 0.0 if glued else 0.28 * style.size, not glued))
                items += _word_items(part[len(core) :], fonts, style.size, True)
        else:
            items += _word_items(part, fonts, style.size, glued)
        glued = bool(part) and not part[-1].isspace()
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


def _math_boxes(latex: str, style: Style, widest: float, display: bool) -> list[Box]:
    """The formula as one box, or, wider than `widest` pixels, as boxes between which a line may break."""
    if display:
        latex = _full_size_fractions(latex)
    box = math_box(latex, style.family, style.size)
    pieces = _break_math(rewrite_latex(latex)) if box.advance > widest and "\\begin" not in latex else []
    if len(pieces) < 2:
        return [box]
    try:
        return [math_box(piece, style.family, style.size) for piece in pieces]
    except Unrenderable:
        return [box]


def items_of(text: str, style: Style, extra_fonts: tuple[str, ...], counts: Counter, widest: float) -> list[Item]:
    """A paragraph's words and formulas in order. Raises MissingGlyphs."""
    fonts = tuple(font_path(name) for name in (FAMILIES[style.family][0], *FALLBACKS)) + extra_fonts
    items: list[Item] = []
    glued = True
    for kind, content in split_math(text):
        if kind == "text":
            items += _bare_latex_items(content, style, fonts, counts, glued)
            glued = not content[-1].isspace()
            continue
        if kind == "tabular":
            rows = _tabular_rows(content)
            items += [("table", rows)] if rows else []
            glued = True
            continue
        try:
            boxes = _math_boxes(content, style, widest, kind == "display")
        except Unrenderable:
            counts["LaTeX shown as source"] += 1
            source = content if content.startswith("\\begin") else f"${content}$"
            items += _word_items(source, (font_path(MONO), *fonts), style.size, glued)
            glued = False
            continue
        counts["formulas"] += 1
        if kind == "display":
            items.append(("display", boxes))
            glued = True
            continue
        space = 0.0 if glued or not items else 0.28 * style.size
        items.append(("word", boxes[0], space, not glued))
        items += [("word", box, 0.2 * style.size, True) for box in boxes[1:]]
        glued = True
    return items


def _blocks(text: str, style: Style) -> Iterator[tuple[str, object]]:
    """The page's blocks in order: ("text", paragraph), ("table", rows of cells), ("choices", cells)."""
    stem, choices = split_choices(text)
    rest, lines = stem.split("\n"), []
    while rest:
        piped = list(itertools.takewhile(lambda line: line.strip().startswith("|"), rest))
        table = markdown_table(piped)
        if table:
            yield from _paragraph(lines)
            yield "table", table
            rest, lines = rest[len(piped) :], []
        else:
            lines.append(rest.pop(0))
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
        pad = round(0.45 * style.size)
        columns = max(map(len, rows))
        rows = [row + [[]] * (columns - len(row)) for row in rows]
        natural = [max(_width(row[column]) for row in rows) for column in range(columns)]
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


_FULL_WIDTH = {"、": ",", "。": "."} | {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}


def plain_text(text: str) -> str:
    """A question with one kind of space and newline, and without the invisible and HTML remains of web pages.

    Full-width punctuation in a text without Chinese or Japanese letters is a translator's leftover: it becomes ASCII.
    """
    if "<" in text or "&" in text:
        text = re.sub(r"<br\s*/?>", "\n", text)
        text = re.sub(r"&(?:lt|gt|amp|nbsp|quot|deg|times|minus|#\d{1,6});", lambda name: html.unescape(name[0]), text)
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\u00a0", " ").replace("\t", "    "))
    text = re.sub(r"[\u200b\u200c\u200d\u2060\ufeff\u00ad\ufe0f]", "", text)
    if not re.search(r"[\u3040-\u30ff\u3400-\u9fff]", text):
        text = re.sub(r"([，、；：。？！])(?=\S)", r"\1 ", text)
        text = "".join(_FULL_WIDTH.get(character, character) for character in text)
    return text


def lay_out(
    text: str, style: Style, picture_size: tuple[int, int] | None = None, extra_fonts: tuple[str, ...] = ()
) -> Layout:
    """Set `text` (LaTeX between dollar signs, tables of pipes, choices) and leave room for a picture (width, height).

    The page's width is chosen so that it comes out near style.aspect: models squash a page to a square, and a long
    narrow page would lose its letters. Raises MissingGlyphs.
    """
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
            widest = max(map(_width, content)) + 0.9 * style.size
            fitting = [n for n in (len(content), 4, 2) if n <= len(content) and n * widest <= column.width + 1]
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
