"""One output folder by many processes: what gen_data.py and augment_data.py share. Free of torch.

A data set is made in shards, each a function of the plan alone. Ranks share them out, a rank's worker processes make
the lines of a shard in batches, its file appears when all of them are done, and the first rank joins the files in
order. So neither the number of workers nor of machines changes a byte, and the same command goes on where it stopped.

    OUT/FOLDER/plan.json        the plan that the folder was claimed for
    OUT/FOLDER/SHARD.jsonl      the lines of a finished shard
    OUT/NAME.jsonl, manifest.json   published once all shards are there
"""

import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.synchronize import Event

from tqdm import tqdm

from common.files import num_cores, read_json, write_atomically
from errors import UserError, run_main

PROCESSES = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")  # fork starts at once
GRACE = 5.0  # seconds in which a worker may end its batch's member after Ctrl-C; one may wait for a server for minutes
AHEAD = 3  # batches for each worker that are under way or wait: bounds what is read ahead of the work, hence memory


# ---------------------------------------------------------------------------------------------------------------------
# The program and its folder


def run(main: Callable[[], None]) -> None:
    """`errors.run_main` for a program that works in processes. A scheduler's SIGTERM ends it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _interrupt)
    run_main(main)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def ranks(workers: int) -> tuple[int, int, int]:
    """This process's rank, the number of ranks (torchrun's), and how many worker processes it has: `workers`, or where
    that is 0 its share of the cores.
    """
    if workers < 0:
        raise UserError(f"--workers {workers}: must be 0 or more")
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    return rank, world_size, workers or max(1, num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


@contextmanager
def told_in_one_line(out: str) -> Iterator[None]:
    """Turn an OSError into a UserError that names the file: a full disk, or one that cannot be written, is for the
    user to fix."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror}; fix it and run the same command again") from error


def claim(out: str, folder: str, plan: object) -> None:
    """Take OUT for a plan: a dataclass with a fingerprint() of all that decides the bytes.

    Raises:
        UserError: OUT cannot be written to, or holds another plan's data, which is the user's to clear.
    """
    try:
        os.makedirs(os.path.join(out, folder), exist_ok=True)
    except OSError as error:
        raise UserError(f"--out_dir {out}: {error.strerror}; name a folder that can be written to") from error
    path = os.path.join(out, folder, "plan.json")
    if not os.path.exists(path):
        write_atomically(path, json.dumps({"fingerprint": plan.fingerprint(), **asdict(plan)}, indent=1))
        return
    try:
        found = read_json(path)["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no plan of this program; delete {out} or choose another --out_dir") from error
    if found != plan.fingerprint():
        raise UserError(f"{out}: holds data made with other settings; delete it or choose another --out_dir")


# ---------------------------------------------------------------------------------------------------------------------
# Working


def work(batches: Iterable[tuple[str, list]], make: Callable[[str, list], list[str]], workers: int, bar: tqdm) -> None:
    """Make shards in `workers` processes: `make(shard's path, batch)` gives a batch's lines for the shard's file.

    The batches of one shard follow one another. Its file is written when all of them are done; an interrupted run
    loses the open shards at most. `bar` counts the batches' members.

    Raises:
        UserError: a worker process was killed. What `make` raises is raised here.
    """
    shards: dict[str, list[Future]] = {}  # the open ones, in order
    running: dict[Future, int] = {}  # batches under way, and how many members they have
    stop = PROCESSES.Event()

    def collect(limit: int, growing: str | None = None) -> None:
        """Write what is complete until at most `limit` batches are under way; `growing` may get further batches."""
        while True:
            for future in [future for future in running if future.done()]:
                future.result()
                bar.update(running.pop(future))
            for shard in [name for name, futures in shards.items()
                          if name != growing and running.keys().isdisjoint(futures)]:
                lines = [line for future in shards.pop(shard) for line in future.result()]
                write_atomically(shard, "".join(lines))
            if len(running) <= limit:
                return
            wait(running, return_when=FIRST_COMPLETED)

    with bar, ProcessPoolExecutor(workers, PROCESSES, _start_worker, (stop,)) as pool:
        try:
            for shard, batch in batches:
                future = pool.submit(make, shard, batch)
                shards.setdefault(shard, []).append(future)
                running[future] = len(batch)
                collect(AHEAD * workers, growing=shard)
            collect(0)
        except BrokenProcessPool as error:
            raise UserError("a worker process was killed, perhaps for memory; run the same command again "
                            "(finished shards are kept), with fewer --workers") from error
        except BaseException:
            stop.set()  # batches under way end at their next member
            raise
        finally:
            for future in running:
                future.cancel()


_stop: Event | None = None


def _start_worker(stop: Event) -> None:
    """A worker leaves Ctrl-C to the parent, which tells it through `stop`, and ends where the parent is killed: the
    pool's queue would let it wait for ever.
    """
    global _stop
    _stop = stop
    for ending in (_end_with_the_parent, _end_soon_after_stop):
        threading.Thread(target=ending, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_with_the_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _end_soon_after_stop() -> None:
    _stop.wait()
    time.sleep(GRACE)
    os._exit(1)


class Stopped(Exception):
    """The run was interrupted; this batch is left undone."""


def go_on() -> None:
    """Called by `make` between a batch's members; raises Stopped where the run is being interrupted."""
    if _stop is not None and _stop.is_set():
        raise Stopped


# ---------------------------------------------------------------------------------------------------------------------
# One data set


def wait_for(shards: Iterable[str]) -> None:
    """Wait until the other ranks have written these files too (all share the folder)."""
    missing = [path for path in shards if not os.path.exists(path)]
    if missing:
        print(f"waiting for {len(missing)} shards of other processes", flush=True)
    while missing:
        time.sleep(0.5)
        missing = [path for path in missing if not os.path.exists(path)]


class Output:
    """A JSON-lines file being joined, its rows counted and hashed."""

    def __init__(self, path: str):
        self.path, self.rows, self.digest = path, 0, hashlib.sha256()
        self.file = open(f"{path}.tmp", "wb")

    def write(self, line: bytes) -> None:
        self.file.write(line)
        self.digest.update(line)
        self.rows += 1


@contextmanager
def joined(out: str, *names: str) -> Iterator[list[Output]]:
    """Files of OUT to write to. They appear when all are complete; after an error none does."""
    outputs: list[Output] = []
    try:
        outputs += (Output(os.path.join(out, name)) for name in names)
        yield outputs
        for output in outputs:
            output.file.flush()
            os.fsync(output.file.fileno())
        for output in outputs:
            os.replace(output.file.name, output.path)
    finally:
        for output in outputs:
            if os.path.exists(output.file.name):
                os.remove(output.file.name)
        for output in outputs:  # may fail on a full disk
            output.file.close()


def write_manifest(out: str, manifest: dict) -> None:
    """OUT/manifest.json: the plan, the files' rows and sha256, and what was dropped."""
    write_atomically(os.path.join(out, "manifest.json"), json.dumps(manifest, indent=1, ensure_ascii=False))
