r"""Questions as the public sets write them, made up from a seed: for the tests of the page renderer and for its speed.

    text = question(random.Random(7))      # words, inline and display LaTeX, sometimes a table, sometimes choices
"""

import random

NAMES = ("Maria", "Tom", "Li Wei", "Aisha", "the baker", "a farmer", "the school", "Mr. Green")
THINGS = ("apples", "books", "tickets", "metres of rope", "boxes", "coins", "bottles", "pages")
LETTERS = "ABCDEFGHKLMNPQRST"


def _expression(rng: random.Random) -> str:
    a, b, c = (rng.randint(2, 30) for _ in range(3))
    x = rng.choice("xyntab")
    return rng.choice((
        f"{x} = {a}", f"{a}{x} + {b} = {c}", rf"\frac{{{a}}}{{{b}}}", rf"\sqrt{{{a}}}", f"{x}^2 - {a}{x} + {b} = 0",
        rf"f({x}) = {a}{x}^{{{b}}} - {c}", rf"\angle {_points(rng, 3)} = {5 * a}^\circ",
        rf"\triangle {_points(rng, 3)}", rf"\overline{{{_points(rng, 2)}}} = {a}", rf"{x} \le {a}",
        rf"{_points(rng, 2)} \parallel {_points(rng, 2)}", rf"\sin^2 {x} + \cos {x}", rf"\log_{{{a}}} {b}",
        rf"{x}_1, {x}_2, \ldots, {x}_{{{a}}}", rf"\vec{{{x}}} \cdot \vec{{b}}",
        rf"\left(\frac{{{x}}}{{{b}}}\right)^{{{c}}}", rf"{a} \times 10^{{-{b}}}", r"\pi r^2", rf"{a}\%", r"\emptyset",
        rf"\sqrt[3]{{{x} + {a}}}", rf"\binom{{{a}}}{{{b}}}", rf"\hat{{{x}}} \neq \widehat{{{_points(rng, 3)}}}"
    ))


def _display(rng: random.Random) -> str:
    a, b, c = (rng.randint(1, 9) for _ in range(3))
    return rng.choice((rf"$$\int_{{0}}^{{{a}}} \left({b}x^2 + \frac{{{c}}}{{x+1}}\right)\,dx$$",
                       rf"\[\sum_{{k=1}}^{{\infty}} \frac{{{a}}}{{k^{{{b + 1}}}}} = S\]",
                       rf"$$\lim_{{x \to {a}}} \frac{{x^2 - {a * a}}}{{x - {a}}}$$",
                       rf"$$\begin{{cases}} {a}x + {b}y = {c} \\ x - {c}y = {a} \end{{cases}}$$",
                       rf"$$A = \begin{{pmatrix}} {a} & {b} \\ -{c} & {a} \end{{pmatrix}}$$",
                       rf"\begin{{align*}} y &= {a}x^2 + {b} \\ z &= \sqrt{{{c}x}} \end{{align*}}"))


def _points(rng: random.Random, count: int) -> str:
    return "".join(rng.sample(LETTERS, count))


def _sentence(rng: random.Random) -> str:
    who, thing, number = rng.choice(NAMES), rng.choice(THINGS), rng.randint(2, 400)
    sentence = rng.choice((
        f"{who} has {number} {thing} and buys {rng.randint(2, 40)} more for $5 each.",
        f"In the figure, ${_expression(rng)}$ and ${_expression(rng)}$.",
        f"It is known that ${_expression(rng)}$, where $x$ and $y$ are positive integers.",
        f"The length of {_points(rng, 2)} is {number} cm and angle {_points(rng, 3)} = {rng.randint(20, 160)}°.",
        f"Each of the {number} {thing} weighs ${_expression(rng)}$ on average, {rng.randint(3, 40)}% less than before.",
        f"Suppose that ${_expression(rng)}$; then ${_expression(rng)}$ for every real number.",
        "A circle with centre O touches both lines, as shown in the diagram.",
    ))
    return sentence[0].upper() + sentence[1:]


def question(rng: random.Random) -> str:
    """About 10 to 90 words with 0 to 8 formulas."""
    parts = [" ".join(_sentence(rng) for _ in range(rng.randint(1, 4)))]
    if rng.random() < 0.2:
        parts.append(_display(rng))
    if rng.random() < 0.08:
        rows = [f"| {name} | {rng.randint(1, 99)} |" for name in ("Jan", "Feb", "Mar")]
        parts.append("\n".join(["| Month | Sales |", "|---|---|", *rows]) + "\n")
    parts.append(f"Find the value of ${_expression(rng)}$." if rng.random() < 0.5 else "What is the total, in euros?")
    if rng.random() < 0.4:
        values = [f"${_expression(rng)}$" if rng.random() < 0.3 else str(rng.randint(1, 999)) for _ in range(4)]
        parts.append("Choices:")
        parts += [f"({letter}) {value}" for letter, value in zip("ABCD", values, strict=True)]
    return "\n".join(parts)
