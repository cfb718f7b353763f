"""Whatever a model writes: no text raises, hangs or fills the memory, and a text gets the same verdict everywhere.

`hostile` draws texts of ten kinds. `make test` asks 200 of them and the worst that were found, the slow test 10,000;
`PYTHONPATH=. python tests/evaluation/test_hostile.py COUNT` measures that many.
"""

import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evaluation import algebra, matcher, mathvista, values
from evaluation.answers import final_answer
from evaluation.choices import chosen_letter
from evaluation.matcher import equal
from evaluation.question import Question

LINES = Path(__file__).with_name("equal.jsonl").read_text(encoding="utf-8").splitlines()
PAIRS = [json.loads(line) for line in LINES]
GOLDS = ("14", "y=-2x+5", "\\sqrt{3}", "domain: [-4, 0) and range: (-3, 1]", "(2,-2)", "x>3", "1:64", "30°", "12%",
         "5 cm")
FUNCTIONS = "sin cos tan sec csc cot arcsin arccos arctan \\sin \\arcsin \\ln \\log ln log exp abs sqrt cbrt".split()
LETTERS = "a b c d h k m n p q r t u v w x y z \\alpha \\theta AB ABC".split()
MARKS = ["°", "%", "!", "'", "°°°", "!!", " cm", " m/s", "^2", "^{-1}", " units"]
PIECES = (
    "\\frac \\sqrt \\left( \\right) \\begin{cases} \\text{ \\boxed{ { } ( ) [ ] | ⦃ ⦄ ^ ^{ _ _{ ** + - * / = < <= > ≠ "
    "≈ ± ∪ ∈ , ; : . … is and or to in the ° % ! ' \" ` $ \\\\ \\, ~ oo ∞ π pi e x y 0 1 7 12 3.5 1e9 ١ ² ₃ ½ √ 度 ﷺ "
    "\0 \x1b \ud800 \u200b \n"
).split(" ")
WORDS = [
    "a", "x ", "m", "ab ", "cm ", "is ", " ", "\t", "\n", "the answer is ", "A or ", "\\boxed{", "domain: ", "**",
    "N 3 ", "[", "x in ", "answer: \"", "1 000 ", "north of ", "approximately ", "{1}{2}", "∘", "60°30'", "x_1 ",
    "A. B. ", "†", "</think>", "1' ", "?!.,"
]


def number(rng: random.Random) -> str:
    """A number of any size, spelt in any way."""
    digits = "".join(rng.choices("0123456789", k=rng.choice((1, 2, 3, 9, 38, 40, 45, 300))))
    return rng.choice((
        digits, f"{digits}.{digits}", f"0.{'0' * len(digits)}1", f"{digits[:4]}e{rng.choice('19')}9",
        f"10^{{{digits[:3]}}}", f"2^{digits[:4]}", f"\\frac{{1}}{{{digits}}}", f"{digits[:2]}!", "1,000,000,000",
        "-" + digits, "π", "e", "oo", "√2"
    ))


def tower(rng: random.Random) -> str:
    text = rng.choice(("x", "e", "2", "\\sqrt{2}", number(rng)))
    for _ in range(rng.choice((2, 4, 9, 22, 60))):
        text = rng.choice((
            f"{{{text}}}^{{{rng.choice('29xe')}}}", f"({text})^{{{rng.choice((2, 30, 500, 512))}}}", f"e^{{{text}}}",
            f"2^({text})", f"({text}+1)^{{1/3}}", f"({text})^{{({text[:9]})}}"
        ))
    return text


def nested(rng: random.Random) -> str:
    text = rng.choice((number(rng), "x", "x+1", f"{number(rng)}+x", "30°"))
    for _ in range(rng.choice((1, 2, 3, 5, 9, 20, 40))):
        name = rng.choice(FUNCTIONS)
        text = rng.choice((
            f"{name}({text})", f"{name}({text}+{number(rng)})", f"{name}^{{-1}}({text})",
            f"{name}({text})-{name}({text})"[:700], f"\\frac{{1}}{{{name}({text})}}", f"|{text}-{number(rng)}|",
            f"\\sqrt{{{text}}}", f"({text})°", f"exp({text})"
        ))
    return text


def radicals(rng: random.Random) -> str:
    text = "\\sqrt{2}"
    for _ in range(rng.choice((3, 8, 20, 30))):
        text = rng.choice((
            f"\\sqrt{{{rng.randint(1, 10**rng.choice((1, 9, 38)))}+{text}}}",
            f"\\sqrt[{rng.choice((2, 3, 7, 511))}]{{{text}}}-1", f"(\\sqrt{{3}}+{text})^2-{text}"[:600],
            f"\\sqrt{{{text}-\\sqrt{{{number(rng)}}}}}", f"\\frac{{{text}}}{{\\sqrt{{3}}-1}}"
        ))
    return text


def wide(rng: random.Random) -> str:
    def total(count: int) -> str:
        return rng.choice("+-+").join(
            rng.choice((rng.choice(LETTERS), number(rng)[:9], "k°", "5%", "sin x", "√2")) for _ in range(count))

    text = f"({total(rng.choice((2, 6, 12, 25)))})^{{{rng.choice((2, 7, 60, 500, '1/2', '-3', 'x'))}}}"
    for _ in range(rng.choice((0, 0, 1, 3, 6))):
        text = rng.choice((f"{text}({total(4)})", f"({text}+{total(3)})^{{{rng.choice((3, 40))}}}",
                           f"\\frac{{{text}}}{{{total(5)}}}", f"|{text}|"))
    return text + rng.choice(("", "", "°", "%", " cm", "=0"))


def marked(rng: random.Random) -> str:
    return rng.choice(("", " ", "+", "*")).join(
        number(rng)[:30] + "".join(rng.choices(MARKS, k=rng.choice((0, 1, 2, 5))))
        for _ in range(rng.choice((1, 2, 5, 30))))


def listed(rng: random.Random) -> str:
    def item(depth: int) -> str:
        if depth > rng.choice((1, 2, 5, 12)):
            return rng.choice((rng.choice(LETTERS), number(rng)[:6], "√2", "x=3", "y>2", "1:2"))
        opening, comma = rng.choice("([{"), rng.choice((", ", ";", ","))
        return opening + comma.join(item(depth + 1) for _ in range(rng.choice((1, 2, 3)))) + rng.choice(")]}")

    pieces = [item(rng.choice((0, 1, 9))) for _ in range(rng.choice((1, 3, 20, 150)))]
    return rng.choice((",", ", ", " and ", " or ", "∪", " U ", "=", "<", "<=", ":", " to ", "\n", ";", " is ", "≈", "±",
                       ", and ")).join(pieces)


def malformed(rng: random.Random) -> str:
    return rng.choice(("", " ")).join(rng.choices(PIECES, k=rng.choice((3, 12, 60, 200))))


def repeated(rng: random.Random) -> str:
    unit = "".join(rng.choices(PIECES, k=rng.choice((1, 1, 2, 3)))) + rng.choice(("", "", " ", "1", "1,", "a", "  "))
    head, count = rng.choice(("", "5 ", "x=", "(")), rng.choice((5, 40, 250, 600, 1900, 10**5))
    return head + unit * count + rng.choice(("", "1", "!", "x", ")", " cm", " A"))


def long_words(rng: random.Random) -> str:
    word = rng.choice(WORDS)
    head = rng.choice(("", "The answer is ", "5 ", "N 5"))
    count = rng.choice((9, 99, 300, 590 // len(word), 2000, 10**5))
    return head + word * count + rng.choice(("", "1", "B", "."))


def mutated(rng: random.Random) -> str:
    text = rng.choice(PAIRS)[rng.choice(("answer", "gold"))]
    for _ in range(rng.choice((1, 2, 5, 20))):
        k, end = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        text = rng.choice((
            text[:k] + rng.choice(PIECES) + text[k:], text[:k] + text[end:],
            text[:end] + text[k:end] * rng.choice((1, 3, 30)) + text[end:],
            text[:k] + rng.choice((number, tower, nested, wide))(rng) + text[end:], f"{text}^{{{number(rng)}}}",
            f"sin({text})"
        ))[:5000]
    return text


KINDS: tuple[Callable[[random.Random], str], ...] = (
    tower, nested, radicals, wide, marked, listed, malformed, repeated, long_words, mutated)


def hostile(count: int, seed: int = 0) -> Iterator[str]:
    """Texts of each kind in turn."""
    rng = random.Random(seed)
    for k in range(count):
        yield KINDS[k % len(KINDS)](rng)


CHOICES = ["14", "30°", "\\sqrt{3}", "B"]
FREE, LIST = (Question("1", "", "", "", "14", (), row={"question_type": "free_form", "answer_type": kind})
              for kind in ("float", "list"))
CHOICE = Question("1", "", "", "", "14", tuple(CHOICES), row={"question_type": "multi_choice", "answer_type": "text"})


def everything(text: str, gold: str) -> list:
    """What every reader of untrusted text makes of this one."""
    return [
        equal(text, gold), equal(gold, text), equal(text, gold, 2), equal(text + " ", text + "+0"),
        mathvista.as_number(text), final_answer(text), final_answer("Answer: " + text), chosen_letter(text, CHOICES),
        chosen_letter("The answer is " + text, CHOICES),
        *(mathvista.extract(question, text) for question in (FREE, LIST, CHOICE)),
        mathvista.extract(FREE, "\\boxed{" + text + "}"), mathvista.extract(FREE, text, "puma")
    ]


def forget() -> None:
    for cached in (values.read, matcher._equal, algebra.value_at, algebra.symbols, algebra.coordinate):
        cached.cache_clear()


def slowest(texts: list[str]) -> tuple[float, str]:
    """Seconds of this process's time, and the text that took them."""
    worst = (0.0, "")
    for k, text in enumerate(texts):
        began = time.process_time()
        everything(text, GOLDS[k % len(GOLDS)])
        worst = max(worst, (time.process_time() - began, text))
    return worst


# what killed or hung a run or took long, a kind each
WORST = [
    "arcsin(sin(10^{200}))", "arctan(tan(10^{300}))", "(a+b+c+d+h+k°)^{60}", "(a+b+c+d+h+k%)^{60}(p+q+r+5%)^{60}",
    "(1+2°+a+b+c+d+x+y+z)^{500}", "sin(e^{(e^{500}+1)^{500}})", "((e^{500}+1)^{500}+1)^{500}", "tan(90°)", "1/sin(π)",
    "(\\sqrt{10^{300}+1}-10^{150})\\cdot10^{500}", "\\sqrt" * 100 + "2", "log_" * 150 + "2", "sin x" * 120, "1/x" * 190,
    ";".join(["cot x%"] * 80), ",".join(f"√{k} x%" for k in range(90)), "∪".join("(1,√2)" for _ in range(80)),
    "ﷺ" * 600, "1 " + "\u2009" * 590 + "cm", "\ud800°", "١٢\0", "\\sqrt[10^{40}]{2}", "(-1)^{x}" * 60, "i^i^i^i",
    "e^{e^{x}}", "(10^{139}+x+y)^{21}=0",
    "(" + "x+1)(" * 110 + "x)", "9" * 40 + "^{" + "9" * 40 + "}", "/".join(["9" * 39] * 14),
    "5 " + "` " * 1900 + ")",
    "60!" * 150, "(60!)^{9}!", "AB=" * 31 + "cot x", "x>" * 290, "∞^{∞}-∞", "x >" + " " * 590 + "y",
    "|" * 300 + "x" + "|" * 299, "\\frac" * 110 + "12",
    "range: " + "{1}{2}^x or " * 45, "N " + "5" * 580 + " E", "x∈{x|x" + "x" * 590 + "}", "1" + ":1" * 290
]


@pytest.mark.parametrize("text", WORST, ids=range(len(WORST)))
def test_the_worst_texts_cost_little_and_are_no_answer(text: str) -> None:
    forget()
    began = time.process_time()
    seen = [everything(text, gold) for gold in GOLDS[:2]]
    assert time.process_time() - began < 1
    assert not any(verdict for verdicts in seen for verdict in verdicts[:3])
    forget()
    with ThreadPoolExecutor(1) as pool:  # where no signal arrives, and after other texts
        assert pool.submit(lambda: [everything(text, gold) for gold in GOLDS[:2]]).result() == seen


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("sin²x + cos²x", "1"), ("\\tan(2)", "-2.185039863"), ("10^{400}", None), ("2\\sqrt{", None), ("e^{2x", None),
        ("sin(2x", None), ("(-∞, 4", None), ("about 5 more people", "5"), ("35^\\circ or so", "35"), ("45°/30°", "1.5"),
        ("1/\\sec(e^{66})", "0.3780540012"), ("week 5", "5"), ("about 1,234 of them", "1234"), ("all but 5", None),
        ("the square root of 16", None), ("5 squared", None), ("10⁶ people", None), ("one less than 6", None),
        ("5 or six", None), ("covid-19", None), ("A4 paper", None), ("none of the 4", None), ("option 3", None),
        ("greater than 5", None), ("at least 5", None), ("5 below zero", None), ("6+ items", None),
        ("5 hundredths", None),
    ],
)
def test_a_number_is_that_of_the_formula_not_one_in_it(answer: str, found: str | None) -> None:
    assert mathvista.as_number(answer) == found


def test_hostile_texts_cost_little() -> None:
    forget()
    seconds, text = slowest(list(hostile(200)))
    assert seconds < 1, text


@pytest.mark.slow
def test_ten_thousand_hostile_texts_cost_little() -> None:
    """Each at most 1 s, and 500 MB together, in a process of their own."""
    run = subprocess.run([sys.executable, __file__, "10000"], capture_output=True, text=True, check=False,
                         env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    assert run.returncode == 0, run.stderr
    seconds, megabytes = map(float, run.stdout.split()[:2])
    assert seconds < 1 and megabytes < 500, run.stdout


def peak() -> float:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main(count: int) -> None:
    texts = list(hostile(count))
    everything("1", "2")
    before = peak()
    seconds, text = slowest(texts)
    print(f"{seconds:.3f} {peak() - before:.1f} (seconds of the slowest of {count}, MB grown)", ascii(text[:100]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
