"""Whole training steps on random weights of the true size: ours, and the plain way beside it in the same run.

ours: rows packed without padding, variable-length attention, only response positions through lm_head, the fused loss.
plain: a few rows at a time padded to the longest of them, the stock forward with its full logits, losses in eager
PyTorch (log_softmax and kl_div in fp32). The same stock model, rows, AdamW, FSDP2 mixed precision and activation
checkpointing in both; they take turns.

    python -m bench step                            tiny on a CPU, puma-qwen2-1.5b on CUDA
    python -m bench step --pack_tokens 8192         the latter where stage 3 has 80 GB
    python -m bench step --preset puma-qwen2-7b --stages 2 --activation_checkpointing          7B on one GPU of 80 GB
    torchrun --nproc_per_node 8 -m bench step --preset puma-qwen2-7b --activation_checkpointing
"""

import argparse
import gc
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import runtime
import train_stage2
import train_stage3
from bench.plan import GIB, STAGE_PARTS, WORKLOADS, Workload
from data import MicroBatch
from errors import UserError
from bench.kernels import environment
from bench.tables import markdown_table, write_csv
from model import MathModel, blank_pixels, count_image_tokens, load_model, part_of, peak_flops, step_flops

TINY_WORKLOADS = {
    1: Workload(0, prompt=40, response=60, images=0.0),
    2: Workload(0, prompt=15, response=60, images=1.0, strong_prompt=40, strong_images=0.5),
    3: Workload(0, prompt=30, response=60, images=1.0),
}


@dataclass
class Row:
    """One side of a problem: text tokens before the response, response tokens, images."""

    prompt: list[int]
    response: list[int]
    images: int


def make_rows(workload: Workload, count: int, vocabulary: int, seed: int) -> list[tuple[Row, Row | None]]:
    """Pairs (weak, strong) or single rows, their lengths spread evenly over half to one and a half times the mean.

    Tokens are drawn from 50 up, where no special token of the shipped tokenizer lies.
    """
    generator = random.Random(seed)

    def tokens(mean: int) -> list[int]:
        return [generator.randrange(50, vocabulary) for _ in range(round(mean * generator.uniform(0.5, 1.5)))]

    rows: list[tuple[Row, Row | None]] = []
    for _ in range(count):
        response = tokens(workload.response)
        weak = Row(tokens(workload.prompt), response, int(workload.images))
        strong = None
        if workload.strong_prompt:
            shown = int(generator.random() < workload.strong_images)
            strong = Row(tokens(workload.strong_prompt), response, shown)
        rows.append((weak, strong))
    return rows


def sequence(row: Row, image_token: int, image_tokens: int) -> list[int]:
    """A row's input ids: image tokens, then prompt, then response."""
    return [image_token] * (image_tokens * row.images) + row.prompt + row.response


def black_images(model: MathModel, rows: list[Row]) -> dict[str, Tensor]:
    """The images of the rows, uint8, all black; {} without any."""
    images = sum(row.images for row in rows)
    return blank_pixels(model.config, images, torch.uint8, "cpu") if images else {}


# ----------------------------------------------------------------------------------------------------------------------
# Ours


def pack(model: MathModel, rows: list[Row], run_vision: bool) -> MicroBatch:
    """Rows behind one another, as data.py packs them."""
    image_tokens = count_image_tokens(model.config)
    sequences = [sequence(row, model.config.image_token_id, image_tokens) for row in rows]
    lengths = torch.tensor([0, *map(len, sequences)])
    ends = lengths.cumsum(0)
    positions = [
        torch.arange(int(end) - len(row.response) - 1, int(end) - 1) for end, row in zip(ends[1:], rows, strict=True)
    ]
    return MicroBatch(
        input_ids=torch.tensor([token for one in sequences for token in one])[None],
        position_ids=torch.cat([torch.arange(int(length)) for length in lengths[1:]])[None],
        cu_seqlens=ends.to(torch.int32), max_seqlen=int(lengths.max()), pixel_values=black_images(model, rows),
        run_vision=run_vision, response_positions=torch.cat(positions),
        response_labels=torch.tensor([token for row in rows for token in row.response]),
        row_ids=[str(number) for number in range(len(rows))]
    )


def our_packs(model: MathModel, rows: list[tuple[Row, Row | None]], pack_tokens: int) -> list[tuple]:
    """Rows in packs of at most pack_tokens tokens on either side."""
    image_tokens = count_image_tokens(model.config)

    def length(row: Row) -> int:
        return row.images * image_tokens + len(row.prompt) + len(row.response)

    groups: list[list] = []
    room = (0, 0)
    for weak, strong in rows:
        need = (length(weak), length(strong) if strong else 0)
        if not groups or room[0] < need[0] or room[1] < need[1]:
            groups.append([])
            room = (pack_tokens, pack_tokens)
        groups[-1].append((weak, strong))
        room = (room[0] - need[0], room[1] - need[1])
    packs = []
    for group in groups:
        strong = None
        if group[0][1] is not None:
            strong = pack(model, [strong for _, strong in group], run_vision=True)
        packs.append((pack(model, [weak for weak, _ in group], run_vision=bool(group[0][0].images)), strong))
    return packs


# ----------------------------------------------------------------------------------------------------------------------
# The plain way


@dataclass
class PaddedMicroBatch:
    """input_ids, attention_mask, labels [rows, length] (-100 outside responses); pixel_values as in MicroBatch."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    pixel_values: dict[str, Tensor]

    def to(self, device: torch.device) -> "PaddedMicroBatch":
        pixels = {name: value.to(device) for name, value in self.pixel_values.items()}
        return PaddedMicroBatch(*(t.to(device) for t in (self.input_ids, self.attention_mask, self.labels)), pixels)


class PlainModel(nn.Module):
    """The stock forward, full logits and losses in eager PyTorch."""

    def __init__(self, model: MathModel) -> None:
        super().__init__()
        self.hf, self.normalize = model.hf, model.normalize
        model.hf.model.language_model.set_attn_implementation("sdpa")

    def response_logits(self, batch: PaddedMicroBatch) -> tuple[Tensor, Tensor]:
        """Full logits of all positions, then those that predict response tokens, and those tokens."""
        pixels = {name: self.normalize(name, value) for name, value in batch.pixel_values.items()}
        logits = self.hf(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False, **pixels
        ).logits.float()
        labels = batch.labels[:, 1:]
        wanted = labels != -100
        return logits[:, :-1][wanted], labels[wanted]

    def forward(self, weak: PaddedMicroBatch, strong: PaddedMicroBatch | None, num_tokens: float) -> Tensor:
        """The PUMA loss (defaults of the paper), or cross entropy where there is no strong side."""
        strong_logits = None
        if strong is not None:
            with torch.no_grad():
                strong_logits, _ = self.response_logits(strong)
        weak_logits, labels = self.response_logits(weak)
        cross_entropy = F.cross_entropy(weak_logits, labels, reduction="sum") / num_tokens
        if strong_logits is None:
            return cross_entropy
        weak_logs, strong_logs = weak_logits.log_softmax(-1), strong_logits.log_softmax(-1)
        fkl = F.kl_div(strong_logs, weak_logs, reduction="sum", log_target=True) / num_tokens
        rkl = F.kl_div(weak_logs, strong_logs, reduction="sum", log_target=True) / num_tokens
        return 0.1 * (0.2 * fkl + 0.8 * rkl) + 0.9 * cross_entropy


def plain_batches(model: MathModel, rows: list[tuple[Row, Row | None]], rows_at_a_time: int) -> list[tuple]:
    """Rows in their order, padded to the longest of each micro-batch."""
    image_tokens = count_image_tokens(model.config)

    def pad(side: list[Row]) -> PaddedMicroBatch:
        sequences = [sequence(row, model.config.image_token_id, image_tokens) for row in side]
        longest = max(map(len, sequences))
        ids = torch.zeros(len(side), longest, dtype=torch.int64)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for number, (row, tokens) in enumerate(zip(side, sequences, strict=True)):
            ids[number, : len(tokens)] = torch.tensor(tokens)
            mask[number, : len(tokens)] = 1
            labels[number, len(tokens) - len(row.response) : len(tokens)] = torch.tensor(row.response)
        return PaddedMicroBatch(ids, mask, labels, black_images(model, side))

    batches = []
    for start in range(0, len(rows), rows_at_a_time):
        chosen = rows[start : start + rows_at_a_time]
        strong = pad([strong for _, strong in chosen]) if chosen[0][1] is not None else None
        batches.append((pad([weak for weak, _ in chosen]), strong))
    return batches


# ----------------------------------------------------------------------------------------------------------------------
# Measuring


def measure(way: str, stage: int, rows: list, process: runtime.Process, args: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step, its loss, peak bytes and the FLOPs that the method needs, for one way of doing it."""
    bf16 = process.device.type == "cuda"
    torch.manual_seed(0)
    dtype, device = torch.bfloat16 if bf16 else torch.float32, process.device.type
    model = load_model(args.preset, random=True, dtype=dtype, device=device)  # drawn there: a CPU takes minutes for it
    model.set_trainable(STAGE_PARTS[stage])
    model.train()
    packs = our_packs(model, rows, args.pack_tokens)
    flops = step_flops(model, packs)
    tokens = sum(side.num_tokens for one in packs for side in one if side is not None)
    num_tokens = sum(weak.num_response_tokens for weak, _ in packs)
    module: nn.Module = model
    batches = packs
    if way == "plain":
        batches = plain_batches(model, rows, args.plain_rows)
        module = PlainModel(model)
    if args.compile and way == "ours":
        runtime.compile_layers(module)
    if args.activation_checkpointing:
        runtime.checkpoint_activations(module)
    runtime.shard(module, process, unused=lambda name: stage == 1 and part_of(name) != "llm")
    optimizer = torch.optim.AdamW(runtime.parameter_groups(module, 0.1), lr=1e-6, fused=bf16)

    def forward(weak: MicroBatch | PaddedMicroBatch, strong: MicroBatch | PaddedMicroBatch | None) -> Tensor:
        weak = weak.to(process.device)
        strong = None if strong is None else strong.to(process.device)
        if way == "plain":
            return module(weak, strong, num_tokens=num_tokens)
        if strong is None:
            return module(train_stage3.cross_entropy, weak, num_tokens=num_tokens, config=train_stage3.Config())
        return module(train_stage2.puma, weak, strong, num_tokens=num_tokens, config=train_stage2.Config()).loss

    seconds, loss = timed_steps(forward, batches, module, optimizer, process, args)
    peak = torch.cuda.max_memory_allocated() if bf16 else 0
    return {"seconds": seconds, "loss": loss, "peak": peak, "flops": flops, "tokens": tokens}


def timed_steps(forward: Callable[..., Tensor], batches: list, module: nn.Module, optimizer: torch.optim.Optimizer,
                process: runtime.Process, args: argparse.Namespace) -> tuple[float, float]:
    """(median seconds of args.steps steps after one to warm up, loss of the first)."""
    cuda = process.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    times, losses = [], []
    for _ in range(args.steps + 1):
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m bench step`."""
    cuda = torch.cuda.is_available()
    parser.add_argument("--preset", default="puma-qwen2-1.5b" if cuda else "tiny")
    parser.add_argument("--stages", nargs="+", type=int, choices=(1, 2, 3), default=[1, 2, 3])
    parser.add_argument("--rows", type=int, default=64 if cuda else 16, help="rows (pairs) of one rank in a step")
    parser.add_argument("--pack_tokens", type=int, default=16384 if cuda else 2048)
    parser.add_argument("--plain_rows", type=int, default=4, help="rows in a micro-batch of the plain way")
    parser.add_argument("--steps", type=int, default=5 if cuda else 3, help="timed steps of each turn")
    parser.add_argument("--turns", type=int, default=2, help="how often the two ways take turns")
    parser.add_argument("--activation_checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true", help="torch.compile our layers")
    parser.add_argument("--out_dir", type=Path, default=Path("bench"))


def run(args: argparse.Namespace) -> None:
    """Measure, print, and write step_PRESET.csv and .md."""
    process = runtime.setup(0)
    peak = peak_flops(process.device)
    results = []
    for stage in args.stages:
        workload = (TINY_WORKLOADS if args.preset == "tiny" else WORKLOADS)[stage]
        rows = make_rows(workload, args.rows, 600 if args.preset == "tiny" else 100_000, seed=stage + 10 * process.rank)
        turns: dict[str, list[dict]] = {"ours": [], "plain": []}
        for _ in range(args.turns):
            for way in turns:
                try:
                    turns[way].append(measure(way, stage, rows, process, args))
                    done = turns[way][-1]  # said at once: a run that is cut off leaves its last line
                    runtime.print0(f"stage {stage}, {way}: {done['seconds']:.3f} s a step, loss {done['loss']:.4f}")
                except torch.cuda.OutOfMemoryError:
                    runtime.print0(f"stage {stage}, {way}: out of memory; fewer --plain_rows or --pack_tokens")
                gc.collect()
                if process.device.type == "cuda":
                    torch.cuda.empty_cache()
        if turns["ours"] and turns["plain"] and process.world_size == 1:
            ours, plain = turns["ours"][0]["loss"], turns["plain"][0]["loss"]
            if abs(ours - plain) > 0.02 * abs(plain):
                raise UserError(f"stage {stage}: the losses differ, ours {ours}, plain {plain}: no comparison")
        for way, found in turns.items():
            if found:
                seconds = min(one["seconds"] for one in found)
                row = {"stage": stage, "way": way, "rows_per_second": args.rows * process.world_size / seconds}
                row |= {"tokens_per_second": found[0]["tokens"] * process.world_size / seconds, "seconds": seconds}
                row |= {"MFU_%": 100 * found[0]["flops"] / seconds / peak if peak else ""}
                row |= {"peak_GiB": found[0]["peak"] / GIB or "", "loss": found[0]["loss"]}
                results.append(
                    {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()}
                )
    if process.is_first and results:
        report(results, process, args)
    runtime.shutdown(process)


def report(results: list[dict[str, object]], process: runtime.Process, args: argparse.Namespace) -> None:
    """Print the table and write it with what it was measured on."""
    facts = {"GPUs or processes": process.world_size} | environment(process.device.type)
    table = markdown_table(results)
    lines = [f"# A step of {args.preset}: ours and the plain way", "", table]
    for stage in args.stages:
        speed = {row["way"]: float(row["rows_per_second"]) for row in results if row["stage"] == stage}
        if len(speed) == 2:
            lines.append(f"stage {stage}: {speed['ours'] / speed['plain']:.2f} times the plain way's rows per second  ")
    described = "; ".join(f"{name} {value}" for name, value in facts.items())
    lines.append(f"\n{described}; `python -m bench {' '.join(sys.argv[1:])}`. Random weights and rows; blank images; "
                 "data loading not counted. Seconds: the better of the turns' medians.")
    print("\n".join(lines))
    args.out_dir.mkdir(exist_ok=True)
    name = f"step_{args.preset.replace('.', '_')}_{process.device.type}"
    write_csv(args.out_dir / f"{name}.csv", [facts | row for row in results])
    (args.out_dir / f"{name}.md").write_text("\n".join(lines) + "\n")
