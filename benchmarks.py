"""Questions of the benchmarks, known by their content: nothing may train on them, whatever keys its file has.

    benchmark_of("As shown in the figure, ...")       # "MathVerse", or None

benchmarks.txt holds 64-bit hashes of the questions, no text; `python -m augment.benchmarks FILE...` made it and adds to
it. A question that says little without its picture ("Find x.", "How old are these two?") stands in many sets and is
not among them: one is known by its own data.
"""

import functools
import hashlib
import re
import unicodedata
from pathlib import Path

SHORTEST = 40  # bytes of a key: what is shorter is nobody's own question
SHORTEST_IN_WORDS = 120  # of a key without a digit
SIGNS = {"∠": "angle", "△": "triangle", "⊙": "circle", "∥": "parallel", "//": "parallel", "⊥": "perpendicular",
         "≅": "congruent", "°": ""}
_SIGN = re.compile("|".join(SIGNS))
_PROMPT = re.compile(r"(?:^|\n)[ \t]*question[ \t]*:", re.IGNORECASE)  # "Answer with a letter.\nQuestion: ..."
_CHOICES = re.compile(r"\n[ \t]*(?:(?:choices|options)\b|\(?a[ \t]*[).:、.])", re.IGNORECASE)
_WORD = re.compile(r"\\(?:left|right|text|mathrm|d?frac)(?![a-z])|<image ?\d*>|[^\W\d_]+|\d+(?:\.\d+)?")
_NOT_COUNTED = {"the", "a", "an", "degree", "degrees"}


def question_key(question: str) -> str:
    """The letters and digits of a question, without a prompt before it, its choices, and how its signs are written."""
    stem = _CHOICES.split(_PROMPT.split(question, maxsplit=1)[-1], maxsplit=1)[0]
    text = unicodedata.normalize("NFKC", _SIGN.sub(lambda sign: f" {SIGNS[sign[0]]} ", stem)).lower()
    words = (word for word in _WORD.findall(text) if word[0] not in "\\<" and word not in _NOT_COUNTED)
    return "".join(re.sub(r"\.0+$", "", word) if "." in word else word for word in words)


def question_hash(question: str) -> int | None:
    """64 bits of a question's key; None where it says too little to be told from others."""
    key = question_key(question)
    coded = key.encode(errors="replace")
    if len(coded) < (SHORTEST if any(map(str.isdigit, key)) else SHORTEST_IN_WORDS):
        return None
    return int.from_bytes(hashlib.blake2b(coded, digest_size=8).digest(), "big")


@functools.cache
def known() -> dict[int, str]:
    """The benchmark of each hash in benchmarks.txt: "# NAME: ..." lines, each followed by its hashes."""
    name, hashes = "", {}
    for line in Path(__file__).with_name("benchmarks.txt").read_text().splitlines():
        if line.startswith("#"):
            name = line[2:].partition(":")[0]
        else:
            hashes[int(line, 16)] = name
    return hashes


def benchmark_of(question: str) -> str | None:
    """The benchmark that a question stands in, or None."""
    return known().get(question_hash(question))
