"""Explanations of solutions by a language model, kept only where their final answer is the program's.

    explainer = Explainer(Client(url, model, cache="data/llm_cache"))
    store.merge(plan, out, explainer)

The model sees the text-only form of a problem, which holds all of it, and is told neither answer nor solution: what it
says counts as an explanation only if it arrives at the program's answer, as the evaluation's own matcher judges. Else
it is asked again, and then the program's own solution stays. One explanation stands in every row of its problem, so
that the two sides of a pair keep one solution. The benchmark's solutions are always the program's.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from tqdm import tqdm

from common.llm import Client, Reply, user_message
from common.shards import told_in_one_line
from evaluation import generated
from evaluation.question import Question
from problems.pairs import choices_of

TRIES = 3  # times that one problem is asked: the first greedily, then with a temperature
TEMPERATURE = 0.7
MAX_TOKENS = 2048
PROMPT = (
    "Solve the following problem step by step. Explain each step in a sentence or an equation. End with one line of "
    'the form "Answer: X", where X is {form}.\n\n{problem}'
)
VALUE, LETTER = "the final answer alone, exact unless the problem says otherwise", "the letter of the right choice"
LAST_LINE = re.compile(r"^\W*(?:final\s+)?answer\W*[:=].*$", re.IGNORECASE)


class Explainer:
    """Asks for explanations, and counts what came of it.

    counts: problems "explained by the model"; problems that kept the program's solution, by reason; and the tokens of
    every reply that was used or refused, whether it came from the server or from the cache.
    """

    def __init__(self, client: Client):
        self.client = client
        self.counts: Counter[str] = Counter()

    def explain(self, problems: Iterable[tuple[tuple[str, int], dict]]) -> Iterator[tuple[tuple[str, int], dict]]:
        """The (shard, problem) of store.lines, in order, with the model's explanations in their rows.

        Holds a bounded number of problems at a time.

        Raises:
            UserError: the server has failed too often in a row, or the cache cannot be written.
        """
        problems = iter(problems)
        with tqdm(unit="problem", desc="explaining", smoothing=0.02) as bar:
            while block := list(islice(problems, 32 * self.client.concurrency)):
                with told_in_one_line(self.client.cache):
                    self._explain_block([problem["rows"] for _, problem in block if "stage1" in problem["rows"]])
                bar.update(len(block))
                yield from block

    def manifest(self) -> dict[str, object]:
        """What the data set's manifest says of it."""
        return {"model": self.client.model, **dict(sorted(self.counts.items()))}

    def _explain_block(self, problems: list[dict[str, list[dict]]]) -> None:
        """Give the problems (their rows by file) their explanations, asking those again that brought none."""
        waiting, failed = problems, 0
        for sample in range(TRIES):
            asked = [question_of(rows["stage1"][0]) for rows in waiting]
            replies = self.client.chat_many(
                [[user_message(question.prompt)] for question in asked],
                sample=sample, temperature=TEMPERATURE if sample else 0.0, max_tokens=MAX_TOKENS,
            )
            again, failed = [], 0
            for rows, question, reply in zip(waiting, asked, replies, strict=True):
                text = self._kept(question, reply)
                if text is None:
                    again.append(rows)
                    failed += reply.error is not None
                else:
                    set_solution(rows, text)
            waiting = again
        self.counts["explained by the model"] += len(problems) - len(waiting)
        self.counts["own solution: the model's answer differs"] += len(waiting) - failed
        self.counts["own solution: the server failed"] += failed

    def _kept(self, question: Question, reply: Reply) -> str | None:
        """The explanation with the program's last line, or None where there is none that may be kept."""
        self.counts["prompt tokens"] += reply.prompt_tokens
        self.counts["completion tokens"] += reply.completion_tokens
        if reply.error is not None or not generated.judge(question, generated.extract(question, reply.text)):
            return None
        work = without_last_line(reply.text)
        return f"{work}\nAnswer: {question.answer}" if work else None


def question_of(row: dict) -> Question:
    """What the model is asked about a problem, from its row of stage1.jsonl, and what the matcher must know."""
    text, choices = row["instruction"], choices_of(row["instruction"])
    prompt = PROMPT.format(form=LETTER if choices else VALUE, problem=text)
    return Question(row["id"], prompt, image="", text=text, answer=row["answer"], choices=choices)


def without_last_line(text: str) -> str:
    """An explanation without the line that repeats the answer; empty where nothing else was said."""
    lines = text.strip().splitlines()
    while lines and (not lines[-1].strip() or LAST_LINE.match(lines[-1])):
        lines.pop()
    return "\n".join(line.rstrip() for line in lines)


def set_solution(rows: dict[str, list[dict]], solution: str) -> None:
    """Put a solution into all rows of a problem but its caption."""
    for row in (*rows["stage1"], *rows["stage2"], *rows["stage3"]):
        row["output"] = solution
        if "output_2" in row:
            row["output_2"] = solution
