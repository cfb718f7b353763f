"""What the runs of table3.py add up to: scores over seeds, a paired bootstrap, a table like Table 3, a chart like
Figure 4.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation import BENCHMARKS
from evaluation.metrics import VERSIONS, across_versions
from evaluation.question import snake
from evaluation.report import paper_tables
from evaluation.store import read_lines
from files import read_json
from errors import UserError

COMPARED = {"all": "ALL", "text_dominant": "Text-dom.", "vision_only": "Vision-only", "gap": "Gap"}
ALL_VERSIONS = ("text_only", *VERSIONS)


@dataclass(frozen=True)
class Scores:
    """One trained folder, evaluated. right: {version: verdicts [problems], NaN where a problem lacks the version}."""

    metrics: Mapping[str, float | None]
    blind: Mapping[str, float | None]
    right: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Row:
    """One line of the table: the same chain trained with several seeds."""

    group: str
    order: str
    budget: str
    seeds: Sequence[Scores]
    cost: Mapping[str, float]  # of one seed's own stages: steps, tokens, minutes

    @property
    def label(self) -> str:
        return f"{self.order}, {self.budget}" if self.budget else self.order


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


@dataclass(frozen=True)
class Difference:
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
        cells = [row.order, row.budget or "both", f"{row.cost['steps']:,.0f}", f"{row.cost['tokens'] / 1e6:.2f}"]
        cells.append(f"{row.cost['minutes']:.1f}")
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
        cells = []
        for name in COMPARED:
            found = paired_bootstrap(row.seeds, reference.seeds, name, samples)
            cells.append("–"
                         if found is None
                         else f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f}), {p_text(found.p)}")
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
