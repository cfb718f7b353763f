"""One row of any benchmark, and how question files and row lists are read."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from errors import UserError


@dataclass(frozen=True)
class Question:
    """What a model is asked and what the scorer needs.

    image: path of the picture, "" where the row has none. text: the question as a judge reads it, "" where neither the
    row nor a sibling states it. cluster: rows of one problem share it; the bootstrap draws clusters. groups:
    {"version": ..., "subject": ...} for the report. row: the file's own row.
    """

    id: str
    prompt: str
    image: str
    text: str
    answer: str
    choices: tuple[str, ...] = ()
    cluster: str = ""
    groups: dict = field(default_factory=dict)
    row: dict = field(default_factory=dict)


def read_rows(path: str | Path) -> list[dict]:
    """Rows of a JSON list, of a JSON object of rows, or of JSON lines. UserError names the file and the line."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; --data names the benchmark's question file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text; --data wants the benchmark's JSON or JSONL file") from error
    try:
        rows = json.loads(text)
        if isinstance(rows, dict):  # MathVista's rows by their pid, or a single row
            by_pid = all(isinstance(row, dict) for row in rows.values())
            rows = [{"pid": key, **row} for key, row in rows.items()] if by_pid else [rows]
    except (ValueError, RecursionError):  # JSON lines, or what no JSON reader takes: a number of 5,000 digits
        rows = [_line(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: no rows; expected a JSON list of objects, an object of objects, or JSON lines")
    return rows


def _line(path: Path, number: int, line: str) -> dict:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or error
        raise UserError(f"{path}:{number}: not JSON ({reason}); fix or remove the line") from error


@dataclass(frozen=True)
class Fields:
    """A row of a question file, read key by key. A value of the wrong type is a UserError that names file, row and
    key. where: "testmini.json: row 3".
    """

    where: str
    row: dict

    def text(self, key: str, default: str | None = None) -> str:
        """A text, or a number as its text; the default where the key is absent or null, an error without a default."""
        value = self.row.get(key)
        if value is None and default is not None:
            return default
        if key not in self.row:
            raise UserError(f"{self.where} has no {key!r}; is this the file of another benchmark?")
        text = self._text(value, key)
        if default is None and not text.strip():
            raise self.wrong(key, value, "a text that says something")
        return text

    def one_of(self, key: str, allowed: Sequence[str], default: str | None = None) -> str:
        """A text that must be one of these; the default where the key is absent or null."""
        value = self.text(key, default)
        if value != default and value not in allowed:
            raise self.wrong(key, value, " or ".join(map(repr, allowed)))
        return value

    def texts(self, key: str, most: int | None = None) -> tuple[str, ...]:
        """A list of texts or numbers; none where the key is absent or null."""
        values = self.row.get(key)
        if values is None:
            return ()
        if not isinstance(values, list):
            raise self.wrong(key, values, "a list of texts")
        if most is not None and len(values) > most:
            raise self.wrong(key, values, f"at most {most} texts, one for each letter")
        return tuple(self._text(value, key) for value in values)

    def whole(self, key: str) -> int | None:
        """A whole number, also as its text; None where the key is absent, null or empty."""
        value = self.row.get(key)
        if value is None or value == "":
            return None
        text = str(value).strip().removesuffix(".0")
        if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,3}", text):
            raise self.wrong(key, value, "a whole number from 0 to 999")
        return int(text)

    def fields(self, key: str) -> "Fields":
        """The object under a key; an empty one where it is absent or null."""
        value = self.row.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(key, value, "an object")
        return Fields(f"{self.where}, in {key!r}", value or {})

    def wrong(self, key: str, value: object, wanted: str) -> UserError:
        """The error for a value of the wrong kind."""
        shown = json.dumps(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return UserError(f"{self.where}: {key!r} is {shown}; make it {wanted}")

    def _text(self, value: object, key: str) -> str:
        text = as_text(value)
        if text is None:
            raise self.wrong(key, value, "text")
        if re.search(r"[\0\ud800-\udfff]", text):
            raise self.wrong(key, value, "text without NUL and lone surrogates, which no prompt can hold")
        return text


def as_text(value: object) -> str | None:
    """A text, or a number as its text; None for anything else."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return str(value) if number or isinstance(value, str) else None


def questions_of(path: str | Path, read: Callable[[Fields], Question]) -> list[Question]:
    """`read` of each row, where a row that states no question of its own is judged by a sibling's. UserError where two
    rows share an id.
    """
    questions = [read(Fields(f"{path}: row {number}", row)) for number, row in enumerate(read_rows(path), 1)]
    twice = [key for key, count in Counter(question.id for question in questions).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {len(twice)} ids stand twice, e.g. {', '.join(twice[:3])}; each row needs its own")
    return with_siblings(questions)


def with_siblings(questions: list[Question]) -> list[Question]:
    """Give each row without a text the longest text of its problem, and that row's choices where it has none itself.

    The question of a vision-only row stands in its picture, where no judge can read whether and how the answer is to
    be rounded.
    """
    longest: dict[str, Question] = {}
    for question in questions:
        key = question.cluster or question.id
        longest[key] = max(longest.get(key, question), question, key=lambda row: len(row.text))

    def filled(question: Question) -> Question:
        sibling = longest[question.cluster or question.id]
        return replace(question, text=sibling.text, choices=question.choices or sibling.choices)

    return [question if question.text else filled(question) for question in questions]


def image_path(image_root: str | Path, image: str) -> str:
    """Where a row's picture lies; "" for a row without one."""
    return str(Path(image_root) / image) if image else ""


def snake(name: str) -> str:
    """ "Text Dominant" → "text_dominant"."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")
