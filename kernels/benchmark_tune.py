"""Time the Triton kernel over block shapes and ways to use the L2 cache, against the same GPU's copy bandwidth.

A pass over logits moves 2 x 2 bytes per element in bfloat16 (both branches) and the gradient pass 2 more: 10 in all. In
one launch, whatever the second pass finds in the L2 cache need not move again: the floor is 6. What is to be expected,
by arithmetic (V = 151,936, the shape and the registers of bench/kernel_compile.md):

  * A program of 32 warps fills a multiprocessor, so a row is in flight on each, 0.61 MB with both branches: 66 MB on an
    A100 (108 multiprocessors, 40 MB of L2), 80 MB on an H100 or H200 (132, 50 MB). If all programs turned from the
    first pass to the second at once, that would not fit. Out of step they need half of it: a row's share grows through
    the first pass and shrinks through the second, whose reads are marked as the first to go and whose results lie where
    the weak logits lay. Fewer rows per launch fit in any case, and leave multiprocessors idle.
  * At 43 instructions per element a multiprocessor (128 a clock) does 3 elements a clock: 0.67e12 a second on an H200
    at 1.7 GHz, 6.7 TB/s at 10 bytes, but 4.0 at 6. There, at 4.8 TB/s, the floor is out of this kernel's reach whatever
    the cache does; an H100 (3.35 TB/s) would need 84 % of its instruction slots, an A100 (2.0) 75 %.
  * A row in the shared memory of a cluster (three multiprocessors hold 0.61 MB) would take the chance out of it, but
    Triton's programs cannot read each other's shared memory, and the instructions would remain.
"""

import argparse
import itertools
from pathlib import Path

import torch

from errors import UserError

from .benchmark import copy_bandwidth, device_milliseconds, environment
from .tables import markdown_table, write_csv

LANES = (256, 512, 1024, 2048)
WARPS = (4, 8, 16, 32)
TERMS = {"alpha": 0.2, "lam": 0.1, "tau": 1.0, "ignore_index": -100}


def configurations(rows: int, multiprocessors: int) -> list[dict[str, int | bool]]:
    """Every block shape, in one launch for losses and gradient and in two; then the default shape in one launch
    without hints to the cache, and with fewer rows in flight."""
    from . import triton_puma

    found = [
        {"launches": launches, "lanes": lanes, "warps": warps, "rows per launch": rows, "hints": True}
        for launches, lanes, warps in itertools.product((1, 2), LANES, WARPS)
        if lanes >= 32 * warps  # no more threads than lanes
    ]
    lanes, warps = triton_puma.ONE_LAUNCH
    usual = {"launches": 1, "lanes": lanes, "warps": warps, "rows per launch": rows, "hints": True}
    found.append(usual | {"hints": False})
    for share in (4, 3, 2):  # quarters of the multiprocessors
        found.append(usual | {"rows per launch": max(1, multiprocessors * share // 4)})
    return found


def time_kernel(configuration: dict, rows: int, vocabulary: int, repeats: int, device: str = "cuda") -> float:
    """Median milliseconds for losses and gradient of [rows, vocabulary] bfloat16 logits."""
    from . import triton_puma

    triton_puma.ONE_LAUNCH = triton_puma.TWO_LAUNCHES = configuration["lanes"], configuration["warps"]
    triton_puma.EVICTION_HINTS = configuration["hints"]
    source, strong = (torch.randn(rows, vocabulary, device=device, dtype=torch.bfloat16) for _ in range(2))
    weak, row_losses = source.clone(), torch.empty(3, rows, device=device)
    labels = torch.randint(vocabulary, (rows,), device=device)
    scale = torch.ones((), device=device)
    step = configuration["rows per launch"]

    def launch() -> None:
        if configuration["launches"] == 1:  # as in the linear op: the gradient over the weak logits
            for part in (slice(start, start + step) for start in range(0, rows, step)):
                triton_puma.puma_rows(
                    weak[part],
                    strong[part],
                    labels[part],
                    row_losses[:, part],
                    weak[part],
                    strong_is_difference=True,
                    **TERMS,
                )
        else:
            _, statistics = triton_puma.puma_forward(source, strong, labels, **TERMS)
            triton_puma.puma_backward(source, strong, labels, statistics, weak, scale, **TERMS)

    launch()  # compiles
    times = []
    for _ in range(repeats):
        weak.copy_(source)
        times.append(device_milliseconds(launch))
    return sorted(times)[repeats // 2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench.py tune`."""
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=151936)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("bench"))


def run(args: argparse.Namespace) -> None:
    """Time every configuration and write the table."""
    if not torch.cuda.is_available():
        raise UserError("block shapes can be timed on a CUDA device only; `bench.py compile` needs none")
    bandwidth = copy_bandwidth("cuda")
    moved = 10 * args.tokens * args.vocabulary
    rows = []
    for configuration in configurations(args.tokens, torch.cuda.get_device_properties(0).multi_processor_count):
        milliseconds = time_kernel(configuration, args.tokens, args.vocabulary, args.repeats)
        rate = moved / milliseconds / 1e6
        rows.append(
            configuration
            | {
                "ms": round(milliseconds, 3),
                "GB/s at 10 bytes": round(rate),
                "of copy": f"{rate / bandwidth:.0%}",
                "bytes per element at copy speed": round(10 * bandwidth / rate, 2),
            }
        )
        print(rows[-1], flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    facts = environment("cuda") | {"copy GB/s": round(bandwidth), "tokens": args.tokens, "vocabulary": args.vocabulary}
    path = args.out / f"kernel_tune_{facts['device'].lower().replace(' ', '-')}"
    write_csv(path.with_suffix(".csv"), [facts | row for row in rows])
    described = "; ".join(f"{name} {value}" for name, value in facts.items())
    path.with_suffix(".md").write_text(f"# Block shapes, timed\n\n{described}\n\n{markdown_table(rows)}")
    print(f"written: {path}.csv, .md")
