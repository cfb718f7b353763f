"""Every file that people keep rows in, as a stream in constant memory: JSON, parquet, arrow, webdataset tars, folders,
data sets of the Hugging Face hub.

    for number, row in rows("train.parquet"): ...    # row: a dict, or a BadRow that says what is wrong with it
    count("train.parquet")                           # how many; parsed only where the file does not tell
    for piece in pieces("train.parquet"): ...        # rows in thousands, unparsed, for worker processes
"""

import codecs
import gzip
import io
import itertools
import json
import os
import re
import sys
import tarfile
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from errors import UserError
from sources import BadRow, parse_row

MAX_ROW = 64_000_000  # characters of one row of JSON; a file with a longer one is taken for damaged
PIECE_ROWS, PIECE_BYTES = 4096, 16 << 20  # a piece is full at either
BATCH_BYTES = 2 << 20  # what is read of a parquet file at a time
SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".tar")
PICTURES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm")  # suffixes, in a .tar
AS_JSON_LINES = "write its rows as JSON lines, say with pandas: frame.to_json(path, orient='records', lines=True)"
REMEDIES = {
    **dict.fromkeys((".zip", ".7z", ".rar", ".xz", ".bz2", ".zst", ".tgz", ".tar.gz", ".parquet.gz", ".arrow.gz"),
                    "unpack it and name what it holds"),
    **dict.fromkeys((".csv", ".tsv", ".xls", ".xlsx", ".txt", ".yaml", ".feather", ".xml"), AS_JSON_LINES),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".npy", ".npz"), f"a pickle may run any code; {AS_JSON_LINES}")
}
CONTENTS = (  # of a file that is not what its name says
    (b"version https://git-lfs", "a pointer to a file in Git LFS", "fetch the file itself: git lfs pull"),
    (b"PK\x03\x04", "a zip archive", "unpack it and name what it holds"), (b"PAR1", "parquet", "name it .parquet"),
    (b"\x1f\x8b", "gzipped", "name it .gz"), (b"<", "a web page or XML", "download the file itself"),
    *((mark, "UTF-16 or UTF-32 text", "convert it: iconv -f UTF-16 -t UTF-8") for mark in
      (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"[\0", b"{\0", b"\0[", b"\0{", codecs.BOM_UTF32_BE)),
)
# Keys of what is a row itself, whatever lists of objects it holds.
ROW_KEYS = {"question", "query", "problem", "instruction", "prompt", "conversations", "conversation", "messages",
            "texts", "turns", "output", "response", "completion", "answer", "solution", "strong", "weak", "text_en"}
# Lists of objects that belong to one row; under another key such a list holds rows.
OF_ONE_ROW = {"conversations", "conversation", "messages", "turns", "texts", "content", "prompt", "completion",
              "history", "images", "image", "choices", "options", "tools", "chosen", "rejected", "steps"}
EVALUATION = {"test", "testmini", "validation", "valid", "val", "dev", "eval"}  # splits that nobody means to train on
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(?::[A-Za-z_]\w*)?")


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of one file, unparsed: cheap to send to another process. Its numbers count on over the files of
    a folder; `before` of them are in the files before."""

    file: str
    before: int
    numbers: list[int]
    content: list | bytes  # rows and texts of rows in JSON; or an Arrow stream

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self) -> Iterator[tuple[int, dict | BadRow]]:
        """The rows with their numbers, as `rows` gives them."""
        if isinstance(self.content, bytes):
            return zip(self.numbers, _table_rows(self.content), strict=True)
        return ((number, parse_row(row) if isinstance(row, bytes) else row)
                for number, row in zip(self.numbers, self.content, strict=True))

    def place(self, number: int) -> str:
        """FILE:NUMBER of a row, as messages show it."""
        return f"{self.file}:{number - self.before}"


def rows(path: str) -> Iterator[tuple[int, dict | BadRow]]:
    """The rows of a file, a folder or a data set of the hub, numbered from 1: by line where a line is a row.

    Embedded pictures come as the file has them ({bytes, path} or bytes), those of a .tar as places in it: {file,
    offset, length}. Raises UserError for what cannot be read at all.
    """
    for piece in pieces(path):
        yield from piece.rows()


def count(path: str) -> int:
    """How many rows `rows` gives. Raises UserError."""
    return sum(_count(file) for file in files(path)[0])


def pieces(path: str, wanted: Iterator[bool] | None = None) -> Iterator[Piece]:
    """The rows in pieces, the same ones at every call. wanted: of each row, whether it is; None: all. Raises UserError.

    Says on stderr which splits of a folder are left out.
    """
    names, left_out = files(path)
    if left_out:
        print(f"{path}: {left_out}", file=sys.stderr, flush=True)
    wanted = itertools.repeat(True) if wanted is None else wanted
    before = 0
    for file in names:
        with told(file):
            if _kind(file) in (".parquet", ".arrow", ".tar"):
                with open(file, "rb") as stream:
                    start = stream.read(64)
                _check_start(file, b"" if start.startswith(b"PAR1") else start)
            if _kind(file) in (".parquet", ".arrow"):
                before = yield from _pieces_of_table(file, before, wanted)
            else:
                before = yield from _pieces_of_rows(file, before, wanted)


def size(path: str) -> float:
    """Bytes of all rows and the pictures that lie among them, roughly and at once; NaN for a data set of the hub."""
    return sum(_size(file) for file in files(path)[0])


def cut_off(path: str, reason: object) -> UserError:
    """The error for a file that cannot be read to its end."""
    return UserError(f"{path}: cannot be read to its end ({reason}); download or make the file again")


@contextmanager
def told(file: str) -> Iterator[None]:
    """Turn what reading `file` raises into a UserError."""
    try:
        yield
    except PermissionError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); allow it, or take it out of --data") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: cannot be read to its end ({error}); convert it to UTF-8") from None
    except Exception as error:
        damaged = isinstance(error, OSError | EOFError | zlib.error | tarfile.TarError)
        if not damaged and type(error).__module__ != "pyarrow.lib":
            raise
        raise cut_off(file, str(error).partition("\n")[0]) from None


# ----------------------------------------------------------------------------------------------------------------------
# Files and folders


def files(path: str) -> tuple[list[str], str]:
    """The files that hold the rows of `path`, sorted (a hub name is its own file), and what to say of those left out.

    Raises UserError for what is not there or cannot hold rows.
    """
    if os.path.isdir(path):
        return _files_of_folder(path)
    if is_hub_name(path):
        return [path], ""
    if not os.path.isfile(path):
        what = "not a regular file" if os.path.exists(path) else "no such file"
        raise UserError(f"{path}: {what}; check --data (on several machines: on each of them)")
    if os.path.getsize(path) == 0:
        raise UserError(f"{path}: the file is empty; remove it from --data or make it again")
    _kind(path)
    return [path], ""


def is_hub_name(path: str) -> bool:
    """Whether this names a data set of the hub, "org/name" or "org/name:split", and no file here."""
    return bool(HUB_NAME.fullmatch(path)) and not os.path.exists(path) and not path.lower().endswith(
        (*SUFFIXES, ".gz", *REMEDIES))


def _kind(file: str) -> str:
    """The suffix that tells how a file is read, without .gz; "" for a hub name. Raises UserError."""
    if is_hub_name(file):
        return ""
    name = os.path.basename(file).lower()
    if remedy := next((REMEDIES[suffix] for suffix in REMEDIES if name.endswith(suffix)), ""):
        raise UserError(f"{file}: files of this kind are not read; {remedy}")
    suffix = os.path.splitext(name.removesuffix(".gz"))[1]
    if suffix not in SUFFIXES:
        raise UserError(f"{file}: unknown file type {suffix or '(none)'!r}; {', '.join(SUFFIXES)} are read, "
                        "those of JSON also as .gz")
    return suffix


def _files_of_folder(folder: str) -> tuple[list[str], str]:
    """The data files of a folder: of datasets.save_to_disk, a snapshot of the hub, or just a folder of files."""
    with told(folder):
        if os.path.exists(os.path.join(folder, "dataset_dict.json")):
            splits = _field(folder, "dataset_dict.json", "splits")
            if "train" not in splits:
                raise UserError(f"{folder}: no split is named train, only {', '.join(splits)}; name the folder of the "
                                "one to train on")
            rest = [split for split in splits if split != "train"]
            said = f"reads the split train; left out: {', '.join(rest)}" if rest else ""
            return _files_of_folder(os.path.join(folder, "train"))[0], said
        if all(os.path.exists(os.path.join(folder, name)) for name in ("state.json", "dataset_info.json")):
            names = [item["filename"] for item in _field(folder, "state.json", "_data_files")]
        else:
            names = _data_files(folder)
    below = [name for name in names if os.sep in name] if any(os.sep not in name for name in names) else []
    names = [name for name in names if name not in below]
    by_split: dict[str, list[str]] = {}
    for name in names:
        by_split.setdefault(_split_of(name), []).append(name)
    training = "train" if "train" in by_split else ""
    if names and training not in by_split:
        raise UserError(f"{folder}: holds {', '.join(by_split)} and no split to train on; name a file of it if it is")
    chosen = by_split.get(training, [])
    if not chosen:
        raise UserError(f"{folder}: no data file in this folder; {', '.join(SUFFIXES)} are read")
    stems = [re.sub(r"\.\w+(\.gz)?$", "", name) for name in chosen]
    if twice := next((stem for stem in stems if stems.count(stem) > 1), ""):
        raise UserError(f"{folder}: {twice} is there as more than one kind of file; name the one to read")
    said = ""
    if rest := [name for name in names if name not in chosen] + below:
        shown = ", ".join(rest[:5]) + (f" and {len(rest) - 5} more" if len(rest) > 5 else "")
        said = f"reads {len(chosen)} files{' of the split train' if training else ''}; left out: {shown}"
    paths = [os.path.join(folder, name) for name in chosen]
    for path in paths:
        files(path)  # there, and not empty
    return paths, said


def _field(folder: str, name: str, key: str) -> list:
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        try:
            return json.load(file)[key]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file.name}: damaged ({type(error).__name__}: {error}); make the folder again") from None


def _data_files(folder: str) -> list[str]:
    """Names of the data files in a folder and below it."""
    about = re.compile(r"(?i)dataset_infos?\.json|config\.json|state\.json|\..*")
    found = []
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if name.lower().removesuffix(".gz").endswith(SUFFIXES) and not about.fullmatch(name):
                found.append(os.path.relpath(os.path.join(place, name), folder))
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _split_of(name: str) -> str:
    """ "train", a split of EVALUATION, or "" for a path that names none."""
    for part in reversed(name.lower().split(os.sep)):  # a subset may be called "geometry(val)/train-00000.parquet"
        for word in re.split(r"[^a-z]+", part):
            if word == "train" or word in EVALUATION:
                return word
    return ""


# ----------------------------------------------------------------------------------------------------------------------
# Row by row: JSON, tar, hub


def _pieces_of_rows(file: str, before: int, wanted: Iterator[bool]) -> Generator[Piece, None, int]:
    """Pieces of a file that is read row by row. Returns the number of its last row, on top of `before`."""
    number, numbers, content, weight = 0, [], [], 0
    for number, row in _rows_of(file):
        if not next(wanted):
            continue
        numbers.append(before + number)
        content.append(row)
        weight += _weight(row)
        if len(content) == PIECE_ROWS or weight >= PIECE_BYTES:
            yield Piece(file, before, numbers, content)
            numbers, content, weight = [], [], 0
    if content:
        yield Piece(file, before, numbers, content)
    return before + number


def _rows_of(file: str) -> Iterator[tuple[int, bytes | dict | BadRow]]:
    """The rows of a file, in JSON still as text."""
    return {"": _hub_rows, ".tar": _tar_rows}.get(_kind(file), _json_rows)(file)


def _weight(value: object) -> int:
    if isinstance(value, dict | list):
        return sum(map(_weight, value.values() if isinstance(value, dict) else value), 64)
    return len(value) if isinstance(value, bytes | str) else 8


def _open(file: str) -> io.BufferedIOBase:
    return gzip.open(file, "rb") if file.lower().endswith(".gz") else open(file, "rb", 1 << 20)


def _json_rows(file: str) -> Iterator[tuple[int, bytes | BadRow]]:
    with _open(file) as stream:
        _check_start(file, stream.read(64))
        stream.seek(0)
        lines = _holds_lines(stream, _kind(file))
        stream.seek(0)
        yield from _lines(stream) if lines else _values(_Window(stream), file)


def _check_start(file: str, start: bytes) -> None:
    for mark, what, remedy in CONTENTS:
        if start.lstrip().startswith(mark):
            raise UserError(f"{file}: the file is {what}; {remedy}")


def _holds_lines(stream: io.BufferedIOBase, kind: str) -> bool:
    """Whether each line is a row; else rows stand in JSON values of any layout."""
    first = stream.readline(MAX_ROW).removeprefix(codecs.BOM_UTF8).strip()
    if kind != ".json":
        return first != b"{" and not first.startswith(b"[")
    if not first.startswith(b"{") or len(first) == MAX_ROW or not stream.read(1 << 16).strip():
        return False  # a line alone may hold many rows
    row = parse_row(first)
    return isinstance(row, dict) and (_is_row(row) or not any(
        isinstance(value, list) and value and _are_rows(key, value[0]) for key, value in row.items()))


def _lines(stream: io.BufferedIOBase) -> Iterator[tuple[int, bytes | BadRow]]:
    number = 0
    while line := stream.readline(MAX_ROW):
        number += 1
        if len(line) == MAX_ROW and not line.endswith(b"\n"):
            while (rest := stream.readline(MAX_ROW)) and not rest.endswith(b"\n"):
                pass
            yield number, BadRow("row too long", f"the line is longer than {MAX_ROW:,} bytes")
        elif not line.isspace():
            yield number, line


def _values(text: "_Window", file: str) -> Iterator[tuple[int, bytes | BadRow]]:
    """The rows in the JSON values of a file, one after another: lists of rows, objects of rows, rows."""
    number = 0
    try:
        while mark := text.skip_space():
            if mark not in "[{":
                if not number:
                    raise UserError(f"{file}: a .json file is a list of rows or an object of rows; this one starts "
                                    f"with {mark!r}")
                yield number + 1, BadRow("the file goes on after its rows",
                                         f"after the first value's end there stands {mark!r}", "repair the file")
                return
            for row in _list(text) if mark == "[" else _object(text, file):
                number += 1
                yield number, row
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        detail = f"the file is not JSON from here on ({error}); rows before this one are whole"
        yield number + 1, BadRow("broken JSON, rest of the file unread", detail, "repair the file")


def _list(text: "_Window") -> Iterator[bytes]:
    """The elements of the list that the text stands at."""
    text.advance(1)
    mark = text.skip_space()
    while mark != "]":
        yield text.decode()
        mark = text.skip_space()
        if mark == ",":
            text.advance(1)
            mark = text.skip_space()
    text.advance(1)


def _object(text: "_Window", file: str) -> Iterator[bytes]:
    """The rows in the object that the text stands at: rows by their ids; a list of rows under one key, with what is
    said of all of them beside it; or the object is a row itself.
    """
    head: list[tuple[str, bytes]] = []  # as long as it is not clear which
    by_id, under, left_out, length = False, "", "", 0
    try:
        for key in _keys(text):
            mark = text.skip_space()
            if by_id:
                yield text.decode()
                continue
            if under and _is_row([key]):
                raise UserError(f"{file}: {key!r} stands beside the rows under {under!r}; make a list of the rows")
            if mark == "[":
                elements = _list(text)
                first = next(elements, b"")
                if first and not _is_row(name for name, _ in head) and _are_rows(key, json.loads(first)):
                    if key.lower() in EVALUATION:
                        left_out = key
                        for _ in elements:
                            pass
                        continue
                    if under:
                        raise UserError(f"{file}: rows stand under {under!r} and under {key!r}; make a file of each")
                    under = key
                    yield first
                    yield from elements
                    continue
                raw = b"[" + b",".join([first, *elements]) + b"]"
            else:
                raw = text.decode()
            head.append((key, raw))
            length += len(raw)
            if length > MAX_ROW:
                raise ValueError(f"an object of more than {MAX_ROW:,} characters that is no row")
            by_id = not under and len(head) == 16 and _all_objects(head)
            if by_id:
                yield from (raw for _, raw in head)
    except (ValueError, RecursionError):
        if not by_id and not under and _all_objects(head):
            yield from (raw for _, raw in head)  # they are whole
        raise
    if left_out:
        if not under:
            raise UserError(f"{file}: its rows stand under {left_out!r}; make a file of them if they are for training")
        print(f"{file}: reads the rows under {under!r}; left out: {left_out!r}", file=sys.stderr, flush=True)
    if by_id or under:
        return
    if head and _all_objects(head):
        yield from (raw for _, raw in head)
    else:
        yield b"{" + b",".join(json.dumps(key).encode() + b":" + raw for key, raw in head) + b"}"


def _keys(text: "_Window") -> Iterator[str]:
    """The keys of the object that the text stands at; at each, the text stands before the value, which the caller
    takes."""
    text.advance(1)
    mark = text.skip_space()
    while mark != "}":
        key = json.loads(text.decode())
        if not isinstance(key, str) or text.skip_space() != ":":
            raise ValueError("a key or a colon is missing")
        text.advance(1)
        yield key
        mark = text.skip_space()
        if mark == ",":
            text.advance(1)
            mark = text.skip_space()
    text.advance(1)


def _all_objects(head: list[tuple[str, bytes]]) -> bool:
    return all(raw.startswith(b"{") for _, raw in head)


def _is_row(keys: Iterable[str]) -> bool:
    """Whether an object with these keys is a row itself: it asks or says something."""
    return not ROW_KEYS.isdisjoint(key.lower() for key in keys)


def _are_rows(key: str, first: object) -> bool:
    """Whether the list under `key` that begins so holds rows: objects that are no turns or parts of one row."""
    return key not in OF_ONE_ROW and isinstance(first, dict) and not first.keys() & {"role", "from"}


class _Window:
    """A sliding piece of a large UTF-8 text."""

    def __init__(self, file: io.BufferedIOBase):
        self.file, self.text, self.at, self.ended = file, "", 0, False
        self.utf8 = codecs.getincrementaldecoder("utf-8")()
        self.json = json.JSONDecoder()

    def more(self, size: int = 1 << 20) -> bool:
        """Let go of what was read and read on; False at the end."""
        piece = self.file.read(size)
        self.ended = not piece
        self.text = self.text[self.at :] + self.utf8.decode(piece, final=self.ended)
        self.at = 0
        return not self.ended

    def advance(self, count: int) -> None:
        """Step over characters."""
        self.at += count

    def skip_space(self) -> str:
        """The next character that is not white space (a byte order mark counts as such); "" at the end."""
        while True:
            self.at = re.compile(r"[\s\ufeff]*").match(self.text, self.at).end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def decode(self) -> bytes:
        """The JSON value here, as text. Reads on until it is complete. Raises ValueError, RecursionError."""
        size = 1 << 20
        while True:
            try:
                _, end = self.json.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:  # a number at the window's end may go on
                    break
            except ValueError:
                if self.ended or len(self.text) - self.at > MAX_ROW:
                    raise
            self.more(size)
            size *= 2
        raw, self.at = self.text[self.at : end].encode(), end
        return raw


def _tar_rows(file: str) -> Iterator[tuple[int, dict | BadRow]]:
    """A webdataset: neighbouring members of one name, up to its first dot, are a row. Nothing is unpacked."""
    number, last, row, pictures = 0, None, {}, []
    with tarfile.open(file, "r:") as tar:
        while member := tar.next():
            tar.members.clear()  # it would keep them all
            folder, name = os.path.split(member.name)
            stem, _, kind = name.partition(".")
            if member.isdir() or not stem:  # hidden: what macOS adds
                continue
            if (folder, stem) != last:
                if last:
                    number += 1
                    yield number, _with_pictures(row, pictures)
                last, row, pictures = (folder, stem), {"id": os.path.join(folder, stem)}, []
            if isinstance(row, dict):
                try:
                    _add_member(row, pictures, tar, member, kind)
                except BadRow as error:
                    row = error
        if last:
            yield number + 1, _with_pictures(row, pictures)
        tar.fileobj.seek(tar.offset)  # tarfile takes any damage between two members for the end
        if len(rest := tar.fileobj.read(1 << 16)) < 512 or any(rest):
            raise cut_off(file, "no end mark after the last member")


def _add_member(row: dict, pictures: list[tuple[str, dict]], tar: tarfile.TarFile, member: tarfile.TarInfo,
                kind: str) -> None:
    """Put a member of a webdataset into its row, or among the pictures. kind: its name from the first dot, as "json" or
    "question.txt". Raises BadRow.
    """
    name, _, suffix = kind.rpartition(".")
    suffix = suffix.lower()
    if not member.isreg() or member.issparse():
        raise BadRow("a link in a tar", f"{member.name} is a link, a device or sparse", "put the file itself there")
    if suffix in PICTURES:
        place = {"file": os.path.abspath(tar.name), "offset": member.offset_data, "length": member.size}
        pictures.append((member.name, place))
        return
    if suffix not in ("json", "txt", "text", "cls"):
        raise BadRow("a member of unknown kind", f"{member.name} is neither .json, .txt nor a picture",
                     "take it out, or pass --skip_bad_rows")
    if member.size > MAX_ROW:
        raise BadRow("row too long", f"{member.name} has {member.size:,} bytes, at most {MAX_ROW:,}")
    try:
        text = tar.extractfile(member).read().decode("utf-8-sig")
        value = json.loads(text) if suffix == "json" else text
    except (ValueError, RecursionError) as error:
        raise BadRow("broken JSON" if suffix == "json" else "broken text", f"{member.name}: {error}") from None
    if suffix == "json" and not name:
        if not isinstance(value, dict):
            raise BadRow("not a row", f"{member.name} is {type(value).__name__}, no object with keys")
        row.update(value)
    else:
        row[name or suffix.replace("txt", "text")] = value


def _with_pictures(row: dict | BadRow, pictures: list[tuple[str, dict]]) -> dict | BadRow:
    """A webdataset's row with its pictures under `image` or `images`, in place of their names in its .json.

    pictures: (name of the member, its place) each. Several come in the order in which the .json names them, or, without
    their names, in that of their numbers: a tar has 10 before 2.
    """
    if isinstance(row, BadRow) or not pictures:
        return row
    numbers = [[int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)] for name, _ in pictures]
    places = [place for _, (_, place) in sorted(zip(numbers, pictures, strict=True), key=lambda pair: pair[0])]
    for key in ("image", "images"):
        named = row.pop(key, None) or []
        named = named if isinstance(named, list) else [named]
        if named and len(named) != len(pictures):
            return BadRow("pictures and members differ", f"{key!r} in {row['id']}.json names {len(named)}, the tar has "
                          f"{len(pictures)}")
        if len(named) > 1:
            at = [[place for member, place in pictures if _of_name(member, name)] for name in named]
            if any(len(found) != 1 for found in at):
                return BadRow("pictures and members differ", f"{key!r} in {row['id']}.json names {named[:4]}, the tar "
                              f"has {[name for name, _ in pictures][:4]}")
            places = [place for [place] in at]
    return {**row, "image": places[0]} if len(places) == 1 else {**row, "images": places}


def _of_name(member: str, name: object) -> bool:
    """Whether a member "001.a.png" is the picture that a row calls "a.png", "x/a.png" or "001.a.png"."""
    name = os.path.basename(name) if isinstance(name, str) else ""
    return bool(name) and (os.path.basename(member) == name or os.path.basename(member).endswith("." + name))


def _hub_builder(name: str) -> tuple[object, str]:
    """The `datasets` builder of "org/name:split", and the split."""
    try:
        import datasets
    except ImportError:
        raise UserError(f"{name}: no such file; for a data set of the Hugging Face hub: pip install datasets") from None
    name, _, split = name.partition(":")
    try:
        return datasets.load_dataset_builder(name), split or "train"
    except Exception as error:  # of any library below it: HTTP, file systems, scripts
        raise _hub_error(name, error) from None


def _hub_error(name: str, error: Exception) -> UserError:
    what = " ".join(str(error).split())[:200]
    return UserError(f"{name}: no such file, and no data set of the hub that can be read ({type(error).__name__}: "
                     f"{what}); check the name, or download it and name its folder")


def _hub_rows(name: str) -> Iterator[tuple[int, dict]]:
    builder, split = _hub_builder(name)
    try:
        stream = builder.as_streaming_dataset(split=split)
        yield from enumerate(stream.decode(False) if stream.features else stream, 1)  # pictures as they are stored
    except Exception as error:
        raise _hub_error(name, error) from None


def hub_version(name: str) -> str:
    """What tells two versions of a data set of the hub apart."""
    return str(_hub_builder(name)[0].hash)


# ----------------------------------------------------------------------------------------------------------------------
# Tables: parquet and arrow


def _pieces_of_table(file: str, before: int, wanted: Iterator[bool]) -> Generator[Piece, None, int]:
    """Pieces of a table's batches, as Arrow streams. Returns the number of its last row, on top of `before`."""
    number, numbers, batches, weight = before, [], [], 0
    for batch in _batches(file):
        chosen = [index for index, want in zip(range(batch.num_rows), wanted) if want]  # noqa: B905  (wanted goes on)
        numbers += (number + 1 + index for index in chosen)
        number += batch.num_rows
        if len(chosen) < batch.num_rows:
            batch = batch.take(chosen) if chosen else batch.slice(0, 0)
        batches.append(batch)
        weight += batch.nbytes
        if len(numbers) >= PIECE_ROWS or weight >= PIECE_BYTES:
            yield Piece(file, before, numbers, _as_stream(batches))
            numbers, batches, weight = [], [], 0
    if numbers:
        yield Piece(file, before, numbers, _as_stream(batches))
    return number


def _as_stream(batches: list) -> bytes:
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _table_rows(stream: bytes) -> Iterator[dict | BadRow]:
    import pyarrow

    for batch in map(_plain_floats, pyarrow.ipc.open_stream(stream)):
        for start in range(0, batch.num_rows, 64):  # rows as Python objects are several times as large
            few = batch.slice(start, 64)
            try:
                yield from few.to_pylist()
            except (ValueError, OverflowError):  # text that is no UTF-8, a date beyond Python's
                yield from (_row_of(few.slice(index, 1)) for index in range(few.num_rows))


def _plain_floats(batch: object) -> object:
    """The batch with its columns of short floats as the shortest numbers that mean them: 0.1, not 0.10000000149."""
    import pyarrow

    for index, field in enumerate(batch.schema):
        if pyarrow.types.is_float32(field.type) or pyarrow.types.is_float16(field.type):
            shortest = [value and float(np.format_float_positional(np.float32(value), unique=True))
                        for value in batch.column(index).to_pylist()]
            doubles = pyarrow.array(shortest, pyarrow.float64())
            batch = batch.set_column(index, field.with_type(doubles.type), doubles)
    return batch


def _row_of(batch: object) -> dict | BadRow:
    try:
        return batch.to_pylist()[0]
    except (ValueError, OverflowError) as error:
        return BadRow("row unreadable", f"a value cannot be read ({error})")


def _batches(file: str) -> Iterator[object]:
    """The record batches of a table, of about BATCH_BYTES or less where the file allows it."""
    if _kind(file) == ".arrow":
        for batch in _arrow_batches(file):
            rows_at_a_time = max(1, BATCH_BYTES * batch.num_rows // max(1, batch.nbytes))
            yield from (batch.slice(start, rows_at_a_time) for start in range(0, batch.num_rows, rows_at_a_time))
        return
    parquet = _parquet_file(file)
    metadata = parquet.metadata
    row_bytes = _size(file) // max(1, metadata.num_rows) + 1
    yield from parquet.iter_batches(max(1, min(1024, BATCH_BYTES // row_bytes)), use_threads=False)


def _parquet_file(file: str) -> object:
    """An opened parquet file. With a buffer, pages are read as needed; without one, a row group's whole column is."""
    parquet = _pyarrow(file).parquet
    try:
        found = parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
    except Exception as error:
        if isinstance(error, PermissionError) or not isinstance(error, OSError | ValueError):
            raise
        raise UserError(f"{file}: not a parquet file ({str(error).splitlines()[0]}); download it again") from None
    _check_names(file, found.schema_arrow)
    return found


def _arrow_batches(file: str) -> Iterator[object]:
    """The record batches of an Arrow file in either format. Not mapped: a file that shrinks would kill the process."""
    pyarrow = _pyarrow(file)
    with pyarrow.OSFile(file) as source:
        if source.read(6) == b"ARROW1":
            reader = pyarrow.ipc.open_file(source)
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            source.seek(source.size() - 8)
            if source.read(8) != b"\xff\xff\xff\xff\0\0\0\0":
                raise cut_off(file, "no end mark of an Arrow stream")
            source.seek(0)
            batches = reader = pyarrow.ipc.open_stream(source)
        _check_names(file, reader.schema)
        for batch in batches:
            batch.validate(full=True)  # damage would end the process, not raise
            yield batch


def _check_names(file: str, schema: object) -> None:
    if twice := next((name for name in schema.names if schema.names.count(name) > 1), ""):
        raise UserError(f"{file}: two columns are named {twice!r}; rename one")


def _pyarrow(file: str) -> object:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{file}: reading {_kind(file)} needs one more package: pip install pyarrow") from None
    return pyarrow


# ----------------------------------------------------------------------------------------------------------------------
# How much there is


def _count(file: str) -> int:
    with told(file):
        kind = _kind(file)
        if kind == ".parquet":
            return _parquet_file(file).metadata.num_rows
        if kind == ".arrow":
            return sum(batch.num_rows for batch in _arrow_batches(file))
        if not kind:
            if (known := _hub_split(file)) is None or not known.num_examples:
                raise UserError(f"{file}: how many rows it has is not known; download it and name its folder")
            return known.num_examples
        return sum(1 for _ in _rows_of(file))


def _hub_split(name: str) -> object | None:
    builder, split = _hub_builder(name)
    return (builder.info.splits or {}).get(split)


def _size(file: str) -> float:
    with told(file):
        kind = _kind(file)
        if not kind:
            known = _hub_split(file)
            return known.num_bytes if known and known.num_bytes else float("nan")
        stored = os.path.getsize(file)
        if kind == ".parquet":
            metadata = _parquet_file(file).metadata
            return sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
        if file.lower().endswith(".gz"):
            with open(file, "rb") as packed, gzip.open(packed) as stream:
                length = len(stream.read(8 << 20))
                return stored * length / packed.tell()
        if kind == ".tar":  # its pictures stay where they are
            start = [row for _, row in itertools.islice(_tar_rows(file), 1000) if isinstance(row, dict)]
            texts, pictures = sum(map(_weight, start)), sum(map(_bytes_of_pictures, start))
            return stored * texts / max(1, texts + pictures)
        return stored


def _bytes_of_pictures(row: dict) -> int:
    """Of a webdataset's row, the bytes that lie in the .tar as pictures; others may be named by a path."""
    images = row.get("images") or row.get("image")
    places = images if isinstance(images, list) else [images]
    return sum(place["length"] for place in places if isinstance(place, dict) and type(place.get("length")) is int)
