"""MathVista testmini: 1,000 questions. The official scorer is a program, and `normalize` follows it.

Multiple choice: a letter in brackets, else exactly one capital letter, else the choice nearest in edit distance (the
first of equals). Integers pass through int(float()), floats through round(float(), precision), lists are compared as
text. Two rows (168, 849) have choices such as "(c)", so the gold text itself is read as a letter there: only the
letter scores. MathVista may not be trained on (its licence says so): data.py never reads it.
"""

import re
from collections.abc import Mapping, Sequence

from evaluation import metrics, values
from evaluation.algebra import NotMath, real, whole
from evaluation.answers import final_answer, tidy
from evaluation.choices import LETTERS, chosen_letter
from evaluation.mathverse import segment
from evaluation.question import Fields, Question, image_path, questions_of, snake

NAME = "mathvista"
LLM_EXTRACTION, LLM_VERDICT = True, False  # the verdict is always the program's
TITLE = "MathVista testmini"
TASKS = {
    "figure question answering": "FQA", "geometry problem solving": "GPS", "math word problem": "MWP",
    "textbook question answering": "TQA", "visual question answering": "VQA"
}
SKILLS = {
    "arithmetic reasoning": "ARI", "statistical reasoning": "STA", "algebraic reasoning": "ALG",
    "geometry reasoning": "GEO", "numeric commonsense": "NUM", "scientific reasoning": "SCI", "logical reasoning": "LOG"
}
FORMS = ("integer", "float", "list")
OF_THE_ROW = ("question_type", "answer_type")
OTHER_GROUPS = (*OF_THE_ROW, "category", "source", "context", "grade", "language")
PUMA_HINT = "Hint: Please answer the question and provide the final answer at the end."


def load(path: str, image_root: str = "", protocol: str = "official") -> list[Question]:
    """Rows of testmini.json (an object by pid)."""

    def read(row: Fields) -> Question:
        metadata, text, answer = row.fields("metadata"), row.text("question"), row.text("answer")
        kind = row.one_of("question_type", ("multi_choice", "free_form"), "free_form")
        form = row.one_of("answer_type", FORMS if kind == "free_form" else (*FORMS, "text"), "list")
        sound = {"question": text, "choices": row.texts("choices", len(LETTERS)), "unit": row.text("unit", ""),
                 "precision": row.whole("precision"), "question_type": kind, "answer_type": form}
        if not isinstance(row.row["answer"], str):  # a number stands as `normalize` writes it
            answer = normalize(answer, None, kind, form, sound["precision"]) or answer
        prompt = f"{PUMA_HINT}\nQuestion: {text}" if protocol == "puma" else row.text("query", "") or query(sound)
        groups = {"task": metadata.text("task", ""), "skills": metadata.texts("skills")}
        groups |= {name: (row if name in OF_THE_ROW else metadata).text(name, "") for name in OTHER_GROUPS}
        return Question(row.text("pid"), prompt, image_path(image_root, row.text("image", "")), text, answer,
                        sound["choices"], groups=groups, row={**row.row, **sound})

    return questions_of(path, read)


def query(row: dict) -> str:
    """The prompt: hint, question with its unit, choices; as the benchmark's query.json has them."""
    unit = f" (Unit: {row['unit']})" if row["unit"] else ""
    lines = [f"Hint: {hint(row)}", f"Question: {row['question']}{unit}"]
    if row["choices"]:
        lines += ["Choices:", *(f"({chr(65 + k)}) {choice}" for k, choice in enumerate(row["choices"]))]
    return "\n".join(lines)


def hint(row: dict) -> str:
    """What form of answer a row asks for."""
    if row["question_type"] == "multi_choice":
        return "Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."
    kind = row["answer_type"]
    if kind == "float":
        kind = "float1" if row["precision"] == 1 else "float2"
    what, form = {
        "integer": ("an integer answer", "value, e.g., 1, 2, 3"),
        "float1": ("a floating-point number with one decimal place", "value, e.g., 1.2, 1.3, 1.4"),
        "float2": ("a floating-point number with two decimal places", "value, e.g., 1.23, 1.34, 1.45"),
        "list": ("a Python list as an answer", "list, e.g., [1, 2, 3], [1.2, 1.3, 1.4]"),
    }[kind]
    return f"Please answer the question requiring {what} and provide the final {form}, at the end."


# -----------------------------------------------------------------------------
# extraction: the official shortcuts, then rules where the official script asks an LLM


def extract(question: Question, response: str, protocol: str = "official") -> str | None:
    """A letter, a number or a list as text; None where none is found."""
    text = tidy(response)
    if question.choices and text.strip() in question.choices:
        return text.strip()
    found = None
    if match := re.search(r'The answer is "(.*)"\.', text):
        found = match.group(1)
    elif question.choices:
        found = chosen_letter(segment(text) if protocol == "puma" else text, list(question.choices), question.text)
    elif question.row.get("answer_type") == "list":
        lists = re.findall(r"\[[^\[\]]*\]", text)
        found = "[" + ", ".join(item.strip() for item in lists[-1][1:-1].split(",")) + "]" if lists else None
    else:
        found = as_number(final_answer(segment(text) if protocol == "puma" else text))
    return found.lower() if found and protocol == "puma" else found  # the released scripts lower-case every extraction


def as_number(answer: str | None) -> str | None:
    """ "$1,200.50", "14 cm", "3/4" → "1200.5", "14", "0.75"; of "5 more people", words around one number, the number;
    None for what has none or several.
    """
    if answer is None:
        return None
    try:
        value = values.read(answer)
        if isinstance(value, values.Relation) and value.name:
            value = value.right
        number = real(value.readings[0][0]) if isinstance(value, values.Quantity) else None
        if number is not None and abs(number) < 1e300:
            return str(whole(number)) if whole(number) is not None else f"{float(number):.10g}"
    except NotMath:
        return None
    return number_in_words(answer) if isinstance(value, values.Words) else None


NOT_ONE_NUMBER = re.compile(  # another number word, a word that changes the number or makes it a label, a formula
    rf"\b(?:{'|'.join(values.NUMBER_WORDS)}|not?|none|never|but|except|without|half|third|quarter|tenths|hundredths|twice"
    r"|double|dozen|score|hundred|thousand|mln|million|billion|squared?|cubed?|root|sum of|product of)\b"
    r"|\b(?:at (?:least|most)|(?:(?:more|less|fewer|greater) than|above|below|under|over) (?:\D{,9}\d|zero)"
    r"|(?:option|choice|step|row|column|page|question|figure) \d)|[A-Za-z]-?\d|\d[*/!+]|[√∞π<>≤≥⁰¹²³⁴-⁹]"
    r"|\^(?!\{?\s*\\circ)|\\(?:frac|sqrt|pi|infty|sin|cos|tan|log|ln)|(?:sin|cos|tan|log|ln|exp|sqrt)\s*[\d(^_]", re.I
)


def number_in_words(text: str) -> str | None:
    """The one number of a phrase; None where there are several, words that change it, or a formula."""
    if NOT_ONE_NUMBER.search(text):
        return None
    found = re.findall(r"-?\d+(?:[.,]\d+)*", re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text))
    return found[0] if len(found) == 1 and re.fullmatch(r"-?\d{1,15}(?:\.\d{1,15})?", found[0]) else None


# -----------------------------------------------------------------------------
# the official normalisation


def edit_distance(a: str, b: str) -> int:
    """Levenshtein's distance: insertions, deletions and substitutions, each one."""
    if a == b:
        return 0
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def bracketed_letter(text: str) -> str:
    """The first letter in brackets, in upper case; the text itself where there is none."""
    match = re.search(r"\(([a-zA-Z])\)", text)
    return match.group(1).upper() if match else text


def normalize(extraction: str | None, choices: Sequence[str] | None, question_type: str, answer_type: str,
              precision: float | None) -> str | None:
    """What the official scorer compares with the gold answer; None where it gives up.

    An empty extraction of a multiple-choice row, which only a file made elsewhere can give, goes to the nearest choice
    too (the shortest), as in the official default; an empty response is no answer here.
    """
    if extraction is None:
        return None
    if question_type == "multi_choice" and choices:
        text = bracketed_letter(extraction.strip()[:2000])
        lettered = {chr(65 + k): choice for k, choice in enumerate(choices)}
        return lettered[text] if text in lettered else min(choices, key=lambda choice: edit_distance(text, choice))
    try:
        if answer_type == "integer":
            return str(int(float(extraction)))
        if answer_type == "float":
            return str(round(float(extraction), int(precision or 0)))
        return str(extraction)
    except (ValueError, OverflowError):
        return None


def judge(question: Question, extraction: str | None, protocol: str = "official") -> bool:
    """Whether the normalised extraction is the gold answer, letter for letter."""
    row = question.row
    prediction = normalize(extraction, question.choices, row.get("question_type", ""), row.get("answer_type", ""),
                           row.get("precision"))
    return prediction is not None and prediction == question.answer


def gold_extraction(question: Question) -> str:
    """The extraction of a perfect model: the letter where the row has choices, else the answer."""
    return LETTERS[question.choices.index(question.answer)] if question.answer in question.choices else question.answer


def cluster_sums(cluster: list[Question], verdicts: Mapping[str, bool]) -> metrics.Sums:
    """Right answers and rows: all, per task and skill (a row counts once in each of its skills), and per other
    group.
    """
    sums: metrics.Sums = {}
    for question in cluster:
        groups = question.groups
        names = ["all", TASKS.get(groups["task"], snake(groups["task"]))]
        names += [SKILLS.get(skill, snake(skill)) for skill in groups["skills"]]
        names += [f"{kind}.{snake(groups[kind])}" for kind in OTHER_GROUPS if groups[kind]]
        for name in names:
            metrics.add(sums, name, float(verdicts[question.id]))
    return sums


def derive(scores: metrics.Scores) -> metrics.Scores:
    """Nothing is derived here."""
    return {}
