"""MathVerse, MathVista, We-Math and the generated bench: load, extract, judge, score; one module each, with the
same functions.
"""

from collections.abc import Mapping
from types import ModuleType

from evaluation import generated, mathverse, mathvista, metrics, wemath
from evaluation.question import Question

BENCHMARKS: dict[str, ModuleType] = {module.NAME: module for module in (mathverse, mathvista, wemath, generated)}


def judge_by_rules(bench: ModuleType, questions: list[Question], responses: Mapping[str, str],
                   protocol: str = "official") -> dict[str, bool]:
    """{id: verdict} of the responses, offline: extraction and judgement by rules."""
    asked = [question for question in questions if question.id in responses]
    return {
        question.id: bench.judge(question, bench.extract(question, responses[question.id], protocol), protocol)
        for question in asked
    }


def score(
    bench: ModuleType, questions: list[Question], verdicts: Mapping[str, bool], samples: int = 1000
) -> tuple[dict, dict]:
    """(metrics in percent, 95 % bootstrap intervals) of the rows that have a verdict."""
    return metrics.evaluate(questions, verdicts, bench.cluster_sums, bench.derive, samples)
