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
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from multiprocessing.pool import ThreadPool
from types import ModuleType

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


class BenchmarkRow(BadRow):
    """A row of an evaluation set: an error even with --skip_bad_rows."""


def _dialects() -> ModuleType:
    """augment/dialects.py, which reads every form but the published one. Imported only when it is needed."""
    from augment import dialects

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
    stamp: tuple[int, int, int] = (0, 0, 0)  # _stamp of the file when this run began
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
        """The row at a place that `scan` gave. Safe in forked processes: they share no file position. Raises UserError
        if the file is no longer the one that this run began with.
        """
        descriptor = _opened(self).fileno()
        self.check_unchanged(os.fstat(descriptor))
        return parse_row(os.pread(descriptor, length, offset))

    def check_unchanged(self, status: os.stat_result) -> None:
        """Raise UserError if `status`, of the file now, is not that when this run began: its rows may be others."""
        if _stamp(status) != self.stamp:
            raise UserError(f"{self.path}: the file has changed since this run began; restart it")


def open_source(path: str, image_root: str = "") -> Source:
    """A Source for `path`. image_root: where image paths start; "" is the file's own folder. Raises UserError."""
    if not os.path.isfile(path):
        what = "not a regular file, and rows are read twice" if os.path.exists(path) else "no such file"
        raise UserError(f"{path}: {what}; check --data (on several machines: on each of them)")
    if os.path.getsize(path) == 0:
        raise UserError(f"{path}: the file is empty; remove it from --data or make it again")
    source = Source(path, image_root or os.path.dirname(path), _stamp(os.stat(path)))
    if path.lower().endswith(".jsonl"):
        return source
    from augment import containers

    return containers.open_container(source)


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
    """One side of a row in the published form. suffix: of its keys, "" or "_2".

    Raises BadRow for an unknown key that looks like one of an image: the row would train as text without a word.
    """
    for key in filter(re.compile("(?!image_url(_2)?$)(?i:i[ma]{1,3}g|pic)").match, row):
        if any(isinstance(item, str | dict) for item in images_of(row[key])):
            raise BadRow("unknown key", f"unknown key {key!r}", "write image_url, or image_url_2 for the weak side")
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


class ImageFinder:
    """Finds the image files that rows name. Each folder is listed once: a stat per image is slow on network disks.

    named: {path as in the row: the real folder if that lies outside image_root, else ""}, in the order of the rows.
    """

    def __init__(self, image_root: str = "", picture_roots: Sequence[str] = ()):
        self.image_root, self.picture_roots = image_root, picture_roots
        self.root = (os.path.realpath(image_root),)
        self.named: dict[str, str] = {}
        self.list = cache(_files)

    def check(self, image: object) -> str:
        """The folder of an image that lies outside image_root, else "", also for an image in the row itself.

        Raises BadRow if there is no such regular file, or if it lies outside all picture_roots.
        """
        path = image_path(image, self.image_root)
        name = image if isinstance(image, str) else path and image["path"]
        if path is None or name in self.named:
            return self.named.get(name, "")
        folder, file = os.path.split(path)
        real, files = self.list(folder)
        if files.get(file):
            real = os.path.dirname(os.path.realpath(path))
        if file not in files or (files[file] and not os.path.isfile(path)):
            what = "no regular file" if os.path.exists(path) else "no image"
            raise BadRow("image missing", f"{what} {path!r}", "check --image_root, or pass --skip_bad_rows")
        check_root(real, path, self.picture_roots)
        self.named[name] = "" if lies_in(real, self.root) else real
        return self.named[name]

    def stat(self) -> Iterator[tuple[str, os.stat_result]]:
        """Each named path and its file's status. Raises OSError."""
        with ThreadPool(STAT_THREADS) as pool:
            found = pool.map(lambda name: os.stat(os.path.join(self.image_root, name)), self.named, chunksize=100)
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
    """The file of an image, or None if the row itself holds the image. Raises BadRow for a URL or anything else."""
    if isinstance(image, Image.Image) or (isinstance(image, dict) and image.get("bytes")):
        return None
    path = image.get("path") if isinstance(image, dict) else image
    if not isinstance(path, str):
        raise BadRow("field is not what it should be", f"an image is not a path or bytes: {short(image)}")
    if re.match(r"https?://", path):
        raise BadRow("image is a URL", f"the image {short(path)} is a URL", "download the images first")
    return os.path.join(image_root, path)


def open_image(image: object, image_root: str = "", picture_roots: Sequence[str] = ()) -> Image.Image:
    """An image (a path, {bytes, path} or a PIL image) as RGB: upright by its EXIF tag, transparency on white.

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
        with io.BytesIO(image["bytes"]) if path is None else io.BufferedReader(open_regular(path)) as file:
            return _as_rgb(Image.open(file, formats=IMAGE_FORMATS), name)
    except BadRow:
        raise
    except Exception as error:  # decoders raise nearly anything for damaged files: struct.error, SyntaxError ...
        reason = "image missing" if isinstance(error, FileNotFoundError) else "image unreadable"
        what = str(error).partition(" <_io.")[0]  # the path stands in front already
        raise BadRow(reason, f"image {name}: {type(error).__name__}: {short(what)}") from None


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
    scale = 257 if is_deep and max(np.asarray(image.crop(strip)).max() for strip in strips) > 255 else 1
    page = Image.new("RGB", image.size)
    for box in strips:
        strip = image.crop(box)
        if is_deep:
            levels = np.asarray(strip, dtype=np.float64)
            strip = Image.fromarray((levels / scale).clip(0, 255).astype(np.uint8))
        if strip.has_transparency_data:
            strip = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
        page.paste(strip.convert("RGB"), box)
    return page
