"""report.html: a few results of every method, to look at, with the counts."""

import json
import os

from augment.recipe import Plan
from common.files import write_atomically
from common.html_page import card, cards, escape, page, picture, table

PER_METHOD = 6
LONGEST_SHOWN = 700  # characters of a response

STYLE = """.cards{grid-template-columns:none;grid-auto-flow:column;grid-auto-columns:1fr;margin-bottom:1.6rem}
.card{white-space:pre-wrap} .card img{max-height:26rem}"""


def write(plan: Plan, out: str, manifest: dict) -> None:
    """Write OUT/report.html: the first few rows of each method, spread over the file by its own order."""
    shown: dict[str, list[dict]] = {}
    with open(os.path.join(out, plan.file_name), encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            for method in row["methods"]:
                rows = shown.setdefault(method, [])
                if len(rows) < PER_METHOD:
                    rows.append(row)
    parts = [table([], manifest["counts"].items())]
    for method, rows in sorted(shown.items()):
        parts.append(f"<h2>{escape(method)}</h2>")
        parts += map(_row, rows)
    write_atomically(os.path.join(out, "report.html"), page(plan.file_name, *parts, style=STYLE))


def _row(row: dict) -> str:
    """A row's sides next to one another, then its response."""
    sides = [card(picture(row[f"image_url{side}"]), escape(row[f"instruction{side}"]))
             for side in ("", "_2") if f"instruction{side}" in row]
    return (f"<small>{escape(row['id'])} · {escape(', '.join(row['methods']))}</small>"
            + cards([*sides, card(escape(row["output"][:LONGEST_SHOWN]))]))
