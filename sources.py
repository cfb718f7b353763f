"""Training files as rows: JSON lines in the published form, read in place, and the images of the rows.

A file is scanned once. What stays of it is where each row lies (byte offset and length), so that any process can read a
row again at any moment, and no copy of the data is written. Other files and other forms are read by dialects.py.

    source = open_source("stage2.jsonl")
    for number, offset, length, row in source.scan(): ...     # row: a dict, or a BadRow that says what is wrong
    row = source.read_row(offset, length)                     # the same row again
    for side, turns in conversations(row, pairs=False): ...   # side: SINGLE, or STRONG and WEAK of a pair
    image = open_image(turns[0].images[0], source.image_root)
"""

import io
import json
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType

import numpy as np
from PIL import Image, ImageOps

from errors import UserError

MAX_PIXELS = 50_000_000  # a page scanned at 600 dpi has 35 million; what is larger is a decompression bomb or a mistake
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


def _dialects() -> ModuleType:
    """dialects.py: reads what is not JSON lines in the published form. Imported only where a file or row needs it."""
    import dialects

    return dialects


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
    """One file of JSON lines; dialects.Container is a file of any other kind."""

    path: str
    image_root: str
    stamp: tuple[int, int]  # inode and time of change: a file replaced under the same name is another file
    blocks: list[bytes] | None = None  # rows that cannot be read in place (dialects.py)

    def scan(self) -> Iterator[tuple[int, int, int, dict | BadRow]]:
        """Every row of the file, once, in order: (number, offset, length, row).

        `number` is what a message shows: the line, or in files without lines the row, counted from 1. `offset` and
        `length` are for `read_row`. A line that cannot be read comes as a BadRow.
        """
        offset = 0
        try:
            with open(self.path, "rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield number, offset, len(line), parse_row(line)
                    offset += len(line)
        except OSError as error:
            raise cut_off(self.path, error) from None

    def read_row(self, offset: int, length: int) -> dict:
        """One row again, by what `scan` said of it. Safe in forked processes: no file position is shared.

        Raises BadRow.
        """
        row = parse_row(os.pread(_descriptor(self.path, self.stamp), length, offset))
        if isinstance(row, BadRow):
            raise row
        return row


def cut_off(path: str, reason: object) -> UserError:
    """The error for a file that cannot be read to its end."""
    return UserError(f"{path}: cannot be read to its end ({reason}); download or make the file again")


def open_source(path: str, image_root: str = "") -> Source:
    """A Source for `path`; its kind is read from the name and, for .json, from the first bytes. Raises UserError."""
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; check --data")
    if os.path.getsize(path) == 0:
        raise UserError(f"{path}: the file is empty; remove it from --data or make it again")
    status = os.stat(path)
    source = Source(path, image_root or os.path.dirname(path), (status.st_ino, status.st_mtime_ns))
    return source if path.lower().endswith(".jsonl") else _dialects().open_container(source)


def parse_row(text: bytes | str) -> dict | BadRow:
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


@lru_cache(maxsize=64)
def _descriptor(path: str, stamp: tuple[int, int]) -> int:
    return os.open(path, os.O_RDONLY)


# ----------------------------------------------------------------------------------------------------------------------
# Conversations


@dataclass
class Turn:
    """What one speaker says. role: "system", "user" or "assistant"; a user's images stand before the text."""

    role: str
    text: str
    images: list = field(default_factory=list)


Conversation = list[Turn]

# A row with one of these keys is in another dialect (or adds to the form), whatever other keys it has.
DIALECT_KEYS = {
    "conversations", "messages", "texts", "text_en", "query", "problem", "input", "image", "images", "image_path",
    "decoded_image",
}  # fmt: skip


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
    elif not pairs and "instruction" in row and "output" in row and not DIALECT_KEYS & row.keys():
        question = Turn("user", row["instruction"], images_of(row, ("image_url",)))
        sides = [[question, Turn("assistant", row["output"])]]
    else:
        sides = _dialects().sides(row, pairs)
    if len(sides) == 1:
        return [(SINGLE, _checked(sides[0]))]
    strong, weak = (_checked(side) for side in sides)
    if strong[-1].text != weak[-1].text:
        raise BadRow(
            "responses of a pair differ", f"output is {short(strong[-1].text)}, output_2 is {short(weak[-1].text)}"
        )
    return [(STRONG, strong), (WEAK, weak)]


def _published_pair(row: dict) -> list[Conversation]:
    first = [
        Turn("user", row.get("instruction", ""), images_of(row, ("image_url",))),
        Turn("assistant", row.get("output", "")),
    ]
    second = [
        Turn("user", row.get("instruction_2", ""), images_of(row, ("image_url_2",))),
        Turn("assistant", row.get("output_2")),
    ]
    return [first, second]


def images_of(row: dict, keys: tuple[str, ...]) -> list:
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
                raise BadRow("field is not what it should be", f"{key} is not a path or an image: {short(item)}")
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
            raise BadRow("text is missing", f"the text of the {turn.role} is {short(turn.text)}")
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


def short(value: object) -> str:
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
        raise BadRow("field is not what it should be", f"an image is neither a path nor bytes: {short(image)}")
    if re.match(r"https?://", image):
        raise BadRow("image is a URL", f"the image {short(image)} is a URL", "download the images first")
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
        raise BadRow("image unreadable", f"image {name}: {type(error).__name__}: {short(str(error))}") from None
