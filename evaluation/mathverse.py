"""MathVerse testmini: 788 problems in five versions with a picture, and the same 788 as text only (a file of its own).

ALL pools the five versions with a picture; Text Only is never part of it. A Vision Only row has no question of its
own, so judging reads `question_for_eval`, else the problem's longest question. Some golds are dirty (118掳T,
`Circumference $=50.27 \\mathrm{~cm}$`, "(C)", choices by text); the matcher reads them. official asks with `query_wo`
(answer directly), puma with `query_cot`, as the paper did.
"""

import re
from collections.abc import Mapping

from evaluation import metrics
from evaluation.answers import final_answer
from evaluation.choices import LETTERS, chosen_letter
from evaluation.generated import same_choice
from evaluation.matcher import decimals_asked, equal
from evaluation.question import Fields, Question, image_path, questions_of, snake

NAME = "mathverse"
LLM_EXTRACTION = LLM_VERDICT = True
TITLE = "MathVerse testmini"
CHOICE = re.compile(r"^\s*([A-Z])\s*[.:：、)]\s*(.*?)\s*$")
SEGMENT = re.compile(r"(?:answer:|therefore,|so,|thus,)", re.I)


def load(path: str, image_root: str = "", protocol: str = "official") -> list[Question]:
    """Rows of testmini.json or testmini_text_only.json."""
    query = "query_cot" if protocol == "puma" else "query_wo"

    def read(row: Fields) -> Question:
        metadata = row.fields("metadata")
        question, for_eval = row.text("question", "").strip(), row.text("question_for_eval", "").strip()
        text = for_eval or question
        kind = row.one_of("question_type", ("multi-choice", "free-form"), "free-form")
        choices = parse_choices(text) if kind == "multi-choice" else ()
        if len(choices) > len(LETTERS):
            key = "question_for_eval" if for_eval else "question"
            raise row.wrong(key, text, f"a question with at most {len(LETTERS)} choices")
        groups = {"version": row.text("problem_version")}
        groups |= {name: metadata.text(name, "") for name in ("subject", "subfield")}
        key = row.text("sample_index")
        return Question(key, row.text(query), image_path(image_root, row.text("image", "")), text, row.text("answer"),
                        choices, row.text("problem_index", key), groups, row.row)

    return questions_of(path, read)


def parse_choices(text: str) -> tuple[str, ...]:
    """The choices after "Choices:" or "Choice:", in order from A; an empty one keeps its place."""
    pieces = re.split(r"\bchoices?\s*:?\s*\n", text, maxsplit=1, flags=re.I)
    choices: list[str] = []
    for line in pieces[1].split("\n") if len(pieces) == 2 else ():
        match = CHOICE.match(line)
        if match and match.group(1) == chr(ord("A") + len(choices)):
            choices.append(match.group(2))
    return tuple(choices)


def segment(response: str) -> str:
    """What the paper's scripts judge: the text after the last dagger, else after the last "answer:", "therefore,"
    "so," or "thus,".
    """
    if "†" in response:
        return response.rsplit("†", 1)[1].strip()
    ends = [match.end() for match in SEGMENT.finditer(response)]
    return response[ends[-1] :].strip() if ends else response


def extract(question: Question, response: str, protocol: str = "official") -> str | None:
    """The letter of the choice, or the final answer; None where there is none."""
    text = segment(response) if protocol == "puma" else response
    if question.row.get("question_type") == "multi-choice":
        return chosen_letter(text, list(question.choices))
    return final_answer(text)


def judge(question: Question, extraction: str | None, protocol: str = "official") -> bool:
    """Whether an extraction is the gold answer, by rules."""
    if extraction is None:
        return False
    if question.row.get("question_type") == "multi-choice":
        return same_choice(extraction, question.answer, list(question.choices))
    return equal(extraction, question.answer, decimals_asked(question.text))


def cluster_sums(cluster: list[Question], verdicts: Mapping[str, bool]) -> metrics.Sums:
    """Right answers and rows: ALL, per version, per subject and subfield over the five versions with a picture, and
    per subject and subfield of text-only.
    """
    sums: metrics.Sums = {}
    for question in cluster:
        version, subject, subfield = (snake(question.groups[name]) for name in ("version", "subject", "subfield"))
        before, pooled = ("text_only.", []) if version == "text_only" else ("", ["all"])
        for name in (version, *pooled, f"{before}{subject}", f"{before}{subject}.{subfield}"):
            metrics.add(sums, name, float(verdicts[question.id]))
    return sums


derive = metrics.across_versions
