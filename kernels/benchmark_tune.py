"""Time the Triton kernels over block shapes, against the same GPU's copy bandwidth, to choose or check the defaults.

A pass over logits moves 2 x 2 bytes per element in bfloat16 (both branches) and the gradient pass 2 more: 10 in all. In
one launch, whatever the second pass finds in the L2 cache need not move again; the floor is 6.
"""

import argparse
import itertools
from pathlib import Path

import torch

from .benchmark import copy_bandwidth, environment
from .tables import markdown_table, write_csv

LANES = (256, 512, 1024, 2048)
WARPS = (4, 8, 16, 32)
TERMS = {"alpha": 0.2, "lam": 0.1, "tau": 1.0, "ignore_index": -100}


def time_launches(rows: int, vocabulary: int, one_launch: bool, repeats: int) -> float:
    """Median milliseconds for losses and gradient of [rows, vocabulary] bfloat16 logits, in one launch or in two."""
    from . import triton_puma

    weak, strong = torch.randn(2, rows, vocabulary, device="cuda", dtype=torch.bfloat16)
    gradient, row_losses = torch.empty_like(weak), torch.empty(3, rows, device="cuda")
    labels = torch.randint(vocabulary, (rows,), device="cuda")
    scale = torch.ones((), device="cuda")
    times = []
    for _ in range(repeats + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        if one_launch:
            triton_puma.puma_rows(weak, strong, labels, row_losses, gradient, strong_is_difference=True, **TERMS)
        else:
            _, statistics = triton_puma.puma_forward(weak, strong, labels, **TERMS)
            triton_puma.puma_backward(weak, strong, labels, statistics, gradient, scale, **TERMS)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times[3:])[repeats // 2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench.py tune`."""
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=151936)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("bench"))


def run(args: argparse.Namespace) -> None:
    """Time every block shape that the device can hold and write the table."""
    if not torch.cuda.is_available():
        raise SystemExit("error: block shapes can be timed on a CUDA device only; `bench.py compile` needs none")
    from . import triton_puma

    bandwidth = copy_bandwidth("cuda")
    moved = 10 * args.tokens * args.vocabulary
    rows = []
    for one_launch, lanes, warps in itertools.product((True, False), LANES, WARPS):
        if lanes < 32 * warps:
            continue  # more threads than lanes
        triton_puma.ONE_LAUNCH = triton_puma.TWO_LAUNCHES = (lanes, warps)
        milliseconds = time_launches(args.tokens, args.vocabulary, one_launch, args.repeats)
        rate = moved / milliseconds / 1e6
        rows.append(
            {
                "launches": 1 if one_launch else 2,
                "lanes": lanes,
                "warps": warps,
                "ms": round(milliseconds, 3),
                "GB/s at 10 bytes": round(rate),
                "of copy": f"{rate / bandwidth:.0%}",
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
