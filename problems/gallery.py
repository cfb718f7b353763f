"""report.html: what a generated data set holds, to look at: counts, answers, and a few problems of every family.

Everything is read off the published files row by row, and only what the page shows is kept: the memory does not grow
with the data set. The page needs nothing but the pictures beside it.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from common.files import read_json, write_atomically
from common.html_page import card, cards, escape, links, page, picture, table
from problems.pairs import LETTERS, LEVELS, VERSIONS, choices_of

PER_LEVEL = 2  # training problems of each family shown at each level
FREQUENT = 4  # answers listed of each family
MOST_ANSWERS = 10_000  # different answers of one family that are followed; later ones only add to the total
STYLE = """.cards.versions{grid-template-columns:repeat(auto-fill,minmax(24rem,1fr))}
b.level{background:#e8eef6;border-radius:3px;padding:0 .4rem}"""


@dataclass
class Shown:
    """What the page keeps of one family."""

    answers: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)  # of the problems with choices, the right one
    problems: int = 0
    training: dict[str, list[dict]] = field(default_factory=dict)  # level -> rows of stage3.jsonl
    held_out: list[dict] = field(default_factory=list)  # the versions of one problem of bench.jsonl


def write(out: str) -> None:
    """Write OUT/report.html about the finished data set in the folder.

    Raises:
        OSError: a file cannot be read or written.
    """
    manifest = read_json(os.path.join(out, "manifest.json"))
    shown = collect(out)
    parts = [*_head(manifest), _counts(manifest), _answers(manifest, shown), *_gallery(manifest, shown)]
    write_atomically(os.path.join(out, "report.html"), page("Generated problems", *parts, style=STYLE))


def collect(out: str) -> dict[str, Shown]:
    """{family: its answers, and the first problems at each level} in one pass over the files."""
    shown: dict[str, Shown] = {}
    for row in _rows(out, "stage1"):
        family = shown.setdefault(row["family"], Shown())
        family.problems += 1
        choices, answer = choices_of(row["instruction"]), row["answer"]
        if choices and answer in LETTERS:
            family.letters[answer] += 1
            answer = choices[LETTERS.index(answer)]
        if answer in family.answers or len(family.answers) < MOST_ANSWERS:
            family.answers[answer] += 1
    for row in _rows(out, "stage3"):
        rows = shown.setdefault(row["family"], Shown()).training.setdefault(row["level"], [])
        if len(rows) < PER_LEVEL:
            rows.append(row)
    for row in _rows(out, "bench"):
        rows = shown.setdefault(row["family"], Shown()).held_out
        if not rows or rows[0]["problem_id"] == row["problem_id"]:
            rows.append(row)
    return shown


def _rows(out: str, name: str) -> Iterator[dict]:
    with open(os.path.join(out, f"{name}.jsonl"), encoding="utf-8") as file:
        yield from map(json.loads, file)


# ---------------------------------------------------------------------------------------------------------------------
# The tables


def _head(manifest: dict) -> Iterator[str]:
    plan = manifest["plan"]
    yield (f"<p>Seed {plan['seed']}, {plan['per_category']:,} pairs of each category, pictures of "
           f"{plan['picture_size']} pixels, version {manifest['version']} of the engine.</p>")
    files = [(f"{name}.jsonl", entry["rows"]) for name, entry in manifest["files"].items()]
    yield "<h2>Files</h2>" + table(["file", "rows"], files)
    yield ("<h2>Dropped</h2><p class=dim>Draws that did not become a row: rejected by a gate, the same as an earlier "
           "problem, kept for the benchmark, or without a legible picture.</p>")
    yield table(["reason", "draws"], manifest["dropped"].items())
    if "explanations" in manifest:
        yield "<h2>Explanations</h2>" + table([], manifest["explanations"].items())


def _counts(manifest: dict) -> str:
    """Problems of each file and level by family, with a sum for each category."""
    columns = ["stage1", "stage2", "stage3", "captions", *(f"stage2: {level}" for level in LEVELS), "bench"]
    rows = []
    for category, names in manifest["plan"]["families"].items():
        tallies = [Counter(manifest["families"].get(name, {})) for name in names]
        for name, tally in zip((category, *names), (sum(tallies, Counter()), *tallies), strict=True):
            rows.append((name, *(tally[column] for column in columns)))
    heads = ["family", "stage 1", "pairs", "stage 3", "captions", *(f"{level}, in pairs" for level in LEVELS), "bench"]
    return "<h2>Counts</h2>" + table(heads, rows, sums=set(manifest["plan"]["families"]))


def _answers(manifest: dict, shown: dict[str, Shown]) -> str:
    """Each family's most frequent answers with their shares, and how the right letters fall."""
    rows, letters = [], Counter()
    for name in _names(manifest):
        family = shown.get(name, Shown())
        letters += family.letters
        common = sorted(family.answers.items(), key=lambda item: (-item[1], item[0]))[:FREQUENT]
        shares = [f"{answer}: {100 * count / family.problems:.1f} %" for answer, count in common]
        right = [family.letters[letter] for letter in LETTERS]
        rows.append((name, family.problems, len(family.answers), ", ".join(shares), *right))
    total = max(1, letters.total())
    balance = ", ".join(f"{letter} {100 * letters[letter] / total:.1f} %" for letter in LETTERS)
    return (f"<h2>Answers</h2><p>Right letters of the {letters.total():,} training problems with choices: {balance}. "
            "A choice counts as its text among the answers.</p>"
            + table(["family", "problems", "different answers", "most frequent", *LETTERS], rows))


def _names(manifest: dict) -> list[str]:
    return [name for names in manifest["plan"]["families"].values() for name in names]


# ---------------------------------------------------------------------------------------------------------------------
# The gallery


def _gallery(manifest: dict, shown: dict[str, Shown]) -> Iterator[str]:
    yield "<h2>Gallery</h2>" + links(_names(manifest))
    for category, names in manifest["plan"]["families"].items():
        for name in names:
            yield f'<h3 id="{escape(name)}">{escape(name)} <small>{escape(category)}</small></h3>'
            yield from _family(shown.get(name, Shown()))


def _family(family: Shown) -> Iterator[str]:
    if family.held_out:
        order = [row for version in VERSIONS for row in family.held_out if row["version"] == version]
        first = order[0]
        choices = "; ".join(f"{letter}: {text}" for letter, text in zip(LETTERS, first["choices"], strict=False))
        yield f"<h4>One held-out problem in every version <small>{escape(first['problem_id'])}</small></h4>"
        yield cards((_card(row["version"], row) for row in order), kind="versions")
        yield (f"<p><b>Question</b> {escape(first['question'])}<br><b>Choices</b> {escape(choices or 'none')}</p>"
               + _solution(first))
    rows = [(level, row) for level in LEVELS for row in family.training.get(level, [])]
    if rows:
        yield "<h4>Training problems</h4>" + cards(_card(level, row, _solution(row)) for level, row in rows)
    if not rows and not family.held_out:
        yield "<p class=dim>No problem of this family was made.</p>"


def _solution(row: dict) -> str:
    return f"<p><b>Answer</b> {escape(row['answer'])}</p><pre>{escape(row['output'])}</pre>"


def _card(level: str, row: dict, solution: str = "") -> str:
    number = row["id"].partition("/")[0]
    return card(f"<b class=level>{escape(level)}</b> <small>{escape(number)}</small>", picture(row["image_url"]),
                f"<p>{escape(row['instruction'])}</p>", solution)
