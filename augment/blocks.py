"""From source files to one training file: rows in blocks, blocks by many processes, one after another in the result.

A block is BLOCK consecutive rows. Its part file is written when all its pictures are, by the process that worked on
it, so what is there is whole. Every process reads the sources by itself, as a stream, and picks the blocks that are
its own.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

from tqdm import tqdm

from augment import containers
from augment.recipe import (VERSION, Dropped, Plan, avoided, drop, explain, read_examples, reword, vary, write_rows)
from augment.rephrase import num_reasoning_words
from common import shards
from common.files import read_json, write_atomically
from common.llm import Client
from errors import UserError
from sources import BadRow, rows_to_draw

BLOCK = 256
BLOCK_BYTES = 32_000_000  # of pictures that lie in the rows: a block goes to a worker in one piece


def claim(plan: Plan, out: str) -> None:
    """Take the folder for this plan; a folder that holds another plan's data is the user's to clear."""
    shards.claim(out, "parts", plan)


def part_path(out: str, number: int) -> str:
    """Where block `number`'s rows are kept until all blocks are done."""
    return os.path.join(out, "parts", f"{number:06d}.jsonl")


# ----------------------------------------------------------------------------------------------------------------------
# Reading


def read_rows(plan: Plan) -> Iterator[tuple[str, str, dict | BadRow]]:
    """(row id, folder of its pictures, row) of every row drawn from every file, in order, as a stream."""
    for path, amount in plan.data:
        name = os.path.basename(os.path.normpath(path))
        image_root = plan.image_root or (path if os.path.isdir(path) else os.path.dirname(path))
        chosen = None
        if amount:
            usable = containers.count(path)
            count = rows_to_draw(amount, usable)
            if count > usable:
                raise UserError(f"--data {path}:{amount}: more rows than the file has; --expand makes variants of them")
            chosen = set(random.Random(f"{plan.seed}/{name}").sample(range(usable), count))
        for index, (number, row) in enumerate(containers.rows(path)):
            if chosen is None or index in chosen:
                yield f"{name}:{number}", image_root, row


def read_blocks(plan: Plan) -> Iterator[tuple[int, list]]:
    """(number, rows) of every block."""
    block, number, weight = [], 0, 0
    for row in read_rows(plan):
        block.append(row)
        weight += _picture_bytes(row[2])
        if len(block) == BLOCK or weight > BLOCK_BYTES:
            yield number, block
            block, number, weight = [], number + 1, 0
    if block:
        yield number, block


def _picture_bytes(value: object, depth: int = 0) -> int:
    """Bytes of the pictures that a row holds itself."""
    if depth > 4 or not isinstance(value, dict | list | bytes):
        return 0
    if isinstance(value, bytes):
        return len(value)
    return sum(_picture_bytes(item, depth + 1) for item in (value.values() if isinstance(value, dict) else value))


# ----------------------------------------------------------------------------------------------------------------------
# Working


def work(plan: Plan, out: str, rank: int, world_size: int, workers: int) -> None:
    """Work off this rank's blocks that are not finished yet, in `workers` processes."""
    avoid = avoided(plan.avoid, plan.avoid_image_root)
    if rank == 0 and plan.avoid:
        print(avoid.summary(), flush=True)
    num_blocks = 0

    def mine() -> Iterator[tuple[str, list]]:
        nonlocal num_blocks
        for number, rows in read_blocks(plan):
            num_blocks = number + 1
            if number % world_size == rank and not os.path.exists(part_path(out, number)):
                yield part_path(out, number), rows

    per_worker = max(1, plan.llm_concurrency // (workers * world_size))
    bar = tqdm(unit="row", disable=rank > 0, smoothing=0.02)
    shards.work(mine(), partial(_lines_of_block, plan, out, per_worker), workers, bar)
    if rank == 0:
        write_atomically(os.path.join(out, "parts", "blocks.json"), json.dumps(num_blocks))


def _lines_of_block(plan: Plan, out: str, concurrency: int, path: str, rows: list) -> list[str]:
    """One block's pictures, and the lines of its part file: rows, and the counts as the last line."""
    name = os.path.basename(path).removesuffix(".jsonl")
    first: dict[str, str] = {}
    lines, counts = _rows_of_block(plan, out, name, rows, concurrency, first)
    counts["rows read"] = len(rows)
    return [f"{line}\n" for line in (*lines, json.dumps({"counts": counts, "first": first}, sort_keys=True))]


def _rows_of_block(plan: Plan, out: str, block: str, rows: list, concurrency: int,
                   first: dict[str, str]) -> tuple[list[str], Counter]:
    counts: Counter = Counter()
    kept, answer_only = [], []
    for row_id, image_root, row in rows:
        for example in read_examples(row, row_id, image_root, plan, counts, first):
            bare = num_reasoning_words(example.problem.output) < plan.min_reasoning and plan.answer_only == "drop"
            (answer_only if bare else kept).append(example)
    clients = {server: _client(server, plan, concurrency) for server in (plan.explain, plan.rephrase) if server[0]}
    if plan.explain[0] and answer_only:
        checkable = [example for example in answer_only if example.problem.answer is not None]
        kept += explain(checkable, plan, clients[plan.explain], counts, first)
    for example in answer_only:
        if not plan.explain[0]:
            drop(Dropped("answer only"), example.row_id, counts, first)
        elif example.problem.answer is None:
            drop(Dropped("answer only, and no answer found"), example.row_id, counts, first)
    reworded: list[str | None] = [None] * len(kept)
    if plan.rephrase[0] and plan.expand > 1:
        reworded = reword(kept, clients[plan.rephrase], counts)
    lines = []
    for index, example in enumerate(kept):
        shards.go_on()
        for variant, varied in enumerate(vary(example, plan, reworded[index], counts)):
            name = f"pictures/{block}/{index:04d}-{variant}"
            try:
                row = write_rows(varied, variant, plan, out, name, counts)
            except Dropped as error:
                drop(error, example.row_id, counts, first)
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


def parts(out: str) -> list[str]:
    """The files of all blocks, in order, once rank 0 has counted them."""
    return [part_path(out, number) for number in range(read_json(os.path.join(out, "parts", "blocks.json")))]


def merge(plan: Plan, out: str) -> dict:
    """Join the parts in order into the training file, and write the manifest, which is returned."""
    avoid = avoided(plan.avoid, plan.avoid_image_root)
    counts: Counter = Counter({f"to avoid: {what}": count for what, count in avoid.counts.items()})
    first: dict[str, str] = {}  # of every reason, the first row dropped
    with shards.joined(out, plan.file_name) as (merged,):
        for path in parts(out):
            with open(path, "rb") as part:
                for line in part:
                    if line.startswith(b'{"counts"'):
                        said = json.loads(line)
                        counts.update(said["counts"])
                        first = {**said["first"], **first}
                    else:
                        merged.write(line)
    manifest = {"version": VERSION, "plan": asdict(plan), "file": plan.file_name, "sha256": merged.digest.hexdigest(),
                "counts": dict(sorted(counts.items())), "first": dict(sorted(first.items()))}
    shards.write_manifest(out, manifest)
    return manifest


def summarize(plan: Plan, out: str, manifest: dict) -> None:
    """Print what was made and what was dropped, by reason."""
    counts = manifest["counts"]
    print(f"{os.path.join(out, plan.file_name)}: {counts.get('rows written', 0):,} rows, made of "
          f"{counts.get('rows read', 0):,}")
    for reason, count in counts.items():
        if reason not in ("rows written", "rows read"):
            place = manifest["first"].get(reason)
            print(f"  {reason}: {count:,}" + (f" (first: {place})" if place else ""))
