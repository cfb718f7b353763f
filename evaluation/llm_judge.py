"""Extraction and verdicts by an LLM, with the structure of the official prompts in words of our own.

Few-shot examples, the row, one slot to fill. The reply to a verdict must be 0 or 1; another reply is asked again a few
times (the official script asks for ever) and then becomes an error row, never a wrong answer. Replies are cached by
llm.Client.
"""

import re
from collections.abc import Iterator, Mapping

from common.llm import Client, user_message
from evaluation.question import Question

ATTEMPTS = 3
LONGEST_RESPONSE = 6000  # characters of a response that the judge is shown: its end

EXTRACT = """\
Read the response of a model and write down the final answer that it gives, and nothing else. For a multiple-choice
question that is the letter of the option. Do not solve the question, do not correct the answer. If the response gives
no final answer, write null.

1.
Response: 'Adding both angles gives 35° + 40°, hence the angle we look for measures 75 degrees.'
Extracted answer: 75 degrees

2.
Response: 'Of the four options only (B) keeps the two lines parallel, so (B) it is.'
Extracted answer: B

3.
Response: 'The parabola opens downwards. Its vertex gives x = 2 and so the equation is y = -(x - 2)^2 + 3.'
Extracted answer: y = -(x - 2)^2 + 3

4.
Response: 'The picture cannot be read well enough to tell, so I will not guess.'
Extracted answer: null

5.
Response: 'The function rises between -3 and 1 and falls elsewhere: increasing on (-3, 1).'
Extracted answer: (-3, 1)
"""

HINTED = """\
Read a question, its hint and a model's response, and write down the final answer of the response in the form that the
hint asks for (an integer, a decimal number, a list, or the letter of an option), and nothing else.

Hint: Give an integer at the end.
Question: How many marbles are left?
Response: There were 17 and 3 were taken, so 14 marbles are left.
Extracted answer: 14

Hint: Give a number with one decimal place at the end.
Question: What part of the bars is red?
Response: About 13 of 20 bars, that is 65 %, are red.
Extracted answer: 0.7

Hint: Give a number with two decimal places at the end.
Question: How long is the arc?
Response: The arc is 1.2345 m long.
Extracted answer: 1.23

Hint: Give a list at the end.
Question: In which years did the line fall?
Response: It fell twice, in 2007 and again in 2009.
Extracted answer: [2007, 2009]

Hint: Give the letter of the right option at the end.
Question: Which part is shaded?
Choices: (A) 3/11 (B) 8/11 (C) 6/11
Response: Eight of the eleven fields are shaded, so the answer is 8/11.
Extracted answer: B
"""

VERDICT = """\
Below are a question, its standard answer and the answer extracted from a model's response. Write 1 if both answers
agree, else 0. For a question without options an answer of the same meaning agrees: another notation, another unit of
the same measure.

[Question]: Find the length of the mast.
[Standard answer]: 0.5 m
[Model answer]: 50 cm
Judgement: 1

[Question]: Which angle equals angle 1? A: angle 2, B: angle 3
[Standard answer]: A
[Model answer]: B
Judgement: 0

[Question]: Write the equation of the line.
[Standard answer]: y = 2x - 4
[Model answer]: 2x - y = 4
Judgement: 1

[Question]: On which interval does the function rise?
[Standard answer]: (-1, 4)
[Model answer]: [-1, 4)
Judgement: 0

[Question]: Find sin a.
[Standard answer]: 4/5
[Model answer]: null
Judgement: 0
"""


def extract(client: Client, bench_name: str, questions: list[Question], responses: Mapping[str, str]) -> Iterator[dict]:
    """A row {"id", "extraction"} or {"id", "error"} per question, in order; an empty response costs no call."""
    asked = [question for question in questions if responses[question.id].strip()]
    prompts = (extraction_prompt(bench_name, question, responses[question.id]) for question in asked)
    replies = client.chat_many(([user_message(prompt)] for prompt in prompts), max_tokens=512)
    for question in questions:
        if not responses[question.id].strip():
            yield {"id": question.id, "extraction": "" if bench_name == "mathvista" else None}
            continue
        reply = next(replies)
        if reply.error is not None:
            yield {"id": question.id, "error": f"extraction: {reply.error}"}
            continue
        text = re.sub(r"^\s*extracted answer\s*:\s*", "", reply.text, flags=re.I).strip()
        yield {"id": question.id, "extraction": None if text.lower() in ("null", "none") else text}


def extraction_prompt(bench_name: str, question: Question, response: str) -> str:
    """The few-shot examples and this row, its answer left open."""
    response = response[-LONGEST_RESPONSE:].replace("\0", "")
    if bench_name == "mathvista":
        return f"{HINTED}\n{question.prompt}\nResponse: {response}\nExtracted answer: "
    return f"{EXTRACT}\n6.\nResponse: '{response}'\nExtracted answer: "


def judge(client: Client, questions: list[Question], extractions: Mapping[str, str | None]) -> Iterator[dict]:
    """A row {"id", "correct"} or {"id", "error"} per question; equal texts and missing answers need no call."""
    waiting: dict[str, bool | str | None] = {}
    for question in questions:
        extraction = extractions[question.id]
        settled = extraction is None or extraction.strip() == question.answer.strip()
        waiting[question.id] = bool(extraction) and settled if settled else None
    for sample in range(ATTEMPTS):
        asked = [question for question in questions if waiting[question.id] is None]
        prompts = [[user_message(verdict_prompt(question, extractions[question.id]))] for question in asked]
        for question, reply in zip(asked, client.chat_many(prompts, max_tokens=64, sample=sample), strict=True):
            if reply.error is not None:
                waiting[question.id] = f"verdict: {reply.error}"
            else:
                waiting[question.id] = parse_verdict(reply.text)
    for question in questions:
        verdict = waiting[question.id]
        if isinstance(verdict, bool):
            yield {"id": question.id, "correct": verdict}
        else:
            yield {"id": question.id, "error": verdict or f"verdict: no 0 or 1 in {ATTEMPTS} replies"}


def verdict_prompt(question: Question, extraction: str) -> str:
    """The few-shot examples and this row, its judgement left open."""
    return (f"{VERDICT}\n[Question]: {question.text}\n[Standard answer]: {question.answer}\n"
            f"[Model answer]: {extraction[:2000]}\nJudgement: ")


def parse_verdict(reply: str) -> bool | None:
    r""" "1", "0.", "Judgement: 1" → True or False; None for a reply that is neither."""
    match = re.fullmatch(r"\s*(?:\W*judge?ment\W*)?([01])\W*\s*", reply, re.I)
    return None if match is None else match.group(1) == "1"
