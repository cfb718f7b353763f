"""What a row of any dialect says, found by its keys, in the one form that the trainer reads.

    normalise({"image": "a.png", "question": "Find x.", "choices": ["1", "2"], "answer": 1})
    {"turns": [{"role": "user", "content": [{"image": "a.png"}, {"text": "Find x.\\nChoices:\\n(A) 1\\n(B) 2"}]},
               {"role": "assistant", "content": [{"text": "B"}]}], "answer": "B"}

Keys are taken out of a copy of the row as they are used. What is left in the end must be harmless: a key that looks
like a picture, options, a table, tools ... refuses the row, since it would train on something else without a word.
"""

import ast
import base64
import binascii
import json
import os
import re
from collections import Counter
from collections.abc import Iterator

from PIL import Image

from sources import BENCHMARK_KEYS, CONTENT, IMAGE_KEY, IMAGE_NAME, LABELS, MISSING_WORDS, PLACEHOLDER
from sources import BadRow, BenchmarkRow, WrongFile, is_content_key, short

MAX_TEXT = 64 * 1024  # bytes of a row's texts: no problem is longer, and much that is done with texts takes its time
TOO_LONG = "cut the row, or pass --skip_bad_rows"
LONG_TEXT = "text above 64 KB"
MAX_DEPTH = 16  # objects within objects
MAX_OPTIONS = 26

ACCEPTED = ("turns, strong + weak, image_url_2|instruction_2 (a pair), conversations, conversation, messages, texts, "
            "text_en + image_text_dominant, or a question (instruction, query, problem, question, prompt, input) with "
            "output, response, completion, solution, rationale or answer")
MATH_VISION = {"id", "question", "options", "answer", "level", "subject", "image"}
MATH_VISION_SUBJECTS = {
    "algebra", "analytic geometry", "arithmetic", "combinatorial geometry", "combinatorics", "counting",
    "descriptive geometry", "graph theory", "logic", "metric geometry - angle", "metric geometry - area",
    "metric geometry - length", "solid geometry", "statistics", "topology", "transformation geometry"
}

# A later name of the same picture gives way to an earlier one: see row_pictures.
IMAGE_KEYS = ("image", "images", "image_url", "image_path", "decoded_image", "image_urls", "image_paths", "img", "imgs",
              "img_path", "img_url", "picture", "pictures", "pic", "pics", "photo", "image_file", "image_base64",
              "image_bytes", "image_data", "bytes", "png", "jpg", "jpeg", "webp")
# Pictures under these too, if that is what they hold: they may also hold words.
SPEAKS_OF_PICTURE = ("image_id", "img_id", "imageid", "has_image", "image_folder", "image_dir")
MAYBE_IMAGE_KEYS = ("figure", "figures", "diagram", "diagrams", "screenshot", "screenshots", "file_name", "filename")
NUMBERED = re.compile(r"((?:image|img|picture|pic|figure|screenshot|photo|url)(?:_(?:url|path))?)_?(\d{1,2})")
PICTURE_NAME = re.compile(r"\.(?:png|jpe?g|gif|bmp|webp|tiff?|svg)(?:[?#]\S*)?$", re.IGNORECASE)
URL = re.compile(r"(?:https?|ftp|s3|gs|hf)://", re.IGNORECASE)
MAGIC = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|BM....\0\0\0\0|II\*\0|MM\0\*|RIFF....WEBP", re.DOTALL)
BASE64_MAGIC = re.compile(r"iVBORw0KGg|/9j/[A-Za-z0-9+/]{4}|R0lGOD[dl]h|Qk[0-3][A-Za-z0-9+/]{5}|SUkqA|TU0AK|UklGR")

# Where a picture belongs, in the words of many tools. Each part stops at its own opening sign, so that a text of
# openings alone is read once.
PLACE = re.compile(
    r"!\[(?:[^\[\]]|\[[^\[\]]*\])*\]\((?P<markdown>(?:[^()]|\([^()]*\))*)\)"
    r"|\\includegraphics(?:\[[^\[\]]*\])?\{(?P<latex>[^{}]*)\}"
    r"|<(?:img|image)>\s?<(?:imagehere|img_context|image)>\s?</(?:img|image)>"
    r"|<img\b(?P<tag>[^<>]*)>(?:(?P<path>[^<>]*)</img>)?"
    r"|<\|vision_start\|>(?:<\|image_pad\|>)*<\|vision_end\|>|(?:<\|image_pad\|>)+"
    r"|(?:<\|?(?:image|img)[\s_#-]?|\{(?:image|img)[#_]|\[(?:image|img)[\s_#-]?)(?P<number>\d{1,3})(?:\|?>|\}|\])"
    r"|<\|?(?:image|imagehere|image_placeholder|image_token|image_soft_token|start_of_image)\|?>|\[(?:image|img)\]",
    re.IGNORECASE)
FILM = re.compile(r"<\|?(?:video|audio|speech)(?:_pad|_\d{1,3})?\|?>", re.IGNORECASE)

OPTION_KEY = re.compile(r"(?:answer_)?(?:option|choice|opt|op)_?([a-h]|[1-8])")
NUMBER_MARK = re.compile(r"\(?\d(?=\)|[、:]|\.(?!\d))|[①-⑳]")  # "1.", "(2)", "③"
OPTION_MARK = re.compile(r"(?:^|(?<=[\s;,，；]))\(?([A-Za-z]) ?[).:、．]")  # "A.", "(b)", "c )"

# LaTeX in a text that both JSON and Python would misread: the \f of \frac is a form feed, the \t of \times a tab.
SINGLE_BACKSLASH = re.compile(r"(?<!\\)(?:\\\\)*\\(?:[^\\'\"/nuxtr]|[tr][a-z])")
DIALOGUES = ("conversations", "conversation", "messages", "texts", "dialogue", "dialog")
QUESTIONS = ("instruction", "query", "problem", "question", "prompt", "input", "question_text", "problem_statement")
RESPONSES = ("output", "response", "completion")  # all that is to be said
WORKS = ("solution", "rationale", "explanation", "reasoning", "cot", "chain_of_thought", "generated_solution",
         "cot_reasoning", "analysis",
         "cot_rationale", "complex_cot", "detailed_solution", "steps", "solution_steps", "explanations", "proof",
         "thinking", "reasoning_content", "解析")  # the way, to which the answer is added
ANSWERS = ("answer", "short_answer", "final_answer", "correct", "correct_answer", "correct_option", "answer_index",
           "answer_idx", "answerkey", "answer_key", "ground_truth", "expected_answer", "gt_answer", "answers", "target")
INDICES = ("answer_index", "answer_idx")
CONTEXTS = ("context", "passage", "paragraph", "background", "body", "story", "scenario", "hint")
ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "bot": "assistant", "chatgpt": "assistant", "system": "system", "developer": "system"
}
PAIR_ROLES = {**ROLES, **dict.fromkeys(("input", "question", "query", "prompt"), "user"),
              **dict.fromkeys(("output", "answer", "response"), "assistant")}  # of the keys of one object
TOOL_ROLES = {"tool", "function", "observation", "function_call", "tool_call", "tool_response", "tool_result",
              "ipython"}
TOOL_KEYS = ("tools", "functions", "tool_calls", "function_call", "tool_call_id")
TEXT_PARTS = ("", "text", "input_text", "output_text")
IMAGE_PARTS = ("", "image", "image_url", "input_image", "picture")
PART_PICTURES = ("bytes", "image", "image_url", "base64", "data", "source", "url", "path", "value")
PART_SETTINGS = {"type", "detail", "cache_control", "annotations", "min_pixels", "max_pixels", "resized_height",
                 "resized_width", "id"}
# Keys that change what a row means and that no training row has: (reason, what it is, remedy).
REFUSED = {
    **dict.fromkeys(("chosen", "rejected", "chosen_response", "rejected_response", "kto_tag", "preferred"),
                    ("preference pair", "a better and a worse response", "keep the better one as response")),
    **dict.fromkeys(TOOL_KEYS, ("tool turn", "the tools of an agent", "leave such rows out")),
    **dict.fromkeys(("video", "videos", "audio", "audios", "speech"),
                    ("video or sound", "a video or sound", "leave such rows out")),
    **dict.fromkeys(("objects", "bbox", "bboxes"),
                    ("unknown key", "places in a picture", "write them into the texts and take the key out")),
}
ABOUT_PICTURES = ("url", "path", "source", "source_url", "image_name", "image_source")  # beside a picture, no other one
MISSPELT = re.compile(r"i[ma]{1,3}ge?|pic(?![a-z])")


def normalise(row: dict, aside: Counter | None = None) -> dict:
    """The row in the one form, pictures as paths, bytes or places; own keys (id, source, answer, level ...) are kept.

    aside: counts the keys whose texts are not trained on. Pure: nothing is opened. Raises BadRow, which names the key
    and the remedy, BenchmarkRow for a row of an evaluation set, and WrongFile for an answer that counts from 1, as
    those of the other rows then do.
    """
    if not isinstance(row, dict):
        raise BadRow("not a row", f"this is {type(row).__name__}, no object with keys")
    _refuse_benchmarks(row)
    spelt, left = _by_key(_plain(row), row)
    _refuse_keys(left)
    own = {key: left[key] for key in ("id", "answer") if key in left}
    if "turns" in spelt:
        sides = [_placed(_turns(left.pop("turns", None)), [])]
    elif "strong" in spelt and "weak" in spelt:
        sides = [_side(left.pop(side, None), side) for side in ("strong", "weak")]
    elif "image_url_2" in spelt or "instruction_2" in spelt:
        sides = [_published_side(left, suffix) for suffix in ("", "_2")]
    elif isinstance(left.get("text_en"), dict) and "image_text_dominant" in spelt:
        sides = _mavis_pair(left, spelt)
    else:
        sides = [_single(left, spelt, own)]
    parts = [part for turns in sides for turn in turns for part in turn["content"]]
    shown = "\n".join(part.get("text", "") for part in parts)
    if len(shown.encode("utf-8", "replace")) > MAX_TEXT:
        raise BadRow(LONG_TEXT, f"the texts have {len(shown):,} characters", TOO_LONG)
    _refuse_left(left, spelt, shown, len(sides), any("image" in part for part in parts))
    sides = [_checked(turns) for turns in sides]
    if len(sides) == 2 and sides[0][-1]["content"] != sides[1][-1]["content"]:
        strong, weak = (turns[-1]["content"][0]["text"] for turns in sides)
        raise BadRow("responses of a pair differ", f"output is {short(strong)}, output_2 is {short(weak)}")
    texts = [key for key, value in left.items() if key not in own and any(
        isinstance(text, str) and " " in text.strip() and text.strip() not in shown
        for text in (value if isinstance(value, list) else [value]))]
    if texts and not any("text" in part for turn in sides[-1] for part in turn["content"] if turn["role"] == "user"):
        raise BadRow("empty question", f"no text asks about the image, and {short(spelt[texts[0]])} holds one",
                     "name it question")
    if aside is not None:
        aside.update(spelt[key] for key in texts)
    kept = {spelt.get(key, key): value for key, value in {**left, **own}.items() if _is_label(key, value)}
    if "id" in kept:
        kept["id"] = str(kept["id"])
    if len(sides) == 1:
        return {**kept, "turns": sides[0]}
    return {**kept, "strong": {"turns": sides[0]}, "weak": {"turns": sides[1]}}


def _by_key(plain: dict, row: dict) -> tuple[dict[str, str], dict[str, object]]:
    """The keys in lower case, as they are spelt in the row, and those with something under them."""
    spelt: dict[str, str] = {}
    left: dict[str, object] = {}
    for name in [str(key) for key in row if isinstance(key, str | int)]:
        key = re.sub(r"[-\s]+", "_", name.strip().lower())
        if key in left and name in plain and plain[name] != left[key]:
            raise BadRow("unknown key", f"{short(spelt[key])} and {short(name)} are the same key", "rename one of them")
        if name in plain or key not in spelt:
            spelt[key] = name
        if name in plain:
            left[key] = plain[name]
    return spelt, left


def _plain(value: object, depth: int = 0) -> object:
    """A value as JSON has it: arrays as lists, keys with nothing under them gone. Pictures stay as they are."""
    if depth > MAX_DEPTH:
        raise BadRow("nested too deeply", f"more than {MAX_DEPTH} objects within one another")
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        fields = {key: _plain(item, depth + 1) for key, item in value.items()}
        return {str(key): item for key, item in fields.items() if not _is_missing(item)}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth + 1) for item in value]
    if (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, int) and value.bit_length() > 4000:  # Python does not print such numbers
        raise BadRow("field is not what it should be", "a number of more than 1,200 digits")
    return value


def _is_missing(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_missing, value))
    return value is None or value == {} or (isinstance(value, str) and not value.strip())


def _is_nothing(value: object) -> bool:
    """Whether a value is what a missing one was written as."""
    return isinstance(value, str) and value.strip() in ("[]", "{}", *MISSING_WORDS)


def _refuse_benchmarks(row: dict) -> None:
    found = [benchmark for benchmark, keys in BENCHMARK_KEYS if keys <= row.keys()]
    if MATH_VISION <= row.keys() and isinstance(row["subject"], str) and row["subject"] in MATH_VISION_SUBJECTS:
        if row["image"] and (not isinstance(row["image"], str) or re.fullmatch(r"images/\d+\.jpg", row["image"])):
            found.append("MATH-Vision")
    if found:
        raise BenchmarkRow("benchmark row", f"a row of {found[0]}, an evaluation set", "never train on it")


def _refuse_keys(left: dict) -> None:
    for key in REFUSED.keys() & left.keys():
        if _is_nothing(left[key]) or isinstance(left[key], bool):
            del left[key]
    for key, (reason, what, remedy) in REFUSED.items():
        if key in left:
            raise BadRow(reason, f"the key {key!r} holds {what}", f"{remedy}, or pass --skip_bad_rows")
    if isinstance(left.get("label"), bool):
        raise BadRow("preference pair", "the key 'label' says whether the response is a good one",
                     "keep the good ones and take the key out")


def _refuse_left(left: dict, spelt: dict, shown: str = "", num_sides: int = 1, has_picture: bool = False) -> None:
    """Raise BadRow for a key that nothing was made of and that looks as if the row stood on it."""
    for key, value in left.items():
        words = key.rstrip("0123456789").strip("_").split("_")
        if not has_picture and value and key in SPEAKS_OF_PICTURE:
            raise BadRow("unknown key", f"{short(spelt[key])} speaks of a picture that the row does not name",
                         "name it image")
        if isinstance(value, bytes):
            raise BadRow("unknown key", f"unknown key {short(spelt[key])} holds bytes", "take the key out")
        if isinstance(value, bool | int | float) or words[0] in ("num", "has", "is"):
            continue
        about = words[-1] in ("id", "uid", "qid", "idx") or (has_picture and key in ABOUT_PICTURES)
        if not about and (_looks_like_picture(value) or (not has_picture and _holds_picture(value))):
            remedy = "write image_url, or image_url_2 for the weak side" if num_sides == 2 else \
                "write it into a turn's content" if "turns" in spelt else "name it image"
            raise BadRow("unknown key", f"unknown key {short(spelt[key])} holds a picture, {short(value)}", remedy)
        content = not CONTENT.isdisjoint([*words, "".join(words)]) or MISSPELT.match(key)
        about = words[-1] in LABELS or (has_picture and words[-1] in ("caption", "captions", "description"))
        if not content or about or (isinstance(value, list) and not any(map(_is_content, value))):
            continue
        if _is_nothing(value) or (isinstance(value, str) and value.strip() in shown):
            continue
        raise BadRow("unknown key", f"unknown key {short(spelt[key])} holds {short(value)}, which the question may "
                     "stand on", "write it into the question, or take the key out")


def _holds_picture(value: object) -> bool:
    """Whether a picture lies anywhere in a value, as in the metadata of a row without one."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_looks_like_picture(item) or _holds_picture(item) for item in items)


def _is_content(value: object) -> bool:
    return isinstance(value, str | dict | list | bytes)


def _is_label(key: str, value: object) -> bool:
    """Whether a key that is left is kept: a short text or a number, nothing that sources.py refuses beside turns."""
    values = value if isinstance(value, list) else [value]
    texts = [item for item in values if isinstance(item, str)]
    if is_content_key(key) or key in {*DIALOGUES, *QUESTIONS, *RESPONSES} or (texts and IMAGE_KEY.match(key)):
        return False
    short_texts = all(len(text) <= 200 and text.isprintable() and (key == "id" or not IMAGE_NAME.fullmatch(text))
                      for text in texts)
    return short_texts and len(values) <= 20 and all(isinstance(item, str | int | float) for item in values)


# ----------------------------------------------------------------------------------------------------------------------
# The shapes


def _published_side(left: dict, suffix: str) -> list[dict]:
    """One side of a pair in the released form. suffix: of its keys, "" or "_2"."""
    texts = [_text(left.pop(key + suffix, None), key + suffix) for key in ("instruction", "output")]
    pictures = _pictures(left.pop(f"image_url{suffix}", None))
    return _placed([_turn("user", [texts[0]]), _turn("assistant", [texts[1]])], pictures)


def _side(value: object, side: str) -> list[dict]:
    if not isinstance(value, dict) or "turns" not in value or len(value) > 1:
        raise BadRow("field is not what it should be", f"{side} is not an object with turns: {short(value)}")
    return _placed(_turns(value["turns"]), [])


def _mavis_pair(left: dict, spelt: dict) -> list[list[dict]]:
    """MAVIS-Geometry has several versions of a problem: text-dominant is the strong side, vision-dominant the weak."""
    texts, options = left.pop("text_en"), _options(left, spelt)
    pictures = {key: left.pop(key) for key in [key for key in left if key.startswith("image_")]}
    left.pop("text_zh", None)
    sides = []
    for version in ("text_dominant", "vision_dominant"):
        question = _text(texts.get(f"{version}_question"), "question")
        turns = [_turn("user", [_with_options(question, options)]),
                 _turn("assistant", [_text(texts.get("CoT_reasoning"), "CoT_reasoning")])]
        sides.append(_placed(turns, _pictures(pictures.get(f"image_{version}"))))
    return sides


def _single(left: dict, spelt: dict, own: dict) -> list[dict]:
    pictures = row_pictures(left)
    system = _one_of(left, ("system", "system_prompt"), "system prompt")
    earlier = _turns(left.pop("history")) if "history" in left and not _is_nothing(left["history"]) else []
    options = _options(left, spelt)
    key = next((key for key in DIALOGUES if key in left), None)
    if key:
        turns = earlier + _turns(left.pop(key))
        if other := next((other for other in DIALOGUES if other in left), None):
            raise BadRow("two dialogues", f"one under {key!r}, another one under {other!r}", "keep one of them")
        for key in set(QUESTIONS) & left.keys():
            _check_source(key, left.pop(key), turns)
        if turns[-1:] and turns[-1]["role"] == "user" and {*RESPONSES, *WORKS, *ANSWERS} & left.keys():
            turns.append(_turn("assistant", [_response(left, spelt, options, own)]))
        for key in {*RESPONSES, *WORKS} & left.keys():
            _check_source(key, left.pop(key), turns)
    elif isinstance(left.get("prompt"), list):
        turns = earlier + _turns(left.pop("prompt"))
        completion = left.pop("completion", None)
        if isinstance(completion, list):
            turns += _turns(completion, greeting=True)
        else:
            if completion is not None:
                left["completion"] = completion
            turns.append(_turn("assistant", [_response(left, spelt, options, own)]))
    else:
        question = _question(left, spelt)
        turns = [*earlier, _turn("user", [question]), _turn("assistant", [_response(left, spelt, options, own)])]
    if system and turns and turns[0]["role"] == "system":
        if turns[0]["content"] != [system]:
            raise BadRow("two system prompts", "one under its own key, another one as the first turn")
    elif system:
        turns.insert(0, _turn("system", [system]))
    asked = [turn for turn in turns if turn["role"] == "user"]
    if earlier and len(pictures) > 1 and not any(_has_place(turn) for turn in asked):
        raise BadRow("images and placeholders differ", f"{len(pictures)} images and a history: which turn shows which "
                     "is not said", "write <image> where each belongs")
    extended = asked[-1:] if earlier or len(asked) == 1 else []
    shown = "\n".join(map(_words_of, asked))
    _add_what_it_stands_on(extended, left, options, shown)
    turns = _placed(turns, pictures)
    if _are_letters(options) and not any("image" in part for turn in turns for part in turn["content"]):
        if not all(re.search(rf"\b{letter}\s?[).:、．]", shown) for letter in "AB"):
            raise BadRow("unknown options", "the options are letters alone, and there is no image that shows them",
                         "write the options into the question, or name the image")
    return turns


def _check_source(key: str, value: object, turns: list[dict]) -> None:
    """Raise BadRow for a question beside a dialogue that was not made of it. Another solution beside it is no harm."""
    words, said = ("".join(text.split()) for text in (str(value), "".join(map(_words_of, turns))))
    if key in QUESTIONS and isinstance(value, str) and words not in said and said not in words:
        what = f"the key {key!r} holds what the turns do not: {short(value)}"
        raise BadRow("two questions", what, "keep one of them")


def _words_of(turn: dict) -> str:
    return "\n".join(piece for piece in turn["content"] if isinstance(piece, str))


def _has_place(turn: dict) -> bool:
    return any("place" in piece if isinstance(piece, dict) else PLACE.search(piece) for piece in turn["content"])


def _question(left: dict, spelt: dict) -> str:
    found = {key: _text(left.pop(key), key) for key in QUESTIONS if key in left}
    if not found:
        if not any(key in spelt for key in QUESTIONS):
            keys = ", ".join(sorted(map(str, spelt.values()))[:12]) or "none"
            raise BadRow("unknown dialect", f"the keys are: {short(keys)[1:-1]}; accepted: {ACCEPTED}")
        return ""
    if found.get("input", "").strip() in {*MISSING_WORDS, "<noinput>", "No input"}:
        del found["input"]
    if not found:
        return ""
    if found.keys() == {"instruction", "input"}:
        return f"{found['instruction'].strip()}\n{found['input'].strip()}"
    longest = max(found.values(), key=len)
    other = next((key for key, text in found.items() if text.strip() not in longest), None)
    if other:
        raise BadRow("two questions", f"{' and '.join(map(repr, found))} hold different texts", "keep one of the keys")
    return longest


def _response(left: dict, spelt: dict, options: list, own: dict) -> str:
    """What is to be said: a response as it is, or the work with the answer as its last line, or the answer alone."""
    said = {key: _work(left.pop(key), key) for key in (*RESPONSES, *WORKS) if key in left}
    said = {key: text for key, text in said.items() if text.strip() and text not in MISSING_WORDS}
    answer = _answer(left, options)
    own["answer"] = (answer or None) if said or len(answer) <= 60 else None  # longer ones are worked out
    if not said:
        if not answer and not any(key in spelt for key in (*RESPONSES, *WORKS, *ANSWERS)):
            keys = ", ".join(sorted(map(str, spelt.values()))[:12])
            raise BadRow("unknown dialect", f"no response; the keys are: {short(keys)[1:-1]}; accepted: {ACCEPTED}")
        return answer
    (key, text), *others = said.items()
    if any(other.strip() not in text for _, other in others):
        raise BadRow("two responses", f"{' and '.join(map(repr, said))} hold different texts", "keep one of the keys")
    if key in RESPONSES or not answer or _ends_in(text, answer):
        return text
    return f"{text.rstrip()}\nAnswer: {answer}"


def _work(value: object, key: str) -> str:
    """A solution; the first of several, the steps of the work in lines, the content of a message."""
    if isinstance(value, list):
        items = [item for item in value if not _is_missing(item) and not _is_nothing(item)] or [None]
        if key in RESPONSES and any(item != items[0] for item in items):
            raise BadRow("two responses", f"{key} holds several", "keep one of them")
        steps = "solution" not in key.split("_")[-1:] and all(isinstance(item, str) for item in items)
        value = "\n".join(items) if steps and key not in RESPONSES else items[0]
    if isinstance(value, dict) and isinstance(value.get("content"), str) and value.keys() <= {"role", "content"}:
        value = value["content"]
    return _text(value, key)


def _ends_in(work: str, answer: str) -> bool:
    """Whether the work's last line says the answer, or a \\boxed close to its end does."""
    tail, bare = work.rstrip()[-400:], answer.strip().strip("$").strip()
    boxed = tail.rfind("\\boxed")
    if boxed >= 0 and re.search(rf"(?<![\w.]){re.escape(bare)}(?!\w)", tail[boxed + 6 :]):
        return True
    last, bare = tail.splitlines()[-1].rstrip(" .。*)$}]"), bare.rstrip(" .。*)$}]")
    return last.endswith(bare) and not re.search(r"[\w.\\/-]$", last[: len(last) - len(bare)])


# ----------------------------------------------------------------------------------------------------------------------
# Texts


def _text(value: object, key: str) -> str:
    """A text; numbers as JSON shows them. Nothing is "". Raises BadRow."""
    if value is None:
        return ""
    if isinstance(value, bool):
        raise BadRow("field is not what it should be", f"{key} is {value}", "write the word that is to be said")
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise BadRow("field is not what it should be", f"{key} is no number")
    if isinstance(value, int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise BadRow("text is missing", f"the text under {key} is {short(value)}")
    if len(value) > MAX_TEXT:  # at once: what follows takes its time
        raise BadRow(LONG_TEXT, f"the text under {key} has {len(value):,} characters", TOO_LONG)
    return value


def _one_of(left: dict, keys: tuple[str, ...], what: str) -> str:
    found = {_text(left.pop(key), key).strip() for key in keys if key in left} - MISSING_WORDS
    if len(found) > 1:
        raise BadRow(f"two {what}s", f"{' and '.join(map(repr, keys))} hold different texts", "keep one of the keys")
    return found.pop() if found else ""


def _parsed(value: object) -> object:
    """A list or object that was written as a text, by JSON or by Python's str; anything else as it is."""
    text = value.strip() if isinstance(value, str) else ""
    if not text or text[0] + text[-1] not in ("[]", "{}") or len(text) > MAX_TEXT or SINGLE_BACKSLASH.search(text):
        return value
    try:
        return _plain(json.loads(text))
    except (ValueError, RecursionError):
        pass
    if re.search(r"""['"]\s+['"]""", text):  # numpy's print: Python would glue the items
        return value
    try:
        return _plain(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return value


def _add_what_it_stands_on(asked: list[dict], left: dict, options: list, shown: str) -> None:
    """Put context, table, unit and options into the question where it does not show them. asked: its turn, or none."""
    table = _table(left, shown)
    before = [(key, _text(left.pop(key), key).strip()) for key in CONTEXTS if key in left]
    before += [("table", table)] if table else []
    before = [(key, text) for key, text in before if not _is_shown(text, shown) and text not in MISSING_WORDS]
    unit = _text(left.pop("unit", None), "unit").strip()
    after = [] if not unit or _is_shown(unit, shown) or unit in MISSING_WORDS else [f"(Unit: {unit})"]
    listed = _list_options(shown, options)
    if not asked and (before or after or listed):
        key = before[0][0] if before else "unit" if after else "options"
        raise BadRow("unknown key", f"the key {key!r} belongs to a question, but there are several", "write it there")
    for turn in asked:
        turn["content"][:0] = [text for _, text in before]
        turn["content"] += after + ([listed] if listed else [])


def _is_shown(text: str, shown: str) -> bool:
    """Whether a text stands in another one, as words of their own."""
    return bool(re.search(rf"(?<!\w){re.escape(text)}(?!\w)", shown))


def _table(left: dict, shown: str) -> str:
    """A table as lines of | cells |, which pages draw as a table, under its title; "" where the question shows it.

    Raises BadRow for a table of another kind.
    """
    title = _text(left.pop("table_title", None), "table_title").strip()
    kinds = [left.pop(key) for key in ("table", "table_for_pd") if key in left]  # the second repeats the first
    if not kinds:
        return title
    table = _parsed(kinds[0])
    if _is_missing(table):
        return title
    if isinstance(table, dict) and all(isinstance(column, list) for column in table.values()):
        if len({len(column) for column in table.values()}) == 1:
            table = [list(table), *map(list, zip(*table.values(), strict=True))]
    elif isinstance(table, list) and all(isinstance(line, dict) and line.keys() == table[0].keys() for line in table):
        table = [list(table[0]), *(list(line.values()) for line in table)]
    if isinstance(table, list) and all(isinstance(line, list) for line in table):
        table = "\n".join(" | ".join(_text(cell, "table").strip() for cell in line) for line in table)
    if not isinstance(table, str) or _looks_like_picture(table):
        raise BadRow("unknown key", f"the table is {short(kinds[0])}", "write it into the question as text")
    if _is_shown(re.sub(r"[|\s]+", " ", _text(table, "table")).strip(), re.sub(r"[|\s]+", " ", shown)):
        return ""
    lines = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
    if len({len(line) for line in lines}) == 1 and len(lines[0]) > 1 and not table.lstrip().startswith("|"):
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join(filter(None, (title, table.strip())))


# ----------------------------------------------------------------------------------------------------------------------
# Options


def _options(left: dict, spelt: dict) -> list[tuple[str, str]]:
    """(label, text) of every option that the row offers, under whatever key. Raises BadRow if they are not clear."""
    found = [_read_options(left.pop(key), key) for key in ("choices", "options", "option", "variants", "选项")
             if key in left]
    capitals = {key: key for key in left if re.fullmatch("[A-H]", spelt[key])}  # a and b may be sides of a triangle
    spelt_out = {match[1]: key for key in left if (match := OPTION_KEY.fullmatch(key))}
    for keys in (capitals, spelt_out):
        if len(keys) > 1 and "a" in keys and "b" not in keys:
            raise BadRow("unknown options", f"there are options {', '.join(keys).upper()}, and no B",
                         "write them as a list of texts, or into the question")
        if {"a", "b"} <= keys.keys() or {"1", "2"} <= keys.keys():
            found.append(_read_options({label.upper(): left.pop(key) for label, key in keys.items()}, "A, B ..."))
    found = [options for options in found if options]
    if any(options != found[0] for options in found):
        raise BadRow("unknown options", "two keys hold different options", "keep one of the keys")
    return found[0] if found else []


def _read_options(value: object, key: str) -> list[tuple[str, str]]:
    items = _parsed(value)
    if isinstance(items, str):
        items = _lettered(_text(items, key))
    elif isinstance(items, dict) and items.keys() >= {"text", "label"} and isinstance(items["text"], list):
        items = _pairs(items["label"], items["text"])
    elif isinstance(items, dict):
        items = sorted(items.items(), key=lambda item: (len(item[0]), item[0]))
    elif isinstance(items, list):
        while items and items[-1] is None:
            items.pop()
        items = [_labelled(item, index) for index, item in enumerate(items)]
    readable = isinstance(items, list) and len(items) <= MAX_OPTIONS and all(items)
    options = [(label, text) for label, text in items] if readable else [("", None)]
    letters = [chr(65 + index) for index in range(len(options))]
    texts = [text if isinstance(text, str) else _number(text) for _, text in options]
    labels = [str(label).strip(" ().:").upper() for label, _ in options]
    counted = [[str(start + index) for index in range(len(labels))] for start in (0, 1)]
    if labels not in (letters, *counted) or not all(map(_is_option, texts)):
        raise BadRow("unknown options", f"the options under {key!r} are {short(value)}",
                     "write them as a list of texts, or into the question")
    marks = [re.match(r"\s*\(?([A-Za-z])\s?[).:、．]\s*(?=\S)", text) for text in texts]
    if all(marks) and [mark[1].upper() for mark in marks] == letters:  # "A) 6": they bring their letters along
        texts = [text[mark.end() :] for text, mark in zip(texts, marks, strict=True)]
    elif len(marks) > 1 and all(marks) and sorted(mark[1].upper() for mark in marks) == letters:
        raise BadRow("unknown options", f"the letters of the options under {key!r} are out of order: {short(value)}",
                     "write them in order")
    return list(zip(labels, (text.strip() for text in texts), strict=True))


def _is_option(text: str | None) -> bool:
    """A line break is more likely LaTeX's \\neq that JSON misread."""
    return text is not None and "\n" not in text.rstrip() and not _looks_like_picture(text)


def _number(value: object) -> str | None:
    return json.dumps(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _pairs(labels: object, texts: list) -> list | None:
    return list(zip(labels, texts, strict=True)) if isinstance(labels, list) and len(labels) == len(texts) else None


def _labelled(item: object, index: int) -> tuple[object, object] | None:
    if not isinstance(item, dict):
        return chr(65 + index), item
    if len(item) == 1:
        return next(iter(item.items()))
    label = next((key for key in ("label", "key", "letter", "id", "option") if key in item), None)
    text = next((key for key in ("text", "value", "content", "answer") if key in item), None)
    return (item[label], item[text]) if label and text and len(item) == 2 else None


def _lettered(text: str) -> list[tuple[str, str]] | None:
    """ "A. 3, B. 4", "a ) 3 , b ) 4" or a line each: the options in one text."""
    marks: list[re.Match] = []
    for match in OPTION_MARK.finditer(text):
        if len(marks) < MAX_OPTIONS and match[1].upper() == chr(65 + len(marks)):
            marks.append(match)
    if len(marks) < 2 or text[: marks[0].start()].strip():
        return None
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [(mark[1].upper(), text[mark.end() : end].strip(" \n\t,;，；"))
            for mark, end in zip(marks, ends, strict=True)]


def _list_options(question: str, options: list[tuple[str, str]]) -> str:
    """The options as lines, or "" where the question lists them, or a picture does: options that are letters alone."""
    if _are_letters(options):
        return ""
    letters = [chr(65 + index) for index in range(len(options))]
    if not options:
        return ""
    texts = [text for _, text in options]
    listed = [text.rstrip(".,;，；。 \n") for text in _listed_in(question, len(options))]
    if listed and all(shown.startswith(text.rstrip(".")) for text, shown in zip(texts, listed, strict=True)):
        return ""
    if sorted(listed) == sorted(texts):
        raise BadRow("unknown options", "the question lists the options in another order than the row",
                     "write them in one order")
    return "\n".join(["Choices:", *(f"({letter}) {text}" for letter, (_, text) in zip(letters, options, strict=True))])


def _listed_in(question: str, number: int) -> list[str]:
    """What stands behind A, B ... where the question lists so many options, else []."""
    marks: list[re.Match] = []
    for match in re.finditer(r"\b([A-Z])\s?[).:、．]", question):
        if match[1] == chr(65 + len(marks)) and len(marks) < number:
            marks.append(match)
        elif match[1] == "A" and len(marks) < number:
            marks = [match]
    ends = [mark.start() for mark in marks[1:]] + [len(question)]
    return [question[mark.end() : end].strip(" (") for mark, end in zip(marks, ends, strict=True)] \
        if len(marks) == number else []


def _are_letters(options: list[tuple[str, str]]) -> bool:
    return bool(options) and all(text.strip("()") == chr(65 + index) for index, (_, text) in enumerate(options))


def _with_options(question: str, options: list[tuple[str, str]]) -> str:
    listed = _list_options(question, options)
    return f"{question.strip()}\n{listed}" if listed else question


def _answer(left: dict, options: list[tuple[str, str]]) -> str:
    """The answer in words: an index of options as its letter. Raises BadRow where it could mean two things."""
    keys = [key for key in (*ANSWERS, *(["label"] if options else [])) if key in left]
    if "reward_model" in left and isinstance(left["reward_model"], dict) and "ground_truth" in left["reward_model"]:
        left["ground_truth"], keys = left.pop("reward_model")["ground_truth"], [*keys, "ground_truth"]
    texts = [text for _, text in options]
    for key in keys:
        value = left.pop(key)
        parsed = _parsed(value)
        if isinstance(parsed, list) and all(isinstance(item, str) for item in parsed):  # [1, 2] may be an interval
            value = parsed
        if isinstance(value, float) and value.is_integer() and options and _text(value, key) not in texts:
            value = int(value)  # pandas makes numbers of a column with gaps floats
        if isinstance(value, list):
            value = value[0] if value and all(item == value[0] for item in value) else _several(value, key)
        if isinstance(value, bool) and key == "correct":
            continue  # whether somebody's response was
        text = _text(value, key).strip()
        if not text or (text in MISSING_WORDS and text not in texts):
            continue
        for other in [other for other in ANSWERS if other in left and other != key]:
            if not _same_answer(text, left[other], texts):
                raise BadRow("several answers", f"{key} is {short(text)}, {other} is {short(left[other])}",
                             "keep one of them")
            del left[other]
        return _choice(text, isinstance(value, int) or key in INDICES, options, key) if options else text
    return ""


def _same_answer(answer: str, other: object, texts: list[str]) -> bool:
    """Whether another key's value says the same answer: its words, within a longer text, its letter or its index."""
    if not isinstance(other, str | int | float) or isinstance(other, bool):
        return True  # whether it was right, spans ...

    def forms(value: object) -> set[str]:
        text = _text(value, "answer").strip().strip("$").rstrip(".").lower()
        letter = re.fullmatch(r"\(?([a-z])\)?", text)
        index = ord(letter[1]) - 97 if letter else int(text) if re.fullmatch(r"\d{1,2}", text) else -1
        return {text, text.removesuffix(".0")} | ({texts[index].strip().lower()} if 0 <= index < len(texts) else set())

    one, two = forms(answer), forms(other)
    return bool(one & two) or any(_is_shown(a, b) or _is_shown(b, a) for a in one for b in two)


def _several(values: list, key: str) -> str:
    texts = [_text(value, key).strip() for value in values]
    if not any(texts):
        return ""
    if key == "final_answer" or all(re.fullmatch("[A-Z]", text) for text in texts):
        return ", ".join(texts)
    raise BadRow("several answers", f"{key} holds {short(values)}", "keep one of them")


def _choice(answer: str, is_index: bool, options: list[tuple[str, str]], key: str) -> str:
    """An answer to a question with options: an index counts from 0, and becomes its letter."""
    labels, texts = [label for label, _ in options], [text for _, text in options]
    if named := re.fullmatch(r"(?:option|choice|opt)[_ ]?([A-Za-z])", answer, re.IGNORECASE):
        answer = named[1].upper()
    letter = answer.strip(" ().")
    if re.fullmatch("[A-Za-z]", letter) and answer not in texts:
        if ord(letter.upper()) - 65 >= len(options):
            raise BadRow("unclear answer", f"{key} is {answer!r}, and there are {len(options)} options")
        return answer
    if re.fullmatch(r"\d{1,2}\.0", answer) and answer not in texts:
        answer = answer[:-2]  # what a table makes of an index
    if not re.fullmatch(r"-?\d{1,3}", answer):
        return answer
    if labels[0].isdigit() and answer in labels:
        return chr(65 + labels.index(answer))
    index, remedy = int(answer), "write the option's letter"
    if answer in texts and key not in INDICES:
        if is_index and 0 <= index < len(options) and texts[index] != answer:
            raise BadRow("unclear answer", f"{key} {answer} is one of the options and may count to another", remedy)
        return chr(65 + texts.index(answer)) if is_index else answer
    if not is_index and 0 <= index <= len(options):
        raise BadRow("unclear answer", f"{key} is the text {answer!r}, which may count to an option", remedy)
    if is_index and index == len(options):
        raise WrongFile("unclear answer", f"{key} is {answer}, and the {len(options)} options count from 0",
                        "if the file counts from 1, write the option's letter in every row")
    marks = [NUMBER_MARK.match(text) for text in texts]
    if is_index and all(marks) and marks[0][0].strip("(") in "1①":
        raise BadRow("unclear answer", f"{key} is {answer}, and the options bring numbers along, from 1", remedy)
    if is_index and not 0 <= index < len(options):
        raise BadRow("unclear answer", f"{key} is {answer}, and the {len(options)} options count from 0", remedy)
    return chr(65 + index) if is_index else answer


# ----------------------------------------------------------------------------------------------------------------------
# Dialogues


def _turn(role: str, content: list) -> dict:
    return {"role": role, "content": content}


def _turns(value: object, greeting: bool = False) -> list[dict]:
    """The turns of a dialogue, their contents as pieces: texts, {"image": ...} and {"place": ...}.

    greeting: keep an assistant's turn before the first question, which LLaVA skips too. Raises BadRow.
    """
    items = _parsed(value)
    if isinstance(items, dict) and items and all(isinstance(column, list) for column in items.values()):
        if len({len(column) for column in items.values()}) == 1:  # a column a key, as datasets' Sequence has it
            items = [dict(zip(items, turn, strict=True)) for turn in zip(*items.values(), strict=True)]
    if not isinstance(items, list) or not items:
        raise BadRow("field is not what it should be", f"the conversation is not a list of turns: {short(value)}")
    turns: list[dict] = []
    for item in items:
        for turn in _message(item):
            if greeting or turn["role"] != "assistant" or any(earlier["role"] == "user" for earlier in turns):
                turns.append(turn)
    return turns


def _message(item: object) -> Iterator[dict]:
    """The turn of a message, or the two of a pair: [question, response], {"user": ..., "assistant": ...}."""
    if isinstance(item, list) and len(item) == 2 and all(isinstance(text, str) for text in item):
        yield from (_turn("user", [item[0]]), _turn("assistant", [item[1]]))
        return
    if not isinstance(item, dict):
        raise BadRow("unknown speaker", f"a turn is no object: {short(item)}")
    rest = {key.lower(): value for key, value in item.items()}
    for key in TOOL_KEYS:
        if key in rest and not _is_nothing(rest[key]):
            raise BadRow("tool turn", f"a turn has {key!r}", "leave such rows out, or pass --skip_bad_rows")
    role_key = next((key for key in ("role", "from", "speaker") if key in rest), None)
    if role_key is None:
        roles = {PAIR_ROLES[key]: key for key in rest if key in PAIR_ROLES}
        if not {"user", "assistant"} <= roles.keys():
            raise BadRow("unknown speaker", f"a turn is not one of {', '.join(ROLES)}: {short(item)}")
        for role in ("system", "user", "assistant"):
            if role in roles:
                yield _turn(role, _content(rest.pop(roles[role])))
        _refuse_left(rest, {key: key for key in rest})
        return
    speaker = str(rest.pop(role_key)).strip("<|>").lower()
    if speaker in TOOL_ROLES:
        raise BadRow("tool turn", f"a turn of {speaker!r}", "leave such rows out, or pass --skip_bad_rows")
    if speaker not in ROLES:
        raise BadRow("unknown speaker",
                     f"a turn is not one of {', '.join(ROLES)} by its key {role_key!r}: {short(item)}")
    silent = any(key in rest and not rest[key] for key in ("weight", "loss", "train"))
    if silent and ROLES[speaker] == "assistant":
        raise BadRow("turn without loss", "a turn is marked not to be learnt", "the loss is on every assistant turn")
    if any(rest.get(key) for key in ("reasoning_content", "thinking", "reasoning", "thought", "think")):
        raise BadRow("unknown key", "a turn has its reasoning under a key of its own", "write it into the content")
    text_key, *more = [key for key in ("content", "value", "text", "parts") if rest.get(key)] or [None]
    if more and rest[more[0]] != rest[text_key]:
        raise BadRow("unknown key", f"a turn has texts under {text_key!r} and {more[0]!r}", "keep one of them")
    content = _content(rest.pop(text_key, None))
    pictures = row_pictures(rest)
    if pictures:
        [turn] = _placed([_turn(ROLES[speaker], content)], pictures)
        content = [part.get("text", part) for part in turn["content"]]
    _refuse_left(rest, {key: key for key in rest})
    yield _turn(ROLES[speaker], content)


def _content(value: object) -> list:
    """A message's pieces: of one text, or of content parts (OpenAI, TRL, Qwen-VL, LLaMA-Factory, Anthropic)."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return [_text(value, "content")]
    pieces: list = []
    for item in filter(lambda item: item is not None, value):
        pieces += [item] if isinstance(item, str) else _part(item)
    return pieces


def _part(item: object) -> list:
    if not isinstance(item, dict):
        raise BadRow("field is not what it should be", f"a part of a message is {short(item)}")
    kind = str(item.get("type", "")).lower()
    rest = {key: value for key, value in item.items() if key not in PART_SETTINGS}
    if kind in TEXT_PARTS and len(rest) == 1 and rest.keys() <= {"text", "value", "content"}:
        return [_text(*rest.values(), "a part of a message")]
    if kind in TEXT_PARTS[1:] and not rest:
        return []
    if kind in IMAGE_PARTS[1:] and rest.keys() <= {"index"} and isinstance(rest.get("index", 0), int):
        return [{"place": rest["index"] + 1 if "index" in rest else None}]
    rest.pop("index", None)
    key = next((key for key in PART_PICTURES if key in rest), None)
    if kind in IMAGE_PARTS and key and rest.keys() <= {key, "path"}:
        pictures = _pictures(rest if key == "bytes" else rest[key])
        if len(pictures) == 1:
            return [{"image": pictures[0]}]
    raise BadRow("unknown part of a message", f"a message holds {short(item)}",
                 "texts and images are read, nothing else")


# ----------------------------------------------------------------------------------------------------------------------
# Pictures


def _looks_like_picture(value: object) -> bool:
    """Whether a value is a picture or names one, whatever its key says."""
    if isinstance(value, list):
        return any(map(_looks_like_picture, value[:8]))
    if isinstance(value, dict):
        return "bytes" in value or (isinstance(value.get("path"), str) and _looks_like_picture(value["path"])) or (
            isinstance(value.get("url"), str) and _looks_like_picture(value["url"]))
    if isinstance(value, str):
        head = value[:600]
        return (head.startswith("data:image/") or bool(len(value) > 60 and BASE64_MAGIC.match(head))
                or (len(value) < 600 and "\n" not in value and bool(PICTURE_NAME.search(value))))
    return isinstance(value, Image.Image) or (isinstance(value, bytes) and bool(MAGIC.match(value)))


def _pictures(value: object, depth: int = 0) -> list:
    """The pictures in a field: paths (and URLs), bytes, places, PIL images. Raises BadRow for anything else."""
    value = _parsed(value)
    if isinstance(value, list) and depth < 3:
        return [picture for item in value for picture in _pictures(item, depth + 1)]
    if _is_missing(value) or _is_nothing(value):
        return []
    if isinstance(value, str):
        return [_named(value)]
    if isinstance(value, dict) and depth < 3:
        if value.keys() == {"file", "offset", "length"} and isinstance(value["file"], str) and all(
                type(value[key]) is int and value[key] >= 0 for key in ("offset", "length")):
            return [value]
        beside = {key: text for key, text in value.items() if isinstance(text, str) and " " in text.strip()
                  and not _looks_like_picture(text) and key not in ("path", "url", "license", "source")}
        if beside:
            raise BadRow("unknown key", f"a text stands beside a picture: {short(beside)}",
                         "write it into the question, or take it out")
        for key in ("bytes", "base64", "data", "image", "image_url", "url", "path"):
            if key in value:
                return _pictures(value[key], depth + 1)
    if isinstance(value, bytes | Image.Image):
        return [value] if value else []
    raise BadRow("field is not what it should be", f"an image is not a path or bytes: {short(value)}")


def _named(text: str) -> str | bytes:
    """A path or URL as it is; a picture that is written out in base64 as its bytes."""
    text = text.strip()
    head, _, rest = text[:100].partition(",")
    is_data = head.startswith("data:")
    if is_data or (len(text) > 60 and BASE64_MAGIC.match(text)):
        encoded = text[len(head) + 1 :] if is_data else text
        try:
            data = base64.b64decode("".join(encoded.split()), validate=True)
        except (binascii.Error, ValueError):
            data = b""
        if MAGIC.match(data):
            return data
        if is_data:
            raise BadRow("image unreadable", f"the image {short(text)} does not decode to a picture")
    if len(text) > 4096 or "\n" in text:
        raise BadRow("field is not what it should be", f"an image is not a path or bytes: {short(text)}")
    return text[7:] if text.startswith("file:///") else text


def row_pictures(left: dict) -> list:
    """Take the pictures of a row out of it, in order, under whatever keys they stand. Raises BadRow."""
    maybe = [key for key in MAYBE_IMAGE_KEYS if key in left and _looks_like_picture(left[key])]
    pictures: list = []
    for key in [key for key in IMAGE_KEYS if key in left] + maybe:
        held = _pictures(left.pop(key))
        pictures = pictures if pictures and key.startswith("file") else _same_pictures(pictures, held, key)
    numbered = {key: match for key in left if (match := NUMBERED.fullmatch(key)) and _looks_like_picture(left[key])}
    if not numbered:
        return pictures
    by_number = {int(match[2]): left[key] for key, match in numbered.items()}
    first = len(pictures) + 1 if pictures else min(by_number.keys() | {1})
    in_order = sorted(by_number) == [*range(first, first + len(by_number))]
    if not in_order or len({match[1] for match in numbered.values()}) > 1:
        raise BadRow("unknown key", f"{short(next(iter(numbered)))} holds a picture, and those before it are missing",
                     "write image_1, image_2 ..., or images: [...]")
    for key in numbered:
        del left[key]
    return pictures + [picture for number in sorted(by_number) for picture in _pictures(by_number[number])]


def _same_pictures(pictures: list, others: list, key: str) -> list:
    """Of two keys' pictures, which are the same ones, those that can be opened more surely. Raises BadRow if not."""
    if not pictures or not others or pictures == others:
        return pictures or others
    if len(pictures) != len(others):
        few, many = sorted((pictures, others), key=len)
        if all(picture in many for picture in few):
            return many
    else:
        ranks = [max(map(_rank, group)) for group in (pictures, others)]
        if ranks[0] != ranks[1]:
            return pictures if ranks[0] < ranks[1] else others
        if ranks[0] and all(map(_same_name, pictures, others)):
            return max(pictures, others, key=lambda group: len(group[0]))
    raise BadRow("images under two keys", f"{key!r} holds other images than the keys before it", "keep one of the keys")


def _rank(picture: object) -> int:
    return 0 if not isinstance(picture, str) else 2 if URL.match(picture) else 1


def _same_name(one: object, other: object) -> bool:
    return (isinstance(one, str) and isinstance(other, str)
            and os.path.basename(one.partition("?")[0]) == os.path.basename(other.partition("?")[0]))


def _split(text: str) -> list[dict]:
    """A text as parts: words, and the places of pictures: {"place": its number, its path, or None for the next one}."""
    parts, end = [], 0
    for match in PLACE.finditer(text):
        place = match["markdown"] or match["latex"] or match["path"]
        if match["tag"]:
            source = re.search(r"""\bsrc\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", match["tag"])
            place = source and (source[1] or source[2] or source[3])
        place = (place or "").strip().split(' "')[0].strip("<> ")
        parts.append({"text": text[end : match.start()]})
        parts.append({"place": int(match["number"]) if match["number"] else place or None})
        end = match.end()
    return [*parts, {"text": text[end:]}]


def _placed(turns: list[dict], pictures: list) -> list[dict]:
    """The turns with their pictures: where the texts say so, else before the first question. Raises BadRow."""
    for turn in turns:
        turn["content"] = [part for piece in turn["content"]
                           for part in (_split(piece) if isinstance(piece, str) else [piece])]
    parts = [part for turn in turns for part in turn["content"]]
    for turn in turns:
        if turn["role"] != "user" and any("text" not in part for part in turn["content"]):
            [what] = next(part for part in turn["content"] if "text" not in part).values()
            raise BadRow("picture in a response", f"the {turn['role']} shows a picture, {short(what or '<image>')}",
                         "leave such rows out, or pass --skip_bad_rows")
    given, places = [part for part in parts if "image" in part], [part for part in parts if "place" in part]
    held = [part["image"] for part in given]
    if given and places and not pictures and len(given) == len(places):  # the parts, and once more in the words
        for turn in turns:
            turn["content"] = [part for part in turn["content"] if "image" not in part]
        pictures = held
    elif pictures == held:  # a column that repeats the parts
        pictures = []
    if places:
        for part, picture in zip(places, _fill([part["place"] for part in places], pictures), strict=True):
            del part["place"]
            part["image"] = picture
    elif pictures and given:
        raise BadRow("images and placeholders differ",
                     f"{len(held)} images in the messages, and {len(pictures)} others")
    elif pictures:
        asked = next((turn for turn in turns if turn["role"] == "user"), None)
        if asked is None:
            raise BadRow("turns do not alternate", "there is no turn of a user")
        asked["content"][:0] = [{"image": picture} for picture in pictures]
    for part in (part for turn in turns for part in turn["content"]):
        picture = part.get("image")
        if isinstance(picture, str) and URL.match(picture):
            raise BadRow("image is a URL", f"the image {short(picture)} is a URL", "download the images first")
    return turns


def _fill(places: list, pictures: list) -> list:
    """The picture of each place. Raises BadRow unless places and pictures match in number and order."""
    if all(isinstance(place, int) for place in places):
        first = min(*places, 1)
        if {place - first for place in places} == set(range(len(pictures))):
            return [pictures[place - first] for place in places]
    elif not pictures and all(isinstance(place, str) and (_looks_like_picture(place) or URL.match(place))
                              for place in places):
        return [_named(place) for place in places]
    elif not any(isinstance(place, int) for place in places) and len(places) == len(pictures):
        named = [next((p for p in pictures if _same_name(place, p)), None) if place else None for place in places]
        if all(picture is not None for picture in named):
            return named
        if len(places) == 1 or not any(place and not URL.match(place) for place in places):  # URLs were downloaded
            return pictures
    marks = ", ".join(short(place) if place is not None else "<image>" for place in places[:4])
    raise BadRow("images and placeholders differ", f"{len(places)} placeholders of images in the text ({marks}), "
                 f"{len(pictures)} images", "write <image> where each belongs, or pass --skip_bad_rows")


# ----------------------------------------------------------------------------------------------------------------------
# The whole


def _checked(turns: list[dict]) -> list[dict]:
    """The turns with texts stripped and empty ones gone. Raises BadRow if they do not alternate or one is empty."""
    roles = [turn["role"] for turn in turns]
    spoken = roles[roles[:1] == ["system"] :]
    if not spoken or spoken != ["user", "assistant"] * (len(spoken) // 2):
        raise BadRow("turns do not alternate", f"the turns must alternate, the order is: {', '.join(roles[:8])}")
    asked = ""
    for turn in turns:
        parts = _joined(turn["content"])
        texts = " ".join(part["text"].strip() for part in parts if "text" in part)
        if not texts.isascii() and re.search("[\ud800-\udfff]", texts):
            raise BadRow("not Unicode", "a text holds half of a surrogate pair")
        if PLACEHOLDER.search(texts):
            raise BadRow("images and placeholders differ", f"{PLACEHOLDER.search(texts)[0]!r} stands for no image",
                         "write <image> where each belongs, or pass --skip_bad_rows")
        if FILM.search(texts):
            raise BadRow("video or sound", f"a text holds {FILM.search(texts)[0]!r}", "leave such rows out")
        word = texts in MISSING_WORDS and not (texts == "None" and "none" in asked.lower())
        if (not texts or word) and turn["role"] == "assistant":
            raise BadRow("empty response", f"the response is {texts or 'empty'}")
        if (not parts or word) and turn["role"] == "user":
            raise BadRow("empty question", "the question is empty and there is no image")
        turn["content"], asked = parts, texts
    return [turn for turn in turns if turn["content"]]


def _joined(content: list[dict]) -> list[dict]:
    """Parts without empty texts, neighbouring texts as one; what lies between words and a picture is kept."""
    parts: list[dict] = []
    for part in content:
        if "image" in part:
            parts.append(part)
        elif part["text"].strip():
            text = part["text"] if any("text" in earlier for earlier in parts) else part["text"].lstrip()
            if parts and "text" in parts[-1]:
                parts[-1]["text"] = f"{parts[-1]['text'].rstrip()}\n{text.lstrip()}"
            else:
                parts.append({"text": text})
    if parts and "text" in parts[-1]:
        parts[-1]["text"] = parts[-1]["text"].rstrip()
    return parts


# "Figure" is also a number and a verb, and a picture may hang on a story's wall: only words that point at one count.
_DRAWN = "(?:figure|diagram|drawing|sketch|illustration)s?"
_SEEN = "(?:image|picture|photo|graph|chart|plot)s?"
_THERE = r"(?:below|above|here|(?:on|at|to) the (?:right|left))"
FIGURE = re.compile(
    r"\b(?:in|from|on|of|by|see|using|use|to|under|with|consider) (?:the|this|these|each) "
    rf"(?:(?:following|given|accompanying|adjacent|attached|first|right|left|above) )?{_DRAWN}\b(?! (?:out|skat|eight))"
    rf"|\b(?:the|this|each) (?:following |accompanying |adjacent |attached |given )?(?:{_DRAWN}|{_SEEN}),? "
    rf"(?:(?:is |are |as )?(?:shown|pictured|{_THERE})|is an?|shows?|depicts?|illustrates?)\b"
    rf"|\b(?:as|is|are|be|,) (?:shown|pictured|depicted|illustrated|sketched|drawn) (?:{_THERE}|in the {_SEEN})"
    rf"|\b(?:based on|according to|look at) the (?:{_DRAWN}|{_SEEN})\b|\b(?:shown|pictured) (?:below|above)\b"
    rf"|\bthe (?:accompanying|following|given) (?:{_DRAWN}|{_SEEN})\b|\bfig(?:ure|\.)? ?\(?\d"
    r"|(?<!be )(?<!been )\bshown(?=[,.:;])|\bsee figure\b"
    r"|(?<!例)如[下上左右]?图|[下上左右]图|图[中示甲乙]|图所示|所示的?图|见图|看图(?!书)|结合图|附图|示意图",
    re.IGNORECASE)


def speaks_of_figure(text: str) -> bool:
    """Whether a text points at a figure ("as shown in the figure", 如图), in English or Chinese."""
    return bool(FIGURE.search(text))
