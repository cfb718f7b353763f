"""Text to image: what is laid out is there in the PNG's pixels, nothing else is, and nothing is lost in silence."""

import io
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from PIL import Image, ImageColor

from augment import samples, typeset
from augment.page import (PAPERS, Layout, Style, draw, lay_out, markdown_table, plain_text, random_style, split_choices,
                          split_math)
from augment.typeset import (FALLBACKS, FAMILIES, MissingGlyphs, CannotSet, coverage, font_path, math_box,
                             rewrite_latex, word_box)


def png_pixels(image):
    """[height, width, 3] after a trip through the file format."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return np.asarray(Image.open(buffer).convert("RGB")).astype(int)


def paper_of(style):
    return np.array(ImageColor.getrgb(PAPERS[style.paper][0]))


def check_readable(layout, style):
    """Every box has all of its ink, nothing touches the border, and every line alone gives the same pixels."""
    pixels = png_pixels(draw(layout, style))
    assert pixels.shape == (layout.height, layout.width, 3)
    ink = np.abs(pixels - paper_of(style)).sum(2) > 60
    assert not ink[:3].any() and not ink[-3:].any() and not ink[:, :3].any() and not ink[:, -3:].any()
    for box, x, baseline in layout.boxes:
        left, top = x + box.left, baseline - box.top
        assert box.mask.max() > 100, box.text
        assert ink[top : top + box.mask.shape[0], left : left + box.mask.shape[1]][box.mask > 100].all(), box.text
    for top, bottom, first, last in layout.lines:
        alone = Layout(layout.width, layout.height, layout.boxes[first:last], [], [])
        drawn = np.asarray(draw(alone, style).convert("RGB")).astype(int)
        left = min(x + box.left for box, x, _ in alone.boxes)
        right = max(x + box.left + box.mask.shape[1] for box, x, _ in alone.boxes)
        inside = np.abs(drawn - paper_of(style)).sum(2) > 0
        assert not inside[:top].any() and not inside[bottom:].any()
        assert (drawn[top:bottom, left:right] == pixels[top:bottom, left:right]).all()


def words_of(layout):
    return [box.text for box, _, _ in layout.boxes if box.text]


def apart(rectangle, box, x, baseline):
    x0, y0, x1, y1 = rectangle
    left, top = x + box.left, baseline - box.top
    return x1 <= left or x0 >= left + box.mask.shape[1] or y1 <= top or y0 >= top + box.mask.shape[0]


def test_generated_pages_can_be_read_back():
    """Also: words stand in the order in which they were, formulas are counted."""
    counts = Counter()
    for seed in range(20):
        rng = random.Random(seed)
        style, text = random_style(rng), samples.question(rng)
        if PAPERS[style.paper][2] is not None:  # ruling is no ink
            style = replace(style, paper="white", ink="#000000")
        layout = lay_out(text, style)
        counts.update(layout.counts)
        check_readable(layout, style)
        assert 0.66 < layout.width / layout.height < 1.51
        plain = "".join(content for kind, content in split_math(text) if kind == "text")
        assert re.sub(r"\|", "", "".join(words_of(layout))) == re.sub(r"\|?-{3}\|?|[\s|]", "", plain), seed
    assert counts["formulas"] > 40 and counts["LaTeX shown as source"] == 0


def test_every_character_adds_ink_to_its_word():
    for name in {names[0] for names in FAMILIES.values()}:
        fonts = tuple(font_path(font) for font in (name, *FALLBACKS))
        for word in ("Maria's", "50°∠ABC", "x≤y△=é"):
            ink = [word_box(word[:end], fonts, 22).mask.sum(dtype=int) for end in range(1, len(word) + 1)]
            assert ink == sorted(set(ink)), (name, word)


def test_styles_vary_and_their_ink_stands_out():
    styles = [random_style(random.Random(seed)) for seed in range(200)]
    assert {style.family for style in styles} == set(FAMILIES)
    assert {style.paper for style in styles} == set(PAPERS)
    assert len({style.size for style in styles}) >= 5 and {style.table for style in styles} == {"grid", "rules", "none"}

    def luminance(colour):
        parts = [value / 255 for value in ImageColor.getrgb(colour)]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for style in styles:
        light, dark = sorted((luminance(PAPERS[style.paper][0]), luminance(style.ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 7, style  # WCAG AAA


@pytest.mark.parametrize("paper", list(PAPERS))
def test_every_paper_draws_ink_and_ruling(paper):
    style = Style(paper=paper, ink=PAPERS[paper][1][0])
    pixels = png_pixels(draw(lay_out("Find x if $x + 3 = 5$.", style), style))
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3)}
    assert tuple(paper_of(style)) in colours
    if PAPERS[paper][2]:
        assert ImageColor.getrgb(PAPERS[paper][2]) in colours
    assert ImageColor.getrgb(style.ink) in colours


# -- mathematics


@pytest.mark.parametrize("latex", (Path(__file__).parent / "latex.txt").read_text().splitlines())
def test_the_latex_of_public_sets_is_typeset(latex):
    for family in ("dejavu sans", "stix", "computer modern"):
        box = math_box(latex, family, 22)
        assert box.mask.max() > 200 and 0 < box.advance and box.mask.size > 10


@pytest.mark.parametrize("family", ["dejavu sans", "stix", "computer modern"])
def test_a_formula_has_as_much_ink_as_mathtext_gives_it(family):
    properties = FontProperties(size=40, math_fontfamily=FAMILIES[family][1])
    for latex in (r"\frac{1}{2}", r"\sqrt[3]{x+1}", r"\int_0^1 x^2\,dx", r"f(x) = -3x^{2}", r"\overline{AB}"):
        theirs = np.asarray(MathTextParser("agg").parse(f"${latex}$", 72, properties).image)
        assert abs(math_box(latex, family, 40).mask.sum() / theirs.sum() - 1) < 0.1, latex
    for grid in (r"\begin{matrix} %s & %s \\ %s \end{matrix}", r"%s & %s \\ %s",
                 r"%s \begin{cases} %s & %s \end{cases}"):
        parts = ("x^2", r"\frac{1}{2}", r"\sqrt{y}")
        cells = sum(math_box(part, family, 22).mask.sum(dtype=int) for part in parts)
        assert math_box(grid % parts, family, 22).mask.sum(dtype=int) >= cells, "nothing of a cell is lost"


def test_what_mathtext_cannot_do_is_shown_as_source_and_counted():
    for latex in (r"\cancel{x}", r"\begin{tikzpicture}\draw (0,0);\end{tikzpicture}", r"\frac{1}{", r"\ce{H2O}", ""):
        with pytest.raises(CannotSet):
            math_box(latex, "stix", 20)
    style = Style()
    layout = lay_out(r"Solve $\cancel{x} = 2$ and \badcommand{y}.", style)
    assert layout.counts["LaTeX shown as source"] == 2
    shown = "".join(words_of(layout))
    assert r"$\cancel{x}" in shown and r"\badcommand{y}." in shown
    check_readable(layout, style)


def test_sizes_scale_and_baselines_agree():
    small, large = math_box("x^2 + 1", "stix", 20), math_box("x^2 + 1", "stix", 40)
    assert abs(large.advance - 2 * small.advance) < 0.01 and abs(large.mask.shape[0] - 2 * small.mask.shape[0]) <= 4
    fonts = (font_path("DejaVuSans.ttf"),)
    word, formula = word_box("x", fonts, 30), math_box(r"\mathrm{x}", "dejavu sans", 30)
    assert abs(word.top - formula.top) <= 2 and abs(word.descent - formula.descent) <= 2


def test_terms_laid_out_one_by_one_stand_where_mathtext_puts_them():
    formulas = [r"x^2 - 5x + 6 = 0", r"f(x) = -3x^{2}", r"a \times 10^{-5}", r"(-3)+(-x)", r"|x|=5", r"x'+y''=z",
                r"3 - (-2)", r"\left(\frac{1}{2}+x\right)^2 - 1", r"A = \{1,2\}", r"\lim_{x \to 0} f(x) = 1",
                r"\sin^2 x + \cos x"]
    formulas += [rewrite_latex(samples._expression(random.Random(seed))) for seed in range(30)]
    for fontset in ("dejavusans", "stix", "cm"):
        for latex in formulas:
            joined, whole = typeset._parse(latex, fontset), typeset._parse_whole(latex, fontset)
            assert abs(joined[0] - whole[0]) < 4
            for ours, theirs in zip(sorted(joined[1]), sorted(whole[1]), strict=True):
                assert ours[:3] == theirs[:3] and abs(ours[3] - theirs[3]) < 3 and abs(ours[4] - theirs[4]) < 3, latex
    assert typeset._terms("x^2 - 5x = 6") == ["x^2", "-", "5x", "=", "6"]
    for latex in ("x", "-x", "x=", "=x", r"\rm a = b", r"\frac{a+b}{c=d}", r"\left(a+b\right)"):
        assert typeset._terms(latex) == [latex]


def test_roots_of_the_geometry_sets_are_typeset():
    layout = lay_out("AB is\n(A) 30√{3}m\n(B) (√{3}+30)m", Style(choices="lines"))
    assert words_of(layout) == ["AB", "is", "(A)", "(B)"] and not layout.counts["LaTeX shown as source"]


def test_rewriting_keeps_what_it_does_not_know():
    assert rewrite_latex(r"\leq \left( x \right) \text{cm}") == r"\leq \left( x \right) \text{cm}"
    assert rewrite_latex(r"\le") == r"\leq" and rewrite_latex(r"\left") == r"\left"


# -- no tofu


def test_characters_without_a_glyph_are_named_not_drawn(tmp_path):
    for text, character in (("求 x 的值", "求"), ("ע", "ע"), ("count 🧮", "🧮"), ("q\u0301x", "\u0301")):
        with pytest.raises(MissingGlyphs, match=character):
            lay_out(text, Style())
    assert lay_out("Δ ≤ π ∠ABC △ ½ é Ж →", Style()).boxes


def test_leftovers_of_web_pages_and_translators_are_read_as_what_they_mean():
    assert plain_text("AB＝5，BC＝7．Find（x）？") == "AB=5, BC=7.Find(x)?"
    assert plain_text("a &lt; b &amp;&nbsp;c<br/>d\u200b &copy x") == "a < b & c\nd &copy x"
    assert plain_text("求，x") == "求，x"
    assert lay_out("AB ＝ 5，BC：7。", Style()).boxes


def test_a_font_given_by_the_user_fills_the_gap(tmp_path):
    """The LastResort font that matplotlib ships covers everything: it stands for a user's Chinese font here."""
    path = font_path("LastResortHE-Regular.ttf")
    assert ord("求") in coverage(path)
    layout = lay_out("求 x 的值", Style(), extra_fonts=(path,))
    assert words_of(layout) == ["求", "x", "的", "值"]


def test_every_font_has_the_glyphs_it_claims():
    """No box for a glyph hides in a font's own table: the ASCII glyphs of each font differ from one another."""
    for name in {names[0] for names in FAMILIES.values()} | set(FALLBACKS):
        path = font_path(name)
        masks = Counter()
        for code in range(33, 127):
            if code in coverage(path):
                masks[word_box(chr(code), (path,), 24).mask.tobytes()] += 1
        assert max(masks.values()) <= 2, name  # ' and `, | and ¦: at most a pair may look alike
    assert ord("<") not in coverage(font_path("cmr10.ttf")), "cmr10 draws ¡ there"


# -- structure


def test_prices_are_not_formulas():
    assert [kind for kind, _ in split_math("Mary has $5 and Tom has $10 more.")] == ["text"]
    assert [kind for kind, _ in split_math("It costs $5, then $7.")] == ["text"]
    assert split_math("if $x$ is $5$ and \\$3") == [
        ("text", "if "), ("inline", "x"), ("text", " is "), ("inline", "5"), ("text", " and $3")]
    assert [kind for kind, _ in split_math("a $$b$$ \\[c\\] \\(d\\) \\begin{align}e\\end{align}")] == [
        "text", "display", "text", "display", "text", "inline", "text", "display"]


@pytest.mark.parametrize("text, labels", [
    ("Q?\n(A) 1\n(B) 2\n(C) 3", ["(A)", "(B)", "(C)"]), ("Q?\nA. 1\nB. 2", ["A.", "B."]),
    ("Q?\nA:40°\nB:50°", ["A:", "B:"]), ("Q? (A) 1 (B) 2 (C) $x$ (D) 4", ["(A)", "(B)", "(C)", "(D)"]),
    ("Q? A. 1 B. 2 C. 3", ["A.", "B.", "C."]), ("A. Smith and B. Jones meet.", []), ("In (A) and (B)", []),
    ("Q?\n(A) 1\n(C) 2", []), ("Is A: 3?", [])])
def test_choices_are_found(text, labels):
    stem, choices = split_choices(text)
    assert [label for label, _ in choices] == labels
    assert (stem == text) == (not labels)


def test_tables_have_their_cells_in_order_and_borders_around_them():
    text = "Sales:\n| Month | Sales |\n|---|---|\n| Jan | 12 |\n| Feb | $x^2$ |\nWhat is x?"
    assert markdown_table(["| a |", "|--|"]) is None and markdown_table(["a | b", "c"]) is None
    style = Style(table="grid", choices="table")
    layout = lay_out(text, style)
    assert words_of(layout) == ["Sales:", "Month", "Sales", "Jan", "12", "Feb", "What", "is", "x?"]
    assert layout.counts["formulas"] == 1
    assert len(layout.rules) == 4 + 3  # rows + 1, columns + 1
    check_readable(layout, style)
    pixels = png_pixels(draw(layout, style))
    for x0, y0, x1, y1 in layout.rules:
        assert (pixels[y0:y1, x0:x1] == 0).all()
    assert all(apart(rule, *place) for place in layout.boxes for rule in layout.rules)


@pytest.mark.parametrize("place", ["under", "above", "right"])
@pytest.mark.parametrize("size", [(400, 300), (900, 120), (60, 500)])
def test_the_source_picture_stands_beside_the_text(place, size):
    style = Style(picture_place=place)
    layout = lay_out(samples.question(random.Random(3)), style, size)
    x0, y0, x1, y1 = layout.picture
    assert abs((x1 - x0) / (y1 - y0) / (size[0] / size[1]) - 1) < 0.05, "its aspect is kept"
    assert 0 < x0 and x1 < layout.width and 0 < y0 and y1 < layout.height
    assert all(apart(layout.picture, *place) for place in layout.boxes)
    page = png_pixels(draw(layout, style, Image.new("RGB", size, (200, 30, 60))))
    assert (np.abs(page[y0:y1, x0:x1] - (200, 30, 60)).max(2) <= 1).all()


def test_long_formulas_break_and_the_page_stays_near_square():
    formula = " + ".join(f"a_{{{i}}} x^{{{i}}}" for i in range(60))
    layout = lay_out(f"Let $f(x) = {formula}$ be a polynomial.", Style())
    assert len(layout.lines) > 5 and 0.66 < layout.width / layout.height < 1.51
    layout = lay_out("word " * 300, Style())
    assert 0.7 < layout.width / layout.height < 1.5


ODD = ["", "\n\n\n", "$", "$$", "$$$$", "\\", "\\begin{", "$\\frac$", "{}" * 50, "|||", "| |\n| |", "a" * 500,
       "\\\\" * 30, "$" + "{" * 80 + "$", "(A)", "A.\nB.\n", "\x00\x01", "$x", "\\[", "\\(x"]
PIECES = ["$", "$$", "\\", "{", "}", "\\frac", "^", "_", "&", "\\\\", "\\begin{cases}", "\\end{cases}", "x", "12", " ",
          "\n", "|", "(A)", "B.", "\\left(", "\\right)", "\\[", "\\]", "%", "#", "~", "°", "\\text{", "\\sqrt",
          "\\begin{tabular}{c}", "\\end{tabular}", "<image>", "√", "<b>"]


def test_odd_texts_and_random_punctuation_never_break_the_layout():
    rng = random.Random(0)
    for text in ODD + ["".join(rng.choices(PIECES, k=rng.randint(1, 25))) for _ in range(150)]:
        try:
            layout = lay_out(text, Style())
        except MissingGlyphs:
            continue
        assert min(layout.width, layout.height) > 0
        assert draw(layout, Style()).size == (layout.width, layout.height), repr(text)
