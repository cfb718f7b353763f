"""From source files to one training file: rows in blocks, blocks by many processes, one after another in the result.

A block is BLOCK consecutive rows. Its part file is written when all its pictures are, by the process that worked on
it, so what is there is whole. Every process reads the sources by itself, as a stream, and picks the blocks that are
its own.
"""

import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from multiprocessing.synchronize import Event as EventType

from tqdm import tqdm

from augment.recipe import (VERSION, Dropped, Plan, avoided, explain, read_examples, reword, vary, write_rows)
from augment.rephrase import num_reasoning_words
from errors import UserError
from llm import Client
from files import write_atomically
from sources import BadRow, open_source, rows_to_draw

BLOCK = 256


def claim(plan: Plan, out: str) -> None:
    """Take the folder for this plan; a folder that holds another plan's data is the user's to clear."""
    folder = os.path.join(out, "parts")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "plan.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            if json.load(file)["fingerprint"] != plan.fingerprint():
                raise UserError(f"{out}: holds data made with other settings; delete it or choose another --out_dir")
    else:
        write_atomically(path, json.dumps({"fingerprint": plan.fingerprint(), **asdict(plan)}, indent=1).encode())


def part_path(out: str, number: int) -> str:
    """Where block `number`'s rows are kept until all blocks are done."""
    return os.path.join(out, "parts", f"{number:06d}.jsonl")


# ----------------------------------------------------------------------------------------------------------------------
# Reading


def read_rows(plan: Plan) -> Iterator[tuple[str, str, dict | BadRow]]:
    """(row id, folder of its pictures, row) of every row drawn from every file, in order, as a stream."""
    for path, amount in plan.data:
        source = open_source(path, plan.image_root)
        source.blocks = None  # rows are not read a second time: nothing is kept
        name = os.path.basename(path)
        chosen = None
        if amount:
            usable = sum(1 for _ in source.scan())
            count = rows_to_draw(amount, usable)
            if count > usable:
                raise UserError(f"--data {path}:{amount}: more rows than the file has; --expand makes variants of them")
            chosen = set(random.Random(f"{plan.seed}/{name}").sample(range(usable), count))
        for index, (number, _, _, row) in enumerate(source.scan()):
            if chosen is None or index in chosen:
                yield f"{name}:{number}", source.image_root, row


def read_blocks(plan: Plan) -> Iterator[tuple[int, list]]:
    """(number, rows) of every block."""
    block, number = [], 0
    for row in read_rows(plan):
        block.append(row)
        if len(block) == BLOCK:
            yield number, block
            block, number = [], number + 1
    if block:
        yield number, block


# ----------------------------------------------------------------------------------------------------------------------
# Working


def work(plan: Plan, out: str, rank: int, world_size: int, workers: int) -> None:
    """Work off this rank's blocks that are not finished yet, in `workers` processes."""
    avoid = avoided(plan.avoid, plan.avoid_image_root)
    if rank == 0 and plan.avoid:
        print(avoid.summary(), flush=True)
    bar = tqdm(unit="row", disable=rank > 0, smoothing=0.02)

    per_worker = max(1, plan.llm_concurrency // (workers * world_size))
    pending: set[Future] = set()
    num_blocks = 0

    def collect(limit: int) -> None:
        while len(pending) > limit:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            pending.difference_update(done)
            for future in done:
                bar.update(future.result())

    stop = multiprocessing.Event()
    with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(stop,)) as pool:
        try:
            for number, rows in read_blocks(plan):
                num_blocks = number + 1
                if number % world_size != rank or os.path.exists(part_path(out, number)):
                    continue
                pending.add(pool.submit(work_block, plan, out, number, rows, per_worker))
                collect(2 * workers)
            collect(0)
        except BrokenProcessPool as error:
            raise UserError("a worker process was killed, perhaps for memory; run the same command again "
                            "(finished blocks are kept), with fewer --workers") from error
        except BaseException:
            stop.set()  # blocks under way end at their next row
            raise
        finally:
            for future in pending:
                future.cancel()
            bar.close()
    if rank == 0:
        write_atomically(os.path.join(out, "parts", "blocks.json"), json.dumps(num_blocks).encode())


_stop = None


def _start_worker(stop: EventType) -> None:
    """A worker leaves Ctrl-C to the parent, which tells it through `stop`, and ends where the parent is killed: the
    pool's queue would let it wait for ever.
    """
    global _stop
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_with_the_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


class Stopped(Exception):
    """The run was interrupted; this block is left unwritten."""


def work_block(plan: Plan, out: str, number: int, rows: list, concurrency: int) -> int:
    """One block: its pictures, then its part file (rows, and the counts as the last line). Returns the rows read."""
    try:
        lines, counts = _rows_of_block(plan, out, number, rows, concurrency)
        counts["rows read"] = len(rows)
        lines.append(json.dumps({"counts": counts}, sort_keys=True))
        write_atomically(part_path(out, number), ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror}; fix it and run the same command again") from None
    return len(rows)


def _rows_of_block(plan: Plan, out: str, number: int, rows: list, concurrency: int) -> tuple[list[str], Counter]:
    counts: Counter = Counter()
    kept, answer_only = [], []
    for row_id, image_root, row in rows:
        for example in read_examples(row, row_id, image_root, plan, counts):
            bare = num_reasoning_words(example.problem.output) < plan.min_reasoning and plan.answer_only == "drop"
            (answer_only if bare else kept).append(example)
    clients = {server: _client(server, plan, concurrency) for server in (plan.explain, plan.rephrase) if server[0]}
    if plan.explain[0] and answer_only:
        checkable = [example for example in answer_only if example.problem.answer is not None]
        counts["dropped: answer only, and no answer found"] += len(answer_only) - len(checkable)
        kept += explain(checkable, plan, clients[plan.explain], counts)
    elif answer_only:
        counts["dropped: answer only"] += len(answer_only)
    reworded: list[str | None] = [None] * len(kept)
    if plan.rephrase[0] and plan.expand > 1:
        reworded = reword(kept, clients[plan.rephrase], counts)
    lines = []
    for index, example in enumerate(kept):
        if _stop is not None and _stop.is_set():
            raise Stopped
        for variant, varied in enumerate(vary(example, plan, reworded[index], counts)):
            name = f"pictures/{number:06d}/{index:04d}-{variant}"
            try:
                row = write_rows(varied, variant, plan, out, name, counts)
            except Dropped as error:
                counts[f"dropped: {error}"] += 1
                if variant == 0 and "font" in str(error):
                    break  # its variants hold the same characters
                continue
            lines.append(json.dumps(row, ensure_ascii=False))
        example.image = None
    for client in clients.values():
        counts["server: calls"] += client.num_asked
        counts["server: from the cache"] += client.num_cached
        counts["server: failed"] += client.num_failed
        counts["server: tokens"] += client.prompt_tokens + client.completion_tokens
    counts["rows written"] = len(lines)
    return lines, +counts


def _client(server: tuple[str, str], plan: Plan, concurrency: int) -> Client:
    return Client(*server, cache=plan.llm_cache, concurrency=concurrency)


# ----------------------------------------------------------------------------------------------------------------------
# One file


def wait_for_blocks(plan: Plan, out: str) -> None:
    """Wait until the other ranks have finished their blocks (they share this folder)."""
    with open(os.path.join(out, "parts", "blocks.json"), encoding="utf-8") as file:
        missing = [number for number in range(json.load(file)) if not os.path.exists(part_path(out, number))]
    if missing:
        print(f"waiting for {len(missing)} blocks of other processes", flush=True)
    while missing:
        time.sleep(0.5)
        missing = [number for number in missing if not os.path.exists(part_path(out, number))]


def merge(plan: Plan, out: str) -> dict:
    """Join the parts in order into the training file, and write the manifest, which is returned."""
    with open(os.path.join(out, "parts", "blocks.json"), encoding="utf-8") as file:
        num_blocks = json.load(file)
    counts: Counter = Counter()
    digest = hashlib.sha256()
    path = os.path.join(out, plan.file_name)
    try:
        with open(path + ".tmp", "wb") as merged:
            for number in range(num_blocks):
                with open(part_path(out, number), "rb") as part:
                    for line in part:
                        if line.startswith(b'{"counts"'):
                            counts.update(json.loads(line)["counts"])
                        else:
                            merged.write(line)
                            digest.update(line)
            merged.flush()
            os.fsync(merged.fileno())
        os.replace(path + ".tmp", path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; fix it and run the same command again") from None
    manifest = {"version": VERSION, "plan": asdict(plan), "file": plan.file_name, "sha256": digest.hexdigest(),
                "counts": dict(sorted(counts.items()))}
    write_atomically(os.path.join(out, "manifest.json"), json.dumps(manifest, indent=1, ensure_ascii=False).encode())
    return manifest


def summarize(plan: Plan, out: str, manifest: dict) -> None:
    """Print what was made and what was dropped, by reason."""
    counts = manifest["counts"]
    print(f"{os.path.join(out, plan.file_name)}: {counts.get('rows written', 0):,} rows of "
          f"{counts.get('rows read', 0):,} read")
    for reason, count in counts.items():
        if reason not in ("rows written", "rows read"):
            print(f"  {reason}: {count:,}")
