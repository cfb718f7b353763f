"""From a response to its verdict: how models really end their responses, and what a careful reader would say of each.

answers.jsonl was written down by hand, from the ways in which LLaVA-, Qwen- and GPT-like models end: boxes, bold,
LaTeX, prose, corrections of themselves, several candidates, Chinese, units, intervals in words. A line with `choices`,
or with `gold` alone, opens a group (`question`: how to round, or what a yes answers); the lines below it are responses:
`right` and `wrong` ones, and `of` which the `letter` or the `final` answer must be just this (null: none). `why` is for
people.
"""

import json
import time
from pathlib import Path

import pytest

from evaluation import agreement
from evaluation.answers import final_answer
from evaluation.choices import chosen_letter
from evaluation.generated import same_choice
from evaluation.matcher import decimals_asked, equal

ANGLES = ["40°", "50°", "65°", "90°"]


def groups() -> list[tuple[dict, list[dict]]]:
    """(what is asked, its responses) of answers.jsonl."""
    found: list[tuple[dict, list[dict]]] = []
    for line in Path(__file__).with_name("answers.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.keys() & {"right", "wrong", "of"}:
            found[-1][1].append(row)
        else:
            found.append((row, []))
    return found


def verdict(asked: dict, response: str) -> bool:
    """Whether a response is right, by the rules."""
    if "choices" in asked:
        letter = chosen_letter(response, asked["choices"], asked.get("question", ""))
        return letter is not None and same_choice(letter, asked["gold"], asked["choices"])
    answer = final_answer(response)
    return answer is not None and equal(answer, asked["gold"], decimals_asked(asked.get("question", "")))


@pytest.mark.parametrize(("asked", "rows"), groups(), ids=range(len(groups())))
def test_a_response_is_read_as_a_careful_reader_would(asked: dict, rows: list[dict]) -> None:
    assert [row["right"] for row in rows if "right" in row and not verdict(asked, row["right"])] == [], "refused"
    assert [row["wrong"] for row in rows if "wrong" in row and verdict(asked, row["wrong"])] == [], "accepted"
    letters = {row["of"]: row["letter"] for row in rows if "letter" in row}
    question = asked.get("question", "")
    assert {response: chosen_letter(response, asked["choices"], question) for response in letters} == letters
    finals = {row["of"]: row["final"] for row in rows if "final" in row}
    assert {response: final_answer(response) for response in finals} == finals


MEGABYTES = [
    "(" * 10**6, "Answer: " + "(" * 10**6, "\\boxed{" * 10**5, "answer is " * 10**5, " " * 10**6, "A" * 10**6,
    "\n" * 10**6, "is " * 10**6, "**" * 10**6, "A, B or " * 10**5, "<answer>" * 10**5, "†" * 10**6, "=" * 10**6,
    "1. " * 10**5, "`" * 10**6
]


@pytest.mark.parametrize("response", MEGABYTES, ids=range(len(MEGABYTES)))
def test_a_megabyte_costs_less_than_a_second(response: str) -> None:
    began = time.process_time()
    final_answer(response)
    chosen_letter(response, ANGLES)
    assert time.process_time() - began < 1


PIECES = [
    *"( [ { < \" ' _ * - = . , ; ? ! 。 $ \\( \\[ \\boxed{ \\boxed{1} \\text{ & <| <|x|> </s> </think>".split(),
    *"答案 选 是 answer is to of".split(),
    *"so if neither not A A, (B) option choose wait no because rounded sin inf minus due max".split(),
    *"1 1, 1° 1°1' x {x| ∈ x( M( sin(x)= N3E ℝ => ∴ (x,y)= f(3)= |AB|= S_{ ab: ½ ² ∪ ± : A. B:1 m cm^".split(),
    *("1 000", "x > 1 and ", "x <= 1 ", "1 < x < ", "all real numbers ", "assume that the ", "A or ", "B is correct "),
]


@pytest.mark.parametrize("piece", PIECES)
def test_repetition_costs_no_time(piece: str) -> None:
    """What the patterns look for, over and over: none of them backtracks without bound."""
    for count in (30, 200, 5000):
        for before, after in (("", ""), ("Answer: ", " 14"), ("(1, ", "x")):
            began = time.process_time()
            answer = final_answer(before + piece * count + after)
            chosen_letter(before + piece * count + after, ANGLES)
            equal(answer or "", "domain: [-4, 0) and range: (-3, 1]")
            assert time.process_time() - began < 1


def test_agreement_counts_what_the_official_extraction_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture) -> None:
    questions = {
        "1": {"question": "Which?", "choices": ["5", "10"], "answer": "10", "question_type": "multi_choice",
              "answer_type": "text"},
        "2": {"question": "How many?", "answer": "4", "question_type": "free_form", "answer_type": "integer"}
    }
    said = [  # id, response, official extraction and verdict
        ("1", "The radius is 5. So the diameter is 10.", "B", True), ("1", "It is (A).", "A", False),
        ("1", "Hard to say.", "B", True), ("1", "Hard to say.", "N/A", False), ("1", "It is (B).", "11", True),
        ("2", "There are four cups.", "4", True), ("2", "There are 4 cups.", "5", False), ("2", "", None, False)
    ]
    rows = [{"id": key, "response": response, "official_extraction": extraction, "official_verdict": verdict}
            for key, response, extraction, verdict in said]
    (tmp_path / "testmini.json").write_text(json.dumps(questions), encoding="utf-8")
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["", "--data", str(tmp_path / "testmini.json"), str(tmp_path / "some.jsonl")])
    agreement.main()
    table = capsys.readouterr().out.splitlines()
    assert table[2:6] == [
        "| some | choices | 3 | 66.7 | 100.0 | 50.0 | 0.0 | 33.3 |",
        "| some | choices, not named | 2 | 100.0 | 100.0 | 100.0 | 0.0 | 50.0 |",
        "| some | free | 2 | 50.0 | 50.0 | 100.0 | 100.0 | 0.0 |",
        "| some | free, not named | 1 | 100.0 | – | – | 0.0 | 100.0 |",
    ]
    assert [line.replace("all", "some", 1) for line in table[6:]] == table[2:6]
