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

_FINAL_LINE = re.compile(
    r"\s*(?:†\s*)?(?:(?:so|thus|therefore|hence),?\s+)?(?:the\s+)?(?:final\s+)?answer\s*(?:is\s*:?|:)\s*[^\n]*$"
    r"|\s*####[^\n]*$", re.IGNORECASE)
_STATED = re.compile(
    r"(?:^|[\n.†]|\b(?:so|thus|therefore|hence),?)\s*(?:the\s+)?(?:final\s+)?answer\s*(?:is\s*:?|:)\s*([^\n]+?)\s*$"
    r"|####\s*([^\n]+?)\s*$", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_HINT = re.compile(r"\A\s*(Hint:[^\n]*)\n\s*(?:Question:\s*)?", re.IGNORECASE)


def stated_answer(output: str) -> str | None:
    r"""The final answer where a solution marks it: "Answer: X", "The answer is X", "#### X" or \boxed{X} at its end."""
    marked = _STATED.search(output.strip())
    if marked:
        answer = marked[1] or marked[2]
    else:
        starts = [match.end() for match in _BOXED.finditer(output)]
        if not starts:
            return None
        depth, end = 1, starts[-1]
        while end < len(output) and depth:
            depth += (output[end] == "{") - (output[end] == "}")
            end += 1
        if depth:
            return None
        answer = output[starts[-1] : end - 1]
    boxed = re.fullmatch(r"\$?\\boxed\s*\{(.*)\}\$?\.?", answer.strip())
    answer = (boxed[1] if boxed else answer).strip().rstrip(".").strip()
    return answer or None


def reasoning(output: str) -> str:
    """A solution without its last "Answer: X" line."""
    return _FINAL_LINE.sub("", output.strip()).strip()


def num_reasoning_words(output: str) -> int:
    """How many words of work a response shows besides its answer; a bare "B" or "The answer is 5." shows none."""
    return len(re.findall(r"[^\W\d_]+|\d+(?:\.\d+)?", re.sub(r"\\[a-zA-Z]+", " ", reasoning(output))))


def split_hint(question: str) -> tuple[str, str]:
    """("Hint: ... " of a MathVista-style prompt or "", the question proper)."""
    match = _HINT.match(question)
    return (match[1], question[match.end() :].strip()) if match else ("", question.strip())


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
        stem = re.sub(r"\n?\s*(?:Choices|Options)\s*:?\s*$", "", stem, flags=re.IGNORECASE).rstrip()
        return hint, stem, body[len(stem) :]
    return hint, body, ""


def _joined(hint: str, stem: str, choices: str) -> str:
    return (hint + "\nQuestion: " if hint else "") + stem + choices


_ABBREVIATIONS = re.compile(r"\b(?:Fig|No|Mr|Mrs|Ms|Dr|St|vs|approx|etc|e\.g|i\.e|resp|Eq)\.$")


def sentences(text: str) -> list[str]:
    """The sentences of a text; none ends inside a formula or at an abbreviation."""
    masked, formulas = _mask(text)
    found, start = [], 0
    for match in re.finditer(r"[.?!][\"')\]]*\s+(?=[^\sa-z])", masked):
        if not _ABBREVIATIONS.search(masked[: match.start() + 1]):
            found.append(masked[start : match.end()].strip())
            start = match.end()
    found.append(masked[start:].strip())
    return [_unmask(sentence, formulas) for sentence in found if sentence]


def _mask(text: str) -> tuple[str, list[str]]:
    """Formulas replaced by private-use letters, one each, and the formulas with their delimiters."""
    formulas: list[str] = []
    position, masked = 0, ""
    for kind, content in split_math(text):
        if kind == "text" and text.startswith(content, position):
            masked, position = masked + content, position + len(content)
            continue
        at = text.find(content, position)
        if kind == "text" or at < 0 or len(formulas) > 4000:  # escapes were resolved: leave the rest as one piece
            return masked + text[position:], formulas
        end = at + len(content)
        closing = re.match(r"\$\$|\$|\\\)|\\\]", text[end:])
        end += closing.end() if closing else 0
        masked += chr(0xE000 + len(formulas))
        formulas.append(text[position:end])
        position = end
    return masked, formulas


def _unmask(text: str, formulas: list[str]) -> str:
    return re.sub("[\ue000-\uf8ff]", lambda match: formulas[ord(match[0]) - 0xE000], text)


_ASKS = re.compile(
    r"^(?:what|which|how|find|calculate|compute|determine|work out|evaluate|solve|is|are|does|do|can|who|when|"
    r"where|prove|show|simplify|give|state|write|express|then|if)\b", re.IGNORECASE)


def _givens_and_question(stem: str) -> tuple[list[str], str] | None:
    """The givens' sentences and the one that asks; also of the form "..., then the size of angle CED is ()."."""
    parts = sentences(stem)
    blank = re.search(r",?\s*then\s+(.{3,80}?)\s+(?:is|are|equals|=)\s*(?:\(\s*\)|（\s*）|_{2,})\s*[.?]?$", parts[-1])
    if blank:
        given = parts[-1][: blank.start()].strip().rstrip(",")
        return ([*parts[:-1], given + "."] if given else parts[:-1]), f"What is {blank[1]}?"
    last = parts[-1]
    asks = last.endswith("?") or _ASKS.match(last)
    if len(parts) < 2 or not asks or re.match(r"(?:then|so|if)\b", last, re.IGNORECASE):
        return None
    return parts[:-1], last


# ----------------------------------------------------------------------------------------------------------------------
# The problem turned round

_BEFORE_FIXED = re.compile(
    r"(?:fig(?:ure|\.)?|question|problem|exercise|example|step|table|no\.|number|grade|chapter|page|"
    r"year|equation|in|part|option|choice)\s*$", re.IGNORECASE)
_LONE_NUMBER = re.compile(r"(?<![\w.^_{\\,/:-])\d+(?:\.\d+)?"
                          r"(?!\d|[\w_({/:]|\^(?!\{?\s*\\circ)|[.,]\d|\s*(?:st|nd|rd|th)\b|-[A-Za-z])")


def _unknown(stem: str, rng: random.Random) -> tuple[str, str, str] | None:
    """(stem with one given number as a letter, the number, the letter); None where no number can safely be taken."""
    letters = [letter for letter in "xyzkmnt" if not re.search(rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])", stem)]
    counts = numbers_in(stem)
    candidates = []
    for match in _LONE_NUMBER.finditer(stem):
        sentence = stem[max(0, stem.rfind(". ", 0, match.start())) : (stem.find(". ", match.end()) + 1) or None]
        if counts[next(iter(numbers_in(match[0])))] != 1 or _BEFORE_FIXED.search(stem[: match.start()]):
            continue
        if re.search(r"round|nearest|decimal|significant|≈|(?:π|pi) *=", sentence) or not stem[: match.start()].strip():
            continue
        candidates.append(match)
    if not candidates or not letters:
        return None
    match = rng.choice(candidates)
    letter = letters[0] if rng.random() < 0.6 else rng.choice(letters)
    return stem[: match.start()] + letter + stem[match.end() :], match[0], letter


def _short_answer(answer: str | None) -> bool:
    return bool(answer) and len(answer) <= 60 and not re.fullmatch(r"\(?[A-Ha-h]\)?", answer) and "\n" not in answer


def _shown(answer: str) -> str:
    return f"${answer}$" if "\\" in answer and "$" not in answer else answer


def _turned_round(question: str, problem: Problem, stem: str, number: str, letter: str) -> Problem:
    work = reasoning(problem.output)
    output = (f"Try {letter} = {number}. The problem then reads: {stem}\n{work}\n"
              f"The answer is then {_shown(problem.answer)}, as stated, so {letter} = {number} fits.\nAnswer: {number}")
    return Problem(question, output, number)


def backward(problem: Problem, rng: random.Random) -> Problem | None:
    """One given number becomes an unknown, the answer is told, the number is asked for."""
    hint, stem, choices = _parts(problem.question)
    taken = _unknown(stem, rng) if not choices and not hint and _short_answer(problem.answer) else None
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
        there = "There are" if match[2] == "there" else "What is left are"
        return f"{there} {number} {match[1]}{match[3]}."
    match = re.fullmatch(r"how many ([a-z ]{2,60}?) (does|do|did) ([A-Za-z ]{2,40}?) ([a-z]+)((?: [a-z ]+)?)\?",
                         question, re.IGNORECASE)
    if match and match[4] in _VERBS:
        verb = {"does": _VERBS[match[4]][0], "do": match[4], "did": _VERBS[match[4]][1]}[match[2].lower()]
        subject = match[3] if match[3][0].isupper() else match[3].capitalize()
        return f"{subject} {verb} {number} {match[1]}{match[5]}."
    return None


def self_verification(problem: Problem, rng: random.Random) -> Problem | None:
    """The question and its answer become a statement, one given number becomes the unknown (Weng et al. 2023)."""
    hint, stem, choices = _parts(problem.question)
    split = _givens_and_question(stem) if not choices and not hint and _short_answer(problem.answer) else None
    statement = declare(split[1], _shown(problem.answer)) if split else None
    givens = " ".join(split[0]) if split else ""
    taken = _unknown(givens, rng) if statement else None
    if taken is None:
        return None
    turned, number, letter = taken
    if re.search(rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])", statement) or numbers_in(statement)[number]:
        return None
    ask = rng.choice(
        ("Give a value of {x} for which all of this holds.", "What may the value of {x} be?", "Find an {x} that fits.")
    ).format(x=letter)
    return _turned_round(f"{turned} {statement} {ask}", problem, stem, number, letter)


# ----------------------------------------------------------------------------------------------------------------------
# The same problem, said otherwise


def question_first(problem: Problem, rng: random.Random) -> Problem | None:
    """The question before what is given."""
    hint, stem, choices = _parts(problem.question)
    split = _givens_and_question(stem)
    if split is None or "\n\n" in stem:
        return None
    givens, question = " ".join(split[0]), split[1]
    lead = rng.choice(("Here is what is known:", "It is given that:", "Use these facts.", "The facts are these:",
                       "Given:"))
    if not givens or not numbers_in(givens):
        return None
    return Problem(_joined(hint, f"{question} {lead} {givens}", choices), problem.output, problem.answer)


_NAME = r"(?:(?:angle|side|line|segment|arc|chord|triangle|radius|diameter)\s+|[∠△⊙]\s*)?[A-Z]{1,4}'?"
_FACT = re.compile(rf"(?:and\s+)?(?:{_NAME}\s*=\s*[\w.°√/ ]{{1,20}}|{_NAME}\s*[∥⊥]\s*{_NAME}|[\ue000-\uf8ff]"
                   rf"|{_NAME}\s*(?:is\s+)?(?:parallel|perpendicular)(?:\s+to)?\s*{_NAME})")


def reordered(problem: Problem, rng: random.Random) -> Problem | None:
    """Facts that stand in a row (AB = 5, angle B = 60°, DE parallel BC) in another order: "and" is commutative."""
    hint, stem, choices = _parts(problem.question)
    masked, formulas = _mask(stem)
    if "respectively" in stem:
        return None
    pieces = re.split(r"(,\s*and\s+|,\s*|\s+and\s+)", masked)  # pieces at even places, separators between

    def is_fact(piece: str) -> bool:
        if not _FACT.fullmatch(piece.strip()):
            return False
        return not (0xE000 <= ord(piece.strip()[-1]) <= 0xF8FF) or bool(
            re.search(r"=|\\parallel|\\perp|∥|⊥", formulas[ord(piece.strip()[-1]) - 0xE000])
        )

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
        (r"\bAs shown in the (?:figure|diagram)\b",
         ("In the figure", "In the diagram", "As the figure shows", "As drawn")),
        (r"\bIn the figure\b", ("In the diagram", "As the figure shows")),
        (r"\bit is known that\b", ("we know that", "it is given that")),
        (r"\bGiven that\b", ("Suppose that", "It is known that", "Assume that")),
        (r"\bFind the value of\b", ("Determine the value of", "Work out the value of", "Calculate")),
        (r"\bFind\b(?! out)", ("Determine", "Work out", "Calculate")),
        (r"\bCalculate\b", ("Compute", "Work out", "Find")),
        (r"\bDetermine\b", ("Find", "Work out")),
        (r"\bEvaluate\b", ("Compute", "Find the value of")),
        (r"\bWhat is the value of\b", ("How large is",)),
        (r"\bWhat is the (sum|product|area|perimeter|volume|length|size) of ([^?.]+)\?",
         (r"Find the \1 of \2.", r"Give the \1 of \2.")),
        (r"\bWhat is the size of angle\b", ("How large is angle", "What is the measure of angle")),
        (r"\bthe size of (?=angle|∠)", ("the measure of ",)),
        (r"\bthe measure of (?=angle|∠)", ("the size of ",)),
        (r"\btriangle (?=[A-Z]{3}\b)", ("△", "the triangle ")),
        (r"△ ?(?=[A-Z]{3}\b)", ("triangle ",)),
        (r"\bangle (?=[A-Z]{1,3}\b)", ("∠",)),
        (r"∠ ?(?=[A-Z]{3}\b)", ("angle ",)),
        (r"\b([A-Z]{2}) parallel (?:to )?([A-Z]{2})\b", (r"\1 ∥ \2", r"\1 is parallel to \2")),
        (r"\b([A-Z]{2}) perpendicular (?:to )?([A-Z]{2})\b", (r"\1 ⊥ \2", r"\1 is perpendicular to \2")),
        (r"\bHow many ([a-z]+) are there\b", (r"What is the number of \1",)),
        (r"\bin total\b", ("altogether", "in all")),
        (r"\baltogether\b", ("in total", "in all")),
        (r"\beach day\b", ("every day", "per day")),
        (r"\bLet\b(?= [a-z$\ue000-\uf8ff])", ("Suppose that we let",)),
        (r"\bProve that\b", ("Show that",)),
        (r"\bSimplify\b", ("Bring to its simplest form:",)),
        (r"\bSolve for\b", ("Find the value of",)),
        (r"\bis equal to\b", ("equals",)),
        (r"\bHow much does it cost\b", ("What is the cost",)),
        (r"\bhas a radius of\b", ("has radius",)),
    ]
]


def reworded(problem: Problem, rng: random.Random) -> Problem | None:
    """Phrases exchanged for others that mean the same."""
    hint, stem, choices = _parts(problem.question)
    masked, formulas = _mask(stem)
    changed: list[bool] = []
    shield: list[str] = []

    def swap(options: tuple[str, ...]):
        def replaced(match: re.Match) -> str:
            if rng.random() < 0.15:
                return match[0]
            changed.append(True)
            shield.append(match.expand(rng.choice(options)))  # out of reach of the later patterns
            return chr(0xF0000 + len(shield) - 1)

        return replaced

    for pattern, options in _SYNONYMS:
        masked = pattern.sub(swap(options), masked)
    for index in reversed(range(len(shield))):
        masked = masked.replace(chr(0xF0000 + index), shield[index])
    result = _joined(hint, _unmask(masked, formulas), choices)
    return Problem(result, problem.output, problem.answer) if changed and result != problem.question else None


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
