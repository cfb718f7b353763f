"""report.html: what a generated data set holds, to look at: counts, answers, and a few problems of every family.

Everything is read off the published files row by row, and only what the page shows is kept: the memory does not grow
with the data set. The page needs nothing but the pictures beside it.
"""

import html
import json
import os
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from urllib.parse import quote

from problems.pairs import LETTERS, LEVELS, VERSIONS, choices_of
from files import write_atomically

PER_LEVEL = 2  # training problems of each family shown at each level
FREQUENT = 4  # answers listed of each family
MOST_ANSWERS = 10_000  # different answers of one family that are followed; later ones only add to the total

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:1rem auto;max-width:82rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0 1.5rem} th{text-align:left;background:#f6f6f4;vertical-align:bottom}
td,th{padding:.15rem .7rem;border-bottom:1px solid #ddd} td.n{text-align:right;font-variant-numeric:tabular-nums}
td:first-child{white-space:nowrap} tr.sum td{font-weight:600;background:#fafaf8}
tr.part td:first-child{padding-left:2rem}
.none{color:#b8403a;font-weight:600} small,.dim{color:#666}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(18.5rem,1fr));gap:.8rem;margin:.5rem 0}
.cards.versions{grid-template-columns:repeat(auto-fill,minmax(24rem,1fr))}
.card{border:1px solid #ddd;border-radius:4px;padding:.6rem .8rem;overflow-wrap:anywhere;background:#fff}
.card img{display:block;max-width:100%;max-height:20rem;margin:.3rem auto .5rem;border:1px solid #eee}
.card p{margin:.3rem 0;white-space:pre-wrap} h3{margin:2rem 0 .2rem;border-top:2px solid #bbb;padding-top:.6rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f6f6f4;padding:.5rem .7rem;margin:.3rem 0;
font:13px/1.4 ui-monospace,monospace} h4{margin:.9rem 0 .2rem} nav a{margin-right:.8rem;white-space:nowrap}
b.level{background:#e8eef6;border-radius:3px;padding:0 .4rem}
"""


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
    with open(os.path.join(out, "manifest.json"), encoding="utf-8") as file:
        manifest = json.load(file)
    shown = collect(out)
    parts = [_head(manifest), _counts(manifest), _answers(manifest, shown), _gallery(manifest, shown), "</html>\n"]
    write_atomically(os.path.join(out, "report.html"), "\n".join(parts).encode())


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
        for line in file:
            yield json.loads(line)


# ---------------------------------------------------------------------------------------------------------------------
# The tables


def _head(manifest: dict) -> str:
    plan = manifest["plan"]
    files = [(f"{name}.jsonl", entry["rows"]) for name, entry in manifest["files"].items()]
    dropped = list(manifest["dropped"].items())
    text = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Generated problems</title>'
        f"<style>{STYLE}</style><h1>Generated problems</h1>"
        f"<p>Seed {plan['seed']}, {plan['per_category']:,} pairs of each category, pictures of {plan['picture_size']} "
        f"pixels, version {manifest['version']} of the engine.</p>"
        f"<h2>Files</h2>{_table(['file', 'rows'], files)}"
        f"<h2>Dropped</h2><p class=dim>Draws that did not become a row: rejected by a gate, the same as an earlier "
        f"problem, kept for the benchmark, or without a legible picture.</p>{_table(['reason', 'draws'], dropped)}"
    )
    if "explanations" in manifest:
        text += f"<h2>Explanations</h2>{_table(['', ''], list(manifest['explanations'].items()))}"
    return text


def _counts(manifest: dict) -> str:
    """Problems of each file and level by family, with a sum for each category."""
    columns = ["stage1", "stage2", "stage3", "captions", *(f"stage2: {level}" for level in LEVELS), "bench"]
    rows = []
    for category, names in manifest["plan"]["families"].items():
        tallies = [Counter(manifest["families"].get(name, {})) for name in names]
        total = sum(tallies, Counter())
        rows.append((category, *(total[column] for column in columns)))
        rows += [(name, *(tally[column] for column in columns)) for name, tally in zip(names, tallies, strict=True)]
    heads = ["family", "stage 1", "pairs", "stage 3", "captions", *(f"{level}, in pairs" for level in LEVELS), "bench"]
    return "<h2>Counts</h2>" + _table(heads, rows, sums=set(manifest["plan"]["families"]))


def _answers(manifest: dict, shown: dict[str, Shown]) -> str:
    """Each family's most frequent answers with their shares, and how the right letters fall."""
    rows, letters = [], Counter()
    for names in manifest["plan"]["families"].values():
        for name in names:
            family = shown.get(name, Shown())
            letters += family.letters
            common = [
                f"{answer}: {100 * count / family.problems:.1f} %"
                for answer, count in _most_common(family.answers, FREQUENT)
            ]
            right = [family.letters[letter] for letter in LETTERS]
            rows.append((name, family.problems, len(family.answers), ", ".join(common), *right))
    total = max(1, sum(letters.values()))
    balance = ", ".join(f"{letter} {100 * letters[letter] / total:.1f} %" for letter in LETTERS)
    return (
        f"<h2>Answers</h2><p>Right letters of the {sum(letters.values()):,} training problems with choices: {balance}. "
        "A choice counts as its text among the answers.</p>"
        + _table(["family", "problems", "different answers", "most frequent", *LETTERS], rows)
    )


def _most_common(counts: Counter[str], number: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:number]


def _table(heads: list[str], rows: list[tuple], sums: Set[str] = frozenset()) -> str:
    """A table; the rows named in `sums` add up those that follow. Zeros stand out: something was not made."""
    lines = ["<table><tr>" + "".join(f"<th>{html.escape(head)}" for head in heads)]
    for row in rows:
        kind = f" class={'sum' if row[0] in sums else 'part'}" if sums else ""
        lines.append(f"<tr{kind}>" + "".join(_cell(cell, bool(sums)) for cell in row))
    return "\n".join(lines) + "</table>"


def _cell(cell: str | int, mark_zero: bool) -> str:
    if isinstance(cell, str):
        return f"<td>{html.escape(cell)}"
    return f'<td class="n{" none" if mark_zero and not cell else ""}">{cell:,}'


# ---------------------------------------------------------------------------------------------------------------------
# The gallery


def _gallery(manifest: dict, shown: dict[str, Shown]) -> str:
    everything = [name for names in manifest["plan"]["families"].values() for name in names]
    links = " ".join(f'<a href="#{quote(name)}">{html.escape(name)}</a>' for name in everything)
    parts = [f"<h2>Gallery</h2><nav>{links}</nav>"]
    for category, names in manifest["plan"]["families"].items():
        for name in names:
            parts.append(_family(category, name, shown.get(name, Shown())))
    return "\n".join(parts)


def _family(category: str, name: str, family: Shown) -> str:
    parts = [f'<h3 id="{html.escape(name)}">{html.escape(name)} <small>{html.escape(category)}</small></h3>']
    if family.held_out:
        order = [row for version in VERSIONS for row in family.held_out if row["version"] == version]
        first = order[0]
        choices = "; ".join(f"{letter}: {text}" for letter, text in zip(LETTERS, first["choices"], strict=False))
        parts.append(f"<h4>One held-out problem in every version <small>{html.escape(first['problem_id'])}</small></h4>"
                     f"<div class='cards versions'>{''.join(_card(row['version'], row) for row in order)}</div>"
                     f"<p><b>Question</b> {html.escape(first['question'])}<br><b>Choices</b> "
                     f"{html.escape(choices or 'none')}<br><b>Answer</b> {html.escape(first['answer'])}</p>"
                     f"<pre>{html.escape(first['output'])}</pre>")
    rows = [(level, row) for level in LEVELS for row in family.training.get(level, [])]
    if rows:
        cards = "".join(_card(level, row, solved=True) for level, row in rows)
        parts.append(f"<h4>Training problems</h4><div class=cards>{cards}</div>")
    if len(parts) == 1:
        parts.append("<p class=dim>No problem of this family was made.</p>")
    return "\n".join(parts)


def _card(level: str, row: dict, solved: bool = False) -> str:
    """A row's picture and text; with `solved`, its answer and solution too."""
    url, number = html.escape(quote(row["image_url"])), row["id"].partition("/")[0]
    picture = f'<a href="{url}"><img loading="lazy" alt="" src="{url}"></a>' if url else ""
    solution = f"<p><b>Answer</b> {html.escape(row['answer'])}</p><pre>{html.escape(row['output'])}</pre>"
    return (f"<div class=card><b class=level>{html.escape(level)}</b> <small>{html.escape(number)}</small>{picture}"
            f"<p>{html.escape(row['instruction'])}</p>{solution if solved else ''}</div>")
