r"""The same problem in other words: by program, or by a language model whose words are checked (`check_rewording`).

    for method in METHODS:
        rewritten = METHODS[method](problem, random.Random(seed))      # None: the method does not apply to this problem

Every rewriting is true by construction: it permutes independent facts, swaps phrases that mean the same, or turns the
problem round (one given number becomes the unknown, the answer becomes a given; MetaMath's "backward" and
"self-verification" questions; others may fit as well, so they ask for a value, not for the value). All numbers of the
question survive, in the question or as the new answer.
"""

import random
import re
from collections import Counter
from dataclasses import dataclass

from augment.page import split_choices, split_math


@dataclass(frozen=True)
class Problem:
    """A question, its worked solution, and the final answer as the solution states it (None: not stated)."""

    question: str
    output: str
    answer: str | None


# ----------------------------------------------------------------------------------------------------------------------
# Reading a problem

_ANSWER_MARK = re.compile(
    r"(?:^|[.;†]|\b(?:so|thus|therefore|hence),?)[ \t†]{0,4}(?:the\s)?\s{0,4}(?:final\s)?\s{0,4}answer[ \t]{0,4}"
    r"(?:is[ \t]{0,4}:?|:)|####", re.IGNORECASE)
_BOXED = re.compile(r"\\f?box(?:ed)?\s{0,4}\{")
LONGEST_ANSWER = 2000  # characters: a last line that is longer is no answer
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
# How a prompt in front of a question begins; "Question:" follows, in the same line or a later one.
_PROMPT = re.compile(
    r"hint:|please\b|first,? (?:perform|conduct|think|reason|please)|based on the |answer (?:the|this|with)|directly\b|"
    r"(?:choose|select|pick) |look at the |think |solve the following|you (?:are|will)\b|read the following question|"
    r"(?:given|according to) the (?:image|figure)", re.IGNORECASE)
_QUESTION = re.compile(r"\bquestion[ \t]{0,4}:", re.IGNORECASE)
LONGEST_PROMPT = 600  # characters


def _last_boxed(text: str) -> str | None:
    """What stands in the last \\boxed{...}, None where there is none or its brace stays open."""
    starts = [match.end() for match in _BOXED.finditer(text)]
    if not starts:
        return None
    depth, end = 1, starts[-1]
    while end < len(text) and depth:
        depth += (text[end] == "{") - (text[end] == "}")
        end += 1
    return None if depth else text[starts[-1] : end - 1].strip()


def _final_line(output: str) -> tuple[str, str | None]:
    """(the work, what follows "answer is" or "####" in the last line, None without such a mark)."""
    work, _, line = output.strip().rpartition("\n")
    marked = _ANSWER_MARK.search(line) if len(line) <= LONGEST_ANSWER else None
    if marked is None:
        return output.strip(), None
    before = line[: marked.start()] + "." * (marked[0][0] == ".")
    return f"{work}\n{before}".strip(" \n\t†"), line[marked.end() :].strip()


def stated_answer(output: str) -> str | None:
    r"""The final answer where a solution marks it: "Answer: X", "The answer is X", "#### X" or \boxed{X}."""
    answer = _final_line(output)[1]
    if answer is None or "box" in answer:
        answer = _last_boxed(output if answer is None else answer)
    elif answer:
        answer = re.split(r"\.\s{1,4}(?=[A-Z][a-z' ])", answer)[0].rstrip(".").strip()  # "12. I hope it is correct."
    return answer or None


def reasoning(output: str) -> str:
    """A solution without its last "Answer: X" line."""
    return _final_line(output)[0]


_REFUSAL = re.compile(
    r"\b(?:I(?:['’]m| am) (?:sorry|unable|not able)|I apologi[sz]e|as an AI\b|"
    r"I (?:can(?:not|['’]?t| not)|do(?: no|n['’])t) "
    r"(?:see|view|access|assist|help|provide|determine|have (?:access|the ability)))", re.IGNORECASE)
_PROGRAM = re.compile(r"\[/?asy\]|\\begin\{(?:asy|tikzpicture|pspicture)\}|\\includegraphics", re.IGNORECASE)


def unusable(question: str, output: str) -> str | None:
    """Why a problem is not worth training on, countable; None where it is."""
    if _REFUSAL.search(output[:300]):
        return "response is a refusal"
    return "figure as a program ([asy])" if _PROGRAM.search(question) or _PROGRAM.search(output) else None


def clean_output(output: str) -> str:
    """A solution without GSM8K's calculator marks: "48/2 = <<48/2=24>>24" → "48/2 = 24"."""
    return re.sub(r"<<[^<>\n]{0,200}>>", "", output)


def num_reasoning_words(output: str) -> int:
    """How many words, numbers and signs of work a response shows besides its answer; "The answer is 5." shows none."""
    return len(re.findall(r"[^\W\d_]+|\d+(?:\.\d+)?|[=+−×÷]", re.sub(r"\\[a-zA-Z]+", " ", reasoning(output))))


def split_hint(question: str) -> tuple[str, str]:
    """(the prompt around a question: "Hint: ...", Geo170K's "First perform reasoning, ..." or "", the question)."""
    text = question.strip()
    asked, *more = [*_QUESTION.finditer(text, 0, LONGEST_PROMPT)] or [None]
    if more and not text[asked.end() : more[0].start()].strip():  # "... the following question:\nQuestion: ..."
        asked = more[0]
    head = text[: asked.start()].strip() if asked else ""
    if asked and (not head or _PROMPT.match(head) and head.count("\n") < 4):
        return head, text[asked.end() :].strip()
    line, _, rest = text.partition("\n")
    return (line.strip(), rest.strip()) if line[:5].lower() == "hint:" and rest.strip() else ("", text)


def numbers_in(text: str) -> Counter:
    """The numbers of a text, thousands without commas, trailing zeros of decimals without effect."""
    found: Counter = Counter()
    for number in _NUMBER.findall(text):
        number = number.replace(",", "")
        found[number.rstrip("0").rstrip(".") if "." in number else number.lstrip("0") or "0"] += 1
    return found


def _parts(question: str) -> tuple[str, str, str]:
    """(hint, stem, choices): the choices with their header, as they stand in the text."""
    hint, body = split_hint(question)
    stem, choices = split_choices(body)
    if choices:
        stem = stem.rstrip()
        header = re.search(r"\b(?:Choices|Options)[ \t]{0,4}:?\Z", stem[-20:], re.IGNORECASE)
        stem = stem[: len(stem) - (len(header[0]) if header else 0)].rstrip()
        return hint, stem, body[len(stem) :]
    return hint, body, ""


_LETTER = r"(?:^|(?<=[\s(（{{,;，；。.?？)）]))[(（]?{}(?:\s?[)）.:：．、,]|\}}?\)\}}?)"
_CHOICE_A, _CHOICE_B = (re.compile(_LETTER.format(letter)) for letter in "AB")


def _has_choices(text: str) -> bool:
    """Whether choices stand in the text in some layout: A) 3 B) 4, A、3, \\textbf{(A)} ... \\textbf{(B)}."""
    first = _CHOICE_A.search(text)
    return bool(first and _CHOICE_B.search(text, first.end()))


def _has_table(text: str) -> bool:
    return bool(re.search(r"\|[^\n]*\||\\begin\{(?:tabular|array)", text))


def _joined(hint: str, stem: str, choices: str) -> str:
    return (hint + "\nQuestion: " if hint else "") + stem + choices


_ABBREVIATIONS = re.compile(r"\b(?:Fig|No|Mr|Mrs|Ms|Dr|St|vs|approx|etc|e\.g|i\.e|resp|Eq)\.$")
# Our own marks in a text stand in Unicode's last private plane, which no text uses (Word's bullets are in the first):
# one for each formula, one for each phrase that was exchanged. A text that does use it is left as it is.
_FORMULAS, _PHRASE, _MOST = 0x100000, 0x108000, 0x8000
_FORMULA = "[\U00100000-\U00107fff]"
_OURS = re.compile("[\U00100000-\U0010fffd]")


def sentences(text: str) -> list[str]:
    """The sentences of a text; none ends inside a formula or at an abbreviation."""
    masked, formulas = _mask(text)
    found, start = [], 0
    for match in re.finditer(r"[.?!][\"')\]]*\s+(?=[^\sa-z])", masked):
        if not _ABBREVIATIONS.search(masked[max(0, match.start() - 12) : match.start() + 1]):
            found.append(masked[start : match.end()].strip())
            start = match.end()
    found.append(masked[start:].strip())
    return [_unmask(sentence, formulas) for sentence in found if sentence]


def _mask(text: str) -> tuple[str, list[str]]:
    """Formulas replaced by our own marks, one each, and the formulas with their delimiters."""
    formulas: list[str] = []
    pieces, position = [], 0
    for kind, content in split_math(text):
        if kind == "text" and text.startswith(content, position):
            pieces.append(content)
            position += len(content)
            continue
        at = text.find(content, position)
        if kind == "text" or at < 0 or len(formulas) == _MOST:  # escapes were resolved: leave the rest as one piece
            break
        end = at + len(content)
        closing = re.match(r"\$\$|\$|\\\)|\\\]", text[end : end + 2])
        end += closing.end() if closing else 0
        pieces.append(chr(_FORMULAS + len(formulas)))
        formulas.append(text[position:end])
        position = end
    return "".join(pieces) + text[position:], formulas


def _unmask(text: str, formulas: list[str]) -> str:
    return _OURS.sub(lambda match: formulas[ord(match[0]) - _FORMULAS], text)


_ASKS = re.compile(
    r"^(?:what|which|how|find|calculate|compute|determine|work out|evaluate|solve|is|are|does|do|can|who|when|"
    r"where|prove|show|simplify|then|if)\b", re.IGNORECASE)


_INSTRUCTS = re.compile(r"^(?:please )?(?:express|give|write|round|leave|state|report|enter|simplify|reduce|put|"
                        r"provide|assume|answer|use|note)\b", re.IGNORECASE)
_BLANK = re.compile(r"(?:^|[,，. \t][ \t]{0,4})then\s{1,4}(.{3,80}?)\s{0,4}(?:\b(?:is|are|equals|is equal to)\b|=)"
                    r"\s{0,4}(?:[(（]\s{0,9}[)）]|_{2,9})\s{0,4}[.?]?$")
_MEASURE = re.compile(r"(?:the )?(?:size|degrees?|length|value|perimeter|area|radius|height|distance|measure|ratio|"
                      r"width|diameter|volume|angle|circumference|sum)\b|∠|[A-Z]{2}$|sin|cos|tan")
# A sentence that asks, or half of one: "If he pays 5 in the sale." has its other half behind it.
_NO_GIVEN = re.compile(r"\?$|^(?:find|calculate|compute|determine|evaluate|solve|prove|show|simplify|what|which|how)\b"
                       r"|^(?:if|when|since|knowing|given)\b[^,]*$", re.IGNORECASE)
_IF = re.compile(r"(^|(?:figure|diagram|picture)[,，] ?)(?:and )?if (?=\S)|([,，] ?)(?:and )?if (?=\S)", re.IGNORECASE)


def _givens_and_question(stem: str) -> tuple[list[str], str, str] | None:
    """(the givens' sentences, the one that asks, what is said about the answer's form or ""); None where it is not
    clear which one asks. Also of "..., then the size of angle CED is ()."
    """
    parts = sentences(stem)
    blank = _BLANK.search(parts[-1][-200:]) if parts else None
    if blank:
        given = parts[-1][: len(parts[-1]) - len(blank[0])].strip().rstrip(",，")
        given = _IF.sub(lambda match: match[1] if match[2] is None else f"{match[2]}and ", given)  # its "then" is gone
        given = given[:1].upper() + given[1:]
        asked = blank[1].removesuffix(" is").strip()
        if not _MEASURE.match(asked) or not given and len(parts) < 2:
            return None
        return [*parts[:-1], *([given.rstrip(".") + "."] if given else [])], f"What is {asked}?", ""
    tail = ""
    if len(parts) > 2 and _INSTRUCTS.match(parts[-1]) and parts[-2].endswith("?"):
        tail = parts.pop()
    if len(parts) < 2 or any(map(_NO_GIVEN.search, parts[:-1])) or _INSTRUCTS.match(parts[-1]):
        return None
    last = parts[-1]
    if not (last.endswith("?") or _ASKS.match(last)) or re.match(r"(?:then|so|if)\b", last, re.IGNORECASE):
        return None
    return parts[:-1], last, tail


# ----------------------------------------------------------------------------------------------------------------------
# The problem turned round

_BEFORE_FIXED = re.compile(
    r"(?:fig(?:ure|\.)?|question|problem|exercise|example|step|table|no\.|number|grade|chapter|page|"
    r"year|equation|in|part|option|choice)\s*$", re.IGNORECASE)
_LONE_NUMBER = re.compile(r"(?<![\w.^_{}\\,/:-])\d+(?:\.\d+)?"
                          r"(?!\d|[\w_({/:]|\^(?!\{?\s{0,4}\\circ)|[.,]\d|\s{0,4}(?:st|nd|rd|th)\b|-[A-Za-z]"
                          r"|\s{0,4}/|\s{0,4}\\[dt]?frac|\s\d+/\d)")


def _unknown(stem: str, work: str, rng: random.Random) -> tuple[str, str, str] | None:
    """(stem with one given number as a letter, the number, the letter); None where no number can safely be taken.

    A number that the work never uses is none: any other would give the same answer.
    """
    letters = [letter for letter in "xyzkmnt" if not re.search(rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])", stem)]
    counts, used = numbers_in(stem), numbers_in(work)
    candidates = []
    for match in _LONE_NUMBER.finditer(stem):
        before, value = stem[max(0, match.start() - 40) : match.start()], next(iter(numbers_in(match[0])))
        near = stem[max(0, match.start() - 400) : match.end() + 400]
        place = match.start() - max(0, match.start() - 400)
        sentence = near[max(0, near.rfind(". ", 0, place)) : (near.find(". ", place) + 1) or None]
        if counts[value] != 1 or not used[value] or value in "01" or _BEFORE_FIXED.search(before) or not before.strip():
            continue  # 0 and 1 stand in most works by chance
        if re.search(r"round|nearest|decimal|significant|≈|(?:π|pi) *=|example|e\.g\.", sentence):
            continue
        article = re.search(r"\b([Aa]n?) \$?$", before)  # "a 5-sided", "an 8": the letter takes the same article
        fitting = [x for x in letters if article is None or (x in "xmn") == (article[1][1:] == "n")]
        candidates += [(match, fitting)] if fitting else []
    if not candidates:
        return None
    match, letters = rng.choice(candidates)
    letter = letters[0] if rng.random() < 0.6 else rng.choice(letters)
    return stem[: match.start()] + letter + stem[match.end() :], match[0], letter


def _short_answer(answer: str | None) -> bool:
    is_choice = re.match(r"\(?[A-H]\)?\.?$|\(?(?:option|choice)\b", answer or "", re.IGNORECASE)
    return bool(answer) and len(answer) <= 60 and not is_choice and "\n" not in answer


def _shown(answer: str) -> str:
    return f"${answer}$" if "\\" in answer and "$" not in answer else answer


def _turned_round(question: str, problem: Problem, stem: str, number: str, letter: str) -> Problem:
    answer = _shown(problem.answer)
    output = (f"We look for a value of {letter} with which the answer is {answer}, and check {letter} = {number}. "
              f"The problem then reads: {stem}\n{reasoning(problem.output)}\n"
              f"So the answer is {answer}, as stated, and {letter} = {number} fits.\nAnswer: {number}")
    return Problem(question, output, number)


def _turnable(problem: Problem) -> str:
    """The question of a problem that can be turned round, else "": no prompt, choices or table, a short answer."""
    hint, stem, choices = _parts(problem.question)
    fits = not hint and not choices and not _has_choices(stem) and not _has_table(stem)
    return stem if fits and _short_answer(problem.answer) and not _OURS.search(stem) else ""


def backward(problem: Problem, rng: random.Random) -> Problem | None:
    """One given number becomes an unknown, the answer is told, the number is asked for."""
    taken = _unknown(stem, reasoning(problem.output), rng) if (stem := _turnable(problem)) else None
    if taken is None:
        return None
    turned, number, letter = taken
    question = rng.choice((
        "{q}\nThe answer to this question is {a}. Give a value of {x} that makes it so.",
        "{q}\nIf the answer to the question above is {a}, what may the value of the unknown {x} be?",
        "In the following problem one number was replaced by {x}. {q} The answer is {a}. What may {x} stand for?",
        "{q}\nWe know that the answer is {a}. Find a value of {x} that fits.",
    )).format(q=turned, a=_shown(problem.answer), x=letter)
    return _turned_round(question, problem, stem, number, letter)


_VERBS = {
    "have": ("has", "had"), "need": ("needs", "needed"), "get": ("gets", "got"), "pay": ("pays", "paid"),
    "earn": ("earns", "earned"), "make": ("makes", "made"), "spend": ("spends", "spent"), "buy": ("buys", "bought"),
    "sell": ("sells", "sold"), "eat": ("eats", "ate"), "own": ("owns", "owned"), "use": ("uses", "used"),
    "save": ("saves", "saved"), "receive": ("receives", "received"), "lose": ("loses", "lost")
}


def declare(question: str, answer: str) -> str | None:
    """Question and answer as a statement: "What is the area?", "12" → "The area is 12."; None: no safe pattern."""
    question = question.strip()
    match = re.fullmatch(r"(?:what|how much) (is|are|was|were) (the [^,?]{2,120})\?", question, re.IGNORECASE)
    if match:
        return f"{match[2][0].upper()}{match[2][1:]} {match[1]} {answer}."
    match = re.fullmatch(
        r"(?:find|calculate|compute|determine|work out|evaluate) (the (?:value|area|perimeter|length|size|measure|"
        r"volume|sum|product|total|average|mean|number|radius|height|width|distance|probability)[^,.;?]{0,120})\.?",
        question, re.IGNORECASE)
    if match and not re.search(r"\b(?:and|in terms of|such that|if|when)\b", match[1]):
        return f"{match[1][0].upper()}{match[1][1:]} is {answer}."
    number = re.sub(r"[\s$]", "", answer)
    if not re.fullmatch(r"-?\d+(?:\.\d+)?", number):
        return None
    match = re.fullmatch(r"how many ([a-z ]{2,60}?) are (there|left)([^,?]{0,80})\?", question, re.IGNORECASE)
    if match:
        return f"There are {number} {match[1]}{' left' * (match[2] == 'left')}{match[3]}."
    match = re.fullmatch(r"how many ([a-z ]{2,60}?) (does|do|did) ([A-Za-z ]{2,40}?) ([a-z]+)((?: [a-z ]+)?)\?",
                         question, re.IGNORECASE)
    if match and match[4] in _VERBS and not match[5].startswith(" to "):  # "needs 5 points to average" is no English
        verb = {"does": _VERBS[match[4]][0], "do": match[4], "did": _VERBS[match[4]][1]}[match[2].lower()]
        subject = match[3] if match[3][0].isupper() else match[3].capitalize()
        return f"{subject} {verb} {number} {match[1]}{match[5]}."
    return None


def self_verification(problem: Problem, rng: random.Random) -> Problem | None:
    """The question and its answer become a statement, one given number becomes the unknown (Weng et al. 2023)."""
    split = _givens_and_question(stem) if (stem := _turnable(problem)) else None
    statement = declare(split[1], _shown(problem.answer)) if split and not split[2] else None
    givens = " ".join(split[0]) if split else ""
    taken = _unknown(givens, reasoning(problem.output), rng) if statement else None
    if taken is None:
        return None
    turned, number, letter = taken
    if re.search(rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])", statement) or numbers_in(statement)[number]:
        return None
    ask = rng.choice(("Give a value of {x} for which all of this holds.", "What may the value of {x} be?",
                      "Find a value of {x} that fits.")).format(x=letter)
    return _turned_round(f"{turned} {statement} {ask}", problem, stem, number, letter)


# ----------------------------------------------------------------------------------------------------------------------
# The same problem, said otherwise


# Words that point back at something: in front of it they point at nothing.
_POINTS_BACK = re.compile(
    r"\b(?:he|she|it|they|him|her|them|his|hers|its|their|theirs|this|these|those|such|both|each of|now|then|also|"
    r"instead|respectively|above|previous|that (?:case|day|time|number|point|value|amount)|"
    r"the (?:others?|rest|same|former|latter|remaining|remainder of|resulting|new|first|second|third|two|three|four|"
    r"given))\b", re.IGNORECASE)


def question_first(problem: Problem, rng: random.Random) -> Problem | None:
    """The question before what is given."""
    hint, stem, choices = _parts(problem.question)
    listed = not choices and _has_choices(stem) or _has_table(stem) or "\n\n" in stem or _OURS.search(stem)
    split = None if listed else _givens_and_question(stem)
    if split is None or _POINTS_BACK.search(split[1]):
        return None
    givens, question = " ".join(split[0]), " ".join(filter(None, split[1:]))
    lead = rng.choice(("Here is what is known:", "It is given that:", "Use these facts.", "The facts are these:",
                       "Given:"))
    if not givens or not numbers_in(givens):
        return None
    return Problem(_joined(hint, f"{question} {lead} {givens}", choices), problem.output, problem.answer)


_NAME = r"(?:(?:angle|side|line|segment|arc|chord|triangle|radius|diameter)\s+|[∠△⊙]\s*)?[A-Z]{1,4}'?"
_FACT = re.compile(rf"(?:and\s+)?(?:{_NAME}\s*=\s*[\w.°√/ ]{{1,20}}|{_NAME}\s*[∥⊥]\s*{_NAME}|{_FORMULA}"
                   rf"|{_NAME}\s*(?:is\s+)?(?:parallel|perpendicular)(?:\s+to)?\s*{_NAME})")


def reordered(problem: Problem, rng: random.Random) -> Problem | None:
    """Facts that stand in a row (AB = 5, angle B = 60°, DE parallel BC) in another order: "and" is commutative."""
    hint, stem, choices = _parts(problem.question)
    if "respectively" in stem or _OURS.search(stem):
        return None
    masked, formulas = _mask(stem)
    pieces = re.split(r"(,\s*and\s+|,\s*|(?<!\s)\s+and\s+)", masked)  # pieces at even places, separators between

    def is_fact(piece: str) -> bool:
        if len(piece) > 200 or re.search(r"[.?!]\s", piece.strip()) or not _FACT.fullmatch(piece.strip()):
            return False
        last = piece.strip()[-1]
        return not _OURS.match(last) or bool(re.search(r"=|\\parallel|\\perp|∥|⊥", formulas[ord(last) - _FORMULAS]))

    start, best = 0, (0, 0)
    places = range(0, len(pieces), 2)
    for place in [*places, len(pieces) + 1]:
        if place >= len(pieces) or not is_fact(pieces[place]):
            best = max(best, (place, start), key=lambda run: run[0] - run[1])
            start = place + 2
    run = range(best[1], best[0], 2)
    facts = [pieces[place] for place in run]
    if len(set(facts)) < 2:
        return None
    order = facts[:]
    while order == facts:
        rng.shuffle(order)
    for place, fact in zip(run, order, strict=True):
        pieces[place] = fact
    return Problem(_joined(hint, _unmask("".join(pieces), formulas), choices), problem.output, problem.answer)


_SYNONYMS: list[tuple[re.Pattern, tuple[str, ...]]] = [
    (re.compile(pattern), options)
    for pattern, options in [
        (r"\bAs shown in the (?:figure|diagram)(?=[,:])", ("In the figure", "In the diagram", "As the figure shows")),
        (r"\bIn the figure(?=,)", ("In the diagram", "As the figure shows")),
        (r"\bit is known that\b", ("we know that", "it is given that")),
        (r"\bGiven that\b(?=[^.?]{1,300},)(?![^.?]{1,300}\band that\b)", ("If",)),
        (r"\bFind the value of\b", ("Determine the value of", "Work out the value of", "Calculate")),
        (rf"\bFind\b(?= (?:the|{_FORMULA}))", ("Determine", "Work out")),
        (rf"\bCalculate\b(?= (?:the|{_FORMULA}))", ("Compute", "Work out", "Find")),
        (r"\bDetermine\b(?= the\b)", ("Find", "Work out")),
        (rf"\bEvaluate\b(?= (?:the|{_FORMULA}))", ("Compute", "Find the value of")),
        (r"\bWhat is the (value|sum|product|area|perimeter|volume|length|size) of ([^?.]{1,300})\?",
         (r"Find the \1 of \2.", r"Determine the \1 of \2.")),
        (r"\bWhat is the size of (?=angle [A-Z]|∠)", ("How large is ", "What is the measure of ")),
        (r"\bthe size of (?=angle [A-Z]|∠)", ("the measure of ",)),
        (r"\bthe measure of (?=angle [A-Z]|∠)", ("the size of ",)),
        (r"(?<![\\A-Za-z])triangle (?=[A-Z]{3}\b)", ("△",)),
        (r"(?<![A-Za-z])△ ?(?=[A-Z]{3}\b)", ("triangle ",)),
        (r"(?<![\\A-Za-z])(?<!angle )(?<!right )angle (?=[A-Z]{1,3}\b(?! [A-Z]\b))(?!A (?!=))", ("∠",)),
        (r"(?<![A-Za-z∠\\])∠ ?(?=[A-Z]{3}\b)", ("angle ",)),
        (r"\b([A-Z]{2}) parallel {1,3}(?:to )?([A-Z]{2})\b", (r"\1 ∥ \2",)),
        (r"\b([A-Z]{2}) perpendicular {1,3}(?:to )?([A-Z]{2})\b", (r"\1 ⊥ \2",)),
        (r"\bHow many ([a-z]+) are there\b", (r"What is the number of \1",)),
        (r"\bin total\b", ("altogether", "in all")),
        (r"\baltogether\b", ("in total", "in all")),
        (r"\beach day\b", ("every day",)),
        (rf"\bLet ({_FORMULA}) be (?=an?\b|the\b)", (r"Suppose that \1 is ",)),
        (rf"\bLet ({_FORMULA}) and ({_FORMULA}) be (?=[a-z])", (r"Suppose that \1 and \2 are ",)),
        (r"\bProve that\b", ("Show that",)),
        (rf"\bSimplify (?={_FORMULA})", ("Bring to its simplest form: ",)),
        (rf"\bSolve for (?={_FORMULA})", ("Find ",)),
        (r"\bis equal to\b", ("equals",)),
        (r"\bhas a radius of\b", ("has radius",)),
    ]
]


def reworded(problem: Problem, rng: random.Random) -> Problem | None:
    """Phrases exchanged for others that mean the same."""
    hint, stem, choices = _parts(problem.question)
    if _OURS.search(stem):
        return None
    masked, formulas = _mask(stem)
    shield: list[str] = []

    def swap(options: tuple[str, ...]):
        def replaced(match: re.Match) -> str:
            if rng.random() < 0.15 or len(shield) == _MOST - 2:
                return match[0]
            shield.append(match.expand(rng.choice(options)))  # out of reach of the later patterns
            return chr(_PHRASE + len(shield) - 1)

        return replaced

    for pattern, options in _SYNONYMS:
        masked = pattern.sub(swap(options), masked)
    held = re.compile(f"[{chr(_PHRASE)}-\U0010fffd]")
    while held.search(masked):  # a phrase may hold one that was exchanged before it
        masked = held.sub(lambda match: shield[ord(match[0]) - _PHRASE], masked)
    result = _joined(hint, _unmask(masked, formulas), choices)
    return Problem(result, problem.output, problem.answer) if shield and result != problem.question else None


METHODS = {
    "reworded": reworded, "question_first": question_first, "reordered": reordered, "backward": backward,
    "self_verification": self_verification
}


# ----------------------------------------------------------------------------------------------------------------------
# By a language model

REWORD_PROMPT = (
    "Rewrite the following mathematics problem in other words. Keep its meaning, every number, every name of "
    "a point or variable, every formula and, if there are choices, the choices with their letters. Do not "
    "solve it, do not add or leave out information. Reply with the rewritten problem only.\n\n"
)
SOLVE_PROMPT = 'Solve this problem step by step. End with one line of the form "Answer: X".\n\n'


def check_rewording(original: str, reply: str) -> str | None:
    """What is wrong with a model's rewording, in words; None when all numbers, names and choices survived."""
    reply = reply.strip()
    if not reply or len(reply) > 3 * len(original) + 200:
        return "empty or far too long"
    if numbers_in(reply) != numbers_in(original):
        return "a number changed"
    if [content for _, content in split_choices(reply)[1]] != [content for _, content in split_choices(original)[1]]:
        return "the choices changed"
    names = re.compile(r"(?<![A-Za-z\\])(?:[A-Z]{2,4}|[b-hj-zB-HJ-Z])(?![A-Za-z'])")
    if set(names.findall(reply)) != set(names.findall(original)):
        return "a name changed"
    if reply == original.strip():
        return "nothing changed"
    return None
