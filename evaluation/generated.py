"""The bench that gen_data.py writes beside its training data: held-out problems, each in up to six versions.

Rows: id, problem_id, version, image_url, instruction, question, choices, answer, category, family. A vision-only row
without a question of its own is judged by the problem's longest. The protocol changes nothing here. `all` pools the
versions with a picture, as MathVerse does; text-only stands apart.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from evaluation import metrics
from evaluation.answers import final_answer
from evaluation.choices import LETTERS, chosen_letter, in_range
from evaluation.matcher import decimals_asked, equal
from evaluation.question import Fields, Question, image_path, questions_of, snake

NAME = "generated"
LLM_EXTRACTION = LLM_VERDICT = True  # whether --judge has these two steps to do
TITLE = "Generated bench"


def load(path: str, image_root: str = "", protocol: str = "official") -> list[Question]:
    """Rows of bench.jsonl; pictures lie relative to the file's own folder unless image_root says otherwise."""
    root = image_root or Path(path).parent

    def read(row: Fields) -> Question:
        key, instruction, version = row.text("id"), row.text("instruction"), row.text("version", "text-only")
        text = row.text("question", "").strip() or instruction
        if snake(version) == "vision_only" and text.strip() == instruction.strip():
            text = ""  # all that this says is that the question stands in the picture
        groups = {"version": version} | {name: row.text(name, "") for name in ("category", "family")}
        return Question(key, instruction, image_path(root, row.text("image_url", "")), text, row.text("answer"),
                        row.texts("choices", len(LETTERS)), row.text("problem_id", key), groups, row.row)

    return questions_of(path, read)


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
    first, second = LETTERS.index(letter), LETTERS.index(right)
    return letter == right or (bool(choices) and choices[first].strip() == choices[second].strip())


def gold_letter(gold: str, choices: list[str]) -> str | None:
    """The gold choice's letter; None for a gold that is none of the choices (a broken row)."""
    bare = gold.strip().strip("()")
    if len(bare) == 1 and bare in LETTERS and in_range(bare, choices) and gold not in choices:
        return bare
    same = (letter for letter, choice in zip(LETTERS, choices, strict=False) if choice.strip() == gold.strip())
    return next(same, None)


def cluster_sums(cluster: list[Question], verdicts: Mapping[str, bool]) -> metrics.Sums:
    """Right answers and rows: per version, and of those with a picture overall, per category and family."""
    sums: metrics.Sums = {}
    for question in cluster:
        version, category, family = (snake(question.groups[name]) for name in ("version", "category", "family"))
        seen = ["all", f"category.{category}", f"family.{family}"] if version != "text_only" else []
        for name in (version, *seen):
            metrics.add(sums, name, float(verdicts[question.id]))
    return sums


derive = metrics.across_versions


def most_frequent_answer(questions: list[Question]) -> dict[str, float]:
    """Percent right for always giving a family's most frequent answer: {"all": ..., family: ...}, {} without rows.

    A score must beat this, so it counts the same rows as `all` and `family.*`: those with a picture.
    """
    counts: dict[str, Counter] = {}
    for question in questions:
        if snake(question.groups["version"]) != "text_only":
            counts.setdefault(question.groups["family"], Counter())[question.answer] += 1
    if not counts:
        return {}
    right = {family: max(answers.values()) for family, answers in counts.items()}
    rows = {family: answers.total() for family, answers in counts.items()}
    return {"all": 100 * sum(right.values()) / sum(rows.values()),
            **{family: 100 * right[family] / rows[family] for family in counts}}
