"""What a run says: report.json, report.md beside the paper's tables, a chart as in Figure 4, a page of the rows."""

import functools
import html
import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from common.files import read_json, write_atomically
from common.html_page import card, escape, page
from common.llm import picture_url
from errors import UserError
from evaluation import metrics, wemath
from evaluation.answers import after_thinking
from evaluation.question import Question, snake
from sources import BadRow, open_image

PAPER = Path(__file__).with_name("paper_tables.json")
VERSION_COLUMNS = {
    "all": "ALL", "text_dominant": "Text-dom.", "text_lite": "Text-lite", "vision_intensive": "Vision-int.",
    "vision_dominant": "Vision-dom.", "vision_only": "Vision-only",
}
COLUMNS = {  # of the main table; the paper's Table 1 (MathVerse, MathVista) and Table 2 (We-Math)
    "mathverse": VERSION_COLUMNS,
    "generated": VERSION_COLUMNS,
    "mathvista": {name: name.upper() for name in ("all", "GPS", "ALG", "GEO", "SCI")},
    "wemath": {"strict.score": "AVG (strict)", "strict.RM": "RM (strict)"},
}
ALSO_PRINTED = {
    "wemath": {"S1": "S1", "S2": "S2", "S3": "S3", "loose.score": "AVG (loose)"},
    "mathverse": {"text_only": "Text-only", "gap": "gap"},
    "generated": {"text_only": "Text-only", "gap": "gap"},
    "mathvista": {},
}
MOST_FAILED = 0.005  # share of the rows; beyond, there is no score
MOST_UNREAD = 0.05  # share of the judged rows that the rules could not read; beyond, there is a warning
TABLES = {"mathverse": "table1", "mathvista": "table1", "wemath": "table2"}
LONGEST_SHOWN = 6000  # characters of a response on the page
PICTURE_SIDE = 320  # pixels at most of a picture on the page: 6 KB each


def paper_tables() -> dict[str, list[dict]]:
    """The paper's Tables 1, 2, 3: rows with group, model, params (or order) and {bench: {metric: percent or null}}."""
    return read_json(PAPER)


def number(value: float | None, digits: int = 1) -> str:
    """A score for a table; a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}"


def with_interval(value: float | None, interval: tuple[float, float] | None) -> str:
    """ "33.6 (31.0 to 36.1)"; the score alone where there is no interval."""
    return number(value) if interval is None else f"{number(value)} ({number(interval[0])} to {number(interval[1])})"


def headline(bench: str, scores: Mapping[str, float | None]) -> str:
    """The main scores in one line."""
    names = COLUMNS[bench] | ALSO_PRINTED[bench]
    shown = [f"{label} {number(scores[name])}" for name, label in names.items() if scores.get(name) is not None]
    return ", ".join(shown) or "no score"


def in_order(bench: str, scores: Mapping[str, float | None]) -> dict[str, float | None]:
    """Scores in the order of the paper's tables, then of their names; never of the question file."""
    first = [*COLUMNS[bench], *ALSO_PRINTED[bench]]
    names = sorted(scores, key=lambda name: (first.index(name) if name in first else len(first), "." in name, name))
    return {name: scores[name] for name in names}


def cell(text: object, longest: int = 200) -> str:
    """Text for a Markdown table: one line, no bars, no HTML."""
    return html.escape(" ".join(str(text).split()), quote=False).replace("|", "\\|").replace("`", "'")[:longest]


# -----------------------------------------------------------------------------
# what stands around the scores


def unfinished(rows: Mapping[str, dict], answers: Mapping[str, dict], given: str) -> str:
    """Why there is no score, and what to do; "" while no more than MOST_FAILED of the verdict rows have failed. given:
    the file of answers that were made elsewhere.
    """
    failed = [key for key, row in rows.items() if "correct" not in row]
    if len(failed) <= MOST_FAILED * len(rows):
        return ""
    unanswered = sum("error" in answers.get(key, {}) for key in failed)
    said = " ".join(str(rows[failed[0]].get("error")).split())[:160]
    remedy = "give the same command again, with all its steps: only what failed is asked anew"
    if given and unanswered:
        remedy = f"give the rows with an 'error' in {given} an answer, then {remedy}"
    return (f"{len(failed)} of {len(rows)} rows failed ({unanswered} got no answer, {len(failed) - unanswered} no "
            f"verdict; the first, {failed[0][:60]}: {said}), and at most {100 * MOST_FAILED:g} % of them may; {remedy}")


def counts(rows: Mapping[str, dict], answers: Mapping[str, dict]) -> dict[str, int | None]:
    """What became of the judged rows' answers. cut: None where no answer says how it ended. unread: those in which the
    rules found no answer; cut_unread: those of them that were cut.
    """
    judged = {key: answers.get(key, {}) for key, row in rows.items() if "correct" in row}
    none = [key for key in judged if not (rows[key].get("extraction") or "").strip()]
    unread = [key for key in none if rows[key].get("extracted_by") == "rules"]
    cut = {key for key, answer in judged.items() if answer.get("finish_reason") == "length"}
    known = any(answer.get("finish_reason") for answer in judged.values())
    return {"no_answer": len(none), "unread": len(unread), "cut": len(cut) if known else None,
            "cut_unread": len(cut.intersection(unread)),
            "unfinished_thinking": sum(after_thinking(answer.get("response", ""))[1] for answer in judged.values())}


def methods(rows: dict[str, dict], key: str) -> str:
    """ "rules", or "llm (1200), given (12)": who did this step, from the rows themselves."""
    counts = Counter(row[key] for row in rows.values() if row.get(key)).most_common()
    return ", ".join(name if len(counts) == 1 else f"{name} ({count})" for name, count in counts)


def compared(folder: str, bench: str) -> dict:
    """The name and scores of another run of this benchmark, from its report.json."""
    path = Path(folder) / "report.json"
    try:
        other = read_json(path)
        model, scores, trouble, other_bench = other["model"], other["metrics"], other.get("unfinished"), other["bench"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--compare {folder}: no report.json of an evaluation ({error})") from error
    if other_bench != bench:
        raise UserError(f"--compare {folder}: that is a run of {other_bench}, and this one is of {bench}")
    if trouble:
        raise UserError(f"--compare {folder}: that run has no score yet ({trouble})")
    return {"model": model, "metrics": scores}


def notes(bench: str, protocol: str, llm: bool, questions: list[Question], verdicts: Mapping[str, bool]) -> list[str]:
    """What a reader of the scores must know."""
    untold = sum(not question.text for question in questions)
    left_out = wemath.left_out(questions, verdicts) if bench == "wemath" else 0
    said = [
        (untold, "rows judged without their question and its rule of rounding, which no row of their problem states: "
         f"{untold}"),
        (left_out, "composite problems without a verdict on each of their rows, which no strict or loose score counts: "
         f"{left_out}"),
        (bench == "wemath" and llm, "the official scorer of this benchmark is a program: --judge had nothing to do"),
        (bench == "mathverse" and not llm, "the official scorer is an LLM; rules take its place here"),
        (bench == "mathvista" and not llm,
         "the official extraction asks an LLM where no shortcut applies; rules take its place here"),
        (bench == "wemath" and not any(question.groups["domain"] for question in questions),
         "no domain columns: knowledge_structure_nodes.json does not lie beside the question file"),
        (bench == "wemath" and protocol == "puma",
         "prompts carry the description of the knowledge concept, as the paper's release has them"),
        (bench == "mathvista" and protocol == "puma",
         "prompts carry neither choices nor units, and extractions are lower-cased, as in the paper's release"),
    ]
    return [note for holds, note in said if holds]


# -----------------------------------------------------------------------------
# report.md


def markdown(report: dict, chart: str | None) -> str:
    """The whole report. report: what report.json holds."""
    bench, scores, intervals = report["bench"], report["metrics"], report["intervals"]
    columns = dict(COLUMNS[bench])
    if scores.get("text_only") is not None:
        columns["text_only"] = "Text-only"
    warning = _warning(report)
    lines = [f"# {report['title']}: {cell(report['model'])}", "", *([f"> {warning}", ""] if warning else []),
             *_facts(report), ""]
    if report["unfinished"]:
        return "\n".join(lines)
    if bench == "generated":
        lines += _table(columns, _own_rows(report, {}), ("model",))
        lines += ["", *_generated_tables(report)]
    else:
        lines += [f"## Beside the paper's Table {TABLES[bench][-1]}", ""]
        rows = [{"model": row["model"], "params": row["params"], **row[bench]} for row in paper_tables()[TABLES[bench]]]
        rows = [row for row in rows if any(row.get(name) is not None for name in columns)]
        lines += _table(columns, _own_rows(report, {"params": ""}) + rows, ("model", "params"))
    if bench == "mathverse":
        lines += ["", "## Beside the paper's Table 3", ""]
        ablation = {"all": "ALL", "text_dominant": "Text-dom.", "vision_only": "Vision-only", "gap": "Gap ↓"}
        rows = [{"order": r["order"], "model": r["model"], **r["mathverse"]} for r in paper_tables()["table3"]]
        lines += _table(ablation, _own_rows(report, {"order": "this run"}) + rows, ("order", "model"))
    if chart:
        lines += ["", "## Text and vision, as in the paper's Figure 4", "", f"![text and vision averages]({chart})"]
    lines += ["", "## All scores", "", "| score | value | 95 % interval |", "|---|---|---|"]
    for name, value in scores.items():
        low, high = intervals.get(name, (None, None))
        digits = 3 if name in ("absolute_skewness", "coefficient_of_variation") else 1
        spread = f"{number(low, digits)} to {number(high, digits)}" if low is not None else "–"
        lines.append(f"| {cell(name)} | {number(value, digits)} | {spread} |")
    lines += ["", "Scores are percent right, except absolute skewness and coefficient of variation. "
                  f"Intervals: bootstrap over problems, {report['samples']} samples."]
    if report["errors"]:
        lines += ["", f"Rows without an answer or a verdict: {', '.join(cell(k) for k in report['error_ids'][:20])}"]
    return "\n".join(lines) + "\n"


def _warning(report: dict) -> str:
    """Why the scores must not be published or compared; "" where they may be."""
    if report["unfinished"]:
        return f"**No score: this run is unfinished.** {cell(report['unfinished'], 600)}."
    if report["unread"] <= MOST_UNREAD * report["n"]:
        return ""
    share = f"{100 * report['unread'] / report['n']:.1f} %"
    cut = f" {report['cut_unread']} of them were cut: raise --max_new_tokens." if report["cut_unread"] else ""
    if report["bench"] == "wemath":  # whose official scorer is these rules
        return (f"**{share} of the responses name no option in the form that the official scorer reads**, "
                f"which counts them as wrong, too.{cut}")
    return f"**Rules could not read {share} of the answers; not comparable with published scores; use --judge.**{cut}"


def told(report: dict) -> str:
    """What the console says: the main scores, what became of the rows, and the warning."""
    lines = [f"{report['title']}: {headline(report['bench'], report['metrics'])}"]
    lines += [line.removeprefix("- ") for line in _facts(report)[:3]]
    return "\n".join([*lines, *_warning(report).replace("**", "").splitlines()])


def _facts(report: dict) -> list[str]:
    limit = f" {report['max_new_tokens']}" if report["max_new_tokens"] else ""
    cut = f"{report['cut']} (finish_reason length)"
    if report["cut"] is None:
        cut = "not known, since no answer has a finish_reason"
    over = "; the scores are over those judged" if report["errors"] and not report["unfinished"] else ""
    lines = [
        f"- rows judged: {report['n']} of {report['asked']}; failed (no answer or verdict): {report['errors']}{over}",
        f"- no answer found, or none of the choices, which counts as wrong: {report['no_answer']}",
        f"- cut at max_new_tokens{limit}: {cut}; unfinished thinking: {report['unfinished_thinking']}",
        f"- protocol: {report['protocol']}; answers extracted by {report['extracted_by'] or 'nobody'}, "
        f"judged by {report['judged_by'] or 'nobody'}",
        f"- pictures replaced by a white one because they are not at hand: {report['missing_images']}",
    ]
    if report["blind"] is not None:
        scores = headline(report["bench"], report["blind"])
        lines.append(f"- blind (every picture white): {scores}; what a model scores without seeing")
    if report["most_frequent"]:
        share = number(report["most_frequent"]["all"])
        lines.append(f"- always a family's most frequent answer, of the same rows as ALL: {share}")
    return lines + [f"- note: {note}" for note in report["notes"]]


def _own_rows(report: dict, extra: dict) -> list[dict]:
    own = {"model": f"**{cell(report['model'])}**", **extra, **report["metrics"], "intervals": report["intervals"]}
    blind = {"model": f"{cell(report['model'])}, blind", **extra, **(report["blind"] or {})}
    others = [{"model": cell(other["model"]), **extra, **other["metrics"]} for other in report["compared"]]
    return [own, *([blind] if report["blind"] is not None else []), *others]


def _table(columns: dict[str, str], rows: list[dict], before: tuple[str, ...]) -> list[str]:
    lines = [f"| {' | '.join([*before, *columns.values()])} |", "|" + "---|" * (len(before) + len(columns))]
    for row in rows:
        cells = [str(row.get(name, "")) for name in before]
        cells += [with_interval(row.get(name), row.get("intervals", {}).get(name)) for name in columns]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _generated_tables(report: dict) -> list[str]:
    families = {name: share for name, share in report["most_frequent"].items() if name != "all"}
    rows = [f"| {cell(name)} | {number(report['metrics'].get('family.' + snake(name)))} | {number(share)} |"
            for name, share in families.items()]
    return ["| family | right | most frequent answer |", "|---|---|---|", *rows] if rows else []


# -----------------------------------------------------------------------------
# the chart: text and vision averages, skewness and variation, of several models


def draw_chart(path: Path, models: list[tuple[str, Mapping[str, float | None]]]) -> bool:
    """Figure 4 for these (name, scores) pairs; False, and no file, where none has text and vision versions."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = []
    for name, scores in models:
        known = {v: np.array([float(scores[v])]) for v in metrics.VERSIONS if scores.get(v) is not None}
        with np.errstate(divide="ignore", invalid="ignore"):
            derived = {key: float(array[0]) for key, array in metrics.across_versions(known).items()}
        if "coefficient_of_variation" in derived and {"text_average", "vision_average"} <= derived.keys():
            shown.append((name, derived))
    if not shown:
        return False
    places, width = np.arange(len(shown)), 0.38
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(max(6, 0.75 * len(shown) + 2), 7), sharex=True,
                                             height_ratios=(3, 2))
    for offset, key, label, colour in ((-0.5, "text_average", "Text", "#3b6ea5"),
                                       (0.5, "vision_average", "Vision", "#d98b3a")):
        bars = above.bar(places + offset * width, [row[key] for _, row in shown], width, label=label, color=colour)
        above.bar_label(bars, fmt="%.1f", fontsize=7)
    above.set_ylabel("average accuracy, %")
    above.legend(frameon=False, loc="upper left", ncols=2)
    above.margins(y=0.15)
    for key, label, marker in (("absolute_skewness", "absolute skewness", "o"),
                               ("coefficient_of_variation", "coefficient of variation", "s")):
        below.plot(places, [row[key] for _, row in shown], marker=marker, linestyle="--", linewidth=1, label=label)
    below.set_ylim(bottom=0)
    below.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)  # above the axes: no point under it
    below.margins(y=0.25)
    below.set_xticks(places, [name.replace("$", r"\$")[:40] for name, _ in shown], rotation=40, ha="right", fontsize=8)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
    return True


# -----------------------------------------------------------------------------
# the page to browse

STYLE = """
body{max-width:70rem} .card{border-left:6px solid #bbb;margin:.7rem 0;overflow:hidden}
.card.right{border-left-color:#3a8f4d} .card.wrong{border-left-color:#b8403a}
.card img{float:right;max-width:18rem;max-height:18rem;margin:0 0 .5rem 1rem} [hidden]{display:none}
"""
FILTER = """<p>Show <select id="verdict"><option value="card">every row</option><option value="right">right</option>
<option value="wrong">wrong</option><option value="unread">no answer found</option><option value="cut">cut</option>
<option value="error">failed: no answer, or no verdict</option></select>
whose text holds <input id="text" size="30"> <span id="count"></span></p>"""
SCRIPT = """<script>
const pictures = PICTURES;
for (const image of document.querySelectorAll("img")) image.src = pictures[image.dataset.picture];
const rows = [...document.querySelectorAll("article")];
const verdict = document.getElementById("verdict"), text = document.getElementById("text");
const show = () => {
  let n = 0;
  for (const row of rows) {
    row.hidden = !(row.classList.contains(verdict.value) &&
      row.textContent.toLowerCase().includes(text.value.toLowerCase()));
    n += !row.hidden;
  }
  document.getElementById("count").textContent = n + " rows";
};
verdict.onchange = text.oninput = show;
show();
</script>"""


def browse_page(report: dict, questions: list[Question], rows: Mapping[str, dict], missing: set[str]) -> str:
    """One article per row: picture, question, response, extraction, gold, verdict. Everything from outside is escaped.

    rows: {id: {"response", "finish_reason", "extraction", "extracted_by", "by", "correct" or "error"}}. Pictures are
    embedded, small and each once, so that the page can be mailed.
    """
    articles: list[str] = []
    pictures: dict[str, int] = {}  # by their data URL, each one's place in the page's list
    for question in questions:
        row = rows.get(question.id, {})
        kind = "error" if "correct" not in row else ("right" if row["correct"] else "wrong")
        unread = kind != "error" and not (row.get("extraction") or "").strip()
        cut = row.get("finish_reason") == "length"
        groups = ", ".join(str(v) if isinstance(v, str) else ", ".join(v) for v in question.groups.values() if v)
        image = ""
        if question.image and question.id in missing:
            shown = report["missing_images"]  # else the answers were made elsewhere
            groups += f" ({'a white picture was shown: the real one' if shown else 'its picture'} is not at hand)"
        elif question.image and (url := thumbnail(question.image)):
            image = f'<img alt="" data-picture="{pictures.setdefault(url, len(pictures))}">'
        elif question.image:
            groups += " (its picture cannot be read)"
        gold = f"gold: <b>{_shown(question.answer)}</b>"
        found = "no answer found" if unread else f"<b>{_shown(row.get('extraction'))}</b>"
        verdict = (f"Extracted ({_shown(row.get('extracted_by'))}): {found} · {gold} · <b>{kind}</b> "
                   f"(judged by {_shown(row.get('by'))})")
        if kind == "error":
            verdict = f"<b>Failed</b>: {_shown(row.get('error', 'no verdict'))} · {gold}"
        in_prompt = question.text.partition("\n")[0] in question.prompt  # else it stands in the picture
        asked = "" if in_prompt else f"Judged as the question<pre>{_shown(question.text)}</pre>"
        articles.append(card(image, f"<b>{_shown(question.id)}</b> <small>{_shown(groups)}</small>"
                             f"<pre>{_shown(question.prompt)}</pre>{asked}Response{' (cut at max_new_tokens)' * cut}"
                             f"<pre>{_shown(row.get('response', ''))}</pre>{verdict}",
                             kind=kind + " unread" * unread + " cut" * cut))
    title = f"{report['title']}: {report['model']}"
    return page(title, FILTER, *articles, SCRIPT.replace("PICTURES", json.dumps(list(pictures))), style=STYLE)


@functools.cache  # many rows share a picture
def thumbnail(path: str) -> str:
    """The data URL of a picture, small; "" for one that cannot be read."""
    try:
        picture = open_image(path)
    except BadRow:
        return ""
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=50, optimize=True)
    return picture_url(buffer.getvalue())


def _shown(text: object) -> str:
    text = str(text)
    short = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} … ({len(text)} characters)"
    return escape(short)


# -----------------------------------------------------------------------------


def write_report(out: Path, report: dict, questions: list[Question], rows: Mapping[str, dict],
                 missing: set[str]) -> None:
    """report.json, report.md, chart.png (where there are versions) and browse.html, into `out`."""
    chart = None
    (out / "chart.png").unlink(missing_ok=True)  # an earlier report's
    if not report["unfinished"] and report["bench"] in ("mathverse", "generated"):
        models = [(run["model"], run["metrics"]) for run in (report, *report["compared"])]
        if report["blind"] is not None:
            models.append((f"{report['model']}, blind", report["blind"]))
        if report["bench"] == "mathverse":
            rows_of_paper = [row for row in paper_tables()["table1"] if row["group"] != "Baselines"]
            models += [(row["model"], row["mathverse"]) for row in rows_of_paper]
        chart = "chart.png" if draw_chart(out / "chart.png", models) else None
    write_atomically(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_atomically(out / "report.md", markdown(report, chart))
    write_atomically(out / "browse.html", browse_page(report, questions, rows, missing))
