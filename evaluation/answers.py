"""A model's response → the text of its final answer, by rules.

    final_answer("... so x = 12.\\nThe answer is \\\\boxed{12}.")                 "12"

The last of the marks "\\boxed{}", "<answer>", "†", "Answer:", "the answer is", "B is the correct answer" decides.
Without one the sentences are asked: the last, the one that it explains, those before it that begin with "so". Code,
tables, closing remarks and a check of the answer are no sentences. What is supposed ("if B is correct") or denied
("B is wrong") chooses nothing. In doubt there is no answer: a wrong acceptance is worse than a wrong refusal. Thinking
is no answer, finished or not, nor is what a model writes after its own turn. Only the end of a response is read.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice, takewhile

from evaluation.algebra import NotMath
from evaluation.values import Words, read
from evaluation.wording import (
    AFFIRMED, BOLD, CHECK, CLAUSES, CLOSING, COMPARED, COMPLETE, CONCLUDES, CONTRAST, CORRECTED, COUNT, DANGLING,
    DELIMITER, DENIED, DENIES, DERIVES, DIFFERENCE, EQUATION, EXPLAINING, EXPLAINS, FAILS, FURTHER_NUMBER,
    HYPOTHETICAL, JOINT, LEADING_TOKENS, MARK, NEXT_QUESTION, NOT_EMPTY, NOT_LISTED, NUMBER, OPENING, PART, PARTS,
    PENDING, REASON, SENTENCE, SEPARATORS, SHOWS, SOLUTION, SPECIAL_TOKEN, STATES_NOTHING, STEP, SUPPOSED, SUPPOSING,
    TABLE, THINKING, THOUGHT, TURN_END, UNANSWERED, UNDETERMINED, UNSOLVED, WHICH_IS
)

TAIL = 4000  # characters of a response that are read
LONGEST_REGION = 400  # characters after a mark
MOST_MARKS = 20  # the last ones

FULL_WIDTH = {0xFEE0 + code: code for code in range(33, 127)} | dict(zip(map(ord, "【】“”‘’"), "[]\"\"''", strict=True))


def after_thinking(response: str) -> tuple[str, bool]:
    """(what a response says once its thinking is over, whether it is thinking still at its end)."""
    thoughts = [match.end() for match in THOUGHT.finditer(response)]
    text = response[thoughts[-1] if thoughts else 0 :]
    unfinished = THINKING.search(text)
    return (text[: unfinished.start()], True) if unfinished else (text, False)


def tidy(response: str) -> str:
    """The end of a model's own turn, which alone is read: without thinking, special tokens and full-width letters."""
    text = after_thinking(response)[0].translate(FULL_WIDTH)
    text = re.sub(r"[ \t]+", " ", own_turn(text[LEADING_TOKENS.match(text).end() :])[-TAIL:])
    text = re.sub(r"\\(?:begin|end)\{(?:align|aligned|equation|gather|gathered|split)\*?\}|(?<=[\s\w])&(?==|\s*=)", " ",
                  text)
    return SPECIAL_TOKEN.sub("", text)


def own_turn(text: str) -> str:
    """The text up to the token that ends the turn, or up to a next question once an answer stands before it."""
    if end := TURN_END.search(text):
        text = text[: end.start()]
    for match in islice(NEXT_QUESTION.finditer(text), MOST_MARKS):
        before = text[: match.start()]
        short = STEP.sub("", before.strip(), count=1) if len(before) <= 200 else ""
        if re.search(r"\d|^\W*[A-H]\W*$", short[:80]) or MARK.search(before, max(0, len(before) - TAIL)):
            return before
    return text


def clean(text: str) -> str:
    """Without Markdown's emphasis and code marks, quotes around the whole, and a full stop at the end."""
    text = re.sub(r"(?<![\w)])\*\*|\*\*(?![\w(])|__(?=\S)|`+|^#+\s*|^(?:[*•]\s+|-\s+(?=\D))", "", text.strip(),
                  flags=re.M).strip()
    text = re.sub(r"</?(?:b|i|em|strong|span|p|br)\s*/?>", "", text)
    text = re.sub(r"[ \t]{2,}", " ", text)  # what the marks leave, which patterns would try at each blank
    text = re.sub(r"(?:</\w+>|<[A-Za-z]{2,}>)\s*$|(?<=\w)[*_]+$", "", text).strip()
    text = re.sub(r"^(?:<<|<|\"|')([^<>]*?)(?:>>|>|\"|')\.?$", r"\1", text, flags=re.S)
    return text.strip().rstrip(".。").strip()


def braced(text: str, start: int) -> str | None:
    """The content of the brace group that opens just before `start`; None when it never closes."""
    depth = 1
    for position in range(start, min(len(text), start + 1000)):
        depth += (text[position] == "{") - (text[position] == "}")
        if depth == 0:
            return text[start:position]
    return None


def taken_back(text: str, choices: list[str] | None) -> bool:
    """Whether what follows an answer takes it back: "no, wait"; "it cannot be determined", unless that is a choice."""
    if UNDETERMINED.search(text) and not any(map(UNDETERMINED.search, choices or ())):
        return True
    return bool(CORRECTED.search(text))


def marked(text: str, choices: list[str] | None = None) -> list[str] | None:
    """What follows each mark of a final answer, the last mark first; None where the response takes the last one back.

    choices: of a multiple-choice question, where "B is the correct answer" is a mark too; None for any other.
    """
    matches = [*MARK.finditer(text)] + ([*AFFIRMED.finditer(text)] if choices is not None else [])
    matches = sorted(matches, key=lambda match: match.end())[-MOST_MARKS:]
    before = {match: text[max(0, match.start() - 80) : match.start()] for match in matches}
    matches = [match for match in matches if not SUPPOSED.search(before[match])
               and not (match.lastgroup == "letter" and DENIED.search(before[match]))]
    if matches and taken_back(text[matches[-1].end() :], choices):
        return None
    regions: list[str] = []
    box_end, last_box = -1, ""
    for match in matches:
        if (nested := match.start() < box_end) and regions:  # a box in a box
            regions.pop()
        if match.lastgroup == "letter":
            region = match["letter"]
        elif match.lastgroup == "bare":  # \\boxed 7
            region = re.match(r"[^\s{}$\\]*", text[match.end() : match.end() + LONGEST_REGION])[0]
        elif match.lastgroup == "boxed":
            region = braced(text, match.end())
            if region is None:
                continue
            between, box = text[box_end : match.start()], region.strip()
            follows = box_end >= 0 and not nested and len(between) < 40 and "\n" not in between
            if follows and JOINT.fullmatch(between) and box != last_box:
                region = f"{regions.pop()}, {region}"
            box_end, last_box = match.end() + len(box) + 1, box
        else:
            region = after_mark(text[match.end() : match.end() + 2 * LONGEST_REGION])
            if HYPOTHETICAL.search(SENTENCE.split(region)[0]):
                continue
            if choices is not None and lists_choices(text[match.end() :].strip().split("\n", 2)[:2]):
                continue
        if region.strip():
            regions.append(region.strip())
    return regions[::-1]


def lists_choices(lines: list[str]) -> bool:
    """Whether two lines are choices told again, or gone through: each begins with a letter, the second a later one."""
    heads = [re.match(r"\W*(?:\d+[.)]\s*)?([A-H])\s*(?:[.:)]|$)", line) for line in lines]
    return len(heads) == 2 and all(heads) and heads[0][1] < heads[1][1]


def after_mark(rest: str) -> str:
    """The answer's place in what follows a mark: to the end of its line, or the box that stands there."""
    rest = rest.lstrip(" \t:*_")
    if rest.startswith("<<"):
        return rest[2:].split(">>")[0]
    lines = re.split(r"\n|</", rest.lstrip())
    region = lines[0] if not PART.match(lines[0]) else "; ".join(takewhile(PART.match, filter(str.strip, lines)))
    if re.fullmatch(r"\s*(?:\\\[|\$\$|\\begin\{\w+\*?\})\s*", region):  # a display formula begins on the next line
        region = " ".join(rest.lstrip().split("\n")[:3])
    inner = re.search(r"\\(?:boxed|fbox)\s*\{", region)
    content = braced(region, inner.end()) if inner else None
    return region if content is None else content


def is_marked(response: str, choices: Sequence[str] = ()) -> bool:
    """Whether a response marks its answer (a box, "Answer:"): one that was cut off may be read only then."""
    return bool(marked(tidy(response), list(choices) or None))


def final_answer(response: str) -> str | None:
    """The final answer of a free-form response, None where none is found."""
    text = tidy(response)
    if "\0" in response or not text.strip():
        return None
    regions = marked(text)
    if regions is None:
        return None
    for region in regions:
        candidate = phrase(region)
        if re.match(r"the\b[^\[(]*\b(?:is|are|equals)\b[^\[(]*$", candidate, re.I):
            candidate = stated(candidate, lone=False) or candidate
        if re.search(r"[\dπ∞]|\\(?:pi|infty|frac|sqrt)", candidate):
            return candidate
    if regions:
        return phrase(regions[0]) or None
    whole = clean(text)
    if len(text) <= 80 and "\n" not in text.strip() and len(SENTENCE.split(whole)) == 1:
        worded = in_words(whole)
        if worded and UNANSWERED.search(whole):
            return None
        return (worded and stated(text, lone=whole.count(" ") > 4)) or phrase(whole) or whole
    lines = list(filter(NOT_EMPTY, text.split("\n")))
    parts = [clean(line) for line in takewhile(PART.match, reversed(lines))][::-1]
    if len(parts) > 1:
        return "; ".join(parts)
    found = conclusions(text)
    values = [value for sentence in found if (value := stated(sentence)) is not None]
    if found and not DERIVES.search(found[0]) and not (values and BOLD.search(found[0])):
        values.insert(0, bold_number(text))  # of an answer that stands before its explanation
    return next(filter(None, values), None)


def bold_number(text: str) -> str | None:
    """The one number that a text sets in bold, however often; None for none and several."""
    bold = BOLD.findall(text)
    numbers = {number for part in bold for number in re.findall(NUMBER, part)}
    return phrase(next(last_values(bold[-1]), bold[-1])) if len(numbers) == 1 and not taken_back(text, None) else None


def prose(text: str) -> list[list[str]]:
    """The lines of a text as sentences, without code, tables, remarks to the reader, and the check of an answer."""
    text = re.sub(r"```\w*\n\s*([-+\w.,/°%= ]{1,20})\s*```", r"\1", text.replace("\r", ""))  # a value set as code
    without_code = re.sub(r"```.*?(?:```|$)", "\n", text, flags=re.S)
    text = TABLE.sub("\n", without_code if NOT_EMPTY(without_code) else text)
    lines: list[list[str]] = []
    checking, announced = False, False
    for line in text.split("\n"):
        if not NOT_EMPTY(line):  # a check ends with its paragraph, or with the one that it announces
            checking, announced = checking and announced, False
            continue
        found = [sentence for sentence in SENTENCE.split(line.strip()) if sentence.strip()]
        checks = [k for k, sentence in enumerate(found) if CHECK.match(sentence) and (lines or k)]
        if checks:
            checking, announced = True, line.rstrip("*_ ").endswith(":")
        checked = found[checks[0] if checks else 0 :] if checking else []
        if any(map(FAILS.search, checked)):
            return []
        lines.append(found[: len(found) - len(checked)])
    lines = [line for line in lines if line]
    while lines and (CLOSING.match(lines[-1][-1]) or (len(lines) > 1 and lines[-1][-1].rstrip().endswith(":"))):
        lines[-1].pop()
        lines = [line for line in lines if line]
    while lines and len(lines[0]) + len(lines) > 2 and OPENING.match(lines[0][0]):
        lines[0].pop(0)
        lines = [line for line in lines if line]
    return lines


def conclusions(text: str, choices: list[str] | None = None) -> list[str]:
    """The sentences that may state the answer where no mark does, the likeliest first: the last; the one that it
    explains ("This ..."); those before it that conclude something ("So ..."). Of a text that breaks off, or says that
    more is to be done, the last alone; behind one that has no answer, only what concludes.
    """
    found = sentences(text)
    *before, last = "", *filter(NOT_EMPTY, text.split("\n"))
    number = re.fullmatch(r"\W*(\d{1,3})[.)]\W*", last)
    if STEP.fullmatch(last) or number and re.match(rf"\W*{int(number[1]) - 1}[.)]", before[-1]):  # a list breaks off
        return []
    if not any(map(UNANSWERED.search, choices or ())):
        after = list(takewhile(lambda sentence: not UNANSWERED.search(sentence), reversed(found)))[::-1]
        refusals = found[: len(found) - len(after)]
        found = after if not refusals or NOT_LISTED.search(refusals[-1]) else [*filter(CONCLUDES.match, after)]
    while len(found) > 1 and EXPLAINS.match(found[-1]):
        found.pop()
    if len(found) > 1 and (not COMPLETE.search(found[-1]) or DANGLING.search(found[-1]) or PENDING.search(found[-1])
                           or taken_back(text.partition(found[0])[2], choices)):
        found = found[-1:]
    explained: list[str] = []
    if found and EXPLAINING.match(found[-1]) and not DENIES.search(found[-1]) and not any(map(PENDING.search, found)):
        explained = [sentence for sentence in found[-2::-1] if not EXPLAINING.match(sentence)][:1]
        explained = [sentence for sentence in explained if not SHOWS.match(sentence)]
    return list(filter(asserted, dict.fromkeys([*found[-1:], *explained, *filter(CONCLUDES.match, found[-2::-1])])))


def sentences(text: str) -> list[str]:
    """The sentences of a text's prose, without the numbers of its steps."""
    return [*filter(NOT_EMPTY, (STEP.sub("", sentence, count=1) if STEP.match(sentence) else sentence
                                for line in prose(text) for sentence in line))]


def asserted(sentence: str) -> bool:
    """Whether a sentence says something of its own: it is no task, no supposition, and does not break off."""
    return not (STATES_NOTHING.search(sentence) or DANGLING.search(sentence)
                or SUPPOSING.match(sentence) and MARK.search(sentence))


def in_words(text: str) -> bool:
    """Whether a text is a sentence, and no mathematics as it stands."""
    try:
        return text.lower().startswith("there ") or isinstance(read(text), Words)
    except NotMath:
        return False


def stated(sentence: str, lone: bool = True) -> str | None:
    """The value that a sentence states: its one bold number, a count ("there are two ..."), what follows its last "="
    or verb, or (where `lone`) its only number; None for none. What it compares with ("larger than 4") is none.
    """
    bold = [*BOLD.finditer(sentence)]
    restated = bold and re.search(rf"(?:{SEPARATORS[0]})\W*\d", sentence[bold[-1].end() :])
    if not restated and (value := bold_number(sentence)):
        return value
    sentence = re.sub(r"(?<=[\w°%])\s+\([^()]*(?:[a-z]{2}|[=:])[^()]*\)(?=\W*$)", "", clean(sentence))  # (to 1 d.p.)
    whole = COMPARED.sub(" ", sentence)
    plain = CONTRAST.sub("", REASON.sub("", whole))
    own_clause = [clause for clause in CLAUSES.split(plain) if re.search(r"\d", clause)][-1:] or [plain]
    if DIFFERENCE.search(sentence) or DENIES.search(own_clause[0]) or HYPOTHETICAL.search(plain):
        return None
    if (found := formula(plain)) is not None:
        return found
    unsolved = UNSOLVED.search(plain)
    *_, count = None, *COUNT.finditer(plain)
    several = count and FURTHER_NUMBER.search(plain, count.end())
    if count and not several:
        return count["count"] or count["left"]
    if (several and "=" not in plain[count.end() :]) or (unsolved and "=" not in plain[: unsolved.start()]):
        return None
    aside = WHICH_IS.search(whole)
    for value in map(phrase, chain(last_values(plain), last_values(CONTRAST.sub("", whole)))):
        if aside and not (re.match(r"\W{0,3}[\d\\√π]", value) and len(re.findall(NUMBER, value)) < 2):
            return phrase(aside[1])
        if re.search(r"\d|\\pi|π", value):
            return value
    numbers = re.findall(NUMBER, whole) if lone else []
    return numbers[-1].rstrip(",") if numbers and len(set(numbers)) == 1 else None


def formula(sentence: str) -> str | None:
    """The answer of a sentence whose value is no single number: "x = 1 or x = 3", "the equation is ...", "the domain is
    ... and the range is ...", "we find that $x > 5$".
    """
    solutions = SOLUTION.findall(DELIMITER.sub(" ", sentence))
    if len(solutions) > 1 and len({name for name, _ in solutions}) == 1:
        return ", ".join(value for _, value in solutions)
    if equation := EQUATION.search(sentence):
        return phrase(equation[1])
    if len({part.lower() for part in PARTS.findall(sentence)}) > 1:
        return phrase(sentence)
    spans = ["".join(span) for span in re.findall(r"\$([^$]+)\$|\\\((.+?)\\\)", sentence)]
    if len(spans) == 1 and re.search(r"[<>]|\\(?:leq?|geq?)\b|[≤≥]", spans[0]):
        return spans[0].strip()
    return None


def last_values(sentence: str) -> Iterator[str]:
    """What follows the last "=" or verb of a sentence, then what follows the last "of", "to" or "as"."""
    for separators in SEPARATORS:
        *_, end = 0, *(match.end() for match in re.finditer(separators, sentence))
        if end:
            yield sentence[end:].strip()


def phrase(region: str) -> str:
    """The answer proper of what follows a mark: its first sentence, without reasons and remarks in brackets."""
    region = clean(SENTENCE.split(clean(region[:LONGEST_REGION]))[0])
    region = re.sub(
        r"\s+\((?:(?!or\b|and\b|to\b)[a-z≈~][^()]*|[^()]*\b(?:rounded|approx\w*|decimal|nearest|about|s\.?f|d\.?p)\b[^()]*)\)\s*$",
        "",
        region,
    )
    region = re.sub(r"(?<=\d)\s+\([≈~]?\s*(?:[\d.,]+\s*%|0?\.\d+)\)$", "", region)  # 0.65 (65 %)
    region = re.sub(r"^(\S*\d\S*(?: [^\d\s]{1,6})?)\s+is\s+the\b.*$", r"\1", region, flags=re.S)  # 14 cm is the length
    region = re.sub(r"^(?:at|on)\s+(?:the\s+)?(?:point\s+|interval\s+)?(?=\$?\\?[(\[])", "", region)  # at (2, -1)
    tail = r"with\b.*|in (?:total|all)|altogether|left|remaining"
    region = re.sub(rf"^(\$?\d[\d.,]*\S*(?: \w+)?)\s+(?:{tail})$", r"\1", region, flags=re.S)
    return clean(re.split(r",?\s*\b(?:so|hence|thus|therefore)\s+|[∴⇒]", REASON.sub("", region))[-1])
