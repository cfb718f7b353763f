"""Answers on disk: JSON lines keyed by row id, written as they come, safe against kill -9, checked when read."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from common.files import file_ends, read_json, write_atomically
from errors import UserError
from evaluation.question import Question, as_text, read_rows

GIVEN = ("id", "response", "extraction", "error", "finish_reason")  # of a row made elsewhere


def read_lines(path: Path) -> list[dict]:
    """Rows of a JSONL file of our own, without a last line that a kill cut off. UserError for any other broken line."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is unfinished, or empty
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: not JSON ({error.msg}); "
                            "remove the line, its row is asked again") from error
        if not isinstance(row, dict) or "id" not in row:
            raise UserError(f"{path}:{number}: no 'id'; remove the line, its row is asked again")
        rows.append(row)
    return rows


def parts(folder: Path, stem: str) -> list[Path]:
    """The files that hold one kind of answers: stem.jsonl, and stem-0003.jsonl of the other ranks."""
    return sorted([*folder.glob(f"{stem}.jsonl"), *folder.glob(f"{stem}-[0-9]*.jsonl")])


def read_parts(folder: Path, stem: str) -> dict[str, dict]:
    """{id: row} of all parts; a later answer replaces an earlier error row of the same id."""
    rows: dict[str, dict] = {}
    for path in parts(folder, stem):
        for row in read_lines(path):
            if row["id"] not in rows or "error" in rows[row["id"]]:
                rows[row["id"]] = row
    return rows


@contextmanager
def appender(path: Path) -> Iterator[TextIO]:
    """The file, open to append whole lines; an unfinished last line is cut off first."""
    if path.exists():
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)
    with open(path, "a", encoding="utf-8", errors="replace") as file:
        yield file


def write_row(file: TextIO, row: dict) -> None:
    """One row, flushed: it survives a kill of this process."""
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    file.flush()


def write_rows(path: Path, rows: Iterable[dict]) -> None:
    """A whole file at once, in place of what was there."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_given(path: str) -> dict[str, dict]:
    """Answers made elsewhere: JSONL (or a JSON list) rows with `id` and `response`, or `extraction`, or `error`. A key
    that is null counts as absent.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; --predictions wants JSONL rows with id and response")
    rows: dict[str, dict] = {}
    twice = []
    for number, row in enumerate(read_rows(path), 1):
        if row.get("id") is None:
            raise UserError(f'{path}: row {number} has no \'id\'; rows are {{"id": ..., "response": ...}}')
        error = row.get("error") or None  # "" and false are none either
        error = error if error is None or isinstance(error, str) else json.dumps(error)  # servers give objects, too
        row = {key: value for key, value in {**row, "error": error}.items() if key in GIVEN and value is not None}
        for key, value in row.items():
            if (text := as_text(value)) is None:
                raise UserError(f"{path}: row {number}: {key!r} is {json.dumps(value)[:60]}; make it text")
            row[key] = text
        if not row.keys() & {"response", "extraction", "error"}:
            raise UserError(f"{path}: row {number} (id {row['id']}) has no 'response' text; write \"\" for an answer "
                            "that says nothing, an 'error' for a call that failed")
        row.setdefault("response", "")
        if row["id"] in rows:
            twice.append(row["id"])
        rows[row["id"]] = row
    if twice:
        raise UserError(f"{path}: {_names(twice, 'stands twice', 'stand twice')}; keep one answer each")
    return rows


def check_ids(rows: Mapping[str, dict], questions: list[Question], known: set[str], source: str) -> None:
    """UserError that names rows without a question and questions without a row."""
    unknown = [key for key in rows if key not in known]
    if unknown:
        raise UserError(f"{source}: {_names(unknown, 'is', 'are')} unknown to the benchmark; "
                        "does it belong to another file?")
    missing = [question.id for question in questions if question.id not in rows]
    if missing:
        raise UserError(f"{source}: {_names(missing, 'is', 'are')} missing; run the generate step to the end, "
                        "or give each of them a row")


def _names(ids: list[str], one: str, many: str) -> str:
    shown = ", ".join(key[:60] for key in ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return f"{'row' if len(ids) == 1 else 'rows'} {shown} {one if len(ids) == 1 else many}"


def model_fingerprint(folder: str) -> str:
    """A short hash of a checkpoint folder: file names, sizes, and the first and last MiB of each weight file."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*")):
        if path.suffix in (".safetensors", ".json", ".jinja") and path.is_file():
            digest.update(f"{path.name} {path.stat().st_size}".encode())
            digest.update(file_ends(path))
    return digest.hexdigest()[:16]


def check_settings(path: Path, settings: dict) -> None:
    """Record what the answers in this folder were made with; UserError where earlier ones were made otherwise."""
    if not path.exists():
        return write_atomically(path, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
    before = read_settings(path)
    changed = [f"{key} {before.get(key)!r}, now {now!r}" for key, now in settings.items() if before.get(key) != now]
    if changed:
        raise UserError(f"{path.parent}: holds answers of another run ({'; '.join(changed)}); "
                        "choose another --out_dir, or pass --fresh to throw them away")


def read_settings(path: Path) -> dict:
    """What `check_settings` recorded; {} where nothing was."""
    try:
        return dict(read_json(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: damaged, no JSON object ({error}); pass --fresh to throw the answers away, or choose "
                        "another --out_dir") from error
