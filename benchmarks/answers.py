"""A model's response → its final answer, by rules: the text of it, or the letter of the choice it names.

    final_answer("... so x = 12.\\nThe answer is \\\\boxed{12}.")                 "12"
    chosen_letter("**Answer:** (c) 65°", ["40°", "50°", "65°", "90°"])        "C"
    chosen_letter("It is either B or C.", [...])                              None: several letters are no answer

The last of the marks "\\boxed{}", "<answer>", "†", "Answer:", "the answer is", "the correct option is" decides;
without one the last sentence does. Only the end of a response is read, so a megabyte of it costs nothing.
"""

import re

from benchmarks.matcher import equal

TAIL = 4000  # characters of a response that are read
LONGEST_REGION = 400  # characters after a mark
MOST_MARKS = 20  # the last ones
LETTERS = "ABCDEFGH"

MARK = re.compile(
    r"(?P<boxed>\\(?:boxed|fbox)\s*\{)|(?P<tag><\s*answer\s*>:?)|(?P<dagger>†(?:\s*answer\s*:)?)"
    r"|(?P<words>(?:final\s+|correct\s+|right\s+|my\s+)?\banswer\b(?:\s*\(option\))?[\"'*_`)\]>]*\s*(?:(?:must|should|would|will)\s+be|is|are|:|=)[*_]*\s*:?"
    r"|\b(?:correct|right|best|matching)\s+(?:option|choice|statement|letter)\b[\"'*_`]*\s*(?:is|:|=)[*_]*\s*:?"
    r"|\b(?:option|choice)\s*:[*_]*|\bI\s+(?:choose|pick|select|would choose|go with)\b)",
    re.I,
)  # fmt: skip
REASON = re.compile(
    r"\s*(?:,\s*)?\b(?:because|since|which|so that|given that|as (?:the|it|this|we|shown)|where|when rounded|rounded"
    r"|correct to|to the nearest|to \w+ decimal)\b.*$",
    re.I | re.S,
)
SENTENCE = re.compile(r"(?<=[.!?。])(?<!\b[A-Z]\.)\s+(?=[A-Z(*\"\\$]|$)")
SEVERAL = re.compile(
    r"^\W*(?:both|either|neither|all|none|not)?\W*\(?\b[A-Ha-h]\b\)?\W*(?:,|/|&|\+|and|or|nor)\W*(?:also\W*)?(?:option|choice)?\W*\b[A-H]\b(?!')",
    re.I,
)


def clean(text: str) -> str:
    """Without Markdown's emphasis and code marks, quotes around the whole, and a full stop at the end."""
    text = re.sub(r"\*\*|__(?=\S)|`+|^#+\s*|^>\s*|^[-*•]\s+", "", text.strip(), flags=re.M).strip()
    text = re.sub(r"</?\w+>\s*$", "", text).strip()
    text = re.sub(r"^(?:<<|\"|')(.*?)(?:>>|\"|')\.?$", r"\1", text, flags=re.S)
    return text.strip().rstrip(".。").strip()


def braced(text: str, start: int) -> str | None:
    """The content of the brace group that opens just before `start`; None when it never closes."""
    depth = 1
    for position in range(start, min(len(text), start + 1000)):
        depth += (text[position] == "{") - (text[position] == "}")
        if depth == 0:
            return text[start:position]
    return None


def marked(response: str) -> list[str]:
    """What follows each mark of a final answer, the last mark first."""
    text = response[-TAIL:]
    regions = []
    for match in [*MARK.finditer(text)][-MOST_MARKS:]:
        if match.lastgroup == "boxed":
            region = braced(text, match.end())
            if region is None:
                continue
        else:
            rest = text[match.end() : match.end() + 2 * LONGEST_REGION].lstrip(" \t:*_")
            if rest.startswith("<<"):
                region = rest[2:].split(">>")[0]
            else:
                region = re.split(r"\n|</", rest.lstrip(), maxsplit=1)[0]
                if re.fullmatch(
                    r"\s*(?:\\\[|\$\$|\\begin\{\w+\*?\})\s*", region
                ):  # a display formula begins on the next line
                    region = " ".join(rest.lstrip().split("\n")[:3])
        inner = re.search(r"\\(?:boxed|fbox)\s*\{", region)
        if inner and (content := braced(region, inner.end())) is not None:
            region = content
        if region.strip():
            regions.append(region.strip())
    return regions[::-1]


def final_answer(response: str) -> str | None:
    """The final answer of a free-form response, None where none is found."""
    if "\0" in response or not response.strip():
        return None
    regions = marked(response)
    for region in regions:
        candidate = phrase(region)
        if re.search(r"[\dπ∞]|\\(?:pi|infty|frac|sqrt)", candidate):
            return candidate
    if regions:
        return phrase(regions[0]) or None
    if len(response) <= 80 and "\n" not in response.strip() and len(SENTENCE.split(clean(response))) == 1:
        return clean(response)
    lines = [line for line in response[-TAIL:].split("\n") if line.strip(" \t*#`$\\[]-=_")]
    if not lines:
        return None
    sentence = clean(SENTENCE.split(clean(lines[-1]))[-1])
    for separator in (
        r"=(?!.*=)",
        r"\b(?:is|are|equals|gives|get|be|of|to)\b(?!.*\b(?:is|are|equals|gives|get|be|of|to)\b)",
    ):
        pieces = re.split(separator, sentence, maxsplit=1, flags=re.S)
        if len(pieces) == 2 and re.search(r"\d|\\pi|π", pieces[1]):
            return phrase(pieces[1])
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:\s*(?:°|%))?", sentence)
    return numbers[-1].rstrip(",") if numbers and len(set(numbers)) == 1 else None


def phrase(region: str) -> str:
    """The answer proper of what follows a mark: its first sentence, without reasons and remarks in brackets."""
    region = clean(SENTENCE.split(clean(region[:LONGEST_REGION]))[0])
    region = re.sub(
        r"\s+\((?:[a-z≈~][^()]*|[^()]*\b(?:rounded|approx\w*|decimal|nearest|about)\b[^()]*)\)\s*$", "", region
    )
    return clean(REASON.sub("", region))


# -----------------------------------------------------------------------------
# multiple choice


def chosen_letter(response: str, choices: list[str]) -> str | None:
    """The letter of the choice a response names, "A" to "H"; None for no answer and for several. choices: their
    texts, may be empty.
    """
    if "\0" in response or not response.strip():
        return None
    for region in marked(response):
        letter, stop = letter_of(region, choices)
        if letter or stop:
            return letter
    whole = clean(response[-TAIL:])
    if len(response) <= 200 and "\n" not in whole:
        letter, stop = letter_of(whole, choices)
        if letter or stop:
            return letter
    lines = [line for line in whole.split("\n") if line.strip()]
    if not lines:
        return None
    line = clean(lines[-1])
    letter, stop = letter_of(line, choices, strict=True)
    if letter or stop:
        return letter
    sentence = clean(SENTENCE.split(line)[-1])
    named = re.findall(r"\(([A-H])\)|\b(?:option|choice)\s+\(?([A-H])\b|\bis:?\s+\(?([A-H])\)?$", sentence)
    letters = {next(filter(None, groups)) for groups in named}
    if letters:
        return letters.pop() if len(letters) == 1 and in_range(max(letters), choices) else None
    answer = final_answer(response)
    return by_text(answer, choices) if answer else None


def in_range(letter: str, choices: list[str]) -> bool:
    """Whether the letter names one of the choices; without a list of them any of A to H does."""
    return letter in LETTERS[: len(choices) or len(LETTERS)]


def letter_of(region: str, choices: list[str], strict: bool = False) -> tuple[str | None, bool]:
    """(letter, stop) of the text after a mark. stop: the text names several choices, so nothing further may decide.

    strict: the text bears no mark, so a letter counts only where it stands like one ("B.", "(B)", alone).
    """
    region = clean(region[:LONGEST_REGION])
    for letter, choice in zip(LETTERS, choices, strict=False):
        if region == choice.strip():
            return letter, True
    if SEVERAL.match(region) or re.match(r"^\W*(?:not|neither|none)\b(?!\s+of)", region, re.I):
        letter = by_text(region, choices)
        return letter, True
    bare = re.sub(
        r"^\W*(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|letter|answer)\b(?:\s+is)?\s*:?)\s*", "", region, flags=re.I
    )
    bare = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{\s*\(?([A-Ha-h])\)?\s*\}", r"\1", bare).strip("$ ")
    match = re.match(
        r"^(?P<open>[(\[{<\"']*)(?P<letter>[A-Ha-h])(?P<close>[)\]}>\"']*)(?P<mark>\s*[.:,;、]|\s*$|\s+|\s*[-–—=])(?P<rest>.*)$",
        bare,
        re.S,
    )
    if match and in_range(match["letter"].upper(), choices):
        letter, mark, rest = match["letter"], match["mark"].strip(), clean(match["rest"])
        wrapped = bool(match["close"]) or mark in (".", ":", "、") or not rest
        by_words = re.match(r"^(?:because|since|as|is correct|is the correct|is right|which|with|\(|-|–)", rest, re.I)
        text_agrees = bool(rest) and by_text(rest, choices) == letter.upper()
        if (
            re.match(r"^(?:and|or|nor|&|/)\W+\(?[A-H]\b|^[(\[]?[A-H](?:[)\].:,;]|\s*$|\s+[(\[]?[A-H]\b)", rest)
            and not text_agrees
        ):
            return None, True
        sure = wrapped or text_agrees or bool(by_words and letter.isupper())
        loose = (
            letter.isupper()
            and letter != "A"
            and not strict
            and (mark == "," or not re.match(r"^[=+\-*/^\d°]", rest))
            and mark not in ("=", "-", "–", "—")
        )
        if (sure and (letter.isupper() or match["open"] or match["close"] or mark in (".", ":") or not rest)) or loose:
            return letter.upper(), True
    return by_text(region, choices), False


def by_text(text: str, choices: list[str]) -> str | None:
    """The letter of the choice whose text this is, word for word or as mathematics; None where none or two
    different ones fit.
    """
    if not choices or len(text) > 400:
        return None
    folded = fold(text)
    for fits in (lambda choice: fold(choice) == folded, lambda choice: equal(phrase(text), choice)):
        found = [k for k, choice in enumerate(choices) if choice.strip() and fits(choice)]
        if found:
            return LETTERS[found[0]] if len({fold(choices[k]) for k in found}) == 1 else None
    begins = [
        k
        for k, choice in enumerate(choices)
        if fold(choice) and re.match(re.escape(fold(choice)) + r"(?![\w.]|\s*[-+*/^=])", folded)
    ]
    longest = max((len(fold(choices[k])) for k in begins), default=0)
    rest = folded[longest:]
    if any(
        re.search(rf"(?<!\w){re.escape(fold(c))}(?!\w)", rest)
        for c in choices
        if fold(c) and fold(c) != folded[:longest]
    ):
        return None  # it names a second choice further on
    begins = [k for k in begins if len(fold(choices[k])) == longest]
    return LETTERS[begins[0]] if begins and len({fold(choices[k]) for k in begins}) == 1 else None


def fold(text: str) -> str:
    """Lower case, single spaces, no dollar signs, no full stop at the end."""
    return re.sub(r"\s+", " ", text.replace("$", "").replace("**", "")).strip().rstrip(".").lower()
