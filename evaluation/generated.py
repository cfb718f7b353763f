"""The bench that gen_data.py writes beside its training data: held-out problems, each in up to six versions.

Rows: id, problem_id, version, image_url, instruction, question, choices, answer, category, family. The protocol
changes nothing here. `all` pools the versions with a picture, as MathVerse does; text-only stands apart.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from evaluation import metrics
from evaluation.answers import LETTERS, chosen_letter, final_answer, in_range
from evaluation.matcher import decimals_asked, equal
from evaluation.question import Question, check_unique, field_of, image_path, read_rows, snake

NAME = "generated"
LLM_EXTRACTION = LLM_VERDICT = True  # whether --judge has these two steps to do
TITLE = "Generated bench"


def load(path: str, image_root: str = "", protocol: str = "official") -> list[Question]:
    """Rows of bench.jsonl; pictures lie relative to the file's own folder unless image_root says otherwise."""
    root = image_root or Path(path).parent
    questions = []
    for number, row in enumerate(read_rows(path), 1):
        instruction, answer = field_of(row, "instruction", path, number), str(field_of(row, "answer", path, number))
        questions.append(Question(
                             id=str(field_of(row, "id", path, number)),
                             prompt=instruction,
                             image=image_path(root, row.get("image_url") or ""),
                             text=row.get("question") or instruction,
                             answer=answer,
                             choices=tuple(row.get("choices") or ()),
                             cluster=str(row.get("problem_id") or row["id"]),
                             row=row,
                             groups={
                                 "version": row.get("version", "text-only"),
                                 "category": row.get("category", ""),
                                 "family": row.get("family", ""),
                             },
                         ))
    check_unique(questions, path)
    return questions


def extract(question: Question, response: str, protocol: str = "official") -> str | None:
    """The letter of the choice, or the final answer; None where there is none."""
    return chosen_letter(response, list(question.choices)) if question.choices else final_answer(response)


def judge(question: Question, extraction: str | None, protocol: str = "official") -> bool:
    """Whether an extraction is the row's answer, by rules."""
    if extraction is None:
        return False
    if question.choices:
        return same_choice(extraction, question.answer, list(question.choices))
    return equal(extraction, question.answer, decimals_asked(question.text))


def same_choice(extraction: str, gold: str, choices: list[str]) -> bool:
    """Whether the extraction names the gold choice; gold is a letter, a letter in brackets, or a choice's text."""
    letter, right = chosen_letter(extraction, choices), gold_letter(gold, choices)
    if letter is None or right is None:
        return False
    return letter == right or (
        bool(choices) and choices[LETTERS.index(letter)].strip() == choices[LETTERS.index(right)].strip()
    )


def gold_letter(gold: str, choices: list[str]) -> str | None:
    """The gold choice's letter; None for a gold that is none of the choices (a broken row)."""
    bare = gold.strip().strip("()")
    if len(bare) == 1 and bare in LETTERS and in_range(bare, choices) and gold not in choices:
        return bare
    return next(
        (letter for letter, choice in zip(LETTERS, choices, strict=False) if choice.strip() == gold.strip()), None
    )


def cluster_sums(cluster: list[Question], verdicts: Mapping[str, bool]) -> metrics.Sums:
    """Right answers and rows: overall, per version, category and family, and per version of each category."""
    sums: metrics.Sums = {}
    for question in cluster:
        if question.id not in verdicts:
            continue
        version, right = snake(question.groups["version"]), float(verdicts[question.id])
        metrics.add(sums, version, right)
        if version != "text_only":
            names = ("all", f"category.{snake(question.groups['category'])}",
                     f"family.{snake(question.groups['family'])}")
            for name in names:
                metrics.add(sums, name, right)
    return sums


derive = metrics.across_versions


def most_frequent_answer(questions: list[Question]) -> dict[str, float]:
    """Percent right for always giving a family's most frequent answer: {"all": ..., family: ...}, {} without rows. What
    a score must beat, so of the rows that `all` and `family.*` count: those with a picture.
    """
    counts: dict[str, Counter] = {}
    for question in questions:
        if snake(question.groups["version"]) != "text_only":
            counts.setdefault(question.groups["family"], Counter())[question.answer] += 1
    if not counts:
        return {}
    best = {family: answers.most_common(1)[0][1] for family, answers in counts.items()}
    rows = {family: answers.total() for family, answers in counts.items()}
    return {
        "all": 100 * sum(best.values()) / sum(rows.values()),
        **{family: 100 * best[family] / rows[family] for family in counts},
    }
