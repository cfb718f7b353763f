"""Scores as ratios of sums over clusters of rows, so that one bootstrap serves every benchmark.

A benchmark gives, per cluster (the rows of one problem), {name: (numerator, denominator)}; a score is the sum of
numerators over the sum of denominators, in percent. What is computed from other scores (gap, averages, skewness) is
derived from them, for the value itself and for each bootstrap sample alike. 0/0 is None, never an error.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from evaluation.question import Question

Sums = dict[str, tuple[float, float]]
Scores = dict[str, np.ndarray]  # name → [samples]; NaN where a denominator is nought

TEXT_VERSIONS = ("text_dominant", "text_lite")
VISION_VERSIONS = ("vision_intensive", "vision_dominant", "vision_only")
VERSIONS = TEXT_VERSIONS + VISION_VERSIONS  # the five of Figure 4; text_only stands apart


def add(sums: Sums, name: str, numerator: float, denominator: float = 1.0) -> None:
    """Add one count to a cluster's sums."""
    top, bottom = sums.get(name, (0.0, 0.0))
    sums[name] = (top + numerator, bottom + denominator)


def clusters_of(questions: Iterable[Question]) -> dict[str, list[Question]]:
    """Rows by cluster, in the order of the file."""
    clusters = defaultdict(list)
    for question in questions:
        clusters[question.cluster or question.id].append(question)
    return dict(clusters)


def evaluate(questions: Iterable[Question], verdicts: Mapping[str, bool],
             cluster_sums: Callable[[list[Question], Mapping[str, bool]], Sums], derive: Callable[[Scores], Scores],
             samples: int = 1000, seed: int = 0) -> tuple[dict[str, float | None], dict[str, tuple[float, float]]]:
    """(scores, 95 % intervals): each name's value, and the 2.5th and 97.5th percentile over `samples` bootstraps of
    clusters.
    """
    rows = [cluster_sums([question for question in cluster if question.id in verdicts], verdicts)
            for cluster in clusters_of(questions).values()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = np.array([[row.get(name, (0, 0)) for name in names] for row in rows], dtype=float)
    tops, bottoms = table.reshape(len(rows), len(names), 2).transpose(2, 0, 1)
    weights = np.zeros((0, len(rows)))
    if rows and samples:
        weights = np.random.default_rng(seed).multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=samples)
    value = _scores(np.ones((1, len(rows))), tops, bottoms, names, derive)
    spread = _scores(weights.astype(float), tops, bottoms, names, derive)
    scores = {name: None if not np.isfinite(array[0]) else round(float(array[0]), 4) for name, array in value.items()}
    intervals = {}
    for name, score in scores.items():
        finite = spread[name][np.isfinite(spread[name])]
        if score is not None and len(finite) >= 0.9 * samples > 0:
            low, high = np.percentile(finite, [2.5, 97.5])
            intervals[name] = (round(float(low), 4), round(float(high), 4))
    return scores, intervals


def _scores(weights: np.ndarray, tops: np.ndarray, bottoms: np.ndarray, names: list[str],
            derive: Callable[[Scores], Scores]) -> Scores:
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means over nothing are NaN, and reported as such
        ratios = 100 * (weights @ tops) / (weights @ bottoms)
        scores = {name: ratios[:, k] for k, name in enumerate(names)}
        derived = derive(scores)  # may take helper scores away
        return {**scores, **derived}


def across_versions(scores: Scores) -> Scores:
    """The paper's measures of the modality gap (Table 3, Figure 4), for benchmarks whose rows come in versions.

    gap: (text-dominant − vision-only) / vision-only, in percent. text_average, vision_average: means of the text
    versions (two) and of the vision versions (three). absolute_skewness, coefficient_of_variation: of the five
    scores (population moments), plain numbers. A bench with fewer versions is measured over those it has.
    """
    found: Scores = {}
    if "text_dominant" in scores and "vision_only" in scores:
        found["gap"] = 100 * (scores["text_dominant"] - scores["vision_only"]) / scores["vision_only"]
    for name, versions in (("text_average", TEXT_VERSIONS), ("vision_average", VISION_VERSIONS)):
        present = [scores[version] for version in versions if version in scores]
        if present:
            found[name] = np.mean(present, axis=0)
    present = [scores[version] for version in VERSIONS if version in scores]
    if len(present) >= 3:
        spread = np.stack(present)
        centred = spread - spread.mean(axis=0)
        deviation = np.sqrt((centred**2).mean(axis=0))
        skewness = np.abs((centred**3).mean(axis=0)) / deviation**3
        found["absolute_skewness"] = np.where(deviation < 1e-9, 0.0, skewness)  # equal scores: no skew
        found["coefficient_of_variation"] = deviation / spread.mean(axis=0)
    return found
