"""How far the rules agree with MathVista's official verdicts, on model outputs that were published with both.

    python -m evaluation.agreement --data testmini.json outputs/*.jsonl

A file holds one model's rows: id, response, official_extraction (by an LLM), official_verdict. A row is *named* where
the official extraction names a choice or a number. The others ("N/A", "cannot be determined") stand apart: the official
scorer gives those with choices to the choice nearest in edit distance, and to imitate that is no reading.

agreement: rows with the same verdict. precision: of the answers that the rules accept, those that the official verdict
accepts. recall: of those that it accepts, those that the rules accept. false: of those that it refuses, those that the
rules accept. unread: rows in which the rules find no answer. All in percent.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from errors import UserError, run_main
from evaluation import mathvista
from evaluation.choices import in_range
from evaluation.question import Question, read_rows

COLUMNS = ("model", "type", "rows", "agreement", "precision", "recall", "false", "unread")


def main() -> None:
    """Print a table: a line per model and type, named rows and the others, and the same over all models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="MathVista's question file")
    parser.add_argument("outputs", nargs="+", help="one JSONL file a model")
    args = parser.parse_args()
    questions = {question.id: question for question in mathvista.load(args.data)}
    table: dict[tuple[str, str], list[tuple]] = {}
    for path in args.outputs:
        for number, row in enumerate(read_rows(path), 1):
            if row.get("id") not in questions or "official_verdict" not in row:
                raise UserError(f"{path}: row {number}: no id of {args.data}, or no official_verdict")
            question = questions[row["id"]]
            extraction = mathvista.extract(question, row["response"])
            judged = extraction, mathvista.judge(question, extraction), row["official_verdict"]
            for model in (Path(path).stem, "all"):
                table.setdefault((model, group(question, row["official_extraction"] or "")), []).append(judged)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for (model, kind), rows in sorted(table.items(), key=lambda item: (item[0][0] == "all", item[0])):
        print(f"| {model} | {kind} | {len(rows)} | {' | '.join(figures(rows))} |")


def group(question: Question, official: str) -> str:
    """ "choices" or "free", with ", not named" where the official extraction names no choice and no number."""
    kind = "choices" if question.choices else "free"
    return kind if named(question, official.strip()) else f"{kind}, not named"


def named(question: Question, official: str) -> bool:
    """Whether an official extraction names one of the choices, or a number or list where there are none."""
    if question.choices:
        letter = mathvista.bracketed_letter(official)
        return official in question.choices or in_range(letter, question.choices)
    kind, precision = question.row["answer_type"], question.row["precision"]
    return mathvista.normalize(official, None, "free_form", kind, precision) is not None


def figures(rows: list[tuple[str | None, bool, bool]]) -> list[str]:
    """The table's percentages, of (extraction, verdict by the rules, official verdict)."""
    verdicts = [(ours, official) for _, ours, official in rows]
    return [
        percent(ours == official for ours, official in verdicts),
        percent(official for ours, official in verdicts if ours),
        percent(ours for ours, official in verdicts if official),
        percent(ours for ours, official in verdicts if not official),
        percent(not extraction for extraction, *_ in rows),
    ]


def percent(said: Iterable[bool]) -> str:
    """The share that holds; a dash of none."""
    held = list(said)
    return f"{100 * sum(held) / len(held):.1f}" if held else "–"


if __name__ == "__main__":
    run_main(main)
