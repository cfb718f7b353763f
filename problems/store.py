"""From a plan to files: which problems there are, drawn in shards by many processes, merged into one data set.

The plan alone (seed, counts, families) decides everything. Every process walks through it in the same order, which
costs little because nothing is drawn there, and so knows without asking others which problems are duplicates and which
are held out for the benchmark.
"""

import hashlib
import json
import os
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import groupby, islice

import numpy
from tqdm import tqdm

from common import shards
from common.files import fingerprint, read_json, write_atomically
from errors import UserError
from problems.explain import Explainer
from problems.families import families
from problems.figure import Picture
from problems.pairs import VERSIONS, Example, caption, construct, design
from problems.problem import Draw, Problem, Reject
from problems.sheet import NoLayout
from problems.solver import WrongProblem

VERSION = 6  # raised whenever the same seed gives other bytes
PICTURES_IN_A_FOLDER = 1000
BATCH = 25  # problems that a worker draws at a time
CAPTION = "Describe the figure."
BENCH_SHARE = 10  # one canonical hash in ten belongs to the benchmark
SMALL_BENCH_SHARE = 4
SPARES = 50  # one spare problem is drawn for every so many: some problems find no legible picture
BENCH_SPARES = 2  # six pictures are harder to arrange than two
PATIENCE = 400  # draws for one place in the plan before its family's parameters count as used up
FILES = ("stage1", "stage2", "stage3", "captions", "bench")


@dataclass(frozen=True)
class Plan:
    """What a run of gen_data.py draws: seed, amounts and settings."""

    seed: int
    per_category: int
    bench_per_family: int
    families: dict[str, tuple[str, ...]]
    held_out: tuple[str, ...]
    picture_size: int
    small: bool
    copies: int
    bench_copies: int = 1

    def fingerprint(self) -> str:
        return fingerprint([VERSION, asdict(self)])


@dataclass(frozen=True)
class Item:
    """One place in the plan."""

    part: str  # a category, or "bench"
    number: int
    category: str
    family: str
    seed: str

    @property
    def shard(self) -> tuple[str, int]:
        return self.part, self.number // shard_size(self.part)


# ---------------------------------------------------------------------------------------------------------------------
# The plan


def is_held_out(key: str, small: bool = False) -> bool:
    """Whether a canonical hash belongs to the benchmark, in every data set of its kind: one problem in ten, one in four
    of the small ones, which are so few that a tenth would be the same handful again and again."""
    return int(key, 16) % (SMALL_BENCH_SHARE if small else BENCH_SHARE) == 0


def walk(plan: Plan, counts: Counter[str]) -> Iterator[Item]:
    """Every problem of the data set and its spares in order: categories, then benchmark. `counts`: what was dropped."""
    for category, names in plan.families.items():
        used: Counter[str] = Counter()
        open_names = [name for name in names if name not in plan.held_out]
        for number in range(with_spares(plan.per_category, SPARES)):
            while open_names:
                name = open_names[number % len(open_names)]
                if item := _find(plan, category, category, name, number, used, counts):
                    yield item
                    break
                counts[f"exhausted {name}"] += 1
                open_names.remove(name)
    number = 0
    for category, names in plan.families.items():
        for name in names:
            used = Counter()
            for _ in range(with_spares(plan.bench_per_family, BENCH_SPARES)):
                item = _find(plan, "bench", category, name, number, used, counts)
                if item is None:
                    counts[f"exhausted {name} in the benchmark"] += 1
                    break
                number += 1
                yield item


def with_spares(wanted: int, share: int) -> int:
    """How many problems are drawn so that `wanted` remain: one in `share` more, rounded up."""
    return wanted + -(-wanted // share)


def _find(plan: Plan, part: str, category: str, name: str, number: int, used: Counter[str],
          counts: Counter[str]) -> Item | None:
    """The first draw for this place that is neither a duplicate nor on the other side of the split."""
    family, bench = _family(category, name), part == "bench"
    for attempt in range(PATIENCE * (BENCH_SHARE if bench else 1)):
        seed = f"{plan.seed}/{part}/{number}/{attempt}"
        try:
            problem = design(family, category, seed, plan.small)
        except Reject:
            counts["rejected"] += 1
            continue
        held_out = is_held_out(problem.key, plan.small) or name in plan.held_out
        if held_out != bench:
            counts["held out"] += not bench
        elif used[problem.key] >= (plan.bench_copies if bench else plan.copies):
            counts["duplicate"] += not bench
        else:
            used[problem.key] += 1
            return Item(part, number, category, name, seed)
    return None


@lru_cache
def _family(category: str, name: str) -> Callable[[Draw], Problem]:
    return next(family for family in families(category) if family.__name__ == name)


# ---------------------------------------------------------------------------------------------------------------------
# Shards


def claim(plan: Plan, out: str) -> None:
    """Take the folder for this plan; a folder that holds another plan's data is the user's to clear."""
    shards.claim(out, "shards", plan)


def shard_path(out: str, shard: tuple[str, int]) -> str:
    """Where a shard's rows lie."""
    return os.path.join(out, "shards", f"{shard[0]}-{shard[1]:05d}.jsonl")


def sizes(plan: Plan) -> dict[str, int]:
    """{part: problems that are planned, spares included}"""
    num_families = sum(len(names) for names in plan.families.values())
    planned = {category: with_spares(plan.per_category, SPARES) for category in plan.families}
    return planned | {"bench": with_spares(plan.bench_per_family, BENCH_SPARES) * num_families}


def all_shards(plan: Plan) -> list[tuple[str, int]]:
    """Every shard of the plan, in order."""
    return [(part, k) for part, size in sizes(plan).items() for k in range(-(-size // shard_size(part)))]


def shard_size(part: str) -> int:
    """Problems in a shard: as many as give a folder of a thousand pictures at most."""
    return PICTURES_IN_A_FOLDER // (len(VERSIONS) - 1 if part == "bench" else 2)


def draw_shards(plan: Plan, out: str, rank: int, world_size: int, workers: int) -> None:
    """Draw this rank's shards that are not finished yet, in `workers` processes.

    A shard's file is written when all its pictures are; a run that is interrupted loses at most the open shards.
    """
    mine = all_shards(plan)[rank::world_size]
    missing = {shard for shard in mine if not os.path.exists(shard_path(out, shard))}
    counts: Counter[str] = Counter()

    def batches() -> Iterator[tuple[str, list[Item]]]:
        items = (item for item in walk(plan, counts) if item.shard in missing)
        for shard, members in groupby(items, key=lambda item: item.shard):
            while batch := list(islice(members, BATCH)):
                yield shard_path(out, shard), batch

    bar = tqdm(total=sum(sizes(plan).values()) // world_size, unit="problem", disable=rank > 0, smoothing=0.02)
    shards.work(batches(), partial(_draw_batch, plan, out), workers, bar)
    for shard in missing:  # the families ran out of parameters before
        if not os.path.exists(shard_path(out, shard)):
            write_atomically(shard_path(out, shard), b"")
    if rank == 0:
        write_atomically(os.path.join(out, "shards", "counts.json"), json.dumps(counts, sort_keys=True))


def _draw_batch(plan: Plan, out: str, _: str, batch: list[Item]) -> list[str]:
    """Draw some problems of one shard; the lines for its file."""
    lines = []
    for item in batch:
        shards.go_on()
        try:
            lines.append(json.dumps(draw_item(plan, out, item), ensure_ascii=False) + "\n")
        except WrongProblem as error:
            raise UserError(f"a family is wrong and must be fixed: {error}") from None
    return lines


def draw_item(plan: Plan, out: str, item: Item) -> dict:
    """Make one problem: its pictures in their folder, its rows for every file as the answer."""
    levels = VERSIONS if item.part == "bench" else ()
    family = _family(item.category, item.family)
    try:
        example = construct(family, item.category, item.seed, small=plan.small, picture_size=plan.picture_size,
                            levels=levels)
    except NoLayout as error:
        return {"dropped": str(error), "family": item.family}
    name = f"{item.part}-{item.number:06d}"
    folder = os.path.join("pictures", item.part, f"{item.shard[1]:05d}")
    os.makedirs(os.path.join(out, folder), exist_ok=True)
    urls, digests = [], []
    for version, picture in zip(example.versions, example.pictures, strict=True):
        urls.append("" if picture is None else f"{folder}/{item.number:06d}-{version.level}.png")
        if picture is not None:
            data = png(picture)
            digests.append(hashlib.blake2b(data, digest_size=8).hexdigest())
            write_atomically(os.path.join(out, urls[-1]), data, durable=False)
    rows = bench_rows(example, name, urls) if item.part == "bench" else training_rows(example, name, urls)
    return {"family": item.family, "key": example.problem.key, "rows": rows, "pictures": digests}


def png(picture: Picture) -> bytes:
    """The picture as a PNG file, rows unfiltered: line drawings come out smaller, and in less than half the time, than
    with the filters that image libraries try on every row."""
    image = picture.image
    width, height = image.size
    channels = len(image.getbands())
    rows = numpy.zeros((height, 1 + width * channels), dtype=numpy.uint8)
    rows[:, 1:] = numpy.asarray(image).reshape(height, width * channels)
    packer = zlib.compressobj(3, zlib.DEFLATED, 15, 9)
    header = struct.pack(">2I5B", width, height, 8, {"L": 0, "RGB": 2, "P": 3}[image.mode], 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if image.mode == "P":
        chunks.append((b"PLTE", bytes(image.getpalette())))
    chunks += [(b"IDAT", packer.compress(rows) + packer.flush()), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
        for kind, data in chunks
    )


# ---------------------------------------------------------------------------------------------------------------------
# Rows


def training_rows(example: Example, name: str, urls: list[str]) -> dict[str, list[dict]]:
    """The rows of one problem for each training file. The strong level comes first, as in the published pairs."""
    problem, (strong, weak) = example.problem, example.versions
    shared = {"category": problem.category, "family": problem.family}
    last = {"answer": example.answer, "seed": problem.seed}
    response = example.response
    stage1 = {
        "id": name, "image_url": "", "instruction": example.text_only, "output": response, **shared,
        "level": "text-only", **last
    }
    pair = {
        "id": name, "image_url": urls[0], "instruction": strong.instruction, "output": response, "image_url_2": urls[1],
        "instruction_2": weak.instruction, "output_2": response, **shared, "level": strong.level, "level_2": weak.level,
        **last
    }
    singles = [
        {
            "id": f"{name}/{version.level}", "image_url": url, "instruction": version.instruction, "output": response,
            **shared, "level": version.level, **last
        }
        for version, url in zip(example.versions, urls, strict=True)
    ]
    described = {
        "id": name, "image_url": urls[1], "instruction": CAPTION, "output": caption(example), **shared,
        "level": weak.level, "answer": "", "seed": problem.seed
    }
    return {"stage1": [stage1], "stage2": [pair], "stage3": singles, "captions": [described]}


def bench_rows(example: Example, name: str, urls: list[str]) -> dict[str, list[dict]]:
    """The six versions of one held-out problem."""
    problem = example.problem
    return {
        "bench": [
            {
                "id": f"{name}/{version.level}", "problem_id": name, "version": version.level, "image_url": url,
                "instruction": version.instruction, "question": version.question, "choices": list(example.choices),
                "answer": example.answer, "category": problem.category, "family": problem.family,
                "output": example.response, "key": problem.key, "seed": problem.seed
            }
            for version, url in zip(example.versions, urls, strict=True)
        ]
    }


# ---------------------------------------------------------------------------------------------------------------------
# One data set


def lines(plan: Plan, out: str, counts: Counter[str]) -> Iterator[tuple[tuple[str, int], dict]]:
    """The problems of the finished shards, in order: as many as the plan asks for, of those that have their pictures.

    The pictures of spares that were not needed are deleted.
    """
    taken: Counter[str] = Counter()
    for shard in all_shards(plan):
        with open(shard_path(out, shard), encoding="utf-8") as file:
            for line in file:
                problem = json.loads(line)
                if "dropped" in problem:
                    counts["no legible picture"] += 1
                    continue
                group = problem["family"] if shard[0] == "bench" else shard[0]
                wanted = plan.bench_per_family if shard[0] == "bench" else plan.per_category
                if taken[group] < wanted:
                    taken[group] += 1
                    yield shard, problem
                else:
                    counts["spare, not needed"] += 1
                    delete_pictures(out, problem)


def delete_pictures(out: str, problem: dict) -> None:
    """Delete a problem's pictures where they still are."""
    for row in problem["rows"].get("stage2", []) + problem["rows"].get("bench", []):
        for url in (row["image_url"], row.get("image_url_2", "")):
            if url and os.path.exists(os.path.join(out, url)):
                os.remove(os.path.join(out, url))


def merge(plan: Plan, out: str, explainer: Explainer | None = None) -> None:
    """Join the shards into the published files and the manifest; with an explainer, its explanations in the rows."""
    counts = Counter(read_json(os.path.join(out, "shards", "counts.json")))
    per_family: dict[str, Counter[str]] = {}
    folders: dict[str, hashlib._Hash] = {}
    with shards.joined(out, *(f"{name}.jsonl" for name in FILES)) as outputs:
        writers = dict(zip(FILES, outputs, strict=True))
        problems = lines(plan, out, counts)
        for shard, problem in explainer.explain(problems) if explainer else problems:
            folder = f"pictures/{shard[0]}/{shard[1]:05d}"
            for digest in problem["pictures"]:
                folders.setdefault(folder, hashlib.sha256()).update(digest.encode())
            tally = per_family.setdefault(problem["family"], Counter())
            for name, rows in problem["rows"].items():
                for row in rows:
                    writers[name].write((json.dumps(row, ensure_ascii=False) + "\n").encode())
                    tally[name] += 1
                    for level in (row.get("level"), row.get("level_2"), row.get("version")):
                        if level and name in ("stage2", "bench"):
                            tally[f"{name}: {level}"] += 1
    files = {name: {"rows": writer.rows, "sha256": writer.digest.hexdigest()} for name, writer in writers.items()}
    manifest = {
        "version": VERSION, "plan": asdict(plan), "files": files, "dropped": dict(sorted(counts.items())),
        "families": {name: dict(sorted(tally.items())) for name, tally in sorted(per_family.items())},
        "pictures": {folder: digest.hexdigest() for folder, digest in folders.items()}
    }
    if explainer:
        manifest["explanations"] = explainer.manifest()
    shards.write_manifest(out, manifest)


def shortages(plan: Plan, made: dict[str, dict[str, int]]) -> Iterator[tuple[str, int, int]]:
    """(category or family of the benchmark, problems made, problems asked for) where parameters or pictures ran out."""
    for category, names in plan.families.items():
        pairs = sum(made.get(name, {}).get("stage2", 0) for name in names)
        if pairs < plan.per_category:
            yield category, pairs, plan.per_category
        for name in names:
            problems = made.get(name, {}).get("bench", 0) // len(VERSIONS)
            if problems < plan.bench_per_family:
                yield f"{name} in the benchmark", problems, plan.bench_per_family


def summarize(plan: Plan, out: str) -> None:
    """Print what was made."""
    manifest = read_json(os.path.join(out, "manifest.json"))
    for name, entry in manifest["files"].items():
        print(f"{os.path.join(out, name + '.jsonl')}: {entry['rows']:,} rows")
    for reason, count in manifest["dropped"].items():
        print(f"  {reason}: {count:,}")
    for name, made, wanted in shortages(plan, manifest["families"]):
        print(f"  fewer than asked for: {name}: {made:,} of {wanted:,}")
    for name, value in manifest.get("explanations", {}).items():
        print(f"  {name}: {value}")
