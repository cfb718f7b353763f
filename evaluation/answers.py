"""A model's response → its final answer, by rules: the text of it, or the letter of the choice it names.

    final_answer("... so x = 12.\\nThe answer is \\\\boxed{12}.")                 "12"
    chosen_letter("**Answer:** (c) 65°", ["40°", "50°", "65°", "90°"])        "C"
    chosen_letter("It is either B or C.", [...])                              None: several letters are no answer
    chosen_letter("The answer is B. No wait, it is C.", [...])                None: it takes its answer back

The last of the marks "\\boxed{}", "<answer>", "†", "Answer:", "the answer is", "B is the correct answer" decides;
without one a bare letter on the first line, or the last sentence. What is supposed ("if B is correct") or denied ("B is
wrong") chooses nothing. In doubt there is no answer: a wrong acceptance is worse than a wrong refusal. Only the end of
a response is read, behind </think> where there is one, so a megabyte of it costs nothing.
"""

import re
from itertools import takewhile

from evaluation.matcher import equal

TAIL = 4000  # characters of a response that are read
LONGEST_REGION = 400  # characters after a mark
MOST_MARKS = 20  # the last ones
LETTERS = "ABCDEFGH"

FULL_WIDTH = {0xFEE0 + code: code for code in range(33, 127)} | dict(zip(map(ord, "【】“”‘’"), "[]\"\"''", strict=True))
SPECIAL_TOKEN = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|<eos>|<(?:start|end)_of_turn>")
MARK = re.compile(
    r"(?P<boxed>\\(?:boxed|fbox)\s*\{)|(?P<tag><\s*answer\s*>:?)|(?P<dagger>†(?:\s*answer\s*:)?)"
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
TOLD = re.compile(r"\b(?:option|choice)\s+\(?([A-H])\b|\(([A-H])\)")
NEGATED = re.compile(
    r"\b(?:not|except|but|in(?:correct|valid)|wrong|cannot|never|unless|neither|nor|eliminat\w+|exclud\w+|rul\w+ out)\b"
    r"|n't\b",
    re.I,
)
REASON = re.compile(
    r"\s*(?:,\s*)?\b(?:because|since|which|so that|given that|as (?:the|it|this|we|shown)|where|i\.e|rejecting"
    r"|when rounded|rounded|correct to|to the nearest|to \w+ decimal)\b.*$"
    r"|\s*,\s*(?:and\s+)?not\b.*$|\s*\(\s*not\b[^()]*\)\s*$",
    re.I | re.S,
)
SENTENCE = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)\s+(?=[A-Z(*\"\\$]|$)|(?<=。)")
LETTER = r"[(\[{<\"']{0,3}\b[A-Ha-h]\b[)\]}>\"']{0,3}"
SEVERAL = re.compile(
    rf"^\W{{0,6}}(?:both|either|neither|all|none|not)?\W{{0,6}}{LETTER}\W{{0,6}}(?:,|;|\?|/|&|\+|and|or|nor)\W{{0,6}}"
    r"(?:(?:also|maybe|possibly|perhaps|even|else|either)\W+)*(?:option|choice)?\W{0,6}\b[A-H]\b(?!')",
    re.I,
)
# a line of an answer that has several: "Domain: [-4, 0)", then "Range: (-3, 1]"
PART = re.compile(
    r"[\s*_•-]*(?:the\s+)?(?:domain|range|(?:in|de)creas\w+|constant|(?:local|absolute|global)\s+m(?:ax|in)\w*)\b", re.I
)
TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|boldsymbol|bf|rm)\s*\{([^{}]*)\}")
SEPARATORS = (r"=|\b(?:is|are|equals|gives|get|be)\b|[是为]|等于", r"\b(?:of|to)\b")
# what may stand between two boxes that are one answer: "\boxed{2} or x = \boxed{3}"
JOINT = re.compile(
    r"[\s$\\()\[\].]*(?:,|;|and|or|\\text\s*\{\s*(?:and|or)\s*\}|或|和)?[\s$\\()]*(?:[A-Za-z]\w?(?:_\{?\w\}?)?\s*=)?[\s$]*"
)


def tidy(response: str) -> str:
    """The end of a response, which alone is read: without its thinking, special tokens and full-width letters."""
    text = response.rpartition("</think>")[2][-TAIL:].translate(FULL_WIDTH)
    text = re.sub(r"\\(?:begin|end)\{(?:align|aligned|equation|gather|gathered|split)\*?\}|(?<=[\s\w])&(?==|\s*=)", " ",
                  text)
    return SPECIAL_TOKEN.sub("", text)


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
        return phrase(whole) or whole
    lines = [line for line in text.split("\n") if line.strip(" \t*#`$\\[]-=_")]
    if not lines:
        return None
    parts = [clean(line) for line in takewhile(PART.match, reversed(lines))][::-1]
    if len(parts) > 1:
        return "; ".join(parts)
    sentence = last_sentence(lines[-1])
    value = last_value(sentence)
    if value is not None and re.search(r"\d|\\pi|π", value):
        return phrase(value)
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:\s*(?:°|%))?", sentence)
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
    return clean(re.split(r",?\s*\b(?:so|hence|thus|therefore)\s+|[∴⇒]", REASON.sub("", region))[-1])


# -----------------------------------------------------------------------------
# multiple choice


def chosen_letter(response: str, choices: list[str]) -> str | None:
    """The letter, "A" to "H", of the choice that a response names; None for none and several. choices: their texts."""
    text = tidy(response)
    if "\0" in response or not text.strip():
        return None
    regions = marked(text, choices)
    if regions is None:
        return None
    for region in regions:
        letter, stop = letter_of(region, choices)
        if letter or stop:
            return letter
    whole = clean(text)
    if len(text) <= 200 and "\n" not in whole:
        letter, stop = letter_of(whole, choices)
        if letter or stop:
            return letter
    lines = [clean(line) for line in whole.split("\n") if line.strip()]
    if not lines or lists_choices(lines[-2:]):
        return None
    letter, stop = letter_of(lines[-1], choices, strict=True)
    if len(lines) > 1 and not lists_choices(lines[:2]) and is_choice(lines[0], choices):
        first = letter_of(lines[0], choices, strict=True)[0]  # the answer first, then its explanation
        return first if letter in (None, first) and not taken_back("\n".join(lines[1:]), choices) else None
    if letter or stop:
        return letter
    return named_in(last_sentence(lines[-1]), choices) or by_text(final_answer(response) or "", choices)


def lists_choices(lines: list[str]) -> bool:
    """Whether two lines are choices told again: one begins with a letter, the other with the next."""
    heads = [re.match(r"\W*([A-H])\s*(?:[.:)]|$)", line) for line in lines]
    return len(heads) == 2 and all(heads) and ord(heads[1][1]) - ord(heads[0][1]) == 1


def is_choice(line: str, choices: list[str]) -> bool:
    """Whether a line is nothing but a choice: its letter, or its letter and its text."""
    match = re.fullmatch(r"\W*(?:option\s+|choice\s+)?\(?([A-H])\b[).:\s]*(.*)", line, re.I)
    return bool(match) and (not match[2] or is_text_of(match[1].upper(), match[2], choices))


NAMED = re.compile(
    r"\(([A-H])\)|\b(?:option|choice)\s+\(?([A-H])\b|\bis:?\s+\(?([A-H])\)?\W*$|选(?:项|择)?\s*\(?([A-H])\b"
    r"|\b(?:it'?s|must be|therefore|thus|hence|so|select|choose|pick|go with|corresponds to|matches)\W+\(?"
    r"([A-H])\)?\W*$",
    re.I,
)


def named_in(sentence: str, choices: list[str]) -> str | None:
    """The one choice that a sentence names by its letter or, at its end, by its text; None for none and several."""
    letters = {next(filter(None, groups)) for groups in NAMED.findall(sentence)}
    if letters:
        letter = letters.pop()
        known = letter.isupper() and in_range(letter, choices)
        return letter if not letters and known and not NEGATED.search(sentence) else None
    value = last_value(sentence) or ""
    head = re.match(r"\(?([A-H])\)?\s*[:.]\s", value)
    return letter_of(value, choices, strict=True)[0] if head else by_text(value, choices, whole=True)


def in_range(letter: str, choices: list[str]) -> bool:
    """Whether the letter names one of the choices; without a list of them any of A to H does."""
    return letter in LETTERS[: len(choices) or len(LETTERS)]


TITLE = re.compile(
    r"^\W*(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|letter|answer|result|solution|conclusion|assistant)\b"
    r"(?:\s+is)?\s*:?|(?:most\s+)?(?:probably|likely|definitely|clearly))\s*",
    re.I,
)


def letter_of(region: str, choices: list[str], strict: bool = False) -> tuple[str | None, bool]:
    """(letter, stop) of the text after a mark. stop: the text names several choices, so nothing further may decide.

    strict: the text bears no mark, so a letter counts only where it stands like one ("B.", "(B)", alone).
    """
    region = clean(region[:LONGEST_REGION])
    for letter, choice in zip(LETTERS, choices, strict=False):
        if region == choice.strip():
            return letter, True
    bare = re.sub(r"\\[()\[\], ;]|\$", " ", TEXT_COMMAND.sub(r"\1", region))
    bare = re.sub(r"^(?:[^\w\\(\[{<\"'∠√|±+.−-]|_)+", "", bare).strip()  # ticks, arrows, pictograms
    if SEVERAL.match(bare) or re.match(r"^\W*(?:not|neither|none)\b(?!\s+of)", bare, re.I):
        return by_text(region, choices), True
    title = TITLE.match(bare)
    if title and not any(fold(choice).startswith(fold(title[0])) for choice in choices):  # no choice is "Solution B"
        bare = bare[title.end() :]
    match = re.match(r"^(?P<open>[(\[{<\"']*)(?P<letter>[A-Ha-h])(?P<close>[)\]}>\"'_]*)"
                     r"(?P<mark>\s*[.:,;、]|\s*$|\s+|\s*[-–—=]|(?<=[)\]]))(?P<rest>.*)$", bare, re.S)
    if match is None or not in_range(match["letter"].upper(), choices):
        letter = by_text(region, choices)
        told = {first or second for first, second in TOLD.findall(region)}
        if letter and any(not is_text_of(other, region, choices) for other in told):  # "50°, so option C"
            return None, True
        return letter, False
    letter, mark, rest = match["letter"], match["mark"].strip(), clean(match["rest"])
    verb = re.match(r"(?:(?:is|was|are|does|has|can|could|would|must|cannot|isn't|can't|doesn't)\b|['’]s\b)\s*", rest)
    by_words = re.match(r"(?:because|since|as|is (?:the )?(?:correct|right)|which|with|over|due|\(|-|–)", rest, re.I)
    text_agrees = bool(rest) and is_text_of(letter.upper(), rest, choices)
    if verb and not by_words and not text_agrees:  # "C is 50°" and "B is wrong" choose neither C nor B
        return by_text(rest[verb.end() :], choices), False
    several = r"(?:and|or|nor|&|/)\W+\(?[A-H]\b|[(\[]?[A-H](?:[)\].:,;]|\s*$|\s+[(\[]?[A-H]\b)"
    listed = rf"(?<!\w){chr(ord(letter.upper()) + 1)}[.:)]\s"  # the choices told again
    if (re.match(several, rest) or (re.search(listed, rest) and not by_words)) and not text_agrees:
        return None, True
    if taken_back(rest, choices):
        return None, True
    wrapped = bool(match["close"]) or mark in (".", ":", "、") or not rest
    sure = wrapped or text_agrees or bool(by_words and letter.isupper())
    told = letter.isupper() or match["open"] or match["close"] or mark in (".", ":") or not rest
    loose = (letter.isupper() and letter != "A" and not strict and mark not in ("=", "-", "–", "—")
             and (mark == "," or not re.match(r"[=<>+\-*/^\d°a-z]", rest)))
    if (sure and told) or loose:
        return letter.upper(), True
    return by_text(region, choices), False


def by_text(text: str, choices: list[str], whole: bool = False) -> str | None:
    """The letter of the choice whose text this is, word for word or as mathematics, or (unless `whole`) begins with.
    None where none or two different ones fit.
    """
    if not choices or len(text) > 400:
        return None
    folded = fold(text)
    for fits in (lambda choice: fold(choice) == folded, lambda choice: equal(phrase(text), choice)):
        found = [k for k, choice in enumerate(choices) if choice.strip() and fits(choice)]
        if found:
            return LETTERS[found[0]] if len({fold(choices[k]) for k in found}) == 1 else None
    if whole:
        return None
    texts = list(map(fold, choices))
    begins = [t for t in texts if t and re.match(re.escape(t) + r"(?![\w.]|\s*[-+*/^=])", folded)]
    longest = max(begins, key=len, default="")
    rest = folded[len(longest) :]
    if any(t and t != longest and re.search(rf"(?<!\w){re.escape(t)}(?!\w)", rest) for t in texts):
        return None  # it names a second choice further on
    return LETTERS[texts.index(longest)] if longest else None


def is_text_of(letter: str, text: str, choices: list[str]) -> bool:
    """Whether a text is that of the letter's choice, which may stand twice among the choices."""
    found = by_text(text, choices)
    if found is None or not in_range(letter, choices):
        return False
    return fold(choices[LETTERS.index(letter)]) == fold(choices[LETTERS.index(found)])


def fold(text: str) -> str:
    """Lower case, single spaces, no dollar signs, no full stop at the end."""
    return re.sub(r"\s+", " ", text.replace("$", "").replace("**", "")).strip().rstrip(".").lower()
