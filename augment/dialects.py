"""What a row of another dialect says, found by its keys. sources.py calls sides."""

import re

from sources import BadRow, BenchmarkRow, Conversation, Turn, images_of, published_turns, short


ACCEPTED = ("image_url_2|instruction_2 (a pair), conversations, messages, texts, text_en + image_text_dominant, "
            "query + response, problem + solution, instruction + output, question + answer|short_answer")
BENCHMARK_KEYS = (
    ("MathVerse", {"problem_version", "sample_index"}), ("MathVerse", {"problem_version", "problem_index"}),
    ("MathVista", {"pid", "metadata"}), ("We-Math", {"knowledge concept"}),
    ("a generated benchmark (bench.jsonl)", {"problem_id", "version"})
)
IMAGE_KEYS = ("image", "images", "image_url", "image_path", "decoded_image")
ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "system": "system"
}


def sides(row: dict, pairs: bool) -> list[Conversation]:
    """The conversations of a row with keys of another dialect, unchecked: one, or strong and weak side of a pair.

    Raises BadRow, also for a row of an evaluation set.
    """
    for benchmark, keys in BENCHMARK_KEYS:
        if keys <= row.keys():
            raise BenchmarkRow("benchmark row", f"a row of {benchmark}, an evaluation set", "never train on it")
    if "image_url_2" in row or "instruction_2" in row:
        return [published_turns(row, ""), published_turns(row, "_2")]
    if "text_en" in row and "image_text_dominant" in row:
        return _mavis_pair(row)
    if pairs:
        keys = ", ".join(sorted(map(str, row))[:12])
        raise BadRow("not a pair",
                     f"a pair has image_url, instruction, output and the same with _2; the keys here are: {keys}")
    return [_single(row)]


def _mavis_pair(row: dict) -> list[Conversation]:
    """MAVIS-Geometry has several versions of a problem: text-dominant is the strong side, vision-dominant the weak."""
    texts = row["text_en"]
    if not isinstance(texts, dict):
        raise BadRow("field is not what it should be", "text_en is not an object")
    sides = []
    for version in ("text_dominant", "vision_dominant"):
        question = _with_choices(texts.get(f"{version}_question", ""), row.get("choices"))
        images = images_of(row.get(f"image_{version}"))
        sides.append([Turn("user", question, images), Turn("assistant", texts.get("CoT_reasoning"))])
    return sides


def _single(row: dict) -> Conversation:
    images = next(filter(None, (images_of(row.get(key)) for key in IMAGE_KEYS)), [])  # the first key that holds any
    if "conversations" in row:
        return _dialogue(row["conversations"], "from", "value", images)
    if "messages" in row:
        return _dialogue(row["messages"], "role", "content", images)
    if "texts" in row:
        return _fine_vision(row["texts"], images)
    if "query" in row and "response" in row:
        question, answer = row["query"], row["response"]
    elif "problem" in row and "solution" in row:
        question, answer = row["problem"], row["solution"]
    elif "instruction" in row and "output" in row:
        question, answer = row["instruction"], row["output"]
        if row.get("input"):
            question = f"{question}\n{row['input']}"
    elif "question" in row and ("answer" in row or "short_answer" in row):
        answer = row.get("answer")
        question, answer = (_with_choices(row["question"], row.get("choices")),
                            row.get("short_answer") if answer is None else answer)
    else:
        keys = ", ".join(sorted(map(str, row))[:12]) or "none"
        raise BadRow("unknown dialect", f"the keys are: {keys}; accepted: {ACCEPTED}")
    return [Turn("user", question, images), Turn("assistant", answer)]


def _with_choices(question: object, choices: object) -> object:
    if not isinstance(question, str) or not isinstance(choices, list) or not choices:
        return question
    lettered = all(re.search(rf"\b{letter}\s?[).:、]", question) for letter in "AB")
    if lettered and all(str(choice) in question for choice in choices):
        return question  # the question already lists them
    lines = [f"({chr(65 + index)}) {choice}" for index, choice in enumerate(choices)]
    return "\n".join([question, "Choices:", *lines])


def _dialogue(items: object, role_key: str, text_key: str, images: list) -> Conversation:
    if not isinstance(items, list) or not items:
        raise BadRow("field is not what it should be", "the conversation is not a list of turns")
    turns: Conversation = []
    for item in items:
        role = ROLES.get(item.get(role_key)) if isinstance(item, dict) and isinstance(item.get(role_key), str) else None
        if role is None:
            raise BadRow("unknown speaker",
                         f"a turn is not one of {', '.join(ROLES)} by its key {role_key!r}: {short(item)}")
        if role == "assistant" and not any(turn.role == "user" for turn in turns):
            continue  # a greeting before the first question; LLaVA skips it too
        turns.append(Turn(role, item.get(text_key)))
    placed = [turn for turn in turns if turn.role == "user" and isinstance(turn.text, str) and "<image>" in turn.text]
    if not placed:
        placed = [turn for turn in turns if turn.role == "user"][:1]
    if len(placed) == 1:
        placed[0].images = images
    elif placed:
        waiting = list(images)
        for turn in placed:
            count = turn.text.count("<image>")
            turn.images, waiting = waiting[:count], waiting[count:]
        if waiting:
            raise BadRow("images and placeholders differ", f"{len(images)} images, fewer <image> placeholders")
    return turns


def _fine_vision(texts: object, images: list) -> Conversation:
    turns: Conversation = []
    for item in texts if isinstance(texts, list) else []:
        if not isinstance(item, dict):
            raise BadRow("field is not what it should be",
                         "texts holds something that is not a {user, assistant} object")
        turns += [Turn("user", item.get("user")), Turn("assistant", item.get("assistant"))]
    if not turns:
        raise BadRow("field is not what it should be", "texts is not a list of {user, assistant} objects")
    turns[0].images = images
    return turns
