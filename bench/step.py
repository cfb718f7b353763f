"""Whole training steps on random weights of the true size: ours, and the plain way beside it in the same run.

ours: rows packed without padding, variable-length attention, only response positions through lm_head, the fused loss.
plain: a few rows at a time padded to the longest of them, the stock forward with its full logits, losses in eager
PyTorch (log_softmax and kl_div in fp32). The same stock model, rows, AdamW, FSDP2 mixed precision and activation
checkpointing in both; they take turns.

    python -m bench.step                            tiny on a CPU, puma-qwen2-1.5b on CUDA
    python -m bench.step --pack_tokens 8192         the latter where stage 3 has 80 GB
    python -m bench.step --preset puma-qwen2-7b --stages 2 --activation_checkpointing          7B on one GPU of 80 GB
    torchrun --nproc_per_node 8 -m bench.step --preset puma-qwen2-7b --activation_checkpointing
"""

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import runtime
import train_stage2
import train_stage3
from bench.kernels import eager_rows
from bench.plan import GIB, STAGE_PARTS, WORKLOADS, Workload
from bench.tables import argument_parser, facts, write_table
from data import MicroBatch, Tokens, pack_rows, plan_micro_batches
from errors import UserError, run_main
from model import MathModel, blank_pixels, count_image_tokens, load_model, part_of, peak_flops, step_flops

TINY_WORKLOADS = {
    1: Workload(0, prompt=40, response=60, images=0.0),
    2: Workload(0, prompt=15, response=60, images=1.0, strong_prompt=40, strong_images=0.5),
    3: Workload(0, prompt=30, response=60, images=1.0),
}

Side = tuple[Tokens, list[dict[str, Tensor]], str]  # of a row, as data.pack_rows takes it: tokens, images, its name


def make_rows(workload: Workload, count: int, vocabulary: int, model: MathModel, seed: int) -> list[tuple[Side, ...]]:
    """Rows (weak or only side[, strong side]), their lengths spread evenly over half to one and a half times the mean;
    images are black.

    Tokens are drawn from 50 up, where no special token of the shipped tokenizer lies.
    """
    generator = random.Random(seed)
    config, image_tokens = model.config, count_image_tokens(model.config)
    image = {name: pixels[0] for name, pixels in blank_pixels(config, 1, torch.uint8, "cpu").items()}

    def tokens(mean: int) -> list[int]:
        return [generator.randrange(50, vocabulary) for _ in range(round(mean * generator.uniform(0.5, 1.5)))]

    def side(name: str, prompt: list[int], response: list[int], images: int) -> Side:
        ids = [config.image_token_id] * (image_tokens * images) + prompt + response
        predicting = np.arange(len(ids) - len(response), len(ids)) - 1
        return Tokens(np.array(ids), predicting), [image] * images, name

    rows = []
    for number in range(count):
        response = tokens(workload.response)
        sides = [side(str(number), tokens(workload.prompt), response, int(workload.images))]
        if workload.strong_prompt:
            shown = int(generator.random() < workload.strong_images)
            sides.append(side(str(number), tokens(workload.strong_prompt), response, shown))
        rows.append(tuple(sides))
    return rows


def our_packs(rows: list[tuple[Side, ...]], pack_tokens: int) -> list[tuple[MicroBatch, MicroBatch | None]]:
    """Rows in packs of at most pack_tokens tokens on either side, as data.py deals them."""
    lengths = np.array([max(len(tokens.input_ids) for tokens, *_ in sides) for sides in rows])
    packs = []
    for (chosen,) in plan_micro_batches(lengths, 1, pack_tokens):
        weak, *strong = zip(*(rows[number] for number in chosen), strict=True)
        packs.append((pack_rows(weak, 0, run_vision=any(images for _, images, _ in weak)),
                      pack_rows(strong[0], 0, run_vision=True) if strong else None))
    return packs


# ----------------------------------------------------------------------------------------------------------------------
# The plain way


class PlainModel(nn.Module):
    """The stock forward, full logits and losses in eager PyTorch."""

    def __init__(self, model: MathModel) -> None:
        super().__init__()
        self.hf, self.normalize = model.hf, model.normalize
        model.hf.model.language_model.set_attn_implementation("sdpa")

    def response_logits(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of a batch of `pad`: the logits of all positions that predict response tokens, and those tokens."""
        inputs = {name: value if name in TEXT else self.normalize(name, value) for name, value in batch.items()}
        labels = inputs.pop("labels")[:, 1:]
        logits = self.hf(**inputs, use_cache=False).logits.float()
        wanted = labels != -100
        return logits[:, :-1][wanted], labels[wanted]

    def forward(self, weak: dict[str, Tensor], strong: dict[str, Tensor] | None = None, *, num_tokens: float) -> Tensor:
        """The PUMA loss (defaults of the paper), or cross entropy where there is no strong side."""
        weak_logits, labels = self.response_logits(weak)
        if strong is None:
            return F.cross_entropy(weak_logits, labels, reduction="sum") / num_tokens
        with torch.no_grad():
            strong_logits, _ = self.response_logits(strong)
        return eager_rows(weak_logits, strong_logits, labels, num_tokens)


TEXT = ("input_ids", "attention_mask", "labels")


def pad(sides: list[Side]) -> dict[str, Tensor]:
    """TEXT [rows, longest] (labels -100 outside responses) and the pixels of all images, uint8."""
    longest = max(len(tokens.input_ids) for tokens, *_ in sides)
    ids = torch.zeros(len(sides), longest, dtype=torch.int64)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for number, (tokens, *_) in enumerate(sides):
        ids[number, : len(tokens.input_ids)] = torch.from_numpy(tokens.input_ids)
        mask[number, : len(tokens.input_ids)] = 1
        labels[number, tokens.positions + 1] = ids[number, tokens.positions + 1]
    images = [image for _, images, _ in sides for image in images]
    pixels = {name: torch.stack([image[name] for image in images]) for name in (images[0] if images else {})}
    return dict(zip(TEXT, (ids, mask, labels), strict=True)) | pixels


def plain_batches(rows: list[tuple[Side, ...]], rows_at_a_time: int) -> list[tuple]:
    """Rows in their order, each micro-batch padded to its longest: (weak, strong or None)."""
    chunks = [rows[start : start + rows_at_a_time] for start in range(0, len(rows), rows_at_a_time)]
    return [(*map(pad, zip(*chunk, strict=True)), None)[:2] for chunk in chunks]


# ----------------------------------------------------------------------------------------------------------------------
# Measuring


def measure(way: str, stage: int, process: runtime.Process, args: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step, its loss, peak bytes and the FLOPs that the method needs, for one way of doing it."""
    bf16 = process.device.type == "cuda"
    torch.manual_seed(0)
    dtype, device = torch.bfloat16 if bf16 else torch.float32, process.device.type
    model = load_model(args.preset, random=True, dtype=dtype, device=device)  # drawn there: a CPU takes minutes for it
    model.set_trainable(STAGE_PARTS[stage])
    model.train()
    workload, vocabulary = (TINY_WORKLOADS[stage], 600) if args.preset == "tiny" else (WORKLOADS[stage], 100_000)
    rows = make_rows(workload, args.rows, vocabulary, model, seed=stage + 10 * process.rank)
    packs = our_packs(rows, args.pack_tokens)
    flops = step_flops(model, packs)
    tokens = sum(side.num_tokens for one in packs for side in one if side is not None)
    num_tokens = sum(weak.num_response_tokens for weak, _ in packs)
    module: nn.Module = model
    batches = packs
    if way == "plain":
        batches = plain_batches(rows, args.plain_rows)
        module = PlainModel(model)
    if args.compile and way == "ours":
        runtime.compile_layers(module)
    if args.activation_checkpointing:
        runtime.checkpoint_activations(module)
    runtime.shard(module, process, unused=lambda name: stage == 1 and part_of(name) != "llm")
    optimizer = torch.optim.AdamW(runtime.parameter_groups(module, 0.1), lr=1e-6, fused=bf16)

    def forward(weak: MicroBatch | dict, strong: MicroBatch | dict | None) -> Tensor:
        if way == "plain":
            sides = [side for side in (weak, strong) if side]
            here = [{name: tensor.to(process.device) for name, tensor in side.items()} for side in sides]
            return module(*here, num_tokens=num_tokens)
        weak = weak.to(process.device)
        if strong is None:
            return module(train_stage3.cross_entropy, weak, num_tokens=num_tokens, config=train_stage3.Config())
        strong = strong.to(process.device)
        return module(train_stage2.puma, weak, strong, num_tokens=num_tokens, config=train_stage2.Config()).loss

    seconds, loss = timed_steps(forward, batches, module, optimizer, process, args.steps)
    peak = torch.cuda.max_memory_allocated() if bf16 else 0
    return {"seconds": seconds, "loss": loss, "peak": peak, "flops": flops, "tokens": tokens}


def timed_steps(forward: Callable[..., Tensor], batches: list, module: nn.Module, optimizer: torch.optim.Optimizer,
                process: runtime.Process, steps: int) -> tuple[float, float]:
    """(median seconds of `steps` steps after one to warm up, loss of the first)."""
    cuda = process.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    times, losses = [], []
    for _ in range(steps + 1):
        began = time.perf_counter()
        total = torch.zeros((), device=process.device)
        for weak, strong in batches:
            loss = forward(weak, strong)
            loss.backward()
            total += loss.detach()
        runtime.clip_grad_norm(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total.item())
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:]), losses[0]


def measure_stage(stage: int, process: runtime.Process, args: argparse.Namespace) -> list[dict[str, object]]:
    """Both ways of one stage in turns: their rows of the table. Raises UserError where their losses differ."""
    turns: dict[str, list[dict]] = {"ours": [], "plain": []}
    for _ in range(args.turns):
        for way, found in turns.items():
            try:
                found.append(measure(way, stage, process, args))
                # said at once: a run that is cut off leaves its last line
                runtime.print0(f"stage {stage}, {way}: {found[-1]['seconds']:.3f} s, loss {found[-1]['loss']:.4f}")
            except torch.cuda.OutOfMemoryError:
                runtime.print0(f"stage {stage}, {way}: out of memory; fewer --plain_rows or --pack_tokens")
            gc.collect()
            if process.device.type == "cuda":
                torch.cuda.empty_cache()
    if turns["ours"] and turns["plain"] and process.world_size == 1:
        ours, plain = turns["ours"][0]["loss"], turns["plain"][0]["loss"]
        if abs(ours - plain) > 0.02 * abs(plain):
            raise UserError(f"stage {stage}: the losses differ, ours {ours}, plain {plain}: no comparison")
    seconds = {way: min(one["seconds"] for one in found) for way, found in turns.items() if found}
    peak_rate, ranks = peak_flops(process.device), process.world_size
    rows = []
    for way, best in seconds.items():
        first = turns[way][0]
        row = {"stage": stage, "way": way, "rows per second": args.rows * ranks / best,
               "tokens per second": first["tokens"] * ranks / best, "seconds": best,
               "MFU %": 100 * first["flops"] / best / peak_rate if peak_rate else "",
               "peak GiB": first["peak"] / GIB or "", "loss": first["loss"],
               "times the plain way": seconds["plain"] / best if "plain" in seconds else ""}
        rows.append({name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()})
    return rows


def main() -> None:
    """Measure, print, and write step_PRESET_DEVICE.csv and .md after each stage."""
    cuda = torch.cuda.is_available()
    parser = argument_parser(__doc__)
    parser.add_argument("--preset", default="puma-qwen2-1.5b" if cuda else "tiny")
    parser.add_argument("--stages", nargs="+", type=int, choices=(1, 2, 3), default=[1, 2, 3])
    parser.add_argument("--rows", type=int, default=64 if cuda else 16, help="rows (pairs) of one rank in a step")
    parser.add_argument("--pack_tokens", type=int, default=16384 if cuda else 2048)
    parser.add_argument("--plain_rows", type=int, default=4, help="rows in a micro-batch of the plain way")
    parser.add_argument("--steps", type=int, default=5 if cuda else 3, help="timed steps of each turn")
    parser.add_argument("--turns", type=int, default=2, help="how often the two ways take turns")
    parser.add_argument("--activation_checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true", help="torch.compile our layers")
    args = parser.parse_args()
    process = runtime.setup(0)
    measured = {"GPUs or processes": process.world_size} | facts(process.device.type, "triton", "transformers")
    path = args.out_dir / f"step_{args.preset.replace('.', '_')}_{process.device.type}"
    note = "Random weights and rows; blank images; data loading not counted. Seconds: the better of the turns' medians."
    rows: list[dict[str, object]] = []
    for stage in args.stages:
        rows += measure_stage(stage, process, args)
        if process.is_first and rows:
            write_table(path, f"A step of {args.preset}: ours and the plain way", measured, rows, note)
    if process.is_first and rows:
        print(f"{path.with_suffix('.md').read_text()}\nwritten: {path}.csv, .md")
    runtime.shutdown(process)


if __name__ == "__main__":
    run_main(main, resumes=False)
