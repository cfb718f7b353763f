"""Training files as rows: JSON lines in the published form, read in place, and the images of the rows.

A file is scanned once. Only the place of each row (byte offset and length) is kept, so any process can read a row again
at any time and the data is never copied. Other kinds of files and other forms of rows are read by dialects.py.

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
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType

import numpy as np
from PIL import Image, ImageOps

from errors import UserError

MAX_PIXELS = 50_000_000  # a page scanned at 600 dpi has 35 million; larger ones are decompression bombs or mistakes
Image.MAX_IMAGE_PIXELS = None  # open_image checks MAX_PIXELS itself, before it decodes anything
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # raster only: PIL starts Ghostscript for EPS

SINGLE, STRONG, WEAK = 0, 1, 2  # which part of a row: all of it, or one side of a pair


class BadRow(Exception):
    """A row that cannot be used. `reason` is short and countable, `detail` says what exactly, `remedy` what to do."""

    def __init__(self, reason: str, detail: str, remedy: str = "correct the row, or pass --skip_bad_rows"):
        super().__init__(reason, detail, remedy)
        self.reason, self.detail, self.remedy = reason, detail, remedy


class BenchmarkRow(BadRow):
    """A row of an evaluation set: an error even with --skip_bad_rows."""


def _dialects() -> ModuleType:
    """dialects.py, which reads everything but JSON lines in the published form. Imported only when it is needed."""
    import dialects

    return dialects


# ----------------------------------------------------------------------------------------------------------------------
# Files


def parse_spec(spec: str) -> list[tuple[str, str]]:
    """ "a.jsonl:100k,b.parquet" becomes [("a.jsonl", "100k"), ("b.parquet", "")]. Raises UserError."""
    files = []
    for part in filter(None, map(str.strip, spec.split(","))):
        match = re.fullmatch(r"(.+):(\d+(?:\.\d+)?[kKmM]?)", part)
        if not match and ":" in part and not os.path.exists(part):
            raise UserError(f"--data {part}: behind the colon, give a count (5000, 100k) or a fraction (0.3)")
        files.append(match.groups() if match else (part, ""))
    if not files:
        raise UserError("--data is empty; name at least one .json, .jsonl or .parquet file")
    return files


def require_files(spec: str, made_by: str) -> None:
    """Raise a UserError that names the command which makes the data if a file of `spec` is missing."""
    for path, _ in parse_spec(spec):
        if not os.path.exists(path):
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
    """One file of JSON lines. dialects.Container is a file of any other kind."""

    path: str
    image_root: str
    blocks: list[bytes] | None = None  # rows in memory, of a file that cannot be read in place (dialects.py)

    def scan(self) -> Iterator[tuple[int, int, int, dict | BadRow]]:
        """Every row of the file, once, in order: (number, offset, length, row).

        `number` is what messages show: the line, or in files without lines the row, counted from 1. `offset` and
        `length` are for `read_row`. A line that cannot be read comes as a BadRow. Raises UserError.
        """
        offset = 0
        try:
            with open(self.path, "rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield number, offset, len(line), parse_row(line)
                    offset += len(line)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read to its end ({error}); download or make it again") from None

    def read_row(self, offset: int, length: int) -> dict | BadRow:
        """The row at a place that `scan` gave. Safe in forked processes: they share no file position."""
        return parse_row(os.pread(_opened(self).fileno(), length, offset))


def open_source(path: str, image_root: str = "") -> Source:
    """A Source for `path`. image_root: where image paths start; "" is the file's own folder. Raises UserError."""
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; check --data (on several machines: on each of them)")
    if os.path.getsize(path) == 0:
        raise UserError(f"{path}: the file is empty; remove it from --data or make it again")
    source = Source(path, image_root or os.path.dirname(path))
    return source if path.lower().endswith(".jsonl") else _dialects().open_container(source)


@lru_cache(maxsize=64)
def _opened(source: Source) -> io.FileIO:
    return io.FileIO(source.path)


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
    """What one speaker says. role: "system", "user" or "assistant"; a user's images stand before the text."""

    role: str
    text: str
    images: list = field(default_factory=list)


Conversation = list[Turn]

# A row with one of these keys is in another dialect or of an evaluation set, even if it also has those of the published
# form.
FOREIGN_KEYS = {"conversations", "messages", "texts", "text_en", "query", "problem", "input", "image", "images"}
FOREIGN_KEYS |= {"image_path", "decoded_image", "problem_version", "pid", "knowledge concept", "problem_id"}


def conversations(row: dict | BadRow, pairs: bool) -> list[tuple[int, Conversation]]:
    """The conversations in a row, found by its keys.

    pairs=True: [(STRONG, ...), (WEAK, ...)], single-turn, with equal responses. pairs=False: [(SINGLE, ...)], or both
    sides of a pair, each as a row of its own. Raises BadRow.
    """
    if isinstance(row, BadRow):
        raise row
    is_pair = "image_url_2" in row or "instruction_2" in row
    if FOREIGN_KEYS & row.keys() or not (is_pair or (not pairs and {"instruction", "output"} <= row.keys())):
        sides = _dialects().sides(row, pairs)
    else:
        sides = [published_turns(row, suffix) for suffix in ("", "_2")[: 1 + is_pair]]
    for turns in sides:
        _check(turns)
    if len(sides) == 1:
        return [(SINGLE, sides[0])]
    strong, weak = (turns[-1].text for turns in sides)
    if strong != weak:
        raise BadRow("responses of a pair differ", f"output is {short(strong)}, output_2 is {short(weak)}")
    return list(zip((STRONG, WEAK), sides, strict=True))


def published_turns(row: dict, suffix: str) -> Conversation:
    """One side of a row in the published form, unchecked. suffix: of its keys, "" or "_2"."""
    question = Turn("user", row.get(f"instruction{suffix}", ""), images_of(row.get(f"image_url{suffix}")))
    return [question, Turn("assistant", row.get(f"output{suffix}"))]


def images_of(value: object) -> list:
    """The images (paths, {bytes, path} dicts or PIL images) in a field that holds one, a list of them, or nothing."""

    def is_image(item: object) -> bool:
        return bool(item.get("bytes") or item.get("path")) if isinstance(item, dict) else item not in (None, "")

    return list(filter(is_image, value if isinstance(value, list | tuple) else [value]))


def _check(turns: Conversation) -> None:
    """Strip the texts and take the placeholders out. Raises BadRow if turns do not alternate or something is empty."""
    roles = [turn.role for turn in turns]
    spoken = roles[roles[:1] == ["system"] :]
    if not spoken or spoken != ["user", "assistant"] * (len(spoken) // 2):
        raise BadRow("turns do not alternate", f"the turns must alternate, the order is: {', '.join(roles[:8])}")
    for turn in turns:
        if type(turn.text) in (int, float):
            turn.text = str(turn.text)
        if not isinstance(turn.text, str):
            raise BadRow("text is missing", f"the text of the {turn.role} is {short(turn.text)}")
        if not turn.text.isascii() and re.search("[\ud800-\udfff]", turn.text):
            raise BadRow("not Unicode", "a text holds half of a surrogate pair")
        count = turn.text.count("<image>") if turn.role == "user" else 0
        if count not in (0, len(turn.images)):
            raise BadRow("images and placeholders differ", f"{count} <image> in the text, {len(turn.images)} images")
        turn.text = (re.sub(r"[ \t]*<image>[ \t]*\n?", " ", turn.text) if count else turn.text).strip()
        if not turn.text and turn.role == "assistant":
            raise BadRow("empty response", "the response is empty")
        if not turn.text and turn.role == "user" and not turn.images:
            raise BadRow("empty question", "the question is empty and there is no image")


def short(value: object) -> str:
    """A value for a message, cut in the middle."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}...{text[-15:]}"


# ----------------------------------------------------------------------------------------------------------------------
# Images


class ImageFinder(dict):
    """File names by folder. Each folder is listed once: a stat per image would be slow on network disks."""

    def __missing__(self, folder: str) -> set[str]:
        try:
            with os.scandir(folder or ".") as entries:
                names = {entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)}
        except (OSError, ValueError):  # no such folder, or a path that no file can have
            names = set()
        return self.setdefault(folder, names)

    def check(self, image: object, image_root: str) -> None:
        """Raise BadRow if the image's file does not exist. Images whose bytes are in the row are not looked at."""
        path = image_path(image, image_root)
        if path is not None and os.path.basename(path) not in self[os.path.dirname(path)]:
            raise BadRow("image missing", f"no image {path!r}", "check --image_root, or pass --skip_bad_rows")


def image_path(image: object, image_root: str) -> str | None:
    """The file of an image, or None if the row itself holds the image. Raises BadRow for a URL or anything else."""
    if isinstance(image, Image.Image) or (isinstance(image, dict) and image.get("bytes")):
        return None
    path = image.get("path") if isinstance(image, dict) else image
    if not isinstance(path, str):
        raise BadRow("field is not what it should be", f"an image is not a path or bytes: {short(image)}")
    if re.match(r"https?://", path):
        raise BadRow("image is a URL", f"the image {short(path)} is a URL", "download the images first")
    return os.path.join(image_root, path)


def open_image(image: object, image_root: str = "") -> Image.Image:
    """An image (a path, {bytes, path} or a PIL image) as RGB: upright by its EXIF tag, transparency on white.

    Raises BadRow if the file is missing, is not an image, is truncated, or has more than MAX_PIXELS pixels; the size
    is taken from the header, before anything is decoded.
    """
    path = image_path(image, image_root)
    name = path or "in the row"
    try:
        if not isinstance(image, Image.Image):
            image = Image.open(io.BytesIO(image["bytes"]) if path is None else path, formats=IMAGE_FORMATS)
        if image.width * image.height <= MAX_PIXELS:
            return _as_rgb(image)
    except Exception as error:  # decoders raise nearly anything for damaged files: struct.error, SyntaxError ...
        reason = "image missing" if isinstance(error, FileNotFoundError) else "image unreadable"
        raise BadRow(reason, f"image {name}: {type(error).__name__}: {short(str(error))}") from None
    raise BadRow("image too large", f"image {name}: {image.width} x {image.height} pixels, at most {MAX_PIXELS:,}")


def _as_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # 16 bits a pixel: PIL would clip them to white
        levels = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((levels / (257 if levels.max() > 255 else 1)).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
