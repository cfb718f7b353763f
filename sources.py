"""Training files as rows: .json, .jsonl, .parquet, plain or gzipped, in the public dialects, found by their keys.

A file is scanned once. What stays of it is where each row lies (byte offset and length, or row number), so that any
process can read a row again at any moment, and no copy of the data is written. Gzipped files cannot be entered in the
middle: their rows are held in memory, in compressed blocks.

    for number, offset, length, row in scan(source): ...      # row: a dict, or a BadRow that says what is wrong
    row = read_row(source, offset, length)                    # the same row again
    for side, turns in conversations(row, pairs=False): ...   # side: SINGLE, or STRONG and WEAK of a pair
    image = open_image(turns[0].images[0], source.image_root)
"""

import bisect
import codecs
import gzip
import io
import itertools
import json
import os
import pickle
import re
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from errors import UserError

MAX_PIXELS = 50_000_000  # a page scanned at 600 dpi has 35 million; what is larger is a decompression bomb or a mistake
MAX_ELEMENT_CHARS = 64_000_000  # one element of a .json array; beyond it the file is taken for broken
ROWS_PER_BLOCK = 64  # rows that a gzipped file's block holds: reading one row unpacks one block, about a millisecond
LARGE_ROW_GROUP = 5_000  # parquet row groups of text above this are held in blocks: a row would be long in coming
PARQUET_BUFFER = 1 << 20  # bytes of a column that are read at once
ROWS_PER_READ = 16  # rows of a parquet row group that are unpacked at once on the way to one of them
IMAGE_FORMATS = (
    "PNG",
    "JPEG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "PPM",
)  # raster only: PIL would start Ghostscript for EPS

SINGLE, STRONG, WEAK = 0, 1, 2  # which part of a row: all of it, or one side of a pair


class BadRow(Exception):
    """A row that cannot be used. `reason` is short and countable, `detail` says what exactly, `remedy` what to do."""

    def __init__(self, reason: str, detail: str, remedy: str = "correct the row, or pass --skip_bad_rows"):
        super().__init__(reason, detail, remedy)
        self.reason, self.detail, self.remedy = reason, detail, remedy


class BenchmarkRow(Exception):
    """A row of an evaluation set: never training data, not even skipped."""


# ----------------------------------------------------------------------------------------------------------------------
# Files


def parse_spec(spec: str) -> list[tuple[str, str]]:
    """ "a.jsonl:100k,b.parquet" becomes [("a.jsonl", "100k"), ("b.parquet", "")]. Raises UserError."""
    files = []
    for part in filter(None, (part.strip() for part in spec.split(","))):
        match = re.fullmatch(r"(.+):(\d+(?:\.\d+)?[kKmM]?)", part)
        if not match and ":" in part and not os.path.exists(part):
            raise UserError(f"--data {part}: behind the colon stands a count (5000, 100k) or a fraction (0.3)")
        files.append(match.groups() if match else (part, ""))
    if not files:
        raise UserError("--data is empty; name at least one .json, .jsonl or .parquet file")
    return files


def require_files(spec: str, made_by: str) -> None:
    """Raise a UserError that names the command which makes the data, where a file of `spec` is missing."""
    for path, _ in parse_spec(spec):
        if not os.path.exists(path):
            raise UserError(f"{path}: no such file; make it with: {made_by}, or name yours with --data")


def rows_to_draw(amount: str, usable: int) -> int:
    """Rows to draw of `usable`. A count takes at most all of them; a fraction above 1.0 repeats rows."""
    if not amount:
        return usable
    scale = {"k": 1_000, "m": 1_000_000}.get(amount[-1].lower())
    if scale is None and "." in amount:
        return round(float(amount) * usable)
    return min(usable, round(float(amount[:-1]) * scale) if scale else int(amount))


@dataclass
class Source:
    """One data file. `kind`: "jsonl", "json" or "parquet". `blocks` holds rows that cannot be read in place."""

    path: str
    kind: str
    gzipped: bool
    image_root: str
    stamp: tuple[int, int]  # inode and time of change: a file replaced under the same name is another file
    blocks: list[bytes] | None = None
    group_starts: list[int] = field(default_factory=list)  # parquet: the first row of every row group


def open_source(path: str, image_root: str = "") -> Source:
    """A Source for `path`; its kind is read from the name and, for .json, from the first bytes. Raises UserError."""
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; check --data")
    gzipped = path.endswith(".gz")
    suffix = Path(path[:-3] if gzipped else path).suffix.lower()
    if suffix not in (".json", ".jsonl", ".parquet"):
        raise UserError(
            f"{path}: unknown file type {suffix or '(none)'!r}; .json, .jsonl and .parquet are read, plain or .gz"
        )
    if os.path.getsize(path) == 0:
        raise UserError(f"{path}: the file is empty; remove it from --data or make it again")
    kind = suffix[1:]
    if kind == "json" and _looks_like_lines(path, gzipped):
        kind = "jsonl"
    status = os.stat(path)
    source = Source(path, kind, gzipped, image_root or os.path.dirname(path), (status.st_ino, status.st_mtime_ns))
    if gzipped:
        source.blocks = []
    if kind == "parquet":
        metadata = _parquet_file(path, gzipped, source.stamp, os.getpid()).metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        source.group_starts = [0, *itertools.accumulate(sizes)]
        images = any(metadata.schema.column(index).path.endswith("bytes") for index in range(metadata.num_columns))
        if max(sizes, default=0) > LARGE_ROW_GROUP and not images:
            source.blocks = []
    return source


def _looks_like_lines(path: str, gzipped: bool) -> bool:
    """Whether a .json file really holds one row per line, as many published sets do."""
    with _open_bytes(path, gzipped) as file:
        try:
            first = file.readline(MAX_ELEMENT_CHARS).strip()
            more = file.read(1)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path}: cannot be unpacked ({error}); download or make the file again") from None
    if not first.startswith(b"{"):
        return False
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return bool(more) or not all(isinstance(value, dict) for value in row.values())


def _open_bytes(path: str, gzipped: bool) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if gzipped else open(path, "rb")


def scan(source: Source) -> Iterator[tuple[int, int, int, dict | BadRow]]:
    """Every row of a file, once, in order: (number, offset, length, row).

    `number` is what a message shows: the line of a .jsonl, else the row, counted from 1. `offset` and `length` are for
    `read_row`: bytes of a plain .json or .jsonl, otherwise the row's number from 0 and 0. A line that cannot be read
    comes as a BadRow. A file held in blocks is stored as it passes.
    """
    reader = {"jsonl": _scan_lines, "json": _scan_array, "parquet": _scan_parquet}[source.kind]
    block: list[object] = []
    if source.blocks is not None:
        source.blocks.clear()
    index = 0
    try:
        for number, offset, length, raw, row in reader(source):
            if source.blocks is None:
                yield number, offset, length, row
                continue
            block.append(raw)
            if len(block) == ROWS_PER_BLOCK:
                source.blocks.append(zlib.compress(pickle.dumps(block), 1))
                block = []
            yield number, index, 0, row
            index += 1
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(
            f"{source.path}: cannot be read to its end ({error}); download or make the file again"
        ) from None
    if block:
        source.blocks.append(zlib.compress(pickle.dumps(block), 1))


def _scan_lines(source: Source) -> Iterator[tuple[int, int, int, bytes, dict | BadRow]]:
    offset = 0
    with _open_bytes(source.path, source.gzipped) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, offset, len(line), line, _parse(line)
            offset += len(line)


def _parse(text: bytes | str) -> dict | BadRow:
    try:
        row = json.loads(text)
    except RecursionError:
        return BadRow("broken JSON", "the line is nested too deeply")
    except UnicodeDecodeError:
        return BadRow("not UTF-8", "the line is not UTF-8 text")
    except ValueError as error:
        return BadRow("broken JSON", f"the line is not JSON ({error})")
    if not isinstance(row, dict):
        return BadRow("not a row", f"a row is an object with keys, this is {type(row).__name__}")
    return row


def _scan_array(source: Source) -> Iterator[tuple[int, int, int, bytes, dict | BadRow]]:
    """Elements of a JSON array, or values of a JSON object, with their byte offsets, through a sliding window."""
    decoder = json.JSONDecoder()
    with _open_bytes(source.path, source.gzipped) as file:
        text = _Window(file)
        opening = text.skip_space()
        if opening not in ("[", "{"):
            raise UserError(
                f"{source.path}: a .json file is a list of rows or an object of rows; this one starts with {opening!r}"
            )
        closing = "]" if opening == "[" else "}"
        text.advance(1)
        number = 0
        while True:
            mark = text.skip_space()
            if mark == "," and number:
                text.advance(1)
                mark = text.skip_space()
            if mark == closing:
                return
            number += 1
            try:
                if opening == "{":
                    text.decode(decoder)
                    if text.skip_space() != ":":
                        raise ValueError("a colon is missing")
                    text.advance(1)
                    text.skip_space()
                offset, raw, row = text.decode(decoder)
            except (ValueError, RecursionError) as error:
                detail = f"the file is not JSON from here on ({error}); rows before this one are whole"
                yield number, 0, 0, b"", BadRow("broken JSON, rest of the file unread", detail, "repair the file")
                return
            if not isinstance(row, dict):
                row = BadRow("not a row", f"a row is an object with keys, this is {type(row).__name__}")
            yield number, offset, len(raw), raw, row


class _Window:
    """A sliding piece of a large UTF-8 text that knows the byte offset of its start."""

    def __init__(self, file: io.BufferedIOBase):
        self.file, self.text, self.at, self.offset, self.ended = file, "", 0, 0, False
        self.utf8 = codecs.getincrementaldecoder("utf-8")()

    def more(self, size: int = 1 << 20) -> bool:
        piece = self.file.read(size)
        self.ended = not piece
        self.text = self.text[self.at :] + self.utf8.decode(piece, final=self.ended)
        self.at = 0
        return not self.ended

    def advance(self, count: int) -> None:
        piece = self.text[self.at : self.at + count]
        self.offset += len(piece) if piece.isascii() else len(piece.encode())
        self.at += count

    def skip_space(self) -> str:
        """The next character that is not white space (a byte order mark counts as such); "" at the end."""
        while True:
            match = re.compile(r"[\s\ufeff]*").match(self.text, self.at)
            self.advance(match.end() - self.at)
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def decode(self, decoder: json.JSONDecoder) -> tuple[int, bytes, object]:
        """The JSON value here: its byte offset, its bytes, itself. Reads on while the value is not complete."""
        size = 1 << 20
        while True:
            try:
                value, end = decoder.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:  # a number at the window's end may go on
                    break
            except ValueError:
                if self.ended or len(self.text) - self.at > MAX_ELEMENT_CHARS:
                    raise
            self.more(size)
            size *= 2
        offset, raw = self.offset, self.text[self.at : end].encode()
        self.advance(end - self.at)
        return offset, raw, value


def _scan_parquet(source: Source) -> Iterator[tuple[int, int, int, dict, dict | BadRow]]:
    parquet = _parquet_file(source.path, source.gzipped, source.stamp, os.getpid())
    leaves = [parquet.schema.column(index).path for index in range(len(parquet.schema))]
    # {bytes, path} columns are not unpacked for the index: that they are there is enough, and they are most of the file
    heavy = {leaf for leaf in leaves if leaf.endswith(".bytes") and f"{leaf[:-6]}.path" in leaves}
    heavy = {leaf for leaf in heavy if _column_size(parquet, leaves.index(leaf)) > 100 * parquet.metadata.num_rows}
    light = None if source.blocks is not None else [leaf for leaf in leaves if leaf not in heavy]
    marked = {leaf.split(".")[0] for leaf in heavy} if light else set()
    number = 0
    for batch in _parquet_batches(source.path, parquet, batch_size=256, columns=light):
        for row in batch.to_pylist():
            for key in marked:
                row[key] = _with_bytes(row[key])
            yield number + 1, number, 0, row, row
            number += 1


def _column_size(parquet: object, index: int) -> int:
    """Bytes of a column before compression; one that is null in every row (images by path alone) has hardly any."""
    groups = map(parquet.metadata.row_group, range(parquet.num_row_groups))
    return sum(group.column(index).total_uncompressed_size for group in groups)


def _parquet_batches(path: str, parquet: object, **options: object) -> Iterator[object]:
    """`iter_batches`, with whatever a damaged page makes pyarrow raise as one UserError."""
    import pyarrow

    try:
        yield from parquet.iter_batches(use_threads=False, **options)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be read to its end ({reason}); download or make the file again") from None


def _with_bytes(value: object) -> object:
    if isinstance(value, list):
        return [_with_bytes(item) for item in value]
    return value and {**value, "bytes": b"left in the file"}


@lru_cache(maxsize=64)
def _parquet_file(path: str, gzipped: bool, stamp: tuple[int, int], process: int) -> object:
    """An open parquet file of this process: a forked one must not go on with its parent's."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path}: reading parquet needs one more package: pip install pyarrow") from None
    try:
        if not gzipped:
            # a buffer: pages are read as they are needed; without one, all of a row group's column at once
            return pyarrow.parquet.ParquetFile(path, buffer_size=PARQUET_BUFFER, pre_buffer=False)
        with gzip.open(path) as file:
            return pyarrow.parquet.ParquetFile(pyarrow.BufferReader(file.read()))
    except (pyarrow.ArrowInvalid, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a parquet file ({str(error).splitlines()[0]}); download it again") from None


def _parquet_row(source: Source, number: int) -> dict:
    """Row `number` of the file. Its row group is read from the start up to the row, a few rows in memory at a time:
    groups of any size fit, and small ones (a hundred rows, as `datasets` writes images) are quick.
    """
    parquet = _parquet_file(source.path, False, source.stamp, os.getpid())
    group = bisect.bisect_right(source.group_starts, number) - 1
    left = number - source.group_starts[group]
    for batch in _parquet_batches(source.path, parquet, batch_size=ROWS_PER_READ, row_groups=[group]):
        if left < batch.num_rows:
            return batch.slice(left, 1).to_pylist()[0]
        left -= batch.num_rows
    raise BadRow("row missing", f"row group {group} ends before row {number + 1}")


@lru_cache(maxsize=64)
def _descriptor(path: str, stamp: tuple[int, int]) -> int:
    return os.open(path, os.O_RDONLY)


@lru_cache(maxsize=8)
def _block(block: bytes) -> list:
    return pickle.loads(zlib.decompress(block))


def read_row(source: Source, offset: int, length: int) -> dict:
    """One row again, by what `scan` said of it. Safe in forked processes: no file position is shared. Raises BadRow."""
    if source.blocks is not None:
        row = _block(source.blocks[offset // ROWS_PER_BLOCK])[offset % ROWS_PER_BLOCK]
    elif source.kind == "parquet":
        row = _parquet_row(source, offset)
    else:
        row = os.pread(_descriptor(source.path, source.stamp), length, offset)
    if not isinstance(row, dict):
        row = _parse(row)
        if isinstance(row, BadRow):
            raise row
    return row


# ----------------------------------------------------------------------------------------------------------------------
# Dialects


@dataclass
class Turn:
    """What one speaker says. role: "system", "user" or "assistant"; a user's images stand before the text."""

    role: str
    text: str
    images: list = field(default_factory=list)


Conversation = list[Turn]

ACCEPTED = (
    "image_url_2|instruction_2 (a pair), conversations, messages, texts, text_en + image_text_dominant, "
    "query + response, problem + solution, instruction + output, question + answer|short_answer"
)
IMAGE_KEYS = ("image", "images", "image_url", "image_path", "decoded_image")
ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}


def refuse_benchmarks(row: dict) -> None:
    """Raise BenchmarkRow for a row of MathVerse, MathVista, We-Math or of a generated benchmark, told by their keys."""
    if "problem_version" in row and ("sample_index" in row or "problem_index" in row):
        raise BenchmarkRow("MathVerse")
    if "pid" in row and "metadata" in row:
        raise BenchmarkRow("MathVista")
    if "knowledge concept" in row:
        raise BenchmarkRow("We-Math")
    if "problem_id" in row and "version" in row:
        raise BenchmarkRow("a generated benchmark (bench.jsonl)")


def conversations(row: dict, pairs: bool) -> list[tuple[int, Conversation]]:
    """The conversations in a row, by its keys.

    pairs=True: [(STRONG, ...), (WEAK, ...)], single-turn, with equal responses. pairs=False: [(SINGLE, ...)], and of a
    pair both sides, each as a row of its own. Raises BadRow, BenchmarkRow.
    """
    refuse_benchmarks(row)
    if "image_url_2" in row or "instruction_2" in row:
        sides = _published_pair(row)
    elif "text_en" in row and "image_text_dominant" in row:
        sides = _mavis_pair(row)
    elif pairs:
        keys = ", ".join(sorted(map(str, row))[:12])
        raise BadRow(
            "not a pair", f"a pair has image_url, instruction, output and the same with _2; the keys here are: {keys}"
        )
    else:
        return [(SINGLE, _checked(_single(row)))]
    strong, weak = (_checked(side) for side in sides)
    if strong[-1].text != weak[-1].text:
        raise BadRow(
            "responses of a pair differ", f"output is {_short(strong[-1].text)}, output_2 is {_short(weak[-1].text)}"
        )
    return [(STRONG, strong), (WEAK, weak)]


def _published_pair(row: dict) -> list[Conversation]:
    first = [
        Turn("user", row.get("instruction", ""), _images(row, ("image_url",))),
        Turn("assistant", row.get("output", "")),
    ]
    second = [
        Turn("user", row.get("instruction_2", ""), _images(row, ("image_url_2",))),
        Turn("assistant", row.get("output_2")),
    ]
    return [first, second]


def _mavis_pair(row: dict) -> list[Conversation]:
    """MAVIS-Geometry has each problem in versions: text-dominant is the strong side, vision-dominant the weak one."""
    texts = row["text_en"]
    if not isinstance(texts, dict):
        raise BadRow("field is not what it should be", "text_en is not an object")
    sides = []
    for version in ("text_dominant", "vision_dominant"):
        question = _with_choices(texts.get(f"{version}_question", ""), row.get("choices"))
        images = _images(row, (f"image_{version}",))
        sides.append([Turn("user", question, images), Turn("assistant", texts.get("CoT_reasoning"))])
    return sides


def _single(row: dict) -> Conversation:
    images = _images(row, IMAGE_KEYS)
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
        question, answer = (
            _with_choices(row["question"], row.get("choices")),
            row.get("short_answer") if answer is None else answer,
        )
    else:
        keys = ", ".join(sorted(map(str, row))[:12]) or "none"
        raise BadRow("unknown dialect", f"the keys are: {keys}; accepted: {ACCEPTED}")
    return [Turn("user", question, images), Turn("assistant", answer)]


def _with_choices(question: object, choices: object) -> object:
    if not isinstance(question, str) or not isinstance(choices, list) or not choices:
        return question
    lettered = all(re.search(rf"\b{letter}\s?[).:、]", question) for letter in "AB")
    if lettered and all(str(choice) in question for choice in choices):
        return question  # they stand in the question already
    lines = [f"({chr(65 + index)}) {choice}" for index, choice in enumerate(choices)]
    return "\n".join([question, "Choices:", *lines])


def _dialogue(items: object, role_key: str, text_key: str, images: list) -> Conversation:
    if not isinstance(items, list) or not items:
        raise BadRow("field is not what it should be", "the conversation is not a list of turns")
    turns: Conversation = []
    for item in items:
        role = ROLES.get(item.get(role_key)) if isinstance(item, dict) and isinstance(item.get(role_key), str) else None
        if role is None:
            raise BadRow(
                "unknown speaker", f"a turn is not one of {', '.join(ROLES)} by its key {role_key!r}: {_short(item)}"
            )
        if role == "assistant" and not any(turn.role == "user" for turn in turns):
            continue  # a greeting before the first question: LLaVA leaves it out too
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
            raise BadRow(
                "field is not what it should be", "texts holds something that is not a {user, assistant} object"
            )
        turns += [Turn("user", item.get("user")), Turn("assistant", item.get("assistant"))]
    if not turns:
        raise BadRow("field is not what it should be", "texts is not a list of {user, assistant} objects")
    turns[0].images = images
    return turns


def _images(row: dict, keys: tuple[str, ...]) -> list:
    """The row's images (paths, {bytes, path} dicts or PIL images) as a list; the first key that holds any counts."""
    for key in keys:
        value = row.get(key)
        found = []
        for item in value if isinstance(value, list | tuple) else [value]:
            if (
                item is None
                or item == ""
                or (isinstance(item, dict) and not item.get("bytes") and not item.get("path"))
            ):
                continue
            if not isinstance(item, str | dict | Image.Image):
                raise BadRow("field is not what it should be", f"{key} is not a path or an image: {_short(item)}")
            found.append(item)
        if found:
            return found
    return []


def _checked(turns: Conversation) -> Conversation:
    """Texts stripped and placeholders taken out; speakers alternate; nothing needed is empty. Raises BadRow."""
    speakers = [turn.role for turn in turns if turn.role != "system"]
    if any(turn.role == "system" for turn in turns[1:]):
        raise BadRow("turns do not alternate", "a system message stands in the middle of a conversation")
    if not speakers or len(speakers) % 2 or speakers != ["user", "assistant"] * (len(speakers) // 2):
        raise BadRow(
            "turns do not alternate", f"user and assistant must take turns, the order is: {', '.join(speakers[:8])}"
        )
    for turn in turns:
        if isinstance(turn.text, int | float) and not isinstance(turn.text, bool):
            turn.text = str(turn.text)
        if not isinstance(turn.text, str):
            raise BadRow("text is missing", f"the text of the {turn.role} is {_short(turn.text)}")
        if not turn.text.isascii():
            try:
                turn.text.encode()
            except UnicodeEncodeError:
                raise BadRow("not Unicode", "a text holds half of a surrogate pair") from None
        if turn.role == "user":
            placeholders = turn.text.count("<image>")
            turn.text = re.sub(r"[ \t]*<image>[ \t]*\n?", " ", turn.text)
            if placeholders and placeholders != len(turn.images):
                detail = f"{placeholders} <image> in the text, {len(turn.images)} images in the row"
                raise BadRow("images and placeholders differ", detail)
        turn.text = turn.text.strip()
        if not turn.text and turn.role == "assistant":
            raise BadRow("empty response", "the response is empty")
        if not turn.text and turn.role == "user" and not turn.images:
            raise BadRow("empty question", "the question is empty and there is no image")
    return turns


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}...{text[-15:]}"


# ----------------------------------------------------------------------------------------------------------------------
# Images


class ImageFinder:
    """Whether image files exist, asked folder by folder: one listing answers for thousands of rows."""

    def __init__(self) -> None:
        self.folders: dict[str, frozenset[str]] = {}

    def check(self, image: object, image_root: str) -> None:
        """Raise BadRow when an image's file is not there. Bytes and PIL images are not looked at."""
        path = image_path(image, image_root)
        if path is None:
            return
        folder, name = os.path.split(path)
        if folder not in self.folders:
            try:
                with os.scandir(folder or ".") as entries:
                    self.folders[folder] = frozenset(e.name for e in entries if not e.is_dir(follow_symlinks=False))
            except (OSError, ValueError):
                self.folders[folder] = frozenset()
        if name not in self.folders[folder]:
            raise _missing(path)


def _missing(path: str) -> BadRow:
    return BadRow("image missing", f"no image {path!r}", "check --image_root, or pass --skip_bad_rows")


def image_path(image: object, image_root: str) -> str | None:
    """The file of an image, or None where the row itself holds its bytes. Raises BadRow for a URL."""
    if isinstance(image, dict):
        if image.get("bytes"):
            return None
        image = image.get("path")
    if isinstance(image, Image.Image):
        return None
    if not isinstance(image, str):
        raise BadRow("field is not what it should be", f"an image is neither a path nor bytes: {_short(image)}")
    if re.match(r"https?://", image):
        raise BadRow("image is a URL", f"the image {_short(image)} is a URL", "download the images first")
    return os.path.join(image_root, image)


def open_image(image: object, image_root: str = "") -> Image.Image:
    """An image (path, {bytes, path} or PIL image) as RGB: upright by its EXIF tag, transparency laid on white.

    Raises BadRow when the file is missing, is not an image, is truncated, or has more than MAX_PIXELS pixels; that
    is checked from the header, before anything is decoded.
    """
    path = image_path(image, image_root)
    name = path or "in the row"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            if isinstance(image, Image.Image):
                opened = image
            else:
                opened = Image.open(path if path is not None else io.BytesIO(image["bytes"]), formats=IMAGE_FORMATS)
        width, height = opened.size
        if width * height > MAX_PIXELS:
            raise BadRow(
                "image too large", f"image {name}: {width} x {height} pixels, at most {MAX_PIXELS:,} are read"
            )
        opened = ImageOps.exif_transpose(opened)
        if opened.mode[0] in "IF":  # 16 bits a pixel: PIL would clip them to white
            levels = np.asarray(opened, dtype=np.float64)
            opened = Image.fromarray((levels / (257 if levels.max() > 255 else 1)).clip(0, 255).astype(np.uint8))
        if opened.mode in ("RGBA", "LA", "PA") or "transparency" in opened.info:
            opened = opened.convert("RGBA")
            opened = Image.alpha_composite(Image.new("RGBA", opened.size, "white"), opened)
        return opened.convert("RGB")
    except BadRow:
        raise
    except FileNotFoundError:
        raise _missing(name) from None
    except Image.DecompressionBombError:
        raise BadRow("image too large", f"image {name}: far more than {MAX_PIXELS:,} pixels") from None
    except (
        Exception
    ) as error:  # decoders of damaged files raise nearly anything: struct.error, SyntaxError, IndexError ...
        raise BadRow("image unreadable", f"image {name}: {type(error).__name__}: {_short(str(error))}") from None
