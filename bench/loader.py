"""What the loader prepares per second, and what the GPUs of the plan would take: does a GPU ever wait for data?

Whole steps of data.py at their true size: read the row, tokenise it, decode and resize its images, pack. Rows are
pairs of the data engine (PNG, 400 pixels), and the same pairs with photographs (JPEG, 1600 x 1200) in place of their
images. The shipped tokenizer stands in for the presets' own, which need the hub. Rates of a GPU are the plan's, at
an ASSUMED MFU (bench/plan.py).

    python -m bench loader                                  needs no GPU; about 3 minutes
    python -m bench loader --gpu h100-80gb --mfu 0.5        beside a faster card
"""

import argparse
import datetime
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy
import torch
from PIL import Image

from bench.plan import ASSUMED_MFU, WORKLOADS, plan
from data import ChatFormat, Rows, StepDataset, make_loader, open_rows
from errors import UserError
from bench.tables import cpu_name, markdown_table, write_csv
from model import GPUS, count_image_tokens, default_max_length, find_preset, load_processor

ROOT = Path(__file__).resolve().parent.parent
PRESETS = ("puma-qwen2-1.5b", "puma-qwen2-7b", "puma-deepseek-math-7b")
PHOTOGRAPH = (1600, 1200)  # pixels
PAIRS_OF_A_STEP = 16  # of one rank; time per pair does not depend on it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m bench loader`."""
    parser.add_argument("--pairs", type=int, default=192, help="pairs to prepare for each row of the table")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="loader processes of the second rate")
    parser.add_argument("--gpu", default="a100-80gb", help=", ".join(GPUS))
    parser.add_argument("--mfu", type=float, default=ASSUMED_MFU, help="the rate of the GPU that is assumed")
    parser.add_argument("--out_dir", type=Path, default=Path("bench"))


def run(args: argparse.Namespace) -> None:
    """Measure, print, and write loader.csv and .md."""
    if args.pairs < PAIRS_OF_A_STEP or args.workers < 1:
        raise UserError(f"--pairs {args.pairs} --workers {args.workers}: at least {PAIRS_OF_A_STEP} pairs and a worker")
    torch.set_num_threads(1)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "engine's PNG, 400 px": make_pairs(Path(folder), args.pairs),
            f"JPEG, {PHOTOGRAPH[0]} x {PHOTOGRAPH[1]}": photograph_pairs(Path(folder)),
        }
        for preset in PRESETS:
            gpu_hours = plan(preset, 2, nproc=8, gpu=args.gpu, mfu=args.mfu)["gpu_hours"]
            needed = WORKLOADS[2].rows / gpu_hours / 3600
            for images, path in files.items():
                results.append({"preset": preset, "images": images} | measure(preset, path, args, needed))
                print(", ".join(f"{name} {value}" for name, value in results[-1].items()), flush=True)
    args.out_dir.mkdir(exist_ok=True)
    write_csv(args.out_dir / "loader.csv", results)
    text = report(results, args)
    (args.out_dir / "loader.md").write_text(text)
    print(text)


def make_pairs(folder: Path, pairs: int) -> Path:
    """Pairs by the data engine in `folder`; the path of their file."""
    command = [sys.executable, "gen_data.py", "--out_dir", str(folder), "--per_category", str(math.ceil(pairs / 3))]
    done = subprocess.run([*command, "--bench_per_family", "1"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"gen_data.py: {done.stderr.strip().splitlines()[-1]}")
    return folder / "stage2.jsonl"


def photograph_pairs(folder: Path) -> Path:
    """The pairs of `folder` once more, each image a photograph-like JPEG: soft shapes with the noise of a sensor."""
    generator = numpy.random.default_rng(0)
    names = []
    for number in range(8):
        coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=numpy.uint8))
        smooth = numpy.asarray(coarse.resize(PHOTOGRAPH, Image.Resampling.BICUBIC), dtype=numpy.float64)
        noisy = smooth + generator.normal(0, 6, smooth.shape)
        names.append(f"photograph{number}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(numpy.uint8)).save(folder / names[-1], quality=90)
    chooser = random.Random(0)
    path = folder / "photographs.jsonl"
    with open(folder / "stage2.jsonl") as source, open(path, "w") as target:
        for line in source:
            row = json.loads(line)
            for key in ("image_url", "image_url_2"):
                if row.get(key):
                    row[key] = chooser.choice(names)
            target.write(json.dumps(row) + "\n")
    return path


def measure(preset: str, path: Path, args: argparse.Namespace, needed: float) -> dict[str, object]:
    """One row of the table: what one process prepares, what several do, what a GPU takes (`needed`, pairs/s)."""
    chosen = find_preset(preset)
    chat_format = ChatFormat(load_processor(preset, random=True), count_image_tokens(chosen.config))
    rows = open_rows(str(path), pairs=True, chat_format=chat_format, max_length=default_max_length(chosen.config))
    steps = args.pairs // PAIRS_OF_A_STEP
    alone = StepDataset(rows, PAIRS_OF_A_STEP, pack_tokens=16384, rank=0, world_size=1, seed=0)
    next(prepared(alone, 1))  # caches are warm
    clock, cpu = time.perf_counter(), time.process_time()
    size = images = pairs = 0
    for batches in prepared(alone, steps):
        pairs += len(batches.row_ids)
        for side in (side for pack in batches for side in pack):
            images += next((len(pixels) for pixels in side.pixel_values.values()), 0)
            size += sum(tensor.nbytes for tensor in (side.input_ids, *side.pixel_values.values()))
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    rate = pairs / clock
    return {
        "pictures_a_pair": f"{images / pairs:.2f}", "kB_a_pair": f"{size / pairs / 1000:,.0f}",
        "CPU_ms_a_pair": f"{1000 * cpu / pairs:.1f}", "pairs/s_of_one_process": f"{rate:.0f}",
        f"of_{args.workers}": f"{rate_of_workers(rows, steps, args.workers):.0f}", "pairs/s_of_a_GPU": f"{needed:.1f}",
        "processes_a_GPU_needs": f"{needed / rate:.2g}"
    }


def prepared(dataset: StepDataset, steps: int) -> Iterator:
    """The dataset's first steps; what is wrong with a row is raised."""
    for step in range(steps):
        batches = dataset[step]
        if isinstance(batches, UserError):
            raise batches
        yield batches


def rate_of_workers(rows: Rows, steps: int, workers: int) -> float:
    """Pairs per second that arrive from `workers` processes, by the clock, from the first step's arrival on."""
    loader = make_loader(rows, global_batch=PAIRS_OF_A_STEP, pack_tokens=16384, rank=0, world_size=1, seed=0,
                         start_step=0, total_steps=3 * steps, num_workers=workers)
    arrived, pairs = [], []
    for batches in loader:
        arrived.append(time.perf_counter())
        pairs.append(len(batches.row_ids))
    first = min(2 * workers, len(pairs) - 2)  # what was prepared ahead while the processes started
    return sum(pairs[first + 1 :]) / (arrived[-1] - arrived[first])


def report(results: list[dict[str, object]], args: argparse.Namespace) -> str:
    """The table and what it was measured on."""
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    return "\n".join([
        "# What the loader prepares, beside what a GPU takes", "", markdown_table(results),
        f"{os.cpu_count()} core(s) of {cpu_name()}; torch {torch.__version__}; {date}; "
        f"`python -m bench {' '.join(sys.argv[1:])}`. Stage 2. kB: what a pair weighs in shared memory on its way to "
        f"the GPU. pairs/s of a GPU: the plan's for {args.gpu} at an ASSUMED {args.mfu:.0%} MFU and rows of ASSUMED "
        "length.",
    ]) + "\n"
