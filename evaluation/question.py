"""One row of any benchmark, and how question files and row lists are read."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from errors import UserError


@dataclass(frozen=True)
class Question:
    """What a model is asked and what the scorer needs.

    image: path of the picture, "" where the row has none. text: the question as a judge reads it. cluster: rows of one
    problem share it; the bootstrap draws clusters. groups: {"version": ..., "subject": ...} for the report. row: the
    file's own row.
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
        rows = [rows] if isinstance(rows, dict) and not all(isinstance(row, dict) for row in rows.values()) else rows
        rows = [{"pid": key, **row} for key, row in rows.items()] if isinstance(rows, dict) else rows
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


def questions_of(path: str | Path, read: Callable[[dict, Callable[[str], object]], Question]) -> list[Question]:
    """`read(row, need)` of each row, where need(key) is row[key], or a UserError that says which file and row lack it.
    UserError where two rows share an id.
    """

    def need(number: int, row: dict, key: str) -> object:
        if key not in row:
            raise UserError(f"{path}: row {number} has no {key!r}; is this the file of another benchmark?")
        return row[key]

    questions = [read(row, partial(need, number, row)) for number, row in enumerate(read_rows(path), 1)]
    twice = [key for key, count in Counter(question.id for question in questions).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {len(twice)} ids stand twice, e.g. {', '.join(twice[:3])}; each row needs its own")
    return questions


def image_path(image_root: str | Path, image: str) -> str:
    """Where a row's picture lies; "" for a row without one."""
    return str(Path(image_root) / image) if image else ""


def snake(name: str) -> str:
    """ "Text Dominant" → "text_dominant"."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")
