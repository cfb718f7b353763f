"""What the runs of table3.sh add up to: a table like the paper's Table 3, a chart like its Figure 4, and the sweeps.

    python -m experiments.table3_report out/table3/tiny    writes table3.md and .json, figure4.png, sweep-*.md and .json

A run is read off its folder, seed0/1-150x24/2-100x12-lam=0.5/3-100x16: stages, steps x rows, and what a sweep changed.
Means and deviations over seeds; a bootstrap over problems, paired within seeds.
"""

import json
import math
import os
import re
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bench.tables import cpu_name
from common.files import read_json, write_atomically
from errors import UserError, run_main
from evaluation import BENCHMARKS
from evaluation.metrics import VERSIONS, across_versions
from evaluation.question import snake
from evaluation.report import paper_tables
from evaluation.store import read_lines
from runtime import git_commit

ORDERS = {  # as the paper's Table 3 groups them
    "123": "Standard pipeline",
    "23": "Effectiveness of stage 1 (text)",
    "13": "Effectiveness of stage 2 (PUMA)",
    "12": "Effectiveness of stage 3 (instruction tuning)",
    "132": "Sequential order of stages",
}
COMPARED = {"all": "ALL", "text_dominant": "Text-dom.", "vision_only": "Vision-only", "gap": "Gap"}
ALL_VERSIONS = ("text_only", *VERSIONS)
NOTE = (
    "Percent right, greedy decoding, judged by rules. ALL pools the five versions with a picture. Gap: (text-dominant "
    "− vision-only) / vision-only. Blind: every picture white. Steps, tokens read (the teacher's included) and minutes "
    "are those of the order's own stages, for one seed; the start is the same for all. Budget equal: as many steps and "
    "as much computation as 1→2→3, where a token that the teacher reads counts a third, as it passes forward only; "
    "paper: a stage that is left out is simply left out."
)


@dataclass(frozen=True)
class Scores:
    """One trained folder, evaluated. right: {version: verdicts [problems], NaN where a problem lacks the version}."""

    metrics: Mapping[str, float | None]
    blind: Mapping[str, float | None]
    right: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """One line of a table: the same chain of stages trained with several seeds."""

    group: str
    order: str
    budget: str
    seeds: Sequence[Scores]
    cost: Mapping[str, Mapping[str, float]]  # of one seed, by stage: steps, rows, tokens and seconds

    @property
    def label(self) -> str:
        return f"{self.order}, {self.budget}" if self.budget else self.order

    def total(self, name: str) -> float:
        """One cost, summed over the stages."""
        return sum(costs[name] for costs in self.cost.values())


def read_scores(folder: Path, bench: str, data: str) -> Scores:
    """Scores and verdicts that eval.py left in a folder. Drawings of the same problem (rows of one key) make one
    problem, whose verdict is their mean: they stand or fall with the same numbers."""
    report = read_json(folder / "report.json")
    verdicts = {row["id"]: row for row in read_lines(folder / "verdicts.jsonl")}
    problems: dict[str, dict[str, list[float]]] = {}
    for question in BENCHMARKS[bench].load(data, "", "official"):
        correct = verdicts.get(question.id, {}).get("correct")
        if correct is not None:
            problem = problems.setdefault(question.row.get("key") or question.cluster or question.id, {})
            problem.setdefault(snake(question.groups["version"]), []).append(float(correct))
    right = {
        version: np.array([np.mean(p[version]) if version in p else math.nan for p in problems.values()])
        for version in ALL_VERSIONS
    }
    return Scores(report["metrics"], report["blind"] or {}, right)


# ----------------------------------------------------------------------------------------------------------------------
# Runs, by their folders


@dataclass(frozen=True)
class Run:
    """What a folder says was trained, with any seed."""

    path: str  # below seedN/
    order: str  # "132"
    sizes: tuple[str, ...]  # of its stages: steps x rows
    change: str  # of a sweep: "lam=0.5"


def parse_run(path: str) -> Run:
    """ "1-150x24/2-100x12-lam=0.5": stage 1 with 150 steps of 24 rows, then stage 2 with another λ."""
    parts = [folder.split("-", 2) for folder in path.split("/")]
    change = next((part[2] for part in parts if len(part) > 2), "")
    return Run(path, "".join(part[0] for part in parts), tuple(part[1] for part in parts), change)


def prefixes(run: Run) -> list[str]:
    """The paths of a run's stages, each below the one before."""
    return list(accumulate(run.path.split("/"), "{}/{}".format))


def finished_runs(out: Path) -> dict[Run, set[int]]:
    """The seeds for which each run is trained and evaluated."""
    found = defaultdict(set)
    for report in sorted(out.glob("seed*/**/eval/report.json")):
        seed, _, path = report.parents[1].relative_to(out).as_posix().partition("/")
        found[parse_run(path)].add(int(seed.removeprefix("seed")))
    return dict(found)


def whole_run(runs: Iterable[Run]) -> Run | None:
    """The run of 1→2→3 with nothing changed."""
    return next((run for run in runs if run.order == "123" and not run.change), None)


def budget_of(run: Run, whole: Run) -> str:
    """ "" for an order of all stages; "paper" where a stage of the whole is only left out; else "equal"."""
    sizes, of_whole = (dict(zip(one.order, one.sizes, strict=True)) for one in (run, whole))
    if len(sizes) == len(of_whole):
        return ""
    return "paper" if sizes.items() <= of_whole.items() else "equal"


def runs_of_table(runs: Iterable[Run], sweep: str) -> list[Run]:
    """The runs of one table, in its order. Without a sweep: the paper's groups, budget equal before paper. Of a sweep:
    the usual run of every order that it has, then its values from small to large."""
    runs = list(runs)
    whole, orders = whole_run(runs), list(ORDERS)
    usual = [run for run in runs if not run.change and run.order in orders]
    usual.sort(key=lambda run: (orders.index(run.order), budget_of(run, whole)))
    if not sweep:
        return usual
    changed = [run for run in runs if run.change.startswith(f"{sweep}=")]
    changed.sort(key=lambda run: [float(number) for number in re.findall(r"\d+\.?\d*", run.change)])
    sizes = {(run.order, run.sizes) for run in changed}
    return [run for run in usual if (run.order, run.sizes) in sizes] + changed


def costs(run: Run, seeds: Sequence[int], out: Path) -> dict[str, dict[str, float]]:
    """Steps, rows, tokens and seconds of each stage, a seed's mean, as the logs have them."""
    found = {}
    for stage, path in zip(run.order, prefixes(run), strict=True):
        logs = [(out / f"seed{seed}" / path / "log.jsonl").read_text(encoding="utf-8") for seed in seeds]
        steps = [json.loads(line) for log in logs for line in log.splitlines()]
        names = ("rows", "tokens", "step_seconds", "forward_backward_seconds")
        sums = {"steps": len(steps)} | {name: sum(step.get(name, 0.0) for step in steps) for name in names}
        found[stage] = {name: value / len(seeds) for name, value in sums.items()}
    return found


def computation(rows: Sequence[Row], tokens: Path) -> dict[str, float]:
    """Of each row, in units of the first's: rows as logged times what each costs by tokens.json (none without it).

    An equal budget that is off by more than 5 % is told of.
    """
    if not tokens.exists():
        return {}
    a_row = read_json(tokens)
    spent = {row.label: sum(cost["rows"] * a_row[stage] for stage, cost in row.cost.items()) for row in rows}
    shares = {label: round(amount / spent[rows[0].label], 3) for label, amount in spent.items()}
    for row in rows:
        if row.budget == "equal" and abs(shares[row.label] - 1) > 0.05:
            print(f"warning: {row.label}: {shares[row.label]} times the computation of {rows[0].label}")
    return shares


# ----------------------------------------------------------------------------------------------------------------------
# Statistics


def mean_and_deviation(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Mean and sample standard deviation (0 for one value); None when a value is missing or infinite."""
    if not values or any(value is None or not math.isfinite(value) for value in values):
        return None
    numbers = np.asarray(values, dtype=float)
    return float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0


def scores_from_weights(right: Mapping[str, np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Percent right per version, `all` and what evaluation.metrics derives of them, for each row of weights.

    weights [samples, problems]: how often a sample holds a problem. `all` pools the five versions with a picture.
    """
    tops, bottoms = {}, {}
    for version, verdicts in right.items():
        known = np.isfinite(verdicts)
        tops[version] = weights[:, known] @ verdicts[known]
        bottoms[version] = weights[:, known].sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = {version: 100 * tops[version] / bottoms[version] for version in right}
        pooled = [version for version in VERSIONS if version in right]
        scores["all"] = 100 * sum(tops[v] for v in pooled) / sum(bottoms[v] for v in pooled)
        return scores | across_versions(scores)


class Difference(NamedTuple):
    """Another order's score minus the reference's, mean over seeds, with a 95 % interval and a two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    row: Sequence[Scores], reference: Sequence[Scores], name: str, samples: int = 4000, seed: int = 0
) -> Difference | None:
    """Compare two orders on one score over the same problems, seed by seed.

    Each sample draws the problems of every seed anew, the same for both orders, takes the difference within each seed
    and averages over seeds. p = 2 min(P(difference <= 0), P(difference >= 0)), with one added to both counts. It tells
    how sure the problems make us of these very seeds; how much seeds differ, the table's standard deviation tells.
    None where the score does not exist (a gap over a score of 0) in more than one sample of ten, or in the value.
    """
    draws = np.random.default_rng(seed)
    value, spread = 0.0, np.zeros(samples)
    for ours, theirs in zip(row, reference, strict=True):
        problems = len(next(iter(ours.right.values())))
        if problems != len(next(iter(theirs.right.values()))):
            raise UserError("two orders were not evaluated on the same problems; evaluate them again (delete eval/)")
        once = np.ones((1, problems))
        weights = draws.multinomial(problems, np.full(problems, 1 / problems), size=samples).astype(float)
        for sign, scores in ((1, ours), (-1, theirs)):
            value += sign * float(scores_from_weights(scores.right, once)[name][0])
            spread += sign * scores_from_weights(scores.right, weights)[name]
    value, spread = value / len(row), spread / len(row)
    spread = spread[np.isfinite(spread)]
    if not math.isfinite(value) or len(spread) < 0.9 * samples:
        return None
    low, high = np.percentile(spread, [2.5, 97.5])
    beyond = min((spread <= 0).sum(), (spread >= 0).sum())
    return Difference(value, float(low), float(high), min(1.0, 2 * (beyond + 1) / (len(spread) + 1)))


# ----------------------------------------------------------------------------------------------------------------------
# Markdown


def spread_cell(values: Sequence[float | None], digits: int = 1) -> str:
    """ "71.2 ± 0.8", or a dash."""
    found = mean_and_deviation(values)
    return "–" if found is None else f"{found[0]:.{digits}f} ± {found[1]:.{digits}f}"


def column(row: Row, name: str) -> list[float | None]:
    """One score of every seed."""
    return [scores.metrics.get(name) for scores in row.seeds]


def main_table(rows: Sequence[Row], first: str = "Order") -> list[str]:
    """Lines of the table in the shape of Table 3, with what the paper does not report behind it."""
    head = [first, "Budget", "Steps", "Mtokens", "Minutes", "ALL ↑", "Text-dom. ↑", "Vision-only ↑", "Gap, % ↓",
            "Text-only", "Blind ALL", "Blind vision-only", "Abs. skewness ↓", "Variation ↓"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    group = ""
    for row in rows:
        if row.group and row.group != group:
            group = row.group
            lines.append(f"| *{group}* |" + " |" * (len(head) - 1))
        cells = [row.order, row.budget or "both", f"{row.total('steps'):,.0f}"]
        cells += [f"{row.total('tokens') / 1e6:.2f}", f"{row.total('step_seconds') / 60:.1f}"]
        cells += [spread_cell(column(row, name)) for name in (*COMPARED, "text_only")]
        cells += [spread_cell([scores.blind.get(name) for scores in row.seeds]) for name in ("all", "vision_only")]
        cells += [spread_cell(column(row, name), 2) for name in ("absolute_skewness", "coefficient_of_variation")]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def p_text(p: float) -> str:
    """ "p = 0.03", "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.01 else f"p = {p:.2f}"


def difference_table(rows: Sequence[Row], reference: Row, first: str = "Order", samples: int = 4000) -> list[str]:
    """Lines: each row minus the reference, with intervals and p-values of the paired bootstrap."""
    lines = [f"| {first} minus {reference.label} | {' | '.join(COMPARED.values())} |", "|" + "---|" * 5]
    for row in rows:
        if row is reference or len(row.seeds) != len(reference.seeds):
            continue
        found = [paired_bootstrap(row.seeds, reference.seeds, name, samples) for name in COMPARED]
        cells = [f"{d.value:+.1f} ({d.low:+.1f} to {d.high:+.1f}), {p_text(d.p)}" if d else "–" for d in found]
        lines.append(f"| {row.label} | {' | '.join(cells)} |")
    return lines


def paper_table() -> list[str]:
    """Lines: the paper's own Table 3."""
    lines = ["| Order | LLM | ALL | Text-dom. | Vision-only | Gap, % |", "|" + "---|" * 6]
    for row in paper_tables()["table3"]:
        cells = [f"{row['mathverse'][name]:.1f}" for name in COMPARED]
        lines.append(f"| {row['order'].replace(' ', '')} | {row['model']} | {' | '.join(cells)} |")
    return lines


# ----------------------------------------------------------------------------------------------------------------------
# Chart


def draw_chart(path: Path, rows: Sequence[Row]) -> None:
    """Figure 4 for our rows: text and vision averages above; skewness and variation below; bars of one deviation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    places, width = np.arange(len(rows)), 0.38
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(max(5.5, 0.8 * len(rows) + 1.5), 6), sharex=True,
                                             height_ratios=(3, 2))

    def series(name: str) -> np.ndarray:
        found = [mean_and_deviation(column(row, name)) or (math.nan, math.nan) for row in rows]
        return np.array(found).T

    for offset, name, label, colour in ((-0.5, "text_average", "Text", "#3b6ea5"),
                                        (0.5, "vision_average", "Vision", "#d98b3a")):
        means, deviations = series(name)
        bars = above.bar(places + offset * width, means, width, yerr=deviations, label=label, color=colour, capsize=2)
        above.bar_label(bars, fmt="%.1f", fontsize=7)
    above.set_ylabel("average accuracy, %")
    for name, label, marker in (("absolute_skewness", "absolute skewness", "o"),
                                ("coefficient_of_variation", "coefficient of variation", "s")):
        means, deviations = series(name)
        below.errorbar(places, means, deviations, marker=marker, linestyle="--", linewidth=1, capsize=2, label=label)
    below.set_ylim(bottom=0)
    below.set_xticks(places, [row.label for row in rows], rotation=35, ha="right", fontsize=8)
    for axes in (above, below):
        axes.legend(frameon=False, loc="upper left", ncols=2, fontsize=8)
        axes.margins(y=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


# ----------------------------------------------------------------------------------------------------------------------
# The files


def write_table(sweep: str, finished: Mapping[Run, set[int]], out: Path, results: Path, bench: str, questions: str,
                samples: int) -> None:
    """One table with its differences as .md and .json; the main one (no sweep) with the chart and the paper's own."""
    runs = runs_of_table(finished, sweep)
    seeds = sorted(set.intersection(*(finished[run] for run in runs)))
    if not seeds:
        raise UserError(f"{out}: no seed has finished for every one of {', '.join(run.path for run in runs)}")
    rows, commands = [], {}
    for run in runs:
        title = "→".join(run.order) + (f", {run.change.replace('=', ' = ') or f'{sweep} as usual'}" if sweep else "")
        scores = [read_scores(out / f"seed{seed}" / run.path / "eval", bench, questions) for seed in seeds]
        group, budget = "" if sweep else ORDERS[run.order], budget_of(run, whole_run(finished))
        rows.append(Row(group, title, budget, scores, costs(run, seeds, out)))
        for made in (*(f"{path}/config.json" for path in prefixes(run)), f"{run.path}/eval/report.json"):
            commands[made] = (out / f"seed{seeds[0]}" / f"{made}.made_by").read_text(encoding="utf-8").strip()
    if len({row.label for row in rows}) < len(rows):
        raise UserError(f"{out}: two of {', '.join(run.path for run in runs)} have one name; part them")
    problems = len(next(iter(rows[0].seeds[0].right.values())))
    facts = {
        "commit": git_commit(), "device": device_name(), "torch": torch.__version__, "seeds": seeds,
        "test problems": problems,
        "milliseconds per row, forward and backward": {
            stage: round(1000 * cost["forward_backward_seconds"] / cost["rows"], 2)
            for stage, cost in rows[0].cost.items()
        },
        f"computation, of {rows[0].label}'s": computation(rows, Path(questions).with_name("tokens.json")),
    }
    first = "Variant" if sweep else "Order"
    title = f"# Table 3 in miniature: {out.resolve().name}" + (f", {sweep}" if sweep else "")
    text = [title, "", *main_table(rows, first), ""]
    text += [f"{len(seeds)} seeds, mean ± standard deviation; {problems} held-out problems. {NOTE}", ""]
    text += [*difference_table(rows, rows[0], first, samples), ""]
    text += [f"Paired bootstrap over problems within seeds, {samples} samples; 95 % intervals.", ""]
    if not sweep:
        draw_chart(results / "figure4.png", rows)
        text += ["![text and vision averages, skewness and variation](figure4.png)", "", "The paper's Table 3:", ""]
        text += [*paper_table(), ""]
    text += ["## To run it again", "", *(f"- {name}: {value}" for name, value in facts.items())]
    text += ["", "```", *commands.values(), "```"]
    results.mkdir(parents=True, exist_ok=True)
    stem = results / (f"sweep-{sweep}" if sweep else "table3")
    write_atomically(f"{stem}.md", "\n".join(text) + "\n")
    scores = {row.label: [dict(seed.metrics) | {"blind": dict(seed.blind)} for seed in row.seeds] for row in rows}
    write_atomically(f"{stem}.json", json.dumps(facts | {"scores": scores}, indent=1, ensure_ascii=False) + "\n")
    print("\n".join([*text[2 : 2 + len(rows) + 8], "", f"{stem}.md"]))


def device_name() -> str:
    """The GPU, or the processor and its cores."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{os.cpu_count()} cores of {cpu_name()}"


def main() -> None:
    """The table, then every sweep that has runs."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="what experiments/table3.sh left")
    parser.add_argument("--out_dir", type=Path, help="for tables and chart; default: beside the runs")
    parser.add_argument("--bench", default="generated")
    parser.add_argument("--data", default="", help="its questions; default: data/bench.jsonl beside the runs")
    parser.add_argument("--samples", type=int, default=4000, help="of the bootstrap")
    arguments = parser.parse_args()
    out, questions = arguments.out, arguments.data or str(arguments.out / "data/bench.jsonl")
    runs = finished_runs(out)
    if whole_run(runs) is None:
        raise UserError(f"{out}: no finished run of 1→2→3, to compare with; run experiments/table3.sh without changes")
    for sweep in sorted({run.change.partition("=")[0] for run in runs}):  # "": the table itself
        write_table(sweep, runs, out, arguments.out_dir or out, arguments.bench, questions, arguments.samples)


if __name__ == "__main__":
    run_main(main)
