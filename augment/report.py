"""report.html: a few results of every method, to look at, with the counts."""

import html
import json
import os

from augment.recipe import Plan
from files import write_atomically

PER_METHOD = 6

STYLE = """body{font:15px/1.4 sans-serif;margin:2em;max-width:1500px} table{border-collapse:collapse}
td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #ddd}
.row{display:flex;gap:1.2em;margin:0 0 1.6em;align-items:flex-start}
.side{flex:1;background:#f6f6f6;padding:.7em;white-space:pre-wrap;overflow-wrap:anywhere}
img{max-width:100%;max-height:420px;display:block;margin-bottom:.5em;border:1px solid #ccc} small{color:#666}"""


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
    counts = "".join(f"<tr><td>{html.escape(reason)}<td>{count:,}" for reason, count in manifest["counts"].items())
    parts = [f"<!doctype html><meta charset=utf-8><title>{html.escape(plan.file_name)}</title><style>{STYLE}</style>"
             f"<h1>{html.escape(plan.file_name)}</h1><table>{counts}</table>"]
    for method, rows in sorted(shown.items()):
        parts.append(f"<h2>{html.escape(method)}</h2>")
        parts += [_row(row) for row in rows]
    write_atomically(os.path.join(out, "report.html"), "\n".join(parts).encode())


def _row(row: dict) -> str:
    sides = [(row["image_url"], row["instruction"])]
    if "instruction_2" in row:
        sides.append((row["image_url_2"], row["instruction_2"]))
    cells = ""
    for url, text in sides:
        picture = f'<img src="{html.escape(url)}" loading=lazy>' if url else ""
        cells += f"<div class=side>{picture}{html.escape(text)}</div>"
    output = html.escape(row["output"][:700])
    return (f"<small>{html.escape(row['id'])} · {html.escape(', '.join(row['methods']))}</small>"
            f"<div class=row>{cells}<div class=side>{output}</div></div>")
