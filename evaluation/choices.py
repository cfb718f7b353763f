"""A model's response → the letter of the choice that it names, by rules.

    chosen_letter("**Answer:** (c) 65°", ["40°", "50°", "65°", "90°"])        "C"
    chosen_letter("It is either B or C.", [...])                              None: several letters are no answer
    chosen_letter("The answer is B. No wait, it is C.", [...])                None: it takes its answer back

The marks and sentences are those of answers.py. In doubt there is no letter.
"""

import re

from evaluation.answers import (
    LONGEST_REGION, asserted, clean, conclusions, final_answer, last_values, lists_choices, marked, phrase, prose,
    sentences, stated, taken_back, tidy
)
from evaluation.matcher import equal
from evaluation.values import SMALL_WORDS, stem
from evaluation.wording import (
    ASKS, CHANGE, CLAUSES, CONDITION, DENIES, HYPOTHETICAL, NAMED, NEGATED, NO_OTHER, OPENS, PENDING, REASON, SEVERAL,
    SHOWS, TEXT_COMMAND, TITLE, TOLD, UNANSWERED, UNSURE
)

LETTERS = "ABCDEFGH"
FILLERS = SMALL_WORDS | set(
    "are was were do does did can could would will has have had should may might also they these those there their "
    "likely most not no never does doesn isn aren t any according image graph figure picture based".split()
)
PAIRS = ("more fewer", "greater less", "larger smaller", "higher lower", "highest lowest", "largest smallest",
         "maximum minimum", "increasing decreasing")
OPPOSITES = {stem(a): stem(b) for pair in PAIRS for a, b in (pair.split(), pair.split()[::-1])}


def chosen_letter(response: str, choices: list[str], question: str = "") -> str | None:
    """The letter, "A" to "H", of the choice that a response names; None for none and several.

    choices: their texts. question: what was asked; a sentence that repeats it is a "yes", its denial a "no".
    """
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
    letter, stop = by_place(text, choices)
    if letter or stop:
        return letter
    found = [clean(REASON.sub("", sentence)) or clean(sentence) for sentence in conclusions(text, choices)]
    if regions:
        return (found and named_in(found[0], choices)) or by_text(final_answer(response) or "", choices)
    for sentence in found:
        letter = named_in(sentence, choices) or by_text(stated(sentence, lone=False) or "", choices)
        if letter and not denied(sentence, letter, choices):
            return letter
    told = sentences(text)
    refused = any(map(UNANSWERED.search, told)) and not any(map(UNANSWERED.search, choices))
    first = [sentence for sentence in told[:1] if asserted(sentence) and not refused]
    for sentence in first:
        letter = by_text(stated(sentence, lone=False) or "", choices)
        if letter and restates(sentence, question) and not denied(sentence, letter, choices):
            return letter  # and what follows is how it was found
    explained = first if not any(map(PENDING.search, told[1:])) and not any(map(SHOWS.match, first)) else []
    mentions = {letter for sentence in found + explained if (letter := mentioned(sentence, choices))}
    if mentions:
        return mentions.pop() if len(mentions) == 1 else None
    verdict = next((said for sentence in found + first if (said := affirmed(question, sentence)) is not None), None)
    return None if verdict is None else by_text("yes" if verdict else "no", choices, whole=True)


def by_place(text: str, choices: list[str]) -> tuple[str | None, bool]:
    """(letter, stop) of a text that begins or ends with a choice. stop: it says that there is none, or several."""
    found = conclusions(text, choices)
    lines = [clean(" ".join(line)) for line in prose(text)]
    told = sentences(text)
    if not told or lists_choices(lines[-2:]):
        return None, True
    opening = fold(clean(re.split(r"[,.;:!]", told[0])[0]))
    if opening != fold(clean(text)) and opening in map(fold, choices):  # "No, it is longer because ..."
        rest = " ".join(told)[len(opening) :].lstrip(",.;:! ")
        return (None if taken_back(rest, choices) else by_text(opening, choices)), True
    first, last = lines[0], lines[-1]
    bare = last if OPENS.match(last) else "".join(found[:1])  # "B. It is the only one that ..."
    letter, stop = letter_of(bare, choices, strict=len(lines) > 1 or len(first) > 200)
    if letter and denied(bare, letter, choices):
        return None, True
    if len(lines) > 1 and not lists_choices(lines[:2]) and is_choice(first, choices):
        answer = letter_of(first, choices, strict=True)[0]  # the answer first, then its explanation
        return (None if letter not in (None, answer) or taken_back(text, choices) else answer), True
    return letter, stop


def restates(sentence: str, question: str) -> bool:
    """Whether a sentence says in the question's words what was asked for, and no number that was given."""
    words, asked = content(sentence), set(content(question))
    numbers = [word for word in words if word[0].isdigit()]
    spoken = [word for word in words if not word[0].isdigit()]
    told = sum(word in asked for word in spoken)
    return bool(spoken) and not asked.intersection(numbers) and told >= 0.6 * len(spoken)


def denied(sentence: str, letter: str, choices: list[str]) -> bool:
    """Whether a sentence denies or only supposes the choice whose text stands in it, rather than begin with it."""
    choice = fold(choices[LETTERS.index(letter)]) if choices else ""
    said = fold(re.sub(r"\([^()]*\)\W*$", "", clean(sentence)) or clean(sentence))
    if said.startswith(choice) or OPENS.match(said):
        return bool(re.search(r"\btoo \w+$", said))
    clauses = [clause for clause in CLAUSES.split(said) if choice in clause]
    supposed = HYPOTHETICAL.search(said) and f"({letter.lower()})" not in said
    return bool(supposed or DENIES.search((clauses or [said])[-1].replace(choice, " ")))


def mentioned(sentence: str, choices: list[str]) -> str | None:
    """The one choice whose words a sentence holds, whatever their order; None for none, several, and a denial."""
    sentence = CHANGE.sub("", CONDITION.sub("", REASON.sub("", sentence) or sentence))
    if NEGATED.search(sentence) or DENIES.search(sentence) or sentence.rstrip().endswith("?"):
        return None
    said, found = set(content(sentence)), {}
    for letter, choice in zip(LETTERS, choices, strict=False):
        words = frozenset(content(choice))
        if words <= said and any(len(word) > 2 for word in words):
            found[words] = letter
    widest = [words for words in found if not any(words < others for others in found)]
    return found[widest[0]] if len(widest) == 1 else None


def affirmed(question: str, sentence: str) -> bool | None:
    """Whether a sentence says yes to a question whose words it repeats in order, or no; None where it does neither. It
    may leave out some of the question's words, or add some of its own.
    """
    sentence = REASON.sub("", sentence)
    turned = (match[0].lower() not in question.lower() for match in UNSURE.finditer(sentence))
    if not ASKS.match(question) or any(turned):
        return None
    asked, said, against = content(question), content(sentence), bool(DENIES.search(sentence))
    shorter, longer = sorted((asked, said), key=len)
    if len(said) != len(asked) and not max(3, len(asked) / 2) <= len(said) <= len(asked) + 3:  # it says something else
        return None
    others, opposite = iter(longer), False
    for word in shorter:
        match = next((other for other in others if other in (word, OPPOSITES.get(word))), None)
        if match is None:
            return None
        opposite |= match != word
    return None if opposite and against else not (opposite or against)


def content(text: str) -> list[str]:
    """The stems of a text's words, without the small ones."""
    words = re.findall(r"[A-Za-z]+|\d+(?:\.\d+)?", text)  # "A" of "sample A" is no article
    return [stem(word.lower()) or word for word in words if word.lower() not in FILLERS or word in LETTERS]


def is_choice(line: str, choices: list[str]) -> bool:
    """Whether a line is nothing but a choice: its letter, or its letter and its text."""
    match = re.fullmatch(r"\W*(?:option\s+|choice\s+)?\(?([A-H])\b[).:\s]*(.*)", line, re.I)
    return bool(match) and (not match[2] or is_text_of(match[1].upper(), match[2], choices))


def named_in(sentence: str, choices: list[str]) -> str | None:
    """The one choice that a sentence names by its letter or, at its end, by its text; None for none and several."""
    letters = {next(filter(None, groups)) for groups in NAMED.findall(sentence)}
    if letters:
        letter = letters.pop()
        known = letter.isupper() and in_range(letter, choices)
        return letter if not letters and known and not NEGATED.search(sentence) else None
    value = next((value for value in last_values(sentence) if by_text(value, choices, whole=True)),
                 next(last_values(sentence), ""))
    head = re.match(r"\(?([A-H])\)?\s*[:.]\s", value)
    return letter_of(value, choices, strict=True)[0] if head else by_text(value, choices, whole=True)


def in_range(letter: str, choices: list[str]) -> bool:
    """Whether the letter names one of the choices; without a list of them any of A to H does."""
    return len(letter) == 1 and letter in LETTERS[: len(choices) or len(LETTERS)]


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
    if short := re.match(r"A\s*:\s*(.+)", bare, re.S):  # "A: no" is short for "Answer: no"
        letter = by_text(short[1], choices, whole=True) or (short[1] if in_range(short[1], choices) else None)
        if letter not in (None, "A"):
            return letter, True
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
    begins = [t for t in texts if t and re.match(rf"{re.escape(t)}(?![\w.]|\s*[-+*/^=])", folded)]
    if begins == ["no"] and NO_OTHER.match(folded):
        return None
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
