"""Any file that people have → rows.jsonl in the one form that the trainer reads, beside the pictures that lay in it.

    python -m augment.read --data train.parquet --out_dir data/prepared
    python -m augment.read --data qa.json:100k,org/name:train --out_dir data/prepared --skip_bad_rows

Each file gets a folder of its own, OUT/NAME-KEY: rows.jsonl (turns of text and pictures; augment/README.md), packs of
the pictures that were embedded (a row names file, offset and length), and manifest.json with what was read, dropped and
why. Picture files stay where they are; manifest.json says where their paths start. Of a share (qa.json:100k) only the
rows drawn are converted. KEY is made from the file's ends and size and from all settings, so the same command finds a
finished folder at once, and goes on with one that was interrupted. The training scripts run this by themselves for
files that are not in the one form; for large ones, run it by hand. The last line printed is the path of rows.jsonl.
"""

import argparse
import hashlib
import io
import itertools
import json
import math
import os
import random
import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial

from PIL import Image
from tqdm import tqdm

from augment import containers, dialects
from common import shards
from common.files import file_ends, fingerprint, read_json, write_atomically
from errors import UserError
import fcntl  # after errors.py, which tells why there is none
from benchmarks import benchmark_of
from sources import IMAGE_FORMATS, BadRow, WrongFile, parse_spec, rows_to_draw, short

ENCODER = json.JSONEncoder(ensure_ascii=False, default=str)
VERSION = 1  # of what is written for a row: a folder of another version is not found
MAX_WORKERS = 16  # unless --workers says otherwise: each holds some pieces of 16 MiB
NOT_THERE = "speaks of a figure that is not there"


@dataclass(frozen=True)
class Plan:
    """What decides the bytes of one folder. stamps: of each file, when it was written; not in the folder's key."""

    path: str
    amount: str
    image_root: str
    skip_bad_rows: bool
    drop_figure_text: bool
    source: str  # fingerprint of the file or files
    stamps: tuple[int, ...]

    def key(self) -> str:
        """The part of the folder's name that tells files and settings apart."""
        facts = {name: value for name, value in asdict(self).items() if name not in ("path", "stamps")}
        facts["image_root"] = self.image_root and os.path.realpath(self.image_root)
        return fingerprint([VERSION, facts])[:12]

    def fingerprint(self) -> str:
        """The same, for a folder that is being made: a file that was written again meanwhile is another."""
        return fingerprint([self.key(), self.stamps])


class Refused(UserError):
    """The file cannot be read with these settings: what was made of it is of no use."""


# ----------------------------------------------------------------------------------------------------------------------
# The command


def main() -> None:
    """Prepare each file of --data and print where its rows are.

    Raises:
        UserError: a flag, a file or a row is wrong, the result would be too large, or the disk is full.
    """
    arguments = parse_arguments()
    for path, amount in parse_files(arguments.data):
        with shards.told_in_one_line(arguments.out_dir):
            print(prepared(path, amount, arguments), flush=True)


def parse_arguments() -> argparse.Namespace:
    """The flags of the command line; argparse ends the program where they are malformed."""
    parser = argparse.ArgumentParser(prog="python -m augment.read", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", required=True, help='files, folders, hub names, with counts or shares: "a.json:100k,b.parquet:0.3"')
    add("--out_dir", required=True, help="folder in which each of them gets a folder")
    add("--image_root", default="", help="where the paths of pictures start (default: each file's own folder)")
    add("--skip_bad_rows", action="store_true", help="drop and count bad rows (default: the first ends the command)")
    add("--drop_figure_text", action="store_true", help=f"drop rows without a picture whose text {NOT_THERE}")
    add("--max_gb", type=float, default=math.inf, help="stop before a result that would be larger")
    add("--workers", type=int, default=0, help=f"processes (default: the CPU cores, at most {MAX_WORKERS})")
    return parser.parse_args()


def parse_files(spec: str) -> list[tuple[str, str]]:
    """[(path, amount)] of a --data; a hub name may have a split. Raises UserError."""
    parts = filter(None, map(str.strip, spec.split(",")))
    found = [(part, "") if containers.is_hub_name(part) else parse_spec(part)[0] for part in parts]
    return found or parse_spec(spec)  # says that there is none


def prepared(path: str, amount: str, arguments: argparse.Namespace) -> str:
    """The path of the rows.jsonl that holds a file's rows in the one form, made now unless it is there."""
    workers = min(shards.ranks(arguments.workers)[2], arguments.workers or MAX_WORKERS)
    plan = make_plan(path, amount, arguments)
    name = re.sub(r"[^\w.-]+", "_", os.path.basename(os.path.abspath(path)))[:60]
    folder = os.path.join(arguments.out_dir, f"{name}-{plan.key()}")
    if not finished(plan, folder):
        total = containers.count(path) if amount else 0
        check_room(plan, total, arguments)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out_dir {arguments.out_dir}: {error.strerror}; name a folder that can be written "
                            "to") from error
        with locked(folder):
            if not finished(plan, folder):
                convert(plan, folder, total, workers)
    return os.path.join(folder, "rows.jsonl")


def make_plan(path: str, amount: str, settings: argparse.Namespace | Plan) -> Plan:
    """The plan for one file as it is now. Raises UserError if it is not there."""
    source, stamps = [], []
    for file in containers.files(path)[0]:
        if os.path.exists(file):
            with containers.told(file):
                ends = hashlib.sha256(file_ends(file)).hexdigest()
            source.append([os.path.realpath(file), os.path.getsize(file), ends])
            stamps.append(os.stat(file).st_mtime_ns)
        else:
            source.append([file, containers.hub_version(file)])
    return Plan(path, amount, settings.image_root, settings.skip_bad_rows, settings.drop_figure_text,
                fingerprint(source), tuple(stamps))


def finished(plan: Plan, folder: str) -> bool:
    """Whether the folder is complete, and made from the file as it is now. Raises UserError if it was tampered with."""
    path = os.path.join(folder, "manifest.json")
    if not os.path.exists(path):
        return False
    try:
        manifest = read_json(path)
        made_from, sizes = tuple(manifest["stamps"]), manifest["bytes"]
        broken = next((name for name, size in sizes.items() if _size(os.path.join(folder, name)) != size), "")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a manifest of this program; delete {folder} and run again") from error
    if broken:
        raise UserError(f"{os.path.join(folder, broken)}: not as it was written; delete {folder} and run again")
    return made_from == plan.stamps


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else -1


def check_room(plan: Plan, total: int, arguments: argparse.Namespace) -> None:
    """Say how much disk the result needs. Raises UserError if that is more than --max_gb."""
    share = min(1.0, rows_to_draw(plan.amount, total) / max(1, total)) if plan.amount else 1.0
    need = containers.size(plan.path) * share / 1e9
    place = os.path.abspath(arguments.out_dir)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    free = shutil.disk_usage(place).free / 1e9
    needs = "of unknown size" if math.isnan(need) else f"about {need:.1f} GB" if need > 0.1 else "below 0.1 GB"
    say(f"{plan.path}: is read into {arguments.out_dir} ({needs}, up to twice that on the way; {free:.1f} GB free)")
    if arguments.max_gb < math.inf and not need <= arguments.max_gb:  # also where the size is NaN
        words = ["python", "-m", "augment.read", "--data", plan.path + (f":{plan.amount}" if plan.amount else ""),
                 "--out_dir", arguments.out_dir, *(["--image_root", plan.image_root] if plan.image_root else []),
                 *(["--skip_bad_rows"] if plan.skip_bad_rows else []),
                 *(["--drop_figure_text"] if plan.drop_figure_text else [])]
        raise UserError(f"{plan.path}: its prepared form is {needs}, and --max_gb is {arguments.max_gb:g}; run this by "
                        f"hand, then the same command again: {shlex.join(words)}")


def say(line: str) -> None:
    """A line for the user; stdout is for paths."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """One process at a time, of all hosts that see the folder. Go on where the file system knows no locks: each
    shard is whole or not there, whoever writes it.
    """
    with open(os.path.join(folder, "lock"), "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{folder}: another process is making it; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            say(f"{folder}: no lock on this file system ({error.strerror})")
        yield


# ----------------------------------------------------------------------------------------------------------------------
# One file


def convert(plan: Plan, folder: str, total: int, workers: int) -> None:
    """Work off the pieces that are not there yet, and join them. total: rows of the file, if a share is drawn."""
    try:
        _claim(plan, folder)
        wanted = draw(rows_to_draw(plan.amount, total), total, plan.path) if plan.amount else None
        bar = tqdm(unit=" rows", smoothing=0.02, disable=None)
        lengths = []
        starts: dict[str, int] = {}

        def missing() -> Iterator[tuple[str, containers.Piece]]:
            for number, piece in enumerate(containers.pieces(plan.path, wanted)):
                lengths.append(len(piece))
                starts.setdefault(piece.file, piece.before)
                if not os.path.exists(_part(folder, number)):
                    yield _part(folder, number), piece

        shards.work(missing(), partial(_lines_of_piece, plan, folder), workers, bar)
        if make_plan(plan.path, plan.amount, plan) != plan:
            raise Refused(f"{plan.path}: the file has changed while it was read; run the same command again")
        summarize(publish(plan, folder, lengths, starts))
    except Refused:
        _clear(folder, [])
        raise


def _claim(plan: Plan, folder: str) -> None:
    """Take over the pieces of an interrupted run; throw away those of a file that was written again meanwhile."""
    claimed = os.path.join(folder, "parts", "plan.json")
    try:
        kept = read_json(claimed)["fingerprint"] == plan.fingerprint()
    except (OSError, ValueError, KeyError, TypeError):
        kept = False
    if not kept:
        _clear(folder, [])
    shards.claim(folder, "parts", plan)


def _clear(folder: str, kept: list[str]) -> None:
    """Remove what is in the folder but the lock and the files to keep."""
    for entry in os.scandir(folder):
        if entry.name not in ("lock", *kept):
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.remove(entry.path)


def _part(folder: str, number: int) -> str:
    return os.path.join(folder, "parts", f"{number:06d}.jsonl")


def draw(chosen: int, total: int, name: str) -> Iterator[bool]:
    """Of `total` rows, one after another, whether it is among the `chosen` ones: a sample without a list of it."""
    rng = random.Random(os.path.basename(name))
    for left in range(total, 0, -1):
        take = rng.random() * left < chosen
        chosen -= take
        yield take
    yield from itertools.repeat(False)  # a file that has grown is found out at its end


def publish(plan: Plan, folder: str, lengths: list[int], starts: dict[str, int]) -> dict:
    """Join the pieces, of so many rows, into rows.jsonl; write the manifest, which is returned; remove the pieces.

    starts: of each file of a folder, the rows before it.

    Raises:
        Refused: no row is left, or rows are questions of a benchmark.
    """
    counts: Counter = Counter()
    first: dict[str, str] = {}
    with shards.joined(folder, "rows.jsonl") as (merged,):
        for number, length in enumerate(lengths):
            before = counts["rows read"]
            with open(_part(folder, number), "rb") as part:
                for line in part:
                    if line.startswith(b'{"counts"'):
                        told = json.loads(line)
                        counts.update(told["counts"])
                        first = told["first"] | first
                    else:
                        merged.write(line)
            if counts["rows read"] - before != length:  # an interrupted run had other versions of the packages
                raise Refused(f"{_part(folder, number)}: made of other rows; run the same command again")
        _check(plan, counts, first)
    names = [name for name in sorted(os.listdir(folder)) if name == "rows.jsonl" or name.endswith(".bin")]
    manifest = {
        "read_from": plan.path, "image_root": _image_root(plan), "amount": plan.amount, "version": VERSION,
        "sha256": merged.digest.hexdigest(), "counts": dict(sorted(counts.items())), "first": first,
        "files": [[os.path.relpath(file, plan.path), before] for file, before in starts.items()] if
                 os.path.isdir(plan.path) else [],
        "bytes": {name: os.path.getsize(os.path.join(folder, name)) for name in names}, "stamps": plan.stamps
    }
    shards.write_manifest(folder, manifest)
    _clear(folder, ["manifest.json", *names])
    return manifest


def _image_root(plan: Plan) -> str:
    """Where the paths of its pictures start: beside the file, in the folder, or as the user says."""
    own = plan.path if os.path.isdir(plan.path) else os.path.dirname(plan.path)
    return os.path.realpath(plan.image_root or own)


def _check(plan: Plan, counts: Counter, first: dict[str, str]) -> None:
    """Raise Refused where rows are a benchmark's questions, or none is left."""
    prefix = "dropped: a question of "
    known = {reason: count for reason, count in counts.items() if reason.startswith(prefix)}
    num_known, num_read = sum(known.values()), counts["rows read"]
    if known:
        found = "; ".join(f"{count:,} of {num_read:,} rows are questions of {reason.removeprefix(prefix)} (the first: "
                          f"{first[reason].split(': ')[0]})" for reason, count in known.items())
        if 2 * num_known > num_read:
            raise Refused(f"{plan.path}: {found}: an evaluation set, never train on it")
        if not plan.skip_bad_rows:
            raise Refused(f"{plan.path}: {found}; take them out, or pass --skip_bad_rows, which drops them")
    if not num_read and plan.amount:
        raise Refused(f"{plan.path}: the share {plan.amount} draws no row; ask for more")
    if not counts["rows written"]:
        why = "; ".join(f"{reason} {count:,} (the first: {first.get(reason, '')})" for reason, count in counts.items()
                        if reason.startswith("dropped"))
        raise Refused(f"{plan.path}: " + (f"no usable row: {why}" if why else "it holds no row; is it the right file?"))


def summarize(manifest: dict) -> None:
    """Say what was read and what was dropped, by reason."""
    counts = manifest["counts"]
    say(f"{manifest['read_from']}: {counts['rows written']:,} rows of {counts['rows read']:,} read")
    for reason, count in counts.items():
        if not reason.startswith("rows "):
            first = manifest["first"].get(reason)
            say(f"  {reason}: {count:,}" + (f" (the first: {first})" if first else ""))


# ----------------------------------------------------------------------------------------------------------------------
# One piece, in a worker process


class Pack:
    """Pictures on their way into one file."""

    def __init__(self, folder: str, number: int):
        self.folder, self.name = folder, f"pictures-{number:05d}.bin"
        self.data, self.places = bytearray(), {}

    def add(self, picture: bytes) -> dict:
        """The place of a picture. Several rows may show the same one."""
        if picture not in self.places:
            self.places[picture] = {"file": self.name, "offset": len(self.data), "length": len(picture)}
            self.data += picture
        return self.places[picture]

    def write(self) -> None:
        """Write the file, if there is anything for it."""
        if self.data:
            write_atomically(os.path.join(self.folder, self.name), self.data)


def _lines_of_piece(plan: Plan, folder: str, part: str, piece: containers.Piece) -> list[str]:
    """The lines of a piece's part file: its rows, and the counts as the last line. Writes the piece's pack."""
    counts: Counter = Counter()
    first: dict[str, str] = {}
    aside: Counter = Counter()
    pack = Pack(folder, int(os.path.basename(part).removesuffix(".jsonl")))
    root = _image_root(plan)
    beside = os.path.relpath(os.path.dirname(os.path.realpath(piece.file)), root) if not plan.image_root else "."
    lines = []
    for number, row in piece.rows():
        shards.go_on()
        counts["rows read"] += 1
        place = os.path.basename(piece.place(number))
        try:
            if isinstance(row, BadRow):
                raise row
            row = dialects.normalise(row, aside)
            reason = _why_not(row)
            if reason == NOT_THERE and not plan.drop_figure_text:
                counts[reason] += 1
                first.setdefault(reason, place)
                reason = ""
            if not reason:
                lines.append(_line({"row": 0} | row | {"row": number}, pack, root, beside))
        except BadRow as error:
            ends = not plan.skip_bad_rows and error.reason != dialects.LONG_TEXT  # --max_length drops such rows too
            if isinstance(error, WrongFile) or ends:
                raise Refused(f"{piece.place(number)}: {error.detail}; {error.remedy}") from None
            reason, place = error.reason, f"{place}: {error.detail}"
        if reason:
            counts[f"dropped: {reason}"] += 1
            first.setdefault(f"dropped: {reason}", place)
    counts["rows written"] = len(lines)
    counts.update({f"texts that are not trained on, under {key[:60]!r}": number for key, number in aside.items()})
    pack.write()
    return [f"{line}\n" for line in (*lines, json.dumps({"counts": counts, "first": first}))]


def _turns(row: dict) -> list[dict]:
    """The turns of a row, of both sides if it is a pair."""
    return row["turns"] if "turns" in row else row["strong"]["turns"] + row["weak"]["turns"]


def _pictures(row: dict) -> list[dict]:
    """The parts of a row that are pictures."""
    return [part for turn in _turns(row) for part in turn["content"] if "image" in part]


def _why_not(row: dict) -> str:
    """Why a row may not be trained on, or NOT_THERE, or ""."""
    asked = [" ".join(part["text"].strip() for part in turn["content"] if "text" in part)
             for turn in _turns(row) if turn["role"] == "user"]
    if benchmark := next(filter(None, map(benchmark_of, asked)), None):
        return f"a question of {benchmark}"
    return NOT_THERE if not _pictures(row) and any(map(dialects.speaks_of_figure, asked)) else ""


def _line(row: dict, pack: Pack, root: str, beside: str) -> str:
    """A row as it is written, its pictures as paths from `root` or places in packs and tars. Raises BadRow.

    beside: the folder of the row's file from `root`; a path may also start there.
    """
    pictures = _pictures(row)
    for part in pictures:
        if isinstance(part["image"], bytes):
            _check_picture(part["image"])
    for part in pictures:  # now that all are known to be good
        image = part["image"]
        if isinstance(image, bytes):
            part["image"] = pack.add(image)
        elif isinstance(image, str) and beside != "." and os.path.exists(os.path.join(root, beside, image)):
            part["image"] = os.path.normpath(os.path.join(beside, image))
    line = ENCODER.encode(row)
    try:
        line.encode()
    except UnicodeEncodeError:
        raise BadRow("not Unicode", "a text holds half of a surrogate pair") from None
    return line


def _check_picture(picture: bytes) -> None:
    """Raise BadRow unless these bytes begin like a picture; whether they are whole is seen when it is shown."""
    try:
        Image.open(io.BytesIO(picture), formats=IMAGE_FORMATS).close()
    except Exception as error:  # decoders raise nearly anything
        what = short(str(error).partition(" <_io.")[0])
        raise BadRow("image unreadable", f"an embedded picture: {type(error).__name__}: {what}") from None


if __name__ == "__main__":
    shards.run(main)
