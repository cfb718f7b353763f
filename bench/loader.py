"""What the loader prepares per second, and what the GPUs of the plan would take: does a GPU ever wait for data?

Whole steps of data.py at their true size: read the row, tokenise it, decode and resize its images, pack. Rows are
pairs of the data engine (PNG, 400 pixels), and the same pairs with photographs (JPEG, 1600 x 1200) in place of their
images. The shipped tokenizer stands in for the presets' own, which need the hub. Rates of a GPU are the plan's, at
an ASSUMED MFU (bench/plan.py).

    python -m bench.loader                                  needs no GPU; about 3 minutes
    python -m bench.loader --gpu h100-80gb --mfu 0.5        beside a faster card
"""

import json
import random
import tempfile
import time
from pathlib import Path

import numpy
import torch
from PIL import Image

from bench.data import make_pairs
from bench.plan import ASSUMED_MFU, WORKLOADS, plan
from bench.tables import argument_parser, facts, write_table
from data import ChatFormat, make_loader, open_rows
from errors import UserError, run_main
from model import GPUS, count_image_tokens, find_preset, load_processor, longest_row

PRESETS = ("puma-qwen2-1.5b", "puma-qwen2-7b", "puma-deepseek-math-7b")
PHOTOGRAPH = (1600, 1200)  # pixels
PAIRS_OF_A_STEP = 16  # of one rank; time per pair does not depend on it


def photograph_pairs(folder: Path) -> Path:
    """The pairs of `folder` once more, each image a photograph-like JPEG: soft shapes with the noise of a sensor."""
    generator = numpy.random.default_rng(0)
    names = [f"photograph{number}.jpg" for number in range(8)]
    for name in names:
        coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=numpy.uint8))
        smooth = numpy.asarray(coarse.resize(PHOTOGRAPH, Image.Resampling.BICUBIC), dtype=numpy.float64)
        noisy = smooth + generator.normal(0, 6, smooth.shape)
        Image.fromarray(noisy.clip(0, 255).astype(numpy.uint8)).save(folder / name, quality=90)
    chooser = random.Random(0)
    path = folder / "photographs.jsonl"
    with open(folder / "stage2.jsonl") as source, open(path, "w") as target:
        for line in source:
            row = json.loads(line)
            row |= {key: chooser.choice(names) for key in ("image_url", "image_url_2") if row.get(key)}
            target.write(json.dumps(row) + "\n")
    return path


def measure(preset: str, path: Path, pairs: int, needed: float) -> dict[str, object]:
    """What one process prepares of a file of pairs, beside what a GPU takes (`needed`, pairs/s)."""
    config = find_preset(preset).config
    chat_format = ChatFormat(load_processor(preset, random=True), count_image_tokens(config))
    rows = open_rows(str(path), pairs=True, chat_format=chat_format, max_length=longest_row(config))
    steps = make_loader(rows, global_batch=PAIRS_OF_A_STEP, pack_tokens=16384, rank=0, world_size=1, seed=0,
                        start_step=0, total_steps=1 + pairs // PAIRS_OF_A_STEP)
    next(steps)  # caches are warm
    clock, cpu = time.perf_counter(), time.process_time()
    size = images = prepared = 0
    for batches in steps:
        prepared += len(batches.row_ids)
        for side in (side for pack in batches for side in pack):
            images += next((len(pixels) for pixels in side.pixel_values.values()), 0)
            size += sum(tensor.nbytes for tensor in (side.input_ids, *side.pixel_values.values()))
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    rate = prepared / clock
    return {
        "pictures a pair": f"{images / prepared:.2f}", "kB a pair": f"{size / prepared / 1000:,.0f}",
        "CPU ms a pair": f"{1000 * cpu / prepared:.1f}", "pairs/s of one process": f"{rate:.0f}",
        "pairs/s of a GPU": f"{needed:.1f}", "processes a GPU needs": f"{needed / rate:.2g}"
    }


def main() -> None:
    """Measure, print, and write loader.csv and .md."""
    parser = argument_parser(__doc__)
    parser.add_argument("--pairs", type=int, default=192, help="pairs to prepare for each row of the table")
    parser.add_argument("--gpu", default="a100-80gb", help=", ".join(GPUS))
    parser.add_argument("--mfu", type=float, default=ASSUMED_MFU, help="the rate of the GPU that is assumed")
    args = parser.parse_args()
    if args.pairs < PAIRS_OF_A_STEP:
        raise UserError(f"--pairs {args.pairs}: give at least {PAIRS_OF_A_STEP}, a step")
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = {"engine's PNG, 400 px": make_pairs(folder, args.pairs),
                 f"JPEG, {PHOTOGRAPH[0]} x {PHOTOGRAPH[1]}": photograph_pairs(Path(folder))}
        for preset in PRESETS:
            gpu_hours = plan(preset, 2, nproc=8, gpu=args.gpu, mfu=args.mfu)["gpu_hours"]
            needed = WORKLOADS[2].rows / gpu_hours / 3600
            for images, path in files.items():
                row = {"preset": preset, "pictures": images}
                rows.append(row | measure(preset, path, args.pairs, needed))
    note = ("Stage 2. kB: what a pair weighs in shared memory on its way to the GPU. pairs/s of a GPU: the plan's for "
            f"{args.gpu} at an ASSUMED {args.mfu:.0%} MFU and rows of ASSUMED length.")
    title = "What the loader prepares, beside what a GPU takes"
    print(write_table(args.out_dir / "loader", title, facts("cpu", "numpy", "pillow", "transformers"), rows, note))


if __name__ == "__main__":
    run_main(main, resumes=False)
