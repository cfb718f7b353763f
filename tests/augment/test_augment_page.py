"""Text to image: what is laid out is there in the PNG's pixels, nothing else is, and nothing is lost in silence."""

import io
import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from PIL import Image, ImageColor

from augment import samples, typeset
from augment.page import (PAPERS, Layout, Style, draw, lay_out, markdown_table, plain_text, random_style, split_choices,
                          split_math)
from augment.recipe import Dropped, Example, render
from augment.rephrase import Problem
from augment.typeset import (FALLBACKS, FAMILIES, CannotSet, MissingGlyphs, coverage, font_path, math_box,
                             rewrite_latex, word_box)

from tests.augment.growth import growth


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
    assert counts["formulas"] > 40


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


def test_what_cannot_be_set_is_refused_and_never_shown_as_source():
    for latex in (r"\cancel{x}", r"\begin{tikzpicture}\draw (0,0);\end{tikzpicture}", r"\frac{1}{", r"\ce{H2O}", "",
                  r"\frac{1}", r"\left(x", r"\multicolumn{2}{c}{x}", r"\sqrt{\begin{matrix} 1 \end{matrix}}", "{" * 90,
                  r"\begin{matrix} 1", "x^", "x+" * 900):
        with pytest.raises(CannotSet):
            math_box(latex, "stix", 20)
    for text in (r"Solve $\cancel{x} = 2$.", r"See \badcommand{y}.", r"So \frac{\sqrt{2}{9} is it.", "Half $$x = 2",
                 r"The first \begin{tikzpicture} is", "[asy] draw(A--B); [/asy]", "<table><tr><td>5</td></tr></table>",
                 r"\begin{tabular}{cc} \multicolumn{2}{c}{x} \\ 1 & 2 \end{tabular}", "![plan](a.png) Find x.",
                 r"The \[ x + y and no more"):
        with pytest.raises(CannotSet):
            lay_out(text, Style())


SAME = [  # what people write, and the same with every brace and name in full
    (r"\frac mn", r"\frac{m}{n}"), (r"\frac n{100}", r"\frac{n}{100}"), (r"\frac12", r"\frac{1}{2}"),
    (r"\frac{a}b", r"\frac{a}{b}"), (r"\frac\pi2", r"\frac{\pi}{2}"), (r"\tfrac pq", r"\frac{p}{q}"),
    (r"\dfrac1x", r"\dfrac{1}{x}"), (r"\cfrac1x", r"\dfrac{1}{x}"), (r"\sqrt[3]a", r"\sqrt[3]{a}"),
    (r"\frac{m\sqrt n}k", r"\frac{m\sqrt{n}}{k}"), (r"\sqrt2", r"\sqrt{2}"), (r"\bold{v}", r"\mathbf{v}"),
    (r"\mathbb R", r"\mathbb{R}"), (r"\overline AB", r"\overline{A}B"), (r"x^\frac12", r"x^{\frac{1}{2}}"),
    (r"（a，b）＝１", "(a,b)=1"), (r"\binom n2", r"\binom{n}{2}"), (r"\dbinom n2", r"\binom{n}{2}"),
    (r"{n \choose k}", r"\binom{n}{k}"), (r"{a \over b}", r"\frac{a}{b}"), (r"90^\circ", "90°"),
    (r"90^{\circ}", "90°"), (r"90\textdegree", "90°"), (r"\pmod 7", r"\ (\mathrm{mod}\ 7)"),
    (r"x \tag{2}", r"x \qquad (2)"),
    (r"\operatorname*{max} x", r"\operatorname{max} x"), (r"\stackrel ab", r"\overset{a}{b}"), (r"5%", r"5\%"),
    (r"\text{if $x$ is}", r"\text{if }x\text{ is}"), (r"\text{50\% of}", r"\text{50% of}"), (r"a#", r"a\#"),
    (r"\angleABC", r"\angle ABC"), (r"\wideparen{AB}", r"\overarc{AB}"), (r"\bigl( x \bigr)", "(x)"),
    (r"\left|x\right|", "|x|"), (r"\left.x\right>", r"x\rangle"),
    (r"\begin{array}{@{}cl@{\hspace{2pt}}} a & b \end{array}", r"\begin{array}{cl} a & b \end{array}"),
    (r"\begin{array}[t]{p{3cm}c} a & b \end{array}", r"\begin{array}{lc} a & b \end{array}"),
    (r"\begin{matrix} a \\[2pt] b \end{matrix}", r"\begin{matrix} a \\ b \end{matrix}"), (r"a & = b", "a = b"),
    (r"\xrightarrow f", r"\overset{f}{\longrightarrow}"), (r"\color{red}x", "x"), (r"√{2}", r"\sqrt{2}")]


@pytest.mark.parametrize("written, braced", SAME)
def test_macros_find_their_arguments_as_in_tex(written, braced):
    written = plain_text(written)
    ours, theirs = math_box(written, "stix", 30), math_box(braced, "stix", 30)
    assert ours.mask.shape == theirs.mask.shape and (ours.mask == theirs.mask).all()


def test_what_stands_around_a_formula_is_drawn():
    """Frames, braces, rules, brackets and scripts around what mathtext sets: ink of the inside, and their own."""

    def ink(latex):
        return math_box(latex, "stix", 30).mask.sum(dtype=int)

    for latex, inside in ((r"\boxed{x+1}", "x+1"), (r"\fbox x", "x"), (r"\underbrace{1+1}_{n}", "1+1"),
                          (r"\overbrace{1+1}^{n}", "1+1"), (r"\begin{array}{c} 1 \\ \hline 2 \end{array}",
                                                            r"\begin{array}{c} 1 \\ 2 \end{array}"),
                          (r"\begin{array}{c|c} 1 & 2 \end{array}", r"\begin{array}{cc} 1 & 2 \end{array}"),
                          (r"\begin{array}{cc} 1 & 2 \\ \cline{2-2} & 4 \end{array}",
                           r"\begin{array}{cc} 1 & 2 \\  & 4 \end{array}"),
                          (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}^T", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
                          (r"\left\| \begin{matrix} 1 \\ 2 \end{matrix} x \right\|",
                           r"\begin{matrix} 1 \\ 2 \end{matrix} x"),
                          (r"\left\{ \begin{array}{l} 1 \\ 2 \end{array} \right.",
                           r"\begin{array}{l} 1 \\ 2 \end{array}")):
        assert ink(latex) > ink(inside) + 2000, latex
    frame = math_box(r"\boxed{x}", "stix", 30).mask
    assert (frame[0] == 255).all() and (frame[:, -1] == 255).all() and (frame[-1] == 255).all()
    raised, lowered = (math_box(rf"\begin{{vmatrix}} 1 \\ 2 \end{{vmatrix}}{script}2", "stix", 30) for script in "^_")
    assert raised.top > lowered.top and raised.descent < lowered.descent


def test_macros_outside_of_dollar_signs_are_set_or_leave_no_trace():
    style = Style(choices="lines")
    for text, shown in ((r"\textbf{Find \emph{the} value} \qquad of", "Find the value of"),
                        (r"12~cm \ldots", "12 cm …"),
                        (r"\begin{itemize} \item one \item[(b)] two \end{itemize}", "• one (b) two"),
                        (r"\section*{Part} one \\ two", "Part one two"), (r"\textbf{If $x$ is} here", "If is here"),
                        ("A sum.\\nSay it.\\n", "A sum. Say it."), ("<b>Find</b> <i>it</i><br>now", "Find it now"),
                        ("<span class='q'>Find</span> it &amp; him", "Find it & him"), ("a<b and c>d", "a<b and c>d"),
                        ("\uf0b7 one", "• one"), (r"It is \{1, 2\}", "It is {1, 2}"), ("$\\quad$ one", "one")):
        assert " ".join(words_of(lay_out(text, style))) == shown
    for text, formulas in ((r"\angle Q is $5$", 2), (r"2\sqrt{3}cm", 1), (r"is \frac {1}{2}.", 1),
                           ("x<sup>2</sup>", 1), ("a<sub>n</sub>", 1), ("x^2 + 10^24", 2), ("cm^{2}", 1),
                           ("S_n and l_{1}", 2),
                           ("frac {AD}{AB} = 2", 1), ("file_name and pi_is", 0), ("⁀{AC}", 1), (r"$\frac12=( )", 1)):
        boxes = [box for box, _, _ in lay_out(text, style).boxes if not box.text]
        assert len(boxes) == formulas, text
        assert not re.search(r"[\\{}$^<]", "".join(words_of(lay_out(text, style)))), text
    assert words_of(lay_out(r"It is $c=( )", style)) == ["It", "is"]


def test_chinese_words_inside_formulas_are_set_in_the_given_font():
    fonts = (font_path("LastResortHE-Regular.ttf"),)
    for latex in (r"平面 \alpha", r"x \text{ 则 } y", r"\begin{cases} x, & \text{若 } x > 0 \\ 0 \end{cases}"):
        with pytest.raises(MissingGlyphs):
            math_box(latex, "stix", 20)
        assert math_box(latex, "stix", 20, fonts).mask.sum() > 5000
    signs, plain = math_box("（a，b）＝１", "stix", 20), math_box("(a,b)=1", "stix", 20)
    assert (signs.mask == plain.mask).all(), "full-width signs are the same mathematics"


def test_a_page_that_cannot_be_set_is_dropped_with_its_reason():
    plan = SimpleNamespace(resolution=384, min_text=9.0, fonts=(), transform_pages=0.0)
    counts = Counter()
    for question in (r"Find $\cancel{x}$.", "Find \\frac{1}{2 now."):
        with pytest.raises(Dropped, match="formula that cannot be set"):
            render(Example("a:1", Problem(question, "5", "5"), None, ""), plan, "seed", counts)
    assert render(Example("a:1", Problem(r"Find $\frac mn$.", "5", "5"), None, ""), plan, "seed", counts).size
    assert counts == {"formulas": 1}


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
    assert words_of(layout) == ["AB", "is", "(A)", "(B)"]


def test_rewriting_keeps_what_it_does_not_know():
    assert rewrite_latex(r"\leq \left( x^2 \right) \text{cm}") == r"\leq \left( x^{2} \right) \text{cm}"
    assert rewrite_latex(r"\le") == r"\leq" and rewrite_latex(r"\leftarrow") == r"\leftarrow"


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
    ("Q?\n(A) 1\n(C) 2", []), ("Is A: 3?", []), ("Q? A) 3 B) 4 C) 5", ["A)", "B)", "C)"]),
    ("Q?\nA) 3 B) 4", ["A)", "B)"]), ("Q? A.40° B.50° C.60°", ["A.", "B.", "C."]),
    ("Q？A、3 B、4 C、5", ["A、", "B、", "C、"]),
    ("Ask A. Smith and B. Jones and C. Brown.", []), ("Roads A: red B: blue C: green meet", []),
    ("Q?\nA. 1\nB. \nC. 3", []),
    ("Points (A) red and (B) blue and (C) green", []), (r"Q? $\textbf{(A)}\ 1 \qquad\textbf{(B)} 2$", []),
    (r"By $x\textbf{(A)} 1 \textbf{(B)} 2 \textbf{(C)} 3$", [])])
def test_choices_are_found(text, labels):
    stem, choices = split_choices(text)
    assert [label for label, _ in choices] == labels
    assert (stem == text) == (not labels)


@pytest.mark.parametrize("text", [
    r"Q?$\textbf{(A)}\ 1 \qquad\textbf{(B)}\ \frac12 \qquad\textbf{(C) } x^2$",
    "Q?\n" + r"\textbf{(A)} 1 \qquad \textbf{(B)} $\frac12$ \qquad \textbf{(C)} $x^2$",
    "Q?\n" + r"$\mathrm{\textbf{(A)} \ }1\qquad \mathrm{\textbf{(B)} \ } \frac12 \qquad \mathrm{(C) \ }x^2$"])
def test_choices_of_contests_get_their_own_dollar_signs(text):
    stem, choices = split_choices(text)
    assert stem == "Q?" and [label for label, _ in choices] == ["(A)", "(B)", "(C)"]
    assert [content.strip("$") for _, content in choices] == ["1", r"\frac12", "x^2"]
    assert all(content.count("$") == 2 for _, content in choices[1:])


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_cell_is_as_wide_as_its_words(family):
    for size in range(18, 29):
        layout = lay_out("Q?\n(A) 1 m\n(B) two pens\n(C) 3 and more\n(D) none of it", Style(family, size, aspect=3.0))
        lines = {word: baseline for box, _, baseline in layout.boxes if (word := box.text)}
        assert lines["(A)"] == lines["m"] and lines["(C)"] == lines["more"] and lines["(D)"] == lines["it"], size


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
          "\\begin{tabular}{c}", "\\end{tabular}", "<image>", "√", "<b>", "<sup>2</sup>", "\x000\x00",
          "\\boxed{", "\\begin", "\\hline", "\\cline{1-9}", "\\underbrace", "\\choose", "[", "]",
          "\uf0b7", "\U00100000"]


def test_odd_texts_and_random_punctuation_never_break_the_layout():
    rng = random.Random(0)
    for text in ODD + ["".join(rng.choices(PIECES, k=rng.randint(1, 25))) for _ in range(150)]:
        try:
            layout = lay_out(text, Style())
        except (CannotSet, MissingGlyphs):
            continue
        assert not re.search(r"\\[a-zA-Z]", "".join(words_of(layout))), repr(text)
        assert min(layout.width, layout.height) > 0
        assert draw(layout, Style()).size == (layout.width, layout.height), repr(text)


@pytest.mark.slow
@pytest.mark.parametrize("text", [
    lambda n: "a" + " " * n + "b $x$", lambda n: "$a " * (n // 3), lambda n: r"\left(" * (n // 6),
    lambda n: "\\a " + "{" * n, lambda n: "| a | b |\n" * (n // 10), lambda n: "<sup" * (n // 4),
    lambda n: "A:" * (n // 2),
    lambda n: "\nA:" * (n // 3), lambda n: "\\textbf{(A)" * (n // 11),
    lambda n: r"\begin{array}" * (n // 13),
    lambda n: r"\[" * (n // 2), lambda n: "a" * n + r"\alpha", lambda n: r"\item[" * (n // 6),
    lambda n: "&#" * (n // 2),
    lambda n: r"$\textbf{(A)}" + r"\qquad" * (n // 6) + r"1\textbf{(B)} 2\textbf{(C)} 3$",
    lambda n: r"\[\begin{array}{c}" + r"\hline" * (n // 6) + r"\end{array}\]"])
def test_time_grows_with_the_text_and_no_faster(text):
    def set_if_possible(text):
        try:
            lay_out(text, Style())
        except (CannotSet, MissingGlyphs):
            pass

    assert growth(set_if_possible, text) <= 2.6
