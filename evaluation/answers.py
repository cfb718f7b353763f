"""A model's response → the text of its final answer, by rules.

    final_answer("... so x = 12.\\nThe answer is \\\\boxed{12}.")                 "12"

The last of the marks "\\boxed{}", "<answer>", "†", "Answer:", "the answer is", "B is the correct answer" decides.
Without one the sentences are asked: the last, those before it that begin with "so", the first; code, tables, closing
remarks and a check of the answer are no sentences. What is supposed ("if B is correct") or denied ("B is wrong") chooses
nothing. In doubt there is no answer: a wrong acceptance is worse than a wrong refusal. Thinking is no answer, finished
or not, nor is what a model writes after its own turn. Only the end of a response is read, so a megabyte costs nothing.
"""

import re
from itertools import islice, takewhile

from evaluation.expressions import NotMath
from evaluation.matcher import NUMBER_WORDS, Words, read

TAIL = 4000  # characters of a response that are read
LONGEST_REGION = 400  # characters after a mark
MOST_MARKS = 20  # the last ones

FULL_WIDTH = {0xFEE0 + code: code for code in range(33, 127)} | dict(zip(map(ord, "【】“”‘’"), "[]\"\"''", strict=True))
SPECIAL_TOKEN = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|<eos>|<(?:start|end)_of_turn>")
THOUGHT = re.compile(r"</(?:think|thinking|thought|reasoning)>|◁/think▷", re.I)
THINKING = re.compile(r"<(?:think|thinking|thought|reasoning)>|◁think▷", re.I)
LEADING_TOKENS = re.compile(r"(?:\s|<\|[^|<>\n]{1,40}\|>|<s>|<start_of_turn>|assistant\b|model\n)*")
# what a model writes on when its turn is over: a token that ends it, or the next question
TURN_END = re.compile(r"<\|(?:im_end|im_start|endoftext|end|eot_id|eom_id|end▁of▁sentence|user)\|>|</s>|<eos>"
                      r"|<(?:end|start)_of_turn>")
NEXT_QUESTION = re.compile(r"\n[\s*#]*(?:Question|Q|User|USER|Human|问题|问)\s*\d*[*\s]*:")
MARK = re.compile(
    r"(?P<boxed>\\(?:boxed|fbox)\s*\{)|(?P<bare>\\(?:boxed|fbox)(?=\s+\w|\d)\s*)|(?P<tag><\s*answer\s*>:?)|(?P<dagger>†(?:\s*answer\s*:)?)"
    r"|(?P<words>(?:final\s+|correct\s+|right\s+|my\s+)?\banswer\b(?:\s*\(option\))?[\"'*_`)\]>]*"
    r"\s*(?:(?:must|should|would|will)\s+be|is|are|:|=|[-–—]\s)[*_]*\s*:?|\bans\b\s*[.:=]"
    r"|\b(?:correct|right|best|matching)\s+(?:option|choice|statement|letter)\b(?:\s+letter\b)?[\"'*_`]*\s*(?:is|:|=)[*_]*\s*:?"
    r"|\b(?:option|choice)\s*:[*_]*|\bI\s+(?:choose|chose|pick|select|would choose|go with)\b"
    r"|(?:答案|正确选项)\s*(?:应该是|应为|应是|是|为|选|:)|[故应]选|(?:因此|所以)选|答\s*:)",
    re.I,
)
AFFIRMED = re.compile(  # "B is the correct answer", "option C must be right"; no point, angle or triangle B
    r"(?<!angle )(?<!triangle )(?<!point )(?<!line )(?<!∠)(?<![A-Za-z∠])(?P<letter>[A-H])\b[)\]*_\"']*\s+"
    r"(?:is|must be|should be)\s+(?:therefore\s+|thus\s+|indeed\s+|clearly\s+|also\s+)?(?:the\s+)?(?:only\s+)?"
    r"(?:(?:correct|right|best)\b|answer\b)"
)
CORRECTED = re.compile(
    r"\b(?:wait|oops|scratch that|correction|on second thoughts?|no,? (?:wait|sorry|that|it)|hmm+\W* no"
    r"|(?:that|this)(?:'s| is| was) (?:not (?:right|correct)|wrong|incorrect|a mistake)|I(?:'ve| have)? made an? "
    r"(?:mistake|error))\b",
    re.I,
)
UNDETERMINED = re.compile(r"\b(?:(?:cannot|can't|can not|could not) be (?:determined|found|answered)"
                          r"|(?:not enough|insufficient) information)\b",
                          re.I)
# what stands before a mark that is none: "if the answer is B", "neither A nor B is correct"
SUPPOSED = re.compile(r"\b(?:if|suppose|assum\w+|whether)\s+(?:that\s+)?(?:the\s+)?(?:option\s+|choice\s+)?[(\[]?$",
                      re.I)
DENIED = re.compile(
    r"\b(?:neither|none|not|nor)\b[^.!?\n]*$|\b[A-H]\b\W*(?:,|and|or)\W*(?:option\s+|choice\s+)?[(\[]?$", re.I
)
REASON = re.compile(
    r"\s*(?:,\s*)?\b(?:because|since|which|so that|given that|as (?:the|it|this|we|shown)|where|i\.e|rejecting"
    r"|when rounded|rounded|correct to|to the nearest|to \w+ decimal)\b.*$"
    r"|\s*,\s*(?:and\s+)?not\b.*$|\s*\(\s*not\b[^()]*\)\s*$",
    re.I | re.S,
)
SENTENCE = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)\s+(?=[A-Z(*\"\\$]|$)|(?<=。)")
# a line of an answer that has several: "Domain: [-4, 0)", then "Range: (-3, 1]"
PART = re.compile(
    r"[\s*_•-]*(?:the\s+)?(?:domain|range|(?:in|de)creas\w+|constant|(?:local|absolute|global)\s+m(?:ax|in)\w*)\b", re.I
)
NEGATED = re.compile(
    r"\b(?:not|except|but|in(?:correct|valid)|wrong|cannot|never|unless|neither|nor|eliminat\w+|exclud\w+|rul\w+ out)\b"
    r"|n't\b",
    re.I,
)
TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|boldsymbol|bf|rm)\s*\{([^{}]*)\}")
SEPARATORS = (r"=|\b(?:is|are|was|were|equals?(?:\s+to)?|gives?|get|be|measures?|costs?|has|have|totals?)\b|[是为]|等于",
              r"\b(?:of|to|as)\b")
NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:\s*(?:°|%))?"
CLOSING = re.compile(  # what is said to the reader when all is done
    r"\W*(?:(?:I\s+)?hope\b|(?:please\s+)?(?:let\s+me\s+know|feel\s+free|note\s+that\s+I)\b|if\s+you\s+(?:have|need|want|would)\b"
    r"|(?:is|are)\s+there\s+any|(?:do|would|can|could|does|may|shall)\b[^.!]*\?\W*$|thanks?\b|you(?:'re|\s+are)\s+welcome"
    r"|(?:good\s+luck|happy\s+to\s+help)\b|希望|如果你|如有|还有(?:其他|什么))",
    re.I,
)
OPENING = re.compile(r"\W*(?:sure|certainly|of\s+course|okay|ok|I\s+(?:see|understand|can\s+help)|yes,\s+I\s+can|let(?:'s|\s+us|\s+me)"
                     r"|here(?:'s|\s+is|\s+are))\b", re.I)
CHECK = re.compile(r"[\W_]*(?:(?:let(?:'s|\s+us|\s+me)|we\s+can|I\s+(?:will|can)|to)?\s*(?:now\s+|also\s+)?(?:double[- ]?)?"
                   r"(?:check|verify)\b|verification\b|substitut\w+\s+(?:this\s+|it\s+)?back\b|plugging\b[^.\n]*\bback\b|验证|检验)",
                   re.I)
CONCLUDES = re.compile(r"\W*(?:so|thus|hence|therefore|consequently|finally|in\s+conclusion|as\s+a\s+result|因此|所以|故|综上)(?![a-z])", re.I)
A_NUMBER = r"\d|\b(?:" + "|".join(word for word in NUMBER_WORDS if word != "one") + r")\b"
COUNT = re.compile(r"\bthere\s+(?:is|are|was|were|will\s+be|remains?)\s+(?:only\s+|a\s+total\s+of\s+|exactly\s+|still\s+)*"
                   r"(?P<count>\d+|" + "|".join(NUMBER_WORDS) + r")\b(?!\s*[-+*/×÷=.:^]\s*\d)", re.I)
COMPARED = re.compile(r"\b(?:than|above|below|under|over|at\s+(?:least|most)|up\s+to)\s+(?:\w+\s+){0,2}?" + NUMBER, re.I)
BOLD = re.compile(r"\*\*(?!\W*(?:step|case|part|method|figure|table|option|question|note)\b)([^*:\n]{0,40}\d[^*:\n]{0,40})\*\*",
                  re.I)
TABLE = re.compile(r"^[^\n|]*\|[^\n]*\n[ \t|:]*-{2,}[-|: \t]*\n(?:[^\n|]*\|[^\n]*(?:\n|$))*", re.M)
DENIES = re.compile(r"\b(?:not|never|neither|nor|cannot)\b|n't\b", re.I)
# what may stand between two boxes that are one answer: "\boxed{2} or x = \boxed{3}"
JOINT = re.compile(
    r"(?:\\q?quad\b|\\[,;:]|[\s$\\()\[\].~])*(?:,|;|and|or|\\text\s*\{\s*(?:,\s*)?(?:and|or)\s*\}|或|和)?"
    r"(?:\\q?quad\b|\\[,;:]|[\s$\\()~])*(?:[A-Za-z]\w?(?:_\{?\w\}?)?\s*=)?[\s$]*"
)


def tidy(response: str) -> str:
    """The end of a model's own turn, which alone is read: without thinking, special tokens and full-width letters."""
    thoughts = [match.end() for match in THOUGHT.finditer(response)]
    text = response[thoughts[-1] if thoughts else 0 :].translate(FULL_WIDTH)
    if unfinished := THINKING.search(text):
        text = text[: unfinished.start()]
    text = own_turn(text[LEADING_TOKENS.match(text).end() :])[-TAIL:]
    text = re.sub(r"\\(?:begin|end)\{(?:align|aligned|equation|gather|gathered|split)\*?\}|(?<=[\s\w])&(?==|\s*=)", " ",
                  text)
    return SPECIAL_TOKEN.sub("", text)


def own_turn(text: str) -> str:
    """The text up to the token that ends the turn, or up to a next question once an answer stands before it."""
    if end := TURN_END.search(text):
        text = text[: end.start()]
    for match in islice(NEXT_QUESTION.finditer(text), MOST_MARKS):
        before = text[: match.start()]
        if 0 < len(before.strip()) <= 80 or MARK.search(before, max(0, len(before) - TAIL)):
            return before
    return text


def clean(text: str) -> str:
    """Without Markdown's emphasis and code marks, quotes around the whole, and a full stop at the end."""
    text = re.sub(r"(?<![\w)])\*\*|\*\*(?![\w(])|__(?=\S)|`+|^#+\s*|^(?:[*•]\s+|-\s+(?=\D))", "", text.strip(),
                  flags=re.M).strip()
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
        if match.lastgroup == "letter":
            region = match["letter"]
        elif match.lastgroup == "bare":  # \\boxed 7
            region = re.match(r"[^\s{}$\\]*", text[match.end() : match.end() + LONGEST_REGION])[0]
        elif match.lastgroup == "boxed":
            region = braced(text, match.end())
            if region is None:
                continue
            between, box = text[box_end : match.start()], region.strip()
            joined = box_end >= 0 and len(between) < 40 and "\n" not in between and JOINT.fullmatch(between)
            if joined and box != last_box:
                region = f"{regions.pop()}, {region}"
            box_end, last_box = match.end() + len(box) + 1, box
        else:
            region = after_mark(text[match.end() : match.end() + 2 * LONGEST_REGION])
        if region.strip():
            regions.append(region.strip())
    return regions[::-1]


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
        if re.search(r"[\dπ∞]|\\(?:pi|infty|frac|sqrt)", candidate):
            return candidate
    if regions:
        return phrase(regions[0]) or None
    whole = clean(text)
    if len(text) <= 80 and "\n" not in text.strip() and len(SENTENCE.split(whole)) == 1:
        return (states_in_words(whole) and stated(text)) or phrase(whole) or whole
    lines = [line for line in text.split("\n") if line.strip(" \t*#`$\\[]-=_")]
    parts = [clean(line) for line in takewhile(PART.match, reversed(lines))][::-1]
    if len(parts) > 1:
        return "; ".join(parts)
    values = (stated(sentence) for sentence in conclusions(text))
    return bold_number(text) or next((value for value in values if value is not None), None)


def bold_number(text: str) -> str | None:
    """The one number that a text sets in bold, however often; None for none and several."""
    bold = BOLD.findall(text)
    numbers = {number for part in bold for number in re.findall(NUMBER, part)}
    return phrase(last_value(bold[-1]) or bold[-1]) if len(numbers) == 1 and not taken_back(text, None) else None


def conclusions(text: str, choices: list[str] | None = None) -> list[str]:
    """The sentences that may state the answer where no mark does, the likeliest first: the last, those before it that
    conclude something ("So ..."), the first. Code, tables, remarks to the reader and a check of the answer are none.
    """
    prose = TABLE.sub("\n", re.sub(r"```.*?(?:```|$)", "\n", text.replace("\r", ""), flags=re.S))
    found: list[str] = []
    for line in prose.split("\n"):
        if not line.strip(" \t*#`$\\[]-=_"):
            continue
        if found and CHECK.match(line):
            if taken_back(line, choices):
                return []
            break
        found += [sentence for sentence in SENTENCE.split(line.strip()) if sentence.strip()]
    while found and (CLOSING.match(found[-1]) or found[-1].rstrip().endswith(":")):
        found.pop()
    while len(found) > 1 and OPENING.match(found[0]):
        found.pop(0)
    if not found or any(taken_back(sentence, choices) for sentence in found[1:]):
        return found[-1:]
    return list(dict.fromkeys([found[-1], *filter(CONCLUDES.match, found[-2:0:-1]), found[0]]))


def states_in_words(sentence: str) -> bool:
    """Whether it takes words to read it: mathematics is compared as it stands."""
    try:
        return isinstance(read(sentence), Words) and bool(COUNT.search(sentence) or re.search(SEPARATORS[0], sentence))
    except NotMath:
        return False


def stated(sentence: str) -> str | None:
    """The value that a sentence states: its one bold number, a count ("there are two ..."), what follows its last "="
    or verb, or its only number; None for none. What it compares with ("larger than 4") is none.
    """
    if (bold := bold_number(sentence)) is not None:
        return bold
    plain = COMPARED.sub(" ", clean(sentence))
    if DENIES.search(plain):
        return None
    if count := COUNT.search(REASON.sub("", plain)):
        return None if re.search(A_NUMBER, plain[count.end() :], re.I) else count["count"]
    spans = re.findall(r"\$([^$]+)\$|\\\((.+?)\\\)", plain)
    if len(spans) == 1 and re.search(r"[<>]|\\(?:leq?|geq?)\b|[≤≥]", "".join(spans[0])):  # We find that $x > 5$ holds
        return "".join(spans[0]).strip()
    value = last_value(plain)
    if value is not None and re.search(r"\d|\\pi|π", value):
        value = phrase(value)
        if re.search(r"\d|\\pi|π", value):
            return value
    numbers = re.findall(NUMBER, plain)
    return numbers[-1].rstrip(",") if numbers and len(set(numbers)) == 1 else None


def last_sentence(line: str) -> str:
    """The last sentence of a line."""
    return clean(next((piece for piece in SENTENCE.split(clean(line))[::-1] if piece.strip()), ""))


def last_value(sentence: str) -> str | None:
    """What follows the last "=" or "is" of a sentence, else the last "of" or "to"; None without any."""
    for separators in SEPARATORS:
        ends = [match.end() for match in re.finditer(separators, sentence)]
        if ends:
            return sentence[ends[-1] :].strip()
    return None


def phrase(region: str) -> str:
    """The answer proper of what follows a mark: its first sentence, without reasons and remarks in brackets."""
    region = clean(SENTENCE.split(clean(region[:LONGEST_REGION]))[0])
    region = re.sub(
        r"\s+\((?:(?!or\b|and\b|to\b)[a-z≈~][^()]*|[^()]*\b(?:rounded|approx\w*|decimal|nearest|about|s\.?f|d\.?p)\b[^()]*)\)\s*$",
        "",
        region,
    )
    region = re.sub(r"^(\S*\d\S*(?: [^\d\s]{1,6})?)\s+is\s+the\b.*$", r"\1", region, flags=re.S)  # 14 cm is the length
    region = re.sub(r"^(\$?\d[\d.,]*\S*)\s+with\b.*$", r"\1", region, flags=re.S)
    return clean(re.split(r",?\s*\b(?:so|hence|thus|therefore)\s+|[∴⇒]", REASON.sub("", region))[-1])
