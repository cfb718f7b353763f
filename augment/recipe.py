"""What is done with one problem: read it, refuse it or keep it, vary it, set it on a page, write its rows."""

import argparse
import functools
import hashlib
import io
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace

from PIL import Image

from augment import containers
from augment.avoid import Avoid, read_avoided
from augment.dialects import normalise, speaks_of_figure
from augment.page import Layout, Style, draw, lay_out, random_style, split_choices
from augment.pictures import TRANSFORMS, transform
from augment.rephrase import (METHODS, REWORD_PROMPT, SOLVE_PROMPT, Problem, check_rewording, clean_output, split_hint,
                              stated_answer, unusable)
from augment.typeset import CannotSet, MissingGlyphs, coverage
from benchmarks import benchmark_of
from common.files import file_ends, fingerprint, write_atomically
from common.llm import Client, user_message
from errors import UserError
from evaluation.answers import final_answer
from evaluation.choices import chosen_letter
from evaluation.matcher import equal
from problems.pairs import LOOK
from sources import WEAK, BadRow, WrongFile, conversations, image_path, open_image, parse_spec

VERSION = 2  # raised whenever the same seed gives other bytes
EXPLAIN_TRIES = 3
NO_FIGURE = "speaks of a figure that is not there"


@dataclass(frozen=True)
class Plan:
    """Everything that decides the bytes written."""

    stage: int
    data: tuple[tuple[str, str], ...]
    image_root: str
    select: str
    expand: float
    methods: tuple[str, ...]
    transforms: tuple[str, ...]
    transform_pages: float
    fonts: tuple[str, ...]
    resolution: int
    min_text: float
    answer_only: str
    min_reasoning: int
    avoid: tuple[str, ...]
    avoid_image_root: str
    rephrase: tuple[str, str]
    explain: tuple[str, str]
    llm_cache: str
    llm_concurrency: int
    seed: int
    drop_figure_text: bool

    @property
    def file_name(self) -> str:
        """The training file's name in the output folder."""
        return f"stage{self.stage}.jsonl"

    def fingerprint(self) -> str:
        """Of what decides the bytes: not where folders and servers are, nor how many calls go out at a time."""
        facts = asdict(self)
        del facts["llm_concurrency"], facts["llm_cache"]
        facts["data"] = [(_stamps(path), amount) for path, amount in self.data]
        facts["avoid"], facts["fonts"] = [list(map(_stamp, paths)) for paths in (self.avoid, self.fonts)]
        del facts["image_root"], facts["avoid_image_root"]
        facts["rephrase"], facts["explain"] = self.rephrase[1], self.explain[1]  # the models
        return fingerprint([VERSION, facts])


def _stamps(path: str) -> object:
    """Of every file that holds rows of `path`; of a data set of the hub, its version."""
    if containers.is_hub_name(path):
        return path, containers.hub_version(path)
    return [_stamp(file) for file in containers.files(path)[0]]


def _stamp(path: str) -> tuple[str, int, str]:
    """A file's name, size, and a hash of its two ends: the same on every machine, and cheap for gigabytes."""
    return os.path.basename(path), os.path.getsize(path), hashlib.sha256(file_ends(path)).hexdigest()


def make_plan(arguments: argparse.Namespace) -> Plan:
    """The command line as a Plan. Raises UserError for what cannot be done."""
    methods = _known(arguments.methods, METHODS, "--methods")
    transforms = _known(arguments.transforms, TRANSFORMS, "--transforms")
    for path, _ in parse_spec(arguments.data):
        containers.files(path)
    for path in (*arguments.avoid, arguments.font or __file__):
        if not os.path.isfile(path):
            raise UserError(f"{path}: no such file")
    if arguments.select:
        key, _, pattern = arguments.select.partition("=")
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"--select {arguments.select}: not a regular expression ({error})") from None
        if not key or not pattern:
            raise UserError(f"--select {arguments.select}: expected KEY=REGEX, for example image=^geo3k/")
    for server in ("rephrase", "explain"):
        if getattr(arguments, server) and not getattr(arguments, f"{server}_model"):
            raise UserError(f"--{server} also needs --{server}_model, the name the server knows its model by")
    if not 1.0 <= arguments.expand <= len(METHODS) + 2:
        raise UserError(f"--expand {arguments.expand:g}: expected 1 to {len(METHODS) + 2}")
    if arguments.font:
        try:
            coverage(arguments.font)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"--font {arguments.font}: not a font that FreeType reads ({error})") from None
    settings = vars(arguments) | {
        "data": tuple(parse_spec(arguments.data)), "methods": methods, "transforms": transforms,
        "fonts": (arguments.font,) if arguments.font else (), "avoid": tuple(arguments.avoid),
        "rephrase": (arguments.rephrase, arguments.rephrase_model),
        "explain": (arguments.explain, arguments.explain_model),
        "llm_cache": arguments.llm_cache or os.path.join(arguments.out_dir, "llm_cache"),
    }
    plan = Plan(**{entry.name: settings[entry.name] for entry in fields(Plan)})
    for url, model in {plan.rephrase, plan.explain} - {("", "")}:
        Client(url, model).check()
    return plan


def _known(names: str, known: dict, flag: str) -> tuple[str, ...]:
    chosen = tuple(name for name in names.split(",") if name)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise UserError(f"{flag}: unknown {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(name for name in known if name in chosen)


# ----------------------------------------------------------------------------------------------------------------------
# Reading


class Dropped(BadRow):
    """A row, or a variant of it, that is not written, and the reason it is counted under."""

    def __init__(self, reason: str):
        super().__init__(reason, "")

    def __str__(self) -> str:
        return self.reason


def drop(error: BadRow, row_id: str, counts: Counter, first: dict[str, str]) -> None:
    """Count what is not used under its reason. first: of every reason, the first row and what is wrong with it."""
    key = f"dropped: {error.reason}"
    counts[key] += 1
    remedy = error.remedy.removesuffix(", or pass --skip_bad_rows")  # what is done here anyway
    said = f"{row_id}: {error.detail}; {remedy}" if error.detail else row_id
    first.setdefault(key, " ".join(said.encode(errors="backslashreplace").decode().split()))  # a path may be no Unicode


@dataclass
class Example:
    """One problem on its way: where it comes from, its words, its picture (a value of its row), what was done to it."""

    row_id: str  # file:number, and /weak for the second side of a pair
    problem: Problem
    picture: object | None
    image_root: str
    methods: list[str] = field(default_factory=list)
    image: Image.Image | None = None  # decoded when it was needed


@functools.lru_cache(1)
def avoided(paths: tuple[str, ...], image_root: str) -> Avoid:
    """The evaluation files, read once in the parent process: the workers inherit them."""
    return read_avoided(paths, image_root)


def read_examples(row: dict | BadRow, row_id: str, image_root: str, plan: Plan, counts: Counter,
                  first: dict[str, str]) -> Iterator[Example]:
    """The usable problems of a row; the others are counted (see drop). Raises UserError for a row of a benchmark."""
    try:
        if isinstance(row, BadRow):
            raise row
        key, _, pattern = plan.select.partition("=")
        if pattern and not re.search(pattern, str(row.get(key, ""))):
            raise Dropped("not selected")
        sides = conversations(normalise(row), pairs=False)
    except WrongFile as error:
        raise UserError(f"{row_id}: {error.detail}; {error.remedy}") from None
    except BadRow as error:
        drop(error, row_id, counts, first)
        return
    done = row.get("methods") if isinstance(row.get("methods"), list) else []  # a row that was written here before
    for side, turns in sides:
        try:
            example = _usable(side, turns, row_id, image_root, plan)
        except BadRow as error:
            drop(error, row_id, counts, first)
            continue
        example.methods = [str(method) for method in done if method != "original"]
        if example.picture is None and speaks_of_figure(example.problem.question):
            counts[NO_FIGURE] += 1
            first.setdefault(NO_FIGURE, row_id)
        yield example


def _usable(side: int, turns: list, row_id: str, image_root: str, plan: Plan) -> Example:
    if plan.stage == 2 and side != 0:
        raise Dropped("already a pair")
    if turns[0].role == "system":
        raise Dropped("has a system prompt, for which the written form has no place")
    if len(turns) != 2:
        raise Dropped("more than one question")
    question, response = turns
    if len(question.images) > 1:
        raise Dropped("more than one picture")
    picture = question.images[0] if question.images else None
    if picture is not None and plan.stage == 1:
        raise Dropped("has a picture (stage 1 is text)")
    if not question.text:
        raise Dropped("question is empty")
    if benchmark := benchmark_of(question.text):
        raise Dropped(f"a question of {benchmark}")
    if plan.drop_figure_text and picture is None and speaks_of_figure(question.text):
        raise Dropped(NO_FIGURE)
    if reason := unusable(question.text, response.text):
        raise Dropped(reason)
    output = clean_output(response.text)
    answer = stated_answer(output)
    if answer is None and len(output) <= 40 and not {"\n", "="} & set(output):
        answer = output.rstrip(".")
    example = Example(row_id + ("/weak" if side == WEAK else ""), Problem(question.text, output, answer), picture,
                      image_root)
    avoid = avoided(plan.avoid, plan.avoid_image_root)
    reason = avoid.question(question.text)
    if reason:
        raise Dropped(reason)
    if picture is not None:
        example.image = open_image(picture, image_root)
        if min(example.image.size) < 16:
            raise Dropped("picture smaller than 16 pixels")
        if max(high - low for low, high in example.image.getextrema()) < 12:  # of 255
            raise Dropped("picture shows nothing")
        reason = avoid.picture(example.image)
        if reason:
            raise Dropped(reason)
    return example


# ----------------------------------------------------------------------------------------------------------------------
# Servers


def agrees(response: str, answer: str, question: str) -> bool:
    """Whether a worked response ends in this answer; with choices, in the same choice."""
    choices = [content for _, content in split_choices(question)[1]]
    if choices:
        letter = chosen_letter(response, choices)
        return letter is not None and letter == chosen_letter(f"Answer: {answer}", choices)
    found = final_answer(response)
    return found is not None and equal(found, answer)


def _solve(example: Example, question: str) -> list[dict]:
    """The messages that ask for a worked solution."""
    pictures = [_encoded(example.image, "PNG")] if example.image is not None else []
    return [user_message(SOLVE_PROMPT + question, pictures)]


def explain(examples: list[Example], plan: Plan, client: Client, counts: Counter,
            first: dict[str, str]) -> list[Example]:
    """Answer-only problems with a server's explanation, kept where its answer is the row's; the rest is counted."""
    explained: dict[int, Example] = {}
    waiting = list(range(len(examples)))
    for sample in range(EXPLAIN_TRIES):
        asked = [_solve(examples[index], examples[index].problem.question) for index in waiting]
        replies = list(client.chat_many(asked, sample=sample, temperature=0.7 if sample else 0.0))
        again = []
        for index, reply in zip(waiting, replies, strict=True):
            problem = examples[index].problem
            if reply.error is None and agrees(reply.text, problem.answer, problem.question):
                text = reply.text.strip()
                if not re.search(r"^Answer: .+$", text.splitlines()[-1]):
                    text += f"\nAnswer: {problem.answer}"
                explained[index] = replace(examples[index], problem=replace(problem, output=text))
                explained[index].methods.append("explained")
            elif reply.error is None:
                again.append(index)
            else:
                drop(Dropped("answer only, and the server failed"), examples[index].row_id, counts, first)
        waiting = again
    for index in waiting:
        drop(Dropped("answer only, and the server's answer differs"), examples[index].row_id, counts, first)
    counts["explained by the server"] += len(explained)
    return [explained[index] for index in sorted(explained)]


def reword(examples: list[Example], client: Client, counts: Counter) -> list[str | None]:
    """A server's rewording of each question, or None where numbers, names, choices or the answer did not survive."""
    questions = [split_hint(example.problem.question)[1] for example in examples]
    replies = client.chat_many([[user_message(REWORD_PROMPT + question)] for question in questions], temperature=0.7)
    reworded: list[str | None] = []
    for example, question, reply in zip(examples, questions, replies, strict=True):
        reason = reply.error and "the server failed"
        reason = reason or ("the answer is not stated" if example.problem.answer is None else None)
        reason = reason or check_rewording(question, reply.text)
        if reason:
            counts[f"rewording refused: {reason}"] += 1
        reworded.append(None if reason else reply.text.strip())
    kept = [index for index, text in enumerate(reworded) if text]
    solutions = client.chat_many([_solve(examples[index], reworded[index]) for index in kept])
    for index, reply in zip(kept, solutions, strict=True):
        if reply.error or not agrees(reply.text, examples[index].problem.answer, reworded[index]):
            counts["rewording refused: " + ("the server failed" if reply.error else "the answer changed")] += 1
            reworded[index] = None
    return reworded


# ----------------------------------------------------------------------------------------------------------------------
# Variants


def vary(example: Example, plan: Plan, reworded: str | None, counts: Counter) -> Iterator[Example]:
    """The problem as it is, and its variants: each by another method, with its picture transformed in another way."""
    before = tuple(example.methods)
    yield replace(example, methods=list(before))
    rng = random.Random(f"{plan.seed}/{example.row_id}/variants")
    wanted = int(plan.expand - 1) + (rng.random() < (plan.expand - 1) % 1)
    if not wanted:
        return
    ways = [*plan.methods, *(["server"] if reworded else [])]
    rng.shuffle(ways)
    made, seen = 0, {example.problem.question}
    transforms = [name for name in plan.transforms if example.image is not None]
    while made < wanted and (ways or transforms):
        problem, methods = None, list(before)
        while ways and problem is None:
            way = ways.pop()
            if way == "server":
                hint = split_hint(example.problem.question)[0]
                problem = replace(example.problem, question=(hint + "\nQuestion: " if hint else "") + reworded)
            else:
                problem = METHODS[way](example.problem, rng)
            if problem is not None and problem.question in seen:
                problem = None
        if problem is None and not transforms:
            break
        image = example.image
        if problem is not None:
            seen.add(problem.question)
            methods.append(way)
        if transforms:
            image, names = transform(image, rng, transforms)
            methods += names
        yield replace(example, problem=problem or example.problem, image=image, methods=methods)
        made += 1
    counts["variants wanted, no further method applies"] += wanted - made


def render(example: Example, plan: Plan, seed: str, counts: Counter) -> Image.Image:
    """The question on a page with its picture, in a random style; in a denser one where that is too small to read."""
    rng = random.Random(seed)
    style = random_style(rng)
    text = split_hint(example.problem.question)[1]
    size = example.image.size if example.image is not None else None
    try:
        layout = lay_out(text, style, size, plan.fonts)
        if _em_at(plan.resolution, style, layout) < plan.min_text:
            style = replace(style, family="stix", leading=1.25, margin=0.6, aspect=1.0)
            layout = lay_out(text, style, size, plan.fonts)
    except MissingGlyphs as error:
        counts.update(f"character without a glyph: U+{ord(character):04X}" for character in error.characters)
        raise Dropped("characters that no font has (--font)") from None
    except CannotSet:
        raise Dropped("formula that cannot be set") from None
    if _em_at(plan.resolution, style, layout) < plan.min_text:
        raise Dropped("too much text for one picture")
    counts.update(layout.counts)
    page = draw(layout, style, example.image)
    if rng.random() < plan.transform_pages:
        page, names = transform(page.convert("RGB"), rng, plan.transforms)
        example.methods += [f"page {name}" for name in names]
    return page


def _em_at(resolution: int, style: Style, layout: Layout) -> float:
    """Pixels per em after the page is squashed to the square that the model sees."""
    return style.size * resolution / max(layout.width, layout.height)


# ----------------------------------------------------------------------------------------------------------------------
# Writing


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "PNG":
        image.save(buffer, "PNG", compress_level=3)
    else:
        image.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def _is_photo(example: Example) -> bool:
    """Whether the source was a JPEG: its grain would make a PNG five times as large."""
    grainy = not {"noise", "jpeg", "page noise", "page jpeg"}.isdisjoint(example.methods)
    return grainy or (example.picture is not None and _head(example) == b"\xff\xd8\xff")


def _head(example: Example) -> bytes:
    """The first bytes of the source's picture, which say its format; its name may be wrong, or there is none."""
    if isinstance(example.picture, bytes):
        return example.picture[:3]
    with open(image_path(example.picture, example.image_root), "rb") as file:
        file.seek(example.picture["offset"] if isinstance(example.picture, dict) else 0)
        return file.read(3)


def save_picture(image: Image.Image, out: str, name: str, photo: bool) -> str:
    """Write a picture atomically; its path relative to `out`."""
    name += ".jpg" if photo else ".png"
    path = os.path.join(out, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    data = _encoded(image.convert("RGB"), "JPEG") if photo else _encoded(image, "PNG")
    write_atomically(path, data, durable=False)
    return name


def write_rows(example: Example, variant: int, plan: Plan, out: str, name: str, counts: Counter) -> dict:
    """The row of one variant, its pictures saved under `name`. Raises Dropped."""
    row_id = f"{example.row_id}/{variant}"
    page = None
    if plan.stage == 2:
        page = render(example, plan, f"{plan.seed}/{row_id}/page", counts)
    if example.image is None:
        image_url = ""
    elif isinstance(example.picture, str) and not variant:
        image_url = os.path.relpath(image_path(example.picture, example.image_root), out)
    else:
        image_url = save_picture(example.image, out, name, _is_photo(example))
    problem = example.problem
    row = {"id": row_id, "image_url": image_url, "instruction": problem.question, "output": problem.output}
    if page is not None:
        hint = split_hint(problem.question)[0]
        look = random.Random(f"{plan.seed}/{row_id}/look").choice(LOOK)
        row["image_url_2"] = save_picture(page, out, name + "-page", _is_photo(example))
        row["instruction_2"] = f"{look}\n{hint}" if hint else look
        row["output_2"] = problem.output
        row["level"], row["level_2"] = "original", "rendered"
    is_original = all(method.startswith("page ") for method in example.methods)
    row["source"], row["methods"] = example.row_id, ["original"] * is_original + example.methods
    row["answer"], row["seed"] = problem.answer or "", plan.seed
    counts.update(f"method: {method}" for method in row["methods"])
    return row
