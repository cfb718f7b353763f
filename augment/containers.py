"""Every container except JSON lines: .json (a list or an object of rows), .parquet, and anything gzipped.

Gzipped files cannot be read from the middle, so their rows are kept in memory, in compressed blocks.
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
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from errors import UserError
from sources import BadRow, Source, parse_row

MAX_ELEMENT_CHARS = 64_000_000  # one element of a .json array; a file with a larger one is treated as broken
ROWS_PER_BLOCK = (
    64  # rows in a block of a gzipped file: reading one row unpacks one block, which takes about a millisecond
)
LARGE_ROW_GROUP = 5_000  # parquet text files with larger row groups are kept in blocks: reading one row would be slow
PARQUET_BUFFER = 1 << 20  # bytes of a column per read
ROWS_PER_READ = 16  # rows of a parquet row group that are unpacked at a time on the way to the one wanted


@dataclass(eq=False)
class Container(Source):
    """A file that is not plain JSON lines. `blocks` holds its rows if they cannot be read in place."""

    kind: str = ""  # "jsonl", "json" or "parquet"
    gzipped: bool = False
    group_starts: list[int] = field(default_factory=list)  # parquet: the first row of every row group

    def scan(self) -> Iterator[tuple[int, int, int, dict | BadRow]]:
        """Every row, as Source.scan gives them; fills `blocks`, if the file needs them. Raises UserError.

        `offset` and `length` are bytes in a plain .json, otherwise the row's number from 0 and 0.
        """
        reader = {"jsonl": _scan_lines, "json": _scan_array, "parquet": _scan_parquet}[self.kind]
        block: list[bytes | dict] = []  # rows of JSON as text: one that is nested deeply can be parsed, but not pickled
        if self.blocks is not None:
            self.blocks.clear()
        index = 0
        try:
            for number, offset, length, raw, row in reader(self):
                if self.blocks is None:
                    yield number, offset, length, row
                    continue
                block.append(raw)
                if len(block) == ROWS_PER_BLOCK:
                    self.blocks.append(zlib.compress(pickle.dumps(block), 1))
                    block = []
                yield number, index, 0, row
                index += 1
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise cut_off(self.path, error) from None
        if block:
            self.blocks.append(zlib.compress(pickle.dumps(block), 1))

    def read_row(self, offset: int, length: int) -> dict | BadRow:
        """The row at a place that `scan` gave."""
        if self.blocks is not None:
            raw = _block(self.blocks[offset // ROWS_PER_BLOCK])[offset % ROWS_PER_BLOCK]
            return raw if isinstance(raw, dict) else parse_row(raw)
        return _parquet_row(self, offset) if self.kind == "parquet" else super().read_row(offset, length)


def cut_off(path: str, reason: object) -> UserError:
    """The error for a file that cannot be read to its end."""
    return UserError(f"{path}: cannot be read to its end ({reason}); download or make the file again")


def open_container(plain: Source) -> Source:
    """The Source for a file that is not .jsonl. Its kind follows from its name, for .json also from its first bytes.

    Raises UserError.
    """
    path, gzipped = plain.path, plain.path.endswith(".gz")
    suffix = Path(path[:-3] if gzipped else path).suffix.lower()
    if suffix not in (".json", ".jsonl", ".parquet"):
        raise UserError(
            f"{path}: unknown file type {suffix or '(none)'!r}; .json, .jsonl and .parquet are read, plain or .gz"
        )
    kind = suffix[1:]
    if kind == "json" and _looks_like_lines(path, gzipped):
        if not gzipped:
            return plain
        kind = "jsonl"
    source = Container(path, plain.image_root, plain.stamp, [] if gzipped else None, kind, gzipped)
    if kind == "parquet":
        metadata = _parquet_file(path, gzipped, source.stamp, os.getpid()).metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        source.group_starts = [0, *itertools.accumulate(sizes)]
        images = any(metadata.schema.column(index).path.endswith("bytes") for index in range(metadata.num_columns))
        if max(sizes, default=0) > LARGE_ROW_GROUP and not images:
            source.blocks = []
    return source


def _looks_like_lines(path: str, gzipped: bool) -> bool:
    """Whether a .json file holds one row per line, as many published sets do."""
    try:
        with _open_bytes(path, gzipped) as file:
            first = file.readline(MAX_ELEMENT_CHARS).strip()
            more = file.read(1)
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); allow it, or take it out of --data") from None
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


def _scan_lines(source: Container) -> Iterator[tuple[int, int, int, bytes, dict | BadRow]]:
    with gzip.open(source.path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, 0, 0, line, parse_row(line)


def _scan_array(source: Container) -> Iterator[tuple[int, int, int, bytes, dict | BadRow]]:
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
            yield number, offset, len(raw), raw, row if isinstance(row, dict) else parse_row(raw)  # a BadRow


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
        """The JSON value here: its byte offset, its bytes, itself. Reads on until the value is complete."""
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


def _scan_parquet(source: Container) -> Iterator[tuple[int, int, int, dict, dict]]:
    parquet = _parquet_file(source.path, source.gzipped, source.stamp, os.getpid())
    leaves = [parquet.schema.column(index).path for index in range(len(parquet.schema))]
    # The index does not unpack {bytes, path} columns: it needs to know only that they exist; they are most of a file.
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
    """`iter_batches`, with a UserError instead of whatever pyarrow raises for a damaged page."""
    import pyarrow

    try:
        yield from parquet.iter_batches(use_threads=False, **options)
    except (pyarrow.ArrowException, OSError) as error:
        raise cut_off(path, str(error).splitlines()[0]) from None


def _with_bytes(value: object) -> object:
    if isinstance(value, list):
        return [_with_bytes(item) for item in value]
    return value and {**value, "bytes": b"left in the file"}


@lru_cache(maxsize=64)
def _parquet_file(path: str, gzipped: bool, stamp: tuple[int, int, int], process: int) -> object:
    """A parquet file opened by this process: forked processes must not share their parent's file position."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path}: reading parquet needs one more package: pip install pyarrow") from None
    try:
        if not gzipped:
            # with a buffer, pages are read as needed; without one, a row group's whole column is read at once
            return pyarrow.parquet.ParquetFile(path, buffer_size=PARQUET_BUFFER, pre_buffer=False)
        with gzip.open(path) as file:
            return pyarrow.parquet.ParquetFile(pyarrow.BufferReader(file.read()))
    except (pyarrow.ArrowInvalid, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a parquet file ({str(error).splitlines()[0]}); download it again") from None


def _parquet_row(source: Container, number: int) -> dict | BadRow:
    """Row `number` of the file. Reads its row group from the start up to the row, with a few rows in memory at a time:
    groups of any size fit, and small ones (a hundred rows, as `datasets` writes images) are quick.
    """
    parquet = _parquet_file(source.path, False, source.stamp, os.getpid())
    source.check_unchanged(os.stat(source.path))
    group = bisect.bisect_right(source.group_starts, number) - 1
    left = number - source.group_starts[group]
    for batch in _parquet_batches(source.path, parquet, batch_size=ROWS_PER_READ, row_groups=[group]):
        if left < batch.num_rows:
            return batch.slice(left, 1).to_pylist()[0]
        left -= batch.num_rows
    return BadRow("row missing", f"row group {group} ends before row {number + 1}")


@lru_cache(maxsize=8)
def _block(block: bytes) -> list:
    return pickle.loads(zlib.decompress(block))


def rows(path: str) -> Iterator[tuple[int, dict | BadRow]]:
    """Every row of the file with its number."""
    from sources import open_source

    for number, _, _, row in open_source(path).scan():
        yield number, row
