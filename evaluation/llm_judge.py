"""Extraction and verdicts by an LLM, with the structure of the official prompts in words of our own.

Few-shot examples, the row, one slot to fill. A judge's reply is read by the rules that read a model's response, so it
need not be bare. Where it holds no answer of the row's kind (a letter of its choices, a number, a list; 0 or 1 for a
verdict) the judge is asked again a few times (the official script asks forever); then the row is an error, never a
wrong answer. Replies are cached by llm.Client.
"""

import re
from collections.abc import Callable, Mapping
from types import ModuleType

from tqdm import tqdm

from common.llm import Client, user_message
from evaluation.answers import clean
from evaluation.choices import fold
from evaluation.question import Question
from evaluation.wording import THINKING, THOUGHT

ATTEMPTS = 3
AGAIN = 0.7  # the temperature of the attempts after the first, where the first had none
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
hint asks for (an integer, a decimal number, a list, or the letter of an option), and nothing else. If the response
gives no final answer, write null.

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


LEAD = re.compile(r"^\W*(?:the\s+|my\s+)?(?:extracted\s+|final\s+)*answer\b[\"'*_`]*\s*(?:is\b|:|=)[\s:*]*", re.I)
NO_ANSWER = re.compile(r"null|none|nil|n\s*[/.]\s*a|not (?:available|given|provided|stated)"
                       r"|.{0,60}\b(?:no|not \w+ an?y?) (?:final |clear )?answer\b.{0,40}", re.I)
REFUSED = re.compile(r"\bsorry\b|\bI(?:'m| am)? (?:unable|cannot|can't|can not|don't|do not)\b", re.I)
# "the response says 5, but the correct answer is 7"
OWN_SOLUTION = re.compile(
    r"\b(?:says?|gives?|chooses?|chose|answers?|picks?|states?)\b.*\b(?:but|however|though|although)\b.*"
    r"\b(?:correct|right|true)\b", re.I | re.S
)
# where the judge writes on as the prompt does
NEXT_EXAMPLE = re.compile(r"\n\s*(?:\d+\.\s*\n\s*)?(?:Response|Hint|\[Question\])\s*:")
BARE_VERDICT = re.compile(  # "1", "1, because ..."; "1. One answer is ..." begins a list
    r"[^\w\n]*(?:\\?boxed\W*)?([01])(?:\s*[,:;(-]\s*(?!\d|or\b|if\b|unless\b)[^\n]*|[^\w\n]*)"
)
SAID_VERDICT = re.compile(
    r"\b(?:judge?ment|verdict)\b[\s\"'*_`:=\])]*(?:is\b)?[\s\"'*_`:(\[]*([01])\b(?![.,][1-9])", re.I
)
CONTRADICTED = re.compile(r"[^\w\n]*(?:or|if|unless|maybe|wait|no)\b|\s*[/,-]\s*[01]\b", re.I)  # takes a verdict back


def extract(client: Client, bench: ModuleType, questions: list[Question], responses: Mapping[str, str],
            **options: object) -> dict[str, dict]:
    """{id: {"extraction": …} or {"error": …}}; None for no answer; an empty response costs no call.

    options: max_tokens and temperature of Client.chat.
    """
    rows = {question.id: {"extraction": None} for question in questions if not responses[question.id].strip()}
    asked = {question.id: question for question in questions if question.id not in rows}

    def read(key: str, reply: str, last: bool) -> dict | None:
        row = read_extraction(bench, asked[key], reply)
        if row is None and last and is_quoted(bare(reply), responses[key]):
            # The judge is faithful: the response itself names no choice or number. MathVista's program would credit the
            # nearest choice, so it gets none.
            return {"extraction": bare(reply) if bench.LLM_VERDICT else None}
        return row

    prompts = {key: extraction_prompt(bench.NAME, question, responses[key]) for key, question in asked.items()}
    return rows | ask(client, prompts, read, "extraction", "no answer of the row's kind", options)


def ask(client: Client, prompts: Mapping[str, str], read: Callable[[str, str, bool], dict | None], what: str,
        lacks: str, options: dict) -> dict[str, dict]:
    """{key: row} of prompts by key: what read(key, reply, whether this is the last attempt) returns, or an error."""
    if not all(client.is_kept([user_message(prompt)], **options) for prompt in prompts.values()):
        client.check(**options)
    rows: dict[str, dict] = {}
    for sample in range(ATTEMPTS):
        last = sample == ATTEMPTS - 1
        waiting = [key for key in prompts if key not in rows]
        varied = {"temperature": options["temperature"] or AGAIN} if sample else {}
        replies = client.chat_many(([user_message(prompts[key])] for key in waiting), sample=sample, **options | varied)
        for key, reply in tqdm(zip(waiting, replies, strict=True), total=len(waiting), desc=what, disable=not waiting):
            if reply.error is not None:
                rows[key] = {"error": f"{what}: {reply.error}"}
            elif reply.cut:
                rows[key] = {"error": f"{what}: the reply was cut off at {options['max_tokens']} tokens; allow more"}
            elif row := read(key, reply.text, last):
                rows[key] = row
            elif last:
                rows[key] = {"error": f"{what}: {lacks} in {ATTEMPTS} replies, the last {reply.text[-60:]!r}"}
    return rows


def extraction_prompt(bench_name: str, question: Question, response: str) -> str:
    """The few-shot examples and this row, its answer left open."""
    response = response[-LONGEST_RESPONSE:].replace("\0", "")
    if bench_name == "mathvista":
        return f"{HINTED}\n{question.prompt}\nResponse: {response}\nExtracted answer: "
    return f"{EXTRACT}\n6.\nResponse: '{response}'\nExtracted answer: "


def conclusion_of(reply: str) -> str:
    """A reply without its thinking, "" for one that goes on and on. Of thinking alone, the last line, if that announces
    an answer.
    """
    text = NEXT_EXAMPLE.split(THOUGHT.split(reply)[-1].strip())[0]
    if not THINKING.match(text):
        return text if len(text) <= LONGEST_RESPONSE else ""
    last = text.splitlines()[-1][:LONGEST_RESPONSE]
    return last if LEAD.match(last) or SAID_VERDICT.search(last) or len(last.split()) == 1 else ""


def bare(reply: str) -> str:
    """An extraction without thinking, announcement, emphasis and quotes."""
    return clean(LEAD.sub("", clean(conclusion_of(reply))))


def is_quoted(text: str, response: str) -> bool:
    """Whether a short text stands in a response, word for word."""
    return 0 < len(text) <= 100 and bool(re.search(rf"(?<!\w){re.escape(fold(text))}(?!\w)", fold(response)))


def read_extraction(bench: ModuleType, question: Question, reply: str) -> dict | None:
    """{"extraction": the answer, or None where the judge says that there is none}; None for an unclear reply."""
    text, answer = conclusion_of(reply), bare(reply)
    if not answer:
        return None
    lines = [bare(line) for line in text.splitlines() if line.strip()]
    found = bench.extract(question, answer if len(lines) == 1 else text)
    if answer in question.choices:  # "None" may be one
        return {"extraction": found or answer}
    if NO_ANSWER.fullmatch(lines[0]) or NO_ANSWER.fullmatch(lines[-1]):
        return {"extraction": None} if found is None or len(lines) == 1 else None
    if REFUSED.search(text) or OWN_SOLUTION.search(text):  # what it says then is not the response's answer
        return None
    if bench.LLM_VERDICT and not question.choices:  # any text, for the judge to compare
        short = len(lines) == 1 and len(answer.split()) <= 12
        found = answer if short else found
    return {"extraction": found} if found else None


def judge(client: Client, questions: list[Question], extractions: Mapping[str, str | None],
          **options: object) -> dict[str, dict]:
    """{id: {"correct": …} or {"error": …}}; equal texts and missing answers need no call. options: as of extract."""
    rows, prompts = {}, {}
    for question in questions:
        extraction = extractions[question.id]
        if not extraction or extraction.strip() == question.answer.strip():
            rows[question.id] = {"correct": bool(extraction)}
        else:
            prompts[question.id] = verdict_prompt(question, extraction)

    def read(key: str, reply: str, last: bool) -> dict | None:
        verdict = parse_verdict(reply)
        return None if verdict is None else {"correct": verdict}

    return rows | ask(client, prompts, read, "verdict", "no 0 or 1", options)


def verdict_prompt(question: Question, extraction: str) -> str:
    """The few-shot examples and this row, its judgement left open."""
    return (f"{VERDICT}\n[Question]: {question.text}\n[Standard answer]: {question.answer}\n"
            f"[Model answer]: {extraction[:2000]}\nJudgement: ")


def parse_verdict(reply: str) -> bool | None:
    r""" "1", "**0**", "Judgement: 1", "The judgement is 1.", "Both are 5 cm.\n1" → True or False; None for a reply that
    says neither, or both.
    """
    text = conclusion_of(reply)
    said = [match[1] for line in text.splitlines() if (match := BARE_VERDICT.fullmatch(line))]
    for match in SAID_VERDICT.finditer(text):
        said += "01" if CONTRADICTED.match(text, match.end()) else match[1]
    return said[0] == "1" if len(set(said)) == 1 else None
