"""Training files as rows: JSON lines in one of two forms, read in place, and the images of the rows.

A file is scanned once. Only the place of each row (byte offset and length) is kept, so any process can read a row again
at any time and the data is never copied. Every other kind of file and form of row goes through a companion first:
`python -m augment.read` writes it in the first form, and `prepare` runs that where a script is given such a file.

    {"turns": [{"role": "user", "content": [{"image": "a.png"}, {"text": "Find x."}]}, {"role": "assistant", ...}]}
    {"image_url": "", "instruction": "Find x.", "output": "x = 5"}      the published form of Math-PUMA's data
    {"strong": {"turns": [...]}, "weak": {"turns": [...]}}              pairs; in the published form the weak side has
    {"image_url": "", ..., "image_url_2": "a.png", ...}                 the keys that end in _2

    source = open_source("stage2.jsonl")
    for number, offset, length, row in source.scan(): ...     # row: a dict, or a BadRow that says what is wrong
    row = source.read_row(offset, length)                     # the same row again
    for side, turns in conversations(row, pairs=False): ...   # side: SINGLE, or STRONG and WEAK of a pair
    image = open_image(turns[0].images[0], source.image_root)
"""

import io
import itertools
import json
import math
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from errors import UserError

# Pixels × channels × bytes of a channel, but at least the 3 bytes that come out: 50 million pixels of RGB. A page that
# was scanned at 600 dpi has 35 million; larger ones are decompression bombs or mistakes.
MAX_IMAGE_BYTES = 150_000_000
Image.MAX_IMAGE_PIXELS = None  # open_image checks MAX_IMAGE_BYTES itself, before it decodes anything
STAT_THREADS = 32  # a network disk takes about a millisecond for each file, but many at a time
STRIP_PIXELS = 1 << 20  # what _as_rgb converts at a time: its steps make several copies
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # raster only: PIL starts Ghostscript for EPS

SINGLE, STRONG, WEAK = 0, 1, 2  # which part of a row: all of it, or one side of a pair


class BadRow(Exception):
    """A row that cannot be used. `reason` is short and countable, `detail` says what exactly, `remedy` what to do."""

    def __init__(self, reason: str, detail: str, remedy: str = "correct the row, or pass --skip_bad_rows"):
        super().__init__(reason, detail, remedy)
        self.reason, self.detail, self.remedy = reason, detail, remedy


class WrongFile(BadRow):
    """A row that tells that those beside it are not to be used: an error even with --skip_bad_rows."""


class BenchmarkRow(WrongFile):
    """A row of an evaluation set."""


# ----------------------------------------------------------------------------------------------------------------------
# Files


def parse_spec(spec: str) -> list[tuple[str, str]]:
    """ "a.jsonl:100k,b.parquet" becomes [("a.jsonl", "100k"), ("b.parquet", "")]. Raises UserError."""
    files = []
    for part in filter(None, map(str.strip, spec.split(","))):
        match = re.fullmatch(r"(.+):(\d+(?:\.\d+)?[kKmM]?)", part)
        if not match and ":" in part and not os.path.exists(part) and not HUB_NAME.fullmatch(part):
            raise UserError(f"--data {part}: behind the colon, give a count (5000, 100k) or a fraction (0.3)")
        files.append(match.groups() if match else (part, ""))
    if not files:
        raise UserError("--data is empty; name at least one .json, .jsonl or .parquet file")
    return files


def require_files(spec: str, made_by: str) -> None:
    """Raise a UserError that names the command which makes the data if a file of `spec` is missing."""
    for path, _ in parse_spec(spec):
        if not os.path.exists(path) and in_training_form(path):  # a name on the hub is no file
            raise UserError(f"{path}: no such file; make it with: {made_by}, or name yours with --data")


def rows_to_draw(amount: str, usable: int) -> int:
    """Rows to draw from `usable`. A count draws at most all of them; a fraction above 1.0 repeats rows."""
    amount = amount or "1.0"
    scale = {"k": 1_000, "m": 1_000_000}.get(amount[-1].lower(), 1)
    if scale == 1 and "." in amount:
        return round(float(amount) * usable)
    return min(usable, round(float(amount.rstrip("kKmM")) * scale))


@dataclass(eq=False)  # equal only to itself: a file replaced under the same name is another Source
class Source:
    """One file of JSON lines."""

    path: str
    image_root: str
    stamp: tuple[int, int, int] = (0, 0, 0)  # _stamp of the file when this run began
    name: str = ""  # what messages call it: the file that it was made of by `python -m augment.read`, else its path
    dropped: dict[str, int] = field(default_factory=dict)  # reason: rows of that file that are not in this one
    share: str = ""  # of that file's rows, what was drawn already
    files: Sequence[tuple[str, int]] = ()  # where `name` is a folder: its files, and the rows before each

    def scan(self) -> Iterator[tuple[int, int, int, dict | BadRow]]:
        """Every row of the file, once, in order: (number, offset, length, row).

        `number` is what messages show: the line, or of a file that was made of another the row there, from 1. `offset`
        and `length` are for `read_row`. A line that cannot be read comes as a BadRow. Raises UserError.
        """
        offset = 0
        try:
            with open(self.path, "rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        row = parse_row(line)
                        made_of = isinstance(row, dict) and self.name != self.path and row.get("row")
                        yield made_of or number, offset, len(line), row
                    offset += len(line)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read to its end ({error}); download or make it again") from None

    def read_row(self, offset: int, length: int) -> dict | BadRow:
        """The row at a place that `scan` gave. Safe in forked processes: they share no file position. Raises UserError
        if the file is no longer the one that this run began with.
        """
        descriptor = _opened(self).fileno()
        self.check_unchanged(os.fstat(descriptor))
        return parse_row(os.pread(descriptor, length, offset))

    def where(self, number: int) -> str:
        """FILE:NUMBER of a row, as messages show it."""
        for file, before in reversed(self.files):
            if number > before:
                return f"{os.path.join(self.name, file)}:{number - before}"
        return f"{self.name}:{number}"

    def image(self, image: object, picture_roots: Sequence[str] = ()) -> Image.Image:
        """An image of one of its rows, as open_image gives it. A pack beside the rows is part of them."""
        if not isinstance(image, dict):
            return open_image(image, self.image_root, picture_roots)
        beside = os.path.basename(image["file"]) == image["file"]
        return open_image(image, os.path.dirname(self.path), () if beside else picture_roots)

    def check_unchanged(self, status: os.stat_result) -> None:
        """Raise UserError if `status`, of the file now, is not that when this run began: its rows may be others."""
        if _stamp(status) != self.stamp:
            raise UserError(f"{self.path}: the file has changed since this run began; restart it")


def open_source(path: str, image_root: str = "") -> Source:
    """A Source for `path`. image_root: where image paths start; "" is the file's own folder. Raises UserError."""
    if not os.path.isfile(path):
        what = "not a regular file, and rows are read twice" if os.path.exists(path) else "no such file"
        raise UserError(f"{path}: {what}; check --data (on several machines: on each of them)")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: cannot be read (Permission denied); allow it, or take it out of --data")
    if os.path.getsize(path) == 0:
        raise UserError(f"{path}: the file is empty; remove it from --data or make it again")
    source = Source(path, image_root or os.path.dirname(path), _stamp(os.stat(path)), path)
    if made := _manifest(path):
        counts = {reason.removeprefix("dropped: "): count for reason, count in made["counts"].items()
                  if reason.startswith("dropped: ")}
        return replace(source, image_root=made["image_root"], name=made["read_from"], dropped=counts,
                       share=made.get("amount", ""), files=made.get("files", ()))
    return source


def _manifest(path: str) -> dict | None:
    """What `python -m augment.read` says about the file that it made, None for any other. Raises UserError."""
    manifest = Path(path).with_name("manifest.json")
    if os.path.basename(path) != "rows.jsonl" or not manifest.is_file():
        return None
    try:
        made = json.loads(manifest.read_text())
        return made if {"read_from", "image_root", "counts"} <= made.keys() else None
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{manifest}: damaged ({error}); delete its folder") from error


# What the first row of a file in one of the two forms has; one with a foreign key besides is for augment/read.py.
FORMS = ({"turns"}, {"strong", "weak"}, {"instruction", "output"}, {"instruction_2", "output_2"})
FOREIGN_KEYS = {"conversations", "messages", "texts", "text_en", "query", "problem", "input", "history", "system"}
FOREIGN_KEYS |= {"image", "images", "image_path", "decoded_image", "choices", "options", "table"}
# Words of keys whose value a question may stand on, and last words of those that only say something about the row.
CONTENT = {"image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "figure", "figures", "fig",
           "diagram", "diagrams", "screenshot", "screenshots", "graph", "chart", "table", "tables", "option", "options",
           "choice", "choices", "candidates", "alternatives", "variants", "system", "sys", "history", "tool", "tools",
           "functions", "context", "passage", "paragraph", "premise", "premises", "background", "statement", "scenario",
           "story", "stem", "body", "support", "document", "evidence", "lecture", "caption", "hint", "hints", "code",
           "video", "videos", "audio", "input", "inputs", "facts", "given", "condition", "conditions", "article",
           "exhibit", "description", "numbers", "svg", "html", "csv", "pretext", "posttext", "objects", "bbox",
           "chosen", "rejected", "pixel"}
LABELS = {"id", "ids", "idx", "index", "size", "sizes", "width", "height", "type", "types", "source", "sources",
          "format", "category", "categories", "hash", "md5", "sha256", "count", "num", "number", "license", "domain",
          "tag", "tags", "score", "scores", "rating", "ratings", "quality", "name", "level", "language", "split",
          "path", "url", "uid"}
MISSING_WORDS = {"nan", "NaN", "None", "null", "NULL", "<NA>", "NaT"}  # what str() and pandas make of nothing
# A picture's place in the words of other tools, and a picture written into a text: it is not shown there.
PLACEHOLDER = re.compile(
    r"<[/|_]{0,3}(?:(?:begin|end|start)_of_)?(?:image|img|media|picture|vision_start|vision_end|fig)"
    r"(?:(?:here|end|pad|start|token|context|placeholder|\d|[_#-]){0,9}[|_/]{0,3}>|\s[^<>]{0,500}>)"
    r"|<im_(?:start|end|patch)>|\[/?(?:image|img)(?:[_\s#-]?(?:\d{1,3}|break|end|start))?\]"
    r"|\{(?:image|img)[#_]\d{1,3}\}"
    r"|!\[[^\[\]\n]{0,300}\]\([^()\n]{1,2000}\)|【图片?】|data:image/"
    r"|https?://[^\s<>()\"']{1,500}\.(?:png|jpe?g|gif|webp|bmp|svg)\b", re.IGNORECASE)
HUB_NAME = re.compile(r"[\w-]+/(?!.*\.(?:jsonl?|parquet|arrow|tar|gz)$)[\w.-]+(?::[A-Za-z]\w*)?")  # org/name:split


def in_training_form(path: str) -> bool:
    """Whether the trainer reads the file itself, by its name and its first row; if not, it goes through `prepare`.

    What is missing, is no regular file or begins with broken rows alone counts as such: whoever opens it says so.
    """
    if not os.path.exists(path):
        return not HUB_NAME.fullmatch(path)
    if os.path.isdir(path) or not path.lower().endswith(".jsonl"):
        return False
    try:
        with io.BufferedReader(open_regular(path)) as file:
            rows = map(parse_row, itertools.islice(filter(bytes.strip, file), 100))
            row = next((row for row in rows if not isinstance(row, BadRow) or row.reason == "not a row"), {"turns": []})
    except OSError:
        return True
    if not isinstance(row, dict) or not any(form <= row.keys() for form in FORMS):
        return False
    return not any(is_content_key(key) for key in row.keys() - {"image_url", "image_url_2"})


@cache
def is_content_key(key: str) -> bool:
    """Whether a key belongs to another form, or says by its name that a question may stand on its value."""
    words = key.lower().rstrip("0123456789").strip("_").split("_")
    option = re.fullmatch(r"(?:(?:option|choice|opt)_?)?[a-h]", key.lower())
    content = not CONTENT.isdisjoint([*words, "".join(words)]) and words[-1] not in LABELS
    return bool(key in FOREIGN_KEYS or option or content)


def prepare(path: str, amount: str, image_root: str, skip_bad_rows: bool, folder: str) -> tuple[str, str]:
    """The JSON lines in the trainer's form that `python -m augment.read` makes of a file in `folder`, once, and how
    many to draw of them: a share was drawn already. Raises UserError with the words of the command where it fails.
    """
    folder = os.path.normpath(folder)
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UserError(f"--prepared {folder}: not a folder; name another one")
    command = ["-m", "augment.read", "--data", f"{path}:{amount}" if amount else path, "--out_dir", folder]
    command += ["--image_root", image_root] if image_root else []
    command += ["--skip_bad_rows"] if skip_bad_rows else []
    print(f"data: {path} is not in the trainer's form: python {' '.join(command)}", flush=True)
    launcher = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"}  # the command is no rank of this job
    environment = {name: value for name, value in os.environ.items() if name not in launcher}
    core = str(Path(__file__).parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [core, os.environ.get("PYTHONPATH", "")]))
    error = f"{path}: the reader ended without a word"
    with subprocess.Popen([sys.executable, *command, "--max_gb", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=environment) as reader:
        for line in io.TextIOWrapper(reader.stderr, newline=""):  # its progress as it comes
            if line.startswith("error: "):
                error = line.removeprefix("error: ").strip()
            else:
                print(line, end="", file=sys.stderr, flush=True)
        made = reader.stdout.read().decode().splitlines()
    if reader.returncode:
        raise UserError(error)
    is_share = "." in amount and float(amount) <= 1
    return made[-1], "" if is_share else amount


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino


@lru_cache(maxsize=64)
def _opened(source: Source) -> io.FileIO:
    return open_regular(source.path)


def open_regular(path: str) -> io.FileIO:
    """Open a file to read it. Raises OSError, at once, for what is not a regular one: a FIFO would wait for ever."""
    file = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("not a regular file")
    return file


def parse_row(text: bytes | str) -> dict | BadRow:
    """The JSON object in one line."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deeply
        return BadRow("broken JSON", f"the line is not JSON ({type(error).__name__}: {error})")
    return row if isinstance(row, dict) else BadRow("not a row", f"this is {type(row).__name__}, no object with keys")


# ----------------------------------------------------------------------------------------------------------------------
# Conversations


@dataclass
class Turn:
    """What one speaker says. role: "system", "user" or "assistant"; content: {"text": str} and {"image": image} parts,
    in their order. An image is a path, a place {"file", "offset", "length"} in a large file, its bytes, or a PIL image.
    """

    role: str
    content: list[dict]

    @property
    def text(self) -> str:
        """Its texts, joined by a blank."""
        return " ".join(part["text"].strip() for part in self.content if "text" in part)

    @property
    def images(self) -> list:
        """Its images, in order."""
        return [part["image"] for part in self.content if "image" in part]


Conversation = list[Turn]

BENCHMARK_KEYS = (
    ("MathVerse", {"problem_version", "sample_index"}), ("MathVerse", {"problem_version", "problem_index"}),
    ("MathVista", {"pid", "metadata", "question_type", "precision"}), ("We-Math", {"knowledge concept", "option"}),
    ("a generated benchmark (bench.jsonl)", {"problem_id", "version", "family", "key"})
)
SIDE_KEYS = {"image_url", "instruction", "output"}
# Keys and values that look like an image's: a row with one that is not read would train as text without a word.
IMAGE_KEY = re.compile(r"i[ma]{1,3}g|pic", re.IGNORECASE)
IMAGE_NAME = re.compile(r"[^\n]{1,1000}\.(?:png|jpe?g|webp|gif|bmp|tiff?|ppm)", re.IGNORECASE)
READER = "read the file with python -m augment.read, or take the key out"


def conversations(row: dict | BadRow, pairs: bool) -> list[tuple[int, Conversation]]:
    """The conversations in a row of either form.

    pairs=True: [(STRONG, ...), (WEAK, ...)], single-turn, with equal responses. pairs=False: [(SINGLE, ...)], or both
    sides of a pair, each as a row of its own. Raises BadRow, BenchmarkRow for a row of an evaluation set.
    """
    if isinstance(row, BadRow):
        raise row
    for benchmark, keys in BENCHMARK_KEYS:
        if keys <= row.keys():
            raise BenchmarkRow("benchmark row", f"a row of {benchmark}, an evaluation set", "never train on it")
    if "turns" in row:
        known, sides = {"turns"}, [_turns(row)]
    elif "strong" in row and "weak" in row:
        known, sides = {"strong", "weak"}, [_turns(row["strong"]), _turns(row["weak"])]
    else:
        known, sides = _published(row)
    if pairs and len(sides) == 1:
        what = "a pair has strong and weak, or image_url, instruction, output and the same with _2"
        raise BadRow("not a pair", f"{what}; the keys here are: {_keys(row)}")
    for key in sorted(row.keys() - known - {"id"}):
        _refuse_content(key, row[key])
    for turns in sides:
        _check(turns)
    if len(sides) == 1:
        return [(SINGLE, sides[0])]
    strong, weak = (turns[-1].text for turns in sides)
    if strong != weak:
        raise BadRow("responses of a pair differ", f"output is {short(strong)}, output_2 is {short(weak)}")
    return list(zip((STRONG, WEAK), sides, strict=True))


def _keys(row: dict) -> str:
    return ", ".join(sorted(map(str, row))[:12]) or "none"


def _turns(side: object) -> Conversation:
    """The turns of a row, or of one side of a pair, in the form with `turns`."""
    items = side.get("turns") if isinstance(side, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadRow("field is not what it should be", f"turns is not a list of {{role, content}}: {short(items)}")
    turns = []
    for item in items:
        content, role = item.get("content"), item.get("role")
        if item.keys() != {"role", "content"} or not isinstance(content, list) or not content:
            what = f"a turn has a role and a list of parts as content, and nothing else: {short(item)}"
            raise BadRow("field is not what it should be", what)
        if role not in ("system", "user", "assistant"):
            raise BadRow("unknown speaker", f"a turn's role is {short(role)}, not system, user or assistant")
        for part in content:
            kind = next(iter(part)) if isinstance(part, dict) and len(part) == 1 else None
            if kind not in ("text", "image") or (kind == "image" and role != "user"):
                what = f"a part of the {role}'s content is {short(part)}; a text, or a user's image, is {{kind: value}}"
                raise BadRow("field is not what it should be", what)
        turns.append(Turn(role, [dict(part) for part in content]))
    return turns


def _published(row: dict) -> tuple[set[str], list[Conversation]]:
    """The keys and the sides of a row in the published form."""
    suffixes = ("", "_2") if "image_url_2" in row or "instruction_2" in row else ("",)
    if not {"instruction", "output"} <= row.keys() and suffixes == ("",):
        raise BadRow("unknown form", f"no turns, no instruction and output; the keys are: {_keys(row)}", READER)
    sides = []
    for suffix in suffixes:
        question = said("user", row.get(f"instruction{suffix}", ""), images_of(row.get(f"image_url{suffix}")))
        sides.append([question, said("assistant", row.get(f"output{suffix}"))])
    return {key + suffix for key in SIDE_KEYS for suffix in suffixes}, sides


def said(role: str, text: object, images: Sequence = ()) -> Turn:
    """A turn of a text with its images, each in the place of an <image>, or all of them in front of a text without one.

    Raises BadRow where there are more or fewer places than images.
    """
    pieces = text.split("<image>") if isinstance(text, str) and role == "user" else [text]
    if len(pieces) == 1:
        return Turn(role, [*({"image": image} for image in images), {"text": text}])
    if len(pieces) - 1 != len(images):
        what = f"{len(pieces) - 1} <image> in the text, {len(images)} images"
        raise BadRow("images and placeholders differ", what)
    content = [{"text": pieces[0]}]
    for image, piece in zip(images, pieces[1:], strict=True):
        content += [{"image": image}, {"text": piece}]
    return Turn(role, content)


def images_of(value: object) -> list:
    """The images in a field that holds one, a list of them, or nothing."""
    return [item for item in (value if isinstance(value, list) else [value]) if item not in (None, "")]


def _refuse_content(key: str, value: object) -> None:
    """Raise BadRow for a key that is not read, if it or its value looks as if it belonged to the question."""
    if value in (None, "") or value == [] or value == {} or isinstance(value, bool | int | float):
        return
    items = list(value.values()) if isinstance(value, dict) else images_of(value)
    is_image = any(isinstance(item, str | dict) if IMAGE_KEY.match(key) else
                   isinstance(item, str) and IMAGE_NAME.fullmatch(item) for item in items)
    if is_image or (is_content_key(key) and any(isinstance(item, str | list | dict) for item in items)):
        remedy = "write image_url, or image_url_2 for the weak side" if is_image else READER
        raise BadRow("unknown key", f"unknown key {key!r} with {short(value)}", remedy)


def _check(turns: Conversation) -> None:
    """Strip the texts. Raises BadRow if turns do not alternate, or something is empty or no text."""
    roles = [turn.role for turn in turns]
    spoken = roles[roles[:1] == ["system"] :]
    if not spoken or spoken != ["user", "assistant"] * (len(spoken) // 2):
        raise BadRow("turns do not alternate", f"the turns must alternate, the order is: {', '.join(roles[:8])}")
    asked = ""
    for turn in turns:
        for part in filter(lambda part: "text" in part, turn.content):
            if type(part["text"]) in (int, float) and not math.isnan(part["text"]):
                part["text"] = str(part["text"])
            if not isinstance(part["text"], str):
                raise BadRow("text is missing", f"the text of the {turn.role} is {short(part['text'])}")
            if not part["text"].isascii() and re.search("[\ud800-\udfff]", part["text"]):
                raise BadRow("not Unicode", "a text holds half of a surrogate pair")
            if found := PLACEHOLDER.search(part["text"]):
                what = f"{short(found[0])} in a text stands for no image"
                raise BadRow("images and placeholders differ", what, "write <image> where each belongs, or pass "
                             "--skip_bad_rows")
        _strip(turn)
        nothing = turn.text in MISSING_WORDS and not (turn.text == "None" and "none" in asked.lower())
        if (not turn.content or nothing) and turn.role == "assistant":
            raise BadRow("empty response", f"the response is {turn.text or 'empty'}")
        if not turn.content and turn.role == "user":
            raise BadRow("empty question", "the question is empty and there is no image")
        asked = turn.text


def _strip(turn: Turn) -> None:
    """Take the white space off at both ends, that behind images in front of the text too, and empty texts out."""
    for part in turn.content:
        if "text" in part:
            part["text"] = part["text"].lstrip()
            if part["text"]:
                break
    for part in reversed(turn.content):
        if "image" in part:
            break
        part["text"] = part["text"].rstrip()
        if part["text"]:
            break
    turn.content = [part for part in turn.content if part.get("text", True)]


def short(value: object) -> str:
    """A value for a message, cut in the middle."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}...{text[-15:]}"


# ----------------------------------------------------------------------------------------------------------------------
# Images


class ImageFinder:
    """Finds the image files that rows name. Each folder is listed once: a stat per image is slow on network disks.

    named: {path as in the row: (path, the real folder if that lies outside image_root, else "")}, in the rows' order.
    folder: that of the rows, where a place's large file lies.
    """

    def __init__(self, image_root: str = "", picture_roots: Sequence[str] = (), folder: str = ""):
        self.image_root, self.picture_roots, self.folder = image_root, picture_roots, folder
        self.root = (os.path.realpath(image_root),)
        self.named: dict[str, tuple[str, str]] = {}
        self.list = cache(_files)

    def check(self, image: object) -> str:
        """The folder of an image that lies outside image_root, else "", also for an image's bytes.

        Raises BadRow if there is no such regular file, or if it lies outside all picture_roots.
        """
        path = image_path(image, self.folder if isinstance(image, dict) else self.image_root)
        name = image["file"] if isinstance(image, dict) else image if isinstance(image, str) else None
        if path is None or name in self.named:
            return self.named[name][1] if path else ""
        folder, file = os.path.split(path)
        real, files = self.list(folder)
        if files.get(file):
            real = os.path.dirname(os.path.realpath(path))
        if file not in files or (files[file] and not os.path.isfile(path)):
            what = "no regular file" if os.path.exists(path) else "no image"
            raise BadRow("image missing", f"{what} {path!r}", "check --image_root, or pass --skip_bad_rows")
        beside = isinstance(image, dict) and real == os.path.realpath(self.folder)  # a pack is part of the rows
        if not beside:
            check_root(real, path, self.picture_roots)
        self.named[name] = (path, "" if beside or lies_in(real, self.root) else real)
        return self.named[name][1]

    def stat(self) -> Iterator[tuple[str, os.stat_result]]:
        """Each named path and its file's status. Raises OSError."""
        with ThreadPool(STAT_THREADS) as pool:
            found = pool.map(lambda named: os.stat(named[0]), self.named.values(), chunksize=100)
        return zip(self.named, found, strict=True)


def _files(folder: str) -> tuple[str, dict[str, bool]]:
    """The folder's real path, and its regular files and symbolic links by name: whether it is a link."""
    try:
        with os.scandir(folder or ".") as entries:
            found = {entry.name: entry.is_symlink() for entry in entries if entry.is_symlink() or entry.is_file()}
        return os.path.realpath(folder), found
    except (OSError, ValueError):  # no such folder, or a path that no file can have
        return "", {}


@lru_cache(maxsize=1024)
def lies_in(folder: str, roots: tuple[str, ...]) -> bool:
    """Whether a folder is one of `roots` or below one; all are real paths."""
    return any(os.path.commonpath([folder, root]) == root for root in roots)


def check_root(folder: str, path: str, picture_roots: Sequence[str]) -> None:
    """Raise BadRow if there are picture_roots, and `folder`, the real one of the image `path`, lies in none of them."""
    if picture_roots and not lies_in(folder, tuple(picture_roots)):
        raise BadRow("image outside of --picture_roots", f"the image {path!r} lies in {folder}, outside of "
                     "--picture_roots", "add that folder to it, or pass --skip_bad_rows")


def image_path(image: object, image_root: str) -> str | None:
    """The file that an image is, or lies in; None for its bytes and a PIL image. Raises BadRow for anything else."""
    if isinstance(image, Image.Image | bytes):
        return None
    path = image
    if isinstance(image, dict) and image.keys() == {"file", "offset", "length"}:
        path = image["file"]
        if not all(type(image[key]) is int and image[key] >= 0 for key in ("offset", "length")):
            path = None
    if not isinstance(path, str):
        raise BadRow("field is not what it should be", f"an image is not a path: {short(image)}", READER)
    if re.match(r"(?:https?|data):", path):
        raise BadRow("image is a URL", f"the image {short(path)} is a URL", "download it first")
    return os.path.join(image_root, path)


def open_image(image: object, image_root: str = "", picture_roots: Sequence[str] = ()) -> Image.Image:
    """An image (a path, a place {file, offset, length}, bytes or a PIL image) as RGB: upright by its EXIF tag,
    transparency on white.

    picture_roots: real paths of folders outside of which no file is opened; () allows all. Raises BadRow if the file
    is missing, not a regular one, no image, truncated, or larger than MAX_IMAGE_BYTES; the size is taken from the
    header, before anything is decoded.
    """
    path = image_path(image, image_root)
    name = path or "in the row"
    try:
        if isinstance(image, Image.Image):
            return _as_rgb(image.copy(), name)
        if path is not None and picture_roots:
            path = os.path.realpath(path)
            check_root(os.path.dirname(path), name, picture_roots)
        with io.BytesIO(image) if path is None else io.BufferedReader(open_regular(path)) as file:
            if isinstance(image, dict):
                name = f"{path} at {image['offset']:,}"
                file = io.BytesIO(os.pread(file.fileno(), image["length"], image["offset"]))
            return _as_rgb(Image.open(file, formats=IMAGE_FORMATS), name)
    except BadRow:
        raise
    except Exception as error:  # decoders raise nearly anything for damaged files: struct.error, SyntaxError ...
        reason = "image missing" if isinstance(error, FileNotFoundError) else "image unreadable"
        what = str(error).partition(" <_io.")[0]  # the path stands in front already
        remedy = "check --image_root" if isinstance(error, FileNotFoundError) else "make the image again"
        what = f"image {name}: {type(error).__name__}: {short(what)}"
        raise BadRow(reason, what, f"{remedy}, or pass --skip_bad_rows") from None


def _darkest(image: Image.Image) -> int:
    """The least value of what is opaque in an image with transparent parts; 256 where nothing is."""
    pixels = np.asarray(image.convert("RGBA"))
    return int(pixels[pixels[..., 3] > 127][:, :3].astype(int).min(initial=256))


def _as_rgb(image: Image.Image, name: str) -> Image.Image:
    """`image`, which may be changed, decoded and as RGB. Raises BadRow if it is too large."""
    packed = f"{image.mode} {[tile[3] for tile in getattr(image, 'tile', ())]}"  # the mode in memory, and in the file
    depth = 4 if image.mode in ("I", "F") else 2 if ";16" in packed else 1
    size = max(3, depth * (4 if image.format == "WEBP" else len(image.getbands())))  # WebP decodes to RGBA in any case
    if image.width * image.height * size > MAX_IMAGE_BYTES:
        raise BadRow("image too large", f"image {name}: {image.width} x {image.height} pixels of {size} bytes, "
                     f"at most {MAX_IMAGE_BYTES // size:,}")
    ImageOps.exif_transpose(image, in_place=True)
    image.load()
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    high = max(1, STRIP_PIXELS // image.width)
    strips = [(0, top, image.width, min(top + high, image.height)) for top in range(0, image.height, high)]
    # 16 bits a pixel: PIL would clip them to white
    is_deep = image.mode[0] in "IF"
    if is_deep:  # by its largest level: of a float, 1 bit, 8, 10, 12 or 16 bits
        top = max(np.asarray(image.crop(strip)).max() for strip in strips)
        scale = min((most for most in (1, 255, 1023, 4095, 65535) if top <= most), default=top) / 255
    paper = "white"
    if image.has_transparency_data and 230 < min(_darkest(image.crop(strip)) for strip in strips) < 256:
        paper = "black"  # white ink would not show
    page = Image.new("RGB", image.size)
    for box in strips:
        strip = image.crop(box)
        if is_deep:
            levels = np.asarray(strip, dtype=np.float64)
            strip = Image.fromarray((levels / scale).clip(0, 255).astype(np.uint8))
        if strip.has_transparency_data:
            strip = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", strip.size, paper), strip)
        page.paste(strip.convert("RGB"), box)
    return page
