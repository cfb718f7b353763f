"""The HTML pages of the reports: one frame and look, tables with sums, cards with a picture, links. Free of torch.

    page("Title", table(["file", "rows"], [("a.jsonl", 12)]), cards([card(picture("a.png"), escape(text))]))

A page works offline, with nothing but the pictures beside it. Titles, the cells of tables, paths and names of links are
text and escaped here; parts are HTML: pass what comes from data through `escape`.
"""

import html
from collections.abc import Iterable, Sequence, Set
from urllib.parse import quote

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:1rem auto;max-width:82rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0 1.5rem} th{text-align:left;background:#f6f6f4;vertical-align:bottom}
td,th{padding:.15rem .7rem;border-bottom:1px solid #ddd} td.n{text-align:right;font-variant-numeric:tabular-nums}
td:first-child{white-space:nowrap} tr.sum td{font-weight:600;background:#fafaf8}
tr.part td:first-child{padding-left:2rem} .none{color:#b8403a;font-weight:600} small,.dim{color:#666}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(18.5rem,1fr));gap:.8rem;margin:.5rem 0}
.card{border:1px solid #ddd;border-radius:4px;padding:.6rem .8rem;overflow-wrap:anywhere;background:#fff}
.card img{display:block;max-width:100%;max-height:20rem;margin:.3rem auto .5rem;border:1px solid #eee}
.card p{margin:.3rem 0;white-space:pre-wrap} h3{margin:2rem 0 .2rem;border-top:2px solid #bbb;padding-top:.6rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f6f6f4;padding:.5rem .7rem;margin:.3rem 0;
font:13px/1.4 ui-monospace,monospace} h4{margin:.9rem 0 .2rem} nav a{margin-right:.8rem;white-space:nowrap}
"""


def escape(text: object) -> str:
    """Text from outside as HTML, also within attributes; NUL, which HTML cannot hold, as U+FFFD."""
    return html.escape(str(text).replace("\0", "\ufffd"))


def page(title: str, *parts: str, style: str = "") -> str:
    """A whole page: its title as a heading, then its parts. style: CSS that this page adds to STYLE."""
    head = (f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
            f"<style>{STYLE}{style}</style><h1>{escape(title)}</h1>")
    return "\n".join([head, *parts, "</html>\n"])


def table(heads: Sequence[str], rows: Iterable[Sequence[str | int]], sums: Set[str] = frozenset()) -> str:
    """A table, numbers to the right. The rows named in `sums` add up those that follow; zeros stand out there, since
    something was not made. No heads: no line of them.
    """
    lines = ["<table>" + ("<tr>" if heads else "") + "".join(f"<th>{escape(head)}" for head in heads)]
    for row in rows:
        kind = f" class={'sum' if row[0] in sums else 'part'}" if sums else ""
        lines.append(f"<tr{kind}>" + "".join(_cell(cell, bool(sums)) for cell in row))
    return "\n".join(lines) + "</table>"


def _cell(cell: str | int, mark_zero: bool) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell)}"
    return f'<td class="n{" none" if mark_zero and not cell else ""}">{cell:,}'


def picture(path: str) -> str:
    """A picture by its path from the page, loaded when it is scrolled to and linked to its full size; "": none."""
    url = escape(quote(path))
    return f'<a href="{url}"><img loading="lazy" alt="" src="{url}"></a>' if path else ""


def card(*parts: str, kind: str = "") -> str:
    """A framed piece of a page. kind: a further class, for this page's style."""
    return f'<article class="{f"card {kind}".strip()}">{"".join(parts)}</article>'


def cards(parts: Iterable[str], kind: str = "") -> str:
    """Cards side by side, as many in a row as fit."""
    return f'<div class="{f"cards {kind}".strip()}">{"".join(parts)}</div>'


def links(names: Iterable[str]) -> str:
    """Links to the headings of this page that have these names as their ids."""
    return "<nav>" + " ".join(f'<a href="#{escape(quote(name))}">{escape(name)}</a>' for name in names) + "</nav>"
