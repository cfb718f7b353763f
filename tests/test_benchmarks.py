"""Benchmark questions are known by their words, whatever stands around them."""

import collections
import re
from pathlib import Path

import pytest

import benchmarks
from augment.benchmarks import add
from benchmarks import benchmark_of, question_hash
from sources import BadRow

QUESTION = "In the triangle KLM, angle K = 41.0° and KL parallel NP. What is the size of the angle LMP?"
SAME = [
    QUESTION + "\nChoices:\nA:41°\nB:82°",
    QUESTION + "\n(A) 41 (B) 82",
    f"<image>\nHint: Answer with a letter at the end.\nQuestion: {QUESTION}\nChoices:\n(A) 41\n(B) 82",
    f"\nFirst reason, then choose in the following format: Answer: xxx.\nQuestion:{QUESTION}\nOptions:\nA. 41",
    "in triangle KLM,  ∠K = 41 and KL ∥ NP,what is size of ∠LMP",
    QUESTION.replace("angle K = 41.0°", r"$\text{angle } K = 41^\circ$".replace(r"^\circ", "")),
]
OTHER = [QUESTION.replace("41.0", "43"), QUESTION.replace("LMP", "LMN"), "Find the angle LMP."]


def test_a_question_is_known_in_every_dress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "known", lambda: {question_hash(QUESTION): "MathVerse"})
    assert [benchmark_of(question) for question in SAME] == ["MathVerse"] * len(SAME)
    assert [benchmark_of(question) for question in OTHER] == [None] * len(OTHER)


def test_a_question_that_says_nothing_without_its_picture_is_in_no_benchmark() -> None:
    for question in ("", "Find x.", "What is the area of the shaded part?", "How many bars are larger than 40?",
                     "What is the difference between the largest and the smallest value in the chart?"):
        assert question_hash(question) is None


def test_the_file_holds_hashes_of_four_benchmarks_and_no_text() -> None:
    lines = Path(benchmarks.__file__).with_name("benchmarks.txt").read_text().splitlines()
    heads = [re.fullmatch(r"# ([\w-]+): (\d+) questions", line) for line in lines if line.startswith("#")]
    counts = {head[1]: int(head[2]) for head in heads}
    assert counts == collections.Counter(benchmarks.known().values())
    assert counts.keys() == {"MathVerse", "MathVista", "We-Math", "MATH-Vision"} and min(counts.values()) > 100
    assert all(re.fullmatch("[0-9a-f]{16}", line) for line in lines if not line.startswith("#"))


def test_rows_are_added_by_their_keys() -> None:
    known: dict[int, str] = {}
    add(known, {"id": "1", "question": QUESTION, "options": [], "answer": "5", "level": 2, "subject": "algebra"})
    vista = {"pid": "1", "metadata": {}, "question_type": "free_form", "precision": 1}
    add(known, {**vista, "question": QUESTION})
    add(known, {**vista, "question": "Find x."})
    assert known == {question_hash(QUESTION): "MATH-Vision"}
    with pytest.raises(BadRow, match="not those of a benchmark"):
        add(known, {"question": QUESTION, "answer": "5"})
