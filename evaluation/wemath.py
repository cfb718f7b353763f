"""We-Math testmini: 1,740 rows, 525 composite problems of two or three steps, each step a row of its own. The official
scorer is a program.

For a composite problem with step answers s and the whole answer m:
    IG: all s right, m wrong     IK: some s wrong, m wrong
    strict: CM: all s and m right     RM: m right, some s wrong
    loose:  CM: any s and m right     RM: m right, no s right
Rates are over N problems, RM's over CM + RM; score = (CM + IG / 2) / N. N is counted, not assumed.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evaluation import metrics
from evaluation.choices import LETTERS
from evaluation.question import Fields, Question, image_path, questions_of, read_rows, snake

NAME = "wemath"
LLM_EXTRACTION = LLM_VERDICT = False
TITLE = "We-Math testmini"
KEYWORDS = ("the correct option is", "The correct option is", "<Answer>:", "Answer:", "the answer is", "The answer is")
LEAF = "leaf."  # leaves of the knowledge tree, averaged into the twelve domains; not reported themselves


def load(path: str, image_root: str = "", protocol: str = "official") -> list[Question]:
    """Rows of testmini.json; the knowledge tree (…knowledge_structure_nodes.json) is read where it lies beside it."""
    domains = read_domains(Path(path).parent)

    def read(row: Fields) -> Question:
        problem, key, concept = row.text("ID"), row.text("key"), row.text("knowledge concept", "")
        groups = {"key": key, "concept": concept, "domain": domains.get(concept.strip().lower(), "")}
        question, option = row.text("question"), row.text("option", "")
        knowledge = row.text("knowledge concept description", "") if protocol == "puma" else ""
        answer = row.text("answer").strip()
        if not re.fullmatch(r"[1-9]steps_(?:[1-9]|multi)", key):
            raise row.wrong("key", key, "a step such as 2steps_1, or 2steps_multi")
        if answer not in tuple(LETTERS):
            raise row.wrong("answer", answer, f"the letter of an option, {LETTERS[0]} to {LETTERS[-1]}")
        return Question(f"{problem}/{key}", prompt(question, option, knowledge),
                        image_path(image_root, row.text("image_path", "")), f"{question}\n{option}", answer,
                        cluster=problem, groups=groups, row=row.row)

    return questions_of(path, read)


def read_domains(folder: Path) -> dict[str, str]:
    """{knowledge concept in lower case: its domain, one of twelve}; empty where the tree's file is not at hand."""
    files = sorted(folder.glob("*knowledge_structure_nodes.json"))
    rows = read_rows(files[0]) if files else []
    nodes = [Fields(f"{files[0]}: row {number}", row) for number, row in enumerate(rows, 1)]
    return {node.text("full node").rsplit("_", 1)[-1].strip().lower(): node.text("root2") for node in nodes}


def prompt(question: str, option: str, knowledge: str) -> str:
    """Question, options and the answer template; the paper's release adds the description of the knowledge concept,
    which helps.
    """
    return "\n".join([
        "Solve this multiple-choice question. Describe your thought process briefly, then give the final answer",
        "(the option's letter).",
        *([f"Knowledge: {knowledge}"] if knowledge else []),
        f"Question: {question}",
        f"Options: {option}",
        "Answer in this form, with both pairs of angle brackets:",
        "<Thought process>: <<your thought process>> <Answer>: <<the letter>>",
    ])


def extract(question: Question, response: str, protocol: str = "official") -> str | None:
    """The option's letter as the official scorer reads it (puma: as the paper's release reads it); None for none."""
    if protocol == "puma":
        for keyword in KEYWORDS:
            if keyword in response:
                match = re.search(r"[A-H]", response.split(keyword, 1)[1])
                return match.group() if match else None
        return None
    text = re.sub(r"[><:.]", "", response.rsplit("Answer", 1)[-1].strip()).strip()
    return text[0] if text and text[0] in LETTERS else None


def judge(question: Question, extraction: str | None, protocol: str = "official") -> bool:
    """Whether the letter is the gold one."""
    return extraction is not None and extraction.strip() == question.answer


def cluster_sums(cluster: list[Question], verdicts: Mapping[str, bool]) -> metrics.Sums:
    """Sums of one composite problem: its steps, the whole, and which of IG, IK, CM, RM it is. It counts only when
    every row has a verdict.
    """
    sums: metrics.Sums = dict.fromkeys(("all", "S1", "S2", "S3"), (0.0, 0.0))  # in this order in the report
    steps, wholes = [], []
    for question in cluster:
        right, key = bool(verdicts[question.id]), question.groups["key"]
        metrics.add(sums, "all", right)
        if key.endswith("_multi"):
            wholes.append(right)
            metrics.add(sums, "S" + key[0], right)
        else:
            steps.append(right)
            metrics.add(sums, "S1", right)
            if domain := question.groups["domain"]:
                metrics.add(sums, f"{LEAF}{domain}.{question.groups['concept'].strip().lower()}", right)
    if is_whole(cluster):
        add_dimensions(sums, steps, wholes[0])
    return sums


def is_whole(cluster: list[Question]) -> bool:
    """Whether these are all the rows of a composite problem: as many steps as their keys say, and the whole."""
    keys = sorted(question.groups["key"] for question in cluster)
    steps = keys[0][:1] if keys else "0"
    return keys == [*(f"{steps}steps_{k}" for k in range(1, int(steps) + 1)), f"{steps}steps_multi"]


def left_out(questions: list[Question], verdicts: Mapping[str, bool]) -> int:
    """How many composite problems no dimension counts, because a row or a verdict is missing."""
    clusters = metrics.clusters_of(questions).values()
    return sum(not is_whole([question for question in cluster if question.id in verdicts]) for cluster in clusters)


def add_dimensions(sums: metrics.Sums, steps: list[bool], whole: bool) -> None:
    """The four dimensions of one problem, strict and loose."""
    insufficient, inadequate = not all(steps) and not whole, all(steps) and not whole
    for kind, mastered in (("strict", all(steps)), ("loose", any(steps))):
        complete, rote = mastered and whole, not mastered and whole
        metrics.add(sums, f"{kind}.score", complete + 0.5 * inadequate)
        metrics.add(sums, f"{kind}.IK", insufficient)
        metrics.add(sums, f"{kind}.IG", inadequate)
        metrics.add(sums, f"{kind}.CM", complete)
        metrics.add(sums, f"{kind}.RM", rote, complete + rote)


def derive(scores: metrics.Scores) -> metrics.Scores:
    """The domains: mean over the leaves of each, leaves without a row left out."""
    leaves: dict[str, list[np.ndarray]] = {}
    for name in [name for name in scores if name.startswith(LEAF)]:
        leaves.setdefault(name[len(LEAF) :].split(".")[0], []).append(scores.pop(name))
    return {f"domain.{snake(domain)}": np.nanmean(np.stack(values), axis=0) for domain, values in leaves.items()}
