"""Files that are there in full or not at all, and told apart from earlier ones."""

import hashlib
import json
import os
import re
import secrets
from itertools import chain, islice
from typing import Any, BinaryIO

import errors  # noqa: F401  (before fcntl)
import fcntl

LEFTOVER = re.compile(r"\.(?:png|jpg|jsonl?|html|md)\.\d+\.tmp$")  # of write_atomically


def write_atomically(path: str | os.PathLike, data: bytes | str, durable: bool = True) -> None:
    """Write a file so that it is there in full or not at all, also when the disk fills up or the process dies.

    Text is written as UTF-8; lone surrogates, which a model's answer may hold, become '?'. durable: wait for the disk.

    Raises:
        OSError: it could not be written; `filename` is `path`.
    """
    path = os.fspath(path)
    temporary = f"{path}.{secrets.randbits(64)}.tmp"  # no number of a process: two machines may have the same
    try:
        with _held(temporary) as file:
            file.write(data.encode("utf-8", errors="replace") if isinstance(data, str) else data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            os.replace(temporary, path)  # still held: nobody takes it for a leftover
    except BaseException as error:
        if os.path.exists(temporary):
            os.remove(temporary)
        if isinstance(error, OSError):
            error.filename = path
        raise


def _held(temporary: str) -> BinaryIO:
    """A new file that is locked for as long as its writer lives, where the file system knows locks."""
    while True:
        file = open(temporary, "wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            return file
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # remove_leftovers was here between the two calls


def remove_leftovers(out: str, parts: str) -> None:
    """Remove what killed writers left of write_atomically's files in `out`, its folder `parts` and its pictures.

    What a living writer holds stays, and so does what cannot be locked: whether its writer lives is not to be known.
    """
    inside = [os.walk(os.path.join(out, "pictures")), os.walk(os.path.join(out, parts)), islice(os.walk(out), 1)]
    for folder, _, names in chain.from_iterable(inside):
        for name in filter(LEFTOVER.search, names):
            path = os.path.join(folder, name)
            try:
                with open(path, "r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.remove(path)
            except OSError:  # held, or gone by now
                continue


def read_json(path: str | os.PathLike) -> Any:
    """The value of a JSON file."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def fingerprint(facts: Any) -> str:
    """sha256 of facts as canonical JSON: equal exactly where they are."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def file_ends(path: str | os.PathLike) -> bytes:
    """A file's first and last MiB: what tells versions of gigabytes apart, cheaply."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(1 << 20)
        file.seek(max(0, size - (1 << 20)))
        return start + file.read()


def num_cores() -> int:
    """Cores that this process may use; all of the machine's where the system does not tell (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
